//! Messages that are peeked at, copied a hundredfold, come late, or have nowhere to die: the rows decide.

use std::collections::BTreeMap;
use std::time::Duration;

use common::broker::Task;
use common::journey::{Mode, State};
use common::stages::STAGES;
use common::tape::Vid;
use cta_sim::World;
use journeys::checker::{all_finished, invariants};
use journeys::fleet::Fleet;
use journeys::services::{Services, TestVhost};
use journeys::site::{Site, all_at_rest};
use journeys::steps::until;
use journeys::tap::Tap;
use producer::tick::{Context, tick};
use serde_json::json;
use tokio::sync::watch;
use worker::delivery::{Deliverer, Report};

const VID: &str = "V01001";

async fn with_broker(tapes: u64) -> (TestVhost, Site, Vec<String>) {
    let vhost = Services::get().fresh_vhost();
    let mut site = Site::new(World::new().with_full_tapes(tapes).with_durations(20, 100)).await;
    site.settings.producer.interval = Duration::from_millis(100);
    site.settings.broker = Some(vhost.broker());
    let vids: Vec<String> = (0..tapes).map(|number| format!("V{:05}", 1001 + number)).collect();
    site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    (vhost, site, vids)
}

/// Delivers a tape that is not full, as a worker does up to the letter: the Stop is committed, nobody has set mode error.
async fn stopped_without_a_letter(site: &Site) -> Task {
    site.edit(|world| world.tapes.get_mut(VID).expect("a tape").full = false);
    site.tick_of(&[]).await;
    let tape: Vid = VID.parse().expect("a VID");
    let generation = site.row(VID).await.task.expect("a task").generation;
    let (_tell, told) = watch::channel(false);
    let report = Deliverer::new(site.store(), site.cta(), "here", told).deliver(&tape, "start", generation).await;
    assert!(matches!(report, Ok(Report::Stopped(_))), "{report:?}");
    Task { tape, stage: "start".to_owned(), generation }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_an_operator_peeks_at_until_it_dies_is_published_again() {
    let (vhost, site, vids) = with_broker(1).await;
    let tap = Tap::on(&vhost).await;
    site.tick().await;
    let queue = tap.topology().stage_queue("start");
    tap.until_depth(&queue, 1).await;
    let peek = json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"});
    let mut seen = 0;
    while tap.depth(&tap.topology().dead_queue()).await == 0 {
        let (status, got) =
            vhost.api("POST", &format!("/api/queues/{}/{queue}/get", vhost.name()), Some(&peek)).expect("an answer");
        assert_eq!(status, 200, "{got}");
        seen += got.as_array().map_or(0, Vec::len);
        assert!(seen < 100, "the delivery limit does not strike");
    }
    assert!(seen >= 20, "{seen}");
    let mut fleet = Fleet::of(&site, 1, 2);
    fleet.until(&site, "finished", all_at_rest).await;
    fleet.stop().await;
    assert_eq!(site.at(VID).await, (State::Finished, Mode::Auto));
    let letters = site.events_of(VID, "dead-letter").await;
    assert_eq!(letters.len(), 1, "it is in the history, and did nothing: {letters:?}");
    assert_eq!(letters[0].detail["how"], "delivery_limit");
    invariants(&site).await.none();
    assert_eq!(site.changes()[&vids[0]].len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_comes_after_the_requeue_flips_nothing() {
    let (vhost, site, _) = with_broker(1).await;
    let tap = Tap::on(&vhost).await;
    let letter = stopped_without_a_letter(&site).await;
    let late = Context { lost_letter: Duration::ZERO, ..site.context() };
    tick(&late, &STAGES, false).await.expect("a tick");
    assert_eq!(site.at(VID).await, (State::Entered, Mode::Error));
    site.edit(|world| world.tapes.get_mut(VID).expect("a tape").full = true);
    site.requeue(VID).await;
    tap.put_dead(&letter).await;
    let mut fleet = Fleet::of(&site, 1, 2);
    fleet.until(&site, "at rest", all_at_rest).await;
    tap.until_depth(&tap.topology().dead_queue(), 0).await;
    fleet.stop().await;
    assert_eq!(site.at(VID).await, (State::Finished, Mode::Auto));
    assert_eq!(site.events_of(VID, "error").await.len(), 1, "the one before the requeue");
    let letters = site.events_of(VID, "dead-letter").await;
    assert_eq!(letters.iter().map(|event| event.detail["current"].clone()).collect::<Vec<_>>(), [json!(false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_whose_dead_letter_has_nowhere_to_go_is_followed_by_the_tick() {
    let (vhost, site, _) = with_broker(1).await;
    site.edit(|world| world.tapes.get_mut(VID).expect("a tape").full = false);
    let tap = Tap::on(&vhost).await;
    let mut workers = Fleet::new();
    workers.worker(&site, "host1", 2, &STAGES.map(|stage| stage.name));
    site.tick_of(&[]).await;
    let name = tap.topology().dead_exchange();
    until("the exchange of the dead letters is gone", || {
        vhost
            .api("DELETE", &format!("/api/exchanges/{}/{name}", vhost.name()), None)
            .is_ok_and(|(status, _)| status == 204)
    })
    .await;
    let stopped = |rows: &[common::store::Overview]| {
        rows.iter().any(|row| {
            row.task.as_ref().is_some_and(|task| task.reason.as_ref().is_some_and(|kept| kept.code == "not-full"))
        })
    };
    let context = site.context();
    tick(&context, &STAGES, false).await.expect("a tick");
    workers.until(&site, "the Stop is committed", stopped).await;
    let late = Context { lost_letter: Duration::ZERO, ..site.context() };
    until_in_error(&site, &late).await;
    workers.stop().await;
    assert_eq!(site.events_of(VID, "error").await.len(), 1);
    assert_eq!(site.issued(), BTreeMap::new());
}

async fn until_in_error(site: &Site, context: &Context) {
    let begun = std::time::Instant::now();
    while site.at(VID).await.1 != Mode::Error {
        tick(context, &[], false).await.expect("a tick");
        assert!(begun.elapsed() < journeys::site::PATIENCE, "{:?}", site.why(VID).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_copies_of_every_message_for_four_workers_change_nothing() {
    let (vhost, site, vids) = with_broker(2).await;
    let tap = Tap::on(&vhost).await;
    site.tick().await;
    for vid in &vids {
        let generation = site.row(vid).await.task.expect("a task").generation;
        let task = Task { tape: vid.parse().expect("a VID"), stage: "start".to_owned(), generation };
        for _ in 0..100 {
            tap.put("start", &task.encode()).await;
        }
    }
    tap.until_depth(&tap.topology().stage_queue("start"), 202).await;
    let copier = tap.copy_all(10).await;
    let mut fleet = Fleet::of(&site, 4, 2);
    fleet.until(&site, "all finished", all_at_rest).await;
    tap.until_depth(&tap.topology().stage_queue("start"), 0).await;
    fleet.stop().await;
    assert!(copier.copies() > 0);
    all_finished(&site, &vids).await.none();
}

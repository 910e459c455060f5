//! What an operator asks for: retry, give back, unstick.

use std::time::Instant;

use common::journey::{Mode, State};
use common::task::Wanted;
use cta_sim::{Plan, TapeState, World};
use journeys::site::{PATIENCE, Site, all_at_rest};
use journeys::steps::moment;

const VID: &str = "V01001";
const HOUR_MS: u64 = 3_600_000;

async fn site(world: World) -> Site {
    let site = Site::new(world).await;
    site.enter(&[VID]).await;
    site
}

fn with_plan(plan: Plan) -> World {
    let mut world = World::new().with_full_tapes(1);
    world.tapes.get_mut(VID).expect("the tape").plan = plan;
    world
}

/// Ticks until the row is gone.
async fn until_given_back(site: &Site) {
    let begun = Instant::now();
    loop {
        site.tick().await;
        let rows = site.rows().await;
        if rows.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "not given back: {rows:#?}");
        moment().await;
    }
}

async fn slots(site: &Site) -> i64 {
    site.number(&format!("SELECT count(*) FROM {} WHERE slot_since IS NOT NULL", site.beside("_task"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_repack_is_retried_and_its_request_kept_in_the_history() {
    let site = site(with_plan(Plan { fail_files: 2, fail_times: 1, ..Plan::default() })).await;
    site.tick_until("a failed repack", all_at_rest).await;
    assert_eq!(site.at(VID).await, (State::Started, Mode::Error));
    assert_eq!(site.why(VID).await.0, "repack-failed");
    assert_eq!(slots(&site).await, 0, "a stopped repack holds no slot");
    site.want(VID, Wanted::Retry).await;
    site.finish(VID).await;
    assert_eq!(
        site.changes()[VID],
        [
            "tape ch --state REPACKING",
            "repack add",
            "repack rm",
            "repack add",
            "repack rm",
            "tape ch --state DISABLED",
            "tape ch --tapepool quarantine",
            "tape reclaim",
            "tape ch --tapepool tolabel_IBM1L9",
            "tape ch --state ACTIVE",
        ]
    );
    assert_eq!(site.row(VID).await.task.expect("a task").round, 2);
    let removals: Vec<_> = site
        .events_of(VID, "intent")
        .await
        .into_iter()
        .filter(|event| event.detail["command"].as_str().is_some_and(|command| command.contains("repack rm")))
        .collect();
    let kept: Vec<_> = removals.iter().map(|event| event.detail["proof"]["request"]["status"].as_str()).collect();
    assert_eq!(kept, [Some("Failed"), Some("Complete")]);
    assert_eq!(removals[0].detail["proof"]["request"]["vid"], VID);
    // The state to give back is the one before the first round, not REPACKING.
    assert_eq!(site.world().tapes[VID].state, TapeState::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_of_which_each_repack_selects_only_a_part_goes_round_until_it_is_empty() {
    let mut world = World::new().with_full_tapes(1);
    world.max_files_to_select = 4;
    let site = site(world).await;
    site.finish(VID).await;
    assert_eq!(site.row(VID).await.task.expect("a task").round, 3, "10 files, 4 at a time");
    assert_eq!(site.times(VID, "repack add"), 3);
    assert_eq!(site.times(VID, "repack rm"), 3);
    assert_eq!(site.times(VID, "tape reclaim"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_is_given_back_from_every_state_before_reclaim() {
    for source in [TapeState::Active, TapeState::Disabled] {
        for state in &State::ALL[..4] {
            let mut world = World::new().with_full_tapes(1);
            world.tapes.get_mut(VID).expect("the tape").state = source;
            let pool = world.tapes[VID].pool.clone();
            let site = site(world).await;
            let what = format!("{source:?} at {state}");
            site.bring(&[VID], *state).await;
            site.want(VID, Wanted::GiveBack).await;
            until_given_back(&site).await;
            let world = site.world();
            assert_eq!((world.tapes[VID].state, &world.tapes[VID].pool), (source, &pool), "{what}");
            assert_eq!(world.request(VID), None, "{what}");
            assert_eq!(site.tries(VID, "tape reclaim"), 0, "{what}");
            if *state == State::Entered {
                assert_eq!(site.begun(VID), [], "nothing had been done: nothing to undo");
            }
            let history = format!(
                "SELECT count(*) FROM {} WHERE tape = '{VID}' AND why = 'given back' AND row->>'entered' IS NOT NULL",
                site.beside("_history")
            );
            assert_eq!(site.number(&history).await, 1, "{what}");
            assert_eq!(slots(&site).await, 0, "{what}");
            assert_eq!(cta_sim::overlaps(&site.journal()), Vec::<String>::new(), "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_in_the_middle_of_its_repack_is_given_back_and_its_slot_with_it() {
    let site = site(World::new().with_full_tapes(1).with_durations(0, HOUR_MS)).await;
    site.bring(&[VID], State::Started).await;
    site.tick().await;
    assert_eq!(slots(&site).await, 1);
    site.want(VID, Wanted::GiveBack).await;
    until_given_back(&site).await;
    assert_eq!(site.world().tapes[VID].state, TapeState::Active);
    assert_eq!(site.world().request(VID), None);
    assert_eq!(slots(&site).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_tape_is_given_back_after_cta_has_moved_it() {
    let site = site(World::new().with_full_tapes(1).with_durations(HOUR_MS, 0)).await;
    site.tick().await;
    assert_eq!(site.world().tapes[VID].state, TapeState::RepackingPending);
    site.want(VID, Wanted::GiveBack).await;
    let begun = site.begun(VID).len();
    for _ in 0..3 {
        site.tick().await;
        moment().await;
    }
    assert_eq!(site.begun(VID).len(), begun, "CTA is in the middle of it");
    assert_eq!(site.why(VID).await.0, "tape-pending");
    site.edit(|world| world.skip(2 * HOUR_MS));
    until_given_back(&site).await;
    assert_eq!(site.world().tapes[VID].state, TapeState::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reclaimed_tape_is_not_given_back() {
    let site = site(World::new().with_full_tapes(1)).await;
    site.bring(&[VID], State::Reclaimed).await;
    let begun = site.begun(VID).len();
    site.want(VID, Wanted::GiveBack).await;
    site.tick().await;
    assert_eq!(site.at(VID).await, (State::Reclaimed, Mode::Error));
    assert_eq!(site.why(VID).await.0, "tape-changed");
    assert_eq!(site.begun(VID).len(), begun);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_that_a_drive_disabled_in_its_repack_is_unstuck() {
    let site = site(with_plan(Plan { disable_after: Some(3), ..Plan::default() })).await;
    let begun = Instant::now();
    while site.world().tapes[VID].state != TapeState::RepackingDisabled {
        assert!(begun.elapsed() < PATIENCE, "{:#?}", site.rows().await);
        site.tick().await;
    }
    assert_eq!(site.at(VID).await, (State::Started, Mode::Auto));
    site.want(VID, Wanted::Unstick).await;
    site.finish(VID).await;
    assert_eq!(site.times(VID, "tape ch --state REPACKING"), 2);
    assert_eq!(site.times(VID, "repack add"), 1);
    assert_eq!(site.events_of(VID, "fulfilled").await.len(), 1);
}

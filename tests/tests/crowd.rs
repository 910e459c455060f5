//! Many programs at once, messages lost, copied, late and hostile, servers that are away: no tape is touched twice, none is lost.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does, by a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Stdio};
use std::time::Duration;

use common::journey::{Mode, State};
use common::settings::Settings;
use common::stages::{STAGES, end, start};
use common::store::EventFilter;
use cta_sim::World;
use journeys::checker::JOURNEY;
use journeys::fleet::Fleet;
use journeys::proxy::Proxy;
use journeys::services::{Services, TestVhost};
use journeys::site::{PATIENCE, Site, all_at_rest};
use journeys::tap::Tap;
use producer::tick::{Context, tick};
use worker::delivery::{Deliverer, Report};

/// `V01001` and on, as many, entered, at a site with a broker.
async fn with_broker(tapes: u64) -> (TestVhost, Site) {
    let vhost = Services::get().fresh_vhost();
    let mut site = without_broker(tapes).await;
    site.settings.broker = Some(vhost.broker());
    (vhost, site)
}

async fn without_broker(tapes: u64) -> Site {
    let mut site = Site::new(World::new().with_full_tapes(tapes).with_durations(20, 100)).await;
    site.settings.producer.interval = Duration::from_millis(100);
    let vids = vids(tapes);
    site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    site
}

fn vids(tapes: u64) -> Vec<String> {
    (0..tapes).map(|number| format!("V{:05}", 1001 + number)).collect()
}

/// Each of these tapes went all the way and every command was begun once; no other tape was touched.
async fn assert_went_all_the_way<'a>(site: &Site, vids: impl IntoIterator<Item = &'a str>) {
    let journey: Vec<String> = JOURNEY.map(str::to_owned).into();
    let mut expected = BTreeMap::new();
    for vid in vids {
        assert_eq!(site.at(vid).await, (State::Finished, Mode::Auto), "{vid}: {:?}", site.why(vid).await);
        expected.insert(vid.to_owned(), journey.clone());
    }
    assert_eq!(site.issued(), expected);
    assert_eq!(site.changes(), expected);
    assert_eq!(cta_sim::overlaps(&site.journal()), Vec::<String>::new());
}

/// Who stamped.
async fn stampers(site: &Site) -> BTreeSet<String> {
    let filter = EventFilter { kind: Some("done".to_owned()), ..EventFilter::default() };
    site.store().events(&filter, 100_000).await.expect("the history").into_iter().map(|event| event.actor).collect()
}

fn queue(tap: &Tap, stage: &str) -> String {
    tap.topology().stage_queue(stage)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_set_to_manual_while_its_message_is_queued_is_not_touched_until_it_is_auto_again() {
    let (vhost, site) = with_broker(2).await;
    let tap = Tap::on(&vhost).await;
    site.tick().await;
    tap.until_depth(&queue(&tap, "start"), 2).await;
    site.sql("UPDATE repack_status SET mode = 'manual' WHERE tape = 'V01001'").await;
    let mut fleet = Fleet::of(&site, 1, 2);
    fleet.until(&site, "the other one finished", all_at_rest).await;
    tap.until_depth(&queue(&tap, "start"), 0).await;
    assert_eq!(site.at("V01001").await, (State::Entered, Mode::Manual));
    assert_went_all_the_way(&site, ["V01002"]).await;
    site.sql("UPDATE repack_status SET mode = 'auto' WHERE tape = 'V01001'").await;
    fleet.until(&site, "both finished", all_at_rest).await;
    fleet.stop().await;
    assert_went_all_the_way(&site, ["V01001", "V01002"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_whose_row_is_deleted_while_its_message_is_queued_is_not_touched() {
    let (vhost, site) = with_broker(2).await;
    let tap = Tap::on(&vhost).await;
    site.tick().await;
    tap.until_depth(&queue(&tap, "start"), 2).await;
    site.sql("DELETE FROM repack_status WHERE tape = 'V01001'").await;
    let mut fleet = Fleet::of(&site, 1, 2);
    fleet.until(&site, "the other one finished", all_at_rest).await;
    tap.until_depth(&queue(&tap, "start"), 0).await;
    fleet.stop().await;
    assert_eq!(site.rows().await.len(), 1);
    assert_went_all_the_way(&site, ["V01002"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_copies_of_every_message_change_nothing() {
    let (vhost, site) = with_broker(6).await;
    let tap = Tap::on(&vhost).await;
    let copier = tap.copy_all(3).await;
    let mut fleet = Fleet::of(&site, 2, 4);
    fleet.until(&site, "all finished", all_at_rest).await;
    fleet.stop().await;
    let stages = STAGES.len();
    assert!(copier.copies() >= 6 * stages * 3, "only {} copies were made", copier.copies());
    assert_went_all_the_way(&site, vids(6).iter().map(String::as_str)).await;
}

/// What a server does before it answers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Away {
    /// Closes every connection.
    Closed,
    /// Accepts connections and says nothing.
    Silent,
}

async fn started_before_the_servers(database: Away, broker: Away) {
    let (vhost, mut site) = with_broker(3).await;
    let direct = site.settings.clone();
    let to_database = Proxy::to(&format!("{}:{}", direct.database.host, direct.database.port)).await;
    let to_broker = Proxy::to(&vhost.address()).await;
    for (proxy, away) in [(&to_database, database), (&to_broker, broker)] {
        match away {
            Away::Closed => proxy.cut(),
            Away::Silent => proxy.freeze(),
        }
    }
    let (host, port) =
        to_database.address().split_once(':').map(|(host, port)| (host.to_owned(), port.parse())).unwrap();
    site.settings.database.host = host;
    site.settings.database.port = port.unwrap();
    site.settings.broker = Some(common::settings::Broker {
        url: vhost.broker().url.replace(&vhost.address(), &to_broker.address()),
        ..vhost.broker()
    });
    let mut fleet = Fleet::of(&site, 2, 2);
    // The test itself looks at the table without detours.
    site.settings = direct;
    let times = |away: Away| if away == Away::Closed { 4 } else { 2 };
    to_database.until_tried(times(database)).await;
    assert_eq!(site.issued(), BTreeMap::new());
    to_database.thaw();
    to_broker.until_tried(times(broker)).await;
    assert_eq!(site.issued(), BTreeMap::new());
    to_broker.thaw();
    fleet.until(&site, "all finished", all_at_rest).await;
    fleet.stop().await;
    assert_went_all_the_way(&site, vids(3).iter().map(String::as_str)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_started_before_a_database_that_closes_and_a_broker_that_is_silent_do_their_work_later() {
    started_before_the_servers(Away::Closed, Away::Silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_started_before_a_database_that_is_silent_and_a_broker_that_closes_do_their_work_later() {
    started_before_the_servers(Away::Silent, Away::Closed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_producer_says_who_ticks_and_leaves() {
    let site = without_broker(1).await;
    let first = site.store().acting("producer@first");
    let locks = first.tick_locks(&STAGES.map(|stage| stage.name)).await.unwrap();
    assert_eq!(locks.refused, []);
    let report = site.tick().await;
    for stage in &report.stages {
        assert!(stage.skipped.as_deref().is_some_and(|who| who.contains("producer@first")), "{stage:?}");
    }
    assert_eq!(report.stages.len(), STAGES.len());
    assert!(!report.failed());
    assert_eq!(site.issued(), BTreeMap::new());
    locks.release().await;
    site.tick_until("finished", all_at_rest).await;
    assert_went_all_the_way(&site, ["V01001"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_producers_at_once_without_a_broker_do_everything_once() {
    let site = without_broker(6).await;
    let mut fleet = Fleet::new();
    fleet.producer(&site, "first");
    fleet.producer(&site, "second");
    fleet.until(&site, "all finished", all_at_rest).await;
    fleet.stop().await;
    assert_went_all_the_way(&site, vids(6).iter().map(String::as_str)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_producers_at_once_with_a_broker_do_everything_once() {
    let (_vhost, site) = with_broker(6).await;
    let mut fleet = Fleet::of(&site, 2, 2);
    fleet.producer(&site, "second");
    fleet.until(&site, "all finished", all_at_rest).await;
    fleet.stop().await;
    assert_went_all_the_way(&site, vids(6).iter().map(String::as_str)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_run_beside_workers_does_nothing_twice() {
    let (_vhost, mut site) = with_broker(8).await;
    let mut fleet = Fleet::of(&site, 2, 2);
    let started = |rows: &[common::store::Overview]| {
        rows.iter().any(|row| row.row.as_ref().is_ok_and(|tape| tape.state() > State::Entered))
    };
    fleet.until(&site, "the workers have done something", started).await;
    site.settings.broker = None;
    let inline = site.context();
    let ticking = tokio::spawn(async move {
        loop {
            tick(&inline, &STAGES, false).await.expect("a tick");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    fleet.until(&site, "all finished", all_at_rest).await;
    ticking.abort();
    fleet.stop().await;
    assert_went_all_the_way(&site, vids(8).iter().map(String::as_str)).await;
    let who = stampers(&site).await;
    assert!(who.contains("test@here"), "the inline run did nothing: {who:?}");
    assert!(who.iter().any(|actor| actor.starts_with("worker@")), "the workers did nothing: {who:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_workers_never_hold_more_than_three_slots_for_two_hundred_tapes() {
    const TAPES: u64 = 200;
    const SLOTS: u32 = 3;
    let vhost = Services::get().fresh_vhost();
    let mut world = World::new().with_full_tapes(0).with_durations(0, 50);
    for (number, vid) in vids(TAPES).into_iter().enumerate() {
        let id = 4_294_967_296 + 10 * number as u64;
        world.tapes.insert(vid, cta_sim::Tape::full("pool_alpha_raw", "alpha_raw", id, 1));
    }
    let mut site = Site::new(world).await;
    site.settings.max_active_repacks = SLOTS;
    site.settings.broker = Some(vhost.broker());
    let vids = vids(TAPES);
    site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut fleet = Fleet::new();
    for number in 1..=20 {
        // What comes after the repack holds no slot.
        fleet.worker(&site, &format!("host{number}"), 1, &["start", "end"]);
    }
    let context = site.context();
    let observer = site.database.client().await;
    let mut most = 0;
    let mut held = Vec::new();
    let mut last = (0, std::time::Instant::now());
    loop {
        tick(&context, &[&start::START, &end::END], false).await.expect("a tick");
        let row = observer
            .query_one(
                "SELECT (SELECT count(*) FROM repack_status_task WHERE slot_since IS NOT NULL), \
                 (SELECT count(*) FROM repack_status WHERE repacked IS NOT NULL), \
                 (SELECT count(*) FROM repack_status WHERE mode <> 'auto')",
                &[],
            )
            .await
            .expect("the counts");
        let (slots, repacked, stopped): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        assert!(slots <= i64::from(SLOTS), "{slots} slots are taken");
        assert_eq!(stopped, 0, "a tape was stopped: {:#?}", site.rows().await);
        most = most.max(slots);
        held.push(slots);
        if repacked == i64::try_from(TAPES).expect("few") {
            break;
        }
        if repacked != last.0 {
            last = (repacked, std::time::Instant::now());
        }
        assert!(last.1.elapsed() < PATIENCE, "no tape was repacked for {PATIENCE:?}: {repacked} are");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fleet.stop().await;
    assert_eq!(most, i64::from(SLOTS), "the slots were never all in use: {held:?}");
    let journal = site.journal();
    // How many repacks meet depends on the machine's speed; that there were never more than slots must not.
    let most = cta_sim::max_active(&journal);
    assert!((1..=u64::from(SLOTS)).contains(&most), "{most} repacks at once");
    let begun = ["tape ch --state REPACKING", "repack add"].map(str::to_owned).to_vec();
    let expected: BTreeMap<String, Vec<String>> = vids.into_iter().map(|vid| (vid, begun.clone())).collect();
    assert_eq!(site.issued(), expected);
    assert_eq!(cta_sim::overlaps(&journal), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_whose_dead_letter_is_lost_is_followed_by_the_tick() {
    let (vhost, site) = with_broker(1).await;
    let tap = Tap::on(&vhost).await;
    site.tick().await;
    assert_eq!(tap.purge(&queue(&tap, "start")).await, 1);
    stopped_without_a_letter(&site).await;
    site.tick().await;
    assert_eq!(site.at("V01001").await, (State::Entered, Mode::Auto), "the letter may still come");
    let late = Context { lost_letter: Duration::ZERO, ..site.context() };
    tick(&late, &STAGES, false).await.unwrap();
    assert_eq!(site.at("V01001").await, (State::Entered, Mode::Error));
    assert_eq!(site.why("V01001").await.0, "not-full");
    assert_eq!(site.issued(), BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_paused_stage_is_published_until_it_is_resumed() {
    let (vhost, site) = with_broker(2).await;
    let tap = Tap::on(&vhost).await;
    let store = site.store();
    store.pause("start", Some(("recalls first", None)), &serde_json::json!({})).await.unwrap();
    // Over several channels at once, so in no order.
    let published = |report: &producer::tick::TickReport| {
        let mut published = report.stages[0].published.clone();
        published.sort();
        published
    };
    assert_eq!(published(&site.tick().await), [] as [String; 0]);
    assert_eq!(tap.depth(&queue(&tap, "start")).await, 0);
    store.pause("start", None, &serde_json::json!({})).await.unwrap();
    assert_eq!(published(&site.tick().await), ["V01001", "V01002"]);
    assert_eq!(tap.depth(&queue(&tap, "start")).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_is_published_page_by_page_in_its_order_and_each_task_once() {
    let (vhost, site) = with_broker(0).await;
    let tap = Tap::on(&vhost).await;
    site.sql(
        "INSERT INTO repack_status SELECT 'D' || i, t, t, t, t, t, NULL, 10, 10, 5, NULL, 'auto', (ARRAY[10, 11, 49])[i % 3 + 1], 'LTO9', 'pool', 'bob' \
         FROM generate_series(100, 149) i, LATERAL (SELECT LOCALTIMESTAMP(0) - i / 10 * interval '1 day' AS t) x",
    )
    .await;
    let client = site.database.client().await;
    let order =
        client.query("SELECT tape FROM repack_status ORDER BY priority DESC, entered, tape", &[]).await.unwrap();
    let mut order: Vec<String> = order.iter().map(|row| row.get(0)).collect();
    let context = Context { page: 7, ..site.context() };
    let report = tick(&context, &STAGES, false).await.unwrap();
    let mut published = report.stages[4].published.clone();
    // Over several channels at once, so within a page in no order.
    published.chunks_mut(7).for_each(<[String]>::sort);
    order.chunks_mut(7).for_each(<[String]>::sort);
    assert_eq!(published, order);
    assert_eq!(tap.depth(&queue(&tap, "finish")).await, 50);
    assert_eq!(tick(&context, &STAGES, false).await.unwrap().stages[4].considered, 0, "until it counts as lost");
}

/// Delivers `V01001`, which is not full, as a worker does up to the letter: the Stop is committed, nobody has set mode error.
async fn stopped_without_a_letter(site: &Site) -> common::broker::Task {
    site.edit(|world| world.tapes.get_mut("V01001").expect("a tape").full = false);
    let tape: common::tape::Vid = "V01001".parse().expect("a VID");
    let generation = site.row("V01001").await.task.expect("a task").generation;
    let (_tell, told) = tokio::sync::watch::channel(false);
    let report = Deliverer::new(site.store(), site.cta(), "here", told).deliver(&tape, "start", generation).await;
    assert!(matches!(report, Ok(Report::Stopped(_))), "{report:?}");
    common::broker::Task { tape, stage: "start".to_owned(), generation }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_a_row_that_an_operator_has_locked_keeps_no_worker_from_the_other_tapes() {
    let (vhost, mut site) = with_broker(3).await;
    let tap = Tap::on(&vhost).await;
    let letter = stopped_without_a_letter(&site).await;
    let operator = site.database.client().await;
    operator.batch_execute("BEGIN; SELECT 1 FROM repack_status WHERE tape = 'V01001' FOR UPDATE").await.unwrap();
    tap.put_dead(&letter).await;
    let direct = site.settings.clone();
    let to_broker = Proxy::to(&vhost.address()).await;
    site.settings.broker = Some(common::settings::Broker {
        url: vhost.broker().url.replace(&vhost.address(), &to_broker.address()),
        ..vhost.broker()
    });
    let mut workers = Fleet::new();
    workers.worker(&site, "host1", 2, &STAGES.map(|stage| stage.name));
    site.settings = direct;
    let mut producers = Fleet::new();
    producers.producer(&site, "timer");
    let moved = |rows: &[common::store::Overview], least: State| {
        let tapes = || rows.iter().filter_map(|row| row.row.as_ref().ok());
        tapes().filter(|tape| tape.vid.as_str() != "V01001").all(|tape| tape.state() >= least)
    };
    workers.until(&site, "the others started", |rows| moved(rows, State::Started)).await;
    let connections = to_broker.tried();
    workers.until(&site, "the others finished", |rows| moved(rows, State::Finished)).await;
    assert_eq!(to_broker.tried(), connections, "the worker gave up its connections");
    operator.batch_execute("ROLLBACK").await.unwrap();
    workers.stop().await;
    producers.stop().await;
    let late = Context { lost_letter: Duration::ZERO, ..site.context() };
    tick(&late, &STAGES, false).await.unwrap();
    assert_eq!(site.at("V01001").await, (State::Entered, Mode::Error));
    assert_went_all_the_way(&site, ["V01002", "V01003"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_purged_are_published_again_and_every_tape_finishes() {
    let (vhost, mut site) = with_broker(3).await;
    let tap = Tap::on(&vhost).await;
    let published = |report: producer::tick::TickReport| report.stages[0].published.len();
    site.settings.redispatch_after = Duration::from_secs(3600);
    assert_eq!(published(site.tick().await), 3);
    assert_eq!(tap.purge(&queue(&tap, "start")).await, 3);
    assert_eq!(published(site.tick().await), 0, "they may still be under way");
    site.settings.redispatch_after = Duration::from_nanos(1);
    assert_eq!(published(site.tick().await), 3);
    tap.until_depth(&queue(&tap, "start"), 3).await;
    site.settings.redispatch_after = Duration::from_secs(2);
    let mut fleet = Fleet::of(&site, 1, 4);
    fleet.until(&site, "all finished", all_at_rest).await;
    fleet.stop().await;
    assert_went_all_the_way(&site, vids(3).iter().map(String::as_str)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_messages_are_parked_or_dropped_and_good_ones_flow() {
    let (vhost, site) = with_broker(2).await;
    site.sql("UPDATE repack_status SET mode = 'manual' WHERE tape = 'V01002'").await;
    site.tick_of(&[]).await;
    let before = format!("{:?}", site.row("V01002").await.row);
    let generation = site.row("V01002").await.task.expect("a task").generation;
    let tap = Tap::on(&vhost).await;
    let named = |vid: &str| format!(r#"{{"v":1,"tape":"{vid}","stage":"start","generation":7}}"#).into_bytes();
    let mut no_tasks: Vec<Vec<u8>> =
        ["--help", "--ALL", "../x", "v01001", "V01001;rm", "V01001 V01002", "V0\\u0000", "' OR 1=1 --", "", "V\\nX"]
            .map(named)
            .into();
    no_tasks.extend([
        vec![b'x'; 1024 * 1024],
        vec![0; 64],
        "[".repeat(4000).into_bytes(),
        [br#"{"a":"#.repeat(800), b"1".to_vec(), b"}".repeat(800)].concat(),
        Vec::new(),
        vec![0xff, 0xfe, b'{'],
        br#"{"v":2,"tape":"V01001","stage":"start","generation":1}"#.to_vec(),
        br#"{"v":1,"tape":"V01001","stage":"start"}"#.to_vec(),
        br#"{"v":1,"tape":"V01001","stage":"Start;","generation":1}"#.to_vec(),
        br#"{"v":1,"tape":"V01001","stage":"start","generation":-1}"#.to_vec(),
        br#"{"v":1,"tape":"V01001","stage":"start","generation":99999999999999999999}"#.to_vec(),
    ]);
    let task = |vid: &str, stage: &str, generation: i64| {
        format!(r#"{{"v":1,"tape":"{vid}","stage":"{stage}","generation":{generation}}}"#).into_bytes()
    };
    let empty_handed = [
        task("V09999", "start", 1),
        task("V01002", "start", generation),
        task("V01002", "end", generation),
        task("V01002", "start", i64::MAX),
        task("V01002", "reclaim", generation),
        task("V01002", "nosuchstage", generation),
    ];
    for body in no_tasks.iter().chain(&empty_handed) {
        tap.put("start", body).await;
    }
    let mut fleet = Fleet::of(&site, 1, 2);
    fleet.until(&site, "the good one finished", all_at_rest).await;
    tap.until_depth(&tap.topology().parked_queue(), u32::try_from(no_tasks.len()).unwrap()).await;
    tap.until_depth(&queue(&tap, "start"), 0).await;
    tap.until_depth(&tap.topology().dead_queue(), 0).await;
    fleet.stop().await;
    assert_went_all_the_way(&site, ["V01001"]).await;
    assert_eq!(site.rows().await.len(), 2);
    assert_eq!(format!("{:?}", site.row("V01002").await.row), before);
    for entry in site.journal() {
        assert!(entry.vid.as_deref().is_none_or(|vid| vid == "V01001"), "{entry:?}");
        let odd = ["--help", "--ALL", "../x", "V09999", "V01002"];
        assert!(!entry.argv.iter().any(|word| odd.contains(&word.as_str())), "{entry:?}");
    }
}

/// A real worker, started again whenever it ends, as a service manager does; ended when dropped.
struct Service(tokio::task::JoinHandle<()>);

impl Service {
    fn start(site: &Site, failpoint: &str) -> Service {
        let mut command = site.command("cta-ops-repack-worker");
        command
            .args(["--concurrency", "1"])
            .env("CTA_OPS_FAILPOINT", failpoint)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Service(tokio::spawn(async move {
            loop {
                let mut running = Running(command.spawn().expect("the worker program"));
                while running.0.try_wait().expect("a child").is_none() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A child that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Leases and waits as short as they may be.
fn hasty(site: &mut Site) {
    site.settings = Settings {
        lease: Duration::from_secs(7),
        settle: Duration::from_secs(1),
        retry: common::settings::Retry { max_attempts: 2, ..site.settings.retry.clone() },
        cta_admin: common::settings::CtaAdmin { timeout: Duration::from_secs(2), ..site.settings.cta_admin.clone() },
        ..site.settings.clone()
    };
}

async fn stops_alone(site: &Site, state: State) {
    assert_eq!(site.at("V01002").await, (state, Mode::Error));
    let (code, text) = site.why("V01002").await;
    assert_eq!(code, "crashed", "{text}");
    for vid in ["V01001", "V01003"] {
        assert_eq!(site.at(vid).await, (State::Finished, Mode::Auto));
    }
    for commands in site.issued().values() {
        let once: BTreeSet<&String> = commands.iter().collect();
        assert_eq!(once.len(), commands.len(), "a command was run twice: {commands:?}");
    }
}

async fn with_the_real_worker(failpoint: &str, state: State) {
    let (_vhost, mut site) = with_broker(3).await;
    hasty(&mut site);
    let _services = [Service::start(&site, failpoint), Service::start(&site, failpoint)];
    let mut fleet = Fleet::new();
    fleet.producer(&site, "timer");
    fleet.until(&site, "all at rest", all_at_rest).await;
    fleet.stop().await;
    stops_alone(&site, state).await;
}

async fn with_the_real_producer(failpoint: &str, state: State) {
    let mut site = without_broker(3).await;
    hasty(&mut site);
    let configuration = site.command("cta-ops-repack-producer");
    let begun = std::time::Instant::now();
    while !all_at_rest(&site.rows().await) {
        let mut command = std::process::Command::new(configuration.get_program());
        command.args(configuration.get_args()).arg("tick").env("CTA_OPS_FAILPOINT", failpoint);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        // A panic over one tape is that tape's news, not the run's.
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(begun.elapsed() < PATIENCE * 2, "{:#?}", site.rows().await);
    }
    stops_alone(&site, state).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_at_which_the_worker_panics_stops_alone_with_a_reason() {
    with_the_real_worker("before-check:V01002:panic", State::Entered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_at_which_the_worker_panics_between_intent_and_command_stops_alone_with_a_reason() {
    with_the_real_worker("intended:V01002:panic", State::Entered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_at_which_the_worker_panics_before_it_records_stops_alone_with_a_reason() {
    with_the_real_worker("before-record:V01002:panic", State::Entered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_at_which_the_worker_dies_stops_alone_with_a_reason() {
    with_the_real_worker("claimed:V01002:abort", State::Entered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_at_which_an_inline_run_panics_stops_alone_with_a_reason() {
    with_the_real_producer("before-check:V01002:panic", State::Entered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_at_which_an_inline_run_panics_before_it_records_stops_alone_with_a_reason() {
    with_the_real_producer("before-record:V01002:panic", State::Entered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_between_a_command_and_its_record_leaves_the_tape_to_the_next_and_nothing_happens_twice() {
    let (_vhost, mut site) = with_broker(3).await;
    hasty(&mut site);
    site.settings.retry.max_attempts = 5;
    let once = site.dir.path().join("struck");
    let failpoint = format!("acted:V01002:once-{}-abort", once.display());
    let _services = [Service::start(&site, &failpoint), Service::start(&site, &failpoint)];
    let mut fleet = Fleet::new();
    fleet.producer(&site, "timer");
    fleet.until(&site, "all at rest", all_at_rest).await;
    fleet.stop().await;
    assert!(once.exists(), "the worker did not die");
    assert_went_all_the_way(&site, vids(3).iter().map(String::as_str)).await;
}

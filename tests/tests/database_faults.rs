//! PostgreSQL dies, is cut off in the middle of a commit, ends sessions and refuses to write, at every step of every stage:
//! what was committed counts, what was not is done again, and nothing happens twice.
//!
//! One tape for each step. Without `REPACK_TEST_FULL=1` a sample is run, which follows from `REPACK_TEST_SEED`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::journey::{Mode, State};
use common::settings::Settings;
use common::stages::STAGES;
use common::store::Store;
use cta_sim::World;
use journeys::chance::{Chance, everything};
use journeys::checker::all_finished;
use journeys::crew::Crew;
use journeys::fleet::Fleet;
use journeys::private::Postgres;
use journeys::proxy::Proxy;
use journeys::services::Services;
use journeys::shots::{Fault, Range, Shot, Step, report, tell};
use journeys::site::{PATIENCE, Site, all_at_rest};
use journeys::steps::moment;

/// Steps of a delivery at which the database is broken; where the stage runs no command, some are not passed.
const POINTS: [&str; 5] = ["claimed", "intended", "acted", "answered", "before-record"];

/// Transactions of a delivery.
const COMMITS: [&str; 4] = ["claim", "intent", "answer", "done"];

fn shots(what: &str, points: impl Fn(&str) -> Vec<String>, sample: usize) -> Vec<Shot> {
    let mut all = Vec::new();
    for stage in STAGES {
        let acts = stage.name != "end";
        let wanted =
            |point: &String| acts || !["intended", "acted", "answer", "intent"].iter().any(|of| point.contains(of));
        let of_stage = points(stage.name).into_iter().filter(wanted);
        all.extend(of_stage.map(|point| (point, Step::To(stage.to))));
    }
    if !everything() {
        all = Chance::of_this_run(what).some_of(all, sample);
    }
    let shot =
        |(number, (point, step))| Shot { point, fault: Fault::Stop, step, vid: format!("V{:05}", 1001 + number) };
    all.into_iter().enumerate().map(shot).collect()
}

fn hasty(site: &mut Site) {
    let settings = site.settings.clone();
    site.settings = Settings {
        lease: Duration::from_secs(8),
        settle: Duration::from_secs(1),
        cta_admin: common::settings::CtaAdmin { timeout: Duration::from_secs(3), ..settings.cta_admin },
        redispatch_after: Duration::from_secs(1),
        worker: common::settings::Worker { concurrency: 1, ..settings.worker },
        producer: common::settings::Producer { interval: Duration::from_millis(200), ..settings.producer },
        ..settings
    };
}

async fn enter(site: &Site, shots: &[Shot]) -> Vec<String> {
    let vids: Vec<String> = shots.iter().map(|shot| shot.vid.clone()).collect();
    site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    vids
}

/// Nobody was stopped, killed or blamed: a database that comes back is no crash of ours.
async fn nobody_is_blamed(site: &Site, vids: &[String]) {
    for vid in vids {
        let task = site.row(vid).await.task.expect("a task");
        assert_eq!(task.attempts, 0, "{vid}");
        assert_eq!(site.events_of(vid, "retrying").await, [], "{vid}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_restarts_immediately_at_any_step_loses_nothing_and_doubles_nothing() {
    let points = |stage: &str| {
        let mut points: Vec<String> = POINTS.iter().map(|point| format!("{point}@{stage}")).collect();
        points.extend(COMMITS.iter().map(|kind| format!("committing@{stage}.{kind}")));
        points
    };
    let shots = shots("database restarts", points, 5);
    let postgres = Postgres::start();
    let count = u64::try_from(shots.len()).expect("few");
    let world = World::new().with_full_tapes(count).with_durations(20, 100);
    let mut site = Site::on(postgres.database(), world).await;
    hasty(&mut site);
    let vids = enter(&site, &shots).await;
    let vhost = Services::get().fresh_vhost();
    site.settings.broker = Some(vhost.broker());
    let postgres = Arc::new(Mutex::new(postgres));
    let mut range = Range::at(&site, shots);
    let restarted = Arc::clone(&postgres);
    range.meanwhile = Some(Box::new(move |_| {
        let mut postgres = restarted.lock().expect("nobody panics meanwhile");
        postgres.crash();
        postgres.resume();
        Box::pin(async {})
    }));
    let mut workers = Crew::workers(&site, 2, &range.armed());
    let mut producers = Crew::producers(&site, 1, "");
    let hits = range.until(&site, &mut [&mut workers, &mut producers], all_at_rest).await;
    assert!(workers.ended.is_empty() && producers.ended.is_empty(), "{:?} {:?}", workers.ended, producers.ended);
    workers.end();
    producers.end();
    tell("database-restarts", &report("database-restarts", &site, &hits));
    all_finished(&site, &vids).await.none();
    nobody_is_blamed(&site, &vids).await;
    drop(range);
    drop(site);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_out_about_and_nothing_is_doubled() {
    let points = |stage: &str| COMMITS.iter().map(|kind| format!("committing@{stage}.{kind}")).collect();
    let shots = shots("commits", points, 5);
    let count = u64::try_from(shots.len()).expect("few");
    let mut site = Site::new(World::new().with_full_tapes(count).with_durations(20, 100)).await;
    hasty(&mut site);
    let vids = enter(&site, &shots).await;
    let vhost = Services::get().fresh_vhost();
    site.settings.broker = Some(vhost.broker());
    let server = format!("{}:{}", site.settings.database.host, site.settings.database.port);
    let proxy = Arc::new(Proxy::to(&server).await);
    let (host, port) =
        proxy.address().split_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).expect("an address");
    site.settings.database.host = host;
    site.settings.database.port = port.parse().expect("a port");
    let mut range = Range::at(&site, shots);
    let committed: Arc<Mutex<BTreeMap<u32, usize>>> = Arc::default();
    let (cut, counted, database) = (Arc::clone(&proxy), Arc::clone(&committed), site.database.connection_string());
    range.meanwhile = Some(Box::new(move |pid| {
        let (cut, counted, database) = (Arc::clone(&cut), Arc::clone(&counted), database.clone());
        Box::pin(async move {
            swallow_the_answer(&cut, &database, pid).await;
            *counted.lock().expect("nobody panics").entry(pid).or_default() += 1;
        })
    }));
    let mut workers = Crew::workers(&site, 2, &range.armed());
    let mut producers = Crew::producers(&site, 1, "");
    let hits = range.until(&site, &mut [&mut workers, &mut producers], all_at_rest).await;
    assert!(workers.ended.is_empty(), "{:?}", workers.ended);
    assert_eq!(committed.lock().expect("nobody panics").values().sum::<usize>(), hits.len());
    workers.end();
    producers.end();
    tell("commits", &report("commits", &site, &hits));
    all_finished(&site, &vids).await.none();
    nobody_is_blamed(&site, &vids).await;
    for vid in &vids {
        assert_eq!(
            site.events_of(vid, "abandoned").await,
            [],
            "{vid}: nobody waits for a lease under which nobody works"
        );
    }
}

/// Lets the process commit, and the server hear it, but not the process hear that it was done.
async fn swallow_the_answer(proxy: &Proxy, database: &str, pid: u32) {
    let (client, connection) = tokio_postgres::connect(database, tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    let open = format!(
        "SELECT client_port FROM pg_stat_activity WHERE application_name LIKE '%#{pid}' AND state LIKE 'idle in transaction%'"
    );
    let ports = async || {
        let rows = client.query(&open, &[]).await.expect("the sessions");
        rows.iter().map(|row| u16::try_from(row.get::<_, i32>(0)).expect("a port")).collect::<Vec<_>>()
    };
    let [port] = ports().await[..] else { panic!("process {pid} is in one transaction") };
    // Another may be stopped at the same time: its line stays as it is.
    proxy.freeze_answers_of(port);
    journeys::crew::signal(pid, rustix::process::Signal::CONT);
    let begun = Instant::now();
    while !ports().await.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "process {pid} does not commit");
        moment().await;
    }
    proxy.cut_one(port);
}

/// Waits until something of a site holds, beside a fleet at work.
async fn started(fleet: &mut Fleet, site: &Site) {
    let moved = |rows: &[common::store::Overview]| {
        rows.iter().any(|row| row.row.as_ref().is_ok_and(|tape| tape.state() > State::Entered))
    };
    fleet.until(site, "somebody has started", moved).await;
}

async fn with_broker(tapes: u64) -> (journeys::services::TestVhost, Site, Vec<String>) {
    let mut site = Site::new(World::new().with_full_tapes(tapes).with_durations(20, 100)).await;
    site.settings.producer.interval = Duration::from_millis(100);
    let vids: Vec<String> = (0..tapes).map(|number| format!("V{:05}", 1001 + number)).collect();
    site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let vhost = Services::get().fresh_vhost();
    site.settings.broker = Some(vhost.broker());
    (vhost, site, vids)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_forgotten_while_it_rested_holds_nobody_up() {
    let mut site = Site::new(World::new()).await;
    let server = format!("{}:{}", site.settings.database.host, site.settings.database.port);
    let proxy = Proxy::to(&server).await;
    let (host, port) = proxy.address().split_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
    site.settings.database.host = host;
    site.settings.database.port = port.parse().unwrap();
    let store = Store::sized(Arc::new(site.settings.clone()), "rests", 1).unwrap();
    store.ready().await.unwrap();
    let line = "SELECT client_port::int8 FROM pg_stat_activity WHERE application_name = 'rests'";
    // As a firewall that has forgotten the connection: nothing ends it, and nothing comes back.
    proxy.freeze_answers_of(site.number(line).await.try_into().unwrap());
    // It is this rest that the test is about.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // What the connection itself would notice, by its limits on the network, takes a minute.
    let again = tokio::time::timeout(Duration::from_secs(30), store.ready()).await;
    again.expect("another connection is made").unwrap();
}

/// Ends every session of our programs in this database; those of the test itself live on.
const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                            AND (application_name LIKE 'worker@%' OR application_name LIKE 'producer@%')";

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_ended_again_and_again_lose_nothing() {
    let (_vhost, site, vids) = with_broker(10).await;
    let mut fleet = Fleet::of(&site, 2, 2);
    for _ in 0..6 {
        started(&mut fleet, &site).await;
        let ended = format!("SELECT count(*) FROM ({END_SESSIONS}) AS ended");
        assert!(site.number(&ended).await > 0, "somebody had a session");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    fleet.until(&site, "all finished", all_at_rest).await;
    fleet.stop().await;
    all_finished(&site, &vids).await.none();
    nobody_is_blamed(&site, &vids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_the_server_ends_when_idle_for_a_second_lose_nothing() {
    let (_vhost, site, vids) = with_broker(4).await;
    let name = site.database.name();
    for setting in ["idle_session_timeout", "idle_in_transaction_session_timeout"] {
        site.sql(&format!("ALTER DATABASE {name} SET {setting} = '1s'")).await;
    }
    let mut fleet = Fleet::of(&site, 2, 2);
    started(&mut fleet, &site).await;
    // Longer than that, so that every session of theirs was ended at least once.
    let before = site.number(&sessions_since("now() - interval '1 hour'")).await;
    assert!(before > 0);
    fleet.until(&site, "all finished", all_at_rest).await;
    let begun = Instant::now();
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' \
                AND application_name LIKE 'worker@%' AND state_change < now() - interval '1500 ms'";
    while site.number(idle).await > 0 {
        assert!(begun.elapsed() < PATIENCE, "the server does not end idle sessions");
        moment().await;
    }
    fleet.stop().await;
    all_finished(&site, &vids).await.none();
    nobody_is_blamed(&site, &vids).await;
}

fn sessions_since(time: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_start > {time} \
         AND split_part(application_name, '@', 1) IN ('worker', 'producer', 'test')"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_read_only_nothing_is_changed_in_cta_and_afterwards_all_goes_on() {
    for broker in [true, false] {
        let (_vhost, mut site, vids) = with_broker(4).await;
        if !broker {
            site.settings.broker = None;
        }
        let name = site.database.name().to_owned();
        site.sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
        let mut fleet = Fleet::new();
        fleet.worker_if(broker, &site);
        fleet.producer(&site, "timer");
        // They have asked, and ask again.
        let began = Instant::now();
        while site.number(&sessions_since("now() - interval '1 hour'")).await == 0 {
            assert!(began.elapsed() < PATIENCE, "nobody asks the database");
            moment().await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(site.issued(), BTreeMap::new(), "a read-only database cannot hold an intent");
        for vid in &vids {
            assert_eq!(site.at(vid).await, (State::Entered, Mode::Auto));
        }
        let operator = site.database.client().await;
        operator.batch_execute("SET default_transaction_read_only = off").await.expect("the operator may write");
        let writable = format!("ALTER DATABASE {name} SET default_transaction_read_only = off");
        operator.batch_execute(&writable).await.expect("the operator may write");
        // Nobody ends the sessions that began while it was so.
        fleet.until(&site, "all finished", all_at_rest).await;
        fleet.stop().await;
        all_finished(&site, &vids).await.none();
        nobody_is_blamed(&site, &vids).await;
    }
}

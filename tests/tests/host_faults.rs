//! Disks that fill up, files that are not what they seem, logs that are moved away, hosts that go down, programs and
//! databases of another version.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::journey::{Mode, State};
use common::store::Overview;
use cta_sim::{Action, Order, Tape, World};
use journeys::chance::Chance;
use journeys::checker::{JOURNEY, all_finished};
use journeys::crew::{Crew, WORKER};
use journeys::fleet::Fleet;
use journeys::services::{Services, TestVhost};
use journeys::shell::{MANAGER, PRODUCER, Ran, of_site};
use journeys::site::{PATIENCE, Site, all_at_rest};
use journeys::steps::moment;
use serde_json::Value;

const VID: &str = "V01001";

async fn without_broker(tapes: u64) -> (Site, Vec<String>) {
    let mut site = Site::new(World::new().with_full_tapes(tapes).with_durations(20, 100)).await;
    site.settings.producer.interval = Duration::from_millis(100);
    let vids: Vec<String> = (0..tapes).map(|number| format!("V{:05}", 1001 + number)).collect();
    site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    (site, vids)
}

async fn with_broker(tapes: u64) -> (TestVhost, Site, Vec<String>) {
    let (mut site, vids) = without_broker(tapes).await;
    let vhost = Services::get().fresh_vhost();
    site.settings.broker = Some(vhost.broker());
    (vhost, site, vids)
}

/// Keeps crews running until the rows are where they should be.
async fn run(site: &Site, crews: &mut [&mut Crew], mut meanwhile: impl FnMut(), done: fn(&[Overview]) -> bool) {
    let begun = std::time::Instant::now();
    loop {
        crews.iter_mut().for_each(|crew| crew.keep());
        let rows = site.rows().await;
        if done(&rows) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{rows:#?}");
        meanwhile();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_under_the_listing_starts_nothing_and_leaves_nothing_behind() {
    let world =
        World::new().with_full_tapes(0).with_tape(VID, Tape::full("pool_alpha_raw", "alpha_raw", 1 << 33, 6000));
    let site = Site::new(world).await;
    site.enter(&[VID]).await;
    // Ignored, the signal becomes an error of the write, as on a full disk. Everything else that is written is smaller.
    let script = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\"";
    let producer = of_site(&site, PRODUCER);
    for _ in 0..3 {
        let mut limited = Command::new("/bin/bash");
        limited.args(["-c", script]).arg(producer.get_program()).args(producer.get_args()).arg("tick");
        Ran::of(&mut limited).ended(1).saying(&["listing of V01001 cannot be written"]);
        site.all_due().await;
    }
    assert_eq!(site.issued(), BTreeMap::new());
    assert_eq!(site.at(VID).await, (State::Entered, Mode::Auto));
    assert_eq!(site.why(VID).await.0, "listing-failed");
    assert_eq!(site.row(VID).await.task.expect("a task").attempts, 0);
    let left: Vec<String> = std::fs::read_dir(site.dir.path())
        .expect("the site's directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("tapefile"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    site.finish(VID).await;
    assert_eq!(site.changes()[VID], JOURNEY);
    assert_eq!(site.events_of(VID, "listing").await[0].detail["files"], 6000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_never_written_through_a_link_that_has_its_name() {
    let (site, vids) = without_broker(1).await;
    let victim = site.dir.path().join("victim");
    std::fs::write(&victim, "not to be touched").expect("a file");
    let now = site.row(VID).await.now;
    for days in -1..=1 {
        let path = site
            .settings
            .listing_path(&VID.parse().expect("a VID"), (now + chrono::TimeDelta::days(days)).date_naive());
        symlink(&victim, path).expect("a link");
    }
    site.finish(VID).await;
    assert_eq!(std::fs::read_to_string(&victim).expect("the file"), "not to be touched");
    let path = site.events_of(VID, "listing").await[0].detail["path"].clone();
    assert!(path.as_str().is_some_and(|path| path.ends_with(".2")), "{path}");
    all_finished(&site, &vids).await.none();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_under_the_logs_stops_no_work() {
    let (_vhost, site, vids) = with_broker(3).await;
    let logs = site.settings.logging.log_dir.clone();
    std::fs::create_dir_all(&logs).expect("the directory of the logs");
    for program in [WORKER, PRODUCER] {
        symlink("/dev/full", logs.join(format!("{program}.log"))).expect("a log on a full disk");
    }
    let mut workers = Crew::workers(&site, 1, "");
    let mut producers = Crew::producers(&site, 1, "");
    run(&site, &mut [&mut workers, &mut producers], || (), all_at_rest).await;
    assert_eq!((workers.started(), producers.started()), (1, 1));
    workers.end();
    producers.end();
    all_finished(&site, &vids).await.none();
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_that_are_moved_away_and_cut_under_load_keep_whole_lines_and_stop_no_work() {
    let (_vhost, site, vids) = with_broker(6).await;
    let logs = site.settings.logging.log_dir.clone();
    let mut workers = Crew::workers(&site, 2, "");
    let mut producers = Crew::producers(&site, 1, "");
    let mut rotations = 0;
    let rotate = || {
        for program in [WORKER, PRODUCER] {
            let log = logs.join(format!("{program}.log"));
            let kept = logs.join(format!("{program}.{rotations}.kept"));
            // As logrotate does by itself, and with copytruncate.
            if rotations % 2 == 0 {
                let _ = std::fs::rename(&log, &kept);
            } else if std::fs::copy(&log, &kept).is_ok() {
                let _ = std::fs::OpenOptions::new().write(true).truncate(true).open(&log);
            }
            rotations += 1;
        }
    };
    run(&site, &mut [&mut workers, &mut producers], rotate, all_at_rest).await;
    assert_eq!((workers.started(), producers.started()), (2, 1));
    workers.end();
    producers.end();
    all_finished(&site, &vids).await.none();
    let mut lines = 0;
    for entry in std::fs::read_dir(&logs).expect("the logs") {
        let path = entry.expect("an entry").path();
        for line in std::fs::read_to_string(&path).expect("a log").lines() {
            let whole: Result<Value, _> = serde_json::from_str(line);
            assert!(whole.is_ok(), "{}: {line}", path.display());
            lines += 1;
        }
    }
    assert!(lines > 20, "{lines} lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_go_down_with_everything_on_them_come_back_in_any_order_and_lose_nothing() {
    let mut chance = Chance::of_this_run("reboots");
    let (_vhost, mut site, vids) = with_broker(8).await;
    site.settings.lease = Duration::from_secs(8);
    site.settings.cta_admin.timeout = Duration::from_secs(3);
    site.settings.settle = Duration::from_secs(1);
    let worker = |site: &Site| {
        let mut command = site.command(WORKER);
        command.args(["--concurrency", "2"]);
        command
    };
    for _ in 0..3 {
        let crews = if chance.below(2) == 0 {
            [Crew::of(2, worker(&site)), Crew::producers(&site, 2, "")]
        } else {
            [Crew::producers(&site, 2, ""), Crew::of(2, worker(&site))]
        };
        let begun = site.journal().iter().filter(|entry| entry.changing).count();
        let waited = std::time::Instant::now();
        while site.journal().iter().filter(|entry| entry.changing).count() <= begun + chance.below(12) {
            assert!(waited.elapsed() < PATIENCE, "nobody does anything: {:#?}", site.rows().await);
            moment().await;
        }
        drop(crews);
    }
    let mut workers = Crew::of(2, worker(&site));
    let mut producers = Crew::producers(&site, 1, "");
    run(&site, &mut [&mut workers, &mut producers], || (), all_at_rest).await;
    workers.end();
    producers.end();
    all_finished(&site, &vids).await.none();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cta_admin_that_crashes_is_asked_again_and_blames_no_tape() {
    let (site, vids) = without_broker(1).await;
    for command in ["tape ls", "tapefile ls", "repack ls", "recycletf ls"] {
        site.order(Order::once(command, Action::Die(11)).for_vid(VID));
    }
    site.finish(VID).await;
    assert_eq!(site.fired(), [1; 4]);
    all_finished(&site, &vids).await.none();
}

/// What a newer version might write into the task row.
const NEWER: [&str; 4] = [
    "stage = 'polish'",
    "outcome = 'pondering'",
    "wanted = 'teleport'",
    "memory = memory || '{\"newer\": {\"a\": [1]}}'",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_task_row_of_a_newer_version_is_no_error_for_its_tape_and_hinders_no_other() {
    for newer in NEWER {
        let (site, _) = without_broker(2).await;
        site.tick_of(&[]).await;
        let task = site.beside("_task");
        if let Err(refused) =
            site.database.client().await.batch_execute(&format!("UPDATE {task} SET {newer} WHERE tape = '{VID}'")).await
        {
            // Then a newer version needs a migration first, and that is what this one would refuse to work beside.
            assert!(refused.as_db_error().is_some_and(|error| error.code().code() == "23514"), "{newer}: {refused:?}");
            continue;
        }
        let producer = of_site(&site, PRODUCER);
        let begun = std::time::Instant::now();
        loop {
            let mut tick = Command::new(producer.get_program());
            tick.args(producer.get_args()).arg("tick").stdin(Stdio::null());
            let ran = Ran::of(&mut tick);
            let finished = "SELECT count(*) FROM repack_status WHERE tape <> 'V01001' AND finished IS NOT NULL";
            if site.number(finished).await == 1 {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{newer}: the other tape does not go on: {ran:?}");
        }
        let stopped = "SELECT count(*) FROM repack_status WHERE mode <> 'auto'";
        assert_eq!(site.number(stopped).await, 0, "{newer}: a newer version is no error of a tape");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_has_forgotten_the_last_commits_makes_no_second_request() {
    let (site, _) = without_broker(1).await;
    site.tick_of(&[]).await;
    let beside = |suffix: &str| site.beside(suffix);
    let tables = [site.table(), beside("_task"), beside("_event")];
    for (number, table) in tables.iter().enumerate() {
        site.sql(&format!("CREATE TABLE kept{number} AS SELECT * FROM {table}")).await;
    }
    site.bring(&[VID], State::Started).await;
    assert_eq!(site.times(VID, "repack add"), 1);
    for (number, table) in tables.iter().enumerate() {
        site.sql(&format!(
            "DELETE FROM {table}; INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM kept{number}"
        ))
        .await;
    }
    site.tick_until("at rest", all_at_rest).await;
    assert_eq!(site.times(VID, "repack add"), 1, "what is there is seen, and not asked for again");
    let (state, mode) = site.at(VID).await;
    assert!(
        (state, mode) == (State::Finished, Mode::Auto) || (mode == Mode::Error && !site.why(VID).await.1.is_empty()),
        "{state} {mode:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_limit_of_repacks_starts_nothing_new_and_stops_nothing_that_runs() {
    let mut world = World::new().with_full_tapes(6).with_durations(0, 3_600_000);
    world.max_to_expand = 6;
    let mut site = Site::new(world).await;
    let vids: Vec<String> = (0..6).map(|number| format!("V{:05}", 1001 + number)).collect();
    site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let slots = async |site: &Site| {
        site.number(&format!("SELECT count(*) FROM {} WHERE slot_since IS NOT NULL", site.beside("_task"))).await
    };
    site.settings.max_active_repacks = 4;
    while slots(&site).await < 4 {
        site.tick().await;
    }
    site.settings.max_active_repacks = 2;
    for _ in 0..4 {
        site.tick().await;
        assert_eq!(slots(&site).await, 4);
    }
    assert_eq!(site.world().active_requests(), 4, "what runs goes on");
    site.edit(|world| world.skip(4_000_000));
    site.tick_until("at rest", |rows| {
        rows.iter().filter(|row| row.row.as_ref().is_ok_and(|tape| tape.state() == State::Finished)).count() >= 4
    })
    .await;
    assert!(site.world().active_requests() <= 2, "the next ones keep to the lower limit");
    site.settings.max_active_repacks = 6;
    while slots(&site).await < 2 {
        site.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_beside_running_programs_disturbs_nothing() {
    let (_vhost, site, vids) = with_broker(6).await;
    let mut fleet = Fleet::of(&site, 2, 2);
    for _ in 0..4 {
        let mut migrate = of_site(&site, MANAGER);
        migrate.arg("migrate");
        let ran = tokio::task::spawn_blocking(move || Ran::of(&mut migrate)).await.expect("it runs");
        ran.ended(0);
    }
    fleet.until(&site, "all finished", all_at_rest).await;
    fleet.stop().await;
    all_finished(&site, &vids).await.none();
}

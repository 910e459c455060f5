//! Tape states: every transition, on every kind of front end, with both schedulers.

#![expect(clippy::unwrap_used, reason = "code shared by tests may fail as a test does")]

mod common;

use common::Site;
use cta_sim::{Mode, Scheduler, Tape, TapeState, World};

const TO: [&str; 6] = ["ACTIVE", "DISABLED", "REPACKING", "REPACKING_DISABLED", "BROKEN", "EXPORTED"];

/// `=` nothing to do, `f` final at once, `p` pending first, `x` refused.
const TABLE: [(TapeState, &str); 9] = [
    (TapeState::Active, "= f p x p p"),
    (TapeState::Disabled, "f = p x p p"),
    (TapeState::Repacking, "f f = f f f"),
    (TapeState::RepackingPending, "x x p x x x"),
    (TapeState::RepackingDisabled, "x x f = f f"),
    (TapeState::Broken, "f f p x = p"),
    (TapeState::BrokenPending, "x x x x p x"),
    (TapeState::Exported, "f f p x p ="),
    (TapeState::ExportedPending, "x x x x x p"),
];

/// Transitions that only a front end refuses, as `from>to` with `*` for all six.
const REFUSED_BY_REPACK: &[&str] = &[
    "ACTIVE>REPACKING",
    "ACTIVE>BROKEN",
    "ACTIVE>EXPORTED",
    "DISABLED>REPACKING",
    "DISABLED>BROKEN",
    "DISABLED>EXPORTED",
    "REPACKING_PENDING>REPACKING",
    "REPACKING_PENDING>BROKEN",
    "REPACKING_PENDING>EXPORTED",
    "BROKEN_PENDING>REPACKING",
    "BROKEN_PENDING>BROKEN",
    "BROKEN_PENDING>EXPORTED",
    "EXPORTED_PENDING>REPACKING",
    "EXPORTED_PENDING>BROKEN",
    "EXPORTED_PENDING>EXPORTED",
];
const REFUSED_BY_USER: &[&str] = &[
    "REPACKING>ACTIVE",
    "REPACKING>DISABLED",
    "REPACKING>BROKEN",
    "REPACKING>EXPORTED",
    "REPACKING_DISABLED>ACTIVE",
    "REPACKING_DISABLED>DISABLED",
    "REPACKING_DISABLED>REPACKING",
    "REPACKING_DISABLED>BROKEN",
    "REPACKING_DISABLED>EXPORTED",
];

/// One tape in each state, named after its place in the table, times six.
fn world(mode: Mode, scheduler: Scheduler) -> World {
    let mut world = World::new().with_scheduler(scheduler);
    world.frontends[0].mode = mode;
    world.daemon_down = true;
    for (i, (from, _)) in TABLE.iter().enumerate() {
        for j in 0..TO.len() {
            world.tapes.insert(format!("T{i}{j}"), Tape::new("pool_alpha_raw").in_state(*from));
        }
    }
    world
}

fn check_all(mode: Mode, scheduler: Scheduler, refused: &[&str]) {
    let site = Site::new(&world(mode, scheduler));
    for (i, (from, row)) in TABLE.iter().enumerate() {
        for (j, (to, expected)) in TO.iter().zip(row.split(' ')).enumerate() {
            let (vid, change) = (format!("T{i}{j}"), format!("{}>{to}", from.name()));
            let reply = site.go(&format!("tape ch --vid {vid} --state {} --reason r", to.to_lowercase()));
            let state = site.world().tapes[&vid].state.name();
            let here = format!("{change} on {mode:?} with {scheduler:?}: {reply:?}");
            if refused.contains(&change.as_str()) {
                let message =
                    format!("Not allowed to modify tape {vid} state from {} to {to} on this frontend\n", from.name());
                assert_eq!((reply.code, reply.stderr, state), (Some(2), message, from.name()), "{here}");
                continue;
            }
            let pending = format!("{to}_PENDING");
            let (code, after) = match expected {
                "x" => (2, from.name()),
                "p" if scheduler == Scheduler::Objectstore => (0, pending.as_str()),
                _ => (0, *to),
            };
            assert_eq!((reply.code, state), (Some(code), after), "{here}");
        }
    }
}

#[test]
fn every_transition_ends_as_documented_on_a_front_end_for_all() {
    check_all(Mode::AdminAll, Scheduler::Objectstore, &[]);
    check_all(Mode::AdminAll, Scheduler::Postgres, &[]);
}

#[test]
fn split_front_ends_refuse_each_their_own_transitions() {
    check_all(Mode::AdminRepack, Scheduler::Objectstore, REFUSED_BY_REPACK);
    check_all(Mode::AdminNoRepack, Scheduler::Objectstore, REFUSED_BY_USER);
}

#[test]
fn a_pending_state_ends_when_its_time_is_over_and_keeps_the_reason() {
    let site = Site::new(&World::new().with_full_tapes(1).with_durations(60_000, 0));
    site.ok("tape ch --vid V01001 --state REPACKING --reason mine");
    site.edit(|world| world.skip(50_000));
    assert_eq!(site.row("tape ls --vid V01001")["state"], "REPACKING_PENDING");
    // asking again is accepted and changes nothing about the time
    site.ok("tape ch --vid V01001 --state REPACKING --reason mine");
    site.edit(|world| world.skip(10_000));
    let tape = site.row("tape ls --vid V01001");
    assert_eq!((&tape["state"], &tape["stateReason"]), (&"REPACKING".into(), &"mine".into()));
    assert_ne!(tape["stateModifiedBy"], "opsadmin@ctaops01", "the daemon made the last change");
}

#[test]
fn a_pending_state_never_ends_while_the_daemon_is_down() {
    let site = Site::new(&World::new().with_full_tapes(1));
    site.edit(|world| world.daemon_down = true);
    site.ok("tape ch --vid V01001 --state REPACKING --reason mine");
    site.edit(|world| world.skip(1_000_000_000));
    assert_eq!(site.row("tape ls --vid V01001")["state"], "REPACKING_PENDING");
    site.edit(|world| world.daemon_down = false);
    assert_eq!(site.row("tape ls --vid V01001")["state"], "REPACKING");
}

#[test]
fn going_to_active_without_a_reason_erases_the_old_one_and_a_long_reason_is_cut() {
    let site = Site::new(&World::new().with_full_tapes(1));
    site.run(&["tape", "ch", "--vid", "V01001", "--state", "DISABLED", "--reason", &"é".repeat(1200)]);
    let reason = site.row("tape ls --vid V01001")["stateReason"].as_str().unwrap().to_owned();
    assert_eq!(reason, "é".repeat(1000));
    site.ok("tape ch --vid V01001 --state DISABLED --reason other");
    assert_eq!(site.row("tape ls --vid V01001")["stateReason"], "other", "the reason alone can be changed");
    site.ok("tape ch --vid V01001 --state ACTIVE");
    assert_eq!(site.row("tape ls --vid V01001")["stateReason"], "");
}

#[test]
fn reclaim_resets_the_counters_and_keeps_state_pool_and_key() {
    let mut world = World::new().with_full_tapes(1);
    let tape = world.tapes.get_mut("V01001").unwrap();
    let run = tape.files.remove(0);
    tape.recycled.push(cta_sim::world::Recycled { run, time: 1_700_000_000, reason: "REPACK".into() });
    (tape.state, tape.reason, tape.key) = (TapeState::Disabled, "r".into(), "k".into());
    (tape.dirty, tape.verification, tape.pool) = (true, "ok".into(), "quarantine".into());
    let site = Site::new(&world);
    let before = site.row("tape ls --vid V01001");
    assert_eq!(site.rows("recycletf ls --vid V01001").len(), 10);
    site.ok("tape reclaim --vid V01001");
    let after = site.row("tape ls --vid V01001");
    let reset = [
        ("occupancy", "0".into()),
        ("lastFseq", "0".into()),
        ("nbMasterFiles", "0".into()),
        ("masterDataInBytes", "0".into()),
        ("full", false.into()),
        ("dirty", false.into()),
        ("verificationStatus", serde_json::Value::from("")),
    ];
    for (key, value) in before.as_object().unwrap() {
        match reset.iter().find(|(name, _)| name == key) {
            Some((_, expected)) => assert_eq!(after[key], *expected, "{key}"),
            None if key == "lastModificationLog" => assert_ne!(after[key], *value, "{key}"),
            None => assert_eq!(after[key], *value, "{key}"),
        }
    }
    assert_eq!(site.rows("recycletf ls --vid V01001").len(), 0);
    let again = site.go("tape reclaim --vid V01001");
    assert_eq!((again.code, again.stderr.as_str()), (Some(2), "Cannot reclaim tape V01001 because it is not FULL\n"));
}

#[test]
fn reclaim_is_allowed_as_soon_as_the_newest_entry_is_old_enough() {
    let mut world = World::new().with_full_tapes(1);
    world.recycle_log_quarantine_secs = 1000;
    let tape = world.tapes.get_mut("V01001").unwrap();
    let run = tape.files.remove(0);
    let now = cta_sim::store::now_us() / 1_000_000;
    for time in [now - 5000, now - 500] {
        tape.recycled.push(cta_sim::world::Recycled { run: run.clone(), time, reason: "REPACK".into() });
    }
    let site = Site::new(&world);
    let early = site.go("tape reclaim --vid V01001");
    assert_eq!(early.code, Some(2));
    assert!(early.stderr.contains("configured at 1000. Please reclaim this tape later."), "{early:?}");
    site.edit(|world| world.age_recycle_log("V01001", 500));
    site.ok("tape reclaim --vid V01001");
}

//! The life of a repack request, and the ways in which it goes wrong.

#![expect(clippy::unwrap_used, reason = "code shared by tests may fail as a test does")]

mod common;

use common::Site;
use cta_sim::{Effect, Keyset, Kind, Plan, Scheduler, TapeState, World};
use serde_json::Value;

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_str().unwrap_or_else(|| panic!("{key} is no string in {row}")).parse().unwrap()
}

/// Full tapes in REPACKING; a repack takes 10 s of the world's clock, none of the real one.
fn world(tapes: u64) -> World {
    let mut world = World::new().with_full_tapes(tapes).with_durations(0, 10_000);
    world.max_to_expand = 100;
    for (vid, tape) in &mut world.tapes {
        if vid.starts_with('V') {
            tape.state = TapeState::Repacking;
        }
    }
    world
}

fn planned(plan: Plan) -> World {
    let mut world = world(1);
    world.tapes.get_mut("V01001").unwrap().plan = plan;
    world
}

const ADD: &str = "repack add --mountpolicy repack_low_priority --justmove --vid V01001";

fn status(site: &Site) -> String {
    site.row("repack ls --vid V01001")["status"].as_str().unwrap().to_owned()
}

fn skip(site: &Site, ms: u64) {
    site.edit(|world| world.skip(ms));
}

#[test]
fn a_request_goes_from_pending_to_complete_and_moves_every_file_to_the_routed_pool() {
    let site = Site::new(&world(1));
    site.edit(|world| world.max_to_expand = 0);
    site.ok(ADD);
    assert_eq!(status(&site), "Pending");
    assert_eq!(number(&site.row("repack ls"), "totalFilesToArchive"), 0);
    site.edit(|world| world.max_to_expand = 2);
    assert_eq!(status(&site), "ToExpand");
    skip(&site, 1000);
    assert_eq!(status(&site), "Starting");
    assert_eq!(number(&site.row("repack ls"), "totalFilesToArchive"), 10);
    skip(&site, 1000);
    assert_eq!(status(&site), "Running");
    skip(&site, 4000);
    let half = site.row("repack ls --vid V01001");
    assert_eq!((number(&half, "archivedFiles"), number(&half, "filesLeftToArchive")), (5, 5));
    assert!(number(&half, "retrievedFiles") >= 5);
    assert_eq!(half["repackFinishedTime"], "0");
    assert_eq!(site.rows("tapefile ls --vid V01001").len(), 5, "file by file, not all at the end");
    assert_eq!(site.rows("recycletf ls --vid V01001").len(), 5);
    skip(&site, 4000);
    let end = site.row("repack ls --vid V01001");
    assert_eq!(end["status"], "Complete");
    assert_eq!((number(&end, "archivedFiles"), number(&end, "retrievedFiles")), (10, 10));
    assert_eq!(number(&end, "archivedBytes"), number(&end, "totalBytesToArchive"));
    assert!(number(&end, "repackFinishedTime") >= number(&end["creationLog"], "time"));
    let destinations = end["destinationInfos"].as_array().unwrap();
    assert_eq!(destinations.iter().map(|row| number(row, "files")).sum::<u64>(), 10);
    let target = destinations[0]["vid"].as_str().unwrap();
    let source = site.row("tape ls --vid V01001");
    assert_eq!(site.row(&format!("tape ls --vid {target}"))["tapepool"], source["tapepool"]);
    assert_eq!(site.rows(&format!("tapefile ls --vid {target}")).len(), 10);
}

#[test]
fn archive_file_ids_stay_and_the_source_keeps_its_stale_counters() {
    let site = Site::new(&world(1));
    let ids = |rows: Vec<Value>| -> Vec<String> {
        rows.iter().map(|row| row["af"]["archiveId"].as_str().unwrap().to_owned()).collect()
    };
    let (files, before) = (ids(site.rows("tapefile ls --vid V01001")), site.row("tape ls --vid V01001"));
    site.ok(ADD);
    skip(&site, 10_000);
    let target = site.row("repack ls")["destinationInfos"][0]["vid"].as_str().unwrap().to_owned();
    assert_eq!(ids(site.rows(&format!("tapefile ls --vid {target}"))), files);
    let after = site.row("tape ls --vid V01001");
    for key in ["full", "state", "occupancy", "lastFseq", "nbMasterFiles", "masterDataInBytes", "tapepool"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(after["dirty"], true);
    let live = site.row("tape ls --vid V01001 --get-storage-class-stats");
    assert_eq!(live["storageClassStatistics"], serde_json::json!([]));
    let now = cta_sim::store::now_us() / 1_000_000;
    let created = number(&site.row("repack ls")["creationLog"], "time");
    for entry in site.rows("recycletf ls --vid V01001") {
        assert_eq!(entry["reasonLog"], "REPACK");
        let time = number(&entry, "recycleLogTime");
        assert!((created..=now).contains(&time), "a real time, not before the request: {entry}");
    }
}

#[test]
fn a_tape_without_files_is_complete_with_all_counters_zero() {
    let site = Site::new(&world(1));
    site.edit(|world| world.tapes.get_mut("V01001").unwrap().files.clear());
    site.ok(ADD);
    skip(&site, 10_000);
    let row = site.row("repack ls");
    assert_eq!((&row["status"], number(&row, "totalFilesToRetrieve")), (&"Complete".into(), 0));
    assert_eq!((number(&row, "filesLeftToRetrieve"), number(&row, "archivedFiles")), (0, 0));
}

#[test]
fn only_so_many_requests_are_expanded_at_once_oldest_first() {
    let mut world = world(6);
    world.max_to_expand = 2;
    let site = Site::new(&world);
    for i in 1..=6 {
        site.ok(&format!("repack add --mountpolicy repack_low_priority --vid V0100{i}"));
    }
    let count = |word: &str| {
        let rows = site.rows("repack ls");
        let vids = rows.iter().filter(|row| row["status"] == word);
        vids.map(|row| row["vid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(count("ToExpand"), ["V01001", "V01002"]);
    skip(&site, 2000);
    assert_eq!(count("Running"), ["V01001", "V01002"]);
    assert_eq!(count("ToExpand"), ["V01003", "V01004"]);
    assert_eq!(count("Pending"), ["V01005", "V01006"]);
    assert_eq!(site.world().max_active, 6);
    assert_eq!(cta_sim::max_active(&site.journal()), 6);
}

#[test]
fn the_most_requests_at_once_counts_final_ones_no_more() {
    let site = Site::new(&world(3));
    for i in 1..=3 {
        site.ok(&format!("repack add --mountpolicy repack_low_priority --vid V0100{i}"));
        skip(&site, 10_000);
    }
    assert_eq!((site.world().max_active, cta_sim::max_active(&site.journal())), (1, 1));
}

#[test]
fn one_long_jump_ends_as_many_small_ones_do() {
    let run = |step: u64| {
        let mut world = world(6);
        world.max_to_expand = 1;
        let site = Site::new(&world);
        for i in 1..=6 {
            site.ok(&format!("repack add --mountpolicy repack_low_priority --vid V0100{i}"));
        }
        for _ in 0..(60_000 / step) {
            skip(&site, step);
        }
        let world = site.world();
        let files: Vec<_> =
            world.tapes.iter().map(|(vid, tape)| (vid.clone(), tape.live_files(), tape.last_fseq)).collect();
        let requests: Vec<_> = world.requests.iter().map(|r| (r.status, r.archived, r.retrieved_bytes)).collect();
        (files, requests)
    };
    assert_eq!(run(60_000), run(2500));
}

#[test]
fn files_that_cannot_be_read_fail_the_first_request_and_a_later_one_moves_them() {
    let site = Site::new(&planned(Plan { fail_files: 2, fail_times: 1, ..Plan::default() }));
    site.ok(ADD);
    skip(&site, 10_000);
    let row = site.row("repack ls --vid V01001");
    assert_eq!(row["status"], "Failed");
    let failed =
        ["failedToRetrieveFiles", "totalFailedFiles", "filesLeftToRetrieve", "archivedFiles", "retrievedFiles"];
    assert_eq!(failed.map(|key| number(&row, key)), [2, 2, 2, 8, 8]);
    assert_eq!(number(&row, "failedToRetrieveBytes"), 4_000_000_000);
    assert_eq!(site.rows("tapefile ls --vid V01001").len(), 2, "what was moved stays moved");
    assert_eq!(site.go(ADD).code, Some(2), "the failed request is still there");
    site.ok("repack rm --vid V01001");
    site.ok(ADD);
    skip(&site, 10_000);
    let row = site.row("repack ls --vid V01001");
    assert_eq!((&row["status"], number(&row, "totalFilesOnTapeAtStart")), (&"Complete".into(), 2));
    assert!(site.rows("tapefile ls --vid V01001").is_empty());
}

#[test]
fn files_that_cannot_be_written_are_read_and_stay_on_the_source() {
    let site = Site::new(&planned(Plan { fail_archive: 3, fail_times: 1, ..Plan::default() }));
    site.ok(ADD);
    skip(&site, 10_000);
    let row = site.row("repack ls --vid V01001");
    let keys = ["retrievedFiles", "archivedFiles", "failedToRetrieveFiles", "failedToArchiveFiles"];
    assert_eq!((&row["status"], keys.map(|key| number(&row, key))), (&"Failed".into(), [10, 7, 0, 3]));
    assert_eq!(site.rows("tapefile ls --vid V01001").len(), 3);
}

#[test]
fn a_partial_selection_is_complete_but_says_so() {
    for by_option in [true, false] {
        let mut world = world(1);
        world.max_files_to_select = if by_option { 0 } else { 4 };
        let site = Site::new(&world);
        site.ok(&if by_option { format!("{ADD} --maxfilestoselect 4") } else { ADD.to_owned() });
        skip(&site, 10_000);
        let row = site.row("repack ls");
        assert_eq!((&row["status"], &row["allFilesSelectedAtStart"]), (&"Complete".into(), &false.into()));
        let keys = ["totalFilesOnTapeAtStart", "totalFilesToRetrieve", "archivedFiles"];
        assert_eq!(keys.map(|key| number(&row, key)), [10, 4, 4]);
        assert_eq!(site.rows("tapefile ls --vid V01001").len(), 6);
    }
}

#[test]
fn an_expansion_fails_for_want_of_a_route_or_by_plan() {
    let mut unrouted = world(1);
    unrouted.routes.clear();
    for world in [unrouted, planned(Plan { fail_expansion: 1, ..Plan::default() })] {
        let site = Site::new(&world);
        site.ok(ADD);
        skip(&site, 10_000);
        let row = site.row("repack ls");
        assert_eq!((&row["status"], number(&row, "totalFailedFiles")), (&"Failed".into(), 0));
        assert_eq!(site.rows("tapefile ls --vid V01001").len(), 10);
    }
}

#[test]
fn a_stalled_repack_runs_for_ever() {
    for plan in [Plan { stall_after: Some(3), ..Plan::default() }, Plan { never_final: true, ..Plan::default() }] {
        let moved = plan.stall_after.unwrap_or(10);
        let site = Site::new(&planned(plan));
        site.ok(ADD);
        skip(&site, 10_000_000);
        skip(&site, 10_000_000);
        let row = site.row("repack ls");
        assert_eq!((&row["status"], number(&row, "archivedFiles")), (&"Running".into(), moved));
    }
}

#[test]
fn a_repack_waits_while_no_tape_of_the_pool_can_be_written() {
    let site = Site::new(&world(1));
    site.edit(|world| {
        for tape in world.tapes.values_mut() {
            tape.full = true;
        }
    });
    site.ok(ADD);
    skip(&site, 100_000);
    assert_eq!((status(&site).as_str(), site.rows("tapefile ls --vid V01001").len()), ("Running", 10));
    site.edit(|world| world.tapes.get_mut("D01001").unwrap().full = false);
    assert_eq!((status(&site).as_str(), site.rows("tapefile ls --vid V01001").len()), ("Complete", 0));
}

#[test]
fn a_route_for_repacks_is_preferred_and_others_do_without() {
    for (repack, expected) in [(true, "erase_IBM1L9"), (false, "pool_alpha_raw")] {
        let mut world = world(1).with_tape("E00001", cta_sim::Tape::new("erase_IBM1L9"));
        let route = cta_sim::world::Route { class: "alpha_raw".into(), copy: 1, repack, pool: "erase_IBM1L9".into() };
        // the DEFAULT routes come first where there is no choice by type
        world.routes.push(route);
        let site = Site::new(&world);
        site.ok(ADD);
        skip(&site, 10_000);
        let target = site.row("repack ls")["destinationInfos"][0]["vid"].as_str().unwrap().to_owned();
        assert_eq!(site.row(&format!("tape ls --vid {target}"))["tapepool"], expected);
    }
}

#[test]
fn a_destination_becomes_full_and_the_next_one_is_used() {
    let mut world = world(1);
    let tape = world.tapes["D01001"].clone();
    world.tapes.insert("D02001".into(), tape);
    world.tapes.get_mut("D01001").unwrap().occupancy = 18_000_000_000_000 - 3 * 2_000_000_000;
    let site = Site::new(&world);
    site.ok(ADD);
    skip(&site, 10_000);
    let row = site.row("repack ls");
    let destinations = row["destinationInfos"].as_array().unwrap();
    let counts: Vec<_> = destinations.iter().map(|d| (d["vid"].as_str().unwrap(), number(d, "files"))).collect();
    assert_eq!(counts, [("D01001", 3), ("D02001", 7)]);
    assert_eq!(site.row("tape ls --vid D01001")["full"], true);
}

#[test]
fn a_drive_that_disables_the_tape_stops_the_repack_until_the_tape_is_put_back() {
    let site = Site::new(&planned(Plan { disable_after: Some(4), ..Plan::default() }));
    site.ok(ADD);
    skip(&site, 100_000);
    let tape = site.row("tape ls --vid V01001");
    assert_eq!(tape["state"], "REPACKING_DISABLED");
    assert_ne!(tape["stateReason"], "");
    skip(&site, 100_000);
    let row = site.row("repack ls");
    assert_eq!((&row["status"], number(&row, "archivedFiles")), (&"Running".into(), 4));
    site.ok("tape ch --vid V01001 --state REPACKING --reason again");
    skip(&site, 10_000);
    assert_eq!(status(&site), "Complete");
}

#[test]
fn a_source_that_vanishes_breaks_the_unfiltered_list_but_not_that_of_another_tape() {
    let mut world = world(2);
    world.tapes.get_mut("V01001").unwrap().plan.vanish_after = Some(2);
    let site = Site::new(&world);
    site.ok(ADD);
    site.ok("repack add --mountpolicy repack_low_priority --vid V01002");
    skip(&site, 10_000);
    let list = site.go("--json repack ls");
    assert_eq!((list.code, list.text().as_str()), (Some(1), ""));
    assert_eq!(list.stderr, "Not all tapes were found: V01001\n");
    assert_eq!(site.row("repack ls --vid V01002")["status"], "Complete");
    assert_eq!(site.go("tape ls --vid V01001").code, Some(2));
}

#[test]
fn files_written_after_the_expansion_are_left_behind_by_a_complete_repack() {
    let site = Site::new(&planned(Plan { late_files: 2, ..Plan::default() }));
    site.ok(ADD);
    skip(&site, 10_000);
    let row = site.row("repack ls");
    assert_eq!((&row["status"], &row["allFilesSelectedAtStart"]), (&"Complete".into(), &true.into()));
    assert_eq!(site.rows("tapefile ls --vid V01001").len(), 2);
}

#[test]
fn removing_a_running_request_cancels_it_without_rolling_back() {
    let site = Site::new(&world(1));
    site.ok(ADD);
    skip(&site, 6000);
    let moved = number(&site.row("repack ls"), "archivedFiles");
    assert!(moved > 0 && moved < 10);
    site.ok("repack rm --vid V01001");
    skip(&site, 100_000);
    assert!(site.rows("repack ls").is_empty());
    assert_eq!(site.rows("recycletf ls --vid V01001").len() as u64, moved);
}

#[test]
fn a_complete_request_blocks_the_way_back_until_it_is_removed() {
    let site = Site::new(&world(1));
    site.ok(ADD);
    skip(&site, 10_000);
    assert_eq!(status(&site), "Complete");
    assert_eq!(site.go("tape ch --vid V01001 --state ACTIVE --reason done").code, Some(2));
    site.ok("repack rm --vid V01001");
    site.ok("tape ch --vid V01001 --state ACTIVE --reason done");
    site.ok("tape ch --vid V01001 --tapepool quarantine");
    site.ok("tape reclaim --vid V01001");
}

#[test]
fn postgresql_shows_no_end_time_for_a_request_that_completes() {
    for (scheduler, shown) in [(Scheduler::Objectstore, true), (Scheduler::Postgres, false)] {
        let site = Site::new(&world(1).with_scheduler(scheduler));
        site.ok(ADD);
        skip(&site, 10_000);
        let row = site.row("repack ls");
        assert_eq!(row["status"], "Complete");
        assert_eq!(number(&row, "repackFinishedTime") > 0, shown, "{scheduler:?}");
    }
}

#[test]
fn two_requests_for_one_tape_within_a_second_have_the_same_creation_log() {
    let site = Site::new(&world(1));
    site.ok(ADD);
    // the front end's clock has whole seconds: the time is the journal's, cut
    let entry = site.journal().into_iter().find(|entry| entry.kind == Kind::Effect).unwrap();
    let log = site.row("repack ls")["creationLog"].clone();
    assert_eq!(number(&log, "time"), entry.at_us / 1_000_000);
    assert_eq!((&log["username"], &log["host"]), (&"opsadmin".into(), &"ctaops01".into()));
}

#[test]
fn the_user_front_end_of_a_split_site_neither_has_nor_sees_repacks() {
    let site = Site::new(&world(1).split());
    let conf = |name: &str| cta_sim::store::config_path(&site.dir(), name).display().to_string();
    let on = |name: &str, line: &str| site.go(&format!("--json --config {} {line}", conf(name)));
    let refused = on("user", ADD);
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(2), "Admin command disabled on this frontend.\n"));
    assert_eq!(on("user", "repack ls").code, Some(2));
    assert_eq!(on("repack", ADD).code, Some(0));
    assert_eq!(on("repack", "repack ls").rows().len(), 1);
    site.edit(|world| world.transport = cta_sim::Transport::Grpc);
    // not refused, but it is the other scheduler's list
    assert_eq!(on("user", "repack ls").rows().len(), 0);
    assert_eq!(site.journal().iter().filter(|e| e.kind == Kind::Begin && e.frontend == "user").count(), 3);
}

#[test]
fn an_older_version_does_not_say_whether_all_files_were_selected() {
    let site = Site::new(&world(1).with_keyset(Keyset::V5_10_7));
    site.ok(ADD);
    skip(&site, 10_000);
    let row = site.row("repack ls");
    assert_eq!(row["status"], "Complete");
    for key in ["allFilesSelectedAtStart", "totalFilesOnTapeAtStart", "instanceName", "schedulerBackendName"] {
        assert!(row.get(key).is_none(), "{key}");
    }
}

#[test]
fn several_tapes_in_one_command_are_queued_up_to_the_first_that_is_refused() {
    let site = Site::new(&world(3));
    let file = site.file("vids", "V01001 # one\n\nUNKNOWN V01002\n");
    let reply =
        site.go(&format!("repack add --mountpolicy repack_low_priority --vidfile {} --vid V01003", file.display()));
    assert_eq!(reply.code, Some(2));
    assert_eq!(site.rows("repack ls").len(), 1);
    let effect = site.journal().into_iter().find(|entry| entry.kind == Kind::Effect).unwrap().effect;
    assert_eq!(effect, Effect::Partial);
}

#[test]
fn speed_makes_the_worlds_clock_run_faster_than_the_real_one() {
    let mut world = world(1);
    world.speed = 1_000_000.0;
    let site = Site::new(&world);
    site.ok(ADD);
    // ten seconds of the world are ten microseconds: the next call cannot be earlier
    assert_eq!(status(&site), "Complete");
}

#[test]
fn queues_show_what_is_left_to_read_of_a_running_repack() {
    let site = Site::new(&world(1));
    site.ok(ADD);
    skip(&site, 4000);
    let rows = site.rows("showqueues");
    assert_eq!((&rows[0]["mountType"], &rows[0]["vid"]), (&"RETRIEVE".into(), &"V01001".into()));
    let left = site.row("repack ls");
    assert_eq!(rows[0]["queuedFiles"], left["filesLeftToRetrieve"]);
}

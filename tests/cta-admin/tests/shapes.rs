//! The rows of every list: keys, types, framing; the generated tapes; the ready-made worlds.

#![expect(clippy::unwrap_used, reason = "code shared by tests may fail as a test does")]

mod common;

use std::collections::BTreeMap;

use common::Site;
use cta_sim::{Keyset, TapeState, Transport, World};
use serde_json::Value;

/// `S` string of digits, `N` number, `t` text, `b` truth, `a` array, `2` and `3` the logs, `o` object.
const HEAD: &[(&str, &str)] = &[
    (
        "tape ls --vid V01001",
        "vid:t mediaType:t vendor:t logicalLibrary:t tapepool:t vo:t encryptionKeyName:t capacity:S \
        occupancy:S lastFseq:S full:b labelLog:2 lastWrittenLog:2 creationLog:3 lastModificationLog:3 comment:t \
        readMountCount:S writeMountCount:S nbMasterFiles:S masterDataInBytes:S fromCastor:b state:t stateReason:t \
        stateUpdateTime:S stateModifiedBy:t dirty:b verificationStatus:t purchaseOrder:t physicalLibrary:t labelFormat:t \
        instanceName:t storageClassStatistics:a",
    ),
    ("tapefile ls --vid V01001", "af:o df:o tf:o instanceName:t"),
    (
        "recycletf ls --vid V01002",
        "vid:t fseq:S blockId:S copyNb:N tapeFileCreationTime:S archiveFileId:S diskInstance:t \
        diskFileId:t diskFileIdWhenDeleted:t diskFileUid:S diskFileGid:S sizeInBytes:S checksum:a storageClass:t \
        archiveFileCreationTime:S reconciliationTime:S collocationHint:t diskFilePath:t reasonLog:t recycleLogTime:S \
        virtualOrganization:t instanceName:t",
    ),
    (
        "tapepool ls --name quarantine",
        "name:t vo:t numTapes:S numPartialTapes:S numPhysicalFiles:S capacityBytes:S dataBytes:S \
        encrypt:b supply:t created:3 modified:3 comment:t instanceName:t encryptionKeyName:t supplySource:a \
        supplyDestination:a",
    ),
    (
        "repack ls",
        "vid:t repackBufferUrl:t userProvidedFiles:S totalFilesToRetrieve:S totalBytesToRetrieve:S \
        totalFilesToArchive:S totalBytesToArchive:S retrievedFiles:S archivedFiles:S failedToRetrieveFiles:S \
        failedToRetrieveBytes:S failedToArchiveFiles:S failedToArchiveBytes:S lastExpandedFseq:S status:t \
        destinationInfos:a repackTime:S creationLog:3 repackFinishedTime:S retrievedBytes:S filesLeftToRetrieve:S \
        filesLeftToArchive:S totalFailedFiles:S archivedBytes:S tapepool:t totalFilesOnTapeAtStart:S \
        totalBytesOnTapeAtStart:S allFilesSelectedAtStart:b instanceName:t schedulerBackendName:t",
    ),
    (
        "mountpolicy ls",
        "name:t archivePriority:S archiveMinRequestAge:S retrievePriority:S retrieveMinRequestAge:S \
        creationLog:3 lastModificationLog:3 comment:t instanceName:t",
    ),
    (
        "virtualorganization ls",
        "name:t readMaxDrives:S writeMaxDrives:S maxFileSize:S diskinstance:t isRepackVo:b \
        creationLog:3 lastModificationLog:3 comment:t instanceName:t",
    ),
    (
        "mediatype ls",
        "name:t cartridge:t capacity:S primaryDensityCode:N secondaryDensityCode:N numberOfWraps:N minLpos:S \
        maxLpos:S creationLog:3 lastModificationLog:3 comment:t instanceName:t",
    ),
    (
        "logicallibrary ls",
        "name:t isDisabled:b disabledReason:t physicalLibrary:t creationLog:3 lastModificationLog:3 comment:t \
        instanceName:t",
    ),
    ("storageclass ls", "name:t nbCopies:S vo:t creationLog:3 lastModificationLog:3 comment:t instanceName:t"),
    (
        "archiveroute ls",
        "storageClass:t copyNumber:N archiveRouteType:t tapepool:t creationLog:3 lastModificationLog:3 comment:t \
        instanceName:t",
    ),
    (
        "showqueues",
        "mountType:t tapepool:t logicalLibrary:t vid:t queuedFiles:S queuedBytes:S oldestAge:S priority:S minAge:S \
        curMounts:S curFiles:S curBytes:S tapesCapacity:S tapesFiles:S tapesBytes:S fullTapes:S writableTapes:S \
        sleepingForSpace:b sleepStartTime:S diskSystemSleptFor:t vo:t readMaxDrives:S writeMaxDrives:S mountPolicies:a \
        highestPriorityMountPolicy:t lowestRequestAgeMountPolicy:t youngestAge:S instanceName:t schedulerBackendName:t",
    ),
    (
        "version",
        "clientVersion:o serverVersion:o catalogueConnectionString:t catalogueVersion:t isUpgrading:b \
        schedulerBackendName:t instanceName:t",
    ),
];

/// Keys that 5.10.7 does not have.
const NEWER: &[(&str, &[&str])] = &[
    ("tape ls --vid V01001", &["labelFormat", "storageClassStatistics"]),
    ("recycletf ls --vid V01002", &["virtualOrganization"]),
    ("tapepool ls --name quarantine", &["encryptionKeyName", "supplySource", "supplyDestination"]),
    (
        "repack ls",
        &["totalFilesOnTapeAtStart", "totalBytesOnTapeAtStart", "allFilesSelectedAtStart", "schedulerBackendName"],
    ),
    ("archiveroute ls", &["archiveRouteType"]),
    ("showqueues", &["schedulerBackendName"]),
    ("version", &["schedulerBackendName"]),
];

/// A world in which every list has a row.
fn world() -> World {
    let mut world = World::new().with_full_tapes(2).with_durations(0, 10_000);
    let tape = world.tapes.get_mut("V01002").unwrap();
    let run = tape.files.remove(0);
    tape.recycled.push(cta_sim::world::Recycled { run, time: 1_700_000_000, reason: "REPACK".into() });
    world.tapes.get_mut("V01001").unwrap().state = TapeState::Repacking;
    world
}

fn site(world: &World) -> Site {
    let site = Site::new(world);
    site.ok("repack add --mountpolicy repack_low_priority --vid V01001");
    site.edit(|world| {
        world.skip(2000);
    });
    site
}

fn digits(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
}

fn has_type(value: &Value, kind: &str) -> bool {
    let log = |first: &str| value[first].is_string() && digits(&value["time"]);
    match kind {
        "S" => digits(value),
        "N" => value.is_u64(),
        "t" => value.is_string(),
        "b" => value.is_boolean(),
        "a" => value.is_array(),
        "o" => value.is_object(),
        "2" => log("drive"),
        _ => log("username") && value["host"].is_string(),
    }
}

fn check(row: &Value, expected: &BTreeMap<&str, &str>, line: &str) {
    let row = row.as_object().unwrap();
    for (key, kind) in expected {
        let value = row.get(*key).unwrap_or_else(|| panic!("{line}: no {key}"));
        assert!(has_type(value, kind), "{line}: {key} is {value}, not {kind}");
    }
    for key in row.keys() {
        assert!(expected.contains_key(key.as_str()), "{line}: unexpected {key}");
    }
}

#[test]
fn every_list_has_the_keys_and_types_of_its_version() {
    for keyset in [Keyset::Head, Keyset::V5_10_7] {
        let site = site(&world().with_keyset(keyset));
        for (line, keys) in HEAD {
            let mut expected: BTreeMap<&str, &str> =
                keys.split_whitespace().map(|word| word.split_once(':').unwrap()).collect();
            if keyset == Keyset::V5_10_7 {
                expected.remove("instanceName");
                let newer = NEWER.iter().find(|(command, _)| command == line).map_or(&[][..], |(_, keys)| keys);
                for key in newer {
                    assert!(expected.remove(key).is_some(), "{line}: {key}");
                }
            }
            let rows = site.rows(line);
            assert!(!rows.is_empty(), "{line} has no row");
            rows.iter().for_each(|row| check(row, &expected, line));
        }
    }
}

#[test]
fn a_tape_file_names_its_place_and_its_archive_file() {
    let site = site(&world());
    let rows = site.rows("tapefile ls --vid V01001");
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row["tf"]["fSeq"], (91 + i).to_string(), "by sequence number");
        assert_eq!((&row["tf"]["vid"], &row["tf"]["copyNb"]), (&"V01001".into(), &1.into()));
        let texts = [&row["af"]["archiveId"], &row["af"]["size"], &row["af"]["creationTime"], &row["tf"]["blockId"]];
        assert!(texts.into_iter().all(digits), "{row}");
        assert!(row["df"]["diskId"].is_string() && row["df"]["ownerId"]["uid"].is_u64());
        assert_eq!(row["af"]["checksum"][0]["type"], "ADLER32");
    }
    let id = rows[3]["af"]["archiveId"].as_str().unwrap();
    assert_eq!(site.rows(&format!("tapefile ls --id {id}")), [rows[3].clone()]);
}

#[test]
fn the_three_framings_hold_the_same_rows() {
    let site = site(&world());
    let rows = site.rows("tape ls --all");
    let lines = site.ok("--jsonl tape ls --all").text();
    let parsed: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed, rows);
    let json = site.ok("--json tape ls --all").text();
    assert_eq!((json.lines().count(), json.ends_with("]\n")), (1, true), "one line");
    assert!(site.ok("tape ls --all").text().lines().count() > rows.len(), "a header");
    for (line, stdout) in [("--json", "[]\n"), ("--jsonl", "")] {
        assert_eq!(site.ok(&format!("{line} tape ls --tapepool nope")).text(), stdout);
    }
    assert_eq!(site.ok("--json tape ch --vid V01002 --comment c").text(), "[]\n");
    assert_eq!(site.ok("tape ch --vid V01002 --comment c").text(), "");
    site.edit(|world| world.transport = Transport::Grpc);
    assert_eq!(site.ok("--json tape ch --vid V01002 --comment c").text(), "", "gRPC: nothing");
    assert_eq!(site.ok("--json tape ls --tapepool nope").text(), "[]\n");
}

#[test]
fn a_log_that_was_never_set_is_left_out() {
    let site = site(&world());
    site.ok("tape add --vid N1 --mediatype LTO9 --vendor v --logicallibrary IBM1 --tapepool quarantine --full false");
    let row = site.row("tape ls --vid N1");
    for key in ["labelLog", "lastWrittenLog", "lastReadLog"] {
        assert!(row.get(key).is_none(), "{key}");
    }
    assert_eq!(row["dirty"], true, "a new tape starts dirty");
}

#[test]
fn each_filter_of_tape_ls_selects_by_its_own_property() {
    let mut world = World::new().with_full_tapes(3);
    let other = world.tapes.get_mut("V01003").unwrap();
    (other.media, other.vendor, other.logical_library) = ("LTO8".into(), "SONY".into(), "IBM2".into());
    (other.pool, other.state, other.purchase_order) = ("quarantine".into(), TapeState::RepackingPending, "PO".into());
    (other.full, other.from_castor) = (true, true);
    let site = Site::new(&world);
    for filter in [
        "--mediatype LTO8",
        "--mt LTO8",
        "--vendor SONY",
        "--logicallibrary IBM2",
        "--physicallibrary TOWER2",
        "--tapepool quarantine",
        "--virtualorganisation ops",
        "--capacity 12000000000000",
        "--state repacking_pending",
        "--fromcastor true",
        "--purchaseorder PO",
        "--vid V01003 --full true",
    ] {
        let rows = site.rows(&format!("tape ls {filter}"));
        assert_eq!(rows.iter().map(|row| row["vid"].as_str().unwrap()).collect::<Vec<_>>(), ["V01003"], "{filter}");
    }
    assert_eq!(site.rows("tape ls --full true").len(), 3);
    assert_eq!(site.rows("tape ls --full false").len(), 3);
    assert_eq!(site.rows("tape ls --vid V01003 --full false").len(), 0);
}

#[test]
fn statistics_are_counted_live_while_the_cached_counters_are_stale() {
    let mut world = World::new().with_full_tapes(1);
    let tape = world.tapes.get_mut("V01001").unwrap();
    tape.files[0].count = 3;
    let site = Site::new(&world);
    let row = site.row("tape ls --vid V01001 --get-storage-class-stats");
    let class = &row["storageClassStatistics"][0];
    assert_eq!((&class["nbMasterFiles"], &row["nbMasterFiles"]), (&"3".into(), &"10".into()));
    assert_eq!(class["masterDataInBytes"], "6000000000");
    assert_eq!(site.row("tape ls --vid V01001")["storageClassStatistics"], serde_json::json!([]), "only if asked for");
}

#[test]
fn pool_figures_are_sums_over_their_tapes() {
    let site = Site::new(&World::new().with_full_tapes(3).with_generated(500, 3));
    let tapes = site.rows("tape ls --all");
    for pool in site.rows("tapepool ls") {
        let inside: Vec<_> = tapes.iter().filter(|tape| tape["tapepool"] == pool["name"]).collect();
        let sum = |key: &str| inside.iter().map(|t| t[key].as_str().unwrap().parse::<u64>().unwrap()).sum::<u64>();
        assert_eq!(pool["numTapes"], inside.len().to_string());
        assert_eq!(pool["dataBytes"], sum("occupancy").to_string());
        assert_eq!(pool["numPhysicalFiles"], sum("lastFseq").to_string());
        assert_eq!(pool["capacityBytes"], sum("capacity").to_string());
    }
}

#[test]
fn computed_tapes_are_listed_as_the_library_says_in_the_order_of_vids() {
    let site = Site::new(&World::new().with_full_tapes(2).with_generated(300, 42));
    let rows = site.rows("tape ls --all");
    let vids: Vec<_> = rows.iter().map(|row| row["vid"].as_str().unwrap().to_owned()).collect();
    assert!(vids.is_sorted() && vids.len() == 305, "{}", vids.len());
    let computed: Vec<_> = rows.iter().filter(|row| row["vid"].as_str().unwrap().starts_with('G')).cloned().collect();
    assert_eq!(computed, (0..300).map(|i| cta_sim::generated_tape(42, i)).collect::<Vec<_>>());
    assert_ne!(cta_sim::generated_tape(42, 7), cta_sim::generated_tape(43, 7), "the seed matters");
    assert_eq!(site.row("tape ls --vid G0000299"), computed[299]);
    assert_eq!(site.go("tape ls --vid G0000300").code, Some(2));
}

#[test]
fn a_list_of_very_many_computed_tapes_needs_little_memory() {
    use std::io::Read;
    let site = Site::new(&World::new().with_generated(60_000, 1));
    let mut child = site.spawn("--json tape ls --all");
    let mut most = vec![0; 40_000_000];
    child.stdout.as_mut().unwrap().read_exact(&mut most).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(kilobytes < 20_000, "{kilobytes} kB");
}

#[test]
fn other_crates_find_the_program_next_to_their_tests() {
    assert_eq!(cta_sim::program().unwrap(), std::path::Path::new(env!("CARGO_BIN_EXE_cta-admin")));
}

#[test]
fn a_computed_tape_that_is_changed_stays_changed_and_is_listed_once() {
    let site = Site::new(&World::new().with_generated(50, 1));
    site.ok("tape ch --vid G0000007 --comment mine");
    let rows = site.rows("tape ls --all");
    assert_eq!(rows.len(), 50);
    assert_eq!(rows[7]["comment"], "mine");
}

#[test]
fn computed_tapes_are_of_all_kinds() {
    let tapes: Vec<_> = (0..2000).map(|i| cta_sim::generated::tape(5, i)).collect();
    let share = |wanted: &dyn Fn(&cta_sim::Tape) -> bool| tapes.iter().filter(|tape| wanted(tape)).count();
    assert!((1500..1700).contains(&share(&|t| t.full)));
    assert!((1700..1900).contains(&share(&|t| t.state == TapeState::Active)));
    assert!(share(&|t| t.occupancy == 0) > 10 && share(&|t| t.dirty) > 50);
    let low = share(&|t| t.occupancy > 0 && t.cached_bytes * 2 < t.occupancy);
    assert!((800..1200).contains(&low), "usage is spread: {low}");
    assert!(tapes.iter().all(|t| t.live_bytes() == t.cached_bytes && t.cached_bytes <= t.occupancy));
}

#[test]
fn the_quickstart_has_forty_tapes_of_the_kinds_it_promises() {
    let world = cta_sim::profile::quickstart(40, 1);
    let usage = |tape: &cta_sim::Tape| tape.live_bytes() * 100 / tape.occupancy.max(1);
    let full_active: Vec<_> =
        world.tapes.values().filter(|tape| tape.full && tape.state == TapeState::Active).collect();
    assert_eq!(world.tapes.len(), 40);
    let low = full_active.iter().filter(|tape| usage(tape) < 20).count();
    assert!((24..=30).contains(&low), "{low}");
    assert_eq!(full_active.iter().filter(|tape| usage(tape) >= 60).count(), full_active.len() - low);
    assert_eq!(world.tapes.values().filter(|tape| tape.state == TapeState::Disabled && tape.full).count(), 1);
    assert_eq!(world.tapes.values().filter(|tape| tape.state == TapeState::Broken).count(), 1);
    assert_eq!(world.tapes.values().filter(|tape| tape.plan.fail_files > 0).count(), 1);
    let failing = &world.tapes[cta_sim::profile::FAILING];
    assert!(failing.full && failing.live_files() > 2 && failing.state == TapeState::Active);
    assert!(world.tapes.values().all(|tape| (3000..=6000).contains(&tape.plan.repack_ms.unwrap())));
    for (suffix, library, media) in [("IBM1L8", "IBM1", "LTO8"), ("IBM2L9", "IBM2", "LTO9")] {
        assert!(
            world.pools.contains_key(&format!("tolabel_{suffix}"))
                && world.pools.contains_key(&format!("erase_{suffix}"))
        );
        assert!(world.tapes.values().any(|tape| tape.logical_library == library && tape.media == media));
    }
}

#[test]
fn every_low_tape_of_the_quickstart_can_be_repacked_at_once() {
    let site = Site::new(&cta_sim::profile::quickstart(40, 1));
    let low: Vec<String> = site
        .world()
        .tapes
        .iter()
        .filter(|(_, tape)| tape.full && tape.live_bytes() * 5 < tape.occupancy && tape.state == TapeState::Active)
        .map(|(vid, _)| vid.clone())
        .collect();
    for vid in &low {
        site.ok(&format!("tape ch --vid {vid} --state REPACKING --reason r"));
    }
    site.edit(|world| world.skip(1000));
    for vid in &low {
        site.ok(&format!("repack add --mountpolicy repack_high_priority --justmove --vid {vid}"));
    }
    site.edit(|world| world.skip(60_000));
    let rows = site.rows("repack ls");
    let failed: Vec<_> =
        rows.iter().filter(|row| row["status"] != "Complete").map(|row| row["vid"].as_str().unwrap()).collect();
    assert_eq!((rows.len(), failed), (low.len(), vec![cta_sim::profile::FAILING]));
}

#[test]
fn the_program_creates_worlds_and_changes_their_options() {
    let site = Site::new(&World::new());
    let dir = site.dir().join("other").display().to_string();
    let options = "--profile quickstart --tapes 20 --seed 3 --speed 2.5 --transport grpc --scheduler postgres --split";
    let mut args = vec!["--sim-create", &dir];
    args.extend(options.split(' '));
    assert_eq!(site.run(&args).code, Some(0));
    let world = World::load(dir.as_ref()).unwrap();
    assert_eq!((world.tapes.len(), world.speed, world.transport), (20, 2.5, Transport::Grpc));
    assert_eq!((world.scheduler, world.frontends.len()), (cta_sim::Scheduler::Postgres, 2));
    assert_eq!(site.run(&["--sim-set", &dir, "down", "true"]).code, Some(0));
    assert!(World::load(dir.as_ref()).unwrap().down);
    assert_eq!(site.run(&["--sim-set", &dir, "nonsense", "true"]).code, Some(1));
    assert_eq!(site.run(&["--sim-create", &dir, "--tapes"]).code, Some(1));
    let summary = site.run(&["--sim-summary", &dir]);
    assert_eq!(serde_json::from_slice::<Value>(&summary.stdout).unwrap()["tapes"], 20);
}

//! Every refusal CTA is known for: message, exit code and streams, on both transports.

#![expect(clippy::unwrap_used, reason = "code shared by tests may fail as a test does")]

mod common;

use common::Site;
use cta_sim::{Keyset, Scheduler, Tape, TapeState, Transport, World};

/// What a refusal is to CTA; decides the exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    User,
    Internal,
}
use Class::{Internal, User};

struct Case {
    name: &'static str,
    world: fn() -> World,
    command: &'static str,
    class: Class,
    message: &'static str,
}

const fn case(
    name: &'static str,
    world: fn() -> World,
    command: &'static str,
    class: Class,
    message: &'static str,
) -> Case {
    Case { name, world, command, class, message }
}

fn plain() -> World {
    World::new().with_full_tapes(3)
}

fn old() -> World {
    plain().with_keyset(Keyset::V5_10_7)
}

fn with(change: impl FnOnce(&mut World)) -> World {
    let mut world = plain();
    change(&mut world);
    world
}

fn in_state(state: TapeState) -> World {
    with(|world| world.tapes.get_mut("V01001").unwrap().state = state)
}

fn emptied(state: TapeState, recycled_ago: Option<u64>) -> World {
    with(|world| {
        let tape = world.tapes.get_mut("V01001").unwrap();
        tape.state = state;
        let run = tape.files.remove(0);
        if let Some(ago) = recycled_ago {
            let time = cta_sim::store::now_us() / 1_000_000 - ago;
            tape.recycled.push(cta_sim::world::Recycled { run, time, reason: "REPACK".into() });
        }
    })
}

/// A world where V01001 has a repack request that never ends by itself.
fn requested(scheduler: Scheduler) -> World {
    let mut world = in_state(TapeState::Repacking).with_scheduler(scheduler);
    world.daemon_down = true;
    world.max_active = 1;
    world.requests.push(cta_sim::world::Request {
        vid: "V01001".into(),
        scheduler: "cta".into(),
        ..cta_sim::world::Request::default()
    });
    world
}

const ADD: &str = "repack add --mountpolicy repack_low_priority --vid";
const STATES: &str = "Possible values are ACTIVE BROKEN DISABLED EXPORTED REPACKING REPACKING_DISABLED";

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    vec![
        case("a caller who is no administrator", || with(|w| w.unauthorized = true), "version", User,
            "User: opsadmin on host: ctaops01 is not authorized to execute CTA admin commands"),
        case("a change by a caller who is no administrator", || with(|w| w.unauthorized = true), "tape reclaim --vid V01001", User,
            "User: opsadmin on host: ctaops01 is not authorized to execute CTA admin commands"),
        case("tape ls without filter", plain, "tape ls", User, "Must specify at least one search option, or --all"),
        case("tape ls with statistics only", plain, "tape ls --get-storage-class-stats", User, "Must specify at least one search option, or --all"),
        case("tape ls --all with a filter", plain, "tape ls --all --full true", User, "Cannot specify --all together with other search options"),
        case("tape ls of an unknown tape", plain, "tape ls --vid X", User, "Tape VID X does not exist."),
        case("tape ls with a lower case VID", plain, "tape ls --vid v01001", User, "Tape VID v01001 does not exist."),
        case("tape ls with an unknown state", plain, "tape ls --state FOO", User, "The state given (FOO) does not exist. ..."),
        case("tape ls of an unknown pool before 5.11.12", old, "tape ls --tapepool P", User, "..."),
        case("tapefile ls of an unknown tape", plain, "tapefile ls --vid X", User, "Tape VID X does not exist."),
        case("tapefile ls of an unknown file", plain, "tapefile ls --id 7", User, "Archive file with ID 7 does not exist"),
        case("tapefile ls without filter", plain, "tapefile ls", User, "..."),
        case("recycletf ls of an unknown tape", plain, "recycletf ls --vid X", User, "Tape VID X does not exist."),
        case("recycletf ls with a copy number only", plain, "recycletf ls --copynb 1", User, "..."),
        case("tapepool ls of an unknown pool", plain, "tapepool ls --name P", User, "Cannot list tape pools because tape pool 'P' does not exist"),
        case("tape ch to an unknown pool", plain, "tape ch --vid V01001 --tapepool P", User, "Cannot modify tape V01001 because the tape pool P does not exist"),
        case("tape ch to an unknown library", plain, "tape ch --vid V01001 --logicallibrary L", User, "Cannot modify tape V01001 because the logical library L does not exist"),
        case("tape ch to an unknown media type", plain, "tape ch --vid V01001 --mediatype M", User, "Cannot modify tape V01001 because the media type M does not exist"),
        case("tape ch of the media type of a tape with files", plain, "tape ch --vid V01001 --mediatype LTO8", User, "Unable to modify media type of tape V01001 because it contains files"),
        case("tape ch of the key of a tape with files", plain, "tape ch --vid V01001 --encryptionkeyname k", User, "ERROR: forbidden to set an encryption key on a non empty tape."),
        case("tape ch of the key of a tape with recycled files", || emptied(TapeState::Active, Some(9)), "tape ch --vid V01001 --encryptionkeyname k", User, "ERROR: forbidden to set an encryption key on a non empty tape."),
        case("tape ch of an unknown tape", plain, "tape ch --vid X --full true", User, "Cannot modify tape X because it does not exist"),
        case("tape ch of the state of an unknown tape", plain, "tape ch --vid X --state ACTIVE", User, "The VID X does not exist"),
        case("tape ch to a state that is none", plain, "tape ch --vid V01001 --state FOO", User, "The state given (FOO) does not exist. ..."),
        case("tape ch to an internal state", plain, "tape ch --vid V01001 --state REPACKING_PENDING --reason r", User, "Internal states cannot be set directly by the user"),
        case("tape ch to REPACKING without a reason", plain, "tape ch --vid V01001 --state REPACKING", User, "Cannot modify the state of the tape V01001 to REPACKING because the reason has not been provided."),
        case("tape ch to DISABLED without a reason", plain, "tape ch --vid V01001 --state DISABLED", User, "Cannot modify the state of the tape V01001 to DISABLED because the reason has not been provided."),
        case("tape ch out of a pending state", || in_state(TapeState::RepackingPending), "tape ch --vid V01001 --state ACTIVE", User, "Cannot modify tape V01001 state while it is in a temporary internal state"),
        case("tape ch to ACTIVE with a request", || requested(Scheduler::Objectstore), "tape ch --vid V01001 --state ACTIVE", User, "Cannot modify tape V01001 state because there is a repack for that tape"),
        case("tape ch to BROKEN with a request", || requested(Scheduler::Postgres), "tape ch --vid V01001 --state BROKEN --reason r", User, "Cannot modify tape V01001 state because there is a repack for that tape"),
        case("tape ch from REPACKING_DISABLED to ACTIVE", || in_state(TapeState::RepackingDisabled), "tape ch --vid V01001 --state ACTIVE", User, "Cannot modify tape V01001 state from REPACKING_DISABLED to ACTIVE"),
        case("tape ch from ACTIVE to REPACKING_DISABLED", plain, "tape ch --vid V01001 --state REPACKING_DISABLED --reason r", User, "Cannot modify tape V01001 state from ACTIVE to REPACKING_DISABLED"),
        case("reclaim of an unknown tape", plain, "tape reclaim --vid X", Internal, "Cannot find tape X"),
        case("reclaim of an unknown tape before 5.11.16", old, "tape reclaim --vid X", User, "Cannot reclaim tape X because it does not exist"),
        case("reclaim in REPACKING", || emptied(TapeState::Repacking, None), "tape reclaim --vid V01001", User, "Cannot reclaim tape V01001 because it is not on ACTIVE, DISABLED or BROKEN state"),
        case("reclaim in REPACKING_DISABLED", || emptied(TapeState::RepackingDisabled, None), "tape reclaim --vid V01001", User, "Cannot reclaim tape V01001 because it is not on ACTIVE, DISABLED or BROKEN state"),
        case("reclaim in BROKEN before 5.11.10", || emptied(TapeState::Broken, None).with_keyset(Keyset::V5_10_7), "tape reclaim --vid V01001", User, "Cannot reclaim tape V01001 because it is not on ACTIVE or DISABLED state"),
        case("reclaim of a tape that is not full", plain, "tape reclaim --vid D01001", User, "Cannot reclaim tape D01001 because it is not FULL"),
        case("reclaim of a tape with files", plain, "tape reclaim --vid V01001", User, "Cannot reclaim tape V01001 because there is at least one tape file in the catalogue that is on the tape"),
        case("reclaim too early", || { let mut w = emptied(TapeState::Active, Some(1_209_600)); w.recycle_log_quarantine_secs = 2_678_400; w }, "tape reclaim --vid V01001", User, "This tape contains files deleted 120960..."),
        case("repack add without a tape", plain, "repack add --mountpolicy repack_low_priority", User, "Must specify at least one vid, using --vid or --vidfile options"),
        case("repack add without a repack VO", || with(|w| { w.vos.remove("vo_repack"); }), "repack add --mountpolicy nope --vid V01001", User, "There is no default virtual organization for repack."),
        case("repack add with an unknown mount policy", plain, "repack add --mountpolicy nope --vid V01001", User, "The mount policy name provided does not match any existing mount policy."),
        case("repack add without a buffer", || with(|w| w.buffer_url = None), "repack add --mountpolicy repack_low_priority --vid V01001", User, "Must specify the buffer URL using --bufferurl option or using the frontend configuration file."),
        case("repack add with both modes", plain, "repack add --justmove --justaddcopies --mountpolicy repack_low_priority --vid V01001", User, "--justaddcopies and --justmove are mutually exclusive"),
        case("repack add of an unknown tape", plain, "repack add --mountpolicy repack_low_priority --vid X", User, "The VID provided for repacking does not exist"),
        case("repack add of a tape that is not full", plain, "repack add --mountpolicy repack_low_priority --vid D01001", User, "You must set the tape as full before repacking it."),
        case("repack add in ACTIVE", plain, "repack add --mountpolicy repack_low_priority --vid V01001", User, "You cannot repack a tape that is ACTIVE. You must first change its state to REPACKING."),
        case("repack add in DISABLED", || in_state(TapeState::Disabled), "repack add --mountpolicy repack_low_priority --vid V01001", User, "You cannot repack a tape that is DISABLED. You must first change its state to REPACKING."),
        case("repack add in REPACKING_PENDING", || in_state(TapeState::RepackingPending), "repack add --mountpolicy repack_low_priority --vid V01001", User, "You cannot repack a tape that is REPACKING_PENDING. You must wait for its state to complete the transition to REPACKING."),
        case("repack add in BROKEN", || in_state(TapeState::Broken), "repack add --mountpolicy repack_low_priority --vid V01001", User, "You cannot repack a tape that is BROKEN."),
        case("repack add twice", || requested(Scheduler::Objectstore), "repack add --mountpolicy repack_low_priority --vid V01001", User, "A repack request already exists for this VID."),
        case("repack add twice on PostgreSQL", || requested(Scheduler::Postgres), "repack add --mountpolicy repack_low_priority --vid V01001", Internal, "..."),
        case("repack add where repack is disabled", || with(|w| w.repack_disabled = true), "repack add --mountpolicy repack_low_priority --vid V01001", User, "Repack requests are disabled."),
        case("repack ls of a tape without request", || requested(Scheduler::Objectstore), "repack ls --vid V01002", User, "No repack request for this VID."),
        case("repack ls of a tape where there never was a request", plain, "repack ls --vid V01002", User, "No repack request for this VID (index not present)."),
        case("repack ls of a tape without request on PostgreSQL", || requested(Scheduler::Postgres), "repack ls --vid V01002", User, "No repack request found for VID: V01002"),
        case("repack ls with a request of a deleted tape", || { let mut w = requested(Scheduler::Objectstore); w.tapes.remove("V01001"); w }, "repack ls", Internal, "Not all tapes were found: V01001"),
        case("repack rm of a tape without request", plain, "repack rm --vid V01001", User, "No repack request for this VID."),
        case("tape add of a tape that exists", plain, "tape add --vid V01001 --mediatype LTO9 --vendor v --logicallibrary IBM1 --tapepool quarantine --full false", User, "Cannot create tape V01001 because a tape with the same volume identifier already exists"),
        case("tape add to an unknown pool", plain, "tape add --vid N1 --mediatype LTO9 --vendor v --logicallibrary IBM1 --tapepool P --full false", User, "Cannot create tape N1 because tape pool P does not exist"),
        case("tape add in lower case", plain, "tape add --vid n1 --mediatype LTO9 --vendor v --logicallibrary IBM1 --tapepool quarantine --full false", User, "Cannot create tape because the VID has non uppercase characters"),
        case("tape add in a state without reason", plain, "tape add --vid N1 --mediatype LTO9 --vendor v --logicallibrary IBM1 --tapepool quarantine --full false --state DISABLED", User, "Cannot create tape because no reason has been provided for the state DISABLED"),
        case("tape rm with files", plain, "tape rm --vid V01001", User, "Cannot delete tape V01001 because either it contains one or more files or the files that were in it are in the file recycle log."),
        case("tape rm with recycled files", || emptied(TapeState::Active, Some(9)), "tape rm --vid V01001", User, "Cannot delete tape V01001 because either it contains one or more files or the files that were in it are in the file recycle log."),
        case("tape rm with a request", || requested(Scheduler::Objectstore), "tape rm --vid V01001", User, "Cannot delete tape V01001 because there is a repack for that tape"),
        case("tape rm of an unknown tape", plain, "tape rm --vid X", User, "Cannot delete tape X because it does not exist"),
        case("tapepool add of a pool that exists", plain, "tapepool add --name quarantine --vo ops --partialtapesnumber 1 --comment c", User, "Cannot create tape pool 'quarantine' because a tape pool with the same name already exists"),
        case("tapepool add for an unknown VO", plain, "tapepool add --name p --vo nope --partialtapesnumber 1 --comment c", User, "Cannot create tape pool 'p' because vo 'nope' does not exist."),
        case("failedrequest ls on PostgreSQL", || plain().with_scheduler(Scheduler::Postgres), "failedrequest ls", Internal, "..."),
    ]
}

fn matches(expected: &str, got: &str) -> bool {
    match expected.strip_suffix("...") {
        Some(start) => !got.trim().is_empty() && got.starts_with(start.trim_end()),
        None => got == format!("{expected}\n"),
    }
}

#[test]
fn every_refusal_has_its_message_exit_code_and_streams_on_xrootd() {
    for case in cases() {
        let site = Site::new(&(case.world)());
        let plain = site.go(case.command);
        let json = site.go(&format!("--json {}", case.command));
        let (code, array) = match case.class {
            User => (2, "[]\n"),
            Internal => (1, ""),
        };
        assert_eq!((plain.code, plain.text().as_str()), (Some(code), ""), "{}: {plain:?}", case.name);
        assert_eq!((json.code, json.text().as_str()), (Some(code), array), "{}: {json:?}", case.name);
        assert!(matches(case.message, &plain.stderr), "{}: {plain:?}", case.name);
        // an age in a message may differ by a second
        assert_eq!(plain.stderr.len(), json.stderr.len(), "{}: {json:?}", case.name);
    }
}

#[test]
fn on_grpc_a_refused_list_exits_0_with_text_on_stdout_and_a_refused_change_prints_no_array() {
    for case in cases() {
        let site = Site::new(&(case.world)().with_transport(Transport::Grpc));
        let json = site.go(&format!("--json {}", case.command));
        let list = case.command.contains(" ls") || case.command == "version";
        if list {
            let number = if case.class == User { 3 } else { 13 };
            let start = format!("gRPC call failed. Error code: {number} Error message: ");
            let text = json.text();
            let message = text.strip_prefix(&start).and_then(|rest| rest.strip_suffix("[]\n"));
            let message = message.unwrap_or_else(|| panic!("{}: {json:?}", case.name));
            assert_eq!((json.code, json.stderr.as_str()), (Some(0), ""), "{}: {json:?}", case.name);
            assert!(matches(case.message, message), "{}: {json:?}", case.name);
        } else {
            let code = if case.class == User { 2 } else { 1 };
            assert_eq!((json.code, json.text().as_str()), (Some(code), ""), "{}: {json:?}", case.name);
            assert!(matches(case.message, &json.stderr), "{}: {json:?}", case.name);
        }
    }
}

#[test]
fn a_refused_change_changes_nothing_and_is_journalled_as_refused() {
    for case in cases() {
        let site = Site::new(&(case.world)());
        let before = site.world();
        site.go(case.command);
        let after = site.world();
        assert_eq!(
            (&before.tapes, &before.requests, &before.pools),
            (&after.tapes, &after.requests, &after.pools),
            "{}",
            case.name
        );
        let effects: Vec<_> = site
            .journal()
            .into_iter()
            .filter(|entry| entry.kind == cta_sim::Kind::Effect)
            .map(|entry| entry.effect)
            .collect();
        let changing = !(case.command.contains(" ls") || case.command == "version");
        let expected = if changing { vec![cta_sim::Effect::Refused] } else { vec![] };
        assert_eq!(effects, expected, "{}", case.name);
    }
}

#[test]
fn the_list_of_states_names_the_six_that_can_be_set() {
    let site = Site::new(&plain());
    let reply = site.go("tape ch --vid V01001 --state FOO");
    assert_eq!(reply.stderr, format!("The state given (FOO) does not exist. {STATES}\n"));
}

#[test]
fn tapes_that_repack_add_accepts_are_those_in_repacking_and_repacking_disabled() {
    for state in TapeState::ALL {
        let accepted = site_accepts(state);
        assert_eq!(accepted, matches!(state, TapeState::Repacking | TapeState::RepackingDisabled), "{state:?}");
    }
}

fn site_accepts(state: TapeState) -> bool {
    let mut world = in_state(state);
    world.daemon_down = true;
    let site = Site::new(&world);
    site.go(&format!("{ADD} V01001")).code == Some(0)
}

#[test]
fn a_second_repack_rm_succeeds_silently_on_postgresql_only() {
    let site = Site::new(&requested(Scheduler::Postgres));
    site.ok("repack rm --vid V01001");
    site.ok("repack rm --vid V01001");
    let effects: Vec<_> = site.journal().iter().filter(|e| e.kind == cta_sim::Kind::Effect).map(|e| e.effect).collect();
    assert_eq!(effects, [cta_sim::Effect::Applied, cta_sim::Effect::None]);
}

#[test]
fn usage_errors_go_to_stderr_with_exit_1_and_never_reach_a_front_end() {
    let site = Site::new(&with(|world| world.down = true));
    for (line, start) in [
        ("", ""),
        ("nonsense ls", ""),
        ("--help", ""),
        ("tape help", "Invalid subcommand: help"),
        ("tape", "Missing subcommand"),
        ("tape reclaim", "Missing option: --vid"),
        ("tape reclaim --nonsense", "Invalid option: --nonsense"),
        ("tape reclaim --vid=V01001", "Invalid option: --vid=V01001"),
        ("tape reclaim --vid", "--vid expects a parameter"),
        ("tape ch --vid V01001 --full yes", "yes is not a boolean value"),
        ("repack add -u p -v V01001 --mfts many", "many is not a valid unsigned integer"),
        ("repack add -u p -v V01001 --mfts -1", "-1 is out of range"),
        ("repack add -u p -v V01001 --mfts 99999999999999999999", "99999999999999999999 is out of range"),
        ("repack add -u p --vidfile /nonexistent/file", "Unable to open file /nonexistent/file"),
        ("--json --jsonl tape ls --all", "--json and --jsonl"),
        ("--config /dev/null --json tape ls --all", ""),
        ("repack add -v V01001", "Missing option: --mountpolicy"),
    ] {
        let args: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let reply = site.run(&args);
        assert_eq!((reply.code, reply.text().as_str()), (Some(1), ""), "{line}: {reply:?}");
        assert!(reply.stderr.starts_with(start) && !reply.stderr.contains("XRootD"), "{line}: {reply:?}");
        assert!(!reply.stderr.is_empty(), "{line}");
    }
}

#[test]
fn options_of_newer_versions_are_unknown_to_an_older_one() {
    let site = Site::new(&old());
    for (line, option) in [
        ("tape ls --vid V01001 --get-storage-class-stats", "Invalid option: --get-storage-class-stats"),
        ("repack add -u repack_low_priority -v V01001 --maxfilestoselect 3", "Invalid option: --maxfilestoselect"),
    ] {
        let reply = site.go(line);
        assert_eq!(reply.code, Some(1), "{line}");
        assert!(reply.stderr.starts_with(option), "{reply:?}");
    }
    assert_eq!(site.go("--jsonl tape ls --all").code, Some(1));
    assert_eq!(site.rows("tape ls --vid X"), Vec::<serde_json::Value>::new());
}

#[test]
fn a_configuration_file_must_exist_and_name_a_known_front_end() {
    let site = Site::new(&plain().split());
    let missing = site.dir().join("missing.conf");
    let empty = site.file("empty.conf", "# cta.endpoint localhost:10955\n");
    let elsewhere = site.file("elsewhere.conf", "cta.endpoint nowhere:1\n");
    for (path, expected) in [
        (&missing, format!("Configuration error: unable to open {}\n", missing.display())),
        (&empty, format!("Configuration error: cta.endpoint missing from {}\n", empty.display())),
        (&elsewhere, "Error from XRootD SSI Framework: [FATAL] Connection error (nowhere:1)\n".to_owned()),
    ] {
        let reply = site.go(&format!("--json --config {} version", path.display()));
        assert_eq!((reply.code, reply.text().as_str(), reply.stderr), (Some(1), "", expected));
    }
    assert_eq!(site.go("version").code, Some(1), "no default configuration on a split site");
    std::fs::create_dir(site.dir().join("../.cta")).unwrap();
    std::fs::copy(site.dir().join("user.conf"), site.dir().join("../.cta/cta-cli.conf")).unwrap();
    assert_eq!(site.row("version")["schedulerBackendName"], "ctaUser");
}

#[test]
fn a_front_end_that_is_down_exits_1_and_on_grpc_0_for_lists() {
    let mut world = plain();
    world.down = true;
    let site = Site::new(&world);
    for line in ["--json tape ls --all", "tape reclaim --vid V01001", "--json version"] {
        let reply = site.go(line);
        assert_eq!((reply.code, reply.text().as_str()), (Some(1), ""), "{line}");
        assert!(reply.stderr.contains("[FATAL] Connection error"), "{reply:?}");
    }
    let site = Site::new(&world.with_transport(Transport::Grpc));
    let list = site.go("--json tape ls --all");
    assert_eq!((list.code, list.stderr.as_str()), (Some(0), ""));
    assert!(list.text().starts_with("gRPC call failed. Error code: 14 ") && list.text().ends_with("\n[]\n"));
    assert_eq!(site.go("tape reclaim --vid V01001").code, Some(1));
}

#[test]
fn one_front_end_of_two_can_be_down() {
    let mut world = plain().split();
    world.frontends[1].down = true;
    let site = Site::new(&world);
    let code = |name: &str| {
        let path = cta_sim::config_path(&site.dir(), name);
        site.go(&format!("--json --config {} version", path.display())).code
    };
    assert_eq!([code("user"), code("repack")], [Some(0), Some(1)]);
}

#[test]
fn of_a_repeated_option_the_first_counts() {
    let site = Site::new(&plain());
    site.ok("tape ch --vid V01001 --comment a -m b -v V01002");
    assert_eq!((&*site.world().tapes["V01001"].comment, &*site.world().tapes["V01002"].comment), ("a", ""));
}

#[test]
fn repack_ls_works_where_repack_requests_are_disabled() {
    let site = Site::new(&with(|world| world.repack_disabled = true));
    assert_eq!(site.ok("--json repack ls").text(), "[]\n");
}

#[test]
fn repack_err_is_a_stub_whose_json_is_none() {
    let site = Site::new(&plain());
    assert_eq!(site.ok("repack err --vid V01001").text(), "Not implemented");
    assert_eq!(site.ok("--json repack err --vid V01001").text(), "Not implemented[]\n");
    let site = Site::new(&plain().with_transport(Transport::Grpc));
    assert_eq!(site.ok("--json repack err --vid V01001").text(), "");
}

#[test]
fn a_multi_part_change_that_fails_keeps_what_was_done_before() {
    let site = Site::new(&plain().with_tape("N1", Tape::new("pool_alpha_raw")));
    let reply = site.go("--json tape ch --vid N1 --state REPACKING --full true --tapepool quarantine --dirtybit true");
    assert_eq!((reply.code, reply.text().as_str()), (Some(2), "[]\n"));
    let tape = site.row("tape ls --vid N1");
    assert_eq!(
        (&tape["tapepool"], &tape["full"], &tape["state"]),
        (&"quarantine".into(), &true.into(), &"ACTIVE".into())
    );
    assert_eq!(tape["dirty"], false, "what comes after the failed option is not done");
    assert_eq!(
        site.journal().iter().find(|e| e.kind == cta_sim::Kind::Effect).unwrap().effect,
        cta_sim::Effect::Partial
    );
}

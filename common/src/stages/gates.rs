//! The two gates: each condition alone closes them, and whatever is seen, no command passes that the conditions, stated
//! here once more, do not allow.

use proptest::prelude::*;

use super::fixtures;
use super::simulated::{Catalogue, Journey, at, request};
use super::*;
use crate::cta::reply::Log2;
use crate::journey::Stamps;
use crate::settings::QuarantineState;
use crate::task::{Counted, Marks};
use chrono::TimeDelta;

/// A tape that the gate lets through as it is.
fn before_reclaim() -> Journey {
    let mut journey = Journey::at(State::Quarantined);
    if let Next::At(when) = journey.task.next {
        journey.now = when;
    }
    journey.task.next = Next::Now;
    journey
}

fn before_finish() -> Journey {
    Journey::at(State::Reclaimed)
}

#[test]
fn both_gates_open_when_everything_holds() {
    let mut journey = before_reclaim();
    assert_eq!(journey.deliver(), Counted::Done);
    assert_eq!(journey.commands, ["user: tape reclaim"]);
    let mut journey = before_finish();
    assert_eq!(journey.deliver(), Counted::Done);
    assert_eq!(journey.commands[0], "user: tape ch --tapepool tolabel_LTO9");
}

#[test]
fn each_condition_of_the_reclaim_gate_alone_closes_it() {
    type Change = fn(&mut Journey);
    let rows: [(&str, Change, Code); 18] = [
        ("quarantine not over", |j| j.now -= TimeDelta::seconds(1), Code::QuarantineNotOver),
        ("in another pool", |j| j.cta.tape().tapepool = "raw".into(), Code::WrongPool),
        ("pool is routed", |j| j.cta.routes.push("quarantine".into()), Code::PoolIsRouted),
        ("not full", |j| j.cta.tape().full = false, Code::TapeChanged),
        ("in REPACKING", |j| j.cta.tape().state = "REPACKING".into(), Code::UnexpectedState),
        ("in REPACKING_DISABLED", |j| j.cta.tape().state = "REPACKING_DISABLED".into(), Code::UnexpectedState),
        ("in REPACKING_PENDING", |j| j.cta.tape().state = "REPACKING_PENDING".into(), Code::UnexpectedState),
        ("exported", |j| j.cta.tape().state = "EXPORTED".into(), Code::UnexpectedState),
        ("in a state nobody knows", |j| j.cta.tape().state = "NEW_WORD".into(), Code::UnexpectedState),
        ("someone's request", |j| j.cta.request = Some(request("Complete", "eve", 9)), Code::SomeoneElsesRequest),
        ("a file", |j| j.cta.files = Files { count: 1, bytes: 1 }, Code::FilesLeft),
        ("a file of no bytes", |j| j.cta.files = Files { count: 1, bytes: 0 }, Code::FilesLeft),
        ("another file written", |j| j.cta.tape().last_fseq += 1, Code::TapeChanged),
        ("more bytes written", |j| j.cta.tape().occupancy += 1, Code::TapeChanged),
        (
            "labelled again",
            |j| j.cta.tape().label_log = Some(Log2 { drive: "D1".to_owned(), time: 2 }),
            Code::TapeChanged,
        ),
        ("label unknown", |j| j.cta.tape().label_log = None, Code::TapeChanged),
        (
            "young recycle log",
            |j| j.cta.log.newest = Some(j.now - TimeDelta::days(31) + TimeDelta::seconds(1)),
            Code::RecycleLogYoung,
        ),
        (
            "a user's young deletion",
            |j| j.cta.log.newest_deletion = Some(j.now - TimeDelta::days(30)),
            Code::RecycleLogYoung,
        ),
    ];
    for (name, change, code) in rows {
        let mut journey = before_reclaim();
        change(&mut journey);
        assert_eq!(journey.code(), code, "{name}");
        assert_eq!(journey.commands, Vec::<String>::new(), "{name}");
        assert_eq!(journey.row.state(), State::Quarantined, "{name}");
        let waits = [Code::QuarantineNotOver, Code::RecycleLogYoung].contains(&code);
        assert_eq!(journey.task.has_stop(), !waits, "{name}");
        if waits {
            let Next::At(when) = journey.task.next else { panic!("{name}: {:?}", journey.task.next) };
            assert!(when > journey.now && when <= journey.now + TimeDelta::days(31), "{name}");
        }
    }
}

#[test]
fn each_condition_of_the_finish_gate_alone_closes_it() {
    type Change = fn(&mut Journey);
    let rows: [(&str, Change, Code); 7] = [
        ("in another pool", |j| j.cta.tape().tapepool = "raw".into(), Code::WrongPool),
        ("full", |j| j.cta.tape().full = true, Code::UsedMeanwhile),
        ("a file number", |j| j.cta.tape().last_fseq = 1, Code::UsedMeanwhile),
        ("bytes", |j| j.cta.tape().occupancy = 1, Code::UsedMeanwhile),
        ("a file", |j| j.cta.files = Files { count: 1, bytes: 0 }, Code::UsedMeanwhile),
        ("a final request", |j| j.cta.request = Some(request("Failed", "eve", 9)), Code::SomeoneElsesRequest),
        (
            "used, and in the destination",
            |j| {
                j.cta.tape().tapepool = "tolabel_LTO9".into();
                j.cta.tape().last_fseq = 1;
            },
            Code::UsedMeanwhile,
        ),
    ];
    for (name, change, code) in rows {
        let mut journey = before_finish();
        change(&mut journey);
        assert_eq!(journey.code(), code, "{name}");
        assert_eq!(journey.commands, Vec::<String>::new(), "{name}");
        assert!(journey.task.has_stop(), "{name}");
    }
}

#[test]
fn ctas_own_quarantine_is_waited_for_and_any_other_refusal_is_believed_only_for_a_while() {
    let journey = before_reclaim();
    let command = Command::Reclaim { vid: journey.row.vid.clone() };
    let mut seen = Seen::default();
    let looks = [Look::Tape, Look::Request, Look::Routes, Look::RecycleLog, Look::Files];
    for look in looks {
        journey.cta.show(look, &mut seen);
    }
    let answer = |text: &str| {
        let tried = [(command.clone(), Tried::Refused(text.to_owned()))];
        let case = Case {
            tape: &journey.row,
            task: &journey.task,
            settings: &journey.settings,
            now: journey.now,
            tried: &tried,
        };
        case.decide(&reclaim::RECLAIM, None, &seen)
    };
    let young = "This tape contains files deleted 10 seconds ago while recycle_log_quarantine_secs is configured at 70. Please reclaim this tape later.";
    let Answer::NotYet(wait, _) = answer(young) else { panic!("{:?}", answer(young)) };
    assert_eq!((wait.why.code, wait.until), (Code::RecycleLogYoung, Some(journey.now + TimeDelta::seconds(61))));
    assert!(matches!(answer("Cannot reclaim tape V01007"), Answer::Grace(why) if why.code == Code::Refused));
    let absurd = format!("files deleted 0 seconds ago configured at {}", u64::MAX);
    assert!(matches!(answer(&absurd), Answer::NotYet(..)), "{:?}", answer(&absurd));
}

#[test]
fn a_tape_found_empty_is_done_only_in_quarantine_or_by_our_own_reclaim() {
    let empty = |journey: &mut Journey| {
        let tape = journey.cta.tape();
        (tape.full, tape.occupancy, tape.last_fseq) = (false, 0, 0);
        journey.cta.log = RecycleLog::default();
    };
    let mut journey = before_reclaim();
    empty(&mut journey);
    assert_eq!(journey.deliver(), Counted::Done, "someone else's reclaim");

    let mut journey = before_reclaim();
    empty(&mut journey);
    journey.cta.tape().tapepool = "tolabel_LTO9".to_owned();
    assert_eq!(journey.code(), Code::WrongPool);

    let mut journey = before_reclaim();
    empty(&mut journey);
    journey.cta.log = RecycleLog { entries: 1, ..RecycleLog::default() };
    assert_eq!(journey.code(), Code::TapeChanged);

    // A reclaim that CTA refused is none.
    let mut journey = before_reclaim();
    journey.cta.refuses.insert("reclaim");
    assert_eq!(journey.code(), Code::Refused);
    empty(&mut journey);
    journey.cta.tape().tapepool = "tolabel_LTO9".to_owned();
    assert_eq!(journey.code(), Code::WrongPool);

    // One whose answer got lost may be ours.
    let mut journey = before_reclaim();
    journey.task.memory.issued.insert("reclaim".to_owned(), at(0));
    empty(&mut journey);
    journey.cta.tape().tapepool = "tolabel_LTO9".to_owned();
    assert_eq!(journey.deliver(), Counted::Done);
}

#[test]
fn an_operator_may_accept_a_tape_that_was_emptied_and_moved_and_only_if_it_is_empty() {
    let emptied = |accept: bool| {
        let mut journey = before_reclaim();
        let tape = journey.cta.tape();
        (tape.full, tape.occupancy, tape.last_fseq) = (false, 0, 0);
        tape.tapepool = "tolabel_LTO9".to_owned();
        journey.cta.log = RecycleLog::default();
        journey.task.memory.accept_empty = accept;
        journey
    };
    assert_eq!(emptied(false).code(), Code::WrongPool);
    let mut journey = emptied(true);
    assert_eq!((journey.deliver(), journey.row.state()), (Counted::Done, State::Reclaimed));
    assert_eq!(journey.commands, Vec::<String>::new());
    type Change = fn(&mut Journey);
    let rows: [(Change, Code); 4] = [
        (|j| j.cta.files = Files { count: 1, bytes: 0 }, Code::FilesLeft),
        (|j| j.cta.log.entries = 1, Code::TapeChanged),
        (|j| j.cta.tape().occupancy = 1, Code::TapeChanged),
        // What is full is no empty tape: it stays behind the gate.
        (|j| (j.cta.tape().full, j.cta.tape().last_fseq) = (true, 1), Code::WrongPool),
    ];
    for (change, code) in rows {
        let mut journey = emptied(true);
        change(&mut journey);
        assert_eq!(journey.code(), code);
        assert!(journey.task.has_stop());
        assert_eq!(journey.commands, Vec::<String>::new());
    }
}

// Whatever is seen.

fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(words).prop_map(str::to_owned)
}

fn moment_near() -> impl Strategy<Value = DateTime<Utc>> {
    prop_oneof![
        (-40i64..2).prop_map(|days| at(0) + TimeDelta::days(days)),
        Just(DateTime::<Utc>::MIN_UTC),
        Just(DateTime::<Utc>::MAX_UTC),
    ]
}

fn any_tape() -> impl Strategy<Value = reply::Tape> {
    let states = [
        "ACTIVE",
        "DISABLED",
        "REPACKING",
        "REPACKING_PENDING",
        "REPACKING_DISABLED",
        "BROKEN",
        "EXPORTED",
        "BROKEN_PENDING",
        "",
    ];
    let numbers = || prop_oneof![3 => Just(0u64), 3 => Just(7u64), 1 => any::<u64>()];
    (
        proptest::sample::select(states.to_vec()),
        word(&["quarantine", "quarantine", "raw", "tolabel_LTO9", "erase_LTO9", ""]),
        any::<bool>(),
        (numbers(), numbers()),
        word(&["LTO9", "LTO9", "LTO8"]),
        proptest::option::of(0u64..2),
    )
        .prop_map(|(state, tapepool, full, (occupancy, last_fseq), media_type, label)| reply::Tape {
            state: state.to_owned(),
            tapepool,
            full,
            occupancy,
            last_fseq,
            media_type,
            label_log: label.map(|time| Log2 { drive: "D1".to_owned(), time }),
            ..fixtures::cta_tape()
        })
}

fn any_request() -> impl Strategy<Value = Request> {
    (
        word(&["Pending", "ToExpand", "Starting", "Running", "Complete", "Complete", "Failed", "UNKNOWN"]),
        word(&["ops", "eve"]),
        any::<bool>(),
        (0u64..3, prop_oneof![Just(0u64), any::<u64>()], prop_oneof![Just(0u64), any::<u64>()]),
    )
        .prop_map(|(status, by, all, (archived, lost, unwritten))| {
            let mut request = request(&status, &by, 1);
            request.repack.all_files_selected_at_start = all;
            request.repack.archived_files = archived;
            request.repack.failed_to_retrieve_files = lost;
            request.repack.failed_to_archive_files = unwritten;
            request
        })
}

fn any_catalogue() -> impl Strategy<Value = Catalogue> {
    (
        proptest::option::weighted(0.9, any_tape()),
        proptest::option::weighted(0.4, any_request()),
        prop_oneof![3 => Just(0u64), 1 => any::<u64>()],
        (0u64..2, proptest::option::of(moment_near()), proptest::option::of(moment_near())),
        proptest::collection::vec(word(&["raw", "quarantine"]), 0..2),
        (any::<bool>(), any::<bool>(), proptest::option::of(any::<bool>())),
    )
        .prop_map(
            |(tape, request, count, (entries, newest, newest_deletion), routes, (pools, policies, repack_vo))| {
                let mut catalogue = Catalogue::new();
                catalogue.tape = tape;
                catalogue.request = request;
                catalogue.files = Files { count, bytes: count };
                catalogue.log = RecycleLog { entries, newest, newest_deletion };
                catalogue.routes = routes;
                catalogue.repack_vo = repack_vo;
                if !pools {
                    catalogue.pools.clear();
                }
                if !policies {
                    catalogue.policies.clear();
                }
                catalogue
            },
        )
}

/// Everything that `decide` is given beside what is seen.
#[derive(Debug, Clone)]
struct Known {
    row: Tape,
    task: Task,
    settings: Settings,
    tried: Vec<(Command, Tried)>,
}

fn any_known() -> impl Strategy<Value = Known> {
    let kinds = ["set-repacking", "set-disabled", "repack-add", "repack-rm", "reclaim", "set-pool"];
    (
        (0usize..5, 0i64..40, prop_oneof![4 => Just(10i16), 1 => any::<i16>()]),
        proptest::collection::btree_set(proptest::sample::select(kinds.to_vec()), 0..4),
        proptest::collection::btree_set(proptest::sample::select(kinds.to_vec()), 0..2),
        (any::<bool>(), any::<bool>(), proptest::option::of(0u64..2)),
        proptest::option::of((prop_oneof![Just(0u64), Just(7)], prop_oneof![Just(0u64), Just(7)])),
        proptest::option::of(word(&["ACTIVE", "DISABLED"])),
        (any::<bool>(), any::<bool>(), any::<bool>(), 0i32..3),
        proptest::option::of(".{0,40}"),
    )
        .prop_map(
            |((state, age, priority), issued, in_vain, (asked, adopt, log), marks, source, flags, refused)| {
                let (active, mapped, progressed, round) = flags;
                let mut journey = Journey::new();
                let begun = at(0) - TimeDelta::days(age);
                let mut stamps = Stamps::entered(begun);
                for to in State::ALL.into_iter().skip(1).take(state) {
                    stamps = stamps.stamped(to, begun).expect("the next state");
                }
                journey.row = Tape { priority, ..fixtures::row(stamps) };
                journey.task.stage = after(stamps.state()).map(|stage| stage.name.to_owned());
                journey.task.round = round;
                let memory = &mut journey.task.memory;
                memory.issued = issued.into_iter().map(|kind| (kind.to_owned(), begun)).collect();
                memory.in_vain = in_vain.into_iter().map(str::to_owned).collect();
                memory.asked = asked;
                memory.adopt = adopt;
                memory.request = log.map(|time| request("", "ops", time).repack.creation_log);
                memory.marks = marks.map(|(last_fseq, occupancy)| Marks {
                    last_fseq,
                    occupancy,
                    label_log: Some(Log2 { drive: "D1".to_owned(), time: 1 }),
                });
                memory.source_state = source;
                if progressed {
                    journey.task.progress = Some(crate::task::Progress::of(&request("Running", "ops", 1).repack));
                    journey.task.progress_at = Some(begun);
                }
                if active {
                    journey.settings.quarantine_state = QuarantineState::Active;
                }
                if mapped {
                    journey.settings.lib_to_pool_map =
                        Some([("LIB1".to_owned(), [("LTO9".to_owned(), "_LTO9".to_owned())].into())].into());
                }
                let tried =
                    refused.map(|text| (Command::Reclaim { vid: journey.row.vid.clone() }, Tried::Refused(text)));
                Known {
                    row: journey.row,
                    task: journey.task,
                    settings: journey.settings,
                    tried: tried.into_iter().collect(),
                }
            },
        )
}

/// The conditions of a reclaim, once more.
fn may_reclaim(known: &Known, cta: &Catalogue, now: DateTime<Utc>) -> bool {
    let Some(tape) = &cta.tape else { return false };
    let old = |at: Option<DateTime<Utc>>| at.is_none_or(|at| now.signed_duration_since(at) >= TimeDelta::days(31));
    let quarantined = known.row.stamps.at(State::Quarantined);
    known.row.state() == State::Quarantined
        && quarantined.is_some()
        && old(quarantined)
        && old(cta.log.newest)
        && old(cta.log.newest_deletion)
        && tape.tapepool == "quarantine"
        && !cta.routes.contains(&tape.tapepool)
        && tape.full
        && ["ACTIVE", "DISABLED", "BROKEN"].contains(&tape.state.as_str())
        && cta.request.is_none()
        && cta.files.count == 0
        && known.task.memory.marks.as_ref().is_none_or(|marks| {
            (marks.last_fseq, marks.occupancy, &marks.label_log) == (tape.last_fseq, tape.occupancy, &tape.label_log)
        })
}

/// The conditions of the move to a destination, once more.
fn may_finish(known: &Known, cta: &Catalogue) -> bool {
    let Some(tape) = &cta.tape else { return false };
    known.row.state() == State::Reclaimed
        && tape.tapepool == "quarantine"
        && !tape.full
        && tape.last_fseq == 0
        && tape.occupancy == 0
        && cta.files.count == 0
        && cta.request.is_none()
}

fn is_ours(known: &Known, request: &Request) -> bool {
    let memory = &known.task.memory;
    memory.adopt || memory.request.as_ref().map_or(memory.asked, |log| *log == request.repack.creation_log)
}

fn check(known: &Known, cta: &Catalogue, wanted: Option<Wanted>, now: DateTime<Utc>) -> Result<(), TestCaseError> {
    let stage = after(known.row.state()).expect("not finished");
    let mut task = known.task.clone();
    let mut seen = Seen::default();
    for round in 0.. {
        prop_assert!(round < 12, "it never ends");
        let case = Case { tape: &known.row, task: &task, settings: &known.settings, now, tried: &known.tried };
        let answer = case.decide(stage, wanted, &seen);
        match &answer {
            Answer::Look(look) => {
                let before = seen.clone();
                cta.show(*look, &mut seen);
                prop_assert_ne!(before, seen.clone(), "asked {:?} twice", look);
                continue;
            }
            Answer::List => {
                task.memory.listing = Some(crate::task::ListingMade {
                    host: String::new(),
                    path: String::new(),
                    files: 0,
                    bytes: 0,
                    sha256: String::new(),
                    round: task.round_to_be(),
                });
                continue;
            }
            Answer::Do(act) => match &act.command {
                Command::Reclaim { .. } => {
                    prop_assert!(wanted.is_none() && may_reclaim(known, cta, now), "reclaim of {:?}", cta);
                }
                Command::SetPool { pool, .. } if *pool == known.settings.quarantine_pool => {
                    prop_assert_eq!(stage.name, "quarantine");
                    prop_assert!(cta.files.count == 0 && cta.request.is_none());
                }
                Command::SetPool { pool, .. } if wanted == Some(Wanted::GiveBack) => {
                    prop_assert_eq!(pool, &known.row.tapepool);
                    prop_assert!(!known.task.memory.issued.contains_key("reclaim"));
                    prop_assert!(known.row.state() < State::Reclaimed && cta.request.is_none());
                }
                Command::SetPool { pool, .. } => {
                    prop_assert!(wanted.is_none() && may_finish(known, cta), "moved to {}: {:?}", pool, cta);
                }
                Command::RepackRm { .. } => {
                    let there = cta.request.as_ref();
                    prop_assert!(there.is_some_and(|request| is_ours(known, request)), "removes what is not ours");
                    let running = there.is_some_and(|request| !request.repack.is_final());
                    prop_assert!(!running || wanted == Some(Wanted::GiveBack), "removes what is running");
                    prop_assert!(wanted.is_some() || cta.files.count == 0);
                }
                Command::RepackAdd { .. } => {
                    prop_assert!(cta.request.is_none() && known.tried.len() < 2);
                    prop_assert!(cta.tape.as_ref().is_some_and(|tape| tape.full && tape.state == "REPACKING"));
                    prop_assert!(stage.name == "start" || wanted == Some(Wanted::Retry));
                }
                Command::SetState { to, .. } => {
                    let state = cta.tape.as_ref().map_or("", |tape| tape.state.as_str());
                    prop_assert_ne!(*to, state);
                    let leaves = state.starts_with("REPACKING") && *to != "REPACKING";
                    prop_assert!(!leaves || cta.request.is_none(), "CTA refuses that");
                }
            },
            Answer::Done(_) => match (stage.to, wanted) {
                (State::Started, None) => {
                    prop_assert!(cta.request.as_ref().is_some_and(|request| is_ours(known, request)));
                }
                (State::Repacked, None) => {
                    prop_assert_eq!(cta.files.count, 0);
                    let fine = |request: &Request| {
                        let repack = &request.repack;
                        repack.status == "Complete"
                            && repack.all_files_selected_at_start
                            && repack.failed_to_retrieve_files == 0
                            && repack.failed_to_archive_files == 0
                            && is_ours(known, request)
                    };
                    prop_assert!(cta.request.as_ref().is_none_or(fine));
                }
                (State::Quarantined, None) => {
                    let tape = cta.tape.as_ref().expect("seen");
                    prop_assert!(!tape.state.starts_with("REPACKING") && tape.tapepool == "quarantine");
                    prop_assert!(cta.request.is_none());
                }
                (State::Reclaimed, None) => {
                    let tape = cta.tape.as_ref().expect("seen");
                    prop_assert!(!tape.full && tape.occupancy == 0 && tape.last_fseq == 0 && cta.log.entries == 0);
                }
                (State::Finished, None) => {
                    let tape = cta.tape.as_ref().expect("seen");
                    prop_assert!(!tape.full && tape.occupancy == 0 && tape.last_fseq == 0);
                    prop_assert!(tape.tapepool.ends_with("_LTO9") || tape.tapepool.ends_with("_LTO8"));
                }
                (_, Some(Wanted::GiveBack)) => {
                    prop_assert!(cta.request.is_none());
                    let tape = cta.tape.as_ref().expect("seen");
                    let was = known.row.tapepool.as_str();
                    prop_assert!(tape.tapepool != "quarantine" || was == "quarantine", "left in quarantine");
                }
                _ => {}
            },
            Answer::Stop(why, _) => prop_assert!(!why.text.is_empty()),
            Answer::NotYet(..) | Answer::Grace(_) | Answer::NextRound(..) => {}
        }
        return Ok(());
    }
    Ok(())
}

thread_local! {
    /// Made once: it takes a whole journey to get there.
    static OPEN: [Journey; 2] = [before_reclaim(), before_finish()];
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(800), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_seen_every_stage_answers_and_no_command_passes_that_may_not(
        known in any_known(), cta in any_catalogue(),
    ) {
        for wanted in [None, Some(Wanted::Retry), Some(Wanted::GiveBack), Some(Wanted::Unstick)] {
            check(&known, &cta, wanted, at(0))?;
        }
    }

    /// Around the states in which a gate is open, where one thing decides.
    #[test]
    fn near_an_open_gate_no_command_passes_that_may_not(
        finish in any::<bool>(), other in any_catalogue(), differs in proptest::array::uniform9(proptest::bool::weighted(0.12)),
        early in 0i64..3, refused in proptest::option::weighted(0.2, ".{0,40}"),
    ) {
        let mut journey = OPEN.with(|[reclaim, finish_gate]| if finish { finish_gate } else { reclaim }.clone());
        let [state, pool, full, written, label, request, files, log, routes] = differs;
        let cta = &mut journey.cta;
        if let (Some(mine), Some(theirs)) = (&mut cta.tape, other.tape) {
            let pick = |differs, mine: &mut reply::Tape, theirs: &reply::Tape, set: fn(&mut reply::Tape, &reply::Tape)| {
                if differs {
                    set(mine, theirs);
                }
            };
            pick(state, mine, &theirs, |mine, theirs| mine.state.clone_from(&theirs.state));
            pick(pool, mine, &theirs, |mine, theirs| mine.tapepool.clone_from(&theirs.tapepool));
            pick(full, mine, &theirs, |mine, theirs| mine.full = theirs.full);
            pick(label, mine, &theirs, |mine, theirs| mine.label_log.clone_from(&theirs.label_log));
            pick(written, mine, &theirs, |mine, theirs| {
                (mine.occupancy, mine.last_fseq) = (theirs.occupancy, theirs.last_fseq);
            });
        }
        if request {
            cta.request = other.request;
        }
        if files {
            cta.files = other.files;
        }
        if log {
            cta.log = other.log;
        }
        if routes {
            cta.routes = other.routes;
        }
        let tried = refused.map(|text| (Command::Reclaim { vid: journey.row.vid.clone() }, Tried::Refused(text)));
        let known = Known {
            row: journey.row,
            task: journey.task,
            settings: journey.settings,
            tried: tried.into_iter().collect(),
        };
        let now = journey.now - TimeDelta::seconds((early - 1).max(0));
        for wanted in [None, Some(Wanted::Retry), Some(Wanted::GiveBack), Some(Wanted::Unstick)] {
            check(&known, &journey.cta, wanted, now)?;
        }
    }
}

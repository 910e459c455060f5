//! Journeys through the stages and the law against a small CTA of its own: which commands are run, where, in which order.

use std::cell::Cell;
use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::fixtures;
use super::*;
use crate::cta::command::Frontend;
use crate::cta::reply::{Log3, Repack};
use crate::journey::{Mode, Stamps};
use crate::settings::QuarantineState;
use crate::task::{Control, Counted, Effect, Ending, Ground, ListingMade, Recorded, RowChange, Verdict};

pub(super) fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

pub(super) fn request(status: &str, by: &str, time: u64) -> Request {
    let repack = Repack {
        vid: "V01007".to_owned(),
        status: status.to_owned(),
        creation_log: Log3 { username: by.to_owned(), host: "h".to_owned(), time },
        all_files_selected_at_start: true,
        total_files_to_archive: 4,
        total_files_to_retrieve: 4,
        ..Repack::default()
    };
    Request { raw: serde_json::to_value(&repack).unwrap(), repack }
}

/// What CTA holds of one tape.
#[derive(Debug, Clone)]
pub(super) struct Catalogue {
    pub tape: Option<reply::Tape>,
    pub request: Option<Request>,
    pub files: Files,
    pub log: RecycleLog,
    pub routes: Vec<String>,
    pub pools: Vec<String>,
    pub policies: Vec<String>,
    pub repack_vo: Option<bool>,
    /// A change to REPACKING goes through REPACKING_PENDING.
    pub pends: bool,
    /// Commands of these kinds are refused.
    pub refuses: BTreeSet<&'static str>,
    /// Commands of these kinds are accepted and do nothing.
    pub ignores: BTreeSet<&'static str>,
    pub clock: u64,
}

impl Catalogue {
    pub fn new() -> Catalogue {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Catalogue {
            tape: Some(fixtures::cta_tape()),
            request: None,
            files: Files { count: 4, bytes: 400 },
            log: RecycleLog::default(),
            routes: names(&["raw"]),
            pools: names(&["raw", "quarantine", "tolabel_LTO9", "erase_LTO9"]),
            policies: names(&["repack_low_priority", "repack_high_priority"]),
            repack_vo: Some(true),
            pends: false,
            refuses: BTreeSet::new(),
            ignores: BTreeSet::new(),
            clock: 100,
        }
    }

    pub fn tape(&mut self) -> &mut reply::Tape {
        self.tape.as_mut().unwrap()
    }

    pub fn show(&self, look: Look, seen: &mut Seen) {
        match look {
            Look::Tape => seen.tape = Some(self.tape.clone()),
            Look::Request => seen.request = Some(self.request.clone()),
            Look::Files => seen.files = Some(self.files),
            Look::RecycleLog => seen.recycle_log = Some(self.log),
            Look::Routes => seen.routes = Some(self.routes.clone()),
            Look::Pools => seen.pools = Some(self.pools.clone()),
            Look::MountPolicies => seen.mount_policies = Some(self.policies.clone()),
            Look::RepackVo => seen.repack_vo = Some(self.repack_vo),
        }
    }

    fn run(&mut self, command: &Command) -> Tried {
        if self.ignores.contains(command.kind()) {
            return Tried::Accepted;
        }
        let no = |text: &str| Tried::Refused(text.to_owned());
        if self.refuses.contains(command.kind()) {
            return no("refused by the test");
        }
        let pends = self.pends;
        let exists = self.request.is_some();
        self.clock += 1;
        let clock = self.clock;
        let tape = self.tape();
        match command {
            Command::SetState { to, .. } => match (tape.state.as_str(), *to) {
                ("REPACKING", to) if to != "REPACKING" && exists => no("there is a repack for that tape"),
                ("REPACKING_DISABLED", to) if to != "REPACKING" => no("Cannot modify tape"),
                ("REPACKING_PENDING", to) if to != "REPACKING" => no("temporary internal state"),
                ("ACTIVE" | "DISABLED", "REPACKING") if pends => {
                    tape.state = "REPACKING_PENDING".to_owned();
                    Tried::Accepted
                }
                _ => {
                    tape.state = (*to).to_owned();
                    Tried::Accepted
                }
            },
            Command::SetPool { pool, .. } => {
                tape.tapepool.clone_from(pool);
                Tried::Accepted
            }
            Command::RepackAdd { .. } => {
                if exists || !tape.full || !tape.state.starts_with("REPACKING") || tape.state == "REPACKING_PENDING" {
                    return no("A repack request already exists for this VID.");
                }
                self.request = Some(request("Pending", "ops", clock));
                Tried::Accepted
            }
            Command::RepackRm { .. } => {
                if self.request.take().is_none() {
                    return no("No repack request for this VID.");
                }
                Tried::Accepted
            }
            Command::Reclaim { .. } => {
                if !tape.full || !["ACTIVE", "DISABLED", "BROKEN"].contains(&tape.state.as_str()) {
                    return no("Cannot reclaim tape");
                }
                (tape.full, tape.occupancy, tape.last_fseq) = (false, 0, 0);
                self.log = RecycleLog::default();
                Tried::Accepted
            }
        }
    }

    /// CTA moves the files and ends the request.
    pub fn complete(&mut self, now: DateTime<Utc>) {
        self.files = Files { count: 0, bytes: 0 };
        self.log = RecycleLog { entries: 4, newest: Some(now), newest_deletion: None };
        self.end("Complete", |repack| repack.archived_files = 4);
    }

    pub fn end(&mut self, status: &str, change: impl FnOnce(&mut Repack)) {
        let request = self.request.as_mut().unwrap();
        request.repack.status = status.to_owned();
        change(&mut request.repack);
        request.raw = serde_json::to_value(&request.repack).unwrap();
    }
}

/// One tape on its way, with the real law around the stages.
#[derive(Clone)]
pub(super) struct Journey {
    pub settings: Settings,
    pub control: Control,
    pub now: DateTime<Utc>,
    fresh: Cell<i64>,
    pub cta: Catalogue,
    pub row: Tape,
    pub gone: bool,
    pub task: Task,
    /// Commands with their front ends, reasons left out.
    pub commands: Vec<String>,
}

impl Journey {
    pub fn new() -> Journey {
        let settings = fixtures::settings();
        let row = fixtures::row(Stamps::entered(at(0)));
        let control = Control::default();
        let ground = Ground {
            settings: &settings,
            control: &control,
            now: at(0),
            fresh_generation: 1,
            fresh_epoch: 1,
            jitter: 0.0,
        };
        let task = Task::made(&row, &ground);
        Journey {
            settings,
            control,
            now: at(0),
            fresh: Cell::new(1),
            cta: Catalogue::new(),
            row,
            gone: false,
            task,
            commands: Vec::new(),
        }
    }

    /// With everything done up to this state.
    pub fn at(state: State) -> Journey {
        let mut journey = Journey::new();
        journey.run_to(state);
        journey.commands.clear();
        journey
    }

    pub fn run_to(&mut self, state: State) {
        for _ in 0..40 {
            if self.row.state() >= state {
                return;
            }
            let counted = self.deliver();
            if self.row.state() == State::Started && self.cta.request.is_some() {
                self.cta.complete(self.now);
            }
            match counted {
                Counted::Done => {}
                Counted::NotYet(_) => {
                    if self.cta.tape().state == "REPACKING_PENDING" {
                        self.cta.tape().state = "REPACKING".to_owned();
                    }
                }
                other => panic!("on the way to {state}: {other:?}"),
            }
        }
        panic!("{state} was not reached: {:?}", self.task);
    }

    pub fn ground(&self) -> Ground<'_> {
        let fresh = self.fresh.get() + 1;
        self.fresh.set(fresh);
        Ground {
            settings: &self.settings,
            control: &self.control,
            now: self.now,
            fresh_generation: fresh,
            fresh_epoch: fresh,
            jitter: 0.0,
        }
    }

    pub fn want(&mut self, wanted: Wanted) {
        let mut task = self.task.clone();
        task.want(wanted, &self.ground());
        self.task = task;
    }

    pub fn requeue(&mut self) {
        let mut task = self.task.clone();
        task.requeue(&self.row, &self.ground());
        self.task = task;
    }

    /// Waits until the tape is due and delivers it once.
    pub fn deliver(&mut self) -> Counted {
        if let Next::At(when) = self.task.next {
            self.now = self.now.max(when);
        }
        let mut task = self.task.clone();
        let (stage, generation) = (task.stage.clone().unwrap(), task.generation);
        let (verdict, _) = task.claim(&stage, generation, "w", &self.row, Some(0), &self.ground());
        let Verdict::Claimed(claim) = verdict else { return Counted::Closed(format!("{verdict:?}")) };
        let mut seen = Seen::default();
        let mut tried = Vec::new();
        let mut looks = 0;
        let (ending, learned) = loop {
            let case = Case { tape: &self.row, task: &task, settings: &self.settings, now: self.now, tried: &tried };
            match case.decide(claim.stage, claim.wanted, &seen) {
                Answer::Look(look) => {
                    looks += 1;
                    assert!(looks < 60, "it looks for ever at {look:?}");
                    self.cta.show(look, &mut seen);
                }
                Answer::List => {
                    let round = task.round_to_be();
                    task.memory.listing = Some(ListingMade {
                        host: "h".to_owned(),
                        path: "p".to_owned(),
                        files: self.cta.files.count,
                        bytes: self.cta.files.bytes,
                        sha256: String::new(),
                        round,
                    });
                }
                Answer::Do(act) => {
                    if let Some((command, tried)) = tried.iter().find(|(command, _)| *command == act.command) {
                        let why = Why::new(Code::Refused, format!("{command} once more after {tried:?}"));
                        let ending = if *tried == Tried::Accepted { Ending::Trouble(why) } else { Ending::Grace(why) };
                        break (ending, Learned::default());
                    }
                    if let Err(why) = task.may_act(&claim, Some(&self.row), &self.ground()) {
                        break (Ending::Denied(why), Learned::default());
                    }
                    task.intend(&act.command, &act.proof, act.source_state.as_deref(), &self.ground());
                    self.commands.push(label(&act.command));
                    let how = self.cta.run(&act.command);
                    let effect = if how == Tried::Accepted { Effect::Likely } else { Effect::None };
                    task.answered(effect, Value::Null, &self.ground());
                    tried.push((act.command, how));
                    seen.forget_tape();
                }
                Answer::Done(learned) => break (Ending::Done, learned),
                Answer::NotYet(wait, learned) => break (Ending::NotYet(wait), learned),
                Answer::Grace(why) => break (Ending::Grace(why), Learned::default()),
                Answer::NextRound(why, learned) => break (Ending::NextRound(why), learned),
                Answer::Stop(why, learned) => break (Ending::Stop(why), learned),
            }
        };
        let (Recorded { row, counted }, _) =
            task.record(&claim, Some(&self.row), ending, learned, seen.slot_look(), &self.ground());
        match row {
            RowChange::Keep => {}
            RowChange::Stamp(to) => self.row.stamps = self.row.stamps.stamped(to, self.now).unwrap(),
            RowChange::GiveBack => self.gone = true,
            RowChange::Remove => unreachable!("no delivery removes a row"),
        }
        self.row.xmin += 1;
        task.seen = Some(crate::task::SeenRow::of(&self.row));
        self.task = task;
        counted
    }

    /// The code with which a delivery waits, is retried, or stops.
    pub fn code(&mut self) -> Code {
        match self.deliver() {
            Counted::NotYet(why) | Counted::Retrying(why) | Counted::Site(why) | Counted::Stopped(why) => why.code,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn label(command: &Command) -> String {
    let front = match command.frontend() {
        Frontend::User => "user",
        Frontend::Repack => "repack",
    };
    let args: Vec<String> = command.args().into_iter().take_while(|arg| arg != "--reason").collect();
    format!("{front}: {}", args.join(" ").replace(" --vid V01007", ""))
}

#[test]
fn every_kind_of_site_runs_the_same_journey_with_its_own_states() {
    for pends in [false, true] {
        for (quarantine, source, resting, given_back) in [
            (QuarantineState::Disabled, "ACTIVE", "DISABLED", true),
            (QuarantineState::Disabled, "DISABLED", "DISABLED", false),
            (QuarantineState::Active, "ACTIVE", "ACTIVE", false),
            (QuarantineState::Active, "DISABLED", "DISABLED", false),
        ] {
            let mut journey = Journey::new();
            journey.settings.quarantine_state = quarantine;
            journey.cta.pends = pends;
            journey.cta.tape().state = source.to_owned();
            journey.run_to(State::Finished);
            let resting = format!("repack: tape ch --state {resting}");
            let mut expected = vec![
                "user: tape ch --state REPACKING",
                "repack: repack add --mountpolicy repack_low_priority --justmove",
                "repack: repack rm",
                resting.as_str(),
                "user: tape ch --tapepool quarantine",
                "user: tape reclaim",
                "user: tape ch --tapepool tolabel_LTO9",
            ];
            if given_back {
                expected.push("user: tape ch --state ACTIVE");
            }
            assert_eq!(journey.commands, expected, "pends {pends}, {quarantine:?}, {source}");
            assert_eq!(journey.cta.tape().state, source, "the state is given back");
            assert_eq!(journey.task.slot_since, None);
            let waited = journey.row.stamps.at(State::Reclaimed).unwrap() - at(0);
            assert!(waited >= TimeDelta::days(31), "{waited}");
        }
    }
}

#[test]
fn start_stops_before_any_change_where_a_check_fails() {
    type Change = fn(&mut Journey);
    let changes: [(&str, Change, Code); 11] = [
        ("not full", |j| j.cta.tape().full = false, Code::NotFull),
        ("in quarantine", |j| j.cta.tape().tapepool = "quarantine".into(), Code::ChecksFailed),
        ("no policy", |j| j.cta.policies.clear(), Code::ChecksFailed),
        ("no destination", |j| j.cta.pools.retain(|pool| pool != "tolabel_LTO9"), Code::ChecksFailed),
        ("no quarantine", |j| j.cta.pools.retain(|pool| pool != "quarantine"), Code::ChecksFailed),
        ("no repack VO", |j| j.cta.repack_vo = Some(false), Code::ChecksFailed),
        ("no priority", |j| j.row.priority = 77, Code::ChecksFailed),
        ("not in the map", |j| j.settings.lib_to_pool_map = Some(Default::default()), Code::ChecksFailed),
        ("broken", |j| j.cta.tape().state = "BROKEN".into(), Code::UnexpectedState),
        ("in REPACKING, not by us", |j| j.cta.tape().state = "REPACKING".into(), Code::UnexpectedState),
        ("someone else's", |j| j.cta.request = Some(request("Running", "eve", 1)), Code::SomeoneElsesRequest),
    ];
    for (name, change, code) in changes {
        let mut journey = Journey::new();
        change(&mut journey);
        assert_eq!(journey.code(), code, "{name}");
        assert_eq!(journey.commands, Vec::<String>::new(), "{name}");
        assert!(journey.task.has_stop(), "{name}");
        assert!(!journey.task.reason.unwrap().text.contains("users cannot read"), "{name}");
    }
}

#[test]
fn a_stop_after_the_state_changed_says_that_users_cannot_read_the_tape_and_how_to_give_it_back() {
    let mut journey = Journey::new();
    journey.cta.pends = true;
    assert_eq!(journey.code(), Code::TapePending);
    journey.now += TimeDelta::seconds(3600);
    assert_eq!(journey.code(), Code::PendingTooLong);
    let text = journey.task.reason.clone().unwrap().text;
    assert!(text.contains("users cannot read this tape") && text.contains("abort V01007"), "{text}");
}

#[test]
fn a_tape_disabled_by_a_drive_is_stopped_and_unstick_puts_it_back_to_work() {
    let mut journey = Journey::new();
    journey.cta.pends = true;
    journey.deliver();
    journey.cta.tape().state = "REPACKING_DISABLED".to_owned();
    assert_eq!(journey.code(), Code::DisabledByDrive);
    journey.commands.clear();
    journey.want(Wanted::Unstick);
    assert_eq!(journey.deliver(), Counted::Done);
    journey.run_to(State::Started);
    assert_eq!(
        journey.commands,
        ["repack: tape ch --state REPACKING", "repack: repack add --mountpolicy repack_low_priority --justmove"]
    );
}

#[test]
fn a_request_that_slipped_in_before_ours_is_not_taken_for_ours() {
    let mut journey = Journey::new();
    journey.cta.refuses.insert("repack-add");
    assert_eq!(journey.code(), Code::Refused);
    journey.cta.request = Some(request("Running", "eve", 9));
    assert_eq!(journey.code(), Code::SomeoneElsesRequest);
    assert_eq!(journey.row.state(), State::Entered);
}

#[test]
fn a_stranger_is_not_believed_to_be_us_because_cta_refused_us_before() {
    let mut journey = Journey::new();
    journey.cta.refuses.insert("set-repacking");
    assert_eq!(journey.code(), Code::Refused);
    journey.cta.tape().state = "REPACKING".to_owned();
    assert_eq!(journey.code(), Code::UnexpectedState);
}

#[test]
fn someone_elses_request_stops_every_stage_that_meets_one_and_is_never_removed() {
    for state in [State::Entered, State::Started, State::Repacked, State::Quarantined, State::Reclaimed] {
        for status in ["Pending", "Running", "Complete", "Failed", "UNKNOWN"] {
            let mut journey = Journey::at(state);
            journey.cta.request = Some(request(status, "eve", 9));
            if state == State::Reclaimed {
                journey.cta.tape().tapepool = "quarantine".to_owned();
            }
            assert_eq!(journey.code(), Code::SomeoneElsesRequest, "{state}, {status}");
            assert_eq!(journey.commands, Vec::<String>::new());
            assert_eq!(journey.row.state(), state);
        }
    }
}

#[test]
fn adopting_takes_someone_elses_request_to_the_end() {
    let mut journey = Journey::at(State::Started);
    journey.cta.request = Some(request("Complete", "eve", 9));
    assert_eq!(journey.code(), Code::SomeoneElsesRequest);
    journey.task.memory.adopt = true;
    journey.requeue();
    assert_eq!(journey.deliver(), Counted::Done);
    assert_eq!(journey.deliver(), Counted::Done);
    assert_eq!(journey.row.state(), State::Quarantined);
    assert_eq!(journey.cta.request, None);
}

#[test]
fn end_judges_every_status_and_count() {
    type Change = fn(&mut Catalogue);
    let rows: [(&str, Change, Code); 8] = [
        ("running", |c| c.end("Running", |_| {}), Code::RepackRunning),
        ("unknown word", |c| c.end("NEW_WORD", |_| {}), Code::RepackRunning),
        ("failed", |c| c.end("Failed", |r| r.failed_to_retrieve_files = 1), Code::RepackFailed),
        ("failed to expand", |c| c.end("Failed", |_| {}), Code::RepackFailed),
        ("complete, but failed files", |c| c.end("Complete", |r| r.failed_to_archive_files = 1), Code::RepackFailed),
        (
            "partial and nothing moved",
            |c| {
                c.end("Complete", |r| {
                    r.all_files_selected_at_start = false;
                    r.archived_files = 0;
                });
            },
            Code::FilesLeft,
        ),
        ("files left", |c| c.files = Files { count: 1, bytes: 9 }, Code::FilesLeft),
        (
            "gone with files left",
            |c| {
                c.request = None;
                c.files = Files { count: 1, bytes: 9 };
            },
            Code::RequestGone,
        ),
    ];
    for (name, change, code) in rows {
        let mut journey = Journey::at(State::Started);
        change(&mut journey.cta);
        assert_eq!(journey.code(), code, "{name}");
        assert_eq!((journey.row.state(), journey.commands.len()), (State::Started, 0), "{name}");
    }
    let mut journey = Journey::at(State::Started);
    journey.cta.request = None;
    assert_eq!(journey.deliver(), Counted::Done, "gone, and no file left");
}

#[test]
fn no_progress_for_the_stall_time_is_told_and_progress_ends_it() {
    let mut journey = Journey::at(State::Started);
    journey.cta.end("Running", |_| {});
    assert_eq!(journey.code(), Code::RepackRunning);
    journey.now += TimeDelta::hours(12);
    journey.task.next = Next::Now;
    assert_eq!(journey.code(), Code::RepackStalled);
    assert_eq!(journey.task.outcome, Some(crate::task::Outcome::Stalled));
    journey.cta.end("Running", |repack| repack.archived_files = 1);
    assert_eq!(journey.code(), Code::RepackRunning);
}

#[test]
fn a_repack_that_stands_still_because_a_drive_disabled_the_tape_is_told_as_that() {
    let mut journey = Journey::at(State::Started);
    journey.cta.end("Running", |_| {});
    assert_eq!(journey.code(), Code::RepackRunning);
    journey.now += TimeDelta::hours(12);
    journey.task.next = Next::Now;
    journey.cta.tape().state = "REPACKING_DISABLED".to_owned();
    assert_eq!(journey.code(), Code::DisabledByDrive);
    assert_eq!(journey.task.outcome, Some(crate::task::Outcome::Stalled));
}

#[test]
fn a_partial_selection_asks_for_round_after_round_until_all_is_moved() {
    let mut journey = Journey::at(State::Started);
    for round in 1..=3 {
        assert_eq!(journey.task.round, round);
        journey.cta.end("Complete", |repack| {
            repack.all_files_selected_at_start = false;
            repack.archived_files = 1;
        });
        assert_eq!(journey.code(), Code::NextRound);
        assert_eq!(journey.task.wanted, Some(Wanted::Retry));
        assert_eq!(journey.deliver(), Counted::Done);
        assert_eq!((journey.task.wanted, journey.task.round), (None, round + 1));
    }
    let one = ["repack: repack rm", "repack: repack add --mountpolicy repack_low_priority --justmove"];
    assert_eq!(journey.commands, [one, one, one].concat());
    journey.cta.complete(journey.now);
    journey.run_to(State::Repacked);
    assert_eq!(journey.task.slot_since, None);
}

#[test]
fn a_removal_that_does_nothing_is_trouble_and_not_someone_elses_request() {
    let mut journey = Journey::at(State::Repacked);
    journey.task.memory.request = None;
    journey.task.memory.asked = true;
    journey.cta.ignores.insert("repack-rm");
    assert!(matches!(journey.deliver(), Counted::Retrying(_)));
    journey.cta.ignores.clear();
    assert_eq!(journey.deliver(), Counted::Done);
    assert_eq!(journey.row.state(), State::Quarantined);
}

#[test]
fn quarantine_touches_no_tape_with_files_on_it() {
    for with_request in [false, true] {
        let mut journey = Journey::at(State::Repacked);
        if !with_request {
            journey.cta.request = None;
        }
        journey.cta.files = Files { count: 1, bytes: 1 };
        assert_eq!(journey.code(), Code::FilesLeft);
        assert_eq!(journey.commands, Vec::<String>::new());
    }
}

#[test]
fn quarantine_waits_for_a_retry_of_ours_that_is_running() {
    let mut journey = Journey::at(State::Repacked);
    journey.cta.files = Files { count: 1, bytes: 1 };
    assert_eq!(journey.code(), Code::FilesLeft);
    journey.want(Wanted::Retry);
    assert_eq!(journey.deliver(), Counted::Done);
    assert_eq!(journey.code(), Code::RepackRunning);
    journey.cta.complete(journey.now);
    journey.run_to(State::Quarantined);
}

#[test]
fn quarantine_leads_a_disabled_repacking_through_repacking() {
    let mut journey = Journey::at(State::Repacked);
    journey.cta.tape().state = "REPACKING_DISABLED".to_owned();
    journey.run_to(State::Quarantined);
    assert_eq!(
        journey.commands,
        [
            "repack: repack rm",
            "repack: tape ch --state REPACKING",
            "repack: tape ch --state DISABLED",
            "user: tape ch --tapepool quarantine"
        ]
    );
}

#[test]
fn a_tape_that_cta_does_not_know_is_waited_for_and_then_stopped_at_every_stage() {
    for state in [State::Entered, State::Repacked, State::Quarantined, State::Reclaimed] {
        let mut journey = Journey::at(state);
        journey.cta.tape = None;
        journey.cta.request = None;
        let begun = journey.now.max(match journey.task.next {
            Next::At(when) => when,
            _ => journey.now,
        });
        for turn in 0.. {
            assert!(turn < 20);
            if let Counted::Stopped(why) = journey.deliver() {
                assert_eq!(why.code, Code::TapeUnknown);
                break;
            }
        }
        assert!(journey.now - begun >= crate::task::REFUSAL_GRACE, "{state}");
        assert_eq!((journey.row.state(), journey.commands.len()), (state, 0));
    }
}

#[test]
fn giving_back_undoes_what_was_done_from_everywhere_before_the_reclaim() {
    for (state, source) in [
        (State::Entered, "ACTIVE"),
        (State::Started, "ACTIVE"),
        (State::Started, "DISABLED"),
        (State::Repacked, "ACTIVE"),
        (State::Quarantined, "ACTIVE"),
        (State::Quarantined, "DISABLED"),
    ] {
        let mut journey = Journey::new();
        journey.cta.tape().state = source.to_owned();
        journey.run_to(state);
        journey.want(Wanted::GiveBack);
        assert_eq!(journey.deliver(), Counted::Done, "{state} {source}");
        assert!(journey.gone);
        let tape = journey.cta.tape().clone();
        assert_eq!((tape.state.as_str(), tape.tapepool.as_str()), (source, "raw"), "{state}");
        assert_eq!((journey.cta.request, journey.task.slot_since), (None, None), "{state}");
        assert_eq!(journey.task.stage, None);
    }
}

#[test]
fn a_tape_that_cta_has_not_known_for_long_has_nothing_to_be_given_back() {
    let mut journey = Journey::at(State::Started);
    journey.cta.tape = None;
    journey.cta.request = None;
    journey.want(Wanted::GiveBack);
    journey.commands.clear();
    let begun = journey.now;
    for turn in 0.. {
        assert!(turn < 20);
        match journey.deliver() {
            Counted::Done => break,
            waits => assert!(matches!(waits, Counted::NotYet(ref why) if why.code == Code::TapeUnknown), "{waits:?}"),
        }
    }
    assert!(journey.now - begun >= crate::task::REFUSAL_GRACE);
    assert!(journey.gone && journey.commands.is_empty());
}

#[test]
fn giving_back_waits_out_the_pending_state_and_leaves_repacking_disabled() {
    let mut journey = Journey::new();
    journey.cta.pends = true;
    journey.deliver();
    journey.want(Wanted::GiveBack);
    assert_eq!(journey.code(), Code::TapePending);
    journey.cta.tape().state = "REPACKING_DISABLED".to_owned();
    journey.commands.clear();
    assert_eq!(journey.deliver(), Counted::Done);
    assert_eq!(journey.commands, ["repack: tape ch --state REPACKING", "repack: tape ch --state ACTIVE"]);
}

#[test]
fn a_tape_that_may_have_been_reclaimed_is_not_given_back() {
    let mut journey = Journey::at(State::Reclaimed);
    journey.want(Wanted::GiveBack);
    assert_eq!(journey.code(), Code::TapeChanged);
    let mut journey = Journey::at(State::Quarantined);
    journey.cta.refuses.insert("reclaim");
    assert_eq!(journey.code(), Code::Refused);
    journey.want(Wanted::GiveBack);
    assert_eq!(journey.code(), Code::TapeChanged);
    assert!(!journey.gone);
}

#[test]
fn an_attempt_by_anyone_at_someone_elses_request_with_a_wish_is_refused() {
    for wanted in [Wanted::Retry, Wanted::GiveBack] {
        let mut journey = Journey::at(State::Started);
        journey.cta.request = Some(request("Failed", "eve", 9));
        journey.want(wanted);
        assert_eq!(journey.code(), Code::SomeoneElsesRequest);
        assert_eq!(journey.commands, Vec::<String>::new());
        assert_eq!(journey.task.wanted, Some(wanted), "the wish stays until it is done");
    }
}

#[test]
fn finish_stops_where_no_destination_can_be_named() {
    for change in
        [|j: &mut Journey| j.row.priority = 77, |j: &mut Journey| j.settings.lib_to_pool_map = Some(Default::default())]
    {
        let mut journey = Journey::at(State::Reclaimed);
        change(&mut journey);
        assert_eq!(journey.code(), Code::NoDestination);
        assert_eq!(journey.commands, Vec::<String>::new());
    }
}

#[test]
fn a_tape_in_mode_manual_or_error_is_not_even_claimed_when_its_quarantine_is_over() {
    let mut journey = Journey::at(State::Quarantined);
    let due = match journey.task.next {
        Next::At(when) => when,
        other => panic!("{other:?}"),
    };
    journey.now = due;
    for mode in [Mode::Manual, Mode::Error] {
        let mut other = journey.clone();
        other.row.mode = mode;
        assert!(matches!(other.deliver(), Counted::Closed(_)));
        assert_eq!(other.commands, Vec::<String>::new(), "{mode}");
    }
}

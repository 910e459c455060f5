//! The one ordered table of stages. A file for each: what it is for, the declaration, the decision, the tests.

use std::fmt;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::cta::command::Command;
use crate::cta::reply;
use crate::journey::State;
use crate::reason::{Code, Why};
use crate::settings::{Priority, Settings};
use crate::tape::Tape;
use crate::task::{Learned, Next, SlotLook, Task, Wait, Wanted, later};

pub mod checks;
pub mod end;
pub mod finish;
pub mod quarantine;
pub mod reclaim;
pub mod start;
pub mod wishes;

/// The work that moves a tape from one state to the next.
pub struct Stage {
    /// The verb: queue names, commands and configuration are made of it.
    pub name: &'static str,
    /// The state it starts from.
    pub from: State,
    /// The state it leads to.
    pub to: State,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// It needs one of the `max_active_repacks` slots.
    pub takes_slot: bool,
    /// Being done lets the slot go, if a look allows.
    pub frees_slot: bool,
    /// From when on it may be done; none: at once.
    pub due: fn(&Tape, &Settings) -> Option<DateTime<Utc>>,
    /// What to do, from what is known and seen.
    pub decide: fn(&Case<'_>, &Seen) -> Answer,
}

/// The stages in the order of the journey.
pub static STAGES: [&Stage; 5] =
    [&start::START, &end::END, &quarantine::QUARANTINE, &reclaim::RECLAIM, &finish::FINISH];

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Stage {
    fn eq(&self, other: &Stage) -> bool {
        self.name == other.name
    }
}

impl Stage {
    /// When the stage may first be tried.
    pub fn next(&self, tape: &Tape, settings: &Settings, now: DateTime<Utc>) -> Next {
        match (self.due)(tape, settings) {
            Some(at) if at > now => Next::At(at),
            _ => Next::Now,
        }
    }
}

/// The stage of this name.
pub fn named(name: &str) -> Option<&'static Stage> {
    STAGES.into_iter().find(|stage| stage.name == name)
}

/// The stage that a tape in this state is due for; none after Finished.
pub fn after(state: State) -> Option<&'static Stage> {
    STAGES.into_iter().find(|stage| stage.from == state)
}

/// Something to ask CTA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The tape.
    Tape,
    /// Its repack request, or the proof that there is none.
    Request,
    /// Its live files, or the proof that there are none.
    Files,
    /// Its recycle log.
    RecycleLog,
    /// Pools that archive routes lead to.
    Routes,
    /// Names of all tape pools.
    Pools,
    /// Names of all mount policies.
    MountPolicies,
    /// Whether a repack VO exists.
    RepackVo,
}

/// A repack request: whole, and what we read of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The whole `repack ls` object.
    pub raw: Value,
    /// What we read of it.
    pub repack: reply::Repack,
}

/// The live files of a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    /// How many. 0 only if proven: by two complete empty lists, or one and empty live statistics.
    pub count: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// The recycle log of a tape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecycleLog {
    /// Entries.
    pub entries: u64,
    /// Time of the newest.
    pub newest: Option<DateTime<Utc>>,
    /// Time of the newest that no repack made: a user deleted a file.
    pub newest_deletion: Option<DateTime<Utc>>,
}

/// What CTA was seen to be, as far as it was asked. A query that failed ends the delivery: nothing here is a guess.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// `Some(None)`: CTA says it does not exist.
    pub tape: Option<Option<reply::Tape>>,
    /// `Some(None)`: proven that there is none.
    pub request: Option<Option<Request>>,
    /// Why the list of all requests could not be had, where only a refusal shows that there is none: enough to go on with,
    /// not enough for a gate.
    pub unlisted: Option<String>,
    /// The live files.
    pub files: Option<Files>,
    /// The recycle log.
    pub recycle_log: Option<RecycleLog>,
    /// Pools that archive routes lead to.
    pub routes: Option<Vec<String>>,
    /// Tape pools.
    pub pools: Option<Vec<String>>,
    /// Mount policies.
    pub mount_policies: Option<Vec<String>>,
    /// A repack VO exists; none where CTA is too old to know of one.
    pub repack_vo: Option<Option<bool>>,
}

impl Seen {
    /// After a command: what it may have changed is unknown again.
    pub fn forget_tape(&mut self) {
        self.tape = None;
        self.request = None;
        self.unlisted = None;
        self.files = None;
        self.recycle_log = None;
    }

    /// What it says about the slot.
    pub fn slot_look(&self) -> SlotLook {
        let request = self.request.as_ref();
        SlotLook {
            request_active: request.map(|request| request.as_ref().is_some_and(|request| !request.repack.is_final())),
            request_final: request
                .is_some_and(|request| request.as_ref().is_some_and(|request| request.repack.is_final())),
            repacking: self
                .tape
                .as_ref()
                .map(|tape| tape.as_ref().is_some_and(|tape| tape.state.starts_with("REPACKING"))),
        }
    }
}

/// How a command of this delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// Exit 0. Proves nothing by itself.
    Accepted,
    /// CTA said no.
    Refused(String),
}

/// What is known without asking CTA.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The main row as claimed.
    pub tape: &'a Tape,
    /// The task row as claimed, with what this delivery has added to its memory.
    pub task: &'a Task,
    /// The configuration.
    pub settings: &'a Settings,
    /// The database's clock at the last reading.
    pub now: DateTime<Utc>,
    /// Commands of this delivery and how they ended.
    pub tried: &'a [(Command, Tried)],
}

/// A command worth running, and what makes it so.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// The command.
    pub command: Command,
    /// What was seen that allows it; kept in the history before it runs.
    pub proof: Value,
    /// The tape's CTA state, if this is the command that first changes it.
    pub source_state: Option<String>,
}

/// What a stage answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Ask this, then ask me again.
    Look(Look),
    /// Write the listing of the tape's files, then ask me again.
    List,
    /// Run this, then ask me again.
    Do(Box<Act>),
    /// What was seen proves it.
    Done(Learned),
    /// Something takes its time.
    NotYet(Wait, Learned),
    /// CTA contradicts itself: wait a little, then stop.
    Grace(Why),
    /// Done for now, but only a part of the tape was covered.
    NextRound(Why, Learned),
    /// It cannot go on.
    Stop(Why, Learned),
}

impl Answer {
    /// Run `command`, allowed by `proof`.
    pub fn run(command: Command, proof: Value) -> Answer {
        Answer::Do(Box::new(Act { command, proof, source_state: None }))
    }

    /// Wait.
    pub fn wait(code: Code, text: impl Into<String>, until: Option<DateTime<Utc>>) -> Answer {
        Answer::NotYet(Wait { why: Why::new(code, text), until, stalled: false }, Learned::default())
    }
}

impl Case<'_> {
    /// The wish, or the stage, decides.
    pub fn decide(&self, stage: &Stage, wanted: Option<Wanted>, seen: &Seen) -> Answer {
        match wanted {
            None => (stage.decide)(self, seen),
            Some(Wanted::Retry) => wishes::retry(self, seen),
            Some(Wanted::GiveBack) => wishes::give_back(self, seen),
            Some(Wanted::Unstick) => wishes::unstick(self, seen),
        }
    }

    /// Whether a request is the one we made, or one we may take as ours.
    pub fn is_ours(&self, request: &Request) -> bool {
        let memory = &self.task.memory;
        match &memory.request {
            _ if memory.adopt => true,
            Some(log) => *log == request.repack.creation_log,
            None => memory.asked,
        }
    }

    /// A command of this kind was allowed to run in this journey.
    pub fn issued(&self, kind: &str) -> bool {
        self.task.memory.issued.contains_key(kind)
    }

    /// A command of this kind may have had its effect in this journey: one was allowed to run, and not every one of
    /// them was refused.
    pub fn may_have_run(&self, kind: &str) -> bool {
        self.issued(kind) && !self.task.memory.in_vain.contains(kind)
    }

    /// How the last command of this kind in this delivery was refused.
    pub fn refusal(&self, kind: &str) -> Option<&str> {
        self.tried.iter().rev().find_map(|(command, tried)| match tried {
            Tried::Refused(text) if command.kind() == kind => Some(text.as_str()),
            _ => None,
        })
    }

    /// A Stop. Where our own change keeps users from the tape, it says so.
    pub fn stop(&self, code: Code, text: impl Into<String>) -> Answer {
        let mut text = text.into();
        if self.tape.state() <= State::Started && self.may_have_run("set-repacking") {
            text.push_str(&format!(
                "; users cannot read this tape while it is in CTA state REPACKING: 'cta-ops-repack-manager abort {}' gives it back",
                self.tape.vid
            ));
        }
        Answer::Stop(Why::new(code, text), Learned::default())
    }

    /// CTA does not know the tape.
    pub fn unknown(&self) -> Answer {
        Answer::Grace(Why::new(Code::TapeUnknown, format!("CTA says that {} does not exist", self.tape.vid)))
    }

    /// CTA holds a request that is not ours.
    pub fn foreign(&self, request: &Request) -> Answer {
        let log = &request.repack.creation_log;
        self.stop(
            Code::SomeoneElsesRequest,
            format!(
                "CTA holds a repack request ({}) that is not ours: {}@{} made it at {}; 'requeue --adopt' takes it as ours",
                request.repack.status,
                log.username,
                log.host,
                moment(log.time)
            ),
        )
    }

    /// At a gate: no request was seen, but the list that proves it could not be had.
    pub fn unproven(&self, seen: &Seen) -> Option<Answer> {
        let why = seen.unlisted.as_ref()?;
        let text =
            format!("only the complete list of all repack requests proves that {} has none: {why}", self.tape.vid);
        Some(Answer::wait(Code::LookFailed, text, None))
    }

    /// The tape's priority, if the configuration has it.
    pub fn priority(&self) -> Option<&Priority> {
        self.settings.priorities.by_number.get(&self.tape.priority)
    }

    /// The Stop where it does not.
    pub fn no_priority(&self) -> Answer {
        let text = format!(
            "priority {} is not in the configuration: add it under 'priorities', or give the tape another with 'cta-ops-repack-manager ch'",
            self.tape.priority
        );
        self.stop(Code::NoPriority, text)
    }

    /// When a wait that began with a command of ours has lasted `limit`.
    pub fn deadline(&self, kind: &str, limit: std::time::Duration) -> Option<DateTime<Utc>> {
        self.task.memory.issued.get(kind).map(|at| later(*at, limit))
    }
}

/// Seconds since the epoch as people read them.
pub fn moment(epoch_seconds: u64) -> String {
    i64::try_from(epoch_seconds)
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .map_or_else(|| epoch_seconds.to_string(), |at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_leads_from_entered_to_finished_without_a_gap() {
        let mut state = State::Entered;
        for stage in STAGES {
            assert_eq!(stage.from, state);
            assert_eq!(Some(stage.to), state.next());
            assert!(!stage.about.is_empty());
            assert!(stage.name.bytes().all(|b| b.is_ascii_lowercase()));
            assert_eq!(named(stage.name), Some(stage));
            assert_eq!(after(stage.from), Some(stage));
            state = stage.to;
        }
        assert_eq!(state, State::Finished);
        assert_eq!(after(State::Finished), None);
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;
    use crate::cta::reply::Log2;

    pub(crate) fn settings() -> Settings {
        Settings { lib_to_pool_map: None, ..Settings::default() }
    }

    pub(crate) fn cta_tape() -> reply::Tape {
        reply::Tape {
            vid: "V01007".to_owned(),
            media_type: "LTO9".to_owned(),
            logical_library: "LIB1".to_owned(),
            tapepool: "raw".to_owned(),
            occupancy: 1000,
            last_fseq: 10,
            full: true,
            state: "ACTIVE".to_owned(),
            state_reason: String::new(),
            nb_master_files: 4,
            master_data_in_bytes: 400,
            dirty: false,
            label_log: Some(Log2 { drive: "D1".to_owned(), time: 1 }),
            last_written_log: None,
            storage_class_statistics: None,
        }
    }
}

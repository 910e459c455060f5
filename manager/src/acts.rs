//! What a verb does to a tape, or why not. Pure, so that what is shown before asking and what is done afterwards, under
//! the row's lock, come from the same function.

use chrono::{DateTime, TimeDelta, Utc};
use common::explain::ago;
use common::journey::{self, Event, Mode, State};
use common::reason::Code;
use common::stages;
use common::store::{HoldChange, Locked};
use common::tape::{OddRow, Tape, Vid};
use common::task::{Ground, Next, Note, RowChange, Task, Wanted};
use serde_json::{Value, json};

mod holds;
mod rows;

use holds::{hold, release};

/// What an operator wants of a tape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// To the automation again.
    Requeue {
        /// Take the request that is there as ours.
        adopt: bool,
        /// Take a tape that is found empty outside the quarantine pool as reclaimed.
        accept_empty: bool,
    },
    /// A wish that a worker fulfils.
    Want(Wanted),
    /// Other values in its row.
    Change {
        /// The mode.
        mode: Option<Mode>,
        /// The priority, known to be configured.
        priority: Option<i16>,
        /// The responsible, known to fit the column.
        responsible: Option<String>,
    },
    /// Its row to the history.
    Remove,
    /// A hold, for so long or until released.
    Hold(Option<TimeDelta>),
    /// No hold.
    Release,
}

impl Act {
    /// The verb on the command line.
    pub fn verb(&self) -> &'static str {
        match self {
            Act::Requeue { .. } => "requeue",
            Act::Want(Wanted::Retry) => "retry-failed",
            Act::Want(Wanted::GiveBack) => "abort",
            Act::Want(Wanted::Unstick) => "unstick",
            Act::Change { .. } => "ch",
            Act::Remove => "rm",
            Act::Hold(_) => "hold",
            Act::Release => "release",
        }
    }
}

impl Act {
    /// Why the history must say why: it takes something away, or takes somebody else's doing for ours. None: it need not.
    pub fn wants_reason(&self) -> Option<&'static str> {
        match self {
            Act::Want(Wanted::GiveBack) => Some("the repack is given up, and whoever asked for it will want to know"),
            Act::Remove => Some("the tape leaves the table, and whoever asked for its repack will want to know"),
            Act::Requeue { adopt: true, .. } => Some("somebody else's request is taken as ours"),
            Act::Requeue { accept_empty: true, .. } => {
                Some("what somebody else did to the tape is taken as our reclaim")
            }
            Act::Requeue { .. } | Act::Want(_) | Act::Change { .. } | Act::Hold(_) | Act::Release => None,
        }
    }
}

/// What is known of a tape, under its locks or from a look.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The tape.
    pub vid: &'a Vid,
    /// The main row.
    pub row: Option<&'a Result<Tape, OddRow>>,
    /// The task row.
    pub task: Option<&'a Task>,
}

/// What becomes of one tape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It is changed.
    Change {
        /// What changes, a phrase each.
        what: Vec<String>,
        /// What else to know.
        remarks: Vec<String>,
    },
    /// Nothing needs to change.
    Already(String),
    /// It must not, or cannot be changed.
    Refused {
        /// Why.
        why: String,
        /// What to do instead.
        next: String,
    },
    /// It is not in the table.
    Missing,
}

/// A plan, and what carries it out.
#[derive(Debug, Clone)]
pub struct Judged {
    /// What becomes of the tape.
    pub plan: Plan,
    task: Option<Task>,
    mode: Option<Mode>,
    priority: Option<i16>,
    responsible: Option<String>,
    hold: Option<HoldChange>,
    change: RowChange,
    notes: Vec<Note>,
}

impl Judged {
    fn new(plan: Plan) -> Judged {
        Judged {
            plan,
            task: None,
            mode: None,
            priority: None,
            responsible: None,
            hold: None,
            change: RowChange::Keep,
            notes: Vec::new(),
        }
    }

    fn refused(why: impl Into<String>, next: impl Into<String>) -> Judged {
        Judged::new(Plan::Refused { why: why.into(), next: next.into() })
    }
}

/// Carries an act out under the locks. Nothing is touched unless the plan is a change.
pub fn carry_out(act: &Act, reason: Option<&str>, locked: &mut Locked<'_>) -> Plan {
    let (row, task) = (locked.row.clone(), locked.task.clone());
    let vid = locked.vid;
    let (_, _, ground, _) = locked.parts();
    let judged = judge(act, reason, Facts { vid, row: row.as_ref(), task: task.as_ref() }, &ground);
    if matches!(judged.plan, Plan::Change { .. }) {
        locked.task = judged.task.or(task);
        locked.mode = judged.mode;
        locked.priority = judged.priority;
        locked.responsible = judged.responsible;
        locked.hold = judged.hold;
        locked.change = judged.change;
        locked.notes.extend(judged.notes);
    }
    judged.plan
}

/// What an act does to a tape. `reason` is the operator's, for the history.
pub fn judge(act: &Act, reason: Option<&str>, facts: Facts<'_>, ground: &Ground<'_>) -> Judged {
    match act {
        Act::Hold(span) => return hold(*span, reason, facts, ground),
        Act::Release => return release(reason, facts, ground),
        Act::Requeue { .. } | Act::Want(_) | Act::Change { .. } | Act::Remove => {}
    }
    let tape = match facts.row {
        None => return Judged::new(Plan::Missing),
        Some(Err(odd)) => {
            return Judged::refused(odd.to_string(), "put the row right with psql, then try again");
        }
        Some(Ok(tape)) => tape,
    };
    // What the tick would do first, the edit of somebody else included.
    let mut notes = Vec::new();
    let task = match facts.task {
        None => Task::made(tape, ground),
        Some(task) => {
            let mut task = task.clone();
            notes.extend(task.notice(tape, ground));
            task
        }
    };
    let case = Case { tape, task, reason, ground };
    let mut judged = match act {
        Act::Requeue { adopt, accept_empty } => case.requeue(*adopt, *accept_empty, true),
        Act::Want(wanted) => case.want(*wanted),
        Act::Change { mode, priority, responsible } => case.change(*mode, *priority, responsible.as_deref()),
        Act::Remove => case.remove(),
        Act::Hold(_) | Act::Release => unreachable!("answered above"),
    };
    notes.append(&mut judged.notes);
    Judged { notes, ..judged }
}

/// One tape, one operator.
struct Case<'a> {
    tape: &'a Tape,
    task: Task,
    reason: Option<&'a str>,
    ground: &'a Ground<'a>,
}

impl Case<'_> {
    fn command(&self, verb: &str) -> String {
        format!("'cta-ops-repack-manager {verb} {}'", self.tape.vid)
    }

    fn note(&self, kind: &'static str, mut detail: Value) -> Note {
        if let (Some(reason), Some(fields)) = (self.reason, detail.as_object_mut()) {
            fields.insert("reason".to_owned(), json!(reason));
        }
        Note { kind, stage: self.task.stage.clone(), detail }
    }

    /// What else to know: things that this verb does not change and that matter now.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let (Some(owner), Some(until)) = (&self.task.owner, self.task.lease_until) {
            remarks.push(if until > self.ground.now {
                format!("{owner} is at it now: the command it runs is finished first, and it starts no other")
            } else {
                format!("{owner} held it and has not been heard of since; the next tick closes its lease")
            });
        }
        if let Some(hold) = &self.ground.control.hold {
            remarks.push(format!("it stays on hold ({}: {}): see {}", hold.who, hold.why, self.command("release")));
        }
        if let Some(stage) = self.task.stage.as_ref().filter(|stage| self.ground.control.paused.contains(stage)) {
            remarks.push(format!("stage {stage} is paused: see 'cta-ops-repack-manager resume {stage}'"));
        }
        if self.task.is_settling(self.ground.now) {
            remarks.push(
                "an earlier command may still take effect: until it has settled the tape is only looked at".to_owned(),
            );
        }
        remarks
    }

    fn to_auto(&self) -> Option<String> {
        (self.tape.mode != Mode::Auto).then(|| format!("mode {} -> auto", self.tape.mode))
    }

    fn over(&self) -> Judged {
        Judged::refused("its journey is over", "prepare it again if it is to be repacked again")
    }

    /// Set mode auto if it is not, by the law.
    fn mode_auto(&self) -> Result<Option<Mode>, journey::Refused> {
        match self.tape.mode {
            Mode::Auto => Ok(None),
            mode => journey::change(self.tape.state(), mode, Event::Requeue).map(|_| Some(Mode::Auto)),
        }
    }

    /// `wakes`: a tape that only waits is looked at sooner.
    fn requeue(mut self, adopt: bool, accept_empty: bool, wakes: bool) -> Judged {
        let Some(stage) = stages::after(self.tape.state()) else { return self.over() };
        if let Some(refused) = self.unacceptable(adopt, accept_empty) {
            return refused;
        }
        let adopts = adopt && !(self.task.memory.adopt && self.task.memory.request.is_none());
        let accepts = accept_empty && !self.task.memory.accept_empty;
        if self.tape.mode == Mode::Auto && !self.task.has_stop() && !adopts && !accepts {
            return if wakes { self.wake() } else { self.goes_on() };
        }
        if let (true, "reclaim", None, Some(stop)) =
            (self.task.has_stop(), stage.name, self.reason, self.task.reason.as_ref())
        {
            let why =
                format!("it was stopped before its reclaim, which cannot be undone ({}: {})", stop.code, stop.text);
            return Judged::refused(why, "make sure of the tape, then repeat the command with --reason".to_owned());
        }
        let mode = match self.mode_auto() {
            Ok(mode) => mode,
            Err(refused) => return Judged::refused(refused.to_string(), self.command("show")),
        };
        let mut what: Vec<String> = self.to_auto().into_iter().collect();
        if let (true, Some(reason)) = (self.task.has_stop(), &self.task.reason) {
            what.push(format!("its Stop is taken back ({}: {})", reason.code, reason.text));
        }
        if adopts {
            what.push("the repack request that CTA holds for it counts as ours".to_owned());
        }
        if accepts {
            what.push("if it is empty, it counts as reclaimed, in whatever pool it is".to_owned());
        }
        what.push(match self.task.wanted {
            Some(wanted) => format!("goes on with what was asked for ({})", wanted.name()),
            None => format!("goes on at stage {}", stage.name),
        });
        let stopped = self.task.reason.clone().filter(|_| self.task.has_stop());
        let note = self.note(
            "requeue",
            json!({"mode": self.tape.mode, "stopped": stopped, "adopt": adopts, "accept_empty": accepts}),
        );
        let mut remarks = self.remarks();
        remarks.extend(self.stops_again(adopts));
        self.task.requeue(self.tape, self.ground);
        self.task.memory.accept_empty = accept_empty;
        if adopts {
            self.task.memory.adopt = true;
            self.task.memory.request = None;
            // The request that is there is not the answer to a `repack add` of ours.
            self.task.memory.asked = false;
        }
        Judged { task: Some(self.task), mode, notes: vec![note], ..Judged::new(Plan::Change { what, remarks }) }
    }

    /// Where looking again changes nothing: CTA's request stands as it is, or files are left without one.
    fn stops_again(&self, adopts: bool) -> Option<String> {
        let codes = [Code::RepackFailed, Code::FilesLeft, Code::RequestGone];
        let left = codes.into_iter().find(|code| self.stopped_because_of(*code))?;
        let retried = self.task.wanted == Some(Wanted::Retry);
        (self.tape.state() == State::Started && !adopts && !retried).then(|| {
            let (left, retry) = (left.name(), self.command("retry-failed"));
            format!("CTA is only looked at again: unless somebody mended it there, it stops again ({left}); {retry} repacks what is left")
        })
    }

    /// Why what is to be accepted cannot be there.
    fn unacceptable(&self, adopt: bool, accept_empty: bool) -> Option<Judged> {
        let state = self.tape.state();
        let why = if adopt && state > State::Repacked {
            format!("a tape that is {state} has no repack request to adopt")
        } else if accept_empty && state != State::Quarantined {
            format!("a tape that is {state} is not about to be reclaimed: there is nothing to accept")
        } else if accept_empty && !self.task.memory.accept_empty && !self.stopped_because_of(Code::WrongPool) {
            "it was not stopped for being empty in another pool: there is nothing to accept yet".to_owned()
        } else {
            return None;
        };
        Some(Judged::refused(why, format!("see {}", self.command("show"))))
    }

    fn stopped_because_of(&self, code: Code) -> bool {
        self.task.has_stop() && self.task.reason.as_ref().is_some_and(|reason| reason.code == code.name())
    }

    /// In mode auto and not stopped.
    fn goes_on(&self) -> Judged {
        let next = match (&self.task.owner, self.task.next) {
            (Some(owner), _) if self.task.is_leased(self.ground.now) => format!("; {owner} is at it now"),
            (_, Next::At(at)) if at > self.ground.now => {
                format!("; the next attempt is in {}", ago(at - self.ground.now))
            }
            (_, Next::Now | Next::At(_) | Next::Never) => String::new(),
        };
        Judged::new(Plan::Already(format!("in mode auto, and not stopped{next}")))
    }

    /// A tape that only waits is looked at sooner.
    fn wake(mut self) -> Judged {
        let (before, reason) = (self.task.next, self.task.reason.clone());
        if !self.task.wake(self.tape, self.ground) {
            return self.goes_on();
        }
        let left = |next| match next {
            Next::At(at) => format!("in {}", ago(at - self.ground.now)),
            Next::Now | Next::Never => "now".to_owned(),
        };
        let what = format!("the next attempt is {} instead of {}", left(self.task.next), left(before));
        let mut remarks = self.remarks();
        if let Some(reason) = &reason {
            remarks.push(format!("it waited because: {}", reason.text));
        }
        let until = |next| match next {
            Next::At(at) => Some(at),
            Next::Now | Next::Never => None,
        };
        let note = self.note(
            "requeue",
            json!({"mode": self.tape.mode, "woken_from": until(before), "next": until(self.task.next)}),
        );
        Judged { task: Some(self.task), notes: vec![note], ..Judged::new(Plan::Change { what: vec![what], remarks }) }
    }

    fn want(mut self, wanted: Wanted) -> Judged {
        if self.tape.state() == State::Finished {
            return self.over();
        }
        if let Some(refused) = self.unwanted(wanted) {
            return refused;
        }
        if self.task.wanted == Some(wanted) && self.tape.mode == Mode::Auto && !self.task.has_stop() {
            return Judged::new(Plan::Already("asked for already; a worker does it".to_owned()));
        }
        let mode = match self.mode_auto() {
            Ok(mode) => mode,
            Err(refused) => return Judged::refused(refused.to_string(), self.command("show")),
        };
        let mut what: Vec<String> = self.to_auto().into_iter().collect();
        what.push(
            match wanted {
                Wanted::Retry => "a worker removes the old request and repacks what is left",
                Wanted::GiveBack => {
                    "a worker removes our request and gives the tape the state and pool it had; its row goes to the history"
                }
                Wanted::Unstick => "a worker puts it back to REPACKING, if CTA has it as REPACKING_DISABLED",
            }
            .to_owned(),
        );
        if let Some(before) = self.task.wanted.filter(|before| *before != wanted) {
            what.push(format!("instead of what was asked for before ({})", before.name()));
        }
        let stopped = self.task.reason.clone().filter(|_| self.task.has_stop());
        let note = self.note("wanted", json!({"wanted": wanted.name(), "mode": self.tape.mode, "stopped": stopped}));
        let mut remarks = self.remarks();
        if wanted == Wanted::Retry
            && let Some(progress) = self.task.progress.as_ref().filter(|progress| progress.status == "Running")
        {
            remarks
                .push(format!("CTA said {} when it was last asked: a repack that runs is left alone", progress.status));
        }
        self.task.want(wanted, self.ground);
        Judged { task: Some(self.task), mode, notes: vec![note], ..Judged::new(Plan::Change { what, remarks }) }
    }

    /// Why a wish makes no sense, or must not be.
    fn unwanted(&self, wanted: Wanted) -> Option<Judged> {
        let state = self.tape.state();
        let issued = |kind| self.task.memory.issued.contains_key(kind);
        match wanted {
            Wanted::Retry if state == State::Entered => Some(Judged::refused(
                "its repack has not been started, there is nothing to retry",
                format!("{} lets it go on", self.command("requeue")),
            )),
            Wanted::Retry if state > State::Started => Some(Judged::refused(
                format!("it is {state}: its repack is complete, there is nothing to retry"),
                format!("{} lets it go on", self.command("requeue")),
            )),
            Wanted::GiveBack if state >= State::Reclaimed => Some(Judged::refused(
                "it has been reclaimed: there is nothing to give back",
                format!("{} lets it go on", self.command("requeue")),
            )),
            Wanted::GiveBack if issued("reclaim") => Some(Judged::refused(
                "a reclaim of it was allowed to run and may have happened: there may be nothing to give back",
                format!("{} lets it go on; see {}", self.command("requeue"), self.command("show")),
            )),
            Wanted::Unstick if state > State::Repacked => Some(Judged::refused(
                format!("it is {state}: it has left REPACKING"),
                format!("see {}", self.command("show")),
            )),
            Wanted::Unstick if state == State::Entered && !issued("set-repacking") => Some(Judged::refused(
                "it was not put into REPACKING by the automation",
                format!("see {}", self.command("show")),
            )),
            Wanted::Retry | Wanted::GiveBack | Wanted::Unstick => None,
        }
    }
}

/// How a tape stands, in a few words.
pub fn standing(row: Option<&Result<Tape, OddRow>>, now: DateTime<Utc>) -> String {
    match row {
        Some(Ok(tape)) => {
            let since = tape.stamps.at(tape.state()).map(|at| format!(" for {}", ago(now - at))).unwrap_or_default();
            format!("{}{since}, mode {}", tape.state(), tape.mode)
        }
        Some(Err(_)) => "in the table with an odd row".to_owned(),
        None => "not in the table".to_owned(),
    }
}

//! Why a tape is not further than it is: what it waits for, until when, and what happens next.
//!
//! Pure: everything that varies is an argument. The answer is never empty for a tape whose journey is not over, and never
//! names a wait that has ended.

use chrono::{DateTime, TimeDelta, Utc};

use crate::journey::{Mode, State};
use crate::reason::{Code, Kept};
use crate::settings::Settings;
use crate::stages::{self, Stage};
use crate::store::{Holding, Line, Overview};
use crate::tape::{OddRow, Tape, Vid};
use crate::task::{Control, Ground, Next, Outcome, Task, Wanted, later};

/// How the operator's tool is called, for the commands that are suggested.
const MANAGER: &str = "cta-ops-repack-manager";

/// The most slot holders that are named one by one.
const NAMED: usize = 5;

/// The `max_active_repacks` slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// How many are taken.
    pub taken: u32,
    /// How many there are.
    pub max: u32,
    /// Holders whose slot will not come free by itself soon, and why.
    pub stuck: Vec<(Vid, String)>,
}

impl Slots {
    /// From the rows that hold a slot and what is known of them.
    pub fn of(max: u32, holding: &[Holding], overviews: &[Overview]) -> Slots {
        let stuck = holding.iter().filter_map(|holder| Some((holder.vid.clone(), stuck(holder, overviews)?))).collect();
        Slots { taken: u32::try_from(holding.len()).unwrap_or(u32::MAX), max, stuck }
    }
}

fn stuck(holder: &Holding, overviews: &[Overview]) -> Option<String> {
    let overview = overviews.iter().find(|overview| {
        overview.row.as_ref().map_or_else(|odd| odd.tape == holder.vid.as_str(), |tape| tape.vid == holder.vid)
    });
    if let Some(hold) = overview.and_then(|overview| overview.hold.as_ref()) {
        return Some(format!("on hold by {}", hold.who));
    }
    let outcome = overview.and_then(|overview| overview.task.as_ref()).and_then(|task| task.outcome);
    match (holder.mode, outcome) {
        (None, _) => Some("no longer in the table".to_owned()),
        (Some(Mode::Manual), _) => Some("in mode manual".to_owned()),
        (Some(Mode::Error), _) => Some("in mode error".to_owned()),
        (Some(Mode::Auto), Some(Outcome::Failed)) => Some("stopped".to_owned()),
        (Some(Mode::Auto), Some(Outcome::Stalled)) => Some("stalled".to_owned()),
        (Some(Mode::Auto), Some(Outcome::Waiting | Outcome::Retrying) | None) => {
            holder.idle.then(|| "past its repack".to_owned())
        }
    }
}

/// Why a tape is not further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// For machines: a reason code, or one of this module's own (`due`, `queued`, `working`, `manual` ...).
    pub code: String,
    /// For people: lower case, no full stop, never empty.
    pub text: String,
    /// Until when, if that is known; always ahead.
    pub until: Option<DateTime<Utc>>,
    /// What happens next, or what to do.
    pub next: String,
}

impl Explained {
    fn new(code: impl Into<String>, text: impl Into<String>, next: impl Into<String>) -> Explained {
        Explained { code: code.into(), text: text.into(), until: None, next: next.into() }
    }

    fn until(mut self, until: Option<DateTime<Utc>>) -> Explained {
        self.until = until;
        self
    }
}

/// Explains one row. `paused` are the control rows of paused stages (others are ignored).
pub fn explain(
    overview: &Overview,
    slots: &Slots,
    paused: &[Line],
    settings: &Settings,
    now: DateTime<Utc>,
) -> Explained {
    match &overview.row {
        Err(odd) => odd_row(odd),
        Ok(tape) => {
            let (task, known) = followed(tape, overview.task.as_ref(), settings, now);
            Asked { tape, task: &task, known, overview, slots, paused, settings, now }.explain()
        }
    }
}

/// The task row as the next tick will see it: an edit made elsewhere is followed before anything else. False: no task
/// row, or an edit, that nobody has looked at yet.
pub fn followed(tape: &Tape, task: Option<&Task>, settings: &Settings, now: DateTime<Utc>) -> (Task, bool) {
    let control = Control::default();
    let ground = Ground { settings, control: &control, now, fresh_generation: 0, fresh_epoch: 0, jitter: 0.0 };
    match task {
        None => (Task::made(tape, &ground), false),
        Some(task) => {
            let mut task = task.clone();
            let unseen = task.notice(tape, &ground).is_some();
            (task, !unseen)
        }
    }
}

fn odd_row(odd: &OddRow) -> Explained {
    Explained::new(
        "odd-row",
        format!("the row is odd and left alone: {}", odd.problems.join("; ")),
        "put the row right with psql; the automation takes it up by itself then",
    )
}

/// What an explanation is made of.
struct Asked<'a> {
    tape: &'a Tape,
    task: &'a Task,
    /// The automation has seen the row as it is.
    known: bool,
    overview: &'a Overview,
    slots: &'a Slots,
    paused: &'a [Line],
    settings: &'a Settings,
    now: DateTime<Utc>,
}

impl Asked<'_> {
    fn explain(&self) -> Explained {
        let Some(stage) = stages::after(self.tape.state()) else {
            return Explained::new("finished", "its journey is over", "nothing: it stays in the table as a record");
        };
        match self.tape.mode {
            Mode::Manual => self.manual(),
            Mode::Error => self.error(),
            Mode::Auto => self.auto(stage),
        }
    }

    fn command(&self, verb: &str) -> String {
        format!("'{MANAGER} {verb} {}'", self.tape.vid)
    }

    fn worker(&self) -> Option<&str> {
        self.task.is_leased(self.now).then(|| self.task.owner.as_deref().unwrap_or("a worker"))
    }

    /// Nobody starts anything new on the tape, but somebody may be at it.
    fn still_at_it(&self) -> String {
        self.worker()
            .map(|owner| format!("; {owner} still finishes the command it is at, and starts no other"))
            .unwrap_or_default()
    }

    fn manual(&self) -> Explained {
        let stopped = match (self.task.has_stop(), &self.task.reason) {
            (true, Some(reason)) => format!("; before that it had stopped: {}", reason.text),
            _ => String::new(),
        };
        Explained::new(
            "manual",
            format!("in mode manual: an operator works on it, the automation does not{stopped}{}", self.still_at_it()),
            format!("{} gives it to the automation again", self.command("requeue")),
        )
    }

    fn error(&self) -> Explained {
        match &self.task.reason {
            Some(reason) if self.task.has_stop() => {
                Explained::new(&reason.code, said(reason), self.mending(reason)).until(None).also(&self.still_at_it())
            }
            _ => Explained::new(
                "error-set-elsewhere",
                format!(
                    "in mode error, and not by a Stop of the automation: somebody set it by hand or with another program{}",
                    self.still_at_it()
                ),
                format!("find out who and why ({}), then {}", self.command("show"), self.command("requeue")),
            ),
        }
    }

    /// What to do about a Stop.
    fn mending(&self, reason: &Kept) -> String {
        let is = |code: Code| reason.code == code.name();
        if is(Code::RepackFailed) || is(Code::FilesLeft) || is(Code::RequestGone) {
            if self.tape.state() == State::Started {
                return format!("{} repacks what is left; or {}", self.command("retry-failed"), self.command("abort"));
            }
        } else if is(Code::DisabledByDrive) {
            return format!("see to the medium, then {}", self.command("unstick"));
        } else if is(Code::SomeoneElsesRequest) {
            return format!(
                "see whose it is; '{MANAGER} requeue --adopt {}' takes it as ours, or wait until it is gone and {}",
                self.tape.vid,
                self.command("requeue")
            );
        }
        let away = match self.tape.state() {
            State::Entered if !self.task.memory.issued.contains_key("set-repacking") => "rm",
            State::Entered | State::Started | State::Repacked | State::Quarantined => "abort",
            State::Reclaimed | State::Finished => return format!("put it right, then {}", self.command("requeue")),
        };
        format!("put it right, then {}; or give it up with {}", self.command("requeue"), self.command(away))
    }

    fn auto(&self, stage: &'static Stage) -> Explained {
        if let Some(hold) = self.overview.hold.as_ref().filter(|hold| hold.until.is_none_or(|until| until > self.now)) {
            return Explained::new(
                Code::OnHold.name(),
                format!("{} put it on hold: {}{}", hold.who, hold.why, self.still_at_it()),
                match hold.until {
                    Some(_) => format!("it goes on when the hold ends, or after {}", self.command("release")),
                    None => format!("{} lets it go on", self.command("release")),
                },
            )
            .until(hold.until);
        }
        if self.task.has_stop() {
            return self.stopping();
        }
        if let Some(owner) = self.worker() {
            return Explained::new(
                "working",
                format!("{owner} is working on it ({})", self.work(stage)),
                "its outcome is recorded when it is done",
            );
        }
        match self.task.next {
            Next::At(at) if at > self.now => self.waiting(stage, at),
            Next::Never => Explained::new(
                "no-next-attempt",
                "the task row names no next attempt, although the journey is not over and no Stop is kept",
                format!("{} puts it right", self.command("requeue")),
            ),
            Next::Now | Next::At(_) => self.due(stage),
        }
    }

    /// The Stop is committed, the mode follows.
    fn stopping(&self) -> Explained {
        let (code, text) = self
            .task
            .reason
            .as_ref()
            .map_or(("stopped", "no reason was kept".to_owned()), |reason| (reason.code.as_str(), said(reason)));
        Explained::new(
            code,
            format!("stopped: {text}"),
            "mode error follows when a worker handles the dead letter, at the latest with a tick after ten minutes",
        )
        .also(&self.still_at_it())
    }

    /// What is next for the tape: a wish, or its stage.
    fn work(&self, stage: &Stage) -> String {
        match self.task.wanted {
            Some(Wanted::Retry) => "repack again, as asked for".to_owned(),
            Some(Wanted::GiveBack) => "give it back, as asked for".to_owned(),
            Some(Wanted::Unstick) => "put it back to REPACKING, as asked for".to_owned(),
            None => stage.name.to_owned(),
        }
    }

    fn pause(&self, stage: &Stage) -> Option<&Line> {
        self.paused.iter().find(|line| {
            line.kind == "pause" && line.name == stage.name && line.hold.until.is_none_or(|until| until > self.now)
        })
    }

    fn waiting(&self, stage: &Stage, at: DateTime<Utc>) -> Explained {
        let work = self.work(stage);
        let next = match self.pause(stage) {
            Some(line) => format!("then {work}, if {} has resumed stage {} by then", line.hold.who, stage.name),
            None => format!("then {work}"),
        };
        let told = match (self.task.outcome, &self.task.reason) {
            (Some(Outcome::Retrying), Some(reason)) => Some((
                reason,
                format!(
                    "{} (attempt {} of {} failed)",
                    said(reason),
                    self.task.attempts,
                    self.settings.retry.max_attempts
                ),
            )),
            (Some(Outcome::Waiting | Outcome::Stalled), Some(reason)) => Some((reason, said(reason))),
            _ => None,
        };
        if let Some((reason, text)) = told {
            return Explained::new(&reason.code, text, next).until(Some(at));
        }
        if self.task.is_settling(self.now) {
            return self.settling(next, at);
        }
        let over = (stage.due)(self.tape, self.settings);
        if stage.from == State::Quarantined && over == Some(at) {
            return Explained::new(Code::QuarantineNotOver.name(), "in quarantine", next).until(Some(at));
        }
        Explained::new("not-due", format!("{work} is not due yet"), next).until(Some(at))
    }

    fn settling(&self, next: String, at: DateTime<Utc>) -> Explained {
        let until = self.task.settle_until.map_or(at, |settled| settled.max(at));
        Explained::new(
            Code::Settling.name(),
            "a command ended unclear and may still take effect: until then the tape is only looked at",
            next,
        )
        .until(Some(until))
    }

    /// Nothing in its own row keeps it.
    fn due(&self, stage: &'static Stage) -> Explained {
        let work = self.work(stage);
        if let Some(line) = self.pause(stage) {
            return Explained::new(
                Code::StagePaused.name(),
                format!("{} paused stage {}: {}", line.hold.who, stage.name, line.hold.why),
                format!("'{MANAGER} resume {}' lets it go on", stage.name),
            )
            .until(line.hold.until);
        }
        if let Some(until) = self.task.settle_until.filter(|until| *until > self.now) {
            return self.settling(format!("then {work}"), until);
        }
        if self.task.needs_slot(stage) && self.slots.taken >= self.slots.max {
            return self.no_slot(&work);
        }
        if self.task.owner.is_some() {
            return Explained::new(
                "lease-expired",
                format!(
                    "{} was working on it and has not been heard of since its lease ended",
                    self.task.owner.as_deref().unwrap_or("a worker")
                ),
                "the next tick closes its lease and goes on; is a producer running?",
            );
        }
        if let Some(at) = self.task.dispatched_at {
            return self.queued(&work, at);
        }
        self.for_a_tick(&work)
    }

    fn no_slot(&self, work: &str) -> Explained {
        let mut text = format!("every slot is taken ({} of {})", self.slots.taken, self.slots.max);
        if !self.slots.stuck.is_empty() {
            let named: Vec<String> =
                self.slots.stuck.iter().take(NAMED).map(|(vid, why)| format!("{vid} {why}")).collect();
            let more = self.slots.stuck.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            text.push_str(&format!(
                "; {} of them by tapes that do not move: {}{more}",
                self.slots.stuck.len(),
                named.join(", ")
            ));
        }
        let next = if self.slots.stuck.is_empty() {
            format!("{work}, when a repack ends and a slot is free")
        } else {
            format!("{work}, when a slot is free; see to the tapes that hold one without moving")
        };
        Explained::new(Code::NoSlot.name(), text, next)
    }

    fn queued(&self, work: &str, at: DateTime<Utc>) -> Explained {
        let overdue = later(at, self.settings.redispatch_after) <= self.now;
        let question = if overdue { "; are workers running?" } else { "" };
        Explained::new(
            "queued",
            format!("published for the workers {} ago, none has taken it yet", ago(self.now - at)),
            format!("a worker takes it ({work}){question}"),
        )
    }

    fn for_a_tick(&self, work: &str) -> Explained {
        let next = format!("the next tick takes it ({work}); is a producer, or the cron job, running?");
        if !self.known {
            let text = "the automation has not yet looked at the row as it is now";
            return Explained::new("not-seen-yet", text, next);
        }
        match &self.task.reason {
            Some(reason) if reason.code == Code::SiteTrouble.name() => Explained::new(
                Code::SiteTrouble.name(),
                format!("at the last attempt the site was in trouble: {}", said(reason)),
                next,
            ),
            Some(reason) => Explained::new("due", format!("due now; last time: {}", said(reason)), next),
            None => Explained::new("due", "due now", next),
        }
    }
}

impl Explained {
    fn also(mut self, more: &str) -> Explained {
        self.text.push_str(more);
        self
    }
}

/// The sentence, or what the code means, or the code.
fn said(reason: &Kept) -> String {
    if !reason.text.trim().is_empty() {
        return reason.text.clone();
    }
    let about = Code::ALL.iter().find(|code| code.name() == reason.code).map(|code| code.about().trim_end_matches('.'));
    about.unwrap_or(if reason.code.is_empty() { "no reason was kept" } else { &reason.code }).to_owned()
}

/// A duration in its two largest units: `1d2h`, `3m20s`, `0s`.
pub fn ago(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let Some(first) = parts.iter().position(|(count, _)| *count > 0) else { return "0s".to_owned() };
    parts[first..]
        .iter()
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
}

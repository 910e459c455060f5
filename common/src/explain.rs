//! Why a tape is not further than it is: what it waits for, until when, and what happens next.
//!
//! Pure: everything that varies is an argument. The answer is never empty for a tape whose journey is not over, and never
//! names a wait that has ended.

use std::borrow::Cow;
use std::collections::HashMap;

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

/// Codes of explanations beside those of [`Code`]: what is no reason that a stage kept.
pub const CODES: [&str; 12] = [
    "due",
    "error-set-elsewhere",
    "finished",
    "lease-expired",
    "manual",
    "no-next-attempt",
    "not-due",
    "not-seen-yet",
    "odd-row",
    "queued",
    "stopped",
    "working",
];

/// The verb that tells most of a tape.
const SHOW: &str = "show";

/// What happens next, for somebody who is looking at everything that is known of the tape already.
pub fn next_in_show(why: &Explained, vid: &Vid) -> String {
    why.next.replace(&format!("'{MANAGER} {SHOW} {vid}'"), "what happened to it is below")
}

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
        let known: HashMap<&str, &Overview> = overviews
            .iter()
            .map(|overview| match &overview.row {
                Ok(tape) => (tape.vid.as_str(), overview),
                Err(odd) => (odd.tape.as_str(), overview),
            })
            .collect();
        let stuck = holding.iter().filter_map(|holder| {
            let why = stuck(holder.mode, holder.idle, known.get(holder.vid.as_str()).copied())?;
            Some((holder.vid.clone(), why))
        });
        Slots { taken: u32::try_from(holding.len()).unwrap_or(u32::MAX), max, stuck: stuck.collect() }
    }
}

/// Why the holder of a slot does not move; none: it does. `idle`: no worker comes to it by itself.
fn stuck(mode: Option<Mode>, idle: bool, overview: Option<&Overview>) -> Option<String> {
    if let Some(hold) = overview.and_then(|overview| overview.hold.as_ref()) {
        return Some(format!("on hold by {}", hold.who));
    }
    let outcome = overview.and_then(|overview| overview.task.as_ref()).and_then(|task| task.outcome);
    match (mode, outcome) {
        (None, _) => Some("no longer in the table".to_owned()),
        (Some(Mode::Manual), _) => Some("in mode manual".to_owned()),
        (Some(Mode::Error), _) => Some("in mode error".to_owned()),
        (Some(Mode::Auto), Some(Outcome::Failed)) => Some("stopped".to_owned()),
        (Some(Mode::Auto), Some(Outcome::Stalled)) => Some("stalled".to_owned()),
        (Some(Mode::Auto), Some(Outcome::Waiting | Outcome::Retrying) | None) => {
            idle.then(|| "is done with its repack (a tick that can ask CTA frees its slot)".to_owned())
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
pub fn followed<'a>(
    tape: &Tape,
    task: Option<&'a Task>,
    settings: &Settings,
    now: DateTime<Utc>,
) -> (Cow<'a, Task>, bool) {
    let control = Control::default();
    let ground = Ground { settings, control: &control, now, fresh_generation: 0, fresh_epoch: 0, jitter: 0.0 };
    match task {
        None => (Cow::Owned(Task::made(tape, &ground)), false),
        Some(task) if task.knows(tape) => (Cow::Borrowed(task), true),
        Some(task) => {
            let mut task = task.clone();
            let unseen = task.notice(tape, &ground).is_some();
            (Cow::Owned(task), !unseen)
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
        self.task.is_leased(self.now).then(|| self.task.owner.as_deref().unwrap_or("somebody"))
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
                format!("find out who and why ({}), then {}", self.command(SHOW), self.command("requeue")),
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
            match self.settings.broker {
                Some(_) => {
                    "mode error follows when a worker handles the dead letter, at the latest with a tick after ten minutes"
                }
                None => "mode error follows at once, at the latest with a run after ten minutes",
            },
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
            (Some(Outcome::Waiting), Some(reason)) if reason.code == Code::Settling.name() => {
                Some((reason, format!("{}{}", said(reason), self.unclear_command())))
            }
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

    /// The command whose effect is not known: the one that is not answered, else the last that may have had one.
    fn unclear_command(&self) -> String {
        let memory = &self.task.memory;
        let last =
            || memory.issued.iter().filter(|(kind, _)| !memory.in_vain.contains(*kind)).max_by_key(|(_, at)| **at);
        let command = match &self.task.intent {
            Some(intent) => Some(intent.command.clone()),
            None => last().map(|(kind, _)| command_of(kind)),
        };
        command.map(|command| format!(" (it was: {command})")).unwrap_or_default()
    }

    fn settling(&self, next: String, at: DateTime<Utc>) -> Explained {
        let until = self.task.settle_until.map_or(at, |settled| settled.max(at));
        Explained::new(
            Code::Settling.name(),
            format!(
                "a command ended unclear and may still take effect: until then the tape is only looked at{}",
                self.unclear_command()
            ),
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
                    self.task.owner.as_deref().unwrap_or("somebody")
                ),
                format!("{} closes its lease and goes on; {}", self.comes(), self.does_it_run()),
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
        let mut text = format!("published for the workers {} ago, none has taken it yet", ago(self.now - at));
        if let Some(reason) = self.task.reason.as_ref().filter(|reason| reason.code == Code::SiteTrouble.name()) {
            text.push_str(&format!("; the last one that did found the site in trouble: {}", reason.text));
        }
        Explained::new("queued", text, format!("a worker takes it ({work}){question}"))
    }

    /// Who comes to a tape that is due.
    fn comes(&self) -> String {
        let stage = stages::after(self.tape.state()).map_or("the stage", |stage| stage.name);
        match self.settings.broker {
            Some(_) => "the next tick".to_owned(),
            None => format!("the next run of {stage}"),
        }
    }

    fn does_it_run(&self) -> &'static str {
        match self.settings.broker {
            Some(_) => "is a producer running?",
            None => "is a cron job, or a producer, running?",
        }
    }

    fn for_a_tick(&self, work: &str) -> Explained {
        let next = format!("{} takes it ({work}); {}", self.comes(), self.does_it_run());
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

/// A kind of changing command in `cta-admin`'s words.
fn command_of(kind: &str) -> String {
    match kind {
        "set-repacking" => "tape ch --state REPACKING",
        "set-disabled" => "tape ch --state DISABLED",
        "set-active" => "tape ch --state ACTIVE",
        "set-pool" => "tape ch --tapepool",
        "repack-add" => "repack add",
        "repack-rm" => "repack rm",
        "reclaim" => "tape reclaim",
        other => other,
    }
    .to_owned()
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::journey::Stamps;
    use crate::task::{Hold, SeenRow};

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn in_hours(hours: i64) -> DateTime<Utc> {
        now() + TimeDelta::hours(hours)
    }

    fn settings() -> &'static Settings {
        static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::default);
        &SETTINGS
    }

    /// Each stamp an hour after the one before, the last an hour ago.
    fn tape(state: State, mode: Mode) -> Tape {
        let mut raw = [None; 6];
        for (index, stamp) in raw.iter_mut().enumerate().take(state as usize + 1) {
            *stamp = Some(in_hours(i64::try_from(index).unwrap() - state as i64 - 1));
        }
        Tape {
            vid: "V01007".parse().unwrap(),
            stamps: Stamps::check(raw, TimeDelta::zero()).unwrap(),
            mode,
            priority: 1,
            mediatype: "LTO9".to_owned(),
            tapepool: "raw".to_owned(),
            responsible: "bob".to_owned(),
            files: 4,
            bytes: 400,
            usage: 40,
            last_write_date: None,
            xmin: 7,
        }
    }

    fn task(tape: &Tape) -> Task {
        let mut task = followed(tape, None, settings(), now()).0.into_owned();
        task.generation = 5;
        task.seen = Some(SeenRow::of(tape));
        task
    }

    fn overview(tape: Tape, task: Option<Task>) -> Overview {
        Overview { row: Ok(tape), task, hold: None, now: now() }
    }

    fn pause(stage: &str, until: Option<DateTime<Utc>>) -> Line {
        let hold = Hold { who: "carol@desk".to_owned(), why: "drives away".to_owned(), until };
        Line { kind: "pause".to_owned(), name: stage.to_owned(), hold, since: in_hours(-1) }
    }

    fn free() -> Slots {
        Slots { taken: 1, max: 2, stuck: Vec::new() }
    }

    fn explained(overview: &Overview) -> Explained {
        explain(overview, &free(), &[], settings(), now())
    }

    fn kept(code: Code, text: &str) -> Option<Kept> {
        Some(Kept { code: code.name().to_owned(), text: text.to_owned() })
    }

    /// One combination of everything that can keep a tape.
    #[derive(Debug, Clone, Copy)]
    struct Combination {
        state: State,
        mode: Mode,
        /// None, for ever, ahead, over.
        hold: Option<Option<i64>>,
        outcome: Option<Outcome>,
        wanted: Option<Wanted>,
        /// Hours until the lease ends.
        lease: Option<i64>,
        /// Hours until it has settled.
        settle: Option<i64>,
        next: Option<i64>,
        dispatched: bool,
        pause: Option<Option<i64>>,
        full: bool,
        has_slot: bool,
    }

    const NEVER: i64 = i64::MAX;

    impl Combination {
        fn explain(self) -> Explained {
            let tape = tape(self.state, self.mode);
            let mut task = task(&tape);
            task.outcome = self.outcome;
            task.reason = self.outcome.and_then(|_| kept(Code::CommandFailed, "exit 1"));
            task.wanted = self.wanted;
            task.owner = self.lease.map(|_| "w@h".to_owned());
            task.lease_until = self.lease.map(in_hours);
            task.settle_until = self.settle.map(in_hours);
            task.next = match self.next {
                None => Next::Now,
                Some(NEVER) => Next::Never,
                Some(hours) => Next::At(in_hours(hours)),
            };
            task.dispatched_at = self.dispatched.then(|| in_hours(-1));
            task.slot_since = self.has_slot.then(|| in_hours(-1));
            let mut overview = overview(tape, Some(task));
            overview.hold = self.hold.map(|until| Hold {
                who: "alice@desk".to_owned(),
                why: "audit".to_owned(),
                until: until.map(in_hours),
            });
            let stage = stages::after(self.state).map_or("start", |stage| stage.name);
            let paused: Vec<Line> = self.pause.map(|until| pause(stage, until.map(in_hours))).into_iter().collect();
            let slots = Slots { taken: if self.full { 2 } else { 1 }, max: 2, stuck: Vec::new() };
            explain(&overview, &slots, &paused, settings(), now())
        }

        /// The answer once more, as a list: the first line that holds is what keeps the tape.
        fn expected(self) -> &'static str {
            let in_force = |until: Option<Option<i64>>| until.is_some_and(|until| until.is_none_or(|hours| hours > 0));
            let ahead = |hours: Option<i64>| hours.is_some_and(|hours| hours > 0);
            let auto = self.mode == Mode::Auto;
            let needs_slot = match self.wanted {
                Some(wanted) => wanted == Wanted::Retry,
                None => self.state == State::Entered,
            } && !self.has_slot;
            let waits = self.next.is_some_and(|hours| hours > 0 && hours != NEVER);
            let code = Code::CommandFailed.name();
            [
                (self.state == State::Finished, "finished"),
                (self.mode == Mode::Manual, "manual"),
                (!auto && self.outcome == Some(Outcome::Failed), code),
                (!auto, "error-set-elsewhere"),
                (in_force(self.hold), "on-hold"),
                (self.outcome == Some(Outcome::Failed), code),
                (ahead(self.lease), "working"),
                (self.next == Some(NEVER), "no-next-attempt"),
                (waits && self.outcome.is_some(), code),
                (waits && ahead(self.settle), "settling"),
                (waits, "not-due"),
                (in_force(self.pause), "stage-paused"),
                (ahead(self.settle), "settling"),
                (needs_slot && self.full, "no-slot"),
                (self.lease.is_some(), "lease-expired"),
                (self.dispatched, "queued"),
                (true, "due"),
            ]
            .into_iter()
            .find_map(|(holds, code)| holds.then_some(code))
            .unwrap()
        }
    }

    /// Walks every combination of a few values each.
    fn every(mut each: impl FnMut(Combination)) {
        let outcomes =
            [None, Some(Outcome::Waiting), Some(Outcome::Retrying), Some(Outcome::Stalled), Some(Outcome::Failed)];
        let wishes = [None, Some(Wanted::Retry), Some(Wanted::GiveBack), Some(Wanted::Unstick)];
        let spans = [None, Some(-1), Some(1)];
        let controls = [None, Some(None), Some(Some(2)), Some(Some(-1))];
        for state in State::ALL {
            for mode in Mode::ALL {
                for hold in controls {
                    for outcome in outcomes {
                        for wanted in wishes {
                            for lease in spans {
                                for settle in spans {
                                    for next in [None, Some(-1), Some(3), Some(NEVER)] {
                                        for pause in [None, Some(None), Some(Some(-1))] {
                                            for bits in 0..8u8 {
                                                each(Combination {
                                                    state,
                                                    mode,
                                                    hold,
                                                    outcome,
                                                    wanted,
                                                    lease,
                                                    settle,
                                                    next,
                                                    pause,
                                                    dispatched: bits & 1 > 0,
                                                    full: bits & 2 > 0,
                                                    has_slot: bits & 4 > 0,
                                                });
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_combination_is_explained_by_what_keeps_the_tape_and_by_nothing_that_is_over() {
        let mut seen = std::collections::BTreeSet::new();
        let mut counted = 0u64;
        every(|combination| {
            // Of tapes that are not auto, and of finished ones, a part is enough: little of it can matter.
            counted += 1;
            if (combination.mode != Mode::Auto || combination.state == State::Finished) && !counted.is_multiple_of(97) {
                return;
            }
            let explained = combination.explain();
            assert_eq!(explained.code, combination.expected(), "{combination:?}: {explained:?}");
            assert!(!explained.text.trim().is_empty() && !explained.next.trim().is_empty(), "{combination:?}");
            assert!(explained.until.is_none_or(|until| until > now()), "{combination:?}: {explained:?}");
            assert!(!explained.text.ends_with('.'), "{explained:?}");
            seen.insert(explained.code);
        });
        assert_eq!(seen.len(), 14, "{seen:?}");
    }

    #[test]
    fn a_worker_that_is_at_it_is_named_whatever_else_keeps_the_tape() {
        for (mode, hold, outcome) in [
            (Mode::Manual, false, None),
            (Mode::Error, false, Some(Outcome::Failed)),
            (Mode::Error, false, None),
            (Mode::Auto, true, None),
            (Mode::Auto, false, Some(Outcome::Failed)),
            (Mode::Auto, false, None),
        ] {
            let combination = Combination {
                state: State::Started,
                mode,
                hold: hold.then_some(None),
                outcome,
                wanted: None,
                lease: Some(1),
                settle: None,
                next: None,
                dispatched: false,
                pause: None,
                full: false,
                has_slot: true,
            };
            assert!(combination.explain().text.contains("w@h"), "{combination:?}");
            let over = Combination { lease: Some(-1), ..combination }.explain();
            assert_eq!(over.text.contains("w@h"), over.code == "lease-expired", "{over:?}");
        }
    }

    #[test]
    fn a_tape_in_quarantine_waits_until_its_end_and_not_longer() {
        let tape = tape(State::Quarantined, Mode::Auto);
        let known = task(&tape);
        let explained = explained(&overview(tape.clone(), Some(known.clone())));
        assert_eq!(explained.code, "quarantine-not-over");
        let end = later(tape.stamps.at(State::Quarantined).unwrap(), settings().quarantine);
        assert_eq!(explained.until, Some(end));
        let mut overview = overview(tape, Some(known));
        overview.now = end;
        assert_eq!(explain(&overview, &free(), &[], settings(), end).code, "due");
    }

    #[test]
    fn a_tape_that_waits_for_a_slot_is_told_how_many_there_are_and_who_keeps_them_without_moving() {
        let slots = Slots {
            taken: 9,
            max: 9,
            stuck: (0..7).map(|n| (format!("X{n}").parse().unwrap(), "in mode manual".to_owned())).collect(),
        };
        let tape = tape(State::Entered, Mode::Auto);
        let overview = overview(tape.clone(), Some(task(&tape)));
        let text = explain(&overview, &slots, &[], settings(), now()).text;
        assert!(text.contains("9 of 9") && text.contains("7 of them"), "{text}");
        assert!(text.contains("X0 in mode manual") && text.contains("X4") && !text.contains("X5"), "{text}");
        assert!(text.contains("and 2 more"), "{text}");
        let none = Slots { stuck: Vec::new(), ..slots };
        let text = explain(&overview, &none, &[], settings(), now()).text;
        assert_eq!(text, "every slot is taken (9 of 9)");
    }

    #[test]
    fn slot_holders_that_do_not_move_are_found_and_the_others_are_not() {
        let seen = |mode, outcome, held: bool| {
            let tape = tape(State::Started, mode);
            let task = Task { outcome, ..task(&tape) };
            let hold = held.then(|| Hold { who: "alice@desk".to_owned(), why: "audit".to_owned(), until: None });
            Overview { hold, ..overview(tape, Some(task)) }
        };
        for (mode, idle, outcome, held, why) in [
            (Mode::Auto, false, None, false, None),
            (Mode::Auto, false, Some(Outcome::Waiting), false, None),
            (Mode::Auto, false, Some(Outcome::Retrying), false, None),
            (
                Mode::Auto,
                true,
                Some(Outcome::Waiting),
                false,
                Some("is done with its repack (a tick that can ask CTA frees its slot)"),
            ),
            (Mode::Auto, true, Some(Outcome::Failed), false, Some("stopped")),
            (Mode::Auto, false, Some(Outcome::Stalled), false, Some("stalled")),
            (Mode::Auto, true, None, true, Some("on hold by alice@desk")),
            (Mode::Manual, true, None, false, Some("in mode manual")),
            (Mode::Error, true, Some(Outcome::Failed), false, Some("in mode error")),
        ] {
            assert_eq!(stuck(Some(mode), idle, Some(&seen(mode, outcome, held))).as_deref(), why);
        }
        assert_eq!(stuck(None, true, None).as_deref(), Some("no longer in the table"));
    }

    #[test]
    fn an_edit_made_elsewhere_is_followed_before_anything_is_explained() {
        // A Stop is kept, then somebody set the mode to auto with psql: the Stop is over.
        let stopped = tape(State::Started, Mode::Error);
        let mut known = task(&stopped);
        known.outcome = Some(Outcome::Failed);
        known.reason = kept(Code::RepackFailed, "3 files could not be read");
        known.next = Next::Never;
        let edited = Tape { mode: Mode::Auto, xmin: 8, ..stopped };
        assert_eq!(explained(&overview(edited, Some(known))).code, "not-seen-yet");
    }

    #[test]
    fn a_row_that_nobody_has_looked_at_says_so_unless_its_row_says_more() {
        let code = |state, mode| explained(&overview(tape(state, mode), None)).code;
        assert_eq!(code(State::Entered, Mode::Auto), "not-seen-yet");
        assert_eq!(code(State::Quarantined, Mode::Auto), "quarantine-not-over");
        assert_eq!(code(State::Started, Mode::Error), "error-set-elsewhere");
        assert_eq!(code(State::Started, Mode::Manual), "manual");
        assert_eq!(code(State::Finished, Mode::Auto), "finished");
    }

    #[test]
    fn an_odd_row_is_explained_by_what_is_wrong_with_it() {
        let odd = OddRow { tape: "V01007".to_owned(), problems: vec!["entered is not set".to_owned()] };
        let explained = explained(&Overview { row: Err(odd), task: None, hold: None, now: now() });
        assert_eq!(explained.code, "odd-row");
        assert!(explained.text.contains("entered is not set"), "{explained:?}");
    }

    #[test]
    fn a_stop_names_the_command_that_mends_it() {
        for (state, code, issued, suggests) in [
            (State::Started, Code::RepackFailed, true, "retry-failed V01007"),
            (State::Started, Code::RequestGone, true, "retry-failed V01007"),
            (State::Repacked, Code::FilesLeft, true, "abort V01007"),
            (State::Started, Code::DisabledByDrive, true, "unstick V01007"),
            (State::Entered, Code::SomeoneElsesRequest, false, "requeue --adopt V01007"),
            (State::Entered, Code::NotFull, false, "rm V01007"),
            (State::Entered, Code::NotFull, true, "abort V01007"),
            (State::Quarantined, Code::TapeChanged, true, "abort V01007"),
            (State::Reclaimed, Code::UsedMeanwhile, true, "requeue V01007"),
        ] {
            let tape = tape(state, Mode::Error);
            let mut known = task(&tape);
            known.outcome = Some(Outcome::Failed);
            known.reason = kept(code, "as it is");
            if issued {
                known.memory.issued.insert("set-repacking".to_owned(), now());
            }
            let explained = explained(&overview(tape, Some(known)));
            assert_eq!((explained.code.as_str(), explained.text.as_str()), (code.name(), "as it is"));
            assert!(explained.next.contains(suggests), "{state} {code}: {}", explained.next);
            assert!(state < State::Reclaimed || !explained.next.contains("abort"), "{explained:?}");
        }
    }

    #[test]
    fn a_retry_says_which_attempt_failed_and_a_reason_without_text_is_not_empty() {
        let tape = tape(State::Started, Mode::Auto);
        let mut known = task(&tape);
        known.outcome = Some(Outcome::Retrying);
        known.reason = kept(Code::LookFailed, "");
        known.attempts = 2;
        known.next = Next::At(in_hours(1));
        let told = explained(&overview(tape.clone(), Some(known.clone())));
        assert_eq!(told.text, "A query about the tape failed (attempt 2 of 5 failed)");
        assert_eq!(told.until, Some(in_hours(1)));
        known.reason = Some(Kept { code: "from-the-future".to_owned(), text: String::new() });
        assert!(explained(&overview(tape, Some(known))).text.starts_with("from-the-future"));
    }

    #[test]
    fn site_trouble_is_told_as_what_was_seen_last_not_as_a_wait() {
        let tape = tape(State::Started, Mode::Auto);
        let mut known = task(&tape);
        known.outcome = Some(Outcome::Waiting);
        known.reason = kept(Code::SiteTrouble, "not authorised");
        let told = explained(&overview(tape.clone(), Some(known.clone())));
        assert_eq!((told.code.as_str(), told.until), ("site-trouble", None));
        assert!(told.text.contains("at the last attempt") && told.text.contains("not authorised"));
        known.dispatched_at = Some(in_hours(0));
        let told = explained(&overview(tape, Some(known)));
        assert!(told.text.contains("none has taken it yet") && told.text.contains("not authorised"), "{}", told.text);
    }

    #[test]
    fn a_message_that_nobody_takes_raises_the_question_whether_workers_run() {
        let tape = tape(State::Started, Mode::Auto);
        let mut known = task(&tape);
        known.dispatched_at = Some(now() - TimeDelta::seconds(5));
        let fresh = explained(&overview(tape.clone(), Some(known.clone())));
        assert!(fresh.text.contains("5s ago") && !fresh.next.contains("are workers running"), "{fresh:?}");
        known.dispatched_at = Some(in_hours(-5));
        let old = explained(&overview(tape, Some(known)));
        assert!(old.next.contains("are workers running"), "{old:?}");
    }

    #[test]
    fn a_wish_is_named_as_what_comes_next() {
        let tape = tape(State::Started, Mode::Auto);
        for (wanted, words) in [
            (Wanted::Retry, "repack again"),
            (Wanted::GiveBack, "give it back"),
            (Wanted::Unstick, "back to REPACKING"),
        ] {
            let known = Task { wanted: Some(wanted), ..task(&tape) };
            assert!(explained(&overview(tape.clone(), Some(known))).next.contains(words));
        }
    }
}

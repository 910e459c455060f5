//! The task row and its law.
//!
//! Every function here is pure: it is given the rows as they are under the locks and a clock reading, and changes the
//! [`Task`] value. `store` reads and writes the rows around it; nothing else decides what a task row becomes.
//!
//! | event | attempts, crashes | next attempt | dispatched | slot | lease, generation |
//! |---|---|---|---|---|---|
//! | row made, requeue, `wanted` set, edited elsewhere | 0, 0 | now | cleared | as is | new generation |
//! | requeue of a tape that waits | - | now, not before it settled or may be tried | cleared | as is | new generation |
//! | claim | an expired lease is closed as abandoned first; at the maximum a Stop | must not be ahead | - | taken by start and retry | new epoch |
//! | Done | 0, 0 | when the next stage is due | cleared | freed where a look allows | closed, new generation |
//! | NotYet | 0, 0 (kept while a command settles) | until, else backoff | cleared | kept | closed |
//! | tape trouble | attempts + 1, at the maximum a Stop | backoff with jitter | cleared | kept | closed |
//! | site trouble | - | - | cleared | kept | closed |
//! | stale, held, paused | - | - | cleared if the generation is current | - | - |
//! | last check failed | - | - | cleared | freed where a look allows | closed |
//! | Stop | kept | never | - | freed where a look allows | closed, same generation |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cta::command::Command;
use crate::cta::reply::{Log2, Log3};
use crate::journey::{self, Event, Mode, Stamps, State};
use crate::reason::{Code, Kept, Why};
use crate::retry::tape_delay;
use crate::settings::Settings;
use crate::stages::{self, Stage};
use crate::tape::{Tape, Vid};

/// How long a refusal that contradicts what CTA shows is believed to be a stale cache of CTA's.
pub const REFUSAL_GRACE: TimeDelta = TimeDelta::seconds(600);

/// When a tape may be worked on again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once.
    Now,
    /// Not before this.
    At(DateTime<Utc>),
    /// Not before somebody decides: a Stop is committed, or the journey is over.
    Never,
}

/// What an operator asked for, done by a worker under lease like any stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Repack again what is left on the tape.
    Retry,
    /// Give the tape back as it was.
    GiveBack,
    /// Out of REPACKING_DISABLED, back to REPACKING.
    Unstick,
}

impl Wanted {
    /// The name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Wanted::Retry => "retry",
            Wanted::GiveBack => "give_back",
            Wanted::Unstick => "unstick",
        }
    }

    /// The value of a name.
    pub fn named(name: &str) -> Option<Wanted> {
        [Wanted::Retry, Wanted::GiveBack, Wanted::Unstick].into_iter().find(|wanted| wanted.name() == name)
    }
}

/// How the last delivery left a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// For something that takes its time.
    Waiting,
    /// In trouble; tried again later.
    Retrying,
    /// Waiting for something that does not move.
    Stalled,
    /// Stopped: a person decides.
    Failed,
}

impl Outcome {
    /// The name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Waiting => "waiting",
            Outcome::Retrying => "retrying",
            Outcome::Stalled => "stalled",
            Outcome::Failed => "failed",
        }
    }

    /// The value of a name.
    pub fn named(name: &str) -> Option<Outcome> {
        [Outcome::Waiting, Outcome::Retrying, Outcome::Stalled, Outcome::Failed]
            .into_iter()
            .find(|outcome| outcome.name() == name)
    }
}

/// A changing command that is allowed to run and has not been answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// [`Command::kind`].
    pub kind: String,
    /// As an operator would type it.
    pub command: String,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// What is put back if the command surely had no effect.
    #[serde(default)]
    pub before: Before,
}

/// What the task knew before an intent, as far as the intent changed it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Before {
    /// [`Memory::asked`].
    pub asked: bool,
    /// [`Memory::request`].
    pub request: Option<Log3>,
    /// [`Task::round`].
    pub round: i32,
    /// An earlier command of this kind and journey may have had its effect.
    pub effective: bool,
}

/// What the answer of a changing command says about its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It was accepted.
    Likely,
    /// It was refused, or never ran: surely none.
    None,
    /// It ended unclear: perhaps, or perhaps later.
    Unclear,
}

/// How far a running repack is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// CTA's status word.
    pub status: String,
    /// Files read from the source.
    pub retrieved_files: u64,
    /// Copies written.
    pub archived_files: u64,
    /// Copies to write.
    pub total_files: u64,
    /// Bytes written.
    pub archived_bytes: u64,
    /// Bytes to write.
    pub total_bytes: u64,
    /// Files that could not be read or written.
    pub failed_files: u64,
}

impl Progress {
    /// What a repack request says of itself.
    pub fn of(repack: &crate::cta::reply::Repack) -> Progress {
        Progress {
            status: repack.status.clone(),
            retrieved_files: repack.retrieved_files,
            archived_files: repack.archived_files,
            total_files: repack.total_files_to_archive,
            archived_bytes: repack.archived_bytes,
            total_bytes: repack.total_bytes_to_archive,
            failed_files: repack.failed_to_retrieve_files.saturating_add(repack.failed_to_archive_files),
        }
    }
}

/// Where the listing of a tape's files is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingMade {
    /// Host on which it was written.
    pub host: String,
    /// Path on that host.
    pub path: String,
    /// Number of files listed.
    pub files: u64,
    /// Bytes of the files listed.
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// The repack round it was made for.
    pub round: i32,
}

/// What the tape looked like when it went into quarantine; it must look the same when it is reclaimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Last file sequence number.
    pub last_fseq: u64,
    /// Bytes written.
    pub occupancy: u64,
    /// When and where it was labelled.
    pub label_log: Option<Log2>,
}

/// What has to be remembered of one journey beyond its stamps. Dropped when another journey begins. Written without what is
/// as it was at the beginning: most of it is, for most tapes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// CTA state at prepare: given back at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_state: Option<String>,
    /// Logical library at prepare. For people only: whoever decides asks CTA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_library: Option<String>,
    /// `creationLog` of our repack request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Log3>,
    /// A `repack add` of ours was allowed to run, where the look before saw no request.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
    /// Take the request that is there as ours (rows that ATRESYS started, and `requeue --adopt`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
    /// Take a tape that is found empty outside the quarantine pool as reclaimed (`requeue --accept-empty`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub accept_empty: bool,
    /// Kinds of the changing commands of this journey, and when each was last allowed to run.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub issued: BTreeMap<String, DateTime<Utc>>,
    /// Kinds in `issued` of which no command had an effect: each was refused, or never ran.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub in_vain: BTreeSet<String>,
    /// The newest listing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listing: Option<ListingMade>,
    /// The tape at quarantine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marks: Option<Marks>,
    /// Since when CTA refuses what should work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_since: Option<DateTime<Utc>>,
    /// Waits in a row, for the backoff.
    #[serde(skip_serializing_if = "is_zero")]
    pub waits: u32,
    /// When the Stop was committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<DateTime<Utc>>,
    /// What the last digest by mail said of the tape; see [`crate::store::Concern::what`]. Nothing is decided by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailed: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The main row as our last write left it, to notice edits by others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRow {
    /// `xmin` after our last write; 0: not to be trusted, compare the rest.
    pub xmin: i64,
    /// Mode.
    pub mode: Mode,
    /// Stamps, in the order of [`State::ALL`].
    pub stamps: [Option<DateTime<Utc>>; 6],
}

impl SeenRow {
    /// The row as it is.
    pub fn of(tape: &Tape) -> SeenRow {
        SeenRow { xmin: tape.xmin, mode: tape.mode, stamps: State::ALL.map(|state| tape.stamps.at(state)) }
    }
}

/// A row of the task table: one per VID, whatever the journey.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The tape.
    pub vid: Vid,
    /// Name of the stage that is next; none when the journey is over or there is no main row.
    pub stage: Option<String>,
    /// Changes with every step; a message of another generation is stale. From a sequence, never reused.
    pub generation: i64,
    /// Changes with every claim; who holds another epoch is fenced out. From a sequence, never reused.
    pub epoch: i64,
    /// When the producer last published it.
    pub dispatched_at: Option<DateTime<Utc>>,
    /// Who works on it.
    pub owner: Option<String>,
    /// Until when the owner is believed to be alive.
    pub lease_until: Option<DateTime<Utc>>,
    /// A changing command under way.
    pub intent: Option<Intent>,
    /// Failed attempts in a row.
    pub attempts: i32,
    /// Abandoned leases in a row.
    pub crashes: i32,
    /// When it may be worked on again.
    pub next: Next,
    /// Until then nothing changes the tape.
    pub settle_until: Option<DateTime<Utc>>,
    /// Since when it holds one of the `max_active_repacks` slots.
    pub slot_since: Option<DateTime<Utc>>,
    /// What an operator asked for.
    pub wanted: Option<Wanted>,
    /// Repack requests made in this journey.
    pub round: i32,
    /// The running repack.
    pub progress: Option<Progress>,
    /// When it last moved.
    pub progress_at: Option<DateTime<Utc>>,
    /// How the last delivery left it.
    pub outcome: Option<Outcome>,
    /// Why.
    pub reason: Option<Kept>,
    /// The journey's memory.
    pub memory: Memory,
    /// The main row after our last write.
    pub seen: Option<SeenRow>,
}

/// Something worth an entry in the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// Kind of the event.
    pub kind: &'static str,
    /// Stage it belongs to.
    pub stage: Option<String>,
    /// Particulars.
    pub detail: Value,
}

/// A hold on a tape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Who put it.
    pub who: String,
    /// Why.
    pub why: String,
    /// Until when; none: until released.
    pub until: Option<DateTime<Utc>>,
}

impl Hold {
    /// Whether one until then (none: until released) would end before this one, on which somebody relies.
    pub fn outlasts(&self, until: Option<DateTime<Utc>>) -> bool {
        until.is_some_and(|until| self.until.is_none_or(|mine| until < mine))
    }
}

/// What operators said in the control rows that concerns one tape.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// The tape is on hold.
    pub hold: Option<Hold>,
    /// Stages that are paused.
    pub paused: Vec<String>,
}

/// What holds under the locks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The configuration.
    pub settings: &'a Settings,
    /// Holds and pauses.
    pub control: &'a Control,
    /// The database's clock.
    pub now: DateTime<Utc>,
    /// A number nobody has used: the generation, if a new one is needed.
    pub fresh_generation: i64,
    /// A number nobody has used: the epoch, if a new one is needed.
    pub fresh_epoch: i64,
    /// 0 to 1, for the jitter of delays.
    pub jitter: f64,
}

/// What a worker holds after a claim, compared before each command and at the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The epoch given.
    pub epoch: i64,
    /// The generation claimed.
    pub generation: i64,
    /// The stage claimed.
    pub stage: &'static Stage,
    /// The wish it was claimed with.
    pub wanted: Option<Wanted>,
    /// The stamps at the claim.
    pub stamps: Stamps,
}

/// What became of an attempt to claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Ours: work on it.
    Claimed(Claim),
    /// Somebody else works on it; nothing was written.
    Busy(String),
    /// It would take a slot, and the gate was not locked: claim it once more, with the gate.
    NeedsGate,
    /// The row does not warrant it.
    Stale(String),
    /// A Stop is committed for just this stage and generation: to the dead letters.
    Stopped(Kept),
}

/// What the looks of a delivery say about the tape's slot; `None`: not looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotLook {
    /// A request that is not final was seen.
    pub request_active: Option<bool>,
    /// The request that was seen is final.
    pub request_final: bool,
    /// CTA state REPACKING, REPACKING_PENDING or REPACKING_DISABLED.
    pub repacking: Option<bool>,
}

impl SlotLook {
    /// Whether what was seen lets a slot go.
    pub fn allows_release(self, mode: Mode) -> bool {
        self.request_active == Some(false)
            && (self.repacking == Some(false) || self.request_final || mode == Mode::Error)
    }
}

/// Facts a delivery learned, kept with whatever outcome it has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Learned {
    /// Our request was seen.
    pub request: Option<Log3>,
    /// The tape at quarantine.
    pub marks: Option<Marks>,
    /// The state to give back.
    pub source_state: Option<String>,
    /// How far the repack is.
    pub progress: Option<Progress>,
    /// The `repack ls` object at the end of a repack.
    pub statistics: Option<Value>,
    /// Something to say in the history.
    pub notes: Vec<(&'static str, Value)>,
}

/// A wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Wait {
    /// For what.
    pub why: Why,
    /// Until when, if known.
    pub until: Option<DateTime<Utc>>,
    /// Nothing moves: somebody should look.
    pub stalled: bool,
}

/// How a delivery ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The stage, or the wish, is done; a look proved it.
    Done,
    /// Something takes its time.
    NotYet(Wait),
    /// CTA refuses what should work: wait, and stop when it does so for too long.
    Grace(Why),
    /// A part of the tape is left: ask for the next round.
    NextRound(Why),
    /// The tape is in trouble: retry.
    Trouble(Why),
    /// The site is in trouble.
    Site(Why),
    /// The last check before a command failed.
    Denied(String),
    /// It cannot go on.
    Stop(Why),
}

/// What the record does to the main row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// Nothing.
    Keep,
    /// Set this stamp.
    Stamp(State),
    /// Move the row to the history: the tape was given back.
    GiveBack,
    /// Move the row to the history: an operator removed it.
    Remove,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// What to do to the main row.
    pub row: RowChange,
    /// How the delivery counts, after all conversions (a Trouble at the maximum is a Stop).
    pub counted: Counted,
}

/// How a delivery counts in a run's tally.
#[derive(Debug, Clone, PartialEq)]
pub enum Counted {
    /// A stamp was set, or a wish fulfilled.
    Done,
    /// It waits.
    NotYet(Why),
    /// It will be retried.
    Retrying(Why),
    /// The site is in trouble.
    Site(Why),
    /// It is stopped; the message goes to the dead letters.
    Stopped(Why),
    /// Nothing was written but the end of the lease.
    Closed(String),
    /// Somebody else has the tape; nothing was written.
    Fenced,
}

impl Task {
    /// A task for a row that has none.
    pub fn made(tape: &Tape, ground: &Ground<'_>) -> Task {
        let mut task = Task {
            vid: tape.vid.clone(),
            stage: None,
            generation: ground.fresh_generation,
            epoch: ground.fresh_epoch,
            dispatched_at: None,
            owner: None,
            lease_until: None,
            intent: None,
            attempts: 0,
            crashes: 0,
            next: Next::Now,
            settle_until: None,
            slot_since: None,
            wanted: None,
            round: 0,
            progress: None,
            progress_at: None,
            outcome: None,
            reason: None,
            memory: Memory::default(),
            seen: None,
        };
        task.begin_journey();
        task.derive(tape, ground);
        task
    }

    /// Forgets the last journey. Lease, intent, epoch, settle time and slot stay: they belong to the VID.
    fn begin_journey(&mut self) {
        self.memory = Memory::default();
        self.wanted = None;
        self.round = 0;
        self.progress = None;
        self.progress_at = None;
        self.clear_outcome();
        self.next = Next::Now;
    }

    fn clear_outcome(&mut self) {
        self.outcome = None;
        self.reason = None;
        self.memory.stopped_at = None;
        self.memory.refused_since = None;
        // The same trouble after a decision is news.
        self.memory.mailed = None;
    }

    /// Stage, generation and counters as the row warrants.
    fn derive(&mut self, tape: &Tape, ground: &Ground<'_>) {
        let stage = stages::after(tape.state());
        self.stage = stage.map(|stage| stage.name.to_owned());
        self.generation = ground.fresh_generation;
        self.dispatched_at = None;
        self.attempts = 0;
        self.crashes = 0;
        self.memory.waits = 0;
        // A row that somebody else started: the request that is there was theirs to make.
        if tape.state() >= State::Started && self.memory.request.is_none() && !self.memory.asked && self.round == 0 {
            self.memory.adopt = true;
        }
        if !self.has_stop() {
            self.next = self.resume(tape, ground);
        }
        self.seen = Some(SeenRow::of(tape));
    }

    /// When a tape without a Stop may be worked on. While a lease is open, as soon as that ends: somebody has to close it.
    fn resume(&self, tape: &Tape, ground: &Ground<'_>) -> Next {
        match stages::after(tape.state()) {
            None => Next::Never,
            Some(_) if self.wanted.is_some() || self.owner.is_some() => Next::Now,
            Some(stage) => stage.next(tape, ground.settings, ground.now),
        }
    }

    /// A Stop is committed and nobody has decided yet.
    pub fn has_stop(&self) -> bool {
        self.outcome == Some(Outcome::Failed)
    }

    /// The lease is alive.
    pub fn is_leased(&self, now: DateTime<Utc>) -> bool {
        self.owner.is_some() && self.lease_until.is_some_and(|until| until > now)
    }

    /// Nothing may change the tape now.
    pub fn is_settling(&self, now: DateTime<Utc>) -> bool {
        self.settle_until.is_some_and(|until| until > now)
    }

    /// Nobody has written the row since our last write: there is nothing to be followed.
    pub fn knows(&self, tape: &Tape) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.xmin == tape.xmin)
    }

    /// Compares the row with what our last write left, and follows an edit made elsewhere.
    pub fn notice(&mut self, tape: &Tape, ground: &Ground<'_>) -> Option<Note> {
        if self.knows(tape) {
            return None;
        }
        let fresh = SeenRow::of(tape);
        let Some(seen) = self.seen.clone() else {
            self.begin_journey();
            self.derive(tape, ground);
            return Some(self.note("row-found", json!({"state": tape.state(), "mode": tape.mode})));
        };
        let mut changed = Vec::new();
        if seen.mode != fresh.mode {
            changed.push(format!("mode {} to {}", seen.mode, fresh.mode));
        }
        for state in State::ALL {
            let (before, after) = (seen.stamps[state as usize], fresh.stamps[state as usize]);
            if before != after {
                let shown = |stamp: Option<DateTime<Utc>>| stamp.map_or("null".to_owned(), |at| at.to_rfc3339());
                changed.push(format!("{state} {} to {}", shown(before), shown(after)));
            }
        }
        if self.stage.is_none() && stages::after(tape.state()).is_some() {
            changed.push("it is in the table again".to_owned());
        }
        if changed.is_empty() {
            self.seen = Some(fresh);
            return None;
        }
        // A row that was inserted anew begins a journey; a corrected stamp of one under way does not: what was recorded of it
        // (the marks at quarantine, the state to give back) still guards the tape.
        if seen.stamps[0] != fresh.stamps[0] && tape.state() == State::Entered {
            let stopped = (self.outcome, self.reason.clone(), self.memory.stopped_at, self.next);
            self.begin_journey();
            if stopped.0 == Some(Outcome::Failed) && fresh.mode != Mode::Auto {
                // A reason is lost only by a decision; a corrected stamp is none.
                (self.outcome, self.reason, self.memory.stopped_at, self.next) = stopped;
            }
        } else if seen.mode != Mode::Auto && fresh.mode == Mode::Auto {
            self.clear_outcome();
        }
        self.derive(tape, ground);
        Some(self.note("edited-elsewhere", json!({ "changed": changed })))
    }

    fn note(&self, kind: &'static str, detail: Value) -> Note {
        Note { kind, stage: self.stage.clone(), detail }
    }

    /// Claims the tape for one delivery. `other_slots` is how many other rows hold a slot, counted under the gate row's
    /// lock; none if the gate was not locked.
    pub fn claim(
        &mut self,
        stage: &str,
        generation: i64,
        owner: &str,
        tape: &Tape,
        other_slots: Option<u32>,
        ground: &Ground<'_>,
    ) -> (Verdict, Vec<Note>) {
        let mut notes: Vec<Note> = self.notice(tape, ground).into_iter().collect();
        let verdict = self.judge_claim(stage, generation, owner, tape, other_slots, ground, &mut notes);
        (verdict, notes)
    }

    #[expect(clippy::too_many_arguments, reason = "the inner half of `claim`, split only for its early returns")]
    fn judge_claim(
        &mut self,
        stage: &str,
        generation: i64,
        owner: &str,
        tape: &Tape,
        other_slots: Option<u32>,
        ground: &Ground<'_>,
        notes: &mut Vec<Note>,
    ) -> Verdict {
        if self.generation != generation || self.stage.as_deref() != Some(stage) {
            let at = self.stage.as_deref().unwrap_or("no stage");
            return Verdict::Stale(format!("the row is at {at}, generation {}", self.generation));
        }
        let Some(stage) = stages::named(stage) else {
            return Verdict::Stale(format!("stage {stage} is not one that this version knows"));
        };
        if stage.from != tape.state() {
            // Not by any law of ours: somebody edited the task row. The main row is the truth.
            self.derive(tape, ground);
            notes.push(self.note("mended", json!({"stage": stage.name, "state": tape.state()})));
            return Verdict::Stale(format!("the row is {}, which is nothing for {}", tape.state(), stage.name));
        }
        if self.is_leased(ground.now) {
            let owner = self.owner.as_deref().unwrap_or("somebody");
            return Verdict::Busy(format!("{owner} is working on it"));
        }
        if self.owner.is_some() {
            notes.push(self.abandon("its lease ran out", ground));
        }
        if let (true, Some(reason)) = (self.has_stop(), &self.reason) {
            return Verdict::Stopped(reason.clone());
        }
        if let Some(obstacle) = self.obstacle(stage, tape.mode, ground) {
            self.dispatched_at = None;
            return Verdict::Stale(obstacle);
        }
        if self.needs_slot(stage) {
            match other_slots {
                None => return Verdict::NeedsGate,
                Some(taken) if taken >= ground.settings.max_active_repacks => {
                    self.dispatched_at = None;
                    return Verdict::Stale(format!(
                        "every one of {} slots is taken",
                        ground.settings.max_active_repacks
                    ));
                }
                Some(_) => self.slot_since = Some(ground.now),
            }
        }
        self.epoch = ground.fresh_epoch;
        self.owner = Some(owner.to_owned());
        self.lease_until = Some(later(ground.now, ground.settings.lease));
        Verdict::Claimed(Claim {
            epoch: self.epoch,
            generation: self.generation,
            stage,
            wanted: self.wanted,
            stamps: tape.stamps,
        })
    }

    /// This delivery would have to take a slot.
    pub fn needs_slot(&self, stage: &Stage) -> bool {
        let takes = match self.wanted {
            Some(wanted) => wanted == Wanted::Retry,
            None => stage.takes_slot,
        };
        takes && self.slot_since.is_none()
    }

    /// Why nobody may work on the tape now, mode, hold, pause and time considered.
    fn obstacle(&self, stage: &Stage, mode: Mode, ground: &Ground<'_>) -> Option<String> {
        if mode != Mode::Auto {
            return Some(format!("its mode is {mode}"));
        }
        if let Some(hold) = &ground.control.hold {
            return Some(format!("{} put it on hold: {}", hold.who, hold.why));
        }
        if ground.control.paused.iter().any(|paused| paused == stage.name) {
            return Some(format!("stage {} is paused", stage.name));
        }
        match self.next {
            Next::Now => None,
            Next::At(at) => (at > ground.now).then(|| format!("it waits until {}", at.to_rfc3339())),
            Next::Never => Some("it waits for a decision".to_owned()),
        }
    }

    /// Closes a lease whose holder is gone, or is about to be fenced: whoever it was can write nothing any more, and a
    /// command that it may have started gets its time to settle.
    pub fn abandon(&mut self, how: &str, ground: &Ground<'_>) -> Note {
        let owner = self.owner.take().unwrap_or_else(|| "nobody".to_owned());
        let intent = self.intent.take();
        self.epoch = ground.fresh_epoch;
        self.lease_until = None;
        self.dispatched_at = None;
        self.crashes = self.crashes.saturating_add(1);
        if intent.is_some() {
            self.settle_from(ground);
        }
        let note = self.note(
            "abandoned",
            json!({"owner": owner, "how": how, "crashes": self.crashes, "intent": intent, "settle_until": self.settle_until}),
        );
        if !self.has_stop() && i64::from(self.crashes) >= i64::from(ground.settings.retry.max_attempts) {
            let text = format!(
                "the program working on it ended {} times without an outcome; the last was {owner}: {how}{}",
                self.crashes,
                self.unreadable()
            );
            self.stop(&Why::new(Code::Crashed, text), ground.now);
        }
        note
    }

    /// What a Stop that no stage decided adds where our own change keeps users from the tape; else nothing.
    fn unreadable(&self) -> String {
        let repacking = matches!(self.stage.as_deref(), Some("start" | "end"));
        let ours = self.memory.issued.contains_key("set-repacking");
        if repacking && ours { stages::unreadable(&self.vid) } else { String::new() }
    }

    fn settle_from(&mut self, ground: &Ground<'_>) {
        let until = later(ground.now, ground.settings.settle);
        self.settle_until = Some(self.settle_until.map_or(until, |before| before.max(until)));
    }

    fn stop(&mut self, why: &Why, now: DateTime<Utc>) {
        self.outcome = Some(Outcome::Failed);
        self.reason = Some(why.into());
        self.next = Next::Never;
        self.memory.stopped_at = Some(now);
        // What an operator accepted was what was seen then.
        self.memory.accept_empty = false;
    }

    /// Whether the holder of `claim` may let a changing command run at this moment: the last check. `tape` is the main
    /// row under its lock, none if it is gone.
    ///
    /// # Errors
    /// Why not.
    pub fn may_act(&self, claim: &Claim, tape: Option<&Tape>, ground: &Ground<'_>) -> Result<(), String> {
        if self.epoch != claim.epoch {
            return Err("somebody else has taken the tape over".to_owned());
        }
        if !self.is_leased(ground.now) {
            return Err("the lease ran out".to_owned());
        }
        let Some(tape) = tape else {
            return Err("the row is gone".to_owned());
        };
        if self.generation != claim.generation || self.wanted != claim.wanted || tape.stamps != claim.stamps {
            return Err("the row was changed meanwhile".to_owned());
        }
        if let Some(intent) = &self.intent {
            return Err(format!("an earlier command is unanswered: {}", intent.command));
        }
        if self.is_settling(ground.now) {
            return Err("an earlier command may still take effect".to_owned());
        }
        match self.obstacle(claim.stage, tape.mode, ground) {
            Some(obstacle) => Err(obstacle),
            None => Ok(()),
        }
    }

    /// Writes the intent of a command that passed [`Task::may_act`], renews the lease, and remembers what later looks
    /// need to tell our doing from others'.
    pub fn intend(
        &mut self,
        command: &Command,
        proof: &Value,
        source_state: Option<&str>,
        ground: &Ground<'_>,
    ) -> Note {
        let text = command.to_string();
        let kind = command.kind().to_owned();
        let before = Before {
            asked: self.memory.asked,
            request: self.memory.request.clone(),
            round: self.round,
            effective: self.memory.issued.contains_key(&kind) && !self.memory.in_vain.contains(&kind),
        };
        self.intent = Some(Intent { kind: kind.clone(), command: text.clone(), at: ground.now, before });
        self.lease_until = Some(later(ground.now, ground.settings.lease));
        self.memory.in_vain.remove(&kind);
        self.memory.issued.insert(kind, ground.now);
        if self.memory.source_state.is_none() {
            self.memory.source_state = source_state.map(str::to_owned);
        }
        match command {
            Command::RepackAdd { .. } => {
                self.round = self.round_to_be();
                self.memory.asked = true;
                self.memory.adopt = false;
                self.memory.request = None;
            }
            Command::RepackRm { .. } => {
                // Should the removal have no effect, the request must still be known for ours.
                let removed = proof.pointer("/request/creationLog").cloned();
                if let Some(log) = removed.and_then(|log| serde_json::from_value(log).ok()) {
                    self.memory.request = Some(log);
                }
                self.memory.asked = false;
                self.memory.adopt = false;
            }
            Command::SetState { .. } | Command::SetPool { .. } | Command::Reclaim { .. } => {}
        }
        self.note("intent", json!({"command": text, "round": self.round, "proof": proof}))
    }

    /// The round that a `repack add` now would belong to: the same one until its request has been seen.
    pub fn round_to_be(&self) -> i32 {
        if self.memory.asked && self.memory.request.is_none() {
            self.round.max(1)
        } else {
            self.round.saturating_add(1)
        }
    }

    /// Closes the intent with its answer. A command without effect leaves the memory as if it had never been allowed, so
    /// that what others do afterwards is not taken for ours.
    pub fn answered(&mut self, effect: Effect, detail: Value, ground: &Ground<'_>) -> Note {
        let intent = self.intent.take();
        match (effect, intent) {
            (Effect::Unclear, _) => self.settle_from(ground),
            (Effect::None, Some(intent)) => self.undo(intent),
            (Effect::None, None) | (Effect::Likely, _) => {}
        }
        self.lease_until = Some(later(ground.now, ground.settings.lease));
        self.note("answer", detail)
    }

    fn undo(&mut self, intent: Intent) {
        match intent.kind.as_str() {
            "repack-add" => {
                self.memory.asked = intent.before.asked;
                self.memory.request = intent.before.request;
                self.round = intent.before.round;
            }
            "repack-rm" => self.memory.asked = intent.before.asked,
            _ => {}
        }
        if !intent.before.effective {
            self.memory.in_vain.insert(intent.kind);
        }
    }

    /// Ends a delivery. `tape` is the main row under its lock, none if it is gone.
    pub fn record(
        &mut self,
        claim: &Claim,
        tape: Option<&Tape>,
        ending: Ending,
        learned: Learned,
        look: SlotLook,
        ground: &Ground<'_>,
    ) -> (Recorded, Vec<Note>) {
        if self.epoch != claim.epoch {
            let note = self
                .note("fenced", json!({"epoch": claim.epoch, "now": self.epoch, "would_have": format!("{ending:?}")}));
            return (Recorded { row: RowChange::Keep, counted: Counted::Fenced }, vec![note]);
        }
        if self.owner.is_none() {
            // The same record once more, after a commit whose answer was lost: it counts once.
            let stop = self.reason.as_ref().filter(|_| self.has_stop()).and_then(Kept::why);
            let counted = stop.map_or_else(|| Counted::Closed("it was recorded already".to_owned()), Counted::Stopped);
            return (Recorded { row: RowChange::Keep, counted }, Vec::new());
        }
        self.owner = None;
        self.lease_until = None;
        self.dispatched_at = None;
        let mut notes = Vec::new();
        if let Some(intent) = self.intent.take() {
            // Its answer never came to the record: it may have happened, or may still.
            self.settle_from(ground);
            notes.push(self.note(
                "answer",
                json!({"command": intent.command, "answer": "unclear", "text": "no answer was recorded"}),
            ));
        }
        let tape = match tape {
            Some(tape) if tape.stamps == claim.stamps => tape,
            other => {
                let why = if other.is_some() { "the row was changed meanwhile" } else { "the row is gone" };
                notes.push(self.note("superseded", json!({"why": why, "would_have": format!("{ending:?}")})));
                let counted = Counted::Closed(why.to_owned());
                return (Recorded { row: RowChange::Keep, counted }, notes);
            }
        };
        if self.generation != claim.generation {
            let recorded = self.record_overtaken(claim, tape, &ending, learned, ground, &mut notes);
            return (recorded, notes);
        }
        let mut learned = learned;
        if claim.wanted == Some(Wanted::Retry) && self.is_settling(ground.now) {
            // The wish is not done yet: only while the new request is not known does it know that it was made.
            learned.request = None;
        }
        let ending = self.convert(ending, ground);
        self.learn(learned, ground.now, &mut notes);
        let recorded = self.write(claim, tape, ending, look, ground, &mut notes);
        (recorded, notes)
    }

    /// Somebody gave the row another generation while we worked, without touching its stamps: a proven stamp is still
    /// true; everything else is the editor's word now.
    fn record_overtaken(
        &mut self,
        claim: &Claim,
        tape: &Tape,
        ending: &Ending,
        learned: Learned,
        ground: &Ground<'_>,
        notes: &mut Vec<Note>,
    ) -> Recorded {
        let proven = *ending == Ending::Done && claim.wanted.is_none() && !self.is_settling(ground.now);
        let event = Event::Advance { from: claim.stage.from, to: claim.stage.to };
        if proven && journey::change(tape.state(), tape.mode, event).is_ok() {
            notes.push(self.note("done", json!({"from": claim.stage.from, "to": claim.stage.to, "mode": tape.mode})));
            // What was seen on the way is as true as the stamp, and later gates compare with it.
            self.learn(learned, ground.now, notes);
            let next_stage = stages::after(claim.stage.to);
            self.stage = next_stage.map(|stage| stage.name.to_owned());
            self.generation = ground.fresh_generation;
            if next_stage.is_none() {
                self.next = Next::Never;
            }
            return Recorded { row: RowChange::Stamp(claim.stage.to), counted: Counted::Done };
        }
        notes.push(self.note("superseded", json!({"would_have": format!("{ending:?}")})));
        Recorded { row: RowChange::Keep, counted: Counted::Closed("the row was changed meanwhile".to_owned()) }
    }

    /// Endings that the counters turn into others.
    fn convert(&mut self, ending: Ending, ground: &Ground<'_>) -> Ending {
        match ending {
            Ending::Done | Ending::NextRound(_) if self.is_settling(ground.now) => {
                let text =
                    "an earlier command ended unclear; nothing is stamped or changed until it has surely settled";
                Ending::NotYet(Wait { why: Why::new(Code::Settling, text), until: self.settle_until, stalled: false })
            }
            Ending::Grace(why) => {
                let since = *self.memory.refused_since.get_or_insert(ground.now);
                if ground.now - since >= REFUSAL_GRACE {
                    Ending::Stop(Why::new(why.code, why.text + &self.unreadable()))
                } else {
                    Ending::NotYet(Wait { why, until: None, stalled: false })
                }
            }
            Ending::Trouble(why) => {
                self.attempts = self.attempts.saturating_add(1);
                if i64::from(self.attempts) >= i64::from(ground.settings.retry.max_attempts) {
                    let max = ground.settings.retry.max_attempts;
                    let text = format!("{} (attempt {} of {max}){}", why.text, self.attempts, self.unreadable());
                    Ending::Stop(Why::new(why.code, text))
                } else {
                    Ending::Trouble(why)
                }
            }
            other => other,
        }
    }

    fn learn(&mut self, learned: Learned, now: DateTime<Utc>, notes: &mut Vec<Note>) {
        if let Some(request) = learned.request {
            self.memory.request = Some(request);
            self.memory.adopt = false;
        }
        if let Some(marks) = learned.marks {
            self.memory.marks = Some(marks);
        }
        if self.memory.source_state.is_none() {
            self.memory.source_state = learned.source_state;
        }
        if let Some(progress) = learned.progress {
            self.advance(progress, now);
        }
        for (kind, detail) in learned.notes {
            notes.push(self.note(kind, detail));
        }
    }

    /// Keeps how far the repack is, and since when it is that far.
    pub fn advance(&mut self, progress: Progress, now: DateTime<Utc>) {
        if self.progress.as_ref() != Some(&progress) {
            self.progress = Some(progress);
            self.progress_at = Some(now);
        }
    }

    fn write(
        &mut self,
        claim: &Claim,
        tape: &Tape,
        ending: Ending,
        look: SlotLook,
        ground: &Ground<'_>,
        notes: &mut Vec<Note>,
    ) -> Recorded {
        let mut row = RowChange::Keep;
        let counted = match ending {
            Ending::Done => match self.complete(claim, tape, look, ground, notes) {
                Ok(change) => {
                    row = change;
                    Counted::Done
                }
                Err(refused) => Counted::Closed(refused.to_string()),
            },
            Ending::NotYet(wait) => {
                self.wait(&wait, ground, notes);
                Counted::NotYet(wait.why)
            }
            // Converted before, to a wait or a Stop.
            Ending::Grace(why) => {
                let wait = Wait { why, until: None, stalled: false };
                self.wait(&wait, ground, notes);
                Counted::NotYet(wait.why)
            }
            Ending::NextRound(why) => {
                notes.push(self.note("next-round", json!({"why": why.text})));
                self.want(Wanted::Retry, ground);
                self.keep_reason(Outcome::Waiting, &why);
                Counted::NotYet(why)
            }
            Ending::Trouble(why) => {
                self.memory.refused_since = None;
                let delay = tape_delay(&ground.settings.retry, self.attempts.unsigned_abs(), ground.jitter);
                let after = later(ground.now, delay);
                self.next = Next::At(self.settle_until.map_or(after, |settled| settled.max(after)));
                notes.push(
                    self.note("retrying", json!({"code": why.code.name(), "why": why.text, "attempt": self.attempts})),
                );
                self.keep_reason(Outcome::Retrying, &why);
                Counted::Retrying(why)
            }
            Ending::Site(why) => {
                self.memory.refused_since = None;
                self.keep_reason(Outcome::Waiting, &why);
                Counted::Site(why)
            }
            Ending::Denied(why) => {
                notes.push(self.note("denied", json!({ "why": why })));
                self.release_slot(look, tape.mode, ground);
                Counted::Closed(why)
            }
            Ending::Stop(why) => {
                self.stop(&why, ground.now);
                self.release_slot(look, tape.mode, ground);
                notes.push(self.note("stopped", json!({"code": why.code.name(), "why": why.text})));
                Counted::Stopped(why)
            }
        };
        Recorded { row, counted }
    }

    fn keep_reason(&mut self, outcome: Outcome, why: &Why) {
        self.outcome = Some(outcome);
        self.reason = Some(why.into());
    }

    fn wait(&mut self, wait: &Wait, ground: &Ground<'_>, notes: &mut Vec<Note>) {
        // A wait for an abandoned command to settle is no outcome of the work: counted as one, a program that dies at the same
        // command every time would never come to the Stop.
        if wait.why.code != Code::Settling {
            self.attempts = 0;
            self.crashes = 0;
        }
        self.memory.waits = self.memory.waits.saturating_add(1);
        if wait.why.code != Code::Refused && wait.why.code != Code::TapeUnknown {
            self.memory.refused_since = None;
        }
        let outcome = if wait.stalled { Outcome::Stalled } else { Outcome::Waiting };
        let told =
            self.outcome == Some(outcome) && self.reason.as_ref().is_some_and(|kept| kept.code == wait.why.code.name());
        if !told {
            notes.push(self.note(
                outcome.name(),
                json!({"code": wait.why.code.name(), "why": wait.why.text, "until": wait.until}),
            ));
        }
        self.keep_reason(outcome, &wait.why);
        let backoff = || later(ground.now, tape_delay(&ground.settings.retry, self.memory.waits, ground.jitter));
        self.next = Next::At(wait.until.unwrap_or_else(backoff));
    }

    fn complete(
        &mut self,
        claim: &Claim,
        tape: &Tape,
        look: SlotLook,
        ground: &Ground<'_>,
        notes: &mut Vec<Note>,
    ) -> Result<RowChange, journey::Refused> {
        if let Some(wanted) = claim.wanted {
            return Ok(self.fulfil(wanted, claim, look, tape, ground, notes));
        }
        let event = Event::Advance { from: claim.stage.from, to: claim.stage.to };
        journey::change(tape.state(), tape.mode, event)?;
        let stamps = tape.stamps.stamped(claim.stage.to, ground.now)?;
        notes.push(self.note("done", json!({"from": claim.stage.from, "to": claim.stage.to})));
        self.memory.accept_empty = false;
        if claim.stage.frees_slot {
            self.release_slot(look, tape.mode, ground);
        }
        let after = Tape { stamps, ..tape.clone() };
        let next_stage = stages::after(claim.stage.to);
        self.stage = next_stage.map(|stage| stage.name.to_owned());
        self.next = next_stage.map_or(Next::Never, |stage| stage.next(&after, ground.settings, ground.now));
        self.fresh_start(ground);
        Ok(RowChange::Stamp(claim.stage.to))
    }

    fn fresh_start(&mut self, ground: &Ground<'_>) {
        self.generation = ground.fresh_generation;
        self.attempts = 0;
        self.crashes = 0;
        self.memory.waits = 0;
        self.clear_outcome();
    }

    fn fulfil(
        &mut self,
        wanted: Wanted,
        claim: &Claim,
        look: SlotLook,
        tape: &Tape,
        ground: &Ground<'_>,
        notes: &mut Vec<Note>,
    ) -> RowChange {
        notes.push(self.note("fulfilled", json!({"wanted": wanted.name(), "round": self.round})));
        self.wanted = None;
        self.fresh_start(ground);
        match wanted {
            Wanted::Retry | Wanted::Unstick => {
                self.progress = None;
                self.progress_at = None;
                self.next = claim.stage.next(tape, ground.settings, ground.now);
                RowChange::Keep
            }
            Wanted::GiveBack => {
                self.release_slot(look, tape.mode, ground);
                self.stage = None;
                self.next = Next::Never;
                RowChange::GiveBack
            }
        }
    }

    fn release_slot(&mut self, look: SlotLook, mode: Mode, ground: &Ground<'_>) {
        let open = self.intent.is_some() || self.is_settling(ground.now) || self.owner.is_some();
        if !open && look.allows_release(mode) {
            self.slot_since = None;
        }
    }

    /// Sets what an operator asked for. The caller sets mode auto in the same transaction.
    pub fn want(&mut self, wanted: Wanted, ground: &Ground<'_>) {
        self.wanted = Some(wanted);
        self.dispatched_at = None;
        self.next = Next::Now;
        self.fresh_start(ground);
    }

    /// Gives a stopped or manual tape to the automation again; it resumes where it stands, a wish included.
    pub fn requeue(&mut self, tape: &Tape, ground: &Ground<'_>) {
        self.memory.listing = None;
        self.dispatched_at = None;
        self.fresh_start(ground);
        self.next = self.resume(tape, ground);
    }

    /// Cuts a wait short: the tape is looked at now, or as soon as its stage may be tried by today's settings, and never before
    /// a command has settled. What counts failures and says why it waited stays. False: there is no wait to cut short.
    pub fn wake(&mut self, tape: &Tape, ground: &Ground<'_>) -> bool {
        let Next::At(before) = self.next else { return false };
        if before <= ground.now || self.has_stop() || self.owner.is_some() {
            return false;
        }
        let may = match self.resume(tape, ground) {
            Next::Now => ground.now,
            Next::At(at) => at,
            Next::Never => return false,
        };
        let at = self.settle_until.map_or(may, |settled| settled.max(may));
        // Stamps are rounded to seconds, and what was reckoned with them is not.
        if before - at < TimeDelta::seconds(1) {
            return false;
        }
        self.next = if at > ground.now { Next::At(at) } else { Next::Now };
        self.generation = ground.fresh_generation;
        self.dispatched_at = None;
        true
    }

    /// Something was seen that a worker should look at now; unless it is stopped, settling, or backing off.
    pub fn nudge(&mut self, now: DateTime<Utc>) {
        let backing_off = self.outcome == Some(Outcome::Retrying);
        if !self.has_stop() && !self.is_settling(now) && !backing_off && self.stage.is_some() {
            self.next = Next::Now;
        }
    }

    /// A change of mode by our own hand that is no requeue.
    pub fn taken_over(&mut self, ground: &Ground<'_>) {
        self.generation = ground.fresh_generation;
        self.dispatched_at = None;
    }

    /// Its row is removed. Lease, intent, settle time and slot stay: they belong to the VID.
    pub fn removed(&mut self, ground: &Ground<'_>) {
        self.wanted = None;
        self.dispatched_at = None;
        self.fresh_start(ground);
        self.stage = None;
        self.next = Next::Never;
    }

    /// Whether a dead letter for this stage and generation has a Stop behind it.
    pub fn stopped_at(&self, stage: &str, generation: i64) -> bool {
        self.has_stop()
            && self.next == Next::Never
            && self.stage.as_deref() == Some(stage)
            && self.generation == generation
    }
}

/// Adds a `std` duration to a time, saturating at the end of time.
pub fn later(at: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by).ok().and_then(|delta| at.checked_add_signed(delta)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests;

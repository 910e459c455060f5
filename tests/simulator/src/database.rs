//! The database as a model: rows in memory, a transaction is one step. Semantics as in the statements of the product.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use common::journey::{Mode, Stamps, State};
use common::settings::Settings;
use common::stages;
use common::store::{Due, Edit, Edited, HoldChange, Holding, Locked, NewTape, Overview, StoreError};
use common::tape::{Tape, Vid};
use common::task::{Control, Ground, Hold, Next, Outcome, RowChange, Task, Wanted, later};
use producer::edge::Table;
use worker::edge::Rows;

use crate::check;
use crate::mutation::Mutation;
use crate::world::{Sim, World, pause};

/// The tables.
#[derive(Debug, Default)]
pub struct Tables {
    /// The main table.
    pub rows: BTreeMap<Vid, Tape>,
    /// The task table.
    pub tasks: BTreeMap<Vid, Task>,
    /// Holds.
    pub holds: BTreeMap<Vid, Hold>,
    /// Paused stages.
    pub paused: Vec<String>,
    /// The database does not answer.
    pub down: bool,
    /// Who ticks: the holder of the advisory locks.
    pub ticks: Option<usize>,
    last_generation: i64,
    last_epoch: i64,
    last_xmin: i64,
}

impl Tables {
    /// A number nobody has used.
    pub fn fresh_xmin(&mut self) -> i64 {
        self.last_xmin += 1;
        self.last_xmin
    }

    /// Rows that hold a slot, but for this one.
    pub fn other_slots(&self, vid: &Vid) -> u32 {
        let held = self.tasks.values().filter(|task| task.slot_since.is_some() && task.vid != *vid).count();
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    /// What operators said that concerns a tape.
    pub fn control(&self, vid: &Vid, now: DateTime<Utc>) -> Control {
        let hold = self.holds.get(vid).filter(|hold| hold.until.is_none_or(|until| until > now)).cloned();
        Control { hold, paused: self.paused.clone() }
    }

    fn is_held(&self, vid: &Vid, now: DateTime<Utc>) -> bool {
        self.holds.get(vid).is_some_and(|hold| hold.until.is_none_or(|until| until > now))
    }

    /// `LOCALTIMESTAMP(0)`.
    fn stamp(now: DateTime<Utc>) -> DateTime<Utc> {
        let seconds = (now.timestamp_millis() + 500).div_euclid(1000);
        DateTime::from_timestamp(seconds, 0).unwrap_or(now)
    }

    /// A row as `enter` inserts it.
    pub fn new_row(&mut self, vid: &Vid, new: &NewTape, now: DateTime<Utc>) -> Tape {
        Tape {
            vid: vid.clone(),
            stamps: Stamps::entered(Tables::stamp(now)),
            mode: Mode::Auto,
            priority: new.priority,
            mediatype: new.mediatype.clone(),
            tapepool: new.tapepool.clone(),
            responsible: new.responsible.clone(),
            files: new.files,
            bytes: new.bytes,
            usage: new.usage,
            last_write_date: None,
            xmin: self.fresh_xmin(),
        }
    }

    /// The statements that follow the law, as [`common::store::Store`] issues them.
    fn write(&mut self, locked: &mut Locked<'_>, now: DateTime<Utc>) {
        let vid = locked.vid;
        if let Some(new) = locked.enter.take() {
            let row = self.new_row(vid, &new, now);
            self.rows.insert(vid.clone(), row.clone());
            locked.entered(row, &new);
        } else if let Some(before) = self.rows.get(vid).cloned() {
            self.change_row(locked, &before, now);
        }
        match &locked.hold {
            None => {}
            Some(HoldChange::Put { why, until }) => {
                let hold = Hold { who: locked.actor.clone(), why: why.clone(), until: *until };
                self.holds.insert(vid.clone(), hold);
            }
            Some(HoldChange::Release) => {
                self.holds.remove(vid);
            }
        }
        if let Some(task) = &locked.task {
            self.tasks.insert(vid.clone(), task.clone());
        }
    }

    fn change_row(&mut self, locked: &mut Locked<'_>, before: &Tape, now: DateTime<Utc>) {
        let mut after = before.clone();
        match locked.change {
            RowChange::GiveBack | RowChange::Remove => {
                self.rows.remove(&before.vid);
                if let Some(task) = &mut locked.task {
                    task.seen = None;
                }
                return;
            }
            RowChange::Stamp(to) => {
                // Only where it is not set and the one before it is.
                if let Ok(stamps) = after.stamps.stamped(to, Tables::stamp(now)) {
                    after.stamps = stamps;
                }
            }
            RowChange::Keep => {}
        }
        after.mode = locked.mode.unwrap_or(after.mode);
        after.priority = locked.priority.unwrap_or(after.priority);
        if let Some(responsible) = &locked.responsible {
            after.responsible.clone_from(responsible);
        }
        let written = locked.change != RowChange::Keep
            || locked.mode.is_some()
            || locked.priority.is_some()
            || locked.responsible.is_some();
        if written {
            after.xmin = self.fresh_xmin();
            locked.wrote(before, &after);
            self.rows.insert(after.vid.clone(), after);
        }
    }
}

/// Who uses the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A delivery of a worker.
    Delivery,
    /// A dead-letter handler.
    Letters,
    /// A tick, which may deliver inline.
    Tick,
    /// The manager.
    Manager,
}

/// What a process has in its hands, as the model knows it.
#[derive(Debug, Default)]
pub struct Hands {
    /// Epochs it was given, and when, by tape.
    pub claimed: BTreeMap<Vid, (i64, i64)>,
    /// The message it works on: tape, stage, generation.
    pub message: Option<(Vid, String, i64)>,
    /// When it was taken from its queue.
    pub taken_at: i64,
    /// Rows that held a slot when the tick began to look: epoch, and since when.
    pub held: BTreeMap<Vid, (i64, DateTime<Utc>)>,
    /// A row was locked by somebody else: nothing was written.
    pub busy: bool,
}

/// The database as one process sees it.
#[derive(Clone)]
pub struct Base {
    /// The world.
    pub sim: Sim,
    /// For the history.
    pub actor: Rc<str>,
    /// What it is used for.
    pub role: Role,
    /// The configuration of that process.
    pub settings: Arc<Settings>,
    /// What it has in its hands.
    pub hands: Rc<std::cell::RefCell<Hands>>,
    /// What the host's own clock is wrong by, in seconds.
    pub skew: i64,
    born: Instant,
}

enum Luck {
    Fine,
    Lost,
    Busy,
    /// Committed, but the answer is lost.
    Ambiguous,
}

impl Base {
    /// For a process.
    pub fn new(sim: &Sim, actor: &str, role: Role, settings: Arc<Settings>, skew: i64) -> Base {
        Base {
            sim: Rc::clone(sim),
            actor: actor.into(),
            role,
            settings,
            hands: Rc::default(),
            skew,
            born: Instant::now(),
        }
    }

    async fn travel(&self) {
        let ms = self.sim.borrow_mut().moment();
        pause(&self.sim, ms).await;
    }

    fn luck(&self) -> Luck {
        let mut world = self.sim.borrow_mut();
        let rate = world.profile.database;
        if world.tables.down {
            return Luck::Lost;
        }
        if !world.fault(rate) {
            return Luck::Fine;
        }
        match world.random.index(3) {
            0 => Luck::Lost,
            1 => Luck::Busy,
            _ => Luck::Ambiguous,
        }
    }

    fn lost() -> StoreError {
        StoreError::Database(anyhow::anyhow!("the connection is lost"))
    }

    /// A statement outside a tape's locks.
    async fn asked<R>(&self, ask: impl FnOnce(&mut World) -> R) -> Result<R, StoreError> {
        self.travel().await;
        match self.luck() {
            Luck::Lost | Luck::Busy => Err(Base::lost()),
            Luck::Fine => Ok(ask(&mut self.sim.borrow_mut())),
            Luck::Ambiguous => {
                ask(&mut self.sim.borrow_mut());
                Err(Base::lost())
            }
        }
    }

    /// A transaction under the locks of a tape.
    fn transaction<R>(&self, vid: &Vid, gate: bool, counted: u32, law: impl FnOnce(&mut Locked<'_>) -> R) -> R {
        let mut world = self.sim.borrow_mut();
        let now = world.time();
        let seen_now = if world.has(Mutation::HostClockDecides) && self.role == Role::Delivery {
            now + chrono::TimeDelta::seconds(self.skew)
        } else {
            now
        };
        world.tables.last_generation += 1;
        world.tables.last_epoch += 1;
        let (generation, epoch, jitter) =
            (world.tables.last_generation, world.tables.last_epoch, world.random.fraction());
        let (row, task) = (world.tables.rows.get(vid).cloned(), world.tables.tasks.get(vid).cloned());
        let control = world.tables.control(vid, now);
        let slots = if world.has(Mutation::SlotsCountedBefore) { counted } else { world.tables.other_slots(vid) };
        let mutation = world.mutation;
        drop(world);
        let ground = Ground {
            settings: &self.settings,
            control: &control,
            now: seen_now,
            fresh_generation: generation,
            fresh_epoch: epoch,
            jitter,
        };
        let rows = (row.clone().map(Ok), task.clone());
        let mut locked = Locked::found(vid, rows, control.clone(), gate.then_some(slots), &ground, &self.actor);
        let blinded = mutation.map(|mutation| crate::blind::blind(mutation, self, &mut locked));
        let result = law(&mut locked);
        if blinded.is_some() {
            crate::blind::restore(mutation, self, task.as_ref(), &mut locked);
        }
        let mut world = self.sim.borrow_mut();
        world.tables.write(&mut locked, now);
        let notes = std::mem::take(&mut locked.notes);
        check::committed(&mut world, self, vid, (row.as_ref(), task.as_ref()), &control, &notes);
        result
    }
}

impl Rows for Base {
    fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    fn actor(&self) -> &str {
        &self.actor
    }

    async fn locked<R>(&self, vid: &Vid, gate: bool, law: impl FnOnce(&mut Locked<'_>) -> R) -> Result<R, StoreError> {
        let counted = self.sim.borrow().tables.other_slots(vid);
        self.travel().await;
        let luck = self.luck();
        match luck {
            Luck::Lost => return Err(Base::lost()),
            Luck::Busy => {
                self.hands.borrow_mut().busy = true;
                self.sim.borrow_mut().say(|| format!("{vid}: the row is locked by somebody else"));
                return Err(StoreError::Busy("a lock of somebody else".to_owned()));
            }
            Luck::Fine | Luck::Ambiguous => {}
        }
        let result = self.transaction(vid, gate, counted, law);
        self.travel().await;
        if matches!(luck, Luck::Ambiguous) {
            self.sim.borrow_mut().say(|| format!("{vid}: committed, but the answer is lost"));
            return Err(Base::lost());
        }
        Ok(result)
    }

    async fn renew(&self, vid: &Vid, epoch: i64) -> Result<bool, StoreError> {
        let lease = self.settings.lease;
        self.asked(|world| {
            let now = world.time();
            match world.tables.tasks.get_mut(vid) {
                Some(task) if task.epoch == epoch && task.is_leased(now) => {
                    task.lease_until = Some(later(now, lease));
                    true
                }
                _ => false,
            }
        })
        .await
    }

    async fn sleep(&self, duration: Duration) {
        // But for the renewal of a lease these are delays with a jitter of their own: this simulation has its own dice.
        let ms = if duration == self.settings.lease / 4 {
            i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
        } else {
            self.sim.borrow_mut().random.of(100..12_000)
        };
        pause(&self.sim, ms).await;
    }

    fn clock(&self) -> Instant {
        self.born + Duration::from_millis(self.sim.borrow().now.unsigned_abs())
    }
}

/// Owed to a slot: a start, or a retry, of a row that holds none.
fn needs_slot(task: &Task) -> bool {
    let takes = match task.wanted {
        None => task.stage.as_deref() == Some("start"),
        Some(wanted) => wanted == Wanted::Retry,
    };
    takes && task.slot_since.is_none()
}

fn due_of(row: &Tape, task: &Task) -> Due {
    // A row has few seconds since 1970 for an f64.
    let entered = row.stamps.begun().signed_duration_since(DateTime::UNIX_EPOCH).as_seconds_f64();
    Due { vid: task.vid.clone(), generation: task.generation, priority: row.priority.into(), entered }
}

fn ago(now: DateTime<Utc>, secs: f64) -> DateTime<Utc> {
    now - chrono::TimeDelta::from_std(Duration::from_secs_f64(secs)).unwrap_or_default()
}

impl Table for Base {
    async fn edits(&self, _after: i64) -> Result<Edited, StoreError> {
        self.hands.borrow_mut().held.clear();
        self.asked(|world| {
            if world.has(Mutation::EditsNotFollowed) {
                return Edited::default();
            }
            let tables = &world.tables;
            let mut vids: Vec<Vid> = tables
                .rows
                .values()
                .filter(|row| row.state() != State::Finished)
                .filter(|row| {
                    let seen = tables.tasks.get(&row.vid).and_then(|task| task.seen.as_ref());
                    seen.is_none_or(|seen| seen.xmin != row.xmin)
                })
                .map(|row| row.vid.clone())
                .collect();
            let over = |vid: &Vid| tables.rows.get(vid).is_none_or(|row| row.state() == State::Finished);
            vids.extend(
                tables
                    .tasks
                    .values()
                    .filter(|task| task.stage.is_some() && over(&task.vid))
                    .map(|task| task.vid.clone()),
            );
            Edited { edits: vids.iter().map(Edit::seen).collect(), after: None }
        })
        .await
    }

    async fn followed(&self, _lines: &[i64]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn closable(&self) -> Result<Vec<Vid>, StoreError> {
        self.asked(|world| {
            let now = world.time();
            let tables = &world.tables;
            let nobody = |task: &Task| {
                let stage = |paused: &String| task.stage.as_ref() == Some(paused);
                tables.rows.get(&task.vid).is_none_or(|row| row.mode != Mode::Auto || row.state() == State::Finished)
                    || tables.is_held(&task.vid, now)
                    || tables.paused.iter().any(stage)
            };
            let expired = |task: &&Task| task.owner.is_some() && task.lease_until.is_some_and(|until| until <= now);
            if world.has(Mutation::LeasesNotClosed) {
                return Vec::new();
            }
            tables.tasks.values().filter(expired).filter(|task| nobody(task)).map(|task| task.vid.clone()).collect()
        })
        .await
    }

    async fn sweepable(&self, age_secs: f64) -> Result<Vec<Vid>, StoreError> {
        self.asked(|world| {
            let old = ago(world.time(), age_secs);
            let tables = &world.tables;
            if world.has(Mutation::NoSweep) {
                return Vec::new();
            }
            let stopped = |task: &&Task| {
                task.outcome == Some(Outcome::Failed)
                    && task.memory.stopped_at.is_some_and(|at| at <= old)
                    && tables
                        .rows
                        .get(&task.vid)
                        .is_some_and(|row| row.mode == Mode::Auto && row.state() != State::Finished)
            };
            tables.tasks.values().filter(stopped).map(|task| task.vid.clone()).collect()
        })
        .await
    }

    async fn holding(&self) -> Result<Vec<Holding>, StoreError> {
        let holding = self
            .asked(|world| {
                let now = world.time();
                let tables = &world.tables;
                let mut all = Vec::new();
                for task in tables.tasks.values() {
                    let Some(slot_since) = task.slot_since else { continue };
                    let row = tables.rows.get(&task.vid);
                    let repacking = matches!(task.stage.as_deref(), Some("start" | "end"));
                    all.push(Holding {
                        vid: task.vid.clone(),
                        stage: task.stage.clone(),
                        epoch: task.epoch,
                        slot_since,
                        mode: row.map(|row| row.mode),
                        open: task.owner.is_some() || task.intent.is_some() || task.is_settling(now),
                        idle: row.is_none_or(|row| row.mode != Mode::Auto || row.state() == State::Finished)
                        || tables.is_held(&task.vid, now)
                        // `NULL NOT IN` is null, which reads as true.
                        || !repacking
                        || task.outcome == Some(Outcome::Failed),
                        progress: task.progress.clone(),
                        progress_at: task.progress_at,
                        now,
                    });
                }
                all
            })
            .await?;
        self.hands.borrow_mut().held =
            holding.iter().map(|row: &Holding| (row.vid.clone(), (row.epoch, row.slot_since))).collect();
        Ok(holding)
    }

    async fn unfinished(&self, vids: &[Vid]) -> Result<Vec<Overview>, StoreError> {
        self.asked(|world| {
            let now = world.time();
            let tables = &world.tables;
            tables
                .rows
                .values()
                .filter(|row| vids.contains(&row.vid) && row.state() != State::Finished)
                .map(|row| Overview {
                    row: Ok(row.clone()),
                    task: tables.tasks.get(&row.vid).cloned(),
                    hold: tables.control(&row.vid, now).hold,
                    now,
                })
                .collect()
        })
        .await
    }

    async fn due(
        &self,
        stage: &str,
        again_secs: f64,
        needs: bool,
        after: Option<&Due>,
        limit: i64,
    ) -> Result<Vec<Due>, StoreError> {
        self.asked(|world| {
            let now = world.time();
            let old = ago(now, again_secs);
            let never_again = world.has(Mutation::NeverAgain);
            let tables = &world.tables;
            let rank = |due: &Due| (std::cmp::Reverse(due.priority), due.entered, due.vid.clone());
            let mut due: Vec<Due> = tables
                .tasks
                .values()
                .filter_map(|task| Some((tables.rows.get(&task.vid)?, task)))
                .filter(|(row, task)| {
                    let time = match task.next {
                        Next::Now => true,
                        Next::At(at) => at <= now,
                        Next::Never => false,
                    };
                    task.stage.as_deref() == Some(stage)
                        && row.mode == Mode::Auto
                        && row.state() != State::Finished
                        && time
                        && (task.owner.is_none() || task.lease_until.is_some_and(|until| until <= now))
                        && (task.owner.is_some() || task.dispatched_at.is_none_or(|at| at <= old && !never_again))
                        && !tables.is_held(&task.vid, now)
                        && !tables.paused.iter().any(|paused| paused == stage)
                        && needs_slot(task) == needs
                        && task.seen.as_ref().is_some_and(|seen| seen.xmin == row.xmin)
                })
                .map(|(row, task)| due_of(row, task))
                .filter(|due| after.is_none_or(|after| rank(due) > rank(after)))
                .collect();
            due.sort_by(|one, other| rank(one).partial_cmp(&rank(other)).unwrap_or(std::cmp::Ordering::Equal));
            due.truncate(usize::try_from(limit).unwrap_or(0));
            due
        })
        .await
    }

    async fn slots(&self, again_secs: f64) -> Result<(u32, u32), StoreError> {
        self.asked(|world| {
            let old = ago(world.time(), again_secs);
            let tasks = || world.tables.tasks.values();
            let taken = tasks().filter(|task| task.slot_since.is_some()).count();
            let asked =
                tasks().filter(|task| needs_slot(task) && task.dispatched_at.is_some_and(|at| at > old)).count();
            (u32::try_from(taken).unwrap_or(u32::MAX), u32::try_from(asked).unwrap_or(u32::MAX))
        })
        .await
    }

    async fn mark_dispatched(&self, due: Vec<Due>) -> Result<Vec<Due>, StoreError> {
        self.asked(|world| {
            let now = world.time();
            due.into_iter()
                .filter(|due| match world.tables.tasks.get_mut(&due.vid) {
                    Some(task) if task.generation == due.generation => {
                        task.dispatched_at = Some(now);
                        true
                    }
                    _ => false,
                })
                .collect()
        })
        .await
    }

    async fn clear_dispatched(&self, due: &[Due]) -> Result<(), StoreError> {
        self.asked(|world| {
            for due in due {
                if let Some(task) = world.tables.tasks.get_mut(&due.vid)
                    && task.generation == due.generation
                {
                    task.dispatched_at = None;
                }
            }
        })
        .await
    }
}

/// The stage that a row is at, if any.
pub fn stage_of(row: &Tape) -> Option<&'static stages::Stage> {
    stages::after(row.state())
}

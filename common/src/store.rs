//! Every SQL statement, as verbs.
//!
//! Rows are locked, read, given to the law in [`crate::task`], and written back: nothing here decides. Lock order
//! everywhere: gate, main row, task row. Nothing external happens while a transaction is open.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use deadpool_postgres::{Client, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, Timestamp, ToSql};

use crate::journey::Mode;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::stages;
use crate::tape::{OddRow, Tape, Vid};
use crate::task::{Control, Ground, Hold, Next, Note, Outcome, RowChange, SeenRow, Task, Wanted};

mod concerns;
mod edits;
pub mod examine;
mod import;
mod lists;
pub mod migrate;
mod overview;
mod picture;
mod pipeline;
mod records;
mod rows;
mod site;
mod statements;
mod together;

pub use concerns::{Concern, ConcernKind, Concerned, MAIL, NewMark};
pub use edits::{COMPARE_EVERY_MINUTES, Edit, Edited};
pub use import::{Column, Definition, Walked};
pub use lists::{
    Due, Entered, EventFilter, EventRow, Holding, Line, NewTape, Overview, Statistic, TickLocks, judge_entry,
};
pub use overview::{Glob, OverviewFilter};
use pipeline::{Transaction, in_order};
pub use records::{Ahead, DURATION_DAYS, Dispatched, JourneyRow, Period, Records, SavedRequest, StageTime, Standing};
use rows::{Clock, read_row, read_task};
pub use site::{SiteView, Ticked};
use statements::Statements;

/// Why a transaction did not happen.
#[derive(Debug)]
pub enum StoreError {
    /// Another transaction holds a row longer than `lock_timeout`, or the database chose us to break a deadlock: nothing
    /// was written, try again later.
    Busy(String),
    /// Anything else: away, refused, or a fault of ours. Whether a commit under way happened is unknown.
    Database(anyhow::Error),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::Busy(why) => write!(f, "the row is locked by another session: {why}"),
            StoreError::Database(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> StoreError {
        match error.code() {
            Some(code)
                if [
                    &SqlState::LOCK_NOT_AVAILABLE,
                    &SqlState::T_R_DEADLOCK_DETECTED,
                    &SqlState::T_R_SERIALIZATION_FAILURE,
                ]
                .contains(&code) =>
            {
                StoreError::Busy(error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned()))
            }
            _ => StoreError::Database(describe(error)),
        }
    }
}

impl From<anyhow::Error> for StoreError {
    fn from(error: anyhow::Error) -> StoreError {
        StoreError::Database(error)
    }
}

/// The server's own words: the driver's `Display` hides them.
pub(crate) fn describe(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(db) => anyhow::anyhow!("PostgreSQL says {} ({})", db.message(), db.code().code()),
        None => anyhow::Error::new(error),
    }
}

/// A connection that was handed out so long ago is asked whether it still lives before it is used: a firewall may have forgotten
/// it, the server may have failed over. In a busy program the next statement says so just as soon.
const RESTED: Duration = Duration::from_secs(1);

/// So many connections of a store that has more are left to who waits for no row: shared transactions, leases.
pub const SPARE: usize = 4;

/// How long it may take to say that it lives.
const ANSWER: Duration = Duration::from_secs(5);

/// The database, with the statements for the configured table.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    settings: Arc<Settings>,
    statements: Arc<Statements>,
    actor: Arc<str>,
    metrics: Arc<Metrics>,
    counted: Arc<Mutex<Option<picture::Counted>>>,
    together: Arc<together::Together>,
    /// How many may wait for rows at once.
    patient: Arc<Semaphore>,
}

/// One tape under its locks, and what shall become of it. Given to a law, which changes it; written back afterwards.
pub struct Locked<'a> {
    /// The tape.
    pub vid: &'a Vid,
    /// The main row; none if there is none.
    pub row: Option<Result<Tape, OddRow>>,
    /// The task row; none if there is none.
    pub task: Option<Task>,
    /// Holds and pauses.
    pub control: Control,
    /// Other rows that hold a slot; none if the gate was not locked.
    pub other_slots: Option<u32>,
    /// The configuration.
    pub settings: &'a Settings,
    clock: Clock,
    /// What to do to the main row.
    pub change: RowChange,
    /// The mode to set.
    pub mode: Option<Mode>,
    /// The priority to set.
    pub priority: Option<i16>,
    /// The responsible to set.
    pub responsible: Option<String>,
    /// What to do to the hold of this VID.
    pub hold: Option<HoldChange>,
    /// A row to be entered; a finished one goes to the history.
    pub enter: Option<NewTape>,
    /// For the history.
    pub notes: Vec<Note>,
    /// The `repack ls` object for the end statistics.
    pub statistics: Option<Value>,
    /// Who acts; the store's own actor unless changed.
    pub actor: String,
}

/// What to do to the hold of a VID, whether or not it has a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldChange {
    /// Put it, or replace the one there is; who puts it is who acts.
    Put {
        /// Why.
        why: String,
        /// Until when; none: until released.
        until: Option<DateTime<Utc>>,
    },
    /// Take it away.
    Release,
}

impl<'a> Locked<'a> {
    /// As a transaction finds the rows, for a model of the database.
    pub fn found(
        vid: &'a Vid,
        rows: (Option<Result<Tape, OddRow>>, Option<Task>),
        control: Control,
        other_slots: Option<u32>,
        ground: &Ground<'a>,
        actor: &str,
    ) -> Locked<'a> {
        let clock = Clock {
            now: ground.now,
            generation: ground.fresh_generation,
            epoch: ground.fresh_epoch,
            jitter: ground.jitter,
            tolerance: TimeDelta::zero(),
            other_slots,
        };
        Locked::with(vid, rows, control, ground.settings, clock, actor)
    }

    fn with(
        vid: &'a Vid,
        (row, task): (Option<Result<Tape, OddRow>>, Option<Task>),
        control: Control,
        settings: &'a Settings,
        clock: Clock,
        actor: &str,
    ) -> Locked<'a> {
        Locked {
            vid,
            row,
            task,
            control,
            other_slots: clock.other_slots,
            settings,
            clock,
            change: RowChange::Keep,
            mode: None,
            priority: None,
            responsible: None,
            hold: None,
            enter: None,
            notes: Vec::new(),
            statistics: None,
            actor: actor.to_owned(),
        }
    }

    /// Keeps in the task row what the main row looks like after our own write: unless somebody edited it meanwhile, for then
    /// the edit must still be noticed.
    pub fn wrote(&mut self, before: &Tape, after: &Tape) {
        let mode_set = self.mode.is_some();
        let Some(task) = &mut self.task else { return };
        let mut seen = SeenRow::of(after);
        if let Some(expected) = task.seen.as_ref().filter(|seen| seen.xmin != before.xmin) {
            // An edit that no law has followed yet: keep what it was compared with.
            seen.xmin = 0;
            if !mode_set {
                seen.mode = expected.mode;
            }
        }
        task.seen = Some(seen);
        if let RowChange::Stamp(to) = self.change
            && let Some(stage) = stages::after(to)
        {
            // The stamp is in whole seconds, and the next stage counts from it.
            task.next = stage.next(after, self.settings, self.clock.now);
        }
    }

    /// The task of a row that has just been entered.
    pub fn entered(&mut self, tape: Tape, new: &NewTape) {
        self.row = Some(Ok(tape.clone()));
        let (_, task, ground, notes) = self.parts();
        let mut entered = match task.take() {
            Some(mut task) => {
                task.seen = None;
                task.notice(&tape, &ground);
                task
            }
            None => Task::made(&tape, &ground),
        };
        entered.memory.source_state = Some(new.source_state.clone());
        entered.memory.logical_library = Some(new.logical_library.clone());
        notes.push(Note {
            kind: "entered",
            stage: entered.stage.clone(),
            detail: json!({"tapepool": new.tapepool, "library": new.logical_library, "state": new.source_state, "files": new.files, "bytes": new.bytes,
                           "priority": new.priority, "responsible": new.responsible}),
        });
        *task = Some(entered);
    }
}

impl Locked<'_> {
    /// The lawful main row, if there is one.
    pub fn tape(&self) -> Option<&Tape> {
        self.row.as_ref().and_then(|row| row.as_ref().ok())
    }

    /// The database's clock under the locks.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now
    }

    /// What the law is given, beside the rows; the rows are taken apart so that it may change the task.
    pub fn parts(&mut self) -> (Option<&Tape>, &mut Option<Task>, Ground<'_>, &mut Vec<Note>) {
        let ground = Ground {
            settings: self.settings,
            control: &self.control,
            now: self.clock.now,
            fresh_generation: self.clock.generation,
            fresh_epoch: self.clock.epoch,
            jitter: self.clock.jitter,
        };
        (self.row.as_ref().and_then(|row| row.as_ref().ok()), &mut self.task, ground, &mut self.notes)
    }

    /// What the transaction is about, for fail points: the stage, and `claim` or the kind of the note that says most.
    #[cfg(feature = "failpoints")]
    fn step(&self, before: Option<&Task>) -> (String, &'static str) {
        let stage = before.and_then(|task| task.stage.clone()).unwrap_or_default();
        let owner = |task: Option<&Task>| task.and_then(|task| task.owner.clone());
        let claimed =
            self.task.as_ref().is_some_and(|task| task.owner.is_some()) && owner(self.task.as_ref()) != owner(before);
        let endings = ["done", "fulfilled", "stopped", "error"];
        let note = self.notes.iter().find(|note| endings.contains(&note.kind)).or(self.notes.last());
        let kind = if claimed { "claim" } else { note.map_or("quiet", |note| note.kind) };
        (stage, kind)
    }

    /// Adds to the history.
    pub fn note(&mut self, kind: &'static str, detail: Value) {
        let stage = self.task.as_ref().and_then(|task| task.stage.clone());
        self.notes.push(Note { kind, stage, detail });
    }
}

impl Store {
    /// Connects lazily: the first statement does. `actor` is who the history names (`worker@host`, a login).
    ///
    /// # Errors
    /// When TLS files cannot be read.
    pub fn new(settings: Arc<Settings>, actor: &str) -> anyhow::Result<Store> {
        Store::sized(settings, actor, 8)
    }

    /// Like [`Store::new`] with at most `connections` connections.
    ///
    /// # Errors
    /// When TLS files cannot be read.
    pub fn sized(settings: Arc<Settings>, actor: &str, connections: usize) -> anyhow::Result<Store> {
        let config = connection(&settings, actor, None);
        let session = session(&settings);
        let manager = Manager::from_config(
            config,
            crate::tls::postgres(&settings.database)?,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_secs(30)))
            .create_timeout(Some(Duration::from_secs(15)))
            .recycle_timeout(Some(ANSWER))
            .pre_recycle(deadpool_postgres::Hook::async_fn(|client, metrics| {
                let rested = metrics.last_used() >= RESTED;
                Box::pin(async move {
                    if !rested {
                        return Ok(());
                    }
                    match tokio::time::timeout(ANSWER, client.simple_query("")).await {
                        Ok(Ok(_)) => Ok(()),
                        Ok(Err(error)) => Err(deadpool_postgres::HookError::Backend(error)),
                        Err(_) => Err(deadpool_postgres::HookError::message("no answer")),
                    }
                })
            }))
            .post_create(deadpool_postgres::Hook::async_fn(move |client, _| {
                let session = session.clone();
                Box::pin(async move {
                    client.batch_execute(&session).await.map_err(deadpool_postgres::HookError::Backend)?;
                    Ok(())
                })
            }))
            .build()
            .context("setting up the connection pool")?;
        let statements = Arc::new(Statements::new(&settings.database.table));
        Ok(Store {
            pool,
            settings,
            statements,
            actor: actor.into(),
            metrics: Arc::default(),
            counted: Arc::default(),
            together: Arc::default(),
            patient: Arc::new(Semaphore::new(if connections > SPARE { connections - SPARE } else { connections })),
        })
    }

    /// The configuration.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Who the history names.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// The same database, with somebody else acting.
    pub fn acting(&self, actor: &str) -> Store {
        Store { actor: actor.into(), ..self.clone() }
    }

    /// What is counted of this program's work.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    async fn client(&self) -> Result<Client, StoreError> {
        let client = self.connected().await;
        match &client {
            Ok(_) => self.metrics.set("database", Ok(())),
            Err(error) => self.metrics.set("database", Err(&error.to_string())),
        }
        client
    }

    async fn connected(&self) -> Result<Client, StoreError> {
        self.pool.get().await.map_err(|error| {
            let database = &self.settings.database;
            let place = format!("{}:{}/{} as {}", database.host, database.port, database.name, database.username);
            let why = match error {
                deadpool_postgres::PoolError::Backend(error) => format!("{:#}", describe(error)),
                deadpool_postgres::PoolError::PostCreateHook(deadpool_postgres::HookError::Backend(error)) => {
                    format!("{:#}", describe(error))
                }
                other => other.to_string(),
            };
            StoreError::Database(anyhow::anyhow!("connecting to PostgreSQL at {place}: {why}"))
        })
    }

    /// Asks whether the database answers, is writable, and has our tables.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub async fn ready(&self) -> Result<(), StoreError> {
        let client = self.client().await?;
        let row = client.query_one(&self.statements.ready, &[&self.statements.task_regclass]).await?;
        if row.get::<_, bool>(0) {
            // A session may stay read-only although the database no longer is: the next ones are new.
            self.pool.retain(|_, _| false);
            drop(Client::take(client));
            return Err(anyhow::anyhow!("the database is read-only: is it a standby?").into());
        }
        if !row.get::<_, bool>(1) {
            let table = &self.settings.database.table;
            return Err(anyhow::anyhow!(
                "table {table} has no task table beside it: run 'cta-ops-repack-manager migrate' once"
            )
            .into());
        }
        Ok(())
    }

    /// Locks the rows of one tape, gives them to `law`, writes back what it changed, commits. With `gate` the gate row
    /// is locked first, in its own statement, and slots are counted.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if somebody holds the row; otherwise what the database says. After an error nothing was
    /// written, unless the connection was lost during the commit.
    pub async fn locked<R>(
        &self,
        vid: &Vid,
        gate: bool,
        law: impl FnOnce(&mut Locked<'_>) -> R,
    ) -> Result<R, StoreError> {
        // Whoever waits for rows leaves some connections to those who do not.
        let _turn = self.patient.acquire().await.context("the store is closed")?;
        let client = self.client().await?;
        let done = self.transaction(&client, vid, gate, true, &self.actor, |locked| Some(law(locked))).await?;
        done.ok_or_else(|| anyhow::anyhow!("a law that always answers has not answered").into())
    }

    /// One tape's transaction. None, and nothing is written: the law wants none of it; or, where rows of others are not to be
    /// waited for, the rows are not both there and free.
    async fn transaction<R>(
        &self,
        client: &Client,
        vid: &Vid,
        gate: bool,
        waits: bool,
        actor: &str,
        law: impl FnOnce(&mut Locked<'_>) -> Option<R>,
    ) -> Result<Option<R>, StoreError> {
        let statements = &self.statements;
        let (lock_row, lock_task) = match waits {
            true => (&statements.lock_row, &statements.lock_task),
            false => (&statements.lock_row_free, &statements.lock_task_free),
        };
        // Everything is prepared before anything is sent: what waits for its plan would be overtaken.
        let lock_gate = match gate {
            true => Some(client.prepare_cached(&statements.lock_gate).await?),
            false => None,
        };
        let lock_row = client.prepare_cached(lock_row).await?;
        let lock_task = client.prepare_cached(lock_task).await?;
        let name = vid.as_str();
        let of_tape: [&(dyn ToSql + Sync); 1] = [&name];
        let tx = Transaction::new(client);
        let (mut row, mut under_locks) = (None, None);
        let gate_locked = async {
            match &lock_gate {
                Some(lock_gate) => client.query(lock_gate, &[]).await.map(drop),
                None => Ok(()),
            }
        };
        // In this order on the wire: gate, main row, task row, then what must be read under all locks.
        in_order::<tokio_postgres::Error>(vec![
            tx.begin().boxed(),
            gate_locked.boxed(),
            async { client.query_opt(&lock_row, &of_tape).await.map(|found| row = found) }.boxed(),
            async { client.query_one(&lock_task, &[&name, &gate]).await.map(|found| under_locks = Some(found)) }
                .boxed(),
        ])
        .await?;
        let under_locks = under_locks.expect("all were answered");
        let clock = Clock::read(&under_locks)?;
        let tolerance = clock.tolerance;
        let task = match under_locks.try_get::<_, Option<&str>>("tape")? {
            Some(_) => Some(read_task(&under_locks)?),
            None => None,
        };
        if !waits && (row.is_none() || task.is_none()) {
            return Ok(None);
        }
        let rows = (row.as_ref().map(|row| read_row(row, tolerance)), task);
        let control = read_control(under_locks.try_get("controls")?);
        let mut locked = Locked::with(vid, rows, control, &self.settings, clock, actor);
        let before = locked.task.clone();
        let Some(result) = law(&mut locked) else { return Ok(None) };
        #[cfg(feature = "failpoints")]
        let step = locked.step(before.as_ref());
        let notes = locked.notes.clone();
        let statistics = locked.statistics.clone();
        let commit = async {
            #[cfg(feature = "failpoints")]
            crate::failpoint::pass_at("committing", &[&step.0, step.1], vid);
            tx.commit().await
        };
        self.write(client, locked, before, commit).await?;
        // Only what is committed is counted.
        notes.iter().for_each(|note| self.metrics.noted(note.kind, note.stage.as_deref(), &note.detail));
        if let Some(request) = &statistics {
            self.metrics.repacked(request);
        }
        Ok(Some(result))
    }

    /// Writes what has changed, and commits.
    async fn write(
        &self,
        tx: &Client,
        mut locked: Locked<'_>,
        before: Option<Task>,
        commit: impl Future<Output = Result<(), tokio_postgres::Error>> + Send,
    ) -> Result<(), StoreError> {
        let name = locked.vid.as_str().to_owned();
        if let Some(new) = locked.enter.take() {
            self.enter_row(tx, &mut locked, &new).await?;
        } else {
            self.change_row(tx, &mut locked).await?;
        }
        match &locked.hold {
            None => {}
            Some(HoldChange::Put { why, until }) => {
                tx.execute(&self.statements.set_control, &[&"hold", &name, &locked.actor, why, until]).await?;
            }
            Some(HoldChange::Release) => {
                tx.execute(&self.statements.drop_control, &[&"hold", &name]).await?;
            }
        }
        if let Some(line) = &locked.statistics {
            let round = locked.task.as_ref().map_or(0, |task| task.round);
            tx.execute(&self.statements.add_statistic, &[&name, &round, line]).await?;
        }
        let journey = locked.tape().map(|tape| tape.stamps.begun());
        let changed = locked.task.as_ref().filter(|_| locked.task != before);
        let saved = changed.map(Saved::of).transpose()?;
        let actor = locked.actor.as_str();
        let stages: Vec<Option<&str>> = locked.notes.iter().map(|note| note.stage.as_deref()).collect();
        let kinds: Vec<&str> = locked.notes.iter().map(|note| note.kind).collect();
        let details: Vec<&Value> = locked.notes.iter().map(|note| &note.detail).collect();
        let noted: [&(dyn ToSql + Sync); 5] = [&journey, &actor, &stages, &kinds, &details];
        let mut writes: Vec<(&String, Vec<&(dyn ToSql + Sync)>)> = Vec::with_capacity(2);
        // A row that was found is under its lock: it is there still.
        match (&saved, before.is_some(), kinds.is_empty()) {
            (Some(saved), true, false) => {
                writes.push((&self.statements.save_task_noted, saved.values().into_iter().chain(noted).collect()));
            }
            (saved, found, none) => {
                if let Some(saved) = saved {
                    let save = if found { &self.statements.save_task } else { &self.statements.make_task };
                    writes.push((save, saved.values().to_vec()));
                }
                if !none {
                    writes.push((
                        &self.statements.add_events,
                        [&name as &(dyn ToSql + Sync)].into_iter().chain(noted).collect(),
                    ));
                }
            }
        }
        let mut prepared = Vec::with_capacity(writes.len());
        for (statement, values) in &writes {
            prepared.push((tx.prepare_cached(statement).await?, values));
        }
        // On the wire without waiting in between: where one fails, nothing is committed.
        let mut steps = Vec::with_capacity(3);
        for (statement, values) in &prepared {
            steps.push(async { tx.execute(statement, values).await.map(drop) }.boxed());
        }
        steps.push(commit.boxed());
        in_order(steps).await?;
        Ok(())
    }

    /// Applies what the law wants of the main row, and keeps in the task row what the row looks like afterwards: unless
    /// somebody edited it meanwhile, for then the edit must still be noticed.
    async fn change_row(&self, tx: &Client, locked: &mut Locked<'_>) -> Result<(), StoreError> {
        let Some(before) = locked.tape().cloned() else { return Ok(()) };
        let name = before.vid.as_str();
        let leaves = match locked.change {
            RowChange::GiveBack => Some("given back"),
            RowChange::Remove => Some("removed"),
            RowChange::Keep | RowChange::Stamp(_) => None,
        };
        if let Some(why) = leaves {
            let task = locked.task.as_ref().map(|task| json!({"memory": task.memory, "round": task.round}));
            tx.execute(&self.statements.to_history, &[&name, &why, &task]).await?;
            tx.execute(&self.statements.delete_row, &[&name]).await?;
            if let Some(task) = &mut locked.task {
                task.seen = None;
            }
            return Ok(());
        }
        let mut after = None;
        if let RowChange::Stamp(state) = locked.change {
            // Every delivery comes here: planned once for each connection.
            let stamp = tx.prepare_cached(&self.statements.stamp(state, false)).await?;
            let row = tx.query_one(&stamp, &[&name]).await?;
            after = Some(read_row(&row, locked.clock.tolerance));
        }
        if let Some(mode) = locked.mode {
            let row = tx.query_one(&self.statements.set_mode, &[&name, &mode.label()]).await?;
            after = Some(read_row(&row, locked.clock.tolerance));
        }
        if locked.priority.is_some() || locked.responsible.is_some() {
            let priority = locked.priority.map(i32::from);
            let row = tx.query_one(&self.statements.set_fields, &[&name, &priority, &locked.responsible]).await?;
            after = Some(read_row(&row, locked.clock.tolerance));
        }
        let Some(after) = after else { return Ok(()) };
        let after = after.map_err(|odd| anyhow::anyhow!("{odd}"))?;
        locked.wrote(&before, &after);
        Ok(())
    }

    async fn enter_row(&self, tx: &Client, locked: &mut Locked<'_>, new: &NewTape) -> Result<(), StoreError> {
        let name = locked.vid.as_str();
        if locked.row.is_some() {
            let task = locked.task.as_ref().map(|task| json!({"memory": task.memory, "round": task.round}));
            tx.execute(&self.statements.to_history, &[&name, &"prepared again", &task]).await?;
            tx.execute(&self.statements.delete_row, &[&name]).await?;
        }
        #[expect(clippy::cast_precision_loss, reason = "whole seconds of our century fit an f64")]
        let last_write = new.last_write.map(|seconds| seconds as f64);
        let row = tx
            .query_one(
                &self.statements.enter,
                &[
                    &name,
                    &new.files,
                    &new.bytes,
                    &i32::from(new.usage),
                    &last_write,
                    &i32::from(new.priority),
                    &new.mediatype,
                    &new.tapepool,
                    &new.responsible,
                ],
            )
            .await?;
        let tape = read_row(&row, locked.clock.tolerance).map_err(|odd| anyhow::anyhow!("{odd}"))?;
        locked.entered(tape, new);
        Ok(())
    }

    /// Renews the lease of an epoch. False: somebody else has the tape.
    ///
    /// # Errors
    /// What the database says.
    pub async fn renew(&self, vid: &Vid, epoch: i64) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let lease = self.settings.lease.as_secs_f64();
        let renewed = client.execute(&self.statements.renew, &[&vid.as_str(), &epoch, &lease]).await?;
        Ok(renewed == 1)
    }
}

/// A task row as it is written.
struct Saved<'a> {
    task: &'a Task,
    vid: &'a str,
    intent: Option<Value>,
    next: Option<Timestamp<DateTime<Utc>>>,
    wanted: Option<&'static str>,
    progress: Option<Value>,
    outcome: Option<&'static str>,
    code: Option<&'a str>,
    reason: Option<&'a str>,
    memory: Value,
    seen_xmin: Option<i64>,
    seen: Option<Value>,
}

impl Saved<'_> {
    fn of(task: &Task) -> Result<Saved<'_>, StoreError> {
        fn value<T: serde::Serialize>(what: &T) -> anyhow::Result<Value> {
            serde_json::to_value(what).context("a task value is no JSON")
        }
        Ok(Saved {
            task,
            vid: task.vid.as_str(),
            intent: task.intent.as_ref().map(value).transpose()?,
            next: match task.next {
                Next::Now => None,
                Next::At(at) => Some(Timestamp::Value(at)),
                Next::Never => Some(Timestamp::PosInfinity),
            },
            wanted: task.wanted.map(Wanted::name),
            progress: task.progress.as_ref().map(value).transpose()?,
            outcome: task.outcome.map(Outcome::name),
            code: task.reason.as_ref().map(|reason| reason.code.as_str()),
            reason: task.reason.as_ref().map(|reason| reason.text.as_str()),
            memory: value(&task.memory)?,
            seen_xmin: task.seen.as_ref().map(|seen| seen.xmin),
            seen: task.seen.as_ref().map(value).transpose()?,
        })
    }

    /// In the order of the statement.
    fn values(&self) -> [&(dyn ToSql + Sync); 23] {
        let task = self.task;
        [
            &self.vid,
            &task.stage,
            &task.generation,
            &task.epoch,
            &task.dispatched_at,
            &task.owner,
            &task.lease_until,
            &self.intent,
            &task.attempts,
            &task.crashes,
            &self.next,
            &task.settle_until,
            &task.slot_since,
            &self.wanted,
            &task.round,
            &self.progress,
            &task.progress_at,
            &self.outcome,
            &self.code,
            &self.reason,
            &self.memory,
            &self.seen_xmin,
            &self.seen,
        ]
    }
}

/// A line of the control table.
#[derive(serde::Deserialize)]
struct ControlLine {
    kind: String,
    name: String,
    who: String,
    why: String,
    until: Option<DateTime<Utc>>,
}

fn read_control(lines: Option<Json<Vec<ControlLine>>>) -> Control {
    let mut control = Control::default();
    for ControlLine { kind, name, who, why, until } in lines.map(|lines| lines.0).unwrap_or_default() {
        match kind.as_str() {
            "hold" => control.hold = Some(Hold { who, why, until }),
            _ => control.paused.push(name),
        }
    }
    control
}

/// How to reach the database; `role` instead of the configured user where another owns the tables.
pub(crate) fn connection(settings: &Settings, actor: &str, role: Option<&str>) -> tokio_postgres::Config {
    let database = &settings.database;
    let mut config = tokio_postgres::Config::new();
    config
        .host(&database.host)
        .port(database.port)
        .dbname(&database.name)
        .user(role.unwrap_or(&database.username))
        .application_name(actor)
        .connect_timeout(Duration::from_secs(10))
        .keepalives_idle(Duration::from_secs(30))
        .tcp_user_timeout(Duration::from_secs(60))
        .ssl_mode(crate::tls::mode(database.sslmode));
    if let Some(password) = &database.password {
        config.password(password.reveal());
    }
    config
}

/// What every session of ours says first.
pub(crate) fn session(settings: &Settings) -> String {
    format!(
        "SET TimeZone TO '{}'; SET lock_timeout TO '2s'; SET statement_timeout TO '10min'; \
         SET idle_in_transaction_session_timeout TO '1min'; SET DateStyle TO 'ISO'",
        settings.time_zone.replace('\'', "''")
    )
}

/// The table's timestamps have no zone; where the zone has summer time, a stamp may seem an hour early.
pub(crate) const SUMMER_TIME: TimeDelta = TimeDelta::hours(1);

//! One tick: what changed elsewhere is followed, what was abandoned is closed, slots are reconciled with CTA, and what is
//! due is published; without a broker it is done here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use common::broker::{Publisher, Task as Message, Topology};
use common::cta::reply::Repack;
use common::cta::{Cta, Frontend, Query};
use common::failpoint;
use common::retry::Delays;
use common::settings::{Broker, Settings};
use common::stages::{STAGES, Stage};
use common::store::{Due, Holding, Store, StoreError};
use common::tape::Vid;
use common::task::{Outcome, Progress, SlotLook, Task, later};
use futures_util::StreamExt as _;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tracing::{debug, error, info, warn};
use worker::delivery::{Deliverer, Report};
use worker::edge::Admin;
use worker::service::{Shutdown, reached};
use worker::{cleanup, dead_letter, look, notify};

use crate::edge::{Post, Table};
use crate::{mail, observe, statistics};

/// Tasks marked and published at a time.
const BATCH: usize = 500;

/// Tasks selected at a time: to put all that is due in order costs as much for a few as for many.
pub const PAGE: usize = 10_000;

/// Channels over which tasks are published, one publish in flight on each.
const CHANNELS: usize = 4;

/// A Stop whose dead letter has not come after this time is followed without it.
pub const LOST_LETTER: Duration = Duration::from_secs(600);

/// A tick that takes longer is taken for hung where somebody watches: without a broker it does its deliveries itself,
/// and each may list the files of a tape.
const LONGEST_TICK: Duration = Duration::from_secs(24 * 3600);

/// What a tick works with.
pub struct Context<S = Store, C = Cta, P = Publisher> {
    /// The database.
    pub store: S,
    /// The client.
    pub cta: C,
    /// The configuration.
    pub settings: Arc<Settings>,
    /// This host.
    pub host: String,
    /// The name the program was called by.
    pub program: String,
    /// After how long a dead letter counts as lost: [`LOST_LETTER`], but for tests.
    pub lost_letter: Duration,
    /// Tasks selected at a time, at least 1: [`PAGE`], but for tests.
    pub page: usize,
    /// How it is told to end.
    pub stop: watch::Receiver<Shutdown>,
    /// The connection to the broker, once there is one.
    pub publisher: Mutex<Option<P>>,
}

/// What a tick did.
#[derive(Debug, Default, Serialize)]
pub struct TickReport {
    /// A part for each stage.
    pub stages: Vec<StageReport>,
    /// Rows that break a rule and are left alone.
    pub odd: Vec<OddTape>,
    /// What kept the tick from doing all of its work.
    pub trouble: Vec<String>,
}

/// A row that is left alone.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct OddTape {
    /// What the tape column holds.
    pub vid: String,
    /// What is wrong.
    pub reasons: Vec<String>,
}

/// What a tick did for one stage.
#[derive(Debug, Default, Serialize)]
pub struct StageReport {
    /// The stage.
    pub stage: &'static str,
    /// Tapes that were due.
    pub considered: usize,
    /// Published to the stage's queue.
    pub published: Vec<String>,
    /// Done here.
    pub done: Vec<String>,
    /// Waiting, with why.
    pub not_yet: Vec<WithReason>,
    /// To be tried again, with why.
    pub retrying: Vec<WithReason>,
    /// Stopped, with why.
    pub stopped: Vec<WithReason>,
    /// Somebody else ticks this stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Dry run: what would be worked on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub would: Vec<String>,
}

/// A tape and why.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct WithReason {
    /// The tape.
    pub vid: String,
    /// The reason code.
    pub code: String,
    /// The sentence.
    pub reason: String,
}

impl TickReport {
    /// Something kept the tick from doing its work: the run failed. A stopped tape is the tape's news, not the run's.
    pub fn failed(&self) -> bool {
        !self.trouble.is_empty()
    }

    /// One line for whoever asks how the last tick went.
    fn summary(&self) -> String {
        let count = |of: fn(&StageReport) -> usize| self.stages.iter().map(of).sum::<usize>();
        let mut line = format!(
            "last tick: {} due, {} published, {} done, {} stopped",
            count(|stage| stage.considered),
            count(|stage| stage.published.len()),
            count(|stage| stage.done.len()),
            count(|stage| stage.stopped.len()),
        );
        for trouble in &self.trouble {
            line = format!("{line}; {trouble}");
        }
        line
    }
}

/// Ticks for ever.
///
/// # Errors
/// Only what trying again cannot mend.
pub async fn run(context: &Context) -> anyhow::Result<()> {
    let stages: Vec<&'static Stage> = STAGES.into();
    let mut stop = context.stop.clone();
    let mut delays = Delays::default();
    let mut odd_before = Vec::new();
    let manager = notify::manager();
    let metrics = Arc::clone(context.store.metrics());
    metrics.set("tick", Err("no tick yet"));
    let mut asked = false;
    while *stop.borrow_and_update() == Shutdown::No {
        metrics.turned();
        // Whatever was noted while nobody ran: a producer begins with a look at all rows.
        asked = asked || context.store.ask_to_compare().await.is_ok();
        let pause = match manager.during(LONGEST_TICK, tick(context, &stages, false)).await {
            Ok(report) => {
                manager.status(&report.summary());
                delays.reset();
                let trouble = (!report.trouble.is_empty()).then(|| report.trouble.join("; "));
                metrics.set("tick", trouble.as_deref().map_or(Ok(()), Err));
                for tape in report.odd.iter().filter(|tape| !odd_before.contains(&tape.vid)) {
                    warn!("the row of {} is left alone: {}", tape.vid, tape.reasons.join("; "));
                }
                odd_before = report.odd.iter().map(|tape| tape.vid.clone()).collect();
                for trouble in &report.trouble {
                    error!("the tick could not do all: {trouble}");
                }
                context.settings.producer.interval
            }
            Err(failed) => {
                metrics.set("tick", Err(&format!("{failed:#}")));
                error!("no tick: {failed:#}");
                manager.status(&format!("no tick: {failed:#}"));
                delays.next_delay().max(context.settings.producer.interval)
            }
        };
        // What is away may come back without it being started again.
        manager.ready();
        tokio::select! {
            () = manager.during(pause, tokio::time::sleep(pause)) => {}
            () = reached(&mut stop, Shutdown::Finish) => {}
        }
    }
    Ok(())
}

/// One tick of these stages.
///
/// # Errors
/// When the database fails, or the broker's topology does not fit.
pub async fn tick(context: &Context, stages: &[&'static Stage], dry_run: bool) -> anyhow::Result<TickReport> {
    let begun = Instant::now();
    context.store.ready().await?;
    let mut report = TickReport::default();
    if dry_run {
        for stage in stages {
            report.stages.push(would(context, stage).await?);
        }
        return Ok(report);
    }
    let names: Vec<&str> = stages.iter().map(|stage| stage.name).collect();
    let locks = context.store.tick_locks(&names).await?;
    let mut result = under_locks(context, stages, &locks.held, &locks.refused, &mut report).await;
    if result.is_ok() {
        result = housekeeping(context, stages, &mut report).await;
    }
    if result.is_ok() {
        remember(context, &locks.held, &report.trouble).await;
    }
    locks.release().await;
    result?;
    // Without the locks: a mail system that hangs holds up nobody else's tick.
    mail::notify(context).await;
    observe::observe(context, begun.elapsed()).await;
    Ok(report)
}

/// Leaves word of the tick for those who ask whether a producer runs. Nothing depends on it.
async fn remember(context: &Context, held: &[String], trouble: &[String]) {
    let stages: Vec<&str> = held.iter().map(String::as_str).collect();
    let trouble = (!trouble.is_empty()).then(|| trouble.join("; "));
    if let Err(error) = context.store.ticked(&stages, trouble.as_deref()).await {
        debug!("the tick is not recorded: {error}; was 'cta-ops-repack-manager migrate' run?");
    }
}

/// The tick itself, for the stages whose locks are `held`; `refused` are those that somebody else ticks, and who.
///
/// # Errors
/// As [`tick`].
pub async fn under_locks<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    stages: &[&'static Stage],
    held: &[String],
    refused: &[(String, String)],
    report: &mut TickReport,
) -> anyhow::Result<()> {
    follow_edits(context, report).await?;
    close_abandoned(context).await?;
    sweep(context).await?;
    if stages.iter().any(|stage| stage.takes_slot || stage.frees_slot)
        && let Err(trouble) = reconcile(context).await?
    {
        report.trouble.push(trouble);
    }
    for stage in stages {
        if *context.stop.borrow() != Shutdown::No {
            break;
        }
        let mut part = StageReport { stage: stage.name, ..StageReport::default() };
        if let Some((_, who)) = refused.iter().find(|(name, _)| name == stage.name) {
            info!(stage = stage.name, "stage {} is left to {who}, who ticks it now", stage.name);
            part.skipped = Some(who.clone());
        } else if held.iter().any(|name| name == stage.name) {
            let trouble = match &context.settings.broker {
                Some(broker) => publish(context, broker, stage, &mut part).await?,
                None => inline(context, stage, &mut part).await?,
            };
            report.trouble.extend(trouble);
        }
        report.stages.push(part);
    }
    Ok(())
}

/// What this host keeps in files.
async fn housekeeping(context: &Context, stages: &[&'static Stage], report: &mut TickReport) -> anyhow::Result<()> {
    // With a broker the listings are on the workers' hosts, and they see to them.
    if context.settings.broker.is_none()
        && stages.iter().any(|stage| stage.takes_slot)
        && let Err(error) = cleanup::listings(&context.store, &context.settings, SystemTime::now()).await
    {
        report.trouble.push(format!("old listings are not cleaned up: {error:#}"));
    }
    if stages.iter().any(|stage| stage.frees_slot)
        && let Err(error) = statistics::write_lines(&context.store, &context.settings.repack_end_json_path).await
    {
        report.trouble.push(format!("the end-of-repack statistics are not written: {error:#}"));
    }
    Ok(())
}

/// Makes or mends the task row of a row that somebody else wrote. What is wrong with an odd row is answered, and nothing done.
/// `by`: who noticed, for the history.
pub fn follow(locked: &mut common::store::Locked<'_>, by: &'static str) -> Option<Vec<String>> {
    if let Some(Err(odd)) = &locked.row {
        return Some(odd.problems.clone());
    }
    let (tape, task, ground, notes) = locked.parts();
    let Some(tape) = tape else {
        gone(locked);
        return None;
    };
    match task {
        Some(task) => notes.extend(task.notice(tape, &ground)),
        None => {
            let made = Task::made(tape, &ground);
            *task = Some(made);
            locked.note("row-found", json!({ "by": by }));
        }
    }
    None
}

/// Makes the task rows that are missing, and follows what others edited.
async fn follow_edits<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    report: &mut TickReport,
) -> anyhow::Result<()> {
    // Rows that stay as they are, with the line that is kept for the next tick.
    let mut left: HashMap<String, Option<i64>> = HashMap::new();
    let mut after = 0;
    while *context.stop.borrow() == Shutdown::No {
        let page = context.store.edits(after).await?;
        // A row that was edited often has many lines.
        let mut rows: Vec<(&str, bool, Vec<i64>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for edit in &page.edits {
            let place = *places.entry(&edit.tape).or_insert_with(|| {
                rows.push((&edit.tape, false, Vec::new()));
                rows.len() - 1
            });
            rows[place].1 |= edit.differs;
            rows[place].2.extend(edit.line);
        }
        let mut done = Vec::new();
        for (tape, differs, mut lines) in rows {
            if differs && !follow_edit(context, tape, report, !left.contains_key(tape)).await? {
                let before = left.insert(tape.to_owned(), lines.pop());
                done.extend(before.flatten());
            }
            done.extend(lines);
        }
        context.store.followed(&done).await?;
        match page.after {
            Some(next) => after = next,
            None => break,
        }
    }
    Ok(())
}

/// Follows what others did to a row. False: it is to be looked at again.
async fn follow_edit<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    tape: &str,
    report: &mut TickReport,
    tell: bool,
) -> anyhow::Result<bool> {
    let followed = match tape.parse() {
        Ok(vid) => context.store.locked(&vid, false, |locked| follow(locked, "tick")).await,
        Err(_) => Ok(Some(vec!["the tape is no VID: expected 1 to 20 of A-Z, 0-9, '_' and '-'".to_owned()])),
    };
    match followed {
        Ok(None) => Ok(true),
        Ok(Some(reasons)) => {
            if tell {
                let vid = tape.escape_default().take(60).collect();
                report.odd.push(OddTape { vid, reasons });
            }
            Ok(false)
        }
        Err(StoreError::Busy(why)) => {
            debug!(tape, "not followed yet: {why}");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// The row was deleted by somebody else, without the checks of the manager's `rm`: what we know of the tape is kept.
fn gone(locked: &mut common::store::Locked<'_>) {
    let (_, task, ground, notes) = locked.parts();
    let Some(task) = task.as_mut().filter(|task| task.stage.is_some()) else { return };
    let detail = json!({"round": task.round, "outcome": task.outcome, "reason": task.reason, "memory": task.memory, "seen": task.seen});
    notes.push(common::task::Note { kind: "row-gone", stage: task.stage.clone(), detail });
    task.removed(&ground);
    warn!(
        vid = %locked.vid,
        "the row of {} was deleted by somebody else: nothing is done for the tape any more, and CTA is left as it is",
        locked.vid
    );
}

async fn close_abandoned<S: Table, C: Admin, P: Post>(context: &Context<S, C, P>) -> anyhow::Result<()> {
    for vid in context.store.closable().await? {
        let closed = context
            .store
            .locked(&vid, false, |locked| {
                let (_, task, ground, notes) = locked.parts();
                if let Some(task) = task
                    && task.owner.is_some()
                    && !task.is_leased(ground.now)
                {
                    notes.push(task.abandon("its lease ran out", &ground));
                }
            })
            .await;
        ignore_busy(closed)?;
    }
    Ok(())
}

async fn sweep<S: Table, C: Admin, P: Post>(context: &Context<S, C, P>) -> anyhow::Result<()> {
    for vid in context.store.sweepable(context.lost_letter.as_secs_f64()).await? {
        ignore_busy(dead_letter::sweep(&context.store, &vid).await.map(|_| ()))?;
    }
    Ok(())
}

fn ignore_busy(result: Result<(), StoreError>) -> anyhow::Result<()> {
    match result {
        Err(StoreError::Busy(why)) => {
            debug!("left for the next tick: {why}");
            Ok(())
        }
        other => Ok(other?),
    }
}

/// What CTA says of repacks, by VID; none where it says that there is no request.
type Requests = HashMap<String, Repack>;

/// Holds the slots against what CTA is really repacking, and nudges the tapes whose repack moved on.
/// `Ok(Err(why))`: CTA could not be asked; slots stay as they are.
async fn reconcile<S: Table, C: Admin, P: Post>(context: &Context<S, C, P>) -> anyhow::Result<Result<(), String>> {
    // Before the list: what is open or changes from here on is not judged by it.
    let holding = context.store.holding().await?;
    let requests = match requests(context, &holding).await {
        Ok(requests) => requests,
        Err(why) => return Ok(Err(why)),
    };
    for row in holding.iter().filter(|row| !row.open) {
        match requests.get(row.vid.as_str()) {
            Some(repack) if !repack.is_final() => still_running(context, row, repack).await?,
            Some(_) => {
                settle_slot(
                    context,
                    row,
                    SlotLook { request_active: Some(false), request_final: true, repacking: None },
                )
                .await?
            }
            None => vanished(context, row).await?,
        }
    }
    let known: HashSet<&str> = holding.iter().map(|row| row.vid.as_str()).collect();
    let strangers: Vec<Vid> = requests
        .values()
        .filter(|repack| !repack.is_final() && !known.contains(repack.vid.as_str()))
        .filter_map(|repack| repack.vid.parse().ok())
        .collect();
    if !strangers.is_empty() {
        take_slots(context, &strangers).await?;
    }
    Ok(Ok(()))
}

async fn requests<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    holding: &[Holding],
) -> Result<Requests, String> {
    let trouble = match context.cta.list::<Repack>(&Query::Repacks).await {
        Ok(list) => return Ok(list.into_iter().map(|repack| (repack.vid.clone(), repack)).collect()),
        Err(trouble) => trouble,
    };
    if trouble.is_site() || context.cta.version(Frontend::Repack).await.is_err() {
        return Err(trouble.to_string());
    }
    // One deleted tape can break the whole list: then each is asked for.
    warn!("the list of all repacks cannot be had, so each tape with a slot is asked for: {trouble}");
    let mut requests = Requests::new();
    for row in holding.iter().filter(|row| !row.open) {
        match look::request(&context.cta, &row.vid).await {
            Ok(Some(request)) => {
                requests.insert(row.vid.to_string(), request.repack);
            }
            Ok(None) => {}
            Err(trouble) => return Err(trouble.to_string()),
        }
    }
    Ok(requests)
}

/// The row as it was before the list began: nobody has claimed it since, and its slot is the same.
fn unchanged(task: &Task, row: &Holding, now: DateTime<Utc>) -> bool {
    task.epoch == row.epoch
        && task.slot_since == Some(row.slot_since)
        && task.owner.is_none()
        && task.intent.is_none()
        && !task.is_settling(now)
}

async fn with_unchanged<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    row: &Holding,
    law: impl FnOnce(&mut common::store::Locked<'_>),
) -> anyhow::Result<()> {
    let done = context
        .store
        .locked(&row.vid, false, |locked| {
            let now = locked.now();
            if locked.task.as_ref().is_some_and(|task| unchanged(task, row, now)) {
                law(locked);
            }
        })
        .await;
    ignore_busy(done)
}

async fn still_running<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    row: &Holding,
    repack: &Repack,
) -> anyhow::Result<()> {
    if row.stage.as_deref() != Some("end") {
        return Ok(());
    }
    let progress = Progress::of(repack);
    let moved = row.progress.as_ref() != Some(&progress);
    let stall = context.settings.stall;
    let may_be_stalled = !moved && row.progress_at.is_some_and(|at| later(at, stall) <= row.now);
    if !moved && !may_be_stalled {
        return Ok(());
    }
    with_unchanged(context, row, |locked| {
        let now = locked.now();
        let Some(task) = &mut locked.task else { return };
        task.advance(progress, now);
        if may_be_stalled && task.outcome != Some(Outcome::Stalled) {
            task.nudge(now);
        }
    })
    .await
}

/// The request is final, or gone: whoever looks after the tape should look now, and the slot may go.
async fn settle_slot<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    row: &Holding,
    look: SlotLook,
) -> anyhow::Result<()> {
    with_unchanged(context, row, |locked| {
        let now = locked.now();
        let mode = locked.tape().map(|tape| tape.mode);
        let Some(task) = &mut locked.task else { return };
        if task.stage.as_deref() == Some("end") {
            task.nudge(now);
        }
        let gone = look == SlotLook { request_active: Some(false), request_final: false, repacking: Some(false) };
        let lets_go = match mode {
            Some(mode) => look.allows_release(mode),
            None => gone || look.request_final,
        };
        if lets_go {
            task.slot_since = None;
            locked.note(
                "slot-freed",
                json!({"by": "tick", "request_final": look.request_final, "repacking": look.repacking}),
            );
        }
    })
    .await
}

async fn vanished<S: Table, C: Admin, P: Post>(context: &Context<S, C, P>, row: &Holding) -> anyhow::Result<()> {
    let absent = SlotLook { request_active: Some(false), request_final: false, repacking: None };
    if !row.idle {
        // A worker comes to it anyway, and will see more than the list did.
        if row.stage.as_deref() == Some("end") {
            return with_unchanged(context, row, |locked| {
                let now = locked.now();
                if let Some(task) = &mut locked.task {
                    task.nudge(now);
                }
            })
            .await;
        }
        return Ok(());
    }
    if row.mode == Some(common::journey::Mode::Error) {
        return settle_slot(context, row, absent).await;
    }
    match look::tape(&context.cta, &row.vid).await {
        Ok(tape) => {
            let repacking = tape.is_some_and(|tape| tape.state.starts_with("REPACKING"));
            settle_slot(context, row, SlotLook { repacking: Some(repacking), ..absent }).await
        }
        Err(trouble) => {
            debug!(vid = %row.vid, "its slot stays: {trouble}");
            Ok(())
        }
    }
}

/// Rows of ours that CTA repacks without a slot (taken over from elsewhere) get one, over the limit if need be: that only
/// holds back new starts.
async fn take_slots<S: Table, C: Admin, P: Post>(context: &Context<S, C, P>, vids: &[Vid]) -> anyhow::Result<()> {
    let rows = context.store.unfinished(vids).await?;
    for before in rows {
        let (Ok(tape), Some(task)) = (&before.row, &before.task) else { continue };
        if task.owner.is_some() || task.intent.is_some() || task.is_settling(before.now) || task.slot_since.is_some() {
            continue;
        }
        // Asked again, after the row was read: the list may be older than the row.
        let active = match look::request(&context.cta, &tape.vid).await {
            Ok(request) => request.is_some_and(|request| !request.repack.is_final()),
            Err(_) => false,
        };
        if !active {
            continue;
        }
        let epoch = task.epoch;
        let taken = context
            .store
            .locked(&tape.vid, true, |locked| {
                let now = locked.now();
                let Some(task) = &mut locked.task else { return };
                if task.epoch == epoch && task.owner.is_none() && task.slot_since.is_none() {
                    task.slot_since = Some(now);
                    locked.note("slot-taken", json!({"by": "tick", "why": "CTA is repacking it"}));
                }
            })
            .await;
        ignore_busy(taken)?;
    }
    Ok(())
}

/// How many rows may be asked to take a slot.
async fn free_slots<S: Table, C: Admin, P: Post>(context: &Context<S, C, P>, again_secs: f64) -> anyhow::Result<i64> {
    let (taken, asked) = context.store.slots(again_secs).await?;
    Ok(i64::from(context.settings.max_active_repacks.saturating_sub(taken).saturating_sub(asked)))
}

async fn would(context: &Context, stage: &'static Stage) -> anyhow::Result<StageReport> {
    let mut due = context.store.due(stage.name, 0.0, false, None, i64::try_from(BATCH)?).await?;
    let free = free_slots(context, 0.0).await?;
    if free > 0 {
        due.extend(context.store.due(stage.name, 0.0, true, None, free).await?);
    }
    let would: Vec<String> = due.iter().map(|task| task.vid.to_string()).collect();
    Ok(StageReport { stage: stage.name, considered: would.len(), would, ..StageReport::default() })
}

/// Without a broker: does the stage here, a few tapes at a time. Some(why): the site is in trouble.
async fn inline<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    stage: &'static Stage,
    part: &mut StageReport,
) -> anyhow::Result<Option<String>> {
    let (stop_now, stopping) = watch::channel(false);
    let mut stop = context.stop.clone();
    let deliverer = Deliverer::new(context.store.clone(), context.cta.clone(), &context.host, stopping);
    let work = inline_work(context, &deliverer, stage, part);
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = reached(&mut stop, Shutdown::Now) => {}
    }
    stop_now.send_replace(true);
    work.await
}

async fn inline_work<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    deliverer: &Deliverer<S, C>,
    stage: &'static Stage,
    part: &mut StageReport,
) -> anyhow::Result<Option<String>> {
    let mut tried: HashSet<(Vid, i64)> = HashSet::new();
    loop {
        let mut due = context.store.due(stage.name, 0.0, false, None, i64::try_from(BATCH + tried.len())?).await?;
        let free = free_slots(context, 0.0).await?;
        if free > 0 {
            due.extend(context.store.due(stage.name, 0.0, true, None, free + i64::try_from(tried.len())?).await?);
        }
        due.retain(|task| tried.insert((task.vid.clone(), task.generation)));
        if due.is_empty() || *context.stop.borrow() != Shutdown::No {
            return Ok(None);
        }
        part.considered += due.len();
        // What was begun when the site turns out to be in trouble ends by itself; nothing new is begun.
        let halted = AtomicBool::new(false);
        let mut results = futures_util::stream::iter(due)
            .map(|task| {
                let halted = &halted;
                async move {
                    if halted.load(Ordering::Relaxed) {
                        return (task, Ok(Report::Nothing("left for the next run".to_owned())));
                    }
                    let report = deliverer.deliver(&task.vid, stage.name, task.generation).await;
                    (task, report)
                }
            })
            .buffer_unordered(context.settings.worker.concurrency);
        let mut trouble = None;
        let mut broken = None;
        while let Some((task, report)) = results.next().await {
            if let Some(metrics) = context.store.metrics() {
                metrics.turned();
            }
            let counted = match report {
                Ok(report) => count(context, stage, part, &task, report).await,
                Err(error) => Err(error.into()),
            };
            match counted {
                Ok(None) => continue,
                Ok(Some(why)) => trouble = Some(why),
                Err(error) => broken = Some(error),
            }
            halted.store(true, Ordering::Relaxed);
        }
        if let Some(error) = broken {
            return Err(error);
        }
        if trouble.is_some() {
            return Ok(trouble);
        }
    }
}

async fn count<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    stage: &'static Stage,
    part: &mut StageReport,
    task: &Due,
    report: Report,
) -> anyhow::Result<Option<String>> {
    let vid = task.vid.to_string();
    let with = |kept: common::reason::Kept| WithReason { vid: vid.clone(), code: kept.code, reason: kept.text };
    match report {
        Report::Done => part.done.push(vid),
        Report::NotYet(why) => part.not_yet.push(with(why)),
        Report::Retrying(why) => part.retrying.push(with(why)),
        Report::Stopped(why) => {
            dead_letter::bury(&context.store, &task.vid, stage.name, task.generation, "without a broker").await?;
            part.stopped.push(with(why));
        }
        Report::Site(why) => {
            error!(stage = stage.name, "site trouble, no tape is to blame: {}", why.text);
            let text = why.text.clone();
            part.not_yet.push(with(why));
            return Ok(Some(text));
        }
        Report::Nothing(why) => debug!(vid, "{why}"),
    }
    Ok(None)
}

/// With a broker: marks what is due as published, then publishes it, in batches. Some(why): publishing failed.
async fn publish<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    broker: &Broker,
    stage: &'static Stage,
    part: &mut StageReport,
) -> anyhow::Result<Option<String>> {
    let mut slot = context.publisher.lock().await;
    if slot.as_ref().is_none_or(P::is_broken) {
        *slot = None;
        let connected = P::connect(broker, &context.program, CHANNELS).await;
        if let Some(metrics) = context.store.metrics() {
            match &connected {
                Ok(_) => metrics.set("broker", Ok(())),
                Err(error) => metrics.set("broker", Err(&error.to_string())),
            }
        }
        match connected {
            Ok(publisher) => *slot = Some(publisher),
            Err(error) if error.is_final() => return Err(error.into()),
            Err(error) => return Ok(Some(format!("nothing of stage {} is published: {error}", stage.name))),
        }
    }
    let Some(publisher) = slot.as_ref() else { return Ok(None) };
    let topology = Topology::new(&broker.prefix, STAGES.map(|stage| stage.name))?;
    let depth = match publisher.depth(&topology.stage_queue(stage.name)).await {
        Ok(depth) => depth.map_or(0, |depth| depth.messages),
        Err(error) => {
            *slot = None;
            if let Some(metrics) = context.store.metrics() {
                metrics.set("broker", Err(&error.to_string()));
            }
            return Ok(Some(format!("nothing of stage {} is published: {error}", stage.name)));
        }
    };
    let patience = if depth == 0 { 1.0 } else { 10.0 };
    let again_secs = context.settings.redispatch_after.as_secs_f64() * patience;
    let free = free_slots(context, again_secs).await?;
    let mut failed = None;
    let mut tried = HashSet::new();
    if free > 0 {
        let due = context.store.due(stage.name, again_secs, true, None, free).await?;
        tried.extend(due.iter().map(|task| (task.vid.clone(), task.generation)));
        failed = send(context, publisher, stage, due, part).await?;
    }
    // Each task once in a tick, in their order: a worker that gives one back at once (site trouble, a pause) makes it due again
    // while we are still at it, and the tick would never come to its other stages.
    let limit = i64::try_from(context.page)?;
    let page = async |after: Option<Due>| context.store.due(stage.name, again_secs, false, after.as_ref(), limit).await;
    let mut due = if failed.is_none() { page(None).await? } else { Vec::new() };
    while !due.is_empty() && *context.stop.borrow() == Shutdown::No {
        let last = due.last().filter(|_| due.len() >= context.page).cloned();
        due.retain(|task| !tried.contains(&(task.vid.clone(), task.generation)));
        // The next page is put in order while this one is published.
        let following = async {
            match last {
                Some(last) => page(Some(last)).await,
                None => Ok(Vec::new()),
            }
        };
        let (sent, following) = tokio::join!(send(context, publisher, stage, due, part), following);
        failed = sent?;
        if failed.is_some() {
            break;
        }
        due = following?;
    }
    if failed.is_some() && publisher.is_broken() {
        *slot = None;
    }
    Ok(failed)
}

/// Marks tasks as published and publishes them, in batches: one is marked while the one before it is published.
async fn send<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    publisher: &P,
    stage: &'static Stage,
    due: Vec<Due>,
    part: &mut StageReport,
) -> anyhow::Result<Option<String>> {
    part.considered += due.len();
    let mut batches = due.chunks(BATCH);
    let mut marked = mark(context, stage, batches.next()).await?;
    while let Some(batch) = marked {
        let next = batches.next().filter(|_| *context.stop.borrow() == Shutdown::No);
        let (posted, next) = tokio::join!(post(publisher, stage, batch), mark(context, stage, next));
        part.published.extend(posted.published);
        let mut unsent = posted.unsent;
        let next = match (next, &posted.failed) {
            (Ok(next), Some(_)) => {
                unsent.extend(next.unwrap_or_default());
                Ok(None)
            }
            (next, _) => next,
        };
        if !unsent.is_empty() {
            context.store.clear_dispatched(&unsent).await?;
        }
        if let Some(why) = posted.failed {
            return Ok(Some(format!("publishing to stage {} failed: {why}", stage.name)));
        }
        marked = next?;
    }
    Ok(None)
}

async fn mark<S: Table, C: Admin, P: Post>(
    context: &Context<S, C, P>,
    stage: &'static Stage,
    due: Option<&[Due]>,
) -> Result<Option<Vec<Due>>, StoreError> {
    let Some(due) = due else { return Ok(None) };
    due.iter().for_each(|task| failpoint::pass_at("before-mark", &[stage.name], &task.vid));
    context.store.mark_dispatched(due.to_vec()).await.map(Some)
}

/// What became of a batch.
#[derive(Default)]
struct Posted {
    published: Vec<String>,
    unsent: Vec<Due>,
    failed: Option<String>,
}

/// Publishes marked tasks, one at a time on each channel. After the first that fails no other is begun.
async fn post<P: Post>(publisher: &P, stage: &'static Stage, marked: Vec<Due>) -> Posted {
    let broken = AtomicBool::new(false);
    let mut results = futures_util::stream::iter(marked)
        .map(|task| {
            let broken = &broken;
            async move {
                if broken.load(Ordering::Relaxed) {
                    return (task, Some(None));
                }
                let message =
                    Message { tape: task.vid.clone(), stage: stage.name.to_owned(), generation: task.generation };
                failpoint::pass_at("marked", &[stage.name], &task.vid);
                match publisher.publish(&message).await {
                    Ok(()) => {
                        failpoint::pass_at("published", &[stage.name], &task.vid);
                        (task, None)
                    }
                    Err(error) => {
                        broken.store(true, Ordering::Relaxed);
                        (task, Some(Some(error.to_string())))
                    }
                }
            }
        })
        .buffer_unordered(CHANNELS);
    let mut posted = Posted::default();
    while let Some((task, result)) = results.next().await {
        match result {
            None => posted.published.push(task.vid.to_string()),
            Some(why) => {
                posted.failed = why.or(posted.failed);
                posted.unsent.push(task);
            }
        }
    }
    posted
}

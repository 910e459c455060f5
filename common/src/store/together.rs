//! Several tapes in one transaction, where several wait for theirs.
//!
//! What a delivery pays the database for is mostly the transaction: its statements, their answers, the commit. Deliveries that
//! come while some are under way are carried out by the next, each under its own locks and by its own law, and are written by
//! one statement and committed at once. Nothing waits to be joined: where only a few are there, each goes at once.
//!
//! Such a transaction waits for no row, so it can neither be held up by one tape nor take part in a deadlock. A tape whose
//! rows are locked by somebody else, are odd or are not there, and one for which the law wants more than a stamp, goes alone
//! by [`Store::locked`]: as does every one of them when anything at all is refused.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use deadpool_postgres::Client;
use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio_postgres::Row;
use tokio_postgres::error::Severity;
use tokio_postgres::types::ToSql;
use tracing::warn;

use super::pipeline::{Transaction, in_order};
use super::rows::{Clock, read_row, read_task};
use super::{Locked, Saved, Store, StoreError};
use crate::journey::State;
use crate::tape::Vid;
use crate::task::{Control, Hold, Note, RowChange, Task};

/// Tapes under way from which on others wait for the next transaction. Fewer wait for nobody, each has a transaction and a
/// connection of its own: their commits share the disk. Of many, two large transactions beside each other brought no more
/// tapes a second than one, and cost the server more.
const FEW: usize = 4;

/// Tapes of one transaction: their rows are locked until it is committed.
const LARGEST: usize = 32;

/// A connection that has not answered for so long is given up: others wait for it. Locks are not waited for, but those of
/// whole tables, for two seconds each.
const LONGEST: Duration = Duration::from_secs(20);

type Law = Box<dyn FnMut(&mut Locked<'_>) + Send>;

/// Who waits, and what is under way. Where somebody waits, somebody runs.
#[derive(Default)]
pub(super) struct Together(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    /// Runners.
    running: usize,
    /// Requests in their hands.
    carried: usize,
}

struct Request {
    vid: Vid,
    actor: Arc<str>,
    law: Law,
    answer: oneshot::Sender<Turn>,
}

/// What became of a request.
enum Turn {
    /// It is committed.
    Committed,
    /// Nothing was written: it must go alone.
    Alone,
    /// The database is away; whether a commit under way happened is unknown.
    Away(String),
}

/// Why a transaction of several did not happen.
enum Fault {
    /// The server refused something, or something cannot be read: each alone will see whether it is the one.
    Refused(String),
    Away(String),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Fault {
        // What ends the session may come when the commit is done.
        let refused = error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error));
        let why = format!("{:#}", super::describe(error));
        if refused { Fault::Refused(why) } else { Fault::Away(why) }
    }
}

impl Together {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True: a runner must be sent.
    fn push(&self, request: Request) -> bool {
        let mut queue = self.queue();
        queue.waiting.push_back(request);
        let free = queue.running < FEW && queue.carried < FEW;
        queue.running += usize::from(free);
        free
    }
}

/// Carries requests out. Leaves nobody waiting, even when it panics.
struct Runner {
    together: Arc<Together>,
    carried: usize,
    gone: bool,
}

impl Runner {
    fn new(together: &Arc<Together>) -> Runner {
        Runner { together: Arc::clone(together), carried: 0, gone: false }
    }

    /// The next that may go together, each VID once. None: it has nothing to do any more, for nobody waits, or somebody else
    /// comes to those who do.
    fn next(&mut self) -> Option<Vec<Request>> {
        let mut queue = self.together.queue();
        queue.carried -= std::mem::take(&mut self.carried);
        if queue.waiting.is_empty() || queue.carried >= FEW {
            queue.running -= 1;
            self.gone = true;
            return None;
        }
        let mut names = HashSet::new();
        let mut batch = Vec::new();
        for request in std::mem::take(&mut queue.waiting) {
            if batch.len() < LARGEST && names.insert(request.vid.clone()) {
                batch.push(request);
            } else {
                queue.waiting.push_back(request);
            }
        }
        self.carried = batch.len();
        queue.carried += self.carried;
        Some(batch)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        let mut queue = self.together.queue();
        queue.running -= 1;
        queue.carried -= self.carried;
        // Told that nobody answers, each goes alone.
        queue.waiting.clear();
    }
}

impl Store {
    /// As [`Store::locked`] without the gate, in one transaction with others that wait for theirs. The law may be asked more
    /// than once, and only its last answer counts.
    ///
    /// # Errors
    /// As there.
    pub async fn together<R: Send + 'static>(
        &self,
        vid: &Vid,
        law: impl FnMut(&mut Locked<'_>) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let kept = Arc::new(Mutex::new((law, None)));
        let (answer, answered) = oneshot::channel();
        let with_others = Arc::clone(&kept);
        let law: Law = Box::new(move |locked| {
            let (law, result) = &mut *with_others.lock().unwrap_or_else(PoisonError::into_inner);
            *result = Some(law(locked));
        });
        if self.together.push(Request { vid: vid.clone(), actor: Arc::clone(&self.actor), law, answer }) {
            // There before it runs: a program that ends may never let it.
            tokio::spawn(self.clone().carry_out(Runner::new(&self.together)));
        }
        let turn = answered.await;
        let mut kept = Arc::try_unwrap(kept)
            .map_err(|_| anyhow::anyhow!("a transaction has answered and goes on"))?
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match (turn, kept.1) {
            (Ok(Turn::Committed), Some(result)) => Ok(result),
            (Ok(Turn::Away(why)), _) => Err(StoreError::Database(anyhow::anyhow!(why))),
            _ => self.locked(vid, false, |locked| (kept.0)(locked)).await,
        }
    }

    /// Until nobody waits, or others come to those who do.
    async fn carry_out(self, mut runner: Runner) {
        while let Some(mut batch) = runner.next() {
            let tapes = batch.len();
            let turns = self.carry_out_batch(&mut batch).await;
            for (number, Request { law, answer, .. }) in batch.into_iter().enumerate() {
                // Whoever is answered finds that nobody else has the law.
                drop(law);
                let turn = match &turns {
                    Ok(committed) if committed[number] => Turn::Committed,
                    Ok(_) | Err(Fault::Refused(_)) => Turn::Alone,
                    Err(Fault::Away(why)) => Turn::Away(why.clone()),
                };
                let _ = answer.send(turn);
            }
            if let Err(Fault::Refused(why)) = &turns {
                warn!("a transaction of tapes together ({tapes}) was refused, each goes alone: {why}");
            }
        }
    }

    /// One transaction, as long as the server answers.
    async fn carry_out_batch(&self, batch: &mut [Request]) -> Result<Vec<bool>, Fault> {
        let client = self.client().await.map_err(|error| Fault::Away(error.to_string()))?;
        let transaction = async {
            match batch {
                [one] => self.transact_one(&client, one).await,
                several => self.transact(&client, several).await,
            }
        };
        match tokio::time::timeout(LONGEST, transaction).await {
            Ok(turns) => turns,
            Err(_) => {
                // Nobody else shall have a connection that does not answer.
                drop(Client::take(client));
                Err(Fault::Away(format!("PostgreSQL has not answered for {} s", LONGEST.as_secs())))
            }
        }
    }

    /// As [`Store::locked`], but for rows that are not free: what several are written by costs more than it spares one.
    async fn transact_one(&self, client: &Client, request: &mut Request) -> Result<Vec<bool>, Fault> {
        let Request { vid, actor, law, .. } = request;
        let done = self.transaction(client, vid, false, false, actor, |locked| ask(law, locked)).await;
        match done {
            Ok(done) => Ok(vec![done.is_some()]),
            Err(StoreError::Busy(why)) => Err(Fault::Refused(why)),
            Err(error @ StoreError::Database(_)) => Err(Fault::Away(error.to_string())),
        }
    }

    /// Locks, asks the laws, writes, commits. Which of the requests are committed; after an error, none that is known of.
    async fn transact(&self, client: &Client, batch: &mut [Request]) -> Result<Vec<bool>, Fault> {
        let statements = &self.statements;
        let lock_rows = client.prepare_cached(&statements.lock_rows_together).await?;
        let lock_tasks = client.prepare_cached(&statements.lock_tasks_together).await?;
        let controls = client.prepare_cached(&statements.controls_together).await?;
        let names: Vec<String> = batch.iter().map(|request| request.vid.as_str().to_owned()).collect();
        let of_tapes: [&(dyn ToSql + Sync); 1] = [&names];
        let tx = Transaction::new(client);
        let (mut rows, mut tasks, mut control_lines) = (Vec::new(), Vec::new(), Vec::new());
        in_order::<tokio_postgres::Error>(vec![
            tx.begin().boxed(),
            async { client.query(&lock_rows, &of_tapes).await.map(|found| rows = found) }.boxed(),
            async { client.query(&lock_tasks, &of_tapes).await.map(|found| tasks = found) }.boxed(),
            async { client.query(&controls, &of_tapes).await.map(|found| control_lines = found) }.boxed(),
        ])
        .await?;
        let (rows, tasks) = (by_tape(&rows)?, by_tape(&tasks)?);
        let mut controls = read_controls(&control_lines)?;
        let mut committed = vec![false; batch.len()];
        let mut joined = Vec::with_capacity(batch.len());
        for (number, (request, name)) in batch.iter_mut().zip(&names).enumerate() {
            let (Some(row), Some(task)) = (rows.get(name.as_str()), tasks.get(name.as_str())) else { continue };
            let (Ok(clock), Ok(task)) = (Clock::read(task), read_task(task)) else { continue };
            let row = read_row(row, clock.tolerance);
            if row.is_err() {
                continue;
            }
            let control = Control { hold: controls.holds.remove(name.as_str()), paused: controls.paused.clone() };
            let vid = &request.vid;
            let before = task.clone();
            let mut locked = Locked::with(vid, (Some(row), Some(task)), control, &self.settings, clock, &request.actor);
            if ask(&mut request.law, &mut locked).is_some() && locked.is_plain() {
                joined.push(Joined { number, locked, before });
            }
        }
        self.stamp_together(client, &mut joined).await?;
        if joined.is_empty() {
            return Ok(committed);
        }
        let changed = joined.iter().filter(|one| one.locked.task.as_ref() != Some(&one.before));
        let saved: Result<Vec<Saved<'_>>, StoreError> =
            changed.filter_map(|one| one.locked.task.as_ref()).map(Saved::of).collect();
        let saved = saved.map_err(|error| Fault::Refused(error.to_string()))?;
        let lines: Vec<Line<'_>> = joined.iter().flat_map(|one| lines_of(&one.locked)).collect();
        let columns: Columns<'_> = task_columns(&saved).into_iter().chain(event_columns(&lines)).collect();
        let values: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| &**column as &(dyn ToSql + Sync)).collect();
        let save = client.prepare_cached(&statements.save_together).await?;
        let commit = async {
            #[cfg(feature = "failpoints")]
            for Joined { locked, before, .. } in &joined {
                let step = locked.step(Some(before));
                crate::failpoint::pass_at("committing", &[&step.0, step.1], locked.vid);
            }
            tx.commit().await
        };
        in_order::<tokio_postgres::Error>(vec![
            async { client.execute(&save, &values).await.map(drop) }.boxed(),
            commit.boxed(),
        ])
        .await?;
        for Joined { number, locked, .. } in &joined {
            committed[*number] = true;
            locked.notes.iter().for_each(|note| self.metrics.noted(note.kind, note.stage.as_deref(), &note.detail));
        }
        Ok(committed)
    }

    /// Sets the stamps that the laws want, those of one state at a time.
    async fn stamp_together(&self, client: &Client, joined: &mut [Joined<'_>]) -> Result<(), Fault> {
        let mut wanted: Vec<(State, Vec<String>)> = Vec::new();
        for Joined { locked, .. } in joined.iter() {
            let RowChange::Stamp(state) = locked.change else { continue };
            let name = locked.vid.as_str().to_owned();
            match wanted.iter_mut().find(|(of, _)| *of == state) {
                Some((_, names)) => names.push(name),
                None => wanted.push((state, vec![name])),
            }
        }
        for (state, names) in wanted {
            let stamp = client.prepare_cached(&self.statements.stamp(state, true)).await?;
            let rows = client.query(&stamp, &[&names]).await?;
            let rows = by_tape(&rows)?;
            for Joined { locked, .. } in joined.iter_mut().filter(|one| one.locked.change == RowChange::Stamp(state)) {
                let Some(before) = locked.tape().cloned() else { continue };
                let row = rows.get(locked.vid.as_str());
                let row = row.ok_or_else(|| Fault::Refused(format!("{} took no stamp", locked.vid)))?;
                let after = read_row(row, locked.clock.tolerance).map_err(|odd| Fault::Refused(odd.to_string()))?;
                locked.wrote(&before, &after);
            }
        }
        Ok(())
    }
}

/// None: it panicked. It does so once more where it goes alone, and is told of there.
fn ask(law: &mut Law, locked: &mut Locked<'_>) -> Option<()> {
    std::panic::catch_unwind(AssertUnwindSafe(|| law(locked))).ok()
}

impl Locked<'_> {
    /// The law wants no more than a stamp, the task row and the history.
    fn is_plain(&self) -> bool {
        let stamped = matches!(self.change, RowChange::Keep | RowChange::Stamp(_));
        let edited = self.mode.is_some() || self.priority.is_some() || self.responsible.is_some();
        stamped
            && !edited
            && self.hold.is_none()
            && self.enter.is_none()
            && self.statistics.is_none()
            && self.task.is_some()
    }
}

/// A request under its locks, with its law's will.
struct Joined<'a> {
    /// Which of the requests.
    number: usize,
    locked: Locked<'a>,
    before: Task,
}

/// What cannot be read of one may be read of the others.
fn unread(error: tokio_postgres::Error) -> Fault {
    Fault::Refused(error.to_string())
}

fn by_tape(rows: &[Row]) -> Result<HashMap<&str, &Row>, Fault> {
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let name: &str = row.try_get("tape").map_err(unread)?;
        if found.insert(name, row).is_some() {
            return Err(Fault::Refused(format!("{name} has several rows")));
        }
    }
    Ok(found)
}

#[derive(Default)]
struct Controls {
    holds: HashMap<String, Hold>,
    paused: Vec<String>,
}

fn read_controls(lines: &[Row]) -> Result<Controls, Fault> {
    let mut controls = Controls::default();
    for line in lines {
        let text = |column: &str| line.try_get::<_, String>(column).map_err(unread);
        match text("kind")?.as_str() {
            "hold" => {
                let until = line.try_get("until").map_err(unread)?;
                controls.holds.insert(text("name")?, Hold { who: text("who")?, why: text("why")?, until });
            }
            _ => controls.paused.push(text("name")?),
        }
    }
    Ok(controls)
}

/// What is written of several tapes, column by column, in the order of the statement.
type Columns<'a> = Vec<Box<dyn ToSql + Sync + Send + 'a>>;

fn column<'a, O, T: ToSql + Sync + Send + 'a>(
    of: &'a [O],
    value: impl Fn(&'a O) -> T,
) -> Box<dyn ToSql + Sync + Send + 'a> {
    Box::new(of.iter().map(value).collect::<Vec<T>>())
}

fn task_columns<'a>(saved: &'a [Saved<'a>]) -> Columns<'a> {
    vec![
        column(saved, |of| of.vid),
        column(saved, |of| &of.task.stage),
        column(saved, |of| of.task.generation),
        column(saved, |of| of.task.epoch),
        column(saved, |of| of.task.dispatched_at),
        column(saved, |of| &of.task.owner),
        column(saved, |of| of.task.lease_until),
        column(saved, |of| &of.intent),
        column(saved, |of| of.task.attempts),
        column(saved, |of| of.task.crashes),
        column(saved, |of| &of.next),
        column(saved, |of| of.task.settle_until),
        column(saved, |of| of.task.slot_since),
        column(saved, |of| of.wanted),
        column(saved, |of| of.task.round),
        column(saved, |of| &of.progress),
        column(saved, |of| of.task.progress_at),
        column(saved, |of| of.outcome),
        column(saved, |of| of.code),
        column(saved, |of| of.reason),
        column(saved, |of| &of.memory),
        column(saved, |of| of.seen_xmin),
        column(saved, |of| &of.seen),
    ]
}

/// A line of the history: the tape, its journey, who acts, what.
type Line<'a> = (&'a str, Option<DateTime<Utc>>, &'a str, &'a Note);

fn lines_of<'a>(locked: &'a Locked<'_>) -> impl Iterator<Item = Line<'a>> {
    let journey = locked.tape().map(|tape| tape.stamps.begun());
    locked.notes.iter().map(move |note| (locked.vid.as_str(), journey, locked.actor.as_str(), note))
}

fn event_columns<'a>(lines: &'a [Line<'a>]) -> Columns<'a> {
    vec![
        column(lines, |(tape, ..)| *tape),
        column(lines, |(_, journey, ..)| *journey),
        column(lines, |(_, _, actor, _)| *actor),
        column(lines, |(.., note)| &note.stage),
        column(lines, |(.., note)| note.kind),
        column(lines, |(.., note)| &note.detail),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = oneshot::Receiver<Turn>;

    /// Asks for the tape of this number. True: a runner must be sent.
    fn ask(together: &Together, number: usize) -> (bool, Answer) {
        let (answer, answered) = oneshot::channel();
        let vid = format!("V{number:05}").parse().expect("a VID");
        (together.push(Request { vid, actor: "test".into(), law: Box::new(|_| {}), answer }), answered)
    }

    fn counts(together: &Together) -> (usize, usize, usize) {
        let queue = together.queue();
        (queue.waiting.len(), queue.running, queue.carried)
    }

    #[test]
    fn a_few_go_at_once_and_who_comes_then_waits_for_the_first_that_is_done() {
        let together = Arc::new(Together::default());
        let mut runners = Vec::new();
        for number in 0..FEW {
            let (send, _) = ask(&together, number);
            assert!(send, "{number}");
            let mut one = Runner::new(&together);
            assert_eq!(one.next().expect("its own").len(), 1);
            runners.push(one);
        }
        for number in 10..15 {
            assert!(!ask(&together, number).0, "{number}");
        }
        assert_eq!(counts(&together), (5, FEW, FEW));
        assert_eq!(runners[0].next().expect("all who wait").len(), 5);
        assert_eq!(counts(&together), (0, FEW, FEW - 1 + 5));
        // Who comes now waits for any of them; those that are few leave it to the one that carries many.
        assert!(!ask(&together, 20).0);
        assert!(runners[1].next().is_none());
        assert!(!ask(&together, 21).0);
        assert_eq!(runners[0].next().expect("both").len(), 2);
        for one in &mut runners {
            assert!(one.gone || one.next().is_none());
        }
        drop(runners);
        assert_eq!(counts(&together), (0, 0, 0));
        assert!(ask(&together, 30).0);
    }

    #[test]
    fn of_many_one_takes_as_many_as_may_go_and_the_others_leave() {
        let together = Arc::new(Together::default());
        let answers: Vec<(bool, Answer)> = (0..LARGEST + 7).map(|number| ask(&together, number)).collect();
        assert_eq!(answers.iter().filter(|(send, _)| *send).count(), FEW);
        let mut runners: Vec<Runner> = (0..FEW).map(|_| Runner::new(&together)).collect();
        assert_eq!(runners[2].next().expect("the first").len(), LARGEST);
        for other in [0, 1, 3] {
            assert!(runners[other].next().is_none());
        }
        assert_eq!(counts(&together), (7, 1, LARGEST));
        assert_eq!(runners[2].next().expect("the rest").len(), 7);
        assert!(runners[2].next().is_none());
        assert_eq!(counts(&together), (0, 0, 0));
    }

    #[test]
    fn a_tape_is_in_a_transaction_once() {
        let together = Arc::new(Together::default());
        for number in [1, 2, 1, 3, 1] {
            let _ = ask(&together, number);
        }
        let mut one = Runner::new(&together);
        let names = |batch: Vec<Request>| batch.iter().map(|request| request.vid.to_string()).collect::<Vec<_>>();
        assert_eq!(names(one.next().expect("three")), ["V00001", "V00002", "V00003"]);
        assert_eq!(names(one.next().expect("the second")), ["V00001"]);
        assert_eq!(names(one.next().expect("the third")), ["V00001"]);
        assert!(one.next().is_none());
    }

    #[test]
    fn a_runner_that_is_lost_leaves_nobody_waiting_and_nothing_counted() {
        let together = Arc::new(Together::default());
        let (_, first) = ask(&together, 1);
        let mut lost = Runner::new(&together);
        let batch = lost.next();
        let (_, mut second) = ask(&together, 2);
        drop((batch, lost));
        let mut first = first;
        assert!(matches!(first.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(matches!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        // The one that was asked for and never sent.
        drop(Runner::new(&together));
        assert_eq!(counts(&together), (0, 0, 0));
    }
}

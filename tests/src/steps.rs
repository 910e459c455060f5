//! Steps that journeys have in common: bringing tapes to a state, what an operator does, what the history says.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use chrono::{DateTime, Utc};
use common::journey::{Mode, State};
use common::stages::STAGES;
use common::store::{EventFilter, EventRow};
use common::task::Wanted;
use cta_sim::{Entry, Kind};
use producer::tick::TickReport;

use crate::site::{PATIENCE, Site, program};

/// A pause between two looks at something that is about to happen.
pub async fn moment() {
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
}

/// Waits until `done` holds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        moment().await;
    }
}

/// Calls of `cta-admin` that a test can hold up at will.
pub struct Barrier {
    gate: PathBuf,
    reached: PathBuf,
}

impl Barrier {
    /// Every call from now on whose arguments contain `words` waits, before it does anything, until the barrier is opened.
    pub fn raise(&self, words: &str) {
        let _ = std::fs::remove_file(&self.reached);
        let fresh = self.gate.with_extension("fresh");
        std::fs::write(&fresh, words).expect("the barrier");
        std::fs::rename(fresh, &self.gate).expect("the barrier");
    }

    /// Waits until a call is held up.
    pub async fn reached(&self) {
        until("a call at the barrier", || self.reached.exists()).await;
    }

    /// Lets all go on.
    pub fn open(&self) {
        std::fs::remove_file(&self.gate).expect("the barrier");
    }
}

impl Site {
    /// Puts a barrier before the simulated `cta-admin`; it is open.
    pub fn barrier(&mut self) -> Barrier {
        let file = |name: &str| self.dir.path().join(name);
        let (gate, reached, path) = (file("barrier"), file("at-barrier"), file("cta-admin-with-barrier"));
        let script = format!(
            "#!/bin/sh\nif words=$(cat '{gate}' 2>/dev/null); then case \" $* \" in *\"$words\"*) : > '{reached}'; \
             while [ -e '{gate}' ]; do sleep 0.02; done;; esac; fi\nCTA_SIM_WORLD='{world}' exec '{program}' \"$@\"\n",
            gate = gate.display(),
            reached = reached.display(),
            world = self.world_dir().display(),
            program = program("cta-admin").display(),
        );
        // By a child: a thread of ours that forks while the file is open would keep it busy.
        let written = Command::new("/bin/sh")
            .args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", &script])
            .arg(&path)
            .status()
            .expect("a shell");
        assert!(written.success());
        self.settings.cta_admin.program = path;
        Barrier { gate, reached }
    }

    /// Ticks the stages before `state` until all these tapes are in it.
    pub async fn bring(&self, vids: &[&str], state: State) {
        let begun = Instant::now();
        loop {
            self.tick_of(&STAGES[..state as usize]).await;
            let rows = self.rows().await;
            let there = |vid: &&str| {
                rows.iter().any(|row| {
                    row.row.as_ref().is_ok_and(|tape| {
                        assert!(tape.vid.as_str() != *vid || tape.mode != Mode::Error, "{vid} was stopped: {row:#?}");
                        tape.vid.as_str() == *vid && tape.state() == state
                    })
                })
            };
            if vids.iter().all(there) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not all {state} within {PATIENCE:?}: {rows:#?}");
            moment().await;
        }
    }

    /// Ticks everything until this tape is finished.
    pub async fn finish(&self, vid: &str) {
        self.tick_until(&format!("{vid} at rest"), |rows| {
            rows.iter().any(|row| {
                row.row.as_ref().is_ok_and(|tape| {
                    tape.vid.as_str() == vid && (tape.state() == State::Finished || tape.mode != Mode::Auto)
                })
            })
        })
        .await;
        assert_eq!(self.at(vid).await, (State::Finished, Mode::Auto), "{vid}: {:?}", self.why(vid).await);
    }

    /// Ticks until every tape but this one is finished.
    pub async fn finish_others(&self, vid: &str) {
        self.tick_until(&format!("all but {vid} finished"), |rows| {
            rows.iter().all(|row| {
                row.row.as_ref().is_ok_and(|tape| tape.vid.as_str() == vid || tape.state() == State::Finished)
            })
        })
        .await;
    }

    /// Nobody works on this tape before [`Site::release`].
    pub async fn hold(&self, vid: &str) {
        self.store().set_control("hold", vid, "a test has another one in hand", None).await.expect("the hold");
    }

    /// Takes the hold away.
    pub async fn release(&self, vid: &str) {
        assert!(self.store().drop_control("hold", vid).await.expect("the hold"), "{vid} was not held");
    }

    /// What the operator's `requeue` does.
    pub async fn requeue(&self, vid: &str) {
        let vid = vid.parse().expect("a VID");
        let store = self.store();
        let requeued = store.locked(&vid, false, |locked| {
            let (tape, task, ground, notes) = locked.parts();
            let (tape, task) = (tape.expect("a lawful row"), task.as_mut().expect("a task"));
            notes.extend(task.notice(tape, &ground));
            task.requeue(tape, &ground);
            locked.mode = Some(Mode::Auto);
        });
        requeued.await.expect("the requeue");
    }

    /// What the operator's `retry-failed`, `abort` and `unstick` do.
    pub async fn want(&self, vid: &str, wanted: Wanted) {
        let vid = vid.parse().expect("a VID");
        let store = self.store();
        let asked = store.locked(&vid, true, |locked| {
            let (tape, task, ground, notes) = locked.parts();
            let (tape, task) = (tape.expect("a lawful row"), task.as_mut().expect("a task"));
            notes.extend(task.notice(tape, &ground));
            task.want(wanted, &ground);
            locked.mode = Some(Mode::Auto);
        });
        asked.await.expect("the wish");
    }

    /// The tape's history, oldest first.
    pub async fn events(&self, vid: &str) -> Vec<EventRow> {
        let filter = EventFilter { tape: Some(vid.parse().expect("a VID")), ..EventFilter::default() };
        self.store().events(&filter, 10_000).await.expect("the history")
    }

    /// The events of one kind.
    pub async fn events_of(&self, vid: &str, kind: &str) -> Vec<EventRow> {
        self.events(vid).await.into_iter().filter(|event| event.kind == kind).collect()
    }

    /// The main table, as SQL names it.
    pub fn table(&self) -> String {
        self.settings.database.table.to_string()
    }

    /// The table beside it with this suffix (`_task`).
    pub fn beside(&self, suffix: &str) -> String {
        self.settings.database.table.with_suffix(suffix)
    }

    /// Waits until no tape waits for a time: stamps are rounded to seconds, so a new one may lie a little ahead.
    pub async fn all_due(&self) {
        let query = format!(
            "SELECT count(*) FROM {} WHERE next_attempt_at > clock_timestamp() AND next_attempt_at < 'infinity'",
            self.beside("_task")
        );
        let begun = Instant::now();
        while self.number(&query).await > 0 {
            assert!(begun.elapsed() < PATIENCE, "a tape waits for longer than {PATIENCE:?}");
            moment().await;
        }
    }

    /// One number from the database.
    pub async fn number(&self, query: &str) -> i64 {
        self.database.client().await.query_one(query, &[]).await.expect("the query").get(0)
    }

    /// Changing commands of this tape that were begun, whatever came of them.
    pub fn begun(&self, vid: &str) -> Vec<Entry> {
        let of_tape = |entry: &Entry| entry.kind == Kind::Begin && entry.changing && entry.vid.as_deref() == Some(vid);
        self.journal().into_iter().filter(of_tape).collect()
    }

    /// How often a change was tried on this tape, whatever came of it, in the words of [`Site::changes`].
    pub fn tries(&self, vid: &str, change: &str) -> usize {
        let is_it = |entry: &&Entry| {
            change.starts_with(&entry.command) && change.split(' ').all(|word| entry.argv.iter().any(|arg| arg == word))
        };
        self.begun(vid).iter().filter(is_it).count()
    }

    /// How often a change was made to this tape, in the words of [`Site::changes`].
    pub fn times(&self, vid: &str, change: &str) -> usize {
        self.changes().get(vid).map_or(0, |changes| changes.iter().filter(|made| *made == change).count())
    }
}

/// Real time of a journal line.
pub fn time_of(entry: &Entry) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(i64::try_from(entry.at_us).expect("a time of this century")).expect("a time")
}

/// Tapes that a tick reports as done, waiting, to be retried or stopped: nobody else was worked on.
pub fn worked_on(report: &TickReport) -> Vec<String> {
    let mut vids = Vec::new();
    for part in &report.stages {
        vids.extend(part.done.iter().cloned());
        for list in [&part.not_yet, &part.retrying, &part.stopped] {
            vids.extend(list.iter().map(|with| with.vid.clone()));
        }
    }
    vids
}

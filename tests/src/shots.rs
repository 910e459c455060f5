//! Shots: a fault at one fail point, for one tape, and how long the interrupted step took to be done by somebody else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use common::journey::State;
use common::store::{EventFilter, EventRow, Overview};
use futures_util::future::BoxFuture;
use rustix::process::Signal;

use crate::crew::{Crew, is_stopped, signal};
use crate::site::{PATIENCE, Site};

/// What happens to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT when its lease is long over and, where others can, somebody else has done the step.
    Stop,
    /// SIGTERM.
    Term,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 3] = [Fault::Kill, Fault::Stop, Fault::Term];

    fn action(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Stop => "stop",
            Fault::Term => "term",
        }
    }
}

/// The step that is interrupted, by what the history says when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The tape reaches this state.
    To(State),
    /// What an operator asked for is done.
    Wish,
    /// The tape is in mode error.
    Error,
}

impl Step {
    fn is_done_by(self, event: &EventRow) -> bool {
        match self {
            Step::To(state) => event.kind == "done" && event.detail["to"] == state.to_string(),
            Step::Wish => event.kind == "fulfilled",
            Step::Error => event.kind == "error",
        }
    }
}

/// A fault at a fail point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    /// `point@place`.
    pub point: String,
    /// What happens there.
    pub fault: Fault,
    /// What is interrupted.
    pub step: Step,
    /// The tape that it happens to.
    pub vid: String,
}

/// What is measured of a shot.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Which.
    pub shot: Shot,
    /// From the fault to the step done; zero where it was done before.
    pub took: Duration,
}

/// Shots at the tapes of a site.
pub struct Range {
    shots: Vec<Shot>,
    marks: PathBuf,
    /// How long a stopped process stays so at least.
    pub hold: Duration,
    /// A process that is stopped keeps nobody else from the step.
    pub others_can: bool,
    /// Is run, with the number of the process, while that is stopped; then the process goes on at once.
    pub meanwhile: Option<Meanwhile>,
}

/// What is done to the world while a process is stopped at a fail point.
pub type Meanwhile = Box<dyn Fn(u32) -> BoxFuture<'static, ()>>;

impl Range {
    /// At a site.
    ///
    /// # Panics
    /// When the directory for the marks cannot be made.
    pub fn at(site: &Site, shots: Vec<Shot>) -> Range {
        let marks = site.dir.path().join("m");
        std::fs::create_dir_all(&marks).expect("a directory for the marks");
        Range { shots, marks, hold: site.settings.lease + Duration::from_secs(1), others_can: true, meanwhile: None }
    }

    /// All shots.
    pub fn shots(&self) -> &[Shot] {
        &self.shots
    }

    /// The fail points, as a program is told of them.
    pub fn armed(&self) -> String {
        let one = |shot: &Shot| {
            let mark = self.mark(shot);
            format!("{}:{}:once-{}-{}", shot.point, shot.vid, mark.display(), shot.fault.action())
        };
        self.shots.iter().map(one).collect::<Vec<_>>().join(";")
    }

    fn mark(&self, shot: &Shot) -> PathBuf {
        self.marks.join(&shot.vid)
    }

    /// When a shot was fired, and the process that was hit.
    fn fired(&self, shot: &Shot) -> Option<(DateTime<Utc>, u32)> {
        let path = self.mark(shot);
        let pid = std::fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        let at = std::fs::metadata(&path).and_then(|mark| mark.modified()).ok()?;
        Some((at.into(), pid))
    }

    /// Numbers of the processes that were killed or stopped.
    pub fn struck(&self) -> Vec<u32> {
        let hard = self.shots.iter().filter(|shot| shot.fault != Fault::Term);
        hard.filter_map(|shot| self.fired(shot)).map(|(_, pid)| pid).collect()
    }

    /// Keeps the crews running until every shot was fired, every stopped process goes on again, and the rows are where they
    /// should be.
    ///
    /// # Panics
    /// When nothing moves for [`PATIENCE`].
    pub async fn until(&self, site: &Site, crews: &mut [&mut Crew], done: impl Fn(&[Overview]) -> bool) -> Vec<Hit> {
        self.most_until(site, crews, PATIENCE, done).await.0
    }

    /// As [`Range::until`], but when the rows are where they should be and nothing moved for `grace`, shots that were not fired
    /// come back: a process that has several tapes in hand at once, and is hit over one, misses what it would have passed
    /// with the others.
    ///
    /// # Panics
    /// As [`Range::until`].
    pub async fn most_until(
        &self,
        site: &Site,
        crews: &mut [&mut Crew],
        grace: Duration,
        done: impl Fn(&[Overview]) -> bool,
    ) -> (Vec<Hit>, Vec<Shot>) {
        let mut still_stopped: Vec<&Shot> = self.shots.iter().filter(|shot| shot.fault == Fault::Stop).collect();
        let mut last = (String::new(), Instant::now());
        loop {
            crews.iter_mut().for_each(|crew| crew.keep());
            let events = by_tape(site).await;
            let store = site.store();
            let now = store.overview(None, None, true).await.expect("the rows");
            let clock = Utc::now();
            let mut stopped = Vec::new();
            for shot in still_stopped {
                if !self.goes_on(shot, &events, clock).await {
                    stopped.push(shot);
                }
            }
            still_stopped = stopped;
            let missing: Vec<&Shot> = self.shots.iter().filter(|shot| self.fired(shot).is_none()).collect();
            let all_stopped_went_on = still_stopped.iter().all(|shot| missing.contains(shot));
            let missed = missing.is_empty() || (grace < PATIENCE && last.1.elapsed() > grace);
            if done(&now) && all_stopped_went_on && missed {
                // Read again: the rows may have come to rest after the events were read.
                let events = by_tape(site).await;
                let fired = self.shots.iter().filter(|shot| !missing.contains(shot));
                return (fired.map(|shot| self.hit(shot, &events)).collect(), missing.into_iter().cloned().collect());
            }
            let count: usize = events.values().map(Vec::len).sum();
            let standing = format!("{count} {}", still_stopped.len());
            if standing != last.0 {
                last = (standing, Instant::now());
            }
            if last.1.elapsed() > PATIENCE {
                panic!("nothing moves any more; not fired: {missing:#?}; stopped: {still_stopped:#?}; rows: {now:#?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Lets a stopped process go on when its time has come.
    async fn goes_on(&self, shot: &Shot, events: &BTreeMap<String, Vec<EventRow>>, now: DateTime<Utc>) -> bool {
        let Some((at, pid)) = self.fired(shot) else { return false };
        if let Some(meanwhile) = &self.meanwhile {
            if !is_stopped(pid) {
                return false;
            }
            meanwhile(pid).await;
            signal(pid, Signal::CONT);
            return true;
        }
        let age = (now - at).to_std().unwrap_or_default();
        let waited_for = self.others_can && !shot.point.starts_with("committing") && done_at(shot, events).is_none();
        if age < self.hold || (waited_for && age < self.hold * 4) {
            return false;
        }
        assert!(is_stopped(pid), "{shot:?}: the process was not stopped");
        signal(pid, Signal::CONT);
        true
    }

    fn hit(&self, shot: &Shot, events: &BTreeMap<String, Vec<EventRow>>) -> Hit {
        let (fired, _) = self.fired(shot).expect("it was fired");
        let done = done_at(shot, events).unwrap_or_else(|| panic!("{shot:?}: the step was never done"));
        Hit { shot: shot.clone(), took: (done - fired).max(TimeDelta::zero()).to_std().unwrap_or_default() }
    }
}

/// When the interrupted step was done; the first time after the fault cannot be told from one before, and need not.
fn done_at(shot: &Shot, events: &BTreeMap<String, Vec<EventRow>>) -> Option<DateTime<Utc>> {
    events.get(&shot.vid)?.iter().find(|event| shot.step.is_done_by(event)).map(|event| event.at)
}

async fn by_tape(site: &Site) -> BTreeMap<String, Vec<EventRow>> {
    let mut by_tape: BTreeMap<String, Vec<EventRow>> = BTreeMap::new();
    let store = site.store();
    for kind in ["done", "fulfilled", "error"] {
        let filter = EventFilter { kind: Some(kind.to_owned()), ..EventFilter::default() };
        for event in store.events(&filter, 1_000_000).await.expect("the history") {
            by_tape.entry(event.tape.clone()).or_default().push(event);
        }
    }
    by_tape
}

/// A table of what was measured: for each fail point and fault how long the step took, beside the time that is promised.
pub fn report(what: &str, site: &Site, hits: &[Hit]) -> String {
    let promised = site.settings.lease + site.settings.settle + site.settings.producer.interval;
    let mut text = format!(
        "{what}: {} shots; from the fault to the step done, in seconds (lease + settle + tick = {:.1})\n",
        hits.len(),
        promised.as_secs_f64()
    );
    let mut by_point: BTreeMap<&str, BTreeMap<Fault, Duration>> = BTreeMap::new();
    for hit in hits {
        by_point.entry(&hit.shot.point).or_default().insert(hit.shot.fault, hit.took);
    }
    for (point, times) in by_point {
        text += &format!("  {point:<42}");
        for fault in Fault::ALL {
            let shown = times.get(&fault).map_or_else(|| "-".to_owned(), |took| format!("{:.1}", took.as_secs_f64()));
            text += &format!(" {} {shown:>5}", fault.action());
        }
        text += "\n";
    }
    text
}

/// Prints a report, and keeps it in the directory `REPACK_TEST_REPORT` if that is set.
///
/// # Panics
/// When it cannot be written there.
pub fn tell(name: &str, text: &str) {
    eprintln!("{text}");
    if let Some(directory) = std::env::var_os("REPACK_TEST_REPORT") {
        let directory = PathBuf::from(directory);
        std::fs::create_dir_all(&directory).expect("the directory of the reports");
        std::fs::write(directory.join(format!("{name}.txt")), text).expect("the report");
    }
}

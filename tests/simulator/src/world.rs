//! The world: clock, processes, and everything they share. One thread; a process is a future that is polled when the
//! scheduler picks it, and a crash is that future being dropped.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use chrono::{DateTime, TimeDelta, Utc};
use common::settings::Settings;
use common::tape::Vid;

use crate::broker::Broker;
use crate::cta::Catalogue;
use crate::database::Tables;
use crate::mutation::Mutation;
use crate::profile::Profile;
use crate::random::Random;

/// The world, shared by its processes.
pub type Sim = Rc<RefCell<World>>;

/// Milliseconds that never come.
pub const NEVER: i64 = i64::MAX;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its number, 1 to 10.
    pub invariant: u8,
    /// What was seen.
    pub text: String,
}

/// What runs.
pub struct Process {
    /// For the trace.
    pub name: String,
    /// The host it runs on; none for people.
    pub host: Option<usize>,
    /// What it does; taken out while it is polled.
    pub future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Not polled before.
    pub wake: i64,
    /// Stopped until then, without knowing it.
    pub paused_until: i64,
    /// Waits for a message.
    pub listens: bool,
}

/// Everything.
pub struct World {
    /// Milliseconds since the beginning.
    pub now: i64,
    /// Steps done.
    pub steps: u64,
    /// The dice.
    pub random: Random,
    /// What this seed is like.
    pub profile: Profile,
    /// What is wrong on purpose.
    pub mutation: Option<Mutation>,
    /// Faults happen.
    pub stormy: bool,
    /// The configuration.
    pub settings: Arc<Settings>,
    /// The database.
    pub tables: Tables,
    /// The broker.
    pub broker: Broker,
    /// CTA.
    pub cta: Catalogue,
    /// What each process has published in its tick: a task once.
    pub published: std::collections::BTreeSet<(usize, Vid, i64)>,
    /// A tape that people look at just now, and when.
    pub watched: Option<(i64, Vid)>,
    /// Tapes that we put into mode error, and nobody has edited since.
    pub blamed: std::collections::BTreeSet<Vid>,
    /// The processes, by number; a dead one has no future.
    pub processes: Vec<Process>,
    /// The process that is polled now.
    pub current: usize,
    wake: i64,
    /// Of parts of the current process that are only polled when they are woken.
    wakers: Vec<(usize, Waker)>,
    /// The first thing that went wrong.
    pub violation: Option<Violation>,
    /// What happened, if somebody wants to know.
    pub trace: Option<Vec<String>>,
    /// What this run came to.
    pub tally: Tally,
}

/// What a run came to: to see that it went everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps of the scheduler.
    pub steps: u64,
    /// Stamps set by workers.
    pub stamps: u64,
    /// Journeys that came to their end.
    pub finished: u64,
    /// Tapes given back.
    pub given_back: u64,
    /// Tapes put into mode error.
    pub errors: u64,
    /// Changing commands started.
    pub commands: u64,
    /// Changing commands that ended unclear.
    pub unclear: u64,
    /// Commands that had their effect after they had ended.
    pub late: u64,
    /// Commands not run because the deadline was over.
    pub too_late: u64,
    /// Claims.
    pub claims: u64,
    /// Leases closed as abandoned.
    pub abandoned: u64,
    /// Records of workers that were fenced out.
    pub fenced: u64,
    /// Programs killed.
    pub crashes: u64,
    /// Edits by people.
    pub edits: u64,
}

impl Tally {
    /// Adds another run's.
    pub fn add(&mut self, other: &Tally) {
        let Tally { steps, stamps, finished, given_back, errors, commands, unclear, late, too_late, claims, .. } =
            other;
        self.steps += steps;
        self.stamps += stamps;
        self.finished += finished;
        self.given_back += given_back;
        self.errors += errors;
        self.commands += commands;
        self.unclear += unclear;
        self.late += late;
        self.too_late += too_late;
        self.claims += claims;
        self.abandoned += other.abandoned;
        self.fenced += other.fenced;
        self.crashes += other.crashes;
        self.edits += other.edits;
    }
}

/// When the clock of the database stood at zero.
pub fn instant(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time of our century") + TimeDelta::milliseconds(ms)
}

impl World {
    /// A world in which nothing runs yet.
    pub fn new(seed: u64, mutation: Option<Mutation>, trace: bool) -> World {
        let mut random = Random::new(seed);
        let profile = Profile::of(&mut random);
        let settings = Arc::new(profile.settings());
        let tables = Tables::default();
        let cta = Catalogue::new(&profile, &mut random);
        World {
            now: 0,
            steps: 0,
            random,
            profile,
            mutation,
            stormy: true,
            settings,
            tables,
            broker: Broker::default(),
            cta,
            published: std::collections::BTreeSet::new(),
            watched: None,
            blamed: std::collections::BTreeSet::new(),
            processes: Vec::new(),
            current: 0,
            wake: NEVER,
            wakers: Vec::new(),
            violation: None,
            trace: trace.then(Vec::new),
            tally: Tally::default(),
        }
    }

    /// The database's clock.
    pub fn time(&self) -> DateTime<Utc> {
        instant(self.now)
    }

    /// This fault of the protocol is put in.
    pub fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// One line of the trace.
    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if self.trace.is_some() {
            let name = self.processes.get(self.current).map_or("", |process| process.name.as_str());
            let (seconds, ms) = (self.now / 1000, self.now % 1000);
            let line = format!(
                "{:>3}d {:02}:{:02}:{:02}.{ms:03} {name:<12} {}",
                seconds / 86400,
                seconds / 3600 % 24,
                seconds / 60 % 60,
                seconds % 60,
                text()
            );
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    /// An invariant does not hold. Only the first is kept.
    pub fn violate(&mut self, invariant: u8, text: impl Into<String>) {
        let text = text.into();
        self.say(|| format!("INVARIANT {invariant} DOES NOT HOLD: {text}"));
        self.violation.get_or_insert(Violation { invariant, text });
    }

    /// A fault with this chance, while there are faults.
    pub fn fault(&mut self, once_in: u64) -> bool {
        self.stormy && self.random.once_in(once_in)
    }

    /// How long a step takes: mostly a moment.
    pub fn moment(&mut self) -> i64 {
        match self.random.index(40) {
            0 => self.random.of(1000..30_000),
            1..=8 => self.random.of(50..1500),
            _ => self.random.of(0..50),
        }
    }

    fn wake_at(&mut self, at: i64) {
        self.wake = self.wake.min(at);
    }

    /// Somebody put a message into a queue, or something else changed that processes wait for.
    pub fn rouse(&mut self) {
        let now = self.now;
        for process in self.processes.iter_mut().filter(|process| process.listens) {
            process.wake = process.wake.min(now);
        }
    }

    /// Somebody is about to change this tape, in the middle of what is being done to it.
    pub fn watch(&mut self, vid: &Vid) {
        let at = self.now + self.random.of(0..8000);
        self.watched = Some((at, vid.clone()));
        for process in self.processes.iter_mut().filter(|process| process.host.is_none()) {
            process.wake = process.wake.min(at);
        }
    }

    /// The tape that is watched, if it is time.
    pub fn take_watched(&mut self) -> Option<Vid> {
        let now = self.now;
        self.watched.take_if(|(at, _)| *at <= now).map(|(_, vid)| vid)
    }

    /// A tape of this simulation.
    pub fn vid(number: usize) -> Vid {
        format!("V{number:05}").parse().expect("a VID")
    }
}

/// Lets this much time pass, and everybody else have a turn.
pub fn pause(sim: &Sim, ms: i64) -> Pause {
    Pause { sim: Rc::clone(sim), ms, at: None }
}

/// See [`pause`].
pub struct Pause {
    sim: Sim,
    ms: i64,
    at: Option<i64>,
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut world = self.sim.borrow_mut();
        let at = match self.at {
            Some(at) if world.now >= at => return Poll::Ready(()),
            Some(at) => at,
            None => world.now.saturating_add(self.ms),
        };
        world.wake_at(at);
        if !context.waker().will_wake(Waker::noop()) {
            let current = world.current;
            world.wakers.push((current, context.waker().clone()));
        }
        drop(world);
        self.at = Some(at);
        Poll::Pending
    }
}

/// People do something now and then, or just when something is being done: then the tape is given.
pub fn idle(sim: &Sim, ms: i64) -> Idle {
    Idle(pause(sim, ms))
}

/// See [`idle`].
pub struct Idle(Pause);

impl Future for Idle {
    type Output = Option<Vid>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Vid>> {
        let watched = self.0.at.and_then(|_| self.0.sim.borrow_mut().take_watched());
        if watched.is_some() {
            return Poll::Ready(watched);
        }
        let done = Pin::new(&mut self.0).poll(context);
        let mut world = self.0.sim.borrow_mut();
        if let Some((at, _)) = world.watched {
            world.wake_at(at);
        }
        done.map(|()| None)
    }
}

/// A step that takes a moment.
pub async fn step(sim: &Sim) {
    let ms = sim.borrow_mut().moment();
    pause(sim, ms).await;
}

/// Starts a process.
pub fn spawn(sim: &Sim, name: String, host: Option<usize>, future: impl Future<Output = ()> + 'static) -> usize {
    let mut world = sim.borrow_mut();
    let delay = world.random.of(0..2000);
    let wake = world.now + delay;
    world.processes.push(Process { name, host, future: Some(Box::pin(future)), wake, paused_until: 0, listens: false });
    world.processes.len() - 1
}

/// Polls one process once.
pub fn poll(sim: &Sim, number: usize) {
    let (future, wakers): (_, Vec<_>) = {
        let mut world = sim.borrow_mut();
        world.current = number;
        world.wake = NEVER;
        let wakers = if world.wakers.is_empty() {
            Vec::new()
        } else {
            let (mine, others) =
                std::mem::take(&mut world.wakers).into_iter().partition(|(process, _)| *process == number);
            world.wakers = others;
            mine
        };
        (world.processes[number].future.take(), wakers)
    };
    wakers.into_iter().for_each(|(_, waker)| waker.wake());
    let Some(mut future) = future else { return };
    let done = future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
    let mut world = sim.borrow_mut();
    let wake = world.wake;
    let process = &mut world.processes[number];
    process.wake = wake;
    if !done {
        process.future = Some(future);
    }
}

impl World {
    /// The current process waits for a message, and for this time.
    pub fn listen_until(&mut self, at: i64) {
        let current = self.current;
        self.processes[current].listens = true;
        self.wake_at(at);
    }

    /// The current process has a message.
    pub fn stop_listening(&mut self) {
        let current = self.current;
        self.processes[current].listens = false;
    }

    /// What the consumers of a host held comes again.
    pub fn return_letters(&mut self, host: usize) {
        let hosts: Vec<Option<usize>> = self.processes.iter().map(|process| process.host).collect();
        self.broker.give_back(|holder| hosts.get(holder).copied().flatten() == Some(host));
        self.rouse();
    }
}

/// A result for the trace; an error as it is told to people, without a backtrace.
pub fn told<T: std::fmt::Debug, E: std::fmt::Display>(result: &Result<T, E>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("failed: {error}"),
    }
}

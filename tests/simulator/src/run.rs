//! One seed: the scheduler picks who takes the next step, and what goes wrong.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use common::broker::Task as Message;
use common::stages::STAGES;
use tokio::sync::watch;

use crate::broker::{Queue, stage_queue};
use crate::check;
use crate::mutation::Mutation;
use crate::people;
use crate::programs::{enter, start_producer, start_worker};
use crate::world::{NEVER, Sim, Tally, Violation, World, poll, spawn};

/// After the storm: how long everything may take to come to its end, in milliseconds.
const CALM: i64 = 20 * 86_400_000;

/// More steps than any run needs.
const STEPS: u64 = 400_000;

/// Lines of a trace that are shown.
const SHOWN: usize = 120;

/// A seed with which an invariant does not hold.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What does not hold.
    pub violation: Violation,
    /// What had happened, the newest last.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, violation, trace } = self;
        let skipped = trace.len().saturating_sub(SHOWN);
        if skipped > 0 {
            writeln!(f, "({skipped} lines before)")?;
        }
        trace.iter().skip(skipped).try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "seed {seed}: invariant {} does not hold: {}", violation.invariant, violation.text)?;
        write!(f, "again, with all of the trace: cargo run -p protocol-simulator -- --trace {seed}")
    }
}

/// Runs a seed.
///
/// # Errors
/// The first invariant that does not hold, with a trace: the run is repeated to have one.
pub fn run(seed: u64, mutation: Option<Mutation>) -> Result<Tally, Box<Failure>> {
    let (violation, tally, _) = once(seed, mutation, false);
    match violation {
        None => Ok(tally),
        Some(violation) => {
            let (again, _, trace) = once(seed, mutation, true);
            assert_eq!(again.as_ref(), Some(&violation), "a seed is not repeated exactly");
            Err(Box::new(Failure { seed, violation, trace }))
        }
    }
}

/// Runs a seed without a repetition: whether, and which invariant does not hold.
pub fn verdict(seed: u64, mutation: Option<Mutation>) -> Option<Violation> {
    once(seed, mutation, false).0
}

/// Runs a seed and gives all of its trace.
pub fn traced(seed: u64, mutation: Option<Mutation>) -> (Option<Violation>, Tally, Vec<String>) {
    once(seed, mutation, true)
}

fn once(seed: u64, mutation: Option<Mutation>, trace: bool) -> (Option<Violation>, Tally, Vec<String>) {
    let sim: Sim = Rc::new(RefCell::new(World::new(seed, mutation, trace)));
    enter(Some(&sim));
    let mut scheduler = Scheduler::new(&sim);
    scheduler.go();
    // The processes hold the world: without this it would hold itself.
    let processes = std::mem::take(&mut sim.borrow_mut().processes);
    drop(processes);
    enter(None);
    let mut world = sim.borrow_mut();
    world.tally.steps = world.steps;
    (world.violation.take(), world.tally.clone(), world.trace.take().unwrap_or_default())
}

struct Scheduler {
    sim: Sim,
    /// Hosts of workers that run, and how they are told to leave at once.
    workers: Vec<Option<watch::Sender<bool>>>,
    /// Hosts to be started again, and when.
    restarts: Vec<(i64, usize)>,
    /// Hosts told to leave, and when they have.
    leaving: Vec<(i64, usize)>,
    /// Outages that end, and when.
    repairs: Vec<(i64, Part)>,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Database,
    Broker,
    Cta,
}

impl Scheduler {
    fn new(sim: &Sim) -> Scheduler {
        let profile = sim.borrow().profile.clone();
        sim.borrow_mut().say(|| format!("{profile:?}"));
        let mut scheduler = Scheduler {
            sim: Rc::clone(sim),
            workers: Vec::new(),
            restarts: Vec::new(),
            leaving: Vec::new(),
            repairs: Vec::new(),
        };
        for host in 0..profile.workers {
            scheduler.workers.push(Some(start_worker(sim, host)));
        }
        let hosts = profile.producers + usize::from(profile.inline);
        for host in 0..hosts {
            start_producer(sim, profile.workers + host, host >= profile.producers);
        }
        spawn(sim, "prepare".to_owned(), None, people::begin(Rc::clone(sim)));
        if profile.operator {
            spawn(sim, "operator".to_owned(), None, people::operator(Rc::clone(sim)));
        }
        if profile.psql {
            spawn(sim, "psql".to_owned(), None, people::psql(Rc::clone(sim)));
        }
        if profile.others {
            spawn(sim, "others".to_owned(), None, people::others(Rc::clone(sim)));
        }
        scheduler
    }

    fn go(&mut self) {
        let storm = self.sim.borrow().profile.storm;
        let mut calm = false;
        let mut look_at = 0;
        loop {
            let now = self.sim.borrow().now;
            if self.sim.borrow().violation.is_some() {
                return;
            }
            if !calm && now >= storm {
                calm = true;
                self.calm();
            }
            if calm && now >= look_at {
                if check::at_rest(&self.sim.borrow()) {
                    break;
                }
                look_at = now + 600_000;
            }
            let steps = self.sim.borrow().steps;
            if now >= storm + CALM || steps > STEPS {
                break;
            }
            self.step();
        }
        check::forgotten(&mut self.sim.borrow_mut());
    }

    /// Somebody takes a step, or time passes.
    fn step(&mut self) {
        self.mend();
        self.disturb();
        let picked = {
            let mut world = self.sim.borrow_mut();
            world.steps += 1;
            let now = world.now;
            let at = |process: &crate::world::Process| process.wake.max(process.paused_until);
            let alive = || world.processes.iter().enumerate().filter(|(_, process)| process.future.is_some());
            let ready: Vec<usize> =
                alive().filter(|(_, process)| at(process) <= now).map(|(number, _)| number).collect();
            if ready.is_empty() {
                let next = alive().map(|(_, process)| at(process)).min().unwrap_or(NEVER);
                let other = self
                    .restarts
                    .iter()
                    .chain(&self.leaving)
                    .map(|(at, _)| *at)
                    .chain(self.repairs.iter().map(|(at, _)| *at))
                    .min();
                let event = world.cta.next_event().max(now + 1);
                world.now = next.min(event).min(other.unwrap_or(NEVER)).clamp(now + 1, now + 86_400_000);
                None
            } else {
                Some(*world.random.pick(&ready))
            }
        };
        self.sim.borrow_mut().advance_cta();
        if let Some(number) = picked {
            poll(&self.sim, number);
        }
    }

    /// What was broken long enough.
    fn mend(&mut self) {
        let now = self.sim.borrow().now;
        let left: Vec<usize> = self.leaving.iter().filter(|(at, _)| *at <= now).map(|(_, host)| *host).collect();
        self.leaving.retain(|(at, _)| *at > now);
        left.into_iter()
            .filter(|host| !self.restarts.iter().any(|(_, other)| other == host))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|host| self.kill(host));
        let due: Vec<usize> = self.restarts.iter().filter(|(at, _)| *at <= now).map(|(_, host)| *host).collect();
        self.restarts.retain(|(at, _)| *at > now);
        due.into_iter().for_each(|host| self.start(host));
        let parts: Vec<Part> = self.repairs.iter().filter(|(at, _)| *at <= now).map(|(_, part)| *part).collect();
        self.repairs.retain(|(at, _)| *at > now);
        parts.into_iter().for_each(|part| self.set(part, false));
    }

    fn start(&mut self, host: usize) {
        let profile = self.sim.borrow().profile.clone();
        if host < profile.workers {
            self.workers[host] = Some(start_worker(&self.sim, host));
        } else {
            start_producer(&self.sim, host, host - profile.workers >= profile.producers);
        }
    }

    fn set(&mut self, part: Part, down: bool) {
        let mut world = self.sim.borrow_mut();
        world.current = usize::MAX;
        match part {
            Part::Database => world.tables.down = down,
            Part::Broker => {
                world.broker.down = down;
                world.broker.give_back(|_| true);
            }
            Part::Cta => world.cta.down = down,
        }
        world.say(|| format!("{part:?} is {}", if down { "away" } else { "back" }));
        world.rouse();
    }

    /// A fault, now and then.
    fn disturb(&mut self) {
        let (stormy, profile) = {
            let world = self.sim.borrow();
            (world.stormy, world.profile.clone())
        };
        if !stormy {
            return;
        }
        let once_in = |n: u64| self.sim.borrow_mut().random.once_in(n);
        let (crash, stop, letters) = (once_in(profile.crash), once_in(profile.stop), once_in(profile.letters * 10));
        let outages = [
            (Part::Database, once_in(profile.database * 20)),
            (Part::Broker, once_in(profile.broker * 20)),
            (Part::Cta, once_in(profile.site)),
        ];
        if crash {
            self.crash();
        }
        if stop {
            self.stop();
        }
        if letters {
            self.post();
        }
        for (part, fires) in outages {
            if fires
                && !self.repairs.iter().any(|(_, other)| std::mem::discriminant(other) == std::mem::discriminant(&part))
            {
                let until = {
                    let mut world = self.sim.borrow_mut();
                    world.now + world.random.of(1000..3_600_000)
                };
                self.repairs.push((until, part));
                self.set(part, true);
            }
        }
    }

    /// A program is killed, or told to leave at once.
    fn crash(&mut self) {
        let (host, gently) = {
            let mut world = self.sim.borrow_mut();
            let hosts = world.profile.workers + world.profile.producers + usize::from(world.profile.inline);
            (world.random.index(hosts), world.random.once_in(4))
        };
        if self.restarts.iter().any(|(_, other)| *other == host) {
            return;
        }
        if let (true, Some(Some(stop_now))) = (gently, self.workers.get(host)) {
            if !*stop_now.borrow() {
                stop_now.send_replace(true);
                let mut world = self.sim.borrow_mut();
                world.current = usize::MAX;
                world.say(|| format!("worker{host} is told to leave at once"));
                let now = world.now;
                let wait = world.random.of(5000..120_000);
                self.leaving.push((now + wait, host));
                for process in world.processes.iter_mut().filter(|process| process.host == Some(host)) {
                    process.wake = process.wake.min(now);
                }
            }
            return;
        }
        self.kill(host);
    }

    fn kill(&mut self, host: usize) {
        let dropped: Vec<_> = {
            let mut world = self.sim.borrow_mut();
            world.current = usize::MAX;
            world.tally.crashes += 1;
            world.say(|| format!("the programs of host {host} are killed"));
            world.return_letters(host);
            let on_it = world.processes.iter_mut().filter(|process| process.host == Some(host));
            on_it.filter_map(|process| process.future.take()).collect()
        };
        drop(dropped);
        if let Some(stop_now) = self.workers.get_mut(host) {
            *stop_now = None;
        }
        let again = {
            let mut world = self.sim.borrow_mut();
            world.now + world.random.of(1000..900_000)
        };
        self.restarts.push((again, host));
    }

    /// A process does not run for a while, without knowing it; or the one that ticks loses its lock.
    fn stop(&mut self) {
        let mut world = self.sim.borrow_mut();
        world.current = usize::MAX;
        if world.random.once_in(5) {
            world.tables.ticks = None;
            return world.say(|| "the advisory lock is lost".to_owned());
        }
        let until = world.now + world.random.of(1000..1_500_000);
        let alive: Vec<usize> = world
            .processes
            .iter()
            .enumerate()
            .filter(|(_, p)| p.future.is_some() && p.host.is_some())
            .map(|(n, _)| n)
            .collect();
        if alive.is_empty() {
            return;
        }
        let number = *world.random.pick(&alive);
        world.processes[number].paused_until = until;
        let name = world.processes[number].name.clone();
        world.say(|| format!("{name} is stopped for a while"));
    }

    /// A queue is purged, a message copied, a stranger's message put in.
    fn post(&mut self) {
        let mut world = self.sim.borrow_mut();
        world.current = usize::MAX;
        let queue = if world.random.once_in(4) { Queue::Dead } else { Queue::Stage(world.random.index(STAGES.len())) };
        match world.random.index(6) {
            4 | 5 => {
                world.say(|| "every message once more".to_owned());
                let now = world.now;
                let all: Vec<Message> = world
                    .tables
                    .tasks
                    .values()
                    .filter_map(|task| Some((task.vid.clone(), task.stage.clone()?, task.generation)))
                    .map(|(tape, stage, generation)| Message { tape, stage, generation })
                    .collect();
                for message in all {
                    if let Some(queue) = stage_queue(&message.stage) {
                        world.broker.put(message, queue, now);
                    }
                }
            }
            0 => {
                world.say(|| format!("{queue:?} is purged"));
                world.broker.letters.retain(|letter| letter.queue != queue || letter.holder.is_some());
            }
            1 => {
                let copy = world.broker.letters.first().map(|letter| (letter.message.clone(), letter.queue));
                if let Some((message, queue)) = copy {
                    let at = world.now + world.random.of(0..3_600_000);
                    world.broker.put(message, queue, at);
                }
            }
            _ => {
                let tapes = world.profile.tapes;
                let number = 1 + world.random.index(tapes);
                let vid = World::vid(number);
                let current = world.tables.tasks.get(&vid).map_or(1, |task| task.generation);
                let generation = (current - world.random.of(-2..6)).max(1);
                let stage = STAGES[world.random.index(STAGES.len())].name.to_owned();
                world.say(|| format!("a stranger's message: {vid} {stage} generation {generation}, to {queue:?}"));
                let now = world.now;
                world.broker.put(Message { tape: vid, stage, generation }, queue, now);
            }
        }
        world.rouse();
    }

    /// The storm is over: everything works again.
    fn calm(&mut self) {
        for part in [Part::Database, Part::Broker, Part::Cta] {
            self.set(part, false);
        }
        self.repairs.clear();
        self.leaving.clear();
        for (_, host) in std::mem::take(&mut self.restarts) {
            self.start(host);
        }
        for host in 0..self.workers.len() {
            if self.workers[host].as_ref().is_some_and(|stop_now| *stop_now.borrow()) {
                self.kill(host);
                self.restarts.clear();
                self.start(host);
            }
        }
        {
            let mut world = self.sim.borrow_mut();
            world.stormy = false;
            world.say(|| "THE STORM IS OVER".to_owned());
            for process in &mut world.processes {
                process.paused_until = 0;
            }
        }
        spawn(&self.sim, "operator".to_owned(), None, people::clear_up(Rc::clone(&self.sim)));
    }
}

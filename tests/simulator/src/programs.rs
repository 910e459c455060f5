//! The programs: workers with their consumers, producers with their ticks. What they decide is the products' code; what is
//! modelled here is how a message is taken and answered (`worker::service`) and how ticks follow each other.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Polling, Poll};

use common::broker::{BrokerError, Depth, PublishError, Task as Message};
use common::settings;
use common::stages::STAGES;
use common::store::Due;
use producer::edge::{Post, Table as _};
use producer::tick::{Context, LOST_LETTER, TickReport, under_locks};
use tokio::sync::{Mutex, watch};
use worker::dead_letter;
use worker::delivery::{Deliverer, Report};
use worker::service::Shutdown;

use crate::admin::Client;
use crate::broker::{Letter, Queue, stage_queue};
use crate::check;
use crate::database::{Base, Role};
use crate::mutation::Mutation;
use crate::world::{NEVER, Sim, pause, spawn, step, told};

thread_local! {
    /// The world of the run on this thread, for what is connected without being told where.
    static WORLD: std::cell::RefCell<Option<Sim>> = const { std::cell::RefCell::new(None) };
}

/// The world in which publishers connect.
pub fn enter(sim: Option<&Sim>) {
    WORLD.with(|world| *world.borrow_mut() = sim.map(Rc::clone));
}

/// Starts the programs of a worker's host.
pub fn start_worker(sim: &Sim, host: usize) -> watch::Sender<bool> {
    let (stop_now, stopping) = watch::channel(false);
    let concurrency = sim.borrow().profile.concurrency;
    for hand in 0..concurrency {
        let name = format!("worker{host}.{hand}");
        let future = take_tasks(Rc::clone(sim), host, name.clone(), stopping.clone());
        spawn(sim, name, Some(host), future);
    }
    let name = format!("letters{host}");
    spawn(sim, name.clone(), Some(host), take_letters(Rc::clone(sim), name));
    stop_now
}

/// Starts a producer.
pub fn start_producer(sim: &Sim, host: usize, inline: bool) {
    let name = if inline { format!("inline{host}") } else { format!("producer{host}") };
    spawn(sim, name.clone(), Some(host), ticks(Rc::clone(sim), host, name, inline));
}

/// Waits for a message of these queues.
struct Next {
    sim: Sim,
    dead: bool,
    left: Vec<(usize, i64)>,
    /// Told to leave: nothing new is taken.
    stopping: Option<watch::Receiver<bool>>,
}

impl Future for Next {
    type Output = Letter;

    fn poll(self: Pin<&mut Self>, _: &mut Polling<'_>) -> Poll<Letter> {
        let mut world = self.sim.borrow_mut();
        let (now, me) = (world.now, world.current);
        if self.stopping.as_ref().is_some_and(|stopping| *stopping.borrow()) {
            return Poll::Pending;
        }
        let mine = |letter: &Letter| match letter.queue {
            Queue::Dead => self.dead,
            Queue::Stage(stage) => !self.dead && !self.left.iter().any(|(left, until)| *left == stage && *until > now),
        };
        let waiting: Vec<(u64, i64)> = world
            .broker
            .letters
            .iter()
            .filter(|letter| letter.holder.is_none() && mine(letter))
            .map(|letter| (letter.id, letter.ready_at))
            .collect();
        let ready: Vec<u64> = waiting.iter().filter(|(_, at)| *at <= now).map(|(id, _)| *id).collect();
        if world.broker.down || ready.is_empty() {
            let left = self.left.iter().map(|(_, until)| *until).filter(|until| *until > now);
            let next = waiting.iter().map(|(_, at)| *at).filter(|at| *at > now).chain(left).min();
            world.listen_until(next.unwrap_or(NEVER));
            return Poll::Pending;
        }
        let id = *world.random.pick(&ready);
        world.stop_listening();
        let letter = world.broker.letters.iter_mut().find(|letter| letter.id == id).expect("it was there");
        letter.holder = Some(me);
        Poll::Ready(letter.clone())
    }
}

async fn take_tasks(sim: Sim, host: usize, name: String, stopping: watch::Receiver<bool>) {
    let settings = Arc::clone(&sim.borrow().settings);
    let skew = [0, 86_400 * 3, -86_400][host % 3];
    let base = Base::new(&sim, &name, Role::Delivery, settings, skew);
    let client = Client::new(&base);
    let deliverer = Deliverer::new(base.clone(), client.clone(), &name, stopping.clone());
    let mut left: Vec<(usize, i64)> = Vec::new();
    loop {
        let letter =
            Next { sim: Rc::clone(&sim), dead: false, left: left.clone(), stopping: Some(stopping.clone()) }.await;
        let me = sim.borrow().current;
        let Message { tape: vid, stage, generation } = letter.message.clone();
        sim.borrow_mut().say(|| format!("takes {vid} {stage} generation {generation}"));
        if stage_queue(&stage) != Some(letter.queue) {
            sim.borrow_mut().broker.reject(letter.id, me);
            sim.borrow_mut().rouse();
            continue;
        }
        *base.hands.borrow_mut() = crate::database::Hands {
            message: Some((vid.clone(), stage.clone(), generation)),
            taken_at: sim.borrow().now,
            ..crate::database::Hands::default()
        };
        client.forget();
        if sim.borrow().has(Mutation::AckBeforeCommit) {
            answer(&sim, &base, &letter, me);
        }
        // No room on this host: given back.
        let full = sim.borrow_mut().fault(60);
        if full {
            let cleared = base.clear_dispatched(&[Due::of(vid.clone(), generation)]).await;
            match cleared {
                Ok(()) => answer(&sim, &base, &letter, me),
                Err(_) => reconnect(&sim, host).await,
            }
            continue;
        }
        let report = deliverer.deliver(&vid, &stage, generation).await;
        step(&sim).await;
        sim.borrow_mut().say(|| format!("{vid} {stage}: {}", told(&report)));
        match report {
            Ok(Report::Stopped(_)) => {
                let mut world = sim.borrow_mut();
                let rate = world.profile.letters;
                if world.fault(rate) {
                    world.say(|| "the dead letter is lost".to_owned());
                    world.broker.ack(letter.id, me);
                    // And one of long ago turns up instead.
                    let at = world.now + world.random.of(0..400_000);
                    let generation = (generation - 1).max(1);
                    world.broker.put(Message { generation, ..letter.message.clone() }, Queue::Dead, at);
                } else {
                    world.broker.reject(letter.id, me);
                }
                world.rouse();
            }
            Ok(report) => {
                answer(&sim, &base, &letter, me);
                if let (Report::Site(_), Queue::Stage(number)) = (report, letter.queue) {
                    let now = sim.borrow().now;
                    left.retain(|(stage, until)| *stage != number && *until > now);
                    left.push((number, now + 300_000));
                }
            }
            Err(_) => reconnect(&sim, host).await,
        }
    }
}

/// The acknowledgement, if the broker is there to take it.
fn answer(sim: &Sim, base: &Base, letter: &Letter, me: usize) {
    let mut world = sim.borrow_mut();
    if !world.broker.down && world.broker.ack(letter.id, me) {
        check::acknowledged(&mut world, base, me);
    }
}

/// The database failed: the connection is built anew, and what was not answered comes again.
async fn reconnect(sim: &Sim, host: usize) {
    {
        let mut world = sim.borrow_mut();
        world.say(|| "reconnects".to_owned());
        world.return_letters(host);
    }
    let ms = sim.borrow_mut().random.of(500..30_000);
    pause(sim, ms).await;
}

async fn take_letters(sim: Sim, name: String) {
    let settings = Arc::clone(&sim.borrow().settings);
    let base = Base::new(&sim, &name, Role::Letters, settings, 0);
    loop {
        let letter = Next { sim: Rc::clone(&sim), dead: true, left: Vec::new(), stopping: None }.await;
        let me = sim.borrow().current;
        let Message { tape: vid, stage, generation } = letter.message.clone();
        sim.borrow_mut().say(|| format!("takes the dead letter {vid} {stage} generation {generation}"));
        base.hands.borrow_mut().message = Some((vid.clone(), stage.clone(), generation));
        let buried = dead_letter::bury(&base, &vid, &stage, generation, "rejected").await;
        step(&sim).await;
        match buried {
            Ok(_) => {
                let mut world = sim.borrow_mut();
                if !world.broker.down {
                    world.broker.ack(letter.id, me);
                }
            }
            Err(_) => {
                sim.borrow_mut().broker.give_back(|holder| holder == me);
                let ms = sim.borrow_mut().random.of(500..30_000);
                pause(&sim, ms).await;
            }
        }
    }
}

/// A connection to publish.
pub struct Publisher {
    sim: Sim,
    broken: std::cell::Cell<bool>,
}

fn lost(doing: &str) -> BrokerError {
    BrokerError::Lost { doing: doing.to_owned(), at: "model".to_owned(), why: "no connection".to_owned() }
}

impl Publisher {
    /// Whether the broker answers now.
    fn answers(&self) -> bool {
        let mut world = self.sim.borrow_mut();
        let rate = world.profile.broker;
        !world.broker.down && !world.fault(rate)
    }
}

impl Publisher {
    /// What becomes of a message; whether the broker says that it has it.
    fn store(&self, message: &Message) -> bool {
        let answers = self.answers();
        let mut world = self.sim.borrow_mut();
        // Without an answer it may have been stored all the same.
        let stored = answers || (!world.broker.down && world.random.once_in(2));
        let rate = world.profile.letters;
        let lost_later = world.fault(rate);
        if let (true, false, Some(queue)) = (stored, lost_later, stage_queue(&message.stage)) {
            let late = if world.fault(rate) { world.random.of(0..7_200_000) } else { 0 };
            let (ready, copies) = (world.now + late, 1 + usize::from(world.fault(rate)));
            (0..copies).for_each(|_| world.broker.put(message.clone(), queue, ready));
        }
        let me = world.current;
        if !world.published.insert((me, message.tape.clone(), message.generation)) {
            world.violate(6, format!("{message:?} is published twice in one tick: it goes on for ever"));
        }
        world.say(|| {
            let fate = if lost_later { ", to be lost" } else { "" };
            format!(
                "publishes {} {} generation {}, confirmed {answers}{fate}",
                message.tape, message.stage, message.generation
            )
        });
        world.rouse();
        answers
    }
}

impl Post for Publisher {
    async fn connect(_: &settings::Broker, _: &str, _: usize) -> Result<Publisher, BrokerError> {
        let sim = WORLD.with(|world| world.borrow().clone()).ok_or_else(|| lost("connecting"))?;
        step(&sim).await;
        let publisher = Publisher { sim, broken: std::cell::Cell::new(false) };
        if publisher.answers() { Ok(publisher) } else { Err(lost("connecting")) }
    }

    fn is_broken(&self) -> bool {
        self.broken.get()
    }

    async fn depth(&self, queue: &str) -> Result<Option<Depth>, BrokerError> {
        step(&self.sim).await;
        if !self.answers() {
            self.broken.set(true);
            return Err(lost("asking"));
        }
        let stage = STAGES.iter().position(|stage| queue.ends_with(stage.name));
        let depth = stage.map_or(0, |stage| self.sim.borrow().broker.depth(Queue::Stage(stage)));
        Ok(Some(Depth { messages: u32::try_from(depth).unwrap_or(u32::MAX), consumers: 1 }))
    }

    async fn publish(&self, message: &Message) -> Result<(), PublishError> {
        step(&self.sim).await;
        let answers = self.store(message);
        step(&self.sim).await;
        if answers {
            return Ok(());
        }
        if self.sim.borrow_mut().random.once_in(3) {
            return Err(PublishError::Nack("the task".to_owned()));
        }
        self.broken.set(true);
        Err(PublishError::Unknown(lost("publishing")))
    }
}

async fn ticks(sim: Sim, host: usize, name: String, inline: bool) {
    let mut settings = (*sim.borrow().settings).clone();
    if inline {
        settings.broker = None;
    }
    let settings = Arc::new(settings);
    let base = Base::new(&sim, &name, Role::Tick, Arc::clone(&settings), 0);
    let (_stop, stop) = watch::channel(Shutdown::No);
    let context: Context<Base, Client, Publisher> = Context {
        store: base.clone(),
        cta: Client::new(&base),
        settings,
        host: name.clone(),
        program: name,
        lost_letter: LOST_LETTER,
        // Small, so that several are needed.
        page: 2,
        stop,
        publisher: Mutex::new(None),
    };
    let stages = STAGES.to_vec();
    let all: Vec<String> = STAGES.iter().map(|stage| stage.name.to_owned()).collect();
    loop {
        step(&sim).await;
        let (held, refused) = {
            let mut world = sim.borrow_mut();
            let me = world.current;
            world.published.retain(|(process, ..)| *process != me);
            let holder =
                world.tables.ticks.filter(|holder| world.processes.get(*holder).is_some_and(|p| p.future.is_some()));
            match holder {
                Some(holder) if holder != me => {
                    (Vec::new(), all.iter().map(|stage| (stage.clone(), format!("process {holder}"))).collect())
                }
                _ => {
                    world.tables.ticks = Some(me);
                    (all.clone(), Vec::new())
                }
            }
        };
        let mut report = TickReport::default();
        let ended = if sim.borrow().tables.down {
            Err(anyhow::anyhow!("the database is away"))
        } else {
            under_locks(&context, &stages, &held, &refused, &mut report).await
        };
        let wait = {
            let mut world = sim.borrow_mut();
            let me = world.current;
            if world.tables.ticks == Some(me) {
                world.tables.ticks = None;
            }
            if let Err(why) = &ended {
                world.say(|| format!("no tick: {why:#}"));
            }
            let wait = if inline {
                world.random.of(600_000..7_200_000)
            } else {
                *world.random.pick(&[60_000, 600_000, 1_200_000])
            };
            wait + i64::try_from(host).unwrap_or(0)
        };
        pause(&sim, wait).await;
    }
}

//! Consuming: connections, concurrency, outages of everything, and the end.
//!
//! Whatever goes wrong with the broker or the database, the connection is dropped and built anew: what was not answered
//! comes again, and the rows decide what it still means.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use common::broker::{BrokerError, Consumer, Delivery, Publisher, Source, Task, Topology};
use common::cta::{Cta, Frontend};
use common::failpoint;
use common::retry::Delays;
use common::settings::{Broker, Settings};
use common::stages::STAGES;
use common::store::{Due, Store};
use tokio::sync::{OnceCell, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::cleanup;
use crate::dead_letter;
use crate::delivery::{Deliverer, Report};
use crate::notify;

/// A delivery that cannot begin within this time is given back.
const PATIENCE: Duration = Duration::from_secs(60);

/// The loop goes round at least as often, so that a loop that hangs is seen.
const BEAT: Duration = Duration::from_secs(10);

/// Pause between looks at old listings.
const CLEANING: Duration = Duration::from_secs(3600);

/// Finishing what is in hand may take as long as a delivery: whoever stops us has a limit of their own.
const LONGEST_END: Duration = Duration::from_secs(24 * 3600);

/// Asking CTA and silent queues whether they answer again has limits of its own, far below this.
const LONGEST_PROBE: Duration = Duration::from_secs(600);

/// How a program is told to end. Only ever raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Go on.
    No,
    /// Take nothing new, finish what is in hand, leave.
    Finish,
    /// Drop what is in hand, give the tapes back, leave.
    Now,
}

/// What to consume, and how much of it at once.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of stages.
    pub stages: Vec<String>,
    /// Deliveries at once.
    pub concurrency: usize,
    /// The program's name and host, for connections and the history.
    pub name: String,
    /// The host.
    pub host: String,
}

/// What a delivery's task tells the session.
enum Told {
    /// The site is in trouble: leave this stage for a while.
    Site(String, String),
    /// The stage worked.
    Fine(String),
    /// The database is in trouble: hold everything.
    Database(String),
}

/// Why a session ended.
enum End {
    Asked,
    Broker(BrokerError),
    Database(String),
}

/// Consumes until told to end.
///
/// # Errors
/// Only what trying again cannot mend: a configuration or a topology that does not fit.
pub async fn run(store: Store, cta: Cta, options: Options, shutdown: watch::Receiver<Shutdown>) -> anyhow::Result<()> {
    let settings = Arc::clone(store.settings());
    let broker = settings.broker.clone().context("there is no broker section in the configuration: without one the numbered commands do their stages themselves, and no worker is needed")?;
    let (stop_now, stopping) = watch::channel(false);
    let service = Service {
        deliverer: Deliverer::new(store.clone(), cta.clone(), &options.host, stopping),
        store,
        cta,
        topology: Topology::new(&broker.prefix, STAGES.map(|stage| stage.name))?,
        broker,
        settings,
        room: Arc::new(Semaphore::new(options.concurrency)),
        options,
    };
    let mut hands = JoinSet::new();
    let mut delays = Delays::default();
    let mut shutdown = shutdown;
    // Settings that have worked once work again: a certificate that cannot be read at this moment is being replaced.
    let mut connected = false;
    let _cleaner = Cleaner::start(service.store.clone());
    let metrics = Arc::clone(service.store.metrics());
    metrics.set("broker", Err("not connected yet"));
    while *shutdown.borrow_and_update() == Shutdown::No {
        let begun = Instant::now();
        metrics.turned();
        let why = match service.session(&mut hands, &mut shutdown, &mut connected).await {
            End::Asked => break,
            End::Broker(error) if error.is_final() && !(connected && matches!(error, BrokerError::Settings(_))) => {
                // What is in hand still comes to its end.
                notify::manager().during(LONGEST_END, finish(hands, shutdown, stop_now)).await;
                return Err(error.into());
            }
            End::Broker(error) => {
                metrics.set("broker", Err(&error.to_string()));
                error.to_string()
            }
            End::Database(why) => {
                // The connection to the broker was dropped with it.
                metrics.set("broker", Err("not connected while the database is in trouble"));
                why
            }
        };
        error!("no tasks are taken: {why}");
        // It does all that it can: what is away may come back without it being started again.
        notify::manager().status(&format!("no tasks are taken: {why}"));
        notify::manager().ready();
        if begun.elapsed() > Duration::from_secs(60) {
            delays.reset();
        }
        let pause = delays.next_delay();
        tokio::select! {
            () = notify::manager().during(pause, tokio::time::sleep(pause)) => {}
            _ = shutdown.changed() => {}
        }
    }
    notify::manager().during(LONGEST_END, finish(hands, shutdown, stop_now)).await;
    Ok(())
}

/// Cleans up this host's listings now and then, as long as it lives.
struct Cleaner(tokio::task::JoinHandle<()>);

impl Cleaner {
    fn start(store: Store) -> Cleaner {
        Cleaner(tokio::spawn(async move {
            loop {
                match cleanup::listings(&store, store.settings(), SystemTime::now()).await {
                    Ok(removed) if removed.is_empty() => {}
                    Ok(removed) => info!("removed {} listings that nobody needs any more", removed.len()),
                    Err(error) => warn!("old listings are not cleaned up: {error:#}"),
                }
                tokio::time::sleep(CLEANING).await;
            }
        }))
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for what is in hand; told to leave now, drops it.
async fn finish(mut hands: JoinSet<()>, mut shutdown: watch::Receiver<Shutdown>, stop_now: watch::Sender<bool>) {
    if !hands.is_empty() {
        info!("finishing {} deliveries in hand", hands.len());
    }
    loop {
        tokio::select! {
            done = hands.join_next() => if done.is_none() { return },
            () = reached(&mut shutdown, Shutdown::Now), if !*stop_now.borrow() => {
                warn!("dropping {} deliveries in hand", hands.len());
                stop_now.send_replace(true);
            }
        }
    }
}

/// Ends when we are told to end at least like this; never, if nobody is left to say so.
pub async fn reached(shutdown: &mut watch::Receiver<Shutdown>, level: Shutdown) {
    if shutdown.wait_for(|how| *how >= level).await.is_err() {
        std::future::pending::<()>().await;
    }
}

struct Service {
    deliverer: Deliverer,
    store: Store,
    cta: Cta,
    topology: Topology,
    broker: Broker,
    settings: Arc<Settings>,
    room: Arc<Semaphore>,
    options: Options,
}

/// What this host does not take tasks of, until a probe says otherwise.
struct Left {
    /// Its queue does not answer; otherwise the site is in trouble.
    silent: bool,
    delays: Delays,
    probe_at: Instant,
}

impl Left {
    fn new(silent: bool, settings: &Settings) -> Left {
        let longest = settings.retry.max_delay.min(Duration::from_secs(300));
        let mut delays = Delays::new(settings.retry.first_delay, longest);
        let probe_at = Instant::now() + delays.next_delay();
        Left { silent, delays, probe_at }
    }

    fn later(&mut self) {
        self.probe_at = Instant::now() + self.delays.next_delay();
    }
}

impl Service {
    /// From connecting to the first thing that goes wrong.
    async fn session(
        &self,
        hands: &mut JoinSet<()>,
        shutdown: &mut watch::Receiver<Shutdown>,
        connected: &mut bool,
    ) -> End {
        if let Err(error) = self.store.ready().await {
            return End::Database(error.to_string());
        }
        let mut consumer = match self.connect().await {
            Ok(consumer) => consumer,
            Err(error) => return End::Broker(error),
        };
        let parking = Arc::new(Parking::new(&self.broker, &self.options.name));
        let taking = format!("taking tasks of {} from {}", self.options.stages.join(", "), consumer.at());
        info!("{taking}");
        notify::manager().status(&taking);
        notify::manager().ready();
        *connected = true;
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut left: HashMap<Source, Left> = HashMap::new();
        let metrics = self.store.metrics();
        metrics.set("broker", Ok(()));
        for stage in &self.options.stages {
            metrics.set(&format!("stage {stage}"), Ok(()));
        }
        metrics.set(&named(&Source::Dead), Ok(()));
        for source in consumer.silent() {
            let why = consumer.why_silent(source);
            error!("no tasks of {} are taken, the others go on: {why}", named(source));
            metrics.set(&named(source), Err(&why));
            left.insert(source.clone(), Left::new(true, &self.settings));
        }
        let mut beat = tokio::time::interval(BEAT);
        loop {
            notify::manager().alive();
            metrics.turned();
            metrics.in_hand(hands.len());
            let probe_at = left.values().map(|left| left.probe_at).min();
            let probe = async {
                match probe_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = reached(shutdown, Shutdown::Finish) => {
                    if let Err(error) = consumer.stop_taking().await {
                        debug!("while taking leave: {error}");
                    }
                    notify::manager().during(LONGEST_END, self.finish_with(hands, consumer, shutdown)).await;
                    return End::Asked;
                }
                Some(news) = told.recv() => match news {
                    Told::Database(why) => return End::Database(why),
                    Told::Fine(stage) => if let Some(left) = left.get_mut(&Source::Stage(stage)) { left.delays.reset() },
                    Told::Site(stage, why) => if let Entry::Vacant(vacant) = left.entry(Source::Stage(stage.clone())) {
                        error!(stage, "stage {stage} is left alone on this host, the others go on: {why}");
                        metrics.set(&format!("stage {stage}"), Err(&format!("left alone, the site is in trouble: {why}")));
                        if let Err(error) = consumer.leave(&stage).await { return End::Broker(error) }
                        vacant.insert(Left::new(false, &self.settings));
                    },
                },
                _ = beat.tick() => {}
                () = probe => {
                    let probe = self.probe(&mut consumer, &mut left);
                    if let Err(error) = notify::manager().during(LONGEST_PROBE, probe).await { return End::Broker(error) }
                }
                Some(_) = hands.join_next(), if !hands.is_empty() => {}
                () = notify::manager().pause() => {}
                arrived = consumer.next() => match arrived {
                    Err(error) => return End::Broker(error),
                    Ok(delivery) => match delivery.source.clone() {
                        source @ Source::Stage(_) if left.contains_key(&source) => {
                            if let Err(error) = delivery.give_back().await { return End::Broker(error) }
                        }
                        Source::Stage(stage) => {
                            let room = Arc::clone(&self.room);
                            hands.spawn(stage_task(self.deliverer.clone(), room, delivery, stage, tell.clone()));
                        }
                        Source::Dead => {
                            hands.spawn(dead_task(self.store.clone(), Arc::clone(&parking), delivery, tell.clone()));
                        }
                    },
                },
            }
        }
    }

    /// The connection stays open until what is in hand is answered, or we are told to leave now.
    async fn finish_with(&self, hands: &mut JoinSet<()>, consumer: Consumer, shutdown: &mut watch::Receiver<Shutdown>) {
        tokio::select! {
            () = async { while hands.join_next().await.is_some() {} } => consumer.close().await,
            () = reached(shutdown, Shutdown::Now) => {}
        }
    }

    async fn connect(&self) -> Result<Consumer, BrokerError> {
        let name = &self.options.name;
        self.topology.declare(&self.broker, name).await?;
        let prefetch = u16::try_from(self.options.concurrency).unwrap_or(u16::MAX);
        Consumer::connect(&self.broker, &self.topology, &self.options.stages, prefetch, name).await
    }

    /// Takes up again what its time has come for: a stage if CTA answers, a queue if it does.
    async fn probe(&self, consumer: &mut Consumer, left: &mut HashMap<Source, Left>) -> Result<(), BrokerError> {
        let now = Instant::now();
        let due: Vec<Source> =
            left.iter().filter(|(_, left)| left.probe_at <= now).map(|(source, _)| source.clone()).collect();
        let mut cta_answers = None;
        for source in due {
            let Some(left_there) = left.get_mut(&source) else { continue };
            if !left_there.silent {
                let answers = match cta_answers {
                    Some(answers) => answers,
                    None => self.cta_answers().await,
                };
                cta_answers = Some(answers);
                if !answers {
                    left_there.later();
                    continue;
                }
            }
            let (what, metrics) = (named(&source), self.store.metrics());
            if consumer.join(&source).await? {
                let whom = if left_there.silent { "its queue" } else { "CTA" };
                info!("{whom} answers: {what} is taken up again");
                metrics.set(&what, Ok(()));
                left.remove(&source);
            } else {
                let why = consumer.why_silent(&source);
                if !left_there.silent {
                    error!("no tasks of {what} are taken, the others go on: {why}");
                }
                metrics.set(&what, Err(&why));
                left_there.silent = true;
                left_there.later();
            }
        }
        Ok(())
    }

    /// Both front ends, whichever the stage needs.
    async fn cta_answers(&self) -> bool {
        self.cta.version(Frontend::User).await.is_ok() && self.cta.version(Frontend::Repack).await.is_ok()
    }
}

/// `stage start`, or `the dead letters`.
fn named(source: &Source) -> String {
    match source {
        Source::Stage(stage) => format!("stage {stage}"),
        Source::Dead => "the dead letters".to_owned(),
    }
}

/// One message of a stage queue, to its answer.
async fn stage_task(
    deliverer: Deliverer,
    room: Arc<Semaphore>,
    delivery: Delivery,
    stage: String,
    tell: mpsc::UnboundedSender<Told>,
) {
    let task = match Task::decode(&delivery.body) {
        Ok(task) if task.stage == stage => task,
        Ok(task) => {
            warn!(stage, "a message in the queue of {stage} names stage {}: to the dead letters", task.stage);
            return answered(delivery.reject().await);
        }
        Err(why) => {
            warn!(stage, "a message that is no task: {why}: to the dead letters");
            return answered(delivery.reject().await);
        }
    };
    let due = [Due::of(task.tape.clone(), task.generation)];
    let Ok(Ok(_permit)) = tokio::time::timeout(PATIENCE, room.acquire_owned()).await else {
        debug!(vid = %task.tape, stage, "no room here: given back");
        if let Err(error) = deliverer.store().clear_dispatched(&due).await {
            let _ = tell.send(Told::Database(error.to_string()));
            return;
        }
        return answered(delivery.ack().await);
    };
    failpoint::pass_at("received", &[&task.stage], &task.tape);
    let report = deliverer.deliver(&task.tape, &task.stage, task.generation).await;
    failpoint::pass_at("before-ack", &[&task.stage], &task.tape);
    match report {
        Ok(Report::Stopped(_)) => answered(delivery.reject().await),
        Ok(report) => {
            let news = match &report {
                Report::Site(why) => Told::Site(stage, why.text.clone()),
                _ => Told::Fine(stage),
            };
            let _ = tell.send(news);
            answered(delivery.ack().await);
        }
        // Not answered: it comes again when the connection is built anew.
        Err(error) => {
            let _ = tell.send(Told::Database(error.to_string()));
        }
    }
}

/// Puts aside what no tape can be blamed for. That is rare, and a connection to the broker costs 8 MiB of buffers: it is made
/// for the first such message, and kept as long as the consumer's.
struct Parking {
    broker: Broker,
    name: String,
    publisher: OnceCell<Publisher>,
}

impl Parking {
    fn new(broker: &Broker, name: &str) -> Parking {
        Parking { broker: broker.clone(), name: name.to_owned(), publisher: OnceCell::new() }
    }

    async fn park(&self, delivery: &Delivery, why: &str) -> Result<(), String> {
        let connect = || Publisher::connect(&self.broker, &self.name, 1);
        let publisher = self.publisher.get_or_try_init(connect).await.map_err(|error| error.to_string())?;
        publisher.park(&delivery.body, delivery.queue(), why).await.map_err(|error| error.to_string())
    }
}

/// One dead letter, to its answer.
async fn dead_task(store: Store, parking: Arc<Parking>, delivery: Delivery, tell: mpsc::UnboundedSender<Told>) {
    let how = delivery.deaths.first().map_or_else(|| "unknown".to_owned(), |death| death.reason.clone());
    match Task::decode(&delivery.body) {
        Err(why) => match parking.park(&delivery, &why.to_string()).await {
            Ok(()) => {
                warn!("a dead letter that is no task was parked: {why}");
                store.metrics().parked();
                answered(delivery.ack().await);
            }
            Err(error) => {
                warn!("a dead letter that is no task could not be parked: {error}");
                let _ = tell.send(Told::Database(format!("parking failed: {error}")));
            }
        },
        Ok(task) => {
            failpoint::pass_at("dead-received", &[&task.stage], &task.tape);
            match dead_letter::bury(&store, &task.tape, &task.stage, task.generation, &how).await {
                Ok(buried) => {
                    debug!(vid = %task.tape, stage = task.stage, "dead letter ({how}): {buried:?}");
                    failpoint::pass_at("buried", &[&task.stage], &task.tape);
                    answered(delivery.ack().await);
                }
                Err(error) => {
                    let _ = tell.send(Told::Database(error.to_string()));
                }
            }
        }
    }
}

fn answered(sent: Result<(), BrokerError>) {
    if let Err(error) = sent {
        debug!("not answered, it comes again: {error}");
    }
}

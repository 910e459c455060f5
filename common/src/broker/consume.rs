//! Consuming: tasks of the stages, and dead letters.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{Stream, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Acker, BasicProperties, Channel};
use tokio::sync::watch;

use super::error::BrokerError;
use super::link::{Link, PATIENCE, connection_name, host, within};
use super::task::{is_stage_name, printable};
use super::topology::{Topology, short};
use crate::settings;

/// How much longer than another a queue may take to answer: what the others deliver waits meanwhile.
const GRACE: Duration = Duration::from_secs(3);

/// Receives deliveries over a connection of its own, with one channel for each stage and one for dead letters.
///
/// Deliveries in hand go back to their queues when it is dropped or its connection is lost; acknowledging them then is an error.
pub struct Consumer {
    link: Link,
    /// Each with the tag of its consumer. Kept until the end: deliveries in hand are acknowledged over them.
    channels: Vec<(Source, Channel, ShortString)>,
    arriving: SelectAll<BoxStream<'static, Arrival>>,
    /// Sources left on purpose: the end of their streams is no failure.
    left: HashSet<Source>,
    /// Sources whose queues did not answer.
    silent: Vec<Source>,
    topology: Topology,
    prefetch: u16,
    stopped: bool,
}

/// What a consumer's stream yields: deliveries, then how it ended. The end is an item of its own, because an ended stream would
/// silently drop out of the merged one.
enum Arrival {
    Delivery(Box<Delivery>),
    /// The queue, and why.
    Failed(String, lapin::Error),
    /// The queue.
    Ended(String),
}

/// How the beginning of a queue's consumer went.
enum Begun {
    Consuming {
        source: Source,
        channel: Channel,
        tag: ShortString,
        arriving: BoxStream<'static, Arrival>,
    },
    /// The queue did not answer in time.
    Silent(Source, BrokerError),
    Failed(BrokerError),
}

/// Which queue a delivery came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// The queue of this stage.
    Stage(String),
    /// The dead-letter queue.
    Dead,
}

impl Source {
    fn queue(&self, topology: &Topology) -> String {
        match self {
            Source::Stage(stage) => topology.stage_queue(stage),
            Source::Dead => topology.dead_queue(),
        }
    }

    fn label(&self) -> &str {
        match self {
            Source::Stage(stage) => stage,
            Source::Dead => "dead",
        }
    }
}

/// One entry of the broker's record of why a message became a dead letter. Anyone who may publish can forge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// `rejected`, `delivery_limit`, `maxlen` or `expired`; control characters escaped, cut.
    pub reason: String,
    /// The queue it died in; control characters escaped, cut.
    pub queue: String,
    /// How often, as the broker counted; 0 if it does not say.
    pub count: i64,
}

/// A message in our hands. Dropping it without an answer leaves it unacknowledged until the connection ends.
#[must_use = "a delivery that is never answered blocks its consumer"]
pub struct Delivery {
    /// Which queue it came from.
    pub source: Source,
    /// The body, for [`super::Task::decode`].
    pub body: Vec<u8>,
    /// Delivered before. False proves nothing.
    pub redelivered: bool,
    /// How it died, newest first; empty if it did not, or the record is unreadable.
    pub deaths: Vec<Death>,
    queue: String,
    at: String,
    acker: Acker,
}

impl Consumer {
    /// Connects and begins to consume the queues of these stages and the dead-letter queue, with at most `prefetch` (at least 1)
    /// unanswered deliveries of each. `app` is the program's name. Expects the topology to be declared.
    ///
    /// A quorum queue without a leader does not answer while the others do: it holds up nothing but itself, see
    /// [`Consumer::silent`].
    ///
    /// # Errors
    /// As [`Link::connect`], when a queue is missing or may not be read, and when none answers.
    pub async fn connect(
        broker: &settings::Broker,
        topology: &Topology,
        stages: &[String],
        prefetch: u16,
        app: &str,
    ) -> Result<Consumer, BrokerError> {
        if let Some(odd) = stages.iter().find(|stage| !is_stage_name(stage)) {
            let shown = printable(odd, 60);
            return Err(BrokerError::Settings(format!(
                "'{shown}' is not the name of a stage, expected 1 to 32 of a-z"
            )));
        }
        let link = Link::connect(broker, &connection_name(app)).await?;
        let mut consumer = Consumer {
            link,
            channels: Vec::new(),
            arriving: SelectAll::new(),
            left: HashSet::new(),
            silent: Vec::new(),
            topology: topology.clone(),
            prefetch: prefetch.max(1),
            stopped: false,
        };
        let sources = stages.iter().cloned().map(Source::Stage).chain([Source::Dead]);
        let prefetch = consumer.prefetch;
        let answered = watch::Sender::new(false);
        let begin = |source| begin(&consumer.link, topology, prefetch, source, &answered);
        let begun: Vec<_> = join_all(sources.map(begin)).await;
        if let Some(Begun::Silent(_, error)) = begun.first()
            && begun.iter().all(|one| matches!(one, Begun::Silent(..)))
        {
            return Err(error.clone());
        }
        for one in begun {
            consumer.take(one)?;
        }
        Ok(consumer)
    }

    /// The queues that did not answer when they were to be consumed, although others did. [`Consumer::join`] tries again.
    pub fn silent(&self) -> &[Source] {
        &self.silent
    }

    /// What to tell a person about a queue that does not answer.
    pub fn why_silent(&self, source: &Source) -> String {
        let queue = source.queue(&self.topology);
        format!(
            "queue '{queue}' at {} does not answer while others do: it has no leader, because nodes of the broker are away, or \
             because the broker was killed just after the queue was made; see rabbitmq-diagnostics check_if_node_is_quorum_critical and \
             rabbitmq-queues quorum_status '{queue}'; if all nodes are there and it stays like this, delete the queue (rabbitmqctl \
             delete_queue '{queue}'): it is made again, and what it held is published again",
            self.at()
        )
    }

    /// Stops consuming one stage; the others go on. What had arrived already still comes out of [`Consumer::next`]: give it back.
    /// Leaving a stage that is not consumed does nothing.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn leave(&mut self, stage: &str) -> Result<(), BrokerError> {
        let source = Source::Stage(stage.to_owned());
        if self.left.contains(&source) {
            return Ok(());
        }
        let Some((_, channel, tag)) = self.channels.iter().rev().find(|(of, ..)| *of == source) else { return Ok(()) };
        let cancel = channel.basic_cancel(tag.clone(), BasicCancelOptions::default());
        self.link.within("cancelling a consumer", cancel).await?;
        self.left.insert(source);
        Ok(())
    }

    /// Consumes again what was left ([`Consumer::leave`]) or did not answer ([`Consumer::silent`]). False: the queue does not
    /// answer.
    ///
    /// # Errors
    /// When the connection fails, or the queue is missing or may not be read.
    pub async fn join(&mut self, source: &Source) -> Result<bool, BrokerError> {
        let silent = self.silent.iter().position(|silent| silent == source).map(|at| self.silent.swap_remove(at));
        if !self.left.remove(source) && silent.is_none() {
            return Ok(true);
        }
        let answered = watch::Sender::new(true);
        let begun = begin(&self.link, &self.topology, self.prefetch, source.clone(), &answered).await;
        let answers = !matches!(begun, Begun::Silent(..));
        self.take(begun)?;
        Ok(answers)
    }

    fn take(&mut self, begun: Begun) -> Result<(), BrokerError> {
        match begun {
            Begun::Consuming { source, channel, tag, arriving } => {
                self.channels.push((source, channel, tag));
                self.arriving.push(arriving);
            }
            Begun::Silent(source, _) => self.silent.push(source),
            Begun::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// `host:port/vhost`.
    pub fn at(&self) -> &str {
        self.link.at()
    }

    /// Waits for the next delivery, of any queue. Safe to abandon: nothing is lost.
    ///
    /// # Errors
    /// Any error, and any end of any of its queues, ends the whole consumer: drop it, declare, connect again.
    pub async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let mut arrived = self.arriving.next().await;
        while let Some(Arrival::Ended(queue)) = &arrived
            && self.left.iter().any(|source| source.queue(&self.topology) == *queue)
        {
            arrived = self.arriving.next().await;
        }
        match arrived {
            Some(Arrival::Delivery(delivery)) => Ok(*delivery),
            Some(Arrival::Failed(queue, error)) => Err(self.link.error(&error, &format!("consuming queue '{queue}'"))),
            Some(Arrival::Ended(queue)) => Err(BrokerError::Ended { queue, at: self.at().to_owned() }),
            None => Err(BrokerError::Lost {
                doing: "consuming".to_owned(),
                at: self.at().to_owned(),
                why: if self.stopped { "stopped as asked" } else { "all queues ended" }.to_owned(),
            }),
        }
    }

    /// Takes no further message: deliveries already handed out can still be answered, those not yet handed out go back to their
    /// queues. Afterwards [`Consumer::next`] is an error.
    ///
    /// # Errors
    /// When the connection fails on the way; then all that is unanswered goes back anyway.
    pub async fn stop_taking(&mut self) -> Result<(), BrokerError> {
        self.stopped = true;
        for (source, channel, tag) in &self.channels {
            if self.left.contains(source) {
                continue;
            }
            let cancel = channel.basic_cancel(tag.clone(), BasicCancelOptions::default());
            self.link.within("cancelling a consumer", cancel).await?;
        }
        // A cancelled stream still yields what had arrived before, then ends.
        let mut failure = None;
        let drained = tokio::time::timeout(PATIENCE, async {
            while let Some(arrival) = self.arriving.next().await {
                match arrival {
                    Arrival::Delivery(delivery) => {
                        if let Err(error) = delivery.give_back().await {
                            failure = Some(error);
                        }
                    }
                    Arrival::Failed(_, error) => failure = Some(self.link.error(&error, "cancelling a consumer")),
                    Arrival::Ended(_) => {}
                }
            }
        })
        .await;
        match failure {
            Some(error) => Err(error),
            None => drained.map_err(|_| BrokerError::late("cancelling the consumers", self.at(), PATIENCE)),
        }
    }

    /// Says goodbye. What is unanswered goes back to its queue.
    pub async fn close(self) {
        self.link.close().await;
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("at", &self.at()).field("stopped", &self.stopped).finish_non_exhaustive()
    }
}

/// Begins to consume one queue. `answered`: whether any queue has answered.
async fn begin(
    link: &Link,
    topology: &Topology,
    prefetch: u16,
    source: Source,
    answered: &watch::Sender<bool>,
) -> Begun {
    let queue = source.queue(topology);
    let doing = format!("consuming queue '{queue}'");
    let begin = async {
        let channel = link.channel(&doing).await?;
        // Before the consumer: without it the client would take the whole queue into memory.
        link.within(&doing, channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        Ok(channel)
    };
    let channel = match begin.await {
        Ok(channel) => channel,
        Err(error) => return Begun::Failed(error),
    };
    let tag = short(&format!("{}:{}:{}", host(), std::process::id(), source.label()));
    let consume =
        channel.basic_consume(short(&queue), tag.clone(), BasicConsumeOptions::default(), FieldTable::default());
    let answer = tokio::select! {
        answer = consume => Some(answer),
        () = silence(answered.subscribe()) => None,
    };
    if answer.is_some() {
        answered.send_replace(true);
    }
    match answer {
        None => {
            // Should the answer come later, nothing is to be delivered to nobody.
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, channel.close(200, "given up".into())).await;
            });
            Begun::Silent(source, BrokerError::late(&doing, link.at(), PATIENCE))
        }
        Some(Err(error)) => Begun::Failed(link.error(&error, &doing)),
        Some(Ok(stream)) => {
            let arriving = arrivals(stream, source.clone(), queue, link.at().to_owned());
            Begun::Consuming { source, channel, tag, arriving }
        }
    }
}

/// Ends when a queue has been silent for too long.
async fn silence(mut answered: watch::Receiver<bool>) {
    let beside_others = async {
        if answered.wait_for(|answered| *answered).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = beside_others => {}
        () = tokio::time::sleep(PATIENCE) => {}
    }
}

/// The deliveries of one queue, with the end as an item.
fn arrivals(
    stream: impl Stream<Item = lapin::Result<lapin::message::Delivery>> + Send + 'static,
    source: Source,
    queue: String,
    at: String,
) -> BoxStream<'static, Arrival> {
    let end = stream::once(std::future::ready(Arrival::Ended(queue.clone())));
    stream
        .map(move |arrived| match arrived {
            Ok(delivery) => Arrival::Delivery(Box::new(Delivery::new(delivery, source.clone(), &queue, &at))),
            Err(error) => Arrival::Failed(queue.clone(), error),
        })
        .chain(end)
        .boxed()
}

impl Delivery {
    fn new(delivery: lapin::message::Delivery, source: Source, queue: &str, at: &str) -> Delivery {
        Delivery {
            source,
            redelivered: delivery.redelivered,
            deaths: deaths(&delivery.properties),
            body: delivery.data,
            queue: queue.to_owned(),
            at: at.to_owned(),
            acker: delivery.acker,
        }
    }

    /// The queue it came from.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Done with it: the broker forgets it.
    ///
    /// # Errors
    /// When that could not be sent: the message comes again.
    pub async fn ack(self) -> Result<(), BrokerError> {
        self.answered("acknowledging", self.acker.ack(BasicAckOptions::default())).await
    }

    /// Gives it to the dead-letter exchange. A dead letter itself is dropped by this: its queue has no other behind it.
    ///
    /// # Errors
    /// When that could not be sent: the message comes again.
    pub async fn reject(self) -> Result<(), BrokerError> {
        self.answered("rejecting", self.acker.reject(BasicRejectOptions { requeue: false })).await
    }

    /// Puts it back into its queue, for anybody, at once. For a program that leaves, never to wait: it would come straight back,
    /// and after twenty returns the broker takes it for a dead letter.
    ///
    /// # Errors
    /// When that could not be sent: the message goes back anyway when the connection ends.
    pub async fn give_back(self) -> Result<(), BrokerError> {
        self.answered("giving back", self.acker.nack(BasicNackOptions { requeue: true, multiple: false })).await
    }

    async fn answered(
        &self,
        verb: &str,
        sending: impl Future<Output = lapin::Result<bool>>,
    ) -> Result<(), BrokerError> {
        let doing = format!("{verb} a message of queue '{}'", self.queue);
        // The client library answers Ok(false) where it sent nothing.
        if within(&self.at, &doing, sending).await? {
            return Ok(());
        }
        Err(BrokerError::Lost {
            doing,
            at: self.at.clone(),
            why: "its channel is closed; the message comes again".to_owned(),
        })
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("source", &self.source)
            .field("body", &printable(&String::from_utf8_lossy(&self.body), 200))
            .field("redelivered", &self.redelivered)
            .field("deaths", &self.deaths)
            .finish_non_exhaustive()
    }
}

/// Reads the broker's `x-death` record, of which nothing can be relied on: not its presence, types or size.
fn deaths(properties: &BasicProperties) -> Vec<Death> {
    const MOST: usize = 20;
    let record = properties.headers().as_ref().and_then(|headers| headers.inner().get("x-death"));
    let Some(AMQPValue::FieldArray(entries)) = record else { return Vec::new() };
    let entries = entries.as_slice().iter().take(MOST);
    entries
        .filter_map(|entry| match entry {
            AMQPValue::FieldTable(entry) => Some(Death {
                reason: string(entry.inner().get("reason")),
                queue: string(entry.inner().get("queue")),
                count: integer(entry.inner().get("count")),
            }),
            _ => None,
        })
        .collect()
}

fn string(value: Option<&AMQPValue>) -> String {
    match value {
        Some(AMQPValue::LongString(text)) => printable(&String::from_utf8_lossy(text.as_bytes()), 255),
        Some(AMQPValue::ShortString(text)) => printable(text.as_str(), 255),
        _ => String::new(),
    }
}

fn integer(value: Option<&AMQPValue>) -> i64 {
    match value {
        Some(AMQPValue::LongLongInt(n)) => *n,
        Some(AMQPValue::LongInt(n)) => i64::from(*n),
        Some(AMQPValue::LongUInt(n)) => i64::from(*n),
        Some(AMQPValue::ShortInt(n)) => i64::from(*n),
        Some(AMQPValue::ShortUInt(n)) => i64::from(*n),
        Some(AMQPValue::ShortShortInt(n)) => i64::from(*n),
        Some(AMQPValue::ShortShortUInt(n)) => i64::from(*n),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: Vec<(&str, AMQPValue)>) -> AMQPValue {
        let mut table = FieldTable::default();
        for (key, value) in entries {
            table.insert(key.into(), value);
        }
        AMQPValue::FieldTable(table)
    }

    fn with(x_death: AMQPValue) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert("x-death".into(), x_death);
        BasicProperties::default().with_headers(headers)
    }

    #[test]
    fn the_record_of_a_death_is_read_newest_first() {
        let newest = table(vec![
            ("reason", AMQPValue::LongString("delivery_limit".into())),
            ("queue", AMQPValue::LongString("a.v1.stage.start".into())),
            ("count", AMQPValue::LongLongInt(2)),
        ]);
        let older =
            table(vec![("reason", AMQPValue::ShortString("rejected".into())), ("count", AMQPValue::LongInt(1))]);
        let deaths = deaths(&with(AMQPValue::FieldArray(vec![newest, older].into())));
        assert_eq!(
            deaths,
            [
                Death { reason: "delivery_limit".into(), queue: "a.v1.stage.start".into(), count: 2 },
                Death { reason: "rejected".into(), queue: String::new(), count: 1 },
            ]
        );
    }

    #[test]
    fn a_forged_record_is_read_without_harm() {
        assert!(deaths(&BasicProperties::default()).is_empty());
        assert!(deaths(&with(AMQPValue::Boolean(true))).is_empty());
        assert!(deaths(&with(table(vec![]))).is_empty());
        assert!(deaths(&with(AMQPValue::FieldArray(vec![AMQPValue::Void].into()))).is_empty());
        let hostile = table(vec![
            ("reason", AMQPValue::LongString(vec![0xff, 0x1b, b'[', 0].into())),
            ("queue", AMQPValue::LongString("q".repeat(100_000).into())),
            ("count", AMQPValue::LongString("many".into())),
        ]);
        let deaths = deaths(&with(AMQPValue::FieldArray(vec![hostile; 1000].into())));
        assert_eq!(deaths.len(), 20);
        assert!(!deaths[0].reason.chars().any(char::is_control) && deaths[0].queue.len() < 300 && deaths[0].count == 0);
    }
}

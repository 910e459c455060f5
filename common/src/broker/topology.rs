//! The exchanges and queues: their names and the properties without which messages would be lost.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use tracing::{debug, warn};

use super::error::{BrokerError, is_internal, precondition};
use super::link::{Link, PATIENCE, connection_name};
use super::task::is_stage_name;
use crate::retry::Delays;
use crate::settings;

mod examine;

pub use examine::{Examination, There};

/// Attempts to declare before an internal error of the broker counts as an outage.
const ATTEMPTS: u32 = 5;

/// Deliveries of one message before the broker gives it to the dead-letter queue. Always a positive number: -1 means "for ever"
/// to newer brokers and "drop at the first return" to older ones.
const DELIVERY_LIMIT: i32 = 20;

/// As [`DELIVERY_LIMIT`] where no dead-letter queue follows: in practice never. Newer brokers have a default of 20, after which a
/// message that was only looked at would be dropped.
const NO_DELIVERY_LIMIT: i32 = 1_000_000;

/// Routing key of the dead-letter queue.
const DEAD_KEY: &str = "dead";

/// Routing key of the queue for bodies that name no tape.
pub(super) const PARKED_KEY: &str = "parked";

/// The exchanges and queues of one installation.
///
/// | name | what |
/// |---|---|
/// | `<prefix>.v1.tasks` | direct exchange, routing key = stage |
/// | `<prefix>.v1.stage.<stage>` | one queue per stage |
/// | `<prefix>.v1.dead` | direct exchange and queue for what was rejected or delivered too often |
/// | `<prefix>.v1.parked` | queue for bodies that name no tape |
///
/// All queues are quorum queues and durable. Properties of a queue can never change, so what may need tuning belongs into policies
/// on the broker, and another set of properties would get another version in the names. Works unchanged on RabbitMQ 3.10 to 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    prefix: String,
    stages: Vec<String>,
}

impl Topology {
    /// The topology for these stages, all of them, whichever of them this process serves.
    ///
    /// # Errors
    /// [`BrokerError::Settings`] when the prefix is not 1 to 100 of `[A-Za-z0-9_-]`, or a stage is no stage name.
    pub fn new(prefix: &str, stages: impl IntoIterator<Item = impl Into<String>>) -> Result<Topology, BrokerError> {
        let fits = (1..=100).contains(&prefix.len())
            && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !fits {
            let shown = super::task::printable(prefix, 120);
            return Err(BrokerError::Settings(format!(
                "broker.prefix: '{shown}', expected 1 to 100 of A-Z, a-z, 0-9, '_' and '-'"
            )));
        }
        let stages: Vec<String> = stages.into_iter().map(Into::into).collect();
        if let Some(odd) = stages.iter().find(|stage| !is_stage_name(stage)) {
            let shown = super::task::printable(odd, 60);
            return Err(BrokerError::Settings(format!(
                "'{shown}' is not the name of a stage, expected 1 to 32 of a-z"
            )));
        }
        Ok(Topology { prefix: prefix.to_owned(), stages })
    }

    /// The stages, as given.
    pub fn stages(&self) -> &[String] {
        &self.stages
    }

    /// The exchange that tasks are published to.
    pub fn tasks_exchange(&self) -> String {
        format!("{}.v1.tasks", self.prefix)
    }

    /// The queue of a stage.
    pub fn stage_queue(&self, stage: &str) -> String {
        format!("{}.v1.stage.{stage}", self.prefix)
    }

    /// The exchange that rejected messages go through.
    pub fn dead_exchange(&self) -> String {
        format!("{}.v1.dead", self.prefix)
    }

    /// The queue of rejected messages.
    pub fn dead_queue(&self) -> String {
        format!("{}.v1.dead", self.prefix)
    }

    /// The queue of bodies that name no tape.
    pub fn parked_queue(&self) -> String {
        format!("{}.v1.parked", self.prefix)
    }

    /// Creates what is missing, over a connection of its own; harmless when all is there. Call it before every connect: queues may
    /// have been deleted, brokers replaced.
    ///
    /// # Errors
    /// [`BrokerError::Mismatch`] when something is there with other properties: it is neither changed nor deleted, and trying again
    /// is useless. Otherwise as [`Link::connect`].
    pub async fn declare(&self, broker: &settings::Broker, app: &str) -> Result<(), BrokerError> {
        let mut delays = Delays::new(Duration::from_millis(200), Duration::from_secs(2));
        let mut attempt = 1;
        loop {
            let link = Link::connect(broker, &format!("{} declare", connection_name(app))).await?;
            match self.declare_over(&link).await {
                Ok(()) => {
                    link.close().await;
                    return Ok(());
                }
                // Two clients creating the same queue at once can upset the broker; it closes the connection and is well again.
                Err(Failure::Internal(error)) if attempt < ATTEMPTS => {
                    warn!(broker = %link.at(), %error, attempt, "the broker failed to declare; trying again");
                    attempt += 1;
                    tokio::time::sleep(delays.next_delay()).await;
                }
                Err(Failure::Internal(error) | Failure::Other(error)) => return Err(error),
            }
        }
    }

    async fn declare_over(&self, link: &Link) -> Result<(), Failure> {
        let channel = link.channel("declaring the queues").await.map_err(Failure::Other)?;
        let declaring = Declaring { link, channel };
        declaring.exchange(&self.dead_exchange()).await?;
        for (queue, key) in [(self.dead_queue(), DEAD_KEY), (self.parked_queue(), PARKED_KEY)] {
            declaring.queue(&queue, last_resort()).await?;
            declaring.bind(&queue, &self.dead_exchange(), key).await?;
        }
        declaring.exchange(&self.tasks_exchange()).await?;
        for stage in &self.stages {
            let queue = self.stage_queue(stage);
            declaring.queue(&queue, self.stage_arguments()).await?;
            declaring.bind(&queue, &self.tasks_exchange(), stage).await?;
        }
        debug!(broker = %link.at(), prefix = %self.prefix, "exchanges and queues are there");
        Ok(())
    }

    /// Only those whose absence loses messages.
    fn stage_arguments(&self) -> FieldTable {
        table([
            ("x-queue-type", text("quorum")),
            ("x-dead-letter-exchange", text(&self.dead_exchange())),
            ("x-dead-letter-routing-key", text(DEAD_KEY)),
            // The next two belong together: with any other overflow, at-least-once silently becomes at-most-once.
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
            ("x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT)),
        ])
    }
}

/// Arguments of a queue behind which there is no other.
fn last_resort() -> FieldTable {
    table([("x-queue-type", text("quorum")), ("x-delivery-limit", AMQPValue::LongInt(NO_DELIVERY_LIMIT))])
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert(key.into(), value);
    }
    table
}

/// Whether it is worth declaring again.
enum Failure {
    Internal(BrokerError),
    Other(BrokerError),
}

/// One attempt to declare.
struct Declaring<'a> {
    link: &'a Link,
    channel: Channel,
}

impl Declaring<'_> {
    async fn exchange(&self, name: &str) -> Result<(), Failure> {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = self.channel.exchange_declare(short(name), ExchangeKind::Direct, options, FieldTable::default());
        self.answer("exchange", name, declared).await
    }

    async fn queue(&self, name: &str, arguments: FieldTable) -> Result<(), Failure> {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(short(name), options, arguments);
        self.answer("queue", name, async { declared.await.map(|_| ()) }).await
    }

    async fn bind(&self, queue: &str, exchange: &str, key: &str) -> Result<(), Failure> {
        let options = QueueBindOptions::default();
        let bound = self.channel.queue_bind(short(queue), short(exchange), key.into(), options, FieldTable::default());
        self.answer("binding of queue", queue, bound).await
    }

    async fn answer(
        &self,
        kind: &str,
        name: &str,
        answer: impl Future<Output = lapin::Result<()>>,
    ) -> Result<(), Failure> {
        let doing = format!("declaring {kind} '{name}'");
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(())) => Ok(()),
            Err(_) => Err(Failure::Other(BrokerError::late(&doing, self.link.at(), PATIENCE))),
            Ok(Err(error)) if is_internal(&error) => Err(Failure::Internal(self.link.error(&error, &doing))),
            Ok(Err(error)) => Err(Failure::Other(match precondition(&error) {
                Some(why) => mismatch(kind, name, self.link.at(), why),
                None => self.link.error(&error, &doing),
            })),
        }
    }
}

/// Says which queue or exchange differs in which argument, and how to get out of it.
fn mismatch(kind: &str, name: &str, at: &str, why: String) -> BrokerError {
    let argument =
        why.split_once("inequivalent arg '").and_then(|(_, rest)| rest.split_once('\'')).map(|(a, _)| a.to_owned());
    let advice = if kind == "queue" {
        format!(
            "stop the programs, look at what the queue holds, delete it (rabbitmqctl -p VHOST delete_queue {name}) and start them \
             again: it is created anew and open tasks are published again from the table; or set another broker.prefix"
        )
    } else {
        format!(
            "stop the programs, delete {kind} '{name}' on the management page and start them again; or set another broker.prefix"
        )
    };
    BrokerError::Mismatch { what: format!("{kind} '{name}'"), argument, at: at.to_owned(), why, advice }
}

/// A name as the client library wants it.
pub(super) fn short(name: &str) -> ShortString {
    ShortString::try_new(name).expect("prefix and stage are checked, so names stay below 255 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_installation_version_and_stage() {
        let topology = Topology::new("atresys", ["start", "end"]).unwrap();
        assert_eq!(topology.tasks_exchange(), "atresys.v1.tasks");
        assert_eq!(topology.stage_queue("start"), "atresys.v1.stage.start");
        assert_eq!(topology.dead_exchange(), "atresys.v1.dead");
        assert_eq!(topology.dead_queue(), "atresys.v1.dead");
        assert_eq!(topology.parked_queue(), "atresys.v1.parked");
    }

    #[test]
    fn a_prefix_or_stage_that_is_no_name_is_refused() {
        for prefix in ["", "a.b", "a b", "a\n", "ä", &"a".repeat(101)] {
            let error = Topology::new(prefix, ["start"]).expect_err(prefix);
            assert!(error.is_final() && error.to_string().contains("broker.prefix"), "{error}");
        }
        assert!(Topology::new("atresys", ["Start"]).is_err());
        let longest = Topology::new(&"a".repeat(100), ["b".repeat(32)]).unwrap();
        assert_eq!(short(&longest.stage_queue(&"b".repeat(32))).as_str().len(), 100 + ".v1.stage.".len() + 32);
    }

    #[test]
    fn a_mismatch_names_the_queue_the_argument_and_the_way_out() {
        let why = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'a.v1.dead' in vhost 'v': received 'quorum'";
        let error = mismatch("queue", "a.v1.dead", "h:5672/v", why.to_owned());
        let text = error.to_string();
        for word in ["queue 'a.v1.dead'", "h:5672/v", "another 'x-queue-type'", "nothing was changed", "rabbitmqctl"] {
            assert!(text.contains(word), "{text} does not say {word}");
        }
        assert!(error.is_final());
    }

    #[test]
    fn a_mismatch_without_a_named_argument_still_repeats_the_broker() {
        let error = mismatch("exchange", "a.v1.tasks", "h:5672/v", "PRECONDITION_FAILED - odd".to_owned());
        assert!(error.to_string().contains("other properties") && error.to_string().contains("odd"), "{error}");
    }
}

//! Publishing with confirms.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::BrokerError;
use super::link::{Depth, Link, connection_name};
use super::task::{Task, is_stage_name, printable};
use super::topology::{PARKED_KEY, Topology, short};
use crate::{failpoint, settings};

/// Delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// Publishes tasks and knows of each what became of it.
///
/// Has its own connection and several channels; on each only one message is under way, because the client library can mix up
/// confirms and returns of messages that share a channel. Safe to use from many tasks at once: they wait for a free channel.
///
/// After [`PublishError::Refused`], [`PublishError::Unknown`] or [`PublishError::Closed`] it is of no further use: connect again.
pub struct Publisher {
    link: Link,
    names: Topology,
    app: String,
    /// The channels that nobody uses; one permit of `free` each.
    idle: Mutex<Vec<Channel>>,
    /// Closed when the publisher is of no further use.
    free: Semaphore,
    limit: Duration,
    serial: AtomicU64,
}

/// What became of a message that is not safely in its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// No queue takes it, it came back: queue or binding was deleted. Certainly not delivered.
    Unroutable(String),
    /// The broker did not take it: the queue is full (policy `max-length`) or has no leader. Certainly not delivered.
    Nack(String),
    /// The broker closed the channel over it: no exchange, no permission. Certainly not delivered.
    Refused(BrokerError),
    /// No answer in time, or the connection was lost: it may have been delivered, or may yet be.
    Unknown(BrokerError),
    /// Not sent, because an earlier message broke this publisher: connect again.
    Closed(String),
}

impl PublishError {
    /// Whether the publisher is of no further use.
    pub fn is_broken(&self) -> bool {
        match self {
            PublishError::Unroutable(_) | PublishError::Nack(_) => false,
            PublishError::Refused(_) | PublishError::Unknown(_) | PublishError::Closed(_) => true,
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Unroutable(what) => write!(
                f,
                "{what} came back: no queue is bound for it; queues and bindings are declared again when the program reconnects"
            ),
            PublishError::Nack(what) => write!(
                f,
                "the broker did not take {what}: the queue is full (policy max-length) or has no leader; see the broker's log"
            ),
            PublishError::Refused(error) => write!(f, "not published: {error}"),
            PublishError::Unknown(error) => write!(f, "perhaps published, perhaps not: {error}"),
            PublishError::Closed(what) => write!(f, "{what} was not sent: the connection failed before"),
        }
    }
}

impl std::error::Error for PublishError {}

impl Publisher {
    /// How long a message may take from sending to confirmation.
    pub const LIMIT: Duration = Duration::from_secs(10);

    /// Connects, with `channels` messages under way at once at most (at least 1). `app` is the program's name. Expects the
    /// topology to be declared.
    ///
    /// # Errors
    /// As [`Link::connect`].
    pub async fn connect(broker: &settings::Broker, app: &str, channels: usize) -> Result<Publisher, BrokerError> {
        let names = Topology::new(&broker.prefix, [] as [&str; 0])?;
        let link = Link::connect(broker, &format!("{} publish", connection_name(app))).await?;
        let channels = channels.max(1);
        let mut idle = Vec::with_capacity(channels);
        for _ in 0..channels {
            let channel = link.channel("opening a channel to publish").await?;
            let confirms = channel.confirm_select(ConfirmSelectOptions::default());
            link.within("switching on publisher confirms", confirms).await?;
            idle.push(channel);
        }
        Ok(Publisher {
            link,
            names,
            app: app.to_owned(),
            idle: Mutex::new(idle),
            free: Semaphore::new(channels),
            limit: Publisher::LIMIT,
            serial: AtomicU64::new(0),
        })
    }

    /// The same with another limit than [`Publisher::LIMIT`].
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Publisher {
        Publisher { limit, ..self }
    }

    /// `host:port/vhost`.
    pub fn at(&self) -> &str {
        self.link.at()
    }

    /// Whether it is of no further use: connect again.
    pub fn is_broken(&self) -> bool {
        self.free.is_closed()
    }

    /// Publishes a task to the queue of its stage. Ok: the broker has stored it.
    ///
    /// # Errors
    /// See [`PublishError`]: each says whether the message may have been delivered nevertheless.
    pub async fn publish(&self, task: &Task) -> Result<(), PublishError> {
        let what = format!("the task {} {} (generation {})", task.stage, task.tape, task.generation);
        if !is_stage_name(&task.stage) {
            return Err(PublishError::Unroutable(what));
        }
        let headers = table([
            ("tape", AMQPValue::LongString(task.tape.as_str().into())),
            ("stage", AMQPValue::LongString(task.stage.as_str().into())),
            ("generation", AMQPValue::LongLongInt(task.generation)),
        ]);
        let id = format!("{}.{}.{}.{}", task.tape, task.stage, task.generation, self.next_serial());
        let properties = self.properties("task", "application/json", &id, headers);
        let sent = || failpoint::pass_at("sent", &[&task.stage], &task.tape);
        self.send(&what, &self.names.tasks_exchange(), short(&task.stage), &task.encode(), properties, &id, sent).await
    }

    /// Puts a body that names no tape aside for a person to look at, with the queue it came from and the reason. Acknowledge the
    /// original only after Ok.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn park(&self, body: &[u8], from: &str, why: &str) -> Result<(), PublishError> {
        let headers = table([
            ("from", AMQPValue::LongString(printable(from, 300).into())),
            ("why", AMQPValue::LongString(printable(why, 500).into())),
        ]);
        let id = format!("parked.{}.{}", std::process::id(), self.next_serial());
        let properties = self.properties("parked", "application/octet-stream", &id, headers);
        self.send("the message to park", &self.names.dead_exchange(), PARKED_KEY.into(), body, properties, &id, || ())
            .await
    }

    /// Stores a parked message once more, its properties as given. Acknowledge the original only after Ok.
    pub(super) async fn park_again(&self, body: &[u8], properties: BasicProperties) -> Result<(), PublishError> {
        let id = properties.message_id().as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default();
        let properties = properties.with_delivery_mode(PERSISTENT);
        self.send("the parked message", &self.names.dead_exchange(), PARKED_KEY.into(), body, properties, &id, || ())
            .await
    }

    /// What a queue holds. None: no such queue.
    ///
    /// # Errors
    /// As [`Link::depth`].
    pub async fn depth(&self, queue: &str) -> Result<Option<Depth>, BrokerError> {
        self.link.depth(queue).await
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.free.close();
        self.link.close().await;
    }

    fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// What the management page shows of a message. Nothing is decided by it, the host's clock included.
    fn properties(&self, kind: &str, content_type: &str, id: &str, headers: FieldTable) -> BasicProperties {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        BasicProperties::default()
            .with_content_type(content_type.into())
            .with_type(kind.into())
            .with_message_id(short(id))
            .with_app_id(short(&printable(&self.app, 100)))
            .with_timestamp(now.as_secs())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers)
    }

    /// `sent` is called between sending and confirmation.
    #[expect(clippy::too_many_arguments, reason = "all of one message, and used in two places")]
    async fn send(
        &self,
        what: &str,
        exchange: &str,
        key: ShortString,
        body: &[u8],
        properties: BasicProperties,
        id: &str,
        sent: impl FnOnce(),
    ) -> Result<(), PublishError> {
        let doing = format!("publishing {what}");
        let Ok(permit) = self.free.acquire().await else { return Err(PublishError::Closed(what.to_owned())) };
        let Some(channel) = self.idle().pop() else { return Err(PublishError::Closed(what.to_owned())) };
        // From here on, whatever ends this future early leaves the channel with an answer under way.
        let lent = Lent { publisher: self, channel: Some(channel), permit: Some(permit) };
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let answer = tokio::time::timeout(self.limit, async {
            let channel = lent.channel.as_ref().expect("lent until it is given back");
            let confirm = channel.basic_publish(short(exchange), key, options, body, properties).await?;
            sent();
            confirm.await
        })
        .await;
        match answer {
            Ok(Ok(Confirmation::Ack(None))) => {
                lent.give_back();
                Ok(())
            }
            Ok(Ok(Confirmation::Nack(None))) => {
                lent.give_back();
                Err(PublishError::Nack(what.to_owned()))
            }
            Ok(Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)))) => {
                if returned.properties.message_id().as_ref().map(ShortString::as_str) == Some(id) {
                    lent.give_back();
                    Err(PublishError::Unroutable(what.to_owned()))
                } else {
                    Err(PublishError::Unknown(
                        self.odd(&doing, "the broker returned another message than the one under way"),
                    ))
                }
            }
            Ok(Ok(Confirmation::NotRequested)) => {
                Err(PublishError::Unknown(self.odd(&doing, "confirms are not switched on")))
            }
            Ok(Err(error)) => {
                let refused = matches!(error.kind(), ErrorKind::ProtocolError(_));
                match self.link.error(&error, &doing) {
                    // The broker refuses a message before it stores it.
                    error @ BrokerError::Refused { .. } if refused => Err(PublishError::Refused(error)),
                    error => Err(PublishError::Unknown(error)),
                }
            }
            Err(_) => Err(PublishError::Unknown(BrokerError::late(&doing, self.at(), self.limit))),
        }
    }

    fn odd(&self, doing: &str, why: &str) -> BrokerError {
        BrokerError::Lost { doing: doing.to_owned(), at: self.at().to_owned(), why: why.to_owned() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("at", &self.at()).field("broken", &self.is_broken()).finish_non_exhaustive()
    }
}

/// A channel with a message under way. Dropped without [`Lent::give_back`] it breaks the publisher: an answer may still come, and
/// would be taken for the answer to the next message.
struct Lent<'a> {
    publisher: &'a Publisher,
    channel: Option<Channel>,
    permit: Option<SemaphorePermit<'a>>,
}

impl Lent<'_> {
    fn give_back(mut self) {
        // The channel first: whoever gets the permit must find it.
        self.publisher.idle().extend(self.channel.take());
        drop(self.permit.take());
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if self.channel.is_some() {
            self.publisher.free.close();
        }
    }
}

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert(key.into(), value);
    }
    table
}

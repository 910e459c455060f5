//! The queue of bodies that name no tape, for a person to look at.
//!
//! Looking takes messages into the hand without acknowledging them and gives them back afterwards; whatever happens to the process,
//! the broker gives them back itself. That is not free: a quorum queue counts deliveries, and drops a message at its delivery limit.
//! The queue is declared with a limit that nobody reaches, but a policy may set a lower one, and the lower one counts. So a message
//! that was delivered [`RENEWED_AT`] times is stored anew before the old one is acknowledged, and its count begins again.

use std::fmt::Write as _;

use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use sha2::{Digest as _, Sha256};

use super::error::BrokerError;
use super::link::{Link, connection_name};
use super::publish::Publisher;
use super::task::printable;
use super::topology::{Topology, short};
use crate::settings;

/// Deliveries after which a message is stored anew: half of the lowest limit that a broker has by default.
const RENEWED_AT: i64 = 10;

/// What is shown of headers: how many, and how much of each.
const HEADERS: usize = 50;
const HEADER_LENGTH: usize = 500;

/// The parked messages, taken into the hand one by one. Dropped, it gives all of them back.
pub struct Parked {
    link: Link,
    channel: Channel,
    queue: String,
    broker: settings::Broker,
    app: String,
    publisher: Option<Publisher>,
}

/// A message in the hand.
#[derive(Debug, Clone)]
pub struct ParkedMessage {
    /// What it is, and not where it stands: SHA-256 of its message id and body, in hexadecimal. Two messages that do not differ in
    /// these have the same.
    pub id: String,
    /// The message id that whoever wrote it gave it, fit for a terminal.
    pub message_id: Option<String>,
    /// Seconds since the Unix epoch by the clock of whoever wrote it; nothing is decided by it.
    pub written_at: Option<u64>,
    /// How often it was delivered before; as far as the broker says.
    pub deliveries: i64,
    /// Headers, fit for a terminal, cut where they are long.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    tag: u64,
    properties: BasicProperties,
}

impl ParkedMessage {
    /// It was delivered so often that it is stored anew; its body must be kept until then.
    pub fn is_worn(&self) -> bool {
        self.deliveries >= RENEWED_AT
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn of(message: lapin::message::Delivery) -> ParkedMessage {
        let properties = message.properties;
        let headers = properties.headers().as_ref();
        let text = |id: &lapin::types::ShortString| id.as_str().to_owned();
        let message_id = properties.message_id().as_ref().map(text);
        ParkedMessage {
            id: digest(message_id.as_deref(), &message.data),
            message_id: message_id.map(|id| printable(&id, 255)),
            written_at: *properties.timestamp(),
            deliveries: headers.map_or(0, deliveries),
            headers: headers.map(shown).unwrap_or_default(),
            body: message.data,
            tag: message.delivery_tag,
            properties,
        }
    }
}

impl Parked {
    /// Connects. None: the queue is not there, so nothing was ever parked.
    ///
    /// # Errors
    /// As [`Link::connect`].
    pub async fn open(broker: &settings::Broker, app: &str) -> Result<Option<Parked>, BrokerError> {
        let names = Topology::new(&broker.prefix, [] as [&str; 0])?;
        let queue = names.parked_queue();
        let link = Link::connect(broker, &format!("{} parked", connection_name(app))).await?;
        if link.depth(&queue).await?.is_none() {
            link.close().await;
            return Ok(None);
        }
        let channel = link.channel("opening a channel to the parked messages").await?;
        Ok(Some(Parked { link, channel, queue, broker: broker.clone(), app: app.to_owned(), publisher: None }))
    }

    /// `host:port/vhost`.
    pub fn at(&self) -> &str {
        self.link.at()
    }

    /// The name of the queue.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// How many are there that nobody has in the hand.
    ///
    /// # Errors
    /// When the broker does not say.
    pub async fn ready(&self) -> Result<u32, BrokerError> {
        Ok(self.link.depth(&self.queue).await?.map_or(0, |depth| depth.messages))
    }

    /// Takes the next one into the hand, the oldest first. None: there are no more, or somebody else has them in the hand.
    ///
    /// # Errors
    /// When the broker does not give it, or is gone: then all go back.
    pub async fn next(&mut self) -> Result<Option<ParkedMessage>, BrokerError> {
        let asked = self.channel.basic_get(short(&self.queue), BasicGetOptions { no_ack: false });
        let doing = format!("reading queue '{}'", self.queue);
        Ok(self.link.within(&doing, asked).await?.map(|message| ParkedMessage::of(message.delivery)))
    }

    /// Removes messages from the queue for good: exactly these, each by its place in the hand. Ok: the broker has done it.
    ///
    /// # Errors
    /// When that is not certain: then they may come back.
    pub async fn remove(&mut self, messages: &[ParkedMessage]) -> Result<(), BrokerError> {
        let doing = format!("removing messages from queue '{}'", self.queue);
        for message in messages {
            let ack = self.channel.basic_ack(message.tag, BasicAckOptions { multiple: false });
            self.link.within(&doing, ack).await?;
        }
        self.settled(&doing).await
    }

    /// Gives all that are in the hand back, oldest first as before, but for those that were delivered often: these are stored anew at
    /// the end of the queue. `seen` are those that were taken, those that are [worn](ParkedMessage::is_worn) with their bodies.
    ///
    /// # Errors
    /// When the broker did not take them: it takes them back by itself when the connection ends. Also when it did, but would not
    /// store one anew.
    pub async fn give_back(mut self, seen: &[ParkedMessage]) -> Result<(), BrokerError> {
        let mut renewed = Ok(());
        for message in seen.iter().filter(|message| message.is_worn()) {
            renewed = self.renew(message).await;
            if renewed.is_err() {
                break;
            }
        }
        let doing = format!("giving messages back to queue '{}'", self.queue);
        // A nack and no end of the channel: brokers that tell returning from failing count only the latter.
        let nack = self.channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true });
        self.link.within(&doing, nack).await?;
        self.settled(&doing).await?;
        if let Some(publisher) = self.publisher.take() {
            publisher.close().await;
        }
        self.link.close().await;
        renewed
    }

    /// Stores a message anew and then removes the old one. A crash in between leaves both, which is harmless.
    async fn renew(&mut self, message: &ParkedMessage) -> Result<(), BrokerError> {
        let mut headers = FieldTable::default();
        if let Some(old) = message.properties.headers() {
            for (name, value) in old {
                if !COUNTERS.contains(&name.as_str()) && !COPIES.contains(&name.as_str()) {
                    headers.insert(name.clone(), value.clone());
                }
            }
        }
        let properties = described(&message.properties).with_headers(headers);
        if self.publisher.is_none() {
            self.publisher = Some(Publisher::connect(&self.broker, &self.app, 1).await?);
        }
        let publisher = self.publisher.as_ref().expect("it was made above");
        publisher.park_again(&message.body, properties).await.map_err(|error| BrokerError::Lost {
            doing: format!("storing a message of queue '{}' anew", self.queue),
            at: self.link.at().to_owned(),
            why: error.to_string(),
        })?;
        let doing = format!("removing the old copy of a message from queue '{}'", self.queue);
        let ack = self.channel.basic_ack(message.tag, BasicAckOptions { multiple: false });
        self.link.within(&doing, ack).await
    }

    /// An acknowledgement has no answer; what is asked after it on the same channel has, and comes after it.
    async fn settled(&self, doing: &str) -> Result<(), BrokerError> {
        let asked = self.channel.basic_qos(1, lapin::options::BasicQosOptions::default());
        self.link.within(doing, asked).await
    }
}

/// Headers in which brokers count deliveries.
const COUNTERS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];

/// Headers by which a sender has copies delivered elsewhere.
const COPIES: [&str; 2] = ["CC", "BCC"];

/// Of the properties of a message that anybody may have sent, those that describe it. The others ask something of the broker: that
/// it drops the message after a time, or refuses it from anybody but its first sender.
fn described(properties: &BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default();
    if let Some(text) = properties.content_type() {
        kept = kept.with_content_type(text.clone());
    }
    if let Some(text) = properties.content_encoding() {
        kept = kept.with_content_encoding(text.clone());
    }
    if let Some(text) = properties.kind() {
        kept = kept.with_type(text.clone());
    }
    if let Some(text) = properties.message_id() {
        kept = kept.with_message_id(text.clone());
    }
    if let Some(text) = properties.app_id() {
        kept = kept.with_app_id(text.clone());
    }
    match properties.timestamp() {
        Some(at) => kept.with_timestamp(*at),
        None => kept,
    }
}

fn deliveries(headers: &FieldTable) -> i64 {
    COUNTERS.iter().filter_map(|name| headers.inner().get(*name)).map(integer).max().unwrap_or(0)
}

fn integer(value: &AMQPValue) -> i64 {
    match value {
        AMQPValue::LongLongInt(n) => *n,
        AMQPValue::LongInt(n) => i64::from(*n),
        AMQPValue::LongUInt(n) => i64::from(*n),
        AMQPValue::ShortInt(n) => i64::from(*n),
        AMQPValue::ShortUInt(n) => i64::from(*n),
        AMQPValue::ShortShortInt(n) => i64::from(*n),
        AMQPValue::ShortShortUInt(n) => i64::from(*n),
        _ => 0,
    }
}

fn shown(headers: &FieldTable) -> Vec<(String, String)> {
    headers
        .into_iter()
        .take(HEADERS)
        .map(|(name, value)| {
            let text = match value {
                AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
                AMQPValue::ShortString(text) => text.as_str().to_owned(),
                AMQPValue::Boolean(value) => value.to_string(),
                AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) => format!("{value:?}"),
                other => integer(other).to_string(),
            };
            (printable(name.as_str(), 100), printable(&text, HEADER_LENGTH))
        })
        .collect()
}

fn digest(message_id: Option<&str>, body: &[u8]) -> String {
    let id = message_id.unwrap_or_default();
    // The length keeps the two apart.
    let mut sum = Sha256::new();
    sum.update((id.len() as u64).to_be_bytes());
    sum.update(id.as_bytes());
    sum.update(body);
    sum.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes any text");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_what_a_message_is_and_not_where_it_stands() {
        let id = digest(Some("a.1"), b"body");
        assert_eq!((id.len(), &id), (64, &digest(Some("a.1"), b"body")));
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        for other in [digest(Some("a.2"), b"body"), digest(Some("a.1"), b"bodY"), digest(None, b"body")] {
            assert_ne!(id, other);
        }
        assert_ne!(digest(Some("a"), b"1body"), digest(Some("a1"), b"body"), "id and body are kept apart");
    }

    #[test]
    fn headers_are_bounded_and_cannot_steer_a_terminal() {
        let mut table = FieldTable::default();
        table.insert("why\x1b".into(), AMQPValue::LongString("\x1b[31mred".repeat(1000).into()));
        table.insert("x-delivery-count".into(), AMQPValue::LongLongInt(7));
        let shown = shown(&table);
        assert!(shown.iter().all(|(name, value)| !format!("{name}{value}").contains(char::is_control)), "{shown:?}");
        assert!(shown.iter().all(|(_, value)| value.len() < 2 * HEADER_LENGTH));
        assert_eq!(deliveries(&table), 7);
        table.insert("x-acquired-count".into(), AMQPValue::LongInt(9));
        assert_eq!(deliveries(&table), 9, "the larger one, for it is not known which of them the limit is for");
    }
}

//! A plain client of the broker: what another program, or a hostile one, can do to the queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::broker::{Task, Topology};
use common::stages::STAGES;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::task::JoinHandle;

use crate::services::TestVhost;

/// A connection to a virtual host, with a channel whose publishes are confirmed.
pub struct Tap {
    connection: Connection,
    channel: Channel,
    topology: Topology,
}

/// Copies every task of the stages; ends when dropped.
#[derive(Debug)]
pub struct Copier {
    copying: JoinHandle<()>,
    copies: Arc<AtomicUsize>,
}

impl Copier {
    /// How many copies were made so far.
    pub fn copies(&self) -> usize {
        self.copies.load(Ordering::Relaxed)
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.copying.abort();
    }
}

impl Tap {
    /// Connects, and declares the queues as the programs do.
    ///
    /// # Panics
    /// When the broker does not do it.
    pub async fn on(vhost: &TestVhost) -> Tap {
        let broker = vhost.broker();
        let topology = Topology::new(&broker.prefix, STAGES.map(|stage| stage.name)).expect("good names");
        topology.declare(&broker, "tap").await.expect("the queues");
        let mut uri: lapin::uri::AMQPUri = broker.url.parse().expect("a url");
        uri.authority.userinfo.password = broker.password.expect("a password").reveal().to_owned();
        let connection = Connection::connect_uri(uri, ConnectionProperties::default()).await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Tap { connection, channel, topology }
    }

    /// Names of the queues.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Puts any bytes into the queue of a stage, and waits until they are there.
    ///
    /// # Panics
    /// When the broker does not take them.
    pub async fn put(&self, stage: &str, body: &[u8]) {
        publish(&self.channel, &self.topology.tasks_exchange(), stage, body, BasicProperties::default()).await;
    }

    /// Puts a dead letter into its queue, as if a worker had rejected it.
    ///
    /// # Panics
    /// When the broker does not take it.
    pub async fn put_dead(&self, task: &Task) {
        let exchange = self.topology.dead_exchange();
        publish(&self.channel, &exchange, "dead", &task.encode(), BasicProperties::default()).await;
    }

    /// Throws away what a queue holds, and says how many that were.
    ///
    /// # Panics
    /// When there is no such queue.
    pub async fn purge(&self, queue: &str) -> u32 {
        self.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.expect("a queue to purge")
    }

    /// How many messages a queue holds ready.
    ///
    /// # Panics
    /// When there is no such queue.
    pub async fn depth(&self, queue: &str) -> u32 {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
        declared.expect("a queue").message_count()
    }

    /// Waits until a queue holds so many messages.
    ///
    /// # Panics
    /// When it does not within [`crate::site::PATIENCE`].
    pub async fn until_depth(&self, queue: &str, expected: u32) {
        let begun = std::time::Instant::now();
        while self.depth(queue).await != expected {
            assert!(begun.elapsed() < crate::site::PATIENCE, "{queue} does not come to hold {expected} messages");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// From now on every task that is published to a stage is published so many times more.
    ///
    /// # Panics
    /// When the broker does not do it.
    pub async fn copy_all(&self, times: usize) -> Copier {
        const COPY: &str = "a copy";
        let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare("copies".into(), own, FieldTable::default()).await.expect("a queue");
        let exchange = self.topology.tasks_exchange();
        for stage in STAGES {
            let bound = self.channel.queue_bind(
                queue.name().clone(),
                exchange.as_str().into(),
                stage.name.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bound.await.expect("a binding");
        }
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consume = self.channel.basic_consume(queue.name().clone(), "copier".into(), no_ack, FieldTable::default());
        let mut arriving = consume.await.expect("a consumer");
        let channel = self.connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let copies = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&copies);
        let copying = tokio::spawn(async move {
            while let Some(Ok(delivery)) = arriving.next().await {
                let is_copy = delivery.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == COPY);
                for _ in 0..if is_copy { 0 } else { times } {
                    let marked = BasicProperties::default().with_type(COPY.into());
                    publish(&channel, &exchange, delivery.routing_key.as_str(), &delivery.data, marked).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Copier { copying, copies }
    }
}

async fn publish(channel: &Channel, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish(exchange.into(), key.into(), options, body, properties).await.expect("a publish");
    let confirmed = sent.await.expect("a confirm");
    assert!(matches!(confirmed, lapin::Confirmation::Ack(None)), "{confirmed:?}");
}

//! What a check of the site asks the broker. Nothing is created: what is missing is told, not declared.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, ExchangeKind};

use super::{Declaring, Failure, PATIENCE, Topology, connection_name, last_resort, short};
use crate::broker::error::{BrokerError, is_not_found};
use crate::broker::greeting;
use crate::broker::link::{Depth, Link};
use crate::settings;

/// What the broker says.
#[derive(Debug)]
pub struct Examination {
    /// `host:port/vhost`.
    pub at: String,
    /// Such as `RabbitMQ 4.1.3`; none where it was not told, or where the connection has TLS.
    pub release: Option<String>,
    /// The exchanges, by name.
    pub exchanges: Vec<(String, There)>,
    /// The queues, by name: one for each stage, then the dead-letter queue, then the parked one.
    pub queues: Vec<(String, There)>,
    /// Whether it takes messages; none where there is no exchange to try it with.
    pub takes: Option<Result<(), BrokerError>>,
}

/// Whether an exchange or a queue is as our programs declare it.
#[derive(Debug)]
pub enum There {
    /// Not there; the programs create it when they start.
    Missing,
    /// There, with our properties; what a queue holds (nothing for an exchange).
    Good(Option<Depth>),
    /// There with other properties ([`BrokerError::Mismatch`]), or the broker does not let us see.
    Bad(BrokerError),
}

impl Topology {
    /// Looks at everything that [`Topology::declare`] declares.
    ///
    /// # Errors
    /// When there is no connection: as [`Link::connect`].
    pub async fn examine(&self, broker: &settings::Broker, app: &str) -> Result<Examination, BrokerError> {
        let link = Link::connect(broker, &format!("{} check", connection_name(app))).await?;
        let mut exchanges = Vec::new();
        for name in [self.tasks_exchange(), self.dead_exchange()] {
            let there = exchange(&link, &name).await;
            exchanges.push((name, there));
        }
        let mut queues = Vec::new();
        for stage in &self.stages {
            let name = self.stage_queue(stage);
            let there = queue(&link, &name, self.stage_arguments()).await;
            queues.push((name, there));
        }
        for name in [self.dead_queue(), self.parked_queue()] {
            let there = queue(&link, &name, last_resort()).await;
            queues.push((name, there));
        }
        let takes = match &exchanges[0] {
            (name, There::Good(_)) => Some(takes(&link, name).await),
            _ => None,
        };
        let at = link.at().to_owned();
        let address = at.split_once('/').map_or(at.as_str(), |(address, _)| address);
        let plain = broker.url.trim().starts_with("amqp://");
        let release = if plain { greeting::release(address).await } else { None };
        link.close().await;
        Ok(Examination { at, release, exchanges, queues, takes })
    }
}

/// Declared only once it is known to be there: then it only compares.
async fn exchange(link: &Link, name: &str) -> There {
    let doing = format!("looking at exchange '{name}'");
    let channel = match link.channel(&doing).await {
        Ok(channel) => channel,
        Err(error) => return There::Bad(error),
    };
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let asked = channel.exchange_declare(short(name), ExchangeKind::Direct, options, FieldTable::default());
    match tokio::time::timeout(PATIENCE, asked).await {
        Err(_) => return There::Bad(BrokerError::late(&doing, link.at(), PATIENCE)),
        Ok(Err(error)) if is_not_found(&error) => return There::Missing,
        Ok(Err(error)) => return There::Bad(link.error(&error, &doing)),
        Ok(Ok(())) => {}
    }
    match (Declaring { link, channel }).exchange(name).await {
        Ok(()) => There::Good(None),
        Err(Failure::Internal(error) | Failure::Other(error)) => There::Bad(error),
    }
}

async fn queue(link: &Link, name: &str, arguments: FieldTable) -> There {
    let depth = match link.depth(name).await {
        Ok(Some(depth)) => depth,
        Ok(None) => return There::Missing,
        Err(error) => return There::Bad(error),
    };
    let channel = match link.channel("comparing a queue").await {
        Ok(channel) => channel,
        Err(error) => return There::Bad(error),
    };
    match (Declaring { link, channel }).queue(name, arguments).await {
        Ok(()) => There::Good(Some(depth)),
        Err(Failure::Internal(error) | Failure::Other(error)) => There::Bad(error),
    }
}

/// Sends a message that no queue is bound for and waits until the broker has thrown it away: one that is short of memory or disk
/// reads no message from anybody.
async fn takes(link: &Link, exchange: &str) -> Result<(), BrokerError> {
    let doing = format!("publishing to exchange '{exchange}' what no queue takes");
    let channel = link.channel(&doing).await?;
    link.within(&doing, channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let published = async {
        channel
            .basic_publish(
                short(exchange),
                "check-env".into(),
                BasicPublishOptions::default(),
                b"{}",
                BasicProperties::default(),
            )
            .await?
            .await
    };
    link.within(&doing, published).await.map(|_| ())
}

//! One connection to the broker, and what all its uses share: limits on every wait, and errors that say where.

use std::future::Future;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::QueueDeclareOptions;
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::types::{FieldTable, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use lapin::{Channel, Connection, ConnectionProperties, Event};
use rustls::ClientConfig;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::error::{BrokerError, is_not_found};
use crate::settings;

/// The longest wait for one answer of the broker.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Seconds between heartbeats, unless the url says otherwise. The client gives a silent broker up after twice as long.
const HEARTBEAT: u16 = 10;

/// What a queue holds at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages ready for delivery (those in the hands of consumers are not counted).
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// A connection to the broker. Lost once is lost for good: drop it and connect again.
pub struct Link {
    connection: Connection,
    at: String,
    watch: JoinHandle<()>,
}

impl Link {
    /// Connects. `name` is what the management page shows for the connection.
    ///
    /// # Errors
    /// [`BrokerError::Settings`] for an unusable url, [`BrokerError::Refused`] when the broker refuses user, password or virtual
    /// host, [`BrokerError::Lost`] when there is no connection within ten seconds.
    pub async fn connect(broker: &settings::Broker, name: &str) -> Result<Link, BrokerError> {
        let uri = uri(broker)?;
        let at = place(&uri);
        let doing = "connecting to RabbitMQ";
        crate::tls::install();
        let tls = match uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => {
                let config = crate::tls::broker(&broker.tls);
                Some(config.map_err(|error| BrokerError::Settings(format!("TLS to {at}: {error:#}")))?)
            }
        };
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        // No automatic recovery: it can leave a connection that looks healthy and delivers nothing.
        let line = Arc::new(Mutex::new(None));
        let connection = match tokio::time::timeout(PATIENCE, open(uri, properties, tls, Arc::clone(&line))).await {
            Ok(connected) => connected.map_err(|error| BrokerError::from_lapin(&error, doing, &at))?,
            Err(_) => {
                hang_up(&line);
                return Err(BrokerError::late(doing, &at, PATIENCE));
            }
        };
        let watch = watch(&connection, at.clone());
        Ok(Link { connection, at, watch })
    }

    /// `host:port/vhost`.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// What a queue holds, asked of the queue itself (the figures of the management page are seconds old). None: no such queue.
    ///
    /// # Errors
    /// When the broker refuses to say, or is gone.
    pub async fn depth(&self, queue: &str) -> Result<Option<Depth>, BrokerError> {
        let doing = format!("looking at queue '{queue}'");
        // A channel of its own: the broker closes it when there is no such queue.
        let channel = self.channel(&doing).await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let name = ShortString::try_new(queue)
            .map_err(|_| BrokerError::Settings(format!("queue name '{queue}' is longer than 255 bytes")))?;
        let asked = channel.queue_declare(name, options, FieldTable::default());
        match tokio::time::timeout(PATIENCE, asked).await {
            Err(_) => Err(BrokerError::late(&doing, &self.at, PATIENCE)),
            Ok(Err(error)) if is_not_found(&error) => Ok(None),
            Ok(Err(error)) => Err(self.error(&error, &doing)),
            Ok(Ok(queue)) => {
                let depth = Depth { messages: queue.message_count(), consumers: queue.consumer_count() };
                // Nothing depends on a tidy end of a channel that dies with its handle anyway.
                let _ = tokio::time::timeout(PATIENCE, channel.close(200, "done".into())).await;
                Ok(Some(depth))
            }
        }
    }

    /// Says goodbye, so that the broker logs no abrupt end. Whatever happens, the connection is gone afterwards.
    pub async fn close(self) {
        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, self.connection.close(200, "done".into())).await {
            debug!(broker = %self.at, %error, "closing the connection");
        }
    }

    /// A new channel.
    pub(super) async fn channel(&self, doing: &str) -> Result<Channel, BrokerError> {
        self.within(doing, self.connection.create_channel()).await
    }

    /// Waits for an answer of the broker, but not for ever.
    pub(super) async fn within<T>(
        &self,
        doing: &str,
        answer: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        within(&self.at, doing, answer).await
    }

    /// Translates an error of the client library.
    pub(super) fn error(&self, error: &lapin::Error, doing: &str) -> BrokerError {
        BrokerError::from_lapin(error, doing, &self.at)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// The socket of a connection under way.
type Line = Arc<Mutex<Option<TcpStream>>>;

/// Connects as the client library does by itself, but with our own idea of whom to trust, and leaves a handle of the socket
/// in `line`.
async fn open(
    uri: AMQPUri,
    properties: ConnectionProperties,
    tls: Option<Arc<ClientConfig>>,
    line: Line,
) -> lapin::Result<Connection> {
    let runtime = lapin::runtime::default_runtime()?;
    Connection::connector(
        uri,
        runtime,
        async move |uri, runtime| {
            let (host, port) = (uri.authority.host.as_str(), uri.authority.port);
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
            let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
            if let AsyncTcpStream::Plain(stream) = &stream {
                let socket = stream.get_ref().as_fd().try_clone_to_owned()?;
                *line.lock().unwrap_or_else(PoisonError::into_inner) = Some(TcpStream::from(socket));
            }
            match tls.clone() {
                None => Ok(stream),
                Some(config) => Ok(stream.into_rustls(&RustlsConnector::from(config), host).await?),
            }
        },
        properties,
    )
    .await
}

/// Closes the socket under the client library, which otherwise goes on waiting for the first word of a broker that accepts and
/// says nothing, in a thread of its own for each attempt.
fn hang_up(line: &Line) {
    if let Some(socket) = line.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // An error says that it is closed already.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

/// Waits for an answer of the broker at `at`, but not for ever.
pub(super) async fn within<T>(
    at: &str,
    doing: &str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| BrokerError::from_lapin(&error, doing, at)),
        Err(_) => Err(BrokerError::late(doing, at, PATIENCE)),
    }
}

/// Logs what the broker tells about the connection; errors are logged by whoever uses it.
fn watch(connection: &Connection, at: String) -> JoinHandle<()> {
    let mut events = Box::pin(connection.events_listener());
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(reason) => {
                    warn!(broker = %at, reason = %super::task::printable(&reason, 200),
                          "the broker has stopped reading from this connection; check its disk and memory alarms");
                }
                Event::ConnectionUnblocked => info!(broker = %at, "the broker reads from this connection again"),
                Event::Error(error) => debug!(broker = %at, %error, "connection error"),
                event => debug!(broker = %at, ?event, "connection event"),
            }
        }
    })
}

/// The host's name as the kernel knows it, cut to what fits into a consumer tag.
pub(super) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}

/// `program@host#pid`: how a connection is shown on the management page.
pub(super) fn connection_name(app: &str) -> String {
    format!("{app}@{}#{}", host(), std::process::id())
}

/// `host:port/vhost`.
fn place(uri: &AMQPUri) -> String {
    let host = &uri.authority.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let vhost = if uri.vhost == "/" { "%2f" } else { &uri.vhost };
    super::task::printable(&format!("{host}:{}/{vhost}", uri.authority.port), 300)
}

/// The url and the password of the settings as the client library wants them, with the traps of its parser closed.
///
/// No error text repeats the url: it may hold a password.
fn uri(broker: &settings::Broker) -> Result<AMQPUri, BrokerError> {
    let bad = |why: &str| {
        Err(BrokerError::Settings(format!(
            "broker.url: {why}; expected amqp://user@host:5672/vhost, or amqps:// for TLS, special characters percent-encoded"
        )))
    };
    let url = broker.url.trim();
    if !url.starts_with("amqp://") && !url.starts_with("amqps://") {
        return bad("it does not begin with amqp:// or amqps://");
    }
    let Ok(mut uri) = url.parse::<AMQPUri>() else { return bad("it is not a valid url") };

    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A '/' in a password would end the authority early, and the rest of the password would count as virtual host.
    if path.contains('@') {
        return bad("there is an '@' behind the host");
    }
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    // The parser takes `localhost` for an absent host and for an IPv6 address.
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(address, _)| address) {
        uri.authority.host = address.to_owned();
    } else if host.is_empty() || host.starts_with(':') {
        return bad("it names no host");
    }
    if uri.vhost.is_empty() {
        return bad(
            "the '/' at its end names a virtual host without a name: leave it out, or write %2f, for the default one",
        );
    }
    // The parser takes guest/guest for an absent user, and `guest` for an absent password.
    let password = broker.password.as_ref().map(settings::Secret::reveal);
    let in_url = user.contains(':');
    let without = matches!(uri.query.auth_mechanism, Some(SASLMechanism::External | SASLMechanism::Anonymous));
    match password {
        Some(password) => password.clone_into(&mut uri.authority.userinfo.password),
        None if in_url || without || user.is_empty() => {}
        None => {
            return Err(BrokerError::Settings(
                "broker: no password for the user in broker.url; set broker.password_file or CTA_OPS_BROKER_PASSWORD"
                    .to_owned(),
            ));
        }
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    // The size of frames stays as the broker proposes it, although the client library keeps 64 of them in memory: the broker
    // closes a connection that it would have to send a larger header, and whoever publishes decides how large that is.
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    fn broker(url: &str, password: Option<&str>) -> settings::Broker {
        settings::Broker {
            url: url.into(),
            password: password.map(Secret::new),
            prefix: "atresys".into(),
            tls: Default::default(),
        }
    }

    fn parsed(url: &str, password: Option<&str>) -> AMQPUri {
        uri(&broker(url, password)).expect(url)
    }

    #[test]
    fn any_password_reaches_the_broker_unchanged() {
        for password in ["p@ss/w:rd#?%2f", "ü ß", "", "%", "guest"] {
            let uri = parsed("amqp://user@host/v", Some(password));
            assert_eq!(uri.authority.userinfo.password, password);
            assert_eq!((uri.authority.userinfo.username.as_str(), uri.vhost.as_str()), ("user", "v"));
        }
    }

    #[test]
    fn a_password_of_the_settings_wins_over_one_in_the_url() {
        assert_eq!(parsed("amqp://u:old@h/v", Some("new")).authority.userinfo.password, "new");
        assert_eq!(parsed("amqp://u:old@h/v", None).authority.userinfo.password, "old");
    }

    #[test]
    fn a_user_without_password_is_not_tried_with_somebody_elses() {
        let error = uri(&broker("amqp://user@host/v", None)).unwrap_err();
        assert!(error.to_string().contains("password_file"), "{error}");
        assert!(error.is_final());
        assert!(uri(&broker("amqps://user@host/v?auth_mechanism=external", None)).is_ok());
    }

    #[test]
    fn the_virtual_host_is_the_one_that_was_meant() {
        assert_eq!(parsed("amqp://u@h", Some("p")).vhost, "/");
        assert_eq!(parsed("amqp://u@h:5673/%2f", Some("p")).vhost, "/");
        assert_eq!(parsed("amqp://u@h/a%20b", Some("p")).vhost, "a b");
        let error = uri(&broker("amqp://u@h/", Some("p"))).unwrap_err().to_string();
        assert!(error.contains("virtual host") && error.contains("%2f"), "{error}");
        assert!(uri(&broker("amqp://u@h/?heartbeat=5", Some("p"))).is_err());
    }

    #[test]
    fn a_host_is_never_replaced_by_localhost() {
        assert_eq!(parsed("amqp://u@[fd00::17]:5673/v", Some("p")).authority.host, "fd00::17");
        assert_eq!(place(&parsed("amqp://u@[fd00::17]:5673/v", Some("p"))), "[fd00::17]:5673/v");
        assert_eq!(parsed("amqp://u@192.0.2.1/v", Some("p")).authority.host, "192.0.2.1");
        for url in ["amqp://", "amqp:///v", "amqp://u@/v", "amqp://u@:5672/v", "amqp://:5672/v"] {
            let error = uri(&broker(url, Some("p"))).expect_err(url);
            assert!(error.is_final(), "{error}");
        }
    }

    #[test]
    fn heartbeats_come_every_ten_seconds_unless_the_url_says_otherwise() {
        assert_eq!(parsed("amqp://u@h/v", Some("p")).query.heartbeat, Some(10));
        assert_eq!(parsed("amqp://u@h/v?heartbeat=3", Some("p")).query.heartbeat, Some(3));
    }

    #[test]
    fn no_broken_url_shows_its_password() {
        for url in [
            "amqp:user:hunter2@host",
            "user:hunter2@host",
            "amqp://user:hunter2@host:99999/v",
            "amqp://user:hunter2@ho st/v",
            "http://user:hunter2@host/v",
            "amqp://user:hunter2@host/v?heartbeat=hunter2",
            "amqp://user:hunter2@host/",
            "amqp://user:hunter2@/v",
            "amqp://user:12/hunter2@host/v",
            "amqp://user:12?hunter2@host/v",
            "amqp://user:12#hunter2@host/v",
        ] {
            let error = uri(&broker(url, None)).expect_err(url);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}: {error:?}");
            assert!(error.to_string().contains("broker.url"), "{error}");
        }
    }

    #[test]
    fn a_broker_is_named_without_user_and_password() {
        assert_eq!(place(&parsed("amqps://user:hunter2@host/v", None)), "host:5671/v");
        assert_eq!(place(&parsed("amqp://user:hunter2@host", None)), "host:5672/%2f");
    }
}

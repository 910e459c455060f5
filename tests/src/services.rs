//! A private PostgreSQL and RabbitMQ for tests: one database or virtual host per test, gone afterwards.
//!
//! The servers are started once for a whole run by `tests/run`, which says in the environment where they are:
//!
//! | variable | form |
//! |---|---|
//! | `REPACK_TEST_POSTGRES` | `host=127.0.0.1 port=N user=postgres` |
//! | `REPACK_TEST_AMQP` | `amqp://user:password@127.0.0.1:N`, no virtual host |
//! | `REPACK_TEST_AMQPS` | `amqps://user:password@localhost:N`, no virtual host |
//! | `REPACK_TEST_TLS` | directory with `ca.pem`, `client.pem`, `client.key`, `stranger-ca.pem` |
//! | `REPACK_TEST_RABBITMQ_API` | `http://user:password@127.0.0.1:N`, the management plugin |
//!
//! A test that needs a server which is not there fails, and says what to run: it never passes by looking away.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::settings::{self, Secret};
use serde_json::Value;

/// Where the servers are.
#[derive(Debug, Clone)]
pub struct Services {
    postgres: String,
    amqp: Url,
    api: Url,
}

/// `scheme://user:password@host:port`, as `tests/run` writes it.
#[derive(Debug, Clone)]
struct Url {
    scheme: String,
    user: String,
    password: String,
    host: String,
    port: u16,
}

impl Services {
    /// The servers of this run.
    ///
    /// # Panics
    /// When the environment does not name them, which is what running the tests by hand looks like.
    pub fn get() -> Services {
        Services {
            postgres: variable("REPACK_TEST_POSTGRES"),
            amqp: Url::of("REPACK_TEST_AMQP"),
            api: Url::of("REPACK_TEST_RABBITMQ_API"),
        }
    }

    /// An empty database of its own.
    ///
    /// # Panics
    /// When PostgreSQL does not answer.
    pub fn fresh_database(&self) -> TestDatabase {
        TestDatabase::fresh_at(&self.postgres)
    }

    /// An empty virtual host of its own.
    ///
    /// # Panics
    /// When RabbitMQ's management plugin does not answer.
    pub fn fresh_vhost(&self) -> TestVhost {
        let vhost = TestVhost { amqp: self.amqp.clone(), api: self.api.clone(), name: unique_name() };
        vhost.must("PUT", &format!("/api/vhosts/{}", vhost.name), None);
        vhost.allow(&self.amqp.user, ".*", ".*", ".*");
        vhost
    }
}

/// Where the servers speak TLS, and the files for it.
#[derive(Debug, Clone)]
pub struct Tls {
    amqps: Url,
    directory: std::path::PathBuf,
}

impl Tls {
    /// Of this run.
    ///
    /// # Panics
    /// When the environment does not name it.
    pub fn get() -> Tls {
        Tls { amqps: Url::of("REPACK_TEST_AMQPS"), directory: variable("REPACK_TEST_TLS").into() }
    }

    /// The port at which RabbitMQ speaks TLS.
    pub fn amqps_port(&self) -> u16 {
        self.amqps.port
    }

    /// A file of certificates or keys.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.join(name)
    }
}

const HOW: &str = "this test needs the private PostgreSQL and RabbitMQ that `tests/run` starts: run `tests/run`, \
                   or `tests/run NAME` for one test";

fn variable(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("{name} is not set; {HOW}"),
    }
}

/// Unique on this server: other tests of this process have another number, other processes another id, or, as ids come round again
/// (thousands of commands run in a test), another time of birth.
fn unique_name() -> String {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    static BORN: LazyLock<u64> = LazyLock::new(cta_sim::store::now_us);
    format!("test_{}_{}_{}", std::process::id(), *BORN, SERIAL.fetch_add(1, Ordering::Relaxed))
}

impl Url {
    fn of(name: &str) -> Url {
        let text = variable(name);
        Url::parse(&text)
            .unwrap_or_else(|| panic!("{name} is '{text}', expected scheme://user:password@host:port; {HOW}"))
    }

    fn parse(text: &str) -> Option<Url> {
        let (scheme, rest) = text.trim_end_matches('/').split_once("://")?;
        let (login, place) = rest.split_once('@')?;
        let (user, password) = login.split_once(':')?;
        let (host, port) = place.split_once(':')?;
        Some(Url {
            scheme: scheme.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }
}

/// A database that is dropped, with everybody's connections to it, when this is dropped.
#[derive(Debug)]
pub struct TestDatabase {
    postgres: String,
    name: String,
}

impl TestDatabase {
    /// An empty database on the server that is reached so (`host=... port=... user=...`).
    ///
    /// # Panics
    /// When PostgreSQL does not answer.
    pub fn fresh_at(postgres: &str) -> TestDatabase {
        let name = unique_name();
        run_sql(postgres, &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"))
            .unwrap_or_else(|error| panic!("cannot create a database for the test: {error}\n{HOW}"));
        TestDatabase { postgres: postgres.to_owned(), name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How to connect: `host=... port=... user=... dbname=...`.
    pub fn connection_string(&self) -> String {
        format!("{} dbname={}", self.postgres, self.name)
    }

    /// How to connect, as the programs are told. The table is `repack_status`; TLS is off.
    ///
    /// # Panics
    /// When `REPACK_TEST_POSTGRES` is not of the documented form.
    pub fn settings(&self) -> settings::Database {
        let config: tokio_postgres::Config = self.postgres.parse().expect("REPACK_TEST_POSTGRES is key=value pairs");
        let host = match config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            Some(tokio_postgres::config::Host::Unix(directory)) => directory.display().to_string(),
            None => panic!("REPACK_TEST_POSTGRES names no host; {HOW}"),
        };
        settings::Database {
            username: config.get_user().unwrap_or("postgres").to_owned(),
            password: config.get_password().map(|password| Secret::new(String::from_utf8_lossy(password))),
            name: self.name.clone(),
            host,
            port: config.get_ports().first().copied().unwrap_or(5432),
            table: settings::TableName { schema: None, name: "repack_status".to_owned() },
            sslmode: settings::SslMode::Disable,
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            migrate_username: None,
        }
    }

    /// A client of its own, as an operator with `psql` would have. Its connection ends with it.
    ///
    /// # Panics
    /// When PostgreSQL does not answer.
    pub async fn client(&self) -> tokio_postgres::Client {
        let connected = tokio_postgres::connect(&self.connection_string(), tokio_postgres::NoTls).await;
        let (client, connection) = connected.unwrap_or_else(|error| panic!("cannot connect: {error}\n{HOW}"));
        tokio::spawn(connection);
        client
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // FORCE ends the connections that the test left open.
        if let Err(error) = run_sql(&self.postgres, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)) {
            eprintln!("database {} is left behind: {error}", self.name);
        }
    }
}

/// Runs one statement from any context, also from within an asynchronous one: on a thread with a runtime of its own.
fn run_sql(postgres: &str, statement: &str) -> anyhow::Result<()> {
    let (postgres, statement) = (format!("{postgres} dbname=postgres connect_timeout=10"), statement.to_owned());
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let (client, connection) = tokio_postgres::connect(&postgres, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            client.batch_execute(&statement).await?;
            Ok(())
        })
    });
    thread.join().unwrap_or_else(|_| anyhow::bail!("the thread that runs SQL panicked"))
}

/// A virtual host that is deleted, with its queues and connections, when this is dropped.
#[derive(Debug)]
pub struct TestVhost {
    amqp: Url,
    api: Url,
    name: String,
}

impl TestVhost {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `broker` section for it, with the prefix `test`.
    pub fn broker(&self) -> settings::Broker {
        let Url { scheme, user, password, .. } = &self.amqp;
        settings::Broker {
            url: format!("{scheme}://{user}@{}/{}", self.address(), self.name),
            password: Some(Secret::new(password.as_str())),
            prefix: "test".to_owned(),
            tls: Default::default(),
        }
    }

    /// `host:port` of the broker.
    pub fn address(&self) -> String {
        format!("{}:{}", self.amqp.host, self.amqp.port)
    }

    /// Gives a user rights in it: patterns of what it may configure, write and read.
    ///
    /// # Panics
    /// When the broker does not do it.
    pub fn allow(&self, user: &str, configure: &str, write: &str, read: &str) {
        let rights = serde_json::json!({"configure": configure, "write": write, "read": read});
        self.must("PUT", &format!("/api/permissions/{}/{user}", self.name), Some(&rights));
    }

    /// Creates a user without any rights, named after the virtual host, and returns its name. Deleted with the virtual host.
    ///
    /// # Panics
    /// When the broker does not do it.
    pub fn user(&self, password: &str) -> String {
        let body = serde_json::json!({"password": password, "tags": ""});
        self.must("PUT", &format!("/api/users/{}", self.name), Some(&body));
        self.name.clone()
    }

    /// Sets a policy for the queues that match `pattern`.
    ///
    /// # Panics
    /// When the broker does not do it.
    pub fn policy(&self, name: &str, pattern: &str, definition: &Value) {
        let body = serde_json::json!({"pattern": pattern, "definition": definition, "apply-to": "queues"});
        self.must("PUT", &format!("/api/policies/{}/{name}", self.name), Some(&body));
    }

    /// Publishes a message with any properties.
    ///
    /// # Panics
    /// When the broker does not do it.
    pub fn publish(&self, exchange: &str, key: &str, body: &str, properties: &Value) {
        let message = serde_json::json!({"properties": properties, "routing_key": key, "payload": body, "payload_encoding": "string"});
        self.must("POST", &format!("/api/exchanges/{}/{exchange}/publish", self.name), Some(&message));
    }

    /// The first message of a queue, which stays there.
    ///
    /// # Panics
    /// When there is none.
    pub fn peek(&self, queue: &str) -> Value {
        let how = serde_json::json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"});
        let got = self.must("POST", &format!("/api/queues/{}/{queue}/get", self.name), Some(&how));
        got[0].clone()
    }

    /// Deletes a queue.
    ///
    /// # Panics
    /// When the broker does not do it.
    pub fn delete_queue(&self, queue: &str) {
        self.must("DELETE", &format!("/api/queues/{}/{queue}", self.name), None);
    }

    /// Deletes the binding of a queue to an exchange.
    ///
    /// # Panics
    /// When the broker does not do it.
    pub fn unbind(&self, queue: &str, exchange: &str, key: &str) {
        self.must("DELETE", &format!("/api/bindings/{}/e/{exchange}/q/{queue}/{key}", self.name), None);
    }

    /// Ends the client connections whose shown name begins with `prefix`, and returns how many. Waits up to a minute for the
    /// first to be listed: the management plugin is late, and on a busy machine very late.
    ///
    /// # Panics
    /// When there is none.
    pub fn cut_connections(&self, prefix: &str) -> usize {
        for _ in 0..1200 {
            let listed = self.must("GET", &format!("/api/vhosts/{}/connections", self.name), None);
            let names: Vec<&str> = listed
                .as_array()
                .into_iter()
                .flatten()
                .filter(|connection| {
                    connection["user_provided_name"].as_str().is_some_and(|name| name.starts_with(prefix))
                })
                .filter_map(|connection| connection["name"].as_str())
                .collect();
            for name in &names {
                self.must(
                    "DELETE",
                    &format!("/api/connections/{}", name.replace(' ', "%20").replace('>', "%3E")),
                    None,
                );
            }
            if !names.is_empty() {
                return names.len();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no connection named {prefix}... in virtual host {}", self.name);
    }

    /// A request to the management plugin: status and JSON body (null if there is none).
    ///
    /// # Errors
    /// When there is no answer.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
        http(&self.api, method, path, body)
    }

    /// Asks the management plugin for something that must succeed, and returns its answer.
    ///
    /// # Panics
    /// When it does not.
    pub fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        match self.api(method, path, body) {
            Ok((200..=299, answer)) => answer,
            Ok((status, answer)) => panic!("RabbitMQ answers {method} {path} with {status}: {answer}"),
            Err(error) => panic!("RabbitMQ's management plugin does not answer: {error}\n{HOW}"),
        }
    }
}

impl Drop for TestVhost {
    fn drop(&mut self) {
        for path in [format!("/api/vhosts/{}", self.name), format!("/api/users/{}", self.name)] {
            match self.api("DELETE", &path, None) {
                Ok((200..=299 | 404, _)) => {}
                answer => eprintln!("{path} is left behind: {answer:?}"),
            }
        }
    }
}

/// A request to the management plugin at `http://user:password@host:port`: status and JSON body (null if there is none).
///
/// # Errors
/// When there is no answer.
pub fn api_request(url: &str, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
    let url = Url::parse(url).ok_or_else(|| anyhow::anyhow!("{url} is no scheme://user:password@host:port"))?;
    http(&url, method, path, body)
}

/// The few lines of HTTP that the management plugin needs: version 1.0, so that the answer ends with the connection.
fn http(api: &Url, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
    let mut stream = TcpStream::connect((api.host.as_str(), api.port))?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.set_write_timeout(Some(Duration::from_secs(120)))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let login = base64(format!("{}:{}", api.user, api.password).as_bytes());
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Basic {login}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        api.host,
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("cut answer: {answer}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| anyhow::anyhow!("no status: {head}"))?;
    Ok((status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let sextet = (group >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_the_standard() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let url = Url::parse("amqp://guest:geheim@127.0.0.1:21001").unwrap();
        assert_eq!(
            (url.user.as_str(), url.password.as_str(), url.host.as_str(), url.port),
            ("guest", "geheim", "127.0.0.1", 21001)
        );
        assert!(Url::parse("amqp://127.0.0.1:21001").is_none());
    }

    #[tokio::test]
    async fn a_fresh_database_is_empty_and_gone_afterwards() {
        let services = Services::get();
        let database = services.fresh_database();
        let client = database.client().await;
        client.batch_execute("CREATE TABLE t (x int)").await.unwrap();
        let count = "SELECT count(*) FROM pg_database WHERE datname = $1";
        let other = services.fresh_database();
        let observer = other.client().await;
        let name = database.name().to_owned();
        assert_eq!(observer.query_one(count, &[&name]).await.unwrap().get::<_, i64>(0), 1);
        // Dropped from an asynchronous context, with a connection still open.
        drop(database);
        assert_eq!(observer.query_one(count, &[&name]).await.unwrap().get::<_, i64>(0), 0);
        assert!(client.batch_execute("SELECT 1").await.is_err());
    }

    #[test]
    fn a_fresh_vhost_is_gone_afterwards() {
        let vhost = Services::get().fresh_vhost();
        let (path, api) = (format!("/api/vhosts/{}", vhost.name()), vhost.api.clone());
        assert_eq!(http(&api, "GET", &path, None).unwrap().0, 200);
        drop(vhost);
        assert_eq!(http(&api, "GET", &path, None).unwrap().0, 404);
    }
}

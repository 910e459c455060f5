//! Servers of a test's own, to be killed, hung, emptied and restarted. They end with the test, also when it is killed.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::settings::{self, Secret};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chance::Chance;
use crate::crew::signal;
use crate::services::{TestDatabase, api_request};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory that a server running as another user can reach.
fn open_directory() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory for a server");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("its permissions");
    dir
}

/// Free ports below the range from which outgoing connections take theirs.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let mut chance = Chance::seeded(u64::from(std::process::id()) ^ cta_sim::store::now_us());
    let mut ports = [0; N];
    for port in &mut ports {
        *port = loop {
            let tried = 15_000 + u16::try_from(chance.below(17_000)).expect("it is small");
            if TcpListener::bind(("127.0.0.1", tried)).is_ok() {
                break tried;
            }
        };
    }
    ports
}

/// A server's process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Server {
        let out = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("the server's log");
        let err = out.try_clone().expect("the server's log");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().expect("the server is started");
        Server { child, log: log.to_owned() }
    }

    pub(crate) fn until(&mut self, what: &str, mut answers: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !answers() {
            let ended = self.child.try_wait().expect("a child");
            if ended.is_some() || begun.elapsed() > PATIENCE {
                panic!(
                    "{what} does not answer ({ended:?}): {}",
                    std::fs::read_to_string(&self.log).unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn end(&mut self, by: Signal) {
        signal(self.child.id(), by);
        let begun = Instant::now();
        while self.child.try_wait().expect("a child").is_none() {
            if begun.elapsed() > Duration::from_secs(30) {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that is stopped hears nothing else.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Dies with the thread that starts it: start servers from the test itself.
pub(crate) fn mortal(as_user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = as_user {
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--init-groups"]);
    }
    command.args(["--pdeathsig", "KILL"]);
    command
}

/// A PostgreSQL of the test's own.
#[derive(Debug)]
pub struct Postgres {
    dir: TempDir,
    programs: PathBuf,
    port: u16,
    server: Option<Server>,
}

impl Postgres {
    /// Starts one with nothing in it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Postgres {
        let dir = open_directory();
        let programs = postgres_programs();
        let [port] = free_ports();
        let home = dir.path().join("home");
        std::fs::create_dir(&home).expect("a directory");
        if let Some(user) = server_user() {
            let owned = Command::new("chown").arg(format!("{user}:")).arg(&home).status().expect("chown");
            assert!(owned.success(), "{} cannot be given to {user}", home.display());
        }
        let mut postgres = Postgres { dir, programs, port, server: None };
        let made = postgres
            .command("initdb")
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"])
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.resume();
        postgres
    }

    fn command(&self, program: &str) -> Command {
        let mut command = mortal(server_user());
        let home = self.dir.path().join("home");
        command.arg(self.programs.join(program)).args(["-D"]).arg(home.join("data")).current_dir(&home);
        command.env("HOME", &home).env_remove("PGDATA");
        command
    }

    /// Starts it again after [`Postgres::crash`], and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn resume(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let home = self.dir.path().join("home");
        let mut command = self.command("postgres");
        for option in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            format!("unix_socket_directories={}", home.display()),
            "max_connections=300".to_owned(),
        ] {
            command.args(["-c", &option]);
        }
        let mut server = Server::start(&mut command, &self.dir.path().join("postgres.log"));
        let ready = self.programs.join("pg_isready");
        let port = self.port.to_string();
        server.until("PostgreSQL", || {
            let asked =
                Command::new(&ready).args(["-q", "-t", "2", "-h", "127.0.0.1", "-U", "postgres", "-p", &port]).status();
            asked.is_ok_and(|answer| answer.success())
        });
        self.server = Some(server);
    }

    /// Ends it as a power cut would (`pg_ctl stop -m immediate`): every connection breaks, what was not committed is gone.
    pub fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.end(Signal::QUIT);
        }
    }

    /// A fresh database in it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn database(&self) -> TestDatabase {
        TestDatabase::fresh_at(&format!("host=127.0.0.1 port={} user=postgres", self.port))
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// The server refuses to run as root.
fn server_user() -> Option<&'static str> {
    rustix::process::getuid().is_root().then_some("postgres")
}

fn postgres_programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.retain(|bin| bin.join("initdb").is_file());
    found.sort();
    found.pop().expect("PostgreSQL's server programs are in /usr/lib/postgresql")
}

/// A RabbitMQ of the test's own, with the management plugin; deliveries that are not answered within five seconds close
/// their channel. Tests use its virtual host `/`.
#[derive(Debug)]
pub struct Rabbit {
    dir: TempDir,
    amqp: u16,
    api: u16,
    dist: u16,
    epmd_port: u16,
    // Ends after the broker.
    server: Option<Server>,
    _epmd: Server,
}

impl Rabbit {
    /// Starts one with nothing in it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Rabbit {
        let dir = open_directory();
        let [amqp, api, dist, epmd_port] = free_ports();
        let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file of the broker");
        file(".erlang.cookie", "acookieofthetestsown");
        let secret = std::fs::Permissions::from_mode(0o400);
        std::fs::set_permissions(dir.path().join(".erlang.cookie"), secret).expect("its permissions");
        file("enabled_plugins", "[rabbitmq_management].\n");
        file("env.conf", "");
        file("advanced.config", "[{rabbit, [{channel_tick_interval, 1000}]}].\n");
        file(
            "rabbitmq.conf",
            &format!(
                "loopback_users = none\nvm_memory_high_watermark.absolute = 1GiB\ndisk_free_limit.absolute = 50MB\n\
                 consumer_timeout = 5000\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {api}\n"
            ),
        );
        let mut command = mortal(None);
        command.args(["epmd", "-port", &epmd_port.to_string(), "-address", "127.0.0.1"]).env("HOME", dir.path());
        let mut epmd = Server::start(&mut command, &dir.path().join("epmd.log"));
        epmd.until("epmd", || TcpStream::connect(("127.0.0.1", epmd_port)).is_ok());
        let mut rabbit = Rabbit { dir, amqp, api, dist, epmd_port, server: None, _epmd: epmd };
        rabbit.resume();
        rabbit
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let dir = self.dir.path();
        command
            .env("HOME", dir)
            .env("RABBITMQ_NODENAME", format!("test{}@localhost", self.amqp))
            .env("RABBITMQ_NODE_PORT", self.amqp.to_string())
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_DIST_PORT", self.dist.to_string())
            .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", dir.join("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("advanced.config"))
            .env("RABBITMQ_CONF_ENV_FILE", dir.join("env.conf"))
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .env("ERL_AFLAGS", "-start_epmd false")
            // So that the script becomes the broker itself.
            .env("RUNNING_UNDER_SYSTEMD", "true")
    }

    /// Starts it again after [`Rabbit::kill`], and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn resume(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let mut command = mortal(None);
        command.arg("/usr/lib/rabbitmq/bin/rabbitmq-server");
        self.environment(&mut command);
        let mut server = Server::start(&mut command, &self.dir.path().join("rabbitmq.log"));
        let (amqp, api) = (self.amqp, self.url());
        server.until("RabbitMQ", || shakes_hands(amqp) && api_request(&api, "GET", "/api/overview", None).is_ok());
        self.server = Some(server);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.end(Signal::KILL);
        }
    }

    /// Removes all that it knows; it is to be killed.
    ///
    /// # Panics
    /// When it runs, or its data cannot be removed.
    pub fn wipe(&self) {
        assert!(self.server.is_none(), "it runs");
        std::fs::remove_dir_all(self.dir.path().join("mnesia")).expect("its data");
    }

    /// Lets it hang (SIGSTOP), or go on.
    pub fn hang(&self, hangs: bool) {
        if let Some(server) = &self.server {
            signal(server.child.id(), if hangs { Signal::STOP } else { Signal::CONT });
        }
    }

    /// Runs `rabbitmqctl`.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctl(&self, arguments: &[&str]) {
        let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl");
        let ran = self.environment(&mut command).args(arguments).output().expect("rabbitmqctl");
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// `http://user:password@host:port` of the management plugin.
    fn url(&self) -> String {
        format!("http://guest:guest@127.0.0.1:{}", self.api)
    }

    /// A request to the management plugin that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        match api_request(&self.url(), method, path, body) {
            Ok((200..=299, answer)) => answer,
            other => panic!("{method} {path}: {other:?}"),
        }
    }

    /// What the user may do in the virtual host.
    ///
    /// # Panics
    /// When the broker does not do it.
    pub fn allow(&self, pattern: &str) {
        let rights = json!({"configure": pattern, "write": pattern, "read": pattern});
        self.api("PUT", "/api/permissions/%2F/guest", Some(&rights));
    }

    /// Ends every client's connection.
    ///
    /// # Panics
    /// When the broker does not do it.
    pub fn cut_all(&self) {
        self.ctl(&["close_all_connections", "a test"]);
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.amqp)
    }

    /// The `broker` section, over this address (the broker's, or that of a proxy to it). Silence is noticed after four
    /// seconds.
    pub fn broker(&self, address: &str) -> settings::Broker {
        settings::Broker {
            url: format!("amqp://guest@{address}/%2F?heartbeat=2"),
            password: Some(Secret::new("guest")),
            prefix: "test".to_owned(),
            tls: Default::default(),
        }
    }
}

/// Only a broker that answers a handshake is ready; its answer begins with a method frame.
fn shakes_hands(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut first = [0];
    stream.write_all(b"AMQP\0\0\x09\x01").is_ok() && stream.read_exact(&mut first).is_ok() && first == [1]
}

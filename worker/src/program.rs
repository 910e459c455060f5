//! How a program begins and ends: options that all share, the configuration, logging, signals, what it prints.

use std::fmt::Display;
use std::future::Future;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use common::metrics::Metrics;
use common::metrics::serve::{self, Endpoint};
use common::settings::{self, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::notify;
use crate::service::Shutdown;

/// How a run ended: a contract with whoever started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do; also when a tape was stopped, for that is the tape's news.
    Done,
    /// It failed; the reason is on stderr.
    Failed,
    /// Wrong arguments or a configuration that cannot be used: nothing was done.
    Misuse,
}

impl Exit {
    /// The number: 0, 1, 2.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Misuse => 2,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Options that every program has.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Common {
    /// Configuration file [default: $CTA_OPS_CONFIG, else /etc/cta-ops/cta-ops-config.yaml]
    #[arg(short = 'C', long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Say more, on stderr too
    #[arg(short = 'V', long, global = true)]
    pub verbose: bool,
    /// Print the version
    #[arg(long, action = clap::ArgAction::Version, global = true)]
    pub version: Option<bool>,
}

/// What a program says on stderr beside remarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// Its log too, if a person is there to read it or `-V` asks for it; a timer's run is quiet unless something is wrong.
    Quiet,
    /// Its log too: it runs until it is told to end, and stderr goes to a journal.
    Service,
}

/// A program that has read its configuration.
#[derive(Debug, Clone)]
pub struct Started {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// This machine's name.
    pub host: String,
    /// This program's name.
    pub program: &'static str,
    /// The log goes to stderr too.
    pub log_on_stderr: bool,
}

/// Keep it until the program ends.
pub type LogGuard = Option<common::logging::Guard>;

impl Started {
    /// Who acts, for leases and the history: `worker@host#pid`, unlike any other process.
    pub fn actor(&self, role: &str) -> String {
        format!("{role}@{}#{}", self.host, std::process::id())
    }

    /// A remark on stderr on what was logged, unless the log is there to be read already.
    pub fn tell(&self, text: impl Display) {
        if !self.log_on_stderr {
            remark(text);
        }
    }
}

/// Reads the configuration and begins logging. What is wrong with it is printed, a line each.
///
/// # Errors
/// [`Exit::Misuse`] if the configuration cannot be used.
pub fn start(program: &'static str, common: &Common, talk: Talk) -> Result<(Started, LogGuard), Exit> {
    let path = settings::path(common.config.clone());
    let loaded = settings::load(&path).map_err(|problems| {
        remark(format_args!("error: {problems}"));
        Exit::Misuse
    })?;
    let log_on_stderr = talk == Talk::Service || common.verbose || std::io::stderr().is_terminal();
    let log = common::logging::init(program, &loaded.settings, common.verbose, log_on_stderr).ok();
    // What cannot be written to a file is on stderr whatever was asked for: it must not be said twice.
    let log_on_stderr = log.as_ref().map_or(log_on_stderr, common::logging::Guard::warns_on_stderr);
    let settings = Arc::new(loaded.settings);
    let started = Started { settings, host: host(), program, log_on_stderr };
    for warning in &loaded.warnings {
        let text = format!("configuration {}: {warning}", path.display().to_string().escape_debug());
        warn!("{text}");
        started.tell(format_args!("warning: {text}"));
    }
    Ok((started, log))
}

/// Runs to the end and turns the result into an exit code. An error is printed here, once, with its causes.
pub fn finish(work: impl Future<Output = anyhow::Result<Exit>>) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            remark(format_args!("error: no threads to work with: {error}"));
            return Exit::Failed;
        }
    };
    let ended = runtime.block_on(work).unwrap_or_else(|error| {
        remark(format_args!("error: {error:#}"));
        Exit::Failed
    });
    // A thread that still reads a list, or waits for a name server, must not hold the end up.
    runtime.shutdown_background();
    ended
}

/// How long a loop may stand still in its own work before `/healthz` says so.
pub const STILL: Duration = Duration::from_secs(300);

/// Serves metrics at `listen`, if anywhere. Where that is the address that everybody has by default (`usual`), another program
/// of ours may well be there already: then there are none here, and a warning. An address that was chosen must be had.
///
/// # Errors
/// [`Exit::Misuse`], and it is said why.
pub async fn endpoint(
    listen: Option<SocketAddr>,
    usual: Option<SocketAddr>,
    metrics: &Arc<Metrics>,
    program: &'static str,
    still: Duration,
) -> Result<Option<Endpoint>, Exit> {
    let Some(address) = listen else { return Ok(None) };
    match serve::start(address, Arc::clone(metrics), program, still).await {
        Ok(endpoint) => Ok(Some(endpoint)),
        Err(error) => {
            let text = format!(
                "no metrics can be served at {address}: {error}; give {program}.metrics_listen an address of its own, or no value"
            );
            if listen == usual {
                warn!("{text}");
                return Ok(None);
            }
            tracing::error!("{text}");
            remark(format_args!("error: {text}"));
            Err(Exit::Misuse)
        }
    }
}

/// Turns signals into what the program is told: the first SIGTERM or SIGINT asks it to finish what is in hand, the second
/// to drop it.
///
/// # Errors
/// When the system gives no signal handlers.
pub fn signals() -> anyhow::Result<watch::Receiver<Shutdown>> {
    let mut term = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let (tell, told) = watch::channel(Shutdown::No);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            let how = raised(*tell.borrow());
            if how == Shutdown::Finish {
                info!("told to end: finishing what is in hand; once more drops it");
                notify::manager().stopping();
            }
            tell.send_replace(how);
        }
    });
    Ok(told)
}

/// What one more signal means.
fn raised(before: Shutdown) -> Shutdown {
    match before {
        Shutdown::No => Shutdown::Finish,
        Shutdown::Finish | Shutdown::Now => Shutdown::Now,
    }
}

/// Prints data on stdout. A reader that has gone away (`| head`) is no failure.
///
/// # Errors
/// When stdout cannot be written otherwise.
pub fn print(data: impl Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = write!(out, "{data}").and_then(|()| out.flush());
    unless_gone(written.map_err(anyhow::Error::new)).context("writing to stdout")
}

/// What came of writing to stdout: a reader that has gone away is no failure.
///
/// # Errors
/// Any other.
pub fn unless_gone(written: anyhow::Result<()>) -> anyhow::Result<()> {
    let gone = |error: &anyhow::Error| {
        error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            .any(|io| io.kind() == ErrorKind::BrokenPipe)
    };
    match written {
        Err(error) if gone(&error) => Ok(()),
        written => written,
    }
}

/// Prints a remark on stderr, if anybody listens.
pub fn remark(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// This machine's name, nothing a terminal or a file system obeys.
pub fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = harmless(&name, 64);
    if name.is_empty() { "unknown-host".to_owned() } else { name }
}

/// The login of the person behind this process: who called sudo, else the user it runs as.
pub fn login() -> String {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    login_of(uid, &passwd, |name| std::env::var(name).ok())
}

fn login_of(uid: u32, passwd: &str, env: impl Fn(&str) -> Option<String>) -> String {
    let known = || {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
    };
    // Only root can have been somebody else before; anybody else could just say so.
    let sudo = || if uid == 0 { env("SUDO_USER") } else { None };
    // Users of a directory service are not in the file.
    let environment = || env("LOGNAME").or_else(|| env("USER"));
    let name = sudo().or_else(known).or_else(environment).map(|name| harmless(&name, 40)).unwrap_or_default();
    if name.is_empty() { format!("uid-{uid}") } else { name }
}

fn harmless(name: &str, longest: usize) -> String {
    name.chars().filter(|c| c.is_alphanumeric() || "-_.@$+".contains(*c)).take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_contract() {
        assert_eq!([Exit::Done, Exit::Failed, Exit::Misuse].map(Exit::code), [0, 1, 2]);
    }

    #[test]
    fn the_first_signal_finishes_and_every_later_one_drops() {
        assert_eq!(raised(Shutdown::No), Shutdown::Finish);
        assert_eq!(raised(Shutdown::Finish), Shutdown::Now);
        assert_eq!(raised(Shutdown::Now), Shutdown::Now);
    }

    #[test]
    fn the_login_is_of_the_person_not_of_the_environment() {
        let passwd = "root:x:0:0:root:/:/bin/sh\nmaria:x:1007:100::/srv/maria:/bin/sh\nbroken\n";
        let none = |_: &str| None;
        let lies = |name: &str| (name != "HOME").then(|| "somebody".to_owned());
        assert_eq!(login_of(1007, passwd, none), "maria");
        assert_eq!(login_of(1007, passwd, lies), "maria");
        assert_eq!(login_of(0, passwd, none), "root");
        assert_eq!(login_of(0, passwd, lies), "somebody");
        assert_eq!(login_of(4242, passwd, none), "uid-4242");
        assert_eq!(login_of(4242, passwd, lies), "somebody");
    }

    #[test]
    fn a_name_from_the_environment_holds_nothing_a_terminal_obeys() {
        let odd = |_: &str| Some("a\x1b[31m b\n".to_owned());
        assert_eq!(login_of(4242, "", odd), "a31mb");
        let long = |_: &str| Some("x".repeat(100));
        assert_eq!(login_of(4242, "", long).len(), 40);
        let nothing = |_: &str| Some("\n".to_owned());
        assert_eq!(login_of(4242, "", nothing), "uid-4242");
    }

    #[test]
    fn two_processes_never_have_the_same_actor_on_one_host() {
        let started = Started { settings: Arc::default(), host: "h".to_owned(), program: "p", log_on_stderr: true };
        assert_eq!(started.actor("worker"), format!("worker@h#{}", std::process::id()));
    }
}

//! Logs: lines for people on stderr, lines of JSON in a file that several processes may share.
//!
//! Logging gives way: a full disk, a reader that went away or one that does not read cost lines, never the work.

use std::fs::DirBuilder;
use std::io::{IsTerminal, stderr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterFn, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use crate::settings::Settings;

mod background;
mod file;
mod lines;

use background::Background;
use file::RotatingFile;
use lines::{Human, Json, Lines};

/// How long the last lines may take to get out at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Keep it until the program ends: dropping it waits, at most a second, until the last lines are on stderr.
#[derive(Debug)]
#[must_use = "the last lines are lost without it"]
pub struct Guard {
    stderr: Arc<Background>,
    warns_on_stderr: bool,
}

impl Guard {
    /// Whether warnings and errors of the log are on stderr too: wanted, or because no file can be written.
    pub fn warns_on_stderr(&self) -> bool {
        self.warns_on_stderr
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stderr.flush(LAST_LINES);
    }
}

/// Starts logging for this process: JSON to `<log_dir>/<program>.log`, and with `to_stderr_human` lines for people to
/// stderr. If the file cannot be written, that is said once on stderr and nothing else changes, except that warnings
/// and errors then go to stderr in any case.
///
/// The level is info, or debug with `verbose` or `debug: true`; code that is not ours logs from warn on. `RUST_LOG`
/// replaces all of this, but for the broker's client library: below info it tells every frame byte by byte, the one with the
/// password too, and is never heard.
///
/// # Errors
/// When the process logs already.
pub fn init(
    program: &str,
    settings: &Settings,
    verbose: bool,
    to_stderr_human: bool,
) -> Result<Guard, SetGlobalDefaultError> {
    let background = Arc::new(Background::start(Box::new(stderr())));
    let say = |text: &str| background.write(format!("{program}: {}\n", lines::escaped(text)).into_bytes());
    let wanted = std::env::var("RUST_LOG").ok().filter(|directives| !directives.trim().is_empty());
    let filter = filter(wanted.as_deref(), verbose || settings.debug).unwrap_or_else(|error| {
        say(&format!("RUST_LOG is ignored: {error}"));
        default_filter(verbose || settings.debug)
    });
    let logging = &settings.logging;
    let path = log_path(program, settings);
    let file = RotatingFile::new(path.clone(), logging.rotation_max_size, logging.rotation_keep_files);
    // What cannot be made is told by the check.
    let _ = DirBuilder::new().recursive(true).mode(0o750).create(&logging.log_dir);
    let writable = file.check();
    if let Err(error) = &writable {
        say(&format!("warning: no log is written to {}: {error}", path.display()));
    }
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let journal = stream.is_some_and(|stream| is_journal(&stream));
    let human = Human { date_format: logging.date_format.clone(), colour, journal };
    let level = match (to_stderr_human, writable.is_ok()) {
        (true, _) => LevelFilter::TRACE,
        (false, false) => LevelFilter::WARN,
        (false, true) => LevelFilter::OFF,
    };
    let complaints = background.clone();
    let name = program.to_owned();
    let to_file = move |line: Vec<u8>| {
        if let Some(error) = file.write(line) {
            let text = format!("{name}: warning: lines of the log are lost: {}\n", lines::escaped(&error.to_string()));
            complaints.write(text.into_bytes());
        }
    };
    let people = background.clone();
    let subscriber =
        subscriber(filter, Json::new(program), to_file, human, level, move |line: Vec<u8>| people.write(line));
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(Guard { stderr: background, warns_on_stderr: level != LevelFilter::OFF })
}

/// Whether stderr is the journal's stream: systemd names it by device and inode, and a child may have another stderr.
fn is_journal(stream: &str) -> bool {
    rustix::fs::fstat(stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The log file of a program.
pub fn log_path(program: &str, settings: &Settings) -> PathBuf {
    settings.logging.log_dir.join(format!("{program}.log"))
}

fn subscriber(
    filter: EnvFilter,
    json: Json,
    to_file: impl Fn(Vec<u8>) + Send + Sync + 'static,
    human: Human,
    level: LevelFilter,
    to_people: impl Fn(Vec<u8>) + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    Registry::default()
        .with(filter)
        .with(FilterFn::new(keeps_secrets))
        .with(Lines::new(move |event| to_file(json.line(event))))
        .with(Lines::new(move |event| to_people(human.line(event))).with_filter(level))
}

/// The broker's client library and what it is made of.
const TELLS_FRAMES: [&str; 2] = ["lapin", "amq_protocol"];

/// Whether an event can hold no password: a frame of the broker's protocol can, and is told below info.
fn keeps_secrets(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || !TELLS_FRAMES.iter().any(|library| metadata.target().starts_with(library))
}

/// `RUST_LOG` if there is one.
fn filter(wanted: Option<&str>, debug: bool) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    match wanted {
        Some(directives) => EnvFilter::builder().parse(directives),
        None => Ok(default_filter(debug)),
    }
}

/// Targets are compared by their beginning, so `cta_ops_repack` is every program of ours.
fn default_filter(debug: bool) -> EnvFilter {
    let level = if debug { "debug" } else { "info" };
    let ours = ["common", "producer", "worker", "manager", "cta_ops_repack"].map(|target| format!(",{target}={level}"));
    // The broker's client library tells as errors what we expect and report ourselves, in words.
    EnvFilter::new(format!("warn,lapin=off{}", ours.concat()))
}

#[cfg(test)]
mod tests;

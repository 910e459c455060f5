//! The configuration file: text in, checked [`Settings`] out, every problem named in one run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tape::Vid;

mod defaults;
mod mail;
mod passwords;
mod problem;
mod read;
mod section;
mod table_name;
#[cfg(test)]
mod tests;
mod yaml;

pub use defaults::STAGE_NAMES;
pub use problem::{Problem, Problems};
pub use read::lease_at_least;

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/cta-ops/cta-ops-config.yaml";

/// A configuration file is a few kilobytes; more is another file.
const LONGEST: u64 = 1 << 20;

/// Settings, and what should be looked at although they can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Unknown keys, passwords that everybody can read, and the like, in the order of the lines.
    pub warnings: Vec<Problem>,
    /// Where they came from, if from a file.
    pub file: Option<PathBuf>,
}

impl Loaded {
    /// The settings, if there are no warnings either.
    ///
    /// # Errors
    /// The warnings, as errors.
    pub fn strict(self) -> Result<Settings, Problems> {
        if self.warnings.is_empty() {
            return Ok(self.settings);
        }
        Err(Problems { file: self.file, errors: self.warnings, warnings: Vec::new() })
    }
}

/// The configuration file: as given (`-C`), else as in the environment (`CTA_OPS_CONFIG`), else [`DEFAULT_PATH`].
pub fn path(option: Option<PathBuf>) -> PathBuf {
    let environment = || std::env::var_os("CTA_OPS_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    option.or_else(environment).unwrap_or_else(|| PathBuf::from(DEFAULT_PATH))
}

/// Reads and checks a configuration file, with passwords from the environment and from password files.
///
/// # Errors
/// Everything that is wrong with it, in one run.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let in_file = |mut problems: Problems| {
        problems.file = Some(path.to_owned());
        problems
    };
    let (text, open_to_others) = file_text(path).map_err(|expected| in_file(Problems::from(expected)))?;
    let around = read::Around { env: &|name| std::env::var(name).ok(), open_to_others };
    let mut loaded = parse_around(&text, &around).map_err(in_file)?;
    loaded.file = Some(path.to_owned());
    Ok(loaded)
}

/// Checks the text of a configuration file. Apart from password files it reads nothing; `env` is the environment.
///
/// # Errors
/// Everything that is wrong with it, in one run.
pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    parse_around(text, &read::Around { env, open_to_others: false })
}

fn parse_around(text: &str, around: &read::Around<'_>) -> Result<Loaded, Problems> {
    let (settings, errors, warnings) = read::read(text, around);
    if errors.is_empty() {
        return Ok(Loaded { settings, warnings, file: None });
    }
    Err(Problems { file: None, errors, warnings })
}

/// The text of the file, and whether everybody can read it.
fn file_text(path: &Path) -> Result<(String, bool), String> {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    // Asked before opening: opening a FIFO would wait for a writer.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is not a file, name one with -C or CTA_OPS_CONFIG".to_owned());
    }
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mode = file.metadata().map_err(cannot)?.mode();
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("is longer than {LONGEST} bytes, is it the right file?"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| format!("is not UTF-8 text, the first {} bytes are", error.utf8_error().valid_up_to()))?;
    Ok((text, passwords::open_to_others(mode)))
}

impl Settings {
    /// The pool that a tape of this priority goes to in the end: the priority's prefix and what `lib_to_pool_map` says
    /// for its library and media type; without a map the prefix, `_`, and the media type.
    ///
    /// # Errors
    /// What is missing, and where to add it.
    pub fn destination_pool(&self, priority: i16, logical_library: &str, media_type: &str) -> Result<String, String> {
        let missing = |what: &str| {
            format!(
                "no destination pool for logical library '{}' and media type '{}': {what} is missing in \
                 lib_to_pool_map of the configuration",
                problem::escaped(logical_library),
                problem::escaped(media_type)
            )
        };
        self.destination(priority, logical_library, media_type).map(|parts| parts.concat()).map_err(|why| match why {
            NoDestination::Priority => {
                let numbers: Vec<String> = self.priorities.by_number.keys().map(ToString::to_string).collect();
                format!("priority {priority} is not in the configuration, which has {}", numbers.join(", "))
            }
            NoDestination::Library => missing("the library"),
            NoDestination::MediaType => missing("the media type of this library"),
        })
    }

    /// The name of the destination pool in parts, for those who only ask whether there is one.
    ///
    /// # Errors
    /// When the configuration does not name one: what it lacks.
    pub fn destination<'a>(
        &'a self,
        priority: i16,
        logical_library: &str,
        media_type: &'a str,
    ) -> Result<[&'a str; 3], NoDestination> {
        let entry = self.priorities.by_number.get(&priority).ok_or(NoDestination::Priority)?;
        let prefix = entry.default_dst_pool_prefix.as_str();
        let Some(map) = &self.lib_to_pool_map else { return Ok([prefix, "_", media_type]) };
        let media = map.get(logical_library).ok_or(NoDestination::Library)?;
        let suffix = media.get(media_type).ok_or(NoDestination::MediaType)?;
        Ok([prefix, "", suffix])
    }

    /// Where the listing of a tape's files goes: `existing_files_on_tape` with the date (`2026-01-31`) and the VID.
    pub fn listing_path(&self, vid: &Vid, date: chrono::NaiveDate) -> PathBuf {
        let date = date.format("%Y-%m-%d").to_string();
        PathBuf::from(self.listing.existing_files_on_tape.replace("$DATE", &date).replace("$TAPE", vid.as_str()))
    }
}

/// What the configuration lacks, so that a tape has no destination pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDestination {
    /// The priority.
    Priority,
    /// The logical library in `lib_to_pool_map`.
    Library,
    /// The media type of the library there.
    MediaType,
}

/// Everything the programs read from the configuration, with units and ranges resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Debug-level logging by default.
    pub debug: bool,
    /// Where and how logs are written.
    pub logging: Logging,
    /// How to reach PostgreSQL.
    pub database: Database,
    /// Zone of the timestamps in the table (a PostgreSQL time zone name).
    pub time_zone: String,
    /// The most repacks under way at once (slots), at least 1.
    pub max_active_repacks: u32,
    /// How long a tape stays in quarantine; `quarantine_days`, fractions and 0 allowed.
    pub quarantine: Duration,
    /// The scan.
    pub scan: Scan,
    /// The tape-file listing written before a repack starts.
    pub listing: Listing,
    /// `cta-ops-repack-3-end.repack-end-json-path`.
    pub repack_end_json_path: PathBuf,
    /// `cta-ops-repack-monitor.ls_out`.
    pub monitor_ls_out: PathBuf,
    /// Priority numbers and what they stand for.
    pub priorities: Priorities,
    /// The pool in which tapes wait to be reclaimed.
    pub quarantine_pool: String,
    /// The CTA state of a tape in quarantine.
    pub quarantine_state: QuarantineState,
    /// What a repack does with the files.
    pub repack_mode: RepackMode,
    /// `repack add --bufferurl`; none: the front end's default.
    pub repack_buffer_url: Option<String>,
    /// `repack add --maxfilestoselect`; none: the front end's default.
    pub max_files_to_select: Option<u64>,
    /// A running repack without progress for this long counts as stalled.
    pub stall: Duration,
    /// How long REPACKING_PENDING may last before the tape is stopped.
    pub pending_limit: Duration,
    /// How long a tape is only looked at after a changing command ended unclear.
    pub settle: Duration,
    /// How to run `cta-admin`.
    pub cta_admin: CtaAdmin,
    /// Logical library, then media type, to the suffix of the destination pool; none: prefix, `_`, media type.
    pub lib_to_pool_map: Option<BTreeMap<String, BTreeMap<String, String>>>,
    /// Retries of a tape in trouble.
    pub retry: Retry,
    /// How long a claim lasts without being renewed.
    pub lease: Duration,
    /// After this long a published task is published again, if its queue is empty.
    pub redispatch_after: Duration,
    /// None: no broker, every command does its stage itself.
    pub broker: Option<Broker>,
    /// `cta-ops-repack-producer`.
    pub producer: Producer,
    /// `cta-ops-repack-worker`.
    pub worker: Worker,
    /// `notify`.
    pub notify: Notify,
}

/// `logging`.
#[derive(Debug, Clone, PartialEq)]
pub struct Logging {
    /// Directory of the log files.
    pub log_dir: PathBuf,
    /// Size in bytes at which a log file is rotated.
    pub rotation_max_size: u64,
    /// Rotated files kept.
    pub rotation_keep_files: usize,
    /// strftime format of times in human log lines.
    pub date_format: String,
}

/// `database`.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Role to connect as.
    pub username: String,
    /// Its password, if any.
    pub password: Option<Secret>,
    /// Database name.
    pub name: String,
    /// Host name, address, or directory of the Unix socket.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The main table, checked and folded to lower case.
    pub table: TableName,
    /// TLS.
    pub sslmode: SslMode,
    /// CA certificates to trust instead of the system's (PEM).
    pub sslrootcert: Option<PathBuf>,
    /// Client certificate (PEM).
    pub sslcert: Option<PathBuf>,
    /// Key of the client certificate (PEM).
    pub sslkey: Option<PathBuf>,
    /// Role that owns the tables, for `manager migrate`; none: `username`.
    pub migrate_username: Option<String>,
}

/// A table name, optionally with a schema: `[A-Za-z_][A-Za-z0-9_]*`, folded to lower case, safe to put into SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// Schema, if one was given.
    pub schema: Option<String>,
    /// Name without schema.
    pub name: String,
}

/// `database.sslmode`, as in libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS if the server offers it, unverified.
    Prefer,
    /// TLS or nothing, unverified unless `sslrootcert` is set.
    Require,
    /// TLS with a certificate chain that verifies.
    VerifyCa,
    /// As `VerifyCa`, and the host name must match.
    VerifyFull,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// `cta-ops-repack-0-scan`.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// Tapes whose usage (live bytes / written bytes, 0 to 1) is below this are candidates.
    pub tape_usage_threshold: f64,
    /// The most candidates of one scan.
    pub number_of_tapes: usize,
    /// Pools the scan leaves out.
    pub ignore_pools: Vec<String>,
}

/// `cta-ops-repack-2-start`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// Path of the listing with `$DATE` and `$TAPE`.
    pub existing_files_on_tape: String,
    /// File-name pattern of listings that may be cleaned up.
    pub cleanup_pattern: String,
    /// How long listings are kept once the tape is reclaimed.
    pub keep: Duration,
}

/// `default_priority` and `priorities`.
#[derive(Debug, Clone, PartialEq)]
pub struct Priorities {
    /// The priority of a tape entered without one; a key of `by_number`.
    pub default: i16,
    /// The larger number runs first.
    pub by_number: BTreeMap<i16, Priority>,
}

/// One entry of `priorities`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priority {
    /// Name for people.
    pub name: String,
    /// CTA mount policy of the repack.
    pub mount_policy: String,
    /// First part of the destination pool's name (`tolabel`, `erase`).
    pub default_dst_pool_prefix: String,
}

/// `quarantine_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineState {
    /// Nobody writes to a reclaimed tape before it is moved.
    Disabled,
    /// Users and supply scripts can write to a reclaimed tape before it is moved.
    Active,
}

/// `repack_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepackMode {
    /// `--justmove`.
    Move,
    /// Neither flag: missing copies are added too.
    MoveAndAddCopies,
}

/// `cta_admin`, with `binaries.cta-admin` and `tape.cta-admin_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct CtaAdmin {
    /// The program.
    pub program: PathBuf,
    /// `--config` for entering REPACKING and for queries.
    pub user_config: Option<PathBuf>,
    /// `--config` for leaving REPACKING and for all `repack` commands.
    pub repack_config: Option<PathBuf>,
    /// A changing command in total; a list: silence.
    pub timeout: Duration,
    /// A list in total.
    pub list_timeout: Duration,
}

/// `retry`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Failed attempts (and crashes) after which a tape is stopped, at least 1.
    pub max_attempts: u32,
    /// Delay after the first failure; doubles from there.
    pub first_delay: Duration,
    /// The longest delay.
    pub max_delay: Duration,
}

/// `broker`.
#[derive(Debug, Clone, PartialEq)]
pub struct Broker {
    /// `amqp://` or `amqps://`, without password.
    pub url: String,
    /// From the url, the file, or the environment.
    pub password: Option<Secret>,
    /// First part of every exchange and queue name: `[A-Za-z0-9_-]+`.
    pub prefix: String,
    /// For `amqps://`.
    pub tls: Certificates,
}

/// Certificate files for TLS, in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Certificate authorities to trust; none: the system's.
    pub sslrootcert: Option<PathBuf>,
    /// Our own certificate, with its chain.
    pub sslcert: Option<PathBuf>,
    /// Its private key.
    pub sslkey: Option<PathBuf>,
}

/// `cta-ops-repack-producer`.
#[derive(Debug, Clone, PartialEq)]
pub struct Producer {
    /// Pause between ticks of `run`.
    pub interval: Duration,
    /// Where metrics are served; none: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// A file for the textfile collector of `node_exporter`, written at the end of every tick; none: none.
    pub metrics_textfile: Option<PathBuf>,
}

/// `cta-ops-repack-worker`.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Deliveries at once in one process, at least 1.
    pub concurrency: usize,
    /// Stages served: names from the stage table.
    pub stages: Vec<String>,
    /// Where metrics are served; none: nowhere.
    pub metrics_listen: Option<SocketAddr>,
}

/// `notify`, with `email` and `binaries.sendmail`.
#[derive(Debug, Clone, PartialEq)]
pub struct Notify {
    /// Whether a digest of the tapes that need a person is mailed.
    pub mail: bool,
    /// The least time between two digests.
    pub interval: Duration,
    /// The program that takes mail.
    pub sendmail: PathBuf,
    /// Plain addresses, at least one where mail is on; empty where it is off, for nobody reads them then.
    pub recipients: Vec<String>,
    /// A plain address; none: the mail system's own choice.
    pub sender: Option<String>,
}

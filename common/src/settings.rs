//! The configuration file: text in, checked [`Settings`] out, every problem named in one run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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
}

/// `cta-ops-repack-producer`.
#[derive(Debug, Clone, PartialEq)]
pub struct Producer {
    /// Pause between ticks of `run`.
    pub interval: Duration,
    /// Where metrics are served; none: nowhere.
    pub metrics_listen: Option<SocketAddr>,
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

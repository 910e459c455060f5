//! What holds where the file says nothing. The example in `deploy/` says the same, which a test checks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{
    CtaAdmin, Database, Listing, Logging, Notify, Priorities, Priority, Producer, QuarantineState, RepackMode, Retry,
    Scan, Secret, Settings, SslMode, TableName, Worker,
};

/// The stages of a tape, in their order: what `cta-ops-repack-worker.stages` may name.
pub const STAGE_NAMES: [&str; 5] = ["start", "end", "quarantine", "reclaim", "finish"];

pub(super) const DAY: f64 = 86400.0;

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Default for Logging {
    fn default() -> Logging {
        Logging {
            log_dir: PathBuf::from("/var/log/cta-ops/repack/"),
            rotation_max_size: 1 << 30,
            rotation_keep_files: 5,
            date_format: "%Y-%m-%d %H:%M:%S".to_owned(),
        }
    }
}

impl Default for Database {
    fn default() -> Database {
        Database {
            username: "changeme".to_owned(),
            password: Some(Secret::new("changeme")),
            name: "cta_repack".to_owned(),
            host: "changeme".to_owned(),
            port: 5432,
            table: TableName { schema: None, name: "repack_status".to_owned() },
            sslmode: SslMode::Prefer,
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            migrate_username: None,
        }
    }
}

impl Default for Scan {
    fn default() -> Scan {
        Scan { tape_usage_threshold: 0.4, number_of_tapes: 10, ignore_pools: vec!["quarantine".to_owned()] }
    }
}

impl Default for Listing {
    fn default() -> Listing {
        Listing {
            existing_files_on_tape: "/var/log/cta-ops/repack/repack-tapefile-$DATE-$TAPE.txt".to_owned(),
            cleanup_pattern: "*repack-tapefile*".to_owned(),
            keep: Duration::from_secs(14 * 86400),
        }
    }
}

impl Default for Priorities {
    fn default() -> Priorities {
        let priority = |name: &str, mount_policy: &str, prefix: &str| Priority {
            name: name.to_owned(),
            mount_policy: mount_policy.to_owned(),
            default_dst_pool_prefix: prefix.to_owned(),
        };
        Priorities {
            default: 10,
            by_number: BTreeMap::from([
                (10, priority("low", "repack_low_priority", "tolabel")),
                (11, priority("low-erase", "repack_low_priority", "erase")),
                (49, priority("high-tolabel", "repack_high_priority", "tolabel")),
                (50, priority("high", "repack_high_priority", "erase")),
            ]),
        }
    }
}

impl Default for CtaAdmin {
    fn default() -> CtaAdmin {
        CtaAdmin {
            program: PathBuf::from("/usr/bin/cta-admin"),
            user_config: Some(PathBuf::from("/etc/cta-ops/cta-cli.conf")),
            repack_config: Some(PathBuf::from("/etc/cta-ops/cta-cli.conf")),
            timeout: Duration::from_secs(120),
            list_timeout: Duration::from_secs(7200),
        }
    }
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { max_attempts: 5, first_delay: Duration::from_secs(30), max_delay: Duration::from_secs(3600) }
    }
}

impl Default for Producer {
    fn default() -> Producer {
        Producer { interval: Duration::from_secs(60), metrics_listen: Some(loopback(9187)), metrics_textfile: None }
    }
}

impl Default for Worker {
    fn default() -> Worker {
        Worker { concurrency: 4, stages: STAGE_NAMES.map(str::to_owned).to_vec(), metrics_listen: Some(loopback(9188)) }
    }
}

impl Default for Notify {
    fn default() -> Notify {
        Notify {
            mail: false,
            interval: Duration::from_secs(3600),
            sendmail: PathBuf::from("/usr/sbin/sendmail"),
            recipients: Vec::new(),
            sender: None,
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            debug: false,
            logging: Logging::default(),
            database: Database::default(),
            time_zone: "UTC".to_owned(),
            max_active_repacks: 10,
            quarantine: Duration::from_secs(31 * 86400),
            scan: Scan::default(),
            listing: Listing::default(),
            repack_end_json_path: PathBuf::from("/var/log/cta-ops/repack/cta-ops-repack-end-json.log"),
            monitor_ls_out: PathBuf::from("/var/log/cta-ops/repack/cta-ops-repack-automation-json.log"),
            priorities: Priorities::default(),
            quarantine_pool: "quarantine".to_owned(),
            quarantine_state: QuarantineState::Disabled,
            repack_mode: RepackMode::Move,
            repack_buffer_url: None,
            max_files_to_select: None,
            stall: Duration::from_secs(12 * 3600),
            pending_limit: Duration::from_secs(3600),
            settle: Duration::from_secs(1800),
            cta_admin: CtaAdmin::default(),
            lib_to_pool_map: None,
            retry: Retry::default(),
            lease: Duration::from_secs(300),
            redispatch_after: Duration::from_secs(900),
            broker: None,
            producer: Producer::default(),
            worker: Worker::default(),
            notify: Notify::default(),
        }
    }
}

//! Settings written as the configuration file that would be read as them.

use common::settings::{QuarantineState, RepackMode, Settings, SslMode, TableName};
use serde_json::{Map, Value, json};

/// The text of the file: JSON, which is YAML too.
pub fn text(settings: &Settings) -> String {
    let path = |path: &std::path::Path| path.display().to_string();
    let mut tool = json!({
        "debug": settings.debug,
        "logging": {"log_dir": path(&settings.logging.log_dir)},
        "database": {
            "username": settings.database.username,
            "name": settings.database.name,
            "host": settings.database.host,
            "port": settings.database.port,
            "repack_table_name": table(&settings.database.table),
            "sslmode": match settings.database.sslmode {
                SslMode::Disable => "disable",
                SslMode::Prefer => "prefer",
                SslMode::Require => "require",
                SslMode::VerifyCa => "verify-ca",
                SslMode::VerifyFull => "verify-full",
            },
        },
        "time_zone": settings.time_zone,
        "max_active_repacks": settings.max_active_repacks,
        "quarantine_days": settings.quarantine.as_secs_f64() / 86_400.0,
        "quarantine_pool": settings.quarantine_pool,
        "quarantine_state": match settings.quarantine_state {
            QuarantineState::Disabled => "DISABLED",
            QuarantineState::Active => "ACTIVE",
        },
        "repack_mode": match settings.repack_mode {
            RepackMode::Move => "move",
            RepackMode::MoveAndAddCopies => "move_and_add_copies",
        },
        "stall_hours": settings.stall.as_secs_f64() / 3600.0,
        "pending_limit_secs": settings.pending_limit.as_secs_f64(),
        "settle_secs": settings.settle.as_secs_f64(),
        "lease_secs": settings.lease.as_secs_f64(),
        "redispatch_after_secs": settings.redispatch_after.as_secs_f64(),
        "retry": {
            "max_attempts": settings.retry.max_attempts,
            "first_delay_secs": settings.retry.first_delay.as_secs_f64(),
            "max_delay_secs": settings.retry.max_delay.as_secs_f64(),
        },
        "cta_admin": {
            "timeout_secs": settings.cta_admin.timeout.as_secs_f64(),
            "list_timeout_secs": settings.cta_admin.list_timeout.as_secs_f64(),
        },
        "cta-ops-repack-0-scan": {
            "tape_usage_threshold": settings.scan.tape_usage_threshold,
            "number_of_tapes": settings.scan.number_of_tapes,
            "ignore_pools": settings.scan.ignore_pools,
        },
        "cta-ops-repack-2-start": {
            "existing_files_on_tape": settings.listing.existing_files_on_tape,
            "cleanup_pattern": settings.listing.cleanup_pattern,
            "keep_tf_files_days": settings.listing.keep.as_secs_f64() / 86_400.0,
        },
        "cta-ops-repack-3-end": {"repack-end-json-path": path(&settings.repack_end_json_path)},
        "cta-ops-repack-monitor": {"ls_out": path(&settings.monitor_ls_out)},
        "default_priority": settings.priorities.default,
        "priorities": settings.priorities.by_number.iter().map(|(number, priority)| (number.to_string(), json!({
            "name": priority.name,
            "mount_policy": priority.mount_policy,
            "default_dst_pool_prefix": priority.default_dst_pool_prefix,
        }))).collect::<Map<String, Value>>(),
        "cta-ops-repack-producer": {
            "interval_secs": settings.producer.interval.as_secs_f64(),
            "metrics_listen": settings.producer.metrics_listen,
            "metrics_textfile": settings.producer.metrics_textfile,
        },
        "cta-ops-repack-worker": {
            "concurrency": settings.worker.concurrency,
            "stages": settings.worker.stages,
            "metrics_listen": settings.worker.metrics_listen,
        },
    });
    let notify = &settings.notify;
    tool["notify"] = json!({"mail": notify.mail, "interval_secs": notify.interval.as_secs_f64()});
    if notify.mail {
        tool["email"] = json!({"recipients": notify.recipients, "sender": notify.sender});
    }
    let mut set = |section: &str, key: &str, value: Option<Value>| {
        if let Some(value) = value {
            if section.is_empty() {
                tool[key] = value;
            } else {
                tool[section][key] = value;
            }
        }
    };
    let text = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| json!(path.display().to_string()));
    set("database", "password", settings.database.password.as_ref().map(|password| json!(password.reveal())));
    set("database", "sslrootcert", text(&settings.database.sslrootcert));
    set("cta_admin", "user_config", text(&settings.cta_admin.user_config));
    set("cta_admin", "repack_config", text(&settings.cta_admin.repack_config));
    set("", "repack_buffer_url", settings.repack_buffer_url.as_ref().map(|url| json!(url)));
    set("", "max_files_to_select", settings.max_files_to_select.map(|max| json!(max)));
    if let Some(broker) = &settings.broker {
        let url = match &broker.password {
            Some(password) => broker.url.replacen('@', &format!(":{}@", password.reveal()), 1),
            None => broker.url.clone(),
        };
        set("", "broker", Some(json!({"url": url, "prefix": broker.prefix})));
    }
    let binaries = json!({"cta-admin": path(&settings.cta_admin.program), "sendmail": path(&notify.sendmail)});
    let mut global = json!({"binaries": binaries, "tape": {}});
    if let Some(map) = &settings.lib_to_pool_map {
        global["tape"]["lib_to_pool_map"] = json!(map);
    }
    json!({"global": global, "tools": {"cta-ops-repack-automation": tool}}).to_string()
}

/// As it is typed: shown, it has the quotes that SQL wants.
fn table(table: &TableName) -> String {
    match &table.schema {
        Some(schema) => format!("{schema}.{}", table.name),
        None => table.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same_settings() {
        let settings = Settings { quarantine: std::time::Duration::from_secs(43_200), ..Settings::default() };
        let loaded = common::settings::parse(&text(&settings), &|_| None).expect("a good file");
        let read = Settings { cta_admin: settings.cta_admin.clone(), ..loaded.settings };
        assert_eq!(read, settings);
    }
}

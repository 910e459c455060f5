//! The keys: which there are, what each may hold, and what must hold between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use chrono::format::{Item, StrftimeItems};
use lapin::uri::AMQPUri;

use super::defaults::{DAY, STAGE_NAMES};
use super::mail;
use super::passwords;
use super::problem::{Problem, shown};
use super::section::{Found, Reader, Section, as_text, as_whole, near_miss};
use super::yaml::{self, Kind, Map};
use super::{
    Broker, Certificates, CtaAdmin, Database, Listing, Logging, Notify, Priorities, Priority, Producer,
    QuarantineState, RepackMode, Retry, Scan, Secret, Settings, SslMode, TableName, Worker,
};

/// The name of our section under `tools:`.
pub(super) const TOOL: &str = "cta-ops-repack-automation";

/// Keys that other programs of the family know, allowed wherever `global:` may have them.
const OTHERS: [&str; 5] = ["default_user", "email", "table_format", "colors", "drives"];

/// The longest pool, mount policy or priority name: the width of CTA's columns.
const MAX_NAME: usize = 100;

/// Where values other than the text come from.
pub(super) struct Around<'e> {
    /// The environment.
    pub env: &'e dyn Fn(&str) -> Option<String>,
    /// Everybody can read the file.
    pub open_to_others: bool,
}

/// Text to settings, with all errors and warnings found on the way; with an error the settings are of no use.
pub(super) fn read(text: &str, around: &Around<'_>) -> (Settings, Vec<Problem>, Vec<Problem>) {
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let expected = format!("expected YAML, but: {}", error.why);
            let problem = Problem { line: error.line, key: String::new(), value: String::new(), expected };
            return (Settings::default(), vec![problem], Vec::new());
        }
    };
    let reader = Reader::new(text);
    let (tool, global) = layers(&reader, &root.kind);
    let mut section = Section::root(&reader, tool, global);
    section.ignore(&OTHERS);
    let settings = settings(&section, around);
    section.finish();
    if let Kind::Map(map) = &root.kind {
        // A key of ours in the first column is one that was not indented.
        for entry in map.0.iter().filter(|entry| !["global", "tools"].contains(&entry.name.as_str())) {
            if !matches!(entry.value.kind, Kind::Map(_)) {
                reader.misplaced("", entry);
            }
        }
    }
    let (errors, warnings) = reader.finish();
    (settings, errors, warnings)
}

/// Our section and the common one.
fn layers<'a>(reader: &Reader<'a>, root: &'a Kind) -> (Option<&'a Map>, Option<&'a Map>) {
    let missing = format!("expected a section 'tools:' with a section '{TOOL}:' in it (it may be empty)");
    let Kind::Map(top) = root else {
        reader.error(None, "", String::new(), missing);
        return (None, None);
    };
    let pick = |map: &'a Map, path: &str, name: &str| {
        for entry in &map.0 {
            let full = if path.is_empty() { entry.name.clone() } else { format!("{path}.{}", entry.name) };
            if entry.name == name {
                reader.refuse_duplicate(&full, entry);
            } else if map.get(name).is_none() && near_miss(&entry.name, &[name]).is_some() {
                reader.error(Some(entry.id), &full, String::new(), format!("not a known key, did you mean '{name}'?"));
            }
        }
        let entry = map.get(name)?;
        match &entry.value.kind {
            Kind::Map(map) => Some(Some(map)),
            Kind::Null => Some(None),
            _ => {
                reader.error(Some(entry.id), name, shown(&entry.value), "expected a section");
                Some(None)
            }
        }
    };
    let global = pick(top, "", "global").flatten();
    let tools = pick(top, "", "tools").flatten();
    let tool = tools.and_then(|tools| pick(tools, "tools", TOOL));
    if tool.is_none() {
        reader.error(None, "", String::new(), missing);
    }
    (tool.flatten(), global)
}

fn settings(root: &Section<'_, '_>, around: &Around<'_>) -> Settings {
    let base = Settings::default();
    let notify = mail::notify(root, base.notify);
    let (program, sendmail) = root.section("binaries", |section| {
        let program = PathBuf::from(section.text("cta-admin", &base.cta_admin.program.to_string_lossy()));
        (program, mail::sendmail(section, &notify))
    });
    let (config, lib_to_pool_map) = root.section("tape", |tape| {
        (tape.optional_path("cta-admin_config", base.cta_admin.user_config.clone()), lib_to_pool_map(tape))
    });
    let settings = Settings {
        debug: root.flag("debug", base.debug),
        logging: root.section("logging", |section| logging(section, base.logging)),
        database: root.section("database", |section| database(section, base.database, around)),
        time_zone: root.checked("time_zone", base.time_zone, time_zone),
        max_active_repacks: root.whole("max_active_repacks", base.max_active_repacks, 1..=100_000),
        quarantine: root.time("quarantine_days", base.quarantine, (DAY, "days"), true),
        scan: root.section("cta-ops-repack-0-scan", |section| scan(section, base.scan)),
        listing: root.section("cta-ops-repack-2-start", |section| listing(section, base.listing)),
        repack_end_json_path: root.section("cta-ops-repack-3-end", |section| {
            section.path_of("repack-end-json-path", &base.repack_end_json_path)
        }),
        monitor_ls_out: root
            .section("cta-ops-repack-monitor", |section| section.path_of("ls_out", &base.monitor_ls_out)),
        priorities: priorities(root, base.priorities),
        quarantine_pool: root.checked("quarantine_pool", base.quarantine_pool, name),
        quarantine_state: root.choice(
            "quarantine_state",
            base.quarantine_state,
            &[("DISABLED", QuarantineState::Disabled), ("ACTIVE", QuarantineState::Active)],
        ),
        repack_mode: root.choice(
            "repack_mode",
            base.repack_mode,
            &[("move", RepackMode::Move), ("move_and_add_copies", RepackMode::MoveAndAddCopies)],
        ),
        repack_buffer_url: root.read(
            "repack_buffer_url",
            base.repack_buffer_url,
            "a url such as root://host//path, or nothing",
            |node| match node.kind {
                Kind::Null => Some(None),
                _ => as_text(node).filter(|url| is_url(url)).map(Some),
            },
        ),
        max_files_to_select: root.read(
            "max_files_to_select",
            base.max_files_to_select,
            "a whole number from 1, or nothing",
            |node| match node.kind {
                Kind::Null => Some(None),
                _ => as_whole(node).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).map(Some),
            },
        ),
        stall: root.time("stall_hours", base.stall, (3600.0, "hours"), false),
        pending_limit: root.time("pending_limit_secs", base.pending_limit, SECONDS, false),
        settle: root.time("settle_secs", base.settle, SECONDS, false),
        cta_admin: cta_admin(root, program, config, base.cta_admin),
        lib_to_pool_map,
        retry: root.section("retry", |section| retry(section, base.retry)),
        lease: root.time("lease_secs", base.lease, SECONDS, false),
        redispatch_after: root.time("redispatch_after_secs", base.redispatch_after, SECONDS, false),
        broker: broker(root, around),
        producer: root.section("cta-ops-repack-producer", |section| Producer {
            interval: section.time("interval_secs", base.producer.interval, SECONDS, false),
            metrics_listen: listen(section, base.producer.metrics_listen),
            metrics_textfile: section.optional_path("metrics_textfile", base.producer.metrics_textfile),
        }),
        worker: root.section("cta-ops-repack-worker", |section| worker(section, base.worker)),
        notify: Notify { sendmail, ..notify },
    };
    between(root, &settings);
    settings
}

pub(super) const SECONDS: (f64, &str) = (1.0, "seconds");

/// What must hold between keys.
fn between(root: &Section<'_, '_>, settings: &Settings) {
    // The command's own limit must end it, and its answer be recorded, before another worker may take the tape.
    let least = lease_at_least(settings.cta_admin.timeout);
    if settings.lease < least {
        root.error_at("lease_secs", &settings.lease.as_secs_f64().to_string(), format!(
            "expected at least {} seconds: cta_admin.timeout_secs ({}) and a tenth of it more, at least 5 seconds more",
            least.as_secs_f64(),
            settings.cta_admin.timeout.as_secs_f64(),
        ));
    }
    let pattern = glob::Pattern::new(&settings.listing.cleanup_pattern).unwrap_or_default();
    let listing = PathBuf::from(
        settings.listing.existing_files_on_tape.replace("$DATE", "2000-01-01").replace("$TAPE", "V00001"),
    );
    let others = [&settings.repack_end_json_path, &settings.monitor_ls_out].map(|path| path.as_path());
    let log = settings.logging.log_dir.join("cta-ops-repack-worker.log");
    for other in others.into_iter().chain([log.as_path()]) {
        let named = other.file_name().unwrap_or_default().to_string_lossy();
        if other.parent() == listing.parent() && pattern.matches(&named) {
            let expected = format!("expected a pattern of listings only, it would delete {} too", other.display());
            let shown = format!("\"{}\"", pattern.as_str());
            root.inner_error("cta-ops-repack-2-start", "cleanup_pattern", &shown, &expected);
            break;
        }
    }
}

/// The shortest lease that is safe with this limit on a changing command: a tenth of the limit longer than it, and at
/// least 5 seconds.
pub fn lease_at_least(timeout: Duration) -> Duration {
    timeout.saturating_add((timeout / 10).max(Duration::from_secs(5)))
}

fn logging(section: &mut Section<'_, '_>, base: Logging) -> Logging {
    section.ignore(&["error_translation_file"]);
    Logging {
        log_dir: section.path_of("log_dir", &base.log_dir),
        rotation_max_size: section.read(
            "rotation_max_size",
            base.rotation_max_size,
            "a size such as 1G, 500M, 64K or a number of bytes, more than 0",
            |node| size(&as_text(node)?),
        ),
        rotation_keep_files: section.whole("rotation_keep_files", base.rotation_keep_files, 0..=1000),
        date_format: section.read("date_format", base.date_format, "a date format such as %Y-%m-%d %H:%M:%S", |node| {
            as_text(node).filter(|format| !StrftimeItems::new(format).any(|item| matches!(item, Item::Error)))
        }),
    }
}

/// Bytes; the letters are powers of 1024.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return None,
    };
    let digits = digits.trim_end();
    let number: u64 = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok()? } else { return None };
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0 && *bytes <= 1 << 50)
}

fn database(section: &mut Section<'_, '_>, base: Database, around: &Around<'_>) -> Database {
    let Certificates { sslrootcert, sslcert, sslkey } = certificates(section);
    let inline = inline_password(section, base.password, around);
    Database {
        username: section.text("username", &base.username),
        password: password(section, "CTA_OPS_DATABASE_PASSWORD", inline, around),
        name: section.text("name", &base.name),
        host: section.checked("host", base.host, host),
        port: port(section, base.port),
        table: section.checked("repack_table_name", base.table, TableName::parse),
        sslmode: section.choice(
            "sslmode",
            base.sslmode,
            &[
                ("disable", SslMode::Disable),
                ("prefer", SslMode::Prefer),
                ("require", SslMode::Require),
                ("verify-ca", SslMode::VerifyCa),
                ("verify-full", SslMode::VerifyFull),
            ],
        ),
        sslrootcert,
        sslcert,
        sslkey,
        migrate_username: section.optional_text("migrate_username", base.migrate_username),
    }
}

/// Certificate files: none has a default.
fn certificates(section: &Section<'_, '_>) -> Certificates {
    let sslrootcert = section.optional_path("sslrootcert", None);
    let sslcert = section.optional_path("sslcert", None);
    let sslkey = section.optional_path("sslkey", None);
    if sslcert.is_some() != sslkey.is_some() {
        let there = if sslcert.is_some() { "sslcert" } else { "sslkey" };
        section.error_at(there, "", "expected sslcert and sslkey together, one is missing");
    }
    Certificates { sslrootcert, sslcert, sslkey }
}

/// `database.password`; the value of no other key is taken so literally.
fn inline_password(section: &Section<'_, '_>, default: Option<Secret>, around: &Around<'_>) -> Option<Secret> {
    let Some(found) = section.get("password") else { return default };
    match &found.node.kind {
        Kind::Null => None,
        Kind::Text(text) if text.is_empty() => None,
        Kind::Text(text) if !text.contains('\0') => {
            warn_if_open(section, &found, text, around);
            Some(Secret::new(text.clone()))
        }
        _ => {
            section.reader.error(Some(found.id), &found.key, "***".to_owned(), "expected text, put quotes around it");
            None
        }
    }
}

fn warn_if_open(section: &Section<'_, '_>, found: &Found<'_>, password: &str, around: &Around<'_>) {
    if around.open_to_others && password != "changeme" {
        let remark = "everybody on this host can read the file with this password: chmod o-r it, or use password_file";
        section.reader.warn(Some(found.id), &found.key, String::new(), remark);
    }
}

/// The environment's password, else the file's, else the one that stands in the configuration.
fn password(section: &Section<'_, '_>, variable: &str, inline: Option<Secret>, around: &Around<'_>) -> Option<Secret> {
    let file = section.get("password_file").filter(|found| found.node.kind != Kind::Null);
    if let Some(password) = (around.env)(variable).filter(|password| !password.is_empty()) {
        return Some(Secret::new(password));
    }
    let Some(found) = file else { return inline };
    let outcome = match as_text(found.node) {
        Some(path) => passwords::read(Path::new(&path)),
        None => Err("expected the path of a file".to_owned()),
    };
    match outcome {
        Ok(file) => {
            if file.open_to_others {
                let remark = "everybody on this host can read this password: chmod o-r the file";
                section.reader.warn(Some(found.id), &found.key, shown(found.node), remark);
            }
            Some(file.password)
        }
        Err(expected) => {
            section.reader.error(Some(found.id), &found.key, shown(found.node), expected);
            None
        }
    }
}

fn host(text: &str) -> Result<String, String> {
    let socket = text.starts_with('/');
    let address = text.parse::<IpAddr>().is_ok();
    let name = text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if socket || address || name {
        return Ok(text.to_owned());
    }
    Err("a host name, an IP address without brackets, or the directory of a socket (the port is database.port)"
        .to_owned())
}

/// The seed's own `port: "changeme"` is in many files.
fn port(section: &Section<'_, '_>, default: u16) -> u16 {
    if let Some(found) = section.get("port")
        && as_text(found.node).is_some_and(|text| text == "changeme")
    {
        section.reader.warn(Some(found.id), &found.key, shown(found.node), format!("taken as {default}, set the port"));
        return default;
    }
    section.whole("port", default, 1..=65535)
}

fn time_zone(text: &str) -> Result<String, String> {
    let plain = text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-/:".contains(&b));
    if plain {
        Ok(text.to_owned())
    } else {
        Err("a time zone name of PostgreSQL, such as UTC or Europe/Zurich".to_owned())
    }
}

/// A name in CTA, which goes onto command lines.
fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > MAX_NAME || text.starts_with('-') || text.contains(char::is_control) {
        return Err(format!("a name of 1 to {MAX_NAME} characters that does not begin with '-'"));
    }
    Ok(text.to_owned())
}

fn scan(section: &mut Section<'_, '_>, base: Scan) -> Scan {
    Scan {
        tape_usage_threshold: section.number("tape_usage_threshold", base.tape_usage_threshold, 0.0..=1.0),
        number_of_tapes: section.whole("number_of_tapes", base.number_of_tapes, 0..=10_000_000),
        ignore_pools: section.texts("ignore_pools", &base.ignore_pools),
    }
}

fn listing(section: &mut Section<'_, '_>, base: Listing) -> Listing {
    Listing {
        existing_files_on_tape: section.read(
            "existing_files_on_tape",
            base.existing_files_on_tape,
            "the path of a file, from '/', with $TAPE (and $DATE) in its last part",
            |node| {
                let path = as_text(node)?;
                let (dir, file) = path.rsplit_once('/')?;
                (path.starts_with('/') && file.contains("$TAPE") && !dir.contains('$')).then_some(path)
            },
        ),
        cleanup_pattern: section.read(
            "cleanup_pattern",
            base.cleanup_pattern,
            "a pattern of file names without '/', such as *repack-tapefile*",
            |node| as_text(node).filter(|text| !text.contains('/') && glob::Pattern::new(text).is_ok()),
        ),
        keep: section.time("keep_tf_files_days", base.keep, (DAY, "days"), true),
    }
}

fn priorities(root: &Section<'_, '_>, base: Priorities) -> Priorities {
    let there = root.get("priorities").map(|found| (found.id, found.key));
    let by_number = match there {
        None => base.by_number,
        Some((id, key)) => root.inner("priorities", |section| {
            let names = section.names();
            if names.is_empty() {
                root.reader.error(Some(id), &key, String::new(), "expected at least one priority");
            }
            let mut by_number = BTreeMap::new();
            for (text, id) in names {
                let path = format!("{key}.{text}");
                let entry = section.inner(&text, priority);
                match number(&text) {
                    Some(number) if by_number.insert(number, entry).is_none() => {}
                    Some(_) => root.reader.error(
                        Some(id),
                        &path,
                        String::new(),
                        "stands here a second time, keep one of the two",
                    ),
                    None => root.reader.error(
                        Some(id),
                        &path,
                        String::new(),
                        "expected a whole number from 0 to 32767 as key",
                    ),
                }
            }
            by_number
        }),
    };
    let default = root.whole("default_priority", base.default, 0..=32767);
    if !by_number.is_empty() && !by_number.contains_key(&default) {
        let numbers: Vec<String> = by_number.keys().map(ToString::to_string).collect();
        root.error_at(
            "default_priority",
            &default.to_string(),
            format!("expected one of priorities: {}", numbers.join(", ")),
        );
    }
    Priorities { default, by_number }
}

fn number(text: &str) -> Option<i16> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// An entry without a name, a mount policy or a prefix cannot be guessed, so nothing here has a default.
fn priority(section: &mut Section<'_, '_>) -> Priority {
    let needed = |key: &'static str| {
        if section.leaf(key).is_none() {
            section.error_at(key, "", "missing, every priority needs it");
        }
        section.checked(key, String::new(), name)
    };
    Priority {
        name: needed("name"),
        mount_policy: needed("mount_policy"),
        default_dst_pool_prefix: needed("default_dst_pool_prefix"),
    }
}

fn cta_admin(root: &Section<'_, '_>, program: PathBuf, config: Option<PathBuf>, base: CtaAdmin) -> CtaAdmin {
    root.section("cta_admin", |section| {
        let timeout = section.time("timeout_secs", base.timeout, SECONDS, false);
        let list_timeout = section.time("list_timeout_secs", base.list_timeout, SECONDS, false);
        if list_timeout < timeout {
            section.error_at(
                "list_timeout_secs",
                &list_timeout.as_secs_f64().to_string(),
                "expected at least timeout_secs",
            );
        }
        CtaAdmin {
            program,
            user_config: section.optional_path("user_config", config.clone()),
            repack_config: section.optional_path("repack_config", config),
            timeout,
            list_timeout,
        }
    })
}

/// `tape.lib_to_pool_map`. Real files hold oddities for libraries that nobody uses any more, so an odd entry is left out
/// with a warning; a tape that needs it is refused by name.
fn lib_to_pool_map(tape: &mut Section<'_, '_>) -> Option<BTreeMap<String, BTreeMap<String, String>>> {
    let there = tape.get("lib_to_pool_map")?;
    if there.node.kind == Kind::Null {
        return None;
    }
    Some(tape.inner("lib_to_pool_map", |libraries| {
        let names = libraries.names();
        names
            .into_iter()
            .map(|(library, id)| {
                let odd = |c: char| !c.is_alphanumeric() && !"_-.".contains(c);
                if library.contains(odd) {
                    let key = format!("{}.{library}", there.key);
                    libraries.reader.warn(
                        Some(id),
                        &key,
                        String::new(),
                        "an odd name for a logical library, is it mistyped?",
                    );
                }
                let suffixes = libraries.inner(&library, |media| {
                    let names = media.names().into_iter();
                    let read =
                        names.filter_map(|(media_type, _)| Some((media_type.clone(), suffix(media, &media_type)?)));
                    read.collect()
                });
                (library, suffixes)
            })
            .collect()
    }))
}

fn suffix(media: &Section<'_, '_>, media_type: &str) -> Option<String> {
    let found = media.leaf(media_type)?;
    let suffix = as_text(found.node).filter(|text| text.chars().count() <= MAX_NAME);
    if suffix.is_none() {
        let remark = "expected the second part of a pool name; left out, such tapes are refused at prepare";
        media.reader.warn(Some(found.id), &found.key, shown(found.node), remark);
    }
    suffix
}

fn retry(section: &mut Section<'_, '_>, base: Retry) -> Retry {
    let retry = Retry {
        max_attempts: section.whole("max_attempts", base.max_attempts, 1..=1000),
        first_delay: section.time("first_delay_secs", base.first_delay, SECONDS, true),
        max_delay: section.time("max_delay_secs", base.max_delay, SECONDS, true),
    };
    if retry.max_delay < retry.first_delay {
        section.error_at(
            "max_delay_secs",
            &retry.max_delay.as_secs_f64().to_string(),
            "expected at least first_delay_secs",
        );
    }
    retry
}

fn broker(root: &Section<'_, '_>, around: &Around<'_>) -> Option<Broker> {
    let found = root.get("broker");
    let there = found.is_some();
    let broker = root.inner("broker", |section| {
        let (url, inline) = url(section, around);
        if there && section.leaf("url").is_none() {
            section.error_at("url", "", "missing; leave the whole section out to run without a broker");
        }
        let tls = certificates(section);
        let named = [("sslrootcert", &tls.sslrootcert), ("sslcert", &tls.sslcert), ("sslkey", &tls.sslkey)];
        if let Some((key, _)) = named.iter().find(|(_, file)| file.is_some())
            && url.starts_with("amqp://")
        {
            section.error_at(
                key,
                "",
                "is for TLS, but broker.url begins with amqp:// and goes without: write amqps://",
            );
        }
        Broker {
            url,
            password: password(section, "CTA_OPS_BROKER_PASSWORD", inline, around),
            prefix: section.checked("prefix", "atresys".to_owned(), prefix),
            tls,
        }
    });
    found.map(|_| broker)
}

/// The url without its password. A url that cannot be read is not shown: nobody knows where its password ends.
fn url(section: &Section<'_, '_>, around: &Around<'_>) -> (String, Option<Secret>) {
    let Some(found) = section.get("url") else { return (String::new(), None) };
    let problem = |expected: &str| {
        section.reader.error(Some(found.id), &found.key, "\"***\"".to_owned(), expected);
        (String::new(), None)
    };
    let expected = "expected a url such as amqp://user@host:5672/vhost or amqps://... ('/' in the vhost is %2f)";
    let Some(text) = as_text(found.node) else { return problem(expected) };
    match passwords::out_of_url(&text) {
        Err(expected) => problem(&expected),
        Ok((url, _)) if !is_broker_url(&url) => problem(expected),
        Ok((url, password)) => {
            if let Some(password) = &password {
                warn_if_open(section, &found, password.reveal(), around);
            }
            (url, password)
        }
    }
}

fn is_broker_url(url: &str) -> bool {
    let host = AMQPUri::from_str(url).map(|uri| uri.authority.host);
    (url.starts_with("amqp://") || url.starts_with("amqps://"))
        && !url.contains(char::is_whitespace)
        && host.is_ok_and(|host| !host.is_empty())
}

fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b))
            && !text.contains(char::is_whitespace)
    })
}

fn prefix(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if plain && (1..=100).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("1 to 100 letters, digits, '_' and '-'".to_owned())
}

fn listen(section: &Section<'_, '_>, default: Option<SocketAddr>) -> Option<SocketAddr> {
    let expected = "an address and a port such as 127.0.0.1:9187 or [::]:9187, or nothing for no metrics";
    section.read("metrics_listen", default, expected, |node| match node.kind {
        Kind::Null => Some(None),
        _ => as_text(node)?.parse().ok().map(Some),
    })
}

fn worker(section: &mut Section<'_, '_>, base: Worker) -> Worker {
    let expected = format!("a list with some of {}, each once", STAGE_NAMES.join(", "));
    Worker {
        concurrency: section.whole("concurrency", base.concurrency, 1..=1000),
        stages: section.read("stages", base.stages, &expected, |node| {
            let Kind::List(items) = &node.kind else { return None };
            let names: Vec<String> = items.iter().map(as_text).collect::<Option<_>>()?;
            let known = names.iter().all(|name| STAGE_NAMES.contains(&name.as_str()));
            let once = names.iter().enumerate().all(|(n, name)| !names[..n].contains(name));
            (known && once && !names.is_empty()).then_some(names)
        }),
        metrics_listen: listen(section, base.metrics_listen),
    }
}

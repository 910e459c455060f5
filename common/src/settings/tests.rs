use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../../deploy/cta-ops-config.yaml");
const ATRESYS: &str = include_str!("tests/atresys.yaml");

fn no_env(_: &str) -> Option<String> {
    None
}

/// Our section with these lines in it.
fn ours(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("tools:\n  cta-ops-repack-automation:\n{indented}")
}

fn loaded(text: &str) -> Loaded {
    parse(text, &no_env).unwrap_or_else(|problems| panic!("{problems}"))
}

fn settings(lines: &str) -> Settings {
    loaded(&ours(lines)).settings
}

/// The errors as printed.
fn errors(text: &str) -> Vec<String> {
    match parse(text, &no_env) {
        Ok(loaded) => panic!("accepted: {text}\n{:?}", loaded.settings),
        Err(problems) => problems.errors.iter().map(ToString::to_string).collect(),
    }
}

fn warnings(text: &str) -> Vec<String> {
    loaded(text).warnings.iter().map(ToString::to_string).collect()
}

/// The one error of our section with these lines.
fn error(lines: &str) -> String {
    let errors = errors(&ours(lines));
    assert_eq!(errors.len(), 1, "{lines}: {errors:#?}");
    errors[0].clone()
}

#[test]
fn the_example_says_what_holds_by_default_and_raises_no_warning() {
    let example = loaded(EXAMPLE);
    assert_eq!(example.settings, Settings::default());
    assert_eq!(example.warnings, []);
}

#[test]
fn an_empty_section_means_the_defaults() {
    assert_eq!(loaded("tools: {cta-ops-repack-automation: }").settings, Settings::default());
    assert_eq!(loaded(&ours("logging:\ndatabase:\nretry: {}")).settings, Settings::default());
}

/// Uncomments `#key: ...` (and what is indented below a commented section), but not the sentences.
fn uncommented() -> String {
    let key = |line: &str| {
        let rest = line.trim_start().strip_prefix('#')?;
        let name = rest.trim_start().split(':').next()?;
        let is_key = rest.contains(':') && !name.is_empty() && !name.contains(' ') && !rest.starts_with(" `");
        (is_key && (!rest.starts_with(' ') || rest.starts_with("  "))).then(|| line.replacen('#', "", 1))
    };
    EXAMPLE.lines().map(|line| key(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[test]
fn the_example_with_every_key_uncommented_is_good_and_each_of_them_counts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "from a file\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let path = file.to_str().unwrap();
    let text =
        uncommented().replace("/etc/cta-ops/database.password", path).replace("/etc/cta-ops/rabbitmq.password", path);
    let full = loaded(&text);
    assert_eq!(full.warnings, []);
    let settings = full.settings;
    let broker = settings.broker.unwrap();
    assert_eq!(broker.url, "amqps://atresys@localhost:5671/atresys");
    let tls = ["rabbitmq-ca.pem", "rabbitmq-client.pem", "rabbitmq-client.key"]
        .map(|name| Some(PathBuf::from("/etc/cta-ops").join(name)));
    assert_eq!([broker.tls.sslrootcert, broker.tls.sslcert, broker.tls.sslkey], tls);
    assert_eq!((broker.prefix.as_str(), broker.password.unwrap().reveal()), ("atresys", "from a file"));
    assert_eq!(settings.database.password.unwrap().reveal(), "from a file");
    assert_eq!(settings.database.sslrootcert, Some(PathBuf::from("/etc/cta-ops/postgres-ca.pem")));
    assert_eq!(settings.database.sslcert, Some(PathBuf::from("/etc/cta-ops/postgres-client.pem")));
    assert_eq!(settings.database.sslkey, Some(PathBuf::from("/etc/cta-ops/postgres-client.key")));
    assert_eq!(settings.database.migrate_username.as_deref(), Some("cta_repack_owner"));
    assert_eq!(settings.repack_buffer_url.as_deref(), Some("root://eosctarepack//eos/ctarepack/repack"));
    assert_eq!(settings.max_files_to_select, Some(100_000));
    assert_eq!(settings.cta_admin.repack_config, Some(PathBuf::from("/etc/cta-ops/cta-cli-repack.conf")));
    assert_eq!(settings.lib_to_pool_map.unwrap()["IBM1L8"]["LTO7M"], "_IBM1L7");
}

#[test]
fn an_unmodified_atresys_file_loads_with_its_oddities_and_other_tools_are_left_alone() {
    let atresys = loaded(ATRESYS);
    let map: BTreeMap<_, BTreeMap<_, _>> = [
        ("IBM1L8", vec![("LTO7M", "_IBM1L7"), ("LTO8", "_IBM1L8")]),
        ("IBM1L9", vec![("LTO9", "_IBM1L9")]),
        ("IBM470'", vec![("3592JE", "_IBM470")]),
        ("OLDLIB", vec![]),
    ]
    .into_iter()
    .map(|(library, media)| {
        (library.to_owned(), media.into_iter().map(|(t, s)| (t.to_owned(), s.to_owned())).collect())
    })
    .collect();
    assert_eq!(atresys.settings, Settings { lib_to_pool_map: Some(map), ..Settings::default() });
    let warnings: Vec<_> =
        atresys.warnings.iter().map(|warning| (warning.line.unwrap(), warning.key.as_str())).collect();
    assert_eq!(warnings, [(28, "global.tape.lib_to_pool_map.IBM470'"), (43, "database.port")]);
}

#[test]
fn the_tool_overrides_global_key_by_key() {
    let text = "global:\n  logging: {log_dir: /a, rotation_max_size: 2G, rotation_keep_files: 7}\n  max_active_repacks: 3\n  \
                tape: {lib_to_pool_map: {A: {X: _1, Y: _2}}}\ntools:\n  cta-ops-repack-automation:\n    \
                logging: {log_dir: /b, rotation_max_size: 500M}\n    tape: {lib_to_pool_map: {A: {X: _9}, B: {Z: _3}}}\n";
    let loaded = loaded(text);
    let logging = &loaded.settings.logging;
    assert_eq!((logging.log_dir.to_str(), logging.rotation_max_size), (Some("/b"), 500 << 20));
    assert_eq!((logging.rotation_keep_files, loaded.settings.max_active_repacks), (7, 3));
    let map = loaded.settings.lib_to_pool_map.unwrap();
    assert_eq!((&*map["A"]["X"], &*map["A"]["Y"], &*map["B"]["Z"]), ("_9", "_2", "_3"));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn numbers_may_be_quoted_and_times_may_be_fractions() {
    let s = settings(
        "max_active_repacks: \"12\"\nquarantine_days: \"0.5\"\nsettle_secs: 0.25\ndatabase: {port: '6432'}\n\
         cta-ops-repack-0-scan: {tape_usage_threshold: \"0.7\"}\ndebug: yes\nmax_files_to_select: 18446744073709551615\n",
    );
    assert_eq!((s.max_active_repacks, s.database.port, s.debug), (12, 6432, true));
    assert_eq!((s.quarantine, s.settle), (Duration::from_secs(43_200), Duration::from_millis(250)));
    assert!((s.scan.tape_usage_threshold - 0.7).abs() < 1e-9);
    assert_eq!(s.max_files_to_select, Some(u64::MAX));
    assert_eq!(settings("quarantine_days: 0").quarantine, Duration::ZERO);
}

#[test]
fn a_near_miss_anywhere_is_an_error_with_its_line_and_what_was_meant() {
    for (lines, line, typed, meant) in [
        ("debug: false\nquarantine_day: 60", 4, "quarantine_day", "quarantine_days"),
        ("Quarantine-Days: 60", 3, "Quarantine-Days", "quarantine_days"),
        ("quarantine_hours: 60", 3, "quarantine_hours", "quarantine_days"),
        ("database:\n  hots: x", 4, "database.hots", "host"),
        ("database: {pasword: hunter2}", 3, "database.pasword", "password"),
        ("cta-ops-repack-2-strat: {}", 3, "cta-ops-repack-2-strat", "cta-ops-repack-2-start"),
        (
            "cta-ops-repack-3-end: {repack_end_json_path: /x}",
            3,
            "cta-ops-repack-3-end.repack_end_json_path",
            "repack-end-json-path",
        ),
        (
            "priorities:\n  10: {name: a, mount_policy: b, default_dst_pool_prefix: c, mount-policy: d}",
            4,
            "priorities.10.mount-policy",
            "mount_policy",
        ),
        ("brokers: {url: 'amqp://h'}", 3, "brokers", "broker"),
        ("cta-ops-repack-worker: {stage: [end]}", 3, "cta-ops-repack-worker.stage", "stages"),
    ] {
        assert_eq!(error(lines), format!("line {line}: {typed}: not a known key, did you mean '{meant}'?"));
    }
}

#[test]
fn a_near_miss_of_what_we_use_in_global_is_reported_and_other_keys_there_are_not() {
    let section = "tools: {cta-ops-repack-automation: {}}\n";
    for (global, meant) in [
        ("tape: {lib_to_pol_map: {}}", "lib_to_pool_map"),
        ("tape: {cta_admin_config: /x}", "cta-admin_config"),
        ("binaries: {cta_admin: /x}", "cta-admin"),
        ("logging: {log-dir: /x}", "log_dir"),
        ("Logging: {}", "logging"),
        ("taep: {}", "tape"),
    ] {
        let errors = errors(&format!("global:\n  {global}\n{section}"));
        assert!(errors.len() == 1 && errors[0].contains(&format!("did you mean '{meant}'?")), "{errors:?}");
        assert!(errors[0].starts_with("line 2: global.") && !errors[0].contains(".."), "{errors:?}");
    }
    let quiet = "global:\n  drives: {a: b}\n  binaries: {eos: /x, cta-ops-admin: /y}\n  tape: {x: y}\n  name: z\n";
    assert_eq!(warnings(&format!("{quiet}{section}")), [] as [String; 0]);
}

#[test]
fn the_names_of_the_sections_are_checked_for_near_misses_too() {
    for (text, meant) in [
        ("globals: {}\ntools: {cta-ops-repack-automation: {}}", "global"),
        ("tool: {cta-ops-repack-automation: {}}", "tools"),
        ("tools: {cta-ops-repack_automation: {quarantine_days: 60}}", "cta-ops-repack-automation"),
    ] {
        let errors = errors(text);
        assert!(errors.iter().any(|error| error.contains(&format!("did you mean '{meant}'?"))), "{text}: {errors:?}");
    }
    for text in ["", "# nothing\n", "a: 1", "tools:", "tools: {other: {}}", "[]", "5", "text"] {
        assert!(errors(text)[0].contains("cta-ops-repack-automation"), "{text}");
    }
}

#[test]
fn any_other_unknown_key_is_a_warning_and_strict_refuses_it() {
    let text = ours("quarantine_days: 3\nunheard_of: {a: b}\ndatabase: {nonsense: 1}");
    assert_eq!(
        warnings(&text),
        [
            "line 4: unheard_of: not a key of ours, it has no effect",
            "line 5: database.nonsense: not a key of ours, it has no effect",
        ]
    );
    assert_eq!(loaded(&text).strict().unwrap_err().errors.len(), 2);
    assert!(loaded(&ours("debug: true")).strict().unwrap().debug);
}

#[test]
fn a_key_that_global_has_too_is_no_stranger_in_our_section() {
    let text = "global: {stray: 1}\ntools: {cta-ops-repack-automation: {stray: 2, email: {recipients: []}}}";
    assert_eq!(warnings(text), [] as [String; 0]);
}

#[test]
fn a_known_key_in_the_wrong_place_is_an_error() {
    assert_eq!(
        error("cta-ops-repack-4-quarantine:\n  quarantine_days: 60"),
        "line 4: cta-ops-repack-4-quarantine.quarantine_days: has no effect here, it belongs at quarantine_days"
    );
    assert_eq!(error("max_attempts: 3"), "line 3: max_attempts: has no effect here, it belongs at retry.max_attempts");
    let errors = errors("tools: {cta-ops-repack-automation: {}}\nquarantine_days: 60\n");
    assert_eq!(errors, ["line 2: quarantine_days: has no effect here, it belongs at quarantine_days"]);
}

#[test]
fn duplicate_keys_are_errors_at_every_level_with_the_line_of_the_second() {
    for (lines, expected) in [
        ("quarantine_days: 31\ndebug: true\nquarantine_days: 60", "line 5: quarantine_days"),
        ("database:\n  host: a\n  host: b", "line 5: database.host"),
        (
            "priorities:\n  10: {name: a, mount_policy: b, default_dst_pool_prefix: c}\n  \"10\": {name: a, mount_policy: b, default_dst_pool_prefix: c}",
            "line 5: priorities.10",
        ),
        ("tape:\n  lib_to_pool_map:\n    A: {X: _1}\n    A: {X: _2}", "line 6: tape.lib_to_pool_map.A"),
    ] {
        assert_eq!(error(lines), format!("{expected}: stands here a second time, keep one of the two"));
    }
    let section = "tools: {cta-ops-repack-automation: {}}\n";
    assert_eq!(
        errors(&format!("{section}{section}")),
        ["line 2: tools: stands here a second time, keep one of the two"]
    );
    let text = format!("global:\n  logging: {{}}\n  logging: {{}}\n  other: 1\n  other: 2\n{section}");
    assert_eq!(errors(&text), ["line 3: global.logging: stands here a second time, keep one of the two"]);
}

#[test]
fn every_value_that_cannot_be_used_is_named_with_key_value_and_what_was_expected() {
    for (lines, expected) in [
        ("max_active_repacks: [1]", "max_active_repacks is a list: expected a whole number from 1 to 100000"),
        ("max_active_repacks: 0", "max_active_repacks is 0: expected a whole number from 1 to 100000"),
        ("max_active_repacks: 1.5", "max_active_repacks is 1.5: expected a whole number"),
        ("max_active_repacks: 99999999999999999999999999", "max_active_repacks is "),
        ("max_active_repacks: '010'", "max_active_repacks is \"010\": expected a whole number"),
        ("max_active_repacks: 010", "max_active_repacks is \"010\": expected a whole number"),
        ("max_active_repacks: 1_0", "max_active_repacks is \"1_0\": expected a whole number"),
        ("quarantine_days:", "quarantine_days is empty: expected a number of days, 0 or more"),
        ("quarantine_days: -1", "quarantine_days is -1: expected a number of days"),
        ("quarantine_days: .nan", "quarantine_days is NaN: expected a number of days"),
        ("quarantine_days: .inf", "quarantine_days is inf: expected a number of days"),
        ("quarantine_days: 'nan'", "quarantine_days is \"nan\": expected a number of days"),
        ("quarantine_days: 1e300", "quarantine_days is 1"),
        ("quarantine_days: true", "quarantine_days is true: expected a number of days"),
        ("lease_secs: 0", "lease_secs is 0: expected a number of seconds, more than 0"),
        ("debug: maybe", "debug is \"maybe\": expected true or false"),
        ("time_zone: \"UTC'; drop\"", "time_zone is \"UTC'; drop\": expected a time zone name"),
        ("quarantine_state: BROKEN", "quarantine_state is \"BROKEN\": expected DISABLED or ACTIVE"),
        ("quarantine_pool: --all", "quarantine_pool is \"--all\": expected a name"),
        ("repack_mode: copy", "repack_mode is \"copy\": expected move or move_and_add_copies"),
        ("repack_buffer_url: /eos", "repack_buffer_url is \"/eos\": expected a url"),
        ("max_files_to_select: 0", "max_files_to_select is 0: expected a whole number from 1"),
        ("logging: 5", "logging is 5: expected a section"),
        ("logging: {log_dir: logs}", "logging.log_dir is \"logs\": expected a path that begins with '/'"),
        ("logging: {rotation_max_size: 1X}", "logging.rotation_max_size is \"1X\": expected a size"),
        ("logging: {rotation_max_size: 99999999T}", "logging.rotation_max_size is \"99999999T\": expected a size"),
        ("logging: {rotation_keep_files: -1}", "logging.rotation_keep_files is -1: expected a whole number"),
        ("logging: {date_format: '%Q'}", "logging.date_format is \"%Q\": expected a date format"),
        ("database: {host: 'a b'}", "database.host is \"a b\": expected a host name"),
        ("database: {host: 'h:5432'}", "database.host is \"h:5432\": expected a host name"),
        ("database: {port: 70000}", "database.port is 70000: expected a whole number from 1 to 65535"),
        ("database: {port: x}", "database.port is \"x\": expected a whole number from 1 to 65535"),
        ("database: {name: ''}", "database.name is \"\": expected text"),
        ("database: {username: []}", "database.username is a list: expected text"),
        ("database: {password: 12345}", "database.password is ***: expected text, put quotes around it"),
        ("database: {repack_table_name: 'a\"b'}", "database.repack_table_name is \"a\"b\": expected a table name"),
        ("database: {sslmode: always}", "database.sslmode is \"always\": expected disable or prefer or"),
        ("database: {sslcert: /c}", "database.sslcert: expected sslcert and sslkey together"),
        (
            "broker: {url: 'amqp://h', sslrootcert: /ca}",
            "broker.sslrootcert: is for TLS, but broker.url begins with amqp://",
        ),
        ("broker: {url: 'amqps://h', sslkey: /k}", "broker.sslkey: expected sslcert and sslkey together"),
        ("broker: {url: 'amqps://h', sslrootcert: ca.pem}", "broker.sslrootcert is \"ca.pem\": expected a path"),
        (
            "cta-ops-repack-0-scan: {tape_usage_threshold: 40}",
            "cta-ops-repack-0-scan.tape_usage_threshold is 40: expected a number from 0 to 1",
        ),
        (
            "cta-ops-repack-0-scan: {ignore_pools: quarantine}",
            "cta-ops-repack-0-scan.ignore_pools is \"quarantine\": expected a list",
        ),
        (
            "cta-ops-repack-2-start: {existing_files_on_tape: /a/b}",
            "cta-ops-repack-2-start.existing_files_on_tape is \"/a/b\": expected the path",
        ),
        (
            "cta-ops-repack-2-start: {existing_files_on_tape: /a/$TAPE/b}",
            "cta-ops-repack-2-start.existing_files_on_tape is",
        ),
        (
            "cta-ops-repack-2-start: {cleanup_pattern: '[a'}",
            "cta-ops-repack-2-start.cleanup_pattern is \"[a\": expected a pattern",
        ),
        ("default_priority: 12", "default_priority is 12: expected one of priorities: 10, 11, 49, 50"),
        ("default_priority: x", "default_priority is \"x\": expected a whole number"),
        ("priorities: {}", "priorities: expected at least one priority"),
        (
            "priorities: {10: {name: a, mount_policy: '', default_dst_pool_prefix: c}}",
            "priorities.10.mount_policy is \"\": expected text",
        ),
        (
            "priorities: {10: {name: a, default_dst_pool_prefix: c}}",
            "priorities.10.mount_policy: missing, every priority needs it",
        ),
        (
            "priorities: {x: {name: a, mount_policy: b, default_dst_pool_prefix: c}, 10: {name: a, mount_policy: b, default_dst_pool_prefix: c}}",
            "priorities.x: expected a whole number from 0 to 32767 as key",
        ),
        (
            "cta_admin: {timeout_secs: 9000}\nlease_secs: 10000",
            "cta_admin.list_timeout_secs is 7200: expected at least timeout_secs",
        ),
        ("retry: {max_attempts: 0}", "retry.max_attempts is 0: expected a whole number from 1"),
        (
            "retry: {first_delay_secs: 10, max_delay_secs: 5}",
            "retry.max_delay_secs is 5: expected at least first_delay_secs",
        ),
        ("broker:", "broker.url: missing; leave the whole section out"),
        ("broker: {prefix: a}", "broker.url: missing; leave the whole section out"),
        ("broker: {url: 'http://h'}", "broker.url is \"***\": expected a url such as amqp://"),
        ("broker: {url: 'amqp://h', prefix: a.b}", "broker.prefix is \"a.b\": expected 1 to 100 letters"),
        (
            "cta-ops-repack-producer: {metrics_listen: 9187}",
            "cta-ops-repack-producer.metrics_listen is 9187: expected an address",
        ),
        (
            "cta-ops-repack-worker: {concurrency: 0}",
            "cta-ops-repack-worker.concurrency is 0: expected a whole number from 1",
        ),
        (
            "cta-ops-repack-worker: {stages: [start, scan]}",
            "cta-ops-repack-worker.stages is a list: expected a list with some of start",
        ),
        ("cta-ops-repack-worker: {stages: []}", "cta-ops-repack-worker.stages is a list: expected"),
        ("cta-ops-repack-worker: {stages: [end, end]}", "cta-ops-repack-worker.stages is a list: expected"),
    ] {
        let error = error(lines);
        let text = error.split_once(": ").unwrap().1;
        assert!(error.starts_with("line ") && text.starts_with(expected), "{lines}\n  {error}\n  {expected}");
    }
}

#[test]
fn all_problems_are_reported_in_one_run_in_the_order_of_the_lines() {
    let problems = parse(
        &ours("max_active_repacks: x\nstray: 1\ndatabase: {port: 0, host: ''}\nquarantine_dais: 3\nlease_secs: 1"),
        &no_env,
    )
    .unwrap_err();
    let lines: Vec<_> = problems.errors.iter().map(|problem| problem.line.unwrap()).collect();
    assert_eq!((lines.as_slice(), problems.warnings.len()), (&[3, 5, 5, 6, 7][..], 1));
    let text = Problems { file: Some("/etc/x.yaml".into()), ..problems }.to_string();
    assert!(text.starts_with("configuration /etc/x.yaml has 5 problems\n  line 3: max_active_repacks is"), "{text}");
    assert!(text.contains("\n  warning: line 4: stray: "), "{text}");
}

#[test]
fn the_lease_outlasts_the_longest_changing_command_by_a_tenth_and_at_least_5_seconds() {
    let timed = |timeout: u64, lease: u64| format!("cta_admin: {{timeout_secs: {timeout}}}\nlease_secs: {lease}");
    assert_eq!(settings(&timed(100, 110)).lease, Duration::from_secs(110));
    assert!(error(&timed(100, 109)).starts_with("line 4: lease_secs is 109: expected at least 110 seconds"));
    assert_eq!(settings(&timed(10, 15)).lease, Duration::from_secs(15));
    assert!(error(&timed(10, 14)).starts_with("line 4: lease_secs is 14: expected at least 15 seconds"));
    assert!(error("cta_admin: {timeout_secs: 400}").starts_with("lease_secs is 300: expected at least 440 seconds"));
}

#[test]
fn a_cleanup_pattern_that_would_delete_other_files_is_refused() {
    assert!(
        error("cta-ops-repack-2-start: {cleanup_pattern: '*'}").contains("it would delete /var/log/cta-ops/repack/")
    );
}

#[test]
fn broken_yaml_names_the_line_and_quotes_nothing() {
    let text = ours("database: {password: hunter2\nhost: [");
    let error = &errors(&text)[0];
    assert!(error.starts_with("line ") && error.contains("expected YAML, but: "), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    assert_eq!(errors("a: 1\n---\nb: 2\n").len(), 1);
}

#[test]
fn environment_wins_over_file_and_file_over_inline() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p");
    std::fs::write(&file, "file\n").unwrap();
    let inline = "database: {password: inline}\nbroker: {url: 'amqp://u:inl%69ne@h/v'}".to_owned();
    let with_file = format!(
        "database: {{password: inline, password_file: {0}}}\nbroker: {{url: 'amqp://u:inline@h/v', password_file: {0}}}",
        file.display()
    );
    let env =
        |name: &str| ["CTA_OPS_DATABASE_PASSWORD", "CTA_OPS_BROKER_PASSWORD"].contains(&name).then(|| "env".to_owned());
    let empty = |_: &str| Some(String::new());
    type Env<'e> = &'e dyn Fn(&str) -> Option<String>;
    let cases: [(&str, Env<'_>, &str); 4] = [
        (&inline, &no_env, "inline"),
        (&with_file, &no_env, "file"),
        (&with_file, &env, "env"),
        (&with_file, &empty, "file"),
    ];
    for (lines, env, expected) in cases {
        let settings = parse(&ours(lines), env).unwrap().settings;
        let broker = settings.broker.unwrap();
        assert_eq!(settings.database.password.unwrap().reveal(), expected);
        assert_eq!((broker.password.unwrap().reveal(), broker.url.as_str()), (expected, "amqp://u@h/v"));
    }
    assert_eq!(settings("database: {password: ''}").database.password, None);
    let missing = error("database: {password_file: /nowhere/at/all}");
    assert!(
        missing.starts_with("line 3: database.password_file is \"/nowhere/at/all\": expected a readable file"),
        "{missing}"
    );
}

#[test]
fn no_secret_is_printed_whatever_is_wrong_around_it() {
    let texts = [
        ours("database: {password: hunter2}\nbroker: {url: 'amqps://u:hunter2@h/v'}"),
        ours("database: {password: [hunter2]}"),
        ours("database: {pasword: hunter2, passwort: hunter2, secret_x: hunter2}"),
        ours("broker: {url: 'amqp://u:hunter2@'}"),
        ours("broker: {url: 'amqp://u:hunter2/x@h'}"),
        ours("broker: {url: 'amqp://u:hunter2%zz@h'}"),
        ours("broker: {url: 'amqp:u:hunter2@h'}"),
        ours("broker: {url: ['amqp://u:hunter2@h']}"),
        ours("broker: {password: hunter2, url: 'amqp://h'}"),
        ours("database: {host: 'postgres://u:hunter2@h'}\nrepack_buffer_url: 'root ://u:hunter2@h'"),
        ours("database: {password: hunter2}\ndatabase: {password: hunter2}"),
        ours("database: {password: \"hunter2"),
        ours("database: {password: !x hunter2, password_file: /nowhere}"),
    ];
    for text in texts {
        let printed = match parse(&text, &no_env) {
            Ok(loaded) => format!("{loaded:?} {:?}", loaded.warnings),
            Err(problems) => format!("{problems} {problems:?}"),
        };
        assert!(!printed.contains("hunter2"), "{text}\n{printed}");
    }
}

#[test]
fn a_file_with_a_password_that_everybody_can_read_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let keys = |text: &str, mode: u32| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let loaded = load(&path).unwrap();
        assert_eq!(loaded.file.as_deref(), Some(path.as_path()));
        loaded.warnings.into_iter().map(|warning| warning.key).collect::<Vec<_>>()
    };
    let secret = ours("database: {password: hunter2}\nbroker: {url: 'amqp://u:hunter2@h'}");
    assert_eq!(keys(&secret, 0o644), ["database.password", "broker.url"]);
    assert_eq!(keys(&secret, 0o640), [] as [&str; 0]);
    assert_eq!(keys(EXAMPLE, 0o644), [] as [&str; 0]);
    let file = dir.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o604)).unwrap();
    assert_eq!(
        keys(&ours(&format!("database: {{password_file: {}}}", file.display())), 0o644),
        ["database.password_file"]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("binary");
    std::fs::write(&binary, b"tools: \xff").unwrap();
    for (path, expected) in [
        (dir.path().join("missing"), "cannot be read: No such file"),
        (dir.path().to_owned(), "is not a file"),
        (binary, "is not UTF-8 text"),
        (PathBuf::from("/dev/zero"), "is not a file"),
    ] {
        let text = load(&path).unwrap_err().to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains(expected), "{text}");
    }
}

#[test]
fn the_destination_pool_is_prefix_and_suffix_and_what_the_map_lacks_is_named() {
    let mapped = loaded(ATRESYS).settings;
    assert_eq!(mapped.destination_pool(10, "IBM1L8", "LTO7M").unwrap(), "tolabel_IBM1L7");
    assert_eq!(mapped.destination_pool(50, "IBM1L9", "LTO9").unwrap(), "erase_IBM1L9");
    assert!(
        mapped.destination_pool(10, "NOLIB", "LTO9").unwrap_err().contains("the library is missing in lib_to_pool_map")
    );
    assert!(mapped.destination_pool(10, "IBM1L9", "LTO8").unwrap_err().contains("'IBM1L9' and media type 'LTO8'"));
    assert!(mapped.destination_pool(12, "IBM1L9", "LTO9").unwrap_err().contains("which has 10, 11, 49, 50"));
    assert_eq!(Settings::default().destination_pool(11, "ANY", "LTO9").unwrap(), "erase_LTO9");
}

#[test]
fn an_odd_suffix_is_left_out_with_a_warning() {
    let text = ours("tape: {lib_to_pool_map: {A: {X: '', Y: [1], Z: _3}}}");
    assert_eq!(warnings(&text).len(), 2);
    let settings = loaded(&text).settings;
    assert!(settings.destination_pool(10, "A", "X").is_err());
    assert_eq!(settings.destination_pool(10, "A", "Z").unwrap(), "tolabel_3");
}

#[test]
fn a_listing_is_named_after_date_and_tape() {
    let vid = "V01007".parse().unwrap();
    let date = chrono::NaiveDate::from_ymd_opt(2026, 1, 31).unwrap();
    assert_eq!(
        Settings::default().listing_path(&vid, date),
        PathBuf::from("/var/log/cta-ops/repack/repack-tapefile-2026-01-31-V01007.txt")
    );
}

#[test]
fn both_front_ends_have_the_common_configuration_unless_told_otherwise() {
    let s = settings("tape: {cta-admin_config: /a}\ncta_admin: {repack_config: /b}");
    assert_eq!((s.cta_admin.user_config, s.cta_admin.repack_config), (Some("/a".into()), Some("/b".into())));
    assert_eq!(settings("tape: {cta-admin_config: }").cta_admin.user_config, None);
}

#[test]
fn metrics_can_be_switched_off() {
    assert_eq!(settings("cta-ops-repack-worker: {metrics_listen: }").worker.metrics_listen, None);
}

/// Every key of the example, replaced by something else: the easiest way to reach every conversion.
fn example_with(line: usize, value: &str) -> String {
    let replaced = |(n, text): (usize, &str)| match text.split_once(": ") {
        Some((key, _)) if n == line && !key.trim_start().starts_with('#') => format!("{key}: {value}\n"),
        _ => format!("{text}\n"),
    };
    EXAMPLE.lines().enumerate().map(replaced).collect()
}

fn yaml_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i128>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|text| format!("{text:?}")),
        "[a-z_%$/*: .-]{0,12}",
        Just(String::new()),
        Just(".nan".to_owned()),
        Just("-.inf".to_owned()),
        Just("1e308".to_owned()),
        Just("18446744073709551616".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec(("[a-z0-9_]{0,6}", inner), 0..4).prop_map(|items| {
                let items: Vec<_> = items.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
                format!("{{{}}}", items.join(", "))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(512), ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), indent in "[ a-z:\\-\\[\\]{}&*!|>'\"#\n\t]{0,80}") {
        let _ = parse(&text, &no_env);
        let _ = parse(&indent, &no_env);
        let _ = parse(&ours(&text), &no_env);
        let _ = parse(&ours(&indent), &no_env);
    }

    #[test]
    fn any_value_at_any_key_never_panics_and_what_is_wrong_fits_on_a_line_each(
        line in 0..EXAMPLE.lines().count(),
        value in yaml_value(),
    ) {
        if let Err(problems) = parse(&example_with(line, &value), &no_env) {
            prop_assert!(!problems.errors.is_empty());
            for problem in &problems.errors {
                prop_assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
            }
        }
    }

    #[test]
    fn a_table_name_that_is_accepted_is_nothing_but_a_name(text in any::<String>(), plain in "[A-Za-z_.\"'; ]{0,12}") {
        for text in [text, plain] {
            if let Ok(name) = TableName::parse(&text) {
                let sql = name.with_suffix("_task");
                prop_assert!(sql.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.\"".contains(&b)));
                prop_assert_eq!(sql.matches('"').count(), if name.schema.is_some() { 4 } else { 2 });
            }
        }
    }
}

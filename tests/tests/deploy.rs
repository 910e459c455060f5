//! What stands in `deploy/`, and every command line in the documents: that it can be typed, that it names what is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser as _;
use journeys::shell::Ran;
use journeys::site::program;
use serde_yaml::Value;

const PROGRAMS: [&str; 3] = ["cta-ops-repack-manager", "cta-ops-repack-producer", "cta-ops-repack-worker"];

fn root() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).canonicalize().expect("the repository")
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files of a directory, by their paths in the repository.
fn files(directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(directory)).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let mut names: Vec<String> = entries
        .map(|entry| format!("{directory}/{}", entry.expect("an entry").file_name().to_string_lossy()))
        .collect();
    names.sort();
    names
}

/// Words as a shell makes them, without what follows a `#`; a `|` and a `>` are words of their own.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(end), _) if end == letter => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '|' | '>') => {
                words.extend(word.take());
                words.extend((letter != ' ').then(|| letter.to_string()));
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    assert!(quote.is_none(), "a quote is left open: {line}");
    words.extend(word);
    words
}

fn is_ours(word: &str) -> bool {
    PROGRAMS.contains(&word) || producer::cli::aliases().iter().any(|alias| alias == word)
}

/// Our commands on a line, without the variables before them and without what their output goes to.
fn commands(line: &str) -> Vec<Vec<String>> {
    let words = words(line);
    let of_pipe = words.split(|word| word == "|").map(|words| {
        let begin = words.iter().position(|word| is_ours(word.trim_start_matches("/usr/bin/")))?;
        let settings_only = words[..begin].iter().all(|word| word.contains('=') || word == "-" || word == "exec:");
        let command = words[begin..]
            .iter()
            .take_while(|word| *word != ">")
            .map(|word| word.trim_start_matches("/usr/bin/").to_owned());
        settings_only.then(|| command.collect())
    });
    of_pipe.flatten().collect()
}

/// A command as it is typed means something to the program.
fn parses(command: &[String], place: &str) {
    let parsed = match command[0].as_str() {
        "cta-ops-repack-manager" => manager::cli::Cli::try_parse_from(command).map(|_| ()),
        "cta-ops-repack-worker" => worker::cli::Cli::try_parse_from(command).map(|_| ()),
        _ => producer::cli::parse(command.iter().map(Into::into).collect()).map(|_| ()),
    };
    if let Err(error) = parsed {
        assert_eq!(error.exit_code(), 0, "{place}: {}: {error}", command.join(" "));
    }
}

/// Parses what is found on a line; how many commands there were.
fn all_parse(line: &str, place: &str) -> usize {
    commands(line).iter().inspect(|command| parses(command, place)).count()
}

/// Lines of the code blocks, and what stands between backquotes elsewhere if it is more than a name.
fn typed_in(document: &str) -> Vec<String> {
    // Words that stand for one of several.
    let document = document.replace(" STAGE", " start").replace("--priority N ", "--priority 10 ");
    let mut found = Vec::new();
    for (number, block) in document.split("```").enumerate() {
        if number % 2 == 1 {
            found.extend(block.lines().skip(1).map(str::to_owned));
        } else {
            found.extend(block.split('`').skip(1).step_by(2).filter(|span| span.contains(' ')).map(str::to_owned));
        }
    }
    found.retain(|line| line.contains("cta-ops-repack-") && !line.contains("...") && !line.contains('\n'));
    found
}

#[test]
fn every_command_line_in_the_documents_can_be_typed() {
    let mut documents: Vec<String> = files("docs").into_iter().filter(|name| name.ends_with(".md")).collect();
    documents.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "deploy/rabbitmq/README.md"].map(str::to_owned));
    let count: usize = documents
        .iter()
        .map(|name| typed_in(&text(name)).iter().map(|line| all_parse(line, name)).sum::<usize>())
        .sum();
    assert!(count >= 40, "only {count} commands were found");
}

#[test]
#[should_panic(expected = "--no-such-option")]
fn a_command_that_cannot_be_typed_is_found() {
    let document = "see `cta-ops-repack-manager ls --no-such-option`";
    assert_eq!(typed_in(document).iter().map(|line| all_parse(line, "here")).sum::<usize>(), 1);
}

#[test]
fn every_unit_starts_a_program_as_it_can_be_called_and_a_deploy_kills_nothing() {
    let mut services = 0;
    for unit in files("deploy/systemd").into_iter().filter(|name| name.ends_with(".service")) {
        let content = text(&unit);
        let value = |key: &str| {
            let found = content.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("{unit} has no {key}"))
        };
        for instance in ["start", "end", "quarantine", "reclaim", "finish", "monitor", "tick"] {
            let command =
                value("ExecStart").replace("%i", instance).replace("$WORKER_ARGUMENTS", &worker_arguments(&content));
            assert_eq!(all_parse(&command, &unit), 1, "{unit}");
        }
        assert_eq!((value("User"), value("Group"), value("KillMode")), ("cta-ops", "cta-ops", "mixed"), "{unit}");
        let minutes: u64 = value("TimeoutStopSec").strip_suffix("min").expect("minutes").parse().expect("a number");
        let longest = common::settings::Settings::default().cta_admin.timeout;
        assert!(minutes * 60 > 3 * longest.as_secs(), "{unit}: a command may take {longest:?}");
        if value("Type") == "notify" {
            assert_eq!((value("NotifyAccess"), value("RestartPreventExitStatus")), ("main", "2"), "{unit}");
            value("WatchdogSec");
        }
        services += 1;
    }
    assert_eq!(services, 3);
}

/// What implies NoNewPrivileges in a unit with a `User=`, whatever that says itself (`systemd.exec(5)`, systemd 252).
const IMPLY_NO_NEW_PRIVILEGES: [&str; 16] = [
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "NoNewPrivileges",
    "PrivateDevices",
    "ProtectClock",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "SystemCallArchitectures",
    "SystemCallFilter",
    "SystemCallLog",
];

#[test]
fn the_example_for_postfix_takes_back_all_that_keeps_its_sendmail_from_its_group() {
    let example = text("deploy/mail/postdrop.conf");
    let set = |text: &str, key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned));
        value.filter(|value| !value.is_empty() && value != "no")
    };
    for unit in ["cta-ops-repack-producer", "cta-ops-repack-job@"].map(|name| format!("deploy/systemd/{name}.service"))
    {
        let content = text(&unit);
        for key in IMPLY_NO_NEW_PRIVILEGES.into_iter().filter(|key| set(&content, key).is_some()) {
            assert!(example.lines().any(|line| line.starts_with(&format!("{key}="))), "{unit}: {key} still forbids it");
            assert_eq!(set(&example, key), None, "{key}");
        }
        assert_eq!(set(&content, "ProtectSystem").as_deref(), Some("strict"));
    }
    assert_eq!(set(&example, "ReadWritePaths").as_deref(), Some("-/var/spool/postfix"));
    // Both ways are in the packages, and where the document says.
    assert!(text("deploy/package/build").contains(" logging mail; do"));
    for name in ["postdrop.conf", "msmtprc"] {
        assert!(text("docs/operations.md").contains(&format!("/usr/share/cta-ops-repack/mail/{name}")), "{name}");
    }
}

/// The example in the unit of the worker.
fn worker_arguments(unit: &str) -> String {
    let example = unit.lines().find_map(|line| line.strip_prefix("#   WORKER_ARGUMENTS="));
    example.unwrap_or_default().to_owned()
}

#[test]
fn each_of_several_workers_of_a_host_can_have_arguments_of_its_own() {
    let unit = text("deploy/systemd/cta-ops-repack-worker@.service");
    assert!(worker_arguments(&unit).contains("--metrics-listen 127.0.0.1:"));
    // Unset by default, and the file of the instance has the last word.
    let lines: Vec<&str> =
        unit.lines().filter(|line| line.starts_with("Environment") || line.starts_with("ExecStart")).collect();
    assert_eq!(
        lines,
        [
            "ExecStart=/usr/bin/cta-ops-repack-worker $WORKER_ARGUMENTS",
            "Environment=WORKER_ARGUMENTS=",
            "EnvironmentFile=-/etc/cta-ops/repack.env",
            "EnvironmentFile=-/etc/cta-ops/repack-worker-%i.env",
        ]
    );
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    // It looks whether the programs are there, so they are the ones that were built.
    let directory = tempfile::tempdir().expect("a directory");
    let built = program("cta-ops-repack-producer");
    let built = format!("{}/", built.parent().expect("a directory").display());
    for unit in files("deploy/systemd") {
        let name = Path::new(&unit).file_name().expect("a name");
        std::fs::write(directory.path().join(name), text(&unit).replace("/usr/bin/", &built)).expect("a unit");
    }
    // With the drop-in for the sendmail of Postfix, too.
    for unit in ["cta-ops-repack-producer.service", "cta-ops-repack-job@.service"] {
        let drop_in = directory.path().join(format!("{unit}.d"));
        std::fs::create_dir(&drop_in).expect("a directory");
        std::fs::write(drop_in.join("mail.conf"), text("deploy/mail/postdrop.conf")).expect("a drop-in");
    }
    let verified = |name: &str| {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).arg(directory.path().join(name));
        let ran = Ran::of(command.env("SYSTEMD_UNIT_PATH", format!("{}:", directory.path().display())));
        // Units of the system itself are not ours to judge.
        let ours: Vec<String> =
            ran.stderr.lines().filter(|line| line.contains("cta-ops-repack")).map(str::to_owned).collect();
        (ran.exit, ours)
    };
    for name in [
        "cta-ops-repack.target",
        "cta-ops-repack-producer.service",
        "cta-ops-repack-worker@1.service",
        "cta-ops-repack-job@tick.service",
        "cta-ops-repack-job@reclaim.timer",
    ] {
        assert_eq!(verified(name), (Some(0), Vec::new()), "{name}");
    }
    let wrong = text("deploy/mail/postdrop.conf").replace("LockPersonality=no", "LockPersonality=perhaps");
    std::fs::write(directory.path().join("cta-ops-repack-producer.service.d/mail.conf"), wrong).expect("a drop-in");
    assert!(!verified("cta-ops-repack-producer.service").1.is_empty(), "the drop-in is read");
    let wrong = text("deploy/systemd/cta-ops-repack-producer.service").replace("KillMode=mixed", "KillMode=never");
    std::fs::write(directory.path().join("cta-ops-repack-wrong.service"), wrong).expect("a unit");
    assert!(!verified("cta-ops-repack-wrong.service").1.is_empty(), "what is wrong is seen");
}

#[test]
fn cron_and_rundeck_run_commands_that_can_be_typed() {
    let crontab = text("deploy/cron/cta-ops-repack");
    let mut jobs = 0;
    for line in crontab
        .lines()
        .map(|line| line.trim_start_matches('#'))
        .filter(|line| line.contains(" cta-ops cta-ops-repack-"))
    {
        let command = line.split_once(" cta-ops ").expect("the user").1;
        assert_eq!(line.split(' ').position(|word| word == "cta-ops"), Some(5), "five fields of time: {line}");
        jobs += all_parse(command, "the crontab");
    }
    assert!(jobs >= 9, "{jobs}");

    let rundeck = yaml("deploy/rundeck/cta-ops-repack.yaml");
    let mut names = BTreeSet::new();
    for job in rundeck.as_sequence().expect("a list of jobs") {
        assert_eq!(job["multipleExecutions"], Value::Bool(false));
        for command in job["sequence"]["commands"].as_sequence().expect("commands") {
            let line = command["exec"].as_str().expect("a line").replace("${option.vids}", "V01007 V01008");
            assert!(all_parse(&line, "a job of Rundeck") >= 1, "{line}");
        }
        assert!(names.insert(job["name"].as_str().expect("a name")), "{names:?}");
    }
    for alias in producer::cli::aliases() {
        assert!(text("deploy/rundeck/cta-ops-repack.yaml").contains(&alias), "{alias} is no job");
        assert!(crontab.contains(&alias), "{alias} is in no crontab");
        assert!(text("deploy/package/build").contains(&alias), "{alias} is in no package");
    }
}

#[test]
fn the_containers_run_our_programs_unprivileged_and_name_files_that_are_there() {
    let compose = yaml("deploy/compose/compose.yaml");
    let here = root().join("deploy/compose");
    // `<<` is resolved by the engine; here by hand.
    let program = &compose["x-program"];
    assert_eq!(program["read_only"], Value::Bool(true));
    assert_eq!(program["cap_drop"][0], "ALL");
    assert!(
        here.join(program["build"]["context"].as_str().expect("a path"))
            .join(program["build"]["dockerfile"].as_str().expect("a path"))
            .is_file()
    );
    let mut ours = 0;
    for (name, service) in compose["services"].as_mapping().expect("services") {
        let name = name.as_str().expect("a name");
        if service.get("<<").is_some() {
            ours += all_parse(&line(&service["command"]), name);
        } else {
            assert!(service["healthcheck"]["test"].is_sequence(), "{name} is asked for its health");
        }
        let test = line(&service["healthcheck"]["test"]);
        all_parse(test.trim_start_matches("CMD "), name);
        for (other, _) in service["depends_on"].as_mapping().into_iter().flatten() {
            assert!(compose["services"].get(other).is_some(), "{name} waits for {other:?}");
        }
        for volume in service["volumes"].as_sequence().into_iter().flatten().filter_map(Value::as_str) {
            let from = volume.split(':').next().expect("a place");
            let there = match from.strip_prefix("./") {
                Some(own) => here.join(format!("{own}.example")).is_file(),
                None if from.starts_with("..") => here.join(from).is_file(),
                None => compose["volumes"].get(from).is_some(),
            };
            assert!(there, "{name}: {volume}");
        }
        for secret in service["secrets"].as_sequence().into_iter().flatten() {
            assert!(compose["secrets"].get(secret).is_some(), "{name}: {secret:?}");
        }
    }
    assert_eq!(ours, 3, "migrate, producer, worker");
    let containerfile = text("deploy/compose/Containerfile");
    assert!(containerfile.contains("\nUSER cta-ops\n"));
    for program in PROGRAMS {
        assert!(containerfile.contains(&format!("/src/target/release/{program} ")), "{program}");
    }
    // The example for it is good, but for the secrets, which are not here.
    let example = text("deploy/compose/cta-ops-config.yaml.example");
    let example: String =
        example.lines().filter(|line| !line.contains("password_file")).map(|line| format!("{line}\n")).collect();
    let loaded = common::settings::parse(&example, &|_| None).expect("a good configuration");
    assert!(loaded.warnings.is_empty() && loaded.settings.broker.is_some(), "{:?}", loaded.warnings);
}

fn line(words: &Value) -> String {
    let words = words.as_sequence().into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}

/// The table of keys, made of the commented example.
fn keys(example: &str) -> String {
    let (mut table, mut path, mut comments) = (String::new(), Vec::<(usize, String)>::new(), Vec::new());
    for line in example.lines() {
        let body = line.trim();
        let mut indent = line.len() - line.trim_start().len();
        if body.is_empty() {
            comments.clear();
            continue;
        }
        // `# text` is a comment, `#key:` and `#  key:` are keys without a value by default.
        let (body, optional) = match body.strip_prefix('#') {
            None => (body, false),
            Some(rest) if rest.is_empty() || (rest.starts_with(' ') && !rest.starts_with("  ")) => {
                comments.push(rest.trim());
                continue;
            }
            Some(rest) => {
                indent += rest.len() - rest.trim_start().len();
                (rest.trim_start(), true)
            }
        };
        if let Some(comment) = body.strip_prefix('#') {
            comments.push(comment.trim());
            continue;
        }
        let Some((key, value)) = body.split_once(':') else { continue };
        let value = value.trim();
        while path.last().is_some_and(|(outer, _)| *outer >= indent) {
            path.pop();
        }
        let example_only = path.iter().any(|(_, key)| key == "lib_to_pool_map" || key == "priorities");
        let what = comments.join(" ").replace('|', "\\|");
        let says = !what.is_empty() || !value.is_empty();
        if says && !example_only {
            let full: Vec<&str> = path.iter().map(|(_, key)| key.as_str()).chain([key]).collect();
            let full = full.join(".");
            let full = full.strip_prefix("tools.cta-ops-repack-automation.").unwrap_or(&full);
            let default = match (optional, value.is_empty()) {
                (false, true) => String::new(),
                (false, false) => format!("`{value}`"),
                (true, true) => "none".to_owned(),
                (true, false) => format!("none; such as `{value}`"),
            };
            table.push_str(&format!("| `{full}` | {default} | {what} |\n"));
        }
        comments.clear();
        if value.is_empty() {
            path.push((indent, key.to_owned()));
        }
    }
    table
}

#[test]
fn the_table_of_keys_is_that_of_the_example() {
    const BEGIN: &str = "| key | default | what |\n|---|---|---|\n";
    const END: &str = "\n<!-- end of keys -->";
    let document = text("docs/configuration.md");
    let (before, rest) = document.split_once(BEGIN).expect("the table");
    let (table, after) = rest.split_once(END).expect("its end");
    let expected = keys(&text("deploy/cta-ops-config.yaml"));
    assert!(expected.lines().count() > 50);
    if table != expected && std::env::var_os("REPACK_WRITE_DOCS").is_some() {
        std::fs::write(root().join("docs/configuration.md"), format!("{before}{BEGIN}{expected}{END}{after}"))
            .expect("written");
        return;
    }
    assert_eq!(table, expected, "run this test with REPACK_WRITE_DOCS=1 to write the table anew");
}

#[test]
fn the_readme_leads_to_every_document() {
    let readme = text("README.md");
    for document in files("docs").into_iter().filter(|name| name.ends_with(".md")) {
        assert!(readme.contains(&format!("]({document}")), "{document}");
    }
}

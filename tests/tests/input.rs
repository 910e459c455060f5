//! What a person, a file or a broken `cta-admin` can get wrong: a clear error, the right exit code, and nothing changed. And what
//! they get right: ATRESYS's nine commands, one after the other.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cta_sim::world::TapeState;
use cta_sim::{Action, Order, World};
use journeys::shell::{MANAGER, PRODUCER, Ran, called, dump, file};
use journeys::site::{PATIENCE, Site, program};
use serde_json::Value;

const PREPARE: &str = "cta-ops-repack-1-prepare";
const START: &str = "cta-ops-repack-2-start";

/// A site where something could be changed by every command: a tape is due at each stage, and one could be entered.
struct Busy {
    site: Site,
    before: String,
}

/// Everything of CTA that a command can change.
fn cta(site: &Site) -> String {
    let world = site.world();
    let tapes: Vec<String> = world
        .tapes
        .iter()
        .map(|(vid, tape)| format!("{vid} {} {} {} {}\n", tape.state.name(), tape.pool, tape.full, tape.live_files()))
        .collect();
    let requests: Vec<&str> = world.requests.iter().map(|request| request.vid.as_str()).collect();
    format!("{}{requests:?}", tapes.concat())
}

async fn everything(site: &Site) -> String {
    format!("{}{}{:?}", dump(site).await, cta(site), site.changes())
}

impl Busy {
    async fn new() -> Busy {
        let site = Site::new(World::new().with_full_tapes(7)).await;
        std::fs::create_dir(site.dir.path().join("log")).expect("a directory");
        site.enter(&["V01001", "V01002", "V01003", "V01004", "V01005"]).await;
        // All but the first are said to be further than they are, and their tapes are made so.
        site.edit(|world| {
            for (vid, pool) in [("V01003", "pool_beta_raw"), ("V01004", "quarantine"), ("V01005", "quarantine")] {
                let tape = world.tapes.get_mut(vid).expect("it is there");
                tape.files.clear();
                tape.pool = pool.to_owned();
                tape.state = TapeState::Disabled;
            }
            let tape = world.tapes.get_mut("V01005").expect("it is there");
            (tape.full, tape.occupancy, tape.last_fseq) = (false, 0, 0);
        });
        for (vid, columns) in [("V01002", 1), ("V01003", 2), ("V01004", 3), ("V01005", 4)] {
            let set: Vec<String> = ["started", "repacked", "quarantined", "reclaimed"]
                .iter()
                .take(columns)
                .map(|column| format!("{column} = entered"))
                .collect();
            site.sql(&format!("UPDATE repack_status SET {} WHERE tape = '{vid}'", set.join(", "))).await;
        }
        let mut busy = Busy { site, before: String::new() };
        // The rows were edited: a tick that cannot do anything follows that.
        busy.site.edit(|world| world.down = true);
        busy.run(PRODUCER, &["tick"]).ended(1);
        busy.site.edit(|world| world.down = false);
        busy.before = everything(&busy.site).await;
        busy
    }

    /// The configuration as it should be.
    fn good(&self) -> PathBuf {
        self.site.configuration()
    }

    /// The same with something changed in the tool's section, or elsewhere.
    fn changed(&self, change: impl FnOnce(&mut Value)) -> PathBuf {
        let mut config: Value =
            serde_json::from_str(&journeys::configuration::text(&self.site.settings)).expect("JSON");
        change(&mut config);
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("changed-{}.yaml", SERIAL.fetch_add(1, Ordering::Relaxed));
        file(&self.site, &name, config.to_string())
    }

    fn with(&self, config: &std::path::Path, name: &str, args: &[&str]) -> Ran {
        Ran::of(called(self.site.dir.path(), name, config).args(args))
    }

    fn run(&self, name: &str, args: &[&str]) -> Ran {
        self.with(&self.good(), name, args)
    }

    #[track_caller]
    fn unchanged(&self, now: &str, after: &str) {
        assert_eq!(now, self.before, "changed by {after}");
    }

    async fn is_unchanged(&self, after: &str) {
        let now = everything(&self.site).await;
        self.unchanged(&now, after);
        let written = std::fs::read_dir(self.site.dir.path()).expect("the directory").flatten();
        for name in written.map(|file| file.file_name().to_string_lossy().into_owned()) {
            assert!(
                !name.contains("tapefile") && !name.contains("repack-end") && !name.contains("monitor.json"),
                "{after} wrote {name}"
            );
        }
    }
}

fn tool(config: &mut Value) -> &mut Value {
    &mut config["tools"]["cta-ops-repack-automation"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_is_misuse_for_every_program_and_changes_nothing() {
    let busy = Busy::new().await;
    let directory = busy.site.dir.path().to_owned();
    let no_text = file(&busy.site, "no-text.yaml", b"tools:\n  cta-ops-repack-automation: \xff\xfe\n");
    let no_yaml = file(&busy.site, "no-yaml.yaml", "tools: [}\n");
    let configs: Vec<(PathBuf, Vec<&str>)> = vec![
        (directory.join("missing.yaml"), vec!["missing.yaml", "No such file"]),
        (directory.clone(), vec![directory.to_str().expect("text"), "is not a file"]),
        (no_text, vec!["no-text.yaml", "UTF-8"]),
        (no_yaml, vec!["no-yaml.yaml", "line 1"]),
    ];
    let programs: [(&str, &[&str]); 8] = [
        ("cta-ops-repack-0-scan", &[]),
        (PREPARE, &["V01006"]),
        (START, &[]),
        ("cta-ops-repack-monitor", &[]),
        (PRODUCER, &["tick"]),
        (PRODUCER, &["run"]),
        (MANAGER, &["requeue", "V01001", "--yes"]),
        (MANAGER, &["migrate"]),
    ];
    for (config, words) in &configs {
        for (name, args) in programs {
            busy.with(config, name, args).ended(2).saying(words);
        }
        let worker = Command::new(program("cta-ops-repack-worker")).arg("-C").arg(config).output().expect("the worker");
        assert_eq!(worker.status.code(), Some(2));
    }
    // Wrong in itself: all of it is named at once.
    let wrong = busy.changed(|config| {
        let tool = tool(config);
        tool["max_active_repacks"] = "many".into();
        tool["quarantine_dayz"] = 3.into();
        tool["database"]["port"] = serde_json::json!([5432]);
        tool["database"]["repack_table_name"] = "x'; DROP TABLE repack_status; --".into();
        tool["cta-ops-repack-0-scan"]["ignore_pools"] = 7.into();
        tool["default_priority"] = 77.into();
    });
    let words = [
        "max_active_repacks",
        "'many'",
        "quarantine_dayz",
        "quarantine_days",
        "port",
        "repack_table_name",
        "ignore_pools",
        "default_priority",
        "77",
    ];
    for (name, args) in programs {
        let ran = busy.with(&wrong, name, args);
        ran.ended(2).saying(&words.map(|word| word.trim_matches('\'')));
        assert_eq!(ran.stdout, "");
    }
    for name in ["a\"b", "x y", "1table", "a.b.c", "", "t;--"] {
        let config = busy.changed(|config| tool(config)["database"]["repack_table_name"] = name.into());
        busy.with(&config, PRODUCER, &["tick"]).ended(2).saying(&["repack_table_name"]);
        busy.with(&config, MANAGER, &["migrate"]).ended(2).saying(&["repack_table_name"]);
    }
    busy.is_unchanged("bad configurations").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_vid_or_no_priority_is_misuse_and_a_small_vid_is_made_large() {
    let busy = Busy::new().await;
    for (args, words) in [
        (&["V01006", "--", "--all"][..], &["'--all'", "not a VID"][..]),
        (&["--all"], &["--all"]),
        (&["V01006", "V01007;rm"], &["'V01007;rm'", "not a VID"]),
        (&["V01006", "../etc/passwd"], &["../etc/passwd", "not a VID"]),
        (&["V01006", "V01007\u{1b}[2J"], &["not a VID"]),
        (&["V01006", "--priority", "77"], &["priority 77", "10, 11, 49, 50"]),
        (&["V01006", "--priority", "high"], &["high"]),
        (&["V01006", "--priority", "99999999"], &["99999999"]),
        (&["V01006", "--responsible", " "], &["responsible"]),
        (&[], &["VID"]),
    ] {
        let ran = busy.run(PREPARE, args);
        ran.ended(2).saying(words);
        assert!(!ran.stderr.contains('\u{1b}') && ran.stdout.is_empty(), "{ran:?}");
    }
    let empty = file(&busy.site, "empty", "");
    let comments = file(&busy.site, "comments", "# V01006\n\n   # later\n");
    let hostile = file(&busy.site, "hostile", "V01006\n--all\nV01007;rm $(reboot)\n");
    for (path, words) in [
        (empty.as_path(), &["names no tape", "empty"][..]),
        (&comments, &["names no tape"]),
        (&hostile, &["'--all'", "V01007;rm", "$(reboot)"]),
        (std::path::Path::new("/no/such/file"), &["/no/such/file", "No such file"]),
        (busy.site.dir.path(), &["directory"]),
    ] {
        busy.run(PREPARE, &["--vidfile", path.to_str().expect("text")]).ended(2).saying(words);
    }
    Ran::reading(called(busy.site.dir.path(), PREPARE, &busy.good()).arg("-"), "V01006 --all\n")
        .ended(2)
        .saying(&["'--all'"]);
    for verb in ["ch", "requeue", "retry-failed", "abort", "rm", "hold", "show", "ls"] {
        let rest: &[&str] = match verb {
            "ch" => &["--mode", "manual", "--yes"],
            "show" | "ls" => &[],
            _ => &["--yes"],
        };
        for bad in ["V01001;rm", "../V01001", "V 01"] {
            busy.run(MANAGER, &[&[verb, bad], rest].concat()).ended(2).saying(&["not a VID"]);
        }
    }
    busy.run(MANAGER, &["ch", "V01001", "--priority", "77", "--yes"]).ended(2).saying(&["77"]);
    busy.is_unchanged("bad words").await;

    busy.run(PREPARE, &["v01006"]).ended(0);
    assert_eq!(busy.site.row("V01006").await.row.expect("a lawful row").priority, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_that_cannot_go_all_the_way_is_refused_with_every_reason_and_nothing_is_entered() {
    let busy = Busy::new().await;
    let no_map = busy.changed(|config| {
        config["global"]["tape"]["lib_to_pool_map"] = serde_json::json!({"IBM2": {"LTO9": "_IBM2L9"}});
    });
    busy.with(&no_map, PREPARE, &["V01006"]).ended(1).saying(&["V01006", "lib_to_pool_map", "IBM1"]);
    let no_pool = busy.changed(|config| {
        config["global"]["tape"]["lib_to_pool_map"] = serde_json::json!({"IBM1": {"LTO9": "_nowhere"}});
        tool(config)["quarantine_pool"] = "no_quarantine".into();
        tool(config)["priorities"]["10"]["mount_policy"] = "no_policy".into();
    });
    for args in [&["V01006"][..], &["V01006", "--dry-run"]] {
        busy.with(&no_pool, PREPARE, args).ended(1).saying(&["tolabel_nowhere", "no_quarantine", "no_policy"]);
    }
    busy.run(PREPARE, &["V09999"]).ended(1).saying(&["V09999", "no tape"]);
    // Scan proposes none of them.
    let scanned = busy.with(&no_map, "cta-ops-repack-0-scan", &[]);
    assert_eq!(scanned.ended(0).stdout, "");
    busy.is_unchanged("tapes that cannot go all the way").await;
}

/// A `cta-admin` that is none, and what is said of it.
fn broken_clients(busy: &Busy) -> Vec<(PathBuf, &'static str)> {
    let script = |name: &str, text: &str| {
        let path = busy.site.dir.path().join(name);
        let write = Command::new("/bin/sh")
            .args(["-c", "printf '%s' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", text])
            .arg(&path)
            .status();
        assert!(write.expect("a shell").success());
        path
    };
    let plain = script("plain", "#!/bin/sh\n");
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o644)).expect("its rights");
    vec![
        (busy.site.dir.path().join("no-cta-admin"), "no-cta-admin"),
        (busy.site.dir.path().to_owned(), "it is not a file"),
        (plain, "plain"),
        (script("garbage", "#!/bin/sh\nprintf 'gar\\377bage{[\\n'\n"), "something else than a complete list"),
        (script("empty-answer", "#!/bin/sh\nexit 0\n"), ""),
        (script("cut", "#!/bin/sh\nprintf '[{\"vid\":\"V01'\n"), ""),
        (script("one", "#!/bin/sh\necho 'cannot reach the front end' >&2; exit 1\n"), "cannot reach the front end"),
        (
            script("two", "#!/bin/sh\necho '[]'; echo 'not authorised to do that' >&2; exit 2\n"),
            "not authorised to do that",
        ),
        (script("unknown", "#!/no/such/interpreter\n"), "unknown"),
        (script("killed", "#!/bin/sh\nkill -9 $$\n"), "signal"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cta_admin_that_does_not_work_fails_the_run_and_stops_no_tape() {
    let mut busy = Busy::new().await;
    for (client, words) in broken_clients(&busy) {
        // The tick before wrote down why the tapes wait.
        busy.before = everything(&busy.site).await;
        let config =
            busy.changed(|config| config["global"]["binaries"]["cta-admin"] = client.display().to_string().into());
        let commands: [(&str, &[&str]); 3] =
            [("cta-ops-repack-0-scan", &[]), (PREPARE, &["V01006"]), (PREPARE, &["V01006", "--dry-run"])];
        for (name, args) in commands {
            let ran = busy.with(&config, name, args);
            assert_eq!(ran.exit, Some(1), "{name} with {}: {ran:?}", client.display());
            ran.saying(&[words, "error"]);
            assert_eq!(ran.stdout, "", "{}", client.display());
        }
        busy.is_unchanged(&format!("scan and prepare with {}", client.display())).await;
        // A tick may write down why it waits, but no tape is stopped and none moves.
        let ran = busy.with(&config, PRODUCER, &["tick", "-j"]);
        assert_eq!(ran.exit, Some(1), "tick with {}: {ran:?}", client.display());
        ran.saying(&[words, "error"]);
        let report = ran.json();
        assert!(!report["trouble"].as_array().expect("a list").is_empty());
        for stage in report["stages"].as_array().expect("a list") {
            assert_eq!(
                (&stage["done"], &stage["stopped"]),
                (&serde_json::json!([]), &serde_json::json!([])),
                "{}: {stage}",
                client.display()
            );
        }
        let rows = "SELECT json_agg(json_build_array(tape, mode, started, repacked, quarantined, reclaimed, finished) ORDER BY tape)::text || (SELECT max(attempts) FROM repack_status_task)::text FROM repack_status";
        let now: String = busy.site.database.client().await.query_one(rows, &[]).await.expect("the rows").get(0);
        assert!(!now.contains("error") && now.ends_with("]0"), "no attempt is counted: {now}");
        assert!(busy.site.changes().is_empty());
    }
    // When it works again, so do we.
    busy.run(PRODUCER, &["tick"]).ended(0);
    assert!(!busy.site.changes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_or_garbage_from_cta_at_a_changing_command_is_told_and_tried_again() {
    for action in [Action::Exit1("lost the connection".to_owned()), Action::Garbage, Action::EmptyStdout] {
        let mut site = Site::new(World::new().with_full_tapes(1)).await;
        site.settings.settle = Duration::from_millis(300);
        site.enter(&["V01001"]).await;
        site.order(Order::once("tape ch", action.clone()).with_argument("REPACKING"));
        let config = site.configuration();
        let begun = Instant::now();
        while site.row("V01001").await.row.expect("a lawful row").state() != common::journey::State::Finished {
            assert!(begun.elapsed() < PATIENCE, "{action:?}: {:?}", site.why("V01001").await);
            Ran::of(called(site.dir.path(), PRODUCER, &config).args(["tick", "-j"])).ended(0);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(site.fired(), [1], "{action:?}");
        assert_eq!(
            site.changes()["V01001"].iter().filter(|change| change.contains("REPACKING")).count(),
            1,
            "{action:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prepare_says_what_it_entered_on_stderr_and_is_quiet_only_in_a_timers_pipe_where_all_went_well() {
    let site = Site::new(World::new().with_full_tapes(4)).await;
    std::fs::create_dir(site.dir.path().join("log")).expect("a directory");
    let config = site.configuration();
    let prepare = || called(site.dir.path(), PREPARE, &config);
    let named = Ran::of(prepare().args(["V01001", "V01002", "V09999"]));
    assert_eq!(named.ended(1).stdout, "", "what scripts read");
    let said: Vec<&str> = named.stderr.lines().collect();
    assert_eq!((said[0].starts_with("V09999 is refused: "), said.len()), (true, 4), "{said:?}");
    assert_eq!(said[1..], ["V01001: entered", "V01002: entered", "2 entered, 1 refused"]);
    let again = Ran::of(prepare().arg("V01001"));
    assert_eq!(again.ended(0).stderr, "V01001: is there already\n0 entered, 1 there already\n");
    let piped = Ran::reading(prepare().arg("-"), "V01003 V01001\n");
    assert_eq!((piped.ended(0).stdout.as_str(), piped.stderr.as_str()), ("", ""));
    let refused = Ran::reading(prepare().arg("-"), "V01004 V09999\n");
    assert_eq!(refused.ended(1).stderr.lines().last(), Some("1 entered, 1 refused"));
    let json = Ran::of(prepare().args(["V01004", "--json"]));
    assert_eq!((json.ended(0).json()["already_there"][0].as_str(), json.stderr.as_str()), (Some("V01004"), ""));
    // A person is named in the history as by the manager, whatever the program.
    Ran::of(called(site.dir.path(), MANAGER, &config).args(["hold", "V01001", "--yes"])).ended(0);
    let client = site.database.client().await;
    let who =
        "SELECT kind, actor FROM repack_status_event WHERE tape = 'V01001' AND kind IN ('entered', 'hold') ORDER BY id";
    let who: Vec<(String, String)> =
        client.query(who, &[]).await.expect("events").iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(who.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(), ["entered", "hold"]);
    assert!(who[0].1.contains('@') && who[0].1 == who[1].1, "{who:?}");
    // At a terminal the log tells of each, and has the last word; on stdout there is still nothing but data.
    let program = called(site.dir.path(), PREPARE, &config);
    let seen =
        Ran::of(Command::new("script").args(["-qec", &format!("{program:?} V01004").replace('"', ""), "/dev/null"]));
    assert!(seen.ended(0).stdout.trim_end().ends_with("0 entered, 1 there already"), "{seen:?}");
    assert_eq!(seen.stdout.matches("V01004 is in the table already").count(), 1, "{seen:?}");
    assert_eq!(seen.stdout.matches("0 entered").count(), 1, "{seen:?}");
    // With the log on stderr the last line is of the log.
    let verbose = Ran::of(prepare().args(["V01004", "-V"]));
    assert!(verbose.ended(0).stderr.trim_end().ends_with("0 entered, 1 there already"), "{verbose:?}");
    assert_eq!(verbose.stderr.matches("0 entered").count(), 1, "{verbose:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_says_what_would_be_done() {
    let busy = Busy::new().await;
    let prepared = busy.run(PREPARE, &["V01006", "V01001", "--dry-run"]);
    assert_eq!(prepared.ended(0).stdout, "V01006: would be entered\nV01001: is there already\n");
    assert_eq!(prepared.stderr, "1 would be entered, 1 there already\n");
    busy.is_unchanged("prepare --dry-run").await;
    let mut would = Vec::new();
    let names = [
        "cta-ops-repack-2-start",
        "cta-ops-repack-3-end",
        "cta-ops-repack-4-quarantine",
        "cta-ops-repack-5-reclaim",
        "cta-ops-repack-6-finish",
    ];
    for name in names {
        let report = busy.run(name, &["--dry-run", "-j"]).ended(0).json();
        would.push(report["stages"][0]["would"].clone());
        busy.is_unchanged(name).await;
    }
    assert_eq!(would, ["V01001", "V01002", "V01003", "V01004", "V01005"].map(|vid| serde_json::json!([vid])));
    // The same from the whole tick, and from the timer's program.
    for verb in ["tick", "run"] {
        let report = busy.run(PRODUCER, &[verb, "--dry-run", "-j"]).ended(0).json();
        let all: Vec<Value> =
            report["stages"].as_array().expect("a list").iter().map(|stage| stage["would"].clone()).collect();
        assert_eq!(all, would);
        busy.is_unchanged(verb).await;
    }
    let monitored = busy.run("cta-ops-repack-monitor", &["--dry-run"]);
    assert!(monitored.ended(0).stdout.contains("5 rows would be added"), "{monitored:?}");
    for args in [
        &["ch", "V01001", "--mode", "manual"][..],
        &["requeue", "V01001"],
        &["hold", "V01001"],
        &["pause", "start"],
        &["rm", "V01005"],
        &["migrate"],
    ] {
        busy.run(MANAGER, &[args, &["--dry-run"]].concat()).ended(0);
        busy.is_unchanged(&format!("{args:?} --dry-run")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nine_commands_of_atresys_take_tapes_from_scan_to_finished() {
    let mut world = World::new().with_full_tapes(4);
    // One too well filled to be chosen.
    let tape = world.tapes.get_mut("V01004").expect("it is there");
    tape.occupancy = tape.cached_bytes;
    let site = Site::new(world).await;
    std::fs::create_dir(site.dir.path().join("log")).expect("a directory");
    let config = site.configuration();
    for name in ["0-scan", "1-prepare", "2-start", "3-end", "4-quarantine", "5-reclaim", "6-finish", "monitor"] {
        // The links, made as an installation has them.
        called(site.dir.path(), &format!("cta-ops-repack-{name}"), &config);
    }
    let script = "set -eu
        cta-ops-repack-0-scan | cta-ops-repack-1-prepare - --responsible maria --reason 'old media'
        for command in 2-start 3-end 4-quarantine 5-reclaim 6-finish monitor; do \"cta-ops-repack-$command\"; done";
    let shell = |script: &str| {
        let mut shell = Command::new("/bin/sh");
        let path = format!("{}:/usr/bin:/bin", site.dir.path().display());
        Ran::of(shell.args(["-c", script]).env("PATH", path).env("CTA_OPS_CONFIG", &config).env_remove("RUST_LOG"))
    };
    let ran = shell(script);
    assert_eq!((ran.ended(0).stdout.as_str(), ran.stderr.as_str()), ("", ""), "a timer's job is quiet");
    let begun = Instant::now();
    // A stage that had to wait for another look has it now.
    while site
        .rows()
        .await
        .iter()
        .any(|row| row.row.as_ref().expect("a lawful row").state() != common::journey::State::Finished)
    {
        assert!(begun.elapsed() < PATIENCE, "{:?}", site.rows().await);
        shell("set -eu; for stage in 2-start 3-end 4-quarantine 5-reclaim 6-finish monitor; do \"cta-ops-repack-$stage\"; done").ended(0);
    }
    let vids: Vec<String> =
        site.rows().await.iter().map(|row| row.row.as_ref().expect("a lawful row").vid.to_string()).collect();
    assert_eq!(vids, ["V01001", "V01002", "V01003"]);
    for vid in &vids {
        let changes = &site.changes()[vid];
        for once in [
            "repack add",
            "repack rm",
            "tape reclaim",
            "tape ch --tapepool quarantine",
            "tape ch --tapepool tolabel_IBM1L9",
        ] {
            assert_eq!(changes.iter().filter(|change| *change == once).count(), 1, "{vid} {once}: {changes:?}");
        }
    }
    assert!(!site.changes().contains_key("V01004"));
    assert_eq!(cta_sim::overlaps(&site.journal()), Vec::<String>::new());
    // What monitoring reads.
    let lines = |path: &std::path::Path| -> Vec<Value> {
        let text = std::fs::read_to_string(path).expect("the file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let mut ended: Vec<String> = lines(&site.settings.repack_end_json_path)
        .iter()
        .map(|line| line["tape"].as_str().expect("a VID").to_owned())
        .collect();
    ended.sort();
    assert_eq!(ended, vids, "a line for each repack");
    let rows = lines(&site.settings.monitor_ls_out);
    let last = &rows[rows.len() - 3..];
    for (row, vid) in last.iter().zip(&vids) {
        assert_eq!((row["tape"].as_str(), row["responsible"].as_str()), (Some(vid.as_str()), Some("maria")));
        assert!(row["finished"].is_string());
    }
    // Scan proposes none of them again, and an empty proposal is nothing to do.
    let again = shell("cta-ops-repack-0-scan | cta-ops-repack-1-prepare -");
    again.ended(0).saying(&["nothing to do"]);
}

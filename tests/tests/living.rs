//! Living with the tool: taking a table over, entering tapes at the desk, completions, manual pages.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::journey::State;
use cta_sim::World;
use journeys::desk::{ACTOR, ATRESYS_TABLE, at_desk};
use journeys::services::{Services, TestDatabase};
use journeys::shell::{MANAGER, Ran, dump, file, of_site};
use journeys::site::{Site, program};
use manager::output::Exit;
use serde_json::{Value, json};

/// Rows at every state, two of them odd.
const LIVE_ROWS: &str = "
    INSERT INTO repack_status VALUES
        ('V01001', '2024-01-01 10:00', NULL, NULL, NULL, NULL, NULL, 1, 2, 3, NULL, 'auto', 10, 'LTO8', 'raw', 'bob'),
        ('V01002', '2024-01-01 10:00', '2024-01-02 10:00', NULL, NULL, NULL, NULL, 1, 2, 3, NULL, 'auto', 10, 'LTO8', 'raw', 'bob'),
        ('V01003', '2024-01-01 10:00', '2024-01-02 10:00', '2024-01-03 10:00', '2024-01-04 10:00', NULL, NULL, 1, 2, 3, NULL, 'error', 77, 'LTO8', 'raw', 'bob'),
        ('V01004', '2024-01-01 10:00', '2024-01-02 10:00', '2024-01-03 10:00', '2024-01-04 10:00', '2024-02-04 10:00', '2024-02-05 10:00', 1, 2, 3, NULL, 'auto', 10, 'LTO8', 'raw', 'bob'),
        ('X00001', '2024-01-01 10:00', NULL, NULL, NULL, NULL, NULL, 1, 2, 3, NULL, 'manual', 10, 'LTO8', 'raw', 'bob'),
        ('ODD1', '2024-01-01 10:00', NULL, '2024-01-02 10:00', NULL, NULL, NULL, 1, 2, 3, NULL, 'auto', 10, 'LTO8', 'raw', 'bob'),
        ('odd 2', '2024-01-01 10:00', NULL, NULL, NULL, NULL, NULL, 1, 2, 3, NULL, 'auto', 10, 'LTO8', 'raw', 'bob');";

/// Every row of the main table with the transaction that wrote it, and its definition.
async fn main_table(database: &TestDatabase) -> String {
    let client = database.client().await;
    let query = "SELECT json_build_array((SELECT json_agg(json_build_array(m.xmin::text, m.ctid::text, m) ORDER BY tape) FROM repack_status m), \
                 (SELECT json_agg(json_build_array(attname, atttypid::regtype, atttypmod, attnotnull) ORDER BY attnum) \
                 FROM pg_attribute WHERE attrelid = 'repack_status'::regclass AND attnum > 0))::text";
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// A site around a table that another program made: nothing of ours is beside it.
async fn live() -> Site {
    let mut site = Site::new(World::new().with_full_tapes(4)).await;
    site.database = Services::get().fresh_database();
    site.settings.database = site.database.settings();
    site.settings.database.table = common::settings::TableName { schema: None, name: "repack_status".to_owned() };
    site.database.client().await.batch_execute(&format!("{ATRESYS_TABLE}{LIVE_ROWS}")).await.unwrap();
    site
}

fn told(list: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let reasons = |told: &Value| told["reasons"].as_array().unwrap().iter().map(text).collect::<Vec<_>>().join("; ");
    list.as_array().unwrap().iter().map(|told| (text(&told["vid"]), reasons(told))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_table_is_taken_over_byte_for_byte_and_doing_it_again_changes_nothing() {
    let site = live().await;
    let before = main_table(&site.database).await;
    let everything = dump(&site).await;
    site.manager("import").await.ended(Exit::Failed).saying(&["--migrate", "manager migrate"]);
    assert_eq!(dump(&site).await, everything);
    let rehearsed = site.manager("import --migrate --dry-run --json").await;
    assert_eq!(rehearsed.ended(Exit::Failed).json()["to_note"], 4, "{rehearsed:?}");
    let implied = site.manager("import --dry-run").await;
    implied.ended(Exit::Failed).saying(&["say --migrate"]);
    assert!(implied.out.contains("would be applied") && implied.out.contains("4 would be noted"), "{implied:?}");
    assert_eq!(dump(&site).await, everything, "a rehearsal leaves nothing");

    let said = site.manager("import --migrate --json").await.ended(Exit::Failed).json();
    assert_eq!(main_table(&site.database).await, before);
    let states = json!({"entered": 2, "started": 1, "quarantined": 1, "finished": 1});
    assert_eq!((&said["rows"], &said["states"], &said["noted"]), (&json!(7), &states, &json!(4)), "{said}");
    assert_eq!(said["modes"], json!({"auto": 3, "error": 1, "manual": 1}));
    let odd = told(&said["odd"]);
    assert_eq!(odd.iter().map(|(vid, _)| vid.as_str()).collect::<BTreeSet<_>>(), BTreeSet::from(["ODD1", "odd 2"]));
    assert!(odd.iter().any(|(_, why)| why.contains("started is not")), "{odd:?}");
    assert!(odd.iter().any(|(_, why)| why.contains("not a VID")), "{odd:?}");
    assert!(said["remarks"][0].as_str().unwrap().contains("priority 77"), "{said}");
    // What was noted is what the first tick would have noted.
    for (vid, stage) in [("V01001", "start"), ("V01002", "end"), ("V01003", "reclaim"), ("X00001", "start")] {
        let row = site.row(vid).await;
        assert_eq!(row.task.unwrap().stage.as_deref(), Some(stage), "{vid}");
        assert_eq!(site.events_of(vid, "row-found").await[0].actor, ACTOR);
    }
    assert!(site.row("V01002").await.task.unwrap().memory.adopt, "the request that is there was theirs to make");
    assert!(site.row("V01004").await.task.is_none(), "what is finished is due for nothing");

    let after = dump(&site).await;
    let again = site.manager("import --json").await.ended(Exit::Failed).json();
    assert_eq!((&again["noted"], &again["to_note"]), (&json!(4), &json!(0)));
    assert_eq!(dump(&site).await, after);
    let text = site.manager("import").await;
    text.saying(&["7 rows: 2 entered, 1 started, 1 quarantined, 1 finished", "error: ODD1: odd row", "as it was"]);
    assert!(site.journal().is_empty(), "CTA is not asked unless that is wanted");

    // The odd rows put right, it is content.
    site.sql("DELETE FROM repack_status WHERE tape IN ('ODD1', 'odd 2')").await;
    site.manager("import").await.ended(Exit::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cta_sees_otherwise_are_told_when_cta_is_asked() {
    let site = live().await;
    site.sql("DELETE FROM repack_status WHERE tape IN ('ODD1', 'odd 2')").await;
    let cta = |words: &str| {
        let mut command = Command::new(&site.settings.cta_admin.program);
        let output = command.args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    };
    cta("tape ch --vid V01001 --state REPACKING --reason by-hand");
    let said = site.manager("import --migrate --cta --json").await.ended(Exit::Failed).json();
    let disagreements = told(&said["disagreements"]);
    let of = |vid: &str| disagreements.iter().find(|(name, _)| name == vid).map(|(_, why)| why.as_str());
    assert!(of("V01001").unwrap().contains("the row says entered, and CTA has it as REPACKING"), "{disagreements:?}");
    assert!(of("V01002").unwrap().contains("has no repack request"), "{disagreements:?}");
    assert!(of("V01003").unwrap().contains("not quarantine"), "{disagreements:?}");
    assert!(of("X00001").unwrap().contains("no tape of this VID"), "{disagreements:?}");
    assert_eq!(disagreements.len(), 4);
    assert_eq!(said["noted"], 4);
    // Away, it is said so, and nothing was noted.
    site.sql("DROP TABLE repack_status_task CASCADE").await;
    site.sql("DELETE FROM repack_status_migration").await;
    site.edit(|world| world.down = true);
    site.manager("import --migrate --cta").await.ended(Exit::Failed).saying(&["asking CTA"]);
    assert_eq!(site.number("SELECT count(*) FROM repack_status_task").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_atresyss_is_refused_with_everything_that_is_wrong() {
    let site = live().await;
    site.sql(
        "ALTER TABLE repack_status DROP COLUMN usage, ALTER started TYPE timestamptz, DROP CONSTRAINT repack_status_pkey, \
         ADD COLUMN site text NOT NULL DEFAULT 'x'; ALTER TABLE repack_status ALTER site DROP DEFAULT",
    )
    .await;
    let before = dump(&site).await;
    let said = site.manager("import --migrate").await;
    said.ended(Exit::Failed).saying(&[
        "usage is missing",
        "column started is timestamp",
        "twice",
        "column site",
        "nothing is changed",
    ]);
    assert_eq!(dump(&site).await, before);
    site.sql("DROP TABLE repack_status").await;
    site.manager("import --migrate").await.ended(Exit::Failed).saying(&["there is no table repack_status"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tapes_are_entered_with_the_operators_name_and_reason_after_the_checks_of_prepare() {
    let site = Site::new(World::new().with_full_tapes(4)).await;
    site.edit(|world| world.tapes.get_mut("V01003").unwrap().full = false);
    let path = file(&site, "tapes", "V01002 # and\nV01003\n");
    let words = format!("add v01001 --vidfile {} --priority 50 --responsible maria", path.display());
    let before = dump(&site).await;
    let said = site.manager_asking(&words, false).await;
    said.ended(Exit::Failed).saying(&["V01001", "V01002", "V01003 stays out", "nothing is changed"]);
    assert_eq!(said.asked, ["add 2 tapes?"]);
    assert_eq!(dump(&site).await, before);
    let said = at_desk(
        &site.configuration(),
        &[&words.split(' ').collect::<Vec<_>>()[..], &["--reason", "old media", "--json", "--yes"]].concat(),
        None,
    )
    .await;
    let results = said.ended(Exit::Failed).results();
    let expected = [("V01001", "changed"), ("V01002", "changed"), ("V01003", "refused")];
    assert_eq!(results, expected.map(|(vid, result)| (vid.to_owned(), result.to_owned())));
    let row = site.row("V01001").await.row.unwrap();
    assert_eq!((row.priority, row.responsible.as_str(), row.state()), (50, "maria", State::Entered));
    let events = site.events("V01001").await;
    assert!(events.iter().all(|event| event.actor == ACTOR), "{events:?}");
    assert!(events.iter().any(|event| event.detail["reason"] == "old media"), "{events:?}");

    site.manager("add V01004 --priority 9 --yes").await.ended(Exit::Misuse).saying(&["priority 9"]);
    site.manager("add --yes").await.ended(Exit::Misuse).saying(&["which tapes"]);
    site.manager("hold V01004 --reason audit --yes").await.ended(Exit::Done);
    site.manager("add V01004 --yes").await.ended(Exit::Failed).saying(&["put it on hold: audit"]);
    site.edit(|world| world.down = true);
    let before = dump(&site).await;
    site.manager("add V01004 --yes").await.ended(Exit::Failed).saying(&["nothing was entered"]);
    assert_eq!(dump(&site).await, before);
    let mut command = of_site(&site, MANAGER);
    Ran::reading(command.args(["add", "-", "--yes"]), "V01001 V01002").ended(0);
}

/// Runs a script in a real shell.
fn in_bash(script: &str) -> String {
    let output = Command::new("bash").args(["--norc", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn completions_are_good_shell_and_complete_a_verb_and_a_value() {
    let home = tempfile::tempdir().unwrap();
    for (name, words, expected) in [
        ("manager", "re", &["requeue", "release", "resume", "retry-failed"][..]),
        ("producer", "re", &["reclaim"]),
        ("worker", "--conc", &["--concurrency"]),
    ] {
        let script = Ran::of(Command::new(program(MANAGER)).args(["completions", "bash", "--program", name]));
        let path = home.path().join(name);
        std::fs::write(&path, &script.ended(0).stdout).unwrap();
        in_bash(&format!("bash -n {}", path.display()));
        let command = format!("cta-ops-repack-{name}");
        // As the shell does it when the tabulator is pressed.
        let said = in_bash(&format!(
            "source {path}; spec=$(complete -p {command}); function=${{spec##*-F }}; function=${{function%% *}}; \
             COMP_WORDS=({command} {words}); COMP_CWORD=1; $function {command} {words} {command}; echo \"${{COMPREPLY[@]}}\"",
            path = path.display()
        ));
        let completed: BTreeSet<&str> = said.split_whitespace().collect();
        assert_eq!(completed, expected.iter().copied().collect(), "{name}");
        for shell in ["zsh", "fish"] {
            let script = Ran::of(Command::new(program(MANAGER)).args(["completions", shell, "--program", name]));
            assert!(script.ended(0).stdout.contains(&command), "{shell}");
        }
    }
    let bad = Ran::of(Command::new(program(MANAGER)).args(["completions", "csh"]));
    bad.ended(2).saying(&["bash, zsh, fish"]);
}

/// What `man` or `groff` complain of, where there is one of them; the structure in any case.
fn complaints(directory: &Path, page: &Path) -> String {
    let text = std::fs::read_to_string(page).unwrap();
    if !text.starts_with(".so ") {
        for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES"] {
            assert_eq!(text.matches(&format!(".SH {heading}\n")).count(), 1, "{heading} in {}", page.display());
        }
    }
    let tool = ["groff", "man"].into_iter().find(|tool| Command::new(tool).arg("--version").output().is_ok());
    let mut command = match tool {
        Some("groff") => {
            let mut groff = Command::new("groff");
            groff.args(["-man", "-ww", "-z", "-Tutf8", "-K", "utf8", "-I"]).arg(directory);
            groff
        }
        Some(_) => {
            let mut man = Command::new("man");
            man.args(["--warnings", "-l"]);
            man
        }
        None => return String::new(),
    };
    let output = command.arg(page).env("LC_ALL", "C.UTF-8").current_dir(directory).output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn manual_pages_of_every_program_and_verb_are_written_and_no_formatter_complains() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("man1");
    let ran = Ran::of(Command::new(program(MANAGER)).args(["man", "--dir", dir.to_str().unwrap()]));
    let files: Vec<&str> = ran.ended(0).stdout.lines().collect();
    for file in [
        "cta-ops-repack-manager.1",
        "cta-ops-repack-manager-requeue.1",
        "cta-ops-repack-producer-tick.1",
        "cta-ops-repack-worker.1",
        "cta-ops-repack-3-end.1",
    ] {
        assert!(files.contains(&file), "{file}: {files:?}");
    }
    for file in &files {
        assert_eq!(complaints(home.path(), &dir.join(file)), "", "{file}");
    }
    let page = Ran::of(Command::new(program(MANAGER)).arg("man"));
    assert!(page.ended(0).stdout.contains(".TH cta-ops-repack-manager 1"));
    let json = Ran::of(Command::new(program(MANAGER)).args(["man", "--json", "--dir", dir.to_str().unwrap()]));
    assert_eq!(json.ended(0).json()["files"].as_array().unwrap().len(), files.len());
}

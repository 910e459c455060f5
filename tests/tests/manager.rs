//! The manager against a real PostgreSQL: the tables it makes, and what its verbs change and refuse to change.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::path::PathBuf;

use clap::Parser as _;
use common::settings::{self, Settings};
use common::store::migrate;
use journeys::desk::ATRESYS_TABLE;
use journeys::services::{Services, TestDatabase};
use manager::cli::Cli;
use manager::output::{Desk, Exit};
use serde_json::Value;
use tokio_postgres::Client;

const ACTOR: &str = "alice@desk";

/// Rows in the table as ATRESYS makes it, the last of them odd.
const OLD_ROWS: &str = "
    INSERT INTO repack_status VALUES
        ('A00001', '2024-01-01 10:00', NULL, NULL, NULL, NULL, NULL, 1, 2, 3, NULL, 'error', 1, 'LTO8', 'raw', 'bob'),
        ('A00002', '2024-01-01 10:00', '2024-01-02 10:00', NULL, NULL, NULL, NULL, 1, 2, 3, NULL, 'auto', 1, 'LTO8', 'raw', 'bob'),
        ('A00003', '2024-01-01 10:00', NULL, '2024-01-02 10:00', NULL, NULL, NULL, 1, 2, 3, NULL, 'auto', 1, 'LTO8', 'raw', 'bob');";

/// A database, the configuration that names it, and a client as an operator with `psql` has.
struct Site {
    database: TestDatabase,
    client: Client,
    directory: tempfile::TempDir,
}

/// What one command line did.
#[derive(Debug)]
struct Said {
    exit: Exit,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn tapes(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        self.json()["tapes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tape| (text(&tape["vid"]), text(&tape["result"])))
            .collect()
    }
}

impl Site {
    async fn bare() -> Site {
        let database = Services::get().fresh_database();
        let settings = database.settings();
        let text = format!(
            "tools:\n  cta-ops-repack-automation:\n    database: {{username: {}, name: {}, host: '{}', port: {}, \
             repack_table_name: repack_status, sslmode: disable}}\n    priorities:\n      1: {{name: low, mount_policy: m1, \
             default_dst_pool_prefix: tolabel}}\n      2: {{name: high, mount_policy: m2, default_dst_pool_prefix: tolabel}}\n    \
             default_priority: 1\n",
            settings.username, settings.name, settings.host, settings.port
        );
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.yaml"), text).unwrap();
        let client = database.client().await;
        Site { database, client, directory }
    }

    async fn new() -> Site {
        let site = Site::bare().await;
        assert_eq!(site.run("migrate").await.exit, Exit::Done);
        site
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("config.yaml")
    }

    fn settings(&self) -> Settings {
        settings::load(&self.config()).unwrap().settings
    }

    async fn run(&self, words: &str) -> Said {
        self.asked(words, None).await
    }

    /// Runs a command line; with somebody there to answer its question.
    async fn asked(&self, words: &str, answer: Option<bool>) -> Said {
        let config = self.config();
        let program = ["manager", "-C", config.to_str().unwrap()];
        let cli = Cli::try_parse_from(program.into_iter().chain(words.split_whitespace())).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut ask = |_: &str| answer.unwrap();
        let mut desk = Desk {
            out: &mut out,
            err: &mut err,
            ask: answer.is_some().then_some(&mut ask as &mut dyn FnMut(&str) -> bool),
            width: None,
            colour: false,
        };
        let exit = manager::run(&cli, ACTOR, &mut desk).await;
        Said { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
    }

    async fn sql(&self, text: &str) {
        self.client.batch_execute(text).await.unwrap();
    }

    /// One value as text.
    async fn one(&self, query: &str) -> Option<String> {
        let rows = self.client.query(&format!("SELECT ({query})::text"), &[]).await.unwrap();
        rows[0].get(0)
    }

    /// A row with this many stamps after `entered`, a day apart, the last a day ago.
    async fn tape(&self, vid: &str, stamps: usize, mode: &str) {
        let columns = ["started", "repacked", "quarantined", "reclaimed", "finished"];
        let names: String = columns[..stamps].iter().map(|name| format!(", {name}")).collect();
        let values: String =
            (0..stamps).map(|stamp| format!(", LOCALTIMESTAMP(0) - interval '{} day'", stamps - stamp)).collect();
        self.sql(&format!(
            "INSERT INTO repack_status (tape, entered, files, bytes, usage, mode, priority, mediatype, tapepool, responsible{names}) \
             VALUES ('{vid}', LOCALTIMESTAMP(0) - interval '9 day', 4, 400, 40, '{mode}', 1, 'LTO9', 'raw', 'bob'{values})"
        ))
        .await;
    }

    /// Lets the manager make the task row: to manual and back.
    async fn known(&self, vid: &str, stamps: usize) {
        self.tape(vid, stamps, "manual").await;
        assert_eq!(self.run(&format!("ch {vid} --mode auto --yes")).await.exit, Exit::Done);
    }

    /// Everything that is kept of all tapes; what a refusal must not change.
    async fn everything(&self) -> String {
        self.one(
            "SELECT json_build_array((SELECT json_agg(m ORDER BY tape) FROM repack_status m), \
             (SELECT json_agg(k ORDER BY tape) FROM repack_status_task k), (SELECT json_agg(c ORDER BY kind, name) FROM repack_status_control c), \
             (SELECT count(*) FROM repack_status_event), (SELECT count(*) FROM repack_status_history), \
             (SELECT json_agg(xmin::text ORDER BY tape) FROM repack_status))",
        )
        .await
        .unwrap()
    }

    /// The command says no (or has nothing to do), exits so, and leaves everything as it is.
    async fn unchanged(&self, words: &str, exit: Exit, says: &str) {
        let before = self.everything().await;
        let said = self.run(words).await;
        assert_eq!(said.exit, exit, "{words}: {said:?}");
        assert!(said.out.contains(says) || said.err.contains(says), "{words} does not say '{says}': {said:?}");
        assert_eq!(self.everything().await, before, "{words} changed something");
    }
}

/// Steps of the migration: a file each.
fn steps() -> usize {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations")).unwrap();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "sql")).count()
}

#[tokio::test]
async fn migrating_an_empty_database_makes_the_tables_and_doing_it_again_changes_nothing() {
    let site = Site::bare().await;
    let said = site.run("ls").await;
    assert_eq!(said.exit, Exit::Failed);
    assert!(said.err.contains("migrate"), "says what to do: {said:?}");

    let rehearsed = site.run("migrate --dry-run").await;
    assert_eq!(rehearsed.exit, Exit::Done, "{rehearsed:?}");
    assert!(rehearsed.out.contains("would be applied"), "{rehearsed:?}");
    assert_eq!(site.one("to_regclass('repack_status')").await, None, "a rehearsal leaves nothing");

    let first = site.run("migrate --json").await;
    assert_eq!(first.json()["applied"].as_array().unwrap().len(), steps(), "{first:?}");
    assert_eq!(first.json()["adopted"], false);
    let second = site.run("migrate --json").await;
    assert_eq!((second.exit, second.json()["applied"].as_array().unwrap().len()), (Exit::Done, 0));
    assert_eq!(site.run("ls").await.exit, Exit::Done);
}

#[tokio::test]
async fn two_migrations_at_once_apply_each_step_once() {
    let site = Site::bare().await;
    let settings = site.settings();
    // Holds both back until both wait for the lock, so that they really meet.
    site.sql("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('\"repack_status\"', 1))").await;
    let observer = site.database.client().await;
    let both = async { tokio::join!(migrate::migrate(&settings), migrate::migrate(&settings)) };
    let release = async {
        loop {
            let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            if observer.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 2 {
                break site.sql("COMMIT").await;
            }
            tokio::task::yield_now().await;
        }
    };
    let ((first, second), ()) = tokio::join!(both, release);
    let mut applied = [first.unwrap().applied.len(), second.unwrap().applied.len()];
    applied.sort_unstable();
    assert_eq!(applied, [0, steps()]);
}

#[tokio::test]
async fn the_table_of_atresys_is_kept_as_it_is_and_its_rows_can_be_worked_with() {
    let site = Site::bare().await;
    site.sql(&format!("{ATRESYS_TABLE}{OLD_ROWS}")).await;
    let shape = "SELECT json_agg(json_build_array(attname, atttypid::regtype, atttypmod, attnotnull) ORDER BY attnum) \
                 FROM pg_attribute WHERE attrelid = 'repack_status'::regclass AND attnum > 0";
    let rows = "SELECT json_agg(m ORDER BY tape) FROM repack_status m";
    let before = (site.one(shape).await, site.one(rows).await);
    let said = site.run("migrate").await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    assert!(said.out.contains("kept"), "{said:?}");
    assert_eq!((site.one(shape).await, site.one(rows).await), before);

    let listed = site.run("ls --json").await.json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[0]["mode"], "error");
    assert_eq!(listed[1]["state"], "started");
    assert!(listed[2]["odd"][0].as_str().unwrap().contains("started is not"), "{listed:?}");
    assert!(listed.iter().all(|tape| !tape["waits"]["text"].as_str().unwrap().is_empty()));
    let text = site.run("ls").await.out;
    assert!(text.find("odd rows").unwrap() > text.find("A00002").unwrap(), "odd rows come last:\n{text}");

    assert_eq!(site.run("requeue A00001 --yes").await.exit, Exit::Done);
    assert_eq!(site.one("SELECT mode FROM repack_status WHERE tape = 'A00001'").await.as_deref(), Some("auto"));
    // Started by ATRESYS: the request that is there counts as ours.
    assert_eq!(site.run("abort A00002 --yes --reason x").await.exit, Exit::Done);
    let adopt = "SELECT memory->>'adopt' FROM repack_status_task WHERE tape = 'A00002'";
    assert_eq!(site.one(adopt).await.as_deref(), Some("true"));
    site.unchanged("requeue A00003 --yes", Exit::Failed, "odd").await;
    site.unchanged("ch A00001 --responsible somebody-with-a-long-name --yes", Exit::Misuse, "ALTER TABLE").await;
}

#[tokio::test]
async fn requeue_gives_a_stopped_tape_back_once_and_twice_changes_nothing_more() {
    let site = Site::new().await;
    site.known("V00001", 1).await;
    // As a worker leaves it: the Stop is committed, the dead letter is still under way.
    site.sql(
        "UPDATE repack_status_task SET outcome = 'failed', reason_code = 'repack-failed', reason = '3 files could not be read', \
         next_attempt_at = 'infinity', attempts = 4, crashes = 1 WHERE tape = 'V00001'",
    )
    .await;
    let letter = site.one("SELECT generation FROM repack_status_task").await;
    let said = site.run("requeue V00001 --yes --reason drive-repaired").await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    assert!(said.out.contains("3 files could not be read"), "{said:?}");
    let task = "SELECT json_build_array(outcome, reason, next_attempt_at, attempts, crashes) FROM repack_status_task";
    assert_eq!(site.one(task).await.as_deref(), Some("[null, null, null, 0, 0]"));
    assert_ne!(site.one("SELECT generation FROM repack_status_task").await, letter, "the dead letter is stale now");
    let event = "SELECT json_build_array(actor, kind, detail->>'reason', detail->'stopped'->>'code') FROM repack_status_event ORDER BY id DESC LIMIT 1";
    assert_eq!(
        site.one(event).await.as_deref(),
        Some(r#"["alice@desk", "requeue", "drive-repaired", "repack-failed"]"#)
    );
    site.unchanged("requeue V00001 --yes", Exit::Done, "already so").await;
}

#[tokio::test]
async fn requeue_with_adopt_takes_the_request_that_is_there_as_ours() {
    let site = Site::new().await;
    site.known("V00001", 0).await;
    site.sql(
        "UPDATE repack_status_task SET memory = memory || '{\"asked\": true, \"request\": {\"username\": \"u\", \"host\": \"h\", \"time\": 7}}'",
    )
    .await;
    let said = site.run("requeue V00001 --adopt --yes --reason x").await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    let memory = "SELECT json_build_array(memory->'adopt', memory->'asked', memory->'request') FROM repack_status_task";
    assert_eq!(site.one(memory).await.as_deref(), Some("[true, null, null]"));
    site.unchanged("requeue V00001 --adopt --yes --reason x", Exit::Done, "already so").await;
    site.known("V00002", 3).await;
    site.unchanged("requeue V00002 --adopt --yes --reason x", Exit::Failed, "no repack request to adopt").await;
}

#[tokio::test]
async fn manual_mode_keeps_the_stop_and_makes_waiting_messages_stale() {
    let site = Site::new().await;
    site.known("V00001", 1).await;
    site.sql("UPDATE repack_status_task SET dispatched_at = now(), owner = 'w@h', lease_until = now() + interval '1 hour', epoch = 77").await;
    let before = site.one("SELECT generation FROM repack_status_task").await;
    let said = site.run("ch v00001 --mode manual --yes --reason look").await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    assert!(said.err.contains("w@h is at it now"), "{said:?}");
    assert_eq!(site.one("SELECT mode FROM repack_status").await.as_deref(), Some("manual"));
    assert_ne!(site.one("SELECT generation FROM repack_status_task").await, before);
    let lease = "SELECT json_build_array(owner, epoch, dispatched_at) FROM repack_status_task";
    assert_eq!(site.one(lease).await.as_deref(), Some(r#"["w@h", 77, null]"#), "the worker may still end in peace");
    site.unchanged("ch V00001 --mode manual --yes", Exit::Done, "already so").await;
    site.unchanged("ch V00001 --mode error --yes", Exit::Failed, "only the automation sets it").await;
}

#[tokio::test]
async fn priority_and_responsible_are_changed_together_with_the_mode_or_alone() {
    let site = Site::new().await;
    site.tape("V00001", 0, "error").await;
    site.unchanged("ch V00001 --priority 9 --yes", Exit::Misuse, "1 (low), 2 (high)").await;
    let said = site.run("ch V00001 --mode auto --priority 2 --responsible carol --yes").await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    let row = "SELECT json_build_array(mode, priority, responsible) FROM repack_status";
    assert_eq!(site.one(row).await.as_deref(), Some(r#"["auto", 2, "carol"]"#));
    // Our own write is no edit by somebody else.
    let seen = "SELECT k.seen_xmin = m.xmin::text::bigint FROM repack_status m JOIN repack_status_task k USING (tape)";
    assert_eq!(site.one(seen).await.as_deref(), Some("true"));
    site.unchanged("ch V00001 --priority 2 --responsible carol --mode auto --yes", Exit::Done, "already so").await;
    let generation = site.one("SELECT generation FROM repack_status_task").await;
    assert_eq!(site.run("ch V00001 --priority 1 --yes").await.exit, Exit::Done);
    assert_eq!(site.one("SELECT generation FROM repack_status_task").await, generation, "a worker may go on");
    site.tape("V00002", 5, "auto").await;
    site.unchanged("ch V00002 --priority 2 --yes", Exit::Failed, "its journey is over").await;
}

#[tokio::test]
async fn what_is_refused_is_said_once_where_there_is_nothing_to_ask() {
    let site = Site::new().await;
    site.tape("V00001", 5, "auto").await;
    let said = site.asked("requeue V00001 V00009", Some(true)).await;
    assert_eq!(said.exit, Exit::Failed);
    assert_eq!(said.err.matches("its journey is over").count(), 1, "{said:?}");
    assert_eq!(said.err.matches("not in the table\n").count(), 1, "{said:?}");
    // Where something is asked, what stays out of it is said before.
    site.tape("V00002", 1, "error").await;
    let said = site.asked("requeue V00001 V00002", Some(false)).await;
    assert!(said.err.contains("V00001 stays as it is: its journey is over"), "{said:?}");
}

#[tokio::test]
async fn a_wish_is_written_down_for_a_worker_and_only_where_it_makes_sense() {
    let site = Site::new().await;
    for stamps in 0..6 {
        site.tape(&format!("V0000{stamps}"), stamps, "error").await;
    }
    for (verb, good) in [("retry-failed", vec![1]), ("abort", vec![0, 1, 2, 3]), ("unstick", vec![1, 2])] {
        for stamps in 0..6 {
            let words = format!("{verb} V0000{stamps} --yes --reason asked");
            if good.contains(&stamps) {
                let before = site.one("SELECT max(generation) FROM repack_status_task").await;
                let said = site.run(&words).await;
                assert_eq!(said.exit, Exit::Done, "{words}: {said:?}");
                let row = format!(
                    "SELECT json_build_array(m.mode, k.wanted, k.next_attempt_at) FROM repack_status m \
                     JOIN repack_status_task k USING (tape) WHERE tape = 'V0000{stamps}'"
                );
                let name = match verb {
                    "retry-failed" => "retry",
                    "abort" => "give_back",
                    other => other,
                };
                assert_eq!(site.one(&row).await, Some(format!(r#"["auto", "{name}", null]"#)), "{words}");
                assert_ne!(site.one("SELECT max(generation) FROM repack_status_task").await, before);
                site.unchanged(&words, Exit::Done, "already so").await;
                site.sql(&format!("UPDATE repack_status SET mode = 'error' WHERE tape = 'V0000{stamps}'")).await;
            } else {
                site.unchanged(&words, Exit::Failed, "is refused").await;
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_given_back_once_a_reclaim_was_allowed_to_run() {
    let site = Site::new().await;
    site.known("V00001", 3).await;
    site.sql("UPDATE repack_status_task SET memory = jsonb_set(memory, '{issued}', '{\"reclaim\": \"2026-01-01T00:00:00Z\"}')").await;
    site.unchanged("abort V00001 --yes --reason x", Exit::Failed, "may have happened").await;
    site.sql("UPDATE repack_status_task SET memory = jsonb_set(memory, '{issued}', '{}')").await;
    assert_eq!(site.run("abort V00001 --yes --reason x").await.exit, Exit::Done);
}

#[tokio::test]
async fn abort_decides_under_the_row_lock_not_from_what_was_shown() {
    let site = Site::new().await;
    site.known("V00001", 3).await;
    // Somebody holds the row while the manager asks for it, and a reclaim is allowed before it gets it.
    site.sql("BEGIN; SELECT 1 FROM repack_status WHERE tape = 'V00001' FOR UPDATE").await;
    let observer = site.database.client().await;
    let reclaim = async {
        loop {
            let waiting =
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
            if observer.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 1 {
                break site
                    .sql(
                        "UPDATE repack_status_task SET memory = jsonb_set(memory, '{issued}', '{\"reclaim\": \"2026-01-01T00:00:00Z\"}'); \
                         COMMIT",
                    )
                    .await;
            }
            tokio::task::yield_now().await;
        }
    };
    let (said, ()) = tokio::join!(site.run("abort V00001 --yes --reason x"), reclaim);
    assert_eq!(said.exit, Exit::Failed, "{said:?}");
    assert!(said.err.contains("may have happened"), "{said:?}");
    assert_eq!(site.one("SELECT wanted FROM repack_status_task").await, None);
}

#[tokio::test]
async fn a_row_that_somebody_keeps_locked_is_named_and_left_alone() {
    let site = Site::new().await;
    site.known("V00001", 1).await;
    site.sql("BEGIN; SELECT 1 FROM repack_status FOR UPDATE").await;
    let said = site.run("ch V00001 --mode manual --yes").await;
    site.sql("ROLLBACK").await;
    assert_eq!(said.exit, Exit::Failed, "{said:?}");
    assert!(said.err.contains("another session keeps its row locked"), "{said:?}");
    assert_eq!(site.one("SELECT mode FROM repack_status").await.as_deref(), Some("auto"));
}

#[tokio::test]
async fn rm_moves_the_row_to_the_history_and_keeps_what_belongs_to_the_vid() {
    let site = Site::new().await;
    site.known("V00001", 0).await;
    site.sql(
        "UPDATE repack_status_task SET slot_since = now(), epoch = 4711, settle_until = now() - interval '1 hour'",
    )
    .await;
    let said = site.run("rm V00001 --yes --reason mistaken").await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    assert_eq!(site.one("SELECT count(*) FROM repack_status").await.as_deref(), Some("0"));
    let history = "SELECT json_build_array(why, tape, row->>'responsible') FROM repack_status_history";
    assert_eq!(site.one(history).await.as_deref(), Some(r#"["removed", "V00001", "bob"]"#));
    let task = "SELECT json_build_array(stage, epoch, slot_since IS NOT NULL, settle_until IS NOT NULL, next_attempt_at::text, seen) FROM repack_status_task";
    assert_eq!(site.one(task).await.as_deref(), Some(r#"[null, 4711, true, true, "infinity", null]"#));
    site.unchanged("rm V00001 --yes --reason x", Exit::Failed, "not in the table").await;
    let shown = site.run("show V00001").await;
    assert_eq!(shown.exit, Exit::Failed);
    assert!(shown.out.contains("mistaken") && shown.out.contains("alice@desk"), "{shown:?}");

    // Prepared again: another journey, with nothing of the old one but what belongs to the VID.
    site.known("V00001", 0).await;
    let task = "SELECT json_build_array(stage, slot_since IS NOT NULL, wanted) FROM repack_status_task";
    assert_eq!(site.one(task).await.as_deref(), Some(r#"["start", true, null]"#));
}

#[tokio::test]
async fn rm_is_refused_wherever_our_doing_may_still_be_in_cta_and_names_abort() {
    let site = Site::new().await;
    site.known("V00001", 0).await;
    let blank = "UPDATE repack_status_task SET owner = NULL, lease_until = NULL, intent = NULL, settle_until = NULL, \
                 memory = memory || '{\"asked\": false, \"issued\": {}, \"request\": null}'";
    for obstacle in [
        "owner = 'w@h', lease_until = now() + interval '1 hour'",
        "owner = 'w@h', lease_until = now() - interval '1 hour'",
        "intent = '{\"kind\": \"set-repacking\", \"command\": \"cta-admin x\", \"at\": \"2026-01-01T00:00:00Z\"}'",
        "settle_until = now() + interval '1 hour'",
        "memory = memory || '{\"asked\": true}'",
        "memory = memory || '{\"issued\": {\"set-repacking\": \"2026-01-01T00:00:00Z\"}}'",
        "memory = memory || '{\"request\": {\"username\": \"u\", \"host\": \"h\", \"time\": 7}}'",
    ] {
        site.sql(blank).await;
        site.sql(&format!("UPDATE repack_status_task SET {obstacle}")).await;
        site.unchanged("rm V00001 --yes --reason x", Exit::Failed, "abort V00001").await;
    }
    for stamps in [1, 2] {
        site.tape(&format!("W0000{stamps}"), stamps, "manual").await;
        site.unchanged(&format!("rm W0000{stamps} --yes --reason x"), Exit::Failed, &format!("abort W0000{stamps}"))
            .await;
    }
    for stamps in [3, 4, 5] {
        site.tape(&format!("W0000{stamps}"), stamps, "manual").await;
        assert_eq!(site.run(&format!("rm W0000{stamps} --yes --reason x")).await.exit, Exit::Done);
    }
    site.sql(blank).await;
    assert_eq!(site.run("rm V00001 --yes --reason x").await.exit, Exit::Done, "with nothing in its way it goes");
}

#[tokio::test]
async fn nothing_is_changed_without_consent() {
    let site = Site::new().await;
    site.known("V00001", 1).await;
    site.unchanged("ch V00001 --mode manual", Exit::Misuse, "--yes").await;
    site.unchanged("ch V00001 --mode manual --dry-run", Exit::Done, "would change: mode auto -> manual").await;
    let before = site.everything().await;
    let said = site.asked("ch V00001 --mode manual", Some(false)).await;
    assert_eq!(said.exit, Exit::Failed);
    assert!(said.err.contains("mode auto -> manual"), "shows what it would change: {said:?}");
    assert_eq!(site.everything().await, before);
    assert_eq!(site.asked("ch V00001 --mode manual", Some(true)).await.exit, Exit::Done);
    assert_eq!(site.one("SELECT mode FROM repack_status").await.as_deref(), Some("manual"));
}

#[tokio::test]
async fn of_several_tapes_the_good_ones_are_changed_and_the_others_are_named() {
    let site = Site::new().await;
    site.tape("V00001", 1, "error").await;
    site.known("V00002", 1).await;
    site.tape("V00005", 5, "auto").await;
    let said = site.run("requeue v00001 V00001 V00002 V00005 V09999 --yes --json").await;
    assert_eq!(said.exit, Exit::Failed);
    let expected = [("V00001", "changed"), ("V00002", "already"), ("V00005", "refused"), ("V09999", "not-found")];
    assert_eq!(said.tapes(), expected.map(|(vid, result)| (vid.to_owned(), result.to_owned())));
    assert_eq!(site.one("SELECT mode FROM repack_status WHERE tape = 'V00001'").await.as_deref(), Some("auto"));
}

#[tokio::test]
async fn an_edit_with_psql_is_followed_before_a_verb_is_judged() {
    let site = Site::new().await;
    site.known("V00001", 1).await;
    site.sql("UPDATE repack_status_task SET memory = memory || '{\"request\": {\"username\": \"u\", \"host\": \"h\", \"time\": 7}}'").await;
    // Somebody sets the next stamp by hand: what was a retry is none any more.
    site.sql("UPDATE repack_status SET repacked = LOCALTIMESTAMP(0)").await;
    site.unchanged("retry-failed V00001 --yes", Exit::Failed, "its repack is complete").await;
    assert_eq!(site.run("ch V00001 --mode manual --yes").await.exit, Exit::Done);
    let kinds = "SELECT json_agg(kind ORDER BY id) FROM (SELECT * FROM repack_status_event ORDER BY id DESC LIMIT 2) e";
    assert_eq!(site.one(kinds).await.as_deref(), Some(r#"["edited-elsewhere", "mode"]"#));
    assert_eq!(site.one("SELECT stage FROM repack_status_task").await.as_deref(), Some("quarantine"));
}

#[tokio::test]
async fn a_hold_belongs_to_the_vid_and_is_shown_and_released() {
    let site = Site::new().await;
    site.known("V00001", 1).await;
    let said = site.run("hold V00001 V09999 --reason audit --yes").await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    let listed = site.run("ls --json").await.json();
    assert_eq!(listed[0]["hold"]["why"], "audit");
    assert_eq!(listed[0]["waits"]["code"], "on-hold");
    let control = "SELECT json_agg(json_build_array(name, who, why) ORDER BY name) FROM repack_status_control WHERE kind = 'hold'";
    assert_eq!(
        site.one(control).await.as_deref(),
        Some(r#"[["V00001", "alice@desk", "audit"], ["V09999", "alice@desk", "audit"]]"#)
    );
    site.unchanged("hold V00001 --reason audit --yes", Exit::Done, "already so").await;
    assert_eq!(site.run("release V00001 --yes").await.exit, Exit::Done);
    site.unchanged("release V00001 --yes", Exit::Done, "already so").await;
    assert_eq!(site.run("hold V00001 --for 1h --yes").await.exit, Exit::Done);
    let until = "SELECT until BETWEEN now() + interval '59 min' AND now() + interval '61 min' FROM repack_status_control WHERE name = 'V00001'";
    assert_eq!(site.one(until).await.as_deref(), Some("true"));
}

#[tokio::test]
async fn a_paused_stage_is_what_its_tapes_wait_for_until_it_is_resumed() {
    let site = Site::new().await;
    site.known("V00001", 0).await;
    assert_eq!(site.run("pause all --reason move --yes").await.exit, Exit::Done);
    assert_eq!(site.run("ls --json").await.json()[0]["waits"]["code"], "stage-paused");
    site.unchanged("pause start --reason move --yes", Exit::Done, "already so").await;
    assert_eq!(site.run("resume start --yes").await.exit, Exit::Done);
    assert_eq!(site.run("ls --json").await.json()[0]["waits"]["code"], "due");
    site.unchanged("resume start --yes", Exit::Done, "already so").await;
    assert_eq!(site.one("SELECT count(*) FROM repack_status_control WHERE kind = 'pause'").await.as_deref(), Some("4"));
}

#[tokio::test]
async fn ls_filters_and_names_what_is_not_there() {
    let site = Site::new().await;
    for stamps in 0..6 {
        site.tape(&format!("V0000{stamps}"), stamps, if stamps == 1 { "error" } else { "auto" }).await;
    }
    let vids = async |words: &str| {
        let said = site.run(words).await;
        let lines: Vec<String> = said
            .out
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["vid"].as_str().unwrap().to_owned())
            .collect();
        (said.exit, lines.join(" "))
    };
    assert_eq!(vids("ls --jsonl").await, (Exit::Done, "V00000 V00001 V00002 V00003 V00004".to_owned()));
    assert_eq!(vids("ls --jsonl --all").await.1, "V00000 V00001 V00002 V00003 V00004 V00005");
    assert_eq!(vids("ls --jsonl --state started,finished").await.1, "V00001 V00005");
    assert_eq!(vids("ls --jsonl --mode error").await.1, "V00001");
    assert_eq!(vids("ls --jsonl V00005 v00001").await.1, "V00001 V00005");
    assert_eq!(vids("ls --jsonl V00005 V09999").await, (Exit::Failed, "V00005".to_owned()));
    assert_eq!(vids("ls --jsonl V00000 --mode error").await, (Exit::Done, String::new()));
}

#[tokio::test]
async fn who_waits_for_a_slot_is_told_who_keeps_it() {
    let site = Site::new().await;
    site.known("V00001", 0).await;
    site.sql("INSERT INTO repack_status_task (tape, generation, epoch, slot_since) SELECT 'X' || n, -n, -n, now() FROM generate_series(1, 200) n").await;
    let waits = site.run("ls --json V00001").await.json()[0]["waits"].clone();
    assert_eq!(waits["code"], "no-slot");
    assert!(waits["text"].as_str().unwrap().contains("no longer in the table"), "{waits}");
}

#[tokio::test]
async fn a_database_that_is_away_is_named_and_nothing_is_done() {
    let site = Site::bare().await;
    let text = std::fs::read_to_string(site.config()).unwrap();
    let port = format!("port: {}", site.settings().database.port);
    std::fs::write(site.config(), text.replace(&port, "port: 1")).unwrap();
    for words in ["ls", "show V00001", "requeue V00001 --yes", "migrate", "pause all --yes"] {
        let said = site.run(words).await;
        assert_eq!(said.exit, Exit::Failed, "{words}");
        assert!(said.err.contains(":1"), "{words}: {said:?}");
        assert!(said.out.is_empty());
    }
    std::fs::write(site.config(), "tools: {cta-ops-repack-automation: {quarantine_dayz: 3}}").unwrap();
    let said = site.run("ls").await;
    assert_eq!(said.exit, Exit::Misuse);
    assert!(said.err.contains("quarantine_days"), "{said:?}");
}

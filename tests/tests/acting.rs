//! Every verb of the manager that changes something: what it does once, twice, to what is not there, without anybody to ask,
//! without a database; and that what was shown is what is done.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::collections::BTreeSet;
use std::process::Stdio;

use common::journey::{Mode, State};
use common::stages::STAGES;
use cta_sim::{Plan, World};
use journeys::desk::{ACTOR, Said, at_desk};
use journeys::shell::{MANAGER, Ran, dump, file, of_site};
use journeys::site::Site;
use manager::output::Exit;

const VID: &str = "V01001";

/// The tape is stopped for this reason, as its task row says.
async fn stopped(site: &Site, code: &str) {
    site.sql(&format!(
        "UPDATE {} SET outcome = 'failed', reason_code = '{code}', reason = '2 files are left', next_attempt_at = 'infinity',
            memory = '{{}}'",
        site.beside("_task")
    ))
    .await;
}

/// A verb, how a tape must stand for it, and what it says.
struct Row {
    /// Words of the command line; `{}` is the tape.
    words: &'static str,
    /// Stamps after `entered`, and the mode.
    stands: Option<(usize, &'static str)>,
    /// Words before it, on the same tape.
    first: Option<&'static str>,
    /// The result when it is done again.
    again: &'static str,
    /// The result for a VID that nobody knows.
    unknown: &'static str,
}

const fn row(words: &'static str, stands: (usize, &'static str), again: &'static str) -> Row {
    Row { words, stands: Some(stands), first: None, again, unknown: "not-found" }
}

const ROWS: [Row; 12] = [
    row("ch {} --mode manual", (0, "auto"), "already"),
    row("ch {} --mode auto", (1, "manual"), "already"),
    row("ch {} --priority 50 --responsible carol", (0, "auto"), "already"),
    row("requeue {}", (1, "error"), "already"),
    row("requeue {} --adopt --reason x", (1, "error"), "already"),
    row("retry-failed {}", (1, "error"), "already"),
    row("abort {} --reason x", (1, "error"), "already"),
    row("unstick {}", (1, "error"), "already"),
    row("rm {} --reason x", (3, "manual"), "not-found"),
    Row { unknown: "changed", ..row("hold {} --reason x", (0, "auto"), "already") },
    Row { first: Some("hold {} --reason y --yes"), unknown: "already", ..row("release {}", (0, "auto"), "already") },
    Row { words: "add {}", stands: None, first: None, again: "already", unknown: "refused" },
];

fn on(words: &str, vid: &str) -> String {
    words.replace("{}", vid)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_does_it_once_says_what_it_did_not_find_and_changes_nothing_it_was_not_told_to() {
    let site = Site::new(World::new().with_full_tapes(ROWS.len() as u64 + 1)).await;
    for (number, case) in ROWS.iter().enumerate() {
        let vid = format!("V{:05}", 1001 + number);
        let words = on(case.words, &vid);
        if let Some((stamps, mode)) = case.stands {
            site.row_of(&vid, stamps, mode, "raw").await;
        }
        if let Some(first) = case.first {
            site.manager(&on(first, &vid)).await.ended(Exit::Done);
        }
        let before = dump(&site).await;
        let unchanged = async |what: &str| assert_eq!(dump(&site).await, before, "{words}: {what} changed something");

        // Nobody is there to be asked; somebody is, and says no; somebody only wants to look.
        site.manager(&words).await.ended(Exit::Misuse).saying(&["--yes"]);
        unchanged("asking nobody").await;
        let said = site.manager_asking(&words, false).await;
        assert_eq!((said.exit, said.asked.len()), (Exit::Failed, 1), "{said:?}");
        assert!(said.err.contains(&vid), "it shows what it would change: {said:?}");
        unchanged("a no").await;
        let said = site.manager(&format!("{words} --dry-run --json")).await;
        assert_eq!(said.ended(Exit::Done).results(), [(vid.clone(), "would-change".to_owned())]);
        unchanged("--dry-run").await;

        // What is not there.
        let expected = if matches!(case.unknown, "refused" | "not-found") { Exit::Failed } else { Exit::Done };
        let said = site.manager(&format!("{} --yes --json --dry-run", on(case.words, "X99999"))).await;
        let unknown = if case.unknown == "changed" { "would-change" } else { case.unknown };
        assert_eq!(said.ended(expected).results(), [("X99999".to_owned(), unknown.to_owned())], "{words}");
        unchanged("an unknown tape").await;

        // Yes, then once more.
        let said = site.manager_asking(&words, true).await;
        assert_eq!((said.exit, said.asked.len()), (Exit::Done, 1), "{said:?}");
        let after = dump(&site).await;
        assert_ne!(after, before, "{words} changed nothing");
        let told = format!("SELECT count(*) FROM {} WHERE tape = '{vid}' AND actor = '{ACTOR}'", site.beside("_event"));
        assert!(site.number(&told).await > 0, "{words}: the history names who did it");
        let again = site.manager(&format!("{words} --yes --json")).await;
        let expected = if case.again == "already" { Exit::Done } else { Exit::Failed };
        assert_eq!(again.ended(expected).results(), [(vid.clone(), case.again.to_owned())], "{words}");
        assert_eq!(dump(&site).await, after, "{words} once more changed something");
    }
    assert!(site.changes().is_empty(), "the manager changes nothing in CTA");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_every_verb_says_so_and_leaves() {
    let mut site = Site::new(World::new().with_full_tapes(1)).await;
    site.settings.database.port = 1;
    let others = ["pause all --reason x", "resume start", "import", "migrate"].map(|words| (words, true));
    for (words, plain) in ROWS.iter().map(|row| (row.words, false)).chain(others) {
        let yes = if matches!(words, "import" | "migrate") { "" } else { " --yes" };
        let said = site.manager(&format!("{}{yes}", on(words, VID))).await;
        said.ended(Exit::Failed).saying(&["connecting to PostgreSQL", ":1"]);
        assert!(said.out.is_empty() && !plain | said.err.starts_with("error: "), "{said:?}");
    }
    assert!(site.journal().iter().all(|call| !call.changing));
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_shows_its_end_and_is_no_ones_to_repeat() {
    let site = Site::new(World::new()).await;
    site.manager("pause all --reason upgrade").await.ended(Exit::Misuse).saying(&["--yes", "until resumed"]);
    site.manager("pause all --reason upgrade --for 2h --yes").await.ended(Exit::Done).saying(&["until 20"]);
    let paused = format!("SELECT count(*) FROM {} WHERE kind = 'pause' AND until > now()", site.beside("_control"));
    assert_eq!(site.number(&paused).await, STAGES.len() as i64);
    site.manager("resume all --yes").await.ended(Exit::Done).saying(&["was paused by alice@desk: upgrade"]);
    assert_eq!(site.number(&paused).await, 0);
    site.manager("resume all --yes").await.ended(Exit::Done).saying(&["already so"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_for_a_vid_and_conditions_are_for_rows() {
    let site = Site::new(World::new()).await;
    site.row_of("V00001", 0, "auto", "raw").await;
    site.row_of("V00002", 5, "auto", "raw").await;
    let said = site.manager("hold V00001 V00002 X00009 --reason audit --for 2d --yes").await;
    said.ended(Exit::Done).saying(&[
        "V00001: on hold for 2d: audit",
        "X00009",
        "not in the table; scan and prepare obey",
    ]);
    let said = site.manager("hold X00010 V00001 --pool raw --reason x --dry-run --json").await;
    let expected = [("X00010", "not-found"), ("V00001", "would-change")];
    assert_eq!(said.results(), expected.map(|(vid, result)| (vid.to_owned(), result.to_owned())));
    let said = site.manager("release --held --yes").await;
    said.ended(Exit::Done).saying(&["V00001: no longer on hold (alice@desk: audit)"]);
    said.saying(&["V00002 is on hold too, and not on its way", "X00009 is on hold too"]);
    site.manager("release V00002 X00009 --yes").await.ended(Exit::Done);
    assert_eq!(site.number(&format!("SELECT count(*) FROM {} WHERE kind = 'hold'", site.beside("_control"))).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_something_away_wants_a_reason() {
    let site = Site::new(World::new()).await;
    site.row_of(VID, 3, "error", "raw").await;
    let before = dump(&site).await;
    for words in ["abort {}", "rm {}", "requeue {} --adopt", "requeue {} --accept-empty"] {
        site.manager(&format!("{} --yes", on(words, VID))).await.ended(Exit::Misuse).saying(&["wants --reason"]);
    }
    // A look needs none.
    site.manager(&format!("rm {VID} --dry-run")).await.ended(Exit::Done);
    site.manager(&format!("ch {VID} --yes")).await.ended(Exit::Misuse).saying(&["--mode auto or manual", "--priority"]);
    assert_eq!(dump(&site).await, before);
    // A Stop at the gate before the one thing that cannot be undone is not waved through.
    site.manager(&format!("requeue {VID} --yes")).await.ended(Exit::Done);
    site.sql(&format!(
        "UPDATE {} SET outcome = 'failed', reason_code = 'files-left', reason = '3 files are on it', next_attempt_at = 'infinity'",
        site.beside("_task")
    ))
    .await;
    let before = dump(&site).await;
    site.manager(&format!("requeue {VID} --yes")).await.ended(Exit::Failed).saying(&["3 files are on it", "--reason"]);
    assert_eq!(dump(&site).await, before);
    site.manager(&format!("requeue {VID} --yes --reason deleted")).await.ended(Exit::Done);
}

async fn crowd(site: &Site) {
    for number in 0..12 {
        let (stamps, mode) = (number % 4, ["auto", "manual", "error"][number % 3]);
        site.row_of(&format!("V{number:05}"), stamps, mode, if number < 6 { "raw" } else { "user" }).await;
    }
    site.row_of("W00001", 5, "auto", "raw").await;
}

fn vids(said: &Said) -> BTreeSet<String> {
    let lines = said.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.map(|tape| tape["vid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_means_the_same_tapes_for_looking_and_for_acting() {
    let site = Site::new(World::new()).await;
    crowd(&site).await;
    let before = dump(&site).await;
    for filter in [
        "--state entered,started",
        "--pool raw --mode error",
        "V0000* --state started",
        "V00001 V0001?",
        "--older-than 2d --pool user",
        "--responsible b*",
        "--priority 10 --mediatype LTO*",
    ] {
        let listed = vids(&site.manager(&format!("ls --jsonl {filter}")).await);
        assert!(!listed.is_empty() && listed.len() < 13, "{filter}: {listed:?}");
        for verb in ["requeue", "retry-failed", "abort", "unstick", "rm", "hold", "release"] {
            let said = site.manager(&format!("{verb} {filter} --dry-run --json")).await;
            let meant: BTreeSet<String> = said.results().into_iter().map(|(vid, _)| vid).collect();
            assert_eq!(meant, listed, "{verb} {filter}");
        }
    }
    let listed = vids(&site.manager("ls --jsonl --mode error --pool raw").await);
    let said = site.manager("ch --from-mode error --pool raw --mode manual --dry-run --json").await;
    assert_eq!(said.results().into_iter().map(|(vid, _)| vid).collect::<BTreeSet<_>>(), listed);
    assert_eq!(dump(&site).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_said_is_not_everything_meant_and_nothing_found_is_said() {
    let site = Site::new(World::new()).await;
    crowd(&site).await;
    let before = dump(&site).await;
    for verb in [
        "requeue",
        "retry-failed",
        "abort --reason x",
        "unstick",
        "rm --reason x",
        "hold",
        "release",
        "ch --mode manual",
    ] {
        site.manager(&format!("{verb} --yes")).await.ended(Exit::Misuse).saying(&["--all"]);
        let all = site.manager(&format!("{verb} --all --dry-run --json")).await;
        assert_eq!(all.results().len(), 12, "{verb}: every one that is not finished");
        let none = site.manager(&format!("{verb} --pool nowhere --yes")).await;
        none.ended(Exit::Failed).saying(&["no tape matches"]);
        let none = site.manager(&format!("{verb} --pool nowhere --yes --json")).await;
        assert_eq!(none.ended(Exit::Failed).results(), []);
        site.manager(&format!("{verb} X* --yes")).await.ended(Exit::Failed).saying(&["X*: no such tape"]);
    }
    assert_eq!(dump(&site).await, before);
    site.manager("ch --all --mode manual --yes").await.ended(Exit::Done);
    assert_eq!(site.number(&format!("SELECT count(*) FROM {} WHERE mode = 'manual'", site.table())).await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn tapes_come_from_a_file_and_from_stdin_and_an_empty_list_is_no_filter() {
    let site = Site::new(World::new()).await;
    crowd(&site).await;
    let path = file(&site, "tapes", "v00000 V00003 # not V00006\nV00099\n");
    let path = path.to_str().unwrap();
    let listed = [("V00000", "would-change"), ("V00003", "would-change"), ("V00099", "not-found")];
    let listed = listed.map(|(vid, result)| (vid.to_owned(), result.to_owned()));
    let said = site.manager(&format!("ch --vidfile {path} --priority 50 --dry-run --json")).await;
    assert_eq!(said.ended(Exit::Failed).results(), listed);
    for arguments in [&["-"][..], &["--vidfile", "-"]] {
        let mut command = of_site(&site, MANAGER);
        command.args(["ch", "--priority", "50", "--dry-run", "--json"]).args(arguments);
        let ran = Ran::reading(&mut command, "v00000 V00003\nV00099");
        assert_eq!(ran.ended(1).json()["tapes"].as_array().unwrap().len(), 3, "{arguments:?}");
        let before = dump(&site).await;
        let mut command = of_site(&site, MANAGER);
        Ran::reading(command.args(["rm", "--reason", "x", "--yes"]).args(arguments), " # none\n")
            .ended(2)
            .saying(&["names no tape"]);
        let mut command = of_site(&site, MANAGER);
        Ran::reading(command.args(["rm", "--reason", "x", "--yes"]).args(arguments), "V00000;--all").ended(2);
        assert_eq!(dump(&site).await, before);
    }
    Ran::reading(of_site(&site, MANAGER).args(["ls", "-"]), "V00000").ended(1).saying(&["not read here"]);
}

/// Sessions of this test that wait for a lock.
async fn waiting(site: &Site) -> i64 {
    site.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_that_changed_after_it_was_looked_at_is_left_alone_and_named() {
    let site = Site::new(World::new()).await;
    site.row_of("V00001", 1, "error", "raw").await;
    site.row_of("V00002", 1, "error", "raw").await;
    let other = site.database.client().await;
    let table = site.table();
    other.batch_execute(&format!("BEGIN; SELECT 1 FROM {table} WHERE tape = 'V00001' FOR UPDATE")).await.unwrap();
    let meanwhile = async {
        while waiting(&site).await == 0 {
            tokio::task::yield_now().await;
        }
        let edit =
            format!("UPDATE {table} SET mode = 'auto', repacked = LOCALTIMESTAMP(0) WHERE tape = 'V00001'; COMMIT");
        other.batch_execute(&edit).await.unwrap();
    };
    let (said, ()) = tokio::join!(site.manager("abort --mode error --yes --reason x"), meanwhile);
    said.ended(Exit::Failed).saying(&["V00001", "changed after it was looked at", "it is repacked", "look again"]);
    assert_eq!(
        site.number(&format!("SELECT count(*) FROM {} WHERE wanted = 'give_back'", site.beside("_task"))).await,
        1
    );
    assert!(site.row("V00001").await.task.is_none(), "nothing was written for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_tells_how_far_it_is_and_ctrl_c_leaves_what_is_done_done() {
    let site = Site::new(World::new()).await;
    site.sql(&format!(
        "INSERT INTO {} (tape, entered, files, bytes, usage, mode, priority, mediatype, tapepool, responsible) \
         SELECT 'V' || lpad(n::text, 5, '0'), LOCALTIMESTAMP(0), 1, 1, 1, 'error', 10, 'LTO9', 'raw', 'bob' FROM generate_series(1, 250) n",
        site.table()
    ))
    .await;
    let manual = format!("SELECT count(*) FROM {} WHERE mode = 'manual'", site.table());
    // The third is locked, so that the signal surely comes in the middle.
    let other = site.database.client().await;
    let lock = format!("BEGIN; SELECT 1 FROM {} WHERE tape = 'V00003' FOR UPDATE", site.table());
    other.batch_execute(&lock).await.unwrap();
    let mut command = of_site(&site, MANAGER);
    command.args(["ch", "--all", "--mode", "manual", "--yes"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    while waiting(&site).await == 0 {
        tokio::task::yield_now().await;
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    other.batch_execute("COMMIT").await.unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    let done = site.number(&manual).await;
    assert!((2..250).contains(&done), "{done}");
    let gone_through: i64 = err.split("told to end: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    // The one that was locked may have been given up as busy.
    assert!(gone_through == done || gone_through == done + 1, "{done} are done: {err}");
    assert!(err.contains(&format!("{} are as they were", 250 - gone_through)), "{err}");

    let said = site.manager("ch --all --mode manual --yes").await;
    said.ended(Exit::Done);
    let expected = (250 - done) / 100;
    assert_eq!(
        said.err.lines().filter(|line| line.contains(" tapes") && line.contains(" of ")).count() as i64,
        expected
    );
    assert_eq!(site.number(&manual).await, 250);
    let asked = site.manager_asking("ch --all --mode auto", false).await;
    asked.saying(&["and 200 more: --dry-run shows them all"]);
    assert_eq!(asked.asked, ["ch 250 tapes?"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requeue_twice_and_while_a_dead_letter_waits_is_harmless() {
    let mut world = World::new().with_full_tapes(1);
    world.tapes.get_mut(VID).unwrap().plan = Plan { fail_files: 2, fail_times: 1, ..Plan::default() };
    let site = Site::new(world).await;
    site.enter(&[VID]).await;
    site.tick_until("a failed repack", journeys::site::all_at_rest).await;
    assert_eq!(site.at(VID).await, (State::Started, Mode::Error));
    let task = site.row(VID).await.task.unwrap();
    let letter = (task.stage.clone().unwrap(), task.generation);
    for (words, result) in [("requeue {} --yes --json", "changed"), ("requeue {} --yes --json", "already")] {
        let said = site.manager(&on(words, VID)).await;
        assert_eq!(said.ended(Exit::Done).results(), [(VID.to_owned(), result.to_owned())]);
    }
    let requeued = site.row(VID).await.task.unwrap();
    assert!(requeued.generation > letter.1);
    // The letter of the Stop that was taken back comes now.
    let vid = VID.parse().unwrap();
    let buried = worker::dead_letter::bury(&site.store(), &vid, &letter.0, letter.1, "late").await.unwrap();
    assert!(matches!(buried, worker::dead_letter::Buried::Nothing(_)), "{buried:?}");
    assert_eq!(site.at(VID).await.1, Mode::Auto);
    assert_eq!(site.row(VID).await.task.unwrap(), requeued, "it changes nothing");
    // And the tape goes its way: what is left is repacked again when that is asked for.
    site.tick_until("stopped again", journeys::site::all_at_rest).await;
    site.manager(&format!("retry-failed {VID} --yes")).await.ended(Exit::Done);
    site.finish(VID).await;
    assert_eq!(site.times(VID, "tape reclaim"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_manual_while_a_worker_is_in_the_middle_stops_it_before_its_next_command() {
    let mut site = Site::new(World::new().with_full_tapes(1)).await;
    let barrier = site.barrier();
    site.enter(&[VID]).await;
    site.bring(&[VID], State::Repacked).await;
    site.all_due().await;
    // At its first command of quarantine: allowed, and under way.
    barrier.raise("repack rm");
    let meanwhile = async {
        barrier.reached().await;
        let refused = site.manager(&format!("rm {VID} --yes --reason x")).await;
        refused.ended(Exit::Failed).saying(&["is working on it", "abort"]);
        let said = site.manager(&format!("ch {VID} --mode manual --yes")).await;
        said.ended(Exit::Done).saying(&["is at it now", "starts no other"]);
        barrier.open();
    };
    tokio::join!(site.tick_of(&STAGES[2..3]), meanwhile);
    assert_eq!(site.at(VID).await, (State::Repacked, Mode::Manual));
    let begun: Vec<String> = site.begun(VID).into_iter().map(|call| call.command).collect();
    assert_eq!(begun.last().map(String::as_str), Some("repack rm"), "{begun:?}");
    for _ in 0..3 {
        site.tick().await;
    }
    assert_eq!(site.begun(VID).len(), begun.len(), "in mode manual nobody touches it");
    site.manager(&format!("ch {VID} --mode auto --yes")).await.ended(Exit::Done);
    site.finish(VID).await;
    assert_eq!(site.times(VID, "tape ch --tapepool quarantine"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_quarantine_takes_effect_for_a_waiting_tape_when_it_is_requeued() {
    let mut site = Site::new(World::new().with_full_tapes(1)).await;
    site.settings.quarantine = std::time::Duration::from_secs(31 * 86_400);
    site.enter(&[VID]).await;
    site.bring(&[VID], State::Quarantined).await;
    site.tick().await;
    let said = site.manager(&format!("requeue {VID} --yes")).await;
    said.ended(Exit::Done).saying(&["already so", "the next attempt is in 3"]);
    site.settings.quarantine = std::time::Duration::ZERO;
    for _ in 0..3 {
        site.tick().await;
    }
    assert_eq!(site.at(VID).await.0, State::Quarantined, "the wait was written down");
    let said = site.manager(&format!("requeue {VID} --yes")).await;
    said.ended(Exit::Done).saying(&["instead of in 3"]);
    assert_eq!(site.events_of(VID, "requeue").await[0].actor, ACTOR);
    site.finish(VID).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_that_somebody_emptied_and_moved_is_accepted_when_an_operator_says_so() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&[VID]).await;
    site.bring(&[VID], State::Repacked).await;
    site.manager("pause reclaim --reason test --yes").await.ended(Exit::Done);
    site.bring(&[VID], State::Quarantined).await;
    let cta = |words: &str| {
        let mut command = std::process::Command::new(&site.settings.cta_admin.program);
        assert!(command.args(words.split(' ')).output().unwrap().status.success(), "{words}");
    };
    cta(&format!("tape reclaim --vid {VID}"));
    cta(&format!("tape ch --vid {VID} --tapepool tolabel_IBM1L9"));
    site.manager("resume reclaim --yes").await.ended(Exit::Done);
    site.tick_until("stopped", journeys::site::all_at_rest).await;
    assert_eq!(site.at(VID).await, (State::Quarantined, Mode::Error));
    assert!(site.why(VID).await.1.contains("--accept-empty"), "{:?}", site.why(VID).await);
    site.manager(&format!("requeue {VID} --accept-empty --yes --reason bob-did")).await.ended(Exit::Done);
    let again = site.manager(&format!("requeue {VID} --accept-empty --yes --reason bob-did")).await;
    again.ended(Exit::Done).saying(&["already so"]);
    site.finish(VID).await;
    assert_eq!(site.events_of(VID, "reclaimed-by-someone-else").await[0].detail["accepted"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_this_host_is_a_warning_of_config_check_and_an_error_only_when_strict() {
    let mut site = Site::new(World::new()).await;
    site.settings.cta_admin.program = site.dir.path().join("none");
    let configuration = site.configuration();
    let said = at_desk(&configuration, &["config", "check"], None).await;
    said.ended(Exit::Done).saying(&["warning: ", "binaries.cta-admin", "install cta-cli"]);
    at_desk(&configuration, &["config", "check", "--strict"], None).await.ended(Exit::Misuse);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_everybody_can_read_is_warned_of_once() {
    let site = Site::new(World::new()).await;
    let configuration = site.configuration();
    let text = std::fs::read_to_string(&configuration).unwrap();
    let with_password = text.replacen("\"username\"", "\"password\": \"x1y2z3\", \"username\"", 1);
    // No log can be written, so warnings of the log go to stderr.
    let shut = file(&site, "shut", "");
    let log = serde_json::to_string(&site.settings.logging.log_dir).unwrap();
    let text = with_password.replace(&log, &serde_json::to_string(&shut.join("log")).unwrap());
    assert!(text != with_password && with_password.contains("x1y2z3"));
    std::fs::write(&configuration, text).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&configuration, open).unwrap();
    for (program, verb) in [("cta-ops-repack-producer", &["tick"][..]), ("cta-ops-repack-producer", &["tick", "-V"])] {
        let ran = Ran::of(
            std::process::Command::new(journeys::site::program(program)).arg("-C").arg(&configuration).args(verb),
        );
        assert_eq!(ran.stderr.matches("everybody on this host").count(), 1, "{verb:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("x1y2z3"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_and_a_pause_keep_their_reason_when_nobody_gives_another() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&[VID]).await;
    site.manager(&format!("hold {VID} --reason audit --yes")).await.ended(Exit::Done);
    site.manager(&format!("hold {VID} --yes")).await.ended(Exit::Done).saying(&["already so", "audit"]);
    site.manager("pause start --reason recalls --yes").await.ended(Exit::Done);
    site.manager("pause start --yes").await.ended(Exit::Done).saying(&["already so", "recalls"]);
    assert_eq!(in_force(&site).await, [("audit".to_owned(), false), ("recalls".to_owned(), false)]);
}

/// Reasons of the holds and pauses, and whether they end by themselves.
async fn in_force(site: &Site) -> Vec<(String, bool)> {
    let controls = site.store().controls().await.unwrap();
    controls.into_iter().map(|line| (line.hold.why, line.hold.until.is_some())).collect()
}

/// Somebody relies on the longer one: a pause of all stages for an hour must not end the pause of reclaim.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_or_a_pause_is_never_shortened_by_another() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&[VID]).await;
    for verb in [format!("hold {VID}"), "pause reclaim".to_owned()] {
        site.manager(&format!("{verb} --reason first-day --yes")).await.ended(Exit::Done);
        let shorter = site.manager(&format!("{verb} --for 1h --reason upgrade --yes")).await;
        shorter.ended(Exit::Done).saying(&["already so", "it stays so"]);
    }
    let kept = in_force(&site).await;
    assert_eq!(kept, [("first-day".to_owned(), false), ("first-day".to_owned(), false)]);
    // Also where the longer one was put while this one was asked about.
    let (soon, none) = (Some(chrono::Utc::now() + chrono::TimeDelta::hours(1)), serde_json::Value::Null);
    assert!(!site.store().pause("reclaim", Some(("upgrade", soon)), &none).await.unwrap());
    site.store().set_control("hold", VID, "upgrade", soon).await.unwrap();
    assert_eq!(in_force(&site).await, kept);
    // Longer is as asked, and the history knows what it replaced.
    site.manager("resume reclaim --yes").await.ended(Exit::Done);
    for (span, reason) in [("1h", "short"), ("2h", "longer")] {
        site.manager(&format!("pause reclaim --for {span} --reason {reason} --yes")).await.ended(Exit::Done);
    }
    let kept = in_force(&site).await;
    assert!(kept.contains(&("longer".to_owned(), true)), "{kept:?}");
    let instead = format!(
        "SELECT detail->'instead'->>'why' FROM {} WHERE kind = 'pause' ORDER BY id DESC LIMIT 1",
        site.beside("_event")
    );
    let client = site.database.client().await;
    assert_eq!(client.query_one(&instead, &[]).await.unwrap().get::<_, Option<String>>(0).as_deref(), Some("short"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requeue_says_where_it_would_only_stop_again_and_what_is_meant_instead() {
    let site = Site::new(World::new()).await;
    site.row_of(VID, 1, "error", "raw").await;
    site.manager(&format!("requeue {VID} --yes")).await.ended(Exit::Done);
    let hint = "retry-failed V01001' repacks what is left";
    for (code, hinted) in
        [("repack-failed", true), ("files-left", true), ("request-gone", true), ("someone-elses-request", false)]
    {
        stopped(&site, code).await;
        for words in ["requeue {} --dry-run", "ch {} --mode auto --dry-run"] {
            let said = site.manager(&on(words, VID)).await;
            said.ended(Exit::Done);
            assert_eq!(said.err.contains(hint), hinted, "{code}, {words}: {said:?}");
        }
        // Before asking, and not where what is there is taken as ours.
        let said = site.manager_asking(&format!("requeue {VID}"), false).await;
        assert_eq!(said.err.contains(hint), hinted, "{code}: {said:?}");
        let said = site.manager(&format!("requeue {VID} --adopt --reason x --dry-run")).await;
        assert!(!said.err.contains(hint), "{code}: {said:?}");
    }
    stopped(&site, "repack-failed").await;
    let said = site.manager(&format!("retry-failed {VID} --dry-run")).await;
    assert!(!said.ended(Exit::Done).err.contains("stops again"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rm_says_how_cta_s_tape_is_left_and_what_gives_it_back() {
    let mut site = Site::new(World::new().with_full_tapes(2).with_durations(0, 0)).await;
    site.settings.quarantine = std::time::Duration::from_secs(86_400);
    site.enter(&[VID]).await;
    site.bring(&[VID], State::Quarantined).await;
    let pool = site.row(VID).await.row.unwrap().tapepool;
    let said = site.manager(&format!("rm {VID} --dry-run")).await;
    said.ended(Exit::Done).saying(&[
        "nothing is changed in CTA",
        "it stays DISABLED in pool quarantine",
        &format!("abort V01001' gives it state ACTIVE and pool {pool} back instead"),
    ]);
    let tape = site.world().tapes[VID].clone();
    assert_eq!((tape.state.name(), tape.pool.as_str()), ("DISABLED", "quarantine"), "it says what is so");
    // What it says of abort is so, too.
    site.manager(&format!("abort {VID} --yes --reason x")).await.ended(Exit::Done);
    let begun = std::time::Instant::now();
    while !site.rows().await.is_empty() {
        assert!(begun.elapsed() < journeys::site::PATIENCE, "not given back");
        site.tick().await;
    }
    let tape = site.world().tapes[VID].clone();
    assert_eq!((tape.state.name(), &tape.pool), ("ACTIVE", &pool));

    site.row_of("V00009", 4, "manual", "raw").await;
    let said = site.manager("rm V00009 --dry-run").await;
    said.ended(Exit::Done).saying(&[
        "stays in pool quarantine, empty",
        "cannot be given back any more",
        "requeue V00009",
    ]);
    site.manager("abort V00009 --yes --reason x").await.ended(Exit::Failed).saying(&["nothing to give back"]);
    site.row_of("V00010", 0, "manual", "raw").await;
    let said = site.manager("rm V00010 --dry-run").await;
    assert!(!said.ended(Exit::Done).err.contains("CTA"), "nothing was done to it: {said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hold_is_listed_whether_its_tape_is_in_the_table_or_not() {
    let site = Site::new(World::new()).await;
    site.manager("hold --list").await.ended(Exit::Done).saying(&["no tape is on hold"]);
    site.row_of("V00001", 1, "auto", "raw").await;
    site.row_of("V00002", 0, "auto", "raw").await;
    site.manager("hold X00009 V00001 --reason audit --yes").await.ended(Exit::Done);
    site.manager("hold V00002 --reason short --for 2d --yes").await.ended(Exit::Done);
    let before = dump(&site).await;
    let said = site.manager("hold --list").await;
    said.ended(Exit::Done).saying(&[
        "X00009",
        "not in the table",
        "started, mode auto",
        "audit",
        "alice@desk",
        "short",
    ]);
    assert_eq!(said.out.lines().count(), 4, "{said:?}");
    let json = site.manager("hold --list --json").await.json();
    let list: Vec<(&str, &str, bool)> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|hold| (hold["vid"].as_str().unwrap(), hold["why"].as_str().unwrap(), hold["until"].is_null()))
        .collect();
    assert_eq!(list, [("V00001", "audit", true), ("V00002", "short", false), ("X00009", "audit", true)]);
    assert_eq!((&json[0]["state"], &json[2]["state"]), (&"started".into(), &serde_json::Value::Null));
    site.manager("hold --list --pool raw").await.ended(Exit::Misuse).saying(&["ls --held"]);
    assert_eq!(dump(&site).await, before, "looking changes nothing");
}

//! `ls` and `show`: what they choose, what they say when something is away, and by which plan PostgreSQL finds it.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use clap::Parser as _;
use common::journey::{Mode, State};
use common::store::OverviewFilter;
use common::task::Wanted;
use cta_sim::{Action, Order, World};
use journeys::proxy::Proxy;
use journeys::services::Services;
use journeys::shell::{Ran, of_site};
use journeys::site::{Site, all_at_rest};
use manager::cli::Cli;
use manager::output::{Desk, Exit};
use serde_json::Value;

const MANAGER: &str = "cta-ops-repack-manager";

/// All of these words are in what was printed.
#[track_caller]
fn tells(ran: &Ran, words: &[&str]) {
    for word in words {
        assert!(
            ran.stdout.contains(word) || ran.stderr.contains(word),
            "'{word}' is not said: {}{}",
            ran.stdout,
            ran.stderr
        );
    }
}

/// Runs a command line in this process, as at a pipe.
async fn run(site: &Site, words: &[&str]) -> (Exit, String, String) {
    let config = site.configuration();
    let program = ["manager", "-C", config.to_str().unwrap()];
    let cli = Cli::try_parse_from(program.into_iter().chain(words.iter().copied())).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut desk = Desk { out: &mut out, err: &mut err, ask: None, width: None, colour: false };
    let exit = manager::run(&cli, "alice@desk", &mut desk).await;
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

async fn listed(site: &Site, words: &[&str]) -> Vec<Value> {
    let (exit, out, err) = run(site, words).await;
    assert_eq!(exit, Exit::Done, "{words:?}: {err}");
    serde_json::from_str::<Value>(&out).unwrap().as_array().unwrap().clone()
}

fn vids(tapes: &[Value]) -> Vec<String> {
    tapes.iter().map(|tape| tape["vid"].as_str().unwrap().to_owned()).collect()
}

/// Sixty tapes that differ in everything a filter can ask for, and one odd row.
async fn mixed() -> Site {
    let site = Site::new(World::new()).await;
    site.sql(
        "INSERT INTO repack_status (tape, entered, started, repacked, quarantined, reclaimed, finished, files, bytes, usage, mode,
            priority, mediatype, tapepool, responsible)
         SELECT 'V' || (n % 3) || to_char(n, 'FM0000'), t, CASE WHEN n % 6 > 0 THEN t END, CASE WHEN n % 6 > 1 THEN t END,
            CASE WHEN n % 6 > 2 THEN t END, CASE WHEN n % 6 > 3 THEN t END, CASE WHEN n % 6 > 4 THEN t END, n, n * 1000, 10,
            (ARRAY['auto', 'auto', 'manual', 'error'])[1 + n / 6 % 4]::automation_modes, 10 - n % 4, (ARRAY['LTO8', 'LTO9'])[1 + n % 2],
            (ARRAY['raw', 'raw_2', 'rawx2', 'r%w'])[1 + n / 2 % 4], (ARRAY['bob', 'alice'])[1 + n / 3 % 2]
         FROM (SELECT n, LOCALTIMESTAMP(0) - n * interval '1 hour' - interval '30 minutes' AS t FROM generate_series(1, 60) n) s;
         INSERT INTO repack_status (tape, entered, reclaimed, files, bytes, usage, mode, priority, mediatype, tapepool, responsible)
         VALUES ('VODD', LOCALTIMESTAMP(0), LOCALTIMESTAMP(0), 1, 1, 1, 'error', 10, 'LTO9', 'raw', 'bob');
         INSERT INTO repack_status_task (tape, stage, generation, epoch, outcome, reason_code, reason, memory)
         SELECT tape, 'end', files, files, (ARRAY['waiting', 'retrying', 'stalled', 'failed', NULL])[1 + files % 5],
            (ARRAY['repack-running', 'look-failed', 'repack-stalled', 'repack-failed', NULL])[1 + files % 5], 'so it is',
            CASE WHEN files % 3 = 0 THEN '{}' ELSE jsonb_build_object('logical_library', 'LIB' || files % 3) END
         FROM repack_status WHERE files % 7 > 0 AND tape <> 'VODD';
         INSERT INTO repack_status_control (kind, name, who, why)
         SELECT 'hold', tape, 'alice', 'audit' FROM repack_status WHERE files % 5 = 0",
    )
    .await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn each_filter_chooses_what_a_look_at_every_tape_would_choose() {
    let site = mixed().await;
    let all = listed(&site, &["ls", "--all", "--json"]).await;
    assert_eq!(all.len(), 61);
    let hours = |tape: &Value| tape["files"].as_i64().unwrap_or_default();
    let text = |key: &'static str, wanted: &'static [&'static str]| {
        move |tape: &Value| tape[key].as_str().is_some_and(|value| wanted.contains(&value))
    };
    type Chosen = Box<dyn Fn(&Value) -> bool>;
    let library = move |tape: &Value| hours(tape) % 7 > 0 && hours(tape) % 3 == 1;
    let cases: Vec<(&[&str], Chosen)> = vec![
        (&["--state", "started,reclaimed"], Box::new(text("state", &["started", "reclaimed"]))),
        (&["--mode", "error"], Box::new(|tape| tape["mode"] == "error" || tape["odd"].is_array())),
        (&["--pool", "raw"], Box::new(move |tape| tape["pool"] == "raw" || tape["odd"].is_array())),
        (&["--pool", "raw_2"], Box::new(text("pool", &["raw_2"]))),
        (&["--pool", "raw?2"], Box::new(text("pool", &["raw_2", "rawx2"]))),
        (&["--pool", "r%*"], Box::new(text("pool", &["r%w"]))),
        (&["--mediatype", "LTO8"], Box::new(text("mediatype", &["LTO8"]))),
        (&["--library", "LIB1"], Box::new(library)),
        (&["--priority", "7", "--priority", "9"], Box::new(|tape| [7, 9].map(Value::from).contains(&tape["priority"]))),
        (&["--responsible", "al*"], Box::new(text("responsible", &["alice"]))),
        (&["--older-than", "20h"], Box::new(move |tape| tape["odd"].is_null() && hours(tape) >= 20)),
        (&["--newer-than", "20h"], Box::new(move |tape| tape["odd"].is_null() && hours(tape) < 20)),
        (&["--outcome", "stalled,failed"], Box::new(text("outcome", &["stalled", "failed"]))),
        (&["--code", "repack-failed"], Box::new(text("reason_code", &["repack-failed"]))),
        (
            &["--code", "on-hold,manual"],
            Box::new(|tape| ["on-hold", "manual"].map(Value::from).contains(&tape["waits"]["code"])),
        ),
        (&["--held"], Box::new(|tape| tape["hold"].is_object())),
        (
            &["V0*", "v1000?"],
            Box::new(|tape| {
                let vid = tape["vid"].as_str().unwrap();
                vid.starts_with("V0") || (vid.starts_with("V1000") && vid.len() == 6)
            }),
        ),
    ];
    for (words, chosen) in &cases {
        let expected: Vec<Value> = all.iter().filter(|tape| chosen(tape)).cloned().collect();
        assert!(!expected.is_empty() && expected.len() < all.len(), "{words:?} shows nothing: {}", expected.len());
        let line: Vec<&str> = ["ls", "--all", "--json"].into_iter().chain(words.iter().copied()).collect();
        assert_eq!(vids(&listed(&site, &line).await), vids(&expected), "{words:?}");
        // Without --all the finished ones are left out, unless they are asked for.
        let line: Vec<&str> = ["ls", "--json"].into_iter().chain(words.iter().copied()).collect();
        let open: Vec<Value> = expected.into_iter().filter(|tape| tape["finished"].is_null()).collect();
        assert_eq!(vids(&listed(&site, &line).await), vids(&open), "{words:?}");
    }
    // Two at once must both hold.
    for (at, (one, chosen_one)) in cases.iter().enumerate() {
        let others = [3, 7].map(|further| &cases[(at + further) % cases.len()]);
        for (other, chosen_other) in others.into_iter().filter(|(other, _)| other[0] != one[0]) {
            let expected: Vec<Value> =
                all.iter().filter(|tape| chosen_one(tape) && chosen_other(tape)).cloned().collect();
            let line: Vec<&str> =
                ["ls", "--all", "--json"].into_iter().chain(one.iter().copied()).chain(other.iter().copied()).collect();
            let state = |words: &[&str]| words[0] == "--state" || words[0].ends_with("-than");
            let odd_counts = !state(one) && !state(other);
            let expected: Vec<Value> =
                expected.into_iter().filter(|tape| odd_counts || tape["odd"].is_null()).collect();
            assert_eq!(vids(&listed(&site, &line).await), vids(&expected), "{line:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tapes_come_in_the_order_and_number_that_is_asked_for() {
    let site = mixed().await;
    let base = listed(&site, &["ls", "--all", "--json"]).await;
    let order = ["entered", "started", "repacked", "quarantined", "reclaimed", "finished"];
    let place = |tape: &Value| order.iter().position(|state| tape["state"] == **state).unwrap();
    let mut expected: Vec<Value> = base.iter().filter(|tape| tape["odd"].is_null()).cloned().collect();
    expected.sort_by_key(|tape| (-tape["priority"].as_i64().unwrap(), place(tape)));
    expected.extend(base.iter().filter(|tape| tape["odd"].is_array()).cloned());
    let sorted = listed(&site, &["ls", "--all", "--json", "--sort", "-priority,state"]).await;
    assert_eq!(vids(&sorted), vids(&expected));
    let few = listed(&site, &["ls", "--all", "--json", "--sort", "-bytes", "--limit", "3"]).await;
    assert_eq!(few.iter().map(|tape| tape["files"].as_i64().unwrap()).collect::<Vec<_>>(), [60, 59, 58]);
    let (_, out, err) = run(&site, &["ls", "--all", "--jsonl", "--limit", "2"]).await;
    assert_eq!(out.lines().count(), 2);
    assert!(err.contains("more than these 2"), "{err}");
    let longest = listed(&site, &["ls", "--all", "--json", "--sort", "-since", "--limit", "1"]).await;
    assert_eq!(longest[0]["files"], 60, "the oldest is the longest in its state");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_named_and_is_not_there_is_said_and_odd_rows_are_not_forgotten() {
    let site = mixed().await;
    let (exit, out, err) = run(&site, &["ls", "V10001", "X99999"]).await;
    assert_eq!(exit, Exit::Failed);
    assert!(out.contains("V10001") && err.contains("X99999: not in the table"), "{out}{err}");
    let (exit, _, err) = run(&site, &["ls", "X*"]).await;
    assert_eq!(exit, Exit::Failed);
    assert!(err.contains("X*: no such tape"), "{err}");
    // It is in the table, but not in this mode: nothing is missing.
    let (exit, out, err) = run(&site, &["ls", "V10001", "--mode", "error"]).await;
    assert_eq!((exit, out.contains("V10001")), (Exit::Done, false), "{err}");
    let (_, out, _) = run(&site, &["ls"]).await;
    assert!(out.contains("VODD"), "{out}");
    let (_, out, err) = run(&site, &["ls", "--state", "reclaimed"]).await;
    assert!(!out.contains("VODD") && err.contains("odd rows left out"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_says_why_it_is_empty() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    let (exit, _, err) = run(&site, &["ls"]).await;
    assert_eq!(exit, Exit::Done);
    assert!(err.contains("the table is empty"), "{err}");
    site.enter(&["V01001"]).await;
    site.finish("V01001").await;
    let (_, out, err) = run(&site, &["ls"]).await;
    assert!(err.contains("nothing on its way: 1 finished; ls --all shows them"), "{err}");
    assert!(out.contains("last tick"), "{out}");
    assert!(run(&site, &["ls", "--all"]).await.1.contains("V01001"));
    assert!(run(&site, &["ls", "V01001"]).await.1.contains("V01001"), "a named one is listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_leaves_word_and_trouble_of_the_site_is_one_line() {
    let site = Site::new(World::new().with_full_tapes(4)).await;
    let vids = ["V01001", "V01002", "V01003", "V01004"];
    site.enter(&vids).await;
    let (_, out, _) = run(&site, &["ls"]).await;
    assert!(out.starts_with("slots 0 of 10; 0 tapes in mode error; no tick is recorded yet"), "{out}");
    site.edit(|world| world.down = true);
    assert!(site.tick().await.failed());
    site.sql("UPDATE repack_status_task SET next_attempt_at = NULL, outcome = 'waiting', reason_code = 'site-trouble', reason = 'no CTA'").await;
    let (exit, out, _) = run(&site, &["ls"]).await;
    assert_eq!(exit, Exit::Done);
    assert!(out.contains("ticks could not do all of their work"), "{out}");
    assert!(out.contains("the last attempt found the site in trouble, at 4 tapes: no CTA"), "{out}");
    assert_eq!(out.matches("no CTA").count(), 1, "{out}");
    assert_eq!(out.matches("see above").count(), 4, "{out}");
    let since = "SELECT count(DISTINCT trouble_since) + count(*) FROM repack_status_tick WHERE at > trouble_since";
    site.tick().await;
    assert!(site.number(since).await >= 2, "the trouble is older than the last tick");
    site.edit(|world| world.down = false);
    site.tick().await;
    let (_, out, _) = run(&site, &["ls"]).await;
    assert!(!out.contains("could not do") && out.contains("last tick"), "{out}");
    // Nobody ticks any more.
    site.sql("UPDATE repack_status_tick SET at = at - interval '5 hours'").await;
    assert!(run(&site, &["ls"]).await.1.contains("no tick for 5h"));
    // Tables that an older program made: everything else is still said.
    site.sql("DROP TABLE repack_status_tick").await;
    let (exit, out, _) = run(&site, &["ls", "--all"]).await;
    assert!(exit == Exit::Done && out.contains("ticks are not recorded") && out.contains("V01004"), "{out}");
    assert!(!site.tick().await.failed(), "a tick does not depend on it");
}

#[tokio::test(flavor = "multi_thread")]
async fn show_tells_the_row_and_cta_apart_and_says_what_it_could_not_ask() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&["V01001"]).await;
    site.bring(&["V01001"], State::Started).await;
    let show = |words: &[&str]| {
        let mut line = vec!["show", "V01001"];
        line.extend(words);
        Ran::of(of_site(&site, MANAGER).args(line))
    };
    let all = show(&[]);
    tells(
        all.ended(0),
        &["the row says", "CTA says", "state        REPACKING", "the queue holds", "no broker is configured"],
    );
    let at = |what: &str| all.stdout.find(what).unwrap_or_else(|| panic!("{what}: {}", all.stdout));
    assert!(at("V01001: started") < at("the row says") && at("the row says") < at("CTA says"));
    assert!(at("CTA says") < at("the queue holds") && at("the queue holds") < at("what happened"));

    site.edit(|world| world.down = true);
    let away = show(&[]);
    tells(away.ended(0), &["the row says", "CTA could not be asked"]);
    assert!(show(&["--json"]).ended(0).json()["cta"]["tape_error"].is_string());
    let asked = site.journal().len();
    let quiet = show(&["--no-cta"]);
    tells(quiet.ended(0), &["not asked"]);
    assert!(show(&["--no-cta", "--json"]).ended(0).json()["cta"].is_null());
    assert_eq!(site.journal().len(), asked, "CTA was asked nevertheless");
    site.edit(|world| world.down = false);

    site.order(Order::always("tape ls", Action::Hang));
    let hangs = show(&[]);
    tells(hangs.ended(0), &["CTA could not be asked", "request      "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn show_asks_the_queue_and_a_broker_that_is_away_is_said() {
    let vhost = Services::get().fresh_vhost();
    let mut site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&["V01001"]).await;
    site.settings.broker = Some(vhost.broker());
    let show = |site: &Site| Ran::of(of_site(site, MANAGER).args(["show", "V01001", "--no-cta"]));
    tells(show(&site).ended(0), &["test.v1.stage.start: there is no such queue", "none is under way"]);
    site.tick().await;
    tells(show(&site).ended(0), &["test.v1.stage.start: 1 message that nobody has in hand, 0 consumers", "published"]);
    let json = Ran::of(of_site(&site, MANAGER).args(["show", "V01001", "--no-cta", "--json"])).ended(0).json();
    assert_eq!((&json["queue"]["stage"]["messages"], &json["queue"]["error"]), (&1.into(), &Value::Null));
    let mut away = vhost.broker();
    away.url = away.url.replace(&vhost.address(), "127.0.0.1:1");
    site.settings.broker = Some(away);
    tells(show(&site).ended(0), &["the row says", "the broker could not be asked"]);
    tells(Ran::of(of_site(&site, MANAGER).arg("ls")).ended(0), &["V01001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_that_is_not_on_its_way_is_told_by_what_is_known_of_it() {
    let site = Site::new(World::new().with_full_tapes(3)).await;
    site.enter(&["V01001", "V01002"]).await;
    site.bring(&["V01001"], State::Started).await;
    site.want("V01001", Wanted::GiveBack).await;
    let begun = std::time::Instant::now();
    while site.rows().await.len() > 1 {
        assert!(begun.elapsed() < journeys::site::PATIENCE, "not given back");
        site.tick_of(&[common::stages::STAGES[1]]).await;
    }
    let show = |vid: &str| Ran::of(of_site(&site, MANAGER).args(["show", vid, "--no-cta"]));
    tells(
        show("V01001").ended(1),
        &["V01001: not in the table", "not on its way", "given back on", "by ", "started, mode auto"],
    );
    Ran::of(of_site(&site, MANAGER).args(["hold", "V01003", "--yes", "--reason", "audit"])).ended(0);
    tells(show("V01003").ended(1), &["not on its way", "hold", "audit"]);
    tells(show("V01009").ended(1), &["nothing is known of it here", "nothing is recorded"]);
    Ran::of(of_site(&site, MANAGER).args(["ch", "V01002", "--mode", "manual", "--yes"])).ended(0);
    tells(show("V01002").ended(0), &["none in mode manual"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_tape_says_fits_80_columns_and_does_not_contradict_itself() {
    let mut world = World::new().with_full_tapes(1);
    world.tapes.get_mut("V01001").unwrap().plan =
        cta_sim::Plan { fail_files: 2, fail_times: 9, ..cta_sim::Plan::default() };
    let site = Site::new(world).await;
    site.enter(&["V01001"]).await;
    site.tick_until("a failed repack", all_at_rest).await;
    assert_eq!(site.at("V01001").await, (State::Started, Mode::Error));
    let config = site.configuration();
    let cli = Cli::try_parse_from(["manager", "-C", config.to_str().unwrap(), "show", "V01001"]).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut desk = Desk { out: &mut out, err: &mut err, ask: None, width: Some(80), colour: false };
    assert_eq!(manager::run(&cli, "alice@desk", &mut desk).await, Exit::Done);
    let text = String::from_utf8(out).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("none in mode error: an operator decides") && text.contains("retry-failed"), "{text}");
    assert_eq!(text.matches("end: stopped, error:").count(), 1, "{text}");
    assert!(!text.contains("\"state\""), "proofs are for -V: {text}");
    let whole = Ran::of(of_site(&site, MANAGER).args(["show", "V01001", "-V", "--no-cta"]));
    assert!(whole.ended(0).stdout.contains("proof: {"), "{}", whole.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_nothing_is_said_but_that() {
    let mut site = Site::new(World::new()).await;
    let proxy = Proxy::to(&format!("{}:{}", site.settings.database.host, site.settings.database.port)).await;
    proxy.cut();
    let (host, port) = proxy.address().split_once(':').map(|(h, p)| (h.to_owned(), p.parse().unwrap())).unwrap();
    (site.settings.database.host, site.settings.database.port) = (host, port);
    for words in [vec!["ls"], vec!["ls", "--mode", "error", "--json"], vec!["show", "V01001"]] {
        let ran = Ran::of(of_site(&site, MANAGER).args(&words));
        tells(ran.ended(1), &["error: connecting to PostgreSQL at"]);
        assert_eq!(ran.stdout, "", "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn among_many_rows_what_is_asked_for_is_found_by_an_index() {
    let site = Site::new(World::new()).await;
    site.sql(
        "INSERT INTO repack_status (tape, entered, started, repacked, quarantined, reclaimed, finished, files, bytes, usage, mode,
            priority, mediatype, tapepool, responsible)
         SELECT 'V' || to_char(n, 'FM000000'), t, t, t, t, t, CASE WHEN n % 50 > 0 THEN t END, 1, 1, 1,
            (CASE WHEN n % 1000 = 0 THEN 'error' ELSE 'auto' END)::automation_modes, 10, 'LTO9', 'raw', 'bob'
         FROM (SELECT n, LOCALTIMESTAMP(0) AS t FROM generate_series(1, 50000) n) s;
         INSERT INTO repack_status_task (tape, stage, generation, epoch) SELECT tape, 'finish', 1, 1 FROM repack_status;
         ANALYZE repack_status, repack_status_task, repack_status_control",
    )
    .await;
    let store = site.store();
    let vids: Vec<common::tape::Vid> = ["V000001", "V049999"].map(|vid| vid.parse().unwrap()).into();
    let globs = vec!["V0012*".parse().unwrap()];
    let all = OverviewFilter { finished: true, ..OverviewFilter::default() };
    let cases = [
        ("open", OverviewFilter::default()),
        ("mode error", OverviewFilter { modes: vec![Mode::Error], ..OverviewFilter::default() }),
        ("mode error of all", OverviewFilter { modes: vec![Mode::Error], ..all.clone() }),
        ("vids", OverviewFilter { vids: vids.clone(), ..OverviewFilter::default() }),
        ("globs", OverviewFilter { globs: globs.clone(), ..all.clone() }),
        ("both", OverviewFilter { vids, globs, ..all.clone() }),
        ("state", OverviewFilter { states: vec![State::Reclaimed], ..OverviewFilter::default() }),
        ("first", OverviewFilter { limit: Some(10), ..all }),
    ];
    for (what, filter) in cases {
        let plan = store.plan_of_overviews(&filter).await.unwrap();
        assert!(!plan.iter().any(|line| line.contains("Seq Scan on repack_status m")), "{what}: {plan:#?}");
        // For many rows one pass over the task table is the cheaper way.
        let many = ["open", "state"].contains(&what);
        let passes = plan.iter().any(|line| line.contains("Seq Scan on repack_status_task"));
        assert!(many || !passes, "{what}: {plan:#?}");
    }
    let whole = OverviewFilter { finished: true, ..OverviewFilter::default() };
    let plan = store.plan_of_overviews(&whole).await.unwrap();
    assert!(plan.iter().any(|line| line.contains("on repack_status m")), "the words are those of a plan: {plan:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prepare_records_the_logical_library() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&["V01001"]).await;
    let library = site.world().tapes["V01001"].logical_library.clone();
    assert_eq!(vids(&listed(&site, &["ls", "--json", "--library", &library]).await), ["V01001"]);
    assert!(listed(&site, &["ls", "--json", "--library", "NONE"]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tapes_are_shown_one_after_the_other_and_nobody_waits_twice_for_what_is_away() {
    let site = Site::new(World::new().with_full_tapes(3)).await;
    site.enter(&["V01001", "V01002"]).await;
    let all = Ran::of(of_site(&site, MANAGER).args(["show", "V01002", "V01001"]));
    let at = |what: &str| all.stdout.find(what).unwrap_or_else(|| panic!("{what}: {}", all.stdout));
    assert!(at("V01002: entered") < at("V01001: entered"), "in the order that was typed: {}", all.stdout);
    assert_eq!(all.ended(0).stdout.matches("CTA says").count(), 2);
    let json = Ran::of(of_site(&site, MANAGER).args(["show", "V01001", "V09999", "V01002", "--json"]));
    let vids: Vec<String> = json
        .ended(1)
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["vid"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(vids, ["V01001", "V09999", "V01002"], "an object a line, that which is not there too");
    tells(Ran::of(of_site(&site, MANAGER).args(["show", "V01001", "V09999"])).ended(1), &["V09999: not in the table"]);

    site.edit(|world| world.down = true);
    let asked = site.journal().len();
    Ran::of(of_site(&site, MANAGER).args(["show", "V01001"])).ended(0);
    let once = site.journal().len() - asked;
    let away = Ran::of(of_site(&site, MANAGER).args(["show", "V01001", "V01002"]));
    assert_eq!(away.ended(0).stdout.matches("CTA could not be asked").count(), 2, "{}", away.stdout);
    assert_eq!(site.journal().len() - asked, 2 * once, "it was asked about the first alone");
}

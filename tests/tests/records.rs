//! What the manager shows of the past and of the surroundings: history, figures, queues, parked messages, files left behind.

use std::collections::BTreeSet;
use std::process::Command;

use common::broker::{Link, Publisher, Task, Topology};
use common::journey::Mode;
use common::stages::STAGES;
use cta_sim::World;
use cta_sim::world::{Plan, Run, Tape};
use journeys::services::{Services, TestVhost};
use journeys::shell::{MANAGER, PRODUCER, Ran, dump, of_site};
use journeys::site::{PATIENCE, Site};
use journeys::steps::moment;
use serde_json::Value;

fn manager(site: &Site, words: &str) -> Ran {
    Ran::of(of_site(site, MANAGER).args(words.split_whitespace()))
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap_or_else(|| panic!("{object} is no object")).keys().cloned().collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

/// The keys of the table of a section whose first column has this name.
fn documented(heading: &str, first: &str, nth: usize) -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json-manager.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let lines = text.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with("## "));
    let mut tables: Vec<BTreeSet<String>> = Vec::new();
    let mut inside = false;
    for line in lines {
        let cell = line.trim_matches('|').split(" | ").next().unwrap_or_default().trim();
        match (line.starts_with('|'), inside) {
            (true, false) if cell == first => {
                inside = true;
                tables.push(BTreeSet::new());
            }
            (true, true) => {
                tables.last_mut().expect("it has a head").extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
            }
            (false, _) => inside = false,
            (true, false) => {}
        }
    }
    tables.get(nth).unwrap_or_else(|| panic!("{heading} {first} {nth}: {tables:?}")).clone()
}

fn json_lines(ran: &Ran) -> Vec<Value> {
    ran.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

async fn empty_site() -> Site {
    Site::new(World::new()).await
}

/// So many events, the newest now, ten seconds apart, of a thousand tapes, each with particulars.
async fn long_history(site: &Site, events: u32) {
    site.sql(&format!(
        "INSERT INTO repack_status_event (at, tape, journey, stage, kind, actor, detail) \
         SELECT now() - interval '10 s' * ({events} - n), 'V' || lpad((n % 1000)::text, 5, '0'), '2026-01-01', 'start', \
         CASE WHEN n % 2 = 0 THEN 'intent' ELSE 'answer' END, CASE WHEN n % 10 = 0 THEN 'alice@desk' ELSE 'worker@host' END, \
         jsonb_build_object('n', n, 'text', repeat(md5(n::text), 8)) FROM generate_series(1, {events}) n; \
         ANALYZE repack_status_event"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_filtered_and_its_newest_are_printed_oldest_first() {
    let site = empty_site().await;
    long_history(&site, 5000).await;
    let numbers = |words: &str| {
        let ran = manager(&site, &format!("history --jsonl {words}"));
        let numbers: Vec<i64> =
            json_lines(ran.ended(0)).iter().map(|event| event["detail"]["n"].as_i64().expect("n")).collect();
        numbers
    };
    assert_eq!(numbers("").len(), 100, "the newest hundred");
    assert_eq!(numbers("--limit 3"), [4998, 4999, 5000]);
    assert_eq!(numbers("--limit 0").len(), 5000);
    assert_eq!(numbers("v00007 --limit 2"), [3007, 4007]);
    assert_eq!(numbers("V00007 V00008 --limit 3"), [3008, 4007, 4008]);
    assert_eq!(numbers("v0000? V00500 --limit 4"), [4008, 4009, 4500, 5000]);
    assert_eq!(numbers("V0001* --limit 0").len(), 50);
    assert_eq!(numbers("--actor alice --limit 2"), [4990, 5000]);
    assert_eq!(numbers("--actor alice@desk --limit 1"), [5000]);
    assert_eq!(numbers("--actor ali").len(), 0);
    assert_eq!(numbers("--kind answer --stage start --limit 2"), [4997, 4999]);
    assert_eq!(numbers("--stage finish").len(), 0);
    // The events are ten seconds apart, and no test takes an hour.
    let hour = numbers("--since 2h --until 1h --limit 0");
    assert!((355..=365).contains(&hour.len()) && hour[0] > 4200 && hour.is_sorted(), "{hour:?}");

    let text = manager(&site, "history V00007");
    assert_eq!(text.ended(0).stdout.lines().count(), 6, "a head and five lines: {text:?}");
    assert!(text.stdout.contains("2026-01-01") && text.stdout.contains("worker@host"), "says which journey, and who");
    let missing = manager(&site, "history V00007 V09999");
    missing.ended(1).saying(&["V09999"]);
    assert!(missing.stdout.contains("V00007") && !missing.stderr.contains("V00007"));
    for bad in [
        "history --since yesterday",
        "history --stage scan",
        "history --limit -1",
        "history --jsonl --json",
        "history x/y",
        "history -",
    ] {
        manager(&site, bad).ended(2);
    }
    manager(&site, "history --kind stoped").ended(2).saying(&[
        "'stoped'",
        "similar value exists: 'stopped'",
        "requeue",
    ]);
    manager(&site, "history V00007 X*").ended(1).saying(&["X*: the history has no such event"]);
    manager(&site, "history X? --journeys").ended(1).saying(&["X?: the history has no journey that is over"]);
    let array = manager(&site, "history --json --limit 2").ended(0).json();
    for event in list(&array) {
        assert_eq!(keys(event), documented("## `history`", "key", 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_is_read_by_index_and_never_as_a_whole_in_memory() {
    let site = empty_site().await;
    long_history(&site, 200_000).await;
    let client = site.database.client().await;
    let scans = async |index: &str| {
        let query = "SELECT coalesce(sum(idx_scan), 0)::int8 FROM pg_stat_user_indexes WHERE indexrelname = $1";
        client.query_one(query, &[&index]).await.expect("the statistics").get::<_, i64>(0)
    };
    let whole = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'repack_status_event'";
    let before = client.query_one(whole, &[]).await.expect("the statistics").get::<_, i64>(0);
    for (words, index) in [
        ("history V00123 --limit 50", "repack_status_event_tape"),
        ("history --limit 50", "repack_status_event_pkey"),
        ("history --since 1h --limit 0", "repack_status_event_at"),
    ] {
        let used = scans(index).await;
        manager(&site, words).ended(0);
        // The session writes its statistics when it ends, a little later than the program.
        let begun = std::time::Instant::now();
        while scans(index).await == used {
            assert!(begun.elapsed() < PATIENCE, "'{words}' does not use {index}");
            moment().await;
        }
    }
    let after = client.query_one(whole, &[]).await.expect("the statistics").get::<_, i64>(0);
    assert_eq!(after, before, "the table was not read from end to end");

    // All events take more memory than the program may have.
    let command = of_site(&site, MANAGER);
    let (program, args): (_, Vec<_>) =
        (command.get_program().to_owned(), command.get_args().map(ToOwned::to_owned).collect());
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", "ulimit -v 150000; \"$@\" | wc -l", "sh"]).arg(program).args(args);
    limited.args(["history", "--jsonl", "--limit", "0"]);
    let ran = Ran::of(&mut limited);
    assert_eq!(ran.ended(0).stdout.trim(), "200000", "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn journeys_that_are_over_are_shown_as_their_rows_were() {
    let site = Site::new(World::new().with_full_tapes(2)).await;
    site.enter(&["V01001", "V01002"]).await;
    manager(&site, "rm V01001 --yes --reason mistaken").ended(0);
    let journeys = manager(&site, "history --journeys --json").ended(0).json();
    assert_eq!(list(&journeys).len(), 1);
    assert_eq!(keys(&journeys[0]), documented("## `history`", "key", 1));
    assert_eq!((&journeys[0]["tape"], &journeys[0]["why"]), (&"V01001".into(), &"removed".into()));
    assert_eq!(journeys[0]["row"]["responsible"], "test");
    manager(&site, "history --journeys V01002").ended(1).saying(&["V01002"]);
    assert!(manager(&site, "history --journeys").ended(0).stdout.contains("removed"));
    assert!(manager(&site, "history --journeys V0100?").ended(0).stdout.contains("V01001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_those_of_the_rows_and_of_journeys_that_are_over() {
    let site = empty_site().await;
    let none = manager(&site, "stats --json").ended(0).json();
    assert_eq!(none["forecast"]["known"], true, "nothing is left, and that is known: {none}");
    assert!(manager(&site, "stats").ended(0).stdout.contains("the table is empty"));
    // Ten repacks that took 1 to 10 hours, two of them of journeys that are over; one that is too old to say anything.
    site.sql(
        "INSERT INTO repack_status SELECT 'F' || lpad(n::text, 5, '0'), x, x + interval '1 h', x + interval '1 h' * (1 + n), \
         x + interval '20 h', x + interval '21 h', x + interval '22 h', 10, 1000, 5, NULL, 'auto', 10, 'LTO8', 'raw', 'bob' \
         FROM generate_series(1, 10) n, (SELECT LOCALTIMESTAMP(0) - interval '1 d' AS x) s; \
         INSERT INTO repack_status_history (why, tape, row) SELECT 'prepared again', tape, to_jsonb(m) FROM repack_status m \
         WHERE tape IN ('F00009', 'F00010'); \
         DELETE FROM repack_status WHERE tape IN ('F00009', 'F00010'); \
         INSERT INTO repack_status SELECT 'G00001', x, x, x + interval '300 d', NULL, NULL, NULL, 10, 1000, 5, NULL, 'manual', 10, 'LTO8', 'raw', 'bob' \
         FROM (SELECT LOCALTIMESTAMP(0) - interval '700 d' AS x) s; \
         INSERT INTO repack_status VALUES ('A00001', now(), NULL, NULL, NULL, NULL, NULL, 10, 5000, 5, NULL, 'auto', 10, 'LTO8', 'raw', 'bob'), \
         ('A00002', now(), NULL, NULL, NULL, NULL, NULL, 10, 7000, 5, NULL, 'error', 10, 'LTO8', 'raw', 'bob'), \
         ('B00001', now(), NULL, now(), NULL, NULL, NULL, 10, 1000, 5, NULL, 'auto', 10, 'LTO8', 'raw', 'bob'); \
         INSERT INTO repack_status_task (tape, generation, epoch, slot_since, progress) \
         VALUES ('A00001', 1, 1, now(), '{\"archived_bytes\": 250, \"total_bytes\": 1000}'); \
         INSERT INTO repack_status VALUES ('C00001', now(), now(), NULL, NULL, NULL, NULL, 10, 1000, 5, NULL, 'auto', 10, 'LTO8', 'raw', 'bob'), \
         ('C00002', now(), NULL, NULL, NULL, NULL, NULL, 10, 1000, 5, NULL, 'auto', 10, 'LTO8', 'raw', 'bob'); \
         INSERT INTO repack_status_task (tape, generation, epoch, slot_since, outcome) \
         VALUES ('C00001', 1, 1, now(), 'stalled'), ('C00002', 1, 1, NULL, 'failed'); \
         INSERT INTO repack_status_statistic (tape, round, line) VALUES ('F00001', 1, '{\"repack\": {\"archivedBytes\": \"4000\"}}'), \
         ('F00002', 1, '{\"repack\": {\"archivedBytes\": 3000}}'), ('F00003', 1, '{\"repack\": {\"archivedBytes\": \"garbage\"}}')",
    )
    .await;
    let before = dump(&site).await;
    let said = manager(&site, "stats --json --days 7").ended(0).json();
    assert_eq!(keys(&said), documented("## `stats`", "key", 0));
    let state = |state: &str, mode: &str| {
        list(&said["states"])
            .iter()
            .find(|at| at["state"] == state && at["mode"] == mode)
            .map(|at| (at["tapes"].as_i64(), at["bytes"].as_i64()))
    };
    assert_eq!(state("finished", "auto"), Some((Some(8), Some(8000))));
    assert_eq!(state("entered", "error"), Some((Some(1), Some(7000))));
    assert_eq!(state("odd", "auto"), Some((Some(1), Some(1000))), "stamps with a hole are no state");
    let repack = list(&said["stage_times"]).iter().find(|time| time["stage"] == "end").expect("repacks").clone();
    assert_eq!(
        (&repack["samples"], &repack["median_secs"], &repack["ninety_secs"]),
        (&10.into(), &19_800.0.into(), &32_760.0.into())
    );
    let names: Vec<&str> =
        list(&said["stage_times"]).iter().map(|time| time["stage"].as_str().expect("a name")).collect();
    assert_eq!(names, STAGES.map(|stage| stage.name), "in the order of the journey");
    let sum = |key: &str| list(&said["periods"]).iter().map(|day| day[key].as_i64().expect(key)).sum::<i64>();
    assert_eq!(
        (list(&said["periods"]).len(), sum("finished"), sum("finished_bytes"), sum("repacked_bytes")),
        (8, 10, 10_000, 7000)
    );
    // They ended today or yesterday, whatever the time of day; the days before are not averaged over.
    let days = said["repacked_days"].as_i64().expect("a number of days");
    assert!((1..=2).contains(&days), "{said}");
    assert_eq!(said["repacked_bytes_per_day"], 7000 / days);
    assert_eq!((&said["slots"]["used"], &said["slots"]["max"]), (&2.into(), &10.into()));
    assert_eq!((&said["running"]["written_bytes"], &said["running"]["total_bytes"]), (&250.into(), &1000.into()));
    assert_eq!(said["ahead"]["to_start"], 1, "not the stopped one");
    assert_eq!(
        said["ahead"]["set_aside"], 5,
        "the one in error, the manual one, the odd one, the stalled one, the stopped one"
    );
    assert_eq!((&said["ahead"]["repacking"], &said["ahead"]["after"]), (&0.into(), &0.into()), "neither moves");
    assert_eq!(said["ahead"]["stuck_slots"], 1, "that of the stalled one");
    assert_eq!(said["forecast"]["known"], true, "{said}");
    assert_eq!(said["forecast"]["repacked_secs"]["high"], 32_760.0);
    let text = manager(&site, "stats --weekly");
    for words in [
        "half took at most 5h30m",
        "10 repacks",
        "slots: 2 of 10",
        " days since ",
        "1 of them held by",
        "without 5 tapes that stand still",
    ] {
        assert!(text.ended(0).stdout.contains(words), "{words}: {}", text.stdout);
    }
    assert_eq!(dump(&site).await, before, "looking changes nothing");
    site.sql("DELETE FROM repack_status WHERE tape = 'F00001'").await;
    let said = manager(&site, "stats --json").ended(0).json();
    assert_eq!(said["forecast"]["known"], false, "nine are not enough: {said}");
}

async fn with_broker(world: World) -> (Site, TestVhost) {
    let vhost = Services::get().fresh_vhost();
    let mut site = Site::new(world).await;
    site.settings.broker = Some(vhost.broker());
    site.settings.redispatch_after = std::time::Duration::from_secs(3600);
    (site, vhost)
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_shown_beside_what_the_rows_say() {
    let (mut site, _vhost) = with_broker(World::new().with_full_tapes(2)).await;
    site.enter(&["V01001", "V01002"]).await;
    let said = manager(&site, "queues --json").ended(0).json();
    assert_eq!(list(&said["queues"]).len(), 7);
    for queue in list(&said["queues"]) {
        assert_eq!(keys(queue), documented("## `queues`", "key", 0));
        assert!(
            queue["messages"].is_null() && queue["text"].as_str().is_some_and(|text| text.contains("not there yet")),
            "{queue}"
        );
    }
    Ran::of(of_site(&site, PRODUCER).arg("tick")).ended(0);
    let of = |said: &Value, stage: &str| {
        list(&said["queues"]).iter().find(|queue| queue["stage"] == stage).expect(stage).clone()
    };
    let said = manager(&site, "queues --json").ended(0).json();
    let start = of(&said, "start");
    assert_eq!(
        (&start["messages"], &start["consumers"], &start["rows_published"]),
        (&2.into(), &0.into(), &2.into()),
        "{start}"
    );
    assert!(start["text"].as_str().is_some_and(|text| text.contains("no worker takes stage start")), "{start}");
    assert_eq!(of(&said, "reclaim")["messages"], 0);
    assert!(manager(&site, "queues").ended(0).stdout.contains("2 waiting, no consumers"));

    let port = std::mem::replace(&mut site.settings.database.port, 1);
    let ran = manager(&site, "queues --json");
    ran.ended(1).saying(&["what the rows say is not known", ":1"]);
    assert_eq!(of(&ran.json(), "start")["messages"], 2, "the broker is asked all the same");
    assert!(of(&ran.json(), "start")["rows_published"].is_null());
    site.settings.database.port = port;

    let broker = site.settings.broker.as_mut().expect("it has one");
    broker.url = "amqp://guest@127.0.0.1:1/v".to_owned();
    let ran = manager(&site, "queues");
    ran.ended(1).saying(&["127.0.0.1:1"]);
    assert!(ran.stdout.is_empty());
    manager(&site, "dead ls").ended(1).saying(&["127.0.0.1:1"]);

    site.settings.broker = None;
    assert!(manager(&site, "queues").ended(0).stdout.contains("no 'broker' section"));
    assert_eq!(manager(&site, "queues --json").ended(0).json()["broker"], Value::Null);
    manager(&site, "dead ls").ended(0);
    manager(&site, "dead drop 0123456789ab --yes").ended(1);
}

/// A site with its queues, and these bodies parked.
async fn parked(bodies: &[&[u8]]) -> (Site, TestVhost, Topology) {
    let (site, vhost) = with_broker(World::new().with_full_tapes(1)).await;
    let topology = Topology::new("test", STAGES.map(|stage| stage.name)).expect("good names");
    topology.declare(&vhost.broker(), "test").await.expect("the queues");
    let publisher = Publisher::connect(&vhost.broker(), "test", 1).await.expect("the broker");
    for body in bodies {
        publisher.park(body, "test.v1.dead", "not a task: \x1b[31mred").await.expect("it is parked");
    }
    publisher.close().await;
    holds(&vhost, &topology.parked_queue(), bodies.len()).await;
    (site, vhost, topology)
}

/// Waits until a queue holds so many messages that nobody has in the hand.
async fn holds(vhost: &TestVhost, queue: &str, expected: usize) {
    let link = Link::connect(&vhost.broker(), "test").await.expect("the broker");
    let begun = std::time::Instant::now();
    loop {
        let depth = link.depth(queue).await.expect("the broker").map(|depth| depth.messages);
        if depth.map(|messages| messages as usize) == Some(expected) {
            return link.close().await;
        }
        assert!(begun.elapsed() < PATIENCE, "{queue} holds {depth:?}, not {expected}");
        moment().await;
    }
}

fn ids(site: &Site) -> Vec<String> {
    let said = manager(site, "dead ls --json").ended(0).json();
    list(&said["messages"]).iter().map(|message| message["id"].as_str().expect("an id").to_owned()).collect()
}

const GARBAGE: &[u8] = b"\x1b]0;owned\x07 not json";
const NEWER: &[u8] = br#"{"v":2,"cartridge":"V01001"}"#;

fn task(stage: &str) -> Task {
    Task { tape: "V01001".parse().expect("a VID"), stage: stage.to_owned(), generation: 7 }
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_messages_are_looked_at_and_stay() {
    let good = task("start").encode();
    let (site, vhost, topology) = parked(&[GARBAGE, &good, NEWER]).await;
    let said = manager(&site, "dead ls --json").ended(0).json();
    assert_eq!(said["ready"], 3);
    for message in list(&said["messages"]) {
        assert_eq!(keys(message), documented("## `dead`", "key", 0));
        assert!(message["not_a_task"].is_null() != message["task"].is_null(), "{message}");
        assert_eq!(message["from"], "test.v1.dead");
        assert!(message["written_at"].as_str().is_some_and(|at| at.ends_with('Z')));
    }
    assert_eq!(said["messages"][1]["task"]["stage"], "start");
    assert!(said["messages"][2]["not_a_task"].as_str().is_some_and(|why| why.contains("version 2")));
    let text = manager(&site, "dead ls");
    assert!(text.ended(0).stdout.contains("not json") && !text.stdout.contains('\x1b'), "{text:?}");
    let one = manager(&site, "dead show 1 --json").ended(0).json();
    let id = one["id"].as_str().expect("an id");
    assert_eq!(one["body"].as_str().map(str::as_bytes), Some(GARBAGE));
    assert_eq!(one["headers"]["from"], "test.v1.dead");
    let more: BTreeSet<String> = keys(&one).difference(&documented("## `dead`", "key", 0)).cloned().collect();
    assert_eq!(more, ["body", "headers", "message_id"].map(str::to_owned).into());
    let shown = manager(&site, &format!("dead show {} --bytes 5", &id[..10]));
    assert!(shown.ended(0).stdout.contains("the first 5 of them") && !shown.stdout.contains('\x1b'), "{shown:?}");
    manager(&site, "dead show 4").ended(1).saying(&["no such message"]);
    manager(&site, "dead show 00000000").ended(1);
    manager(&site, "dead drop 1 --yes").ended(2);
    assert_eq!(list(&manager(&site, "dead ls --json --limit 1").ended(0).json()["messages"]).len(), 1);
    holds(&vhost, &topology.parked_queue(), 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_often_never_drops_a_message_whatever_delivery_limit_a_policy_sets() {
    let (site, vhost, topology) = parked(&[GARBAGE, NEWER]).await;
    let before: BTreeSet<String> = ids(&site).into_iter().collect();
    vhost.policy("strict", ".*", &serde_json::json!({"delivery-limit": 20}));
    for _ in 0..30 {
        assert_eq!(ids(&site).into_iter().collect::<BTreeSet<_>>(), before, "each is there, and is the same one");
        holds(&vhost, &topology.parked_queue(), 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_asked_of_the_broker_is_not_asked_again_when_his_message_is_stored_anew() {
    let (site, vhost, topology) = parked(&[]).await;
    // Copies to the dead letters, and an end after an hour.
    let properties =
        serde_json::json!({"expiration": "3600000", "headers": {"CC": ["dead"], "BCC": ["dead"], "x-from": "him"}});
    vhost.publish("amq.default", &topology.parked_queue(), "not a task", &properties);
    holds(&vhost, &topology.parked_queue(), 1).await;
    for _ in 0..15 {
        assert_eq!(ids(&site).len(), 1);
        holds(&vhost, &topology.parked_queue(), 1).await;
    }
    let there = vhost.peek(&topology.parked_queue());
    assert_eq!(there["properties"]["headers"]["x-from"], "him", "{there}");
    assert!(there["properties"]["expiration"].is_null() && there["properties"]["headers"]["CC"].is_null(), "{there}");
    holds(&vhost, &topology.dead_queue(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_chosen_messages_are_dropped_and_the_history_knows() {
    let (mut site, vhost, topology) = parked(&[GARBAGE, NEWER, b"third"]).await;
    let all = ids(&site);
    let before = dump(&site).await;
    manager(&site, &format!("dead drop {}", all[1])).ended(2).saying(&["--yes"]);
    assert!(
        manager(&site, &format!("dead drop {} --dry-run", all[1])).ended(0).stdout.contains("would remove it for good")
    );
    let port = std::mem::replace(&mut site.settings.database.port, 1);
    manager(&site, &format!("dead drop {} --yes", all[1])).ended(1).saying(&["nothing is removed"]);
    site.settings.database.port = port;
    holds(&vhost, &topology.parked_queue(), 3).await;
    assert_eq!(dump(&site).await, before, "nothing was written");
    assert_eq!(ids(&site).into_iter().collect::<BTreeSet<_>>(), all.iter().cloned().collect());

    let said = manager(&site, &format!("dead drop {} 0123456789abcdef --yes --json", &all[1][..12]));
    let said = said.ended(1).json();
    let results: BTreeSet<&str> =
        list(&said["messages"]).iter().filter_map(|message| message["result"].as_str()).collect();
    assert_eq!(results, ["changed", "not-found"].into());
    assert_eq!(keys(&said), ["dry_run", "messages", "verb"].map(str::to_owned).into());
    holds(&vhost, &topology.parked_queue(), 2).await;
    let left: BTreeSet<String> = ids(&site).into_iter().collect();
    assert_eq!(left, [all[0].clone(), all[2].clone()].into());
    manager(&site, &format!("dead drop {} --yes", all[1])).ended(1);
    let event = manager(&site, "history --kind parked-drop --json").ended(0).json();
    assert_eq!((list(&event).len(), &event[0]["detail"]["id"]), (1, &all[1].clone().into()));
    assert!(event[0]["detail"]["beginning"].as_str().is_some_and(|text| text.contains("cartridge")));
    assert_eq!(event[0]["tape"], "*");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_task_of_a_stage_is_published_again_and_then_removed() {
    let (good, odd) = (task("start").encode(), task("polish").encode());
    let (site, vhost, topology) = parked(&[GARBAGE, &good, &odd]).await;
    let all = ids(&site);
    // Published, but not removed, for the queue that it goes to is gone: it stays where it is.
    vhost.delete_queue(&topology.stage_queue("start"));
    manager(&site, &format!("dead requeue {} --yes", all[1])).ended(1).saying(&["no queue is bound"]);
    holds(&vhost, &topology.parked_queue(), 3).await;
    topology.declare(&vhost.broker(), "test").await.expect("the queues");
    let said = manager(&site, &format!("dead requeue {} --yes --json", all.join(" "))).ended(1).json();
    let result = |id: &str| {
        list(&said["messages"]).iter().find(|message| message["id"] == id).expect("it was asked for")["result"].clone()
    };
    assert_eq!(
        (result(&all[0]), result(&all[1]), result(&all[2])),
        ("refused".into(), "changed".into(), "refused".into())
    );
    holds(&vhost, &topology.parked_queue(), 2).await;
    holds(&vhost, &topology.stage_queue("start"), 1).await;
    let event = manager(&site, "history V01001 --kind parked-requeue --limit 1 --json").ended(0).json();
    assert_eq!(event[0]["stage"], "start");
}

/// Two tapes whose repack leaves two files each; those of the second have another copy. A third has no row.
async fn with_files_left() -> Site {
    let mut world = World::new().with_full_tapes(3);
    for vid in ["V01001", "V01002"] {
        world.tapes.get_mut(vid).expect("it is there").plan = Plan { fail_files: 2, fail_times: 9, ..Plan::default() };
    }
    let mut other = Tape::new("pool_alpha_raw");
    for run in world.tapes["V01002"].files.clone() {
        other.append(&Run { copy: 2, ..run });
    }
    world.tapes.insert("V02001".to_owned(), other);
    let site = Site::new(world).await;
    site.enter(&["V01001", "V01002"]).await;
    // By the program itself, which knows the name of this host.
    let begun = std::time::Instant::now();
    while site.at("V01001").await.1 != Mode::Error || site.at("V01002").await.1 != Mode::Error {
        assert!(begun.elapsed() < PATIENCE, "the repacks fail: {:?}", site.rows().await);
        Ran::of(of_site(&site, PRODUCER).arg("tick"));
        moment().await;
    }
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_failed_repack_left_are_listed_with_their_copies() {
    let site = with_files_left().await;
    let before = dump(&site).await;
    let said = manager(&site, "failed-files V01001 --json").ended(0).json();
    assert_eq!(keys(&said), documented("## `failed-files VID`", "key", 0));
    assert_eq!((&said["state"], &said["mode"]), (&"started".into(), &"error".into()));
    assert!(said["reason"].as_str().is_some_and(|why| !why.is_empty()));
    assert_eq!((&said["request"]["status"], &said["request"]["vid"]), (&"Failed".into(), &"V01001".into()));
    assert_eq!(
        (&said["left_files"], &said["gone_files"], &said["copies_asked"]),
        (&2.into(), &8.into(), &2.into()),
        "{said}"
    );
    assert_eq!((&said["complete"], &said["listing"]["compared"]), (&true.into(), &true.into()));
    let mut size = 0;
    for file in list(&said["files"]) {
        assert_eq!(keys(file), documented("## `failed-files VID`", "file", 0));
        assert_eq!(
            (&file["vid"], &file["in_listing"], &file["copies"]),
            (&"V01001".into(), &true.into(), &serde_json::json!([]))
        );
        assert_eq!(file["checksum"][0]["type"], "ADLER32");
        size += file["size"].as_i64().expect("a size");
    }
    assert_eq!((list(&said["files"]).len(), &said["left_bytes"]), (2, &size.into()));

    let lines = manager(&site, "failed-files V01002 --jsonl");
    for file in json_lines(lines.ended(0)) {
        assert_eq!(
            (list(&file["copies"]).len(), &file["copies"][0]["vid"], &file["copies"][0]["copy"]),
            (1, &"V02001".into(), &2.into())
        );
    }
    let text = manager(&site, "failed-files V01001");
    for words in [
        "the row says started, mode error",
        "Failed",
        "2 could not be read",
        "2 files",
        "8 files of the listing",
        "2 of these have none",
    ] {
        assert!(text.ended(0).stdout.contains(words), "{words}: {}", text.stdout);
    }
    let one = manager(&site, "failed-files V01001 --limit 1 --copies 0");
    assert!(one.ended(0).stdout.contains("1 more: --limit") && one.stdout.contains("not asked"), "{one:?}");
    // Those that are not asked for come first, as they arrive.
    let some = json_lines(manager(&site, "failed-files V01001 --copies 1 --jsonl").ended(0));
    assert!(some[0]["copies"].is_null() && some[1]["copies"].is_array(), "{some:?}");
    assert!(manager(&site, "failed-files V01003").ended(0).stdout.contains("no row of it was found"));
    assert_eq!(dump(&site).await, before, "looking changes nothing");

    // The request that was removed is in the history.
    manager(&site, "retry-failed V01001 --yes").ended(0);
    let begun = std::time::Instant::now();
    while site.rows().await[0].task.as_ref().is_none_or(|task| task.round < 2)
        || site.at("V01001").await.1 != Mode::Error
    {
        assert!(begun.elapsed() < PATIENCE, "the second round fails: {:?}", site.rows().await);
        Ran::of(of_site(&site, PRODUCER).arg("tick"));
        moment().await;
    }
    let said = manager(&site, "failed-files V01001 --json").ended(0).json();
    assert_eq!(said["saved_request"]["object"]["status"], "Failed");
    assert_eq!(said["gone_files"], 0, "the listing is that of the second round: {}", said["listing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_of_the_files_could_not_be_asked_is_said() {
    let mut site = with_files_left().await;
    manager(&site, "failed-files V09999").ended(1).saying(&["does not exist"]);
    let port = std::mem::replace(&mut site.settings.database.port, 1);
    let ran = manager(&site, "failed-files V01001 --json");
    ran.ended(1).saying(&["what the row says is not known", ":1"]);
    assert_eq!(
        (&ran.json()["left_files"], &ran.json()["listing"]),
        (&2.into(), &Value::Null),
        "CTA is asked all the same"
    );
    site.settings.database.port = port;
    site.order(cta_sim::Order::always("tapefile ls", cta_sim::Action::Cut(0)).for_vid("V01001"));
    let ran = manager(&site, "failed-files V01001 --json");
    ran.ended(1).saying(&["the files on the tape are not known"]);
    assert_eq!((&ran.json()["complete"], &ran.json()["listing"]["compared"]), (&false.into(), &false.into()));
    assert!(ran.json()["gone_files"].is_null(), "nothing is concluded from a part: {ran:?}");
    site.edit(|world| world.down = true);
    let ran = manager(&site, "failed-files V01002");
    ran.ended(1).saying(&["the repack request is not known", "the files on the tape are not known"]);
    assert!(
        ran.stdout.contains("the row says started")
            && !ran.stdout.contains("CTA says")
            && ran.stdout.contains("not compared"),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_named() {
    let mut site = empty_site().await;
    site.settings.database.port = 1;
    for words in ["history", "history --json --since 1d", "stats"] {
        let ran = manager(&site, words);
        ran.ended(1).saying(&["connecting to PostgreSQL", ":1"]);
    }
}

#[test]
fn every_verb_has_an_example() {
    for verb in ["history", "stats", "queues", "dead", "failed-files"] {
        let command = journeys::site::program(MANAGER);
        let ran = Ran::of(Command::new(command).args([verb, "--help"]));
        assert!(ran.ended(0).stdout.contains("Example"), "{verb}: {ran:?}");
    }
}

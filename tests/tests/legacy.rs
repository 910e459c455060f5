//! The table that ATRESYS left, in the middle of everything: good rows go on, bad rows are named and left alone.

use std::process::Command;
use std::time::{Duration, Instant};

use cta_sim::World;
use cta_sim::world::{Plan, Status, Tape, TapeState};
use journeys::services::Services;
use journeys::shell::{MANAGER, PRODUCER, Ran, called, dump, file};
use journeys::site::{PATIENCE, Site};
use serde_json::Value;

/// As ATRESYS made it, with nothing in the way of rows that are not what they should be.
const TABLE: &str = "
    CREATE TYPE automation_modes AS ENUM ('auto', 'manual', 'error');
    CREATE TABLE REPACK_STATUS (
        tape varchar(20) PRIMARY KEY, entered timestamp(0), started timestamp(0), repacked timestamp(0),
        quarantined timestamp(0), reclaimed timestamp(0), finished timestamp(0), files bigint, bytes bigint,
        usage smallint, last_write_date timestamp(0), mode automation_modes, priority smallint,
        mediatype varchar(20), tapepool varchar(20), responsible varchar(20));";

const COLUMNS: [&str; 6] = ["entered", "started", "repacked", "quarantined", "reclaimed", "finished"];

/// A row, every stamp a day after the one before.
fn row(tape: &str, stamps: usize, mode: &str) -> String {
    let stamps = COLUMNS
        .iter()
        .enumerate()
        .take(stamps)
        .map(|(day, column)| format!("{column} = '2024-03-{:02} 10:00'", day + 1));
    let set: Vec<String> = stamps.collect();
    format!(
        "INSERT INTO repack_status (tape, files, bytes, usage, last_write_date, mode, priority, mediatype, tapepool, responsible) \
         VALUES ('{tape}', 10, 20000000000, 10, '2024-01-01 09:00', '{mode}', 10, 'LTO9', 'pool_alpha_raw', 'maria'); \
         UPDATE repack_status SET {} WHERE tape = '{tape}';",
        set.join(", ")
    )
}

/// A site on such a table, empty; its own tables are not there yet.
async fn site(world: World) -> Site {
    let site = Site::on(Services::get().fresh_database(), world).await;
    site.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    site.sql(TABLE).await;
    site
}

/// One of our programs, with the table named as in ATRESYS's configuration.
fn command(site: &Site, name: &str) -> Command {
    let text = journeys::configuration::text(&site.settings);
    let folded = text.replace(r#""repack_status""#, r#""REPACK_STATUS""#);
    assert_ne!(text, folded, "the table is named in capitals");
    called(site.dir.path(), name, &file(site, "atresys.yaml", folded))
}

/// What somebody typed at `cta-admin`.
fn typed(site: &Site, words: &str) {
    let config = site.settings.cta_admin.repack_config.as_ref().expect("a configuration");
    let mut command = Command::new(&site.settings.cta_admin.program);
    Ran::of(command.args(["--json", "--config"]).arg(config).args(words.split(' '))).ended(0);
}

/// Brings a tape of the simulated CTA as far as ATRESYS had come, by what ATRESYS typed.
fn brought(site: &Site, vid: &str, stamps: usize) {
    let steps: [&[&str]; 5] = [
        &["tape ch --state REPACKING --reason repack", "repack add --justmove --mountpolicy repack_low_priority"],
        &["repack ls"],
        &["repack rm", "tape ch --state ACTIVE --reason repacked", "tape ch --tapepool quarantine"],
        &["tape reclaim"],
        &["tape ch --tapepool tolabel_IBM1L9"],
    ];
    for words in steps.iter().take(stamps - 1).copied().flatten() {
        typed(site, &format!("{words} --vid {vid}"));
    }
}

async fn one(site: &Site, query: &str) -> String {
    site.database.client().await.query_one(query, &[]).await.expect("the query").get(0)
}

/// A row as it stands in the table, and who wrote it last.
async fn as_written(site: &Site, tape: &str) -> String {
    let query = format!(
        "SELECT xmin::text || to_jsonb(t)::text FROM repack_status t WHERE tape = '{}'",
        tape.replace('\'', "''")
    );
    one(site, &query).await
}

fn odd_of(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let list = report["odd"].as_array().expect("a list").iter();
    let mut odd: Vec<(String, String)> = list.map(|odd| (text(&odd["vid"]), odd["reasons"].to_string())).collect();
    odd.sort();
    odd
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_atresys_left_half_way_go_on_and_what_is_not_ours_to_touch_is_untouched() {
    let mut world = World::new().with_full_tapes(8);
    for mode in ["M", "E", "B"] {
        for number in 0..12 {
            world.tapes.insert(
                format!("{mode}0{number:02}"),
                Tape::full("pool_alpha_raw", "alpha_raw", 9_000_000_000 + 1000 * number, 10),
            );
        }
    }
    world.tapes.get_mut("V01003").expect("it is there").plan = Plan { repack_ms: Some(6000), ..Plan::default() };
    let site = site(world).await;

    // Good rows: their tapes are as ATRESYS left them.
    let good = [
        ("V01001", 1),
        ("V01002", 2),
        ("V01003", 2),
        ("V01004", 3),
        ("V01005", 3),
        ("V01006", 4),
        ("V01007", 5),
        ("V01008", 6),
    ];
    for (vid, stamps) in good {
        brought(&site, vid, stamps);
        site.sql(&row(vid, stamps, "auto")).await;
    }
    // It died between two commands of a stage.
    typed(&site, "repack rm --vid V01005");
    typed(&site, "tape ch --state ACTIVE --reason repacked --vid V01005");
    let world = site.world();
    assert!(!world.request("V01003").expect("a request").status.is_final(), "the slow one is under way");
    assert_eq!(world.request("V01004").expect("a request").status, Status::Complete);
    assert_eq!((world.tapes["V01006"].pool.as_str(), world.tapes["V01006"].state), ("quarantine", TapeState::Active));

    // Rows of operators, in every state: whoever touched them would change something in CTA.
    let mut others = Vec::new();
    for (letter, mode) in [("M", "manual"), ("E", "error")] {
        for stamps in 1..=6 {
            let vid = format!("{letter}0{stamps:02}");
            brought(&site, &vid, stamps);
            site.sql(&row(&vid, stamps, mode)).await;
            others.push(vid);
        }
    }

    // Bad rows. Their tapes wait in quarantine, empty: only the row speaks against a reclaim.
    let null = |column: &str| format!("UPDATE repack_status SET {column} = NULL WHERE tape = 'TAPE';");
    let bad = [
        ("B001", null("repacked"), "quarantined is set although repacked is not"),
        ("B002", null("started") + &null("repacked"), "quarantined is set although repacked is not"),
        (
            "B003",
            "UPDATE repack_status SET quarantined = '2023-01-01 00:00' WHERE tape = 'TAPE';".to_owned(),
            "quarantined is before repacked",
        ),
        ("B004", null("mode"), "mode is not set"),
        ("B005", null("priority"), "priority is not set"),
        ("B006", null("usage"), "usage is not set"),
        ("B007", null("entered"), "entered is not set"),
        (
            "B008",
            "UPDATE repack_status SET entered = 'infinity' WHERE tape = 'TAPE';".to_owned(),
            "entered is not a time",
        ),
        ("b009", String::new(), "no VID"),
        ("B 010", String::new(), "no VID"),
        ("B011;rm", String::new(), "no VID"),
        ("--all", String::new(), "no VID"),
    ];
    for number in 0..12 {
        brought(&site, &format!("B0{number:02}"), 4);
    }
    for (tape, edit, _) in &bad {
        site.sql(&row(tape, 4, "auto")).await;
        if !edit.is_empty() {
            site.sql(&edit.replace("TAPE", tape)).await;
        }
    }
    // What lacks only what nobody decides by is a good row.
    site.sql("UPDATE repack_status SET files = NULL, bytes = NULL, last_write_date = NULL, mediatype = NULL, tapepool = NULL, responsible = NULL WHERE tape = 'V01002'").await;
    // Its journey is over, although it never was reclaimed: nobody works on it any more, and a list shows that it is odd.
    site.sql(&row("B000", 6, "auto")).await;
    site.sql("UPDATE repack_status SET reclaimed = NULL WHERE tape = 'B000'").await;

    let definition = "SELECT json_agg(to_jsonb(c) ORDER BY ordinal_position)::text || (SELECT json_agg(to_jsonb(k) - 'oid' ORDER BY conname)::text \
                      FROM pg_constraint k WHERE conrelid = 'repack_status'::regclass) FROM information_schema.columns c WHERE table_name = 'repack_status'";
    let defined = one(&site, definition).await;
    let rows_before = one(&site, "SELECT json_agg(to_jsonb(t) ORDER BY tape)::text FROM repack_status t").await;
    Ran::of(command(&site, MANAGER).arg("migrate")).ended(0);
    assert_eq!(one(&site, definition).await, defined);
    assert_eq!(one(&site, "SELECT json_agg(to_jsonb(t) ORDER BY tape)::text FROM repack_status t").await, rows_before);
    let again = Ran::of(command(&site, MANAGER).args(["migrate", "--json"])).ended(0).json();
    assert_eq!((&again["applied"], &again["adopted"]), (&serde_json::json!([]), &serde_json::json!(true)));

    let mut untouched = Vec::new();
    for tape in others.iter().map(String::as_str).chain(bad.iter().map(|bad| bad.0)).chain(["B000", "V01008"]) {
        untouched.push((tape.to_owned(), as_written(&site, tape).await));
    }
    let stamped = one(&site, "SELECT json_object_agg(tape, json_build_array(entered, started, repacked, quarantined, reclaimed, finished))::text FROM repack_status WHERE tape LIKE 'V%'").await;
    let world_before = site.world();

    let begun = Instant::now();
    let mut expected: Vec<&str> = bad.iter().map(|bad| bad.0).collect();
    expected.sort_unstable();
    loop {
        let ran = Ran::of(command(&site, PRODUCER).args(["tick", "--json"]));
        let report = ran.ended(0).json();
        let odd = odd_of(&report);
        assert_eq!(odd.iter().map(|odd| odd.0.as_str()).collect::<Vec<_>>(), expected, "every tick names them");
        for (tape, _, why) in &bad {
            let named = odd.iter().find(|odd| odd.0 == *tape).expect("it is named");
            assert!(named.1.contains(why), "{tape}: {named:?}");
            ran.saying(&[&format!("left alone: the row of {tape}: ")]);
        }
        let open = one(
            &site,
            "SELECT count(*)::text FROM repack_status WHERE tape LIKE 'V%' AND finished IS NULL AND mode = 'auto'",
        )
        .await;
        if open == "0" {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{open} tapes are not at rest: {report:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // The good ones arrived, with the stamps that they had.
    let before: Value = serde_json::from_str(&stamped).expect("JSON");
    for (vid, stamps) in good {
        let query = format!(
            "SELECT json_build_array(entered, started, repacked, quarantined, reclaimed, finished)::text FROM repack_status WHERE tape = '{vid}' AND mode = 'auto'"
        );
        let now: Value = serde_json::from_str(&one(&site, &query).await).expect("JSON");
        let (now, before) = (now.as_array().expect("a list"), before[vid].as_array().expect("a list"));
        assert!(now.iter().all(|stamp| !stamp.is_null()), "{vid} is finished: {now:?}");
        assert_eq!(now[..stamps], before[..stamps], "{vid}");
        let tape = &site.world().tapes[vid];
        assert_eq!((tape.full, tape.live_files()), (false, 0), "{vid}");
        assert!(tape.pool.starts_with("tolabel_IBM1"), "{vid} is in {}", tape.pool);
    }
    let changes = site.changes();
    let ours = |vid: &str, word: &str| changes[vid].iter().filter(|change| change.starts_with(word)).count();
    for (vid, stamps) in good {
        for (word, once) in [("repack add", 1), ("repack rm", 1), ("tape reclaim", 1)] {
            assert_eq!(ours(vid, word), once, "{word} of {vid}, which was found with {stamps} stamps, once in all");
        }
    }

    // The others are as they were, here and in CTA.
    for (tape, before) in &untouched {
        assert_eq!(as_written(&site, tape).await, *before);
    }
    let world = site.world();
    for (vid, tape) in world_before.tapes.iter().filter(|(vid, _)| vid.starts_with(['M', 'E', 'B'])) {
        assert_eq!(world.tapes[vid], *tape, "{vid}");
        assert_eq!(
            world.request(vid).map(|request| request.created),
            world_before.request(vid).map(|request| request.created)
        );
    }

    // The operator sees them.
    let listed = Ran::of(command(&site, MANAGER).args(["ls", "--all", "--json"])).ended(0).json();
    let find = |tape: &str| {
        listed
            .as_array()
            .expect("a list")
            .iter()
            .find(|row| row["vid"] == *tape)
            .unwrap_or_else(|| panic!("{tape} is not listed: {listed}"))
    };
    for (tape, _, why) in bad.iter().filter(|bad| bad.2 != "no VID") {
        assert!(find(tape)["odd"].to_string().contains(why), "{}", find(tape));
        assert_eq!(find(tape)["waits"]["code"], "odd-row");
    }
    for tape in ["b009", "B 010", "B011;rm", "--all"] {
        assert!(find(tape)["odd"].to_string().contains("is not a VID"), "{}", find(tape));
    }
    assert!(find("B000")["odd"].to_string().contains("finished is set although reclaimed is not"), "{}", find("B000"));
    for vid in &others {
        assert_eq!(find(vid)["odd"], Value::Null);
    }
    let shown = Ran::of(command(&site, MANAGER).arg("ls"));
    for (tape, ..) in &bad {
        assert!(shown.stdout.contains(tape), "{tape} is not shown: {}", shown.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_name_that_the_old_column_cannot_hold_is_refused_by_name_and_nothing_is_entered() {
    let long = "pool_with_a_name_of_32_character";
    let world = World::new()
        .with_full_tapes(1)
        .with_pool(long, "alpha")
        .with_tape("V02001", Tape::full(long, "alpha_raw", 5_000_000_000, 10));
    let site = site(world).await;
    Ran::of(command(&site, MANAGER).arg("migrate")).ended(0);
    let before = dump(&site).await;
    for args in [&["V02001"][..], &["V02001", "--dry-run"]] {
        Ran::of(command(&site, "cta-ops-repack-1-prepare").args(args)).ended(1).saying(&[
            "V02001",
            "column tapepool",
            "repack_status",
            long,
            "32",
            "only 20",
            "ALTER TABLE",
        ]);
        assert_eq!(dump(&site).await, before, "{args:?}");
    }
    // The others of the same call are entered.
    Ran::of(command(&site, "cta-ops-repack-1-prepare").args(["V02001", "V01001"])).ended(1);
    assert_eq!(one(&site, "SELECT string_agg(tape, ' ') FROM repack_status").await, "V01001");
    // And so is this one, when the advice was followed.
    site.sql("ALTER TABLE repack_status ALTER tapepool TYPE varchar(100)").await;
    Ran::of(command(&site, "cta-ops-repack-1-prepare").arg("V02001")).ended(0);
    assert_eq!(one(&site, "SELECT tapepool FROM repack_status WHERE tape = 'V02001'").await, long);
}

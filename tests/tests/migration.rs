//! From ATRESYS and back: a table with hundreds of rows in all states is taken over, its tapes go on, and then it is ATRESYS's again.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use cta_sim::{Tape, World};
use journeys::desk::ATRESYS_TABLE;
use journeys::services::Services;
use journeys::shell::{MANAGER, PRODUCER, Ran, of_site};
use journeys::site::{PATIENCE, Site};
use serde_json::{Value, json};

const STAMPS: [&str; 6] = ["entered", "started", "repacked", "quarantined", "reclaimed", "finished"];

/// Columns, types, constraints, and the words of the type: what ATRESYS's statements rely on. Indexes are not among it.
const DEFINITION: &str = "SELECT json_build_array(\
    (SELECT json_agg(json_build_array(attname, atttypid::regtype, atttypmod, attnotnull, atthasdef) ORDER BY attnum) \
     FROM pg_attribute WHERE attrelid = 'repack_status'::regclass AND attnum > 0), \
    (SELECT json_agg(pg_get_constraintdef(oid) ORDER BY conname) FROM pg_constraint WHERE conrelid = 'repack_status'::regclass), \
    (SELECT json_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = 'automation_modes'::regtype), \
    (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'repack_status'::regclass), \
    (SELECT count(*) FROM pg_policy WHERE polrelid = 'repack_status'::regclass))::text";

async fn one(site: &Site, query: &str) -> String {
    site.database.client().await.query_one(query, &[]).await.expect("the query").get(0)
}

/// Every row, with the transaction that wrote it.
async fn rows(site: &Site) -> BTreeMap<String, Value> {
    let query = "SELECT json_object_agg(tape, json_build_array(xmin::text, to_jsonb(t)))::text FROM repack_status t";
    serde_json::from_str(&one(site, query).await).expect("JSON")
}

/// What ATRESYS's scripts write when they enter a tape and when they stamp it.
async fn atresys_enters(site: &Site, vid: &str, mode: &str, stamps: usize) {
    site.sql(&format!(
        "INSERT INTO repack_status (tape, entered, files, bytes, usage, last_write_date, mode, priority, mediatype, tapepool, responsible) \
         VALUES ('{vid}', '2024-03-01 10:00', 10, 20000000000, 10, '2024-01-01 09:00', '{mode}', 10, 'LTO9', 'pool_alpha_raw', 'maria')"
    ))
    .await;
    for (day, column) in STAMPS.iter().enumerate().take(stamps).skip(1) {
        let stamped =
            format!("UPDATE repack_status SET {column} = '2024-03-{:02} 10:00' WHERE tape = '{vid}'", day + 1);
        site.sql(&stamped).await;
    }
}

/// Brings a tape of the simulated CTA as far as ATRESYS had come, by what ATRESYS typed.
fn brought(site: &Site, vid: &str, stamps: usize) {
    let steps: [&[&str]; 4] = [
        &["tape ch --state REPACKING --reason repack", "repack add --justmove --mountpolicy repack_low_priority"],
        &[],
        &["repack rm", "tape ch --state ACTIVE --reason repacked", "tape ch --tapepool quarantine"],
        &["tape reclaim"],
    ];
    for words in steps.iter().take(stamps - 1).copied().flatten() {
        let config = site.settings.cta_admin.repack_config.as_ref().expect("a configuration");
        let mut command = Command::new(&site.settings.cta_admin.program);
        command.args(["--json", "--config"]).arg(config).args(words.split(' ')).args(["--vid", vid]);
        Ran::of(&mut command).ended(0);
    }
}

/// Tapes that ATRESYS works on: three in each state but the last.
fn under_way() -> Vec<(String, usize)> {
    (1..=15).map(|number| (format!("V01{number:03}"), (number - 1) / 3 + 1)).collect()
}

/// A site as ATRESYS leaves it: 15 tapes under way, 300 rows that are nobody's business or an operator's.
async fn left_by_atresys() -> Site {
    let mut world = World::new().with_full_tapes(16);
    for number in 0..50 {
        world = world.with_tape(
            &format!("M{number:05}"),
            Tape::full("pool_alpha_raw", "alpha_raw", 9_000_000_000 + 1000 * number, 10),
        );
    }
    let site = Site::on(Services::get().fresh_database(), world).await;
    site.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    site.sql(ATRESYS_TABLE).await;
    for (vid, stamps) in under_way() {
        brought(&site, &vid, stamps);
        atresys_enters(&site, &vid, "auto", stamps).await;
    }
    for number in 0..50_usize {
        atresys_enters(&site, &format!("M{number:05}"), ["manual", "error"][number % 2], number % 5 + 1).await;
    }
    site.sql(
        "INSERT INTO repack_status SELECT 'F' || to_char(n, 'FM00000'), d, d + '1 day', d + '2 days', d + '3 days', d + '40 days', \
         d + '41 days', n, n * 1000, 12, NULL, 'auto', 10, 'LTO8', 'pool_alpha_raw', 'bob' \
         FROM generate_series(1, 250) n, LATERAL (SELECT timestamp '2022-05-01 08:00' + n * interval '1 hour') AS t(d)",
    )
    .await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_hundreds_of_rows_is_taken_over_its_tapes_go_on_and_then_it_is_atresyss_again() {
    let site = left_by_atresys().await;
    let (definition, before) = (one(&site, DEFINITION).await, rows(&site).await);
    assert_eq!(before.len(), 315);

    // Over: nothing is changed by looking, and nothing in the table by taking over.
    Ran::of(of_site(&site, MANAGER).args(["import", "--migrate", "--dry-run"])).ended(0);
    assert_eq!(
        one(&site, "SELECT count(*)::text FROM pg_class WHERE relname LIKE 'repack_status\\_%' AND relkind = 'r'")
            .await,
        "0"
    );
    // The tapes of the operators' rows never left their pool: that is told.
    let told = Ran::of(of_site(&site, MANAGER).args(["import", "--migrate", "--cta", "--json"])).ended(1).json();
    let disagreeing =
        told["disagreements"].as_array().expect("a list").iter().map(|told| told["vid"].as_str().expect("a VID"));
    assert!(disagreeing.clone().count() > 0 && disagreeing.clone().all(|vid| vid.starts_with('M')), "{told:#}");
    assert_eq!((&told["rows"], &told["odd"]), (&json!(315), &json!([])), "{told:#}");
    assert_eq!(rows(&site).await, before);
    Ran::of(of_site(&site, PRODUCER).args(["tick", "--dry-run"])).ended(0);
    assert_eq!(rows(&site).await, before);

    let begun = Instant::now();
    loop {
        Ran::of(of_site(&site, PRODUCER).arg("tick")).ended(0);
        let open =
            "SELECT count(*)::text FROM repack_status WHERE tape LIKE 'V%' AND finished IS NULL AND mode = 'auto'";
        match one(&site, open).await.as_str() {
            "0" => break,
            open => assert!(begun.elapsed() < PATIENCE, "{open} tapes are not at rest"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = rows(&site).await;
    for (vid, stamps) in under_way() {
        let (then, now) = (&before[&vid][1], &after[&vid][1]);
        assert_eq!(now["mode"], "auto", "{vid}: {:?}", site.why(&vid).await);
        for column in &STAMPS[..stamps] {
            assert_eq!(now[column], then[column], "{vid}: {column}");
        }
        for column in STAMPS {
            assert!(now[column].is_string(), "{vid} has no {column}");
        }
        let changes = site.changes().remove(&vid).unwrap_or_default();
        for once in ["repack add", "repack rm", "tape reclaim"] {
            assert_eq!(
                changes.iter().filter(|change| change.starts_with(once)).count(),
                1,
                "{vid}: {once} in {changes:?}"
            );
        }
    }
    for (tape, row) in before.iter().filter(|(tape, _)| !tape.starts_with('V')) {
        assert_eq!(after[tape], *row, "{tape} is nobody's business");
    }

    // Back: nothing new is taken, the table is as ATRESYS defined it, and its statements work.
    Ran::of(of_site(&site, MANAGER).args(["pause", "all", "--reason", "back to ATRESYS", "--yes"])).ended(0);
    assert_ne!(one(&site, DEFINITION).await, definition, "our triggers");
    atresys_enters(&site, "V01016", "auto", 1).await;
    Ran::of(of_site(&site, PRODUCER).arg("tick")).ended(0);
    assert!(!site.changes().contains_key("V01016"), "what is paused touches nothing");
    for column in &STAMPS[1..] {
        site.sql(&format!("UPDATE repack_status SET {column} = LOCALTIMESTAMP(0) WHERE tape = 'V01016'")).await;
    }
    site.sql("UPDATE repack_status SET mode = 'error' WHERE tape = 'V01016'").await;
    site.sql("DELETE FROM repack_status WHERE tape = 'V01016'").await;
    assert_eq!(rows(&site).await, after, "and nobody wrote anything else");
    site.sql("DROP FUNCTION repack_status_edited() CASCADE").await;
    assert_eq!(one(&site, DEFINITION).await, definition, "without the triggers, only indexes were added");

    // And over again: what ATRESYS did meanwhile is found.
    atresys_enters(&site, "V01016", "manual", 1).await;
    let again = Ran::of(of_site(&site, MANAGER).args(["import", "--json"])).ended(0).json();
    assert_eq!((&again["rows"], &again["odd"]), (&json!(316), &json!([])), "{again:#}");
}

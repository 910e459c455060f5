//! Nothing that a tick or a delivery asks the database for reads a large table from end to end: the server's own count of
//! sequential scans says so, whatever the statements.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does, by a panic")]

use std::time::Instant;

use common::stages::STAGES;
use cta_sim::World;
use journeys::services::Services;
use journeys::site::{PATIENCE, Site};
use producer::tick::tick;

/// Rows that wait for the end of their quarantine: enough that reading them all is never the cheaper way, and that the table
/// counts as large.
const ROWS: i64 = 80_000;
const DUE: i64 = 100;

async fn filled() -> Site {
    let site = Site::new(World::new().with_full_tapes(3)).await;
    // The server's own housekeeping counts as well: autovacuum fills the block ranges of the index of times by sequential scans.
    for table in ["repack_status", "repack_status_task", "repack_status_event"] {
        site.sql(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).await;
    }
    let stamps = |count: usize, ago: &str| {
        let set = vec![format!("LOCALTIMESTAMP(0) - interval '{ago}'"); count].join(", ");
        format!("{set}, {}", vec!["NULL::timestamp"; 6 - count].join(", "))
    };
    site.sql(&format!(
        "INSERT INTO repack_status SELECT 'G' || lpad(i::text, 8, '0'), {}, 10, 10, 5, NULL, 'auto', 10, 'LTO9', repeat('pool', 25), 'bob' \
         FROM generate_series(1, {ROWS}) i; \
         INSERT INTO repack_status SELECT 'D' || lpad(i::text, 8, '0'), {}, 10, 10, 5, NULL, 'auto', i % 3, 'LTO9', 'pool', 'bob' \
         FROM generate_series(1, {DUE}) i; \
         INSERT INTO repack_status_task (tape, stage, generation, epoch, next_attempt_at, seen_xmin) \
         SELECT tape, CASE WHEN reclaimed IS NULL THEN 'reclaim' ELSE 'finish' END, nextval('repack_status_generation_seq'), 0, \
           CASE WHEN reclaimed IS NULL THEN now() + interval '22 days' END, xmin::text::int8 FROM repack_status; \
         INSERT INTO repack_status_event (tape, journey, stage, kind, actor) \
         SELECT tape, entered, 'quarantine', 'done', 'worker@here' FROM repack_status; \
         DELETE FROM repack_status_edited WHERE tape <> '*'; \
         ANALYZE repack_status, repack_status_task, repack_status_event",
        stamps(4, "9 days"),
        stamps(5, "1 day"),
    ))
    .await;
    site
}

/// Sequential scans of the large tables, and uses of their indexes, once everybody who asked has left: only then is all told.
async fn scans(site: &Site) -> (i64, i64) {
    let client = site.database.client().await;
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' \
                  AND pid <> pg_backend_pid()";
    let begun = Instant::now();
    while client.query_one(others, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(begun.elapsed() < PATIENCE, "somebody keeps a connection");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let counts = "SELECT sum(seq_scan)::int8, sum(idx_scan)::int8 FROM pg_stat_user_tables \
                  WHERE relname IN ('repack_status', 'repack_status_task', 'repack_status_event')";
    let counts = client.query_one(counts, &[]).await.unwrap();
    (counts.get(0), counts.get(1))
}

/// What the work of `during` adds to the sequential scans.
async fn scans_of(site: &Site, during: impl Future<Output = ()>) -> i64 {
    let before = scans(site).await;
    during.await;
    // A server older than 15 tells with a delay.
    let begun = Instant::now();
    loop {
        let after = scans(site).await;
        if after.1 > before.1 {
            return after.0 - before.0;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing was asked of the tables");
    }
}

/// A tick of all stages, with what it asks for the metrics and for a digest by mail.
async fn look(site: &Site) {
    let context = site.context();
    tick(&context, &STAGES, false).await.unwrap();
    context.store.site().await.unwrap();
    context.store.concerns(1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_tick_nor_a_delivery_reads_a_large_table_from_end_to_end() {
    let mut site = filled().await;
    let vhost = Services::get().fresh_vhost();
    site.settings.broker = Some(vhost.broker());

    // The first tick compares all rows: so it is seen that scans are counted.
    assert!(scans_of(&site, look(&site)).await > 0, "all rows were compared");
    site.sql("UPDATE repack_status_task SET dispatched_at = NULL WHERE stage = 'finish'").await;

    // 100 are due, two are edited, and the tapes of the world are entered.
    site.sql(
        "UPDATE repack_status SET responsible = 'eve' WHERE tape = 'D00000007'; \
         UPDATE repack_status SET mode = 'manual' WHERE tape = 'G00000007'",
    )
    .await;
    let scanned = scans_of(&site, async {
        let report = site.tick().await;
        let published: usize = report.stages.iter().map(|stage| stage.published.len()).sum();
        assert_eq!(published, usize::try_from(DUE).unwrap(), "{report:#?}");
    });
    assert_eq!(scanned.await, 0, "a tick that publishes");

    // Claim, looks, intents, records, dead letters, slots: all that a delivery asks, and the tick around it.
    site.settings.broker = None;
    site.sql("UPDATE repack_status SET mode = 'manual' WHERE tape LIKE 'D%'").await;
    let scanned = scans_of(&site, async {
        site.enter(&["V01001", "V01002", "V01003"]).await;
        let report = site.tick().await;
        let done: usize = report.stages.iter().map(|stage| stage.done.len()).sum();
        assert!(done > 0, "{report:#?}");
        look(&site).await;
    });
    assert_eq!(scanned.await, 0, "deliveries");

    // And the test would see it: without one of its indexes a statement reads all.
    for index in
        ["task_due", "task_asked", "task_slot", "task_lease", "task_failed", "task_waits", "task_site", "not_auto"]
    {
        let name = format!("repack_status_{index}");
        let client = site.database.client().await;
        let made: String =
            client.query_one("SELECT pg_get_indexdef($1::text::regclass)", &[&name]).await.unwrap().get(0);
        client.batch_execute(&format!("DROP INDEX {name}")).await.unwrap();
        drop(client);
        assert!(scans_of(&site, look(&site)).await > 0, "without {name}");
        site.sql(&made).await;
    }
    assert_eq!(scans_of(&site, look(&site)).await, 0, "with all of them");
}

#[tokio::test]
async fn the_rows_of_a_large_table_are_counted_for_the_metrics_now_and_then() {
    let site = filled().await;
    let store = site.store();
    let first = store.picture().await.unwrap();
    let count: i64 = first.groups.iter().map(|group| group.tapes).sum();
    assert_eq!(count, ROWS + DUE);
    site.sql("DELETE FROM repack_status WHERE tape LIKE 'D%'").await;
    assert_eq!(store.picture().await.unwrap(), first, "not again at once");
    let other = site.store().picture().await.unwrap();
    assert_eq!(other.groups.iter().map(|group| group.tapes).sum::<i64>(), ROWS, "and by whoever has not counted");
    // A small table is counted every time.
    site.sql("TRUNCATE repack_status").await;
    assert_eq!(store.picture().await.unwrap().groups, []);
}

//! Tapes that wait for a transaction at the same time share one, and nobody notices but the server.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use common::journey::{Mode, State};
use common::reason::Kept;
use common::store::{HoldChange, Locked, Store, StoreError};
use common::tape::Vid;
use common::task::{Intent, Next, Note, Outcome, Progress, RowChange, SeenRow, Task, Wanted};
use cta_sim::World;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use journeys::proxy::Proxy;
use journeys::site::{PATIENCE, Site};
use journeys::steps::moment;
use serde_json::json;

/// A site with so many tapes, and their names.
async fn site(tapes: u64) -> (Site, Vec<Vid>) {
    let site = Site::new(World::new().with_full_tapes(tapes)).await;
    let names: Vec<String> = (1001..1001 + tapes).map(|number| format!("V{number:05}")).collect();
    site.enter(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    (site, names.iter().map(|name| name.parse().expect("a VID")).collect())
}

/// Counts and says so. All that are asked for in one go are waiting before the first is carried out: one thread does all.
fn count(locked: &mut Locked<'_>) -> i32 {
    let Some(task) = &mut locked.task else { return -1 };
    task.attempts += 1;
    let counted = task.attempts;
    locked.note("edited", json!({"of": locked.vid.as_str(), "attempts": counted}));
    counted
}

/// Each tape's failed attempts, as the table has them.
async fn attempts(site: &Site, vids: &[Vid]) -> Vec<i32> {
    let store = site.store();
    let read = |vid| {
        let store = store.clone();
        async move { store.locked(vid, false, |locked| locked.task.as_ref().map_or(-1, |task| task.attempts)).await }
    };
    let mut all = Vec::new();
    for vid in vids {
        all.push(read(vid).await.expect("the row"));
    }
    all
}

/// By how many transactions the task rows of these tapes were written last.
async fn transactions(site: &Site, vids: &[Vid]) -> i64 {
    let names = vids.iter().map(|vid| format!("'{vid}'")).collect::<Vec<_>>().join(", ");
    site.number(&format!("SELECT count(DISTINCT xmin::text) FROM {} WHERE tape IN ({names})", site.beside("_task")))
        .await
}

async fn noted(site: &Site, vid: &Vid) -> Vec<serde_json::Value> {
    let events = site.events(vid.as_str()).await;
    events.into_iter().filter(|event| event.kind == "edited").map(|event| event.detail).collect()
}

#[tokio::test]
async fn who_waits_is_written_by_one_transaction_and_each_by_its_own_law() {
    let (site, vids) = site(70).await;
    let store = site.store().acting("somebody");
    for (round, (tapes, shared)) in [(1, 1), (20, 1), (32, 1), (33, 2), (70, 3)].into_iter().enumerate() {
        let before = attempts(&site, &vids).await;
        let asked = &vids[..tapes];
        let counted = join_all(asked.iter().map(|vid| store.together(vid, count))).await;
        let after = attempts(&site, &vids).await;
        for (number, counted) in counted.into_iter().enumerate() {
            assert_eq!(counted.expect("written"), after[number]);
            assert_eq!(after[number], before[number] + 1);
        }
        assert_eq!(after[tapes..], before[tapes..], "nobody else is touched");
        assert_eq!(transactions(&site, asked).await, shared, "round {round}");
    }
    for vid in &vids {
        let last = attempts(&site, std::slice::from_ref(vid)).await[0];
        let expected: Vec<_> = (1..=last).map(|number| json!({"of": vid.as_str(), "attempts": number})).collect();
        assert_eq!(noted(&site, vid).await, expected);
        let journey = site.row(vid.as_str()).await.row.expect("a lawful row").stamps.begun().naive_utc();
        for event in site.events_of(vid.as_str(), "edited").await {
            assert_eq!((event.actor.as_str(), event.journey), ("somebody", Some(journey)), "{vid}");
        }
    }
}

#[tokio::test]
async fn one_tape_asked_for_again_and_again_is_written_as_often() {
    let (site, vids) = site(3).await;
    let store = site.store();
    let asked: Vec<&Vid> = (0..30).map(|number| &vids[number % 2]).collect();
    let counted = join_all(asked.iter().map(|vid| store.together(vid, count))).await;
    let mut counted: Vec<i32> = counted.into_iter().map(|counted| counted.expect("written")).collect();
    counted.sort_unstable();
    assert_eq!(counted, (0..30).map(|number| number / 2 + 1).collect::<Vec<_>>());
    assert_eq!(attempts(&site, &vids).await, [15, 15, 0]);
}

/// Another session holds the rows; the others are written at once by one transaction, for it waits for nobody.
#[tokio::test]
async fn who_is_locked_by_somebody_else_holds_up_nobody() {
    let (site, vids) = site(9).await;
    let store = site.store();
    let psql = site.database.client().await;
    let (row, task) = (&vids[2], &vids[5]);
    let lock = format!(
        "BEGIN; SELECT 1 FROM {} WHERE tape = '{row}' FOR UPDATE; SELECT 1 FROM {} WHERE tape = '{task}' FOR UPDATE",
        site.table(),
        site.beside("_task")
    );
    psql.batch_execute(&lock).await.expect("the locks");
    let counted = join_all(vids.iter().map(|vid| store.together(vid, count))).await;
    // By itself as well: it is waited for, but not for ever.
    for vid in [row, task] {
        let alone = store.together(vid, count).await;
        assert!(matches!(alone, Err(StoreError::Busy(_))), "{alone:?}");
    }
    psql.batch_execute("COMMIT").await.expect("the end");
    for vid in [row, task] {
        store.together(vid, |_| ()).await.expect("it is free");
    }
    let mut free = Vec::new();
    for (vid, counted) in vids.iter().zip(counted) {
        match counted {
            Err(StoreError::Busy(_)) => assert!(vid == row || vid == task, "{vid}"),
            counted => {
                assert_eq!(counted.expect("written"), 1, "{vid}");
                free.push(vid.clone());
            }
        }
    }
    assert_eq!(free.len(), 7);
    assert_eq!(transactions(&site, &free).await, 1);
    assert_eq!(attempts(&site, &vids).await, [1, 1, 0, 1, 1, 0, 1, 1, 1]);
}

/// The transactions of this test that wait for a lock: whose, and since when they run.
async fn waiting(observer: &tokio_postgres::Client) -> Vec<(i32, DateTime<Utc>)> {
    let waiting = "SELECT pid, xact_start FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND datname = current_database() ORDER BY pid";
    let rows = observer.query(waiting, &[]).await.expect("the sessions");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// As many as may write at once wait for somebody else's locks: who asks then is served before any of them gives up.
#[tokio::test]
async fn those_who_wait_for_locks_leave_the_way_free() {
    const MANY: usize = 4;
    let (site, vids) = site(5).await;
    let (free, locked) = vids.split_last().expect("five");
    assert_eq!(locked.len(), MANY);
    let names = locked.iter().map(|vid| format!("'{vid}'")).collect::<Vec<_>>().join(", ");
    let (psql, observer) = (site.database.client().await, site.database.client().await);
    for table in [site.table(), site.beside("_task")] {
        let lock = format!("SELECT 1 FROM {table} WHERE tape IN ({names}) FOR UPDATE");
        let undisturbed = async {
            loop {
                psql.batch_execute(&format!("BEGIN; {lock}")).await.expect("the locks");
                let store = site.store();
                let mut asked = Vec::new();
                for (number, vid) in locked.iter().enumerate() {
                    let (store, vid) = (store.clone(), vid.clone());
                    asked.push(tokio::spawn(async move { store.together(&vid, |_| ()).await }));
                    while waiting(&observer).await.len() <= number && !asked.iter().any(|asked| asked.is_finished()) {
                        moment().await;
                    }
                }
                let before = waiting(&observer).await;
                store.together(free, |_| ()).await.expect("nobody has locked it");
                let after = waiting(&observer).await;
                psql.batch_execute("COMMIT").await.expect("the end");
                for asked in join_all(asked).await {
                    let asked = asked.expect("no panic");
                    assert!(matches!(asked, Ok(()) | Err(StoreError::Busy(_))), "{asked:?}");
                }
                // A slow machine: somebody gave up before the question was asked, or while it was answered.
                if before.len() == MANY && before == after {
                    break;
                }
            }
        };
        let undisturbed = tokio::time::timeout(PATIENCE, undisturbed).await;
        undisturbed.unwrap_or_else(|_| panic!("{table}: the others must give up their locks before it is served"));
    }
}

#[tokio::test]
async fn a_law_that_panics_takes_nobody_with_it() {
    let (site, vids) = site(5).await;
    let store = site.store();
    let asked = join_all(vids.iter().enumerate().map(|(number, vid)| {
        let law = move |locked: &mut Locked<'_>| {
            count(locked);
            assert!(number != 3, "a fault of the law");
        };
        AssertUnwindSafe(store.together(vid, law)).catch_unwind()
    }));
    let asked = asked.await;
    for (number, asked) in asked.into_iter().enumerate() {
        match (number, asked) {
            (3, Err(panic)) => assert_eq!(panic.downcast_ref::<&str>(), Some(&"a fault of the law")),
            (_, asked) => asked.expect("no panic").expect("written"),
        }
    }
    assert_eq!(attempts(&site, &vids).await, [1, 1, 1, 0, 1]);
    assert_eq!(transactions(&site, &[&vids[..3], &vids[4..]].concat()).await, 1);
    let alone = AssertUnwindSafe(store.together(&vids[3], |locked| {
        count(locked);
        assert!(locked.task.is_none(), "a fault of the law, alone");
    }));
    assert!(alone.catch_unwind().await.is_err());
    assert_eq!(attempts(&site, &vids).await, [1, 1, 1, 0, 1]);
    // Who comes later is served.
    let later = join_all(vids.iter().map(|vid| store.together(vid, count))).await;
    later.iter().for_each(|counted| assert!(counted.is_ok(), "{counted:?}"));
    assert_eq!(attempts(&site, &vids).await, [2, 2, 2, 1, 2]);
}

/// Each way in which a tape's transaction is refused: by what is written, and by a stamp that is there already.
#[tokio::test]
async fn what_is_refused_to_one_tape_is_refused_to_no_other() {
    let (site, vids) = site(6).await;
    let store = Store::sized(site.store().settings().clone(), "test", 2).unwrap();
    for (turn, wrong) in [0, 3, 5].into_iter().enumerate() {
        for stamped in [false, true] {
            let before = attempts(&site, &vids).await;
            let asked = join_all(vids.iter().enumerate().map(|(number, vid)| {
                store.together(vid, move |locked| {
                    count(locked);
                    match (number == wrong, stamped) {
                        (false, _) => {}
                        // No text of PostgreSQL's can hold this character.
                        (true, false) => locked.note("edited", json!({"text": "\0"})),
                        // Entered is set: nothing is to be stamped.
                        (true, true) => locked.change = RowChange::Stamp(State::Entered),
                    }
                })
            }))
            .await;
            let expected: Vec<i32> =
                before.iter().enumerate().map(|(number, before)| before + i32::from(number != wrong)).collect();
            for (number, asked) in asked.iter().enumerate() {
                assert_eq!(asked.is_err(), number == wrong, "turn {turn}, {stamped}: {asked:?}");
            }
            assert_eq!(attempts(&site, &vids).await, expected, "turn {turn}, {stamped}");
            let events = site.events(vids[wrong].as_str()).await;
            assert!(events.iter().all(|event| event.detail.get("text").is_none()), "{events:#?}");
        }
    }
}

#[tokio::test]
async fn holds_and_pauses_are_those_of_the_tape_and_rows_are_as_they_are() {
    let (site, vids) = site(6).await;
    let store = site.store();
    let (table, task, control) = (site.table(), site.beside("_task"), site.beside("_control"));
    let [held, over, odd, rowless, taskless, plain] = [0, 1, 2, 3, 4, 5].map(|number: usize| vids[number].clone());
    site.sql(&format!(
        "INSERT INTO {control} (kind, name, who, why, until) VALUES ('hold', '{held}', 'eve', 'a \"reason\"', '2199-12-31 23:59:59.123456Z'), \
         ('hold', '{over}', 'eve', 'over', now() - interval '1 s'), ('pause', 'end', 'eve', 'p', 'infinity'), \
         ('pause', 'start', 'eve', 'over', now() - interval '1 s'); \
         UPDATE {table} SET finished = entered WHERE tape = '{odd}'; DELETE FROM {table} WHERE tape = '{rowless}'; \
         DELETE FROM {task} WHERE tape = '{taskless}'; UPDATE {table} SET priority = 77 WHERE tape = '{plain}'"
    ))
    .await;
    // What a law is shown, in words.
    let shown = |locked: &mut Locked<'_>| {
        let row = match &locked.row {
            None => "no row".to_owned(),
            Some(Err(odd)) => format!("odd: {}", odd.tape),
            Some(Ok(tape)) => format!("{} {} {}", tape.vid, tape.priority, tape.mode),
        };
        let task = locked.task.as_ref().map(|task| (task.vid.clone(), task.stage.clone(), task.seen.clone()));
        (row, task, locked.control.clone(), locked.other_slots, locked.actor.clone())
    };
    let somebody = store.acting("somebody");
    let together = join_all(vids.iter().map(|vid| somebody.together(vid, shown))).await;
    for (vid, together) in vids.iter().zip(together) {
        let together = together.expect("shown");
        let alone = somebody.locked(vid, false, |locked| shown(locked)).await.expect("shown");
        assert_eq!(together, alone, "{vid}");
        let (row, task, control, other_slots, actor) = together;
        assert_eq!(
            (control.paused.as_slice(), other_slots, actor.as_str()),
            (["end".to_owned()].as_slice(), None, "somebody")
        );
        assert_eq!(control.hold.is_some(), *vid == held, "{vid}");
        if let Some(hold) = control.hold {
            let until = DateTime::parse_from_rfc3339("2199-12-31T23:59:59.123456Z").unwrap().to_utc();
            assert_eq!((hold.who.as_str(), hold.why.as_str(), hold.until), ("eve", "a \"reason\"", Some(until)));
        }
        assert_eq!(task.is_none(), *vid == taskless, "{vid}");
        let expected = match () {
            () if *vid == odd => format!("odd: {odd}"),
            () if *vid == rowless => "no row".to_owned(),
            () if *vid == plain => format!("{plain} 77 auto"),
            () => format!("{vid} 10 auto"),
        };
        assert_eq!(row, expected);
    }
}

/// The clock, the sequences and the dice are each tape's own.
#[tokio::test]
async fn no_two_tapes_get_one_epoch() {
    let (site, vids) = site(20).await;
    let store = site.store();
    let fresh = |locked: &mut Locked<'_>| {
        let now = locked.now();
        let (_, _, ground, _) = locked.parts();
        (ground.fresh_epoch, ground.fresh_generation, ground.jitter.to_bits(), now)
    };
    let begun: DateTime<Utc> =
        site.database.client().await.query_one("SELECT clock_timestamp()", &[]).await.expect("the time").get(0);
    let mut all = Vec::new();
    for _ in 0..2 {
        let given = join_all(vids.iter().map(|vid| store.together(vid, fresh))).await;
        all.extend(given.into_iter().map(|given| given.expect("given")));
    }
    assert!(all.iter().all(|(.., now)| *now >= begun));
    for distinct in [
        all.iter().map(|(epoch, ..)| epoch.to_string()).collect::<std::collections::BTreeSet<_>>(),
        all.iter().map(|(_, generation, ..)| generation.to_string()).collect(),
        all.iter().map(|(_, _, jitter, _)| jitter.to_string()).collect(),
    ] {
        assert_eq!(distinct.len(), all.len());
    }
}

/// A task row in which every column has a value of its own; of those that may be empty, some are: by the bits of `number`.
fn filled(made: &Task, number: u32) -> Task {
    let mut bit = 0;
    let mut some = move || {
        bit += 1;
        // Every pair of columns is filled differently in some row.
        (number.wrapping_mul(2_654_435_761).rotate_left(bit) & 1) == 1 || number == 1
    };
    let mut at = 0;
    let mut time = move || {
        at += 1_000_001;
        DateTime::from_timestamp_micros(1_700_000_000_000_000 + i64::from(number) * 1_000_000_007 + at).expect("a time")
    };
    let small = i32::try_from(number).expect("a small number");
    Task {
        vid: made.vid.clone(),
        stage: some().then(|| format!("stage {number}")),
        generation: i64::from(number) + (1 << 40),
        epoch: i64::from(number) + (1 << 41),
        dispatched_at: some().then(&mut time),
        owner: some().then(|| format!("owner {number}, \"quoted\" {{braced}} \\ NULL")),
        lease_until: some().then(&mut time),
        intent: some().then(|| Intent {
            kind: format!("kind {number}"),
            command: "a, 'b' \"c\" {d}".to_owned(),
            at: time(),
            before: Default::default(),
        }),
        attempts: small + 100,
        crashes: small + 200,
        next: match number % 3 {
            0 => Next::Now,
            1 => Next::At(time()),
            _ => Next::Never,
        },
        settle_until: some().then(&mut time),
        slot_since: some().then(&mut time),
        wanted: [None, Some(Wanted::Retry), Some(Wanted::GiveBack), Some(Wanted::Unstick)][number as usize % 4],
        round: small + 300,
        progress: some().then(|| Progress {
            status: format!("status {number}"),
            retrieved_files: u64::from(number) + 1,
            archived_files: u64::from(number) + 2,
            total_files: u64::from(number) + 3,
            archived_bytes: u64::from(number) + 4,
            total_bytes: u64::from(number) + 5,
            failed_files: u64::from(number) + 6,
        }),
        progress_at: some().then(&mut time),
        outcome: [None, Some(Outcome::Waiting), Some(Outcome::Retrying), Some(Outcome::Stalled), Some(Outcome::Failed)]
            [number as usize % 5],
        reason: some().then(|| Kept { code: format!("code {number}"), text: format!("tëxt {number}\n,") }),
        memory: {
            let mut memory = made.memory.clone();
            memory.source_state = Some(format!("state {number}"));
            memory.waits = number;
            memory
        },
        seen: some().then(|| SeenRow {
            xmin: i64::from(number),
            mode: Mode::Error,
            stamps: [Some(time()), None, None, None, None, None],
        }),
    }
}

#[tokio::test]
async fn every_column_of_every_tape_is_read_as_it_was_written() {
    let (site, vids) = site(24).await;
    let store = site.store();
    for turn in 0..3_u32 {
        let asked = join_all(vids.iter().zip(1_u32..).map(|(vid, number)| {
            store.together(vid, move |locked| {
                let task = locked.task.as_mut().expect("a task");
                *task = filled(task, number + turn);
                task.clone()
            })
        }))
        .await;
        assert_eq!(transactions(&site, &vids).await, 1);
        for (vid, written) in vids.iter().zip(asked) {
            let written = written.expect("written");
            let alone = store.locked(vid, false, |locked| locked.task.clone()).await.expect("read");
            assert_eq!(alone.as_ref(), Some(&written), "{vid} in turn {turn}");
        }
        let read = join_all(vids.iter().map(|vid| store.together(vid, |locked| locked.task.clone()))).await;
        for ((vid, read), number) in vids.iter().zip(read).zip(1..) {
            let read = read.expect("read").expect("a task");
            assert_eq!(read, filled(&read, number + turn), "{vid} in turn {turn}");
        }
    }
}

#[tokio::test]
async fn what_is_committed_is_counted_and_nothing_else() {
    let (site, vids) = site(4).await;
    let store = site.store();
    let counted = || {
        let text = store.metrics().text("test");
        let line = text.lines().find(|line| line.contains("_retries_total{") && line.contains("stage=\"end\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).unwrap_or_default()
    };
    assert_eq!(counted(), 0);
    for (wrong, expected) in [(None, 4), (Some(2), 7)] {
        let asked = join_all(vids.iter().enumerate().map(|(number, vid)| {
            store.together(vid, move |locked| {
                let text = if wrong == Some(number) { "\0" } else { "fine" };
                let detail = json!({ "why": text });
                locked.notes.push(Note { kind: "retrying", stage: Some("end".to_owned()), detail });
            })
        }));
        let asked = asked.await;
        assert_eq!(asked.iter().filter(|asked| asked.is_err()).count(), usize::from(wrong.is_some()));
        assert_eq!(counted(), expected);
    }
}

/// A law that wants more than a stamp, the task row and the history is carried out as well, and joined by nobody.
#[tokio::test]
async fn whatever_a_law_wants_is_done() {
    let (site, vids) = site(8).await;
    let store = site.store();
    let asked = join_all(vids.iter().enumerate().map(|(number, vid)| {
        store.together(vid, move |locked| {
            count(locked);
            match number {
                0 => locked.mode = Some(Mode::Manual),
                1 => locked.priority = Some(99),
                2 => locked.responsible = Some("eve".to_owned()),
                3 => locked.hold = Some(HoldChange::Put { why: "w".to_owned(), until: None }),
                4 => locked.statistics = Some(json!({"vid": "x"})),
                5 => locked.change = RowChange::Remove,
                6 => locked.change = RowChange::Stamp(State::Started),
                _ => {}
            }
        })
    }))
    .await;
    asked.into_iter().for_each(|asked| asked.expect("written"));
    let done = site
        .database
        .client()
        .await
        .query(
            &format!(
                "SELECT m.tape::text, m.mode::text, m.priority::int4, m.responsible::text, m.started IS NOT NULL FROM {} m ORDER BY m.tape",
                site.table()
            ),
            &[],
        )
        .await
        .expect("the rows");
    let done: Vec<String> = done
        .iter()
        .map(|row| {
            format!(
                "{} {} {} {} {}",
                row.get::<_, String>(0),
                row.get::<_, String>(1),
                row.get::<_, i32>(2),
                row.get::<_, String>(3),
                row.get::<_, bool>(4)
            )
        })
        .collect();
    assert_eq!(
        done,
        [
            "V01001 manual 10 test false",
            "V01002 auto 99 test false",
            "V01003 auto 10 eve false",
            "V01004 auto 10 test false",
            "V01005 auto 10 test false",
            "V01007 auto 10 test true",
            "V01008 auto 10 test false",
        ]
    );
    assert_eq!(
        site.number(&format!(
            "SELECT count(*) FROM {} WHERE kind = 'hold' AND name = 'V01004'",
            site.beside("_control")
        ))
        .await,
        1
    );
    assert_eq!(
        site.number(&format!("SELECT count(*) FROM {} WHERE tape = 'V01005'", site.beside("_statistic"))).await,
        1
    );
    assert_eq!(
        site.number(&format!("SELECT count(*) FROM {} WHERE tape = 'V01006'", site.beside("_history"))).await,
        1
    );
    assert_eq!(attempts(&site, &vids).await, [1; 8]);
    // Only those that want no more share a transaction.
    assert_eq!(transactions(&site, &vids[6..]).await, 1);
    assert_eq!(transactions(&site, &vids).await, 7);
}

/// Stamps of several states in one transaction; nobody takes them for an edit, but an edit is still noticed.
#[tokio::test]
async fn stamps_are_set_together_and_are_known_to_be_ours() {
    let (site, vids) = site(7).await;
    let (table, task) = (site.table(), site.beside("_task"));
    site.sql(&format!("UPDATE {table} SET started = entered WHERE tape > 'V01004'")).await;
    site.tick_of(&[]).await;
    site.sql(&format!("UPDATE {table} SET responsible = 'eve' WHERE tape = 'V01002'")).await;
    let store = site.store();
    let asked = join_all(vids.iter().enumerate().map(|(number, vid)| {
        let to = if number < 4 { State::Started } else { State::Repacked };
        store.together(vid, move |locked| {
            locked.change = RowChange::Stamp(to);
            locked.note("done", json!({}));
        })
    }))
    .await;
    asked.into_iter().for_each(|asked| asked.expect("stamped"));
    assert_eq!(transactions(&site, &vids).await, 1);
    let unknown = format!(
        "SELECT string_agg(m.tape, ' ' ORDER BY m.tape) FROM {table} m JOIN {task} k USING (tape) \
         WHERE k.seen_xmin IS DISTINCT FROM m.xmin::text::int8"
    );
    let unknown: Option<String> = site.database.client().await.query_one(&unknown, &[]).await.expect("the row").get(0);
    assert_eq!(unknown.as_deref(), Some("V01002"), "the edit of somebody else is still to be followed");
    let lines = format!("SELECT count(*) FROM {}", site.beside("_edited"));
    assert_eq!(site.number(&lines).await, 1, "a stamp of ours leaves no line");
    for (number, row) in site.rows().await.iter().enumerate() {
        let stamps = &row.row.as_ref().expect("a lawful row").stamps;
        assert_eq!((stamps.at(State::Started).is_some(), stamps.at(State::Repacked).is_some()), (true, number >= 4));
    }
}

/// Whoever asked and went away: what it wanted may be done or not, the others are served.
#[tokio::test]
async fn who_goes_away_while_it_waits_disturbs_nobody() {
    let (site, vids) = site(6).await;
    let store = site.store();
    for (number, vid) in vids.iter().enumerate().filter(|(number, _)| number % 2 == 0) {
        // Polled once: it waits.
        assert!(store.together(vid, count).now_or_never().is_none(), "{number}");
    }
    let others = vids.iter().skip(1).step_by(2);
    for counted in join_all(others.map(|vid| store.together(vid, count))).await {
        assert_eq!(counted.expect("written"), 1);
    }
    assert_eq!(attempts(&site, &vids).await[1], 1);
}

/// A proxy before the database, and a store behind it.
async fn behind_a_proxy(site: &Site) -> (Arc<Proxy>, Store) {
    let mut settings = site.settings.clone();
    let proxy = Proxy::to(&format!("{}:{}", settings.database.host, settings.database.port)).await;
    let address = proxy.address();
    let (host, port) = address.split_once(':').expect("an address");
    (settings.database.host, settings.database.port) = (host.to_owned(), port.parse().expect("a port"));
    let store = Store::sized(Arc::new(settings), "behind", 3).expect("a store");
    (Arc::new(proxy), store)
}

/// Counts all of them once: from then on everything is planned on its connection, and the next commit is sent before anything
/// has to be answered but the locks.
async fn planned(store: &Store, vids: &[Vid]) {
    join_all(vids.iter().map(|vid| store.together(vid, count)))
        .await
        .iter()
        .for_each(|counted| assert!(counted.is_ok()));
}

/// Waits until so many have been counted twice, and does not wait for a lock.
async fn committed(site: &Site, tapes: i64) {
    let line = format!("SELECT count(*) FROM {} WHERE attempts = 2", site.beside("_task"));
    while site.number(&line).await != tapes {
        moment().await;
    }
}

/// While the server is away nothing is known to be written, when it is back all goes on: away before anything is asked, and
/// when all laws have been.
#[tokio::test]
async fn an_outage_is_told_to_everybody_and_does_not_last() {
    let (site, vids) = site(5).await;
    for late in [false, true] {
        let (proxy, store) = behind_a_proxy(&site).await;
        let before = attempts(&site, &vids).await;
        if !late {
            proxy.cut();
        }
        let last = vids.len() - 1;
        let asked = join_all(vids.iter().enumerate().map(|(number, vid)| {
            let proxy = Arc::clone(&proxy);
            store.together(vid, move |locked| {
                if number == last {
                    proxy.cut();
                }
                count(locked)
            })
        }))
        .await;
        for asked in &asked {
            assert!(matches!(asked, Err(StoreError::Database(_))), "{asked:?}");
        }
        assert_eq!(attempts(&site, &vids).await, before, "{late}");
        proxy.thaw();
        let asked = join_all(vids.iter().map(|vid| store.together(vid, count))).await;
        for (asked, before) in asked.into_iter().zip(before) {
            assert_eq!(asked.expect("written"), before + 1);
        }
        assert_eq!(transactions(&site, &vids).await, 1);
    }
}

/// The server commits, and nobody hears of it: nobody is told that it was done, nor that it was not.
#[tokio::test]
async fn a_commit_of_several_that_is_not_answered_is_in_doubt_for_all() {
    let (site, vids) = site(4).await;
    let (proxy, store) = behind_a_proxy(&site).await;
    planned(&store, &vids).await;
    let last = vids.len() - 1;
    let asked = join_all(vids.iter().enumerate().map(|(number, vid)| {
        let proxy = Arc::clone(&proxy);
        store.together(vid, move |locked| {
            if number == last {
                proxy.freeze_answers();
            }
            count(locked)
        })
    }));
    let meanwhile = async {
        committed(&site, 4).await;
        proxy.cut();
    };
    let (asked, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(asked, meanwhile) }).await.expect("an end");
    for asked in &asked {
        assert!(matches!(asked, Err(StoreError::Database(_))), "{asked:?}");
    }
    assert_eq!(attempts(&site, &vids).await, [2; 4]);
}

/// As a firewall that has forgotten a connection: nothing ends it, and nothing comes back.
#[tokio::test]
async fn a_connection_that_falls_silent_does_not_keep_the_others_waiting_for_ever() {
    let (site, vids) = site(10).await;
    let (proxy, store) = behind_a_proxy(&site).await;
    planned(&store, &vids).await;
    let line = "SELECT client_port::int8 FROM pg_stat_activity WHERE application_name = 'behind' AND datname = current_database()";
    let port = u16::try_from(site.number(line).await).expect("a port");
    let asked = join_all(vids[..8].iter().enumerate().map(|(number, vid)| {
        let frozen = Arc::clone(&proxy);
        store.together(vid, move |locked| {
            if number == 0 {
                frozen.freeze_answers_of(port);
            }
            count(locked)
        })
    }));
    let later = async {
        committed(&site, 8).await;
        store.together(&vids[9], count).await
    };
    let (asked, later) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(asked, later) }).await.expect("nobody waits for ever");
    for asked in &asked {
        assert!(
            matches!(asked, Err(StoreError::Database(why)) if why.to_string().contains("has not answered")),
            "{asked:?}"
        );
    }
    assert_eq!(later.expect("by another connection"), 2);
    // The silent one is given to nobody.
    for vid in &vids {
        let again = tokio::time::timeout(Duration::from_secs(10), store.together(vid, |_| ())).await;
        again.expect("an answer").expect("done");
    }
}

/// The row is locked first: what is decided upon is read when that is done.
#[tokio::test]
async fn a_hold_that_is_put_while_the_table_is_waited_for_is_seen() {
    for tapes in [1, 3] {
        let (site, vids) = site(tapes).await;
        let store = Store::sized(site.store().settings().clone(), "patient", 2).unwrap();
        store.ready().await.unwrap();
        let psql = site.database.client().await;
        psql.batch_execute(&format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", site.table()))
            .await
            .expect("a lock");
        let asked = join_all(vids.iter().map(|vid| store.together(vid, |locked| locked.control.hold.is_some())));
        let meanwhile = async {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'patient' \
                         AND wait_event_type = 'Lock' AND datname = current_database()";
            while site.number(waits).await == 0 {
                moment().await;
            }
            let hold = format!(
                "INSERT INTO {} (kind, name, who, why) VALUES ('hold', '{}', 'eve', 'w'); COMMIT",
                site.beside("_control"),
                vids[0]
            );
            psql.batch_execute(&hold).await.expect("the hold");
        };
        let (asked, ()) = tokio::join!(asked, meanwhile);
        for (number, held) in asked.into_iter().enumerate() {
            assert_eq!(held.expect("it was let go in time"), number == 0, "{number} of {tapes}");
        }
    }
}

/// A table without the key that ATRESYS's has: no row of two is stamped.
#[tokio::test]
async fn a_tape_with_two_rows_is_refused_and_no_other() {
    let (site, vids) = site(4).await;
    let table = site.table();
    site.sql(&format!(
        "DO $$ BEGIN EXECUTE (SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) \
         FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'p'); END $$; \
         INSERT INTO {table} SELECT * FROM {table} WHERE tape = '{}'",
        vids[1]
    ))
    .await;
    let store = site.store();
    for tapes in [&vids[..], &vids[1..2]] {
        let asked = join_all(tapes.iter().map(|vid| {
            store.together(vid, |locked| {
                locked.change = RowChange::Stamp(State::Started);
            })
        }))
        .await;
        for (vid, asked) in tapes.iter().zip(asked) {
            assert_eq!(asked.is_err(), *vid == vids[1], "{vid}: {asked:?}");
        }
    }
    let stamped = format!("SELECT count(*) FROM {table} WHERE started IS NOT NULL");
    assert_eq!(site.number(&stamped).await, 3);
}

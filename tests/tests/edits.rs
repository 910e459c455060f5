//! Somebody edits the table with `psql`, between deliveries and in the middle of one.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use common::journey::{Mode, State};
use common::stages::STAGES;
use common::store::{Store, StoreError};
use common::tape::Vid;
use cta_sim::{Action, Order, World};
use futures_util::future::join_all;
use journeys::checker::JOURNEY;
use journeys::site::{PATIENCE, Site};
use journeys::steps::{Barrier, moment, time_of, until};
use serde_json::json;
use tokio::sync::watch;
use worker::delivery::{Deliverer, Report};

const VID: &str = "V01001";

/// States that a stage leads to, and arguments of a change that is made on the way there.
const LEADS_TO: [(State, &str); 5] = [
    (State::Started, "repack add --vid V01001"),
    (State::Repacked, "tapefile ls --vid V01001"),
    (State::Quarantined, "tape ch --vid V01001 --tapepool quarantine"),
    (State::Reclaimed, "tape reclaim --vid V01001"),
    (State::Finished, "tape ch --vid V01001 --tapepool tolabel_IBM1L9"),
];

async fn site() -> Site {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&[VID]).await;
    site
}

async fn set(site: &Site, assignment: &str) {
    site.sql(&format!("UPDATE {} SET {assignment} WHERE tape = '{VID}'", site.table())).await;
}

async fn stamp(site: &Site, state: State) -> Option<DateTime<Utc>> {
    site.row(VID).await.row.expect("a lawful row").stamps.at(state)
}

/// The tape finishes, and what the journey needs in CTA was done once each.
async fn finishes_with_each_effect_once(site: &Site, what: &str) {
    site.finish(VID).await;
    assert_eq!(site.changes()[VID], JOURNEY, "{what}");
    assert_eq!(cta_sim::overlaps(&site.journal()), Vec::<String>::new(), "{what}");
}

/// The row taken away and put back as it was: nobody can see it missing.
fn delete_and_insert(table: &str) -> String {
    format!(
        "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM {table} WHERE tape = '{VID}'; \
         DELETE FROM {table} WHERE tape = '{VID}'; INSERT INTO {table} SELECT * FROM kept"
    )
}

/// `rm` and `add` of ATRESYS: the tape is entered anew.
fn remove_and_add(table: &str) -> String {
    format!(
        "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM {table} WHERE tape = '{VID}'; \
         DELETE FROM {table} WHERE tape = '{VID}'; \
         UPDATE kept SET entered = (clock_timestamp() AT TIME ZONE 'UTC' + interval '1 s')::timestamp(0), started = NULL, repacked = NULL, \
         quarantined = NULL, reclaimed = NULL, finished = NULL; INSERT INTO {table} SELECT * FROM kept"
    )
}

/// One tick of the stage that leads to `state`, with `edit` made while a call with these arguments is under way.
async fn edited_during(site: &Site, barrier: &Barrier, state: State, words: &str, edit: impl Future<Output = ()>) {
    barrier.raise(words);
    let meanwhile = async {
        barrier.reached().await;
        edit.await;
        barrier.open();
    };
    let stage = state as usize - 1;
    tokio::join!(site.tick_of(&STAGES[stage..=stage]), meanwhile);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stamp_cleared_between_deliveries_is_set_again_without_doing_anything_twice() {
    for (state, _) in LEADS_TO {
        let site = site().await;
        site.bring(&[VID], state).await;
        set(&site, &format!("{state} = NULL")).await;
        finishes_with_each_effect_once(&site, &format!("{state} cleared")).await;
        let edits = site.events_of(VID, "edited-elsewhere").await;
        assert_eq!(edits.len(), 1, "{state}");
        assert!(edits[0].detail["changed"][0].as_str().is_some_and(|text| text.starts_with(state.column())), "{state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stamp_set_by_an_operator_between_deliveries_stays() {
    join_all(LEADS_TO.map(async |(state, _)| {
        let site = site().await;
        set(&site, "entered = entered - interval '1 day'").await;
        site.bring(&[VID], state).await;
        let before = State::ALL[state as usize - 1];
        set(&site, &format!("{state} = {before} + interval '7 s'")).await;
        let set_to = stamp(&site, state).await;
        // Stamps after it must not lie before it; nothing is said about the later ones.
        finishes_with_each_effect_once(&site, &format!("{state} set")).await;
        assert_eq!(stamp(&site, state).await, set_to, "{state}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stamp_set_by_an_operator_during_a_command_is_neither_overwritten_nor_lost() {
    join_all(LEADS_TO.map(async |(state, words)| {
        let mut site = site().await;
        let barrier = site.barrier();
        let before = State::ALL[state as usize - 1];
        site.bring(&[VID], before).await;
        site.all_due().await;
        edited_during(&site, &barrier, state, words, set(&site, &format!("{state} = {before} + interval '7 s'"))).await;
        let set_to = stamp(&site, state).await;
        assert_eq!(set_to, stamp(&site, before).await.map(|at| at + Duration::from_secs(7)), "{state}");
        assert_eq!(site.events_of(VID, "superseded").await.len(), 1, "{state}");
        let undone = state == State::Finished;
        if undone {
            // The operator says that it is finished: nobody comes any more to give the state back.
            site.tick().await;
            assert_eq!(site.at(VID).await, (State::Finished, Mode::Auto));
            assert_eq!(site.changes()[VID], JOURNEY[..7]);
        } else {
            finishes_with_each_effect_once(&site, &format!("{state} set")).await;
        }
        assert_eq!(stamp(&site, state).await, set_to, "{state}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stamp_cleared_during_a_command_costs_nothing_but_a_look() {
    // The first stamp cannot be cleared.
    for (state, words) in &LEADS_TO[1..] {
        let mut site = site().await;
        let barrier = site.barrier();
        let before = State::ALL[*state as usize - 1];
        site.bring(&[VID], before).await;
        site.all_due().await;
        edited_during(&site, &barrier, *state, words, set(&site, &format!("{before} = NULL"))).await;
        assert!(stamp(&site, *state).await.is_none(), "{state}: not stamped over an edit");
        finishes_with_each_effect_once(&site, &format!("{before} cleared")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_made_manual_between_deliveries_is_left_alone_until_it_is_auto_again() {
    for (state, _) in LEADS_TO {
        let before = State::ALL[state as usize - 1];
        let site = site().await;
        site.bring(&[VID], before).await;
        site.all_due().await;
        set(&site, "mode = 'manual'").await;
        let so_far = site.begun(VID).len();
        for _ in 0..2 {
            site.tick().await;
        }
        assert_eq!(site.at(VID).await, (before, Mode::Manual));
        assert_eq!(site.begun(VID).len(), so_far, "{before}");
        set(&site, "mode = 'auto'").await;
        finishes_with_each_effect_once(&site, &format!("manual at {before}")).await;
        assert_eq!(site.events_of(VID, "edited-elsewhere").await.len(), 2, "{before}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_made_manual_during_a_command_gets_its_proven_stamp_and_nothing_else() {
    for (state, words) in LEADS_TO {
        let mut site = site().await;
        let barrier = site.barrier();
        site.bring(&[VID], State::ALL[state as usize - 1]).await;
        site.all_due().await;
        edited_during(&site, &barrier, state, words, set(&site, "mode = 'manual'")).await;
        // Giving the state back is another command: it is not begun in mode manual.
        let reached = if state == State::Finished { State::Reclaimed } else { state };
        assert_eq!(site.at(VID).await, (reached, Mode::Manual));
        let so_far = site.begun(VID).len();
        for _ in 0..2 {
            site.tick().await;
        }
        assert_eq!(site.at(VID).await, (reached, Mode::Manual));
        assert_eq!(site.begun(VID).len(), so_far, "{state}");
        set(&site, "mode = 'auto'").await;
        finishes_with_each_effect_once(&site, &format!("manual on the way to {state}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_in_error_that_an_operator_makes_auto_goes_on_where_it_stood() {
    let site = site().await;
    site.bring(&[VID], State::Reclaimed).await;
    site.edit(|world| world.tapes.get_mut(VID).expect("the tape").full = true);
    site.tick_until("a stop", |rows| rows[0].row.as_ref().is_ok_and(|tape| tape.mode == Mode::Error)).await;
    site.edit(|world| world.tapes.get_mut(VID).expect("the tape").full = false);
    site.tick().await;
    assert_eq!(site.at(VID).await, (State::Reclaimed, Mode::Error), "nobody has decided");
    set(&site, "mode = 'auto'").await;
    finishes_with_each_effect_once(&site, "error to auto").await;
    let edits = site.events_of(VID, "edited-elsewhere").await;
    assert_eq!(edits.len(), 1);
    assert_eq!(edits[0].detail["changed"][0], "mode error to auto");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_deleted_during_a_command_is_not_made_again_and_goes_on_when_it_is_back() {
    for (state, words) in LEADS_TO {
        let mut site = site().await;
        let barrier = site.barrier();
        site.bring(&[VID], State::ALL[state as usize - 1]).await;
        site.all_due().await;
        let table = site.table();
        let aside = format!(
            "CREATE TABLE aside AS SELECT * FROM {table} WHERE tape = '{VID}'; DELETE FROM {table} WHERE tape = '{VID}'"
        );
        edited_during(&site, &barrier, state, words, site.sql(&aside)).await;
        let so_far = site.begun(VID).len();
        for _ in 0..2 {
            site.tick().await;
        }
        assert!(site.rows().await.is_empty(), "{state}");
        assert_eq!(site.begun(VID).len(), so_far, "{state}");
        site.sql(&format!("INSERT INTO {table} SELECT * FROM aside")).await;
        finishes_with_each_effect_once(&site, &format!("deleted on the way to {state}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_deleted_and_inserted_during_a_command_inherits_lease_and_intent() {
    for (again, fresh) in [(delete_and_insert as fn(&str) -> String, false), (remove_and_add, true)] {
        let mut site = site().await;
        let barrier = site.barrier();
        site.bring(&[VID], State::Quarantined).await;
        site.all_due().await;
        let begun = site.begun(VID).len();
        let edit = async {
            let before = site.row(VID).await.task.expect("a task");
            site.sql(&again(&site.table())).await;
            site.tick().await;
            let after = site.row(VID).await.task.expect("a task");
            assert!(after.owner.is_some() && after.intent.is_some(), "{after:?}");
            assert_eq!((&after.owner, &after.intent, after.epoch), (&before.owner, &before.intent, before.epoch));
            // A message for the row as it is now finds somebody at work.
            let (_, never) = watch::channel(false);
            let deliverer = Deliverer::new(site.store(), site.cta(), "there", never);
            let vid = VID.parse().expect("a VID");
            let stage = after.stage.clone().expect("a stage");
            let report = deliverer.deliver(&vid, &stage, after.generation).await.expect("the database");
            assert!(matches!(report, Report::Nothing(_)), "{report:?}");
            assert_eq!(site.tries(VID, "tape reclaim"), 0, "it waits at the barrier, before the journal");
        };
        edited_during(&site, &barrier, State::Reclaimed, "tape reclaim --vid V01001", edit).await;
        assert_eq!(site.begun(VID).len(), begun + 1);
        assert_eq!(site.times(VID, "tape reclaim"), 1);
        if fresh {
            // A new journey of a tape that is empty now: there is nothing to repack.
            site.tick_until("a stop", |rows| rows[0].row.as_ref().is_ok_and(|tape| tape.mode == Mode::Error)).await;
            assert_eq!(site.at(VID).await.0, State::Entered);
            assert_eq!(site.begun(VID).len(), begun + 1, "nothing was done to it");
        } else {
            finishes_with_each_effect_once(&site, "delete and insert").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_deleted_and_inserted_inherits_the_time_to_settle() {
    for (again, fresh) in [(delete_and_insert as fn(&str) -> String, false), (remove_and_add, true)] {
        let site = site().await;
        site.order(Order::once("repack add", Action::LateExit1(1000)));
        site.tick_until("an unclear command", |rows| {
            rows[0].task.as_ref().is_some_and(|task| task.settle_until.is_some())
        })
        .await;
        let settled = site.row(VID).await.task.and_then(|task| task.settle_until).expect("it settles");
        let begun = site.begun(VID).len();
        site.sql(&again(&site.table())).await;
        site.tick().await;
        let task = site.row(VID).await.task.expect("a task");
        assert_eq!(task.settle_until, Some(settled));
        assert!(task.slot_since.is_some(), "the slot is inherited too");
        // The repack that the row knew nothing of any more is somebody else's for a new journey.
        let rest = if fresh { (State::Entered, Mode::Error) } else { (State::Started, Mode::Auto) };
        let waited = Instant::now();
        while site.at(VID).await != rest || site.row(VID).await.now < settled {
            assert!(waited.elapsed() < PATIENCE, "{:?}: {:?}", site.row(VID).await, site.why(VID).await);
            site.tick_of(&STAGES[..1]).await;
            moment().await;
        }
        assert_eq!(site.begun(VID).len(), begun, "{:?}", site.why(VID).await);
        for done in site.events_of(VID, "done").await {
            assert!(done.at >= settled, "stamped before it settled: {done:?}");
        }
        assert_eq!(site.times(VID, "repack add"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_an_open_transaction_holds_is_passed_by_and_comes_later() {
    let site = Site::new(World::new().with_full_tapes(2)).await;
    site.enter(&[VID, "V01002"]).await;
    let psql = site.database.client().await;
    let held = format!("BEGIN; SELECT * FROM {} WHERE tape = '{VID}' FOR UPDATE", site.table());
    psql.batch_execute(&held).await.expect("the row");
    let begun = Instant::now();
    site.finish_others(VID).await;
    assert!(begun.elapsed() < Duration::from_secs(50), "nothing hung on the lock");
    assert_eq!(site.begun(VID), []);
    assert_eq!(site.at(VID).await, (State::Entered, Mode::Auto));
    psql.batch_execute("COMMIT").await.expect("the end");
    finishes_with_each_effect_once(&site, "held between deliveries").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_held_while_a_command_runs_is_recorded_when_it_is_let_go() {
    join_all(LEADS_TO.map(async |(state, words)| {
        let mut site = site().await;
        let barrier = site.barrier();
        site.bring(&[VID], State::ALL[state as usize - 1]).await;
        site.all_due().await;
        let psql = site.database.client().await;
        let held = format!("BEGIN; SELECT * FROM {} WHERE tape = '{VID}' FOR UPDATE", site.table());
        barrier.raise(words);
        let calls = || site.journal().iter().filter(|entry| entry.kind == cta_sim::Kind::End).count();
        let meanwhile = async {
            barrier.reached().await;
            psql.batch_execute(&held).await.expect("the row");
            let before = calls();
            barrier.open();
            until("the command's end", || calls() > before).await;
            // Longer than the lock_timeout of our sessions: they have to ask more than once.
            tokio::time::sleep(Duration::from_millis(2300)).await;
            psql.batch_execute("COMMIT").await.expect("the end");
        };
        let stage = state as usize - 1;
        tokio::join!(site.tick_of(&STAGES[stage..=stage]), meanwhile);
        assert_eq!(site.at(VID).await, (state, Mode::Auto), "{:?}", site.why(VID).await);
        finishes_with_each_effect_once(&site, &format!("held on the way to {state}")).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_anything_else_disturbs_nothing() {
    let site = site().await;
    for (state, _) in LEADS_TO {
        site.bring(&[VID], State::ALL[state as usize - 1]).await;
        set(&site, "responsible = responsible || '.'").await;
    }
    finishes_with_each_effect_once(&site, "responsible").await;
    assert_eq!(site.events_of(VID, "edited-elsewhere").await, []);
    let begun = site.begun(VID);
    assert!(begun.windows(2).all(|pair| time_of(&pair[0]) <= time_of(&pair[1])));
    moment().await;
}

/// A statement that fails is on its way together with others and with the commit behind them.
#[tokio::test]
async fn where_one_statement_of_a_transaction_fails_none_is_kept_and_the_connection_is_clean() {
    let site = site().await;
    let vid: Vid = VID.parse().unwrap();
    // One connection: what is left behind on it would be met by the next transaction.
    let store = Store::sized(site.store().settings().clone(), "test", 1).unwrap();
    let attempts = format!("SELECT attempts::int8 FROM {} WHERE tape = '{VID}'", site.beside("_task"));
    let (before, events) = (site.number(&attempts).await, site.events(VID).await.len());
    for spoilt in [0, 1] {
        let failed = store
            .locked(&vid, false, |locked| {
                locked.task.as_mut().expect("a task").attempts += 7;
                for number in 0..3 {
                    // No text of PostgreSQL's can hold this character.
                    let text = if number == spoilt { "\0" } else { "fine" };
                    locked.note("edited", json!({ "text": text }));
                }
            })
            .await;
        assert!(matches!(failed, Err(StoreError::Database(_))), "{failed:?}");
        assert_eq!((site.number(&attempts).await, site.events(VID).await.len()), (before, events));
    }
    let noted = store.locked(&vid, false, |locked| {
        locked.task.as_mut().expect("a task").attempts += 7;
        locked.note("edited", json!({}));
    });
    noted.await.unwrap();
    assert_eq!((site.number(&attempts).await, site.events(VID).await.len()), (before + 7, events + 1));
}

/// Waits until a session of `name` waits for a lock.
async fn waits(site: &Site, name: &str) {
    let line = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event_type = 'Lock' AND datname = current_database()"
    );
    let waiting = async {
        while site.number(&line).await == 0 {
            moment().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("somebody waits for a lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_a_lock_is_waited_for_is_read_as_it_is_when_the_lock_is_held() {
    let task = |site: &Site| site.beside("_task");
    // Who holds a lock meanwhile, and what that session does: a mark of the task row alone; a task row made under the main row.
    let mark = |site: &Site| {
        let lock = format!("SELECT 1 FROM {} WHERE tape = '{VID}' FOR UPDATE", task(site));
        (lock, format!("UPDATE {} SET attempts = 3 WHERE tape = '{VID}'", task(site)))
    };
    let made = |site: &Site| {
        let lock = format!("SELECT 1 FROM {} WHERE tape = '{VID}' FOR UPDATE", site.table());
        (
            lock,
            format!(
                "INSERT INTO {} (tape, stage, generation, epoch, attempts) VALUES ('{VID}', 'start', 7, 8, 3)",
                task(site)
            ),
        )
    };
    for (without_task, holder) in [(false, &mark as &dyn Fn(&Site) -> (String, String)), (true, &made)] {
        let site = site().await;
        if without_task {
            site.sql(&format!("DELETE FROM {} WHERE tape = '{VID}'", task(&site))).await;
        }
        let store = Store::sized(site.store().settings().clone(), "patient", 1).unwrap();
        store.ready().await.unwrap();
        let psql = site.database.client().await;
        let (lock, change) = holder(&site);
        psql.batch_execute(&format!("BEGIN; {lock}")).await.expect("the row");
        let vid: Vid = VID.parse().unwrap();
        let asked = store.locked(&vid, true, |locked| {
            let found = (locked.task.as_ref().map(|task| task.attempts), locked.other_slots, locked.now());
            locked.task.as_mut().expect("the task row is seen").attempts += 1;
            found
        });
        let meanwhile = async {
            waits(&site, "patient").await;
            psql.batch_execute(&change).await.expect("the change");
            let at =
                psql.query_one("SELECT clock_timestamp()", &[]).await.expect("the time").get::<_, DateTime<Utc>>(0);
            psql.batch_execute("COMMIT").await.expect("the end");
            at
        };
        let (found, committed) = tokio::join!(asked, meanwhile);
        let (attempts, other_slots, now) = found.unwrap();
        assert_eq!((attempts, other_slots), (Some(3), Some(0)), "a row of its own: {without_task}");
        assert!(now >= committed, "{now} is before {committed}: its time is older than its lock");
        let attempts = format!("SELECT attempts::int8 FROM {} WHERE tape = '{VID}'", task(&site));
        assert_eq!(site.number(&attempts).await, 4);
    }
}

#[tokio::test]
async fn holds_and_pauses_are_read_with_the_locks() {
    let site = site().await;
    let vid: Vid = VID.parse().unwrap();
    let control = site.beside("_control");
    let read =
        async || site.store().locked(&vid, false, |locked| (locked.control.clone(), locked.other_slots)).await.unwrap();
    let (none, slots) = read().await;
    assert_eq!((none.hold, none.paused, slots), (None, vec![], None));
    site.sql(&format!(
        "INSERT INTO {control} (kind, name, who, why, until) VALUES ('hold', '{VID}', 'eve', 'a \"reason\"', '2199-12-31 23:59:59.123456Z'), \
         ('hold', 'V09999', 'eve', 'another', NULL), ('pause', 'end', 'eve', 'p', 'infinity'), ('pause', 'start', 'eve', 'over', now() - interval '1 s')"
    ))
    .await;
    let (there, _) = read().await;
    let hold = there.hold.expect("a hold");
    let until = DateTime::parse_from_rfc3339("2199-12-31T23:59:59.123456Z").unwrap().to_utc();
    assert_eq!((hold.who.as_str(), hold.why.as_str(), hold.until), ("eve", "a \"reason\"", Some(until)));
    assert_eq!(there.paused, ["end"]);
}

#[tokio::test]
async fn a_reclaim_is_due_by_the_stamp_as_the_row_has_it() {
    let mut site = site().await;
    site.settings.quarantine = Duration::from_secs(3600);
    site.bring(&[VID], State::Quarantined).await;
    let due = format!(
        "SELECT extract(epoch FROM k.next_attempt_at - m.quarantined AT TIME ZONE 'UTC')::numeric(12, 3)::text \
         FROM {} k JOIN {} m ON m.tape = k.tape",
        site.beside("_task"),
        site.table()
    );
    let after: String = site.database.client().await.query_one(&due, &[]).await.expect("the row").get(0);
    assert_eq!(after, "3600.000");
}

/// Lines of rows that somebody else wrote and nobody has followed yet.
async fn lines(site: &Site) -> i64 {
    site.number(&format!("SELECT count(*) FROM {}", site.beside("_edited"))).await
}

/// Whether the next tick follows `edit`: the task row knows the row as it is then.
async fn is_followed(site: &Site, edit: &str) -> bool {
    site.sql(edit).await;
    site.tick_of(&[]).await;
    let differ = format!(
        "SELECT count(*) FROM {} m LEFT JOIN {} k USING (tape) WHERE k.seen_xmin IS DISTINCT FROM m.xmin::text::int8",
        site.table(),
        site.beside("_task")
    );
    site.number(&differ).await == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_leaves_a_line_until_it_is_followed_and_our_own_stamps_leave_none() {
    let site = site().await;
    site.tick_of(&[]).await;
    assert_eq!(lines(&site).await, 0);
    site.sql(&delete_and_insert(&site.table())).await;
    set(&site, "responsible = 'eve'").await;
    assert_eq!(lines(&site).await, 3, "one for each statement");
    assert!(is_followed(&site, "SELECT").await);
    assert_eq!(lines(&site).await, 0);
    // One tick of one stage, and no edit in between: what is stamped is known.
    for stage in &STAGES[..2] {
        site.all_due().await;
        let begun = Instant::now();
        while stamp(&site, stage.to).await.is_none() {
            assert!(begun.elapsed() < PATIENCE, "{}: {:?}", stage.name, site.why(VID).await);
            site.tick_of(&[stage]).await;
        }
        assert_eq!(lines(&site).await, 0, "{}", stage.name);
    }
    finishes_with_each_effect_once(&site, "after the edits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_no_trigger_saw_is_found_by_comparing_all_rows() {
    let site = site().await;
    let (table, task, edited) = (site.table(), site.beside("_task"), site.beside("_edited"));
    let edit = format!("UPDATE {table} SET responsible = left('.' || responsible, 20)");
    let lost = format!("{edit}; DELETE FROM {edited}");
    site.tick_of(&[]).await;
    assert!(is_followed(&site, &edit).await);

    // What cannot be seen otherwise comes with the next comparison: a line that is lost stands for it.
    assert!(!is_followed(&site, &lost).await);
    let earlier = format!("UPDATE {} SET at = at - interval '61 minutes'", site.beside("_compared"));
    assert!(is_followed(&site, &earlier).await, "once an hour");
    assert!(!is_followed(&site, &lost).await);
    site.store().ask_to_compare().await.expect("the line");
    assert!(is_followed(&site, "SELECT").await, "when it is asked for, as a producer does at its start");

    // Triggers that were off for a moment.
    for table in [&table, &task] {
        let off = |edit: &str| {
            format!("ALTER TABLE {table} DISABLE TRIGGER ALL; {edit}; ALTER TABLE {table} ENABLE TRIGGER ALL")
        };
        assert!(is_followed(&site, &off(&edit)).await, "{table}");
        assert!(!is_followed(&site, &lost).await, "{table}: that was once");
        assert!(is_followed(&site, &off("SELECT")).await, "{table}");
    }
    // A role for replication passes by triggers that do not fire always.
    let fire = "ENABLE ALWAYS TRIGGER cta_repack_update";
    let replica = format!("SET session_replication_role = replica; {edit}; RESET session_replication_role");
    assert!(is_followed(&site, &format!("ALTER TABLE {table} {fire}")).await);
    assert!(is_followed(&site, &replica).await);

    // A table that is rewritten gives every row another xmin, and no trigger fires.
    assert!(
        is_followed(&site, &format!("ALTER TABLE {table} ADD COLUMN more timestamptz DEFAULT clock_timestamp()")).await
    );
    assert!(is_followed(&site, &format!("ALTER TABLE {table} DROP COLUMN more")).await);
    // The rows of our own table, and of both.
    assert!(is_followed(&site, &format!("DELETE FROM {task}")).await);
    assert!(is_followed(&site, &format!("TRUNCATE {task}")).await);
    assert!(is_followed(&site, &format!("CREATE TEMP TABLE kept AS SELECT * FROM {table}; TRUNCATE {table}; INSERT INTO {table} SELECT * FROM kept")).await);
    // A function that writes elsewhere, as after a move to another schema, notes nothing here.
    let elsewhere = "RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$";
    site.sql(&format!("CREATE OR REPLACE FUNCTION {edited}() {elsewhere}")).await;
    for _ in 0..2 {
        assert!(is_followed(&site, &edit).await, "the function writes elsewhere");
    }
    // While there is no trigger, all rows are compared every time.
    site.sql(&format!("DROP TRIGGER cta_repack_update ON {table}")).await;
    for _ in 0..2 {
        assert!(is_followed(&site, &edit).await, "no trigger");
    }
    // Whoever writes the table never notices that our tables are gone.
    site.sql(&format!("DROP TABLE {edited}; DROP TABLE {}", site.beside("_compared"))).await;
    for _ in 0..2 {
        assert!(is_followed(&site, &edit).await, "no lines");
        assert!(is_followed(&site, &delete_and_insert(&table)).await, "no lines");
    }
    finishes_with_each_effect_once(&site, "after the edits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_row_is_told_by_every_tick_until_it_is_mended() {
    let site = site().await;
    site.tick_of(&[]).await;
    for _ in 0..2 {
        set(&site, "quarantined = LOCALTIMESTAMP(0)").await;
    }
    site.sql(&format!("INSERT INTO {0} SELECT 'no vid', entered, NULL, NULL, NULL, NULL, NULL, files, bytes, usage, NULL, mode, priority, mediatype, tapepool, responsible FROM {0}", site.table())).await;
    for _ in 0..3 {
        let odd: Vec<String> = site.tick_of(&[]).await.odd.into_iter().map(|tape| tape.vid).collect();
        assert_eq!(odd, [VID, "no vid"]);
        assert_eq!(lines(&site).await, 2, "the newest of each");
    }
    site.sql(&format!("DELETE FROM {} WHERE tape = 'no vid'", site.table())).await;
    set(&site, "quarantined = NULL").await;
    assert_eq!(site.tick_of(&[]).await.odd.len(), 0);
    assert_eq!(lines(&site).await, 0);
    finishes_with_each_effect_once(&site, "mended").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_edits_than_fit_a_page_are_followed_by_one_tick() {
    let site = site().await;
    let many = format!(
        "INSERT INTO {0} SELECT 'M' || i, entered, NULL, NULL, NULL, NULL, NULL, files, bytes, usage, NULL, 'manual', priority, mediatype, tapepool, responsible \
         FROM {0}, generate_series(1, 1001) i",
        site.table()
    );
    assert!(is_followed(&site, &many).await);
    assert_eq!(lines(&site).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_knows_of_each_row_whether_somebody_else_has_written_it() {
    let site = site().await;
    site.tick_of(&[]).await;
    let looked = || async {
        let overview = site.row(VID).await;
        (overview.task.unwrap(), overview.row.unwrap())
    };
    let (task, row) = looked().await;
    let statement = format!("SELECT seen::text FROM {}", site.beside("_task"));
    let stored: String = site.database.client().await.query_one(&statement, &[]).await.unwrap().get(0);
    assert_eq!(task.seen, Some(serde_json::from_str(&stored).unwrap()), "as it is stored, though it is not sent");
    assert!(task.knows(&row), "{task:?}");
    set(&site, "mode = 'manual'").await;
    let (task, row) = looked().await;
    assert!(!task.knows(&row), "{task:?}");
    assert_eq!(task.seen.unwrap().mode, Mode::Auto, "what it was before is there to be compared");
    site.tick_of(&[]).await;
    let (task, row) = looked().await;
    assert!(task.knows(&row) && row.mode == Mode::Manual, "{task:?}");
    site.sql(&format!("UPDATE {} SET seen = NULL", site.beside("_task"))).await;
    let (task, _) = looked().await;
    assert_eq!(task.seen, None, "what nobody has looked at is not known");
}

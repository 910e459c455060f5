//! CTA away, access lost, commands that fail again and again: no tape is blamed for what is not its fault, and one that
//! cannot go on stops with the reason.

use std::time::Duration;

use common::journey::{Mode, State};
use cta_sim::{Action, Order, Tape, World};
use journeys::checker::JOURNEY;
use journeys::site::{Site, all_at_rest};
use journeys::steps::moment;

/// A tape in each state before Finished: `V01001` is Entered, `V01005` is Reclaimed.
const VIDS: [&str; 5] = ["V01001", "V01002", "V01003", "V01004", "V01005"];

async fn in_every_state(world: World) -> Site {
    let site = Site::new(world.with_full_tapes(5)).await;
    site.enter(&VIDS).await;
    for vid in VIDS {
        site.hold(vid).await;
    }
    for (vid, state) in VIDS.into_iter().zip(State::ALL).skip(1) {
        site.release(vid).await;
        site.bring(&[vid], state).await;
        site.hold(vid).await;
    }
    for vid in VIDS {
        site.release(vid).await;
    }
    site.all_due().await;
    site
}

/// While it lasts: every run says so, nobody is blamed. When it is over, all goes on by itself and nothing is done twice.
async fn survived(
    site: &Site,
    what: &str,
    begins: impl FnOnce(&mut World),
    ends: impl FnOnce(&mut World),
    stand: &[&str],
) {
    let before = site.rows().await;
    site.edit(begins);
    for _ in 0..6 {
        let report = site.tick().await;
        assert!(report.failed(), "{what}: the run says that something is wrong: {report:#?}");
        for row in site.rows().await {
            let tape = row.row.expect("a lawful row");
            let task = row.task.expect("a task");
            assert_eq!(tape.mode, Mode::Auto, "{what}: {}: {:?}", tape.vid, task.reason);
            assert_eq!((task.attempts, task.crashes), (0, 0), "{what}: {}: {:?}", tape.vid, task.reason);
        }
        moment().await;
    }
    for vid in stand {
        let then = before.iter().find_map(|row| row.row.as_ref().ok().filter(|tape| tape.vid.as_str() == *vid));
        assert_eq!(site.at(vid).await.0, then.expect("the tape").state(), "{what}: {vid} could not go on");
    }
    site.edit(ends);
    let rows = site.tick_until(what, all_at_rest).await;
    assert_eq!(rows.len(), VIDS.len());
    let changes = site.changes();
    for vid in VIDS {
        assert_eq!(site.at(vid).await, (State::Finished, Mode::Auto), "{what}: {vid}: {:?}", site.why(vid).await);
        assert_eq!(changes[vid], JOURNEY, "{what}: {vid}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cta_away_for_long_blames_no_tape() {
    let site = in_every_state(World::new()).await;
    survived(&site, "CTA away", |world| world.down = true, |world| world.down = false, &VIDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_keytab_blames_no_tape() {
    let site = in_every_state(World::new()).await;
    survived(&site, "keytab", |world| world.unauthorized = true, |world| world.unauthorized = false, &VIDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repacks_switched_off_blame_no_tape() {
    let site = in_every_state(World::new()).await;
    let (off, on) =
        (|world: &mut World| world.repack_disabled = true, |world: &mut World| world.repack_disabled = false);
    survived(&site, "repacks off", off, on, &VIDS[..1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_front_ends_away_blames_no_tape() {
    for name in ["user", "repack"] {
        let site = in_every_state(World::new().split()).await;
        let set = |down: bool| {
            move |world: &mut World| {
                let frontend = world.frontends.iter_mut().find(|frontend| frontend.name == name);
                frontend.expect("the front end").down = down;
            }
        };
        survived(&site, name, set(true), set(false), &VIDS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cta_going_away_under_a_command_counts_no_attempt_but_lets_it_settle() {
    let mut site = Site::new(World::new().with_full_tapes(1)).await;
    let barrier = site.barrier();
    site.enter(&["V01001"]).await;
    site.bring(&["V01001"], State::Quarantined).await;
    site.all_due().await;
    barrier.raise("tape reclaim --vid V01001");
    let away = async {
        barrier.reached().await;
        site.edit(|world| world.down = true);
        barrier.open();
    };
    let (report, ()) = tokio::join!(site.tick(), away);
    assert!(report.failed(), "{report:#?}");
    assert_eq!(site.why("V01001").await.0, "site-trouble");
    let task = site.row("V01001").await.task.expect("a task");
    assert_eq!(task.attempts, 0);
    let settled = task.settle_until.expect("it settles");
    site.edit(|world| world.down = false);
    site.finish("V01001").await;
    assert_eq!(site.changes()["V01001"], JOURNEY);
    let done = site.events_of("V01001", "done").await;
    assert!(done.iter().filter(|event| event.detail["to"] == "reclaimed").all(|event| event.at >= settled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repack_that_cannot_be_asked_for_five_times_stops_with_reason_and_count() {
    let mut site = Site::new(World::new().with_full_tapes(2)).await;
    site.settings.settle = Duration::from_millis(100);
    site.enter(&["V01001", "V01002"]).await;
    site.order(Order::once("repack add", Action::Exit1("no space for requests".into())).for_vid("V01001").times(5));
    let mut stopped = Vec::new();
    site.tick_until("both at rest", |rows| {
        stopped.extend(rows.iter().filter_map(|row| row.task.as_ref()).map(|task| task.attempts));
        all_at_rest(rows)
    })
    .await;
    assert_eq!(site.fired(), [5]);
    assert_eq!(site.at("V01001").await, (State::Entered, Mode::Error));
    assert_eq!(site.at("V01002").await, (State::Finished, Mode::Auto));
    let (code, text) = site.why("V01001").await;
    assert_eq!(code, "command-failed");
    for part in ["no space for requests", "(attempt 5 of 5)", "abort V01001"] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    assert_eq!(site.row("V01001").await.task.expect("a task").attempts, 5);
    assert!((1..=5).all(|attempts| stopped.contains(&attempts)), "each attempt was counted: {stopped:?}");
    let flips = site.events_of("V01001", "error").await;
    assert_eq!(flips.len(), 1, "the dead letter's work is done without a broker too");
    assert_eq!(flips[0].detail["code"], "command-failed");
    assert_eq!(site.tries("V01001", "repack add"), 5);
    site.requeue("V01001").await;
    site.finish("V01001").await;
    assert_eq!(site.changes()["V01001"], JOURNEY);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_that_contradict_a_look_are_waited_out() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&["V01001"]).await;
    for change in ["REPACKING", "DISABLED", "quarantine", "ACTIVE"] {
        site.order(Order::once("tape ch", Action::Exit2("VID V01001 does not exist".into())).with_argument(change));
    }
    for command in ["repack add", "repack rm", "tape reclaim"] {
        site.order(Order::once(command, Action::Exit2("VID V01001 does not exist".into())));
    }
    site.finish("V01001").await;
    assert_eq!(site.fired(), [1; 7]);
    assert_eq!(site.changes()["V01001"], JOURNEY);
    assert_eq!(site.events_of("V01001", "retrying").await, [], "a cache of CTA's is nobody's fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_tape_can_be_entered_again() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&["V01001"]).await;
    site.finish("V01001").await;
    let first = site.row("V01001").await.row.expect("a lawful row");
    site.edit(|world| {
        let mut tape = Tape::full("pool_beta_raw", "beta_raw", 9_000_000_000, 4);
        tape.label.as_mut().expect("a label").time += 7;
        world.tapes.insert("V01001".into(), tape);
    });
    site.enter(&["V01001"]).await;
    site.finish("V01001").await;
    assert_eq!(site.changes()["V01001"], [JOURNEY, JOURNEY].concat());
    let history =
        format!("SELECT count(*) FROM {} WHERE tape = 'V01001' AND why = 'prepared again'", site.beside("_history"));
    assert_eq!(site.number(&history).await, 1);
    let files = format!("SELECT (row->>'files')::int8 FROM {}", site.beside("_history"));
    assert_eq!(site.number(&files).await, first.files);
    assert_eq!(site.row("V01001").await.row.expect("a lawful row").files, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sites_on_one_database_server_do_not_take_each_others_ticks_for_their_own() {
    let (one, other) = (Site::new(World::new()).await, Site::new(World::new()).await);
    let (store, elsewhere) = (one.store(), other.store());
    let held = store.tick_locks(&["start"]).await.expect("the locks");
    let held_elsewhere = elsewhere.tick_locks(&["start"]).await.expect("the locks");
    assert_eq!((held.held.len(), held_elsewhere.held.len()), (1, 1));
    let second = store.tick_locks(&["start", "end"]).await.expect("an answer, whoever else ticks");
    assert_eq!(second.held, ["end"]);
    assert!(second.refused[0].1.contains("test@here"), "{:?}", second.refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_lasts_stops_the_tape_in_the_end() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&["V01001"]).await;
    site.order(Order::once("repack add", Action::Exit2("the front end has its reasons".into())).times(1000));
    site.tick_until("a refusal", |rows| {
        rows[0].task.as_ref().is_some_and(|task| task.reason.as_ref().is_some_and(|kept| kept.code == "refused"))
    })
    .await;
    assert_eq!(site.at("V01001").await, (State::Entered, Mode::Auto));
    let task = site.beside("_task");
    let long_ago = "jsonb_set(memory, '{refused_since}', to_jsonb(clock_timestamp() - interval '601 s'))";
    site.sql(&format!("UPDATE {task} SET memory = {long_ago}")).await;
    site.tick_until("a stop", all_at_rest).await;
    assert_eq!(site.at("V01001").await, (State::Entered, Mode::Error));
    let (code, text) = site.why("V01001").await;
    assert_eq!(code, "refused");
    for part in ["the front end has its reasons", "abort V01001"] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    assert_eq!(site.row("V01001").await.task.expect("a task").attempts, 0, "a refusal is no failed attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_that_cta_never_moves_to_repacking_stops_with_a_way_out() {
    let mut world = World::new().with_full_tapes(1).with_durations(100, 0);
    world.tapes.get_mut("V01001").expect("the tape").plan.pending_forever = true;
    let mut site = Site::new(world).await;
    site.settings.pending_limit = Duration::from_millis(500);
    site.enter(&["V01001"]).await;
    site.tick_until("a stop", all_at_rest).await;
    assert_eq!(site.at("V01001").await, (State::Entered, Mode::Error));
    let (code, text) = site.why("V01001").await;
    assert_eq!(code, "pending-too-long");
    assert!(text.contains("cta-maintd") && text.contains("abort V01001"), "{text}");
    assert_eq!(site.begun("V01001").len(), 1);
}

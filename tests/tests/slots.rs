//! Slots: taken once, freed when CTA shows that nothing is under way, whoever may work on the tape meanwhile.

use std::time::{Duration, Instant};

use common::journey::{Mode, State};
use common::task::Wanted;
use cta_sim::{Action, Order, Plan, World};
use journeys::site::{PATIENCE, Site, all_at_rest};
use journeys::steps::moment;

const VID: &str = "V01001";
const NEXT: &str = "V01002";
const HOUR_MS: u64 = 3_600_000;

/// One slot, two tapes: the first holds the slot and is being repacked for hours, the second waits.
async fn one_waits_for_the_other() -> Site {
    let mut site = Site::new(World::new().with_full_tapes(2).with_durations(0, HOUR_MS)).await;
    site.settings.max_active_repacks = 1;
    site.enter(&[VID]).await;
    site.bring(&[VID], State::Started).await;
    site.enter(&[NEXT]).await;
    for _ in 0..3 {
        site.tick().await;
    }
    assert_eq!((has_slot(&site, VID).await, has_slot(&site, NEXT).await), (true, false));
    assert_eq!(site.at(NEXT).await.0, State::Entered);
    site
}

async fn has_slot(site: &Site, vid: &str) -> bool {
    let query =
        format!("SELECT count(*) FROM {} WHERE slot_since IS NOT NULL AND tape = '{vid}'", site.beside("_task"));
    site.number(&query).await == 1
}

async fn set(site: &Site, assignment: &str) {
    site.sql(&format!("UPDATE {} SET {assignment} WHERE tape = '{VID}'", site.table())).await;
}

/// The slot stays where it is, however often anybody looks.
async fn kept(site: &Site, what: &str) {
    for _ in 0..3 {
        site.tick().await;
        assert!(has_slot(site, VID).await, "{what}: the slot was freed");
        assert_eq!(site.at(NEXT).await.0, State::Entered, "{what}");
    }
}

/// The slot is freed, and the tape that waited for it gets it.
async fn freed(site: &Site, what: &str) {
    let begun = Instant::now();
    while site.at(NEXT).await.0 == State::Entered {
        assert!(begun.elapsed() < PATIENCE, "{what}: {:#?}", site.rows().await);
        site.tick().await;
        moment().await;
    }
    assert!(!has_slot(site, VID).await, "{what}");
    // The journal cannot know of requests that were taken out of the world.
    assert!(site.world().active_requests() <= 1, "{what}");
}

/// Removes the request and takes the tape out of REPACKING, as an operator would.
fn undone(world: &mut World) {
    world.requests.retain(|request| request.vid != VID);
    world.tapes.get_mut(VID).expect("the tape").state = cta_sim::TapeState::Active;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_repack_frees_its_slot_whatever_the_mode() {
    let modes = ["mode = 'auto'", "mode = 'manual'", "mode = 'error'"];
    for mode in modes {
        let site = one_waits_for_the_other().await;
        set(&site, mode).await;
        kept(&site, mode).await;
        site.edit(|world| world.skip(2 * HOUR_MS));
        freed(&site, mode).await;
        if mode != "mode = 'auto'" {
            assert_eq!(site.at(VID).await.0, State::Started, "{mode}: nobody touched it");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_repack_of_a_held_tape_frees_its_slot() {
    let site = one_waits_for_the_other().await;
    site.hold(VID).await;
    kept(&site, "held").await;
    site.edit(|world| world.skip(2 * HOUR_MS));
    freed(&site, "held").await;
    assert_eq!(site.at(VID).await, (State::Started, Mode::Auto));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_tape_keeps_its_slot_while_it_is_in_repacking() {
    let site = one_waits_for_the_other().await;
    set(&site, "mode = 'manual'").await;
    site.edit(|world| world.requests.retain(|request| request.vid != VID));
    kept(&site, "REPACKING without a request").await;
    site.edit(undone);
    freed(&site, "out of REPACKING").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_in_error_frees_its_slot_with_its_request() {
    let site = one_waits_for_the_other().await;
    set(&site, "mode = 'error'").await;
    kept(&site, "error, the request is there").await;
    site.edit(|world| world.requests.retain(|request| request.vid != VID));
    freed(&site, "error, no request").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_that_cta_forgot_frees_its_slot() {
    let site = one_waits_for_the_other().await;
    set(&site, "mode = 'manual'").await;
    site.edit(|world| {
        world.requests.retain(|request| request.vid != VID);
        world.tapes.remove(VID);
    });
    freed(&site, "unknown to CTA").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_row_keeps_its_slot_until_its_repack_is_over() {
    for over in [undone, |world: &mut World| world.skip(2 * HOUR_MS)] {
        let site = one_waits_for_the_other().await;
        site.sql(&format!("DELETE FROM {} WHERE tape = '{VID}'", site.table())).await;
        kept(&site, "deleted").await;
        site.edit(over);
        freed(&site, "deleted, and over").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_given_back_frees_its_slot() {
    let site = one_waits_for_the_other().await;
    site.want(VID, Wanted::GiveBack).await;
    freed(&site, "given back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_frees_the_slot_when_nothing_is_under_way() {
    let mut site = Site::new(World::new().with_full_tapes(2)).await;
    site.settings.max_active_repacks = 1;
    site.edit(|world| {
        world.tapes.get_mut(VID).expect("the tape").plan = Plan { fail_expansion: 1, ..Plan::default() };
    });
    site.enter(&[VID, NEXT]).await;
    site.tick_until("both at rest", all_at_rest).await;
    assert_eq!(site.at(VID).await, (State::Started, Mode::Error));
    assert_eq!(site.at(NEXT).await, (State::Finished, Mode::Auto));
    assert!(cta_sim::max_active(&site.journal()) <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_fails_before_anything_is_done_frees_the_slot() {
    let mut site = Site::new(World::new().with_full_tapes(2)).await;
    site.settings.max_active_repacks = 1;
    let barrier = site.barrier();
    site.enter(&[VID, NEXT]).await;
    barrier.raise(&format!("tapefile ls --vid {VID}"));
    let manual = async {
        barrier.reached().await;
        set(&site, "mode = 'manual'").await;
        barrier.open();
    };
    tokio::join!(site.tick(), manual);
    assert_eq!(site.begun(VID), []);
    assert!(!has_slot(&site, VID).await);
    site.finish(NEXT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_kept_while_a_command_in_doubt_may_still_take_effect() {
    let mut site = Site::new(World::new().with_full_tapes(2)).await;
    site.settings.max_active_repacks = 1;
    site.settings.settle = Duration::from_secs(3);
    site.enter(&[VID, NEXT]).await;
    site.order(Order::once("repack add", Action::LateExit1(1500)).for_vid(VID));
    site.tick_until("an unclear command", |rows| rows[0].task.as_ref().is_some_and(|task| task.settle_until.is_some()))
        .await;
    let settled = site.row(VID).await.task.and_then(|task| task.settle_until).expect("it settles");
    // Nobody will come to it, and CTA shows no request for a while: no reason to think that none will come.
    set(&site, "mode = 'error'").await;
    loop {
        site.tick().await;
        let (slot, now) = (has_slot(&site, VID).await, site.row(VID).await.now);
        if now >= settled {
            break;
        }
        assert!(slot, "freed at {now}, before {settled}");
        assert_eq!(site.at(NEXT).await.0, State::Entered);
    }
    freed(&site, "settled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_taken_over_in_the_middle_of_its_repack_takes_a_slot_over_the_limit_if_need_be() {
    let mut site = Site::new(World::new().with_full_tapes(3).with_durations(0, HOUR_MS)).await;
    site.settings.max_active_repacks = 1;
    // ATRESYS left two tapes being repacked; a third is to start.
    site.enter(&[VID, NEXT]).await;
    site.settings.max_active_repacks = 2;
    site.bring(&[VID, NEXT], State::Started).await;
    site.settings.max_active_repacks = 1;
    site.sql(&format!("DELETE FROM {}", site.beside("_task"))).await;
    site.enter(&["V01003"]).await;
    for _ in 0..3 {
        site.tick().await;
        assert_eq!(site.at("V01003").await.0, State::Entered);
    }
    assert_eq!((has_slot(&site, VID).await, has_slot(&site, NEXT).await), (true, true));
    site.edit(|world| world.skip(2 * HOUR_MS));
    let begun = Instant::now();
    while site.at("V01003").await.0 == State::Entered {
        assert!(begun.elapsed() < PATIENCE, "{:#?}", site.rows().await);
        site.tick().await;
        moment().await;
    }
    assert!(cta_sim::max_active(&site.journal()) <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_that_was_just_claimed_or_is_repacked_holds_its_slot_for_good_reason() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&["V01001"]).await;
    site.bring(&["V01001"], State::Started).await;
    for outcome in ["NULL", "'waiting'"] {
        site.sql(&format!("UPDATE repack_status_task SET slot_since = now(), outcome = {outcome}")).await;
        let holding = site.store().holding().await.expect("the slots");
        assert_eq!(holding.iter().map(|row| row.idle).collect::<Vec<_>>(), [false], "outcome {outcome}");
    }
    site.sql("UPDATE repack_status_task SET outcome = 'failed'").await;
    assert!(site.store().holding().await.expect("the slots")[0].idle);
}

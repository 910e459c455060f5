//! Tapes go all the way, in every way of running.

use common::journey::{Mode, State};
use cta_sim::World;
use journeys::checker::JOURNEY;
use journeys::site::{Site, all_at_rest};

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_goes_all_the_way_without_a_broker() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&["V01001"]).await;
    site.tick_until("V01001 at rest", all_at_rest).await;
    assert_eq!(site.at("V01001").await, (State::Finished, Mode::Auto));
    let changes = site.changes();
    assert_eq!(changes["V01001"], JOURNEY);
    assert_eq!(cta_sim::overlaps(&site.journal()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_stamp_of_a_tape_in_quarantine_keeps_what_guards_it() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&["V01001"]).await;
    site.bring(&["V01001"], State::Quarantined).await;
    site.sql("UPDATE repack_status SET entered = entered - interval '1 second'").await;
    site.tick_until("V01001 at rest", all_at_rest).await;
    assert_eq!(site.at("V01001").await, (State::Finished, Mode::Auto));
    let events = site.events("V01001").await;
    assert!(events.iter().any(|event| event.kind == "edited-elsewhere"), "the edit is told");
    let reclaim = events
        .iter()
        .find(|event| {
            event.kind == "intent" && event.detail["command"].as_str().is_some_and(|text| text.contains("reclaim"))
        })
        .expect("the intent of the reclaim");
    assert!(reclaim.detail["proof"]["marks"]["last_fseq"].is_u64(), "the marks were compared: {}", reclaim.detail);
    assert_eq!(site.world().tapes["V01001"].state.name(), "ACTIVE", "the state was given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_deleted_with_psql_is_told_and_leaves_its_tape_alone() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&["V01001"]).await;
    site.bring(&["V01001"], State::Quarantined).await;
    let before = site.changes();
    site.sql("DELETE FROM repack_status").await;
    site.tick().await;
    site.tick().await;
    let gone: Vec<_> = site.events("V01001").await.into_iter().filter(|event| event.kind == "row-gone").collect();
    assert_eq!(gone.len(), 1, "told once");
    assert!(gone[0].detail["memory"]["marks"].is_object(), "what was known is kept: {}", gone[0].detail);
    assert_eq!(site.changes(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_at_the_same_time_step_aside_for_each_other() {
    let site = Site::new(World::new().with_full_tapes(2)).await;
    site.enter(&["V01001", "V01002"]).await;
    for _ in 0..5 {
        tokio::join!(site.tick(), site.tick(), site.tick(), site.tick());
    }
    site.tick_until("all at rest", all_at_rest).await;
    for vid in ["V01001", "V01002"] {
        assert_eq!(site.at(vid).await, (State::Finished, Mode::Auto));
    }
    assert_eq!(cta_sim::overlaps(&site.journal()), Vec::<String>::new());
}

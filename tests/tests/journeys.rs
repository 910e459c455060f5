//! Tapes go all the way, in every way of running.

use common::journey::{Mode, State};
use cta_sim::World;
use journeys::site::{Site, all_at_rest};

/// What must change in CTA for one tape, once each, in this order.
const JOURNEY: [&str; 7] = [
    "tape ch --state REPACKING",
    "repack add",
    "repack rm",
    "tape ch --state DISABLED",
    "tape ch --tapepool quarantine",
    "tape reclaim",
    "tape ch --tapepool tolabel_IBM1L9",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_goes_all_the_way_without_a_broker() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    site.enter(&["V01001"]).await;
    site.tick_until("V01001 at rest", all_at_rest).await;
    assert_eq!(site.at("V01001").await, (State::Finished, Mode::Auto));
    let changes = site.changes();
    let mut expected: Vec<&str> = JOURNEY.into();
    expected.push("tape ch --state ACTIVE");
    assert_eq!(changes["V01001"], expected);
    assert_eq!(cta_sim::overlaps(&site.journal()), Vec::<String>::new());
}

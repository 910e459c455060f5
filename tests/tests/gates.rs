//! The two gates, before `tape reclaim` and before the move to the destination pool: each condition false alone, and each
//! query failing in each way, keeps them closed.

use std::time::Duration;

use common::journey::{Mode, State};
use common::stages::STAGES;
use cta_sim::world::{Recycled, Request, Route, Status};
use cta_sim::{Action, Order, Run, TapeState, World};
use journeys::site::Site;
use journeys::steps::{until, worked_on};

const MOVE: &str = "tape ch --tapepool tolabel_IBM1L9";

/// A gate: from where it leads, and the change behind it.
#[derive(Clone, Copy)]
struct Gate {
    before: State,
    after: State,
    change: &'static str,
}

const RECLAIM: Gate = Gate { before: State::Quarantined, after: State::Reclaimed, change: "tape reclaim" };
const FINISH: Gate = Gate { before: State::Reclaimed, after: State::Finished, change: MOVE };

fn vids(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("V{:05}", 1000 + number)).collect()
}

fn fields(vids: &[String]) -> Vec<&str> {
    vids.iter().map(String::as_str).collect()
}

/// A site with `count` tapes before the gate, all on hold.
async fn before(gate: Gate, count: usize) -> (Site, Vec<String>) {
    let mut site = Site::new(World::new().with_full_tapes(u64::try_from(count).expect("few tapes"))).await;
    // Whatever hangs is given up soon; everything else takes some hundredths of a second.
    site.settings.cta_admin.timeout = Duration::from_secs(2);
    let names = vids(count);
    let all = fields(&names);
    site.enter(&all).await;
    site.bring(&all, gate.before).await;
    for vid in &all {
        site.hold(vid).await;
    }
    (site, names)
}

/// The stage behind the gate, once.
async fn knock(site: &Site, gate: Gate) -> Vec<String> {
    worked_on(&site.tick_of(&STAGES[gate.before as usize..=gate.before as usize]).await)
}

/// Ways in which a query fails. Each strikes once.
fn failures() -> Vec<(&'static str, Action)> {
    vec![
        ("exit 1", Action::Exit1("connection lost".into())),
        ("exit 2 with an empty list", Action::Exit2("unexpected".into())),
        ("text with exit 0", Action::Text("an error that the client swallowed".into())),
        ("a cut list with exit 0", Action::Cut(0)),
        ("a cut list with exit 1", Action::Cut(1)),
        ("nothing with exit 0", Action::EmptyStdout),
        ("garbage with exit 0", Action::Garbage),
        ("killed", Action::Die(9)),
        ("a hang", Action::Hang),
        ("a hang in the middle", Action::CutThenHang),
    ]
}

/// For each way to fail: the query fails at the gate, which stays closed; the next time it is answered and the gate opens.
async fn closed_by(gate: Gate, query: &str, skip: u32) {
    // An answer "no such request" is a refusal: this is how CTA says that there is none.
    let honest = |way: &str| query == "repack ls" && skip == 0 && way.starts_with("exit 2");
    let ways: Vec<_> = failures().into_iter().filter(|(way, _)| !honest(way)).collect();
    let (site, names) = before(gate, ways.len()).await;
    for (number, ((way, action), vid)) in ways.into_iter().zip(&names).enumerate() {
        site.release(vid).await;
        site.order(Order::once(query, action).after(skip));
        let worked = knock(&site, gate).await;
        let what = format!("{vid}: {query} (after {skip}): {way}");
        assert_eq!(site.fired()[number], 1, "{what}: the fault did not strike");
        assert_eq!(worked, [vid.clone()], "{what}");
        assert_eq!(site.at(vid).await, (gate.before, Mode::Auto), "{what}");
        assert_eq!(site.tries(vid, gate.change), 0, "{what}");
        let (code, text) = site.why(vid).await;
        assert_eq!(code, "look-failed", "{what}: {text}");
        site.finish(vid).await;
        assert_eq!(site.times(vid, gate.change), 1, "{what}");
    }
}

macro_rules! queries {
    ($($name:ident: $gate:expr, $query:literal, $skip:literal;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            closed_by($gate, $query, $skip).await;
        })*
    };
}

queries! {
    nothing_is_reclaimed_when_the_tape_cannot_be_asked_for: RECLAIM, "tape ls", 0;
    nothing_is_reclaimed_when_its_request_cannot_be_asked_for: RECLAIM, "repack ls", 0;
    nothing_is_reclaimed_when_the_list_of_requests_cannot_be_had: RECLAIM, "repack ls", 1;
    nothing_is_reclaimed_when_the_archive_routes_cannot_be_had: RECLAIM, "archiveroute ls", 0;
    nothing_is_reclaimed_when_the_recycle_log_cannot_be_had: RECLAIM, "recycletf ls", 0;
    nothing_is_reclaimed_when_its_files_cannot_be_listed: RECLAIM, "tapefile ls", 0;
    nothing_is_reclaimed_when_its_files_cannot_be_listed_twice: RECLAIM, "tapefile ls", 1;
    nothing_is_moved_when_the_tape_cannot_be_asked_for: FINISH, "tape ls", 0;
    nothing_is_moved_when_its_request_cannot_be_asked_for: FINISH, "repack ls", 0;
    nothing_is_moved_when_the_list_of_requests_cannot_be_had: FINISH, "repack ls", 1;
    nothing_is_moved_when_its_files_cannot_be_listed: FINISH, "tapefile ls", 0;
    nothing_is_moved_when_its_files_cannot_be_listed_twice: FINISH, "tapefile ls", 1;
}

//! Scan on a large site: the right tapes, in memory that does not grow with their number.

use std::collections::HashSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use common::store::Entered;
use cta_sim::World;
use cta_sim::generated::{self, vid};
use cta_sim::world::{Request, TapeState};
use journeys::shell::of_site;
use journeys::site::Site;
use serde_json::Value;

const SEED: u64 = 4711;
const NAME: &str = "cta-ops-repack-0-scan";

/// What one scan said, and the most memory that its process had resident, in KiB.
struct Scanned {
    object: Value,
    peak: u64,
}

/// The largest resident set so far, in KiB; none once the process is gone.
fn high_water(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn scan(site: &Site, args: &[&str]) -> Scanned {
    let output = site.dir.path().join("scanned");
    let stdout = std::fs::File::create(&output).expect("a file");
    let mut child = of_site(site, NAME).args(args).stdin(Stdio::null()).stdout(stdout).spawn().expect("the program");
    let mut peak = 0;
    // A zombie has no memory any more: what was seen last counts. The mark only ever rises.
    let status = loop {
        peak = high_water(&child).unwrap_or_default().max(peak);
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{status}");
    assert!(peak > 0, "its memory was seen");
    let text = std::fs::read_to_string(&output).expect("what it printed");
    Scanned { object: serde_json::from_str(&text).expect("one object"), peak }
}

/// Every tape that scan may choose, by the rule of the documentation, the best first.
fn naive(count: u64, threshold: f64, left_out: &HashSet<String>) -> Vec<String> {
    let mut fit: Vec<(f64, String)> = (0..count)
        .map(|number| (vid(number), generated::tape(SEED, number)))
        .filter(|(vid, tape)| {
            tape.full
                && [TapeState::Active, TapeState::Disabled].contains(&tape.state)
                && !["pool_generated_03", "quarantine"].contains(&tape.pool.as_str())
                && tape.logical_library == "IBM1"
                && !left_out.contains(vid)
        })
        .map(|(vid, tape)| {
            (if tape.occupancy == 0 { 0.0 } else { tape.cached_bytes as f64 / tape.occupancy as f64 }, vid)
        })
        .filter(|(usage, _)| *usage < threshold)
        .collect();
    fit.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
    fit.into_iter().map(|(_, vid)| vid).collect()
}

async fn site(count: u64) -> Site {
    let mut site = Site::new(World::new().with_generated(count, SEED)).await;
    site.settings.scan.number_of_tapes = 500;
    site.settings.scan.tape_usage_threshold = 0.35;
    site.settings.scan.ignore_pools = vec!["pool_generated_03".to_owned()];
    // Tapes of one library have no destination.
    let map = site.settings.lib_to_pool_map.as_mut().expect("a map");
    map.remove("IBM2");
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_000_tapes_the_right_ones_are_chosen_in_memory_that_does_not_grow_with_their_number() {
    const MANY: u64 = 200_000;
    let site = site(MANY).await;
    // The best three would be chosen, but for a hold, a row, and a request.
    let best = naive(MANY, 0.35, &HashSet::new());
    let [held, entered, requested] = [0, 1, 2].map(|at: usize| best[at].clone());
    let hold =
        format!("INSERT INTO repack_status_control (kind, name, who, why) VALUES ('hold', '{held}', 'maria', 'audit')");
    site.sql(&hold).await;
    let tape = generated::tape(SEED, entered[1..].parse().expect("a number"));
    let new = common::store::NewTape {
        files: 1,
        bytes: 1,
        usage: 1,
        last_write: None,
        priority: 10,
        mediatype: tape.media,
        tapepool: tape.pool,
        responsible: "maria".to_owned(),
        source_state: "ACTIVE".to_owned(),
        logical_library: "LIB1".to_owned(),
    };
    let there = site.store().enter(&entered.parse().expect("a VID"), &new).await.expect("the database");
    assert_eq!(there, Entered::Added);
    site.edit(|world| {
        world.requests.push(Request { vid: requested.clone(), scheduler: "cta".to_owned(), ..Request::default() });
    });

    let many = scan(&site, &["--json"]);
    let selected = many.object["selected"].as_array().expect("a list");
    let chosen: Vec<&str> = selected.iter().map(|tape| tape["vid"].as_str().expect("a VID")).collect();
    let expected = &best[3..503];
    assert_eq!(chosen, expected);
    assert_eq!(many.object["considered"], MANY);
    for reason in ["on_hold", "in_table", "repack_request"] {
        assert_eq!(many.object["left_out"][reason], 1, "{reason}");
    }
    assert_eq!(many.object["left_out"]["enough"], best.len() - 503);

    let few_site = self::site(MANY / 10).await;
    let few = scan(&few_site, &["--json"]);
    assert_eq!(few.object["considered"], MANY / 10);
    println!("peak resident memory: {} KiB for {MANY} tapes, {} KiB for {} tapes", many.peak, few.peak, MANY / 10);
    assert!(many.peak < 64 * 1024, "{} KiB for {MANY} tapes", many.peak);
    // Ten times the tapes.
    assert!(many.peak * 10 < few.peak * 13, "{} KiB for {MANY} tapes, {} KiB for a tenth of them", many.peak, few.peak);
}

#[tokio::test(flavor = "multi_thread")]
async fn explaining_every_tape_takes_no_more_memory_and_tells_of_each() {
    const COUNT: u64 = 20_000;
    let site = site(COUNT).await;
    let plain = scan(&site, &["--json"]);
    let told = scan(&site, &["--json", "--explain"]);
    let left = told.object["tapes_left_out"].as_array().expect("a list");
    let selected = told.object["selected"].as_array().expect("a list");
    assert_eq!(told.object["selected"], plain.object["selected"]);
    let named: HashSet<&str> = left.iter().chain(selected).map(|tape| tape["vid"].as_str().expect("a VID")).collect();
    assert_eq!((named.len() as u64, (left.len() + selected.len()) as u64), (COUNT, COUNT), "each tape once");
    assert!(left.iter().all(|tape| !tape["reasons"].as_array().expect("a list").is_empty()));
    assert!(told.peak * 10 < plain.peak * 13, "{} KiB to explain, {} KiB without", told.peak, plain.peak);
}

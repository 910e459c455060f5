//! Every program is killed, stopped past its lease, and told to end, at every step of everything it does; somebody else
//! finishes the step, and nothing happens twice.
//!
//! One tape for each fail point and fault; each fault happens once. Without `REPACK_TEST_FULL=1` a sample is run, which
//! follows from `REPACK_TEST_SEED`.

use std::time::Duration;

use common::journey::{Mode, State};
use common::settings::{CtaAdmin, Retry, Settings};
use common::stages::STAGES;
use common::store::Overview;
use common::task::Wanted;
use cta_sim::{Plan, TapeState, World};
use journeys::chance::{Chance, everything};
use journeys::checker::{JOURNEY, Violations, all_finished, invariants};
use journeys::crew::Crew;
use journeys::services::{Services, TestVhost};
use journeys::shots::{Fault, Hit, Range, Shot, Step, report, tell};
use journeys::site::{PATIENCE, Site, all_at_rest};
use journeys::steps::moment;
use producer::tick::{Context, tick};
use rustix::process::Signal;

/// Changing commands of each stage, as [`common::cta::Command::kind`] names them.
const COMMANDS: [(&str, &[&str]); 5] = [
    ("start", &["set-repacking", "repack-add"]),
    ("end", &[]),
    ("quarantine", &["repack-rm", "set-disabled", "set-pool"]),
    ("reclaim", &["reclaim"]),
    ("finish", &["set-pool", "set-active"]),
];

/// Fail points around one changing command.
const AROUND_A_COMMAND: [&str; 4] = ["before-check", "intended", "acted", "answered"];

/// Fail points of the listing, which only start makes.
const LISTING: [&str; 4] = ["listing-written", "listing-named", "committing@start.listing", "listed@start"];

/// Fail points that only a worker passes.
const WITH_A_BROKER: [&str; 2] = ["received", "before-ack"];

/// Fail points of publishing.
const PUBLISHING: [&str; 4] = ["before-mark", "marked", "sent", "published"];

/// Fail points of the dead-letter handler.
const DEAD_LETTER: [&str; 2] = ["dead-received", "buried"];

fn vids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("V{:05}", 1001 + number)).collect()
}

/// Points of a delivery at this place (a stage, or a wish), of a message in the queue of `queue`.
fn of_a_delivery(place: &str, queue: &str, commands: &[&str], ending: &str) -> Vec<String> {
    let mut points: Vec<String> = WITH_A_BROKER.iter().map(|point| format!("{point}@{queue}")).collect();
    points.extend(["claimed", "before-record", "recorded"].map(|point| format!("{point}@{place}")));
    points.push(format!("committing@{queue}.claim"));
    points.push(format!("committing@{queue}.{ending}"));
    for command in commands {
        points.extend(AROUND_A_COMMAND.map(|point| format!("{point}@{place}.{command}")));
    }
    if !commands.is_empty() {
        points.extend(["intent", "answer"].map(|kind| format!("committing@{queue}.{kind}")));
    }
    points
}

/// Points of all stages, with the step that each interrupts.
fn of_all_stages() -> Vec<(String, Step)> {
    let mut points = Vec::new();
    for (stage, (name, commands)) in STAGES.iter().zip(COMMANDS) {
        assert_eq!(stage.name, name);
        points.extend(of_a_delivery(name, name, commands, "done").into_iter().map(|point| (point, Step::To(stage.to))));
    }
    points.extend(LISTING.map(|point| (point.to_owned(), Step::To(State::Started))));
    points
}

/// Each point with each fault; of those, if not everything is to be run, as many as `sample`.
fn shots(what: &str, points: &[(String, Step)], faults: &[Fault], sample: usize) -> Vec<Shot> {
    let mut all = Vec::new();
    for (point, step) in points {
        all.extend(faults.iter().map(|fault| (point.clone(), *step, *fault)));
    }
    if !everything() {
        all = Chance::of_this_run(what).some_of(all, sample);
    }
    let vids = vids(all.len());
    all.into_iter().zip(vids).map(|((point, step, fault), vid)| Shot { point, fault, step, vid }).collect()
}

/// So many at a time: at a larger site stale copies of the many messages that wait would be most of the work.
fn batches(shots: Vec<Shot>) -> Vec<Vec<Shot>> {
    let batch = |shots: &[Shot]| {
        let vids = vids(shots.len());
        shots.iter().zip(vids).map(|(shot, vid)| Shot { vid, ..shot.clone() }).collect()
    };
    shots.chunks(30).map(batch).collect()
}

/// Leases and waits as short as they may be.
fn hasty(site: &mut Site) {
    let settings = site.settings.clone();
    site.settings = Settings {
        lease: Duration::from_secs(8),
        settle: Duration::from_secs(1),
        retry: Retry { max_attempts: 5, ..settings.retry },
        cta_admin: CtaAdmin { timeout: Duration::from_secs(3), ..settings.cta_admin },
        redispatch_after: Duration::from_secs(2),
        worker: common::settings::Worker { concurrency: 1, ..settings.worker },
        producer: common::settings::Producer { interval: Duration::from_millis(200), ..settings.producer },
        ..settings
    };
}

async fn site_for(shots: &[Shot], world: World) -> Site {
    let count = u64::try_from(shots.len()).expect("few");
    let mut site = Site::new(world.with_full_tapes(count)).await;
    hasty(&mut site);
    let vids: Vec<&str> = shots.iter().map(|shot| shot.vid.as_str()).collect();
    site.enter(&vids).await;
    site
}

fn with_broker(site: &mut Site) -> TestVhost {
    let vhost = Services::get().fresh_vhost();
    site.settings.broker = Some(vhost.broker());
    vhost
}

/// Whoever was killed was killed by the fault, and nobody failed.
fn ended_as_shot(crew: &Crew, shots: &[Shot]) {
    let kills = shots.iter().filter(|shot| shot.fault == Fault::Kill).count();
    assert_eq!(crew.ended_by(Signal::KILL), kills, "{:?}", crew.ended);
    assert_eq!(crew.failed(), 0, "{:?}", crew.ended);
}

/// Nobody had to wait longer than this for somebody else, however loaded the machine. Where others cannot take over, each may
/// have to wait until all the others went on.
fn soon_enough(range: &Range, hits: &[Hit]) {
    let stops = u32::try_from(hits.iter().filter(|hit| hit.shot.fault == Fault::Stop).count()).expect("few");
    let limit = if range.others_can { PATIENCE } else { PATIENCE + 2 * range.hold * stops };
    for hit in hits {
        assert!(hit.took < limit, "{hit:?}");
    }
}

/// Being told to end is no crash. A process that was killed or stopped over another tape may have had this one in hand too.
async fn no_crash_by_term(site: &Site, range: &Range, found: &mut Violations) {
    let struck = range.struck();
    for shot in range.shots().iter().filter(|shot| shot.fault == Fault::Term) {
        for event in site.events_of(&shot.vid, "abandoned").await {
            let owner = event.detail["owner"].as_str().unwrap_or_default();
            if !struck.iter().any(|pid| owner.ends_with(&format!("#{pid}"))) {
                found.0.push(format!("{shot:?}: {:?}", event.detail));
            }
        }
    }
}

async fn all_go_all_the_way(name: &str, site: &Site, range: &Range, hits: &[Hit]) {
    tell(name, &report(name, site, hits));
    let vids: Vec<String> = range.shots().iter().map(|shot| shot.vid.clone()).collect();
    let mut found = all_finished(site, &vids).await;
    no_crash_by_term(site, range, &mut found).await;
    found.none();
    soon_enough(range, hits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_or_stops_at_any_step_of_any_stage_leaves_it_to_another() {
    for (number, shots) in batches(shots("workers", &of_all_stages(), &Fault::ALL, 16)).into_iter().enumerate() {
        workers(number, shots).await;
    }
}

async fn workers(number: usize, shots: Vec<Shot>) {
    let mut site = site_for(&shots, World::new().with_durations(20, 100)).await;
    let _vhost = with_broker(&mut site);
    let range = Range::at(&site, shots.clone());
    let mut workers = Crew::workers(&site, 3, &range.armed());
    let mut producers = Crew::producers(&site, 1, "");
    let hits = range.until(&site, &mut [&mut workers, &mut producers], all_at_rest).await;
    ended_as_shot(&workers, &shots);
    workers.end();
    producers.end();
    all_go_all_the_way(&format!("workers-{number}"), &site, &range, &hits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_broker_that_ends_at_any_step_of_any_stage_leaves_it_to_the_next() {
    let mut points = of_all_stages();
    points.retain(|(point, _)| !WITH_A_BROKER.iter().any(|only| point.starts_with(&format!("{only}@"))));
    for (number, shots) in batches(shots("inline", &points, &[Fault::Kill, Fault::Term], 8)).into_iter().enumerate() {
        inline(number, shots).await;
    }
}

async fn inline(number: usize, shots: Vec<Shot>) {
    let site = site_for(&shots, World::new().with_durations(20, 100)).await;
    let range = Range::at(&site, shots.clone());
    let mut producers = Crew::producers(&site, 2, &range.armed());
    let hits = range.until(&site, &mut [&mut producers], all_at_rest).await;
    ended_as_shot(&producers, &shots);
    producers.end();
    all_go_all_the_way(&format!("inline-{number}"), &site, &range, &hits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_broker_that_stops_past_its_lease_does_nothing_late() {
    let mut points = of_all_stages();
    points.retain(|(point, _)| ["intended", "acted", "committing"].iter().any(|only| point.starts_with(only)));
    for (number, shots) in batches(shots("inline-stop", &points, &[Fault::Stop], 1)).into_iter().enumerate() {
        inline_stop(number, shots).await;
    }
}

async fn inline_stop(number: usize, shots: Vec<Shot>) {
    let site = site_for(&shots, World::new().with_durations(20, 100)).await;
    let mut range = Range::at(&site, shots.clone());
    // It keeps the lock of the tick, so that nobody else can take over before it goes on.
    range.others_can = false;
    let mut producers = Crew::producers(&site, 2, &range.armed());
    let hits = range.until(&site, &mut [&mut producers], all_at_rest).await;
    ended_as_shot(&producers, &shots);
    producers.end();
    all_go_all_the_way(&format!("inline-stop-{number}"), &site, &range, &hits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_ends_or_stops_at_any_step_of_publishing_leaves_it_to_another() {
    let mut points = Vec::new();
    for stage in STAGES {
        points.extend(PUBLISHING.map(|point| (format!("{point}@{}", stage.name), Step::To(stage.to))));
    }
    for (number, mut shots) in batches(shots("publishing", &points, &Fault::ALL, 8)).into_iter().enumerate() {
        // A producer publishes several tapes at once: whoever is hit over one does not come to the fail points of the others.
        for round in 0..6 {
            let missed = publishing(&format!("publishing-{number}-{round}"), shots.clone()).await;
            assert!(missed.len() < shots.len(), "nothing was fired: {missed:?}");
            shots = batches(missed).pop().unwrap_or_default();
            if shots.is_empty() {
                break;
            }
        }
        assert_eq!(shots, [], "never fired");
    }
}

/// Those that were not fired.
async fn publishing(name: &str, shots: Vec<Shot>) -> Vec<Shot> {
    let mut site = site_for(&shots, World::new().with_durations(20, 100)).await;
    let _vhost = with_broker(&mut site);
    let mut range = Range::at(&site, shots.clone());
    range.others_can = false;
    range.hold = Duration::from_secs(2);
    let mut workers = Crew::workers(&site, 2, "");
    let mut producers = Crew::producers(&site, 2, &range.armed());
    let grace = Duration::from_secs(20);
    let (hits, missed) = range.most_until(&site, &mut [&mut workers, &mut producers], grace, all_at_rest).await;
    let fired: Vec<Shot> = shots.into_iter().filter(|shot| !missed.contains(shot)).collect();
    ended_as_shot(&producers, &fired);
    workers.end();
    producers.end();
    all_go_all_the_way(name, &site, &range, &hits).await;
    missed
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_ends_or_stops_between_a_stop_and_mode_error_leaves_it_to_another() {
    let mut points = Vec::new();
    for stage in ["start", "end"] {
        let mut of_stage: Vec<String> = of_a_delivery(stage, stage, &[], "stopped");
        of_stage.extend(DEAD_LETTER.map(|point| format!("{point}@{stage}")));
        of_stage.push(format!("committing@{stage}.error"));
        points.extend(of_stage.into_iter().map(|point| (point, Step::Error)));
    }
    for (number, shots) in batches(shots("stops", &points, &Fault::ALL, 8)).into_iter().enumerate() {
        stops(number, shots).await;
    }
}

async fn stops(number: usize, shots: Vec<Shot>) {
    let mut site = site_for(&shots, World::new().with_durations(20, 100)).await;
    let at_start = |shot: &Shot| shot.point.split('@').nth(1).is_some_and(|place| place.starts_with("start"));
    site.edit(|world| {
        for shot in &shots {
            let tape = world.tapes.get_mut(&shot.vid).expect("the tape");
            if at_start(shot) {
                tape.full = false;
            } else {
                tape.plan = Plan { fail_files: 2, fail_times: 9, ..Plan::default() };
            }
        }
    });
    let _vhost = with_broker(&mut site);
    let range = Range::at(&site, shots.clone());
    let mut workers = Crew::workers(&site, 3, &range.armed());
    let mut producers = Crew::producers(&site, 1, "");
    let sweeping = sweep(&site);
    let hits = range.until(&site, &mut [&mut workers, &mut producers], all_at_rest).await;
    sweeping.abort();
    ended_as_shot(&workers, &shots);
    workers.end();
    producers.end();
    let name = format!("stops-{number}");
    tell(&name, &report(&name, &site, &hits));
    let mut found = invariants(&site).await;
    no_crash_by_term(&site, &range, &mut found).await;
    for shot in &shots {
        let (state, code, made) =
            if at_start(shot) { (State::Entered, "not-full", 0) } else { (State::Started, "repack-failed", 2) };
        let (at, why) = (site.at(&shot.vid).await, site.why(&shot.vid).await.0);
        let errors = site.events_of(&shot.vid, "error").await.len();
        let changes = site.changes().get(&shot.vid).map_or(0, Vec::len);
        if (at, why.as_str(), errors, changes) != ((state, Mode::Error), code, 1, made) {
            found.0.push(format!("{shot:?}: {at:?}, {why}, {errors} times in error, {changes} changes"));
        }
    }
    found.none();
    soon_enough(&range, &hits);
}

/// What every tick does with a Stop whose dead letter has not come in ten minutes, sooner: where a stopped process keeps the row
/// locked for long, others give its message up, and when it goes on it is too late to reject it.
fn sweep(site: &Site) -> tokio::task::JoinHandle<()> {
    let context = Context { lost_letter: Duration::from_secs(45), ..site.context() };
    tokio::spawn(async move {
        loop {
            tick(&context, &[], false).await.expect("a tick");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

/// What an operator asks for, where the tape stands then, what is run for it, and all that was changed in CTA at the end.
struct Wish {
    wanted: Wanted,
    state: State,
    commands: &'static [&'static str],
    changes: Vec<&'static str>,
}

fn wishes() -> Vec<Wish> {
    let [repacking, add, rm, rest @ ..] = JOURNEY;
    let retried = [&[repacking, add, rm, add, rm][..], &rest].concat();
    let unstuck = [&[repacking, add, repacking, rm][..], &rest].concat();
    let from_quarantine = [&JOURNEY[..5], &["tape ch --state ACTIVE", "tape ch --tapepool"]].concat();
    let from_repack = vec![repacking, add, rm, "tape ch --state ACTIVE"];
    let give_back = Wanted::GiveBack;
    vec![
        Wish { wanted: Wanted::Retry, state: State::Started, commands: &["repack-rm", "repack-add"], changes: retried },
        Wish { wanted: Wanted::Unstick, state: State::Started, commands: &["set-repacking"], changes: unstuck },
        Wish { wanted: give_back, state: State::Started, commands: &["repack-rm", "set-active"], changes: from_repack },
        Wish {
            wanted: give_back,
            state: State::Quarantined,
            commands: &["set-active", "set-pool"],
            changes: from_quarantine,
        },
    ]
}

impl Wish {
    /// The stage in whose queue its message lies.
    fn queue(&self) -> &'static str {
        if self.state == State::Started { "end" } else { "reclaim" }
    }

    fn points(&self) -> Vec<String> {
        of_a_delivery(self.wanted.name(), self.queue(), self.commands, "fulfilled")
    }

    fn plan(&self) -> Plan {
        match (self.wanted, self.state) {
            (Wanted::Retry, _) => Plan { fail_files: 2, fail_times: 1, ..Plan::default() },
            (Wanted::Unstick, _) => Plan { disable_after: Some(3), ..Plan::default() },
            (Wanted::GiveBack, State::Started) => Plan { repack_ms: Some(3_600_000), ..Plan::default() },
            (Wanted::GiveBack, _) => Plan::default(),
        }
    }

    /// Whether the tape has come to where the operator asks for this.
    async fn is_ready(&self, site: &Site, vid: &str) -> bool {
        let (state, mode) = site.at(vid).await;
        match self.wanted {
            Wanted::Retry => mode == Mode::Error,
            Wanted::Unstick => site.world().tapes[vid].state == TapeState::RepackingDisabled,
            Wanted::GiveBack => state == self.state,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_or_stops_at_any_step_of_a_wish_leaves_it_to_another() {
    let mut points = Vec::new();
    for (number, wish) in wishes().iter().enumerate() {
        points.extend(wish.points().into_iter().map(|point| (format!("{point}#{number}"), Step::Wish)));
    }
    for (number, shots) in batches(shots("wishes", &points, &Fault::ALL, 8)).into_iter().enumerate() {
        granted(number, shots).await;
    }
}

async fn granted(number: usize, mut shots: Vec<Shot>) {
    let wishes = wishes();
    // Two wishes have points of the same name; which is meant is known by the tape.
    let mut wish_of: Vec<&Wish> = Vec::new();
    for shot in &mut shots {
        let (point, wish) = shot.point.split_once('#').expect("it was numbered");
        wish_of.push(&wishes[wish.parse::<usize>().expect("a number")]);
        shot.point = point.to_owned();
    }
    let mut site = site_for(&shots, World::new()).await;
    site.edit(|world| {
        world.max_to_expand = 1000;
        for (shot, wish) in shots.iter().zip(&wish_of) {
            world.tapes.get_mut(&shot.vid).expect("the tape").plan = wish.plan();
        }
    });
    site.settings.max_active_repacks = 200;
    ready(&site, &shots, &wish_of).await;
    for (shot, wish) in shots.iter().zip(&wish_of) {
        site.want(&shot.vid, wish.wanted).await;
    }
    let _vhost = with_broker(&mut site);
    let range = Range::at(&site, shots.clone());
    let mut workers = Crew::workers(&site, 3, &range.armed());
    let mut producers = Crew::producers(&site, 1, "");
    let stay = wish_of.iter().filter(|wish| wish.wanted != Wanted::GiveBack).count();
    let done = |rows: &[Overview]| rows.len() == stay && all_at_rest(rows);
    let hits = range.until(&site, &mut [&mut workers, &mut producers], done).await;
    ended_as_shot(&workers, &shots);
    workers.end();
    producers.end();
    let name = format!("wishes-{number}");
    tell(&name, &report(&name, &site, &hits));
    let mut found = invariants(&site).await;
    no_crash_by_term(&site, &range, &mut found).await;
    let changes = site.changes();
    for (shot, wish) in shots.iter().zip(&wish_of) {
        let made = &changes[&shot.vid];
        let as_wished = made.len() == wish.changes.len()
            && made.iter().zip(&wish.changes).all(|(made, expected)| made.starts_with(expected));
        if !as_wished {
            found.0.push(format!("{shot:?}: {made:?}, and not {:?}", wish.changes));
        }
        if site.events_of(&shot.vid, "fulfilled").await.len() != 1 {
            found.0.push(format!("{shot:?}: not fulfilled once"));
        }
    }
    for row in site.rows().await {
        let tape = row.row.expect("a lawful row");
        if (tape.state(), tape.mode) != (State::Finished, Mode::Auto) {
            found.0.push(format!("{} is {} {:?}", tape.vid, tape.state(), tape.mode));
        }
    }
    found.none();
    soon_enough(&range, &hits);
}

/// Ticks until every tape is where its wish begins; no tape goes further.
async fn ready(site: &Site, shots: &[Shot], wish_of: &[&Wish]) {
    let begun = std::time::Instant::now();
    loop {
        site.tick_of(&STAGES[..3]).await;
        let mut missing = Vec::new();
        for (shot, wish) in shots.iter().zip(wish_of) {
            if !wish.is_ready(site, &shot.vid).await {
                missing.push(&shot.vid);
            }
        }
        if missing.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{missing:?}: {:#?}", site.rows().await);
        moment().await;
    }
}

#[test]
fn every_fail_point_of_the_programs_is_in_the_matrix() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let mut named = std::collections::BTreeSet::new();
    for source in ["common/src/store.rs", "common/src/broker/publish.rs", "worker/src", "producer/src"] {
        for path in sources(&root.join(source)) {
            let text = std::fs::read_to_string(path).expect("a source file");
            for (at, call) in text.match_indices("failpoint::pass") {
                let name = text[at + call.len()..].split('"').nth(1).expect("a fail point has a name");
                named.insert(name.to_owned());
            }
        }
    }
    let mut shot: Vec<String> = of_all_stages().into_iter().map(|(point, _)| point).collect();
    shot.extend(PUBLISHING.iter().chain(&DEAD_LETTER).map(|point| (*point).to_owned()));
    // Touches no tape's journey; the tests of the digest have it.
    shot.push("mailed".to_owned());
    let shot: std::collections::BTreeSet<String> =
        shot.iter().map(|point| point.split('@').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(named, shot);
}

fn sources(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).expect("a directory of sources");
    entries
        .flat_map(|entry| sources(&entry.expect("an entry").path()))
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect()
}

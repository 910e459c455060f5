//! What must hold at the end of any test, whatever was broken meanwhile: read from the journal of the simulated CTA, the
//! tables and the history.

use std::collections::BTreeMap;

use common::journey::{Mode, State};
use common::store::{EventFilter, EventRow};
use common::task::ListingMade;
use cta_sim::{Entry, Kind};
use sha2::{Digest as _, Sha256};

use crate::site::Site;
use crate::steps::time_of;

/// Every change of a journey of a tape of [`cta_sim::World::with_full_tapes`], in order, as [`Site::changes`] names them.
pub const JOURNEY: [&str; 8] = [
    "tape ch --state REPACKING",
    "repack add",
    "repack rm",
    "tape ch --state DISABLED",
    "tape ch --tapepool quarantine",
    "tape reclaim",
    "tape ch --tapepool tolabel_IBM1L9",
    "tape ch --state ACTIVE",
];

/// What is wrong, a sentence each; empty if nothing is.
#[derive(Debug, Default)]
pub struct Violations(pub Vec<String>);

impl Violations {
    fn unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }

    /// Nothing is wrong.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn none(&self) {
        assert!(self.0.is_empty(), "{} violations:\n{}", self.0.len(), self.0.join("\n"));
    }
}

/// Holds all that can be known at rest against the rules that no fault may break: commands of one tape never overlap, each
/// effect follows a committed intent, reclaims meet only proven empty tapes in quarantine, never more repacks than slots,
/// stamps and history agree, and no lease, intent or slot is left behind.
///
/// # Panics
/// When the database or the world cannot be read.
pub async fn invariants(site: &Site) -> Violations {
    let mut found = Violations::default();
    let journal = site.journal();
    let events = history(site).await;
    found.0.extend(cta_sim::overlaps(&journal));
    let most = cta_sim::max_active(&journal);
    let slots = u64::from(site.settings.max_active_repacks);
    found.unless(most <= slots, || format!("{most} repacks at once, with {slots} slots"));
    for entry in journal.iter().filter(|entry| entry.kind == Kind::Effect && entry.effect.changed()) {
        effect(entry, &events, &mut found);
    }
    for row in site.rows().await {
        let Ok(tape) = row.row else {
            found.0.push(format!("an odd row: {:?}", row.row));
            continue;
        };
        let vid = tape.vid.to_string();
        let Some(task) = row.task else {
            found.0.push(format!("{vid}: no task"));
            continue;
        };
        found.unless(task.owner.is_none() && task.intent.is_none(), || format!("{vid}: open: {task:?}"));
        let repacking = journal_says_active(&site.world(), &vid);
        found.unless(task.slot_since.is_none() || repacking, || format!("{vid}: it keeps a slot: {task:?}"));
        found.unless(tape.mode != Mode::Error || task.reason.is_some(), || format!("{vid}: in error without a reason"));
        stamped(&vid, tape.state(), &events, &mut found);
    }
    found
}

fn journal_says_active(world: &cta_sim::World, vid: &str) -> bool {
    world.request(vid).is_some_and(|request| !request.status.is_final())
}

/// The whole history by tape, oldest first.
async fn history(site: &Site) -> BTreeMap<String, Vec<EventRow>> {
    let mut by_tape: BTreeMap<String, Vec<EventRow>> = BTreeMap::new();
    for event in site.store().events(&EventFilter::default(), 10_000_000).await.expect("the history") {
        by_tape.entry(event.tape.clone()).or_default().push(event);
    }
    for events in by_tape.values_mut() {
        events.sort_by_key(|event| event.id);
    }
    by_tape
}

/// A change in CTA: meant before it was made, and made only to what it was meant for.
fn effect(entry: &Entry, events: &BTreeMap<String, Vec<EventRow>>, found: &mut Violations) {
    let vid = entry.vid.clone().unwrap_or_default();
    let at = time_of(entry);
    let command = entry.words().join(" ");
    let meant = events.get(&vid).into_iter().flatten().filter(|event| event.kind == "intent").any(|event| {
        let text = event.detail["command"].as_str().unwrap_or_default();
        event.at <= at
            && entry.words().iter().filter(|word| !word.contains(' ')).all(|word| text.contains(word.as_str()))
    });
    found.unless(meant, || format!("{vid}: '{command}' took effect at {at} without an intent before it"));
    let Some(before) = &entry.before else { return };
    let lawful = match entry.command.as_str() {
        "tape reclaim" => before.files == 0 && before.pool == "quarantine" && before.state == "DISABLED",
        "repack rm" => before.request.is_some(),
        "tape ch" if entry.argv.iter().any(|word| word.starts_with("tolabel_")) => before.files == 0,
        _ => true,
    };
    found.unless(lawful, || format!("{vid}: '{command}' hit {before:?}"));
}

/// Every state up to this one was reached once in this journey, in order, and by a stage that proved it.
fn stamped(vid: &str, state: State, events: &BTreeMap<String, Vec<EventRow>>, found: &mut Violations) {
    let events = events.get(vid).map(Vec::as_slice).unwrap_or_default();
    let begun = events.iter().rposition(|event| event.kind == "entered").unwrap_or_default();
    let done: Vec<String> = events[begun..]
        .iter()
        .filter(|event| event.kind == "done" && event.detail["to"].is_string())
        .map(|event| event.detail["to"].as_str().unwrap_or_default().to_owned())
        .collect();
    let expected: Vec<String> = State::ALL[1..=state as usize].iter().map(ToString::to_string).collect();
    found.unless(done == expected, || format!("{vid} is {state}, and its history says {done:?}"));
}

/// The same, and this tape went all the way in one repack: each command took effect once, in order, nothing was stopped, and
/// the listing of its files is whole.
///
/// # Panics
/// As [`invariants`].
pub async fn all_finished(site: &Site, vids: &[String]) -> Violations {
    let mut found = invariants(site).await;
    let changes = site.changes();
    let events = history(site).await;
    for vid in vids {
        let at = site.at(vid).await;
        found.unless(at == (State::Finished, Mode::Auto), || format!("{vid} is {at:?}"));
        let made = changes.get(vid).cloned().unwrap_or_default();
        found.unless(made == JOURNEY, || format!("{vid}: what changed in CTA: {made:?}"));
        let events = events.get(vid).map(Vec::as_slice).unwrap_or_default();
        for kind in ["stopped", "error", "dead-letter", "superseded"] {
            let of_kind = events.iter().find(|event| event.kind == kind);
            found.unless(of_kind.is_none(), || format!("{vid}: {kind}: {:?}", of_kind.map(|event| &event.detail)));
        }
        listing(vid, events, &mut found);
    }
    let slots =
        site.number(&format!("SELECT count(*) FROM {} WHERE slot_since IS NOT NULL", site.beside("_task"))).await;
    found.unless(slots == 0, || format!("{slots} slots are kept"));
    found
}

/// The listing that the history names is there, with what the history says of it.
fn listing(vid: &str, events: &[EventRow], found: &mut Violations) {
    let made = events.iter().rev().find(|event| event.kind == "listing").map(|event| event.detail.clone());
    let Some(made) = made.and_then(|made| serde_json::from_value::<ListingMade>(made).ok()) else {
        return found.0.push(format!("{vid}: no listing in the history"));
    };
    let content = std::fs::read(&made.path).unwrap_or_default();
    let sum: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let lines = content.iter().filter(|byte| **byte == b'\n').count() as u64;
    found.unless(sum == made.sha256 && lines == made.files, || format!("{vid}: its listing is not {made:?}"));
}

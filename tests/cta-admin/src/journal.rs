//! What was called and what came of it, one JSON object per line.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::world::World;

/// What a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An invocation started.
    #[default]
    Begin,
    /// A changing command met the world, at once or late.
    Effect,
    /// An invocation is about to exit.
    End,
    /// A repack request became final; `note` is its status.
    Finished,
}

/// What a changing command did to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nothing: a query, a fault before the front end, or a change to what was already so.
    #[default]
    None,
    /// Done.
    Applied,
    /// Some of its options were done, then one was refused.
    Partial,
    /// Refused by the front end.
    Refused,
    /// Answered as failed; the front end will still try.
    LateScheduled,
    /// Done after it was answered as failed.
    LateApplied,
    /// Refused when the front end got to it.
    LateRefused,
}

impl Effect {
    /// Whether the world changed.
    pub fn changed(self) -> bool {
        matches!(self, Effect::Applied | Effect::Partial | Effect::LateApplied)
    }
}

/// A tape as far as changing commands matter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct View {
    /// It exists.
    pub exists: bool,
    /// CTA state.
    pub state: String,
    /// Tape pool.
    pub pool: String,
    /// Full.
    pub full: bool,
    /// Active files, counted.
    pub files: u64,
    /// Recycle-bin entries.
    pub recycled: u64,
    /// Last file sequence number.
    pub last_fseq: u64,
    /// Status of its repack request, in any scheduler.
    pub request: Option<String>,
}

impl View {
    /// What the world says about a tape.
    pub fn of(world: &World, vid: &str) -> View {
        let request = world.request(vid).map(|request| request.status.name().to_owned());
        let Some(tape) = world.find(vid) else { return View { request, ..View::default() } };
        View {
            exists: true,
            state: tape.state.name().into(),
            files: tape.live_files(),
            recycled: tape.recycled.iter().map(|entry| entry.run.count).sum(),
            pool: tape.pool,
            full: tape.full,
            last_fseq: tape.last_fseq,
            request,
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// What it tells.
    pub kind: Kind,
    /// Order of the changes of the world; 0 for lines that are none.
    pub seq: u64,
    /// Microseconds since the Unix epoch.
    pub at_us: u64,
    /// Same for all lines of one invocation.
    pub id: String,
    /// Process.
    pub pid: u32,
    /// All arguments.
    pub argv: Vec<String>,
    /// Command and subcommand in their long form (`tape ch`); empty if not understood.
    pub command: String,
    /// Front end it went to; empty if it got to none.
    pub frontend: String,
    /// The command changes something.
    pub changing: bool,
    /// The tape, where `--vid` names one.
    pub vid: Option<String>,
    /// What it did.
    pub effect: Effect,
    /// Exit code (End).
    pub exit: Option<i32>,
    /// The tape before (Effect).
    pub before: Option<View>,
    /// The tape after (Effect).
    pub after: Option<View>,
    /// Process of another changing command for the same tape that was alive when this one began (Begin).
    pub overlaps: Option<u32>,
    /// The order that struck, the front end's message, or a status.
    pub note: String,
}

impl Entry {
    /// The arguments without the global options: what was asked for, whatever the framing and the front end.
    pub fn words(&self) -> &[String] {
        let mut words = self.argv.as_slice();
        if let [first, rest @ ..] = words
            && (first == "--json" || first == "--jsonl")
        {
            words = rest;
        }
        if let [first, _, rest @ ..] = words
            && first == "--config"
        {
            words = rest;
        }
        words
    }
}

pub(crate) fn append(dir: &Path, entries: &[Entry]) -> Result<()> {
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, entry)?;
        text.push(b'\n');
    }
    crate::store::append_text(dir, "journal.jsonl", &text)
}

/// The journal of a world's directory, in the order of writing, after letting the world catch up with the time.
///
/// # Errors
/// If there is no world, or a file cannot be read.
pub fn journal(dir: &Path) -> Result<Vec<Entry>> {
    let world = World::load(dir)?;
    let _lock = crate::store::lock(dir)?;
    let path = dir.join("journal.jsonl");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines() {
        entries.push(serde_json::from_str(line).with_context(|| format!("reading {}", path.display()))?);
    }
    let current = world.seq.max(crate::store::read_world(dir)?.seq);
    Ok(written(entries, current))
}

/// Leaves out lines whose world was never written: those with a number that a later line has again, or beyond the world's.
fn written(entries: Vec<Entry>, seq: u64) -> Vec<Entry> {
    let last: BTreeMap<u64, usize> = entries.iter().enumerate().map(|(i, entry)| (entry.seq, i)).collect();
    let valid = |i: usize, entry: &Entry| entry.seq == 0 || (entry.seq <= seq && last[&entry.seq] == i);
    entries.into_iter().enumerate().filter(|(i, entry)| valid(*i, entry)).map(|(_, entry)| entry).collect()
}

/// The changes and refused changes of each tape, in order.
pub fn effects(journal: &[Entry]) -> BTreeMap<String, Vec<&Entry>> {
    let mut by_tape: BTreeMap<String, Vec<&Entry>> = BTreeMap::new();
    for entry in journal.iter().filter(|entry| entry.kind == Kind::Effect) {
        if let Some(vid) = &entry.vid {
            by_tape.entry(vid.clone()).or_default().push(entry);
        }
    }
    by_tape
}

/// Pairs of changing commands of one tape that ran at the same time. The beginning of a command notes which other
/// process was alive (this also sees those that were killed); intervals of begin and end are compared as well.
pub fn overlaps(journal: &[Entry]) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: BTreeMap<&str, (&Entry, Option<u64>)> = BTreeMap::new();
    for entry in journal.iter().filter(|entry| entry.changing) {
        match entry.kind {
            Kind::Begin => {
                if let Some(other) = entry.overlaps {
                    found.push(format!("{:?} began while process {other} was alive", entry.argv));
                }
                open.insert(&entry.id, (entry, None));
            }
            Kind::End => {
                if let Some((_, end)) = open.get_mut(entry.id.as_str()) {
                    *end = Some(entry.at_us);
                }
            }
            Kind::Effect | Kind::Finished => {}
        }
    }
    let mut by_tape: BTreeMap<&str, Vec<(u64, u64, &Entry)>> = BTreeMap::new();
    for (begin, end) in open.into_values() {
        if let (Some(vid), Some(end)) = (&begin.vid, end) {
            by_tape.entry(vid).or_default().push((begin.at_us, end, begin));
        }
    }
    for intervals in by_tape.values_mut() {
        intervals.sort_by_key(|interval| interval.0);
        for pair in intervals.windows(2) {
            if pair[1].0 < pair[0].1 {
                found.push(format!("{:?} overlaps {:?}", pair[0].2.argv, pair[1].2.argv));
            }
        }
    }
    found
}

/// The most non-final repack requests at any moment, counted from the journal: an applied `repack add` begins one, an
/// applied `repack rm` of a non-final one or becoming final ends it. Requests put into the world without `cta-admin` do
/// not count.
pub fn max_active(journal: &[Entry]) -> u64 {
    let mut active: BTreeMap<&str, ()> = BTreeMap::new();
    let mut most = 0;
    for entry in journal {
        let Some(vid) = entry.vid.as_deref() else { continue };
        match (entry.kind, entry.command.as_str()) {
            (Kind::Effect, "repack add") if entry.effect.changed() => {
                active.insert(vid, ());
            }
            (Kind::Effect, "repack rm") if entry.effect.changed() => {
                active.remove(vid);
            }
            (Kind::Finished, _) => {
                active.remove(vid);
            }
            _ => {}
        }
        most = most.max(active.len() as u64);
    }
    most
}

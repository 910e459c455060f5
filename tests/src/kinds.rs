//! Tapes of every kind, and how far each of them may come.

use std::collections::BTreeMap;

use common::journey::{Mode, State};
use common::store::Overview;
use common::task::Outcome;
use cta_sim::world::{Mark, Request, Status};
use cta_sim::{Keyset, Plan, Tape, TapeState, World};

use crate::site::Site;

/// Files that a request of [`world`] selects at most.
pub const ROUND: u64 = 10;

/// Where a tape comes to rest: state, mode, reason code, and the outcome that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// State of the row.
    pub state: State,
    /// Mode of the row.
    pub mode: Mode,
    /// Code of the reason; empty if there is none.
    pub code: String,
    /// Name of the outcome; empty if there is none.
    pub outcome: String,
}

/// What shall become of a tape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// Where it comes to rest.
    pub rest: Rest,
    /// Every changing command that is run for it, in order; see [`Site::changes`].
    pub commands: Vec<String>,
}

fn rest(state: State, mode: Mode, code: &str, outcome: &str) -> Rest {
    Rest { state, mode, code: code.to_owned(), outcome: outcome.to_owned() }
}

/// To the end, in so many rounds of repack.
fn finished(rounds: usize, destination: &str, was_disabled: bool) -> Fate {
    let mut commands = vec!["tape ch --state REPACKING".to_owned()];
    for _ in 0..rounds {
        commands.extend(["repack add", "repack rm"].map(str::to_owned));
    }
    commands.extend(["tape ch --state DISABLED", "tape ch --tapepool quarantine", "tape reclaim"].map(str::to_owned));
    commands.push(format!("tape ch --tapepool {destination}"));
    if !was_disabled {
        commands.push("tape ch --state ACTIVE".to_owned());
    }
    Fate { rest: rest(State::Finished, Mode::Auto, "", ""), commands }
}

/// Refused before anything is changed.
fn refused(code: &str) -> Fate {
    Fate { rest: rest(State::Entered, Mode::Error, code, "failed"), commands: Vec::new() }
}

/// Its repack was begun, and was not the end of it.
fn begun(mode: Mode, code: &str, outcome: &str) -> Fate {
    Fate {
        rest: rest(State::Started, mode, code, outcome),
        commands: ["tape ch --state REPACKING", "repack add"].map(str::to_owned).into(),
    }
}

fn full(files: u64, number: u64) -> Tape {
    Tape::full("pool_alpha_raw", "alpha_raw", 4_294_967_296 + number * 1000, files)
}

/// A tape and its fate for each kind, and `plain` more without any peculiarity.
fn tapes(plain: usize, keyset: Keyset) -> Vec<(Tape, Fate)> {
    let planned = |plan: Plan| full(ROUND, 0).with_plan(plan);
    let l9 = || finished(1, "tolabel_IBM1L9", false);
    // Before the key that says so, a request that had not selected all looks like any complete one, with files left.
    let in_rounds = match keyset {
        Keyset::Head => finished(3, "tolabel_IBM1L9", false),
        Keyset::V5_10_7 => begun(Mode::Error, "files-left", "failed"),
    };
    let mut in_quarantine = full(ROUND, 0);
    in_quarantine.pool = "quarantine".to_owned();
    let mut writable = full(ROUND, 0);
    writable.full = false;
    let mut tapes = vec![
        (full(ROUND, 0), l9()),
        (full(ROUND, 0).made_of("IBM2", "LTO8"), finished(1, "tolabel_IBM2L8", false)),
        (full(2 * ROUND + 5, 0), in_rounds),
        (full(ROUND, 0).in_state(TapeState::Disabled), finished(1, "tolabel_IBM1L9", true)),
        (empty(), l9()),
        (
            planned(Plan { fail_files: 2, fail_times: 1, ..Plan::default() }),
            begun(Mode::Error, "repack-failed", "failed"),
        ),
        (
            planned(Plan { fail_archive: 1, fail_times: 1, ..Plan::default() }),
            begun(Mode::Error, "repack-failed", "failed"),
        ),
        (planned(Plan { fail_expansion: 1, ..Plan::default() }), begun(Mode::Error, "repack-failed", "failed")),
        (planned(Plan { late_files: 2, ..Plan::default() }), begun(Mode::Error, "files-left", "failed")),
        (
            planned(Plan { disable_after: Some(3), ..Plan::default() }),
            begun(Mode::Auto, "disabled-by-drive", "stalled"),
        ),
        (full(ROUND, 0).in_state(TapeState::Broken), refused("unexpected-state")),
        (writable, refused("not-full")),
        (in_quarantine, refused("checks-failed")),
        (full(ROUND, 0).made_of("IBM3", "LTO9"), refused("checks-failed")),
    ];
    let libraries = [("IBM1", "LTO8"), ("IBM1", "LTO9"), ("IBM2", "LTO8"), ("IBM2", "LTO9")];
    for (library, media) in libraries.into_iter().cycle().take(plain) {
        let destination = format!("tolabel_{library}L{}", &media[3..]);
        tapes.push((full(ROUND, 0).made_of(library, media), finished(1, &destination, false)));
    }
    tapes
}

/// Full, and every file of it gone.
fn empty() -> Tape {
    let mut tape = Tape::new("pool_alpha_raw");
    tape.full = true;
    tape.last_fseq = 90;
    tape.occupancy = 180_000_000_000;
    tape.written = Some(Mark { drive: "DRIVE1".into(), time: 1_726_000_000 });
    tape
}

/// `V02000`: an operator has it, in mode manual; `V02001`: somebody else has asked for its repack.
const MANUAL: &str = "V02000";
const FOREIGN: &str = "V02001";

/// A world with a tape of every kind and `plain` ordinary ones, of `base`'s version, transport, scheduler and front ends.
pub fn world(mut base: World, plain: usize) -> World {
    base = base.with_durations(30, 200).with_tape("D00001", Tape::new("pool_alpha_raw"));
    base.max_to_expand = 10;
    base.max_files_to_select = ROUND;
    base.libraries.insert("IBM3".into(), "TOWER3".into());
    for (number, (mut tape, _)) in tapes(plain, base.keyset).into_iter().enumerate() {
        let id = 4_294_967_296 + 1000 * number as u64;
        for run in &mut tape.files {
            run.archive_id = id;
        }
        base.tapes.insert(vid(number), tape);
    }
    base.tapes.insert(MANUAL.to_owned(), full(ROUND, 500));
    base.tapes.insert(FOREIGN.to_owned(), full(ROUND, 501));
    let scheduler = base.frontends.last().map(|frontend| frontend.scheduler.clone()).unwrap_or_default();
    base.requests.push(Request {
        vid: FOREIGN.to_owned(),
        scheduler,
        mount_policy: "repack_low_priority".to_owned(),
        created: 1_726_000_000,
        finished: 1_726_000_100,
        status: Status::Complete,
        all_selected: true,
        ..Request::default()
    });
    base
}

fn vid(number: usize) -> String {
    format!("V{:05}", 1001 + number)
}

/// What shall become of every tape of [`world`].
pub fn fates(plain: usize, keyset: Keyset) -> BTreeMap<String, Fate> {
    let mut fates: BTreeMap<String, Fate> =
        tapes(plain, keyset).into_iter().enumerate().map(|(number, (_, fate))| (vid(number), fate)).collect();
    let manual = Fate { rest: rest(State::Entered, Mode::Manual, "", ""), commands: Vec::new() };
    fates.insert(MANUAL.to_owned(), manual);
    fates.insert(FOREIGN.to_owned(), refused("someone-elses-request"));
    fates
}

/// Enters them all; one is in an operator's hand.
pub async fn enter(site: &Site, fates: &BTreeMap<String, Fate>) {
    let vids: Vec<&str> = fates.keys().map(String::as_str).collect();
    site.enter(&vids).await;
    site.sql(&format!("UPDATE repack_status SET mode = 'manual' WHERE tape = '{MANUAL}'")).await;
}

/// Where the tapes are.
pub fn rests(rows: &[Overview]) -> BTreeMap<String, Rest> {
    rows.iter()
        .map(|row| {
            let tape = row.row.as_ref().expect("a lawful row");
            let task = row.task.as_ref();
            // What a tape waits for between two steps is not of interest here.
            let kept = task.filter(|task| matches!(task.outcome, Some(Outcome::Failed | Outcome::Stalled)));
            let code = kept.and_then(|task| task.reason.as_ref()).map(|kept| kept.code.clone()).unwrap_or_default();
            let outcome = kept.and_then(|task| task.outcome).map(Outcome::name).unwrap_or_default();
            (tape.vid.to_string(), rest(tape.state(), tape.mode, &code, outcome))
        })
        .collect()
}

/// Whether all are at rest, wherever: a wrong fate should be seen and not waited for.
pub fn all_rest(rows: &[Overview]) -> bool {
    rests(rows)
        .values()
        .all(|rest| rest.state == State::Finished || rest.mode != Mode::Auto || rest.outcome == Outcome::Stalled.name())
}

/// Holds the table and what was done in CTA against the fates.
///
/// # Panics
/// When a tape is elsewhere, or a command was run twice, left out, out of order, beside another, or for a tape that is to be
/// left alone.
pub fn hold_against(site: &Site, rows: &[Overview], fates: &BTreeMap<String, Fate>) {
    let expected: BTreeMap<String, Rest> = fates.iter().map(|(vid, fate)| (vid.clone(), fate.rest.clone())).collect();
    similar(&rests(rows), &expected, "the table");
    let commands: BTreeMap<String, Vec<String>> = fates
        .iter()
        .filter(|(_, fate)| !fate.commands.is_empty())
        .map(|(vid, fate)| (vid.clone(), fate.commands.clone()))
        .collect();
    similar(&site.changes(), &commands, "what changed in CTA");
    similar(&site.issued(), &commands, "the changing commands that were run");
    assert_eq!(cta_sim::overlaps(&site.journal()), Vec::<String>::new());
}

fn similar<T: std::fmt::Debug + PartialEq>(found: &BTreeMap<String, T>, expected: &BTreeMap<String, T>, what: &str) {
    let names: std::collections::BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let differing: Vec<String> = names
        .into_iter()
        .filter(|name| found.get(*name) != expected.get(*name))
        .map(|name| format!("{name}: found {:?}\n         expected {:?}", found.get(name), expected.get(name)))
        .collect();
    assert!(differing.is_empty(), "{what} is not as expected:\n{}", differing.join("\n"));
}

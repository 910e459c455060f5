//! `import`: takes a table over that ATRESYS works with. The table itself is only read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use common::cta::reply::Repack;
use common::cta::{Cta, Query, reply};
use common::journey::State;
use common::settings::Settings;
use common::store::{Store, StoreError, Walked, migrate};
use common::tape::Tape;
use producer::tick::follow;
use serde::{Deserialize as _, Serialize};
use worker::look;

use super::migrate::owners;
use super::told;
use crate::output::{Desk, Exit, clean};

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Create what is missing beside the table.
    pub migrate: bool,
    /// Ask CTA too.
    pub cta: bool,
    /// Only look.
    pub dry_run: bool,
}

/// Rows of which something is to be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Told {
    vid: String,
    reasons: Vec<String>,
}

/// What was found and done.
#[derive(Debug, Default, Serialize)]
struct Report {
    table: String,
    dry_run: bool,
    definition: Vec<String>,
    applied: Vec<String>,
    rows: u64,
    states: BTreeMap<&'static str, u64>,
    modes: BTreeMap<String, u64>,
    noted: u64,
    to_note: u64,
    odd: Vec<Told>,
    remarks: Vec<String>,
    disagreements: Option<Vec<Told>>,
}

/// Verifies the table, and notes down what each tape is due for.
///
/// # Errors
/// What the database or CTA says.
pub async fn run(store: &Store, options: Options, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let settings = store.settings();
    let table = settings.database.table.to_string().replace('"', "");
    let mut report = Report { table: table.clone(), dry_run: options.dry_run, ..Report::default() };
    let Some(definition) = store.definition().await.map_err(told)? else {
        anyhow::bail!(
            "there is no table {table}: nothing to import; 'cta-ops-repack-manager migrate' makes an empty one"
        );
    };
    report.definition = definition.problems();
    if !report.definition.is_empty() {
        return tell(&report, json, desk);
    }
    if options.migrate && !options.dry_run {
        report.applied = migrate::migrate(settings).await.map_err(owners)?.applied;
    }
    let migrated = store.is_migrated().await.map_err(told)?;
    if !migrated && !options.dry_run {
        anyhow::bail!("{}", needs_migration(&table));
    }
    // In a transaction that is rolled back: looking needs nobody's word for it.
    if options.dry_run && (options.migrate || !migrated) {
        report.applied = migrate::rehearse(settings).await.map_err(owners)?.applied;
        if !options.migrate {
            report.remarks.push(needs_migration(&table));
        }
    }
    let under_way = look_at_rows(store, migrated, options.cta, &mut report).await?;
    if options.cta {
        report.disagreements = Some(ask_cta(settings, under_way).await?);
    }
    if !options.dry_run {
        note_down(store, &mut report, desk).await?;
    }
    tell(&report, json, desk)
}

fn needs_migration(table: &str) -> String {
    format!("the tables beside {table} are not there: run 'cta-ops-repack-manager migrate' first, or say --migrate")
}

/// Reads every row once; nothing is kept of it but counts, what is odd, and with `keep` the rows that are under way.
async fn look_at_rows(
    store: &Store,
    migrated: bool,
    keep: bool,
    report: &mut Report,
) -> anyhow::Result<HashMap<String, Tape>> {
    let now = store.now().await.map_err(told)?;
    let mut under_way = HashMap::new();
    let mut priorities: BTreeMap<i16, u64> = BTreeMap::new();
    let mut ahead = 0u64;
    let rows = store.walk(migrated, |Walked { row, noted }| match row {
        Err(odd) => report.odd.push(Told { vid: odd.tape, reasons: odd.problems }),
        Ok(tape) => {
            let state = tape.state();
            *report.states.entry(state.column()).or_default() += 1;
            *report.modes.entry(tape.mode.to_string()).or_default() += 1;
            ahead += u64::from(is_ahead(&tape, now));
            if state != State::Finished {
                *priorities.entry(tape.priority).or_default() += 1;
                *(if noted { &mut report.noted } else { &mut report.to_note }) += 1;
                if keep {
                    under_way.insert(tape.vid.to_string(), tape);
                }
            }
        }
    });
    report.rows = rows.await.map_err(told)?;
    for (priority, count) in priorities {
        if !store.settings().priorities.by_number.contains_key(&priority) {
            report.remarks.push(format!(
                "priority {priority} is not in the configuration, and {count} tapes have it: add it under 'priorities'"
            ));
        }
    }
    if ahead > 0 {
        report.remarks.push(format!(
            "tapes with a stamp ahead of the database's clock: {ahead}; is 'time_zone' ({}) the zone of this table?",
            store.settings().time_zone
        ));
    }
    Ok(under_way)
}

fn is_ahead(tape: &Tape, now: DateTime<Utc>) -> bool {
    tape.stamps.at(tape.state()).is_some_and(|at| at > now + TimeDelta::minutes(5))
}

/// What the tick would do first, for every row that it has not seen as it is.
async fn note_down(store: &Store, report: &mut Report, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    const MANY: usize = 1000;
    let (vids, _) = store.changed().await.map_err(told)?;
    let count = vids.len();
    for (done, vid) in vids.into_iter().enumerate() {
        if done > 0 && done % MANY == 0 {
            desk.remark(&format!("{done} of {count} tapes"));
        }
        match store.locked(&vid, false, |locked| follow(locked, "import")).await {
            Ok(None) => {
                report.noted += 1;
                report.to_note = report.to_note.saturating_sub(1);
            }
            // Told from the reading of all rows.
            Ok(Some(_)) => {}
            Err(StoreError::Busy(why)) => {
                report.remarks.push(format!("{vid}: its row is locked by somebody ({why}): the next tick takes it"));
            }
            Err(error) => return Err(told(error)),
        }
    }
    Ok(())
}

/// Rows under way with which CTA does not agree.
async fn ask_cta(settings: &Settings, mut rows: HashMap<String, Tape>) -> anyhow::Result<Vec<Told>> {
    let cta = Cta::new(&settings.cta_admin);
    let requests = look::requests(&cta).await.context("asking CTA for all repack requests")?;
    let requests = requests.context("CTA cannot list its repack requests, so nothing can be compared with them")?;
    let requests: HashMap<String, Repack> = requests
        .iter()
        .filter_map(|raw| Repack::deserialize(raw).ok())
        .map(|repack| (repack.vid.clone(), repack))
        .collect();
    let wanted: std::collections::HashSet<String> = rows.keys().cloned().collect();
    let found = Arc::new(Mutex::new(HashMap::new()));
    let keep = Arc::clone(&found);
    cta.each(&Query::Tapes, move |tape: reply::Tape| {
        if wanted.contains(&tape.vid) {
            keep.lock().expect("nobody panics while inserting").insert(tape.vid.clone(), tape);
        }
        Ok(())
    })
    .await
    .context("asking CTA for all tapes")?;
    let found = found.lock().expect("nobody panics while inserting");
    let mut told: Vec<Told> = rows
        .drain()
        .filter_map(|(vid, row)| {
            let reasons = disagreements(&row, found.get(&vid), requests.get(&vid), settings);
            (!reasons.is_empty()).then_some(Told { vid, reasons })
        })
        .collect();
    told.sort_by(|a, b| a.vid.cmp(&b.vid));
    Ok(told)
}

/// What CTA says of a tape that the row does not expect.
fn disagreements(row: &Tape, tape: Option<&reply::Tape>, request: Option<&Repack>, settings: &Settings) -> Vec<String> {
    let state = row.state();
    let Some(tape) = tape else { return vec![format!("the row says {state}, and CTA has no tape of this VID")] };
    let mut reasons = Vec::new();
    let repacking = tape.state.starts_with("REPACKING");
    let quarantine = &settings.quarantine_pool;
    match (state, request) {
        (State::Started, None) => reasons.push(
            "the row says started, and CTA has no repack request: it counts as repacked if no file is left".to_owned(),
        ),
        (State::Entered | State::Quarantined | State::Reclaimed, Some(request)) => {
            reasons.push(format!("the row says {state}, and CTA has a repack request ({})", request.status));
        }
        _ => {}
    }
    match state {
        State::Started if !repacking => reasons.push(format!("the row says started, and CTA has it as {}", tape.state)),
        State::Entered | State::Quarantined | State::Reclaimed if repacking => {
            reasons.push(format!("the row says {state}, and CTA has it as {}", tape.state));
        }
        _ => {}
    }
    if state == State::Quarantined && tape.tapepool != *quarantine {
        reasons.push(format!("the row says quarantined, and CTA has it in pool {}, not {quarantine}", tape.tapepool));
    }
    if state == State::Reclaimed && (tape.full || tape.occupancy > 0 || tape.last_fseq > 0) {
        reasons.push(format!("the row says reclaimed, and CTA has {} bytes written on it", tape.occupancy));
    }
    reasons
}

fn tell(report: &Report, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let disagreements = report.disagreements.as_deref().unwrap_or_default();
    let good = report.definition.is_empty() && report.odd.is_empty() && disagreements.is_empty();
    let exit = if good { Exit::Done } else { Exit::Failed };
    if json {
        desk.data(&serde_json::to_string(report).context("the report is no JSON")?)?;
        return Ok(exit);
    }
    let table = &report.table;
    if !report.definition.is_empty() {
        for problem in &report.definition {
            desk.remark(&format!("error: table {table}: {}", clean(problem)));
        }
        desk.remark("nothing is changed");
        return Ok(exit);
    }
    let would = if report.dry_run { "would be " } else { "" };
    for step in &report.applied {
        desk.data(&format!("{table}: {would}applied: {step}"))?;
    }
    let counts = |counts: &mut dyn Iterator<Item = (String, u64)>| {
        counts.map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
    };
    let states = counts(
        &mut State::ALL
            .iter()
            .filter_map(|state| report.states.get(state.column()).map(|count| (state.column().to_owned(), *count))),
    );
    let modes = counts(&mut report.modes.iter().map(|(mode, count)| (mode.clone(), *count)));
    desk.data(&format!("{table}: {} rows: {}; modes: {}", report.rows, none(&states), none(&modes)))?;
    let noted = match (report.dry_run, report.to_note) {
        (true, to_note) => format!("{} noted before, {to_note} would be noted", report.noted),
        (false, _) => format!("{} noted", report.noted),
    };
    desk.data(&format!("{table}: tapes under way: {noted}; the table itself is as it was"))?;
    for remark in &report.remarks {
        desk.remark(&format!("warning: {}", clean(remark)));
    }
    for told in &report.odd {
        desk.remark(&format!("error: {}: odd row: {}", clean(&told.vid), clean(&told.reasons.join("; "))));
    }
    for told in disagreements {
        desk.remark(&format!("error: {}: {}", clean(&told.vid), clean(&told.reasons.join("; "))));
    }
    if !report.odd.is_empty() {
        desk.remark("odd rows are left alone until somebody puts them right with psql");
    }
    Ok(exit)
}

fn none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

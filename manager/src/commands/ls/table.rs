//! The table of tapes for people.

use chrono::{DateTime, Utc};
use comfy_table::{Cell, Color};
use common::explain::{Explained, ago};
use common::journey::Mode;
use common::reason::Code;
use common::store::Overview;
use common::tape::Tape;
use common::task::Outcome;

use super::{Listed, Row};
use crate::commands::change::remaining;
use crate::heading::Remark;
use crate::output::{Desk, bytes, cell, clean, coloured};

/// Headings of the columns.
pub fn header(long: bool) -> &'static [&'static str] {
    if long {
        &[
            "VID",
            "STATE",
            "MODE",
            "SINCE",
            "ENTERED",
            "POOL",
            "MEDIA",
            "PRIO",
            "RESPONSIBLE",
            "FILES",
            "BYTES",
            "USAGE",
            "STAGE",
            "ROUND",
            "SLOT",
            "OWNER",
            "WHY",
        ]
    } else {
        &["VID", "STATE", "MODE", "SINCE", "POOL", "PRIO", "WHY"]
    }
}

/// Prints the heading, the table, and the odd rows.
///
/// # Errors
/// When it cannot be written.
pub fn people(
    rows: &[Row<'_>],
    heading: &[Remark],
    listed: &Listed,
    long: bool,
    desk: &mut Desk<'_>,
) -> anyhow::Result<()> {
    for line in heading {
        let text = desk.painted(&line.text, line.urgent.then_some(Color::Yellow));
        desk.data(&text)?;
    }
    let good: Vec<Vec<Cell>> = rows
        .iter()
        .filter_map(|(overview, why)| {
            let tape = overview.row.as_ref().ok()?;
            let why = reason(why, listed);
            Some(if long { wide(tape, overview, why) } else { narrow(tape, overview, why) })
        })
        .collect();
    if good.is_empty() {
        desk.remark(&nothing(listed));
    } else {
        let table = desk.table(header(long), good);
        desk.data(&table)?;
    }
    let odd: Vec<String> = rows
        .iter()
        .filter_map(|(overview, _)| overview.row.as_ref().err())
        .map(|odd| format!("  {}: {}", clean(&odd.tape), clean(&odd.problems.join("; "))))
        .collect();
    if !odd.is_empty() {
        desk.data(&format!("odd rows, left alone until they are put right:\n{}", odd.join("\n")))?;
    }
    Ok(())
}

/// What is said where no tape is listed.
pub fn nothing(listed: &Listed) -> String {
    match listed.finished {
        Some(0) => "no tapes: the table is empty".to_owned(),
        Some(finished) => format!("nothing on its way: {finished} finished; ls --all shows them"),
        None => "no such tapes".to_owned(),
    }
}

/// Why, in one cell; what stands above the table for many tapes is not said of each again.
pub fn reason(why: &Explained, listed: &Listed) -> String {
    let site = &listed.around.site;
    let same = site.site_text.as_deref().is_some_and(|text| !text.is_empty() && why.text.contains(text));
    if why.code == Code::SiteTrouble.name() && site.site_tapes > 1 && same {
        return "the site was in trouble, see above".to_owned();
    }
    why_text(why, site.now)
}

/// The explanation in one cell.
pub fn why_text(why: &Explained, now: DateTime<Utc>) -> String {
    match why.until {
        Some(until) => format!("{} ({})", why.text, remaining(until, now)),
        None => why.text.clone(),
    }
}

/// For how long it has been in its state.
pub fn since(tape: &Tape, now: DateTime<Utc>) -> String {
    tape.stamps.at(tape.state()).map(|at| ago(now - at)).unwrap_or_default()
}

/// The colour of a tape that somebody should look at.
pub fn colour(tape: &Tape, overview: &Overview) -> Option<Color> {
    let outcome = overview.task.as_ref().and_then(|task| task.outcome);
    match (tape.mode, outcome) {
        (Mode::Error, _) | (Mode::Auto, Some(Outcome::Failed)) => Some(Color::Red),
        (Mode::Manual, _) | (Mode::Auto, Some(Outcome::Stalled | Outcome::Retrying)) => Some(Color::Yellow),
        (Mode::Auto, Some(Outcome::Waiting) | None) => None,
    }
}

fn narrow(tape: &Tape, overview: &Overview, why: String) -> Vec<Cell> {
    vec![
        cell(tape.vid.as_str()),
        cell(tape.state().column()),
        coloured(tape.mode.label(), colour(tape, overview)),
        cell(since(tape, overview.now)),
        cell(&tape.tapepool),
        cell(tape.priority.to_string()),
        coloured(why, colour(tape, overview)),
    ]
}

fn wide(tape: &Tape, overview: &Overview, why: String) -> Vec<Cell> {
    let task = overview.task.as_ref();
    let text = |value: Option<String>| cell(value.unwrap_or_else(|| "-".to_owned()));
    vec![
        cell(tape.vid.as_str()),
        cell(tape.state().column()),
        coloured(tape.mode.label(), colour(tape, overview)),
        cell(since(tape, overview.now)),
        cell(crate::output::local(tape.stamps.begun())),
        cell(&tape.tapepool),
        cell(&tape.mediatype),
        cell(tape.priority.to_string()),
        cell(&tape.responsible),
        cell(tape.files.to_string()),
        cell(bytes(tape.bytes)),
        cell(format!("{}%", tape.usage)),
        text(task.and_then(|task| task.stage.clone())),
        text(task.map(|task| task.round.to_string())),
        text(task.and_then(|task| task.slot_since).map(|at| ago(overview.now - at))),
        text(task.and_then(|task| task.owner.clone())),
        coloured(why, colour(tape, overview)),
    ]
}

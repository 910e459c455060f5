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
use crate::output::{Desk, bytes, clean, cut, tinted};

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

/// How much of each tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// All columns.
    pub long: bool,
    /// The whole reason, however long it is.
    pub whole: bool,
}

/// Columns that a cut reason must have; where there are fewer, all is wrapped.
const ROOM: usize = 20;

/// Prints the heading, the table, and the odd rows.
///
/// # Errors
/// When it cannot be written.
pub fn people(
    rows: &[Row<'_>],
    heading: &[Remark],
    listed: &Listed,
    form: Form,
    desk: &mut Desk<'_>,
) -> anyhow::Result<()> {
    for line in heading {
        let text = desk.painted(&line.text, line.urgent.then_some(Color::Yellow));
        desk.data(&text)?;
    }
    let mut good: Vec<(Vec<String>, Option<Color>)> = rows
        .iter()
        .filter_map(|(overview, why)| {
            let tape = overview.row.as_ref().ok()?;
            Some((cells(tape, overview, reason(why, listed), form.long), colour(tape, overview)))
        })
        .collect();
    if let Some(width) = desk.width.filter(|_| !form.long && !form.whole) {
        cut_reasons(&mut good, usize::from(width));
    }
    let good: Vec<Vec<Cell>> = good.into_iter().map(|(cells, colour)| painted(cells, colour)).collect();
    if good.is_empty() {
        desk.remark(&nothing(listed));
    } else {
        let table = desk.table(header(form.long), good);
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

/// Cuts the last cell of each row so that the row fits into a line, where there is room for something to be left of it.
fn cut_reasons(rows: &mut [(Vec<String>, Option<Color>)], width: usize) {
    let last = header(false).len() - 1;
    let widest = |at: usize| {
        let cells = rows.iter().map(|(cells, _)| cells[at].as_str()).chain([header(false)[at]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    // A blank on both sides of each cell.
    let used: usize = (0..last).map(|at| widest(at) + 2).sum();
    let Some(room) = width.checked_sub(used + 2).filter(|room| *room >= ROOM) else { return };
    for (cells, _) in rows {
        if cells[last].chars().count() > room {
            cells[last] = cut(&cells[last], room);
        }
    }
}

/// Cells, clean already, in the colour of the tape: its mode and its reason.
fn painted(cells: Vec<String>, colour: Option<Color>) -> Vec<Cell> {
    let last = cells.len() - 1;
    let cells = cells.into_iter().enumerate();
    let painted = |(at, text)| tinted(Cell::new_owned(text), colour.filter(|_| at == MODE || at == last));
    cells.map(painted).collect()
}

/// Where the mode stands.
const MODE: usize = 2;

/// The cells of a tape, in the order of [`header`].
pub fn cells(tape: &Tape, overview: &Overview, why: String, long: bool) -> Vec<String> {
    let head = [
        tape.vid.as_str().to_owned(),
        tape.state().column().to_owned(),
        tape.mode.label().to_owned(),
        since(tape, overview.now),
    ];
    let others = if long { wide(tape, overview) } else { vec![tape.tapepool.clone(), tape.priority.to_string()] };
    head.into_iter().chain(others).chain([why]).map(|text| clean(&text)).collect()
}

fn wide(tape: &Tape, overview: &Overview) -> Vec<String> {
    let task = overview.task.as_ref();
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    vec![
        crate::output::local(tape.stamps.begun()),
        tape.tapepool.clone(),
        tape.mediatype.clone(),
        tape.priority.to_string(),
        tape.responsible.clone(),
        tape.files.to_string(),
        bytes(tape.bytes),
        format!("{}%", tape.usage),
        text(task.and_then(|task| task.stage.clone())),
        text(task.map(|task| task.round.to_string())),
        text(task.and_then(|task| task.slot_since).map(|at| ago(overview.now - at))),
        text(task.and_then(|task| task.owner.clone())),
    ]
}

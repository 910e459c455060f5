//! `ls --watch`: the list again and again, in place, until somebody has seen enough.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::Color::{Red, Yellow};
use common::store::Store;

use super::table::{cells, colour, header, nothing, reason};
use super::{Listed, Row};
use crate::cli::Ls;
use crate::commands::told;
use crate::output::{Desk, Exit, clean, counted};
use crate::watch::{Line, Size, View, watch};

/// Watches until it is told to end.
///
/// # Errors
/// When the terminal cannot be written to. A database that cannot be reached is said on the screen, and asked again.
pub async fn run(store: &Store, ls: &Ls, every: Duration, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    if json || desk.width.is_none() {
        desk.remark("error: --watch is for people at a terminal; for programs there is ls --jsonl");
        return Ok(Exit::Misuse);
    }
    watch(&Tapes { store, ls }, every, desk).await?;
    Ok(Exit::Done)
}

/// The tapes that are meant.
struct Tapes<'a> {
    store: &'a Store,
    ls: &'a Ls,
}

impl View for Tapes<'_> {
    type Seen = Listed;

    fn name(&self) -> String {
        "repack automation".to_owned()
    }

    async fn look(&self) -> anyhow::Result<Listed> {
        Listed::look(self.store, self.ls).await.map_err(told)
    }

    fn lines(&self, listed: &Listed, room: Size) -> Vec<Line> {
        let heading = listed.around.heading(self.store.settings());
        let mut lines: Vec<Line> = heading.into_iter().map(|line| (line.text, line.urgent.then_some(Yellow))).collect();
        let (rows, left) = listed.rows(self.ls);
        if rows.is_empty() {
            lines.push((nothing(listed), None));
            return lines;
        }
        // One line for the head of the table, one for what does not fit.
        let free = room.height.saturating_sub(lines.len() + 2).max(1);
        let all_fit = left == 0 && rows.len() <= free + 1;
        let fits = if all_fit { rows.len() } else { rows.len().min(free) };
        lines.extend(table(&rows[..fits], listed, self.ls.long));
        let hidden = rows.len() - fits + left;
        if hidden > 0 {
            // With a limit the database was asked for one more, whatever there is.
            let at_least = if left > 0 { "at least " } else { "" };
            lines.push((format!("... and {at_least}{}", counted(hidden, "more tape")), None));
        }
        lines
    }

    fn is_over(&self, _: &Listed) -> bool {
        false
    }
}

/// A line for each tape; what is wider than the terminal is cut.
fn table(rows: &[Row<'_>], listed: &Listed, long: bool) -> Vec<Line> {
    let header = header(long);
    let mut lines = vec![(header.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), None)];
    for (overview, why) in rows {
        lines.push(match &overview.row {
            Ok(tape) => (cells(tape, overview, reason(why, listed), long), colour(tape, overview)),
            Err(odd) => {
                let mut cells = vec![clean(&odd.tape), "odd row".to_owned()];
                cells.resize(header.len() - 1, "-".to_owned());
                cells.push(clean(&odd.problems.join("; ")));
                (cells, Some(Red))
            }
        });
    }
    let last = header.len() - 1;
    let widths: Vec<usize> =
        (0..last).map(|at| lines.iter().map(|(cells, _)| cells[at].chars().count()).max().unwrap_or(0)).collect();
    lines
        .into_iter()
        .map(|(cells, colour)| {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                // Writing to a String cannot fail.
                let _ = write!(line, "{cell:<width$}  ");
            }
            line.push_str(&cells[last]);
            (line, colour)
        })
        .collect()
}

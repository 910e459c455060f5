//! `show --watch`: a tape again and again, in place, until somebody has seen enough or its journey is over.

use std::time::Duration;

use comfy_table::Color::Yellow;
use common::journey::State;
use common::store::Store;
use common::tape::Vid;

use super::{Away, Looked, notes, people};
use crate::cli::Show;
use crate::commands::told;
use crate::output::{Desk, Exit};
use crate::watch::{Line, Size, View, watch};

/// Watches a tape until its journey is over, and leaves the last picture; or until it is told to end.
///
/// # Errors
/// When the terminal cannot be written to. A database that cannot be reached is said on the screen, and asked again; so are CTA
/// and the broker.
pub async fn run(
    store: &Store,
    show: &Show,
    every: Duration,
    verbose: bool,
    json: bool,
    desk: &mut Desk<'_>,
) -> anyhow::Result<Exit> {
    if json || desk.width.is_none() {
        desk.remark("error: --watch is for people at a terminal; for programs there is show --json");
        return Ok(Exit::Misuse);
    }
    let [vid] = &show.vids[..] else {
        desk.remark("error: --watch shows one tape; for several there is ls --watch");
        return Ok(Exit::Misuse);
    };
    let Some(last) = watch(&One { store, show, vid, verbose }, every, desk).await? else { return Ok(Exit::Done) };
    notes(&last, store, desk);
    people::print(&last, verbose, desk)?;
    desk.remark(match last.known.overview {
        Some(_) => "its journey is over: there is nothing more to watch",
        None => "error: it is not in the table: there is nothing to watch",
    });
    Ok(last.exit())
}

/// One tape.
struct One<'a> {
    store: &'a Store,
    show: &'a Show,
    vid: &'a Vid,
    verbose: bool,
}

impl View for One<'_> {
    type Seen = Looked;

    fn name(&self) -> String {
        self.vid.to_string()
    }

    async fn look(&self) -> anyhow::Result<Looked> {
        Looked::look(self.store, self.show, self.vid, &mut Away::default()).await.map_err(told)
    }

    fn lines(&self, looked: &Looked, room: Size) -> Vec<Line> {
        let heading = looked.known.around.heading(self.store.settings());
        let urgent = heading.into_iter().filter(|line| line.urgent);
        let mut lines: Vec<Line> = urgent.map(|line| (format!("note: {}", line.text), Some(Yellow))).collect();
        let sections = people::sections(looked, self.verbose, Some(room.width));
        let left = room.height.saturating_sub(lines.len());
        lines.extend(people::fitted(sections, left).into_iter().map(|line| (line, None)));
        lines
    }

    /// A tape that stopped, or that somebody keeps, goes on as soon as somebody wants it to.
    fn is_over(&self, looked: &Looked) -> bool {
        let row = looked.known.overview.as_ref().map(|overview| &overview.row);
        row.is_none_or(|row| row.as_ref().is_ok_and(|tape| tape.state() == State::Finished))
    }
}

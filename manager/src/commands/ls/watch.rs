//! `ls --watch`: the list again and again, in place, until somebody has seen enough.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::Local;
use common::store::Store;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::table::{colour, header, nothing, reason, since};
use super::{Listed, Row};
use crate::cli::Ls;
use crate::commands::told;
use crate::output::{Desk, Exit, clean};

/// Another screen, so that what was on this one comes back; no cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// From here on nothing is shown before [`END`] comes, on terminals that know it.
const BEGIN: &str = "\x1b[?2026h\x1b[H";
const END: &str = "\x1b[J\x1b[?2026l";

/// What a terminal without a size is taken for.
const USUAL: (u16, u16) = (80, 24);

/// Ways to end.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Ends {
    fn new() -> std::io::Result<Ends> {
        Ok(Ends {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Watches until it is told to end.
///
/// # Errors
/// When the terminal cannot be written to. A database that cannot be reached is said on the screen, and asked again.
pub async fn run(store: &Store, ls: &Ls, every: Duration, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    if json || desk.width.is_none() {
        desk.remark("error: --watch is for people at a terminal; for programs there is ls --jsonl");
        return Ok(Exit::Misuse);
    }
    let mut ends = Ends::new().context("listening for signals")?;
    let mut resized = signal(SignalKind::window_change()).context("listening for signals")?;
    desk.text(ENTER)?;
    let watched = watch(store, ls, every, desk, &mut ends, &mut resized).await;
    desk.text(LEAVE)?;
    watched?;
    Ok(Exit::Done)
}

async fn watch(
    store: &Store,
    ls: &Ls,
    every: Duration,
    desk: &mut Desk<'_>,
    ends: &mut Ends,
    resized: &mut Signal,
) -> anyhow::Result<()> {
    let mut screen = Screen { listed: None, trouble: None, every };
    screen.draw(store, ls, desk)?;
    loop {
        let mut look = std::pin::pin!(Listed::look(store, ls));
        let looked = loop {
            tokio::select! {
                looked = &mut look => break looked,
                _ = resized.recv() => screen.draw(store, ls, desk)?,
                () = ends.any() => return Ok(()),
            }
        };
        match looked {
            Ok(listed) => {
                screen.listed = Some((listed, Local::now().format("%H:%M:%S").to_string()));
                screen.trouble = None;
            }
            Err(error) => {
                let since = screen.trouble.take().map_or_else(Instant::now, |(_, since)| since);
                screen.trouble = Some((format!("{:#}", told(error)), since));
            }
        }
        screen.draw(store, ls, desk)?;
        let mut pause = std::pin::pin!(tokio::time::sleep(every));
        loop {
            tokio::select! {
                () = &mut pause => break,
                _ = resized.recv() => screen.draw(store, ls, desk)?,
                () = ends.any() => return Ok(()),
            }
        }
    }
}

/// What is on the screen.
struct Screen {
    /// The last list, and when it was made.
    listed: Option<(Listed, String)>,
    /// Why there is no newer one, and since when.
    trouble: Option<(String, Instant)>,
    every: Duration,
}

impl Screen {
    fn draw(&self, store: &Store, ls: &Ls, desk: &mut Desk<'_>) -> anyhow::Result<()> {
        let (width, height) =
            crossterm::terminal::size().ok().filter(|(width, height)| *width > 0 && *height > 0).unwrap_or(USUAL);
        let lines = self.lines(store, ls, usize::from(height));
        let frame = frame(&lines, usize::from(width), usize::from(height), desk);
        desk.text(&frame)
    }

    /// Lines with their colours, not yet cut.
    fn lines(&self, store: &Store, ls: &Ls, height: usize) -> Vec<(String, Option<comfy_table::Color>)> {
        use comfy_table::Color::{Red, Yellow};
        let mut lines = vec![(self.title(), None)];
        if let Some((trouble, since)) = &self.trouble {
            let span = chrono::TimeDelta::from_std(since.elapsed()).unwrap_or_default();
            let span = common::explain::ago(span);
            lines.push((format!("the database cannot be asked for {span}, trying again: {trouble}"), Some(Red)));
        }
        let Some((listed, _)) = &self.listed else { return lines };
        let heading = listed.around.heading(store.settings());
        lines.extend(heading.into_iter().map(|line| (line.text, line.urgent.then_some(Yellow))));
        let (rows, left) = listed.rows(ls);
        if rows.is_empty() {
            lines.push((nothing(listed), None));
            return lines;
        }
        // One line for the head of the table, one for what does not fit.
        let room = height.saturating_sub(lines.len() + 2).max(1);
        let fits = if rows.len() <= room + 1 { rows.len() } else { room };
        lines.extend(table(&rows[..fits], listed));
        let hidden = rows.len() - fits;
        let more = if left > 0 { "more than " } else { "" };
        if hidden > 0 || left > 0 {
            lines.push((format!("... and {more}{hidden} more tapes"), None));
        }
        lines
    }

    fn title(&self) -> String {
        let every = self.every.as_secs_f64();
        match &self.listed {
            Some((_, at)) => format!("repack automation at {at}, every {every} s; Ctrl-C ends"),
            None => "asking the database; Ctrl-C ends".to_owned(),
        }
    }
}

/// A line for each tape: a narrow table in which only the last column may be cut.
fn table(rows: &[Row<'_>], listed: &Listed) -> Vec<(String, Option<comfy_table::Color>)> {
    let now = listed.around.site.now;
    let mut lines = vec![(header(false).iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), None)];
    for (overview, why) in rows {
        lines.push(match &overview.row {
            Ok(tape) => {
                let cells = [
                    tape.vid.as_str().to_owned(),
                    tape.state().column().to_owned(),
                    tape.mode.label().to_owned(),
                    since(tape, now),
                    clean(&tape.tapepool),
                    tape.priority.to_string(),
                    clean(&reason(why, listed)),
                ];
                (cells.into(), colour(tape, overview))
            }
            Err(odd) => {
                let mut cells = vec![clean(&odd.tape), "odd row".to_owned()];
                cells.resize(header(false).len() - 1, "-".to_owned());
                cells.push(clean(&odd.problems.join("; ")));
                (cells, Some(comfy_table::Color::Red))
            }
        });
    }
    let last = header(false).len() - 1;
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

/// The whole screen as one piece of text: every line is overwritten in place, so nothing flickers.
fn frame(lines: &[(String, Option<comfy_table::Color>)], width: usize, height: usize, desk: &Desk<'_>) -> String {
    let mut frame = BEGIN.to_owned();
    for (at, (line, colour)) in lines.iter().take(height).enumerate() {
        if at > 0 {
            frame.push_str("\r\n");
        }
        let fitting: String = line.chars().take(width).collect();
        frame.push_str(&desk.painted(&fitting, *colour));
        // Not behind a full line: there the cursor still stands on its last character.
        if line.chars().count() < width {
            frame.push_str("\x1b[K");
        }
    }
    frame.push_str(if lines.len() < height { "\r\n" } else { "" });
    frame.push_str(if lines.len() < height { END } else { "\x1b[?2026l" });
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk<'a>(out: &'a mut Vec<u8>, err: &'a mut Vec<u8>) -> Desk<'a> {
        Desk { out, err, ask: None, width: Some(80), colour: false }
    }

    #[test]
    fn a_frame_fits_the_terminal_and_clears_what_was_there() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let desk = desk(&mut out, &mut err);
        let lines: Vec<_> = ["short", &"x".repeat(50)].map(|line| (line.to_owned(), None)).into();
        let frame = frame(&lines, 20, 5, &desk);
        assert!(frame.starts_with(BEGIN) && frame.ends_with(END), "{frame:?}");
        assert!(
            frame.contains("short\x1b[K\r\n") && frame.contains(&"x".repeat(20)) && !frame.contains(&"x".repeat(21))
        );
        let full = super::frame(&lines, 20, 2, &desk);
        assert_eq!(full.matches("\r\n").count(), 1, "a full screen must not scroll: {full:?}");
        let one = super::frame(&lines, 20, 1, &desk);
        assert!(!one.contains('x'));
    }

    #[test]
    fn colours_are_only_around_what_fits() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut desk = desk(&mut out, &mut err);
        desk.colour = true;
        let frame = frame(&[("y".repeat(9), Some(comfy_table::Color::Red))], 4, 3, &desk);
        assert!(frame.contains("\x1b[31myyyy\x1b[0m"), "{frame:?}");
    }
}

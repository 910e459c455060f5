//! A view that is drawn again and again, in place, until somebody has seen enough or nothing can change any more.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{Local, TimeDelta};
use comfy_table::Color;
use common::explain::ago;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::{Desk, cut};

/// Another screen, so that what was on this one comes back; no cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// From here on nothing is shown before [`END`] comes, on terminals that know it.
const BEGIN: &str = "\x1b[?2026h\x1b[H";
const END: &str = "\x1b[J\x1b[?2026l";

/// What a terminal without a size is taken for.
const USUAL: (u16, u16) = (80, 24);

/// An answer that takes longer than this is said to be awaited.
const SLOW: Duration = Duration::from_secs(3);

/// A line and its colour, not yet cut.
pub type Line = (String, Option<Color>);

/// Columns and lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Lines.
    pub height: usize,
}

/// What is watched.
pub trait View {
    /// What a look shows.
    type Seen;

    /// What it is of, for the first line.
    fn name(&self) -> String;

    /// Looks at it. What cannot be asked is said on the screen, and asked again.
    fn look(&self) -> impl Future<Output = anyhow::Result<Self::Seen>>;

    /// Draws what was seen into so much room; lines that are too many or too long are cut.
    fn lines(&self, seen: &Self::Seen, room: Size) -> Vec<Line>;

    /// Nothing of what was seen changes any more.
    fn is_over(&self, seen: &Self::Seen) -> bool;
}

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

/// Watches until it is over, and gives what was seen last; or until it is told to end.
///
/// # Errors
/// When the terminal cannot be written to.
pub async fn watch<V: View>(view: &V, every: Duration, desk: &mut Desk<'_>) -> anyhow::Result<Option<V::Seen>> {
    let mut ends = Ends::new().context("listening for signals")?;
    let mut resized = signal(SignalKind::window_change()).context("listening for signals")?;
    desk.text(ENTER)?;
    let watched = until_the_end(view, every, desk, &mut ends, &mut resized).await;
    desk.text(LEAVE)?;
    watched
}

async fn until_the_end<V: View>(
    view: &V,
    every: Duration,
    desk: &mut Desk<'_>,
    ends: &mut Ends,
    resized: &mut Signal,
) -> anyhow::Result<Option<V::Seen>> {
    let mut screen = Screen { view, seen: None, trouble: None, asking: None, every };
    screen.draw(desk)?;
    loop {
        screen.asking = Some(Instant::now());
        let mut look = std::pin::pin!(view.look());
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let looked = loop {
            tokio::select! {
                looked = &mut look => break looked,
                _ = resized.recv() => screen.draw(desk)?,
                _ = second.tick() => if screen.awaits().is_some() { screen.draw(desk)? },
                () = ends.any() => return Ok(None),
            }
        };
        screen.asking = None;
        match looked {
            Ok(seen) if view.is_over(&seen) => return Ok(Some(seen)),
            Ok(seen) => {
                screen.seen = Some((seen, Local::now().format("%H:%M:%S").to_string()));
                screen.trouble = None;
            }
            Err(error) => {
                let since = screen.trouble.take().map_or_else(Instant::now, |(_, since)| since);
                screen.trouble = Some((format!("{error:#}"), since));
            }
        }
        screen.draw(desk)?;
        let mut pause = std::pin::pin!(tokio::time::sleep(every));
        loop {
            tokio::select! {
                () = &mut pause => break,
                _ = resized.recv() => screen.draw(desk)?,
                () = ends.any() => return Ok(None),
            }
        }
    }
}

/// What is on the screen.
struct Screen<'a, V: View> {
    view: &'a V,
    /// What was seen last, and when.
    seen: Option<(V::Seen, String)>,
    /// Why there is nothing newer, and since when.
    trouble: Option<(String, Instant)>,
    /// Since when an answer is awaited.
    asking: Option<Instant>,
    every: Duration,
}

impl<V: View> Screen<'_, V> {
    fn draw(&self, desk: &mut Desk<'_>) -> anyhow::Result<()> {
        let (width, height) =
            crossterm::terminal::size().ok().filter(|(width, height)| *width > 0 && *height > 0).unwrap_or(USUAL);
        let size = Size { width: usize::from(width), height: usize::from(height) };
        let frame = frame(&self.lines(size), size, desk);
        desk.text(&frame)
    }

    fn lines(&self, size: Size) -> Vec<Line> {
        let mut lines = vec![(self.title(), None)];
        if let Some((trouble, since)) = &self.trouble {
            let text = format!("the database cannot be asked for {}, trying again: {trouble}", span(since.elapsed()));
            lines.push((text, Some(Color::Red)));
        }
        if let Some((seen, _)) = &self.seen {
            let room = Size { height: size.height.saturating_sub(lines.len()), ..size };
            lines.extend(self.view.lines(seen, room));
        }
        lines
    }

    /// For how long an answer is awaited, if it is worth a word.
    fn awaits(&self) -> Option<String> {
        let elapsed = self.asking?.elapsed();
        (elapsed >= SLOW).then(|| span(elapsed))
    }

    fn title(&self) -> String {
        let asks = self.awaits().map(|span| format!("asking for {span}"));
        match &self.seen {
            Some((_, at)) => {
                let every = asks.unwrap_or_else(|| format!("every {} s", self.every.as_secs_f64()));
                format!("{} at {at}, {every}; Ctrl-C ends", self.view.name())
            }
            None => format!("{}; Ctrl-C ends", asks.unwrap_or_else(|| "asking the database".to_owned())),
        }
    }
}

fn span(elapsed: Duration) -> String {
    ago(TimeDelta::from_std(elapsed).unwrap_or_default())
}

/// The whole screen as one piece of text: every line is overwritten in place, so nothing flickers.
fn frame(lines: &[Line], size: Size, desk: &Desk<'_>) -> String {
    let mut frame = BEGIN.to_owned();
    for (at, (line, colour)) in lines.iter().take(size.height).enumerate() {
        if at > 0 {
            frame.push_str("\r\n");
        }
        let fitting = cut(line, size.width);
        frame.push_str(&desk.painted(&fitting, *colour));
        // Not behind a full line: there the cursor still stands on its last character.
        if fitting.chars().count() < size.width {
            frame.push_str("\x1b[K");
        }
    }
    let is_full = lines.len() >= size.height;
    frame.push_str(if is_full { "" } else { "\r\n" });
    frame.push_str(if is_full { "\x1b[?2026l" } else { END });
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
        let frame = |height| {
            let lines: Vec<_> = ["short", &"x".repeat(50)].map(|line| (line.to_owned(), None)).into();
            frame(&lines, Size { width: 20, height }, &desk)
        };
        let text = frame(5);
        assert!(text.starts_with(BEGIN) && text.ends_with(END), "{text:?}");
        assert!(text.contains("short\x1b[K\r\n") && text.contains(&format!("{}…", "x".repeat(19))));
        let full = frame(2);
        assert_eq!(full.matches("\r\n").count(), 1, "a full screen must not scroll: {full:?}");
        assert!(!frame(1).contains('x'));
    }

    #[test]
    fn colours_are_only_around_what_fits() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut desk = desk(&mut out, &mut err);
        desk.colour = true;
        let frame = frame(&[("y".repeat(9), Some(Color::Red))], Size { width: 4, height: 3 }, &desk);
        assert!(frame.contains("\x1b[31myyy…\x1b[0m"), "{frame:?}");
    }
}

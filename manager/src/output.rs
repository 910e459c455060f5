//! Text for people and for machines: data to stdout, remarks to stderr.

use std::io::Write;
use std::process::ExitCode;

use chrono::{DateTime, Local, SecondsFormat, TimeDelta, Utc};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

/// The exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done, or already so.
    Done,
    /// Failed, or something was refused or not found.
    Failed,
    /// Misuse, or bad configuration.
    Misuse,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Where a command writes, and whom it may ask.
pub struct Desk<'a> {
    /// Data.
    pub out: &'a mut dyn Write,
    /// Remarks.
    pub err: &'a mut dyn Write,
    /// Asks a question that is answered with yes or no; none: nobody is there to answer.
    pub ask: Option<&'a mut dyn FnMut(&str) -> bool>,
    /// Columns of the terminal; none: not a terminal, nothing is wrapped.
    pub width: Option<u16>,
    /// Colours are wanted.
    pub colour: bool,
}

impl Desk<'_> {
    /// Writes data, with a line end.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn data(&mut self, text: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    /// Writes data as it is, at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn text(&mut self, text: &str) -> anyhow::Result<()> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// The text in a colour, if there are colours.
    pub fn painted(&self, text: &str, colour: Option<Color>) -> String {
        let code = match colour {
            Some(Color::Red) => 31,
            Some(Color::Green) => 32,
            Some(Color::Yellow) => 33,
            _ => return text.to_owned(),
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Writes a remark, with a line end. Nobody can be told when that fails.
    pub fn remark(&mut self, text: &str) {
        writeln!(self.err, "{text}").and_then(|()| self.err.flush()).ok();
    }

    /// A table that fits the terminal, as text.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<Cell>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header.iter().map(Cell::new));
        table.add_rows(rows);
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        match self.width {
            Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

/// Asks on the terminal; only `y` and `yes` are a yes.
pub fn ask_on_terminal(question: &str) -> bool {
    let mut err = std::io::stderr();
    write!(err, "{question} [y/N] ").and_then(|()| err.flush()).ok();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

/// The reader of our output has gone, as `head` does: no failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A cell; text from the database cannot steer the terminal.
pub fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(clean(text.as_ref()))
}

/// A cell in a colour, if there are colours.
pub fn coloured(text: impl AsRef<str>, colour: Option<Color>) -> Cell {
    tinted(cell(text), colour)
}

/// The cell in a colour, if there are colours.
pub fn tinted(cell: Cell, colour: Option<Color>) -> Cell {
    match colour {
        Some(colour) => cell.fg(colour),
        None => cell,
    }
}

/// The text with control characters escaped.
pub fn clean(text: &str) -> String {
    // Nearly every text has none.
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// The text in lines of at most so many characters, broken at blanks where there are any.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let mut length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        let mut word: String = word.to_owned();
        while length > width {
            let head: String = word.chars().take(width).collect();
            word = word.chars().skip(width).collect();
            length -= width;
            if let Some(line) = lines.last_mut() {
                line.push_str(&head);
            }
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(&word);
            used += length;
        }
    }
    lines
}

/// The text in at most so many characters; the last says that there are more.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    let mark = if width == 0 { "" } else { "…" };
    format!("{}{mark}", kept.trim_end())
}

/// A time for machines.
pub fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A time for people, in their zone.
pub fn local(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Bytes as `cta-admin` prints them: decimal units.
pub fn bytes(count: i64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if count.unsigned_abs() < 1000 {
        return count.to_string();
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal place is shown")]
    let mut value = count as f64;
    let mut unit = "";
    for next in UNITS {
        if value.abs() < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.1}{unit}")
}

/// So many of them: `1 tape`, `2 tapes`.
pub fn counted(count: impl std::fmt::Display, what: &str) -> String {
    let count = count.to_string();
    let plural = if count == "1" { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A duration as people type it: `1d2h`, `90m`, `45s`.
///
/// # Errors
/// What was expected.
pub fn duration(text: &str) -> Result<TimeDelta, String> {
    let expected = || format!("'{}' is not a duration: expected something like 12h, 1d2h or 90m", clean(text));
    let mut total = TimeDelta::zero();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: i64 = rest[..digits].parse().map_err(|_| expected())?;
        let mut chars = rest[digits..].chars();
        let seconds = match chars.next() {
            Some('d') => 86_400,
            Some('h') => 3600,
            Some('m') => 60,
            Some('s') => 1,
            _ => return Err(expected()),
        };
        let part = count.checked_mul(seconds).and_then(TimeDelta::try_seconds).ok_or_else(expected)?;
        total = total.checked_add(&part).ok_or_else(expected)?;
        rest = chars.as_str();
    }
    if total < TimeDelta::seconds(1) || total > TimeDelta::days(36_500) {
        return Err(expected());
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use common::explain::ago;

    use super::*;

    #[test]
    fn durations_are_shown_in_their_two_largest_units() {
        for (seconds, shown) in [
            (0, "0s"),
            (-5, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m1s"),
            (3600, "1h"),
            (93_600, "1d2h"),
            (86_400 + 59, "1d"),
        ] {
            assert_eq!(ago(TimeDelta::seconds(seconds)), shown);
        }
    }

    #[test]
    fn durations_are_read_as_they_are_shown() {
        for text in ["1s", "45s", "1d2h", "3m20s", "12h", "31d"] {
            assert_eq!(ago(duration(text).unwrap()), text);
        }
        for bad in ["", "0s", "1", "h", "1w", "-1h", "1h-2m", "99999999999999d", "40000d", "1é"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bytes_are_shown_in_decimal_units() {
        for (count, shown) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0K"),
            (999_949, "999.9K"),
            (999_999, "1.0M"),
            (18_000_000_000_000, "18.0T"),
            (i64::MAX, "9.2E"),
        ] {
            assert_eq!(bytes(count), shown);
        }
    }

    #[test]
    fn lines_are_broken_at_blanks_and_nothing_is_lost() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrapped("", 4), [""]);
        let text = "why the tape waits, until when, and what happens next: then end";
        for width in 20..70 {
            let lines = wrapped(text, width);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width} {lines:?}");
            assert_eq!(lines.join(" "), text);
        }
    }

    #[test]
    fn one_of_them_is_no_plural() {
        assert_eq!([0, 1, 2, 11].map(|count| counted(count, "tape")), ["0 tapes", "1 tape", "2 tapes", "11 tapes"]);
    }

    #[test]
    fn text_from_the_database_cannot_steer_the_terminal() {
        let shown = clean("raw\x1b]0;owned\x07\n");
        assert!(!shown.contains(char::is_control), "{shown}");
        assert!(shown.starts_with("raw"));
    }

    #[test]
    fn colours_come_only_when_they_are_wanted_and_the_table_fits_the_terminal() {
        let rows =
            || vec![vec![coloured("error", Some(Color::Red)), cell("a long text that does not fit into a line")]];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut desk = Desk { out: &mut out, err: &mut err, ask: None, width: None, colour: false };
        let plain = desk.table(&["mode", "why"], rows());
        assert!(!plain.contains('\x1b'), "{plain:?}");
        assert_eq!(plain.lines().count(), 2);
        desk.width = Some(30);
        let narrow = desk.table(&["mode", "why"], rows());
        assert!(narrow.lines().count() > 2 && narrow.lines().all(|line| line.chars().count() <= 30), "{narrow}");
        desk.colour = true;
        assert!(desk.table(&["mode", "why"], rows()).contains('\x1b'));
    }
}

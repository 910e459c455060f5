//! Items of the history on their way out: as JSON, or for people in lines that fit the terminal.

use std::io::{BufWriter, Write};

use serde_json::Value;

use crate::output::{clean, wrapped};

/// How items are written.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// One JSON array.
    Array,
    /// A JSON object a line.
    Lines,
    /// In lines of at most so many columns; none: a line for each.
    People(Option<usize>),
}

/// Items on their way out.
pub struct Page<W: Write> {
    out: BufWriter<W>,
    form: Form,
    count: u64,
}

impl<W: Write> Page<W> {
    /// An empty one.
    pub fn new(out: W, form: Form) -> Page<W> {
        Page { out: BufWriter::with_capacity(64 << 10, out), form, count: 0 }
    }

    /// Headings of the columns: of those before the particulars, and of these.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn head(&mut self, before: &str, last: &str) -> std::io::Result<()> {
        match self.form {
            Form::Array => self.out.write_all(b"["),
            Form::Lines => Ok(()),
            Form::People(width) if is_wide(width, before.len()) => writeln!(self.out, "{before}{last}"),
            Form::People(_) => {
                let columns: Vec<&str> = before.split_whitespace().take(2).collect();
                writeln!(self.out, "{:<21}{:<9}WHAT", columns[0], columns[1])
            }
        }
    }

    /// One item.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn item(&mut self, object: impl FnOnce() -> Value, item: impl FnOnce() -> Item) -> anyhow::Result<()> {
        let first = self.count == 0;
        self.count += 1;
        match self.form {
            Form::Array => write!(self.out, "{}{}", if first { "" } else { ",\n" }, object())?,
            Form::Lines => writeln!(self.out, "{}", object())?,
            Form::People(width) => {
                for line in item().lines(width) {
                    writeln!(self.out, "{line}")?;
                }
            }
        }
        Ok(())
    }

    /// The end.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(mut self) -> std::io::Result<()> {
        if let Form::Array = self.form {
            self.out.write_all(b"]\n")?;
        }
        self.out.flush()
    }
}

/// Columns that the particulars need to stand in a column of their own.
const ROOM: usize = 40;

/// There is room for the particulars behind the other columns.
fn is_wide(width: Option<usize>, before: usize) -> bool {
    width.is_none_or(|width| width >= before + ROOM)
}

/// What happened, for people.
pub struct Item {
    /// When.
    pub when: String,
    /// Of which tape.
    pub tape: String,
    /// The other columns before the particulars, with the blanks between them.
    pub columns: String,
    /// The same in a few words.
    pub short: String,
    /// The particulars.
    pub text: String,
    /// What of the columns the few words leave out.
    pub rest: String,
}

impl Item {
    /// One line where the width is not known; else as many as it takes, the others indented.
    fn lines(&self, width: Option<usize>) -> Vec<String> {
        let time = format!("{}  {:<7}  ", self.when, clean(&self.tape));
        let columns = clean(&format!("{time}{}", self.columns));
        let text = clean(&self.text);
        let Some(width) = width else { return vec![format!("{columns}{text}").trim_end().to_owned()] };
        let indent = columns.chars().count();
        if is_wide(Some(width), indent) {
            return hanging(&columns, &text, width - indent);
        }
        let colon = if text.is_empty() { "" } else { ": " };
        let told = clean(&format!("{}{colon}{text}{}", self.short, self.rest));
        let indent = time.chars().count();
        match width.checked_sub(indent).filter(|left| *left >= ROOM / 2) {
            Some(left) => hanging(&time, &told, left),
            // Too narrow for anything beside the time.
            None => {
                let left = width.saturating_sub(2).max(1);
                let told = wrapped(&told, left).into_iter().map(|line| format!("  {line}"));
                wrapped(time.trim_end(), width.max(1)).into_iter().chain(told).collect()
            }
        }
    }
}

/// The text behind what begins the line, its other lines below its first.
fn hanging(begin: &str, text: &str, width: usize) -> Vec<String> {
    let indent = begin.chars().count();
    let parts = wrapped(text, width).into_iter().enumerate();
    let line = |at: usize, part: &str| format!("{:<indent$}{part}", if at == 0 { begin } else { "" });
    parts.map(|(at, part)| line(at, &part).trim_end().to_owned()).collect()
}

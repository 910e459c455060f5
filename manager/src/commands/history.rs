//! `history`: what happened, of which tape, by whom. Streamed, so that a history of any length can be read.

use std::collections::HashSet;
use std::io::{BufWriter, Write as _};

use chrono::{DateTime, Utc};
use clap::Args;
use common::stages::STAGES;
use common::store::{EventRow, JourneyRow, Records, Store, StoreError};
use common::tape::Vid;
use serde_json::{Value, json};

use super::told;
use crate::moment::{Moment, moment};
use crate::output::{Desk, Exit, clean, iso, local};

/// What to know of the past.
#[derive(Debug, Args)]
pub struct History {
    /// Only of these tapes
    #[arg(value_name = "VID", value_parser = crate::cli::vid)]
    pub vids: Vec<Vid>,
    /// Only what these did: login@host, or the login alone
    #[arg(short, long, value_delimiter = ',', value_name = "WHO")]
    pub actor: Vec<String>,
    /// Only of these stages
    #[arg(short, long, value_delimiter = ',', value_name = "STAGE", value_parser = STAGES.map(|stage| stage.name))]
    pub stage: Vec<String>,
    /// Only of these kinds, such as intent, answer, done, stopped
    #[arg(short, long, value_delimiter = ',', value_name = "KIND")]
    pub kind: Vec<String>,
    /// Not before: an age such as 2d, a local time such as '2026-11-23 10:00', or 2026-11-23T10:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub since: Option<Moment>,
    /// Before: as --since
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub until: Option<Moment>,
    /// The newest so many; 0: all
    #[arg(short, long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub limit: i64,
    /// Instead of events: the rows of journeys that are over
    #[arg(long, conflicts_with_all = ["actor", "stage", "kind"])]
    pub journeys: bool,
    /// One JSON object a line
    #[arg(long, conflicts_with = "json")]
    pub jsonl: bool,
}

/// Shows the history, oldest first.
///
/// # Errors
/// What the database says.
pub async fn run(store: &Store, options: &History, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let now = if options.since.is_some() || options.until.is_some() {
        store.now().await.map_err(told)?
    } else {
        DateTime::<Utc>::UNIX_EPOCH
    };
    let records = Records {
        tapes: options.vids.clone(),
        actors: options.actor.clone(),
        stages: options.stage.clone(),
        kinds: options.kind.clone(),
        since: options.since.map(|since| since.before(now)),
        until: options.until.map(|until| until.before(now)),
        newest: (options.limit > 0).then_some(options.limit),
    };
    let form = match (json, options.jsonl) {
        (true, _) => Form::Array,
        (_, true) => Form::Lines,
        _ => Form::People(desk.width.map(usize::from)),
    };
    let mut seen = HashSet::new();
    let count = {
        let mut page = Page { out: BufWriter::with_capacity(64 << 10, &mut *desk.out), form, count: 0 };
        let count = if options.journeys {
            page.head("MOVED                TAPE     WHY             THE ROW AS IT WAS")?;
            let each = |row: JourneyRow| {
                note(&mut seen, options, &row.tape);
                page.item(|| journey(&row), || journey_line(&row))
            };
            store.each_journey(&records, each).await
        } else {
            page.head("WHEN                 TAPE     JOURNEY     STAGE       WHAT              WHO                       PARTICULARS")?;
            let each = |row: EventRow| {
                note(&mut seen, options, &row.tape);
                page.item(|| event(&row), || event_line(&row))
            };
            store.each_event(&records, each).await
        };
        let count = count.map_err(broken)?;
        page.end()?;
        count
    };
    if records.newest.and_then(|newest| u64::try_from(newest).ok()) == Some(count) {
        desk.remark(&format!("these are the newest {count}; more: --limit N, or 0 for all"));
    }
    let what = if options.journeys { "journey that is over" } else { "such event" };
    let missing: Vec<&Vid> = options.vids.iter().filter(|vid| !seen.contains(vid.as_str())).collect();
    for vid in &missing {
        desk.remark(&format!("{vid}: the history has no {what} of it"));
    }
    if count == 0 && missing.is_empty() {
        desk.remark(&format!("the history has no {what}"));
    }
    Ok(if missing.is_empty() { Exit::Done } else { Exit::Failed })
}

/// Whose history was seen: of the tapes that were named only, so that this stays small.
fn note(seen: &mut HashSet<String>, options: &History, tape: &str) {
    if !options.vids.is_empty() && !seen.contains(tape) {
        seen.insert(tape.to_owned());
    }
}

/// A reader that has gone is told apart from a database that has trouble.
fn broken(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Database(inner) if crate::output::is_broken_pipe(&inner) => inner,
        other => told(other),
    }
}

/// How items are written.
#[derive(Debug, Clone, Copy)]
enum Form {
    Array,
    Lines,
    /// Cut to this many columns; none: whole lines.
    People(Option<usize>),
}

/// Items on their way out.
struct Page<W: std::io::Write> {
    out: BufWriter<W>,
    form: Form,
    count: u64,
}

impl<W: std::io::Write> Page<W> {
    fn head(&mut self, text: &str) -> std::io::Result<()> {
        match self.form {
            Form::Array => self.out.write_all(b"["),
            Form::Lines => Ok(()),
            Form::People(width) => writeln!(self.out, "{}", cut(text, width)),
        }
    }

    fn item(&mut self, object: impl FnOnce() -> Value, line: impl FnOnce() -> String) -> anyhow::Result<()> {
        let first = self.count == 0;
        self.count += 1;
        match self.form {
            Form::Array => write!(self.out, "{}{}", if first { "" } else { ",\n" }, object())?,
            Form::Lines => writeln!(self.out, "{}", object())?,
            Form::People(width) => writeln!(self.out, "{}", cut(&line(), width))?,
        }
        Ok(())
    }

    fn end(mut self) -> std::io::Result<()> {
        if let Form::Array = self.form {
            self.out.write_all(b"]\n")?;
        }
        self.out.flush()
    }
}

/// The line without control characters, as long as the terminal is wide.
fn cut(line: &str, width: Option<usize>) -> String {
    let line = clean(line.trim_end());
    match width {
        Some(width) if line.chars().count() > width => {
            line.chars().take(width.saturating_sub(3)).chain("...".chars()).collect()
        }
        _ => line,
    }
}

fn event(row: &EventRow) -> Value {
    json!({
        "at": iso(row.at),
        "tape": row.tape,
        "journey": row.journey.map(|at| at.format("%Y-%m-%dT%H:%M:%S").to_string()),
        "stage": row.stage,
        "kind": row.kind,
        "actor": row.actor,
        "detail": row.detail,
    })
}

fn event_line(row: &EventRow) -> String {
    let journey = row.journey.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%d").to_string());
    format!(
        "{}  {:<7}  {journey:<10}  {:<10}  {:<16}  {:<24}  {}",
        local(row.at),
        row.tape,
        row.stage.as_deref().unwrap_or("-"),
        row.kind,
        row.actor,
        particulars(&row.detail)
    )
}

fn journey(row: &JourneyRow) -> Value {
    json!({"moved_at": iso(row.moved_at), "why": row.why, "tape": row.tape, "row": row.row})
}

fn journey_line(row: &JourneyRow) -> String {
    format!("{}  {:<7}  {:<14}  {}", local(row.moved_at), row.tape, row.why, particulars(&row.row))
}

/// An object in one line, without what is not there.
fn particulars(detail: &Value) -> String {
    let one = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match detail {
        Value::Object(fields) => {
            let there = fields.iter().filter(|(_, value)| !value.is_null());
            there.map(|(name, value)| format!("{name}: {}", one(value))).collect::<Vec<_>>().join(", ")
        }
        other => one(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Form, items: &[&str]) -> String {
        let mut out = Vec::new();
        let mut page = Page { out: BufWriter::new(&mut out), form, count: 0 };
        page.head("HEAD").unwrap();
        for item in items {
            page.item(|| json!({ "a": item }), || (*item).to_owned()).unwrap();
        }
        page.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_array_is_one_json_value_however_many_items_it_has() {
        for items in [&[][..], &["x"], &["x", "y\n"]] {
            let array: Vec<Value> = serde_json::from_str(&written(Form::Array, items)).unwrap();
            assert_eq!(array.len(), items.len());
            assert_eq!(written(Form::Lines, items).lines().count(), items.len());
        }
    }

    #[test]
    fn lines_for_people_fit_the_terminal_and_cannot_steer_it() {
        let text = written(Form::People(Some(10)), &["\x1b[31m a long line", "short"]);
        assert!(text.lines().all(|line| line.chars().count() <= 10 && !line.contains('\x1b')), "{text}");
        assert!(written(Form::People(None), &["a line that nobody cuts"]).contains("that nobody cuts"));
    }
}

//! `history`: what happened, of which tape, by whom. Streamed, so that a history of any length can be read.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use clap::Args;
use common::stages::STAGES;
use common::store::{EventRow, Glob, JourneyRow, Records, Store, StoreError};
use common::tape::Vid;
use serde_json::{Value, json};

use super::show::timeline;
use super::told;
use crate::filter::{Name, named};
use crate::moment::{Moment, moment};
use crate::output::{Desk, Exit, iso, local};

mod page;

use page::{Form, Item, Page};

/// Kinds of events.
pub const KINDS: [&str; 41] = [
    "abandoned",
    "answer",
    "changed",
    "dead-letter",
    "denied",
    "done",
    "edited-elsewhere",
    "entered",
    "error",
    "fenced",
    "fulfilled",
    "hold",
    "intent",
    "listing",
    "mended",
    "mode",
    "next-round",
    "not-stuck",
    "nothing-to-retry",
    "parked-drop",
    "parked-kept",
    "parked-requeue",
    "pause",
    "prepare-reason",
    "reclaimed-by-someone-else",
    "release",
    "removed",
    "request-gone",
    "requeue",
    "resume",
    "retrying",
    "row-found",
    "row-gone",
    "slot-freed",
    "slot-taken",
    "stalled",
    "stopped",
    "superseded",
    "tape-unknown",
    "waiting",
    "wanted",
];

/// What to know of the past.
#[derive(Debug, Args)]
pub struct History {
    /// Only of these tapes; 'V01*' is a pattern, in which * stands for anything and ? for one character
    #[arg(value_name = "VID", value_parser = named)]
    pub names: Vec<Name>,
    /// Only what these did: login@host, or the login alone
    #[arg(short, long, value_delimiter = ',', value_name = "WHO")]
    pub actor: Vec<String>,
    /// Only of these stages
    #[arg(short, long, value_delimiter = ',', value_name = "STAGE", value_parser = STAGES.map(|stage| stage.name))]
    pub stage: Vec<String>,
    /// Only of these kinds
    #[arg(short, long, value_delimiter = ',', value_name = "KIND", value_parser = KINDS)]
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

/// Shows the history, oldest first. `whole`: people too see everything of each event.
///
/// # Errors
/// What the database says.
pub async fn run(
    store: &Store,
    options: &History,
    whole: bool,
    json: bool,
    desk: &mut Desk<'_>,
) -> anyhow::Result<Exit> {
    if options.names.contains(&Name::Stdin) {
        desk.remark("error: history reads no VIDs from stdin: give them as arguments");
        return Ok(Exit::Misuse);
    }
    let now = if options.since.is_some() || options.until.is_some() {
        store.now().await.map_err(told)?
    } else {
        DateTime::<Utc>::UNIX_EPOCH
    };
    let mut unseen = Unseen::new(&options.names);
    let records = Records {
        tapes: unseen.vids.clone(),
        globs: unseen.globs.clone(),
        actors: options.actor.clone(),
        stages: options.stage.clone(),
        kinds: options.kind.clone(),
        since: options.since.map(|since| since.before(now)),
        until: options.until.map(|until| until.before(now)),
        newest: (options.limit > 0).then_some(options.limit),
    };
    let width = desk.width.map(usize::from);
    let form = match (json, options.jsonl) {
        (true, _) => Form::Array,
        (_, true) => Form::Lines,
        _ => Form::People(width),
    };
    // Into a pipe goes all that there is.
    let whole = whole || width.is_none();
    let count = {
        let mut page = Page::new(&mut *desk.out, form);
        let count = if options.journeys {
            page.head("MOVED                TAPE     WHY             ", "THE ROW AS IT WAS")?;
            let each = |row: JourneyRow| {
                unseen.note(&row.tape);
                page.item(|| journey(&row), || of_journey(&row))
            };
            store.each_journey(&records, each).await
        } else {
            page.head(
                "WHEN                 TAPE     JOURNEY     STAGE       WHAT              WHO                       ",
                "PARTICULARS",
            )?;
            let each = |row: EventRow| {
                unseen.note(&row.tape);
                page.item(|| event(&row), || of_event(&row, whole))
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
    let missing = unseen.names();
    for name in &missing {
        desk.remark(&format!("{name}: the history has no {what} of it"));
    }
    if count == 0 && missing.is_empty() {
        desk.remark(&format!("the history has no {what}"));
    }
    Ok(if missing.is_empty() { Exit::Done } else { Exit::Failed })
}

/// What was named and has not been seen: of what was named only, so that this stays small.
struct Unseen {
    vids: Vec<Vid>,
    globs: Vec<Glob>,
    seen: HashSet<String>,
}

impl Unseen {
    fn new(names: &[Name]) -> Unseen {
        let mut unseen = Unseen { vids: Vec::new(), globs: Vec::new(), seen: HashSet::new() };
        for name in names {
            match name {
                Name::Vid(vid) => unseen.vids.push(vid.clone()),
                Name::Glob(glob) => unseen.globs.push(glob.clone()),
                Name::Stdin => {}
            }
        }
        unseen
    }

    fn note(&mut self, tape: &str) {
        if !self.seen.contains(tape) && self.vids.iter().any(|vid| vid.as_str() == tape) {
            self.seen.insert(tape.to_owned());
        }
        for glob in &self.globs {
            if !self.seen.contains(glob.as_str()) && glob.matches(tape) {
                self.seen.insert(glob.as_str().to_owned());
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        let names = self.vids.iter().map(Vid::as_str).chain(self.globs.iter().map(Glob::as_str));
        names.filter(|name| !self.seen.contains(*name)).collect()
    }
}

/// A reader that has gone is told apart from a database that has trouble.
fn broken(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Database(inner) if crate::output::is_broken_pipe(&inner) => inner,
        other => told(other),
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

fn of_event(row: &EventRow, whole: bool) -> Item {
    let journey = row.journey.map(|at| at.format("%Y-%m-%d").to_string());
    let stage = row.stage.as_deref();
    let begun = journey.as_ref().map(|journey| format!(", journey of {journey}")).unwrap_or_default();
    Item {
        when: local(row.at),
        tape: row.tape.clone(),
        columns: format!(
            "{:<10}  {:<10}  {:<16}  {:<24}  ",
            journey.as_deref().unwrap_or("-"),
            stage.unwrap_or("-"),
            row.kind,
            row.actor
        ),
        short: stage.map_or_else(|| row.kind.clone(), |stage| format!("{stage}: {}", row.kind)),
        text: if whole { particulars(&row.detail) } else { timeline::said(&row.detail, false) },
        rest: format!(" ({}{begun})", row.actor),
    }
}

fn journey(row: &JourneyRow) -> Value {
    json!({"moved_at": iso(row.moved_at), "why": row.why, "tape": row.tape, "row": row.row})
}

fn of_journey(row: &JourneyRow) -> Item {
    Item {
        when: local(row.moved_at),
        tape: row.tape.clone(),
        columns: format!("{:<14}  ", row.why),
        short: row.why.clone(),
        text: particulars(&row.row),
        rest: String::new(),
    }
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

    fn item(text: &str) -> Item {
        of_event(
            &EventRow {
                id: 1,
                at: DateTime::UNIX_EPOCH,
                tape: "V01007".to_owned(),
                journey: None,
                stage: Some("end".to_owned()),
                kind: "stopped".to_owned(),
                actor: "worker@host".to_owned(),
                detail: json!({ "why": text }),
            },
            true,
        )
    }

    fn written(form: Form, items: &[&str]) -> String {
        let mut out = Vec::new();
        let mut page = Page::new(&mut out, form);
        page.head("WHEN  TAPE  OTHERS  ", "PARTICULARS").unwrap();
        for text in items {
            page.item(|| json!({ "a": text }), || item(text)).unwrap();
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
    fn particulars_are_wrapped_at_every_width_and_never_lost() {
        let why = "2 files could not be read and 0 copies could not be written; 8 of the 10 copies are safe";
        for width in 20..220 {
            let text = written(Form::People(Some(width)), &[why]);
            for line in text.lines().skip(1) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for part in ["V01007", "stopped", "worker@host", why] {
                assert!(words.contains(part), "{width}: '{part}' is not in {text}");
            }
        }
        let wide = written(Form::People(Some(160)), &[why]);
        let (first, second) = (wide.lines().nth(1).unwrap(), wide.lines().nth(2).unwrap());
        assert_eq!(first.find("why:"), Some(second.len() - second.trim_start().len()), "{wide}");
    }

    #[test]
    fn what_the_database_holds_cannot_steer_the_terminal_and_a_pipe_gets_a_line_for_each() {
        for width in [None, Some(30), Some(80), Some(200)] {
            let text = written(Form::People(width), &["\x1b[31m a long\nline", "short"]);
            assert!(!text.contains('\x1b'), "{text}");
        }
        let text = written(Form::People(None), &["a line that nobody cuts ".repeat(20).as_str()]);
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    /// Files of a directory and of those below it.
    fn sources(directory: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, found),
                false => found.push(path),
            }
        }
    }

    #[test]
    fn every_kind_that_is_written_can_be_asked_for() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        for part in [
            "common/src/task.rs",
            "common/src/stages",
            "common/src/store.rs",
            "worker/src",
            "producer/src",
            "manager/src",
        ] {
            let path = root.join(part);
            if path.is_dir() { sources(&path, &mut files) } else { files.push(path) }
        }
        let mut written = std::collections::BTreeSet::new();
        for file in files {
            let text = std::fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for mark in ["note(", "Note {kind:", "notes: vec![("] {
                let code = code.split_whitespace().collect::<String>();
                let mark: String = mark.split_whitespace().collect();
                let after = code
                    .split(&mark)
                    .skip(1)
                    .filter_map(|rest| rest.strip_prefix('"')?.split('"').next().map(str::to_owned));
                written.extend(after);
            }
        }
        assert!(written.len() > 20, "the words that write events have changed: {written:?}");
        let unknown: Vec<&String> = written.iter().filter(|kind| !KINDS.contains(&kind.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?} are missing in KINDS");
        assert!(KINDS.is_sorted());
        for code in [common::reason::Code::NothingToRetry, common::reason::Code::TapeUnknown] {
            assert!(KINDS.contains(&code.name()));
        }
        for outcome in [common::task::Outcome::Waiting, common::task::Outcome::Stalled] {
            assert!(KINDS.contains(&outcome.name()));
        }
    }
}

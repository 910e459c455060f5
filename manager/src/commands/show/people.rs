//! A tape for people: sections of lines, which a terminal may be too small for.

use chrono::{DateTime, Utc};
use common::explain::{Explained, ago, next_in_show};
use common::journey::{Mode, State};
use common::store::Overview;
use common::tape::Tape;
use common::task::{Hold, Next, Task};

use super::{Known, Looked, timeline};
use crate::commands::change::remaining;
use crate::output::{Desk, bytes, clean, counted, local, wrapped};

/// What a section is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// How it stands, and why.
    Head,
    /// What the row says.
    Row,
    /// What CTA says.
    Cta,
    /// What the queue holds.
    Queue,
    /// What happened.
    Past,
}

/// A heading, and lines that fit the terminal's width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    part: Part,
    title: String,
    lines: Vec<String>,
    /// Lines that were left out: the first of what happened, the last of anything else.
    hidden: usize,
}

impl Section {
    fn of(part: Part, title: &str, values: Vec<(&str, String)>, width: Option<usize>) -> Section {
        let mut lines = Vec::new();
        for (name, value) in values {
            for (at, line) in wrapped(&clean(&value), beside(width, INDENT)).into_iter().enumerate() {
                let name = if at == 0 { name } else { "" };
                lines.push(format!("  {name:<12} {line}"));
            }
        }
        Section { part, title: clean(title), lines, hidden: 0 }
    }

    fn height(&self) -> usize {
        1 + self.lines.len() + usize::from(self.hidden > 0)
    }

    /// The text, line by line.
    fn text(self) -> Vec<String> {
        let marker = (self.hidden > 0).then(|| format!("  ... {} more lines", self.hidden));
        let (first, last) = if self.part == Part::Past { (marker, None) } else { (None, marker) };
        std::iter::once(self.title).chain(first).chain(self.lines).chain(last).collect()
    }

    /// Leaves lines out until the section is lower by so much, but not below so many lines; by how much it is lower.
    fn shrink(&mut self, by: usize, least: usize) -> usize {
        let before = self.height();
        let marker = usize::from(self.hidden == 0);
        let out = (by + marker).min(self.lines.len().saturating_sub(least));
        if out <= marker {
            return 0;
        }
        self.hidden += out;
        match self.part {
            Part::Past => {
                self.lines.drain(..out);
                // Half of an event says little.
                let begins = |line: &String| !line.starts_with("   ");
                let half = self.lines.iter().position(begins).unwrap_or(0);
                self.hidden += half;
                self.lines.drain(..half);
            }
            Part::Head | Part::Row | Part::Cta | Part::Queue => self.lines.truncate(self.lines.len() - out),
        }
        before - self.height()
    }
}

/// Lines of events that are kept as long as there is anything else to leave out.
const NEWEST: usize = 6;

/// The sections line by line, in so many lines if that can be: old events are left out first, how it stands never.
pub fn fitted(mut sections: Vec<Section>, height: usize) -> Vec<String> {
    let all: usize = sections.iter().map(Section::height).sum();
    let mut over = all.saturating_sub(height);
    let order = [(Part::Past, NEWEST), (Part::Row, 0), (Part::Queue, 0), (Part::Cta, 0), (Part::Past, 0)];
    for (part, least) in order {
        for section in sections.iter_mut().filter(|section| section.part == part) {
            over -= if over > 0 { section.shrink(over, least).min(over) } else { 0 };
        }
    }
    sections.into_iter().flat_map(Section::text).collect()
}

/// Everything that is known of a tape, in lines of at most so many columns; none: as long as they are.
pub fn sections(looked: &Looked, verbose: bool, width: Option<usize>) -> Vec<Section> {
    let mut sections = match looked.known.overview.as_ref().zip(looked.why.as_ref()) {
        Some((overview, why)) => on_its_way(looked, overview, why, width).to_vec(),
        None => vec![elsewhere(looked, width)],
    };
    sections.extend(asked_outside(looked, width));
    sections.push(happened(&looked.known, verbose, width));
    sections
}

/// Prints everything that is known of a tape.
///
/// # Errors
/// When it cannot be written.
pub fn print(looked: &Looked, verbose: bool, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    let sections = sections(looked, verbose, desk.width.map(usize::from));
    desk.data(&fitted(sections, usize::MAX).join("\n"))
}

/// Columns beside so many that are taken.
fn beside(width: Option<usize>, taken: usize) -> usize {
    width.unwrap_or(usize::MAX).saturating_sub(taken + 1).max(20)
}

/// Columns of a value.
fn values(width: Option<usize>) -> Option<usize> {
    width.map(|_| beside(width, INDENT))
}

/// A tape in the table.
fn on_its_way(looked: &Looked, overview: &Overview, why: &Explained, width: Option<usize>) -> [Section; 2] {
    let (vid, advance) = (&looked.vid, looked.advance.as_ref());
    let now = overview.now;
    let mut head: Vec<(&str, String)> = vec![("why", why.text.clone())];
    if let Some(until) = why.until {
        head.push(("until", format!("{} ({})", local(until), remaining(until, now))));
    }
    head.push(("next", next_in_show(why, vid)));
    let names = ["repack", ""];
    head.extend(
        advance
            .into_iter()
            .flat_map(|advance| advance.lines(values(width)))
            .enumerate()
            .map(|(at, line)| (names[at.min(1)], line)),
    );
    let title = match &overview.row {
        Ok(tape) => format!("{vid}: {}, mode {}", tape.state(), tape.mode),
        Err(_) => format!("{vid}: an odd row"),
    };
    let head = Section::of(Part::Head, &title, head, width);
    let mut lines = match &overview.row {
        Ok(tape) => row_says(tape, now),
        Err(odd) => odd.problems.iter().map(|problem| ("problem", problem.clone())).collect(),
    };
    match &overview.task {
        Some(task) => lines.extend(task_says(task, overview.row.as_ref().ok(), why, now)),
        None => lines.push(("task", "no tick has looked at this row yet".to_owned())),
    }
    lines.extend(overview.hold.as_ref().map(held));
    [head, Section::of(Part::Row, "the row says", lines, width)]
}

fn held(hold: &Hold) -> (&'static str, String) {
    let until = hold.until.map_or_else(|| "until released".to_owned(), |until| format!("until {}", local(until)));
    ("hold", format!("by {}, {until}: {}", hold.who, hold.why))
}

/// A tape that is not in the table: what is known of it comes first.
fn elsewhere(looked: &Looked, width: Option<usize>) -> Section {
    let (vid, known) = (&looked.vid, &looked.known);
    let mut lines = Vec::new();
    let now = known.around.site.now;
    if let Some((at, why, row)) = &known.last {
        let kind = if why == "given back" { "fulfilled" } else { "removed" };
        let who = known.events.iter().rev().find(|event| event.kind == kind).map(|event| event.actor.as_str());
        let by = who.map(|who| format!(" by {who}")).unwrap_or_default();
        lines.push(("last journey", format!("{why} on {}{by} ({} ago)", local(*at), ago(now - *at))));
        let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
        let state = State::ALL.iter().rev().find(|state| row[state.column()].is_string());
        lines.push((
            "it was",
            format!(
                "{}, mode {}, pool {}",
                state.map_or("odd", |state| state.column()),
                text("mode"),
                text("tapepool")
            ),
        ));
    }
    lines.extend(known.hold.as_ref().map(held));
    if lines.is_empty() {
        let nothing = if known.events.is_empty() { "nothing is known of it here" } else { "only what happened to it" };
        lines.push(("known", nothing.to_owned()));
    }
    Section::of(Part::Head, &format!("{vid}: not on its way"), lines, width)
}

/// What CTA says and what the queue holds.
fn asked_outside(looked: &Looked, width: Option<usize>) -> [Section; 2] {
    let (known, outside) = (&looked.known, &looked.outside);
    let cta = match &outside.cta {
        Some(cta) => cta.lines(),
        None => vec![("not asked", "--no-cta".to_owned())],
    };
    let mut lines = match &outside.queue {
        None => vec![(
            "nothing",
            "no broker is configured: each stage is done by the program that is called for it".to_owned(),
        )],
        Some(Err(why)) => vec![("not asked", format!("the broker could not be asked: {why}"))],
        Some(Ok(queue)) => queue.lines(),
    };
    if outside.queue.is_some()
        && let Some(overview) = &known.overview
    {
        let published = overview.task.as_ref().and_then(|task| task.dispatched_at);
        let said = match published {
            Some(at) => format!(
                "published {} ago and taken by no worker, as the row says; a queue cannot be searched",
                ago(overview.now - at)
            ),
            None => "none is under way, as the row says".to_owned(),
        };
        lines.push(("its message", said));
    }
    [Section::of(Part::Cta, "CTA says", cta, width), Section::of(Part::Queue, "the queue holds", lines, width)]
}

/// The code of a row that was edited since the automation looked at it.
const NOT_SEEN: &str = "not-seen-yet";

/// Columns before the value of a line.
const INDENT: usize = 15;

/// Columns before what happened.
const TIME: usize = 23;

fn row_says(tape: &Tape, now: DateTime<Utc>) -> Vec<(&'static str, String)> {
    let mut lines: Vec<(&str, String)> = State::ALL
        .into_iter()
        .filter_map(|state| Some((state.column(), tape.stamps.at(state)?)))
        .map(|(column, at)| (column, format!("{} ({} ago)", local(at), ago(now - at))))
        .collect();
    lines.extend([
        ("mode", tape.mode.label().to_owned()),
        ("pool", format!("{} (when it was prepared)", tape.tapepool)),
        ("media type", tape.mediatype.clone()),
        ("priority", tape.priority.to_string()),
        ("responsible", tape.responsible.clone()),
        (
            "content",
            format!(
                "{}, {} bytes, {}% used (when it was prepared)",
                counted(tape.files, "file"),
                bytes(tape.bytes),
                tape.usage
            ),
        ),
    ]);
    if let Some(at) = tape.last_write_date {
        lines.push(("last write", local(at)));
    }
    lines
}

/// When it is next worked on: never something else than the headline says.
fn next_attempt(task: &Task, tape: Option<&Tape>, why: &Explained, now: DateTime<Utc>) -> String {
    match tape {
        None => return "none while the row is odd".to_owned(),
        Some(tape) if tape.state() == State::Finished => return "none: its journey is over".to_owned(),
        Some(tape) if tape.mode != Mode::Auto => {
            return format!("none in mode {}: an operator decides", tape.mode);
        }
        Some(_) if why.code == NOT_SEEN => return "reckoned anew when the automation looks at the row".to_owned(),
        Some(_) => {}
    }
    match task.next {
        Next::Now => "as soon as possible".to_owned(),
        Next::At(at) if at > now => format!("{} (in {})", local(at), ago(at - now)),
        Next::At(at) => format!("due since {}", local(at)),
        Next::Never if task.has_stop() => "none: it has stopped, an operator decides".to_owned(),
        Next::Never => "none".to_owned(),
    }
}

fn task_says(task: &Task, tape: Option<&Tape>, why: &Explained, now: DateTime<Utc>) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("next stage", format!("{}, generation {}", task.stage.as_deref().unwrap_or("none"), task.generation)),
        ("next attempt", next_attempt(task, tape, why, now)),
    ];
    let mut add = |name: &'static str, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    add("wanted", task.wanted.map(|wanted| wanted.name().to_owned()));
    add("outcome", task.outcome.map(|outcome| outcome.name().to_owned()));
    add(
        "reason",
        task.reason.as_ref().map(|reason| match why.text.contains(&reason.text) {
            true => format!("{}, as told above", reason.code),
            false => format!("{} ({})", reason.text, reason.code),
        }),
    );
    add("published", task.dispatched_at.map(|at| format!("{} ({} ago)", local(at), ago(now - at))));
    add("owner", task.owner.clone());
    add(
        "lease",
        task.lease_until.map(|at| format!("until {}{}", local(at), if at > now { "" } else { ", which is over" })),
    );
    add(
        "command",
        task.intent.as_ref().map(|intent| format!("{} (since {}, unanswered)", intent.command, local(intent.at))),
    );
    add(
        "settles",
        task.settle_until.filter(|at| *at > now).map(|at| format!("until {} ({})", local(at), remaining(at, now))),
    );
    add("slot", task.slot_since.map(|at| format!("since {} ({})", local(at), ago(now - at))));
    add("attempts", (task.attempts > 0).then(|| task.attempts.to_string()));
    add("crashes", (task.crashes > 0).then(|| task.crashes.to_string()));
    add("round", (task.round > 0).then(|| task.round.to_string()));
    add(
        "progress",
        task.progress.as_ref().map(|progress| {
            format!(
                "{}: {} of {} copies, {} of {} bytes written, {} failed",
                progress.status,
                progress.archived_files,
                progress.total_files,
                bytes(i64::try_from(progress.archived_bytes).unwrap_or(i64::MAX)),
                bytes(i64::try_from(progress.total_bytes).unwrap_or(i64::MAX)),
                counted(progress.failed_files, "file")
            )
        }),
    );
    add("progress at", task.progress_at.map(|at| format!("{} ({} ago)", local(at), ago(now - at))));
    let memory = &task.memory;
    add("source state", memory.source_state.clone());
    add(
        "request",
        memory
            .request
            .as_ref()
            .map(|log| format!("{}@{} at {}", log.username, log.host, common::stages::moment(log.time))),
    );
    add(
        "listing",
        memory.listing.as_ref().map(|listing| {
            format!("{}:{} ({}, {} bytes)", listing.host, listing.path, counted(listing.files, "file"), listing.bytes)
        }),
    );
    lines
}

fn happened(known: &Known, verbose: bool, width: Option<usize>) -> Section {
    if known.events.is_empty() && known.older == 0 {
        return Section::of(Part::Past, "what happened: nothing is recorded", Vec::new(), width);
    }
    let more = match known.older {
        0 => String::new(),
        older => format!(
            " ({older} older events: --events {})",
            older.saturating_add(i64::try_from(known.events.len()).unwrap_or(0))
        ),
    };
    let mut lines = Vec::new();
    for line in timeline::lines(&known.events, verbose) {
        let stage = line.event.stage.as_deref().map(|stage| format!("{stage}: ")).unwrap_or_default();
        let particulars = if line.text.is_empty() { String::new() } else { format!(": {}", line.text) };
        let told = format!("{stage}{}{particulars} ({})", line.kind, line.event.actor);
        for (at, part) in wrapped(&clean(&told), beside(width, TIME)).into_iter().enumerate() {
            let when = if at == 0 { local(line.event.at) } else { String::new() };
            lines.push(format!("  {when:<19}  {part}"));
        }
    }
    Section { part: Part::Past, title: format!("what happened{more}"), lines, hidden: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five(lines: usize) -> Vec<Section> {
        let parts = [Part::Head, Part::Row, Part::Cta, Part::Queue, Part::Past];
        let section = |part| Section {
            part,
            title: format!("{part:?}"),
            lines: (0..lines).map(|line| format!("{part:?} {line}")).collect(),
            hidden: 0,
        };
        parts.map(section).to_vec()
    }

    #[test]
    fn a_low_terminal_shows_how_it_stands_and_what_happened_last() {
        assert_eq!(fitted(five(9), 50).len(), 50);
        assert!(!fitted(five(9), 50).iter().any(|line| line.contains("...")));
        for height in 18..50 {
            let lines = fitted(five(9), height);
            assert!(lines.len() <= height, "{height}: {lines:#?}");
            assert!(lines.len() + 1 >= height, "{height}: room is left over: {lines:#?}");
            assert_eq!(lines.iter().filter(|line| line.starts_with("Head")).count(), 10, "{height}: {lines:#?}");
            assert!(lines.iter().any(|line| line.contains("...")), "{height}: what is left out is said");
        }
        let lines = fitted(five(9), 46);
        let past = lines.iter().position(|line| line == "Past").unwrap();
        assert_eq!(
            &lines[past + 1..],
            ["  ... 3 more lines", "Past 3", "Past 4", "Past 5", "Past 6", "Past 7", "Past 8"]
        );
        let lines = fitted(five(9), 42);
        let row = lines.iter().position(|line| line == "Row").unwrap();
        assert_eq!(lines[row + 1], "Row 0");
        assert_eq!(&lines[lines.len() - 3..], ["Past 6", "Past 7", "Past 8"]);
    }

    #[test]
    fn of_what_happened_whole_events_are_left_out() {
        let lines: Vec<String> = (0..9)
            .map(|line| if line % 3 == 0 { format!("  event {line}") } else { format!("     more {line}") })
            .collect();
        let past = Section { part: Part::Past, title: "Past".to_owned(), lines, hidden: 0 };
        let shown = |height| fitted(vec![past.clone()], height);
        assert_eq!(shown(10).len(), 10);
        for height in [8, 9] {
            let lines = shown(height);
            assert_eq!(lines[1..3], ["  ... 3 more lines", "  event 3"], "{height}: {lines:?}");
            assert_eq!(lines.len(), 8);
        }
        assert_eq!(shown(5)[1..3], ["  ... 6 more lines", "  event 6"]);
    }
}

//! `show`: everything that is known of one tape. What the row says, what CTA says, and what the queue holds are told apart.

use chrono::{DateTime, Utc};
use common::explain::{Explained, ago, next_in_show};
use common::journey::{Mode, State};
use common::store::{EventFilter, EventRow, Overview, Store, StoreError};
use common::tape::{Tape, Vid};
use common::task::{Hold, Next, Task};
use serde_json::{Value, json};

use super::change::remaining;
use super::ls::{Around, object};
use super::told;
use crate::cli::Show;
use crate::output::{Desk, Exit, bytes, clean, iso, local};

mod outside;
mod progress;
mod timeline;

use outside::{CtaSays, QueueSays};
use progress::Advance;

/// What the database knows.
struct Known {
    around: Around,
    overview: Option<Overview>,
    events: Vec<EventRow>,
    /// Events older than those.
    older: i64,
    hold: Option<Hold>,
    /// The newest journey that went to the history: when, why, the row.
    last: Option<(DateTime<Utc>, String, Value)>,
}

impl Known {
    async fn look(store: &Store, show: &Show) -> Result<Known, StoreError> {
        let around = Around::look(store).await?;
        let overview = store.overview(Some(std::slice::from_ref(&show.vid)), None, true).await?.pop();
        let filter = EventFilter { tape: Some(show.vid.clone()), ..EventFilter::default() };
        let events = store.events(&filter, show.events).await?;
        let older = store.count_events(&show.vid).await? - i64::try_from(events.len()).unwrap_or(i64::MAX);
        let holds = store.controls().await?;
        let hold = holds.into_iter().find(|line| line.kind == "hold" && line.name == show.vid.as_str());
        let last = store.last_journey(&show.vid).await?;
        Ok(Known { around, overview, events, older: older.max(0), hold: hold.map(|line| line.hold), last })
    }
}

/// What is asked outside of the database.
struct Outside {
    /// None: not asked.
    cta: Option<CtaSays>,
    /// None: no broker is configured.
    queue: Option<Result<QueueSays, String>>,
}

/// Shows one tape.
///
/// # Errors
/// What the database says. CTA and the broker may be away: then that is said.
pub async fn run(store: &Store, show: &Show, verbose: bool, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let known = Known::look(store, show).await.map_err(told)?;
    let settings = store.settings();
    let stage = known.overview.as_ref().and_then(|overview| overview.task.as_ref()?.stage.clone());
    let ask_cta = async { if show.no_cta { None } else { Some(outside::cta(settings, &show.vid).await) } };
    let (cta, queue) = tokio::join!(ask_cta, outside::queue(settings, stage.as_deref()));
    let outside = Outside { cta, queue };
    let why = known.overview.as_ref().map(|overview| known.around.explain(overview, settings));
    let exit = if known.overview.is_some() { Exit::Done } else { Exit::Failed };
    let advance = known.overview.as_ref().and_then(|overview| running(overview, &outside));
    if json {
        machines(&show.vid, &known, why.as_ref(), &outside, advance.as_ref(), desk)?;
        return Ok(exit);
    }
    for line in known.around.heading(settings).iter().filter(|line| line.urgent) {
        desk.remark(&format!("note: {}", line.text));
    }
    match known.overview.as_ref().zip(why.as_ref()) {
        Some((overview, why)) => on_its_way(&show.vid, overview, why, advance.as_ref(), desk)?,
        None => elsewhere(&show.vid, &known, desk)?,
    }
    asked_outside(&known, &outside, desk)?;
    happened(&known, verbose, desk)?;
    Ok(exit)
}

/// The repack that runs now, if one does.
fn running(overview: &Overview, outside: &Outside) -> Option<Advance> {
    let started = overview.row.as_ref().is_ok_and(|tape| tape.state() == State::Started);
    let repack = outside.cta.as_ref().and_then(CtaSays::repack);
    // Without an answer of CTA, what was recorded of a repack counts only as long as it can be running.
    let recorded = overview.task.as_ref().filter(|_| started);
    if !started { None } else { Advance::of(recorded, repack, overview.now) }
}

fn machines(
    vid: &Vid,
    known: &Known,
    why: Option<&Explained>,
    outside: &Outside,
    advance: Option<&Advance>,
    desk: &mut Desk<'_>,
) -> anyhow::Result<()> {
    let around = &known.around;
    let tape = known.overview.as_ref().zip(why).map(|(overview, why)| object(overview, why));
    let hold = known.hold.as_ref();
    let hold = hold.map(|hold| json!({"who": hold.who, "why": hold.why, "until": hold.until.map(iso)}));
    let last = known.last.as_ref().map(|(at, why, row)| json!({"moved_at": iso(*at), "why": why, "row": row}));
    let queue = outside.queue.as_ref().map(|queue| match queue {
        Ok(queue) => queue.object(),
        Err(why) => json!({"stage": null, "dead": null, "error": why}),
    });
    let value = json!({
        "vid": vid,
        "tape": tape,
        "advance": advance.map(Advance::object),
        "held": hold,
        "last_journey": last,
        "cta": outside.cta.as_ref().map(CtaSays::object),
        "queue": queue,
        "site": crate::heading::object(&around.site, &around.slots, &around.paused),
        "older_events": known.older,
        "timeline": known.events.iter().map(event).collect::<Vec<_>>(),
    });
    desk.data(&value.to_string())
}

fn event(event: &EventRow) -> Value {
    json!({"at": iso(event.at), "tape": event.tape, "journey": event.journey.map(|at| at.format("%Y-%m-%dT%H:%M:%S").to_string()),
           "stage": event.stage, "kind": event.kind, "actor": event.actor, "detail": event.detail})
}

/// A tape in the table.
fn on_its_way(
    vid: &Vid,
    overview: &Overview,
    why: &Explained,
    advance: Option<&Advance>,
    desk: &mut Desk<'_>,
) -> anyhow::Result<()> {
    let now = overview.now;
    let mut head: Vec<(&str, String)> = vec![("why", why.text.clone())];
    if let Some(until) = why.until {
        head.push(("until", format!("{} ({})", local(until), remaining(until, now))));
    }
    head.push(("next", next_in_show(why, vid)));
    let names = ["repack", ""];
    head.extend(advance.into_iter().flat_map(Advance::lines).enumerate().map(|(at, line)| (names[at.min(1)], line)));
    let title = match &overview.row {
        Ok(tape) => format!("{vid}: {}, mode {}", tape.state(), tape.mode),
        Err(_) => format!("{vid}: an odd row"),
    };
    section(&title, head, desk)?;
    let mut lines = match &overview.row {
        Ok(tape) => row_says(tape, now),
        Err(odd) => odd.problems.iter().map(|problem| ("problem", problem.clone())).collect(),
    };
    match &overview.task {
        Some(task) => lines.extend(task_says(task, overview.row.as_ref().ok(), why, now)),
        None => lines.push(("task", "no tick has looked at this row yet".to_owned())),
    }
    lines.extend(overview.hold.as_ref().map(held));
    section("the row says", lines, desk)
}

fn held(hold: &Hold) -> (&'static str, String) {
    let until = hold.until.map_or_else(|| "until released".to_owned(), |until| format!("until {}", local(until)));
    ("hold", format!("by {}, {until}: {}", hold.who, hold.why))
}

/// A tape that is not in the table: what is known of it comes first.
fn elsewhere(vid: &Vid, known: &Known, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    desk.remark(&format!("error: {vid}: not in the table"));
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
    section(&format!("{vid}: not on its way"), lines, desk)
}

/// What CTA says and what the queue holds.
fn asked_outside(known: &Known, outside: &Outside, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    match &outside.cta {
        Some(cta) => section("CTA says", cta.lines(), desk)?,
        None => section("CTA says", vec![("nothing", "it was not asked (--no-cta)".to_owned())], desk)?,
    }
    let mut lines = match &outside.queue {
        None => vec![(
            "nothing",
            "no broker is configured: each stage is done by the program that is called for it".to_owned(),
        )],
        Some(Err(why)) => vec![("nothing", format!("the broker could not be asked: {why}"))],
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
    section("the queue holds", lines, desk)
}

fn section(title: &str, lines: Vec<(&str, String)>, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    desk.data(&clean(title))?;
    let width = desk.width.map_or(usize::MAX, usize::from).saturating_sub(INDENT + 1).max(20);
    let mut text = String::new();
    for (name, value) in lines {
        for (at, part) in wrapped(&clean(&value), width).into_iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            text.push_str(&format!("  {name:<12} {part}\n"));
        }
    }
    desk.text(&text)
}

/// The code of a row that was edited since the automation looked at it.
const NOT_SEEN: &str = "not-seen-yet";

/// Columns before the value of a line.
const INDENT: usize = 15;

/// Columns before what happened.
const TIME: usize = 23;

/// The text in lines of at most so many characters, broken at blanks where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
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
            format!("{} files, {} bytes, {}% used (when it was prepared)", tape.files, bytes(tape.bytes), tape.usage),
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
                "{}: {} of {} copies, {} of {} bytes written, {} files failed",
                progress.status,
                progress.archived_files,
                progress.total_files,
                bytes(i64::try_from(progress.archived_bytes).unwrap_or(i64::MAX)),
                bytes(i64::try_from(progress.total_bytes).unwrap_or(i64::MAX)),
                progress.failed_files
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
            format!("{}:{} ({} files, {} bytes)", listing.host, listing.path, listing.files, listing.bytes)
        }),
    );
    lines
}

fn happened(known: &Known, verbose: bool, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    if known.events.is_empty() && known.older == 0 {
        return desk.data("what happened: nothing is recorded");
    }
    let more = match known.older {
        0 => String::new(),
        older => format!(
            " ({older} older events: --events {})",
            older.saturating_add(i64::try_from(known.events.len()).unwrap_or(0))
        ),
    };
    desk.data(&format!("what happened{more}"))?;
    if known.events.is_empty() {
        return Ok(());
    }
    let width = desk.width.map_or(usize::MAX, usize::from).saturating_sub(TIME + 1).max(20);
    let mut text = String::new();
    for line in timeline::lines(&known.events, verbose) {
        let stage = line.event.stage.as_deref().map(|stage| format!("{stage}: ")).unwrap_or_default();
        let particulars = if line.text.is_empty() { String::new() } else { format!(": {}", line.text) };
        let told = format!("{stage}{}{particulars} ({})", line.kind, line.event.actor);
        for (at, part) in wrapped(&clean(&told), width).into_iter().enumerate() {
            let when = if at == 0 { local(line.event.at) } else { String::new() };
            text.push_str(&format!("  {when:<19}  {part}\n"));
        }
    }
    desk.text(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

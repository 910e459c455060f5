//! `show`: everything that the tables know of one tape. What the row says and what the task says are told apart.

use chrono::{DateTime, Utc};
use common::explain::{Explained, ago};
use common::journey::State;
use common::store::{EventFilter, EventRow, Overview, Store};
use common::tape::{Tape, Vid};
use common::task::{Next, Task};
use serde_json::{Value, json};

use super::change::remaining;
use super::ls::{Around, object};
use super::told;
use crate::output::{Desk, Exit, bytes, cell, clean, iso, local};

/// Shows one tape.
///
/// # Errors
/// What the database says.
pub async fn run(store: &Store, vid: &Vid, events: i64, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let around = Around::look(store).await.map_err(told)?;
    let overview = store.overview(Some(std::slice::from_ref(vid)), None, true).await.map_err(told)?.pop();
    let filter = EventFilter { tape: Some(vid.clone()), ..EventFilter::default() };
    let timeline = store.events(&filter, events).await.map_err(told)?;
    let hold =
        store.controls().await.map_err(told)?.into_iter().find(|line| line.kind == "hold" && line.name == vid.as_str());
    let why = overview.as_ref().map(|overview| around.explain(overview, store.settings()));
    let exit = if overview.is_some() { Exit::Done } else { Exit::Failed };
    if json {
        let tape = overview.as_ref().zip(why.as_ref()).map(|(overview, why)| object(overview, why));
        let timeline: Vec<Value> = timeline.iter().map(event).collect();
        desk.data(&json!({"vid": vid, "tape": tape, "timeline": timeline}).to_string())?;
        return Ok(exit);
    }
    match overview.as_ref().zip(why.as_ref()) {
        Some((overview, why)) => people(vid, overview, why, desk)?,
        None => {
            desk.remark(&format!("error: {vid}: not in the table"));
            if let Some(line) = hold {
                desk.data(&format!("{vid} is on hold: {} put it: {}", clean(&line.hold.who), clean(&line.hold.why)))?;
            }
        }
    }
    happened(&timeline, desk)?;
    Ok(exit)
}

fn event(event: &EventRow) -> Value {
    json!({"at": iso(event.at), "tape": event.tape, "journey": event.journey.map(|at| at.format("%Y-%m-%dT%H:%M:%S").to_string()),
           "stage": event.stage, "kind": event.kind, "actor": event.actor, "detail": event.detail})
}

fn people(vid: &Vid, overview: &Overview, why: &Explained, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    let now = overview.now;
    let mut head: Vec<(&str, String)> = vec![("why", why.text.clone())];
    if let Some(until) = why.until {
        head.push(("until", format!("{} ({})", local(until), remaining(until, now))));
    }
    head.push(("next", why.next.clone()));
    let title = match &overview.row {
        Ok(tape) => format!("{vid}: {}, mode {}", tape.state(), tape.mode),
        Err(_) => format!("{vid}: an odd row"),
    };
    section(&title, head, desk)?;
    match &overview.row {
        Ok(tape) => section("the row says", row_says(tape, now), desk)?,
        Err(odd) => {
            let problems = odd.problems.iter().map(|problem| ("problem", problem.clone())).collect();
            section("the row says", problems, desk)?;
        }
    }
    match &overview.task {
        Some(task) => section("the task says", task_says(task, now), desk)?,
        None => section("the task says", vec![("nothing", "no tick has looked at this row yet".to_owned())], desk)?,
    }
    if let Some(hold) = &overview.hold {
        let until = hold.until.map_or_else(|| "until released".to_owned(), |until| format!("until {}", local(until)));
        section("the hold says", vec![("who", hold.who.clone()), ("why", hold.why.clone()), ("until", until)], desk)?;
    }
    Ok(())
}

fn section(title: &str, lines: Vec<(&str, String)>, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    desk.data(&clean(title))?;
    for (name, value) in lines {
        desk.data(&format!("  {name:<12} {}", clean(&value)))?;
    }
    Ok(())
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

fn task_says(task: &Task, now: DateTime<Utc>) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("stage", format!("{}, generation {}", task.stage.as_deref().unwrap_or("none"), task.generation)),
        (
            "next attempt",
            match task.next {
                Next::Now => "as soon as possible".to_owned(),
                Next::At(at) if at > now => format!("{} (in {})", local(at), ago(at - now)),
                Next::At(at) => format!("since {}", local(at)),
                Next::Never => "when somebody decides".to_owned(),
            },
        ),
    ];
    let mut add = |name: &'static str, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    add("wanted", task.wanted.map(|wanted| wanted.name().to_owned()));
    add("outcome", task.outcome.map(|outcome| outcome.name().to_owned()));
    add("reason", task.reason.as_ref().map(|reason| format!("{} ({})", reason.text, reason.code)));
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

fn happened(timeline: &[EventRow], desk: &mut Desk<'_>) -> anyhow::Result<()> {
    if timeline.is_empty() {
        return desk.data("what happened: nothing is recorded");
    }
    desk.data("what happened")?;
    let rows = timeline
        .iter()
        .map(|event| {
            vec![
                cell(format!(" {}", local(event.at))),
                cell(event.stage.as_deref().unwrap_or("-")),
                cell(&event.kind),
                cell(&event.actor),
                cell(said(&event.detail)),
            ]
        })
        .collect();
    let table = desk.table(&["WHEN", "STAGE", "WHAT", "WHO", "PARTICULARS"], rows);
    desk.data(&table)
}

/// The particulars of an event in one line.
fn said(detail: &Value) -> String {
    let one = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match detail {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| format!("{name}: {}", one(value)))
            .collect::<Vec<_>>()
            .join(", "),
        other => one(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn particulars_are_one_line_without_what_is_not_there() {
        assert_eq!(said(&json!({"why": "it is full", "until": null, "n": 2})), "why: it is full, n: 2");
        assert_eq!(said(&json!({})), "");
        assert_eq!(said(&json!("text")), "text");
    }
}

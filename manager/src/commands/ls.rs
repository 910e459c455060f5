//! `ls`: how far tapes are, and why they wait or failed.

use chrono::{DateTime, Utc};
use comfy_table::{Cell, Color};
use common::explain::{Explained, Slots, ago, explain};
use common::journey::{Mode, State};
use common::settings::Settings;
use common::store::{Line, Overview, Store, StoreError};
use common::tape::{Tape, Vid};
use common::task::{Next, Outcome};
use serde_json::{Value, json};

use super::{change::remaining, told};
use crate::cli::Ls;
use crate::filter::vid_of;
use crate::output::{Desk, Exit, bytes, cell, clean, coloured, iso};

/// What an explanation needs beside the row.
pub struct Around {
    slots: Slots,
    paused: Vec<Line>,
}

impl Around {
    /// Asks the database.
    ///
    /// # Errors
    /// What it says.
    pub async fn look(store: &Store) -> Result<Around, StoreError> {
        let holding = store.holding().await?;
        let vids: Vec<Vid> = holding.iter().map(|holder| holder.vid.clone()).collect();
        let overviews = store.overview(Some(&vids), None, true).await?;
        let paused = store.controls().await?.into_iter().filter(|line| line.kind == "pause").collect();
        Ok(Around { slots: Slots::of(store.settings().max_active_repacks, &holding, &overviews), paused })
    }

    /// Why a tape is not further.
    pub fn explain(&self, overview: &Overview, settings: &Settings) -> Explained {
        explain(overview, &self.slots, &self.paused, settings, overview.now)
    }
}

/// Lists tapes.
///
/// # Errors
/// What the database says.
pub async fn run(store: &Store, ls: &Ls, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let selected = ls.filter.select(store, ls.all).await.map_err(told)?;
    let around = Around::look(store).await.map_err(told)?;
    let settings = store.settings();
    let rows: Vec<(&Overview, Explained)> =
        selected.overviews.iter().map(|overview| (overview, around.explain(overview, settings))).collect();
    if json || ls.jsonl {
        machines(&rows, ls.jsonl, desk)?;
    } else {
        people(&rows, ls.long, desk)?;
    }
    for vid in &selected.missing {
        desk.remark(&format!("error: {vid}: not in the table"));
    }
    for glob in &selected.unmatched {
        desk.remark(&format!("error: {glob}: no such tape in the table"));
    }
    if selected.odd_left_out > 0 {
        desk.remark(&format!("odd rows left out: {}; 'ls' without conditions names them", selected.odd_left_out));
    }
    let found = selected.missing.is_empty() && selected.unmatched.is_empty();
    Ok(if found { Exit::Done } else { Exit::Failed })
}

fn machines(rows: &[(&Overview, Explained)], lines: bool, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    let objects = rows.iter().map(|(overview, why)| object(overview, why));
    if lines {
        for object in objects {
            desk.data(&object.to_string())?;
        }
        return Ok(());
    }
    desk.data(&Value::Array(objects.collect()).to_string())
}

/// One tape for machines.
pub fn object(overview: &Overview, why: &Explained) -> Value {
    let tape = overview.row.as_ref().ok();
    let task = overview.task.as_ref();
    let time = |at: Option<DateTime<Utc>>| at.map(iso);
    let stamp = |state: State| time(tape.and_then(|tape| tape.stamps.at(state)));
    let next = task.and_then(|task| match task.next {
        Next::Now => None,
        Next::At(at) => Some(iso(at)),
        Next::Never => Some("never".to_owned()),
    });
    json!({
        "vid": vid_of(overview),
        "state": tape.map(Tape::state),
        "mode": tape.map(|tape| tape.mode),
        "entered": stamp(State::Entered),
        "started": stamp(State::Started),
        "repacked": stamp(State::Repacked),
        "quarantined": stamp(State::Quarantined),
        "reclaimed": stamp(State::Reclaimed),
        "finished": stamp(State::Finished),
        "pool": tape.map(|tape| &tape.tapepool),
        "mediatype": tape.map(|tape| &tape.mediatype),
        "priority": tape.map(|tape| tape.priority),
        "responsible": tape.map(|tape| &tape.responsible),
        "files": tape.map(|tape| tape.files),
        "bytes": tape.map(|tape| tape.bytes),
        "usage": tape.map(|tape| tape.usage),
        "last_write_date": time(tape.and_then(|tape| tape.last_write_date)),
        "stage": task.and_then(|task| task.stage.as_ref()),
        "generation": task.map(|task| task.generation),
        "outcome": task.and_then(|task| task.outcome),
        "reason_code": task.and_then(|task| task.reason.as_ref()).map(|reason| &reason.code),
        "reason": task.and_then(|task| task.reason.as_ref()).map(|reason| &reason.text),
        "next_attempt_at": next,
        "dispatched_at": time(task.and_then(|task| task.dispatched_at)),
        "attempts": task.map(|task| task.attempts),
        "crashes": task.map(|task| task.crashes),
        "owner": task.and_then(|task| task.owner.as_ref()),
        "lease_until": time(task.and_then(|task| task.lease_until)),
        "settle_until": time(task.and_then(|task| task.settle_until)),
        "slot_since": time(task.and_then(|task| task.slot_since)),
        "wanted": task.and_then(|task| task.wanted),
        "round": task.map(|task| task.round),
        "progress": task.and_then(|task| task.progress.as_ref()),
        "progress_at": time(task.and_then(|task| task.progress_at)),
        "hold": overview.hold.as_ref().map(|hold| json!({"who": hold.who, "why": hold.why, "until": time(hold.until)})),
        "waits": json!({"code": why.code, "text": why.text, "until": time(why.until), "next": why.next}),
        "odd": overview.row.as_ref().err().map(|odd| &odd.problems),
    })
}

fn people(rows: &[(&Overview, Explained)], long: bool, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    let header: &[&str] = if long {
        &[
            "VID",
            "STATE",
            "MODE",
            "SINCE",
            "ENTERED",
            "POOL",
            "MEDIA",
            "PRIO",
            "RESPONSIBLE",
            "FILES",
            "BYTES",
            "USAGE",
            "STAGE",
            "ROUND",
            "SLOT",
            "OWNER",
            "WHY",
        ]
    } else {
        &["VID", "STATE", "MODE", "SINCE", "POOL", "PRIO", "WHY"]
    };
    let good: Vec<Vec<Cell>> = rows
        .iter()
        .filter_map(|(overview, why)| {
            let tape = overview.row.as_ref().ok()?;
            Some(if long { wide(tape, overview, why) } else { narrow(tape, overview, why) })
        })
        .collect();
    if good.is_empty() {
        desk.remark("no tapes");
    } else {
        let table = desk.table(header, good);
        desk.data(&table)?;
    }
    let odd: Vec<String> = rows
        .iter()
        .filter_map(|(overview, _)| overview.row.as_ref().err())
        .map(|odd| format!("  {}: {}", clean(&odd.tape), clean(&odd.problems.join("; "))))
        .collect();
    if !odd.is_empty() {
        desk.data(&format!("odd rows, left alone until they are put right:\n{}", odd.join("\n")))?;
    }
    Ok(())
}

/// The explanation in one cell.
pub fn why_text(why: &Explained, now: DateTime<Utc>) -> String {
    match why.until {
        Some(until) => format!("{} ({})", why.text, remaining(until, now)),
        None => why.text.clone(),
    }
}

fn since(tape: &Tape, now: DateTime<Utc>) -> String {
    tape.stamps.at(tape.state()).map(|at| ago(now - at)).unwrap_or_default()
}

fn colour(tape: &Tape, overview: &Overview) -> Option<Color> {
    let outcome = overview.task.as_ref().and_then(|task| task.outcome);
    match (tape.mode, outcome) {
        (Mode::Error, _) | (Mode::Auto, Some(Outcome::Failed)) => Some(Color::Red),
        (Mode::Manual, _) | (Mode::Auto, Some(Outcome::Stalled | Outcome::Retrying)) => Some(Color::Yellow),
        (Mode::Auto, Some(Outcome::Waiting) | None) => None,
    }
}

fn narrow(tape: &Tape, overview: &Overview, why: &Explained) -> Vec<Cell> {
    vec![
        cell(tape.vid.as_str()),
        cell(tape.state().column()),
        coloured(tape.mode.label(), colour(tape, overview)),
        cell(since(tape, overview.now)),
        cell(&tape.tapepool),
        cell(tape.priority.to_string()),
        coloured(why_text(why, overview.now), colour(tape, overview)),
    ]
}

fn wide(tape: &Tape, overview: &Overview, why: &Explained) -> Vec<Cell> {
    let task = overview.task.as_ref();
    let text = |value: Option<String>| cell(value.unwrap_or_else(|| "-".to_owned()));
    vec![
        cell(tape.vid.as_str()),
        cell(tape.state().column()),
        coloured(tape.mode.label(), colour(tape, overview)),
        cell(since(tape, overview.now)),
        cell(crate::output::local(tape.stamps.begun())),
        cell(&tape.tapepool),
        cell(&tape.mediatype),
        cell(tape.priority.to_string()),
        cell(&tape.responsible),
        cell(tape.files.to_string()),
        cell(bytes(tape.bytes)),
        cell(format!("{}%", tape.usage)),
        text(task.and_then(|task| task.stage.clone())),
        text(task.map(|task| task.round.to_string())),
        text(task.and_then(|task| task.slot_since).map(|at| ago(overview.now - at))),
        text(task.and_then(|task| task.owner.clone())),
        coloured(why_text(why, overview.now), colour(tape, overview)),
    ]
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use common::explain::followed;
    use common::journey::Stamps;
    use common::tape::OddRow;
    use common::task::{Hold, Progress};

    use super::*;

    const DOCUMENTATION: &str = include_str!("../../../docs/json-manager.md");

    fn overview() -> Overview {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let tape = Tape {
            vid: "V01007".parse().unwrap(),
            stamps: Stamps::entered(now - TimeDelta::hours(26)),
            mode: Mode::Auto,
            priority: 1,
            mediatype: "LTO9".to_owned(),
            tapepool: "raw\x1b[31m".to_owned(),
            responsible: "bob".to_owned(),
            files: 4,
            bytes: 4_000_000,
            usage: 40,
            last_write_date: None,
            xmin: 7,
        };
        let mut task = followed(&tape, None, &Settings::default(), now).0;
        task.progress = Some(Progress::default());
        task.next = Next::Never;
        let hold = Some(Hold { who: "alice@desk".to_owned(), why: "audit".to_owned(), until: None });
        Overview { row: Ok(tape), task: Some(task), hold, now }
    }

    fn around() -> Around {
        Around { slots: Slots { taken: 0, max: 1, stuck: Vec::new() }, paused: Vec::new() }
    }

    fn keys(value: &Value) -> Vec<&String> {
        value.as_object().unwrap().keys().collect()
    }

    #[test]
    fn every_key_is_documented_and_every_documented_key_is_there() {
        let overview = overview();
        let why = around().explain(&overview, &Settings::default());
        let object = object(&overview, &why);
        let section = DOCUMENTATION.split("## A tape").nth(1).unwrap().split("`waits.code`").next().unwrap();
        let names = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let rows: Vec<Vec<&str>> =
            section.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('|').collect()).collect();
        let documented: Vec<String> = rows.iter().flat_map(|row| names(row[1])).collect();
        assert_eq!(keys(&object), documented.iter().collect::<Vec<_>>());
        for inner in ["progress", "hold", "waits"] {
            let row = rows.iter().find(|row| names(row[1]) == [inner]).unwrap();
            let documented = names(row[2]);
            assert_eq!(keys(&object[inner]), documented.iter().collect::<Vec<_>>(), "{inner}");
        }
        assert_eq!(object["entered"], "2027-01-14T06:00:00Z");
        assert_eq!(object["next_attempt_at"], "never");
    }

    #[test]
    fn an_odd_row_has_the_same_keys_and_comes_last_for_people() {
        let good = overview();
        let odd = Overview {
            row: Err(OddRow { tape: "A\\n1".to_owned(), problems: vec!["entered is not set".to_owned()] }),
            task: None,
            hold: None,
            now: good.now,
        };
        let settings = Settings::default();
        let around = around();
        let rows: Vec<_> = [&odd, &good].map(|overview| (overview, around.explain(overview, &settings))).into();
        assert_eq!(keys(&object(rows[0].0, &rows[0].1)), keys(&object(rows[1].0, &rows[1].1)));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut desk = Desk { out: &mut out, err: &mut err, ask: None, width: None, colour: false };
        people(&rows, false, &mut desk).unwrap();
        people(&rows, true, &mut desk).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.find("V01007").unwrap() < text.find("odd rows").unwrap(), "{text}");
        assert!(text.contains("1d2h") && text.contains("4.0M") && text.contains("audit"), "{text}");
        assert!(!text.contains('\x1b'), "the pool's name must not steer the terminal: {text:?}");
    }
}

//! Hold and release: by VID, whether or not it has a row.

use chrono::TimeDelta;
use common::explain::{ago, followed};
use common::store::HoldChange;
use common::task::{Ground, Note, later};
use serde_json::{Value, json};

use super::{Facts, Judged, Plan};

pub(super) fn hold(span: Option<TimeDelta>, reason: Option<&str>, facts: Facts<'_>, ground: &Ground<'_>) -> Judged {
    let until = span.and_then(|span| span.to_std().ok()).map(|span| later(ground.now, span));
    // A reason that somebody gave is not lost because nobody gives another.
    let there = ground.control.hold.as_ref().map(|hold| hold.why.as_str());
    let why = reason.or(there).unwrap_or("no reason given").to_owned();
    if let Some(hold) = &ground.control.hold
        && hold.why == why
        && hold.until.is_none()
        && until.is_none()
    {
        return Judged::new(Plan::Already(format!("on hold by {}: {}", hold.who, hold.why)));
    }
    if let Some(hold) = &ground.control.hold
        && hold.outlasts(until)
    {
        let text =
            format!("on hold by {}: {}; it stays so, for that lasts longer; 'release' ends it", hold.who, hold.why);
        return Judged::new(Plan::Already(text));
    }
    let mut what = vec![match until {
        Some(until) => format!("on hold for {}: {why}", ago(until - ground.now)),
        None => format!("on hold until released: {why}"),
    }];
    if let Some(hold) = &ground.control.hold {
        what.push(format!("instead of the hold by {}: {}", hold.who, hold.why));
    }
    let remarks = match facts.row {
        None => vec!["it is not in the table; scan and prepare obey the hold".to_owned()],
        Some(_) => {
            let leased = facts.task.filter(|task| task.is_leased(ground.now)).and_then(|task| task.owner.as_deref());
            leased
                .map(|owner| format!("{owner} is at it now: the command it runs is finished, and it starts no other"))
                .into_iter()
                .collect()
        }
    };
    let instead = ground.control.hold.as_ref();
    let instead = instead.map(|hold| json!({"who": hold.who, "why": hold.why, "until": hold.until}));
    let note = stage_note(facts, ground, "hold", json!({"why": why, "until": until, "instead": instead}));
    Judged {
        hold: Some(HoldChange::Put { why, until }),
        notes: vec![note],
        ..Judged::new(Plan::Change { what, remarks })
    }
}

pub(super) fn release(reason: Option<&str>, facts: Facts<'_>, ground: &Ground<'_>) -> Judged {
    let Some(hold) = &ground.control.hold else {
        return Judged::new(Plan::Already("not on hold".to_owned()));
    };
    let what = vec![format!("no longer on hold ({}: {})", hold.who, hold.why)];
    let note = stage_note(
        facts,
        ground,
        "release",
        json!({"hold": {"who": hold.who, "why": hold.why, "until": hold.until}, "reason": reason}),
    );
    Judged {
        hold: Some(HoldChange::Release),
        notes: vec![note],
        ..Judged::new(Plan::Change { what, remarks: Vec::new() })
    }
}

fn stage_note(facts: Facts<'_>, ground: &Ground<'_>, kind: &'static str, detail: Value) -> Note {
    let stage = match facts.row {
        Some(Ok(tape)) => followed(tape, facts.task, ground.settings, ground.now).0.stage.clone(),
        Some(Err(_)) | None => None,
    };
    Note { kind, stage, detail }
}

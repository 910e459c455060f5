//! `pause` and `resume`: whether work is started at a stage.

use chrono::{DateTime, TimeDelta, Utc};
use common::store::{Line, Store};
use serde_json::{Value, json};

use super::{change, told};
use crate::cli::StageName;
use crate::output::{Desk, Exit, iso, local};

/// Pauses stages (`pause`: for how long), or lets them go on (none).
///
/// # Errors
/// What the database says.
pub async fn run(
    store: &Store,
    options: &StageName,
    pause: Option<Option<TimeDelta>>,
    json: bool,
    desk: &mut Desk<'_>,
) -> anyhow::Result<Exit> {
    store.ready().await.map_err(told)?;
    let now = store.now().await.map_err(told)?;
    let until = pause.flatten().and_then(|span| now.checked_add_signed(span));
    let controls = store.controls().await.map_err(told)?;
    let paused = |stage: &str| controls.iter().find(|line| line.kind == "pause" && line.name == stage);
    // A reason that somebody gave is not lost because nobody gives another.
    let why = |stage: &str| {
        let there = paused(stage).filter(|_| pause.is_some()).map(|line| line.hold.why.clone());
        options.reason.clone().or(there).unwrap_or_else(|| "no reason given".to_owned())
    };
    let mut to_do = Vec::new();
    let mut results = Vec::new();
    for stage in &options.stage.0 {
        let there = paused(stage);
        match (pause.is_some(), there) {
            (true, Some(line)) if line.hold.outlasts(until) => {
                let text = format!("{}; it stays so, for it lasts longer; 'resume {stage}' ends it", shown(line));
                results.push((*stage, "already", text));
            }
            (true, Some(line)) if line.hold.why == why(stage) && line.hold.until.is_none() && until.is_none() => {
                results.push((*stage, "already", shown(line)));
            }
            (true, _) => to_do.push((*stage, pausing(&why(stage), until, there))),
            (false, None) => results.push((*stage, "already", "not paused".to_owned())),
            (false, Some(line)) => to_do.push((*stage, format!("to go on (was {})", shown(line)))),
        }
    }
    if !json || !options.consent.yes {
        for (stage, _, text) in &results {
            desk.remark(&format!("stage {stage}: already so: {text}"));
        }
        for (stage, text) in &to_do {
            desk.remark(&format!("stage {stage}: {text}"));
        }
    }
    let question = format!("change {} stage{}?", to_do.len(), if to_do.len() == 1 { "" } else { "s" });
    if let Some(exit) = change::not_agreed(options.consent, to_do.len(), &question, desk) {
        return Ok(exit);
    }
    for (stage, text) in to_do {
        let done = if options.consent.dry_run {
            "would change"
        } else {
            let why = why(stage);
            let instead =
                paused(stage).map(|line| json!({"who": line.hold.who, "why": line.hold.why, "until": line.hold.until}));
            let detail = json!({"why": why, "until": until, "instead": instead});
            let pause = pause.map(|_| (why.as_str(), until));
            if store.pause(stage, pause, &detail).await.map_err(told)? { "changed" } else { "already" }
        };
        results.push((stage, done, text));
    }
    if json {
        let list: Vec<Value> = results
            .iter()
            .map(|(stage, result, text)| json!({"stage": stage, "result": result.replace(' ', "-"), "text": text}))
            .collect();
        desk.data(
            &json!({"verb": if pause.is_some() { "pause" } else { "resume" }, "dry_run": options.consent.dry_run,
                    "until": until.map(iso), "stages": list})
            .to_string(),
        )?;
    } else {
        for (stage, result, _) in &results {
            desk.data(&format!("{stage}: {}", if *result == "already" { "already so" } else { result }))?;
        }
    }
    Ok(Exit::Done)
}

fn pausing(why: &str, until: Option<DateTime<Utc>>, there: Option<&Line>) -> String {
    let until = until.map_or_else(|| "until resumed".to_owned(), |until| format!("until {}", local(until)));
    let instead = there.map(|line| format!(", instead of: {}", shown(line))).unwrap_or_default();
    format!("to be paused {until}: {why}{instead}")
}

fn shown(line: &Line) -> String {
    format!("paused by {}: {}", line.hold.who, line.hold.why)
}

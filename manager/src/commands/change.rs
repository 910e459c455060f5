//! Every verb that changes tapes: show what will change and what was not found, ask, change, say what became of it.

use std::collections::HashSet;

use common::explain::ago;
use common::store::{Overview, Store, StoreError};
use common::tape::Vid;
use common::task::{Control, Ground, Hold};
use serde_json::{Value, json};

use super::told;
use crate::acts::{Act, Facts, Plan, carry_out, judge, standing};
use crate::cli::{Ch, Consent, On};
use crate::output::{Desk, Exit, clean};

/// Values that no tape can be given, in words.
///
/// # Errors
/// What the database says.
pub async fn unfit(store: &Store, ch: &Ch) -> anyhow::Result<Option<String>> {
    let known = &store.settings().priorities.by_number;
    if let Some(priority) = ch.priority.filter(|priority| !known.contains_key(priority)) {
        let there: Vec<String> = known.iter().map(|(number, entry)| format!("{number} ({})", entry.name)).collect();
        return Ok(Some(format!(
            "priority {priority} is not in the configuration, which has {}: take one of these, or add it under 'priorities'",
            there.join(", ")
        )));
    }
    match &ch.responsible {
        Some(responsible) => store.responsible_too_wide(responsible).await.map_err(told),
        None => Ok(None),
    }
}

/// Changes tapes.
///
/// # Errors
/// What the database says, before anything was changed.
pub async fn run(store: &Store, act: &Act, on: &On, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    store.ready().await.map_err(told)?;
    let mut seen = HashSet::new();
    let vids: Vec<Vid> = on.vids.iter().filter(|vid| seen.insert((*vid).clone())).cloned().collect();
    let preview = Preview::look(store, &vids).await.map_err(told)?;
    let plans: Vec<Plan> = vids.iter().map(|vid| preview.plan(store, act, on.reason.as_deref(), vid)).collect();
    let to_do = plans.iter().filter(|plan| matches!(plan, Plan::Change { .. })).count();
    if !json {
        for (vid, plan) in vids.iter().zip(&plans) {
            if matches!(plan, Plan::Change { .. }) && !on.consent.dry_run && !on.consent.yes {
                desk.remark(&foreseen(vid, plan, &preview.standing(vid)));
            }
        }
    }
    let question = format!("{} {to_do} tape{}?", act.verb(), if to_do == 1 { "" } else { "s" });
    if let Some(exit) = not_agreed(on.consent, to_do, &question, desk) {
        return Ok(exit);
    }
    let mut report = Report { act, json, dry_run: on.consent.dry_run, exit: Exit::Done, objects: Vec::new() };
    for (vid, plan) in vids.iter().zip(plans) {
        let result = match plan {
            Plan::Change { .. } if !on.consent.dry_run => {
                store.locked(vid, false, |locked| carry_out(act, on.reason.as_deref(), locked)).await
            }
            plan => Ok(plan),
        };
        report.tell(vid, result, &preview.standing(vid), desk)?;
    }
    if json {
        desk.data(&json!({"verb": act.verb(), "dry_run": on.consent.dry_run, "tapes": report.objects}).to_string())?;
    }
    Ok(report.exit)
}

/// Whether to leave without changing anything: nobody agreed, or nobody can be asked.
pub fn not_agreed(consent: Consent, to_do: usize, question: &str, desk: &mut Desk<'_>) -> Option<Exit> {
    if consent.yes || consent.dry_run || to_do == 0 {
        return None;
    }
    let Some(ask) = &mut desk.ask else {
        desk.remark(
            "error: nothing is changed: nobody is there to be asked; give --yes to change it, or --dry-run to only look",
        );
        return Some(Exit::Misuse);
    };
    if ask(question) {
        return None;
    }
    desk.remark("nothing is changed");
    Some(Exit::Failed)
}

/// What is known before asking.
struct Preview {
    overviews: Vec<Overview>,
    holds: Vec<(String, Hold)>,
    paused: Vec<String>,
    now: chrono::DateTime<chrono::Utc>,
}

impl Preview {
    async fn look(store: &Store, vids: &[Vid]) -> Result<Preview, StoreError> {
        let overviews = store.overview(Some(vids), None, true).await?;
        let controls = store.controls().await?;
        let now = store.now().await?;
        let paused = controls.iter().filter(|line| line.kind == "pause").map(|line| line.name.clone()).collect();
        let holds =
            controls.into_iter().filter(|line| line.kind == "hold").map(|line| (line.name, line.hold)).collect();
        Ok(Preview { overviews, holds, paused, now })
    }

    fn find(&self, vid: &Vid) -> Option<&Overview> {
        self.overviews.iter().find(|overview| match &overview.row {
            Ok(tape) => tape.vid == *vid,
            Err(odd) => odd.tape == vid.as_str(),
        })
    }

    fn standing(&self, vid: &Vid) -> String {
        standing(self.find(vid).map(|overview| &overview.row), self.now)
    }

    fn plan(&self, store: &Store, act: &Act, reason: Option<&str>, vid: &Vid) -> Plan {
        let overview = self.find(vid);
        let hold = self.holds.iter().find(|(name, _)| name == vid.as_str()).map(|(_, hold)| hold.clone());
        let control = Control { hold, paused: self.paused.clone() };
        let ground = Ground {
            settings: store.settings(),
            control: &control,
            now: self.now,
            fresh_generation: 0,
            fresh_epoch: 0,
            jitter: 0.0,
        };
        let facts = Facts {
            vid,
            row: overview.map(|overview| &overview.row),
            task: overview.and_then(|overview| overview.task.as_ref()),
        };
        judge(act, reason, facts, &ground).plan
    }
}

fn foreseen(vid: &Vid, plan: &Plan, standing: &str) -> String {
    let mut text = format!("{vid} ({standing})");
    if let Plan::Change { what, remarks } = plan {
        what.iter().for_each(|line| text.push_str(&format!("\n  {}", clean(line))));
        remarks.iter().for_each(|line| text.push_str(&format!("\n  note: {}", clean(line))));
    }
    text
}

/// What became of the tapes.
struct Report<'a> {
    act: &'a Act,
    json: bool,
    dry_run: bool,
    exit: Exit,
    objects: Vec<Value>,
}

impl Report<'_> {
    fn tell(
        &mut self,
        vid: &Vid,
        result: Result<Plan, StoreError>,
        standing: &str,
        desk: &mut Desk<'_>,
    ) -> anyhow::Result<()> {
        let verb = self.act.verb();
        let mut notes = Vec::new();
        let (word, object, data, error) = match result {
            Ok(Plan::Change { what, remarks }) => {
                let word = if self.dry_run { "would-change" } else { "changed" };
                let would = if self.dry_run { "would change: " } else { "" };
                let line = format!("{vid}: {would}{}", clean(&what.join("; ")));
                let object = json!({"what": what, "remarks": remarks});
                notes = remarks;
                (word, object, Some(line), None)
            }
            Ok(Plan::Already(text)) => {
                let line = format!("{vid}: already so: {}", clean(&text));
                ("already", json!({"text": text}), Some(line), None)
            }
            Ok(Plan::Refused { why, next }) => {
                let line = format!(
                    "error: {vid}: {verb} is refused: {}\n       it is {standing}; nothing is changed\n       next: {}",
                    clean(&why),
                    clean(&next)
                );
                ("refused", json!({"text": why, "next": next}), None, Some(line))
            }
            Ok(Plan::Missing) => {
                let line = format!(
                    "error: {vid}: not in the table\n       next: see 'cta-ops-repack-manager show {vid}' for what is known of it"
                );
                ("not-found", json!({"text": "not in the table"}), None, Some(line))
            }
            Err(StoreError::Busy(why)) => {
                let line = format!(
                    "error: {vid}: {verb} failed: another session keeps its row locked ({why})\n       \
                     nothing is changed for it\n       next: try again; if it stays so, look for an open transaction in psql"
                );
                ("failed", json!({"text": format!("another session keeps its row locked: {why}")}), None, Some(line))
            }
            Err(StoreError::Database(why)) => {
                let line = format!(
                    "error: {vid}: {verb} failed: {why:#}\n       \
                     whether it was changed is only known if the database said no: see 'cta-ops-repack-manager show {vid}'"
                );
                ("failed", json!({"text": format!("{why:#}")}), None, Some(line))
            }
        };
        if error.is_some() {
            self.exit = Exit::Failed;
        }
        let mut fields = json!({"vid": vid, "result": word});
        if let (Some(fields), Value::Object(object)) = (fields.as_object_mut(), object) {
            fields.extend(object);
        }
        self.objects.push(fields);
        if self.json {
            return Ok(());
        }
        match (data, error) {
            (_, Some(line)) => desk.remark(&line),
            (Some(line), None) => desk.data(&line)?,
            (None, None) => {}
        }
        for remark in notes {
            desk.remark(&format!("       note: {}", clean(&remark)));
        }
        Ok(())
    }
}

/// How long a wait still lasts, for people.
pub fn remaining(until: chrono::DateTime<chrono::Utc>, now: chrono::DateTime<chrono::Utc>) -> String {
    match until - now {
        left if left < chrono::TimeDelta::seconds(1) => "any moment".to_owned(),
        left => format!("{} more", ago(left)),
    }
}

//! Every verb that changes tapes: show what will change and what was not found, ask, change, say what became of it.

use std::collections::HashSet;

use anyhow::Context as _;
use common::explain::ago;
use common::rights;
use common::store::{Store, StoreError};
use common::tape::Vid;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::selection::{Selection, Shown, Unchosen, filter};
use super::told;
use crate::acts::{Act, Facts, Plan, carry_out, judge, standing};
use crate::cli::{Ch, Consent, On};
use crate::filter::vid_of;
use crate::output::{Desk, Exit, clean};

/// Tapes that are shown before asking.
const SHOWN: usize = 50;

/// More tapes than this, and it is said how far it is, every so many.
const MANY: usize = 100;

/// Values that no tape can be given, in words.
///
/// # Errors
/// What the database says.
pub async fn unfit(store: &Store, ch: &Ch) -> anyhow::Result<Option<String>> {
    if ch.mode.is_none() && ch.priority.is_none() && ch.responsible.is_none() {
        let what = "ch wants to know what to change: --mode auto or manual, --priority NUMBER, --responsible NAME";
        return Ok(Some(what.to_owned()));
    }
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
    let (consent, reason) = (on.bulk.consent, on.bulk.reason.as_deref());
    if let Some(misuse) = act.wants_reason().filter(|_| reason.is_none() && !consent.dry_run) {
        desk.remark(&format!("error: {} wants --reason: {misuse}", act.verb()));
        return Ok(Exit::Misuse);
    }
    let filter = match filter(on, act.verb()) {
        Ok(filter) => filter,
        Err(unchosen) => return Ok(unchosen_said(unchosen, desk)),
    };
    store.ready().await.map_err(told)?;
    let selection = Selection::look(store, &filter).await.map_err(told)?;
    selection.remarks.iter().for_each(|remark| desk.remark(&clean(remark)));
    if filter.which.held && *act == Act::Release {
        for name in held_off_the_way(store).await.map_err(told)? {
            desk.remark(&format!("{} is on hold too, and not on its way: name it to release it", clean(&name)));
        }
    }
    if selection.vids.is_empty() && !json {
        return Ok(unchosen_said(Unchosen::Nothing("no tape matches: nothing is changed".to_owned()), desk));
    }
    let plans: Vec<Plan> = selection.vids.iter().map(|vid| selection.plan(store, act, reason, vid)).collect();
    let to_do = plans.iter().filter(|plan| matches!(plan, Plan::Change { .. })).count();
    // Where nothing can be changed nothing is asked, and the report says why.
    if to_do > 0 && !consent.dry_run && !consent.yes {
        foresee(&selection, &plans, desk);
    }
    let question = format!("{} {to_do} tape{}?", act.verb(), if to_do == 1 { "" } else { "s" });
    if let Some(exit) = not_agreed(consent, to_do, &question, desk) {
        return Ok(exit);
    }
    let exit = if selection.unmatched || selection.vids.is_empty() { Exit::Failed } else { Exit::Done };
    let mut report = Report { act, json, dry_run: consent.dry_run, exit, objects: Vec::new() };
    carry_all_out(store, &selection, plans, reason, &mut report, desk).await?;
    if json {
        desk.data(&json!({"verb": act.verb(), "dry_run": consent.dry_run, "tapes": report.objects}).to_string())?;
    }
    Ok(report.exit)
}

fn unchosen_said(unchosen: Unchosen, desk: &mut Desk<'_>) -> Exit {
    let (text, exit) = match unchosen {
        Unchosen::Misuse(text) => (text, Exit::Misuse),
        Unchosen::Nothing(text) => (text, Exit::Failed),
    };
    desk.remark(&format!("error: {text}"));
    exit
}

/// VIDs on hold that no condition finds, for they have no row that is on its way.
async fn held_off_the_way(store: &Store) -> Result<Vec<String>, StoreError> {
    let held = store.holds().await?;
    let vids: Vec<Vid> = held.iter().filter_map(|name| name.parse().ok()).collect();
    let rows = store.overview(Some(&vids), None, false).await?;
    let there: HashSet<&str> = rows.iter().map(vid_of).collect();
    Ok(held.iter().filter(|name| !there.contains(name.as_str())).cloned().collect())
}

/// A transaction for each tape; told to end, it leaves the others as they are.
async fn carry_all_out(
    store: &Store,
    selection: &Selection,
    plans: Vec<Plan>,
    reason: Option<&str>,
    report: &mut Report<'_>,
    desk: &mut Desk<'_>,
) -> anyhow::Result<()> {
    let to_do = plans.iter().filter(|plan| matches!(plan, Plan::Change { .. })).count();
    let changes = to_do > 0 && !report.dry_run;
    let interrupted = if changes { Some(interrupts()?) } else { None };
    let told_to_end = || interrupted.as_ref().is_some_and(|told| *told.borrow());
    let (mut tried, mut heard) = (0, true);
    for (vid, plan) in selection.vids.iter().zip(plans) {
        let result = match plan {
            Plan::Change { .. } if !report.dry_run => {
                if told_to_end() {
                    report.not_reached(vid);
                    continue;
                }
                let done = locked(store, report.act, reason, vid, &selection.shown(vid)).await;
                tried += 1;
                if to_do > MANY && tried % MANY == 0 {
                    desk.remark(&format!("{tried} of {to_do} tapes"));
                }
                done
            }
            plan => Ok(plan),
        };
        // All of it was agreed to: a reader that has gone away (`| head`) stops nothing half way.
        heard &= report.tell(vid, result, &selection.standing(vid), desk).is_ok();
    }
    if !heard {
        desk.remark("not all of the results could be printed: 'cta-ops-repack-manager history' has what was changed");
    }
    if tried < to_do && changes {
        let left = to_do - tried;
        desk.remark(&format!(
            "error: told to end: {tried} of {to_do} tapes were gone through, {left} are as they were"
        ));
        report.exit = Exit::Failed;
    }
    Ok(())
}

/// One tape, judged again under its locks. What changed since it was looked at was not what the operator decided on.
async fn locked(store: &Store, act: &Act, reason: Option<&str>, vid: &Vid, shown: &Shown) -> Result<Plan, StoreError> {
    store
        .locked(vid, false, |locked| {
            let now = Shown::of(locked.row.as_ref(), locked.task.as_ref(), locked.control.hold.as_ref());
            if now == *shown {
                return carry_out(act, reason, locked);
            }
            let (row, task) = (locked.row.clone(), locked.task.clone());
            let vid = locked.vid;
            let (_, _, ground, _) = locked.parts();
            let plan = judge(act, reason, Facts { vid, row: row.as_ref(), task: task.as_ref() }, &ground).plan;
            match plan {
                Plan::Change { .. } => Plan::Refused {
                    why: format!("it changed after it was looked at: it is {} now", standing(row.as_ref(), ground.now)),
                    next: "look again, and repeat the command if it is still meant".to_owned(),
                },
                other => other,
            }
        })
        .await
}

/// Turns true at the first SIGINT or SIGTERM.
fn interrupts() -> anyhow::Result<watch::Receiver<bool>> {
    let mut int = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut term = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let (tell, told) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
        }
        tell.send_replace(true);
    });
    Ok(told)
}

/// Says before asking what is changed, and what was named and is not.
fn foresee(selection: &Selection, plans: &[Plan], desk: &mut Desk<'_>) {
    let changes = || selection.vids.iter().zip(plans).filter(|(_, plan)| matches!(plan, Plan::Change { .. }));
    for (vid, plan) in changes().take(SHOWN) {
        desk.remark(&foreseen(vid, plan, &selection.standing(vid)));
    }
    let more = changes().count().saturating_sub(SHOWN);
    if more > 0 {
        desk.remark(&format!("and {more} more: --dry-run shows them all"));
    }
    for (vid, plan) in selection.vids.iter().zip(plans) {
        match plan {
            Plan::Missing => desk.remark(&format!("{vid}: not in the table")),
            Plan::Refused { why, .. } => desk.remark(&format!("{vid} stays as it is: {}", clean(why))),
            Plan::Change { .. } | Plan::Already(_) => {}
        }
    }
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
    /// Its turn did not come.
    fn not_reached(&mut self, vid: &Vid) {
        self.objects
            .push(json!({"vid": vid, "result": "failed", "text": "told to end before its turn: nothing is changed"}));
    }

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
                    "error: {vid}: not in the table\n       next: check the VID; 'cta-ops-repack-manager ls '{}*'' lists those that begin so, 'history {vid}' what was known of it",
                    &vid.as_str()[..vid.as_str().len().min(4)]
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
                let why = format!("{why:#}");
                if let Some(advice) = rights::advice(&why, rights::OPERATOR) {
                    let line = format!(
                        "error: {vid}: {verb} failed: {why}\n       nothing is changed for it\n       next: {advice}"
                    );
                    ("failed", json!({"text": why, "next": advice}), None, Some(line))
                } else {
                    let line = format!(
                        "error: {vid}: {verb} failed: {why}\n       \
                     whether it was changed is only known if the database said no: see 'cta-ops-repack-manager show {vid}'"
                    );
                    ("failed", json!({"text": why}), None, Some(line))
                }
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

//! `add`: prepare, from the operator's desk. The checks and the entering are prepare's own.

use anyhow::Context as _;
use common::cta::Cta;
use common::store::Store;
use common::tape::Vid;
use producer::prepare::{Order, Prepared, prepare};
use serde_json::{Value, json};
use worker::program;

use super::change::not_agreed;
use super::selection::named;
use super::told;
use crate::cli::Add;
use crate::filter::Name;
use crate::output::{Desk, Exit, clean};

/// Enters tapes.
///
/// # Errors
/// When database or CTA do not answer while tapes are checked: nothing was entered.
pub async fn run(store: &Store, add: &Add, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let order = match order(store, add) {
        Ok(order) => order,
        Err(misuse) => {
            desk.remark(&format!("error: {misuse}"));
            return Ok(Exit::Misuse);
        }
    };
    if let Some(misuse) = store.responsible_too_wide(&order.responsible).await.map_err(told)? {
        desk.remark(&format!("error: {misuse}"));
        return Ok(Exit::Misuse);
    }
    let cta = Cta::new(&store.settings().cta_admin);
    let stop = program::signals()?;
    let asks = !add.consent.yes && !add.consent.dry_run;
    if asks && desk.ask.is_none() {
        // Before CTA is asked about every one of them.
        return Ok(not_agreed(add.consent, 1, "", desk).unwrap_or(Exit::Misuse));
    }
    if asks {
        let looked = Order { dry_run: true, ..order.clone() };
        let checked = prepare(store, &cta, &looked, &stop).await?;
        foresee(&checked, &order, desk);
        let count = checked.added.len();
        let question = format!("add {count} tape{}?", if count == 1 { "" } else { "s" });
        if let Some(exit) = not_agreed(add.consent, count, &question, desk) {
            return Ok(exit);
        }
        if count == 0 {
            return tell(&checked, &order, json, desk);
        }
        // Those that were shown, and no other that has come to pass meanwhile.
        let shown = Order { vids: checked.added.clone(), ..order.clone() };
        let mut prepared = prepare(store, &cta, &shown, &stop).await?;
        prepared.already_there.extend(checked.already_there);
        prepared.refused.extend(checked.refused);
        return tell(&prepared, &order, json, desk);
    }
    let prepared = prepare(store, &cta, &order, &stop).await?;
    tell(&prepared, &order, json, desk)
}

/// What prepare is to do, checked as far as that goes without asking anybody.
fn order(store: &Store, add: &Add) -> Result<Order, String> {
    let priorities = &store.settings().priorities;
    let priority = add.priority.unwrap_or(priorities.default);
    if !priorities.by_number.contains_key(&priority) {
        let known: Vec<String> = priorities.by_number.keys().map(ToString::to_string).collect();
        return Err(format!("priority {priority} is not in the configuration (there are {})", known.join(", ")));
    }
    let names = named(&add.names, add.vidfile.as_ref())?;
    let mut seen = std::collections::HashSet::new();
    let vids: Vec<Vid> = names
        .into_iter()
        .filter_map(|name| match name {
            Name::Vid(vid) => seen.insert(vid.clone()).then_some(vid),
            Name::Glob(_) | Name::Stdin => None,
        })
        .collect();
    if vids.is_empty() {
        return Err("add wants to know which tapes: name them, or give --vidfile".to_owned());
    }
    Ok(Order {
        vids,
        priority,
        responsible: add.responsible.clone().unwrap_or_else(program::login),
        reason: add.reason.clone(),
        dry_run: add.consent.dry_run,
    })
}

fn foresee(checked: &Prepared, order: &Order, desk: &mut Desk<'_>) {
    for vid in &checked.added {
        desk.remark(&format!("{vid}\n  {}", entered(order)));
    }
    for refused in &checked.refused {
        desk.remark(&format!("{} stays out: {}", refused.vid, clean(&refused.reasons.join("; "))));
    }
}

fn entered(order: &Order) -> String {
    format!("in the table, priority {}, for {}", order.priority, clean(&order.responsible))
}

fn tell(prepared: &Prepared, order: &Order, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let exit = if prepared.refused.is_empty() { Exit::Done } else { Exit::Failed };
    let word = if prepared.dry_run { "would-change" } else { "changed" };
    let would = if prepared.dry_run { "would change: " } else { "" };
    let mut objects = Vec::new();
    for vid in &order.vids {
        if prepared.added.contains(vid) {
            objects.push(json!({"vid": vid, "result": word, "what": [entered(order)], "remarks": []}));
            if !json {
                desk.data(&format!("{vid}: {would}{}", entered(order)))?;
            }
        } else if prepared.already_there.contains(vid) {
            objects.push(json!({"vid": vid, "result": "already", "text": "in the table, on its way"}));
            if !json {
                desk.data(&format!("{vid}: already so: in the table, on its way"))?;
            }
        } else if let Some(refused) = prepared.refused.iter().find(|refused| refused.vid == *vid) {
            let (text, next) = (refused.reasons.join("; "), "put that right, then add it again");
            objects.push(json!({"vid": vid, "result": "refused", "text": text, "next": next}));
            if !json {
                desk.remark(&format!("error: {vid}: add is refused: {}\n       next: {next}", clean(&text)));
            }
        }
    }
    if json {
        let object: Value = json!({"verb": "add", "dry_run": prepared.dry_run, "tapes": objects});
        desk.data(&serde_json::to_string(&object).context("the report is no JSON")?)?;
    }
    Ok(exit)
}

//! `queues`: what the queues hold, asked of the queues themselves, beside what the rows say.

use common::broker::{Depth, Link, Topology};
use common::stages::STAGES;
use common::store::{Dispatched, Store};
use serde_json::{Value, json};

use super::told;
use crate::output::{Desk, Exit, cell};

/// What is said where no broker is configured.
pub const NO_BROKER: &str =
    "the configuration has no 'broker' section: every command does its stage itself, and there are no queues";

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Stage(&'static str),
    Dead,
    Parked,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Purpose::Stage(_) => "stage",
            Purpose::Dead => "dead",
            Purpose::Parked => "parked",
        }
    }

    fn stage(self) -> Option<&'static str> {
        match self {
            Purpose::Stage(stage) => Some(stage),
            Purpose::Dead | Purpose::Parked => None,
        }
    }
}

/// A queue, what it holds (none: not there), and what the rows of its stage say (none: not known, or not a stage's).
struct Seen {
    name: String,
    purpose: Purpose,
    depth: Option<Depth>,
    rows: Option<Dispatched>,
}

/// Shows the queues.
///
/// # Errors
/// When the broker cannot be asked.
pub async fn run(store: &Store, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let Some(broker) = &store.settings().broker else {
        let said = if json { json!({"broker": null, "queues": []}).to_string() } else { NO_BROKER.to_owned() };
        desk.data(&said)?;
        return Ok(Exit::Done);
    };
    let topology = Topology::new(&broker.prefix, STAGES.map(|stage| stage.name))?;
    let link = Link::connect(broker, "cta-ops-repack-manager queues").await?;
    let (rows, exit) = match store.dispatched().await {
        Ok(rows) => (Some(rows), Exit::Done),
        Err(error) => {
            desk.remark(&format!("error: what the rows say is not known: {:#}", told(error)));
            (None, Exit::Failed)
        }
    };
    let stages = STAGES.map(|stage| (topology.stage_queue(stage.name), Purpose::Stage(stage.name)));
    let others = [(topology.dead_queue(), Purpose::Dead), (topology.parked_queue(), Purpose::Parked)];
    let mut all = Vec::new();
    for (name, purpose) in stages.into_iter().chain(others) {
        let depth = link.depth(&name).await?;
        all.push(Seen { rows: rows_of(purpose, rows.as_deref()), name, purpose, depth });
    }
    let at = link.at().to_owned();
    link.close().await;
    if json {
        let queues: Vec<Value> = all.iter().map(object).collect();
        desk.data(&json!({"broker": at, "queues": queues}).to_string())?;
    } else {
        people(&all, desk)?;
    }
    Ok(exit)
}

fn rows_of(purpose: Purpose, rows: Option<&[Dispatched]>) -> Option<Dispatched> {
    let stage = purpose.stage()?;
    let none = || Dispatched { stage: stage.to_owned(), published: 0, worked_on: 0 };
    rows.map(|rows| rows.iter().find(|row| row.stage == stage).cloned().unwrap_or_else(none))
}

fn object(seen: &Seen) -> Value {
    json!({
        "queue": seen.name,
        "purpose": seen.purpose.name(),
        "stage": seen.purpose.stage(),
        "messages": seen.depth.map(|depth| depth.messages),
        "consumers": seen.depth.map(|depth| depth.consumers),
        "rows_published": seen.rows.as_ref().map(|rows| rows.published),
        "rows_worked_on": seen.rows.as_ref().map(|rows| rows.worked_on),
        "text": meaning(seen),
    })
}

fn people(all: &[Seen], desk: &mut Desk<'_>) -> anyhow::Result<()> {
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let rows = all
        .iter()
        .map(|seen| {
            vec![
                cell(&seen.name),
                cell(number(seen.depth.map(|depth| depth.messages.into()))),
                cell(number(seen.depth.map(|depth| depth.consumers.into()))),
                cell(number(seen.rows.as_ref().map(|rows| rows.published))),
                cell(number(seen.rows.as_ref().map(|rows| rows.worked_on))),
                cell(meaning(seen)),
            ]
        })
        .collect();
    let header = ["QUEUE", "IT HOLDS", "CONSUMERS", "ROWS PUBLISHED", "ROWS WORKED ON", "WHICH MEANS"];
    desk.data(&desk.table(&header, rows))
}

fn meaning(seen: &Seen) -> String {
    let Some(Depth { messages, consumers }) = seen.depth else {
        return "not there yet: a producer or a worker makes it when it connects".to_owned();
    };
    let waiting = match messages {
        0 => "empty".to_owned(),
        messages => format!("{messages} waiting"),
    };
    match seen.purpose {
        Purpose::Stage(stage) => {
            let taken = if consumers == 0 {
                format!("{waiting}, no consumers: no worker takes stage {stage}")
            } else {
                waiting
            };
            let published = seen.rows.as_ref().map_or(0, |rows| rows.published);
            match published - i64::from(messages) {
                more if more > 0 => format!(
                    "{taken}; the rows say {published} are published: {more} are in workers' hands, or lost and will be published again"
                ),
                _ => taken,
            }
        }
        Purpose::Dead if consumers == 0 => format!("{waiting}, no consumers: no worker runs that handles dead letters"),
        Purpose::Dead => waiting,
        Purpose::Parked if messages == 0 => waiting,
        Purpose::Parked => format!("{messages} that name no tape: see 'cta-ops-repack-manager dead ls'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(purpose: Purpose, depth: Option<(u32, u32)>, published: i64) -> String {
        let rows = purpose.stage().map(|stage| Dispatched { stage: stage.to_owned(), published, worked_on: 0 });
        let depth = depth.map(|(messages, consumers)| Depth { messages, consumers });
        meaning(&Seen { name: "q".to_owned(), purpose, depth, rows })
    }

    #[test]
    fn what_a_queue_holds_is_said_with_what_it_means() {
        let reclaim = Purpose::Stage("reclaim");
        for (purpose, depth, published, words) in [
            (reclaim, None, 0, "not there yet"),
            (reclaim, Some((12, 0)), 12, "12 waiting, no consumers: no worker takes stage reclaim"),
            (reclaim, Some((0, 2)), 0, "empty"),
            (reclaim, Some((0, 2)), 3, "the rows say 3 are published: 3 are in workers' hands, or lost"),
            (Purpose::Dead, Some((4, 0)), 0, "no worker runs that handles dead letters"),
            (Purpose::Dead, Some((4, 1)), 0, "4 waiting"),
            (Purpose::Parked, Some((2, 0)), 0, "dead ls"),
            (Purpose::Parked, Some((0, 0)), 0, "empty"),
        ] {
            let said = said(purpose, depth, published);
            assert!(said.contains(words), "{purpose:?} {depth:?}: {said}");
        }
        assert_eq!(said(reclaim, Some((0, 2)), 0), "empty");
    }
}

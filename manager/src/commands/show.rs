//! `show`: everything that is known of a tape. What the row says, what CTA says, and what the queue holds are told apart.

use chrono::{DateTime, Utc};
use common::explain::Explained;
use common::journey::State;
use common::store::{EventFilter, EventRow, Overview, Store, StoreError};
use common::tape::Vid;
use common::task::Hold;
use serde_json::{Value, json};

use super::ls::{Around, object};
use super::told;
use crate::cli::Show;
use crate::output::{Desk, Exit, iso};

mod outside;
mod people;
mod progress;
pub mod timeline;
mod watch;

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
    async fn look(store: &Store, vid: &Vid, events: i64) -> Result<Known, StoreError> {
        let around = Around::look(store).await?;
        let overview = store.overview(Some(std::slice::from_ref(vid)), None, true).await?.pop();
        let filter = EventFilter { tape: Some(vid.clone()), ..EventFilter::default() };
        let events = store.events(&filter, events).await?;
        let older = store.count_events(vid).await? - i64::try_from(events.len()).unwrap_or(i64::MAX);
        let holds = store.controls().await?;
        let hold = holds.into_iter().find(|line| line.kind == "hold" && line.name == vid.as_str());
        let last = store.last_journey(vid).await?;
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

/// One tape, as it was looked at.
struct Looked {
    vid: Vid,
    known: Known,
    outside: Outside,
    /// Why it is not further; none: it is not in the table.
    why: Option<Explained>,
    /// The repack that runs now, if one does.
    advance: Option<Advance>,
}

/// What did not answer when it was asked about another tape a moment ago: nobody waits for it again.
#[derive(Default)]
struct Away {
    cta: Option<String>,
    broker: Option<String>,
}

impl Looked {
    async fn look(store: &Store, show: &Show, vid: &Vid, away: &mut Away) -> Result<Looked, StoreError> {
        let known = Known::look(store, vid, show.events).await?;
        let settings = store.settings();
        let stage = known.overview.as_ref().and_then(|overview| overview.task.as_ref()?.stage.clone());
        let ask_cta = async {
            match &away.cta {
                _ if show.no_cta => None,
                Some(why) => Some(CtaSays::unasked(why)),
                None => Some(outside::cta(settings, vid).await),
            }
        };
        let ask_broker = async {
            match &away.broker {
                Some(why) => Some(Err(why.clone())),
                None => outside::queue(settings, stage.as_deref()).await,
            }
        };
        let (cta, queue) = tokio::join!(ask_cta, ask_broker);
        away.cta = cta.as_ref().and_then(CtaSays::is_away);
        away.broker = queue.as_ref().and_then(|queue| queue.as_ref().err().cloned());
        let outside = Outside { cta, queue };
        let why = known.overview.as_ref().map(|overview| known.around.explain(overview, settings));
        let advance = known.overview.as_ref().and_then(|overview| running(overview, &outside));
        Ok(Looked { vid: vid.clone(), known, outside, why, advance })
    }

    fn exit(&self) -> Exit {
        if self.known.overview.is_some() { Exit::Done } else { Exit::Failed }
    }
}

/// Shows tapes, one after the other.
///
/// # Errors
/// What the database says. CTA and the broker may be away: then that is said.
pub async fn run(store: &Store, show: &Show, verbose: bool, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    if let Some(every) = show.watch {
        return watch::run(store, show, every, verbose, json, desk).await;
    }
    let (mut exit, mut away) = (Exit::Done, Away::default());
    for (at, vid) in show.vids.iter().enumerate() {
        let looked = Looked::look(store, show, vid, &mut away).await.map_err(told)?;
        exit = exit.max(looked.exit());
        if json {
            machines(&looked, desk)?;
            continue;
        }
        if at == 0 {
            notes(&looked, store, desk);
        } else {
            desk.data("")?;
        }
        if looked.known.overview.is_none() {
            desk.remark(&format!("error: {vid}: not in the table"));
        }
        people::print(&looked, verbose, desk)?;
    }
    Ok(exit)
}

/// What concerns the whole site and is urgent.
fn notes(looked: &Looked, store: &Store, desk: &mut Desk<'_>) {
    for line in looked.known.around.heading(store.settings()).iter().filter(|line| line.urgent) {
        desk.remark(&format!("note: {}", line.text));
    }
}

/// The repack that runs now, if one does.
fn running(overview: &Overview, outside: &Outside) -> Option<Advance> {
    let started = overview.row.as_ref().is_ok_and(|tape| tape.state() == State::Started);
    let repack = outside.cta.as_ref().and_then(CtaSays::repack);
    // Without an answer of CTA, what was recorded of a repack counts only as long as it can be running.
    let recorded = overview.task.as_ref().filter(|_| started);
    if !started { None } else { Advance::of(recorded, repack, overview.now) }
}

fn machines(looked: &Looked, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    let Looked { vid, known, outside, why, advance } = looked;
    let around = &known.around;
    let tape = known.overview.as_ref().zip(why.as_ref()).map(|(overview, why)| object(overview, why));
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
        "advance": advance.as_ref().map(Advance::object),
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

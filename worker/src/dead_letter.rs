//! Dead letters. A tape goes into mode error only if a Stop is committed for just that stage and generation; whatever else
//! died (too many deliveries, a full queue, a forgery, a latecomer) only makes the row due again.

use std::time::Duration;

use common::journey::{self, Event, Mode};
use common::retry::Delays;
use common::store::StoreError;
use common::tape::Vid;
use common::{stages, task::Task};
use serde_json::json;
use tracing::{error, warn};

use crate::edge::Rows;

/// What a dead letter did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Buried {
    /// The tape is in mode error now, with this reason.
    Flipped(String),
    /// It was in mode error, manual, or gone already; or nothing is behind the letter.
    Nothing(String),
}

/// How long a row that somebody else has locked is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sets mode error if a Stop is committed for this stage and generation. A row that stays locked by somebody else is left to
/// the [`sweep`]: one forgotten `BEGIN` of an operator must not keep a worker from all other tapes.
///
/// # Errors
/// What the database says.
pub async fn bury(store: &impl Rows, vid: &Vid, stage: &str, generation: i64, how: &str) -> Result<Buried, StoreError> {
    let begun = store.clock();
    let mut delays = Delays::new(Duration::from_millis(100), Duration::from_secs(1));
    loop {
        match try_to_bury(store, vid, stage, generation, how).await {
            Err(StoreError::Busy(why)) if store.clock().duration_since(begun) >= PATIENCE => {
                warn!(%vid, stage, "a dead letter of {vid} is left to the producer's sweep: {why}");
                return Ok(Buried::Nothing("its row is locked by another session".to_owned()));
            }
            Err(StoreError::Busy(_)) => store.sleep(delays.next_delay()).await,
            done => return done,
        }
    }
}

async fn try_to_bury(
    store: &impl Rows,
    vid: &Vid,
    stage: &str,
    generation: i64,
    how: &str,
) -> Result<Buried, StoreError> {
    let buried = store
        .locked(vid, false, |locked| {
            let (tape, task, ground, notes) = locked.parts();
            let Some(task) = task else { return Buried::Nothing("it has no task".to_owned()) };
            let Some(tape) = tape else { return Buried::Nothing("it has no row".to_owned()) };
            notes.extend(task.notice(tape, &ground));
            if !task.stopped_at(stage, generation) {
                let current = task.generation == generation && !task.has_stop();
                if current {
                    task.dispatched_at = None;
                }
                let detail = json!({"stage": stage, "generation": generation, "how": how, "current": current});
                locked.note("dead-letter", detail);
                return Buried::Nothing("no Stop is behind it".to_owned());
            }
            flip(locked)
        })
        .await?;
    told(vid, stage, &buried);
    Ok(buried)
}

/// The same for a Stop whose dead letter was lost: whatever its generation.
///
/// # Errors
/// What the database says.
pub async fn sweep(store: &impl Rows, vid: &Vid) -> Result<Buried, StoreError> {
    let buried = store
        .locked(vid, false, |locked| {
            let (tape, task, ground, notes) = locked.parts();
            match (tape, task) {
                (Some(tape), Some(task)) => {
                    notes.extend(task.notice(tape, &ground));
                    if task.has_stop() { flip(locked) } else { Buried::Nothing("no Stop is behind it".to_owned()) }
                }
                _ => Buried::Nothing("it has no row".to_owned()),
            }
        })
        .await?;
    told(vid, "", &buried);
    Ok(buried)
}

fn flip(locked: &mut common::store::Locked<'_>) -> Buried {
    let (Some(tape), Some(task)) = (locked.tape().cloned(), locked.task.clone()) else {
        return Buried::Nothing("it has no row".to_owned());
    };
    let reason = reason(&task);
    let Some(stage) = stages::after(tape.state()) else { return Buried::Nothing("its journey is over".to_owned()) };
    match journey::change(tape.state(), tape.mode, Event::Fail { from: stage.from }) {
        Ok(_) => {
            locked.mode = Some(Mode::Error);
            locked.note("error", json!({"code": task.reason.as_ref().map(|kept| &kept.code), "why": reason}));
            Buried::Flipped(reason)
        }
        Err(refused) => Buried::Nothing(refused.to_string()),
    }
}

fn reason(task: &Task) -> String {
    task.reason
        .as_ref()
        .map_or_else(|| "no reason was kept".to_owned(), |kept| format!("{} ({})", kept.text, kept.code))
}

fn told(vid: &Vid, stage: &str, buried: &Buried) {
    if let Buried::Flipped(reason) = buried {
        error!(%vid, stage, "{vid} is in mode error and left alone until somebody decides: {reason}");
    }
}

//! Rows into values. What a row says is checked here, never guessed at.

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Json, Timestamp};

use super::SUMMER_TIME;
use crate::journey::{Mode, Stamps, State};
use crate::reason::Kept;
use crate::tape::{OddRow, Tape, Vid};
use crate::task::{Next, Outcome, Task, Wanted};

/// What one reading of the clock brings along.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub now: DateTime<Utc>,
    pub generation: i64,
    pub epoch: i64,
    pub jitter: f64,
    pub tolerance: TimeDelta,
    /// None: not asked, as the gate is not locked.
    pub other_slots: Option<u32>,
}

impl Clock {
    pub(super) fn read(row: &Row) -> anyhow::Result<Clock> {
        Ok(Clock {
            now: row.try_get("now")?,
            generation: row.try_get("next_generation")?,
            epoch: row.try_get("next_epoch")?,
            jitter: row.try_get("jitter")?,
            tolerance: if row.try_get("summer")? { SUMMER_TIME } else { TimeDelta::zero() },
            other_slots: row
                .try_get::<_, Option<i64>>("other_slots")?
                .map(u32::try_from)
                .transpose()
                .context("more slots than there can be")?,
        })
    }
}

/// The main row, or what is wrong with it.
pub(super) fn read_row(row: &Row, tolerance: TimeDelta) -> Result<Tape, OddRow> {
    let text = |column: &str| row.try_get::<_, Option<String>>(column).ok().flatten();
    let name = text("tape").unwrap_or_default();
    let mut problems = Vec::new();
    let vid = name.parse::<Vid>().map_err(|why| problems.push(why.to_string())).ok();
    let mode = match text("mode") {
        None => {
            problems.push("mode is not set".to_owned());
            None
        }
        Some(mode) => mode.parse::<Mode>().map_err(|why| problems.push(why)).ok(),
    };
    let mut raw = [None; 6];
    for state in State::ALL {
        match instant(row, state.column()) {
            Ok(at) => raw[state as usize] = at,
            Err(why) => problems.push(why),
        }
    }
    let stamps = Stamps::check(raw, tolerance).map_err(|wrong| problems.extend(wrong)).ok();
    let last_write_date = instant(row, "last_write_date").map_err(|why| problems.push(why)).ok().flatten();
    let mut small = |column: &str| match row.try_get::<_, Option<i32>>(column).ok().flatten().map(i16::try_from) {
        Some(Ok(number)) => Some(number),
        _ => {
            problems.push(format!("{column} is not set, or no small number"));
            None
        }
    };
    let (priority, usage) = (small("priority"), small("usage"));
    let number = |column: &str| row.try_get::<_, Option<i64>>(column).ok().flatten().unwrap_or_default();
    match (vid, mode, stamps, priority, usage) {
        (Some(vid), Some(mode), Some(stamps), Some(priority), Some(usage)) if problems.is_empty() => Ok(Tape {
            vid,
            stamps,
            mode,
            priority,
            mediatype: text("mediatype").unwrap_or_default(),
            tapepool: text("tapepool").unwrap_or_default(),
            responsible: text("responsible").unwrap_or_default(),
            files: number("files"),
            bytes: number("bytes"),
            usage,
            last_write_date,
            xmin: number("xmin"),
        }),
        _ => Err(OddRow { tape: name.escape_default().take(60).collect(), problems }),
    }
}

fn instant(row: &Row, column: &str) -> Result<Option<DateTime<Utc>>, String> {
    let whole = match row.try_get::<_, Option<Timestamp<DateTime<Utc>>>>(column) {
        Ok(None) => return Ok(None),
        // A table made by hand may have parts of a second.
        Ok(Some(Timestamp::Value(at))) => {
            let up = i64::from(at.timestamp_subsec_micros() >= 500_000);
            DateTime::from_timestamp(at.timestamp() + up, 0)
        }
        // An infinity, or a year that no calendar of ours has.
        Ok(Some(_)) | Err(_) => None,
    };
    whole.map(Some).ok_or_else(|| format!("{column} is not a time that can be reckoned with"))
}

/// The task row, where it is all that was asked for.
pub(super) fn read_task(row: &Row) -> anyhow::Result<Task> {
    read_task_from(row, 0)
}

/// The task row, whose columns begin at `first`. They are read in the order of the statement: looking each up by its name
/// is most of the work where there are thousands.
pub(super) fn read_task_from(row: &Row, first: usize) -> anyhow::Result<Task> {
    struct Columns<'a>(&'a Row, usize);
    impl<'a> Columns<'a> {
        fn next<T: FromSql<'a>>(&mut self, name: &str) -> anyhow::Result<T> {
            let index = self.1;
            self.1 += 1;
            // Two columns of one type could change places unseen.
            debug_assert_eq!(self.0.columns()[index].name().trim_start_matches("k_"), name);
            self.0.try_get(index).with_context(|| format!("column {name} of the task table"))
        }
        fn json<T: DeserializeOwned>(&mut self, name: &str) -> anyhow::Result<Option<T>> {
            let value = self.next::<Option<Json<T>>>(name);
            Ok(value.with_context(|| format!("the task row's {name} cannot be read"))?.map(|json| json.0))
        }
    }
    let mut columns = Columns(row, first);
    let vid: &str = columns.next("tape")?;
    Ok(Task {
        vid: vid.parse::<Vid>()?,
        stage: columns.next("stage")?,
        generation: columns.next("generation")?,
        epoch: columns.next("epoch")?,
        dispatched_at: columns.next("dispatched_at")?,
        owner: columns.next("owner")?,
        lease_until: columns.next("lease_until")?,
        intent: columns.json("intent")?,
        attempts: columns.next("attempts")?,
        crashes: columns.next("crashes")?,
        next: match columns.next::<Option<Timestamp<DateTime<Utc>>>>("next_attempt_at")? {
            None => Next::Now,
            Some(Timestamp::Value(at)) => Next::At(at),
            Some(Timestamp::PosInfinity) => Next::Never,
            Some(Timestamp::NegInfinity) => Next::Now,
        },
        settle_until: columns.next("settle_until")?,
        slot_since: columns.next("slot_since")?,
        wanted: match columns.next::<Option<&str>>("wanted")? {
            None => None,
            Some(name) => {
                Some(Wanted::named(name).with_context(|| format!("unknown wish '{name}' in the task table"))?)
            }
        },
        round: columns.next("round")?,
        progress: columns.json("progress")?,
        progress_at: columns.next("progress_at")?,
        outcome: match columns.next::<Option<&str>>("outcome")? {
            None => None,
            Some(name) => {
                Some(Outcome::named(name).with_context(|| format!("unknown outcome '{name}' in the task table"))?)
            }
        },
        reason: {
            let (code, text): (Option<String>, Option<String>) =
                (columns.next("reason_code")?, columns.next("reason")?);
            code.map(|code| Kept { code, text: text.unwrap_or_default() })
        },
        memory: columns.json("memory")?.unwrap_or_default(),
        seen: {
            // The xmin beside it is for queries.
            columns.1 += 1;
            columns.json("seen")?
        },
    })
}

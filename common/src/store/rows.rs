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

/// Columns one after the other, in the order of the statement: looking each up by its name is most of the work where there
/// are thousands of rows.
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

    fn instant(&mut self, name: &str) -> Result<Option<DateTime<Utc>>, String> {
        let whole = match self.next::<Option<Timestamp<DateTime<Utc>>>>(name) {
            Ok(None) => return Ok(None),
            // A table made by hand may have parts of a second.
            Ok(Some(Timestamp::Value(at))) => {
                let up = i64::from(at.timestamp_subsec_micros() >= 500_000);
                DateTime::from_timestamp(at.timestamp() + up, 0)
            }
            // An infinity, or a year that no calendar of ours has.
            Ok(Some(_)) | Err(_) => None,
        };
        whole.map(Some).ok_or_else(|| format!("{name} is not a time that can be reckoned with"))
    }

    fn text(&mut self, name: &str) -> Option<&'a str> {
        self.next::<Option<&str>>(name).ok().flatten()
    }

    fn small(&mut self, name: &str) -> Result<i16, String> {
        let number = self.next::<Option<i32>>(name).ok().flatten().map(i16::try_from);
        number.and_then(Result::ok).ok_or_else(|| format!("{name} is not set, or no small number"))
    }

    fn number(&mut self, name: &str) -> i64 {
        self.next::<Option<i64>>(name).ok().flatten().unwrap_or_default()
    }
}

/// The main row, or what is wrong with it: the columns of [`super::statements::columns`], wherever they begin.
pub(super) fn read_row(row: &Row, tolerance: TimeDelta) -> Result<Tape, OddRow> {
    let first = row.columns().iter().position(|column| column.name() == State::Entered.column());
    let mut columns = Columns(row, first.unwrap_or_default());
    let stamps = State::ALL.map(|state| columns.instant(state.column()));
    let last_write_date = columns.instant("last_write_date");
    let name = columns.text("tape").unwrap_or_default();
    let mode = columns.text("mode");
    let priority = columns.small("priority");
    let [mediatype, tapepool, responsible] =
        ["mediatype", "tapepool", "responsible"].map(|name| columns.text(name).unwrap_or_default());
    let [files, bytes] = ["files", "bytes"].map(|name| columns.number(name));
    let usage = columns.small("usage");
    let xmin = columns.number("xmin");

    let mut problems = Vec::new();
    let vid = name.parse::<Vid>().map_err(|why| problems.push(why.to_string())).ok();
    let mode = match mode {
        None => {
            problems.push("mode is not set".to_owned());
            None
        }
        Some(mode) => mode.parse::<Mode>().map_err(|why| problems.push(why)).ok(),
    };
    let raw = stamps.map(|stamp| stamp.map_err(|why| problems.push(why)).ok().flatten());
    let stamps = Stamps::check(raw, tolerance).map_err(|wrong| problems.extend(wrong)).ok();
    let last_write_date = last_write_date.map_err(|why| problems.push(why)).ok().flatten();
    let [priority, usage] = [priority, usage].map(|number| number.map_err(|why| problems.push(why)).ok());
    match (vid, mode, stamps, priority, usage) {
        (Some(vid), Some(mode), Some(stamps), Some(priority), Some(usage)) if problems.is_empty() => Ok(Tape {
            vid,
            stamps,
            mode,
            priority,
            mediatype: mediatype.to_owned(),
            tapepool: tapepool.to_owned(),
            responsible: responsible.to_owned(),
            files,
            bytes,
            usage,
            last_write_date,
            xmin,
        }),
        _ => Err(OddRow { tape: name.escape_default().take(60).collect(), problems }),
    }
}

/// The task row, where it is all that was asked for.
pub(super) fn read_task(row: &Row) -> anyhow::Result<Task> {
    read_task_from(row, 0)
}

/// The task row, whose columns begin at `first`.
pub(super) fn read_task_from(row: &Row, first: usize) -> anyhow::Result<Task> {
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

//! What spans tapes: what is due, what holds a slot, what is to be told.

use chrono::{DateTime, NaiveDateTime, Utc};
use futures_util::TryStreamExt as _;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::{Locked, Store, StoreError, describe};
use crate::journey::Mode;
use crate::tape::{OddRow, Tape, Vid};
use crate::task::{Hold, Progress, Task};

/// A task that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// The tape.
    pub vid: Vid,
    /// Its generation when it was selected.
    pub generation: i64,
    /// Priority of the row.
    pub priority: i32,
    /// When the row was entered, in seconds of the table's zone since 1970.
    pub entered: f64,
}

impl Due {
    /// A task whose place among the others is of no account.
    pub fn of(vid: Vid, generation: i64) -> Due {
        Due { vid, generation, priority: 0, entered: 0.0 }
    }
}

/// A row that holds a slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    /// The tape.
    pub vid: Vid,
    /// Stage of the task.
    pub stage: Option<String>,
    /// Epoch at the reading.
    pub epoch: i64,
    /// Since when.
    pub slot_since: DateTime<Utc>,
    /// Mode of the main row; none if there is no row.
    pub mode: Option<Mode>,
    /// Lease, intent or settle time were open.
    pub open: bool,
    /// No worker will come to it by itself: not auto, held, stopped, gone, or past its repack.
    pub idle: bool,
    /// How far its repack was.
    pub progress: Option<Progress>,
    /// When it last moved.
    pub progress_at: Option<DateTime<Utc>>,
    /// The database's clock.
    pub now: DateTime<Utc>,
}

/// A row as the operator's tools show it.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The main row, or what is wrong with it.
    pub row: Result<Tape, OddRow>,
    /// The task row.
    pub task: Option<Task>,
    /// A hold.
    pub hold: Option<Hold>,
    /// The database's clock.
    pub now: DateTime<Utc>,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// Number.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// The tape.
    pub tape: String,
    /// When its journey began, in the table's zone.
    pub journey: Option<NaiveDateTime>,
    /// Stage.
    pub stage: Option<String>,
    /// Kind.
    pub kind: String,
    /// Who.
    pub actor: String,
    /// Particulars.
    pub detail: Value,
}

/// Which lines of the history.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Of this tape.
    pub tape: Option<Vid>,
    /// Of this kind.
    pub kind: Option<String>,
    /// Of this stage.
    pub stage: Option<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// Since then.
    pub since: Option<DateTime<Utc>>,
}

/// An end-of-repack line not yet written to its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistic {
    /// Number.
    pub id: i64,
    /// The line, without line end.
    pub line: String,
}

/// One control row: a hold or a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `hold` or `pause`.
    pub kind: String,
    /// VID or stage.
    pub name: String,
    /// Who, why, until when.
    pub hold: Hold,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// A tape to be entered.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTape {
    /// Live files.
    pub files: i64,
    /// Live bytes.
    pub bytes: i64,
    /// Live of written bytes in percent, 0 to 100.
    pub usage: i16,
    /// Last write, seconds since the epoch.
    pub last_write: Option<u64>,
    /// Priority.
    pub priority: i16,
    /// Media type.
    pub mediatype: String,
    /// Tape pool.
    pub tapepool: String,
    /// Who asked for it.
    pub responsible: String,
    /// CTA state, to be given back at the end.
    pub source_state: String,
    /// Logical library.
    pub logical_library: String,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entered {
    /// It is in the table now.
    Added,
    /// It was in the table already, on its way.
    AlreadyThere,
    /// It cannot be entered.
    Refused(String),
}

/// The right to tick some stages. Held as long as this value lives.
pub struct TickLocks {
    client: tokio_postgres::Client,
    /// Stages that are ours now.
    pub held: Vec<String>,
    /// Stages that somebody else ticks, and who.
    pub refused: Vec<(String, String)>,
}

fn vids(rows: &[tokio_postgres::Row]) -> (Vec<Vid>, Vec<String>) {
    let mut good = Vec::new();
    let mut odd = Vec::new();
    for row in rows {
        let name: String = row.get(0);
        match name.parse() {
            Ok(vid) => good.push(vid),
            Err(_) => odd.push(name.escape_default().take(60).collect()),
        }
    }
    (good, odd)
}

impl Store {
    /// Unfinished rows without a task row, or written by somebody else since we looked: VIDs, and names that are none. Compares all
    /// rows; see [`Store::edits`].
    ///
    /// # Errors
    /// What the database says.
    pub async fn changed(&self) -> Result<(Vec<Vid>, Vec<String>), StoreError> {
        Ok(vids(&self.client().await?.query(&self.statements.changed, &[]).await?))
    }

    /// What is due at a stage, best first: rows that need a slot they do not hold (`needs_slot`), or the others.
    /// `again_secs`: published longer ago counts as lost; 0: whatever was published. `after`: only what comes behind this one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn due(
        &self,
        stage: &str,
        again_secs: f64,
        needs_slot: bool,
        after: Option<&Due>,
        limit: i64,
    ) -> Result<Vec<Due>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(&self.statements.due).await?;
        let (priority, entered) = (after.map(|due| due.priority), after.map(|due| due.entered));
        let name = after.map(|due| due.vid.as_str());
        let values: [&(dyn ToSql + Sync); 7] = [&stage, &again_secs, &needs_slot, &limit, &priority, &entered, &name];
        let rows = client.query(&statement, &values).await?;
        let read = |row: &Row| {
            let vid = row.get::<_, String>("tape").parse().ok()?;
            Some(Due {
                vid,
                generation: row.get("generation"),
                priority: row.get("priority"),
                entered: row.get("entered"),
            })
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Slots taken, and rows that were published for a slot less than `again_secs` ago.
    ///
    /// # Errors
    /// What the database says.
    pub async fn slots(&self, again_secs: f64) -> Result<(u32, u32), StoreError> {
        let row = self.client().await?.query_one(&self.statements.slots, &[&again_secs]).await?;
        let count = |column: &str| u32::try_from(row.get::<_, i64>(column)).unwrap_or(u32::MAX);
        Ok((count("taken"), count("asked")))
    }

    /// Marks tasks as published, where their generation is still the selected one; the others are left out.
    ///
    /// # Errors
    /// What the database says.
    pub async fn mark_dispatched(&self, due: Vec<Due>) -> Result<Vec<Due>, StoreError> {
        let client = self.client().await?;
        let mark = client.prepare_cached(&self.statements.mark).await?;
        let marked = client.query(&mark, &[&names(&due), &generations(&due)]).await?;
        let marked: std::collections::HashSet<String> = marked.iter().map(|row| row.get(0)).collect();
        Ok(due.into_iter().filter(|task| marked.contains(task.vid.as_str())).collect())
    }

    /// Takes the mark away where the generation is current: nothing came of the message.
    ///
    /// # Errors
    /// What the database says.
    pub async fn clear_dispatched(&self, due: &[Due]) -> Result<(), StoreError> {
        self.client().await?.execute(&self.statements.clear, &[&names(due), &generations(due)]).await?;
        Ok(())
    }

    /// Tapes with an expired lease that nobody may claim.
    ///
    /// # Errors
    /// What the database says.
    pub async fn closable(&self) -> Result<Vec<Vid>, StoreError> {
        Ok(vids(&self.client().await?.query(&self.statements.closable, &[]).await?).0)
    }

    /// Tapes whose Stop was committed at least `age_secs` ago and whose mode is still auto.
    ///
    /// # Errors
    /// What the database says.
    pub async fn sweepable(&self, age_secs: f64) -> Result<Vec<Vid>, StoreError> {
        Ok(vids(&self.client().await?.query(&self.statements.sweepable, &[&age_secs]).await?).0)
    }

    /// Every row that holds a slot.
    ///
    /// # Errors
    /// What the database says.
    pub async fn holding(&self) -> Result<Vec<Holding>, StoreError> {
        let rows = self.client().await?.query(&self.statements.holding, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(Holding {
                    vid: row.get::<_, String>("tape").parse().map_err(anyhow::Error::new)?,
                    stage: row.get("stage"),
                    epoch: row.get("epoch"),
                    slot_since: row.get("slot_since"),
                    mode: row.get::<_, Option<String>>("mode").and_then(|mode| mode.parse().ok()),
                    open: row.get("open"),
                    idle: row.get::<_, Option<bool>>("idle").unwrap_or(true),
                    progress: row
                        .get::<_, Option<Value>>("progress")
                        .and_then(|value| serde_json::from_value(value).ok()),
                    progress_at: row.get("progress_at"),
                    now: row.get("now"),
                })
            })
            .collect()
    }

    /// End-of-repack lines that are still to be written, oldest first, at most 500.
    ///
    /// # Errors
    /// What the database says.
    pub async fn unwritten(&self) -> Result<Vec<Statistic>, StoreError> {
        let rows = self.client().await?.query(&self.statements.unwritten, &[]).await?;
        Ok(rows.iter().map(|row| Statistic { id: row.get(0), line: row.get(1) }).collect())
    }

    /// Marks lines as written.
    ///
    /// # Errors
    /// What the database says.
    pub async fn written(&self, ids: &[i64]) -> Result<(), StoreError> {
        self.client().await?.execute(&self.statements.written, &[&ids]).await?;
        Ok(())
    }

    /// Every row of the main table as one JSON object with the table's column names, in the order of the VIDs, streamed.
    ///
    /// # Errors
    /// What the database says, or `each`.
    pub async fn export(&self, mut each: impl FnMut(&str) -> anyhow::Result<()>) -> Result<u64, StoreError> {
        let client = self.client().await?;
        let none: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];
        let rows = client.query_raw(&self.statements.export, none).await?;
        futures_util::pin_mut!(rows);
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            each(row.get(0))?;
            count += 1;
        }
        Ok(count)
    }

    /// The newest lines of the history, oldest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn events(&self, filter: &EventFilter, limit: i64) -> Result<Vec<EventRow>, StoreError> {
        let client = self.client().await?;
        let tape = filter.tape.as_ref().map(Vid::as_str);
        let rows = client
            .query(&self.statements.events, &[&tape, &filter.kind, &filter.stage, &filter.actor, &filter.since, &limit])
            .await?;
        Ok(rows
            .iter()
            .map(|row| EventRow {
                id: row.get("id"),
                at: row.get("at"),
                tape: row.get("tape"),
                journey: row.get("journey"),
                stage: row.get("stage"),
                kind: row.get("kind"),
                actor: row.get("actor"),
                detail: row.get("detail"),
            })
            .collect())
    }

    /// VIDs that are on hold, in the table or not.
    ///
    /// # Errors
    /// What the database says.
    pub async fn holds(&self) -> Result<Vec<String>, StoreError> {
        let rows = self.client().await?.query(&self.statements.holds, &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Every hold and pause in force.
    ///
    /// # Errors
    /// What the database says.
    pub async fn controls(&self) -> Result<Vec<Line>, StoreError> {
        let rows = self.client().await?.query(&self.statements.controls, &[]).await?;
        Ok(rows
            .iter()
            .map(|row| Line {
                kind: row.get("kind"),
                name: row.get("name"),
                hold: Hold { who: row.get("who"), why: row.get("why"), until: row.get("until") },
                since: row.get("since"),
            })
            .collect())
    }

    /// The database's clock.
    ///
    /// # Errors
    /// What the database says.
    pub async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(self.client().await?.query_one("SELECT clock_timestamp()", &[]).await?.get(0))
    }

    /// Puts a hold on a VID (`kind` "hold") or pauses a stage ("pause"). One that lasts longer stays as it is.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_control(
        &self,
        kind: &str,
        name: &str,
        why: &str,
        until: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        self.client()
            .await?
            .execute(&self.statements.set_control, &[&kind, &name, &self.actor(), &why, &until])
            .await?;
        Ok(())
    }

    /// Releases a hold or a pause. False: there was none.
    ///
    /// # Errors
    /// What the database says.
    pub async fn drop_control(&self, kind: &str, name: &str) -> Result<bool, StoreError> {
        Ok(self.client().await?.execute(&self.statements.drop_control, &[&kind, &name]).await? == 1)
    }

    /// Enters a tape: a new row, or, where its last journey is finished, that row to the history and a new one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn enter(&self, vid: &Vid, new: &NewTape) -> Result<Entered, StoreError> {
        if let Some(refused) = self.too_wide(new).await? {
            return Ok(Entered::Refused(refused));
        }
        let entered = self.locked(vid, false, |locked| judge_entry(locked, new)).await;
        match entered {
            // Somebody entered it between our look and our insert.
            Err(StoreError::Database(error)) if is_duplicate(&error) => Ok(Entered::AlreadyThere),
            other => other,
        }
    }

    /// What of a new row does not fit its column, and what to do: an old table may be too narrow for today's pool names. None:
    /// everything fits.
    ///
    /// # Errors
    /// What the database says.
    pub async fn too_wide(&self, new: &NewTape) -> Result<Option<String>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(&self.statements.widths, &[&self.statements.table()]).await?;
        let values = [("mediatype", &new.mediatype), ("tapepool", &new.tapepool), ("responsible", &new.responsible)];
        Ok(self.wider_than_column(&rows, &values))
    }

    /// Whether a text fits the column `responsible` of the main table: if not, what is wrong and what to do.
    ///
    /// # Errors
    /// What the database says.
    pub async fn responsible_too_wide(&self, responsible: &str) -> Result<Option<String>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(&self.statements.widths, &[&self.statements.table()]).await?;
        Ok(self.wider_than_column(&rows, &[("responsible", responsible)]))
    }

    fn wider_than_column<T: AsRef<str>>(&self, rows: &[tokio_postgres::Row], values: &[(&str, T)]) -> Option<String> {
        rows.iter().find_map(|row| {
            let (column, width): (String, i32) = (row.get(0), row.get(1));
            let value = values.iter().find(|(name, _)| *name == column)?.1.as_ref();
            let length = value.chars().count();
            (usize::try_from(width).is_ok_and(|width| length > width)).then(|| {
                format!(
                    "{column} '{value}' has {length} characters, but column {column} of table {table} holds only {width}: \
                     widen it with 'ALTER TABLE {table} ALTER {column} TYPE varchar(100)'",
                    table = self.statements.table()
                )
            })
        })
    }

    /// Changes priority or responsible of a row. False: there is no such row.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_fields(
        &self,
        vid: &Vid,
        priority: Option<i16>,
        responsible: Option<&str>,
    ) -> Result<bool, StoreError> {
        let priority = priority.map(i32::from);
        let changed = self
            .client()
            .await?
            .query_opt(&self.statements.set_fields, &[&vid.as_str(), &priority, &responsible])
            .await?;
        Ok(changed.is_some())
    }

    /// Pauses a stage, or lets it go on (`pause` none), with a line in the history under the name `*`. False: it was
    /// not paused, or is for longer.
    ///
    /// # Errors
    /// What the database says.
    pub async fn pause(
        &self,
        stage: &str,
        pause: Option<(&str, Option<DateTime<Utc>>)>,
        detail: &Value,
    ) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        let tx =
            client.build_transaction().isolation_level(tokio_postgres::IsolationLevel::ReadCommitted).start().await?;
        let (kind, there) = match pause {
            Some((why, until)) => {
                let actor = self.actor();
                let set = tx.execute(&self.statements.set_control, &[&"pause", &stage, &actor, &why, &until]).await?;
                ("pause", set == 1)
            }
            None => ("resume", tx.execute(&self.statements.drop_control, &[&"pause", &stage]).await? == 1),
        };
        if there {
            let none: Option<DateTime<Utc>> = None;
            let actor = self.actor();
            tx.execute(&self.statements.add_event, &[&"*", &none, &Some(stage), &kind, &actor, detail]).await?;
        }
        tx.commit().await?;
        Ok(there)
    }

    /// The right to tick these stages, of each if nobody else has it, on one connection of its own.
    ///
    /// # Errors
    /// What the database says.
    pub async fn tick_locks(&self, stages: &[&str]) -> Result<TickLocks, StoreError> {
        let config = super::connection(&self.settings, &self.actor, None);
        let (client, connection) = config.connect(crate::tls::postgres(&self.settings.database)?).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!("the connection of the tick lock ended: {:#}", describe(error));
            }
        });
        let mut locks = TickLocks { client, held: Vec::new(), refused: Vec::new() };
        for stage in stages {
            let key = format!("{} {stage}", self.statements.table());
            let got = locks.client.query_one("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", &[&key]).await?;
            if got.get(0) {
                locks.held.push((*stage).to_owned());
                continue;
            }
            let holder = locks
                .client
                .query(
                    "SELECT a.application_name || ' (PostgreSQL session ' || a.pid || ')' \
                     FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
                     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                     AND (l.classid::int8 << 32 | l.objid::int8) = hashtextextended($1, 0)",
                    &[&key],
                )
                .await?;
            let holder = holder.first().map_or_else(|| "another session".to_owned(), |row| row.get(0));
            locks.refused.push(((*stage).to_owned(), holder));
        }
        Ok(locks)
    }
}

impl TickLocks {
    /// Gives the right back at once; dropping the value does so when the server notices.
    pub async fn release(self) {
        let _ = self.client.batch_execute("SELECT pg_advisory_unlock_all()").await;
    }
}

fn names(due: &[Due]) -> Vec<&str> {
    due.iter().map(|task| task.vid.as_str()).collect()
}

fn generations(due: &[Due]) -> Vec<i64> {
    due.iter().map(|task| task.generation).collect()
}

fn is_duplicate(error: &anyhow::Error) -> bool {
    error.to_string().contains(SqlState::UNIQUE_VIOLATION.code())
}

/// Whether a tape may be entered; if so, the transaction enters it.
pub fn judge_entry(locked: &mut Locked<'_>, new: &NewTape) -> Entered {
    if let Some(hold) = &locked.control.hold {
        return Entered::Refused(format!("{} put it on hold: {}", hold.who, hold.why));
    }
    match &locked.row {
        Some(Err(odd)) => Entered::Refused(odd.to_string()),
        Some(Ok(tape)) if tape.state() != crate::journey::State::Finished => Entered::AlreadyThere,
        _ => {
            locked.enter = Some(new.clone());
            Entered::Added
        }
    }
}

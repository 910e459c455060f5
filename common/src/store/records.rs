//! The records: the history as a stream, rows of journeys that are over, and figures over all tapes. Only reads, but for
//! [`Store::record`].

use chrono::{DateTime, NaiveDateTime, Utc};
use futures_util::TryStreamExt as _;
use serde_json::Value;
use tokio_postgres::types::ToSql;
use tokio_postgres::{IsolationLevel, Row};

use super::{EventRow, Glob, Store, StoreError};
use crate::stages::STAGES;
use crate::tape::Vid;

/// Stamps older than this say nothing about how long a stage takes now.
pub const DURATION_DAYS: i32 = 365;

/// Which events, or which rows of journeys that are over. An empty list asks for everything.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Of these tapes.
    pub tapes: Vec<Vid>,
    /// Also of the tapes that these patterns stand for.
    pub globs: Vec<Glob>,
    /// By these actors: `login@host`, or the part before the `@`.
    pub actors: Vec<String>,
    /// Of these stages.
    pub stages: Vec<String>,
    /// Of these kinds.
    pub kinds: Vec<String>,
    /// Since then.
    pub since: Option<DateTime<Utc>>,
    /// Before then.
    pub until: Option<DateTime<Utc>>,
    /// The newest so many; none: all.
    pub newest: Option<i64>,
}

/// A row whose journey is over: finished and prepared again, given back, or removed.
#[derive(Debug, Clone)]
pub struct JourneyRow {
    /// When it was moved to the history.
    pub moved_at: DateTime<Utc>,
    /// Why.
    pub why: String,
    /// The tape.
    pub tape: String,
    /// The main row as it was; its stamps are in the table's zone.
    pub row: Value,
}

/// Tapes in one state and mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Name of the state; `odd` for rows whose stamps break the order.
    pub state: String,
    /// Name of the mode.
    pub mode: String,
    /// How many.
    pub tapes: i64,
    /// Their files, when they were prepared.
    pub files: i64,
    /// Their bytes, when they were prepared.
    pub bytes: i64,
}

/// What was done in a day or a week of the table's zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// First day: `2026-11-23`.
    pub begins: String,
    /// Tapes that were finished.
    pub finished: i64,
    /// Their bytes, when they were prepared.
    pub finished_bytes: i64,
    /// Tapes whose repack was done.
    pub repacked: i64,
    /// Bytes written, as CTA reported them when repacks ended.
    pub repacked_bytes: i64,
}

/// How long a stage took, from the stamp before it to its own: waiting included.
#[derive(Debug, Clone, PartialEq)]
pub struct StageTime {
    /// Name of the stage.
    pub stage: String,
    /// How many tapes went through it.
    pub samples: i64,
    /// Half of them took at most so many seconds.
    pub median_secs: f64,
    /// Nine in ten of them took at most so many seconds.
    pub ninety_secs: f64,
}

/// What the automation still has before it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ahead {
    /// Tapes in mode auto, neither on hold nor stopped nor stalled, that are not started.
    pub to_start: i64,
    /// Such tapes whose repack is not done.
    pub repacking: i64,
    /// Such tapes that are repacked and not finished.
    pub after: i64,
    /// Unfinished tapes that are manual, in error, stopped, stalled or on hold, or whose row is odd: nobody knows when they go on.
    pub set_aside: i64,
    /// Slots that such tapes hold.
    pub stuck_slots: i64,
    /// Seconds since the newest of them went into quarantine; none: none is there.
    pub newest_quarantine_secs: Option<f64>,
    /// Slots in use.
    pub slots: i64,
    /// Bytes that the running repacks have written, and will have, as CTA last said.
    pub running_bytes: (i64, i64),
}

/// Rows of one stage that are published or worked on, as the task rows say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatched {
    /// Name of the stage.
    pub stage: String,
    /// Published, and no worker has claimed them.
    pub published: i64,
    /// Claimed, and not closed.
    pub worked_on: i64,
}

/// A repack request as it was when it was removed.
#[derive(Debug, Clone)]
pub struct SavedRequest {
    /// When it was saved.
    pub at: DateTime<Utc>,
    /// The object of `repack ls`.
    pub object: Value,
}

/// How many stamps a row has after `entered`, and the place of the last: where they differ, the order is broken.
const STAMPS: &str = "num_nonnulls(started, repacked, quarantined, reclaimed, finished)";
const LAST_STAMP: &str = "CASE WHEN finished IS NOT NULL THEN 5 WHEN reclaimed IS NOT NULL THEN 4 WHEN quarantined IS NOT NULL THEN 3 \
     WHEN repacked IS NOT NULL THEN 2 WHEN started IS NOT NULL THEN 1 ELSE 0 END";

/// Conditions with their values.
#[derive(Default)]
struct Conditions {
    text: Vec<String>,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Conditions {
    /// `{}` stands for the value.
    fn add(&mut self, template: &str, value: impl ToSql + Sync + Send + 'static) {
        self.values.push(Box::new(value));
        self.text.push(template.replace("{}", &format!("${}", self.values.len())));
    }

    fn any_of(&mut self, template: &str, values: &[String]) {
        if !values.is_empty() {
            self.add(template, values.to_vec());
        }
    }

    fn tapes(&mut self, tapes: &[Vid], globs: &[Glob]) {
        let names = |tapes: &[Vid]| tapes.iter().map(|vid| vid.as_str().to_owned()).collect::<Vec<_>>();
        match (tapes, globs) {
            ([], []) => {}
            // So that the index also gives the order.
            ([one], []) => self.add("tape = {}", one.as_str().to_owned()),
            (several, []) => self.add("tape = ANY({})", names(several)),
            (several, globs) => {
                let (first, second) = (self.values.len() + 1, self.values.len() + 2);
                self.values.push(Box::new(names(several)));
                self.values.push(Box::new(globs.iter().map(Glob::like).collect::<Vec<_>>()));
                self.text.push(format!("(tape = ANY(${first}) OR tape LIKE ANY(${second}))"));
            }
        }
    }

    fn between(&mut self, column: &str, records: &Records) {
        if let Some(since) = records.since {
            self.add(&format!("{column} >= {{}}"), since);
        }
        if let Some(until) = records.until {
            self.add(&format!("{column} < {{}}"), until);
        }
    }

    /// The statement that reads them oldest first. Only what is asked for is in it, so that the plan fits it.
    fn select(&mut self, columns: &str, table: &str, order: &[&str], newest: Option<i64>) -> String {
        let filter = if self.text.is_empty() { String::new() } else { format!(" WHERE {}", self.text.join(" AND ")) };
        let forwards = order.join(", ");
        match newest {
            None => format!("SELECT {columns} FROM {table}{filter} ORDER BY {forwards}"),
            Some(newest) => {
                self.values.push(Box::new(newest));
                let backwards: Vec<String> = order.iter().map(|column| format!("{column} DESC")).collect();
                format!(
                    "SELECT * FROM (SELECT {columns} FROM {table}{filter} ORDER BY {} LIMIT ${}) newest ORDER BY {forwards}",
                    backwards.join(", "),
                    self.values.len()
                )
            }
        }
    }
}

fn event_conditions(records: &Records) -> Conditions {
    let mut conditions = Conditions::default();
    conditions.tapes(&records.tapes, &records.globs);
    conditions.any_of("stage = ANY({})", &records.stages);
    conditions.any_of("kind = ANY({})", &records.kinds);
    conditions.any_of("(actor = ANY({}) OR split_part(actor, '@', 1) = ANY({}))", &records.actors);
    conditions.between("at", records);
    conditions
}

fn read_event(row: &Row) -> Result<EventRow, tokio_postgres::Error> {
    Ok(EventRow {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        tape: row.try_get("tape")?,
        journey: row.try_get::<_, Option<NaiveDateTime>>("journey")?,
        stage: row.try_get("stage")?,
        kind: row.try_get("kind")?,
        actor: row.try_get("actor")?,
        detail: row.try_get("detail")?,
    })
}

/// The stamps of every journey that is known, those that are over included. No common table expression: used twice, it would be
/// written out before it is filtered.
fn stamps(table: &str, history: &str) -> String {
    let columns = ["entered", "started", "repacked", "quarantined", "reclaimed", "finished"];
    let old: Vec<String> =
        columns.iter().map(|column| format!("(h.row->>'{column}')::timestamp AS {column}")).collect();
    format!(
        "(SELECT {}, bytes FROM {table} UNION ALL SELECT {}, (h.row->>'bytes')::int8 AS bytes FROM {history} h) stamps",
        columns.join(", "),
        old.join(", ")
    )
}

impl Store {
    fn beside(&self, suffix: &str) -> String {
        self.settings.database.table.with_suffix(suffix)
    }

    /// Hands over events while they arrive, oldest first, and says how many there were. Memory stays flat, however many.
    ///
    /// # Errors
    /// What the database says, or what `each` does.
    pub async fn each_event(
        &self,
        records: &Records,
        mut each: impl FnMut(EventRow) -> anyhow::Result<()>,
    ) -> Result<u64, StoreError> {
        let mut conditions = event_conditions(records);
        // Numbers are given out in the order of time. The newest few are found fastest by their number; those of a tape, and all
        // since some time, by the indexes that have the time.
        let by_vid = !records.tapes.is_empty() && records.globs.is_empty();
        let by_time = by_vid || (records.since.is_some() && records.newest.is_none());
        let order: &[&str] = if by_time { &["at", "id"] } else { &["id"] };
        let columns = "id, at, tape, journey, stage, kind, actor, detail";
        let statement = conditions.select(columns, &self.beside("_event"), order, records.newest);
        self.stream(&statement, conditions.values, |row| each(read_event(row)?)).await
    }

    /// The same for rows of journeys that are over. Actors, stages and kinds do not apply.
    ///
    /// # Errors
    /// What the database says, or what `each` does.
    pub async fn each_journey(
        &self,
        records: &Records,
        mut each: impl FnMut(JourneyRow) -> anyhow::Result<()>,
    ) -> Result<u64, StoreError> {
        let mut conditions = Conditions::default();
        conditions.tapes(&records.tapes, &records.globs);
        conditions.between("moved_at", records);
        let columns = "id, moved_at, why, tape, \"row\"";
        let statement = conditions.select(columns, &self.beside("_history"), &["id"], records.newest);
        self.stream(&statement, conditions.values, |row| {
            each(JourneyRow {
                moved_at: row.try_get("moved_at")?,
                why: row.try_get("why")?,
                tape: row.try_get("tape")?,
                row: row.try_get("row")?,
            })
        })
        .await
    }

    async fn stream(
        &self,
        statement: &str,
        values: Vec<Box<dyn ToSql + Sync + Send>>,
        mut each: impl FnMut(&Row) -> anyhow::Result<()>,
    ) -> Result<u64, StoreError> {
        let mut client = self.client().await?;
        let tx =
            client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(true).start().await?;
        // Whoever reads our output may take longer than any statement of ours.
        tx.batch_execute("SET LOCAL statement_timeout TO 0").await?;
        let rows = tx.query_raw(statement, values).await?;
        let mut rows = std::pin::pin!(rows);
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            each(&row)?;
            count += 1;
        }
        Ok(count)
    }

    /// Writes an event of the operator's that belongs to no row; `tape` is `*` where it is about no tape.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record(&self, tape: &str, stage: Option<&str>, kind: &str, detail: &Value) -> Result<(), StoreError> {
        let client = self.client().await?;
        let none: Option<DateTime<Utc>> = None;
        client.execute(&self.statements.add_event, &[&tape, &none, &stage, &kind, &self.actor(), detail]).await?;
        Ok(())
    }

    /// The newest repack request of a tape that was removed, as the history has it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn saved_request(&self, vid: &Vid) -> Result<Option<SavedRequest>, StoreError> {
        let statement = format!(
            "SELECT at, detail #> '{{proof,request}}' AS object FROM {} WHERE tape = $1 AND kind = 'intent' \
             AND jsonb_typeof(detail #> '{{proof,request}}') = 'object' ORDER BY at DESC, id DESC LIMIT 1",
            self.beside("_event")
        );
        let row = self.client().await?.query_opt(&statement, &[&vid.as_str()]).await?;
        Ok(row.map(|row| SavedRequest { at: row.get("at"), object: row.get("object") }))
    }

    /// Rows that are published or worked on, by stage; stages without any are left out.
    ///
    /// # Errors
    /// What the database says.
    pub async fn dispatched(&self) -> Result<Vec<Dispatched>, StoreError> {
        let statement = format!(
            "SELECT stage, count(*) FILTER (WHERE owner IS NULL) AS published, count(*) FILTER (WHERE owner IS NOT NULL) AS worked_on \
             FROM {} WHERE stage IS NOT NULL AND (dispatched_at IS NOT NULL OR owner IS NOT NULL) GROUP BY stage",
            self.beside("_task")
        );
        let rows = self.client().await?.query(&statement, &[]).await?;
        let read = |row: &Row| Dispatched {
            stage: row.get("stage"),
            published: row.get("published"),
            worked_on: row.get("worked_on"),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Tapes by state and mode.
    ///
    /// # Errors
    /// What the database says.
    pub async fn standings(&self) -> Result<Vec<Standing>, StoreError> {
        let statement = format!(
            "WITH rows AS (SELECT m.*, {STAMPS} AS stamps, {LAST_STAMP} AS last FROM {} m) \
             SELECT CASE WHEN stamps <> last THEN 'odd' ELSE \
             (ARRAY['entered', 'started', 'repacked', 'quarantined', 'reclaimed', 'finished'])[last + 1] END AS state, \
             mode::text AS mode, count(*) AS tapes, least(sum(files), 9223372036854775807)::int8 AS files, \
             least(sum(bytes), 9223372036854775807)::int8 AS bytes \
             FROM rows GROUP BY 1, 2, (CASE WHEN stamps <> last THEN 6 ELSE last END) \
             ORDER BY (CASE WHEN stamps <> last THEN 6 ELSE last END), 2",
            self.settings.database.table
        );
        let rows = self.client().await?.query(&statement, &[]).await?;
        let read = |row: &Row| Standing {
            state: row.get("state"),
            mode: row.get("mode"),
            tapes: row.get("tapes"),
            files: row.get("files"),
            bytes: row.get("bytes"),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// What was done in each of the last days, or weeks: those without anything are there too.
    ///
    /// # Errors
    /// What the database says.
    pub async fn periods(&self, days: i32, weekly: bool) -> Result<Vec<Period>, StoreError> {
        let unit = if weekly { "week" } else { "day" };
        let stamps = stamps(&self.settings.database.table.to_string(), &self.beside("_history"));
        let begin = format!("date_trunc('{unit}', LOCALTIMESTAMP - make_interval(days => $1))");
        let statement = format!(
            "WITH span AS (SELECT generate_series({begin}, LOCALTIMESTAMP, interval '1 {unit}') AS day), \
             f AS (SELECT date_trunc('{unit}', finished) AS day, count(*) AS n, sum(bytes) AS b FROM {stamps} WHERE finished >= {begin} GROUP BY 1), \
             r AS (SELECT date_trunc('{unit}', repacked) AS day, count(*) AS n FROM {stamps} WHERE repacked >= {begin} GROUP BY 1), \
             s AS (SELECT date_trunc('{unit}', at::timestamp) AS day, \
                   sum(CASE WHEN line #>> '{{repack,archivedBytes}}' ~ '^[0-9]{{1,18}}$' THEN (line #>> '{{repack,archivedBytes}}')::numeric END) AS b \
                   FROM {} WHERE at::timestamp >= {begin} GROUP BY 1) \
             SELECT to_char(span.day, 'YYYY-MM-DD') AS begins, coalesce(f.n, 0) AS finished, coalesce(f.b, 0)::int8 AS finished_bytes, \
             coalesce(r.n, 0) AS repacked, coalesce(s.b, 0)::int8 AS repacked_bytes \
             FROM span LEFT JOIN f USING (day) LEFT JOIN r USING (day) LEFT JOIN s USING (day) ORDER BY span.day",
            self.beside("_statistic")
        );
        let rows = self.client().await?.query(&statement, &[&days]).await?;
        let read = |row: &Row| Period {
            begins: row.get("begins"),
            finished: row.get("finished"),
            finished_bytes: row.get("finished_bytes"),
            repacked: row.get("repacked"),
            repacked_bytes: row.get("repacked_bytes"),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// How long each stage took for the tapes that left it in the last [`DURATION_DAYS`]; stages that none left are left out.
    ///
    /// # Errors
    /// What the database says.
    pub async fn stage_times(&self) -> Result<Vec<StageTime>, StoreError> {
        let stamps = stamps(&self.settings.database.table.to_string(), &self.beside("_history"));
        let pairs = STAGES
            .iter()
            .enumerate()
            .map(|(number, stage)| {
                format!("({number}, '{}', {}, {})", stage.name, stage.from.column(), stage.to.column())
            })
            .collect::<Vec<_>>()
            .join(", ");
        let statement = format!(
            "SELECT v.stage, count(*) AS samples, percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP \
             (ORDER BY greatest(extract(epoch FROM v.done - v.begun), 0)::float8) AS secs \
             FROM {stamps}, LATERAL (VALUES {pairs}) AS v (number, stage, begun, done) \
             WHERE v.begun IS NOT NULL AND v.done >= LOCALTIMESTAMP - make_interval(days => $1) \
             GROUP BY v.number, v.stage ORDER BY v.number"
        );
        let rows = self.client().await?.query(&statement, &[&DURATION_DAYS]).await?;
        rows.iter()
            .map(|row| {
                let secs: Vec<f64> = row.try_get("secs")?;
                Ok(StageTime {
                    stage: row.try_get("stage")?,
                    samples: row.try_get("samples")?,
                    median_secs: secs.first().copied().unwrap_or_default(),
                    ninety_secs: secs.get(1).copied().unwrap_or_default(),
                })
            })
            .collect()
    }

    /// What is left to do.
    ///
    /// # Errors
    /// What the database says.
    pub async fn ahead(&self) -> Result<Ahead, StoreError> {
        let (task, control) = (self.beside("_task"), self.beside("_control"));
        let lawful = format!("{STAMPS} = {LAST_STAMP}");
        let statement = format!(
            "WITH rows AS (SELECT m.*, m.mode = 'auto' AND {lawful} AND NOT EXISTS (SELECT 1 FROM {control} c WHERE c.kind = 'hold' AND c.name = m.tape \
             AND (c.until IS NULL OR c.until > clock_timestamp())) \
             AND k.outcome IS DISTINCT FROM 'failed' AND k.outcome IS DISTINCT FROM 'stalled' AS ours, k.slot_since AS slot \
             FROM {} m LEFT JOIN {task} k ON k.tape = m.tape WHERE m.finished IS NULL), \
             running AS (SELECT progress FROM {task} WHERE slot_since IS NOT NULL AND progress IS NOT NULL) \
             SELECT count(*) FILTER (WHERE ours AND started IS NULL) AS to_start, \
             count(*) FILTER (WHERE ours AND started IS NOT NULL AND repacked IS NULL) AS repacking, \
             count(*) FILTER (WHERE ours AND repacked IS NOT NULL) AS after, count(*) FILTER (WHERE NOT ours) AS set_aside, \
             count(*) FILTER (WHERE NOT ours AND slot IS NOT NULL) AS stuck, \
             min(greatest(extract(epoch FROM LOCALTIMESTAMP - quarantined), 0)) FILTER (WHERE ours AND reclaimed IS NULL)::float8 AS newest, \
             (SELECT count(*) FROM {task} WHERE slot_since IS NOT NULL) AS slots, \
             (SELECT coalesce(sum((progress->>'archived_bytes')::numeric), 0)::int8 FROM running) AS written, \
             (SELECT coalesce(sum((progress->>'total_bytes')::numeric), 0)::int8 FROM running) AS total FROM rows",
            self.settings.database.table
        );
        let row = self.client().await?.query_one(&statement, &[]).await?;
        Ok(Ahead {
            to_start: row.get("to_start"),
            repacking: row.get("repacking"),
            after: row.get("after"),
            set_aside: row.get("set_aside"),
            stuck_slots: row.get("stuck"),
            newest_quarantine_secs: row.get("newest"),
            slots: row.get("slots"),
            running_bytes: (row.get("written"), row.get("total")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_holds_only_what_is_asked_for() {
        let records = Records::default();
        let mut conditions = event_conditions(&records);
        assert_eq!(conditions.select("id", "e", &["id"], None), "SELECT id FROM e ORDER BY id");
        let records = Records {
            tapes: vec!["V01007".parse().unwrap()],
            actors: vec!["alice".to_owned()],
            since: Some(DateTime::UNIX_EPOCH),
            ..Records::default()
        };
        let mut conditions = event_conditions(&records);
        assert_eq!(
            conditions.select("id, at", "e", &["at", "id"], Some(7)),
            "SELECT * FROM (SELECT id, at FROM e WHERE tape = $1 AND (actor = ANY($2) OR split_part(actor, '@', 1) = ANY($2)) \
             AND at >= $3 ORDER BY at DESC, id DESC LIMIT $4) newest ORDER BY at, id"
        );
        assert_eq!(conditions.values.len(), 4);
        let records = Records {
            tapes: vec!["V01007".parse().unwrap()],
            globs: vec!["V02*".parse().unwrap()],
            stages: vec!["end".to_owned()],
            ..Records::default()
        };
        let mut conditions = event_conditions(&records);
        assert_eq!(
            conditions.select("id", "e", &["id"], None),
            "SELECT id FROM e WHERE (tape = ANY($1) OR tape LIKE ANY($2)) AND stage = ANY($3) ORDER BY id"
        );
        assert_eq!(conditions.values.len(), 3);
    }
}

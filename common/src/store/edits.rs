//! Which rows somebody else wrote.
//!
//! Triggers on the main table note the VIDs in `<table>_edited`, so that a tick looks at those rows only. A trigger can be passed
//! by: where one is missing, was switched off meanwhile, and otherwise every hour, all rows are compared with what the task rows
//! know of them, and what differs is noted as well. A line goes when its row was followed.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};
use tracing::debug;

use super::{Store, StoreError};
use crate::settings::TableName;
use crate::tape::Vid;

/// Lines looked at in one go.
const PAGE: i64 = 500;

/// After so many minutes all rows are compared again, whatever the triggers noted.
pub const COMPARE_EVERY_MINUTES: i32 = 60;

/// The statements.
pub(super) struct Edits {
    pub changed: String,
    pub watch: String,
    pub compare: String,
    pub page: String,
    pub followed: String,
    pub ask: String,
}

/// Which triggers are in force, as a subquery: a text that changes with them, or null if not all of them are.
///
/// Every change of a trigger gives its catalogue row another xmin: one that was off for a moment shows. A table that was
/// rewritten has another file, and its rows another xmin. A function that writes elsewhere, or may not write, notes nothing.
fn triggers(name: &TableName) -> String {
    let [task, edited] = ["_task", "_edited"].map(|suffix| name.with_suffix(suffix));
    format!(
        "(SELECT string_agg(concat_ws(' ', g.tgrelid, pg_relation_filenode(g.tgrelid), g.tgname, g.xmin), ', ' ORDER BY g.tgrelid, g.tgname) \
         FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid \
         JOIN pg_class c ON c.oid = to_regclass('{edited}') JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE g.tgrelid IN (to_regclass('{name}'), to_regclass('{task}')) AND g.tgname LIKE 'cta\\_repack\\_%' \
         AND g.tgenabled IN ('A', 'O') AND position(format('INSERT INTO %I.%I (tape)', n.nspname, c.relname) IN p.prosrc) > 0 \
         AND has_table_privilege(p.proowner, c.oid, 'INSERT') HAVING count(*) = 6)"
    )
}

/// Whether the triggers are all in force, for a check of the site.
pub(super) fn in_force(name: &TableName) -> String {
    format!("SELECT {} IS NOT NULL", triggers(name))
}

impl Edits {
    pub(super) fn new(name: &TableName) -> Edits {
        let t = name.to_string();
        let [task, edited, compared] = ["_task", "_edited", "_compared"].map(|suffix| name.with_suffix(suffix));
        let changed = format!(
            "SELECT m.tape::text AS tape FROM {t} m LEFT JOIN {task} k ON k.tape = m.tape WHERE m.finished IS NULL \
             AND (k.tape IS NULL OR k.seen_xmin IS DISTINCT FROM m.xmin::text::int8) \
             UNION ALL SELECT k.tape FROM {task} k LEFT JOIN {t} m ON m.tape = k.tape \
             WHERE k.stage IS NOT NULL AND (m.tape IS NULL OR m.finished IS NOT NULL)"
        );
        let triggers = triggers(name);
        Edits {
            watch: format!(
                "SELECT coalesce({triggers} = c.triggers, false) AND c.at <= clock_timestamp() \
                 AND c.at > clock_timestamp() - make_interval(mins => {COMPARE_EVERY_MINUTES}) \
                 AND NOT EXISTS (SELECT 1 FROM {edited} WHERE tape = '*') FROM {compared} c"
            ),
            // One snapshot for all of it: what is committed later notes its own line.
            compare: format!(
                "WITH asked AS (DELETE FROM {edited} WHERE tape = '*'), \
                 noted AS (INSERT INTO {compared} AS c (triggers) VALUES ({triggers}) \
                   ON CONFLICT (one) DO UPDATE SET at = clock_timestamp(), triggers = EXCLUDED.triggers) \
                 INSERT INTO {edited} (tape) SELECT tape FROM ({changed}) changed"
            ),
            // Row by row, each by its index, however many the planner expects.
            page: format!(
                "SELECT x.id, x.tape, (m.tape IS NOT NULL AND m.finished IS NULL AND (k.tape IS NULL OR k.seen_xmin IS DISTINCT FROM m.xmin)) \
                 OR (k.stage IS NOT NULL AND (m.tape IS NULL OR m.finished IS NOT NULL)) AS differs \
                 FROM (SELECT id, tape FROM {edited} WHERE id > $1 AND tape <> '*' ORDER BY id LIMIT {PAGE}) x \
                 LEFT JOIN LATERAL (SELECT m.tape, m.finished, m.xmin::text::int8 AS xmin FROM {t} m WHERE m.tape = x.tape OFFSET 0) m ON true \
                 LEFT JOIN LATERAL (SELECT k.tape, k.stage, k.seen_xmin FROM {task} k WHERE k.tape = x.tape OFFSET 0) k ON true \
                 ORDER BY x.id"
            ),
            followed: format!("DELETE FROM {edited} WHERE id = ANY($1)"),
            ask: format!(
                "INSERT INTO {edited} (tape) SELECT '*' WHERE NOT EXISTS (SELECT 1 FROM {edited} WHERE tape = '*')"
            ),
            changed,
        }
    }
}

/// A row that may have been written by somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The line that says so, for [`Store::followed`]; none: nobody wrote it down.
    pub line: Option<i64>,
    /// What the tape column holds, or held.
    pub tape: String,
    /// The row is not as its task row knows it.
    pub differs: bool,
}

impl Edit {
    /// One that was seen, and that nobody wrote down.
    pub fn seen(vid: &Vid) -> Edit {
        Edit { line: None, tape: vid.to_string(), differs: true }
    }
}

/// Some of the edits, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edited {
    /// The edits.
    pub edits: Vec<Edit>,
    /// Where to go on; none: there are no more.
    pub after: Option<i64>,
}

/// The tables are older than this program, or the roles are: then there are no lines to go by.
fn is_not_there(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| [&SqlState::UNDEFINED_TABLE, &SqlState::INSUFFICIENT_PRIVILEGE].contains(&code))
}

impl Store {
    /// Rows that were written by somebody else since they were followed, a page at a time: `after` is 0, then
    /// [`Edited::after`]. At 0 all rows are compared first, if it is time or the triggers are not to be relied on. Where tables
    /// or rights for the lines are missing, all rows are compared every time, and come as one page.
    ///
    /// # Errors
    /// What the database says.
    pub async fn edits(&self, after: i64) -> Result<Edited, StoreError> {
        let client = self.client().await?;
        match self.noted(&client, after).await {
            Ok(edited) => Ok(edited),
            Err(error) if is_not_there(&error) => {
                let rows = client.query(&self.statements.changed, &[]).await?;
                let seen = |row: &Row| Edit { line: None, tape: row.get(0), differs: true };
                Ok(Edited { edits: rows.iter().map(seen).collect(), after: None })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn noted(&self, client: &Client, after: i64) -> Result<Edited, tokio_postgres::Error> {
        if after == 0 {
            let watch = client.query_opt(&self.statements.watch, &[]).await?;
            if !watch.is_some_and(|row| row.get(0)) {
                let differ = client.execute(&self.statements.compare, &[]).await?;
                debug!("all rows were compared: {differ} are not as their task rows know them");
            }
        }
        let page = client.query(&self.statements.edits, &[&after]).await?;
        let edits: Vec<Edit> = page
            .iter()
            .map(|row| Edit { line: Some(row.get("id")), tape: row.get("tape"), differs: row.get("differs") })
            .collect();
        let full = i64::try_from(edits.len()).is_ok_and(|count| count >= PAGE);
        let after = edits.last().and_then(|edit| edit.line).filter(|_| full);
        Ok(Edited { edits, after })
    }

    /// Removes lines whose rows were followed.
    ///
    /// # Errors
    /// What the database says.
    pub async fn followed(&self, lines: &[i64]) -> Result<(), StoreError> {
        if !lines.is_empty() {
            self.client().await?.execute(&self.statements.followed, &[&lines]).await?;
        }
        Ok(())
    }

    /// Has all rows compared by the next [`Store::edits`].
    ///
    /// # Errors
    /// What the database says.
    pub async fn ask_to_compare(&self) -> Result<(), StoreError> {
        match self.client().await?.execute(&self.statements.ask_to_compare, &[]).await {
            // Then they are compared every time.
            Err(error) if is_not_there(&error) => Ok(()),
            asked => Ok(asked.map(|_| ())?),
        }
    }
}

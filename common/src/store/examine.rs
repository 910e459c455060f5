//! What a check of the site asks the database. Nothing is changed, and one answer that fails leaves the others.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_postgres::Client;

use super::migrate;
use crate::settings::{Settings, TableName};

/// What the database says. An inner error is the server's answer to that one question.
#[derive(Debug, Clone)]
pub struct Examination {
    /// Such as `16.4`.
    pub version: String,
    /// Such as 160004.
    pub version_number: i32,
    /// It takes no changes: a standby, or set so.
    pub read_only: bool,
    /// Its clock, when the answer was sent.
    pub clock: DateTime<Utc>,
    /// Whether it knows the configured time zone.
    pub time_zone: Result<(), String>,
    /// Whether it gives advisory locks.
    pub advisory_lock: Result<(), String>,
    /// The newest migration applied; none: never migrated.
    pub migration: Result<Option<i32>, String>,
    /// Whether the triggers that note which rows others wrote are in force. Without them nothing is lost, and every tick
    /// compares all rows.
    pub edits_noted: Result<bool, String>,
    /// Our tables and sequences that are not there; the main table first.
    pub missing: Vec<String>,
    /// Columns of the main table: name, and type without length.
    pub columns: Vec<(String, String)>,
    /// Rights that the role does not have: such as `UPDATE`, and on what.
    pub lacking: Vec<(&'static str, String)>,
}

impl Examination {
    /// The newest migration that this program knows.
    pub fn newest_migration() -> i32 {
        migrate::newest()
    }
}

/// What a role does with a table or sequence, by the suffix of its name.
type Needed = [(&'static str, &'static [&'static str]); 11];

/// What producer and worker do.
const BY_PROGRAMS: Needed = [
    ("", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("_task", &["SELECT", "INSERT", "UPDATE"]),
    ("_event", &["SELECT", "INSERT"]),
    ("_history", &["SELECT", "INSERT"]),
    ("_control", &["SELECT", "UPDATE"]),
    ("_statistic", &["SELECT", "INSERT", "UPDATE"]),
    ("_tick", &["SELECT", "INSERT", "UPDATE"]),
    ("_edited", &["SELECT", "INSERT", "DELETE"]),
    ("_compared", &["SELECT", "INSERT", "UPDATE"]),
    ("_generation_seq", &["USAGE"]),
    ("_epoch_seq", &["USAGE"]),
];

/// What an operator does with the manager.
const BY_OPERATORS: Needed = [
    ("", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("_task", &["SELECT", "INSERT", "UPDATE"]),
    ("_event", &["SELECT", "INSERT"]),
    ("_history", &["SELECT", "INSERT"]),
    ("_control", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("_statistic", &["SELECT"]),
    ("_tick", &["SELECT"]),
    ("_edited", &["SELECT"]),
    ("_compared", &["SELECT"]),
    ("_generation_seq", &["USAGE"]),
    ("_epoch_seq", &["USAGE"]),
];

/// Connects on its own, asks everything, and leaves.
///
/// # Errors
/// When there is no connection, or no answer at all within fifteen seconds.
pub async fn examine(settings: &Settings, actor: &str) -> anyhow::Result<Examination> {
    let limit = Duration::from_secs(15);
    let asked = tokio::time::timeout(limit, connected(settings, actor)).await;
    asked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", limit.as_secs())))
}

async fn connected(settings: &Settings, actor: &str) -> anyhow::Result<Examination> {
    let config = super::connection(settings, actor, None);
    let (client, connection) =
        config.connect(crate::tls::postgres(&settings.database)?).await.map_err(super::describe)?;
    let driver = tokio::spawn(connection);
    let examined = ask(&client, settings).await.map_err(super::describe);
    drop(client);
    driver.await.ok();
    examined
}

async fn ask(client: &Client, settings: &Settings) -> Result<Examination, tokio_postgres::Error> {
    let table = &settings.database.table;
    let row = client
        .query_one(
            "SELECT current_setting('server_version'), current_setting('server_version_num')::int4, \
             current_setting('transaction_read_only') = 'on' OR pg_is_in_recovery()",
            &[],
        )
        .await?;
    let (version, version_number, read_only) = (row.get(0), row.get(1), row.get(2));
    let (missing, lacking) = tables(client, table).await?;
    Ok(Examination {
        version,
        version_number,
        read_only,
        time_zone: answer(client.query_one("SELECT now() AT TIME ZONE $1::text", &[&settings.time_zone]).await),
        // Taken and given back at once; a key that nobody else uses.
        advisory_lock: answer(
            client
                .query_one("SELECT pg_advisory_unlock(k) FROM (SELECT hashtextextended($1, 2) AS k) x WHERE pg_try_advisory_lock(k)", &[&table.to_string()])
                .await,
        ),
        migration: migration(client, table).await,
        edits_noted: client
            .query_one(&super::edits::in_force(table), &[])
            .await
            .map(|row| row.get(0))
            .map_err(|error| super::describe(error).to_string()),
        columns: columns(client, table).await?,
        missing,
        lacking,
        clock: client.query_one("SELECT clock_timestamp()", &[]).await?.get(0),
    })
}

fn answer<T>(asked: Result<T, tokio_postgres::Error>) -> Result<(), String> {
    asked.map(|_| ()).map_err(|error| super::describe(error).to_string())
}

async fn migration(client: &Client, table: &TableName) -> Result<Option<i32>, String> {
    let said = |error| super::describe(error).to_string();
    let name = table.with_suffix("_migration");
    let there = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await.map_err(said)?;
    if !there.get::<_, bool>(0) {
        return Ok(None);
    }
    let newest = client.query_one(&format!("SELECT max(number) FROM {name}"), &[]).await.map_err(said)?;
    Ok(newest.get(0))
}

async fn columns(client: &Client, table: &TableName) -> Result<Vec<(String, String)>, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute \
             WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            &[&table.to_string()],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// What is missing, and which rights on the rest.
async fn tables(
    client: &Client,
    table: &TableName,
) -> Result<(Vec<String>, Vec<(&'static str, String)>), tokio_postgres::Error> {
    let (missing, lacking) = lacking(client, table, BY_PROGRAMS).await?;
    if lacking.is_empty() {
        return Ok((missing, lacking));
    }
    // A login of a person has no need of what only the programs do.
    let (_, of_operators) = self::lacking(client, table, BY_OPERATORS).await?;
    Ok((missing, if of_operators.is_empty() { Vec::new() } else { lacking }))
}

async fn lacking(
    client: &Client,
    table: &TableName,
    needed: Needed,
) -> Result<(Vec<String>, Vec<(&'static str, String)>), tokio_postgres::Error> {
    let (mut missing, mut lacking) = (Vec::new(), Vec::new());
    for (suffix, rights) in needed {
        let name = if suffix.is_empty() { table.to_string() } else { table.with_suffix(suffix) };
        let there = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await?;
        if !there.get::<_, bool>(0) {
            missing.push(name);
            continue;
        }
        for right in rights {
            let kind = match *right {
                _ if suffix.ends_with("_seq") => "has_sequence_privilege",
                // May be given for the columns that are written.
                "SELECT" | "INSERT" | "UPDATE" => "has_any_column_privilege",
                _ => "has_table_privilege",
            };
            let has = client.query_one(&format!("SELECT {kind}(to_regclass($1)::oid, $2)"), &[&name, right]).await?;
            if !has.get::<_, bool>(0) {
                lacking.push((*right, name.clone()));
            }
        }
    }
    Ok((missing, lacking))
}

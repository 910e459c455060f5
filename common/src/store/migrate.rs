//! The tables: created where missing, brought up to date, never taken away.

use anyhow::{Context as _, bail};

use crate::settings::{Settings, TableName};

/// A step of the schema. Only ever added to.
struct Step {
    number: i32,
    name: &'static str,
    sql: &'static str,
}

const STEPS: [Step; 3] = [
    Step { number: 1, name: "tables", sql: include_str!("../../../migrations/0001_tables.sql") },
    Step { number: 2, name: "looking", sql: include_str!("../../../migrations/0002_looking.sql") },
    Step { number: 3, name: "edits", sql: include_str!("../../../migrations/0003_edits.sql") },
];

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Steps applied now, by name.
    pub applied: Vec<String>,
    /// Number of the newest step.
    pub version: i32,
    /// The main table was there before.
    pub adopted: bool,
}

fn text(step: &Step, table: &TableName) -> String {
    let schema_dot = table.schema.as_ref().map(|schema| format!("\"{schema}\".")).unwrap_or_default();
    let sql = step.sql.replace("{table}", &table.to_string()).replace("{index}", &table.name);
    let sql = sql.replace("{schema_dot}", &schema_dot);
    ["generation_seq", "epoch_seq", "task", "event", "history", "control", "statistic", "tick", "edited", "compared"]
        .iter()
        .fold(sql, |sql, name| sql.replace(&format!("{{{name}}}"), &table.with_suffix(&format!("_{name}"))))
}

/// Number of the newest step that this program knows.
pub(super) fn newest() -> i32 {
    STEPS[STEPS.len() - 1].number
}

/// Applies every step that is missing, all in one transaction under an advisory lock.
///
/// # Errors
/// When the database cannot be reached or refuses, or when it is newer than this program.
pub async fn migrate(settings: &Settings) -> anyhow::Result<Report> {
    connected(settings, true).await
}

/// The same in a transaction that is rolled back: what [`migrate`] would do, and whether it would work.
///
/// # Errors
/// Those of [`migrate`].
pub async fn rehearse(settings: &Settings) -> anyhow::Result<Report> {
    connected(settings, false).await
}

async fn connected(settings: &Settings, keep: bool) -> anyhow::Result<Report> {
    let role = settings.database.migrate_username.as_deref();
    let config = super::connection(settings, "cta-ops-repack-manager migrate", role);
    let (mut client, connection) =
        config.connect(crate::tls::postgres(&settings.database)?).await.map_err(super::describe).with_context(
            || format!("connecting to PostgreSQL at {}:{}", settings.database.host, settings.database.port),
        )?;
    let driver = tokio::spawn(connection);
    let report = in_one_transaction(&mut client, settings, keep).await;
    drop(client);
    driver.await.ok();
    report
}

async fn in_one_transaction(
    client: &mut tokio_postgres::Client,
    settings: &Settings,
    keep: bool,
) -> anyhow::Result<Report> {
    let table = &settings.database.table;
    let migration = table.with_suffix("_migration");
    let tx = client.transaction().await.map_err(super::describe)?;
    tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", &[&table.to_string()])
        .await
        .map_err(super::describe)?;
    // Where somebody works on the tables for long, everybody else would wait behind us.
    tx.batch_execute("SET LOCAL lock_timeout TO '10s'").await.map_err(super::describe)?;
    let there =
        tx.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table.to_string()]).await.map_err(super::describe)?;
    let adopted: bool = there.get(0);
    tx.batch_execute(&format!(
        "SET LOCAL client_min_messages TO warning; CREATE TABLE IF NOT EXISTS {migration} \
         (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    ))
    .await
    .map_err(super::describe)
    .context("creating the table of migrations")?;
    let newest = newest();
    let at = tx
        .query_one(&format!("SELECT coalesce(max(number), 0) FROM {migration}"), &[])
        .await
        .map_err(super::describe)?;
    let at: i32 = at.get(0);
    if at > newest {
        bail!(
            "the tables are at version {at}, newer than the {newest} this program knows: install the newer release here too"
        );
    }
    let mut applied = Vec::new();
    for step in STEPS.iter().filter(|step| step.number > at) {
        tx.batch_execute(&text(step, table))
            .await
            .map_err(super::describe)
            .with_context(|| format!("migration {} ({})", step.number, step.name))?;
        tx.execute(&format!("INSERT INTO {migration} (number, name) VALUES ($1, $2)"), &[&step.number, &step.name])
            .await
            .map_err(super::describe)?;
        applied.push(step.name.to_owned());
    }
    let end = if keep { tx.commit().await } else { tx.rollback().await };
    end.map_err(super::describe)?;
    Ok(Report { applied, version: newest, adopted })
}

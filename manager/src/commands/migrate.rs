//! `migrate`: the tables, created where missing.

use common::settings::Settings;
use common::store::migrate;
use serde_json::json;

use crate::output::{Desk, Exit};

/// Applies what is missing, or only tries it.
///
/// # Errors
/// What the database says; nothing was changed then.
pub async fn run(settings: &Settings, dry_run: bool, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let done = if dry_run { migrate::rehearse(settings).await } else { migrate::migrate(settings).await };
    let report = done.map_err(owners)?;
    let table = settings.database.table.to_string().replace('"', "");
    if json {
        desk.data(
            &json!({"table": table, "applied": report.applied, "version": report.version,
                    "adopted": report.adopted, "dry_run": dry_run})
            .to_string(),
        )?;
        return Ok(Exit::Done);
    }
    let would = if dry_run { "would be " } else { "" };
    match report.applied.as_slice() {
        [] => desk.data(&format!("{table}: up to date (version {})", report.version))?,
        steps => {
            for step in steps {
                desk.data(&format!("{table}: {would}applied: {step}"))?;
            }
            let kept = if report.adopted { "; the table that was there is kept as it is" } else { "" };
            desk.data(&format!("{table}: {would}at version {}{kept}", report.version))?;
        }
    }
    Ok(Exit::Done)
}

/// An error of a migration; tables are made and changed by their owner, whom no role of ours is.
pub fn owners(error: anyhow::Error) -> anyhow::Error {
    if !format!("{error:#}").contains("(42501)") {
        return error;
    }
    anyhow::anyhow!(
        "{error:#}; migrate works as the owner of the tables, who may create in their schema: name that login as \
         database.migrate_username"
    )
}

//! `hold --list`: every hold, also on tapes that are not in the table.

use std::collections::HashMap;

use common::explain::ago;
use common::store::{Line, Overview, Store, StoreError};
use common::tape::{Tape, Vid};
use serde_json::{Value, json};

use super::told;
use crate::filter::vid_of;
use crate::output::{Desk, Exit, cell, clean, iso, local};

/// Lists the holds.
///
/// # Errors
/// What the database says.
pub async fn run(store: &Store, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let (holds, rows) = look(store).await.map_err(told)?;
    let tape = |hold: &Line| rows.get(&hold.name).and_then(|overview| overview.row.as_ref().ok());
    if json {
        let objects: Vec<Value> = holds.iter().map(|hold| object(hold, tape(hold))).collect();
        desk.data(&Value::Array(objects).to_string())?;
        return Ok(Exit::Done);
    }
    if holds.is_empty() {
        desk.remark("no tape is on hold");
        return Ok(Exit::Done);
    }
    let now = store.now().await.map_err(told)?;
    let cells = holds.iter().map(|hold| {
        let standing = match (rows.get(&hold.name), tape(hold)) {
            (None, _) => "not in the table".to_owned(),
            (Some(_), None) => "odd row".to_owned(),
            (Some(_), Some(tape)) => format!("{}, mode {}", tape.state(), tape.mode),
        };
        vec![
            cell(&hold.name),
            cell(standing),
            cell(ago(now - hold.since)),
            cell(hold.hold.until.map_or_else(|| "released".to_owned(), local)),
            cell(&hold.hold.who),
            cell(clean(&hold.hold.why)),
        ]
    });
    let table = desk.table(&["VID", "STANDS", "SINCE", "UNTIL", "WHO", "WHY"], cells.collect());
    desk.data(&table)?;
    Ok(Exit::Done)
}

/// The holds, by VID, and the rows of those tapes that have one.
async fn look(store: &Store) -> Result<(Vec<Line>, HashMap<String, Overview>), StoreError> {
    let mut holds: Vec<Line> = store.controls().await?.into_iter().filter(|line| line.kind == "hold").collect();
    holds.sort_by(|one, other| one.name.cmp(&other.name));
    let vids: Vec<Vid> = holds.iter().filter_map(|hold| hold.name.parse().ok()).collect();
    let rows = store.overview(Some(&vids), None, true).await?;
    Ok((holds, rows.into_iter().map(|row| (vid_of(&row).to_owned(), row)).collect()))
}

fn object(hold: &Line, tape: Option<&Tape>) -> Value {
    json!({
        "vid": hold.name,
        "state": tape.map(Tape::state),
        "mode": tape.map(|tape| tape.mode),
        "who": hold.hold.who,
        "why": hold.hold.why,
        "since": iso(hold.since),
        "until": hold.hold.until.map(iso),
    })
}

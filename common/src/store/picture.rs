//! What the metrics tell of the rows: one pass over those that are unfinished.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio_postgres::Row;

use super::{Store, StoreError};
use crate::metrics::{Group, Picture};

/// Of a large table the rows are not counted again before so many times as long has passed as it took: two hundredths of the
/// database's time, whatever the number of rows.
const REST: u32 = 50;

/// How the rows of a large table were counted last.
#[derive(Clone)]
pub(super) struct Counted {
    ended: Instant,
    took: Duration,
    at: f64,
    groups: Vec<Group>,
}

impl Counted {
    fn is_fresh(&self) -> bool {
        self.ended.elapsed() < self.took.saturating_mul(REST)
    }
}

impl Store {
    /// Rows by state, mode and what they wait for, and how many are finished; the rest of the picture is the caller's.
    ///
    /// Only unfinished rows are read. Finished ones are counted in a small table, and in a large one estimated; there the
    /// picture may also be an earlier one (`at` says of when), so that the counting takes no more than a fiftieth of the time.
    ///
    /// # Errors
    /// What the database says.
    pub async fn picture(&self) -> Result<Picture, StoreError> {
        let client = self.client().await?;
        let table = self.settings.database.table.to_string();
        let size = client.query_one(&self.statements.table_size, &[&table]).await?;
        let (large, estimate): (bool, i64) = (size.get("large"), size.get("estimate"));
        let last = self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let counted = match last.filter(|last| large && last.is_fresh()) {
            Some(last) => last,
            None => {
                let begun = Instant::now();
                let groups = groups(&client.query(&self.statements.picture, &[]).await?)?;
                let counted = Counted { ended: Instant::now(), took: begun.elapsed(), at: size.get("now"), groups };
                *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(counted.clone());
                counted
            }
        };
        let unfinished: i64 = counted.groups.iter().map(|group| group.tapes).sum();
        let finished = if large {
            estimate.saturating_sub(unfinished).max(0)
        } else {
            client.query_one(&self.statements.count_finished, &[]).await?.get(0)
        };
        Ok(Picture { at: counted.at, groups: counted.groups, finished, ..Picture::default() })
    }
}

fn groups(rows: &[Row]) -> Result<Vec<Group>, StoreError> {
    let odd = |error: String| anyhow::anyhow!(error);
    let read = |row: &Row| {
        Ok(Group {
            state: row.get::<_, String>("state").parse().map_err(odd)?,
            mode: row.get::<_, String>("mode").parse().map_err(odd)?,
            class: row.get("class"),
            code: row.get("code"),
            tapes: row.get("tapes"),
            oldest: row.get::<_, f64>("oldest").max(0.0),
        })
    };
    rows.iter().map(read).collect()
}

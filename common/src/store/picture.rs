//! What the metrics tell of the rows: one pass over those that are unfinished.

use super::{Store, StoreError};
use crate::metrics::{Group, Picture};

impl Store {
    /// Rows by state, mode and what they wait for, and how many are finished; the rest of the picture is the caller's.
    ///
    /// Only unfinished rows are read. Finished ones are counted in a small table, and in a large one estimated.
    ///
    /// # Errors
    /// What the database says.
    pub async fn picture(&self) -> Result<Picture, StoreError> {
        let client = self.client().await?;
        let rows = client.query(&self.statements.picture, &[]).await?;
        let odd = |error: String| anyhow::anyhow!(error);
        let mut groups = Vec::with_capacity(rows.len());
        for row in &rows {
            groups.push(Group {
                state: row.get::<_, String>("state").parse().map_err(odd)?,
                mode: row.get::<_, String>("mode").parse().map_err(odd)?,
                class: row.get("class"),
                code: row.get("code"),
                tapes: row.get("tapes"),
                oldest: row.get::<_, f64>("oldest").max(0.0),
            });
        }
        let table = self.settings.database.table.to_string();
        let size = client.query_one(&self.statements.table_size, &[&table]).await?;
        let unfinished: i64 = groups.iter().map(|group| group.tapes).sum();
        let (large, estimate): (bool, i64) = (size.get("large"), size.get("estimate"));
        let finished = if large {
            estimate.saturating_sub(unfinished).max(0)
        } else {
            client.query_one(&self.statements.count_finished, &[]).await?.get(0)
        };
        Ok(Picture { at: size.get("now"), groups, finished, ..Picture::default() })
    }
}

//! What concerns the whole site: when it was last ticked, and what troubles more than one tape.

use chrono::{DateTime, Utc};
use tokio_postgres::error::SqlState;

use super::concerns::mail_tick;
use super::{Store, StoreError};

/// The last tick of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticked {
    /// The stage.
    pub stage: String,
    /// When that tick ended.
    pub at: DateTime<Utc>,
    /// Who ticked.
    pub who: String,
    /// What kept it from doing all of its work.
    pub trouble: Option<String>,
    /// Since when every tick has had some trouble.
    pub trouble_since: Option<DateTime<Utc>>,
}

/// What concerns the whole site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteView {
    /// The last tick of each stage, newest first; none: ticks are not recorded here, for the tables are older than this program.
    pub ticks: Option<Vec<Ticked>>,
    /// When a digest was last mailed, or tried to be.
    pub mail: Option<Ticked>,
    /// Tapes in mode error whose journey is not over.
    pub errors: i64,
    /// Tapes on their way whose last attempt found CTA, or the host that asked it, in trouble.
    pub site_tapes: i64,
    /// What one of these attempts said.
    pub site_text: Option<String>,
    /// The database's clock.
    pub now: DateTime<Utc>,
}

impl Store {
    /// Records that these stages were ticked by us, and what kept the tick from doing all of its work.
    ///
    /// # Errors
    /// What the database says.
    pub async fn ticked(&self, stages: &[&str], trouble: Option<&str>) -> Result<(), StoreError> {
        let client = self.client().await?;
        client.execute(&self.statements.ticked, &[&stages, &self.actor(), &trouble]).await?;
        Ok(())
    }

    /// What concerns the whole site.
    ///
    /// # Errors
    /// What the database says.
    pub async fn site(&self) -> Result<SiteView, StoreError> {
        let client = self.client().await?;
        let ticks = match client.query(&self.statements.ticks, &[]).await {
            Ok(rows) => Some(
                rows.iter()
                    .map(|row| Ticked {
                        stage: row.get("stage"),
                        at: row.get("at"),
                        who: row.get("who"),
                        trouble: row.get("trouble"),
                        trouble_since: row.get("trouble_since"),
                    })
                    .collect(),
            ),
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => None,
            Err(error) => return Err(error.into()),
        };
        let mail = match ticks {
            Some(_) => mail_tick(&client.query_one(&self.statements.mail_tick, &[]).await?),
            None => None,
        };
        let row = client.query_one(&self.statements.site, &[]).await?;
        Ok(SiteView {
            ticks,
            mail,
            errors: row.get("errors"),
            site_tapes: row.get("site_tapes"),
            site_text: row.get("site_text"),
            now: row.get("now"),
        })
    }

    /// Rows whose journey is over.
    ///
    /// # Errors
    /// What the database says.
    pub async fn count_finished(&self) -> Result<i64, StoreError> {
        Ok(self.client().await?.query_one(&self.statements.count_finished, &[]).await?.get(0))
    }

    /// How many lines the history has of a tape.
    ///
    /// # Errors
    /// What the database says.
    pub async fn count_events(&self, vid: &crate::tape::Vid) -> Result<i64, StoreError> {
        Ok(self.client().await?.query_one(&self.statements.count_events, &[&vid.as_str()]).await?.get(0))
    }

    /// The newest row of the tape that went to the history: when, why, and the row as it was. None: there is none.
    ///
    /// # Errors
    /// What the database says.
    pub async fn last_journey(
        &self,
        vid: &crate::tape::Vid,
    ) -> Result<Option<(DateTime<Utc>, String, serde_json::Value)>, StoreError> {
        let client = self.client().await?;
        let row = client.query_opt(&self.statements.last_journey, &[&vid.as_str()]).await?;
        Ok(row.map(|row| (row.get("moved_at"), row.get("why"), row.get("row"))))
    }
}

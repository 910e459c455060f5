//! The tapes that need a person, and which of them a digest by mail has told of.
//!
//! What was told of a tape is kept in its task row, and dropped with the outcome. When a digest was last tried is a row of
//! `<table>_tick`.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use tokio_postgres::{IsolationLevel, Row};

use super::{Store, StoreError, Ticked};
use crate::journey::State;
use crate::reason::NO_GATE_REFUSAL;

/// What the digest is called where stages are: in the name of its lock, and in `<table>_tick`.
pub const MAIL: &str = "mail";

/// Rows marked at a time.
const BATCH: usize = 500;

/// Why a person is needed. In the order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConcernKind {
    /// Mode error: nobody touches the tape until a person decides.
    Error,
    /// Its repack makes no progress.
    Stalled,
    /// The reclaim gate does not let it through.
    Refused,
}

impl ConcernKind {
    /// All of them.
    pub const ALL: [ConcernKind; 3] = [ConcernKind::Error, ConcernKind::Stalled, ConcernKind::Refused];

    /// The word of the statements.
    fn name(self) -> &'static str {
        match self {
            ConcernKind::Error => "error",
            ConcernKind::Stalled => "stalled",
            ConcernKind::Refused => "refused",
        }
    }
}

/// A tape that needs a person, as the rows say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concern {
    /// What the tape column holds.
    pub tape: String,
    /// Why a person is needed.
    pub kind: ConcernKind,
    /// How far it is, by its last stamp.
    pub state: State,
    /// The reason code.
    pub code: String,
    /// The sentence, perhaps cut; empty: none is known.
    pub text: String,
    /// Since when, if the task row says so.
    pub since: Option<DateTime<Utc>>,
    /// Kind, stage, code, and of a Stop or a stall its time. Another one is news.
    pub what: String,
}

/// New concerns, at the database's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concerned {
    /// Those of which no digest has told, the most urgent first, then in the order of the VIDs.
    pub new: Vec<Concern>,
    /// How many there are in all, told of or not, by [`ConcernKind::ALL`].
    pub all: [i64; 3],
    /// The database's clock.
    pub now: DateTime<Utc>,
}

/// What a digest has told: tape, and [`Concern::what`].
pub type NewMark<'c> = (&'c str, &'c str);

/// The rows that need a person. `$1`: codes that are no refusal of the reclaim gate. Those in error are found by the index of the
/// modes, the others by that of the outcomes: neither reads all rows.
pub(super) fn source(table: &str, task: &str) -> String {
    let part = |which: &str| {
        format!(
            "SELECT k.tape, kind, CASE WHEN m.reclaimed IS NOT NULL THEN 'reclaimed' WHEN m.quarantined IS NOT NULL THEN 'quarantined' \
               WHEN m.repacked IS NOT NULL THEN 'repacked' WHEN m.started IS NOT NULL THEN 'started' ELSE 'entered' END AS state, \
               code, CASE WHEN stopped OR kind <> 'error' THEN left(k.reason, 400) END AS reason, \
               CASE kind WHEN 'error' THEN stopped_at WHEN 'stalled' THEN k.progress_at END AS since, \
               concat_ws(' ', kind, k.stage, code, CASE kind WHEN 'error' THEN extract(epoch FROM stopped_at)::text \
                         WHEN 'stalled' THEN extract(epoch FROM k.progress_at)::text END) AS what, \
               k.memory->>'mailed' AS mailed \
             FROM {table} m JOIN {task} k ON k.tape = m.tape \
             CROSS JOIN LATERAL (SELECT k.outcome IS NOT DISTINCT FROM 'failed' AS stopped) s \
             CROSS JOIN LATERAL (SELECT CASE WHEN stopped THEN (k.memory->>'stopped_at')::timestamptz END AS stopped_at, \
               CASE WHEN m.mode = 'error' THEN 'error' WHEN m.mode <> 'auto' THEN NULL WHEN k.outcome = 'stalled' THEN 'stalled' \
                 WHEN k.stage = 'reclaim' AND k.outcome = 'waiting' AND k.reason_code <> ALL ($1::text[]) THEN 'refused' END AS kind) o \
             CROSS JOIN LATERAL (SELECT CASE WHEN kind = 'error' AND NOT stopped THEN 'error-set-elsewhere' \
                                        ELSE coalesce(k.reason_code, '') END AS code) c \
             WHERE m.finished IS NULL AND kind IS NOT NULL AND {which}"
        )
    };
    let (error, waits) = (part("m.mode = 'error'"), part("m.mode = 'auto' AND k.outcome IN ('waiting', 'stalled')"));
    format!("({error} UNION ALL {waits})")
}

pub(super) fn new_ones(source: &str) -> String {
    format!(
        "SELECT * FROM {source} x WHERE mailed IS DISTINCT FROM what \
         ORDER BY array_position(ARRAY['error', 'stalled', 'refused'], kind), tape LIMIT $2::int8"
    )
}

pub(super) fn counted(source: &str) -> String {
    let each = ConcernKind::ALL.map(|kind| format!("count(*) FILTER (WHERE kind = '{}')", kind.name()));
    format!("SELECT {}, clock_timestamp() FROM {source} x", each.join(", "))
}

/// When the history first told of what is so now. An edit elsewhere has no code.
pub(super) fn told(event: &str) -> String {
    format!(
        "SELECT x.tape, (SELECT max(e.at) FROM {event} e WHERE e.tape = x.tape AND (e.detail->>'code' = x.code \
         OR (x.code = 'error-set-elsewhere' AND e.kind = 'edited-elsewhere'))) AS at \
         FROM unnest($1::text[], $2::text[]) AS x (tape, code)"
    )
}

/// Locks task rows. Of several, those that somebody else has are left out: we never wait for one row with another in hand.
pub(super) fn lock(task: &str, skip: bool) -> String {
    let skip = if skip { "SKIP LOCKED" } else { "" };
    format!("SELECT tape FROM {task} WHERE tape = ANY($1::text[]) FOR UPDATE {skip}")
}

/// Only where it is still so: the same trouble after a decision is news.
pub(super) fn mark(task: &str, source: &str) -> String {
    format!(
        "UPDATE {task} k SET memory = jsonb_set(k.memory, '{{mailed}}', to_jsonb(x.what)) \
         FROM unnest($2::text[], $3::text[]) AS t (tape, what) JOIN {source} x ON x.tape = t.tape AND x.what = t.what \
         WHERE k.tape = t.tape"
    )
}

/// Codes as the statements want them.
fn no_refusal() -> Vec<&'static str> {
    NO_GATE_REFUSAL.map(|code| code.name()).into()
}

fn concern(row: &Row) -> Result<Concern, StoreError> {
    let kind: &str = row.get("kind");
    let kind = ConcernKind::ALL.into_iter().find(|known| known.name() == kind).unwrap_or(ConcernKind::Error);
    Ok(Concern {
        tape: row.get("tape"),
        kind,
        state: row.get::<_, String>("state").parse().map_err(|error: String| anyhow::anyhow!(error))?,
        code: row.get("code"),
        text: row.get::<_, Option<String>>("reason").unwrap_or_default(),
        since: row.get("since"),
        what: row.get("what"),
    })
}

pub(super) fn mail_tick(row: &Row) -> Option<Ticked> {
    Some(Ticked {
        stage: row.get::<_, Option<String>>("stage")?,
        at: row.get("at"),
        who: row.get("who"),
        trouble: row.get("trouble"),
        trouble_since: row.get("trouble_since"),
    })
}

impl Store {
    /// Tapes that need a person, of which no digest has told: at most `limit` of them, with the numbers of all.
    ///
    /// # Errors
    /// What the database says.
    pub async fn concerns(&self, limit: i64) -> Result<Concerned, StoreError> {
        let client = self.client().await?;
        let rows = client.query(&self.statements.concerns, &[&no_refusal(), &limit]).await?;
        let new = rows.iter().map(concern).collect::<Result<_, _>>()?;
        let counts = client.query_one(&self.statements.count_concerns, &[&no_refusal()]).await?;
        Ok(Concerned { new, all: [0, 1, 2].map(|column| counts.get(column)), now: counts.get(3) })
    }

    /// Fills in since when it is so, as far as the history tells, where the task row did not say.
    ///
    /// # Errors
    /// What the database says.
    pub async fn date_concerns(&self, concerns: &mut [Concern]) -> Result<(), StoreError> {
        let undated: Vec<&Concern> = concerns.iter().filter(|concern| concern.since.is_none()).collect();
        let tapes: Vec<&str> = undated.iter().map(|concern| concern.tape.as_str()).collect();
        let codes: Vec<&str> = undated.iter().map(|concern| concern.code.as_str()).collect();
        let client = self.client().await?;
        for row in client.query(&self.statements.concern_told, &[&tapes, &codes]).await? {
            let tape: &str = row.get("tape");
            for concern in concerns.iter_mut().filter(|concern| concern.tape == tape && concern.since.is_none()) {
                concern.since = row.get("at");
            }
        }
        Ok(())
    }

    /// Remembers that a digest has told this of these tapes; where it is not so any more, nothing is remembered.
    ///
    /// # Errors
    /// What the database says. Some of them may be remembered.
    pub async fn mark_mailed(&self, told: &[NewMark<'_>]) -> Result<(), StoreError> {
        for batch in told.chunks(BATCH) {
            let free = self.mark_batch(batch, true).await?;
            for mark in batch.iter().filter(|mark| !free.contains(mark.0)) {
                self.mark_batch(std::slice::from_ref(mark), false).await?;
            }
        }
        Ok(())
    }

    async fn mark_batch(&self, told: &[NewMark<'_>], skip: bool) -> Result<HashSet<String>, StoreError> {
        let mut client = self.client().await?;
        let tx = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?;
        let tapes: Vec<&str> = told.iter().map(|mark| mark.0).collect();
        let lock = if skip { &self.statements.lock_tasks_free } else { &self.statements.lock_tasks };
        let locked: HashSet<String> = tx.query(lock, &[&tapes]).await?.iter().map(|row| row.get(0)).collect();
        // A statement of its own, which sees what those committed that we waited for.
        let (tapes, whats): (Vec<&str>, Vec<&str>) =
            told.iter().copied().filter(|mark| locked.contains(mark.0)).unzip();
        tx.execute(&self.statements.mark_mailed, &[&no_refusal(), &tapes, &whats]).await?;
        tx.commit().await?;
        Ok(locked)
    }

    /// When a digest was last tried, and how it went; and the database's clock. None: never.
    ///
    /// # Errors
    /// What the database says.
    pub async fn mail_tick(&self) -> Result<(Option<Ticked>, DateTime<Utc>), StoreError> {
        let client = self.client().await?;
        let row = client.query_one(&self.statements.mail_tick, &[]).await?;
        Ok((mail_tick(&row), row.get("now")))
    }
}

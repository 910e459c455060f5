//! Rows with everything known about them, and which of them are meant.

use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use futures_util::TryStreamExt as _;
use tokio_postgres::types::ToSql;

use super::rows::{read_row, read_task_from};
use super::{Overview, Store, StoreError};
use crate::journey::{Mode, State};
use crate::tape::Vid;
use crate::task::{Hold, Outcome, SeenRow};

/// A name in which `*` stands for any characters and `?` for any single one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// The longest.
    pub const MAX_LEN: usize = 100;

    /// The glob as it was typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same as a pattern of LIKE: what LIKE would read as its own signs is escaped.
    pub fn like(&self) -> String {
        let mut pattern = String::with_capacity(self.0.len() + 4);
        for c in self.0.chars() {
            match c {
                '*' => pattern.push('%'),
                '?' => pattern.push('_'),
                '%' | '_' | '\\' => pattern.extend(['\\', c]),
                other => pattern.push(other),
            }
        }
        pattern
    }

    /// Whether it stands for this name.
    pub fn matches(&self, name: &str) -> bool {
        let (glob, name): (Vec<char>, Vec<char>) = (self.0.chars().collect(), name.chars().collect());
        let (mut at, mut here) = (0, 0);
        // Where the last star was, and where the name was tried behind it: one more character is given to the star on a
        // mismatch, so the work is bounded by the product of the lengths.
        let mut star: Option<(usize, usize)> = None;
        while here < name.len() {
            match glob.get(at) {
                Some('*') => {
                    star = Some((at, here));
                    at += 1;
                }
                Some(c) if *c == '?' || *c == name[here] => {
                    at += 1;
                    here += 1;
                }
                _ => {
                    let Some((star_at, tried)) = star else { return false };
                    star = Some((star_at, tried + 1));
                    at = star_at + 1;
                    here = tried + 1;
                }
            }
        }
        glob[at..].iter().all(|c| *c == '*')
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Glob, String> {
        if text.is_empty() || text.chars().count() > Glob::MAX_LEN || text.chars().any(char::is_control) {
            return Err(format!(
                "expected a name of 1 to {} characters, in which * stands for any characters and ? for one",
                Glob::MAX_LEN
            ));
        }
        Ok(Glob(text.to_owned()))
    }
}

/// Which rows are meant: those that pass every condition that is set. Empty lists and `None` exclude nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OverviewFilter {
    /// These VIDs; finished ones too, whatever `finished` says. Alternatives to `globs`.
    pub vids: Vec<Vid>,
    /// VIDs that one of these stands for.
    pub globs: Vec<Glob>,
    /// Finished ones too.
    pub finished: bool,
    /// States; an odd row counts by its last stamp.
    pub states: Vec<State>,
    /// Modes.
    pub modes: Vec<Mode>,
    /// Tape pools at prepare.
    pub pools: Vec<Glob>,
    /// Media types.
    pub mediatypes: Vec<Glob>,
    /// Logical libraries at prepare; a row of which none is recorded passes none.
    pub libraries: Vec<Glob>,
    /// Who asked for the repack.
    pub responsibles: Vec<Glob>,
    /// Priorities.
    pub priorities: Vec<i16>,
    /// In the present state for at least so long.
    pub older_than: Option<TimeDelta>,
    /// In the present state for less than so long.
    pub newer_than: Option<TimeDelta>,
    /// How the last delivery left the tape.
    pub outcomes: Vec<Outcome>,
    /// On hold.
    pub held: bool,
    /// At most so many, the first by VID.
    pub limit: Option<i64>,
}

type Value = Box<dyn ToSql + Sync + Send>;

/// The conditions of a statement with the values of its parameters. What a person typed is only ever a value.
#[derive(Default)]
struct Conditions {
    parts: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    fn value(&mut self, value: impl ToSql + Sync + Send + 'static) -> usize {
        self.values.push(Box::new(value));
        self.values.len()
    }

    /// One of the globs; each by itself, for only so can an index be used.
    fn like(&mut self, expression: &str, globs: &[Glob]) -> Option<String> {
        let each: Vec<String> =
            globs.iter().map(|glob| format!("{expression} LIKE ${}::text", self.value(glob.like()))).collect();
        (!each.is_empty()).then(|| format!("({})", each.join(" OR ")))
    }

    fn and(&mut self, part: Option<String>) {
        self.parts.extend(part);
    }
}

/// The last stamp is this one.
fn in_state(state: State) -> String {
    let later: String =
        State::ALL[state as usize + 1..].iter().map(|next| format!(" AND m.{} IS NULL", next.column())).collect();
    format!("(m.{} IS NOT NULL{later})", state.column())
}

/// Since when it is in its state.
fn last_stamp() -> String {
    let columns: Vec<String> = State::ALL.iter().rev().map(|state| format!("m.{}", state.column())).collect();
    format!("COALESCE({})::timestamptz", columns.join(", "))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a century fit an f64")]
fn seconds(span: TimeDelta) -> f64 {
    span.num_milliseconds() as f64 / 1000.0
}

impl OverviewFilter {
    /// The condition, from `WHERE` on, and the values of its parameters.
    fn sql(&self) -> (String, Vec<Value>) {
        let mut all = Conditions::default();
        self.names(&mut all);
        if !self.states.is_empty() {
            let states: Vec<String> = self.states.iter().map(|state| in_state(*state)).collect();
            all.and(Some(format!("({})", states.join(" OR "))));
        }
        if !self.modes.is_empty() {
            let modes: Vec<String> = self.modes.iter().map(|mode| format!("m.mode = '{}'", mode.label())).collect();
            all.and(Some(format!("({})", modes.join(" OR "))));
        }
        for (column, globs) in [
            ("m.tapepool", &self.pools),
            ("m.mediatype", &self.mediatypes),
            ("k.memory->>'logical_library'", &self.libraries),
            ("m.responsible", &self.responsibles),
        ] {
            let part = all.like(column, globs);
            all.and(part);
        }
        if !self.priorities.is_empty() {
            let number = all.value(self.priorities.iter().map(|priority| i32::from(*priority)).collect::<Vec<i32>>());
            all.and(Some(format!("m.priority = ANY(${number}::int4[])")));
        }
        for (span, sign) in [(self.older_than, "<="), (self.newer_than, ">")] {
            if let Some(span) = span {
                let number = all.value(seconds(span));
                let since = last_stamp();
                all.and(Some(format!("{since} {sign} clock_timestamp() - make_interval(secs => ${number}::float8)")));
            }
        }
        if !self.outcomes.is_empty() {
            let number = all.value(self.outcomes.iter().map(|outcome| outcome.name()).collect::<Vec<&'static str>>());
            all.and(Some(format!("k.outcome = ANY(${number}::text[])")));
        }
        all.and(self.held.then(|| "c.name IS NOT NULL".to_owned()));
        let mut sql = match all.parts.is_empty() {
            true => String::new(),
            false => format!("WHERE {} ", all.parts.join(" AND ")),
        };
        sql.push_str("ORDER BY m.tape");
        if let Some(limit) = self.limit {
            sql.push_str(&format!(" LIMIT ${}::int8", all.value(limit)));
        }
        (sql, all.values)
    }

    /// Named VIDs are meant whether they are finished or not; of the others, finished ones only where they are wanted.
    fn names(&self, all: &mut Conditions) {
        let open = (!self.finished).then_some("m.finished IS NULL");
        if self.vids.is_empty() && self.globs.is_empty() {
            return all.and(open.map(str::to_owned));
        }
        let mut ways = Vec::new();
        if !self.vids.is_empty() {
            let number = all.value(self.vids.iter().map(|vid| vid.as_str().to_owned()).collect::<Vec<String>>());
            ways.push(format!("m.tape = ANY(${number}::text[])"));
        }
        if let Some(like) = all.like("m.tape::text", &self.globs) {
            ways.push([Some(like.as_str()), open].into_iter().flatten().collect::<Vec<_>>().join(" AND "));
        }
        all.and(Some(format!("(({}))", ways.join(") OR ("))));
    }
}

impl Store {
    /// Rows with everything known about them, in the order of the VIDs. `vids`, `modes`: only these; `finished`: those too.
    ///
    /// # Errors
    /// What the database says.
    pub async fn overview(
        &self,
        vids: Option<&[Vid]>,
        modes: Option<&[Mode]>,
        finished: bool,
    ) -> Result<Vec<Overview>, StoreError> {
        if vids.is_some_and(<[Vid]>::is_empty) || modes.is_some_and(<[Mode]>::is_empty) {
            return Ok(Vec::new());
        }
        let filter = OverviewFilter {
            vids: vids.unwrap_or_default().to_vec(),
            modes: modes.unwrap_or_default().to_vec(),
            finished,
            ..OverviewFilter::default()
        };
        let mut rows = self.overviews(&filter).await?;
        if !finished {
            rows.retain(|overview| overview.row.as_ref().map_or(true, |tape| tape.state() != State::Finished));
        }
        Ok(rows)
    }

    /// Rows with everything known about them, in the order of the VIDs, as far as the filter means them.
    ///
    /// # Errors
    /// What the database says.
    pub async fn overviews(&self, filter: &OverviewFilter) -> Result<Vec<Overview>, StoreError> {
        let (condition, values) = filter.sql();
        let values: Vec<&(dyn ToSql + Sync)> =
            values.iter().map(|value| value.as_ref() as &(dyn ToSql + Sync)).collect();
        let client = self.client().await?;
        let rows = client.query_raw(&format!("{}{condition}", self.statements.overview), values).await?;
        let mut rows = std::pin::pin!(rows);
        let mut overviews = Vec::new();
        let mut places = None;
        // Read while the server goes on.
        while let Some(row) = rows.try_next().await? {
            let [task, seen, who, why, until, now] = *places.get_or_insert_with(|| {
                // Where the columns are is the same for all rows.
                ["k_tape", "k_seen_xmin", "hold_who", "hold_why", "hold_until", "now"]
                    .map(|name| row.columns().iter().position(|column| column.name() == name).unwrap_or_default())
            });
            let has_task = row.get::<_, Option<&str>>(task).is_some();
            let who: Option<String> = row.get(who);
            let tape = read_row(&row, TimeDelta::hours(1));
            let mut task = if has_task { Some(read_task_from(&row, task)?) } else { None };
            if let (Ok(tape), Some(task)) = (&tape, &mut task) {
                // What the statement did not send, for the row has it already.
                let known = row.get::<_, Option<i64>>(seen) == Some(tape.xmin);
                task.seen = task.seen.take().or_else(|| known.then(|| SeenRow::of(tape)));
            }
            overviews.push(Overview {
                row: tape,
                task,
                hold: who.map(|who| Hold { who, why: row.get(why), until: row.get(until) }),
                now: row.get(now),
            });
        }
        Ok(overviews)
    }
}

impl Store {
    /// The plan by which PostgreSQL would look up these rows, a line each.
    ///
    /// # Errors
    /// What the database says.
    pub async fn plan_of_overviews(&self, filter: &OverviewFilter) -> Result<Vec<String>, StoreError> {
        let (condition, values) = filter.sql();
        let values: Vec<&(dyn ToSql + Sync)> =
            values.iter().map(|value| value.as_ref() as &(dyn ToSql + Sync)).collect();
        let client = self.client().await?;
        let rows = client.query(&format!("EXPLAIN {}{condition}", self.statements.overview), &values).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> Glob {
        text.parse().unwrap()
    }

    #[test]
    fn a_glob_stands_for_what_its_stars_and_question_marks_say() {
        for (pattern, name, stands) in [
            ("V01*", "V01007", true),
            ("V01*", "V02007", false),
            ("*7", "V01007", true),
            ("*7", "V01070", false),
            ("V??007", "V01007", true),
            ("V?007", "V01007", false),
            ("*", "", true),
            ("*0*7*", "V01007", true),
            ("V_1", "VX1", false),
            ("V%", "V01", false),
            ("V01007", "V01007", true),
            ("V0100", "V01007", false),
            ("**", "x", true),
            ("", "", false),
        ] {
            if pattern.is_empty() {
                assert!(pattern.parse::<Glob>().is_err());
                continue;
            }
            assert_eq!(glob(pattern).matches(name), stands, "{pattern} {name}");
        }
    }

    #[test]
    fn what_like_reads_as_its_own_signs_is_escaped() {
        assert_eq!(glob("r_w%\\*?").like(), "r\\_w\\%\\\\%_");
        assert!("a\nb".parse::<Glob>().is_err());
        assert!("x".repeat(101).parse::<Glob>().is_err());
    }

    #[test]
    fn what_was_typed_is_never_part_of_the_statement() {
        let evil = "x'; DROP TABLE y; --";
        let filter = OverviewFilter {
            globs: vec![glob(evil)],
            pools: vec![glob(evil)],
            mediatypes: vec![glob(evil)],
            libraries: vec![glob(evil)],
            responsibles: vec![glob(evil)],
            older_than: Some(TimeDelta::hours(1)),
            newer_than: Some(TimeDelta::hours(2)),
            priorities: vec![1, -2],
            limit: Some(3),
            ..OverviewFilter::default()
        };
        let (sql, values) = filter.sql();
        assert!(!sql.contains("DROP"), "{sql}");
        assert_eq!(values.len(), 9);
        assert!((1..=9).all(|number| sql.contains(&format!("${number}::"))), "{sql}");
    }

    #[test]
    fn without_conditions_only_what_is_on_its_way_is_meant() {
        assert_eq!(OverviewFilter::default().sql().0, "WHERE m.finished IS NULL ORDER BY m.tape");
        let all = OverviewFilter { finished: true, ..OverviewFilter::default() };
        assert_eq!(all.sql().0, "ORDER BY m.tape");
        let started = OverviewFilter { finished: true, states: vec![State::Reclaimed], ..OverviewFilter::default() };
        assert_eq!(started.sql().0, "WHERE ((m.reclaimed IS NOT NULL AND m.finished IS NULL)) ORDER BY m.tape");
    }
}

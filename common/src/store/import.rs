//! The main table as somebody else made and filled it: its definition, and every row, streamed.

use futures_util::TryStreamExt as _;

use super::rows::read_row;
use super::statements::columns;
use super::{SUMMER_TIME, Store, StoreError};
use crate::journey::{Mode, State};
use crate::tape::{OddRow, Tape};

/// The main table as the database describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Definition {
    /// Its columns, in their order.
    pub columns: Vec<Column>,
    /// The words that `mode` may hold.
    pub modes: Vec<String>,
    /// No tape can be in it twice.
    pub unique: bool,
    /// Of SELECT, INSERT, UPDATE, DELETE: what we are not allowed.
    pub denied: Vec<String>,
}

/// A column of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Type, as `varchar(20)`.
    pub shown: String,
    /// Name of the type, as `varchar`.
    pub kind: String,
    /// A row must have it, and nothing fills it in.
    pub wanted: bool,
}

const TEXT: &[&str] = &["varchar", "text", "bpchar"];
const NUMBER: &[&str] = &["int2", "int4", "int8"];
const STAMP: &[&str] = &["timestamp"];

/// What a column must be. The seed's sixteen.
fn expected(name: &str) -> Option<&'static [&'static str]> {
    if name == "last_write_date" || State::ALL.iter().any(|state| state.column() == name) {
        return Some(STAMP);
    }
    match name {
        "tape" | "mediatype" | "tapepool" | "responsible" => Some(TEXT),
        "files" | "bytes" | "usage" | "priority" => Some(NUMBER),
        "mode" => Some(&[]),
        _ => None,
    }
}

impl Definition {
    /// Everything that keeps us from working with it, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let others = ["last_write_date", "tape", "mode", "mediatype", "tapepool", "responsible"];
        let names = State::ALL.iter().map(|state| state.column()).chain(others);
        for name in names.chain(["files", "bytes", "usage", "priority"]) {
            if !self.columns.iter().any(|column| column.name == name) {
                problems.push(format!("column {name} is missing"));
            }
        }
        for column in &self.columns {
            match expected(&column.name) {
                Some([]) => {}
                Some(kinds) if kinds.contains(&column.kind.as_str()) => {}
                Some(kinds) => problems.push(format!("column {} is {}, not {}", column.name, column.shown, kinds[0])),
                None if column.wanted => problems.push(format!(
                    "column {} is not one of ours, must be filled and has no default: no tape could be entered",
                    column.name
                )),
                None => {}
            }
        }
        for mode in [Mode::Auto, Mode::Manual, Mode::Error] {
            if !self.modes.iter().any(|label| label == mode.label()) {
                problems.push(format!("column mode cannot hold '{mode}'"));
            }
        }
        if !self.unique {
            problems.push("nothing keeps a tape from being in it twice: column tape has no unique index".to_owned());
        }
        problems.extend(self.denied.iter().map(|right| format!("we may not {right} on it: GRANT it")));
        problems
    }
}

/// A row, and whether the task table has noted it as it is.
#[derive(Debug)]
pub struct Walked {
    /// The row, or what is wrong with it.
    pub row: Result<Tape, OddRow>,
    /// Noted as it is.
    pub noted: bool,
}

impl Store {
    /// How the main table is defined; none if there is none.
    ///
    /// # Errors
    /// What the database says.
    pub async fn definition(&self) -> Result<Option<Definition>, StoreError> {
        let client = self.client().await?;
        let table = self.statements.table();
        let is_table = "SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = to_regclass($1)";
        let Some(row) = client.query_opt(is_table, &[&table]).await? else { return Ok(None) };
        if !row.get::<_, bool>(0) {
            return Err(anyhow::anyhow!("{table} is no table, but something else of this name").into());
        }
        let columns = "SELECT a.attname::text AS name, t.typname::text AS kind, format_type(a.atttypid, a.atttypmod) AS shown, \
                       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS wanted FROM pg_attribute a \
                       JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 \
                       AND NOT a.attisdropped ORDER BY a.attnum";
        let columns = client.query(columns, &[&table]).await?;
        let modes = "SELECT e.enumlabel::text FROM pg_enum e JOIN pg_attribute a ON a.atttypid = e.enumtypid \
                     WHERE a.attrelid = to_regclass($1) AND a.attname = 'mode' ORDER BY e.enumsortorder";
        let modes = client.query(modes, &[&table]).await?;
        let unique = "SELECT EXISTS (SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
                      WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL \
                      AND i.indnkeyatts = 1 AND a.attname = 'tape')";
        let unique = client.query_one(unique, &[&table]).await?.get(0);
        // A right may be given for some columns only, as our roles have it.
        let denied = "SELECT r FROM unnest(ARRAY['SELECT', 'UPDATE']) r \
                      WHERE NOT has_any_column_privilege(to_regclass($1), r)";
        let denied = client.query(denied, &[&table]).await?;
        Ok(Some(Definition {
            columns: columns
                .iter()
                .map(|row| Column {
                    name: row.get("name"),
                    kind: row.get("kind"),
                    shown: row.get("shown"),
                    wanted: row.get("wanted"),
                })
                .collect(),
            modes: modes.iter().map(|row| row.get(0)).collect(),
            unique,
            denied: denied.iter().map(|row| row.get(0)).collect(),
        }))
    }

    /// Hands over every row of the main table, in the order of the VIDs, while they arrive. `tasks`: the task table is there.
    ///
    /// # Errors
    /// What the database says.
    pub async fn walk(&self, tasks: bool, mut each: impl FnMut(Walked)) -> Result<u64, StoreError> {
        let client = self.client().await?;
        let (table, row) = (self.statements.table(), columns("m"));
        let walk = if tasks {
            let task = &self.statements.task_regclass;
            format!(
                "SELECT {row}, coalesce(k.seen_xmin = m.xmin::text::int8, false) AS noted \
                 FROM {table} m LEFT JOIN {task} k ON k.tape = m.tape ORDER BY m.tape"
            )
        } else {
            format!("SELECT {row}, false AS noted FROM {table} m ORDER BY m.tape")
        };
        let none: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];
        let rows = client.query_raw(&walk, none).await?;
        futures_util::pin_mut!(rows);
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            each(Walked { row: read_row(&row, SUMMER_TIME), noted: row.get("noted") });
            count += 1;
        }
        Ok(count)
    }

    /// Whether the tables beside the main table are there.
    ///
    /// # Errors
    /// What the database says.
    pub async fn is_migrated(&self) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let there = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&self.statements.task_regclass]).await?;
        Ok(there.get(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Definition {
        let kinds = [
            ("varchar", &["tape", "mediatype", "tapepool", "responsible"][..]),
            (
                "timestamp",
                &["entered", "started", "repacked", "quarantined", "reclaimed", "finished", "last_write_date"],
            ),
            ("int8", &["files", "bytes"]),
            ("int2", &["usage", "priority"]),
            ("automation_modes", &["mode"]),
        ];
        let columns = kinds.iter().flat_map(|(kind, names)| {
            names.iter().map(|name| Column {
                name: (*name).to_owned(),
                shown: (*kind).to_owned(),
                kind: (*kind).to_owned(),
                wanted: *name == "tape",
            })
        });
        Definition {
            columns: columns.collect(),
            modes: ["auto", "manual", "error"].map(str::to_owned).into(),
            unique: true,
            denied: Vec::new(),
        }
    }

    #[test]
    fn each_thing_wrong_with_a_table_is_named() {
        assert_eq!(sound().problems(), Vec::<String>::new());
        for column in &sound().columns {
            let mut table = sound();
            table.columns.retain(|other| other.name != column.name);
            assert_eq!(table.problems(), [format!("column {} is missing", column.name)]);
        }
        type Change = fn(&mut Definition);
        let rows: [(Change, &str); 5] = [
            (|t| t.columns[4].kind = "timestamptz".to_owned(), "not timestamp"),
            (|t| t.unique = false, "twice"),
            (|t| t.denied.push("UPDATE".to_owned()), "GRANT"),
            (|t| t.modes.retain(|mode| mode != "error"), "cannot hold 'error'"),
            (
                |t| {
                    let extra = Column { name: "site".to_owned(), wanted: true, ..t.columns[0].clone() };
                    t.columns.push(extra);
                },
                "no default",
            ),
        ];
        for (change, says) in rows {
            let mut table = sound();
            change(&mut table);
            let problems = table.problems();
            assert!(problems.len() == 1 && problems[0].contains(says), "{problems:?}");
        }
        let mut table = sound();
        table.columns.push(Column { name: "note".to_owned(), wanted: false, ..table.columns[0].clone() });
        assert_eq!(table.problems(), Vec::<String>::new(), "a column more is none of our business");
    }
}

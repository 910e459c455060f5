//! The one way for a table name to get from the configuration into SQL.

use std::fmt;

use super::TableName;

/// PostgreSQL cuts longer names without asking, and two cut names may be the same.
const MAX_NAME: usize = 63;
/// The longest of the suffixes that are put behind the main table's name.
const LONGEST_SUFFIX: &str = "_generation_seq";

impl TableName {
    /// Checks `name` or `schema.name` and folds it to lower case, as PostgreSQL does with a name without quotes.
    ///
    /// # Errors
    /// What was expected, where a part is empty, has a character other than ASCII letters, digits and `_`, begins with a
    /// digit, or is too long for the tables beside it to have names of their own.
    pub fn parse(text: &str) -> Result<TableName, String> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        let plain = |part: &str| {
            part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && part.bytes().next().is_some_and(|b| !b.is_ascii_digit())
        };
        if !plain(name) || !schema.is_none_or(plain) {
            return Err("a table name of letters, digits and '_' that does not begin with a digit, perhaps with a \
                        schema and a dot before it, without quotes"
                .to_owned());
        }
        let longest = MAX_NAME - LONGEST_SUFFIX.len();
        if name.len() > longest || schema.is_some_and(|schema| schema.len() > MAX_NAME) {
            return Err(format!(
                "a table name of at most {longest} characters (names such as <table>{LONGEST_SUFFIX} are made from it), \
                 its schema at most {MAX_NAME}"
            ));
        }
        Ok(TableName { schema: schema.map(str::to_ascii_lowercase), name: name.to_ascii_lowercase() })
    }

    /// The SQL name of the table (or sequence) beside this one, in the same schema: `with_suffix("_task")`.
    ///
    /// The suffix is one of ours, at most as long as `_generation_seq`.
    pub fn with_suffix(&self, suffix: &str) -> String {
        debug_assert!(suffix.len() <= LONGEST_SUFFIX.len(), "{suffix} is longer than names were checked for");
        TableName { schema: self.schema.clone(), name: format!("{}{suffix}", self.name) }.to_string()
    }
}

/// As SQL. The parts stand in double quotes, which changes nothing for a folded name and makes `order` or `user` a name
/// like any other.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "\"{schema}\".")?;
        }
        write!(f, "\"{}\"", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_is_folded_and_quoted_and_suffixes_stay_inside_the_quotes() {
        let plain = TableName::parse("REPACK_STATUS").unwrap();
        assert_eq!(plain.to_string(), "\"repack_status\"");
        assert_eq!(plain.with_suffix("_task"), "\"repack_status_task\"");
        let deep = TableName::parse("Ops.Repack").unwrap();
        assert_eq!(
            (deep.to_string(), deep.with_suffix("_event")),
            (r#""ops"."repack""#.into(), r#""ops"."repack_event""#.into())
        );
    }

    #[test]
    fn what_could_leave_the_quotes_or_is_no_name_is_refused() {
        for bad in
            ["", ".", "a.", ".a", "a.b.c", "1a", "a b", "a\"b", "a'b", "a;b", "a-b", "ä", "a\0", "a.1", " a", "\"a\""]
        {
            assert!(TableName::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_longest_name_leaves_room_for_the_longest_suffix() {
        let longest = "x".repeat(48);
        assert_eq!(TableName::parse(&longest).unwrap().with_suffix(LONGEST_SUFFIX).len(), 63 + 2);
        assert!(TableName::parse(&"x".repeat(49)).is_err());
        assert!(TableName::parse(&format!("{}.x", "s".repeat(64))).is_err());
    }
}

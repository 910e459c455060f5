//! The VID and the row of the main table as a value.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::journey::{Mode, Stamps, State};

/// A volume identifier: one to twenty of `A`-`Z`, `0`-`9`, `_` and `-`, beginning with a letter or a digit.
///
/// Text becomes a `Vid` only here, so nothing that looks like an option, a path, SQL or an escape sequence ever reaches
/// a command line, a file name, a statement or a log as a VID. Twenty is the width of the column in the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Vid(String);

/// Why a text is no VID. Shows the text with control characters escaped, cut to a bearable length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAVid(String);

impl fmt::Display for NotAVid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not a VID: expected 1 to 20 of A-Z, 0-9, '_' and '-', beginning with a letter or a digit",
            self.0
        )
    }
}

impl std::error::Error for NotAVid {}

impl Vid {
    /// The longest VID that the table holds.
    pub const MAX_LEN: usize = 20;

    /// What a person typed: like [`Vid::from_str`], after making it upper case.
    ///
    /// # Errors
    /// When it is still no VID.
    pub fn typed(text: &str) -> Result<Vid, NotAVid> {
        text.to_ascii_uppercase().parse()
    }

    /// The VID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is a VID.
    ///
    /// # Errors
    /// When it is none.
    pub fn check(text: &str) -> Result<(), NotAVid> {
        let fits = (1..=Vid::MAX_LEN).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
            && text.as_bytes()[0].is_ascii_alphanumeric();
        if fits { Ok(()) } else { Err(NotAVid(text.escape_default().take(60).collect())) }
    }
}

impl FromStr for Vid {
    type Err = NotAVid;

    fn from_str(text: &str) -> Result<Vid, NotAVid> {
        Vid::check(text).map(|()| Vid(text.to_owned()))
    }
}

impl TryFrom<String> for Vid {
    type Error = NotAVid;

    fn try_from(text: String) -> Result<Vid, NotAVid> {
        text.parse()
    }
}

impl From<Vid> for String {
    fn from(vid: Vid) -> String {
        vid.0
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A row of the main table, read and found lawful.
#[derive(Debug, Clone, PartialEq)]
pub struct Tape {
    /// The tape.
    pub vid: Vid,
    /// How far it has come, and when.
    pub stamps: Stamps,
    /// Who may act on it.
    pub mode: Mode,
    /// A key of the configured priorities; the larger number runs first.
    pub priority: i16,
    /// Media type when it was prepared.
    pub mediatype: String,
    /// Tape pool when it was prepared.
    pub tapepool: String,
    /// Who asked for the repack.
    pub responsible: String,
    /// Live files when it was prepared.
    pub files: i64,
    /// Live bytes when it was prepared.
    pub bytes: i64,
    /// Live bytes of written bytes when it was prepared, in percent.
    pub usage: i16,
    /// Last write to the tape before it was prepared.
    pub last_write_date: Option<DateTime<Utc>>,
    /// The row's `xmin`: changes with every write, whoever writes.
    pub xmin: i64,
}

impl Tape {
    /// How far it has come.
    pub fn state(&self) -> State {
        self.stamps.state()
    }
}

/// A row of the main table that breaks a rule: named, and left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OddRow {
    /// What the `tape` column holds, control characters escaped.
    pub tape: String,
    /// What is wrong with it, a sentence each.
    pub problems: Vec<String>,
}

impl fmt::Display for OddRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the row of {} is odd and left alone: {}", self.tape, self.problems.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_looks_like_an_option_a_path_or_sql_is_no_vid() {
        for bad in [
            "",
            "--all",
            "-V",
            "_X",
            "v01007",
            "V01007;rm",
            "../V01",
            "V 01",
            "V01\n",
            "V01\0",
            "Ｖ01007",
            "A23456789012345678901",
        ] {
            assert!(bad.parse::<Vid>().is_err(), "{bad:?}");
        }
        for good in ["V01007", "A", "0", "L8-000_1", "A2345678901234567890"] {
            assert_eq!(good.parse::<Vid>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_typed_vid_is_made_upper_case_and_nothing_else() {
        assert_eq!(Vid::typed("v01007").unwrap().as_str(), "V01007");
        assert!(Vid::typed(" V01007").is_err());
    }

    #[test]
    fn a_refusal_shows_control_characters_escaped() {
        let shown = "V\x1b[31m\n".parse::<Vid>().unwrap_err().to_string();
        assert!(!shown.contains('\x1b') && !shown.contains('\n'), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_harmless(text in any::<String>()) {
            if let Ok(vid) = text.parse::<Vid>() {
                prop_assert!(vid.as_str().len() <= Vid::MAX_LEN);
                prop_assert!(!vid.as_str().starts_with('-'));
                prop_assert!(vid.as_str().bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-' || b == b'_'));
            }
        }
    }
}

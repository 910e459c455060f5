//! The VID and the row of the main table as a value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
}

impl FromStr for Vid {
    type Err = NotAVid;

    fn from_str(text: &str) -> Result<Vid, NotAVid> {
        let fits = (1..=Vid::MAX_LEN).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
            && text.as_bytes()[0].is_ascii_alphanumeric();
        if fits { Ok(Vid(text.to_owned())) } else { Err(NotAVid(text.escape_default().take(60).collect())) }
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

//! How far a tape has come, who may act on it, and the one law by which both change.
//!
//! No clock, no I/O, no logging: everything that varies is an argument.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far a tape has come: the last of its stamps.
///
/// | state | who moves it on | what a crash leaves behind |
/// |---|---|---|
/// | Entered | start | perhaps a tape in CTA state REPACKING, or a repack request nobody recorded: both are looked for |
/// | Started | end | nothing: end only looks (a next round is a start again) |
/// | Repacked | quarantine | perhaps a request removed, a state changed, a pool changed: each is looked for |
/// | Quarantined | reclaim, when the quarantine is over | perhaps a reclaimed tape: looked for |
/// | Reclaimed | finish | perhaps a moved tape: looked for |
/// | Finished | nobody | nothing |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The tape is in the table; nothing has been done in CTA.
    Entered,
    /// CTA holds our repack request for it.
    Started,
    /// The repack is complete and no file is left on it.
    Repacked,
    /// It sits in the quarantine pool, out of REPACKING, with its old data still on the medium.
    Quarantined,
    /// CTA has forgotten its content; the tape counts as empty.
    Reclaimed,
    /// It is in its destination pool. The journey is over.
    Finished,
}

impl State {
    /// All states in the order of the journey.
    pub const ALL: [State; 6] =
        [State::Entered, State::Started, State::Repacked, State::Quarantined, State::Reclaimed, State::Finished];

    /// The lower-case name: the column of the table that holds its stamp.
    pub fn column(self) -> &'static str {
        match self {
            State::Entered => "entered",
            State::Started => "started",
            State::Repacked => "repacked",
            State::Quarantined => "quarantined",
            State::Reclaimed => "reclaimed",
            State::Finished => "finished",
        }
    }

    /// The state after this one; none after Finished.
    pub fn next(self) -> Option<State> {
        State::ALL.get(self as usize + 1).copied()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.column())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<State, String> {
        State::ALL
            .into_iter()
            .find(|state| state.column().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("'{text}' is not a state; states are {}", State::ALL.map(State::column).join(", ")))
    }
}

/// Who may act on a tape. Orthogonal to the state: a change of mode keeps every stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The automation works on it.
    Auto,
    /// An operator works on it; the automation does not touch it.
    Manual,
    /// Something needs a person; nobody touches it until one decides.
    Error,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 3] = [Mode::Auto, Mode::Manual, Mode::Error];

    /// The label of the `automation_modes` type in the database.
    pub fn label(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Manual => "manual",
            Mode::Error => "error",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.label().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("'{text}' is not a mode; modes are {}", Mode::ALL.map(Mode::label).join(", ")))
    }
}

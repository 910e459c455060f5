//! How far a tape has come, who may act on it, and the one law by which both change.
//!
//! No clock, no I/O, no logging: everything that varies is an argument.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
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

/// The six stamps of a row: an unbroken prefix that never goes back in time.
///
/// Invariant: made only by [`Stamps::check`] and [`Stamps::stamped`], so a value of this type is always lawful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamps([Option<DateTime<Utc>>; 6]);

impl Stamps {
    /// A tape that has just been entered.
    pub fn entered(at: DateTime<Utc>) -> Stamps {
        Stamps([Some(at), None, None, None, None, None])
    }

    /// Checks what a row says, in the order of [`State::ALL`]. `tolerance` is how far a stamp may lie before the one
    /// before it: an hour where the table's zone has summer time, otherwise nothing.
    ///
    /// # Errors
    /// Every way in which the stamps are no lawful prefix, in words.
    pub fn check(raw: [Option<DateTime<Utc>>; 6], tolerance: TimeDelta) -> Result<Stamps, Vec<String>> {
        let mut wrong = Vec::new();
        if raw[0].is_none() {
            wrong.push("entered is not set".to_owned());
        }
        for (earlier, later) in State::ALL.into_iter().zip(State::ALL.into_iter().skip(1)) {
            match (raw[earlier as usize], raw[later as usize]) {
                (None, Some(_)) => wrong.push(format!("{later} is set although {earlier} is not")),
                (Some(before), Some(after)) if before.signed_duration_since(after) > tolerance => {
                    wrong.push(format!("{later} is before {earlier}"));
                }
                _ => {}
            }
        }
        if wrong.is_empty() { Ok(Stamps(raw)) } else { Err(wrong) }
    }

    /// The state: the last stamp.
    pub fn state(&self) -> State {
        State::ALL
            .into_iter()
            .rev()
            .find(|state| self.0[*state as usize].is_some())
            .expect("entered is always set, it was checked")
    }

    /// When the tape came to a state, if it did.
    pub fn at(&self, state: State) -> Option<DateTime<Utc>> {
        self.0[state as usize]
    }

    /// When it was entered: with the VID, the name of the journey.
    pub fn begun(&self) -> DateTime<Utc> {
        self.0[0].expect("entered is always set, it was checked")
    }

    /// The same with the next stamp set: never before the last one.
    ///
    /// # Errors
    /// When `to` is not the next state.
    pub fn stamped(mut self, to: State, now: DateTime<Utc>) -> Result<Stamps, Refused> {
        if self.state().next() != Some(to) {
            return Err(Refused(format!("a tape that is {} cannot become {to}", self.state())));
        }
        let last = self.0[self.state() as usize].expect("the state is a stamp that is set");
        self.0[to as usize] = Some(now.max(last));
        Ok(self)
    }
}

/// Something that wants to change a tape's state or mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The stage that leads from `from` to `to` has seen that it is done.
    Advance {
        /// Where the stage starts.
        from: State,
        /// Where it leads.
        to: State,
    },
    /// The stage that starts at `from` cannot go on.
    Fail {
        /// Where the stage starts.
        from: State,
    },
    /// An operator gives the tape to the automation.
    Requeue,
    /// An operator takes the tape into their own hands.
    TakeOver,
}

/// What an event does to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Set the stamp of this state.
    Stamp(State),
    /// Set the mode.
    SetMode(Mode),
}

/// Why the law refuses an event, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// The whole law. Progress, failure, requeue and take-over all pass through it; what it does not name, it refuses.
///
/// Progress does not ask for the mode: a stamp says what was *seen*, and a change of mode while a worker looked does not
/// make it untrue. Whether a stage may *act* is asked before each command, where the mode does count.
///
/// # Errors
/// When no arm allows the event: unknown means no.
pub fn change(state: State, mode: Mode, event: Event) -> Result<Change, Refused> {
    match (mode, event) {
        (_, Event::Advance { from, to }) if from == state && state.next() == Some(to) => Ok(Change::Stamp(to)),
        (Mode::Auto, Event::Fail { from }) if from == state => Ok(Change::SetMode(Mode::Error)),
        (Mode::Error | Mode::Manual, Event::Requeue) if state != State::Finished => Ok(Change::SetMode(Mode::Auto)),
        (Mode::Auto | Mode::Error, Event::TakeOver) if state != State::Finished => Ok(Change::SetMode(Mode::Manual)),
        (mode, event) => Err(Refused(format!("a tape that is {state}, mode {mode}, refuses {event:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
    }

    fn events() -> Vec<Event> {
        let mut events = vec![Event::Requeue, Event::TakeOver];
        for from in State::ALL {
            events.push(Event::Fail { from });
            events.extend(State::ALL.map(|to| Event::Advance { from, to }));
        }
        events
    }

    /// The law once more, as a list of what is allowed; everything else must be refused.
    fn allowed(state: State, mode: Mode, event: Event) -> Option<Change> {
        use Mode::{Auto, Error, Manual};
        use State::{Entered, Finished, Quarantined, Reclaimed, Repacked, Started};
        let steps = [
            (Entered, Started),
            (Started, Repacked),
            (Repacked, Quarantined),
            (Quarantined, Reclaimed),
            (Reclaimed, Finished),
        ];
        match event {
            Event::Advance { from, to } => (from == state && steps.contains(&(from, to))).then_some(Change::Stamp(to)),
            Event::Fail { from } => (from == state && mode == Auto).then_some(Change::SetMode(Error)),
            Event::Requeue => (state != Finished && [Error, Manual].contains(&mode)).then_some(Change::SetMode(Auto)),
            Event::TakeOver => (state != Finished && [Auto, Error].contains(&mode)).then_some(Change::SetMode(Manual)),
        }
    }

    #[test]
    fn every_state_mode_and_event_is_allowed_or_refused_as_listed() {
        let mut counted = 0;
        for state in State::ALL {
            for mode in Mode::ALL {
                for event in events() {
                    assert_eq!(
                        change(state, mode, event).ok(),
                        allowed(state, mode, event),
                        "{state} {mode} {event:?}"
                    );
                    counted += 1;
                }
            }
        }
        assert_eq!(counted, 6 * 3 * (2 + 6 + 36));
    }

    #[test]
    fn names_of_states_and_modes_read_back() {
        for state in State::ALL {
            assert_eq!(state.column().to_uppercase().parse(), Ok(state));
        }
        for mode in Mode::ALL {
            assert_eq!(mode.label().parse(), Ok(mode));
        }
        assert!("done".parse::<State>().unwrap_err().contains("reclaimed"));
        assert!("off".parse::<Mode>().unwrap_err().contains("manual"));
    }

    #[test]
    fn a_hole_a_step_back_and_a_missing_entered_are_each_named() {
        let none = TimeDelta::zero();
        let hole = Stamps::check([Some(at(0)), None, Some(at(2)), None, None, None], none).unwrap_err();
        assert_eq!(hole, ["repacked is set although started is not"]);
        let back = Stamps::check([Some(at(9)), Some(at(2)), None, None, None, None], none).unwrap_err();
        assert_eq!(back, ["started is before entered"]);
        let empty = Stamps::check([None; 6], none).unwrap_err();
        assert_eq!(empty, ["entered is not set"]);
    }

    #[test]
    fn a_step_back_of_up_to_an_hour_is_tolerated_only_where_the_zone_has_summer_time() {
        let raw = [Some(at(3600)), Some(at(0)), None, None, None, None];
        assert!(Stamps::check(raw, TimeDelta::zero()).is_err());
        assert!(Stamps::check(raw, TimeDelta::hours(1)).is_ok());
        let more = [Some(at(3601)), Some(at(0)), None, None, None, None];
        assert!(Stamps::check(more, TimeDelta::hours(1)).is_err());
    }

    proptest! {
        #[test]
        fn checked_stamps_are_an_unbroken_prefix(raw in proptest::array::uniform6(proptest::option::of(0i64..5))) {
            let raw = raw.map(|second| second.map(at));
            if let Ok(stamps) = Stamps::check(raw, TimeDelta::zero()) {
                let set = raw.iter().flatten().count();
                prop_assert!(raw[..set].iter().all(Option::is_some));
                prop_assert!(raw[..set].is_sorted());
                prop_assert_eq!(stamps.state() as usize, set - 1);
            }
        }

        #[test]
        fn stamping_moves_one_state_on_and_never_back_in_time(times in proptest::collection::vec(-100i64..100, 5)) {
            let mut stamps = Stamps::entered(at(0));
            for (to, now) in State::ALL.into_iter().skip(1).zip(times) {
                let before = stamps.at(stamps.state()).unwrap();
                for other in State::ALL.into_iter().filter(|other| *other != to) {
                    prop_assert!(stamps.stamped(other, at(now)).is_err());
                }
                stamps = stamps.stamped(to, at(now)).unwrap();
                prop_assert_eq!(stamps.state(), to);
                prop_assert!(stamps.at(to).unwrap() >= before);
            }
        }
    }
}

//! Points in time as people type them.

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone as _, Utc};

use crate::output::{clean, duration};

/// A point in time, or how long ago it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So long before now.
    Ago(TimeDelta),
    /// This one.
    At(DateTime<Utc>),
}

impl Moment {
    /// The point in time, by a clock that shows `now`.
    pub fn before(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Moment::Ago(span) => now.checked_sub_signed(span).unwrap_or(DateTime::UNIX_EPOCH),
            Moment::At(at) => at,
        }
    }
}

/// Reads an age (`2d`, `12h`), a time with its zone (`2026-11-23T10:00:00Z`), or a local time or date.
///
/// # Errors
/// What was expected.
pub fn moment(text: &str) -> Result<Moment, String> {
    let text = text.trim();
    if let Ok(span) = duration(text) {
        return Ok(Moment::Ago(span));
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(Moment::At(at.to_utc()));
    }
    let with_time = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
    let local = with_time.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    let midnight = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|date| date.and_time(NaiveTime::MIN));
    let Some(local) = local.or_else(midnight) else {
        return Err(format!(
            "'{}' is no time: expected an age such as 2d or 12h, a local time such as '2026-11-23 10:00' or 2026-11-23, \
             or 2026-11-23T10:00:00Z",
            clean(text)
        ));
    };
    // An hour that comes twice is taken for the first of the two.
    let at = Local.from_local_datetime(&local).earliest();
    at.map(|at| Moment::At(at.to_utc())).ok_or_else(|| format!("there is no {local} in the local time zone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_counted_back_from_now() {
        let now = DateTime::parse_from_rfc3339("2026-11-23T10:00:00Z").unwrap().to_utc();
        assert_eq!(moment("1d2h").unwrap().before(now), now - TimeDelta::hours(26));
        assert_eq!(moment("90m").unwrap(), Moment::Ago(TimeDelta::minutes(90)));
    }

    #[test]
    fn a_time_with_its_zone_is_that_time_and_one_without_is_local() {
        let noon = DateTime::parse_from_rfc3339("2026-11-23T12:00:00Z").unwrap().to_utc();
        assert_eq!(moment("2026-11-23T12:00:00Z"), Ok(Moment::At(noon)));
        assert_eq!(moment("2026-11-23T14:00:00+02:00"), Ok(Moment::At(noon)));
        let shown = |form: &str| noon.with_timezone(&Local).format(form).to_string();
        for form in ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"] {
            assert_eq!(moment(&shown(form)), Ok(Moment::At(noon)), "{form}");
        }
        let Ok(Moment::At(midnight)) = moment("2026-11-23") else { panic!("a date is a time") };
        assert_eq!(midnight.with_timezone(&Local).format("%Y-%m-%d %H:%M").to_string(), "2026-11-23 00:00");
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_was_expected() {
        for bad in ["", "yesterday", "2026-13-01", "2026-11-23 25:00", "10:00", "2x", "\x1b[31m"] {
            let why = moment(bad).unwrap_err();
            assert!(why.contains("expected") && !why.contains(char::is_control), "{bad:?}: {why}");
        }
    }
}

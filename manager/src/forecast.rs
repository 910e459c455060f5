//! When the queue will be empty: pure, rough, and silent where there is too little to go by.

use chrono::TimeDelta;
use common::explain::ago;
use common::store::{Ahead, DURATION_DAYS, StageTime};

use crate::output::counted;

/// Repacks below which nothing is foretold.
pub const ENOUGH: i64 = 10;

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

/// A range of seconds from now: half of the repacks as long as the middle one, and all as long as nine in ten.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// If all goes on as the middle one did.
    pub low: f64,
    /// If all goes on as slowly as one in ten did.
    pub high: f64,
}

/// What can be said.
#[derive(Debug, Clone, PartialEq)]
pub enum Forecast {
    /// Nothing is left to do.
    Empty,
    /// Too little is known.
    Unknown(String),
    /// About then.
    About {
        /// Until the last repack ends; none: none is left.
        repacked: Option<Span>,
        /// Until the last tape is finished.
        finished: Span,
        /// What it is based on.
        basis: String,
    },
}

/// Foretells from what is left, how long repacks took, the slots, and `quarantine_days` in seconds.
pub fn forecast(ahead: &Ahead, repack: Option<&StageTime>, slots: u32, quarantine_secs: f64) -> Forecast {
    let aside = match ahead.set_aside {
        0 => String::new(),
        aside => {
            format!("; without {} that stand still: manual, stopped, stalled, held or odd", counted(aside, "tape"))
        }
    };
    let days = quarantine_secs / DAY;
    if ahead.to_start + ahead.repacking + ahead.after == 0 {
        return Forecast::Empty;
    }
    if ahead.to_start + ahead.repacking == 0 {
        let low = ahead.newest_quarantine_secs.map_or(0.0, |since| (quarantine_secs - since).max(0.0));
        let high = ahead.newest_quarantine_secs.map_or(quarantine_secs, |_| low);
        let basis = format!("{} after the repack, quarantine_days {days}{aside}", counted(ahead.after, "tape"));
        return Forecast::About { repacked: None, finished: Span { low, high }, basis };
    }
    let samples = repack.map_or(0, |repack| repack.samples);
    let Some(repack) = repack.filter(|repack| repack.samples >= ENOUGH) else {
        return Forecast::Unknown(format!(
            "{} ended in the last {DURATION_DAYS} days, and it takes {ENOUGH} to foretell when the others will{aside}",
            counted(samples, "repack")
        ));
    };
    let stuck = ahead.stuck_slots;
    if stuck >= i64::from(slots) && ahead.repacking == 0 {
        return Forecast::Unknown(format!("all {slots} slots are held by tapes that do not move{aside}"));
    }
    let (median, ninety) = (repack.median_secs, repack.ninety_secs);
    let count = |tapes: i64| u32::try_from(tapes).map_or(f64::MAX, f64::from);
    let free = count(i64::from(slots).saturating_sub(stuck).max(1));
    let held = if stuck > 0 { format!(", {stuck} of them held by tapes that do not move") } else { String::new() };
    // Those that run are half done on average; the last one to start still takes its time.
    let least = if ahead.to_start > 0 { median } else { median / 2.0 };
    let low = ((count(ahead.to_start) + count(ahead.repacking) / 2.0) * median / free).max(least);
    let high = (count(ahead.to_start + ahead.repacking) * ninety / free).max(ninety);
    let basis = format!(
        "{} to start and {} repacking, {}{held}, {samples} repacks of the last {DURATION_DAYS} days (half took at most \
         {}, nine in ten at most {}), quarantine_days {days}{aside}",
        counted(ahead.to_start, "tape"),
        ahead.repacking,
        counted(slots, "slot"),
        took(median),
        took(ninety),
    );
    Forecast::About {
        repacked: Some(Span { low, high }),
        finished: Span { low: low + quarantine_secs, high: high + quarantine_secs },
        basis,
    }
}

/// Seconds as `1d2h`.
pub fn took(secs: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "a float becomes the nearest integer there is")]
    let whole = secs.round() as i64;
    ago(TimeDelta::try_seconds(whole).unwrap_or(TimeDelta::MAX))
}

/// A range in words, as exact as such a thing can be: `about 3 weeks`, `5 to 9 days`.
pub fn range(span: Span) -> String {
    let (unit, name) = unit(span.high);
    let (low, high) = ((span.low / unit).round(), (span.high / unit).round().max(1.0));
    let plural = if high > 1.0 { "s" } else { "" };
    if low >= high {
        return format!("about {high} {name}{plural}");
    }
    if low < 1.0 {
        return format!("at most {high} {name}{plural}");
    }
    format!("{low} to {high} {name}{plural}")
}

fn unit(secs: f64) -> (f64, &'static str) {
    match secs {
        secs if secs < 1.5 * DAY => (HOUR, "hour"),
        secs if secs < 14.0 * DAY => (DAY, "day"),
        secs if secs < 70.0 * DAY => (7.0 * DAY, "week"),
        secs if secs < 730.0 * DAY => (30.4375 * DAY, "month"),
        _ => (365.25 * DAY, "year"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repacks(samples: i64) -> StageTime {
        StageTime { stage: "end".to_owned(), samples, median_secs: DAY, ninety_secs: 3.0 * DAY }
    }

    #[test]
    fn nothing_is_foretold_from_too_few_repacks() {
        let ahead = Ahead { to_start: 5, ..Ahead::default() };
        for known in [None, Some(&repacks(0)), Some(&repacks(ENOUGH - 1))] {
            let Forecast::Unknown(why) = forecast(&ahead, known, 10, DAY) else { panic!("{known:?}") };
            assert!(why.contains("takes 10"), "{why}");
        }
        assert!(matches!(forecast(&ahead, Some(&repacks(ENOUGH)), 10, DAY), Forecast::About { .. }));
    }

    #[test]
    fn what_is_left_is_shared_by_the_slots_and_quarantine_comes_after() {
        let ahead = Ahead { to_start: 100, repacking: 10, set_aside: 3, ..Ahead::default() };
        let Forecast::About { repacked: Some(repacked), finished, basis } =
            forecast(&ahead, Some(&repacks(50)), 10, 31.0 * DAY)
        else {
            panic!("enough is known")
        };
        assert_eq!((repacked.low, repacked.high), (10.5 * DAY, 33.0 * DAY));
        assert_eq!((finished.low, finished.high), (41.5 * DAY, 64.0 * DAY));
        for word in [
            "100 tapes to start",
            "10 repacking",
            "10 slots",
            "50 repacks",
            "1d",
            "3d",
            "quarantine_days 31",
            "without 3 tapes that stand still: manual, stopped, stalled, held or odd",
        ] {
            assert!(basis.contains(word), "{word}: {basis}");
        }
    }

    #[test]
    fn slots_that_nothing_moves_in_are_not_counted_on() {
        let ahead = Ahead { to_start: 100, repacking: 5, set_aside: 5, stuck_slots: 5, ..Ahead::default() };
        let Forecast::About { repacked: Some(repacked), basis, .. } = forecast(&ahead, Some(&repacks(50)), 10, 0.0)
        else {
            panic!("enough is known")
        };
        assert_eq!((repacked.low, repacked.high), (20.5 * DAY, 63.0 * DAY));
        assert!(basis.contains("10 slots, 5 of them held by tapes that do not move"), "{basis}");
        let all = Ahead { repacking: 0, stuck_slots: 10, set_aside: 10, ..ahead };
        let Forecast::Unknown(why) = forecast(&all, Some(&repacks(50)), 10, 0.0) else { panic!("nothing moves") };
        assert!(why.contains("all 10 slots") && why.contains("without 10 tapes that stand still"), "{why}");
    }

    #[test]
    fn the_last_repack_takes_its_time_however_many_slots_there_are() {
        let ahead = Ahead { to_start: 1, ..Ahead::default() };
        let Forecast::About { repacked: Some(repacked), .. } = forecast(&ahead, Some(&repacks(50)), 1000, 0.0) else {
            panic!("enough is known")
        };
        assert_eq!((repacked.low, repacked.high), (DAY, 3.0 * DAY));
    }

    #[test]
    fn where_only_quarantine_is_left_its_rest_is_what_counts() {
        let after = Ahead { after: 4, newest_quarantine_secs: Some(10.0 * DAY), ..Ahead::default() };
        let Forecast::About { repacked: None, finished, .. } = forecast(&after, None, 10, 31.0 * DAY) else {
            panic!("no repack is left")
        };
        assert_eq!((finished.low, finished.high), (21.0 * DAY, 21.0 * DAY));
        let aside = Ahead { set_aside: 4, ..Ahead::default() };
        assert_eq!(forecast(&aside, None, 10, DAY), Forecast::Empty);
    }

    #[test]
    fn a_range_is_never_more_exact_than_it_can_be() {
        for (low, high, shown) in [
            (0.0, 600.0, "at most 1 hour"),
            (3.0 * HOUR, 3.2 * HOUR, "about 3 hours"),
            (5.0 * DAY, 9.4 * DAY, "5 to 9 days"),
            (15.0 * DAY, 33.0 * DAY, "2 to 5 weeks"),
            (31.0 * DAY, 31.0 * DAY, "about 4 weeks"),
            (10.0 * DAY, 500.0 * DAY, "at most 16 months"),
            (800.0 * DAY, 4000.0 * DAY, "2 to 11 years"),
        ] {
            assert_eq!(range(Span { low, high }), shown);
        }
    }
}

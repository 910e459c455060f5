//! How far a running repack is: a bar, how fast, how long still.

use chrono::{DateTime, TimeDelta, Utc};
use common::cta::reply::Repack;
use common::explain::ago;
use common::task::{Progress, Task};
use serde_json::{Value, json};

/// Characters of the bar where there is no terminal; the least and the most where there is one.
const BAR: usize = 20;
const SHORTEST: usize = 10;
const LONGEST: usize = 50;

/// Seconds without an advance after which a rate says nothing of what is to come.
const STILL: f64 = 600.0;

/// A measured advance.
#[derive(Debug, Clone, PartialEq)]
pub struct Advance {
    /// How far it is now.
    pub now: Progress,
    /// Bytes a second; none: nothing to measure by.
    pub rate: Option<f64>,
    /// Seconds that are left at this rate.
    pub left: Option<f64>,
    /// What the rate was measured over, in words.
    pub over: &'static str,
    /// For how long this stands in the task row; none: CTA says so now.
    pub recorded: Option<TimeDelta>,
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn real(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn seconds(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).num_milliseconds() as f64 / 1000.0
}

impl Advance {
    /// From what CTA says now, else from what the task recorded. None: no repack is known to run.
    pub fn of(task: Option<&Task>, cta: Option<&Repack>, at: DateTime<Utc>) -> Option<Advance> {
        let recorded = task.and_then(|task| Some((task.progress.as_ref()?, task.progress_at?)));
        let created = |time: u64| DateTime::from_timestamp(i64::try_from(time).ok()?, 0);
        let (now, when, begun) = match (cta, recorded) {
            (Some(repack), _) => (Progress::of(repack), at, created(repack.creation_log.time)),
            (None, Some((progress, when))) => {
                let request = task.and_then(|task| task.memory.request.as_ref());
                (progress.clone(), when, request.and_then(|log| created(log.time)))
            }
            (None, None) => return None,
        };
        if matches!(now.status.as_str(), "Complete" | "Failed") {
            return None;
        }
        let since_record = recorded.and_then(|(before, since)| {
            let gained = now.archived_bytes.checked_sub(before.archived_bytes).filter(|gained| *gained > 0)?;
            let span = seconds(since, when);
            // Two readings that are close together say nothing.
            (span >= 60.0).then(|| real(gained) / span)
        });
        let since_begun = begun.and_then(|begun| {
            let span = seconds(begun, when);
            (span >= 1.0 && now.archived_bytes > 0).then(|| real(now.archived_bytes) / span)
        });
        let stands_still = recorded
            .is_some_and(|(before, since)| before.archived_bytes == now.archived_bytes && seconds(since, at) >= STILL);
        let (rate, over) = match (since_record, since_begun) {
            _ if stands_still => (None, "it stands still"),
            (Some(rate), _) => (Some(rate), "since it was last recorded"),
            (None, rate) => (rate, "since the request was made"),
        };
        let to_do = now.total_bytes.saturating_sub(now.archived_bytes);
        let left = rate.filter(|rate| *rate > 0.0 && now.total_bytes > 0).map(|rate| real(to_do) / rate);
        let recorded = cta.is_none().then(|| at - when);
        Some(Advance { now, rate, left, over, recorded })
    }

    /// Part that is done, 0 to 1; by bytes, else by copies. None: nothing is known to be done.
    pub fn part(&self) -> Option<f64> {
        let (done, all) = match self.now.total_bytes {
            0 => (self.now.archived_files, self.now.total_files),
            all => (self.now.archived_bytes, all),
        };
        (all > 0).then(|| (real(done) / real(all)).clamp(0.0, 1.0))
    }

    /// The bar, how fast, how long still; the bar takes what of the width is left, and a line of its own where that is little.
    pub fn lines(&self, width: Option<usize>) -> Vec<String> {
        let size = |bytes: u64| crate::output::bytes(i64::try_from(bytes).unwrap_or(i64::MAX));
        let now = &self.now;
        let failed = match now.failed_files {
            0 => String::new(),
            files => format!(", {} failed", crate::output::counted(files, "file")),
        };
        let recorded = self.recorded.map(|span| format!(", as recorded {} ago", ago(span))).unwrap_or_default();
        let Some(part) = self.part() else {
            return vec![format!("{}: nothing is counted yet{failed}{recorded}", now.status)];
        };
        let counts = format!(
            "{} of {} copies, {} of {}{failed}{recorded}",
            now.archived_files,
            now.total_files,
            size(now.archived_bytes),
            size(now.total_bytes)
        );
        let percent = percent(part);
        let room = |beside: usize| width.map(|width| width.saturating_sub(now.status.len() + "  [] ".len() + beside));
        let mut lines = match (room("100%, ".len() + counts.len()), room("100%".len())) {
            (Some(room), Some(alone)) if room < SHORTEST => {
                let bar = bar(part, alone.clamp(1, LONGEST));
                vec![format!("{} {bar} {percent}", now.status), counts]
            }
            (room, _) => {
                let bar = bar(part, room.map_or(BAR, |room| room.min(LONGEST)));
                vec![format!("{} {bar} {percent}, {counts}", now.status)]
            }
        };
        if let Some(rate) = self.rate {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate is positive and saturates"
            )]
            let rate = size(rate as u64);
            let left = self.left.and_then(span).map(|left| format!(", about {left} left")).unwrap_or_default();
            lines.push(format!("{rate}B/s {}{left}", self.over));
        }
        lines
    }

    /// For machines.
    pub fn object(&self) -> Value {
        let whole = |value: Option<f64>| value.filter(|value| value.is_finite()).map(f64::round);
        json!({"part": self.part(), "bytes_per_second": whole(self.rate), "seconds_left": whole(self.left)})
    }
}

/// A number of seconds in words; none where it is beyond reason.
fn span(seconds: f64) -> Option<String> {
    #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
    let whole = chrono::TimeDelta::try_seconds(seconds as i64)?;
    (whole < chrono::TimeDelta::days(3650)).then(|| ago(whole))
}

/// Rounded down: what is not done is not shown as done.
fn percent(part: f64) -> String {
    format!("{:.0}%", (part * 100.0).floor())
}

fn bar(part: f64, length: usize) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "0 to 50")]
    let full = ((part * length as f64).floor() as usize).min(length);
    format!("[{}{}]", "#".repeat(full), "-".repeat(length - full))
}

#[cfg(test)]
mod tests {
    use common::cta::reply::Log3;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn repack(bytes: u64, hours: u64) -> Repack {
        let time = 1_800_000_000 - hours * 3600;
        Repack {
            status: "Running".to_owned(),
            creation_log: Log3 { username: "u".to_owned(), host: "h".to_owned(), time },
            total_files_to_archive: 10,
            archived_files: 5,
            total_bytes_to_archive: 7_200_000_000,
            archived_bytes: bytes,
            ..Repack::default()
        }
    }

    #[test]
    fn a_running_repack_has_a_bar_a_rate_and_a_time_left() {
        let advance = Advance::of(None, Some(&repack(3_600_000_000, 1)), now()).unwrap();
        assert_eq!(advance.rate, Some(1_000_000.0));
        assert_eq!(advance.left, Some(3600.0));
        let lines = advance.lines(None);
        assert_eq!(lines[0], "Running [##########----------] 50%, 5 of 10 copies, 3.6G of 7.2G");
        assert_eq!(lines[1], "1.0MB/s since the request was made, about 1h left");
        assert_eq!(advance.object(), json!({"part": 0.5, "bytes_per_second": 1_000_000.0, "seconds_left": 3600.0}));
    }

    #[test]
    fn the_bar_takes_the_room_that_there_is_and_no_more() {
        let advance = Advance::of(None, Some(&repack(3_600_000_000, 1)), now()).unwrap();
        let mut bars = Vec::new();
        for width in 24..140 {
            let lines = advance.lines(Some(width));
            let line = &lines[0];
            assert!(line.len() <= width, "{width}: {line}");
            let (full, empty) = (line.matches('#').count(), line.matches('-').count());
            assert!(empty - full <= 1 && full > 0, "{width}: {line}");
            assert!(lines.concat().contains("5 of 10 copies") && line.contains("50%"), "{width}: {lines:?}");
            bars.push(full + empty);
        }
        assert_eq!(bars.iter().max(), Some(&LONGEST));
        assert_eq!(bars.last(), Some(&LONGEST), "a wide terminal has a long bar");
    }

    #[test]
    fn what_was_recorded_is_not_told_as_what_cta_says() {
        let cta = repack(3_600_000_000, 1);
        let said = Advance::of(None, Some(&cta), now()).unwrap();
        assert!(!said.lines(None)[0].contains("recorded"));
        let recorded = Advance { recorded: Some(TimeDelta::minutes(5)), ..said };
        assert!(recorded.lines(None)[0].ends_with(", as recorded 5m ago"), "{:?}", recorded.lines(None));
    }

    #[test]
    fn a_repack_that_stands_still_has_no_rate_and_no_time_left() {
        let cta = repack(3_600_000_000, 1);
        let tape = common::tape::Tape {
            vid: "V01007".parse().unwrap(),
            stamps: common::journey::Stamps::entered(now() - TimeDelta::hours(2)),
            mode: common::journey::Mode::Auto,
            priority: 10,
            mediatype: String::new(),
            tapepool: String::new(),
            responsible: String::new(),
            files: 10,
            bytes: 7_200_000_000,
            usage: 10,
            last_write_date: None,
            xmin: 1,
        };
        let mut task =
            common::explain::followed(&tape, None, &common::settings::Settings::default(), now()).0.into_owned();
        task.progress = Some(Progress::of(&cta));
        for (minutes, left) in [(9, true), (10, false), (600, false)] {
            task.progress_at = Some(now() - TimeDelta::minutes(minutes));
            for said in [Some(&cta), None] {
                let advance = Advance::of(Some(&task), said, now()).unwrap();
                assert_eq!(advance.left.is_some(), left && said.is_some(), "{minutes} minutes, {said:?}");
            }
        }
    }

    #[test]
    fn what_is_not_done_is_not_shown_as_done() {
        let advance = Advance::of(None, Some(&repack(7_199_999_999, 1)), now()).unwrap();
        assert!(advance.lines(None)[0].contains("[###################-] 99%"), "{:?}", advance.lines(None));
        let mut nothing = repack(0, 1);
        nothing.total_bytes_to_archive = 0;
        nothing.total_files_to_archive = 0;
        let lines = Advance::of(None, Some(&nothing), now()).unwrap().lines(None);
        assert_eq!(lines, ["Running: nothing is counted yet"]);
    }

    #[test]
    fn a_repack_that_is_over_does_not_run_and_one_that_began_in_the_future_has_no_rate() {
        let over = Repack { status: "Complete".to_owned(), ..repack(7_200_000_000, 1) };
        assert_eq!(Advance::of(None, Some(&over), now()), None);
        assert_eq!(Advance::of(None, None, now()), None);
        let early = now() - TimeDelta::hours(5);
        assert_eq!(Advance::of(None, Some(&repack(1, 1)), early).unwrap().rate, None);
    }
}

//! How far a running repack is: a bar, how fast, how long still.

use chrono::{DateTime, Utc};
use common::cta::reply::Repack;
use common::explain::ago;
use common::task::{Progress, Task};
use serde_json::{Value, json};

/// Characters of the bar.
const BAR: usize = 20;

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
        Some(Advance { now, rate, left, over })
    }

    /// Part that is done, 0 to 1; by bytes, else by copies. None: nothing is known to be done.
    pub fn part(&self) -> Option<f64> {
        let (done, all) = match self.now.total_bytes {
            0 => (self.now.archived_files, self.now.total_files),
            all => (self.now.archived_bytes, all),
        };
        (all > 0).then(|| (real(done) / real(all)).clamp(0.0, 1.0))
    }

    /// The bar, how fast, how long still.
    pub fn lines(&self) -> Vec<String> {
        let size = |bytes: u64| crate::output::bytes(i64::try_from(bytes).unwrap_or(i64::MAX));
        let now = &self.now;
        let failed = if now.failed_files > 0 { format!(", {} files failed", now.failed_files) } else { String::new() };
        let Some(part) = self.part() else { return vec![format!("{}: nothing is counted yet{failed}", now.status)] };
        let mut lines = vec![format!(
            "{} {} {}, {} of {} copies, {} of {}{failed}",
            now.status,
            bar(part),
            percent(part),
            now.archived_files,
            now.total_files,
            size(now.archived_bytes),
            size(now.total_bytes)
        )];
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

fn bar(part: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "0 to 20")]
    let full = ((part * BAR as f64).floor() as usize).min(BAR);
    format!("[{}{}]", "#".repeat(full), "-".repeat(BAR - full))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
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
        let lines = advance.lines();
        assert_eq!(lines[0], "Running [##########----------] 50%, 5 of 10 copies, 3.6G of 7.2G");
        assert_eq!(lines[1], "1.0MB/s since the request was made, about 1h left");
        assert_eq!(advance.object(), json!({"part": 0.5, "bytes_per_second": 1_000_000.0, "seconds_left": 3600.0}));
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
        let mut task = common::explain::followed(&tape, None, &common::settings::Settings::default(), now()).0;
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
        assert!(advance.lines()[0].contains("[###################-] 99%"), "{:?}", advance.lines());
        let mut nothing = repack(0, 1);
        nothing.total_bytes_to_archive = 0;
        nothing.total_files_to_archive = 0;
        let lines = Advance::of(None, Some(&nothing), now()).unwrap().lines();
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

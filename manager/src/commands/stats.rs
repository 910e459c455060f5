//! `stats`: where the tapes are, what was done, how long it takes, and when the queue may be empty.

use clap::Args;
use common::store::{Ahead, DURATION_DAYS, Period, StageTime, Standing, Store};
use serde_json::{Value, json};

use super::told;
use crate::forecast::{Forecast, Span, forecast, range, took};
use crate::output::{Desk, Exit, bytes, cell, counted, iso};

/// Which time.
#[derive(Debug, Args)]
pub struct Stats {
    /// How many days back what was done is counted
    #[arg(long, default_value_t = 14, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=36_500))]
    pub days: i32,
    /// Count by week, not by day
    #[arg(short, long)]
    pub weekly: bool,
}

/// What there is to show.
struct Figures {
    standings: Vec<Standing>,
    periods: Vec<Period>,
    times: Vec<StageTime>,
    ahead: Ahead,
    forecast: Forecast,
}

/// Shows the figures.
///
/// # Errors
/// What the database says.
pub async fn run(store: &Store, options: &Stats, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let settings = store.settings();
    let times = store.stage_times().await.map_err(told)?;
    let ahead = store.ahead().await.map_err(told)?;
    let repack = times.iter().find(|time| time.stage == "end");
    let forecast = forecast(&ahead, repack, settings.max_active_repacks, settings.quarantine.as_secs_f64());
    let figures = Figures {
        standings: store.standings().await.map_err(told)?,
        periods: store.periods(options.days, options.weekly).await.map_err(told)?,
        times,
        ahead,
        forecast,
    };
    let slots = settings.max_active_repacks;
    if json {
        let now = store.now().await.map_err(told)?;
        let mut object = machines(&figures, slots, options);
        object["at"] = json!(iso(now));
        desk.data(&object.to_string())?;
    } else {
        people(&figures, slots, options, desk)?;
    }
    Ok(Exit::Done)
}

/// Bytes a day, and over which days.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pace {
    bytes: i64,
    /// 0: no repack ended.
    days: i64,
    /// The first day (or Monday) that counts; empty if there is none.
    since: String,
}

/// Averaged since the first period in which a repack ended, for before that the site may not have been there; the period that
/// is not over counts whole.
fn pace(periods: &[Period], weekly: bool) -> Pace {
    let counts = |period: &Period| period.repacked > 0 || period.repacked_bytes > 0;
    let idle = periods.iter().take_while(|period| !counts(period)).count();
    let counted = periods.get(idle..).unwrap_or_default();
    let total: i64 = counted.iter().fold(0, |sum, period| sum.saturating_add(period.repacked_bytes));
    let days = i64::try_from(counted.len()).unwrap_or(i64::MAX).saturating_mul(if weekly { 7 } else { 1 });
    let since = counted.first().map(|period| period.begins.clone()).unwrap_or_default();
    Pace { bytes: total / days.max(1), days, since }
}

impl Pace {
    fn words(&self, weekly: bool) -> String {
        if self.days == 0 {
            return "no repack ended in this time".to_owned();
        }
        let day = if weekly { "week" } else { "day" };
        format!(
            "{} bytes a day were repacked, as CTA reported when repacks ended: the average of {} since {}, the first {day} of \
             these in which one ended",
            bytes(self.bytes),
            counted(self.days, "day"),
            self.since
        )
    }
}

fn machines(figures: &Figures, slots: u32, options: &Stats) -> Value {
    let states: Vec<Value> = figures
        .standings
        .iter()
        .map(|at| json!({"state": at.state, "mode": at.mode, "tapes": at.tapes, "files": at.files, "bytes": at.bytes}))
        .collect();
    let periods: Vec<Value> = figures
        .periods
        .iter()
        .map(|period| {
            json!({"begins": period.begins, "finished": period.finished, "finished_bytes": period.finished_bytes,
                   "repacked": period.repacked, "repacked_bytes": period.repacked_bytes})
        })
        .collect();
    let times: Vec<Value> = figures
        .times
        .iter()
        .map(|time| {
            json!({"stage": time.stage, "samples": time.samples, "median_secs": time.median_secs.round(),
                   "ninety_secs": time.ninety_secs.round()})
        })
        .collect();
    let ahead = &figures.ahead;
    let pace = pace(&figures.periods, options.weekly);
    json!({
        "states": states,
        "slots": {"used": ahead.slots, "max": slots},
        "running": {"written_bytes": ahead.running_bytes.0, "total_bytes": ahead.running_bytes.1},
        "period": if options.weekly { "week" } else { "day" },
        "periods": periods,
        "repacked_bytes_per_day": pace.bytes,
        "repacked_days": pace.days,
        "stage_times": times,
        "stage_times_days": DURATION_DAYS,
        "ahead": {"to_start": ahead.to_start, "repacking": ahead.repacking, "after": ahead.after, "set_aside": ahead.set_aside,
                  "stuck_slots": ahead.stuck_slots},
        "forecast": foretold(&figures.forecast),
    })
}

fn foretold(forecast: &Forecast) -> Value {
    let span = |span: &Span| json!({"low": span.low.round(), "high": span.high.round()});
    match forecast {
        Forecast::Empty => json!({"known": true, "repacked_secs": null, "finished_secs": null, "text": EMPTY}),
        Forecast::Unknown(why) => json!({"known": false, "repacked_secs": null, "finished_secs": null, "text": why}),
        Forecast::About { repacked, finished, basis } => json!({
            "known": true,
            "repacked_secs": repacked.as_ref().map(span),
            "finished_secs": span(finished),
            "text": basis,
        }),
    }
}

const EMPTY: &str = "nothing is left that goes on by itself";

fn people(figures: &Figures, slots: u32, options: &Stats, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    let rows = figures
        .standings
        .iter()
        .map(|at| {
            vec![
                cell(&at.state),
                cell(&at.mode),
                cell(at.tapes.to_string()),
                cell(at.files.to_string()),
                cell(bytes(at.bytes)),
            ]
        })
        .collect();
    if figures.standings.is_empty() {
        desk.data("the table is empty")?;
    } else {
        desk.data(&desk.table(&["STATE", "MODE", "TAPES", "FILES", "BYTES (WHEN PREPARED)"], rows))?;
    }
    let ahead = &figures.ahead;
    desk.data(&format!("\nslots: {} of {slots} in use", ahead.slots))?;
    let (written, total) = ahead.running_bytes;
    if total > 0 {
        desk.data(&format!("running repacks: {} of {} bytes written, as CTA said last", bytes(written), bytes(total)))?;
    }
    let unit = if options.weekly { "WEEK" } else { "DAY" };
    let rows = figures
        .periods
        .iter()
        .map(|period| {
            vec![
                cell(&period.begins),
                cell(period.repacked.to_string()),
                cell(bytes(period.repacked_bytes)),
                cell(period.finished.to_string()),
                cell(bytes(period.finished_bytes)),
            ]
        })
        .collect();
    desk.data(&format!(
        "\n{}",
        desk.table(&[unit, "REPACKED", "BYTES WRITTEN", "FINISHED", "BYTES (WHEN PREPARED)"], rows)
    ))?;
    desk.data(&pace(&figures.periods, options.weekly).words(options.weekly))?;
    if figures.times.is_empty() {
        desk.data(&format!("\nno tape left a stage in the last {DURATION_DAYS} days"))?;
    } else {
        let rows = figures
            .times
            .iter()
            .map(|time| {
                vec![
                    cell(&time.stage),
                    cell(took(time.median_secs)),
                    cell(took(time.ninety_secs)),
                    cell(time.samples.to_string()),
                ]
            })
            .collect();
        let table = desk.table(&["STAGE", "HALF WITHIN", "9 OF 10 WITHIN", "TAPES"], rows);
        desk.data(&format!("\n{table}\nfrom stamp to stamp, waiting included, in the last {DURATION_DAYS} days"))?;
    }
    desk.data(&format!("\n{}", words(&figures.forecast, figures.ahead.set_aside)))
}

fn left_out(set_aside: i64) -> String {
    match set_aside {
        0 => String::new(),
        tapes => {
            format!("; without {} that stand still: manual, stopped, stalled, held or odd", counted(tapes, "tape"))
        }
    }
}

fn words(forecast: &Forecast, set_aside: i64) -> String {
    match forecast {
        Forecast::Empty => format!("forecast: {EMPTY}{}", left_out(set_aside)),
        Forecast::Unknown(why) => format!("forecast: none: {why}"),
        Forecast::About { repacked, finished, basis } => {
            let repacked = match repacked {
                Some(span) => format!("the last repack ends in {}, ", range(*span)),
                None => String::new(),
            };
            format!("forecast: {repacked}the last tape is finished in {}\n  from {basis}", range(*finished))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn periods(repacked_bytes: &[i64]) -> Vec<Period> {
        let period = |(day, &bytes): (usize, &i64)| Period {
            begins: format!("2026-03-{:02}", day + 1),
            finished: 0,
            finished_bytes: 0,
            repacked: i64::from(bytes > 0),
            repacked_bytes: bytes,
        };
        repacked_bytes.iter().enumerate().map(period).collect()
    }

    #[test]
    fn days_before_the_first_repack_are_not_averaged_over_and_idle_days_after_it_are() {
        let some = pace(&periods(&[0, 0, 0, 600, 0, 300]), false);
        assert_eq!(some, Pace { bytes: 300, days: 3, since: "2026-03-04".to_owned() });
        let words = some.words(false);
        assert!(words.starts_with("300 bytes a day") && words.contains("3 days since 2026-03-04"), "{words}");
        assert_eq!(pace(&periods(&[600, 0, 300]), false).days, 3, "at most the window");
        assert_eq!(pace(&periods(&[0, 700]), true), Pace { bytes: 100, days: 7, since: "2026-03-02".to_owned() });
    }

    #[test]
    fn a_repack_without_figures_begins_the_days_and_no_repack_at_all_is_said() {
        let mut none = periods(&[0, 0]);
        assert_eq!(pace(&none, false), Pace { bytes: 0, days: 0, since: String::new() });
        assert_eq!(pace(&none, false).words(false), "no repack ended in this time");
        none[0].repacked = 1;
        assert_eq!(pace(&none, false).days, 2);
        assert_eq!(pace(&periods(&[i64::MAX, i64::MAX]), false).bytes, i64::MAX / 2);
    }
}

//! What concerns the whole site, in a few lines above whatever is looked at: paused stages, slots, tapes in error, whether
//! ticks come, and trouble that is no tape's own.

use chrono::{DateTime, TimeDelta, Utc};
use common::explain::{Slots, ago};
use common::settings::Settings;
use common::stages::STAGES;
use common::store::{Line, SiteView, Ticked};
use serde_json::{Value, json};

use crate::commands::change::remaining;
use crate::output::{clean, iso};

/// A site that was ticked no longer ago than this is taken to be ticked, whatever the interval: cron jobs often run once an hour.
const USUAL: TimeDelta = TimeDelta::hours(2);

/// The same where a producer ticks all the time.
const SOON: TimeDelta = TimeDelta::minutes(10);

/// The most slot holders that are named.
const NAMED: usize = 5;

/// The longest text of a trouble that is shown.
const LONGEST: usize = 300;

/// One line of the heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The text.
    pub text: String,
    /// Somebody should see to it.
    pub urgent: bool,
}

fn remark(text: String, urgent: bool) -> Remark {
    Remark { text: clean(&text), urgent }
}

fn tapes(count: i64) -> String {
    if count == 1 { "1 tape".to_owned() } else { format!("{count} tapes") }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// The heading: first a line of figures, then whatever is out of the ordinary.
pub fn heading(site: &SiteView, slots: &Slots, paused: &[Line], settings: &Settings) -> Vec<Remark> {
    let mut lines = vec![remark(
        format!("slots {} of {}; {} in mode error; {}", slots.taken, slots.max, tapes(site.errors), last_tick(site)),
        false,
    )];
    lines.extend(ticks(site, settings));
    lines.extend(mail(site, settings));
    for line in paused {
        let until = line.hold.until.map(|until| format!(", {}", remaining(until, site.now))).unwrap_or_default();
        let since = match site.now - line.since {
            span if span < TimeDelta::seconds(1) => "just now".to_owned(),
            span => format!("{} ago", ago(span)),
        };
        lines.push(remark(
            format!("stage {} is paused by {} since {since}{until}: {}", line.name, line.hold.who, line.hold.why),
            true,
        ));
    }
    if !slots.stuck.is_empty() {
        let named: Vec<String> = slots.stuck.iter().take(NAMED).map(|(vid, why)| format!("{vid} {why}")).collect();
        let more = slots.stuck.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push(remark(
            format!("slots held without moving: {}: {}{more}", slots.stuck.len(), named.join(", ")),
            true,
        ));
    }
    if site.site_tapes > 0 {
        let why = site.site_text.as_deref().map(|text| format!(": {}", cut(text))).unwrap_or_default();
        lines.push(remark(
            format!("the last attempt found the site in trouble, at {}{why}", tapes(site.site_tapes)),
            true,
        ));
    }
    lines
}

/// How long a digest may be on its way.
const ON_ITS_WAY: TimeDelta = TimeDelta::minutes(1);

/// The digest could not be mailed.
fn mail(site: &SiteView, settings: &Settings) -> Option<Remark> {
    let mail = site.mail.as_ref().filter(|_| settings.notify.mail)?;
    let since = site.now - mail.trouble_since?;
    let text = format!("no digest could be mailed for {}: {}", ago(since), cut(mail.trouble.as_ref()?));
    (since >= ON_ITS_WAY).then(|| remark(text, true))
}

fn newest(site: &SiteView) -> Option<&Ticked> {
    site.ticks.as_ref()?.iter().max_by_key(|tick| tick.at)
}

fn last_tick(site: &SiteView) -> String {
    match (&site.ticks, newest(site)) {
        (None, _) => "ticks are not recorded: run 'cta-ops-repack-manager migrate' once".to_owned(),
        (Some(_), None) => "no tick is recorded yet: does a producer, or a cron job, run?".to_owned(),
        (Some(_), Some(tick)) => format!("last tick {} ago by {}", ago(site.now - tick.at), tick.who),
    }
}

/// What is wrong with the ticks.
fn ticks(site: &SiteView, settings: &Settings) -> Vec<Remark> {
    let Some(newest) = newest(site) else { return Vec::new() };
    let mut lines = Vec::new();
    let interval = TimeDelta::from_std(settings.producer.interval).unwrap_or(USUAL);
    // With a broker there is a producer that runs, not a cron job that comes now and then.
    let least = if settings.broker.is_some() { SOON } else { USUAL };
    let usual = least.max(interval * 3);
    if site.now - newest.at > usual {
        lines.push(remark(
            format!("no tick for {}: does a producer, or a cron job, run?", ago(site.now - newest.at)),
            true,
        ));
    } else {
        let all: &[Ticked] = site.ticks.as_deref().unwrap_or_default();
        for stage in STAGES {
            match all.iter().find(|tick| tick.stage == stage.name) {
                Some(tick) if site.now - tick.at > usual => {
                    lines.push(remark(
                        format!("stage {} was last ticked {} ago", stage.name, ago(site.now - tick.at)),
                        true,
                    ));
                }
                None => lines.push(remark(format!("stage {} was never ticked", stage.name), true)),
                Some(_) => {}
            }
        }
    }
    if let (Some(trouble), since) = (&newest.trouble, newest.trouble_since) {
        let since = since.map(|at| format!(" for {}", ago(site.now - at))).unwrap_or_default();
        lines.push(remark(format!("ticks could not do all of their work{since}: {}", cut(trouble)), true));
    }
    lines
}

/// The same for machines.
pub fn object(site: &SiteView, slots: &Slots, paused: &[Line]) -> Value {
    let time = |at: Option<DateTime<Utc>>| at.map(iso);
    let ticks = site.ticks.as_ref().map(|ticks| {
        let each = ticks.iter().map(|tick| {
            json!({"stage": tick.stage, "at": iso(tick.at), "who": tick.who, "trouble": tick.trouble,
                   "trouble_since": time(tick.trouble_since)})
        });
        each.collect::<Vec<_>>()
    });
    let mail = site.mail.as_ref().map(|mail| {
        json!({"at": iso(mail.at), "who": mail.who, "trouble": mail.trouble, "trouble_since": time(mail.trouble_since)})
    });
    let stuck: Vec<Value> = slots.stuck.iter().map(|(vid, why)| json!({"vid": vid, "why": why})).collect();
    let paused: Vec<Value> = paused
        .iter()
        .map(|line| {
            json!({"stage": line.name, "who": line.hold.who, "why": line.hold.why, "since": iso(line.since),
                   "until": time(line.hold.until)})
        })
        .collect();
    json!({"slots": {"taken": slots.taken, "max": slots.max, "stuck": stuck}, "paused": paused, "errors": site.errors,
           "site_trouble": {"tapes": site.site_tapes, "text": site.site_text}, "ticks": ticks, "mail": mail})
}

#[cfg(test)]
mod tests {
    use common::task::Hold;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn ticked(stage: &str, minutes: i64) -> Ticked {
        Ticked {
            stage: stage.to_owned(),
            at: now() - TimeDelta::minutes(minutes),
            who: "p@h".to_owned(),
            trouble: None,
            trouble_since: None,
        }
    }

    fn site(minutes: i64) -> SiteView {
        let ticks = STAGES.map(|stage| ticked(stage.name, minutes)).into();
        SiteView { ticks: Some(ticks), mail: None, errors: 0, site_tapes: 0, site_text: None, now: now() }
    }

    fn slots() -> Slots {
        Slots { taken: 1, max: 3, stuck: Vec::new() }
    }

    fn told(site: &SiteView, slots: &Slots, paused: &[Line]) -> Vec<String> {
        heading(site, slots, paused, &Settings::default()).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_site_without_trouble_has_one_line() {
        let lines = told(&site(1), &slots(), &[]);
        assert_eq!(lines, ["slots 1 of 3; 0 tapes in mode error; last tick 1m ago by p@h"]);
    }

    #[test]
    fn ticks_that_do_not_come_are_missed() {
        assert!(told(&site(60 * 3), &slots(), &[])[1].contains("no tick for 3h"));
        let mut one = site(1);
        if let Some(ticks) = &mut one.ticks {
            ticks[3].at = now() - TimeDelta::days(2);
            ticks.pop();
        }
        let lines = told(&one, &slots(), &[]);
        assert_eq!(lines[1..], ["stage reclaim was last ticked 2d ago", "stage finish was never ticked"]);
        // A producer that runs is missed sooner than a cron job.
        let mut settings = Settings::default();
        settings.broker = Some(common::settings::Broker {
            url: "amqp://host".to_owned(),
            password: None,
            prefix: "atresys".to_owned(),
            tls: Default::default(),
        });
        let lines = |minutes| heading(&site(minutes), &slots(), &[], &settings).len();
        assert_eq!((lines(10), lines(11)), (1, 2));
        let never = SiteView { ticks: Some(Vec::new()), ..site(1) };
        assert!(told(&never, &slots(), &[])[0].contains("no tick is recorded"));
        let old = SiteView { ticks: None, ..site(1) };
        assert!(told(&old, &slots(), &[])[0].contains("migrate"));
    }

    #[test]
    fn a_digest_that_could_not_be_mailed_is_told_where_one_is_wanted_and_was_not_just_begun() {
        let mut settings = Settings::default();
        let mut site = site(1);
        let mut tick = ticked("mail", 0);
        (tick.trouble, tick.trouble_since) = (Some("no such program".to_owned()), Some(now() - TimeDelta::minutes(12)));
        site.mail = Some(tick);
        let lines = |site: &SiteView, settings: &Settings| {
            let lines = heading(site, &slots(), &[], settings).into_iter().map(|line| line.text);
            lines.skip(1).collect::<Vec<_>>()
        };
        assert!(lines(&site, &settings).is_empty());
        settings.notify.mail = true;
        assert_eq!(lines(&site, &settings), ["no digest could be mailed for 12m: no such program"]);
        if let Some(mail) = &mut site.mail {
            mail.trouble_since = Some(now() - TimeDelta::seconds(20));
        }
        assert!(lines(&site, &settings).is_empty());
    }

    #[test]
    fn what_troubles_many_tapes_is_one_line() {
        let mut site = site(1);
        site.site_tapes = 40;
        site.site_text = Some("not authorised\x1b[31m".to_owned());
        site.errors = 1;
        if let Some(ticks) = &mut site.ticks {
            ticks[0].at = now();
            ticks[0].trouble = Some("x".repeat(1000));
            ticks[0].trouble_since = Some(now() - TimeDelta::minutes(12));
        }
        let slots = Slots {
            stuck: (0..7).map(|n| (format!("V{n}").parse().unwrap(), "stopped".to_owned())).collect(),
            ..slots()
        };
        let pause = Line {
            kind: "pause".to_owned(),
            name: "start".to_owned(),
            hold: Hold { who: "alice".to_owned(), why: "audit".to_owned(), until: Some(now() + TimeDelta::hours(2)) },
            since: now() - TimeDelta::hours(1),
        };
        let fresh = Line { since: now(), ..pause.clone() };
        assert_eq!(told(&site, &slots, &[fresh])[2], "stage start is paused by alice since just now, 2h more: audit");
        let lines = told(&site, &slots, &[pause]);
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines[0].contains("1 tape in mode error"));
        assert!(lines[1].contains("for 12m") && lines[1].len() < 400);
        assert_eq!(lines[2], "stage start is paused by alice since 1h ago, 2h more: audit");
        assert!(lines[3].contains("7: V0 stopped") && lines[3].ends_with("and 2 more"), "{lines:#?}");
        assert!(lines[4].contains("40 tapes") && !lines[4].contains('\x1b'));
    }
}

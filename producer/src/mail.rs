//! The digest by mail, after a tick: whether one is due, and that it is sent at least once and hardly ever twice.
//!
//! One sender at a time, under an advisory lock. An attempt is written down before the mail is handed over, and the tapes are
//! marked after it: a crash between the two tells them once more, no sooner than after five minutes. Nothing depends on it:
//! what goes wrong is logged, shown by the manager and in the metrics, and tried again.

use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use common::failpoint;
use common::settings::Notify;
use common::store::{Concern, MAIL, NewMark, Store, Ticked};
use tracing::{debug, info, warn};

use crate::digest::{self, Envelope, MOST, NAMED};
use crate::sendmail;
use crate::tick::Context;

/// After how long an attempt that failed is repeated, if digests are not to come more often anyway.
const RETRY: Duration = Duration::from_secs(300);

/// What an attempt leaves behind that nobody ended.
const BEGUN: &str = "it was begun, and nobody told how it ended";

/// The longest trouble that is kept.
const LONGEST: usize = 1000;

/// Mails what no digest has told yet, if that is wanted and it is time. Never fails.
pub async fn notify(context: &Context) {
    if !context.settings.notify.mail {
        return;
    }
    match attempt(context).await {
        Ok(0) => {}
        Ok(told) => info!(tapes = told, "a digest of {told} tapes that need a person was handed to the mail system"),
        Err(error) => warn!("no digest by mail, it is tried again: {error:#}"),
    }
}

/// How many tapes were told of.
async fn attempt(context: &Context) -> anyhow::Result<usize> {
    let store = &context.store;
    // Asked without the lock first: most ticks have nothing to mail.
    if !is_due(store, &context.settings.notify).await? || store.concerns(1).await?.new.is_empty() {
        return Ok(0);
    }
    let lock = store.tick_locks(&[MAIL]).await?;
    let told = match lock.refused.first() {
        Some((_, who)) => {
            debug!("the digest is left to {who}");
            Ok(0)
        }
        None => locked(context).await,
    };
    lock.release().await;
    told
}

async fn is_due(store: &Store, notify: &Notify) -> anyhow::Result<bool> {
    let (last, now) = store.mail_tick().await.context("when the last one was sent is not known")?;
    Ok(due(last.as_ref(), notify, now))
}

/// Whether it is time, as far as the last attempt says.
fn due(last: Option<&Ticked>, notify: &Notify, now: DateTime<Utc>) -> bool {
    let Some(last) = last else { return true };
    let pause = if last.trouble.is_some() { notify.interval.min(RETRY) } else { notify.interval };
    let pause = TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
    // A clock that was set back must not silence us for longer than a pause.
    (now - last.at).abs() >= pause
}

/// With the lock in hand.
async fn locked(context: &Context) -> anyhow::Result<usize> {
    let (store, notify) = (&context.store, &context.settings.notify);
    if !is_due(store, notify).await? {
        return Ok(0);
    }
    let limit = i64::try_from(MOST).unwrap_or(i64::MAX);
    let mut concerned = store.concerns(limit).await.context("the tapes that need a person are not known")?;
    let count = concerned.new.len();
    if count == 0 {
        return Ok(0);
    }
    store.date_concerns(&mut concerned.new[..count.min(NAMED)]).await.context("since when is not known")?;
    let database = &context.settings.database;
    let place = format!("{} in {} on {}", database.table.name, database.name, database.host);
    let envelope = Envelope {
        recipients: &notify.recipients,
        sender: notify.sender.as_deref(),
        actor: store.actor(),
        place: &place,
    };
    let mail = digest::mail(&envelope, &concerned);
    // Where this cannot be written, nothing is sent: the interval could not be kept.
    store.ticked(&[MAIL], Some(BEGUN)).await.context("the attempt cannot be written down")?;
    let sent = sendmail::send(&notify.sendmail, envelope.sender, envelope.recipients, &mail, sendmail::LIMIT).await;
    if let Err(error) = sent {
        let trouble: String = format!("{error:#}").chars().take(LONGEST).collect();
        store.ticked(&[MAIL], Some(&trouble)).await.context(trouble)?;
        return Err(error);
    }
    mailed(&concerned.new);
    let marks: Vec<NewMark<'_>> =
        concerned.new.iter().map(|concern| (concern.tape.as_str(), concern.what.as_str())).collect();
    store.mark_mailed(&marks).await.context("it was mailed, but that is not written down, and it may come twice")?;
    store.ticked(&[MAIL], None).await.context("it was mailed, but when is not written down")?;
    Ok(count)
}

/// A fail point of the first tape.
fn mailed(told: &[Concern]) {
    if let Some(vid) = told.first().and_then(|concern| concern.tape.parse().ok()) {
        failpoint::pass("mailed", &vid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(secs: i64, trouble: Option<&str>) -> Ticked {
        Ticked {
            stage: MAIL.to_owned(),
            at: now() - TimeDelta::seconds(secs),
            who: "p@h".to_owned(),
            trouble: trouble.map(str::to_owned),
            trouble_since: None,
        }
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    #[test]
    fn a_digest_comes_at_most_once_in_the_interval_and_a_failed_one_is_repeated_sooner() {
        let every = |secs| Notify { interval: Duration::from_secs(secs), ..Notify::default() };
        for (last, secs, expected) in [
            (None, 3600, true),
            (Some(last(3599, None)), 3600, false),
            (Some(last(3600, None)), 3600, true),
            (Some(last(299, Some("x"))), 3600, false),
            (Some(last(300, Some("x"))), 3600, true),
            (Some(last(60, Some("x"))), 60, true),
            (Some(last(0, None)), 0, true),
            (Some(last(-86_400, None)), 3600, true),
        ] {
            assert_eq!(due(last.as_ref(), &every(secs), now()), expected, "{last:?} {secs}");
        }
    }
}

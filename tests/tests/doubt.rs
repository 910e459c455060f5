//! Changing commands that end unclear: until such a command surely had its effect or never will, the tape is only looked at.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use common::journey::{Mode, State};
use common::task::Wanted;
use cta_sim::{Action, Effect, Entry, Kind, Order, Plan, World};
use journeys::site::{Site, all_at_rest};
use journeys::steps::{moment, time_of};

/// Every change of a journey, in order: what it is called in [`Site::changes`].
const CHANGES: [&str; 8] = [
    "tape ch --state REPACKING",
    "repack add",
    "repack rm",
    "tape ch --state DISABLED",
    "tape ch --tapepool quarantine",
    "tape reclaim",
    "tape ch --tapepool tolabel_IBM1L9",
    "tape ch --state ACTIVE",
];

fn vid(number: usize) -> String {
    format!("V{:05}", 1001 + number)
}

/// The order that makes just this change misbehave, once.
fn order(change: &str, action: Action) -> Order {
    match change.split(" --").collect::<Vec<_>>()[..] {
        [command, option] => {
            Order::once(command, action).with_argument(option.split(' ').nth(1).expect("an option has a value"))
        }
        _ => Order::once(change, action),
    }
}

fn is(entry: &Entry, change: &str) -> bool {
    change.starts_with(&entry.command) && change.split(' ').all(|word| entry.argv.iter().any(|arg| arg == word))
}

/// When commands of this tape ended unclear, and until when each was given time to settle.
async fn doubts(site: &Site, vid: &str) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
    let settle = TimeDelta::from_std(site.settings.settle).expect("some seconds");
    let answers = site.events_of(vid, "answer").await;
    let mut doubts: Vec<_> = answers
        .iter()
        .filter(|event| event.detail["answer"] == "unclear")
        // The event is written a little after the reading of the clock from which the time to settle counts.
        .map(|event| (event.at, event.at + settle - TimeDelta::milliseconds(500)))
        .collect();
    if let (Some(last), Some(until)) = (doubts.last_mut(), site.row(vid).await.task.expect("a task").settle_until) {
        assert!(until >= last.1, "{vid}: it settles until {until} only");
        last.1 = until;
    }
    doubts
}

/// Nothing was begun and nothing stamped while anything could still happen.
async fn nothing_before_it_settled(site: &Site, vid: &str) {
    let doubts = doubts(site, vid).await;
    assert!(!doubts.is_empty(), "{vid}: no answer was unclear");
    let begun = site.begun(vid);
    let stamps = site.events_of(vid, "done").await;
    for (from, until) in doubts {
        for entry in &begun {
            let at = time_of(entry);
            assert!(at < from || at >= until, "{vid}: {:?} at {at}, between {from} and {until}", entry.words());
        }
        for stamp in &stamps {
            assert!(stamp.at < from || stamp.at >= until, "{vid}: {:?} at {}, before {until}", stamp.detail, stamp.at);
        }
    }
}

/// One tape for each change; that change ends as `action` says. All finish, each with each effect once.
async fn unclear(action: Action, timeout: Duration) {
    let mut site = Site::new(World::new().with_full_tapes(8)).await;
    site.settings.cta_admin.timeout = timeout;
    let vids: Vec<String> = (0..CHANGES.len()).map(vid).collect();
    site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for (change, vid) in CHANGES.iter().zip(&vids) {
        site.order(order(change, action.clone()).for_vid(vid));
    }
    site.tick_until("all finished", all_at_rest).await;
    assert_eq!(site.fired(), [1; CHANGES.len()], "{action:?}: each change misbehaved once");
    let journal = site.journal();
    let changes = site.changes();
    for (change, vid) in CHANGES.iter().zip(&vids) {
        let what = format!("{vid}: {change}: {action:?}");
        assert_eq!(site.at(vid).await, (State::Finished, Mode::Auto), "{what}: {:?}", site.why(vid).await);
        assert_eq!(changes[vid], CHANGES, "{what}");
        nothing_before_it_settled(&site, vid).await;
        let effects = journal.iter().filter(|entry| entry.kind == Kind::Effect && entry.vid.as_ref() == Some(vid));
        for entry in effects.filter(|entry| entry.effect.changed()) {
            hit_nothing_new(entry, &what);
        }
    }
    assert_eq!(cta_sim::overlaps(&journal), Vec::<String>::new());
}

/// Whenever it came: a reclaim met the tape as it was proven to be, a removal a request that was over.
fn hit_nothing_new(entry: &Entry, what: &str) {
    let before = entry.before.as_ref().expect("an effect knows the tape before");
    match entry.command.as_str() {
        "tape reclaim" => {
            assert_eq!(
                (before.files, before.pool.as_str(), before.state.as_str()),
                (0, "quarantine", "DISABLED"),
                "{what}"
            );
        }
        "repack rm" => assert_eq!((before.files, before.request.as_deref()), (0, Some("Complete")), "{what}"),
        _ => {}
    }
}

macro_rules! ends {
    ($($name:ident: $action:expr, $timeout:literal;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            unclear($action, Duration::from_secs($timeout)).await;
        })*
    };
}

ends! {
    a_change_killed_before_its_effect_settles_first: Action::Die(9), 20;
    a_change_killed_after_its_effect_settles_first: Action::ApplyThenDie(9), 20;
    a_change_whose_answer_was_lost_settles_first: Action::ApplyThenExit1, 20;
    a_change_that_was_not_done_settles_first: Action::Exit1("connection lost".into()), 20;
    a_change_that_hangs_settles_first: Action::Hang, 2;
    a_change_that_hangs_after_its_effect_settles_first: Action::ApplyThenHang, 2;
    a_change_that_comes_late_settles_first: Action::LateExit1(1000), 20;
    a_change_that_hangs_and_comes_late_settles_first: Action::LateHang(3000), 2;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeue_does_not_shorten_the_time_to_settle() {
    let mut site = Site::new(World::new().with_full_tapes(1)).await;
    site.settings.settle = Duration::from_secs(3);
    site.enter(&["V01001"]).await;
    site.bring(&["V01001"], State::Quarantined).await;
    site.order(Order::once("tape reclaim", Action::LateExit1(1500)));
    site.tick_until("an unclear reclaim", |rows| rows[0].task.as_ref().is_some_and(|task| task.settle_until.is_some()))
        .await;
    let until = site.row("V01001").await.task.and_then(|task| task.settle_until).expect("it settles");
    let mut looked = 0;
    while site.row("V01001").await.now < until {
        site.requeue("V01001").await;
        let report = site.tick().await;
        looked += report.stages.iter().flat_map(|part| &part.not_yet).filter(|with| with.code == "settling").count();
        assert_eq!(site.row("V01001").await.task.and_then(|task| task.settle_until), Some(until));
        moment().await;
    }
    assert!(looked > 0, "somebody looked at it meanwhile");
    site.finish("V01001").await;
    nothing_before_it_settled(&site, "V01001").await;
    assert_eq!(site.times("V01001", "tape reclaim"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_comes_late_in_a_retry_does_not_hit_the_new_request() {
    let mut world = World::new().with_full_tapes(1);
    let tape = world.tapes.get_mut("V01001").expect("the tape");
    tape.plan = Plan { fail_files: 2, fail_times: 1, ..Plan::default() };
    let site = Site::new(world).await;
    site.enter(&["V01001"]).await;
    site.tick_until("a failed repack", all_at_rest).await;
    assert_eq!(site.at("V01001").await, (State::Started, Mode::Error));
    site.order(Order::once("repack rm", Action::LateExit1(1000)));
    site.want("V01001", Wanted::Retry).await;
    site.finish("V01001").await;
    assert_eq!(site.fired(), [1]);
    nothing_before_it_settled(&site, "V01001").await;
    let journal = site.journal();
    let requests: Vec<_> = journal
        .iter()
        .filter(|entry| {
            entry.kind == Kind::Effect && entry.command.starts_with("repack") && entry.effect != Effect::LateScheduled
        })
        .map(|entry| {
            let before = entry.before.as_ref().and_then(|before| before.request.clone());
            (entry.command.as_str(), entry.effect, before)
        })
        .collect();
    let some = |word: &str| Some(word.to_owned());
    assert_eq!(
        requests,
        [
            ("repack add", Effect::Applied, None),
            ("repack rm", Effect::LateApplied, some("Failed")),
            ("repack add", Effect::Applied, None),
            ("repack rm", Effect::Applied, some("Complete")),
        ]
    );
    assert!(journal.iter().any(|entry| is(entry, "repack rm") && entry.effect == Effect::LateScheduled));
}

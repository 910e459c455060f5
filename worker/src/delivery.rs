//! The life of one delivery: claim, look, decide, act, look again, record. The same with a broker and without.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use common::cta::{Answer as Answered, Command, Cta, Frontend, Trouble, site_level};
use common::failpoint;
use common::reason::{Code, Kept, Why};
use common::retry::Delays;
use common::settings::Settings;
use common::stages::{Act, Answer, Case, Seen, Tried};
use common::store::{Locked, Store, StoreError};
use common::tape::{Tape, Vid};
use common::task::{Claim, Counted, Effect, Ending, Learned, ListingMade, SlotLook, Task, Verdict, Wait, Wanted};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::edge::{Admin, Rows};
use crate::listing::ListingError;
use crate::look;

/// What was done in CTA must get into the history: it is tried as long as the lease could matter to anybody, so many leases.
const LEASES: u32 = 4;

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A stamp was set, or a wish fulfilled.
    Done,
    /// It waits.
    NotYet(Kept),
    /// In trouble, tried again later.
    Retrying(Kept),
    /// The site is in trouble: this stage should pause on this host.
    Site(Kept),
    /// Stopped: the message goes to the dead letters.
    Stopped(Kept),
    /// Nothing came of it, and nothing is wrong.
    Nothing(String),
}

impl Report {
    /// A word for it: one of [`common::metrics::OUTCOMES`].
    pub fn outcome(&self) -> &'static str {
        match self {
            Report::Done => "done",
            Report::NotYet(_) => "waiting",
            Report::Retrying(_) => "retrying",
            Report::Site(_) => "site-trouble",
            Report::Stopped(_) => "stopped",
            Report::Nothing(_) => "nothing",
        }
    }

    /// Why it is not done, where a reason is kept.
    pub fn why(&self) -> Option<&Kept> {
        match self {
            Report::NotYet(why) | Report::Retrying(why) | Report::Site(why) | Report::Stopped(why) => Some(why),
            Report::Done | Report::Nothing(_) => None,
        }
    }
}

/// Everything a delivery works with.
#[derive(Clone)]
pub struct Deliverer<S = Store, C = Cta> {
    store: S,
    cta: C,
    settings: Arc<Settings>,
    host: Arc<str>,
    stop_now: watch::Receiver<bool>,
}

/// A claimed tape in our hands.
#[derive(Clone)]
struct Hand {
    claim: Claim,
    tape: Tape,
    task: Task,
    now: DateTime<Utc>,
}

impl Hand {
    /// The stage or the wish it was claimed for.
    fn place(&self) -> &'static str {
        self.claim.wanted.map_or(self.claim.stage.name, Wanted::name)
    }
}

/// How the work on a tape ended, before it is recorded.
struct Worked {
    ending: Ending,
    learned: Learned,
    look: SlotLook,
}

/// Why a tape was not claimed.
enum Unclaimed {
    /// It would take a slot, and the gate was not locked.
    NeedsGate,
    /// Anything else.
    Because(Report),
}

impl Unclaimed {
    fn report(self) -> Report {
        match self {
            Unclaimed::NeedsGate => Report::Nothing("it needs a slot, and the gate was not asked".to_owned()),
            Unclaimed::Because(report) => report,
        }
    }
}

impl From<Report> for Unclaimed {
    fn from(report: Report) -> Unclaimed {
        Unclaimed::Because(report)
    }
}

impl<S: Rows, C: Admin> Deliverer<S, C> {
    /// `host` names this machine in the history and for the listings; when `stop_now` becomes true, work in hand is dropped
    /// and the tape given back.
    pub fn new(store: S, cta: C, host: &str, stop_now: watch::Receiver<bool>) -> Deliverer<S, C> {
        let settings = Arc::clone(store.settings());
        Deliverer { store, cta, settings, host: host.into(), stop_now }
    }

    /// The database it works with.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The client it works with.
    pub fn cta(&self) -> &C {
        &self.cta
    }

    /// One delivery, from claim to record. When this returns, what it reports is committed.
    ///
    /// # Errors
    /// When the database fails: nothing is known to be recorded, and a lease may be left to run out.
    pub async fn deliver(&self, vid: &Vid, stage: &str, generation: i64) -> Result<Report, StoreError> {
        let started = self.store.clock();
        let hand = match AssertUnwindSafe(self.claim(vid, stage, generation)).catch_unwind().await {
            Ok(claimed) => match claimed? {
                Ok(hand) => hand,
                Err(report) => return Ok(report),
            },
            Err(panic) => {
                let text = panic_text(&*panic);
                tracing::error!(%vid, stage, "a fault of this program: panicked while claiming {vid}: {text}");
                return Ok(Report::Nothing(format!("panicked: {text}")));
            }
        };
        let report = match AssertUnwindSafe(self.under_lease(&hand)).catch_unwind().await {
            Ok(report) => report?,
            Err(panic) => self.panicked(&hand, &panic_text(&*panic)).await?,
        };
        let took = self.store.clock().duration_since(started);
        if let Some(metrics) = self.store.metrics() {
            metrics.task(hand.claim.stage.name, report.outcome(), report.why(), took);
        }
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tell(&hand, &report, duration_ms);
        Ok(report)
    }

    async fn claim(&self, vid: &Vid, stage: &str, generation: i64) -> Result<Result<Hand, Report>, StoreError> {
        // Whether a slot must be taken is known only under the row's lock, but the gate must be locked first. Start and end
        // are asked with it at once; elsewhere only a retry needs it, and is claimed once more.
        let gate = stage == "start" || stage == "end";
        match self.claim_with(vid, stage, generation, gate).await? {
            Err(Unclaimed::NeedsGate) if !gate => self.claim_with(vid, stage, generation, true).await,
            other => Ok(other),
        }
        .map(|claimed| claimed.map_err(Unclaimed::report))
    }

    async fn claim_with(
        &self,
        vid: &Vid,
        stage: &str,
        generation: i64,
        gate: bool,
    ) -> Result<Result<Hand, Unclaimed>, StoreError> {
        let (owner, wanted) = (self.store.actor().to_owned(), stage.to_owned());
        let in_doubt = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&in_doubt);
        let law = move |locked: &mut Locked<'_>| {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let now = locked.now();
            let other_slots = locked.other_slots;
            let (tape, task, ground, notes) = locked.parts();
            let Some(tape) = tape else {
                return Err(Report::Nothing("it has no row, or an odd one".to_owned()).into());
            };
            let tape = tape.clone();
            let task = task.get_or_insert_with(|| Task::made(&tape, &ground));
            let (verdict, mut more) = task.claim(&wanted, generation, &owner, &tape, other_slots, &ground);
            notes.append(&mut more);
            match verdict {
                Verdict::Claimed(claim) => {
                    let hand = Hand { claim, tape, task: task.clone(), now };
                    *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(hand.clone());
                    Ok(hand)
                }
                Verdict::NeedsGate => Err(Unclaimed::NeedsGate),
                Verdict::Busy(why) | Verdict::Stale(why) => Err(Report::Nothing(why).into()),
                Verdict::Stopped(why) => Err(Report::Stopped(why).into()),
            }
        };
        let claimed = match gate {
            true => self.store.locked(vid, true, law).await,
            false => self.store.together(vid, law).await,
        };
        match claimed {
            Err(StoreError::Busy(why)) => Ok(Err(Report::Nothing(why).into())),
            Err(error) => {
                let claimed = in_doubt.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(hand) = claimed {
                    self.unclaim(&hand, &error).await;
                }
                Err(error)
            }
            Ok(Err(Unclaimed::Because(Report::Nothing(why)))) => {
                debug!(%vid, stage, generation, "not claimed: {why}");
                Ok(Err(Report::Nothing(why).into()))
            }
            other => other,
        }
    }

    /// The database has not said whether the claim was committed. If it was, nobody works under it: the tape is given back as
    /// soon as the database answers, and does not wait until the lease has run out.
    async fn unclaim(&self, hand: &Hand, error: &StoreError) {
        let vid = &hand.tape.vid;
        let why = format!("the database did not say whether the claim was committed: {error}");
        let given_back = self.patiently(vid, self.settings.lease / 10, |locked| {
            let (tape, task, ground, notes) = locked.parts();
            let Some(task) = task.as_mut().filter(|task| task.epoch == hand.claim.epoch) else { return };
            let ending = Ending::Denied(why.clone());
            let (recorded, mut more) =
                task.record(&hand.claim, tape, ending, Learned::default(), SlotLook::default(), &ground);
            notes.append(&mut more);
            locked.change = recorded.row;
        });
        if let Err(error) = given_back.await {
            warn!(%vid, "if {vid} was claimed, its lease is left to run out: {error}");
        }
    }

    /// Works and records, while the lease is kept alive. Losing the lease and being told to stop end the work.
    async fn under_lease(&self, hand: &Hand) -> Result<Report, StoreError> {
        let vid = &hand.tape.vid;
        failpoint::pass_at("claimed", &[hand.place()], vid);
        let worked = tokio::select! {
            biased;
            worked = self.work(hand) => worked,
            () = self.keep_lease(hand) => {
                warn!(%vid, stage = hand.claim.stage.name, "the lease on {vid} is lost: whatever was under way here is not recorded");
                return Ok(Report::Nothing("its lease was lost".to_owned()));
            }
            () = told(self.stop_now.clone()) => {
                self.cta.kill_all();
                Worked::bare(Ending::Denied("the program was told to leave at once".to_owned()))
            }
        };
        failpoint::pass_at("before-record", &[hand.place()], vid);
        let report = self.record(hand, worked).await?;
        failpoint::pass_at("recorded", &[hand.place()], vid);
        Ok(report)
    }

    /// Ends when the lease is lost.
    async fn keep_lease(&self, hand: &Hand) {
        let lease = self.settings.lease;
        let mut alive = self.store.clock();
        loop {
            self.store.sleep(lease / 4).await;
            match self.store.renew(&hand.tape.vid, hand.claim.epoch).await {
                Ok(true) => alive = self.store.clock(),
                Ok(false) => return,
                Err(error) => {
                    warn!(vid = %hand.tape.vid, "the lease could not be renewed: {error}");
                    if self.store.clock().duration_since(alive) >= lease {
                        return;
                    }
                }
            }
        }
    }

    /// A panic is a crash that we live to tell: the lease is closed as abandoned, and counted.
    async fn panicked(&self, hand: &Hand, text: &str) -> Result<Report, StoreError> {
        let vid = &hand.tape.vid;
        tracing::error!(%vid, stage = hand.claim.stage.name, "a fault of this program: panicked while working on {vid}: {text}");
        self.patiently(vid, self.settings.lease * LEASES, |locked| {
            let (_, task, ground, notes) = locked.parts();
            let Some(task) = task.as_mut().filter(|task| task.epoch == hand.claim.epoch) else {
                return Report::Nothing("its lease was lost".to_owned());
            };
            if task.owner.is_none() {
                // Recorded before the panic; a Stop still has to reach the dead letters.
                return match &task.reason {
                    Some(why) if task.has_stop() => Report::Stopped(why.clone()),
                    _ => Report::Nothing("it was recorded before the panic".to_owned()),
                };
            }
            notes.push(task.abandon(&format!("panicked: {text}"), &ground));
            match &task.reason {
                Some(why) if task.has_stop() => Report::Stopped(why.clone()),
                _ => Report::Retrying(Kept::from(&Why::new(Code::Crashed, format!("panicked: {text}")))),
            }
        })
        .await
    }

    async fn work(&self, hand: &Hand) -> Worked {
        let mut task = hand.task.clone();
        let mut now = hand.now;
        let mut seen = Seen::default();
        let mut tried: Vec<(Command, Tried)> = Vec::new();
        let vid = &hand.tape.vid;
        loop {
            let case = Case { tape: &hand.tape, task: &task, settings: &self.settings, now, tried: &tried };
            let (ending, learned) = match case.decide(hand.claim.stage, hand.claim.wanted, &seen) {
                Answer::Look(what) => match look::look(&self.cta, vid, what, &mut seen).await {
                    Ok(()) => continue,
                    Err(trouble) => (self.whose(vid, &trouble).await, Learned::default()),
                },
                Answer::List => match self.list(hand, &mut task).await {
                    Ok(()) => continue,
                    Err(ending) => (ending, Learned::default()),
                },
                Answer::Do(act) => match self.act(hand, &mut task, &mut now, *act, &mut tried, &mut seen).await {
                    Ok(()) => continue,
                    Err(ending) => (ending, Learned::default()),
                },
                Answer::Done(learned) => (Ending::Done, learned),
                Answer::NotYet(wait, learned) => (Ending::NotYet(wait), learned),
                Answer::Grace(why) => (self.grace(why).await, Learned::default()),
                Answer::NextRound(why, learned) => (Ending::NextRound(why), learned),
                Answer::Stop(why, learned) => (Ending::Stop(why), learned),
            };
            return Worked { ending, learned, look: seen.slot_look() };
        }
    }

    /// A query failed. Before the tape is blamed, the site is asked how it is.
    async fn whose(&self, vid: &Vid, trouble: &Trouble) -> Ending {
        let why = trouble.to_string();
        if trouble.is_site() || !self.site_answers(vid).await {
            Ending::Site(Why::new(Code::SiteTrouble, why))
        } else {
            Ending::Trouble(Why::new(Code::LookFailed, why))
        }
    }

    /// CTA answers on both front ends, and about this tape.
    async fn site_answers(&self, vid: &Vid) -> bool {
        self.cta.version(Frontend::User).await.is_ok()
            && self.cta.version(Frontend::Repack).await.is_ok()
            && look::tape(&self.cta, vid).await.is_ok()
    }

    async fn grace(&self, why: Why) -> Ending {
        for frontend in [Frontend::User, Frontend::Repack] {
            if let Err(trouble) = self.cta.version(frontend).await {
                return Ending::Site(Why::new(Code::SiteTrouble, trouble.to_string()));
            }
        }
        Ending::Grace(why)
    }

    async fn list(&self, hand: &Hand, task: &mut Task) -> Result<(), Ending> {
        let vid = &hand.tape.vid;
        let round = task.round_to_be();
        let today = hand.now.date_naive();
        let made = self.cta.write_listing(vid, round, today, &self.host, &self.settings).await;
        let made: ListingMade = match made {
            Ok(made) => made,
            Err(ListingError::Cta(trouble)) => return Err(self.whose(vid, &trouble).await),
            Err(ListingError::Host(error)) => {
                let text = format!("the listing of {vid} cannot be written on {}: {error:#}", self.host);
                return Err(Ending::Site(Why::new(Code::ListingFailed, text)));
            }
        };
        failpoint::pass_at("listed", &[hand.place()], vid);
        let epoch = hand.claim.epoch;
        let kept = self.store.locked(vid, false, |locked| {
            let claimed = |task: &&mut Task| task.epoch == epoch && task.generation == hand.claim.generation;
            let row = locked.task.as_mut().filter(claimed)?;
            row.memory.listing = Some(made.clone());
            let row = row.clone();
            locked.note("listing", json!(made));
            Some(row)
        });
        match kept.await {
            Ok(Some(row)) => {
                *task = row;
                Ok(())
            }
            Ok(None) => Err(Ending::Denied("somebody else has taken the tape over".to_owned())),
            Err(error) => Err(Ending::Denied(format!("the database failed before anything was changed: {error}"))),
        }
    }

    /// The last check and the intent, the command, its answer. Ok: look again.
    async fn act(
        &self,
        hand: &Hand,
        task: &mut Task,
        now: &mut DateTime<Utc>,
        act: Act,
        tried: &mut Vec<(Command, Tried)>,
        seen: &mut Seen,
    ) -> Result<(), Ending> {
        if let Some((_, how)) = tried.iter().find(|(command, _)| *command == act.command) {
            return Err(self.again(&act.command, how).await);
        }
        if task.is_settling(*now) {
            let text = "an earlier command ended unclear; nothing changes the tape until it has surely settled";
            return Err(Ending::NotYet(Wait {
                why: Why::new(Code::Settling, text),
                until: task.settle_until,
                stalled: false,
            }));
        }
        let vid = &hand.tape.vid;
        let place = [hand.place(), act.command.kind()];
        failpoint::pass_at("before-check", &place, vid);
        // Taken before the check of the epoch: whatever pauses us from here on, the command does not run late.
        let deadline = self.cta.deadline((self.settings.lease.saturating_sub(self.settings.cta_admin.timeout)) / 2);
        *task = self.permit(hand, &act).await?;
        // Whatever becomes of the command: what was seen before it proves nothing any more, not even that a slot is free.
        seen.forget_tape();
        failpoint::pass_at("intended", &place, vid);
        info!(%vid, stage = hand.claim.stage.name, "{}", act.command);
        let answer = self.cta.change(&act.command, deadline).await;
        failpoint::pass_at("acted", &place, vid);
        let (effect, how) = match &answer {
            Answered::Accepted => (Effect::Likely, "accepted"),
            Answered::Refused(_) => (Effect::None, "refused"),
            Answered::NotRun(_) => (Effect::None, "not-run"),
            Answered::Unclear(_) => (Effect::Unclear, "unclear"),
        };
        let text = match &answer {
            Answered::Accepted => String::new(),
            Answered::Refused(text) | Answered::NotRun(text) | Answered::Unclear(text) => text.clone(),
        };
        let detail = json!({"command": act.command.to_string(), "answer": how, "text": text});
        (*task, *now) = self.answered(hand, effect, detail).await?;
        failpoint::pass_at("answered", &place, vid);
        match answer {
            Answered::Accepted => tried.push((act.command, Tried::Accepted)),
            Answered::Refused(text) if site_level(&text) => {
                return Err(Ending::Site(Why::new(Code::SiteTrouble, format!("{} was refused: {text}", act.command))));
            }
            Answered::Refused(text) => {
                warn!(%vid, "{} was refused: {text}", act.command);
                tried.push((act.command, Tried::Refused(text)));
            }
            Answered::NotRun(text) => {
                return Err(Ending::Site(Why::new(Code::SiteTrouble, format!("{} was not run: {text}", act.command))));
            }
            Answered::Unclear(text) => {
                let text = format!(
                    "{} ended unclear: {text}; it may still take effect, so the tape is only looked at for {} s",
                    act.command,
                    self.settings.settle.as_secs()
                );
                let code = if self.site_answers(vid).await { Code::CommandFailed } else { Code::SiteTrouble };
                let why = Why::new(code, text);
                return Err(if code == Code::SiteTrouble { Ending::Site(why) } else { Ending::Trouble(why) });
            }
        }
        Ok(())
    }

    /// The stage wants a command once more that this delivery has already run.
    async fn again(&self, command: &Command, how: &Tried) -> Ending {
        match how {
            Tried::Accepted => Ending::Trouble(Why::new(
                Code::NoEffect,
                format!("{command} was accepted, but its effect cannot be seen"),
            )),
            Tried::Refused(text) => {
                self.grace(Why::new(Code::Refused, format!("{command} was refused although it should work: {text}")))
                    .await
            }
        }
    }

    /// The last check and the intent, in one transaction under the main row's lock.
    async fn permit(&self, hand: &Hand, act: &Act) -> Result<Task, Ending> {
        let claim = &hand.claim;
        let permitted = self.store.locked(&hand.tape.vid, false, |locked| {
            let (tape, task, ground, notes) = locked.parts();
            let Some(task) = task else { return Err("the task row is gone".to_owned()) };
            task.may_act(claim, tape, &ground)?;
            notes.push(task.intend(&act.command, &act.proof, act.source_state.as_deref(), &ground));
            Ok(task.clone())
        });
        match permitted.await {
            Ok(Ok(task)) => Ok(task),
            Ok(Err(why)) => Err(Ending::Denied(why)),
            // An intent that was committed all the same is closed as unanswered at the record.
            Err(error) => Err(Ending::Denied(format!("the last check could not be made: {error}"))),
        }
    }

    async fn answered(&self, hand: &Hand, effect: Effect, detail: Value) -> Result<(Task, DateTime<Utc>), Ending> {
        let epoch = hand.claim.epoch;
        let closed = self
            .patiently(&hand.tape.vid, self.settings.lease * LEASES, |locked| {
                let now = locked.now();
                let (_, task, ground, notes) = locked.parts();
                let task = task.as_mut().filter(|task| task.epoch == epoch)?;
                notes.push(task.answered(effect, detail.clone(), &ground));
                Some((task.clone(), now))
            })
            .await;
        match closed {
            Ok(Some(answered)) => Ok(answered),
            Ok(None) => Err(Ending::Denied("somebody else has taken the tape over".to_owned())),
            Err(error) => Err(Ending::Denied(format!("the answer could not be recorded: {error}"))),
        }
    }

    async fn record(&self, hand: &Hand, worked: Worked) -> Result<Report, StoreError> {
        let vid = &hand.tape.vid;
        let claim = hand.claim.clone();
        let law = move |locked: &mut Locked<'_>| {
            let statistics = worked.learned.statistics.clone();
            let (tape, task, ground, notes) = locked.parts();
            let Some(task) = task else { return Counted::Closed("the task row is gone".to_owned()) };
            let (recorded, mut more) =
                task.record(&claim, tape, worked.ending.clone(), worked.learned.clone(), worked.look, &ground);
            notes.append(&mut more);
            locked.change = recorded.row;
            if recorded.counted == Counted::Done {
                locked.statistics = statistics;
            }
            recorded.counted
        };
        let law = Arc::new(law);
        let counted = match self
            .store
            .together(vid, {
                let law = Arc::clone(&law);
                move |locked| law(locked)
            })
            .await
        {
            Ok(counted) => counted,
            Err(error) => {
                debug!(%vid, "not recorded at once: {error}");
                self.patiently(vid, self.settings.lease * LEASES, |locked| law(locked)).await?
            }
        };
        Ok(match counted {
            Counted::Done => Report::Done,
            Counted::NotYet(why) => Report::NotYet(Kept::from(&why)),
            Counted::Retrying(why) => Report::Retrying(Kept::from(&why)),
            Counted::Site(why) => Report::Site(Kept::from(&why)),
            Counted::Stopped(why) => Report::Stopped(Kept::from(&why)),
            Counted::Closed(why) => Report::Nothing(why),
            Counted::Fenced => Report::Nothing("somebody else has taken the tape over".to_owned()),
        })
    }

    /// A row that is locked is waited for, and a database that is away too, for so long.
    async fn patiently<R>(
        &self,
        vid: &Vid,
        limit: Duration,
        mut law: impl FnMut(&mut Locked<'_>) -> R,
    ) -> Result<R, StoreError> {
        let begun = self.store.clock();
        let mut delays = Delays::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut stop_now = self.stop_now.clone();
        loop {
            match self.store.locked(vid, false, &mut law).await {
                Ok(result) => return Ok(result),
                Err(error) => {
                    if self.store.clock().duration_since(begun) > limit || *stop_now.borrow_and_update() {
                        return Err(error);
                    }
                    warn!(%vid, "not recorded yet: {error}");
                    self.store.sleep(delays.next_delay()).await;
                }
            }
        }
    }
}

impl Worked {
    fn bare(ending: Ending) -> Worked {
        Worked { ending, learned: Learned::default(), look: SlotLook::default() }
    }
}

/// Ends when the flag is raised; never, if nobody is left to raise it.
async fn told(mut flag: watch::Receiver<bool>) {
    if flag.wait_for(|raised| *raised).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "without a message".to_owned())
}

fn tell(hand: &Hand, report: &Report, duration_ms: u64) {
    let (vid, stage) = (&hand.tape.vid, hand.claim.stage);
    match report {
        Report::Done => match hand.claim.wanted {
            Some(wanted) => info!(%vid, stage = stage.name, duration_ms, "{vid}: {} done", wish(wanted)),
            None => {
                info!(%vid, stage = stage.name, from = %stage.from, to = %stage.to, duration_ms, "{vid} is {}", stage.to)
            }
        },
        Report::NotYet(why) => debug!(%vid, stage = stage.name, duration_ms, "{vid} waits: {}", why.text),
        Report::Retrying(why) => {
            warn!(%vid, stage = stage.name, duration_ms, "{vid} will be tried again: {}", why.text)
        }
        Report::Site(why) => debug!(%vid, stage = stage.name, duration_ms, "{vid} given back: {}", why.text),
        Report::Stopped(why) => debug!(%vid, stage = stage.name, duration_ms, "{vid} stopped: {}", why.text),
        Report::Nothing(why) => debug!(%vid, stage = stage.name, duration_ms, "{vid}: {why}"),
    }
}

fn wish(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Retry => "retry",
        Wanted::GiveBack => "giving back",
        Wanted::Unstick => "unstick",
    }
}

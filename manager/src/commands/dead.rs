//! `dead`: the parked messages, those that name no tape. A dead letter that names one is handled by the workers, and shown by `ls`.
//!
//! A message is chosen by what it is, never by where it stands, so that a queue that moves meanwhile loses none that was not shown.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use common::broker::{Parked, ParkedMessage, Publisher, Task};
use common::settings::Broker;
use common::stages;
use common::store::Store;
use serde_json::{Value, json};

use super::queues::NO_BROKER;
use super::{change, told};
use crate::cli::Consent;
use crate::examples;
use crate::output::{Desk, Exit, bytes, cell, clean, iso, local};

/// The program's name on the management page.
const APP: &str = "cta-ops-repack-manager";

/// Digits of an id that are shown; fewer than the least that are accepted would soon mean several messages.
const SHOWN: usize = 12;
const LEAST: usize = 8;

/// The most messages that are taken into the hand at once.
const MOST: usize = 10_000;

/// What to do with parked messages.
#[derive(Debug, Subcommand)]
pub enum Dead {
    /// List them, oldest first
    #[command(after_help = examples::DEAD_LS)]
    Ls {
        /// At most so many
        #[arg(short, long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
        limit: u16,
    },
    /// Print one: headers and body
    #[command(after_help = examples::DEAD_SHOW)]
    Show {
        /// Its id, or its number in `dead ls`
        #[arg(value_name = "ID", value_parser = which)]
        which: Which,
        /// At most so many bytes of the body
        #[arg(long, default_value_t = 4096, value_name = "BYTES")]
        bytes: usize,
    },
    /// Publish those that are tasks of a stage again, then remove them
    #[command(after_help = examples::DEAD_REQUEUE)]
    Requeue(Chosen),
    /// Remove them for good; the history keeps the beginning of each
    #[command(after_help = examples::DEAD_DROP)]
    Drop(Chosen),
}

/// Which messages, and whether to ask.
#[derive(Debug, Args)]
pub struct Chosen {
    /// Their ids, as `dead ls` shows them: at least 8 digits
    #[arg(value_name = "ID", required = true, value_parser = id)]
    pub ids: Vec<String>,
    /// Whether to ask.
    #[command(flatten)]
    pub consent: Consent,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// By the beginning of its id.
    Id(String),
    /// By its place, from 1: only for looking.
    Number(usize),
}

fn id(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    if (LEAST..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text);
    }
    Err(format!("expected at least {LEAST} digits (0-9, a-f) of an id as 'dead ls' shows it"))
}

fn which(text: &str) -> Result<Which, String> {
    match text.parse() {
        Ok(number) if text.len() < LEAST && (1..=MOST).contains(&number) => Ok(Which::Number(number)),
        _ => id(text).map(Which::Id),
    }
}

/// Does it.
///
/// # Errors
/// When the broker, or for what changes something the database, cannot be used; then what was in the hand goes back.
pub async fn run(store: &Store, dead: &Dead, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let broker = store.settings().broker.as_ref();
    let parked = match broker {
        Some(broker) => Parked::open(broker, APP).await?,
        None => None,
    };
    let (Some(broker), Some(parked)) = (broker, parked) else {
        let why = if broker.is_none() {
            NO_BROKER
        } else {
            "the queue of parked messages is not there yet: nothing was ever parked"
        };
        return absent(dead, why, json, desk);
    };
    match dead {
        Dead::Ls { limit } => list(parked, usize::from(*limit), json, desk).await,
        Dead::Show { which, bytes } => show(parked, which, *bytes, json, desk).await,
        Dead::Requeue(chosen) => act(store, broker, parked, Act::Requeue, chosen, json, desk).await,
        Dead::Drop(chosen) => act(store, broker, parked, Act::Drop, chosen, json, desk).await,
    }
}

fn absent(dead: &Dead, why: &str, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    match dead {
        Dead::Ls { .. } if json => desk.data(&json!({"queue": null, "ready": 0, "messages": []}).to_string())?,
        Dead::Ls { .. } => desk.data(why)?,
        Dead::Show { .. } | Dead::Requeue(_) | Dead::Drop(_) => {
            desk.remark(&format!("error: there is no such message: {why}"));
            return Ok(Exit::Failed);
        }
    }
    Ok(Exit::Done)
}

/// Forgets the body, unless giving the message back needs it.
fn lightened(mut message: ParkedMessage) -> ParkedMessage {
    if !message.is_worn() {
        message.body = Vec::new();
    }
    message
}

async fn list(mut parked: Parked, limit: usize, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let (mut objects, mut rows, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    while seen.len() < limit {
        let Some(message) = parked.next().await? else { break };
        if json {
            objects.push(summary(&message));
        } else {
            rows.push(row(seen.len() + 1, &message));
        }
        seen.push(lightened(message));
    }
    let more = parked.ready().await?;
    let queue = parked.queue().to_owned();
    // What was seen is shown, whatever becomes of giving it back.
    let back = parked.give_back(&seen).await;
    if json {
        desk.data(
            &json!({"queue": queue, "ready": more.saturating_add(u32::try_from(seen.len()).unwrap_or(u32::MAX)),
                          "messages": objects})
            .to_string(),
        )?;
    } else if rows.is_empty() {
        desk.data(&format!("queue {queue} holds no parked message"))?;
    } else {
        desk.data(&desk.table(&["N", "ID", "SIZE", "WRITTEN", "FROM", "WHY IT IS HERE", "BODY"], rows))?;
        if more > 0 {
            desk.remark(&format!("{more} more: --limit N"));
        }
    }
    back?;
    Ok(Exit::Done)
}

fn written(message: &ParkedMessage) -> Option<DateTime<Utc>> {
    message.written_at.and_then(|secs| DateTime::from_timestamp(i64::try_from(secs).ok()?, 0))
}

fn row(number: usize, message: &ParkedMessage) -> Vec<comfy_table::Cell> {
    let size = i64::try_from(message.body.len()).unwrap_or(i64::MAX);
    vec![
        cell(number.to_string()),
        cell(&message.id[..SHOWN]),
        cell(bytes(size)),
        cell(written(message).map_or_else(|| "-".to_owned(), local)),
        cell(message.header("from").unwrap_or("-")),
        cell(message.header("why").unwrap_or("-")),
        cell(beginning(&message.body, 60)),
    ]
}

/// The first bytes of a body as one line that cannot steer a terminal.
fn beginning(body: &[u8], longest: usize) -> String {
    let shown = &body[..body.len().min(longest)];
    let dots = if body.len() > longest { "..." } else { "" };
    format!("{}{dots}", clean(&String::from_utf8_lossy(shown)))
}

/// The task that a body is, if it is one that a worker of this version does.
fn task(body: &[u8]) -> Result<Task, String> {
    let task = Task::decode(body).map_err(|why| why.to_string())?;
    match stages::named(&task.stage) {
        Some(_) => Ok(task),
        None => Err(format!("there is no stage '{}'", task.stage)),
    }
}

fn summary(message: &ParkedMessage) -> Value {
    let task = task(&message.body);
    json!({
        "id": message.id,
        "size": message.body.len(),
        "written_at": written(message).map(iso),
        "from": message.header("from"),
        "why": message.header("why"),
        "deliveries": message.deliveries,
        "task": task.as_ref().ok().map(|task| json!({"tape": task.tape, "stage": task.stage, "generation": task.generation})),
        "not_a_task": task.err(),
        "beginning": beginning(&message.body, 200),
    })
}

async fn show(
    mut parked: Parked,
    which: &Which,
    longest: usize,
    json: bool,
    desk: &mut Desk<'_>,
) -> anyhow::Result<Exit> {
    let (mut found, mut seen): (Vec<ParkedMessage>, Vec<ParkedMessage>) = (Vec::new(), Vec::new());
    while seen.len() < MOST {
        let Some(message) = parked.next().await? else { break };
        let wanted = match which {
            Which::Number(number) => seen.len() + 1 == *number,
            Which::Id(id) => message.id.starts_with(id),
        };
        if wanted && found.iter().all(|known| known.id != message.id) {
            found.push(message.clone());
        }
        seen.push(lightened(message));
        if wanted && matches!(which, Which::Number(_)) {
            break;
        }
    }
    let back = parked.give_back(&seen).await;
    let [message] = found.as_slice() else {
        let why = if found.is_empty() {
            "there is no such message"
        } else {
            "more than one message begins so: give more digits"
        };
        desk.remark(&format!("error: {why}"));
        back?;
        return Ok(Exit::Failed);
    };
    let body = &message.body[..message.body.len().min(longest)];
    if json {
        let mut object = summary(message);
        object["message_id"] = json!(message.message_id);
        object["headers"] = message.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        object["body"] = json!(String::from_utf8_lossy(body));
        desk.data(&object.to_string())?;
        back?;
        return Ok(Exit::Done);
    }
    desk.data(&format!("id          {}", message.id))?;
    desk.data(&format!("message id  {}", message.message_id.as_deref().unwrap_or("-")))?;
    desk.data(&format!(
        "written     {} (by the clock of who wrote it)",
        written(message).map_or_else(|| "-".to_owned(), local)
    ))?;
    desk.data(&format!("delivered   {} times before, this look not counted", message.deliveries))?;
    match task(&message.body) {
        Ok(task) => desk.data(&format!("is a task   {} {} (generation {})", task.stage, task.tape, task.generation))?,
        Err(why) => desk.data(&format!("no task     {}", clean(&why)))?,
    }
    for (name, value) in &message.headers {
        desk.data(&format!("header      {}: {}", clean(name), clean(value)))?;
    }
    let cut =
        if body.len() < message.body.len() { format!(", the first {} of them", body.len()) } else { String::new() };
    desk.data(&format!("body        {} bytes{cut}, control characters escaped:", message.body.len()))?;
    desk.data(&clean(&String::from_utf8_lossy(body)))?;
    back?;
    Ok(Exit::Done)
}

/// What becomes of chosen messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Requeue,
    Drop,
}

impl Act {
    fn verb(self) -> &'static str {
        match self {
            Act::Requeue => "requeue",
            Act::Drop => "drop",
        }
    }
}

/// What is to be done with the messages of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    /// Publish this.
    Publish(Task),
    /// Remove it for good.
    Drop,
    Refused(String),
    NotFound(&'static str),
}

/// What the messages that begin with an id allow.
fn plan(act: Act, found: &[ParkedMessage]) -> Plan {
    let Some(first) = found.first() else { return Plan::NotFound("no parked message has this id") };
    if found.iter().any(|other| other.id != first.id) {
        return Plan::NotFound("more than one message begins so: give more digits");
    }
    match act {
        Act::Drop => Plan::Drop,
        Act::Requeue => task(&first.body).map_or_else(Plan::Refused, Plan::Publish),
    }
}

/// An id that was asked for, and what is to be done.
struct Asked {
    id: String,
    found: Vec<ParkedMessage>,
    plan: Plan,
}

impl Asked {
    fn what(&self) -> String {
        let copies =
            if self.found.len() > 1 { format!(" ({} that do not differ)", self.found.len()) } else { String::new() };
        match &self.plan {
            Plan::Publish(task) => {
                format!(
                    "publish {} {} (generation {}) again and remove it{copies}",
                    task.stage, task.tape, task.generation
                )
            }
            Plan::Drop => {
                let body = self.found.first().map(|message| beginning(&message.body, 60)).unwrap_or_default();
                format!("remove it for good{copies}: {body}")
            }
            Plan::Refused(why) => format!("{why}; it can only be dropped"),
            Plan::NotFound(why) => (*why).to_owned(),
        }
    }

    fn is_change(&self) -> bool {
        matches!(self.plan, Plan::Publish(_) | Plan::Drop)
    }
}

async fn act(
    store: &Store,
    broker: &Broker,
    mut parked: Parked,
    act: Act,
    chosen: &Chosen,
    json: bool,
    desk: &mut Desk<'_>,
) -> anyhow::Result<Exit> {
    let mut ids = chosen.ids.clone();
    ids.sort_unstable();
    ids.dedup();
    let (mut kept, mut seen) = (Vec::new(), Vec::new());
    while seen.len() < MOST {
        let Some(message) = parked.next().await? else { break };
        if ids.iter().any(|id| message.id.starts_with(id)) {
            kept.push(message.clone());
        }
        seen.push(lightened(message));
    }
    let asked: Vec<Asked> = ids
        .into_iter()
        .map(|id| {
            let found: Vec<ParkedMessage> =
                kept.iter().filter(|message| message.id.starts_with(&id)).cloned().collect();
            Asked { plan: plan(act, &found), found, id }
        })
        .collect();
    let to_do = asked.iter().filter(|asked| asked.is_change()).count();
    if !chosen.consent.yes && !chosen.consent.dry_run {
        for asked in asked.iter().filter(|asked| asked.is_change()) {
            desk.remark(&format!("{}: {}", asked.id, asked.what()));
        }
    }
    // Held in the hand while the question is open: what was shown is what is removed.
    let question = format!("{} {to_do} message{}?", act.verb(), if to_do == 1 { "" } else { "s" });
    if let Some(exit) = change::not_agreed(chosen.consent, to_do, &question, desk) {
        parked.give_back(&seen).await?;
        return Ok(exit);
    }
    let mut gone = Vec::new();
    let carried_out = match chosen.consent.dry_run {
        true => Ok(()),
        false => carry_out(store, broker, &mut parked, act, &asked, &mut gone).await,
    };
    seen.retain(|message| !gone.contains(&message.id));
    if let Err(error) = carried_out {
        for asked in asked.iter().filter(|asked| asked.found.first().is_some_and(|message| gone.contains(&message.id)))
        {
            desk.remark(&format!("{}: done before it failed: {}", asked.id, asked.what()));
        }
        // With the connection what is in hand goes back by itself.
        parked.give_back(&seen).await.ok();
        return Err(error);
    }
    parked.give_back(&seen).await?;
    report(act, &asked, chosen.consent.dry_run, json, desk)
}

/// Writes each into the history, publishes what is to be published, and only then removes it; `gone` gets the ids that are
/// gone, also if a later one fails.
///
/// A crash between publishing and removing leaves a message of which a worker has a copy: it will find the row further on.
async fn carry_out(
    store: &Store,
    broker: &Broker,
    parked: &mut Parked,
    act: Act,
    asked: &[Asked],
    gone: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut publisher = None;
    for asked in asked.iter().filter(|asked| asked.is_change()) {
        let Some(message) = asked.found.first().filter(|message| !gone.contains(&message.id)) else { continue };
        let detail = json!({"id": message.id, "queue": parked.queue(), "copies": asked.found.len(), "size": message.body.len(),
                            "why": message.header("why"), "from": message.header("from"), "beginning": beginning(&message.body, 500)});
        let of_task = task(&message.body).ok();
        let tape = of_task.as_ref().map_or("*", |task| task.tape.as_str());
        let stage = of_task.as_ref().map(|task| task.stage.as_str());
        let kind = if act == Act::Drop { "parked-drop" } else { "parked-requeue" };
        let recorded = store.record(tape, stage, kind, &detail).await.map_err(told);
        recorded.map_err(|error| error.context("nothing is removed that the history does not know of"))?;
        if let Plan::Publish(task) = &asked.plan {
            let publisher = match &mut publisher {
                Some(publisher) => publisher,
                none => none.insert(Publisher::connect(broker, APP, 1).await?),
            };
            publisher.publish(task).await?;
        }
        if let Err(error) = parked.remove(&asked.found).await {
            // So that the history does not say that it is gone.
            store.record(tape, stage, "parked-kept", &json!({"id": message.id, "why": error.to_string()})).await.ok();
            return Err(error.into());
        }
        gone.push(message.id.clone());
    }
    if let Some(publisher) = publisher {
        publisher.close().await;
    }
    Ok(())
}

fn report(act: Act, asked: &[Asked], dry_run: bool, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    let mut objects = Vec::new();
    for asked in asked {
        let result = match &asked.plan {
            Plan::Publish(_) | Plan::Drop if dry_run => "would-change",
            Plan::Publish(_) | Plan::Drop => "changed",
            Plan::Refused(_) => "refused",
            Plan::NotFound(_) => "not-found",
        };
        if !asked.is_change() {
            exit = Exit::Failed;
        }
        let text = asked.what();
        if json {
            objects.push(json!({"id": asked.id, "result": result, "text": text}));
        } else if asked.is_change() {
            let done = if dry_run { "would " } else { "done: " };
            desk.data(&format!("{}: {done}{text}", asked.id))?;
        } else {
            desk.remark(&format!("error: {}: {text}", asked.id));
        }
    }
    if json {
        desk.data(
            &json!({"verb": format!("dead {}", act.verb()), "dry_run": dry_run, "messages": objects}).to_string(),
        )?;
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_chosen_by_enough_of_its_id() {
        assert_eq!(id("ABCDEF01"), Ok("abcdef01".to_owned()));
        assert_eq!(id("0123456789ab"), Ok("0123456789ab".to_owned()));
        for bad in ["", "1", "abcdef0", "abcdefgh", "--all", &"a".repeat(65), "abcdef01 "] {
            assert!(id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_place_in_the_list_is_only_good_for_looking() {
        assert_eq!(which("3"), Ok(Which::Number(3)));
        assert_eq!(which("12345678"), Ok(Which::Id("12345678".to_owned())), "long enough for an id");
        for bad in ["0", "-1", "10001", "x"] {
            assert!(which(bad).is_err(), "{bad:?}");
        }
        assert!(id("3").is_err());
    }

    #[test]
    fn only_a_task_of_a_stage_that_there_is_can_be_published_again() {
        let body = |stage: &str, v: u32| format!(r#"{{"v":{v},"tape":"V01007","stage":"{stage}","generation":7}}"#);
        assert_eq!(task(body("reclaim", 1).as_bytes()).unwrap().stage, "reclaim");
        assert!(task(body("polish", 1).as_bytes()).unwrap_err().contains("'polish'"));
        assert!(task(body("reclaim", 2).as_bytes()).unwrap_err().contains("upgrade"));
        assert!(task(b"garbage").is_err());
        assert_eq!(plan(Act::Requeue, &[]), Plan::NotFound("no parked message has this id"));
    }

    #[test]
    fn the_beginning_of_a_body_cannot_steer_a_terminal() {
        let shown = beginning(b"\x1b]0;owned\x07\xff\xfe and so on, for a long time, without an end in sight", 20);
        assert!(!shown.contains(char::is_control) && shown.ends_with("..."), "{shown}");
    }
}

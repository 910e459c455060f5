//! What CTA says of a tape and what the queue holds, each asked for a short time only: whoever looks must not wait for
//! what is away.

use std::time::Duration;

use common::broker::{Depth, Link, Topology};
use common::cta::reply::{Repack, Tape};
use common::cta::{Cta, Query, Trouble, site_level};
use common::settings::{CtaAdmin, Settings};
use common::stages::STAGES;
use common::tape::Vid;
use serde_json::{Value, json};

use crate::output::counted;

/// How long CTA, and the broker, may take.
const LIMIT: Duration = Duration::from_secs(8);

/// What CTA said to one question.
pub enum Said<T> {
    /// This.
    Told(Box<T>),
    /// There is no such thing, in CTA's words.
    Nothing(String),
    /// It could not be asked.
    Unasked(String),
}

/// What CTA says of a tape.
pub struct CtaSays {
    /// The tape.
    pub tape: Said<Tape>,
    /// Its repack request.
    pub request: Said<Repack>,
}

/// Asks CTA, both questions at once.
pub async fn cta(settings: &Settings, vid: &Vid) -> CtaSays {
    let limit = LIMIT.min(settings.cta_admin.timeout);
    let hurried = CtaAdmin { timeout: limit, list_timeout: limit, ..settings.cta_admin.clone() };
    let cta = Cta::new(&hurried);
    let (tape_query, request_query) = (Query::Tape(vid.clone()), Query::Repack(vid.clone()));
    let (tape, request) = tokio::join!(cta.list::<Tape>(&tape_query), cta.list::<Repack>(&request_query));
    CtaSays {
        tape: only(tape, |tape| tape.vid == vid.as_str()),
        request: only(request, |repack| repack.vid == vid.as_str()),
    }
}

fn only<T>(list: Result<Vec<T>, Trouble>, is_it: impl Fn(&T) -> bool) -> Said<T> {
    match list {
        Ok(list) => match <[T; 1]>::try_from(list) {
            Ok([one]) if is_it(&one) => Said::Told(Box::new(one)),
            Ok(_) => Said::Unasked("its answer is about another tape".to_owned()),
            Err(list) if list.is_empty() => Said::Nothing("an empty list".to_owned()),
            Err(_) => Said::Unasked("its answer is about several tapes".to_owned()),
        },
        Err(Trouble::Refused { text, .. }) if !site_level(&text) => Said::Nothing(text),
        Err(trouble) => Said::Unasked(trouble.to_string()),
    }
}

impl<T> Said<T> {
    fn told(&self) -> Option<&T> {
        match self {
            Said::Told(told) => Some(told),
            Said::Nothing(_) | Said::Unasked(_) => None,
        }
    }

    fn error(&self) -> Option<&str> {
        match self {
            Said::Unasked(why) => Some(why),
            Said::Told(_) | Said::Nothing(_) => None,
        }
    }
}

impl CtaSays {
    /// It was not asked again: it did not answer a moment ago.
    pub fn unasked(why: &str) -> CtaSays {
        CtaSays { tape: Said::Unasked(why.to_owned()), request: Said::Unasked(why.to_owned()) }
    }

    /// Why it answered nothing at all.
    pub fn is_away(&self) -> Option<String> {
        self.tape.error().filter(|_| self.request.error().is_some()).map(str::to_owned)
    }

    /// The repack request, if there is one.
    pub fn repack(&self) -> Option<&Repack> {
        self.request.told()
    }

    /// For machines.
    pub fn object(&self) -> Value {
        let tape = self.tape.told().map(|tape| {
            json!({"state": tape.state, "state_reason": tape.state_reason, "pool": tape.tapepool, "mediatype": tape.media_type,
                   "library": tape.logical_library, "full": tape.full, "occupancy": tape.occupancy, "last_fseq": tape.last_fseq,
                   "files": tape.nb_master_files, "bytes": tape.master_data_in_bytes, "dirty": tape.dirty})
        });
        let request = self.request.told().map(|repack| {
            json!({"status": repack.status, "created_by": repack.creation_log.username, "created_on": repack.creation_log.host,
                   "created_at": common::stages::moment(repack.creation_log.time),
                   "archived_files": repack.archived_files, "total_files": repack.total_files_to_archive,
                   "archived_bytes": repack.archived_bytes, "total_bytes": repack.total_bytes_to_archive,
                   "failed_files": repack.failed_to_retrieve_files.saturating_add(repack.failed_to_archive_files)})
        });
        json!({"tape": tape, "tape_error": self.tape.error(), "request": request, "request_error": self.request.error()})
    }

    /// For people.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        if let (Said::Unasked(one), Said::Unasked(other)) = (&self.tape, &self.request) {
            let mut lines = vec![("not asked", format!("CTA could not be asked: {one}"))];
            if one != other {
                lines.push(("", format!("nor for the request: {other}")));
            }
            return lines;
        }
        let mut lines = self.tape_lines();
        lines.push(match &self.request {
            Said::Told(repack) => ("request", request_line(repack)),
            Said::Nothing(_) => ("request", "none".to_owned()),
            Said::Unasked(why) => ("request", format!("CTA could not be asked: {why}")),
        });
        lines
    }

    fn tape_lines(&self) -> Vec<(&'static str, String)> {
        let tape = match &self.tape {
            Said::Told(tape) => tape,
            Said::Nothing(text) => return vec![("tape", format!("not there: {text}"))],
            Said::Unasked(why) => return vec![("tape", format!("CTA could not be asked: {why}"))],
        };
        let why = Some(tape.state_reason.trim()).filter(|why| !why.is_empty());
        let dirty = if tape.dirty { ", by figures that are out of date" } else { "" };
        let size = |bytes: u64| crate::output::bytes(i64::try_from(bytes).unwrap_or(i64::MAX));
        vec![
            ("state", why.map_or_else(|| tape.state.clone(), |why| format!("{} ({why})", tape.state))),
            ("pool", tape.tapepool.clone()),
            ("library", format!("{}, {}", tape.logical_library, tape.media_type)),
            (
                "content",
                format!(
                    "{}, {} bytes live{dirty}; {} written, {}",
                    counted(tape.nb_master_files, "file"),
                    size(tape.master_data_in_bytes),
                    size(tape.occupancy),
                    if tape.full { "full" } else { "not full" }
                ),
            ),
        ]
    }
}

fn request_line(repack: &Repack) -> String {
    let failed = repack.failed_to_retrieve_files.saturating_add(repack.failed_to_archive_files);
    let failed = if failed > 0 { format!(", {} failed", counted(failed, "file")) } else { String::new() };
    let log = &repack.creation_log;
    format!("{}{failed}; made by {}@{} at {}", repack.status, log.username, log.host, common::stages::moment(log.time))
}

/// What the queues of a tape hold.
pub struct QueueSays {
    /// The stage's queue: its name, and what it holds; none inside: there is no such queue.
    pub stage: Option<(String, Option<Depth>)>,
    /// The queue of dead letters.
    pub dead: (String, Option<Depth>),
}

/// Asks the broker. None: no broker is configured.
pub async fn queue(settings: &Settings, stage: Option<&str>) -> Option<Result<QueueSays, String>> {
    let broker = settings.broker.as_ref()?;
    let asked = async {
        let topology = Topology::new(&broker.prefix, STAGES.map(|stage| stage.name))?;
        let link = Link::connect(broker, "cta-ops-repack-manager show").await?;
        let dead = topology.dead_queue();
        let dead = (dead.clone(), link.depth(&dead).await?);
        let stage = match stage {
            Some(stage) => {
                let name = topology.stage_queue(stage);
                let depth = link.depth(&name).await?;
                Some((name, depth))
            }
            None => None,
        };
        link.close().await;
        Ok::<_, common::broker::BrokerError>(QueueSays { stage, dead })
    };
    Some(match tokio::time::timeout(LIMIT, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the broker did not answer within {} s", LIMIT.as_secs())),
    })
}

impl QueueSays {
    /// For machines.
    pub fn object(&self) -> Value {
        let one = |name: &str, depth: &Option<Depth>| json!({"queue": name, "messages": depth.map(|depth| depth.messages), "consumers": depth.map(|depth| depth.consumers)});
        json!({"stage": self.stage.as_ref().map(|(name, depth)| one(name, depth)), "dead": one(&self.dead.0, &self.dead.1), "error": null})
    }

    /// For people.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let one = |name: &str, depth: &Option<Depth>| match depth {
            Some(depth) => {
                let (messages, consumers) = (counted(depth.messages, "message"), counted(depth.consumers, "consumer"));
                format!("{name}: {messages} that nobody has in hand, {consumers}")
            }
            None => format!("{name}: there is no such queue"),
        };
        let mut lines: Vec<(&str, String)> =
            self.stage.iter().map(|(name, depth)| ("stage", one(name, depth))).collect();
        lines.push(("dead letters", one(&self.dead.0, &self.dead.1)));
        lines
    }
}

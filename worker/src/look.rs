//! What a stage wants to see, asked of CTA. Absence is proven, never guessed: an answer that is not complete is an error.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use common::cta::reply::{ArchiveRoute, Named, RecycleEntry, Repack, Tape, VirtualOrganization};
use common::cta::{Frontend, Query, Trouble};
use common::stages::{Files, Look, RecycleLog, Request, Seen};
use common::tape::Vid;
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

use crate::edge::Admin;

/// Asks CTA one thing and adds the answer to what was seen.
///
/// # Errors
/// Why there is no answer.
pub async fn look(cta: &impl Admin, vid: &Vid, look: Look, seen: &mut Seen) -> Result<(), Trouble> {
    match look {
        Look::Tape => seen.tape = Some(tape(cta, vid).await?),
        Look::Request => {
            let (request, unlisted) = asked(cta, vid).await?;
            seen.request = Some(request);
            seen.unlisted = unlisted;
        }
        Look::Files => seen.files = Some(files(cta, vid).await?),
        Look::RecycleLog => seen.recycle_log = Some(recycle_log(cta, vid).await?),
        Look::Routes => {
            let routes = cta.list::<ArchiveRoute>(&Query::ArchiveRoutes).await?;
            seen.routes = Some(routes.into_iter().map(|route| route.tapepool).collect());
        }
        Look::Pools => seen.pools = Some(names(cta, &Query::TapePools).await?),
        Look::MountPolicies => seen.mount_policies = Some(names(cta, &Query::MountPolicies).await?),
        Look::RepackVo => seen.repack_vo = Some(repack_vo(cta).await?),
    }
    Ok(())
}

/// The names of a reference list.
///
/// # Errors
/// Why there is no answer.
pub async fn names(cta: &impl Admin, query: &Query) -> Result<Vec<String>, Trouble> {
    Ok(cta.list::<Named>(query).await?.into_iter().map(|named| named.name).collect())
}

/// Whether a repack VO exists; none where CTA is too old to know of one.
///
/// # Errors
/// Why there is no answer.
pub async fn repack_vo(cta: &impl Admin) -> Result<Option<bool>, Trouble> {
    let vos = cta.list::<VirtualOrganization>(&Query::VirtualOrganizations).await?;
    let known = vos.is_empty() || vos.iter().any(|vo| vo.is_repack_vo.is_some());
    Ok(known.then(|| vos.iter().any(|vo| vo.is_repack_vo == Some(true))))
}

/// The tape; none if CTA says that it does not exist (older releases by an empty list).
///
/// # Errors
/// Why there is no answer.
pub async fn tape(cta: &impl Admin, vid: &Vid) -> Result<Option<Tape>, Trouble> {
    let query = Query::Tape(vid.clone());
    match cta.list::<Tape>(&query).await {
        Ok(tapes) if tapes.is_empty() => Ok(None),
        Ok(tapes) => match <[Tape; 1]>::try_from(tapes) {
            Ok([tape]) if tape.vid == vid.as_str() => Ok(Some(tape)),
            _ => Err(Trouble::Garbage { command: query.to_string(), text: format!("expected {vid} alone") }),
        },
        Err(trouble) if !trouble.is_site() && trouble.refusal().is_some_and(|text| text.contains("does not exist")) => {
            Ok(None)
        }
        Err(trouble) => Err(trouble),
    }
}

/// The repack request of the tape. None is proven twice: CTA refuses to list the tape's, and the complete list of all has
/// none. Where the list of all cannot be had although CTA answers (one deleted tape breaks it), the refusal must do.
///
/// # Errors
/// Why there is no answer.
pub async fn request(cta: &impl Admin, vid: &Vid) -> Result<Option<Request>, Trouble> {
    Ok(asked(cta, vid).await?.0)
}

/// The request, and why the list of all could not be had, if it could not.
async fn asked(cta: &impl Admin, vid: &Vid) -> Result<(Option<Request>, Option<String>), Trouble> {
    if let Some(request) = own_request(cta, vid).await? {
        return Ok((Some(request), None));
    }
    match listed(cta).await? {
        Ok(all) => Ok((among(vid, Some(&all))?, None)),
        Err(why) => Ok((None, Some(why))),
    }
}

/// Every repack request, to be asked for once where many tapes are looked at; none where the list cannot be had although
/// CTA answers.
///
/// # Errors
/// Why there is no answer.
pub async fn requests(cta: &impl Admin) -> Result<Option<Vec<Value>>, Trouble> {
    Ok(listed(cta).await?.ok())
}

/// Every repack request, or why the list cannot be had although CTA answers.
async fn listed(cta: &impl Admin) -> Result<Result<Vec<Value>, String>, Trouble> {
    match cta.list::<Value>(&Query::Repacks).await {
        Ok(all) => Ok(Ok(all)),
        Err(trouble) => {
            if trouble.is_site() {
                return Err(trouble);
            }
            cta.version(Frontend::Repack).await?;
            warn!("the list of all repacks cannot be had, so only a refusal shows that there is no request: {trouble}");
            Ok(Err(trouble.to_string()))
        }
    }
}

/// As [`request`], with the list of all asked for before by [`requests`].
///
/// # Errors
/// Why there is no answer.
pub async fn request_among(cta: &impl Admin, vid: &Vid, all: Option<&[Value]>) -> Result<Option<Request>, Trouble> {
    match own_request(cta, vid).await? {
        Some(request) => Ok(Some(request)),
        None => among(vid, all),
    }
}

/// What CTA lists for this tape; none where it refuses.
async fn own_request(cta: &impl Admin, vid: &Vid) -> Result<Option<Request>, Trouble> {
    let query = Query::Repack(vid.clone());
    match cta.list::<Value>(&query).await {
        Ok(list) => match <[Value; 1]>::try_from(list) {
            Ok([raw]) => read_request(&query, vid, raw).map(Some),
            Err(other) => {
                let text = format!("expected one request of {vid}, not {}", other.len());
                Err(Trouble::Garbage { command: query.to_string(), text })
            }
        },
        Err(trouble) if trouble.refusal().is_some() && !trouble.is_site() => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

fn among(vid: &Vid, all: Option<&[Value]>) -> Result<Option<Request>, Trouble> {
    let raw = all.into_iter().flatten().find(|request| request["vid"] == vid.as_str());
    raw.map(|raw| read_request(&Query::Repacks, vid, raw.clone())).transpose()
}

fn read_request(query: &Query, vid: &Vid, raw: Value) -> Result<Request, Trouble> {
    let garbage = |text: String| Trouble::Garbage { command: query.to_string(), text };
    let repack =
        Repack::deserialize(&raw).map_err(|error| garbage(format!("a repack request cannot be read: {error}")))?;
    if repack.vid != vid.as_str() {
        return Err(garbage(format!("expected a request of {vid}, not of {}", repack.vid.escape_default())));
    }
    Ok(Request { raw, repack })
}

/// What decides about a tape file: its size.
#[derive(Debug, Deserialize)]
struct TapeFile {
    af: ArchiveFile,
}

#[derive(Debug, Deserialize)]
struct ArchiveFile {
    #[serde(deserialize_with = "common::cta::reply::integer")]
    size: u64,
}

/// The live files. None is proven by two complete empty lists.
///
/// # Errors
/// Why there is no answer.
pub async fn files(cta: &impl Admin, vid: &Vid) -> Result<Files, Trouble> {
    let first = count(cta, vid).await?;
    if first.count > 0 { Ok(first) } else { count(cta, vid).await }
}

async fn count(cta: &impl Admin, vid: &Vid) -> Result<Files, Trouble> {
    let bytes = Arc::new(Mutex::new(0u64));
    let sum = Arc::clone(&bytes);
    let count = cta
        .each(&Query::TapeFiles(vid.clone()), move |file: TapeFile| {
            let mut sum = sum.lock().expect("nobody panics while adding");
            *sum = sum.saturating_add(file.af.size);
            Ok(())
        })
        .await?;
    let bytes = *bytes.lock().expect("nobody panics while adding");
    Ok(Files { count, bytes })
}

/// The recycle log, in a few figures.
///
/// # Errors
/// Why there is no answer.
pub async fn recycle_log(cta: &impl Admin, vid: &Vid) -> Result<RecycleLog, Trouble> {
    let log = Arc::new(Mutex::new(RecycleLog::default()));
    let sum = Arc::clone(&log);
    cta.each(&Query::RecycleLog(vid.clone()), move |entry: RecycleEntry| {
        let at =
            i64::try_from(entry.recycle_log_time).ok().and_then(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0));
        let at = at.ok_or_else(|| anyhow::anyhow!("recycleLogTime {} is no time", entry.recycle_log_time))?;
        let mut log = sum.lock().expect("nobody panics while counting");
        log.entries += 1;
        log.newest = log.newest.max(Some(at));
        if entry.reason_log != "REPACK" {
            log.newest_deletion = log.newest_deletion.max(Some(at));
        }
        Ok(())
    })
    .await?;
    let log = *log.lock().expect("nobody panics while counting");
    Ok(log)
}

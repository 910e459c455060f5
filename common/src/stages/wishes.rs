//! What an operator can ask for: retry, give back, unstick. Set by the manager, done here under lease like any stage.

use serde_json::json;

use super::{Answer, Case, Look, Request, Seen, start};
use crate::cta::command::{Command, Frontend};
use crate::cta::reply;
use crate::journey::State;
use crate::reason::Code;
use crate::task::{Learned, REFUSAL_GRACE};

/// Repack again what is left: keep the old request in the history, remove it, and lead to a new one.
pub(super) fn retry(case: &Case<'_>, seen: &Seen) -> Answer {
    let Some(request) = &seen.request else { return Answer::Look(Look::Request) };
    let Some(request) = request else { return start::submit(case, seen) };
    if !case.is_ours(request) {
        return case.foreign(request);
    }
    let log = &request.repack.creation_log;
    let renewed = case.task.memory.asked && case.task.memory.request.is_none();
    if renewed {
        return Answer::Done(Learned { request: Some(log.clone()), ..Learned::default() });
    }
    if !request.repack.is_final() {
        return Answer::Done(Learned {
            request: Some(log.clone()),
            notes: vec![(Code::NothingToRetry.name(), json!({"status": request.repack.status}))],
            ..Learned::default()
        });
    }
    Answer::run(Command::RepackRm { vid: case.tape.vid.clone() }, start::kept(request))
}

/// Give the tape back as it was: no request of ours, its state and its pool as at prepare.
pub(super) fn give_back(case: &Case<'_>, seen: &Seen) -> Answer {
    let Some(tape) = &seen.tape else { return Answer::Look(Look::Tape) };
    let Some(tape) = tape else { return vanished(case) };
    if case.issued("reclaim") || case.tape.state() >= State::Reclaimed {
        return case.stop(Code::TapeChanged, "it has been reclaimed, or may have been: there is nothing to give back");
    }
    if tape.state == "REPACKING_PENDING" {
        return Answer::wait(
            Code::TapePending,
            "CTA is still moving it to REPACKING; it is given back after that",
            None,
        );
    }
    let Some(request) = &seen.request else { return Answer::Look(Look::Request) };
    match request {
        Some(request) if !case.is_ours(request) => case.foreign(request),
        Some(request) => remove(case, request),
        None => as_it_was(case, tape),
    }
}

/// CTA does not know the tape. When it has said so for longer than it can be mistaken, nothing is left to be given back.
fn vanished(case: &Case<'_>) -> Answer {
    let said = case.task.reason.as_ref().is_some_and(|reason| reason.code == Code::TapeUnknown.name());
    let since = case.task.memory.refused_since.filter(|_| said);
    if since.is_none_or(|since| case.now - since < REFUSAL_GRACE) {
        return case.unknown();
    }
    Answer::Done(Learned { notes: vec![(Code::TapeUnknown.name(), json!({"since": since}))], ..Learned::default() })
}

fn remove(case: &Case<'_>, request: &Request) -> Answer {
    Answer::run(Command::RepackRm { vid: case.tape.vid.clone() }, start::kept(request))
}

fn as_it_was(case: &Case<'_>, tape: &reply::Tape) -> Answer {
    let source = if case.task.memory.source_state.as_deref() == Some("DISABLED") { "DISABLED" } else { "ACTIVE" };
    let set = |to, frontend| {
        Answer::run(
            Command::SetState { vid: case.tape.vid.clone(), to, reason: "repack given up".to_owned(), frontend },
            json!({"state": tape.state, "request": null}),
        )
    };
    let ours = case.may_have_run("set-repacking") || case.tape.state() >= State::Started;
    match tape.state.as_str() {
        "REPACKING_DISABLED" if ours => return set("REPACKING", Frontend::Repack),
        "REPACKING" if ours => return set(source, Frontend::Repack),
        "DISABLED" if source == "ACTIVE" && case.may_have_run("set-disabled") => return set("ACTIVE", Frontend::User),
        _ => {}
    }
    let moved = tape.tapepool == case.settings.quarantine_pool && case.tape.tapepool != tape.tapepool;
    if moved {
        return Answer::run(
            Command::SetPool { vid: case.tape.vid.clone(), pool: case.tape.tapepool.clone() },
            json!({"state": tape.state, "tapepool": tape.tapepool, "request": null}),
        );
    }
    Answer::Done(Learned::default())
}

/// Out of REPACKING_DISABLED, back to REPACKING.
pub(super) fn unstick(case: &Case<'_>, seen: &Seen) -> Answer {
    let Some(tape) = &seen.tape else { return Answer::Look(Look::Tape) };
    let Some(tape) = tape else { return case.unknown() };
    if tape.state != "REPACKING_DISABLED" {
        return Answer::Done(Learned {
            notes: vec![("not-stuck", json!({"state": tape.state}))],
            ..Learned::default()
        });
    }
    Answer::run(
        Command::SetState {
            vid: case.tape.vid.clone(),
            to: "REPACKING",
            reason: format!("repack, asked for by {}", case.tape.responsible),
            frontend: Frontend::Repack,
        },
        json!({"state": tape.state, "state_reason": tape.state_reason}),
    )
}

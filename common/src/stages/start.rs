//! start: put the tape into REPACKING and ask CTA to repack it.
//!
//! In this order: the checks of prepare once more, the listing of the tape's files, the state, the repack request. From
//! the state on, users cannot read the tape; every Stop after that says so.

use serde_json::json;

use super::{Act, Answer, Case, Look, Request, Seen, Stage, checks};
use crate::cta::command::{Command, Frontend};
use crate::cta::reply;
use crate::journey::State;
use crate::reason::Code;
use crate::settings::RepackMode;
use crate::task::Learned;

/// The declaration.
pub static START: Stage = Stage {
    name: "start",
    from: State::Entered,
    to: State::Started,
    about: "list the tape's files, put it into REPACKING and ask CTA to repack it",
    takes_slot: true,
    frees_slot: false,
    due: |_, _| None,
    decide,
};

fn decide(case: &Case<'_>, seen: &Seen) -> Answer {
    let Some(request) = &seen.request else { return Answer::Look(Look::Request) };
    match request {
        Some(request) if case.is_ours(request) => {
            Answer::Done(Learned { request: Some(request.repack.creation_log.clone()), ..Learned::default() })
        }
        Some(request) => case.foreign(request),
        None => submit(case, seen),
    }
}

/// Leads to a repack request where there is none: for start, and for the next round of a retry.
pub(super) fn submit(case: &Case<'_>, seen: &Seen) -> Answer {
    let Some(tape) = &seen.tape else { return Answer::Look(Look::Tape) };
    let Some(tape) = tape else { return case.unknown() };
    let ours = case.may_have_run("set-repacking") || case.tape.state() >= State::Started;
    match tape.state.as_str() {
        "ACTIVE" | "DISABLED" => prepared(case, seen, tape, set_repacking),
        "REPACKING" if ours => prepared(case, seen, tape, add),
        "REPACKING_PENDING" if ours => pending(case, tape),
        "REPACKING_DISABLED" if ours => case.stop(
            Code::DisabledByDrive,
            format!(
                "CTA disabled it while it was in REPACKING ({}): see to the medium, then 'cta-ops-repack-manager unstick {}'",
                tape.state_reason, tape.vid
            ),
        ),
        state => case.stop(
            Code::UnexpectedState,
            format!("its CTA state is {state}, and not by our doing: see who works on it, make it ACTIVE, then requeue it"),
        ),
    }
}

fn pending(case: &Case<'_>, tape: &reply::Tape) -> Answer {
    let limit = case.deadline("set-repacking", case.settings.pending_limit);
    match limit {
        Some(limit) if limit <= case.now => case.stop(
            Code::PendingTooLong,
            format!(
                "it has been REPACKING_PENDING for more than {} s: is CTA's maintenance daemon (cta-maintd) running?",
                case.settings.pending_limit.as_secs()
            ),
        ),
        _ => Answer::wait(
            Code::TapePending,
            format!("CTA is clearing the users' queue of {} before it becomes REPACKING", tape.vid),
            None,
        ),
    }
}

/// The checks, then the listing, then the `step`.
fn prepared(
    case: &Case<'_>,
    seen: &Seen,
    tape: &reply::Tape,
    step: fn(&Case<'_>, &Seen, &reply::Tape) -> Answer,
) -> Answer {
    let Some(pools) = &seen.pools else { return Answer::Look(Look::Pools) };
    let Some(mount_policies) = &seen.mount_policies else { return Answer::Look(Look::MountPolicies) };
    let Some(repack_vo) = seen.repack_vo else { return Answer::Look(Look::RepackVo) };
    let site = checks::Site { pools, mount_policies, repack_vo };
    // In REPACKING by our own doing: only what that does not answer.
    let as_entered = reply::Tape {
        state: if tape.state == "REPACKING" { "ACTIVE".to_owned() } else { tape.state.clone() },
        ..tape.clone()
    };
    let mut failed = checks::of_tape(&as_entered, case.settings);
    failed.extend(checks::of_way(tape, case.tape.priority, case.settings, &site));
    if !failed.is_empty() {
        let code = if tape.full { Code::ChecksFailed } else { Code::NotFull };
        return case.stop(code, failed.join("; "));
    }
    let listed = case.task.memory.listing.as_ref().is_some_and(|listing| listing.round == case.task.round_to_be());
    if !listed {
        return Answer::List;
    }
    step(case, seen, tape)
}

fn proof(case: &Case<'_>, tape: &reply::Tape) -> serde_json::Value {
    json!({"state": tape.state, "full": tape.full, "tapepool": tape.tapepool, "request": null, "listing": case.task.memory.listing})
}

fn set_repacking(case: &Case<'_>, _: &Seen, tape: &reply::Tape) -> Answer {
    let command = Command::SetState {
        vid: case.tape.vid.clone(),
        to: "REPACKING",
        reason: format!("repack, asked for by {}", case.tape.responsible),
        frontend: Frontend::User,
    };
    Answer::Do(Box::new(Act { command, proof: proof(case, tape), source_state: Some(tape.state.clone()) }))
}

fn add(case: &Case<'_>, _: &Seen, tape: &reply::Tape) -> Answer {
    let Some(priority) = case.priority() else { return case.no_priority() };
    let command = Command::RepackAdd {
        vid: case.tape.vid.clone(),
        mount_policy: priority.mount_policy.clone(),
        just_move: case.settings.repack_mode == RepackMode::Move,
        buffer_url: case.settings.repack_buffer_url.clone(),
        max_files: case.settings.max_files_to_select,
    };
    Answer::run(command, proof(case, tape))
}

/// What the end line and the history keep of a request.
pub(super) fn kept(request: &Request) -> serde_json::Value {
    json!({ "request": request.raw })
}

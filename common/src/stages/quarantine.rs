//! quarantine: remove our request, take the tape out of REPACKING, and put it into the quarantine pool.
//!
//! In this order: CTA refuses to change the state while a request exists, in whatever status.

use serde_json::json;

use super::{Answer, Case, Files, Look, Request, Seen, Stage, start};
use crate::cta::command::{Command, Frontend};
use crate::cta::reply;
use crate::journey::State;
use crate::reason::Code;
use crate::settings::QuarantineState;
use crate::task::{Learned, Marks};

/// The declaration.
pub static QUARANTINE: Stage = Stage {
    name: "quarantine",
    from: State::Repacked,
    to: State::Quarantined,
    about: "remove the request, take the tape out of REPACKING, put it into the quarantine pool",
    takes_slot: false,
    frees_slot: false,
    due: |_, _| None,
    decide,
};

fn decide(case: &Case<'_>, seen: &Seen) -> Answer {
    let Some(request) = &seen.request else { return Answer::Look(Look::Request) };
    match request {
        Some(request) if !case.is_ours(request) => case.foreign(request),
        Some(request) => remove(case, seen, request),
        None => out_of_repacking(case, seen),
    }
}

fn remove(case: &Case<'_>, seen: &Seen, request: &Request) -> Answer {
    if !request.repack.is_final() {
        // A retry asked for after the first repack was complete.
        let text = format!("CTA is repacking it again ({}), although its repack was complete", request.repack.status);
        return Answer::wait(Code::RepackRunning, text, None);
    }
    match seen.files {
        None => Answer::Look(Look::Files),
        Some(Files { count: 0, .. }) => {
            Answer::run(Command::RepackRm { vid: case.tape.vid.clone() }, start::kept(request))
        }
        Some(files) => files_left(case, files),
    }
}

fn files_left(case: &Case<'_>, files: Files) -> Answer {
    case.stop(
        Code::FilesLeft,
        format!(
            "{} files ({} bytes) are on the tape although its repack was complete; 'cta-ops-repack-manager retry-failed {}' repacks them",
            files.count, files.bytes, case.tape.vid
        ),
    )
}

fn out_of_repacking(case: &Case<'_>, seen: &Seen) -> Answer {
    let Some(tape) = &seen.tape else { return Answer::Look(Look::Tape) };
    let Some(tape) = tape else { return case.unknown() };
    if tape.tapepool != case.settings.quarantine_pool {
        // Whatever happened since the repack was complete: users must not lose a tape that still has files of theirs.
        match seen.files {
            None => return Answer::Look(Look::Files),
            Some(Files { count: 0, .. }) => {}
            Some(files) => return files_left(case, files),
        }
    }
    let set = |to, frontend| {
        Answer::run(
            Command::SetState {
                vid: case.tape.vid.clone(),
                to,
                reason: "repacked, in quarantine".to_owned(),
                frontend,
            },
            json!({"state": tape.state, "request": null}),
        )
    };
    match tape.state.as_str() {
        "REPACKING_DISABLED" => set("REPACKING", Frontend::Repack),
        "REPACKING" => set(resting_state(case), Frontend::Repack),
        "ACTIVE" if resting_state(case) == "DISABLED" => set("DISABLED", Frontend::User),
        "REPACKING_PENDING" | "BROKEN_PENDING" | "EXPORTED_PENDING" => {
            Answer::wait(Code::TapePending, format!("CTA is changing its state ({})", tape.state), None)
        }
        _ => into_quarantine(case, tape),
    }
}

/// The CTA state of this tape in quarantine: a tape that was DISABLED stays so.
fn resting_state(case: &Case<'_>) -> &'static str {
    let was_disabled = case.task.memory.source_state.as_deref() == Some("DISABLED");
    if was_disabled || case.settings.quarantine_state == QuarantineState::Disabled { "DISABLED" } else { "ACTIVE" }
}

fn into_quarantine(case: &Case<'_>, tape: &reply::Tape) -> Answer {
    let pool = &case.settings.quarantine_pool;
    if tape.tapepool != *pool {
        return Answer::run(
            Command::SetPool { vid: case.tape.vid.clone(), pool: pool.clone() },
            json!({"state": tape.state, "tapepool": tape.tapepool, "request": null}),
        );
    }
    Answer::Done(Learned {
        marks: Some(Marks { last_fseq: tape.last_fseq, occupancy: tape.occupancy, label_log: tape.label_log.clone() }),
        ..Learned::default()
    })
}

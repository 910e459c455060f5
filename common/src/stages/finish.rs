//! finish: move the reclaimed tape to its destination pool, if it is still empty, and give its state back.

use serde_json::json;

use super::{Answer, Case, Files, Look, Seen, Stage};
use crate::cta::command::{Command, Frontend};
use crate::cta::reply;
use crate::journey::State;
use crate::reason::Code;
use crate::task::Learned;

/// The declaration.
pub static FINISH: Stage = Stage {
    name: "finish",
    from: State::Reclaimed,
    to: State::Finished,
    about: "move the empty tape to its destination pool and give its state back",
    takes_slot: false,
    frees_slot: false,
    due: |_, _| None,
    decide,
};

fn decide(case: &Case<'_>, seen: &Seen) -> Answer {
    let Some(tape) = &seen.tape else { return Answer::Look(Look::Tape) };
    let Some(tape) = tape else { return case.unknown() };
    let destination = match case.settings.destination_pool(case.tape.priority, &tape.logical_library, &tape.media_type)
    {
        Ok(destination) => destination,
        Err(why) => return case.stop(Code::NoDestination, why),
    };
    if tape.full || tape.occupancy > 0 || tape.last_fseq > 0 {
        let text = format!(
            "it was written to after it was reclaimed ({} bytes, last file {}) in pool {}: it is left where it is",
            tape.occupancy, tape.last_fseq, tape.tapepool
        );
        return case.stop(Code::UsedMeanwhile, text);
    }
    if tape.tapepool == destination {
        return give_state_back(case, tape);
    }
    if tape.tapepool != case.settings.quarantine_pool {
        let text = format!("it is in {}, neither in quarantine nor in its destination {destination}", tape.tapepool);
        return case.stop(Code::WrongPool, text);
    }
    gate(case, seen, tape, destination)
}

/// The finish gate: between reclaim and finish the tape may be writable, and moving a tape with new files on it to a
/// pool of tapes to be labelled destroys them.
fn gate(case: &Case<'_>, seen: &Seen, tape: &reply::Tape, destination: String) -> Answer {
    let Some(request) = &seen.request else { return Answer::Look(Look::Request) };
    if let Some(request) = request {
        return case.foreign(request);
    }
    if let Some(wait) = case.unproven(seen) {
        return wait;
    }
    match seen.files {
        None => Answer::Look(Look::Files),
        Some(Files { count: 0, .. }) => Answer::run(
            Command::SetPool { vid: case.tape.vid.clone(), pool: destination },
            json!({"tapepool": tape.tapepool, "state": tape.state, "full": false, "last_fseq": 0, "occupancy": 0,
                   "request": null, "files": 0}),
        ),
        Some(Files { count, .. }) => case.stop(
            Code::UsedMeanwhile,
            format!("{count} files are on it although it was reclaimed: it is left where it is"),
        ),
    }
}

/// A tape that quarantine disabled becomes ACTIVE again; one that was DISABLED before stays so.
fn give_state_back(case: &Case<'_>, tape: &reply::Tape) -> Answer {
    let by_us = case.may_have_run("set-disabled") && case.task.memory.source_state.as_deref() != Some("DISABLED");
    if by_us && tape.state == "DISABLED" {
        let command = Command::SetState {
            vid: case.tape.vid.clone(),
            to: "ACTIVE",
            reason: "repacked and reclaimed".to_owned(),
            frontend: Frontend::User,
        };
        return Answer::run(
            command,
            json!({"tapepool": tape.tapepool, "state": tape.state, "last_fseq": 0, "occupancy": 0}),
        );
    }
    Answer::Done(Learned::default())
}

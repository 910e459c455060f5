//! reclaim: make CTA forget the tape's old content, when its quarantine is over. Irreversible, so behind a gate.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{Answer, Case, Files, Look, RecycleLog, Seen, Stage};
use crate::cta::command::Command;
use crate::cta::reply;
use crate::journey::State;
use crate::reason::{Code, Why};
use crate::task::{Learned, later};

/// The declaration.
pub static RECLAIM: Stage = Stage {
    name: "reclaim",
    from: State::Quarantined,
    to: State::Reclaimed,
    about: "make CTA forget the content of a tape whose quarantine is over",
    takes_slot: false,
    frees_slot: false,
    due: |tape, settings| tape.stamps.at(State::Quarantined).map(|at| later(at, settings.quarantine)),
    decide,
};

fn decide(case: &Case<'_>, seen: &Seen) -> Answer {
    let Some(tape) = &seen.tape else { return Answer::Look(Look::Tape) };
    let Some(tape) = tape else { return case.unknown() };
    let empty = !tape.full && tape.occupancy == 0 && tape.last_fseq == 0;
    match (tape.full, empty) {
        (_, true) => already_empty(case, seen, tape),
        (false, false) => case.stop(
            Code::TapeChanged,
            format!(
                "it is not full, but {} bytes are written on it: somebody made it writable in quarantine, or wrote to it",
                tape.occupancy
            ),
        ),
        (true, false) => gate(case, seen, tape),
    }
}

fn already_empty(case: &Case<'_>, seen: &Seen, tape: &reply::Tape) -> Answer {
    let Some(log) = seen.recycle_log else { return Answer::Look(Look::RecycleLog) };
    if log.entries > 0 {
        return case.stop(
            Code::TapeChanged,
            format!(
                "its counters are zero, but its recycle log has {} entries: a reclaim that broke off, or a new tape",
                log.entries
            ),
        );
    }
    if case.may_have_run("reclaim") {
        return Answer::Done(Learned::default());
    }
    let accepted = tape.tapepool != case.settings.quarantine_pool;
    if accepted && !case.task.memory.accept_empty {
        return case.stop(
            Code::WrongPool,
            format!(
                "it is empty, not by our doing, and in {} instead of quarantine; \
                 'requeue --accept-empty' takes it as reclaimed",
                tape.tapepool
            ),
        );
    }
    if accepted {
        match seen.files {
            None => return Answer::Look(Look::Files),
            Some(Files { count: 0, .. }) => {}
            Some(Files { count, bytes }) => {
                let text = format!("its counters are zero, but {count} files ({bytes} bytes) are on it");
                return case.stop(Code::FilesLeft, text);
            }
        }
    }
    Answer::Done(Learned {
        notes: vec![(
            "reclaimed-by-someone-else",
            json!({"tapepool": tape.tapepool, "state": tape.state, "accepted": accepted}),
        )],
        ..Learned::default()
    })
}

/// The reclaim gate. Each condition alone closes it; what was seen becomes the proof. Mode, hold and pause are asked
/// under the row's lock, immediately before the command.
fn gate(case: &Case<'_>, seen: &Seen, tape: &reply::Tape) -> Answer {
    if let Some(stop) = as_quarantined(case, tape) {
        return stop;
    }
    let over = case.tape.stamps.at(State::Quarantined).map(|at| later(at, case.settings.quarantine));
    if over.is_none_or(|over| over > case.now) {
        return Answer::wait(Code::QuarantineNotOver, "its quarantine is not over", over);
    }
    let Some(request) = &seen.request else { return Answer::Look(Look::Request) };
    if let Some(request) = request {
        return case.foreign(request);
    }
    if let Some(wait) = case.unproven(seen) {
        return wait;
    }
    let Some(routes) = &seen.routes else { return Answer::Look(Look::Routes) };
    if routes.contains(&tape.tapepool) {
        return case.stop(
            Code::PoolIsRouted,
            format!(
                "an archive route leads to {}: users' files could land on the reclaimed tape; change the route",
                tape.tapepool
            ),
        );
    }
    let Some(log) = seen.recycle_log else { return Answer::Look(Look::RecycleLog) };
    if let Some(wait) = recycle_log_too_young(case, log) {
        return wait;
    }
    // The files last: nothing is older than it has to be when the command runs.
    match seen.files {
        None => Answer::Look(Look::Files),
        Some(Files { count: 0, .. }) => refused(case).unwrap_or_else(|| {
            Answer::run(Command::Reclaim { vid: case.tape.vid.clone() }, proof(case, tape, log, over))
        }),
        Some(Files { count, bytes }) => case
            .stop(Code::FilesLeft, format!("{count} files ({bytes} bytes) are on the tape: it must not be reclaimed")),
    }
}

/// Pool, state and counters are those of the tape that was put into quarantine.
fn as_quarantined(case: &Case<'_>, tape: &reply::Tape) -> Option<Answer> {
    if tape.tapepool != case.settings.quarantine_pool {
        let text = format!("it is in {}, not in {}: somebody moved it", tape.tapepool, case.settings.quarantine_pool);
        return Some(case.stop(Code::WrongPool, text));
    }
    if !matches!(tape.state.as_str(), "ACTIVE" | "DISABLED" | "BROKEN") {
        return Some(case.stop(Code::UnexpectedState, format!("CTA does not reclaim a tape that is {}", tape.state)));
    }
    let marks = case.task.memory.marks.as_ref()?;
    let mut changed = Vec::new();
    if marks.last_fseq != tape.last_fseq {
        changed.push(format!("last file {} instead of {}", tape.last_fseq, marks.last_fseq));
    }
    if marks.occupancy != tape.occupancy {
        changed.push(format!("{} bytes written instead of {}", tape.occupancy, marks.occupancy));
    }
    if marks.label_log != tape.label_log {
        changed.push("labelled again".to_owned());
    }
    (!changed.is_empty())
        .then(|| case.stop(Code::TapeChanged, format!("it is not as it went into quarantine: {}", changed.join(", "))))
}

fn recycle_log_too_young(case: &Case<'_>, log: RecycleLog) -> Option<Answer> {
    let young =
        |at: Option<DateTime<Utc>>| at.map(|at| later(at, case.settings.quarantine)).filter(|until| *until > case.now);
    if let Some(until) = young(log.newest_deletion) {
        let text = "a user deleted a file that was on it less than a quarantine ago: it could still be wanted back";
        return Some(Answer::wait(Code::RecycleLogYoung, text, Some(until)));
    }
    young(log.newest).map(|until| {
        Answer::wait(Code::RecycleLogYoung, "its newest recycle-log entry is younger than the quarantine", Some(until))
    })
}

/// CTA's own delay is no error: it names its age and its limit.
fn refused(case: &Case<'_>) -> Option<Answer> {
    let text = case.refusal("reclaim")?;
    match ctas_delay(text) {
        Some(seconds) => Some(Answer::wait(
            Code::RecycleLogYoung,
            format!("CTA does not reclaim it yet: {text}"),
            Some(later(case.now, std::time::Duration::from_secs(seconds.saturating_add(1)))),
        )),
        None => Some(Answer::Grace(Why::new(Code::Refused, format!("CTA refuses to reclaim it: {text}")))),
    }
}

/// Seconds until CTA's own recycle-log quarantine is over, from its message.
fn ctas_delay(text: &str) -> Option<u64> {
    let age = text.split("files deleted ").nth(1)?.split(' ').next()?.parse::<u64>().ok()?;
    let limit: String = text.split("configured at ").nth(1)?.chars().take_while(char::is_ascii_digit).collect();
    limit.parse::<u64>().ok()?.checked_sub(age)
}

fn proof(case: &Case<'_>, tape: &reply::Tape, log: RecycleLog, over: Option<DateTime<Utc>>) -> Value {
    json!({
        "quarantine_over": over,
        "tape": {"tapepool": tape.tapepool, "state": tape.state, "full": tape.full, "last_fseq": tape.last_fseq,
                 "occupancy": tape.occupancy, "label_log": tape.label_log},
        "marks": case.task.memory.marks,
        "request": null,
        "files": 0,
        "recycle_log": {"entries": log.entries, "newest": log.newest, "newest_deletion": log.newest_deletion},
        "quarantine_pool_is_routed": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_read_from_ctas_message() {
        let text = "This tape contains files deleted 1209600 seconds ago while recycle_log_quarantine_secs is configured at 2678400. Please reclaim this tape later.";
        assert_eq!(ctas_delay(text), Some(1_468_800));
        assert_eq!(ctas_delay("Cannot reclaim tape X because it is not FULL"), None);
        assert_eq!(ctas_delay("files deleted x seconds ago configured at "), None);
    }
}

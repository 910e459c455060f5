//! end: see that the repack is complete and that nothing is left on the tape.

use super::{Answer, Case, Files, Look, Request, Seen, Stage};
use crate::journey::State;
use crate::reason::{Code, Why};
use crate::task::{Learned, Progress, Wait, later};

/// The declaration.
pub static END: Stage = Stage {
    name: "end",
    from: State::Started,
    to: State::Repacked,
    about: "see that the repack is complete and that no file is left on the tape",
    takes_slot: false,
    frees_slot: true,
    due: |_, _| None,
    decide,
};

fn decide(case: &Case<'_>, seen: &Seen) -> Answer {
    let Some(request) = &seen.request else { return Answer::Look(Look::Request) };
    match request {
        None => gone(case, seen),
        Some(request) if !case.is_ours(request) => case.foreign(request),
        Some(request) => with(ours(case, seen, request), request),
    }
}

/// Whatever the outcome: the request was seen, and how far it is.
fn with(answer: Answer, request: &Request) -> Answer {
    let add = |learned: Learned| Learned {
        request: Some(request.repack.creation_log.clone()),
        progress: Some(Progress::of(&request.repack)),
        ..learned
    };
    match answer {
        Answer::Done(learned) => Answer::Done(Learned { statistics: Some(request.raw.clone()), ..add(learned) }),
        Answer::NotYet(wait, learned) => Answer::NotYet(wait, add(learned)),
        Answer::NextRound(why, learned) => Answer::NextRound(why, add(learned)),
        Answer::Stop(why, learned) => Answer::Stop(why, add(learned)),
        other => other,
    }
}

fn ours(case: &Case<'_>, seen: &Seen, request: &Request) -> Answer {
    let repack = &request.repack;
    match repack.status.as_str() {
        "Complete" => complete(case, seen, request),
        "Failed" => {
            let lost = repack.failed_to_retrieve_files;
            let unwritten = repack.failed_to_archive_files;
            let text = match failed(lost, unwritten) {
                None => "CTA could not expand the repack request (archive routes, storage classes, repack buffer?): its daemon's log has the reason".to_owned(),
                Some(failed) => format!(
                    "{failed}; {} of the {} copies of this request are safe on other tapes",
                    repack.archived_files, repack.total_files_to_archive
                ),
            };
            case.stop(
                Code::RepackFailed,
                format!("{text}; 'cta-ops-repack-manager retry-failed {}' repacks what is left", case.tape.vid),
            )
        }
        _ => running(case, seen, request),
    }
}

/// What failed, in words; none if nothing was counted.
fn failed(lost: u64, unwritten: u64) -> Option<String> {
    let count = |count: u64, one: &str, many: &str, what: &str| {
        (count > 0).then(|| format!("{count} {} could not be {what}", if count == 1 { one } else { many }))
    };
    let parts = [count(lost, "file", "files", "read"), count(unwritten, "copy", "copies", "written")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

fn complete(case: &Case<'_>, seen: &Seen, request: &Request) -> Answer {
    let repack = &request.repack;
    if repack.failed_to_retrieve_files > 0 || repack.failed_to_archive_files > 0 {
        return case.stop(Code::RepackFailed, "CTA says Complete, but counts failed files");
    }
    if !repack.all_files_selected_at_start {
        let why = Why::new(
            Code::NextRound,
            format!("round {} moved {} files, but had not selected all", case.task.round.max(1), repack.archived_files),
        );
        return if repack.archived_files > 0 {
            Answer::NextRound(why, Learned::default())
        } else {
            case.stop(Code::FilesLeft, "CTA says Complete, but selected and moved no file")
        };
    }
    match seen.files {
        None => Answer::Look(Look::Files),
        Some(Files { count: 0, .. }) => Answer::Done(Learned::default()),
        Some(Files { count, bytes }) => case.stop(
            Code::FilesLeft,
            format!(
                "the repack is Complete, but {count} files ({bytes} bytes) are left on the tape; 'cta-ops-repack-manager retry-failed {}' repacks them",
                case.tape.vid
            ),
        ),
    }
}

fn running(case: &Case<'_>, seen: &Seen, request: &Request) -> Answer {
    let now = Progress::of(&request.repack);
    let same = case.task.progress.as_ref() == Some(&now);
    let since = case.task.progress_at.filter(|_| same);
    let done = format!("{}: {} of {} copies written", now.status, now.archived_files, now.total_files);
    match since {
        Some(since) if later(since, case.settings.stall) <= case.now => {
            let Some(tape) = &seen.tape else { return Answer::Look(Look::Tape) };
            let state = tape.as_ref().map_or("unknown to CTA", |tape| tape.state.as_str());
            let (code, hint) = if state == "REPACKING_DISABLED" {
                let hint = format!("; 'cta-ops-repack-manager unstick {}' puts it back to REPACKING", case.tape.vid);
                (Code::DisabledByDrive, hint)
            } else {
                let hint = "; see the drives, the destination pools and the repack buffer ('cta-admin showqueues')";
                (Code::RepackStalled, hint.to_owned())
            };
            let text = format!(
                "{done}, no progress since {}; the tape is {state}{hint}",
                since.format("%Y-%m-%d %H:%M:%S UTC")
            );
            Answer::NotYet(Wait { why: Why::new(code, text), until: None, stalled: true }, Learned::default())
        }
        _ => Answer::wait(Code::RepackRunning, done, None),
    }
}

fn gone(case: &Case<'_>, seen: &Seen) -> Answer {
    match seen.files {
        None => Answer::Look(Look::Files),
        Some(Files { count: 0, .. }) => Answer::Done(Learned {
            notes: vec![("request-gone", serde_json::json!({"files_left": 0}))],
            ..Learned::default()
        }),
        Some(Files { count, bytes }) => case.stop(
            Code::RequestGone,
            format!(
                "its repack request is gone and {count} files ({bytes} bytes) are left on the tape; 'cta-ops-repack-manager retry-failed {}' repacks them",
                case.tape.vid
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_failed_only_what_there_is_is_told() {
        for (lost, unwritten, told) in [
            (0, 0, None),
            (2, 0, Some("2 files could not be read")),
            (0, 1, Some("1 copy could not be written")),
            (1, 3, Some("1 file could not be read and 3 copies could not be written")),
        ] {
            assert_eq!(failed(lost, unwritten).as_deref(), told);
        }
    }
}

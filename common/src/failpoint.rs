//! Points at which a test can stop, crash or break a program. Without the feature `failpoints` they do not exist.

use crate::tape::Vid;

/// Passes a fail point; see [`pass_at`].
#[inline]
pub fn pass(point: &str, vid: &Vid) {
    pass_at(point, &[], vid);
}

/// Passes a fail point at a place: a stage or a wish, then what is being done there. In a build with the feature,
/// `CTA_OPS_FAILPOINT=point:VID:action` (several separated by `;`, `*` for any VID) makes the action happen there, and
/// `point@place:VID:action` only at that place (`acted@quarantine`, `acted@quarantine.repack-rm`).
///
/// | action | what happens |
/// |---|---|
/// | `panic`, `abort` | as they say |
/// | `kill`, `stop`, `term` | the process sends itself SIGKILL, SIGSTOP, SIGTERM |
/// | `once-FILE-action` | the action, if FILE could be created: once among all processes and restarts. FILE then holds the process's number |
#[cfg(feature = "failpoints")]
pub fn pass_at(point: &str, place: &[&str], vid: &Vid) {
    let Ok(armed) = std::env::var("CTA_OPS_FAILPOINT") else { return };
    for one in armed.split(';') {
        let mut parts = one.splitn(3, ':');
        let (Some(name), Some(tape), Some(action)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (name, wanted) = name.split_once('@').unwrap_or((name, ""));
        if name == point && is_at(wanted, place) && (tape == "*" || tape == vid.as_str()) {
            fire(action, point, vid);
        }
    }
}

/// Whether a place lies in the one asked for; an empty one is everywhere.
#[cfg(feature = "failpoints")]
fn is_at(wanted: &str, place: &[&str]) -> bool {
    wanted.split('.').filter(|word| !word.is_empty()).enumerate().all(|(at, word)| place.get(at) == Some(&word))
}

#[cfg(feature = "failpoints")]
fn fire(action: &str, point: &str, vid: &Vid) {
    use std::io::Write as _;

    use rustix::process::Signal;

    match action {
        "panic" => panic!("fail point {point} of {vid}"),
        "abort" => std::process::abort(),
        "kill" => send(Signal::KILL),
        "stop" => send(Signal::STOP),
        "term" => send(Signal::TERM),
        other => {
            let Some((file, action)) = other.strip_prefix("once-").and_then(|rest| rest.rsplit_once('-')) else {
                return;
            };
            if let Ok(mut file) = std::fs::OpenOptions::new().write(true).create_new(true).open(file) {
                let _ = writeln!(file, "{}", std::process::id());
                drop(file);
                fire(action, point, vid);
            }
        }
    }
}

#[cfg(feature = "failpoints")]
fn send(signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    // The signal may reach another thread first: this one must not run on before the whole process has felt it.
    std::thread::sleep(std::time::Duration::from_millis(50));
}

/// Passes a fail point: nothing, in this build.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn pass_at(_: &str, _: &[&str], _: &Vid) {}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::is_at;

    #[test]
    fn a_place_is_named_as_far_as_it_matters() {
        for (wanted, place, expected) in [
            ("", &[][..], true),
            ("", &["start"], true),
            ("start", &["start"], true),
            ("start", &["start", "repack-add"], true),
            ("start.repack-add", &["start", "repack-add"], true),
            ("start.repack-add", &["start"], false),
            ("start.repack-add", &["start", "set-repacking"], false),
            ("start", &["end"], false),
            ("start", &[], false),
        ] {
            assert_eq!(is_at(wanted, place), expected, "{wanted} {place:?}");
        }
    }
}

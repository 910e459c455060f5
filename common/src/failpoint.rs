//! Points at which a test can stop, crash or break a program. Without the feature `failpoints` they do not exist.

/// Passes a fail point. In a build with the feature, `CTA_OPS_FAILPOINT=point:VID:action` (several separated by `;`, `*`
/// for any VID) makes the action happen there: `panic`, `abort`, `stop` (SIGSTOP of the whole process) or `once-FILE-action`,
/// which happens only if FILE could be created, so that it fires once among all processes and restarts.
#[cfg(feature = "failpoints")]
pub fn pass(point: &str, vid: &crate::tape::Vid) {
    let Ok(armed) = std::env::var("CTA_OPS_FAILPOINT") else { return };
    for one in armed.split(';') {
        let mut parts = one.splitn(3, ':');
        let (Some(name), Some(tape), Some(action)) = (parts.next(), parts.next(), parts.next()) else { continue };
        if name == point && (tape == "*" || tape == vid.as_str()) {
            fire(action, point, vid);
        }
    }
}

#[cfg(feature = "failpoints")]
fn fire(action: &str, point: &str, vid: &crate::tape::Vid) {
    match action {
        "panic" => panic!("fail point {point} of {vid}"),
        "abort" => std::process::abort(),
        "stop" => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        }
        other => {
            let Some((file, action)) = other.strip_prefix("once-").and_then(|rest| rest.rsplit_once('-')) else {
                return;
            };
            if std::fs::OpenOptions::new().write(true).create_new(true).open(file).is_ok() {
                fire(action, point, vid);
            }
        }
    }
}

/// Passes a fail point: nothing, in this build.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn pass(_: &str, _: &crate::tape::Vid) {}

//! What can go wrong with `cta-admin`, in words, and whose trouble it is.

use std::fmt;
use std::path::PathBuf;

/// Why a list could not be had. Nothing may be concluded from the objects seen before.
#[derive(Debug)]
pub enum Trouble {
    /// CTA looked at it and said no: exit 2, or what the gRPC build prints in that case.
    Refused {
        /// As typed.
        command: String,
        /// What CTA said: first lines, escaped.
        text: String,
    },
    /// Exit 1, any other exit, a signal, a gRPC error: not asked, or the answer got lost.
    Failed {
        /// As typed.
        command: String,
        /// Exit code, if it exited.
        exit: Option<i32>,
        /// Signal number, if one ended it.
        signal: Option<i32>,
        /// What it said: first lines, escaped.
        text: String,
    },
    /// It printed nothing for this long, and was killed.
    Silent {
        /// As typed.
        command: String,
        /// The limit on silence, in seconds.
        secs: f64,
    },
    /// It was not done after this long, and was killed.
    TooLong {
        /// As typed.
        command: String,
        /// The limit on the whole list, in seconds.
        secs: f64,
    },
    /// What it printed is not one complete JSON array of the expected objects.
    Garbage {
        /// As typed.
        command: String,
        /// Why, and the beginning of what does not belong there, escaped.
        text: String,
    },
    /// The program could not be started.
    NotRunnable {
        /// The program.
        program: PathBuf,
        /// Why.
        why: String,
    },
    /// What was being done with the objects failed; CTA has no part in it.
    Stopped {
        /// As typed.
        command: String,
        /// The failure.
        cause: anyhow::Error,
    },
}

impl Trouble {
    /// Surely the site's trouble: no need to ask further before work is given back. A `false` does not say that it is
    /// the tape's.
    pub fn is_site(&self) -> bool {
        match self {
            Trouble::Refused { text, .. } | Trouble::Failed { text, .. } => site_level(text),
            Trouble::NotRunnable { .. } => true,
            Trouble::Silent { .. } | Trouble::TooLong { .. } | Trouble::Garbage { .. } | Trouble::Stopped { .. } => {
                false
            }
        }
    }

    /// What CTA said, if it looked at the question and said no.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Trouble::Refused { text, .. } => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Refused { command, text } => write!(f, "cta-admin refused: {text} (command: {command})"),
            Trouble::Failed { command, exit, signal, text } => {
                write!(f, "cta-admin failed ({}): {text} (command: {command})", how_it_ended(*exit, *signal))
            }
            Trouble::Silent { command, secs } => {
                write!(f, "cta-admin printed nothing for {secs} s and was killed (command: {command})")
            }
            Trouble::TooLong { command, secs } => {
                write!(f, "cta-admin was not done after {secs} s and was killed (command: {command})")
            }
            Trouble::Garbage { command, text } => {
                write!(f, "cta-admin printed something else than a complete list: {text} (command: {command})")
            }
            Trouble::NotRunnable { program, why } => {
                write!(f, "cannot run '{}': {why}", program.display().to_string().escape_debug())
            }
            Trouble::Stopped { command, cause } => {
                write!(f, "gave up reading the list: {cause:#} (command: {command})")
            }
        }
    }
}

impl std::error::Error for Trouble {}

/// How a changing command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Exit 0. Not yet a proof that anything changed: look.
    Accepted,
    /// Exit 2: CTA looked at it and said this.
    Refused(String),
    /// It may have happened, and may still happen: exit 1, any other exit, a signal, a limit, no word from the guard.
    Unclear(String),
    /// Surely never started.
    NotRun(String),
}

/// "exit 1", "signal 9".
pub(super) fn how_it_ended(exit: Option<i32>, signal: Option<i32>) -> String {
    match (exit, signal) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(number)) => format!("signal {number}"),
        (None, None) => "unknown end".to_owned(),
    }
}

/// Refusals and failures that every tape would meet: rights, configuration, front ends, connections. Compared without
/// regard to case, anywhere in the text. The one list.
const SITE_LEVEL: &[&str] = &[
    // The caller is not in CTA's admin list, or its keytab has run out.
    "not authorized to execute cta admin commands",
    // "Admin command disabled on this frontend", "Not allowed to modify tape .. state from .. to .. on this frontend".
    "on this frontend",
    // The second one's form in CTA 5.11.16 and 5.11.17.
    "unable to modify state of vid",
    // CTA 5.10.10 to 5.11.17 on a front end without repack.
    "repack requests are disabled",
    // What repack needs from the site before it looks at any tape.
    "there is no default virtual organization for repack",
    "the mount policy name provided does not match",
    "must specify the buffer url",
    // The client's own configuration: "Configuration error: cta.endpoint missing from ..".
    "configuration error:",
    "cta.endpoint missing",
    // Front end unreachable, connection lost, no answer in time, Kerberos; client and server of different versions.
    "error from xrootd ssi framework",
    "[fatal] connection error",
    "error in google protocol buffers",
    // A client too old or too new for what we ask.
    "invalid option: ",
    "missing option: ",
    "invalid subcommand: ",
    // gRPC: deadline exceeded, permission denied, unimplemented, unavailable, unauthenticated.
    "grpc call failed. error code: 4 ",
    "grpc call failed. error code: 7 ",
    "grpc call failed. error code: 12 ",
    "grpc call failed. error code: 14 ",
    "grpc call failed. error code: 16 ",
];

/// Whether this text of CTA's is about the site and not about the tape.
pub fn site_level(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    SITE_LEVEL.iter().any(|known| text.contains(known))
}

/// The first lines of what a program said: at most five of them and 500 characters, on one line, nothing a terminal obeys.
pub(super) fn first_lines(bytes: &[u8]) -> String {
    const LINES: usize = 5;
    const CHARS: usize = 500;
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let kept: Vec<&str> = lines.by_ref().take(LINES).collect();
    let mut cut = lines.next().is_some();
    let mut shown = String::new();
    for (index, c) in kept.join("; ").chars().enumerate() {
        if index == CHARS {
            cut = true;
            break;
        }
        if needs_escape(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    match (shown.is_empty(), cut) {
        (true, _) => "no message".to_owned(),
        (false, true) => shown + " ...",
        (false, false) => shown,
    }
}

/// Control characters, and those that turn the direction of text or hide it.
fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_tape_would_meet_is_the_sites_trouble() {
        let texts = [
            "User: ops on host: h1 is not authorized to execute CTA admin commands",
            "Admin command disabled on this frontend.",
            "Repack requests are disabled.",
            "Not allowed to modify tape V01007 state from ACTIVE to REPACKING on this frontend",
            "Unable to modify state of VID V01007: not on the user one",
            "There is no default virtual organization for repack.",
            "The mount policy name provided does not match any existing mount policy.",
            "Must specify the buffer URL using --bufferurl option or using the frontend configuration file.",
            "Configuration error: cta.endpoint missing from /etc/cta/cta-cli.conf",
            "cta.endpoint missing from /etc/cta/cta-cli.conf",
            "Error from XRootD SSI Framework: no answer",
            "something: [FATAL] Connection error",
            "Error in Google Protocol Buffers: version mismatch",
            "Invalid option: --get-storage-class-stats; usage: ..",
            "Missing option: --vid",
            "Invalid subcommand: reclaim",
            "gRPC call failed. Error code: 4 Error message: Deadline Exceeded",
            "gRPC call failed. Error code: 7 Error message: denied",
            "gRPC call failed. Error code: 12 Error message: unimplemented",
            "gRPC call failed. Error code: 14 Error message: failed to connect to all addresses",
            "gRPC call failed. Error code: 16 Error message: no token",
        ];
        for text in texts {
            assert!(site_level(text), "{text}");
            assert!(site_level(&text.to_uppercase()), "{text}");
        }
        for known in SITE_LEVEL {
            let met = texts.iter().any(|text| text.to_lowercase().contains(known));
            assert!(met, "no text above for '{known}'");
        }
    }

    #[test]
    fn every_entry_of_the_list_is_needed() {
        for known in SITE_LEVEL {
            let others = SITE_LEVEL.iter().filter(|other| *other != known && known.contains(*other));
            assert_eq!(others.count(), 0, "'{known}' is contained in another");
        }
    }

    #[test]
    fn what_is_said_about_one_tape_is_not_the_sites_trouble() {
        for text in [
            "",
            "Tape VID V01007 does not exist.",
            "The VID V01007 does not exist",
            "No repack request for this VID.",
            "No repack request for this VID (index not present).",
            "No repack request found for VID: V01007",
            "A repack request already exists for this VID.",
            "You must set the tape as full before repacking it.",
            "You cannot repack a tape that is REPACKING_PENDING. You must wait for its state to complete the transition to REPACKING.",
            "The VID provided for repacking does not exist",
            "Cannot modify tape V01007 state because there is a repack for that tape",
            "Cannot modify tape V01007 state while it is in a temporary internal state",
            "Cannot modify tape V01007 because the tape pool P does not exist",
            "Cannot modify the state of the tape V01007 because a recent state change has been detected",
            "Cannot reclaim tape V01007 because it is not FULL",
            "Cannot find tape V01007",
            "This tape contains files deleted 1209600 seconds ago while recycle_log_quarantine_secs is configured at 2678400. Please reclaim this tape later.",
            "Not all tapes were found: V01007",
            "gRPC call failed. Error code: 13 Error message: Not all tapes were found",
            "gRPC call failed. Error code: 3 Error message: Tape VID V01007 does not exist.",
        ] {
            assert!(!site_level(text), "{text}");
        }
    }

    #[test]
    fn a_trouble_says_what_was_asked_what_happened_and_why() {
        let command = || "cta-admin repack ls".to_owned();
        let rows = [
            (
                Trouble::Refused { command: command(), text: "no".into() },
                "cta-admin refused: no (command: cta-admin repack ls)",
            ),
            (
                Trouble::Failed { command: command(), exit: Some(1), signal: None, text: "why".into() },
                "cta-admin failed (exit 1): why (command: cta-admin repack ls)",
            ),
            (
                Trouble::Failed { command: command(), exit: None, signal: Some(9), text: "why".into() },
                "cta-admin failed (signal 9): why (command: cta-admin repack ls)",
            ),
            (
                Trouble::Silent { command: command(), secs: 120.0 },
                "cta-admin printed nothing for 120 s and was killed (command: cta-admin repack ls)",
            ),
            (
                Trouble::TooLong { command: command(), secs: 0.5 },
                "cta-admin was not done after 0.5 s and was killed (command: cta-admin repack ls)",
            ),
            (
                Trouble::Garbage { command: command(), text: "cut off".into() },
                "cta-admin printed something else than a complete list: cut off (command: cta-admin repack ls)",
            ),
            (
                Trouble::NotRunnable { program: "/bin/\u{1b}x".into(), why: "there is no such file".into() },
                r"cannot run '/bin/\u{1b}x': there is no such file",
            ),
            (
                Trouble::Stopped { command: command(), cause: anyhow::anyhow!("disk full").context("writing") },
                "gave up reading the list: writing: disk full (command: cta-admin repack ls)",
            ),
        ];
        for (trouble, expected) in rows {
            assert_eq!(trouble.to_string(), expected);
        }
    }

    #[test]
    fn only_a_refusal_is_one() {
        let text = || "Repack requests are disabled.".to_owned();
        let refused = Trouble::Refused { command: String::new(), text: text() };
        let failed = Trouble::Failed { command: String::new(), exit: Some(1), signal: None, text: text() };
        assert_eq!((refused.refusal(), failed.refusal()), (Some(&*text()), None));
        assert!(refused.is_site() && failed.is_site());
    }

    #[test]
    fn error_texts_are_short_and_harmless() {
        let rows: &[(&[u8], &str)] = &[
            (b"", "no message"),
            (b" \n\t\n", "no message"),
            (b"one\n", "one"),
            (b"1\n\n2\r\n3\n4\n5\n", "1; 2; 3; 4; 5"),
            (b"1\n2\n3\n4\n5\n6\n", "1; 2; 3; 4; 5 ..."),
            (b"\x1b]0;title\x07\xff", "\\u{1b}]0;title\\u{7}\u{fffd}"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
        ];
        for (said, expected) in rows {
            assert_eq!(first_lines(said), *expected);
        }
        assert_eq!(first_lines("\u{e9}".repeat(500).as_bytes()), "\u{e9}".repeat(500));
        assert_eq!(first_lines("\u{e9}".repeat(501).as_bytes()), "\u{e9}".repeat(500) + " ...");
    }
}

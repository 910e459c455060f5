//! Why a tape waits, is retried, or stopped: one short code for machines and runbooks, one sentence for people.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($variant:ident $name:literal $about:literal;)*) => {
        /// The reason codes. They are a contract: monitoring and runbooks name them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $about] $variant,)* }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The code as it is stored and shown.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// What it means, in a sentence.
            pub fn about(self) -> &'static str {
                match self { $(Code::$variant => $about,)* }
            }
        }
    };
}

codes! {
    Settling "settling" "A changing command ended unclear; until it surely had its effect or never will, the tape is only looked at.";
    TapePending "tape-pending" "CTA is still moving the tape to REPACKING (it clears the users' queue first).";
    PendingTooLong "pending-too-long" "The tape stayed in a pending CTA state longer than `pending_limit_secs`; CTA's maintenance daemon may be down.";
    RepackRunning "repack-running" "CTA is repacking the tape.";
    RepackStalled "repack-stalled" "The repack has made no progress for `stall_hours`.";
    NextRound "next-round" "The repack covered only a part of the tape; the next round has been asked for.";
    RepackFailed "repack-failed" "CTA could not move every file; what was moved is safe, the rest is still on the tape.";
    FilesLeft "files-left" "Files are on the tape that should be empty.";
    RequestGone "request-gone" "Our repack request vanished while files are left on the tape.";
    SomeoneElsesRequest "someone-elses-request" "CTA holds a repack request for the tape that is not ours.";
    ChecksFailed "checks-failed" "The tape does not pass the checks that a repack needs.";
    NotFull "not-full" "The tape is not full: it may be written to.";
    UnexpectedState "unexpected-state" "The tape is in a CTA state from which this stage cannot go on.";
    DisabledByDrive "disabled-by-drive" "CTA disabled the tape while it was being repacked (REPACKING_DISABLED).";
    WrongPool "wrong-pool" "The tape is in a pool in which it should not be.";
    PoolIsRouted "pool-is-routed" "The quarantine pool is the target of an archive route: users' files could land on reclaimed tapes.";
    TapeChanged "tape-changed" "The tape is not as it was when it went into quarantine.";
    UsedMeanwhile "used-meanwhile" "The tape was written to after it was reclaimed.";
    QuarantineNotOver "quarantine-not-over" "The quarantine is not over.";
    RecycleLogYoung "recycle-log-young" "An entry of the recycle log is younger than the quarantine: CTA refuses the reclaim, or should.";
    TapeUnknown "tape-unknown" "CTA says that the tape does not exist.";
    Refused "refused" "CTA refused a command although a look says that it should work.";
    NoEffect "no-effect" "A command was accepted but its effect cannot be seen.";
    CommandFailed "command-failed" "A changing command ended unclear.";
    LookFailed "look-failed" "A query about the tape failed.";
    SiteTrouble "site-trouble" "CTA, or this host's access to it, is in trouble; no tape is to blame.";
    ListingFailed "listing-failed" "The listing of the tape's files could not be written.";
    NoPriority "no-priority" "The tape's priority is not in the configuration.";
    NoDestination "no-destination" "No destination pool can be named for the tape.";
    Crashed "crashed" "The program ended or panicked again and again while it worked on the tape.";
    NoSlot "no-slot" "Every slot of `max_active_repacks` is taken.";
    OnHold "on-hold" "An operator put the tape on hold.";
    StagePaused "stage-paused" "An operator paused the stage.";
    NothingToRetry "nothing-to-retry" "A retry was asked for, but the repack is still running.";
}

/// Codes of a wait before reclaim that tell of no refusal by the reclaim gate.
pub const NO_GATE_REFUSAL: [Code; 5] =
    [Code::Settling, Code::SiteTrouble, Code::LookFailed, Code::Crashed, Code::QuarantineNotOver];

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A reason: the code and the sentence with this tape's particulars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// For machines.
    pub code: Code,
    /// For people: lower case, no full stop.
    pub text: String,
}

impl Why {
    /// A reason.
    pub fn new(code: Code, text: impl Into<String>) -> Why {
        Why { code, text: text.into() }
    }
}

/// A reason as the task row keeps it: the code may be one that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Name of the code.
    pub code: String,
    /// The sentence.
    pub text: String,
}

impl Kept {
    /// The reason again, if this version knows its code.
    pub fn why(&self) -> Option<Why> {
        let code = Code::ALL.iter().find(|code| code.name() == self.code)?;
        Some(Why::new(*code, self.text.clone()))
    }
}

impl From<&Why> for Kept {
    fn from(why: &Why) -> Kept {
        Kept { code: why.code.name().to_owned(), text: why.text.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_made_of_small_letters_and_dashes() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}

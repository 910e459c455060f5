//! Faults of the protocol, put in on purpose: each must be caught, or the checks prove nothing.

macro_rules! mutations {
    ($($variant:ident $name:literal caught by [$($invariant:literal)|+] $about:literal;)*) => {
        /// What is wrong on purpose.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutation { $(#[doc = $about] $variant,)* }

        impl Mutation {
            /// All of them.
            pub const ALL: &'static [Mutation] = &[$(Mutation::$variant),*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Mutation::$variant => $name,)* }
            }

            /// What is wrong, in a sentence.
            pub fn about(self) -> &'static str {
                match self { $(Mutation::$variant => $about,)* }
            }

            /// The invariants of which it must break one.
            pub fn breaks(self) -> &'static [u8] {
                match self { $(Mutation::$variant => &[$($invariant),+],)* }
            }
        }
    };
}

mutations! {
    NoEpochCheck "no-epoch-check" caught by [1 | 2] "A worker that was fenced out acts and records as if it still had the tape.";
    LeaseIgnored "lease-ignored" caught by [1] "A claim takes a tape that somebody else works on.";
    CrashNotClosed "crash-not-closed" caught by [1] "A claim takes over an expired lease without closing it: nothing settles, no crash is counted.";
    SettleIgnored "settle-ignored" caught by [1 | 2] "Nobody waits for a command that ended unclear.";
    DeadlineNotTested "deadline-not-tested" caught by [1] "A process that was paused between the last check and the start runs its command late.";
    HoldNotChecked "hold-not-checked" caught by [3] "The last check does not ask for a hold.";
    ModeNotChecked "mode-not-checked" caught by [5] "The last check does not ask for the mode.";
    PauseNotChecked "pause-not-checked" caught by [5] "The last check does not ask for a paused stage.";
    FailedListIsEmpty "failed-list-is-empty" caught by [2 | 3] "A list of files that failed with `[]` is read as no files.";
    ExitZeroBelieved "exit-zero-believed" caught by [2] "What a command that exited 0 should have done is taken as done, without a look.";
    PoolNotLookedAt "pool-not-looked-at" caught by [3] "The reclaim gate does not ask for the pool.";
    RequestNotLookedFor "request-not-looked-for" caught by [2 | 3] "The lists of repack requests are taken as empty where CTA refuses or fails.";
    HostClockDecides "host-clock-decides" caught by [1 | 3] "A worker's own clock, which is wrong, decides instead of the database's.";
    SlotsCountedBefore "slots-counted-before" caught by [4] "Slots are counted before the gate is locked.";
    SlotFreedWhileRunning "slot-freed-while-running" caught by [4] "The tick takes every request for a final one.";
    ReconcileWithoutRecheck "reconcile-without-recheck" caught by [4] "The tick frees slots by a list that is older than the row.";
    MessageTrusted "message-trusted" caught by [8] "What a message says is believed, not the row's generation.";
    LetterWithoutStop "letter-without-stop" caught by [7] "A dead letter puts a tape into mode error with no Stop behind it.";
    LetterGenerationIgnored "letter-generation-ignored" caught by [8] "A dead letter of another generation counts.";
    AckBeforeCommit "ack-before-commit" caught by [6] "A message is acknowledged before anything is recorded.";
    NeverAgain "never-again" caught by [6] "What was published once is never published again.";
    NoSweep "no-sweep" caught by [6 | 7] "A lost dead letter is never made up for.";
    LeasesNotClosed "leases-not-closed" caught by [6] "The tick does not close expired leases of rows that nobody may claim.";
    EditsNotFollowed "edits-not-followed" caught by [6] "The tick does not follow what others edited.";
}

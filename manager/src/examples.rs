//! What the help of each verb ends with: examples, and the rules that its options alone do not show. Each example line is parsed
//! by a test through the real definitions.

/// The program.
pub const PROGRAM: &str = "\
Examples:
  cta-ops-repack-manager ls --mode error                                  # what stopped, and why
  cta-ops-repack-manager show V01007                                      # all that is known of one tape
  cta-ops-repack-manager requeue V01007 --reason 'drive is repaired'      # let it go on
  cta-ops-repack-manager pause all --for 2h --reason 'CTA is upgraded'    # start nothing for two hours

Each verb says more: cta-ops-repack-manager help requeue";

/// `migrate`.
pub const MIGRATE: &str = "\
Examples:
  cta-ops-repack-manager migrate --dry-run    # would it work?
  cta-ops-repack-manager migrate";

/// `config`.
pub const CONFIG: &str = "\
Examples:
  cta-ops-repack-manager config check";

/// `config check`.
pub const CONFIG_CHECK: &str = "\
Examples:
  cta-ops-repack-manager config check
  cta-ops-repack-manager -C new.yaml config check --strict    # warnings count too

Beside the file it looks at what this host should have: the cta-admin program and its configuration, the log directory.";

/// `ls`.
pub const LS: &str = "\
Examples:
  cta-ops-repack-manager ls                               # what is on its way
  cta-ops-repack-manager ls --mode error --long
  cta-ops-repack-manager ls 'V01*' --state started --older-than 7d
  cta-ops-repack-manager ls --code repack-failed --jsonl | jq -r .vid";

/// `show`.
pub const SHOW: &str = "\
Examples:
  cta-ops-repack-manager show V01007
  cta-ops-repack-manager show V01007 --events 500 --json";

/// `ch`.
pub const CH: &str = "\
Examples:
  cta-ops-repack-manager ch V01007 --mode manual --reason 'looking at it'    # nobody but you acts on it
  cta-ops-repack-manager ch V01007 --mode auto
  cta-ops-repack-manager ch --pool raw_lto8 --priority 50 --yes              # every tape that came from a pool

Mode error is the automation's word: it cannot be set here.";

/// `requeue`.
pub const REQUEUE: &str = "\
Examples:
  cta-ops-repack-manager requeue V01007
  cta-ops-repack-manager requeue --code repack-failed --older-than 1d --dry-run
  cta-ops-repack-manager requeue V01007 --adopt --reason 'bob made the request'

A tape that waits is looked at now, or as soon as its stage may be tried by today's configuration; never before an
unclear command has settled. --adopt, --accept-empty, and a Stop of the reclaim want --reason.";

/// `retry-failed`.
pub const RETRY_FAILED: &str = "\
Examples:
  cta-ops-repack-manager retry-failed V01007
  cta-ops-repack-manager retry-failed --code repack-failed --yes

A worker keeps the old request in the history, removes it, and makes a new one.";

/// `abort`.
pub const ABORT: &str = "\
Examples:
  cta-ops-repack-manager abort V01007 --reason 'needed for recalls'

A worker removes our repack request and gives the tape the state and the pool it had; its row goes to the history. Not
possible any more once a reclaim was allowed to run. --reason is wanted.";

/// `unstick`.
pub const UNSTICK: &str = "\
Examples:
  cta-ops-repack-manager unstick V01007
  cta-ops-repack-manager unstick --state started --code tape-stuck --dry-run";

/// `rm`.
pub const RM: &str = "\
Examples:
  cta-ops-repack-manager rm V01007 --reason 'entered by mistake'
  cta-ops-repack-manager rm --vidfile wrong.txt --reason 'wrong campaign' --dry-run

Refused where CTA may still hold our request, or the tape is in REPACKING by our doing: abort gives it back first.
--reason is wanted.";

/// `hold`.
pub const HOLD: &str = "\
Examples:
  cta-ops-repack-manager hold V01007 --reason 'under audit' --for 7d
  cta-ops-repack-manager hold V01007 V01008 --reason 'sent to the vendor'

It belongs to the VID: it outlives the row, and scan and prepare obey it.";

/// `release`.
pub const RELEASE: &str = "\
Examples:
  cta-ops-repack-manager release V01007
  cta-ops-repack-manager release --held --all";

/// `pause`.
pub const PAUSE: &str = "\
Examples:
  cta-ops-repack-manager pause reclaim --reason 'recalls first'
  cta-ops-repack-manager pause all --for 2h --reason 'CTA is upgraded'

A command that runs already is finished; nothing new is started.";

/// `resume`.
pub const RESUME: &str = "\
Examples:
  cta-ops-repack-manager resume reclaim
  cta-ops-repack-manager resume all --yes";

/// `add`.
pub const ADD: &str = "\
Examples:
  cta-ops-repack-manager add V01007 V01008 --priority 50 --reason 'old media'
  cta-ops-repack-manager add --vidfile tapes.txt --dry-run
  cta-ops-repack-0-scan | cta-ops-repack-manager add - --yes

A tape that is there already is fine; exit status 1 if any was refused.";

/// `import`.
pub const IMPORT: &str = "\
Examples:
  cta-ops-repack-manager import --dry-run
  cta-ops-repack-manager import --migrate
  cta-ops-repack-manager import --cta --json

The table itself is not changed: what we need to know stands in tables beside it. Run again, it changes nothing.
Exit status 1 if a row is odd, or CTA disagrees.";

/// `completions`.
pub const COMPLETIONS: &str = "\
Examples:
  cta-ops-repack-manager completions bash > /etc/bash_completion.d/cta-ops-repack-manager
  cta-ops-repack-manager completions zsh --program producer";

/// `man`.
pub const MAN: &str = "\
Examples:
  cta-ops-repack-manager man | man -l -
  cta-ops-repack-manager man --dir man1    # manager, producer, worker, and each of their verbs";

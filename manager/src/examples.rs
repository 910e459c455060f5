//! What the help of each verb ends with: examples, and the rules that its options alone do not show. Each example line is parsed
//! by a test through the real definitions.

/// The program.
pub const PROGRAM: &str = "\
Examples:
  cta-ops-repack-manager ls --mode error                               # what stopped, and why
  cta-ops-repack-manager show V01007                                   # all that is known of it
  cta-ops-repack-manager requeue V01007 --reason 'drive repaired'      # let it go on
  cta-ops-repack-manager pause all --for 2h --reason 'CTA upgrade'     # start nothing

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

Beside the file it looks at what this host should have: the cta-admin program and its
configuration, the log directory.";

/// `ls`.
pub const LS: &str = "\
Examples:
  cta-ops-repack-manager ls                                      # what is on its way
  cta-ops-repack-manager ls --mode error --sort -since
  cta-ops-repack-manager ls 'V01*' --state started,repacked --older-than 2d --long
  cta-ops-repack-manager ls --pool 'raw_*' --code repack-running --jsonl | jq -r .vid
  cta-ops-repack-manager ls --all --sort -bytes --limit 20
  cta-ops-repack-manager ls --watch 10

At a terminal a WHY that is too long for its line is cut; show VID, or -V, has all of it.";

/// `show`.
pub const SHOW: &str = "\
Examples:
  cta-ops-repack-manager show V01007
  cta-ops-repack-manager show V01007 V01008 --events 200 -V
  cta-ops-repack-manager show V01007 --watch 10           # how its repack goes
  cta-ops-repack-manager show V01007 --no-cta --json

--watch goes on while the tape is stopped, for somebody may requeue it; when it is finished or
leaves the table, the last picture stays. Each look asks CTA twice, but for --no-cta.";

/// `history`.
pub const HISTORY: &str = "\
Examples:
  cta-ops-repack-manager history V01007 'V02*' --limit 0
  cta-ops-repack-manager history --kind intent,answer --since 1d    # what was changed in CTA";

/// `stats`.
pub const STATS: &str = "\
Examples:
  cta-ops-repack-manager stats
  cta-ops-repack-manager stats --days 70 --weekly    # each of the last ten weeks";

/// `queues`.
pub const QUEUES: &str = "\
Examples:
  cta-ops-repack-manager queues    # does anybody take what is published?";

/// `dead`.
pub const DEAD: &str = "\
Examples:
  cta-ops-repack-manager dead ls
  cta-ops-repack-manager dead show 1
  cta-ops-repack-manager dead drop 3f2a9c01b7d4

Looking takes messages into the hand for a moment: meanwhile others do not see them. The broker
counts it; a message that was delivered ten times is stored anew at the end of the queue, so that
no delivery limit drops it.";

/// `failed-files`.
pub const FAILED_FILES: &str = "\
Examples:
  cta-ops-repack-manager failed-files V01005
  cta-ops-repack-manager failed-files V01005 --jsonl --copies 0    # all files, for a program";

/// `check-env`.
pub const CHECK_ENV: &str = "\
Examples:
  cta-ops-repack-manager check-env
  cta-ops-repack-manager check-env --json | jq '.[] | select(.result == \"fails\")'

Exit status: 0 nothing fails (there may be warnings), 1 something fails, 2 misuse or a bad
configuration.";

/// `check-tape`.
pub const CHECK_TAPE: &str = "\
Examples:
  cta-ops-repack-manager check-tape V01007 V01008 --priority 50

Exit status: 0 nothing fails (there may be warnings), 1 something fails for one of the tapes,
2 misuse or a bad configuration.";

/// `dead ls`.
pub const DEAD_LS: &str = "\
Examples:
  cta-ops-repack-manager dead ls
  cta-ops-repack-manager dead ls --limit 1000 --json | jq -r .messages[].id";

/// `dead show`.
pub const DEAD_SHOW: &str = "\
Examples:
  cta-ops-repack-manager dead show 1                        # the oldest
  cta-ops-repack-manager dead show 3f2a9c01b7d4 --bytes 100000";

/// `dead requeue`.
pub const DEAD_REQUEUE: &str = "\
Examples:
  cta-ops-repack-manager dead requeue 3f2a9c01b7d4 --dry-run
  cta-ops-repack-manager dead requeue 3f2a9c01b7d4

Only what is a task of a stage can be published again. The row decides what comes of it.";

/// `dead drop`.
pub const DEAD_DROP: &str = "\
Examples:
  cta-ops-repack-manager dead drop 3f2a9c01b7d4 77d0c1a2e5f6
  cta-ops-repack-manager dead drop 3f2a9c01b7d4 --yes";

/// `ch`.
pub const CH: &str = "\
Examples:
  cta-ops-repack-manager ch V01007 --mode manual --reason 'looking'    # only you act on it
  cta-ops-repack-manager ch V01007 --mode auto
  cta-ops-repack-manager ch --pool raw_lto8 --priority 50 --yes        # all from that pool

Mode error is the automation's word: it cannot be set here.";

/// `requeue`.
pub const REQUEUE: &str = "\
Examples:
  cta-ops-repack-manager requeue V01007
  cta-ops-repack-manager requeue --code repack-failed --older-than 1d --dry-run
  cta-ops-repack-manager requeue V01007 --adopt --reason 'bob made the request'

A tape that waits is looked at now, or as soon as its stage may be tried by today's
configuration; never before an unclear command has settled. --adopt, --accept-empty, and a tape
that was stopped before its reclaim want --reason.";

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

A worker removes our repack request and gives the tape the state and the pool it had; its row
goes to the history. Not possible any more once a reclaim was allowed to run. --reason is wanted.";

/// `unstick`.
pub const UNSTICK: &str = "\
Examples:
  cta-ops-repack-manager unstick V01007
  cta-ops-repack-manager unstick --state started,repacked --dry-run";

/// `rm`.
pub const RM: &str = "\
Examples:
  cta-ops-repack-manager rm V01007 --reason 'entered by mistake'
  cta-ops-repack-manager rm --vidfile wrong.txt --reason 'wrong campaign' --dry-run

Refused where CTA may still hold our request, or the tape is in REPACKING by our doing: abort
gives it back first. --reason is wanted.";

/// `hold`.
pub const HOLD: &str = "\
Examples:
  cta-ops-repack-manager hold V01007 --reason 'under audit' --for 7d
  cta-ops-repack-manager hold V01007 V01008 --reason 'sent to the vendor'
  cta-ops-repack-manager hold --list    # also of tapes that are not in the table

It belongs to the VID: it outlives the row, and scan and prepare obey it.";

/// `release`.
pub const RELEASE: &str = "\
Examples:
  cta-ops-repack-manager release V01007
  cta-ops-repack-manager release --held";

/// `pause`.
pub const PAUSE: &str = "\
Examples:
  cta-ops-repack-manager pause reclaim --reason 'recalls first'
  cta-ops-repack-manager pause all --for 2h --reason 'CTA is upgraded'

A command that runs already is finished; nothing new is started.
A pause that lasts longer stays as it is.";

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

The table itself is not changed: what we need to know stands in tables beside it. Run again, it
changes nothing. Exit status 1 if a row is odd, or CTA disagrees.";

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

#[cfg(test)]
mod tests {
    use clap::{Command, Parser as _};

    use crate::cli::{Cli, Program};
    use crate::commands::pages::command;

    /// Words as a shell makes them of a line: quotes, and comments.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
        for c in line.chars() {
            match c {
                '\'' => {
                    quoted = !quoted;
                    word.get_or_insert_default();
                }
                '#' if !quoted && word.is_none() => break,
                ' ' if !quoted => words.extend(word.take()),
                c => word.get_or_insert_default().push(c),
            }
        }
        assert!(!quoted, "a quote is left open: {line}");
        words.extend(word);
        words
    }

    /// Commands of a line, without what their output goes to.
    fn commands(line: &str) -> Vec<Vec<String>> {
        let words = words(line);
        let commands = words.split(|word| word == "|");
        commands.map(|command| command.iter().take_while(|word| *word != ">").cloned().collect()).collect()
    }

    fn parses(command: &[String]) {
        let (name, line) = (command[0].as_str(), command.join(" "));
        let parsed = match name {
            "cta-ops-repack-manager" => Cli::try_parse_from(command).map(|_| ()),
            "cta-ops-repack-worker" => worker::cli::Cli::try_parse_from(command).map(|_| ()),
            _ => producer::cli::parse(command.iter().map(Into::into).collect()).map(|_| ()),
        };
        if let Err(error) = parsed {
            assert_eq!(error.exit_code(), 0, "{line}: {error}");
        }
    }

    /// Parses every example of a command and of all below it; how many there were.
    fn walk(command: &Command, path: &str) -> usize {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(
            !about.is_empty() && !about.contains('\n') && !about.ends_with('.'),
            "{path}: its summary is '{about}'"
        );
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{path}: {} has no help", argument.get_id());
            let long = argument.get_long().unwrap_or("x");
            assert!(!long.contains('_'), "{path}: --{long}");
        }
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let mut lines = after.lines();
        assert_eq!(lines.next(), Some("Examples:"), "{path}: its help ends with no examples");
        let examples: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
        let name = path.split(' ').next().unwrap();
        for line in &examples {
            let example = line.strip_prefix("  ").unwrap_or_else(|| panic!("{path}: not indented by two: {line}"));
            assert!(!example.starts_with(' '), "{path}: indented by more than two: {line}");
            let ours = commands(example).into_iter().filter(|words| words[0].starts_with("cta-ops-repack-"));
            assert_eq!(ours.inspect(|words| parses(words)).count().min(1), 1, "{path}: no command of ours: {line}");
        }
        assert!(examples.iter().any(|line| line.contains(name)), "{path}: {examples:?}");
        if name == "cta-ops-repack-manager" {
            assert!(after.lines().all(|line| line.chars().count() <= 98), "{path}: a line would be wrapped: {after}");
        }
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        examples.len() + below.map(|below| walk(below, &format!("{path} {}", below.get_name()))).sum::<usize>()
    }

    #[test]
    fn every_verb_says_what_it_does_explains_its_options_and_shows_examples_that_can_be_typed() {
        for (program, least) in [(Program::Manager, 40), (Program::Producer, 15), (Program::Worker, 3)] {
            let mut command = command(program);
            command.build();
            let count = walk(&command, command.get_name());
            assert!(count >= least, "only {count} examples");
        }
    }

    #[test]
    fn a_line_is_split_as_a_shell_does() {
        let line = "a 'b c' --d='e' | f - > g    # and 'so";
        assert_eq!(commands(line), [vec!["a", "b c", "--d=e"], vec!["f", "-"]]);
    }

    #[test]
    #[should_panic(expected = "retry-failed")]
    fn an_example_that_cannot_be_typed_is_found() {
        parses(&words("cta-ops-repack-manager retry-failed --no-such-option"));
    }

    #[test]
    fn the_words_that_a_filter_knows_are_all_in_its_help() {
        let mut command = command(Program::Manager);
        command.build();
        let help = |verb: &str| command.clone().find_subcommand_mut(verb).unwrap().render_long_help().to_string();
        for verb in ["ls", "requeue", "ch"] {
            let help: String = help(verb).split_whitespace().collect::<Vec<_>>().join(" ");
            let states: Vec<String> = common::journey::State::ALL.iter().map(ToString::to_string).collect();
            assert!(help.contains(&states.join(", ")), "{verb}: {help}");
            assert!(help.contains("auto, manual, error"), "{verb}: {help}");
        }
    }
}

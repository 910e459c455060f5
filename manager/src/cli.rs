//! Verbs and options.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::{ArgAction, Args, Parser, Subcommand};
use common::journey::Mode;
use common::stages::STAGES;
use common::tape::Vid;

use crate::commands::ls::sort::Key;
use crate::filter::Filter;

/// The operator's tool of the repack automation.
///
/// Exit status: 0 done, or already so; 1 failed, or something was refused or not found; 2 misuse or bad configuration.
#[derive(Debug, Parser)]
#[command(name = "cta-ops-repack-manager", version, disable_version_flag = true)]
pub struct Cli {
    /// Configuration file [default: $CTA_OPS_CONFIG, else /etc/cta-ops/cta-ops-config.yaml]
    #[arg(short = 'C', long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say more
    #[arg(short = 'V', long, global = true)]
    pub verbose: bool,
    /// JSON for machines
    #[arg(short = 'j', long, global = true)]
    pub json: bool,
    /// Print version
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create the tables beside ATRESYS's own, or bring them up to date; run again, it changes nothing
    Migrate {
        /// Try it in a transaction that is rolled back
        #[arg(long)]
        dry_run: bool,
    },
    /// The configuration file
    Config {
        /// What to do with it.
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// List tapes: how far they are, and why they wait or failed
    #[command(after_help = "Examples:
  cta-ops-repack-manager ls
  cta-ops-repack-manager ls --mode error --sort -since
  cta-ops-repack-manager ls 'V01*' --state started,repacked --older-than 2d --long
  cta-ops-repack-manager ls --pool 'raw_*' --code repack-running --jsonl
  cta-ops-repack-manager ls --all --sort -bytes --limit 20
  cta-ops-repack-manager ls --watch 10")]
    Ls(Box<Ls>),
    /// Everything known of one tape: what the row says, what CTA says, what the queue holds, and what happened
    #[command(after_help = "Examples:
  cta-ops-repack-manager show V01007
  cta-ops-repack-manager show V01007 --events 200 -V
  cta-ops-repack-manager show V01007 --no-cta --json")]
    Show(Show),
    /// Change mode, priority or responsible
    Ch(Ch),
    /// Give stopped or manual tapes to the automation again; each resumes where it stands
    Requeue {
        /// Which tapes.
        #[command(flatten)]
        on: On,
        /// Take a repack request that somebody else made as ours
        #[arg(long)]
        adopt: bool,
    },
    /// Repack again what a failed repack left on the tapes
    RetryFailed(On),
    /// Give tapes back as they were: no request, the state and pool they had
    Abort(On),
    /// Put tapes that CTA disabled while they were repacked back to REPACKING
    Unstick(On),
    /// Take tapes out of the table; their rows go to the history
    Rm(On),
    /// Keep the automation from tapes, whether they are in the table or not
    Hold {
        /// Which tapes.
        #[command(flatten)]
        on: On,
        /// For how long, such as 12h, 1d2h or 90m [default: until released]
        #[arg(long = "for", value_name = "DURATION", value_parser = crate::output::duration)]
        span: Option<TimeDelta>,
    },
    /// Take the hold from tapes
    Release(On),
    /// Keep the automation from starting work at a stage
    Pause {
        /// Which stage.
        #[command(flatten)]
        stage: StageName,
        /// For how long, such as 12h [default: until resumed]
        #[arg(long = "for", value_name = "DURATION", value_parser = crate::output::duration)]
        span: Option<TimeDelta>,
    },
    /// Let a paused stage go on
    Resume {
        /// Which stage.
        #[command(flatten)]
        stage: StageName,
    },
}

/// What to do with the configuration file.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Name everything that is wrong with it; exit status 2 if anything is
    Check {
        /// Refuse what would only be warned about, such as unknown keys
        #[arg(long)]
        strict: bool,
    },
}

/// Heading of the options that choose no tapes.
const HOW: &str = "How to list them";

/// Which tapes to list, and how.
#[derive(Debug, Args)]
pub struct Ls {
    /// Which tapes.
    #[command(flatten)]
    pub filter: Filter,
    /// Finished ones too
    #[arg(short, long, help_heading = HOW)]
    pub all: bool,
    /// Order by these: vid, state, mode, since, pool, priority, why, until, files, bytes; the largest first with - before it
    #[arg(long, help_heading = HOW, value_name = "KEY[,KEY]", value_delimiter = ',', allow_hyphen_values = true)]
    pub sort: Vec<Key>,
    /// At most so many
    #[arg(long, help_heading = HOW, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    pub limit: Option<i64>,
    /// All columns
    #[arg(short, long, help_heading = HOW)]
    pub long: bool,
    /// One JSON object a line
    #[arg(long, help_heading = HOW, conflicts_with = "json")]
    pub jsonl: bool,
    /// Look again every so many seconds, until Ctrl-C
    #[arg(long, help_heading = HOW, value_name = "SECS", num_args = 0..=1, default_missing_value = "5", conflicts_with = "jsonl",
          value_parser = seconds)]
    pub watch: Option<std::time::Duration>,
}

/// Which tape to show, and how much of it.
#[derive(Debug, Args)]
pub struct Show {
    /// The tape
    #[arg(value_name = "VID", value_parser = vid)]
    pub vid: Vid,
    /// How many of the newest events to show
    #[arg(long, value_name = "NUMBER", default_value_t = 15, value_parser = clap::value_parser!(i64).range(0..=100_000))]
    pub events: i64,
    /// Do not ask CTA
    #[arg(long)]
    pub no_cta: bool,
}

/// Which tapes to change, and what the history shall say.
#[derive(Debug, Args)]
pub struct On {
    /// The tapes
    #[arg(value_name = "VID", required = true, value_parser = vid)]
    pub vids: Vec<Vid>,
    /// Why, for the history
    #[arg(short, long, value_parser = line)]
    pub reason: Option<String>,
    /// Whether to ask.
    #[command(flatten)]
    pub consent: Consent,
}

/// Whether to ask, and whether to do it at all.
#[derive(Debug, Args, Clone, Copy)]
pub struct Consent {
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Show what would be changed, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What to change.
#[derive(Debug, Args)]
pub struct Ch {
    /// Which tapes.
    #[command(flatten)]
    pub on: On,
    /// auto: give it to the automation again; manual: take it out of the automation's hands
    #[arg(short, long, required_unless_present_any = ["priority", "responsible"])]
    pub mode: Option<Mode>,
    /// A number under `priorities` of the configuration; the larger runs first
    #[arg(short, long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub priority: Option<i16>,
    /// Who asked for the repack
    #[arg(long, value_name = "NAME", value_parser = line)]
    pub responsible: Option<String>,
}

/// Which stage.
#[derive(Debug, Args)]
pub struct StageName {
    /// start, end, quarantine, reclaim, finish, or all
    #[arg(value_name = "STAGE", value_parser = stages)]
    pub stage: Stages,
    /// Why, for the history and for those who ask why a tape waits
    #[arg(short, long, value_parser = line)]
    pub reason: Option<String>,
    /// Whether to ask.
    #[command(flatten)]
    pub consent: Consent,
}

/// Names of stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stages(pub Vec<&'static str>);

/// How often to look: from a tenth of a second to a day.
fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
    seconds.map(std::time::Duration::from_secs_f64).ok_or_else(|| "expected seconds, from 0.1 to 86400".to_owned())
}

fn vid(text: &str) -> Result<Vid, String> {
    Vid::typed(text).map_err(|why| why.to_string())
}

/// One line of text that can stand in a table.
fn line(text: &str) -> Result<String, String> {
    const LONGEST: usize = 300;
    let text = text.trim();
    if text.is_empty() {
        return Err("expected some text".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("expected one line without control characters".to_owned());
    }
    if text.chars().count() > LONGEST {
        return Err(format!("expected at most {LONGEST} characters"));
    }
    Ok(text.to_owned())
}

fn stages(text: &str) -> Result<Stages, String> {
    let names = STAGES.map(|stage| stage.name);
    if text == "all" {
        return Ok(Stages(names.to_vec()));
    }
    let found = names.into_iter().find(|name| *name == text);
    found.map(|name| Stages(vec![name])).ok_or_else(|| format!("expected {}, or all", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;
    use common::journey::State;

    use super::*;

    fn parse(words: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("manager").chain(words.split_whitespace()))
    }

    fn refused(words: &str) -> clap::Error {
        let error = parse(words).expect_err(words);
        assert_eq!(error.exit_code(), 2, "{words}: {error}");
        error
    }

    #[test]
    fn the_definitions_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn vids_are_made_upper_case_and_what_is_none_is_refused() {
        let Verb::Requeue { on, adopt } = parse("requeue v01007 V01008 --adopt").unwrap().verb else { panic!() };
        assert_eq!(on.vids.iter().map(Vid::as_str).collect::<Vec<_>>(), ["V01007", "V01008"]);
        assert!(adopt);
        for bad in ["requeue V01007;rm", "rm -- --all", "rm ../x", "abort ''"] {
            assert_eq!(refused(bad).kind(), ErrorKind::ValueValidation, "{bad}");
        }
    }

    #[test]
    fn verbs_that_change_tapes_want_at_least_one() {
        for verb in ["requeue", "retry-failed", "abort", "unstick", "rm", "hold", "release", "ch --mode auto"] {
            assert_eq!(refused(verb).kind(), ErrorKind::MissingRequiredArgument, "{verb}");
        }
    }

    #[test]
    fn ch_wants_something_to_change() {
        assert_eq!(refused("ch V01007").kind(), ErrorKind::MissingRequiredArgument);
        for good in ["--mode auto", "--priority 2", "--priority -1", "--responsible me", "--mode MANUAL --priority 1"] {
            assert!(parse(&format!("ch V01007 {good}")).is_ok(), "{good}");
        }
        refused("ch V01007 --mode off");
        refused("ch V01007 --priority high");
        refused("ch V01007 --priority 40000");
    }

    #[test]
    fn options_that_every_program_has_stand_before_or_after_the_verb() {
        for words in ["-C /x -V -j ls", "ls -C /x -V -j", "ls --config /x --verbose --json"] {
            let cli = parse(words).unwrap();
            assert_eq!(cli.config, Some(PathBuf::from("/x")));
            assert!(cli.verbose && cli.json, "{words}");
        }
        assert_eq!(parse("--version").unwrap_err().kind(), ErrorKind::DisplayVersion);
        assert_eq!(parse("--version").unwrap_err().exit_code(), 0);
        assert_eq!(parse("ls --help").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn states_and_modes_are_lists_and_unknown_ones_are_named() {
        let Verb::Ls(ls) = parse("ls --state started,Repacked --mode error V01007").unwrap().verb else { panic!() };
        assert_eq!(ls.filter.which.states, [State::Started, State::Repacked]);
        assert_eq!(ls.filter.settable.modes, [Mode::Error]);
        assert!(refused("ls --state done").to_string().contains("reclaimed"));
        refused("ls --json --jsonl");
    }

    #[test]
    fn stages_are_those_of_the_table_or_all() {
        let Verb::Pause { stage, span } = parse("pause all --for 1d2h").unwrap().verb else { panic!() };
        assert_eq!(stage.stage.0.len(), STAGES.len());
        assert_eq!(span, Some(TimeDelta::hours(26)));
        let Verb::Resume { stage } = parse("resume reclaim").unwrap().verb else { panic!() };
        assert_eq!(stage.stage.0, ["reclaim"]);
        assert!(refused("pause scan").to_string().contains("quarantine"));
        refused("pause");
    }

    #[test]
    fn a_reason_is_one_line() {
        let words = ["manager", "abort", "V01007", "--reason"];
        for bad in ["", "   ", "two\nlines", "\x1b[31mred", &"x".repeat(301)] {
            assert!(Cli::try_parse_from(words.into_iter().chain([bad])).is_err(), "{bad:?}");
        }
        assert!(Cli::try_parse_from(words.into_iter().chain(["grün, 3 Uhr"])).is_ok());
    }
}

//! Verbs and options.

use std::ffi::OsString;
use std::path::PathBuf;

use chrono::TimeDelta;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use common::journey::Mode;
use common::stages::STAGES;
use common::tape::Vid;

use crate::commands::ls::sort::Key;
use crate::examples;
use crate::filter::{Filter, Name, Settable, Which};

/// The operator's tool of the repack automation.
///
/// Exit status: 0 done, or already so; 1 failed, or something was refused or not found; 2 misuse or bad configuration.
#[derive(Debug, Parser)]
#[command(name = "cta-ops-repack-manager", version, disable_version_flag = true, after_help = examples::PROGRAM)]
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
    /// Print the version (so does a lone -V)
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl Cli {
    /// What the arguments ask for. A lone `-V` asks to say more of nothing, and is what many programs take for the version.
    ///
    /// # Errors
    /// Misuse, or a wish for help or the version.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        if let [_, only] = args.as_mut_slice()
            && only == "-V"
        {
            *only = "--version".into();
        }
        Cli::try_parse_from(args)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create the tables beside ATRESYS's own, or bring them up to date; run again, it changes nothing
    #[command(after_help = examples::MIGRATE)]
    Migrate {
        /// Try it in a transaction that is rolled back
        #[arg(long)]
        dry_run: bool,
    },
    /// Look at the configuration file
    #[command(after_help = examples::CONFIG)]
    Config {
        /// What to do with it.
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Whether everything that the automation needs is there, and what mends what is not
    ///
    /// Looks at configuration, directories, database, broker and CTA, and changes nothing. All checks are made, whatever fails
    /// first; what depends on something that fails is "not asked". It holds for the user who runs it, on this host.
    #[command(after_help = examples::CHECK_ENV)]
    CheckEnv,
    /// Whether tapes would pass prepare, and whether their repacks would succeed
    ///
    /// Prepare is tried without entering anything; then every storage class and copy on the tape is followed along its archive
    /// route to tapes that can be written to. Nothing is changed.
    #[command(after_help = examples::CHECK_TAPE)]
    CheckTape {
        /// The tapes
        #[arg(value_name = "VID", required = true, value_parser = vid)]
        vids: Vec<Vid>,
        /// The priority they would have [default: default_priority of the configuration]
        #[arg(short, long, value_name = "NUMBER", allow_negative_numbers = true)]
        priority: Option<i16>,
    },
    /// List tapes: how far they are, and why they wait or failed
    #[command(after_help = examples::LS)]
    Ls(Box<Ls>),
    /// Everything known of tapes: what the row says, what CTA says, what the queue holds, and what happened
    #[command(after_help = examples::SHOW)]
    Show(Show),
    /// What happened: events, oldest first
    #[command(after_help = examples::HISTORY)]
    History(crate::commands::history::History),
    /// Tapes and bytes by state, what was done, how long it takes, and a forecast
    #[command(after_help = examples::STATS)]
    Stats(crate::commands::stats::Stats),
    /// What the queues hold, and who takes it
    #[command(after_help = examples::QUEUES)]
    Queues,
    /// Parked messages: those that name no tape (tapes that failed are in `ls --mode error`)
    #[command(after_help = examples::DEAD)]
    Dead {
        /// What to do with them.
        #[command(subcommand)]
        verb: crate::commands::dead::Dead,
    },
    /// The files that a repack left on a tape
    #[command(after_help = examples::FAILED_FILES)]
    FailedFiles(crate::commands::failed_files::FailedFiles),
    /// Change mode, priority or responsible
    #[command(after_help = examples::CH)]
    Ch(Ch),
    /// Give stopped or manual tapes to the automation again, and wake those that wait; each resumes where it stands
    #[command(after_help = examples::REQUEUE)]
    Requeue {
        /// Which tapes.
        #[command(flatten)]
        on: On,
        /// Take a repack request that somebody else made as ours
        #[arg(long, help_heading = "How")]
        adopt: bool,
        /// Take a tape that somebody emptied and moved out of quarantine as reclaimed, if it is empty
        #[arg(long, help_heading = "How")]
        accept_empty: bool,
    },
    /// Repack again what a failed repack left on the tapes
    #[command(after_help = examples::RETRY_FAILED)]
    RetryFailed(On),
    /// Give tapes back as they were: no request, the state and pool they had
    #[command(after_help = examples::ABORT)]
    Abort(On),
    /// Put tapes that CTA disabled while they were repacked back to REPACKING
    #[command(after_help = examples::UNSTICK)]
    Unstick(On),
    /// Take tapes out of the table; their rows go to the history
    #[command(after_help = examples::RM)]
    Rm(On),
    /// Keep the automation from tapes, whether they are in the table or not
    #[command(after_help = examples::HOLD)]
    Hold {
        /// Which tapes.
        #[command(flatten)]
        on: On,
        /// For how long, such as 12h, 1d2h or 90m [default: until released]
        #[arg(long = "for", value_name = "DURATION", value_parser = crate::output::duration, help_heading = "How")]
        span: Option<TimeDelta>,
        /// Put nothing on hold: list every hold there is, also of tapes that are not in the table
        #[arg(long, conflicts_with_all = ["span", "which_names", "vidfile", "all", "reason", "yes", "dry_run"])]
        list: bool,
    },
    /// Take the hold from tapes
    #[command(after_help = examples::RELEASE)]
    Release(On),
    /// Keep the automation from starting work at a stage
    #[command(after_help = examples::PAUSE)]
    Pause {
        /// Which stage.
        #[command(flatten)]
        stage: StageName,
        /// For how long, such as 12h [default: until resumed]
        #[arg(long = "for", value_name = "DURATION", value_parser = crate::output::duration, help_heading = "How")]
        span: Option<TimeDelta>,
    },
    /// Let a paused stage go on
    #[command(after_help = examples::RESUME)]
    Resume {
        /// Which stage.
        #[command(flatten)]
        stage: StageName,
    },
    /// Check tapes as prepare does, and enter those that pass into the table
    #[command(after_help = examples::ADD)]
    Add(Add),
    /// Take over a table that ATRESYS works with: verify it, and note down what each tape is due for
    #[command(after_help = examples::IMPORT)]
    Import {
        /// Create the tables beside it first, where they are missing
        #[arg(long)]
        migrate: bool,
        /// Also ask CTA about every tape that is under way
        #[arg(long)]
        cta: bool,
        /// Verify and report only; tables that are missing are tried in a transaction that is rolled back
        #[arg(long)]
        dry_run: bool,
    },
    /// Print a script that completes words on the command line
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// For which shell
        shell: Shell,
        /// Of which program
        #[arg(long, default_value = "manager")]
        program: Program,
    },
    /// Print the manual page of this program, or write those of all programs
    #[command(after_help = examples::MAN)]
    Man {
        /// Write the pages of all programs and verbs into this directory instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// What to do with the configuration file.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Name everything that is wrong with it; exit status 2 if anything is
    #[command(after_help = examples::CONFIG_CHECK)]
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

/// Which tapes to show, and how much of them.
#[derive(Debug, Args)]
pub struct Show {
    /// The tapes
    #[arg(value_name = "VID", required = true, value_parser = vid)]
    pub vids: Vec<Vid>,
    /// How many of the newest events to show
    #[arg(long, value_name = "NUMBER", default_value_t = 15, value_parser = clap::value_parser!(i64).range(0..=100_000))]
    pub events: i64,
    /// Do not ask CTA
    #[arg(long)]
    pub no_cta: bool,
    /// Look again every so many seconds, until the tape is finished or not in the table any more, or Ctrl-C; of one tape only
    #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "5", value_parser = seconds)]
    pub watch: Option<std::time::Duration>,
}

/// Which tapes to change, and what the history shall say.
#[derive(Debug, Args)]
pub struct On {
    /// Which tapes.
    #[command(flatten)]
    pub filter: Filter,
    /// How.
    #[command(flatten)]
    pub bulk: Bulk,
}

/// What every verb that changes tapes has beside its filter.
#[derive(Debug, Clone, Default, Args)]
pub struct Bulk {
    /// Also the tapes that this file names, separated by white space; # begins a comment, - is stdin
    #[arg(long, value_name = "FILE", help_heading = "Which tapes")]
    pub vidfile: Option<PathBuf>,
    /// Every tape in the table that is not finished: must be said where nothing else says which
    #[arg(long, help_heading = "Which tapes")]
    pub all: bool,
    /// Why, for the history
    #[arg(short, long, value_name = "TEXT", value_parser = line, help_heading = "How")]
    pub reason: Option<String>,
    /// Whether to ask.
    #[command(flatten)]
    pub consent: Consent,
}

/// Whether to ask, and whether to do it at all.
#[derive(Debug, Default, Args, Clone, Copy)]
pub struct Consent {
    /// Do not ask
    #[arg(short, long, help_heading = "How")]
    pub yes: bool,
    /// Show what would be changed, change nothing
    #[arg(long, help_heading = "How")]
    pub dry_run: bool,
}

/// What to change, and of which tapes.
#[derive(Debug, Args)]
pub struct Ch {
    /// Which tapes; mode, priority and responsible are what they are to become.
    #[command(flatten)]
    pub which: Which,
    /// Only tapes that are in these modes now: auto, manual, error
    #[arg(long, value_delimiter = ',', value_name = "MODE", help_heading = "Which tapes")]
    pub from_mode: Vec<Mode>,
    /// auto: give it to the automation again; manual: take it out of the automation's hands
    #[arg(short, long, value_name = "auto|manual", help_heading = "What to change")]
    pub mode: Option<Mode>,
    /// A number under 'priorities' of the configuration; the larger runs first
    #[arg(short, long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "What to change")]
    pub priority: Option<i16>,
    /// Who asked for the repack
    #[arg(long, value_name = "NAME", value_parser = line, help_heading = "What to change")]
    pub responsible: Option<String>,
    /// How.
    #[command(flatten)]
    pub bulk: Bulk,
}

impl Ch {
    /// Which tapes to change.
    pub fn on(&self) -> On {
        let settable = Settable { modes: self.from_mode.clone(), ..Settable::default() };
        On { filter: Filter { which: self.which.clone(), settable }, bulk: self.bulk.clone() }
    }
}

/// Which tapes to enter, and how.
#[derive(Debug, Args)]
pub struct Add {
    /// Tapes to enter; - reads them from stdin
    #[arg(value_name = "VID", value_parser = listed)]
    pub names: Vec<Name>,
    /// Also the tapes that this file names, separated by white space; # begins a comment, - is stdin
    #[arg(long, value_name = "FILE")]
    pub vidfile: Option<PathBuf>,
    /// Priority, a number under 'priorities' of the configuration [default: default_priority]
    #[arg(short, long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub priority: Option<i16>,
    /// Who asks for the repack [default: your login]
    #[arg(long, value_name = "NAME", value_parser = line)]
    pub responsible: Option<String>,
    /// Why, for the history
    #[arg(short, long, value_name = "TEXT", value_parser = line, help_heading = "How")]
    pub reason: Option<String>,
    /// Whether to ask.
    #[command(flatten)]
    pub consent: Consent,
}

/// A shell that completes words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// A program of the repack automation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// The operator's tool
    Manager,
    /// The scheduler
    Producer,
    /// Who does the work
    Worker,
}

/// Which stage.
#[derive(Debug, Args)]
pub struct StageName {
    /// start, end, quarantine, reclaim, finish, or all
    #[arg(value_name = "STAGE", value_parser = stages)]
    pub stage: Stages,
    /// Why, for the history and for those who ask why a tape waits
    #[arg(short, long, value_name = "TEXT", value_parser = line, help_heading = "How")]
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

/// A VID, or stdin.
fn listed(text: &str) -> Result<Name, String> {
    if text == "-" { Ok(Name::Stdin) } else { vid(text).map(Name::Vid) }
}

pub(crate) fn vid(text: &str) -> Result<Vid, String> {
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
        let Verb::Requeue { on, adopt, .. } = parse("requeue v01007 V01008 --adopt").unwrap().verb else { panic!() };
        assert_eq!(on.filter.vids().iter().map(Vid::as_str).collect::<Vec<_>>(), ["V01007", "V01008"]);
        assert!(adopt);
        for bad in ["requeue V01007;rm", "rm -- --all", "rm ../x", "abort ''"] {
            assert_eq!(refused(bad).kind(), ErrorKind::ValueValidation, "{bad}");
        }
    }

    #[test]
    fn what_ch_sets_is_no_condition_and_what_it_selects_by_is() {
        let words = "ch V01007 --from-mode error --state started --mode auto --priority -1 --responsible me";
        let Verb::Ch(ch) = parse(words).unwrap().verb else { panic!() };
        let filter = ch.on().filter;
        assert_eq!((ch.mode, ch.priority, ch.responsible.as_deref()), (Some(Mode::Auto), Some(-1), Some("me")));
        assert_eq!((&filter.settable.modes[..], &filter.which.states[..]), (&[Mode::Error][..], &[State::Started][..]));
        assert!(filter.settable.priorities.is_empty() && filter.settable.responsibles.is_empty());
        refused("ch V01007 --mode off");
        refused("ch V01007 --priority high");
        refused("ch V01007 --priority 40000");
    }

    #[test]
    fn stdin_stands_for_tapes_where_tapes_are_changed() {
        let Verb::Rm(on) = parse("rm - V01007").unwrap().verb else { panic!() };
        assert_eq!(on.filter.which.names[0], Name::Stdin);
        assert_eq!(on.filter.vids().len(), 1);
        let Verb::Add(add) = parse("add -").unwrap().verb else { panic!() };
        assert_eq!(add.names, [Name::Stdin]);
        refused("add V01*");
        refused("show -");
    }

    #[test]
    fn options_that_every_program_has_stand_before_or_after_the_verb() {
        for words in ["-C /x -V -j ls", "ls -C /x -V -j", "ls --config /x --verbose --json"] {
            let cli = parse(words).unwrap();
            assert_eq!(cli.config, Some(PathBuf::from("/x")));
            assert!(cli.verbose && cli.json, "{words}");
        }
        for words in ["--version", "-V", "-V --version"] {
            let args = ["manager"].into_iter().chain(words.split(' ')).map(OsString::from);
            assert_eq!(Cli::read(args).unwrap_err().kind(), ErrorKind::DisplayVersion, "{words}");
        }
        assert!(Cli::read(["manager", "ls", "-V"].map(OsString::from)).unwrap().verbose);
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

//! The command line: one program with a subcommand for everything, and the same under the names that ATRESYS gave them.
//!
//! Called as `cta-ops-repack-3-end` (a link to the program) it is `cta-ops-repack-producer end`, with the same options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches as _};
use common::stages::{STAGES, Stage};
use worker::program::{Common, Exit};

use crate::monitor::Target;
use crate::{commands, prepare};

/// The program's own name.
pub const PROGRAM: &str = "cta-ops-repack-producer";

/// What the program was asked to do.
#[derive(Debug, Clone)]
pub struct Call {
    /// The name it goes by in messages: its own, or the one it was called by.
    pub name: String,
    /// Options of every program.
    pub common: Common,
    /// Print one JSON object.
    pub json: bool,
    /// What to do.
    pub verb: Verb,
}

/// What there is to do.
#[derive(Debug, Clone)]
pub enum Verb {
    /// Choose tapes.
    Scan(Scan),
    /// Enter tapes.
    Prepare(Prepare),
    /// One tick of these stages.
    Tick {
        /// One, or all.
        stages: Vec<&'static Stage>,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Tick for ever.
    Run {
        /// Only say what the first tick would do.
        dry_run: bool,
    },
    /// Export the table.
    Monitor(Monitor),
}

/// Options of scan.
#[derive(Debug, Clone, Args)]
pub struct Scan {
    /// Print the rule, and why each tape was left out (on stderr; with --json as 'rule' and 'tapes_left_out')
    #[arg(long)]
    pub explain: bool,
}

/// Options of prepare.
#[derive(Debug, Clone, Args)]
pub struct Prepare {
    /// Tapes to enter; '-' reads them from stdin
    #[arg(value_name = "VID", required_unless_present = "vidfile")]
    pub vids: Vec<String>,
    /// File of VIDs, separated by white space; '#' begins a comment
    #[arg(long, value_name = "FILE")]
    pub vidfile: Option<PathBuf>,
    /// Priority, a number of the configuration's 'priorities' [default: default_priority]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub priority: Option<i16>,
    /// Who asks for the repack [default: who you are]
    #[arg(long, value_name = "NAME", value_parser = plain_text)]
    pub responsible: Option<String>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", value_parser = plain_text)]
    pub reason: Option<String>,
    /// Check everything, enter nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of monitor.
#[derive(Debug, Clone, Args)]
pub struct Monitor {
    /// File to add to; '-' is stdout [default: ls_out of the configuration]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print on stdout instead of adding to a file
    #[arg(long, conflicts_with = "file")]
    pub stdout: bool,
    /// Count the rows, write nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Prepare {
    /// Whether it reads VIDs from stdin, as behind `scan |`.
    pub fn is_fed(&self) -> bool {
        self.vids.iter().any(|vid| vid == "-") || self.vidfile.as_deref() == Some(Path::new("-"))
    }
}

impl Monitor {
    /// Where the rows go, `configured` unless something else is said.
    pub fn target(&self, configured: &Path) -> Target {
        let file = self.file.as_deref().unwrap_or(configured);
        match (self.stdout || file == Path::new("-"), self.dry_run) {
            (_, true) => Target::Nowhere(file.to_owned()),
            (true, false) => Target::Stdout,
            (false, false) => Target::File(file.to_owned()),
        }
    }
}

fn plain_text(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        text if text.contains(char::is_control) => Err("it has control characters".to_owned()),
        text => Ok(text.to_owned()),
    }
}

const EXITS: &str = "\
Exit code 0: done, or nothing to do. 1: failed. 2: misuse or a configuration that cannot be used.";

/// A verb: its name, the name ATRESYS gave it, and what its help says.
struct Entry {
    name: &'static str,
    alias: Option<&'static str>,
    about: &'static str,
    examples: &'static str,
    args: fn(Command) -> Command,
    read: fn(&ArgMatches) -> Result<Verb, clap::Error>,
}

fn dry_run(command: Command) -> Command {
    command.arg(
        Arg::new("dry_run").long("dry-run").action(ArgAction::SetTrue).help("Say what would be done, change nothing"),
    )
}

fn entries() -> [Entry; 5] {
    [
        Entry {
            name: "scan",
            alias: Some("cta-ops-repack-0-scan"),
            about: "Choose tapes that are worth a repack, and print their VIDs; changes nothing",
            examples: "\
  {name}                      # print the VIDs on one line
  {name} --explain            # say why each other tape was left out
  {name} --json               # figures of each tape, counts of those left out

Chosen are full tapes whose usage is below tape_usage_threshold, the lowest first, as many as number_of_tapes.",
            args: Scan::augment_args,
            read: |matches| Ok(Verb::Scan(Scan::from_arg_matches(matches)?)),
        },
        Entry {
            name: "prepare",
            alias: Some("cta-ops-repack-1-prepare"),
            about: "Check tapes, and enter those that pass into the table",
            examples: "\
  {name} V01007 V01008
  {name} --vidfile tapes.txt --priority 50 --reason 'old media'
  cta-ops-repack-0-scan | {name} -
  {name} --dry-run V01007     # check only

A tape that is there already is fine; exit code 1 if any was refused. What was entered is told on stderr; when VIDs \
come from stdin and none is refused, only at a terminal.",
            args: Prepare::augment_args,
            read: |matches| Ok(Verb::Prepare(Prepare::from_arg_matches(matches)?)),
        },
        Entry {
            name: "monitor",
            alias: Some("cta-ops-repack-monitor"),
            about: "Add the table to a file for monitoring, a JSON object a line",
            examples: "\
  {name}                      # add to the file named in the configuration
  {name} --stdout | jq .tape  print it",
            args: Monitor::augment_args,
            read: |matches| Ok(Verb::Monitor(Monitor::from_arg_matches(matches)?)),
        },
        Entry {
            name: "tick",
            alias: None,
            about: "Do, once, what is due at all stages",
            examples: "\
  {name}                      # do what is due, or publish it where there is a broker
  {name} --dry-run            # say what is due",
            args: dry_run,
            read: |matches| Ok(Verb::Tick { stages: STAGES.to_vec(), dry_run: matches.get_flag("dry_run") }),
        },
        Entry {
            name: "run",
            alias: None,
            about: "Tick for ever, every interval_secs",
            examples: "\
  {name}                      # until SIGTERM or SIGINT; a second one drops what is in hand
  {name} --dry-run            # say what the first tick would do, and end",
            args: dry_run,
            read: |matches| Ok(Verb::Run { dry_run: matches.get_flag("dry_run") }),
        },
    ]
}

/// The name that ATRESYS gave a stage: scan and prepare are 0 and 1.
fn stage_alias(index: usize, stage: &Stage) -> String {
    format!("cta-ops-repack-{}-{}", index + 2, stage.name)
}

fn stage_examples() -> &'static str {
    "\
  {name}                      # do what is due at this stage, or publish it where there is a broker
  {name} --dry-run            # say what is due
  {name} --json               # one JSON object: what was considered, done, waits, was stopped"
}

/// A verb as a command of this name.
fn entry_command(entry: &Entry, called: Option<&str>) -> Command {
    // What the options' type is described by would stand in its place.
    dressed(entry.name, called, entry.about.to_owned(), entry.examples).pipe(entry.args).about(entry.about)
}

fn stage_command(stage: &'static Stage, called: Option<&str>) -> Command {
    let mut about = stage.about.to_owned();
    about[..1].make_ascii_uppercase();
    dry_run(dressed(stage.name, called, about, stage_examples()))
}

/// A command with its help: a subcommand, or, called by a name of its own, a program.
fn dressed(name: &'static str, called: Option<&str>, about: String, examples: &str) -> Command {
    let command = match called {
        None => Command::new(name),
        Some(called) => Command::new(name).bin_name(called).display_name(called),
    };
    let shown = called.map_or_else(|| format!("{PROGRAM} {name}"), str::to_owned);
    // The first line stands behind a `\` that takes its indentation away.
    let help = format!("Examples:\n  {}\n\n{EXITS}", examples.trim_start().replace("{name}", &shown));
    command.about(about).after_help(help).disable_version_flag(true)
}

trait Pipe: Sized {
    fn pipe(self, next: fn(Self) -> Self) -> Self {
        next(self)
    }
}

impl Pipe for Command {}

/// With the options that every program has.
fn common_options(command: Command) -> Command {
    let json =
        Arg::new("json").short('j').long("json").action(ArgAction::SetTrue).global(true).help("Print one JSON object");
    let about = command.get_about().cloned();
    let command = Common::augment_args(command.version(env!("CARGO_PKG_VERSION")).disable_version_flag(true)).arg(json);
    command.about(about.unwrap_or_default())
}

/// The whole program, with its subcommands.
pub fn command() -> Command {
    let mut command = common_options(Command::new(PROGRAM))
        .about("Chooses and enters tapes to repack, and sees to it that what is due is done")
        .after_help(format!(
            "Examples:\n  {PROGRAM} scan --explain\n  {PROGRAM} tick\n  {PROGRAM} run\n\n\
             The subcommands are also there as {}.\n\n{EXITS}",
            aliases().join(", ")
        ))
        .subcommand_required(true)
        .arg_required_else_help(false)
        .propagate_version(true);
    let entries = entries();
    let before = entries.iter().take(2);
    let after = entries.iter().skip(2);
    command = command.subcommands(before.map(|entry| entry_command(entry, None)));
    command = command.subcommands(STAGES.iter().map(|stage| stage_command(stage, None)));
    command.subcommands(after.map(|entry| entry_command(entry, None)))
}

/// Every name under which ATRESYS's jobs call this program.
pub fn aliases() -> Vec<String> {
    let of_stages = STAGES.iter().enumerate().map(|(index, stage)| stage_alias(index, stage));
    let mut names: Vec<String> =
        entries().iter().filter_map(|entry| entry.alias.map(str::to_owned)).chain(of_stages).collect();
    names.sort();
    names
}

/// What the arguments ask for. The first is the name the program was called by.
///
/// # Errors
/// Misuse, or a wish for help or the version; says so itself, with its exit code.
pub fn parse(args: Vec<OsString>) -> Result<Call, clap::Error> {
    let called =
        args.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or(PROGRAM);
    let called = called.to_owned();
    if let Some(entry) = entries().into_iter().find(|entry| entry.alias == Some(called.as_str())) {
        let matches = common_options(entry_command(&entry, Some(&called))).try_get_matches_from(args)?;
        return call(&called, &matches, (entry.read)(&matches)?);
    }
    for (index, stage) in STAGES.into_iter().enumerate() {
        if stage_alias(index, stage) == called {
            let matches = common_options(stage_command(stage, Some(&called))).try_get_matches_from(args)?;
            return call(&called, &matches, one_stage(stage, &matches));
        }
    }
    // To say more of nothing: what many programs take for the version. Under ATRESYS's names, which need no verb, it says more.
    let args = match args.as_slice() {
        [program, only] if only == "-V" => vec![program.clone(), "--version".into()],
        _ => args,
    };
    let matches = command().try_get_matches_from(args)?;
    let (verb, of_verb) = matches.subcommand().unwrap_or(("", &matches));
    match (entries().into_iter().find(|entry| entry.name == verb), common::stages::named(verb)) {
        (Some(entry), _) => call(PROGRAM, of_verb, (entry.read)(of_verb)?),
        (None, Some(stage)) => call(PROGRAM, of_verb, one_stage(stage, of_verb)),
        (None, None) => Err(command().error(clap::error::ErrorKind::MissingSubcommand, "a subcommand is missing")),
    }
}

fn one_stage(stage: &'static Stage, matches: &ArgMatches) -> Verb {
    Verb::Tick { stages: vec![stage], dry_run: matches.get_flag("dry_run") }
}

fn call(name: &str, matches: &ArgMatches, verb: Verb) -> Result<Call, clap::Error> {
    Ok(Call { name: name.to_owned(), common: Common::from_arg_matches(matches)?, json: matches.get_flag("json"), verb })
}

/// From the arguments to the end.
pub fn main() -> Exit {
    match parse(std::env::args_os().collect()) {
        Ok(call) => commands::run(&call),
        Err(error) => {
            let _ = error.print();
            if error.exit_code() == 0 { Exit::Done } else { Exit::Misuse }
        }
    }
}

/// The VIDs that prepare was given, by whatever way.
///
/// # Errors
/// What is wrong with them, a line each: nothing is to be done.
pub fn vids_of(options: &Prepare) -> Result<Vec<common::tape::Vid>, Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut from = |path: &Path| -> Result<usize, Vec<String>> {
        let text = prepare::text_of(path).map_err(|error| vec![format!("{error:#}")])?;
        let found = prepare::words(&text);
        words.extend(found.iter().map(|word| (*word).to_owned()));
        Ok(found.len())
    };
    if options.vids.iter().any(|vid| vid == "-") {
        // Nothing there is nothing to do: a scan before the pipe may find no tape.
        from(Path::new("-"))?;
    }
    if let Some(file) = &options.vidfile
        && from(file)? == 0
    {
        return Err(vec![format!("the file of VIDs '{}' names no tape", file.display().to_string().escape_debug())]);
    }
    let named = options.vids.iter().map(String::as_str).filter(|vid| *vid != "-");
    prepare::vids(named.chain(words.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parsed(args: &[&str]) -> Result<Call, clap::Error> {
        parse(args.iter().map(OsString::from).collect())
    }

    fn stages(verb: &Verb) -> Vec<&'static str> {
        match verb {
            Verb::Tick { stages, .. } => stages.iter().map(|stage| stage.name).collect(),
            other => panic!("{other:?} is no tick"),
        }
    }

    #[test]
    fn the_command_line_is_sound_under_every_name() {
        command().debug_assert();
        for entry in entries() {
            common_options(entry_command(&entry, entry.alias)).debug_assert();
        }
        for stage in STAGES {
            common_options(stage_command(stage, Some("cta-ops-x"))).debug_assert();
        }
    }

    #[test]
    fn help_begins_with_what_the_program_does_under_every_name() {
        let help = |command: Command| common_options(command).render_help().to_string();
        for entry in entries() {
            assert!(help(entry_command(&entry, entry.alias)).starts_with(entry.about), "{}", entry.name);
        }
        for stage in STAGES {
            let help = help(stage_command(stage, Some("cta-ops-x")));
            assert!(help.to_lowercase().starts_with(&stage.about.to_lowercase()), "{help}");
        }
    }

    #[test]
    fn the_names_are_those_of_atresys() {
        assert_eq!(
            aliases(),
            [
                "cta-ops-repack-0-scan",
                "cta-ops-repack-1-prepare",
                "cta-ops-repack-2-start",
                "cta-ops-repack-3-end",
                "cta-ops-repack-4-quarantine",
                "cta-ops-repack-5-reclaim",
                "cta-ops-repack-6-finish",
                "cta-ops-repack-monitor",
            ]
        );
    }

    #[test]
    fn each_name_does_what_the_subcommand_does() {
        for stage in ["start", "end", "quarantine", "reclaim", "finish"] {
            let alias = aliases().into_iter().find(|alias| alias.ends_with(&format!("-{stage}"))).unwrap();
            for args in [&[alias.as_str()][..], &[PROGRAM, stage], &[&format!("/usr/bin/{alias}")], &["./x", stage]] {
                let call = parsed(args).unwrap();
                assert_eq!(stages(&call.verb), [stage], "{args:?}");
            }
        }
        assert!(matches!(parsed(&["/usr/bin/cta-ops-repack-0-scan"]).unwrap().verb, Verb::Scan(_)));
        assert!(matches!(parsed(&["cta-ops-repack-1-prepare", "V1"]).unwrap().verb, Verb::Prepare(_)));
        assert!(matches!(parsed(&["cta-ops-repack-monitor"]).unwrap().verb, Verb::Monitor(_)));
        assert_eq!(stages(&parsed(&[PROGRAM, "tick"]).unwrap().verb).len(), STAGES.len());
        assert!(matches!(parsed(&[PROGRAM, "run"]).unwrap().verb, Verb::Run { dry_run: false }));
    }

    #[test]
    fn options_of_every_program_are_taken_before_and_behind_the_subcommand_and_under_every_name() {
        for args in [
            &[PROGRAM, "-C", "f.yaml", "-V", "-j", "end"][..],
            &[PROGRAM, "end", "--config", "f.yaml", "--verbose", "--json"],
            &["cta-ops-repack-3-end", "-C", "f.yaml", "-Vj"],
        ] {
            let call = parsed(args).unwrap();
            assert_eq!(call.common.config.as_deref(), Some(Path::new("f.yaml")), "{args:?}");
            assert!(call.common.verbose && call.json, "{args:?}");
        }
    }

    #[test]
    fn what_changes_something_has_a_dry_run() {
        for verb in ["start", "end", "quarantine", "reclaim", "finish", "tick"] {
            let call = parsed(&[PROGRAM, verb, "--dry-run"]).unwrap();
            assert!(matches!(call.verb, Verb::Tick { dry_run: true, .. }), "{verb}");
            assert!(matches!(parsed(&[PROGRAM, verb]).unwrap().verb, Verb::Tick { dry_run: false, .. }), "{verb}");
        }
        assert!(matches!(parsed(&[PROGRAM, "run", "--dry-run"]).unwrap().verb, Verb::Run { dry_run: true }));
        let prepare = parsed(&[PROGRAM, "prepare", "--dry-run", "V1"]).unwrap().verb;
        assert!(matches!(prepare, Verb::Prepare(Prepare { dry_run: true, .. })));
        let monitor = parsed(&[PROGRAM, "monitor", "--dry-run"]).unwrap().verb;
        assert!(matches!(monitor, Verb::Monitor(Monitor { dry_run: true, .. })));
    }

    #[test]
    fn help_and_version_name_the_program_by_the_name_it_was_called_by() {
        for alias in aliases() {
            let help = parsed(&[&alias, "--help"]).unwrap_err();
            assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
            let text = help.to_string();
            assert!(text.contains(&format!("Usage: {alias}")), "{text}");
            assert!(text.contains("Examples:") && text.contains("--config") && text.contains("--json"), "{text}");
            assert!(!text.contains("{name}"), "{text}");
            let version = parsed(&[&format!("/usr/bin/{alias}"), "--version"]).unwrap_err();
            assert_eq!(version.kind(), ErrorKind::DisplayVersion);
            assert!(version.to_string().starts_with(&format!("{alias} ")), "{version}");
        }
        for args in
            [&[PROGRAM, "-V"][..], &["./x", "-V"], &[PROGRAM, "--version"], &[PROGRAM, "tick", "-V", "--version"]]
        {
            let version = parsed(args).unwrap_err();
            assert_eq!((version.kind(), version.exit_code()), (ErrorKind::DisplayVersion, 0), "{args:?}");
            assert!(version.to_string().starts_with(PROGRAM), "{version}");
        }
        assert!(
            parsed(&["cta-ops-repack-3-end", "-V"]).unwrap().common.verbose,
            "an old job's -V says more, and works"
        );
        let help = parsed(&[PROGRAM, "reclaim", "--help"]).unwrap_err().to_string();
        assert!(help.contains(&format!("Usage: {PROGRAM} reclaim")), "{help}");
        assert!(help.contains(&format!("{PROGRAM} reclaim --dry-run")), "{help}");
    }

    #[test]
    fn misuse_is_said_and_is_exit_code_2() {
        for bad in [
            &[PROGRAM][..],
            &[PROGRAM, "begin"],
            &[PROGRAM, "start", "V01007"],
            &[PROGRAM, "start", "--all"],
            &[PROGRAM, "prepare"],
            &[PROGRAM, "prepare", "--all"],
            &[PROGRAM, "prepare", "--priority", "ten", "V1"],
            &[PROGRAM, "prepare", "--priority", "40000", "V1"],
            &[PROGRAM, "prepare", "--responsible", " ", "V1"],
            &[PROGRAM, "prepare", "--responsible", "a\nb", "V1"],
            &[PROGRAM, "monitor", "--stdout", "f"],
            &["cta-ops-repack-0-scan", "V01007"],
            &["cta-ops-repack-2-start", "start"],
        ] {
            let error = parsed(bad).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn every_help_fits_on_a_line_of_120() {
        let mut command = command();
        command.build();
        for sub in command.get_subcommands_mut() {
            let help = sub.clone().term_width(120).render_long_help().to_string();
            assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
        }
    }

    fn prepare(args: &[&str]) -> Prepare {
        match parsed(&[&["cta-ops-repack-1-prepare"], args].concat()).unwrap().verb {
            Verb::Prepare(options) => options,
            other => panic!("{other:?} is no prepare"),
        }
    }

    #[test]
    fn vids_come_from_arguments_and_files_alike() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("vids");
        let file = path.to_str().unwrap();
        std::fs::write(&path, "v2 V3 # V4\n").unwrap();
        let vids = |args: &[&str]| vids_of(&prepare(args));
        let names = |vids: Vec<common::tape::Vid>| vids.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(vids(&["v1", "V3", "--vidfile", file]).unwrap()), ["V1", "V3", "V2"]);
        assert_eq!(names(vids(&["--vidfile", file]).unwrap()), ["V2", "V3"]);
        for bad in ["V01007;rm", "V1#x", "#", "V 1", ""] {
            assert_eq!(vids(&["V1", bad]).unwrap_err().len(), 1, "{bad:?}");
        }
        assert!(vids(&["--", "--all"]).unwrap_err()[0].contains("--all"));
        std::fs::write(&path, "# none\n").unwrap();
        assert!(vids(&["V1", "--vidfile", file]).unwrap_err()[0].contains("names no tape"));
    }

    #[test]
    fn the_export_goes_where_it_is_sent() {
        let target = |args: &[&str]| match parsed(&[&["cta-ops-repack-monitor"], args].concat()).unwrap().verb {
            Verb::Monitor(options) => options.target(Path::new("/configured")),
            other => panic!("{other:?} is no monitor"),
        };
        assert_eq!(target(&[]), Target::File("/configured".into()));
        assert_eq!(target(&["f"]), Target::File("f".into()));
        assert_eq!(target(&["-"]), Target::Stdout);
        assert_eq!(target(&["--stdout"]), Target::Stdout);
        assert_eq!(target(&["--dry-run"]), Target::Nowhere("/configured".into()));
    }
}

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
  {name}                      print the VIDs on one line
  {name} --explain            say why each other tape was left out
  {name} --json               figures of each tape, counts of those left out

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
  {name} --dry-run V01007     check only

A tape that is there already is fine; exit code 1 if any was refused.",
            args: Prepare::augment_args,
            read: |matches| Ok(Verb::Prepare(Prepare::from_arg_matches(matches)?)),
        },
        Entry {
            name: "monitor",
            alias: Some("cta-ops-repack-monitor"),
            about: "Add the table to a file for monitoring, a JSON object a line",
            examples: "\
  {name}                      add to the file named in the configuration
  {name} --stdout | jq .tape  print it",
            args: Monitor::augment_args,
            read: |matches| Ok(Verb::Monitor(Monitor::from_arg_matches(matches)?)),
        },
        Entry {
            name: "tick",
            alias: None,
            about: "Do, once, what is due at all stages",
            examples: "\
  {name}                      do what is due, or publish it where there is a broker
  {name} --dry-run            say what is due",
            args: dry_run,
            read: |matches| Ok(Verb::Tick { stages: STAGES.to_vec(), dry_run: matches.get_flag("dry_run") }),
        },
        Entry {
            name: "run",
            alias: None,
            about: "Tick for ever, every interval_secs",
            examples: "\
  {name}                      until SIGTERM or SIGINT; a second one drops what is in hand
  {name} --dry-run            say what the first tick would do, and end",
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
  {name}                      do what is due at this stage, or publish it where there is a broker
  {name} --dry-run            say what is due
  {name} --json               one JSON object: what was considered, done, waits, was stopped"
}

/// A verb as a command of this name.
fn entry_command(entry: &Entry, called: Option<&str>) -> Command {
    dressed(entry.name, called, entry.about.to_owned(), entry.examples).pipe(entry.args)
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
    let help = format!("Examples:\n{}\n\n{EXITS}", examples.replace("{name}", &shown));
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
    Common::augment_args(command.version(env!("CARGO_PKG_VERSION")).disable_version_flag(true)).arg(json)
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

//! From the command line to a [`Call`], with the messages of CTA's own parser. Usage errors never reach a front end:
//! they go to stderr, exit 1.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::world::Keyset;

/// How the output is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    Table,
    /// `--json`: one array.
    Json,
    /// `--jsonl`: one object per line.
    JsonLines,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Text,
    Number,
    Truth,
    File,
}

struct Opt {
    long: &'static str,
    short: &'static str,
    takes: Takes,
    required: bool,
    since_head: bool,
}

const fn opt(long: &'static str, short: &'static str, takes: Takes) -> Opt {
    Opt { long, short, takes, required: false, since_head: false }
}

const fn required(long: &'static str, short: &'static str, takes: Takes) -> Opt {
    Opt { long, short, takes, required: true, since_head: false }
}

const fn newer(long: &'static str, short: &'static str, takes: Takes) -> Opt {
    Opt { long, short, takes, required: false, since_head: true }
}

struct Verb {
    command: &'static str,
    short: &'static str,
    sub: &'static str,
    changing: bool,
    list: bool,
    options: &'static [Opt],
}

const VID: Opt = required("--vid", "-v", Takes::Text);

const fn list(command: &'static str, short: &'static str, options: &'static [Opt]) -> Verb {
    Verb { command, short, sub: "ls", changing: false, list: true, options }
}

const fn change(command: &'static str, short: &'static str, sub: &'static str, options: &'static [Opt]) -> Verb {
    Verb { command, short, sub, changing: true, list: false, options }
}

/// Every command that is simulated.
const VERBS: &[Verb] = &[
    Verb { command: "version", short: "v", sub: "", changing: false, list: true, options: &[] },
    Verb { command: "showqueues", short: "sq", sub: "", changing: false, list: true, options: &[] },
    list(
        "tape",
        "ta",
        &[
            opt("--all", "-a", Takes::Nothing),
            opt("--vid", "-v", Takes::Text),
            opt("--mediatype", "--mt", Takes::Text),
            opt("--vendor", "--ve", Takes::Text),
            opt("--logicallibrary", "-l", Takes::Text),
            opt("--physicallibrary", "--pl", Takes::Text),
            opt("--tapepool", "-t", Takes::Text),
            opt("--virtualorganisation", "--vo", Takes::Text),
            opt("--capacity", "-c", Takes::Number),
            opt("--full", "-f", Takes::Truth),
            opt("--state", "-s", Takes::Text),
            opt("--fromcastor", "--fc", Takes::Truth),
            opt("--purchaseorder", "-p", Takes::Text),
            opt("--fxidfile", "-F", Takes::File),
            newer("--missingfilecopies", "--mfc", Takes::Nothing),
            newer("--get-storage-class-stats", "--get-storage-class-stats", Takes::Nothing),
        ],
    ),
    change(
        "tape",
        "ta",
        "ch",
        &[
            VID,
            opt("--mediatype", "--mt", Takes::Text),
            opt("--vendor", "--ve", Takes::Text),
            opt("--logicallibrary", "-l", Takes::Text),
            opt("--tapepool", "-t", Takes::Text),
            opt("--comment", "-m", Takes::Text),
            opt("--encryptionkeyname", "-k", Takes::Text),
            opt("--purchaseorder", "-p", Takes::Text),
            opt("--full", "-f", Takes::Truth),
            opt("--state", "-s", Takes::Text),
            opt("--reason", "-r", Takes::Text),
            opt("--dirtybit", "--db", Takes::Truth),
            opt("--verificationstatus", "--vs", Takes::Text),
        ],
    ),
    change("tape", "ta", "reclaim", &[VID]),
    change(
        "tape",
        "ta",
        "add",
        &[
            VID,
            required("--mediatype", "--mt", Takes::Text),
            required("--vendor", "--ve", Takes::Text),
            required("--logicallibrary", "-l", Takes::Text),
            required("--tapepool", "-t", Takes::Text),
            required("--full", "-f", Takes::Truth),
            opt("--state", "-s", Takes::Text),
            opt("--purchaseorder", "-p", Takes::Text),
            opt("--reason", "-r", Takes::Text),
            opt("--comment", "-m", Takes::Text),
        ],
    ),
    change("tape", "ta", "rm", &[VID]),
    list(
        "tapefile",
        "tf",
        &[
            opt("--vid", "-v", Takes::Text),
            opt("--id", "-I", Takes::Number),
            opt("--instance", "-i", Takes::Text),
            opt("--fxid", "-f", Takes::Text),
            newer("--diskfileid", "--dfid", Takes::Text),
            opt("--fxidfile", "-F", Takes::File),
        ],
    ),
    list(
        "recycletf",
        "rtf",
        &[
            opt("--vid", "-v", Takes::Text),
            opt("--id", "-I", Takes::Number),
            opt("--copynb", "-c", Takes::Number),
            opt("--instance", "-i", Takes::Text),
            opt("--fxid", "-f", Takes::Text),
            opt("--fxidfile", "-F", Takes::File),
            newer("--diskfileid", "--dfid", Takes::Text),
            newer("--logunixtimemin", "--ltmin", Takes::Number),
            newer("--logunixtimemax", "--ltmax", Takes::Number),
            opt("--virtualorganisation", "--vo", Takes::Text),
        ],
    ),
    list(
        "tapepool",
        "tp",
        &[
            opt("--name", "-n", Takes::Text),
            opt("--virtualorganisation", "--vo", Takes::Text),
            opt("--encrypted", "-e", Takes::Truth),
            newer("--encryptionkeyname", "-k", Takes::Text),
        ],
    ),
    change(
        "tapepool",
        "tp",
        "add",
        &[
            required("--name", "-n", Takes::Text),
            required("--virtualorganisation", "--vo", Takes::Text),
            required("--partialtapesnumber", "-p", Takes::Number),
            required("--comment", "-m", Takes::Text),
            opt("--encrypted", "-e", Takes::Truth),
            newer("--encryptionkeyname", "-k", Takes::Text),
            opt("--supply", "-s", Takes::Text),
        ],
    ),
    list("mountpolicy", "mp", &[]),
    list("virtualorganization", "vo", &[]),
    list("mediatype", "mt", &[]),
    list("logicallibrary", "ll", &[opt("--disabled", "-d", Takes::Truth)]),
    list("storageclass", "sc", &[opt("--name", "-n", Takes::Text), opt("--vid", "-v", Takes::Text)]),
    list("archiveroute", "ar", &[]),
    list(
        "failedrequest",
        "fr",
        &[
            opt("--justarchive", "-a", Takes::Nothing),
            opt("--justretrieve", "-r", Takes::Nothing),
            opt("--tapepool", "-t", Takes::Text),
            opt("--vid", "-v", Takes::Text),
            opt("--log", "-l", Takes::Nothing),
            opt("--summary", "-S", Takes::Nothing),
        ],
    ),
    change(
        "repack",
        "re",
        "add",
        &[
            required("--mountpolicy", "-u", Takes::Text),
            opt("--vid", "-v", Takes::Text),
            opt("--vidfile", "-f", Takes::File),
            opt("--bufferurl", "-b", Takes::Text),
            newer("--maxfilestoselect", "--mfts", Takes::Number),
            opt("--no-recall", "--nr", Takes::Nothing),
            opt("--justmove", "-m", Takes::Nothing),
            opt("--justaddcopies", "-a", Takes::Nothing),
        ],
    ),
    list("repack", "re", &[opt("--vid", "-v", Takes::Text)]),
    change("repack", "re", "rm", &[VID]),
    Verb { command: "repack", short: "re", sub: "err", changing: false, list: false, options: &[VID] },
];

/// Commands of CTA that are not simulated, with their short names.
const OTHER: &[(&str, &str)] = &[
    ("admin", "ad"),
    ("archivefile", "af"),
    ("activitymountrule", "amr"),
    ("diskinstance", "di"),
    ("diskinstancespace", "dis"),
    ("disksystem", "ds"),
    ("drive", "dr"),
    ("groupmountrule", "gmr"),
    ("physicallibrary", "pl"),
    ("requestermountrule", "rmr"),
];

/// A command as the front end gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Long name (`tape`).
    pub command: &'static str,
    /// Subcommand, or empty.
    pub sub: &'static str,
    /// It changes something.
    pub changing: bool,
    /// It answers with rows.
    pub list: bool,
    /// Arguments after the global options, as typed.
    pub words: Vec<String>,
    options: BTreeMap<&'static str, String>,
    files: BTreeMap<&'static str, Vec<String>>,
}

impl Call {
    /// `tape ch`.
    pub fn name(&self) -> String {
        if self.sub.is_empty() { self.command.to_owned() } else { format!("{} {}", self.command, self.sub) }
    }

    /// Value of an option by its long name; empty for a flag that is given.
    pub fn get(&self, long: &str) -> Option<&str> {
        self.options.get(long).map(String::as_str)
    }

    /// Whether an option is given.
    pub fn has(&self, long: &str) -> bool {
        self.options.contains_key(long)
    }

    /// Value of a `true` / `false` option.
    pub fn truth(&self, long: &str) -> Option<bool> {
        self.get(long).map(|value| value == "true")
    }

    /// Value of a number option.
    pub fn number(&self, long: &str) -> Option<u64> {
        self.get(long).and_then(|value| leading_number(value).ok())
    }

    /// Words of a file option.
    pub fn file(&self, long: &str) -> Option<&[String]> {
        self.files.get(long).map(Vec::as_slice)
    }

    /// Number of options given.
    pub fn count(&self) -> usize {
        self.options.len()
    }

    /// `--vid`.
    pub fn vid(&self) -> Option<&str> {
        self.get("--vid")
    }

    /// All tapes named: those of `--vidfile`, then `--vid`.
    pub fn vids(&self) -> Vec<&str> {
        let listed = self.file("--vidfile").unwrap_or_default().iter().map(String::as_str);
        listed.chain(self.vid()).collect()
    }
}

/// A whole command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Framing.
    pub format: Format,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// The command.
    pub call: Call,
}

const GENERAL_HELP: &str = "CTA Admin commands:\n\nFor each command there is a short version and a long one.\n\
    Global options: [--json|--jsonl] [--config PATH], in this order, before the command.\n";

fn general_help() -> String {
    let mut names: Vec<String> = VERBS.iter().map(|verb| format!("  {}/{}", verb.command, verb.short)).collect();
    names.extend(OTHER.iter().map(|(long, short)| format!("  {long}/{short}")));
    names.sort();
    names.dedup();
    format!("{GENERAL_HELP}{}\n", names.join("\n"))
}

fn command_help(verbs: &[&Verb]) -> String {
    let mut text = String::new();
    for verb in verbs {
        text.push_str(&format!("  cta-admin {} {}", verb.command, verb.sub));
        for option in verb.options {
            let value = if option.takes == Takes::Nothing { "" } else { " <value>" };
            let (open, close) = if option.required { ("", "") } else { ("[", "]") };
            text.push_str(&format!(" {open}{}/{}{value}{close}", option.long, option.short));
        }
        text.push('\n');
    }
    text
}

/// Parses everything after the program name.
///
/// # Errors
/// The text for stderr; the exit code is 1.
pub fn parse(args: &[String], keyset: Keyset) -> Result<Line, String> {
    let mut rest = args;
    let mut format = Format::Table;
    match rest.first().map(String::as_str) {
        Some("--json") => format = Format::Json,
        Some("--jsonl") if keyset == Keyset::Head => format = Format::JsonLines,
        _ => {}
    }
    if format != Format::Table {
        rest = &rest[1..];
        if matches!(rest.first().map(String::as_str), Some("--json" | "--jsonl")) {
            return Err(format!("--json and --jsonl are mutually exclusive\n{}", general_help()));
        }
    }
    let mut config = None;
    if rest.first().map(String::as_str) == Some("--config") {
        let Some(path) = rest.get(1) else { return Err(format!("--config expects a parameter\n{}", general_help())) };
        config = Some(PathBuf::from(path));
        rest = &rest[2..];
    }
    Ok(Line { format, config, call: parse_words(rest, keyset)? })
}

/// Parses a command without global options.
///
/// # Errors
/// The text for stderr; the exit code is 1.
pub fn parse_words(words: &[String], keyset: Keyset) -> Result<Call, String> {
    let Some(command) = words.first() else { return Err(general_help()) };
    let verbs: Vec<&Verb> = VERBS.iter().filter(|verb| verb.command == command || verb.short == command).collect();
    let Some(first) = verbs.first() else {
        return match OTHER.iter().find(|(long, short)| long == command || short == command) {
            Some((long, _)) => Err(format!("the simulated CTA has no command {long}\n")),
            None => Err(general_help()),
        };
    };
    let (verb, rest) = if first.sub.is_empty() {
        (*first, &words[1..])
    } else {
        let Some(sub) = words.get(1) else { return Err(format!("Missing subcommand\n{}", command_help(&verbs))) };
        let Some(verb) = verbs.iter().find(|verb| verb.sub == sub) else {
            return Err(format!("Invalid subcommand: {sub}\n{}", command_help(&verbs)));
        };
        (*verb, &words[2..])
    };
    let mut call = Call {
        command: verb.command,
        sub: verb.sub,
        changing: verb.changing,
        list: verb.list,
        words: words.to_vec(),
        options: BTreeMap::new(),
        files: BTreeMap::new(),
    };
    read_options(&mut call, verb, rest, keyset)?;
    match verb.options.iter().find(|option| option.required && !call.has(option.long)) {
        Some(missing) => Err(format!("Missing option: {}\n{}", missing.long, command_help(&[verb]))),
        None => Ok(call),
    }
}

fn read_options(call: &mut Call, verb: &Verb, words: &[String], keyset: Keyset) -> Result<(), String> {
    let help = || command_help(&[verb]);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let known = |option: &&Opt| {
            (option.long == word || option.short == word) && (keyset == Keyset::Head || !option.since_head)
        };
        let Some(option) = verb.options.iter().find(known) else {
            return Err(format!("Invalid option: {word}\n{}", help()));
        };
        let mut value = String::new();
        if option.takes != Takes::Nothing {
            let Some(given) = words.next() else { return Err(format!("{word} expects a parameter: {}", help())) };
            value.clone_from(given);
        }
        match option.takes {
            Takes::Truth if value != "true" && value != "false" => {
                return Err(format!("{value} is not a boolean value: {}", help()));
            }
            Takes::Number => {
                leading_number(&value).map_err(|why| format!("{value} {why}: {}", help()))?;
            }
            Takes::File => {
                let listed = read_words(&value, option.long == "--fxidfile")?;
                call.files.entry(option.long).or_insert(listed);
            }
            _ => {}
        }
        call.options.entry(option.long).or_insert(value);
    }
    Ok(())
}

/// A number up to the first character that is no digit.
fn leading_number(text: &str) -> Result<u64, &'static str> {
    let text = text.trim_start();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        return Err("is not a valid unsigned integer");
    }
    if text.starts_with('-') {
        return Err("is out of range");
    }
    digits[..end].parse().map_err(|_| "is out of range")
}

fn read_words(path: &str, only_fids: bool) -> Result<Vec<String>, String> {
    let Ok(text) = std::fs::read_to_string(path) else { return Err(format!("Unable to open file {path}\n")) };
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
    let words = lines.flat_map(str::split_whitespace).map(str::to_owned);
    Ok(words.filter(|word| !only_fids || word.starts_with("fid=")).collect())
}

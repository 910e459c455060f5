//! The command lines as values. A value prints itself as an operator would type it.

use std::fmt;
use std::path::Path;

use crate::tape::Vid;

/// Which front end a command goes to, where a site has two (CTA's `cta.operation_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frontend {
    /// `cta_admin.user_config`: entering REPACKING, and queries.
    User,
    /// `cta_admin.repack_config`: leaving REPACKING, and every `repack` command.
    Repack,
}

/// A command that changes something in CTA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `tape ch --state`.
    SetState {
        /// The tape.
        vid: Vid,
        /// `ACTIVE`, `DISABLED` or `REPACKING`.
        to: &'static str,
        /// Required by CTA for every state but ACTIVE, where leaving it out erases the old one.
        reason: String,
        /// Depends on the state the tape is in.
        frontend: Frontend,
    },
    /// `tape ch --tapepool`.
    SetPool {
        /// The tape.
        vid: Vid,
        /// Target pool.
        pool: String,
    },
    /// `repack add`.
    RepackAdd {
        /// The tape.
        vid: Vid,
        /// Mount policy of the tape's priority.
        mount_policy: String,
        /// `--justmove`.
        just_move: bool,
        /// `--bufferurl`.
        buffer_url: Option<String>,
        /// `--maxfilestoselect`.
        max_files: Option<u64>,
    },
    /// `repack rm`.
    RepackRm {
        /// The tape.
        vid: Vid,
    },
    /// `tape reclaim`: irreversible.
    Reclaim {
        /// The tape.
        vid: Vid,
    },
}

/// A command that only asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// `version`, on one of the front ends.
    Version(Frontend),
    /// `tape ls --all`.
    Tapes,
    /// `tape ls --vid`.
    Tape(Vid),
    /// `tape ls --vid --get-storage-class-stats` (CTA 5.11.20 and later).
    TapeStatistics(Vid),
    /// `tapefile ls --vid`.
    TapeFiles(Vid),
    /// `tapefile ls --id`: every copy of one archive file.
    ArchiveFile(u64),
    /// `recycletf ls --vid`.
    RecycleLog(Vid),
    /// `repack ls`.
    Repacks,
    /// `repack ls --vid`.
    Repack(Vid),
    /// `tapepool ls`.
    TapePools,
    /// `mountpolicy ls`.
    MountPolicies,
    /// `virtualorganization ls`.
    VirtualOrganizations,
    /// `archiveroute ls`.
    ArchiveRoutes,
    /// `mediatype ls`.
    MediaTypes,
    /// `logicallibrary ls`.
    LogicalLibraries,
    /// `storageclass ls`.
    StorageClasses,
    /// `tape ls` of the ACTIVE tapes of a pool that are not full: those that CTA may write to.
    WritableTapes(String),
}

impl Query {
    /// What is asked for, in a word or two: few, and without particulars of a tape.
    pub fn kind(&self) -> &'static str {
        match self {
            Query::Version(_) => "version",
            Query::Tapes | Query::WritableTapes(_) => "tape-ls-all",
            Query::Tape(_) | Query::TapeStatistics(_) => "tape-ls",
            Query::TapeFiles(_) | Query::ArchiveFile(_) => "tapefile-ls",
            Query::RecycleLog(_) => "recycletf-ls",
            Query::Repacks => "repack-ls-all",
            Query::Repack(_) => "repack-ls",
            Query::TapePools => "tapepool-ls",
            Query::MountPolicies => "mountpolicy-ls",
            Query::VirtualOrganizations => "virtualorganization-ls",
            Query::ArchiveRoutes => "archiveroute-ls",
            Query::MediaTypes => "mediatype-ls",
            Query::LogicalLibraries => "logicallibrary-ls",
            Query::StorageClasses => "storageclass-ls",
        }
    }
}

fn words(fixed: &[&str], vid: &Vid) -> Vec<String> {
    let mut args: Vec<String> = fixed.iter().map(|word| (*word).to_owned()).collect();
    args.extend(["--vid".to_owned(), vid.to_string()]);
    args
}

impl Command {
    /// The short name under which events and the task row remember it.
    pub fn kind(&self) -> &'static str {
        match self {
            Command::SetState { to, .. } => match *to {
                "REPACKING" => "set-repacking",
                "DISABLED" => "set-disabled",
                _ => "set-active",
            },
            Command::SetPool { .. } => "set-pool",
            Command::RepackAdd { .. } => "repack-add",
            Command::RepackRm { .. } => "repack-rm",
            Command::Reclaim { .. } => "reclaim",
        }
    }

    /// The tape it changes.
    pub fn vid(&self) -> &Vid {
        match self {
            Command::SetState { vid, .. }
            | Command::SetPool { vid, .. }
            | Command::RepackAdd { vid, .. }
            | Command::RepackRm { vid }
            | Command::Reclaim { vid } => vid,
        }
    }

    /// The front end it must go to.
    pub fn frontend(&self) -> Frontend {
        match self {
            Command::SetState { frontend, .. } => *frontend,
            Command::SetPool { .. } | Command::Reclaim { .. } => Frontend::User,
            Command::RepackAdd { .. } | Command::RepackRm { .. } => Frontend::Repack,
        }
    }

    /// Arguments after the global options.
    pub fn args(&self) -> Vec<String> {
        match self {
            Command::SetState { vid, to, reason, .. } => {
                let mut args = words(&["tape", "ch"], vid);
                args.extend(["--state", to, "--reason", reason].map(str::to_owned));
                args
            }
            Command::SetPool { vid, pool } => {
                let mut args = words(&["tape", "ch"], vid);
                args.extend(["--tapepool", pool].map(str::to_owned));
                args
            }
            Command::RepackAdd { vid, mount_policy, just_move, buffer_url, max_files } => {
                let mut args = words(&["repack", "add"], vid);
                args.extend(["--mountpolicy", mount_policy].map(str::to_owned));
                if *just_move {
                    args.push("--justmove".to_owned());
                }
                if let Some(url) = buffer_url {
                    args.extend(["--bufferurl", url].map(str::to_owned));
                }
                if let Some(max) = max_files {
                    args.extend(["--maxfilestoselect".to_owned(), max.to_string()]);
                }
                args
            }
            Command::RepackRm { vid } => words(&["repack", "rm"], vid),
            Command::Reclaim { vid } => words(&["tape", "reclaim"], vid),
        }
    }
}

impl Query {
    /// The front end it goes to: `repack` to the one that has it, `version` to the one asked, the rest to the users'.
    pub fn frontend(&self) -> Frontend {
        match self {
            Query::Version(frontend) => *frontend,
            Query::Repacks | Query::Repack(_) => Frontend::Repack,
            _ => Frontend::User,
        }
    }

    /// Arguments after the global options.
    pub fn args(&self) -> Vec<String> {
        let plain = |fixed: &[&str]| fixed.iter().map(|word| (*word).to_owned()).collect();
        match self {
            Query::Version(_) => plain(&["version"]),
            Query::Tapes => plain(&["tape", "ls", "--all"]),
            Query::Tape(vid) => words(&["tape", "ls"], vid),
            Query::TapeStatistics(vid) => {
                let mut args = words(&["tape", "ls"], vid);
                args.push("--get-storage-class-stats".to_owned());
                args
            }
            Query::TapeFiles(vid) => words(&["tapefile", "ls"], vid),
            Query::ArchiveFile(id) => {
                ["tapefile", "ls", "--id"].map(str::to_owned).into_iter().chain([id.to_string()]).collect()
            }
            Query::RecycleLog(vid) => words(&["recycletf", "ls"], vid),
            Query::Repacks => plain(&["repack", "ls"]),
            Query::Repack(vid) => words(&["repack", "ls"], vid),
            Query::TapePools => plain(&["tapepool", "ls"]),
            Query::MountPolicies => plain(&["mountpolicy", "ls"]),
            Query::VirtualOrganizations => plain(&["virtualorganization", "ls"]),
            Query::ArchiveRoutes => plain(&["archiveroute", "ls"]),
            Query::MediaTypes => plain(&["mediatype", "ls"]),
            Query::LogicalLibraries => plain(&["logicallibrary", "ls"]),
            Query::StorageClasses => plain(&["storageclass", "ls"]),
            Query::WritableTapes(pool) => {
                plain(&["tape", "ls", "--tapepool", pool, "--state", "ACTIVE", "--full", "false"])
            }
        }
    }
}

/// A command for a person to type: `cta-admin`, the configuration if one is named, these words.
pub fn typed(config: Option<&Path>, words: &[&str]) -> String {
    as_typed(config, &words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
}

/// As typed in a shell: `cta-admin`, the configuration if one is named, the arguments.
pub(super) fn as_typed(config: Option<&Path>, args: &[String]) -> String {
    let config = config.map(|path| path.to_string_lossy().into_owned());
    let global = config.iter().flat_map(|path| ["--config", path]);
    let mut line = "cta-admin".to_owned();
    for arg in global.chain(args.iter().map(String::as_str)) {
        line.push(' ');
        line.push_str(&quoted(arg));
    }
    line
}

/// A word for a shell: as it is, in single quotes, or, with control characters in it, in the form that escapes them.
fn quoted(arg: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@".contains(&b);
    if !arg.is_empty() && arg.bytes().all(plain) {
        return arg.to_owned();
    }
    if !arg.contains(char::is_control) {
        return format!("'{}'", arg.replace('\'', r"'\''"));
    }
    let mut word = "$'".to_owned();
    for c in arg.chars() {
        match c {
            '\'' | '\\' => word.extend(['\\', c]),
            '\n' => word.push_str(r"\n"),
            c if c.is_control() => word.extend(format!(r"\u{:04x}", u32::from(c)).chars()),
            c => word.push(c),
        }
    }
    word + "'"
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&as_typed(None, &self.args()))
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&as_typed(None, &self.args()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vid() -> Vid {
        "V01007".parse().unwrap()
    }

    fn set_state(to: &'static str, reason: &str) -> Command {
        Command::SetState { vid: vid(), to, reason: reason.to_owned(), frontend: Frontend::User }
    }

    fn repack_add() -> Command {
        Command::RepackAdd {
            vid: vid(),
            mount_policy: "repack_low".to_owned(),
            just_move: true,
            buffer_url: Some("root://eos//eos/buffer".to_owned()),
            max_files: Some(1000),
        }
    }

    #[test]
    fn changing_commands_read_as_an_operator_types_them() {
        let rows = [
            (
                set_state("REPACKING", "repack campaign 12"),
                "tape ch --vid V01007 --state REPACKING --reason 'repack campaign 12'",
            ),
            (Command::SetPool { vid: vid(), pool: "quarantine".into() }, "tape ch --vid V01007 --tapepool quarantine"),
            (
                repack_add(),
                "repack add --vid V01007 --mountpolicy repack_low --justmove --bufferurl root://eos//eos/buffer --maxfilestoselect 1000",
            ),
            (
                Command::RepackAdd {
                    vid: vid(),
                    mount_policy: "m".into(),
                    just_move: false,
                    buffer_url: None,
                    max_files: None,
                },
                "repack add --vid V01007 --mountpolicy m",
            ),
            (Command::RepackRm { vid: vid() }, "repack rm --vid V01007"),
            (Command::Reclaim { vid: vid() }, "tape reclaim --vid V01007"),
        ];
        for (command, expected) in rows {
            assert_eq!(command.to_string(), format!("cta-admin {expected}"));
            assert_eq!(command.vid(), &vid());
        }
    }

    #[test]
    fn queries_read_as_an_operator_types_them() {
        let rows = [
            (Query::Version(Frontend::User), "version"),
            (Query::Tapes, "tape ls --all"),
            (Query::Tape(vid()), "tape ls --vid V01007"),
            (Query::TapeStatistics(vid()), "tape ls --vid V01007 --get-storage-class-stats"),
            (Query::TapeFiles(vid()), "tapefile ls --vid V01007"),
            (Query::ArchiveFile(4_294_967_307), "tapefile ls --id 4294967307"),
            (Query::RecycleLog(vid()), "recycletf ls --vid V01007"),
            (Query::Repacks, "repack ls"),
            (Query::Repack(vid()), "repack ls --vid V01007"),
            (Query::TapePools, "tapepool ls"),
            (Query::MountPolicies, "mountpolicy ls"),
            (Query::VirtualOrganizations, "virtualorganization ls"),
            (Query::ArchiveRoutes, "archiveroute ls"),
            (Query::MediaTypes, "mediatype ls"),
            (Query::LogicalLibraries, "logicallibrary ls"),
            (Query::StorageClasses, "storageclass ls"),
            (Query::WritableTapes("a b".into()), "tape ls --tapepool 'a b' --state ACTIVE --full false"),
        ];
        for (query, expected) in rows {
            assert_eq!(query.to_string(), format!("cta-admin {expected}"));
        }
    }

    #[test]
    fn repack_commands_go_to_the_repack_front_end_and_all_others_to_the_users() {
        for command in [repack_add(), Command::RepackRm { vid: vid() }] {
            assert_eq!(command.frontend(), Frontend::Repack, "{command}");
        }
        for command in [Command::Reclaim { vid: vid() }, Command::SetPool { vid: vid(), pool: "p".into() }] {
            assert_eq!(command.frontend(), Frontend::User, "{command}");
        }
        for query in [Query::Repacks, Query::Repack(vid()), Query::Version(Frontend::Repack)] {
            assert_eq!(query.frontend(), Frontend::Repack, "{query}");
        }
        for query in [Query::Tapes, Query::Tape(vid()), Query::TapeFiles(vid()), Query::Version(Frontend::User)] {
            assert_eq!(query.frontend(), Frontend::User, "{query}");
        }
    }

    #[test]
    fn a_change_of_state_goes_to_the_front_end_it_names() {
        let leave = Command::SetState { vid: vid(), to: "ACTIVE", reason: "r".into(), frontend: Frontend::Repack };
        assert_eq!(leave.frontend(), Frontend::Repack);
        assert_eq!(set_state("REPACKING", "r").frontend(), Frontend::User);
    }

    #[test]
    fn every_kind_of_command_has_a_short_name_of_its_own() {
        let kinds = [
            (set_state("REPACKING", "r"), "set-repacking"),
            (set_state("DISABLED", "r"), "set-disabled"),
            (set_state("ACTIVE", "r"), "set-active"),
            (Command::SetPool { vid: vid(), pool: "p".into() }, "set-pool"),
            (repack_add(), "repack-add"),
            (Command::RepackRm { vid: vid() }, "repack-rm"),
            (Command::Reclaim { vid: vid() }, "reclaim"),
        ];
        for (command, kind) in kinds {
            assert_eq!(command.kind(), kind);
        }
    }

    #[test]
    fn words_are_quoted_so_that_a_shell_gives_them_back_unchanged_and_a_terminal_obeys_nothing() {
        let rows = [
            ("plain-1_2./:=@", "plain-1_2./:=@"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's $HOME", r"'it'\''s $HOME'"),
            ("a\nb", r"$'a\nb'"),
            ("\u{1b}[2J it's", r"$'\u001b[2J it\'s'"),
        ];
        for (word, expected) in rows {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn the_configuration_is_part_of_the_line_where_one_is_used() {
        let line = as_typed(Some(Path::new("/etc/cta/repack.conf")), &Query::Repacks.args());
        assert_eq!(line, "cta-admin --config /etc/cta/repack.conf repack ls");
    }
}

//! The command lines as values. A value prints itself as an operator would type it.

use std::fmt;

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
            Query::RecycleLog(vid) => words(&["recycletf", "ls"], vid),
            Query::Repacks => plain(&["repack", "ls"]),
            Query::Repack(vid) => words(&["repack", "ls"], vid),
            Query::TapePools => plain(&["tapepool", "ls"]),
            Query::MountPolicies => plain(&["mountpolicy", "ls"]),
            Query::VirtualOrganizations => plain(&["virtualorganization", "ls"]),
            Query::ArchiveRoutes => plain(&["archiveroute", "ls"]),
        }
    }
}

/// As typed in a shell: words with anything but plain characters in single quotes.
fn typed(f: &mut fmt::Formatter<'_>, args: &[String]) -> fmt::Result {
    f.write_str("cta-admin")?;
    for arg in args {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@".contains(&b);
        if !arg.is_empty() && arg.bytes().all(plain) {
            write!(f, " {arg}")?;
        } else {
            write!(f, " '{}'", arg.replace('\'', r"'\''"))?;
        }
    }
    Ok(())
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        typed(f, &self.args())
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        typed(f, &self.args())
    }
}

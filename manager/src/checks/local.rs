//! What can be checked without asking anybody: the configuration file, who asks, and the directories on this host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use common::settings::{Loaded, Problems, Settings};
use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};

use super::{Check, Verdict};
use crate::output::bytes;

/// Less free space than this is worth a word: a listing of the largest tape has about as much.
const LITTLE: u64 = 1 << 30;

/// The programs that log to a file.
const PROGRAMS: [&str; 2] = [producer::cli::PROGRAM, worker::cli::PROGRAM];

/// The configuration file, when it can be used: one check for the file, one for each warning.
pub fn configuration(path: &Path, loaded: &Loaded) -> Vec<Check> {
    let file = path.display().to_string();
    if loaded.warnings.is_empty() {
        return vec![Check::ok("configuration", file, "can be used")];
    }
    let each = loaded.warnings.iter().map(|warning| {
        let mend = if warning.expected.contains("chmod") {
            format!("chmod o-r {file}")
        } else {
            format!("correct it in {file}; 'cta-ops-repack-manager config check' shows all")
        };
        Check::warning("configuration", file.clone(), warning.to_string(), mend)
    });
    each.collect()
}

/// The configuration file, when it cannot be used.
pub fn unusable(path: &Path, problems: &Problems) -> Vec<Check> {
    let file = path.display().to_string();
    let mend = format!("correct {file}; 'cta-ops-repack-manager config check' shows all that is wrong with it");
    let each = problems
        .errors
        .iter()
        .map(|error| Check::fails("configuration", file.clone(), error.to_string(), mend.clone()));
    each.collect()
}

/// The user as whom the packaged units, timers and jobs run.
pub const SERVICE: &str = "cta-ops";

/// Who runs this check, and as whom the services run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// As in the history.
    actor: String,
    /// The user whose rights are judged.
    login: String,
    root: bool,
    /// This host has the packages' user.
    service: bool,
}

impl Asker {
    /// The user of this process, called `actor` in the history.
    pub fn new(actor: &str) -> Asker {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Asker::of(actor, rustix::process::geteuid().is_root(), &users)
    }

    fn of(actor: &str, root: bool, users: &str) -> Asker {
        let service = users.lines().any(|line| line.split(':').next() == Some(SERVICE));
        let login = actor.split('@').next().unwrap_or(actor);
        // `alice(root)` is alice with the rights of root.
        let login = login.split_once('(').map_or(login, |(_, rest)| rest.trim_end_matches(')'));
        Asker { actor: actor.to_owned(), login: login.to_owned(), root, service }
    }

    /// Who has to own what the services write to: root may write anyway.
    fn owner(&self) -> &str {
        match (self.root, self.service) {
            (true, true) => SERVICE,
            (true, false) => "USER",
            (false, _) => &self.login,
        }
    }
}

/// As whom all this was asked: files and tickets of another user may differ, and root may do everything.
pub fn user(asker: &Asker) -> Check {
    if !asker.root {
        return Check::ok("user", "", format!("{}; what follows holds for this user on this host", asker.actor));
    }
    let (who, mend) = if asker.service {
        let command = format!("sudo -u {SERVICE} cta-ops-repack-manager check-env");
        (
            SERVICE.to_owned(),
            format!("{command} (without sudo: runuser -u {SERVICE} -- cta-ops-repack-manager check-env)"),
        )
    } else {
        let command =
            "runuser -u USER -- cta-ops-repack-manager check-env, USER being the one of your services or jobs";
        (format!("another user ({SERVICE} where the packages are installed)"), command.to_owned())
    };
    let found = format!(
        "{}: you are root, the services run as {who}; what root may do, that user may not be allowed to",
        asker.actor
    );
    Check::warning("user", "", found, mend)
}

/// A directory that programs write to, and what for.
struct Place {
    directory: PathBuf,
    keys: Vec<&'static str>,
    /// It is made where it is missing: the logs' by every program that starts, the listings' by the worker.
    made: bool,
    /// The files in it that have fixed names, by what they are.
    files: Vec<(&'static str, PathBuf)>,
}

/// Every directory of the configuration, each once whatever is written there, and the files in it that are there.
pub fn directories(settings: &Settings, asker: &Asker) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    let mut missing: Vec<PathBuf> = Vec::new();
    for place in places(settings) {
        let subject = format!("{} ({})", place.keys.join(", "), place.directory.display());
        if let Some(above) = missing.iter().find(|above| place.directory.starts_with(above)) {
            let why = format!("{} is missing, see there", above.display());
            checks.push(Check::not_asked("directory", subject, why));
            continue;
        }
        let of_directory = check(&place, subject, asker);
        if of_directory.result == Verdict::Fails && !place.directory.exists() {
            missing.push(place.directory.clone());
        }
        checks.push(of_directory);
        checks.extend(place.files.iter().filter_map(|(key, file)| of_file(key, file, asker)));
    }
    checks
}

fn places(settings: &Settings) -> Vec<Place> {
    let parent =
        |path: &Path| path.parent().filter(|path| !path.as_os_str().is_empty()).map_or(".".into(), PathBuf::from);
    let listings = fixed(&parent(Path::new(&settings.listing.existing_files_on_tape)));
    let logs = PROGRAMS.map(|program| ("log", common::logging::log_path(program, settings)));
    let of_file = |key, path: &Path| Place {
        directory: parent(path),
        keys: vec![key],
        made: false,
        files: vec![(key, path.to_owned())],
    };
    let log_dir = settings.logging.log_dir.clone();
    let all = [
        Place { directory: log_dir, keys: vec!["log_dir"], made: false, files: logs.into() },
        Place { directory: listings, keys: vec!["existing_files_on_tape"], made: true, files: Vec::new() },
        of_file("repack-end-json-path", &settings.repack_end_json_path),
        of_file("ls_out", &settings.monitor_ls_out),
    ];
    let mut places: Vec<Place> = Vec::new();
    for place in all {
        match places.iter_mut().find(|there| there.directory == place.directory) {
            Some(there) => {
                there.keys.extend(place.keys);
                there.files.extend(place.files);
                there.made &= place.made;
            }
            None => places.push(place),
        }
    }
    places
}

/// The part of a pattern's directory that does not depend on tape and date.
fn fixed(directory: &Path) -> PathBuf {
    directory.components().take_while(|part| !part.as_os_str().to_string_lossy().contains('$')).collect()
}

/// The nearest directory above that is there.
fn existing(directory: &Path) -> &Path {
    directory.ancestors().find(|above| above.exists()).unwrap_or(directory)
}

fn check(place: &Place, subject: String, asker: &Asker) -> Check {
    let install = format!("install -d -o {} {}", asker.owner(), place.directory.display());
    let metadata = match fs::metadata(&place.directory) {
        Ok(metadata) => metadata,
        Err(error) => {
            let above = existing(&place.directory);
            if place.made && error.kind() == std::io::ErrorKind::NotFound && above.is_dir() && writable(above).is_ok() {
                return Check::ok("directory", subject, "is not there yet; it is made when it is needed");
            }
            return Check::fails("directory", subject, format!("cannot be used: {error}"), install);
        }
    };
    if !metadata.is_dir() {
        let mend = format!("set {} of the configuration to a place in a directory", place.keys.join(" and "));
        return Check::fails("directory", subject, "is not a directory", mend);
    }
    if let Err(error) = writable(&place.directory) {
        return Check::fails("directory", subject, format!("cannot be written to: {error}"), install);
    }
    space(place, subject)
}

/// What is wrong with a file that is there already; none: nothing, or it is not there.
fn of_file(key: &str, file: &Path, asker: &Asker) -> Option<Check> {
    let subject = format!("{key} ({})", file.display());
    if file.is_dir() {
        let mend = match key {
            "log" => format!("rmdir {}", file.display()),
            key => format!("set {key} of the configuration to a file, not to a directory"),
        };
        return Some(Check::fails("directory", subject, "is a directory, and should be a file", mend));
    }
    let error = match accessat(CWD, file, Access::WRITE_OK, AtFlags::EACCESS) {
        Err(error) if file.exists() => error,
        _ => return None,
    };
    let mend = format!("chown {} {}", asker.owner(), file.display());
    Some(Check::fails("directory", subject, format!("cannot be written to: {error}"), mend))
}

fn writable(directory: &Path) -> rustix::io::Result<()> {
    accessat(CWD, directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
}

fn space(place: &Place, subject: String) -> Check {
    let Ok(disk) = statvfs(&place.directory) else {
        return Check::ok("directory", subject, "can be written to");
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let found = format!("can be written to, {} bytes free", bytes(i64::try_from(free).unwrap_or(i64::MAX)));
    if free < LITTLE {
        return Check::warning("directory", subject, found, format!("make room: df -h {}", place.directory.display()));
    }
    Check::ok("directory", subject, found)
}

/// Whether a file can be read.
///
/// # Errors
/// Why not.
pub fn readable(path: &Path) -> Result<(), String> {
    // Asked before opening: opening a FIFO would wait for a writer.
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    fs::File::open(path).map(|_| ()).map_err(|error| error.to_string())
}

/// Whether a program can be run.
///
/// # Errors
/// Why not.
pub fn executable(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    let nobody = metadata.permissions().mode() & 0o111 == 0;
    if nobody || accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_err() {
        return Err("may not be executed".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_a_listings_directory_that_is_always_the_same_is_checked() {
        assert_eq!(fixed(Path::new("/var/log/repack")), Path::new("/var/log/repack"));
        assert_eq!(fixed(Path::new("/var/log/$DATE/x")), Path::new("/var/log"));
    }

    const PACKAGED: &str = "root:x:0:0::/:/bin/sh\ncta-ops:x:998:998::/:/usr/sbin/nologin\n";

    #[test]
    fn who_asks_is_named() {
        let check = user(&Asker::of("alice@h1", false, PACKAGED));
        assert_eq!((check.result, check.mend), (Verdict::Ok, None));
        assert!(check.found.contains("alice@h1"), "{}", check.found);
    }

    #[test]
    fn root_is_warned_and_told_what_to_run_instead() {
        let packaged = user(&Asker::of("alice(root)@h1", true, PACKAGED));
        assert_eq!(packaged.result, Verdict::Warning);
        assert!(packaged.found.contains("you are root, the services run as cta-ops"), "{}", packaged.found);
        let mend = packaged.mend.unwrap();
        assert!(mend.starts_with("sudo -u cta-ops cta-ops-repack-manager check-env"), "{mend}");
        assert!(mend.contains("runuser -u cta-ops -- "), "{mend}");
        let elsewhere = user(&Asker::of("root@h1", true, "xcta-ops:x:1:1::/:/bin/sh\n"));
        assert_eq!(elsewhere.result, Verdict::Warning);
        assert!(elsewhere.mend.unwrap().starts_with("runuser -u USER -- "), "a user that is not there helps nobody");
    }

    #[test]
    fn what_is_made_belongs_to_the_services_and_not_to_root() {
        for (actor, root, users, owner) in [
            ("alice@h1", false, PACKAGED, "alice"),
            ("alice(cta-ops)@h1", false, PACKAGED, "cta-ops"),
            ("alice(root)@h1", true, PACKAGED, "cta-ops"),
            ("root@h1", true, "", "USER"),
        ] {
            assert_eq!(Asker::of(actor, root, users).owner(), owner, "{actor}");
        }
    }

    fn in_directory(directory: &Path) -> Settings {
        let mut settings = Settings::default();
        settings.logging.log_dir = directory.to_owned();
        settings.listing.existing_files_on_tape = directory.join("list-$TAPE").display().to_string();
        settings.repack_end_json_path = directory.join("end.log");
        settings.monitor_ls_out = directory.join("ls.log");
        settings
    }

    #[test]
    fn one_missing_directory_is_one_failure_whatever_is_written_there() {
        let home = tempfile::tempdir().unwrap();
        let mut settings = in_directory(&home.path().join("none"));
        let asker = Asker::of("alice@h1", false, "");
        let [check] = &directories(&settings, &asker)[..] else { panic!("one directory") };
        assert_eq!(check.result, Verdict::Fails);
        assert!(
            check.subject.starts_with("log_dir, existing_files_on_tape, repack-end-json-path, ls_out ("),
            "{check:?}"
        );
        assert!(check.mend.as_ref().unwrap().starts_with("install -d -o alice "), "{check:?}");
        // What lies below it is not there for the same reason.
        settings.monitor_ls_out = home.path().join("none/below/ls.log");
        let results: Vec<Verdict> = directories(&settings, &asker).iter().map(|check| check.result).collect();
        assert_eq!(results, [Verdict::Fails, Verdict::NotAsked]);
        std::fs::create_dir(home.path().join("none")).unwrap();
        settings.monitor_ls_out = home.path().join("none/ls.log");
        let results: Vec<Verdict> = directories(&settings, &asker).iter().map(|check| check.result).collect();
        assert_ne!(results, [Verdict::Fails]);
        assert_eq!(results.len(), 1);
    }

    #[test]
    fn the_programs_own_logs_are_looked_at_where_they_are_there() {
        let home = tempfile::tempdir().unwrap();
        let settings = in_directory(home.path());
        let asker = Asker::of("alice@h1", false, "");
        let wrong = |settings: &Settings| -> Vec<Check> {
            directories(settings, &asker).into_iter().filter(|check| check.result == Verdict::Fails).collect()
        };
        for program in PROGRAMS {
            let log = common::logging::log_path(program, &settings);
            std::fs::write(&log, "").unwrap();
            assert_eq!(wrong(&settings), []);
            std::fs::remove_file(&log).unwrap();
            // What not even root can write to.
            std::fs::create_dir(&log).unwrap();
            let [check] = &wrong(&settings)[..] else { panic!("{program}") };
            assert!(check.subject.contains(program) && check.found.contains("is a directory"), "{check:?}");
            std::fs::remove_dir(&log).unwrap();
            std::os::unix::fs::symlink("/proc/sys/kernel/osrelease", &log).unwrap();
            let [check] = &wrong(&settings)[..] else { panic!("{program}: a file of the kernel takes nothing") };
            assert!(check.found.contains("cannot be written to"), "{check:?}");
            assert_eq!(check.mend, Some(format!("chown alice {}", log.display())));
            std::fs::remove_file(&log).unwrap();
        }
    }
}

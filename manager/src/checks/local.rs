//! What can be checked without asking anybody: the configuration file, who asks, and the directories on this host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use common::settings::{Loaded, Problems, Settings};
use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};

use super::Check;
use crate::output::bytes;

/// Less free space than this is worth a word: a listing of the largest tape has about as much.
const LITTLE: u64 = 1 << 30;

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

/// As whom all this was asked: files and tickets of another user may differ.
pub fn user(actor: &str) -> Check {
    Check::ok("user", "", format!("{actor}; what follows holds for this user on this host"))
}

/// A place that programs write to: a directory, and the file in it if it has a fixed name.
struct Place {
    key: &'static str,
    directory: PathBuf,
    file: Option<PathBuf>,
    /// The worker makes it where it is missing.
    made: bool,
}

/// Every directory of the configuration.
pub fn directories(settings: &Settings, actor: &str) -> Vec<Check> {
    let login = actor.split(['(', '@']).next().unwrap_or(actor);
    places(settings).iter().map(|place| check(place, login)).collect()
}

fn places(settings: &Settings) -> Vec<Place> {
    let parent =
        |path: &Path| path.parent().filter(|path| !path.as_os_str().is_empty()).map_or(".".into(), PathBuf::from);
    let of_file = |key, path: &Path| Place { key, directory: parent(path), file: Some(path.to_owned()), made: false };
    vec![
        Place { key: "log_dir", directory: settings.logging.log_dir.clone(), file: None, made: false },
        Place {
            key: "existing_files_on_tape",
            directory: fixed(&parent(Path::new(&settings.listing.existing_files_on_tape))),
            file: None,
            made: true,
        },
        of_file("repack-end-json-path", &settings.repack_end_json_path),
        of_file("ls_out", &settings.monitor_ls_out),
    ]
}

/// The part of a pattern's directory that does not depend on tape and date.
fn fixed(directory: &Path) -> PathBuf {
    directory.components().take_while(|part| !part.as_os_str().to_string_lossy().contains('$')).collect()
}

/// The nearest directory above that is there.
fn existing(directory: &Path) -> &Path {
    directory.ancestors().find(|above| above.exists()).unwrap_or(directory)
}

fn check(place: &Place, login: &str) -> Check {
    let shown = place.directory.display().to_string();
    let subject = format!("{} ({shown})", place.key);
    let install = format!("install -d -o {login} {shown}");
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
        let mend = format!("set {} of the configuration to a place in a directory", place.key);
        return Check::fails("directory", subject, "is not a directory", mend);
    }
    if let Err(error) = writable(&place.directory) {
        return Check::fails("directory", subject, format!("cannot be written to: {error}"), install);
    }
    if let Some(file) = place.file.as_deref().filter(|file| file.exists()) {
        if file.is_dir() {
            let mend = format!("set {} of the configuration to a file, not to a directory", place.key);
            return Check::fails("directory", subject, format!("{} is a directory", file.display()), mend);
        }
        if let Err(error) = accessat(CWD, file, Access::WRITE_OK, AtFlags::EACCESS) {
            let found = format!("{} cannot be written to: {error}", file.display());
            return Check::fails("directory", subject, found, format!("chown {login} {}", file.display()));
        }
    }
    space(place, subject)
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

    #[test]
    fn who_asks_is_named() {
        assert!(user("alice(root)@h1").found.contains("alice(root)@h1"));
    }
}

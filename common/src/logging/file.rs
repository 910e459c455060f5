//! A log file that several processes append to and any of them may rotate.
//!
//! One write per line with `O_APPEND`, so lines of different processes never mix. Rotation is a rename under a lock
//! beside the file; before each line a look at the name tells whether another process has rotated.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, OFlags, flock};

/// The file, by name.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    max_size: u64,
    keep: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<File>,
    /// The last line was written in part only, so the next one must begin on a new line.
    torn: bool,
    /// The last line was lost, which was said.
    failing: bool,
}

impl RotatingFile {
    pub fn new(path: PathBuf, max_size: u64, keep: usize) -> RotatingFile {
        RotatingFile { path, max_size, keep, state: Mutex::default() }
    }

    /// Whether it can be written, now.
    pub fn check(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let checked = self.ready(&mut state, 0).map(|_| ());
        state.failing = checked.is_err();
        checked
    }

    /// Appends a line. An error is returned for the first line that is lost, then not again before one succeeds.
    pub fn write(&self, mut line: Vec<u8>) -> Option<io::Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.torn {
            line.insert(0, b'\n');
        }
        match self.append(&mut state, &line) {
            Ok(()) => {
                (state.torn, state.failing) = (false, false);
                None
            }
            Err(error) => (!std::mem::replace(&mut state.failing, true)).then_some(error),
        }
    }

    fn append(&self, state: &mut State, line: &[u8]) -> io::Result<()> {
        let mut file = self.ready(state, line.len() as u64)?;
        // Not `write_all`: the rest of a line would come after other processes' lines.
        let written = file.write(line)?;
        if written < line.len() {
            state.torn = written > 0 || state.torn;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// The file that has the name now, rotated if `more` bytes are too many for it.
    fn ready<'s>(&self, state: &'s mut State, more: u64) -> io::Result<&'s File> {
        let too_large = |size: u64| size > 0 && size.saturating_add(more) > self.max_size;
        if std::fs::metadata(&self.path).is_ok_and(|named| too_large(named.len())) {
            // If it fails, or somebody else is at it, this line goes where the last one went.
            let _ = self.rotate(too_large);
        }
        let current = state.open.take().filter(|file| same_file(file, &self.path));
        let file = match current {
            Some(file) => file,
            None => {
                state.torn = false;
                open(OpenOptions::new().append(true), &self.path)?
            }
        };
        Ok(state.open.insert(file))
    }

    fn rotate(&self, too_large: impl Fn(u64) -> bool) -> io::Result<()> {
        let lock = open(OpenOptions::new().write(true), &self.beside("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        // Somebody may have rotated between the look and the lock.
        if !too_large(std::fs::metadata(&self.path)?.len()) {
            return Ok(());
        }
        if self.keep == 0 {
            return std::fs::remove_file(&self.path);
        }
        // Up to the first free place; with none free the oldest is overwritten.
        let numbered = |n: usize| self.beside(&n.to_string());
        let free = (1..self.keep).find(|n| !numbered(*n).exists()).unwrap_or(self.keep);
        for n in (1..free).rev() {
            std::fs::rename(numbered(n), numbered(n + 1))?;
        }
        std::fs::rename(&self.path, numbered(1))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }
}

/// Opens or creates a file for its owner and group. Not waiting matters where the name turns out to be a FIFO.
fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    options.create(true).mode(0o640).custom_flags(flags).open(path)
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".lock"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_rotated_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let file = RotatingFile::new(path.clone(), 10, 2);
        for n in 0..10 {
            assert!(file.write(format!("line {n}\n").into_bytes()).is_none());
        }
        assert_eq!(names(dir.path()), ["x.log", "x.log.1", "x.log.2"]);
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(
            (text("x.log"), text("x.log.1"), text("x.log.2")),
            ("line 9\n".into(), "line 8\n".into(), "line 7\n".into())
        );
        for name in ["x.log", "x.log.1", "x.log.lock"] {
            assert_eq!(std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o137, 0, "{name}");
        }
    }

    #[test]
    fn keeping_none_leaves_only_the_newest_lines() {
        let dir = tempfile::tempdir().unwrap();
        let file = RotatingFile::new(dir.path().join("x.log"), 10, 0);
        for n in 0..3 {
            assert!(file.write(format!("line {n}\n").into_bytes()).is_none());
        }
        assert_eq!(names(dir.path()), ["x.log"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("x.log")).unwrap(), "line 2\n");
    }

    #[test]
    fn a_file_that_somebody_else_moved_away_or_removed_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let file = RotatingFile::new(path.clone(), 1000, 2);
        file.write(b"a\n".to_vec());
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        file.write(b"b\n".to_vec());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "b\n");
        std::fs::remove_file(&path).unwrap();
        file.write(b"c\n".to_vec());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "c\n");
    }

    #[test]
    fn while_another_process_holds_the_lock_lines_are_written_and_nothing_is_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let file = RotatingFile::new(dir.path().join("x.log"), 3, 2);
        let lock = File::create(dir.path().join("x.log.lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        for line in ["a\n", "b\n", "c\n"] {
            assert!(file.write(line.into()).is_none());
        }
        assert_eq!(std::fs::read_to_string(dir.path().join("x.log")).unwrap(), "a\nb\nc\n");
        drop(lock);
        file.write(b"d\n".to_vec());
        assert_eq!(std::fs::read_to_string(dir.path().join("x.log")).unwrap(), "d\n");
    }

    #[test]
    fn a_file_that_another_process_rotated_before_the_lock_was_ours_is_not_rotated_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = RotatingFile::new(dir.path().join("x.log"), 10, 2);
        file.write(b"new\n".to_vec());
        file.rotate(|size| size > 10).unwrap();
        assert_eq!(names(dir.path()), ["x.log"]);
        file.rotate(|size| size > 3).unwrap();
        assert_eq!(names(dir.path()), ["x.log.1"]);
    }

    /// Each `RotatingFile` has its own descriptors and locks, as each process has.
    #[test]
    fn writers_that_share_a_file_lose_no_line_and_tear_none_while_it_rotates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let (writers, lines) = (4, 250);
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let path = path.clone();
                scope.spawn(move || {
                    let file = RotatingFile::new(path, 500, 1000);
                    for n in 0..lines {
                        assert!(file.write(format!("writer {writer} line {n:05}\n").into_bytes()).is_none());
                    }
                });
            }
        });
        let files = names(dir.path());
        assert!(files.len() > 5, "it did rotate: {}", files.len());
        let text: String = files.iter().map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap()).collect();
        let mut found: Vec<&str> = text.lines().collect();
        found.sort_unstable();
        let mut expected: Vec<String> =
            (0..writers).flat_map(|w| (0..lines).map(move |n| format!("writer {w} line {n:05}"))).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_full_disk_is_reported_once_and_again_after_it_had_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let file = RotatingFile::new(path.clone(), 1000, 2);
        assert!(file.write(b"a\n".to_vec()).is_some());
        assert!(file.write(b"b\n".to_vec()).is_none(), "said already");
        std::fs::remove_file(&path).unwrap();
        assert!(file.write(b"c\n".to_vec()).is_none());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "c\n");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        assert!(file.write(b"d\n".to_vec()).is_some());
    }

    #[test]
    fn a_directory_that_is_missing_or_a_fifo_without_reader_is_an_error_not_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RotatingFile::new(dir.path().join("none/x.log"), 10, 2).check().is_err());
        let fifo = dir.path().join("x.log");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(RotatingFile::new(fifo, 10, 2).check().is_err());
    }
}

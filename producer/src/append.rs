//! Files that others read while we add to them: whole lines, one write for many, never over what is there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Bytes after which a batch is written.
const BATCH: usize = 256 << 10;

/// A file being added to. What is not flushed is lost when it is dropped.
#[derive(Debug)]
pub struct Appender {
    path: PathBuf,
    file: File,
    batch: Vec<u8>,
}

impl Appender {
    /// Opens or creates (0640, its directory 0750) a file to add to. A line that a full disk cut off is ended first, so
    /// that no line of ours is joined to it.
    ///
    /// # Errors
    /// When the directory or the file cannot be had.
    pub fn open(path: &Path) -> anyhow::Result<Appender> {
        let failed = || format!("opening {}", path.display());
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(directory)
                .with_context(|| format!("creating {}", directory.display()))?;
        }
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path).with_context(failed)?;
        let torn = is_torn(&mut file).with_context(failed)?;
        let batch = if torn { b"\n".to_vec() } else { Vec::new() };
        Ok(Appender { path: path.to_owned(), file, batch })
    }

    /// Keeps other processes that ask for the same from the file, while this value lives. False: one of them has it.
    ///
    /// # Errors
    /// When the file system knows no locks.
    pub fn alone(&self) -> anyhow::Result<bool> {
        use rustix::fs::{FlockOperation, flock};
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("locking {}", self.path.display())),
        }
    }

    /// Adds a line, without its line end.
    ///
    /// # Errors
    /// When the batch that was complete cannot be written.
    pub fn line(&mut self, line: &str) -> anyhow::Result<()> {
        self.batch.extend_from_slice(line.as_bytes());
        self.batch.push(b'\n');
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    /// Writes what is waiting.
    ///
    /// # Errors
    /// When it cannot be written, or not all of it.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        let written = self.file.write_all(&self.batch).with_context(|| format!("writing {}", self.path.display()));
        self.batch.clear();
        written
    }

    /// Writes what is waiting, and has the system bring it to the disk.
    ///
    /// # Errors
    /// When that fails.
    pub fn sync(&mut self) -> anyhow::Result<()> {
        self.flush()?;
        self.file.sync_all().with_context(|| format!("syncing {}", self.path.display()))
    }
}

/// The file ends in the middle of a line.
fn is_torn(file: &mut File) -> std::io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last[0] != b'\n')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn lines_are_added_behind_what_is_there_in_a_directory_that_is_made() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b/out.log");
        for line in ["one", "two"] {
            let mut out = Appender::open(&path).unwrap();
            out.line(line).unwrap();
            out.sync().unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path) & 0o137, 0);
        assert_eq!(mode(path.parent().unwrap()) & 0o027, 0);
    }

    #[test]
    fn a_line_that_was_cut_off_is_ended_first() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("out.log");
        std::fs::write(&path, "{\"cut\":").unwrap();
        let mut out = Appender::open(&path).unwrap();
        out.line("{}").unwrap();
        out.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"cut\":\n{}\n");
    }

    #[test]
    fn a_large_batch_is_written_before_the_end_and_ends_with_a_whole_line() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("out.log");
        let mut out = Appender::open(&path).unwrap();
        let line = "x".repeat(BATCH / 3);
        for _ in 0..4 {
            out.line(&line).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() >= BATCH && text.ends_with('\n'), "{}", text.len());
    }

    #[test]
    fn only_one_is_alone_with_the_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("out.log");
        let first = Appender::open(&path).unwrap();
        let second = Appender::open(&path).unwrap();
        assert!(first.alone().unwrap());
        assert!(!second.alone().unwrap());
        drop(first);
        assert!(second.alone().unwrap());
    }

    #[test]
    fn a_path_that_is_a_directory_is_an_error_with_its_name() {
        let home = tempfile::tempdir().unwrap();
        let error = format!("{:#}", Appender::open(home.path()).unwrap_err());
        assert!(error.contains(&home.path().display().to_string()), "{error}");
    }
}

//! The listing of a tape's files, written before its repack: complete, synced, renamed into place, never over an older one.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, bail};
use chrono::NaiveDate;
use common::cta::{Cta, Query, Trouble};
use common::failpoint;
use common::settings::Settings;
use common::tape::Vid;
use common::task::ListingMade;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Why there is no listing.
#[derive(Debug)]
pub enum ListingError {
    /// CTA did not give it.
    Cta(Trouble),
    /// This host could not keep it.
    Host(anyhow::Error),
}

/// Lists the tape's files, a JSON object a line, into the configured place on this host.
///
/// # Errors
/// When CTA does not give a complete list, or this host cannot keep it; then no file is left behind.
pub async fn write(
    cta: &Cta,
    vid: &Vid,
    round: i32,
    date: NaiveDate,
    host: &str,
    settings: &Settings,
) -> Result<ListingMade, ListingError> {
    let path = settings.listing_path(vid, date);
    let open = Draft::open(&path).map_err(ListingError::Host)?;
    let draft = Arc::new(Mutex::new(open));
    let writing = Arc::clone(&draft);
    let listed = cta
        .each(&Query::TapeFiles(vid.clone()), move |file: Value| {
            writing.lock().expect("nobody panics while writing").line(&file)
        })
        .await;
    let mut draft = draft.lock().expect("nobody panics while writing");
    if let Some(failed) = draft.failed.take() {
        return Err(ListingError::Host(failed));
    }
    listed.map_err(ListingError::Cta)?;
    failpoint::pass("listing-written", vid);
    let path = draft.keep(&path, vid).map_err(ListingError::Host)?;
    Ok(ListingMade {
        host: host.to_owned(),
        path: path.display().to_string(),
        files: draft.files,
        bytes: draft.bytes,
        sha256: draft.sha256.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        round,
    })
}

/// A listing being written, under a name of its own; gone if it is not kept.
struct Draft {
    path: PathBuf,
    out: BufWriter<File>,
    sha256: Sha256,
    files: u64,
    bytes: u64,
    kept: bool,
    failed: Option<anyhow::Error>,
}

impl Draft {
    fn open(target: &Path) -> anyhow::Result<Draft> {
        let directory = target.parent().context("the listing's path has no directory")?;
        let name = target.file_name().context("the listing's path has no file name")?.to_string_lossy();
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let path = directory.join(format!(".{name}.{}.part", std::process::id()));
        // Left behind by a process of this number that was killed.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&path)
            .with_context(|| format!("creating {}", path.display()))?;
        let out = BufWriter::with_capacity(256 * 1024, file);
        Ok(Draft { path, out, sha256: Sha256::new(), files: 0, bytes: 0, kept: false, failed: None })
    }

    fn line(&mut self, file: &Value) -> anyhow::Result<()> {
        let written = self.try_line(file);
        if let Err(error) = written {
            self.failed = Some(error);
            bail!("the listing cannot be written");
        }
        Ok(())
    }

    fn try_line(&mut self, file: &Value) -> anyhow::Result<()> {
        let size = file["af"]["size"].as_u64().or_else(|| file["af"]["size"].as_str()?.parse().ok());
        self.bytes = self.bytes.saturating_add(size.context("a tape file without a size")?);
        let mut line = serde_json::to_vec(file)?;
        line.push(b'\n');
        self.sha256.update(&line);
        self.out.write_all(&line).with_context(|| format!("writing {}", self.path.display()))?;
        self.files += 1;
        Ok(())
    }

    /// Gives it its name: the configured one, or with `.2`, `.3` ... behind where that is taken.
    fn keep(&mut self, target: &Path, vid: &Vid) -> anyhow::Result<PathBuf> {
        self.out
            .flush()
            .and_then(|()| self.out.get_ref().sync_all())
            .with_context(|| format!("writing {}", self.path.display()))?;
        for number in 1..10_000 {
            let path =
                if number == 1 { target.to_owned() } else { PathBuf::from(format!("{}.{number}", target.display())) };
            // A link fails where the name is taken, a rename would replace it.
            match fs::hard_link(&self.path, &path) {
                Ok(()) => {
                    failpoint::pass("listing-named", vid);
                    fs::remove_file(&self.path).with_context(|| format!("removing {}", self.path.display()))?;
                    self.kept = true;
                    let directory = path.parent().context("the listing's path has no directory")?;
                    File::open(directory)
                        .and_then(|directory| directory.sync_all())
                        .with_context(|| format!("syncing {}", directory.display()))?;
                    return Ok(path);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("naming {}", path.display())),
            }
        }
        bail!("{} and 9998 more of its name are taken", target.display())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

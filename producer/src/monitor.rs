//! Monitor: the table as JSON lines, for the site's monitoring.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use common::store::Store;
use serde::Serialize;

use crate::append::Appender;

/// Where the rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Behind what is in this file.
    File(PathBuf),
    /// Stdout.
    Stdout,
    /// Nowhere: only counted.
    Nowhere(PathBuf),
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Always `monitor`.
    pub stage: &'static str,
    /// Rows of the table.
    pub rows: u64,
    /// The file; null for stdout.
    pub path: Option<PathBuf>,
    /// Nothing was written.
    pub dry_run: bool,
}

/// Exports every row of the table, finished ones too, in one snapshot.
///
/// # Errors
/// When the database does not answer, or the target cannot be written. Then a part of the rows may have been.
pub async fn export(store: &Store, target: &Target) -> anyhow::Result<Exported> {
    store.ready().await?;
    let exported = |rows: u64, path: Option<&Path>, dry_run: bool| Exported {
        stage: "monitor",
        rows,
        path: path.map(Path::to_owned),
        dry_run,
    };
    match target {
        Target::File(path) => {
            let mut out = Appender::open(path)?;
            let rows = store.export(|row| out.line(row)).await?;
            out.flush()?;
            Ok(exported(rows, Some(path), false))
        }
        Target::Stdout => {
            let mut out = io::BufWriter::new(io::stdout());
            let mut reader = Reader::Listens;
            let rows = store.export(|row| reader.hears(writeln!(out, "{row}"))).await;
            let flushed = if rows.is_ok() { reader.hears(out.flush()) } else { Ok(()) };
            match reader {
                // It has seen what it wanted to see.
                Reader::Gone => Ok(exported(0, None, false)),
                Reader::Listens => {
                    flushed?;
                    Ok(exported(rows.map_err(anyhow::Error::new)?, None, false))
                }
            }
        }
        Target::Nowhere(path) => {
            let rows = store.export(|_| Ok(())).await?;
            Ok(exported(rows, Some(path), true))
        }
    }
}

/// Who reads our stdout.
#[derive(Debug, PartialEq, Eq)]
enum Reader {
    Listens,
    Gone,
}

impl Reader {
    fn hears(&mut self, written: io::Result<()>) -> anyhow::Result<()> {
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            *self = Reader::Gone;
        }
        written.context("writing to stdout")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_pipe_says_that_nobody_reads() {
        let mut reader = Reader::Listens;
        assert!(reader.hears(Ok(())).is_ok());
        assert!(reader.hears(Err(io::ErrorKind::StorageFull.into())).is_err());
        assert_eq!(reader, Reader::Listens);
        assert!(reader.hears(Err(io::ErrorKind::BrokenPipe.into())).is_err());
        assert_eq!(reader, Reader::Gone);
    }
}

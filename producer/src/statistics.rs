//! End-of-repack statistics: the lines that deliveries left in the database, on their way to the file that monitoring reads.

use std::path::Path;

use common::store::Store;

use crate::append::Appender;

/// Appends the lines that are still to be written, and marks them: each at least once, for a crash between the two writes
/// them again (`tape`, `entered` and `round` tell doubles). Another process at it: 0, it does the work. Returns how many.
///
/// # Errors
/// When the database does not answer, or the file cannot be written; what is not marked comes again.
pub async fn write_lines(store: &Store, path: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    // Most often there is nothing to write: no file is touched for that.
    let mut lines = store.unwritten().await?;
    if lines.is_empty() {
        return Ok(0);
    }
    let mut out = Appender::open(path)?;
    if !out.alone()? {
        return Ok(0);
    }
    // Again, now that nobody else writes: somebody may just have been done with them.
    lines = store.unwritten().await?;
    while !lines.is_empty() {
        for line in &lines {
            out.line(&line.line)?;
        }
        out.sync()?;
        let ids: Vec<i64> = lines.iter().map(|line| line.id).collect();
        store.written(&ids).await?;
        count += ids.len();
        lines = store.unwritten().await?;
    }
    Ok(count)
}

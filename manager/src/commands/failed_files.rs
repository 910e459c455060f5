//! `failed-files`: what a repack left on a tape. CTA keeps no list of what failed (`repack err` is not implemented), so this is what
//! is still on the tape, beside what was on it when the repack began.

use std::io::{BufWriter, Write as _};

use clap::Args;
use common::cta::{Cta, Query, Trouble};
use common::store::{Overview, SavedRequest, Store};
use common::tape::Vid;
use common::task::ListingMade;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

use super::told;
use crate::left::{Copy, FileLeft, Listing, TapeFile};
use crate::output::{Desk, Exit, bytes, cell, clean, counted, iso, local};

/// How many `cta-admin` ask for copies at once.
const AT_ONCE: usize = 4;

/// Which tape, and how much of it.
#[derive(Debug, Args)]
pub struct FailedFiles {
    /// The tape
    #[arg(value_name = "VID", value_parser = crate::cli::vid)]
    pub vid: Vid,
    /// At most so many lines for people; the totals count all
    #[arg(short, long, default_value_t = 50, value_name = "N")]
    pub limit: usize,
    /// Of how many files CTA is asked for other copies, a cta-admin each; 0: of none
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub copies: u32,
    /// One JSON object a file and line, nothing else
    #[arg(long, conflicts_with = "json")]
    pub jsonl: bool,
}

/// What was found out beside the files.
#[derive(Default)]
struct Around {
    overview: Option<Overview>,
    /// The database did not say whether there is a row.
    row_unknown: bool,
    saved: Option<SavedRequest>,
    request: Option<Value>,
    no_request: Option<String>,
    errors: Vec<String>,
}

impl Around {
    fn made(&self) -> Option<&ListingMade> {
        self.overview.as_ref()?.task.as_ref()?.memory.listing.as_ref()
    }
}

/// What the tape holds in total.
#[derive(Debug, Default, Clone, Copy)]
struct Total {
    files: u64,
    bytes: u64,
}

/// Shows the files.
///
/// # Errors
/// When they cannot be written.
pub async fn run(store: &Store, options: &FailedFiles, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let cta = Cta::new(&store.settings().cta_admin);
    let mut around = look(store, &cta, &options.vid).await;
    let mut listing = Listing::of(around.made());
    let machine = json || options.jsonl;
    let keep = if machine { usize::try_from(options.copies).unwrap_or(usize::MAX) } else { options.limit };
    let mut out = BufWriter::with_capacity(64 << 10, &mut *desk.out);
    if json {
        out.write_all(b"{\"files\":[")?;
    }
    let (give, take) = tokio::sync::mpsc::channel(256);
    let query = Query::TapeFiles(options.vid.clone());
    let listed = cta.each(&query, move |file: TapeFile| {
        give.blocking_send(file).map_err(|_| anyhow::anyhow!("nobody takes the files any more"))
    });
    let mut lines = Lines { out: &mut out, array: json, written: 0 };
    let (listed, taken) = tokio::join!(listed, sort_out(take, keep, machine, &mut listing, &mut lines));
    let (mut kept, total) = taken?;
    let complete = match listed {
        Ok(_) => true,
        Err(trouble) => {
            around.errors.push(format!("the files on the tape are not known: {trouble}"));
            listing.stop("CTA did not list the files of now");
            false
        }
    };
    let asked = if complete { ask_for_copies(&cta, options, &mut kept, &mut around.errors).await } else { 0 };
    if machine {
        for file in &kept {
            lines.item(&file.object())?;
        }
    }
    if json {
        let rest = rest(options, &around, &listing, total, asked, complete);
        // The rest of the object that the list of files began.
        out.write_all(format!("],{}\n", rest.to_string().trim_start_matches('{')).as_bytes())?;
    }
    out.flush()?;
    drop(out);
    if !machine {
        people(options, &around, &listing, &kept, total, asked, complete, desk)?;
    }
    for error in &around.errors {
        desk.remark(&format!("error: {error}"));
    }
    Ok(if around.errors.is_empty() { Exit::Done } else { Exit::Failed })
}

async fn look(store: &Store, cta: &Cta, vid: &Vid) -> Around {
    let mut around = Around::default();
    match store.overview(Some(std::slice::from_ref(vid)), None, true).await {
        Ok(mut overviews) => {
            around.overview = overviews.pop();
            match store.saved_request(vid).await {
                Ok(saved) => around.saved = saved,
                Err(error) => around.errors.push(format!("the history is not known: {:#}", told(error))),
            }
        }
        Err(error) => {
            around.row_unknown = true;
            around.errors.push(format!("what the row says is not known: {:#}", told(error)));
        }
    }
    match cta.list::<Value>(&Query::Repack(vid.clone())).await {
        Ok(list) => around.request = list.into_iter().next(),
        Err(Trouble::Refused { text, .. }) => around.no_request = Some(text),
        Err(trouble) => around.errors.push(format!("the repack request is not known: {trouble}")),
    }
    around
}

/// Keeps the first files for later, counts all, and hands the others of a machine's list on at once.
async fn sort_out(
    mut take: Receiver<TapeFile>,
    keep: usize,
    machine: bool,
    listing: &mut Listing,
    lines: &mut Lines<'_>,
) -> anyhow::Result<(Vec<FileLeft>, Total)> {
    let (mut kept, mut total) = (Vec::new(), Total::default());
    while let Some(file) = take.recv().await {
        total.files += 1;
        total.bytes = total.bytes.saturating_add(file.size());
        let listed = listing.has(&file);
        let file = FileLeft { file, listed, copies: None };
        if kept.len() < keep {
            kept.push(file);
        } else if machine {
            lines.item(&file.object())?;
        }
    }
    listing.end();
    Ok((kept, total))
}

/// Asks CTA where else the files are; stops at the first failure, for the others would not be better. Returns of how many it was told.
async fn ask_for_copies(cta: &Cta, options: &FailedFiles, kept: &mut [FileLeft], errors: &mut Vec<String>) -> usize {
    let most = usize::try_from(options.copies).unwrap_or(usize::MAX).min(kept.len());
    let mut told = 0;
    for some in kept[..most].chunks_mut(AT_ONCE) {
        let mut asking = JoinSet::new();
        for (place, file) in some.iter().enumerate() {
            let (cta, id) = (cta.clone(), file.file.archive_id());
            asking.spawn(async move { (place, cta.list::<TapeFile>(&Query::ArchiveFile(id)).await) });
        }
        let mut failed = false;
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok((place, Ok(copies))) => {
                    let others =
                        copies.iter().filter(|copy| copy.vid() != options.vid.as_str()).map(Copy::of).collect();
                    some[place].copies = Some(others);
                    told += 1;
                }
                Ok((_, Err(trouble))) if !failed => {
                    failed = true;
                    errors.push(format!("other copies are not known of all files: {trouble}"));
                }
                Ok((_, Err(_))) | Err(_) => failed = true,
            }
        }
        if failed {
            break;
        }
    }
    told
}

/// JSON objects on their way out.
struct Lines<'a> {
    out: &'a mut dyn std::io::Write,
    array: bool,
    written: u64,
}

impl Lines<'_> {
    fn item(&mut self, object: &Value) -> std::io::Result<()> {
        self.written += 1;
        match (self.array, self.written) {
            (true, 1) => write!(self.out, "{object}"),
            (true, _) => write!(self.out, ",\n{object}"),
            (false, _) => writeln!(self.out, "{object}"),
        }
    }
}

fn rest(
    options: &FailedFiles,
    around: &Around,
    listing: &Listing,
    total: Total,
    asked: usize,
    complete: bool,
) -> Value {
    let row = around.overview.as_ref().and_then(|overview| overview.row.as_ref().ok());
    let reason = around.overview.as_ref().and_then(|overview| overview.task.as_ref()?.reason.as_ref());
    let made = around.made();
    json!({
        "vid": options.vid,
        "state": row.map(common::tape::Tape::state),
        "mode": row.map(|row| row.mode),
        "reason": reason.map(|reason| &reason.text),
        "request": around.request,
        "saved_request": around.saved.as_ref().map(|saved| json!({"at": iso(saved.at), "object": saved.object})),
        "listing": made.map(|made| json!({"host": made.host, "path": made.path, "files": made.files, "bytes": made.bytes,
                                          "sha256": made.sha256, "compared": listing.compared()})),
        "left_files": total.files,
        "left_bytes": total.bytes,
        "gone_files": listing.gone(made.map(|made| made.files)),
        "copies_asked": asked,
        "complete": complete,
        "errors": around.errors,
    })
}

#[expect(clippy::too_many_arguments, reason = "all that was found out, said once")]
fn people(
    options: &FailedFiles,
    around: &Around,
    listing: &Listing,
    kept: &[FileLeft],
    total: Total,
    asked: usize,
    complete: bool,
    desk: &mut Desk<'_>,
) -> anyhow::Result<()> {
    for line in heading(&options.vid, around, listing) {
        desk.data(&clean(&line))?;
    }
    if !complete {
        return Ok(());
    }
    if total.files == 0 {
        return desk.data("\nCTA says that no file is on it");
    }
    if !kept.is_empty() {
        let rows = kept.iter().map(|file| file.cells().into_iter().map(cell).collect()).collect();
        let header = [
            "FSEQ",
            "ARCHIVE ID",
            "COPY",
            "SIZE",
            "CHECKSUM",
            "INSTANCE",
            "DISK ID",
            "STORAGE CLASS",
            "LISTED",
            "OTHER COPIES",
        ];
        desk.data(&format!("\n{}", desk.table(&header, rows)))?;
    }
    let shown = u64::try_from(kept.len()).unwrap_or(u64::MAX);
    if total.files > shown {
        desk.data(&format!("{} more: --limit", total.files - shown))?;
    }
    let left = i64::try_from(total.bytes).unwrap_or(i64::MAX);
    desk.data(&format!("\nCTA says that {}, {} bytes, are on it", counted(total.files, "file"), bytes(left)))?;
    if let Some(gone) = listing.gone(around.made().map(|made| made.files)) {
        desk.data(&format!("{gone} files of the listing are no longer on it"))?;
    }
    let alone = kept.iter().filter(|file| file.copies.as_ref().is_some_and(Vec::is_empty)).count();
    desk.data(&format!("CTA was asked for other copies of {asked} of them: {alone} of these have none"))
}

fn heading(vid: &Vid, around: &Around, listing: &Listing) -> Vec<String> {
    let mut lines = vec![match &around.overview {
        None if around.row_unknown => format!("{vid}: what the row says is not known"),
        None => format!("{vid}: no row of it was found"),
        Some(overview) => match &overview.row {
            Ok(row) => format!("{vid}: the row says {}, mode {}", row.state(), row.mode),
            Err(odd) => format!("{vid}: {odd}"),
        },
    }];
    if let Some(reason) = around.overview.as_ref().and_then(|overview| overview.task.as_ref()?.reason.as_ref()) {
        lines.push(format!("why: {} ({})", reason.text, reason.code));
    }
    match (&around.request, &around.no_request) {
        (Some(request), _) => lines.push(format!("CTA says of its repack request: {}", numbers(request))),
        (None, Some(text)) => lines.push(format!("CTA says: {text}")),
        (None, None) => {}
    }
    if let Some(saved) = &around.saved {
        lines.push(format!(
            "the history has a request that was removed after {}: {}",
            local(saved.at),
            numbers(&saved.object)
        ));
    }
    lines.push("CTA keeps no error text per file: its logs on the tape servers have it".to_owned());
    if let Some(made) = around.made() {
        let size = bytes(i64::try_from(made.bytes).unwrap_or(i64::MAX));
        lines.push(format!(
            "listing before round {}: {} files, {size} bytes, on {}: {} ({})",
            made.round,
            made.files,
            made.host,
            made.path,
            listing.standing()
        ));
    }
    lines
}

/// What a repack request says of itself, in words.
fn numbers(request: &Value) -> String {
    let number = |key: &str| match &request[key] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "?".to_owned(),
    };
    format!(
        "{}, {} of {} files read, {} of {} copies written, {} could not be read, {} could not be written",
        request["status"].as_str().unwrap_or("?"),
        number("retrievedFiles"),
        number("totalFilesToRetrieve"),
        number("archivedFiles"),
        number("totalFilesToArchive"),
        number("failedToRetrieveFiles"),
        number("failedToArchiveFiles"),
    )
}

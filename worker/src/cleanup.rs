//! Listings that nobody needs any more. Each host cleans its own.
//!
//! A listing goes only if all of this holds: it is a plain file in the listings' directory, its name matches
//! `cleanup_pattern`, exactly one tape can be read from its name, it is older than `keep_tf_files_days`, and that tape is
//! not in the table, or was reclaimed at least as long ago. A draft of a listing, left behind by a process that was killed,
//! goes as the listing would.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use common::journey::State;
use common::settings::{Listing, Settings};
use common::store::{Overview, Store};
use common::tape::Vid;
use tracing::warn;

/// Tapes that the database is asked about at once.
const AT_ONCE: usize = 500;

/// A listing that is old enough to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Old {
    /// Where it is.
    pub path: PathBuf,
    /// The tape it is of.
    pub vid: Vid,
}

/// Removes the listings on this host that are of no use any more, and says which.
///
/// # Errors
/// When the directory cannot be read, or the database does not answer. A file that cannot be removed is only warned
/// about.
pub async fn listings(store: &Store, settings: &Settings, now: SystemTime) -> anyhow::Result<Vec<PathBuf>> {
    let old = old(&settings.listing, now)?;
    let mut removed = Vec::new();
    for chunk in old.chunks(AT_ONCE) {
        let vids: Vec<Vid> = chunk.iter().map(|old| old.vid.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let rows = store.overview(Some(&vids), None, true).await?;
        let rows: HashMap<String, Overview> = rows.into_iter().map(|row| (name(&row), row)).collect();
        for old in chunk {
            if is_over(rows.get(old.vid.as_str()), settings.listing.keep) && remove(&old.path) {
                removed.push(old.path.clone());
            }
        }
    }
    Ok(removed)
}

fn name(overview: &Overview) -> String {
    match &overview.row {
        Ok(tape) => tape.vid.to_string(),
        Err(odd) => odd.tape.clone(),
    }
}

/// The journey of the tape needs no listing any more.
fn is_over(row: Option<&Overview>, keep: Duration) -> bool {
    match row {
        None => true,
        Some(Overview { row: Ok(tape), now, .. }) => {
            tape.stamps.at(State::Reclaimed).is_some_and(|at| passed(at, keep, *now))
        }
        Some(Overview { row: Err(_), .. }) => false,
    }
}

fn passed(at: DateTime<Utc>, keep: Duration, now: DateTime<Utc>) -> bool {
    common::task::later(at, keep) <= now
}

fn remove(path: &Path) -> bool {
    match fs::remove_file(path) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => {
            warn!("the old listing {} cannot be removed: {error}", path.display());
            false
        }
    }
}

/// The listings of this host that are old enough and of a known tape, in the order of their names.
///
/// # Errors
/// When the directory is there and cannot be read, or the configured pattern is none.
pub fn old(listing: &Listing, now: SystemTime) -> anyhow::Result<Vec<Old>> {
    let template = Path::new(&listing.existing_files_on_tape);
    let directory = template.parent().context("existing_files_on_tape has no directory")?;
    let template = template.file_name().and_then(|name| name.to_str()).context("existing_files_on_tape has no name")?;
    let pattern = glob::Pattern::new(&listing.cleanup_pattern).context("cleanup_pattern is no pattern")?;
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("reading the directory {}", directory.display()))?,
    };
    let mut old = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("reading the directory {}", directory.display()))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let listing_name = draft_of(name).unwrap_or(name);
        if !pattern.matches(listing_name) {
            continue;
        }
        let Some(vid) = tape_of(template, listing_name) else { continue };
        // Of the entry itself: links are not followed.
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|at| now.duration_since(at).ok());
        if metadata.is_file() && age.is_some_and(|age| age >= listing.keep) {
            old.push(Old { path: directory.join(name), vid });
        }
    }
    old.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(old)
}

/// The listing that a draft of this name was to become: what a process that was killed while writing one left behind.
fn draft_of(name: &str) -> Option<&str> {
    let (listing, process) = name.strip_prefix('.')?.strip_suffix(".part")?.rsplit_once('.')?;
    (!process.is_empty() && process.bytes().all(|b| b.is_ascii_digit())).then_some(listing)
}

/// The one tape that a listing of this name can be of; none if the name is no listing's, or could be of several tapes.
pub fn tape_of(template: &str, name: &str) -> Option<Vid> {
    let mut found = BTreeSet::new();
    readings(template, name, None, &mut found);
    // `.2`, `.3` ...: later listings of a tape on the same day.
    if let Some((first, number)) = name.rsplit_once('.')
        && (1..=4).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
        && !number.starts_with('0')
    {
        readings(template, first, None, &mut found);
    }
    if found.len() == 1 { found.pop_first() } else { None }
}

/// Every way to read `name` as `template`; `vid` is what `$TAPE` stood for before.
fn readings(template: &str, name: &str, vid: Option<&Vid>, found: &mut BTreeSet<Vid>) {
    if let Some(template) = template.strip_prefix("$TAPE") {
        match vid {
            Some(known) => {
                if let Some(rest) = name.strip_prefix(known.as_str()) {
                    readings(template, rest, vid, found);
                }
            }
            None => {
                for length in 1..=Vid::MAX_LEN.min(name.len()) {
                    if let Some((Ok(read), rest)) = name.split_at_checked(length).map(|(vid, rest)| (vid.parse(), rest))
                    {
                        readings(template, rest, Some(&read), found);
                    }
                }
            }
        }
    } else if let Some(template) = template.strip_prefix("$DATE") {
        if let Some((date, rest)) = name.split_at_checked(10)
            && is_date(date)
        {
            readings(template, rest, vid, found);
        }
    } else if let Some(literal) = template.chars().next() {
        if let Some(rest) = name.strip_prefix(literal) {
            readings(&template[literal.len_utf8()..], rest, vid, found);
        }
    } else if name.is_empty()
        && let Some(vid) = vid
    {
        found.insert(vid.clone());
    }
}

/// As [`Settings::listing_path`] writes it.
fn is_date(text: &str) -> bool {
    chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok_and(|date| date.format("%Y-%m-%d").to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "repack-tapefile-$DATE-$TAPE.txt";
    const DAY: Duration = Duration::from_secs(86400);

    fn vid(name: &str) -> Vid {
        name.parse().unwrap()
    }

    #[test]
    fn a_draft_is_named_after_its_listing_and_a_process() {
        for (name, expected) in [
            (".repack-tapefile-2026-01-31-V01007.txt.4711.part", Some("repack-tapefile-2026-01-31-V01007.txt")),
            ("repack-tapefile-2026-01-31-V01007.txt.4711.part", None),
            (".repack-tapefile-2026-01-31-V01007.txt.part", None),
            (".repack-tapefile-2026-01-31-V01007.txt.47x1.part", None),
            (".repack-tapefile-2026-01-31-V01007.txt..part", None),
            (".4711.part", None),
            (".part", None),
        ] {
            assert_eq!(draft_of(name), expected, "{name}");
        }
    }

    #[test]
    fn the_tape_is_read_from_the_name_or_the_file_is_not_ours() {
        for (name, expected) in [
            ("repack-tapefile-2026-01-31-V01007.txt", Some("V01007")),
            ("repack-tapefile-2026-01-31-V01007.txt.2", Some("V01007")),
            ("repack-tapefile-2026-01-31-L8-0_1.txt", Some("L8-0_1")),
            ("repack-tapefile-2026-01-31-V01007.txt.0", None),
            ("repack-tapefile-2026-01-31-V01007.txt.gz", None),
            ("repack-tapefile-2026-01-31-V01007.txt.12345", None),
            ("repack-tapefile-2026-01-31-V01007", None),
            ("repack-tapefile-2026-13-31-V01007.txt", None),
            ("repack-tapefile-2026-01-31-v01007.txt", None),
            ("repack-tapefile-2026-01-31-.txt", None),
            ("repack-tapefile-2026-01-31-A23456789012345678901.txt", None),
            ("old-repack-tapefile-2026-01-31-V01007.txt", None),
            ("repack-tapefile-index.txt", None),
            ("repack-tapefile-2026-01-31-Vé.txt", None),
        ] {
            assert_eq!(tape_of(TEMPLATE, name), expected.map(vid), "{name}");
        }
    }

    #[test]
    fn a_name_that_could_be_of_two_tapes_is_of_none() {
        assert_eq!(tape_of("$TAPE-$TAPE", "A-A"), Some(vid("A")));
        assert_eq!(tape_of("$TAPE-$TAPE", "A-B"), None);
        assert_eq!(tape_of("x$TAPE", "xA"), Some(vid("A")));
        // 'A' of the second listing, or 'A.2'? No VID has a dot, so only one reading is left.
        assert_eq!(tape_of("x$TAPE", "xA.2"), Some(vid("A")));
        assert_eq!(tape_of("$DATE$TAPE", "2026-01-312026-01-31"), Some(vid("2026-01-31")));
        assert_eq!(tape_of("l.$TAPE.2", "l.A.2"), Some(vid("A")));
        assert_eq!(tape_of("$TAPE-1", "A-1-1"), Some(vid("A-1")));
    }

    #[test]
    fn what_the_worker_writes_is_read_back() {
        let settings = Settings::default();
        let date = chrono::NaiveDate::from_ymd_opt(2026, 2, 28).unwrap();
        for name in ["V01007", "L8-000_1", "2026-01-31", "A2345678901234567890"] {
            let path = settings.listing_path(&vid(name), date);
            let file = path.file_name().unwrap().to_str().unwrap();
            let template = Path::new(&settings.listing.existing_files_on_tape).file_name().unwrap().to_str().unwrap();
            assert_eq!(tape_of(template, file), Some(vid(name)));
            assert_eq!(tape_of(template, &format!("{file}.3")), Some(vid(name)));
        }
    }

    struct Home {
        directory: tempfile::TempDir,
        listing: Listing,
    }

    impl Home {
        fn new() -> Home {
            let directory = tempfile::tempdir().unwrap();
            let listings = directory.path().join("listings");
            fs::create_dir(&listings).unwrap();
            let listing = Listing {
                existing_files_on_tape: listings.join(TEMPLATE).display().to_string(),
                cleanup_pattern: "*repack-tapefile*".to_owned(),
                keep: 14 * DAY,
            };
            Home { directory, listing }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join("listings").join(name)
        }

        fn file(&self, name: &str, age: Duration) {
            let file = fs::File::create(self.path(name)).unwrap();
            file.set_modified(now() - age).unwrap();
        }

        fn old(&self) -> Vec<String> {
            let old = old(&self.listing, now()).unwrap();
            old.iter().map(|old| old.path.strip_prefix(self.path("")).unwrap().display().to_string()).collect()
        }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 20_000 * DAY
    }

    #[test]
    fn only_old_files_with_a_matching_name_of_a_known_tape_are_old_listings() {
        let home = Home::new();
        let old = 14 * DAY;
        home.file("repack-tapefile-2024-09-01-V00001.txt", old);
        home.file("repack-tapefile-2024-09-01-V00001.txt.2", old);
        home.file("repack-tapefile-2024-09-01-V00002.txt", old - Duration::from_secs(1));
        home.file("repack-tapefile-2024-09-01-notes.txt", old);
        home.file("cta-ops-repack-end-json.log", old);
        assert_eq!(home.old(), ["repack-tapefile-2024-09-01-V00001.txt", "repack-tapefile-2024-09-01-V00001.txt.2"]);
    }

    #[test]
    fn a_draft_that_a_killed_process_left_is_old_as_its_listing_would_be() {
        let home = Home::new();
        let draft = |number: u32| format!(".repack-tapefile-2024-09-01-V0000{number}.txt.4711.part");
        home.file(&draft(1), 14 * DAY);
        home.file(&draft(2), 14 * DAY - Duration::from_secs(1));
        assert_eq!(home.old(), [draft(1)]);
    }

    #[test]
    fn the_pattern_alone_can_spare_a_listing() {
        let mut home = Home::new();
        home.file("repack-tapefile-2024-09-01-V00001.txt", 20 * DAY);
        home.listing.cleanup_pattern = "*-V0000[2-9].txt".to_owned();
        assert_eq!(home.old(), Vec::<String>::new());
    }

    #[test]
    fn links_directories_and_other_directories_are_left_alone() {
        let home = Home::new();
        let name = |number: u32| format!("repack-tapefile-2024-09-01-V0000{number}.txt");
        let outside = home.directory.path().join(name(1));
        fs::File::create(&outside).unwrap().set_modified(now() - 20 * DAY).unwrap();
        std::os::unix::fs::symlink(&outside, home.path(&name(2))).unwrap();
        fs::create_dir(home.path(&name(3))).unwrap();
        fs::write(home.path(&name(3)).join(name(4)), "").unwrap();
        assert_eq!(old(&home.listing, now() + 40_000 * DAY).unwrap(), []);
    }

    #[test]
    fn a_file_from_the_future_and_a_missing_directory_are_no_old_listings() {
        let home = Home::new();
        let name = "repack-tapefile-2024-09-01-V00001.txt";
        fs::File::create(home.path(name)).unwrap().set_modified(now() + DAY).unwrap();
        assert_eq!(home.old(), Vec::<String>::new());
        let gone = Listing { existing_files_on_tape: "/nowhere/at/all/$TAPE".to_owned(), ..home.listing.clone() };
        assert_eq!(old(&gone, now()).unwrap(), []);
    }

    fn overview(stamps: usize) -> Overview {
        use chrono::TimeDelta;
        use common::journey::{Mode, Stamps};
        let begun = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let mut raw = [None; 6];
        for (index, stamp) in raw.iter_mut().take(stamps).enumerate() {
            *stamp = Some(begun + TimeDelta::days(index as i64));
        }
        let tape = common::tape::Tape {
            vid: vid("V00001"),
            stamps: Stamps::check(raw, TimeDelta::zero()).unwrap(),
            mode: Mode::Auto,
            priority: 10,
            mediatype: String::new(),
            tapepool: String::new(),
            responsible: String::new(),
            files: 0,
            bytes: 0,
            usage: 0,
            last_write_date: None,
            xmin: 1,
        };
        // Reclaimed on day 4.
        Overview { row: Ok(tape), task: None, hold: None, now: begun + TimeDelta::days(18) }
    }

    #[test]
    fn a_listing_is_needed_until_its_tape_was_reclaimed_and_for_the_time_after() {
        for stamps in 1..=4 {
            assert!(!is_over(Some(&overview(stamps)), Duration::ZERO), "{stamps} stamps");
        }
        for stamps in 5..=6 {
            assert!(is_over(Some(&overview(stamps)), 14 * DAY), "{stamps} stamps");
            assert!(!is_over(Some(&overview(stamps)), 14 * DAY + Duration::from_secs(1)), "{stamps} stamps");
        }
        assert!(is_over(None, 14 * DAY));
        let odd = common::tape::OddRow { tape: "V00001".to_owned(), problems: vec!["x".to_owned()] };
        assert!(!is_over(Some(&Overview { row: Err(odd), ..overview(6) }), Duration::ZERO));
    }
}

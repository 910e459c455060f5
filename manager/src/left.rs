//! Files on a tape: as `tapefile ls` shows them, and compared with the listing that was made before the repack.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Lines};

use common::cta::reply::integer;
use common::task::ListingMade;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::output::bytes;

/// One object of `tapefile ls`.
#[derive(Debug, Clone, Deserialize)]
pub struct TapeFile {
    af: Archived,
    #[serde(default)]
    df: OnDisk,
    tf: OnTape,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Archived {
    #[serde(deserialize_with = "integer")]
    archive_id: u64,
    #[serde(deserialize_with = "integer")]
    size: u64,
    #[serde(default)]
    storage_class: String,
    #[serde(default)]
    checksum: Vec<Checksum>,
}

#[derive(Debug, Clone, Deserialize)]
struct Checksum {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OnDisk {
    disk_instance: String,
    disk_id: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OnTape {
    vid: String,
    #[serde(deserialize_with = "integer")]
    copy_nb: u64,
    #[serde(deserialize_with = "integer")]
    f_seq: u64,
}

impl TapeFile {
    /// Archive file ID.
    pub fn archive_id(&self) -> u64 {
        self.af.archive_id
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.af.size
    }

    /// The tape it is on.
    pub fn vid(&self) -> &str {
        &self.tf.vid
    }

    fn checksum(&self) -> String {
        let sums: Vec<String> = self.af.checksum.iter().map(|sum| format!("{} {}", sum.kind, sum.value)).collect();
        sums.join(", ")
    }
}

/// Another copy of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    vid: String,
    copy: u64,
    fseq: u64,
}

impl Copy {
    /// The copy that an object shows.
    pub fn of(file: &TapeFile) -> Copy {
        Copy { vid: file.tf.vid.clone(), copy: file.tf.copy_nb, fseq: file.tf.f_seq }
    }
}

/// A file that is on the tape.
#[derive(Debug, Clone)]
pub struct FileLeft {
    /// What CTA says.
    pub file: TapeFile,
    /// It was in the listing before the repack; none: there is nothing to compare with.
    pub listed: Option<bool>,
    /// Its other copies; none: CTA was not asked.
    pub copies: Option<Vec<Copy>>,
}

impl FileLeft {
    /// For machines.
    pub fn object(&self) -> Value {
        let file = &self.file;
        let copies = self.copies.as_ref().map(|copies| {
            copies.iter().map(|copy| json!({"vid": copy.vid, "copy": copy.copy, "fseq": copy.fseq})).collect::<Vec<_>>()
        });
        let sums: Vec<Value> =
            file.af.checksum.iter().map(|sum| json!({"type": sum.kind, "value": sum.value})).collect();
        json!({
            "vid": file.tf.vid,
            "fseq": file.tf.f_seq,
            "archive_id": file.af.archive_id,
            "copy": file.tf.copy_nb,
            "size": file.af.size,
            "checksum": sums,
            "disk_instance": file.df.disk_instance,
            "disk_id": file.df.disk_id,
            "storage_class": file.af.storage_class,
            "in_listing": self.listed,
            "copies": copies,
        })
    }

    /// For people.
    pub fn cells(&self) -> Vec<String> {
        let file = &self.file;
        let copies = match &self.copies {
            None => "not asked".to_owned(),
            Some(copies) if copies.is_empty() => "none".to_owned(),
            Some(copies) => {
                copies.iter().map(|copy| format!("{} (copy {})", copy.vid, copy.copy)).collect::<Vec<_>>().join(", ")
            }
        };
        let listed = match self.listed {
            None => "-",
            Some(true) => "yes",
            Some(false) => "no",
        };
        vec![
            file.tf.f_seq.to_string(),
            file.af.archive_id.to_string(),
            file.tf.copy_nb.to_string(),
            bytes(i64::try_from(file.af.size).unwrap_or(i64::MAX)),
            file.checksum(),
            file.df.disk_instance.clone(),
            file.df.disk_id.clone(),
            file.af.storage_class.clone(),
            listed.to_owned(),
            copies,
        ]
    }
}

/// The listing of before the repack, read beside the list of now: both are in the order of fSeq, so that no more than a line of it is
/// ever in memory.
pub struct Listing {
    lines: Option<Lines<BufReader<File>>>,
    next: Option<(u64, u64)>,
    last: Option<u64>,
    both: u64,
    why_not: Option<String>,
}

impl Listing {
    /// Opens it, if it is there and on this host.
    pub fn of(made: Option<&ListingMade>) -> Listing {
        let closed = |why: String| Listing { lines: None, next: None, last: None, both: 0, why_not: Some(why) };
        let Some(made) = made else { return closed("the automation made none".to_owned()) };
        let here = rustix::system::uname().nodename().to_string_lossy().into_owned();
        match File::open(&made.path) {
            Ok(file) if made.host == here => Listing::reading(file),
            _ if made.host != here => closed(format!("on host {}, not compared here", made.host)),
            Ok(_) => closed("not compared".to_owned()),
            Err(error) => closed(format!("not compared: it cannot be read: {error}")),
        }
    }

    fn reading(file: File) -> Listing {
        let lines = BufReader::with_capacity(256 << 10, file).lines();
        let mut listing = Listing { lines: Some(lines), next: None, last: None, both: 0, why_not: None };
        listing.advance();
        listing
    }

    /// Whether a file was in it; to be asked in the order of fSeq. None: there is nothing to compare with.
    pub fn has(&mut self, file: &TapeFile) -> Option<bool> {
        let (fseq, id) = (file.tf.f_seq, file.af.archive_id);
        if self.why_not.is_none() && self.last.is_some_and(|last| last >= fseq) {
            self.stop("CTA does not list the files in the order of fSeq");
        }
        self.last = Some(fseq);
        while self.next.is_some_and(|(next, _)| next < fseq) {
            self.advance();
        }
        if self.why_not.is_some() {
            return None;
        }
        let there = self.next == Some((fseq, id));
        self.both += u64::from(there);
        Some(there)
    }

    /// No more files come: the rest of the listing is not on the tape.
    pub fn end(&mut self) {
        self.lines = None;
        self.next = None;
    }

    /// Whether the two were compared to the end.
    pub fn compared(&self) -> bool {
        self.why_not.is_none()
    }

    /// Files of the listing, of which there are so many, that are not on the tape any more.
    pub fn gone(&self, listed: Option<u64>) -> Option<u64> {
        listed.filter(|_| self.compared()).map(|listed| listed.saturating_sub(self.both))
    }

    /// In words.
    pub fn standing(&self) -> &str {
        self.why_not.as_deref().unwrap_or("compared")
    }

    /// The two cannot be compared after all; the first reason counts.
    pub fn stop(&mut self, why: &str) {
        self.why_not.get_or_insert_with(|| format!("not compared: {why}"));
        self.end();
    }

    fn advance(&mut self) {
        let before = self.next.take();
        let Some(line) = self.lines.as_mut().and_then(Iterator::next) else { return };
        let file = line.map_err(|error| error.to_string()).and_then(|line| {
            serde_json::from_str::<TapeFile>(&line).map_err(|error| format!("a line of it is no file: {error}"))
        });
        match file {
            Err(why) => self.stop(&why),
            Ok(file) if before.is_some_and(|(fseq, _)| fseq >= file.tf.f_seq) => {
                self.stop("it is not in the order of fSeq")
            }
            Ok(file) => self.next = Some((file.tf.f_seq, file.af.archive_id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn file(fseq: u64, id: u64) -> TapeFile {
        let text = format!(
            r#"{{"af":{{"archiveId":"{id}","size":"7","checksum":[{{"type":"ADLER32","value":"1a"}}]}},"tf":{{"vid":"V01001","copyNb":1,"fSeq":"{fseq}"}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn listing(lines: &[String]) -> Listing {
        let mut file = tempfile::tempfile().unwrap();
        for line in lines {
            writeln!(file, "{line}").unwrap();
        }
        file.rewind().unwrap();
        Listing::reading(file)
    }

    fn line(fseq: u64, id: u64) -> String {
        format!(r#"{{"af":{{"archiveId":"{id}","size":"7"}},"tf":{{"vid":"V01001","copyNb":1,"fSeq":"{fseq}"}}}}"#)
    }

    #[test]
    fn files_are_found_in_the_listing_by_place_and_identity() {
        let lines: Vec<String> = [(1, 11), (2, 12), (5, 15), (9, 19)].map(|(fseq, id)| line(fseq, id)).into();
        let mut listing = listing(&lines);
        let answers: Vec<Option<bool>> =
            [(2, 12), (5, 99), (7, 17), (9, 19), (10, 20)].map(|(fseq, id)| listing.has(&file(fseq, id))).into();
        assert_eq!(answers, [Some(true), Some(false), Some(false), Some(true), Some(false)]);
        listing.end();
        assert_eq!((listing.compared(), listing.gone(Some(4))), (true, Some(2)));
    }

    #[test]
    fn nothing_is_concluded_from_a_listing_that_cannot_be_trusted() {
        let lists = [vec![line(1, 11), "{".to_owned()], vec![line(3, 13), line(1, 11), line(4, 14)]];
        for lines in lists {
            let mut listing = listing(&lines);
            listing.has(&file(4, 14));
            listing.end();
            assert_eq!((listing.compared(), listing.gone(Some(3))), (false, None), "{lines:?}");
            assert!(listing.standing().contains("not compared"), "{}", listing.standing());
        }
        let mut listing = listing(&[line(1, 11), line(2, 12)]);
        assert_eq!(listing.has(&file(2, 12)), Some(true));
        assert_eq!(listing.has(&file(1, 11)), None, "the list of now is out of order");
        assert_eq!(listing.gone(Some(2)), None);
    }

    #[test]
    fn a_listing_on_another_host_is_named_and_not_looked_for() {
        let made = ListingMade {
            host: "another-host".to_owned(),
            path: "/dev/null".to_owned(),
            files: 1,
            bytes: 7,
            sha256: String::new(),
            round: 1,
        };
        let listing = Listing::of(Some(&made));
        assert!(listing.standing().contains("another-host"), "{}", listing.standing());
        assert!(!listing.compared());
    }
}

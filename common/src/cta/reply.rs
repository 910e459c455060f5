//! What `cta-admin --json` prints, as types: only the keys we use, each with a default, unless its absence is a fault.

use serde::{Deserialize, Deserializer, Serialize};

/// Who did something, where and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log3 {
    /// CTA user.
    pub username: String,
    /// Client host.
    pub host: String,
    /// Seconds since the Unix epoch.
    #[serde(deserialize_with = "integer")]
    pub time: u64,
}

/// Which drive did something, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log2 {
    /// Drive name.
    pub drive: String,
    /// Seconds since the Unix epoch.
    #[serde(deserialize_with = "integer")]
    pub time: u64,
}

/// One object of `tape ls`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tape {
    /// Volume identifier.
    pub vid: String,
    /// Media type name.
    pub media_type: String,
    /// Logical library name.
    pub logical_library: String,
    /// Tape pool name.
    pub tapepool: String,
    /// Bytes ever written since the last reclaim.
    #[serde(deserialize_with = "integer")]
    pub occupancy: u64,
    /// Last file sequence number; 0: nothing written since the last reclaim.
    #[serde(deserialize_with = "integer")]
    pub last_fseq: u64,
    /// No more writing.
    pub full: bool,
    /// CTA's own word: `ACTIVE`, `REPACKING`, ...
    pub state: String,
    /// Free text of the last state change.
    #[serde(default)]
    pub state_reason: String,
    /// Cached number of live files.
    #[serde(default, deserialize_with = "integer")]
    pub nb_master_files: u64,
    /// Cached bytes of live files.
    #[serde(default, deserialize_with = "integer")]
    pub master_data_in_bytes: u64,
    /// The cached figures are out of date.
    #[serde(default)]
    pub dirty: bool,
    /// When and where it was labelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_log: Option<Log2>,
    /// When and where it was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_written_log: Option<Log2>,
    /// Live counts per storage class; present from CTA 5.11.20 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_statistics: Option<Vec<serde_json::Value>>,
}

/// One object of `repack ls`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Repack {
    /// Source tape.
    pub vid: String,
    /// `Pending`, `ToExpand`, `Starting`, `Running`, `Complete`, `Failed`.
    pub status: String,
    /// Who submitted it and when: tells our request from another.
    pub creation_log: Log3,
    /// Live files when expanded.
    #[serde(deserialize_with = "integer")]
    pub total_files_on_tape_at_start: u64,
    /// False: another round is needed. A missing key (before 5.10.9) reads as true.
    #[serde(default = "yes")]
    pub all_files_selected_at_start: bool,
    /// Files to retrieve.
    #[serde(deserialize_with = "integer")]
    pub total_files_to_retrieve: u64,
    /// Copies to write.
    #[serde(deserialize_with = "integer")]
    pub total_files_to_archive: u64,
    /// Bytes to write.
    #[serde(deserialize_with = "integer")]
    pub total_bytes_to_archive: u64,
    /// Files read.
    #[serde(deserialize_with = "integer")]
    pub retrieved_files: u64,
    /// Copies written.
    #[serde(deserialize_with = "integer")]
    pub archived_files: u64,
    /// Bytes written.
    #[serde(deserialize_with = "integer")]
    pub archived_bytes: u64,
    /// Files that could not be read.
    #[serde(deserialize_with = "integer")]
    pub failed_to_retrieve_files: u64,
    /// Copies that could not be written.
    #[serde(deserialize_with = "integer")]
    pub failed_to_archive_files: u64,
}

impl Repack {
    /// Complete or Failed: CTA does nothing more for it.
    pub fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "Complete" | "Failed")
    }
}

fn yes() -> bool {
    true
}

/// One object of `recycletf ls`: only what decides about a reclaim.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecycleEntry {
    /// `REPACK` for entries made by repack.
    pub reason_log: String,
    /// Seconds since the Unix epoch.
    #[serde(deserialize_with = "integer")]
    pub recycle_log_time: u64,
}

/// One object of `tapepool ls`, `mountpolicy ls`: its name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Named {
    /// The name.
    pub name: String,
}

/// One object of `virtualorganization ls`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualOrganization {
    /// The name.
    pub name: String,
    /// CTA repacks on its behalf. The key exists from 5.10.1 on.
    #[serde(default)]
    pub is_repack_vo: Option<bool>,
}

/// One object of `archiveroute ls`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ArchiveRoute {
    /// Where new files go.
    pub tapepool: String,
}

/// A 64-bit integer as CTA prints it: a string of digits or a number.
///
/// # Errors
/// For anything else, a negative number, or one that does not fit.
pub fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(|_| {
            serde::de::Error::custom(format!("'{}' is not a 64-bit unsigned integer", text.escape_default()))
        }),
    }
}

//! What `cta-admin --json` prints, as types: only the keys we use, each with a default, unless its absence is a fault.

use std::fmt;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Who did something, where and when. All of it is required: two logs that are unknown must not look the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Cached number of live files. Required: 0 instead of an unknown number would make every tape a candidate.
    #[serde(deserialize_with = "integer")]
    pub nb_master_files: u64,
    /// Cached bytes of live files. Required, for the same reason.
    #[serde(deserialize_with = "integer")]
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

/// One object of `repack ls`. Required is what says whose it is, how far it came, and that nothing failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repack {
    /// Source tape.
    pub vid: String,
    /// `Pending`, `ToExpand`, `Starting`, `Running`, `Complete`, `Failed`.
    pub status: String,
    /// Who submitted it and when: tells our request from another.
    pub creation_log: Log3,
    /// Live files when expanded; 0 before 5.10.9, which does not say.
    #[serde(default, deserialize_with = "counter")]
    pub total_files_on_tape_at_start: u64,
    /// False: another round is needed. A missing key (before 5.10.9) reads as true.
    #[serde(default = "yes")]
    pub all_files_selected_at_start: bool,
    /// Files to retrieve.
    #[serde(deserialize_with = "counter")]
    pub total_files_to_retrieve: u64,
    /// Copies to write.
    #[serde(deserialize_with = "counter")]
    pub total_files_to_archive: u64,
    /// Bytes to write.
    #[serde(default, deserialize_with = "counter")]
    pub total_bytes_to_archive: u64,
    /// Files read.
    #[serde(deserialize_with = "counter")]
    pub retrieved_files: u64,
    /// Copies written.
    #[serde(deserialize_with = "counter")]
    pub archived_files: u64,
    /// Bytes written.
    #[serde(default, deserialize_with = "counter")]
    pub archived_bytes: u64,
    /// Files that could not be read. No difference of numbers, so a huge one is not taken for 0.
    #[serde(deserialize_with = "integer")]
    pub failed_to_retrieve_files: u64,
    /// Copies that could not be written. As above.
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

/// The one object of `version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Of `cta-admin`.
    pub client_version: Release,
    /// Of the front end that answered.
    pub server_version: Release,
    /// Catalogue schema, such as `15.0`.
    #[serde(default)]
    pub catalogue_version: String,
    /// The catalogue is being upgraded: not the time to change anything.
    #[serde(default)]
    pub is_upgrading: bool,
    /// Which scheduler is behind this front end; empty before 5.11.6.
    #[serde(default)]
    pub scheduler_backend_name: String,
    /// CTA instance; empty before 5.11.6.
    #[serde(default)]
    pub instance_name: String,
}

/// A release of CTA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Such as `5.11.20.0-1`.
    pub cta_version: String,
}

/// A 64-bit integer as CTA prints it: a string of digits or a number.
///
/// # Errors
/// For anything else, a negative number, or one that does not fit.
pub fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(Integer)
}

/// An [`integer`] that CTA got by subtracting or adding up. A difference of unsigned numbers that went below zero is
/// printed as nearly 2^64; nothing that CTA counts comes near half of that, so it reads as the 0 that was meant.
///
/// # Errors
/// As [`integer`].
pub fn counter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = integer(deserializer)?;
    Ok(if i64::try_from(value).is_ok() { value } else { 0 })
}

struct Integer;

impl Visitor<'_> for Integer {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a 64-bit unsigned integer, as a number or a string of digits")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
        u64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

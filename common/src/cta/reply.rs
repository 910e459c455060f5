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

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    const TAPES: &str = include_str!("fixtures/tape_ls.json");
    const OLD_TAPES: &str = include_str!("fixtures/tape_ls_4_0.json");
    const REPACKS: &str = include_str!("fixtures/repack_ls.json");
    const OLD_REPACKS: &str = include_str!("fixtures/repack_ls_4_0.json");

    fn read<T: DeserializeOwned>(text: &str) -> Vec<T> {
        serde_json::from_str(text).unwrap()
    }

    fn first(text: &str) -> serde_json::Map<String, Value> {
        read(text).swap_remove(0)
    }

    #[test]
    fn tapes_are_read_with_integers_as_strings_or_numbers() {
        let tapes: Vec<Tape> = read(TAPES);
        assert_eq!((tapes[0].occupancy, tapes[0].last_fseq), (11_950_000_000_000, 4711));
        assert_eq!((tapes[0].nb_master_files, tapes[0].master_data_in_bytes), (1500, 3_900_000_000_000));
        assert_eq!((tapes[2].occupancy, tapes[2].last_fseq, tapes[2].nb_master_files), (0, 0, 0));
        assert_eq!(tapes[0].last_written_log.as_ref().unwrap().time, 1_700_000_000);
        assert_eq!((&*tapes[1].state, &*tapes[1].state_reason), ("REPACKING", "repack of 'old' media"));
        assert_eq!((tapes[0].full, tapes[1].dirty, tapes[2].full), (true, true, false));
    }

    #[test]
    fn what_a_tape_does_not_have_is_absent_and_not_zero() {
        let tapes: Vec<Tape> = read(TAPES);
        assert_eq!((&tapes[2].label_log, &tapes[2].last_written_log), (&None, &None));
        assert_eq!(tapes[0].storage_class_statistics.as_deref(), Some(&[][..]));
        assert_eq!(tapes[2].storage_class_statistics.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn tapes_of_older_releases_are_read() {
        let tape = &read::<Tape>(OLD_TAPES)[0];
        assert!(!tape.dirty);
        assert_eq!(tape.storage_class_statistics, None, "an old front end proves nothing about files");
        assert_eq!(tape.occupancy, 11_950_000_000_000);
    }

    #[test]
    fn a_tape_without_what_decides_is_a_fault() {
        let required = [
            "vid",
            "mediaType",
            "logicalLibrary",
            "tapepool",
            "occupancy",
            "lastFseq",
            "full",
            "state",
            "nbMasterFiles",
            "masterDataInBytes",
        ];
        for key in required {
            let mut tape = first(OLD_TAPES);
            tape.remove(key).unwrap();
            let error = serde_json::from_value::<Tape>(tape.into()).unwrap_err();
            assert!(error.to_string().contains(&format!("missing field `{key}`")), "{error}");
        }
    }

    #[test]
    fn repacks_are_read_in_every_status() {
        let repacks: Vec<Repack> = read(REPACKS);
        let finals: Vec<(&str, bool)> = repacks.iter().map(|r| (&*r.status, r.is_final())).collect();
        let expected = [
            ("Pending", false),
            ("ToExpand", false),
            ("Starting", false),
            ("Running", false),
            ("Complete", true),
            ("Complete", true),
            ("Failed", true),
            ("UNKNOWN", false),
        ];
        assert_eq!(finals, expected);
        assert_eq!(repacks[4].creation_log.time, 1_760_000_000);
        assert_eq!((repacks[4].all_files_selected_at_start, repacks[5].all_files_selected_at_start), (true, false));
        assert_eq!((repacks[6].failed_to_retrieve_files, repacks[6].failed_to_archive_files), (2, 1));
        assert_eq!((repacks[3].total_files_to_archive, repacks[3].archived_files), (1500, 700));
    }

    #[test]
    fn a_counter_that_went_below_zero_reads_as_zero_but_a_huge_number_of_failures_does_not() {
        let repacks: Vec<Repack> = read(REPACKS);
        assert_eq!(repacks[7].archived_files, 0);
        let mut repack = first(REPACKS);
        for (value, expected) in [(u64::MAX, 0), (1 << 63, 0), ((1 << 63) - 1, (1 << 63) - 1)] {
            for json in [json!(value), json!(value.to_string())] {
                repack.insert("retrievedFiles".into(), json.clone());
                repack.insert("failedToArchiveFiles".into(), json);
                let read: Repack = serde_json::from_value(repack.clone().into()).unwrap();
                assert_eq!((read.retrieved_files, read.failed_to_archive_files), (expected, value));
            }
        }
    }

    #[test]
    fn repacks_of_older_releases_are_read_and_count_as_whole() {
        let repack = &read::<Repack>(OLD_REPACKS)[0];
        assert!(repack.all_files_selected_at_start);
        assert_eq!(repack.total_files_on_tape_at_start, 0);
        assert_eq!(repack.archived_files, 1500);
    }

    #[test]
    fn a_repack_without_what_decides_is_a_fault() {
        let required = [
            "vid",
            "status",
            "creationLog",
            "totalFilesToRetrieve",
            "totalFilesToArchive",
            "retrievedFiles",
            "archivedFiles",
            "failedToRetrieveFiles",
            "failedToArchiveFiles",
        ];
        for key in required {
            let mut repack = first(OLD_REPACKS);
            repack.remove(key).unwrap();
            let error = serde_json::from_value::<Repack>(repack.into()).unwrap_err();
            assert!(error.to_string().contains(&format!("missing field `{key}`")), "{error}");
        }
        for key in ["username", "host", "time"] {
            let mut repack = first(OLD_REPACKS);
            repack["creationLog"].as_object_mut().unwrap().remove(key).unwrap();
            assert!(serde_json::from_value::<Repack>(repack.into()).is_err(), "creationLog without {key}");
        }
    }

    #[test]
    fn the_other_lists_are_read() {
        let entries: Vec<RecycleEntry> = read(include_str!("fixtures/recycletf_ls.json"));
        assert_eq!((&*entries[0].reason_log, entries[0].recycle_log_time), ("REPACK", 1_760_003_600));
        assert_eq!(entries[1].recycle_log_time, 1_760_003_700);
        let orgs: Vec<VirtualOrganization> = read(include_str!("fixtures/virtualorganization_ls.json"));
        let repack: Vec<Option<bool>> = orgs.iter().map(|org| org.is_repack_vo).collect();
        assert_eq!(repack, [Some(false), Some(true), None]);
        let routes: Vec<ArchiveRoute> = read(include_str!("fixtures/archiveroute_ls.json"));
        assert_eq!((&*routes[0].tapepool, &*routes[1].tapepool), ("pool_beta", "pool_gamma"));
        assert_eq!(read::<Named>(include_str!("fixtures/tapepool_ls.json"))[0].name, "quarantine");
        assert_eq!(read::<Named>(include_str!("fixtures/mountpolicy_ls.json"))[0].name, "repack_low");
    }

    #[test]
    fn the_version_is_read_also_of_older_releases() {
        let text = include_str!("fixtures/version.json");
        let version = &read::<Version>(text)[0];
        assert_eq!(version.client_version.cta_version, "5.11.19.0-1");
        assert_eq!(version.server_version.cta_version, "5.11.20.0-1");
        assert_eq!((&*version.scheduler_backend_name, version.is_upgrading), ("repackdb", false));
        let mut old = first(text);
        old.remove("schedulerBackendName");
        old.remove("instanceName");
        old.insert("isUpgrading".into(), true.into());
        let old: Version = serde_json::from_value(old.into()).unwrap();
        assert_eq!((&*old.scheduler_backend_name, old.is_upgrading), ("", true));
    }

    #[test]
    fn an_integer_is_a_string_of_digits_or_a_number_and_nothing_else() {
        #[derive(Deserialize)]
        struct One(#[serde(deserialize_with = "integer")] u64);
        for (json, expected) in [
            (json!(0), 0),
            (json!("0"), 0),
            (json!("007"), 7),
            (json!(u64::MAX), u64::MAX),
            (json!("18446744073709551615"), u64::MAX),
        ] {
            let text = json.to_string();
            assert_eq!(serde_json::from_str::<One>(&text).unwrap().0, expected, "{text}");
            assert_eq!(serde_json::from_value::<One>(json).unwrap().0, expected, "{text}");
        }
        for text in [
            "-1",
            "1.5",
            "1e3",
            "null",
            "true",
            "[]",
            "{}",
            r#""""#,
            r#""-1""#,
            r#""+1""#,
            r#"" 1""#,
            r#""1 ""#,
            r#""0x1""#,
            r#""1.0""#,
            "18446744073709551616",
            r#""18446744073709551616""#,
        ] {
            assert!(serde_json::from_str::<One>(text).is_err(), "{text}");
        }
    }
}

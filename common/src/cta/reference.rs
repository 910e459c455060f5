//! Reference lists of `cta-admin --json`, as far as a check of the site or of a tape needs them.

use serde::Deserialize;

use super::reply::integer;

/// One object of `tapepool ls`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TapePool {
    /// The name.
    pub name: String,
    /// Virtual organization of the pool.
    #[serde(default)]
    pub vo: String,
    /// Pools that it is supplied from, with commas between them; filled until CTA 5.11.16.
    #[serde(default)]
    pub supply: String,
    /// Pools that it is supplied from; the key exists from 5.11.1 on.
    #[serde(default)]
    pub supply_source: Vec<String>,
}

impl TapePool {
    /// Pools that it is supplied from, whichever release says so.
    pub fn supplied_from(&self) -> Vec<&str> {
        let mut from: Vec<&str> = self.supply_source.iter().map(String::as_str).collect();
        from.extend(self.supply.split(',').map(str::trim).filter(|name| !name.is_empty()));
        from.sort_unstable();
        from.dedup();
        from
    }
}

/// One object of `logicallibrary ls`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogicalLibrary {
    /// The name.
    pub name: String,
    /// No tape of it is mounted.
    #[serde(default)]
    pub is_disabled: bool,
    /// Why; the key exists from 4.7 on.
    #[serde(default)]
    pub disabled_reason: String,
}

/// One object of `archiveroute ls`: where copies are written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Storage class.
    pub storage_class: String,
    /// Copy number, from 1.
    #[serde(deserialize_with = "integer")]
    pub copy_number: u64,
    /// `DEFAULT` or `REPACK`, which repacks prefer; empty before 5.11.1.
    #[serde(default)]
    pub archive_route_type: String,
    /// Target pool.
    pub tapepool: String,
}

/// One object of `storageclass ls`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageClass {
    /// The name.
    pub name: String,
    /// Copies that a file of it has on tape.
    #[serde(deserialize_with = "integer")]
    pub nb_copies: u64,
}

/// One object of `tape ls`: what says whether files fit onto it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WritableTape {
    /// Volume identifier.
    pub vid: String,
    /// Logical library name.
    pub logical_library: String,
    /// Nominal capacity in bytes.
    #[serde(default, deserialize_with = "integer")]
    pub capacity: u64,
    /// Bytes written.
    #[serde(deserialize_with = "integer")]
    pub occupancy: u64,
}

/// One object of `tapefile ls`: what decides where its copy goes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TapeFile {
    /// The file.
    pub af: ArchiveFile,
    /// Its copy on this tape.
    pub tf: Copy,
}

/// The part `af` of a [`TapeFile`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveFile {
    /// Storage class.
    pub storage_class: String,
    /// Bytes.
    #[serde(deserialize_with = "integer")]
    pub size: u64,
}

/// The part `tf` of a [`TapeFile`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Copy {
    /// Copy number, from 1.
    #[serde(deserialize_with = "integer")]
    pub copy_nb: u64,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn read<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn numbers_are_read_as_strings_and_as_numbers_and_keys_of_newer_releases_may_be_absent() {
        let file = json!({"af": {"storageClass": "raw", "size": "7", "archiveId": "1"}, "tf": {"copyNb": 2, "vid": "V"}, "df": {}});
        let file: TapeFile = read(file);
        assert_eq!((&*file.af.storage_class, file.af.size, file.tf.copy_nb), ("raw", 7, 2));
        let old: Route = read(json!({"storageClass": "raw", "copyNumber": "1", "tapepool": "p"}));
        assert_eq!((old.copy_number, &*old.archive_route_type), (1, ""));
        let class: StorageClass = read(json!({"name": "raw", "nbCopies": "2", "vo": "a"}));
        assert_eq!(class.nb_copies, 2);
        let old: LogicalLibrary = read(json!({"name": "L"}));
        assert!(!old.is_disabled && old.disabled_reason.is_empty());
        let tape: WritableTape = read(json!({"vid": "V", "logicalLibrary": "L", "occupancy": "5"}));
        assert_eq!((tape.capacity, tape.occupancy), (0, 5));
    }

    #[test]
    fn what_supplies_a_pool_is_read_of_every_release() {
        let old: TapePool = read(json!({"name": "p", "vo": "v", "supply": "b, a"}));
        assert_eq!(old.supplied_from(), ["a", "b"]);
        let new: TapePool = read(json!({"name": "p", "vo": "v", "supply": "", "supplySource": ["a"]}));
        assert_eq!(new.supplied_from(), ["a"]);
        let both: TapePool = read(json!({"name": "p", "supply": "a", "supplySource": ["a"]}));
        assert_eq!(both.supplied_from(), ["a"]);
    }
}

//! Replies of `cta-admin` that are nearly right: nothing panics, and nothing that could make an unknown number look like zero is
//! believed. `PROPTEST_CASES=1000000 cargo test -p common --test replies` looks longer.

use common::cta::reply::{ArchiveRoute, Log2, Log3, Named, RecycleEntry, Repack, Tape, Version, VirtualOrganization};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A right reply of each kind, with the keys that we read and no other.
fn samples() -> [(&'static str, Value); 9] {
    let log = json!({"username": "ops", "host": "adm", "time": "1790000000"});
    let drive = json!({"drive": "D1", "time": "1790000000"});
    let tape = json!({
        "vid": "V01007", "mediaType": "LTO9", "logicalLibrary": "IBM1L9", "tapepool": "raw", "occupancy": "18", "lastFseq": "4",
        "full": true, "state": "ACTIVE", "stateReason": "", "nbMasterFiles": "2", "masterDataInBytes": "9", "dirty": false,
        "labelLog": drive, "lastWrittenLog": drive
    });
    let repack = json!({
        "vid": "V01007", "status": "Running", "creationLog": log, "totalFilesOnTapeAtStart": "4",
        "allFilesSelectedAtStart": true, "totalFilesToRetrieve": "4", "totalFilesToArchive": "4", "totalBytesToArchive": "18",
        "retrievedFiles": "4", "archivedFiles": "4", "archivedBytes": "18", "failedToRetrieveFiles": "0",
        "failedToArchiveFiles": "0"
    });
    let version = json!({
        "clientVersion": {"ctaVersion": "5.11", "xrootdSsiProtobufInterfaceVersion": "v1"},
        "serverVersion": {"ctaVersion": "5.11", "xrootdSsiProtobufInterfaceVersion": "v1"},
        "catalogueConnectionString": "", "catalogueVersion": "15.0", "isUpgrading": false, "instanceName": "cta"
    });
    [
        ("tape", tape),
        ("repack", repack),
        ("recycletf", json!({"vid": "V01007", "reasonLog": "REPACK", "recycleLogTime": "1790000000"})),
        ("named", json!({"name": "raw"})),
        ("vo", json!({"name": "r", "isRepackVo": true})),
        ("route", json!({"tapepool": "raw"})),
        ("version", version),
        ("log3", log),
        ("log2", drive),
    ]
}

/// Reads a value as its kind; what the type writes again of it.
fn read(kind: &str, value: &Value) -> Option<Value> {
    fn of<T: DeserializeOwned + std::fmt::Debug>(value: &Value) -> Option<Value> {
        let text = value.to_string();
        let from_text = serde_json::from_str::<T>(&text);
        let from_value = serde_json::from_value::<T>(value.clone());
        assert_eq!(from_text.is_ok(), from_value.is_ok(), "{text}");
        from_text.ok().map(|read| Value::String(format!("{read:?}")))
    }
    match kind {
        "tape" => of::<Tape>(value),
        "repack" => of::<Repack>(value),
        "recycletf" => of::<RecycleEntry>(value),
        "named" => of::<Named>(value),
        "vo" => of::<VirtualOrganization>(value),
        "route" => of::<ArchiveRoute>(value),
        "version" => of::<Version>(value),
        "log3" => of::<Log3>(value),
        _ => of::<Log2>(value),
    }
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[-+ 0-9eE.]{0,24}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::hash_map("[a-zA-Z]{1,12}", inner, 0..3).prop_map(Value::from_iter),
        ]
    })
}

/// A whole number that the program may believe: what a 64-bit counter looks like, as text or as a number.
fn counter(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_u64().is_some(),
        Value::String(text) => {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok()
        }
        _ => false,
    }
}

#[test]
fn the_samples_are_right() {
    for (kind, sample) in samples() {
        assert!(read(kind, &sample).is_some(), "{kind}: {sample}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_at_all_is_read_or_refused_and_nothing_panics(value in anything()) {
        for (kind, _) in samples() {
            read(kind, &value);
        }
    }

    #[test]
    fn one_key_that_is_not_right_is_refused_or_was_never_a_number(at: prop::sample::Index, key: prop::sample::Index, value in anything()) {
        let (kind, mut sample) = samples()[at.index(9)].clone();
        let object = sample.as_object_mut().expect("an object");
        let name = object.keys().nth(key.index(object.len())).expect("a key").clone();
        let was_counter = counter(&object[&name]);
        object.insert(name.clone(), value.clone());
        let read = read(kind, &sample);
        if was_counter && !counter(&value) {
            prop_assert!(read.is_none(), "{kind}.{name} = {value} was believed: {read:?}");
        }
    }

    #[test]
    fn a_missing_key_is_refused_or_reads_as_unknown_but_never_as_another_tape(at: prop::sample::Index, key: prop::sample::Index) {
        let (kind, mut sample) = samples()[at.index(9)].clone();
        let object = sample.as_object_mut().expect("an object");
        let name = object.keys().nth(key.index(object.len())).expect("a key").clone();
        object.remove(&name);
        let read = read(kind, &sample);
        let vital = matches!(
            (kind, name.as_str()),
            ("tape", "vid" | "occupancy" | "lastFseq" | "full" | "state" | "tapepool" | "nbMasterFiles" | "masterDataInBytes")
                | ("repack", "vid" | "status" | "creationLog")
                | ("log3", _)
        );
        prop_assert!(!vital || read.is_none(), "{kind} without {name} was believed: {read:?}");
    }
}

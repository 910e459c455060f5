//! Rows as CTA prints them: 64-bit integers as strings, defaults printed, logs that were never set left out. The long
//! lists are written by hand, which keeps them fast without optimisation.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::world::{
    Destination, HOST, Keyset, Mark, Pool, Recycled, Request, Run, Scheduler, Status, Tape, USER, World,
};

const CREATED: &str = "1691000000";

fn log3(time: &str) -> Value {
    json!({"username": USER, "host": HOST, "time": time})
}

/// A JSON string.
fn quoted(out: &mut String, text: &str) {
    let plain = |b: u8| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\';
    if text.bytes().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

/// An object being written.
struct Object<'a>(&'a mut String);

impl Object<'_> {
    fn key(&mut self, key: &str) {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        quoted(self.0, key);
        self.0.push(':');
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        quoted(self.0, value);
    }

    fn long(&mut self, key: &str, value: u64) {
        self.key(key);
        write!(self.0, "\"{value}\"").expect("writing to a String never fails");
    }

    fn truth(&mut self, key: &str, value: bool) {
        self.key(key);
        self.0.push_str(if value { "true" } else { "false" });
    }

    fn raw(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push_str(value);
    }

    fn mark(&mut self, key: &str, mark: Option<&Mark>) {
        if let Some(mark) = mark {
            self.key(key);
            self.0.push('{');
            self.text("drive", &mark.drive);
            self.long("time", mark.time);
            self.0.push('}');
        }
    }

    fn who(&mut self, key: &str, time: u64) {
        self.key(key);
        self.0.push('{');
        self.text("username", USER);
        self.text("host", HOST);
        self.long("time", time);
        self.0.push('}');
    }
}

/// Appends the object of `tape ls`.
pub fn tape(out: &mut String, world: &World, vid: &str, tape: &Tape, statistics: bool) {
    let pool = world.pools.get(&tape.pool);
    let head = world.keyset == Keyset::Head;
    out.push('{');
    let mut object = Object(out);
    object.text("vid", vid);
    object.text("mediaType", &tape.media);
    object.text("vendor", &tape.vendor);
    object.text("logicalLibrary", &tape.logical_library);
    object.text("tapepool", &tape.pool);
    object.text("vo", pool.map_or("", |pool| pool.vo.as_str()));
    object.text("encryptionKeyName", &tape.key);
    object.long("capacity", world.media.get(&tape.media).copied().unwrap_or(0));
    object.long("occupancy", tape.occupancy);
    object.long("lastFseq", tape.last_fseq);
    object.truth("full", tape.full);
    object.mark("labelLog", tape.label.as_ref());
    object.mark("lastWrittenLog", tape.written.as_ref());
    object.mark("lastReadLog", tape.read.as_ref());
    object.who("creationLog", tape.created);
    object.who("lastModificationLog", tape.modified);
    object.text("comment", &tape.comment);
    object.long("readMountCount", tape.reads);
    object.long("writeMountCount", tape.writes);
    object.long("nbMasterFiles", tape.cached_files);
    object.long("masterDataInBytes", tape.cached_bytes);
    object.truth("fromCastor", tape.from_castor);
    object.text("state", tape.state.name());
    object.text("stateReason", &tape.reason);
    object.long("stateUpdateTime", tape.state_time);
    object.text("stateModifiedBy", &tape.state_by);
    object.truth("dirty", tape.dirty);
    object.text("verificationStatus", &tape.verification);
    object.text("purchaseOrder", &tape.purchase_order);
    object.text("physicalLibrary", world.libraries.get(&tape.logical_library).map_or("", String::as_str));
    if head {
        object.text("labelFormat", "CTA");
        object.text("instanceName", &world.instance);
        let live = if statistics { class_statistics(tape) } else { "[]".to_owned() };
        object.raw("storageClassStatistics", &live);
    }
    out.push('}');
}

/// Live counts per storage class.
fn class_statistics(tape: &Tape) -> String {
    let mut classes: Vec<(&str, u64, u64)> = Vec::new();
    for run in &tape.files {
        match classes.iter_mut().find(|class| class.0 == run.class) {
            Some(class) => {
                class.1 += run.count;
                class.2 += run.count * run.size;
            }
            None => classes.push((&run.class, run.count, run.count * run.size)),
        }
    }
    classes.sort_unstable();
    let row = |(name, files, bytes): &(&str, u64, u64)| json!({"storageClassName": name, "nbMasterFiles": files.to_string(), "masterDataInBytes": bytes.to_string()});
    Value::from(classes.iter().map(row).collect::<Vec<_>>()).to_string()
}

/// Calls `each` with every file of the runs, as a run of one.
pub fn files(runs: &[Run], mut each: impl FnMut(Run)) {
    for run in runs {
        for i in 0..run.count {
            each(Run { fseq: run.fseq + i, archive_id: run.archive_id + i, count: 1, ..run.clone() });
        }
    }
}

/// Virtual organisation of a storage class.
pub fn vo_of_class<'a>(world: &'a World, class: &str) -> &'a str {
    world.classes.get(class).map_or("", String::as_str)
}

fn instance_of(world: &World, class: &str) -> String {
    format!("eos{}", vo_of_class(world, class))
}

fn instance_name(object: &mut Object<'_>, world: &World) {
    if world.keyset == Keyset::Head {
        object.text("instanceName", &world.instance);
    }
}

fn checksum(archive_id: u64) -> String {
    format!(r#"[{{"type":"ADLER32","value":"{:08x}"}}]"#, archive_id & 0xffff_ffff)
}

/// Blocks of 256 KiB before a file, and header and trailer.
fn block_id(file: &Run) -> u64 {
    (file.fseq - 1) * (file.size / 262_144 + 3)
}

/// The object of `tapefile ls`; `file` is a run of one.
pub fn tape_file(world: &World, vid: &str, file: &Run) -> String {
    let mut out = String::from("{");
    let mut object = Object(&mut out);
    object.raw("af", "{");
    object.long("archiveId", file.archive_id);
    object.text("storageClass", &file.class);
    object.long("creationTime", 1_716_000_000);
    object.raw("checksum", &checksum(file.archive_id));
    object.long("size", file.size);
    object.0.push('}');
    object.raw("df", "{");
    object.text("diskId", &file.archive_id.to_string());
    object.text("diskInstance", &instance_of(world, &file.class));
    object.raw("ownerId", r#"{"uid":10761,"gid":1307}"#);
    object.text("path", "");
    object.0.push('}');
    object.raw("tf", "{");
    object.text("vid", vid);
    object.raw("copyNb", &file.copy.to_string());
    object.long("blockId", block_id(file));
    object.long("fSeq", file.fseq);
    object.0.push('}');
    instance_name(&mut object, world);
    out.push('}');
    out
}

/// The object of `recycletf ls`; `file` is a run of one out of `entry`.
pub fn recycled(world: &World, vid: &str, entry: &Recycled, file: &Run) -> String {
    let mut out = String::from("{");
    let mut object = Object(&mut out);
    object.text("vid", vid);
    object.long("fseq", file.fseq);
    object.long("blockId", block_id(file));
    object.raw("copyNb", &file.copy.to_string());
    object.long("tapeFileCreationTime", 1_716_000_000);
    object.long("archiveFileId", file.archive_id);
    object.text("diskInstance", &instance_of(world, &file.class));
    object.text("diskFileId", &file.archive_id.to_string());
    object.text("diskFileIdWhenDeleted", &file.archive_id.to_string());
    object.text("diskFileUid", "10761");
    object.text("diskFileGid", "1307");
    object.long("sizeInBytes", file.size);
    object.raw("checksum", &checksum(file.archive_id));
    object.text("storageClass", &file.class);
    object.long("archiveFileCreationTime", 1_716_000_000);
    object.long("reconciliationTime", 1_716_000_000);
    object.text("collocationHint", "");
    object.text("diskFilePath", "");
    object.text("reasonLog", &entry.reason);
    object.long("recycleLogTime", entry.time);
    if world.keyset == Keyset::Head {
        object.text("virtualOrganization", vo_of_class(world, &file.class));
    }
    instance_name(&mut object, world);
    out.push('}');
    out
}

/// The object of `repack ls` at a time given in seconds since the Unix epoch.
pub fn repack(world: &World, request: &Request, now: u64) -> String {
    let untimed = world.scheduler == Scheduler::Postgres && request.status == Status::Complete;
    let finished = if untimed { 0 } else { request.finished };
    let end = if request.finished > 0 { request.finished } else { now };
    let left_to_retrieve =
        if request.to_retrieve == 0 { 0 } else { request.to_retrieve.wrapping_sub(request.retrieved) };
    let mut out = String::from("{");
    let mut object = Object(&mut out);
    object.text("vid", &request.vid);
    object.text("repackBufferUrl", &request.buffer_url);
    object.long("userProvidedFiles", 0);
    object.long("totalFilesToRetrieve", request.to_retrieve);
    object.long("totalBytesToRetrieve", request.to_retrieve_bytes);
    object.long("totalFilesToArchive", request.to_archive);
    object.long("totalBytesToArchive", request.to_archive_bytes);
    object.long("retrievedFiles", request.retrieved);
    object.long("archivedFiles", request.archived);
    object.long("failedToRetrieveFiles", request.failed_retrieve);
    object.long("failedToRetrieveBytes", request.failed_retrieve_bytes);
    object.long("failedToArchiveFiles", request.failed_archive);
    object.long("failedToArchiveBytes", request.failed_archive_bytes);
    object.long("lastExpandedFseq", request.last_fseq);
    object.text("status", request.status.name());
    let destination = |Destination { vid, files, bytes }: &Destination| json!({"vid": vid, "files": files.to_string(), "bytes": bytes.to_string()});
    let destinations: Vec<Value> = request.destinations.iter().map(destination).collect();
    object.raw("destinationInfos", &Value::from(destinations).to_string());
    object.long("repackTime", end.saturating_sub(request.created));
    object.who("creationLog", request.created);
    object.long("repackFinishedTime", finished);
    object.long("retrievedBytes", request.retrieved_bytes);
    object.long("filesLeftToRetrieve", left_to_retrieve);
    object.long("filesLeftToArchive", request.to_archive.wrapping_sub(request.archived));
    object.long("totalFailedFiles", request.failed_retrieve + request.failed_archive);
    object.long("archivedBytes", request.archived_bytes);
    object.text("tapepool", &world.find(&request.vid).map(|tape| tape.pool).unwrap_or_default());
    if world.keyset == Keyset::Head {
        object.long("totalFilesOnTapeAtStart", request.at_start_files);
        object.long("totalBytesOnTapeAtStart", request.at_start_bytes);
        object.truth("allFilesSelectedAtStart", request.all_selected);
        object.text("instanceName", &world.instance);
        object.text("schedulerBackendName", &request.scheduler);
    }
    out.push('}');
    out
}

/// Adds what all reference lists have, as the version prints it, and takes away what it does not know.
fn reference(world: &World, mut row: Value, newer: &[&str]) -> String {
    if let Some(object) = row.as_object_mut() {
        object.insert("creationLog".into(), log3(CREATED));
        object.insert("lastModificationLog".into(), log3(CREATED));
        object.insert("comment".into(), "".into());
    }
    finish(world, row, newer)
}

fn finish(world: &World, mut row: Value, newer: &[&str]) -> String {
    if let Some(object) = row.as_object_mut() {
        match world.keyset {
            Keyset::Head => {
                object.insert("instanceName".into(), world.instance.as_str().into());
            }
            Keyset::V5_10_7 => object.retain(|key, _| !newer.contains(&key.as_str())),
        }
    }
    row.to_string()
}

/// The rows of `mountpolicy ls`.
pub fn mount_policies(world: &World) -> Vec<String> {
    let row = |name: &str, priority: u64, age: u64| {
        let (priority, age) = (priority.to_string(), age.to_string());
        json!({"name": name, "archivePriority": priority, "archiveMinRequestAge": age,
            "retrievePriority": priority, "retrieveMinRequestAge": age})
    };
    let rows = world.policies.iter().map(|(name, policy)| row(name, policy.priority, policy.min_age));
    rows.map(|row| reference(world, row, &[])).collect()
}

/// The rows of `virtualorganization ls`.
pub fn virtual_organizations(world: &World) -> Vec<String> {
    let rows = world.vos.iter().map(|(name, vo)| {
        json!({"name": name, "readMaxDrives": vo.drives.to_string(), "writeMaxDrives": vo.drives.to_string(),
            "maxFileSize": "0", "diskinstance": vo.instance, "isRepackVo": vo.repack})
    });
    rows.map(|row| reference(world, row, &[])).collect()
}

/// The rows of `mediatype ls`.
pub fn media_types(world: &World) -> Vec<String> {
    let rows = world.media.iter().map(|(name, capacity)| {
        json!({"name": name, "cartridge": name, "capacity": capacity.to_string(), "primaryDensityCode": 0,
            "secondaryDensityCode": 0, "numberOfWraps": 0, "minLpos": "0", "maxLpos": "0"})
    });
    rows.map(|row| reference(world, row, &[])).collect()
}

/// The rows of `logicallibrary ls`; `disabled`: only those that are, or only those that are not.
pub fn logical_libraries(world: &World, disabled: Option<bool>) -> Vec<String> {
    let reason = |name: &str| world.disabled_libraries.get(name);
    let wanted = world.libraries.iter().filter(|(name, _)| disabled.is_none_or(|is| is == reason(name).is_some()));
    let rows = wanted.map(|(name, physical)| {
        json!({"name": name, "isDisabled": reason(name).is_some(),
            "disabledReason": reason(name).map_or("", String::as_str), "physicalLibrary": physical})
    });
    rows.map(|row| reference(world, row, &[])).collect()
}

/// The rows of `storageclass ls`.
pub fn storage_classes(world: &World, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let rows = world.classes.iter().filter(|(name, _)| wanted(name));
    let copies = |name: &String| world.copies.get(name).copied().unwrap_or(1).to_string();
    rows.map(|(name, vo)| reference(world, json!({"name": name, "nbCopies": copies(name), "vo": vo}), &[])).collect()
}

/// The rows of `archiveroute ls`.
pub fn archive_routes(world: &World) -> Vec<String> {
    let rows = world.routes.iter().map(|route| {
        json!({"storageClass": route.class, "copyNumber": route.copy,
            "archiveRouteType": if route.repack { "REPACK" } else { "DEFAULT" }, "tapepool": route.pool})
    });
    rows.map(|row| reference(world, row, &["archiveRouteType"])).collect()
}

#[derive(Default, Clone, Copy)]
struct PoolFigures {
    tapes: u64,
    files: u64,
    capacity: u64,
    bytes: u64,
}

/// Sums over all tapes, in one pass.
fn pool_figures(world: &World) -> BTreeMap<String, PoolFigures> {
    let mut pools: BTreeMap<String, PoolFigures> = BTreeMap::new();
    let mut count = |tape: &Tape| {
        let figures = pools.entry(tape.pool.clone()).or_default();
        figures.tapes += 1;
        figures.files += tape.last_fseq;
        figures.capacity += world.media.get(&tape.media).copied().unwrap_or(0);
        figures.bytes += tape.occupancy;
    };
    each_tape(world, |_, tape| count(tape));
    pools
}

/// Calls `each` with every tape, kept or computed, in the order of VIDs. A kept tape hides the computed one it was.
pub fn each_tape(world: &World, mut each: impl FnMut(&str, &Tape)) {
    let mut kept = world.tapes.iter().peekable();
    if let Some(generated) = world.generated {
        for i in 0..generated.count {
            let vid = crate::generated::vid(i);
            while let Some((kept_vid, tape)) = kept.next_if(|(kept_vid, _)| **kept_vid < vid) {
                each(kept_vid, tape);
            }
            if kept.peek().is_none_or(|(kept_vid, _)| **kept_vid != vid) {
                each(&vid, &crate::generated::tape(generated.seed, i));
            }
        }
    }
    for (vid, tape) in kept {
        each(vid, tape);
    }
}

/// The rows of `tapepool ls`.
pub fn tape_pools(world: &World, wanted: impl Fn(&str, &Pool) -> bool) -> Vec<String> {
    let figures = pool_figures(world);
    let pools = world.pools.iter().filter(|(name, pool)| wanted(name, pool));
    pools.map(|(name, pool)| tape_pool(world, name, pool, figures.get(name).copied().unwrap_or_default())).collect()
}

fn tape_pool(world: &World, name: &str, pool: &Pool, figures: PoolFigures) -> String {
    let supplied_by_it = |other: &Pool| other.supply.iter().any(|source| source == name);
    let supplied: Vec<&String> =
        world.pools.iter().filter(|(_, other)| supplied_by_it(other)).map(|(other, _)| other).collect();
    let old_supply = if world.keyset == Keyset::Head { String::new() } else { pool.supply.join(",") };
    let row = json!({"name": name, "vo": pool.vo, "numTapes": figures.tapes.to_string(),
        "numPartialTapes": pool.partial.to_string(), "numPhysicalFiles": figures.files.to_string(),
        "capacityBytes": figures.capacity.to_string(), "dataBytes": figures.bytes.to_string(),
        "encrypt": !pool.key.is_empty(), "supply": old_supply, "created": log3(CREATED), "modified": log3(CREATED),
        "comment": pool.comment, "encryptionKeyName": pool.key, "supplySource": pool.supply,
        "supplyDestination": supplied});
    finish(world, row, &["encryptionKeyName", "supplySource", "supplyDestination"])
}

/// The rows of `showqueues`: a RETRIEVE queue per request that still reads, and the ARCHIVE_FOR_REPACK queue of its pool.
pub fn queues(world: &World, scheduler: &str, now: u64) -> Vec<String> {
    let reading = |request: &&Request| {
        request.scheduler == scheduler && matches!(request.status, Status::Starting | Status::Running)
    };
    let mut rows = Vec::new();
    for request in world.requests.iter().filter(reading) {
        let tape = world.find(&request.vid).unwrap_or_default();
        let age = now.saturating_sub(request.created);
        let to_read = request.to_retrieve.saturating_sub(request.retrieved);
        let to_write = request.retrieved.saturating_sub(request.archived);
        if to_read > 0 {
            rows.push(queue(world, request, &tape, "RETRIEVE", to_read, age));
        }
        if to_write > 0 {
            rows.push(queue(world, request, &tape, "ARCHIVE_FOR_REPACK", to_write, age));
        }
    }
    rows
}

fn queue(world: &World, request: &Request, tape: &Tape, kind: &str, files: u64, age: u64) -> String {
    let retrieve = kind == "RETRIEVE";
    let mean = request.to_retrieve_bytes / request.to_retrieve.max(1);
    let vo = world.vos.iter().find(|(_, vo)| vo.repack);
    let drives = vo.map_or(0, |(_, vo)| vo.drives).to_string();
    let capacity = world.media.get(&tape.media).copied().unwrap_or(0);
    let policy = world.policies.get(&request.mount_policy).cloned().unwrap_or_default();
    let of_tape = |value: u64| if retrieve { value.to_string() } else { "0".to_owned() };
    let mut row = json!({"mountType": kind, "tapepool": tape.pool,
        "logicalLibrary": if retrieve { tape.logical_library.as_str() } else { "" },
        "vid": if retrieve { request.vid.as_str() } else { "" },
        "queuedFiles": files.to_string(), "queuedBytes": (files * mean).to_string(), "oldestAge": age.to_string(),
        "priority": policy.priority.to_string(), "minAge": policy.min_age.to_string(),
        "curMounts": if request.status == Status::Running { "1" } else { "0" }, "curFiles": "0", "curBytes": "0",
        "tapesCapacity": of_tape(capacity), "tapesFiles": of_tape(tape.last_fseq), "tapesBytes": of_tape(tape.occupancy),
        "fullTapes": of_tape(u64::from(tape.full)), "writableTapes": if retrieve { "0" } else { "1" },
        "sleepingForSpace": false, "sleepStartTime": "0", "diskSystemSleptFor": "",
        "vo": vo.map_or("", |(name, _)| name.as_str()), "readMaxDrives": drives, "writeMaxDrives": drives,
        "mountPolicies": [request.mount_policy], "highestPriorityMountPolicy": request.mount_policy,
        "lowestRequestAgeMountPolicy": request.mount_policy, "youngestAge": age.to_string()});
    if let (Keyset::Head, Some(object)) = (world.keyset, row.as_object_mut()) {
        object.insert("schedulerBackendName".into(), request.scheduler.as_str().into());
    }
    finish(world, row, &[])
}

/// The object of `version`.
pub fn version(world: &World, scheduler: &str) -> String {
    let (version, catalogue) = match world.keyset {
        Keyset::Head => ("5.11.20.0-1", "15.0"),
        Keyset::V5_10_7 => ("5.10.7-1", "14.0"),
    };
    let one = json!({"ctaVersion": version, "xrootdSsiProtobufInterfaceVersion": "v1.30"});
    let row = json!({"clientVersion": one, "serverVersion": one,
        "catalogueConnectionString": "postgresql:postgresql://cta:******@db/cta", "catalogueVersion": catalogue,
        "isUpgrading": false, "schedulerBackendName": scheduler});
    finish(world, row, &["schedulerBackendName"])
}

//! What the programs print and write as JSON, held against the tables of the documents that promise it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::tape::Vid;
use cta_sim::world::{Plan, Tape};
use cta_sim::{Action, Order, World};
use journeys::services::Services;
use journeys::shell::{MANAGER, PRODUCER, Ran, of_site};
use journeys::site::{PATIENCE, Site};
use serde_json::{Value, json};

/// A row of a table in a document: the keys of the first cell, and the other cells.
#[derive(Debug)]
struct Entry {
    keys: Vec<String>,
    cells: Vec<String>,
}

/// Words between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The text below a heading, up to the next heading.
fn section(path: &str, heading: &str) -> String {
    let text = std::fs::read_to_string(format!("{}/../docs/{path}", env!("CARGO_MANIFEST_DIR"))).expect("the document");
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "{path} has no heading '{heading}'");
    let mut fenced = false;
    let section: Vec<&str> = lines
        .take_while(|line| {
            fenced ^= line.starts_with("```");
            fenced || !line.starts_with('#')
        })
        .collect();
    section.join("\n")
}

/// The tables below a heading whose first column is called `first`.
fn tables(path: &str, heading: &str, first: &str) -> Vec<Vec<Entry>> {
    let mut tables: Vec<Vec<Entry>> = Vec::new();
    let (text, mut inside) = (section(path, heading), false);
    for line in text.lines() {
        // A pipe between backticks is none of the table's in these documents.
        let cells: Vec<String> = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        match (line.starts_with('|'), inside) {
            (true, false) if cells[0] == first => {
                inside = true;
                tables.push(Vec::new());
            }
            (true, true) if !line.starts_with("|--") => {
                let entry = Entry { keys: quoted(&cells[0]), cells: cells[1..].to_vec() };
                tables.last_mut().expect("its head came before").push(entry);
            }
            (true, _) => {}
            (false, _) => inside = false,
        }
    }
    assert!(tables.iter().all(|table| !table.is_empty()) && !tables.is_empty(), "{path} {heading} {first}: {tables:?}");
    tables
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap_or_else(|| panic!("{object} is no object")).keys().cloned().collect()
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        text.len() == 19
            && text
                .chars()
                .zip("dddd-dd-ddTdd:dd:dd".chars())
                .all(|(is, form)| if form == 'd' { is.is_ascii_digit() } else { is == form })
    })
}

/// Whether a value is of a type as the document names it.
fn is_of(value: &Value, kind: &str) -> bool {
    let each = |list: &Value, good: &dyn Fn(&Value) -> bool| list.as_array().is_some_and(|list| list.iter().all(good));
    let vid = |value: &Value| value.as_str().is_some_and(|text| text.parse::<Vid>().is_ok());
    match kind {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "array" => each(value, &Value::is_object),
        "object" => value.is_object(),
        "VID" => vid(value),
        "time" => is_time(value),
        "time or null" => value.is_null() || is_time(value),
        "array of strings" => each(value, &Value::is_string),
        "array of VIDs" => each(value, &vid),
        "string of digits" => {
            value.as_str().is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        }
        "array of `{\"type\", \"value\"}`" => each(value, &|sum| keys(sum) == names(&["type", "value"])),
        "`{\"uid\", \"gid\"}`" => ["uid", "gid"].iter().all(|key| value[key].is_string() || value[key].is_number()),
        other => panic!("the document names a type '{other}' that this test does not know"),
    }
}

/// The object has what the table says, of the type that it says, and nothing else. `given`: keys that are there only sometimes,
/// and now have to be.
#[track_caller]
fn as_documented(table: &[Entry], object: &Value, given: &[&str]) {
    let mut documented = BTreeSet::new();
    for entry in table {
        let (kind, meaning) = (&entry.cells[0], &entry.cells[1]);
        let sometimes =
            ["missing unless", "with `--explain`", "with `--dry-run` only"].iter().any(|words| meaning.contains(words));
        for key in &entry.keys {
            if sometimes && !given.contains(&key.as_str()) {
                continue;
            }
            documented.insert(key.clone());
            let value = object.get(key).unwrap_or_else(|| panic!("{key} is missing in {object}"));
            assert!(is_of(value, kind), "{key} is {value}, no {kind}");
        }
    }
    assert_eq!(keys(object), documented, "{object}");
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.is_empty() || text.ends_with('\n'), "whole lines");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn producer(site: &Site, args: &[&str]) -> Ran {
    Ran::of(of_site(site, PRODUCER).args(args))
}

#[tokio::test(flavor = "multi_thread")]
async fn scan_prints_what_is_documented() {
    let mut world = World::new().with_full_tapes(4).with_tape("V02001", Tape::new("pool_alpha_raw"));
    world.tapes.insert("not a vid".to_owned(), Tape::full("pool_alpha_raw", "alpha_raw", 7_000_000_000, 10));
    let mut site = Site::new(world).await;
    site.settings.scan.number_of_tapes = 3;
    let [object, selected] = &tables("json.md", "## `scan`", "key")[..] else { panic!("two tables") };
    let reasons: Vec<String> =
        tables("json.md", "## `scan`", "reason").remove(0).into_iter().flat_map(|entry| entry.keys).collect();
    let plain = producer(&site, &["scan", "-j"]).ended(0).json();
    as_documented(object, &plain, &[]);
    assert_eq!(list(&plain["selected"]).len(), 3);
    for tape in list(&plain["selected"]) {
        as_documented(selected, tape, &[]);
    }
    assert!(keys(&plain["left_out"]).iter().all(|reason| reasons.contains(reason)), "{}", plain["left_out"]);
    assert!(["unfit", "enough"].iter().all(|reason| plain["left_out"][reason].is_u64()), "{}", plain["left_out"]);
    let told = producer(&site, &["scan", "-j", "--explain"]).ended(0).json();
    as_documented(object, &told, &["rule", "tapes_left_out"]);
    for tape in list(&told["tapes_left_out"]) {
        assert_eq!(keys(tape), names(&["vid", "reasons"]));
        for reason in list(&tape["reasons"]) {
            assert_eq!(keys(reason), names(&["reason", "text"]));
            assert!(reasons.iter().any(|known| *known == reason["reason"]), "{reason}");
        }
    }
    assert_eq!(told["stage"], "scan");
}

#[tokio::test(flavor = "multi_thread")]
async fn prepare_prints_what_is_documented() {
    let site = Site::new(World::new().with_full_tapes(3)).await;
    site.enter(&["V01003"]).await;
    let object = tables("json.md", "## `prepare`", "key").remove(0);
    for (args, exit, added) in [(&["--dry-run"][..], 1, 2), (&[], 1, 2)] {
        let ran = producer(&site, &[&["prepare", "-j", "V01001", "v01002", "V01003", "V09999"], args].concat());
        let said = ran.ended(exit).json();
        as_documented(&object, &said, &[]);
        assert_eq!((said["stage"].as_str(), &said["dry_run"]), (Some("prepare"), &json!(!args.is_empty())));
        let counts = ["added", "already_there", "refused"].map(|key| list(&said[key]).len());
        assert_eq!((counts, said["considered"].as_u64()), ([added, 1, 1], Some(4)), "{said}");
        let refused = &said["refused"][0];
        assert_eq!((keys(refused), refused["vid"].as_str()), (names(&["vid", "reasons"]), Some("V09999")));
        assert!(is_of(&refused["reasons"], "array of strings") && !list(&refused["reasons"]).is_empty());
    }
}

/// Checks a report of a tick, and counts what its lists held.
fn ticked(report: &Value, given: &[&str], seen: &mut BTreeMap<String, usize>) {
    let heading = "## `start`, `end`, `quarantine`, `reclaim`, `finish`, `tick`";
    let [object, stage] = &tables("json.md", heading, "key")[..] else { panic!("two tables") };
    as_documented(object, report, &[]);
    for key in ["odd", "trouble"] {
        *seen.entry(key.to_owned()).or_default() += list(&report[key]).len();
    }
    for odd in list(&report["odd"]) {
        assert_eq!(keys(odd), names(&["vid", "reasons"]));
        assert!(is_of(&odd["reasons"], "array of strings"));
    }
    for part in list(&report["stages"]) {
        as_documented(stage, part, given);
        assert!(common::stages::named(part["stage"].as_str().expect("a name")).is_some(), "{part}");
        for key in ["published", "done", "not_yet", "retrying", "stopped"] {
            *seen.entry(key.to_owned()).or_default() += list(&part[key]).len();
        }
        for key in ["not_yet", "retrying", "stopped"] {
            for tape in list(&part[key]) {
                assert_eq!(keys(tape), names(&["vid", "code", "reason"]));
                assert!(
                    tape.as_object()
                        .expect("an object")
                        .values()
                        .all(|value| !value.as_str().expect("text").is_empty()),
                    "{tape}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_without_a_broker_print_and_write_what_is_documented() {
    let mut world = World::new().with_full_tapes(5);
    let mut plan = |vid: &str, plan: Plan| world.tapes.get_mut(vid).expect("it is there").plan = plan;
    plan("V01002", Plan { repack_ms: Some(3_600_000), ..Plan::default() });
    plan("V01003", Plan { fail_files: 2, fail_times: 9, ..Plan::default() });
    let site = Site::new(world).await;
    site.enter(&["V01001", "V01002", "V01003", "V01004", "V01005"]).await;
    site.sql("UPDATE repack_status SET repacked = now() WHERE tape = 'V01005'").await;
    site.order(Order::always("tapefile ls", Action::Exit1("the catalogue is slow today".to_owned())).for_vid("V01004"));

    let mut seen = BTreeMap::new();
    site.tick_of(&[]).await;
    let dry = producer(&site, &["start", "--dry-run", "-j"]).ended(0).json();
    ticked(&dry, &["would"], &mut seen);
    assert_eq!(dry["stages"][0]["would"].as_array().map(Vec::len), Some(4), "{dry}");
    // Where nothing is due there is none.
    let dry = producer(&site, &["finish", "--dry-run", "-j"]).ended(0).json();
    ticked(&dry, &[], &mut seen);
    // Each stage by itself, as ATRESYS's jobs call it, until each kind of answer was there.
    let begun = Instant::now();
    while ["odd", "done", "not_yet", "retrying", "stopped"]
        .iter()
        .any(|key| seen.get(*key).is_none_or(|count| *count == 0))
        || site.row("V01001").await.row.expect("a lawful row").state() != common::journey::State::Finished
    {
        assert!(begun.elapsed() < PATIENCE, "{seen:?}");
        for (number, stage) in common::stages::STAGES.iter().enumerate() {
            let ran = Ran::of(of_site(&site, &format!("cta-ops-repack-{}-{}", number + 2, stage.name)).arg("-j"));
            let report = ran.ended(0).json();
            assert_eq!(list(&report["stages"]).len(), 1);
            assert_eq!(report["stages"][0]["stage"], stage.name);
            ticked(&report, &[], &mut seen);
        }
    }
    // Somebody else is at one stage.
    let store = site.store();
    let locks = store.tick_locks(&["reclaim"]).await.expect("the database");
    let report = producer(&site, &["tick", "-j"]).ended(0).json();
    let stages = list(&report["stages"]);
    assert_eq!(
        stages.iter().map(|part| part["stage"].as_str().expect("a name")).collect::<Vec<_>>(),
        ["start", "end", "quarantine", "reclaim", "finish"]
    );
    let skipped: Vec<&Value> = stages.iter().filter(|part| part.get("skipped").is_some()).collect();
    assert_eq!(skipped.len(), 1, "{report}");
    assert_eq!(skipped[0]["stage"], "reclaim");
    ticked(&json!({"stages": skipped, "odd": [], "trouble": []}), &["skipped"], &mut seen);
    locks.release().await;
    // CTA is away.
    site.edit(|world| world.down = true);
    let report = producer(&site, &["tick", "-j"]).ended(1).json();
    ticked(&report, &[], &mut seen);
    assert!(seen["trouble"] > 0, "{report}");
    site.edit(|world| world.down = false);

    // The files that were written on the way.
    let ended = lines(&site.settings.repack_end_json_path);
    assert_eq!(ended.iter().map(|line| line["tape"].as_str().expect("a VID")).collect::<Vec<_>>(), ["V01001"]);
    let end = tables("json.md", "## The end of a repack", "key").remove(0);
    let export = tables("json.md", "### The export: a line for each row", "key").remove(0);
    as_documented(&end, &ended[0], &[]);
    assert_eq!(ended[0]["round"], 1);
    assert_eq!((&ended[0]["repack"]["vid"], &ended[0]["repack"]["status"]), (&json!("V01001"), &json!("Complete")));
    as_documented(&export, &ended[0]["row"], &[]);
    assert!(is_time(&ended[0]["row"]["repacked"]) && ended[0]["row"]["quarantined"].is_null());

    let written = std::fs::read_dir(site.dir.path()).expect("the directory").flatten();
    let listing = written
        .map(|file| file.path())
        .find(|path| path.to_string_lossy().ends_with("-V01001.txt"))
        .expect("a listing");
    let files = lines(&listing);
    assert_eq!(files.len(), 10);
    for file in &files {
        for entry in tables("json.md", "## The listing of a tape's files", "key").remove(0) {
            for key in &entry.keys {
                let value = key.split('.').fold(file, |value, part| &value[part]);
                assert!(is_of(value, &entry.cells[0]), "{key} is {value}, no {}", entry.cells[0]);
            }
        }
        assert_eq!(file["tf"]["vid"], "V01001");
    }

    // Monitor: the object, and a line for each row, behind those of the time before.
    let object = tables("json.md", "## `monitor`", "key").remove(0);
    for (args, count, dry_run) in [
        (&["monitor", "-j", "--dry-run"][..], 0, true),
        (&["monitor", "-j"], 5, false),
        (&["monitor", "-j"], 10, false),
    ] {
        let said = producer(&site, args).ended(0).json();
        as_documented(&object, &said, &[]);
        let path = site.settings.monitor_ls_out.display().to_string();
        assert_eq!(said, json!({"stage": "monitor", "rows": 5, "path": path, "dry_run": dry_run}));
        if count > 0 {
            assert_eq!(lines(&site.settings.monitor_ls_out).len(), count);
        }
    }
    let rows = lines(&site.settings.monitor_ls_out);
    for row in &rows {
        as_documented(&export, row, &[]);
    }
    assert_eq!(
        rows[..5].iter().map(|row| row["tape"].as_str().expect("a VID")).collect::<Vec<_>>(),
        ["V01001", "V01002", "V01003", "V01004", "V01005"]
    );
    let printed = producer(&site, &["monitor", "--stdout", "-j"]);
    let printed: Vec<Value> =
        printed.ended(0).stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(printed, rows[..5]);

    manager_prints_what_is_documented(&site).await;
}

/// On a site where tapes are in every kind of trouble.
async fn manager_prints_what_is_documented(site: &Site) {
    let manager = |args: &[&str]| Ran::of(of_site(site, MANAGER).args(args));
    manager(&["hold", "V01004", "--reason", "audit", "--yes"]).ended(0);
    let table = tables("json-manager.md", "## A tape", "key").remove(0);
    let documented: BTreeSet<String> = table.iter().flat_map(|entry| entry.keys.clone()).collect();
    let parts = |key: &str| -> BTreeSet<String> {
        let entry = table.iter().find(|entry| entry.keys == [key]).expect("a row of the table");
        // What is in brackets are values, not keys.
        let plain: String = entry.cells[0]
            .split('(')
            .enumerate()
            .map(|(at, part)| if at == 0 { part } else { part.split_once(')').map_or("", |cut| cut.1) })
            .collect();
        quoted(&plain).into_iter().collect()
    };
    let listed = manager(&["ls", "--json", "--all"]).ended(0).json();
    let by_line = manager(&["ls", "--jsonl", "--all"]);
    let by_line: Vec<Value> =
        by_line.ended(0).stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(list(&listed).len(), 5);
    let (mut codes, mut had_progress) = (BTreeSet::new(), false);
    for (tape, line) in list(&listed).iter().zip(&by_line) {
        assert_eq!(keys(tape), documented, "{tape}");
        assert_eq!(keys(line), documented);
        assert_eq!(tape["vid"], line["vid"]);
        for (key, value) in tape.as_object().expect("an object") {
            let good = match key.as_str() {
                "vid" => is_of(value, "VID"),
                "state" | "mode" | "stage" | "outcome" | "reason_code" | "reason" | "owner" | "pool" | "mediatype"
                | "responsible" | "wanted" => value.is_null() || value.is_string(),
                "files" | "bytes" | "usage" | "priority" | "generation" | "attempts" | "crashes" | "round" => {
                    value.is_null() || value.is_i64()
                }
                "hold" | "progress" | "waits" => value.is_null() || keys(value) == parts(key),
                "odd" => value.is_null() || is_of(value, "array of strings"),
                // Times, in UTC with seconds.
                _ => {
                    value.is_null()
                        || value == "never"
                        || value
                            .as_str()
                            .is_some_and(|text| text.strip_suffix('Z').is_some_and(|time| is_time(&json!(time))))
                }
            };
            assert!(good, "{key} is {value}");
        }
        had_progress |= tape["progress"].is_object();
        assert!(!tape["waits"]["text"].as_str().expect("a sentence").is_empty());
        codes.insert(tape["waits"]["code"].as_str().expect("a word").to_owned());
    }
    assert!(had_progress, "{listed}");
    let known: BTreeSet<String> =
        tables("json-manager.md", "## A tape", "code").remove(0).into_iter().flat_map(|entry| entry.keys).collect();
    for code in ["finished", "odd-row"] {
        assert!(codes.contains(code) && known.contains(code), "{code}: {codes:?}");
    }
    let one = |vid: &str| list(&listed).iter().find(|tape| tape["vid"] == vid).expect("it is listed");
    assert_eq!(one("V01004")["hold"]["why"], "audit");
    assert!(one("V01005")["odd"].is_array() && one("V01001")["odd"].is_null());

    let shown = manager(&["show", "V01003", "--json"]).ended(0).json();
    let documented = tables("json-manager.md", "## `show VID`", "key").remove(0);
    assert_eq!(keys(&shown), documented.into_iter().flat_map(|entry| entry.keys).collect::<BTreeSet<_>>());
    assert_eq!(keys(&shown["tape"]), keys(one("V01003")));
    for told in list(&shown["timeline"]) {
        assert_eq!(keys(told), keys(&shown["timeline"][0]));
        assert!(told["detail"].is_object() && told["kind"].is_string() && told["actor"].is_string());
    }
    assert!(list(&shown["timeline"]).len() > 3);
    let held = manager(&["show", "V01004", "--json", "--events", "1"]).ended(0).json();
    assert!(held["older_events"].as_i64().expect("a number") > 0 && list(&held["timeline"]).len() == 1);
    let mut seen = Vec::new();
    for entry in tables("json-manager.md", "## `show VID`", "inside").remove(0) {
        let path = format!("/{}", entry.keys[0].replace('.', "/"));
        let plain: String = entry.cells[0]
            .split('(')
            .enumerate()
            .map(|(at, part)| if at == 0 { part } else { part.split_once(')').map_or("", |cut| cut.1) })
            .collect();
        let inside: BTreeSet<String> = quoted(&plain).into_iter().collect();
        for value in [&shown, &held].into_iter().filter_map(|shown| shown.pointer(&path)).filter(|v| v.is_object()) {
            assert_eq!(keys(value), inside, "{path}");
            seen.push(path.clone());
        }
    }
    for path in ["/held", "/cta", "/cta/tape", "/site", "/site/slots", "/site/ticks/0", "/timeline/0"] {
        assert!(seen.iter().any(|seen| seen == path), "{path} was not among {seen:?}");
    }

    let results: BTreeMap<String, Vec<String>> = tables("json-manager.md", "## Verbs that change tapes", "`result`")
        .remove(0)
        .into_iter()
        .flat_map(|entry| {
            let others = quoted(&entry.cells[0]);
            entry.keys.into_iter().map(move |key| (key, others.clone())).collect::<Vec<_>>()
        })
        .collect();
    let mut met = BTreeSet::new();
    for args in [
        &["ch", "V01002", "V01001", "V09999", "--mode", "manual", "--dry-run"][..],
        &["ch", "V01002", "--mode", "manual", "--yes"],
        &["ch", "V01002", "--mode", "manual", "--yes"],
        &["retry-failed", "V01003", "V01001", "--yes"],
        &["hold", "V01004", "--reason", "audit", "--yes"],
        &["release", "V01004", "--yes"],
        &["add", "V01003", "V09999", "--dry-run"],
        &["rm", "--pool", "nowhere", "--reason", "x", "--yes"],
    ] {
        let said = manager(&[args, &["--json"]].concat()).json();
        assert_eq!(keys(&said), names(&["verb", "dry_run", "tapes"]));
        for tape in list(&said["tapes"]) {
            let result = tape["result"].as_str().expect("a word");
            let others = results.get(result).unwrap_or_else(|| panic!("{result} is not documented"));
            let expected: BTreeSet<String> =
                others.iter().cloned().chain(["vid".to_owned(), "result".to_owned()]).collect();
            assert_eq!(keys(tape), expected, "{tape}");
            met.insert(result.to_owned());
        }
    }
    assert!(
        ["changed", "would-change", "already", "not-found", "refused"].iter().all(|result| met.contains(*result)),
        "{met:?}"
    );
    let paused = manager(&["pause", "finish", "--reason", "move", "--dry-run", "--json"]).ended(0).json();
    let documented = section("json-manager.md", "## Verbs that change tapes");
    assert_eq!(keys(&paused), names(&["verb", "dry_run", "until", "stages"]));
    assert_eq!(keys(&paused["stages"][0]), names(&["stage", "result", "text"]));
    for key in keys(&paused) {
        assert!(documented.contains(&format!("`{key}`")), "{key}");
    }
    for (args, heading) in
        [(&["migrate", "--json"][..], "## `migrate`"), (&["config", "check", "--json"], "## `config check`")]
    {
        let said = manager(args).ended(0).json();
        let documented: BTreeSet<String> = quoted(&section("json-manager.md", heading)).into_iter().collect();
        assert!(keys(&said).is_subset(&documented), "{said}");
        assert!(keys(&said).len() >= 4, "{said}");
    }
    // An odd row is among them.
    let imported = manager(&["import", "--cta", "--json"]).ended(1).json();
    let table = tables("json-manager.md", "## `import`", "key").remove(0);
    assert_eq!(keys(&imported), table.into_iter().flat_map(|entry| entry.keys).collect());
    for told in [&imported["odd"], &imported["disagreements"]] {
        assert!(list(told).iter().all(|told| keys(told) == names(&["vid", "reasons"])), "{told}");
    }
    assert!(!list(&imported["odd"]).is_empty());
    let pages = site.dir.path().join("pages").display().to_string();
    let written = manager(&["man", "--dir", &pages, "--json"]).ended(0).json();
    assert_eq!(keys(&written), names(&["directory", "files"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_with_a_broker_prints_what_is_documented() {
    let vhost = Services::get().fresh_vhost();
    let mut site = Site::new(World::new().with_full_tapes(2)).await;
    site.settings.broker = Some(vhost.broker());
    // Nothing is published twice in this test, however slow the machine.
    site.settings.redispatch_after = Duration::from_secs(3600);
    site.enter(&["V01001", "V01002"]).await;
    let mut seen = BTreeMap::new();
    let report = producer(&site, &["tick", "-j"]).ended(0).json();
    ticked(&report, &[], &mut seen);
    let published: BTreeSet<String> =
        list(&report["stages"][0]["published"]).iter().map(|vid| vid.as_str().expect("a VID").to_owned()).collect();
    assert_eq!(published, names(&["V01001", "V01002"]));
    assert_eq!((seen["published"], seen["done"]), (2, 0));
}

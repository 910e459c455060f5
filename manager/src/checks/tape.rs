//! A tape: would prepare enter it, and would its repack succeed?
//!
//! Prepare is asked itself, as a dry run. Beyond it: every storage class and copy number on the tape needs an archive route, and
//! the pool of each a tape that can be written to. CTA checks neither before it has begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use common::cta::reference::{LogicalLibrary, Route, StorageClass, TapeFile, TapePool, WritableTape};
use common::cta::{Cta, Query, typed};
use common::settings::{RepackMode, Settings};
use common::store::Store;
use common::tape::Vid;
use producer::prepare::{Order, Prepared, prepare};
use tokio::sync::watch;
use worker::service::Shutdown;

use super::Check;
use super::cta::{Listed, list};
use crate::output::{bytes, counted};

/// More kinds of files than this on one tape are not looked at: no site has as many storage classes.
const KINDS: usize = 10_000;

/// What depends on the tape's files.
const OF_FILES: [&str; 3] = ["storage-class", "archive-route", "writable-tapes"];

/// Files and bytes, by storage class and copy number.
type Kinds = BTreeMap<(String, u64), (u64, u64)>;

/// What is the same for all tapes.
struct Reference {
    routes: Listed<Route>,
    classes: Listed<StorageClass>,
    pools: Listed<TapePool>,
    libraries: Listed<LogicalLibrary>,
}

/// Checks tapes, one after the other, in their order.
pub async fn checks(store: &Store, cta: &Cta, vids: &[Vid], priority: i16, actor: &str) -> Vec<Check> {
    let settings = store.settings();
    let order = Order {
        vids: vids.to_vec(),
        priority,
        responsible: actor.split(['(', '@']).next().unwrap_or(actor).to_owned(),
        reason: None,
        dry_run: true,
    };
    // Nobody tells it to end: Ctrl-C ends this program, which has begun nothing.
    let (_keep, stop) = watch::channel(Shutdown::No);
    let (prepared, reference) = tokio::join!(prepare(store, cta, &order, &stop), Reference::ask(cta));
    let prepared = prepared.map_err(|error| format!("{error:#}"));
    let mut checks = Vec::new();
    for vid in vids {
        let mut of_tape = of_prepare(vid, &prepared);
        of_tape.extend(one(settings, cta, vid, &reference).await);
        of_tape.push(buffer(settings));
        checks.extend(of_tape.into_iter().map(|check| check.of(vid.as_str())));
    }
    checks
}

/// What prepare says: a check for each reason.
fn of_prepare(vid: &Vid, prepared: &Result<Prepared, String>) -> Vec<Check> {
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(why) => {
            let mend = "cta-ops-repack-manager check-env";
            return vec![Check::fails("prepare", "", format!("cannot be tried: {why}"), mend)];
        }
    };
    if prepared.already_there.contains(vid) {
        return vec![Check::ok("prepare", "", "it is in the table already, on its way, so prepare looks no further")];
    }
    match prepared.refused.iter().find(|refused| refused.vid == *vid) {
        None => vec![Check::ok("prepare", "", "would enter it")],
        Some(refused) => refused
            .reasons
            .iter()
            .map(|reason| Check::fails("prepare", "", reason.clone(), mend(vid, reason)))
            .collect(),
    }
}

/// What to do about a reason of prepare's: the command in it, if there is one.
fn mend(vid: &Vid, reason: &str) -> String {
    if let Some((_, rest)) = reason.split_once("'cta-admin ")
        && let Some((command, _)) = rest.split_once('\'')
    {
        return format!("cta-admin {command}");
    }
    if reason.contains("put it on hold") {
        return format!("cta-ops-repack-manager release {vid}");
    }
    if reason.contains("does not exist in CTA") || reason.contains("isRepackVo") {
        return "cta-ops-repack-manager check-env, which names the command".to_owned();
    }
    if reason.contains("lib_to_pool_map") || reason.contains("in the configuration") {
        return "correct the configuration".to_owned();
    }
    format!("cta-admin tape ls --vid {vid}")
}

impl Reference {
    async fn ask(cta: &Cta) -> Reference {
        let (routes, classes, pools, libraries) = tokio::join!(
            list(cta, Query::ArchiveRoutes),
            list(cta, Query::StorageClasses),
            list(cta, Query::TapePools),
            list(cta, Query::LogicalLibraries),
        );
        Reference { routes, classes, pools, libraries }
    }

    fn disabled(&self) -> BTreeSet<&str> {
        let libraries = self.libraries.iter().flatten().filter(|library| library.is_disabled);
        libraries.map(|library| library.name.as_str()).collect()
    }
}

async fn one(settings: &Settings, cta: &Cta, vid: &Vid, reference: &Reference) -> Vec<Check> {
    let mut checks = vec![mountable(cta, vid, reference).await];
    let kinds = match kinds(cta, vid).await {
        Ok(kinds) => kinds,
        Err(why) => {
            checks.push(Check::fails(
                "files",
                "",
                why,
                typed(settings.cta_admin.user_config.as_deref(), &["tapefile", "ls", "--vid", vid.as_str()]),
            ));
            checks.extend(OF_FILES.map(|check| Check::not_asked(check, "", "its files are not known")));
            return checks;
        }
    };
    let (files, size) =
        kinds.values().fold((0u64, 0u64), |(files, size), kind| (files + kind.0, size.saturating_add(kind.1)));
    let classes: BTreeSet<&str> = kinds.keys().map(|(class, _)| class.as_str()).collect();
    checks.push(Check::ok(
        "files",
        "",
        format!(
            "{}, {} bytes, {}",
            counted(files, "live file"),
            shown(size),
            several(classes.len() as u64, "storage class", "storage classes")
        ),
    ));
    let (of_routes, targets) = routes(settings, &kinds, reference);
    checks.extend(of_routes);
    for (pool, size) in targets {
        checks.push(target(settings, cta, vid, &pool, size, reference).await);
    }
    checks
}

/// Whether drives may mount the tape.
async fn mountable(cta: &Cta, vid: &Vid, reference: &Reference) -> Check {
    let library = match worker::look::tape(cta, vid).await {
        Ok(Some(tape)) => tape.logical_library,
        Ok(None) => return Check::not_asked("library", "", "CTA has no such tape"),
        Err(trouble) => return Check::not_asked("library", "", trouble.to_string()),
    };
    match &reference.libraries {
        Err(why) => Check::not_asked("library", library, why.clone()),
        Ok(_) if reference.disabled().contains(library.as_str()) => {
            let mend = "cta-admin logicallibrary ls says why; the repack waits until it is enabled";
            Check::warning("library", library, "is disabled in CTA: its tapes are not mounted", mend)
        }
        Ok(libraries) if libraries.iter().any(|known| known.name == library) => {
            Check::ok("library", library, "is not disabled")
        }
        Ok(_) => Check::warning("library", library, "CTA does not list it", "cta-admin logicallibrary ls"),
    }
}

/// The kinds of live files on the tape, gathered while they are listed: memory does not grow with their number.
async fn kinds(cta: &Cta, vid: &Vid) -> Result<Kinds, String> {
    let kinds = Arc::new(Mutex::new(Kinds::new()));
    let sums = Arc::clone(&kinds);
    cta.each(&Query::TapeFiles(vid.clone()), move |file: TapeFile| {
        let mut sums = sums.lock().expect("nobody panics while adding");
        let full = sums.len() >= KINDS;
        let key = (file.af.storage_class, file.tf.copy_nb);
        anyhow::ensure!(!full || sums.contains_key(&key), "more than {KINDS} storage classes on one tape");
        let sum = sums.entry(key).or_default();
        *sum = (sum.0 + 1, sum.1.saturating_add(file.af.size));
        Ok(())
    })
    .await
    .map_err(|trouble| trouble.to_string())?;
    let kinds = kinds.lock().expect("nobody panics while adding").clone();
    Ok(kinds)
}

/// A check for each storage class and each route, and the bytes that each target pool gets.
fn routes(settings: &Settings, kinds: &Kinds, reference: &Reference) -> (Vec<Check>, BTreeMap<String, u64>) {
    let (mut checks, mut targets) = (Vec::new(), BTreeMap::new());
    let known = match &reference.routes {
        Ok(routes) => routes,
        Err(why) => {
            checks.extend(OF_FILES[1..].iter().map(|check| Check::not_asked(check, "", why.clone())));
            return (checks, targets);
        }
    };
    for ((class, copy), (_, size)) in wanted(settings, kinds, &reference.classes, &mut checks) {
        let subject = format!("{class} copy {copy}");
        match route(known, &class, copy) {
            Some(route) => {
                *targets.entry(route.tapepool.clone()).or_default() += size;
                let kind = if route.archive_route_type.is_empty() { "" } else { ", of type " };
                checks.push(Check::ok(
                    "archive-route",
                    subject,
                    format!("leads to {}{kind}{}", route.tapepool, route.archive_route_type),
                ));
            }
            None => {
                let mend = format!(
                    "{} for storage class {class}, copy {copy}, by a CTA administrator",
                    typed(settings.cta_admin.user_config.as_deref(), &["archiveroute", "add"])
                );
                checks.push(Check::fails(
                    "archive-route",
                    subject,
                    "there is none: CTA would fail the whole repack request",
                    mend,
                ));
            }
        }
    }
    checks.extend(shared(kinds, known, &reference.classes));
    (checks, targets)
}

/// What has to be written: the copies on the tape and, where missing ones are added, those of the storage class. Checks the
/// classes on the way.
fn wanted(settings: &Settings, kinds: &Kinds, classes: &Listed<StorageClass>, checks: &mut Vec<Check>) -> Kinds {
    let mut wanted = kinds.clone();
    let names: BTreeSet<&str> = kinds.keys().map(|(class, _)| class.as_str()).collect();
    let known = match classes {
        Ok(known) => known,
        Err(why) => {
            checks.push(Check::not_asked("storage-class", "", why.clone()));
            return wanted;
        }
    };
    for name in names {
        let Some(class) = known.iter().find(|class| class.name == name) else {
            let mend = "cta-admin storageclass ls; the files' class was deleted or renamed, ask a CTA administrator";
            checks.push(Check::fails(
                "storage-class",
                name,
                "CTA has no such storage class: it would fail the repack request",
                mend,
            ));
            continue;
        };
        checks.push(Check::ok(
            "storage-class",
            name,
            format!("exists, {}", several(class.nb_copies, "copy", "copies")),
        ));
        if settings.repack_mode == RepackMode::MoveAndAddCopies {
            // Sites have two copies, or three; a number from elsewhere must not make us count for ever.
            for copy in 1..=class.nb_copies.min(16) {
                wanted.entry((name.to_owned(), copy)).or_default();
            }
        }
    }
    wanted
}

/// The route that a repack takes: one of type REPACK before the others.
fn route<'a>(routes: &'a [Route], class: &str, copy: u64) -> Option<&'a Route> {
    let fits = || routes.iter().filter(|route| route.storage_class == class && route.copy_number == copy);
    fits().find(|route| route.archive_route_type == "REPACK").or_else(|| fits().next())
}

/// Two copies of a file must not be written to one pool: CTA fails such a request.
fn shared(kinds: &Kinds, routes: &[Route], classes: &Listed<StorageClass>) -> Vec<Check> {
    let names: BTreeSet<&str> = kinds.keys().map(|(class, _)| class.as_str()).collect();
    let mut checks = Vec::new();
    for class in classes.iter().flatten().filter(|class| names.contains(class.name.as_str())) {
        let mut pools = BTreeMap::new();
        for copy in 1..=class.nb_copies.min(16) {
            let Some(route) = route(routes, &class.name, copy) else { continue };
            if let Some(other) = pools.insert(&route.tapepool, copy) {
                let found =
                    format!("copies {other} and {copy} are both written to {}: CTA refuses that", route.tapepool);
                let mend = "cta-admin archiveroute ch, by a CTA administrator: a pool of its own for each copy";
                checks.push(Check::fails(
                    "archive-route",
                    format!("{} copies {other} and {copy}", class.name),
                    found,
                    mend,
                ));
            }
        }
    }
    checks
}

/// Whether a pool has tapes that can be written to, and room on them.
async fn target(settings: &Settings, cta: &Cta, vid: &Vid, pool: &str, size: u64, reference: &Reference) -> Check {
    let pools = match &reference.pools {
        Ok(pools) => pools,
        Err(why) => return Check::not_asked("writable-tapes", pool, why.clone()),
    };
    let Some(known) = pools.iter().find(|known| known.name == pool) else {
        return Check::fails("writable-tapes", pool, "CTA has no such pool", "cta-admin archiveroute ls");
    };
    let tapes = match list::<WritableTape>(cta, Query::WritableTapes(pool.to_owned())).await {
        Ok(tapes) => tapes,
        Err(why) => return Check::not_asked("writable-tapes", pool, why),
    };
    let disabled = reference.disabled();
    let usable = |tape: &&WritableTape| tape.vid != vid.as_str() && !disabled.contains(tape.logical_library.as_str());
    let good: Vec<&WritableTape> = tapes.iter().filter(usable).collect();
    let room = good.iter().fold(0u64, |room, tape| room.saturating_add(tape.capacity.saturating_sub(tape.occupancy)));
    let from = known.supplied_from();
    let config = settings.cta_admin.user_config.as_deref();
    let mend = match from.first() {
        Some(supply) => format!(
            "see that tapes of {supply} are moved to {pool}: {}",
            typed(config, &["tape", "ls", "--tapepool", supply])
        ),
        None => format!(
            "move an empty tape to it: {}",
            typed(config, &["tape", "ch", "--vid", "EMPTY_VID", "--tapepool", pool])
        ),
    };
    if good.is_empty() {
        let found = match tapes.iter().filter(|tape| tape.vid != vid.as_str()).count() {
            0 => "no tape in it is ACTIVE and not full: the repack would wait".to_owned(),
            1 => "its 1 tape that is ACTIVE and not full is in a disabled library: the repack would wait".to_owned(),
            count => format!(
                "its {count} tapes that are ACTIVE and not full are in disabled libraries: the repack would wait"
            ),
        };
        return match from.as_slice() {
            [] => Check::fails("writable-tapes", pool, found, mend),
            _ => Check::warning(
                "writable-tapes",
                pool,
                format!("{found}; it is supplied from {}", from.join(", ")),
                mend,
            ),
        };
    }
    let found = format!(
        "{} ACTIVE and not full, {} bytes free, {} to be written",
        counted(good.len(), "tape"),
        shown(room),
        shown(size)
    );
    if room < size {
        return Check::warning("writable-tapes", pool, found, mend);
    }
    Check::ok("writable-tapes", pool, found)
}

fn buffer(settings: &Settings) -> Check {
    match &settings.repack_buffer_url {
        Some(url) => {
            Check::ok("buffer", url, "is given with each repack; whether it can be reached, CTA does not tell")
        }
        None => Check::not_asked(
            "buffer",
            "",
            "repack_buffer_url is not set: the front end must have a default, which cta-admin does not show",
        ),
    }
}

/// What has a plural of its own: `1 copy`, `2 copies`.
fn several(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn shown(count: u64) -> String {
    bytes(i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn to(class: &str, copy: u64, kind: &str, pool: &str) -> Route {
        Route { storage_class: class.into(), copy_number: copy, archive_route_type: kind.into(), tapepool: pool.into() }
    }

    fn reference(routes: Vec<Route>, copies: u64) -> Reference {
        let classes = vec![StorageClass { name: "raw".into(), nb_copies: copies }];
        Reference { routes: Ok(routes), classes: Ok(classes), pools: Ok(Vec::new()), libraries: Ok(Vec::new()) }
    }

    fn on_tape(copies: &[u64]) -> Kinds {
        copies.iter().map(|copy| (("raw".to_owned(), *copy), (1, 7))).collect()
    }

    fn failing(checks: &[Check]) -> Vec<String> {
        checks
            .iter()
            .filter(|check| check.result == Verdict::Fails)
            .map(|check| format!("{} {}", check.check, check.subject))
            .collect()
    }

    #[test]
    fn a_route_of_type_repack_is_preferred_wherever_it_stands() {
        let routes = [to("raw", 1, "DEFAULT", "a"), to("raw", 1, "REPACK", "b"), to("raw", 2, "DEFAULT", "c")];
        assert_eq!(route(&routes, "raw", 1).unwrap().tapepool, "b");
        assert_eq!(route(&routes, "raw", 2).unwrap().tapepool, "c");
        assert_eq!(route(&routes, "raw", 3), None);
        assert_eq!(route(&[to("raw", 1, "", "old")], "raw", 1).unwrap().tapepool, "old");
    }

    #[test]
    fn missing_copies_need_a_route_only_where_they_are_added() {
        let reference = reference(vec![to("raw", 1, "DEFAULT", "a")], 2);
        let moving = Settings::default();
        assert_eq!(failing(&routes(&moving, &on_tape(&[1]), &reference).0), Vec::<String>::new());
        let adding = Settings { repack_mode: RepackMode::MoveAndAddCopies, ..moving };
        assert_eq!(failing(&routes(&adding, &on_tape(&[1]), &reference).0), ["archive-route raw copy 2"]);
    }

    #[test]
    fn two_copies_that_lead_to_one_pool_are_found_whichever_is_on_the_tape() {
        let reference = reference(vec![to("raw", 1, "DEFAULT", "a"), to("raw", 2, "DEFAULT", "a")], 2);
        let found = routes(&Settings::default(), &on_tape(&[2]), &reference).0;
        assert_eq!(failing(&found), ["archive-route raw copies 1 and 2"]);
    }

    #[test]
    fn what_cannot_be_listed_is_not_asked_and_fails_nothing() {
        let mut reference = reference(Vec::new(), 1);
        reference.routes = Err("no".into());
        let (checks, targets) = routes(&Settings::default(), &on_tape(&[1]), &reference);
        assert!(checks.iter().all(|check| check.result == Verdict::NotAsked) && targets.is_empty(), "{checks:?}");
    }

    #[test]
    fn a_command_in_a_reason_is_what_mends_it() {
        let vid: Vid = "V01007".parse().unwrap();
        let reason = "it is not full: 'cta-admin tape ch --vid V01007 --full true' makes it so";
        assert_eq!(mend(&vid, reason), "cta-admin tape ch --vid V01007 --full true");
        assert_eq!(mend(&vid, "bob put it on hold: audit"), "cta-ops-repack-manager release V01007");
        assert!(mend(&vid, "mount policy m of priority 1 does not exist in CTA").contains("check-env"));
    }
}

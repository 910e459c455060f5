//! What must exist in CTA: repack VO, mount policies, pools, media types, libraries. Pure: the lists are there already.

use std::collections::{BTreeMap, BTreeSet};

use common::cta::typed;
use common::settings::Settings;

use super::Check;
use super::cta::Lists;

/// Names in sentences: more are counted.
const NAMED: usize = 5;

/// Judges the lists.
pub fn checks(settings: &Settings, lists: &Lists) -> Vec<Check> {
    let mut checks = vec![repack_vo(settings, lists)];
    checks.extend(policies(settings, lists));
    checks.push(quarantine(settings, lists));
    checks.extend(destinations(settings, lists));
    checks.extend(media(settings, lists));
    checks.extend(libraries(settings, lists));
    checks.extend(ignored(settings, lists));
    checks
}

/// A `cta-admin` command with the configuration that queries have.
fn command(settings: &Settings, words: &[&str]) -> String {
    typed(settings.cta_admin.user_config.as_deref(), words)
}

fn repack_vo(settings: &Settings, lists: &Lists) -> Check {
    let vos = match &lists.vos {
        Ok(vos) => vos,
        Err(why) => return Check::not_asked("repack-vo", "", why.clone()),
    };
    if let Some(vo) = vos.iter().find(|vo| vo.is_repack_vo == Some(true)) {
        return Check::ok("repack-vo", &vo.name, "CTA repacks on behalf of it");
    }
    if !vos.is_empty() && vos.iter().all(|vo| vo.is_repack_vo.is_none()) {
        return Check::ok("repack-vo", "", "this CTA is too old to have one, and needs none");
    }
    let words = [
        "virtualorganization",
        "add",
        "--virtualorganisation",
        "vo_repack",
        "--readmaxdrives",
        "N",
        "--writemaxdrives",
        "N",
        "--diskinstance",
        "INSTANCE",
        "--isrepackvo",
        "true",
        "--comment",
        "repack",
    ];
    Check::fails(
        "repack-vo",
        "",
        "no virtual organization is CTA's for repack ('isRepackVo')",
        command(settings, &words),
    )
}

/// Each mount policy that a priority names, once.
fn policies(settings: &Settings, lists: &Lists) -> Vec<Check> {
    let mut by_policy: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (number, priority) in &settings.priorities.by_number {
        by_policy.entry(&priority.mount_policy).or_default().push(number.to_string());
    }
    let each = by_policy.iter().map(|(policy, priorities)| {
        let of = format!("of priority {}", priorities.join(", "));
        match &lists.policies {
            Err(why) => Check::not_asked("mount-policy", *policy, why.clone()),
            Ok(known) if known.iter().any(|named| named.name == **policy) => {
                Check::ok("mount-policy", *policy, format!("exists; {of}"))
            }
            Ok(_) => {
                let words = [
                    "mountpolicy",
                    "add",
                    "--name",
                    policy,
                    "--archivepriority",
                    "N",
                    "--minarchiverequestage",
                    "SECS",
                    "--retrievepriority",
                    "N",
                    "--minretrieverequestage",
                    "SECS",
                    "--comment",
                    "repack",
                ];
                Check::fails("mount-policy", *policy, format!("does not exist; {of}"), command(settings, &words))
            }
        }
    });
    each.collect()
}

/// The command that creates a pool, as this release of CTA wants it. The VO is that of the pools of its kind.
fn create(settings: &Settings, lists: &Lists, pool: &str, comment: &str) -> String {
    let special = |name: &str| common::stages::checks::special_pool(name, settings).is_some();
    let vo = lists.pools.iter().flatten().find(|pool| !pool.vo.is_empty() && special(&pool.name));
    let vo = vo.map_or("VO", |pool| pool.vo.as_str());
    let mut words = vec!["tapepool", "add", "--name", pool, "--vo", vo, "--partialtapesnumber", "0"];
    if before(&lists.release, [5, 11, 6]) {
        words.extend(["--encrypted", "false"]);
    }
    words.extend(["--comment", comment]);
    command(settings, &words)
}

/// Whether a release such as `5.11.20.0-1` is older; an unknown one is not.
fn before(release: &str, other: [u32; 3]) -> bool {
    let parts: Vec<u32> = release.split(['.', '-']).take(3).map_while(|part| part.parse().ok()).collect();
    <[u32; 3]>::try_from(parts).is_ok_and(|release| release < other)
}

fn quarantine(settings: &Settings, lists: &Lists) -> Check {
    let pool = &settings.quarantine_pool;
    match &lists.pools {
        Err(why) => return Check::not_asked("quarantine-pool", pool, why.clone()),
        Ok(pools) if !pools.iter().any(|known| known.name == *pool) => {
            let mend = create(settings, lists, pool, "repacked tapes waiting to be reclaimed");
            return Check::fails("quarantine-pool", pool, "does not exist", mend);
        }
        Ok(_) => {}
    }
    match &lists.routes {
        Err(why) => {
            Check::not_asked("quarantine-pool", pool, format!("exists; whether an archive route leads to it: {why}"))
        }
        Ok(routes) => match routes.iter().find(|route| route.tapepool == *pool) {
            None => Check::ok("quarantine-pool", pool, "exists, and no archive route leads to it"),
            Some(route) => Check::fails(
                "quarantine-pool",
                pool,
                format!(
                    "storage class {} copy {} is written to it, so nothing in it is reclaimed",
                    route.storage_class, route.copy_number
                ),
                format!("{}, and give the route another pool", command(settings, &["archiveroute", "ls"])),
            ),
        },
    }
}

/// Every destination pool there can be, and what leads to it.
fn reachable(settings: &Settings, media: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let mut pools: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |priority: i16, library: &str, medium: &str| {
        if let Ok(pool) = settings.destination_pool(priority, library, medium) {
            let of = if library.is_empty() { medium.to_owned() } else { format!("{medium} of {library}") };
            pools.entry(pool).or_default().insert(of);
        }
    };
    for priority in settings.priorities.by_number.keys() {
        match &settings.lib_to_pool_map {
            Some(map) => {
                for (library, suffixes) in map {
                    suffixes.keys().for_each(|medium| add(*priority, library, medium));
                }
            }
            None => media.iter().for_each(|medium| add(*priority, "", medium)),
        }
    }
    pools
}

fn destinations(settings: &Settings, lists: &Lists) -> Vec<Check> {
    let pools = match &lists.pools {
        Ok(pools) => pools,
        Err(why) => return vec![Check::not_asked("destination-pool", "", why.clone())],
    };
    let media: Vec<String> = match (&lists.media, &settings.lib_to_pool_map) {
        (Ok(media), _) => media.iter().map(|named| named.name.clone()).collect(),
        (Err(_), Some(_)) => Vec::new(),
        (Err(why), None) => return vec![Check::not_asked("destination-pool", "", why.clone())],
    };
    let wanted = reachable(settings, &media);
    let mut checks = Vec::new();
    let mut good = 0;
    for (pool, tapes) in &wanted {
        let tapes = few(tapes.iter().map(String::as_str));
        if !pools.iter().any(|known| known.name == *pool) {
            let mend = create(settings, lists, pool, "repacked tapes");
            checks.push(Check::fails("destination-pool", pool, format!("does not exist; for {tapes}"), mend));
        } else if let Some(route) = lists.routes.iter().flatten().find(|route| route.tapepool == *pool) {
            let found = format!(
                "storage class {} copy {} is written to it, so tapes are not only put there",
                route.storage_class, route.copy_number
            );
            let mend = format!("{}, and give the route another pool", command(settings, &["archiveroute", "ls"]));
            checks.push(Check::warning("destination-pool", pool, found, mend));
        } else {
            good += 1;
        }
    }
    if good > 0 {
        let found = match wanted.len() {
            all if checks.is_empty() => format!("all {all} that there can be exist"),
            all => format!("{good} of the {all} that there can be exist"),
        };
        checks.push(Check::ok("destination-pool", "", found));
    }
    if wanted.is_empty() {
        let mend = "fill lib_to_pool_map of the configuration";
        checks.push(Check::warning("destination-pool", "", "there can be none: no tape can be prepared", mend));
    }
    checks
}

/// The media types of the map.
fn media(settings: &Settings, lists: &Lists) -> Vec<Check> {
    let Some(map) = &settings.lib_to_pool_map else { return Vec::new() };
    let named: BTreeSet<&str> = map.values().flat_map(|media| media.keys()).map(String::as_str).collect();
    match &lists.media {
        Err(why) => vec![Check::not_asked("media-type", "", why.clone())],
        Ok(known) => {
            let known: BTreeSet<&str> = known.iter().map(|named| named.name.as_str()).collect();
            in_map("media-type", "media type", &named, &known, settings, "mediatype")
        }
    }
}

/// The logical libraries of the map, and whether they are disabled.
fn libraries(settings: &Settings, lists: &Lists) -> Vec<Check> {
    let Some(map) = &settings.lib_to_pool_map else { return Vec::new() };
    let named: BTreeSet<&str> = map.keys().map(String::as_str).collect();
    let known = match &lists.libraries {
        Err(why) => return vec![Check::not_asked("logical-library", "", why.clone())],
        Ok(known) => known,
    };
    let names: BTreeSet<&str> = known.iter().map(|library| library.name.as_str()).collect();
    let mut checks = in_map("logical-library", "logical library", &named, &names, settings, "logicallibrary");
    for library in known.iter().filter(|library| library.is_disabled && named.contains(library.name.as_str())) {
        let why =
            if library.disabled_reason.is_empty() { String::new() } else { format!(": {}", library.disabled_reason) };
        let mend = format!(
            "{}, by a CTA administrator, once it can be used again",
            command(settings, &["logicallibrary", "ch"])
        );
        checks.push(Check::warning(
            "logical-library",
            &library.name,
            format!("is disabled in CTA{why}; its tapes are not mounted"),
            mend,
        ));
    }
    checks
}

/// Names of the map against those that CTA has. One that CTA does not have is never met; one that the map does not have may be
/// left out on purpose, and is only told.
fn in_map(
    check: &'static str,
    kind: &str,
    named: &BTreeSet<&str>,
    known: &BTreeSet<&str>,
    settings: &Settings,
    list: &str,
) -> Vec<Check> {
    let mut checks: Vec<Check> = named
        .difference(known)
        .map(|name| {
            let mend = format!("correct lib_to_pool_map; what CTA has: {}", command(settings, &[list, "ls"]));
            Check::warning(check, *name, format!("is in lib_to_pool_map, but CTA has no such {kind}"), mend)
        })
        .collect();
    let both: Vec<&str> = named.intersection(known).copied().collect();
    if !both.is_empty() {
        let mut found = format!("known to CTA: {}", few(both.iter().copied()));
        let left: Vec<&str> = known.difference(named).copied().collect();
        if !left.is_empty() {
            found.push_str(&format!("; tapes of {} are refused, the map has none", few(left.iter().copied())));
        }
        checks.push(Check::ok(check, "", found));
    }
    checks
}

fn ignored(settings: &Settings, lists: &Lists) -> Vec<Check> {
    let names = &settings.scan.ignore_pools;
    let pools = match &lists.pools {
        Ok(pools) => pools,
        Err(_) if names.is_empty() => return Vec::new(),
        Err(why) => return vec![Check::not_asked("ignored-pool", "", why.clone())],
    };
    let unknown = names.iter().filter(|name| !pools.iter().any(|pool| pool.name == **name));
    let mut checks: Vec<Check> = unknown
        .map(|name| {
            let mend = "correct ignore_pools of the configuration";
            Check::warning("ignored-pool", name, "is in ignore_pools, but CTA has no such pool", mend)
        })
        .collect();
    let known = names.len() - checks.len();
    if known > 0 {
        checks.push(Check::ok("ignored-pool", "", format!("{known} pools that the scan leaves out exist")));
    }
    checks
}

fn few<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.len().checked_sub(NAMED) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..NAMED].join(", ")),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        for (release, older) in [
            ("5.11.5.0-1", true),
            ("5.10.7-1", true),
            ("4.11.9-1", true),
            ("5.11.6", false),
            ("5.11.20.0-1", false),
            ("6.0.0", false),
        ] {
            assert_eq!(before(release, [5, 11, 6]), older, "{release}");
        }
        for unknown in ["", "5.11", "new"] {
            assert!(!before(unknown, [5, 11, 6]), "{unknown}");
        }
    }

    #[test]
    fn every_pool_that_priorities_and_map_lead_to_is_wanted_once() {
        let map = [("L1", [("LTO8", "_A"), ("LTO9", "_B")]), ("L2", [("LTO8", "_A"), ("LTO9", "_C")])];
        let map =
            map.map(|(library, media)| (library.to_owned(), media.map(|(m, s)| (m.to_owned(), s.to_owned())).into()));
        let settings = Settings { lib_to_pool_map: Some(map.into()), ..Settings::default() };
        let wanted = reachable(&settings, &[]);
        let names: Vec<&str> = wanted.keys().map(String::as_str).collect();
        assert_eq!(names, ["erase_A", "erase_B", "erase_C", "tolabel_A", "tolabel_B", "tolabel_C"]);
        assert_eq!(wanted["tolabel_A"].len(), 2);
        let plain = reachable(&Settings::default(), &["LTO9".to_owned()]);
        assert_eq!(plain.keys().collect::<Vec<_>>(), ["erase_LTO9", "tolabel_LTO9"]);
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(few(["a", "b"].into_iter()), "a, b");
        assert_eq!(few(["a", "b", "c", "d", "e", "f", "g"].into_iter()), "a, b, c, d, e and 2 more");
    }
}

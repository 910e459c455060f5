//! What must be true of a tape before it is repacked. Prepare asks all of it, start asks it again, scan what it can.

use crate::cta::reply;
use crate::settings::Settings;

/// What the site has, as far as it was asked.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Names of all tape pools.
    pub pools: &'a [String],
    /// Names of all mount policies.
    pub mount_policies: &'a [String],
    /// A repack VO exists; none where CTA is too old to know of one.
    pub repack_vo: Option<bool>,
}

/// What decides of a tape itself.
#[derive(Debug, Clone, Copy)]
pub struct Looked<'a> {
    /// Volume identifier.
    pub vid: &'a str,
    /// No more writing.
    pub full: bool,
    /// Bytes ever written since the last reclaim.
    pub occupancy: u64,
    /// CTA's own word.
    pub state: &'a str,
    /// Tape pool name.
    pub tapepool: &'a str,
}

/// Why a tape itself cannot be repacked, all reasons at once: fullness, state and pool.
pub fn of_tape(tape: &reply::Tape, settings: &Settings) -> Vec<String> {
    let reply::Tape { vid, full, occupancy, state, tapepool, .. } = tape;
    let looked = Looked { vid, full: *full, occupancy: *occupancy, state, tapepool };
    let mut failed = Vec::new();
    each_unfit(&looked, settings, |why| failed.push(why()));
    failed
}

/// As [`of_tape`], where the words are made only if somebody reads them.
pub fn each_unfit(tape: &Looked<'_>, settings: &Settings, mut found: impl FnMut(&dyn Fn() -> String)) {
    if !tape.full {
        // No hint for a tape that holds nothing: somebody would set it.
        found(&|| match tape.occupancy {
            0 => "it is not full, and empty".to_owned(),
            _ => format!("it is not full: 'cta-admin tape ch --vid {} --full true' makes it so", tape.vid),
        });
    }
    if !matches!(tape.state, "ACTIVE" | "DISABLED") {
        found(&|| format!("its CTA state is {}, not ACTIVE or DISABLED", tape.state));
    }
    if let Some(kind) = special_pool(tape.tapepool, settings) {
        found(&|| format!("it is in {}, which is {kind}", tape.tapepool));
    }
}

/// Whether a pool is one of ours at the end of a journey: the quarantine pool, or a destination such as `tolabel_X`.
pub fn special_pool(pool: &str, settings: &Settings) -> Option<&'static str> {
    if pool == settings.quarantine_pool {
        return Some("the quarantine pool");
    }
    let suffixes =
        || settings.lib_to_pool_map.iter().flat_map(|map| map.values()).flat_map(|of_library| of_library.values());
    settings.priorities.by_number.values().find_map(|priority| {
        let rest = pool.strip_prefix(priority.default_dst_pool_prefix.as_str())?;
        let destination = rest.is_empty() || rest.starts_with('_') || suffixes().any(|suffix| suffix == rest);
        destination.then_some("a destination pool of repacked tapes")
    })
}

/// Why a repack with this priority could not lead the tape to its destination, all reasons at once.
pub fn of_way(tape: &reply::Tape, priority: i16, settings: &Settings, site: &Site<'_>) -> Vec<String> {
    let mut failed = Vec::new();
    match settings.priorities.by_number.get(&priority) {
        None => {
            let known: Vec<_> = settings.priorities.by_number.keys().map(i16::to_string).collect();
            failed.push(format!("priority {priority} is not in the configuration (there are {})", known.join(", ")));
        }
        Some(wanted) => {
            if !site.mount_policies.contains(&wanted.mount_policy) {
                failed
                    .push(format!("mount policy {} of priority {priority} does not exist in CTA", wanted.mount_policy));
            }
            match settings.destination_pool(priority, &tape.logical_library, &tape.media_type) {
                Err(why) => failed.push(why),
                Ok(pool) if !site.pools.contains(&pool) => {
                    failed.push(format!("its destination pool {pool} does not exist in CTA"));
                }
                Ok(_) => {}
            }
        }
    }
    if !site.pools.contains(&settings.quarantine_pool) {
        failed.push(format!("the quarantine pool {} does not exist in CTA", settings.quarantine_pool));
    }
    if site.repack_vo == Some(false) {
        failed.push("CTA has no virtual organization for repack ('isRepackVo')".to_owned());
    }
    failed
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn site() -> (Vec<String>, Vec<String>) {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        (
            names(&["quarantine", "tolabel_LTO9", "erase_LTO9", "raw"]),
            names(&["repack_low_priority", "repack_high_priority"]),
        )
    }

    #[test]
    fn a_good_tape_passes_and_each_fault_is_named() {
        let settings = crate::stages::fixtures::settings();
        let good = crate::stages::fixtures::cta_tape();
        assert_eq!(of_tape(&good, &settings), Vec::<String>::new());
        let not_full = reply::Tape { full: false, ..good.clone() };
        assert!(of_tape(&not_full, &settings)[0].contains("--full true"));
        let empty = reply::Tape { full: false, occupancy: 0, ..good.clone() };
        assert_eq!(of_tape(&empty, &settings), ["it is not full, and empty"]);
        for state in ["REPACKING", "REPACKING_PENDING", "REPACKING_DISABLED", "BROKEN", "EXPORTED", "NEW_WORD"] {
            let tape = reply::Tape { state: state.to_owned(), ..good.clone() };
            assert!(of_tape(&tape, &settings)[0].contains(state), "{state}");
        }
        for pool in ["quarantine", "tolabel", "tolabel_IBM1L8", "erase_X"] {
            let tape = reply::Tape { tapepool: pool.to_owned(), ..good.clone() };
            assert!(of_tape(&tape, &settings)[0].contains(pool), "{pool}");
        }
        let lookalike = reply::Tape { tapepool: "tolabelled".to_owned(), ..good };
        assert_eq!(of_tape(&lookalike, &settings), Vec::<String>::new());
        let map = [("LIB1".to_owned(), [("LTO9".to_owned(), "led".to_owned())].into())].into();
        let mapped = Settings { lib_to_pool_map: Some(map), ..settings };
        assert!(of_tape(&lookalike, &mapped)[0].contains("tolabelled"), "the map makes it a destination");
    }

    #[test]
    fn the_way_needs_priority_policy_pools_and_repack_vo() {
        let settings = crate::stages::fixtures::settings();
        let tape = crate::stages::fixtures::cta_tape();
        let (pools, mount_policies) = site();
        let all = Site { pools: &pools, mount_policies: &mount_policies, repack_vo: Some(true) };
        assert_eq!(of_way(&tape, 10, &settings, &all), Vec::<String>::new());
        assert_eq!(of_way(&tape, 10, &settings, &Site { repack_vo: None, ..all }), Vec::<String>::new());
        assert!(of_way(&tape, 77, &settings, &all)[0].contains("priority 77"));
        assert!(of_way(&tape, 10, &settings, &Site { mount_policies: &[], ..all })[0].contains("mount policy"));
        assert!(of_way(&tape, 10, &settings, &Site { repack_vo: Some(false), ..all })[0].contains("isRepackVo"));
        let without = of_way(&tape, 10, &settings, &Site { pools: &[], ..all });
        assert!(without.iter().any(|why| why.contains("tolabel_LTO9")), "{without:?}");
        assert!(without.iter().any(|why| why.contains("quarantine pool")), "{without:?}");
    }
}

//! Tapes computed from a number: any one can be known without making the others.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::world::{Mark, Run, Tape, TapeState, World};

/// Virtual organisation of the pools of computed tapes.
pub const VO: &str = "vo_generated";
/// Number of pools they are in.
pub const POOLS: u64 = 20;

/// Computed tapes of a world: `G000000` and on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Generated {
    /// How many, at most 10,000,000 (longer VIDs would not sort as their numbers do).
    pub count: u64,
    /// What they are computed from.
    pub seed: u64,
}

impl Generated {
    /// The tape with this VID.
    pub fn find(&self, vid: &str) -> Option<Tape> {
        let digits = vid.strip_prefix('G').filter(|digits| digits.len() == 7)?;
        let i: u64 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
        (i < self.count).then(|| tape(self.seed, i))
    }
}

/// VID of the tape with number `i`.
pub fn vid(i: u64) -> String {
    format!("G{i:07}")
}

/// Name of a pool of computed tapes, `i` below [`POOLS`].
pub fn pool_name(i: u64) -> String {
    format!("pool_generated_{i:02}")
}

/// A number that depends on all bits of its arguments (splitmix64).
pub(crate) fn mix(seed: u64, i: u64, what: u64) -> u64 {
    let mut z = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(i.wrapping_mul(0xbf58_476d_1ce4_e5b9))
        .wrapping_add(what.wrapping_mul(0x94d0_49bb_1331_11eb));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The tape with number `i`: about 80 % full, 90 % ACTIVE, usage spread evenly over 0 to 1, some never written.
pub fn tape(seed: u64, i: u64) -> Tape {
    let draw = |what: u64, below: u64| mix(seed, i, what) % below;
    let (media, capacity) = if draw(1, 2) == 0 { ("LTO8", 12_000_000_000_000) } else { ("LTO9", 18_000_000_000_000) };
    let library = if draw(2, 2) == 0 { "IBM1" } else { "IBM2" };
    let mut tape = Tape::new(&pool_name(draw(3, POOLS))).made_of(library, media);
    tape.full = draw(4, 100) < 80;
    tape.state = match draw(5, 100) {
        0..90 => TapeState::Active,
        90..94 => TapeState::Disabled,
        94..96 => TapeState::Broken,
        96..98 => TapeState::Repacking,
        98 => TapeState::RepackingDisabled,
        _ => TapeState::Exported,
    };
    if tape.state != TapeState::Active {
        tape.reason = "some reason".into();
    }
    tape.dirty = draw(6, 20) == 0;
    if draw(7, 50) > 0 {
        const FILE: u64 = 2_000_000_000;
        let written = capacity / FILE / 10 + draw(8, capacity / FILE * 9 / 10);
        let live = written * draw(9, 1001) / 1000;
        tape.last_fseq = written;
        tape.occupancy = written * FILE;
        tape.written = Some(Mark { drive: "DRIVE1".into(), time: 1_700_000_000 + draw(10, 80_000_000) });
        tape.cached_files = live;
        tape.cached_bytes = live * FILE;
        if live > 0 {
            tape.files.push(Run {
                fseq: written - live + 1,
                count: live,
                size: FILE,
                archive_id: 1_000_000_000_000 + i * 100_000,
                class: "generated".into(),
                copy: 1,
            });
        }
    }
    tape
}

/// The object that `tape ls` prints for the tape with number `i` (newest keys, instance `production`).
pub fn generated_tape(seed: u64, i: u64) -> serde_json::Value {
    static WORLD: LazyLock<World> = LazyLock::new(|| World::new().with_generated(1, 0));
    let mut text = String::new();
    crate::render::tape(&mut text, &WORLD, &vid(i), &tape(seed, i), false);
    serde_json::from_str(&text).expect("our own JSON")
}

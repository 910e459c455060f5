//! Ready-made worlds.

use crate::world::{Mark, Plan, Run, Tape, TapeState, World};

/// The tape of [`quickstart`] whose first repack fails with two files that cannot be read.
pub const FAILING: &str = "V01005";

/// What kinds of tapes [`quickstart`] has, as numbers of tapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Full, ACTIVE, usage between 2 % and 14 %: a scan selects them.
    pub low: u64,
    /// Full, ACTIVE, without a single active file: a scan selects them first.
    pub empty: u64,
    /// Full, ACTIVE, usage above 60 %.
    pub high: u64,
    /// Not full: where repacks write to.
    pub writable: u64,
    /// Full, DISABLED, low usage.
    pub disabled: u64,
    /// Full, BROKEN, low usage.
    pub broken: u64,
}

impl Share {
    /// For a number of tapes, at least 12.
    pub fn of(tapes: u64) -> Share {
        let tapes = tapes.max(12);
        let (empty, disabled, broken) = (2, 1, 1);
        let high = (tapes / 10).max(1);
        let writable = (tapes * 3 / 20).max(3);
        Share { low: tapes - empty - disabled - broken - high - writable, empty, high, writable, disabled, broken }
    }
}

/// The world of the quickstart: tapes `V01001` and on in the three pools, two libraries and two media types, pending
/// states of one second, repacks of three to six, one that fails at first ([`FAILING`]). `seed` varies usage and times.
pub fn quickstart(tapes: u64, seed: u64) -> World {
    let share = Share::of(tapes);
    let mut world = World::new().with_durations(1000, 4000);
    world.max_to_expand = 10;
    let total = share.low + share.empty + share.high + share.writable + share.disabled + share.broken;
    let mut kinds = Vec::new();
    for (count, kind) in [
        (share.low, Kind::Low),
        (share.empty, Kind::Empty),
        (share.disabled, Kind::Disabled),
        (share.broken, Kind::Broken),
        (share.high, Kind::High),
        (share.writable, Kind::Writable),
    ] {
        kinds.extend((0..count).map(|_| kind));
    }
    for (i, kind) in (0..total).zip(kinds) {
        world.tapes.insert(format!("V{:05}", 1001 + i), one(kind, i, seed));
    }
    if let Some(tape) = world.tapes.get_mut(FAILING) {
        tape.plan.fail_files = 2;
        tape.plan.fail_times = 1;
    }
    world
}

#[derive(Clone, Copy)]
enum Kind {
    Low,
    Empty,
    High,
    Writable,
    Disabled,
    Broken,
}

fn one(kind: Kind, i: u64, seed: u64) -> Tape {
    const FILE: u64 = 20_000_000_000;
    let draw = |what: u64, below: u64| crate::generated::mix(seed, i, 100 + what) % below;
    let class = ["alpha_raw", "alpha_user", "beta_raw"][usize::try_from(i % 3).unwrap_or(0)];
    let (media, capacity) =
        if i.is_multiple_of(2) { ("LTO8", 12_000_000_000_000) } else { ("LTO9", 18_000_000_000_000) };
    let library = if i % 4 < 2 { "IBM1" } else { "IBM2" };
    let mut tape = Tape::new(&format!("pool_{class}")).made_of(library, media);
    tape.state = match kind {
        Kind::Disabled => TapeState::Disabled,
        Kind::Broken => TapeState::Broken,
        _ => TapeState::Active,
    };
    if tape.state != TapeState::Active {
        tape.reason = "bad medium, seen by an operator".into();
    }
    let written = if matches!(kind, Kind::Writable) { 20 } else { capacity / FILE };
    let per_mille = match kind {
        Kind::Empty => 0,
        Kind::Low | Kind::Disabled | Kind::Broken => 20 + draw(1, 120),
        Kind::High => 600 + draw(1, 390),
        Kind::Writable => 1000,
    };
    let live = written * per_mille / 1000;
    tape.last_fseq = written - live;
    tape.occupancy = tape.last_fseq * FILE;
    tape.written = Some(Mark { drive: "DRIVE1".into(), time: 1_726_000_000 + draw(2, 1_000_000) });
    if live > 0 {
        let archive_id = 4_294_967_296 + i * 10_000;
        tape.append(&Run { fseq: 0, count: live, size: FILE, archive_id, class: class.into(), copy: 1 });
    }
    tape.full = !matches!(kind, Kind::Writable);
    tape.plan = Plan { repack_ms: Some(3000 + draw(3, 3001)), ..Plan::default() };
    tape
}

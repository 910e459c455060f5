//! Chance that can be repeated.

/// Numbers that follow from a seed alone.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// From this seed.
    pub fn seeded(seed: u64) -> Chance {
        Chance(seed)
    }

    /// From `REPACK_TEST_SEED`, or from the clock; the seed is printed, so that a failure can be repeated.
    ///
    /// # Panics
    /// When the variable holds no number.
    pub fn of_this_run(what: &str) -> Chance {
        let seed = match std::env::var("REPACK_TEST_SEED") {
            Ok(seed) => seed.parse().expect("REPACK_TEST_SEED is a number"),
            Err(_) => cta_sim::store::now_us(),
        };
        eprintln!("{what}: REPACK_TEST_SEED={seed}");
        Chance(seed)
    }

    /// The next number (SplitMix64).
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("a usize fits");
        usize::try_from(self.number() % limit).expect("it is below a usize")
    }

    /// One of these; none of none.
    pub fn one_of<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.below(of.len())) }
    }

    /// At most `count` of these, any.
    pub fn some_of<T>(&mut self, mut of: Vec<T>, count: usize) -> Vec<T> {
        while of.len() > count {
            let at = self.below(of.len());
            of.swap_remove(at);
        }
        of
    }
}

/// Whether everything is to be run, not a sample of it: `tests/run --full`.
pub fn everything() -> bool {
    std::env::var_os("REPACK_TEST_FULL").is_some_and(|set| set == "1")
}

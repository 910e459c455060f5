//! Ten thousand seeds, in parts that run at the same time.

use simulator::{Tally, run};

/// Runs seeds and shows the first that fails, with its trace. Returns what they came to.
fn seeds(part: u64) -> Tally {
    let mut sum = Tally::default();
    for seed in part * 1250..(part + 1) * 1250 {
        match run(seed, None) {
            Ok(tally) => sum.add(&tally),
            Err(failure) => panic!("\n{failure}"),
        }
    }
    sum
}

/// Seeds that go nowhere prove nothing.
fn went_everywhere(sum: &Tally) {
    let Tally { stamps, finished, given_back, errors, commands, unclear, late, .. } = *sum;
    let counted = [stamps, finished, given_back, errors, commands, unclear, late, sum.too_late, sum.claims];
    let more = [sum.abandoned, sum.fenced, sum.crashes, sum.edits];
    assert!(counted.iter().chain(&more).all(|count| *count > 0), "something never happened: {sum:?}");
    assert!(finished > 1000, "hardly a tape came to its end: {sum:?}");
}

macro_rules! parts {
    ($($name:ident $part:literal;)*) => {
        $(#[test]
        fn $name() {
            went_everywhere(&seeds($part));
        })*
    };
}

parts! {
    every_invariant_holds_in_seeds_0_to_1249 0;
    every_invariant_holds_in_seeds_1250_to_2499 1;
    every_invariant_holds_in_seeds_2500_to_3749 2;
    every_invariant_holds_in_seeds_3750_to_4999 3;
    every_invariant_holds_in_seeds_5000_to_6249 4;
    every_invariant_holds_in_seeds_6250_to_7499 5;
    every_invariant_holds_in_seeds_7500_to_8749 6;
    every_invariant_holds_in_seeds_8750_to_9999 7;
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..20 {
        let (once, again) = (simulator::traced(seed, None).2, simulator::traced(seed, None).2);
        let differs = once.iter().zip(&again).find(|(once, again)| once != again);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(once.len(), again.len(), "seed {seed}");
    }
}

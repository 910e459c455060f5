//! How long to wait before the next attempt: for a connection, and for a tape in trouble.
//!
//! The only module that uses the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

use crate::settings;

/// Delays between attempts to connect: each about twice the one before, up to a limit, each varied by a quarter either way so
/// that many processes do not come back in step. Never gives up.
#[derive(Debug)]
pub struct Delays(ExponentialBackoff);

impl Delays {
    /// Part of a delay by which it is varied, either way.
    const JITTER: f64 = 0.25;

    /// Delays that begin near `first` and grow to near `longest`. A `first` above `longest` counts as `longest`.
    pub fn new(first: Duration, longest: Duration) -> Delays {
        let first = first.min(longest);
        let mut delays = ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            randomization_factor: Delays::JITTER,
            multiplier: 2.0,
            max_interval: longest,
            // Its default gives up after a quarter of an hour, which no outage of a broker or a database respects.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        delays.reset();
        Delays(delays)
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// Starts again from the first delay. Call it when an attempt succeeded.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl Default for Delays {
    /// From half a second to thirty seconds: what the supervisors of connections use.
    fn default() -> Delays {
        Delays::new(Duration::from_millis(500), Duration::from_secs(30))
    }
}

/// How long a tape waits after its `attempts`-th failed attempt in a row (0 counts as 1).
///
/// The full delay is `first_delay`, doubled for every attempt after the first, at most `max_delay`. `jitter`, 0 to 1, picks a
/// point between half of it and all of it, so that tapes that failed together do not come back together. Values outside that range
/// count as the nearer end, and what is no number as 1.
pub fn tape_delay(retry: &settings::Retry, attempts: u32, jitter: f64) -> Duration {
    let doublings = attempts.max(1) - 1;
    let full = 2u32
        .checked_pow(doublings)
        .and_then(|factor| retry.first_delay.checked_mul(factor))
        // Too large to compute is beyond any limit, except where there is nothing to double.
        .unwrap_or(if retry.first_delay.is_zero() { Duration::ZERO } else { Duration::MAX })
        .min(retry.max_delay);
    let jitter = if jitter.is_nan() { 1.0 } else { jitter.clamp(0.0, 1.0) };
    let half = full / 2;
    half + mul(full - half, jitter)
}

/// `duration` times `factor` (0 to 1), exact at both ends of the range: floating point would lose nanoseconds of a long one.
fn mul(duration: Duration, factor: f64) -> Duration {
    const ONE: u32 = 1 << 31;
    const NANOS: u128 = 1_000_000_000;
    let nanos = duration.as_nanos() * u128::from((factor * f64::from(ONE)) as u32) / u128::from(ONE);
    // Not more than `duration` was, so the seconds fit.
    Duration::new((nanos / NANOS) as u64, (nanos % NANOS) as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn retry(first_secs: u64, max_secs: u64) -> settings::Retry {
        settings::Retry {
            max_attempts: 5,
            first_delay: Duration::from_secs(first_secs),
            max_delay: Duration::from_secs(max_secs),
        }
    }

    #[test]
    fn a_tape_waits_twice_as_long_after_each_failure_up_to_the_limit() {
        let retry = retry(30, 3600);
        let delays: Vec<u64> = (1..=9).map(|attempts| tape_delay(&retry, attempts, 1.0).as_secs()).collect();
        assert_eq!(delays, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
    }

    #[test]
    fn jitter_takes_off_at_most_half() {
        let retry = retry(30, 3600);
        assert_eq!(tape_delay(&retry, 3, 0.0), Duration::from_secs(60));
        assert_eq!(tape_delay(&retry, 3, 0.5), Duration::from_secs(90));
        assert_eq!(tape_delay(&retry, 3, 1.0), Duration::from_secs(120));
    }

    #[test]
    fn no_attempt_yet_counts_as_the_first() {
        assert_eq!(tape_delay(&retry(30, 3600), 0, 1.0), tape_delay(&retry(30, 3600), 1, 1.0));
    }

    #[test]
    fn a_first_delay_of_zero_never_grows() {
        assert_eq!(tape_delay(&retry(0, 3600), u32::MAX, 1.0), Duration::ZERO);
    }

    #[test]
    fn jitter_that_is_no_number_is_harmless() {
        assert_eq!(tape_delay(&retry(30, 3600), 1, f64::NAN), Duration::from_secs(30));
    }

    proptest! {
        #[test]
        fn a_delay_lies_between_half_and_all_of_the_full_delay(
            first in 0u64..=u64::MAX, max in 0u64..=u64::MAX, attempts: u32, jitter in 0.0f64..=1.0,
        ) {
            let retry = retry(first, max);
            let delay = tape_delay(&retry, attempts, jitter);
            let full = tape_delay(&retry, attempts, 1.0);
            prop_assert!(delay <= full && full <= retry.max_delay);
            prop_assert!(delay >= full / 2);
            prop_assert!(full >= retry.first_delay.min(retry.max_delay));
        }

        #[test]
        fn more_failures_never_mean_a_shorter_delay(
            first in 0u64..100_000, max in 0u64..1_000_000, attempts in 0u32..200, jitter in 0.0f64..=1.0,
        ) {
            let retry = retry(first, max);
            prop_assert!(tape_delay(&retry, attempts, jitter) <= tape_delay(&retry, attempts + 1, jitter));
        }

        #[test]
        fn more_jitter_never_means_a_shorter_delay(attempts in 0u32..40, one in 0.0f64..=1.0, other in 0.0f64..=1.0) {
            let (low, high) = (one.min(other), one.max(other));
            let retry = retry(30, 3600);
            prop_assert!(tape_delay(&retry, attempts, low) <= tape_delay(&retry, attempts, high));
        }

        #[test]
        fn no_jitter_breaks_the_bounds(attempts: u32, jitter in prop::num::f64::ANY) {
            let delay = tape_delay(&retry(30, 3600), attempts, jitter);
            prop_assert!((Duration::from_secs(15)..=Duration::from_secs(3600)).contains(&delay));
        }
    }

    #[test]
    fn connection_delays_double_up_to_the_limit_and_go_on_for_ever() {
        let mut delays = Delays::new(Duration::from_secs(1), Duration::from_secs(30));
        for full in [1, 2, 4, 8, 16, 30, 30].into_iter().chain([30; 1000]) {
            let (delay, full) = (delays.next_delay(), Duration::from_secs(full));
            assert!(delay >= full.mul_f64(0.74) && delay <= full.mul_f64(1.26), "{delay:?} is not about {full:?}");
        }
    }

    #[test]
    fn connection_delays_start_again_after_a_success() {
        let mut delays = Delays::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..6 {
            delays.next_delay();
        }
        delays.reset();
        assert!(delays.next_delay() < Duration::from_secs(2));
    }

    #[test]
    fn connection_delays_do_not_give_up_after_a_long_outage() {
        let mut delays = Delays::default();
        assert_eq!(delays.0.max_elapsed_time, None);
        // Begun long ago: a limit on the time elapsed would show here.
        if let Some(long_ago) = delays.0.start_time.checked_sub(Duration::from_secs(3600)) {
            delays.0.start_time = long_ago;
        }
        assert!(delays.0.next_backoff().is_some());
    }

    #[test]
    fn delays_of_many_processes_differ() {
        let delays: std::collections::BTreeSet<Duration> = (0..20).map(|_| Delays::default().next_delay()).collect();
        assert!(delays.len() > 1);
    }
}

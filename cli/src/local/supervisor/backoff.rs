//! Exponential backoff between an unexpected exit and the restart.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// After this long in good health the next exit starts from the shortest backoff again.
const RESET_AFTER: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The backoff after an exit, where the process had been healthy for this long.
    pub(super) fn next(&mut self, healthy_for: Duration) -> Duration {
        if healthy_for >= RESET_AFTER {
            self.attempts = 0;
        }
        let wait = SHORTEST.saturating_mul(2_u32.saturating_pow(self.attempts)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(healthy_seconds: &[u64], expected_millis: &[u128]) {
        let mut backoff = Backoff::default();
        let waits: Vec<_> =
            healthy_seconds.iter().map(|seconds| backoff.next(Duration::from_secs(*seconds)).as_millis()).collect();
        assert_eq!(waits, expected_millis);
    }

    #[test]
    fn the_wait_doubles_up_to_ten_seconds() {
        check(&[0; 8], &[200, 400, 800, 1600, 3200, 6400, 10000, 10000]);
    }

    #[test]
    fn half_a_minute_of_health_resets_it() {
        check(&[0, 0, 29, 30, 0], &[200, 400, 800, 200, 400]);
    }
}

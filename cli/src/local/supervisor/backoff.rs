//! How long something that ended by itself waits before it is started again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// Something that ran for this long has recovered.
const RECOVERED: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The wait after an end that came `healthy_for` after it had become healthy.
    pub(super) fn next(&mut self, healthy_for: Duration) -> Duration {
        if healthy_for >= RECOVERED {
            self.attempts = 0;
        }
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(self.attempts)).min(LONGEST);
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
    fn half_a_minute_of_health_begins_anew() {
        check(&[0, 0, 29, 30, 0], &[200, 400, 800, 200, 400]);
    }
}

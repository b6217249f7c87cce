//! Leaves a shared tier that does not answer alone: after consecutive failures no command is sent for a while, then one
//! as a trial. Each failed trial doubles the wait.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A streak of failures counts once it has lasted this long: a process that was not scheduled for a moment finds that many
/// commands have timed out at once.
const STREAK: Duration = Duration::from_millis(100);
/// The wait after the failures that open the circuit.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Breaker {
    opens_after: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Consecutive ones.
    failures: u32,
    /// When the first of them was.
    since: Option<Instant>,
    /// Set as long as the circuit is open.
    wait: Option<Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    length: Duration,
    /// When the next trial may be made.
    until: Instant,
    /// Whether a trial was made whose outcome is unknown.
    trying: bool,
}

impl Breaker {
    /// A closed circuit that opens after this many consecutive failures, over some time.
    pub(crate) fn new(opens_after: u32) -> Self {
        Self { opens_after, state: Mutex::default() }
    }

    /// Whether a command may be sent now. A trial postpones the next one, so a command whose outcome is never recorded
    /// blocks nothing.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        match &mut self.state().wait {
            None => true,
            Some(wait) if now < wait.until => false,
            Some(wait) => {
                *wait = Wait { until: now + wait.length, trying: true, ..*wait };
                true
            }
        }
    }

    /// Closes the circuit.
    pub(crate) fn succeeded(&self) {
        *self.state() = State::default();
    }

    /// Records a failure. Returns whether the circuit is open. Failures of commands that were sent before it opened do
    /// not prolong the wait.
    pub(crate) fn failed(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        let streak = now.saturating_duration_since(*state.since.get_or_insert(now));
        let length = match state.wait {
            None if state.failures < self.opens_after || streak < STREAK => return false,
            None => FIRST_WAIT,
            Some(wait) if wait.trying => (wait.length * 2).min(LONGEST_WAIT),
            Some(_) => return true,
        };
        state.wait = Some(Wait { length, until: now + length, trying: false });
        true
    }

    /// A poisoned lock is fine: each state is written in one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A circuit that has been opened by now.
    fn opened() -> Breaker {
        let (breaker, now) = (Breaker::new(2), Instant::now());
        breaker.failed(now.checked_sub(STREAK).unwrap());
        assert!(breaker.failed(now));
        breaker
    }

    #[test]
    fn failures_of_one_moment_do_not_open_the_circuit() {
        let (breaker, now) = (Breaker::new(2), Instant::now());
        for _ in 0..100 {
            assert!(!breaker.failed(now));
        }
        assert!(breaker.allows(now));
        assert!(breaker.failed(now + STREAK));
    }

    /// How many trials there are within `seconds`, when every trial fails.
    fn trials(breaker: &Breaker, start: Instant, seconds: u64) -> usize {
        let times = (0..seconds * 1_000).map(|at| start + Duration::from_millis(at));
        times.filter(|now| breaker.allows(*now).then(|| breaker.failed(*now)).is_some()).count()
    }

    #[test]
    fn consecutive_failures_open_the_circuit_and_one_success_closes_it() {
        let (breaker, now) = (Breaker::new(2), Instant::now());
        assert!(!breaker.failed(now));
        breaker.succeeded();
        assert!(!breaker.failed(now + STREAK), "it was not the second in a row");
        assert!(breaker.allows(now + STREAK));
        assert!(breaker.failed(now + 2 * STREAK));
        assert!(!breaker.allows(now + 2 * STREAK));
        breaker.succeeded();
        assert!(breaker.allows(now));
    }

    #[test]
    fn a_long_outage_costs_few_trials() {
        let (breaker, now) = (opened(), Instant::now());
        // After 0.2, 0.6, 1.4, 3 and 6.2 s, then every 5 s.
        assert_eq!(trials(&breaker, now, 60), 15);
    }

    #[test]
    fn failures_of_earlier_commands_do_not_prolong_the_wait() {
        let (breaker, now) = (opened(), Instant::now());
        for _ in 0..100 {
            breaker.failed(now);
        }
        assert!(breaker.allows(now + FIRST_WAIT));
    }

    #[test]
    fn a_trial_without_an_outcome_blocks_no_later_one() {
        let (breaker, now) = (opened(), Instant::now());
        assert!(breaker.allows(now + FIRST_WAIT));
        assert!(!breaker.allows(now + FIRST_WAIT));
        assert!(breaker.allows(now + 2 * FIRST_WAIT));
    }
}

//! The circuit breaker: after consecutive failures, calls to a destination are rejected for a while, then probed one at
//! a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::rpc::Error;
use tokio::time::Instant;

use crate::reason;

/// Consecutive failures that open the circuit.
const OPENS_AFTER: u32 = 5;
/// How long the circuit stays open before one call is let through.
const HALF_OPEN_AFTER: Duration = Duration::from_secs(60);
/// Consecutive successes that close the circuit again.
const CLOSES_AFTER: u32 = 2;

/// The breaker of one destination.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { successes: u32, probing: bool },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Acquires a permit for one call. The outcome is recorded on the permit.
    ///
    /// # Errors
    /// UNAVAILABLE with reason `circuit_open` and `retry_after_ms`.
    pub(crate) fn acquire(self: &Arc<Self>, destination: &str) -> Result<Permit, Error> {
        let mut state = lock(&self.0);
        let wait = match &mut *state {
            State::Closed { .. } => None,
            State::Open { until } => {
                let wait = until.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    *state = State::HalfOpen { successes: 0, probing: true };
                    None
                } else {
                    Some(wait)
                }
            }
            State::HalfOpen { probing: true, .. } => Some(Duration::from_millis(100)),
            State::HalfOpen { probing, .. } => {
                *probing = true;
                None
            }
        };
        match wait {
            None => Ok(Permit { breaker: Arc::clone(self), recorded: false }),
            Some(wait) => Err(Error::unavailable(format_args!(
                "circuit to `{destination}` is open after {OPENS_AFTER} consecutive failures"
            ))
            .with_detail(reason::KEY, reason::CIRCUIT_OPEN)
            .with_detail(reason::RETRY_AFTER_MS, wait.as_millis())),
        }
    }

    fn record(&self, outcome: Outcome) {
        let mut state = lock(&self.0);
        *state = match (&*state, outcome) {
            (State::Closed { .. }, Outcome::Success) => State::Closed { failures: 0 },
            (State::Closed { failures }, Outcome::Failure) if failures + 1 >= OPENS_AFTER => open(),
            (State::Closed { failures }, Outcome::Failure) => State::Closed { failures: failures + 1 },
            (State::HalfOpen { successes, .. }, Outcome::Success) if successes + 1 >= CLOSES_AFTER => State::default(),
            (State::HalfOpen { successes, .. }, Outcome::Success) => {
                State::HalfOpen { successes: successes + 1, probing: false }
            }
            (State::HalfOpen { .. }, Outcome::Failure) => open(),
            (State::HalfOpen { successes, .. }, Outcome::Unknown) => {
                State::HalfOpen { successes: *successes, probing: false }
            }
            // A call that was let through before the circuit opened changes nothing.
            (State::Open { .. }, _) | (State::Closed { .. }, Outcome::Unknown) => return,
        };
    }
}

#[derive(Clone, Copy)]
enum Outcome {
    Success,
    Failure,
    /// The call ended without a result that says anything about the destination.
    Unknown,
}

/// Permission to make one call.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Arc<Breaker>,
    recorded: bool,
}

impl Permit {
    /// Records the outcome of the call. Only a destination that does not answer has failed. One that answers with an
    /// error is running, and rejecting calls to it would prolong a short outage.
    pub(crate) fn record<T>(mut self, result: &Result<T, Error>) {
        let reason = result.as_ref().err().and_then(|error| error.detail(reason::KEY));
        let outcome = match reason {
            Some(reason::NO_RESPONDERS | reason::TIMEOUT) => Outcome::Failure,
            Some(reason::DISCONNECTED) => Outcome::Unknown,
            _ => Outcome::Success,
        };
        self.recorded = true;
        self.breaker.record(outcome);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.recorded {
            self.breaker.record(Outcome::Unknown);
        }
    }
}

fn open() -> State {
    State::Open { until: Instant::now() + HALF_OPEN_AFTER }
}

/// A poisoned lock is fine: each state is written in one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(breaker: &Arc<Breaker>, result: Result<(), Error>) -> Result<(), Error> {
        breaker.acquire("x.v1")?.record(&result);
        result
    }

    fn down() -> Result<(), Error> {
        Err(Error::unavailable("down").with_detail(reason::KEY, reason::NO_RESPONDERS))
    }

    fn is_open(breaker: &Arc<Breaker>) -> bool {
        call(breaker, Ok(())).is_err_and(|error| error.detail(reason::KEY) == Some(reason::CIRCUIT_OPEN))
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_open_it_and_two_successes_after_a_minute_close_it() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..4 {
            let _ = call(&breaker, down());
        }
        call(&breaker, Ok(())).unwrap();
        for _ in 0..5 {
            let _ = call(&breaker, down());
        }
        assert!(is_open(&breaker));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(is_open(&breaker));
        tokio::time::advance(Duration::from_secs(1)).await;
        call(&breaker, Ok(())).unwrap();
        call(&breaker, Ok(())).unwrap();
        for _ in 0..4 {
            let _ = call(&breaker, down());
        }
        assert!(!is_open(&breaker));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_again_and_only_one_probe_runs_at_a_time() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..5 {
            let _ = call(&breaker, down());
        }
        tokio::time::advance(HALF_OPEN_AFTER).await;
        let probe = breaker.acquire("x.v1").unwrap();
        assert!(breaker.acquire("x.v1").is_err());
        probe.record(&down());
        assert!(is_open(&breaker));
        tokio::time::advance(HALF_OPEN_AFTER).await;
        drop(breaker.acquire("x.v1").unwrap());
        assert!(breaker.acquire("x.v1").is_ok());
    }

    #[tokio::test]
    async fn error_responses_and_lost_connections_do_not_count() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..20 {
            let _ = call(&breaker, Err(Error::invalid("no")));
            let _ = call(&breaker, Err(Error::unavailable("not just now")));
            let _ = call(&breaker, Err(Error::unavailable("gone").with_detail(reason::KEY, reason::DISCONNECTED)));
        }
        assert!(!is_open(&breaker));
    }
}

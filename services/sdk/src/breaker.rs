//! The circuit breaker: after consecutive failures, calls to a destination are rejected for a while, then single calls
//! are let through as trials. The first trial comes soon and each failed one doubles the wait, so a short fault stays
//! short and a long one costs few calls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::rpc::Error;
use tokio::time::Instant;

use crate::{metrics, reason};

/// Consecutive failures that open the circuit.
const OPENS_AFTER: u32 = 5;
/// How long the circuit stays open before the first trial.
const FIRST_TRIAL_AFTER: Duration = Duration::from_millis(100);
/// The longest wait for a trial.
const TRIAL_WITHIN: Duration = Duration::from_secs(60);
/// A call that was given less time than this says nothing about the destination if it gets no answer.
const MIN_TIME: Duration = Duration::from_secs(1);
/// Consecutive successes that close the circuit again.
const CLOSES_AFTER: u32 = 2;

/// The breaker of one destination.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<Circuit>);

#[derive(Debug, Default)]
struct Circuit {
    state: State,
    /// When a call was last answered.
    answered_at: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, wait: Duration },
    HalfOpen { successes: u32, probing: bool, wait: Duration },
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
    pub(crate) fn acquire(self: &Arc<Self>, destination: &'static str) -> Result<Permit, Error> {
        let mut circuit = lock(&self.0);
        let state = &mut circuit.state;
        let wait = match state {
            State::Closed { .. } => None,
            State::Open { until, wait: trial } => {
                let wait = until.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    *state = State::HalfOpen { successes: 0, probing: true, wait: *trial };
                    None
                } else {
                    Some(wait)
                }
            }
            State::HalfOpen { probing: true, .. } => Some(FIRST_TRIAL_AFTER),
            State::HalfOpen { probing, .. } => {
                *probing = true;
                None
            }
        };
        match wait {
            None => Ok(Permit { breaker: Arc::clone(self), destination, since: Instant::now(), recorded: false }),
            Some(wait) => Err(Error::unavailable(format_args!(
                "circuit to `{destination}` is open after {OPENS_AFTER} consecutive failures"
            ))
            .with_detail(reason::KEY, reason::CIRCUIT_OPEN)
            .with_detail(reason::RETRY_AFTER_MS, wait.as_millis())),
        }
    }

    fn record(&self, destination: &'static str, outcome: Outcome) {
        let mut circuit = lock(&self.0);
        if matches!(outcome, Outcome::Success) {
            circuit.answered_at = Some(Instant::now());
        }
        circuit.state = match (&circuit.state, outcome) {
            (State::Closed { .. }, Outcome::Success) => State::Closed { failures: 0 },
            (State::Closed { failures }, Outcome::Failure) if failures + 1 >= OPENS_AFTER => {
                metrics::circuit_open(destination).inc();
                tracing::warn!(destination, "circuit opened");
                open(FIRST_TRIAL_AFTER)
            }
            (State::Closed { failures }, Outcome::Failure) => State::Closed { failures: failures + 1 },
            (State::HalfOpen { successes, .. }, Outcome::Success) if successes + 1 >= CLOSES_AFTER => {
                metrics::circuit_open(destination).dec();
                tracing::info!(destination, "circuit closed");
                State::default()
            }
            (State::HalfOpen { successes, wait, .. }, Outcome::Success) => {
                State::HalfOpen { successes: successes + 1, probing: false, wait: *wait }
            }
            (State::HalfOpen { wait, .. }, Outcome::Failure) => open((*wait * 2).min(TRIAL_WITHIN)),
            (State::HalfOpen { successes, wait, .. }, Outcome::Unknown) => {
                State::HalfOpen { successes: *successes, probing: false, wait: *wait }
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
    destination: &'static str,
    since: Instant,
    recorded: bool,
}

impl Permit {
    /// Records the outcome of the call. Only a destination that does not answer has failed. One that answers with an
    /// error is running, and rejecting calls to it would prolong a short outage. A time-out counts only if the call had
    /// at least [`MIN_TIME`] and no other call was answered meanwhile: otherwise the call was hurried or expensive.
    pub(crate) fn record<T>(mut self, result: &Result<T, Error>) {
        let reason = result.as_ref().err().and_then(|error| error.detail(reason::KEY));
        let outcome = match reason {
            Some(reason::NO_RESPONDERS) => Outcome::Failure,
            Some(reason::TIMEOUT) if self.shows_outage() => Outcome::Failure,
            Some(reason::TIMEOUT) => Outcome::Unknown,
            Some(reason::DISCONNECTED) => Outcome::Unknown,
            _ => Outcome::Success,
        };
        self.recorded = true;
        self.breaker.record(self.destination, outcome);
    }

    fn shows_outage(&self) -> bool {
        let answered = lock(&self.breaker.0).answered_at.is_some_and(|at| at >= self.since);
        !answered && self.since.elapsed() >= MIN_TIME
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.recorded {
            self.breaker.record(self.destination, Outcome::Unknown);
        }
    }
}

fn open(wait: Duration) -> State {
    State::Open { until: Instant::now() + wait, wait }
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

    fn opened() -> Arc<Breaker> {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..5 {
            let _ = call(&breaker, down());
        }
        assert!(is_open(&breaker));
        breaker
    }

    fn timed_out() -> Result<(), Error> {
        Err(Error::unavailable("late").with_detail(reason::KEY, reason::TIMEOUT))
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_open_it_and_two_successes_close_it() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..4 {
            let _ = call(&breaker, down());
        }
        call(&breaker, Ok(())).unwrap();
        assert!(!is_open(&breaker));
        let breaker = opened();
        tokio::time::advance(FIRST_TRIAL_AFTER).await;
        call(&breaker, Ok(())).unwrap();
        call(&breaker, Ok(())).unwrap();
        for _ in 0..4 {
            let _ = call(&breaker, down());
        }
        assert!(!is_open(&breaker));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_a_trial_doubles_up_to_a_minute() {
        let breaker = opened();
        let mut wait = FIRST_TRIAL_AFTER;
        for _ in 0..12 {
            tokio::time::advance(wait - Duration::from_millis(1)).await;
            assert!(is_open(&breaker));
            tokio::time::advance(Duration::from_millis(1)).await;
            let trial = breaker.acquire("x.v1").unwrap();
            assert!(breaker.acquire("x.v1").is_err(), "one trial at a time");
            trial.record(&down());
            wait = (wait * 2).min(TRIAL_WITHIN);
        }
        assert_eq!(wait, TRIAL_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_is_given_up_makes_way_for_the_next() {
        let breaker = opened();
        tokio::time::advance(FIRST_TRIAL_AFTER).await;
        drop(breaker.acquire("x.v1").unwrap());
        assert!(breaker.acquire("x.v1").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_circuit_is_in_the_metrics() {
        const DESTINATION: &str = "metrics.v1";
        let breaker = Arc::new(Breaker::default());
        for _ in 0..5 {
            breaker.acquire(DESTINATION).unwrap().record(&down());
        }
        assert!(metrics::metrics_text().contains("circuit_open{destination=\"metrics.v1\"} 1"));
        tokio::time::advance(FIRST_TRIAL_AFTER).await;
        for _ in 0..2 {
            breaker.acquire(DESTINATION).unwrap().record(&Ok(()));
        }
        assert!(metrics::metrics_text().contains("circuit_open{destination=\"metrics.v1\"} 0"));
    }

    #[tokio::test(start_paused = true)]
    async fn time_outs_of_hurried_calls_do_not_open_it() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..20 {
            let permit = breaker.acquire("x.v1").unwrap();
            tokio::time::advance(MIN_TIME / 2).await;
            permit.record(&timed_out());
        }
        assert!(!is_open(&breaker));
    }

    #[tokio::test(start_paused = true)]
    async fn time_outs_of_expensive_calls_do_not_open_it_while_others_are_answered() {
        let breaker = Arc::new(Breaker::default());
        let expensive: Vec<_> = (0..32).map(|_| breaker.acquire("x.v1").unwrap()).collect();
        tokio::time::advance(MIN_TIME).await;
        call(&breaker, Ok(())).unwrap();
        for permit in expensive {
            permit.record(&timed_out());
        }
        assert!(!is_open(&breaker));
    }

    #[tokio::test(start_paused = true)]
    async fn time_outs_while_nothing_is_answered_open_it() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..5 {
            let permit = breaker.acquire("x.v1").unwrap();
            tokio::time::advance(MIN_TIME).await;
            permit.record(&timed_out());
        }
        assert!(is_open(&breaker));
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

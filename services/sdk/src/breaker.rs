//! The circuit breaker: after consecutive failures, calls to a destination are rejected for a while, then single calls
//! are let through as trials. The first trial comes soon and each failed one doubles the wait, so a short fault stays
//! short and a long one costs a destination few calls.
//!
//! Only a destination that does not answer has failed. Whatever it answers, "the deadline passed" included, it is there:
//! so no caller can open the circuit for the others with requests that are wrong, hurried or expensive.

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
/// The longest wait for a trial as long as nobody is subscribed: then it costs the destination nothing, and the first of
/// its tasks that is back is found at once.
const ABSENT_TRIAL_WITHIN: Duration = Duration::from_secs(1);
/// The shortest time between two lines of the log about an open circuit.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// A call that was given less time than this says nothing about the destination if it gets no answer.
const MIN_TIME: Duration = Duration::from_secs(1);
/// Consecutive successes that close the circuit again.
const CLOSES_AFTER: u32 = 2;

/// A call that failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The destination answered with this error.
    Answered(Error),
    /// No answer came.
    Unanswered(Error),
}

impl Failure {
    pub(crate) fn error(&self) -> &Error {
        let (Self::Answered(error) | Self::Unanswered(error)) = self;
        error
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let (Failure::Answered(error) | Failure::Unanswered(error)) = failure;
        error
    }
}

/// The breaker of one destination, which is a package.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// The service that calls, for the log.
    caller: Arc<str>,
    destination: &'static str,
    circuit: Mutex<Circuit>,
}

/// A circuit that rejects calls now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenCircuit {
    pub(crate) destination: &'static str,
    /// For how long it has been open.
    pub(crate) open_for: Duration,
    /// The time until the next trial; zero while one is under way.
    pub(crate) retry_after: Duration,
}

#[derive(Debug, Default)]
struct Circuit {
    state: State,
    /// When a call was last answered.
    answered_at: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, outage: Outage },
    HalfOpen { successes: u32, probing: bool, outage: Outage },
}

/// The time in which a destination has not answered.
#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Instant,
    /// The latest wait for a trial.
    wait: Duration,
    logged_at: Instant,
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    pub(crate) fn new(caller: Arc<str>, destination: &'static str) -> Self {
        Self { caller, destination, circuit: Mutex::default() }
    }

    /// Acquires a permit for one call. The outcome is recorded on the permit.
    ///
    /// # Errors
    /// UNAVAILABLE with reason `circuit_open` and `retry_after_ms`.
    pub(crate) fn acquire(self: &Arc<Self>) -> Result<Permit, Error> {
        let mut circuit = lock(&self.circuit);
        let state = &mut circuit.state;
        let wait = match state {
            State::Closed { .. } => None,
            State::Open { until, outage } => {
                let wait = until.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    *state = State::HalfOpen { successes: 0, probing: true, outage: *outage };
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
            None => Ok(Permit { breaker: Arc::clone(self), since: Instant::now(), recorded: false }),
            Some(wait) => Err(Error::unavailable(format_args!(
                "circuit to `{}` is open after {OPENS_AFTER} consecutive failures",
                self.destination
            ))
            .with_detail(reason::KEY, reason::CIRCUIT_OPEN)
            .with_detail(reason::RETRY_AFTER_MS, wait.as_millis())),
        }
    }

    /// The circuit if it rejects calls now. One whose next call is a trial rejects none.
    pub(crate) fn open(&self) -> Option<OpenCircuit> {
        let now = Instant::now();
        let (since, retry_after) = match lock(&self.circuit).state {
            State::Open { until, outage } if until > now => (outage.since, until - now),
            State::HalfOpen { successes: 0, probing: true, outage } => (outage.since, Duration::ZERO),
            _ => return None,
        };
        Some(OpenCircuit { destination: self.destination, open_for: now - since, retry_after })
    }

    fn record(&self, outcome: Outcome) {
        let now = Instant::now();
        let mut circuit = lock(&self.circuit);
        if matches!(outcome, Outcome::Success) {
            circuit.answered_at = Some(now);
        }
        circuit.state = match (&circuit.state, outcome) {
            (State::Closed { .. }, Outcome::Success) => State::Closed { failures: 0 },
            (State::Closed { failures }, Outcome::Absent | Outcome::Silent) if failures + 1 >= OPENS_AFTER => {
                metrics::circuit_open(self.destination).inc();
                self.log_open(Duration::ZERO, "circuit opened");
                open(Outage { since: now, wait: FIRST_TRIAL_AFTER, logged_at: now })
            }
            (State::Closed { failures }, Outcome::Absent | Outcome::Silent) => State::Closed { failures: failures + 1 },
            (State::HalfOpen { successes, .. }, Outcome::Success) if successes + 1 >= CLOSES_AFTER => {
                metrics::circuit_open(self.destination).dec();
                tracing::info!(service = &*self.caller, destination = self.destination, "circuit closed");
                State::default()
            }
            (State::HalfOpen { successes, outage, .. }, Outcome::Success) => {
                State::HalfOpen { successes: successes + 1, probing: false, outage: *outage }
            }
            (State::HalfOpen { outage, .. }, Outcome::Absent | Outcome::Silent) => {
                let is_logged = now - outage.logged_at >= LOG_INTERVAL;
                if is_logged {
                    self.log_open(now - outage.since, "circuit is still open");
                }
                let longest = if matches!(outcome, Outcome::Absent) { ABSENT_TRIAL_WITHIN } else { TRIAL_WITHIN };
                open(Outage {
                    wait: (outage.wait * 2).min(longest),
                    logged_at: if is_logged { now } else { outage.logged_at },
                    ..*outage
                })
            }
            (State::HalfOpen { successes, outage, .. }, Outcome::Unknown) => {
                State::HalfOpen { successes: *successes, probing: false, outage: *outage }
            }
            // A call that was let through before the circuit opened changes nothing.
            (State::Open { .. }, _) | (State::Closed { .. }, Outcome::Unknown) => return,
        };
    }

    /// CloudWatch makes a metric of the field `open_seconds`, by `service`.
    fn log_open(&self, open_for: Duration, message: &'static str) {
        let (service, destination, open_seconds) = (&*self.caller, self.destination, open_for.as_secs());
        tracing::warn!(service, destination, open_seconds, "{message}");
    }
}

#[derive(Clone, Copy)]
enum Outcome {
    Success,
    /// Nobody is subscribed.
    Absent,
    /// Nobody answered.
    Silent,
    /// The call ended without a result that says anything about the destination.
    Unknown,
}

/// Permission to make one call.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Arc<Breaker>,
    since: Instant,
    recorded: bool,
}

impl Permit {
    /// Records the outcome of the call. A time-out without an answer counts only if the call had at least [`MIN_TIME`]
    /// and no other call was answered meanwhile: otherwise the call was hurried or expensive. A call that was never sent,
    /// because it is too large or the connection was lost, says nothing.
    pub(crate) fn record<T>(mut self, result: &Result<T, Failure>) {
        let outcome = match result {
            Ok(_) | Err(Failure::Answered(_)) => Outcome::Success,
            Err(Failure::Unanswered(error)) => match error.detail(reason::KEY) {
                Some(reason::NO_RESPONDERS) => Outcome::Absent,
                Some(reason::TIMEOUT) if self.shows_outage() => Outcome::Silent,
                _ => Outcome::Unknown,
            },
        };
        self.recorded = true;
        self.breaker.record(outcome);
    }

    fn shows_outage(&self) -> bool {
        let answered = lock(&self.breaker.circuit).answered_at.is_some_and(|at| at >= self.since);
        !answered && self.since.elapsed() >= MIN_TIME
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.recorded {
            self.breaker.record(Outcome::Unknown);
        }
    }
}

fn open(outage: Outage) -> State {
    State::Open { until: Instant::now() + outage.wait, outage }
}

/// A poisoned lock is fine: each state is written in one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

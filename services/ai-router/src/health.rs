//! What reports tell of a backend: averages, and the circuit breaker.

use std::time::{Duration, SystemTime};

use proto::ai::router::v1::{BreakerState, Health, Outcome};
use proto::well_known::Timestamp;

/// What the latest outcome counts in the averages.
const WEIGHT: f64 = 0.2;
/// Failures in a row that open the breaker.
const MAX_FAILURES: u32 = 5;
/// How long it is open the first time, and at most.
const OPEN_FOR: Duration = Duration::from_secs(10);
const MAX_OPEN_FOR: Duration = Duration::from_secs(300);
/// How long the request that tries a backend is waited for.
const TRIAL: Duration = Duration::from_secs(60);
/// Decisions that are remembered, so that each counts once.
const REMEMBERED: usize = 256;

/// The state of the breaker at `now`.
pub(crate) fn breaker(health: &Health, now: SystemTime) -> BreakerState {
    let is_ahead =
        |end: Option<Timestamp>| end.and_then(|end| SystemTime::try_from(end).ok()).is_some_and(|end| now < end);
    match health.open_until {
        None => BreakerState::Closed,
        Some(_) if is_ahead(health.open_until) || is_ahead(health.trial_until) => BreakerState::Open,
        Some(_) => BreakerState::HalfOpen,
    }
}

/// The backend while one request tries it: for all others its breaker is open.
pub(crate) fn tried(mut health: Health, now: SystemTime) -> Health {
    health.trial_until = Some((now + TRIAL).into());
    health
}

/// The backend after an outcome. A decision that was reported changes nothing.
pub(crate) fn reported(
    mut health: Health,
    decision_id: &str,
    outcome: Outcome,
    latency_ms: u32,
    now: SystemTime,
) -> Health {
    if health.reported.iter().any(|reported| reported == decision_id) {
        return health;
    }
    if health.reported.len() >= REMEMBERED {
        health.reported.remove(0);
    }
    health.reported.push(decision_id.to_owned());
    let average = |average: f64, value: f64, is_first: bool| match is_first {
        true => value,
        false => average + WEIGHT * (value - average),
    };
    let has_failed = outcome != Outcome::Success;
    health.failure_rate = average(health.failure_rate, if has_failed { 1.0 } else { 0.0 }, false);
    health.reports += 1;
    if !has_failed {
        let is_first = health.latency_ms == 0.0;
        health.latency_ms = average(health.latency_ms, f64::from(latency_ms.max(1)), is_first);
        // Late outcomes of requests from before it opened do not close it: only one that came through while it was tried does.
        if breaker(&health, now) != BreakerState::Open || health.trial_until.is_some() {
            (health.consecutive_failures, health.opened) = (0, 0);
            (health.open_until, health.trial_until) = (None, None);
        }
        return health;
    }
    health.consecutive_failures += 1;
    let was_tried = health.trial_until.is_some();
    if was_tried || health.open_until.is_none() && health.consecutive_failures >= MAX_FAILURES {
        let open_for = OPEN_FOR.saturating_mul(1 << health.opened.min(8)).min(MAX_OPEN_FOR);
        health.opened += 1;
        (health.open_until, health.trial_until) = (Some((now + open_for).into()), None);
    }
    health
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Reports outcomes, `+` and `-`, all at one time.
    fn after(mut health: Health, outcomes: &str, seconds: u64) -> Health {
        for outcome in outcomes.chars() {
            let outcome = if outcome == '+' { Outcome::Success } else { Outcome::Failure };
            let decision = format!("d{}", health.reports);
            health = reported(health, &decision, outcome, 100, at(seconds));
        }
        health
    }

    #[track_caller]
    fn check(health: &Health, seconds: u64, expected: BreakerState) {
        assert_eq!(breaker(health, at(seconds)), expected, "after {seconds} s: {health:?}");
    }

    #[test]
    fn the_breaker_opens_after_failures_in_a_row_and_for_longer_each_time() {
        check(&after(Health::default(), "----+----", 0), 0, BreakerState::Closed);
        let open = after(Health::default(), "-----", 0);
        check(&open, 9, BreakerState::Open);
        check(&open, 10, BreakerState::HalfOpen);
        let tried = tried(open, at(10));
        check(&tried, 11, BreakerState::Open);
        check(&tried, 70, BreakerState::HalfOpen);
        check(&after(tried.clone(), "+", 11), 11, BreakerState::Closed);
        let again = after(tried, "-", 11);
        check(&again, 30, BreakerState::Open);
        check(&again, 31, BreakerState::HalfOpen);
    }

    #[test]
    fn an_outcome_from_before_it_opened_does_not_close_it() {
        let open = after(Health::default(), "-----", 0);
        check(&after(open, "+", 1), 1, BreakerState::Open);
    }

    #[test]
    fn a_decision_counts_once() {
        let once = reported(Health::default(), "d", Outcome::Failure, 0, at(0));
        assert_eq!(reported(once.clone(), "d", Outcome::Failure, 0, at(1)), once);
    }

    proptest! {
        #[test]
        fn averages_stay_between_what_was_reported(latencies in prop::collection::vec(1..1_000_u32, 1..50)) {
            let mut health = Health::default();
            for (number, latency) in latencies.iter().enumerate() {
                let outcome = if number % 3 == 1 { Outcome::Timeout } else { Outcome::Success };
                health = reported(health, &number.to_string(), outcome, *latency, at(0));
                prop_assert!((0.0..=1.0).contains(&health.failure_rate));
                let (least, most) = (*latencies.iter().min().unwrap(), *latencies.iter().max().unwrap());
                prop_assert!((f64::from(least)..=f64::from(most)).contains(&health.latency_ms));
            }
        }
    }
}

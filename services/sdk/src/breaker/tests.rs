//! The states of a circuit, without NATS.

use super::*;

fn breaker_to(destination: &'static str) -> Arc<Breaker> {
    Arc::new(Breaker::new("caller".into(), destination))
}

fn breaker() -> Arc<Breaker> {
    breaker_to("x.v1")
}

fn call(breaker: &Arc<Breaker>, result: Result<(), Failure>) -> Result<(), Error> {
    breaker.acquire()?.record(&result);
    Ok(result?)
}

fn unanswered(reason: &str) -> Result<(), Failure> {
    Err(Failure::Unanswered(Error::unavailable("no answer").with_detail(reason::KEY, reason)))
}

fn answered(error: Error) -> Result<(), Failure> {
    Err(Failure::Answered(error))
}

fn down() -> Result<(), Failure> {
    unanswered(reason::NO_RESPONDERS)
}

fn timed_out() -> Result<(), Failure> {
    unanswered(reason::TIMEOUT)
}

fn is_open(breaker: &Arc<Breaker>) -> bool {
    call(breaker, Ok(())).is_err_and(|error| error.detail(reason::KEY) == Some(reason::CIRCUIT_OPEN))
}

fn opened() -> Arc<Breaker> {
    let breaker = breaker();
    for _ in 0..5 {
        let _ = call(&breaker, down());
    }
    assert!(is_open(&breaker));
    breaker
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_open_it_and_two_successes_close_it() {
    let breaker = breaker();
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

/// Fails every trial of an open circuit, and returns how long each was waited for.
async fn waits(breaker: &Arc<Breaker>, trials: usize, fails: impl Fn() -> Result<(), Failure>) -> Vec<Duration> {
    let mut waits = Vec::new();
    for _ in 0..trials {
        let wait = breaker.open().unwrap().retry_after;
        waits.push(wait);
        tokio::time::advance(wait - Duration::from_millis(1)).await;
        assert!(is_open(breaker));
        tokio::time::advance(Duration::from_millis(1)).await;
        let trial = breaker.acquire().unwrap();
        assert!(breaker.acquire().is_err(), "one trial at a time");
        tokio::time::advance(MIN_TIME).await;
        trial.record(&fails());
    }
    waits
}

fn milliseconds(waits: &[u64]) -> Vec<Duration> {
    waits.iter().copied().map(Duration::from_millis).collect()
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_destination_that_does_not_answer_doubles_up_to_a_minute() {
    let expected = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000];
    assert_eq!(waits(&opened(), 12, timed_out).await, milliseconds(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_destination_to_which_nobody_is_subscribed_is_tried_every_second() {
    let breaker = opened();
    assert_eq!(waits(&breaker, 7, down).await, milliseconds(&[100, 200, 400, 800, 1_000, 1_000, 1_000]));
    // Also after it was there and did not answer.
    assert_eq!(waits(&breaker, 3, timed_out).await, milliseconds(&[1_000, 2_000, 4_000]));
    assert_eq!(waits(&breaker, 2, down).await, milliseconds(&[8_000, 1_000]));
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_given_up_makes_way_for_the_next() {
    let breaker = opened();
    tokio::time::advance(FIRST_TRIAL_AFTER).await;
    drop(breaker.acquire().unwrap());
    assert!(breaker.acquire().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_in_the_metrics() {
    let breaker = breaker_to("metrics.v1");
    for _ in 0..5 {
        breaker.acquire().unwrap().record(&down());
    }
    assert!(metrics::metrics_text().contains("circuit_open{destination=\"metrics.v1\"} 1"));
    tokio::time::advance(FIRST_TRIAL_AFTER).await;
    for _ in 0..2 {
        breaker.acquire().unwrap().record(&Ok::<(), _>(()));
    }
    assert!(metrics::metrics_text().contains("circuit_open{destination=\"metrics.v1\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_says_since_when_it_rejects_calls_and_until_when() {
    let breaker = breaker();
    assert_eq!(breaker.open(), None);
    let breaker = opened();
    let open = |open_for, retry_after| OpenCircuit {
        destination: "x.v1",
        open_for: Duration::from_millis(open_for),
        retry_after: Duration::from_millis(retry_after),
    };
    assert_eq!(breaker.open(), Some(open(0, 100)));

    // It counts from the first failure, not from the latest trial.
    tokio::time::advance(FIRST_TRIAL_AFTER).await;
    assert_eq!(breaker.open(), None, "the next call is let through");
    let trial = breaker.acquire().unwrap();
    assert_eq!(breaker.open(), Some(open(100, 0)));
    trial.record(&down());
    assert_eq!(breaker.open(), Some(open(100, 200)));

    tokio::time::advance(Duration::from_millis(200)).await;
    call(&breaker, Ok(())).unwrap();
    assert_eq!(breaker.open(), None, "the destination is back");
}

#[tokio::test(start_paused = true)]
async fn time_outs_of_hurried_calls_do_not_open_it() {
    let breaker = breaker();
    for _ in 0..20 {
        let permit = breaker.acquire().unwrap();
        tokio::time::advance(MIN_TIME / 2).await;
        permit.record(&timed_out());
    }
    assert!(!is_open(&breaker));
}

#[tokio::test(start_paused = true)]
async fn time_outs_of_expensive_calls_do_not_open_it_while_others_are_answered() {
    let breaker = breaker();
    let expensive: Vec<_> = (0..32).map(|_| breaker.acquire().unwrap()).collect();
    tokio::time::advance(MIN_TIME).await;
    call(&breaker, Ok(())).unwrap();
    for permit in expensive {
        permit.record(&timed_out());
    }
    assert!(!is_open(&breaker));
}

#[tokio::test(start_paused = true)]
async fn expensive_calls_that_the_destination_ends_at_their_deadline_do_not_open_it() {
    let breaker = breaker();
    let expensive: Vec<_> = (0..32).map(|_| breaker.acquire().unwrap()).collect();
    tokio::time::advance(MIN_TIME * 30).await;
    for permit in expensive {
        permit.record(&answered(Error::unavailable("late").with_detail(reason::KEY, reason::TIMEOUT)));
    }
    assert!(!is_open(&breaker));
}

#[tokio::test(start_paused = true)]
async fn time_outs_while_nothing_is_answered_open_it() {
    let breaker = breaker();
    for _ in 0..5 {
        let permit = breaker.acquire().unwrap();
        tokio::time::advance(MIN_TIME).await;
        permit.record(&timed_out());
    }
    assert!(is_open(&breaker));
}

#[tokio::test]
async fn error_responses_and_lost_connections_do_not_count() {
    let breaker = breaker();
    for _ in 0..20 {
        let _ = call(&breaker, answered(Error::invalid("no")));
        let _ = call(&breaker, answered(Error::unavailable("not just now")));
        let _ = call(&breaker, answered(Error::new(proto::rpc::Code::ResourceExhausted, "too much")));
        let _ = call(&breaker, unanswered(reason::DISCONNECTED));
    }
    assert!(!is_open(&breaker));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_sent_says_nothing_about_the_destination() {
    let breaker = opened();
    for _ in 0..4 {
        tokio::time::advance(TRIAL_WITHIN).await;
        let _ = call(&breaker, Err(Failure::Unanswered(Error::invalid("too large"))));
    }
    let _ = call(&breaker, down());
    assert!(is_open(&breaker), "it was not closed meanwhile");
}

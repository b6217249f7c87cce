//! Retries of JetStream operations. When a server fails, the streams that it led have no leader until the others have
//! elected one, which takes NATS four to nine seconds. A request whose deadline allows it waits for that.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::context;

/// The time limit outside of requests, for example while a service starts.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The delay before the first retry.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// The longest delay before a retry.
const MAX_DELAY: Duration = Duration::from_millis(500);

/// Retries an operation until it succeeds, fails permanently, or the deadline of the current request is near.
pub(crate) async fn retry_until_deadline<T, E, F>(
    is_transient: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E>
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let deadline = context::current().map_or_else(|| Instant::now() + DEFAULT_TIMEOUT, |context| context.deadline());
    let mut delay = FIRST_DELAY;
    loop {
        match attempt().await {
            // The remaining time is needed for the response.
            Err(error) if is_transient(&error) && Instant::now() + delay * 2 < deadline => {
                if let Some(context) = context::current() {
                    context.note_failure(error.to_string());
                }
                sleep(delay.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                delay = (delay * 2).min(MAX_DELAY);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::rpc::Error;

    use super::*;
    use crate::context::Context;

    #[tokio::test(start_paused = true)]
    async fn the_request_knows_why_its_latest_attempt_failed() {
        let context = Context::root(Duration::from_secs(2));
        let mut attempts = 0;
        let write = retry_until_deadline(
            |_: &Error| true,
            || {
                attempts += 1;
                let hangs = attempts > 1;
                async move {
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                    Err::<(), _>(Error::unavailable("the disk is full"))
                }
            },
        );
        let ended = tokio::time::timeout_at(context.deadline(), context.clone().scope(write)).await;
        assert!(ended.is_err());
        assert_eq!(context.last_failure().as_deref(), Some("the disk is full (UNAVAILABLE)"));
    }
}

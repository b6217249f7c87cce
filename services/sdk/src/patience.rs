//! Repeats what JetStream cannot do just now. When a server dies, the streams that it led are without a leader until the others
//! have elected one, which takes NATS four to nine seconds; a request that can wait for that need not fail.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::context;

/// For what no request waits for, such as a service that starts.
const WITHOUT_REQUEST: Duration = Duration::from_secs(10);
/// Before the first repetition.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// Before any repetition at most.
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// Attempts something until it works, fails for good, or the deadline of the current request is near.
pub(crate) async fn patiently<T, E, F>(
    is_transient: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let deadline = context::current().map_or_else(|| Instant::now() + WITHOUT_REQUEST, |context| context.deadline());
    let mut delay = FIRST_DELAY;
    loop {
        match attempt().await {
            // What is left is needed for the answer.
            Err(error) if is_transient(&error) && Instant::now() + delay * 2 < deadline => {
                sleep(delay.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                delay = (delay * 2).min(LONGEST_DELAY);
            }
            result => return result,
        }
    }
}

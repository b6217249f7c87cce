//! Exports spans in batches, on a thread of its own. A collector that is slow, away or refuses costs spans, which are
//! counted, and never a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use super::encoding::Origin;
use super::http::{CollectorClient, Failure, Retry};
use super::metrics::Reason;
use super::queue::Queue;
use super::settings::Batches;

/// The pause before the first repetition; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that doubling comes to.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Failures are logged at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Exports what is in a queue until it is closed.
#[derive(Debug)]
pub(crate) struct Exporter {
    queue: Arc<Queue>,
    client: CollectorClient,
    origin: Origin,
    batches: Batches,
    log: FailureLog,
}

impl Exporter {
    pub(crate) fn new(queue: Arc<Queue>, client: CollectorClient, origin: Origin, batches: Batches) -> Self {
        Self { queue, client, origin, batches, log: FailureLog::default() }
    }

    pub(crate) async fn run(mut self) {
        loop {
            if self.queue.closed().is_none() {
                self.queue.wait(self.batches.delay).await;
            }
            loop {
                let spans = self.queue.take();
                if spans.is_empty() {
                    break;
                }
                let count = spans.len() as u64;
                self.export(count, self.origin.request(spans)).await;
                if self.queue.closed().is_none() && !self.queue.has_full_batch() {
                    break;
                }
            }
            if self.queue.closed().is_some() {
                return;
            }
        }
    }

    /// Sends one batch, and repeats that until it succeeds, its time is over, or repeating is pointless.
    async fn export(&mut self, count: u64, body: Bytes) {
        let deadline = Instant::now() + self.batches.timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            let sent = tokio::select! {
                sent = self.client.send(body.clone()) => sent,
                () = sleep_until(deadline) => Err(Failure::timed_out()),
                () = self.queue.until_deadline() => Err(Failure::timed_out()),
            };
            let failure = match sent {
                Ok(rejected) => return self.accepted(count, rejected.min(count)),
                Err(failure) => failure,
            };
            self.queue.metrics.failed_export();
            let wait = match failure.retry {
                Retry::Never => None,
                Retry::After(asked) => Some(asked.unwrap_or_else(|| pause.mul_f64(0.5 + fastrand::f64() / 2.0))),
            };
            let is_closed = self.queue.closed().is_some();
            let Some(wait) = wait.filter(|wait| !is_closed && Instant::now() + *wait < deadline) else {
                self.queue.metrics.dropped(Reason::ExportFailed, count);
                self.log.failed(self.client.address(), &failure.reason, self.queue.metrics.lost());
                // What the collector asked for holds for the next batch too, up to the time that one batch has.
                if let Retry::After(Some(asked)) = failure.retry {
                    self.pause(asked.min(self.batches.timeout)).await;
                }
                return;
            };
            self.log.failed(self.client.address(), &failure.reason, self.queue.metrics.lost());
            self.pause(wait).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Waits, but not when the task ends.
    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            () = self.queue.until_closed() => {}
        }
    }

    fn accepted(&mut self, count: u64, rejected: u64) {
        self.queue.metrics.exported(count - rejected);
        if rejected > 0 {
            self.queue.metrics.dropped(Reason::Rejected, rejected);
            let reason = format!("it rejected {rejected} of {count} spans");
            self.log.failed(self.client.address(), &reason, self.queue.metrics.lost());
        } else {
            self.log.succeeded();
        }
    }
}

/// One line about failures now and then, and one when they are over.
#[derive(Debug, Default)]
struct FailureLog {
    last: Option<Instant>,
    /// Whether a failure was logged since the last success.
    failing: bool,
}

impl FailureLog {
    fn failed(&mut self, collector: &str, reason: &str, lost: u64) {
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return;
        }
        (self.last, self.failing) = (Some(Instant::now()), true);
        tracing::warn!(collector, reason, lost, "failed to export spans");
    }

    fn succeeded(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("spans are exported again");
        }
    }
}

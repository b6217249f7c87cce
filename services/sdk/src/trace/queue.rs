//! The spans that wait for their export: at most so many, the rest is dropped and counted.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics::{Metrics, Reason};
use super::span::Record;

/// Between the threads that end spans and the one that exports them.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    capacity: usize,
    batch: usize,
    /// Notified when a batch is full, and when the queue is closed.
    wake: Notify,
    pub(crate) metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    /// Boxed: moving a pointer takes less time under the lock.
    spans: VecDeque<Box<Record>>,
    /// When the exporter must have finished.
    closed: Option<Instant>,
}

impl Queue {
    pub(crate) fn new(capacity: usize, batch: usize) -> Self {
        let (capacity, batch) = (capacity.max(1), batch.clamp(1, capacity.max(1)));
        Self { state: Mutex::default(), capacity, batch, wake: Notify::new(), metrics: Metrics::default() }
    }

    /// Adds a span, or drops it if the queue is full or closed.
    pub(crate) fn push(&self, span: Box<Record>) {
        let mut state = self.lock();
        let refused = match (state.closed, state.spans.len() < self.capacity) {
            (Some(_), _) => Some(Reason::Shutdown),
            (None, false) => Some(Reason::QueueFull),
            (None, true) => {
                state.spans.push_back(span);
                None
            }
        };
        // Only the span that fills the batch wakes the exporter: waking a thread costs more than all else here.
        let is_full = refused.is_none() && state.spans.len() == self.batch;
        drop(state);
        match refused {
            Some(reason) => self.metrics.dropped(reason, 1),
            None if is_full => self.wake.notify_one(),
            None => {}
        }
    }

    /// Waits until a batch is full, `delay` has passed, or the queue is closed.
    pub(crate) async fn wait(&self, delay: Duration) {
        let _ = tokio::time::timeout(delay, self.wake.notified()).await;
    }

    /// The oldest spans, at most a batch of them.
    pub(crate) fn take(&self) -> VecDeque<Box<Record>> {
        let mut state = self.lock();
        let count = state.spans.len().min(self.batch);
        state.spans.drain(..count).collect()
    }

    /// Whether another full batch waits.
    pub(crate) fn has_full_batch(&self) -> bool {
        self.lock().spans.len() >= self.batch
    }

    /// Accepts no more spans. Those that wait are exported until `deadline`.
    pub(crate) fn close(&self, deadline: Instant) {
        self.lock().closed = Some(deadline);
        self.wake.notify_one();
    }

    /// The deadline of the last exports, once the queue is closed.
    pub(crate) fn closed(&self) -> Option<Instant> {
        self.lock().closed
    }

    /// Waits until the queue is closed.
    pub(crate) async fn until_closed(&self) {
        while self.closed().is_none() {
            self.wake.notified().await;
        }
    }

    /// Waits until the queue is closed, and then until the deadline of the last exports.
    pub(crate) async fn until_deadline(&self) {
        self.until_closed().await;
        if let Some(deadline) = self.closed() {
            tokio::time::sleep_until(deadline).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Membership of a worker in the queue group of its service, and how it leaves the group without losing a request.
//!
//! The client library drops a draining subscription the next time it reads from the socket, whether or not the server
//! has processed the drain by then: requests in flight are lost. So a worker does not drain. It tells the server to end
//! the subscription after a number of further messages. Both sides count them, so none is lost. When no more requests
//! arrive, the worker publishes empty filler messages until the number is reached; every member of the group ignores
//! them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, SubscribeError, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use proto::rpc::FILLER;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connection::Connection;

/// How many messages the server may still deliver: at least this many, plus what arrives within [`IN_FLIGHT`] at the
/// current rate.
const MIN_ALLOWANCE: u64 = 64;
/// How long a request may be in flight between the server and this worker.
const IN_FLIGHT: Duration = Duration::from_millis(250);
/// After this time without a request, the worker starts to publish fillers.
const QUIET: Duration = Duration::from_millis(50);
/// The wait before the next batch of fillers: other members of the group have received some of the last one.
const REFILL: Duration = Duration::from_millis(10);

/// A worker's membership in the queue group.
pub(crate) struct Membership {
    connection: Arc<Connection>,
    subscriber: Subscriber,
    /// Subject of this service's fillers.
    filler: String,
    received: u64,
    rate: Rate,
}

impl Membership {
    /// Joins the group that shares the requests below `subject`.
    pub(crate) async fn join(
        connection: &Arc<Connection>,
        subject: &str,
        group: String,
    ) -> Result<Self, SubscribeError> {
        let subscriber = connection.client.queue_subscribe(format!("{subject}.>"), group).await?;
        let filler = format!("{subject}.{FILLER}");
        Ok(Self { connection: Arc::clone(connection), subscriber, filler, received: 0, rate: Rate::new() })
    }

    /// The next request; `None` when the subscription has ended.
    pub(crate) async fn next_request(&mut self) -> Option<Message> {
        loop {
            let message = self.subscriber.next().await?;
            self.received += 1;
            self.rate.count(self.received);
            if message.subject.as_str() != self.filler {
                return Some(message);
            }
        }
    }

    /// Leaves the group and passes the remaining requests to `each`. Takes the whole `leave_timeout` only if the
    /// connection is down.
    pub(crate) async fn leave(mut self, leave_timeout: Duration, mut each: impl FnMut(Message)) {
        let deadline = Instant::now() + leave_timeout;
        // This is only ever lowered: the server may have reached the number already and ended the subscription.
        let mut last = self.received + MIN_ALLOWANCE + self.rate.expected_within(IN_FLIGHT, self.received);
        let mut batch = MIN_ALLOWANCE;
        let mut wait = QUIET;
        if self.subscriber.unsubscribe_after(last).await.is_err() {
            // The connection is closed: no request can arrive.
            return;
        }
        loop {
            match timeout_at(deadline, timeout(wait, self.next_request())).await {
                Ok(Ok(Some(message))) => each(message),
                Ok(Ok(None)) => return,
                Ok(Err(_)) => {
                    if wait == QUIET {
                        // The number that was set at a high rate would take many fillers.
                        wait = REFILL;
                        last = last.min(self.received + MIN_ALLOWANCE);
                        let _ = self.subscriber.unsubscribe_after(last).await;
                    }
                    for _ in 0..batch {
                        // Without a connection, the deadline ends the loop.
                        let _ = self.connection.client.publish(self.filler.clone(), Bytes::new()).await;
                    }
                    batch *= 2;
                }
                Err(_) => {
                    tracing::warn!("left the queue group without confirmation from NATS: requests may have been lost");
                    return;
                }
            }
        }
    }
}

/// The rate of requests: the higher one of the last two seconds.
struct Rate {
    started: Instant,
    received_at_start: u64,
    /// Requests per second in the second before.
    previous: f64,
}

impl Rate {
    fn new() -> Self {
        Self { started: Instant::now(), received_at_start: 0, previous: 0.0 }
    }

    fn count(&mut self, received: u64) {
        // The clock is read only for every 64th request.
        if received.is_multiple_of(64) && self.started.elapsed() >= Duration::from_secs(1) {
            self.previous = self.current(received);
            self.started = Instant::now();
            self.received_at_start = received;
        }
    }

    fn current(&self, received: u64) -> f64 {
        (received - self.received_at_start) as f64 / self.started.elapsed().as_secs_f64().max(0.01)
    }

    /// How many requests arrive within `time`.
    fn expected_within(&self, time: Duration, received: u64) -> u64 {
        (self.current(received).max(self.previous) * time.as_secs_f64()) as u64
    }
}

//! The requests that come to one worker by one connection, and how they are let run out without losing one.
//!
//! The client library forgets a draining subscription at its next look at the socket, whether or not the server has heard of
//! the drain by then: requests that are still on the wire are lost. So a worker does not drain. It tells the server after how
//! many messages more to stop. Both sides count them, so nothing can get lost between them; and when no more requests come, the
//! worker fills the count up with messages of its own, which every member of the group ignores.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, SubscribeError, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use proto::rpc::FILLER;
use tokio::time::{Instant, timeout, timeout_at};

use crate::link::Link;

/// More requests than may be on the wire: so many at the least, and what comes within this time at the pace of the moment.
const AT_LEAST: u64 = 64;
const ON_THE_WIRE: Duration = Duration::from_millis(250);
/// When no request came for so long, the count is filled up.
const QUIET: Duration = Duration::from_millis(50);
/// Before the next portion: others of the group have taken a part of the last one.
const REFILL: Duration = Duration::from_millis(10);

/// A worker's place in the queue group.
pub(crate) struct Requests {
    link: Arc<Link>,
    subscriber: Subscriber,
    /// Subject of this service's fillers.
    filler: String,
    taken: u64,
    pace: Pace,
}

impl Requests {
    /// Becomes one of the group that shares the requests below `subject`.
    pub(crate) async fn subscribe(link: &Arc<Link>, subject: &str, group: String) -> Result<Self, SubscribeError> {
        let subscriber = link.client.queue_subscribe(format!("{subject}.*"), group).await?;
        let filler = format!("{subject}.{FILLER}");
        Ok(Self { link: Arc::clone(link), subscriber, filler, taken: 0, pace: Pace::new() })
    }

    /// The next request; `None` if there will be no more.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            let message = self.subscriber.next().await?;
            self.taken += 1;
            self.pace.count(self.taken);
            if message.subject.as_str() != self.filler {
                return Some(message);
            }
        }
    }

    /// Leaves the group, and hands over what still comes. Takes `patience` at the most, and only without a connection so long.
    pub(crate) async fn run_out(mut self, patience: Duration, mut each: impl FnMut(Message)) {
        let deadline = Instant::now() + patience;
        // Only ever lowered: the server may have counted to the end already, and then no more messages come.
        let mut last = self.taken + AT_LEAST + self.pace.within(ON_THE_WIRE, self.taken);
        let mut portion = AT_LEAST;
        let mut wait = QUIET;
        if self.subscriber.unsubscribe_after(last).await.is_err() {
            // The connection is closed: nothing can come.
            return;
        }
        loop {
            match timeout_at(deadline, timeout(wait, self.next())).await {
                Ok(Ok(Some(message))) => each(message),
                Ok(Ok(None)) => return,
                Ok(Err(_)) => {
                    if wait == QUIET {
                        // A busy worker's count would take long to fill.
                        wait = REFILL;
                        last = last.min(self.taken + AT_LEAST);
                        let _ = self.subscriber.unsubscribe_after(last).await;
                    }
                    for _ in 0..portion {
                        // Without a connection patience ends it.
                        let _ = self.link.client.publish(self.filler.clone(), Bytes::new()).await;
                    }
                    portion *= 2;
                }
                Err(_) => {
                    tracing::warn!("left the queue group without hearing from NATS: requests may have been lost");
                    return;
                }
            }
        }
    }
}

/// How fast requests come: the faster of the last two seconds.
struct Pace {
    since: Instant,
    taken_then: u64,
    /// Of the second before, per second.
    before: f64,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), taken_then: 0, before: 0.0 }
    }

    fn count(&mut self, taken: u64) {
        // The clock is read for every 64th request only.
        if taken.is_multiple_of(64) && self.since.elapsed() >= Duration::from_secs(1) {
            self.before = self.of_this_second(taken);
            self.since = Instant::now();
            self.taken_then = taken;
        }
    }

    fn of_this_second(&self, taken: u64) -> f64 {
        (taken - self.taken_then) as f64 / self.since.elapsed().as_secs_f64().max(0.01)
    }

    /// How many come within `time`.
    fn within(&self, time: Duration, taken: u64) -> u64 {
        (self.of_this_second(taken).max(self.before) * time.as_secs_f64()) as u64
    }
}

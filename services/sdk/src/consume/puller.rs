//! Pulls messages of a durable consumer, as many as there is room for.
//!
//! The client library's own pull stream fetches ahead of what is being handled. What waits in its buffer counts as
//! delivered: behind a slow handler it is delivered again elsewhere, and in the end becomes a dead letter that nobody has
//! handled.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subject, Subscriber};
use futures::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use super::delivery::Delivery;
use crate::connection::Connection;

/// How long a pull request waits at the server. Below the two minutes after which servers forget an import's request.
const EXPIRES: Duration = Duration::from_secs(30);
/// The interval of the server's heartbeats while there are no messages.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Without a message or a heartbeat for this long, the requests are lost.
const SILENCE: Duration = Duration::from_millis(4_500);
/// On the last message for a pull request: how many messages it still had room for.
const PENDING_MESSAGES: &str = "Nats-Pending-Messages";

/// Why pulling ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum PullError {
    #[error("the server does not answer")]
    Silent,
    #[error("the connection was lost")]
    Disconnected,
    #[error("the server ended it: {0}")]
    Ended(String),
}

/// A subscription to messages of one consumer, on one connection. They arrive under the subjects of their events, which is why
/// it is not the connection's inbox.
pub(super) struct Puller {
    connection: Arc<Connection>,
    /// Where requests go.
    requests: String,
    reply: Subject,
    messages: Subscriber,
    reconnects: watch::Receiver<u64>,
    /// Messages that were requested and have not arrived.
    outstanding: usize,
}

impl Puller {
    pub(super) async fn new(connection: Arc<Connection>, stream: &str, durable: &str) -> Result<Self, PullError> {
        let reply = Subject::from(connection.client.new_inbox());
        let messages = connection.client.subscribe(reply.clone()).await.map_err(|_| PullError::Disconnected)?;
        let requests = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}");
        let reconnects = connection.reconnects();
        Ok(Self { connection, requests, reply, messages, reconnects, outstanding: 0 })
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Requests messages, so that at most `room` are under way. Small requests cost the server as much as large ones, so
    /// it waits until half of the room is free.
    pub(super) async fn request(&mut self, room: usize) -> Result<(), PullError> {
        let wanted = room.saturating_sub(self.outstanding);
        if wanted == 0 || wanted * 2 < room && self.outstanding > 0 {
            return Ok(());
        }
        let request = json!({
            "batch": wanted,
            "expires": nanoseconds(EXPIRES),
            "idle_heartbeat": nanoseconds(HEARTBEAT),
        });
        let client = &self.connection.client;
        let sent = client.publish_with_reply(self.requests.clone(), self.reply.clone(), request.to_string().into());
        sent.await.map_err(|_| PullError::Disconnected)?;
        self.outstanding += wanted;
        Ok(())
    }

    /// The next message; `None` if a request has ended, so that there is room for another one. Cancellation loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, PullError> {
        loop {
            let message = tokio::select! {
                biased;
                received = timeout(SILENCE, self.messages.next()) => {
                    received.map_err(|_| PullError::Silent)?.ok_or(PullError::Disconnected)?
                }
                // The server that had the requests is another one now.
                _ = self.reconnects.changed() => return Err(PullError::Disconnected),
            };
            match message.status {
                None => {
                    self.outstanding = self.outstanding.saturating_sub(1);
                    return Ok(Some(message));
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT | StatusCode::REQUEST_TERMINATED) => {
                    let description = message.description.as_deref().unwrap_or_default();
                    if is_final(description) {
                        return Err(PullError::Ended(description.to_owned()));
                    }
                    self.outstanding = self.outstanding.saturating_sub(unfulfilled(&message));
                    return Ok(None);
                }
                Some(status) => {
                    return Err(PullError::Ended(format!("{status} {}", message.description.unwrap_or_default())));
                }
            }
        }
    }

    /// Gives back what has arrived and was not taken, so that other workers get it at once.
    pub(super) async fn hand_back(mut self) {
        while let Some(Some(message)) = self.messages.next().now_or_never() {
            if let Some(delivery) = Delivery::new(&self.connection, message) {
                delivery.hand_back().await;
            }
        }
    }
}

/// How many messages an ended request still had room for. A server that does not say has ended all.
fn unfulfilled(message: &Message) -> usize {
    let pending = message.headers.as_ref().and_then(|headers| headers.get(PENDING_MESSAGES));
    pending.and_then(|value| value.as_str().parse().ok()).unwrap_or(usize::MAX)
}

/// Whether another request would end in the same way.
fn is_final(description: &str) -> bool {
    let description = description.to_ascii_lowercase();
    ["consumer deleted", "consumer is push based", "exceeded max", "bad request"]
        .iter()
        .any(|final_| description.contains(final_))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

//! One delivery of an event: its identity, the handler with its deadline, and what the server is told afterwards.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, AckKind};
use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use proto::rpc::{Code, Error};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::dead_letter::{self, DeadLetter};
use super::handling;
use super::metrics::ConsumerMetrics;
use crate::connection::Connection;
use crate::context::Context;
use crate::settings::ConsumerSettings;

/// How long the server has to confirm that a message is settled.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is asked to.
const CONFIRM_ATTEMPTS: usize = 3;

/// A message that the server has delivered and that must be acknowledged.
pub(super) struct Delivery {
    connection: Arc<Connection>,
    message: jetstream::Message,
    /// Where acknowledgements go.
    reply: Subject,
    /// Sequence in the stream.
    sequence: u64,
    /// How often it was delivered, this time included.
    attempt: u32,
}

/// What happened to a delivered event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Handled,
    Retried,
    DeadLetter,
}

impl Delivery {
    /// `None` if the message is none of a consumer.
    pub(super) fn new(connection: &Arc<Connection>, message: Message) -> Option<Self> {
        let reply = message.reply.clone()?;
        let message = jetstream::Message { message, context: connection.jetstream.clone() };
        let (sequence, attempt) = {
            let info = message.info().ok()?;
            (info.stream_sequence, u32::try_from(info.delivered).unwrap_or(u32::MAX))
        };
        Some(Self { connection: Arc::clone(connection), message, reply, sequence, attempt })
    }

    fn headers(&self) -> Option<&HeaderMap> {
        self.message.headers.as_ref()
    }

    /// When the event was stored, as RFC 3339 has it.
    fn stored_at(&self) -> String {
        let nanoseconds = self.message.info().map(|info| info.published.unix_timestamp_nanos());
        let time = nanoseconds.ok().and_then(|nanoseconds| jiff::Timestamp::from_nanosecond(nanoseconds).ok());
        time.map(|time| time.to_string()).unwrap_or_default()
    }

    fn event_id(&self, stream: &str) -> String {
        handling::event_id(self.headers(), stream, self.sequence)
    }

    /// Gives it back, so that another worker gets it at once.
    pub(super) async fn hand_back(&self) {
        self.acknowledge(AckKind::Nak(None)).await;
    }

    /// Handles the event and tells the server what became of it.
    pub(super) async fn process<F>(
        self,
        settings: &ConsumerSettings,
        service: &str,
        metrics: &ConsumerMetrics,
        handle: impl FnOnce(Bytes) -> F,
    ) where
        F: Future<Output = Result<(), Error>>,
    {
        let started = Instant::now();
        let id = self.event_id(&settings.stream);
        let context = handling::context(settings, self.headers(), &self.message.payload, id);
        let outcome = context.clone().scope(self.settle(settings, service, &context, handle)).await;
        metrics.record(outcome, started.elapsed());
    }

    async fn settle<F>(
        &self,
        settings: &ConsumerSettings,
        service: &str,
        context: &Context,
        handle: impl FnOnce(Bytes) -> F,
    ) -> Outcome
    where
        F: Future<Output = Result<(), Error>>,
    {
        let error = if self.attempt > settings.max_deliveries {
            // Every earlier one was used up without an answer, or its dead letter could not be stored.
            let lost = format!("delivered {} times, and no task that handled it has answered", settings.max_deliveries);
            Error::unavailable(lost)
        } else {
            match self.call(settings, context, handle).await {
                Ok(()) => {
                    self.acknowledge(AckKind::Ack).await;
                    return Outcome::Handled;
                }
                Err(error) if self.attempt < settings.max_deliveries && !is_permanent(&error) => {
                    let delay = settings.delay_after(self.attempt);
                    tracing::warn!(
                        event = settings.event, id = self.event_id(&settings.stream), attempt = self.attempt, %error,
                        "failed to handle an event, it comes again in {delay:?}"
                    );
                    self.acknowledge(AckKind::Nak(Some(delay))).await;
                    return Outcome::Retried;
                }
                Err(error) => error,
            }
        };
        self.make_dead_letter(settings, service, &error).await
    }

    /// Runs the handler until its deadline, and tells the server meanwhile that it is being worked on.
    async fn call<F>(
        &self,
        settings: &ConsumerSettings,
        context: &Context,
        handle: impl FnOnce(Bytes) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let payload = self.message.payload.clone();
        tokio::select! {
            biased;
            result = handling::run(settings, context, self.attempt, || handle(payload)) => result,
            never = self.keep_in_progress(settings.ack_wait) => never,
        }
    }

    async fn keep_in_progress<T>(&self, ack_wait: Duration) -> T {
        let period = ack_wait / 3;
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.acknowledge(AckKind::Progress).await;
        }
    }

    /// Stores the event as a dead letter and only then ends its deliveries. While it cannot be stored, it comes again.
    async fn make_dead_letter(&self, settings: &ConsumerSettings, service: &str, error: &Error) -> Outcome {
        let id = self.event_id(&settings.stream);
        let letter = DeadLetter {
            service,
            event: &settings.event,
            event_id: &id,
            stream: &settings.stream,
            sequence: self.sequence,
            stored_at: &self.stored_at(),
            attempts: self.attempt.min(settings.max_deliveries),
            error,
            message: &self.message,
        };
        let stored = tokio::select! {
            stored = dead_letter::store(&self.connection, &letter) => stored,
            never = self.keep_in_progress(settings.ack_wait) => never,
        };
        if let Err(failure) = stored {
            let delay = settings.delay_after(self.attempt);
            tracing::error!(
                event = settings.event, id, %error, %failure,
                "an event that could not be handled could not be stored as a dead letter, trying again in {delay:?}"
            );
            self.acknowledge(AckKind::Nak(Some(delay))).await;
            return Outcome::Retried;
        }
        tracing::error!(
            service, event = settings.event, id, attempts = letter.attempts, dead_letters = 1, %error,
            "an event is a dead letter"
        );
        self.terminate(error).await;
        Outcome::DeadLetter
    }

    /// Ends the deliveries. If the server does not confirm it, the event comes again and is recognised as a dead letter.
    async fn terminate(&self, error: &Error) {
        let reason = error.to_string().replace(['\r', '\n'], " ");
        let payload = Bytes::from(format!("+TERM {reason}"));
        for _ in 0..CONFIRM_ATTEMPTS {
            if self.confirmed(payload.clone()).await {
                return;
            }
        }
        tracing::warn!(sequence = self.sequence, "the end of an event's deliveries was not confirmed");
    }

    /// Any answer but an error status is a confirmation: the client's own `double_ack` also takes "no responders" for one.
    async fn confirmed(&self, payload: Bytes) -> bool {
        let answer = self.connection.inbox.slot_for_one();
        let sent = self.connection.client.publish_with_reply(self.reply.clone(), answer.subject(), payload).await;
        let answer = timeout(CONFIRM_TIMEOUT, answer).await;
        let status = |message: &Message| message.status.is_none_or(|status| status == StatusCode::OK);
        sent.is_ok() && matches!(answer, Ok(Ok(message)) if status(&message))
    }

    /// A lost acknowledgement brings the event again, and its handler recognises it.
    async fn acknowledge(&self, kind: AckKind) {
        if let Err(error) = self.connection.client.publish(self.reply.clone(), kind.into()).await {
            tracing::warn!(%error, "failed to acknowledge an event");
        }
    }
}

/// Whether handling the event again would fail again.
fn is_permanent(error: &Error) -> bool {
    matches!(error.code(), Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented)
}

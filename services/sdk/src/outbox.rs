//! The outbox of a bucket: a value and the event that follows from it are stored both, or neither.
//!
//! They are one atomic batch of JetStream. The event goes to a subject of the bucket's own stream that belongs to no key,
//! `outbox.<bucket>.<id>.<subject of the event>`, and the publisher's stream of events takes it over from there, once,
//! whatever dies meanwhile. natsctl prepares both streams.

use std::time::Duration;

use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL,
};
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use proto::rpc::Error;

use crate::bucket::{Bucket, WriteError, write_unavailable};
use crate::context::context;
use crate::events::EncodedEvent;
use crate::retry::retry_until_deadline;
use crate::{trace, wire};

/// In the metadata of a bucket's stream: for how many seconds it keeps the events of its outbox.
pub(crate) const OUTBOX_SECONDS: &str = "outbox_seconds";
/// More than the headers of a value take.
const HEADER_BYTES: usize = 512;

impl Bucket {
    /// Writes a value if the latest revision is still `expected` (0: there is none), together with an event. Returns the
    /// new revision.
    pub(crate) async fn update_with_event(
        &self,
        key: &str,
        value: Bytes,
        event: &EncodedEvent,
        expected: u64,
    ) -> Result<u64, WriteError> {
        let (context, id) = (context(), random_id());
        let span = trace::producer(&context, event.subject, &id, event.payload.len());
        let traceparent = context.traceparent(&span);
        // An attempt that is not committed leaves no event, and of those that are repeated no two are committed.
        let commit = || self.commit(key, value.clone(), event, &id, traceparent.as_deref(), expected);
        trace::end_with(span, retry_until_deadline(write_unavailable, commit).await)
    }

    /// One attempt. Its messages are sent at once, so that it takes no longer than a single write.
    async fn commit(
        &self,
        key: &str,
        value: Bytes,
        event: &EncodedEvent,
        id: &str,
        traceparent: Option<&str>,
        expected: u64,
    ) -> Result<u64, WriteError> {
        let keep = self.outbox().await.map_err(WriteError::Failed)?;
        let batch = random_id();
        let size = value.len();
        let connection = self.fleet().connection();
        // Asked first: a batch that is begun and not committed keeps one of the 50 places that a stream has for ten seconds.
        if size + HEADER_BYTES > connection.client.max_payload() {
            return Err(WriteError::Failed(self.too_large(key, size)));
        }

        let mut headers = in_batch(&batch, 1);
        headers.insert(wire::EVENT_ID, id);
        if let Some(traceparent) = traceparent {
            headers.insert(wire::TRACEPARENT, traceparent);
        }
        headers.insert(NATS_MESSAGE_TTL, HeaderValue::from(keep.as_secs()));
        let subject = format!("outbox.{}.{id}.{}", self.name(), event.subject);
        let sent = connection.client.publish_with_headers(subject, headers, event.payload.clone()).await;
        sent.map_err(|error| WriteError::Failed(event.not_sent(&error)))?;

        let mut headers = in_batch(&batch, 2);
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(expected));
        headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        let failed = |error: PublishError| match refusal(&error) {
            Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) => {
                WriteError::Conflict
            }
            Some(ErrorCode::ATOMIC_PUBLISH_DISABLED) => WriteError::Failed(self.without_outbox()),
            _ => WriteError::Failed(self.not_written(key, size, &error)),
        };
        let acknowledgement = connection.jetstream.publish_with_headers(self.subject(key), headers, value).await;
        Ok(acknowledgement.map_err(failed)?.await.map_err(failed)?.sequence)
    }

    /// How long the outbox keeps an event.
    async fn outbox(&self) -> Result<Duration, Error> {
        let connection = self.fleet().connection();
        for is_read_again in [false, true] {
            if is_read_again {
                // It may have been prepared since.
                connection.forget_store(self.name()).await;
            }
            let store = connection.store(self.name()).await?;
            let config = &store.stream.cached_info().config;
            let seconds = config.metadata.get(OUTBOX_SECONDS).and_then(|text| text.parse().ok());
            // A server that does not know atomic batches would store their messages one by one.
            if let (true, Some(seconds)) = (config.allow_atomic_publish, seconds) {
                return Ok(Duration::from_secs(seconds));
            }
        }
        Err(self.without_outbox())
    }

    fn without_outbox(&self) -> Error {
        let bucket = self.name();
        Error::failed_precondition(format_args!(
            "bucket `{bucket}` has no outbox for events: `natsctl deploy` prepares it, on nats-server 2.12 or later"
        ))
    }
}

fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Headers of a message of an atomic batch, numbered from 1.
fn in_batch(id: &str, number: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_BATCH_ID, id);
    headers.insert(NATS_BATCH_SEQUENCE, HeaderValue::from(number));
    headers
}

/// Why the server refused a message, if it did.
fn refusal(error: &PublishError) -> Option<ErrorCode> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<jetstream::Error>().map(jetstream::Error::error_code)
}

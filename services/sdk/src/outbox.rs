//! Writes to a bucket that are stored together, or not at all: values, and the events that follow from them (the outbox).
//!
//! They are one atomic batch of JetStream. An event goes to a subject of the bucket's own stream that belongs to no key,
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
/// What a client of key-value buckets writes instead of a value, to delete it.
const KV_OPERATION: &str = "KV-Operation";
const KV_DELETE: &str = "DEL";
/// More than the headers of a value take.
const HEADER_BYTES: usize = 512;

/// Values of one bucket and events that are stored together, or not at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// At least one; no key twice.
    pub(crate) writes: Vec<Write>,
    pub(crate) events: Vec<EncodedEvent>,
}

/// A write of one key.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: String,
    /// `None` deletes the value.
    pub(crate) value: Option<Bytes>,
    /// The number of the latest message of the key; 0 if there is none.
    pub(crate) expected: u64,
}

/// An event of a batch, as each attempt sends it.
struct Outgoing<'a> {
    event: &'a EncodedEvent,
    id: String,
    traceparent: Option<String>,
}

impl Bucket {
    /// Stores a batch if the latest message of each key is still the expected one. Returns the revision of its last write;
    /// those before have the numbers before.
    pub(crate) async fn store_batch(&self, batch: &Batch) -> Result<u64, WriteError> {
        match &batch.writes[..] {
            [write] if batch.events.is_empty() => {
                let attempt = || self.send(write, write.headers(HeaderMap::new()));
                trace::storage("update", self.name(), retry_until_deadline(write_unavailable, attempt)).await
            }
            _ => self.store_atomically(batch).await,
        }
    }

    async fn store_atomically(&self, batch: &Batch) -> Result<u64, WriteError> {
        let context = context();
        let mut spans = Vec::with_capacity(batch.events.len());
        let outgoing = batch.events.iter().map(|event| {
            let id = random_id();
            let span = trace::producer(&context, event.subject, &id, event.payload.len());
            let traceparent = context.traceparent(&span);
            spans.push(span);
            Outgoing { event, id, traceparent }
        });
        let outgoing: Vec<Outgoing<'_>> = outgoing.collect();
        // An attempt that is not committed leaves no event, and of those that are repeated no two are committed.
        let commit = || self.commit(&batch.writes, &outgoing);
        let outcome = trace::storage("update", self.name(), retry_until_deadline(write_unavailable, commit)).await;
        spans.into_iter().fold(outcome, |outcome, span| trace::end_with(span, outcome))
    }

    /// One attempt. Its messages are sent at once, so that it takes no longer than a single write.
    async fn commit(&self, writes: &[Write], events: &[Outgoing<'_>]) -> Result<u64, WriteError> {
        let keep = self.outbox().await.map_err(WriteError::Failed)?;
        let batch = random_id();
        let connection = self.fleet().connection();
        // Asked first: a batch that is begun and not committed keeps one of the 50 places that a stream has for ten seconds.
        let limit = connection.client.max_payload();
        if let Some(write) = writes.iter().find(|write| write.size() + HEADER_BYTES > limit) {
            return Err(WriteError::Failed(self.too_large(&write.key, write.size())));
        }
        let mut number = 0;
        let mut in_batch = || {
            number += 1;
            in_batch(&batch, number)
        };
        for Outgoing { event, id, traceparent } in events {
            let mut headers = in_batch();
            headers.insert(wire::EVENT_ID, id.as_str());
            if let Some(traceparent) = traceparent {
                headers.insert(wire::TRACEPARENT, traceparent.as_str());
            }
            headers.insert(NATS_MESSAGE_TTL, HeaderValue::from(keep.as_secs()));
            let subject = format!("outbox.{}.{id}.{}", self.name(), event.subject);
            let sent = connection.client.publish_with_headers(subject, headers, event.payload.clone()).await;
            sent.map_err(|error| WriteError::Failed(event.not_sent(&error)))?;
        }
        let Some((last, others)) = writes.split_last() else {
            return Err(WriteError::Failed(Error::internal("a batch writes nothing")));
        };
        for write in others {
            let (subject, headers) = (self.subject(&write.key), write.headers(in_batch()));
            let sent = connection.client.publish_with_headers(subject, headers, write.payload()).await;
            sent.map_err(|error| WriteError::Failed(self.failed("write", &write.key, &error)))?;
        }
        let mut headers = last.headers(in_batch());
        headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        self.send(last, headers).await
    }

    /// Sends the write that the stream answers.
    async fn send(&self, write: &Write, headers: HeaderMap) -> Result<u64, WriteError> {
        let failed = |error: PublishError| match refusal(&error) {
            Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) => {
                WriteError::Conflict
            }
            Some(ErrorCode::ATOMIC_PUBLISH_DISABLED) => WriteError::Failed(self.without_outbox()),
            _ => WriteError::Failed(self.not_written(&write.key, write.size(), &error)),
        };
        let jetstream = &self.fleet().connection().jetstream;
        let sent = jetstream.publish_with_headers(self.subject(&write.key), headers, write.payload()).await;
        Ok(sent.map_err(failed)?.await.map_err(failed)?.sequence)
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

impl Write {
    fn size(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }

    fn payload(&self) -> Bytes {
        self.value.clone().unwrap_or_default()
    }

    /// The headers of its message, besides those that it has in any case.
    fn headers(&self, mut headers: HeaderMap) -> HeaderMap {
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(self.expected));
        if self.value.is_none() {
            headers.insert(KV_OPERATION, KV_DELETE);
        }
        headers
    }
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

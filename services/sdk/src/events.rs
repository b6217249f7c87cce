//! Events: published to JetStream with ids by which duplicates are recognised. One that follows from a write to a bucket is
//! stored with it ([`Change::write_with_event`](crate::Change::write_with_event)).

use async_nats::jetstream::context::PublishError;
use async_nats::{HeaderMap, client};
use bytes::Bytes;
use prost::Message;
use proto::common::v1::Meta;
use proto::rpc::{Code, Error, Event};
use sha2::{Digest as _, Sha256};

use crate::bucket::is_too_large;
use crate::context::{Context, context};
use crate::fleet::Fleet;
use crate::retry::retry_until_deadline;
use crate::{trace, wire};

impl Fleet {
    /// Publishes an event that the current request caused, and waits until it is stored. Equal events of one operation
    /// are one event: a retried request publishes nothing twice, and two different events are both stored.
    ///
    /// # Errors
    /// UNAVAILABLE if JetStream did not confirm it; the event may still be stored.
    pub async fn publish<E: Event>(&self, mut event: E) -> Result<(), Error> {
        // Meta describes the request, not the event: it must not change the digest.
        event.set_meta(Meta::default());
        let id = format!("{}/{}/{}", context().operation_id(), E::SUBJECT, digest(&event));
        self.publish_as(&id, event).await
    }

    /// Publishes an event under `id` (its `Nats-Msg-Id`): within the stream's duplicate window, one event per id is
    /// kept. An event that follows from a write to a bucket is better stored with it: [`Bucket::change`](crate::Bucket::change).
    ///
    /// # Errors
    /// UNAVAILABLE if JetStream did not confirm it; the event may still be stored. INTERNAL if it is too large.
    pub async fn publish_as<E: Event>(&self, id: &str, event: E) -> Result<(), Error> {
        let context = context();
        let event = EncodedEvent::caused_by(&context, event);
        let span = trace::producer(&context, event.subject, id, event.payload.len());
        let traceparent = context.traceparent(&span);
        // The id makes retries safe.
        let is_transient = |error: &Error| error.code() == Code::Unavailable;
        let store = || self.store_event(id, &event, traceparent.as_deref());
        trace::end_with(span, retry_until_deadline(is_transient, store).await)
    }

    async fn store_event(&self, id: &str, event: &EncodedEvent, traceparent: Option<&str>) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        headers.insert(wire::MESSAGE_ID, id);
        if let Some(traceparent) = traceparent {
            headers.insert(wire::TRACEPARENT, traceparent);
        }
        let connection = self.connection();
        let sent = connection.jetstream.publish_with_headers(event.subject, headers, event.payload.clone()).await;
        let acknowledged = sent.map_err(|error| event.not_stored(&error))?;
        acknowledged.await.map(drop).map_err(|error| event.not_stored(&error))
    }
}

/// An event as it is published: encoded, with the metadata of the request that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent {
    pub(crate) subject: &'static str,
    pub(crate) payload: Bytes,
}

impl EncodedEvent {
    /// Encodes an event that the current request causes.
    pub fn new<E: Event>(event: E) -> Self {
        Self::caused_by(&context(), event)
    }

    fn caused_by<E: Event>(context: &Context, mut event: E) -> Self {
        event.set_meta(context.meta());
        Self { subject: E::SUBJECT, payload: event.encode_to_vec().into() }
    }

    fn not_stored(&self, error: &PublishError) -> Error {
        match is_too_large(error) {
            true => self.too_large(),
            false => Error::unavailable(format_args!("event `{}` was not stored: {error}", self.subject)),
        }
    }

    pub(crate) fn not_sent(&self, error: &client::PublishError) -> Error {
        match error.kind() {
            client::PublishErrorKind::MaxPayloadExceeded => self.too_large(),
            _ => Error::unavailable(format_args!("event `{}` was not sent: {error}", self.subject)),
        }
    }

    /// No repeat can succeed.
    fn too_large(&self) -> Error {
        let (subject, size) = (self.subject, self.payload.len());
        Error::internal(format_args!("event `{subject}` has {size} bytes, too many for its stream"))
    }
}

/// A digest of a message's content: 16 hexadecimal digits, the same in every build.
pub fn digest(message: &impl Message) -> String {
    Sha256::digest(message.encode_to_vec()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

//! Events: published to JetStream with ids by which duplicates are recognised.

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishError;
use prost::Message;
use proto::common::v1::Meta;
use proto::rpc::{Code, Error, Event};
use sha2::{Digest as _, Sha256};

use crate::bucket::is_too_large;
use crate::context::context;
use crate::fleet::Fleet;
use crate::retry::retry_until_deadline;
use crate::wire;

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
    /// kept.
    ///
    /// # Errors
    /// UNAVAILABLE if JetStream did not confirm it; the event may still be stored. INTERNAL if it is too large.
    pub async fn publish_as<E: Event>(&self, id: &str, mut event: E) -> Result<(), Error> {
        let context = context();
        event.set_meta(context.meta());
        let payload = bytes::Bytes::from(event.encode_to_vec());
        let mut headers = HeaderMap::new();
        headers.insert(wire::MESSAGE_ID, id);
        headers.insert(wire::TRACEPARENT, context.traceparent());
        // The id makes retries safe.
        let is_transient = |error: &Error| error.code() == Code::Unavailable;
        retry_until_deadline(is_transient, || self.store_event(E::SUBJECT, headers.clone(), payload.clone())).await
    }

    async fn store_event(&self, subject: &'static str, headers: HeaderMap, payload: bytes::Bytes) -> Result<(), Error> {
        let size = payload.len();
        let failed = |error: PublishError| match is_too_large(&error) {
            true => Error::internal(format_args!("event `{subject}` has {size} bytes, too many for its stream")),
            false => Error::unavailable(format_args!("event `{subject}` was not stored: {error}")),
        };
        let jetstream = &self.connection().jetstream;
        let acknowledged = jetstream.publish_with_headers(subject, headers, payload).await.map_err(failed)?;
        acknowledged.await.map(drop).map_err(failed)
    }
}

/// A digest of a message's content: 16 hexadecimal digits, the same in every build.
pub fn digest(message: &impl Message) -> String {
    Sha256::digest(message.encode_to_vec()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

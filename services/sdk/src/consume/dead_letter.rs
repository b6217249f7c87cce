//! Dead letters: events that could not be handled, stored as they came, with the reason.

use async_nats::jetstream::context::PublishError;
use async_nats::{HeaderMap, HeaderName, Message};
use proto::rpc::Error;

use crate::connection::Connection;
use crate::retry::retry_until_deadline;
use crate::wire;

/// Why it could not be handled.
const REASON: HeaderName = HeaderName::from_static("Dead-Letter-Reason");
/// The code of the error, for example `INVALID_ARGUMENT`.
const CODE: HeaderName = HeaderName::from_static("Dead-Letter-Code");
/// How often it was handled.
const ATTEMPTS: HeaderName = HeaderName::from_static("Dead-Letter-Attempts");
/// The stream that the event is in.
const STREAM: HeaderName = HeaderName::from_static("Dead-Letter-Stream");
/// Its sequence there.
const SEQUENCE: HeaderName = HeaderName::from_static("Dead-Letter-Sequence");
/// When the event was stored there.
const STORED_AT: HeaderName = HeaderName::from_static("Dead-Letter-Stored-At");
/// What the names of headers begin with that servers act on. They belong to the event's own stream.
const SERVER_HEADERS: &str = "Nats-";

/// An event that a service could not handle.
pub(super) struct DeadLetter<'a> {
    pub(super) service: &'a str,
    pub(super) event: &'a str,
    pub(super) event_id: &'a str,
    pub(super) stream: &'a str,
    pub(super) sequence: u64,
    pub(super) stored_at: &'a str,
    pub(super) attempts: u32,
    pub(super) error: &'a Error,
    pub(super) message: &'a Message,
}

impl DeadLetter<'_> {
    fn subject(&self) -> String {
        format!("dlq.{}.{}", self.service, self.event)
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, values) in self.message.headers.iter().flat_map(HeaderMap::iter) {
            if !AsRef::<str>::as_ref(name).starts_with(SERVER_HEADERS) {
                values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
            }
        }
        // A header is one line.
        headers.insert(REASON, self.error.message().replace(['\r', '\n'], " "));
        headers.insert(CODE, self.error.code().as_str_name());
        headers.insert(ATTEMPTS, self.attempts.to_string());
        headers.insert(STREAM, self.stream);
        headers.insert(SEQUENCE, self.sequence.to_string());
        headers.insert(STORED_AT, self.stored_at);
        headers.insert(wire::EVENT_ID, self.event_id);
        // One event is one dead letter of a service, however often that is found out.
        headers.insert(wire::MESSAGE_ID, format!("{}/{}/{}", self.service, self.stream, self.sequence));
        headers
    }
}

/// Stores a dead letter.
///
/// # Errors
/// UNAVAILABLE if the stream did not confirm it until the deadline of the current context.
pub(super) async fn store(connection: &Connection, letter: &DeadLetter<'_>) -> Result<(), Error> {
    let (subject, headers) = (letter.subject(), letter.headers());
    let failed =
        |error: PublishError| Error::unavailable(format_args!("`{}` was not stored: {error}", letter.subject()));
    retry_until_deadline(
        |_| true,
        || async {
            let payload = letter.message.payload.clone();
            let published = connection.jetstream.publish_with_headers(subject.clone(), headers.clone(), payload).await;
            published.map_err(failed)?.await.map(drop).map_err(failed)
        },
    )
    .await
}

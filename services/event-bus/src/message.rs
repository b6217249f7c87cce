//! Streams and their messages: what is accepted, and under which keys they are stored.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use proto::event::bus::v1::{Message, PublishRequest};
use sdk::{Error, Id, RecordKey, SubjectPattern, check_count, check_subject, check_text, reason};
use sha2::{Digest as _, Sha256};

pub(crate) const MAX_TOPIC: usize = 128;
/// So that the largest answer, 25 messages, is below 1 MiB.
const MAX_PAYLOAD: usize = 32 << 10;
const MAX_HEADERS: usize = 16;
const MAX_HEADER_NAME: usize = 64;
const MAX_HEADER: usize = 256;
const MAX_DEDUPE_ID: usize = 256;

/// The key of a stream.
pub(crate) fn stream_key(name: &str) -> Result<Id, Error> {
    Id::new("stream", name, 64)
}

/// Identifies a message: of equal ones, one is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MessageKey {
    stream: String,
    key: String,
}

impl fmt::Display for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message of stream `{}`", self.stream)
    }
}

impl RecordKey for MessageKey {
    fn bucket_key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.key)
    }
}

/// The keys of all messages of a stream whose topics match a pattern. The topic is last, where a pattern may end in `>`.
pub(crate) fn filter(stream: &str, topic: &str) -> String {
    format!("{stream}.*.{topic}")
}

/// The pattern of a field that stands for all topics if it is empty.
pub(crate) fn topic_pattern(topic: &str) -> Result<String, Error> {
    let topic = if topic.is_empty() { ">" } else { topic };
    Ok(SubjectPattern::new("topic", topic, MAX_TOPIC)?.as_str().to_owned())
}

/// The message that a request publishes. `operation` names the request, for one without a `dedupe_id`.
pub(crate) fn checked(
    request: PublishRequest,
    operation: &str,
    now: SystemTime,
) -> Result<(MessageKey, Message), Error> {
    let PublishRequest { meta: _, stream, topic, payload, headers, dedupe_id } = request;
    check_subject("topic", &topic, MAX_TOPIC)?;
    if payload.len() > MAX_PAYLOAD {
        let size = payload.len();
        return Err(Error::invalid(format_args!("payload has {size} bytes, at most {MAX_PAYLOAD} are allowed")));
    }
    check_count("headers", headers.len(), MAX_HEADERS)?;
    for (name, value) in &headers {
        check_text("name of a header", name, MAX_HEADER_NAME)?;
        if !value.is_empty() {
            check_text(&format!("header `{}`", name.escape_debug()), value, MAX_HEADER)?;
        }
    }
    let identity = match dedupe_id.is_empty() {
        true => format!("operation {operation}"),
        false => {
            check_text("dedupe_id", &dedupe_id, MAX_DEDUPE_ID)?;
            format!("id {dedupe_id}")
        }
    };
    let digest: String = Sha256::digest(identity).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let key = MessageKey { key: format!("{stream}.{digest}.{topic}"), stream };
    let message = Message { sequence: 0, topic, payload, headers, published_at: Some(now.into()), dedupe_id };
    Ok((key, message))
}

/// Refuses another message than the one that is stored under its key.
pub(crate) fn check_same(stored: &Message, message: &Message) -> Result<(), Error> {
    if (&stored.payload, &stored.headers, &stored.dedupe_id) == (&message.payload, &message.headers, &message.dedupe_id)
    {
        return Ok(());
    }
    let (what, reason) = match message.dedupe_id.is_empty() {
        true => ("the idempotency key was used for another message".to_owned(), reason::IDEMPOTENCY_KEY_REUSED),
        false => (format!("dedupe_id `{}` was used for another message", message.dedupe_id), "dedupe_id_reused"),
    };
    Err(Error::failed_precondition(what).with_detail(reason::KEY, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn request(topic: &str) -> PublishRequest {
        PublishRequest { stream: "s".to_owned(), topic: topic.to_owned(), ..PublishRequest::default() }
    }

    fn key(request: PublishRequest, operation: &str) -> String {
        checked(request, operation, NOW).unwrap().0.bucket_key().into_owned()
    }

    #[test]
    fn messages_are_the_same_by_their_dedupe_id_or_else_by_their_operation() {
        let with_id = |id: &str| PublishRequest { dedupe_id: id.to_owned(), ..request("a.b") };
        assert_eq!(key(request("a.b"), "o"), key(request("a.b"), "o"));
        assert_ne!(key(request("a.b"), "o"), key(request("a.b"), "p"));
        assert_eq!(key(with_id("1"), "o"), key(with_id("1"), "p"));
        assert_ne!(key(with_id("1"), "o"), key(with_id("2"), "o"));
        assert_ne!(key(with_id("o"), "o"), key(request("a.b"), "o"));
        let key = key(request("a.b"), "o");
        assert!(SubjectPattern::new("filter", &filter("s", "a.*"), 64).unwrap().matches(&key), "{key}");
    }

    #[test]
    fn a_message_that_is_not_valid_is_refused_with_what_is() {
        #[track_caller]
        fn refused(request: PublishRequest, because: &str) {
            let error = checked(request, "o", NOW).unwrap_err();
            assert!(error.message().contains(because), "{error}");
        }
        refused(request("a.*"), "topic must be 1 to 128 bytes");
        refused(PublishRequest { payload: vec![0; 32_769].into(), ..request("a") }, "at most 32768 are allowed");
        refused(PublishRequest { dedupe_id: "x".repeat(257), ..request("a") }, "dedupe_id has 257 bytes");
        let headers = (0..17).map(|number| (number.to_string(), String::new())).collect();
        refused(PublishRequest { headers, ..request("a") }, "there are 17 headers");
        let headers = [(String::new(), String::new())].into();
        refused(PublishRequest { headers, ..request("a") }, "name of a header is empty");
    }

    #[test]
    fn an_id_that_was_used_for_another_message_is_refused() {
        let with = |id: &str, payload: &'static str| Message {
            dedupe_id: id.to_owned(),
            payload: payload.as_bytes().into(),
            ..Message::default()
        };
        assert_eq!(check_same(&with("1", "x"), &with("1", "x")), Ok(()));
        let reason = |error: Error| error.detail(reason::KEY).map(str::to_owned);
        assert_eq!(reason(check_same(&with("1", "x"), &with("1", "y")).unwrap_err()).unwrap(), "dedupe_id_reused");
        assert_eq!(reason(check_same(&with("", "x"), &with("", "y")).unwrap_err()).unwrap(), "idempotency_key_reused");
    }
}

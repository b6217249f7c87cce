//! What is routed: subject, headers and payload, in the form that rules look into.

use std::collections::BTreeMap;

use proto::router::v1::Message;
use sdk::{Error, check_count, check_subject, check_text, required};
use serde_json::{Map, Value};

pub(crate) const MAX_SUBJECT: usize = 128;
const MAX_HEADERS: usize = 32;
/// Bytes.
pub(crate) const MAX_HEADER_NAME: usize = 64;
const MAX_HEADER: usize = 512;
const MAX_PAYLOAD: usize = 64 << 10;

/// A message that is valid.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Content {
    pub(crate) message: Message,
    /// By name in lower case.
    headers: BTreeMap<String, String>,
    pub(crate) payload: Map<String, Value>,
}

impl Content {
    /// The content of a field that must be set.
    pub(crate) fn new(message: Option<Message>) -> Result<Self, Error> {
        let mut message = required("message", message)?;
        check_subject("subject", &message.subject, MAX_SUBJECT)?;
        check_count("headers", message.headers.len(), MAX_HEADERS)?;
        let mut headers = BTreeMap::new();
        for (name, value) in &message.headers {
            check_text("name of a header", name, MAX_HEADER_NAME)?;
            if !value.is_empty() {
                check_text(&format!("header `{}`", name.escape_debug()), value, MAX_HEADER)?;
            }
            if headers.insert(name.to_ascii_lowercase(), value.clone()).is_some() {
                return Err(Error::invalid(format_args!("header `{}` is given twice", name.escape_debug())));
            }
        }
        if message.payload.is_empty() {
            "{}".clone_into(&mut message.payload);
        }
        if message.payload.len() > MAX_PAYLOAD {
            let size = message.payload.len();
            return Err(Error::invalid(format_args!("payload has {size} bytes, at most {MAX_PAYLOAD} are allowed")));
        }
        let payload = serde_json::from_str(&message.payload)
            .map_err(|error| Error::invalid(format_args!("payload is not a JSON object: {error}")))?;
        Ok(Self { message, headers, payload })
    }

    /// The value of a header; its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    /// The value at a path; `None` if it leads nowhere, or to null.
    pub(crate) fn field(&self, path: &str) -> Option<&Value> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let steps = rest.into_iter().flat_map(|rest| rest.split('.'));
        let found = { steps }.try_fold(self.payload.get(first)?, |value, step| match value {
            Value::Object(fields) => fields.get(step),
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        });
        found.filter(|value| !value.is_null())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A message with the headers `Tenant: red` and `level: 7`.
    pub(crate) fn message(subject: &str, payload: &str) -> Message {
        let headers = [("Tenant", "red"), ("level", "7")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Message { subject: subject.to_owned(), headers: headers.into(), payload: payload.to_owned() }
    }

    pub(crate) fn content(subject: &str, payload: &str) -> Content {
        Content::new(Some(message(subject, payload))).unwrap()
    }

    #[test]
    fn fields_are_found_by_their_paths() {
        let content = content("a", r#"{"player": {"tags": ["x", {"deep": 1}], "none": null}, "n": 3}"#);
        #[track_caller]
        fn check(content: &Content, path: &str, expected: Option<&str>) {
            assert_eq!(content.field(path).map(ToString::to_string).as_deref(), expected, "{path}");
        }
        check(&content, "n", Some("3"));
        check(&content, "player.tags.0", Some("\"x\""));
        check(&content, "player.tags.1.deep", Some("1"));
        for nowhere in ["player.none", "player.tags.2", "player.tags.x", "n.0", "other", ""] {
            check(&content, nowhere, None);
        }
        assert_eq!((content.header("TENANT"), content.header("other")), (Some("red"), None));
    }

    #[test]
    fn a_message_that_is_not_valid_is_refused_with_what_is() {
        #[track_caller]
        fn refused(message: Message, because: &str) {
            let error = Content::new(Some(message)).unwrap_err();
            assert!(error.message().contains(because), "{error}");
        }
        refused(message("a.*", ""), "subject must be 1 to 128 bytes");
        refused(message("a", "[]"), "payload is not a JSON object");
        refused(message("a", &format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_PAYLOAD))), "at most 65536 are allowed");
        let twice = [("a", "1"), ("A", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        refused(Message { headers: twice.into(), ..message("a", "") }, "is given twice");
        assert_eq!(Content::new(None).unwrap_err().message(), "message is missing");
        assert_eq!(content("a", "").payload, Map::new());
    }
}

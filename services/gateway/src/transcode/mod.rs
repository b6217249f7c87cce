//! Transcodes JSON text to protobuf bytes and back by the proto3 JSON mapping, driven by descriptors and without an
//! intermediate tree.
//!
//! Keys may be in lower camel case or as in the `.proto` file; responses use lower camel case. Unknown fields
//! are rejected.

mod json;
mod numbers;
mod read;
mod schema;
mod time;
mod write;

use std::fmt;

use bytes::Bytes;
use proto::common::v1 as common;

pub use schema::{Enum, EnumId, Field, Form, Kind, Message, MessageId, Schema, Shape, Unsupported};

/// A JSON text that is not the expected message.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidBody {
    at: usize,
    problem: String,
    hint: Option<String>,
    /// From the innermost segment outwards.
    path: Vec<Segment>,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Key(String),
    Index(usize),
}

impl InvalidBody {
    fn new(at: usize, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into(), hint: None, path: Vec::new() }
    }

    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn within(mut self, key: &str) -> Self {
        self.path.push(Segment::Key(key.to_owned()));
        self
    }

    fn at_index(mut self, index: usize) -> Self {
        self.path.push(Segment::Index(index));
        self
    }

    /// The problem.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// How to fix it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The path of the value in the message, for example `actions[2].cost`; empty for the message itself.
    pub fn field(&self) -> String {
        let mut out = String::new();
        for segment in self.path.iter().rev() {
            match segment {
                Segment::Key(key) if out.is_empty() => out.push_str(key),
                Segment::Key(key) => out.extend([".", key]),
                Segment::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        out
    }

    /// The position in `text`: line and column in characters, both from 1.
    pub fn position(&self, text: &[u8]) -> (usize, usize) {
        let before = String::from_utf8_lossy(&text[..self.at.min(text.len())]);
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }
}

/// Bytes that are not a valid encoding of the expected message.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidMessage(pub(crate) String);

impl fmt::Display for InvalidMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidMessage {}

/// Encodes a request. The field `meta` is rejected, because the gateway sets it.
///
/// # Errors
/// If `json` is not JSON or not this message.
pub fn to_protobuf(schema: &Schema, message: MessageId, json: &[u8]) -> Result<Bytes, InvalidBody> {
    read::request(schema, schema.message(message), json)
}

/// Writes a message as JSON.
///
/// # Errors
/// If `bytes` are not this message.
pub fn to_json(schema: &Schema, message: MessageId, bytes: &[u8]) -> Result<Vec<u8>, InvalidMessage> {
    let mut out = Vec::with_capacity(bytes.len() * 2 + 64);
    write::message(schema, schema.message(message), bytes, &mut out)?;
    Ok(out)
}

/// The error that a response carries.
///
/// # Errors
/// If `bytes` are not a response.
pub fn error_in(bytes: &[u8]) -> Result<Option<common::Error>, InvalidMessage> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct AnyResponse {
        #[prost(message, optional, tag = "1")]
        error: Option<common::Error>,
    }
    match <AnyResponse as prost::Message>::decode(bytes) {
        Ok(response) => Ok(response.error),
        Err(error) => Err(InvalidMessage(error.to_string())),
    }
}

#[cfg(test)]
mod tests;

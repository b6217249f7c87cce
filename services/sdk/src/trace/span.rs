//! A span: one operation of a trace, from its start to its end.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use proto::rpc::Error;
use tokio::time::Instant;

use super::{SpanContext, record};

/// The longest text of an attribute, in bytes; the rest is cut off, so that the queue is bounded in bytes too.
const MAX_TEXT: usize = 1024;

/// One operation that is being measured. It ends, and is exported, with [`Span::end`]; if it is dropped before, what
/// it measured was given up, and that is its error. If its trace is not sampled, all of this does nothing.
#[derive(Debug)]
#[must_use = "a span that is dropped at once measures nothing"]
pub struct Span(Option<Box<Record>>);

/// What a span is to its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// It handles a request.
    Server,
    /// It sends a request and waits for the response.
    Client,
    /// It publishes an event.
    Producer,
    /// It handles an event.
    Consumer,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text that the program contains.
    Static(&'static str),
    /// Other text.
    Text(String),
    /// A number.
    Integer(i64),
    /// Yes or no.
    Bool(bool),
}

/// What is measured of a span.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) context: SpanContext,
    /// 0 if there is none.
    pub(crate) parent_id: u64,
    pub(crate) kind: SpanKind,
    pub(crate) name: Cow<'static, str>,
    /// Since 1970.
    pub(crate) start: Duration,
    pub(crate) took: Duration,
    pub(crate) attributes: Vec<(&'static str, Value)>,
    /// What went wrong; empty text if there is nothing to say about it.
    pub(crate) error: Option<String>,
    started: Instant,
}

impl Span {
    /// The span of what is not recorded.
    pub const NONE: Self = Self(None);

    pub(crate) fn start(context: SpanContext, parent_id: u64, kind: SpanKind, started: Instant) -> Self {
        if !context.sampled || !super::lifecycle::is_exporting() {
            return Self::NONE;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(Some(Box::new(Record {
            context,
            parent_id,
            kind,
            name: Cow::Borrowed(""),
            start: now.saturating_sub(started.elapsed()),
            took: Duration::ZERO,
            attributes: Vec::with_capacity(10),
            error: None,
            started,
        })))
    }

    /// Whether it is recorded. If not, its attributes need not be computed.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// What those that it causes are told.
    pub(crate) fn context(&self) -> Option<SpanContext> {
        self.0.as_ref().map(|record| record.context)
    }

    /// The W3C `traceparent` of what it causes, if it is recorded.
    pub fn traceparent(&self) -> Option<String> {
        Some(self.context()?.traceparent())
    }

    /// Names the operation: few names for many spans, without ids.
    pub fn name(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(record) = &mut self.0 {
            record.name = name.into();
        }
    }

    /// Adds an attribute, named as OpenTelemetry's semantic conventions do. Text is cut off after 1024 bytes.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(record) = &mut self.0 {
            record.set(key, value.into());
        }
    }

    /// Marks it as failed. `kind` is one of few values; `message` may be empty.
    pub fn fail(&mut self, kind: impl Into<Value>, message: &str) {
        if let Some(record) = &mut self.0 {
            record.fail(kind.into(), message);
        }
    }

    /// Adds the outcome of an rpc. Whether an error of it is an error of the span is for the caller to say.
    pub(crate) fn set_outcome(&mut self, error: Option<&Error>, is_failure: impl FnOnce(&Error) -> bool) {
        let Some(record) = &mut self.0 else { return };
        let status = error.map_or("OK", |error| error.code().as_str_name());
        record.set("rpc.response.status_code", Value::Static(status));
        if let Some(error) = error.filter(|error| is_failure(error)) {
            record.fail(Value::Static(status), error.message());
        }
    }

    /// Ends it, and hands it to the exporter.
    pub fn end(mut self) {
        self.hand_over();
    }

    fn hand_over(&mut self) {
        if let Some(mut measured) = self.0.take() {
            measured.took = measured.started.elapsed();
            record(measured);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.fail("cancelled", "given up before it had ended");
        self.hand_over();
    }
}

impl Record {
    fn set(&mut self, key: &'static str, mut value: Value) {
        if let Value::Text(text) = &mut value {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
        }
        self.attributes.push((key, value));
    }

    fn fail(&mut self, kind: Value, message: &str) {
        self.set("error.type", kind);
        self.error = Some(message[..message.floor_char_boundary(MAX_TEXT)].to_owned());
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Static(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

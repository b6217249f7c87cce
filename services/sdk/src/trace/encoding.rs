//! From what was measured to the messages of OTLP.

use std::time::Duration;

use bytes::Bytes;
use otlp::{AnyValue, ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans};
use otlp::{Status, any_value, span, status};
use prost::Message as _;

use super::span::{Record, SpanKind, Value};

/// W3C's flag of a sampled trace.
const SAMPLED: u32 = 1;

/// What all spans of this task have in common.
#[derive(Debug)]
pub(crate) struct Origin {
    resource: Resource,
    scope: InstrumentationScope,
}

impl Origin {
    pub(crate) fn new(attributes: Vec<(String, String)>) -> Self {
        let attributes =
            attributes.into_iter().map(|(key, value)| attribute(key, any_value::Value::StringValue(value)));
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Self { resource: Resource { attributes: attributes.collect() }, scope }
    }

    /// An encoded `ExportTraceServiceRequest`.
    pub(crate) fn request(&self, spans: impl IntoIterator<Item = Box<Record>>) -> Bytes {
        let scope_spans = ScopeSpans {
            scope: Some(self.scope.clone()),
            spans: spans.into_iter().map(|record| span(*record)).collect(),
        };
        let spans = ResourceSpans { resource: Some(self.resource.clone()), scope_spans: vec![scope_spans] };
        ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec().into()
    }
}

fn span(record: Record) -> otlp::Span {
    let kind = match record.kind {
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Client => span::SpanKind::Client,
        SpanKind::Producer => span::SpanKind::Producer,
        SpanKind::Consumer => span::SpanKind::Consumer,
    };
    let parent_span_id = match record.parent_id {
        0 => Vec::new(),
        id => id.to_be_bytes().to_vec(),
    };
    let attributes = record.attributes.into_iter().map(|(key, value)| attribute(key.to_owned(), any(value)));
    let failed = |message| Status { message, code: status::StatusCode::Error.into() };
    otlp::Span {
        trace_id: record.context.trace_id.to_be_bytes().to_vec(),
        span_id: record.context.span_id.to_be_bytes().to_vec(),
        parent_span_id,
        flags: SAMPLED,
        name: record.name.into_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(record.start),
        end_time_unix_nano: nanoseconds(record.start + record.took),
        attributes: attributes.collect(),
        status: record.error.map(failed),
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn any(value: Value) -> any_value::Value {
    match value {
        Value::Static(text) => any_value::Value::StringValue(text.to_owned()),
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Integer(number) => any_value::Value::IntValue(number),
        Value::Bool(value) => any_value::Value::BoolValue(value),
    }
}

fn attribute(key: String, value: any_value::Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }) }
}

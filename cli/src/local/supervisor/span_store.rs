//! The spans that the tasks have exported lately: as many as fit into so many bytes, the oldest go first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use data_encoding::HEXLOWER;
use otlp::{AnyValue, ExportTraceServiceRequest, KeyValue, any_value};
use prost::Message as _;
use prost::bytes::Bytes;

use crate::local::protocol::FoundTraces;
use crate::model::trace::{Span, SpanKind, TracePrefix};

/// How many ids an ambiguous prefix is answered with.
const MAX_IDS: usize = 10;

/// Spans as they were received: encoded, they take a fraction of the memory, and few are ever looked at.
#[derive(Clone, Debug)]
pub(super) struct SpanStore {
    batches: VecDeque<Batch>,
    bytes: usize,
    max_bytes: usize,
}

#[derive(Clone, Debug)]
struct Batch {
    encoded: Bytes,
    spans: usize,
    /// When its first span started, in nanoseconds since 1970.
    start_ns: u64,
}

impl SpanStore {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// Adds an encoded `ExportTraceServiceRequest`.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn push(&mut self, encoded: Bytes) -> Result<(), prost::DecodeError> {
        let request = ExportTraceServiceRequest::decode(encoded.clone())?;
        let spans = || request.resource_spans.iter().flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans);
        let start_ns = spans().map(|span| span.start_time_unix_nano).min().unwrap_or_default();
        self.bytes += encoded.len();
        self.batches.push_back(Batch { encoded, spans: spans().count(), start_ns });
        while self.bytes > self.max_bytes
            && let Some(oldest) = self.batches.pop_front()
        {
            self.bytes -= oldest.encoded.len();
        }
        Ok(())
    }

    /// The traces whose ids begin with `prefix`; if it is only one, its spans.
    pub(super) fn find(&self, prefix: &TracePrefix) -> FoundTraces {
        let mut ids: BTreeSet<String> = BTreeSet::new();
        let mut spans = Vec::new();
        for batch in &self.batches {
            // It was decoded when it came.
            let Ok(request) = ExportTraceServiceRequest::decode(batch.encoded.clone()) else { continue };
            for of_resource in request.resource_spans {
                let resource = attributes(of_resource.resource.unwrap_or_default().attributes);
                for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
                    let id = HEXLOWER.encode(&span.trace_id);
                    if prefix.matches(&id) {
                        ids.insert(id);
                        if ids.len() == 1 {
                            spans.push(modelled(span, &resource));
                        }
                    }
                }
            }
        }
        if ids.len() > 1 {
            spans.clear();
        }
        FoundTraces {
            matching: ids.len(),
            ids: ids.into_iter().take(MAX_IDS).collect(),
            spans,
            stored: self.batches.iter().map(|batch| batch.spans).sum(),
            since_ns: self.batches.iter().map(|batch| batch.start_ns).min(),
        }
    }
}

fn modelled(span: otlp::Span, resource: &BTreeMap<String, String>) -> Span {
    let of_resource = |key: &str| resource.get(key).cloned().unwrap_or_default();
    let kind = match span.kind() {
        otlp::span::SpanKind::Server => SpanKind::Server,
        otlp::span::SpanKind::Client => SpanKind::Client,
        otlp::span::SpanKind::Producer => SpanKind::Producer,
        otlp::span::SpanKind::Consumer => SpanKind::Consumer,
        otlp::span::SpanKind::Internal | otlp::span::SpanKind::Unspecified => SpanKind::Internal,
    };
    let attributes = attributes(span.attributes);
    let failed = span.status.filter(|status| status.code() == otlp::status::StatusCode::Error);
    let error = failed.map(|status| match (attributes.get("error.type"), status.message.as_str()) {
        (Some(kind), "") => kind.clone(),
        (Some(kind), message) => format!("{message} ({kind})"),
        (None, message) => message.to_owned(),
    });
    Span {
        service: of_resource("service.name"),
        task: of_resource("service.instance.id"),
        name: span.name,
        kind,
        span_id: HEXLOWER.encode(&span.span_id),
        parent_id: Some(HEXLOWER.encode(&span.parent_span_id)).filter(|id| !id.is_empty()),
        start_ns: span.start_time_unix_nano,
        duration_ns: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
        error,
        attributes,
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        None => String::new(),
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        Some(any_value::Value::BytesValue(value)) => HEXLOWER.encode(&value),
        Some(any_value::Value::ArrayValue(list)) => {
            list.values.into_iter().map(|value| text(Some(value))).collect::<Vec<_>>().join(", ")
        }
        Some(other) => format!("{other:?}"),
    }
}

#[cfg(test)]
#[path = "span_store_tests.rs"]
mod tests;

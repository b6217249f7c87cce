//! Distributed tracing: spans of requests, calls, events and state, exported by OTLP.
//!
//! A trace that is not sampled costs an id and nothing else: there is no header, no span and no exporter in its way. A
//! span that is sampled goes into a bounded queue, from which a thread of its own exports batches.

mod encoding;
mod exporter;
mod http;
mod lifecycle;
mod metrics;
mod queue;
mod sampler;
mod settings;
mod span;
mod span_context;
mod spans;

use lifecycle::{record, sampler};
pub(crate) use lifecycle::{start, stop};
pub use span::{Span, SpanKind, Value};
pub(crate) use span_context::SpanContext;
use span_context::{random_span_id, random_trace_id};
pub(crate) use spans::{
    Failure, client, consumer, end_client, end_server, end_with, producer, server, storage, watch_client, watch_server,
};

use tokio::time::Instant;

/// The trace that a request belongs to, and its own span in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace {
    span: SpanContext,
    /// The span that caused this one; 0 if there is none.
    parent_id: u64,
    /// Whether `span` is the span of something, and so the parent of what follows.
    has_span: bool,
    /// Whether a header passes the trace on. A header makes nats-server scan each message, so there is one only where
    /// somebody records the trace, here or outside; every request has the trace id in its `Meta`.
    in_header: bool,
}

impl Trace {
    /// A new trace, whose first span is that of a request.
    pub(crate) fn begin() -> Self {
        let trace_id = random_trace_id();
        let sampled = sampler().samples_root(trace_id);
        Self::with_new_span(SpanContext { trace_id, span_id: 0, sampled }, sampled)
    }

    /// A new trace without a request: each span that begins in it has no parent.
    pub(crate) fn begin_without_request() -> Self {
        Self { has_span: false, ..Self::begin() }
    }

    /// Continues the trace that came with a `traceparent`.
    pub(crate) fn follow(parent: SpanContext) -> Self {
        Self::with_new_span(SpanContext { sampled: sampler().samples_child(parent), ..parent }, true)
    }

    /// Continues a trace that came without a `traceparent`: its sender does not record it.
    pub(crate) fn follow_unsampled(trace_id: u128) -> Self {
        let sampled = sampler().samples_child(SpanContext { trace_id, span_id: 0, sampled: false });
        Self::with_new_span(SpanContext { trace_id, span_id: 0, sampled }, sampled)
    }

    fn with_new_span(parent: SpanContext, in_header: bool) -> Self {
        let span = SpanContext { span_id: random_span_id(), ..parent };
        Self { span, parent_id: parent.span_id, has_span: true, in_header }
    }

    /// The trace's id; never 0.
    pub(crate) fn id(&self) -> u128 {
        self.span.trace_id
    }

    /// The id of the request's own span; never 0.
    pub(crate) fn span_id(&self) -> u64 {
        self.span.span_id
    }

    /// The span of the request itself, which started at `start`.
    pub(crate) fn own_span(&self, kind: SpanKind, start: Instant) -> Span {
        Span::start(self.span, self.parent_id, kind, start)
    }

    /// The span of something that the request does, from now on.
    pub(crate) fn child_span(&self, kind: SpanKind) -> Span {
        if !self.span.sampled {
            return Span::NONE;
        }
        let parent_id = if self.has_span { self.span.span_id } else { 0 };
        Span::start(SpanContext { span_id: random_span_id(), ..self.span }, parent_id, kind, Instant::now())
    }

    /// The header `traceparent` of a message that `span`, or else the request itself, causes, if it has one.
    pub(crate) fn header(&self, span: &Span) -> Option<String> {
        self.in_header.then(|| span.context().unwrap_or(self.span).traceparent())
    }
}

//! Distributed tracing: which requests are recorded, and how a trace is passed on.

mod sampler;
mod span_context;

use sampler::sampler;
pub(crate) use span_context::SpanContext;
use span_context::{random_span_id, random_trace_id};

/// The trace that a request belongs to, and its own span in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace {
    span: SpanContext,
    /// Whether a header passes the trace on. A header makes nats-server scan each message, so there is one only where
    /// somebody records the trace, here or outside; every request has the trace id in its `Meta`.
    in_header: bool,
}

impl Trace {
    /// A new trace.
    pub(crate) fn begin() -> Self {
        let trace_id = random_trace_id();
        let sampled = sampler().samples_root(trace_id);
        Self::with_new_span(trace_id, sampled, sampled)
    }

    /// Continues the trace that came with a `traceparent`.
    pub(crate) fn follow(parent: SpanContext) -> Self {
        Self::with_new_span(parent.trace_id, sampler().samples_child(parent), true)
    }

    /// Continues a trace that came without a `traceparent`: its sender does not record it.
    pub(crate) fn follow_unsampled(trace_id: u128) -> Self {
        let sampled = sampler().samples_child(SpanContext { trace_id, span_id: 0, sampled: false });
        Self::with_new_span(trace_id, sampled, sampled)
    }

    fn with_new_span(trace_id: u128, sampled: bool, in_header: bool) -> Self {
        Self { span: SpanContext { trace_id, span_id: random_span_id(), sampled }, in_header }
    }

    /// The trace's id; never 0.
    pub(crate) fn id(&self) -> u128 {
        self.span.trace_id
    }

    /// The header `traceparent` of a message that the request causes, if it has one.
    pub(crate) fn header(&self) -> Option<String> {
        self.in_header.then(|| self.span.traceparent())
    }
}

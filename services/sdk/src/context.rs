//! The request context: request id, trace and deadline, propagated from the request being handled to every call that it
//! makes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proto::common::v1::Meta;
use tokio::time::Instant;

use crate::trace::{Span, SpanContext, SpanKind, Trace};
use crate::wire::{self, ReceivedMeta, SentMeta};

tokio::task_local! {
    static CURRENT: Context;
}

/// The timeout of requests whose sender did not set one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Metadata of the request being handled. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    request_id: String,
    trace: Trace,
    idempotency_key: Option<String>,
    deadline: Instant,
    /// What the latest failed attempt of an operation that is being repeated said.
    last_failure: Mutex<Option<String>>,
}

/// Metadata of a request from outside the fleet. Absent or malformed ids are generated.
#[derive(Clone, Copy, Debug)]
pub struct ExternalRequest<'a> {
    /// W3C `traceparent`.
    pub traceparent: Option<&'a str>,
    /// The request id.
    pub request_id: Option<&'a str>,
    /// Two requests with the same key are the same operation.
    pub idempotency_key: Option<&'a str>,
    /// How long the sender waits for the response.
    pub timeout: Duration,
}

/// The context of the request being handled; outside of a request, a new root context with the default deadline.
pub fn context() -> Context {
    current().unwrap_or_else(|| Context::root(DEFAULT_TIMEOUT))
}

pub(crate) fn current() -> Option<Context> {
    CURRENT.try_with(Context::clone).ok()
}

impl Context {
    /// The context of work that no request caused.
    pub(crate) fn root(timeout: Duration) -> Self {
        Self(Arc::new(Inner {
            request_id: hex(fastrand::u128(..)),
            trace: Trace::begin_without_request(),
            idempotency_key: None,
            deadline: Instant::now() + timeout,
            last_failure: Mutex::default(),
        }))
    }

    /// The context of a request from outside the fleet.
    pub fn external(request: ExternalRequest<'_>) -> Self {
        let parent = request.traceparent.and_then(SpanContext::parse);
        Self(Arc::new(Inner {
            request_id: request.request_id.map_or_else(|| hex(fastrand::u128(..)), str::to_owned),
            trace: parent.map_or_else(Trace::begin, Trace::follow),
            idempotency_key: request.idempotency_key.filter(|key| !key.is_empty()).map(str::to_owned),
            deadline: Instant::now() + request.timeout,
            last_failure: Mutex::default(),
        }))
    }

    /// The context of a request that came over NATS.
    pub(crate) fn received(meta: ReceivedMeta, traceparent: Option<&str>, at: Instant) -> Self {
        let timeout = match meta.timeout_ms {
            0 => DEFAULT_TIMEOUT,
            milliseconds => Duration::from_millis(milliseconds.into()),
        };
        let in_meta = || {
            let digits = std::str::from_utf8(&meta.trace_id).ok()?;
            u128::from_str_radix(digits, 16).ok().filter(|id| *id != 0)
        };
        let trace = match traceparent.and_then(SpanContext::parse) {
            Some(parent) => Trace::follow(parent),
            None => in_meta().map_or_else(Trace::begin, Trace::follow_unsampled),
        };
        let request_id = if meta.request_id.is_empty() { hex(fastrand::u128(..)) } else { meta.request_id };
        Self(Arc::new(Inner {
            request_id,
            trace,
            idempotency_key: Some(meta.idempotency_key).filter(|key| !key.is_empty()),
            deadline: at + timeout,
            last_failure: Mutex::default(),
        }))
    }

    /// The same request and trace with another idempotency key: for one of several calls that an operation makes, when the
    /// services that are called must tell them apart.
    #[must_use]
    pub fn with_idempotency_key(&self, key: impl Into<String>) -> Self {
        self.derived(Some(key.into()), self.0.deadline)
    }

    /// The same request and trace with so much time from now on: for work that goes on when the request is answered, or that
    /// must end before.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        self.derived(self.0.idempotency_key.clone(), Instant::now() + timeout)
    }

    fn derived(&self, idempotency_key: Option<String>, deadline: Instant) -> Self {
        let Inner { request_id, trace, .. } = &*self.0;
        Self(Arc::new(Inner {
            request_id: request_id.clone(),
            trace: *trace,
            idempotency_key,
            deadline,
            last_failure: Mutex::default(),
        }))
    }

    /// Runs `future` in this context: [`context`] returns it, and calls propagate it.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }

    /// Identifies one logical request, across its retries and all calls that it causes.
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// W3C trace id, 32 lower-case hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hex(self.0.trace.id())
    }

    /// W3C id of the request's own span, 16 lower-case hexadecimal digits.
    pub fn span_id(&self) -> String {
        wire::as_text(&wire::hex::<16>(self.0.trace.span_id().into())).to_owned()
    }

    /// The idempotency key that the sender set, if any.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.0.idempotency_key.as_deref()
    }

    /// Identifies a retried request: the idempotency key, or else the request id.
    pub fn operation_id(&self) -> &str {
        self.idempotency_key().unwrap_or(self.request_id())
    }

    /// When the sender stops waiting.
    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// Notes why an attempt failed that is repeated until the deadline.
    pub(crate) fn note_failure(&self, failure: String) {
        *self.0.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    /// Why the latest of the repeated attempts failed.
    pub(crate) fn last_failure(&self) -> Option<String> {
        self.0.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.0.deadline.saturating_duration_since(Instant::now())
    }

    /// Metadata for an event that this context causes.
    pub(crate) fn meta(&self) -> Meta {
        Meta {
            request_id: self.0.request_id.clone(),
            trace_id: self.trace_id(),
            timestamp: Some(SystemTime::now().into()),
            idempotency_key: self.0.idempotency_key.clone().unwrap_or_default(),
            timeout_ms: 0,
        }
    }

    /// The encoded request with the metadata of a call made in this context.
    pub(crate) fn with_meta(&self, request: &[u8], timeout: Duration) -> Bytes {
        let meta = SentMeta {
            request_id: &self.0.request_id,
            trace_id: &wire::hex(self.0.trace.id()),
            timestamp: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            idempotency_key: self.0.idempotency_key.as_deref().unwrap_or_default(),
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1),
        };
        wire::with_meta(request, meta)
    }

    /// Starts the span of the request itself, as of `start`. Everything that happens in this context is below it; so
    /// there is one.
    pub fn request_span(&self, kind: SpanKind, start: Instant) -> Span {
        self.0.trace.own_span(kind, start)
    }

    /// Starts the span of something that this context does.
    pub(crate) fn child_span(&self, kind: SpanKind) -> Span {
        self.0.trace.child_span(kind)
    }

    /// The header `traceparent` of what `span` causes: only if the trace is recorded, or came with such a header.
    pub(crate) fn traceparent(&self, span: &Span) -> Option<String> {
        self.0.trace.header(span)
    }
}

fn hex(value: u128) -> String {
    wire::as_text(&wire::hex::<32>(value)).to_owned()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::wire::RequestEnvelope;

    #[test]
    fn a_callee_reads_the_metadata_that_the_caller_sent() {
        let caller = Context::external(ExternalRequest {
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
            request_id: Some("r1"),
            idempotency_key: Some("k1"),
            timeout: Duration::from_secs(3),
        });
        let sent = RequestEnvelope::decode(caller.with_meta(&[], caller.remaining())).unwrap();
        let callee = Context::received(sent.meta.unwrap(), caller.traceparent(&Span::NONE).as_deref(), Instant::now());
        assert_eq!(callee.request_id(), "r1");
        assert_eq!(callee.idempotency_key(), Some("k1"));
        assert_eq!(callee.operation_id(), "k1");
        assert_eq!(callee.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(callee.remaining() <= Duration::from_secs(3));
        assert!(callee.remaining() > Duration::from_secs(2));
    }

    #[test]
    fn a_part_of_an_operation_has_its_own_key_and_time_and_the_same_request_and_trace() {
        let whole = Context::external(ExternalRequest {
            traceparent: None,
            request_id: Some("r1"),
            idempotency_key: Some("k1"),
            timeout: Duration::from_secs(3),
        });
        let part = whole.with_idempotency_key("k1/state");
        assert_eq!((part.idempotency_key(), part.deadline()), (Some("k1/state"), whole.deadline()));
        let longer = part.with_timeout(Duration::from_secs(60));
        assert!(longer.remaining() > Duration::from_secs(50) && longer.idempotency_key() == Some("k1/state"));
        assert_eq!((longer.request_id(), longer.trace_id()), ("r1", whole.trace_id()));
    }

    #[test]
    fn only_a_trace_that_somebody_records_or_that_came_from_outside_is_passed_on_in_a_header() {
        #[track_caller]
        fn check(traceparent: Option<&str>, flags: Option<&str>) {
            let timeout = Duration::from_secs(1);
            let caller =
                Context::external(ExternalRequest { traceparent, request_id: None, idempotency_key: None, timeout });
            let sent = RequestEnvelope::decode(caller.with_meta(&[], timeout)).unwrap().meta.unwrap();
            let callee = Context::received(sent, caller.traceparent(&Span::NONE).as_deref(), Instant::now());
            assert_eq!(callee.trace_id(), caller.trace_id());
            for context in [caller, callee] {
                let header = context.traceparent(&Span::NONE);
                assert_eq!(header.as_deref().map(|header| &header[52..]), flags, "{traceparent:?}: {header:?}");
            }
        }
        check(None, None);
        check(Some("nonsense"), None);
        check(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"), Some("-00"));
        check(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), Some("-01"));
    }
}

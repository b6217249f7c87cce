//! The request context: request id, trace and deadline, propagated from the request being handled to every call that it
//! makes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proto::common::v1::Meta;
use tokio::time::Instant;

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
    trace_id: u128,
    span_id: u64,
    sampled: bool,
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
        Self::external(ExternalRequest { traceparent: None, request_id: None, idempotency_key: None, timeout })
    }

    /// The context of a request from outside the fleet.
    pub fn external(request: ExternalRequest<'_>) -> Self {
        let (trace_id, sampled) =
            request.traceparent.and_then(parse_traceparent).unwrap_or_else(|| (random_trace_id(), true));
        Self(Arc::new(Inner {
            request_id: request.request_id.map_or_else(|| hex(fastrand::u128(..)), str::to_owned),
            trace_id,
            span_id: fastrand::u64(1..),
            sampled,
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
        let (trace_id, sampled) = traceparent
            .and_then(parse_traceparent)
            .unwrap_or_else(|| (in_meta().unwrap_or_else(random_trace_id), true));
        let request_id = if meta.request_id.is_empty() { hex(fastrand::u128(..)) } else { meta.request_id };
        Self(Arc::new(Inner {
            request_id,
            trace_id,
            span_id: fastrand::u64(1..),
            sampled,
            idempotency_key: Some(meta.idempotency_key).filter(|key| !key.is_empty()),
            deadline: at + timeout,
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
        hex(self.0.trace_id)
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
            trace_id: &wire::hex(self.0.trace_id),
            timestamp: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            idempotency_key: self.0.idempotency_key.as_deref().unwrap_or_default(),
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1),
        };
        wire::with_meta(request, meta)
    }

    /// W3C `traceparent` of a call made in this context.
    pub(crate) fn traceparent(&self) -> String {
        let mut out = String::with_capacity(55);
        out.push_str("00-");
        out.push_str(as_text(&wire::hex::<32>(self.0.trace_id)));
        out.push('-');
        out.push_str(as_text(&wire::hex::<16>(self.0.span_id.into())));
        out.push_str(if self.0.sampled { "-01" } else { "-00" });
        out
    }
}

fn hex(value: u128) -> String {
    as_text(&wire::hex::<32>(value)).to_owned()
}

/// Hexadecimal digits are ASCII.
fn as_text(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).unwrap_or_default()
}

fn random_trace_id() -> u128 {
    fastrand::u128(1..)
}

/// Trace id and sampling flag of a W3C `traceparent` (<https://www.w3.org/TR/trace-context/>).
fn parse_traceparent(value: &str) -> Option<(u128, bool)> {
    let mut parts = value.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower_hex =
        |text: &str, length| text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let well_formed = lower_hex(version, 2) && lower_hex(trace, 32) && lower_hex(span, 16) && lower_hex(flags, 2);
    // Version 00 has four fields; later ones may add some. Version ff is forbidden.
    if !well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    Some((trace_id, u8::from_str_radix(flags, 16).ok()? & 1 == 1))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::wire::RequestEnvelope;

    #[test]
    fn a_traceparent_is_parsed_by_the_w3c_rules() {
        fn check(value: &str, expected: Option<(u128, bool)>) {
            assert_eq!(parse_traceparent(value), expected, "{value}");
        }
        let id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some((id, true)));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some((id, false)));
        check("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", Some((id, true)));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", None);
        check("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None);
        check("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None);
        check("", None);
    }

    #[test]
    fn a_callee_reads_the_metadata_that_the_caller_sent() {
        let caller = Context::external(ExternalRequest {
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
            request_id: Some("r1"),
            idempotency_key: Some("k1"),
            timeout: Duration::from_secs(3),
        });
        let sent = RequestEnvelope::decode(caller.with_meta(&[], caller.remaining())).unwrap();
        let callee = Context::received(sent.meta.unwrap(), Some(&caller.traceparent()), Instant::now());
        assert_eq!(callee.request_id(), "r1");
        assert_eq!(callee.idempotency_key(), Some("k1"));
        assert_eq!(callee.operation_id(), "k1");
        assert_eq!(callee.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!callee.0.sampled);
        assert!(callee.remaining() <= Duration::from_secs(3));
        assert!(callee.remaining() > Duration::from_secs(2));
    }
}

//! The request headers with metadata: request id, idempotency key and trace.

use std::time::Duration;

use http::header::{HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Version};
use sdk::{Context, ExternalRequest};

use crate::problem::Problem;

/// The request id, in requests and responses.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Two requests with the same key are the same operation.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// What a client sends that wants to go on with a stream.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const MAX_KEY_LENGTH: usize = 255;
const MAX_REQUEST_ID_LENGTH: usize = 128;

/// The context of the request, and an error if its headers are invalid. An invalid request id or trace is replaced. An
/// invalid idempotency key is rejected, because without it a retry would be performed twice.
pub(crate) fn context(headers: &HeaderMap, timeout: Duration) -> (Context, Result<(), Problem>) {
    let key = idempotency_key(headers);
    let context = Context::external(ExternalRequest {
        traceparent: headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()),
        request_id: headers.get(REQUEST_ID).and_then(valid_id),
        idempotency_key: key.as_ref().ok().copied().flatten(),
        timeout,
    });
    (context, key.map(|_| ()))
}

/// Refuses a request without its one `Host`, which HTTP/1.1 requires (RFC 9112, section 3.2).
pub(crate) fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get_all(HOST).iter().count() {
        0 if version >= Version::HTTP_11 => Err(Problem::bad_request("header `Host` is missing")),
        0 | 1 => Ok(()),
        _ => Err(Problem::bad_request("header `Host` occurs twice")),
    }
}

/// The value of the response header.
pub(crate) fn request_id(context: &Context) -> Option<HeaderValue> {
    HeaderValue::from_str(context.request_id()).ok()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    if keys.next().is_some() {
        return Err(Problem::bad_request("header `Idempotency-Key` occurs twice"));
    }
    let visible = key.as_bytes().iter().all(u8::is_ascii_graphic);
    match key.to_str() {
        Ok(key) if visible && (1..=MAX_KEY_LENGTH).contains(&key.len()) => Ok(Some(key)),
        _ => Err(Problem::bad_request(format!(
            "header `Idempotency-Key` must be 1 to {MAX_KEY_LENGTH} visible ASCII characters"
        ))),
    }
}

fn valid_id(value: &HeaderValue) -> Option<&str> {
    let value = value.to_str().ok()?;
    let valid = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte));
    (valid && (1..=MAX_REQUEST_ID_LENGTH).contains(&value.len())).then_some(value)
}

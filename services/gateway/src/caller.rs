//! What a client says of itself in headers.

use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use sdk::{Context, Incoming};

use crate::problem::Problem;

/// Names the request, in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Two requests with the same key are one request.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const LONGEST_KEY: usize = 255;
const LONGEST_REQUEST_ID: usize = 128;

/// Whoever asks: the context of the request, and what is wrong with its headers. A request id or a trace that makes no sense
/// is replaced; a wrong idempotency key is not, because the request would be done twice.
pub(crate) fn context(headers: &HeaderMap, timeout: Duration) -> (Context, Result<(), Problem>) {
    let key = idempotency_key(headers);
    let context = Context::incoming(Incoming {
        traceparent: headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()),
        request_id: headers.get(REQUEST_ID).and_then(sane_id),
        idempotency_key: key.as_ref().ok().copied().flatten(),
        timeout,
    });
    (context, key.map(|_| ()))
}

/// What goes back to the client.
pub(crate) fn request_id(context: &Context) -> Option<HeaderValue> {
    HeaderValue::from_str(context.request_id()).ok()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    if keys.next().is_some() {
        return Err(Problem::bad_request("header `Idempotency-Key` is given twice"));
    }
    let visible = key.as_bytes().iter().all(u8::is_ascii_graphic);
    match key.to_str() {
        Ok(key) if visible && (1..=LONGEST_KEY).contains(&key.len()) => Ok(Some(key)),
        _ => Err(Problem::bad_request(format!(
            "header `Idempotency-Key` must be 1 to {LONGEST_KEY} visible ASCII characters"
        ))),
    }
}

fn sane_id(value: &HeaderValue) -> Option<&str> {
    let value = value.to_str().ok()?;
    let sane = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte));
    (sane && (1..=LONGEST_REQUEST_ID).contains(&value.len())).then_some(value)
}

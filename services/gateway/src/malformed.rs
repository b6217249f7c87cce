//! Heads that are not HTTP: hyper answers them by itself, and without a body.

use std::time::Duration;

use http::StatusCode;
use proto::rpc::Code;
use sdk::{Context, ExternalRequest};

use crate::problem::Problem;

/// The answer in place of `written`, if that is an answer of hyper's own. No error of the gateway has an empty body.
pub(crate) fn refusal(written: &[u8]) -> Option<Vec<u8>> {
    let status = written.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    let text = std::str::from_utf8(written).ok()?;
    if !text.contains("\r\ncontent-length: 0\r\n") || !text.ends_with("\r\n\r\n") {
        return None;
    }
    let (status, detail) = match status {
        b"00" => (StatusCode::BAD_REQUEST, "the head of the request is not valid HTTP/1.1"),
        b"14" => (StatusCode::URI_TOO_LONG, "the path of the request is too long"),
        b"31" => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers of the request are too large"),
        _ => return None,
    };
    let context = Context::external(ExternalRequest {
        traceparent: None,
        request_id: None,
        idempotency_key: None,
        timeout: Duration::ZERO,
    });
    let body = Problem::new(status, Code::InvalidArgument, detail).json("", &context);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\nx-request-id: {}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        context.request_id(),
        body.len()
    );
    Some([head.into_bytes(), body].concat())
}

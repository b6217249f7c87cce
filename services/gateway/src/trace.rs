//! The span of an HTTP request, with the attributes of OpenTelemetry's semantic conventions.

use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, Version};
use sdk::{Context, Span, SpanKind};
use tokio::time::Instant;

use crate::body::Body;

/// In the response to a request that is traced: the trace and the request's span in it, written as in `traceparent`.
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// Starts the span of a request that was received at `start`. `route` is the path of a known method.
pub(crate) fn start(context: &Context, head: &Parts, route: Option<&str>, start: Instant) -> Span {
    let mut span = context.request_span(SpanKind::Server, start);
    if !span.is_recorded() {
        return span;
    }
    let method = method(&head.method);
    match route {
        Some(route) => span.name(format!("{} {route}", method.unwrap_or("HTTP"))),
        None => span.name(method.unwrap_or("HTTP")),
    }
    span.set("http.request.method", method.unwrap_or("_OTHER"));
    if method.is_none() {
        span.set("http.request.method_original", head.method.to_string());
    }
    if let Some(route) = route {
        span.set("http.route", route.to_owned());
    }
    span.set("url.scheme", "http");
    span.set("url.path", head.uri.path().to_owned());
    span.set("network.protocol.version", if head.version == Version::HTTP_10 { "1.0" } else { "1.1" });
    if let Some(agent) = head.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()) {
        span.set("user_agent.original", agent.to_owned());
    }
    span
}

/// Adds the outcome, and tells the client which trace it is in.
pub(crate) fn describe_response(span: &mut Span, response: &mut Response<Body>) {
    let Some(traceparent) = span.traceparent() else { return };
    let status = response.status();
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        // What went wrong is said by the spans below.
        span.fail(status.as_str().to_owned(), "");
    }
    if let Ok(value) = HeaderValue::from_str(&traceparent) {
        response.headers_mut().insert(TRACERESPONSE, value);
    }
}

/// The methods that the conventions know.
fn method(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str())
}

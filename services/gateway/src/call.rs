//! One call of a method: validates the request, transcodes it, calls the service, and transcodes the response.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::StreamExt as _;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use proto::rpc::{Code, Error, Transport};
use sdk::{Context, reason};
use tokio::time::Instant;

use crate::body::{self, Body};
use crate::connection::ActiveRequest;
use crate::events::{Events, StreamGuards};
use crate::gateway::{Gateway, Phase};
use crate::headers;
use crate::metrics::GaugeGuard;
use crate::problem::Problem;
use crate::routes::{Permit, Route};
use crate::{trace, transcode};

/// Disables response buffering in proxies like nginx.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

impl<T: Transport> Gateway<T> {
    pub(crate) async fn call(
        self: &Arc<Self>,
        route: &Arc<Route>,
        head: &Parts,
        body: &mut Incoming,
        (active, started): (ActiveRequest, Instant),
    ) -> Response<Body> {
        let limit = if route.method.streaming { self.limits.stream } else { self.limits.request };
        let (context, headers_are_valid) = headers::context(&head.headers, limit);
        let path = head.uri.path();
        let mut span = trace::start(&context, head, Some(path), started);
        let result = match headers_are_valid {
            Ok(()) => self.try_call(route, head, body, &context, active).await,
            Err(problem) => Err(problem),
        };
        let mut response = result.unwrap_or_else(|problem| {
            if problem.status() == StatusCode::INTERNAL_SERVER_ERROR {
                tracing::warn!(method = route.method.subject, ?problem, request_id = context.request_id(), "failed");
            }
            problem.response(path, &context)
        });
        if let Some(id) = headers::request_id(&context) {
            response.headers_mut().insert(headers::REQUEST_ID, id);
        }
        trace::describe_response(&mut span, &mut response);
        match response.body_mut() {
            Body::Events(events) => events.set_span(span),
            Body::Full(_) => span.end(),
        }
        response
    }

    async fn try_call(
        self: &Arc<Self>,
        route: &Arc<Route>,
        head: &Parts,
        body: &mut Incoming,
        context: &Context,
        active: ActiveRequest,
    ) -> Result<Response<Body>, Problem> {
        if head.method != Method::POST {
            return Err(Problem::wrong_method(&head.method, "POST"));
        }
        check_content(&head.headers)?;
        if route.method.streaming && head.headers.get(headers::LAST_EVENT_ID).is_some_and(|id| !id.is_empty()) {
            return Err(Problem::bad_request("a stream cannot be resumed")
                .with_hint("send the request without the header `Last-Event-ID` to start a new stream"));
        }
        let permit = route.acquire(self.limits.route_concurrency).ok_or_else(Problem::overloaded)?;
        let deadline = Instant::now() + self.limits.request;
        let text = body::read(body, &self.limits, deadline).await?;
        let payload = transcode::to_protobuf(&self.schema, route.input, &text)
            .map_err(|bad| Problem::invalid_body(&bad, &text))?;
        if route.method.streaming {
            let guards = (permit, active, GaugeGuard::new(&self.metrics.streams));
            self.stream(route, head, payload, context, guards, deadline).await
        } else {
            self.unary(route, payload, context, permit, deadline).await
        }
    }

    async fn unary(
        &self,
        route: &Route,
        payload: Bytes,
        context: &Context,
        _permit: Permit,
        deadline: Instant,
    ) -> Result<Response<Body>, Problem> {
        let call = async { self.transport.unary(route.method, payload).await };
        let bytes = self.with_deadline(deadline, route, context.clone().scope(call)).await??;
        if let Some(error) = transcode::error_in(&bytes).map_err(unreadable)? {
            return Err(Error::from(error).into());
        }
        let json = transcode::to_json(&self.schema, route.output, &bytes).map_err(unreadable)?;
        let mut response = Response::new(Body::full(json));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    async fn stream(
        self: &Arc<Self>,
        route: &Arc<Route>,
        head: &Parts,
        payload: Bytes,
        context: &Context,
        guards: StreamGuards,
        deadline: Instant,
    ) -> Result<Response<Body>, Problem> {
        // A failure before the first message sets the HTTP status; a later one is an event.
        let start = async {
            let mut messages = self.transport.streaming(route.method, payload).await?;
            match messages.next().await {
                None => Ok(messages),
                Some(Err(error)) => Err(error),
                Some(Ok(first)) => match transcode::error_in(&first) {
                    Ok(Some(error)) => Err(error.into()),
                    Ok(None) => Ok(futures::stream::iter([Ok(first)]).chain(messages).boxed()),
                    Err(bad) => Err(Error::new(Code::DataLoss, bad.to_string())),
                },
            }
        };
        let messages = self.with_deadline(deadline, route, context.clone().scope(start)).await??;
        let end_reason = end_reason(Arc::clone(self), route, self.limits.stream);
        let events = Events::new(
            messages,
            guards,
            end_reason.boxed(),
            (Arc::clone(&self.schema), Arc::clone(route)),
            (head.uri.path().to_owned(), context.clone()),
            &self.limits,
        );
        let mut response = Response::new(Body::Events(Box::new(events)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(BUFFERING, HeaderValue::from_static("no"));
        Ok(response)
    }

    /// The result of `work`, unless the deadline passes or the gateway terminates first.
    async fn with_deadline<R>(
        &self,
        deadline: Instant,
        route: &Route,
        work: impl Future<Output = R>,
    ) -> Result<R, Error> {
        let mut phase = self.phase.subscribe();
        tokio::select! {
            biased;
            result = work => Ok(result),
            () = tokio::time::sleep_until(deadline) => Err(deadline_exceeded(route)),
            _ = phase.wait_for(|phase| *phase == Phase::Terminating) => Err(stopping()),
        }
    }
}

/// Resolves to the reason when a stream must end.
fn end_reason<T: Transport>(
    gateway: Arc<Gateway<T>>,
    route: &Route,
    time_limit: Duration,
) -> impl Future<Output = Error> + Send + 'static {
    let timed_out = deadline_exceeded(route);
    let mut phase = gateway.phase.subscribe();
    let deadline = Instant::now() + time_limit;
    async move {
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => timed_out,
            _ = phase.wait_for(|phase| *phase == Phase::Terminating) => stopping(),
        }
    }
}

fn deadline_exceeded(route: &Route) -> Error {
    Error::unavailable(format_args!("`{}` did not answer in time", route.method.subject))
        .with_detail(reason::KEY, reason::TIMEOUT)
}

fn stopping() -> Error {
    Error::unavailable("the gateway is stopping").with_detail(reason::KEY, "stopping")
}

fn unreadable(bad: transcode::InvalidMessage) -> Problem {
    Error::new(Code::DataLoss, format!("the response cannot be decoded: {bad}")).into()
}

fn check_content(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |detail: String, hint: &str| {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, detail).with_hint(hint)
    };
    // Codings are compared without regard to case, and may be a list.
    let codings =
        headers.get_all(CONTENT_ENCODING).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii);
    if let Some(coding) = codings.find(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")) {
        let coding = String::from_utf8_lossy(coding);
        return Err(unsupported(
            format!("the content encoding `{coding}` is not supported"),
            "send the body without a `Content-Encoding`",
        ));
    }
    const SEND_JSON: &str = "send JSON with the header `Content-Type: application/json`";
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    match (kinds.next(), kinds.next()) {
        (Some(_), Some(_)) => Err(unsupported("header `Content-Type` occurs twice".to_owned(), "send it once")),
        (Some(kind), None) if is_json(kind) => Ok(()),
        (Some(kind), None) => {
            let hint =
                if is_json_in_any_charset(kind) { "send the JSON as UTF-8, without a charset" } else { SEND_JSON };
            let kind = String::from_utf8_lossy(kind.as_bytes()).into_owned();
            Err(unsupported(format!("the content type `{kind}` is not supported"), hint))
        }
        (None, _) => Err(unsupported("the body has no content type".to_owned(), SEND_JSON)),
    }
}

fn is_json_in_any_charset(kind: &HeaderValue) -> bool {
    let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

fn is_json(kind: &HeaderValue) -> bool {
    if kind == "application/json" {
        return true;
    }
    let Ok(kind) = kind.to_str() else { return false };
    let mut parts = kind.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    // JSON is always UTF-8, so another charset is rejected.
    let is_utf8 = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    };
    essence.eq_ignore_ascii_case("application/json") && parts.all(is_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_recognised_with_its_parameters() {
        let check = |kind: &'static str, expected: bool| {
            assert_eq!(is_json(&HeaderValue::from_static(kind)), expected, "{kind}");
        };
        check("application/json", true);
        check("Application/JSON; charset=UTF-8", true);
        check("application/json;charset=\"utf-8\"; v=1", true);
        check("application/json; charset=latin1", false);
        check("application/jsonp", false);
        check("text/plain", false);
        check("", false);
    }
}

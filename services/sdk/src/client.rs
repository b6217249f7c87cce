//! The calling side: deadlines, retries of idempotent calls, circuit breakers, tracing.

use std::sync::Arc;
use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use futures::future::BoxFuture;
use proto::rpc::{Code, Error, Method, Stream, Transport};
use tokio::time::Instant;

use crate::breaker::Failure;
use crate::connection::Connection;
use crate::context::{self, Context};
use crate::fleet::Fleet;
use crate::inbox::Lost;
use crate::trace::{self, Span};
use crate::{reason, stream, wire};

/// How many times an idempotent call is sent at most.
const MAX_ATTEMPTS: u32 = 3;
/// The delay before the first retry.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// The longest delay before a retry.
const MAX_DELAY: Duration = Duration::from_millis(500);

impl Transport for Fleet {
    fn unary<'a>(&'a self, method: &'static Method, request: Bytes) -> BoxFuture<'a, Result<Bytes, Error>> {
        Box::pin(call(self, method, request))
    }

    fn streaming<'a>(&'a self, method: &'static Method, request: Bytes) -> BoxFuture<'a, Result<Stream<Bytes>, Error>> {
        Box::pin(async move {
            let context = current(self);
            let destination = self.destinations().of(method);
            let permit = destination.breaker.acquire()?;
            let connection = self.connection();
            let payload = context.with_meta(&request, context.remaining());
            let span = trace::client(&context, method);
            let headers = headers(&context, &span).unwrap_or_default();
            let opened = stream::open(&connection, method, payload, headers, context.deadline()).await;
            permit.record(&opened);
            destination.count(&opened);
            match opened.map_err(Error::from) {
                Ok(stream) => Ok(trace::watch_client(stream, span)),
                Err(error) => trace::end_client(span, Err(error)),
            }
        })
    }
}

async fn call(fleet: &Fleet, method: &'static Method, request: Bytes) -> Result<Bytes, Error> {
    let context = current(fleet);
    let destination = fleet.destinations().of(method);
    let attempts = if method.idempotent { MAX_ATTEMPTS } else { 1 };
    let mut delay = FIRST_DELAY;
    for attempt in 1.. {
        let attempts_left = attempts + 1 - attempt;
        let result = match destination.breaker.acquire() {
            Ok(permit) => {
                let now = Instant::now();
                // An attempt that can be retried leaves time for the retries.
                let time = context.deadline().saturating_duration_since(now) / attempts_left;
                let payload = context.with_meta(&request, time);
                let span = trace::client(&context, method);
                let headers = headers(&context, &span);
                let result = attempt_once(&fleet.connection(), method, payload, headers, now + time).await;
                permit.record(&result);
                destination.count(&result);
                trace::end_client(span, result.map_err(Error::from))
            }
            Err(open) => Err(open),
        };
        match result {
            Err(error) if attempts_left > 1 && is_transient(&error) => {
                let Some(pause) = pause(delay, &error).filter(|pause| context.remaining() > *pause) else {
                    return Err(error);
                };
                tracing::debug!(method = method.subject, %error, attempt, "retrying");
                tokio::time::sleep(pause).await;
                delay = (delay * 2).min(MAX_DELAY);
            }
            result => return result,
        }
    }
    unreachable!("the last attempt returns its result")
}

/// How long to wait before a call is sent again; `None` if its circuit stays open for longer than retries wait.
fn pause(delay: Duration, error: &Error) -> Option<Duration> {
    // Half of the delay is jitter, so that callers that failed together do not retry together.
    let pause = delay.mul_f64(0.5 + fastrand::f64() / 2.0);
    if error.detail(reason::KEY) != Some(reason::CIRCUIT_OPEN) {
        return Some(pause);
    }
    let open_for = error.detail(reason::RETRY_AFTER_MS).and_then(|text| text.parse().ok()).map(Duration::from_millis);
    open_for.filter(|open_for| *open_for <= MAX_DELAY).map(|open_for| open_for + pause)
}

async fn attempt_once(
    connection: &Arc<Connection>,
    method: &'static Method,
    payload: Bytes,
    headers: Option<HeaderMap>,
    until: Instant,
) -> Result<Bytes, Failure> {
    check_size(connection, method, &payload)?;
    let answer = connection.inbox.slot_for_one();
    let request = OutboundMessage {
        subject: Subject::from_static(method.subject),
        reply: Some(answer.subject()),
        headers,
        payload,
    };
    connection.publish(request).await.map_err(|error| interrupted(method, &error))?;
    match tokio::time::timeout_at(until, answer).await {
        Err(_) => Err(Failure::Unanswered(timeout(method))),
        Ok(Err(Lost)) => Err(Failure::Unanswered(disconnected(method))),
        Ok(Ok(message)) => response(method, message),
    }
}

/// The payload of a response, or the error that it carries.
pub(crate) fn response(method: &Method, message: Message) -> Result<Bytes, Failure> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        let error = Error::unavailable(format_args!("no service is subscribed to `{}`", method.subject));
        return Err(Failure::Unanswered(error.with_detail(reason::KEY, reason::NO_RESPONDERS)));
    }
    match wire::error_in(message.headers.as_ref(), &message.payload) {
        Some(error) => Err(Failure::Answered(error)),
        None => Ok(message.payload),
    }
}

/// Rejects a payload that is larger than the server accepts: the server would close the connection.
pub(crate) fn check_size(connection: &Connection, method: &Method, payload: &Bytes) -> Result<(), Failure> {
    let limit = connection.client.max_payload();
    if payload.len() <= limit {
        return Ok(());
    }
    Err(Failure::Unanswered(Error::invalid(format_args!(
        "request to `{}` has {} bytes, at most {limit} can be sent",
        method.subject,
        payload.len()
    ))))
}

pub(crate) fn timeout(method: &Method) -> Error {
    Error::unavailable(format_args!("`{}` did not answer in time", method.subject))
        .with_detail(reason::KEY, reason::TIMEOUT)
}

pub(crate) fn disconnected(method: &Method) -> Error {
    Error::unavailable(format_args!("the connection was lost before `{}` responded", method.subject))
        .with_detail(reason::KEY, reason::DISCONNECTED)
}

/// The request could not be sent.
pub(crate) fn interrupted(method: &Method, cause: &impl std::fmt::Display) -> Failure {
    Failure::Unanswered(disconnected(method).with_detail("cause", cause))
}

fn is_transient(error: &Error) -> bool {
    error.code() == Code::Unavailable || error.detail(reason::KEY) == Some(reason::OVERLOADED)
}

fn current(fleet: &Fleet) -> Context {
    context::current().unwrap_or_else(|| Context::root(fleet.settings().call_timeout))
}

/// The headers of a request. Most have none, and cost the server less.
fn headers(context: &Context, span: &Span) -> Option<HeaderMap> {
    context.traceparent(span).map(|traceparent| {
        let mut headers = HeaderMap::new();
        headers.insert(wire::TRACEPARENT, traceparent);
        headers
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_for(millis: u64) -> Error {
        let error = Error::unavailable("open").with_detail(reason::KEY, reason::CIRCUIT_OPEN);
        error.with_detail(reason::RETRY_AFTER_MS, millis)
    }

    /// Bytes of the future that `function` returns.
    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_call_is_small() {
        let whole = size(|fleet: &'static Fleet, method, request| call(fleet, method, request));
        assert!(whole <= 640, "{whole} bytes");
    }

    #[test]
    fn a_circuit_that_is_open_for_a_moment_is_waited_for_and_no_other() {
        let pause = |error| pause(FIRST_DELAY, &error);
        assert!(pause(open_for(100)).unwrap() >= Duration::from_millis(125));
        assert_eq!(pause(open_for(501)), None);
        assert!(pause(Error::unavailable("just now")).unwrap() <= FIRST_DELAY);
    }
}

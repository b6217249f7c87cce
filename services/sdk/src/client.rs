//! The calling side: deadline, retry of idempotent calls, circuit breaker, trace.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures::future::BoxFuture;
use proto::rpc::{Code, Error, Method, Stream, Transport};
use tokio::time::Instant;

use crate::context::{self, Context};
use crate::fleet::Fleet;
use crate::link::Link;
use crate::{reason, stream, wire};

/// An idempotent call is sent this often at most.
const ATTEMPTS: u32 = 3;
/// Before the first retry.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// Before any retry at most.
const LONGEST_DELAY: Duration = Duration::from_millis(500);

impl Transport for Fleet {
    fn unary<'a>(&'a self, method: &'static Method, request: Bytes) -> BoxFuture<'a, Result<Bytes, Error>> {
        Box::pin(call(self, method, request))
    }

    fn streaming<'a>(&'a self, method: &'static Method, request: Bytes) -> BoxFuture<'a, Result<Stream<Bytes>, Error>> {
        Box::pin(async move {
            let context = current(self);
            let destination = self.destinations().of(method);
            let pass = destination.breaker.enter(method.package)?;
            let link = self.link();
            let payload = context.with_meta(&request, context.remaining());
            let opened = stream::open(&link, method, payload, headers(&context), context.deadline()).await;
            pass.settle(&opened);
            destination.count(&opened);
            opened
        })
    }
}

async fn call(fleet: &Fleet, method: &'static Method, request: Bytes) -> Result<Bytes, Error> {
    let context = current(fleet);
    let destination = fleet.destinations().of(method);
    let attempts = if method.idempotent { ATTEMPTS } else { 1 };
    let mut delay = FIRST_DELAY;
    for attempt in 1.. {
        let pass = destination.breaker.enter(method.package)?;
        let attempts_left = attempts + 1 - attempt;
        let now = Instant::now();
        // An attempt that can be repeated leaves time for the repetition.
        let patience = context.deadline().saturating_duration_since(now) / attempts_left;
        let payload = context.with_meta(&request, patience);
        let result = attempt_once(&fleet.link(), method, payload, headers(&context), now + patience).await;
        pass.settle(&result);
        destination.count(&result);
        match result {
            Err(error) if attempts_left > 1 && is_transient(&error) => {
                // Half of the delay is jitter, so that callers that failed together do not come back together.
                let pause = delay.mul_f64(0.5 + fastrand::f64() / 2.0);
                if context.remaining() <= pause {
                    return Err(error);
                }
                tracing::debug!(method = method.subject, %error, attempt, "trying again");
                tokio::time::sleep(pause).await;
                delay = (delay * 2).min(LONGEST_DELAY);
            }
            result => return result,
        }
    }
    unreachable!("the last attempt returns its result")
}

async fn attempt_once(
    link: &Arc<Link>,
    method: &'static Method,
    payload: Bytes,
    headers: HeaderMap,
    until: Instant,
) -> Result<Bytes, Error> {
    fits(link, method, &payload)?;
    let (ticket, answer) = link.inbox.one();
    let sent = link.client.publish_with_reply_and_headers(method.subject, ticket.subject(), headers, payload).await;
    sent.map_err(|error| disconnected(method).with_detail("cause", error))?;
    match tokio::time::timeout_at(until, answer).await {
        Err(_) => Err(timeout(method)),
        Ok(Err(_)) => Err(disconnected(method)),
        Ok(Ok(message)) => read(method, message),
    }
}

/// The payload of an answer, or the error that it tells of.
pub(crate) fn read(method: &Method, message: Message) -> Result<Bytes, Error> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Error::unavailable(format_args!("nobody serves `{}`", method.subject))
            .with_detail(reason::KEY, reason::NO_RESPONDERS));
    }
    match wire::error_in(message.headers.as_ref(), &message.payload) {
        Some(error) => Err(error),
        None => Ok(message.payload),
    }
}

/// Refuses what the server would close the connection for.
pub(crate) fn fits(link: &Link, method: &Method, payload: &Bytes) -> Result<(), Error> {
    let most = link.client.max_payload();
    if payload.len() <= most {
        return Ok(());
    }
    Err(Error::invalid(format_args!(
        "request to `{}` has {} bytes, at most {most} can be sent",
        method.subject,
        payload.len()
    )))
}

pub(crate) fn timeout(method: &Method) -> Error {
    Error::unavailable(format_args!("`{}` did not answer in time", method.subject))
        .with_detail(reason::KEY, reason::TIMEOUT)
}

pub(crate) fn disconnected(method: &Method) -> Error {
    Error::unavailable(format_args!("connection broke before `{}` answered", method.subject))
        .with_detail(reason::KEY, reason::DISCONNECTED)
}

fn is_transient(error: &Error) -> bool {
    error.code() == Code::Unavailable || error.detail(reason::KEY) == Some(reason::OVERLOADED)
}

fn current(fleet: &Fleet) -> Context {
    context::current().unwrap_or_else(|| Context::root(fleet.settings().call_timeout))
}

fn headers(context: &Context) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(wire::TRACEPARENT, context.traceparent());
    headers
}

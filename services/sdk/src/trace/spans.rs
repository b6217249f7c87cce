//! The spans of the SDK itself, with the attributes of OpenTelemetry's semantic conventions: requests are rpcs over a
//! messaging system, events are messages, buckets are databases. Replies have no spans of their own.

use std::pin::Pin;
use std::task::{Context as Poller, Poll};

use bytes::Bytes;
use futures::StreamExt as _;
use proto::rpc::{Code, Error, Method, Stream};
use tokio::time::Instant;

use super::{Span, SpanKind};
use crate::context::{self, Context};

const NATS: &str = "nats";

/// A request that is being handled since `start`. `method` is `None` if the service has no such method.
pub(crate) fn server(context: &Context, method: Option<&'static Method>, start: Instant) -> Span {
    let mut span = context.request_span(SpanKind::Server, start);
    if span.is_recorded() {
        describe_rpc(&mut span, method, "process");
    }
    span
}

/// One attempt to call `method`.
pub(crate) fn client(context: &Context, method: &'static Method) -> Span {
    let mut span = context.child_span(SpanKind::Client);
    if span.is_recorded() {
        describe_rpc(&mut span, Some(method), "send");
    }
    span
}

/// Ends the span of an attempt with its result.
pub(crate) fn end_client<T>(mut span: Span, result: Result<T, Error>) -> Result<T, Error> {
    span.set_outcome(result.as_ref().err(), |_| true);
    span.end();
    result
}

/// Ends the span of a request with its error, if it has one. As for gRPC, errors that are the caller's are none of its
/// own.
pub(crate) fn end_server(mut span: Span, error: Option<&Error>) {
    span.set_outcome(error, is_server_failure);
    span.end();
}

fn is_server_failure(error: &Error) -> bool {
    use Code::{DataLoss, Internal, Unavailable, Unimplemented, Unknown};
    matches!(error.code(), Unknown | Unimplemented | Internal | Unavailable | DataLoss)
}

fn describe_rpc(span: &mut Span, method: Option<&'static Method>, operation: &'static str) {
    // The name that the conventions give to a method that the server does not know.
    let name = method.map_or("_OTHER", |method| method.full_name);
    span.name(name);
    span.set("rpc.system.name", NATS);
    span.set("rpc.method", name);
    span.set("messaging.system", NATS);
    span.set("messaging.operation.name", if operation == "send" { "request" } else { "process" });
    span.set("messaging.operation.type", operation);
    if let Some(method) = method {
        span.set("messaging.destination.name", method.subject);
    }
}

/// The publication of an event.
pub(crate) fn producer(context: &Context, subject: &'static str, id: &str, size: usize) -> Span {
    let mut span = context.child_span(SpanKind::Producer);
    if span.is_recorded() {
        describe_event(&mut span, subject, "publish", "send");
        span.set("messaging.message.id", id.to_owned());
        span.set("messaging.message.body.size", i64::try_from(size).unwrap_or(i64::MAX));
    }
    span
}

/// The handling of an event for the `attempt`th time, by one of the tasks that share `durable` or by every task.
pub(crate) fn consumer(context: &Context, subject: &str, durable: Option<&str>, attempt: u32) -> Span {
    let mut span = context.request_span(SpanKind::Consumer, Instant::now());
    if span.is_recorded() {
        describe_event(&mut span, subject, "process", "process");
        if let Some(durable) = durable {
            span.set("messaging.consumer.group.name", durable.to_owned());
        }
        span.set("messaging.nats.attempt", i64::from(attempt));
    }
    span
}

/// Names an event's span, for example `publish evt.quest.created.v1`.
fn describe_event(span: &mut Span, subject: &str, name: &'static str, operation: &'static str) {
    span.name(format!("{name} {subject}"));
    span.set("messaging.system", NATS);
    span.set("messaging.operation.name", name);
    span.set("messaging.operation.type", operation);
    span.set("messaging.destination.name", subject.to_owned());
}

/// Runs an operation on a bucket. Its key is not recorded: it may say who somebody is. Outside of a request there is no
/// span.
pub(crate) async fn storage<T, E: Failure>(
    operation: &'static str,
    bucket: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let mut span = context::current().map_or(Span::NONE, |context| context.child_span(SpanKind::Client));
    if !span.is_recorded() {
        // It is dropped here, not after the work: it has nothing to measure.
        drop(span);
        return work.await;
    }
    span.name(format!("{operation} {bucket}"));
    span.set("db.system.name", NATS);
    span.set("db.operation.name", operation);
    span.set("db.collection.name", bucket.to_owned());
    end_with(span, work.await)
}

/// Ends a span with the result of what it measures.
pub(crate) fn end_with<T, E: Failure>(mut span: Span, result: Result<T, E>) -> Result<T, E> {
    if let (Err(error), true) = (&result, span.is_recorded()) {
        let (kind, message) = error.describe();
        span.fail(kind, &message);
    }
    span.end();
    result
}

/// An error that a span can end with.
pub(crate) trait Failure {
    /// Its kind, one of few values, and what it says.
    fn describe(&self) -> (&'static str, String);
}

impl Failure for Error {
    fn describe(&self) -> (&'static str, String) {
        (self.code().as_str_name(), self.message().to_owned())
    }
}

/// A stream of responses as its caller receives it. The span ends when the stream does.
pub(crate) fn watch_client(stream: Stream<Bytes>, span: Span) -> Stream<Bytes> {
    watch(stream, span, |_| true)
}

/// A stream of responses as its handler makes it. The span ends when the stream does.
pub(crate) fn watch_server(stream: Stream<Bytes>, span: Span) -> Stream<Bytes> {
    watch(stream, span, is_server_failure)
}

fn watch(stream: Stream<Bytes>, span: Span, is_failure: fn(&Error) -> bool) -> Stream<Bytes> {
    if span.is_recorded() { Watched { stream, span: Some(span), is_failure }.boxed() } else { stream }
}

struct Watched {
    stream: Stream<Bytes>,
    span: Option<Span>,
    is_failure: fn(&Error) -> bool,
}

impl futures::Stream for Watched {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        let next = self.stream.poll_next_unpin(poller);
        let error = match &next {
            Poll::Ready(None) => None,
            Poll::Ready(Some(Err(error))) => Some(error),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => return next,
        };
        if let Some(mut span) = self.span.take() {
            span.set_outcome(error, self.is_failure);
            span.end();
        }
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        futures::Stream::size_hint(&self.stream)
    }
}

//! A stream of responses as server-sent events: messages, heartbeats, and always a last event `done` or
//! `error`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waker, Poll};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use proto::rpc::{Code, Error, Stream};
use sdk::{Context, Span};
use tokio::time::{Instant, Sleep, sleep};

use crate::connection::ActiveRequest;
use crate::limits::Limits;
use crate::metrics::GaugeGuard;
use crate::problem::Problem;
use crate::routes::{Permit, Route};
use crate::transcode::{self, Schema};

/// Available messages are sent together, up to this size.
const MAX_BATCH_BYTES: usize = 16 * 1024;

/// The resources that an open stream holds until its end.
pub(crate) type StreamGuards = (Permit, ActiveRequest, GaugeGuard);

/// The body of a streaming response.
pub(crate) struct Events {
    /// `None` at the end of the stream. Dropping the stream cancels the worker.
    messages: Option<(Stream<Bytes>, StreamGuards)>,
    /// Whether the client was sent something after it had closed its sending side.
    probed: bool,
    heartbeat: Pin<Box<Sleep>>,
    heartbeat_every: std::time::Duration,
    /// Resolves to the reason when the stream must end.
    end_reason: BoxFuture<'static, Error>,
    schema: Arc<Schema>,
    route: Arc<Route>,
    path: String,
    context: Context,
    /// The span of the request, which ends with the stream.
    span: Span,
}

impl Events {
    pub(crate) fn new(
        messages: Stream<Bytes>,
        guards: StreamGuards,
        end_reason: BoxFuture<'static, Error>,
        (schema, route): (Arc<Schema>, Arc<Route>),
        (path, context): (String, Context),
        limits: &Limits,
    ) -> Self {
        Self {
            messages: Some((messages, guards)),
            probed: false,
            heartbeat: Box::pin(sleep(limits.heartbeat)),
            heartbeat_every: limits.heartbeat,
            end_reason,
            schema,
            route,
            path,
            context,
            span: Span::NONE,
        }
    }

    /// Ends the span of the request when the stream ends.
    pub(crate) fn set_span(&mut self, span: Span) {
        self.span = span;
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.messages.is_none()
    }

    pub(crate) fn poll(&mut self, waker: &mut Waker<'_>) -> Poll<Option<Bytes>> {
        let mut out = Vec::new();
        while let Some((messages, _)) = &mut self.messages {
            if let Poll::Ready(error) = self.end_reason.as_mut().poll(waker) {
                self.fail(error, &mut out);
                break;
            }
            match messages.poll_next_unpin(waker) {
                Poll::Ready(Some(Ok(bytes))) => match self.message(&bytes, &mut out) {
                    Ok(()) if out.len() < MAX_BATCH_BYTES => {}
                    Ok(()) => break,
                    Err(error) => self.fail(error, &mut out),
                },
                Poll::Ready(Some(Err(error))) => self.fail(error, &mut out),
                Poll::Ready(None) => {
                    out.extend_from_slice(b"event: done\ndata: {}\n\n");
                    self.messages = None;
                    std::mem::replace(&mut self.span, Span::NONE).end();
                }
                Poll::Pending => break,
            }
        }
        if out.is_empty() {
            if self.messages.is_none() {
                return Poll::Ready(None);
            }
            // A client that is gone resets the connection when it receives something.
            let probe =
                !self.probed && self.messages.as_ref().is_some_and(|(_, guards)| guards.1.client.has_ended(waker));
            self.probed |= probe;
            if !probe && self.heartbeat.as_mut().poll(waker).is_pending() {
                return Poll::Pending;
            }
            out.extend_from_slice(b": heartbeat\n\n");
        }
        self.heartbeat.as_mut().reset(Instant::now() + self.heartbeat_every);
        // The timer must be polled again to register its waker.
        if self.messages.is_some() {
            let _ = self.heartbeat.as_mut().poll(waker);
        }
        Poll::Ready(Some(out.into()))
    }

    fn message(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let broken = |bad: transcode::InvalidMessage| {
            let error = Error::new(Code::DataLoss, format!("a message of the stream cannot be decoded: {bad}"));
            tracing::warn!(method = self.route.method.subject, %error, request_id = self.context.request_id(), "failed");
            error
        };
        if let Some(error) = transcode::error_in(bytes).map_err(broken)? {
            return Err(error.into());
        }
        let json = transcode::to_json(&self.schema, self.route.output, bytes).map_err(broken)?;
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&json);
        out.extend_from_slice(b"\n\n");
        Ok(())
    }

    fn fail(&mut self, error: Error, out: &mut Vec<u8>) {
        let mut span = std::mem::replace(&mut self.span, Span::NONE);
        span.fail(error.code().as_str_name(), error.message());
        span.end();
        let problem = Problem::from(error).json(&self.path, &self.context);
        out.extend_from_slice(b"event: error\ndata: ");
        out.extend_from_slice(&problem);
        out.extend_from_slice(b"\n\n");
        self.messages = None;
    }
}

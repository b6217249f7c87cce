//! The serving side: takes requests from the queue group, bounds how many run and wait, answers every one of them, drains.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Poller, Waker};
use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue, Message, Subject};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use prost::Message as _;
use proto::rpc::{Code, Error, Reply, Server};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::context::Context;
use crate::discovery::Discovery;
use crate::fleet::Fleet;
use crate::host::Stop;
use crate::link::Link;
use crate::metrics::{ServerMetrics, is_fault};
use crate::requests::Requests;
use crate::wire::{self, RequestEnvelope};
use crate::{reason, stream};

/// The share of the stop timeout in which a worker leaves its queue group; the rest is for finishing what it has taken.
const LEAVE_WITHIN: f64 = 0.4;

/// Serves until `stop` is requested, then finishes what was taken.
///
/// # Errors
/// UNAVAILABLE if the subscription cannot be made or ends by itself.
pub async fn serve<S: Server>(fleet: &Fleet, server: S, stop: Stop) -> Result<(), Error> {
    let settings = fleet.settings();
    let worker = Arc::new(Worker {
        server,
        metrics: ServerMetrics::new(S::SERVICE),
        gate: Mutex::default(),
        idle: Notify::new(),
        concurrency: settings.concurrency,
        queue: settings.queue,
    });
    let patience = settings.stop_timeout.mul_f64(LEAVE_WITHIN);
    let mut moves = fleet.moves();
    let mut session = Session::open(fleet, &worker).await?;
    fleet.takes_requests();
    tracing::info!(
        service = settings.service,
        version = settings.version,
        revision = settings.revision,
        "serving `{}`",
        S::SERVICE.subject
    );
    loop {
        tokio::select! {
            () = stop.requested() => break,
            _ = moves.changed() => {
                let next = Session::open(fleet, &worker).await?;
                std::mem::replace(&mut session, next).close(&worker, patience).await;
            }
            error = session.take(&worker) => return Err(error),
        }
    }
    session.close(&worker, patience).await;
    tracing::info!("finished");
    Ok(())
}

/// What all sessions of one worker share.
pub(crate) struct Worker<S> {
    server: S,
    pub(crate) metrics: ServerMetrics,
    gate: Mutex<Gate>,
    idle: Notify,
    concurrency: usize,
    queue: usize,
}

/// Requests that run and requests that wait.
#[derive(Default)]
struct Gate {
    running: usize,
    waiting: VecDeque<Request>,
}

/// A request and the connection that it came by.
struct Request {
    link: Arc<Link>,
    message: Message,
    at: Instant,
}

/// The subscriptions of a worker on one connection.
struct Session {
    link: Arc<Link>,
    requests: Requests,
    discovery: Discovery,
}

impl Session {
    async fn open<S: Server>(fleet: &Fleet, worker: &Arc<Worker<S>>) -> Result<Self, Error> {
        let (link, settings) = (fleet.link(), fleet.settings());
        let failed = |error: &dyn std::fmt::Display| Error::unavailable(format_args!("failed to subscribe: {error}"));
        let group = format!("svc-{}-workers", settings.service);
        let requests =
            Requests::subscribe(&link, S::SERVICE.subject, group.clone()).await.map_err(|error| failed(&error))?;
        let discovery = Discovery::answer(&link, settings, &group, S::SERVICE, Arc::clone(worker))
            .await
            .map_err(|error| failed(&error))?;
        link.client.flush().await.map_err(|error| failed(&error))?;
        Ok(Self { link, requests, discovery })
    }

    /// Takes requests as long as they come.
    async fn take<S: Server>(&mut self, worker: &Arc<Worker<S>>) -> Error {
        while let Some(message) = self.requests.next().await {
            worker.accept(Request { link: Arc::clone(&self.link), message, at: Instant::now() });
        }
        Error::unavailable("the subscription ended")
    }

    /// Lets no new request come, finishes those that have come, and then disappears from discovery.
    async fn close<S: Server>(self, worker: &Arc<Worker<S>>, patience: Duration) {
        let Self { link, requests, discovery } = self;
        let accept = |message| worker.accept(Request { link: Arc::clone(&link), message, at: Instant::now() });
        requests.run_out(patience, accept).await;
        worker.finished().await;
        if let Err(error) = link.client.flush().await {
            tracing::warn!(%error, "the last answers may not have been sent");
        }
        discovery.stop();
    }
}

impl<S: Server> Worker<S> {
    /// Starts a request, or lets it wait, or refuses it.
    fn accept(self: &Arc<Self>, request: Request) {
        let mut gate = self.gate();
        if gate.running < self.concurrency {
            gate.running += 1;
            drop(gate);
            self.start(request);
        } else if gate.waiting.len() < self.queue {
            gate.waiting.push_back(request);
        } else {
            drop(gate);
            let error = Error::new(
                Code::ResourceExhausted,
                format!("{} requests run and {} wait already", self.concurrency, self.queue),
            )
            .with_detail(reason::KEY, reason::OVERLOADED)
            .with_detail(reason::RETRY_AFTER_MS, 100);
            tokio::spawn(async move { answer_error(&request, &error).await });
        }
    }

    /// Most handlers never wait: they are finished here and now, and cost no task.
    fn start(self: &Arc<Self>, request: Request) {
        let mut work = Box::pin(Arc::clone(self).work(request));
        if work.as_mut().poll(&mut Poller::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(work);
        }
    }

    /// Handles a request and then those that wait.
    async fn work(self: Arc<Self>, request: Request) {
        let mut next = Some(request);
        while let Some(request) = next {
            self.metrics.in_flight.inc();
            self.handle(request).await;
            self.metrics.in_flight.dec();
            let mut gate = self.gate();
            next = gate.waiting.pop_front();
            if next.is_none() {
                gate.running -= 1;
                if gate.running == 0 {
                    self.idle.notify_waiters();
                }
            }
        }
    }

    async fn handle(&self, request: Request) {
        let message = &request.message;
        let headers = message.headers.as_ref();
        let operation = message.subject.rsplit('.').next().unwrap_or_default();
        let method = S::SERVICE.methods.iter().position(|known| known.name == operation);
        // A payload that is no message at all is reported when its type is known.
        let meta = RequestEnvelope::decode(message.payload.clone()).ok().and_then(|envelope| envelope.meta);
        let traceparent = headers.and_then(|headers| headers.get(wire::TRACEPARENT)).map(HeaderValue::as_str);
        let context = Context::received(meta.unwrap_or_default(), traceparent, request.at);

        let outcome = match method {
            None => Err(Error::unimplemented(S::SERVICE, operation)),
            Some(method) => context.clone().scope(self.call(method, message.payload.clone(), context.deadline())).await,
        };
        let error = match outcome {
            Ok(Reply::Message(payload)) => answer(&request, payload).await.err(),
            Ok(Reply::Stream(items)) => {
                let credit = headers
                    .and_then(|headers| headers.get(wire::STREAM_CREDIT))
                    .and_then(|value| value.as_str().parse().ok());
                let sent = context.clone().scope(send_stream(&request, credit, items));
                sent.await.err()
            }
            Err(error) => Some(error),
        };
        if let Some(error) = &error {
            report(&context, &message.subject, error).await;
            answer_error(&request, error).await;
        }
        self.metrics.answered(method.unwrap_or(usize::MAX), error.as_ref(), request.at.elapsed());
    }

    async fn call(&self, method: usize, payload: Bytes, deadline: Instant) -> Result<Reply, Error> {
        if deadline <= Instant::now() {
            return Err(late());
        }
        let called = pin!(AssertUnwindSafe(self.server.call(method, payload)).catch_unwind());
        match tokio::time::timeout_at(deadline, called).await {
            Err(_) => Err(late()),
            Ok(Ok(outcome)) => outcome.map_err(|error| error.with_detail_renamed(reason::KEY, reason::CAUSE)),
            Ok(Err(panic)) => Err(Error::internal(format_args!("the service panicked: {}", panic_message(&*panic)))),
        }
    }

    /// Waits until nothing runs.
    async fn finished(&self) {
        loop {
            let idle = self.idle.notified();
            if self.gate().running == 0 {
                return;
            }
            idle.await;
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn late() -> Error {
    Error::unavailable("the deadline passed").with_detail(reason::KEY, reason::TIMEOUT)
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

async fn report(context: &Context, subject: &Subject, error: &Error) {
    let line = async {
        if is_fault(error) {
            tracing::error!(method = %subject, %error, "request failed");
        } else {
            tracing::debug!(method = %subject, %error, "request refused");
        }
    };
    context.clone().scope(line).await;
}

async fn send_stream(
    request: &Request,
    credit: Option<u32>,
    items: futures::stream::BoxStream<'static, Result<Bytes, Error>>,
) -> Result<(), Error> {
    let Some(caller) = request.message.reply.clone() else {
        return Ok(());
    };
    // A stream that panics has failed like one that ends with an error.
    let guarded = AssertUnwindSafe(items).catch_unwind().map(|item| {
        item.unwrap_or_else(|panic| {
            Err(Error::internal(format_args!("the service panicked: {}", panic_message(&*panic))))
        })
    });
    stream::send(&request.link, caller, credit, guarded.boxed()).await
}

async fn answer(request: &Request, payload: Bytes) -> Result<(), Error> {
    let Some(caller) = request.message.reply.clone() else {
        return Ok(());
    };
    let most = request.link.client.max_payload();
    if payload.len() > most {
        return Err(Error::internal(format_args!(
            "the answer has {} bytes, at most {most} can be sent",
            payload.len()
        )));
    }
    // A connection that breaks now loses the answer whatever is done; the caller sees it and tries again.
    let _ = request.link.client.publish(caller, payload).await;
    Ok(())
}

async fn answer_error(request: &Request, error: &Error) {
    let Some(caller) = request.message.reply.clone() else {
        return;
    };
    let mut headers: HeaderMap = wire::error_headers(error);
    headers.insert(wire::STREAM_END, "error");
    let _ = request.link.client.publish_with_headers(caller, headers, wire::error_payload(error)).await;
}

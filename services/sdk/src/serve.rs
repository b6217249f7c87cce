//! The serving side: receives requests from the queue group, limits how many run and wait, answers each of them, and
//! drains.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Poller, Poll, Waker};
use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use prost::Message as _;
use proto::rpc::{Code, Error, Method, Reply, Server, Service};
use tokio::sync::Notify;
use tokio::time::Instant;

mod session;

use self::session::Session;
use crate::caller::Called;
use crate::connection::Connection;
use crate::context::Context;
use crate::fleet::Fleet;
use crate::metrics::{ServerMetrics, is_fault};
use crate::reply::AnswerTo;
use crate::task::Shutdown;
use crate::trace::{self, Span};
use crate::wire::{self, RequestEnvelope};
use crate::{panics, reason, stream};

/// The share of the stop timeout that a worker may spend leaving its queue group; the rest is for finishing accepted
/// requests.
const LEAVE_SHARE: f64 = 0.4;
/// How long before its deadline a request is ended at most, so that its answer still arrives.
const ANSWER_TIME: Duration = Duration::from_millis(50);

/// A contract that a worker serves.
pub(crate) type Contract = Arc<dyn Serving>;

/// Serves a contract until `shutdown` is requested, then finishes the requests that it has accepted.
///
/// # Errors
/// UNAVAILABLE if the subscription fails or ends unexpectedly.
pub async fn serve<S: Server>(fleet: &Fleet, server: S, shutdown: Shutdown) -> Result<(), Error> {
    serve_all(fleet, vec![contract(fleet, server)], shutdown).await
}

/// A contract with its own limits of how many requests run and wait.
pub(crate) fn contract<S: Server>(fleet: &Fleet, server: S) -> Contract {
    let settings = fleet.settings();
    Arc::new(Worker {
        server,
        metrics: Arc::new(ServerMetrics::new(S::SERVICE)),
        admission: Mutex::default(),
        idle: Notify::new(),
        concurrency: settings.concurrency,
        queue: settings.queue,
    })
}

/// Serves several contracts as [`serve`] serves one.
pub(crate) async fn serve_all(fleet: &Fleet, contracts: Vec<Contract>, shutdown: Shutdown) -> Result<(), Error> {
    let settings = fleet.settings();
    let leave_timeout = settings.stop_timeout.mul_f64(LEAVE_SHARE);
    let mut connection_changes = fleet.connection_changes();
    let mut session = Session::open(fleet, &contracts).await?;
    fleet.set_ready();
    for contract in &contracts {
        tracing::info!(
            service = settings.service,
            version = settings.version,
            revision = settings.revision,
            "serving `{}`",
            contract.service().subject
        );
    }
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            _ = connection_changes.changed() => {
                let next = Session::open(fleet, &contracts).await?;
                std::mem::replace(&mut session, next).close(leave_timeout).await;
            }
            error = session.receive() => return Err(error),
        }
    }
    session.close(leave_timeout).await;
    tracing::info!("stopped serving");
    Ok(())
}

/// What a session needs of a [`Worker`], whatever its server is.
pub(crate) trait Serving: Send + Sync {
    fn service(&self) -> &'static Service;
    fn metrics(&self) -> &Arc<ServerMetrics>;
    /// Accepts a request, queues it, or rejects it.
    fn receive(self: Arc<Self>, connection: &Arc<Connection>, message: Message);
    /// Waits until no request is running.
    fn wait_until_idle(&self) -> BoxFuture<'_, ()>;
}

/// The state that all sessions of one worker share.
pub(crate) struct Worker<S> {
    server: S,
    metrics: Arc<ServerMetrics>,
    admission: Mutex<Admission>,
    idle: Notify,
    concurrency: usize,
    queue: usize,
}

/// The requests that are running and those that are queued.
#[derive(Default)]
struct Admission {
    running: usize,
    waiting: VecDeque<Request>,
}

/// A request and the connection that it arrived on.
struct Request {
    connection: Arc<Connection>,
    message: Message,
    at: Instant,
}

impl<S: Server> Serving for Worker<S> {
    fn service(&self) -> &'static Service {
        S::SERVICE
    }

    fn metrics(&self) -> &Arc<ServerMetrics> {
        &self.metrics
    }

    fn receive(self: Arc<Self>, connection: &Arc<Connection>, message: Message) {
        // One that could not be answered, or whose answer would do something else, is not carried out.
        let called = Called::parse(S::SERVICE.subject, &message.subject);
        if message.reply.as_deref().is_some_and(|reply| called.takes_answers_on(reply)) {
            self.accept(Request { connection: Arc::clone(connection), message, at: Instant::now() });
        } else {
            self.metrics.refused.inc();
            let (method, reply) = (&*message.subject, message.reply.as_deref().unwrap_or_default());
            tracing::warn!(method, reply, "refused a request whose reply subject is no inbox of its caller");
        }
    }

    fn wait_until_idle(&self) -> BoxFuture<'_, ()> {
        let wait = async {
            loop {
                let idle = self.idle.notified();
                if self.admission().running == 0 {
                    return;
                }
                idle.await;
            }
        };
        wait.boxed()
    }
}

impl<S: Server> Worker<S> {
    /// Starts a request, queues it, or rejects it.
    fn accept(self: &Arc<Self>, request: Request) {
        let mut admission = self.admission();
        if admission.running < self.concurrency {
            admission.running += 1;
            drop(admission);
            self.start(request);
        } else if admission.waiting.len() < self.queue {
            admission.waiting.push_back(request);
        } else {
            drop(admission);
            let error = Error::new(
                Code::ResourceExhausted,
                format!("{} requests are running and {} are queued", self.concurrency, self.queue),
            )
            .with_detail(reason::KEY, reason::OVERLOADED)
            .with_detail(reason::RETRY_AFTER_MS, 100);
            let method = method::<S>(&request.message.subject);
            let mut request = request;
            tokio::spawn(async move { answer_error(&mut request, method, &error).await });
        }
    }

    /// Polls the handler once before spawning it: most handlers never wait, so they finish here and need no tokio task.
    fn start(self: &Arc<Self>, request: Request) {
        let mut work = Box::pin(Arc::clone(self).work(request));
        if work.as_mut().poll(&mut Poller::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(work);
        }
    }

    /// Handles a request and then the queued ones.
    #[expect(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice, and this is allocated")]
    fn work(self: Arc<Self>, mut request: Request) -> impl Future<Output = ()> + Send + 'static {
        async move {
            loop {
                self.metrics.in_flight.inc();
                self.handle(&mut request).await;
                self.metrics.in_flight.dec();
                let mut admission = self.admission();
                match admission.waiting.pop_front() {
                    Some(next) => request = next,
                    None => {
                        admission.running -= 1;
                        if admission.running == 0 {
                            self.idle.notify_waiters();
                        }
                        return;
                    }
                }
            }
        }
    }

    async fn handle(&self, request: &mut Request) {
        let message = &request.message;
        let headers = message.headers.as_ref();
        let called = Called::parse(S::SERVICE.subject, &message.subject);
        let method = S::SERVICE.methods.iter().position(|known| known.name == called.operation);
        // A payload that cannot be decoded is reported later, by the handler that knows its type.
        let meta = RequestEnvelope::decode(message.payload.clone()).ok().and_then(|envelope| envelope.meta);
        let traceparent = wire::header(headers, &wire::TRACEPARENT);
        let context = Context::received(meta.unwrap_or_default(), traceparent, request.at);
        let mut span = trace::server(&context, method.map(|method| &S::SERVICE.methods[method]), request.at);

        let outcome = match method {
            None => Err(Error::unimplemented(S::SERVICE, called.operation)),
            Some(method) => context.clone().scope(self.call(method, message.payload.clone(), &context)).await,
        };
        let error = match outcome {
            Ok(Reply::Message(payload)) => answer(request, payload).await.err(),
            Ok(Reply::Stream(items)) => {
                let headers = request.message.headers.as_ref();
                let items = trace::watch_server(items, std::mem::replace(&mut span, Span::NONE));
                let credit = wire::header(headers, &wire::STREAM_CREDIT).and_then(|value| value.parse().ok());
                // On the heap: most requests have no stream, and need no room for one.
                let sent = Box::pin(context.clone().scope(send_stream(request, credit, items)));
                sent.await.err()
            }
            Err(error) => Some(error),
        };
        if let Some(error) = &error {
            log_failure(&context, &request.message.subject, error).await;
            answer_error(request, method.map(|method| &S::SERVICE.methods[method]), error).await;
        }
        self.metrics.record(method.unwrap_or(usize::MAX), error.as_ref(), request.at.elapsed());
        trace::end_server(span, error.as_ref());
    }

    async fn call(&self, method: usize, payload: Bytes, context: &Context) -> Result<Reply, Error> {
        // The answer that names the cause must arrive before the caller stops waiting.
        let now = Instant::now();
        let remaining = context.deadline().saturating_duration_since(now);
        let deadline = context.deadline() - (remaining / 10).min(ANSWER_TIME);
        if deadline <= now {
            return Err(deadline_exceeded());
        }
        let mut called = pin!(AssertUnwindSafe(self.server.call(method, payload)).catch_unwind());
        let outcome = match futures::poll!(called.as_mut()) {
            Poll::Ready(outcome) => Ok(outcome),
            // Few handlers wait. Those that do need a timer, on the heap: the others need no room for one.
            Poll::Pending => Box::pin(tokio::time::timeout_at(deadline, called)).await,
        };
        match outcome {
            Err(_) => Err(match context.last_failure() {
                Some(failure) => deadline_exceeded().with_detail(reason::CAUSE, failure),
                None => deadline_exceeded(),
            }),
            Ok(Ok(outcome)) => outcome.map_err(|error| match error.detail(reason::KEY) {
                // The key is the caller's own.
                Some(reason::IDEMPOTENCY_KEY_REUSED) => error,
                _ => error.with_detail_renamed(reason::KEY, reason::CAUSE),
            }),
            Ok(Err(panic)) => Err(Error::internal(format_args!("the service panicked: {}", panics::message(&*panic)))),
        }
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn method<S: Server>(subject: &str) -> Option<&'static Method> {
    let called = Called::parse(S::SERVICE.subject, subject);
    S::SERVICE.methods.iter().find(|known| known.name == called.operation)
}

fn deadline_exceeded() -> Error {
    Error::unavailable("the deadline passed").with_detail(reason::KEY, reason::TIMEOUT)
}

async fn log_failure(context: &Context, subject: &Subject, error: &Error) {
    let line = async {
        if is_fault(error) {
            tracing::error!(method = %subject, %error, "request failed");
        } else {
            tracing::debug!(method = %subject, %error, "request rejected");
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
    // A panic in a stream is reported as an error at its end.
    let guarded = AssertUnwindSafe(items).catch_unwind().map(|item| {
        item.unwrap_or_else(|panic| {
            Err(Error::internal(format_args!("the service panicked: {}", panics::message(&*panic))))
        })
    });
    stream::send(&request.connection, caller, credit, guarded.boxed()).await
}

async fn answer(request: &mut Request, payload: Bytes) -> Result<(), Error> {
    let limit = request.connection.client.max_payload();
    if payload.len() > limit {
        return Err(Error::invalid(format_args!(
            "the response would have {} bytes, at most {limit} can be sent: ask for less at once",
            payload.len()
        )));
    }
    publish(request, None, payload).await;
    Ok(())
}

/// Answers with an error. `method` is `None` if the service has no such method.
async fn answer_error(request: &mut Request, method: Option<&Method>, error: &Error) {
    let mut headers: HeaderMap = wire::error_headers(error);
    let expects_credit = || wire::header(request.message.headers.as_ref(), &wire::STREAM_CREDIT).is_some();
    // Only a stream has an end.
    if method.map_or_else(expects_credit, |method| method.streaming) {
        headers.insert(wire::STREAM_END, "error");
    }
    publish(request, Some(headers), wire::error_payload(error)).await;
}

/// Publishes the only message of an answer. If the connection breaks now, it is lost in any case; the caller notices and
/// retries.
async fn publish(request: &mut Request, headers: Option<HeaderMap>, payload: Bytes) {
    let Some(AnswerTo { subject, token }) = request.message.reply.take().map(AnswerTo::new) else {
        return;
    };
    let answer = OutboundMessage { subject, reply: token, headers, payload };
    let _ = request.connection.publish(answer).await;
}

#[cfg(test)]
mod tests {
    use proto::ai::llm::v1::{InferRequest, InferResponse, InferStreamRequest, InferStreamResponse, Llm, LlmServer};

    use super::*;

    struct Echo;

    impl Llm for Echo {
        async fn infer(&self, request: InferRequest) -> Result<InferResponse, Error> {
            Ok(InferResponse { text: request.prompt, ..InferResponse::default() })
        }

        async fn infer_stream(&self, _: InferStreamRequest) -> Result<proto::rpc::Stream<InferStreamResponse>, Error> {
            Err(Error::invalid("unused"))
        }
    }

    /// Bytes of the future that `function` returns.
    fn size<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_adds_little_to_the_future_of_its_handler() {
        let handler = size(|server: &'static LlmServer<Echo>, request| server.call(0, request));
        let whole = size(Worker::<LlmServer<Echo>>::work);
        assert!(whole <= handler + 704, "{whole} bytes, {handler} of them the handler's");
    }
}

//! Server streaming over NATS: numbered messages, an end marker, credit-based flow control, cancellation, heartbeats.
//!
//! A caller sends its request with `Stream-Credit: N`. The worker replies to the caller's inbox with messages numbered
//! by `Stream-Seq`. The reply subject of its first message is where the caller sends `+N` (more credit) or `cancel`.
//! The last message carries `Stream-End: ok` or `error`. While there is nothing to send, the worker sends heartbeats. A
//! stream that has a gap, is idle for too long, or stops without its end marker has failed; it is never treated as
//! complete. Without `Stream-Credit`, the worker sends everything as fast as it is produced.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll, ready};
use std::time::Duration;

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use proto::rpc::{Code, Error, Method, Stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use crate::breaker;
use crate::connection::Connection;
use crate::inbox::{CANCEL, DetachedSlot};
use crate::{client, wire};

/// How many messages a caller allows in flight.
const CREDIT: u32 = 64;
/// How much credit a caller grants at a time.
const REFILL: u32 = CREDIT / 2;
/// The interval of heartbeats while a worker has nothing to send.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A stream without any message for this long has failed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream without new credit for this long is ended: the caller is gone.
const CREDIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls a streaming method and waits for the first message.
pub(crate) async fn open(
    connection: &Arc<Connection>,
    method: &'static Method,
    payload: Bytes,
    mut headers: HeaderMap,
    deadline: Instant,
) -> Result<Stream<Bytes>, breaker::Failure> {
    client::check_size(connection, method, &payload)?;
    headers.insert(wire::STREAM_CREDIT, CREDIT.to_string());
    let (slot, messages) = connection.inbox.slot_for_many();
    let subject = slot.subject();
    let mut receiver = Receiver {
        connection: Arc::clone(connection),
        method,
        slot: slot.detach(),
        messages,
        worker: None,
        next: 0,
        unacknowledged: 0,
        idle: Box::pin(tokio::time::sleep(IDLE_TIMEOUT)),
        state: State::Open,
        answered: false,
        first: None,
    };
    let sent = connection.client.publish_with_reply_and_headers(method.subject, subject, headers, payload).await;
    sent.map_err(|error| client::interrupted(method, &error))?;
    match tokio::time::timeout_at(deadline, receiver.next()).await {
        Err(_) => Err(receiver.failure(client::timeout(method))),
        Ok(Some(Err(error))) => Err(receiver.failure(error)),
        Ok(first) => {
            receiver.first = first;
            Ok(receiver.boxed())
        }
    }
}

/// The calling side of a stream.
struct Receiver {
    connection: Arc<Connection>,
    method: &'static Method,
    slot: DetachedSlot,
    messages: mpsc::UnboundedReceiver<Message>,
    /// The control subject of the worker: set by its first message.
    worker: Option<Subject>,
    next: u64,
    unacknowledged: u32,
    idle: Pin<Box<Sleep>>,
    state: State,
    /// Whether the worker sent anything, heartbeats included.
    answered: bool,
    /// The first message, which was read to see that the stream has started.
    first: Option<Result<Bytes, Error>>,
}

/// The state of a stream on the calling side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The worker has sent its last message.
    Finished,
    /// The caller has given up; the worker may still be sending.
    Abandoned,
}

/// A decoded message of a stream.
enum Part {
    Item(Bytes),
    Heartbeat,
    End,
}

/// How a stream failed.
enum Failure {
    /// The worker reported an error in its last message.
    Reported(Error),
    /// Messages were lost.
    Lost(Error),
}

impl Receiver {
    fn receive(&mut self, message: Message) -> Result<Part, Failure> {
        if self.worker.is_none() {
            self.worker = message.reply.clone().filter(|reply| is_control(reply));
        }
        let headers = message.headers.as_ref();
        if wire::header(headers, &wire::STREAM_HEARTBEAT).is_some() {
            self.answered = true;
            return Ok(Part::Heartbeat);
        }
        let sequence = wire::header(headers, &wire::STREAM_SEQUENCE).and_then(|value| value.parse::<u64>().ok());
        let is_end = wire::header(headers, &wire::STREAM_END).is_some();
        let response = client::response(self.method, message);
        self.answered |= !matches!(response, Err(breaker::Failure::Unanswered(_)));
        let payload = response.map_err(|failure| Failure::Reported(failure.into()))?;
        if sequence != Some(self.next) {
            let got =
                sequence.map_or_else(|| "a message without number".to_owned(), |number| format!("message {number}"));
            let gap = format!("stream of `{}` has a gap: {got} came in place of {}", self.method.subject, self.next);
            return Err(Failure::Lost(Error::new(Code::DataLoss, gap)));
        }
        if is_end {
            return Ok(Part::End);
        }
        self.next += 1;
        self.acknowledge();
        Ok(Part::Item(payload))
    }

    fn acknowledge(&mut self) {
        self.unacknowledged += 1;
        if self.unacknowledged == REFILL {
            self.unacknowledged = 0;
            self.send_control(Bytes::from(format!("+{REFILL}")));
        }
    }

    fn send_control(&self, what: Bytes) {
        if let Some(worker) = self.worker.clone() {
            let client = self.connection.client.clone();
            // Publishing may wait for the connection, polling must not. If this message is lost, the worker runs out of
            // credit.
            tokio::spawn(async move { client.publish(worker, what).await });
        }
    }

    /// Why the stream could not be opened.
    fn failure(&self, error: Error) -> breaker::Failure {
        if self.answered { breaker::Failure::Answered(error) } else { breaker::Failure::Unanswered(error) }
    }

    /// Ends the stream with `error`. Dropping the receiver cancels the worker, unless the worker has finished.
    fn fail(&mut self, error: Error, state: State) -> Poll<Option<Result<Bytes, Error>>> {
        self.messages.close();
        self.state = state;
        Poll::Ready(Some(Err(error)))
    }
}

impl futures::Stream for Receiver {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        while self.state == State::Open {
            match self.messages.poll_recv(poller) {
                Poll::Ready(Some(message)) => match self.receive(message) {
                    Ok(Part::Item(bytes)) => {
                        self.idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                    Ok(Part::Heartbeat) => self.idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT),
                    Ok(Part::End) => self.state = State::Finished,
                    Err(Failure::Reported(error)) => return self.fail(error, State::Finished),
                    Err(Failure::Lost(error)) => return self.fail(error, State::Abandoned),
                },
                Poll::Ready(None) => {
                    let error = client::disconnected(self.method);
                    return self.fail(error, State::Abandoned);
                }
                Poll::Pending => {
                    ready!(self.idle.as_mut().poll(poller));
                    let error = client::timeout(self.method);
                    return self.fail(error, State::Abandoned);
                }
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.state != State::Finished && self.worker.is_none() {
            self.slot.cancel(&self.connection.inbox);
            return;
        }
        self.slot.release(&self.connection.inbox);
        if self.state != State::Finished {
            self.send_control(CANCEL);
        }
    }
}

/// The serving side of a stream: sends `items` to `caller`. Returns when all are sent or the caller is gone.
pub(crate) async fn send(
    connection: &Arc<Connection>,
    caller: Subject,
    credit: Option<u32>,
    mut items: BoxStream<'static, Result<Bytes, Error>>,
) -> Result<(), Error> {
    let (slot, mut control) = connection.controls.slot_for_many();
    let control_subject = slot.subject();
    // Without flow control the credit is unlimited.
    let mut credit = credit.unwrap_or(u32::MAX);
    let unlimited = credit == u32::MAX;
    let mut sequence: u64 = 0;
    let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    let mut last_credit = Instant::now();
    loop {
        tokio::select! {
            biased;
            message = control.recv() => match message.as_ref().and_then(|message| parse_credit(&message.payload)) {
                Some(more) => {
                    credit = credit.saturating_add(more);
                    last_credit = Instant::now();
                }
                // Cancelled, disconnected, or malformed: in each case the caller no longer reads.
                None => return Ok(()),
            },
            item = items.next(), if credit > 0 => {
                let mut headers = HeaderMap::new();
                headers.insert(wire::STREAM_SEQUENCE, sequence.to_string());
                let (payload, ended) = match item {
                    Some(Ok(payload)) if payload.len() <= connection.client.max_payload() => (payload, false),
                    Some(Ok(payload)) => {
                        let size = payload.len();
                        let error = Error::internal(format_args!(
                            "message {sequence} of the stream has {size} bytes, too many to send"
                        ));
                        (end_with_error(&mut headers, &error), true)
                    }
                    Some(Err(error)) => (end_with_error(&mut headers, &error), true),
                    None => {
                        headers.insert(wire::STREAM_END, "ok");
                        (Bytes::new(), true)
                    }
                };
                publish(connection, &caller, &control_subject, headers, payload).await?;
                if ended {
                    return Ok(());
                }
                sequence += 1;
                heartbeat.reset();
                if !unlimited {
                    credit -= 1;
                    if credit == 0 {
                        last_credit = Instant::now();
                    }
                }
            }
            _ = heartbeat.tick() => {
                if credit == 0 && last_credit.elapsed() > CREDIT_TIMEOUT {
                    return Err(Error::unavailable("the caller of the stream stopped granting credit"));
                }
                let mut headers = HeaderMap::new();
                headers.insert(wire::STREAM_HEARTBEAT, "1");
                publish(connection, &caller, &control_subject, headers, Bytes::new()).await?;
            }
        }
    }
}

async fn publish(
    connection: &Connection,
    caller: &Subject,
    control: &Subject,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<(), Error> {
    let sent =
        connection.client.publish_with_reply_and_headers(caller.clone(), control.clone(), headers, payload).await;
    sent.map_err(|error| Error::unavailable(format_args!("the stream was interrupted: {error}")))
}

fn end_with_error(headers: &mut HeaderMap, error: &Error) -> Bytes {
    for (name, values) in wire::error_headers(error).iter() {
        for value in values {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers.insert(wire::STREAM_END, "error");
    wire::error_payload(error)
}

/// Whether a worker may ask for control messages on this subject: a caller publishes there with its own rights.
pub(crate) fn is_control(reply: &str) -> bool {
    reply.starts_with("_STREAM_")
}

fn parse_credit(payload: &[u8]) -> Option<u32> {
    std::str::from_utf8(payload.strip_prefix(b"+")?).ok()?.parse().ok()
}

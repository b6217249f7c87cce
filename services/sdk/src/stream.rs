//! Server streaming over NATS: numbered messages, an end mark, credit as flow control, cancel, heartbeats.
//!
//! A caller sends its request with `Stream-Credit: N`. The worker answers to the caller's inbox with messages numbered by
//! `Stream-Seq`; its first message carries as reply subject where the caller sends `+N` (more credit) or `cancel`. The last
//! message carries `Stream-End: ok` or `error`. While there is nothing to send the worker sends heartbeats. A stream without its end
//! mark, with a gap, or silent for too long has failed: it never reads as a success. A caller that sends no `Stream-Credit` gets
//! everything as fast as it comes.

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

use crate::inbox::{CANCEL, Place};
use crate::link::Link;
use crate::{client, wire};

/// What a caller allows to be on its way.
const CREDIT: u32 = 64;
/// A caller gives new credit in portions of this size.
const REFILL: u32 = CREDIT / 2;
/// A worker that has nothing to send says so this often.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A worker that was silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);
/// A caller that gave no credit for so long is gone.
const NO_CREDIT: Duration = Duration::from_secs(30);

/// Calls a streaming method and waits for the first message.
pub(crate) async fn open(
    link: &Arc<Link>,
    method: &'static Method,
    payload: Bytes,
    mut headers: HeaderMap,
    deadline: Instant,
) -> Result<Stream<Bytes>, Error> {
    client::fits(link, method, &payload)?;
    headers.insert(wire::STREAM_CREDIT, CREDIT.to_string());
    let (ticket, messages) = link.inbox.many();
    let subject = ticket.subject();
    let mut incoming = Incoming {
        link: Arc::clone(link),
        method,
        place: ticket.keep(),
        messages,
        worker: None,
        next: 0,
        unacknowledged: 0,
        silence: Box::pin(tokio::time::sleep(SILENCE)),
        state: State::Open,
        first: None,
    };
    let sent = link.client.publish_with_reply_and_headers(method.subject, subject, headers, payload).await;
    sent.map_err(|error| client::disconnected(method).with_detail("cause", error))?;
    match tokio::time::timeout_at(deadline, incoming.next()).await {
        Err(_) => Err(client::timeout(method)),
        Ok(Some(Err(error))) => Err(error),
        Ok(first) => {
            incoming.first = first;
            Ok(incoming.boxed())
        }
    }
}

/// The caller's end.
struct Incoming {
    link: Arc<Link>,
    method: &'static Method,
    place: Place,
    messages: mpsc::UnboundedReceiver<Message>,
    /// Where credit and cancel go, as soon as the worker has shown itself.
    worker: Option<Subject>,
    next: u64,
    unacknowledged: u32,
    silence: Pin<Box<Sleep>>,
    state: State,
    /// What was read to see that the stream has begun.
    first: Option<Result<Bytes, Error>>,
}

/// How far a stream is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The worker has said its last word.
    Finished,
    /// The caller has given up; the worker may not know it yet.
    Abandoned,
}

/// What one message means.
enum Part {
    Item(Bytes),
    Heartbeat,
    End,
}

/// Who failed.
enum Failure {
    /// The worker says so itself: that was its last message.
    OfWorker(Error),
    /// Messages got lost.
    OfStream(Error),
}

impl Incoming {
    fn receive(&mut self, message: Message) -> Result<Part, Failure> {
        if self.worker.is_none() {
            self.worker.clone_from(&message.reply);
        }
        let headers = message.headers.as_ref();
        if headers.is_some_and(|headers| headers.get(wire::STREAM_HEARTBEAT).is_some()) {
            return Ok(Part::Heartbeat);
        }
        let sequence = headers
            .and_then(|headers| headers.get(wire::STREAM_SEQUENCE))
            .and_then(|value| value.as_str().parse::<u64>().ok());
        let is_end = headers.is_some_and(|headers| headers.get(wire::STREAM_END).is_some());
        let payload = client::read(self.method, message).map_err(Failure::OfWorker)?;
        if sequence != Some(self.next) {
            let got =
                sequence.map_or_else(|| "a message without number".to_owned(), |number| format!("message {number}"));
            let gap = format!("stream of `{}` has a gap: {got} came in place of {}", self.method.subject, self.next);
            return Err(Failure::OfStream(Error::new(Code::DataLoss, gap)));
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
            self.tell(Bytes::from(format!("+{REFILL}")));
        }
    }

    fn tell(&self, what: Bytes) {
        if let Some(worker) = self.worker.clone() {
            let client = self.link.client.clone();
            // Sending may wait for the connection; polling may not. What is not sent makes the worker stop for want of credit.
            tokio::spawn(async move { client.publish(worker, what).await });
        }
    }

    /// Ends with `error`. The worker is told when this is dropped, unless it was the worker's own error.
    fn fail(&mut self, error: Error, state: State) -> Poll<Option<Result<Bytes, Error>>> {
        self.messages.close();
        self.state = state;
        Poll::Ready(Some(Err(error)))
    }
}

impl futures::Stream for Incoming {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        while self.state == State::Open {
            match self.messages.poll_recv(poller) {
                Poll::Ready(Some(message)) => match self.receive(message) {
                    Ok(Part::Item(bytes)) => {
                        self.silence.as_mut().reset(Instant::now() + SILENCE);
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                    Ok(Part::Heartbeat) => self.silence.as_mut().reset(Instant::now() + SILENCE),
                    Ok(Part::End) => self.state = State::Finished,
                    Err(Failure::OfWorker(error)) => return self.fail(error, State::Finished),
                    Err(Failure::OfStream(error)) => return self.fail(error, State::Abandoned),
                },
                Poll::Ready(None) => {
                    let error = client::disconnected(self.method);
                    return self.fail(error, State::Abandoned);
                }
                Poll::Pending => {
                    ready!(self.silence.as_mut().poll(poller));
                    let error = Error::unavailable(format_args!("stream of `{}` fell silent", self.method.subject));
                    return self.fail(error, State::Abandoned);
                }
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.state != State::Finished && self.worker.is_none() {
            self.place.cancel(&self.link.inbox);
            return;
        }
        self.place.release(&self.link.inbox);
        if self.state != State::Finished {
            self.tell(CANCEL);
        }
    }
}

/// The worker's end: sends what `items` yields to `caller`. Returns when everything is sent or the caller has gone.
pub(crate) async fn send(
    link: &Arc<Link>,
    caller: Subject,
    credit: Option<u32>,
    mut items: BoxStream<'static, Result<Bytes, Error>>,
) -> Result<(), Error> {
    let (ticket, mut control) = link.inbox.many();
    let control_subject = Subject::from(ticket.subject());
    // Without flow control there is no end of credit.
    let mut credit = credit.unwrap_or(u32::MAX);
    let unlimited = credit == u32::MAX;
    let mut sequence: u64 = 0;
    let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    let mut last_credit = Instant::now();
    loop {
        tokio::select! {
            biased;
            told = control.recv() => match told.as_ref().and_then(|message| parse_credit(&message.payload)) {
                Some(more) => {
                    credit = credit.saturating_add(more);
                    last_credit = Instant::now();
                }
                // Cancelled, or the connection broke, or nonsense: either way nobody reads on.
                None => return Ok(()),
            },
            item = items.next(), if credit > 0 => {
                let mut headers = HeaderMap::new();
                headers.insert(wire::STREAM_SEQUENCE, sequence.to_string());
                let (payload, ended) = match item {
                    Some(Ok(payload)) if payload.len() <= link.client.max_payload() => (payload, false),
                    Some(Ok(payload)) => {
                        let error = Error::internal(format_args!("message {sequence} of the stream has {} bytes, too many to send", payload.len()));
                        (end_with_error(&mut headers, &error), true)
                    }
                    Some(Err(error)) => (end_with_error(&mut headers, &error), true),
                    None => {
                        headers.insert(wire::STREAM_END, "ok");
                        (Bytes::new(), true)
                    }
                };
                publish(link, &caller, &control_subject, headers, payload).await?;
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
                if credit == 0 && last_credit.elapsed() > NO_CREDIT {
                    return Err(Error::unavailable("the caller of a stream gave no credit any more"));
                }
                let mut headers = HeaderMap::new();
                headers.insert(wire::STREAM_HEARTBEAT, "1");
                publish(link, &caller, &control_subject, headers, Bytes::new()).await?;
            }
        }
    }
}

async fn publish(
    link: &Link,
    caller: &Subject,
    control: &Subject,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<(), Error> {
    let sent = link.client.publish_with_reply_and_headers(caller.clone(), control.clone(), headers, payload).await;
    sent.map_err(|error| Error::unavailable(format_args!("stream broke: {error}")))
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

fn parse_credit(payload: &[u8]) -> Option<u32> {
    std::str::from_utf8(payload.strip_prefix(b"+")?).ok()?.parse().ok()
}

//! One inbox subscription per connection for all answers. It replaces the client library's own multiplexer, which costs a
//! quarter of the throughput, and can carry streams.

use std::sync::{Mutex, PoisonError};

use async_nats::{Message, Subject};
use bytes::Bytes;
use slab::Slab;
use tokio::sync::{mpsc, oneshot};

/// Waiters by the last token of their subject.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Ends with a dot.
    prefix: String,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    waiting: Slab<(u32, Waiter)>,
    generation: u32,
}

#[derive(Debug)]
enum Waiter {
    One(oneshot::Sender<Message>),
    Many(mpsc::UnboundedSender<Message>),
    /// A stream that was given up before its worker was known: the first message tells whom to cancel.
    Cancelled,
}

/// Where an answer is expected. Dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    inbox: &'a Inbox,
    key: usize,
    generation: u32,
    keep: bool,
}

/// What the connection must do about a message that nobody waits for any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Undelivered {
    /// Nothing: its caller has gone.
    Ignore,
    /// Tell the worker behind this subject to stop streaming.
    Cancel(Subject),
}

impl Inbox {
    /// `prefix` has no trailing dot.
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}."), slots: Mutex::default() }
    }

    /// The subject to subscribe to.
    pub(crate) fn wildcard(&self) -> String {
        format!("{}*", self.prefix)
    }

    /// A place for one answer.
    pub(crate) fn one(&self) -> (Ticket<'_>, oneshot::Receiver<Message>) {
        let (sender, receiver) = oneshot::channel();
        (self.insert(Waiter::One(sender)), receiver)
    }

    /// A place for any number of messages.
    pub(crate) fn many(&self) -> (Ticket<'_>, mpsc::UnboundedReceiver<Message>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (self.insert(Waiter::Many(sender)), receiver)
    }

    fn insert(&self, waiter: Waiter) -> Ticket<'_> {
        let mut slots = self.lock();
        slots.generation = slots.generation.wrapping_add(1);
        let generation = slots.generation;
        let key = slots.waiting.insert((generation, waiter));
        Ticket { inbox: self, key, generation, keep: false }
    }

    /// Hands a message to who waits for it.
    pub(crate) fn deliver(&self, message: Message) -> Undelivered {
        let Some((key, generation)) = message.subject.strip_prefix(self.prefix.as_str()).and_then(parse_token) else {
            return Undelivered::Ignore;
        };
        let mut slots = self.lock();
        match slots.waiting.get(key) {
            Some((stored, waiter)) if *stored == generation => match waiter {
                Waiter::One(_) => {
                    if let (_, Waiter::One(sender)) = slots.waiting.remove(key) {
                        // The caller may have given up at this moment.
                        let _ = sender.send(message);
                    }
                    Undelivered::Ignore
                }
                Waiter::Many(sender) => {
                    let _ = sender.send(message);
                    Undelivered::Ignore
                }
                Waiter::Cancelled => {
                    slots.waiting.remove(key);
                    message.reply.map_or(Undelivered::Ignore, Undelivered::Cancel)
                }
            },
            _ => Undelivered::Ignore,
        }
    }

    /// Gives up on all answers that are on their way: the connection that they would have come by is gone.
    pub(crate) fn fail_all(&self) {
        self.lock().waiting.clear();
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn release(&self, key: usize, generation: u32, replacement: Option<Waiter>) {
        let mut slots = self.lock();
        if slots.waiting.get(key).is_some_and(|(stored, _)| *stored == generation) {
            match replacement {
                Some(waiter) => slots.waiting[key].1 = waiter,
                None => {
                    slots.waiting.remove(key);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket<'_> {
    /// The subject to answer to.
    pub(crate) fn subject(&self) -> String {
        format!("{}{:x}-{:x}", self.inbox.prefix, self.key, self.generation)
    }

    /// Keeps the place after this ticket is gone, until [`Place::release`].
    pub(crate) fn keep(mut self) -> Place {
        self.keep = true;
        Place { key: self.key, generation: self.generation }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.inbox.release(self.key, self.generation, None);
        }
    }
}

/// A place that outlives its ticket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    key: usize,
    generation: u32,
}

impl Place {
    /// Gives the place up.
    pub(crate) fn release(self, inbox: &Inbox) {
        inbox.release(self.key, self.generation, None);
    }

    /// Gives the place up, and cancels the worker as soon as it shows itself.
    pub(crate) fn cancel(self, inbox: &Inbox) {
        inbox.release(self.key, self.generation, Some(Waiter::Cancelled));
    }
}

/// What a caller tells the worker of a stream.
pub(crate) const CANCEL: Bytes = Bytes::from_static(b"cancel");

fn parse_token(token: &str) -> Option<(usize, u32)> {
    let (key, generation) = token.split_once('-')?;
    Some((usize::from_str_radix(key, 16).ok()?, u32::from_str_radix(generation, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str, reply: Option<&str>) -> Message {
        Message {
            subject: subject.into(),
            reply: reply.map(Into::into),
            payload: Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn an_answer_reaches_only_the_call_that_waits_for_it() {
        let inbox = Inbox::new("_INBOX_a.1");
        let (first, mut first_answer) = inbox.one();
        let late = first.subject();
        drop(first);
        let (second, mut second_answer) = inbox.one();
        inbox.deliver(message(&late, None));
        assert!(first_answer.try_recv().is_err());
        assert!(second_answer.try_recv().is_err());
        inbox.deliver(message(&second.subject(), None));
        assert!(second_answer.try_recv().is_ok());
        drop(second);
        assert_eq!(inbox.waiting(), 0);
    }

    #[test]
    fn a_stream_given_up_early_is_cancelled_when_its_worker_shows_itself() {
        let inbox = Inbox::new("_INBOX_a.1");
        let (ticket, _messages) = inbox.many();
        let subject = ticket.subject();
        ticket.keep().cancel(&inbox);
        assert_eq!(inbox.deliver(message(&subject, Some("worker"))), Undelivered::Cancel("worker".into()));
        assert_eq!(inbox.deliver(message(&subject, Some("worker"))), Undelivered::Ignore);
        assert_eq!(inbox.waiting(), 0);
    }
}

//! One inbox subscription per connection for all replies. It replaces the client library's own multiplexer, which costs
//! a quarter of the throughput, and supports streams.

use std::sync::{Mutex, PoisonError};

use async_nats::{Message, Subject};
use bytes::Bytes;
use slab::Slab;
use tokio::sync::{mpsc, oneshot};

use crate::stream;

/// The calls that wait for replies, by the last token of their reply subject.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Ends with a dot.
    prefix: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Slab<(u32, Waiter)>,
    generation: u32,
}

#[derive(Debug)]
enum Waiter {
    One(oneshot::Sender<Message>),
    Many(mpsc::UnboundedSender<Message>),
    /// A stream whose caller gave up before the first message: that message names the worker to cancel.
    Cancelled,
}

/// A registered reply subject. Dropping it removes the registration.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    inbox: &'a Inbox,
    key: usize,
    generation: u32,
    detached: bool,
}

/// What to do about a message whose caller no longer waits for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Undelivered {
    /// Nothing: the caller is gone.
    Ignore,
    /// Ask the worker on this subject to stop streaming.
    Cancel(Subject),
}

impl Inbox {
    /// `prefix` has no trailing dot.
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}."), state: Mutex::default() }
    }

    /// The subject to subscribe to.
    pub(crate) fn wildcard(&self) -> String {
        format!("{}*", self.prefix)
    }

    /// Registers a reply subject for one message.
    pub(crate) fn slot_for_one(&self) -> (Slot<'_>, oneshot::Receiver<Message>) {
        let (sender, receiver) = oneshot::channel();
        (self.insert(Waiter::One(sender)), receiver)
    }

    /// Registers a reply subject for any number of messages.
    pub(crate) fn slot_for_many(&self) -> (Slot<'_>, mpsc::UnboundedReceiver<Message>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (self.insert(Waiter::Many(sender)), receiver)
    }

    fn insert(&self, waiter: Waiter) -> Slot<'_> {
        let mut state = self.lock();
        state.generation = state.generation.wrapping_add(1);
        let generation = state.generation;
        let key = state.waiting.insert((generation, waiter));
        Slot { inbox: self, key, generation, detached: false }
    }

    /// Delivers a message to the call that waits for it.
    pub(crate) fn deliver(&self, message: Message) -> Undelivered {
        let Some((key, generation)) = message.subject.strip_prefix(self.prefix.as_str()).and_then(parse_token) else {
            return Undelivered::Ignore;
        };
        let mut state = self.lock();
        match state.waiting.get(key) {
            Some((stored, waiter)) if *stored == generation => match waiter {
                Waiter::One(_) => {
                    if let (_, Waiter::One(sender)) = state.waiting.remove(key) {
                        // The caller may have given up in the meantime.
                        let _ = sender.send(message);
                    }
                    Undelivered::Ignore
                }
                Waiter::Many(sender) => {
                    let _ = sender.send(message);
                    Undelivered::Ignore
                }
                Waiter::Cancelled => {
                    state.waiting.remove(key);
                    message
                        .reply
                        .filter(|reply| stream::is_control(reply))
                        .map_or(Undelivered::Ignore, Undelivered::Cancel)
                }
            },
            _ => Undelivered::Ignore,
        }
    }

    /// Fails all waiting calls: the connection that would have delivered their replies is lost.
    pub(crate) fn fail_all(&self) {
        self.lock().waiting.clear();
    }

    /// The number of waiting calls.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn release(&self, key: usize, generation: u32, replacement: Option<Waiter>) {
        let mut state = self.lock();
        if state.waiting.get(key).is_some_and(|(stored, _)| *stored == generation) {
            match replacement {
                Some(waiter) => state.waiting[key].1 = waiter,
                None => {
                    state.waiting.remove(key);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot<'_> {
    /// The reply subject.
    pub(crate) fn subject(&self) -> String {
        format!("{}{:x}-{:x}", self.inbox.prefix, self.key, self.generation)
    }

    /// Keeps the registration after this slot is dropped, until [`DetachedSlot::release`].
    pub(crate) fn detach(mut self) -> DetachedSlot {
        self.detached = true;
        DetachedSlot { key: self.key, generation: self.generation }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if !self.detached {
            self.inbox.release(self.key, self.generation, None);
        }
    }
}

/// A registration that is removed explicitly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DetachedSlot {
    key: usize,
    generation: u32,
}

impl DetachedSlot {
    /// Removes the registration.
    pub(crate) fn release(self, inbox: &Inbox) {
        inbox.release(self.key, self.generation, None);
    }

    /// Replaces the registration by one that cancels the worker with its first message.
    pub(crate) fn cancel(self, inbox: &Inbox) {
        inbox.release(self.key, self.generation, Some(Waiter::Cancelled));
    }
}

/// The control message by which a caller cancels a stream.
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
    fn a_reply_reaches_only_the_call_that_waits_for_it() {
        let inbox = Inbox::new("_INBOX_a.1");
        let (first, mut first_answer) = inbox.slot_for_one();
        let late = first.subject();
        drop(first);
        let (second, mut second_answer) = inbox.slot_for_one();
        inbox.deliver(message(&late, None));
        assert!(first_answer.try_recv().is_err());
        assert!(second_answer.try_recv().is_err());
        inbox.deliver(message(&second.subject(), None));
        assert!(second_answer.try_recv().is_ok());
        drop(second);
        assert_eq!(inbox.waiting(), 0);
    }

    #[test]
    fn a_stream_abandoned_early_is_cancelled_with_its_first_message() {
        let inbox = Inbox::new("_INBOX_a.1");
        let (slot, _messages) = inbox.slot_for_many();
        let subject = slot.subject();
        slot.detach().cancel(&inbox);
        assert_eq!(
            inbox.deliver(message(&subject, Some("_STREAM_llm.1.2"))),
            Undelivered::Cancel("_STREAM_llm.1.2".into())
        );
        assert_eq!(inbox.deliver(message(&subject, Some("_STREAM_llm.1.2"))), Undelivered::Ignore);
        assert_eq!(inbox.waiting(), 0);
    }
}

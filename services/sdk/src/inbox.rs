//! One inbox subscription per connection for all replies. It replaces the client library's own multiplexer, which costs
//! a quarter of the throughput, and supports streams.

use std::mem;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context as Poller, Poll, Waker};

use async_nats::{Message, Subject};
use bytes::Bytes;
use slab::Slab;
use tokio::sync::mpsc;

use crate::reply::{self, CallToken, CallTokens};
use crate::stream;

/// The calls that wait for replies, by the slot and the token in their reply subject.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Ends with a dot.
    prefix: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Slab<(CallToken, Waiter)>,
    tokens: CallTokens,
}

#[derive(Debug)]
enum Waiter {
    /// A call for one message.
    One(Waker),
    /// The message of such a call, which has not taken it yet.
    Answered(Message),
    Many(mpsc::UnboundedSender<Message>),
    /// A stream whose caller gave up before the first message: that message names the worker to cancel.
    Cancelled,
}

/// A registered reply subject. Dropping it removes the registration.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    inbox: &'a Inbox,
    key: usize,
    token: CallToken,
    /// Whether the registration outlasts this value, or is gone already.
    detached: bool,
}

/// Waits for the message to a slot that was registered for one.
#[derive(Debug)]
pub(crate) struct Answer<'a>(Slot<'a>);

/// The connection was lost that the message would have come on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost;

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
        format!("{}>", self.prefix)
    }

    /// Registers a reply subject for one message.
    pub(crate) fn slot_for_one(&self) -> Answer<'_> {
        Answer(self.insert(Waiter::One(Waker::noop().clone())))
    }

    /// Registers a reply subject for any number of messages.
    pub(crate) fn slot_for_many(&self) -> (Slot<'_>, mpsc::UnboundedReceiver<Message>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (self.insert(Waiter::Many(sender)), receiver)
    }

    fn insert(&self, waiter: Waiter) -> Slot<'_> {
        let mut state = self.lock();
        let token = state.tokens.next();
        let key = state.waiting.insert((token, waiter));
        Slot { inbox: self, key, token, detached: false }
    }

    /// Delivers a message to the call that waits for it.
    pub(crate) fn deliver(&self, message: Message) -> Undelivered {
        let to = message.subject.strip_prefix(self.prefix.as_str());
        let Some((key, token)) = to.and_then(|to| reply::parse_answer(to, message.reply.as_deref())) else {
            return Undelivered::Ignore;
        };
        let mut state = self.lock();
        let Some(waiter) = state.waiter(key, token) else {
            return Undelivered::Ignore;
        };
        match waiter {
            Waiter::One(_) => {
                if let Waiter::One(waker) = mem::replace(waiter, Waiter::Answered(message)) {
                    drop(state);
                    waker.wake();
                }
            }
            // The first answer counts.
            Waiter::Answered(_) => {}
            Waiter::Many(sender) => {
                // The caller may have given up in the meantime.
                let _ = sender.send(message);
            }
            Waiter::Cancelled => {
                state.waiting.remove(key);
                let worker = message.reply.filter(|reply| stream::is_control(reply));
                return worker.map_or(Undelivered::Ignore, Undelivered::Cancel);
            }
        }
        Undelivered::Ignore
    }

    /// Fails all waiting calls: the connection that would have delivered their replies is lost.
    pub(crate) fn fail_all(&self) {
        let failed: Vec<_> = self.lock().waiting.drain().collect();
        for (_, waiter) in failed {
            if let Waiter::One(waker) = waiter {
                waker.wake();
            }
        }
    }

    /// The number of waiting calls.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn release(&self, key: usize, token: CallToken, replacement: Option<Waiter>) {
        let mut state = self.lock();
        let Some(waiter) = state.waiter(key, token) else { return };
        match replacement {
            Some(replacement) => *waiter = replacement,
            None => {
                state.waiting.remove(key);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whoever waits in this slot, if it is still the call with this token.
    fn waiter(&mut self, key: usize, token: CallToken) -> Option<&mut Waiter> {
        self.waiting.get_mut(key).filter(|(stored, _)| *stored == token).map(|(_, waiter)| waiter)
    }
}

impl Slot<'_> {
    /// The reply subject.
    pub(crate) fn subject(&self) -> Subject {
        reply::reply_subject(&self.inbox.prefix, self.key, self.token)
    }

    /// Keeps the registration after this slot is dropped, until [`DetachedSlot::release`].
    pub(crate) fn detach(mut self) -> DetachedSlot {
        self.detached = true;
        DetachedSlot { key: self.key, token: self.token }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if !self.detached {
            self.inbox.release(self.key, self.token, None);
        }
    }
}

impl Answer<'_> {
    /// The reply subject.
    pub(crate) fn subject(&self) -> Subject {
        self.0.subject()
    }
}

impl Future for Answer<'_> {
    type Output = Result<Message, Lost>;

    fn poll(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Self::Output> {
        let slot = &mut self.0;
        let mut state = slot.inbox.lock();
        match state.waiter(slot.key, slot.token) {
            Some(Waiter::One(waker)) => {
                waker.clone_from(poller.waker());
                return Poll::Pending;
            }
            Some(_) => {}
            None => return Poll::Ready(Err(Lost)),
        }
        slot.detached = true;
        match state.waiting.remove(slot.key) {
            (_, Waiter::Answered(message)) => Poll::Ready(Ok(message)),
            _ => Poll::Ready(Err(Lost)),
        }
    }
}

/// A registration that is removed explicitly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DetachedSlot {
    key: usize,
    token: CallToken,
}

impl DetachedSlot {
    /// Removes the registration.
    pub(crate) fn release(self, inbox: &Inbox) {
        inbox.release(self.key, self.token, None);
    }

    /// Replaces the registration by one that cancels the worker with its first message.
    pub(crate) fn cancel(self, inbox: &Inbox) {
        inbox.release(self.key, self.token, Some(Waiter::Cancelled));
    }
}

/// The control message by which a caller cancels a stream.
pub(crate) const CANCEL: Bytes = Bytes::from_static(b"cancel");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::AnswerTo;

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

    fn answer(answer: &mut Answer<'_>) -> Poll<Result<Message, Lost>> {
        Pin::new(answer).poll(&mut Poller::from_waker(Waker::noop()))
    }

    #[test]
    fn a_reply_reaches_only_the_call_that_waits_for_it() {
        let inbox = Inbox::new("_INBOX_a.1");
        let first = inbox.slot_for_one();
        let late = AnswerTo::new(first.subject());
        drop(first);
        let mut second = inbox.slot_for_one();
        let own = AnswerTo::new(second.subject());
        assert_eq!(own.subject, late.subject);
        for stranger in [late.token.as_deref(), None, Some("_INBOX_a.1.0")] {
            inbox.deliver(message(&late.subject, stranger));
            assert!(answer(&mut second).is_pending(), "{stranger:?}");
        }
        inbox.deliver(message(&own.subject, own.token.as_deref()));
        assert!(matches!(answer(&mut second), Poll::Ready(Ok(_))));
        assert_eq!(inbox.waiting(), 0);
    }

    #[test]
    fn the_first_of_two_answers_counts() {
        let inbox = Inbox::new("_INBOX_a.1");
        let mut call = inbox.slot_for_one();
        let to = call.subject();
        inbox.deliver(Message { payload: Bytes::from_static(b"first"), ..message(&to, None) });
        inbox.deliver(message(&to, None));
        assert!(matches!(answer(&mut call), Poll::Ready(Ok(message)) if message.payload == "first"));
        inbox.deliver(message(&to, None));
        assert_eq!(inbox.waiting(), 0);
    }

    #[test]
    fn calls_on_a_lost_connection_fail_and_leave_later_ones_alone() {
        let inbox = Inbox::new("_INBOX_a.1");
        let mut lost = inbox.slot_for_one();
        assert!(answer(&mut lost).is_pending());
        inbox.fail_all();
        let mut later = inbox.slot_for_one();
        assert_eq!(AnswerTo::subject_of(&lost.subject()), AnswerTo::subject_of(&later.subject()));
        assert!(matches!(answer(&mut lost), Poll::Ready(Err(Lost))));
        drop(lost);
        inbox.deliver(message(&later.subject(), None));
        assert!(matches!(answer(&mut later), Poll::Ready(Ok(_))));
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

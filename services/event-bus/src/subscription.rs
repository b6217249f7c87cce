//! Subscriptions: what is delivered, acknowledged, due again and dead. Each change is a function from one state to the next.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use proto::event::bus::v1::{DeadLetter, InFlight, PutSubscriptionRequest, Subscription, SubscriptionInfo};
use proto::event::delivery::v1::DeadLettered;
use proto::well_known::Timestamp;
use sdk::{Error, RecordKey, check_id, check_range, check_range_or};

use crate::message::{filter, stream_key, topic_pattern};

/// Dead letters of one subscription.
pub(crate) const MAX_DEAD_LETTERS: usize = 1_000;
/// Messages that become dead letters in one change, each with an event.
const BURIED_AT_ONCE: usize = 25;
const MAX_ACK_WAIT_MS: u32 = 3_600_000;

/// Identifies a subscription of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionKey {
    key: String,
    /// Where the name begins.
    name: usize,
}

impl SubscriptionKey {
    pub(crate) fn new(stream: &str, name: &str) -> Result<Self, Error> {
        stream_key(stream)?;
        check_id("subscription name", name, 64)?;
        Ok(Self { key: format!("{stream}.{name}"), name: stream.len() + 1 })
    }

    /// The key of one that is stored.
    pub(crate) fn of(subscription: &Subscription) -> Self {
        let Subscription { stream, name, .. } = subscription;
        Self { key: format!("{stream}.{name}"), name: stream.len() + 1 }
    }
}

impl fmt::Display for SubscriptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subscription `{}` of stream `{}`", &self.key[self.name..], &self.key[..self.name - 1])
    }
}

impl RecordKey for SubscriptionKey {
    fn bucket_key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.key)
    }
}

/// The subscription of a request, at the beginning of its stream.
pub(crate) fn checked(request: &PutSubscriptionRequest, now: SystemTime) -> Result<Subscription, Error> {
    SubscriptionKey::new(&request.stream, &request.name)?;
    Ok(Subscription {
        stream: request.stream.clone(),
        name: request.name.clone(),
        topic: topic_pattern(&request.topic)?,
        ack_wait_ms: check_range_or("ack_wait_ms", request.ack_wait_ms, 100..=MAX_ACK_WAIT_MS, 30_000)?,
        max_deliveries: check_range_or("max_deliveries", request.max_deliveries, 1..=100, 5)?,
        max_in_flight: check_range_or("max_in_flight", request.max_in_flight, 1..=1_000, 100)?,
        created_at: Some(now.into()),
        ..Subscription::default()
    })
}

/// A stored subscription with the limits of another one.
pub(crate) fn changed(current: &Subscription, next: &Subscription) -> Result<Subscription, Error> {
    if current.topic != next.topic {
        let key = SubscriptionKey::of(current);
        let message = format_args!("{key} is to topic `{}`: delete it first, or take another name", current.topic);
        return Err(Error::failed_precondition(message));
    }
    let Subscription { ack_wait_ms, max_deliveries, max_in_flight, .. } = *next;
    Ok(Subscription { ack_wait_ms, max_deliveries, max_in_flight, ..current.clone() })
}

/// The keys of the messages that a subscription is to.
pub(crate) fn messages(subscription: &Subscription) -> String {
    filter(&subscription.stream, &subscription.topic)
}

/// The subscription as it is shown, with so many messages that were not delivered yet.
pub(crate) fn info(subscription: Subscription, waiting: u64) -> SubscriptionInfo {
    let in_flight = count(subscription.in_flight.len());
    SubscriptionInfo {
        stream: subscription.stream,
        name: subscription.name,
        topic: subscription.topic,
        ack_wait_ms: subscription.ack_wait_ms,
        max_deliveries: subscription.max_deliveries,
        max_in_flight: subscription.max_in_flight,
        created_at: subscription.created_at,
        cursor: subscription.cursor,
        waiting,
        in_flight,
        lag: waiting + u64::from(in_flight),
        dead_letters: count(subscription.dead_letters.len()),
        expired: subscription.expired,
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What was read for a fetch, before it is decided what is delivered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Read {
    /// Names the request.
    pub(crate) fetch: String,
    pub(crate) limit: usize,
    /// Everything between this sequence and the last of `fresh` was read.
    pub(crate) after: u64,
    /// Sequences of new messages.
    pub(crate) fresh: Vec<u64>,
    /// Sequences of messages that are due again.
    pub(crate) again: BTreeSet<u64>,
    /// Those that the stream does not have any more.
    pub(crate) gone: BTreeSet<u64>,
}

/// Sequences of the messages that are due again, the oldest first and at most `limit`.
pub(crate) fn due(subscription: &Subscription, limit: usize, now: SystemTime) -> Vec<u64> {
    let due = subscription.in_flight.iter().filter(|it| is_due(it, now) && it.deliveries < subscription.max_deliveries);
    due.take(limit).map(|it| it.sequence).collect()
}

/// How many new messages may be delivered.
pub(crate) fn room(subscription: &Subscription) -> usize {
    (subscription.max_in_flight as usize).saturating_sub(subscription.in_flight.len())
}

/// What a fetch holds, if it was carried out before.
pub(crate) fn held<'a>(subscription: &'a Subscription, fetch: &'a str) -> impl Iterator<Item = &'a InFlight> {
    subscription.in_flight.iter().filter(move |it| it.fetched_by == fetch)
}

/// Delivers what was read, as far as that is still to be delivered.
pub(crate) fn fetched(mut subscription: Subscription, read: &Read, now: SystemTime) -> Subscription {
    let Subscription { max_deliveries, cursor, .. } = subscription;
    if held(&subscription, &read.fetch).next().is_some() {
        return subscription;
    }
    let before = subscription.in_flight.len();
    subscription.in_flight.retain(|it| !(read.gone.contains(&it.sequence) && is_due(it, now)));
    subscription.expired += (before - subscription.in_flight.len()) as u64;
    let due_at = after(now, subscription.ack_wait_ms);
    let mut left = read.limit;
    for it in &mut subscription.in_flight {
        if left > 0 && read.again.contains(&it.sequence) && is_due(it, now) && it.deliveries < max_deliveries {
            it.deliveries += 1;
            it.due_at = Some(due_at);
            it.fetched_by.clone_from(&read.fetch);
            left -= 1;
        }
    }
    // Another fetch may have been faster; what comes after its last message was read all the same.
    let fresh = read.fresh.iter().copied().filter(|sequence| read.after <= cursor && *sequence > cursor);
    for sequence in fresh.take(left.min(room(&subscription))) {
        let fetched_by = read.fetch.clone();
        let delivery = InFlight { sequence, deliveries: 1, due_at: Some(due_at), fetched_by, reason: String::new() };
        subscription.in_flight.push(delivery);
        subscription.cursor = sequence;
    }
    // Of one that was delivered again by a person, the sequence may be below those before it.
    subscription.in_flight.sort_by_key(|it| it.sequence);
    subscription
}

/// Whether a message is due that was delivered as often as it may be, and there is room for its dead letter.
pub(crate) fn has_exhausted(subscription: &Subscription, now: SystemTime) -> bool {
    let Subscription { max_deliveries, in_flight, dead_letters, .. } = subscription;
    dead_letters.len() < MAX_DEAD_LETTERS
        && in_flight.iter().any(|it| it.deliveries >= *max_deliveries && is_due(it, now))
}

/// Makes dead letters of the messages that are due and were delivered as often as they may be, with their events.
pub(crate) fn buried(mut subscription: Subscription, now: SystemTime) -> (Subscription, Vec<DeadLettered>) {
    let room = MAX_DEAD_LETTERS.saturating_sub(subscription.dead_letters.len()).min(BURIED_AT_ONCE);
    let is_exhausted = |it: &&InFlight| it.deliveries >= subscription.max_deliveries && is_due(it, now);
    let exhausted: Vec<InFlight> = subscription.in_flight.iter().filter(is_exhausted).take(room).cloned().collect();
    let event = |it: &InFlight| DeadLettered {
        meta: None,
        stream: subscription.stream.clone(),
        subscription: subscription.name.clone(),
        sequence: it.sequence,
        deliveries: it.deliveries,
        reason: it.reason.clone(),
    };
    let events = exhausted.iter().map(event).collect();
    subscription.in_flight.retain(|it| !exhausted.iter().any(|dead| dead.sequence == it.sequence));
    let letters = exhausted.into_iter().map(|it| DeadLetter {
        sequence: it.sequence,
        deliveries: it.deliveries,
        reason: it.reason,
        at: Some(now.into()),
    });
    subscription.dead_letters.extend(letters);
    (subscription, events)
}

/// Ends deliveries. Returns the sequences that were not in flight.
pub(crate) fn acknowledged(mut subscription: Subscription, sequences: &[u64]) -> (Subscription, Vec<u64>) {
    let known: BTreeSet<u64> = subscription.in_flight.iter().map(|it| it.sequence).collect();
    subscription.in_flight.retain(|it| !sequences.contains(&it.sequence));
    (subscription, sequences.iter().copied().filter(|sequence| !known.contains(sequence)).collect())
}

/// A message that could not be handled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned<'a> {
    pub(crate) sequence: u64,
    /// The number of its delivery.
    pub(crate) delivery: u32,
    pub(crate) delay_ms: u32,
    pub(crate) reason: &'a str,
}

/// Returns a message, unless it was delivered again since. One that was delivered as often as it may be is due at once, so that
/// [`buried`] makes a dead letter of it.
pub(crate) fn returned(mut subscription: Subscription, it: Returned<'_>, now: SystemTime) -> Option<Subscription> {
    let is_it = |other: &&mut InFlight| other.sequence == it.sequence && other.deliveries == it.delivery;
    let max_deliveries = subscription.max_deliveries;
    let delivery = subscription.in_flight.iter_mut().find(is_it)?;
    let delay_ms = if delivery.deliveries >= max_deliveries { 0 } else { it.delay_ms };
    delivery.due_at = Some(after(now, delay_ms));
    delivery.fetched_by.clear();
    it.reason.clone_into(&mut delivery.reason);
    Some(subscription)
}

/// Takes dead letters out. Returns them, and the sequences that are none.
pub(crate) fn exhumed(mut subscription: Subscription, sequences: &[u64]) -> (Subscription, Vec<DeadLetter>, Vec<u64>) {
    let is_named = |letter: &DeadLetter| sequences.contains(&letter.sequence);
    let (taken, kept): (Vec<_>, Vec<_>) = { subscription.dead_letters }.into_iter().partition(is_named);
    subscription.dead_letters = kept;
    let is_unknown = |sequence: &u64| !taken.iter().any(|letter| letter.sequence == *sequence);
    let unknown = sequences.iter().copied().filter(is_unknown).collect();
    (subscription, taken, unknown)
}

/// Has messages delivered again as if they had never been.
pub(crate) fn revived(mut subscription: Subscription, letters: &[DeadLetter], now: SystemTime) -> Subscription {
    let again = letters.iter().map(|letter| InFlight {
        sequence: letter.sequence,
        due_at: Some(now.into()),
        reason: letter.reason.clone(),
        ..InFlight::default()
    });
    subscription.in_flight.extend(again);
    subscription.in_flight.sort_by_key(|it| it.sequence);
    subscription
}

/// The sequences of a request.
pub(crate) fn check_sequences(sequences: &[u64]) -> Result<(), Error> {
    check_range("number of sequences", sequences.len(), 1..=100).map(drop)
}

/// The delay of a request.
pub(crate) fn check_delay(delay_ms: u32) -> Result<(), Error> {
    check_range("delay_ms", delay_ms, 0..=MAX_ACK_WAIT_MS).map(drop)
}

fn is_due(delivery: &InFlight, now: SystemTime) -> bool {
    let due_at = delivery.due_at.and_then(|due_at| SystemTime::try_from(due_at).ok());
    due_at.is_none_or(|due_at| due_at <= now)
}

fn after(now: SystemTime, milliseconds: u32) -> Timestamp {
    (now + Duration::from_millis(milliseconds.into())).into()
}

#[cfg(test)]
mod tests;

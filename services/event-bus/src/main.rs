//! Keeps streams of messages, and delivers them to durable subscriptions.
//!
//! Messages are records of one bucket, whose revisions are their sequences: a message is stored once for its id by being created
//! under a key that is made of it. A subscription is a record too: a cursor, and what is in flight. Every change of it is one
//! compare-and-set, so any task may serve any fetch. A consumer on the server would do the same for less, but a service may not
//! make consumers, which write with all rights of the account of all streams.

mod message;
mod seek;
mod subscription;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use proto::event::bus::v1::put_subscription_request::Start;
use proto::event::bus::v1::replay_request::Start as ReplayStart;
use proto::event::bus::v1::{
    AckRequest, AckResponse, BusStream, DeadMessage, DeleteStreamRequest, DeleteStreamResponse,
    DeleteSubscriptionRequest, DeleteSubscriptionResponse, Delivery, DropDeadLettersRequest, DropDeadLettersResponse,
    EventBus, EventBusServer, FetchRequest, FetchResponse, ListDeadLettersRequest, ListDeadLettersResponse,
    ListStreamsRequest, ListStreamsResponse, ListSubscriptionsRequest, ListSubscriptionsResponse, Message, NakRequest,
    NakResponse, PublishRequest, PublishResponse, PutStreamRequest, PutStreamResponse, PutSubscriptionRequest,
    PutSubscriptionResponse, RedeliverDeadLettersRequest, RedeliverDeadLettersResponse, ReplayRequest, ReplayResponse,
    StreamInfo, Subscription, SubscriptionInfo,
};
use proto::event::delivery::v1::DeadLettered;
use proto::well_known::Timestamp;
use sdk::{
    Code, Error, Fleet, Followed, Id, Next, Operation, Periodic, Records, Stored, Stream, Update, check_range,
    check_range_or, check_text, context, reason,
};

use crate::subscription::{MAX_DEAD_LETTERS, Read, Returned, SubscriptionKey};

const MAX_STREAMS: usize = 100;
const MAX_SUBSCRIPTIONS: usize = 100;
const MAX_DESCRIPTION: usize = 512;
/// Messages of one answer.
const MAX_FETCHED: u32 = 25;
const DEFAULT_FETCHED: u32 = 10;
const MAX_WAIT_MS: u32 = 20_000;
/// How often a fetch that waits looks for messages.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// A fetch that waits answers so long before its caller stops waiting.
const MARGIN: Duration = Duration::from_secs(1);

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(EventBusServer).periodically().run()
}

struct Service {
    fleet: Fleet,
    streams: Records<BusStream>,
    known: Followed<BTreeMap<String, Stored<BusStream>>>,
    messages: Records<Message>,
    subscriptions: Records<Subscription>,
    /// Of which some may have dead letters to be made.
    followed: Followed<BTreeMap<String, Stored<Subscription>>>,
}

impl EventBus for Service {
    async fn put_stream(&self, request: PutStreamRequest) -> Result<PutStreamResponse, Error> {
        let operation = Operation::of(&request);
        let key = message::stream_key(&request.name)?;
        if !request.description.is_empty() {
            check_text("description", &request.description, MAX_DESCRIPTION)?;
        }
        let count = self.known.read().len();
        let put = |current: Option<&Stored<BusStream>>| {
            let created_at = match current {
                Some(current) => current.value.created_at,
                None if count >= MAX_STREAMS => {
                    return Err(Error::failed_precondition(format_args!("there are {count} streams, delete some")));
                }
                None => Some(self.now().into()),
            };
            let (name, description) = (request.name.clone(), request.description.clone());
            Ok(Next::write(BusStream { name, description, created_at, revision: 0 }))
        };
        let put = self.streams.change(&key, &operation, put).await?;
        self.known.wrote(put.clone().into());
        Ok(put.value.into())
    }

    async fn list_streams(&self, _: ListStreamsRequest) -> Result<ListStreamsResponse, Error> {
        let streams = self.streams.list(">").await?;
        let infos = streams.into_iter().map(|Stored { value: stream, .. }| async move {
            let all = message::filter(&stream.name, ">");
            let first = self.messages.changes(&all, 0, 1).await?;
            let messages = self.messages.count_since(&all, 0).await?;
            let first_sequence = first.first().map_or(0, |first| first.revision);
            Ok::<_, Error>(StreamInfo { stream: Some(stream), messages, first_sequence })
        });
        Ok(try_join_all(infos).await?.into())
    }

    async fn delete_stream(&self, request: DeleteStreamRequest) -> Result<DeleteStreamResponse, Error> {
        let key = message::stream_key(&request.name)?;
        let subscriptions = self.subscriptions.list(&format!("{}.*", key.as_str())).await?.len();
        let delete = |_: &Stored<BusStream>| match subscriptions {
            0 => Ok(Next::delete()),
            _ => Err(Error::failed_precondition(format_args!(
                "{key} has {subscriptions} subscriptions, delete them first"
            ))),
        };
        if let Some(deleted) = self.streams.change_existing(&key, &Operation::of(&request), delete).await? {
            self.known.deleted(&deleted);
        }
        Ok(DeleteStreamResponse::default())
    }

    async fn publish(&self, request: PublishRequest) -> Result<PublishResponse, Error> {
        let operation = Operation::of(&request).digits();
        self.stream(&request.stream).await?;
        let (key, message) = message::checked(request, &operation, self.now())?;
        if let Some(sequence) = self.messages.create(&key, &message).await? {
            return Ok(PublishResponse { error: None, sequence, duplicate: false });
        }
        let stored = self.messages.get(&key).await?;
        message::check_same(&stored.value, &message)?;
        Ok(PublishResponse { error: None, sequence: stored.revision, duplicate: true })
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Stream<ReplayResponse>, Error> {
        self.stream(&request.stream).await?;
        let filter = message::filter(&request.stream, &message::topic_pattern(&request.topic)?);
        let (since, from) = match request.start {
            None => (0, None),
            Some(ReplayStart::FromSequence(sequence)) => (self.before_sequence(sequence).await?, None),
            Some(ReplayStart::FromTime(time)) => {
                let time = checked_time(time)?;
                (self.before_time(&filter, time).await?, Some(Timestamp::from(time)))
            }
        };
        let updates = match request.follow {
            true => self.messages.watch(&filter, since),
            false => self.messages.changes_since(&filter, since),
        };
        let is_wanted = move |message: &Message| {
            let published = message.published_at.unwrap_or_default();
            from.is_none_or(|from| (published.seconds, published.nanos) >= (from.seconds, from.nanos))
        };
        let messages = updates.try_filter_map(move |update| {
            let message = sequenced(update).filter(|message| is_wanted(message));
            async move { Ok(message.map(ReplayResponse::from)) }
        });
        match request.limit {
            0 => Ok(messages.boxed()),
            limit => Ok(messages.take(limit as usize).boxed()),
        }
    }

    async fn put_subscription(&self, request: PutSubscriptionRequest) -> Result<PutSubscriptionResponse, Error> {
        let operation = Operation::of(&request);
        let wanted = subscription::checked(&request, self.now())?;
        let key = SubscriptionKey::of(&wanted);
        self.stream(&wanted.stream).await?;
        let cursor = self.cursor(&wanted, request.start).await?;
        let others = self.subscriptions.list(&format!("{}.*", wanted.stream)).await?.len();
        let put = |current: Option<&Stored<Subscription>>| match current {
            Some(current) => Ok(Next::write(subscription::changed(&current.value, &wanted)?)),
            None if others >= MAX_SUBSCRIPTIONS => Err(Error::failed_precondition(format_args!(
                "stream `{}` has {others} subscriptions, delete some",
                wanted.stream
            ))),
            None => Ok(Next::write(Subscription { cursor, ..wanted.clone() })),
        };
        let put = self.subscriptions.change(&key, &operation, put).await?;
        Ok(self.info(put.value).await?.into())
    }

    async fn list_subscriptions(&self, request: ListSubscriptionsRequest) -> Result<ListSubscriptionsResponse, Error> {
        let stream = self.stream(&request.stream).await?;
        let subscriptions = self.subscriptions.list(&format!("{}.*", stream.as_str())).await?;
        Ok(try_join_all(subscriptions.into_iter().map(|stored| self.info(stored.value))).await?.into())
    }

    async fn delete_subscription(
        &self,
        request: DeleteSubscriptionRequest,
    ) -> Result<DeleteSubscriptionResponse, Error> {
        let key = SubscriptionKey::new(&request.stream, &request.name)?;
        self.subscriptions.change_existing(&key, &Operation::of(&request), |_| Ok(Next::delete())).await?;
        Ok(DeleteSubscriptionResponse::default())
    }

    async fn fetch(&self, request: FetchRequest) -> Result<FetchResponse, Error> {
        let key = SubscriptionKey::new(&request.stream, &request.subscription)?;
        let limit = check_range_or("limit", request.limit, 1..=MAX_FETCHED, DEFAULT_FETCHED)? as usize;
        let wait = Duration::from_millis(check_range("wait_ms", request.wait_ms, 0..=MAX_WAIT_MS)?.into());
        let fetch = Operation::of(&request).digits();
        let latest = context().deadline().checked_sub(MARGIN);
        let until = latest.map_or(tokio::time::Instant::now(), |latest| latest.min(tokio::time::Instant::now() + wait));
        loop {
            let deliveries = self.fetch_once(&key, &fetch, limit).await?;
            let next = tokio::time::Instant::now() + POLL_INTERVAL;
            if !deliveries.is_empty() || next > until {
                return Ok(deliveries.into());
            }
            tokio::time::sleep_until(next).await;
        }
    }

    async fn ack(&self, request: AckRequest) -> Result<AckResponse, Error> {
        let key = SubscriptionKey::new(&request.stream, &request.subscription)?;
        subscription::check_sequences(&request.sequences)?;
        let mut not_in_flight = Vec::new();
        let change = |current: &Subscription| {
            let (next, others) = subscription::acknowledged(current.clone(), &request.sequences);
            not_in_flight = others;
            Ok((next, Vec::new()))
        };
        self.change(&key, change).await?;
        Ok(AckResponse { error: None, not_in_flight })
    }

    async fn nak(&self, request: NakRequest) -> Result<NakResponse, Error> {
        let key = SubscriptionKey::new(&request.stream, &request.subscription)?;
        subscription::check_delay(request.delay_ms)?;
        if !request.reason.is_empty() {
            check_text("reason", &request.reason, 256)?;
        }
        let NakRequest { sequence, delivery, delay_ms, ref reason, .. } = request;
        let (now, returned) = (self.now(), Returned { sequence, delivery, delay_ms, reason });
        let mut accepted = false;
        let change = |current: &Subscription| {
            let next = subscription::returned(current.clone(), returned, now);
            accepted = next.is_some();
            Ok(next.map_or_else(|| (current.clone(), Vec::new()), |next| subscription::buried(next, now)))
        };
        let changed = self.change(&key, change).await?;
        let dead_letter = accepted && changed.dead_letters.iter().any(|letter| letter.sequence == sequence);
        Ok(NakResponse { error: None, accepted, dead_letter })
    }

    async fn list_dead_letters(&self, request: ListDeadLettersRequest) -> Result<ListDeadLettersResponse, Error> {
        let key = SubscriptionKey::new(&request.stream, &request.subscription)?;
        let limit = check_range_or("limit", request.limit, 1..=MAX_FETCHED, DEFAULT_FETCHED)? as usize;
        let mut letters = self.subscriptions.get(&key).await?.value.dead_letters;
        letters.sort_by_key(|letter| letter.sequence);
        let page = letters.into_iter().filter(|letter| letter.sequence > request.after_sequence).take(limit);
        let messages = page.map(|letter| async {
            let message = self.message(&request.stream, letter.sequence).await?;
            Ok::<_, Error>(DeadMessage { letter: Some(letter), message })
        });
        Ok(try_join_all(messages).await?.into())
    }

    async fn redeliver_dead_letters(
        &self,
        request: RedeliverDeadLettersRequest,
    ) -> Result<RedeliverDeadLettersResponse, Error> {
        let key = SubscriptionKey::new(&request.stream, &request.subscription)?;
        let now = self.now();
        let redeliver = |next, letters: &[_]| subscription::revived(next, letters, now);
        let unknown = self.take_dead_letters(&key, &request.sequences, redeliver).await?;
        Ok(RedeliverDeadLettersResponse { error: None, unknown })
    }

    async fn drop_dead_letters(&self, request: DropDeadLettersRequest) -> Result<DropDeadLettersResponse, Error> {
        let key = SubscriptionKey::new(&request.stream, &request.subscription)?;
        let unknown = self.take_dead_letters(&key, &request.sequences, |next, _| next).await?;
        Ok(DropDeadLettersResponse { error: None, unknown })
    }
}

impl Periodic for Service {
    const INTERVAL: Duration = Duration::from_secs(1);

    /// Makes dead letters also where nothing is fetched.
    async fn turn(&self) -> Result<(), Error> {
        let now = self.now();
        let exhausted: Vec<SubscriptionKey> = {
            let followed = self.followed.read();
            let subscriptions = followed.values().map(|stored| &stored.value);
            subscriptions.filter(|it| subscription::has_exhausted(it, now)).map(SubscriptionKey::of).collect()
        };
        let bury = |key: SubscriptionKey| async move {
            let next = |current: &Stored<Subscription>| {
                let (next, events) = subscription::buried(current.value.clone(), now);
                Ok(with_events(next, events))
            };
            self.subscriptions.update(&key, next).await.map(drop)
        };
        sdk::each(exhausted, bury).await
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let (streams, messages) = (fleet.records("bus_streams").await?, fleet.records("bus_messages").await?);
        let subscriptions = fleet.records("bus_subscriptions").await?;
        let known = streams.follow(BTreeMap::new()).await?;
        let followed = subscriptions.follow(BTreeMap::new()).await?;
        Ok(Self { fleet, streams, known, messages, subscriptions, followed })
    }

    fn now(&self) -> SystemTime {
        self.fleet.clock().now()
    }

    /// The key of a stream that exists.
    async fn stream(&self, name: &str) -> Result<Id, Error> {
        let key = message::stream_key(name)?;
        let is_known = self.known.read().contains_key(name);
        if !is_known {
            self.streams.get(&key).await?;
        }
        Ok(key)
    }

    async fn info(&self, subscription: Subscription) -> Result<SubscriptionInfo, Error> {
        let waiting = self.messages.count_since(&subscription::messages(&subscription), subscription.cursor).await?;
        Ok(subscription::info(subscription, waiting))
    }

    /// The sequence after which a new subscription begins.
    async fn cursor(&self, subscription: &Subscription, start: Option<Start>) -> Result<u64, Error> {
        match start {
            None => Ok(0),
            Some(Start::NewOnly(true)) => self.messages.revision().await,
            Some(Start::NewOnly(false)) => Err(Error::invalid("new_only must be true, or absent")),
            Some(Start::FromSequence(sequence)) => self.before_sequence(sequence).await,
            Some(Start::FromTime(time)) => {
                self.before_time(&subscription::messages(subscription), checked_time(time)?).await
            }
        }
    }

    async fn before_sequence(&self, sequence: u64) -> Result<u64, Error> {
        let latest = self.messages.revision().await?;
        if sequence > latest + 1 {
            let message = format!("from_sequence is {sequence}, the latest is {latest}");
            return Err(Error::new(Code::OutOfRange, message).with_detail("latest_sequence", latest));
        }
        Ok(sequence.saturating_sub(1))
    }

    async fn before_time(&self, filter: &str, time: SystemTime) -> Result<u64, Error> {
        let next = |after| async move {
            let first = self.messages.changes(filter, after, 1).await?.pop();
            let message = first.and_then(sequenced);
            let published = message.as_ref().and_then(|message| message.published_at?.try_into().ok());
            Ok(message.map(|message| (message.sequence, published.unwrap_or(SystemTime::UNIX_EPOCH))))
        };
        seek::before(time, self.messages.revision().await?, next).await
    }

    /// The message of a stream with this sequence, if the stream still has it.
    async fn message(&self, stream: &str, sequence: u64) -> Result<Option<Message>, Error> {
        let all = message::filter(stream, ">");
        let first = self.messages.changes(&all, sequence.saturating_sub(1), 1).await?.pop().and_then(sequenced);
        Ok(first.filter(|message| message.sequence == sequence))
    }

    /// One attempt at a fetch: reads what may be delivered, and then decides.
    async fn fetch_once(&self, key: &SubscriptionKey, fetch: &str, limit: usize) -> Result<Vec<Delivery>, Error> {
        let current = self.subscriptions.get(key).await?.value;
        if current.dead_letters.len() >= MAX_DEAD_LETTERS {
            let message = format_args!("{key} has {MAX_DEAD_LETTERS} dead letters: redeliver or drop them");
            return Err(Error::failed_precondition(message).with_detail(reason::KEY, "too_many_dead_letters"));
        }
        let (now, filter) = (self.now(), subscription::messages(&current));
        let due = subscription::due(&current, limit, now);
        let fresh = (limit - due.len()).min(subscription::room(&current));
        let fresh = match fresh {
            0 => Vec::new(),
            _ => self.messages.changes(&filter, current.cursor, fresh).await?,
        };
        let again = due.iter().map(|sequence| self.message(&current.stream, *sequence));
        let again: BTreeMap<u64, Message> = numbered(try_join_all(again).await?.into_iter().flatten());
        let mut messages = numbered(fresh.into_iter().filter_map(sequenced));
        let read = Read {
            fetch: fetch.to_owned(),
            limit,
            after: current.cursor,
            fresh: messages.keys().copied().collect(),
            gone: due.into_iter().filter(|sequence| !again.contains_key(sequence)).collect(),
            again: again.keys().copied().collect::<BTreeSet<_>>(),
        };
        messages.extend(again);
        let change = |current: &Subscription| {
            let (current, events) = subscription::buried(current.clone(), now);
            Ok((subscription::fetched(current, &read, now), events))
        };
        let changed = self.change(key, change).await?;
        let mut deliveries = Vec::new();
        for held in subscription::held(&changed, fetch) {
            let message = match messages.remove(&held.sequence) {
                Some(message) => Some(message),
                // Delivered by an earlier attempt at this request.
                None => self.message(&changed.stream, held.sequence).await?,
            };
            if message.is_some() {
                deliveries.push(Delivery { message, number: held.deliveries, ack_by: held.due_at });
            }
        }
        Ok(deliveries)
    }

    /// Changes a subscription. No operation is remembered: a fetch is known by what it holds, and the others may be repeated.
    async fn change(
        &self,
        key: &SubscriptionKey,
        mut next: impl FnMut(&Subscription) -> Result<(Subscription, Vec<DeadLettered>), Error>,
    ) -> Result<Subscription, Error> {
        let next = |current: &Stored<Subscription>| {
            let (next, events) = next(&current.value)?;
            Ok(with_events(next, events))
        };
        let changed = self.subscriptions.update(key, next).await?;
        Ok(changed.ok_or_else(|| Error::not_found(key))?.value)
    }

    /// Takes dead letters out of a subscription. Returns the sequences that are none.
    async fn take_dead_letters(
        &self,
        key: &SubscriptionKey,
        sequences: &[u64],
        then: impl Fn(Subscription, &[proto::event::bus::v1::DeadLetter]) -> Subscription,
    ) -> Result<Vec<u64>, Error> {
        subscription::check_sequences(sequences)?;
        let mut unknown = Vec::new();
        let change = |current: &Subscription| {
            let (next, letters, others) = subscription::exhumed(current.clone(), sequences);
            unknown = others;
            Ok((then(next, &letters), Vec::new()))
        };
        self.change(key, change).await?;
        Ok(unknown)
    }
}

fn with_events(subscription: Subscription, events: Vec<DeadLettered>) -> Next<Subscription> {
    events.into_iter().fold(Next::write(subscription), Next::and_publish)
}

/// The message of a change, with its sequence.
fn sequenced(update: Update<Message>) -> Option<Message> {
    update.record.map(|stored| Message { sequence: update.revision, ..stored.value })
}

fn numbered(messages: impl Iterator<Item = Message>) -> BTreeMap<u64, Message> {
    messages.map(|message| (message.sequence, message)).collect()
}

fn checked_time(time: Timestamp) -> Result<SystemTime, Error> {
    SystemTime::try_from(time).map_err(|error| Error::invalid(format_args!("from_time is no time: {error}")))
}

#[cfg(test)]
mod tests;

//! State: key-value buckets with compare-and-set. Reads go to the stream leader, so a task reads what another has just
//! written.

use std::time::Duration;

use async_nats::StatusCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::kv::{self, CreateErrorKind, PutErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use proto::rpc::{Code, Error, Event};

use crate::events::EncodedEvent;
use crate::fleet::Fleet;
use crate::metrics;
use crate::outbox::{Batch, Write};
use crate::retry::retry_until_deadline;
use crate::trace;

/// Concurrent reads of one listing.
const MAX_CONCURRENT_READS: usize = 32;
/// How many times a change is attempted while other writers change the same value.
const MAX_ATTEMPTS: u32 = 16;

/// Bytes that a listing decodes before it yields: about 0.2 ms.
const BYTES_PER_TURN: usize = 32 << 10;

/// A key-value bucket that the manifest declares. Keys consist of letters, digits, `-`, `_`, `=`, `/` and `.`.
#[derive(Clone, Debug)]
pub struct Bucket {
    fleet: Fleet,
    name: String,
}

/// A value with its key and revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The revision of this write. It grows with every write to the bucket.
    pub revision: u64,
}

/// How to change values, with a result for the caller of [`Bucket::change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<T> {
    /// One for each key.
    changes: Vec<ValueChange>,
    events: Vec<EncodedEvent>,
    result: T,
}

/// How to change the value of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValueChange {
    Keep,
    Write(Bytes),
    Delete,
}

impl<T> Change<T> {
    /// Keep the current value.
    pub fn keep(result: T) -> Self {
        Self::all(vec![ValueChange::Keep], Vec::new(), result)
    }

    /// Write this value.
    pub fn write(value: impl Into<Bytes>, result: T) -> Self {
        Self::all(vec![ValueChange::Write(value.into())], Vec::new(), result)
    }

    /// Write this value, and publish the event that follows from it, exactly once: both are stored, or neither is.
    pub fn write_with_event<E: Event>(value: impl Into<Bytes>, event: E, result: T) -> Self {
        Self::all(vec![ValueChange::Write(value.into())], vec![EncodedEvent::new(event)], result)
    }

    pub(crate) fn all(changes: Vec<ValueChange>, events: Vec<EncodedEvent>, result: T) -> Self {
        Self { changes, events, result }
    }
}

/// A message of a key: a write or a deletion.
#[derive(Debug)]
pub(crate) struct KeyMessage {
    pub(crate) key: String,
    pub(crate) revision: u64,
    /// `None` if it deleted the value.
    pub(crate) entry: Option<Entry>,
}

/// The latest message of a key.
#[derive(Clone, Debug)]
struct Latest {
    /// Its number; 0 if there is none.
    sequence: u64,
    /// `None` if there is none, or if it deleted the value.
    entry: Option<Entry>,
}

/// Why a write failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Another writer changed the value since it was read: read it again.
    #[error("the value was changed by another writer")]
    Conflict,
    /// The write failed, or its outcome is unknown.
    #[error("{0}")]
    Failed(Error),
}

/// Whether the bucket is temporarily unavailable.
fn is_unavailable(error: &Error) -> bool {
    error.code() == Code::Unavailable
}

/// Whether a write may be retried. Retrying is safe even if the write was applied and only its acknowledgement was
/// lost: the retry is then a conflict, and reading the value again shows the write.
pub(crate) fn write_unavailable(error: &WriteError) -> bool {
    matches!(error, WriteError::Failed(error) if is_unavailable(error))
}

impl trace::Failure for WriteError {
    fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Conflict => (Code::Aborted.as_str_name(), self.to_string()),
            Self::Failed(error) => error.describe(),
        }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Conflict => Self::new(Code::Aborted, error.to_string()),
            WriteError::Failed(error) => error,
        }
    }
}

impl Bucket {
    pub(crate) fn new(fleet: Fleet, name: &str) -> Self {
        Self { fleet, name: name.to_owned() }
    }

    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The latest value; `None` if there is none or it was deleted.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        Ok(self.latest(key).await?.entry)
    }

    async fn latest(&self, key: &str) -> Result<Latest, Error> {
        trace::storage("get", &self.name, retry_until_deadline(is_unavailable, || self.latest_once(key))).await
    }

    async fn latest_once(&self, key: &str) -> Result<Latest, Error> {
        if !is_valid_key(key) {
            return Err(self.invalid(key));
        }
        let stream = self.stream().await?;
        match stream.get_last_raw_message_by_subject(&self.subject(key)).await {
            Ok(message) => Ok(Latest { sequence: message.sequence, entry: self.entry(message) }),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                Ok(Latest { sequence: 0, entry: None })
            }
            Err(error) => Err(self.failed("read", key, &error)),
        }
    }

    /// Writes a value under a key that must not exist yet, and returns its revision.
    ///
    /// # Errors
    /// Conflict if the key exists.
    pub async fn create(&self, key: &str, value: Bytes) -> Result<u64, WriteError> {
        let write = retry_until_deadline(write_unavailable, || self.create_once(key, value.clone()));
        trace::storage("create", &self.name, write).await
    }

    async fn create_once(&self, key: &str, value: Bytes) -> Result<u64, WriteError> {
        let (store, size) = (self.store().await.map_err(WriteError::Failed)?, value.len());
        store.create(key, value).await.map_err(|error| match error.kind() {
            CreateErrorKind::AlreadyExists => WriteError::Conflict,
            CreateErrorKind::InvalidKey => WriteError::Failed(self.invalid(key)),
            _ => WriteError::Failed(self.not_written(key, size, &error)),
        })
    }

    /// Writes a value if the latest revision is still `expected`, and returns the new revision.
    ///
    /// # Errors
    /// Conflict if it is not.
    pub async fn update(&self, key: &str, value: Bytes, expected: u64) -> Result<u64, WriteError> {
        if !is_valid_key(key) {
            return Err(WriteError::Failed(self.invalid(key)));
        }
        let write = Write { key: key.to_owned(), value: Some(value), expected };
        self.store_batch(&Batch { writes: vec![write], events: Vec::new() }).await
    }

    /// Changes the latest value as `decide` says, and retries if another writer changed it in the meantime. Returns the
    /// result of the decision, and the current revision of the value; 0 if there is none.
    ///
    /// # Errors
    /// Conflict if other writers changed the value during every attempt; the error that `decide` returns.
    pub async fn change<T>(
        &self,
        key: &str,
        mut decide: impl FnMut(Option<&Entry>) -> Result<Change<T>, Error>,
    ) -> Result<(T, u64), WriteError> {
        let (result, revisions) =
            self.change_all(&[key], |entries| decide(entries.first().and_then(Option::as_ref))).await?;
        Ok((result, revisions.first().copied().unwrap_or_default()))
    }

    /// The same for several keys, all of which are written, or none.
    pub(crate) async fn change_all<T>(
        &self,
        keys: &[&str],
        mut decide: impl FnMut(&[Option<Entry>]) -> Result<Change<T>, Error>,
    ) -> Result<(T, Vec<u64>), WriteError> {
        for attempt in 0..MAX_ATTEMPTS {
            let latest = try_join_all(keys.iter().map(|key| self.latest(key))).await.map_err(WriteError::Failed)?;
            let (sequences, entries): (Vec<u64>, Vec<Option<Entry>>) =
                latest.into_iter().map(|latest| (latest.sequence, latest.entry)).unzip();
            let Change { changes, events, result } = decide(&entries).map_err(WriteError::Failed)?;
            let mut revisions: Vec<u64> =
                entries.iter().map(|entry| entry.as_ref().map_or(0, |entry| entry.revision)).collect();
            let mut written = Vec::new();
            let mut batch = Batch { writes: Vec::new(), events };
            for (index, change) in changes.into_iter().enumerate() {
                let value = match change {
                    ValueChange::Keep => continue,
                    ValueChange::Write(value) => Some(value),
                    ValueChange::Delete => None,
                };
                batch.writes.push(Write { key: keys[index].to_owned(), value, expected: sequences[index] });
                written.push(index);
            }
            if batch.writes.is_empty() {
                return match batch.events.is_empty() {
                    true => Ok((result, revisions)),
                    false => Err(WriteError::Failed(Error::internal("an event follows from no write"))),
                };
            }
            match self.store_batch(&batch).await {
                Ok(last) => {
                    for (revision, (index, write)) in (0..=last).rev().zip(written.iter().zip(&batch.writes).rev()) {
                        // What was deleted is returned as it was.
                        if write.value.is_some() {
                            revisions[*index] = revision;
                        }
                    }
                    return Ok((result, revisions));
                }
                Err(WriteError::Conflict) => tokio::time::sleep(backoff(attempt)).await,
                Err(error) => return Err(error),
            }
        }
        Err(WriteError::Conflict)
    }

    /// Writes a value unconditionally, and returns its revision.
    ///
    /// # Errors
    /// UNAVAILABLE if the write was not confirmed.
    pub async fn put(&self, key: &str, value: Bytes) -> Result<u64, Error> {
        let write = retry_until_deadline(is_unavailable, || self.put_once(key, value.clone()));
        trace::storage("put", &self.name, write).await
    }

    async fn put_once(&self, key: &str, value: Bytes) -> Result<u64, Error> {
        let (store, size) = (self.store().await?, value.len());
        store.put(key, value).await.map_err(|error| match error.kind() {
            PutErrorKind::InvalidKey => self.invalid(key),
            _ => self.not_written(key, size, &error),
        })
    }

    /// Deletes a value. Its history is kept.
    ///
    /// # Errors
    /// UNAVAILABLE if the deletion was not confirmed.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        trace::storage("delete", &self.name, retry_until_deadline(is_unavailable, || self.delete_once(key))).await
    }

    async fn delete_once(&self, key: &str) -> Result<(), Error> {
        let store = self.store().await?;
        store.delete(key).await.map_err(|error| self.failed("delete", key, &error))
    }

    /// The latest value of every key that matches `filter` (`player1.*`, `>`), ordered by key.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn entries(&self, filter: &str) -> Result<Vec<Entry>, Error> {
        let list = retry_until_deadline(is_unavailable, || self.subjects_once(filter));
        let mut subjects = trace::storage("list", &self.name, list).await?;
        subjects.sort_unstable();
        let prefix = self.subject("");
        // Owned keys and handles, because the compiler cannot prove that a stream of borrowing futures is `Send`.
        let reads = subjects.into_iter().map(move |subject| {
            let bucket = self.clone();
            let key = subject.strip_prefix(&prefix).unwrap_or(&subject).to_owned();
            async move { bucket.get(&key).await }
        });
        let entries: Vec<Option<Entry>> =
            futures::stream::iter(reads).buffered(MAX_CONCURRENT_READS).try_collect().await?;
        Ok(entries.into_iter().flatten().collect())
    }

    /// The latest values that match `filter`, decoded, ordered by key. A record that cannot be decoded is left out, named
    /// in the log and counted in the metric `unreadable_records`: one of them must not hide all others.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn decoded<T>(&self, filter: &str, decode: impl Fn(&Entry) -> Result<T, Error>) -> Result<Vec<T>, Error> {
        let (readable, _) = self.readable(self.entries(filter).await?, decode).await;
        Ok(readable)
    }

    /// The stored revisions of one key that can be decoded, newest first and at most `limit`; the others are left out as
    /// [`Bucket::decoded`] does.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer; the error of `decode` if there are revisions and none can be decoded.
    pub async fn decoded_history<T>(
        &self,
        key: &str,
        limit: usize,
        decode: impl Fn(&Entry) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut entries = self.history(key).await?;
        entries.truncate(limit);
        match self.readable(entries, decode).await {
            (readable, Some(error)) if readable.is_empty() => Err(error),
            (readable, _) => Ok(readable),
        }
    }

    /// What can be decoded, and the last error of what cannot. Yields to the worker's other requests after every
    /// [`BYTES_PER_TURN`].
    async fn readable<T>(
        &self,
        entries: Vec<Entry>,
        decode: impl Fn(&Entry) -> Result<T, Error>,
    ) -> (Vec<T>, Option<Error>) {
        let mut readable = Vec::with_capacity(entries.len());
        let mut last_error = None;
        let mut turn = 0;
        for entry in entries {
            turn += entry.value.len();
            if turn > BYTES_PER_TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
            match decode(&entry) {
                Ok(value) => readable.push(value),
                Err(error) => {
                    self.skip(&entry.key, &error);
                    last_error = Some(error);
                }
            }
        }
        (readable, last_error)
    }

    /// Names a record that cannot be decoded in the log, and counts it in the metric `unreadable_records`.
    pub fn skip(&self, key: &str, error: &Error) {
        tracing::error!(bucket = self.name, key, %error, "skipped an unreadable record");
        metrics::count_unreadable(&self.name);
    }

    async fn subjects_once(&self, filter: &str) -> Result<Vec<String>, Error> {
        let failed = |error: &dyn std::fmt::Display| self.failed("list", filter, error);
        let listing =
            self.stream().await?.info_with_subjects(self.subject(filter)).await.map_err(|error| failed(&error))?;
        listing.map_ok(|(subject, _)| subject).try_collect().await.map_err(|error| failed(&error))
    }

    /// The stored revisions of one key, newest first, without deletions.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn history(&self, key: &str) -> Result<Vec<Entry>, Error> {
        trace::storage("history", &self.name, retry_until_deadline(is_unavailable, || self.history_once(key))).await
    }

    async fn history_once(&self, key: &str) -> Result<Vec<Entry>, Error> {
        let stream = self.stream().await?;
        let subject = self.subject(key);
        let mut entries = Vec::new();
        let mut from = 1;
        loop {
            match stream.get_first_raw_message_by_subject(&subject, from).await {
                Ok(message) => {
                    from = message.sequence + 1;
                    entries.extend(self.entry(message));
                }
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => break,
                Err(error) => return Err(self.failed("read", key, &error)),
            }
        }
        entries.reverse();
        Ok(entries)
    }

    /// The first message of a key that matches `filter`, from this revision on.
    pub(crate) async fn next_message(&self, filter: &str, from: u64) -> Result<Option<KeyMessage>, Error> {
        retry_until_deadline(is_unavailable, || self.next_message_once(filter, from)).await
    }

    async fn next_message_once(&self, filter: &str, from: u64) -> Result<Option<KeyMessage>, Error> {
        match self.stream().await?.get_first_raw_message_by_subject(&self.subject(filter), from).await {
            Ok(message) => {
                let key = message.subject.strip_prefix(&self.subject("")).unwrap_or_default().to_owned();
                Ok(Some(KeyMessage { key, revision: message.sequence, entry: self.entry(message) }))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.failed("read", filter, &error)),
        }
    }

    /// The revision of the latest write to the bucket.
    pub(crate) async fn last_revision(&self) -> Result<u64, Error> {
        retry_until_deadline(is_unavailable, || async {
            let stream = self.fleet.connection().jetstream.get_stream(format!("KV_{}", self.name)).await;
            let stream = stream.map_err(|error| self.failed("read", "the latest revision", &error))?;
            Ok(stream.cached_info().state.last_sequence)
        })
        .await
    }

    /// How many messages of keys that match `filter` there are after this revision. Any replica may answer, so the latest writes
    /// may be missing.
    pub(crate) async fn count_after(&self, filter: &str, revision: u64) -> Result<u64, Error> {
        retry_until_deadline(is_unavailable, || self.count_after_once(filter, revision)).await
    }

    async fn count_after_once(&self, filter: &str, revision: u64) -> Result<u64, Error> {
        // The first of a batch says how many come after it.
        let request = serde_json::json!({ "seq": revision + 1, "next_by_subj": self.subject(filter), "batch": 1 });
        let subject = format!("$JS.API.DIRECT.GET.KV_{}", self.name);
        let failed = |error: &dyn std::fmt::Display| self.failed("count", filter, error);
        let client = &self.fleet.connection().client;
        let answer = client.request(subject, request.to_string().into()).await.map_err(|error| failed(&error))?;
        match answer.status {
            None => {
                let pending = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Num-Pending"));
                let pending: Option<u64> = pending.and_then(|pending| pending.as_str().parse().ok());
                pending.map(|pending| pending + 1).ok_or_else(|| failed(&"the server does not say how many there are"))
            }
            Some(StatusCode::NOT_FOUND) => Ok(0),
            Some(status) => Err(failed(&answer.description.unwrap_or_else(|| status.to_string()))),
        }
    }

    async fn stream(&self) -> Result<Stream<()>, Error> {
        let stream = self.fleet.connection().jetstream.get_stream_no_info(format!("KV_{}", self.name)).await;
        stream.map_err(|error| Error::internal(format_args!("bucket `{}`: {error}", self.name)))
    }

    async fn store(&self) -> Result<kv::Store, Error> {
        self.fleet.connection().store(&self.name).await
    }

    pub(crate) fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name)
    }

    fn entry(&self, message: StreamMessage) -> Option<Entry> {
        if message.headers.get("KV-Operation").is_some() {
            return None;
        }
        let key = message.subject.strip_prefix(&self.subject(""))?.to_owned();
        Some(Entry { key, value: message.payload, revision: message.sequence })
    }

    pub(crate) fn failed(&self, verb: &str, key: &str, error: &dyn std::fmt::Display) -> Error {
        Error::unavailable(format_args!("failed to {verb} `{key}` in bucket `{}`: {error}", self.name))
    }

    /// A value that is too large stays so: no repeat can succeed.
    pub(crate) fn not_written(&self, key: &str, size: usize, error: &(dyn std::error::Error + 'static)) -> Error {
        if is_too_large(error) {
            return self.too_large(key, size);
        }
        self.failed("write", key, &error)
    }

    pub(crate) fn too_large(&self, key: &str, size: usize) -> Error {
        Error::invalid(format_args!("the value of `{key}` has {size} bytes, too many for bucket `{}`", self.name))
    }

    pub(crate) fn invalid(&self, key: &str) -> Error {
        Error::invalid(format_args!("`{key}` is not a valid key for bucket `{}`", self.name))
    }
}

/// Whether clients of key-value buckets take this for a key.
fn is_valid_key(key: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=/.".contains(&byte);
    !key.is_empty() && !key.starts_with('.') && !key.ends_with('.') && key.bytes().all(is_allowed)
}

/// Whether the client or the server says that a message is larger than it may be.
pub(crate) fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let by_client = error.downcast_ref::<PublishError>().map(PublishError::kind);
        let by_server = error.downcast_ref::<jetstream::Error>().map(jetstream::Error::error_code);
        by_client == Some(PublishErrorKind::MaxPayloadExceeded)
            || by_server == Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
    })
}

/// A random delay, so that conflicting writers do not retry at the same moment.
fn backoff(attempt: u32) -> Duration {
    Duration::from_micros(fastrand::u64(0..4_000 << attempt.min(5)))
}

//! State: key-value buckets with compare-and-set. Reads go to the leader, so that a task reads what another has just written.

use std::time::Duration;

use async_nats::jetstream::kv::{CreateErrorKind, UpdateErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use proto::rpc::{Code, Error};

use crate::fleet::Fleet;
use crate::patience::patiently;

/// Reads of one listing that are on their way at the same time.
const READS_AT_ONCE: usize = 32;
/// How often a change is tried while others write the same value.
const ATTEMPTS: u32 = 16;

/// A key-value bucket that the manifest declares. Keys consist of letters, digits, `-`, `_`, `=`, `/` and `.`.
#[derive(Clone, Debug)]
pub struct Bucket {
    fleet: Fleet,
    name: String,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// Grows with every write to the bucket; names this write.
    pub revision: u64,
}

/// What is to become of a value, and what whoever decided it wants to know afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// The value stays as it is.
    Keep(T),
    /// This takes its place.
    Write(Bytes, T),
}

/// Why a write was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Somebody else wrote in between: read again.
    #[error("somebody else wrote in between")]
    Conflict,
    /// The write failed, or it is not known whether it was done.
    #[error("{0}")]
    Failed(Error),
}

/// Nobody answers for the bucket just now.
fn is_away(error: &Error) -> bool {
    error.code() == Code::Unavailable
}

/// Trying again is safe even if the write was done and only its confirmation got lost: then it is a conflict, and whoever reads
/// again sees what was written.
fn could_not_write(error: &WriteError) -> bool {
    matches!(error, WriteError::Failed(error) if is_away(error))
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

    /// The newest value; `None` if there is none or it was deleted.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        patiently(is_away, || self.get_once(key)).await
    }

    async fn get_once(&self, key: &str) -> Result<Option<Entry>, Error> {
        let stream = self.stream().await?;
        match stream.get_last_raw_message_by_subject(&self.subject(key)).await {
            Ok(message) => Ok(self.entry(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.failed("read", key, &error)),
        }
    }

    /// Writes a value that must not be there yet, and returns its revision.
    ///
    /// # Errors
    /// Conflict if it is there.
    pub async fn create(&self, key: &str, value: Bytes) -> Result<u64, WriteError> {
        patiently(could_not_write, || self.create_once(key, value.clone())).await
    }

    async fn create_once(&self, key: &str, value: Bytes) -> Result<u64, WriteError> {
        let store = self.fleet.link().store(&self.name).await.map_err(WriteError::Failed)?;
        store.create(key, value).await.map_err(|error| match error.kind() {
            CreateErrorKind::AlreadyExists => WriteError::Conflict,
            CreateErrorKind::InvalidKey => WriteError::Failed(self.invalid(key)),
            _ => WriteError::Failed(self.failed("write", key, &error)),
        })
    }

    /// Writes a value if the newest revision is still `expected`, and returns the new revision.
    ///
    /// # Errors
    /// Conflict if it is not.
    pub async fn update(&self, key: &str, value: Bytes, expected: u64) -> Result<u64, WriteError> {
        patiently(could_not_write, || self.update_once(key, value.clone(), expected)).await
    }

    async fn update_once(&self, key: &str, value: Bytes, expected: u64) -> Result<u64, WriteError> {
        let store = self.fleet.link().store(&self.name).await.map_err(WriteError::Failed)?;
        store.update(key, value, expected).await.map_err(|error| match error.kind() {
            UpdateErrorKind::WrongLastRevision => WriteError::Conflict,
            UpdateErrorKind::InvalidKey => WriteError::Failed(self.invalid(key)),
            _ => WriteError::Failed(self.failed("write", key, &error)),
        })
    }

    /// Makes of the newest value what `decide` says, and starts over if somebody else wrote in between. Returns what came with the
    /// decision, and the revision that the value has now; 0 if there is none.
    ///
    /// # Errors
    /// Conflict if somebody else wrote in between every time; what `decide` refuses.
    pub async fn change<T>(
        &self,
        key: &str,
        mut decide: impl FnMut(Option<&Entry>) -> Result<Change<T>, Error>,
    ) -> Result<(T, u64), WriteError> {
        for attempt in 0..ATTEMPTS {
            let current = self.get(key).await.map_err(WriteError::Failed)?;
            let written = match (decide(current.as_ref()).map_err(WriteError::Failed)?, &current) {
                (Change::Keep(kept), _) => return Ok((kept, current.map_or(0, |current| current.revision))),
                (Change::Write(value, next), None) => (self.create(key, value).await, next),
                (Change::Write(value, next), Some(current)) => (self.update(key, value, current.revision).await, next),
            };
            match written {
                (Ok(revision), next) => return Ok((next, revision)),
                (Err(WriteError::Conflict), _) => tokio::time::sleep(pause(attempt)).await,
                (Err(error), _) => return Err(error),
            }
        }
        Err(WriteError::Conflict)
    }

    /// Writes a value, whatever is there, and returns its revision.
    ///
    /// # Errors
    /// UNAVAILABLE if the write was not confirmed.
    pub async fn put(&self, key: &str, value: Bytes) -> Result<u64, Error> {
        patiently(is_away, || self.put_once(key, value.clone())).await
    }

    async fn put_once(&self, key: &str, value: Bytes) -> Result<u64, Error> {
        let store = self.fleet.link().store(&self.name).await?;
        store.put(key, value).await.map_err(|error| self.failed("write", key, &error))
    }

    /// Deletes a value; its history stays.
    ///
    /// # Errors
    /// UNAVAILABLE if the deletion was not confirmed.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        patiently(is_away, || self.delete_once(key)).await
    }

    async fn delete_once(&self, key: &str) -> Result<(), Error> {
        let store = self.fleet.link().store(&self.name).await?;
        store.delete(key).await.map_err(|error| self.failed("delete", key, &error))
    }

    /// The newest value of every key that matches `filter` (`player1.*`, `>`), ordered by key.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn entries(&self, filter: &str) -> Result<Vec<Entry>, Error> {
        let mut subjects = patiently(is_away, || self.subjects_once(filter)).await?;
        subjects.sort_unstable();
        let prefix = self.subject("");
        // Owned keys and handles: the compiler cannot show that a stream of borrowing futures may move between threads.
        let reads = subjects.into_iter().map(move |subject| {
            let bucket = self.clone();
            let key = subject.strip_prefix(&prefix).unwrap_or(&subject).to_owned();
            async move { bucket.get(&key).await }
        });
        let entries: Vec<Option<Entry>> = futures::stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(entries.into_iter().flatten().collect())
    }

    async fn subjects_once(&self, filter: &str) -> Result<Vec<String>, Error> {
        let failed = |error: &dyn std::fmt::Display| self.failed("list", filter, error);
        let listing =
            self.stream().await?.info_with_subjects(self.subject(filter)).await.map_err(|error| failed(&error))?;
        listing.map_ok(|(subject, _)| subject).try_collect().await.map_err(|error| failed(&error))
    }

    /// The revisions of one key that are kept, the newest first. Deletions are left out.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn history(&self, key: &str) -> Result<Vec<Entry>, Error> {
        patiently(is_away, || self.history_once(key)).await
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

    async fn stream(&self) -> Result<Stream<()>, Error> {
        let stream = self.fleet.link().jetstream.get_stream_no_info(format!("KV_{}", self.name)).await;
        stream.map_err(|error| Error::internal(format_args!("bucket `{}`: {error}", self.name)))
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name)
    }

    fn entry(&self, message: StreamMessage) -> Option<Entry> {
        if message.headers.get("KV-Operation").is_some() {
            return None;
        }
        let key = message.subject.strip_prefix(&self.subject(""))?.to_owned();
        Some(Entry { key, value: message.payload, revision: message.sequence })
    }

    fn failed(&self, verb: &str, key: &str, error: &dyn std::fmt::Display) -> Error {
        Error::unavailable(format_args!("failed to {verb} `{key}` in bucket `{}`: {error}", self.name))
    }

    fn invalid(&self, key: &str) -> Error {
        Error::invalid(format_args!("`{key}` is no key for bucket `{}`", self.name))
    }
}

/// Those who collide wait for different times, so that they do not collide again.
fn pause(attempt: u32) -> Duration {
    Duration::from_micros(fastrand::u64(0..4_000 << attempt.min(5)))
}

/// Refuses an id that could not be one part of a key, or is longer than `most`; `what` names it, for example `player id`.
///
/// # Errors
/// INVALID_ARGUMENT that says what is allowed.
pub fn check_id(what: &str, id: &str, most: usize) -> Result<(), Error> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if (1..=most).contains(&id.len()) && id.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::invalid(format_args!("{what} must be 1 to {most} letters, digits, `_` and `-`")))
}

//! Typed records in a bucket: read, and changed by compare-and-set together with the events that follow. Each record
//! remembers the operations that changed it, so that a repeated request changes nothing.

mod follow;
mod key;
mod stored;

use std::fmt;
use std::marker::PhantomData;

use proto::rpc::{Code, Error, Event, Record};

pub use self::follow::{Follow, Followed, FollowedGuard, Update};
pub use self::key::{Id, RecordKey};
pub use self::stored::Stored;
use crate::bucket::{Bucket, Change, ValueChange, WriteError};
use crate::events::EncodedEvent;
use crate::fleet::Fleet;
use crate::operations::Operation;

/// The most records that change together.
const MAX_KEYS: usize = 100;

/// The records of one bucket. Cheap to clone.
pub struct Records<R> {
    bucket: Bucket,
    record: PhantomData<fn() -> R>,
}

/// What to do with a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Next<R> {
    record: NextRecord<R>,
    events: Vec<EncodedEvent>,
}

#[derive(Clone, Debug, PartialEq)]
enum NextRecord<R> {
    Keep,
    Write(R),
    Delete,
}

impl<R> Next<R> {
    /// Change nothing.
    pub fn keep() -> Self {
        Self { record: NextRecord::Keep, events: Vec::new() }
    }

    /// Write this record.
    pub fn write(record: R) -> Self {
        Self { record: NextRecord::Write(record), events: Vec::new() }
    }

    /// Delete the record, and with it the memory of the operations that changed it.
    pub fn delete() -> Self {
        Self { record: NextRecord::Delete, events: Vec::new() }
    }

    /// Publishes an event that follows from the change: exactly once, if and only if the change is stored.
    #[must_use]
    pub fn and_publish<E: Event>(mut self, event: E) -> Self {
        self.events.push(EncodedEvent::new(event));
        self
    }
}

impl Fleet {
    /// The records of a bucket that this service's manifest declares.
    ///
    /// # Errors
    /// UNAVAILABLE if there is no such bucket.
    pub async fn records<R: Record>(&self, bucket: &str) -> Result<Records<R>, Error> {
        Ok(Records { bucket: self.bucket(bucket).await?, record: PhantomData })
    }
}

impl<R: Record> Records<R> {
    /// The record; `None` if there is none.
    ///
    /// # Errors
    /// DATA_LOSS if it cannot be decoded, UNAVAILABLE if the bucket does not answer.
    pub async fn find<K: RecordKey + ?Sized>(&self, key: &K) -> Result<Option<Stored<R>>, Error> {
        let entry = self.bucket.get(&key.bucket_key()).await?;
        entry.map(|entry| self.decode(&entry)).transpose()
    }

    /// The record.
    ///
    /// # Errors
    /// NOT_FOUND if there is none; those of [`Records::find`].
    pub async fn get<K: RecordKey + ?Sized>(&self, key: &K) -> Result<Stored<R>, Error> {
        self.find(key).await?.ok_or_else(|| Error::not_found(key))
    }

    /// All records whose keys match `filter` (`player1.*`, `>`), ordered by key. One that cannot be decoded is left out, named
    /// in the log and counted in the metric `unreadable_records`.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn list(&self, filter: &str) -> Result<Vec<Stored<R>>, Error> {
        self.bucket.decoded(filter, |entry| self.decode(entry)).await
    }

    /// The stored revisions of a record, newest first and at most `limit`; those that cannot be decoded are left out as in
    /// [`Records::list`].
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer; DATA_LOSS if there are revisions and none can be decoded.
    pub async fn history<K: RecordKey + ?Sized>(&self, key: &K, limit: usize) -> Result<Vec<Stored<R>>, Error> {
        self.bucket.decoded_history(&key.bucket_key(), limit, |entry| self.decode(entry)).await
    }

    /// Changes a record as `next` says, which is asked again if another writer was faster. Returns the record as it is then;
    /// as it was before if `next` deletes it.
    ///
    /// A request with an idempotency key is remembered even if it changes nothing: when it comes again, it must not undo what
    /// others changed meanwhile. A repeated one gets the record as it was after the first time, if that revision is still
    /// stored.
    ///
    /// # Errors
    /// Those of `next`; ABORTED if other writers were faster each time; FAILED_PRECONDITION if the operation's idempotency key
    /// was used for another request.
    pub async fn change<K: RecordKey + ?Sized>(
        &self,
        key: &K,
        operation: &Operation,
        next: impl FnMut(Option<&Stored<R>>) -> Result<Next<R>, Error>,
    ) -> Result<Stored<R>, Error> {
        let record = self.change_one(key, Some(operation), next).await?;
        record.ok_or_else(|| Error::not_found(key))
    }

    /// The same of a record that exists: `None` if there is none, and then nothing changes.
    ///
    /// # Errors
    /// Those of [`Records::change`].
    pub async fn change_existing<K: RecordKey + ?Sized>(
        &self,
        key: &K,
        operation: &Operation,
        next: impl FnMut(&Stored<R>) -> Result<Next<R>, Error>,
    ) -> Result<Option<Stored<R>>, Error> {
        self.change_one(key, Some(operation), or_keep(next)).await
    }

    /// Changes a record for no request, if it exists; no operation is remembered. What `next` decides must follow from the record
    /// alone, so that deciding it again, in another task, changes nothing more.
    ///
    /// # Errors
    /// Those of [`Records::change`].
    pub async fn update<K: RecordKey + ?Sized>(
        &self,
        key: &K,
        next: impl FnMut(&Stored<R>) -> Result<Next<R>, Error>,
    ) -> Result<Option<Stored<R>>, Error> {
        self.change_one(key, None, or_keep(next)).await
    }

    async fn change_one<K: RecordKey + ?Sized>(
        &self,
        key: &K,
        operation: Option<&Operation>,
        mut next: impl FnMut(Option<&Stored<R>>) -> Result<Next<R>, Error>,
    ) -> Result<Option<Stored<R>>, Error> {
        let keys = [key];
        let changed = self.change_keys(&keys, operation, |current| {
            let next = next(current.first().and_then(Option::as_ref))?;
            Ok(vec![next])
        });
        Ok(changed.await?.into_iter().next().flatten())
    }

    /// Changes several records of the bucket, all of them or none. `next` gives one [`Next`] for each key, in their order. The
    /// first record remembers the operation: it must be one that `next` writes. Returns the records as [`Records::change`]
    /// does; `None` for those that are not there.
    ///
    /// # Errors
    /// Those of [`Records::change`].
    pub async fn change_all<K: RecordKey + ?Sized>(
        &self,
        keys: &[&K],
        operation: &Operation,
        next: impl FnMut(&[Option<Stored<R>>]) -> Result<Vec<Next<R>>, Error>,
    ) -> Result<Vec<Option<Stored<R>>>, Error> {
        self.change_keys(keys, Some(operation), next).await
    }

    async fn change_keys<K: RecordKey + ?Sized>(
        &self,
        keys: &[&K],
        operation: Option<&Operation>,
        mut next: impl FnMut(&[Option<Stored<R>>]) -> Result<Vec<Next<R>>, Error>,
    ) -> Result<Vec<Option<Stored<R>>>, Error> {
        let Some(first) = keys.first().filter(|_| keys.len() <= MAX_KEYS) else {
            return Err(Error::internal(format_args!("{} records cannot change together", keys.len())));
        };
        let names: Vec<_> = keys.iter().map(|key| key.bucket_key()).collect();
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let changed = self.bucket.change_all(&names, |entries| {
            let mut records = Vec::with_capacity(entries.len());
            for entry in entries {
                records.push(entry.as_ref().map(|entry| self.decode(entry)).transpose()?);
            }
            let now = self.bucket.fleet().clock().now();
            if let (Some(Some(record)), Some(operation)) = (records.first(), operation)
                && record.operations.contain(operation, now)?
            {
                let keep = records.iter().map(|_| ValueChange::Keep).collect();
                return Ok(Change::all(keep, Vec::new(), (records, true)));
            }
            let mut events = Vec::new();
            let mut changes = Vec::with_capacity(records.len());
            let next = next(&records)?.into_iter();
            for (index, (next, (record, name))) in next.zip(records.iter_mut().zip(&names)).enumerate() {
                let remembered = operation.filter(|_| index == 0).map(|operation| (operation, now));
                changes.push(Stored::replace(record, name, next.record, !next.events.is_empty(), remembered)?);
                events.extend(next.events);
            }
            Ok(Change::all(changes, events, (records, false)))
        });
        let ((mut records, is_repeated), revisions) = changed.await.map_err(|error| match error {
            WriteError::Conflict => {
                Error::new(Code::Aborted, format!("{first} is being changed by too many other writers"))
            }
            WriteError::Failed(error) => error,
        })?;
        for (record, revision) in records.iter_mut().zip(revisions) {
            // What was deleted is as it was.
            if let Some(record) = record.as_mut().filter(|record| record.revision == 0) {
                record.set_revision(revision);
            }
        }
        if let (true, [Some(record)], Some(operation)) = (is_repeated, &mut records[..], operation)
            && !record.operations.end_with(operation)
        {
            let earlier = self.history(*first, usize::MAX).await?.into_iter();
            if let Some(first_time) = { earlier }.find(|earlier| earlier.operations.end_with(operation)) {
                *record = first_time;
            }
        }
        Ok(records)
    }

    /// Writes a record that no operation remembers, unless there is one already: for what a service brings along, or what its key
    /// identifies. Returns the revision that was written; `None` if there is one already.
    ///
    /// # Errors
    /// UNAVAILABLE if the write was not confirmed.
    pub async fn create<K: RecordKey + ?Sized>(&self, key: &K, record: &R) -> Result<Option<u64>, Error> {
        let key = key.bucket_key();
        match self.bucket.create(&key, Stored::new(&key, record.clone()).encode().into()).await {
            Ok(revision) => Ok(Some(revision)),
            Err(WriteError::Conflict) => Ok(None),
            Err(WriteError::Failed(error)) => Err(error),
        }
    }

    /// How many changes of records whose keys match `filter` there are after revision `since`; in a bucket that keeps one revision
    /// of each record, how many records. The latest changes may not be counted yet.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn count_since(&self, filter: &str, since: u64) -> Result<u64, Error> {
        self.bucket.count_after(filter, since).await
    }

    /// The revision of the latest change of any record of the bucket; 0 if there was none.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn revision(&self) -> Result<u64, Error> {
        self.bucket.last_revision().await
    }

    /// The bucket.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    fn decode(&self, entry: &crate::bucket::Entry) -> Result<Stored<R>, Error> {
        Stored::decode(self.bucket.name(), entry)
    }
}

/// What to do with a record if there is one.
fn or_keep<R>(
    mut next: impl FnMut(&Stored<R>) -> Result<Next<R>, Error>,
) -> impl FnMut(Option<&Stored<R>>) -> Result<Next<R>, Error> {
    move |current| current.map_or_else(|| Ok(Next::keep()), &mut next)
}

impl<R> Clone for Records<R> {
    fn clone(&self) -> Self {
        Self { bucket: self.bucket.clone(), record: PhantomData }
    }
}

impl<R> fmt::Debug for Records<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({})", self.bucket.name())
    }
}

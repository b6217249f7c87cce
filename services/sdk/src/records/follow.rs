//! Records as they change: what was stored after a revision, and what a worker derives from all records of a bucket and keeps
//! current.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use proto::rpc::{Error, Record, Stream};

use super::{Records, Stored};

/// How often a bucket is read for changes, apart from jitter.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same for a caller that waits for changes.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// Changes that are read before they are handed on.
const BATCH: usize = 256;

/// What a stream of changes does when it has had all of them.
#[derive(Clone, Copy)]
enum AtEnd {
    Stop,
    Wait,
}

/// A change of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Update<R> {
    /// The record's key in the bucket.
    pub key: String,
    /// The revision of the change.
    pub revision: u64,
    /// The record from now on; `None` if it was deleted.
    pub record: Option<Stored<R>>,
}

/// What is derived from the records of a bucket, one change after another.
pub trait Follow<R>: Send + 'static {
    /// Takes a change in. A change may come more than once, and never after a later one of the same record.
    fn apply(&mut self, update: Update<R>);
}

/// A copy of all records.
impl<R: Record> Follow<R> for BTreeMap<String, Stored<R>> {
    fn apply(&mut self, update: Update<R>) {
        match update.record {
            Some(record) => self.insert(update.key, record),
            None => self.remove(&update.key),
        };
    }
}

/// What a worker derives from the records of a bucket: complete, and at most about a second behind.
pub struct Followed<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    derived: T,
    /// All changes up to this revision are taken in.
    revision: u64,
    /// Own writes that the follower has not seen yet: their revisions, by key.
    own: BTreeMap<String, u64>,
}

impl<T> Followed<T> {
    /// What is derived. Do not hold it across an `await`.
    pub fn read(&self) -> FollowedGuard<'_, T> {
        FollowedGuard(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The revision up to which every change is taken in.
    pub fn revision(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).revision
    }

    /// Takes in what this worker has just written, so that it reads its own writes at once.
    pub fn wrote<R>(&self, update: Update<R>)
    where
        T: Follow<R>,
    {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = state.own.entry(update.key.clone()).or_default();
        if *latest < update.revision {
            *latest = update.revision;
            state.derived.apply(update);
        }
    }

    /// Takes in that this worker has just deleted a record, which was as it is returned then.
    pub fn deleted<R>(&self, record: &Stored<R>)
    where
        T: Follow<R>,
    {
        // The deletion is later than what it deleted, and its own revision is not known.
        self.wrote(Update { key: record.key.clone(), revision: record.revision + 1, record: None });
    }

    /// Takes in all changes up to a revision.
    fn saw<R>(&self, updates: Vec<Update<R>>, revision: u64)
    where
        T: Follow<R>,
    {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for update in updates {
            match state.own.get(&update.key) {
                Some(own) if update.revision < *own => continue,
                Some(_) => drop(state.own.remove(&update.key)),
                None => {}
            }
            state.derived.apply(update);
        }
        state.revision = revision;
    }
}

impl<T> Clone for Followed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Followed")
    }
}

/// Access to what is derived.
#[derive(Debug)]
pub struct FollowedGuard<'a, T>(MutexGuard<'a, State<T>>);

impl<T> std::ops::Deref for FollowedGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.derived
    }
}

impl<T: fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.derived.fmt(f)
    }
}

impl<R> From<Stored<R>> for Update<R> {
    fn from(record: Stored<R>) -> Self {
        Self { key: record.key.clone(), revision: record.revision, record: Some(record) }
    }
}

impl<R: Record> Records<R> {
    /// The changes after revision `since` of records whose keys match `filter`, oldest first and at most `limit`. A bucket
    /// that keeps one revision of each record has the latest change of each. A record that cannot be decoded is left out as
    /// in [`Records::list`].
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn changes(&self, filter: &str, since: u64, limit: usize) -> Result<Vec<Update<R>>, Error> {
        let mut updates = Vec::new();
        let mut from = since + 1;
        while updates.len() < limit {
            let Some(message) = self.bucket.next_message(filter, from).await? else { break };
            from = message.revision + 1;
            let record = match message.entry.map(|entry| self.decode(&entry)).transpose() {
                Ok(record) => record,
                Err(error) => {
                    self.bucket.skip(&message.key, &error);
                    continue;
                }
            };
            updates.push(Update { key: message.key, revision: message.revision, record });
        }
        Ok(updates)
    }

    /// The same as a stream of all of them, which ends when there are no more. A failure to read the bucket is its last item.
    pub fn changes_since(&self, filter: &str, since: u64) -> Stream<Update<R>> {
        self.batches(filter, since, AtEnd::Stop)
    }

    /// The changes after revision `since`, and those to come. The stream does not end; a failure to read the bucket is its
    /// last item.
    pub fn watch(&self, filter: &str, since: u64) -> Stream<Update<R>> {
        self.batches(filter, since, AtEnd::Wait)
    }

    fn batches(&self, filter: &str, since: u64, at_end: AtEnd) -> Stream<Update<R>> {
        let state = (self.clone(), filter.to_owned(), since);
        let batches = futures::stream::try_unfold(state, move |(records, filter, since)| async move {
            loop {
                let updates = records.changes(&filter, since, BATCH).await?;
                if let Some(last) = updates.last() {
                    let next = (records, filter, last.revision);
                    return Ok(Some((updates, next)));
                }
                match at_end {
                    AtEnd::Stop => return Ok(None),
                    AtEnd::Wait => tokio::time::sleep(jittered(WATCH_INTERVAL)).await,
                }
            }
        });
        batches
            .flat_map(|batch| {
                let items: Vec<Result<Update<R>, Error>> = match batch {
                    Ok(updates) => updates.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                };
                futures::stream::iter(items)
            })
            .boxed()
    }

    /// Applies all records to `derived`, and from then on each change, until the worker ends.
    ///
    /// # Errors
    /// UNAVAILABLE if the bucket does not answer.
    pub async fn follow<T: Follow<R>>(&self, derived: T) -> Result<Followed<T>, Error> {
        let followed = Followed(Arc::new(Mutex::new(State { derived, revision: 0, own: BTreeMap::new() })));
        let since = self.load(&followed).await?;
        let follower = Follower { records: self.clone(), followed: followed.clone(), since, problem: None };
        tokio::spawn(follower.run());
        Ok(followed)
    }

    /// Applies all records. Returns the revision that they are at least at.
    async fn load<T: Follow<R>>(&self, followed: &Followed<T>) -> Result<u64, Error> {
        let since = self.bucket.last_revision().await?;
        followed.saw(self.list(">").await?.into_iter().map(Update::from).collect(), since);
        Ok(since)
    }
}

struct Follower<R, T> {
    records: Records<R>,
    followed: Followed<T>,
    /// The revision up to which everything is applied.
    since: u64,
    problem: Option<Error>,
}

impl<R: Record, T: Follow<R>> Follower<R, T> {
    async fn run(mut self) {
        loop {
            tokio::time::sleep(jittered(INTERVAL)).await;
            let problem = self.read().await.err();
            if let Some(error) = problem.as_ref().filter(|_| self.problem.is_none()) {
                tracing::error!(records = ?self.records, %error, "changes cannot be read, trying again");
            }
            self.problem = problem;
        }
    }

    async fn read(&mut self) -> Result<(), Error> {
        let last = self.records.bucket.last_revision().await?;
        if last < self.since {
            // The bucket was made anew, and counts from 1 again.
            self.since = 0;
        }
        while self.since < last {
            let updates = self.records.changes(">", self.since, BATCH).await?;
            self.since = updates.last().map_or(last, |update| update.revision);
            self.followed.saw(updates, self.since);
        }
        Ok(())
    }
}

/// So that the workers of a fleet do not all read at once.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.75 + fastrand::f64() / 2.0)
}

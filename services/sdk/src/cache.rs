//! Caches of computed values: in the process, and behind that in Redis, which all tasks of a service share.
//!
//! A cache saves time and never costs an answer: what fails in Redis is a miss that metrics count.

mod breaker;
mod entry;
mod key;
mod metrics;
mod redis;
mod settings;
mod store;

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use proto::rpc::Error;

pub use self::key::Key;
pub(crate) use self::settings::parse_caches;
pub use self::settings::{CacheSettings, RedisSettings};
pub use self::store::Caches;

use self::entry::Entry;
use self::metrics::Tier;
use self::redis::Failure;
pub(crate) use self::redis::Redis;
use self::store::{LocalKey, Store};

/// A cache of messages of the type `V`. Cheap to clone; clones are the same cache.
///
/// A worker opens it with `Fleet::cache`. The manifest of the service declares its name, how long a value lives and how
/// much of it is in the process.
pub struct Cache<V> {
    store: Arc<Store>,
    /// This worker's connections; absent if the cache is in the process alone.
    redis: Option<Arc<Redis>>,
    values: PhantomData<fn() -> V>,
}

impl<V: Message + Default> Cache<V> {
    pub(crate) fn open(caches: &Caches, redis: Option<Arc<Redis>>, service: &str, name: &str) -> Result<Self, Error> {
        let store = caches.open(service, name, type_name::<V>())?;
        Ok(Self { store, redis, values: PhantomData })
    }

    /// The value of `key`: the cached one, or else what `compute` returns.
    ///
    /// Of all callers in this task that ask for a key at the same time, one computes, and the others wait for it. If it is
    /// cancelled or panics, the next one computes. A value that expires soon may be computed again by one caller while
    /// the others still get the old one.
    ///
    /// # Errors
    /// Those of `compute`, for all who wait for it. They are not cached.
    pub async fn get_or<F, Fut>(&self, key: &Key, compute: F) -> Result<V, Error>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, Error>>,
    {
        let store = &self.store;
        let key = LocalKey { epoch: store.epoch(), digest: key.digest() };
        if let Some(entry) = store.entries.get(&key).await {
            if let Some(redis) = &self.redis {
                store.keep_current(redis);
            }
            if entry.is_due()
                && let Some(refreshing) = store.begin_refresh(key.digest)
            {
                let value = self.refresh(&key, &entry, compute).await;
                drop(refreshing);
                return value;
            }
            store.metrics.hit(Tier::Process, entry.age());
            return decode(&entry);
        }
        let mut own = None;
        let found = store.entries.try_get_with(key, async {
            let (entry, value) = self.find_or_compute(&key, compute).await?;
            own = Some(value);
            Ok(entry)
        });
        let entry = found.await.map_err(|error: Arc<Error>| (*error).clone())?;
        match own {
            Some(value) => Ok(value),
            None => {
                store.metrics.hit(Tier::Joined, entry.age());
                decode(&entry)
            }
        }
    }

    /// Removes the value of `key`, from this task and from Redis. Other tasks keep what they have in the process until it
    /// expires, so each task must invalidate on its own.
    pub async fn invalidate(&self, key: &Key) {
        let store = &self.store;
        store.metrics.invalidations.inc();
        store.keys_invalidated.fetch_add(1, Ordering::Relaxed);
        let key = LocalKey { epoch: store.epoch(), digest: key.digest() };
        store.entries.invalidate(&key).await;
        let Some(redis) = &self.redis else { return };
        let deleted = match store.shared_key(redis, &key).await {
            Some(shared) => redis.query::<()>(&shared, ::redis::cmd("DEL").arg(&shared)).await,
            None => Err(Failure::Unavailable),
        };
        if let Err(failure) = deleted {
            store.metrics.error(failure);
            // Redis may still have it, and is not read before it has a new generation.
            store.invalidate_all(Some(redis)).await;
        }
    }

    /// Removes all values: from this task at once, from Redis as soon as it can be reached, and from other tasks within
    /// seconds after that. A computation that is going on is not kept.
    pub async fn invalidate_all(&self) {
        self.store.invalidate_all(self.redis.as_ref()).await;
    }

    /// Whether this worker is connected to Redis.
    #[cfg(feature = "testing")]
    pub(crate) fn is_shared(&self) -> bool {
        self.redis.as_ref().is_some_and(|redis| redis.is_connected())
    }

    async fn find_or_compute<F, Fut>(&self, key: &LocalKey, compute: F) -> Result<(Arc<Entry>, V), Error>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, Error>>,
    {
        if let Some((entry, value)) = self.find_shared(key).await {
            self.store.metrics.hit(Tier::Shared, entry.age());
            return Ok((entry, value));
        }
        self.store.metrics.misses.inc();
        self.compute(key, compute).await
    }

    /// Computes a value again that has not expired yet, unless another task has done so. An error is no reason to
    /// withhold the value that is there.
    async fn refresh<F, Fut>(&self, key: &LocalKey, old: &Arc<Entry>, compute: F) -> Result<V, Error>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, Error>>,
    {
        let store = &self.store;
        if let Some((entry, value)) = self.find_shared(key).await.filter(|(entry, _)| entry.is_newer_than(old)) {
            store.metrics.hit(Tier::Shared, entry.age());
            store.entries.insert(*key, entry).await;
            return Ok(value);
        }
        store.metrics.refreshes.inc();
        match self.compute(key, compute).await {
            Ok((entry, value)) => {
                store.entries.insert(*key, entry).await;
                Ok(value)
            }
            Err(error) => {
                tracing::debug!(%error, "a value could not be computed again; the old one is used until it expires");
                store.metrics.hit(Tier::Process, old.age());
                decode(old)
            }
        }
    }

    /// Computes a value and writes it to the shared tier, without waiting for that.
    async fn compute<F, Fut>(&self, key: &LocalKey, compute: F) -> Result<(Arc<Entry>, V), Error>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, Error>>,
    {
        let store = &self.store;
        let (started, before) = (Instant::now(), store.keys_invalidated.load(Ordering::Relaxed));
        let value = compute().await?;
        let bytes = Bytes::from(value.encode_to_vec());
        if store.keys_invalidated.load(Ordering::Relaxed) != before {
            // It may be this key that was invalidated meanwhile. An entry without a lifetime is not kept.
            return Ok((Arc::new(Entry::new(bytes, started.elapsed(), std::time::Duration::ZERO)), value));
        }
        let entry = Arc::new(Entry::new(bytes, started.elapsed(), store.settings.ttl));
        self.write_shared(key, &entry).await;
        Ok((entry, value))
    }

    /// What Redis has under `key`. Anything but an entry of this cache is a miss, and will be overwritten.
    async fn find_shared(&self, key: &LocalKey) -> Option<(Arc<Entry>, V)> {
        let (store, redis) = (&self.store, self.redis.as_ref()?);
        let shared = store.shared_key(redis, key).await?;
        let found = match redis.query::<Option<Vec<u8>>>(&shared, ::redis::cmd("GET").arg(&shared)).await {
            Ok(found) => found?,
            Err(failure) => {
                store.metrics.error(failure);
                return None;
            }
        };
        let entry = Entry::decode(found, store.message, &key.digest);
        let decoded = entry.and_then(|entry| V::decode(entry.value.clone()).ok().map(|value| (entry, value)));
        let Some((entry, value)) = decoded else {
            store.metrics.error(Failure::Foreign);
            return None;
        };
        (!entry.remaining().is_zero()).then(|| (Arc::new(entry), value))
    }

    async fn write_shared(&self, key: &LocalKey, entry: &Entry) {
        let (store, Some(redis)) = (&self.store, &self.redis) else { return };
        let Some(shared) = store.shared_key(redis, key).await else { return };
        let lifetime = u64::try_from(entry.remaining().as_millis()).unwrap_or(u64::MAX).max(1);
        let bytes = entry.encode(store.message, &key.digest);
        let command = ::redis::cmd("SET").arg(&shared).arg(bytes).arg("PX").arg(lifetime).take();
        let store = Arc::clone(store);
        redis.send(shared, command, move |written| {
            if let Err(failure) = written {
                store.metrics.error(failure);
            }
        });
    }
}

/// Entries in the process were encoded by this process from this type.
fn decode<V: Message + Default>(entry: &Entry) -> Result<V, Error> {
    V::decode(entry.value.clone())
        .map_err(|error| Error::internal(format_args!("a cached value is malformed: {error}")))
}

impl<V> Clone for Cache<V> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), redis: self.redis.clone(), values: PhantomData }
    }
}

impl<V> fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.store).finish()
    }
}

#[cfg(test)]
mod tests;

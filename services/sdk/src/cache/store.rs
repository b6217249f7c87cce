//! The in-process tier of one cache, shared by the workers of a task, and what the task knows of its shared tier.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use moka::notification::RemovalCause;
use proto::rpc::Error;

use super::entry::Entry;
use super::key::{Digest, hex};
use super::metrics::CacheMetrics;
use super::redis::{Failure, Redis};
use super::settings::{CacheSettings, RedisSettings};

/// The generation is read again after this time, so a task that missed an invalidation hears of it.
const GENERATION_READ_EVERY: Duration = Duration::from_secs(1);
/// A generation that was read longer ago is not used.
const GENERATION_VALID_FOR: Duration = Duration::from_secs(5);
/// Redis forgets the generation of a cache that nobody has used for this time, in seconds: longer than any entry lives.
const GENERATION_KEPT_S: u64 = 86_400;

/// The caches of a task: those that its manifest declares, and where they are shared with other tasks. Clones are the same
/// caches.
#[derive(Clone, Debug, Default)]
pub struct Caches(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    declared: BTreeMap<String, CacheSettings>,
    redis: Option<RedisSettings>,
    open: Mutex<HashMap<String, Arc<Store>>>,
}

impl Caches {
    /// These caches, in the process alone if `redis` is absent.
    pub fn new(declared: BTreeMap<String, CacheSettings>, redis: Option<RedisSettings>) -> Self {
        Self(Arc::new(Inner { declared, redis, open: Mutex::default() }))
    }

    /// Connects a worker to the shared tier, if there are caches and Redis.
    pub(crate) fn connect(&self) -> Option<Arc<Redis>> {
        let redis = self.0.redis.as_ref().filter(|_| !self.0.declared.is_empty())?;
        Some(Arc::new(Redis::start(redis.clone())))
    }

    /// The cache of this name, for values of the type `message`.
    pub(crate) fn open(&self, service: &str, name: &str, message: &'static str) -> Result<Arc<Store>, Error> {
        let Some(settings) = self.0.declared.get(name) else {
            let declared: Vec<String> = self.0.declared.keys().map(|name| format!("`{name}`")).collect();
            let declared = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
            return Err(Error::failed_precondition(format_args!(
                "the manifest of `{service}` declares no cache `{name}`, only {declared}: add it to `caches`"
            )));
        };
        let mut open = lock(&self.0.open);
        let store =
            open.entry(name.to_owned()).or_insert_with(|| Arc::new(Store::new(service, name, message, *settings)));
        if store.message != message {
            let other = store.message;
            return Err(Error::failed_precondition(format_args!(
                "cache `{name}` of `{service}` is used for `{other}` and for `{message}`: declare one for each"
            )));
        }
        Ok(Arc::clone(store))
    }

    /// # Errors
    /// FAILED_PRECONDITION if the manifest declares a cache that the service does not use.
    pub(crate) fn refuse_unused(&self, service: &str) -> Result<(), Error> {
        let open = lock(&self.0.open);
        match self.0.declared.keys().find(|name| !open.contains_key(*name)) {
            None => Ok(()),
            Some(name) => Err(Error::failed_precondition(format_args!(
                "the manifest of `{service}` declares the cache `{name}`, which the service does not use: remove it from `caches`"
            ))),
        }
    }
}

/// The in-process tier of one cache.
pub(crate) struct Store {
    /// The type of the values.
    pub(crate) message: &'static str,
    pub(crate) settings: CacheSettings,
    pub(crate) metrics: CacheMetrics,
    /// What the keys in Redis begin with.
    namespace: String,
    pub(crate) entries: Cache<LocalKey, Arc<Entry>>,
    version: Mutex<Version>,
    /// Whether the generation is being read.
    reading: AtomicBool,
    /// Counts invalidations of single keys: a value whose computation began before one is not kept.
    pub(crate) keys_invalidated: AtomicU64,
    refreshing: Mutex<HashSet<Digest>>,
}

/// Entries of an earlier epoch are never found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LocalKey {
    pub(crate) epoch: u64,
    pub(crate) digest: Digest,
}

#[derive(Clone, Copy, Debug)]
struct Version {
    /// Counts the invalidations that this task knows of.
    epoch: u64,
    generation: Generation,
}

/// The generation is a part of every key in Redis. Another one makes all entries unreachable, for every task.
#[derive(Clone, Copy, Debug)]
enum Generation {
    Unknown,
    Known {
        generation: u64,
        read_at: Instant,
    },
    /// The cache was invalidated, and Redis does not know it yet. Until it does, nothing is read from it.
    Owed,
}

impl Store {
    fn new(service: &str, name: &str, message: &'static str, settings: CacheSettings) -> Self {
        let metrics = CacheMetrics::new(name);
        let evictions = metrics.evictions.clone();
        let entries = Cache::builder()
            .max_capacity(settings.max_bytes)
            .weigher(|_, entry: &Arc<Entry>| entry.weight())
            .expire_after(UntilExpired { ttl: settings.ttl })
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evictions.inc();
                }
            })
            .build();
        Self {
            message,
            settings,
            metrics,
            namespace: format!("cache:{service}:{name}"),
            entries,
            version: Mutex::new(Version { epoch: 0, generation: Generation::Unknown }),
            reading: AtomicBool::new(false),
            keys_invalidated: AtomicU64::new(0),
            refreshing: Mutex::default(),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        lock(&self.version).epoch
    }

    /// The key in Redis of an entry of the current generation; reads the generation if need be. `None` if the shared tier
    /// cannot be used now, or the epoch is over.
    pub(crate) async fn shared_key(self: &Arc<Self>, redis: &Arc<Redis>, key: &LocalKey) -> Option<String> {
        let usable = |version: Version| match version.generation {
            Generation::Known { generation, read_at } if read_at.elapsed() < GENERATION_VALID_FOR => Some(generation),
            _ => None,
        };
        let version = *lock(&self.version);
        let mut generation = usable(version);
        if generation.is_none() {
            if let Err(failure) = self.settle_generation(redis).await {
                self.metrics.error(failure);
                return None;
            }
            generation = usable(*lock(&self.version));
        } else {
            self.keep_current(redis);
        }
        let generation = generation.filter(|_| self.epoch() == key.epoch)?;
        Some(format!("{}:{generation:016x}:{}", self.namespace, hex(&key.digest)))
    }

    /// Reads the generation in the background if it was read some time ago.
    pub(crate) fn keep_current(self: &Arc<Self>, redis: &Arc<Redis>) {
        let is_current = match lock(&self.version).generation {
            Generation::Known { read_at, .. } => read_at.elapsed() < GENERATION_READ_EVERY,
            Generation::Unknown | Generation::Owed => false,
        };
        if is_current || !redis.is_connected() || self.reading.swap(true, Ordering::Relaxed) {
            return;
        }
        let reading = Reading(Arc::clone(self));
        let redis = Arc::clone(redis);
        tokio::spawn(async move {
            if let Err(failure) = reading.0.settle_generation(&redis).await {
                reading.0.metrics.error(failure);
            }
        });
    }

    /// Reads the generation, or writes a new one if this task owes an invalidation.
    async fn settle_generation(&self, redis: &Redis) -> Result<(), Failure> {
        let before = *lock(&self.version);
        let key = format!("{}:generation", self.namespace);
        let fresh = || fastrand::u64(..).to_string();
        let generation = if matches!(before.generation, Generation::Owed) {
            let generation = fresh();
            let command = redis::cmd("SET").arg(&key).arg(&generation).arg("EX").arg(GENERATION_KEPT_S).take();
            redis.query::<()>(&key, &command).await?;
            generation
        } else {
            let read = redis::cmd("GETEX").arg(&key).arg("EX").arg(GENERATION_KEPT_S).take();
            match redis.query::<Option<String>>(&key, &read).await? {
                Some(generation) => generation,
                // Random, so that what is left of an earlier generation is not found again.
                None => {
                    let command =
                        redis::cmd("SET").arg(&key).arg(fresh()).arg("EX").arg(GENERATION_KEPT_S).arg("NX").take();
                    redis.query::<Option<String>>(&key, &command).await?;
                    redis.query::<Option<String>>(&key, &read).await?.ok_or(Failure::Foreign)?
                }
            }
        };
        let generation: u64 = generation.parse().map_err(|_| Failure::Foreign)?;
        self.adopt(before, generation);
        Ok(())
    }

    /// Notes the generation, unless the cache was invalidated since it was asked for.
    fn adopt(&self, before: Version, generation: u64) {
        let mut version = lock(&self.version);
        if version.epoch != before.epoch {
            return;
        }
        // Another task invalidated the cache.
        if let Generation::Known { generation: known, .. } = version.generation
            && known != generation
        {
            version.epoch += 1;
            self.entries.invalidate_all();
        }
        version.generation = Generation::Known { generation, read_at: Instant::now() };
    }

    /// Makes every entry unreachable, in the process at once and in Redis as soon as it can be reached.
    pub(crate) async fn invalidate_all(&self, redis: Option<&Arc<Redis>>) {
        {
            let mut version = lock(&self.version);
            *version = Version { epoch: version.epoch + 1, generation: Generation::Owed };
        }
        self.metrics.invalidations.inc();
        self.entries.invalidate_all();
        if let Some(redis) = redis
            && let Err(failure) = self.settle_generation(redis).await
        {
            self.metrics.error(failure);
        }
    }

    /// Marks a key as being computed again, until the mark is dropped; `None` if it is already.
    pub(crate) fn begin_refresh(self: &Arc<Self>, digest: Digest) -> Option<Refreshing> {
        lock(&self.refreshing).insert(digest).then(|| Refreshing { store: Arc::clone(self), digest })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// A key that is being computed again.
#[derive(Debug)]
pub(crate) struct Refreshing {
    store: Arc<Store>,
    digest: Digest,
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        lock(&self.store.refreshing).remove(&self.digest);
    }
}

/// The generation is being read.
struct Reading(Arc<Store>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.reading.store(false, Ordering::Relaxed);
    }
}

/// An entry stays in the process until it expires, and no longer than the time to live, whatever the clocks of other
/// machines say.
struct UntilExpired {
    ttl: Duration,
}

impl Expiry<LocalKey, Arc<Entry>> for UntilExpired {
    fn expire_after_create(&self, _: &LocalKey, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.remaining().min(self.ttl))
    }

    fn expire_after_update(
        &self,
        _: &LocalKey,
        entry: &Arc<Entry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.remaining().min(self.ttl))
    }
}

/// A poisoned lock is fine: each value is written in one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

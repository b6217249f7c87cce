//! Metrics of caches.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::redis::Failure;
use crate::metrics::register_metrics;

/// Ages in seconds, up to the longest lifetime.
const AGES: [f64; 10] = [0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 240.0, 300.0];

type ByCache = [(&'static str, String); 1];
type ByCacheAnd = [(&'static str, String); 2];

struct Families {
    hits: Family<ByCacheAnd, Counter>,
    misses: Family<ByCache, Counter>,
    refreshes: Family<ByCache, Counter>,
    errors: Family<ByCacheAnd, Counter>,
    ages: Family<ByCache, Histogram>,
    evictions: Family<ByCache, Counter>,
    invalidations: Family<ByCache, Counter>,
    connected: Gauge,
}

fn families() -> &'static Families {
    static FAMILIES: OnceLock<Families> = OnceLock::new();
    FAMILIES.get_or_init(|| {
        let families = Families {
            hits: Family::default(),
            misses: Family::default(),
            refreshes: Family::default(),
            errors: Family::default(),
            ages: Family::new_with_constructor(|| Histogram::new(AGES)),
            evictions: Family::default(),
            invalidations: Family::default(),
            connected: Gauge::default(),
        };
        register_metrics(|registry| {
            registry.register(
                "cache_hits",
                "Values found in a cache, by tier: `process`, `shared` (Redis), or `joined` another caller's computation",
                families.hits.clone(),
            );
            registry.register("cache_misses", "Values that had to be computed", families.misses.clone());
            registry.register(
                "cache_refreshes",
                "Values computed again before they expired",
                families.refreshes.clone(),
            );
            registry.register(
                "cache_errors",
                "What the shared tier (Redis) failed at, by reason",
                families.errors.clone(),
            );
            registry.register("cache_hit_age_seconds", "Age of the values found in a cache", families.ages.clone());
            registry.register(
                "cache_evictions",
                "Values evicted from the process for lack of space, before they expired",
                families.evictions.clone(),
            );
            registry.register("cache_invalidations", "Invalidations", families.invalidations.clone());
            registry.register(
                "cache_redis_connected",
                "Workers that are connected to Redis",
                families.connected.clone(),
            );
        });
        families
    })
}

/// The workers of this task that are connected to Redis.
pub(crate) fn connected_workers() -> Gauge {
    families().connected.clone()
}

/// The metrics of one cache.
#[derive(Debug)]
pub(crate) struct CacheMetrics {
    cache: String,
    process: Counter,
    shared: Counter,
    joined: Counter,
    pub(crate) misses: Counter,
    pub(crate) refreshes: Counter,
    ages: Histogram,
    pub(crate) evictions: Counter,
    pub(crate) invalidations: Counter,
}

/// Where a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// In the process.
    Process,
    /// In Redis.
    Shared,
    /// Another caller in this task computed it meanwhile.
    Joined,
}

impl CacheMetrics {
    pub(crate) fn new(cache: &str) -> Self {
        let families = families();
        let label = [("cache", cache.to_owned())];
        let hits = |tier: &str| {
            let labels = [("cache", cache.to_owned()), ("tier", tier.to_owned())];
            families.hits.get_or_create(&labels).clone()
        };
        Self {
            cache: cache.to_owned(),
            process: hits("process"),
            shared: hits("shared"),
            joined: hits("joined"),
            misses: families.misses.get_or_create(&label).clone(),
            refreshes: families.refreshes.get_or_create(&label).clone(),
            ages: families.ages.get_or_create(&label).clone(),
            evictions: families.evictions.get_or_create(&label).clone(),
            invalidations: families.invalidations.get_or_create(&label).clone(),
        }
    }

    pub(crate) fn hit(&self, tier: Tier, age: Duration) {
        self.counter(tier).inc();
        self.ages.observe(age.as_secs_f64());
    }

    fn counter(&self, tier: Tier) -> &Counter {
        match tier {
            Tier::Process => &self.process,
            Tier::Shared => &self.shared,
            Tier::Joined => &self.joined,
        }
    }

    pub(crate) fn error(&self, failure: Failure) {
        let labels = [("cache", self.cache.clone()), ("reason", failure.name().to_owned())];
        families().errors.get_or_create(&labels).inc();
    }

    #[cfg(test)]
    pub(crate) fn hits(&self, tier: Tier) -> u64 {
        self.counter(tier).get()
    }

    #[cfg(test)]
    pub(crate) fn errors(&self, failure: Failure) -> u64 {
        let labels = [("cache", self.cache.clone()), ("reason", failure.name().to_owned())];
        families().errors.get_or_create(&labels).get()
    }
}

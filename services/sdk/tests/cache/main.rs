//! Caches that several tasks share, against a real Redis cluster.

mod outages;
mod passwords;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proto::ai::llm::v1::{InferResponse, Sampling};
use sdk::testing::{RedisCluster, Shape, process_cache, shared_cache};
use sdk::{Cache, CacheSettings, Caches, Key, RedisSettings, metrics_text};

const SERVICE: &str = "ai-integration";
/// The longest that Redis may delay one call: two commands, and what a busy machine adds.
const BOUND: Duration = Duration::from_millis(200);

/// A task of the service with one cache. The name is the test's own, and so are its metrics.
fn task(name: &str, redis: &RedisSettings) -> Caches {
    let settings = CacheSettings { ttl: Duration::from_secs(60), max_bytes: 1 << 20 };
    Caches::new(BTreeMap::from([(name.to_owned(), settings)]), Some(redis.clone()))
}

async fn open(name: &str, redis: &RedisSettings) -> Cache<InferResponse> {
    shared_cache(&task(name, redis), SERVICE, name).await
}

fn key(name: impl AsRef<[u8]>) -> Key {
    Key::new().part(name)
}

/// What is cached under `name`, or what is computed if nothing is.
async fn get(cache: &Cache<InferResponse>, name: &str, computed: &str) -> String {
    let answer = InferResponse { text: computed.to_owned(), ..InferResponse::default() };
    cache.get_or(&key(name), async || Ok(answer)).await.expect("a cache is no reason for an error").text
}

/// The keys of the entries in Redis.
fn entries(redis: &RedisCluster, name: &str) -> Vec<String> {
    let keys = redis.keys(&format!("cache:{SERVICE}:{name}:*"));
    keys.into_iter().filter(|key| !key.ends_with(":generation")).collect()
}

/// Waits until this many entries are in Redis: they are written without the caller waiting for it.
async fn written(redis: &RedisCluster, name: &str, count: usize) {
    redis.until("the entries are written", async || entries(redis, name).len() == count).await;
}

/// The value of a metric of one cache.
fn metric(name: &str, metric: &str, label: &str) -> u64 {
    let text = metrics_text();
    let lines = text.lines().filter(|line| {
        line.starts_with(&format!("{metric}_total{{"))
            && line.contains(&format!("cache=\"{name}\""))
            && line.contains(label)
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn errors(name: &str, reason: &str) -> u64 {
    metric(name, "cache_errors", &format!("reason=\"{reason}\""))
}

#[tokio::test]
async fn a_value_is_computed_once_for_all_tasks() {
    let redis = RedisCluster::start(Shape::SHARDED, "secret");
    let settings = redis.settings("secret");
    let (name, names) = ("shared", (0..60).map(|number| number.to_string()).collect::<Vec<_>>());
    let first = open(name, &settings).await;
    for key in &names {
        assert_eq!(get(&first, key, "first").await, "first");
    }
    written(&redis, name, names.len()).await;
    let second = open(name, &settings).await;
    for key in &names {
        assert_eq!(get(&second, key, "second").await, "first");
        assert_eq!(get(&second, key, "second").await, "first");
    }
    assert_eq!(metric(name, "cache_misses", ""), 60);
    assert_eq!(metric(name, "cache_hits", "tier=\"shared\""), 60);
    assert_eq!(metric(name, "cache_hits", "tier=\"process\""), 60);
    assert_eq!(metric(name, "cache_errors", ""), 0);
    let expiry: i64 = redis.command(&["pttl", &entries(&redis, name)[0]]).trim().parse().unwrap();
    assert!((1..=60_000).contains(&expiry), "{expiry}");
}

#[tokio::test]
async fn foreign_values_are_counted_and_replaced() {
    let redis = RedisCluster::start(Shape::SMALL, "secret");
    let settings = redis.settings("secret");
    let check = async |name: &str, replace: &[&str]| {
        get(&open(name, &settings).await, "a", "old").await;
        written(&redis, name, 1).await;
        let entry = &entries(&redis, name)[0];
        redis.command(&["del", entry]);
        redis.command(&[&replace[..1], &[entry], &replace[1..]].concat());
        let reader = open(name, &settings).await;
        assert_eq!(get(&reader, "a", "new").await, "new", "{name}");
        assert_eq!(errors(name, "foreign"), 1, "{name}");
        let replaced = async || get(&open(name, &settings).await, "a", "unused").await == "new";
        redis.until("the entry is replaced", replaced).await;
    };
    check("text", &["set", "a text of somebody else, which is longer than a header"]).await;
    check("empty", &["set", ""]).await;
    check("list", &["rpush", "a", "b"]).await;
}

#[tokio::test]
async fn one_type_does_not_read_the_values_of_another() {
    let redis = RedisCluster::start(Shape::SMALL, "secret");
    let settings = redis.settings("secret");
    let name = "types";
    get(&open(name, &settings).await, "a", "text").await;
    written(&redis, name, 1).await;
    let other: Cache<Sampling> = shared_cache(&task(name, &settings), SERVICE, name).await;
    let sampling =
        other.get_or(&key("a"), async || Ok(Sampling { seed: Some(7), ..Sampling::default() })).await.unwrap();
    assert_eq!((sampling.seed, errors(name, "foreign")), (Some(7), 1));
}

#[tokio::test]
async fn an_invalidation_reaches_tasks_that_have_not_heard_of_it() {
    let redis = RedisCluster::start(Shape::SMALL, "secret");
    let settings = redis.settings("secret");
    let name = "generations";
    let (first, second) = (open(name, &settings).await, open(name, &settings).await);
    get(&first, "a", "old").await;
    written(&redis, name, 1).await;
    assert_eq!(get(&second, "a", "unused").await, "old");

    first.invalidate_all().await;
    assert_eq!(get(&first, "a", "new").await, "new");
    written(&redis, name, 2).await;
    let started = Instant::now();
    redis.until("the other task hears of it", async || get(&second, "a", "unused").await == "new").await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(get(&open(name, &settings).await, "a", "unused").await, "new");
}

#[tokio::test]
async fn an_invalidated_key_is_gone_from_redis() {
    let redis = RedisCluster::start(Shape::SMALL, "secret");
    let settings = redis.settings("secret");
    let name = "keys";
    let cache = open(name, &settings).await;
    for key in ["a", "b"] {
        get(&cache, key, "old").await;
    }
    written(&redis, name, 2).await;
    cache.invalidate(&key("a")).await;
    assert_eq!(entries(&redis, name).len(), 1);
    let other = open(name, &settings).await;
    assert_eq!((get(&other, "a", "new").await, get(&other, "b", "new").await), ("new".to_owned(), "old".to_owned()));
}

#[tokio::test]
async fn a_task_without_redis_serves_alone() {
    let name = "alone";
    let settings = CacheSettings { ttl: Duration::from_secs(60), max_bytes: 1 << 20 };
    let cache: Cache<InferResponse> =
        process_cache(&Caches::new(BTreeMap::from([(name.to_owned(), settings)]), None), SERVICE, name);
    assert_eq!(get(&cache, "a", "first").await, "first");
    assert_eq!(get(&cache, "a", "second").await, "first");
    assert_eq!(metric(name, "cache_errors", ""), 0);
}

/// Asks for `count` keys that nobody has asked for before, and returns the longest time that one took.
async fn slowest(cache: &Cache<InferResponse>, prefix: &str, count: usize) -> Duration {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let mut slowest = Duration::ZERO;
    for _ in 0..count {
        let name = format!("{prefix}-{}", ASKED.fetch_add(1, Ordering::Relaxed));
        let started = Instant::now();
        assert_eq!(get(cache, &name, "computed").await, "computed");
        slowest = slowest.max(started.elapsed());
    }
    slowest
}

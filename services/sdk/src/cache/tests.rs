//! Caches in the process alone, and what only this crate can write into Redis.

use std::collections::BTreeMap;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use proto::ai::llm::v1::InferResponse;
use proto::rpc::Code;
use tokio::sync::Notify;

use super::*;
use crate::testing::{RedisCluster, Shape, process_cache, shared_cache};

/// A cache in the process, with a name of its own so that its metrics are its own.
fn caches(name: &str, max_bytes: u64) -> Caches {
    let settings = CacheSettings { ttl: Duration::from_secs(60), max_bytes };
    Caches::new(BTreeMap::from([(name.to_owned(), settings)]), None)
}

fn cache(name: &str) -> Cache<InferResponse> {
    process_cache(&caches(name, 1 << 20), "ai-integration", name)
}

fn key(text: &str) -> Key {
    Key::new().part(text)
}

fn response(text: &str) -> InferResponse {
    InferResponse { text: text.to_owned(), ..InferResponse::default() }
}

/// What is cached under `name`, or what is computed if nothing is.
async fn get(cache: &Cache<InferResponse>, name: &str, computed: &str) -> String {
    cache.get_or(&key(name), async || Ok(response(computed))).await.unwrap().text
}

/// Lets other tasks of this thread go on until they wait for something.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_value_is_computed_once() {
    let cache = cache("once");
    assert_eq!(get(&cache, "a", "first").await, "first");
    assert_eq!(get(&cache, "a", "second").await, "first");
    assert_eq!(get(&cache, "b", "third").await, "third");
    let metrics = &cache.store.metrics;
    assert_eq!((metrics.misses.get(), metrics.hits(Tier::Process)), (2, 1));
}

#[test]
fn of_256_callers_on_several_workers_one_computes() {
    const WORKERS: usize = 4;
    let (caches, computations, start) = (caches("stampede", 1 << 20), AtomicUsize::new(0), Barrier::new(WORKERS));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                start.wait();
                runtime.block_on(async {
                    let cache: Cache<InferResponse> = process_cache(&caches, "ai-integration", "stampede");
                    let key = key("a");
                    let callers = (0..256 / WORKERS).map(|_| {
                        cache.get_or(&key, async || {
                            computations.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            Ok(response("one"))
                        })
                    });
                    for answer in join_all(callers).await {
                        assert_eq!(answer.unwrap().text, "one");
                    }
                });
            });
        }
    });
    assert_eq!(computations.into_inner(), 1);
}

#[tokio::test]
async fn an_error_goes_to_all_who_wait_and_is_not_cached() {
    let (cache, computations, release) = (cache("errors"), AtomicUsize::new(0), Notify::new());
    let key = key("a");
    let callers = (0..10).map(|_| {
        cache.get_or(&key, async || {
            computations.fetch_add(1, Ordering::SeqCst);
            release.notified().await;
            Err(Error::unavailable("no model").with_detail("model", "m"))
        })
    });
    let (answers, ()) = tokio::join!(join_all(callers), async {
        settle().await;
        release.notify_one();
    });
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!((error.code(), error.message(), error.detail("model")), (Code::Unavailable, "no model", Some("m")));
    }
    assert_eq!(computations.into_inner(), 1);
    assert_eq!(get(&cache, "a", "later").await, "later");
}

#[tokio::test]
async fn a_panicking_computation_blocks_nobody() {
    let cache = cache("panics");
    let (key, release) = (key("a"), Notify::new());
    let panics = AssertUnwindSafe(cache.get_or(&key, async || {
        release.notified().await;
        panic!("as requested")
    }));
    let (panicked, other, ()) = tokio::join!(panics.catch_unwind(), get(&cache, "a", "other"), async {
        settle().await;
        release.notify_one();
    });
    assert!(panicked.is_err());
    assert_eq!(other, "other");
}

#[tokio::test]
async fn a_cancelled_computation_blocks_nobody() {
    let cache = cache("cancelled");
    let abandoned = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or(&key("a"), pending).await }
    });
    settle().await;
    let (other, ()) = tokio::join!(get(&cache, "a", "other"), async {
        settle().await;
        abandoned.abort();
    });
    assert_eq!(other, "other");
}

#[tokio::test]
async fn the_process_keeps_no_more_than_it_may() {
    let caches = caches("evictions", 64 << 10);
    let cache: Cache<InferResponse> = process_cache(&caches, "ai-integration", "evictions");
    for number in 0..200 {
        get(&cache, &number.to_string(), &"x".repeat(1000)).await;
    }
    cache.store.entries.run_pending_tasks().await;
    assert!(cache.store.entries.weighted_size() <= 64 << 10);
    let evicted = cache.store.metrics.evictions.get();
    assert!((140..=160).contains(&evicted), "{evicted}");
}

#[tokio::test]
async fn an_invalidated_value_is_computed_again() {
    let cache = cache("invalidated");
    for name in ["a", "b"] {
        get(&cache, name, "old").await;
    }
    cache.invalidate(&key("a")).await;
    assert_eq!((get(&cache, "a", "new").await, get(&cache, "b", "new").await), ("new".to_owned(), "old".to_owned()));
    cache.invalidate_all().await;
    assert_eq!(get(&cache, "b", "newest").await, "newest");
}

#[tokio::test]
async fn a_computation_that_an_invalidation_overtakes_is_not_kept() {
    for all in [true, false] {
        let cache = cache("overtaken");
        let (key, release) = (key("a"), Notify::new());
        let computing = cache.get_or(&key, async || {
            release.notified().await;
            Ok(response("old"))
        });
        let (answer, ()) = tokio::join!(computing, async {
            settle().await;
            match all {
                true => cache.invalidate_all().await,
                false => cache.invalidate(&key).await,
            }
            release.notify_one();
        });
        assert_eq!(answer.unwrap().text, "old", "who asked before gets what was true then");
        assert_eq!(get(&cache, "a", "new").await, "new");
    }
}

/// An entry that is due although it lives for a minute, because its computation took so long.
async fn due(cache: &Cache<InferResponse>, text: &str) {
    let bytes = response(text).encode_to_vec().into();
    let entry = Entry::new(bytes, Duration::from_secs(1 << 40), cache.store.settings.ttl);
    let key = LocalKey { epoch: cache.store.epoch(), digest: key("a").digest() };
    cache.store.entries.insert(key, Arc::new(entry)).await;
}

#[tokio::test]
async fn one_caller_computes_a_value_again_before_it_expires() {
    let cache = cache("refreshed");
    due(&cache, "old").await;
    let (key, release) = (key("a"), Notify::new());
    let first = cache.get_or(&key, async || {
        release.notified().await;
        Ok(response("new"))
    });
    let (first, others) = tokio::join!(first, async {
        settle().await;
        let others = [get(&cache, "a", "unused").await, get(&cache, "a", "unused").await];
        release.notify_one();
        others
    });
    assert_eq!((first.unwrap().text.as_str(), others), ("new", ["old", "old"].map(str::to_owned)));
    assert_eq!(get(&cache, "a", "unused").await, "new");
    assert_eq!(cache.store.metrics.refreshes.get(), 1);
}

#[tokio::test]
async fn a_value_that_cannot_be_computed_again_is_used_until_it_expires() {
    let cache = cache("refused");
    due(&cache, "old").await;
    let answer = cache.get_or(&key("a"), async || Err(Error::internal("no"))).await;
    assert_eq!(answer.unwrap().text, "old");
}

#[tokio::test]
async fn caches_are_those_of_the_manifest() {
    let caches = caches("declared", 1 << 20);
    let refused = |name: &str, because: &str| {
        let error = Cache::<InferResponse>::open(&caches, None, "ai-integration", name).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, because));
    };
    refused("lost", "the manifest of `ai-integration` declares no cache `lost`, only `declared`: add it to `caches`");
    let unused = caches.refuse_unused("ai-integration").unwrap_err();
    assert_eq!(
        unused.message(),
        "the manifest of `ai-integration` declares the cache `declared`, which the service does not use: remove it from `caches`"
    );
    Cache::<InferResponse>::open(&caches, None, "ai-integration", "declared").unwrap();
    caches.refuse_unused("ai-integration").unwrap();
    let other = Cache::<proto::ai::llm::v1::Sampling>::open(&caches, None, "ai-integration", "declared").unwrap_err();
    assert!(other.message().contains("declare one for each"), "{other}");
}

/// What a task finds in Redis if this is there as the value of an entry, and how many foreign values it counts.
async fn find(redis: &RedisCluster, name: &str, value: Vec<u8>) -> (String, u64) {
    let settings = CacheSettings { ttl: Duration::from_secs(60), max_bytes: 1 << 20 };
    let task = || Caches::new(BTreeMap::from([(name.to_owned(), settings)]), Some(redis.settings("secret")));
    let writer: Cache<InferResponse> = shared_cache(&task(), "ai-integration", name).await;
    let local = LocalKey { epoch: writer.store.epoch(), digest: key("a").digest() };
    let entry = Entry::new(value.into(), Duration::ZERO, settings.ttl);
    writer.write_shared(&local, &entry).await;
    redis
        .until("the entry is written", async || redis.keys(&format!("cache:ai-integration:{name}:*")).len() == 2)
        .await;
    let reader: Cache<InferResponse> = shared_cache(&task(), "ai-integration", name).await;
    let found = get(&reader, "a", "computed").await;
    (found, reader.store.metrics.errors(Failure::Foreign))
}

#[tokio::test]
async fn values_of_other_schemas_are_read_if_they_can_be_and_replaced_if_not() {
    let redis = RedisCluster::start(Shape::SMALL, "secret");
    let known = response("known").encode_to_vec();
    // Field 100, a text of one letter, which this version does not know.
    let newer = [&known[..], &[0xa2, 0x06, 1, b'x']].concat();
    assert_eq!(find(&redis, "newer", newer).await, ("known".to_owned(), 0));
    // Field 2 as a number: it was a text.
    assert_eq!(find(&redis, "incompatible", vec![0x10, 1]).await, ("computed".to_owned(), 1));
}

//! Redis is gone, slow, failing over or full. None of it is an error, and each costs little time.

use super::*;

#[tokio::test]
async fn a_cluster_that_is_gone_costs_no_error_and_is_used_again_when_it_is_back() {
    let mut redis = RedisCluster::start(Shape::SMALL, "secret");
    let settings = redis.settings("secret");
    let name = "gone";
    let cache = open(name, &settings).await;
    get(&cache, "a", "first").await;
    written(&redis, name, 1).await;
    redis.kill(0);
    let started = Instant::now();
    let slowest = slowest(&cache, "gone", 200).await;
    assert!(slowest < BOUND, "{slowest:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(get(&cache, "a", "second").await, "first", "the process still has it");
    assert!(metric(name, "cache_errors", "") >= 1);
    redis.restart(0);
    until_reused(&redis, &cache).await;
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_costs_little_and_is_used_again() {
    let redis = RedisCluster::start(Shape::SHARDED, "secret");
    let settings = redis.settings("secret");
    let name = "slow";
    let cache = open(name, &settings).await;
    slowest(&cache, "warm", 5).await;
    for node in 0..3 {
        redis.pause(node);
    }
    let started = Instant::now();
    let slowest = slowest(&cache, "slow", 500).await;
    assert!(slowest < BOUND, "{slowest:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(errors(name, "timeout") >= 1);
    for node in 0..3 {
        redis.resume(node);
    }
    until_reused(&redis, &cache).await;
}

#[tokio::test]
async fn a_shard_that_fails_over_costs_no_error() {
    let mut redis = RedisCluster::start(Shape { replicas: 1, ..Shape::SHARDED }, "secret");
    let settings = redis.settings("secret");
    let name = "failover";
    let cache = open(name, &settings).await;
    slowest(&cache, "warm", 5).await;
    redis.kill(0);
    let mut slowest_of_all = Duration::ZERO;
    while !redis.is_primary(3) {
        slowest_of_all = slowest_of_all.max(slowest(&cache, "failover", 20).await);
    }
    assert!(slowest_of_all < BOUND, "{slowest_of_all:?}");
    // Keys of all shards are written again.
    let count = || entries(&redis, name).len();
    redis
        .until("every shard is used again", async || {
            let before = count();
            slowest(&cache, "after", 30).await;
            tokio::time::timeout(BOUND, async {
                while count() < before + 30 {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .is_ok()
        })
        .await;
}

#[tokio::test]
async fn a_full_cluster_is_read_and_costs_no_error() {
    let redis = RedisCluster::start(Shape { max_memory: Some("3mb"), ..Shape::SMALL }, "secret");
    let settings = redis.settings("secret");
    let name = "full";
    let cache = open(name, &settings).await;
    get(&cache, "early", "early").await;
    written(&redis, name, 1).await;
    let large = "x".repeat(100_000);
    for number in 0..60 {
        assert_eq!(get(&cache, &number.to_string(), &large).await, large);
    }
    redis.until("writes are refused", async || errors(name, "out_of_memory") > 0).await;
    let other = open(name, &settings).await;
    assert_eq!(get(&other, "early", "late").await, "early");
    assert_eq!(errors(name, "timeout"), 0);
}

/// Waits until values of the cache arrive in Redis again.
async fn until_reused(redis: &RedisCluster, cache: &Cache<InferResponse>) {
    let stored = || redis.keys("cache:*").len();
    let before = stored();
    redis
        .until("Redis is used again", async || {
            slowest(cache, "again", 1).await;
            stored() > before + 1
        })
        .await;
}

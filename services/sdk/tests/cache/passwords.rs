//! Passwords that are wrong, and that change while tasks run (docs/runbooks/redis-rotation.md).

use super::*;

fn write_password(settings: &RedisSettings, password: &str) {
    let file = settings.password.as_ref().and_then(|password| password.file()).expect("a file");
    std::fs::write(file, password).expect("a password can be written");
}

/// Waits until a value of the cache arrives in Redis.
async fn until_used(redis: &RedisCluster, name: &str, cache: &Cache<InferResponse>) {
    let before = entries(redis, name).len();
    redis
        .until("Redis is used", async || {
            slowest(cache, "used", 1).await;
            entries(redis, name).len() > before
        })
        .await;
}

#[tokio::test]
async fn a_wrong_password_costs_no_error_and_is_read_again() {
    let redis = RedisCluster::start(Shape::SMALL, "secret");
    let settings = redis.settings("wrong");
    let name = "wrong";
    let cache: Cache<InferResponse> = process_cache(&task(name, &settings), SERVICE, name);
    let slowest = slowest(&cache, "wrong", 200).await;
    assert!(slowest < BOUND, "{slowest:?}");
    assert_eq!(get(&cache, "a", "first").await, "first");
    assert_eq!(get(&cache, "a", "second").await, "first");
    assert!(entries(&redis, name).is_empty());
    write_password(&settings, "secret");
    until_used(&redis, name, &cache).await;
}

#[tokio::test]
async fn a_rotation_needs_no_restart() {
    let redis = RedisCluster::start(Shape::SHARDED, "first");
    let settings = redis.settings("first");
    let name = "rotated";
    let cache = open(name, &settings).await;
    until_used(&redis, name, &cache).await;
    // While two passwords are valid, the old one opens new connections.
    redis.set_passwords(&["second", "first"]);
    redis.disconnect_services();
    until_used(&redis, name, &cache).await;
    // With the next rotation it does not, and what the file says by then does.
    write_password(&settings, "second");
    redis.set_passwords(&["third", "second"]);
    redis.disconnect_services();
    let slowest = slowest(&cache, "rotated", 100).await;
    assert!(slowest < BOUND, "{slowest:?}");
    until_used(&redis, name, &cache).await;
}

//! Caches: hit rate on a Zipf load, time of a hit in each tier and of a miss, computations in a stampede.
//!
//! `cargo bench -p sdk --bench cache [-- REQUESTS]`. Redis is a cluster of three shards on this machine, with TLS and users.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::BTreeMap;
use std::env;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use proto::ai::llm::v1::InferResponse;
use sdk::testing::{RedisCluster, Shape, process_cache, shared_cache};
use sdk::{Cache, CacheSettings, Caches, Key, RedisSettings, metrics_text};
use tokio::runtime::{Builder, Runtime};

const SERVICE: &str = "ai-integration";
/// Bytes of a text.
const TEXT: usize = 1024;
/// Bytes of a text with what the cache adds to it.
const ENTRY: u64 = TEXT as u64 + 270;
/// Keys of the Zipf load, and how many of them the process holds.
const KEYS: usize = 100_000;
const IN_PROCESS: u64 = KEYS as u64 / 10;
/// Requests at the same time, as of one busy worker.
const CONCURRENCY: usize = 64;
/// The same of the task that fills Redis.
const FILLING: usize = 8;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let requests = arguments.first().map_or(1_000_000, |text| text.parse().expect("a whole number"));
    let redis = RedisCluster::start(Shape::SHARDED, "secret");
    let settings = redis.settings("secret");
    hit_rates(&settings, requests);
    latencies(&settings);
    stampede(&settings);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A new task with one cache for this many entries.
fn task(name: &str, entries: u64, redis: Option<&RedisSettings>) -> Caches {
    let settings = CacheSettings { ttl: Duration::from_secs(300), max_bytes: entries * ENTRY };
    Caches::new(BTreeMap::from([(name.to_owned(), settings)]), redis.cloned())
}

fn key(number: usize) -> Key {
    Key::new().part("ngram-large").part(format!("The dragon {number}"))
}

async fn get(cache: &Cache<InferResponse>, number: usize) {
    let text = || InferResponse { text: "x".repeat(TEXT), ..InferResponse::default() };
    let answer = cache.get_or(&key(number), async || Ok(text())).await.expect("a value");
    assert_eq!(answer.text.len(), TEXT);
}

async fn get_all(cache: &Cache<InferResponse>, numbers: impl Iterator<Item = usize>) {
    futures::stream::iter(numbers).for_each_concurrent(CONCURRENCY, |number| get(cache, number)).await;
}

// ---------------------------------------------------------------------------------------------- hit rates

/// Draws keys of which the i-th is asked for with a frequency of 1/i.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(keys: usize) -> Self {
        let mut total = 0.0;
        let sums = (1..=keys).map(|rank| {
            total += 1.0 / rank as f64;
            total
        });
        Self(sums.collect())
    }

    fn draw(&self) -> usize {
        let at = fastrand::f64() * self.0.last().expect("a key");
        self.0.partition_point(|sum| *sum < at)
    }
}

fn count(cache: &str, metric: &str) -> f64 {
    let text = metrics_text();
    let lines = text.lines().filter(|line| line.starts_with(metric) && line.contains(&format!("cache=\"{cache}\"")));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn errors(cache: &str) -> String {
    let reasons = ["unavailable", "busy", "timeout", "connection", "denied", "out_of_memory", "foreign", "other"];
    let count = |reason: &&str| count(cache, &format!("cache_errors_total{{cache=\"{cache}\",reason=\"{reason}\"}}"));
    let counted: Vec<String> = reasons
        .iter()
        .map(|reason| (reason, count(reason)))
        .filter(|(_, count)| *count > 0.0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if counted.is_empty() { "no errors".to_owned() } else { counted.join(", ") }
}

fn report(name: &str, what: &str, took: Duration) {
    let tier = |tier: &str| count(name, &format!("cache_hits_total{{cache=\"{name}\",tier=\"{tier}\"}}"));
    let (process, shared, joined, missed) =
        (tier("process"), tier("shared"), tier("joined"), count(name, "cache_misses_total"));
    let total = process + shared + joined + missed;
    let percent = |part: f64| part / total * 100.0;
    println!(
        "{what:<52} hits {:5.1} %: process {:4.1}, redis {:4.1}, joined {:3.1}; {:.0} requests/s",
        percent(total - missed),
        percent(process),
        percent(shared),
        percent(joined),
        total / took.as_secs_f64()
    );
}

fn hit_rates(redis: &RedisSettings, requests: usize) {
    println!("Zipf s = 1.0, {KEYS} keys, {IN_PROCESS} in the process, {requests} requests, {CONCURRENCY} at a time");
    let zipf = Zipf::new(KEYS);
    let run = |name: &str, what: &str, redis: Option<&RedisSettings>| {
        runtime().block_on(async {
            let caches = task(name, IN_PROCESS, redis);
            let cache: Cache<InferResponse> = match redis {
                Some(_) => shared_cache(&caches, SERVICE, name).await,
                None => process_cache(&caches, SERVICE, name),
            };
            let started = Instant::now();
            get_all(&cache, (0..requests).map(|_| zipf.draw())).await;
            report(name, what, started.elapsed());
        });
    };
    run("alone", "in the process alone, empty at first", None);
    run("cold", "with Redis, both empty at first", Some(redis));
    runtime().block_on(async {
        let writer = shared_cache(&task("warm", 1, Some(redis)), SERVICE, "warm").await;
        // Computing takes no time here, so few at a time; again for what was refused all the same.
        for _ in 0..2 {
            futures::stream::iter(0..KEYS).for_each_concurrent(FILLING, |number| get(&writer, number)).await;
        }
    });
    println!("{:<52} {}", "filling Redis", errors("warm"));
    let before = count("warm", "cache_misses_total");
    runtime().block_on(async {
        let cache = shared_cache(&task("warm", IN_PROCESS, Some(redis)), SERVICE, "warm").await;
        let started = Instant::now();
        get_all(&cache, (0..requests).map(|_| zipf.draw())).await;
        let missed = count("warm", "cache_misses_total") - before;
        println!(
            "{:<52} hits {:5.1} %; {:.0} requests/s; in total {}",
            "with Redis, which another task has filled",
            (1.0 - missed / requests as f64) * 100.0,
            requests as f64 / started.elapsed().as_secs_f64(),
            errors("warm")
        );
    });
}

// ---------------------------------------------------------------------------------------------- latencies

async fn measure(what: &str, cache: &Cache<InferResponse>, numbers: impl Iterator<Item = usize>) {
    let mut times = Vec::new();
    for number in numbers {
        let started = Instant::now();
        get(cache, number).await;
        times.push(started.elapsed());
    }
    times.sort();
    let at = |part: f64| times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e6;
    println!("{what:<52} p50 {:7.1} µs, p99 {:7.1} µs", at(0.5), at(0.99));
}

fn latencies(redis: &RedisSettings) {
    const COUNT: usize = 20_000;
    let name = "latency";
    println!("one request at a time, {COUNT} of each, {TEXT} bytes");
    runtime().block_on(async {
        let first = shared_cache(&task(name, COUNT as u64 * 2, Some(redis)), SERVICE, name).await;
        measure("a miss, written to Redis", &first, 0..COUNT).await;
        measure("a hit in the process", &first, 0..COUNT).await;
        let second = shared_cache(&task(name, COUNT as u64 * 2, Some(redis)), SERVICE, name).await;
        measure("a hit in Redis", &second, 0..COUNT).await;
        let alone = process_cache(&task("latency-alone", COUNT as u64 * 2, None), SERVICE, "latency-alone");
        measure("a miss, in the process alone", &alone, 0..COUNT).await;
        println!("{:<52} {}", "", errors(name));
    });
}

// ---------------------------------------------------------------------------------------------- stampede

fn stampede(redis: &RedisSettings) {
    const WORKERS: usize = 4;
    const CALLERS: usize = 256;
    const ROUNDS: usize = 100;
    let (computed, start) = (AtomicUsize::new(0), Barrier::new(WORKERS));
    let caches = task("stampede", 10_000, Some(redis));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                runtime().block_on(async {
                    let cache: Cache<InferResponse> = shared_cache(&caches, SERVICE, "stampede").await;
                    for round in 0..ROUNDS {
                        start.wait();
                        let key = key(round);
                        let callers = (0..CALLERS / WORKERS).map(|_| {
                            cache.get_or(&key, async || {
                                computed.fetch_add(1, Ordering::Relaxed);
                                tokio::time::sleep(Duration::from_millis(20)).await;
                                Ok(InferResponse { text: "x".repeat(TEXT), ..InferResponse::default() })
                            })
                        });
                        for answer in futures::future::join_all(callers).await {
                            answer.expect("a value");
                        }
                    }
                });
            });
        }
    });
    let computed = computed.into_inner();
    println!("{CALLERS} callers on {WORKERS} workers, {ROUNDS} keys: {computed} computations");
}

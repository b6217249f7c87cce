//! What it costs to store a value together with its event, and that none is lost or doubled.
//!
//! `cargo bench -p sdk --bench outbox [-- SECONDS ROUNDS]` compares three ways to update a record, in alternating rounds: a
//! write alone; a write, its event, and a note that it was published, one after another (`noted`); and both as one batch
//! (`outbox`). Every writer is a process of its own.
//!
//! `cargo bench -p sdk --bench outbox -- delays SECONDS` measures how long an event is on its way, also when servers are killed.
//!
//! `cargo bench -p sdk --bench outbox -- kills COUNT` kills processes that update records, and servers, and counts events.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use proto::rpc::Event as _;
use proto::state::player::v1::Updated;
use sdk::testing::{NatsCluster, as_request};
use sdk::{Bucket, Change, ConnectionSettings, Error, Fleet, Settings, WriteError};

const BUCKET: &str = "players";
const STREAM: &str = "EVENTS";
const VALUE_BYTES: usize = 256;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let number = |at: usize, or: usize| arguments.get(at).map_or(or, |text| text.parse().expect("a whole number"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match arguments.first().map(String::as_str) {
        Some("updates") => runtime.block_on(measure(&arguments[1], number(2, 1), number(3, 1), &arguments[4..])),
        Some("writer") => runtime.block_on(write_until_killed(&arguments[1], &arguments[2..])),
        Some("kills") => runtime.block_on(kills(number(1, 200))),
        Some("delays") => runtime.block_on(async {
            let mut cluster = NatsCluster::start(3).await;
            cluster.bucket_and_stream(BUCKET, 64, STREAM, Updated::SUBJECT, 3).await;
            delays(&mut cluster, number(1, 5)).await;
        }),
        _ => runtime.block_on(compare(number(0, 3), number(1, 5))),
    }
}

async fn fleet(urls: &[String]) -> Fleet {
    let connection = ConnectionSettings { urls: urls.to_vec(), ..ConnectionSettings::default() };
    Fleet::connect(Settings::for_service("state", connection)).await.expect("NATS")
}

fn child(arguments: &[&str], cluster: &NatsCluster) -> Child {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(arguments).args(cluster.connection().urls).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().expect("a child process")
}

fn event(key: &str, revision: u64) -> Updated {
    Updated { player_id: key.to_owned(), revision, ..Updated::default() }
}

/// The three ways to update a record.
async fn update(variant: &str, bucket: &Bucket, fleet: &Fleet, key: &str) -> Result<(), Error> {
    let value = || vec![b'x'; VALUE_BYTES];
    let write = |number: u64| match variant {
        "outbox" => Change::write_with_event(value(), event(key, number), number),
        _ => Change::write(value(), number),
    };
    let changed = bucket.change(key, |entry| Ok(write(entry.map_or(0, |entry| entry.revision) + 1)));
    let (number, _) = changed.await?;
    if variant == "noted" {
        let notes = format!("{key}.published");
        bucket.get(&notes).await?;
        fleet.publish(event(key, number)).await?;
        bucket.change(&notes, |_| Ok(Change::write(number.to_string(), ()))).await?;
    }
    Ok(())
}

// ------------------------------------------------------------------------------------------------ cost

/// Prints updates per second, median and 99th percentile in microseconds.
async fn measure(variant: &str, concurrency: usize, seconds: usize, urls: &[String]) {
    let fleet = fleet(urls).await;
    let bucket = fleet.bucket(BUCKET).await.expect("a bucket");
    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let writers = (0..concurrency).map(|writer| {
        let (bucket, fleet) = (bucket.clone(), fleet.clone());
        async move {
            let mut latencies = Vec::new();
            let key = format!("{variant}{writer}");
            while Instant::now() < end {
                let begin = Instant::now();
                as_request(None, update(variant, &bucket, &fleet, &key)).await.expect("an update");
                latencies.push(begin.elapsed());
            }
            latencies
        }
    });
    let mut latencies = join_all(writers).await.concat();
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_micros();
    println!("{} {} {}", latencies.len() / seconds, at(50), at(99));
}

async fn compare(seconds: usize, rounds: usize) {
    for (servers, replicas) in [(3, 3), (5, 3), (1, 1)] {
        let cluster = NatsCluster::start(servers).await;
        cluster.bucket_and_stream(BUCKET, 64, STREAM, Updated::SUBJECT, replicas).await;
        // A server alone writes each batch to a file of its own, and cannot keep up with more.
        let concurrencies = if replicas == 1 { [1, 8] } else { [1, 48] };
        for concurrency in concurrencies {
            let mut figures: BTreeMap<&str, Vec<[f64; 3]>> = BTreeMap::new();
            for _ in 0..rounds {
                for variant in ["write", "noted", "outbox"] {
                    let arguments = ["updates", variant, &concurrency.to_string(), &seconds.to_string()];
                    figures.entry(variant).or_default().push(figures_of(child(&arguments, &cluster)));
                }
            }
            println!("{servers} servers, {replicas} replicas on file, {concurrency} at a time");
            for (variant, rounds) in &figures {
                let [rate, p50, p99] = [0, 1, 2].map(|which| median(rounds.iter().map(|round| round[which])));
                let ratio = |which: usize| {
                    median(rounds.iter().zip(&figures["noted"]).map(|(one, noted)| one[which] / noted[which]))
                };
                println!(
                    "  {variant:7} {rate:7.0}/s  p50 {p50:6.0} µs ({:.2})  p99 {p99:6.0} µs ({:.2})",
                    ratio(1),
                    ratio(2)
                );
            }
        }
    }
}

fn figures_of(child: Child) -> [f64; 3] {
    let output = child.wait_with_output().expect("a child that ends");
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text.split_whitespace().map(|figure| figure.parse().expect("a figure")).collect();
    figures.try_into().expect("three figures")
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// How long after a write is acknowledged its event is in the stream, by the clock of this machine: for `seconds`, and for half
/// a minute in which the server is killed that leads one of the streams.
async fn delays(cluster: &mut NatsCluster, seconds: usize) {
    println!("  from the acknowledgement of a write until its event is in the stream:");
    let fleet = fleet(&cluster.connection().urls).await;
    let bucket = fleet.bucket(BUCKET).await.expect("a bucket");
    // A stream that is new takes a moment to find its source.
    update("outbox", &bucket, &fleet, "first").await.expect("an update");
    let stream = cluster.jetstream().await.get_stream(STREAM).await.expect("a stream");
    while stream.get_info().await.expect("a stream").state.messages == 0 {}
    print_delays(cluster, &bucket, "undisturbed", Duration::from_secs(seconds as u64)).await;
    for stream in [format!("KV_{BUCKET}"), STREAM.to_owned()] {
        let leader = cluster.settled_leader(&stream).await;
        cluster.kill(&leader);
        print_delays(cluster, &bucket, &format!("leader of {stream} killed"), Duration::from_secs(30)).await;
        cluster.restart(&leader);
        cluster.settled_leader(&stream).await;
    }
}

async fn print_delays(cluster: &NatsCluster, bucket: &Bucket, what: &str, time: Duration) {
    let key = what.replace(' ', "-");
    let mut acknowledged = BTreeMap::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let changed = bucket.change(&key, |entry| {
            let number = entry.map_or(0, |entry| entry.revision) + 1;
            Ok(Change::write_with_event(vec![b'x'; VALUE_BYTES], event(&key, number), number))
        });
        // There may be no leader for longer than a write is repeated.
        if let Ok((number, _)) = changed.await {
            acknowledged.insert(number, SystemTime::now());
        }
    }
    let stream = cluster.jetstream().await.get_stream(STREAM).await.expect("a stream");
    let mut delays = Vec::new();
    for (event, stored) in events(&stream).await {
        if let (true, Some(at)) = (event.player_id == key, acknowledged.get(&event.revision)) {
            delays.push(stored.duration_since(*at).unwrap_or_default().as_secs_f64() * 1_000.0);
        }
    }
    delays.sort_unstable_by(f64::total_cmp);
    let at = |permille: usize| delays[(delays.len() - 1) * permille / 1_000];
    let count = delays.len();
    println!("    {what}: {count} events, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms", at(500), at(990), at(1_000));
}

/// The events in the stream that are from outboxes, and when they were stored.
async fn events(stream: &async_nats::jetstream::stream::Stream) -> Vec<(Updated, SystemTime)> {
    let config = async_nats::jetstream::consumer::pull::OrderedConfig::default();
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let count = stream.get_info().await.expect("a stream").state.messages;
    let messages = consumer.messages().await.expect("messages").take(usize::try_from(count).expect("a count"));
    let messages: Vec<_> = messages.try_collect().await.expect("messages");
    let from_outbox = messages
        .into_iter()
        .filter(|message| message.headers.as_ref().is_some_and(|headers| headers.get("Nats-Stream-Source").is_some()));
    from_outbox
        .map(|message| {
            let stored = message.info().expect("a message of JetStream").published.unix_timestamp_nanos();
            let stored = UNIX_EPOCH + Duration::from_nanos(u64::try_from(stored).expect("a time of today"));
            (Updated::decode(message.payload.clone()).expect("an event"), stored)
        })
        .collect()
}

// ------------------------------------------------------------------------------------------------ kills

/// Updates records, each of them 32 times, until this process is killed. Nobody repeats what it has not finished.
async fn write_until_killed(name: &str, urls: &[String]) {
    let fleet = fleet(urls).await;
    let bucket = fleet.bucket(BUCKET).await.expect("a bucket");
    println!("ready");
    let writers = (0..8).map(|writer| {
        let bucket = bucket.clone();
        async move {
            for number in 0_u64.. {
                let key = format!("{name}-{writer}-{}", number / 32);
                let changed = bucket.change(&key, |entry| {
                    let number = entry.map_or(0, |entry| entry.revision) + 1;
                    Ok(Change::write_with_event(number.to_string(), event(&key, number), ()))
                });
                match changed.await {
                    // A server was killed: an attempt that was stored and not acknowledged may have been repeated.
                    Ok(_) | Err(WriteError::Conflict | WriteError::Failed(_)) => {}
                }
            }
        }
    });
    join_all(writers).await;
}

async fn kills(count: usize) {
    let mut cluster = NatsCluster::start(3).await;
    cluster.bucket_and_stream(BUCKET, 64, STREAM, Updated::SUBJECT, 3).await;
    let mut servers = 0;
    for number in 0..count {
        // Of every 40 writers, one writes while the server is killed that leads one of the streams.
        let victim = match number % 80 {
            20 => Some(format!("KV_{BUCKET}")),
            60 => Some(STREAM.to_owned()),
            _ => None,
        };
        let mut writer = child(&["writer", &format!("w{number}")], &cluster);
        let mut line = String::new();
        BufReader::new(writer.stdout.take().expect("output")).read_line(&mut line).expect("a line");
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..60_000))).await;
        if let Some(stream) = victim {
            let leader = cluster.settled_leader(&stream).await;
            cluster.kill(&leader);
            servers += 1;
            // Another leader is elected, and what waited for it goes on.
            tokio::time::sleep(Duration::from_secs(8)).await;
            cluster.restart(&leader);
            cluster.settled_leader(&stream).await;
        }
        writer.kill().expect("a child that runs");
        writer.wait().expect("a child that ends");
    }
    report(&cluster, count, servers).await;
}

/// Compares the stored revisions with the events in the stream.
async fn report(cluster: &NatsCluster, writers: usize, servers: usize) {
    let jetstream = cluster.jetstream().await;
    let bucket = jetstream.get_stream(format!("KV_{BUCKET}")).await.expect("a bucket");
    let config = async_nats::jetstream::consumer::pull::OrderedConfig {
        filter_subject: format!("$KV.{BUCKET}.>"),
        ..Default::default()
    };
    let consumer = bucket.create_consumer(config).await.expect("a consumer");
    let pending = usize::try_from(consumer.cached_info().num_pending).expect("a count");
    let revisions: Vec<_> =
        consumer.messages().await.expect("messages").take(pending).try_collect().await.expect("messages");
    let mut stored = BTreeSet::new();
    for revision in &revisions {
        let number: u64 = String::from_utf8_lossy(&revision.payload).parse().expect("a number");
        let key = revision.subject.rsplit('.').next().unwrap_or_default();
        stored.insert((key.to_owned(), number));
    }
    let stream = jetstream.get_stream(STREAM).await.expect("a stream");
    let all = async { while (stream.get_info().await.expect("a stream").state.messages as usize) < revisions.len() {} };
    // Whatever is missing then is lost.
    let _ = tokio::time::timeout(Duration::from_secs(60), all).await;
    let events = events(&stream).await;
    let mut published: BTreeMap<(String, u64), usize> = BTreeMap::new();
    for (event, _) in &events {
        *published.entry((event.player_id.clone(), event.revision)).or_default() += 1;
    }
    let lost = stored.iter().filter(|revision| !published.contains_key(revision)).count();
    let doubled: usize = published.values().map(|count| count - 1).sum();
    let unfounded = published.keys().filter(|revision| !stored.contains(revision)).count();
    println!("{writers} writers and {servers} servers killed; {} revisions, {} events", revisions.len(), events.len());
    println!("lost {lost}, doubled {doubled}, without a revision {unfounded}");
    assert_eq!((lost, doubled, unfounded), (0, 0, 0));
    assert!(!revisions.is_empty(), "nothing was written");
}

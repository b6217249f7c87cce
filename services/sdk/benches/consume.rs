//! How fast one task consumes events that three servers store, each acknowledged: the SDK against stock async-nats, in
//! alternating rounds.
//!
//! `cargo bench -p sdk --bench consume [-- EVENTS ROUNDS]`; every consumer is a process of its own with one worker.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer::pull};
use futures::StreamExt as _;
use prost::Message as _;
use proto::rpc::Event as _;
use proto::state::player::v1::Updated;
use sdk::testing::NatsCluster;
use sdk::{ConnectionSettings, ConsumerSettings, Error, Fleet, Handler, Settings, Shutdown};
use tokio::sync::Notify;

const STREAM: &str = "EVENTS";
/// Events that are published at the same time.
const PUBLISHING: usize = 256;
/// Events that the stock client has at the same time, as many as a worker of the SDK.
const CONCURRENCY: usize = 100;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let number = |at: usize, or: usize| arguments.get(at).map_or(or, |text| text.parse().expect("a whole number"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match arguments.first().map(String::as_str) {
        Some("stock") => runtime.block_on(stock(&arguments[1], number(2, 1), &arguments[3..])),
        Some("sdk") => runtime.block_on(with_sdk(&arguments[1], number(2, 1), &arguments[3..])),
        _ => runtime.block_on(compare(number(0, 50_000), number(1, 7))),
    }
}

async fn compare(events: usize, rounds: usize) {
    let cluster = NatsCluster::start(3).await;
    cluster.bucket_and_stream("players", 1, STREAM, Updated::SUBJECT, 3).await;
    publish(&cluster.jetstream().await, events).await;
    let mut figures = [("stock", Vec::new()), ("sdk", Vec::new())];
    for round in 0..rounds {
        for (variant, rates) in &mut figures {
            let durable = format!("{variant}-{round}");
            let config = pull::Config {
                durable_name: Some(durable.clone()),
                filter_subject: Updated::SUBJECT.to_owned(),
                max_ack_pending: 2_000,
                ..pull::Config::default()
            };
            let stream = cluster.jetstream().await.get_stream(STREAM).await.expect("a stream");
            stream.create_consumer(config).await.expect("a consumer");
            rates.push(rate(&cluster, variant, &durable, events));
            stream.delete_consumer(&durable).await.expect("a consumer to delete");
        }
    }
    println!("{events} events, 3 servers, 3 replicas on file, one worker:");
    for (variant, rates) in &mut figures {
        rates.sort_by(f64::total_cmp);
        let (median, least, most) = (rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
        println!("{variant:>6} {median:.0} events/s ({least:.0} to {most:.0})");
    }
    println!("ratio of the medians {:.2}", figures[1].1[rounds / 2] / figures[0].1[rounds / 2]);
}

async fn publish(jetstream: &jetstream::Context, events: usize) {
    let publishing = futures::stream::iter(0..events).map(|number| async move {
        let event = Updated { player_id: format!("player-{number}"), ..Updated::default() };
        let sent = jetstream.publish(Updated::SUBJECT, event.encode_to_vec().into()).await;
        sent.expect("a publication").await.expect("an acknowledgement");
    });
    publishing.buffer_unordered(PUBLISHING).for_each(|()| async {}).await;
}

/// Events per second that a process of its own has handled.
fn rate(cluster: &NatsCluster, variant: &str, durable: &str, events: usize) -> f64 {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args([variant, durable, &events.to_string()]).args(cluster.connection().urls);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a child process");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    assert!(child.wait().expect("the child").success(), "{variant} failed");
    line.trim().parse().expect("a number")
}

/// As the crate's documentation shows it.
async fn stock(durable: &str, events: usize, urls: &[String]) {
    let client = async_nats::connect(urls).await.expect("NATS");
    let stream = jetstream::new(client.clone()).get_stream(STREAM).await.expect("a stream");
    let consumer: jetstream::consumer::PullConsumer = stream.get_consumer(durable).await.expect("a consumer");
    let mut messages =
        consumer.stream().max_messages_per_batch(CONCURRENCY).messages().await.expect("messages").take(events);
    let begin = Instant::now();
    while let Some(message) = messages.next().await {
        let message = message.expect("a message");
        Updated::decode(message.payload.clone()).expect("an event");
        message.ack().await.expect("an acknowledgement");
    }
    client.flush().await.expect("a flush");
    report(events, begin.elapsed());
}

struct Counting {
    left: Arc<AtomicUsize>,
    done: Arc<Notify>,
}

impl Handler<Updated> for Counting {
    async fn handle(&self, _: Updated) -> Result<(), Error> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.done.notify_one();
        }
        Ok(())
    }
}

async fn with_sdk(durable: &str, events: usize, urls: &[String]) {
    let connection = ConnectionSettings { urls: urls.to_vec(), ..ConnectionSettings::default() };
    let consumer = ConsumerSettings {
        event: Updated::SUBJECT.to_owned(),
        stream: STREAM.to_owned(),
        durable: Some(durable.to_owned()),
        max_deliveries: 5,
        backoff: vec![Duration::from_secs(1)],
        timeout: Duration::from_secs(30),
        ack_wait: Duration::from_secs(30),
        ordered: false,
    };
    let settings = Settings { consumers: vec![consumer], ..Settings::for_service("bench", connection) };
    let fleet = Fleet::connect(settings).await.expect("NATS");
    let (left, done) = (Arc::new(AtomicUsize::new(events)), Arc::new(Notify::new()));
    let service = sdk::service({
        let (left, done) = (Arc::clone(&left), Arc::clone(&done));
        move |_| std::future::ready(Ok(Counting { left: Arc::clone(&left), done: Arc::clone(&done) }))
    });
    let (trigger, shutdown) = Shutdown::new();
    let begin = Instant::now();
    let working = tokio::spawn(async move { service.on::<Updated>().work(fleet, shutdown).await });
    done.notified().await;
    // Stopping waits until the acknowledgements are sent.
    trigger.send_replace(true);
    working.await.expect("no panic").expect("no error");
    report(events, begin.elapsed());
}

fn report(events: usize, took: Duration) {
    println!("{}", events as f64 / took.as_secs_f64());
}

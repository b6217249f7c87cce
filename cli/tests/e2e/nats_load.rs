//! Clients of NATS itself that go on while servers are rolled: publishers that know what was acknowledged, a writer of a bucket, and a
//! durable consumer. They move as the SDK does: connect anew when their server is about to stop, and only then leave the old connection.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer, stream};
use async_nats::{Client, ConnectOptions, Event, HeaderMap};
use futures::StreamExt as _;
use natsctl::nats::connect::Access;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::fleet::{Fleet, PATIENCE};

const STREAM: &str = "LOAD";
const BUCKET: &str = "load";
const PUBLISHERS: u64 = 4;
/// Between two messages of a publisher.
const EVERY: Duration = Duration::from_millis(5);
/// After so long without an acknowledgement a message is sent again, under the same id.
const AGAIN: Duration = Duration::from_millis(200);

/// The connection that is used now.
type Current = watch::Receiver<Client>;

pub(crate) struct NatsLoad {
    stop: watch::Sender<bool>,
    publishers: Vec<JoinHandle<Published>>,
    writer: JoinHandle<BTreeMap<String, String>>,
    consumer: JoinHandle<BTreeSet<String>>,
    access: Access,
    movers: Vec<JoinHandle<()>>,
}

/// What one publisher knows.
#[derive(Default)]
struct Published {
    acknowledged: BTreeSet<String>,
    /// From the first attempt to the acknowledgement, of every message.
    waits: Vec<Duration>,
}

/// What became of everything.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    /// Values of the bucket that are not the last ones acknowledged.
    pub(crate) overwritten: usize,
    /// Acknowledged messages that the consumer has not got.
    pub(crate) undelivered: usize,
    pub(crate) longest: Duration,
    /// 99.9 % of the acknowledgements came within this time.
    pub(crate) p999: Duration,
}

impl NatsLoad {
    /// Begins on a stream and a bucket with three replicas.
    pub(crate) async fn start(fleet: &Fleet) -> Self {
        let access = access(&fleet.state());
        let jetstream = jetstream::new(access.connect("load", PATIENCE).await.unwrap());
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec!["load.>".to_owned()],
            num_replicas: 3,
            duplicate_window: Duration::from_secs(600),
            ..stream::Config::default()
        };
        let created = jetstream.create_stream(config).await.unwrap();
        let durable = consumer::pull::Config {
            durable_name: Some("load".to_owned()),
            ack_wait: Duration::from_secs(10),
            ..consumer::pull::Config::default()
        };
        created.create_consumer(durable).await.unwrap();
        let bucket =
            jetstream::kv::Config { bucket: BUCKET.to_owned(), num_replicas: 3, ..jetstream::kv::Config::default() };
        jetstream.create_key_value(bucket).await.unwrap();

        let (stop, stopped) = watch::channel(false);
        let (mut publishers, mut movers) = (Vec::new(), Vec::new());
        for number in 0..PUBLISHERS {
            let (client, mover) = connection(&access).await;
            movers.push(mover);
            publishers.push(tokio::spawn(publish(number, client, stopped.clone())));
        }
        let (client, mover) = connection(&access).await;
        let (consuming, other) = connection(&access).await;
        movers.extend([mover, other]);
        let writer = tokio::spawn(write(client, stopped.clone()));
        let consumer = tokio::spawn(consume(consuming, stopped));
        Self { stop, publishers, writer, consumer, access, movers }
    }

    /// Makes a stream with one replica.
    pub(crate) async fn single_replica(fleet: &Fleet) {
        let client = access(&fleet.state()).connect("load", PATIENCE).await.unwrap();
        let subjects = vec!["single.>".to_owned()];
        let config =
            stream::Config { name: "SINGLE".to_owned(), subjects, num_replicas: 1, ..stream::Config::default() };
        jetstream::new(client).create_stream(config).await.unwrap();
    }

    /// Ends it and counts.
    pub(crate) async fn ends(self) -> Tally {
        self.stop.send_replace(true);
        let (mut acknowledged, mut waits) = (BTreeSet::new(), Vec::new());
        for publisher in self.publishers {
            let published = publisher.await.unwrap();
            acknowledged.extend(published.acknowledged);
            waits.extend(published.waits);
        }
        let written = self.writer.await.unwrap();
        let delivered = self.consumer.await.unwrap();
        let jetstream = jetstream::new(self.access.connect("load", PATIENCE).await.unwrap());
        let (stored, doubled) = stored(&jetstream).await;
        let bucket = jetstream.get_key_value(BUCKET).await.unwrap();
        let mut overwritten = 0;
        for (key, value) in &written {
            let found = bucket.get(key).await.unwrap();
            overwritten += usize::from(found.as_deref() != Some(value.as_bytes()));
        }
        self.movers.iter().for_each(JoinHandle::abort);
        waits.sort();
        Tally {
            acknowledged: acknowledged.len(),
            lost: acknowledged.difference(&stored).count(),
            doubled,
            overwritten,
            undelivered: acknowledged.difference(&delivered).count(),
            longest: waits.last().copied().unwrap_or_default(),
            p999: waits.get(waits.len() * 999 / 1000).copied().unwrap_or_default(),
        }
    }
}

impl Tally {
    /// How long acknowledgements took, and how many there were.
    pub(crate) fn figures(&self) -> String {
        let Self { acknowledged, longest, p999, .. } = self;
        format!("{acknowledged} acknowledged, 99.9 % within {p999:?}, the longest wait {longest:?}")
    }

    /// Nothing was lost and nothing came twice.
    #[track_caller]
    pub(crate) fn expect_whole(self, at_least: usize) -> Self {
        let Self { acknowledged, lost, doubled, overwritten, undelivered, .. } = &self;
        assert!(*acknowledged >= at_least, "too little was done: {self:?}");
        assert_eq!((*lost, *doubled, *overwritten, *undelivered), (0, 0, 0, 0), "{self:?}");
        self
    }
}

/// How natsctl's own user connects, who may do everything with what is stored.
fn access(state: &Path) -> Access {
    let endpoints: Value = serde_json::from_slice(&fs::read(state.join("endpoints.json")).unwrap()).unwrap();
    serde_json::from_value(endpoints["users"]["natsctl"].clone()).unwrap()
}

/// A connection that moves when its server is about to stop.
async fn connection(access: &Access) -> (Current, JoinHandle<()>) {
    let (notices, mut told) = mpsc::unbounded_channel();
    let (sender, current) = watch::channel(connect(access, notices.clone()).await);
    let access = access.clone();
    let mover = tokio::spawn(async move {
        while told.recv().await.is_some() {
            sleep(Duration::from_millis(fastrand::u64(..1_000))).await;
            let before = sender.send_replace(connect(&access, notices.clone()).await);
            // What is under way on the old one has its answer by then.
            sleep(Duration::from_millis(500)).await;
            let _ = before.drain().await;
        }
    });
    (current, mover)
}

async fn connect(access: &Access, notices: mpsc::UnboundedSender<()>) -> Client {
    let options = ConnectOptions::with_credentials_file(&access.credentials_file).await.unwrap();
    let options = options
        .require_tls(true)
        .add_root_certificates(access.ca_file.clone())
        .add_client_certificate(access.client_cert_file.clone(), access.client_key_file.clone())
        .ignore_discovered_servers()
        .event_callback(move |event| {
            let notices = notices.clone();
            async move {
                if event == Event::LameDuckMode {
                    let _ = notices.send(());
                }
            }
        });
    options.connect(access.urls.clone()).await.unwrap()
}

async fn publish(number: u64, client: Current, stopped: watch::Receiver<bool>) -> Published {
    let mut published = Published::default();
    for turn in 0.. {
        if *stopped.borrow() {
            break;
        }
        let id = format!("{number}-{turn}");
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id.as_str());
        let start = Instant::now();
        acknowledged(&client, &format!("load.{number}"), Some(&headers), &id).await;
        published.waits.push(start.elapsed());
        published.acknowledged.insert(id);
        sleep(EVERY).await;
    }
    published
}

async fn write(client: Current, stopped: watch::Receiver<bool>) -> BTreeMap<String, String> {
    let mut written = BTreeMap::new();
    for turn in 0.. {
        if *stopped.borrow() {
            break;
        }
        let (key, value) = (format!("key{}", turn % 20), turn.to_string());
        acknowledged(&client, &format!("$KV.{BUCKET}.{key}"), None, &value).await;
        written.insert(key, value);
        sleep(EVERY).await;
    }
    written
}

/// Sends a message until it is acknowledged.
async fn acknowledged(client: &Current, subject: &str, headers: Option<&HeaderMap>, payload: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let client = client.borrow().clone();
        let (subject, payload) = (subject.to_owned(), payload.to_owned().into());
        let headers = headers.cloned().unwrap_or_default();
        let answer = timeout(AGAIN, client.request_with_headers(subject.clone(), headers, payload)).await;
        if let Ok(Ok(answer)) = answer
            && let Ok(answer) = serde_json::from_slice::<Value>(&answer.payload)
            && answer["error"].is_null()
        {
            return;
        }
        assert!(Instant::now() < deadline, "nothing is acknowledged on `{subject}`");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn consume(client: Current, stopped: watch::Receiver<bool>) -> BTreeSet<String> {
    let mut delivered = BTreeSet::new();
    let mut idle = 0;
    // What was published last is delivered a moment after the end.
    while !*stopped.borrow() || idle < 3 {
        idle += 1;
        let context = jetstream::new(client.borrow().clone());
        let Ok(consumer) = context.get_consumer_from_stream::<consumer::pull::Config, _, _>("load", STREAM).await
        else {
            idle = 0;
            sleep(AGAIN).await;
            continue;
        };
        let Ok(mut batch) = consumer.fetch().max_messages(200).expires(Duration::from_secs(1)).messages().await else {
            continue;
        };
        while let Ok(Some(Ok(message))) = timeout(Duration::from_secs(2), batch.next()).await {
            idle = 0;
            delivered.insert(String::from_utf8(message.payload.to_vec()).unwrap());
            let _ = message.ack().await;
        }
    }
    delivered
}

/// All that the stream holds, and how much of it more than once.
async fn stored(jetstream: &jetstream::Context) -> (BTreeSet<String>, usize) {
    let stream = jetstream.get_stream(STREAM).await.unwrap();
    let messages = stream.cached_info().state.messages;
    let config = consumer::pull::OrderedConfig::default();
    let mut all = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let (mut stored, mut doubled) = (BTreeSet::new(), 0);
    for _ in 0..messages {
        let message = timeout(PATIENCE, all.next()).await.unwrap().unwrap().unwrap();
        doubled += usize::from(!stored.insert(String::from_utf8(message.payload.to_vec()).unwrap()));
    }
    (stored, doubled)
}

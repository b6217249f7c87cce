//! The operations side of NATS against real servers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use async_nats::{Client, Event, ServerError};
use futures::StreamExt;
use futures::future::join_all;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::accounts::Accounts;
use super::connect::{Access, connect_to};
use super::discovery;
use super::health;
use super::identity::SYSTEM_USER;
use super::jetstream::JetStream;
use super::pki::Tls;
use super::replicas;
use super::testing::{PATIENCE, TestCluster, one_account, permissions, round_trip, write_with_event};
use crate::model::desired::{Bucket, Consumer, ConsumerStart, Stream};
use crate::model::observed::Assets;
use crate::model::status::{ClusterHealth, NodeHealth, StreamHealth, StreamState};

fn users() -> Accounts {
    let many: Vec<String> = (0..600).map(|i| format!("svc.service{i}.v1.operation")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let users = [
        ("natsctl", permissions(&[">"], &[">"])),
        ("quest", permissions(&["svc.ai.model.v1.select"], &["svc.quest.v1.* svc-quest-workers", "_INBOX_quest.>"])),
        ("mute", permissions(&[], &["_INBOX_mute.>"])),
        ("gateway", permissions(&many, &["_INBOX_gateway.>"])),
    ];
    one_account(users.map(|(name, permissions)| (name.to_owned(), permissions)))
}

/// A client, and what its server complains about.
async fn listening(access: &Access) -> (Client, mpsc::UnboundedReceiver<String>) {
    let (complain, complaints) = mpsc::unbounded_channel();
    let options = access.options("test").await.unwrap().event_callback(move |event| {
        if let Event::ServerError(ServerError::Other(reason)) = event {
            // The receiver is gone once the test is over.
            let _ = complain.send(reason);
        }
        std::future::ready(())
    });
    (connect_to(&access.urls, options, "test", PATIENCE).await.unwrap(), complaints)
}

#[tokio::test]
async fn users_may_do_what_is_permitted_and_nothing_else() {
    let cluster = TestCluster::start(1, &users()).await;
    let natsctl = cluster.connect("natsctl").await;
    let mut heard = natsctl.subscribe("svc.>").await.unwrap();
    round_trip(&natsctl, "nobody").await;

    let (quest, mut complaints) = listening(&cluster.access("quest")).await;
    let mut complaint = async || timeout(PATIENCE, complaints.recv()).await.unwrap().unwrap().to_lowercase();
    quest.publish("svc.quest.v1.generate", "forbidden".into()).await.unwrap();
    assert!(complaint().await.contains("permissions violation for publish to \"svc.quest.v1.generate\""));
    quest.publish("svc.ai.model.v1.select", "permitted".into()).await.unwrap();
    assert_eq!(timeout(PATIENCE, heard.next()).await.unwrap().unwrap().payload, "permitted");

    let mut own = quest.queue_subscribe("svc.quest.v1.generate", "svc-quest-workers".to_owned()).await.unwrap();
    let _other = quest.subscribe("svc.ai.model.v1.select").await.unwrap();
    assert!(complaint().await.contains("permissions violation for subscription to \"svc.ai.model.v1.select\""));
    natsctl.publish("svc.quest.v1.generate", "served".into()).await.unwrap();
    assert_eq!(timeout(PATIENCE, own.next()).await.unwrap().unwrap().payload, "served");

    let (mute, mut complaints) = listening(&cluster.access("mute")).await;
    mute.publish("svc.quest.v1.generate", "".into()).await.unwrap();
    assert!(timeout(PATIENCE, complaints.recv()).await.unwrap().unwrap().to_lowercase().contains("publish"));

    // Six hundred subjects in its JWT.
    cluster.connect("gateway").await;

    refuses_clients_without_certificate(&cluster).await;
    finds_instances(&natsctl).await;
    let health = cluster.health().await;
    assert!(health.quorum && health.has_settled(), "{health:?}");
}

async fn refuses_clients_without_certificate(cluster: &TestCluster) {
    let access = cluster.access("quest");
    let credentials = async_nats::ConnectOptions::with_credentials_file(&access.credentials_file).await.unwrap();
    let options = credentials.require_tls(true).add_root_certificates(access.ca_file.clone());
    let error = connect_to(&access.urls, options, "quest", Duration::from_secs(5)).await.unwrap_err();
    assert!(error.to_string().contains("as `quest`"), "{error:#}");
}

async fn finds_instances(client: &Client) {
    let mut pings = client.subscribe("$SRV.PING.quest").await.unwrap();
    let service = client.clone();
    tokio::spawn(async move {
        while let Some(ping) = pings.next().await {
            for id in ["a", "b"] {
                let reply = format!(
                    r#"{{"type":"io.nats.micro.v1.ping_response","name":"quest","id":"{id}","version":"0.1.0+1","metadata":{{"task":"t{id}"}}}}"#
                );
                service.publish(ping.reply.clone().unwrap(), reply.into()).await.unwrap();
            }
        }
    });
    let both = |found: &[discovery::Instance]| found.len() == 2;
    let found = discovery::instances(client, discovery::Question::Ping, Some("quest"), PATIENCE, both).await.unwrap();
    let tasks: Vec<(&str, &str)> = found.iter().map(|found| (&*found.service, &*found.metadata["task"])).collect();
    assert_eq!(tasks, [("quest", "ta"), ("quest", "tb")]);
    let absent =
        discovery::instances(client, discovery::Question::Ping, Some("weather"), Duration::from_millis(150), both)
            .await
            .unwrap();
    assert_eq!(absent, []);
}

#[tokio::test]
async fn a_server_that_takes_connections_and_says_nothing_does_not_stand_in_for_the_others() {
    let cluster = TestCluster::start(1, &users()).await;
    // The system accepts connections for it, as for a process that was stopped.
    let silent: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mut access = cluster.access("natsctl");
    for listener in &silent {
        access.urls.insert(0, format!("tls://{}", listener.local_addr().unwrap()));
    }
    let began = Instant::now();
    for _ in 0..5 {
        access.connect("natsctl", Duration::from_secs(4)).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    access.urls.pop();
    let error = access.connect("natsctl", Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("no answer within 1 s"), "{error:#}");
}

#[tokio::test]
async fn a_cluster_outlives_one_node_and_says_how_it_is() {
    let mut cluster = TestCluster::start(3, &users()).await;
    let health = cluster.health().await;
    assert!(health.quorum && health.has_settled());
    assert_eq!(health.nodes.iter().filter(|node| node.healthy).count(), 3);
    assert_eq!(health.nodes[0].url, cluster.urls()["nats-1"]);
    let leader = leader(&health.nodes);

    routes_refuse_certificates_of_clients(&cluster);
    let jetstream = JetStream::new(cluster.connect("natsctl").await);
    let stream = Stream {
        subjects: vec!["evt.a.v1".to_owned(), "evt.b.v1".to_owned()],
        replicas: 3,
        max_age_seconds: 3600,
        duplicate_window_seconds: 120,
        ..Stream::default()
    };
    keeps_streams_and_buckets(&jetstream, &stream).await;

    cluster.kill(&leader).await;
    // There is no answer until there is a new leader, so this proves that the request is made again.
    let longer = Stream { max_age_seconds: 7200, ..stream };
    jetstream.put_stream("EVT_TEST", &longer, PATIENCE).await.unwrap();
    let health = well_but_for(&cluster, &leader).await;
    assert!(!health.has_settled(), "{health:?}");

    let second = self::leader(&health.nodes);
    cluster.kill(&second).await;
    let health = cluster.health().await;
    assert!(!health.quorum, "{health:?}");
    let (access, urls) = (cluster.access(SYSTEM_USER), cluster.urls());
    let error = health::wait_until_settled(&access, &urls, Duration::from_millis(400)).await.unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error:#}");
    let error = jetstream.put_stream("EVT_OTHER", &longer, Duration::from_millis(100)).await.unwrap_err();
    assert!(format!("{error:#}").starts_with("failed to put stream `EVT_OTHER`: JetStream is not available"));
}

/// The first that its servers hear of the account, and all at the same time: a server that reads it meanwhile rejects its replicas.
#[tokio::test]
async fn all_that_is_made_in_a_new_cluster_is_there() {
    let cluster = TestCluster::start(5, &users()).await;
    let jetstream = JetStream::new(cluster.connect("natsctl").await);
    let bucket = Bucket { replicas: 3, history: 1, ..Bucket::default() };
    let names: BTreeSet<String> = (0..24).map(|number| format!("b{number}")).collect();
    let made = join_all(names.iter().map(|name| jetstream.put_bucket(name, &bucket, PATIENCE))).await;
    made.into_iter().for_each(|made| made.unwrap());
    let expected: BTreeSet<String> = names.iter().map(|name| format!("KV_{name}")).collect();
    assert_eq!(jetstream.names(PATIENCE).await.unwrap(), expected);
}

#[tokio::test]
async fn a_stream_without_a_quorum_is_named_while_the_cluster_has_one() {
    let mut cluster = TestCluster::start(5, &users()).await;
    let jetstream = JetStream::new(cluster.connect("natsctl").await);
    let bucket = |replicas| Bucket { replicas, history: 1, ..Bucket::default() };
    jetstream.put_bucket("three", &bucket(3), PATIENCE).await.unwrap();
    jetstream.put_bucket("five", &bucket(5), PATIENCE).await.unwrap();
    let expected = jetstream.names(PATIENCE).await.unwrap();
    assert_eq!(expected, BTreeSet::from(["KV_five".to_owned(), "KV_three".to_owned()]));
    let all_well = |streams: &[StreamHealth]| streams.iter().all(|stream| stream.reason.is_none());
    let streams = streams_when(&cluster, &expected, all_well).await;
    let replicas: Vec<String> = streams[1].replicas.iter().map(|replica| replica.node.clone()).collect();
    assert_eq!((streams.len(), streams[1].name.as_str(), replicas.len()), (2, "KV_three", 3));

    for node in &replicas[..2] {
        cluster.kill(node).await;
    }
    // What the last one thinks does not matter, also not in its first seconds alone.
    let streams = streams_of(&cluster, &expected).await;
    let [a, b, c] = [&replicas[0], &replicas[1], &replicas[2]];
    assert_eq!(streams[1].state, StreamState::NoQuorum, "{streams:?}");
    let reason = streams[1].reason.as_deref().unwrap();
    assert!(reason.contains(&format!("2 of its 3 replicas are down (`{a}`, `{b}`)")), "{reason}");
    let well = |streams: &[StreamHealth]| streams[0].state == StreamState::Ok;
    let streams = streams_when(&cluster, &expected, well).await;
    assert_eq!(streams[1].state, StreamState::NoQuorum, "{streams:?}");
    // The meta leader may have been one of the two.
    let has_quorum = async { while !cluster.health().await.quorum {} };
    timeout(PATIENCE, has_quorum).await.unwrap();

    cluster.kill(c).await;
    let streams = streams_of(&cluster, &expected).await;
    assert_eq!((streams[1].state, &streams[1].replicas), (StreamState::Unknown, &Vec::new()), "{streams:?}");
}

async fn streams_of(cluster: &TestCluster, expected: &BTreeSet<String>) -> Vec<StreamHealth> {
    let client = cluster.connect(SYSTEM_USER).await;
    let nodes = cluster.urls().into_keys().collect();
    replicas::ask(&client, &nodes, expected, Duration::from_secs(1)).await.unwrap()
}

async fn streams_when(
    cluster: &TestCluster,
    expected: &BTreeSet<String>,
    holds: impl Fn(&[StreamHealth]) -> bool,
) -> Vec<StreamHealth> {
    let waiting = async {
        loop {
            let streams = streams_of(cluster, expected).await;
            if holds(&streams) {
                return streams;
            }
        }
    };
    timeout(PATIENCE, waiting).await.unwrap()
}

/// How the cluster is once it does well without that node.
async fn well_but_for(cluster: &TestCluster, lost: &str) -> ClusterHealth {
    let down = |node: &NodeHealth| node.name == lost && node.reason.as_deref() == Some("does not answer");
    let waiting = async {
        loop {
            let health = cluster.health().await;
            if health.quorum && health.nodes.iter().all(|node| node.healthy != down(node)) {
                return health;
            }
        }
    };
    timeout(PATIENCE, waiting).await.unwrap()
}

fn leader(nodes: &[NodeHealth]) -> String {
    let mut leaders = nodes.iter().filter(|node| node.meta_leader);
    let leader = leaders.next().unwrap().name.clone();
    assert_eq!(leaders.next(), None);
    leader
}

async fn keeps_streams_and_buckets(jetstream: &JetStream, stream: &Stream) {
    const CONSUMER: &str = "EVT_TEST/npc_test";
    let bucket = Bucket { replicas: 3, history: 10, ttl_seconds: 60, ..Bucket::default() };
    let consumer = Consumer {
        service: Some("npc".to_owned()),
        subjects: stream.subjects.clone(),
        start: ConsumerStart::New,
        ack_wait_ms: 2_500,
        max_ack_pending: 1,
        max_deliver: -1,
    };
    let expected = Assets {
        streams: BTreeMap::from([("EVT_TEST".to_owned(), stream.clone())]),
        buckets: BTreeMap::from([("quests".to_owned(), bucket.clone())]),
        consumers: BTreeMap::from([(CONSUMER.to_owned(), consumer.clone())]),
    };
    for _ in 0..2 {
        jetstream.put_stream("EVT_TEST", stream, PATIENCE).await.unwrap();
        jetstream.put_bucket("quests", &bucket, PATIENCE).await.unwrap();
        jetstream.put_consumer(CONSUMER, &consumer, PATIENCE).await.unwrap();
        assert_eq!(jetstream.observe(PATIENCE).await.unwrap(), expected);
    }
    let changed = Bucket { history: 20, ttl_seconds: 0, ..bucket };
    jetstream.put_bucket("quests", &changed, PATIENCE).await.unwrap();
    assert_eq!(jetstream.observe(PATIENCE).await.unwrap().buckets["quests"], changed);

    let changed = Consumer { ack_wait_ms: 1_000, max_ack_pending: 5, ..consumer };
    jetstream.put_consumer(CONSUMER, &changed, PATIENCE).await.unwrap();
    assert_eq!(jetstream.observe(PATIENCE).await.unwrap().consumers[CONSUMER], changed);
    for _ in 0..2 {
        jetstream.delete_consumer(CONSUMER, PATIENCE).await.unwrap();
        assert_eq!(jetstream.observe(PATIENCE).await.unwrap().consumers, BTreeMap::new());
    }
    let error = jetstream.put_consumer("EVT_NONE/npc_test", &changed, PATIENCE).await.unwrap_err();
    assert!(
        format!("{error:#}").starts_with("failed to put consumer `EVT_NONE/npc_test`: stream not found"),
        "{error:#}"
    );

    let error = jetstream.put_stream("EVT_THIEF", stream, PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("failed to put stream `EVT_THIEF`"), "{error:#}");
    assert!(crate::error::hint(&error).unwrap().contains("another stream"), "{error:#}");
}

#[tokio::test]
async fn a_bucket_and_a_stream_that_hold_data_get_an_outbox_in_place() {
    const EVENT: &str = "evt.quest.generated.v1";
    let cluster = TestCluster::start(3, &users()).await;
    let client = cluster.connect("natsctl").await;
    let jetstream = JetStream::new(client.clone());
    let mut bucket = Bucket { replicas: 3, history: 5, ..Bucket::default() };
    let mut stream = Stream { subjects: vec![EVENT.to_owned()], replicas: 3, ..Stream::default() };
    jetstream.put_bucket("quests", &bucket, PATIENCE).await.unwrap();
    jetstream.put_stream("EVT_QUESTS", &stream, PATIENCE).await.unwrap();
    client.request("$KV.quests.old", "old".into()).await.unwrap();
    client.request(EVENT, "old".into()).await.unwrap();
    let refused = write_with_event(&client, "quests", "early", EVENT).await;
    assert_eq!(refused["error"]["err_code"], 10174, "{refused}");

    bucket.outbox_seconds = 3_600;
    stream.outboxes = ["quests".to_owned()].into();
    for _ in 0..2 {
        jetstream.put_bucket("quests", &bucket, PATIENCE).await.unwrap();
        jetstream.put_stream("EVT_QUESTS", &stream, PATIENCE).await.unwrap();
        let assets = jetstream.observe(PATIENCE).await.unwrap();
        assert_eq!((&assets.buckets["quests"], &assets.streams["EVT_QUESTS"]), (&bucket, &stream));
    }
    let written = write_with_event(&client, "quests", "new", EVENT).await;
    assert_eq!(written["count"], 2, "{written}");

    let context = async_nats::jetstream::new(client);
    let events = context.get_stream("EVT_QUESTS").await.unwrap();
    let both = async { while events.get_info().await.unwrap().state.messages < 2 {} };
    timeout(PATIENCE, both).await.unwrap();
    let quests = context.get_key_value("quests").await.unwrap();
    assert_eq!(quests.get("old").await.unwrap().unwrap(), "old");
    assert_eq!(quests.get("new").await.unwrap().unwrap(), "value");

    // What somebody changed by hand is a difference.
    let changed = async_nats::jetstream::stream::Config {
        allow_atomic_publish: false,
        ..quests.stream.cached_info().config.clone()
    };
    context.update_stream(changed).await.unwrap();
    assert_eq!(jetstream.observe(PATIENCE).await.unwrap().buckets["quests"].outbox_seconds, 0);
    bucket.outbox_seconds = 60;
    jetstream.put_bucket("quests", &bucket, PATIENCE).await.unwrap();
    assert_eq!(jetstream.observe(PATIENCE).await.unwrap().buckets["quests"], bucket);
    // Nobody publishes any more.
    bucket.outbox_seconds = 0;
    jetstream.put_bucket("quests", &bucket, PATIENCE).await.unwrap();
    assert_eq!(jetstream.observe(PATIENCE).await.unwrap().buckets["quests"], bucket);
}

/// A route may do everything, so a service's own certificate must not be enough.
fn routes_refuse_certificates_of_clients(cluster: &TestCluster) {
    let route = cluster.node("nats-1").route;
    let server = cluster.pki.route("nats-2");
    let service = Tls { authority: server.authority.clone(), ..cluster.pki.client("quest") };
    assert!(is_let_in(route, &server));
    assert!(!is_let_in(route, &service));
}

fn is_let_in(route: SocketAddr, tls: &Tls) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&tls.authority).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(&tls.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&tls.key).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();

    let mut socket = TcpStream::connect(route).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut connection = ClientConnection::new(config.into(), route.ip().into()).unwrap();
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    // The server introduces itself to whom it lets in.
    let mut first = [0; 5];
    stream.read_exact(&mut first).is_ok_and(|()| first == *b"INFO ")
}

use super::*;
use crate::manifest::fixture::Tree;
use crate::model::desired::{Consumer, ConsumerStart, Stream as Wanted};
use crate::nats::jetstream::JetStream;
use crate::nats::permissions::{NATSCTL, accounts};
use crate::nats::testing::{PATIENCE, TestCluster};
use prost_reflect::prost::Message as _;
use proto::rpc::Event as _;

const EVENT: &str = "evt.quest.generated.v1";
const STREAM_OF_EVENT: &str = "EVT_QUEST_SYSTEM";

/// A cluster with the streams, and consumers of two services.
async fn fleet() -> (TestCluster, Client, DeadLetters) {
    let manifests = Tree::valid().load().unwrap();
    let cluster = TestCluster::start(1, &accounts(&manifests)).await;
    let client = cluster.connect(NATSCTL).await;
    let jetstream = JetStream::new(client.clone());
    let stream = |subjects: &[&str]| Wanted {
        subjects: subjects.iter().map(ToString::to_string).collect(),
        replicas: 1,
        max_age_seconds: 0,
        duplicate_window_seconds: 60,
        ..Wanted::default()
    };
    jetstream.put_stream(STREAM, &stream(&["dlq.>"]), PATIENCE).await.unwrap();
    let subjects = [EVENT, &consumes::replays("*", EVENT)];
    jetstream.put_stream(STREAM_OF_EVENT, &stream(&subjects), PATIENCE).await.unwrap();
    for service in ["npc-behavior", "state-manager"] {
        let consumer = Consumer {
            service: Some(service.to_owned()),
            subjects: vec![EVENT.to_owned(), consumes::replays(service, EVENT)],
            start: ConsumerStart::All,
            ack_wait_ms: 30_000,
            max_ack_pending: 1_000,
            max_deliver: -1,
        };
        let name = format!("{STREAM_OF_EVENT}/{}", consumes::durable(service, EVENT));
        jetstream.put_consumer(&name, &consumer, PATIENCE).await.unwrap();
    }
    let dead_letters = DeadLetters::new(client.clone()).await.unwrap();
    (cluster, client, dead_letters)
}

/// Stores a dead letter as the SDK does.
async fn dead(client: &Client, service: &str, event: &str, code: &str, quest: &str) {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("Event-Id", "quests/p/q"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("Nats-Msg-Id", quest),
        ("Dead-Letter-Reason", "no such quest"),
        ("Dead-Letter-Code", code),
        ("Dead-Letter-Attempts", "5"),
        ("Dead-Letter-Stream", STREAM_OF_EVENT),
        ("Dead-Letter-Sequence", "7"),
        ("Dead-Letter-Stored-At", "2026-11-01 10:00:00"),
    ] {
        headers.insert(name, value);
    }
    let payload = proto::quest::v1::Generated { quest_id: quest.to_owned(), ..Default::default() }.encode_to_vec();
    let jetstream = jetstream::new(client.clone());
    let stored =
        jetstream.publish_with_headers(format!("dlq.{service}.{event}"), headers, payload.into()).await.unwrap();
    stored.await.unwrap();
}

/// What a service has been given, acknowledged.
async fn received(client: &Client, service: &str) -> Vec<async_nats::jetstream::Message> {
    use futures::StreamExt as _;
    let stream = jetstream::new(client.clone()).get_stream(STREAM_OF_EVENT).await.unwrap();
    let consumer: jetstream::consumer::PullConsumer =
        stream.get_consumer(&consumes::durable(service, EVENT)).await.unwrap();
    let mut messages = consumer.fetch().max_messages(100).messages().await.unwrap();
    let mut received = Vec::new();
    while let Some(message) = messages.next().await {
        let message = message.unwrap();
        message.double_ack().await.unwrap();
        received.push(message);
    }
    received
}

#[tokio::test]
async fn dead_letters_are_listed_by_what_they_are() {
    let (_cluster, client, dead_letters) = fleet().await;
    assert_eq!(dead_letters.list(&Filter::default()).await.unwrap(), []);
    assert_eq!(proto::quest::v1::Generated::SUBJECT, EVENT);
    dead(&client, "npc-behavior", EVENT, "INVALID_ARGUMENT", "one").await;
    dead(&client, "state-manager", EVENT, "UNAVAILABLE", "two").await;
    dead(&client, "npc-behavior", "evt.ai.model.selected.v1", "UNAVAILABLE", "three").await;
    let ids = async |filter: Filter| {
        let letters = dead_letters.list(&filter).await.unwrap();
        letters.into_iter().map(|letter| letter.id).collect::<Vec<_>>()
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(ids(Filter::default()).await, [1, 2, 3]);
    assert_eq!(ids(Filter { service: text("npc-behavior"), ..Filter::default() }).await, [1, 3]);
    assert_eq!(ids(Filter { event: text(EVENT), ..Filter::default() }).await, [1, 2]);
    assert_eq!(ids(Filter { code: text("unavailable"), ..Filter::default() }).await, [2, 3]);
    assert_eq!(ids(Filter { since: Some(Timestamp::MAX), ..Filter::default() }).await, [0; 0]);
    assert_eq!(ids(Filter { ids: vec![3, 1], ..Filter::default() }).await, [3, 1]);

    let letter = dead_letters.get(1).await.unwrap();
    assert_eq!((letter.service.as_str(), letter.event.as_str(), letter.attempts), ("npc-behavior", EVENT, Some(5)));
    assert_eq!((letter.code.as_str(), letter.reason.as_str()), ("INVALID_ARGUMENT", "no such quest"));
    assert_eq!(letter.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(letter.decoded().unwrap()["questId"], "one");
    let error = dead_letters.get(9).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no dead letter 9");
}

#[tokio::test]
async fn a_replay_reaches_the_service_that_failed_once_and_no_other() {
    let (_cluster, client, dead_letters) = fleet().await;
    dead(&client, "npc-behavior", EVENT, "UNAVAILABLE", "one").await;
    let letter = dead_letters.get(1).await.unwrap();
    // Interrupted between the two: the event is stored, and the dead letter still there.
    assert!(dead_letters.publish(&letter).await.unwrap());
    assert_eq!(dead_letters.replay(&letter).await.unwrap(), Outcome::ReplayedBefore);
    // Two people at once.
    assert_eq!(dead_letters.replay(&letter).await.unwrap(), Outcome::Gone);
    assert_eq!(dead_letters.drop(&letter).await.unwrap(), Outcome::Gone);
    assert_eq!(dead_letters.list(&Filter::default()).await.unwrap(), []);

    let events = received(&client, "npc-behavior").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].payload.to_vec(), letter.payload);
    let headers = events[0].headers.as_ref().unwrap();
    assert_eq!(headers.get("Event-Id").unwrap().as_str(), "quests/p/q");
    assert!(headers.get("traceparent").is_some());
    assert!(headers.iter().all(|(name, _)| !name.to_string().starts_with("Dead-Letter-")), "{headers:?}");
    assert_eq!(received(&client, "state-manager").await.len(), 0);

    // It fails again, and is replayed again.
    dead(&client, "npc-behavior", EVENT, "UNAVAILABLE", "again").await;
    let letter = dead_letters.list(&Filter::default()).await.unwrap().remove(0);
    assert_eq!(dead_letters.replay(&letter).await.unwrap(), Outcome::Replayed);
    assert_eq!(received(&client, "npc-behavior").await.len(), 1);
}

#[tokio::test]
async fn nothing_is_replayed_to_nobody() {
    let (_cluster, client, dead_letters) = fleet().await;
    dead(&client, "quest-system", EVENT, "UNAVAILABLE", "one").await;
    let letter = dead_letters.get(1).await.unwrap();
    let error = dead_letters.replay(&letter).await.unwrap_err();
    let expected = "dead letter 1 was not replayed: `quest-system` does not consume `evt.quest.generated.v1` any more";
    assert_eq!(format!("{error:#}"), expected);
    assert_eq!(dead_letters.drop(&letter).await.unwrap(), Outcome::Dropped);
    assert_eq!(dead_letters.list(&Filter::default()).await.unwrap(), []);
}

#[tokio::test]
async fn what_cannot_be_read_is_not_nothing() {
    let manifests = Tree::valid().load().unwrap();
    let cluster = TestCluster::start(1, &accounts(&manifests)).await;
    let dead_letters = DeadLetters::new(cluster.connect(NATSCTL).await).await.unwrap();
    let error = dead_letters.list(&Filter::default()).await.unwrap_err();
    assert!(error.to_string().starts_with("the dead letters cannot be read: "), "{error:#}");
}

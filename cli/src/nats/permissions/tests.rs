//! Permissions as sets, and as a real server understands them.

use std::collections::BTreeMap;

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull;
use futures::StreamExt as _;
use futures::future::join;
use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::manifest::fixture::Tree;
use crate::model::desired::{Bucket, Stream};
use crate::nats::jetstream::JetStream;
use crate::nats::testing::{PATIENCE, TestCluster, round_trip, write_with_event};

fn sample() -> BTreeMap<String, Permissions> {
    accounts(&Tree::valid().load().unwrap()).into_values().flat_map(|account| account.users).collect()
}

#[track_caller]
fn check(user: &str, may_publish: &[&str], may_not_publish: &[&str]) {
    let users = sample();
    for subject in may_publish {
        assert!(users[user].publish.contains(*subject), "`{user}` may not publish `{subject}`");
    }
    for subject in may_not_publish {
        assert!(!users[user].publish.contains(*subject), "`{user}` may publish `{subject}`");
    }
}

#[test]
fn a_service_calls_what_its_manifest_names() {
    check(
        "ai-integration",
        &["svc.ai.model.v1.select", "evt.ai.llm.generated.v1", "_INBOX_gateway.>", "_INBOX.>"],
        &["svc.quest.v1.get", "evt.ai.model.selected.v1", "_INBOX_quest-system.>", "_INBOX_model-management.>", ">"],
    );
    check("model-management", &["_INBOX_ai-integration.>", "_INBOX_gateway.>"], &["_INBOX_quest-system.>"]);
}

#[test]
fn the_gateway_calls_everything_and_controls_streams() {
    check(
        "gateway",
        &["svc.quest.v1.generate", "svc.ai.llm.v1.infer_stream", "_STREAM_ai-integration.>"],
        &["_INBOX_quest-system.>", "_INBOX_ai-integration.>", "evt.quest.generated.v1", "$KV.quests.>"],
    );
}

#[test]
fn a_bucket_is_for_its_service_alone() {
    check(
        "quest-system",
        &["$KV.quests.>", "outbox.quests.*.evt.quest.generated.v1", "$JS.API.STREAM.MSG.GET.KV_quests"],
        &[
            "$KV.models.>",
            "outbox.quests.>",
            "outbox.models.*.evt.quest.generated.v1",
            "$JS.API.STREAM.DELETE.KV_quests",
        ],
    );
    check(
        "operator",
        &["$JS.API.DIRECT.GET.*.>"],
        &["$KV.quests.>", "$JS.API.STREAM.DELETE.>", "$JS.API.>", "$JS.API.CONSUMER.CREATE.>"],
    );
}

#[test]
fn a_service_listens_to_its_own_subjects_only() {
    let users = sample();
    let expected = [
        "$SRV.INFO",
        "$SRV.INFO.quest-system",
        "$SRV.INFO.quest-system.*",
        "$SRV.PING",
        "$SRV.PING.quest-system",
        "$SRV.PING.quest-system.*",
        "$SRV.STATS",
        "$SRV.STATS.quest-system",
        "$SRV.STATS.quest-system.*",
        "_INBOX_quest-system.>",
        "svc.quest.v1.> svc-quest-system-workers",
    ];
    assert_eq!(users["quest-system"].subscribe, expected.map(str::to_owned).into());
}

#[test]
fn a_digest_changes_with_the_permissions() {
    let users = sample();
    let mut other = users["gateway"].clone();
    assert_eq!(other.digest(), users["gateway"].digest());
    other.publish.insert("x".to_owned());
    assert_ne!(other.digest(), users["gateway"].digest());
}

/// A subject on which every service may publish and nobody listens.
pub(super) const NOBODY: &str = "_INBOX.nobody";

#[tokio::test]
async fn a_server_grants_what_is_derived() {
    let mut tree = Tree::valid();
    tree.replace("services/npc-behavior.yaml", "calls: []", "consumes: { evt.quest.generated.v1: {} }");
    let manifests = tree.load().unwrap();
    let cluster = TestCluster::start(1, &accounts(&manifests)).await;
    let natsctl = cluster.connect(NATSCTL).await;
    let quests = Bucket { replicas: 1, history: 5, outbox_seconds: 60, ..Bucket::default() };
    let events = Stream {
        subjects: vec!["evt.quest.generated.v1".to_owned()],
        replicas: 1,
        outboxes: ["quests".to_owned()].into(),
        ..Stream::default()
    };
    let store = JetStream::new(natsctl.clone());
    store.put_bucket("quests", &quests, PATIENCE).await.unwrap();
    store.put_stream("EVT_QUEST_SYSTEM", &events, PATIENCE).await.unwrap();
    let events = jetstream::new(natsctl).get_stream("EVT_QUEST_SYSTEM").await.unwrap();
    let durable =
        pull::Config { durable_name: Some("npc-behavior_quest-generated-v1".to_owned()), ..Default::default() };
    events.create_consumer(durable).await.unwrap();

    let quest = cluster.service("quest-system").await;
    let gateway = cluster.service("gateway").await;
    let npc = cluster.service("npc-behavior").await;
    let operator = cluster.connect(OPERATOR).await;

    // A request and its answer; the servers say who calls.
    let group = "svc-quest-system-workers".to_owned();
    let mut requests = quest.queue_subscribe("svc.quest.v1.>", group).await.unwrap();
    round_trip(&quest, NOBODY).await;
    for (caller, name) in [(&gateway, "gateway"), (&operator, "operator")] {
        let answering = async {
            let request = requests.next().await.unwrap();
            assert_eq!(request.subject.as_str(), format!("svc.quest.v1.get.{name}"));
            quest.publish(request.reply.unwrap(), "answer".into()).await.unwrap();
        };
        let both = join(caller.request("svc.quest.v1.get", "".into()), answering);
        let (answer, ()) = timeout(PATIENCE, both).await.unwrap();
        assert_eq!(answer.unwrap().payload, "answer");
    }
    let kind = gateway.request("svc.npc.behavior.v1.plan", "".into()).await.unwrap_err().kind();
    assert_eq!(kind, async_nats::RequestErrorKind::NoResponders);

    // Its own bucket, in every way that the SDK uses one.
    let store = jetstream::new(quest.clone()).get_key_value("quests").await.unwrap();
    let revision = store.create("p.q", "1".into()).await.unwrap();
    store.update("p.q", "2".into(), revision).await.unwrap();
    assert_eq!(store.get("p.q").await.unwrap().unwrap(), "2");
    store.delete("p.q").await.unwrap();
    let stream = jetstream::new(quest.clone()).get_stream("KV_quests").await.unwrap();
    assert_eq!(stream.get_last_raw_message_by_subject("$KV.quests.p.q").await.unwrap().sequence, 3);
    let subjects = stream.info_with_subjects("$KV.quests.>").await.unwrap();
    assert_eq!(subjects.count().await, 1);

    // An event, published by its owner or written with a value, and read by who consumes it.
    let publishing = jetstream::new(quest.clone());
    let acknowledged = publishing.publish("evt.quest.generated.v1", "event".into()).await.unwrap();
    assert_eq!(acknowledged.await.unwrap().sequence, 1);
    let written = write_with_event(&quest, "quests", "r", "evt.quest.generated.v1").await;
    assert_eq!((&written["count"], &written["error"]), (&json!(2), &json!(null)), "{written}");
    let stream = jetstream::new(npc.clone()).get_stream_no_info("EVT_QUEST_SYSTEM").await.unwrap();
    let consumer: jetstream::consumer::PullConsumer =
        stream.get_consumer("npc-behavior_quest-generated-v1").await.unwrap();
    let mut messages = consumer.stream().expires(PATIENCE).messages().await.unwrap();
    for _ in 0..2 {
        let message = timeout(PATIENCE, messages.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((message.subject.as_str(), &message.payload[..]), ("evt.quest.generated.v1", &b"event"[..]));
        message.double_ack().await.unwrap();
    }

    // People read what is stored.
    let stream = jetstream::new(operator.clone()).get_stream("EVT_QUEST_SYSTEM").await.unwrap();
    assert_eq!(stream.get_raw_message(1).await.unwrap().payload, "event");
    assert_eq!(stream.direct_get(1).await.unwrap().payload, "event");
}

//! Asking a real cluster as the user that is made for it.

use std::collections::BTreeMap;

use super::*;
use crate::manifest::fixture::Tree;
use crate::model::desired::{Bucket, Consumer, ConsumerStart, Stream};
use crate::nats::permissions::{REMOTE_TASK, accounts_on_aws};
use crate::nats::secret::{ClientSecret, TunnelEndpoint};
use crate::nats::testing::{PATIENCE, TestCluster, round_trip};

fn assets() -> Assets {
    let stream = Stream {
        subjects: vec!["evt.>".to_owned()],
        replicas: 1,
        max_age_seconds: 60,
        duplicate_window_seconds: 60,
        ..Stream::default()
    };
    let bucket = Bucket { replicas: 1, history: 1, ..Bucket::default() };
    let consumer = Consumer {
        service: Some("quests".to_owned()),
        subjects: vec!["evt.>".to_owned()],
        start: ConsumerStart::New,
        ack_wait_ms: 30_000,
        max_ack_pending: 1_000,
        max_deliver: -1,
    };
    Assets {
        streams: [("events".to_owned(), stream)].into(),
        buckets: [("quests".to_owned(), bucket)].into(),
        consumers: [("events/quests_all".to_owned(), consumer)].into(),
    }
}

/// Answers as the workers of a task do.
async fn answer(client: Client, task: &'static str) {
    let mut questions = client.subscribe("$SRV.PING.quest-system").await.unwrap();
    round_trip(&client, "_INBOX.nobody").await;
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            for worker in ["0", "1"] {
                let answer = serde_json::json!({
                    "name": "quest-system", "id": format!("{task}-{worker}"), "version": "1.2.0",
                    "metadata": { "task": task, "revision": "7", "worker": worker },
                });
                client.publish(question.reply.clone().unwrap(), answer.to_string().into()).await.unwrap();
            }
        }
    });
}

#[tokio::test]
async fn a_remote_task_asks_through_a_tunnel_and_can_do_nothing_else() {
    let accounts = accounts_on_aws(&Tree::valid().load().unwrap());
    let cluster = TestCluster::start(1, &accounts).await;
    let url = cluster.urls().into_values().next().unwrap();
    answer(cluster.service("quest-system").await, "a").await;

    // The certificate is one for `localhost`, which is not what is dialled.
    let secret = ClientSecret {
        urls: "tls://nowhere.test:4222".to_owned(),
        ..ClientSecret::try_from(&cluster.access(REMOTE_TASK)).unwrap()
    };
    let through = |host: &str| TunnelEndpoint { url: url.clone(), host: host.to_owned() };
    let error = secret.connect("test", Some(&through("nowhere.test")), PATIENCE).await.unwrap_err();
    assert!(format!("{error:#}").contains("certificate"), "{error:#}");
    let client = secret.connect("test", Some(&through("localhost")), PATIENCE).await.unwrap();

    let expected = BTreeMap::from([(
        "quest-system".to_owned(),
        ExpectedTasks { revision: 7, tasks: 1, ..ExpectedTasks::default() },
    )]);
    let mut parts = Vec::new();
    BusRequest::Find(expected.clone()).perform(&client, |part| parts.push(part.write().unwrap())).await.unwrap();
    parts.push(ReplyLine::Done.write().unwrap());
    let found = parse_reply(parts.iter().map(String::as_str)).unwrap().unwrap();
    assert_eq!(
        expected["quest-system"].proof("quest-system", &found["quest-system"]).unwrap(),
        "quest-system answers on the bus: 1 task of r7, 1.2.0"
    );

    for _ in 0..2 {
        BusRequest::Ensure(assets()).perform(&client, |_| ()).await.unwrap();
    }
    let jetstream = JetStream::new(client.clone());
    assert_eq!(jetstream.observe(PATIENCE).await.unwrap(), assets());

    let delete = client.request("$JS.API.STREAM.DELETE.events", "".into());
    assert!(
        tokio::time::timeout(std::time::Duration::from_secs(1), delete).await.map_or(true, |answer| answer.is_err())
    );
    assert_eq!(jetstream.observe(PATIENCE).await.unwrap(), assets());
}

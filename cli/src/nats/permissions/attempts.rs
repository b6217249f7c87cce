//! Attempts to do more than is permitted, by naming reply subjects on which something else would happen: each identity,
//! each subject that it may publish to, each reply subject that would change or reach what is not its own.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::{Client, HeaderMap, Subscriber};
use futures::{FutureExt as _, StreamExt as _};

use super::tests::NOBODY;
use super::*;
use crate::manifest::fixture::Tree;
use crate::model::desired::{Bucket, Consumer, ConsumerStart, Stream};
use crate::nats::jetstream::JetStream;
use crate::nats::testing::{PATIENCE, TestCluster, one_account, round_trip};

/// What an attempt sends: a request of JetStream's API that is answered with a stored message, and nothing.
const PAYLOADS: &[&str] = &[r#"{"last_by_subj":"$KV.quests.p"}"#, r#"{"batch":1,"no_wait":true}"#, ""];

/// Requests that only natsctl may make.
const DIRECT: &[(&str, &str)] = &[
    (
        "$JS.API.STREAM.CREATE.THIEF",
        r#"{"name":"THIEF","sources":[{"name":"KV_models"}],"republish":{"src":">","dest":"_INBOX_x.>"}}"#,
    ),
    ("$JS.API.STREAM.CREATE.MIRROR", r#"{"name":"MIRROR","mirror":{"name":"KV_models"}}"#),
    ("$JS.API.STREAM.UPDATE.KV_models", r#"{"name":"KV_models","subjects":["x"]}"#),
    ("$JS.API.STREAM.DELETE.KV_models", ""),
    ("$JS.API.STREAM.PURGE.KV_models", ""),
    ("$JS.API.STREAM.MSG.DELETE.KV_models", r#"{"seq":1}"#),
    (
        "$JS.API.CONSUMER.CREATE.KV_models",
        r#"{"stream_name":"KV_models","config":{"deliver_subject":"$KV.entities.e"}}"#,
    ),
    ("$JS.API.CONSUMER.CREATE.KV_quests", r#"{"stream_name":"KV_quests","config":{"deliver_subject":"$KV.models.m"}}"#),
    (
        "$JS.API.CONSUMER.DURABLE.CREATE.KV_quests.d",
        r#"{"stream_name":"KV_quests","config":{"durable_name":"d","deliver_subject":"$KV.models.m"}}"#,
    ),
    ("$KV.models.m", "forged"),
    ("$KV.entities.e", "forged"),
    ("evt.ai.model.selected.v1", "forged"),
    ("outbox.models.x.evt.ai.model.selected.v1", "forged"),
    ("outbox.entities.x.evt.quest.generated.v1", "forged"),
    ("audit.forged", "forged"),
    ("$SYS.REQ.SERVER.PING", ""),
    ("$SYS.REQ.CLAIMS.LIST", ""),
];

/// Reply subjects on which something would happen that nobody who attempts it may do.
fn targets(services: &BTreeSet<String>) -> Vec<String> {
    let mut targets: Vec<String> = DIRECT.iter().map(|(subject, _)| (*subject).to_owned()).collect();
    targets.extend(proto::SERVICES.iter().flat_map(|served| served.methods).map(|method| method.subject.to_owned()));
    for name in services {
        targets.extend([format!("_INBOX_{name}.1"), format!("_STREAM_{name}.1"), format!("$SRV.PING.{name}")]);
    }
    targets
}

struct Fleet {
    cluster: TestCluster,
    manifests: Manifests,
    jetstream: JetStream,
    natsctl: Client,
    /// What each service hears: calls, answers, and control messages of streams.
    heard: BTreeMap<String, (Client, Vec<Subscriber>)>,
}

impl Fleet {
    async fn start(layout: impl Fn(Accounts) -> Accounts) -> Self {
        let mut tree = Tree::valid();
        let consumes = "consumes: { evt.quest.generated.v1: {}, evt.ai.model.selected.v1: { delivery: every_task } }";
        tree.replace("services/npc-behavior.yaml", "calls: []", consumes);
        let manifests = tree.load().unwrap();
        let cluster = TestCluster::start(1, &layout(accounts(&manifests))).await;
        let natsctl = cluster.connect(NATSCTL).await;
        let jetstream = JetStream::new(natsctl.clone());
        let bucket = Bucket { replicas: 1, history: 5, outbox_seconds: 60, ..Bucket::default() };
        for name in ["quests", "models", "entities"] {
            jetstream.put_bucket(name, &bucket, PATIENCE).await.unwrap();
        }
        for (name, subject, outbox) in [
            ("EVT_MODEL_MANAGEMENT", "evt.ai.model.selected.v1", Some("models")),
            ("EVT_QUEST_SYSTEM", "evt.quest.generated.v1", Some("quests")),
            ("EVT_STATE_MANAGER", "evt.state.>", Some("entities")),
            ("EVT_NPC_BEHAVIOR", "evt.npc.>", None),
            ("EVT_AI_INTEGRATION", "evt.ai.llm.>", None),
            ("AUDIT", "audit.>", None),
            ("DLQ", "dlq.>", None),
        ] {
            let stream = Stream {
                subjects: vec![subject.to_owned()],
                replicas: 1,
                duplicate_window_seconds: 60,
                outboxes: outbox.into_iter().map(str::to_owned).collect(),
                ..Stream::default()
            };
            jetstream.put_stream(name, &stream, PATIENCE).await.unwrap();
        }
        let consumer = Consumer {
            service: None,
            subjects: vec!["evt.quest.generated.v1".to_owned()],
            start: ConsumerStart::All,
            ack_wait_ms: 1_000,
            max_ack_pending: 1_000,
            max_deliver: -1,
        };
        let durable = format!("EVT_QUEST_SYSTEM/{}", consumes::durable("npc-behavior", "evt.quest.generated.v1"));
        jetstream.put_consumer(&durable, &consumer, PATIENCE).await.unwrap();
        // Something to pull, to wherever it is asked for.
        for _ in 0..100 {
            natsctl.request("evt.quest.generated.v1", "event".into()).await.unwrap();
        }
        for key in ["$KV.quests.p", "$KV.models.m", "$KV.entities.e"] {
            natsctl.request(key, "stored".into()).await.unwrap();
        }
        let mut heard = BTreeMap::new();
        for (name, manifest) in &manifests.services {
            let client = cluster.service(name).await;
            let mut subscribers = vec![client.subscribe(format!("_INBOX_{name}.1")).await.unwrap()];
            for served in serves(manifest) {
                let group = format!("svc-{name}-workers");
                subscribers.push(client.queue_subscribe(format!("{}.>", served.subject), group).await.unwrap());
            }
            if streams(manifest) {
                subscribers.push(client.subscribe(control(name)).await.unwrap());
            }
            round_trip(&client, NOBODY).await;
            heard.insert(name.clone(), (client, subscribers));
        }
        Self { cluster, manifests, jetstream, natsctl, heard }
    }

    /// Makes all attempts as one user; gives how many there were, and what changed that is not its own.
    async fn attempts_of(&mut self, user: &str) -> (usize, Option<String>) {
        let account = accounts(&self.manifests).remove(user).unwrap();
        let client = match user {
            OPERATOR => self.cluster.connect(OPERATOR).await,
            _ => self.cluster.service(user).await,
        };
        let before = self.stored(user).await;
        let targets = targets(&self.manifests.services.keys().cloned().collect());
        let mut attempts = 0;
        for subject in account.users[user].publish.iter().map(|subject| subject.replace(['*', '>'], "KV_quests")) {
            for target in &targets {
                for payload in PAYLOADS {
                    client.publish_with_reply(subject.clone(), target.clone(), (*payload).into()).await.unwrap();
                    attempts += 1;
                }
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Schedule", "@at 2020-01-01T00:00:00Z");
                headers.insert("Nats-Schedule-Target", target.as_str());
                headers.insert("Nats-Rollup", "sub");
                let sent = client.publish_with_reply_and_headers(subject.clone(), target.clone(), headers, "".into());
                sent.await.unwrap();
                attempts += 1;
            }
        }
        for (subject, payload) in DIRECT {
            client.publish_with_reply(*subject, client.new_inbox(), (*payload).into()).await.unwrap();
            attempts += 1;
        }
        round_trip(&client, if user == OPERATOR { "$SRV.PING.nobody" } else { NOBODY }).await;
        let after = self.stored(user).await;
        (attempts, (before != after).then(|| format!("stored: {before:?} is {after:?}")))
    }

    /// What is stored that is not the user's own: messages of each stream, and who made consumers.
    async fn stored(&self, user: &str) -> BTreeMap<String, (u64, usize)> {
        // The API answers in order, so what was asked before has been done.
        self.jetstream.observe(PATIENCE).await.unwrap();
        let own: BTreeSet<String> = self.manifests.services.get(user).map_or_else(BTreeSet::new, |service| {
            let buckets = service.buckets.keys().map(|bucket| bucket_stream(bucket));
            let events = service.events().next().map(|_| service.event_stream());
            let audit = service.is_audited().then(|| "AUDIT".to_owned());
            let dead_letters = service.shared_events().next().map(|_| "DLQ".to_owned());
            buckets.chain(events).chain(audit).chain(dead_letters).collect()
        });
        let mut listed = async_nats::jetstream::new(self.natsctl.clone()).streams();
        let mut stored = BTreeMap::new();
        while let Some(info) = listed.next().await {
            let info = info.unwrap();
            let messages = if own.contains(&info.config.name) { 0 } else { info.state.last_sequence };
            stored.insert(info.config.name, (messages, info.state.consumer_count));
        }
        stored
    }

    /// Messages that services have heard from these users, and must not.
    async fn misheard(&mut self, users: &[String]) -> BTreeSet<String> {
        let manifests = &self.manifests;
        let calls = |caller: &str, callee: &str| {
            caller == OPERATOR || manifests.callees(&manifests.services[caller]).contains(callee)
        };
        let mut faults = BTreeSet::new();
        for (name, (client, subscribers)) in &mut self.heard {
            round_trip(client, NOBODY).await;
            for subscriber in subscribers {
                while let Some(Some(message)) = subscriber.next().now_or_never() {
                    let subject = message.subject.as_str();
                    let permitted = match subject.split('.').next().unwrap_or_default() {
                        // The servers append who called; what has no such name is the service's own.
                        "svc" => match subject.split_once(".v1.").and_then(|(_, called)| called.split_once('.')) {
                            Some((_, caller)) => calls(caller, name),
                            None => users.contains(name),
                        },
                        prefix if prefix.starts_with("_STREAM_") => {
                            users.iter().any(|user| user == name || calls(user, name))
                        }
                        _ => users.iter().any(|user| user == name || user != OPERATOR && calls(name, user)),
                    };
                    if !permitted {
                        faults.insert(format!("{name} heard {subject}"));
                    }
                }
            }
        }
        faults
    }
}

#[tokio::test]
async fn no_identity_reaches_more_than_it_may_by_a_reply_subject() {
    let mut fleet = Fleet::start(|accounts| accounts).await;
    let services = fleet.manifests.services.keys().filter(|name| *name != "gateway").cloned();
    // Last who may call everything.
    let users: Vec<String> = services.chain(["gateway".to_owned(), OPERATOR.to_owned()]).collect();
    let mut attempts = 0;
    for (i, user) in users.iter().enumerate() {
        let (made, changed) = fleet.attempts_of(user).await;
        assert_eq!(changed, None, "as `{user}`");
        assert_eq!(fleet.misheard(&users[..=i]).await, BTreeSet::new(), "as `{user}`");
        attempts += made;
    }
    assert!(attempts > 10_000, "{attempts}");
}

/// The check above can fail.
#[tokio::test]
async fn in_one_account_for_all_the_same_attempts_succeed() {
    let users = |accounts: Accounts| one_account(accounts.into_values().flat_map(|account| account.users));
    let mut fleet = Fleet::start(users).await;
    let user = "quest-system".to_owned();
    let (_, changed) = fleet.attempts_of(&user).await;
    assert!(changed.is_some());
    let misheard = fleet.misheard(&[user]).await;
    assert!(misheard.iter().any(|fault| fault.contains("_INBOX_")), "{misheard:?}");
}

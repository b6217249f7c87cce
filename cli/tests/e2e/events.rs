//! A service that handles events, from its manifest to its dead letters.

use async_nats::Client;
use async_nats::jetstream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::fleet::{Fleet, eventually, serving};
use super::newcomer::connect;

const EVENT: &str = "evt.quest.generated.v1";
const CONSUMER: &str = "EVT_QUEST_SYSTEM/announcements_quest-generated-v1";
const MANIFEST: &str = "consumes:\n  evt.quest.generated.v1: { deliveries: 2, backoff: [50 ms], ack_wait: 5 s }\n\
                        buckets:\n  announced: {}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_handles_events_and_what_it_cannot_handle_is_replayed_or_dropped() {
    let fleet = Fleet::new(3);
    fleet.add_example("consumer", "announcements", MANIFEST);
    let run = fleet.deploy(&["--all"]).await.ends(0);
    run.says(&["create consumer EVT_QUEST_SYSTEM/announcements_quest-generated-v1 done"]);
    assert_eq!(fleet.plan(&[]).await.ends(0).json()["steps"], json!([]));

    let natsctl = as_natsctl(&fleet).await;
    let quest = generated(&fleet).await;
    announced(&natsctl, &quest).await;
    what_cannot_be_handled_is_a_dead_letter(&fleet, &natsctl).await;
    a_consumer_that_somebody_deleted_comes_back_and_misses_nothing(&fleet, &natsctl).await;
    a_program_that_handles_other_events_is_not_deployed(&fleet).await;
    nobody_wants_it_any_more(&fleet).await;
}

/// The user that may do everything in the account of the streams.
async fn as_natsctl(fleet: &Fleet) -> Client {
    let endpoints = std::fs::read(fleet.state().join("endpoints.json")).unwrap();
    let endpoints: Value = serde_json::from_slice(&endpoints).unwrap();
    let (refused, _) = mpsc::unbounded_channel();
    connect(&endpoints["users"]["natsctl"], refused).await
}

/// Has a quest generated; gives its id.
async fn generated(fleet: &Fleet) -> String {
    let request = json!({ "playerId": "ada", "level": 3, "location": "forest" });
    let answer = fleet.gateway().await.post("/api/quest/v1/generate", &request).await.unwrap().json();
    answer["quest"]["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// The service has handled the event of a quest once.
async fn announced(natsctl: &Client, quest: &str) {
    let store = jetstream::new(natsctl.clone()).get_key_value("announced").await.unwrap();
    let count = eventually("the event is handled", || async { store.get(quest).await.unwrap() }).await;
    assert_eq!(count, "x");
}

async fn what_cannot_be_handled_is_a_dead_letter(fleet: &Fleet, natsctl: &Client) {
    fleet.run(&["dlq", "list"]).await.ends(0).shows(&["no dead letters"]);
    let publish = async |payload: &'static str| {
        let stored = jetstream::new(natsctl.clone()).publish(EVENT, payload.into()).await.unwrap();
        stored.await.unwrap();
    };
    publish("\u{1}no message").await;
    let listed = async |count: usize| {
        eventually("the dead letters are there", || async {
            let listed = fleet.run(&["dlq", "list", "--output", "json"]).await.ends(0).json();
            listed.as_array().filter(|listed| listed.len() == count).cloned()
        })
        .await
    };
    let letter = listed(1).await.remove(0);
    assert_eq!(
        (&letter["service"], &letter["event"], &letter["attempts"]),
        (&json!("announcements"), &json!(EVENT), &json!(1))
    );
    let id = letter["id"].to_string();
    let shown = fleet.run(&["dlq", "show", &id]).await.ends(0);
    shown.shows(&["dead letter 1 of announcements", "payload is not the expected message", "which cannot be decoded"]);
    fleet.run(&["dlq", "show", "77"]).await.ends(1).says(&["there is no dead letter 77", "natsctl dlq list"]);
    fleet.run(&["dlq", "drop"]).await.ends(1).says(&["it is not said which dead letters to drop"]);
    let dry = fleet.run(&["dlq", "replay", "--service", "announcements", "--dry-run"]).await.ends(0);
    dry.shows(&["1 dead letter to replay; nothing was changed"]);

    // It fails again, and is another dead letter.
    fleet.run(&["dlq", "replay", &id]).await.ends(0).shows(&["replayed", "1 dead letter"]);
    fleet.run(&["dlq", "replay", &id]).await.ends(1).says(&["there is no dead letter 1"]);
    let again = listed(1).await.remove(0);
    assert_ne!(again["id"], letter["id"]);
    assert_eq!(again["event_id"], letter["event_id"]);
    fleet.run(&["dlq", "list", "--code", "UNAVAILABLE"]).await.ends(0).shows(&["no dead letters"]);
    fleet.run(&["dlq", "drop", "--code", "invalid_argument"]).await.ends(0).shows(&["dropped"]);
    listed(0).await;
}

async fn a_consumer_that_somebody_deleted_comes_back_and_misses_nothing(fleet: &Fleet, natsctl: &Client) {
    let (stream, durable) = CONSUMER.split_once('/').unwrap();
    let stream = jetstream::new(natsctl.clone()).get_stream(stream).await.unwrap();
    stream.delete_consumer(durable).await.unwrap();
    let quest = generated(fleet).await;
    let plan = fleet.plan(&[]).await.ends(2).json();
    assert_eq!(plan["steps"][0]["name"], CONSUMER, "{plan:#}");
    fleet.deploy(&["announcements"]).await.ends(0);
    let store = jetstream::new(natsctl.clone()).get_key_value("announced").await.unwrap();
    eventually("the event is handled", || async { store.get(&quest).await.unwrap() }).await;
}

async fn a_program_that_handles_other_events_is_not_deployed(fleet: &Fleet) {
    let (file, text) = fleet.service_manifest("announcements");
    std::fs::write(&file, text.replace(EVENT, "evt.ai.model.selected.v1")).unwrap();
    let run = fleet.deploy(&["announcements"]).await.ends(1);
    run.says(&["the program handles `evt.quest.generated.v1`, but the manifest does not consume it"]);
    assert_eq!(serving(&fleet.service("announcements").await), 2);
    std::fs::write(&file, text).unwrap();
}

async fn nobody_wants_it_any_more(fleet: &Fleet) {
    std::fs::remove_file(fleet.manifest("services/announcements.yaml")).unwrap();
    let run = fleet.deploy(&["--all", "--prune"]).await.ends(0);
    run.says(&["delete service announcements done", "delete 2 consumers done"]);
}

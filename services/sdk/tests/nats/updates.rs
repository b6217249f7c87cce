//! Records that change for no request, and what follows from their changes.

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use futures::future::join_all;
use proto::ai::model::v1::{Model, RetireRequest};
use sdk::{Id, Next, Operation, RecordKey, Records, Stored, Update};

use super::*;

async fn models(server: &NatsServer) -> Records<Model> {
    caller(server).await.records("models").await.unwrap()
}

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("models", 1).await;
    server.stream("EVENTS", &[Selected::SUBJECT]).await;
    server.outboxes(&["models"], "EVENTS").await;
    server
}

fn id(id: &str) -> Id {
    Id::new("model", id, 64).unwrap()
}

fn cost(cost: u64) -> Model {
    Model { cost_per_1k_tokens_micros: cost, ..Model::default() }
}

/// Makes a model cost one more, up to `most`, and tells of it.
fn dearer(most: u64) -> impl Fn(&Stored<Model>) -> Result<Next<Model>, Error> {
    move |current| match current.value.cost_per_1k_tokens_micros {
        now if now < most => Ok(Next::write(cost(now + 1)).and_publish(Selected::default())),
        _ => Ok(Next::keep()),
    }
}

#[tokio::test]
async fn an_update_that_several_tasks_try_happens_once() {
    let server = server().await;
    let tasks = [models(&server).await, models(&server).await];
    let a = id("a");
    assert_eq!(tasks[0].update(&a, dearer(1)).await, Ok(None), "there is none");
    tasks[0].create(&a, &cost(0)).await.unwrap();
    for most in 1..=5 {
        let tries = (0..6).map(|number| tasks[number % 2].update(&a, dearer(most)));
        for outcome in join_all(tries).await {
            assert_eq!(outcome.unwrap().unwrap().value.cost_per_1k_tokens_micros, most);
        }
    }
    assert_eq!(server.stored_from(&["models"], "EVENTS").await.len(), 5);
    // Nothing is remembered, so the record does not grow.
    let stored = tasks[0].bucket().get("a").await.unwrap().unwrap();
    assert_eq!(stored.value, prost::Message::encode_to_vec(&cost(5)));
}

#[tokio::test]
async fn what_is_not_there_is_not_changed_and_what_is_deleted_is_returned_as_it_was() {
    let server = server().await;
    let models = models(&server).await;
    let operation = Operation::of(&RetireRequest::default());
    let delete = async || models.change_existing(&id("a"), &operation, |_| Ok(Next::delete())).await.unwrap();
    assert_eq!(delete().await, None);
    models.create(&id("a"), &cost(7)).await.unwrap();
    let stored = models.get(&id("a")).await.unwrap();
    let deleted = delete().await.unwrap();
    assert_eq!((deleted.revision, &deleted.value), (stored.revision, &stored.value));
    assert_eq!(delete().await, None);
}

#[tokio::test]
async fn changes_since_a_revision_end_and_a_follower_says_how_far_it_is() {
    let server = server().await;
    let models = models(&server).await;
    assert_eq!(models.revision().await, Ok(0));
    for name in ["a", "b", "c"] {
        models.create(&id(name), &cost(1)).await.unwrap();
    }
    let followed = models.follow(BTreeMap::new()).await.unwrap();
    assert_eq!((models.revision().await, followed.revision()), (Ok(3), 3));
    models.update(&id("a"), dearer(2)).await.unwrap();
    models.update(&id("b"), |_| Ok(Next::delete())).await.unwrap();

    let changes: Vec<Update<Model>> = models.changes_since(">", 3).try_collect().await.unwrap();
    let changes: Vec<_> = changes.iter().map(|change| (&*change.key, change.record.is_some())).collect();
    assert_eq!(changes, [("a", true), ("b", false)]);
    let none: Vec<Update<Model>> = models.changes_since("c", 3).try_collect().await.unwrap();
    assert_eq!(none, []);
    let last = models.revision().await.unwrap();
    let up_to_date = async {
        while followed.revision() < last {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, up_to_date).await.expect("the follower is up to date");
    assert_eq!(followed.read().keys().collect::<Vec<_>>(), ["a", "c"]);
}

#[tokio::test]
async fn records_are_counted_from_a_revision_on() {
    let server = server().await;
    let models = models(&server).await;
    assert_eq!(models.count_since(">", 0).await, Ok(0));
    let mut revisions = Vec::new();
    for name in ["a.x", "a.y", "b.x"] {
        models.create(&Tokens(name), &cost(1)).await.unwrap();
        revisions.push(models.revision().await.unwrap());
    }
    for (filter, since, expected) in [(">", 0, 3), ("a.*", 0, 2), ("*.x", revisions[0], 1), (">", revisions[2], 0)] {
        assert_eq!(models.count_since(filter, since).await, Ok(expected), "{filter} since {since}");
    }
}

/// A key of several tokens.
#[derive(Debug)]
struct Tokens(&'static str);

impl std::fmt::Display for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl RecordKey for Tokens {
    fn bucket_key(&self) -> std::borrow::Cow<'_, str> {
        self.0.into()
    }
}

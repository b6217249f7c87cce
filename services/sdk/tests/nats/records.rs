//! Records: changed by compare-and-set, and the operations that they remember.

use std::collections::BTreeMap;

use futures::future::join_all;
use prost::Message as _;
use proto::ai::model::v1::{Model, RegisterRequest, RetireRequest};
use sdk::testing::Time;
use sdk::{Id, Next, Operation, Records, Stored};

use super::*;

/// Waits until it is so.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("not so in time: {what}"));
}

/// A service that keeps models.
struct Models(Records<Model>);

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("models", 16).await;
    server.stream("EVENTS", &[Selected::SUBJECT]).await;
    server.outboxes(&["models"], "EVENTS").await;
    server
}

async fn models(server: &NatsServer) -> Models {
    Models(caller(server).await.records("models").await.unwrap())
}

fn model(id: &str, cost: u64) -> Model {
    Model { id: id.to_owned(), cost_per_1k_tokens_micros: cost, ..Model::default() }
}

fn id(id: &str) -> Id {
    Id::new("model", id, 64).unwrap()
}

fn selected(model: &str) -> Selected {
    Selected { model_id: model.to_owned(), ..Selected::default() }
}

impl Models {
    async fn registered(&self, idempotency_key: Option<&str>, model: Model) -> Result<Model, Error> {
        let request = RegisterRequest { meta: None, model: Some(model.clone()) };
        let (records, key) = (&self.0, id(&model.id));
        let change = async { records.change(&key, &Operation::of(&request), |_| Ok(Next::write(model.clone()))).await };
        Ok(as_request(idempotency_key, change).await?.value)
    }

    async fn made_dearer(&self, idempotency_key: Option<&str>, name: &str) -> Result<Model, Error> {
        let request = RetireRequest { meta: None, id: name.to_owned() };
        let key = id(name);
        let next = |current: Option<&Stored<Model>>| {
            let mut model = current.ok_or_else(|| Error::not_found(&key))?.value.clone();
            model.cost_per_1k_tokens_micros += 1_000;
            Ok(Next::write(model).and_publish(selected(name)))
        };
        let change = async { self.0.change(&key, &Operation::of(&request), next).await };
        Ok(as_request(idempotency_key, change).await?.value)
    }

    async fn cost(&self, name: &str) -> u64 {
        self.0.get(&id(name)).await.unwrap().value.cost_per_1k_tokens_micros
    }
}

#[tokio::test]
async fn a_record_is_found_listed_and_deleted_with_its_revision() {
    let server = server().await;
    let models = models(&server).await;
    assert_eq!(models.0.find(&id("a")).await, Ok(None));
    let missing = models.0.get(&id("a")).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (Code::NotFound, "model `a` does not exist"));

    let first = models.registered(None, model("a", 1)).await.unwrap();
    models.registered(None, model("b", 2)).await.unwrap();
    let read = models.0.get(&id("a")).await.unwrap();
    assert_eq!((read.revision, &read.value), (first.revision, &first));
    assert!(first.revision > 0);
    let listed = models.0.list(">").await.unwrap();
    assert_eq!(listed.iter().map(|stored| &*stored.key).collect::<Vec<_>>(), ["a", "b"]);

    let request = RetireRequest::default();
    let delete = async { models.0.change(&id("a"), &Operation::of(&request), |_| Ok(Next::delete())).await };
    assert_eq!(as_request(None, delete).await.unwrap().value, first);
    assert_eq!(models.0.find(&id("a")).await, Ok(None));
    let created = models.0.create(&id("a"), &model("a", 7)).await.unwrap();
    assert_eq!(created, Some(models.0.get(&id("a")).await.unwrap().revision));
    assert_eq!(models.0.create(&id("a"), &model("a", 8)).await.unwrap(), None);
    assert_eq!(models.cost("a").await, 7);
}

#[tokio::test]
async fn what_tasks_without_operations_stored_is_read_and_they_read_what_is_stored() {
    let server = server().await;
    let models = models(&server).await;
    let bucket = models.0.bucket();
    bucket.put("old", model("old", 3).encode_to_vec().into()).await.unwrap();
    assert_eq!(models.cost("old").await, 3);
    models.registered(Some("k"), model("new", 4)).await.unwrap();
    let stored = bucket.get("new").await.unwrap().unwrap();
    assert_eq!(Model::decode(stored.value), Ok(model("new", 4)));
}

#[tokio::test]
async fn a_repeated_change_is_applied_once_and_answered_as_the_first_was() {
    let server = server().await;
    let models = models(&server).await;
    let first = models.registered(Some("k1"), model("a", 1)).await.unwrap();
    let dearer = models.made_dearer(Some("k2"), "a").await.unwrap();
    assert_eq!(dearer.cost_per_1k_tokens_micros, 1_001);
    assert_eq!(models.made_dearer(Some("k2"), "a").await.unwrap(), dearer);
    assert_eq!(models.registered(Some("k1"), model("a", 1)).await.unwrap(), first);
    assert_eq!(models.cost("a").await, 1_001);
    assert_eq!(server.stored_from(&["models"], "EVENTS").await.len(), 1);
}

#[tokio::test]
async fn a_change_that_changed_nothing_is_written_only_for_its_key() {
    let server = server().await;
    let models = models(&server).await;
    let first = models.registered(None, model("a", 1)).await.unwrap();
    assert_eq!(models.registered(None, model("a", 1)).await.unwrap(), first);
    let keyed = models.registered(Some("k"), model("a", 1)).await.unwrap();
    assert!(keyed.revision > first.revision);
    models.registered(None, model("a", 2)).await.unwrap();
    assert_eq!(models.registered(Some("k"), model("a", 1)).await.unwrap().cost_per_1k_tokens_micros, 1);
    assert_eq!(models.cost("a").await, 2);
}

#[tokio::test]
async fn a_key_is_remembered_through_many_other_changes_until_its_time_is_over() {
    let server = server().await;
    let time = Time::default();
    let models = Models(server.fleet_at("caller", &time).await.records("models").await.unwrap());
    models.registered(Some("k"), model("a", 1)).await.unwrap();
    for cost in 2..22 {
        models.registered(None, model("a", cost)).await.unwrap();
    }
    time.set(Duration::from_secs(600));
    models.registered(Some("k"), model("a", 1)).await.unwrap();
    assert_eq!(models.cost("a").await, 21);
    time.set(Duration::from_secs(601));
    models.registered(Some("k"), model("a", 1)).await.unwrap();
    assert_eq!(models.cost("a").await, 1);
}

#[tokio::test]
async fn parallel_repeats_are_one_change_and_another_request_among_them_is_refused() {
    let server = server().await;
    let services = [models(&server).await, models(&server).await];
    services[0].registered(None, model("a", 1)).await.unwrap();
    let same = join_all((0..10).map(|number| services[number % 2].made_dearer(Some("k"), "a"))).await;
    assert!(same.into_iter().all(|model| model.unwrap().cost_per_1k_tokens_micros == 1_001));

    let others = (0..6).map(|number| services[number % 2].registered(Some("l"), model("b", number as u64)));
    let results = join_all(others).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!((error.code(), error.detail("reason")), (Code::FailedPrecondition, Some("idempotency_key_reused")));
    }
}

#[tokio::test]
async fn a_refused_change_is_not_remembered() {
    let server = server().await;
    let models = models(&server).await;
    assert_eq!(models.made_dearer(Some("k"), "later").await.unwrap_err().code(), Code::NotFound);
    models.registered(None, model("later", 1)).await.unwrap();
    assert_eq!(models.made_dearer(Some("k"), "later").await.unwrap().cost_per_1k_tokens_micros, 1_001);
}

/// Moves so much of what `from` costs to `to`.
async fn moved(models: &Models, key: &str, from: &str, to: &str, amount: u64) -> Result<(), Error> {
    let request = RetireRequest { meta: None, id: format!("{from}-{to}-{amount}") };
    let (from, to) = (id(from), id(to));
    let next = |current: &[Option<Stored<Model>>]| {
        let [Some(one), Some(other)] = current else { return Err(Error::not_found("one of them")) };
        let (mut one, mut other) = (one.value.clone(), other.value.clone());
        let rest = one.cost_per_1k_tokens_micros.checked_sub(amount);
        one.cost_per_1k_tokens_micros = rest.ok_or_else(|| Error::failed_precondition("not enough"))?;
        other.cost_per_1k_tokens_micros += amount;
        Ok(vec![Next::write(one).and_publish(selected("moved")), Next::write(other)])
    };
    let change = async { models.0.change_all(&[&from, &to], &Operation::of(&request), next).await };
    as_request(Some(key), change).await.map(drop)
}

#[tokio::test]
async fn several_records_change_together_or_not_at_all() {
    let server = server().await;
    let services = [models(&server).await, models(&server).await];
    for name in ["a", "b", "c"] {
        services[0].registered(None, model(name, 100)).await.unwrap();
    }
    let pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("b", "a")];
    let moves = (0..40_usize).map(|number| {
        let (from, to) = pairs[number % pairs.len()];
        // Each twice, by two tasks at once.
        let (service, key) = (&services[number % 2], format!("k{}", number / 2));
        async move { moved(service, &key, from, to, 1 + number as u64 / 8).await }
    });
    let outcomes = join_all(moves).await;
    let mut sum = 0;
    for name in ["a", "b", "c"] {
        sum += services[0].cost(name).await;
    }
    assert_eq!(sum, 300, "{outcomes:?}");
    let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(server.stored_from(&["models"], "EVENTS").await.len(), done, "one event for each");

    let refused = moved(&services[0], "too much", "a", "b", 1_000).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(moved(&services[0], "once", "a", "b", 1).await, Ok(()));
    let before = services[0].cost("a").await;
    assert_eq!(moved(&services[1], "once", "a", "b", 1).await, Ok(()));
    assert_eq!(services[0].cost("a").await, before, "a repeated operation moves nothing");
}

#[tokio::test]
async fn changes_are_seen_in_order_by_those_who_watch_and_those_who_follow() {
    let server = server().await;
    let models = models(&server).await;
    models.registered(None, model("a", 1)).await.unwrap();
    let followed = models.0.follow(BTreeMap::new()).await.unwrap();
    assert_eq!(followed.read().get("a").unwrap().value.cost_per_1k_tokens_micros, 1);

    let mut watched = models.0.watch(">", 0);
    assert_eq!(watched.next().await.unwrap().unwrap().key, "a");
    models.registered(None, model("b", 2)).await.unwrap();
    let delete =
        async { models.0.change(&id("a"), &Operation::of(&RetireRequest::default()), |_| Ok(Next::delete())).await };
    as_request(None, delete).await.unwrap();
    let b = watched.next().await.unwrap().unwrap();
    assert_eq!((&*b.key, b.record.unwrap().value.cost_per_1k_tokens_micros), ("b", 2));
    let a = watched.next().await.unwrap().unwrap();
    assert_eq!((&*a.key, a.record), ("a", None));
    eventually("the follower is up to date", || {
        followed.read().keys().map(String::as_str).collect::<Vec<_>>() == ["b"]
    })
    .await;

    // Own writes are read at once, and what is read of the bucket later does not undo them.
    let (key, operation) = (id("c"), Operation::of(&RegisterRequest::default()));
    let own = models.0.change(&key, &operation, |_| Ok(Next::write(model("c", 3)))).await.unwrap();
    followed.wrote(own.into());
    assert!(followed.read().contains_key("c"));
}

#[tokio::test]
async fn a_follower_takes_up_a_bucket_that_was_made_anew() {
    let server = server().await;
    let models = models(&server).await;
    for cost in 1..5 {
        models.registered(None, model("a", cost)).await.unwrap();
    }
    let followed = models.0.follow(BTreeMap::new()).await.unwrap();
    server.delete_stream("KV_models").await;
    server.bucket("models", 16).await;
    models.0.bucket().put("z", model("z", 9).encode_to_vec().into()).await.unwrap();
    eventually("the new bucket is read", || followed.read().contains_key("z")).await;
}

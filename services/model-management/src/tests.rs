//! The service against a real nats-server.

use proto::ai::model::v1::{ModelState, Preference};
use sdk::testing::{NatsServer, as_request};
use sdk::{Code, Event as _};

use super::*;

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("models", 16).await;
    server.stream("EVENTS", &[Selected::SUBJECT]).await;
    server
}

/// How many events are stored.
async fn events(server: &NatsServer) -> usize {
    server.stored("EVENTS").await.len()
}

async fn service(server: &NatsServer) -> Service {
    Service::new(server.fleet("model-management").await).await.unwrap()
}

fn model(id: &str, cost: u64) -> Model {
    Model {
        id: id.to_owned(),
        capabilities: vec!["text".to_owned()],
        context_length: 100,
        cost_per_1k_tokens_micros: cost,
        ..Model::default()
    }
}

async fn register(service: &Service, model: Model) -> Model {
    let request = RegisterRequest { meta: None, model: Some(model) };
    service.register(request).await.unwrap().model.unwrap()
}

async fn retire(service: &Service, id: &str) -> Result<Model, Error> {
    let request = RetireRequest { meta: None, id: id.to_owned() };
    Ok(service.retire(request).await?.model.unwrap())
}

async fn list(service: &Service, request: ListRequest) -> Vec<String> {
    let models = service.list(request).await.unwrap().models;
    models.into_iter().map(|model| model.id).collect()
}

#[tokio::test]
async fn a_fresh_fleet_has_models_and_a_restart_changes_none_of_them() {
    let server = server().await;
    let service = service(&server).await;
    let all = list(&service, ListRequest::default()).await;
    assert_eq!(all, ["ngram-large", "ngram-medium", "ngram-small"]);
    retire(&service, "ngram-small").await.unwrap();

    let restarted = self::service(&server).await;
    let active = list(&restarted, ListRequest::default()).await;
    assert_eq!(active, ["ngram-large", "ngram-medium"]);
    let all = ListRequest { include_retired: true, ..ListRequest::default() };
    assert_eq!(list(&restarted, all).await.len(), 3);
    let able = ListRequest { capability: "narrative".to_owned(), ..ListRequest::default() };
    assert_eq!(list(&restarted, able).await, ["ngram-large"]);
}

#[tokio::test]
async fn repeated_writes_change_nothing() {
    let server = server().await;
    let service = service(&server).await;
    let first = register(&service, model("a.b", 1)).await;
    assert!(first.revision > 0);
    assert_eq!(register(&service, model("a.b", 1)).await, first);
    let second = register(&service, model("a.b", 2)).await;
    assert!(second.revision > first.revision);

    let retired = retire(&service, "a.b").await.unwrap();
    assert_eq!(retired.state(), ModelState::Retired);
    assert_eq!(retire(&service, "a.b").await, Ok(retired.clone()));
    let read = service.get(GetRequest { meta: None, id: "a.b".to_owned() }).await.unwrap();
    assert_eq!(read.model, Some(retired));
}

#[tokio::test]
async fn unknown_models_and_wrong_ids_are_refused() {
    let server = server().await;
    let service = service(&server).await;
    let get = |id: &str| service.get(GetRequest { meta: None, id: id.to_owned() });
    assert_eq!(get("none").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(get("*").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(retire(&service, "none").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(retire(&service, ">").await.unwrap_err().code(), Code::InvalidArgument);
    let nothing = service.register(RegisterRequest::default()).await.unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn concurrent_changes_are_all_applied() {
    let server = server().await;
    let service = service(&server).await;
    let changes = (0..4).map(|cost| register(&service, model("busy", cost)));
    let written = futures::future::join_all(changes).await;
    let mut revisions: Vec<u64> = written.iter().map(|model| model.revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 4);
}

#[tokio::test]
async fn one_event_is_published_for_each_selection() {
    let server = server().await;
    let service = service(&server).await;
    let preferring =
        |preference: Preference| SelectRequest { preference: preference.into(), ..SelectRequest::default() };
    let chosen = as_request(Some("r1"), service.select(preferring(Preference::Cheapest))).await.unwrap();
    assert_eq!(chosen.model.unwrap().id, "ngram-small");
    assert_eq!(events(&server).await, 1);
    as_request(Some("r1"), service.select(preferring(Preference::Cheapest))).await.unwrap();
    assert_eq!(events(&server).await, 1, "a retry of the same request");
    as_request(Some("r1"), service.select(preferring(Preference::Fastest))).await.unwrap();
    assert_eq!(events(&server).await, 2, "a different request of the same operation");
}

#[tokio::test]
async fn no_model_is_a_failed_precondition_with_counts() {
    let server = server().await;
    let service = service(&server).await;
    let request = SelectRequest { capability: "code".to_owned(), ..SelectRequest::default() };
    let error = as_request(Some("r1"), service.select(request)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(error.message(), "no model fits; excluded: 3 by capability");
    assert_eq!((error.detail("models"), error.detail("excluded_by_capability")), (Some("3"), Some("3")));
    assert_eq!(error.detail("excluded_by_cost"), Some("0"));
    assert_eq!(events(&server).await, 0);
}

#[tokio::test]
async fn an_unreadable_model_hides_no_other() {
    let server = server().await;
    let service = service(&server).await;
    service.models.bucket().put("broken", b"\xff".as_slice().into()).await.unwrap();

    let all = list(&service, ListRequest::default()).await;
    assert_eq!(all, ["ngram-large", "ngram-medium", "ngram-small"]);
    as_request(None, service.select(SelectRequest::default())).await.unwrap();
    let request = GetRequest { id: "broken".to_owned(), ..GetRequest::default() };
    assert_eq!(service.get(request).await.unwrap_err().code(), Code::DataLoss);
    assert!(sdk::metrics_text().contains("unreadable_records_total{bucket=\"models\"}"));
}

impl Service {
    async fn registered(&self, idempotency_key: Option<&str>, model: Model) -> Result<Model, Error> {
        let request = RegisterRequest { meta: None, model: Some(model) };
        Ok(as_request(idempotency_key, self.register(request)).await?.model.unwrap())
    }

    async fn retired(&self, idempotency_key: Option<&str>, id: &str) -> Result<Model, Error> {
        as_request(idempotency_key, retire(self, id)).await
    }

    async fn got(&self, id: &str) -> Model {
        self.get(GetRequest { meta: None, id: id.to_owned() }).await.unwrap().model.unwrap()
    }
}

#[tokio::test]
async fn a_repeated_change_is_applied_once_and_answered_as_the_first_was() {
    let server = server().await;
    let service = service(&server).await;
    let first = service.registered(Some("k1"), model("a", 1)).await.unwrap();
    assert_eq!(service.registered(Some("k1"), model("a", 1)).await.unwrap(), first);

    // With other changes in between.
    let retired = service.retired(Some("k2"), "a").await.unwrap();
    assert_eq!(service.registered(Some("k1"), model("a", 1)).await.unwrap(), first);
    assert_eq!(service.got("a").await, retired);
    let again = service.registered(Some("k3"), model("a", 2)).await.unwrap();
    assert_eq!(service.retired(Some("k2"), "a").await.unwrap(), retired);
    assert_eq!(service.got("a").await, again);
}

#[tokio::test]
async fn a_key_with_another_request_is_refused_and_changes_nothing() {
    let server = server().await;
    let service = service(&server).await;
    let first = service.registered(Some("k"), model("a", 1)).await.unwrap();
    for error in [
        service.registered(Some("k"), model("a", 2)).await.unwrap_err(),
        service.retired(Some("k"), "a").await.unwrap_err(),
    ] {
        assert_eq!((error.code(), error.detail("reason")), (Code::FailedPrecondition, Some("idempotency_key_reused")));
    }
    assert_eq!(service.got("a").await, first);
    // A key is for one model.
    service.registered(Some("k"), model("b", 1)).await.unwrap();
}

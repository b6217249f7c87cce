use std::time::Duration;

use futures::future::join_all;
use sdk::Code;
use sdk::testing::{NatsServer, Time, as_request};

use super::*;

async fn tasks(server: &NatsServer, time: &Time) -> [Service; 2] {
    server.bucket("backends", 1).await;
    server.bucket("health", 1).await;
    let one = Service::new(server.fleet_at("ai-router", time).await).await.unwrap();
    for (id, cost, latency) in [("fast", 50, 100), ("cheap", 5, 300), ("slow", 5, 900)] {
        one.registered(id, cost, latency).await.unwrap();
    }
    // It starts when they are registered, and so it knows them.
    [one, Service::new(server.fleet_at("ai-router", time).await).await.unwrap()]
}

impl Service {
    async fn registered(&self, id: &str, cost: u64, expected_latency_ms: u32) -> Result<Backend, Error> {
        let backend = Backend {
            id: id.to_owned(),
            capabilities: vec!["text".to_owned()],
            cost_per_1k_tokens_micros: cost,
            expected_latency_ms,
            revision: 0,
        };
        let request = RegisterBackendRequest { meta: None, backend: Some(backend) };
        Ok(as_request(None, self.register_backend(request)).await?.backend.unwrap())
    }

    async fn routed(&self, max_cost: u64, exclude: &[&str]) -> Result<RouteResponse, Error> {
        let request = RouteRequest {
            meta: None,
            capability: "text".to_owned(),
            max_cost_per_1k_tokens_micros: max_cost,
            exclude: exclude.iter().map(|&id| id.to_owned()).collect(),
        };
        as_request(None, self.route(request)).await
    }

    async fn reported(&self, route: &RouteResponse, outcome: Outcome, latency_ms: u32) -> BackendStatus {
        let (backend_id, decision_id) = (route.backend_id.clone(), route.decision_id.clone());
        let request = ReportRequest { meta: None, backend_id, decision_id, outcome: outcome.into(), latency_ms };
        as_request(None, self.report(request)).await.unwrap().status.unwrap()
    }

    /// Routes to the fastest backend and reports that it failed.
    async fn failed(&self) {
        let route = self.routed(0, &["cheap", "slow"]).await.unwrap();
        self.reported(&route, Outcome::Failure, 0).await;
    }
}

#[tokio::test]
async fn the_backend_that_is_expected_to_answer_first_is_chosen_and_the_choice_explained() {
    let server = NatsServer::start();
    let [one, other] = tasks(&server, &Time::default()).await;
    let route = other.routed(0, &[]).await.unwrap();
    assert_eq!((&*route.backend_id, route.candidates.len()), ("fast", 3));
    assert_eq!(route.reason, "expected to succeed after 100 ms, `cheap` after 300 ms");
    let route = one.routed(10, &["cheap"]).await.unwrap();
    assert_eq!(route.backend_id, "slow");
    let excluded: Vec<&str> = route.candidates.iter().map(|candidate| &*candidate.excluded_by).collect();
    assert_eq!(excluded, ["", "cost", "excluded"]);
}

#[tokio::test]
async fn what_is_reported_changes_the_choice() {
    let server = NatsServer::start();
    let [one, _] = tasks(&server, &Time::default()).await;
    let route = one.routed(0, &[]).await.unwrap();
    let status = one.reported(&route, Outcome::Success, 500).await;
    assert_eq!(status.health.unwrap().latency_ms, 500.0);
    let again = one.reported(&route, Outcome::Success, 9).await;
    assert_eq!(again.health.unwrap().latency_ms, 500.0, "a decision counts once");
    // A task that starts later knows it, too.
    let late = Service::new(server.fleet("ai-router").await).await.unwrap();
    assert_eq!(late.routed(0, &[]).await.unwrap().backend_id, "cheap");
}

#[tokio::test]
async fn no_task_chooses_a_backend_whose_breaker_is_open_and_one_request_tries_it() {
    let server = NatsServer::start();
    let time = Time::default();
    let [one, other] = tasks(&server, &time).await;
    for _ in 0..5 {
        one.failed().await;
    }
    // At once, before the other task has heard of it.
    let route = other.routed(0, &[]).await.unwrap();
    assert_eq!(route.backend_id, "cheap");
    let fast = route.candidates.iter().find(|candidate| candidate.backend_id == "fast").unwrap();
    assert_eq!(fast.excluded_by, "breaker");
    let error = other.routed(0, &["cheap", "slow"]).await.unwrap_err();
    assert_eq!((error.code(), error.detail("excluded_by_breaker")), (Code::FailedPrecondition, Some("1")));

    time.pass(Duration::from_secs(10));
    let tries = (0..6).map(|number| [&one, &other][number % 2].routed(0, &["cheap", "slow"]));
    let tried: Vec<RouteResponse> = join_all(tries).await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(tried.len(), 1);
    let status = other.reported(&tried[0], Outcome::Success, 100).await;
    assert_eq!(status.breaker(), BreakerState::Closed);
    assert!(one.routed(0, &["cheap", "slow"]).await.is_ok());
}

#[tokio::test]
async fn parallel_reports_of_two_tasks_are_all_counted() {
    let server = NatsServer::start();
    let [one, other] = tasks(&server, &Time::default()).await;
    let reports = (0..20).map(|number| {
        let service = [&one, &other][number % 2];
        async move {
            let route = service.routed(0, &[]).await.unwrap();
            service.reported(&RouteResponse { backend_id: "slow".to_owned(), ..route }, Outcome::Success, 700).await
        }
    });
    join_all(reports).await;
    let listed = one.list_backends(ListBackendsRequest::default()).await.unwrap().backends;
    let slow = listed.iter().find(|status| status.backend.as_ref().unwrap().id == "slow").unwrap();
    assert_eq!(slow.health.as_ref().unwrap().reports, 20);
}

#[tokio::test]
async fn bad_requests_say_what_is_accepted() {
    let server = NatsServer::start();
    let [one, _] = tasks(&server, &Time::default()).await;
    let refused = |error: Error, code: Code, because: &str| {
        assert!(error.code() == code && error.message().contains(because), "{error}");
    };
    refused(
        one.registered("x", 1, 0).await.unwrap_err(),
        Code::InvalidArgument,
        "expected_latency_ms is 0, it must be",
    );
    refused(one.registered("a.b", 1, 1).await.unwrap_err(), Code::InvalidArgument, "backend id must be");
    let report = |backend: &str, outcome: i32| {
        let (backend_id, decision_id) = (backend.to_owned(), "d".to_owned());
        one.report(ReportRequest { meta: None, backend_id, decision_id, outcome, latency_ms: 0 })
    };
    refused(report("fast", 0).await.unwrap_err(), Code::InvalidArgument, "OUTCOME_SUCCESS");
    refused(report("none", 1).await.unwrap_err(), Code::NotFound, "backend `none` does not exist");
    let request = RemoveBackendRequest { meta: None, backend_id: "fast".to_owned() };
    as_request(None, one.remove_backend(request.clone())).await.unwrap();
    refused(as_request(None, one.remove_backend(request)).await.unwrap_err(), Code::NotFound, "backend `fast`");
}

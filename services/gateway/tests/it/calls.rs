//! Unary calls: the requests that services receive, and the responses.

use std::time::Duration;

use bytes::Bytes;
use gateway::Limits;
use prost::Message as _;
use proto::common::v1 as common;
use proto::quest::v1::GenerateResponse;
use proto::rpc::{Code, Error};
use sdk::reason;
use serde_json::json;
use tokio::sync::mpsc;

use crate::client::{Answer, GENERATE};
use crate::fleet::{Fleet, Running, public};

const JSON: &str = "content-type: application/json\r\n";

#[tokio::test]
async fn a_call_is_translated_there_and_back() {
    let gateway = Fleet::quests().behind_a_gateway();
    let mut client = gateway.client().await;
    let answer = client.post(GENERATE, r#"{"playerId": "p1", "level": 3}"#).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    let quest = json!({"playerId": "p1", "title": "The \"lost\" cat", "level": 3, "revision": "7"});
    assert_eq!(answer.json(), json!({"quest": quest}));
    let again = client.post(GENERATE, r#"{"player_id": "p2"}"#).await;
    assert_eq!(again.json()["quest"]["playerId"], "p2");
}

#[tokio::test]
async fn every_method_has_a_route() {
    let gateway = Fleet::answering(|_| async { Err(Error::unavailable("seen")) }).behind_a_gateway();
    let mut client = gateway.client().await;
    for method in proto::SERVICES.iter().flat_map(|service| service.methods) {
        if !method.streaming {
            let answer = client.post(&gateway::path(method), "{}").await;
            assert_eq!(answer.json()["detail"], "seen", "{}", method.subject);
        }
    }
}

/// A gateway in front of a fleet that reports the context of each request.
fn observed() -> (Running, mpsc::UnboundedReceiver<(String, String, Option<String>)>) {
    let (seen, observed) = mpsc::unbounded_channel();
    let fleet = Fleet::answering(move |_| {
        let context = sdk::context();
        let key = context.idempotency_key().map(str::to_owned);
        seen.send((context.request_id().to_owned(), context.trace_id(), key)).unwrap();
        async { Ok(Bytes::new()) }
    });
    (fleet.behind_a_gateway(), observed)
}

#[tokio::test]
async fn request_metadata_is_passed_on() {
    let (gateway, mut observed) = observed();
    let headers = format!(
        "{JSON}x-request-id: order-17\r\nidempotency-key: key/1\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
    );
    let answer = gateway.client().await.post_with(GENERATE, &headers, "{}").await;
    assert_eq!(answer.json(), json!({}));
    assert_eq!(answer.header("x-request-id"), "order-17");
    let expected = ("order-17".to_owned(), "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(), Some("key/1".to_owned()));
    assert_eq!(observed.recv().await.unwrap(), expected);
}

#[tokio::test]
async fn an_invalid_request_id_is_replaced() {
    let (gateway, mut observed) = observed();
    let headers = format!("{JSON}x-request-id: <script>\r\ntraceparent: nonsense\r\n");
    let answer = gateway.client().await.post_with(GENERATE, &headers, "{}").await;
    let (id, trace, key) = observed.recv().await.unwrap();
    assert_eq!(answer.header("x-request-id"), id);
    assert_eq!((id.len(), trace.len(), key), (32, 32, None));
}

async fn answer_to(result: Result<Bytes, Error>) -> Answer {
    let gateway = Fleet::answering(move |_| {
        let result = result.clone();
        async { result }
    })
    .behind_a_gateway();
    gateway.client().await.post(GENERATE, "{}").await
}

#[tokio::test]
async fn an_error_of_the_fleet_becomes_a_problem() {
    let error = Error::new(Code::Aborted, "record `e1` has changed").with_detail("current_revision", 12);
    let answer = answer_to(Err(error.clone())).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["title"], "Conflict");
    assert_eq!(problem["code"], "ABORTED");
    assert_eq!(problem["detail"], "record `e1` has changed");
    assert_eq!(problem["details"], json!({"current_revision": "12"}));

    // The same if the error is in the response.
    let response = GenerateResponse { error: Some(common::Error::from(error)), quest: None };
    let carried = answer_to(Ok(response.encode_to_vec().into())).await;
    assert_eq!(carried.status, 409);
    assert_eq!(carried.json()["details"], problem["details"]);
}

#[tokio::test]
async fn an_undecodable_response_is_500() {
    let answer = answer_to(Ok(Bytes::from_static(&[0x12, 200, 1]))).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (500, Some("DATA_LOSS")));
}

#[tokio::test]
async fn no_responders_and_an_open_circuit_are_503_with_retry_after() {
    let no_responders = Error::unavailable("no responders").with_detail(reason::KEY, reason::NO_RESPONDERS);
    let answer = answer_to(Err(no_responders)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    let open = Error::unavailable("open")
        .with_detail(reason::KEY, reason::CIRCUIT_OPEN)
        .with_detail(reason::RETRY_AFTER_MS, 59_500);
    let answer = answer_to(Err(open)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "60"));
}

#[tokio::test]
async fn a_slow_worker_is_504() {
    let limits = Limits { request: Duration::from_millis(50), ..Limits::default() };
    let gateway = Fleet::silent().behind(limits);
    let answer = gateway.client().await.post(GENERATE, "{}").await;
    assert_eq!(answer.status, 504);
    assert_eq!(answer.json()["detail"], "`svc.quest.v1.generate` did not answer in time");
    assert_eq!(answer.json()["details"]["reason"], "timeout");
}

#[tokio::test]
async fn too_many_requests_to_a_route_are_503_and_other_routes_still_work() {
    let (entered, mut entries) = mpsc::unbounded_channel();
    let fleet = Fleet::answering(move |_| {
        entered.send(()).unwrap();
        std::future::pending()
    });
    let limits = Limits { route_concurrency: 2, ..Limits::default() };
    let gateway = fleet.behind(limits);
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut client = gateway.client().await;
        waiting.push(tokio::spawn(async move { client.post(GENERATE, "{}").await }));
        entries.recv().await.unwrap();
    }
    let mut client = gateway.client().await;
    let answer = client.post(GENERATE, "{}").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert_eq!(answer.json()["details"]["reason"], "overloaded");
    waiting.push(tokio::spawn(async move { client.post("/api/quest/v1/get", "{}").await }));
    entries.recv().await.unwrap();
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn the_built_in_endpoints_respond() {
    let gateway = Fleet::silent().behind_a_gateway();
    let mut client = gateway.client().await;
    assert_eq!(client.request("GET", "/livez").await.status, 200);
    // This gateway does not run in a task, so it never becomes ready.
    assert_eq!(client.request("GET", "/readyz").await.status, 503);
    let metrics = client.request("GET", "/metrics").await;
    assert!(metrics.body.ends_with("# EOF\n"), "{metrics:?}");
    let openapi = client.request("GET", "/openapi.json").await.json();
    assert_eq!(openapi["openapi"], "3.1.0");
    assert!(openapi["paths"][GENERATE]["post"].is_object());
}

#[test]
fn requests_are_counted_by_route_and_status() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let metrics = gateway::Metrics::default();
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    runtime.block_on(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gateway =
            gateway::Gateway::new(Fleet::quests(), &public("quest.v1.Quest/Generate"), Limits::default(), metrics)
                .unwrap();
        tokio::spawn(gateway::serve(listener, gateway.into(), std::future::pending()));
        let mut client = crate::client::Client::connect(address).await;
        client.post(GENERATE, "{}").await;
        client.post(GENERATE, "!").await;
        client.post("/nowhere", "!").await;
    });
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"http_requests_total{route="/api/quest/v1/generate",status="2xx"} 1"#,
        r#"http_requests_total{route="/api/quest/v1/generate",status="4xx"} 1"#,
        r#"http_requests_total{route="other",status="4xx"} 1"#,
        r#"http_request_duration_seconds_count{route="/api/quest/v1/generate"} 2"#,
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(!text.contains("/api/quest/v1/get"), "{text}");
}

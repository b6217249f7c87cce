use futures::future::join_all;
use prost::Message as _;
use proto::state::manager::v1::{FieldPatch, FieldPatches, Key, Kind as WireKind, update_request};
use proto::state::{entity, player};
use sdk::Event as _;
use sdk::testing::{NatsServer, as_request};
use serde_json::json;

use super::*;
use crate::testing::{object, value};

const BUCKETS: [&str; 2] = ["entities", "players"];

async fn events(server: &NatsServer) -> usize {
    server.stored_from(&BUCKETS, "EVENTS").await.len()
}

async fn server() -> NatsServer {
    let server = NatsServer::start();
    for bucket in BUCKETS {
        server.bucket(bucket, MAX_HISTORY.into()).await;
    }
    server.stream("EVENTS", &[entity::v1::Updated::SUBJECT, player::v1::Updated::SUBJECT]).await;
    server.outboxes(&BUCKETS, "EVENTS").await;
    server
}

async fn service(server: &NatsServer) -> Service {
    Service::new(server.fleet("state-manager").await).await.unwrap()
}

fn key(id: &str) -> Option<Key> {
    Some(Key { kind: WireKind::Player.into(), id: id.to_owned() })
}

fn merge(id: &str, expected_revision: Option<u64>, patch: serde_json::Value) -> UpdateRequest {
    UpdateRequest {
        key: key(id),
        expected_revision,
        change: Some(update_request::Change::Merge(object(patch))),
        ..UpdateRequest::default()
    }
}

impl Service {
    async fn updated(&self, idempotency_key: Option<&str>, request: UpdateRequest) -> Result<Record, Error> {
        let answer = as_request(idempotency_key, self.update(request)).await?;
        Ok(answer.record.unwrap())
    }

    async fn got(&self, id: &str) -> Result<Record, Error> {
        let request = GetRequest { key: key(id), ..GetRequest::default() };
        Ok(self.get(request).await?.record.unwrap())
    }
}

#[tokio::test]
async fn updates_are_read_back_with_their_history() {
    let server = server().await;
    let service = service(&server).await;
    assert_eq!(service.got("p1").await.unwrap_err().code(), Code::NotFound);

    let first = service.updated(None, merge("p1", Some(0), json!({"hp": 1, "bag": {"gold": 2}}))).await.unwrap();
    assert_eq!(service.got("p1").await.unwrap(), first);
    let patches = vec![FieldPatch { path: "bag.gold".to_owned(), value: Some(value(json!(3))) }];
    let fields = UpdateRequest {
        change: Some(update_request::Change::Fields(FieldPatches { patches })),
        ..merge("p1", Some(first.revision), json!({}))
    };
    let second = service.updated(None, fields).await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(second.data, Some(object(json!({"hp": 1, "bag": {"gold": 3}}))));
    assert_eq!(service.got("p1").await.unwrap(), second);

    let history = |limit| service.history(HistoryRequest { key: key("p1"), limit, ..HistoryRequest::default() });
    assert_eq!(history(0).await.unwrap().records, [second.clone(), first.clone()]);
    assert_eq!(history(1).await.unwrap().records, [second]);
    assert_eq!(history(65).await.unwrap_err().message(), "limit is 65, it must be 1 to 64");
    assert_eq!(events(&server).await, 2);
}

#[tokio::test]
async fn a_batch_keeps_its_order_and_lists_missing_records() {
    let server = server().await;
    let service = service(&server).await;
    for id in ["b", "a"] {
        service.updated(None, merge(id, None, json!({ "id": id }))).await.unwrap();
    }
    let batch = |ids: Vec<String>| {
        service.batch_get(BatchGetRequest {
            keys: ids.iter().filter_map(|id| key(id)).collect(),
            ..BatchGetRequest::default()
        })
    };
    let answer = batch(["b", "x", "a", "y"].map(str::to_owned).into()).await.unwrap();
    let ids = |keys: Vec<Key>| keys.into_iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(ids(answer.records.into_iter().filter_map(|record| record.key).collect()), ["b", "a"]);
    assert_eq!(ids(answer.missing), ["x", "y"]);

    let many = |count: usize| (0..count).map(|number| format!("n{number}")).collect();
    assert_eq!(batch(many(100)).await.unwrap().missing.len(), 100);
    assert_eq!(batch(many(101)).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_unexpected_revision_is_refused_with_the_current_one() {
    let server = server().await;
    let service = service(&server).await;
    let current = service.updated(None, merge("p1", None, json!({"hp": 1}))).await.unwrap().revision;
    for expected in [0, current - 1, current + 1] {
        let error = service.updated(None, merge("p1", Some(expected), json!({"hp": 2}))).await.unwrap_err();
        assert_eq!(error.code(), Code::Aborted, "{expected}");
        assert_eq!(error.detail("current_revision"), Some(current.to_string().as_str()));
    }
    let error = service.updated(None, merge("p2", Some(9), json!({}))).await.unwrap_err();
    assert_eq!((error.code(), error.detail("current_revision")), (Code::Aborted, Some("0")));
    assert_eq!(service.got("p1").await.unwrap().revision, current);
    assert_eq!(events(&server).await, 1);
}

#[tokio::test]
async fn a_retried_update_is_applied_once() {
    let server = server().await;
    let service = service(&server).await;
    let request = || merge("p1", Some(0), json!({"hp": 1}));
    let first = service.updated(Some("k1"), request()).await.unwrap();
    assert_eq!(service.updated(Some("k1"), request()).await.unwrap(), first);

    // With another update in between.
    let other = service.updated(None, merge("p1", None, json!({"hp": 5}))).await.unwrap();
    assert_eq!(service.updated(Some("k1"), request()).await.unwrap(), first);
    assert_eq!(service.got("p1").await.unwrap(), other);

    // The same without an expected revision.
    let request = || merge("p1", None, json!({"mp": 1}));
    let third = service.updated(Some("k2"), request()).await.unwrap();
    let fourth = service.updated(None, merge("p1", None, json!({"mp": 2}))).await.unwrap();
    assert_eq!(service.updated(Some("k2"), request()).await.unwrap(), third);
    assert_eq!(service.got("p1").await.unwrap(), fourth);
    assert_eq!(events(&server).await, 4);
}

#[tokio::test]
async fn each_event_names_its_revision_and_the_one_before() {
    let server = server().await;
    let service = service(&server).await;
    let mut revisions = vec![0];
    for (id, hp) in [("p1", 1), ("p2", 1), ("p1", 2), ("p2", 2), ("p1", 3)] {
        let written = service.updated(None, merge(id, None, json!({ "hp": hp }))).await.unwrap();
        revisions.extend((id == "p1").then_some(written.revision));
    }
    let stored = server.stored_from(&BUCKETS, "EVENTS").await.into_iter();
    let events = stored.map(|stored| player::v1::Updated::decode(stored.payload).unwrap());
    let chain: Vec<_> = events.filter(|event| event.player_id == "p1").collect();
    let numbers: Vec<_> = chain.iter().map(|event| [event.previous_revision, event.revision]).collect();
    assert_eq!(numbers, [[0, revisions[1]], [revisions[1], revisions[2]], [revisions[2], revisions[3]]]);
    assert_eq!(chain[2].data, Some(object(json!({"hp": 3}))));
}

/// What depends on the stream of events is not what a caller waits for.
#[tokio::test]
async fn an_update_needs_no_stream_of_events_and_its_event_waits_for_one() {
    let server = server().await;
    let service = service(&server).await;
    server.delete_stream("EVENTS").await;
    service.updated(Some("k"), merge("p1", Some(0), json!({"hp": 1}))).await.unwrap();

    server.stream("EVENTS", &[player::v1::Updated::SUBJECT]).await;
    server.outboxes(&BUCKETS, "EVENTS").await;
    assert_eq!(events(&server).await, 1);
}

#[tokio::test]
async fn concurrent_updates_are_all_applied_with_one_event_each() {
    let server = server().await;
    let services = [service(&server).await, service(&server).await];
    let updates = (0..24).map(|number| {
        let request = merge("p1", None, json!({ format!("field{number}"): number }));
        services[number % 2].updated(None, request)
    });
    let mut revisions: Vec<_> = join_all(updates).await.into_iter().map(|record| record.unwrap().revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 24);
    assert_eq!(services[0].got("p1").await.unwrap().data.unwrap().fields.len(), 24);
    assert_eq!(events(&server).await, 24);
}

#[tokio::test]
async fn one_of_several_concurrent_claims_succeeds() {
    let server = server().await;
    let service = service(&server).await;
    let claims = (0..8).map(|number| service.updated(None, merge("p1", Some(0), json!({ "owner": number }))));
    let results = join_all(claims).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.code(), Code::Aborted);
    }
    assert_eq!(events(&server).await, 1);
}

#[tokio::test]
async fn an_unreadable_record_hides_no_other() {
    let server = server().await;
    let service = service(&server).await;
    for hp in [1, 2, 3] {
        service.updated(None, merge("p1", None, json!({ "hp": hp }))).await.unwrap();
    }
    let written = service.got("p1").await.unwrap();
    service.players.bucket().put("broken", b"\xff".as_slice().into()).await.unwrap();

    let keys = ["broken", "p1", "absent"].into_iter().filter_map(key).collect();
    let batch = service.batch_get(BatchGetRequest { keys, ..BatchGetRequest::default() }).await.unwrap();
    assert_eq!((batch.records, batch.missing), (vec![written.clone()], vec![key("absent").unwrap()]));
    assert_eq!(batch.unreadable, [key("broken").unwrap()]);
    let history = |id: &str| service.history(HistoryRequest { key: key(id), ..HistoryRequest::default() });
    // What is stored and cannot be read is not absent.
    assert_eq!(history("broken").await.unwrap_err().code(), Code::DataLoss);
    let error = service.got("broken").await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert!(error.message().contains("record `broken` of bucket `players`"), "{error}");

    service.players.bucket().put("p1", b"\xff".as_slice().into()).await.unwrap();
    let records = history("p1").await.unwrap().records;
    assert_eq!((records.len(), &records[0]), (3, &written));
    assert!(sdk::metrics_text().contains("unreadable_records_total{bucket=\"players\"}"));
}

#[tokio::test]
async fn a_record_over_the_limit_is_not_retryable() {
    let server = server().await;
    let service = service(&server).await;
    let half = "x".repeat(patch::MAX_SIZE / 2);
    service.updated(None, merge("p1", None, json!({ "a": half }))).await.unwrap();
    let error = service.updated(None, merge("p1", None, json!({ "b": half }))).await.unwrap_err();
    assert_eq!((error.code(), error.detail("retry_after_ms")), (Code::InvalidArgument, None));
    assert!(error.message().contains("more than the 262144 that a record may have"), "{error}");
}

#[tokio::test]
async fn a_key_with_another_body_is_refused_and_changes_nothing() {
    let server = server().await;
    let service = service(&server).await;
    let first = service.updated(Some("k"), merge("p1", None, json!({"hp": 1}))).await.unwrap();
    for other in [merge("p1", None, json!({"hp": 2})), merge("p1", Some(0), json!({"hp": 1}))] {
        let error = service.updated(Some("k"), other).await.unwrap_err();
        assert_eq!((error.code(), error.detail("reason")), (Code::FailedPrecondition, Some("idempotency_key_reused")));
    }
    assert_eq!(service.got("p1").await.unwrap(), first);
    assert_eq!(events(&server).await, 1);
}

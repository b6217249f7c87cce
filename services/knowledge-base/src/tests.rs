//! The service against a real nats-server.

use std::time::{Duration, Instant};

use futures::future::join_all;
use sdk::Code;
use sdk::testing::{NatsServer, as_request};

use super::*;
use crate::document::tests::{document, search};

const SOON: Duration = Duration::from_secs(20);

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("documents", 1).await;
    server
}

async fn service(server: &NatsServer) -> Service {
    Service::new(server.fleet("knowledge-base").await).await.unwrap()
}

impl Service {
    async fn put(&self, document: Document, expected_revision: Option<u64>) -> Result<Document, Error> {
        let request = UpsertRequest { meta: None, document: Some(document), expected_revision };
        Ok(as_request(None, self.upsert(request)).await?.document.unwrap())
    }

    async fn deleted(&self, id: &str) {
        let request = DeleteRequest { meta: None, document_id: id.to_owned() };
        as_request(None, self.delete(request)).await.unwrap();
    }

    async fn found(&self, query: &str) -> Vec<String> {
        let hits = self.search(search(query)).await.unwrap().hits;
        hits.into_iter().map(|hit| hit.document_id).collect()
    }

    /// Waits until it finds these.
    async fn finds(&self, query: &str, ids: &[&str]) {
        let until = Instant::now() + SOON;
        let mut found = self.found(query).await;
        while found != ids {
            assert!(Instant::now() < until, "found {found:?} instead of {ids:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            found = self.found(query).await;
        }
    }
}

#[tokio::test]
async fn a_document_is_found_at_once_by_the_task_that_stored_it_and_soon_by_the_others() {
    let server = server().await;
    let [one, other] = [service(&server).await, service(&server).await];
    let stored = one.put(document("dragon", "The dragon", "Guards gold."), Some(0)).await.unwrap();
    assert_eq!(one.found("gold").await, ["dragon"]);
    other.finds("gold", &["dragon"]).await;
    let hit = other.search(search("gold")).await.unwrap().hits.remove(0);
    assert_eq!(
        (hit.title.as_str(), hit.snippet.as_str(), hit.revision),
        ("The dragon", "Guards gold", stored.revision)
    );

    let changed = other.put(document("dragon", "The dragon", "Guards silver."), Some(stored.revision)).await.unwrap();
    assert_eq!((other.found("gold").await.len(), other.found("silver").await.len()), (0, 1));
    one.finds("gold", &[]).await;
    let get = GetRequest { meta: None, document_id: "dragon".to_owned() };
    assert_eq!(one.get(get).await.unwrap().document.unwrap(), changed);
    for _ in 0..2 {
        one.deleted("dragon").await;
    }
    assert_eq!(one.found("silver").await.len(), 0);
    other.finds("silver", &[]).await;
}

#[tokio::test]
async fn a_task_is_ready_with_the_index_of_all_documents() {
    let server = server().await;
    let first = service(&server).await;
    let put = |number: usize| first.put(document(&number.to_string(), "t", "word"), None);
    for stored in join_all((0..50).map(put)).await {
        stored.unwrap();
    }
    first.deleted("7").await;
    let response = service(&server).await.search(search("word")).await.unwrap();
    assert_eq!((response.total, response.hits.len()), (49, 10));
    assert_eq!(response.revision, first.documents.revision().await.unwrap());
}

#[tokio::test]
async fn bad_requests_say_what_is_accepted() {
    let server = server().await;
    let service = service(&server).await;
    let stored = service.put(document("a", "t", "b"), None).await.unwrap();
    let unknown = GetRequest { meta: None, document_id: "b".to_owned() };
    for (outcome, code, because) in [
        (service.put(document("a b", "t", "b"), None).await.map(drop), Code::InvalidArgument, "document id must be"),
        (service.put(document("a", "t", ""), None).await.map(drop), Code::InvalidArgument, "body is empty"),
        (
            service.put(document("a", "t", "b"), Some(0)).await.map(drop),
            Code::Aborted,
            &*format!("document `a` is at revision {}, not at 0", stored.revision),
        ),
        (service.get(unknown).await.map(drop), Code::NotFound, "document `b` does not exist"),
        (service.search(search("")).await.map(drop), Code::InvalidArgument, "query is empty"),
        (service.search(search("(")).await.map(drop), Code::InvalidArgument, "query is not valid"),
    ] {
        let error = outcome.unwrap_err();
        assert!(error.code() == code && error.message().contains(because), "{error}");
    }
}

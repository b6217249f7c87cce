//! Clients that close their sending side after their request, and clients that are gone.

use bytes::Bytes;
use futures::StreamExt as _;
use gateway::Limits;
use prost::Message as _;
use proto::ai::llm::v1::InferStreamResponse;
use proto::rpc::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

use crate::client::{GENERATE, INFER_STREAM};
use crate::fleet::Fleet;

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Answers a request for each permit.
fn waiting() -> (Fleet, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let shared = Arc::clone(&permits);
    let fleet = Fleet::answering(move |_| {
        let permits = Arc::clone(&shared);
        async move {
            permits.acquire().await.unwrap().forget();
            Ok(Bytes::new())
        }
    });
    (fleet, permits)
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_gets_its_answer() {
    let (fleet, permits) = waiting();
    let gateway = fleet.behind_a_gateway();
    let mut client = gateway.client().await;
    client.send(post(GENERATE, "{}")).await.unwrap();
    client.end().await;
    permits.add_permits(1);
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_client_that_has_used_its_connection_before_gets_its_last_answer() {
    let (fleet, permits) = waiting();
    permits.add_permits(1);
    let gateway = fleet.behind_a_gateway();
    let mut client = gateway.client().await;
    assert_eq!(client.post(GENERATE, "{}").await.status, 200);
    client.send(post(GENERATE, "{}")).await.unwrap();
    client.end().await;
    permits.add_permits(1);
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn all_requests_before_the_end_are_answered() {
    let (fleet, permits) = waiting();
    let gateway = fleet.behind_a_gateway();
    let mut client = gateway.client().await;
    client.send(post(GENERATE, "{}").repeat(3)).await.unwrap();
    client.end().await;
    permits.add_permits(3);
    for _ in 0..3 {
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_large_answer_is_complete() {
    let fleet = Fleet::answering(|_| async {
        let title = "x".repeat(8 * 1024 * 1024);
        let quest = Some(proto::quest::v1::QuestInfo { title, ..Default::default() });
        Ok(proto::quest::v1::GenerateResponse { error: None, quest }.encode_to_vec().into())
    });
    let gateway = fleet.behind_a_gateway();
    let mut client = gateway.client().await;
    client.send(post(GENERATE, "{}")).await.unwrap();
    client.end().await;
    assert_eq!(client.answer().await.json()["quest"]["title"].as_str().unwrap().len(), 8 * 1024 * 1024);
}

#[tokio::test]
async fn a_stream_continues_after_the_client_has_closed_its_sending_side() {
    let (feed, items) = tokio::sync::mpsc::unbounded_channel::<Result<Bytes, Error>>();
    let items = std::sync::Mutex::new(Some(items));
    let fleet = Fleet::streaming(move || {
        let mut items = items.lock().unwrap().take().expect("called once");
        Ok(futures::stream::poll_fn(move |waker| items.poll_recv(waker)).boxed())
    });
    // The heartbeat that follows the end of what the client sends does not wait for its time.
    let limits = Limits { heartbeat: Duration::from_secs(3600), ..Limits::default() };
    let gateway = fleet.behind(limits);
    let mut client = gateway.client().await;
    client.send(post(INFER_STREAM, "{}")).await.unwrap();
    let message = |text: &str| InferStreamResponse { text: text.to_owned(), ..Default::default() }.encode_to_vec();
    feed.send(Ok(message("one").into())).unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    assert!(client.chunk().await.unwrap().unwrap().contains("one"));
    client.end().await;
    assert_eq!(client.chunk().await.unwrap().unwrap(), ": heartbeat\n\n");
    feed.send(Ok(message("two").into())).unwrap();
    assert!(client.chunk().await.unwrap().unwrap().contains("two"));
    drop(feed);
    assert!(client.chunk().await.unwrap().unwrap().contains("event: done"));
}

//! Streams as server-sent events: each ends with `done` or `error`, and is cancelled when the client disconnects.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use gateway::Limits;
use prost::Message as _;
use proto::ai::llm::v1::InferStreamResponse;
use proto::common::v1 as common;
use proto::rpc::{Error, Stream};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::client::{Answer, INFER_STREAM};
use crate::fleet::{DEADLINE, Fleet};

fn token(text: &str) -> Bytes {
    let response = InferStreamResponse { text: text.to_owned(), ..InferStreamResponse::default() };
    response.encode_to_vec().into()
}

/// The response to a streaming call that yields `items`.
async fn events(items: Vec<Result<Bytes, Error>>) -> Answer {
    let fleet = Fleet::streaming(move || Ok(stream::iter(items.clone()).boxed()));
    let gateway = fleet.behind_a_gateway();
    gateway.client().await.post(INFER_STREAM, r#"{"prompt": "x"}"#).await
}

/// The problem in the `error` event that `events` must end with.
#[track_caller]
fn last_error(events: &str) -> Value {
    let (_, last) = events.rsplit_once("event: error\ndata: ").expect("ends with an error");
    serde_json::from_str(last.strip_suffix("\n\n").expect("is a whole event")).unwrap()
}

#[tokio::test]
async fn messages_have_no_ids_and_the_last_event_is_done() {
    let answer = events(vec![Ok(token("one\n")), Ok(token("two"))]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-cache");
    assert_eq!(answer.header("x-request-id").len(), 32);
    let expected = "data: {\"text\":\"one\\n\"}\n\ndata: {\"text\":\"two\"}\n\nevent: done\ndata: {}\n\n";
    assert_eq!(answer.body, expected);
}

#[tokio::test]
async fn a_stream_cannot_be_resumed() {
    let fleet = Fleet::streaming(|| Ok(stream::iter([Ok(token("one"))]).boxed()));
    let gateway = fleet.behind_a_gateway();
    let mut client = gateway.client().await;
    let json = "content-type: application/json\r\n";
    for id in ["1", "x-7"] {
        let answer = client.post_with(INFER_STREAM, &format!("{json}last-event-id: {id}\r\n"), "{}").await;
        assert_eq!((answer.status, &answer.json()["detail"]), (400, &json!("a stream cannot be resumed")));
    }
    // A client without an id sends no header, or an empty one.
    let answer = client.post_with(INFER_STREAM, &format!("{json}last-event-id:\r\n"), "{}").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_stream_without_messages_is_done() {
    assert_eq!(events(Vec::new()).await.body, "event: done\ndata: {}\n\n");
}

#[tokio::test]
async fn many_messages_arrive_in_order() {
    let answer = events((0..5000).map(|number| Ok(token(&number.to_string()))).collect()).await;
    let texts: Vec<String> = answer
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: {\"text\":\""))
        .map(|rest| rest.trim_end_matches("\"}").to_owned())
        .collect();
    assert_eq!(texts, (0..5000).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_error_before_the_first_message_has_a_status() {
    let answer = events(vec![Err(Error::not_found("model `m`"))]).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), "application/problem+json");

    let carried = InferStreamResponse {
        error: Some(common::Error::from(Error::not_found("model `m`"))),
        ..InferStreamResponse::default()
    };
    assert_eq!(events(vec![Ok(carried.encode_to_vec().into())]).await.status, 404);

    let fleet = Fleet::streaming(|| Err(Error::unavailable("no responders")));
    let gateway = fleet.behind_a_gateway();
    assert_eq!(gateway.client().await.post(INFER_STREAM, "{}").await.status, 503);
}

#[tokio::test]
async fn an_error_after_the_first_message_is_the_last_event() {
    let answer = events(vec![Ok(token("one")), Err(Error::internal("broke").with_detail("at", 1))]).await;
    assert_eq!(answer.status, 200);
    let problem = last_error(&answer.body);
    assert_eq!((&problem["status"], &problem["code"]), (&json!(500), &json!("INTERNAL")));
    assert_eq!(problem["details"], json!({"at": "1"}));
    assert_eq!(problem["instance"], INFER_STREAM);

    let carried = InferStreamResponse {
        error: Some(common::Error::from(Error::internal("broke"))),
        ..InferStreamResponse::default()
    };
    let answer = events(vec![Ok(token("one")), Ok(carried.encode_to_vec().into())]).await;
    assert_eq!(last_error(&answer.body)["code"], "INTERNAL");

    let answer = events(vec![Ok(token("one")), Ok(Bytes::from_static(&[0x12, 9]))]).await;
    assert_eq!(last_error(&answer.body)["code"], "DATA_LOSS");
}

/// A fleet with one stream, the sender that feeds it, and a receiver that resolves when the gateway drops the stream.
fn fed() -> (Fleet, mpsc::UnboundedSender<Result<Bytes, Error>>, oneshot::Receiver<()>) {
    let (feed, items) = mpsc::unbounded_channel();
    let (dropped, gone) = oneshot::channel();
    let once = std::sync::Mutex::new(Some(Fed { items, dropped: Some(dropped) }));
    let fleet = Fleet::streaming(move || {
        let stream: Stream<Bytes> = once.lock().unwrap().take().expect("called once").boxed();
        Ok(stream)
    });
    (fleet, feed, gone)
}

struct Fed {
    items: mpsc::UnboundedReceiver<Result<Bytes, Error>>,
    dropped: Option<oneshot::Sender<()>>,
}

impl futures::Stream for Fed {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, waker: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_recv(waker)
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        // The test may have ended.
        let _ = self.dropped.take().expect("dropped once").send(());
    }
}

fn request() -> String {
    format!(
        "POST {INFER_STREAM} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    )
}

#[tokio::test]
async fn messages_are_sent_at_once_with_heartbeats_in_between() {
    let limits = Limits { heartbeat: Duration::from_millis(20), ..Limits::default() };
    let (fleet, feed, _gone) = fed();
    let gateway = fleet.behind(limits);
    let mut client = gateway.client().await;
    feed.send(Ok(token("one"))).unwrap();
    client.send(request()).await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.chunk().await.unwrap().unwrap(), "data: {\"text\":\"one\"}\n\n");
    assert_eq!(client.chunk().await.unwrap().unwrap(), ": heartbeat\n\n");
    assert_eq!(client.chunk().await.unwrap().unwrap(), ": heartbeat\n\n");
    feed.send(Ok(token("two"))).unwrap();
    drop(feed);
    let mut rest = String::new();
    while let Some(chunk) = client.chunk().await.expect("the body has its proper end") {
        rest.push_str(&chunk.replace(": heartbeat\n\n", ""));
    }
    assert_eq!(rest, "data: {\"text\":\"two\"}\n\nevent: done\ndata: {}\n\n");
    // The connection can be reused.
    assert_eq!(client.request("GET", "/livez").await.status, 200);
}

#[tokio::test]
async fn a_disconnected_client_cancels_the_stream() {
    let (fleet, feed, gone) = fed();
    let gateway = fleet.behind_a_gateway();
    let mut client = gateway.client().await;
    feed.send(Ok(token("one"))).unwrap();
    client.send(request()).await.unwrap();
    client.head().await.unwrap();
    client.chunk().await.unwrap().unwrap();
    drop(client);
    timeout(DEADLINE, gone).await.expect("in time").unwrap();
    assert!(feed.send(Ok(token("two"))).is_err());
}

#[tokio::test]
async fn a_client_that_resets_before_the_first_message_cancels_the_stream() {
    let (fleet, feed, gone) = fed();
    let gateway = fleet.behind_a_gateway();
    let mut client = gateway.client().await;
    client.send(request()).await.unwrap();
    // When this request is answered, the gateway has read the other one.
    assert_eq!(gateway.client().await.request("GET", "/livez").await.status, 200);
    client.reset();
    timeout(DEADLINE, gone).await.expect("in time").unwrap();
    drop(feed);
}

#[tokio::test]
async fn a_client_that_does_not_read_cancels_the_stream() {
    let limits = Limits { write_timeout: Duration::from_millis(100), ..Limits::default() };
    let (fleet, feed, gone) = fed();
    let gateway = fleet.behind(limits);
    let mut client = gateway.client().await;
    client.send(request()).await.unwrap();
    let long = token(&"x".repeat(100_000));
    for _ in 0..300 {
        // Fails when the gateway has dropped the stream.
        let _ = feed.send(Ok(long.clone()));
    }
    timeout(DEADLINE, gone).await.expect("in time").unwrap();
    drop(client);
}

#[tokio::test]
async fn a_stream_that_starts_too_late_is_504() {
    let limits = Limits { request: Duration::from_millis(50), ..Limits::default() };
    let (fleet, _feed, gone) = fed();
    let gateway = fleet.behind(limits);
    let answer = gateway.client().await.post(INFER_STREAM, "{}").await;
    assert_eq!(answer.status, 504);
    timeout(DEADLINE, gone).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_stream_that_takes_too_long_ends_with_an_error() {
    let limits = Limits { stream: Duration::from_millis(100), ..Limits::default() };
    let (fleet, feed, gone) = fed();
    feed.send(Ok(token("one"))).unwrap();
    let gateway = fleet.behind(limits);
    let answer = gateway.client().await.post(INFER_STREAM, "{}").await;
    assert_eq!(last_error(&answer.body)["status"], 504);
    timeout(DEADLINE, gone).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_stream_interrupted_by_a_shutdown_ends_with_an_error() {
    let limits = Limits { linger: Duration::from_millis(10), drain: Duration::from_millis(100), ..Limits::default() };
    let (fleet, feed, _gone) = fed();
    feed.send(Ok(token("one"))).unwrap();
    let mut gateway = fleet.behind(limits);
    let mut client = gateway.client().await;
    client.send(request()).await.unwrap();
    client.head().await.unwrap();
    client.chunk().await.unwrap().unwrap();
    gateway.stop();
    let last = client.chunk().await.unwrap().unwrap();
    let problem = last_error(&last);
    assert_eq!((&problem["status"], &problem["details"]["reason"]), (&json!(503), &json!("stopping")));
    assert_eq!(client.chunk().await, Some(None));
    gateway.ended().await;
}

#[tokio::test]
async fn a_running_stream_is_finished_during_a_shutdown() {
    let (fleet, feed, _gone) = fed();
    feed.send(Ok(token("one"))).unwrap();
    let mut gateway = fleet.behind(Limits { linger: Duration::from_millis(10), ..Limits::default() });
    let mut client = gateway.client().await;
    client.send(request()).await.unwrap();
    client.head().await.unwrap();
    client.chunk().await.unwrap().unwrap();
    gateway.stop();
    feed.send(Ok(token("two"))).unwrap();
    drop(feed);
    let rest = client.rest().await;
    assert!(rest.contains("two") && rest.ends_with("event: done\ndata: {}\n\n\r\n0\r\n\r\n"), "{rest}");
    gateway.ended().await;
}

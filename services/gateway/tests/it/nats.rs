//! End to end: HTTP, gateway, nats-server, worker, and back.

use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::StreamExt as _;
use gateway::{Gateway, Limits, Metrics};
use proto::ai::llm::v1::{InferRequest, InferResponse, InferStreamRequest, InferStreamResponse, Llm, LlmServer};
use sdk::testing::NatsServer;
use sdk::{Error, Shutdown, Stream};
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::{Client, INFER_STREAM};
use crate::fleet::{DEADLINE, all_methods};

const INFER: &str = "/api/ai/llm/v1/infer";

/// Echoes the prompt.
struct Echo {
    /// Notified when an endless stream is dropped.
    dropped: Mutex<Option<oneshot::Sender<()>>>,
}

impl Llm for Echo {
    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Error> {
        if request.prompt.is_empty() {
            return Err(Error::invalid("prompt is empty").with_detail("field", "prompt"));
        }
        let context = sdk::context();
        let key = context.idempotency_key().unwrap_or("none");
        Ok(InferResponse {
            text: format!("{} by {} with {key}", request.prompt, context.request_id()),
            ..InferResponse::default()
        })
    }

    async fn infer_stream(&self, request: InferStreamRequest) -> Result<Stream<InferStreamResponse>, Error> {
        if request.prompt == "forever" {
            let dropped = self.dropped.lock().unwrap().take();
            return Ok(Endless { dropped }.boxed());
        }
        let words: Vec<_> = request.prompt.split(' ').map(word).collect();
        Ok(futures::stream::iter(words).boxed())
    }
}

fn word(text: &str) -> Result<InferStreamResponse, Error> {
    if text == "fail" {
        return Err(Error::internal("failed"));
    }
    Ok(InferStreamResponse { text: text.to_owned(), ..InferStreamResponse::default() })
}

struct Endless {
    dropped: Option<oneshot::Sender<()>>,
}

impl futures::Stream for Endless {
    type Item = Result<InferStreamResponse, Error>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(Some(word("again")))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        if let Some(dropped) = self.dropped.take() {
            // The test may have ended.
            let _ = dropped.send(());
        }
    }
}

/// A nats-server, a gateway, and a worker if one was started.
struct System {
    nats: NatsServer,
    address: std::net::SocketAddr,
    gateway: JoinHandle<()>,
    worker: Option<(JoinHandle<()>, watch::Sender<bool>)>,
}

impl System {
    async fn without_worker() -> Self {
        let nats = NatsServer::start();
        let fleet = nats.fleet("gateway").await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = Arc::new(Gateway::new(fleet, &all_methods(), Limits::default(), Metrics::default()).unwrap());
        let gateway = tokio::spawn(async move {
            gateway::serve(listener, gateway, std::future::pending()).await.unwrap();
        });
        Self { nats, address, gateway, worker: None }
    }

    async fn start() -> (Self, oneshot::Receiver<()>) {
        let mut system = Self::without_worker().await;
        let (dropped, gone) = oneshot::channel();
        let echo = Echo { dropped: Mutex::new(Some(dropped)) };
        let fleet = system.nats.fleet("ai-integration").await;
        let (trigger, shutdown) = Shutdown::new();
        let worker = tokio::spawn(async move { sdk::serve(&fleet, LlmServer(echo), shutdown).await.unwrap() });
        system.worker = Some((worker, trigger));
        let answers = async {
            let mut client = system.client().await;
            while client.post(INFER, r#"{"prompt": "x"}"#).await.status != 200 {}
        };
        timeout(DEADLINE, answers).await.expect("the worker serves in time");
        (system, gone)
    }

    async fn client(&self) -> Client {
        Client::connect(self.address).await
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.gateway.abort();
        if let Some((worker, _)) = &self.worker {
            worker.abort();
        }
    }
}

#[tokio::test]
async fn a_call_works_end_to_end() {
    let (system, _gone) = System::start().await;
    let mut client = system.client().await;
    let headers = "content-type: application/json\r\nx-request-id: r1\r\nidempotency-key: k1\r\n";
    let answer = client.post_with(INFER, headers, r#"{"prompt": "hello"}"#).await;
    assert_eq!(answer.json(), json!({"text": "hello by r1 with k1"}));
    let answer = client.post(INFER, "{}").await;
    assert_eq!((answer.status, answer.json()["detail"].as_str()), (400, Some("prompt is empty")));
    assert_eq!(answer.json()["details"], json!({"field": "prompt"}));
}

#[tokio::test]
async fn a_call_without_responders_is_503() {
    let system = System::without_worker().await;
    let answer = system.client().await.post(INFER, "{}").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["details"]["reason"], "no_responders");
    assert_eq!(answer.header("retry-after"), "1");
    let answer = system.client().await.post(INFER_STREAM, "{}").await;
    assert_eq!((answer.status, answer.json()["details"]["reason"].as_str()), (503, Some("no_responders")));
}

#[tokio::test]
async fn a_stream_works_end_to_end() {
    let (system, _gone) = System::start().await;
    let mut client = system.client().await;
    let answer = client.post(INFER_STREAM, r#"{"prompt": "one two"}"#).await;
    let expected = "data: {\"text\":\"one\"}\n\ndata: {\"text\":\"two\"}\n\nevent: done\ndata: {}\n\n";
    assert_eq!(answer.body, expected);
    let answer = client.post(INFER_STREAM, r#"{"prompt": "one fail"}"#).await;
    assert!(answer.body.starts_with("data: ") && answer.body.contains("event: error\n"), "{answer:?}");
    let answer = client.post(INFER_STREAM, r#"{"prompt": "fail"}"#).await;
    assert_eq!(answer.status, 500);
}

#[tokio::test]
async fn the_worker_stops_streaming_when_the_client_disconnects() {
    let (system, gone) = System::start().await;
    let mut client = system.client().await;
    let body = r#"{"prompt": "forever"}"#;
    let head = format!(
        "POST {INFER_STREAM} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(head).await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    assert!(client.chunk().await.unwrap().unwrap().starts_with("data: "));
    drop(client);
    timeout(DEADLINE, gone).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_request_that_is_too_large_for_nats_is_400() {
    let (system, _gone) = System::start().await;
    let mut client = system.client().await;
    // The body is just within the gateway's limit, and with its metadata just above that of nats-server.
    let prompt = "x".repeat(1024 * 1024 - 20);
    let answer = client.post(INFER, &format!(r#"{{"prompt":"{prompt}"}}"#)).await;
    assert_eq!(answer.status, 400, "{}", &answer.body[..200.min(answer.body.len())]);
    assert_eq!(client.post(INFER, r#"{"prompt": "x"}"#).await.status, 200);
}

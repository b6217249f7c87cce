//! The service against a real nats-server, with a fake registry.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt as _;
use proto::ai::llm::v1::{LlmClient, Sampling};
use proto::ai::model::v1::ModelManagementServer;
use sdk::testing::{NatsServer, as_request};
use sdk::{CacheSettings, Caches, Code, Key, Server, Settings, Shutdown};

use super::*;
use crate::engine::tests::Registry;

/// The cache of the manifest.
const TEXTS: CacheSettings = CacheSettings { ttl: Duration::from_secs(60), max_bytes: 1 << 20 };

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.stream("EVENTS", &[Generated::SUBJECT]).await;
    server
}

/// How many events are stored.
async fn events(server: &NatsServer) -> usize {
    server.stored("EVENTS").await.len()
}

/// Serves until the test ends.
async fn serve<S: Server>(server: &NatsServer, name: &str, served: impl AsyncFnOnce(Fleet) -> S) {
    let caches = Caches::new(BTreeMap::from([("texts".to_owned(), TEXTS)]), None);
    let settings = Settings { caches, ..Settings::for_service(name, server.connection()) };
    let fleet = Fleet::connect(settings).await.unwrap();
    let served = served(fleet.clone()).await;
    let (trigger, shutdown) = Shutdown::new();
    tokio::spawn(async move {
        let _trigger = trigger;
        sdk::serve(&fleet, served, shutdown).await
    });
}

async fn client(server: &NatsServer) -> LlmClient {
    serve(server, "model-management", async |_| ModelManagementServer(Registry)).await;
    serve(server, "ai-integration", async |fleet| LlmServer(Service::new(fleet).await.unwrap())).await;
    let client: LlmClient = server.fleet("caller").await.client();
    // Both services are ready when the registry rejects an unknown model.
    let probe = InferRequest { prompt: "Hello".to_owned(), model_id: "lost".to_owned(), ..InferRequest::default() };
    let served = async {
        while client.infer(probe.clone()).await.unwrap_err().code() != Code::NotFound {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), served).await.unwrap();
    client
}

fn sampling(max_tokens: u32) -> Option<Sampling> {
    Some(Sampling { max_tokens: Some(max_tokens), seed: Some(1), ..Sampling::default() })
}

#[tokio::test]
async fn an_event_is_published_for_each_complete_text() {
    let server = server().await;
    let client = client(&server).await;
    assert_eq!(events(&server).await, 0);

    let request =
        |prompt: &str| InferRequest { prompt: prompt.to_owned(), sampling: sampling(20), ..InferRequest::default() };
    let whole = as_request(Some("r1"), client.infer(request("The dragon"))).await.unwrap();
    assert_eq!(whole.usage.unwrap().completion_tokens, 20);
    assert_eq!(events(&server).await, 1);
    as_request(Some("r1"), client.infer(request("The smith"))).await.unwrap();
    assert_eq!(events(&server).await, 2, "a different request of the same operation");
    as_request(Some("r1"), client.infer(request("The smith"))).await.unwrap();
    assert_eq!(events(&server).await, 2, "a retry of the same request");
    as_request(Some("r1"), client.infer(request(""))).await.unwrap_err();
    assert_eq!(events(&server).await, 2);

    let request =
        InferStreamRequest { prompt: "The dragon".to_owned(), sampling: sampling(20), ..InferStreamRequest::default() };
    let stream = as_request(Some("r2"), client.infer_stream(request)).await.unwrap();
    let messages: Vec<InferStreamResponse> = stream.try_collect().await.unwrap();
    assert_eq!(messages.len(), 21);
    assert_eq!(messages.iter().map(|message| message.text.as_str()).collect::<String>(), whole.text);
    assert_eq!(events(&server).await, 3);
}

#[tokio::test]
async fn a_text_that_is_the_same_each_time_is_generated_once() {
    let server = server().await;
    let client = client(&server).await;
    let request = |sampling| InferRequest { prompt: "The dragon".to_owned(), sampling, ..InferRequest::default() };
    let first = client.infer(request(sampling(20))).await.unwrap();
    assert_eq!(client.infer(request(sampling(20))).await.unwrap(), first);
    assert_eq!(events(&server).await, 1);
    assert_ne!(client.infer(request(sampling(21))).await.unwrap(), first);
    assert_eq!(events(&server).await, 2);
    for _ in 0..2 {
        client.infer(request(None)).await.unwrap();
    }
    assert_eq!(events(&server).await, 4, "without a seed each text is another");
}

#[tokio::test]
async fn another_model_empties_the_cache() {
    let server = server().await;
    let caches = Caches::new(BTreeMap::from([("texts".to_owned(), TEXTS)]), None);
    let settings = Settings { caches, ..Settings::for_service("ai-integration", server.connection()) };
    let service = Service::new(Fleet::connect(settings).await.unwrap()).await.unwrap();
    let key = Key::new().part("prompt");
    let text = async |text: &str| {
        let response = InferResponse { text: text.to_owned(), ..InferResponse::default() };
        service.texts.get_or(&key, async || Ok(response)).await.unwrap().text
    };
    let selected = |model: &str| Selected { model_id: model.to_owned(), ..Selected::default() };
    for (model, computed, expected) in
        [("small", "a", "a"), ("small", "b", "a"), ("large", "c", "c"), ("small", "d", "c")]
    {
        service.handle(selected(model)).await.unwrap();
        assert_eq!(text(computed).await, expected, "{model}");
    }
}

#[tokio::test]
async fn an_abandoned_stream_publishes_no_event() {
    let server = server().await;
    let client = client(&server).await;
    // At temperature 0 the stream continues until it is cancelled.
    let request = InferStreamRequest {
        prompt: "The dragon".to_owned(),
        model_id: "vast".to_owned(),
        sampling: Some(Sampling { max_tokens: Some(4_096), temperature: Some(0.0), ..Sampling::default() }),
        ..InferStreamRequest::default()
    };
    let mut stream = client.infer_stream(request).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    // A later request is answered later.
    let request = InferRequest { prompt: "The smith".to_owned(), sampling: sampling(1), ..InferRequest::default() };
    client.infer(request).await.unwrap();
    assert_eq!(events(&server).await, 1);
}

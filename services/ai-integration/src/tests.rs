//! The service against a real nats-server, with a registry beside it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use futures::TryStreamExt as _;
use proto::ai::llm::v1::{LlmClient, Sampling};
use proto::ai::model::v1::ModelManagementServer;
use sdk::testing::NatsServer;
use sdk::{Code, Context, Incoming, Server, Settings, Stop};

use super::*;
use crate::engine::tests::Registry;

/// Asks JetStream itself for what no service may: streams and buckets are natsctl's.
fn jetstream(server: &NatsServer, what: &str, request: &str) -> String {
    let mut socket = TcpStream::connect(server.link().urls[0].trim_start_matches("nats://")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let length = request.len();
    write!(
        socket,
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.STREAM.{what} answer {length}\r\n{request}\r\n"
    )
    .unwrap();
    let mut lines = BufReader::new(socket);
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the server hung up");
        if line.starts_with("MSG ") {
            line.clear();
            lines.read_line(&mut line).unwrap();
            assert!(!line.contains("\"error\""), "{what}: {line}");
            return line;
        }
    }
}

fn server() -> NatsServer {
    let server = NatsServer::start();
    let stream = r#"{"name": "EVENTS", "subjects": ["evt.ai.llm.generated.v1"], "storage": "memory", "duplicate_window": 120000000000}"#;
    jetstream(&server, "CREATE.EVENTS", stream);
    server
}

/// How many events are stored.
fn events(server: &NatsServer) -> u64 {
    let info = jetstream(server, "INFO.EVENTS", "{}");
    let (_, count) = info.split_once("\"messages\":").unwrap();
    count.split_once(',').unwrap().0.trim().parse().unwrap()
}

async fn fleet(server: &NatsServer, service: &str) -> Fleet {
    Fleet::connect(Settings::for_service(service, server.link())).await.unwrap()
}

/// As if a request with this id were being handled.
async fn during<F: Future>(operation: &str, handling: F) -> F::Output {
    let request = Incoming {
        traceparent: None,
        request_id: Some(operation),
        idempotency_key: None,
        timeout: Duration::from_secs(20),
    };
    Context::incoming(request).scope(handling).await
}

/// Serves until the test ends.
async fn serve<S: Server>(server: &NatsServer, name: &str, served: impl AsyncFnOnce(Fleet) -> S) {
    let fleet = fleet(server, name).await;
    let served = served(fleet.clone()).await;
    let (order, stop) = Stop::new();
    tokio::spawn(async move {
        let _order = order;
        sdk::serve(&fleet, served, stop).await
    });
}

async fn client(server: &NatsServer) -> LlmClient {
    serve(server, "model-management", async |_| ModelManagementServer(Registry)).await;
    serve(server, "ai-integration", async |fleet| Service::new(fleet).await.unwrap()).await;
    let client: LlmClient = fleet(server, "caller").await.client();
    // Both serve when a request that nobody can fulfil is refused by the registry.
    let nobody = InferRequest { prompt: "Hello".to_owned(), model_id: "lost".to_owned(), ..InferRequest::default() };
    let served = async {
        while client.infer(nobody.clone()).await.unwrap_err().code() != Code::NotFound {
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
async fn texts_are_announced_when_they_are_complete() {
    let server = server();
    let client = client(&server).await;
    assert_eq!(events(&server), 0);

    let request =
        |prompt: &str| InferRequest { prompt: prompt.to_owned(), sampling: sampling(20), ..InferRequest::default() };
    let whole = during("r1", client.infer(request("The dragon"))).await.unwrap();
    assert_eq!(whole.usage.unwrap().completion_tokens, 20);
    assert_eq!(events(&server), 1);
    during("r1", client.infer(request("The smith"))).await.unwrap();
    assert_eq!(events(&server), 2, "the same operation asks for something else");
    during("r1", client.infer(request(""))).await.unwrap_err();
    assert_eq!(events(&server), 2);

    let request =
        InferStreamRequest { prompt: "The dragon".to_owned(), sampling: sampling(20), ..InferStreamRequest::default() };
    let stream = during("r2", client.infer_stream(request)).await.unwrap();
    let messages: Vec<InferStreamResponse> = stream.try_collect().await.unwrap();
    assert_eq!(messages.len(), 21);
    assert_eq!(messages.iter().map(|message| message.text.as_str()).collect::<String>(), whole.text);
    assert_eq!(events(&server), 3);
}

#[tokio::test]
async fn a_stream_that_is_given_up_is_not_announced() {
    let server = server();
    let client = client(&server).await;
    // At temperature 0 it goes on until it is stopped.
    let request = InferStreamRequest {
        prompt: "The dragon".to_owned(),
        model_id: "vast".to_owned(),
        sampling: Some(Sampling { max_tokens: Some(4_096), temperature: Some(0.0), ..Sampling::default() }),
        ..InferStreamRequest::default()
    };
    let mut stream = client.infer_stream(request).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    // A request that comes later is answered later.
    let request = InferRequest { prompt: "The smith".to_owned(), sampling: sampling(1), ..InferRequest::default() };
    client.infer(request).await.unwrap();
    assert_eq!(events(&server), 1);
}

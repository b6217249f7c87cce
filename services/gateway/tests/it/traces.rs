//! Traces from the HTTP request through gateway, services and events, as OpenTelemetry's own classes read them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use gateway::{Gateway, Limits, Metrics};
use proto::ai::llm::v1::{InferRequest, InferResponse, InferStreamRequest, InferStreamResponse, Llm, LlmServer};
use proto::ai::model::v1::{
    GetRequest, GetResponse, ListRequest, ListResponse, ModelManagement, ModelManagementClient, ModelManagementServer,
    RegisterRequest, RegisterResponse, RetireRequest, RetireResponse, SelectRequest, SelectResponse, Selected,
};
use sdk::testing::{NatsServer, start_tracing, stop_tracing};
use sdk::{ConsumerSettings, Error, Event as _, Fleet, Handler, Settings, Shutdown, Stream};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::{Client, INFER_STREAM};
use crate::fleet::{DEADLINE, all_methods};

const INFER: &str = "/api/ai/llm/v1/infer";
const OUTSIDE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// `otlp_receiver.py`, which is not ours to agree with.
struct Receiver {
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
    /// Ends with this, and is killed if it does not.
    _process: Child,
}

impl Receiver {
    /// `None`, and says why, where what it needs is not installed.
    #[expect(clippy::print_stderr, reason = "it says what is skipped")]
    async fn start() -> Option<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("../../.tools/emulator/bin/python");
        if !python.exists() {
            eprintln!("skipped: Python's classes of OpenTelemetry are not installed: run scripts/emulator");
            return None;
        }
        let mut process = Command::new(python)
            .arg(root.join("tests/otlp_receiver.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = timeout(DEADLINE, lines.next_line()).await.expect("in time").unwrap();
        let url = format!("http://127.0.0.1:{}", port.expect("the receiver ended: run scripts/emulator"));
        Some(Self { lines, url, _process: process })
    }

    /// The next spans, by name and kind, as in `POST /a SERVER`.
    async fn spans(&mut self, count: usize) -> BTreeMap<String, Value> {
        let mut spans = BTreeMap::new();
        while spans.len() < count {
            let line = timeout(DEADLINE, self.lines.next_line()).await.unwrap_or_else(|_| panic!("only {spans:#?}"));
            let span: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
            let text = |key: &str| span[key].as_str().unwrap().to_owned();
            let kind = text("kind").replace("SPAN_KIND_", "");
            let before = spans.insert(format!("{} {kind}", text("name")), span);
            assert_eq!(before, None);
        }
        spans
    }
}

/// Asks the models before it answers.
struct Texts(ModelManagementClient);

impl Llm for Texts {
    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Error> {
        match request.prompt.as_str() {
            "warm up" => {}
            "get" => drop(self.0.get(GetRequest::default()).await?),
            _ => drop(self.0.select(SelectRequest::default()).await?),
        }
        Ok(InferResponse::default())
    }

    async fn infer_stream(&self, request: InferStreamRequest) -> Result<Stream<InferStreamResponse>, Error> {
        let ends = request.prompt != "fail";
        let word = Ok(InferStreamResponse { text: "word".to_owned(), ..InferStreamResponse::default() });
        let last = if ends { word.clone() } else { Err(Error::internal("in the middle")) };
        Ok(futures::stream::iter([word, last]).boxed())
    }
}

/// Publishes which model it selects, and has a bucket.
struct Models(sdk::Fleet, sdk::Bucket);

impl ModelManagement for Models {
    async fn select(&self, _: SelectRequest) -> Result<SelectResponse, Error> {
        self.1.put("default", "fast".into()).await?;
        self.0.publish(Selected { model_id: "fast".to_owned(), ..Selected::default() }).await?;
        Ok(SelectResponse::default())
    }
    async fn get(&self, _: GetRequest) -> Result<GetResponse, Error> {
        Err(Error::internal("the catalog is broken"))
    }
    async fn list(&self, _: ListRequest) -> Result<ListResponse, Error> {
        Err(Error::invalid("unused"))
    }
    async fn register(&self, _: RegisterRequest) -> Result<RegisterResponse, Error> {
        Err(Error::invalid("unused"))
    }
    async fn retire(&self, _: RetireRequest) -> Result<RetireResponse, Error> {
        Err(Error::invalid("unused"))
    }
}

/// Handles the event.
struct Quests;

impl Handler<Selected> for Quests {
    async fn handle(&self, _: Selected) -> Result<(), Error> {
        Ok(())
    }
}

/// A gateway and three services, in one process that exports its spans.
struct System {
    nats: NatsServer,
    receiver: Receiver,
    client: Client,
    tasks: Vec<JoinHandle<()>>,
    /// The services run until it is dropped.
    _running: watch::Sender<bool>,
}

impl System {
    async fn start() -> Option<Self> {
        let receiver = Receiver::start().await?;
        let nats = NatsServer::start();
        nats.stream("EVENTS", &[Selected::SUBJECT]).await;
        nats.bucket("models", 1).await;
        let consumer = ConsumerSettings {
            event: Selected::SUBJECT.to_owned(),
            stream: "EVENTS".to_owned(),
            durable: Some("quests_selected".to_owned()),
            max_deliveries: 3,
            backoff: vec![Duration::from_millis(20)],
            timeout: DEADLINE,
            ack_wait: DEADLINE,
            ordered: false,
        };
        nats.consumer(&consumer).await;
        let settings = Settings::for_service("quest-system", nats.connection());
        let quests = Fleet::connect(Settings { consumers: vec![consumer], ..settings }).await.unwrap();
        let models = nats.fleet("model-management").await;
        let bucket = models.bucket("models").await.unwrap();
        let texts = nats.fleet("ai-integration").await;
        let server = LlmServer(Texts(texts.client()));
        let (running, shutdown) = Shutdown::new();
        let (until_dropped, handling_until_dropped) = (shutdown.clone(), shutdown.clone());
        let mut tasks = vec![
            tokio::spawn(async move {
                let service = sdk::service(|_| std::future::ready(Ok(Quests))).on::<Selected>();
                service.work(quests, handling_until_dropped).await.unwrap();
            }),
            tokio::spawn(async move {
                let server = ModelManagementServer(Models(models.clone(), bucket));
                sdk::serve(&models, server, until_dropped).await.unwrap();
            }),
            tokio::spawn(async move { sdk::serve(&texts, server, shutdown).await.unwrap() }),
        ];
        let ready = async { while !(nats.ping("model-management").await && nats.ping("ai-integration").await) {} };
        timeout(DEADLINE, ready).await.expect("the services serve in time");
        let fleet = nats.fleet("gateway").await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::connect(listener.local_addr().unwrap()).await;
        let gateway = Arc::new(Gateway::new(fleet, &all_methods(), Limits::default(), Metrics::default()).unwrap());
        tasks.push(tokio::spawn(async move {
            gateway::serve(listener, gateway, std::future::pending()).await.unwrap();
        }));
        // What was sent to make it ready is in no trace.
        let settings = Settings::for_service("gateway", nats.connection());
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url.as_str()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ];
        start_tracing(&settings, &variables);
        Some(Self { nats, receiver, client, tasks, _running: running })
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Each span and the one that caused it.
#[track_caller]
fn check_parents(spans: &BTreeMap<String, Value>, expected: &[(&str, &str)]) {
    for (span, parent) in expected {
        let found = |name: &str| spans.get(name).unwrap_or_else(|| panic!("no `{name}` in {:#?}", spans.keys()));
        let parent_id =
            if let Some(id) = parent.strip_prefix("id ") { id } else { found(parent)["span_id"].as_str().unwrap() };
        assert_eq!(found(span)["parent_id"], parent_id, "parent of `{span}`");
    }
    assert_eq!(spans.len(), expected.len());
}

#[tokio::test]
async fn a_trace_goes_from_the_client_through_gateway_services_and_event_to_the_consumer() {
    let Some(mut system) = System::start().await else { return };
    let headers = format!("content-type: application/json\r\nuser-agent: test/1\r\ntraceparent: {OUTSIDE}\r\n");
    let answer = system.client.post_with(INFER, &headers, r#"{"prompt": "hello"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");

    let spans = system.receiver.spans(8).await;
    check_parents(
        &spans,
        &[
            ("POST /api/ai/llm/v1/infer SERVER", "id 00f067aa0ba902b7"),
            ("ai.llm.v1.Llm/Infer CLIENT", "POST /api/ai/llm/v1/infer SERVER"),
            ("ai.llm.v1.Llm/Infer SERVER", "ai.llm.v1.Llm/Infer CLIENT"),
            ("ai.model.v1.ModelManagement/Select CLIENT", "ai.llm.v1.Llm/Infer SERVER"),
            ("ai.model.v1.ModelManagement/Select SERVER", "ai.model.v1.ModelManagement/Select CLIENT"),
            ("put models CLIENT", "ai.model.v1.ModelManagement/Select SERVER"),
            ("publish evt.ai.model.selected.v1 PRODUCER", "ai.model.v1.ModelManagement/Select SERVER"),
            ("process evt.ai.model.selected.v1 CONSUMER", "publish evt.ai.model.selected.v1 PRODUCER"),
        ],
    );
    for (name, span) in &spans {
        assert_eq!(span["trace_id"], &OUTSIDE[3..35], "{name}");
        assert_eq!(span["status"], "STATUS_CODE_UNSET", "{name}");
        assert!(span["nanoseconds"].as_u64().is_some_and(|time| time < 20_000_000_000), "{name}: {span}");
        assert_eq!((span["key"].as_str(), span["scope"].as_str()), (Some("a b"), Some("sdk")));
        assert_eq!(span["resource"]["service.name"], "gateway");
        assert_eq!(span["resource"]["deployment.environment.name"], "test");
    }
    let http = &spans["POST /api/ai/llm/v1/infer SERVER"];
    assert_eq!(answer.header("traceresponse"), format!("{}{}-01", &OUTSIDE[..36], http["span_id"].as_str().unwrap()));
    let attributes = |name: &str| spans[name]["attributes"].clone();
    let http = attributes("POST /api/ai/llm/v1/infer SERVER");
    assert_eq!(http["http.request.method"], "POST");
    assert_eq!(http["http.route"], "/api/ai/llm/v1/infer");
    assert_eq!(http["http.response.status_code"], 200);
    assert_eq!(http["user_agent.original"], "test/1");
    let call = attributes("ai.llm.v1.Llm/Infer CLIENT");
    assert_eq!((&call["rpc.system.name"], &call["messaging.system"]), (&"nats".into(), &"nats".into()));
    assert_eq!(call["messaging.destination.name"], "svc.ai.llm.v1.infer");
    assert_eq!(call["rpc.response.status_code"], "OK");
    let event = attributes("publish evt.ai.model.selected.v1 PRODUCER");
    assert_eq!(event["messaging.operation.type"], "send");
    assert!(event["messaging.message.id"].as_str().is_some_and(|id| !id.is_empty()));
    let handled = attributes("process evt.ai.model.selected.v1 CONSUMER");
    assert_eq!(
        (&handled["messaging.consumer.group.name"], &handled["messaging.nats.attempt"]),
        (&"quests_selected".into(), &1.into())
    );
    assert_eq!(attributes("put models CLIENT")["db.collection.name"], "models");
}

#[tokio::test]
async fn an_error_is_on_each_span_that_it_passed() {
    let Some(mut system) = System::start().await else { return };
    let answer = system.client.post(INFER, r#"{"prompt": "get"}"#).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    // The call is idempotent, but such an error is not worth a repetition.
    let spans = system.receiver.spans(5).await;
    for (name, span) in &spans {
        assert_eq!(span["status"], "STATUS_CODE_ERROR", "{name}");
    }
    let called = &spans["ai.model.v1.ModelManagement/Get CLIENT"];
    assert_eq!(
        (&called["message"], &called["attributes"]["error.type"]),
        (&"the catalog is broken".into(), &"INTERNAL".into())
    );
    assert_eq!(spans["POST /api/ai/llm/v1/infer SERVER"]["attributes"]["error.type"], "500");
    assert_eq!(spans["POST /api/ai/llm/v1/infer SERVER"]["parent_id"], "");
}

#[tokio::test]
async fn the_spans_of_a_stream_end_with_it() {
    let Some(mut system) = System::start().await else { return };
    let answer = system.client.post(INFER_STREAM, r#"{"prompt": "go"}"#).await;
    assert!(answer.body.ends_with("event: done\ndata: {}\n\n"), "{answer:?}");
    let spans = system.receiver.spans(3).await;
    check_parents(
        &spans,
        &[
            ("POST /api/ai/llm/v1/infer_stream SERVER", "id "),
            ("ai.llm.v1.Llm/InferStream CLIENT", "POST /api/ai/llm/v1/infer_stream SERVER"),
            ("ai.llm.v1.Llm/InferStream SERVER", "ai.llm.v1.Llm/InferStream CLIENT"),
        ],
    );
    assert!(spans.values().all(|span| span["status"] == "STATUS_CODE_UNSET"), "{spans:#?}");

    let answer = system.client.post(INFER_STREAM, r#"{"prompt": "fail"}"#).await;
    assert!(answer.body.contains("event: error\n"), "{answer:?}");
    let spans = system.receiver.spans(3).await;
    assert!(spans.values().all(|span| span["message"] == "in the middle"), "{spans:#?}");
}

#[tokio::test]
async fn a_trace_that_its_client_does_not_record_is_not_recorded_here() {
    let Some(mut system) = System::start().await else { return };
    let headers = format!("content-type: application/json\r\ntraceparent: {}00\r\n", &OUTSIDE[..53]);
    let answer = system.client.post_with(INFER, &headers, r#"{"prompt": "hello"}"#).await;
    assert_eq!((answer.status, answer.headers.get("traceresponse")), (200, None));
    let event = system.nats.stored("EVENTS").await.remove(0);
    assert_eq!(event.headers.get("traceparent").map(|sent| (&sent[..36], &sent[53..])), Some((&OUTSIDE[..36], "00")));
    // What is recorded comes after it, and is all that comes.
    let answer = system.client.post("/api/nowhere", "{}").await;
    assert_eq!(answer.status, 404);
    let spans = system.receiver.spans(1).await;
    assert_eq!(spans.keys().collect::<Vec<_>>(), ["POST SERVER"]);
    stop_tracing(DEADLINE).await;
}

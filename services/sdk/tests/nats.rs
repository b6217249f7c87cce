//! The SDK against a real nats-server.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use proto::ai::llm::v1::{
    FinishReason, InferRequest, InferResponse, InferStreamRequest, InferStreamResponse, Llm, LlmClient, LlmServer,
};
use proto::ai::model::v1::{
    GetRequest, GetResponse, ListRequest, ListResponse, ModelManagement, ModelManagementClient, ModelManagementServer,
    RegisterRequest, RegisterResponse, RetireRequest, RetireResponse, SelectRequest, SelectResponse, Selected,
};
use sdk::testing::{NatsServer, User, as_request};
use sdk::{
    Change, Code, ConnectionSettings, Context, Error, Event as _, ExternalRequest, Fleet, Material, Server, Settings,
    Shutdown, Stream, WriteError, reason,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// A service whose behaviour is chosen by the prompt.
#[derive(Clone, Default)]
struct Fake {
    calls: Arc<AtomicUsize>,
    release: Arc<Notify>,
    dropped: Arc<AtomicUsize>,
}

impl Llm for Fake {
    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Error> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match request.prompt.as_str() {
            "panic" => panic!("as requested"),
            "never" => pending().await,
            "wait" => self.release.notified().await,
            "large" => {
                return Ok(InferResponse { text: "x".repeat(2 << 20), ..InferResponse::default() });
            }
            "passes on" => return Err(Error::unavailable("model-management").with_detail(reason::KEY, reason::TIMEOUT)),
            "refuse" => return Err(Error::new(Code::Aborted, "no").with_detail("current_revision", 7)),
            _ => {}
        }
        let context = sdk::context();
        let text = format!("{} {} {:?}", context.request_id(), context.trace_id(), context.idempotency_key());
        Ok(InferResponse { text, ..InferResponse::default() })
    }

    async fn infer_stream(&self, request: InferStreamRequest) -> Result<Stream<InferStreamResponse>, Error> {
        struct Guard(Arc<AtomicUsize>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let guard = Guard(Arc::clone(&self.dropped));
        let produced = Arc::clone(&self.calls);
        let prompt = request.prompt;
        let count = if prompt == "endless" { usize::MAX } else { 200 };
        let stream = futures::stream::iter(0..count).then(move |number| {
            let _held = &guard;
            produced.fetch_add(1, Ordering::SeqCst);
            let fails = prompt == "fails" && number == 100;
            async move {
                match fails {
                    true => Err(Error::internal("in the middle")),
                    false => Ok(InferStreamResponse {
                        text: number.to_string(),
                        finish_reason: FinishReason::End.into(),
                        ..Default::default()
                    }),
                }
            }
        });
        Ok(stream.boxed())
    }
}

/// `list` is idempotent: it fails `failures` times, and then succeeds.
#[derive(Clone, Default)]
struct Flaky {
    failures: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl ModelManagement for Flaky {
    async fn list(&self, _: ListRequest) -> Result<ListResponse, Error> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let fails = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if fails { Err(Error::unavailable("not yet")) } else { Ok(ListResponse::default()) }
    }
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        Err(Error::not_found(format_args!("model `{}`", request.id)))
    }
    async fn select(&self, _: SelectRequest) -> Result<SelectResponse, Error> {
        Err(Error::invalid("unused"))
    }
    async fn register(&self, _: RegisterRequest) -> Result<RegisterResponse, Error> {
        Err(Error::invalid("unused"))
    }
    async fn retire(&self, _: RetireRequest) -> Result<RetireResponse, Error> {
        Err(Error::invalid("unused"))
    }
}

struct Serving {
    trigger: watch::Sender<bool>,
    task: JoinHandle<Result<(), Error>>,
}

async fn serve<S: Server>(settings: Settings, server: S) -> Serving {
    let (trigger, shutdown) = Shutdown::new();
    let fleet = Fleet::connect(settings.clone()).await.unwrap();
    let task = tokio::spawn(async move { sdk::serve(&fleet, server, shutdown).await });
    // The service is ready when discovery answers.
    let observer = plain(&settings.connection).await;
    let ping = format!("$SRV.PING.{}", settings.service);
    timeout(SOON, async { while observer.request(ping.clone(), Bytes::new()).await.is_err() {} }).await.unwrap();
    Serving { trigger, task }
}

async fn plain(connection: &ConnectionSettings) -> async_nats::Client {
    async_nats::connect(connection.urls.as_slice()).await.unwrap()
}

async fn caller(server: &NatsServer) -> Fleet {
    server.fleet("caller").await
}

async fn llm(server: &NatsServer, fake: &Fake) -> (Serving, LlmClient) {
    let serving = serve(Settings::for_service("llm", server.connection()), LlmServer(fake.clone())).await;
    (serving, caller(server).await.client())
}

fn prompt(text: &str) -> InferRequest {
    InferRequest { prompt: text.into(), ..InferRequest::default() }
}

fn within(milliseconds: u64) -> Context {
    Context::external(ExternalRequest {
        traceparent: None,
        request_id: None,
        idempotency_key: None,
        timeout: Duration::from_millis(milliseconds),
    })
}

fn reason_of(error: &Error) -> &str {
    error.detail(reason::KEY).unwrap_or_default()
}

#[tokio::test]
async fn request_metadata_flows_from_caller_to_callee() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let context = Context::external(ExternalRequest {
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        request_id: Some("r1"),
        idempotency_key: Some("k1"),
        timeout: SOON,
    });
    let response = context.scope(client.infer(prompt(""))).await.unwrap();
    assert_eq!(response.text, "r1 4bf92f3577b34da6a3ce929d0e0e4736 Some(\"k1\")");
}

#[tokio::test]
async fn errors_carry_code_and_details_in_the_response_and_in_the_headers() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let error = client.infer(prompt("refuse")).await.unwrap_err();
    assert_eq!((error.code(), error.detail("current_revision")), (Code::Aborted, Some("7")));

    let other = plain(&server.connection()).await;
    let answer = other.request("svc.ai.llm.v1.bogus", Bytes::new()).await.unwrap();
    assert_eq!(answer.headers.unwrap().get("Nats-Service-Error-Code").unwrap().as_str(), "501");
}

#[tokio::test]
async fn only_the_error_of_a_stream_has_the_end_of_a_stream() {
    let server = NatsServer::start();
    let (_serving, _client) = llm(&server, &Fake::default()).await;
    let other = plain(&server.connection()).await;
    let not_a_message = Bytes::from_static(&[0xff]);
    for (method, end) in [("infer", None), ("bogus", None), ("infer_stream", Some("error"))] {
        let answer = other.request(format!("svc.ai.llm.v1.{method}"), not_a_message.clone()).await.unwrap();
        let headers = answer.headers.unwrap();
        assert!(headers.get("Nats-Service-Error").is_some(), "{method}");
        assert_eq!(headers.get("Stream-End").map(async_nats::HeaderValue::as_str), end, "{method}");
    }
}

#[tokio::test]
async fn a_payload_that_is_not_a_message_is_refused() {
    let server = NatsServer::start();
    let (_serving, _client) = llm(&server, &Fake::default()).await;
    let answer = plain(&server.connection())
        .await
        .request("svc.ai.llm.v1.infer", Bytes::from_static(b"\xff\xff\xff"))
        .await
        .unwrap();
    let response: InferResponse = sdk_decode(answer.payload);
    assert_eq!(response.error.unwrap().code(), Code::InvalidArgument);
}

fn sdk_decode<M: prost::Message + Default>(payload: Bytes) -> M {
    M::decode(payload).unwrap()
}

#[tokio::test]
async fn a_panic_is_one_failed_request() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let error = client.infer(prompt("panic")).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().contains("as requested"), "{error}");
    client.infer(prompt("")).await.unwrap();
}

#[tokio::test]
async fn a_response_too_large_for_nats_is_an_error_and_not_a_lost_connection() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    assert_eq!(client.infer(prompt("large")).await.unwrap_err().code(), Code::Internal);
    assert_eq!(client.infer(prompt(&"x".repeat(2 << 20))).await.unwrap_err().code(), Code::InvalidArgument);
    client.infer(prompt("")).await.unwrap();
}

#[tokio::test]
async fn the_deadline_ends_the_call_on_both_sides() {
    let server = NatsServer::start();
    let fake = Fake::default();
    let (_serving, client) = llm(&server, &fake).await;
    let error = within(100).scope(client.infer(prompt("never"))).await.unwrap_err();
    assert_eq!((error.code(), reason_of(&error)), (Code::Unavailable, reason::TIMEOUT));
    // A request that was queued past its deadline is not started.
    client.infer(prompt("")).await.unwrap();
    assert_eq!(fake.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_call_without_responders_fails_at_once() {
    let server = NatsServer::start();
    let client: LlmClient = caller(&server).await.client();
    let error = timeout(Duration::from_secs(3), client.infer(prompt(""))).await.unwrap().unwrap_err();
    assert_eq!((error.code(), reason_of(&error)), (Code::Unavailable, reason::NO_RESPONDERS));
}

#[tokio::test]
async fn a_full_queue_refuses_and_the_rest_is_answered() {
    let server = NatsServer::start();
    let fake = Fake::default();
    let settings = Settings { concurrency: 2, queue: 3, ..Settings::for_service("llm", server.connection()) };
    let _serving = serve(settings, LlmServer(fake.clone())).await;
    let client: LlmClient = caller(&server).await.client();
    let mut calls: futures::stream::FuturesUnordered<_> = (0..8).map(|_| client.infer(prompt("wait"))).collect();
    for _ in 0..3 {
        let error = calls.next().await.unwrap().unwrap_err();
        assert_eq!((error.code(), reason_of(&error)), (Code::ResourceExhausted, reason::OVERLOADED));
    }
    let mut answered = 0;
    while answered < 5 {
        fake.release.notify_one();
        if let Ok(Some(answer)) = timeout(Duration::from_millis(20), calls.next()).await {
            answer.unwrap();
            answered += 1;
        }
    }
}

#[tokio::test]
async fn only_transient_failures_of_idempotent_calls_are_retried() {
    let server = NatsServer::start();
    let flaky = Flaky::default();
    let _serving =
        serve(Settings::for_service("models", server.connection()), ModelManagementServer(flaky.clone())).await;
    let client: ModelManagementClient = caller(&server).await.client();

    flaky.failures.store(2, Ordering::SeqCst);
    client.list(ListRequest::default()).await.unwrap();
    assert_eq!(flaky.calls.load(Ordering::SeqCst), 3);

    flaky.failures.store(3, Ordering::SeqCst);
    client.list(ListRequest::default()).await.unwrap_err();
    assert_eq!(flaky.calls.load(Ordering::SeqCst), 6);

    assert_eq!(
        client.get(GetRequest { id: "m".into(), ..Default::default() }).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn the_circuit_opens_after_five_failures_in_a_row() {
    let server = NatsServer::start();
    let client: LlmClient = caller(&server).await.client();
    for _ in 0..5 {
        assert_eq!(reason_of(&client.infer(prompt("")).await.unwrap_err()), reason::NO_RESPONDERS);
    }
    let error = client.infer(prompt("")).await.unwrap_err();
    assert_eq!(reason_of(&error), reason::CIRCUIT_OPEN);
    let wait: u64 = error.detail(reason::RETRY_AFTER_MS).unwrap().parse().unwrap();
    assert!(wait <= 100, "{wait}");
}

#[tokio::test]
async fn a_destination_that_is_back_is_called_again_at_once() {
    let server = NatsServer::start();
    let client: LlmClient = caller(&server).await.client();
    while reason_of(&client.infer(prompt("")).await.unwrap_err()) != reason::CIRCUIT_OPEN {}
    let _serving = serve(Settings::for_service("llm", server.connection()), LlmServer(Fake::default())).await;
    timeout(Duration::from_secs(10), async {
        while client.infer(prompt("")).await.is_err() {
            tokio::task::yield_now().await;
        }
        client.infer(prompt("")).await.unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn failures_behind_a_service_do_not_open_its_circuit() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    for _ in 0..10 {
        let error = client.infer(prompt("passes on")).await.unwrap_err();
        assert_eq!((reason_of(&error), error.detail(reason::CAUSE)), ("", Some(reason::TIMEOUT)));
    }
    client.infer(prompt("")).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_finishes_accepted_requests_and_loses_none() {
    let server = NatsServer::start();
    let mut current = serve(Settings::for_service("llm", server.connection()), LlmServer(Fake::default())).await;
    let (stopped, until) = watch::channel(false);
    let connection = server.connection();
    // On a separate thread: the load must continue while the worker's thread is blocked.
    let load = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client: LlmClient = Fleet::connect(Settings::for_service("caller", connection)).await.unwrap().client();
            let calls = (0..16).map(|_| async {
                let mut answered = 0;
                while !*until.borrow() {
                    client.infer(prompt("")).await.unwrap();
                    answered += 1;
                }
                answered
            });
            futures::future::join_all(calls).await.into_iter().sum::<usize>()
        })
    });
    // Tasks are replaced one after another under load, as in a rolling deployment.
    for task in 2..22 {
        let settings = Settings { task: task.to_string(), ..Settings::for_service("llm", server.connection()) };
        let next = serve(settings, LlmServer(Fake::default())).await;
        current.trigger.send_replace(true);
        timeout(SOON, current.task).await.unwrap().unwrap().unwrap();
        current = next;
    }
    stopped.send_replace(true);
    // Not on this thread, on which the last worker is still serving.
    let answered = tokio::task::spawn_blocking(move || load.join().unwrap()).await.unwrap();
    assert!(answered > 0);
}

#[tokio::test]
async fn a_shutdown_waits_for_running_requests() {
    let server = NatsServer::start();
    let fake = Fake::default();
    let (serving, client) = llm(&server, &fake).await;
    let call = tokio::spawn(async move { client.infer(prompt("wait")).await });
    timeout(SOON, async {
        while fake.calls.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    serving.trigger.send_replace(true);
    fake.release.notify_one();
    call.await.unwrap().unwrap();
    timeout(SOON, serving.task).await.unwrap().unwrap().unwrap();
}

async fn collect(client: &LlmClient, text: &str) -> Vec<Result<String, Error>> {
    let request = InferStreamRequest { prompt: text.into(), ..Default::default() };
    let stream = client.infer_stream(request).await.unwrap();
    stream.map(|item| item.map(|message| message.text)).collect().await
}

#[tokio::test]
async fn a_stream_arrives_whole_and_in_order() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let texts: Vec<String> = collect(&client, "").await.into_iter().map(Result::unwrap).collect();
    assert_eq!(texts, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_that_fails_ends_with_its_error() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let items = collect(&client, "fails").await;
    assert_eq!(items.len(), 101);
    assert_eq!(items[100].as_ref().unwrap_err().code(), Code::Internal);
}

#[tokio::test]
async fn a_slow_reader_throttles_the_worker_and_a_dropped_reader_stops_it() {
    let server = NatsServer::start();
    let fake = Fake::default();
    let (_serving, client) = llm(&server, &fake).await;
    let request = InferStreamRequest { prompt: "endless".into(), ..Default::default() };
    let mut stream = client.infer_stream(request).await.unwrap();
    // Anything produced beyond the credit would have arrived before this response.
    stream.next().await.unwrap().unwrap();
    client.infer(prompt("")).await.unwrap();
    assert!(fake.calls.load(Ordering::SeqCst) <= 64 + 2);
    drop(stream);
    timeout(SOON, async {
        while fake.dropped.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stream_whose_worker_dies_is_an_error() {
    let server = NatsServer::start();
    let fake = Fake::default();
    // A separate runtime for the worker, so that it can be killed in the middle.
    let worker = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (settings, served) = (Settings::for_service("llm", server.connection()), fake.clone());
    worker.spawn(async move { serve(settings, LlmServer(served)).await.task.await });
    let fleet = caller(&server).await;
    let client: LlmClient = fleet.client();
    let request = InferStreamRequest { prompt: "endless".into(), ..Default::default() };
    let mut stream = loop {
        if let Ok(stream) = client.infer_stream(request.clone()).await {
            break stream;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    stream.next().await.unwrap().unwrap();
    worker.shutdown_background();
    let last = timeout(SOON, async {
        let mut last = None;
        while let Some(item) = stream.next().await {
            last = Some(item);
        }
        last
    });
    assert_eq!(last.await.unwrap().unwrap().unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_client_without_credit_gets_the_whole_stream_with_its_end_marker() {
    let server = NatsServer::start();
    let (_serving, _client) = llm(&server, &Fake::default()).await;
    let other = plain(&server.connection()).await;
    let inbox = other.new_inbox();
    let mut messages = other.subscribe(inbox.clone()).await.unwrap();
    other.publish_with_reply("svc.ai.llm.v1.infer_stream", inbox, Bytes::new()).await.unwrap();
    let mut count = 0;
    loop {
        let message = timeout(SOON, messages.next()).await.unwrap().unwrap();
        let headers = message.headers.unwrap();
        assert_eq!(headers.get("Stream-Seq").unwrap().as_str(), count.to_string());
        if let Some(end) = headers.get("Stream-End") {
            assert_eq!((end.as_str(), count), ("ok", 200));
            break;
        }
        count += 1;
    }
}

#[tokio::test]
async fn an_event_with_the_same_id_is_stored_once() {
    let server = NatsServer::start();
    server.stream("EVENTS", &[Selected::SUBJECT]).await;
    let fleet = caller(&server).await;
    let event = |model: &str| Selected { model_id: model.into(), ..Selected::default() };
    as_request(Some("k1"), async {
        fleet.publish(event("a")).await.unwrap();
        fleet.publish(event("b")).await.unwrap();
    })
    .await;
    // A retry of the same operation: its meta differs, but is not part of the event's content.
    as_request(Some("k1"), fleet.publish(event("a"))).await.unwrap();
    as_request(Some("k2"), fleet.publish(event("a"))).await.unwrap();
    fleet.publish_as("own", event("a")).await.unwrap();
    fleet.publish_as("own", event("b")).await.unwrap();

    let stored = server.stored("EVENTS").await;
    let ids: Vec<_> = stored.iter().map(|stored| stored.id.as_deref().unwrap()).collect();
    let subject = "evt.ai.model.selected.v1";
    // Literal, because tasks of two versions must give the same event the same id.
    let published = [
        format!("k1/{subject}/b048e13fe45347c9"),
        format!("k1/{subject}/9ea81a4918d8829a"),
        format!("k2/{subject}/b048e13fe45347c9"),
        "own".to_owned(),
    ];
    assert_eq!(ids, published);
    let first: Selected = sdk_decode(stored[0].payload.clone());
    assert_eq!((stored[0].subject.as_str(), first.model_id.as_str()), (subject, "a"));
    let meta = first.meta.unwrap();
    assert!(!meta.request_id.is_empty());
    assert_eq!(meta.idempotency_key, "k1");
}

#[tokio::test]
async fn an_event_that_no_stream_takes_is_an_error() {
    let server = NatsServer::start();
    let fleet = caller(&server).await;
    let error = within(500).scope(fleet.publish(Selected::default())).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("evt.ai.model.selected.v1"), "{error}");
}

#[tokio::test]
async fn state_is_written_by_compare_and_set() {
    let server = NatsServer::start();
    server.bucket("things", 5).await;
    let bucket = caller(&server).await.bucket("things").await.unwrap();

    assert_eq!(bucket.get("a.1").await.unwrap(), None);
    let first = bucket.create("a.1", "one".into()).await.unwrap();
    assert_eq!(bucket.create("a.1", "x".into()).await, Err(WriteError::Conflict));
    let second = bucket.update("a.1", "two".into(), first).await.unwrap();
    assert_eq!(bucket.update("a.1", "x".into(), first).await, Err(WriteError::Conflict));
    let entry = bucket.get("a.1").await.unwrap().unwrap();
    assert_eq!((entry.key.as_str(), &entry.value[..], entry.revision), ("a.1", &b"two"[..], second));

    bucket.put("a.2", "three".into()).await.unwrap();
    bucket.put("b.1", "four".into()).await.unwrap();
    let keys = |entries: Vec<sdk::Entry>| entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    assert_eq!(keys(bucket.entries("a.*").await.unwrap()), ["a.1", "a.2"]);
    let revisions: Vec<u64> = bucket.history("a.1").await.unwrap().iter().map(|entry| entry.revision).collect();
    assert_eq!(revisions, [second, first]);

    bucket.delete("a.1").await.unwrap();
    assert_eq!(bucket.get("a.1").await.unwrap(), None);
    assert_eq!(keys(bucket.entries("a.*").await.unwrap()), ["a.2"]);
    bucket.create("a.1", "again".into()).await.unwrap();
}

#[tokio::test]
async fn concurrent_changes_are_all_applied() {
    let server = NatsServer::start();
    server.bucket("things", 1).await;
    let bucket = caller(&server).await.bucket("things").await.unwrap();
    let add = || {
        bucket.change("list", |entry| {
            let more = entry.map_or(1, |entry| entry.value.len() + 1);
            Ok(Change::Write(vec![b'x'; more].into(), more))
        })
    };
    let mut counts: Vec<_> =
        futures::future::join_all((0..24).map(|_| add())).await.into_iter().map(Result::unwrap).collect();
    counts.sort_unstable();
    assert_eq!(counts.iter().map(|(count, _)| *count).collect::<Vec<_>>(), (1..=24).collect::<Vec<_>>());
    let (_, newest) = counts[23];

    assert_eq!(bucket.change("list", |_| Ok(Change::Keep("as it is"))).await, Ok(("as it is", newest)));
    assert_eq!(bucket.change("none", |entry| Ok(Change::Keep(entry.cloned()))).await, Ok((None, 0)));
    let refused = bucket.change::<()>("list", |_| Err(Error::invalid("no"))).await;
    assert_eq!(refused, Err(WriteError::Failed(Error::invalid("no"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_always_overtaken_is_a_conflict() {
    let server = NatsServer::start();
    server.bucket("things", 1).await;
    let bucket = caller(&server).await.bucket("things").await.unwrap();
    let overtake = || {
        let others = bucket.put("k", "theirs".into());
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(others)).unwrap();
        Ok(Change::Write("ours".into(), ()))
    };
    assert_eq!(bucket.change("k", |_| overtake()).await, Err(WriteError::Conflict));
    assert_eq!(bucket.get("k").await.unwrap().unwrap().value, "theirs");
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    let server = NatsServer::start();
    let error = caller(&server).await.bucket("nowhere").await.unwrap_err();
    assert!(error.message().contains("`nowhere`"), "{error}");
}

#[tokio::test]
async fn mutual_tls_and_permissions_are_enough_for_calls_and_streams() {
    let server = NatsServer::secured(&[
        User {
            name: "llm",
            publish: &["_INBOX_caller.>", "_INBOX.>", "svc.ai.llm.v1._"],
            subscribe: &["svc.ai.llm.v1.> svc-llm-workers", "_INBOX_llm.>", "_STREAM_llm.>", "$SRV.>"],
        },
        User {
            name: "caller",
            publish: &["svc.ai.llm.v1.*", "$SRV.>", "_STREAM_llm.>"],
            subscribe: &["_INBOX_caller.>"],
        },
    ]);
    let (trigger, shutdown) = Shutdown::new();
    let worker = Fleet::connect(Settings::for_service("llm", server.connection_as("llm"))).await.unwrap();
    let serving = tokio::spawn(async move { sdk::serve(&worker, LlmServer(Fake::default()), shutdown).await });
    let client: LlmClient =
        Fleet::connect(Settings::for_service("caller", server.connection_as("caller"))).await.unwrap().client();
    timeout(SOON, async { while client.infer(prompt("")).await.is_err() {} }).await.unwrap();
    assert_eq!(collect(&client, "").await.len(), 200);
    trigger.send_replace(true);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn certificates_and_keys_may_be_given_as_text() {
    let server = NatsServer::secured(&[User { name: "llm", publish: &[">"], subscribe: &[">"] }]);
    let text = |material: Material, variable: &'static str| {
        let text = std::fs::read_to_string(material.file().unwrap()).unwrap();
        Material::Text { variable, text: text.into() }
    };
    let connection = || {
        let mut connection = server.connection_as("llm");
        connection.ca = connection.ca.map(|ca| text(ca, "NATS_CA"));
        connection.client_certificate = connection
            .client_certificate
            .map(|(certificate, key)| (text(certificate, "NATS_CERT"), text(key, "NATS_KEY")));
        connection
    };
    let connect = async |connection: ConnectionSettings| Fleet::connect(Settings::for_service("llm", connection)).await;
    connect(connection()).await.unwrap();

    let swapped =
        ConnectionSettings { client_certificate: connection().client_certificate.map(|(a, b)| (b, a)), ..connection() };
    let error = connect(swapped).await.unwrap_err();
    assert!(error.message().contains("environment variable `NATS_KEY` holds no certificate in PEM"), "{error}");
    let credentials = Some(Material::Text { variable: "NATS_CREDS", text: "secret".into() });
    let error = connect(ConnectionSettings { credentials, user: None, ..connection() }).await.unwrap_err();
    assert!(error.message().contains("environment variable `NATS_CREDS` holds no NATS credentials"), "{error}");
}

#[tokio::test]
async fn clients_of_a_server_in_lame_duck_mode_move_without_a_failed_request() {
    let [leaving, staying] = NatsServer::pair();
    let connection = || ConnectionSettings {
        urls: [leaving.connection().urls, staying.connection().urls].concat(),
        ..ConnectionSettings::default()
    };
    let worker = Fleet::connect(Settings::for_service("llm", connection())).await.unwrap();
    let (trigger, shutdown) = Shutdown::new();
    let serving = tokio::spawn(async move { sdk::serve(&worker, LlmServer(Fake::default()), shutdown).await });
    // Clients pick a server at random; at least one must be connected to the one that stops.
    let mut clients: Vec<LlmClient> = Vec::new();
    while clients.is_empty() || leaving.client_count() == Some(0) {
        clients.push(Fleet::connect(Settings::for_service("caller", connection())).await.unwrap().client());
    }
    for client in &clients {
        timeout(SOON, async { while client.infer(prompt("")).await.is_err() {} }).await.unwrap();
    }
    let moved = async {
        leaving.lame_duck();
        while leaving.client_count().is_some_and(|clients| clients > 0) {
            for client in &clients {
                client.infer(prompt("")).await.unwrap();
            }
        }
    };
    timeout(SOON, moved).await.unwrap();
    drop(leaving);
    for client in &clients {
        client.infer(prompt("")).await.unwrap();
    }
    trigger.send_replace(true);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn rejected_credentials_are_reported_at_once() {
    let server = NatsServer::secured(&[User { name: "llm", publish: &[">"], subscribe: &[">"] }]);
    let error = timeout(SOON, Fleet::connect(Settings::for_service("x", server.connection_as("stranger"))))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn discovery_reports_version_revision_and_task() {
    let server = NatsServer::start();
    let settings = Settings {
        version: "1.2.3".into(),
        revision: "7".into(),
        task: "t1".into(),
        ..Settings::for_service("llm", server.connection())
    };
    let _serving = serve(settings, LlmServer(Fake::default())).await;
    let other = plain(&server.connection()).await;
    let ask = async |subject: &'static str| -> serde_json::Value {
        serde_json::from_slice(&other.request(subject, Bytes::new()).await.unwrap().payload).unwrap()
    };
    let ping = ask("$SRV.PING").await;
    assert_eq!(ping["type"], "io.nats.micro.v1.ping_response");
    assert_eq!(
        (&ping["version"], &ping["metadata"]["revision"], &ping["metadata"]["task"]),
        (&"1.2.3".into(), &"7".into(), &"t1".into())
    );
    other.request("svc.ai.llm.v1.infer", Bytes::new()).await.unwrap();
    let info = ask("$SRV.INFO.llm").await;
    assert_eq!(info["endpoints"][0]["subject"], "svc.ai.llm.v1.infer");
    assert_eq!(info["endpoints"][0]["queue_group"], "svc-llm-workers");
    assert_eq!(ask("$SRV.STATS.llm").await["endpoints"][0]["num_requests"], 1);

    let client: LlmClient = caller(&server).await.client();
    client.infer(prompt("refuse")).await.unwrap_err();
    assert_eq!(ask("$SRV.STATS.llm").await["endpoints"][0]["last_error"], "ABORTED: no");
}

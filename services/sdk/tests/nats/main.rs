//! The SDK against a real nats-server.

mod answers;
mod calls;
mod connections;
mod consuming;
mod dead_letters;
mod kills;
mod outbox;
mod records;
mod renewal;
mod shutdown;
mod storage;
mod streams;
mod traces;
mod updates;

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
use sdk::testing::{Account, NatsServer, User, as_request};
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
            "reuse" => {
                return Err(Error::failed_precondition("key").with_detail(reason::KEY, reason::IDEMPOTENCY_KEY_REUSED));
            }
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

async fn collect(client: &LlmClient, text: &str) -> Vec<Result<String, Error>> {
    let request = InferStreamRequest { prompt: text.into(), ..Default::default() };
    let stream = client.infer_stream(request).await.unwrap();
    stream.map(|item| item.map(|message| message.text)).collect().await
}

fn sdk_decode<M: prost::Message + Default>(payload: Bytes) -> M {
    M::decode(payload).unwrap()
}

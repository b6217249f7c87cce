//! A fake fleet made of closures, and a gateway in front of it.

use std::future::pending;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use gateway::{Gateway, Limits, Metrics, PublicMethods};
use prost::Message as _;
use proto::quest::v1::{GenerateRequest, GenerateResponse, QuestInfo};
use proto::rpc::{Error, Method, Stream, Transport};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::Client;

/// No test waits longer for an event.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

type Unary = dyn Fn(&'static Method, Bytes) -> BoxFuture<'static, Result<Bytes, Error>> + Send + Sync;
type Streaming = dyn Fn(&'static Method, Bytes) -> BoxFuture<'static, Result<Stream<Bytes>, Error>> + Send + Sync;

/// A fake transport. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fleet {
    unary: Arc<Unary>,
    streaming: Arc<Streaming>,
}

impl Transport for Fleet {
    fn unary<'a>(&'a self, method: &'static Method, request: Bytes) -> BoxFuture<'a, Result<Bytes, Error>> {
        (self.unary)(method, request)
    }

    fn streaming<'a>(&'a self, method: &'static Method, request: Bytes) -> BoxFuture<'a, Result<Stream<Bytes>, Error>> {
        (self.streaming)(method, request)
    }
}

impl Fleet {
    /// Never answers.
    pub(crate) fn silent() -> Self {
        Self { unary: Arc::new(|_, _| Box::pin(pending())), streaming: Arc::new(|_, _| Box::pin(pending())) }
    }

    /// Answers unary methods with `answer`.
    pub(crate) fn answering<F>(answer: impl Fn(Bytes) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Bytes, Error>> + Send + 'static,
    {
        let unary = Arc::new(move |_: &'static Method, request| -> BoxFuture<'static, _> { Box::pin(answer(request)) });
        Self { unary, ..Self::silent() }
    }

    /// Answers with a quest that contains fields of the request.
    pub(crate) fn quests() -> Self {
        Self::answering(|request| async move {
            let request: GenerateRequest = proto::rpc::decode(request)?;
            Ok(quest(&request).encode_to_vec().into())
        })
    }

    /// Answers streaming methods with `stream`.
    pub(crate) fn streaming(stream: impl Fn() -> Result<Stream<Bytes>, Error> + Send + Sync + 'static) -> Self {
        let streaming = Arc::new(move |_: &'static Method, _| -> BoxFuture<'static, _> {
            let stream = stream();
            Box::pin(async move { stream })
        });
        Self { streaming, ..Self::silent() }
    }

    pub(crate) fn behind_a_gateway(self) -> Running {
        self.behind(Limits::default())
    }

    /// Behind a gateway with this value of `GATEWAY_METHODS`.
    pub(crate) fn behind_a_gateway_to(self, methods: &str) -> Running {
        let gateway = Gateway::new(self, &public(methods), Limits::default(), Metrics::default()).unwrap();
        Running::serving(TcpListener::bind("127.0.0.1:0").unwrap(), gateway)
    }

    pub(crate) fn behind(self, limits: Limits) -> Running {
        Running::on(TcpListener::bind("127.0.0.1:0").unwrap(), self, limits)
    }
}

pub(crate) fn quest(request: &GenerateRequest) -> GenerateResponse {
    GenerateResponse {
        error: None,
        quest: Some(QuestInfo {
            player_id: request.player_id.clone(),
            level: request.level,
            title: "The \"lost\" cat".to_owned(),
            revision: 7,
            ..QuestInfo::default()
        }),
    }
}

/// The setting that makes every method of every contract public.
pub(crate) fn all_methods() -> PublicMethods {
    let methods = proto::SERVICES.iter().flat_map(|service| service.methods);
    public(&methods.map(|method| method.full_name).collect::<Vec<_>>().join(","))
}

/// The public methods with this value of `GATEWAY_METHODS`.
pub(crate) fn public(methods: &str) -> PublicMethods {
    PublicMethods::from_settings(|name| (name == "GATEWAY_METHODS").then(|| methods.to_owned())).unwrap()
}

/// A gateway that serves until it is stopped or dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Running {
    pub(crate) fn on(listener: TcpListener, fleet: Fleet, limits: Limits) -> Self {
        Self::serving(listener, Gateway::new(fleet, &all_methods(), limits, Metrics::default()).unwrap())
    }

    fn serving(listener: TcpListener, gateway: Gateway<Fleet>) -> Self {
        let (address, gateway) = (listener.local_addr().unwrap(), Arc::new(gateway));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async {
                // A dropped sender does not stop the gateway.
                if stopped.await.is_err() {
                    pending::<()>().await;
                }
            };
            gateway::serve(listener, gateway, stopped).await.unwrap();
        });
        Self { address, stop: Some(stop), serving }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Requests the shutdown.
    pub(crate) fn stop(&mut self) {
        self.stop.take().expect("stopped once").send(()).unwrap();
    }

    /// Waits until the shutdown has started: from then on the gateway accepts no connections.
    pub(crate) async fn refuses(&self) {
        let refused = async { while TcpStream::connect(self.address).await.is_ok() {} };
        timeout(DEADLINE, refused).await.expect("stops in time");
    }

    /// Waits until the gateway has ended.
    pub(crate) async fn ended(&mut self) {
        timeout(DEADLINE, &mut self.serving).await.expect("ends in time").unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

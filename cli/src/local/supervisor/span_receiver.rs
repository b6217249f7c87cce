//! Receives the spans of the tasks by OTLP over HTTP, on loopback and below a path that cannot be guessed, and finds
//! traces among them. It has a thread of its own: supervising must not wait for it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot};

use super::span_store::SpanStore;
use crate::local::protocol;
use crate::model::trace::TracePrefix;

/// What the spans may take, encoded: some fifty thousand of them.
const MAX_BYTES: usize = 16 << 20;
/// The largest request that is read.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// How long a span waits in its task for others, at most, so that a trace can be looked at soon.
const DELAY_MS: &str = "1000";

/// A handle to the receiver. It ends with the process.
pub(super) struct SpanReceiver {
    endpoint: String,
    questions: mpsc::UnboundedSender<(TracePrefix, oneshot::Sender<protocol::Response>)>,
}

impl SpanReceiver {
    /// # Errors
    /// No port or no thread can be had.
    pub(super) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let path = format!("/{:032x}/v1/traces", fastrand::u128(..));
        let endpoint = format!("http://{}{path}", listener.local_addr()?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (questions, asked) = mpsc::unbounded_channel();
        let work = move || {
            if let Err(error) = runtime.block_on(run(listener, path, asked)) {
                tracing::error!(%error, "spans are not received");
            }
        };
        thread::Builder::new().name("spans".to_owned()).spawn(work)?;
        Ok(Self { endpoint, questions })
    }

    /// Tells a task to send its spans here, unless its own variables say what to do with them.
    pub(super) fn configure(&self, env: &mut BTreeMap<String, String>) {
        let own = [
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_TRACES_EXPORTER",
            "OTEL_SDK_DISABLED",
        ];
        if own.iter().any(|name| env.contains_key(*name)) {
            return;
        }
        env.insert("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT".to_owned(), self.endpoint.clone());
        env.entry("OTEL_BSP_SCHEDULE_DELAY".to_owned()).or_insert_with(|| DELAY_MS.to_owned());
    }

    /// Finds traces, and answers when it has.
    pub(super) fn find(&self, prefix: TracePrefix, reply: oneshot::Sender<protocol::Response>) {
        // Without the thread the reply is dropped, and the client is told that nothing answers.
        let _ = self.questions.send((prefix, reply));
    }
}

async fn run(
    listener: TcpListener,
    path: String,
    mut asked: mpsc::UnboundedReceiver<(TracePrefix, oneshot::Sender<protocol::Response>)>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let store = Arc::new(Mutex::new(SpanStore::new(MAX_BYTES)));
    let path: Arc<str> = path.into();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (store, path) = (Arc::clone(&store), Arc::clone(&path));
                    let service = service_fn(move |request| {
                        let (store, path) = (Arc::clone(&store), Arc::clone(&path));
                        async move { Ok::<_, Infallible>(answer(request, &path, &store).await) }
                    });
                    tokio::spawn(async move {
                        if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
                            tracing::debug!(%error, "connection lost");
                        }
                    });
                }
                Err(error) => tracing::warn!(%error, "connection of an exporter not accepted"),
            },
            question = asked.recv() => {
                let Some((prefix, reply)) = question else { return Ok(()) };
                let found = store.lock().unwrap_or_else(PoisonError::into_inner).find(&prefix);
                // The client may have disconnected.
                let _ = reply.send(protocol::Response::Traces(Box::new(found)));
            }
        }
    }
}

async fn answer(request: Request<Incoming>, path: &str, store: &Mutex<SpanStore>) -> Response<Empty<Bytes>> {
    let status = if request.uri().path() != path {
        StatusCode::NOT_FOUND
    } else if request.method() != Method::POST {
        StatusCode::METHOD_NOT_ALLOWED
    } else {
        match Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect().await {
            Err(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Ok(body) => match store.lock().unwrap_or_else(PoisonError::into_inner).push(body.to_bytes()) {
                Ok(()) => StatusCode::OK,
                Err(_) => StatusCode::BAD_REQUEST,
            },
        }
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_exports_here_unless_its_variables_say_otherwise() {
        let receiver = SpanReceiver::start().unwrap();
        #[track_caller]
        fn check(receiver: &SpanReceiver, own: &[(&str, &str)], configured: bool) {
            let mut env: BTreeMap<_, _> =
                own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            receiver.configure(&mut env);
            assert_eq!(
                env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == Some(&receiver.endpoint),
                configured,
                "{own:?}"
            );
        }
        check(&receiver, &[], true);
        check(&receiver, &[("OTEL_TRACES_SAMPLER", "always_off")], true);
        check(&receiver, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")], false);
        check(&receiver, &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318")], false);
        check(&receiver, &[("OTEL_TRACES_EXPORTER", "none")], false);
        check(&receiver, &[("OTEL_SDK_DISABLED", "true")], false);
    }
}

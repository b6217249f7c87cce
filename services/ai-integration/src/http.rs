//! Models behind an HTTP endpoint with the OpenAI chat completions API. The API key is in no log and no error.

mod chat;
mod events;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyDataStream, BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use sdk::{Code, Error};
use tokio::time::timeout;

use crate::backend::{Completion, Ending, Generation, Piece};
use crate::job::Job;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout for the first byte of a response, and between two chunks of a stream. The deadline bounds the whole
/// request.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_RESPONSE_BYTES: usize = 4 << 20;
const MAX_ERROR_BYTES: usize = 64 << 10;
const MAX_ERROR_CHARS: usize = 300;

#[derive(Debug)]
pub(crate) struct Endpoint {
    name: String,
    url: Uri,
    /// Marked as sensitive, so that it is not logged by mistake.
    authorization: Option<HeaderValue>,
    /// The names of models on the endpoint, if they differ from their ids.
    model_names: BTreeMap<String, String>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Endpoint {
    /// `url` is the base URL before `/chat/completions`, for example `https://host/v1`.
    pub(crate) fn new(
        name: &str,
        url: &str,
        key: Option<String>,
        model_names: BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let url = completions_url(url).ok_or_else(|| {
            format!("backend `{name}` needs a URL like `https://host/v1`, without user, password and query")
        })?;
        let tls = tls_config(&url).map_err(|error| format!("backend `{name}`: {error}"))?;
        Self::with_tls(tls, name, url, key, model_names)
    }

    fn with_tls(
        tls: ClientConfig,
        name: &str,
        url: Uri,
        key: Option<String>,
        model_names: BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let authorization = key
            .map(|key| {
                let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                    .map_err(|_| format!("the `LLM_API_KEY` of backend `{name}` is not a valid HTTP header value"))?;
                value.set_sensitive(true);
                Ok::<_, String>(value)
            })
            .transpose()?;
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { name: name.to_owned(), url, authorization, model_names, client })
    }

    pub(crate) async fn complete(&self, model_id: &str, job: &Job) -> Result<Completion, Error> {
        let response = self.send(&chat::Request::unary(self.model_name(model_id), job)).await?;
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES)
            .collect()
            .await
            .map_err(|_| self.data_loss("closed the connection before the end of its response"))?;
        let response: chat::Response =
            serde_json::from_slice(&body.to_bytes()).map_err(|_| self.data_loss(chat::MALFORMED))?;
        let usage = response.usage.map(Into::into);
        let choice = response.choices.into_iter().next().ok_or_else(|| self.data_loss(chat::MALFORMED))?;
        Ok(Completion {
            ending: Ending {
                finish: choice.finish.reason().map_err(|withheld| self.failed_precondition(withheld))?,
                usage,
            },
            text: choice.message.content.unwrap_or_default(),
        })
    }

    pub(crate) async fn stream(self: &Arc<Self>, model_id: &str, job: &Job) -> Result<Generation, Error> {
        let response = self.send(&chat::Request::stream(self.model_name(model_id), job)).await?;
        let reader = StreamReader {
            endpoint: Arc::clone(self),
            body: response.into_body().into_data_stream(),
            events: events::EventParser::default(),
            pieces: VecDeque::new(),
            ending: Ending { finish: proto::ai::llm::v1::FinishReason::End, usage: None },
            ended: false,
        };
        let generation = stream::try_unfold(reader, |mut reader| async move {
            let piece = reader.next().await?;
            Ok(piece.map(|piece| (piece, reader)))
        });
        Ok(generation.boxed())
    }

    fn model_name<'a>(&'a self, id: &'a str) -> &'a str {
        self.model_names.get(id).map_or(id, String::as_str)
    }

    /// Sends a request and waits for the headers of a successful response.
    async fn send(&self, request: &chat::Request<'_>) -> Result<Response<Incoming>, Error> {
        let body = serde_json::to_vec(request).map_err(Error::internal)?;
        let mut request = Request::post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .body(Full::new(Bytes::from(body)))
            .map_err(Error::internal)?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let response = timeout(READ_TIMEOUT, self.client.request(request))
            .await
            .map_err(|_| self.unavailable("did not respond in time"))?
            .map_err(|error| {
                tracing::debug!(backend = self.name, ?error, "request failed");
                self.unavailable(if error.is_connect() { "cannot be reached" } else { "closed the connection" })
            })?;
        if response.status().is_success() { Ok(response) } else { Err(self.error_response(response).await) }
    }

    /// The error that an unsuccessful response means.
    async fn error_response(&self, response: Response<Incoming>) -> Error {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|seconds| seconds.trim().parse::<u64>().ok());
        let code = match status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Code::InvalidArgument
            }
            StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
            StatusCode::REQUEST_TIMEOUT => Code::Unavailable,
            status if status.is_server_error() => Code::Unavailable,
            // The API key, the URL or the model name is wrong: the configuration is at fault, not the request.
            _ => Code::FailedPrecondition,
        };
        let reader = Limited::new(response.into_body(), MAX_ERROR_BYTES).collect();
        let body = timeout(CONNECT_TIMEOUT, reader).await.ok().and_then(Result::ok);
        let message = body.and_then(|body| chat::error_message(&body.to_bytes()));
        let message = match message {
            Some(message) => {
                format!("backend `{}` responded with {}: {}", self.name, status.as_u16(), self.redacted(&message))
            }
            None => format!("backend `{}` responded with {}", self.name, status.as_u16()),
        };
        let error = Error::new(code, message).with_detail("http_status", status.as_u16());
        match retry_after {
            Some(seconds) => error.with_detail(sdk::reason::RETRY_AFTER_MS, seconds.saturating_mul(1000)),
            None => error,
        }
    }

    /// A message of the backend, shortened, and without the API key in case the message repeats it.
    fn redacted(&self, message: &str) -> String {
        let key = self.authorization.as_ref().and_then(|value| value.to_str().ok());
        let key = key.and_then(|value| value.strip_prefix("Bearer ")).filter(|key| !key.is_empty());
        let message = key.map_or_else(|| message.to_owned(), |key| message.replace(key, "***"));
        message.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(MAX_ERROR_CHARS).collect()
    }

    fn unavailable(&self, what: &str) -> Error {
        Error::unavailable(format_args!("backend `{}` {what}", self.name))
    }

    fn failed_precondition(&self, what: &str) -> Error {
        Error::failed_precondition(format_args!("backend `{}` {what}", self.name))
    }

    fn data_loss(&self, what: &str) -> Error {
        Error::new(Code::DataLoss, format!("backend `{}` {what}", self.name))
    }
}

fn completions_url(url: &str) -> Option<Uri> {
    let url = url.trim_end_matches('/');
    let uri: Uri = format!("{url}/chat/completions").parse().ok()?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = uri.query().is_none() && !uri.authority()?.as_str().contains('@') && !url.contains('#');
    (web && plain).then_some(uri)
}

fn tls_builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    // Not the default provider of the process, which another crate may have set.
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
}

/// The system's root certificates are read only for `https`: an image for endpoints without TLS may have none.
fn tls_config(url: &Uri) -> Result<ClientConfig, String> {
    let config = if url.scheme_str() == Some("https") {
        tls_builder().with_native_roots().map_err(|error| format!("no root certificates were found: {error}"))?
    } else {
        tls_builder().with_root_certificates(RootCertStore::empty())
    };
    Ok(config.with_no_client_auth())
}

/// Reads a streamed response.
struct StreamReader {
    endpoint: Arc<Endpoint>,
    body: BodyDataStream<Incoming>,
    events: events::EventParser,
    /// Pieces that were received, but not yet returned. An error follows the pieces that were received before it.
    pieces: VecDeque<Result<Piece, Error>>,
    /// The finish reason and the usage, as far as they were received.
    ending: Ending,
    ended: bool,
}

impl StreamReader {
    async fn next(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return piece.map(Some);
            }
            if self.ended {
                return Ok(None);
            }
            let data_loss = |what| self.endpoint.data_loss(what);
            let chunk = timeout(READ_TIMEOUT, self.body.next())
                .await
                .map_err(|_| data_loss("timed out in the middle of its stream"))?;
            let closed = chunk.is_none();
            let events = match chunk {
                Some(chunk) => {
                    let chunk = chunk.map_err(|_| data_loss(INTERRUPTED))?;
                    self.events.push(&chunk).ok_or_else(|| data_loss("sent a line that is too long"))?
                }
                // The last line may lack its line break.
                None => self.events.push(b"\n").unwrap_or_default(),
            };
            for event in events {
                if event == "[DONE]" {
                    self.end(Ok(Piece::End(self.ending)));
                } else if let Err(error) = self.handle_event(&event) {
                    self.end(Err(error));
                }
                if self.ended {
                    break;
                }
            }
            if closed && !self.ended {
                self.end(Err(self.endpoint.data_loss(INTERRUPTED)));
            }
        }
    }

    fn end(&mut self, last: Result<Piece, Error>) {
        self.pieces.push_back(last);
        self.ended = true;
    }

    fn handle_event(&mut self, event: &str) -> Result<(), Error> {
        let part: chat::StreamEvent =
            serde_json::from_str(event).map_err(|_| self.endpoint.data_loss(chat::MALFORMED))?;
        if let Some(error) = part.error {
            let message = chat::message_of(&error).unwrap_or_default();
            let message = format!("failed in the middle of its stream: {}", self.endpoint.redacted(message));
            return Err(self.endpoint.unavailable(&message));
        }
        if let Some(usage) = part.usage {
            self.ending.usage = Some(usage.into());
        }
        let Some(choice) = part.choices.into_iter().next() else {
            return Ok(());
        };
        if let Some(text) = choice.delta.content.filter(|text| !text.is_empty()) {
            self.pieces.push_back(Ok(Piece::Text(text)));
        }
        if choice.finish.is_set() {
            self.ending.finish =
                choice.finish.reason().map_err(|withheld| self.endpoint.failed_precondition(withheld))?;
        }
        Ok(())
    }
}

const INTERRUPTED: &str = "ended its stream early";

#[cfg(test)]
mod tests;

//! Models behind an HTTP endpoint that speaks OpenAI's chat completions. The key to it is shown nowhere.

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
/// For the first byte of an answer, and between two parts of a stream. The whole is bounded by the request's deadline.
const SILENCE: Duration = Duration::from_secs(60);
const MAX_ANSWER_BYTES: usize = 4 << 20;
const MAX_COMPLAINT_BYTES: usize = 64 << 10;
const MAX_COMPLAINT_CHARS: usize = 300;

#[derive(Debug)]
pub(crate) struct Endpoint {
    name: String,
    url: Uri,
    /// Marked as sensitive, so that it is not shown by mistake.
    authorization: Option<HeaderValue>,
    /// What models are called there, if it is not their id.
    model_names: BTreeMap<String, String>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Endpoint {
    /// `url` is what `/chat/completions` is put behind, for example `https://host/v1`.
    pub(crate) fn new(
        name: &str,
        url: &str,
        key: Option<String>,
        model_names: BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let url = completions(url).ok_or_else(|| {
            format!("backend `{name}` needs a URL like `https://host/v1`, without user, password and query")
        })?;
        let tls = trust(&url).map_err(|error| format!("backend `{name}`: {error}"))?;
        Self::over(tls, name, url, key, model_names)
    }

    fn over(
        tls: ClientConfig,
        name: &str,
        url: Uri,
        key: Option<String>,
        model_names: BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let authorization = key
            .map(|key| {
                let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                    .map_err(|_| format!("the `LLM_API_KEY` of backend `{name}` holds what no HTTP header can"))?;
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
        let answer = self.send(&chat::Request::whole(self.model_name(model_id), job)).await?;
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|_| self.lost("broke off in the middle of its answer"))?;
        let answer: chat::Answer = serde_json::from_slice(&body.to_bytes()).map_err(|_| self.lost(chat::MALFORMED))?;
        let usage = answer.usage.map(Into::into);
        let choice = answer.choices.into_iter().next().ok_or_else(|| self.lost(chat::MALFORMED))?;
        Ok(Completion {
            ending: Ending { finish: choice.end.finish().map_err(|withheld| self.refused(withheld))?, usage },
            text: choice.message.content.unwrap_or_default(),
        })
    }

    pub(crate) async fn stream(self: &Arc<Self>, model_id: &str, job: &Job) -> Result<Generation, Error> {
        let answer = self.send(&chat::Request::stream(self.model_name(model_id), job)).await?;
        let reading = Reading {
            endpoint: Arc::clone(self),
            body: answer.into_body().into_data_stream(),
            events: events::Events::default(),
            pieces: VecDeque::new(),
            ending: Ending { finish: proto::ai::llm::v1::FinishReason::End, usage: None },
            ended: false,
        };
        let generation = stream::try_unfold(reading, |mut reading| async move {
            let piece = reading.next().await?;
            Ok(piece.map(|piece| (piece, reading)))
        });
        Ok(generation.boxed())
    }

    fn model_name<'a>(&'a self, id: &'a str) -> &'a str {
        self.model_names.get(id).map_or(id, String::as_str)
    }

    /// Sends a request and waits for the head of a good answer.
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
        let answer = timeout(SILENCE, self.client.request(request))
            .await
            .map_err(|_| self.unavailable("does not answer"))?
            .map_err(|error| {
                tracing::debug!(backend = self.name, ?error, "no answer");
                self.unavailable(if error.is_connect() { "cannot be reached" } else { "broke off the connection" })
            })?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.complaint(answer).await) }
    }

    /// What an answer that is not a good one means.
    async fn complaint(&self, answer: Response<Incoming>) -> Error {
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|seconds| seconds.trim().parse::<u64>().ok());
        let code = match status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Code::InvalidArgument
            }
            StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
            StatusCode::REQUEST_TIMEOUT => Code::Unavailable,
            status if status.is_server_error() => Code::Unavailable,
            // The key, the URL or the model's name is wrong: the request is not at fault.
            _ => Code::FailedPrecondition,
        };
        let reading = Limited::new(answer.into_body(), MAX_COMPLAINT_BYTES).collect();
        let body = timeout(CONNECT_TIMEOUT, reading).await.ok().and_then(Result::ok);
        let said = body.and_then(|body| chat::complaint(&body.to_bytes()));
        let message = match said {
            Some(said) => format!("backend `{}` answered {}: {}", self.name, status.as_u16(), self.presentable(&said)),
            None => format!("backend `{}` answered {}", self.name, status.as_u16()),
        };
        let error = Error::new(code, message).with_detail("http_status", status.as_u16());
        match retry_after {
            Some(seconds) => error.with_detail(sdk::reason::RETRY_AFTER_MS, seconds.saturating_mul(1000)),
            None => error,
        }
    }

    /// What a backend said, without the key, which it may have repeated, and not too long.
    fn presentable(&self, said: &str) -> String {
        let key = self.authorization.as_ref().and_then(|value| value.to_str().ok());
        let key = key.and_then(|value| value.strip_prefix("Bearer ")).filter(|key| !key.is_empty());
        let said = key.map_or_else(|| said.to_owned(), |key| said.replace(key, "***"));
        said.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(MAX_COMPLAINT_CHARS).collect()
    }

    fn unavailable(&self, what: &str) -> Error {
        Error::unavailable(format_args!("backend `{}` {what}", self.name))
    }

    fn refused(&self, what: &str) -> Error {
        Error::failed_precondition(format_args!("backend `{}` {what}", self.name))
    }

    fn lost(&self, what: &str) -> Error {
        Error::new(Code::DataLoss, format!("backend `{}` {what}", self.name))
    }
}

fn completions(url: &str) -> Option<Uri> {
    let url = url.trim_end_matches('/');
    let uri: Uri = format!("{url}/chat/completions").parse().ok()?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = uri.query().is_none() && !uri.authority()?.as_str().contains('@') && !url.contains('#');
    (web && plain).then_some(uri)
}

fn tls() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    // Not the default of the process, which somebody else may have set.
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
}

/// Whom to trust. The machine's certificates are read only if they are needed: an image for endpoints without TLS may have none.
fn trust(url: &Uri) -> Result<ClientConfig, String> {
    let config = if url.scheme_str() == Some("https") {
        tls().with_native_roots().map_err(|error| format!("this machine trusts nobody: {error}"))?
    } else {
        tls().with_root_certificates(RootCertStore::empty())
    };
    Ok(config.with_no_client_auth())
}

/// A stream that is being read.
struct Reading {
    endpoint: Arc<Endpoint>,
    body: BodyDataStream<Incoming>,
    events: events::Events,
    /// Read, but not yet taken. An error comes after what was read before it.
    pieces: VecDeque<Result<Piece, Error>>,
    /// What has been said so far of the end.
    ending: Ending,
    ended: bool,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return piece.map(Some);
            }
            if self.ended {
                return Ok(None);
            }
            let lost = |what| self.endpoint.lost(what);
            let chunk = timeout(SILENCE, self.body.next())
                .await
                .map_err(|_| lost("fell silent in the middle of its answer"))?;
            let closed = chunk.is_none();
            let events = match chunk {
                Some(chunk) => {
                    let chunk = chunk.map_err(|_| lost(CUT))?;
                    self.events.push(&chunk).ok_or_else(|| lost("sent a line without an end"))?
                }
                // The last line may lack its end.
                None => self.events.push(b"\n").unwrap_or_default(),
            };
            for event in events {
                if event == "[DONE]" {
                    self.end(Ok(Piece::End(self.ending)));
                } else if let Err(error) = self.take(&event) {
                    self.end(Err(error));
                }
                if self.ended {
                    break;
                }
            }
            if closed && !self.ended {
                self.end(Err(self.endpoint.lost(CUT)));
            }
        }
    }

    fn end(&mut self, last: Result<Piece, Error>) {
        self.pieces.push_back(last);
        self.ended = true;
    }

    fn take(&mut self, event: &str) -> Result<(), Error> {
        let part: chat::Part = serde_json::from_str(event).map_err(|_| self.endpoint.lost(chat::MALFORMED))?;
        if let Some(error) = part.error {
            let said = chat::said(&error).unwrap_or_default();
            let said = format!("failed in the middle of its answer: {}", self.endpoint.presentable(said));
            return Err(self.endpoint.unavailable(&said));
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
        if choice.end.is_given() {
            self.ending.finish = choice.end.finish().map_err(|withheld| self.endpoint.refused(withheld))?;
        }
        Ok(())
    }
}

const CUT: &str = "broke off in the middle of its stream";

#[cfg(test)]
mod tests;

//! A client of the gateway: JSON over HTTP.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use proto::rpc::Method;
use serde_json::Value;
use tokio::time::timeout;

use crate::error::root_cause;
use crate::http::{self, Connector};
use crate::nats::call::CallError;

/// Largest answer that is read.
const LARGEST_ANSWER: usize = 8 << 20;

/// A gateway.
pub(crate) struct Gateway {
    client: Client<Connector, Full<Bytes>>,
    base: String,
}

impl Gateway {
    /// The gateway at an address, for example `http://127.0.0.1:8000`. It connects when it is first called.
    ///
    /// # Errors
    /// It is no address, or one with TLS and this natsctl was built without AWS.
    pub(crate) fn new(address: &str) -> anyhow::Result<Self> {
        let base = address.trim_end_matches('/').to_owned();
        http::refuse_others(&base, "a gateway", "http://127.0.0.1:8000")?;
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(http::connector()?), base })
    }

    /// Calls a public method that answers once.
    ///
    /// # Errors
    /// The gateway or the service refused it, or there was no answer within `limit`.
    pub(crate) async fn post(
        &self,
        method: &Method,
        request: &Value,
        traceparent: &str,
        limit: Duration,
    ) -> Result<Value, CallError> {
        let path = path(method);
        let failed = |reason: String| CallError::Failed(format!("POST {}{path}: {reason}", self.base));
        let request = Request::post(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .header("traceparent", traceparent)
            .body(Full::new(Bytes::from(request.to_string())))
            .map_err(|error| failed(error.to_string()))?;
        let answered = timeout(limit, async {
            let answer = self.client.request(request).await.map_err(|error| failed(root_cause(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
            let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
            Ok((status, body))
        });
        let (status, body) = match answered.await {
            Ok(answered) => answered?,
            Err(_) => return Err(failed(format!("no answer within {} s", limit.as_secs_f64()))),
        };
        match (status, serde_json::from_slice::<Value>(&body)) {
            (StatusCode::OK, Ok(answer)) => Ok(answer),
            // Problem details (RFC 9457): `detail` is the message.
            (_, Ok(mut problem)) if problem["code"].is_string() => {
                problem["message"] = problem["detail"].take();
                Err(CallError::refused(&problem))
            }
            _ => Err(failed(format!("{status}, which is no answer of a gateway"))),
        }
    }
}

/// Where the gateway serves a method: `/api/quest/v1/generate`.
pub(crate) fn path(method: &Method) -> String {
    format!("/api/{}/{}", method.package.replace('.', "/"), method.name)
}

//! One request to the collector (OTLP over HTTP), and what its answer means.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use otlp::ExportTraceServiceResponse;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::settings::Collector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest response that is read.
const MAX_RESPONSE_BYTES: usize = 64 << 10;

/// A collector of spans.
#[derive(Debug)]
pub(crate) struct CollectorClient {
    url: Uri,
    headers: HeaderMap,
    timeout: Duration,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why a request failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) retry: Retry,
}

/// Whether a request may succeed when it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    Never,
    /// Not before this time has passed, if the collector says so.
    After(Option<Duration>),
}

impl Failure {
    /// The time of its batch, or of the task, was over.
    pub(crate) fn timed_out() -> Self {
        Self { reason: "there was no time left".to_owned(), retry: Retry::Never }
    }
}

impl CollectorClient {
    /// # Errors
    /// A sentence, if the certificates cannot be read.
    pub(crate) fn new(collector: Collector) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(&collector)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { url: collector.url, headers: collector.headers, timeout: collector.timeout, client })
    }

    /// Where it listens, without its path, which may hold a key.
    pub(crate) fn address(&self) -> &str {
        self.url.authority().map_or("", |authority| authority.as_str())
    }

    /// Sends an encoded `ExportTraceServiceRequest` and returns how many of its spans the collector rejected.
    pub(crate) async fn send(&self, body: Bytes) -> Result<u64, Failure> {
        tokio::time::timeout(self.timeout, self.exchange(body)).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {} ms", self.timeout.as_millis());
            Err(Failure { reason, retry: Retry::After(None) })
        })
    }

    async fn exchange(&self, body: Bytes) -> Result<u64, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("natsctl-sdk/", env!("CARGO_PKG_VERSION"))));
        headers.extend(self.headers.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let response = self.client.request(request).await.map_err(|error| broken(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await;
        if head.status.is_success() {
            // The spans have arrived, whatever became of the answer.
            let answer = body.ok().and_then(|body| ExportTraceServiceResponse::decode(body.to_bytes()).ok());
            let rejected = answer.and_then(|answer| answer.partial_success).map_or(0, |partial| partial.rejected_spans);
            return Ok(u64::try_from(rejected).unwrap_or(0));
        }
        Err(refused(head.status, &head.headers))
    }
}

fn broken(error: &hyper_util::client::legacy::Error) -> Failure {
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let reason = cause.to_string();
    Failure { reason, retry: Retry::After(None) }
}

/// What OTLP says about the status codes of failures.
fn refused(status: StatusCode, headers: &HeaderMap) -> Failure {
    let retry = match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Retry::After(retry_after(headers)),
        _ => Retry::Never,
    };
    Failure { reason: format!("the collector answered {status}"), retry }
}

/// The seconds of `Retry-After`. Its other form, a date, is left aside: clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn tls(collector: &Collector) -> Result<ClientConfig, String> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS: {error}"))?;
    let roots = match &collector.certificates {
        Some(file) => {
            let failed = |error: &dyn std::fmt::Display| {
                format!(
                    "failed to read the certificates of `OTEL_EXPORTER_OTLP_CERTIFICATE`, `{}`: {error}",
                    file.display()
                )
            };
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))? {
                let certificate = certificate.map_err(|error| failed(&error))?;
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
            roots
        }
        // Without TLS, the system's certificates need not be there.
        None if collector.url.scheme_str() == Some("http") => RootCertStore::empty(),
        None => {
            let failed = |error| format!("failed to read the system's certificates: {error}");
            return Ok(builder.with_native_roots().map_err(failed)?.with_no_client_auth());
        }
    };
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_otlp_calls_retryable_is_repeated() {
        #[track_caller]
        fn check(status: u16, retry_after: Option<&'static str>, expected: Retry) {
            let status = StatusCode::from_u16(status).unwrap();
            let headers = retry_after.map(|value| (RETRY_AFTER, HeaderValue::from_static(value)));
            assert_eq!(refused(status, &headers.into_iter().collect()).retry, expected, "{status} {retry_after:?}");
        }
        check(429, Some("7"), Retry::After(Some(Duration::from_secs(7))));
        check(429, None, Retry::After(None));
        check(503, Some("soon"), Retry::After(None));
        check(503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), Retry::After(None));
        check(502, None, Retry::After(None));
        check(504, None, Retry::After(None));
        check(500, Some("7"), Retry::Never);
        check(400, None, Retry::Never);
        check(401, None, Retry::Never);
        check(301, None, Retry::Never);
    }
}

//! Requests to one registry: with credentials, a limited number at a time, and again when the network or the registry
//! fails.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use futures::stream;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::Frame;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use super::auth::{Auth, Challenge, Credentials, Refused, TokenSource};
use super::proxy::ProxyConnector;
use crate::error::{Hinted, root_cause};
use crate::image::digest::CHUNK;
use crate::image::oci::{Blob, Contents};

/// Requests at the same time.
const AT_ONCE: usize = 8;
/// Attempts of one request, or of one upload.
const ATTEMPTS: u32 = 6;
/// Between the first two attempts, at most; twice as much before each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take, the time to send the contents not counted.
const ANSWER: Duration = Duration::from_secs(60);
/// Slower than this is no connection.
const SLOWEST_BYTES_PER_SECOND: u64 = 50_000;
/// Largest answer: a manifest, an index, a token.
const LARGEST_ANSWER: usize = 8 << 20;
/// How often one request may ask for other credentials.
const RENEWALS: u32 = 2;

type Body = BoxBody<Bytes, io::Error>;

/// Connects to HTTP servers, with TLS where their address says so.
pub(crate) type Connector = HttpsConnector<ProxyConnector>;

/// Connects through the proxy that HTTPS_PROXY, ALL_PROXY and NO_PROXY name, and trusts the roots that registries are trusted by.
///
/// # Errors
/// The roots cannot be read.
pub(crate) fn connector() -> anyhow::Result<Connector> {
    Ok(connect(Matcher::from_env(), tls()?))
}

fn connect(proxies: Matcher, tls: ClientConfig) -> Connector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT));
    connector.enforce_http(false);
    let https = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1();
    https.wrap_connector(ProxyConnector::new(connector, tls, proxies))
}

/// One registry.
pub(super) struct Http {
    host: String,
    base: String,
    client: Client<Connector, Body>,
    auth: Auth,
    permits: Semaphore,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct RegistryRequest<'a> {
    pub(super) method: Method,
    /// From `/v2/` on, or a whole address that the registry has given.
    pub(super) path: String,
    pub(super) repository: &'a str,
    pub(super) accept: &'a [&'a str],
    /// What is sent, with its media type.
    pub(super) blob: Option<&'a Blob>,
}

impl<'a> RegistryRequest<'a> {
    pub(super) fn new(method: Method, repository: &'a str, path: &str) -> Self {
        let path = format!("/v2/{repository}/{path}");
        Self { method, path, repository, accept: &[], blob: None }
    }

    fn describe(&self) -> String {
        format!("{} {}", self.method, self.path.split('?').next().unwrap_or_default())
    }
}

/// What a registry said.
#[derive(Clone, Debug)]
pub(super) struct RegistryResponse {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>
#[derive(Debug, Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl RegistryResponse {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether it names this error.
    pub(super) fn says(&self, code: &str) -> bool {
        self.said().iter().any(|said| said.code == code)
    }

    /// The errors in words; the beginning of what was said if it is not in the form that registries agreed on.
    pub(super) fn words(&self) -> String {
        let said = self.said();
        let words: Vec<String> = said.iter().map(|said| format!("{} {}", said.code, said.message)).collect();
        match words.is_empty() {
            true => String::from_utf8_lossy(&self.body).chars().take(200).collect::<String>().trim().to_owned(),
            false => words.join("; ").trim().to_owned(),
        }
    }

    fn said(&self) -> Vec<ErrorEntry> {
        serde_json::from_slice::<Errors>(&self.body).unwrap_or_default().errors
    }

    /// Whether the same again may succeed.
    fn is_passing(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
            || self.status == StatusCode::REQUEST_TIMEOUT
            || self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED
    }

    /// How long the registry wants to be left alone.
    fn retry_after(&self) -> Option<Duration> {
        self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
    }
}

impl Http {
    /// Connects when it is first used, through the proxy that HTTPS_PROXY, ALL_PROXY and NO_PROXY name.
    pub(super) fn new(host: &str, credentials: Credentials) -> anyhow::Result<Self> {
        Self::through(host, credentials, Matcher::from_env(), tls()?)
    }

    /// The same through the proxies of `proxies`, if there are any for a host.
    fn through(host: &str, credentials: Credentials, proxies: Matcher, tls: ClientConfig) -> anyhow::Result<Self> {
        // What Docker Hub is called is not where it is.
        let address = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let scheme = if is_loopback(address) { "http" } else { "https" };
        let base = format!("{scheme}://{address}");
        if address.contains(['/', '@', '?']) || address.parse::<Authority>().is_err() {
            return Err(Hinted::new(format!("`{host}` is no registry"), "write a host, or `host:port`").into());
        }
        let client = Client::builder(TokioExecutor::new()).build(connect(proxies, tls));
        let auth = Auth::new(host, credentials);
        Ok(Self { host: host.to_owned(), base, client, auth, permits: Semaphore::new(AT_ONCE) })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Sends a request until there is an answer that will not change by itself.
    ///
    /// # Errors
    /// No answer, or none but failures; or no credentials that the registry accepts.
    pub(super) async fn call(&self, call: &RegistryRequest<'_>) -> anyhow::Result<RegistryResponse> {
        let mut attempts = Attempts::default();
        loop {
            let failed = match self.attempt(call).await {
                Ok(answer) if !answer.is_passing() => return Ok(answer),
                other => other,
            };
            attempts.wait(self, &call.describe(), failed).await?;
        }
    }

    /// Sends a request once, but for other credentials.
    pub(super) async fn attempt(&self, call: &RegistryRequest<'_>) -> anyhow::Result<RegistryResponse> {
        let mut renewals = 0;
        loop {
            let header = if self.is_own(&call.path) { self.auth.header(call.repository).await? } else { None };
            let answer = self.send(call, header.clone()).await?;
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            let challenges = answer.headers.get_all(WWW_AUTHENTICATE).iter();
            let challenge = challenges.filter_map(|value| Challenge::parse(value.to_str().ok()?)).next();
            let (Some(challenge), true) = (challenge, renewals < RENEWALS) else {
                return Err(self.auth.refused());
            };
            renewals += 1;
            self.auth.renew(call.repository, header.as_ref(), &challenge, self).await?;
        }
    }

    async fn send(
        &self,
        call: &RegistryRequest<'_>,
        authorization: Option<HeaderValue>,
    ) -> anyhow::Result<RegistryResponse> {
        let address =
            if call.path.starts_with('/') { format!("{}{}", self.base, call.path) } else { call.path.clone() };
        let mut request = Request::builder().method(call.method.clone()).uri(&address);
        request = request.header(USER_AGENT, concat!("natsctl/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if !call.accept.is_empty() {
            request = request.header(ACCEPT, call.accept.join(", "));
        }
        let size = call.blob.map_or(0, |blob| blob.descriptor.size);
        let sends = matches!(call.method, Method::PUT | Method::POST | Method::PATCH);
        if sends {
            request = request.header(CONTENT_LENGTH, size);
        }
        if let Some(blob) = call.blob {
            request = request.header(CONTENT_TYPE, &blob.descriptor.media_type);
        }
        let body = match call.blob {
            Some(blob) => body(blob).await?,
            None => Full::default().map_err(|never| match never {}).boxed(),
        };
        let request = request.body(body)?;
        let limit = ANSWER + Duration::from_secs(size / SLOWEST_BYTES_PER_SECOND);
        let _permit = self.permits.acquire().await?;
        tracing::debug!(method = %call.method, %address, "registry");
        let answered = tokio::time::timeout(limit, self.answer(request)).await;
        answered.map_err(|_| anyhow!("no answer within {} s", limit.as_secs()))?
    }

    async fn answer(&self, request: Request<Body>) -> anyhow::Result<RegistryResponse> {
        let answer = self.client.request(request).await.map_err(|error| match super::proxy::failure(&error) {
            Some(failure) => anyhow!("{failure}"),
            None => anyhow!(root_cause(&error)),
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow!("the answer is cut off or too large: {error}"))?;
        Ok(RegistryResponse { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    /// Whether an address is the registry's own: the credentials are sent to no other.
    fn is_own(&self, path: &str) -> bool {
        path.starts_with('/') || path.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl TokenSource for Http {
    async fn token(&self, address: &str, login: Option<HeaderValue>) -> anyhow::Result<Option<String>> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(alias = "access_token")]
            token: String,
        }
        let uri: Uri = address.parse().with_context(|| format!("`{address}` is no address for a token"))?;
        if uri.scheme_str() != Some("https") && !uri.authority().is_some_and(|host| is_loopback(host.as_str())) {
            let host = &self.host;
            let error = anyhow!("registry `{host}` wants the password sent to `{address}`, which is not encrypted");
            return Err(Refused(error).into());
        }
        let call =
            RegistryRequest { method: Method::GET, path: address.to_owned(), repository: "", accept: &[], blob: None };
        let answer = self.send(&call, login).await.context("failed to get a token")?;
        match answer.status {
            StatusCode::OK => {
                let token: Token = serde_json::from_slice(&answer.body).context("the token is no token")?;
                Ok(Some(token.token))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(None),
            status => bail!("failed to get a token: {status} {}", answer.words()),
        }
    }
}

/// How often something has failed, and when to try it again.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
}

impl Attempts {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// What failed, when it has failed too often or will always fail.
    pub(super) async fn wait(
        &mut self,
        http: &Http,
        what: &str,
        failed: anyhow::Result<RegistryResponse>,
    ) -> anyhow::Result<()> {
        self.failed += 1;
        let after = failed.as_ref().ok().and_then(RegistryResponse::retry_after);
        let error = match failed {
            Ok(answer) => anyhow!("{} {}", answer.status, answer.words()),
            Err(error) => match error.downcast::<Refused>() {
                Ok(Refused(error)) => return Err(error),
                Err(error) => error,
            },
        };
        if self.failed >= ATTEMPTS {
            let message = format!("registry `{}` fails: {what}: {error:#}", http.host);
            let hint =
                "see that this machine reaches it; running the command again is safe, and sends only what is missing";
            return Err(Hinted::new(message, hint).into());
        }
        tracing::info!(registry = http.host, what, attempt = self.failed, error = format!("{error:#}"), "again");
        let longest = FIRST_WAIT.saturating_mul(1 << (self.failed - 1)).min(LONGEST_WAIT);
        // Somewhere in the second half, so that those who failed together do not come back together.
        let jittered = longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        tokio::time::sleep(after.unwrap_or(jittered).min(LONGEST_WAIT)).await;
        Ok(())
    }
}

/// Certificates that the machine trusts; Mozilla's list where it has none. Read once.
fn tls() -> anyhow::Result<ClientConfig> {
    static CONFIG: OnceLock<ClientConfig> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = || ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let trusting = match builder()?.with_native_roots() {
        Ok(trusting) => trusting,
        Err(_) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(TLS_SERVER_ROOT_CERTS.iter().cloned());
            builder()?.with_root_certificates(roots)
        }
    };
    Ok(CONFIG.get_or_init(|| trusting.with_no_client_auth()).clone())
}

async fn body(blob: &Blob) -> anyhow::Result<Body> {
    let file = match &blob.contents {
        Contents::Bytes(bytes) => return Ok(Full::new(bytes.clone()).map_err(|never| match never {}).boxed()),
        Contents::File(path) => {
            tokio::fs::File::open(path).await.with_context(|| format!("failed to open `{}`", path.display()))?
        }
    };
    let chunks = stream::try_unfold(file, |mut file| async {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok((read > 0).then(|| (Frame::data(Bytes::from(chunk)), file)))
    });
    Ok(StreamBody::new(chunks).boxed())
}

/// Whether a host, with or without a port, is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// For a query.
pub(super) fn encoded(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::super::stage;
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "example.com:5000", "10.0.0.1:5000", "128.0.0.1", "[::2]:5000", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in ["", "a b", "https://example.com", "example.com/path"] {
            assert!(Http::new(host, Credentials::Anonymous).is_err(), "{host}");
        }
    }

    #[tokio::test]
    async fn a_request_goes_through_the_tunnel_of_a_proxy_and_is_encrypted_to_the_registry() {
        let (registry, roots) = stage::registry_with_tls("registry.example.com").await;
        let proxy = stage::TunnelProxy::to(registry).await;
        let proxies = || Matcher::builder().https(format!("http://me:secret@{}", proxy.address)).build();
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let tls =
            tls.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
        let http =
            |proxies| Http::through("registry.example.com", Credentials::Anonymous, proxies, tls.clone()).unwrap();
        let call = RegistryRequest::new(Method::GET, "a/b", "manifests/one");
        let answer = http(proxies()).attempt(&call).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, &b"GET /v2/a/b/manifests/one"[..]));
        assert_eq!(proxy.asked(), ["CONNECT registry.example.com:443", "proxy-authorization: Basic bWU6c2VjcmV0"]);

        proxy.refuse();
        let error = http(proxies()).attempt(&call).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("the proxy `http://{}` does not connect to", proxy.address)), "{error}");
        let socks = Matcher::builder().https("socks5://proxy.example.com:1080").build();
        let error = http(socks).attempt(&call).await.unwrap_err().to_string();
        assert!(
            error.contains("`socks5://proxy.example.com:1080` is reached by another protocol than HTTP"),
            "{error}"
        );
    }

    #[test]
    fn credentials_are_shown_to_no_other_host() {
        let http = Http::new("registry.example.com", Credentials::Anonymous).unwrap();
        assert!(http.is_own("/v2/"));
        assert!(http.is_own("https://registry.example.com/v2/a/blobs/uploads/1"));
        assert!(!http.is_own("https://registry.example.com.evil.org/v2/"));
        assert!(!http.is_own("http://registry.example.com/v2/"));
        assert!(!http.is_own("https://storage.example.com/upload"));
    }

    #[test]
    fn an_answer_is_put_into_words_whatever_it_is() {
        let answer = |body: &'static str| RegistryResponse {
            status: StatusCode::BAD_REQUEST,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let said = answer(r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}"#);
        assert!(said.says("NAME_UNKNOWN") && !said.says("DENIED"));
        assert_eq!(said.words(), "NAME_UNKNOWN no such repository");
        assert_eq!(answer("<html>bad gateway</html>\n").words(), "<html>bad gateway</html>");
        assert_eq!(answer("").words(), "");
    }
}

//! Connections through an HTTP proxy, as HTTPS_PROXY, ALL_PROXY and NO_PROXY say (in capitals or not): the proxy is asked for a tunnel
//! (`CONNECT`), and TLS is spoken to the registry through it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::http::is_loopback;
use crate::error::root_cause;

/// Connects to a host, directly or through the proxy for it.
#[derive(Clone)]
pub(crate) struct ProxyConnector {
    direct: HttpConnector,
    /// Connects to proxies, which may want TLS themselves.
    to_proxy: HttpsConnector<HttpConnector>,
    proxies: Arc<Matcher>,
}

/// A proxy that makes no tunnel.
#[derive(Debug)]
pub(super) struct ProxyFailure {
    proxy: String,
    why: String,
}

impl fmt::Display for ProxyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy `{}` {}; see HTTPS_PROXY, ALL_PROXY and NO_PROXY", self.proxy, self.why)
    }
}

impl Error for ProxyFailure {}

/// What a proxy did, if that is why there is no connection.
pub(super) fn failure<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ProxyFailure> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref() {
            return Some(failure);
        }
        cause = error.source();
    }
    None
}

impl ProxyConnector {
    /// `tls` is for proxies whose own address is `https://…`.
    pub(super) fn new(direct: HttpConnector, tls: ClientConfig, proxies: Matcher) -> Self {
        let to_proxy = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Self { to_proxy: to_proxy.wrap_connector(direct.clone()), direct, proxies: Arc::new(proxies) }
    }

    /// The proxy for an address; none for this machine, which no proxy reaches.
    fn proxy(&self, address: &Uri) -> Option<Intercept> {
        let is_here = address.authority().is_none_or(|host| is_loopback(host.as_str()));
        if is_here { None } else { self.proxies.intercept(address) }
    }

    fn tunnel(&self, address: Uri, proxy: &Intercept) -> BoxFuture<'static, Result<Connection, BoxError>> {
        let uri = proxy.uri().clone();
        // Without the password that the address of a proxy may have.
        let host = uri.authority().and_then(|at| at.as_str().rsplit('@').next()).unwrap_or_default();
        let name = format!("{}://{host}", uri.scheme_str().unwrap_or("http"));
        let failure = move |why: String| -> BoxError { Box::new(ProxyFailure { proxy: name, why }) };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            let failure = failure("is reached by another protocol than HTTP, which natsctl does not speak".to_owned());
            return Box::pin(std::future::ready(Err(failure)));
        }
        let mut tunnel = Tunnel::new(uri, self.to_proxy.clone());
        if let Some(login) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(login.clone());
        }
        let wanted = address.authority().map(ToString::to_string).unwrap_or_default();
        let connecting = tunnel.call(address);
        Box::pin(async move {
            connecting.await.map_err(|error| failure(format!("does not connect to `{wanted}`: {}", root_cause(&error))))
        })
    }
}

type BoxError = Box<dyn Error + Send + Sync>;
type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Service<Uri> for ProxyConnector {
    type Response = Connection;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Connection, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        if let Some(proxy) = self.proxy(&address) {
            return self.tunnel(address, &proxy);
        }
        let connecting = self.direct.call(address);
        Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(no: &str, address: &str, expected: Option<&str>) {
        let proxies = Matcher::builder().https("http://proxy.example.com:3128").no(no).build();
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let tls =
            tls.with_safe_default_protocol_versions().unwrap().with_root_certificates(rustls::RootCertStore::empty());
        let connector = ProxyConnector::new(HttpConnector::new(), tls.with_no_client_auth(), proxies);
        let proxy = connector.proxy(&address.parse().unwrap()).map(|proxy| proxy.uri().to_string());
        assert_eq!(proxy.as_deref(), expected, "{address} with NO_PROXY={no}");
    }

    #[test]
    fn what_no_proxy_names_and_this_machine_are_reached_directly() {
        let proxy = Some("http://proxy.example.com:3128/");
        check("", "https://registry.example.com/v2/", proxy);
        check("other.example.com", "https://registry.example.com/v2/", proxy);
        check("registry.example.com", "https://registry.example.com/v2/", None);
        check(".example.com,10.0.0.0/8", "https://registry.example.com:5000/v2/", None);
        check("10.0.0.0/8", "https://10.1.2.3/v2/", None);
        check("*", "https://registry.example.com/v2/", None);
        check("", "https://localhost:5000/v2/", None);
        check("", "https://127.0.0.1:5000/v2/", None);
    }
}

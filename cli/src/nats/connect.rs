//! A connection as one user: TLS in both directions, the user's credentials, and an end to waiting.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerAddr};
use futures::future::select_ok;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::identity::Identities;
use super::pki::Pki;
use crate::error::Hinted;

/// How long connecting to servers of another network may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that a client needs in order to connect as one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Servers, any of which will do, for example `tls://127.0.0.1:4222`.
    pub urls: Vec<String>,
    /// Certificate of the authority that signed the servers' certificates.
    pub ca_file: PathBuf,
    /// The user's JWT and seed.
    pub credentials_file: PathBuf,
    /// The user's certificate.
    pub client_cert_file: PathBuf,
    /// Its private key.
    pub client_key_file: PathBuf,
}

impl Access {
    /// How `user` connects, by the files that are made for it.
    pub fn of(user: &str, urls: Vec<String>, pki: &Pki, identities: &Identities) -> Self {
        let tls = pki.client(user);
        Self {
            urls,
            ca_file: tls.authority,
            credentials_file: identities.credentials(user),
            client_cert_file: tls.certificate,
            client_key_file: tls.key,
        }
    }

    /// Connects to the first server that accepts; `name` is shown by the server's own tools.
    pub async fn connect(&self, name: &str, within: Duration) -> anyhow::Result<Client> {
        connect_to(&self.urls, self.options(name).await?, name, within).await
    }

    pub(super) async fn options(&self, name: &str) -> anyhow::Result<ConnectOptions> {
        // Fails if it was done before, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let credentials = ConnectOptions::with_credentials_file(&self.credentials_file).await;
        let options = credentials.with_context(|| format!("failed to read `{}`", self.credentials_file.display()))?;
        Ok(options
            .name(name)
            .require_tls(true)
            .add_root_certificates(self.ca_file.clone())
            .add_client_certificate(self.client_cert_file.clone(), self.client_key_file.clone())
            .ignore_discovered_servers())
    }
}

/// Connects to one of these servers.
pub(super) async fn connect_to(
    urls: &[String],
    options: ConnectOptions,
    name: &str,
    within: Duration,
) -> anyhow::Result<Client> {
    let parse = |url: &String| url.parse().with_context(|| format!("`{url}` is not the address of a server"));
    let servers: Vec<ServerAddr> = urls.iter().map(parse).collect::<Result<_, _>>()?;
    let deadline = Instant::now() + within;
    let servers = answering_first(servers, within / 2).await;
    let within_left = deadline.saturating_duration_since(Instant::now());
    let connecting = options.connection_timeout(within_left).retain_servers_order().connect(servers);
    let (reason, hint) = match tokio::time::timeout_at(deadline, connecting).await {
        Ok(Ok(client)) => return Ok(client),
        Ok(Err(error)) => (error.to_string(), advice(error.kind())),
        Err(_) => (format!("no answer within {} s", within.as_secs_f32()), NOT_RUNNING),
    };
    let servers = urls.join("`, `");
    Err(Hinted::new(format!("failed to connect to NATS at `{servers}` as `{name}`: {reason}"), hint).into())
}

/// The same servers in another order: first one that greets its clients. One that hangs takes connections and says nothing, and to try it
/// first would take all the time that there is.
async fn answering_first(mut servers: Vec<ServerAddr>, within: Duration) -> Vec<ServerAddr> {
    if servers.len() < 2 {
        return servers;
    }
    fastrand::shuffle(&mut servers);
    let greet = |index: usize, server: ServerAddr| {
        Box::pin(async move {
            let mut stream = TcpStream::connect((server.host(), server.port())).await?;
            stream.read_u8().await.map(|_| index)
        })
    };
    let greetings = servers.iter().enumerate().map(|(index, server)| greet(index, server.clone()));
    if let Ok(Ok((first, _))) = tokio::time::timeout(within, select_ok(greetings)).await {
        servers.swap(0, first);
    }
    servers
}

const NOT_RUNNING: &str = "see whether the servers run: `natsctl status`; `natsctl deploy --all` starts them";

fn advice(kind: ConnectErrorKind) -> &'static str {
    match kind {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            "the servers do not know this user; `natsctl deploy --all` makes users and servers agree"
        }
        ConnectErrorKind::Tls => "one side does not trust the other's certificate; `natsctl deploy --all` renews them",
        _ => NOT_RUNNING,
    }
}

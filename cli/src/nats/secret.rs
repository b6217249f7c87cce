//! How a user connects, as texts: as Secrets Manager stores it, and as a task gets it in its environment.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::{Client, ConnectOptions};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};

use super::connect::{Access, connect_to};
use super::private;

/// Everything that a client needs in order to connect as one user. Shows nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSecret {
    /// Servers, separated by commas, any of which will do.
    pub urls: String,
    /// Certificate of the authority that signed the servers' certificates.
    pub ca: String,
    /// The user's certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
    /// The user's JWT and seed.
    pub creds: String,
}

/// The near end of a tunnel to a server: the server is reached at `url`, and its certificate must be one for `host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelEndpoint {
    /// For example `tls://127.0.0.1:40123`.
    pub url: String,
    /// The name in the server's certificate.
    pub host: String,
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSecret").field("urls", &self.urls).finish_non_exhaustive()
    }
}

// What is wrong with a secret is never said with the secret: errors of parsers quote what they have read.

impl ClientSecret {
    /// Reads the form in which it is stored.
    ///
    /// # Errors
    /// `where_from` does not hold one.
    pub fn parse(text: &str, where_from: &str) -> anyhow::Result<Self> {
        serde_json::from_str(text).ok().with_context(|| {
            format!("{where_from} does not hold an identity on NATS (`urls`, `ca`, `cert`, `key`, `creds`)")
        })
    }

    /// Connects to the first server that accepts; `name` is shown by the server's own tools.
    ///
    /// # Errors
    /// No server accepts, or the server's certificate is not one for the host.
    pub async fn connect(
        &self,
        name: &str,
        tunnel: Option<&TunnelEndpoint>,
        within: Duration,
    ) -> anyhow::Result<Client> {
        let options = self.options(name, tunnel)?;
        let urls: Vec<String> = match tunnel {
            Some(tunnel) => vec![tunnel.url.clone()],
            None => self.urls.split(',').map(|url| url.trim().to_owned()).collect(),
        };
        connect_to(&urls, options, name, within).await
    }

    fn options(&self, name: &str, tunnel: Option<&TunnelEndpoint>) -> anyhow::Result<ConnectOptions> {
        // Fails if it was done before, which is as good.
        let _ = default_provider().install_default();
        let options = ConnectOptions::with_credentials(&self.creds);
        let options = options.ok().context("the identity on NATS has no credentials (`creds`)")?;
        let tls = self.tls(tunnel)?;
        Ok(options.name(name).require_tls(true).tls_client_config(tls).ignore_discovered_servers())
    }

    fn tls(&self, tunnel: Option<&TunnelEndpoint>) -> anyhow::Result<ClientConfig> {
        let no = |what: &'static str| move || format!("the identity on NATS has no {what} in PEM");
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca).with_context(no("authority (`ca`)"))? {
            roots.add(certificate)?;
        }
        let certificates = certificates(&self.cert).with_context(no("certificate (`cert`)"))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok().with_context(no("key (`key`)"))?;
        let provider = Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = match tunnel {
            None => config.with_webpki_verifier(verifier),
            Some(tunnel) => {
                let name = ServerName::try_from(tunnel.host.clone());
                let name = name.with_context(|| format!("`{}` is not the name of a server", tunnel.host))?;
                config.dangerous().with_custom_certificate_verifier(Arc::new(Called { name, verifier }))
            }
        };
        Ok(config.with_client_auth_cert(certificates, key)?)
    }
}

fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    certificates.ok().filter(|certificates| !certificates.is_empty())
}

/// The ordinary verification, for the server behind the tunnel instead of the address that was dialled.
#[derive(Debug)]
struct Called {
    name: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Called {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl TryFrom<&Access> for ClientSecret {
    type Error = anyhow::Error;

    fn try_from(access: &Access) -> anyhow::Result<Self> {
        let read = |path: &Path| private::read(path)?.with_context(|| format!("`{}` is missing", path.display()));
        Ok(Self {
            urls: access.urls.join(","),
            ca: read(&access.ca_file)?,
            cert: read(&access.client_cert_file)?,
            key: read(&access.client_key_file)?,
            creds: read(&access.credentials_file)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_in_no_message() {
        let secret = ClientSecret {
            urls: "tls://a:4222".to_owned(),
            ca: "hidden".to_owned(),
            cert: "hidden".to_owned(),
            key: "hidden".to_owned(),
            creds: "hidden".to_owned(),
        };
        assert_eq!(format!("{secret:?}"), r#"ClientSecret { urls: "tls://a:4222", .. }"#);
        let without_creds = secret.options("test", None).unwrap_err();
        let without_ca = secret.tls(None).unwrap_err();
        let text = r#"{"urls":"tls://a:4222","creds":["hidden"]}"#;
        let malformed = ClientSecret::parse(text, "secret `nats/quest`").unwrap_err();
        assert_eq!(
            [without_creds, without_ca, malformed].map(|error| format!("{error:#}")),
            [
                "the identity on NATS has no credentials (`creds`)",
                "the identity on NATS has no authority (`ca`) in PEM",
                "secret `nats/quest` does not hold an identity on NATS (`urls`, `ca`, `cert`, `key`, `creds`)",
            ]
        );
    }
}

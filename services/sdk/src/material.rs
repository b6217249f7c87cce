//! Certificates, keys and credentials: from files on a developer's machine, from environment variables where ECS
//! injects secrets.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// A certificate, a private key or credentials. Neither `Debug` nor an error shows its text.
#[derive(Clone)]
pub enum Material {
    /// A file. It is read for every connection, so that renewed material is used.
    File(PathBuf),
    /// The text itself.
    Text {
        /// The environment variable that held it.
        variable: &'static str,
        /// The text.
        text: Arc<str>,
    },
}

impl Material {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Text { .. } => None,
        }
    }

    pub(crate) fn read(&self) -> Result<Cow<'_, str>, String> {
        match self {
            Self::File(path) => {
                let text = std::fs::read_to_string(path);
                text.map(Cow::Owned).map_err(|error| format!("{self} cannot be read: {error}"))
            }
            Self::Text { text, .. } => Ok(Cow::Borrowed(text)),
        }
    }

    // The errors of PEM readers quote their input, so they are not passed on.

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let text = self.read()?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let certificates = certificates.ok().filter(|certificates| !certificates.is_empty());
        certificates.ok_or_else(|| format!("{self} holds no certificate in PEM"))
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let text = self.read()?;
        PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| format!("{self} holds no private key in PEM"))
    }
}

impl From<PathBuf> for Material {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl fmt::Display for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file `{}`", path.display()),
            Self::Text { variable, .. } => write!(f, "environment variable `{variable}`"),
        }
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A TLS configuration that trusts only `authority`, with a client certificate if there is one.
pub(crate) fn client_config(
    authority: &Material,
    client_certificate: Option<&(Material, Material)>,
) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in authority.certificates()? {
        roots.add(certificate).map_err(|error| format!("{authority}: {error}"))?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    match client_certificate {
        Some((certificate, key)) => {
            let config = config.with_client_auth_cert(certificate.certificates()?, key.key()?);
            config.map_err(|error| format!("{certificate} and {key} do not match: {error}"))
        }
        None => Ok(config.with_no_client_auth()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_in_no_message() {
        let secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----BEGIN secret\n";
        let material = Material::Text { variable: "NATS_KEY", text: secret.into() };
        let messages = [format!("{material:?}"), material.key().unwrap_err(), material.certificates().unwrap_err()];
        assert_eq!(
            messages,
            [
                "environment variable `NATS_KEY`",
                "environment variable `NATS_KEY` holds no private key in PEM",
                "environment variable `NATS_KEY` holds no certificate in PEM",
            ]
        );
    }
}

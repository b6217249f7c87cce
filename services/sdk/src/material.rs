//! Certificates, keys and credentials: from files on a developer's machine, from environment variables where ECS
//! injects secrets.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, fs};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest as _, Sha256};

/// A certificate, a private key or credentials. Neither `Debug` nor an error shows its text.
#[derive(Clone)]
pub enum Material {
    /// A file. It is read for every connection, and when its content changes the task connects anew.
    File(PathBuf),
    /// The text itself, which cannot change while the task runs.
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
                let text = fs::read_to_string(path);
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

/// SHA-256 over the content of files. A file that cannot be read counts as one with another content.
pub(crate) type FilesDigest = [u8; 32];

/// The digest of those that are files; `None` if none is.
pub(crate) fn files_digest<'a>(material: impl IntoIterator<Item = &'a Material>) -> Option<FilesDigest> {
    let mut files = material.into_iter().filter_map(Material::file).peekable();
    files.peek()?;
    let mut digest = Sha256::new();
    for file in files {
        match fs::read(file) {
            Ok(content) => {
                digest.update((content.len() as u64).to_le_bytes());
                digest.update(&content);
            }
            Err(error) => digest.update(format!("cannot be read: {}", error.kind())),
        }
    }
    Some(digest.finalize().into())
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
    fn the_digest_changes_with_the_content_of_each_file() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| Material::File(folder.path().join(name)));
        let write = |material: &Material, text: &str| fs::write(material.file().unwrap(), text).unwrap();
        let digest = || files_digest([&one, &other]).unwrap();
        let mut seen = vec![digest()];
        for (file, text) in [(&one, "a"), (&other, "a"), (&one, "aa"), (&other, "")] {
            write(file, text);
            assert!(!seen.contains(&digest()), "{text}");
            seen.push(digest());
        }
        write(&other, "a");
        assert_eq!(digest(), seen[3]);
        assert_eq!(files_digest([&Material::Text { variable: "NATS_CREDS", text: "a".into() }]), None);
    }

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

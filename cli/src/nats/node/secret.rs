//! The secret of a node: its certificates and keys, one after the other, each under a line with its name, so that a node takes it apart
//! with the programs that it has.

use std::fmt::Write as _;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use super::FINGERPRINT;
use crate::nats::pki::{Pki, Tls};
use crate::nats::private;

/// Certificates and keys as texts in PEM. Shows nothing of them.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeSecret {
    /// What clients see.
    server: Material,
    /// What other servers see.
    routes: Material,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Material {
    authority: String,
    certificate: String,
    key: String,
}

/// A text, and what it is called in the secret: its kind and its file.
type Named<'a> = (&'static str, &'static str, &'a str);

impl NodeSecret {
    /// What a server should have.
    ///
    /// # Errors
    /// A file that was not made.
    pub fn of(pki: &Pki, server: &str) -> anyhow::Result<Self> {
        Ok(Self { server: Material::read(&pki.server(server))?, routes: Material::read(&pki.route(server))? })
    }

    /// Reads the form in which it is stored; anything else is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut secret = Self { server: Material::default(), routes: Material::default() };
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let (kind, file) = line.strip_prefix(TITLE)?.split_once('/')?;
            let material = match kind {
                "server" => &mut secret.server,
                "routes" => &mut secret.routes,
                _ => return None,
            };
            let target = match file {
                "ca.crt" => &mut material.authority,
                "tls.crt" => &mut material.certificate,
                "tls.key" => &mut material.key,
                _ => return None,
            };
            while let Some(line) = lines.next_if(|line| !line.starts_with(TITLE)) {
                target.push_str(line);
                target.push('\n');
            }
        }
        secret.files().iter().all(|(_, _, text)| !text.is_empty()).then_some(secret)
    }

    /// The form in which it is stored.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (kind, file, contents) in self.files() {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{TITLE}{kind}/{file}\n{contents}");
        }
        text
    }

    /// What names these certificates: the beginning of their SHA-256. It says nothing about the keys.
    pub fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        for material in [&self.server, &self.routes] {
            digest.update(&material.authority);
            digest.update(&material.certificate);
        }
        let mut text = data_encoding::HEXLOWER.encode(&digest.finalize());
        text.truncate(FINGERPRINT);
        text
    }

    /// The certificates and keys that a [`Pki`] has of the server, with where it has them.
    pub fn as_files(&self, server: &str) -> [(String, &str); 4] {
        [
            (format!("servers/{server}.crt"), &self.server.certificate),
            (format!("servers/{server}.key"), &self.server.key),
            (format!("routes/{server}.crt"), &self.routes.certificate),
            (format!("routes/{server}.key"), &self.routes.key),
        ]
    }

    fn files(&self) -> [Named<'_>; 6] {
        let [server, routes] = [&self.server, &self.routes];
        [
            ("server", "ca.crt", &server.authority),
            ("server", "tls.crt", &server.certificate),
            ("server", "tls.key", &server.key),
            ("routes", "ca.crt", &routes.authority),
            ("routes", "tls.crt", &routes.certificate),
            ("routes", "tls.key", &routes.key),
        ]
    }
}

const TITLE: &str = "# file: ";

impl Material {
    fn read(tls: &Tls) -> anyhow::Result<Self> {
        let read = |path| private::read(path)?.with_context(|| format!("`{}` is missing", path.display()));
        Ok(Self { authority: read(&tls.authority)?, certificate: read(&tls.certificate)?, key: read(&tls.key)? })
    }
}

impl std::fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeSecret").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::pki::ServerName;

    #[test]
    fn what_is_stored_is_read_again_and_keeps_its_name() {
        let home = tempfile::tempdir().unwrap();
        let name = ServerName { name: "nats-1".to_owned(), addresses: Vec::new(), dns: vec!["localhost".to_owned()] };
        let pki = Pki::ensure(home.path(), &[name], &[]).unwrap();
        let secret = NodeSecret::of(&pki, "nats-1").unwrap();
        let read = NodeSecret::parse(&secret.text()).unwrap();
        assert!(read == secret);
        assert_eq!(read.fingerprint(), pki.fingerprint("nats-1").unwrap()[..FINGERPRINT]);
        assert_eq!(format!("{secret:?}"), "NodeSecret { .. }");
    }

    #[test]
    fn anything_else_is_no_secret_of_a_node() {
        for text in ["", "nothing", "# file: server/ca.crt\nx\n", "# file: other/ca.crt\nx\n", r#"{"urls":"tls://a"}"#]
        {
            assert!(NodeSecret::parse(text).is_none(), "{text}");
        }
    }
}

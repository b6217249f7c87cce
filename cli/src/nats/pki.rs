//! Certificates: two private authorities, and a leaf for each server and each client.
//!
//! ```text
//! ca.{crt,key}                 signs servers/ and clients/: what the client port asks for
//! servers/<name>.{crt,key}
//! clients/<name>.{crt,key}
//! routes/ca.{crt,key}          signs routes/: what servers ask of each other
//! routes/<name>.{crt,key}
//! ```
//! Routes have an authority of their own because a route may do everything: with one authority for
//! both, the certificate of any service would be accepted as that of a route.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName as Subject, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::identity::START_OVER;
use super::private;
use crate::error::Hinted;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3652);
const LEAF_LIFE: Duration = DAY.saturating_mul(365);
/// A leaf with less time left is replaced.
const RENEWAL: Duration = DAY.saturating_mul(30);
/// Clocks differ between machines: a certificate is valid from a little before it was made.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// A NATS server and everything that a client may call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName {
    /// Name of the server.
    pub name: String,
    /// Addresses at which clients and other servers reach it.
    pub addresses: Vec<IpAddr>,
    /// Host names at which clients and other servers reach it.
    pub dns: Vec<String>,
}

/// The certificates of a fleet, as they are on disk.
#[derive(Clone, Debug)]
pub struct Pki {
    directory: PathBuf,
}

/// A certificate, its key, and the authority that signed the other side's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Pki {
    /// Makes what is missing in the directory, and replaces what names something else, or is about to expire.
    pub fn ensure(directory: &Path, servers: &[ServerName], clients: &[String]) -> anyhow::Result<Self> {
        Self { directory: directory.to_owned() }.ensure_at(SystemTime::now(), servers, clients)
    }

    /// Makes new certificates for servers, whatever the ones that they have are worth. They keep their keys and their authority, so a server
    /// that has not read its new one yet is trusted as before.
    pub(crate) fn renew(directory: &Path, servers: &[ServerName]) -> anyhow::Result<()> {
        let pki = Self { directory: directory.to_owned() };
        pki.certify_servers(SystemTime::now(), servers, Renewal::Now)
    }

    fn ensure_at(self, now: SystemTime, servers: &[ServerName], clients: &[String]) -> anyhow::Result<Self> {
        for part in ["", "servers", "clients", "routes"] {
            private::directory(&self.directory.join(part))?;
        }
        self.certify_servers(now, servers, Renewal::WhenDue)?;
        let authority = Authority::ensure(&self.directory, "natsctl", now)?;
        for client in clients {
            let leaf = Leaf { name: client, names: Vec::new(), usages: vec![Usage::ClientAuth] };
            authority.certify(&self.client(client), &leaf, now, Renewal::WhenDue)?;
        }
        Ok(self)
    }

    fn certify_servers(&self, now: SystemTime, servers: &[ServerName], renewal: Renewal) -> anyhow::Result<()> {
        let authority = Authority::ensure(&self.directory, "natsctl", now)?;
        let routes = Authority::ensure(&self.directory.join("routes"), "natsctl routes", now)?;
        for server in servers {
            let leaf = Leaf { name: &server.name, names: names(server)?, usages: vec![Usage::ServerAuth] };
            authority.certify(&self.server(&server.name), &leaf, now, renewal)?;
            let leaf = Leaf { usages: vec![Usage::ServerAuth, Usage::ClientAuth], ..leaf };
            routes.certify(&self.route(&server.name), &leaf, now, renewal)?;
        }
        Ok(())
    }

    /// What the server shows to clients.
    pub fn server(&self, name: &str) -> Tls {
        self.tls("", "servers", name)
    }

    /// What the server shows to other servers.
    pub fn route(&self, name: &str) -> Tls {
        self.tls("routes", "routes", name)
    }

    /// What the client shows to servers.
    pub fn client(&self, name: &str) -> Tls {
        self.tls("", "clients", name)
    }

    /// SHA-256 over the certificates that the server uses: it changes when one of them was renewed.
    pub fn fingerprint(&self, server: &str) -> anyhow::Result<String> {
        let mut digest = Sha256::new();
        for tls in [self.server(server), self.route(server)] {
            for path in [tls.authority, tls.certificate] {
                let contents = private::read(&path)?.with_context(|| format!("`{}` is missing", path.display()))?;
                digest.update(contents);
            }
        }
        Ok(data_encoding::HEXLOWER.encode(&digest.finalize()))
    }

    fn tls(&self, authority: &str, folder: &str, name: &str) -> Tls {
        let leaves = self.directory.join(folder);
        Tls {
            authority: self.directory.join(authority).join("ca.crt"),
            certificate: leaves.join(format!("{name}.crt")),
            key: leaves.join(format!("{name}.key")),
        }
    }
}

/// When a certificate is replaced that is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    /// When it has less than [`RENEWAL`] left.
    WhenDue,
    Now,
}

/// What a leaf is asked to be.
struct Leaf<'a> {
    name: &'a str,
    /// Sorted, so that the same names in another order are the same leaf.
    names: Vec<SanType>,
    usages: Vec<Usage>,
}

impl Leaf<'_> {
    /// The line above the certificate that says for what it was made. PEM readers skip it.
    fn label(&self) -> String {
        let names = self.names.iter().map(|name| match name {
            SanType::DnsName(name) => name.to_string(),
            SanType::IpAddress(address) => address.to_string(),
            other => format!("{other:?}"),
        });
        let names: Vec<String> = names.collect();
        let usages: Vec<String> = self.usages.iter().map(|usage| format!("{usage:?}")).collect();
        format!("# {}: [{}] for {}", self.name, names.join(" "), usages.join(" "))
    }

    fn parameters(&self, now: SystemTime) -> CertificateParams {
        let mut parameters = parameters(self.name, now, LEAF_LIFE);
        parameters.subject_alt_names.clone_from(&self.names);
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages.clone_from(&self.usages);
        parameters.use_authority_key_identifier_extension = true;
        parameters
    }
}

fn names(server: &ServerName) -> anyhow::Result<Vec<SanType>> {
    let mut dns = server.dns.clone();
    let mut addresses = server.addresses.clone();
    dns.sort();
    dns.dedup();
    addresses.sort();
    addresses.dedup();
    let dns = dns.into_iter().map(|name| {
        let san = name.as_str().try_into().map(SanType::DnsName);
        san.with_context(|| format!("`{name}` is not a host name"))
    });
    dns.chain(addresses.into_iter().map(|address| Ok(SanType::IpAddress(address)))).collect()
}

fn parameters(name: &str, now: SystemTime, life: Duration) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = (now - BACKDATED).into();
    parameters.not_after = (now + life).into();
    parameters
}

struct Authority {
    path: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

impl Authority {
    fn ensure(directory: &Path, name: &str, now: SystemTime) -> anyhow::Result<Self> {
        let [path, key_path] = ["ca.crt", "ca.key"].map(|file| directory.join(file));
        let mut parameters = parameters(name, now, AUTHORITY_LIFE);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let damaged = |path: &Path| Hinted::new(format!("`{}` is damaged", path.display()), START_OVER);

        let key = match private::read(&key_path)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|error| damaged(&key_path).because(error))?,
            // A new authority beside an old certificate would lock every running client out.
            None if path.exists() => {
                return Err(Hinted::new(format!("`{}` is missing", key_path.display()), START_OVER).into());
            }
            None => {
                let key = KeyPair::generate()?;
                private::write(&key_path, &key.serialize_pem())?;
                key
            }
        };
        let pem = match private::read(&path)? {
            Some(pem) => pem,
            None => {
                let pem = parameters.self_signed(&key)?.pem();
                private::write(&path, &pem)?;
                pem
            }
        };
        certified_key(&pem, &key.serialize_pem()).map_err(|error| damaged(&path).because(error))?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?).map_err(|error| damaged(&path).because(error))?;
        Ok(Self { path, issuer: Issuer::new(parameters, key), roots: Arc::new(roots) })
    }

    fn certify(&self, tls: &Tls, leaf: &Leaf<'_>, now: SystemTime, renewal: Renewal) -> anyhow::Result<()> {
        let [certificate, key] = [private::read(&tls.certificate)?, private::read(&tls.key)?];
        if let (Some(certificate), Some(key)) = (&certificate, &key)
            && renewal == Renewal::WhenDue
            && certificate.lines().next() == Some(&leaf.label())
            && self.accepts(certificate, key, leaf, now + RENEWAL)
        {
            return Ok(());
        }
        // A renewed certificate keeps its key, so that the two files fit at every moment.
        let key = match key.and_then(|pem| KeyPair::from_pem(&pem).ok()) {
            Some(key) => key,
            None => {
                let key = KeyPair::generate()?;
                private::write(&tls.key, &key.serialize_pem())?;
                key
            }
        };
        let certificate = leaf.parameters(now).signed_by(&key, &self.issuer)?;
        let contents = format!("{}\n{}", leaf.label(), certificate.pem());
        private::write(&tls.certificate, &contents)?;
        anyhow::ensure!(
            self.accepts(&contents, &key.serialize_pem(), leaf, now),
            Hinted::new(format!("`{}` has expired, or is not ours", self.path.display()), START_OVER)
        );
        Ok(())
    }

    /// Whether both sides of a connection would accept the certificate at that time.
    fn accepts(&self, certificate: &str, key: &str, leaf: &Leaf<'_>, at: SystemTime) -> bool {
        let Ok(certified) = certified_key(certificate, key) else {
            return false;
        };
        let Ok(certificate) = certified.end_entity_cert() else {
            return false;
        };
        let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default());
        leaf.usages.iter().all(|usage| match usage {
            Usage::ServerAuth => self.accepts_server(certificate, &leaf.names, at),
            _ => self.accepts_client(certificate, at),
        })
    }

    fn accepts_server(&self, certificate: &CertificateDer<'_>, names: &[SanType], at: UnixTime) -> bool {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), default_provider().into());
        let Ok(verifier) = verifier.build() else { return false };
        names.iter().all(|name| {
            let subject = match name {
                SanType::DnsName(name) => Subject::try_from(name.as_str()).ok(),
                SanType::IpAddress(address) => Some(Subject::from(*address)),
                _ => None,
            };
            subject.is_some_and(|name| verifier.verify_server_cert(certificate, &[], &name, &[], at).is_ok())
        })
    }

    fn accepts_client(&self, certificate: &CertificateDer<'_>, at: UnixTime) -> bool {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), default_provider().into());
        verifier.build().is_ok_and(|verifier| verifier.verify_client_cert(certificate, &[], at).is_ok())
    }
}

/// Reads both and checks that they belong together.
fn certified_key(certificate: &str, key: &str) -> anyhow::Result<CertifiedKey> {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    Ok(CertifiedKey::from_der(vec![certificate], key, &default_provider())?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    fn server(addresses: &[[u8; 4]]) -> ServerName {
        ServerName {
            name: "nats-1".to_owned(),
            addresses: addresses.iter().copied().map(IpAddr::from).collect(),
            dns: vec!["localhost".to_owned()],
        }
    }

    /// Which files a second run, after that time and for that server, writes anew.
    fn renewed(after: Duration, then: &ServerName, spoil: impl Fn(&Path)) -> Vec<String> {
        let home = tempfile::tempdir().unwrap();
        let pki = Pki { directory: home.path().to_owned() };
        let (now, clients) = (SystemTime::now(), ["quest".to_owned()]);
        let pki = pki.ensure_at(now, &[server(&[[127, 0, 0, 1]])], &clients).unwrap();
        let before = files(&pki);
        spoil(home.path());
        let pki = pki.ensure_at(now + after, std::slice::from_ref(then), &clients).unwrap();
        let after = files(&pki);
        after.iter().filter(|(name, text)| before[*name] != **text).map(|(name, _)| name.clone()).collect()
    }

    fn files(pki: &Pki) -> BTreeMap<String, String> {
        let all = [pki.server("nats-1"), pki.route("nats-1"), pki.client("quest")];
        let all = all.into_iter().flat_map(|tls| [tls.authority, tls.certificate, tls.key]);
        let name = |path: &Path| path.strip_prefix(&pki.directory).unwrap().display().to_string();
        all.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
    }

    #[test]
    fn a_second_run_changes_nothing() {
        let nothing: [&str; 0] = [];
        assert_eq!(renewed(Duration::ZERO, &server(&[[127, 0, 0, 1]]), |_| ()), nothing);
        assert_eq!(renewed(DAY * 330, &server(&[[127, 0, 0, 1]]), |_| ()), nothing);
    }

    #[test]
    fn leaves_are_renewed_before_they_expire() {
        let leaves = ["clients/quest.crt", "routes/nats-1.crt", "servers/nats-1.crt"];
        assert_eq!(renewed(DAY * 340, &server(&[[127, 0, 0, 1]]), |_| ()), leaves);
    }

    #[test]
    fn another_address_is_another_certificate() {
        let leaves = ["routes/nats-1.crt", "servers/nats-1.crt"];
        assert_eq!(renewed(Duration::ZERO, &server(&[[127, 0, 0, 1], [10, 0, 0, 1]]), |_| ()), leaves);
        assert_eq!(renewed(Duration::ZERO, &server(&[]), |_| ()), leaves);
    }

    #[test]
    fn a_damaged_key_takes_its_certificate_with_it() {
        let damage = |home: &Path| fs::write(home.join("clients/quest.key"), "damaged").unwrap();
        let both = ["clients/quest.crt", "clients/quest.key"];
        assert_eq!(renewed(Duration::ZERO, &server(&[[127, 0, 0, 1]]), damage), both);
    }

    #[test]
    fn an_authority_without_its_key_is_refused() {
        let home = tempfile::tempdir().unwrap();
        Pki::ensure(home.path(), &[], &[]).unwrap();
        let check = |message: &str, hint: &str| {
            let error = Pki::ensure(home.path(), &[], &[]).unwrap_err();
            assert_eq!(error.to_string(), format!("`{}` {message}", home.path().join("ca.key").display()));
            assert!(crate::error::hint(&error).unwrap().contains(hint));
        };
        fs::write(home.path().join("ca.key"), "damaged").unwrap();
        check("is damaged", "backup");
        fs::remove_file(home.path().join("ca.key")).unwrap();
        check("is missing", "backup");
    }
}

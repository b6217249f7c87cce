//! Real nats-servers for tests and benchmarks: on ports that the system picks, in temporary directories, killed when dropped.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::settings::Link;

/// How long a server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const PASSWORD: &str = "only for tests";

/// A nats-server with JetStream.
#[derive(Debug)]
pub struct NatsServer {
    process: Child,
    port: u16,
    folder: TempDir,
    secured: bool,
}

/// A user of a secured server.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// Its name.
    pub name: &'a str,
    /// Subjects that it may publish to.
    pub publish: &'a [&'a str],
    /// Subjects that it may subscribe to.
    pub subscribe: &'a [&'a str],
}

impl NatsServer {
    /// A server without TLS and users.
    ///
    /// # Panics
    /// If there is no nats-server or it does not start.
    pub fn start() -> Self {
        Self::with("", false)
    }

    /// A server with mutual TLS, and with nobody but `users`.
    ///
    /// # Panics
    /// If there is no nats-server or it does not start.
    pub fn secured(users: &[User<'_>]) -> Self {
        let list =
            |subjects: &[&str]| subjects.iter().map(|subject| format!("{subject:?}")).collect::<Vec<_>>().join(", ");
        let mut config = String::from(
            "tls { cert_file: server.pem, key_file: server.key, ca_file: ca.pem, verify: true }\nauthorization { users: [\n",
        );
        for User { name, publish, subscribe } in users {
            let (publish, subscribe) = (list(publish), list(subscribe));
            // Writing to a string does not fail.
            let _ = writeln!(
                config,
                "{{ user: {name:?}, password: {PASSWORD:?}, permissions: {{ publish: [{publish}], subscribe: [{subscribe}] }} }}"
            );
        }
        config.push_str("] }\n");
        Self::with(&config, true)
    }

    fn with(config: &str, secured: bool) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let config = format!(
            "host: 127.0.0.1\nport: -1\nports_file_dir: {:?}\njetstream {{ store_dir: {:?} }}\n{config}",
            folder.path(),
            folder.path()
        );
        fs::write(folder.path().join("nats.conf"), config).expect("the configuration can be written");
        if secured {
            write_certificates(folder.path());
        }
        let log = fs::File::create(folder.path().join("nats.log")).expect("the log can be written");
        let mut process = Command::new(nats_server())
            .args(["--config", "nats.conf"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server starts");
        let port = wait_for_port(&mut process, folder.path());
        Self { process, port, folder, secured }
    }

    /// How to connect to a server without users.
    pub fn link(&self) -> Link {
        Link { urls: vec![format!("nats://127.0.0.1:{}", self.port)], ..Link::default() }
    }

    /// How `user` connects to a secured server.
    pub fn link_as(&self, user: &str) -> Link {
        let file = |name: &str| self.folder.path().join(name);
        assert!(self.secured, "this server has no users");
        Link {
            urls: vec![format!("tls://127.0.0.1:{}", self.port)],
            ca_file: Some(file("ca.pem")),
            client_certificate: Some((file("client.pem"), file("client.key"))),
            credentials_file: None,
            user: Some((user.to_owned(), PASSWORD.to_owned())),
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process, for tests that send it signals.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The nats-server that tests use: `NATSCTL_NATS_SERVER`, or the first of `.tools/bin` in a folder above, or the one on the PATH.
pub fn nats_server() -> PathBuf {
    if let Some(path) = env::var_os("NATSCTL_NATS_SERVER") {
        return path.into();
    }
    let here = env::current_dir().unwrap_or_default();
    let installed = here.ancestors().map(|folder| folder.join(".tools/bin/nats-server")).find(|path| path.is_file());
    installed.unwrap_or_else(|| "nats-server".into())
}

/// The server writes its ports to a file when it listens.
fn wait_for_port(process: &mut Child, folder: &Path) -> u16 {
    let file = folder.join(format!("nats-server_{}.ports", process.id()));
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let ports = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let url = ports.as_ref().and_then(|ports| ports["nats"][0].as_str());
        if let Some(port) = url.and_then(|url| url.rsplit(':').next()?.parse().ok()) {
            return port;
        }
        let ended = process.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > deadline {
            let log = fs::read_to_string(folder.join("nats.log")).unwrap_or_default();
            panic!("nats-server does not listen ({ended:?}):\n{log}");
        }
        std::thread::yield_now();
    }
}

fn write_certificates(folder: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("a certificate");
    let write = |name: &str, text: String| fs::write(folder.join(name), text).expect("certificates can be written");
    write("ca.pem", authority.pem());
    for (name, address) in [("server", "127.0.0.1"), ("client", "client")] {
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec![address.to_owned()]).expect("a valid name");
        write(&format!("{name}.pem"), leaf.signed_by(&key, &authority).expect("a certificate").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

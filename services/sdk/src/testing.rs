//! Real servers for tests and benchmarks, of NATS and Redis: on ports chosen by the system, in temporary directories,
//! killed when dropped.

mod cluster;
mod fake;
mod operator;
mod program;
mod redis;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fmt, fs};

use async_nats::jetstream::{self, consumer, kv, stream};
use bytes::Bytes;
use futures::StreamExt as _;
use proto::rpc::Record;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde::Deserialize;
use tempfile::TempDir;

pub use self::cluster::NatsCluster;
pub use self::fake::Fake;
pub use self::operator::Operator;
pub use self::program::{Program, kills};
pub use self::redis::{RedisCluster, Shape, process_cache, shared_cache};
pub use self::time::Time;
use crate::context::{Context, ExternalRequest};
use crate::fleet::Fleet;
use crate::outbox;
use crate::records::{self, Update};
use crate::settings::{ConnectionSettings, ConsumerSettings, Settings};
use crate::trace;

/// The timeout of requests made with [`as_request`].
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The time within which a server must listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const PASSWORD: &str = "only for tests";
/// On a message that a stream has taken over from another one: where it was.
const STREAM_SOURCE: &str = "Nats-Stream-Source";
/// JetStream with its files beside the configuration.
const JETSTREAM: &str = "jetstream { store_dir: jetstream }\n";

/// Mutual TLS with the certificates beside the configuration.
const TLS: &str = "tls { cert_file: server.pem, key_file: server.key, ca_file: ca.pem, verify: true }\n";

/// A nats-server with JetStream.
#[derive(Debug)]
pub struct NatsServer {
    process: Child,
    ports: Ports,
    folder: TempDir,
    /// Of the certificates of a server with TLS.
    authority: Option<Authority>,
}

/// The addresses (`host:port`) that a server listens on, as it writes them to its ports file.
#[derive(Debug, Deserialize)]
struct Ports {
    nats: Vec<String>,
    monitoring: Vec<String>,
    #[serde(default)]
    cluster: Vec<String>,
}

/// A user of a secured server.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// The user name.
    pub name: &'a str,
    /// Subjects that the user may publish to.
    pub publish: &'a [&'a str],
    /// Subjects that the user may subscribe to.
    pub subscribe: &'a [&'a str],
}

/// The account of one user, as natsctl makes one for each service.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// Its only user, after whom it is named.
    pub user: User<'a>,
    /// Subjects that other accounts may import.
    pub exports: &'a [&'a str],
    /// What it takes from other accounts: the account, the subject there, and the subject here.
    pub imports: &'a [(&'a str, &'a str, &'a str)],
}

/// A message in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The subject that it was published to.
    pub subject: String,
    /// The identity of an event: the header `Event-Id`, or else `Nats-Msg-Id`.
    pub id: Option<String>,
    /// The payload.
    pub payload: Bytes,
    /// The headers, by name.
    pub headers: BTreeMap<String, String>,
}

/// Runs `handler` as a request with this idempotency key, or as a new request.
pub async fn as_request<F: Future>(idempotency_key: Option<&str>, handler: F) -> F::Output {
    let request = ExternalRequest { traceparent: None, request_id: None, idempotency_key, timeout: REQUEST_TIMEOUT };
    Context::external(request).scope(handler).await
}

/// What a follower sees of a record that was written.
pub fn written<R: Record>(key: &str, revision: u64, record: R) -> Update<R> {
    records::Stored::written(key, revision, record).into()
}

/// Exports the spans of this process, as a task with these variables of OpenTelemetry would. Once per process.
pub fn start_tracing(task: &Settings, variables: &[(&str, &str)]) {
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned()).ok_or(env::VarError::NotPresent)
    };
    trace::start(&variable, task);
}

/// Exports the spans that are left, as a task that ends and has `time` for it.
pub async fn stop_tracing(time: Duration) {
    trace::stop(time).await;
}

impl NatsServer {
    /// A server without TLS and users.
    ///
    /// # Panics
    /// If there is no nats-server or it does not start.
    pub fn start() -> Self {
        Self::with(JETSTREAM, false)
    }

    /// Two servers that form a cluster, without JetStream.
    ///
    /// # Panics
    /// If there is no nats-server or they do not start.
    pub fn pair() -> [Self; 2] {
        let config = |routes: &str| format!("cluster {{ name: pair, listen: \"127.0.0.1:-1\", routes: [{routes}] }}\n");
        let first = Self::with(&config(""), false);
        let second = Self::with(&config(&format!("{:?}", first.ports.cluster[0])), false);
        [first, second]
    }

    /// A server with mutual TLS that accepts only `users`.
    ///
    /// # Panics
    /// If there is no nats-server or it does not start.
    pub fn secured(users: &[User<'_>]) -> Self {
        let users: String = users.iter().map(|user| format!("{user}\n")).collect();
        Self::with(&format!("{JETSTREAM}{TLS}authorization {{ users: [\n{users}] }}\n"), true)
    }

    /// A server with mutual TLS and without JetStream that has these accounts.
    ///
    /// # Panics
    /// If there is no nats-server or it does not start.
    pub fn with_accounts(accounts: &[Account<'_>]) -> Self {
        let accounts: String = accounts.iter().map(|account| format!("{account}\n")).collect();
        Self::with(&format!("{TLS}accounts {{\n{accounts}}}\n"), true)
    }

    fn with(config: &str, secured: bool) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let listen = "host: 127.0.0.1\nport: -1\nhttp: \"127.0.0.1:-1\"";
        let config = format!("{listen}\nports_file_dir: {:?}\n{config}", folder.path());
        fs::write(folder.path().join("nats.conf"), config).expect("the configuration can be written");
        let authority = secured.then(|| Authority::new(folder.path()));
        let log = fs::File::create(folder.path().join("nats.log")).expect("the log can be written");
        let mut process = Command::new(nats_server())
            .args(["--config", "nats.conf"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server starts");
        let ports = wait_for_ports(&mut process, folder.path());
        Self { process, ports, folder, authority }
    }

    /// How to connect to a server without users.
    pub fn connection(&self) -> ConnectionSettings {
        ConnectionSettings { urls: self.ports.nats.clone(), ..ConnectionSettings::default() }
    }

    /// How `user` connects to a secured server.
    pub fn connection_as(&self, user: &str) -> ConnectionSettings {
        let file = |name: &str| self.folder.path().join(name);
        assert!(self.authority.is_some(), "this server has no users");
        ConnectionSettings {
            urls: self.ports.nats.iter().map(|url| url.replace("nats://", "tls://")).collect(),
            ca: Some(file("ca.pem").into()),
            client_certificate: Some((file("client.pem").into(), file("client.key").into())),
            credentials: None,
            user: Some((user.to_owned(), PASSWORD.to_owned())),
        }
    }

    /// Writes a new certificate and key for its clients, of the same CA.
    ///
    /// # Panics
    /// If it cannot.
    pub fn renew_client_certificate(&self) {
        self.authority.as_ref().expect("a server with TLS").write_leaf(self.folder.path(), "client", "client");
    }

    /// Connects `service` to a server without users.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn fleet(&self, service: &str) -> Fleet {
        Fleet::connect(Settings::for_service(service, self.connection())).await.expect("a connection")
    }

    /// The same, with this time instead of the system's.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn fleet_at(&self, service: &str, time: &Time) -> Fleet {
        let settings = Settings::for_service(service, self.connection());
        Fleet::connect_with(settings, time.clock()).await.expect("a connection")
    }

    /// Creates a bucket that keeps `history` revisions of each value, as natsctl does for a fleet.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn bucket(&self, name: &str, history: i64) {
        let storage = stream::StorageType::Memory;
        let config = kv::Config { bucket: name.to_owned(), history, storage, ..kv::Config::default() };
        self.jetstream().await.create_key_value(config).await.expect("a bucket");
    }

    /// Creates a stream of these subjects, as natsctl does for a fleet.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn stream(&self, name: &str, subjects: &[&str]) {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().copied().map(str::to_owned).collect(),
            storage: stream::StorageType::Memory,
            ..stream::Config::default()
        };
        self.jetstream().await.create_stream(config).await.expect("a stream");
    }

    /// Creates the durable consumer of these settings, as natsctl does for a fleet.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn consumer(&self, settings: &ConsumerSettings) {
        let config = consumer::pull::Config {
            durable_name: settings.durable.clone(),
            filter_subject: settings.event.clone(),
            ack_wait: settings.ack_wait,
            max_ack_pending: if settings.ordered { 1 } else { 1_000 },
            ..consumer::pull::Config::default()
        };
        let stream = self.jetstream().await.get_stream(&settings.stream).await.expect("a stream");
        stream.create_consumer(config).await.expect("a consumer");
    }

    /// Gives buckets an outbox each, from which a stream takes events over, as natsctl does for a fleet.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn outboxes(&self, buckets: &[&str], stream: &str) {
        let jetstream = self.jetstream().await;
        outboxes(&jetstream, buckets, stream).await;
    }

    /// The messages in a stream, oldest first, when it has taken over all events of the outboxes of these buckets.
    ///
    /// # Panics
    /// If it does not within ten seconds.
    pub async fn stored_from(&self, buckets: &[&str], stream: &str) -> Vec<Stored> {
        let jetstream = self.jetstream().await;
        let (mut events, mut taken) = (0, 0);
        let all = async {
            loop {
                events = 0;
                for bucket in buckets {
                    let stream = jetstream.get_stream_no_info(format!("KV_{bucket}")).await.expect("a valid name");
                    let subjects = stream.info_with_subjects(format!("outbox.{bucket}.>")).await.expect("a bucket");
                    events += subjects.count().await;
                }
                let stored = self.stored(stream).await;
                taken = stored.iter().filter(|stored| stored.headers.contains_key(STREAM_SOURCE)).count();
                if taken >= events {
                    return stored;
                }
            }
        };
        let stored = tokio::time::timeout(START_TIMEOUT, all).await;
        stored.unwrap_or_else(|_| panic!("`{stream}` has {taken} of {events} events"))
    }

    /// Deletes a stream with its messages.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn delete_stream(&self, name: &str) {
        self.jetstream().await.delete_stream(name).await.expect("a stream to delete");
    }

    /// The messages in a stream, oldest first.
    ///
    /// # Panics
    /// If it cannot be read.
    pub async fn stored(&self, stream: &str) -> Vec<Stored> {
        let stream = self.jetstream().await.get_stream(stream).await.expect("a stream");
        let state = &stream.cached_info().state;
        let mut stored = Vec::new();
        // A stream that never had a message reports 0 as its first sequence.
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.expect("a message");
            let headers = message.headers.iter();
            let headers: BTreeMap<String, String> =
                headers.filter_map(|(name, values)| Some((name.to_string(), values.first()?.to_string()))).collect();
            let id = headers.get("Event-Id").or_else(|| headers.get("Nats-Msg-Id")).cloned();
            stored.push(Stored { subject: message.subject.to_string(), id, payload: message.payload, headers });
        }
        stored
    }

    /// Whether a worker of `service` answers discovery.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub async fn ping(&self, service: &str) -> bool {
        let client = async_nats::connect(&self.ports.nats).await.expect("a connection");
        client.request(format!("$SRV.PING.{service}"), Bytes::new()).await.is_ok()
    }

    async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(&self.ports.nats).await.expect("a connection"))
    }

    /// Puts the server into lame-duck mode: it asks its clients to disconnect before it stops.
    ///
    /// # Panics
    /// If the server has stopped.
    pub fn lame_duck(&self) {
        let sent = Command::new("kill").args(["-USR2", &self.process_id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "nats-server takes the signal");
    }

    /// The id of its process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The number of connected clients; `None` if the server has stopped or is stopping.
    pub fn client_count(&self) -> Option<u64> {
        let address = self.ports.monitoring[0].trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).ok()?;
        stream.write_all(b"GET /connz HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str::<serde_json::Value>(body).ok()?["num_connections"].as_u64()
    }
}

/// As the configuration of a server has it.
impl fmt::Display for User<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, publish, subscribe } = self;
        write!(
            f,
            "{{ user: {name:?}, password: {PASSWORD:?}, permissions: {{ publish: {publish:?}, subscribe: {subscribe:?} }} }}"
        )
    }
}

/// As the configuration of a server has it.
impl fmt::Display for Account<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, exports, imports } = self;
        writeln!(f, "{:?}: {{ users: [{user}]", user.name)?;
        writeln!(f, "exports: [")?;
        for subject in *exports {
            writeln!(f, "{{ stream: {subject:?} }}")?;
        }
        writeln!(f, "]\nimports: [")?;
        for (account, subject, local_subject) in *imports {
            write!(f, "{{ stream: {{ account: {account:?}, subject: {subject:?} }}")?;
            if local_subject != subject {
                write!(f, ", to: {local_subject:?}")?;
            }
            writeln!(f, " }}")?;
        }
        writeln!(f, "] }}")
    }
}

/// How long a test keeps events in an outbox, in seconds.
const OUTBOX_SECONDS: u64 = 3_600;

/// Gives buckets an outbox each, from which a stream takes events over.
async fn outboxes(jetstream: &jetstream::Context, buckets: &[&str], stream: &str) {
    let taking = jetstream.get_stream(stream).await.expect("a stream");
    let taking = taking.cached_info().config.clone();
    // A stream takes over the kinds of events that it has subjects for: `evt`, or `audit`.
    let kinds: BTreeSet<&str> = taking.subjects.iter().filter_map(|subject| subject.split('.').next()).collect();
    let mut sources = Vec::new();
    for bucket in buckets {
        let existing = jetstream.get_stream(format!("KV_{bucket}")).await.expect("a bucket");
        let mut config = existing.cached_info().config.clone();
        config.subjects = [format!("$KV.{bucket}.>"), format!("outbox.{bucket}.>")].into();
        config.allow_atomic_publish = true;
        config.allow_message_ttl = true;
        config.metadata.insert(outbox::OUTBOX_SECONDS.to_owned(), OUTBOX_SECONDS.to_string());
        jetstream.update_stream(&config).await.expect("a bucket with an outbox");
        let transforms = kinds.iter().map(|kind| stream::SubjectTransform {
            source: format!("outbox.{bucket}.*.{kind}.>"),
            destination: format!("{kind}.>"),
        });
        let (name, subject_transforms) = (config.name.clone(), transforms.collect());
        sources.push(stream::Source { name, subject_transforms, ..stream::Source::default() });
    }
    let config = stream::Config { sources: Some(sources), ..taking.clone() };
    jetstream.update_stream(&config).await.expect("a stream that takes events over");
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The nats-server that tests use: `NATSCTL_NATS_SERVER`, or one in `.tools/bin` of a parent folder, or the one on the
/// PATH.
pub fn nats_server() -> PathBuf {
    if let Some(path) = env::var_os("NATSCTL_NATS_SERVER") {
        return path.into();
    }
    let here = env::current_dir().unwrap_or_default();
    let installed = here.ancestors().map(|folder| folder.join(".tools/bin/nats-server")).find(|path| path.is_file());
    installed.unwrap_or_else(|| "nats-server".into())
}

/// Waits until the server listens.
fn wait_for_ports(process: &mut Child, folder: &Path) -> Ports {
    let file = folder.join(format!("nats-server_{}.ports", process.id()));
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(ports) = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return ports;
        }
        let ended = process.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > deadline {
            let log = fs::read_to_string(folder.join("nats.log")).unwrap_or_default();
            panic!("nats-server does not listen ({ended:?}):\n{log}");
        }
        std::thread::yield_now();
    }
}

/// Signs the certificates of a server and its clients.
#[derive(Debug)]
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Writes its own certificate, and those of the server and its clients.
    fn new(folder: &Path) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).expect("no names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("a certificate");
        write(folder, "ca.pem", &authority.pem());
        let authority = Self(authority);
        authority.write_leaf(folder, "server", "127.0.0.1");
        authority.write_leaf(folder, "client", "client");
        authority
    }

    fn write_leaf(&self, folder: &Path, name: &str, address: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut leaf = CertificateParams::new(vec![address.to_owned()]).expect("a valid name");
        // OpenSSL takes a certificate with the name of its issuer for a self-signed one.
        leaf.distinguished_name.push(DnType::CommonName, name);
        write(folder, &format!("{name}.pem"), &leaf.signed_by(&key, &self.0).expect("a certificate").pem());
        write(folder, &format!("{name}.key"), &key.serialize_pem());
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("certificates can be written");
}

//! Real clusters for tests: on ports that the system picks, in a directory of their own, killed when dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::accounts::{Account, Accounts, STORE};
use super::connect::{Access, connect_to};
use super::health;
use super::identity::{Identities, SYSTEM_USER};
use super::locate::{NatsServer, locate};
use super::permissions::Permissions;
use super::pki::{Pki, ServerName};
use super::server::{self, JetStreamConfig, ServerConfig};
use crate::model::status::ClusterHealth;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct TestCluster {
    pub(super) identities: Identities,
    pub(super) pki: Pki,
    nodes: BTreeMap<String, TestServer>,
    _home: TempDir,
}

pub(super) struct TestServer {
    pub(super) client: SocketAddr,
    pub(super) route: SocketAddr,
    process: Child,
}

/// The name of a node and the ports on which it listens.
struct ServerSpec {
    name: String,
    client: SocketAddr,
    route: SocketAddr,
    monitor: SocketAddr,
}

/// One account with JetStream for all these users.
pub(crate) fn one_account(users: impl IntoIterator<Item = (String, Permissions)>) -> Accounts {
    [(STORE.to_owned(), Account::store(users.into_iter().collect(), []))].into()
}

/// Waits until the server has taken all that the client has sent, and the client has got all that the server had for it: the
/// answer to a request that nobody takes comes last. (`Client::flush` waits for the socket only.) The subject is one that
/// the user may publish to.
pub(super) async fn round_trip(client: &async_nats::Client, subject: &'static str) {
    let error = client.request(subject, "".into()).await.unwrap_err();
    assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders, "{subject}: {error}");
}

/// Writes a value of a bucket under a new key together with an event, as the SDK does, and gives the server's answer.
pub(super) async fn write_with_event(client: &Client, bucket: &str, key: &str, event: &str) -> serde_json::Value {
    let headers = |number: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Batch-Id", key);
        headers.insert("Nats-Batch-Sequence", number);
        headers
    };
    let mut first = headers("1");
    first.insert("Nats-TTL", "60");
    first.insert("Event-Id", key);
    client.publish_with_headers(format!("outbox.{bucket}.{key}.{event}"), first, "event".into()).await.unwrap();
    let mut second = headers("2");
    second.insert("Nats-Expected-Last-Subject-Sequence", "0");
    second.insert("Nats-Batch-Commit", "1");
    let answer = client.request_with_headers(format!("$KV.{bucket}.{key}"), second, "value".into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

pub(crate) fn permissions(publish: &[&str], subscribe: &[&str]) -> Permissions {
    let set = |subjects: &[&str]| subjects.iter().map(ToString::to_string).collect();
    Permissions { publish: set(publish), subscribe: set(subscribe) }
}

impl TestCluster {
    /// A cluster that has settled.
    pub(super) async fn start(size: usize, accounts: &Accounts) -> Self {
        let server = locate(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
        for _ in 0..5 {
            let mut cluster = Self::spawn(&server, size, accounts);
            let (access, urls) = (cluster.access(SYSTEM_USER), cluster.urls());
            tokio::select! {
                health = health::wait_until_settled(&access, &urls, PATIENCE) => {
                    health.unwrap();
                    return cluster;
                }
                // Another process took one of the ports in the meantime.
                () = cluster.any_exit() => (),
            }
        }
        panic!("no cluster after five attempts");
    }

    fn spawn(server: &NatsServer, size: usize, accounts: &Accounts) -> Self {
        let home = tempfile::tempdir().unwrap();
        let specs = specs(size);
        let name = |spec: &ServerSpec| ServerName {
            name: spec.name.clone(),
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            dns: vec!["localhost".to_owned()],
        };
        let servers: Vec<ServerName> = specs.iter().map(name).collect();
        let users = accounts.values().flat_map(|account| account.users.keys().cloned());
        let clients: Vec<String> = users.chain([SYSTEM_USER.to_owned()]).collect();
        let pki = Pki::ensure(&home.path().join("pki"), &servers, &clients).unwrap();
        let identities = Identities::ensure(&home.path().join("identities"), accounts).unwrap();
        let nodes = specs.iter().map(|spec| {
            let config = config(home.path(), spec, &specs, &pki, &identities);
            let path = home.path().join(format!("{}.conf", spec.name));
            fs::write(&path, config.render()).unwrap();
            server.check(&path).unwrap();
            let log = File::create(home.path().join(format!("{}.log", spec.name))).unwrap();
            let mut command = Command::new(&server.path);
            let command = command.arg("-c").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            let process = command.kill_on_drop(true).spawn().unwrap();
            (spec.name.clone(), TestServer { client: spec.client, route: spec.route, process })
        });
        Self { nodes: nodes.collect(), identities, pki, _home: home }
    }

    async fn any_exit(&mut self) {
        let exits = self.nodes.values_mut().map(|node| Box::pin(node.process.wait()));
        futures::future::select_all(exits).await.0.unwrap();
    }

    pub(super) fn node(&self, name: &str) -> &TestServer {
        &self.nodes[name]
    }

    pub(super) async fn kill(&mut self, name: &str) {
        self.nodes.get_mut(name).unwrap().process.kill().await.unwrap();
    }

    /// URLs of the nodes by name, those that were killed among them.
    pub(super) fn urls(&self) -> BTreeMap<String, String> {
        self.nodes.iter().map(|(name, node)| (name.clone(), format!("tls://{}", node.client))).collect()
    }

    pub(super) fn access(&self, user: &str) -> Access {
        Access::of(user, self.urls().into_values().collect(), &self.pki, &self.identities)
    }

    pub(super) async fn connect(&self, user: &str) -> async_nats::Client {
        self.access(user).connect(user, PATIENCE).await.unwrap()
    }

    /// A client as a service makes it, with an inbox prefix of its own.
    pub(super) async fn service(&self, name: &str) -> async_nats::Client {
        let access = self.access(name);
        let options = access.options(name).await.unwrap().custom_inbox_prefix(format!("_INBOX_{name}"));
        let options = options.request_timeout(Some(Duration::from_secs(5)));
        connect_to(&access.urls, options, name, PATIENCE).await.unwrap()
    }

    pub(super) async fn health(&self) -> ClusterHealth {
        let client = self.connect(SYSTEM_USER).await;
        health::ask(&client, &self.urls(), Duration::from_secs(1)).await.unwrap()
    }
}

/// All ports are held until all are known, so that they are different.
fn specs(size: usize) -> Vec<ServerSpec> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let held: Vec<TcpListener> = (0..3 * size).map(bind).collect();
    let ports: Vec<SocketAddr> = held.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let spec = |(i, ports): (usize, &[SocketAddr])| ServerSpec {
        name: format!("nats-{}", i + 1),
        client: ports[0],
        route: ports[1],
        monitor: ports[2],
    };
    ports.chunks(3).enumerate().map(spec).collect()
}

fn config(home: &Path, spec: &ServerSpec, specs: &[ServerSpec], pki: &Pki, identities: &Identities) -> ServerConfig {
    let peers = specs.iter().filter(|peer| peer.name != spec.name).map(|peer| peer.route.to_string());
    let cluster = server::ClusterConfig {
        name: "test".to_owned(),
        listen: spec.route,
        peers: peers.collect(),
        tls: pki.route(&spec.name),
    };
    ServerConfig {
        name: spec.name.clone(),
        client: spec.client,
        monitor: spec.monitor,
        monitor_path: None,
        certificates: pki.fingerprint(&spec.name).unwrap(),
        tls: pki.server(&spec.name),
        cluster: (specs.len() > 1).then_some(cluster),
        store: JetStreamConfig { directory: home.join(&spec.name), max_file: 1 << 28, max_memory: 1 << 26 },
        max_payload: 1 << 20,
        trust: identities.into(),
        lame_duck: Duration::from_secs(30),
    }
}

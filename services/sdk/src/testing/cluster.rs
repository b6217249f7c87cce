//! Clusters with JetStream, whose servers may be killed and started again.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::{self, kv, stream};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{nats_server, outboxes};
use crate::settings::ConnectionSettings;

/// Servers find each other, elect leaders and catch up within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Servers of one cluster, killed when it is dropped.
#[derive(Debug)]
pub struct NatsCluster {
    servers: BTreeMap<String, Member>,
    folder: TempDir,
}

#[derive(Debug)]
struct Member {
    client: u16,
    process: Option<Child>,
}

impl NatsCluster {
    /// A cluster of this many servers, which has elected its leader.
    ///
    /// # Panics
    /// If there is no nats-server, or the servers do not find each other.
    pub async fn start(size: usize) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        // Held until all are known, so that they are different.
        let held: Vec<TcpListener> =
            (0..2 * size).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port")).collect();
        let ports: Vec<u16> = held.iter().map(|held| held.local_addr().expect("an address").port()).collect();
        drop(held);
        let (clients, routes) = ports.split_at(size);
        let peers: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let peers = peers.join(", ");
        let mut servers = BTreeMap::new();
        for (number, (client, route)) in clients.iter().zip(routes).enumerate() {
            let name = format!("n{number}");
            let cluster = match size {
                1 => String::new(),
                _ => format!("cluster {{ name: test, listen: \"127.0.0.1:{route}\", routes: [{peers}] }}\n"),
            };
            let config = format!(
                "server_name: {name}\nlisten: \"127.0.0.1:{client}\"\njetstream {{ store_dir: \"{name}\" }}\n{cluster}"
            );
            fs::write(folder.path().join(format!("{name}.conf")), config).expect("the configuration can be written");
            servers.insert(name, Member { client: *client, process: None });
        }
        let mut cluster = Self { servers, folder };
        for name in cluster.names() {
            cluster.restart(&name);
        }
        let ready = async { while cluster.request("$JS.API.STREAM.NAMES", &json!({})).await.is_none() {} };
        tokio::time::timeout(PATIENCE, ready).await.expect("a cluster with a leader");
        cluster
    }

    /// The names of the servers.
    pub fn names(&self) -> Vec<String> {
        self.servers.keys().cloned().collect()
    }

    /// Kills a server (SIGKILL), if it runs.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn kill(&mut self, name: &str) {
        let member = self.servers.get_mut(name).expect("a server of this name");
        if let Some(mut process) = member.process.take() {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts a server, which was killed, with what it had stored.
    ///
    /// # Panics
    /// If there is none of this name, or it does not start.
    pub fn restart(&mut self, name: &str) {
        let folder = self.folder.path().to_owned();
        let member = self.servers.get_mut(name).expect("a server of this name");
        member.process = Some(spawn(&folder, name));
    }

    /// How to connect to any of the servers.
    pub fn connection(&self) -> ConnectionSettings {
        let urls = self.servers.values().map(|member| format!("nats://127.0.0.1:{}", member.client)).collect();
        ConnectionSettings { urls, ..ConnectionSettings::default() }
    }

    /// Creates a bucket on file with an outbox, and the stream that takes its events over, as natsctl does for a fleet.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn bucket_and_stream(&self, bucket: &str, history: i64, stream: &str, subject: &str, replicas: usize) {
        let jetstream = self.jetstream().await;
        let config = kv::Config { bucket: bucket.to_owned(), history, num_replicas: replicas, ..kv::Config::default() };
        jetstream.create_key_value(config).await.expect("a bucket");
        let config = stream::Config {
            name: stream.to_owned(),
            subjects: vec![subject.to_owned()],
            num_replicas: replicas,
            // The shortest that servers allow.
            duplicate_window: Duration::from_millis(100),
            ..stream::Config::default()
        };
        jetstream.create_stream(config).await.expect("a stream");
        outboxes(&jetstream, &[bucket], stream).await;
    }

    /// The server that leads a stream, once there is one and all replicas are current.
    ///
    /// # Panics
    /// If there is none within a minute.
    pub async fn settled_leader(&self, stream: &str) -> String {
        let settled = async {
            loop {
                let info = self.request(&format!("$JS.API.STREAM.INFO.{stream}"), &json!({})).await;
                let cluster = info.unwrap_or_default()["cluster"].take();
                let is_current = |replica: &Value| replica["current"] == true && replica["offline"] != true;
                let current = cluster["replicas"].as_array().is_some_and(|all| all.iter().all(is_current));
                if let (true, Some(leader)) = (current, cluster["leader"].as_str()) {
                    return leader.to_owned();
                }
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.expect("a leader")
    }

    /// JetStream of the cluster.
    ///
    /// # Panics
    /// If no server can be reached.
    pub async fn jetstream(&self) -> jetstream::Context {
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        jetstream::new(options.connect(self.connection().urls).await.expect("a connection"))
    }

    /// The answer of JetStream's API, if it gives one within a second that is no error.
    async fn request(&self, subject: &str, payload: &Value) -> Option<Value> {
        let client = async_nats::connect(self.connection().urls).await.ok()?;
        let asked = client.request(subject.to_owned(), payload.to_string().into());
        let answer = tokio::time::timeout(Duration::from_secs(1), asked).await.ok()?.ok()?;
        let answer: Value = serde_json::from_slice(&answer.payload).ok()?;
        answer["error"].is_null().then_some(answer)
    }
}

impl Drop for NatsCluster {
    fn drop(&mut self) {
        for name in self.names() {
            self.kill(&name);
        }
    }
}

fn spawn(folder: &Path, name: &str) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join(format!("{name}.log")));
    Command::new(nats_server())
        .args(["--config", &format!("{name}.conf")])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("the log can be written"))
        .spawn()
        .expect("nats-server starts")
}

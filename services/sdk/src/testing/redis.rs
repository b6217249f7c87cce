//! A real Redis cluster for tests and benchmarks: TLS, users, on ports of the system, killed when dropped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, io};

use prost::Message;
use tempfile::TempDir;

use super::Authority;
use crate::cache::{Cache, Caches, RedisSettings};

/// The time within which a node must listen, the cluster must be complete and a cache must be connected.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How often other ports are tried if the ones that were free are taken meanwhile.
const ATTEMPTS: usize = 5;
/// The password of the nodes' own user, which replicates and administers.
const ADMIN: &str = "only for tests";
/// The user of services, with the rights that Terraform's rotation gives it (`terraform/modules/redis/users.tf`).
const RIGHTS: &str = "on ~* +@all -@admin -@dangerous";

/// A cluster of Redis nodes. Services log in as `services`.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Node>,
    folder: TempDir,
    /// Counts the files with passwords.
    files: AtomicUsize,
}

#[derive(Debug)]
struct Node {
    port: u16,
    /// For the other nodes.
    bus: u16,
    folder: PathBuf,
    process: Option<Child>,
}

/// What a cluster consists of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Shards, each with one primary.
    pub shards: usize,
    /// Replicas of each shard.
    pub replicas: usize,
    /// `maxmemory` of a node, with the policy `noeviction`; none if absent.
    pub max_memory: Option<&'static str>,
}

impl Shape {
    /// One node that has all slots.
    pub const SMALL: Self = Self { shards: 1, replicas: 0, max_memory: None };
    /// Three shards.
    pub const SHARDED: Self = Self { shards: 3, replicas: 0, max_memory: None };
}

impl RedisCluster {
    /// Starts a cluster whose services log in with `password`.
    ///
    /// # Panics
    /// If there is no redis-server (the message says how to get it), or it does not start.
    pub fn start(shape: Shape, password: &str) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        Authority::new(folder.path());
        let count = shape.shards * (1 + shape.replicas);
        let nodes = (0..count).map(|number| Node::start(folder.path(), number, shape.max_memory, password));
        let cluster = Self { nodes: nodes.collect(), folder, files: AtomicUsize::new(0) };
        cluster.join(shape);
        cluster
    }

    /// Makes the nodes one cluster, and waits until each of them says so.
    fn join(&self, shape: Shape) {
        let (primaries, replicas) = self.nodes.split_at(shape.shards);
        for (shard, node) in primaries.iter().enumerate() {
            let (first, end) = (16_384 * shard / shape.shards, 16_384 * (shard + 1) / shape.shards);
            self.ask(node, &["cluster", "addslotsrange", &first.to_string(), &(end - 1).to_string()]);
            self.ask(node, &["cluster", "set-config-epoch", &(shard + 1).to_string()]);
        }
        let first = &self.nodes[0];
        for node in &self.nodes[1..] {
            self.ask(node, &["cluster", "meet", "127.0.0.1", &first.port.to_string(), &first.bus.to_string()]);
        }
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        let is_whole = |info: &str| info.contains("cluster_state:ok") && info.contains(&known);
        self.wait("the cluster is whole", || self.nodes.iter().all(|node| is_whole(&self.info(node))));
        for (index, replica) in replicas.iter().enumerate() {
            let primary = self.ask(&primaries[index % shape.shards], &["cluster", "myid"]);
            self.ask(replica, &["cluster", "replicate", primary.trim()]);
        }
        for replica in replicas {
            self.wait("a replica is in sync", || {
                self.ask(replica, &["info", "replication"]).contains("master_link_status:up")
            });
        }
    }

    /// How a service logs in with this password, which is in a file of its own.
    pub fn settings(&self, password: &str) -> RedisSettings {
        let file = self.folder.path().join(format!("password-{}", self.files.fetch_add(1, Ordering::Relaxed)));
        fs::write(&file, password).expect("a password can be written");
        let name = self.folder.path().join("username");
        fs::write(&name, "services").expect("a user name can be written");
        RedisSettings {
            urls: self.nodes.iter().map(|node| format!("rediss://127.0.0.1:{}", node.port)).collect(),
            ca: Some(self.folder.path().join("ca.pem").into()),
            username: Some(name.into()),
            password: Some(file.into()),
        }
    }

    /// Sets the passwords of services, as a rotation does, and closes their connections if there is none in common.
    pub fn set_passwords(&self, passwords: &[&str]) {
        for node in &self.nodes {
            let mut command = vec!["acl", "setuser", "services", "resetpass"];
            let passwords: Vec<String> = passwords.iter().map(|password| format!(">{password}")).collect();
            command.extend(passwords.iter().map(String::as_str));
            self.ask(node, &command);
        }
    }

    /// Closes the connections of services.
    pub fn disconnect_services(&self) {
        for node in &self.nodes {
            self.ask(node, &["client", "kill", "user", "services"]);
        }
    }

    /// Kills a node as a power cut does.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts a node that was killed, on its port and with its slots, but without its keys.
    pub fn restart(&mut self, node: usize) {
        let restarted = &mut self.nodes[node];
        assert!(restarted.process.is_none(), "node {node} runs");
        restarted.process = Some(restarted.spawn());
        restarted.wait_until_it_listens().unwrap_or_else(|log| panic!("node {node} does not start again:\n{log}"));
        let restarted = &self.nodes[node];
        self.wait("the node is back", || self.info(restarted).contains("cluster_state:ok"));
    }

    /// Stops a node without closing its connections: it is there and does not answer.
    pub fn pause(&self, node: usize) {
        self.nodes[node].signal("-STOP");
    }

    /// Lets a paused node go on.
    pub fn resume(&self, node: usize) {
        self.nodes[node].signal("-CONT");
    }

    /// Whether a node is a primary.
    pub fn is_primary(&self, node: usize) -> bool {
        self.ask(&self.nodes[node], &["role"]).starts_with("master")
    }

    /// The keys of the whole cluster that match a pattern, in order.
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let alive = self.nodes.iter().filter(|node| node.process.is_some());
        let mut keys: Vec<String> = alive
            .flat_map(|node| {
                let listed = self.ask(node, &["keys", pattern]);
                listed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        keys.sort();
        keys
    }

    /// Sends a command to whichever node has the key, and returns what it prints.
    pub fn command(&self, arguments: &[&str]) -> String {
        let alive = self.nodes.iter().find(|node| node.process.is_some()).expect("a node");
        self.ask(alive, &[&["-c"], arguments].concat())
    }

    /// Waits until a condition holds, while other tasks of the runtime go on.
    ///
    /// # Panics
    /// If it does not within 20 s.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + START_TIMEOUT;
        while !holds().await {
            self.give_up_after(deadline, what);
            tokio::task::yield_now().await;
        }
    }

    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + START_TIMEOUT;
        while !holds() {
            self.give_up_after(deadline, what);
            std::thread::yield_now();
        }
    }

    fn give_up_after(&self, deadline: Instant, what: &str) {
        if Instant::now() > deadline {
            let logs = self.nodes.iter().map(|node| fs::read_to_string(node.folder.join("log")).unwrap_or_default());
            panic!("{what}: not within {START_TIMEOUT:?}\n{}", logs.collect::<Vec<_>>().join("\n"));
        }
    }

    fn info(&self, node: &Node) -> String {
        self.ask(node, &["cluster", "info"])
    }

    fn ask(&self, node: &Node, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["--tls", "--cacert", "ca.pem", "--no-auth-warning", "-p", &node.port.to_string()])
            .args(arguments)
            .env("REDISCLI_AUTH", ADMIN)
            .current_dir(self.folder.path())
            .output();
        let output = output.unwrap_or_else(|error| panic!("redis-cli: {}", missing(&error)));
        assert!(output.status.success(), "redis-cli {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Node {
    fn start(folder: &Path, number: usize, max_memory: Option<&str>, password: &str) -> Self {
        let own = folder.join(number.to_string());
        for attempt in 1.. {
            let [port, bus] = free_ports();
            // The node writes what it knows of the cluster into its folder.
            let _ = fs::remove_dir_all(&own);
            fs::create_dir(&own).expect("a folder of the node");
            fs::write(own.join("redis.conf"), configuration(port, bus, max_memory, password))
                .expect("the configuration can be written");
            let mut node = Self { port, bus, folder: own.clone(), process: None };
            node.process = Some(node.spawn());
            match node.wait_until_it_listens() {
                Ok(()) => return node,
                Err(log) => assert!(attempt < ATTEMPTS, "redis-server does not start:\n{log}"),
            }
        }
        unreachable!("an attempt succeeds or panics")
    }

    fn spawn(&self) -> Child {
        let log = File::create(self.folder.join("log")).expect("the log can be written");
        let started = Command::new(redis_server())
            .arg("redis.conf")
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn();
        started.unwrap_or_else(|error| panic!("redis-server: {}", missing(&error)))
    }

    /// The log if the process has ended.
    fn wait_until_it_listens(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            if log.contains("Ready to accept connections") {
                return Ok(());
            }
            let ended = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                return Err(log);
            }
            std::thread::yield_now();
        }
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("a running node");
        let sent = Command::new("kill").args([signal, &process.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "redis-server takes the signal");
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Opens a cache as one worker of a task does, and waits until it is connected to Redis. Workers that are given clones of
/// the same [`Caches`] are one task.
///
/// # Panics
/// If `caches` does not declare it, or Redis cannot be reached.
pub async fn shared_cache<V: Message + Default>(caches: &Caches, service: &str, name: &str) -> Cache<V> {
    let cache = process_cache(caches, service, name);
    let connected = async {
        while !cache.is_shared() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, connected).await.expect("a connection to Redis");
    cache
}

/// Opens a cache as one worker of a task does, whether it can reach Redis or not.
///
/// # Panics
/// If `caches` does not declare it.
pub fn process_cache<V: Message + Default>(caches: &Caches, service: &str, name: &str) -> Cache<V> {
    Cache::open(caches, caches.connect(), service, name).expect("a declared cache")
}

/// The redis-server that tests use: `NATSCTL_REDIS_SERVER`, or the one on the PATH.
fn redis_server() -> PathBuf {
    env::var_os("NATSCTL_REDIS_SERVER").map_or_else(|| "redis-server".into(), PathBuf::from)
}

fn missing(error: &io::Error) -> String {
    format!("{error}; the tests of the cache need Redis 7 (Debian and Ubuntu: apt-get install redis-server)")
}

/// Two ports that nothing listens on. Redis cannot pick its own.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

fn configuration(port: u16, bus: u16, max_memory: Option<&str>, password: &str) -> String {
    let memory =
        max_memory.map(|limit| format!("maxmemory {limit}\nmaxmemory-policy noeviction\n")).unwrap_or_default();
    format!(
        "bind 127.0.0.1
port 0
tls-port {port}
cluster-port {bus}
tls-cert-file ../server.pem
tls-key-file ../server.key
tls-ca-cert-file ../ca.pem
tls-auth-clients no
tls-cluster yes
tls-replication yes
cluster-enabled yes
cluster-node-timeout 1500
cluster-require-full-coverage no
cluster-announce-ip 127.0.0.1
repl-diskless-sync-delay 0
save \"\"
{memory}user default on \">{ADMIN}\" ~* &* +@all
user services \">{password}\" {RIGHTS}
masterauth \"{ADMIN}\"
"
    )
}

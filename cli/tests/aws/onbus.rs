//! The real services on the emulated ECS: packed, pushed, started in their images, joined to a real NATS cluster with the identities
//! that natsctl made, and proved there by the natsctl that deployed them.

#![allow(clippy::print_stderr, reason = "what is skipped is reported")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use natsctl::manifest;
use natsctl::nats::accounts::Accounts;
use natsctl::nats::connect::Access;
use natsctl::nats::health::wait_until_settled;
use natsctl::nats::identity::{Identities, SYSTEM_USER};
use natsctl::nats::locate::{NatsServer, locate};
use natsctl::nats::permissions::accounts_on_aws;
use natsctl::nats::pki::{Pki, ServerName};
use natsctl::nats::server::{ClusterConfig, JetStreamConfig, ServerConfig};
use serde_json::{Value, json};

use super::fleet::{Fleet, Ran};
use crate::emulator::{Emulator, Foundation};

const CLUSTER: &str = "gaming-system-cluster";
const PATIENCE: Duration = Duration::from_secs(30);
/// A cluster that keeps three copies of everything.
const NODES: usize = 3;
/// Another process may take a port before nats-server does.
const ATTEMPTS: usize = 5;

/// The fleet of this repository, AWS, and NATS.
struct Stage {
    fleet: Fleet,
    emulator: Emulator,
    _nats: Nats,
    binaries: PathBuf,
}

/// Servers that let in whom the authority in Secrets Manager says; killed when dropped.
struct Nats {
    servers: Vec<Child>,
    _home: tempfile::TempDir,
}

/// Where a server listens.
#[derive(Clone, Copy)]
struct Ports {
    client: SocketAddr,
    route: SocketAddr,
    monitor: SocketAddr,
}

impl Stage {
    /// `None`, and says why, where something is missing.
    fn new() -> Option<Self> {
        let Some(binaries) = static_services() else {
            eprintln!("skipped: no static services; `natsctl build --all --profile dev --oci-dir DIR` makes them");
            return None;
        };
        let server = locate(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
        for _ in 0..ATTEMPTS {
            let fleet = Fleet::of(6);
            for name in &fleet.services {
                fleet.manifest(name, "");
            }
            let ports = ports();
            let nats = (ports[0].client.ip().to_string(), ports[0].client.port());
            let emulator = Emulator::start();
            emulator.foundation(&Foundation { nats, ..fleet.foundation() });
            fleet.natsctl(&emulator, &["nats", "identities"]).succeeded();
            let manifests = manifest::load(&fleet.manifests(), "production").unwrap();
            let accounts = accounts_on_aws(&manifests);
            if let Some(nats) = Nats::start(&server, &ports, &authority(&emulator), &accounts) {
                return Some(Self { fleet, emulator, _nats: nats, binaries });
            }
        }
        panic!("no NATS cluster after {ATTEMPTS} attempts");
    }

    /// natsctl inside the network.
    fn deploy(&self, more: &[&str]) -> Ran {
        let binaries = self.binaries.display().to_string();
        let arguments = [&["deploy", "--all", "--binaries", &binaries], more].concat();
        let mut command = self.fleet.command(&self.emulator, &arguments);
        command.env("NATSCTL_PROOF", "bus").env("NATSCTL_BUS", "direct");
        Ran::run(command)
    }

    /// The address of a running task.
    fn address(&self, service: &str) -> String {
        let listed = json!({ "cluster": CLUSTER, "serviceName": service });
        let tasks = &self.emulator.call("ecs", "ListTasks", &listed)["taskArns"];
        let found = self.emulator.call("ecs", "DescribeTasks", &json!({ "cluster": CLUSTER, "tasks": tasks }));
        let details = found["tasks"][0]["attachments"][0]["details"].as_array().unwrap();
        let address = details.iter().find(|detail| detail["name"] == "privateIPv4Address").unwrap();
        address["value"].as_str().unwrap().to_owned()
    }
}

impl Nats {
    /// `None` if a port was taken meanwhile.
    fn start(
        server: &NatsServer,
        ports: &[Ports],
        authority: &BTreeMap<String, String>,
        accounts: &Accounts,
    ) -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        for (file, text) in authority {
            let path = home.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let name = |number: usize| format!("nats-{}", number + 1);
        let called = |number| ServerName {
            name: name(number),
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            dns: vec!["localhost".to_owned()],
        };
        let names: Vec<ServerName> = (0..NODES).map(called).collect();
        let pki = Pki::ensure(&home.path().join("pki"), &names, &[SYSTEM_USER.to_owned()]).unwrap();
        let identities = Identities::ensure(&home.path().join("identities"), accounts).unwrap();
        let mut servers = Vec::new();
        for (number, own) in ports.iter().enumerate() {
            let peers = ports.iter().filter(|peer| peer.route != own.route).map(|peer| peer.route.to_string());
            let config = ServerConfig {
                name: name(number),
                client: own.client,
                monitor: own.monitor,
                monitor_path: None,
                certificates: pki.fingerprint(&name(number)).unwrap(),
                tls: pki.server(&name(number)),
                cluster: Some(ClusterConfig {
                    name: "test".to_owned(),
                    listen: own.route,
                    peers: peers.collect(),
                    tls: pki.route(&name(number)),
                }),
                store: JetStreamConfig {
                    directory: home.path().join(name(number)),
                    max_file: 1 << 32,
                    max_memory: 1 << 28,
                },
                max_payload: 1 << 20,
                trust: (&identities).into(),
                lame_duck: Duration::from_secs(30),
            };
            let file = home.path().join(format!("{}.conf", name(number)));
            fs::write(&file, config.render()).unwrap();
            let log = File::create(home.path().join(format!("{}.log", name(number)))).unwrap();
            let mut command = Command::new(&server.path);
            command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            servers.push(command.spawn().unwrap());
        }
        let mut nats = Self { servers, _home: home };
        let urls: BTreeMap<String, String> =
            ports.iter().enumerate().map(|(number, own)| (name(number), format!("tls://{}", own.client))).collect();
        let access = Access::of(SYSTEM_USER, urls.values().cloned().collect(), &pki, &identities);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let settled = runtime.block_on(wait_until_settled(&access, &urls, PATIENCE));
        let is_gone = nats.servers.iter_mut().any(|server| server.try_wait().unwrap().is_some());
        assert!(settled.is_ok() || is_gone, "{settled:?}");
        (!is_gone).then_some(nats)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// All are held until all are known, so that they are different.
fn ports() -> Vec<Ports> {
    let held: Vec<TcpListener> = (0..3 * NODES).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let ports: Vec<SocketAddr> = held.iter().map(|listener| listener.local_addr().unwrap()).collect();
    ports.chunks(3).map(|ports| Ports { client: ports[0], route: ports[1], monitor: ports[2] }).collect()
}

/// Files by name, as natsctl keeps them.
fn authority(emulator: &Emulator) -> BTreeMap<String, String> {
    let name = json!({ "SecretId": "gaming-system/production/nats/authority" });
    let found = emulator.call("secretsmanager", "GetSecretValue", &name);
    serde_json::from_str(found["SecretString"].as_str().unwrap()).unwrap()
}

/// The folder in which `natsctl build` leaves its binaries, if it has built all.
fn static_services() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_natsctl")).parent()?.parent()?.join("images/x86_64-unknown-linux-gnu");
    let folders = ["debug", "release"].map(|profile| target.join(profile));
    folders.into_iter().find(|folder| folder.join("quest-system").is_file() && folder.join("gateway").is_file())
}

#[test]
fn real_services_are_deployed_and_proved_on_the_bus() {
    let Some(stage) = Stage::new() else { return };
    let deployed = stage.deploy(&[]).succeeded();
    assert!(deployed.stdout.contains("the bus was asked directly"), "{deployed:#?}");
    for service in stage.fleet.services.iter().filter(|name| *name != "gateway") {
        let proof = format!("{service} answers on the bus: 2 tasks of r1");
        assert!(deployed.stdout.contains(&proof), "`{proof}` is not said: {deployed:#?}");
    }

    // From outside: over HTTP, the gateway, NATS, and two services that keep their state in JetStream.
    let url = format!("http://{}:8000/api/quest/v1/generate", stage.address("http-nats-gateway"));
    let quest = post(&url, &json!({ "player_id": "ada", "level": 7, "location": "forest" }));
    assert!(quest["quest"].is_object(), "{quest}");

    stage.emulator.reset_calls();
    let again = stage.deploy(&[]).succeeded();
    assert!(again.stdout.contains("nothing had to be done"), "{again:#?}");
    assert!(again.stdout.contains("quest-system answers on the bus: 2 tasks"), "{again:#?}");
    let writes: Vec<_> = stage.emulator.calls().into_iter().filter(|call| call.is_write).collect();
    assert!(writes.is_empty(), "{writes:#?}");
}

/// What curl is answered.
fn post(url: &str, body: &Value) -> Value {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--header", "content-type: application/json", "--data"]);
    let output = curl.arg(body.to_string()).arg(url).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{url}: {output:?}"))
}

//! What the local environment stands on before anything runs: ports, certificates, identities, server configurations.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::dir::{create_private, write_atomically};
use super::ports::Ports;
use super::protocol::NodeSpec;
use crate::error::Hinted;
use crate::manifest::{Environment, LocalEnvironment, Manifests};
use crate::model::desired;
use crate::nats::connect::Access;
use crate::nats::identity::{Identities, SYSTEM_USER};
use crate::nats::locate::NatsServer;
use crate::nats::permissions;
pub(crate) use crate::nats::permissions::{NATSCTL as ADMIN, OPERATOR};
use crate::nats::pki::{Pki, ServerName};
use crate::nats::server::{self, ClusterConfig, JetStreamConfig, ServerConfig, Trust};

/// What JetStream may keep in memory on one node: the fleet keeps everything in files.
const MAX_MEMORY: u64 = 64 << 20;
/// The shortest that nats-server takes.
const LAME_DUCK: Duration = Duration::from_secs(30);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How to reach an environment that was laid: all that commands need which change nothing. Names files, holds no secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    /// Where clients reach the servers, by name.
    pub(crate) nodes: BTreeMap<String, String>,
    /// How each user connects, by name.
    users: BTreeMap<String, Access>,
}

impl Endpoints {
    /// How a user connects.
    ///
    /// # Errors
    /// If there was no such user when the environment was last deployed.
    pub(crate) fn of(&self, user: &str) -> anyhow::Result<&Access> {
        self.users.get(user).ok_or_else(|| {
            let message = format!("`{user}` has no user on NATS yet");
            Hinted::new(message, format!("`natsctl deploy {user}` makes one")).into()
        })
    }

    /// Those of the environment with this state directory; `None` if it was never deployed.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join("endpoints.json");
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).with_context(|| format!("`{}` is damaged", path.display()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to read `{}`", path.display())),
        }
    }
}

/// See the module.
pub(crate) struct Ground {
    /// The servers by name.
    pub(crate) nodes: BTreeMap<String, GroundNode>,
    dir: PathBuf,
    users: Vec<String>,
    pki: Pki,
    identities: Identities,
}

/// One server, ready to be started.
pub(crate) struct GroundNode {
    pub(crate) spec: NodeSpec,
    /// What it listens on: for clients, for its peers, for monitoring.
    pub(crate) ports: [u16; 3],
}

impl Ground {
    /// Makes what is missing and writes what has changed. `dir` is the environment's state directory.
    pub(crate) fn lay(manifests: &Manifests, dir: &Path, server: &NatsServer) -> anyhow::Result<Self> {
        let ground = Self::lay_at(manifests, dir, dir, server)?;
        for (name, config) in ground.configs(manifests, &ground.dir)? {
            let path = config_path(dir, &name);
            create_private(path.parent().unwrap_or(dir))?;
            if fs::read_to_string(&path).ok().as_deref() != Some(config.as_str()) {
                write_atomically(&path, config.as_bytes())
                    .with_context(|| format!("failed to write `{}`", path.display()))?;
            }
        }
        let endpoints = serde_json::to_vec_pretty(&ground.endpoints())?;
        write_atomically(&dir.join("endpoints.json"), &endpoints).context("failed to write `endpoints.json`")?;
        Ok(ground)
    }

    /// What [`Ground::lay`] would do, done on a copy that is thrown away.
    pub(crate) fn preview(manifests: &Manifests, dir: &Path, server: &NatsServer) -> anyhow::Result<Self> {
        let copy = Scratch::new()?;
        for part in ["ports.json", "pki", "identities"] {
            copy_tree(&dir.join(part), &copy.0.join(part))?;
        }
        Self::lay_at(manifests, &copy.0, dir, server)
    }

    fn lay_at(manifests: &Manifests, at: &Path, dir: &Path, server: &NatsServer) -> anyhow::Result<Self> {
        create_private(at).with_context(|| format!("failed to make `{}`", at.display()))?;
        let users = permissions::users(manifests);
        let names: Vec<String> = (1..=manifests.environment.nodes()).map(|number| format!("nats-{number}")).collect();
        let servers: Vec<ServerName> = names
            .iter()
            .map(|name| ServerName { name: name.clone(), addresses: vec![HOST], dns: vec!["localhost".to_owned()] })
            .collect();
        let clients: Vec<String> = users.keys().cloned().chain([SYSTEM_USER.to_owned()]).collect();
        let pki = Pki::ensure(&at.join("pki"), &servers, &clients)?;
        let identities = Identities::ensure(&at.join("identities"), &users)?;
        let ports = ports(&at.join("ports.json"), manifests, &names)?;

        let mut ground = Self { nodes: BTreeMap::new(), dir: at.to_owned(), users: clients, pki, identities };
        for name in names {
            let config_path = config_path(dir, &name);
            let spec = NodeSpec {
                node: desired::Node { version: server.version.to_string(), config: String::new() },
                program: server.path.clone(),
                args: vec!["--config".to_owned(), config_path.display().to_string()],
                config_path,
            };
            let ports = ["client", "route", "monitor"].map(|kind| ports.port(&format!("{name}/{kind}")));
            ground.nodes.insert(name, GroundNode { spec, ports });
        }
        for (name, config) in ground.configs(manifests, dir)? {
            if let Some(node) = ground.nodes.get_mut(&name) {
                node.spec.node.config = server::digest(&config);
            }
        }
        Ok(ground)
    }

    /// The servers' configurations, as they read when everything is in `dir`.
    fn configs(&self, manifests: &Manifests, dir: &Path) -> anyhow::Result<Vec<(String, String)>> {
        let listen = |port: u16| SocketAddr::new(HOST, port);
        let (here, there) = (self.dir.display().to_string(), dir.display().to_string());
        let mut configs = Vec::new();
        for (name, node) in &self.nodes {
            let [client, route, monitor] = node.ports;
            let peers =
                self.nodes.iter().filter(|(peer, _)| *peer != name).map(|(_, peer)| listen(peer.ports[1]).to_string());
            let cluster = ClusterConfig {
                name: "fleet".to_owned(),
                listen: listen(route),
                peers: peers.collect(),
                tls: self.pki.route(name),
            };
            let config = ServerConfig {
                name: name.clone(),
                client: listen(client),
                monitor: listen(monitor),
                tls: self.pki.server(name),
                certificates: self.pki.fingerprint(name)?,
                cluster: (self.nodes.len() > 1).then_some(cluster),
                store: JetStreamConfig {
                    directory: dir.join("nats").join(name).join("jetstream"),
                    max_file: manifests.max_file_store().bytes(),
                    max_memory: MAX_MEMORY,
                },
                max_payload: manifests.project.nats.max_payload.bytes(),
                trust: Trust::from(&self.identities),
                lame_duck: LAME_DUCK,
            };
            configs.push((name.clone(), config.render().replace(&here, &there)));
        }
        Ok(configs)
    }

    /// What the servers should be, for the plan.
    pub(crate) fn desired(&self) -> BTreeMap<String, desired::Node> {
        self.nodes.iter().map(|(name, node)| (name.clone(), node.spec.node.clone())).collect()
    }

    /// Where clients reach the servers, by name.
    fn urls(&self) -> BTreeMap<String, String> {
        self.nodes.iter().map(|(name, node)| (name.clone(), format!("tls://{HOST}:{}", node.ports[0]))).collect()
    }

    /// How a user connects.
    fn access(&self, user: &str) -> Access {
        Access::of(user, self.urls().into_values().collect(), &self.pki, &self.identities)
    }

    /// How everybody connects.
    pub(crate) fn endpoints(&self) -> Endpoints {
        let users = self.users.iter().map(|user| (user.clone(), self.access(user)));
        Endpoints { nodes: self.urls(), users: users.collect() }
    }
}

fn config_path(dir: &Path, name: &str) -> PathBuf {
    dir.join("nats").join(name).join("nats.conf")
}

fn ports(file: &Path, manifests: &Manifests, names: &[String]) -> anyhow::Result<Ports> {
    let Environment::Local(LocalEnvironment { nats, .. }) = &manifests.environment else {
        anyhow::bail!("environment `{}` is not on this machine", manifests.name);
    };
    let mut wanted = BTreeMap::new();
    for (offset, name) in (0..).zip(names) {
        for (kind, first) in [("client", nats.client_port), ("route", nats.route_port), ("monitor", nats.monitor_port)]
        {
            let port = if first == 0 { 0 } else { first.checked_add(offset).context("NATS ports go beyond 65535")? };
            wanted.insert(format!("{name}/{kind}"), port);
        }
    }
    Ok(Ports::ensure(file, &wanted)?)
}

/// A private directory that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("natsctl-plan-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        create_private(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is in the system's temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.is_dir() {
        create_private(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy_tree(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if from.is_file() {
        fs::copy(from, to)?;
    }
    Ok(())
}

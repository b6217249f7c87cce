//! The files of the local NATS cluster: ports, certificates, identities, server configurations.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::dir::{create_private, lock_briefly, write_atomically};
use super::ports::Ports;
use super::protocol::{Monitor, NodeSpec};
use super::state_file;
use crate::error::{Hinted, at, hint};
use crate::manifest::{Environment, LocalEnvironment, Manifests};
use crate::model::desired;
use crate::nats::accounts;
use crate::nats::connect::Access;
use crate::nats::identity::{Identities, SYSTEM_USER};
use crate::nats::locate::NatsServer;
use crate::nats::permissions;
pub(crate) use crate::nats::permissions::{NATSCTL as ADMIN, OPERATOR};
use crate::nats::pki::{Pki, ServerName, Tls};
use crate::nats::server::{ClusterConfig, JetStreamConfig, ServerConfig, Trust};

/// What JetStream may keep in memory on one node: the fleet keeps everything in files.
const MAX_MEMORY: u64 = 64 << 20;
/// The shortest that nats-server takes.
pub(super) const LAME_DUCK: Duration = Duration::from_secs(30);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How to reach the environment's NATS cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    /// Where clients reach the servers, by name.
    pub(crate) nodes: BTreeMap<String, String>,
    /// Where the servers show health and metrics, by name. Who knows a URL may read it.
    #[serde(default)]
    pub(crate) monitoring: BTreeMap<String, String>,
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

    /// Names of the servers.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.nodes.keys().cloned().collect()
    }

    /// Those of the environment with this state directory; `None` if it was never deployed.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        Ok(state_file::read(&path_of_endpoints(dir))?)
    }
}

fn path_of_endpoints(dir: &Path) -> PathBuf {
    dir.join("endpoints.json")
}

/// The files of an environment's NATS cluster. Keys and ports are made once and stay; configurations are written when a server is
/// started with them, so a change that is refused has not touched those that run.
pub(crate) struct ClusterFiles {
    /// The servers by name.
    pub(crate) nodes: BTreeMap<String, NodeFiles>,
    /// Where keys and ports were read, which is the state directory or a copy of parts of it.
    read_from: PathBuf,
    users: Vec<String>,
    pki: Pki,
    identities: Identities,
    /// What the paths of the servers' monitoring begin with.
    monitor_path: String,
}

/// One server, ready to be started.
pub(crate) struct NodeFiles {
    pub(crate) spec: NodeSpec,
    /// The text of its configuration file.
    config: String,
    /// What it listens on: for clients, for its peers, for monitoring.
    pub(crate) ports: [u16; 3],
}

impl ClusterFiles {
    /// Makes the keys that are missing and reserves ports. `dir` is the environment's state directory.
    pub(crate) fn prepare(manifests: &Manifests, dir: &Path, server: &NatsServer) -> anyhow::Result<Self> {
        create_private(dir)?;
        // Two commands that make keys at the same time must not make two sets of them.
        let _lock = lock_briefly(&dir.join("keys.lock"))?;
        Self::prepare_from(manifests, dir, dir, server)
    }

    /// Makes new certificates for all servers. Those that run go on with the ones that they have read.
    pub(super) fn renew_certificates(manifests: &Manifests, dir: &Path) -> anyhow::Result<()> {
        let _lock = lock_briefly(&dir.join("keys.lock"))?;
        Pki::renew(&dir.join("pki"), &server_names(&node_names(manifests)))
    }

    /// What [`ClusterFiles::prepare`] would give, made in a copy that is deleted.
    pub(crate) fn preview(manifests: &Manifests, dir: &Path, server: &NatsServer) -> anyhow::Result<Self> {
        Self::preview_in(&std::env::temp_dir(), manifests, dir, server)
    }

    /// The copy is made in `folder`.
    fn preview_in(folder: &Path, manifests: &Manifests, dir: &Path, server: &NatsServer) -> anyhow::Result<Self> {
        let copy = Scratch::new(folder)?;
        for part in ["ports.json", "ports.json.backup", "pki", "identities"] {
            copy_tree(&dir.join(part), &copy.0.join(part))?;
        }
        Self::prepare_from(manifests, &copy.0, dir, server).map_err(|error| in_place_of(&copy.0, dir, &error))
    }

    fn prepare_from(manifests: &Manifests, from: &Path, dir: &Path, server: &NatsServer) -> anyhow::Result<Self> {
        let accounts = permissions::accounts(manifests);
        let names = node_names(manifests);
        let servers = server_names(&names);
        let users = accounts.values().flat_map(|account| account.users.keys().cloned());
        let clients: Vec<String> = users.chain([SYSTEM_USER.to_owned()]).collect();
        let pki = Pki::ensure(&from.join("pki"), &servers, &clients)?;
        let identities = Identities::ensure(&from.join("identities"), &accounts)?;
        let ports = ports(&from.join("ports.json"), manifests, &names)?;

        let monitor_path = format!("/{}", identities.secret("monitoring")?);
        let read_from = from.to_owned();
        let mut files = Self { nodes: BTreeMap::new(), read_from, users: clients, pki, identities, monitor_path };
        for name in names {
            let config_path = dir.join("nats").join(&name).join("nats.conf");
            let ports = ["client", "route", "monitor"].map(|kind| ports.port(&format!("{name}/{kind}")));
            let spec = NodeSpec {
                node: desired::Node {
                    version: server.version.to_string(),
                    config: String::new(),
                    accounts: accounts::digest(&accounts),
                },
                program: server.path.clone(),
                args: vec!["--config".to_owned(), config_path.display().to_string()],
                config_path,
                monitor: Some(Monitor { port: ports[2], path: files.monitor_path.clone() }),
            };
            files.nodes.insert(name, NodeFiles { spec, config: String::new(), ports });
        }
        for (name, config) in files.configs(manifests, dir)? {
            if let Some(node) = files.nodes.get_mut(&name) {
                node.spec.node.config = config.digest();
                node.config = config.render();
            }
        }
        Ok(files)
    }

    /// Writes how clients connect.
    pub(crate) fn write_endpoints(&self, dir: &Path) -> anyhow::Result<()> {
        Ok(state_file::write(&path_of_endpoints(dir), &self.endpoints())?)
    }

    /// Writes how clients connect, if that cannot be read. What runs is reached with it, before anything is changed.
    pub(crate) fn restore_endpoints(&self, dir: &Path) -> anyhow::Result<()> {
        match Endpoints::read(dir) {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => self.write_endpoints(dir),
        }
    }

    /// Writes the configuration of a server, once the server has accepted it.
    ///
    /// # Errors
    /// What nats-server says is wrong with it; the configuration that was there stays.
    pub(crate) fn write_config(&self, node: &str, server: &NatsServer) -> anyhow::Result<&NodeSpec> {
        let node = self.node(node)?;
        let path = &node.spec.config_path;
        if let Some(new) = node.checked_config(server)? {
            fs::rename(&new, path).with_context(|| format!("failed to write `{}`", path.display()))?;
        }
        Ok(&node.spec)
    }

    /// Whether a server would accept its configuration. What is there stays.
    ///
    /// # Errors
    /// What nats-server says is wrong with it.
    pub(super) fn check_config(&self, node: &str, server: &NatsServer) -> anyhow::Result<()> {
        match self.node(node)?.checked_config(server)? {
            None => Ok(()),
            Some(new) => fs::remove_file(&new).with_context(|| format!("failed to remove `{}`", new.display())),
        }
    }

    /// The files of one server.
    ///
    /// # Errors
    /// If the environment has no such server.
    pub(crate) fn node(&self, name: &str) -> anyhow::Result<&NodeFiles> {
        self.nodes.get(name).with_context(|| format!("the environment has no node `{name}`"))
    }

    /// The servers' configurations, as they read when everything is in `dir`.
    fn configs(&self, manifests: &Manifests, dir: &Path) -> anyhow::Result<Vec<(String, ServerConfig)>> {
        let listen = |port: u16| SocketAddr::new(HOST, port);
        let there = |tls: Tls| moved(tls, &self.read_from, dir);
        let mut configs = Vec::new();
        for (name, node) in &self.nodes {
            let [client, route, monitor] = node.ports;
            let peers =
                self.nodes.iter().filter(|(peer, _)| *peer != name).map(|(_, peer)| listen(peer.ports[1]).to_string());
            let cluster = ClusterConfig {
                name: "fleet".to_owned(),
                listen: listen(route),
                peers: peers.collect(),
                tls: there(self.pki.route(name)),
            };
            let config = ServerConfig {
                name: name.clone(),
                client: listen(client),
                monitor: listen(monitor),
                monitor_path: Some(self.monitor_path.clone()),
                tls: there(self.pki.server(name)),
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
            configs.push((name.clone(), config));
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

    /// How all users connect.
    pub(crate) fn endpoints(&self) -> Endpoints {
        let users = self.users.iter().map(|user| (user.clone(), self.access(user)));
        let monitoring = self.nodes.iter().map(|(name, node)| {
            let [.., port] = node.ports;
            (name.clone(), format!("http://{HOST}:{port}{}", self.monitor_path))
        });
        Endpoints { nodes: self.urls(), monitoring: monitoring.collect(), users: users.collect() }
    }
}

impl NodeFiles {
    /// The configuration in a file beside the one that is there, once the server has accepted it; `None` if they are the same.
    fn checked_config(&self, server: &NatsServer) -> anyhow::Result<Option<PathBuf>> {
        let path = &self.spec.config_path;
        if fs::read_to_string(path).ok().as_deref() == Some(self.config.as_str()) {
            return Ok(None);
        }
        create_private(path.parent().context("a configuration file is in a folder")?)?;
        let new = path.with_extension("conf.new");
        write_atomically(&new, self.config.as_bytes())?;
        server.check(&new)?;
        Ok(Some(new))
    }
}

fn node_names(manifests: &Manifests) -> Vec<String> {
    (1..=manifests.environment.nodes()).map(|number| format!("nats-{number}")).collect()
}

fn server_names(nodes: &[String]) -> Vec<ServerName> {
    let server =
        |name: &String| ServerName { name: name.clone(), addresses: vec![HOST], dns: vec!["localhost".to_owned()] };
    nodes.iter().map(server).collect()
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

/// The same files, where they are when what is in `from` is in `to`.
fn moved(tls: Tls, from: &Path, to: &Path) -> Tls {
    let moved = |path: PathBuf| path.strip_prefix(from).map(|inside| to.join(inside)).unwrap_or(path);
    Tls { authority: moved(tls.authority), certificate: moved(tls.certificate), key: moved(tls.key) }
}

/// An error about a copy, as one about what it is a copy of.
fn in_place_of(copy: &Path, original: &Path, error: &anyhow::Error) -> anyhow::Error {
    let (copy, original) = (copy.display().to_string(), original.display().to_string());
    let message = format!("{error:#}").replace(&copy, &original);
    Hinted::with(message, hint(error).map(|hint| hint.replace(&copy, &original))).into()
}

/// A private directory that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(format!("natsctl-plan-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        // Not with the folders above it: a temporary directory that is missing is not made by looking at a plan.
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            let message = format!("failed to make a folder in the temporary directory `{}`", folder.display());
            Hinted::new(message, "set `TMPDIR` to a folder that exists and can be written to").because(error)
        })?;
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
    copy_entry(from, to).with_context(|| format!("failed to copy `{}`", from.display()))
}

/// What is not there is not copied; what cannot be read is an error.
fn copy_entry(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = match fs::metadata(from) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if metadata.is_dir() {
        create_private(to)?;
        for entry in fs::read_dir(from).map_err(at("read", from))? {
            let entry = entry.map_err(at("read", from))?;
            copy_entry(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if metadata.is_file() {
        fs::copy(from, to).map_err(at("copy", from))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

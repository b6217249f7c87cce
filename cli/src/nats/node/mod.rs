//! A NATS server on a machine with systemd: what it should be, what it is, in what the two differ, and the scripts that find it out and
//! bring it there. No I/O: the platform that reaches the machines runs the scripts.
//!
//! ```text
//! /opt/nats/<version>/nats-server     releases, side by side; `current` is a link to the one that is started
//! /etc/nats/nats.conf, accounts.conf  configuration; the first includes the second
//! /etc/nats/tls/<digest>/             certificates and keys, fetched by the node from its own secret
//! /var/lib/nats/natsctl-server        whose data the volume has: cluster and server
//! ```

pub mod plan;
pub mod secret;
pub mod state;
pub mod unit;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use self::unit::{Unit, unit};
use super::pki::{ServerName, Tls};
use super::server::{ClusterConfig, JetStreamConfig, LogFile, ServerConfig, Trust};
use crate::manifest::Release;

/// Ports of every node, which the security groups allow.
pub(crate) const CLIENT: u16 = 4222;
const ROUTE: u16 = 6222;
const MONITOR: u16 = 8222;
/// How long clients have to leave a server that stops; nats-server's own default, and less than the load balancer waits.
pub(crate) const LAME_DUCK: Duration = Duration::from_secs(120);
/// What JetStream may keep in memory on one node: the fleet keeps everything in files.
const MAX_MEMORY: u64 = 64 << 20;
/// The server rotates its log by itself; the CloudWatch agent follows the newest file.
const LOG_SIZE: u64 = 64 << 20;
const LOG_FILES: u32 = 5;
/// How long a server may take until it is in contact with a leader, with all it has stored.
const PATIENCE: Duration = Duration::from_secs(300);
/// Digits of the digest that names certificates.
pub const FINGERPRINT: usize = 16;

const APPLY: &str = include_str!("apply.sh");

/// The cluster, as far as all nodes have it in common.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// Name of the NATS cluster.
    pub name: String,
    /// Where Secrets Manager is.
    pub region: String,
    /// The servers by name, with their private addresses.
    pub nodes: BTreeMap<String, Ipv4Addr>,
    /// Name that clients connect to.
    pub host: String,
    /// What the servers run.
    pub release: Release,
    /// Largest message in bytes.
    pub max_payload: u64,
    /// Most bytes of JetStream on one node.
    pub max_file: u64,
}

/// What one node should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Name of the server.
    pub name: String,
    /// Where it listens.
    pub address: Ipv4Addr,
    /// Name of the cluster.
    pub cluster: String,
    /// Where Secrets Manager is.
    pub region: String,
    /// Name of the secret with its certificates and keys.
    pub secret: String,
    /// What names these certificates.
    pub certificates: String,
    /// What it runs.
    pub release: Release,
    /// `nats.conf`.
    pub config: String,
    /// `accounts.conf`, the same on every node.
    pub accounts: String,
    /// `nats.service`.
    pub unit: Unit,
}

/// Whether the configuration of a server that runs may be replaced and reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It may.
    Allowed,
    /// It would take a restart: only accounts are reloaded.
    AccountsOnly,
    /// The server is restarted with everything that is planned: a roll has made sure that the others do without it.
    Restart,
}

impl ClusterSpec {
    /// Everything that a node may be called by clients and other nodes.
    pub fn server_name(&self, node: &str) -> ServerName {
        let zone = self.host.split_once('.').map(|(_, zone)| format!("{node}.{zone}"));
        let own = self.nodes.get(node).map(|address| IpAddr::V4(*address));
        let names = [self.host.clone(), node.to_owned(), "localhost".to_owned()];
        // A host may be given by its address.
        let (addresses, dns): (Vec<String>, Vec<String>) =
            names.into_iter().chain(zone).partition(|name| name.parse::<IpAddr>().is_ok());
        let addresses = addresses.iter().filter_map(|address| address.parse().ok());
        let dns = if self.host.parse::<IpAddr>().is_ok() {
            dns.into_iter().filter(|name| !name.starts_with(&format!("{node}."))).collect()
        } else {
            dns
        };
        ServerName {
            name: node.to_owned(),
            addresses: addresses.chain(own).chain([IpAddr::V4(Ipv4Addr::LOCALHOST)]).collect(),
            dns,
        }
    }

    /// What a node should have; `certificates` names those that are in its secret. `None` for a name that no node has.
    pub fn node(&self, name: &str, secret: &str, certificates: &str, trust: &Trust) -> Option<NodeSpec> {
        let address = *self.nodes.get(name)?;
        let at = |port: u16| SocketAddr::from((address, port));
        let folder = Path::new("/etc/nats/tls").join(certificates);
        let tls = |kind: &str| Tls {
            authority: folder.join(format!("{kind}-ca.crt")),
            certificate: folder.join(format!("{kind}-tls.crt")),
            key: folder.join(format!("{kind}-tls.key")),
        };
        let others = self.nodes.iter().filter(|(other, _)| *other != name);
        let config = ServerConfig {
            name: name.to_owned(),
            client: at(CLIENT),
            monitor: at(MONITOR),
            // The load balancer's health check has a fixed path; who may connect is up to the security group.
            monitor_path: None,
            tls: tls("server"),
            certificates: certificates.to_owned(),
            cluster: (self.nodes.len() > 1).then(|| ClusterConfig {
                name: self.name.clone(),
                listen: at(ROUTE),
                peers: others.map(|(_, address)| format!("{address}:{ROUTE}")).collect(),
                tls: tls("routes"),
            }),
            store: JetStreamConfig {
                directory: PathBuf::from("/var/lib/nats/jetstream"),
                max_file: self.max_file,
                max_memory: MAX_MEMORY,
            },
            max_payload: self.max_payload,
            trust: trust.clone(),
            lame_duck: LAME_DUCK,
        };
        let log = LogFile { path: PathBuf::from("/var/log/nats/nats.log"), max_size: LOG_SIZE, files: LOG_FILES };
        let parts = config.render_parts(&log, "accounts.conf");
        Some(NodeSpec {
            name: name.to_owned(),
            address,
            cluster: self.name.clone(),
            region: self.region.clone(),
            secret: secret.to_owned(),
            certificates: certificates.to_owned(),
            release: self.release.clone(),
            config: parts.config,
            accounts: parts.accounts,
            unit: unit(LAME_DUCK),
        })
    }
}

impl NodeSpec {
    /// SHA-256 of the accounts, in hexadecimal.
    pub fn accounts_digest(&self) -> String {
        sha256(&self.accounts)
    }

    /// The script that brings the node there; see `apply.sh`. The accounts must have arrived before it.
    pub fn apply_script(&self, reload: Reload) -> String {
        let mut script = String::new();
        let release = &self.release;
        let reload = match reload {
            Reload::Allowed => "yes",
            Reload::AccountsOnly => "no",
            Reload::Restart => "restart",
        };
        for (name, value) in [
            ("node", self.name.as_str()),
            ("address", &self.address.to_string()),
            ("cluster", &self.cluster),
            ("region", &self.region),
            ("secret", &self.secret),
            ("certificates", &self.certificates),
            ("accounts", &self.accounts_digest()),
            ("version", &release.version),
            ("url_amd64", &release.amd64.url),
            ("sha256_amd64", &release.amd64.sha256),
            ("url_arm64", &release.arm64.url),
            ("sha256_arm64", &release.arm64.sha256),
            ("reload", reload),
            ("patience", &PATIENCE.as_secs().to_string()),
        ] {
            script.push_str(&assignment(name, value));
        }
        script.push_str(&heredoc("configuration", &self.config));
        script.push_str(&heredoc("service_unit", &self.unit.text));
        script + APPLY
    }
}

/// The script that says what there is on a node; see `observe.sh` and [`state::NodeState::parse`].
pub const OBSERVE_SCRIPT: &str = include_str!("observe.sh");

/// The script that restarts the server of a node as it is; a roll has made sure that the others do without it. It leaves by lame duck, and
/// the script does not wait for that.
pub const RESTART_SCRIPT: &str = "set -euo pipefail\nmkdir -p /run/natsctl\nexec 9>/run/natsctl/apply.lock\n\
    flock --wait 120 9 || { echo 'failed: another natsctl has been working on this node for two minutes'; exit 1; }\n\
    systemctl reset-failed nats 2>/dev/null || true\nsystemctl restart --no-block nats\necho 'did: restarting'\n";

/// The script that says what there is on a node and how its server is; see `observe.sh` and `survey.sh`.
pub fn survey_script() -> String {
    format!("{OBSERVE_SCRIPT}\n{}", include_str!("survey.sh"))
}

/// Scripts that store a part each of a compressed text, in the Base64 alphabet, for the script that needs it.
pub fn upload_scripts(accounts_digest: &str, encoded: &str, part_size: usize) -> Vec<String> {
    // The alphabet has one byte for each letter.
    let parts = encoded.as_bytes().chunks(part_size.max(1)).map(String::from_utf8_lossy);
    let script = |(number, part): (usize, std::borrow::Cow<'_, str>)| {
        format!(
            "set -eu\numask 077\nmkdir -p /run/natsctl\nfile=/run/natsctl/accounts-{accounts_digest}.{number:03}\n\
             printf %s '{part}' >\"$file.new\"\nmv \"$file.new\" \"$file\"\n"
        )
    };
    parts.enumerate().map(script).collect()
}

/// `name='value'`, whatever the value has in it.
fn assignment(name: &str, value: &str) -> String {
    format!("{name}='{}'\n", value.replace('\'', r"'\''"))
}

/// A function of the shell that prints a text.
fn heredoc(name: &str, text: &str) -> String {
    const END: &str = "END-OF-WHAT-NATSCTL-WROTE";
    debug_assert!(!text.lines().any(|line| line == END), "the text ends early");
    format!("{name}() {{ cat <<'{END}'\n{text}{END}\n}}\n")
}

fn sha256(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text))
}

#[cfg(test)]
mod tests;

//! What there is of a NATS server on a node, as `observe.sh` says it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What there is on a node. What could not be found out is an empty text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// The machine's own name.
    pub name: String,
    /// Its architecture, as `uname` says it.
    pub machine: String,
    /// Whether the data volume is mounted.
    pub mounted: bool,
    /// Whether the user and the folders are there that Terraform's user data makes.
    pub prepared: bool,
    /// Cluster and server whose data the volume has.
    pub owner: String,
    /// As systemd says it: `active`, `inactive`, `failed`.
    pub state: String,
    /// Installed releases with the digests of their archives.
    pub installed: BTreeMap<String, String>,
    /// Digest of `accounts.conf`.
    pub accounts_file: String,
    /// Digest of the JWT of each account, shortened, by the account's key.
    pub accounts: BTreeMap<String, String>,
    /// Certificates that were fetched, with when they expire.
    pub certificates: BTreeMap<String, String>,
    /// What the process that runs has; `None` if none does.
    pub running: Option<Running>,
    /// `nats.conf`.
    pub config: Option<String>,
    /// `nats.service`.
    pub unit: Option<String>,
}

/// A server that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Version of its program.
    pub version: String,
    /// Digest of the unit that it was started with.
    pub unit: String,
    /// Digest of the configuration that it has taken.
    pub config: String,
    /// Digest of the configuration that is in its files.
    pub config_in_files: String,
    /// Its answer about its health.
    pub health: String,
    /// The leader of JetStream's cluster, as far as it knows.
    pub leader: String,
}

impl Running {
    /// Whether it is in contact with a leader of JetStream's cluster.
    pub fn is_healthy(&self) -> bool {
        self.health.contains(r#""status":"ok""#)
    }
}

impl NodeState {
    /// Reads the output of the script.
    ///
    /// # Errors
    /// The first line that is not understood: an answer of which a part is missing is not one of less.
    pub fn parse(output: &str) -> anyhow::Result<Self> {
        let mut state = Self::default();
        let mut running = Running::default();
        let mut seen = BTreeSet::new();
        let mut files: BTreeMap<&str, String> = BTreeMap::new();
        let mut file = None;
        for line in output.lines() {
            if let Some(text) = line.strip_prefix("| ").or_else(|| line.strip_prefix('|')) {
                let text_so_far: &mut String = files.entry(file.unwrap_or_default()).or_default();
                text_so_far.push_str(text);
                text_so_far.push('\n');
                continue;
            }
            let (key, value) =
                line.split_once(':').ok_or_else(|| anyhow::anyhow!("the node answers `{line}`, which is no fact"))?;
            let value = value.trim();
            let owned = || value.to_owned();
            let pair = || value.split_once(' ').map_or((owned(), String::new()), |(a, b)| (a.to_owned(), b.to_owned()));
            match key {
                "name" => state.name = owned(),
                "machine" => state.machine = owned(),
                "mounted" => state.mounted = value == "yes",
                "prepared" => state.prepared = value == "yes",
                "owner" => state.owner = owned(),
                "state" => state.state = owned(),
                "installed" => state.installed.extend([pair()]),
                "accounts" => state.accounts_file = owned(),
                "account" => state.accounts.extend([pair()]),
                "certificates" => state.certificates.extend([pair()]),
                "running" => running.version = owned(),
                "running-unit" => running.unit = owned(),
                "running-config" => running.config = owned(),
                "file-config" => running.config_in_files = owned(),
                "health" => running.health = owned(),
                "leader" => running.leader = owned(),
                "file" => file = Some(value),
                _ => anyhow::bail!("the node answers `{line}`, which is no fact"),
            }
            seen.insert(key);
        }
        for fact in ["name", "machine", "mounted", "prepared", "owner", "state", "accounts"] {
            anyhow::ensure!(seen.contains(fact), "the node's answer lacks `{fact}`");
        }
        if seen.contains("running") {
            anyhow::ensure!(seen.contains("leader"), "the node's answer lacks `leader`");
            state.running = Some(running);
        }
        state.config = files.remove("/etc/nats/nats.conf");
        state.unit = files.remove("/etc/systemd/system/nats.service");
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: &str =
        "name: nats-1\nmachine: x86_64\nmounted: yes\nprepared: yes\nowner: \nstate: inactive\naccounts: \n";

    #[test]
    fn a_fresh_node_has_nothing() {
        let state = NodeState::parse(FRESH).unwrap();
        assert_eq!((state.name.as_str(), state.mounted, state.state.as_str()), ("nats-1", true, "inactive"));
        assert_eq!((state.running, state.config, state.owner.as_str()), (None, None, ""));
    }

    #[test]
    fn a_server_that_runs_is_described() {
        let more = "installed: 2.15.0 5d2c\naccount: AAA 0123\ncertificates: 89ab Nov 30 12:00:00 2027 GMT\n\
            running: 2.15.0\nrunning-unit: 77\nrunning-config: sha256:1\nfile-config: sha256:1\n\
            health: {\"status\":\"ok\"}\nleader: nats-2\nfile: /etc/nats/nats.conf\n| a: 1\n| \n|   b: 2\n";
        let state = NodeState::parse(&format!("{FRESH}{more}")).unwrap();
        assert_eq!(state.config.as_deref(), Some("a: 1\n\n  b: 2\n"));
        assert_eq!(state.certificates["89ab"], "Nov 30 12:00:00 2027 GMT");
        let running = state.running.unwrap();
        assert!(running.is_healthy());
        assert_eq!((running.version.as_str(), running.leader.as_str()), ("2.15.0", "nats-2"));
    }

    #[test]
    fn an_answer_that_is_not_whole_is_none() {
        let refused = |text: &str| NodeState::parse(text).unwrap_err().to_string();
        assert_eq!(refused("name: nats-1\n"), "the node's answer lacks `machine`");
        assert_eq!(refused("bash: no"), "the node answers `bash: no`, which is no fact");
        assert_eq!(refused(&format!("{FRESH}running: 2.15.0\n")), "the node's answer lacks `leader`");
    }
}

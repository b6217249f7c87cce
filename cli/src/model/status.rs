//! The status of an environment: the same answer for every platform.

pub(crate) mod service;

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

pub(crate) use self::service::{Flag, OldTasks, ServiceStatus, State, crash_loop};
use crate::problem::counted;

/// What `natsctl status` shows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) environment: String,
    /// Whether everything runs as it was deployed.
    pub(crate) healthy: bool,
    /// What changes it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deploying: Option<Deploying>,
    pub(crate) services: Vec<ServiceStatus>,
    /// `None` if its servers cannot be asked from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nats: Option<ClusterHealth>,
    pub(crate) gateway: GatewayStatus,
    /// Calls that services reject. They are among the problems, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) open_circuits: Vec<OpenCircuit>,
    /// What is wrong beyond single services and nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<String>,
    /// What could not be found out, and how it could be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

/// A change that another process makes now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Deploying {
    /// The user, on AWS the ARN of the caller.
    pub(crate) who: String,
    /// As typed.
    pub(crate) command: String,
    pub(crate) since: Timestamp,
}

/// Where HTTP clients come in.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GatewayStatus {
    pub(crate) url: Option<String>,
}

/// Calls that a service rejects at once, because what it calls did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenCircuit {
    /// The service whose calls are rejected.
    pub caller: String,
    /// The package that is called, for example `quest.v1`.
    pub destination: String,
    /// The service that serves it; `None` if no manifest says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callee: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// Workers of the caller whose circuit is open.
    pub workers: u32,
}

impl fmt::Display for OpenCircuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, destination, callee, since, workers } = self;
        write!(f, "`{caller}` rejects calls to ")?;
        match callee {
            Some(callee) => write!(f, "`{callee}` (`{destination}`)")?,
            None => write!(f, "`{destination}`")?,
        }
        let workers = counted(workers, "worker");
        write!(f, " since {since:.0}, in {workers}: it did not answer")
    }
}

/// Health of the NATS cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterHealth {
    /// The expected nodes, by name.
    pub nodes: Vec<NodeHealth>,
    /// Whether a majority follows one meta leader that answers: streams can be made and changed.
    pub quorum: bool,
    /// Why the servers could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The streams by name, where they were asked for; those behind buckets are among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamHealth>,
}

/// Health of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamHealth {
    /// Its name; that behind a bucket begins with `KV_`.
    pub name: String,
    /// Whether it can be written to.
    pub state: StreamState,
    /// The node that leads it.
    pub leader: Option<String>,
    /// Its replicas by node.
    pub replicas: Vec<ReplicaHealth>,
    /// What is wrong with it or with one of its consumers, to follow its name in a sentence.
    pub reason: Option<String>,
}

/// Whether a stream can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// A majority of its replicas follows a leader.
    Ok,
    /// A majority of its replicas is up and has no leader yet.
    NoLeader,
    /// Too few of its replicas are up.
    NoQuorum,
    /// No server says anything of it.
    Unknown,
}

/// One replica of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaHealth {
    /// The node that has it.
    pub node: String,
    /// How far it is.
    pub state: ReplicaState,
}

/// How far a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// It has what the leader has.
    Current,
    /// It is up and has less.
    Behind,
    /// It does not answer.
    Offline,
    /// It is up, and without a leader nobody knows what it lacks.
    Unknown,
}

impl ClusterHealth {
    /// Whether there is a quorum and all nodes have settled, besides those with these names.
    pub fn has_settled_besides(&self, others: &BTreeSet<String>) -> bool {
        self.quorum && self.nodes.iter().all(|node| node.settled || others.contains(&node.name))
    }

    /// Whether nothing is wrong with nodes, streams and consumers.
    pub(crate) fn is_healthy(&self) -> bool {
        self.quorum
            && self.nodes.iter().all(|node| node.healthy)
            && self.streams.iter().all(|stream| stream.reason.is_none())
    }

    /// Whether there is a quorum and all nodes have settled.
    pub fn has_settled(&self) -> bool {
        self.has_settled_besides(&BTreeSet::new())
    }
}

/// Health of one NATS server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeHealth {
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub url: String,
    /// Whether it says that it is.
    pub healthy: bool,
    /// Whether it leads JetStream.
    pub meta_leader: bool,
    /// What it runs.
    pub version: Option<String>,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// Whether it is healthy, follows the meta leader, and has everything that the leader has.
    #[serde(skip)]
    pub settled: bool,
}

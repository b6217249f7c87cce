//! What runs: the observed state, as a platform read it. A read that failed is not an absence, and a plan is never made through one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::desired::{Bucket, Consumer, Definition, Identity, Image, Node, Scaling, Stream};
use super::ecs::EcsService;

/// What a read found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen<T> {
    /// It is there.
    Present(T),
    /// It is not there.
    #[default]
    Absent,
    /// It could not be read, for this reason.
    Unknown(String),
}

/// The observed state of an environment, as far as a change needs it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    /// NATS servers by name.
    pub nodes: BTreeMap<String, ObservedNode>,
    /// What JetStream holds; absent where no server has ever run.
    pub jetstream: Seen<Assets>,
    /// Services by name.
    pub services: BTreeMap<String, ObservedService>,
    /// Images that the registry has, by service.
    pub images: BTreeMap<String, Image>,
    /// Identities on NATS whose secrets have a value, by user.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub identities: BTreeMap<String, Identity>,
    /// Running tasks, only for a change that stops some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<ObservedTask>,
}

impl AsRef<Self> for Observed {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Streams, buckets and consumers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assets {
    /// JetStream streams by name, without those behind buckets.
    pub streams: BTreeMap<String, Stream>,
    /// JetStream key-value buckets by name.
    pub buckets: BTreeMap<String, Bucket>,
    /// Durable consumers of streams by stream and name, without those of buckets.
    #[serde(default)]
    pub consumers: BTreeMap<String, Consumer>,
}

/// A NATS server that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNode {
    /// What it was started with.
    pub node: Node,
    /// Whether its process runs.
    pub running: bool,
    /// How it is while its process runs.
    #[serde(default, skip_serializing_if = "NodeCondition::is_healthy")]
    pub condition: NodeCondition,
}

/// How a NATS server is whose process runs. Of a broken one it is known that waiting does not help.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeCondition {
    /// It does its work, or nobody has asked.
    #[default]
    Healthy,
    /// It starts or catches up, for this reason: it is waited for.
    Settling(String),
    /// It answers, but does not heal by itself, for this reason. It may still be part of the quorum.
    Failing(String),
    /// It is no part of the quorum and does not heal by itself, for this reason: it hangs, or its JetStream is off.
    Out(String),
}

impl NodeCondition {
    /// Whether nothing is wrong.
    pub fn is_healthy(&self) -> bool {
        *self == Self::Healthy
    }

    /// Why only a restart helps, if that is so.
    pub fn broken(&self) -> Option<&str> {
        match self {
            Self::Healthy | Self::Settling(_) => None,
            Self::Failing(reason) | Self::Out(reason) => Some(reason),
        }
    }
}

/// A service that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedService {
    /// What it was last brought to.
    #[serde(flatten)]
    pub state: ServiceState,
    /// Tasks of the current revision that run.
    pub running: u32,
    /// Other revisions that are known, the most recent first; only for a change that may roll back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<Revision>,
    /// What no manifest sets and a deployment leaves as it is, by its name in the API.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<String, Value>,
    /// Bounds of the number of tasks that something else than the manifest sets: scheduled scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Scaling>,
}

/// What a service was last brought to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// What its current revision is made of.
    pub definition: Definition,
    /// Number of the current revision, from 1.
    pub revision: u64,
    /// ARN of the current revision, where revisions have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_definition: Option<String>,
    /// The number of tasks that the manifest asked for when it was last deployed.
    pub declared_tasks: u32,
    /// The number of tasks that it should run now, after `scale` and autoscaling.
    pub desired: u32,
    /// Whether the last deployment failed and was rolled back or stopped.
    pub failed: bool,
    /// Whether its current revision was deregistered: what runs goes on, and nothing new can be started of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inactive: bool,
    /// What it is on ECS besides its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs: Option<EcsService>,
}

impl Revision {
    /// Whether it is what a service runs. Revisions of different families may have the same number.
    pub fn is_of(&self, state: &ServiceState) -> bool {
        match (&self.task_definition, &state.task_definition) {
            (Some(one), Some(other)) => one == other,
            _ => self.number == state.revision,
        }
    }
}

/// A revision that a service may be rolled back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number within the service.
    pub number: u64,
    /// Its ARN, where revisions have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_definition: Option<String>,
    /// What it is made of, where that is known without another call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    /// Whether its deployment succeeded: only these are rolled back to without being named.
    pub succeeded: bool,
}

/// A task that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedTask {
    /// Unique in the environment.
    pub id: String,
    /// The service that it belongs to; `None` for one that runs on its own.
    pub service: Option<String>,
}

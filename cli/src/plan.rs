//! What must change: the observed state, and the pure comparison of it with the desired one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fleet::{Bucket, Definition, Fleet, Node, Stream};

/// What is there, as a platform saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    /// NATS servers by name.
    pub nodes: BTreeMap<String, ObservedNode>,
    /// JetStream streams by name, buckets not among them.
    pub streams: BTreeMap<String, Stream>,
    /// JetStream key-value buckets by name.
    pub buckets: BTreeMap<String, Bucket>,
    /// Services by name.
    pub services: BTreeMap<String, ObservedService>,
}

/// A NATS server that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNode {
    /// What it was started with.
    pub node: Node,
    /// Whether its process runs.
    pub running: bool,
}

/// A service that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedService {
    /// What its current revision is made of.
    pub definition: Definition,
    /// Number of the current revision, from 1.
    pub revision: u64,
    /// The number of tasks that the manifest asked for when it was last deployed.
    pub declared_tasks: u32,
    /// The number of tasks that it should run now, after `scale` and autoscaling.
    pub desired: u32,
    /// Tasks of the current revision that run.
    pub running: u32,
    /// Whether the last deployment failed and was rolled back or stopped.
    pub failed: bool,
}

/// What a step does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is not there yet.
    Create,
    /// It differs.
    Update,
    /// It is as it should be, but does not run.
    Start,
    /// Nothing asks for it any more.
    Delete,
}

/// What a step acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A NATS server.
    Node,
    /// A JetStream stream.
    Stream,
    /// A JetStream key-value bucket.
    Bucket,
    /// A service.
    Service,
}

/// A field that differs. `None` is a field that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Path of the field, for example `definition.environment.LOG_LEVEL`.
    pub field: String,
    /// What is there.
    pub from: Option<serde_json::Value>,
    /// What should be.
    pub to: Option<serde_json::Value>,
}

/// One thing to do. Steps of the same wave do not depend on each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// To what kind of thing.
    pub kind: Kind,
    /// To which one.
    pub name: String,
    /// Why.
    pub changes: Vec<Change>,
    /// Steps run in the order of their waves, from 0.
    pub wave: usize,
    /// How many tasks the service should have afterwards; only for services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

/// What must be done, in the order in which it is safe to do it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Ordered by wave.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Steps in the order in which they are safe to run. No I/O: everything that this decides, it decides from its arguments.
    pub fn new(_desired: &Fleet, _observed: &Observed) -> Self {
        Self::default()
    }
}

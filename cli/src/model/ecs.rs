//! What only ECS has: the optional parts of a definition and of a service.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::desired::Architecture;

/// What an ECS service is besides its tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsService {
    /// Name of the service on ECS; the manifests' name of it may be another.
    pub name: String,
    /// Where its tasks have their network interfaces.
    pub subnets: BTreeSet<String>,
    /// What its tasks may reach and be reached by.
    pub security_groups: BTreeSet<String>,
    /// CloudWatch alarms that fail a deployment, by name.
    pub alarms: BTreeSet<String>,
    /// Whether a deployment that fails is stopped and goes back by itself.
    pub circuit_breaker: bool,
    /// Fewest tasks during a deployment, in percent of those that should run.
    pub minimum_healthy_percent: i32,
    /// Most tasks during a deployment, in percent of those that should run.
    pub maximum_percent: i32,
    /// Whether ECS keeps its tasks spread over the zones.
    pub zone_rebalancing: bool,
    /// Whether a session may be opened in its tasks.
    pub execute_command: bool,
    /// Where a load balancer finds its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_group: Option<String>,
    /// What moves the number of tasks; `None` if nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
}

/// Target tracking by Application Auto Scaling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autoscaling {
    /// Fewest tasks.
    pub min: i32,
    /// Most tasks.
    pub max: i32,
    /// Use of CPU that is aimed at, in percent.
    pub cpu_percent: i32,
    /// Use of memory that is aimed at, in percent.
    pub memory_percent: i32,
}

/// What an ECS task definition says that a process on this machine does not need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsTask {
    /// Family of the task definition.
    pub family: String,
    /// Repository of the image, with its registry; the image is named by the digest that the definition's `artifact` is.
    pub repository: String,
    /// What pulls the image, reads the secrets and writes the log.
    pub execution_role: String,
    /// What the task may do on AWS.
    pub task_role: String,
    /// Log group.
    pub log_group: String,
    /// What the names of its log streams begin with.
    pub log_prefix: String,
    /// Region of the log group.
    pub region: String,
    /// Processors.
    pub architecture: Architecture,
    /// Whether a session may be opened in it; then its file system cannot be read-only.
    pub execute_command: bool,
    /// Environment variables whose values are secrets: the `valueFrom` of each.
    pub secrets: BTreeMap<String, String>,
    /// What a task definition says that natsctl never writes, by its path. Desired is none of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub foreign: BTreeMap<String, Value>,
}

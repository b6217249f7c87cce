//! What only ECS has: the optional parts of a definition and of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::desired::Architecture;
use super::secret::SecretReference;

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
    /// Whether its tasks have public addresses.
    #[serde(default)]
    pub assign_public_ip: bool,
    /// Where its tasks get their capacity: shares by capacity provider. `FARGATE` alone is the launch type of that name, too.
    #[serde(default)]
    pub capacity_providers: BTreeMap<String, CapacityShare>,
    /// Version of Fargate.
    #[serde(default)]
    pub platform_version: String,
    /// Whether ECS tags its tasks with its name and the cluster's.
    #[serde(default)]
    pub managed_tags: bool,
    /// Where its tasks have their tags from: `SERVICE`, `TASK_DEFINITION` or `NONE`.
    #[serde(default)]
    pub propagate_tags: String,
    /// Which containers load balancers reach, by target group.
    #[serde(default)]
    pub load_balancers: BTreeMap<String, LoadBalanced>,
    /// Seconds for which ECS ignores the health checks of a load balancer after a task has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i32>,
    /// How ECS replaces tasks, as far as no other field says it, in the names of the API.
    #[serde(default)]
    pub deployment: Map<String, Value>,
    /// What moves the number of tasks; `None` if nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
}

/// A part of a capacity provider strategy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacityShare {
    /// Share of the tasks, in proportion to the other weights.
    pub weight: i32,
    /// This many tasks at least.
    pub base: i32,
}

/// What a load balancer reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalanced {
    /// Name of the container.
    pub container: String,
    /// Port of the container.
    pub port: i32,
}

/// A target value of a scaling policy, in percent; 0 where there is no policy. Whole ones are written without decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "f64", into = "serde_json::Number")]
pub struct Percent(f64);

impl Percent {
    /// In percent.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl From<f64> for Percent {
    fn from(value: f64) -> Self {
        Self(if value.is_finite() { value } else { 0.0 })
    }
}

// Its value is finite.
impl Eq for Percent {}

impl From<Percent> for serde_json::Number {
    fn from(percent: Percent) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "a whole number, and one that is too large saturates")]
        let whole = percent.0 as i64;
        #[allow(clippy::cast_precision_loss, clippy::float_cmp, reason = "only a whole number is the same")]
        let is_whole = whole as f64 == percent.0;
        if is_whole { whole.into() } else { Self::from_f64(percent.0).unwrap_or_else(|| 0.into()) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        serde_json::Number::from(*self).fmt(f)
    }
}

/// Target tracking by Application Auto Scaling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autoscaling {
    /// Fewest tasks.
    pub min: i32,
    /// Most tasks.
    pub max: i32,
    /// Use of CPU that is aimed at, in percent.
    pub cpu_percent: Percent,
    /// Use of memory that is aimed at, in percent.
    pub memory_percent: Percent,
}

/// What an ECS task definition says that a process on this machine does not need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsTask {
    /// Family of the task definition.
    pub family: String,
    /// Name of the container that is the service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
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
    /// Environment variables whose values are secrets: where each value comes from.
    pub secrets: BTreeMap<String, SecretReference>,
    /// All else that the task definition says, in the names of the API. Lists whose elements have a key are maps by it; what is the
    /// default is absent.
    #[serde(flatten)]
    pub document: Map<String, Value>,
}

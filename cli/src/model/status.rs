//! How an environment is: the same answer for every platform.

use serde::Serialize;

use crate::nats::health::Health;
use crate::screen::table;

/// What `natsctl status` tells.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) environment: String,
    /// Whether everything runs as it was deployed.
    pub(crate) healthy: bool,
    pub(crate) services: Vec<ServiceStatus>,
    /// `None` if its servers cannot be asked from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nats: Option<Health>,
    pub(crate) gateway: GatewayStatus,
    /// What is wrong beyond single services and nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<String>,
    /// What could not be found out, and how it could be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

/// How a service is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServiceStatus {
    pub(crate) name: String,
    /// Tasks that should run.
    pub(crate) desired: u32,
    /// Tasks of the current revision whose processes run.
    pub(crate) running: u32,
    /// Tasks of the current revision that are ready and answer on the bus; where the bus cannot be asked, that run.
    pub(crate) healthy: u32,
    pub(crate) revision: u64,
    pub(crate) version: String,
    /// With its digest, where there are images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// How its last deployment goes, where that is another one's business.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollout: Option<Rollout>,
    /// Alarms that ring, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) alarms: Vec<String>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// How the last deployment of a service goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Rollout {
    /// `in_progress`, `completed` or `failed`.
    pub(crate) state: String,
    /// What the platform says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Where HTTP clients come in.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GatewayStatus {
    pub(crate) url: Option<String>,
}

impl Status {
    /// For people: what is wrong first.
    pub(crate) fn text(&self) -> String {
        let mut parts = Vec::new();
        let verdict = if self.healthy { "healthy" } else { "NOT healthy" };
        parts.push(format!("environment {}: {verdict}", self.environment));
        parts.extend(self.problems.iter().chain(&self.notes).map(|problem| format!("  {problem}")));
        if !self.services.is_empty() {
            let mut services: Vec<&ServiceStatus> = self.services.iter().collect();
            services.sort_by_key(|service| service.reason.is_none());
            let rows = services.into_iter().map(|service| {
                let state = service.reason.clone().unwrap_or_else(|| "healthy".to_owned());
                let tasks = format!("{}/{}", service.healthy, service.desired);
                vec![service.name.clone(), tasks, service.revision.to_string(), service.version.clone(), state]
            });
            parts.push(String::new());
            parts.push(table(&["service", "tasks", "revision", "version", "state"], rows));
        }
        if let Some(nats) = self.nats.as_ref().filter(|nats| !nats.nodes.is_empty()) {
            parts.push(String::new());
            parts.push(nats_text(nats));
        }
        if let Some(url) = &self.gateway.url {
            parts.push(String::new());
            parts.push(format!("gateway: {url}"));
        }
        parts.join("\n")
    }
}

/// The cluster's nodes, and whether they agree.
pub(crate) fn nats_text(health: &Health) -> String {
    let rows = health.nodes.iter().map(|node| {
        let state = if node.healthy {
            "healthy".to_owned()
        } else {
            node.reason.clone().unwrap_or_else(|| "unhealthy".to_owned())
        };
        let role = if node.meta_leader { "meta leader" } else { "" };
        vec![node.name.clone(), node.url.clone(), node.version.clone().unwrap_or_default(), role.to_owned(), state]
    });
    let quorum = if health.quorum { "yes" } else { "NO: streams and buckets cannot be written" };
    format!("{}\nquorum: {quorum}", table(&["node", "url", "version", "role", "state"], rows))
}

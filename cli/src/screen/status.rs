//! The status of an environment as text.

use super::table;
use crate::model::status::{ClusterHealth, ServiceStatus, Status};

/// The whole environment: what is wrong comes first.
pub(crate) fn environment(status: &Status) -> String {
    let verdict = if status.healthy { "healthy" } else { "NOT healthy" };
    let mut parts = vec![format!("environment {}: {verdict}", status.environment)];
    parts.extend(status.problems.iter().chain(&status.notes).map(|problem| format!("  {problem}")));
    if !status.services.is_empty() {
        parts.push(String::new());
        parts.push(services(&status.services));
    }
    if let Some(nats) = status.nats.as_ref().filter(|nats| !nats.nodes.is_empty()) {
        parts.push(String::new());
        parts.push(cluster(nats));
    }
    if let Some(url) = &status.gateway.url {
        parts.push(String::new());
        parts.push(format!("gateway: {url}"));
    }
    parts.join("\n")
}

fn services(services: &[ServiceStatus]) -> String {
    let mut services: Vec<&ServiceStatus> = services.iter().collect();
    services.sort_by_key(|service| service.reason.is_none());
    let rows = services.into_iter().map(|service| {
        let state = service.reason.clone().unwrap_or_else(|| "healthy".to_owned());
        let tasks = format!("{}/{}", service.healthy, service.desired);
        vec![service.name.clone(), tasks, service.revision.to_string(), service.version.clone(), state]
    });
    table(&["service", "tasks", "revision", "version", "state"], rows)
}

/// The nodes of the NATS cluster, and whether they have a quorum.
pub(crate) fn cluster(health: &ClusterHealth) -> String {
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

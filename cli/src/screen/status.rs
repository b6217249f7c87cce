//! The status of an environment as text.

use super::table;
use crate::model::status::{
    ClusterHealth, ReplicaHealth, ReplicaState, ServiceStatus, Status, StreamHealth, StreamState,
};

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
        parts.push(cluster(nats, Streams::Unhealthy));
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
        let well = if service.desired == 0 { "healthy: no tasks, as the manifest says" } else { "healthy" };
        let state = service.reason.clone().unwrap_or_else(|| well.to_owned());
        let tasks = format!("{}/{}", service.healthy, service.desired);
        vec![service.name.clone(), tasks, service.revision.to_string(), service.version.clone(), state]
    });
    table(&["service", "tasks", "revision", "version", "state"], rows)
}

/// Which streams are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streams {
    All,
    /// Those that something is wrong with.
    Unhealthy,
}

/// The nodes of the NATS cluster, and whether they and the streams have a quorum.
pub(crate) fn cluster(health: &ClusterHealth, shown: Streams) -> String {
    let rows = health.nodes.iter().map(|node| {
        let state = if node.healthy {
            "healthy".to_owned()
        } else {
            node.reason.clone().unwrap_or_else(|| "unhealthy".to_owned())
        };
        let role = if node.meta_leader { "meta leader" } else { "" };
        vec![node.name.clone(), node.url.clone(), node.version.clone().unwrap_or_default(), role.to_owned(), state]
    });
    let mut parts = Vec::new();
    if let Some(problem) = health.problem.as_ref().filter(|_| shown == Streams::All) {
        parts.push(format!("the NATS servers cannot be asked: {problem}\n"));
    }
    parts.push(table(&["node", "url", "version", "role", "state"], rows));
    let listed: Vec<&StreamHealth> =
        health.streams.iter().filter(|stream| shown == Streams::All || stream.reason.is_some()).collect();
    if !listed.is_empty() {
        parts.extend([String::new(), streams(listed), String::new()]);
    }
    parts.push(format!("quorum: {}", quorum(health)));
    parts.join("\n")
}

/// Of the cluster, which streams are made and changed by, and of the streams, which are written to.
fn quorum(health: &ClusterHealth) -> String {
    let lost = health.streams.iter().filter(|stream| stream.state != StreamState::Ok).count();
    let all = health.streams.len();
    match (health.quorum, lost) {
        (true, 0) => "yes".to_owned(),
        (true, _) => format!("of the cluster yes, of the streams NO: {lost} of {all} cannot be written to"),
        (false, 0) if all == 0 => "NO: streams and buckets cannot be written".to_owned(),
        (false, _) => format!("NO: streams cannot be changed, and {lost} of {all} cannot be written to"),
    }
}

/// What is wrong comes first.
fn streams(mut streams: Vec<&StreamHealth>) -> String {
    streams.sort_by_key(|stream| stream.reason.is_none());
    let rows = streams.into_iter().map(|stream| {
        let replica = |replica: &ReplicaHealth| match replica.state {
            ReplicaState::Current => replica.node.clone(),
            ReplicaState::Behind => format!("{} (behind)", replica.node),
            ReplicaState::Offline => format!("{} (offline)", replica.node),
            ReplicaState::Unknown => format!("{} (unknown)", replica.node),
        };
        let replicas: Vec<String> = stream.replicas.iter().map(replica).collect();
        let state = match stream.state {
            StreamState::NoQuorum => "NO quorum: writes fail".to_owned(),
            StreamState::NoLeader => "no leader: writes wait".to_owned(),
            StreamState::Unknown => "unknown".to_owned(),
            StreamState::Ok => stream.reason.clone().unwrap_or_else(|| "healthy".to_owned()),
        };
        vec![stream.name.clone(), stream.leader.clone().unwrap_or_default(), replicas.join(", "), state]
    });
    table(&["stream", "leader", "replicas", "state"], rows)
}

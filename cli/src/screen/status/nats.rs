//! The NATS cluster as text.

use crate::model::status::{ClusterHealth, ReplicaHealth, ReplicaState, StreamHealth, StreamState};
use crate::problem::counted;
use crate::screen::table;

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

/// In one line; `None` if something is wrong, which takes more.
pub(super) fn in_short(health: &ClusterHealth) -> Option<String> {
    let nodes = counted(health.nodes.len(), "node");
    health.is_healthy().then(|| format!("nats: {nodes} healthy, quorum: yes"))
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

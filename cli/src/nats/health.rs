//! Whether the cluster is well, in the words of its servers, asked over the system account.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use async_nats::Client;
use futures::StreamExt;
use serde::Deserialize;
use tokio::time::Instant;

use super::connect::Access;
use crate::error::Hinted;
use crate::model::status::{ClusterHealth, NodeHealth};

/// Asks all servers; `nodes` are the URLs of those expected, by name. Returns as soon as all have answered.
/// The client must be of the system account.
pub async fn ask(client: &Client, nodes: &BTreeMap<String, String>, within: Duration) -> anyhow::Result<ClusterHealth> {
    let deadline = Instant::now() + within;
    let inbox = client.new_inbox();
    let mut replies =
        client.subscribe(format!("{inbox}.*")).await.context("failed to ask the servers for their health")?;
    for question in ["HEALTHZ", "JSZ"] {
        let asked = client.publish_with_reply(
            format!("$SYS.REQ.SERVER.PING.{question}"),
            format!("{inbox}.{question}"),
            "".into(),
        );
        asked.await.context("failed to ask the servers for their health")?;
    }
    let mut answers: BTreeMap<String, NodeResponses> = BTreeMap::new();
    let complete = |answers: &BTreeMap<String, NodeResponses>| {
        nodes.keys().all(|name| answers.get(name).is_some_and(|said| said.health.is_some() && said.jetstream.is_some()))
    };
    while !complete(&answers) {
        let Ok(Some(reply)) = tokio::time::timeout_at(deadline, replies.next()).await else {
            break;
        };
        if reply.subject.ends_with(".HEALTHZ") {
            if let Ok(ServerResponse { server, data }) = serde_json::from_slice(&reply.payload) {
                let said = answers.entry(server.name).or_default();
                said.version = Some(server.ver);
                said.health = Some(data);
            }
        } else if let Ok(ServerResponse { server, data }) = serde_json::from_slice(&reply.payload) {
            answers.entry(server.name).or_default().jetstream = Some(data);
        }
    }
    Ok(judge(nodes, &answers))
}

/// Waits until the cluster has settled: all nodes are healthy, follow one meta leader, and have what it has.
pub async fn wait_until_settled(
    access: &Access,
    nodes: &BTreeMap<String, String>,
    within: Duration,
) -> anyhow::Result<ClusterHealth> {
    wait_until_settled_besides(&BTreeSet::new(), access, nodes, within).await
}

/// The same, but these nodes, which are known to be unwell, are not waited for.
pub async fn wait_until_settled_besides(
    unwell: &BTreeSet<String>,
    access: &Access,
    nodes: &BTreeMap<String, String>,
    within: Duration,
) -> anyhow::Result<ClusterHealth> {
    let deadline = Instant::now() + within;
    let (mut client, mut before) = (None, None);
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let attempt = attempt(&mut client, access, nodes, remaining).await;
        if let Ok(health) = &attempt
            && health.has_settled_besides(unwell)
        {
            return attempt;
        }
        if Instant::now() + POLL >= deadline {
            // The last attempt may have had no time.
            return Err(unsettled(before.unwrap_or(attempt), unwell, within));
        }
        before = Some(attempt);
        tokio::time::sleep(POLL).await;
    }
}

/// Between two attempts.
const POLL: Duration = Duration::from_millis(50);
/// How long one attempt may take: a node that is still starting is asked again soon rather than waited for.
const ATTEMPT: Duration = Duration::from_millis(250);

async fn attempt(
    client: &mut Option<Client>,
    access: &Access,
    nodes: &BTreeMap<String, String>,
    within: Duration,
) -> anyhow::Result<ClusterHealth> {
    let client = match client {
        Some(client) => client,
        None => client.insert(access.connect("natsctl", within).await?),
    };
    ask(client, nodes, within.min(ATTEMPT)).await
}

fn unsettled(last: anyhow::Result<ClusterHealth>, unwell: &BTreeSet<String>, within: Duration) -> anyhow::Error {
    let health = match last {
        Ok(health) => health,
        Err(error) => return error,
    };
    let nodes = health.nodes.iter().filter(|node| !unwell.contains(&node.name));
    let mut reasons: Vec<String> =
        nodes.filter_map(|node| node.reason.as_ref().map(|reason| format!("`{}`: {reason}", node.name))).collect();
    if !health.quorum {
        reasons.push("there is no meta leader".to_owned());
    }
    if reasons.is_empty() {
        reasons.push("some node is behind the meta leader".to_owned());
    }
    Hinted::new(
        format!("the NATS cluster has not settled within {} s: {}", within.as_secs(), reasons.join("; ")),
        "the servers' logs say more; run the command again to go on from here",
    )
    .into()
}

/// What one server said.
#[derive(Default)]
struct NodeResponses {
    version: Option<String>,
    health: Option<Healthz>,
    jetstream: Option<Jsz>,
}

#[derive(Deserialize)]
struct ServerResponse<T> {
    server: ServerInfo,
    data: T,
}

#[derive(Deserialize)]
struct ServerInfo {
    name: String,
    ver: String,
}

#[derive(Deserialize)]
struct Healthz {
    status: String,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Jsz {
    /// Missing in a server without a cluster.
    #[serde(default)]
    meta_cluster: Option<MetaCluster>,
}

#[derive(Deserialize)]
struct MetaCluster {
    #[serde(default)]
    leader: Option<String>,
    /// Only the leader knows them.
    #[serde(default)]
    replicas: Option<Vec<Peer>>,
}

#[derive(Deserialize)]
struct Peer {
    name: String,
    current: bool,
    #[serde(default)]
    offline: bool,
}

fn judge(nodes: &BTreeMap<String, String>, answers: &BTreeMap<String, NodeResponses>) -> ClusterHealth {
    let alone = nodes.len() == 1;
    let follows = |name: &str| {
        let said = answers.get(name)?.jetstream.as_ref()?;
        match &said.meta_cluster {
            Some(meta) => meta.leader.clone().filter(|leader| !leader.is_empty()),
            None => alone.then(|| name.to_owned()),
        }
    };
    let mut followers: BTreeMap<String, usize> = BTreeMap::new();
    for leader in nodes.keys().filter_map(|name| follows(name)) {
        *followers.entry(leader).or_default() += 1;
    }
    // A leader that does not answer is one that the others have not missed yet.
    let elected =
        |(leader, followers): &(&String, &usize)| **followers * 2 > nodes.len() && answers.contains_key(*leader);
    let leader = followers.iter().find(elected).map(|(leader, _)| leader.as_str());

    // As the leader says; it leaves itself out.
    let meta = leader.and_then(|leader| answers.get(leader)?.jetstream.as_ref()?.meta_cluster.as_ref());
    let peers = meta.and_then(|meta| meta.replicas.as_ref());
    let is_current = |name: &String| {
        let has = |peer: &Peer| peer.name == *name && peer.current && !peer.offline;
        leader == Some(name) || peers.is_some_and(|peers| peers.iter().any(has))
    };

    let node = |(name, url): (&String, &String)| {
        let said = answers.get(name);
        let health = said.and_then(|said| said.health.as_ref());
        let healthy = health.is_some_and(|health| health.status == "ok");
        let reason = match health {
            None => Some("does not answer".to_owned()),
            Some(health) if !healthy => Some(health.error.clone().unwrap_or_else(|| health.status.clone())),
            Some(_) => None,
        };
        NodeHealth {
            name: name.clone(),
            url: url.clone(),
            healthy,
            meta_leader: leader == Some(name),
            version: said.and_then(|said| said.version.clone()),
            reason,
            settled: healthy
                && leader.is_some_and(|leader| follows(name).as_deref() == Some(leader))
                && is_current(name),
        }
    };
    ClusterHealth {
        nodes: nodes.iter().map(node).collect(),
        quorum: leader.is_some(),
        problem: None,
        streams: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server says: its name, its health, whom it follows, and of which peers it thinks well.
    fn said(name: &str, status: &str, leader: &str, peers: &[&str]) -> (String, NodeResponses) {
        let peer = |name: &&str| Peer { name: name.to_string(), current: true, offline: false };
        let meta_cluster =
            MetaCluster { leader: Some(leader.to_owned()), replicas: Some(peers.iter().map(peer).collect()) };
        let answers = NodeResponses {
            version: Some("2.15.1".to_owned()),
            health: Some(Healthz { status: status.to_owned(), error: None }),
            jetstream: Some(Jsz { meta_cluster: Some(meta_cluster) }),
        };
        (name.to_owned(), answers)
    }

    fn check(
        answers: impl IntoIterator<Item = (String, NodeResponses)>,
        healthy: &[bool],
        quorum: bool,
        settled: bool,
    ) {
        let nodes = ["a", "b", "c"].map(|name| (name.to_owned(), format!("tls://{name}")));
        let health = judge(&nodes.into(), &answers.into_iter().collect());
        assert_eq!(health.nodes.iter().map(|node| node.healthy).collect::<Vec<_>>(), healthy);
        assert_eq!((health.quorum, health.has_settled()), (quorum, settled), "{health:?}");
    }

    #[test]
    fn all_well_is_settled() {
        let answers = [said("a", "ok", "b", &[]), said("b", "ok", "b", &["a", "c"]), said("c", "ok", "b", &[])];
        check(answers, &[true, true, true], true, true);
    }

    #[test]
    fn a_peer_that_is_behind_is_not_settled() {
        let answers = [said("a", "ok", "b", &[]), said("b", "ok", "b", &["a"]), said("c", "ok", "b", &[])];
        check(answers, &[true, true, true], true, false);
    }

    #[test]
    fn one_of_three_may_be_down() {
        check([said("a", "ok", "b", &[]), said("b", "unavailable", "b", &["a"])], &[true, false, false], true, false);
    }

    #[test]
    fn the_others_have_settled_besides_one_that_is_unwell() {
        let nodes = ["a", "b", "c"].map(|name| (name.to_owned(), format!("tls://{name}")));
        let answers = [said("a", "ok", "b", &[]), said("b", "ok", "b", &["a"])];
        let health = judge(&nodes.into(), &answers.into());
        let besides = |name: &str| health.has_settled_besides(&BTreeSet::from([name.to_owned()]));
        assert_eq!((besides("c"), besides("a")), (true, false));
    }

    #[test]
    fn a_leader_that_does_not_answer_leads_nobody() {
        check([said("a", "ok", "b", &[]), said("c", "ok", "b", &[])], &[true, false, true], false, false);
    }

    #[test]
    fn two_leaders_are_none() {
        check([said("a", "ok", "a", &[]), said("b", "ok", "b", &[])], &[true, true, false], false, false);
    }

    #[test]
    fn nobody_answers() {
        check([], &[false, false, false], false, false);
    }
}

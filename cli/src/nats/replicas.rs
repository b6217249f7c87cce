//! Whether each stream can be written to: a stream has a quorum of its own, whatever the cluster has. Asked over the system account.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::Client;
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::connect::Access;
use crate::error::Hinted;
use crate::model::status::{ReplicaHealth, ReplicaState, StreamHealth, StreamState};

/// Accounts in one answer of a server.
const PAGE: usize = 256;

/// Asks all servers for the replicas that they have; `nodes` are those expected. Returns as soon as all have answered.
/// The client must be of the system account. `expected` are streams that should be there: one that no server has is not forgotten.
pub async fn ask(
    client: &Client,
    nodes: &BTreeSet<String>,
    expected: &BTreeSet<String>,
    within: Duration,
) -> anyhow::Result<Vec<StreamHealth>> {
    let deadline = Instant::now() + within;
    let mut reports = Reports::default();
    let mut offset = 0;
    while page(client, nodes, offset, deadline, &mut reports).await? > offset + PAGE {
        offset += PAGE;
    }
    Ok(judge(&reports, expected))
}

/// Waits until each stream has been seen to be well, with all of its replicas current, besides those on nodes that are known to be unwell.
///
/// # Errors
/// Which streams were not, and why.
pub async fn wait_until_current(
    access: &Access,
    nodes: &BTreeSet<String>,
    unwell: &BTreeSet<String>,
    within: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    let client = access.connect("natsctl", within).await?;
    let is_current = |stream: &StreamHealth| {
        let is_current = |replica: &&ReplicaHealth| replica.state == ReplicaState::Current;
        let (unwell, others): (Vec<_>, Vec<_>) =
            stream.replicas.iter().partition(|replica| unwell.contains(&replica.node));
        // Without those that are unwell it has no quorum, and no leader who knows the rest.
        unwell.len() * 2 >= stream.replicas.len().max(1) || (stream.reason.is_none() && others.iter().all(is_current))
    };
    let mut seen = BTreeSet::new();
    loop {
        // Under load a replica is behind for moments.
        let (well, others): (Vec<_>, Vec<_>) =
            ask(&client, nodes, &BTreeSet::new(), ATTEMPT).await?.into_iter().partition(is_current);
        seen.extend(well.into_iter().map(|stream| stream.name));
        let behind: Vec<_> = others.into_iter().filter(|stream| !seen.contains(&stream.name)).collect();
        if behind.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(not_current(&behind, within).into());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Between two attempts.
const POLL: Duration = Duration::from_millis(50);

fn not_current(streams: &[StreamHealth], within: Duration) -> Hinted {
    let one = |stream: &StreamHealth| {
        let behind = stream.replicas.iter().filter(|replica| replica.state != ReplicaState::Current);
        let behind: Vec<String> = behind.map(|replica| format!("`{}`", replica.node)).collect();
        let reason = stream.reason.clone().unwrap_or_else(|| format!("is not complete on {}", behind.join(", ")));
        format!("stream `{}` {reason}", stream.name)
    };
    let streams: Vec<String> = streams.iter().map(one).collect();
    let message = format!("the streams have not settled within {} s: {}", within.as_secs(), streams.join("; "));
    Hinted::new(message, "`natsctl nats status` shows them; run the command again to go on from here")
}

/// One page of the accounts of all servers. Returns how many accounts the server with most of them has.
async fn page(
    client: &Client,
    nodes: &BTreeSet<String>,
    offset: usize,
    deadline: Instant,
    reports: &mut Reports,
) -> anyhow::Result<usize> {
    const FAILED: &str = "failed to ask the servers for their streams";
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.context(FAILED)?;
    let options = json!({ "accounts": true, "streams": true, "consumer": true, "offset": offset, "limit": PAGE });
    let asked = client.publish_with_reply("$SYS.REQ.SERVER.PING.JSZ", inbox, options.to_string().into());
    asked.await.context(FAILED)?;
    let (mut answered, mut accounts) = (BTreeSet::new(), 0);
    while !answered.is_superset(nodes) {
        let Ok(Some(reply)) = timeout_at(deadline, replies.next()).await else { break };
        // A server whose answer cannot be read is one that has not answered.
        let Ok(Answer { server, data }) = serde_json::from_slice(&reply.payload) else { continue };
        accounts = accounts.max(data.accounts);
        reports.add(&server.name, data);
        answered.insert(server.name);
    }
    Ok(accounts)
}

#[derive(Deserialize)]
struct Answer {
    server: Server,
    data: Jsz,
}

#[derive(Deserialize)]
struct Server {
    name: String,
}

#[derive(Deserialize)]
struct Jsz {
    #[serde(default)]
    accounts: usize,
    #[serde(default)]
    account_details: Vec<AccountDetail>,
}

#[derive(Deserialize)]
struct AccountDetail {
    #[serde(default)]
    stream_detail: Option<Vec<StreamDetail>>,
}

#[derive(Deserialize)]
struct StreamDetail {
    name: String,
    #[serde(default)]
    cluster: Option<Group>,
    #[serde(default)]
    consumer_detail: Option<Vec<ConsumerDetail>>,
}

#[derive(Deserialize)]
struct ConsumerDetail {
    name: String,
    #[serde(default)]
    cluster: Option<Group>,
}

/// A group of replicas, as one of its members sees it.
#[derive(Clone, Debug, Default, Deserialize)]
struct Group {
    #[serde(default)]
    leader: Option<String>,
    /// The other members.
    #[serde(default)]
    replicas: Option<Vec<Peer>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Peer {
    name: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
}

/// What servers say of a group of which they have a replica, by their names.
type Views = BTreeMap<String, Group>;

/// What all servers say.
#[derive(Default)]
struct Reports {
    streams: BTreeMap<String, Views>,
    consumers: BTreeMap<String, BTreeMap<String, Views>>,
}

impl Reports {
    fn add(&mut self, server: &str, said: Jsz) {
        // A server without a cluster says nothing of one: it leads what it has.
        let group = |cluster: Option<Group>| {
            cluster.unwrap_or_else(|| Group { leader: Some(server.to_owned()), replicas: None })
        };
        for stream in said.account_details.into_iter().filter_map(|account| account.stream_detail).flatten() {
            for consumer in stream.consumer_detail.into_iter().flatten() {
                let consumers = self.consumers.entry(stream.name.clone()).or_default();
                consumers.entry(consumer.name).or_default().insert(server.to_owned(), group(consumer.cluster));
            }
            self.streams.entry(stream.name).or_default().insert(server.to_owned(), group(stream.cluster));
        }
    }
}

fn judge(reports: &Reports, expected: &BTreeSet<String>) -> Vec<StreamHealth> {
    let names: BTreeSet<&String> = reports.streams.keys().chain(expected).collect();
    names.into_iter().map(|name| stream(name, reports)).collect()
}

/// A stream of which no server says anything.
pub(crate) fn unknown(name: &str) -> StreamHealth {
    StreamHealth {
        name: name.to_owned(),
        state: StreamState::Unknown,
        leader: None,
        replicas: Vec::new(),
        reason: Some("is unknown: no server that answers has a replica of it".to_owned()),
    }
}

fn stream(name: &str, reports: &Reports) -> StreamHealth {
    let Some(views) = reports.streams.get(name) else { return unknown(name) };
    let verdict = Verdict::of(views);
    let consumers = reports.consumers.get(name).into_iter().flatten();
    let mut bad = consumers.filter_map(|(consumer, views)| {
        let reason = Verdict::of(views).reason("its messages are not delivered")?;
        Some(format!("has consumer `{consumer}`, which {reason}"))
    });
    let reason = verdict.reason("writes to it fail");
    // What is wrong with a stream is wrong with its consumers too.
    let reason = reason.or_else(|| bad.next());
    StreamHealth {
        name: name.to_owned(),
        state: verdict.state,
        leader: verdict.leader,
        replicas: verdict.replicas,
        reason,
    }
}

/// What the views of a group's members come to.
struct Verdict {
    state: StreamState,
    leader: Option<String>,
    replicas: Vec<ReplicaHealth>,
}

impl Verdict {
    /// Only members that answer say what they see, so whoever is in no view's own place is offline, whatever another member still thinks.
    fn of(views: &Views) -> Self {
        let peers = || views.values().flat_map(|view| view.replicas.iter().flatten());
        let members: BTreeSet<&str> =
            views.keys().map(String::as_str).chain(peers().map(|peer| peer.name.as_str())).collect();
        let is_majority = |count: usize| count * 2 > members.len();
        let follow = |leader: &str| views.values().filter(|view| view.leader.as_deref() == Some(leader)).count();
        // A leader that does not answer is one that the others have not missed yet.
        let leader = views.keys().find(|name| is_majority(follow(name)));
        // Only the leader knows who has what it has.
        let known = leader.and_then(|leader| views[leader].replicas.as_ref());
        let state = |member: &str| {
            let peer = known.and_then(|peers| peers.iter().find(|peer| peer.name == member));
            match peer {
                _ if !views.contains_key(member) => ReplicaState::Offline,
                _ if leader.is_some_and(|leader| leader == member) => ReplicaState::Current,
                Some(peer) if peer.offline => ReplicaState::Offline,
                Some(peer) if peer.current => ReplicaState::Current,
                Some(_) => ReplicaState::Behind,
                None => ReplicaState::Unknown,
            }
        };
        let replicas = members.iter().map(|member| ReplicaHealth { node: (*member).to_owned(), state: state(member) });
        let group = match leader {
            _ if !is_majority(views.len()) => StreamState::NoQuorum,
            None => StreamState::NoLeader,
            Some(_) => StreamState::Ok,
        };
        Self { state: group, leader: leader.cloned(), replicas: replicas.collect() }
    }

    fn reason(&self, effect: &str) -> Option<String> {
        match self.state {
            StreamState::Ok => None,
            StreamState::Unknown => Some("is unknown".to_owned()),
            StreamState::NoLeader => Some(format!("has no leader: {effect} until one is elected")),
            StreamState::NoQuorum => {
                let offline = self.replicas.iter().filter(|replica| replica.state == ReplicaState::Offline);
                let offline: Vec<String> = offline.map(|replica| format!("`{}`", replica.node)).collect();
                let (down, all) = (offline.len(), self.replicas.len());
                let offline = offline.join(", ");
                Some(format!("has no quorum: {effect}, because {down} of its {all} replicas are down ({offline})"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server says of stream `S`: its leader, and of each other member whether it is current.
    fn said(leader: &str, peers: &[(&str, bool)]) -> Jsz {
        let peers: Vec<_> = peers.iter().map(|(name, current)| json!({ "name": name, "current": current })).collect();
        let stream = json!({ "name": "S", "cluster": { "leader": leader, "replicas": peers } });
        let said = json!({ "accounts": 1, "account_details": [{ "stream_detail": [stream] }] });
        serde_json::from_value(said).unwrap()
    }

    fn reports(said: impl IntoIterator<Item = (&'static str, Jsz)>) -> Reports {
        let mut reports = Reports::default();
        said.into_iter().for_each(|(server, said)| reports.add(server, said));
        reports
    }

    fn states(stream: &StreamHealth) -> Vec<(&str, ReplicaState)> {
        stream.replicas.iter().map(|replica| (replica.node.as_str(), replica.state)).collect()
    }

    use ReplicaState::{Behind, Current, Offline, Unknown};

    #[track_caller]
    fn check(
        said: impl IntoIterator<Item = (&'static str, Jsz)>,
        state: StreamState,
        leader: Option<&str>,
        replicas: [ReplicaState; 3],
    ) {
        let found = judge(&reports(said), &BTreeSet::new());
        let names = ["a", "b", "c"];
        assert_eq!((found[0].state, found[0].leader.as_deref()), (state, leader), "{found:?}");
        assert_eq!(states(&found[0]), names.into_iter().zip(replicas).collect::<Vec<_>>(), "{found:?}");
        assert_eq!(found[0].reason.is_none(), state == StreamState::Ok);
    }

    #[test]
    fn a_stream_is_well_as_long_as_a_majority_follows_a_leader_that_answers() {
        let follower = |peers| said("a", peers);
        let leader = |b, c| said("a", &[("b", b), ("c", c)]);
        let b = || follower(&[("a", true), ("c", false)]);
        let c = || follower(&[("a", true), ("b", false)]);
        check([("a", leader(true, true)), ("b", b()), ("c", c())], StreamState::Ok, Some("a"), [Current; 3]);
        check(
            [("a", leader(true, false)), ("b", b()), ("c", c())],
            StreamState::Ok,
            Some("a"),
            [Current, Current, Behind],
        );
        check([("a", leader(true, true)), ("b", b())], StreamState::Ok, Some("a"), [Current, Current, Offline]);
    }

    #[test]
    fn a_leader_that_is_left_alone_has_no_quorum_whatever_it_still_thinks() {
        let alone = said("a", &[("b", true), ("c", true)]);
        check([("a", alone)], StreamState::NoQuorum, None, [Unknown, Offline, Offline]);
        let found = judge(&reports([("a", said("a", &[("b", true), ("c", true)]))]), &BTreeSet::new());
        let expected = "has no quorum: writes to it fail, because 2 of its 3 replicas are down (`b`, `c`)";
        assert_eq!(found[0].reason.as_deref(), Some(expected));
    }

    #[test]
    fn a_leader_that_does_not_answer_leads_nobody() {
        let follower = |other| said("a", &[("a", true), (other, false)]);
        check([("b", follower("c")), ("c", follower("b"))], StreamState::NoLeader, None, [Offline, Unknown, Unknown]);
    }

    #[test]
    fn a_stream_that_no_server_has_is_unknown_and_not_forgotten() {
        let expected = BTreeSet::from(["KV_quests".to_owned(), "S".to_owned()]);
        let found = judge(&reports([("a", said("a", &[]))]), &expected);
        let states: Vec<_> = found.iter().map(|stream| (stream.name.as_str(), stream.state)).collect();
        assert_eq!(states, [("KV_quests", StreamState::Unknown), ("S", StreamState::Ok)]);
        assert!(found[0].reason.is_some());
    }

    #[test]
    fn a_server_without_a_cluster_leads_what_it_has() {
        let said = json!({ "accounts": 1, "account_details": [{ "stream_detail": [{ "name": "S" }] }] });
        let found = judge(&reports([("a", serde_json::from_value(said).unwrap())]), &BTreeSet::new());
        assert_eq!((found[0].state, found[0].leader.as_deref()), (StreamState::Ok, Some("a")));
    }

    #[test]
    fn a_consumer_without_a_quorum_is_named_with_its_stream() {
        let group = json!({ "leader": "a", "replicas": [] });
        let lost = json!({ "leader": "", "replicas": [{ "name": "b" }, { "name": "c" }] });
        let consumers = json!([{ "name": "ok", "cluster": group }, { "name": "worker", "cluster": lost }]);
        let stream = json!({ "name": "S", "cluster": group, "consumer_detail": consumers });
        let said = json!({ "accounts": 1, "account_details": [{ "stream_detail": [stream] }] });
        let found = judge(&reports([("a", serde_json::from_value(said).unwrap())]), &BTreeSet::new());
        assert_eq!(found[0].state, StreamState::Ok);
        let reason = found[0].reason.as_deref().unwrap();
        assert!(
            reason.starts_with("has consumer `worker`, which has no quorum: its messages are not delivered"),
            "{reason}"
        );
    }
}

//! Makes an [`Observation`] of the JSON documents in which servers speak of themselves: `/varz`, `/healthz` and `/jsz`, which are the
//! same over HTTP and, in `data`, over the system account.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::Client;
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::observation::{Asset, AssetKind, AssetState, Health, Meta, Observation, Peer, Server, Traffic, Usage, View};
use crate::model::observed::Seen;

/// Accounts in one answer of `/jsz`; `survey.sh` asks for as many.
const PAGE: u64 = 256;

/// What `/jsz` is asked for.
fn jsz_options(offset: u64) -> Value {
    json!({ "accounts": true, "streams": true, "consumer": true, "config": true, "offset": offset, "limit": PAGE })
}

/// The documents of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    /// `/varz`.
    pub(crate) varz: Option<Value>,
    /// `/healthz?js-enabled-only=true`.
    pub(crate) enabled: Option<Value>,
    /// `/healthz?js-meta-only=true`.
    pub(crate) meta: Option<Value>,
    /// `/healthz`.
    pub(crate) full: Option<Value>,
    /// `/jsz?accounts=true&streams=true&consumers=true&config=true`, one for each page of accounts.
    pub(crate) jsz: Vec<Value>,
}

/// What is known of all servers before it is judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// By the names that servers give themselves.
    pub(crate) answers: BTreeMap<String, Answers>,
    /// Names that more than one server gives itself.
    pub(crate) doubles: BTreeSet<String>,
}

impl Survey {
    /// Asks all servers over the system account, which the client must be of. Returns when all of `nodes` have answered, or the time is
    /// over: who has not answered then is unknown.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn ask(client: &Client, nodes: &BTreeSet<String>, within: Duration) -> anyhow::Result<Self> {
        const FAILED: &str = "failed to ask the NATS servers how they are";
        let deadline = Instant::now() + within;
        let inbox = client.new_inbox();
        let mut replies = client.subscribe(format!("{inbox}.*")).await.context(FAILED)?;
        let questions = [
            ("varz", "VARZ", json!({})),
            ("enabled", "HEALTHZ", json!({ "js-enabled-only": true })),
            ("meta", "HEALTHZ", json!({ "js-meta-only": true })),
            ("full", "HEALTHZ", json!({})),
            ("jsz", "JSZ", jsz_options(0)),
        ];
        for (token, question, options) in questions {
            let subject = format!("$SYS.REQ.SERVER.PING.{question}");
            let asked = client.publish_with_reply(subject, format!("{inbox}.{token}"), options.to_string().into());
            asked.await.context(FAILED)?;
        }
        let mut survey = Self::default();
        let (mut ids, mut pages) = (BTreeMap::new(), 1);
        while !survey.is_complete(nodes, pages) {
            let Ok(Some(reply)) = timeout_at(deadline, replies.next()).await else { break };
            // An answer that cannot be read is none.
            let Ok(Answer { server, data }) = serde_json::from_slice(&reply.payload) else { continue };
            let token = reply.subject.rsplit('.').next().unwrap_or_default();
            if ids.entry(server.name.clone()).or_insert_with(|| server.id.clone()) != &server.id {
                survey.doubles.insert(server.name);
                continue;
            }
            let accounts = data.get("accounts").and_then(Value::as_u64).unwrap_or_default();
            survey.take(&server.name, token, data);
            // The first answer that says there is more has all servers asked for it.
            while token == "jsz" && accounts > pages * PAGE {
                let subject = "$SYS.REQ.SERVER.PING.JSZ";
                let options = jsz_options(pages * PAGE).to_string();
                client.publish_with_reply(subject, format!("{inbox}.jsz"), options.into()).await.context(FAILED)?;
                pages += 1;
            }
        }
        Ok(survey)
    }

    /// Adds a document of a server, by the name that it gives itself.
    pub(crate) fn take(&mut self, server: &str, token: &str, data: Value) {
        let answers = self.answers.entry(server.to_owned()).or_default();
        match token {
            "varz" => answers.varz = Some(data),
            "enabled" => answers.enabled = Some(data),
            "meta" => answers.meta = Some(data),
            "full" => answers.full = Some(data),
            _ => answers.jsz.push(data),
        }
    }

    fn is_complete(&self, nodes: &BTreeSet<String>, pages: u64) -> bool {
        let has_all = |answers: &Answers| {
            let Answers { varz, enabled, meta, full, jsz } = answers;
            varz.is_some() && enabled.is_some() && meta.is_some() && full.is_some() && jsz.len() as u64 >= pages
        };
        nodes.iter().all(|node| self.answers.get(node).is_some_and(has_all))
    }

    /// What follows from the answers for a cluster of these servers.
    pub(crate) fn observation(&self, nodes: &BTreeSet<String>) -> Observation {
        let mut observation = Observation::default();
        let mut assets = BTreeMap::new();
        for node in nodes {
            let seen = match self.answers.get(node) {
                None => Seen::Unknown("does not answer".to_owned()),
                Some(answers) => match answers.server() {
                    Ok(server) => Seen::Present(server),
                    Err(reason) => Seen::Unknown(reason),
                },
            };
            observation.servers.insert(node.clone(), seen);
        }
        for (server, answers) in &self.answers {
            if !nodes.contains(server) || self.doubles.contains(server) {
                observation.strangers.insert(server.clone());
            }
            for page in &answers.jsz {
                // One that cannot be read is reported with its server, which is unknown then.
                let Ok(Jsz { account_details, .. }) = Jsz::deserialize(page) else { continue };
                for account in account_details {
                    account.add_to(server, &mut assets);
                }
            }
        }
        observation.assets = assets.into_values().collect();
        observation
    }
}

impl Answers {
    /// What the server says of itself.
    ///
    /// # Errors
    /// What it does not say, to follow its name in a sentence.
    fn server(&self) -> Result<Server, String> {
        let of = |document: &Option<Value>, name: &str| {
            document.clone().ok_or_else(|| format!("does not answer the question for `{name}`"))
        };
        let unreadable =
            |name: &'static str| move |error| format!("gave an answer to `{name}` that cannot be read: {error}");
        let Varz { server_id, version, cluster, start, connections, remotes, slow_consumers, tls_cert_not_after } =
            Varz::deserialize(of(&self.varz, "varz")?).map_err(unreadable("varz"))?;
        let version = version.parse().map_err(|()| format!("says that its version is `{version}`"))?;
        let page = self.jsz.first().ok_or("does not answer the question for `jsz`")?;
        for page in &self.jsz {
            Jsz::deserialize(page).map_err(unreadable("jsz"))?;
        }
        let Jsz { meta_cluster, storage, config, .. } = Jsz::deserialize(page).map_err(unreadable("jsz"))?;
        let health = |document: &Option<Value>| {
            let Healthz { status, error } =
                Healthz::deserialize(of(document, "healthz")?).map_err(unreadable("healthz"))?;
            Ok::<_, String>(if status == "ok" { Ok(()) } else { Err(error.unwrap_or(status)) })
        };
        Ok(Server {
            instance: server_id,
            version,
            cluster: cluster.name.filter(|name| !name.is_empty()),
            config: None,
            started: start,
            clients: connections,
            peers: remotes,
            health: Health { enabled: health(&self.enabled)?, meta: health(&self.meta)?, full: health(&self.full)? },
            meta: meta_cluster
                .map(|Group { leader, replicas, .. }| Meta { leader: led(leader), peers: peers(replicas) }),
            traffic: Traffic::default(),
            storage: Usage { used: storage, limit: config.max_storage },
            slow_consumers,
            certificate_ends: tls_cert_not_after,
        })
    }
}

/// Without a leader, servers say that it is nothing.
fn led(leader: Option<String>) -> Option<String> {
    leader.filter(|name| !name.is_empty())
}

fn peers(replicas: Option<Vec<Replica>>) -> Vec<Peer> {
    let peer = |Replica { name, current, offline, lag }| Peer { name, current, offline, lag };
    replicas.into_iter().flatten().map(peer).collect()
}

#[derive(Deserialize)]
struct Answer {
    server: Sender,
    data: Value,
}

#[derive(Deserialize)]
struct Sender {
    name: String,
    id: String,
}

#[derive(Deserialize)]
struct Varz {
    server_id: String,
    version: String,
    #[serde(default)]
    cluster: VarzCluster,
    start: String,
    #[serde(default)]
    connections: u64,
    #[serde(default)]
    remotes: usize,
    #[serde(default)]
    slow_consumers: u64,
    tls_cert_not_after: Option<String>,
}

#[derive(Default, Deserialize)]
struct VarzCluster {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Healthz {
    status: String,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Jsz {
    /// Missing in a server without a cluster.
    meta_cluster: Option<Group>,
    #[serde(default)]
    storage: u64,
    #[serde(default)]
    config: JszConfig,
    #[serde(default)]
    account_details: Vec<AccountDetail>,
}

#[derive(Default, Deserialize)]
struct JszConfig {
    #[serde(default)]
    max_storage: u64,
}

#[derive(Deserialize)]
struct AccountDetail {
    #[serde(default)]
    name: String,
    stream_detail: Option<Vec<StreamDetail>>,
}

#[derive(Deserialize)]
struct StreamDetail {
    name: String,
    cluster: Option<Group>,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    state: State,
    consumer_detail: Option<Vec<ConsumerDetail>>,
}

#[derive(Deserialize)]
struct ConsumerDetail {
    name: String,
    cluster: Option<Group>,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    num_replicas: usize,
    durable_name: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct State {
    #[serde(default)]
    messages: u64,
    #[serde(default)]
    first_seq: u64,
    #[serde(default)]
    last_seq: u64,
}

/// A Raft group, as one of its members sees it.
#[derive(Clone, Default, Deserialize)]
struct Group {
    leader: Option<String>,
    replicas: Option<Vec<Replica>>,
}

#[derive(Clone, Deserialize)]
struct Replica {
    name: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
    #[serde(default)]
    lag: u64,
}

impl AccountDetail {
    /// Adds what `server` has of this account.
    fn add_to(self, server: &str, assets: &mut BTreeMap<(String, AssetKind, String), Asset>) {
        for stream in self.stream_detail.into_iter().flatten() {
            let State { messages, first_seq, last_seq } = stream.state;
            let state = AssetState { messages, first: first_seq, last: last_seq };
            for ConsumerDetail { name, cluster, mut config } in stream.consumer_detail.into_iter().flatten() {
                // By default it has as many as its stream.
                config.num_replicas =
                    [config.num_replicas, stream.config.num_replicas].into_iter().find(|n| *n > 0).unwrap_or_default();
                // One without a durable name is its client's, who makes another one when it is gone.
                if config.durable_name.is_some() {
                    let name = format!("{}/{name}", stream.name);
                    let id = (self.name.clone(), AssetKind::Consumer, name);
                    add(assets, id, config, server, cluster, None);
                }
            }
            let id = (self.name.clone(), AssetKind::Stream, stream.name);
            add(assets, id, stream.config, server, stream.cluster, Some(state));
        }
    }
}

fn add(
    assets: &mut BTreeMap<(String, AssetKind, String), Asset>,
    id: (String, AssetKind, String),
    config: Config,
    server: &str,
    group: Option<Group>,
    state: Option<AssetState>,
) {
    // A server without a cluster says nothing of one: it leads what it has.
    let group = group.unwrap_or_else(|| Group { leader: Some(server.to_owned()), replicas: None });
    let level = config.metadata.get("_nats.req.level").and_then(|level| level.parse().ok()).unwrap_or_default();
    let (account, kind, name) = id.clone();
    let views = BTreeMap::new();
    let asset = assets.entry(id).or_insert(Asset { kind, account, name, replicas: config.num_replicas, level, views });
    let view = View { leader: led(group.leader), peers: peers(group.replicas), state };
    asset.views.insert(server.to_owned(), view);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server of a cluster of three says, with stream `S` on all of them and its own `R1`.
    fn answers(node: &str, id: &str) -> Answers {
        let others = ["a", "b", "c"].into_iter().filter(|other| *other != node);
        let replicas: Vec<Value> = others.map(|name| json!({ "name": name, "current": true, "lag": 0 })).collect();
        let group = json!({ "leader": "a", "replicas": replicas });
        let state = json!({ "messages": 2, "first_seq": 1, "last_seq": 2 });
        let metadata = json!({ "_nats.req.level": "2" });
        let consumers = json!([
            { "name": "dur", "config": { "durable_name": "dur", "num_replicas": 0 }, "cluster": group },
            { "name": "ephemeral", "config": { "num_replicas": 1 }, "cluster": { "leader": node } },
        ]);
        let stream = json!({ "name": "S", "config": { "num_replicas": 3, "metadata": metadata }, "state": state,
                             "cluster": group, "consumer_detail": consumers });
        let own = json!({ "name": format!("R1_{node}"), "config": { "num_replicas": 1 }, "state": state,
                          "cluster": { "leader": node } });
        let ok = Some(json!({ "status": "ok" }));
        Answers {
            varz: Some(json!({ "server_id": id, "version": "2.15.1", "cluster": { "name": "fleet" }, "connections": 3,
                               "start": "2026-11-30T12:00:00Z", "remotes": 2 })),
            enabled: ok.clone(),
            meta: ok.clone(),
            full: Some(json!({ "status": "unavailable", "error": "stream catching up" })),
            jsz: vec![json!({ "accounts": 1, "meta_cluster": group,
                              "account_details": [{ "name": "STORE", "stream_detail": [stream, own] }] })],
        }
    }

    fn nodes() -> BTreeSet<String> {
        ["a", "b", "c"].map(str::to_owned).into()
    }

    #[test]
    fn documents_of_servers_become_an_observation() {
        let answers = [("a", "A1"), ("b", "B1"), ("d", "D1")].map(|(node, id)| (node.to_owned(), answers(node, id)));
        let survey = Survey { answers: answers.into(), doubles: BTreeSet::new() };
        let observation = survey.observation(&nodes());
        let a = observation.server("a").unwrap();
        assert_eq!((a.instance.as_str(), a.clients, a.peers, a.cluster.as_deref()), ("A1", 3, 2, Some("fleet")));
        assert_eq!((&a.health.enabled, &a.health.full), (&Ok(()), &Err("stream catching up".to_owned())));
        assert_eq!(a.meta.as_ref().unwrap().leader.as_deref(), Some("a"));
        assert_eq!(observation.servers["c"], Seen::Unknown("does not answer".to_owned()));
        assert_eq!(observation.strangers, ["d".to_owned()].into());
        let names: Vec<String> = observation.assets.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["stream `R1_a`", "stream `R1_b`", "stream `R1_d`", "stream `S`", "consumer `S/dur`"]);
        let stream = observation.assets.iter().find(|asset| asset.name == "S").unwrap();
        assert_eq!((stream.level, stream.replicas, stream.leader()), (2, 3, Some("a")));
        assert_eq!(stream.views["b"].state, Some(AssetState { messages: 2, first: 1, last: 2 }));
    }

    #[test]
    fn a_document_that_is_missing_or_damaged_makes_its_server_unknown() {
        let check = |damage: fn(&mut Answers), expected: &str| {
            let mut said = answers("a", "A1");
            damage(&mut said);
            let reason = said.server().unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        };
        check(|said| said.varz = None, "does not answer the question for `varz`");
        check(|said| said.full = None, "does not answer the question for `healthz`");
        check(|said| said.jsz.clear(), "does not answer the question for `jsz`");
        check(|said| said.jsz[0] = json!({ "account_details": 7 }), "`jsz` that cannot be read");
        check(|said| said.varz = Some(json!({ "version": "2.15.1" })), "`varz` that cannot be read");
    }
}

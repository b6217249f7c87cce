//! What the servers of a cluster say of themselves, of each other and of what they store, at one moment; and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::obstacle::Obstacle;
use crate::model::observed::Seen;
use crate::nats::locate::Version;

/// What was seen of a cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Observation {
    /// The servers that the environment has, by name. One that does not answer is unknown, not absent.
    pub(crate) servers: BTreeMap<String, Seen<Server>>,
    /// Servers that answer and that the environment does not name, or a second one of a name.
    pub(crate) strangers: BTreeSet<String>,
    /// Streams and consumers that at least one server has a replica of.
    pub(crate) assets: Vec<Asset>,
}

/// What one server says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Server {
    /// Another one for each process: the id that a server gives itself when it starts.
    pub(crate) instance: String,
    pub(crate) version: Version,
    /// Name of its cluster.
    pub(crate) cluster: Option<String>,
    /// Digest of the configuration that it was started with, where the platform knows it.
    pub(crate) config: Option<String>,
    /// Since when it runs, as RFC 3339.
    pub(crate) started: String,
    /// Clients that are connected to it.
    pub(crate) clients: u64,
    /// Other servers that it has routes to.
    pub(crate) peers: usize,
    pub(crate) health: Health,
    pub(crate) meta: Option<Meta>,
    pub(crate) traffic: Traffic,
    /// What JetStream has stored on disk.
    pub(crate) storage: Usage,
    /// Clients that it has cut off since it started, because they read too slowly.
    pub(crate) slow_consumers: u64,
    /// Until when the certificate is valid that it shows to clients, as RFC 3339; older servers do not say it.
    pub(crate) certificate_ends: Option<String>,
}

/// How much of something is used, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    pub(crate) used: u64,
    /// 0 if there is none.
    pub(crate) limit: u64,
}

/// The answers of `/healthz`; an error says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Health {
    /// `js-enabled-only`: it takes clients, and its JetStream is on.
    pub(crate) enabled: Result<(), String>,
    /// `js-meta-only`: it also follows a meta leader and has what that has.
    pub(crate) meta: Result<(), String>,
    /// Everything: also each stream and consumer that it has a replica of.
    pub(crate) full: Result<(), String>,
}

/// The group of all servers, which knows where streams are, as one server sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Meta {
    pub(crate) leader: Option<String>,
    /// The others. Only the leader knows how far they are.
    pub(crate) peers: Vec<Peer>,
}

/// Another member of a group, as the one sees it that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) current: bool,
    pub(crate) offline: bool,
    /// Entries that it lacks.
    pub(crate) lag: u64,
}

/// Whether new clients reach a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Traffic {
    /// Clients choose by themselves: there is no load balancer.
    #[default]
    Direct,
    /// The load balancer sends clients to it.
    #[cfg_attr(not(any(test, feature = "aws")), expect(dead_code, reason = "there is no load balancer on one machine"))]
    In,
    /// The load balancer sends none to it.
    Out,
}

/// A stream or a consumer with its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asset {
    pub(crate) kind: AssetKind,
    /// The account that it is in.
    pub(crate) account: String,
    /// Of a consumer its stream and its own name: `EVT_QUEST_SYSTEM/npc-behavior_quest-generated-v1`.
    pub(crate) name: String,
    /// How many replicas it is configured to have; 0 if that is not said.
    pub(crate) replicas: usize,
    /// The lowest API level of a server that can serve it.
    pub(crate) level: u64,
    /// What each server says that has a replica.
    pub(crate) views: BTreeMap<String, View>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AssetKind {
    Stream,
    Consumer,
}

/// A group as one of its members sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) leader: Option<String>,
    /// The others. Only the leader knows how far they are.
    pub(crate) peers: Vec<Peer>,
    /// What the member has stored; of streams only.
    pub(crate) state: Option<AssetState>,
}

/// What a replica of a stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AssetState {
    pub(crate) messages: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// When all replicas of a stream or consumer were seen to have everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Complete {
    /// Since the last server came back: what one lacks now it gets in a moment, as under load.
    Lately,
    /// Not since then.
    Unknown,
}

/// Names a stream or consumer.
pub(crate) type AssetId = (String, AssetKind, String);

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            AssetKind::Stream => write!(f, "stream `{}`", self.name),
            AssetKind::Consumer => write!(f, "consumer `{}`", self.name),
        }
    }
}

impl Observation {
    /// Nothing could be read, for this reason.
    pub(crate) fn unknown(servers: impl IntoIterator<Item = String>, reason: &str) -> Self {
        let servers = servers.into_iter().map(|name| (name, Seen::Unknown(reason.to_owned())));
        Self { servers: servers.collect(), ..Self::default() }
    }

    /// Adds the digests of the servers' configurations, which the platform knows.
    pub(crate) fn add_configs(&mut self, config: impl Fn(&str) -> Option<String>) {
        for (node, seen) in &mut self.servers {
            if let Seen::Present(server) = seen {
                server.config = config(node);
            }
        }
    }

    /// Adds whether new clients reach the servers, which the platform's load balancer knows.
    #[cfg(feature = "aws")]
    pub(crate) fn add_traffic(&mut self, traffic: impl Fn(&str) -> Traffic) {
        for (node, seen) in &mut self.servers {
            if let Seen::Present(server) = seen {
                server.traffic = traffic(node);
            }
        }
    }

    /// What a server says, if it answers.
    pub(crate) fn server(&self, name: &str) -> Option<&Server> {
        match self.servers.get(name) {
            Some(Seen::Present(server)) => Some(server),
            _ => None,
        }
    }

    /// The meta leader: a majority of all servers follows it, and it says so itself.
    pub(crate) fn meta_leader(&self) -> Option<&str> {
        let follows = |name: &str| self.server(name)?.meta.as_ref()?.leader.as_deref();
        let leads = |name: &&String| follows(name) == Some(name.as_str());
        let followers = |leader: &str| self.servers.keys().filter(|name| follows(name) == Some(leader)).count();
        let is_elected = |name: &&String| followers(name) * 2 > self.servers.len();
        self.servers.keys().filter(leads).find(is_elected).map(String::as_str)
    }

    /// How many streams and consumers a server leads.
    pub(crate) fn led_by(&self, server: &str) -> usize {
        self.assets.iter().filter(|asset| asset.leader() == Some(server)).count()
    }

    /// Whether the other servers would keep the quorum of the cluster without this one: every one of them counts that answers, is well,
    /// and of which the leader says that it has everything.
    pub(crate) fn meta_survives(&self, without: &str) -> bool {
        let Some(leader) = self.meta_leader() else { return false };
        let Some(meta) = self.server(leader).and_then(|server| server.meta.as_ref()) else { return false };
        let sound = |name: &&String| {
            let follows =
                |server: &Server| server.meta.as_ref().is_some_and(|meta| meta.leader.as_deref() == Some(leader));
            let has_all = *name == leader || meta.peers.iter().any(|peer| peer.name == **name && peer.is_current());
            self.server(name).is_some_and(|server| server.health.enabled.is_ok() && follows(server)) && has_all
        };
        let left = self.servers.keys().filter(|name| *name != without).filter(sound).count();
        left * 2 > self.servers.len()
    }

    /// What is wrong with the servers and with what connects them. `but` is one that is not looked at.
    pub(crate) fn server_obstacles(&self, but: Option<&str>) -> Vec<Obstacle> {
        let looked_at = || self.servers.iter().filter(|(name, _)| Some(name.as_str()) != but);
        let mut found = Vec::new();
        for (node, seen) in looked_at() {
            match seen {
                Seen::Present(server) => found.extend(self.obstacles_of(node, server)),
                Seen::Absent => found.push(Obstacle::Silent { node: node.clone(), reason: "is not there".to_owned() }),
                Seen::Unknown(reason) => found.push(Obstacle::Silent { node: node.clone(), reason: reason.clone() }),
            }
        }
        let leaders: BTreeSet<&str> =
            looked_at().filter_map(|(name, _)| self.server(name)?.meta.as_ref()?.leader.as_deref()).collect();
        if leaders.len() > 1 {
            found.push(Obstacle::Leaders { leaders: leaders.into_iter().map(str::to_owned).collect() });
        } else if self.meta_leader().is_none() {
            found.push(Obstacle::NoMetaLeader);
        }
        found
    }

    fn obstacles_of(&self, node: &str, server: &Server) -> Option<Obstacle> {
        let unwell = |reason: &String| Obstacle::Unwell { node: node.to_owned(), reason: reason.clone() };
        let Health { enabled, meta, full } = &server.health;
        if let Some(reason) = [enabled, meta, full].into_iter().find_map(|health| health.as_ref().err()) {
            return Some(unwell(reason));
        }
        // Nobody has a route to one that does not answer.
        let silent = self.servers.keys().filter(|name| self.server(name).is_none()).count();
        if server.peers + 1 + silent < self.servers.len() {
            return Some(Obstacle::Routes { node: node.to_owned(), has: server.peers, needs: self.servers.len() - 1 });
        }
        let leader = self.meta_leader().filter(|leader| *leader != node)?;
        let peers = &self.server(leader)?.meta.as_ref()?.peers;
        match peers.iter().find(|peer| peer.name == node) {
            Some(peer) if peer.is_current() && peer.lag == 0 => None,
            Some(peer) => Some(Obstacle::MetaBehind { node: node.to_owned(), lag: peer.lag }),
            None => Some(Obstacle::MetaBehind { node: node.to_owned(), lag: 0 }),
        }
    }
}

impl Peer {
    pub(crate) fn is_current(&self) -> bool {
        self.current && !self.offline
    }
}

impl Asset {
    pub(crate) fn id(&self) -> AssetId {
        (self.account.clone(), self.kind, self.name.clone())
    }

    /// Servers that have a replica, as any of them says.
    pub(crate) fn members(&self) -> BTreeSet<&str> {
        let peers = self.views.values().flat_map(|view| &view.peers);
        self.views.keys().map(String::as_str).chain(peers.map(|peer| peer.name.as_str())).collect()
    }

    /// The leader: a majority of the members follows it, and it says so itself.
    pub(crate) fn leader(&self) -> Option<&str> {
        let members = self.members().len();
        let follow = |leader: &str| self.views.values().filter(|view| view.leader.as_deref() == Some(leader)).count();
        let leads = |(name, view): &(&String, &View)| view.leader.as_ref() == Some(name) && follow(name) * 2 > members;
        self.views.iter().find(leads).map(|(name, _)| name.as_str())
    }

    /// How many replicas there are, or should be.
    fn size(&self) -> usize {
        self.members().len().max(self.replicas)
    }

    /// Whether it cannot be written to while any of its servers is away.
    pub(crate) fn is_fragile(&self) -> bool {
        self.size() <= 2
    }

    /// Whether it could be written to without this server: by those that answer, are well, follow its leader, and have everything.
    pub(crate) fn survives(&self, without: &str, observation: &Observation, complete: Complete) -> bool {
        let members = self.members();
        if !members.contains(without) {
            return true;
        }
        let Some(leader) = self.leader() else { return false };
        let sound = |member: &&&str| {
            let is_well = observation.server(member).is_some_and(|server| server.health.enabled.is_ok());
            let follows = self.views.get(**member).is_some_and(|view| view.leader.as_deref() == Some(leader));
            let has_all = |peer: &Peer| peer.is_current() || (complete == Complete::Lately && !peer.offline);
            is_well && follows && (**member == leader || self.peer(leader, member).is_some_and(has_all))
        };
        members.iter().filter(|member| **member != without).filter(sound).count() * 2 > self.size()
    }

    /// What is wrong with it. `before` is what was seen of it a moment ago: under load a replica is always a little behind, and has
    /// everything when it has what the leader had then.
    pub(crate) fn obstacle(&self, before: Option<&Self>) -> Option<Obstacle> {
        let asset = || self.to_string();
        let members = self.members();
        let Some(leader) = self.leader() else {
            return Some(Obstacle::NoLeader { asset: asset() });
        };
        // A server that has just started may not know yet who else there is.
        if members.len() < self.replicas {
            return Some(Obstacle::Few { asset: asset(), has: members.len(), needs: self.replicas });
        }
        let led = self.views[leader].state;
        for node in members.iter().filter(|member| **member != leader) {
            let node = (*node).to_owned();
            let Some(view) = self.views.get(&node) else {
                return Some(Obstacle::Missing { asset: asset(), node });
            };
            let had = before.and_then(|before| before.views.get(leader)?.state);
            let keeps_up = match (view.state, had) {
                (Some(state), Some(had)) => had.last > 0 && state.last >= had.last,
                _ => false,
            };
            match self.peer(leader, &node) {
                Some(peer) if peer.is_current() && (peer.lag == 0 || keeps_up) => {}
                peer => {
                    let lag = peer.map_or(0, |peer| peer.lag);
                    return Some(Obstacle::Behind { asset: asset(), node, lag });
                }
            }
            if let (Some(state), Some(led)) = (view.state, led) {
                if state.last == led.last && state != led {
                    let (messages, leader) = (state.messages, led.messages);
                    return Some(Obstacle::Differs { asset: asset(), node, messages, leader });
                }
                if state.last < led.last && !keeps_up {
                    return Some(Obstacle::Behind { asset: asset(), node, lag: led.last - state.last });
                }
            }
        }
        None
    }

    fn peer(&self, leader: &str, member: &str) -> Option<&Peer> {
        self.views.get(leader)?.peers.iter().find(|peer| peer.name == member)
    }
}

//! The procedure: from what was observed to what is done next. Pure: it reads no clock and asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observation::{Asset, AssetId, Complete, Observation, Traffic};
use super::obstacle::Obstacle;
use super::versions::{Downgrade, refuse_jump};
use crate::model::observed::Seen;
use crate::nats::locate::Version;

/// What is rolled out to which servers. Together with what is observed it says how far a roll is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Roll {
    pub(crate) goal: Goal,
    /// Names of all servers of the cluster.
    pub(crate) cluster: BTreeSet<String>,
    /// The servers that are restarted.
    pub(crate) nodes: BTreeMap<String, NodeGoal>,
    /// What was accepted when it was asked for.
    pub(crate) accepted: Accepted,
}

/// What is refused unless it is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    /// Streams and consumers that have one or two replicas are away while their server is.
    #[serde(default)]
    pub(crate) fragile: bool,
    /// The servers get an older version, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) downgrade: Option<String>,
}

/// Why servers are restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// They are to be other processes, of what they are now.
    Restart,
    /// They get the configuration that the manifests describe.
    Config,
    /// They get new certificates.
    Certificates,
    /// They get another version.
    Version,
}

/// When one server is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeGoal {
    /// The process that it was when the roll began; `None` if it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) was: Option<String>,
    /// The version that it must run; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<Version>,
    /// Digest of the configuration that it must run with; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<String>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// From taking a server until it and all others are well again.
    pub(crate) gate: Duration,
    /// Until all are well before the first server is taken.
    pub(crate) start: Duration,
    /// For so long everything must stay well before the next one is taken.
    pub(crate) steady: Duration,
}

/// What is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Look again in a moment.
    Wait(Vec<Obstacle>),
    /// Take this server: out of the load balancer, then a restart by lame duck.
    Take(String),
    /// Have the load balancer send clients to this server again.
    Admit(String),
    /// Stop here. The same roll can be resumed.
    Abort(Vec<Obstacle>),
    /// Everything is done, and well.
    Finished,
}

/// So many observations in a row must find everything well before a server is taken: one could be stale.
const CONFIRMATIONS: u32 = 2;

/// The procedure of one roll.
#[derive(Debug)]
pub(crate) struct Machine {
    roll: Roll,
    patience: Patience,
    current: Option<Current>,
    /// Since when everything has been well, and in how many observations.
    well: Option<(Duration, u32)>,
    /// Since when no server is taken although one should be.
    waiting: Option<Duration>,
    /// Whether this run has taken a server.
    has_taken: bool,
    /// The servers that alone are unwell, and since when.
    unwell: Option<(String, Duration)>,
    /// What the last observation showed.
    before: BTreeMap<AssetId, Asset>,
    /// Streams and consumers that were complete since the last server was taken, with the servers that had their replicas then.
    complete: BTreeMap<AssetId, BTreeSet<String>>,
}

/// The server that was taken.
#[derive(Clone, Debug)]
struct Current {
    node: String,
    since: Duration,
}

impl Machine {
    pub(crate) fn new(roll: Roll, patience: Patience) -> Self {
        Self {
            roll,
            patience,
            current: None,
            well: None,
            waiting: None,
            has_taken: false,
            unwell: None,
            before: BTreeMap::new(),
            complete: BTreeMap::new(),
        }
    }

    /// The server that was taken and is not back yet.
    pub(crate) fn current(&self) -> Option<&str> {
        self.current.as_ref().map(|current| current.node.as_str())
    }

    /// What is done next; `now` is the time since the machine was made.
    pub(crate) fn next(&mut self, observation: &Observation, now: Duration) -> Action {
        let obstacles = self.look_at(observation);
        let refusals = self.roll.refusals(observation);
        if !refusals.is_empty() {
            return Action::Abort(refusals);
        }
        if let Some(current) = self.current.clone() {
            match self.follow(&current, observation, obstacles.clone(), now) {
                Some(action) => return action,
                None => (self.current, self.waiting) = (None, None),
            }
        }
        self.choose(observation, obstacles, now)
    }

    /// What is wrong, as far as it is not only the moment: what was well in an earlier look may lag now.
    pub(crate) fn look_at(&mut self, observation: &Observation) -> Vec<Obstacle> {
        let mut obstacles = observation.server_obstacles(None);
        for asset in &observation.assets {
            match asset.obstacle(self.before.get(&asset.id())) {
                None => drop(self.complete.insert(asset.id(), members(asset))),
                Some(Obstacle::Behind { .. } | Obstacle::Differs { .. }) if self.was_complete(asset) => {}
                Some(obstacle) => obstacles.push(obstacle),
            }
        }
        self.before = observation.assets.iter().map(|asset| (asset.id(), asset.clone())).collect();
        obstacles
    }

    /// Whether the server that was taken is back; `None` if it is.
    fn follow(
        &mut self,
        current: &Current,
        observation: &Observation,
        mut obstacles: Vec<Obstacle>,
        now: Duration,
    ) -> Option<Action> {
        if let Some(obstacle) = self.roll.unfinished(&current.node, observation) {
            let obstacle = match obstacle {
                Obstacle::Silent { node, reason } => Obstacle::Away { node, reason },
                other => other,
            };
            // What else there is follows from it.
            obstacles.retain(|other| other.node().is_some_and(|node| node != current.node));
            obstacles.insert(0, obstacle);
        }
        if !obstacles.is_empty() {
            self.well = None;
            let is_over = now.saturating_sub(current.since) >= self.patience.gate;
            return Some(if is_over { Action::Abort(obstacles) } else { Action::Wait(obstacles) });
        }
        let (since, count) = self.well.unwrap_or((now, 0));
        self.well = Some((since, count + 1));
        if now.saturating_sub(since) < self.patience.steady || count + 1 < CONFIRMATIONS {
            return Some(Action::Wait(Vec::new()));
        }
        let traffic = observation.server(&current.node).map(|server| server.traffic);
        (traffic == Some(Traffic::Out)).then(|| Action::Admit(current.node.clone()))
    }

    fn choose(&mut self, observation: &Observation, mut obstacles: Vec<Obstacle>, now: Duration) -> Action {
        let alone = self.alone(&obstacles, observation, now);
        let (done, pending): (Vec<&String>, Vec<&String>) =
            self.roll.nodes.keys().partition(|node| self.roll.unfinished(node, observation).is_none());
        let is_out = |node: &&&String| observation.server(node).is_some_and(|server| server.traffic == Traffic::Out);
        if obstacles.is_empty()
            && let Some(node) = done.iter().find(is_out)
        {
            return Action::Admit((*node).clone());
        }
        let candidate = match alone {
            // It has no part in any quorum now, and its restart may be what it needs.
            Some(node) if pending.contains(&&node) => Some(node),
            _ if obstacles.is_empty() => first(&pending, observation),
            _ => None,
        };
        if let Some(node) = &candidate {
            obstacles = self.losses(node, observation);
        }
        if !obstacles.is_empty() {
            self.well = None;
            let since = *self.waiting.get_or_insert(now);
            let limit = if self.has_taken { self.patience.gate } else { self.patience.start };
            let is_over = now.saturating_sub(since) >= limit;
            return if is_over { Action::Abort(obstacles) } else { Action::Wait(obstacles) };
        }
        let (since, count) = self.well.unwrap_or((now, 0));
        self.well = Some((since, count + 1));
        if count + 1 < CONFIRMATIONS {
            return Action::Wait(Vec::new());
        }
        let Some(node) = candidate else { return Action::Finished };
        self.current = Some(Current { node: node.clone(), since: now });
        (self.has_taken, self.well, self.waiting, self.unwell) = (true, None, None, None);
        self.complete.clear();
        Action::Take(node)
    }

    /// The only server that anything is wrong with, once that has lasted.
    fn alone(&mut self, obstacles: &[Obstacle], observation: &Observation, now: Duration) -> Option<String> {
        let mut nodes = obstacles.iter().map(Obstacle::node);
        let first = nodes.next().flatten();
        let alone = first.filter(|first| nodes.all(|node| node == Some(first)));
        // One that only lags is waited for: a restart would not make it faster.
        let is_unwell = |node: &&str| match observation.servers.get(*node) {
            Some(Seen::Present(server)) => server.health.enabled.is_err(),
            _ => true,
        };
        let Some(node) = alone.filter(is_unwell) else {
            self.unwell = None;
            return None;
        };
        let since = match &self.unwell {
            Some((before, since)) if before == node => *since,
            _ => now,
        };
        self.unwell = Some((node.to_owned(), since));
        (now.saturating_sub(since) >= self.patience.start / 2).then(|| node.to_owned())
    }

    /// Whether it was complete since the last server was taken, on the servers that it is on now.
    fn was_complete(&self, asset: &Asset) -> bool {
        self.complete.get(&asset.id()).is_some_and(|then| *then == members(asset))
    }

    /// What would lose its quorum without the server.
    fn losses(&self, node: &str, observation: &Observation) -> Vec<Obstacle> {
        let loses = |asset: String| Obstacle::LosesQuorum { asset, node: node.to_owned() };
        let is_lost = |asset: &&Asset| {
            let complete = if self.was_complete(asset) { Complete::Lately } else { Complete::Unknown };
            !asset.is_fragile() && !asset.survives(node, observation, complete)
        };
        let meta = (!observation.meta_survives(node)).then(|| loses("the cluster".to_owned()));
        let assets = observation.assets.iter().filter(is_lost).map(|asset| loses(asset.to_string()));
        meta.into_iter().chain(assets).collect()
    }
}

fn members(asset: &Asset) -> BTreeSet<String> {
    asset.members().into_iter().map(str::to_owned).collect()
}

/// The meta leader comes last, as its leaving is what all others notice.
fn first(pending: &[&String], observation: &Observation) -> Option<String> {
    let leader = observation.meta_leader();
    pending.iter().min_by_key(|node| (leader == Some(node.as_str()), (**node).clone())).map(|node| (*node).clone())
}

impl Roll {
    /// A roll that begins now: of these servers, besides those that are what they should be.
    pub(crate) fn begin(
        goal: Goal,
        cluster: BTreeSet<String>,
        mut nodes: BTreeMap<String, NodeGoal>,
        observation: &Observation,
        accepted: Accepted,
    ) -> Self {
        let is_there = |node: &String, wanted: &NodeGoal| {
            observation.server(node).is_some_and(|server| {
                wanted.version.is_none_or(|version| version == server.version)
                    && (wanted.config.is_none() || wanted.config == server.config)
            })
        };
        if goal != Goal::Restart {
            nodes.retain(|node, wanted| !is_there(node, wanted));
        }
        for (node, goal) in &mut nodes {
            goal.was = observation.server(node).map(|server| server.instance.clone());
        }
        Self { goal, cluster, nodes, accepted }
    }

    /// The servers that are still to be taken, in the order in which they would be now.
    pub(crate) fn pending(&self, observation: &Observation) -> Vec<String> {
        let mut pending: Vec<&String> =
            self.nodes.keys().filter(|node| self.unfinished(node, observation).is_some()).collect();
        let leader = observation.meta_leader();
        pending.sort_by_key(|node| (leader == Some(node.as_str()), (*node).clone()));
        pending.into_iter().cloned().collect()
    }

    /// Why a server is not done; `None` if it is.
    fn unfinished(&self, node: &str, observation: &Observation) -> Option<Obstacle> {
        let NodeGoal { was, version, config } = self.nodes.get(node)?;
        let node = node.to_owned();
        let server = match observation.servers.get(&node) {
            Some(Seen::Present(server)) => server,
            Some(Seen::Unknown(reason)) => return Some(Obstacle::Silent { node, reason: reason.clone() }),
            Some(Seen::Absent) | None => return Some(Obstacle::Silent { node, reason: "is not there".to_owned() }),
        };
        if was.as_ref() == Some(&server.instance) {
            return Some(Obstacle::NotRestarted { node, clients: server.clients });
        }
        if let Some(wanted) = version.filter(|wanted| *wanted != server.version) {
            let (runs, wanted) = (server.version.to_string(), wanted.to_string());
            return Some(Obstacle::WrongVersion { node, runs, wanted });
        }
        (config.is_some() && *config != server.config).then_some(Obstacle::WrongConfig { node })
    }

    /// What no waiting makes better.
    pub(crate) fn refusals(&self, observation: &Observation) -> Vec<Obstacle> {
        let mut refusals: Vec<Obstacle> =
            observation.strangers.iter().map(|node| Obstacle::Stranger { node: node.clone() }).collect();
        refusals.extend(other_cluster(observation));
        let pending = self.pending(observation);
        if !self.accepted.fragile {
            for asset in observation.assets.iter().filter(|asset| asset.is_fragile()) {
                let members = asset.members();
                let node = pending.iter().find(|node| members.contains(node.as_str()));
                refusals.extend(node.map(|node| {
                    let replicas = members.len();
                    Obstacle::Fragile { asset: asset.to_string(), node: node.clone(), replicas }
                }));
            }
        }
        let running = observation.servers.keys().filter_map(|name| observation.server(name));
        let running: BTreeSet<Version> = running.map(|server| server.version).collect();
        let wanted: BTreeSet<Version> = pending.iter().filter_map(|node| self.nodes[node].version).collect();
        let downgrade = if self.accepted.downgrade.is_some() { Downgrade::Forced } else { Downgrade::Refused };
        let jump = |to: &Version| refuse_jump(&running, *to, &observation.assets, downgrade).err();
        refusals.extend(wanted.iter().filter_map(jump));
        refusals
    }
}

/// A server that says another name of its cluster than most.
fn other_cluster(observation: &Observation) -> Option<Obstacle> {
    let named =
        || observation.servers.keys().filter_map(|name| Some((name, observation.server(name)?.cluster.as_deref()?)));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    named().for_each(|(_, cluster)| *counts.entry(cluster).or_default() += 1);
    let most = counts.iter().max_by_key(|(_, count)| **count).map(|(cluster, _)| *cluster)?;
    let (node, cluster) = named().find(|(_, cluster)| *cluster != most)?;
    Some(Obstacle::OtherCluster { node: node.clone(), cluster: cluster.to_owned(), others: most.to_owned() })
}

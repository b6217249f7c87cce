//! A cluster that is simulated, and what the machine makes of it.

mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::machine::Action;
use super::observation::{AssetState, Health, Meta, Peer, Traffic, Usage, View};
use super::*;
use crate::model::observed::Seen;

const PATIENCE: Patience =
    Patience { gate: Duration::from_secs(60), start: Duration::from_secs(10), steady: Duration::from_secs(2) };
/// Between two observations.
const TICK: Duration = Duration::from_secs(1);

/// A cluster as it really is.
#[derive(Clone, Debug)]
struct World {
    servers: BTreeMap<String, Process>,
    meta: Group,
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Process {
    up: bool,
    number: u32,
    version: &'static str,
    traffic: Traffic,
}

#[derive(Clone, Debug)]
struct Group {
    members: BTreeSet<String>,
    leader: Option<String>,
    /// Members that lack something.
    behind: BTreeSet<String>,
}

fn name(number: usize) -> String {
    format!("nats-{}", number + 1)
}

impl World {
    /// So many servers, and streams with replicas on these.
    fn new(size: usize, groups: &[&[usize]]) -> Self {
        let process = Process { up: true, number: 1, version: "2.15.1", traffic: Traffic::Direct };
        let group = |members: &[usize]| Group {
            members: members.iter().copied().map(name).collect(),
            leader: members.first().copied().map(name),
            behind: BTreeSet::new(),
        };
        Self {
            servers: (0..size).map(|number| (name(number), process.clone())).collect(),
            meta: group(&(0..size).collect::<Vec<_>>()),
            groups: groups.iter().map(|members| group(members)).collect(),
        }
    }

    fn kill(&mut self, node: &str) {
        self.servers.get_mut(node).unwrap().up = false;
        self.elect();
    }

    /// It comes up as another process, and has not everything yet.
    fn start(&mut self, node: &str, version: &'static str) {
        let process = self.servers.get_mut(node).unwrap();
        (process.up, process.version) = (true, version);
        process.number += 1;
        for group in self.groups.iter_mut().filter(|group| group.members.len() > 1) {
            if group.members.contains(node) {
                group.behind.insert(node.to_owned());
            }
        }
        self.elect();
    }

    fn heal(&mut self) {
        for node in self.servers.keys().cloned().collect::<Vec<_>>() {
            if !self.servers[&node].up {
                self.start(&node, self.servers[&node].version);
            }
        }
        self.groups.iter_mut().for_each(|group| group.behind.clear());
        self.elect();
    }

    fn is_up(&self, node: &str) -> bool {
        self.servers[node].up
    }

    /// A group without a leader that is up gets one if a majority is up that has everything.
    fn elect(&mut self) {
        let up: BTreeSet<String> = self.servers.iter().filter(|(_, it)| it.up).map(|(name, _)| name.clone()).collect();
        for group in self.groups.iter_mut().chain([&mut self.meta]) {
            if group.leader.as_ref().is_some_and(|leader| up.contains(leader)) {
                let alive = group.members.intersection(&up).count();
                if alive * 2 <= group.members.len() {
                    group.leader = None;
                }
                continue;
            }
            let alive: Vec<&String> = group.members.intersection(&up).collect();
            let complete = alive.iter().find(|member| !group.behind.contains(**member));
            group.leader = complete.filter(|_| alive.len() * 2 > group.members.len()).map(|member| (*member).clone());
        }
    }

    /// Members of a group that are up and have everything, besides one.
    fn sound(&self, group: &Group, without: &str) -> usize {
        let is_sound = |member: &&String| *member != without && self.is_up(member) && !group.behind.contains(*member);
        group.members.iter().filter(is_sound).count()
    }

    /// What is seen when these servers do not answer.
    fn observe(&self, silent: &BTreeSet<String>) -> Observation {
        let answers = |node: &String| self.is_up(node) && !silent.contains(node);
        let server = |node: &String| {
            if !answers(node) {
                return Seen::Unknown("does not answer".to_owned());
            }
            let process = &self.servers[node];
            let full = match self.groups.iter().any(|group| group.behind.contains(node)) {
                true => Err("stream catching up".to_owned()),
                false => Ok(()),
            };
            Seen::Present(Server {
                instance: format!("{node}-{}", process.number),
                version: process.version.parse().unwrap(),
                cluster: Some("fleet".to_owned()),
                config: None,
                started: String::new(),
                clients: 0,
                peers: self.servers.values().filter(|process| process.up).count() - 1,
                health: Health { enabled: Ok(()), meta: Ok(()), full },
                meta: Some(Meta { leader: self.meta.leader.clone(), peers: self.peers(&self.meta, node) }),
                traffic: process.traffic,
                storage: Usage::default(),
                slow_consumers: 0,
                certificate_ends: None,
            })
        };
        let asset = |(number, group): (usize, &Group)| {
            let view = |node: &String| {
                let behind = u64::from(group.behind.contains(node));
                let state = AssetState { messages: 9 - behind, first: 1, last: 9 - behind };
                View { leader: group.leader.clone(), peers: self.peers(group, node), state: Some(state) }
            };
            let views = group.members.iter().filter(|node| answers(node)).map(|node| (node.clone(), view(node)));
            Asset {
                kind: AssetKind::Stream,
                account: "STORE".to_owned(),
                name: format!("S{number}"),
                replicas: group.members.len(),
                level: 0,
                views: views.collect(),
            }
        };
        let assets = self.groups.iter().enumerate().map(asset).filter(|asset| !asset.views.is_empty());
        Observation {
            servers: self.servers.keys().map(|node| (node.clone(), server(node))).collect(),
            strangers: BTreeSet::new(),
            assets: assets.collect(),
        }
    }

    /// The others of a group, as one of its members sees them.
    fn peers(&self, group: &Group, node: &str) -> Vec<Peer> {
        let is_leader = group.leader.as_deref() == Some(node);
        let peer = |name: &String| Peer {
            name: name.clone(),
            current: is_leader && self.is_up(name) && !group.behind.contains(name),
            offline: is_leader && !self.is_up(name),
            lag: u64::from(group.behind.contains(name)),
        };
        group.members.iter().filter(|name| *name != node).map(peer).collect()
    }

    fn seen(&self) -> Observation {
        self.observe(&BTreeSet::new())
    }

    fn roll(&self) -> Roll {
        let goal = |node: &String| NodeGoal {
            was: Some(format!("{node}-{}", self.servers[node].number)),
            ..NodeGoal::default()
        };
        Roll {
            goal: Goal::Restart,
            cluster: self.servers.keys().cloned().collect(),
            nodes: self.servers.keys().map(|node| (node.clone(), goal(node))).collect(),
            accepted: Accepted::default(),
        }
    }
}

/// Runs a machine on a world in which servers that are taken come back in a moment. Gives what it did and how it ended.
fn run(world: &mut World, roll: &Roll) -> (Vec<String>, Action) {
    let mut machine = Machine::new(roll.clone(), PATIENCE);
    let mut done = Vec::new();
    let mut coming: Option<String> = None;
    for tick in 0..1_000 {
        match machine.next(&world.seen(), TICK * tick) {
            Action::Wait(_) => {
                if let Some(node) = coming.take() {
                    let version = roll.nodes[&node].version.map_or("2.15.1", |_| "2.16.0");
                    world.start(&node, version);
                } else {
                    world.groups.iter_mut().for_each(|group| group.behind.clear());
                }
            }
            Action::Take(node) => {
                world.kill(&node);
                done.push(format!("take {node}"));
                coming = Some(node);
            }
            Action::Admit(node) => {
                world.servers.get_mut(&node).unwrap().traffic = Traffic::In;
                done.push(format!("admit {node}"));
            }
            end => return (done, end),
        }
    }
    panic!("no end after {done:?}");
}

/// What a machine says of a world that does not change, in the end.
#[track_caller]
fn refused(world: &World, roll: &Roll, expected: &[&str]) {
    let mut machine = Machine::new(roll.clone(), PATIENCE);
    for tick in 0..100 {
        match machine.next(&world.seen(), TICK * tick) {
            Action::Wait(_) => {}
            Action::Abort(obstacles) => {
                let texts: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
                assert_eq!(texts, expected);
                assert!(obstacles.iter().all(|obstacle| !obstacle.repair().is_empty()));
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no end");
}

const R3: &[&[usize]] = &[&[0, 1, 2], &[2, 3, 4], &[4, 0, 1]];

#[test]
fn the_meta_leader_comes_last_wherever_it_is_by_then() {
    let mut world = World::new(5, R3);
    let roll = world.roll();
    let (done, end) = run(&mut world, &roll);
    assert_eq!(end, Action::Finished);
    assert_eq!(done, ["take nats-2", "take nats-3", "take nats-4", "take nats-5", "take nats-1"]);
    assert!(world.servers.values().all(|process| process.number == 2));
}

#[test]
fn a_load_balancer_gets_each_server_back() {
    let mut world = World::new(3, &[&[0, 1, 2]]);
    world.servers.values_mut().for_each(|process| process.traffic = Traffic::Out);
    let roll = world.roll();
    let (done, end) = run(&mut world, &roll);
    assert_eq!(end, Action::Finished);
    assert_eq!(done, ["take nats-2", "admit nats-2", "take nats-3", "admit nats-3", "take nats-1", "admit nats-1"]);
}

#[test]
fn only_the_servers_that_are_to_be_restarted_are() {
    let mut world = World::new(5, R3);
    let mut roll = world.roll();
    roll.nodes.retain(|node, _| node == "nats-4");
    assert_eq!(run(&mut world, &roll), (vec!["take nats-4".to_owned()], Action::Finished));
    assert_eq!(run(&mut world, &roll), (Vec::new(), Action::Finished), "once is enough");
}

#[test]
fn a_stream_with_one_replica_is_named_unless_that_is_accepted() {
    let world = World::new(3, &[&[0, 1, 2], &[1], &[0, 2]]);
    let mut roll = world.roll();
    let two = "stream `S2` has only 2 replicas: without `nats-3` it cannot be written to";
    refused(&world, &roll, &["stream `S1` has its only replica on `nats-2`: it is away while the server is", two]);
    roll.accepted.fragile = true;
    let (done, end) = run(&mut world.clone(), &roll);
    assert_eq!((done.len(), end), (3, Action::Finished));
}

#[test]
fn without_a_quorum_nothing_is_taken() {
    let mut world = World::new(3, &[]);
    world.kill("nats-2");
    world.kill("nats-3");
    let roll = world.roll();
    let gone = ["`nats-2` does not answer", "`nats-3` does not answer", "the cluster has no meta leader, so no quorum"];
    refused(&world, &roll, &gone);
}

#[test]
fn a_replica_that_does_not_catch_up_is_named() {
    let mut world = World::new(5, R3);
    world.groups[1].behind.insert("nats-4".to_owned());
    let roll = world.roll();
    let unwell = "`nats-4` is not healthy: stream catching up";
    refused(&world, &roll, &[unwell, "stream `S1`: the replica on `nats-4` is 1 behind"]);
}

#[test]
fn servers_that_follow_different_leaders_are_not_touched() {
    let world = World::new(3, &[]);
    let mut observation = world.seen();
    let Some(Seen::Present(server)) = observation.servers.get_mut("nats-3") else { panic!() };
    server.meta.as_mut().unwrap().leader = Some("nats-3".to_owned());
    let mut machine = Machine::new(world.roll(), PATIENCE);
    let last = (0..20).map(|tick| machine.next(&observation, TICK * tick)).last().unwrap();
    let Action::Abort(obstacles) = last else { panic!("{last:?}") };
    assert_eq!(obstacles[0].to_string(), "the servers follow different meta leaders: `nats-1`, `nats-3`");
}

#[test]
fn a_server_of_another_cluster_or_one_too_many_is_refused_at_once() {
    let world = World::new(3, &[]);
    let mut observation = world.seen();
    observation.strangers.insert("nats-9".to_owned());
    let Some(Seen::Present(server)) = observation.servers.get_mut("nats-3") else { panic!() };
    server.cluster = Some("other".to_owned());
    let action = Machine::new(world.roll(), PATIENCE).next(&observation, Duration::ZERO);
    let Action::Abort(obstacles) = action else { panic!("{action:?}") };
    let texts: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
    let expected = [
        "`nats-9` is in the cluster, and the environment has no such server",
        "`nats-3` belongs to cluster `other`, the others to `fleet`",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn a_server_that_does_not_come_back_ends_the_roll_and_is_taken_first_when_it_is_resumed() {
    let mut world = World::new(5, R3);
    let roll = world.roll();
    let mut machine = Machine::new(roll.clone(), PATIENCE);
    let mut end = None;
    for tick in 0..100 {
        match machine.next(&world.seen(), TICK * tick) {
            Action::Take(node) => world.kill(&node),
            Action::Wait(_) => {}
            other => {
                end = Some(other);
                break;
            }
        }
    }
    let Some(Action::Abort(obstacles)) = end else { panic!("{end:?}") };
    assert_eq!(obstacles[0].to_string(), "`nats-2` leaves and restarts; it does not answer");
    let (done, end) = run(&mut world, &roll);
    assert_eq!(end, Action::Finished);
    assert_eq!(done[0], "take nats-2");
    assert_eq!(done.len(), 5);
}

#[test]
fn another_version_is_wanted_of_each_server_and_one_that_came_back_by_itself_does_not_count() {
    let mut world = World::new(3, &[&[0, 1, 2]]);
    let mut roll = world.roll();
    roll.goal = Goal::Version;
    roll.nodes.values_mut().for_each(|goal| goal.version = "2.16.0".parse().ok());
    world.kill("nats-3");
    world.start("nats-3", "2.15.1");
    let (done, end) = run(&mut world, &roll);
    assert_eq!(end, Action::Finished);
    assert_eq!(done.len(), 3);
    assert!(world.servers.values().all(|process| process.version == "2.16.0"));
}

#[test]
fn a_replica_that_is_behind_for_a_moment_under_load_is_no_obstacle_and_one_that_differs_is() {
    let state = |messages, last| AssetState { messages, first: 1, last };
    let check = |moments: &[(AssetState, AssetState)], expected: Option<&str>| {
        let world = World::new(3, &[&[0, 1, 2]]);
        let mut before: Option<Asset> = None;
        let mut found = None;
        for (leader, follower) in moments {
            let mut asset = world.seen().assets.remove(0);
            for (node, view) in &mut asset.views {
                view.state = Some(if node == "nats-1" { *leader } else { *follower });
                view.peers.iter_mut().for_each(|peer| peer.lag = leader.last - follower.last);
            }
            found = asset.obstacle(before.as_ref()).map(|obstacle| obstacle.to_string());
            before = Some(asset);
        }
        assert_eq!(found.as_deref(), expected);
    };
    check(&[(state(9, 9), state(9, 9))], None);
    check(&[(state(9, 9), state(8, 8))], Some("stream `S0`: the replica on `nats-2` is 1 behind"));
    check(&[(state(9, 9), state(8, 8)), (state(20, 20), state(15, 15))], None);
    check(
        &[(state(9, 9), state(2, 2)), (state(20, 20), state(5, 5))],
        Some("stream `S0`: the replica on `nats-2` is 15 behind"),
    );
    let differs = "stream `S0`: the replica on `nats-2` differs: 7 messages instead of 9";
    check(&[(state(9, 9), state(7, 9))], Some(differs));
}

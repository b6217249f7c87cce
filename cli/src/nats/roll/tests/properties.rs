//! Whatever happens meanwhile, no server is taken while a group would lose its quorum, and every end can be resumed.

use std::cell::Cell;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// What may happen between two observations.
#[derive(Clone, Debug)]
enum Happening {
    Nothing,
    /// A server dies.
    Kill(usize),
    /// A server that is down starts.
    Start(usize),
    /// A replica falls behind.
    Lag(usize, usize),
    /// All replicas catch up.
    CatchUp,
    /// A group gets another leader.
    Elect(usize, usize),
    /// The meta group gets another leader.
    ElectMeta(usize),
    /// An answer is lost.
    Lose(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let any = 0_usize..15;
    prop_oneof![
        6 => Just(Happening::Nothing),
        1 => any.clone().prop_map(Happening::Kill),
        2 => any.clone().prop_map(Happening::Start),
        1 => (any.clone(), any.clone()).prop_map(|(group, member)| Happening::Lag(group, member)),
        4 => Just(Happening::CatchUp),
        1 => (any.clone(), any.clone()).prop_map(|(group, member)| Happening::Elect(group, member)),
        1 => any.clone().prop_map(Happening::ElectMeta),
        1 => any.prop_map(Happening::Lose),
    ]
}

/// Three or five servers, and groups of three or more of them.
fn world() -> impl Strategy<Value = World> {
    prop_oneof![Just(3_usize), Just(5)].prop_flat_map(|size| {
        let group = subsequence((0..size).collect::<Vec<_>>(), 3..=size);
        vec(group, 0..5).prop_map(move |groups| {
            let groups: Vec<&[usize]> = groups.iter().map(Vec::as_slice).collect();
            World::new(size, &groups)
        })
    })
}

impl World {
    fn happens(&mut self, happening: &Happening) -> BTreeSet<String> {
        let size = self.servers.len();
        let node = |number: &usize| name(number % size);
        let member = |group: &Group, number: &usize| group.members.iter().nth(number % group.members.len()).cloned();
        match happening {
            Happening::Nothing => {}
            Happening::Kill(number) => self.kill(&node(number)),
            Happening::Start(number) if !self.is_up(&node(number)) => self.start(&node(number), "2.15.1"),
            Happening::Start(_) => {}
            Happening::CatchUp => self.groups.iter_mut().for_each(|group| group.behind.clear()),
            Happening::Lose(number) => return BTreeSet::from([node(number)]),
            Happening::Lag(group, number) => {
                let groups = self.groups.len().max(1);
                if let Some(group) = self.groups.get_mut(group % groups) {
                    let lagging = member(group, number).filter(|member| group.leader.as_ref() != Some(member));
                    group.behind.extend(lagging);
                }
            }
            Happening::Elect(group, number) => {
                let groups = self.groups.len().max(1);
                let up = self.servers.clone();
                if let Some(group) = self.groups.get_mut(group % groups) {
                    let elected = member(group, number).filter(|one| up[one].up && !group.behind.contains(one));
                    group.leader = group.leader.take().and_then(|leader| elected.or(Some(leader)));
                }
            }
            Happening::ElectMeta(number) => {
                if self.meta.leader.is_some() && self.is_up(&node(number)) {
                    self.meta.leader = Some(node(number));
                }
            }
        }
        self.elect();
        BTreeSet::new()
    }

    /// Groups that could not be written to without the server. One that was complete since the last server came back, and lacks a little now,
    /// gets it in a moment: `complete` are those.
    fn lost_without(&self, node: &str, complete: &BTreeSet<usize>) -> Vec<String> {
        let is_lost = |group: &Group, complete: bool| {
            let up = group.members.iter().filter(|member| *member != node && self.is_up(member)).count();
            let sound = if complete { up } else { self.sound(group, node) };
            group.members.contains(node) && sound * 2 <= group.members.len()
        };
        let groups = self.groups.iter().enumerate();
        let groups = groups.filter(|(number, group)| is_lost(group, complete.contains(number)));
        let meta = is_lost(&self.meta, false).then(|| "meta".to_owned());
        groups.map(|(number, _)| format!("S{number}")).chain(meta).collect()
    }
}

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// How the machine ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Finished,
    Aborted,
    /// Time was over: as if it had been killed.
    Killed,
}

/// Runs a machine while things happen, and checks each server that it takes.
fn run_while(world: &mut World, roll: &Roll, happenings: &[Happening]) -> Result<Ended, TestCaseError> {
    let mut machine = Machine::new(roll.clone(), PATIENCE);
    let mut complete = BTreeSet::new();
    for (tick, happening) in (0..).zip(happenings) {
        let silent = world.happens(happening);
        let observation = world.observe(&silent);
        let whole = world.groups.iter().enumerate().filter(|(_, group)| {
            group.leader.is_some()
                && group.behind.is_empty()
                && group.members.iter().all(|m| world.is_up(m) && !silent.contains(m))
        });
        complete.extend(whole.map(|(number, _)| number));
        match machine.next(&observation, TICK * tick) {
            Action::Wait(_) | Action::Admit(_) => {}
            Action::Take(node) => {
                let lost = world.lost_without(&node, &complete);
                prop_assert!(lost.is_empty(), "takes {node} although {lost:?} need it: {world:#?}");
                TAKEN.set(TAKEN.get() + 1);
                complete.clear();
                world.kill(&node);
                // Half of them are back at once, the others when they are started.
                if tick % 2 == 0 {
                    world.start(&node, "2.15.1");
                }
            }
            Action::Abort(obstacles) => {
                prop_assert!(!obstacles.is_empty());
                return Ok(Ended::Aborted);
            }
            Action::Finished => {
                let is_done = |(node, goal): (&String, &NodeGoal)| {
                    goal.was.as_deref() != Some(&format!("{node}-{}", world.servers[node].number))
                };
                prop_assert!(roll.nodes.iter().all(is_done), "says that it has finished: {world:#?}");
                return Ok(Ended::Finished);
            }
        }
    }
    Ok(Ended::Killed)
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

/// `NATSCTL_ROLL_CASES` tries more.
fn cases() -> u32 {
    std::env::var("NATSCTL_ROLL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

#[test]
fn no_server_is_taken_while_a_group_would_lose_its_quorum_and_every_end_can_be_resumed() {
    let ends = Cell::new([0_usize; 3]);
    let tried = (world(), vec(vec(happening(), 1..120), 1..4));
    let result = runner(cases()).run(&tried, |(mut world, runs)| {
        let roll = world.roll();
        for happenings in &runs {
            let ended = run_while(&mut world, &roll, happenings)?;
            let mut counts = ends.get();
            counts[ended as usize] += 1;
            ends.set(counts);
        }
        // Whatever has happened: once the cluster is well, the same roll comes to its end.
        world.heal();
        let (_, end) = run(&mut world, &roll);
        prop_assert_eq!(end, Action::Finished);
        prop_assert!(world.servers.values().all(|process| process.number > 1));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let [finished, aborted, killed] = ends.get();
    assert!(finished > 0 && aborted > 0 && killed > 0 && TAKEN.get() > 100, "{:?}, {} taken", ends.get(), TAKEN.get());
}

/// The same of answers that nothing holds together: each may be wrong, of another time, or of another cluster.
#[test]
fn answers_that_contradict_each_other_never_make_it_take_a_server_that_the_rest_of_them_needs() {
    let moment = (world(), vec(happening(), 0..6), btree_set(0_usize..5, 0..2));
    let moments = vec(moment, 1..40);
    let result = runner(cases()).run(&moments, |moments| {
        let size = moments[0].0.servers.len();
        let first = &moments[0].0;
        let mut machine = Machine::new(first.roll(), PATIENCE);
        let mut complete: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (tick, (mut world, happenings, silent)) in (0..).zip(moments.clone()) {
            if world.servers.len() != size {
                continue;
            }
            happenings.iter().for_each(|happening| drop(world.happens(happening)));
            let observation = world.observe(&silent.into_iter().map(name).collect());
            for asset in &observation.assets {
                let Some(leader) = asset.leader() else { continue };
                let current = asset.views[leader].peers.iter().filter(|peer| peer.is_current());
                let current = current.map(|peer| peer.name.clone()).chain([leader.to_owned()]);
                complete.entry(asset.name.clone()).or_default().extend(current);
            }
            match machine.next(&observation, TICK * tick) {
                Action::Take(node) => {
                    for asset in observation.assets.iter().filter(|asset| asset.members().contains(node.as_str())) {
                        let had = &complete[&asset.name];
                        let is_sound = |other: &&str| {
                            *other != node && observation.server(other).is_some() && had.contains(*other)
                        };
                        let sound = asset.members().into_iter().filter(|other| is_sound(other)).count();
                        prop_assert!(sound * 2 > asset.members().len(), "takes {node}: {asset:#?}");
                    }
                    let up = observation
                        .servers
                        .keys()
                        .filter(|other| **other != node && observation.server(other).is_some());
                    prop_assert!(up.count() * 2 > size, "takes {node}: {observation:#?}");
                    complete.clear();
                }
                Action::Abort(_) | Action::Finished => return Ok(()),
                Action::Wait(_) | Action::Admit(_) => {}
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

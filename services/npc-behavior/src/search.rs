//! A* search. The plan is the cheapest one, up to rounding.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::problem::{Problem, Target};
use crate::states::{Id, States};

const DEFAULT_NODE_LIMIT: u32 = 10_000;

/// Estimates that differ by less than one part in 10^12 are equal: sums of the same costs in another order differ by
/// that much.
const ROUNDED_BITS: u32 = 12;

#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<String>,
    pub(crate) cost: f64,
    pub(crate) nodes_expanded: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    NoPlan { nodes_expanded: u32 },
    NodeLimit { nodes_expanded: u32 },
}

/// A search that can be interrupted.
#[derive(Debug)]
pub(crate) struct Search {
    problem: Problem,
    node_limit: u32,
    nodes_expanded: u32,
    states: States,
    /// By state.
    nodes: Vec<Node>,
    open: BinaryHeap<Open>,
    /// The state that is being built; a field to reuse its memory.
    next: Vec<u16>,
}

/// The cheapest known path to a state.
#[derive(Debug)]
struct Node {
    cost: f64,
    /// A lower bound of the cost from here to the goal.
    heuristic: f64,
    /// The previous state, and the index of the step from there; `None` for the start.
    from: Option<(Id, u16)>,
}

/// An entry of the open list.
#[derive(Debug)]
struct Open {
    /// A lower bound of the cost of a plan through this state.
    estimate: f64,
    /// The cost of the state when the entry was added. The entry is outdated if the node is cheaper now.
    cost: f64,
    state: Id,
}

impl Search {
    pub(crate) fn new(problem: Problem, node_limit: u32) -> Self {
        let mut search = Self {
            node_limit: if node_limit == 0 { DEFAULT_NODE_LIMIT } else { node_limit },
            nodes_expanded: 0,
            states: States::new(problem.start.len()),
            nodes: Vec::new(),
            open: BinaryHeap::new(),
            next: problem.start.clone(),
            problem,
        };
        search.relax(0.0, None);
        search
    }

    /// Continues until the search is done, or for about `work` steps; one step tries one action.
    pub(crate) fn advance(&mut self, work: usize) -> Option<Result<Plan, Failure>> {
        let mut done = 0;
        while done < work {
            let nodes_expanded = self.nodes_expanded;
            let Some(Open { cost, state, .. }) = self.open.pop() else {
                return Some(Err(Failure::NoPlan { nodes_expanded }));
            };
            let node = &self.nodes[state as usize];
            if cost > node.cost {
                done += 1;
                continue;
            }
            if unmet(&self.problem.goal, self.states.get(state)).next().is_none() {
                return Some(Ok(self.plan(state)));
            }
            if nodes_expanded == self.node_limit {
                return Some(Err(Failure::NodeLimit { nodes_expanded }));
            }
            self.nodes_expanded += 1;
            done += self.expand(state, cost);
        }
        None
    }

    pub(crate) fn nodes_expanded(&self) -> u32 {
        self.nodes_expanded
    }

    /// The approximate memory use.
    pub(crate) fn bytes(&self) -> usize {
        self.states.bytes() + self.nodes.len() * size_of::<Node>() + self.open.len() * size_of::<Open>()
    }

    /// Adds all successors of a state, and returns the number of work steps.
    fn expand(&mut self, state: Id, cost: f64) -> usize {
        let mut work = 0;
        for index in 0..self.problem.steps.len() {
            let step = &self.problem.steps[index];
            let now = self.states.get(state);
            work += 1 + step.preconditions.len() / 8;
            if !step.preconditions.iter().all(|&(fact, value)| now[usize::from(fact)] == value) {
                continue;
            }
            work += 1 + now.len() / 8;
            self.next.clear();
            self.next.extend_from_slice(now);
            for &(fact, value) in &step.effects {
                self.next[usize::from(fact)] = value;
            }
            // There are at most 256 actions.
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            self.relax(cost + step.cost, Some((state, index)));
        }
        work
    }

    /// Records the path to `next` if it is new or cheaper than the known one.
    fn relax(&mut self, cost: f64, from: Option<(Id, u16)>) {
        let state = self.states.intern(&self.next);
        let heuristic = match self.nodes.get_mut(state as usize) {
            Some(node) if node.cost <= cost => return,
            Some(node) => {
                (node.cost, node.from) = (cost, from);
                node.heuristic
            }
            None => {
                let heuristic = lower_bound(&self.problem.goal, &self.next);
                self.nodes.push(Node { cost, heuristic, from });
                heuristic
            }
        };
        // A state with an infinite bound cannot reach the goal.
        if heuristic.is_finite() {
            self.open.push(Open { estimate: rounded(cost + heuristic), cost, state });
        }
    }

    fn plan(&self, goal: Id) -> Plan {
        let mut path = Vec::new();
        let mut state = goal;
        while let Some((before, step)) = self.nodes[state as usize].from {
            path.push(&self.problem.steps[usize::from(step)]);
            state = before;
        }
        path.reverse();
        Plan {
            // Starting from 0, because the empty sum of floats is -0.
            cost: path.iter().fold(0.0, |sum, step| sum + step.cost),
            steps: path.into_iter().map(|step| step.name.clone()).collect(),
            nodes_expanded: self.nodes_expanded,
        }
    }
}

/// A lower bound of the cost from `state` to the goal. Each unmet fact needs an action that sets it, so the highest
/// cost among the cheapest such actions is a bound. One action may set several facts, so the sum of the shared costs is
/// a bound, too.
fn lower_bound(goal: &[Target], state: &[u16]) -> f64 {
    let (highest, sum) = unmet(goal, state)
        .fold((0.0_f64, 0.0_f64), |(highest, sum), target| (highest.max(target.min_cost), sum + target.shared_cost));
    highest.max(sum)
}

fn unmet<'a>(goal: &'a [Target], state: &'a [u16]) -> impl Iterator<Item = &'a Target> {
    goal.iter().filter(|target| state[usize::from(target.fact)] != target.value)
}

/// Rounds to a number whose last bits are zero.
fn rounded(number: f64) -> f64 {
    let bits = number.to_bits() + (1 << (ROUNDED_BITS - 1));
    f64::from_bits(bits >> ROUNDED_BITS << ROUNDED_BITS)
}

/// The greatest entry is expanded first: the lowest estimate, then the nearest to the goal, then the oldest.
impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .estimate
            .total_cmp(&self.estimate)
            .then_with(|| self.cost.total_cmp(&other.cost))
            .then_with(|| other.state.cmp(&self.state))
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Open {}

//! A*: looks at the most promising state first, and passes over no plan that is cheaper by more than rounding.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::problem::{Problem, Target};
use crate::states::{Id, States};

const DEFAULT_NODE_LIMIT: u32 = 10_000;

/// Totals that differ by less than one part in 10^12 are alike: sums of the same costs in another order differ by so much.
const ALIKE_BITS: u32 = 12;

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
    /// The state that is being made; kept for its memory.
    next: Vec<u16>,
}

/// The cheapest known way to a state.
#[derive(Debug)]
struct Node {
    cost: f64,
    /// Least cost from here to the goal, as far as is known.
    rest: f64,
    /// The state before, and the index of the step from there; none at the start.
    from: Option<(Id, u16)>,
}

/// A state to look at.
#[derive(Debug)]
struct Open {
    /// Least cost of a plan through this state.
    total: f64,
    /// When it was put here. Out of date if the node is cheaper now.
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
        search.meet(0.0, None);
        search
    }

    /// Goes on until it is done or has done about this much `work`; one unit is one look at one action.
    pub(crate) fn advance(&mut self, work: usize) -> Option<Result<Plan, Failure>> {
        let mut done = 0;
        while done < work {
            let nodes_expanded = self.nodes_expanded;
            let Some(Open { cost, state, .. }) = self.open.pop() else {
                return Some(Err(Failure::NoPlan { nodes_expanded }));
            };
            let node = &self.nodes[state as usize];
            if cost > node.cost {
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

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.states.bytes() + self.nodes.len() * size_of::<Node>() + self.open.len() * size_of::<Open>()
    }

    /// Meets all states that one action leads to; says how much work that was.
    fn expand(&mut self, state: Id, cost: f64) -> usize {
        let mut work = 0;
        for index in 0..self.problem.steps.len() {
            let step = &self.problem.steps[index];
            let now = self.states.get(state);
            work += 1 + step.needs.len() / 8;
            if !step.needs.iter().all(|&(fact, value)| now[usize::from(fact)] == value) {
                continue;
            }
            work += 1 + now.len() / 8;
            self.next.clear();
            self.next.extend_from_slice(now);
            for &(fact, value) in &step.sets {
                self.next[usize::from(fact)] = value;
            }
            // There are at most 256 actions.
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            self.meet(cost + step.cost, Some((state, index)));
        }
        work
    }

    /// Remembers that `next` can be had at this cost, if that is news.
    fn meet(&mut self, cost: f64, from: Option<(Id, u16)>) {
        let state = self.states.intern(&self.next);
        let rest = match self.nodes.get_mut(state as usize) {
            Some(node) if node.cost <= cost => return,
            Some(node) => {
                (node.cost, node.from) = (cost, from);
                node.rest
            }
            None => {
                let rest = least_rest(&self.problem.goal, &self.next);
                self.nodes.push(Node { cost, rest, from });
                rest
            }
        };
        // From a state with an infinite rest nothing leads to the goal.
        if rest.is_finite() {
            self.open.push(Open { total: rounded(cost + rest), cost, state });
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

/// A lower bound of the cost from `state` to the goal. Each unmet fact needs an action that sets it, so the dearest of the
/// cheapest such actions is a bound; and because one action may set several, so is the sum of the shares that they bear in it.
fn least_rest(goal: &[Target], state: &[u16]) -> f64 {
    let (dearest, sum) = unmet(goal, state)
        .fold((0.0_f64, 0.0_f64), |(dearest, sum), target| (dearest.max(target.least), sum + target.share));
    dearest.max(sum)
}

fn unmet<'a>(goal: &'a [Target], state: &'a [u16]) -> impl Iterator<Item = &'a Target> {
    goal.iter().filter(|target| state[usize::from(target.fact)] != target.value)
}

/// The nearest number that has zeros for its last bits.
fn rounded(number: f64) -> f64 {
    let bits = number.to_bits() + (1 << (ALIKE_BITS - 1));
    f64::from_bits(bits >> ALIKE_BITS << ALIKE_BITS)
}

/// The greatest is looked at first: the least total, then the nearest to the goal, then the one that was met first.
impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .total
            .total_cmp(&self.total)
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

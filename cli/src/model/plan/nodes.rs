//! Steps of NATS servers: which are started, repaired, updated and reloaded, and what may happen at the same time.

use super::{Waves, differences};
use crate::model::desired::{Desired, Node};
use crate::model::observed::{NodeCondition, Observed, ObservedNode};
use crate::model::step::{Action, FieldChange, Operation, Quorum, Step};

/// Servers that do not run come first, with `beside` in the same wave; then those that run and do not heal, then other versions and
/// configurations, each one at a time, so that the others keep the quorum. Where there is none, nothing is to be kept, and all servers
/// that have no part in it come back together.
pub(super) fn plan(desired: &Desired, observed: &Observed, beside: impl Iterator<Item = Step>, waves: &mut Waves) {
    let Repairs { together, one_by_one } = repairs(desired, observed);
    waves.add(beside.chain(new_nodes(desired, observed)).chain(together));
    for step in one_by_one.into_iter().chain(changed_nodes(desired, observed)) {
        waves.add([step]);
    }
    waves.add(reloaded_nodes(desired, observed));
}

/// Servers that are not there, or do not run as they should be.
fn new_nodes(desired: &Desired, observed: &Observed) -> impl Iterator<Item = Step> {
    desired.nodes.iter().filter_map(|(node, spec)| {
        let there = observed.nodes.get(node);
        let (action, changes) = match there {
            Some(there) if there.node == *spec && there.running => return None,
            Some(there) if there.node == *spec => (Action::Start, Vec::new()),
            Some(_) => return None,
            None => (Action::Create, differences("", None, spec)),
        };
        Some(Step::new(Operation::StartNode { node: node.clone(), spec: spec.clone(), action }, changes))
    })
}

/// Servers that have another version or configuration.
fn changed_nodes<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = Step> + 'a {
    changed(desired, observed).filter_map(|(node, spec, changes)| {
        let operation = Operation::RestartNode { node: node.clone(), spec: spec.clone() };
        changes.iter().any(|change| change.field != ACCOUNTS).then(|| Step::new(operation, changes))
    })
}

/// The field of a node that it takes over without a restart.
const ACCOUNTS: &str = "accounts";

fn reloaded_nodes<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = Step> + 'a {
    changed(desired, observed).filter_map(|(node, spec, changes)| {
        let only_accounts = !changes.is_empty() && changes.iter().all(|change| change.field == ACCOUNTS);
        let operation = Operation::ReloadNode { node: node.clone(), spec: spec.clone() };
        only_accounts.then(|| Step::new(operation, changes))
    })
}

/// Servers that are there, with what differs; those that are repaired take that over on the way.
fn changed<'a>(
    desired: &'a Desired,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a String, &'a Node, Vec<FieldChange>)> {
    desired.nodes.iter().filter_map(|(node, spec)| {
        let there = observed.nodes.get(node)?;
        broken(there).is_none().then(|| (node, spec, differences("", Some(&there.node), spec)))
    })
}

/// The field of a node that a repair changes.
pub(super) const HEALTH: &str = "health";

/// Why a server that runs must be restarted.
fn broken(there: &ObservedNode) -> Option<&str> {
    there.condition.broken().filter(|_| there.running)
}

/// Restarts of servers that do not heal.
struct Repairs {
    together: Vec<Step>,
    one_by_one: Vec<Step>,
}

fn repairs(desired: &Desired, observed: &Observed) -> Repairs {
    let there = || desired.nodes.iter().filter_map(|(name, spec)| Some((name, spec, observed.nodes.get(name)?)));
    let is_majority = |servers: usize| servers * 2 > desired.nodes.len();
    let is_out = |there: &ObservedNode| matches!(there.condition, NodeCondition::Out(_));
    let has_quorum = is_majority(there().filter(|(_, _, there)| there.running && !is_out(there)).count());
    let quorum = |there: &ObservedNode| match is_out(there) {
        true if has_quorum => Quorum::Kept,
        true => Quorum::Missing,
        // Its turn comes when the others are back.
        false if is_majority(desired.nodes.len() - 1) => Quorum::Kept,
        false => Quorum::Interrupted,
    };
    let step = |(node, spec, there): (&String, &Node, &ObservedNode)| {
        let reason = broken(there)?.to_owned();
        let mut changes = differences("", Some(&there.node), spec);
        changes.push(FieldChange::new(HEALTH, Some(reason.clone().into()), Some("ok".into())));
        let (node, spec) = (node.clone(), spec.clone());
        Some(Step::new(Operation::RepairNode { node, spec, reason, quorum: quorum(there) }, changes))
    };
    let of = |out: bool| there().filter(move |(_, _, there)| is_out(there) == out).filter_map(step);
    let (out, failing): (Vec<Step>, Vec<Step>) = (of(true).collect(), of(false).collect());
    match has_quorum {
        true => Repairs { together: Vec::new(), one_by_one: [out, failing].concat() },
        false => Repairs { together: out, one_by_one: failing },
    }
}

#[cfg(test)]
mod tests;

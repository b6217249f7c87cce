//! Plans for servers that run and are not well.

use std::collections::BTreeMap;

use super::*;
use crate::model::change::{Change, Deploy};
use crate::model::plan::Plan;

fn spec(version: &str) -> Node {
    Node { version: version.to_owned(), config: "1".to_owned(), accounts: "1".to_owned() }
}

const HEALTHY: NodeCondition = NodeCondition::Healthy;

fn out() -> NodeCondition {
    NodeCondition::Out("does not answer".to_owned())
}

fn failing() -> NodeCondition {
    NodeCondition::Failing("stream write error".to_owned())
}

fn settling() -> NodeCondition {
    NodeCondition::Settling("stream catching up".to_owned())
}

/// Servers in these conditions; `None` does not run.
fn cluster(conditions: &[Option<NodeCondition>]) -> (Desired, Observed) {
    let names = || (1..=conditions.len()).map(|number| format!("nats-{number}"));
    let nodes = names().map(|name| (name, spec("1"))).collect();
    let there = |condition: &Option<NodeCondition>| ObservedNode {
        node: spec("1"),
        running: condition.is_some(),
        condition: condition.clone().unwrap_or_default(),
    };
    let observed: BTreeMap<String, ObservedNode> = names().zip(conditions.iter().map(there)).collect();
    (Desired { nodes, ..Desired::default() }, Observed { nodes: observed, ..Observed::default() })
}

fn planned(desired: &Desired, observed: &Observed) -> Vec<String> {
    let plan = Plan::new(&Change::Deploy(Deploy::default()), desired, observed).unwrap();
    let quorum = |step: &Step| match step.operation {
        Operation::RepairNode { quorum, .. } => format!(" {quorum:?}"),
        _ => String::new(),
    };
    plan.steps.iter().map(|step| format!("{} {step}{}", step.wave, quorum(step))).collect()
}

#[track_caller]
fn check(conditions: &[Option<NodeCondition>], expected: &[&str]) {
    let (desired, observed) = cluster(conditions);
    assert_eq!(planned(&desired, &observed), expected);
}

#[test]
fn a_server_that_is_well_or_settles_is_left_alone() {
    check(&[Some(HEALTHY), Some(settling()), Some(HEALTHY)], &[]);
}

#[test]
fn a_server_that_hangs_is_restarted_while_the_others_keep_the_quorum() {
    check(&[Some(HEALTHY), Some(out()), Some(HEALTHY)], &["0 restart node nats-2 Kept"]);
    check(
        &[Some(out()), Some(HEALTHY), Some(HEALTHY), Some(out()), Some(HEALTHY)],
        &["0 restart node nats-1 Kept", "1 restart node nats-4 Kept"],
    );
}

#[test]
fn without_a_quorum_all_that_hang_come_back_together() {
    check(&[Some(out())], &["0 restart node nats-1 Missing"]);
    check(&[Some(out()), None, Some(HEALTHY)], &["0 restart node nats-1 Missing", "0 start node nats-2"]);
    check(
        &[Some(failing()), Some(out()), Some(out())],
        &["0 restart node nats-2 Missing", "0 restart node nats-3 Missing", "1 restart node nats-1 Kept"],
    );
}

#[test]
fn a_server_that_still_has_a_part_in_the_quorum_comes_after_those_that_have_none() {
    check(
        &[Some(failing()), None, Some(HEALTHY), Some(HEALTHY), Some(out())],
        &["0 start node nats-2", "1 restart node nats-5 Kept", "2 restart node nats-1 Kept"],
    );
    check(&[Some(failing())], &["0 restart node nats-1 Interrupted"]);
}

#[test]
fn a_server_that_is_repaired_takes_over_what_differs() {
    let (mut desired, observed) = cluster(&[Some(HEALTHY), Some(out()), Some(HEALTHY)]);
    for spec in desired.nodes.values_mut() {
        *spec = self::spec("2");
    }
    let expected = ["0 restart node nats-2 Kept", "1 update node nats-1", "2 update node nats-3"];
    assert_eq!(planned(&desired, &observed), expected);
    desired.nodes.values_mut().for_each(|spec| *spec = Node { accounts: "2".to_owned(), ..self::spec("1") });
    let expected = ["0 restart node nats-2 Kept", "1 reload node nats-1", "1 reload node nats-3"];
    assert_eq!(planned(&desired, &observed), expected);
}

#[test]
fn a_repair_says_why_and_what_it_costs() {
    let shown = |conditions: &[Option<NodeCondition>]| {
        let (desired, observed) = cluster(conditions);
        Plan::new(&Change::Deploy(Deploy::default()), &desired, &observed).unwrap().to_string()
    };
    let plan = shown(&[Some(HEALTHY), Some(out()), Some(HEALTHY)]);
    assert_eq!(plan, "> restart node nats-2: does not answer\n1 step: 1 to restart");
    let plan = shown(&[Some(failing())]);
    let expected = "> restart node nats-1: stream write error\n  ! \
                    there is no quorum meanwhile: writes wait until it is back\n1 step: 1 to restart";
    assert_eq!(plan, expected);
}

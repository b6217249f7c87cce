//! Whether the nodes of the handover are those that EC2 runs and that Systems Manager reaches: everything that is wrong, at once.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{Filter, Instance};
use aws_sdk_ssm::types::{InstanceInformation, InstanceInformationStringFilter, PingStatus, ResourceType};

use crate::aws::Aws;
use crate::aws::error::failed;
use crate::handover::{Handover, Node};

/// What EC2 and Systems Manager say about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reachable {
    /// State of the instance; `None` if there is none of this id.
    state: Option<String>,
    address: String,
    /// Name of the node, by its tag.
    tag: Option<String>,
    /// What Systems Manager knows of the agent: `Online`, `ConnectionLost`, `Inactive`; `None` if it does not know it.
    agent: Option<String>,
}

/// What is wrong with the nodes.
///
/// # Errors
/// EC2 or Systems Manager could not be asked.
pub(super) async fn problems(aws: &Aws) -> anyhow::Result<Vec<String>> {
    let nodes = &aws.handover.nats.nodes;
    let ids: Vec<String> = nodes.values().map(|node| node.instance.clone()).collect();
    let (instances, agents) = futures::try_join!(instances(aws, &ids), agents(aws, &ids))?;
    let found = nodes.iter().map(|(name, node)| {
        let instance = instances.get(&node.instance);
        let reachable =
            Reachable { agent: agents.get(&node.instance).cloned(), ..instance.cloned().unwrap_or_default() };
        (name, node, reachable)
    });
    Ok(found.filter_map(|(name, node, found)| problem(name, node, &found)).collect())
}

/// What is wrong with the handover itself: nodes that are missing, or two that are one.
pub(super) fn in_handover(handover: &Handover, wanted: usize) -> Vec<String> {
    let nodes = &handover.nats.nodes;
    let mut problems = Vec::new();
    if nodes.len() != wanted {
        let names = nodes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        problems.push(format!("the handover has {} nodes ({names}), the environment's manifest {wanted}", nodes.len()));
    }
    let mut seen = BTreeMap::new();
    for (name, node) in nodes {
        for (what, id) in [("instance", &node.instance), ("address", &node.address)] {
            if let Some(other) = seen.insert((what, id), name) {
                problems.push(format!("`{name}` and `{other}` have one {what}, `{id}`"));
            }
        }
        if node.address.parse::<std::net::Ipv4Addr>().is_err() {
            problems.push(format!("the address of `{name}`, `{}`, is not an IPv4 address", node.address));
        }
    }
    problems
}

fn problem(name: &str, node: &Node, found: &Reachable) -> Option<String> {
    let id = &node.instance;
    let said = match (found.state.as_deref(), found.agent.as_deref()) {
        (None, _) => {
            format!("EC2 has no instance `{id}`: the handover is older than the node, `terraform apply` renews it")
        }
        (Some("running"), _) if found.tag.as_deref().is_some_and(|tag| tag != name) => {
            format!("instance `{id}` is node `{}` by its tag", found.tag.clone().unwrap_or_default())
        }
        (Some("running"), _) if found.address != node.address => {
            format!("instance `{id}` has address {}, the handover says {}", found.address, node.address)
        }
        (Some("running"), Some("Online")) => return None,
        (Some("running"), None) => {
            format!(
                "the agent on instance `{id}` has never reached Systems Manager: see its role and its way to the network"
            )
        }
        (Some("running"), Some(agent)) => format!("the agent on instance `{id}` is offline ({agent})"),
        (Some(state), _) => format!("instance `{id}` is {state}"),
    };
    Some(format!("`{name}`: {said}"))
}

async fn instances(aws: &Aws, ids: &[String]) -> anyhow::Result<BTreeMap<String, Reachable>> {
    // By a filter: an id that EC2 does not know is then one that is missing, rather than an error.
    let filter = Filter::builder().name("instance-id").set_values(Some(ids.to_vec())).build();
    let mut pages = aws.clients.ec2().describe_instances().filters(filter).into_paginator().send();
    let mut found = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| failed("describe the instances of the NATS nodes", error))?;
        let instances = page.reservations().iter().flat_map(|reservation| reservation.instances());
        found.extend(instances.filter_map(|one| Some((one.instance_id.clone()?, instance(one)))));
    }
    Ok(found)
}

fn instance(found: &Instance) -> Reachable {
    let tag = found.tags().iter().find(|tag| tag.key() == Some("node"));
    Reachable {
        state: found.state().and_then(|state| state.name()).map(|name| name.as_str().to_owned()),
        address: found.private_ip_address().unwrap_or_default().to_owned(),
        tag: tag.and_then(|tag| tag.value()).map(str::to_owned),
        agent: None,
    }
}

async fn agents(aws: &Aws, ids: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let filter =
        InstanceInformationStringFilter::builder().key("InstanceIds").set_values(Some(ids.to_vec())).build()?;
    let mut pages = aws.clients.ssm().describe_instance_information().filters(filter).into_paginator().items().send();
    let mut found = BTreeMap::new();
    while let Some(agent) = pages.next().await {
        let agent = agent.map_err(|error| failed("ask Systems Manager for the agents of the NATS nodes", error))?;
        found.extend(ping(&agent));
    }
    let unknown: BTreeSet<&String> = ids.iter().filter(|id| !found.contains_key(*id)).collect();
    tracing::debug!(?unknown, "agents that Systems Manager does not know");
    Ok(found)
}

fn ping(agent: &InstanceInformation) -> Option<(String, String)> {
    let is_instance = agent.resource_type().is_none_or(|kind| *kind == ResourceType::Ec2Instance);
    let status = agent.ping_status().map_or("unknown", PingStatus::as_str);
    is_instance.then(|| Some((agent.instance_id.clone()?, status.to_owned()))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::tests::GOOD;

    fn node() -> Node {
        Node { instance: "i-1".to_owned(), address: "10.0.1.17".to_owned(), zone: "us-east-1a".to_owned() }
    }

    fn well() -> Reachable {
        Reachable {
            state: Some("running".to_owned()),
            address: "10.0.1.17".to_owned(),
            tag: Some("nats-1".to_owned()),
            agent: Some("Online".to_owned()),
        }
    }

    #[track_caller]
    fn check(found: Reachable, expected: Option<&str>) {
        assert_eq!(problem("nats-1", &node(), &found).as_deref(), expected);
    }

    #[test]
    fn what_is_wrong_with_a_node_is_named() {
        check(well(), None);
        check(
            Reachable { state: None, ..well() },
            Some(
                "`nats-1`: EC2 has no instance `i-1`: the handover is older than the node, `terraform apply` renews it",
            ),
        );
        check(Reachable { state: Some("stopped".to_owned()), ..well() }, Some("`nats-1`: instance `i-1` is stopped"));
        check(
            Reachable { agent: Some("ConnectionLost".to_owned()), ..well() },
            Some("`nats-1`: the agent on instance `i-1` is offline (ConnectionLost)"),
        );
        check(
            Reachable { tag: Some("nats-2".to_owned()), ..well() },
            Some("`nats-1`: instance `i-1` is node `nats-2` by its tag"),
        );
        check(
            Reachable { address: "10.0.1.18".to_owned(), ..well() },
            Some("`nats-1`: instance `i-1` has address 10.0.1.18, the handover says 10.0.1.17"),
        );
    }

    #[test]
    fn a_handover_has_as_many_nodes_as_the_environment_each_its_own() {
        let mut handover: Handover = GOOD.parse().unwrap();
        handover.nats.nodes = BTreeMap::from([("nats-1".to_owned(), node())]);
        assert!(in_handover(&handover, 1).is_empty());
        handover.nats.nodes.insert("nats-2".to_owned(), Node { address: "no".to_owned(), ..node() });
        assert_eq!(
            in_handover(&handover, 5),
            [
                "the handover has 2 nodes (nats-1, nats-2), the environment's manifest 5",
                "`nats-2` and `nats-1` have one instance, `i-1`",
                "the address of `nats-2`, `no`, is not an IPv4 address",
            ]
        );
    }
}

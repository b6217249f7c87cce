//! The nodes as targets of the load balancer that clients come through.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_elasticloadbalancingv2::types::{TargetDescription, TargetHealthStateEnum as State};
use tokio::time::{Instant, sleep};

use crate::aws::Aws;
use crate::aws::error::failed;
use crate::error::Hinted;
use crate::nats::node::CLIENT;
use crate::nats::roll::Traffic;

/// Between two looks at a target.
const POLL: Duration = Duration::from_secs(1);
/// How long a target may take until new connections reach it no more.
const LEAVES: Duration = Duration::from_secs(90);
/// How long one may take until its health checks have passed.
const RETURNS: Duration = Duration::from_secs(180);

/// Whether the load balancer sends new clients to the nodes, by name.
///
/// # Errors
/// It cannot be asked.
pub(super) async fn traffic(aws: &Aws) -> anyhow::Result<BTreeMap<String, Traffic>> {
    let states = states(aws).await?;
    let of = |address: &str| match states.get(address) {
        None | Some(State::Draining | State::Unused) => Traffic::Out,
        Some(_) => Traffic::In,
    };
    Ok(aws.handover.nats.nodes.iter().map(|(name, node)| (name.clone(), of(&node.address))).collect())
}

/// Takes a node out, and waits until new connections reach it no more. Those that are open stay: lame duck moves them.
///
/// # Errors
/// It was refused, or it is still in.
pub(super) async fn drain(aws: &Aws, node: &str) -> anyhow::Result<()> {
    let address = address(aws, node)?;
    let is_out = |state: Option<&State>| matches!(state, None | Some(State::Draining | State::Unused));
    if is_out(states(aws).await?.get(&address)) {
        return Ok(());
    }
    let call = aws.clients.balancers().deregister_targets().target_group_arn(&aws.handover.nats.target_group);
    let taken = call.targets(target(&address)).send().await;
    taken.map_err(|error| failed(&format!("take `{node}` out of the load balancer"), error))?;
    until(aws, node, &address, LEAVES, is_out, "is still in the load balancer").await
}

/// Puts a node in, and waits until its health checks have passed.
///
/// # Errors
/// It was refused, or they have not.
pub(super) async fn admit(aws: &Aws, node: &str) -> anyhow::Result<()> {
    let address = address(aws, node)?;
    let call = aws.clients.balancers().register_targets().target_group_arn(&aws.handover.nats.target_group);
    let put = call.targets(target(&address)).send().await;
    put.map_err(|error| failed(&format!("put `{node}` into the load balancer"), error))?;
    let is_in = |state: Option<&State>| state == Some(&State::Healthy);
    until(aws, node, &address, RETURNS, is_in, "does not pass the load balancer's health checks").await
}

async fn until(
    aws: &Aws,
    node: &str,
    address: &str,
    limit: Duration,
    is_so: impl Fn(Option<&State>) -> bool,
    otherwise: &str,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let states = states(aws).await?;
        let state = states.get(address);
        if is_so(state) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let state = state.map_or("not registered", State::as_str);
            let message = format!("`{node}` {otherwise} after {} s: it is {state}", limit.as_secs());
            let hint = format!("see the target group `{}` in the console", aws.handover.nats.target_group);
            return Err(Hinted::new(message, hint).into());
        }
        sleep(POLL).await;
    }
}

/// The states of the targets, by their addresses.
async fn states(aws: &Aws) -> anyhow::Result<BTreeMap<String, State>> {
    let group = &aws.handover.nats.target_group;
    let answer = aws.clients.balancers().describe_target_health().target_group_arn(group).send().await;
    let answer = answer.map_err(|error| failed("read which NATS nodes are in the load balancer", error))?;
    let mut states = BTreeMap::new();
    for description in answer.target_health_descriptions() {
        let address = description.target().and_then(TargetDescription::id);
        let state = description.target_health().and_then(|health| health.state());
        if let (Some(address), Some(state)) = (address, state) {
            states.insert(address.to_owned(), state.clone());
        }
    }
    Ok(states)
}

fn target(address: &str) -> TargetDescription {
    TargetDescription::builder().id(address).port(CLIENT.into()).build()
}

fn address(aws: &Aws, node: &str) -> anyhow::Result<String> {
    let node = aws.handover.nats.nodes.get(node).ok_or_else(|| anyhow::anyhow!("the handover has no node `{node}`"))?;
    Ok(node.address.clone())
}

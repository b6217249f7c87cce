//! How the NATS servers are that run on this machine: each is asked directly, so one that hangs does not speak for the others.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::apply::{POLL_INTERVAL, SETTLE};
use super::environment::Local;
use super::protocol::{Description, FailedCheck, Monitor, NodeStatus};
use super::supervisor::probe::{self, Unhealthy};
use crate::model::observed::{NodeCondition, ObservedNode};
use crate::screen::note;

/// A server that does not answer for so long hangs.
const ANSWER: Duration = Duration::from_secs(5);
/// A server that was started so recently, and has not been healthy since, may still read what it stores.
const START: Duration = Duration::from_secs(30);
/// What takes longer is worth a word.
const SHORT: Duration = Duration::from_secs(1);
/// What usually passes has this much time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Copying what other servers have stored has this much.
const COPYING: Duration = Duration::from_secs(15 * 60);

impl Local {
    /// The servers, as a deployment sees them. Those that start or catch up are waited for, if nothing else is wrong.
    pub(super) async fn observed_nodes(&self) -> anyhow::Result<(Description, BTreeMap<String, ObservedNode>)> {
        let deadline = Instant::now() + SETTLE;
        let mut told = false;
        loop {
            let description = self.describe().await?.unwrap_or_default();
            let nodes = observe_and_tell(&description).await;
            let settles = |node: &ObservedNode| matches!(node.condition, NodeCondition::Settling(_));
            let is_well = |node: &ObservedNode| node.running && (node.condition.is_healthy() || settles(node));
            let waits = nodes.values().all(is_well) && nodes.values().any(settles);
            if !waits || Instant::now() >= deadline {
                return Ok((description, nodes));
            }
            if !told {
                note(&format!("waiting for {}", unwell(&nodes)));
                told = true;
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

/// Asks every server that runs, and says so if it takes a while.
async fn observe_and_tell(description: &Description) -> BTreeMap<String, ObservedNode> {
    let mut observed = pin!(observe(description));
    match timeout(SHORT, &mut observed).await {
        Ok(nodes) => nodes,
        Err(_) => {
            note("waiting for the NATS servers to say how they are");
            observed.await
        }
    }
}

/// The servers that are not healthy, each with its reason.
pub(super) fn unwell(nodes: &BTreeMap<String, ObservedNode>) -> String {
    let reason = |node: &ObservedNode| match &node.condition {
        _ if !node.running => Some("does not run".to_owned()),
        NodeCondition::Healthy => None,
        NodeCondition::Settling(reason) | NodeCondition::Failing(reason) | NodeCondition::Out(reason) => {
            Some(reason.clone())
        }
    };
    let nodes = nodes.iter().filter_map(|(name, node)| Some(format!("`{name}`: {}", reason(node)?)));
    nodes.collect::<Vec<_>>().join("; ")
}

/// Asks every server that runs.
async fn observe(description: &Description) -> BTreeMap<String, ObservedNode> {
    let ask = |status: NodeStatus| async move {
        match status.monitor() {
            Some(monitor) => probe::healthz(monitor, ANSWER).await,
            // It does not run, or an older natsctl has started it: nothing is known.
            None => Ok(()),
        }
    };
    let answers = join_all(description.nodes.values().map(|status| ask(status.clone()))).await;
    let now_ms = now_ms();
    let mut nodes = BTreeMap::new();
    for ((name, status), answer) in description.nodes.iter().zip(answers) {
        let condition = condition(answer, status, now_ms);
        let node = ObservedNode { node: status.spec.node.clone(), running: status.running, condition };
        nodes.insert(name.clone(), node);
    }
    let others_are_missing =
        nodes.values().any(|node| !node.running || matches!(node.condition, NodeCondition::Out(_)));
    if others_are_missing {
        nodes.values_mut().for_each(|node| node.condition.excuse_leaderless());
    }
    nodes
}

/// How long ago that was, by the clock on the wall, which the supervisor shares.
pub(super) fn elapsed_since(ms: u64) -> Duration {
    Duration::from_millis(now_ms().saturating_sub(ms))
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

impl NodeStatus {
    fn monitor(&self) -> Option<&Monitor> {
        self.spec.monitor.as_ref().filter(|_| self.running)
    }
}

/// What a server's answer means, by how long it has run and how long it has not been well.
fn condition(answer: Result<(), Unhealthy>, status: &NodeStatus, now_ms: u64) -> NodeCondition {
    let since = |ms: u64| Duration::from_millis(now_ms.saturating_sub(ms));
    let Err(unhealthy) = answer else { return NodeCondition::Healthy };
    let is_new = status.started_at_ms.is_none_or(|started| since(started) < START);
    if is_new && !status.has_been_healthy {
        return NodeCondition::Settling(match unhealthy {
            Unhealthy::Silent => "is starting".to_owned(),
            Unhealthy::Says(reason) => reason,
        });
    }
    match unhealthy {
        Unhealthy::Silent => NodeCondition::Out("does not answer".to_owned()),
        Unhealthy::Says(reason) if is_off(&reason) => NodeCondition::Out(reason),
        Unhealthy::Says(reason) => {
            let failing =
                status.failing.as_ref().map_or(Duration::ZERO, |FailedCheck { since_ms, .. }| since(*since_ms));
            match failing < patience(&reason) {
                true => NodeCondition::Settling(reason),
                false => NodeCondition::Failing(reason),
            }
        }
    }
}

/// Its JetStream was disabled, as it is when its disk is full, and stays so until it is restarted.
fn is_off(reason: &str) -> bool {
    reason.contains("not enabled") || reason.contains("disabled")
}

/// How long a server may say so before it is restarted.
fn patience(reason: &str) -> Duration {
    if reason.contains("write error") {
        // A server does not write again after an error of its disk.
        Duration::ZERO
    } else if ["catching up", "recovering", "not current"].iter().any(|text| reason.contains(text)) {
        COPYING
    } else {
        PATIENCE
    }
}

impl NodeCondition {
    /// A server that has no leader because others are missing heals when they are back.
    fn excuse_leaderless(&mut self) {
        if let Self::Failing(reason) = self
            && reason.contains("meta leader")
        {
            *self = Self::Settling(std::mem::take(reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::protocol::NodeSpec;
    use crate::model::desired;

    const NOW_MS: u64 = 10_000_000;

    fn status(started_seconds_ago: u64, failing_for_seconds: u64) -> NodeStatus {
        let ago = |seconds: u64| NOW_MS - seconds * 1_000;
        NodeStatus {
            spec: NodeSpec {
                node: desired::Node { version: "1".to_owned(), config: "1".to_owned(), accounts: String::new() },
                program: "/bin/nats-server".into(),
                args: Vec::new(),
                config_path: "/etc/nats.conf".into(),
                monitor: Some(Monitor { port: 1, path: String::new() }),
            },
            running: true,
            pid: Some(1),
            started_at_ms: Some(ago(started_seconds_ago)),
            restarts: 0,
            last_exit: None,
            log_tail: Vec::new(),
            has_been_healthy: false,
            failing: Some(FailedCheck { reason: String::new(), since_ms: ago(failing_for_seconds) }),
        }
    }

    #[track_caller]
    fn check(answer: &str, started_seconds_ago: u64, failing_for_seconds: u64, expected: &str) {
        let answer = match answer {
            "ok" => Ok(()),
            "" => Err(Unhealthy::Silent),
            text => Err(Unhealthy::Says(text.to_owned())),
        };
        let found = condition(answer, &status(started_seconds_ago, failing_for_seconds), NOW_MS);
        let found = match found {
            NodeCondition::Healthy => "healthy",
            NodeCondition::Settling(_) => "settling",
            NodeCondition::Failing(_) => "failing",
            NodeCondition::Out(_) => "out",
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_server_that_has_just_started_is_waited_for_whatever_it_says() {
        check("", 29, 29, "settling");
        check("JetStream not enabled", 29, 29, "settling");
        check("JetStream stream 'S > KV_x' is not healthy: stream write error", 29, 29, "settling");
        check("ok", 1, 0, "healthy");
    }

    #[test]
    fn a_server_that_was_healthy_does_not_start_any_more() {
        let status = NodeStatus { has_been_healthy: true, ..status(5, 0) };
        let out = NodeCondition::Out("does not answer".to_owned());
        assert_eq!(condition(Err(Unhealthy::Silent), &status, NOW_MS), out);
    }

    #[test]
    fn a_server_that_hangs_or_has_no_jetstream_is_out() {
        check("", 30, 0, "out");
        check("JetStream not enabled", 30, 1, "out");
    }

    #[test]
    fn what_does_not_pass_is_failing_at_once_and_the_rest_in_time() {
        check("JetStream stream 'S > KV_x' is not healthy: stream write error", 30, 0, "failing");
        check("JetStream meta layer write error", 30, 0, "failing");
        check("JetStream stream 'S > KV_x' is not healthy: group node unhealthy", 100, 59, "settling");
        check("JetStream stream 'S > KV_x' is not healthy: group node unhealthy", 100, 60, "failing");
        check("JetStream has not established contact with a meta leader", 100, 60, "failing");
        check("JetStream stream 'S > KV_x' is not healthy: stream catching up", 800, 800, "settling");
        check("JetStream is not current with the meta leader", 800, 800, "settling");
        check("JetStream stream 'S > KV_x' is not healthy: stream catching up", 1000, 900, "failing");
    }

    #[test]
    fn a_server_without_a_leader_is_no_fault_of_its_own_while_others_are_missing() {
        let mut leaderless =
            NodeCondition::Failing("JetStream has not established contact with a meta leader".to_owned());
        leaderless.excuse_leaderless();
        assert!(matches!(leaderless, NodeCondition::Settling(_)));
        let mut stuck = NodeCondition::Failing("stream write error".to_owned());
        stuck.excuse_leaderless();
        assert!(matches!(stuck, NodeCondition::Failing(_)));
    }
}

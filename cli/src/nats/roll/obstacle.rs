//! What keeps a roll from going on, each with what would repair it.

use std::fmt;

use serde::Serialize;

/// What keeps a roll from going on. Its text follows no other; [`Obstacle::repair`] is a sentence of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Obstacle {
    /// A server does not answer.
    Silent { node: String, reason: String },
    /// A server says that it is not healthy.
    Unwell { node: String, reason: String },
    /// A server lacks routes to others.
    Routes { node: String, has: usize, needs: usize },
    /// No server is followed by a majority.
    NoMetaLeader,
    /// Servers follow different meta leaders.
    Leaders { leaders: Vec<String> },
    /// A server has not everything that the meta leader has.
    MetaBehind { node: String, lag: u64 },
    /// A stream or consumer has no leader.
    NoLeader { asset: String },
    /// It has fewer replicas than it is configured to have.
    Few { asset: String, has: usize, needs: usize },
    /// One of its replicas is on a server that says nothing of it.
    Missing { asset: String, node: String },
    /// One of its replicas has not everything that the leader has.
    Behind { asset: String, node: String, lag: u64 },
    /// A replica has come as far as the leader, and holds something else.
    Differs { asset: String, node: String, messages: u64, leader: u64 },
    /// Too few other replicas are well.
    LosesQuorum { asset: String, node: String },
    /// It cannot be written to while the server is away, and that was not accepted.
    Fragile { asset: String, node: String, replicas: usize },
    /// A server is still the process that it was.
    NotRestarted { node: String, clients: u64 },
    /// A server that was taken does not answer yet.
    Away { node: String, reason: String },
    /// A server came back as another version.
    WrongVersion { node: String, runs: String, wanted: String },
    /// A server came back with another configuration.
    WrongConfig { node: String },
    /// A server that the environment does not name.
    Stranger { node: String },
    /// A server of another cluster.
    OtherCluster { node: String, cluster: String, others: String },
    /// The servers cannot go from what they run to this version.
    Jump { from: String, to: String, reason: String, repair: String },
    /// A server would be killed in the middle of lame duck.
    Timing { lame_duck: u64, stop: u64, command: Option<u64> },
}

impl Obstacle {
    /// The server that it is about, if it is about one alone.
    pub(crate) fn node(&self) -> Option<&str> {
        match self {
            Self::Silent { node, .. }
            | Self::Unwell { node, .. }
            | Self::Routes { node, .. }
            | Self::MetaBehind { node, .. }
            | Self::Missing { node, .. }
            | Self::Behind { node, .. }
            | Self::Differs { node, .. }
            | Self::NotRestarted { node, .. }
            | Self::Away { node, .. }
            | Self::WrongVersion { node, .. }
            | Self::WrongConfig { node } => Some(node),
            _ => None,
        }
    }

    /// Names its kind; stays the same in later versions.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Silent { .. } => "node-silent",
            Self::Unwell { .. } => "node-unhealthy",
            Self::Routes { .. } => "routes-missing",
            Self::NoMetaLeader => "meta-leader-missing",
            Self::Leaders { .. } => "meta-leaders-differ",
            Self::MetaBehind { .. } => "meta-behind",
            Self::NoLeader { .. } => "no-leader",
            Self::Few { .. } => "replicas-missing",
            Self::Missing { .. } => "replica-silent",
            Self::Behind { .. } => "replica-behind",
            Self::Differs { .. } => "replica-differs",
            Self::LosesQuorum { .. } => "loses-quorum",
            Self::Fragile { .. } => "few-replicas",
            Self::NotRestarted { .. } => "not-restarted",
            Self::Away { .. } => "node-away",
            Self::WrongVersion { .. } => "wrong-version",
            Self::WrongConfig { .. } => "wrong-config",
            Self::Stranger { .. } => "stranger",
            Self::OtherCluster { .. } => "other-cluster",
            Self::Jump { .. } => "version-jump",
            Self::Timing { .. } => "stop-timeout",
        }
    }

    /// What would repair it.
    pub(crate) fn repair(&self) -> String {
        match self {
            Self::Silent { node, .. } | Self::Unwell { node, .. } => {
                format!("`natsctl logs {node}` says more; `natsctl deploy --all` repairs a server that does not heal")
            }
            Self::Routes { node, .. } => {
                format!("see in `natsctl logs {node}` why it cannot connect to its peers: addresses, certificates")
            }
            Self::NoMetaLeader | Self::LosesQuorum { .. } => {
                "a majority of the servers must run and be well: see `natsctl nats status`".to_owned()
            }
            Self::Leaders { .. } => "the servers cannot all reach each other: see `natsctl nats check`".to_owned(),
            Self::MetaBehind { .. } | Self::Behind { .. } | Self::NoLeader { .. } | Self::Missing { .. } => {
                "it usually passes: `natsctl nats status` shows it; `--timeout` waits longer".to_owned()
            }
            Self::Few { needs, .. } => {
                format!("`natsctl deploy --all` sets {needs} replicas; a server that was lost must be replaced first")
            }
            Self::Differs { .. } => {
                "set its replicas to one less and back, which copies it anew, while nothing is being rolled".to_owned()
            }
            Self::Fragile { .. } => {
                "give it three replicas, or accept by `--accept-r1` that it is away for seconds".to_owned()
            }
            Self::NotRestarted { node, .. } => format!("see in `natsctl logs {node}` why it does not stop"),
            Self::Away { node, .. } => format!("see in `natsctl logs {node}` why it does not stop, or not start"),
            Self::WrongVersion { .. } | Self::WrongConfig { .. } => {
                "another command has changed it meanwhile: see `natsctl history`".to_owned()
            }
            Self::Stranger { .. } => "stop it, or add it to the environment's manifest".to_owned(),
            Self::OtherCluster { .. } => "one name for the cluster must be in all configurations".to_owned(),
            Self::Jump { repair, .. } => repair.clone(),
            Self::Timing { .. } => "lengthen the stop timeout of the servers, or shorten their lame duck".to_owned(),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { node, reason } => write!(f, "`{node}` {reason}"),
            Self::Unwell { node, reason } => write!(f, "`{node}` is not healthy: {reason}"),
            Self::Routes { node, has, needs } => write!(f, "`{node}` is connected to {has} of {needs} other servers"),
            Self::NoMetaLeader => f.write_str("the cluster has no meta leader, so no quorum"),
            Self::Leaders { leaders } => {
                write!(f, "the servers follow different meta leaders: `{}`", leaders.join("`, `"))
            }
            Self::MetaBehind { node, lag: 0 } => write!(f, "`{node}` is not current with the meta leader"),
            Self::MetaBehind { node, lag } => write!(f, "`{node}` is {lag} entries behind the meta leader"),
            Self::NoLeader { asset } => write!(f, "{asset} has no leader"),
            Self::Few { asset, has, needs } => write!(f, "{asset} has {has} of {needs} replicas"),
            Self::Missing { asset, node } => write!(f, "{asset}: `{node}` does not say how its replica is"),
            Self::Behind { asset, node, lag: 0 } => write!(f, "{asset}: the replica on `{node}` is not current"),
            Self::Behind { asset, node, lag } => write!(f, "{asset}: the replica on `{node}` is {lag} behind"),
            Self::Differs { asset, node, messages, leader } => {
                write!(f, "{asset}: the replica on `{node}` differs: {messages} messages instead of {leader}")
            }
            Self::LosesQuorum { asset, node } => write!(f, "{asset} would have no quorum without `{node}`"),
            Self::Fragile { asset, node, replicas: 1 } => {
                write!(f, "{asset} has its only replica on `{node}`: it is away while the server is")
            }
            Self::Fragile { asset, node, replicas } => {
                write!(f, "{asset} has only {replicas} replicas: without `{node}` it cannot be written to")
            }
            Self::NotRestarted { node, clients } => write!(f, "`{node}` is leaving ({clients} clients left)"),
            Self::Away { node, reason } => write!(f, "`{node}` leaves and restarts; it {reason}"),
            Self::WrongVersion { node, runs, wanted } => write!(f, "`{node}` runs {runs} and not {wanted}"),
            Self::WrongConfig { node } => write!(f, "`{node}` runs with another configuration than the one rolled out"),
            Self::Stranger { node } => write!(f, "`{node}` is in the cluster, and the environment has no such server"),
            Self::OtherCluster { node, cluster, others } => {
                write!(f, "`{node}` belongs to cluster `{cluster}`, the others to `{others}`")
            }
            Self::Jump { from, to, reason, .. } => write!(f, "from {from} no server may go to {to}: {reason}"),
            Self::Timing { lame_duck, stop, command } => {
                write!(f, "lame duck takes {lame_duck} s and 20 s more, and a server is killed after {stop} s")?;
                command.map_or(Ok(()), |command| write!(f, ", the command after {command} s"))
            }
        }
    }
}

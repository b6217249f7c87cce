//! `natsctl nats`

use clap::{Args, Subcommand};

use crate::invocation::Invocation;
use crate::report::{Report, UNHEALTHY};
use crate::status::nats_text;

/// Look at the NATS cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Nats {
    /// Show how its nodes are
    Status(NatsStatus),
}

/// Show how the cluster's nodes are.
#[derive(Debug, Args)]
pub(crate) struct NatsStatus {}

impl Nats {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let Self::Status(NatsStatus {}) = self;
        let health = invocation.local()?.nats().await?;
        let healthy = health.quorum && health.nodes.iter().all(|node| node.healthy);
        Ok(Report::new(&health, nats_text(&health)).code(if healthy { 0 } else { UNHEALTHY }))
    }
}

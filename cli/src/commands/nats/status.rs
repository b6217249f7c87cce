//! `natsctl nats status`

use clap::Args;

use crate::commands::invocation::Invocation;
use crate::screen::{self, Report, UNHEALTHY};

/// Show the health of the NATS servers and the quorum of the cluster
#[derive(Debug, Args)]
pub(crate) struct NatsStatus {}

impl NatsStatus {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let health = invocation.local()?.nats().await?;
        let healthy = health.quorum && health.nodes.iter().all(|node| node.healthy);
        Ok(Report::new(&health, screen::status::cluster(&health)).code(if healthy { 0 } else { UNHEALTHY }))
    }
}

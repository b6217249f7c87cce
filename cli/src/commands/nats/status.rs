//! `natsctl nats status`

use clap::Args;

use crate::commands::invocation::Invocation;
use crate::screen::status::Streams;
use crate::screen::{self, Report, UNHEALTHY};

/// Show the health of the NATS servers and of the streams, and the quorum of each
#[derive(Debug, Args)]
pub(crate) struct NatsStatus {}

impl NatsStatus {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let health = invocation.local()?.nats().await?;
        let code = if health.is_healthy() { 0 } else { UNHEALTHY };
        Ok(Report::new(&health, screen::status::cluster(&health, Streams::All)).code(code))
    }
}

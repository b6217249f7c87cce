//! `natsctl nats`

use clap::{Args, Subcommand};

use crate::commands::invocation::Invocation;
use crate::screen::{self, Report, UNHEALTHY};

/// Look at the NATS cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Nats {
    /// Show how its nodes are
    Status(NatsStatus),
    /// Make the identities that are missing, and those anew that are not as they should be
    #[cfg(feature = "aws")]
    Identities(Identities),
}

/// Make identities in Secrets Manager: of the authority, of every service, and natsctl's own.
#[cfg(feature = "aws")]
#[derive(Debug, Args)]
pub(crate) struct Identities {
    #[command(flatten)]
    lock: super::deploy::LockOptions,
}

/// Show how the cluster's nodes are.
#[derive(Debug, Args)]
pub(crate) struct NatsStatus {}

impl Nats {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match self {
            Self::Status(NatsStatus {}) => {
                let health = invocation.local()?.nats().await?;
                let healthy = health.quorum && health.nodes.iter().all(|node| node.healthy);
                Ok(Report::new(&health, screen::status::cluster(&health)).code(if healthy { 0 } else { UNHEALTHY }))
            }
            #[cfg(feature = "aws")]
            Self::Identities(command) => command.run(invocation).await,
        }
    }
}

#[cfg(feature = "aws")]
impl Identities {
    async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let written = crate::aws::identities::ensure_locked(&invocation.aws().await?, self.lock.if_taken()).await?;
        let data = serde_json::json!({ "written": written });
        if written.is_empty() {
            return Ok(Report::new(&data, "every identity is as it should be"));
        }
        let lines = written.iter().map(|name| format!("written: {name}"));
        let advice = "tasks read their identity when they start: `natsctl restart` gives it to those that run";
        Ok(Report::new(&data, lines.chain([advice.to_owned()]).collect::<Vec<_>>().join("\n")))
    }
}

//! `natsctl nats`

#[cfg(feature = "aws")]
mod apply;
#[cfg(feature = "aws")]
mod identities;
#[cfg(feature = "aws")]
mod plan;
mod status;

use clap::Subcommand;

use super::invocation::Invocation;
use crate::screen::Report;

/// Operate the NATS cluster
#[derive(Debug, Subcommand)]
pub(crate) enum Nats {
    Status(status::NatsStatus),
    #[cfg(feature = "aws")]
    Plan(plan::Plan),
    #[cfg(feature = "aws")]
    Apply(apply::Apply),
    #[cfg(feature = "aws")]
    Identities(identities::Identities),
}

impl Nats {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match self {
            Self::Status(command) => command.run(invocation).await,
            #[cfg(feature = "aws")]
            Self::Plan(command) => command.run(invocation).await,
            #[cfg(feature = "aws")]
            Self::Apply(command) => command.run(invocation).await,
            #[cfg(feature = "aws")]
            Self::Identities(command) => command.run(invocation).await,
        }
    }
}

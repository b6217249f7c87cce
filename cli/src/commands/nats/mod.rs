//! `natsctl nats`

#[cfg(feature = "aws")]
mod identities;
mod roll;
mod status;

use clap::Subcommand;

use super::invocation::Invocation;
use crate::screen::Report;

/// Operate the NATS cluster
#[derive(Debug, Subcommand)]
pub(crate) enum Nats {
    Status(status::NatsStatus),
    Roll(roll::NatsRoll),
    #[cfg(feature = "aws")]
    Identities(identities::Identities),
}

impl Nats {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match self {
            Self::Status(command) => command.run(invocation).await,
            Self::Roll(command) => command.run(invocation).await,
            #[cfg(feature = "aws")]
            Self::Identities(command) => command.run(invocation).await,
        }
    }
}

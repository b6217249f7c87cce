//! `natsctl nats`

#[cfg(feature = "aws")]
mod apply;
mod check;
#[cfg(feature = "aws")]
mod identities;
mod lame_duck;
#[cfg(feature = "aws")]
mod plan;
mod roll;
mod status;
mod step_down;

use clap::Subcommand;

use super::invocation::Invocation;
use crate::screen::Report;

/// Operate the NATS cluster
#[derive(Debug, Subcommand)]
pub(crate) enum Nats {
    Status(status::NatsStatus),
    Check(check::NatsCheck),
    Roll(roll::NatsRoll),
    LameDuck(lame_duck::LameDuck),
    StepDown(step_down::NatsStepDown),
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
            Self::Check(command) => command.run(invocation).await,
            Self::Roll(command) => command.run(invocation).await,
            Self::LameDuck(command) => command.run(invocation).await,
            Self::StepDown(command) => command.run(invocation).await,
            #[cfg(feature = "aws")]
            Self::Plan(command) => command.run(invocation).await,
            #[cfg(feature = "aws")]
            Self::Apply(command) => command.run(invocation).await,
            #[cfg(feature = "aws")]
            Self::Identities(command) => command.run(invocation).await,
        }
    }

    /// What becomes of what was begun when Ctrl-C ends it, if that is not what becomes of other commands.
    pub(crate) fn after_interrupt(&self) -> Option<&'static str> {
        match self {
            Self::Roll(_) | Self::LameDuck(_) => Some(
                "a server that was taken comes back by itself; `natsctl nats roll --resume` goes on with the others",
            ),
            _ => None,
        }
    }

    /// Whether its result can be metrics.
    pub(crate) fn has_metrics(&self) -> bool {
        matches!(self, Self::Check(_))
    }
}

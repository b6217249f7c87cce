//! Commands that are for AWS alone.

mod build;
mod deregister;
mod drift;
mod events;
mod exec;
mod import;
mod invocation;
mod policy;
mod register;
mod run;
mod tunnel;
mod verify;

use clap::Subcommand;

use super::invocation::Invocation;
use crate::screen::Report;

/// A command for AWS. Its help is the documentation of its type.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Verify(verify::Verify),
    Policy(policy::Policy),
    Build(build::Build),
    Register(register::Register),
    Deregister(deregister::Deregister),
    Drift(drift::Drift),
    Import(import::Import),
    Events(events::Events),
    Run(run::Run),
    Exec(exec::Exec),
    Tunnel(tunnel::Tunnel),
}

impl Command {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match self {
            Self::Verify(command) => command.run(invocation).await,
            Self::Policy(command) => command.run(invocation).await,
            Self::Build(command) => command.run(invocation).await,
            Self::Register(command) => command.run(invocation).await,
            Self::Deregister(command) => command.run(invocation).await,
            Self::Drift(command) => command.run(invocation).await,
            Self::Import(command) => command.run(invocation).await,
            Self::Events(command) => command.run(invocation).await,
            Self::Run(command) => command.run(invocation).await,
            Self::Exec(command) => command.run(invocation).await,
            Self::Tunnel(command) => command.run(invocation).await,
        }
    }

    /// Whether it handles Ctrl-C itself: to stop a task, to pass it on to one, or to close a session.
    pub(crate) fn handles_interrupts(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Exec(_) | Self::Tunnel(_))
    }
}

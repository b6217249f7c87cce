//! `natsctl new`

mod service;

use clap::Subcommand;

use super::invocation::Invocation;
use crate::screen::Report;

/// Write what is new: a service
#[derive(Debug, Subcommand)]
pub(crate) enum New {
    Service(service::Service),
}

impl New {
    pub(crate) fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match self {
            Self::Service(command) => command.run(invocation),
        }
    }
}

//! `natsctl proto accept`

use clap::Args;

use super::report;
use crate::commands::invocation::Invocation;
use crate::contract;
use crate::screen::Report;

/// Accept the current contracts, which later changes are then checked against
#[derive(Debug, Args)]
pub(crate) struct Accept {}

impl Accept {
    pub(crate) fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let changes = contract::accept(&invocation.workspace()?.join("proto"))?;
        Ok(report(&changes, "accepted"))
    }
}

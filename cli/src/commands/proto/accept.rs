//! `natsctl proto accept`

use clap::Args;

use super::report;
use crate::commands::invocation::Invocation;
use crate::contract;
use crate::screen::Report;

/// Accept the current contracts, which later changes are then checked against
#[derive(Debug, Args)]
pub(crate) struct Accept {
    /// Show what would be accepted, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Accept {
    pub(crate) fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let folder = invocation.workspace()?.join("proto");
        if self.dry_run {
            return Ok(report(&contract::preview(&folder)?, "nothing was changed"));
        }
        let changes = contract::accept(&folder)?;
        Ok(report(&changes, "accepted"))
    }
}

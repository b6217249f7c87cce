//! `natsctl proto check`

use clap::Args;

use super::report;
use crate::commands::invocation::Invocation;
use crate::contract;
use crate::screen::Report;

/// Refuse changes that would break a running peer
///
/// These are removed or renumbered fields, changed types, removed rpcs and changed subjects. The contracts are compared with those that
/// `natsctl proto accept` wrote last.
#[derive(Debug, Args)]
pub(crate) struct Check {}

impl Check {
    pub(crate) fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let changes = contract::check(&invocation.workspace()?.join("proto"))?;
        Ok(report(&changes, "compatible with what is deployed"))
    }
}

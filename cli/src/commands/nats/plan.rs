//! `natsctl nats plan`

use clap::Args;

use crate::aws::{Aws, nodes};
use crate::commands::invocation::Invocation;
use crate::screen::{CHANGES, Report};

/// Show in what the NATS nodes differ from what they should be, and what that takes
///
/// For each node: its release, certificates, configuration, accounts and unit. Nothing is changed. Exits with 2 if there is something to
/// do.
#[derive(Debug, Args)]
pub(crate) struct Plan {}

impl Plan {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        planned(&invocation.aws().await?).await
    }
}

/// What `natsctl nats apply` and `nats roll` would do.
pub(super) async fn planned(aws: &Aws) -> anyhow::Result<Report> {
    let plan = nodes::plan(aws).await?;
    let code = if plan.is_empty() { 0 } else { CHANGES };
    Ok(Report::new(&plan, plan.text()).diff().code(code))
}

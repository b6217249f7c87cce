//! `natsctl plan`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::deploy::Binaries;
use crate::invocation::Invocation;
use crate::options::Which;
use crate::plan::{Observed, Plan as Steps};
use crate::report::{CHANGES, Report};

/// Show what `deploy` would do, and change nothing.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Only these services, and what they need of NATS; by default everything
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Plan against this saved state instead of what is there
    #[arg(long, value_name = "FILE")]
    observed: Option<PathBuf>,
    /// Write what is there into this file, to plan against later
    #[arg(long, value_name = "FILE", conflicts_with = "observed")]
    save_observed: Option<PathBuf>,
    #[command(flatten)]
    binaries: Binaries,
}

impl Plan {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let local = invocation.local()?;
        let which = Which { all: self.services.is_empty(), services: self.services };
        let which = super::deploy::chosen(&which, &local.manifests)?;
        let prepared = local.preview(&self.binaries.source(&local.workspace)?).await?;
        let observed = match &self.observed {
            Some(file) => read(file)?,
            None => local.observe().await?,
        };
        if let Some(file) = &self.save_observed {
            let text = serde_json::to_vec_pretty(&observed)?;
            std::fs::write(file, text).with_context(|| format!("failed to write `{}`", file.display()))?;
        }
        let plan = Steps::new(&prepared.desired, &observed).select(&which);
        Ok(Report::new(&plan, plan.to_string()).diff().code(if plan.steps.is_empty() { 0 } else { CHANGES }))
    }
}

fn read(file: &PathBuf) -> anyhow::Result<Observed> {
    let text = std::fs::read(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!("`{}` is not an observed state; `natsctl plan --save-observed` writes one", file.display())
    })
}

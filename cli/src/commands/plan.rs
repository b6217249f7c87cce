//! `natsctl plan`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::change::planned;
use super::invocation::Invocation;
use super::options::{Binaries, Which};
use super::proof::Proof;
use crate::input;
use crate::model::change::{Change, Deploy};
use crate::model::observed::Observed;
use crate::pipeline::Purpose;
use crate::pipeline::options::{Options, ProofMode};
use crate::screen::Report;

/// Show what `deploy` would change
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
    /// Write the plan into this file, for `natsctl deploy --plan`
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Also show the deletion of services that run and that no manifest names
    #[arg(long, conflicts_with = "services")]
    prune: bool,
    #[command(flatten)]
    proof: Proof,
    #[command(flatten)]
    binaries: Binaries,
}

impl Plan {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        let options =
            Options { binaries: self.binaries.source(), proof: self.proof.on(&platform)?, ..Options::default() };
        let which = Which { all: self.services.is_empty(), services: self.services };
        let change = Change::Deploy(Deploy {
            selection: which.selection(platform.manifests())?,
            prune: self.prune,
            without_jetstream: options.proof == ProofMode::Ecs,
        });
        let purpose = if self.save.is_some() { Purpose::Change } else { Purpose::Preview };
        let observed = self.observed.as_deref().map(read).transpose()?;
        let (plan, observed) = platform.plan(&change, &options, purpose, observed).await?;
        if let Some(file) = &self.save_observed {
            let text = serde_json::to_vec_pretty(&observed)?;
            std::fs::write(file, text).with_context(|| format!("failed to write `{}`", file.display()))?;
        }
        planned(&platform, &change, plan, self.save.as_ref())
    }
}

fn read(file: &Path) -> anyhow::Result<Observed> {
    let text = input::read(file)?;
    serde_json::from_slice(&text).with_context(|| {
        format!("`{}` is not an observed state; `natsctl plan --save-observed` writes one", file.display())
    })
}

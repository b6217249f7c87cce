//! `natsctl plan`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::deploy::Binaries;
use super::proof::Proof;
use crate::commands::invocation::Invocation;
use crate::commands::options::Which;
use crate::commands::platform::Platform;
use crate::local::environment::Local;
use crate::manifest::Manifests;
use crate::model::plan::{Observed, Plan as Steps};
use crate::screen::{CHANGES, Report};

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
    /// Write the plan into this file, for `natsctl deploy --plan`
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Also show the deletion of services of this fleet that no manifest names (on AWS; locally they always go)
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    proof: Proof,
    #[command(flatten)]
    binaries: Binaries,
}

impl Plan {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match invocation.platform().await? {
            Platform::Local(local) => self.local(&local).await,
            #[cfg(feature = "aws")]
            Platform::Aws(aws) => self.aws(&aws).await,
        }
    }

    fn which(&self, manifests: &Manifests) -> anyhow::Result<BTreeSet<String>> {
        let which = Which { all: self.services.is_empty(), services: self.services.clone() };
        super::deploy::chosen(&which, manifests)
    }

    fn report(&self, plan: &Steps, environment: &str) -> anyhow::Result<Report> {
        if let Some(file) = &self.save {
            write(file, &json!({ "environment": environment, "plan": plan }))?;
        }
        Ok(Report::new(plan, plan.to_string()).diff().code(if plan.steps.is_empty() { 0 } else { CHANGES }))
    }

    #[cfg(feature = "aws")]
    async fn aws(self, aws: &crate::aws::Aws) -> anyhow::Result<Report> {
        let which = self.which(&aws.manifests)?;
        let (desired, images) = aws.desired(&which, &self.binaries.of_images()?).await?;
        let proof = self.proof.mode()?;
        let scope = crate::aws::deploy::Scope { all: self.services.is_empty(), prune: self.prune, proof };
        let prepared = match &self.observed {
            Some(file) => aws.prepare_against(desired, read(file)?),
            None => aws.prepare(desired, &images, scope).await?,
        };
        if let Some(file) = &self.save_observed {
            write(file, &prepared.seen.observed)?;
        }
        self.report(&prepared.plan, &aws.manifests.name)
    }

    async fn local(self, local: &Local) -> anyhow::Result<Report> {
        self.proof.refuse_locally()?;
        let which = self.which(&local.manifests)?;
        let prepared = local.preview(&self.binaries.source(&local.workspace)?).await?;
        let observed = match &self.observed {
            Some(file) => read(file)?,
            None => local.observe().await?,
        };
        if let Some(file) = &self.save_observed {
            write(file, &observed)?;
        }
        let plan = Steps::new(&prepared.desired, &observed).select(&which);
        self.report(&plan, &local.manifests.name)
    }
}

fn write(file: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(value)?;
    std::fs::write(file, text).with_context(|| format!("failed to write `{}`", file.display()))
}

fn read(file: &Path) -> anyhow::Result<Observed> {
    let text = std::fs::read(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!("`{}` is not an observed state; `natsctl plan --save-observed` writes one", file.display())
    })
}

//! `natsctl deploy`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::rollout::Rollout;
use crate::commands::invocation::Invocation;
use crate::commands::options::Which;
use crate::commands::platform::Platform;
use crate::local::apply::Apply;
use crate::local::build::Source;
use crate::local::environment::Local;
use crate::local::journal::Journal;
use crate::local::lock::IfTaken;
use crate::manifest::Manifests;
use crate::model::plan::Plan;
use crate::screen::{Report, note};

/// Make the environment what the manifests say, and prove that it is.
#[derive(Debug, Args)]
pub(crate) struct Deploy {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    binaries: Binaries,
    #[command(flatten)]
    lock: LockOptions,
    #[command(flatten)]
    rollout: Rollout,
}

/// Where the services' binaries come from.
#[derive(Debug, Args)]
pub(crate) struct Binaries {
    /// Take the binaries as they are, without building them first
    #[arg(long)]
    no_build: bool,
    /// Take the binaries from this folder, without building them; by default they are beside natsctl
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
}

impl Binaries {
    /// The same for images: static binaries, from this folder or by cargo.
    #[cfg(feature = "aws")]
    pub(crate) fn of_images(&self) -> anyhow::Result<crate::image::Binaries> {
        match (&self.binaries, self.no_build) {
            (Some(folder), _) => Ok(crate::image::Binaries::Folder(folder.clone())),
            (None, false) => Ok(crate::image::Binaries::Cargo { profile: "release".to_owned() }),
            (None, true) => {
                let hint = "`--binaries DIR` takes static binaries from a folder";
                Err(crate::error::Hinted::new("`--no-build` is for environments on this machine", hint).into())
            }
        }
    }

    pub(crate) fn source(&self, workspace: &Path) -> anyhow::Result<Source> {
        match (&self.binaries, self.no_build) {
            (Some(folder), _) => Ok(Source { folder: folder.clone(), workspace: None }),
            (None, true) => Ok(Source::beside_natsctl(workspace)?.without_building()),
            (None, false) => Source::beside_natsctl(workspace),
        }
    }
}

/// What to do while somebody else changes the environment.
#[derive(Debug, Args)]
pub(crate) struct LockOptions {
    /// Fail, instead of waiting, while somebody else changes the environment
    #[arg(long)]
    no_wait_lock: bool,
}

impl LockOptions {
    pub(crate) fn if_taken(&self) -> IfTaken {
        if self.no_wait_lock { IfTaken::Fail } else { IfTaken::Wait }
    }
}

impl Deploy {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match invocation.platform().await? {
            Platform::Local(local) => self.local(&local, invocation).await,
            #[cfg(feature = "aws")]
            Platform::Aws(aws) => self.aws(&aws).await,
        }
    }

    #[cfg(feature = "aws")]
    async fn aws(self, aws: &crate::aws::Aws) -> anyhow::Result<Report> {
        let deployed = aws.deploy(self.rollout.options(aws, &self.which, &self.binaries, &self.lock).await?).await?;
        let done = if deployed.plan.is_empty() { "nothing had to be done" } else { "deployed" };
        let data = json!({ "steps": deployed.plan.steps, "proofs": deployed.proofs, "record": deployed.record });
        Ok(Report::new(&data, [deployed.proofs, vec![done.to_owned()]].concat().join("\n")))
    }

    async fn local(self, local: &Local, invocation: &Invocation) -> anyhow::Result<Report> {
        self.rollout.refuse_locally()?;
        let which = chosen(&self.which, &local.manifests)?;
        let _lock = local.lock(&invocation.command_line, self.lock.if_taken()).await?;
        let prepared = local.prepare(&self.binaries.source(&local.workspace)?).await?;
        let plan = Plan::new(&prepared.desired, &local.observe().await?).select(&which);
        let journal = Journal::new(local.dir(), &invocation.command_line);
        note(&plan.summary());
        Apply { local, prepared: &prepared, journal }.run(&plan).await?;
        let proofs = local.prove(&which).await?;
        local.prune().await?;
        let text = format!(
            "{}\n{}",
            proofs.join("\n"),
            if plan.steps.is_empty() { "nothing had to be done" } else { "deployed" }
        );
        Ok(Report::new(&json!({ "steps": plan.steps, "proofs": proofs }), text))
    }
}

/// The services that were meant.
///
/// # Errors
/// A name that no manifest has.
pub(crate) fn chosen(which: &Which, manifests: &Manifests) -> anyhow::Result<BTreeSet<String>> {
    if which.all {
        return Ok(manifests.services.keys().cloned().collect());
    }
    which.services.iter().map(|name| known(name, manifests)).collect()
}

/// A service's name, if there is one of this name.
pub(crate) fn known(name: &str, manifests: &Manifests) -> anyhow::Result<String> {
    Ok(manifests.service(name)?.name.to_string())
}

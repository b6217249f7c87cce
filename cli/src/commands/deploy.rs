//! `natsctl deploy`

use clap::Args;

use super::change::{ChangeOptions, done};
use super::invocation::Invocation;
use super::options::{Binaries, Which};
use super::rollout::RolloutOptions;
use crate::error::Hinted;
use crate::model::change::{Change, Deploy as Deployment, Selection};
use crate::pipeline::options::ProofMode;
use crate::screen::Report;

/// Deploy what the manifests describe, and verify the result
#[derive(Debug, Args)]
pub(crate) struct Deploy {
    #[command(flatten)]
    which: Which,
    /// Deploy the services of the last change again, which was interrupted
    #[arg(long, group = "Which")]
    resume: bool,
    /// Also delete services that run and that no manifest names, after their tasks have finished
    #[arg(long)]
    prune: bool,
    /// First bring the NATS nodes to what the manifests describe, as `natsctl nats apply` does
    #[cfg(feature = "aws")]
    #[arg(long)]
    with_nats: bool,
    #[command(flatten)]
    binaries: Binaries,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    rollout: RolloutOptions,
}

impl Deploy {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        let options = self.rollout.options(&platform, self.binaries.source())?;
        let selection = if self.resume {
            let services = platform.interrupted().await?;
            Selection { all: services.len() == platform.manifests().services.len(), services }
        } else {
            self.which.selection(platform.manifests())?
        };
        if self.prune && !selection.all {
            let hint = "deploy with `--all --prune`, or leave out `--prune`";
            return Err(
                Hinted::new("`--prune` deletes services that no manifest names, so it needs `--all`", hint).into()
            );
        }
        #[cfg(feature = "aws")]
        if self.with_nats {
            self.change.apply_nats(&platform).await?;
        }
        let without_jetstream = options.proof == ProofMode::Ecs;
        let change = Change::Deploy(Deployment { selection, prune: self.prune, without_jetstream });
        self.change.carry_out(&platform, &change, options, |result| done(result, None, "deployed")).await
    }
}

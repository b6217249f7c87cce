//! How a deployment on AWS is done: options that the local environment does not have, where everything takes a second.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::proof::Proof;
use crate::error::Hinted;
use crate::model::units::Span;

/// How a deployment on AWS is done.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "On AWS")]
pub(crate) struct Rollout {
    /// What to do when a service does not come up; `rollback` if absent
    #[arg(long, value_enum, value_name = "REACTION")]
    on_failure: Option<OnFailure>,
    /// How far each deployment must be before the next wave begins; `proven` if absent
    #[arg(long, value_enum, value_name = "STAGE")]
    wait_until: Option<Until>,
    /// How long the deployments of one wave may take, for example `20 min`; by default what their health checks allow
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
    #[command(flatten)]
    proof: Proof,
    /// Services that are changed at the same time; 8 if absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    max_parallel: Option<u16>,
    /// Delete services of this fleet that no manifest names, after their tasks have finished
    #[arg(long)]
    prune: bool,
    /// Do exactly this plan, which `natsctl plan --save` has written; refuse if the world has changed since
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Finish the last deployment, which was interrupted: the same services again
    #[arg(long, group = "Which")]
    resume: bool,
}

/// What to do when a service does not come up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailure {
    /// Everything that this run has changed goes back to what ran before
    #[default]
    Rollback,
    /// The service goes back, what came up stays, and nothing more is begun
    Stop,
    /// The service goes back, and everything that does not call it is deployed
    Continue,
}

/// How far a deployment must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Until {
    /// ECS has taken it
    Accepted,
    /// The new tasks run
    Running,
    /// The old tasks are gone
    Completed,
    /// It is proved that the new tasks answer
    #[default]
    Proven,
}

/// What counts as a proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProofMode {
    /// Every task answers on the bus
    #[default]
    Bus,
    /// ECS says that the tasks run
    Ecs,
}

impl Rollout {
    /// Refuses what a local environment would have to ignore.
    pub(crate) fn refuse_locally(&self) -> anyhow::Result<()> {
        self.proof.refuse_locally()?;
        let given = [
            ("--on-failure", self.on_failure.is_some()),
            ("--wait-until", self.wait_until.is_some()),
            ("--timeout", self.timeout.is_some()),
            ("--max-parallel", self.max_parallel.is_some()),
            ("--prune", self.prune),
            ("--plan", self.plan.is_some()),
            ("--resume", self.resume),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => {
                let message = format!("`{option}` is for environments on AWS");
                Err(Hinted::new(message, "leave it out, or name one with `--env`").into())
            }
        }
    }
}

#[cfg(feature = "aws")]
mod on_aws {
    use std::collections::BTreeSet;
    use std::path::Path;

    use anyhow::Context as _;

    use super::Rollout;
    use crate::aws::Aws;
    use crate::aws::deploy::{Options, Reviewed, Scope};
    use crate::commands::deploy::{Binaries, LockOptions, chosen};
    use crate::commands::options::Which;
    use crate::error::Hinted;

    /// Services that are changed at the same time.
    const MAX_PARALLEL: usize = 8;

    impl Rollout {
        /// What was typed, as what it means.
        pub(crate) async fn options(
            self,
            aws: &Aws,
            which: &Which,
            binaries: &Binaries,
            lock: &LockOptions,
        ) -> anyhow::Result<Options> {
            let chosen: BTreeSet<String> =
                if self.resume { aws.interrupted().await? } else { chosen(which, &aws.manifests)? };
            Ok(Options {
                scope: Scope {
                    all: chosen.len() == aws.manifests.services.len(),
                    prune: self.prune,
                    proof: self.proof.mode()?,
                },
                which: chosen,
                binaries: binaries.of_images()?,
                if_taken: lock.if_taken(),
                on_failure: self.on_failure.unwrap_or_default(),
                until: self.wait_until.unwrap_or_default(),
                timeout: self.timeout.map(crate::model::units::Span::duration),
                max_parallel: self.max_parallel.map_or(MAX_PARALLEL, usize::from),
                reviewed: self.plan.as_deref().map(read).transpose()?,
            })
        }
    }

    fn read(file: &Path) -> anyhow::Result<Reviewed> {
        let text = std::fs::read(file).with_context(|| format!("failed to read `{}`", file.display()))?;
        let hint = "`natsctl plan --save FILE` writes one";
        Ok(serde_json::from_slice(&text)
            .map_err(|error| Hinted::new(format!("`{}` is not a saved plan: {error}", file.display()), hint))?)
    }
}

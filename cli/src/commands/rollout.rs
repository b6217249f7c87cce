//! How a deployment is carried out, and what only a deployment on AWS leaves to choose.

use clap::Args;

use super::platform::Platform;
use super::proof::Proof;
use crate::error::{Code, Hinted};
use crate::model::units::Span;
use crate::pipeline::options::{BinarySource, MAX_PARALLEL, OnFailure, Options, WaitUntil};

/// Heading of the options that local environments refuse.
const ON_AWS: &str = "On AWS";

/// How a deployment is carried out.
#[derive(Debug, Default, Args)]
pub(crate) struct RolloutOptions {
    /// How long the deployments of one wave may take, for example `20 min`; by default what their health checks allow
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
    /// Services that are changed at the same time; 8 if absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    max_parallel: Option<u16>,
    /// What to do when a service does not come up; `rollback` if absent
    #[arg(long, value_enum, value_name = "REACTION", help_heading = ON_AWS)]
    on_failure: Option<OnFailure>,
    /// How far each deployment must be before the next wave starts; `proven` if absent
    #[arg(long, value_enum, value_name = "STAGE", help_heading = ON_AWS)]
    wait_until: Option<WaitUntil>,
    #[command(flatten)]
    proof: Proof,
}

impl RolloutOptions {
    /// What was typed, as what it means on this platform.
    ///
    /// # Errors
    /// An option that the platform cannot honour.
    pub(crate) fn options(&self, platform: &Platform, binaries: BinarySource) -> anyhow::Result<Options> {
        if platform.is_local() {
            self.refuse_locally()?;
        }
        Ok(Options {
            binaries,
            on_failure: self.on_failure.unwrap_or_default(),
            wait_until: self.wait_until.unwrap_or_default(),
            timeout: self.timeout.map(Span::duration),
            max_parallel: self.max_parallel.map_or(MAX_PARALLEL, usize::from),
            proof: self.proof.on(platform)?,
            ..Options::default()
        })
    }

    fn refuse_locally(&self) -> anyhow::Result<()> {
        let given = [("--on-failure", self.on_failure.is_some()), ("--wait-until", self.wait_until.is_some())];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => {
                let hint = "leave it out, or name such an environment with `--env`";
                Err(Hinted::new(format!("`{option}` is for environments on AWS"), hint)
                    .code(Code::WrongPlatform)
                    .into())
            }
        }
    }
}

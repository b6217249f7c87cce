//! `--proof`, of every command that changes what runs.

use clap::{Args, ValueEnum as _};

use super::rollout::ProofMode;
use crate::error::Hinted;

/// Says it for whoever types nothing.
const VARIABLE: &str = "NATSCTL_PROOF";

/// What proves that a change worked.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "On AWS")]
pub(crate) struct Proof {
    /// What proves that it worked; by default what NATSCTL_PROOF says, else `bus`
    #[arg(long = "proof", value_enum, value_name = "PROOF")]
    typed: Option<ProofMode>,
}

impl Proof {
    /// Locally it is always the bus.
    pub(crate) fn refuse_locally(self) -> anyhow::Result<()> {
        if self.typed.is_none() {
            return Ok(());
        }
        Err(Hinted::new("`--proof` is for environments on AWS", "leave it out, or name one with `--env`").into())
    }

    /// As typed, or as the environment says.
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "only AWS leaves a choice"))]
    pub(crate) fn mode(self) -> anyhow::Result<ProofMode> {
        let said = std::env::var(VARIABLE).ok().filter(|said| !said.is_empty());
        match (self.typed, said) {
            (Some(typed), _) => Ok(typed),
            (None, None) => Ok(ProofMode::default()),
            (None, Some(said)) => ProofMode::from_str(&said, false)
                .map_err(|_| Hinted::new(format!("{VARIABLE} is `{said}`"), "it may be `bus` or `ecs`").into()),
        }
    }
}

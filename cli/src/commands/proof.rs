//! `--proof`, of every command that changes what runs.

use clap::{Args, ValueEnum as _};

use super::platform::Platform;
use crate::error::{Code, Hinted};
use crate::pipeline::options::ProofMode;

/// Sets it where the option is not given.
const VARIABLE: &str = "NATSCTL_PROOF";

/// What proves that a change worked.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Proof {
    /// What proves that it worked; by default what NATSCTL_PROOF says, else `bus`
    #[arg(long = "proof", value_enum, value_name = "PROOF", help_heading = "On AWS")]
    typed: Option<ProofMode>,
}

impl Proof {
    /// What proves a change on this platform: locally it is always the bus.
    ///
    /// # Errors
    /// If another proof is asked for locally, or NATSCTL_PROOF is none.
    pub(crate) fn on(self, platform: &Platform) -> anyhow::Result<ProofMode> {
        match (platform, self.typed) {
            (Platform::Local(_), None) => Ok(ProofMode::Bus),
            (Platform::Local(_), Some(_)) => {
                let hint = "leave it out, or name such an environment with `--env`";
                Err(Hinted::new("`--proof` is for environments on AWS", hint).code(Code::WrongPlatform).into())
            }
            #[cfg(feature = "aws")]
            (Platform::Aws(_), Some(typed)) => Ok(typed),
            #[cfg(feature = "aws")]
            (Platform::Aws(_), None) => from_environment(),
        }
    }
}

#[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "only AWS leaves a choice"))]
fn from_environment() -> anyhow::Result<ProofMode> {
    match std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()) {
        None => Ok(ProofMode::default()),
        Some(text) => ProofMode::from_str(&text, false)
            .map_err(|_| Hinted::new(format!("{VARIABLE} is `{text}`"), "it may be `bus` or `ecs`").into()),
    }
}

//! Questions before something outside this machine is changed.

use clap::Args;

use super::platform::Platform;
use crate::error::{Code, Hinted};
use crate::screen::{can_ask, confirm, note};

/// Whether a change is confirmed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Confirmation {
    /// Do not ask for a confirmation
    #[arg(short, long)]
    yes: bool,
}

impl Confirmation {
    /// Whether a change of this environment must be confirmed. Where there is no terminal there is no question: a script means what it says.
    pub(crate) fn is_needed(self, platform: &Platform) -> bool {
        !self.yes && platform.is_to_be_confirmed() && can_ask()
    }

    /// Asks, unless that was answered by an option.
    ///
    /// # Errors
    /// The answer was no.
    pub(crate) async fn ask(self, question: &str) -> anyhow::Result<()> {
        if self.yes || confirm(question).await? {
            return Ok(());
        }
        let refused = Hinted::new("not confirmed, so nothing was changed", "answer with y, or give `--yes`");
        Err(refused.code(Code::Refused).into())
    }

    /// Names the environment whose servers are about to be restarted and, where that is wanted, asks first.
    ///
    /// # Errors
    /// The answer was no.
    pub(crate) async fn roll(self, platform: &Platform, what: &str) -> anyhow::Result<()> {
        name_place(platform);
        if self.is_needed(platform) { self.ask(&format!("{what}?")).await } else { Ok(()) }
    }

    /// The same of anything on AWS.
    ///
    /// # Errors
    /// The answer was no.
    #[cfg(feature = "aws")]
    pub(crate) async fn change(self, aws: &crate::aws::Aws, what: &str) -> anyhow::Result<()> {
        note(&aws.place());
        if aws.described.confirm && can_ask() { self.ask(&format!("{what}?")).await } else { Ok(()) }
    }
}

/// Says which environment is about to be changed, if it is not on this machine.
pub(crate) fn name_place(platform: &Platform) {
    if let Some(place) = platform.place() {
        note(&place);
    }
}

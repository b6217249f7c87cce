//! `natsctl dlq replay`

use clap::Args;

use super::Chosen;
use crate::commands::invocation::Invocation;
use crate::screen::Report;

/// Give dead letters once more to the service that could not handle them, and to no other
#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    chosen: Chosen,
}

impl Replay {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        self.chosen.act(invocation, "replay", async |dead_letters, letter| dead_letters.replay(letter).await).await
    }
}

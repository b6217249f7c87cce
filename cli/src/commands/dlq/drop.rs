//! `natsctl dlq drop`

use clap::Args;

use super::Chosen;
use crate::commands::invocation::Invocation;
use crate::screen::Report;

/// Delete dead letters for good
#[derive(Debug, Args)]
pub(crate) struct Drop {
    #[command(flatten)]
    chosen: Chosen,
}

impl Drop {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        self.chosen.act(invocation, "drop", async |dead_letters, letter| dead_letters.drop(letter).await).await
    }
}

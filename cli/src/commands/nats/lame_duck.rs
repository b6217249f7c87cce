//! `natsctl nats lame-duck`

use clap::Args;

use super::roll::{Waiting, previewed};
use crate::commands::confirmation::Confirmation;
use crate::commands::invocation::Invocation;
use crate::nats::roll::{Accepted, Goal};
use crate::pipeline::roll::Request;
use crate::screen::Report;

/// Have the clients and leaders of one NATS server move to others, and restart it
///
/// It is a roll of one server: it does not begin while a stream, a consumer or the cluster would lose its quorum, and ends when
/// everything is complete again. `natsctl nats roll --resume` goes on with it after an interruption.
#[derive(Debug, Args)]
pub(crate) struct LameDuck {
    /// Name of the server
    node: String,
    /// Accept that streams and consumers with one or two replicas are away while the server is
    #[arg(long)]
    accept_r1: bool,
    /// Show what is known of the server, and change nothing; exits with 2 if there is something to do
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    waiting: Waiting,
}

impl LameDuck {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let accepted = Accepted { fragile: self.accept_r1, downgrade: None };
        let request = Request { goal: Some(Goal::Restart), only: Some(self.node), accepted };
        let platform = invocation.platform().await?;
        if self.dry_run {
            return Ok(previewed(&platform.preview_roll(&request, None).await?));
        }
        self.confirmation.roll(&platform, "restart this NATS server").await?;
        let rolled = platform.roll(&request, None, self.waiting.options(&platform)).await?;
        Ok(Report::new(&rolled, rolled.to_string()))
    }
}

//! `natsctl nats apply`

use clap::Args;

use crate::aws::nodes;
use crate::commands::change::LockOptions;
use crate::commands::confirmation::Confirmation;
use crate::commands::invocation::Invocation;
use crate::screen::{CHANGES, Report};

/// Install and configure NATS on its nodes, and start what does not run
///
/// Through Systems Manager, as far as that takes no restart of a server that runs. The first time, it forms the cluster and waits for its
/// quorum. Exits with 2 if something remains that only a restart does.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// Show what would be done, as `natsctl nats plan` does, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    lock: LockOptions,
}

impl Apply {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        if self.dry_run {
            return super::plan::planned(&aws).await;
        }
        self.confirmation.change(&aws, "install, configure and start NATS as `natsctl nats plan` shows").await?;
        let applied = nodes::apply(&aws, self.lock.if_held()).await?;
        let code = if applied.remains.is_empty() { 0 } else { CHANGES };
        Ok(Report::new(&applied, applied.text()).diff().code(code))
    }
}

//! `natsctl deregister`

use clap::Args;

use crate::aws::revisions::{self, deregistered_text};
use crate::commands::change::LockOptions;
use crate::commands::confirmation::Confirmation;
use crate::commands::invocation::Invocation;
use crate::commands::options::Which;
use crate::problem::counted;
use crate::screen::Report;

/// Deregister old task definition revisions of services
///
/// A revision that runs, that a deployment uses, or that `rollback` would go back to is never deregistered.
#[derive(Debug, Args)]
pub(crate) struct Deregister {
    #[command(flatten)]
    which: Which,
    /// How many of the newest revisions to keep
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
    /// Show which would be deregistered, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    lock: LockOptions,
}

impl Deregister {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let which = self.which.selection(&aws.manifests)?.services;
        if self.dry_run {
            let found = revisions::superfluous_of(&aws, &which, self.keep.into()).await?;
            return Ok(Report::new(&found, format!("{}\nnothing was changed", deregistered_text(&found))));
        }
        let question =
            format!("deregister all but the newest {} revisions of {}", self.keep, counted(which.len(), "service"));
        self.confirmation.change(&aws, &question).await?;
        let deregistered = revisions::deregister(&aws, &which, self.keep.into(), self.lock.if_held()).await?;
        Ok(Report::new(&deregistered, deregistered_text(&deregistered)))
    }
}

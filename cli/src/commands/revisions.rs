//! `natsctl revisions` and `natsctl deregister`

use clap::Args;

use super::deploy::{LockOptions, chosen, known};
use crate::aws::revisions::{self, deregistered_text, text};
use crate::commands::invocation::Invocation;
use crate::commands::options::Which;
use crate::screen::Report;

/// List the revisions of a service.
#[derive(Debug, Args)]
pub(crate) struct Revisions {
    /// Which service
    service: String,
    /// How many, the newest first
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
}

/// Do away with old revisions of services. What runs, what a deployment uses and what `rollback` goes to always stay.
#[derive(Debug, Args)]
pub(crate) struct Deregister {
    #[command(flatten)]
    which: Which,
    /// So many of the newest stay
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
    #[command(flatten)]
    lock: LockOptions,
}

impl Revisions {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let name = known(&self.service, &aws.manifests)?;
        let revisions = revisions::list(&aws, &name, self.limit.into()).await?;
        Ok(Report::new(&revisions, text(&name, &revisions)))
    }
}

impl Deregister {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let which = chosen(&self.which, &aws.manifests)?;
        let all = revisions::deregister(&aws, &which, self.keep.into(), self.lock.if_taken()).await?;
        Ok(Report::new(&all, deregistered_text(&all)))
    }
}

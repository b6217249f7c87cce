//! `natsctl revisions`

use clap::Args;

use crate::aws::revisions::{self, text};
use crate::commands::invocation::Invocation;
use crate::screen::Report;

/// List the task definition revisions of a service
#[derive(Debug, Args)]
pub(crate) struct Revisions {
    /// Which service
    service: String,
    /// How many to list, newest first
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
}

impl Revisions {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let name = aws.manifests.service(&self.service)?.name.to_string();
        let revisions = revisions::list(&aws, &name, self.limit.into()).await?;
        Ok(Report::new(&revisions, text(&name, &revisions)))
    }
}

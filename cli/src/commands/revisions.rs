//! `natsctl revisions`

use clap::Args;

use crate::commands::invocation::Invocation;
use crate::screen::{Report, lists};

/// List the revisions of a service: what they run, who registered them, and what they are needed for
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
        let platform = invocation.platform().await?;
        let name = platform.manifests().service(&self.service)?.name.to_string();
        let revisions = platform.list_revisions(&name, self.limit.into()).await?;
        Ok(Report::new(&revisions, lists::revisions(&name, &revisions)))
    }
}

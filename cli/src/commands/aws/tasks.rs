//! `natsctl tasks`

use clap::Args;

use crate::aws::tasks::{self, DesiredStatus, text};
use crate::commands::invocation::Invocation;
use crate::screen::Report;

/// List the tasks of services
#[derive(Debug, Args)]
pub(crate) struct Tasks {
    /// List stopped tasks, which ECS keeps for about an hour
    #[arg(long)]
    stopped: bool,
    /// Which services; by default all tasks of the cluster
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Tasks {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let status = if self.stopped { DesiredStatus::Stopped } else { DesiredStatus::Running };
        let tasks = tasks::list(&aws, &self.services, status).await?;
        Ok(Report::new(&tasks, text(&tasks)))
    }
}

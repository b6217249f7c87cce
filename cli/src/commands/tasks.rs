//! `natsctl tasks`

use clap::Args;

use crate::commands::invocation::Invocation;
use crate::model::listed::Listed;
use crate::screen::{Report, lists};

/// List the tasks of services
#[derive(Debug, Args)]
pub(crate) struct Tasks {
    /// List stopped tasks: on AWS those of about the last hour, locally those that are about to be restarted
    #[arg(long)]
    stopped: bool,
    /// Which services; by default all tasks of the environment
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Tasks {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let listed = if self.stopped { Listed::Stopped } else { Listed::Running };
        let tasks = invocation.platform().await?.list_tasks(&self.services, listed).await?;
        Ok(Report::new(&tasks, lists::tasks(&tasks)))
    }
}

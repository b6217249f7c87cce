//! `natsctl exec`

use clap::Args;

use crate::aws::exec::exec;
use crate::commands::invocation::Invocation;
use crate::screen::Report;

/// Run a command in a running task, at the terminal
///
/// Images that natsctl builds have no shell, only `/app`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// A task, or a service: its newest task
    #[arg(value_name = "SERVICE|TASK")]
    target: String,
    /// The command, with its path in the container
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        Ok(Report::silent().code(exec(&aws, &self.target, &self.command).await?))
    }
}

//! `natsctl run`

use clap::Args;

use crate::aws::run::{Job, run};
use crate::commands::invocation::Invocation;
use crate::model::log::Line;
use crate::model::units::Span;
use crate::screen::{self, Format, Report};

/// Run one task of a service with another command, show its log, and exit with its code.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Stop the task when it takes longer, for example `10min`
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
    /// Whose image, size, network, secrets and rights the task has
    service: String,
    /// Given to the image's entry point instead of its command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let timeout = self.timeout.map(Span::duration);
        let job = Job { service: &self.service, command: &self.command, timeout };
        let show = |line: &Line| match invocation.global.output {
            Format::Table => Ok(screen::line(&line.text)?),
            Format::Json => Ok(screen::line(&serde_json::to_string(line)?)?),
        };
        Ok(Report::silent().code(run(&aws, job, show).await?))
    }
}

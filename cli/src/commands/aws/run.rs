//! `natsctl run`

use clap::Args;

use crate::aws::run::{Job, run};
use crate::commands::invocation::Invocation;
use crate::model::log::Line;
use crate::model::units::Span;
use crate::screen::logs::{Style, line};
use crate::screen::{self, Format, Report};

/// Run a one-off task of a service with another command
///
/// Shows the log of the task and exits with its exit code.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Stop the task if it takes longer, for example `10min`
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
    /// The service whose image, size, network, secrets and permissions the task gets
    service: String,
    /// Passed to the entry point of the image instead of its command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let timeout = self.timeout.map(Span::duration);
        let job = Job { service: &self.service, command: &self.command, timeout };
        let style = if invocation.global.output == Format::Table { Style::Raw } else { Style::Json };
        // The task goes on when its log is read no more.
        let show = |found: &Line| screen::unless_closed(line(found, style));
        Ok(Report::silent().code(run(&aws, job, show).await?))
    }
}

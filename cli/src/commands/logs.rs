//! `natsctl logs`

use clap::Args;
use jiff::Timestamp;

use crate::commands::invocation::Invocation;
use crate::model::log::{Filter, Line};
use crate::model::units::Span;
use crate::pipeline::logs::Query;
use crate::screen::{self, Format, Report};

/// Lines that are shown without `--lines` and `--since`.
const LINES: usize = 100;

/// Show the logs of services
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Show new lines as they are written, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many of the newest lines; 100 by default, with `--since` all
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Only lines that are not older than this, for example `10min`
    #[arg(long, value_name = "TIME")]
    since: Option<Span>,
    /// Only lines that contain this text
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Which services (locally also NATS servers); by default all
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Logs {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let show = Show { format: invocation.global.output, with_service: self.services.len() != 1 };
        let query = Query { filter: self.filter()?, lines: self.lines(), follow: self.follow };
        invocation.platform().await?.show_logs(&self.services, query, |line| show.line(line)).await?;
        Ok(Report::silent())
    }

    fn filter(&self) -> anyhow::Result<Filter> {
        let since = self.since.map(|since| Timestamp::now().checked_sub(since.duration())).transpose()?;
        Ok(Filter { since, grep: self.grep.clone() })
    }

    fn lines(&self) -> usize {
        self.lines.unwrap_or(if self.since.is_some() { usize::MAX } else { LINES })
    }
}

/// How lines are printed.
struct Show {
    format: Format,
    with_service: bool,
}

impl Show {
    fn line(&self, line: &Line) -> anyhow::Result<()> {
        let text = match self.with_service {
            true => format!("{}/{}  {}", line.service, line.task, line.text),
            false => format!("{}  {}", line.task, line.text),
        };
        screen::log_line(line, &text, self.format)
    }
}

//! `natsctl logs`

use std::collections::BTreeSet;

use clap::Args;
use jiff::Timestamp;

#[cfg(feature = "aws")]
use crate::aws::{self, Aws};
use crate::commands::invocation::Invocation;
use crate::commands::platform::Platform;
use crate::error::Hinted;
use crate::local::environment::Local;
use crate::local::logs::Follower;
use crate::model::log::{Filter, Line};
use crate::model::units::Span;
use crate::screen::{self, Format, Report};

/// Lines that are shown if nobody says how many or since when.
const LINES: usize = 100;

/// Show what services log.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on as more is written, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines; 100, or with `--since` all
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Only what was written within this time, for example `10min`
    #[arg(long, value_name = "TIME")]
    since: Option<Span>,
    /// Only lines with this text in them
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Which services (on this machine also NATS nodes); by default everything
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Logs {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let show = Show { format: invocation.global.output, with_service: self.services.len() != 1 };
        match invocation.platform().await? {
            Platform::Local(local) => self.local(&local, show).await,
            #[cfg(feature = "aws")]
            Platform::Aws(aws) => self.aws(&aws, show).await,
        }
    }

    async fn local(&self, local: &Local, show: Show) -> anyhow::Result<Report> {
        let description = local.describe().await?.ok_or_else(|| local.not_deployed())?;
        let known: BTreeSet<&str> =
            description.services.keys().chain(description.nodes.keys()).map(String::as_str).collect();
        if let Some(name) = self.services.iter().find(|name| !known.contains(name.as_str())) {
            let hint = format!("there are: {}", known.iter().copied().collect::<Vec<_>>().join(", "));
            return Err(Hinted::new(format!("nothing called `{name}` is deployed"), hint).into());
        }
        let typed: BTreeSet<&str> = self.services.iter().map(String::as_str).collect();
        let names: Vec<&str> = if typed.is_empty() { known } else { typed }.into_iter().collect();
        let mut follower = Follower::new(local.dir(), &names, self.filter()?, self.lines())?;
        if self.follow {
            loop {
                show.line(&follower.next().await?)?;
            }
        }
        follower.into_lines().try_for_each(|line| show.line(&line))?;
        Ok(Report::silent())
    }

    #[cfg(feature = "aws")]
    async fn aws(&self, aws: &Aws, show: Show) -> anyhow::Result<Report> {
        let mut follower = aws::logs::Follower::new(aws, &self.services, self.filter()?, self.lines()).await?;
        if self.follow {
            loop {
                show.line(&follower.next().await?)?;
            }
        }
        follower.into_lines().try_for_each(|line| show.line(&line))?;
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
        let text = match self.format {
            Format::Table if self.with_service => format!("{}/{}  {}", line.service, line.task, line.text),
            Format::Table => format!("{}  {}", line.task, line.text),
            Format::Json => serde_json::to_string(line)?,
        };
        Ok(screen::line(&text)?)
    }
}

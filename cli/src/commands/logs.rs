//! `natsctl logs`

use std::collections::BTreeSet;

use clap::Args;
use jiff::Timestamp;

use crate::commands::invocation::Invocation;
use crate::commands::platform::Platform;
use crate::error::Hinted;
use crate::local::environment::Local;
use crate::local::logs::Follower;
use crate::model::log::{Filter, Line};
use crate::model::units::Span;
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
        match invocation.platform().await? {
            Platform::Local(local) => self.local(&local, &show).await?,
            #[cfg(feature = "aws")]
            Platform::Aws(aws) => {
                let (filter, lines) = (self.filter()?, self.lines());
                let mut follower = crate::aws::logs::Follower::new(&aws, &self.services, filter, lines).await?;
                if self.follow {
                    loop {
                        show.line(&follower.next().await?)?;
                    }
                }
                follower.into_lines().try_for_each(|line| show.line(&line))?;
            }
        }
        Ok(Report::silent())
    }

    async fn local(&self, local: &Local, show: &Show) -> anyhow::Result<()> {
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
        follower.into_lines().try_for_each(|line| show.line(&line))
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
        screen::item(line, &text, self.format)
    }
}

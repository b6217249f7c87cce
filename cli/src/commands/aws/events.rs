//! `natsctl events`

use std::time::Duration;

use clap::Args;

use crate::aws::service_events::{Event, EventStream};
use crate::commands::invocation::Invocation;
use crate::screen::{self, Report};

/// How often `--follow` asks.
const EVERY: Duration = Duration::from_secs(5);

/// Show ECS service events, newest last
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Show new events as they happen, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many of the newest events
    #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
    lines: usize,
    /// Which services; by default all
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Events {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let mut events = EventStream::new(&aws, &self.services)?;
        let show = |event: &Event| {
            let text = format!("{:.0}  {}  {}", event.time, event.service, event.text);
            screen::item(event, &text, invocation.global.output)
        };
        let first = events.fresh().await?;
        let skipped = first.len().saturating_sub(self.lines);
        first.iter().skip(skipped).try_for_each(show)?;
        if self.follow {
            loop {
                tokio::time::sleep(EVERY).await;
                events.fresh().await?.iter().try_for_each(show)?;
            }
        }
        Ok(Report::silent())
    }
}

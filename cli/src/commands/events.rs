//! `natsctl events`

use std::time::Duration;

use clap::Args;

use crate::aws::service_events::{Event, EventStream};
use crate::commands::invocation::Invocation;
use crate::screen::{self, Format, Report};

/// Between two looks of `--follow`.
const EVERY: Duration = Duration::from_secs(5);

/// Show what ECS tells of services, the newest last.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on as more happens, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many of the last events
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
        let format = invocation.global.output;
        let first = events.fresh().await?;
        let skipped = first.len().saturating_sub(self.lines);
        show(first.get(skipped..).unwrap_or_default(), format)?;
        if self.follow {
            loop {
                tokio::time::sleep(EVERY).await;
                show(&events.fresh().await?, format)?;
            }
        }
        Ok(Report::silent())
    }
}

fn show(events: &[Event], format: Format) -> anyhow::Result<()> {
    for event in events {
        let Event { time, service, text, .. } = event;
        screen::line(&match format {
            Format::Table => format!("{time:.0}  {service}  {text}"),
            Format::Json => serde_json::to_string(event)?,
        })?;
    }
    Ok(())
}

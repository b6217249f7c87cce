//! `natsctl status`

use std::time::Duration;

use clap::Args;

use crate::commands::invocation::Invocation;
use crate::commands::platform::Platform;
use crate::screen::{self, Format, Report, UNHEALTHY};

/// How often `--watch` asks a local environment.
const EVERY: Duration = Duration::from_secs(2);
/// How often it asks AWS, which limits the rate of calls.
const EVERY_ON_AWS: Duration = Duration::from_secs(5);

/// Show the status of the environment
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Refresh every two seconds (on AWS five), until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

impl Status {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        if self.watch {
            loop {
                let status = platform.status().await?;
                match invocation.global.output {
                    Format::Table => screen::redraw(&screen::status::environment(&status))?,
                    Format::Json | Format::Prometheus => screen::line(&serde_json::to_string(&status)?)?,
                }
                tokio::time::sleep(every(&platform)).await;
            }
        }
        let status = platform.status().await?;
        Ok(Report::new(&status, screen::status::environment(&status)).code(if status.healthy { 0 } else { UNHEALTHY }))
    }
}

fn every(platform: &Platform) -> Duration {
    if matches!(platform, Platform::Local(_)) { EVERY } else { EVERY_ON_AWS }
}

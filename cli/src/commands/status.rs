//! `natsctl status`

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::watch::{EVERY, Watched, watch};
use crate::commands::invocation::Invocation;
use crate::commands::platform::Platform;
use crate::model::status;
use crate::screen::status::{Space, environment};
use crate::screen::{self, Format, Report, UNHEALTHY};

/// How often `--watch` asks AWS, which limits the rate of calls.
const EVERY_ON_AWS: Duration = Duration::from_secs(5);

/// Show the status of the environment: what is wrong, its services, NATS, the gateway
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Refresh every two seconds (on AWS five), until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Only these services; by default all
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Status {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        if self.watch {
            return self.watch(&platform, invocation.global.output).await;
        }
        let status = platform.status(&self.services).await?;
        let space = screen::width().map_or(Space::Unlimited, Space::Columns);
        let text = environment(&status, Timestamp::now(), space);
        Ok(Report::new(&status, text).code(if status.healthy { 0 } else { UNHEALTHY }))
    }

    async fn watch(&self, platform: &Platform, format: Format) -> anyhow::Result<Report> {
        let every = if platform.is_local() { EVERY } else { EVERY_ON_AWS };
        // What is wrong from the start ends it: a name that no service has.
        let first = platform.status(&self.services).await?;
        watch(&platform.manifests().name, format, every, first, async || platform.status(&self.services).await).await
    }
}

impl Watched for status::Status {
    fn text(&self, at: Timestamp, space: Space) -> String {
        environment(self, at, space)
    }
}

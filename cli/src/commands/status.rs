//! `natsctl status`

use std::time::Duration;

use clap::Args;

use crate::invocation::Invocation;
use crate::options::Format;
use crate::report::{self, Report, UNHEALTHY};

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(2);

/// Show how everything is.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Look again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl Status {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let local = invocation.local()?;
        if self.watch {
            loop {
                let status = local.status().await?;
                match invocation.global.output {
                    Format::Table => report::redraw(&status.text())?,
                    Format::Json => report::line(&serde_json::to_string(&status)?)?,
                }
                tokio::time::sleep(EVERY).await;
            }
        }
        let status = local.status().await?;
        Ok(Report::new(&status, status.text()).code(if status.healthy { 0 } else { UNHEALTHY }))
    }
}

//! `natsctl history`

use clap::Args;

use crate::aws::history::text;
use crate::commands::invocation::Invocation;
use crate::screen::Report;

/// Show who changed the environment, when, how and with what result.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// How many of the last changes
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000))]
    limit: i32,
}

impl History {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let records = invocation.aws().await?.records(self.limit).await?;
        Ok(Report::new(&records, text(&records)))
    }
}

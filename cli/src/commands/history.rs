//! `natsctl history`

use clap::Args;

use super::invocation::Invocation;
use crate::pipeline::history;
use crate::screen::Report;

/// Show the history of changes: who, when, how and with what result
#[derive(Debug, Args)]
pub(crate) struct History {
    /// How many of the last changes
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

impl History {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let records = invocation.platform().await?.records(self.limit.into()).await?;
        Ok(Report::new(&records, history::text(&records)))
    }
}

//! `natsctl dlq list`

use clap::Args;

use super::{Filters, table};
use crate::commands::invocation::Invocation;
use crate::problem::counted;
use crate::screen::Report;

/// List dead letters, the newest last
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    filters: Filters,
    /// How many of the newest
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
}

impl List {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let filter = self.filters.filter(Vec::new())?;
        let letters = invocation.platform().await?.dead_letters().await?.list(&filter).await?;
        let hidden = letters.len().saturating_sub(self.limit);
        let shown = &letters[hidden..];
        let text = match (letters.len(), hidden) {
            (0, _) => "no dead letters".to_owned(),
            (all, 0) => format!("{}\n{}", table(shown), counted(all, "dead letter")),
            (all, _) => format!("{}\n{}, {hidden} older ones are not shown", table(shown), counted(all, "dead letter")),
        };
        Ok(Report::new(&shown, text))
    }
}

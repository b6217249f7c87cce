//! `natsctl diff`

use clap::Args;

use crate::aws::drift::{self, Between, compared_text};
use crate::commands::invocation::Invocation;
use crate::commands::options::Which;
use crate::screen::{CHANGES, Report};

/// Compare the running task definitions of services with their manifests, or one revision with another
#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    which: Which,
    /// Compare this revision instead of the running one
    #[arg(long, value_name = "REVISION")]
    from: Option<u64>,
    /// Compare with this revision instead of the manifest
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
}

impl Diff {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let which = self.which.selection(&aws.manifests)?.services;
        let compared = drift::compare(&aws, &which, Between { from: self.from, to: self.to }).await?;
        let code = if compared.iter().all(|one| one.changes.is_empty()) { 0 } else { CHANGES };
        Ok(Report::new(&compared, compared_text(&compared)).diff().code(code))
    }
}

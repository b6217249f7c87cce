//! `natsctl diff`

use clap::Args;

use crate::commands::invocation::Invocation;
use crate::commands::options::Which;
use crate::model::listed::Between;
use crate::screen::{CHANGES, Report, lists};

/// Compare what services run with their manifests, or one revision with another
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
        let platform = invocation.platform().await?;
        let which = self.which.selection(platform.manifests())?.services;
        let compared = platform.compare(&which, Between { from: self.from, to: self.to }).await?;
        let code = if compared.iter().all(|one| one.changes.is_empty()) { 0 } else { CHANGES };
        Ok(Report::new(&compared, lists::compared(&compared)).diff().code(code))
    }
}

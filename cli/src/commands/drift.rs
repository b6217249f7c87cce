//! `natsctl drift` and `natsctl diff`

use clap::Args;
use serde_json::json;

use super::deploy::chosen;
use crate::aws::drift::{self, Between, compared_text, text};
use crate::commands::invocation::Invocation;
use crate::commands::options::Which;
use crate::screen::{CHANGES, Report};

/// Find out what runs and is not what the manifests say, and who made it so. Images are as they were deployed.
#[derive(Debug, Args)]
pub(crate) struct Drift {}

/// Compare revisions of services: by default what runs with what the manifest says.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    which: Which,
    /// From this revision instead of the one that runs
    #[arg(long, value_name = "REVISION")]
    from: Option<u64>,
    /// To this revision instead of what the manifest says
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
}

impl Drift {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let (drifted, unknown) = drift::find(&invocation.aws().await?).await?;
        let text = text(&drifted, unknown.as_deref());
        let code = if drifted.is_empty() { 0 } else { CHANGES };
        Ok(Report::new(&json!({ "drifted": drifted, "unknown": unknown }), text).diff().code(code))
    }
}

impl Diff {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let which = chosen(&self.which, &aws.manifests)?;
        let compared = drift::compare(&aws, &which, Between { from: self.from, to: self.to }).await?;
        let code = if compared.iter().all(|one| one.changes.is_empty()) { 0 } else { CHANGES };
        Ok(Report::new(&compared, compared_text(&compared)).diff().code(code))
    }
}

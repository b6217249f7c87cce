//! `natsctl drift`

use clap::Args;

use crate::aws::drift::{self, text};
use crate::commands::invocation::Invocation;
use crate::screen::{CHANGES, Report};

/// Show where the environment differs from the manifests, and who changed it
///
/// The deployed images are taken as given: sources that have changed since are no drift.
#[derive(Debug, Args)]
pub(crate) struct Drift {}

impl Drift {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let found = drift::find(&invocation.aws().await?).await?;
        let code = if found.drifted.is_empty() { 0 } else { CHANGES };
        Ok(Report::new(&found, text(&found)).diff().code(code))
    }
}

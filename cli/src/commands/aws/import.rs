//! `natsctl import`

use clap::Args;

use crate::aws::import::{import, text};
use crate::commands::invocation::Invocation;
use crate::screen::Report;

/// Write the manifest of an existing ECS service
///
/// Also reports the settings of the service that a manifest cannot express.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Name of the ECS service, with or without `-nats`
    service: String,
    /// Name of the manifest; by default the service's without `-nats`
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
}

impl Import {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let folder = invocation.manifests_dir()?;
        let aws = invocation.aws().await?;
        let imported = import(&aws, &self.service, self.name.as_deref(), &folder).await?;
        Ok(Report::new(&imported, text(&imported)))
    }
}

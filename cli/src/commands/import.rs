//! `natsctl import`

use clap::Args;

use crate::aws::import::{import, text};
use crate::commands::invocation::Invocation;
use crate::screen::Report;

/// Write the manifest of a service that runs on ECS already, and say what a manifest cannot.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Name of the service on ECS, with or without `-nats`
    service: String,
    /// Name of the manifest; by default the service's without `-nats`
    #[arg(long = "as", value_name = "NAME")]
    called: Option<String>,
}

impl Import {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let folder = invocation.manifests_dir()?;
        let aws = invocation.aws().await?;
        let imported = import(&aws, &self.service, self.called.as_deref(), &folder).await?;
        Ok(Report::new(&imported, text(&imported)))
    }
}

//! `natsctl import`

use clap::Args;

use crate::aws::import::{Order, Then, import, text};
use crate::commands::invocation::Invocation;
use crate::screen::Report;

/// Write the manifest of an existing ECS service
///
/// What it writes is deployed without a change. If a manifest cannot express all of the service, it says what, and writes nothing.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Name of the ECS service, with or without `-nats`
    service: String,
    /// Name of the manifest; by default the service's without `-nats`
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// The container that is the service, if it has several
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Show the manifest, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Import {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let folder = invocation.manifests_dir()?;
        // What is wrong with the manifest of another service does not matter.
        let aws = invocation.aws_without_services().await?;
        let (name, container) = (self.name.as_deref(), self.container.as_deref());
        let then = if self.dry_run { Then::Show } else { Then::Write };
        let order = Order { service: &self.service, name, container, folder: &folder, then };
        let imported = import(&aws, order).await?;
        Ok(Report::new(&imported, text(&imported)))
    }
}

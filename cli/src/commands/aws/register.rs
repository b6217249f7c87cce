//! `natsctl register`

use std::collections::BTreeMap;

use clap::Args;

use crate::aws::images;
use crate::aws::register::register;
use crate::commands::invocation::Invocation;
use crate::commands::options::{Binaries, Which};
use crate::screen::{Report, note, table};

/// Register task definitions without deploying them
///
/// Builds and pushes the images, and registers a new revision where the task definition differs from the newest one.
#[derive(Debug, Args)]
pub(crate) struct Register {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    binaries: Binaries,
}

impl Register {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        note(&aws.place());
        let which = self.which.selection(&aws.manifests)?.services;
        let registered: BTreeMap<String, String> =
            register(&aws, &which, &images::binaries(&self.binaries.source())?).await?;
        let rows = registered.iter().map(|(name, arn)| vec![name.clone(), arn.clone()]);
        Ok(Report::new(&registered, table(&["service", "task definition"], rows)))
    }
}

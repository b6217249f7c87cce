//! `natsctl register`

use std::collections::BTreeMap;

use clap::Args;

use super::deploy::{Binaries, chosen};
use crate::aws::register::register;
use crate::commands::invocation::Invocation;
use crate::commands::options::Which;
use crate::screen::{Report, table};

/// Register the task definitions of services where they differ from the newest ones, with their images; deploy nothing.
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
        let which = chosen(&self.which, &aws.manifests)?;
        let registered: BTreeMap<String, String> = register(&aws, &which, &self.binaries.of_images()?).await?;
        let rows = registered.iter().map(|(name, arn)| vec![name.clone(), arn.clone()]);
        Ok(Report::new(&registered, table(&["service", "task definition"], rows)))
    }
}

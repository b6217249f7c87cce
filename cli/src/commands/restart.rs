//! `natsctl restart`

use clap::Args;

use super::change::{ChangeOptions, done};
use super::invocation::Invocation;
use super::options::Which;
use super::proof::Proof;
use crate::model::change::Change;
use crate::pipeline::options::Options;
use crate::screen::Report;

/// Replace all tasks of services without downtime
#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    proof: Proof,
}

impl Restart {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        let options = Options { proof: self.proof.on(&platform)?, ..Options::default() };
        let change = Change::Restart(self.which.selection(platform.manifests())?);
        let services = change.services();
        let report = |result: &_| done(result, Some(&services), "restarted");
        self.change.carry_out(&platform, &change, options, report).await
    }
}

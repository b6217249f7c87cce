//! `natsctl rollback`

use clap::Args;

use super::change::{ChangeOptions, done};
use super::invocation::Invocation;
use super::proof::Proof;
use crate::model::change::Change;
use crate::pipeline::options::Options;
use crate::screen::Report;

/// Roll a service back to an earlier revision
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// Which service
    service: String,
    /// To this revision instead of the last one before that succeeded
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    proof: Proof,
}

impl Rollback {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        let options = Options { proof: self.proof.on(&platform)?, ..Options::default() };
        let change =
            Change::RollBack { service: platform.manifests().service(&self.service)?.name.to_string(), to: self.to };
        let services = change.services();
        let report = |result: &_| done(result, Some(&services), "rolled back");
        self.change.carry_out(&platform, &change, options, report).await
    }
}

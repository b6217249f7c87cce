//! `natsctl scale`

use clap::Args;

use super::change::{ChangeOptions, done};
use super::invocation::Invocation;
use super::proof::Proof;
use crate::model::change::Change;
use crate::model::desired::Scaling;
use crate::pipeline::options::Options;
use crate::screen::Report;

/// Set the number of tasks of a service
#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// Which service
    service: String,
    /// How many tasks, within the bounds of its manifest; 0 stops it
    tasks: u32,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    proof: Proof,
}

impl Scale {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        let options = Options { proof: self.proof.on(&platform)?, ..Options::default() };
        let service = platform.manifests().service(&self.service)?.name.to_string();
        let autoscaling = &platform.manifests().services[&service].settings.autoscaling;
        let bounds = Scaling { min: autoscaling.min, max: autoscaling.max };
        let change = Change::Scale { service, tasks: self.tasks, bounds };
        let services = change.services();
        let report = |result: &_| done(result, Some(&services), "scaled");
        self.change.carry_out(&platform, &change, options, report).await
    }
}

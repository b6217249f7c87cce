//! `natsctl down`

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::change::ChangeOptions;
use super::invocation::Invocation;
use super::platform::Platform;
use crate::model::change::Change;
use crate::pipeline::options::Options;
use crate::screen::Report;

/// Stop the local environment
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Delete the data too: streams, buckets, identities, logs
    #[arg(long)]
    data: bool,
    #[command(flatten)]
    change: ChangeOptions,
}

impl Down {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let local = invocation.local()?;
        let is_there = local.dir().try_exists();
        if !is_there.with_context(|| format!("failed to read `{}`", local.dir().display()))? {
            return Ok(Report::new(&json!({ "stopped": false, "data_removed": false }), "nothing to stop"));
        }
        let data = self.data;
        let report = |done: &crate::pipeline::Done| {
            let stopped = done.plan.steps.iter().any(|step| step.action() == crate::model::step::Action::Stop);
            let text = match (stopped, data) {
                (true, true) => "stopped; data removed",
                (true, false) => "stopped; `natsctl deploy --all` starts everything again with its data",
                (false, true) => "nothing ran; data removed",
                (false, false) => "nothing ran",
            };
            Report::new(&json!({ "stopped": stopped, "data_removed": data }), text)
        };
        let platform = Platform::Local(Box::new(local));
        self.change.carry_out(&platform, &Change::Down { data }, Options::default(), report).await
    }
}

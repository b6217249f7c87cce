//! `natsctl stop`

use clap::Args;
use serde_json::json;

use super::change::ChangeOptions;
use super::invocation::Invocation;
use crate::model::change::{Change, TaskSelection};
use crate::pipeline::options::Options;
use crate::screen::Report;

/// Stop tasks; those of a service are replaced
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// All tasks of this service: it does not answer until others have started
    #[arg(long, value_name = "SERVICE", conflicts_with = "tasks", required_unless_present = "tasks")]
    all: Option<String>,
    /// Which tasks: their ids, or the beginnings of their ids
    #[arg(value_name = "TASK")]
    tasks: Vec<String>,
    #[command(flatten)]
    change: ChangeOptions,
}

impl Stop {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        let selection = match &self.all {
            Some(service) => TaskSelection::Service(platform.manifests().service(service)?.name.to_string()),
            None => TaskSelection::Ids(self.tasks),
        };
        if let Some(service) = &self.all {
            let question =
                format!("stop all tasks of `{service}` at once? `natsctl restart` replaces them without downtime");
            self.change.confirmation.ask(&question).await?;
        }
        let report = |done: &crate::pipeline::Done| {
            let ids: Vec<&str> = done.plan.steps.iter().map(crate::model::step::Step::name).collect();
            let text = if ids.is_empty() { "nothing runs".to_owned() } else { format!("stopping {}", ids.join(", ")) };
            Report::new(&json!({ "stopping": ids, "record": done.record }), text)
        };
        self.change.carry_out(&platform, &Change::Stop(selection), Options::default(), report).await
    }
}

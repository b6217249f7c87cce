//! `natsctl stop`

use clap::Args;

use crate::aws::tasks::{self, DesiredStatus};
use crate::commands::invocation::Invocation;
use crate::error::Hinted;
use crate::screen::{self, Report};

/// Stop tasks; ECS starts others in the place of those that belong to a service.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// All tasks of this service: it answers nobody until others have started
    #[arg(long, value_name = "SERVICE", conflicts_with = "tasks", required_unless_present = "tasks")]
    all: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Which tasks: their ids, or the beginnings of them
    #[arg(value_name = "TASK")]
    tasks: Vec<String>,
}

impl Stop {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let cluster = aws.ecs_cluster();
        let ids: Vec<String> = match &self.all {
            Some(service) => {
                let tasks =
                    tasks::list(cluster, &aws.manifests, std::slice::from_ref(service), DesiredStatus::Running).await?;
                tasks.into_iter().map(|task| task.id).collect()
            }
            None => tasks::chosen(cluster, &self.tasks).await?.into_iter().map(|task| task.id).collect(),
        };
        if let Some(service) = self.all.as_ref().filter(|_| !self.yes) {
            let question = format!("stop all {} tasks of `{service}` at once?", ids.len());
            if !screen::agreed(&question)? {
                return Err(Hinted::new("nothing was stopped", "`natsctl restart` replaces tasks without a gap").into());
            }
        }
        for id in &ids {
            tasks::stop(cluster, id, "stopped by hand", &aws.caller).await?;
        }
        let text = if ids.is_empty() { "nothing runs".to_owned() } else { format!("stopping {}", ids.join(", ")) };
        Ok(Report::new(&serde_json::json!({ "stopping": ids }), text))
    }
}

//! Rolls back what a run has deployed: everything that it changed of a service is as it was before, or the error says what is not.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ecs::types::{Deployment, Service as SdkService};
use tokio::time::Instant;

use super::{FARGATE, ScalingChange, Started, Work};
use crate::aws::arn::revision;
use crate::aws::ecs_service::{self, Adjustment, Former};
use crate::aws::rollout::{self, StartedDeployment};
use crate::aws::services::{self, primary};
use crate::aws::{autoscaling, revisions};
use crate::error::hint;
use crate::pipeline::Progress;
use crate::pipeline::options::WaitUntil;
use crate::screen::note;
use crate::screen::progress::Activity;

/// How long ECS may go on describing a service as it was before the run changed it.
const STALE_FOR: Duration = Duration::from_secs(30);
/// Between two descriptions meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

impl Work<'_> {
    /// Rolls back everything that this run has deployed. A service that cannot be rolled back keeps no other from it.
    ///
    /// # Errors
    /// What could not be rolled back, and why.
    pub(in crate::aws) async fn roll_back(&mut self, progress: &mut Progress) -> anyhow::Result<()> {
        if self.started.is_empty() {
            return Ok(());
        }
        let services = self.described().await?;
        let names: Vec<&str> = self.started.keys().map(String::as_str).collect();
        note(&format!("rolling back to what ran before: {}", names.join(", ")));
        let (mut follow, mut errors) = (Vec::new(), Vec::new());
        for (name, started) in &self.started {
            let is_failed = progress.failures.contains_key(name);
            match self.undo(name, started, services.get(&started.deployment.ecs_name), is_failed).await {
                Ok(deployment) => {
                    follow.extend(
                        deployment.map(|deployment| (deployment, Activity::start(format!("{name} goes back")))),
                    );
                }
                Err(error) => errors.push(format!("`{name}`: {error:#}{}", hinted(&error))),
            }
        }
        match rollout::follow(self.aws, follow, WaitUntil::Completed, FARGATE).await {
            Ok(outcomes) => errors.extend(outcomes.into_iter().filter_map(|(name, outcome)| {
                let before = self.started[&name].deployment.before.as_deref().unwrap_or_default();
                outcome.explanation(&name, revision(before), None)
            })),
            Err(error) => errors.push(format!("{error:#}{}", hinted(&error))),
        }
        for name in self.started.keys() {
            self.state.services.remove(name);
        }
        let saved = self.save(progress).await;
        errors.extend(saved.err().map(|error| format!("{error:#}{}", hinted(&error))));
        if !errors.is_empty() {
            anyhow::bail!(errors.join("\n"));
        }
        progress.aftermath = Some(self.aftermath(progress));
        Ok(())
    }

    /// What runs after everything was rolled back, as the end of a sentence.
    fn aftermath(&self, progress: &Progress) -> String {
        let mut parts = vec!["what this run had changed went back to what ran before".to_owned()];
        let is_new = |started: &Started| started.deployment.before.is_none();
        let (failed, came_up): (Vec<_>, Vec<_>) = self
            .started
            .iter()
            .filter(|(_, started)| is_new(started))
            .map(|(name, _)| format!("`{name}`"))
            .partition(|name| progress.failures.contains_key(name.trim_matches('`')));
        if !failed.is_empty() {
            parts.push(format!("without tasks, since nothing ran before: {}", failed.join(", ")));
        }
        if !came_up.is_empty() {
            parts.push(format!("new and up, so that they stay: {}", came_up.join(", ")));
        }
        if self.changed_assets {
            parts.push("streams, buckets and consumers stay as they are now".to_owned());
        }
        parts.join("; ")
    }

    /// The services that this run has changed, by their names on ECS, as they are after that.
    async fn described(&self) -> anyhow::Result<BTreeMap<String, SdkService>> {
        let names: Vec<String> = self.started.values().map(|started| started.deployment.ecs_name.clone()).collect();
        let deadline = Instant::now() + STALE_FOR;
        loop {
            let services = services::describe_all_fields(self.aws.ecs_cluster(), &names).await?;
            let is_stale = |(name, started): (&String, &Started)| {
                let id = |service: &SdkService| primary(service).and_then(Deployment::id).map(str::to_owned);
                let before = self.before.get(name).and_then(id);
                let now = services.get(&started.deployment.ecs_name).and_then(id);
                // Its deployment was followed to its end, so another one is described, or was.
                before.is_some() && now == before && before.as_deref() != Some(&*started.deployment.deployment)
            };
            if !self.started.iter().any(is_stale) || Instant::now() >= deadline {
                return Ok(services);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Starts the rollback of one service; gives the deployment to follow, which may be one with which ECS rolls back itself.
    async fn undo(
        &self,
        name: &str,
        started: &Started,
        now: Option<&SdkService>,
        is_failed: bool,
    ) -> anyhow::Result<Option<StartedDeployment>> {
        let StartedDeployment { ecs_name, before, .. } = &started.deployment;
        let cluster = self.aws.ecs_cluster();
        let (Some(before), Some(former)) = (before, self.before.get(name)) else {
            if is_failed {
                // Nothing ran before: a new service that does not come up stays, without tasks that crash, and nothing adds any.
                autoscaling::deregister(self.aws.clients.autoscaling(), cluster.name, name, ecs_name).await?;
                ecs_service::adjust(cluster, name, ecs_name, Adjustment::Tasks(0)).await?;
            }
            return Ok(None);
        };
        if let Some(ScalingChange { from, to }) = started.scaling {
            let client = self.aws.clients.autoscaling();
            autoscaling::restore(client, cluster.name, name, ecs_name, from, to).await?;
        }
        let Some(now) = now else { anyhow::bail!("the service was deleted meanwhile") };
        let runs_it = now.task_definition() == Some(before);
        let wanted = if started.was_inactive && !runs_it {
            revisions::register_again(cluster.ecs, before).await?
        } else {
            before.clone()
        };
        let was_scaled = started.deployment.tasks != former.desired_count();
        let former = Former { name, service: former, task_definition: &wanted, was_scaled };
        let restored = ecs_service::restore(cluster, former, now).await?;
        let now = restored.as_ref().unwrap_or(now);
        if primary(now).is_none() {
            return Ok(None);
        }
        Ok(Some(StartedDeployment::of(name, now, Some(before.clone()), &wanted)))
    }
}

fn hinted(error: &anyhow::Error) -> String {
    hint(error).map(|hint| format!(" ({hint})")).unwrap_or_default()
}

//! What proves that a deployment has done what was asked for; and streams and buckets, which are on the bus too.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use aws_sdk_ecs::types::Service;

use super::Aws;
use super::arn::revision;
use super::ledger::State;
use super::observe::primary;
use super::platform::image_binaries;
use super::tasks::{self, DesiredStatus};
use crate::error::Hinted;
use crate::image::Binaries;
use crate::model::desired::Role;
use crate::model::observed::{Assets, Seen};
use crate::nats::bus::ExpectedTasks;
use crate::pipeline::options::{BinarySource, ProofMode};

/// What a proof is made of.
#[derive(Clone, Copy, Default)]
pub(crate) struct Evidence<'a> {
    pub(crate) mode: ProofMode,
    /// What ECS has said a moment ago, by the manifests' names, if nothing has changed since.
    pub(crate) services: Option<&'a BTreeMap<String, Service>>,
    /// What natsctl's own image is made of, if it takes one.
    pub(crate) binaries: Option<&'a Binaries>,
}

impl Aws {
    /// Whether these services run what they were brought to, each with as many tasks as it should have.
    ///
    /// # Errors
    /// Which of them do not; or that nobody could be asked.
    pub(crate) async fn prove(
        &self,
        services: &BTreeSet<String>,
        evidence: Evidence<'_>,
    ) -> anyhow::Result<Vec<String>> {
        let described = match evidence.services {
            Some(known) => known.clone(),
            None => {
                let names: Vec<String> = services.iter().map(|name| self.manifests.services[name].ecs_name()).collect();
                self.by_manifest(self.describe_services(&names).await?)
            }
        };
        let mut proofs = BTreeMap::new();
        let mut expected = BTreeMap::new();
        for name in services {
            let running = running(name, described.get(name))?;
            let asks = evidence.mode == ProofMode::Bus && self.manifests.services[name].role == Role::Worker;
            if asks {
                expected.insert(name.clone(), running);
            } else {
                let (tasks, revision) = (running.tasks, running.revision);
                proofs.insert(name.clone(), format!("{name} runs: {tasks} tasks of revision {revision} (as ECS says)"));
            }
        }
        if expected.is_empty() {
            return Ok(proofs.into_values().collect());
        }
        let unproved = "the deployment is done, and the bus could not be asked whether its tasks answer";
        let doing_without = "`--proof ecs` does without the bus";
        let bus = self.bus().await.map_err(|error| advised(error, unproved, doing_without))?;
        let found = bus.find(self, expected.clone(), evidence.binaries).await;
        let found = found.map_err(|error| advised(error, unproved, doing_without))?;
        for (name, mut expected) in expected {
            let tasks = found.get(&name).cloned().unwrap_or_default();
            if !expected.is_met(&tasks) {
                expected.known = self.running_tasks(&name, expected.revision).await?;
            }
            let proof = expected.proof(&name, &tasks)?;
            proofs.insert(name, proof);
        }
        Ok(proofs.into_values().chain([bus.route()]).collect())
    }

    /// Ids of the tasks of a revision that ECS says run.
    async fn running_tasks(&self, name: &str, wanted: u64) -> anyhow::Result<BTreeSet<String>> {
        let on_ecs = self.manifests.services[name].ecs_name();
        let tasks = tasks::of_service(self.ecs_cluster(), Some(&on_ecs), DesiredStatus::Running).await?;
        let of_revision =
            tasks.into_iter().filter(|task| task.status == "RUNNING" && revision(&task.task_definition) == wanted);
        Ok(of_revision.map(|task| task.id).collect())
    }

    /// What JetStream holds. Where only a task could ask the bus, it is as natsctl left it, since only natsctl makes streams.
    pub(crate) async fn observe_assets(&self, state: &State) -> Seen<Assets> {
        let read = async { self.bus().await?.observe().await };
        match read.await {
            Ok(Some(assets)) => Seen::Present(assets),
            Ok(None) => match &state.assets {
                None => Seen::Absent,
                Some(text) => match serde_json::from_str(text) {
                    Ok(assets) => Seen::Present(assets),
                    Err(error) => Seen::Unknown(format!("what is remembered of them is damaged: {error}")),
                },
            },
            Err(error) => Seen::Unknown(format!("{error:#}; `--proof ecs` leaves them alone")),
        }
    }

    /// Creates streams and buckets, or changes them.
    pub(crate) async fn put_assets(&self, assets: Assets, binaries: &BinarySource) -> anyhow::Result<()> {
        self.bus().await?.ensure(self, assets, image_binaries(binaries).ok().as_ref()).await
    }
}

/// What ECS says that runs, which is what should answer.
fn running(name: &str, service: Option<&Service>) -> anyhow::Result<ExpectedTasks> {
    let Some((service, primary)) = service.and_then(|service| Some((service, primary(service)?))) else {
        return Err(Hinted::new(format!("`{name}` is not there"), format!("`natsctl deploy {name}`")).into());
    };
    let (running, desired) = (primary.running_count(), service.desired_count());
    let revision = revision(service.task_definition().unwrap_or_default());
    if running < desired {
        let message = format!("`{name}` is deployed, but {running} of {desired} tasks of revision {revision} run");
        return Err(Hinted::new(message, format!("see `natsctl tasks {name}` and `natsctl logs {name}`")).into());
    }
    let tasks = u32::try_from(desired).context("ECS gives a negative number of tasks")?;
    Ok(ExpectedTasks { revision, tasks, known: BTreeSet::new() })
}

fn advised(error: anyhow::Error, message: &str, hint: &str) -> anyhow::Error {
    Hinted::new(message, hint).because(error).into()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::Deployment;

    use super::*;

    fn service(running: i32, desired: i32) -> Service {
        let definition = "arn:aws:ecs:us-east-1:123456789012:task-definition/quest-nats:7";
        let primary =
            Deployment::builder().status("PRIMARY").running_count(running).task_definition(definition).build();
        Service::builder().desired_count(desired).task_definition(definition).deployments(primary).build()
    }

    #[test]
    fn what_ecs_says_that_runs_should_answer() {
        let expected = ExpectedTasks { revision: 7, tasks: 2, known: BTreeSet::new() };
        assert_eq!(running("quest", Some(&service(2, 2))).unwrap(), expected);
        let error = |service: Option<&Service>| running("quest", service).unwrap_err().to_string();
        assert_eq!(error(None), "`quest` is not there");
        assert_eq!(error(Some(&service(1, 2))), "`quest` is deployed, but 1 of 2 tasks of revision 7 run");
    }
}

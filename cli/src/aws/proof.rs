//! The proof that a deployment took effect: the tasks that ECS runs, and those that answer on NATS. Streams and buckets are reached
//! by the same connection.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use aws_sdk_ecs::types::Service;

use super::Aws;
use super::arn::revision;
use super::clients::Cluster;
use super::ledger::State;
use super::services::{self, primary};
use super::tasks::{self, DesiredStatus};
use crate::error::Hinted;
use crate::image::Binaries;
use crate::model::desired::Role;
use crate::model::observed::{Assets, Seen};
use crate::nats::bus::{ExpectedTasks, stopped};
use crate::pipeline::options::ProofMode;
use crate::problem::counted;

/// How services are proved to run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Evidence<'a> {
    pub(crate) mode: ProofMode,
    /// The services as described before, by the manifests' names, if nothing has changed since.
    pub(crate) services: Option<&'a BTreeMap<String, Service>>,
    /// What natsctl's own image is made of, if it takes one.
    pub(crate) binaries: Option<&'a Binaries>,
}

/// Proves that these services run what was deployed, each with as many tasks as it should have.
///
/// # Errors
/// Services that do not; NATS could not be reached.
pub(crate) async fn prove(
    aws: &Aws,
    services: &BTreeSet<String>,
    evidence: Evidence<'_>,
) -> anyhow::Result<Vec<String>> {
    let described = match evidence.services {
        Some(known) => known.clone(),
        None => services::of_manifests(aws, services).await?,
    };
    let mut proofs = BTreeMap::new();
    let mut expected = BTreeMap::new();
    for name in services {
        let running = running(name, described.get(name))?;
        if evidence.mode == ProofMode::Bus && aws.manifests.services[name].role == Role::Worker {
            expected.insert(name.clone(), running);
        } else {
            let (tasks, revision) = (running.tasks, running.revision);
            let proof = match tasks {
                0 => stopped(name),
                _ => format!("{name} runs: {} of revision {revision} (as ECS says)", counted(tasks, "task")),
            };
            proofs.insert(name.clone(), proof);
        }
    }
    if !expected.is_empty() {
        proofs.extend(responses(aws, expected, evidence.binaries).await?);
        let route = aws.bus().await?.route();
        return Ok(proofs.into_values().chain([route]).collect());
    }
    Ok(proofs.into_values().collect())
}

/// Proves that the tasks of these services answer on NATS.
async fn responses(
    aws: &Aws,
    expected: BTreeMap<String, ExpectedTasks>,
    binaries: Option<&Binaries>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let found = async { aws.bus().await?.find(aws, expected.clone(), binaries).await };
    let found = found.await.map_err(|error| {
        let message = "the deployment is done, and the bus could not be asked whether its tasks answer";
        Hinted::new(message, "`--proof ecs` does without the bus").because(error)
    })?;
    let mut proofs = BTreeMap::new();
    for (name, mut expected) in expected {
        let tasks = found.get(&name).cloned().unwrap_or_default();
        if !expected.is_met(&tasks) {
            let ecs_name = aws.manifests.services[&name].ecs_name();
            expected.known = running_tasks(aws.ecs_cluster(), &ecs_name, expected.revision).await?;
        }
        let proof = expected.proof(&name, &tasks)?;
        proofs.insert(name, proof);
    }
    Ok(proofs)
}

/// Ids of the running tasks of a revision.
async fn running_tasks(cluster: Cluster<'_>, ecs_name: &str, wanted: u64) -> anyhow::Result<BTreeSet<String>> {
    let tasks = tasks::of_service(cluster, Some(ecs_name), DesiredStatus::Running).await?;
    let of_revision =
        tasks.into_iter().filter(|task| task.status == "RUNNING" && revision(&task.task_definition) == wanted);
    Ok(of_revision.map(|task| task.id).collect())
}

/// The streams and buckets that exist. Where only a task could list them, they are as natsctl left them: only natsctl makes any.
pub(crate) async fn observe_assets(aws: &Aws, state: &State) -> Seen<Assets> {
    let read = async { aws.bus().await?.observe().await };
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

/// The tasks that run according to ECS, and so should answer.
fn running(name: &str, service: Option<&Service>) -> anyhow::Result<ExpectedTasks> {
    let Some((service, primary)) = service.and_then(|service| Some((service, primary(service)?))) else {
        return Err(Hinted::new(format!("`{name}` is not there"), format!("`natsctl deploy {name}`")).into());
    };
    let (running, desired) = (primary.running_count(), service.desired_count());
    let revision = revision(service.task_definition().unwrap_or_default());
    if running < desired {
        let message =
            format!("`{name}` is deployed, but {running} of {} of revision {revision} run", counted(desired, "task"));
        return Err(Hinted::new(message, format!("see `natsctl tasks {name}` and `natsctl logs {name}`")).into());
    }
    let tasks = u32::try_from(desired).context("ECS gives a negative number of tasks")?;
    Ok(ExpectedTasks { revision, tasks, known: BTreeSet::new() })
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

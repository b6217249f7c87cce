//! The tasks of the ECS cluster: those that run, and those that have stopped.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ecs::types::{Attachment, Container as SdkContainer, ManagedAgentName, Task as SdkTask, TaskStopCode};
use aws_smithy_types::DateTime;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use super::arn::{self, revision};
use super::clients::Cluster;
use super::error::failed;
use super::{AT_ONCE, Aws, services};
use crate::error::Hinted;
use crate::manifest::{Manifests, ServiceManifest};
use crate::model::listed::{Listed, ListedTask};

/// What DescribeTasks takes at once.
const TASKS_PER_CALL: usize = 100;

/// The status that ECS brings tasks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DesiredStatus {
    /// Of tasks that run or are about to.
    Running,
    /// Of tasks that have stopped; ECS lists them for about an hour.
    Stopped,
}

/// A task, as ECS describes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Task {
    pub(crate) id: String,
    /// Name on ECS of its service; `None` for a task that runs on its own.
    pub(crate) service: Option<String>,
    /// ARN of its task definition.
    pub(crate) task_definition: String,
    /// Id of the deployment that started it: `ecs-svc/…`.
    pub(crate) deployment: Option<String>,
    /// `PENDING`, `RUNNING`, `STOPPED`, …
    pub(crate) status: String,
    /// `HEALTHY`, `UNHEALTHY` or `UNKNOWN`.
    pub(crate) health: String,
    pub(crate) zone: Option<String>,
    /// Private address.
    pub(crate) address: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) stopped: Option<Timestamp>,
    /// Why ECS stops it, or has stopped it.
    pub(crate) stopped_reason: Option<String>,
    /// Whether ECS stops it, or has stopped it.
    pub(crate) is_stopping: bool,
    /// Whether it failed to start, or its container exited: whether nothing outside of it made it stop.
    pub(crate) crashed: bool,
    /// Whether ECS Exec is enabled for it.
    pub(crate) execute_command: bool,
    pub(crate) containers: Vec<Container>,
    /// The container that is the service, if its manifest is known.
    pub(crate) own_container: Option<String>,
}

/// A container of a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Container {
    pub(crate) name: String,
    /// Id that its runtime has given it.
    pub(crate) runtime_id: String,
    /// As the task definition names it.
    pub(crate) image: String,
    pub(crate) image_digest: Option<String>,
    pub(crate) exit_code: Option<i32>,
    /// Why it exited or did not start.
    pub(crate) reason: Option<String>,
    /// Status of the agent of ECS Exec in it.
    pub(crate) exec_agent: Option<String>,
}

/// The tasks of these services, or of the whole cluster if none is named.
///
/// # Errors
/// A name that no manifest has; a service that is not of the environment; what ECS refuses.
pub(crate) async fn list(aws: &Aws, services: &[String], status: Listed) -> anyhow::Result<Vec<ListedTask>> {
    let names = names_on_ecs(&aws.manifests, services)?;
    if !services.is_empty() {
        services::of_manifests(aws, services).await?;
    }
    // One service is one call; for several the whole cluster is fewer calls than each of them.
    let only = names.keys().next().filter(|_| services.len() == 1);
    let status = if status == Listed::Stopped { DesiredStatus::Stopped } else { DesiredStatus::Running };
    let found = of_service(aws.ecs_cluster(), only.map(String::as_str), status).await?;
    let mut tasks: Vec<ListedTask> = found.into_iter().map(|task| listed(&task.of(&aws.manifests), &names)).collect();
    tasks.retain(|task| services.is_empty() || task.service.as_ref().is_some_and(|name| services.contains(name)));
    tasks.sort_by(|a, b| (&a.service, a.revision, a.started).cmp(&(&b.service, b.revision, b.started)));
    Ok(tasks)
}

/// The manifests' names of services by their names on ECS; of all services if none is typed.
///
/// # Errors
/// A name that no manifest has.
pub(super) fn names_on_ecs(manifests: &Manifests, typed: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let all = manifests.services.keys().cloned();
    let names: Vec<String> = if typed.is_empty() { all.collect() } else { typed.to_vec() };
    names.into_iter().map(|name| Ok((manifests.service(&name)?.ecs_name(), name))).collect()
}

/// The tasks of the service of this name on ECS, or of the whole cluster.
pub(super) async fn of_service(
    cluster: Cluster<'_>,
    service: Option<&str>,
    status: DesiredStatus,
) -> anyhow::Result<Vec<Task>> {
    let call = cluster.ecs.list_tasks().cluster(cluster.name).desired_status(status.into()).max_results(100);
    let mut pages = call.set_service_name(service.map(str::to_owned)).into_paginator().items().send();
    let mut arns = Vec::new();
    while let Some(arn) = pages.next().await {
        arns.push(arn.map_err(|error| failed(&format!("list the tasks of cluster `{}`", cluster.name), error))?);
    }
    describe(cluster, &arns).await
}

/// Ids of the tasks of the cluster that run or are about to.
pub(crate) async fn running(cluster: Cluster<'_>) -> anyhow::Result<BTreeSet<String>> {
    Ok(of_service(cluster, None, DesiredStatus::Running).await?.into_iter().map(|task| task.id).collect())
}

/// These tasks, by id or ARN; those that ECS does not list any more are left out.
pub(super) async fn describe(cluster: Cluster<'_>, tasks: &[String]) -> anyhow::Result<Vec<Task>> {
    let calls = tasks.chunks(TASKS_PER_CALL).map(|tasks| async move {
        let call = cluster.ecs.describe_tasks().cluster(cluster.name).set_tasks(Some(tasks.to_vec()));
        let answer = call.send().await;
        let what = format!("describe the tasks of cluster `{}`", cluster.name);
        anyhow::Ok(answer.map_err(|error| failed(&what, error))?.tasks.unwrap_or_default())
    });
    let pages: Vec<Vec<SdkTask>> = futures::stream::iter(calls).buffered(AT_ONCE).try_collect().await?;
    Ok(pages.into_iter().flatten().map(Task::from).collect())
}

/// The running tasks with these ids, or whose ids begin so.
///
/// # Errors
/// None or several begin so.
pub(crate) async fn chosen(cluster: Cluster<'_>, typed: &[String]) -> anyhow::Result<Vec<Task>> {
    let running = of_service(cluster, None, DesiredStatus::Running).await?;
    typed.iter().map(|typed| choose(typed, &running).cloned()).collect()
}

/// Stops a task; ECS starts another one if it belongs to a service. `caller` is the ARN that the reason names.
pub(crate) async fn stop(cluster: Cluster<'_>, task: &str, why: &str, caller: &str) -> anyhow::Result<()> {
    let call = cluster.ecs.stop_task().cluster(cluster.name).task(task);
    let stopped = call.reason(format!("{why} (natsctl, {caller})")).send().await;
    stopped.map_err(|error| failed(&format!("stop the task `{task}`"), error)).map(drop)
}

fn choose<'a>(typed: &str, running: &'a [Task]) -> anyhow::Result<&'a Task> {
    let typed = arn::short(typed);
    let mut meant = running.iter().filter(|task| task.id.starts_with(typed));
    match (meant.next(), meant.count()) {
        (Some(task), 0) => Ok(task),
        (Some(_), more) => {
            let message = format!("{} tasks begin with `{typed}`", more + 1);
            Err(Hinted::new(message, "write more of its id").into())
        }
        (None, _) => {
            let hint = "`natsctl tasks` lists those that run";
            Err(Hinted::new(format!("no task `{typed}` runs"), hint).into())
        }
    }
}

impl Task {
    /// The same with the name of the container that is the service, by its manifest.
    #[must_use]
    pub(super) fn of(self, manifests: &Manifests) -> Self {
        let own = |manifest: &&ServiceManifest| Some(manifest.ecs_name()) == self.service;
        let own_container = manifests.services.values().find(own).map(|manifest| manifest.container_name().to_owned());
        Self { own_container, ..self }
    }

    /// The container that is the service: by its manifest, or else one that AWS has not put beside it; of several the one that has
    /// failed.
    pub(super) fn container(&self) -> Option<&Container> {
        let own = self.containers.iter().find(|container| Some(&container.name) == self.own_container.as_ref());
        if own.is_some() {
            return own;
        }
        let is_ours = |container: &&Container| !container.name.starts_with("aws-guardduty-agent");
        let failed =
            |container: &&Container| container.exit_code.is_some_and(|code| code != 0) || container.reason.is_some();
        let ours = || self.containers.iter().filter(is_ours);
        ours().find(failed).or(ours().next())
    }

    /// Why the task stopped: its reason, and that of its container if there is one.
    pub(super) fn reason(&self) -> Option<String> {
        let of_container = self.container().and_then(|container| container.reason.as_deref());
        let reasons: Vec<&str> = self.stopped_reason.as_deref().into_iter().chain(of_container).collect();
        (!reasons.is_empty()).then(|| reasons.join(": "))
    }

    /// Whether the task has stopped for good.
    pub(super) fn has_stopped(&self) -> bool {
        self.status == "STOPPED"
    }
}

/// `names` are the manifests' names of services by their names on ECS.
fn listed(task: &Task, names: &BTreeMap<String, String>) -> ListedTask {
    let named = |on_ecs: &String| names.get(on_ecs).unwrap_or(on_ecs).clone();
    ListedTask {
        id: task.id.clone(),
        service: task.service.as_ref().map(named),
        revision: revision(&task.task_definition),
        status: task.status.clone(),
        health: task.health.clone(),
        zone: task.zone.clone(),
        address: task.address.clone(),
        started: task.started,
        stopped: task.stopped,
        reason: task.reason().filter(|_| task.is_stopping),
        exit_code: task.container().and_then(|container| container.exit_code),
        restarts: None,
        memory_mib: None,
    }
}

impl From<SdkTask> for Task {
    fn from(task: SdkTask) -> Self {
        Self {
            id: arn::short(task.task_arn().unwrap_or_default()).to_owned(),
            service: task.group().and_then(|group| group.strip_prefix("service:")).map(str::to_owned),
            task_definition: task.task_definition_arn().unwrap_or_default().to_owned(),
            deployment: task.started_by().filter(|by| by.starts_with("ecs-svc/")).map(str::to_owned),
            status: task.last_status().unwrap_or("UNKNOWN").to_owned(),
            health: task.health_status().map_or("UNKNOWN", |health| health.as_str()).to_owned(),
            zone: task.availability_zone().map(str::to_owned),
            address: address(&task),
            started: task.started_at().and_then(time),
            stopped: task.stopped_at().and_then(time),
            stopped_reason: task.stopped_reason().map(str::to_owned),
            is_stopping: task.desired_status() == Some("STOPPED"),
            crashed: matches!(
                task.stop_code(),
                Some(TaskStopCode::EssentialContainerExited | TaskStopCode::TaskFailedToStart)
            ),
            execute_command: task.enable_execute_command(),
            containers: task.containers.unwrap_or_default().into_iter().map(Container::from).collect(),
            own_container: None,
        }
    }
}

impl From<SdkContainer> for Container {
    fn from(container: SdkContainer) -> Self {
        let agents = container.managed_agents();
        let exec_agent = agents.iter().find(|agent| agent.name() == Some(&ManagedAgentName::ExecuteCommandAgent));
        Self {
            exec_agent: exec_agent.and_then(|agent| agent.last_status()).map(str::to_owned),
            name: container.name.unwrap_or_default(),
            runtime_id: container.runtime_id.unwrap_or_default(),
            image: container.image.unwrap_or_default(),
            image_digest: container.image_digest,
            exit_code: container.exit_code,
            reason: container.reason,
        }
    }
}

impl From<DesiredStatus> for aws_sdk_ecs::types::DesiredStatus {
    fn from(status: DesiredStatus) -> Self {
        match status {
            DesiredStatus::Running => Self::Running,
            DesiredStatus::Stopped => Self::Stopped,
        }
    }
}

/// The private address of a task: of its container's network interface, or of the one that is attached to the task.
fn address(task: &SdkTask) -> Option<String> {
    let mut interfaces = task.containers().iter().flat_map(SdkContainer::network_interfaces);
    let of_container = interfaces.find_map(|interface| interface.private_ipv4_address());
    let mut details = task.attachments().iter().flat_map(Attachment::details);
    let of_attachment =
        details.find(|detail| detail.name() == Some("privateIPv4Address")).and_then(|detail| detail.value());
    of_container.or(of_attachment).map(str::to_owned)
}

/// A time of the SDK as natsctl has times.
pub(super) fn time(time: &DateTime) -> Option<Timestamp> {
    Timestamp::from_millisecond(time.to_millis().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::KeyValuePair;

    use super::*;

    const ARN: &str = "arn:aws:ecs:us-east-1:123456789012:task/gaming-system-cluster";

    #[test]
    fn the_exit_code_is_that_of_the_container_that_the_manifest_names() {
        let container = |name: &str, code: i32| SdkContainer::builder().name(name).exit_code(code).build();
        let of = |containers: [SdkContainer; 2], own: &str| {
            let task: Task = SdkTask::builder().set_containers(Some(containers.to_vec())).build().into();
            Task { own_container: Some(own.to_owned()), ..task }.container().and_then(|container| container.exit_code)
        };
        assert_eq!(of([container("agent", 0), container("app", 42)], "app"), Some(42));
        assert_eq!(of([container("agent", 1), container("app", 0)], "app"), Some(0));
        assert_eq!(of([container("agent", 0), container("app", 42)], "unknown"), Some(42));
    }

    fn task(id: &str) -> Task {
        let detail = KeyValuePair::builder().name("privateIPv4Address").value("10.0.1.7").build();
        let exited = SdkContainer::builder().name("quest-system").exit_code(137).reason("OutOfMemoryError").build();
        let task = SdkTask::builder()
            .task_arn(format!("{ARN}/{id}"))
            .group("service:quest-system-nats")
            .task_definition_arn("arn:aws:ecs:us-east-1:123456789012:task-definition/quest-system-nats:7")
            .last_status("STOPPED")
            .desired_status("STOPPED")
            .stopped_reason("Essential container in task exited")
            .attachments(Attachment::builder().details(detail).build())
            .containers(SdkContainer::builder().name("aws-guardduty-agent-1").exit_code(0).build())
            .containers(exited);
        task.build().into()
    }

    #[test]
    fn a_stopped_task_says_why() {
        let names = BTreeMap::from([("quest-system-nats".to_owned(), "quest-system".to_owned())]);
        let listed = listed(&task("0123456789abcdef"), &names);
        assert_eq!((listed.service.as_deref(), listed.revision), (Some("quest-system"), 7));
        assert_eq!(listed.address.as_deref(), Some("10.0.1.7"));
        let shown = crate::screen::lists::tasks(&[listed]);
        let expected = "exit code 137: Essential container in task exited: OutOfMemoryError";
        assert!(shown.contains(expected) && shown.contains("0123456789ab "), "{shown}");
    }

    #[test]
    fn the_beginning_of_an_id_is_enough_if_it_is_of_one_task() {
        let running = [task("aabb"), task("aacc"), task("ddee")];
        assert_eq!(choose("d", &running).unwrap().id, "ddee");
        assert_eq!(choose(&format!("{ARN}/aacc"), &running).unwrap().id, "aacc");
        assert_eq!(choose("aa", &running).unwrap_err().to_string(), "2 tasks begin with `aa`");
        assert_eq!(choose("f", &running).unwrap_err().to_string(), "no task `f` runs");
    }
}

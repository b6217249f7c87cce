//! The tasks that run in the cluster, and those that have stopped.

use std::collections::BTreeMap;

use aws_sdk_ecs::types::{Attachment, Container, DesiredStatus, Task as EcsTask};
use aws_smithy_types::DateTime;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::Serialize;

use super::error::failed;
use super::observe::revision;
use super::{AT_ONCE, Aws};
use crate::error::Hinted;
use crate::model::task::short;
use crate::screen::table;

/// What DescribeTasks takes at once.
const TASKS_PER_CALL: usize = 100;

/// Which tasks are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that run or should run.
    Running,
    /// Those that have stopped, as long as ECS remembers them.
    Stopped,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Task {
    pub(crate) id: String,
    /// Name of its service; `None` for one that runs on its own.
    pub(crate) service: Option<String>,
    /// Of the task definition.
    pub(crate) revision: u64,
    /// As ECS says: `RUNNING`, `PENDING`, …
    pub(crate) status: String,
    /// `HEALTHY`, `UNHEALTHY` or `UNKNOWN`.
    pub(crate) health: String,
    pub(crate) zone: Option<String>,
    /// Private address.
    pub(crate) address: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) stopped: Option<Timestamp>,
    /// Why it stopped.
    pub(crate) reason: Option<String>,
    pub(crate) exit_code: Option<i32>,
}

impl Aws {
    /// Names of services by their names on ECS; of all if none is typed.
    ///
    /// # Errors
    /// A name that no manifest has.
    pub(crate) fn names_on_ecs(&self, typed: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
        let all = self.manifests.services.keys().cloned();
        let names: Vec<String> = if typed.is_empty() { all.collect() } else { typed.to_vec() };
        let on_ecs = |name: String| {
            let name = self.manifests.named(&name)?;
            Ok((self.manifests.services[&name].ecs_name(), name))
        };
        names.into_iter().map(on_ecs).collect()
    }

    /// The tasks of these services, or of the whole cluster.
    pub(crate) async fn tasks(&self, services: &[String], which: Which) -> anyhow::Result<Vec<Task>> {
        let status = match which {
            Which::Running => DesiredStatus::Running,
            Which::Stopped => DesiredStatus::Stopped,
        };
        let names = self.names_on_ecs(services)?;
        // One service is one call; for several the whole cluster is fewer calls than each of them.
        let only = names.keys().next().filter(|_| services.len() == 1);
        let found = self.ecs_tasks(only.map(String::as_str), status).await?;
        let mut tasks: Vec<Task> = found.iter().map(|task| Task::read(task, &names)).collect();
        tasks.retain(|task| services.is_empty() || task.service.as_ref().is_some_and(|name| services.contains(name)));
        tasks.sort_by(|a, b| (&a.service, a.revision, a.started).cmp(&(&b.service, b.revision, b.started)));
        Ok(tasks)
    }

    /// As ECS describes them; `service` is a name on ECS.
    pub(super) async fn ecs_tasks(&self, service: Option<&str>, status: DesiredStatus) -> anyhow::Result<Vec<EcsTask>> {
        let call = self.clients.ecs().list_tasks().cluster(self.cluster()).desired_status(status).max_results(100);
        let mut pages = call.set_service_name(service.map(str::to_owned)).into_paginator().items().send();
        let mut arns = Vec::new();
        while let Some(arn) = pages.next().await {
            arns.push(arn.map_err(|error| failed(&format!("list the tasks of cluster `{}`", self.cluster()), error))?);
        }
        self.describe_tasks(&arns).await
    }

    /// As ECS describes them, by id or ARN; those that it has forgotten are left out.
    pub(super) async fn describe_tasks(&self, tasks: &[String]) -> anyhow::Result<Vec<EcsTask>> {
        let calls = tasks.chunks(TASKS_PER_CALL).map(|tasks| async {
            let call = self.clients.ecs().describe_tasks().cluster(self.cluster()).set_tasks(Some(tasks.to_vec()));
            let answer = call.send().await;
            let what = format!("describe the tasks of cluster `{}`", self.cluster());
            anyhow::Ok(answer.map_err(|error| failed(&what, error))?.tasks.unwrap_or_default())
        });
        let pages: Vec<Vec<EcsTask>> = futures::stream::iter(calls).buffered(AT_ONCE).try_collect().await?;
        Ok(pages.into_iter().flatten().collect())
    }

    /// The running tasks that are meant, by their ids or the beginnings of them.
    ///
    /// # Errors
    /// None or several begin so.
    pub(super) async fn chosen_tasks(&self, typed: &[String]) -> anyhow::Result<Vec<EcsTask>> {
        let running = self.ecs_tasks(None, DesiredStatus::Running).await?;
        typed.iter().map(|typed| chosen(typed, &running).cloned()).collect()
    }

    /// Their ids.
    ///
    /// # Errors
    /// None or several begin so.
    pub(crate) async fn task_ids(&self, typed: &[String]) -> anyhow::Result<Vec<String>> {
        Ok(self.chosen_tasks(typed).await?.iter().map(|task| id(task).to_owned()).collect())
    }
}

fn chosen<'a>(typed: &str, running: &'a [EcsTask]) -> anyhow::Result<&'a EcsTask> {
    let typed = typed.rsplit('/').next().unwrap_or(typed);
    let mut meant = running.iter().filter(|task| id(task).starts_with(typed));
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

/// The last part of a task's ARN.
pub(super) fn id(task: &EcsTask) -> &str {
    task.task_arn().and_then(|arn| arn.rsplit('/').next()).unwrap_or_default()
}

/// The container that is the service, rather than one that AWS has put beside it; of several the one that has failed.
pub(super) fn container(task: &EcsTask) -> Option<&Container> {
    let is_ours =
        |container: &&Container| !container.name().is_some_and(|name| name.starts_with("aws-guardduty-agent"));
    let failed =
        |container: &&Container| container.exit_code().is_some_and(|code| code != 0) || container.reason().is_some();
    let ours = || task.containers().iter().filter(is_ours);
    ours().find(failed).or(ours().next())
}

/// Why a task stopped, in the words of ECS: of the task, and of its container if that says more.
pub(super) fn stopped_reason(task: &EcsTask) -> Option<String> {
    let of_container = container(task).and_then(Container::reason);
    let reasons: Vec<&str> = task.stopped_reason().into_iter().chain(of_container).collect();
    (!reasons.is_empty()).then(|| reasons.join(": "))
}

impl Task {
    /// `names` are those of services by their names on ECS.
    fn read(task: &EcsTask, names: &BTreeMap<String, String>) -> Self {
        let on_ecs = task.group().and_then(|group| group.strip_prefix("service:"));
        let in_network = |container: &Container| {
            container.network_interfaces().first().and_then(|one| one.private_ipv4_address()).map(str::to_owned)
        };
        let attached = || {
            let mut details = task.attachments().iter().flat_map(Attachment::details);
            let detail = details.find(|detail| detail.name() == Some("privateIPv4Address"));
            detail.and_then(|detail| detail.value()).map(str::to_owned)
        };
        Self {
            id: id(task).to_owned(),
            service: on_ecs.map(|name| names.get(name).cloned().unwrap_or_else(|| name.to_owned())),
            revision: revision(task.task_definition_arn().unwrap_or_default()),
            status: task.last_status().unwrap_or("UNKNOWN").to_owned(),
            health: task.health_status().map_or("UNKNOWN", |health| health.as_str()).to_owned(),
            zone: task.availability_zone().map(str::to_owned),
            address: task.containers().iter().find_map(in_network).or_else(attached),
            started: task.started_at().and_then(time),
            stopped: task.stopped_at().and_then(time),
            reason: stopped_reason(task).filter(|_| task.desired_status() == Some("STOPPED")),
            exit_code: container(task).and_then(Container::exit_code),
        }
    }
}

/// For people.
pub(crate) fn text(tasks: &[Task]) -> String {
    if tasks.is_empty() {
        return "no tasks".to_owned();
    }
    let row = |task: &Task| {
        let code = task.exit_code.map(|code| format!("exit code {code}"));
        let reason: Vec<String> = code.into_iter().chain(task.reason.clone()).collect();
        let time = task.stopped.or(task.started).map(|time| format!("{time:.0}"));
        vec![
            short(&task.id).to_owned(),
            task.service.clone().unwrap_or_else(|| "-".to_owned()),
            task.revision.to_string(),
            task.status.clone(),
            task.health.clone(),
            task.zone.clone().unwrap_or_default(),
            task.address.clone().unwrap_or_default(),
            time.unwrap_or_default(),
            reason.join(": "),
        ]
    };
    let header = ["task", "service", "revision", "status", "health", "zone", "address", "since", ""];
    table(&header, tasks.iter().map(row))
}

/// As natsctl has times.
pub(super) fn time(time: &DateTime) -> Option<Timestamp> {
    Timestamp::from_millisecond(time.to_millis().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::KeyValuePair;

    use super::*;

    const ARN: &str = "arn:aws:ecs:us-east-1:123456789012:task/gaming-system-cluster";

    fn task(id: &str) -> EcsTask {
        let detail = KeyValuePair::builder().name("privateIPv4Address").value("10.0.1.7").build();
        EcsTask::builder()
            .task_arn(format!("{ARN}/{id}"))
            .group("service:quest-system-nats")
            .task_definition_arn("arn:aws:ecs:us-east-1:123456789012:task-definition/quest-system-nats:7")
            .last_status("STOPPED")
            .desired_status("STOPPED")
            .stopped_reason("Essential container in task exited")
            .attachments(Attachment::builder().details(detail).build())
            .containers(Container::builder().name("aws-guardduty-agent-1").exit_code(0).build())
            .containers(Container::builder().name("quest-system").exit_code(137).reason("OutOfMemoryError").build())
            .build()
    }

    #[test]
    fn a_stopped_task_says_why() {
        let names = BTreeMap::from([("quest-system-nats".to_owned(), "quest-system".to_owned())]);
        let read = Task::read(&task("0123456789abcdef"), &names);
        assert_eq!((read.service.as_deref(), read.revision), (Some("quest-system"), 7));
        assert_eq!(read.address.as_deref(), Some("10.0.1.7"));
        let shown = text(&[read]);
        let expected = "exit code 137: Essential container in task exited: OutOfMemoryError";
        assert!(shown.contains(expected) && shown.contains("0123456789ab "), "{shown}");
    }

    #[test]
    fn the_beginning_of_an_id_is_enough_if_it_is_of_one_task() {
        let running = [task("aabb"), task("aacc"), task("ddee")];
        assert_eq!(id(chosen("d", &running).unwrap()), "ddee");
        assert_eq!(id(chosen(&format!("{ARN}/aacc"), &running).unwrap()), "aacc");
        assert_eq!(chosen("aa", &running).unwrap_err().to_string(), "2 tasks begin with `aa`");
        assert_eq!(chosen("f", &running).unwrap_err().to_string(), "no task `f` runs");
    }
}

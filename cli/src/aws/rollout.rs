//! Follows deployments to their end: one look for all services together, each at the deployment that was begun and at no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ecs::types::{
    Deployment, DeploymentRolloutState, DesiredStatus, Service, ServiceDeploymentStatus, StopServiceDeploymentStopType,
};
use tokio::time::Instant;

use super::Aws;
use super::arn::{revision, short};
use super::error::failed;
use super::observe::primary;
use super::tasks::{self, Task};
use crate::commands::rollout::Until;
use crate::screen::note;

/// Between two looks: short as long as something moves.
const SOON: Duration = Duration::from_millis(250);
const LATER: Duration = Duration::from_secs(4);
/// So many tasks of a new revision that ended by themselves are a loop; ECS counts no fewer, and later.
const CRASHES: usize = 3;
/// Lines of a task's log that say why it ended.
const LAST_LINES: i32 = 12;

/// A deployment that was begun.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    /// As the manifests call it.
    pub(crate) service: String,
    /// As ECS calls it.
    pub(crate) ecs_name: String,
    /// `ecs-svc/…`, of the deployment to follow.
    pub(crate) deployment: String,
    /// ARN of the same as a service deployment, if ECS told it.
    pub(crate) service_deployment: Option<String>,
    /// ARN of what should run.
    pub(crate) task_definition: String,
    /// ARN of what ran before.
    pub(crate) before: Option<String>,
}

impl Begun {
    /// The deployment of a task definition, as the answer of the call that began it says. If somebody else was quicker, there is none
    /// of it: then it was overtaken.
    pub(crate) fn of(name: &str, service: &Service, before: Option<String>, wanted: &str) -> Self {
        let of_wanted = |one: &&Deployment| one.task_definition() == Some(wanted);
        let ours = primary(service).filter(of_wanted).or_else(|| service.deployments().iter().find(of_wanted));
        Self {
            service: name.to_owned(),
            ecs_name: service.service_name().unwrap_or_default().to_owned(),
            deployment: ours.and_then(Deployment::id).unwrap_or_default().to_owned(),
            service_deployment: service.current_service_deployment().map(str::to_owned),
            task_definition: wanted.to_owned(),
            before,
        }
    }
}

/// How a deployment ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ended {
    Completed,
    Failed(Failure),
    /// Somebody else began another one.
    Superseded(String),
    /// The service was deleted.
    Gone,
    /// The time was over.
    Unfinished(Failure),
}

/// Why a deployment failed, on one screen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) stopped: Vec<Stopped>,
    /// Last lines of the task that was stopped last.
    pub(crate) log: Vec<String>,
    /// What ECS said meanwhile, the newest last.
    pub(crate) events: Vec<String>,
}

/// A task that ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stopped {
    pub(crate) id: String,
    pub(crate) reason: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) health: String,
    pub(crate) crashed: bool,
}

/// What one look at a service says of a deployment.
#[derive(Clone, Debug, PartialEq)]
enum Look {
    Under { running: i32, desired: i32, failed: i32 },
    Completed,
    Failed(String),
    Superseded(String),
    Gone,
}

/// Pure: what a service says of a deployment of it.
fn look(begun: &Begun, until: Until, service: Option<&Service>) -> Look {
    let Some(service) = service else { return Look::Gone };
    let current = primary(service);
    let ours = service.deployments().iter().find(|deployment| deployment.id() == Some(&*begun.deployment));
    let Some(ours) = ours else {
        return replaced(begun, current);
    };
    let reason = || ours.rollout_state_reason().unwrap_or("ECS gives no reason").to_owned();
    let (running, desired) = (ours.running_count(), ours.desired_count());
    match ours.rollout_state() {
        Some(DeploymentRolloutState::Failed) => Look::Failed(reason()),
        _ if ours.status() != Some("PRIMARY") => replaced(begun, current),
        Some(DeploymentRolloutState::Completed) if running >= desired => Look::Completed,
        // Services whose controller tells no rollout state.
        None if running >= desired && service.deployments().len() == 1 => Look::Completed,
        _ if until == Until::Running && running >= desired && desired > 0 => Look::Completed,
        _ => Look::Under { running, desired, failed: ours.failed_tasks() },
    }
}

/// Another deployment has taken the place of ours: ECS itself going back, or somebody else.
fn replaced(begun: &Begun, current: Option<&Deployment>) -> Look {
    let now = current.and_then(Deployment::task_definition).unwrap_or_default();
    let reason = current.and_then(Deployment::rollout_state_reason).unwrap_or_default();
    let went_back = reason.contains("roll") && reason.contains("back") || begun.before.as_deref() == Some(now);
    if went_back && now != begun.task_definition {
        // That going back went well is no reason.
        let reason = if reason.contains("circuit") || reason.contains("alarm") { reason } else { WENT_BACK };
        return Look::Failed(reason.to_owned());
    }
    Look::Superseded(short(now).to_owned())
}

const WENT_BACK: &str = "ECS went back to what ran before";

struct Following {
    begun: Begun,
    counts: (i32, i32, i32),
    events: BTreeSet<String>,
    said: Vec<String>,
    stopped: BTreeMap<String, Stopped>,
    aborted: bool,
}

impl Aws {
    /// Follows deployments until all have ended, or the time is over; tells of what happens as it happens.
    pub(crate) async fn follow(
        &self,
        begun: Vec<Begun>,
        until: Until,
        within: Duration,
    ) -> anyhow::Result<BTreeMap<String, Ended>> {
        let deadline = Instant::now() + within;
        let since = jiff::Timestamp::now();
        let mut ended = BTreeMap::new();
        let mut pause = SOON;
        let mut open: Vec<Following> = begun
            .into_iter()
            .map(|begun| Following {
                begun,
                counts: (-1, -1, 0),
                events: BTreeSet::new(),
                said: Vec::new(),
                stopped: BTreeMap::new(),
                aborted: false,
            })
            .collect();
        if until == Until::Accepted {
            return Ok(open.into_iter().map(|one| (one.begun.service, Ended::Completed)).collect());
        }
        while !open.is_empty() {
            let names: Vec<String> = open.iter().map(|one| one.begun.ecs_name.clone()).collect();
            let services = self.describe_services(&names).await?;
            let mut moved = false;
            let mut still = Vec::new();
            for mut one in open {
                let service = services.get(&one.begun.ecs_name);
                moved |= one.tell(service, since);
                let end = match look(&one.begun, until, service) {
                    // Without tasks it is complete; that is not what was asked for.
                    Look::Completed if one.aborted => {
                        let reason = format!("{} of its tasks ended by themselves", one.crashes());
                        Ended::Failed(self.explain(&mut one, reason).await?)
                    }
                    Look::Completed => Ended::Completed,
                    Look::Gone => Ended::Gone,
                    Look::Superseded(by) => match self.truth(&one.begun).await? {
                        Some(reason) => Ended::Failed(self.explain(&mut one, reason).await?),
                        None => Ended::Superseded(by),
                    },
                    Look::Failed(reason) => Ended::Failed(self.explain(&mut one, reason).await?),
                    Look::Under { running, desired, failed } => {
                        if one.counts != (running, desired, failed) {
                            moved = true;
                            note(&format!(
                                "service {}: {running} of {desired} tasks of the new revision run",
                                one.begun.service
                            ));
                        }
                        if failed > one.counts.2 {
                            self.stopped(&mut one).await?;
                        }
                        one.counts = (running, desired, failed);
                        if one.crashes() >= CRASHES && running < desired && !one.aborted {
                            one.aborted = true;
                            self.abort(&one.begun).await?;
                        }
                        if Instant::now() < deadline {
                            still.push(one);
                            continue;
                        }
                        let reason = format!("{running} of {desired} tasks run after {} s", within.as_secs());
                        Ended::Unfinished(self.explain(&mut one, reason).await?)
                    }
                };
                note(&format!("service {} {}", one.begun.service, end.verdict()));
                ended.insert(one.begun.service.clone(), end);
            }
            open = still;
            if !open.is_empty() {
                pause = if moved { SOON } else { (pause * 3 / 2).min(LATER) };
                tokio::time::sleep(pause).await;
            }
        }
        Ok(ended)
    }

    /// Why a deployment of ours that is no more failed; `None` if it did not, or ECS does not tell.
    async fn truth(&self, begun: &Begun) -> anyhow::Result<Option<String>> {
        let Some(arn) = &begun.service_deployment else { return Ok(None) };
        let call = self.clients.ecs().describe_service_deployments().service_deployment_arns(arn);
        let answer = match call.send().await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(error = format!("{:#}", failed("describe a service deployment", error)));
                return Ok(None);
            }
        };
        let found = answer.service_deployments().first();
        let failed = found.filter(|found| {
            matches!(
                found.status(),
                Some(
                    ServiceDeploymentStatus::RollbackSuccessful
                        | ServiceDeploymentStatus::RollbackInProgress
                        | ServiceDeploymentStatus::RollbackFailed
                        | ServiceDeploymentStatus::RollbackRequested
                )
            )
        });
        Ok(failed.map(|found| found.status_reason().unwrap_or(WENT_BACK).to_owned()))
    }

    /// Stops a deployment whose tasks crash, rather than wait until ECS has seen enough.
    async fn abort(&self, begun: &Begun) -> anyhow::Result<()> {
        note(&format!("service {}: the new tasks crash again and again; stopping the deployment", begun.service));
        if let (Some(arn), Some(_)) = (&begun.service_deployment, &begun.before) {
            let stop = self.clients.ecs().stop_service_deployment().service_deployment_arn(arn);
            match stop.stop_type(StopServiceDeploymentStopType::Rollback).send().await {
                Ok(_) => return Ok(()),
                // It has ended meanwhile, or cannot be stopped so: the next look or the other way tells.
                Err(error) => tracing::info!(error = format!("{:#}", failed("stop the deployment", error))),
            }
        }
        let update = self.clients.ecs().update_service().cluster(self.cluster()).service(&begun.ecs_name);
        let update = match &begun.before {
            Some(before) => update.task_definition(before),
            None => update.desired_count(0),
        };
        let stopped = update.send().await;
        stopped.map_err(|error| failed(&format!("stop the deployment of `{}`", begun.service), error)).map(drop)
    }

    /// Looks at the tasks of a deployment that have ended.
    async fn stopped(&self, one: &mut Following) -> anyhow::Result<()> {
        let list = self.clients.ecs().list_tasks().cluster(self.cluster()).service_name(&one.begun.ecs_name);
        let answer = list.desired_status(DesiredStatus::Stopped).send().await;
        let answer =
            answer.map_err(|error| failed(&format!("list the stopped tasks of `{}`", one.begun.service), error))?;
        let is_new = |arn: &&String| !one.stopped.contains_key(short(arn));
        let new: Vec<String> = answer.task_arns().iter().filter(is_new).cloned().collect();
        let is_ours = |task: &Task| task.task_definition == one.begun.task_definition;
        let ours: Vec<Task> = tasks::describe(self.ecs_cluster(), &new).await?.into_iter().filter(is_ours).collect();
        for task in &ours {
            let stopped = Stopped::of(task);
            note(&format!("service {}: task {stopped}", one.begun.service));
            one.stopped.insert(stopped.id.clone(), stopped);
        }
        Ok(())
    }

    async fn explain(&self, one: &mut Following, reason: String) -> anyhow::Result<Failure> {
        self.stopped(one).await?;
        let stopped: Vec<Stopped> = one.stopped.values().cloned().collect();
        let last = stopped.iter().rev().find(|task| task.crashed).or(stopped.last());
        let log = match last {
            Some(task) => self.last_lines(&one.begun, &task.id).await,
            None => Vec::new(),
        };
        Ok(Failure { reason, stopped, log, events: one.said.clone() })
    }

    /// What a task wrote last; nothing if it cannot be read.
    async fn last_lines(&self, begun: &Begun, task: &str) -> Vec<String> {
        let stream = format!("{}/{}/{task}", begun.ecs_name, begun.service);
        let call =
            self.clients.logs().get_log_events().log_group_name(&self.handover.log_group).log_stream_name(stream);
        match call.limit(LAST_LINES).start_from_head(false).send().await {
            Ok(answer) => answer
                .events()
                .iter()
                .filter_map(|event| event.message().map(|line| line.trim_end().to_owned()))
                .collect(),
            Err(error) => {
                tracing::info!(error = format!("{:#}", failed("read the log", error)));
                Vec::new()
            }
        }
    }
}

impl Following {
    /// Tells what ECS says that it has not said before; whether there was anything.
    fn tell(&mut self, service: Option<&Service>, since: jiff::Timestamp) -> bool {
        let mut told = false;
        for event in service.map(Service::events).unwrap_or_default().iter().rev() {
            let is_old = event.created_at().is_none_or(|at| at.secs() < since.as_second());
            let (Some(id), Some(message)) = (event.id(), event.message()) else { continue };
            if !is_old && self.events.insert(id.to_owned()) {
                tracing::info!(service = self.begun.service, message);
                self.said.push(message.to_owned());
                told = true;
            }
        }
        told
    }

    fn crashes(&self) -> usize {
        self.stopped.values().filter(|task| task.crashed).count()
    }
}

impl Stopped {
    fn of(task: &Task) -> Self {
        let container = task.containers.first();
        let reason = [task.stopped_reason.as_deref(), container.and_then(|container| container.reason.as_deref())];
        let reason: Vec<&str> = reason.into_iter().flatten().filter(|reason| !reason.is_empty()).collect();
        Self {
            id: task.id.clone(),
            reason: if reason.is_empty() { "no reason given".to_owned() } else { reason.join("; ") },
            exit_code: container.and_then(|container| container.exit_code),
            health: task.health.clone(),
            crashed: task.crashed,
        }
    }
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ended: {}", self.id, self.reason)?;
        if let Some(code) = self.exit_code {
            write!(f, ", exit code {code}")?;
        }
        if self.health == "UNHEALTHY" {
            f.write_str(", health check failed")?;
        }
        Ok(())
    }
}

impl Ended {
    fn verdict(&self) -> &'static str {
        match self {
            Self::Completed => "done",
            Self::Failed(_) => "FAILED",
            Self::Superseded(_) => "was overtaken by another deployment",
            Self::Gone => "is gone",
            Self::Unfinished(_) => "did not finish in time",
        }
    }

    /// On one screen, why it is not what was asked for; `None` if it is.
    pub(crate) fn explanation(&self, service: &str, task_definition: &str, image: &str) -> Option<String> {
        let head = |what: &str| format!("deployment of `{service}` (revision {}) {what}", revision(task_definition));
        match self {
            Self::Completed => None,
            Self::Superseded(by) => Some(head(&format!("was overtaken: somebody else deployed `{by}` meanwhile"))),
            Self::Gone => Some(head("ended: the service was deleted meanwhile")),
            Self::Failed(failure) => Some(failure.screen(&head("failed"), image)),
            Self::Unfinished(failure) => Some(failure.screen(&head("did not finish in time"), image)),
        }
    }
}

impl Failure {
    fn screen(&self, head: &str, image: &str) -> String {
        let mut screen = format!("{head}: {}\n  image {image}", self.reason);
        for task in self.stopped.iter().rev().take(3) {
            screen.push_str(&format!("\n  task {task}"));
        }
        if !self.log.is_empty() {
            screen.push_str("\n  last lines of its log:");
        }
        for line in &self.log {
            screen.push_str(&format!("\n  | {line}"));
        }
        for event in self.events.iter().rev().take(3).rev() {
            screen.push_str(&format!("\n  ECS: {event}"));
        }
        screen
    }
}

#[cfg(test)]
mod tests;

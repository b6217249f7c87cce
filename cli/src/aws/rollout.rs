//! Follows deployments to their ends: all services in one loop, each at the deployment that this run started and at no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ecs::types::{
    Deployment, DeploymentRolloutState, DesiredStatus, Service, ServiceDeploymentStatus, StopServiceDeploymentStopType,
};
use tokio::time::Instant;

use super::Aws;
use super::arn::short;
use super::error::failed;
use super::observe::primary;
use super::tasks::{self, Task};
use crate::model::rollout::{Failure, Outcome, StoppedTask};
use crate::pipeline::options::WaitUntil;
use crate::screen::note;

/// Between two looks: short as long as something moves.
const SHORT_PAUSE: Duration = Duration::from_millis(250);
const LONG_PAUSE: Duration = Duration::from_secs(4);
/// So many tasks of a new revision that ended by themselves are a loop; ECS counts no fewer, and later.
const CRASHES: usize = 3;
/// Lines of a task's log that say why it ended.
const LOG_LINES: i32 = 12;

/// A deployment that was started.
#[derive(Clone, Debug)]
pub(crate) struct StartedDeployment {
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

impl StartedDeployment {
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

/// What one look at a service says of a deployment.
#[derive(Clone, Debug, PartialEq)]
enum RolloutState {
    InProgress { running: i32, desired: i32, failed: i32 },
    Completed,
    Failed(String),
    Superseded(String),
    Gone,
}

/// Pure: what a service says of a deployment of it.
fn rollout_state(started: &StartedDeployment, wait_until: WaitUntil, service: Option<&Service>) -> RolloutState {
    let Some(service) = service else { return RolloutState::Gone };
    let current = primary(service);
    let ours = service.deployments().iter().find(|deployment| deployment.id() == Some(&*started.deployment));
    let Some(ours) = ours else {
        return replaced(started, current);
    };
    let reason = || ours.rollout_state_reason().unwrap_or("ECS gives no reason").to_owned();
    let (running, desired) = (ours.running_count(), ours.desired_count());
    match ours.rollout_state() {
        Some(DeploymentRolloutState::Failed) => RolloutState::Failed(reason()),
        _ if ours.status() != Some("PRIMARY") => replaced(started, current),
        Some(DeploymentRolloutState::Completed) if running >= desired => RolloutState::Completed,
        // Services whose controller tells no rollout state.
        None if running >= desired && service.deployments().len() == 1 => RolloutState::Completed,
        _ if wait_until == WaitUntil::Running && running >= desired && desired > 0 => RolloutState::Completed,
        _ => RolloutState::InProgress { running, desired, failed: ours.failed_tasks() },
    }
}

/// Another deployment has taken the place of ours: ECS itself going back, or somebody else.
fn replaced(started: &StartedDeployment, current: Option<&Deployment>) -> RolloutState {
    let now = current.and_then(Deployment::task_definition).unwrap_or_default();
    let reason = current.and_then(Deployment::rollout_state_reason).unwrap_or_default();
    let went_back = reason.contains("roll") && reason.contains("back") || started.before.as_deref() == Some(now);
    if went_back && now != started.task_definition {
        // That going back went well is no reason.
        let reason = if reason.contains("circuit") || reason.contains("alarm") { reason } else { WENT_BACK };
        return RolloutState::Failed(reason.to_owned());
    }
    RolloutState::Superseded(short(now).to_owned())
}

const WENT_BACK: &str = "ECS went back to what ran before";

struct Following {
    started: StartedDeployment,
    counts: (i32, i32, i32),
    events: BTreeSet<String>,
    said: Vec<String>,
    stopped: BTreeMap<String, StoppedTask>,
    aborted: bool,
}

impl Aws {
    /// Follows deployments until all have ended, or the time is over; tells of what happens as it happens.
    pub(crate) async fn follow(
        &self,
        started: Vec<StartedDeployment>,
        wait_until: WaitUntil,
        within: Duration,
    ) -> anyhow::Result<BTreeMap<String, Outcome>> {
        let deadline = Instant::now() + within;
        let since = jiff::Timestamp::now();
        let mut ended = BTreeMap::new();
        let mut pause = SHORT_PAUSE;
        let mut open: Vec<Following> = started
            .into_iter()
            .map(|started| Following {
                started,
                counts: (-1, -1, 0),
                events: BTreeSet::new(),
                said: Vec::new(),
                stopped: BTreeMap::new(),
                aborted: false,
            })
            .collect();
        if wait_until == WaitUntil::Accepted {
            return Ok(open.into_iter().map(|one| (one.started.service, Outcome::Completed)).collect());
        }
        while !open.is_empty() {
            let names: Vec<String> = open.iter().map(|one| one.started.ecs_name.clone()).collect();
            let services = self.describe_services(&names).await?;
            let mut changed = false;
            let mut still = Vec::new();
            for mut one in open {
                let service = services.get(&one.started.ecs_name);
                changed |= one.tell(service, since);
                let end = match rollout_state(&one.started, wait_until, service) {
                    // Without tasks it is complete; that is not what was asked for.
                    RolloutState::Completed if one.aborted => {
                        let reason = format!("{} of its tasks ended by themselves", one.crashes());
                        Outcome::Failed(self.explain(&mut one, reason).await?)
                    }
                    RolloutState::Completed => Outcome::Completed,
                    RolloutState::Gone => Outcome::Gone,
                    RolloutState::Superseded(by) => match self.rollback_reason(&one.started).await? {
                        Some(reason) => Outcome::Failed(self.explain(&mut one, reason).await?),
                        None => Outcome::Superseded(Some(by)),
                    },
                    RolloutState::Failed(reason) => Outcome::Failed(self.explain(&mut one, reason).await?),
                    RolloutState::InProgress { running, desired, failed } => {
                        if one.counts != (running, desired, failed) {
                            changed = true;
                            note(&format!(
                                "service {}: {running} of {desired} tasks of the new revision run",
                                one.started.service
                            ));
                        }
                        if failed > one.counts.2 {
                            self.stopped(&mut one).await?;
                        }
                        one.counts = (running, desired, failed);
                        if one.crashes() >= CRASHES && running < desired && !one.aborted {
                            one.aborted = true;
                            self.abort(&one.started).await?;
                        }
                        if Instant::now() < deadline {
                            still.push(one);
                            continue;
                        }
                        let reason = format!("{running} of {desired} tasks run after {} s", within.as_secs());
                        Outcome::Unfinished(self.explain(&mut one, reason).await?)
                    }
                };
                note(&format!("service {} {}", one.started.service, end.verdict()));
                ended.insert(one.started.service.clone(), end);
            }
            open = still;
            if !open.is_empty() {
                pause = if changed { SHORT_PAUSE } else { (pause * 3 / 2).min(LONG_PAUSE) };
                tokio::time::sleep(pause).await;
            }
        }
        Ok(ended)
    }

    /// Why a deployment of ours that is no more failed; `None` if it did not, or ECS does not tell.
    async fn rollback_reason(&self, started: &StartedDeployment) -> anyhow::Result<Option<String>> {
        let Some(arn) = &started.service_deployment else { return Ok(None) };
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
    async fn abort(&self, started: &StartedDeployment) -> anyhow::Result<()> {
        note(&format!("service {}: the new tasks crash again and again; stopping the deployment", started.service));
        if let (Some(arn), Some(_)) = (&started.service_deployment, &started.before) {
            let stop = self.clients.ecs().stop_service_deployment().service_deployment_arn(arn);
            match stop.stop_type(StopServiceDeploymentStopType::Rollback).send().await {
                Ok(_) => return Ok(()),
                // It has ended meanwhile, or cannot be stopped so: the next look or the other way tells.
                Err(error) => tracing::info!(error = format!("{:#}", failed("stop the deployment", error))),
            }
        }
        let update = self.clients.ecs().update_service().cluster(self.cluster()).service(&started.ecs_name);
        let update = match &started.before {
            Some(before) => update.task_definition(before),
            None => update.desired_count(0),
        };
        let stopped = update.send().await;
        stopped.map_err(|error| failed(&format!("stop the deployment of `{}`", started.service), error)).map(drop)
    }

    /// Looks at the tasks of a deployment that have ended.
    async fn stopped(&self, one: &mut Following) -> anyhow::Result<()> {
        let list = self.clients.ecs().list_tasks().cluster(self.cluster()).service_name(&one.started.ecs_name);
        let answer = list.desired_status(DesiredStatus::Stopped).send().await;
        let answer =
            answer.map_err(|error| failed(&format!("list the stopped tasks of `{}`", one.started.service), error))?;
        let is_new = |arn: &&String| !one.stopped.contains_key(short(arn));
        let new: Vec<String> = answer.task_arns().iter().filter(is_new).cloned().collect();
        let is_ours = |task: &Task| task.task_definition == one.started.task_definition;
        let ours: Vec<Task> = tasks::describe(self.ecs_cluster(), &new).await?.into_iter().filter(is_ours).collect();
        for task in &ours {
            let stopped = stopped_task(task);
            note(&format!("service {}: task {stopped}", one.started.service));
            one.stopped.insert(stopped.id.clone(), stopped);
        }
        Ok(())
    }

    async fn explain(&self, one: &mut Following, reason: String) -> anyhow::Result<Failure> {
        self.stopped(one).await?;
        let stopped: Vec<StoppedTask> = one.stopped.values().cloned().collect();
        let last = stopped.iter().rev().find(|task| task.crashed).or(stopped.last());
        let log_task = last.map(|task| task.id.clone());
        let log = match last {
            Some(task) => self.last_lines(&one.started, &task.id).await,
            None => Vec::new(),
        };
        Ok(Failure { reason, tasks: stopped, log_task, log, events: one.said.clone() })
    }

    /// What a task wrote last; nothing if it cannot be read.
    async fn last_lines(&self, started: &StartedDeployment, task: &str) -> Vec<String> {
        let stream = format!("{}/{}/{task}", started.ecs_name, started.service);
        let call =
            self.clients.logs().get_log_events().log_group_name(&self.handover.log_group).log_stream_name(stream);
        match call.limit(LOG_LINES).start_from_head(false).send().await {
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
                tracing::info!(service = self.started.service, message);
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

/// A task that has stopped, as an explanation shows it.
fn stopped_task(task: &Task) -> StoppedTask {
    StoppedTask {
        id: task.id.clone(),
        reason: task.reason().unwrap_or_else(|| "no reason given".to_owned()),
        exit_code: task.container().and_then(|container| container.exit_code),
        unhealthy: task.health == "UNHEALTHY",
        crashed: task.crashed,
    }
}

#[cfg(test)]
mod tests;

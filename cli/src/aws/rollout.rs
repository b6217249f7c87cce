//! Follows deployments until they end: those of all services in one loop, and only the ones that this run started.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ecs::types::{
    Deployment, DeploymentRolloutState, DesiredStatus, Service, ServiceDeploymentStatus, StopServiceDeploymentStopType,
};
use tokio::time::Instant;

use super::Aws;
use super::arn::{revision, short};
use super::clients::Cluster;
use super::error::failed;
use super::services::{self, primary};
use super::tasks::{self, Task};
use crate::model::rollout::{Advance, Failure, Outcome, StoppedTask};
use crate::pipeline::options::WaitUntil;
use crate::problem::counted;
use crate::screen::note;
use crate::screen::progress::Activity;

/// Between two descriptions of the services, as long as something changes.
const SHORT_PAUSE: Duration = Duration::from_millis(250);
/// The same at most, while nothing changes.
const LONG_PAUSE: Duration = Duration::from_secs(4);
/// How long ECS may go on describing a service as it was before a write.
const STALE_FOR: Duration = Duration::from_secs(30);
/// Crashed tasks of a new revision after which its deployment is aborted. The circuit breaker of ECS needs at least as many, and longer.
const CRASHES: usize = 3;
/// Lines of a task's log in an explanation.
const LOG_LINES: i32 = 12;

/// A deployment that was started.
#[derive(Clone, Debug)]
pub(crate) struct StartedDeployment {
    /// The manifest's name of the service.
    pub(crate) service: String,
    /// Its name on ECS.
    pub(crate) ecs_name: String,
    /// Id of the deployment: `ecs-svc/…`.
    pub(crate) deployment: String,
    /// ARN of its service deployment, if ECS has returned it.
    pub(crate) service_deployment: Option<String>,
    /// ARN of its task definition.
    pub(crate) task_definition: String,
    /// ARN of the task definition before.
    pub(crate) before: Option<String>,
    /// How many tasks the service should have since.
    pub(crate) tasks: i32,
    /// Ids of the service's events that were there already: clocks of two machines say nothing of that.
    pub(crate) events: BTreeSet<String>,
}

impl StartedDeployment {
    /// The deployment of a task definition, from the answer of the call that started it. If another run has started one meanwhile, there
    /// is none: it counts as superseded.
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
            tasks: service.desired_count(),
            events: service.events().iter().filter_map(|event| event.id().map(str::to_owned)).collect(),
        }
    }
}

/// How far a deployment is, by the description of its service.
#[derive(Clone, Debug, PartialEq)]
enum RolloutState {
    InProgress { running: i32, desired: i32, failed: i32 },
    Completed,
    Failed(String),
    Superseded(String),
    Gone,
}

/// How far a deployment is. Pure.
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
        // A service whose controller has no rollout state.
        None if running >= desired && service.deployments().len() == 1 => RolloutState::Completed,
        _ if wait_until == WaitUntil::Running && running >= desired && desired > 0 => RolloutState::Completed,
        _ => RolloutState::InProgress { running, desired, failed: ours.failed_tasks() },
    }
}

/// Another deployment has replaced ours: a rollback by ECS, or one of another run.
fn replaced(started: &StartedDeployment, current: Option<&Deployment>) -> RolloutState {
    let now = current.and_then(Deployment::task_definition).unwrap_or_default();
    let reason = current.and_then(Deployment::rollout_state_reason).unwrap_or_default();
    let went_back = reason.contains("roll") && reason.contains("back") || started.before.as_deref() == Some(now);
    if went_back && now != started.task_definition {
        // The reason of a completed rollback says nothing about the failure.
        let reason = if reason.contains("circuit") || reason.contains("alarm") { reason } else { WENT_BACK };
        return RolloutState::Failed(reason.to_owned());
    }
    RolloutState::Superseded(short(now).to_owned())
}

const WENT_BACK: &str = "ECS went back to what ran before";

/// What is known of a deployment that is being followed.
struct Following {
    started: StartedDeployment,
    activity: Activity,
    /// Since when it is followed.
    since: Instant,
    /// Whether ECS has described it.
    seen: bool,
    /// Running, desired and failed tasks, as last described.
    counts: (i32, i32, i32),
    messages: Vec<String>,
    stopped: BTreeMap<String, StoppedTask>,
    aborted: bool,
}

/// Follows deployments until all have ended or the time is over, and reports what happens.
pub(crate) async fn follow(
    aws: &Aws,
    started: Vec<(StartedDeployment, Activity)>,
    wait_until: WaitUntil,
    within: Duration,
) -> anyhow::Result<BTreeMap<String, Outcome>> {
    if wait_until == WaitUntil::Accepted {
        return Ok(started.into_iter().map(|(started, _)| (started.service, Outcome::Completed)).collect());
    }
    let deadline = Instant::now() + within;
    let following = |(started, activity): (_, Activity)| Following::new(started, activity.within(within));
    let mut open: Vec<Following> = started.into_iter().map(following).collect();
    let mut ended = BTreeMap::new();
    let mut pause = SHORT_PAUSE;
    while !open.is_empty() {
        let names: Vec<String> = open.iter().map(|one| one.started.ecs_name.clone()).collect();
        let services = services::describe_all_fields(aws.ecs_cluster(), &names).await?;
        let mut changed = false;
        let mut still_open = Vec::new();
        for mut one in open {
            let service = services.get(&one.started.ecs_name);
            changed |= one.log_events(service);
            if !one.is_shown_by(service) && Instant::now() < deadline {
                still_open.push(one);
                continue;
            }
            let state = rollout_state(&one.started, wait_until, service);
            if let RolloutState::InProgress { running, desired, failed } = state {
                if let Some(advance) = service.and_then(|service| one.advance(service)) {
                    one.activity.is_at(advance.to_string(), advance.waits_for);
                }
                changed |= progress(aws.ecs_cluster(), &mut one, (running, desired, failed)).await?;
                if Instant::now() < deadline {
                    still_open.push(one);
                    continue;
                }
            }
            let outcome = outcome(aws, &mut one, state, within).await?;
            one.activity.end(outcome.verdict());
            ended.insert(one.started.service, outcome);
        }
        open = still_open;
        if !open.is_empty() {
            pause = if changed { SHORT_PAUSE } else { (pause * 3 / 2).min(LONG_PAUSE) };
            tokio::time::sleep(pause).await;
        }
    }
    Ok(ended)
}

/// Updates the counts of a deployment that is in progress, and aborts it if its tasks crash. Returns whether the counts have changed.
async fn progress(cluster: Cluster<'_>, one: &mut Following, counts: (i32, i32, i32)) -> anyhow::Result<bool> {
    let (running, desired, failed) = counts;
    let changed = one.counts != counts;
    if failed > one.counts.2 {
        observe_stopped_tasks(cluster, one).await?;
    }
    one.counts = counts;
    if one.crashes() >= CRASHES && running < desired && !one.aborted {
        one.aborted = true;
        abort(cluster, &one.started).await?;
    }
    Ok(changed)
}

/// The outcome of a deployment that has ended, or that has not within its time.
async fn outcome(aws: &Aws, one: &mut Following, state: RolloutState, within: Duration) -> anyhow::Result<Outcome> {
    Ok(match state {
        // Without tasks it completes, which is not what was asked for.
        RolloutState::Completed if one.aborted => {
            let reason = format!("{} of its tasks ended by themselves", one.crashes());
            Outcome::Failed(explain(aws, one, reason).await?)
        }
        RolloutState::Completed => Outcome::Completed,
        RolloutState::Gone => Outcome::Gone,
        RolloutState::Superseded(by) => match rollback_reason(aws.clients.ecs(), &one.started).await? {
            Some(reason) => Outcome::Failed(explain(aws, one, reason).await?),
            None => Outcome::Superseded(Some(by)),
        },
        RolloutState::Failed(reason) => Outcome::Failed(explain(aws, one, reason).await?),
        RolloutState::InProgress { running, desired, .. } => {
            let reason = format!("{running} of {} run after {} s", counted(desired, "task"), within.as_secs());
            Outcome::Unfinished(explain(aws, one, reason).await?)
        }
    })
}

/// Why ECS has rolled back a deployment that the service no longer lists; `None` if it has not, or ECS gives no answer.
async fn rollback_reason(ecs: &aws_sdk_ecs::Client, started: &StartedDeployment) -> anyhow::Result<Option<String>> {
    let Some(arn) = &started.service_deployment else { return Ok(None) };
    let answer = match ecs.describe_service_deployments().service_deployment_arns(arn).send().await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(error = format!("{:#}", failed("describe a service deployment", error)));
            return Ok(None);
        }
    };
    let found = answer.service_deployments().first();
    let rolled_back = found.filter(|found| {
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
    Ok(rolled_back.map(|found| found.status_reason().unwrap_or(WENT_BACK).to_owned()))
}

/// Stops a deployment whose tasks crash, before the circuit breaker of ECS would.
async fn abort(cluster: Cluster<'_>, started: &StartedDeployment) -> anyhow::Result<()> {
    note(&format!("service {}: the new tasks crash again and again; stopping the deployment", started.service));
    if let (Some(arn), Some(_)) = (&started.service_deployment, &started.before) {
        let stop = cluster.ecs.stop_service_deployment().service_deployment_arn(arn);
        match stop.stop_type(StopServiceDeploymentStopType::Rollback).send().await {
            Ok(_) => return Ok(()),
            // It has ended meanwhile, or cannot be stopped in this way: the service is updated instead.
            Err(error) => tracing::info!(error = format!("{:#}", failed("stop the deployment", error))),
        }
    }
    let update = cluster.ecs.update_service().cluster(cluster.name).service(&started.ecs_name);
    let update = match &started.before {
        Some(before) => update.task_definition(before),
        None => update.desired_count(0),
    };
    let stopped = update.send().await;
    stopped.map_err(|error| failed(&format!("stop the deployment of `{}`", started.service), error)).map(drop)
}

/// Adds the stopped tasks of a deployment that are not known yet.
async fn observe_stopped_tasks(cluster: Cluster<'_>, one: &mut Following) -> anyhow::Result<()> {
    let list = cluster.ecs.list_tasks().cluster(cluster.name).service_name(&one.started.ecs_name);
    let listed = list.desired_status(DesiredStatus::Stopped).into_paginator().items().send();
    let listed = listed.collect::<Result<Vec<String>, _>>().await;
    let listed =
        listed.map_err(|error| failed(&format!("list the stopped tasks of `{}`", one.started.service), error))?;
    let new: Vec<String> = listed.into_iter().filter(|arn| !one.stopped.contains_key(short(arn))).collect();
    // A deployment before may have had tasks of the same revision.
    let is_of_deployment = |task: &Task| task.deployment.as_ref().is_none_or(|id| *id == one.started.deployment);
    let is_ours = |task: &Task| task.task_definition == one.started.task_definition && is_of_deployment(task);
    let ours: Vec<Task> = tasks::describe(cluster, &new).await?.into_iter().filter(is_ours).collect();
    for task in &ours {
        let stopped = stopped_task(task);
        note(&format!("service {}: task {stopped}", one.started.service));
        one.stopped.insert(stopped.id.clone(), stopped);
    }
    Ok(())
}

/// Adds to the reason of a failure what helps to find its cause: stopped tasks, events, and the log of a task that crashed.
async fn explain(aws: &Aws, one: &mut Following, reason: String) -> anyhow::Result<Failure> {
    observe_stopped_tasks(aws.ecs_cluster(), one).await?;
    let stopped: Vec<StoppedTask> = one.stopped.values().cloned().collect();
    let last = stopped.iter().rev().find(|task| task.crashed).or(stopped.last());
    let log_task = last.map(|task| task.id.clone());
    let log = match last {
        Some(task) => last_lines(aws, &one.started, &task.id).await,
        None => Vec::new(),
    };
    Ok(Failure { reason, tasks: stopped, log_task, log, events: one.messages.clone() })
}

/// The last lines of a task's log; none if it cannot be read.
async fn last_lines(aws: &Aws, started: &StartedDeployment, task: &str) -> Vec<String> {
    let own = aws.manifests.services.get(&started.service).and_then(|manifest| manifest.own_log());
    let (group, prefix) = own.map_or((&*aws.handover.log_group, &*started.ecs_name), |log| (log.group, log.prefix));
    let stream = format!("{prefix}/{}/{task}", aws.names(&started.service).container);
    let call = aws.clients.logs().get_log_events().log_group_name(group).log_stream_name(stream);
    match call.limit(LOG_LINES).start_from_head(false).send().await {
        Ok(answer) => {
            let lines = answer.events().iter().filter_map(|event| event.message());
            lines.map(|line| line.trim_end().to_owned()).collect()
        }
        Err(error) => {
            tracing::info!(error = format!("{:#}", failed("read the log", error)));
            Vec::new()
        }
    }
}

impl Following {
    fn new(started: StartedDeployment, activity: Activity) -> Self {
        Self {
            started,
            activity,
            since: Instant::now(),
            seen: false,
            counts: (-1, -1, 0),
            messages: Vec::new(),
            stopped: BTreeMap::new(),
            aborted: false,
        }
    }

    /// Whether a description of the service is of after the write that started the deployment: ECS may still say for a while that
    /// there is no such service, or that it is at the deployment before.
    fn is_shown_by(&mut self, service: Option<&Service>) -> bool {
        let is_ours = |deployment: &Deployment| deployment.id() == Some(&*self.started.deployment);
        let shows = |service: &Service| {
            service.desired_count() == self.started.tasks && service.deployments().iter().any(is_ours)
        };
        self.seen |= service.is_some_and(shows);
        // Superseded from the first, or ECS has not shown it for too long: what it says now counts.
        self.seen || self.started.deployment.is_empty() || self.since.elapsed() >= STALE_FOR
    }

    /// Logs the service events that are new; returns whether there were any.
    fn log_events(&mut self, service: Option<&Service>) -> bool {
        let before = self.messages.len();
        for event in service.map(Service::events).unwrap_or_default().iter().rev() {
            let (Some(id), Some(message)) = (event.id(), event.message()) else { continue };
            if self.started.events.insert(id.to_owned()) {
                tracing::info!(service = self.started.service, message);
                self.messages.push(message.to_owned());
            }
        }
        self.messages.len() > before
    }

    /// How far it is, by a description of its service. ECS counts running tasks; those that are not healthy yet are pending.
    fn advance(&self, service: &Service) -> Option<Advance> {
        let (ours, others): (Vec<&Deployment>, Vec<_>) =
            service.deployments().iter().partition(|deployment| deployment.id() == Some(&*self.started.deployment));
        let ours = ours.first()?;
        let count = |tasks: i32| u32::try_from(tasks).unwrap_or_default();
        let old = others.iter().map(|deployment| count(deployment.running_count())).sum();
        let starting = match ours.pending_count() {
            0 => None,
            pending => Some(format!("{} starting", counted(pending, "task"))),
        };
        Some(Advance {
            revision: revision(&self.started.task_definition),
            new: count(ours.running_count()),
            desired: count(ours.desired_count()),
            old,
            old_left: old,
            waits_for: self.messages.last().cloned().filter(|_| starting.is_none()).or(starting),
        })
    }

    fn crashes(&self) -> usize {
        self.stopped.values().filter(|task| task.crashed).count()
    }
}

/// A stopped task, as an explanation shows it.
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

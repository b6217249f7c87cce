//! How the services of the local environment are, by what the supervisor has and what answers on the bus.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::local::protocol::{
    Deployment, DeploymentState, Description, ServiceStatus as Running, TaskState, TaskStatus,
};
use crate::local::verify::{expected, ready_tasks};
use crate::model::desired::Role;
use crate::model::status::{Flag, OldTasks, ServiceStatus, State, crash_loop};
use crate::nats::bus::tasks;
use crate::nats::discovery::Instance;
use crate::pipeline::history::{Record, rolled_back, scaled};
use crate::problem::counted;

/// So many restarts of a task that is not ready are no accident any more.
const LOOP_RESTARTS: u32 = 3;

/// What is known besides the service itself.
pub(super) struct Known<'a> {
    pub(super) description: &'a Description,
    /// What answers on the bus.
    pub(super) instances: &'a [Instance],
    /// The last runs, the newest first.
    pub(super) records: &'a [Record],
    pub(super) now: Timestamp,
}

/// How a service is, and what is worth knowing of it though it is not wrong.
pub(super) fn service_status(name: &str, service: &Running, known: &Known<'_>) -> (ServiceStatus, Vec<String>) {
    let ready = ready_tasks(service);
    let found = tasks(known.instances, name);
    let answering = expected(service).answering(&found);
    // The gateway is reached over HTTP; its readiness says that it is on the bus too.
    let answers = |task: &&&str| service.definition.role == Role::Gateway || answering.contains(**task);
    let healthy = count(ready.iter().filter(answers));
    let current = || service.tasks.iter().filter(|task| task.revision == service.revision);
    let runs =
        |task: &&TaskStatus| task.pid.is_some() && !matches!(task.state, TaskState::Draining | TaskState::Stopped);
    let newest = service.tasks.iter().filter(|task| task.pid.is_some()).map(|task| task.started_at_ms).max();
    let found = Found { name, service, known, ready: count(ready.iter()), healthy };
    let (state, reason) = found.verdict();
    let (flags, notes) = found.flags();
    let status = ServiceStatus {
        name: name.to_owned(),
        state,
        desired: service.desired,
        running: count(current().filter(runs)),
        healthy,
        old: old_tasks(service),
        revision: service.revision,
        version: service.definition.version.clone(),
        image: None,
        restarts: service.tasks.iter().map(|task| task.restarts).sum(),
        started: newest.and_then(timestamp),
        last_exit: last_exit(service),
        rollout: None,
        alarms: Vec::new(),
        flags,
        reason,
    };
    (status, notes)
}

/// A service, and how many of its tasks are how far.
struct Found<'a> {
    name: &'a str,
    service: &'a Running,
    known: &'a Known<'a>,
    /// Tasks of the current revision that are ready.
    ready: u32,
    /// Those of them that answer on the bus.
    healthy: u32,
}

impl Found<'_> {
    fn verdict(&self) -> (State, Option<String>) {
        let Self { name, service, ready, healthy, .. } = *self;
        let serves_none = healthy == 0 && old_tasks(service).is_none_or(|old| old.healthy == 0);
        let short = if serves_none { State::Down } else { State::Degraded };
        // Why its tasks exit then.
        if service.lacks_listener() && service.desired > 0 {
            let reason = format!("it does not listen for HTTP clients; `natsctl deploy {name}` lets it");
            return (State::Degraded, Some(reason));
        }
        if let Some(reason) = self.crash_loop() {
            let state = if serves_none { State::Down } else { State::CrashLoop };
            return (state, Some(format!("crash loop: {reason}")));
        }
        if service.failed {
            let state = if serves_none && service.desired > 0 { State::Down } else { State::Failed };
            return (state, Some(failed(service)));
        }
        if service.desired == 0 && service.declared_tasks > 0 {
            let declared = service.declared_tasks;
            let start = format!("`natsctl scale {name} {declared}` starts it again");
            let scaled = scaled(self.known.records, name, 0);
            return (State::Down, Some(format!("{scaled}: nothing answers its callers; {start}")));
        }
        if ready < service.desired {
            let is_rolling = self.deployment_in_progress().is_some() && !serves_none;
            let reason = self.not_ready();
            return match is_rolling {
                true => (State::RollingOut, Some(format!("rolling out: {reason}"))),
                false => (short, Some(reason)),
            };
        }
        if healthy < service.desired {
            return (short, Some(format!("{healthy} of {} answer on the bus", counted(service.desired, "task"))));
        }
        match self.deployment_in_progress() {
            Some(_) if old_tasks(service).is_some() => (State::RollingOut, None),
            _ => (State::Healthy, None),
        }
    }

    fn deployment_in_progress(&self) -> Option<&Deployment> {
        self.service.deployment().filter(|deployment| deployment.state == DeploymentState::InProgress)
    }

    fn crash_loop(&self) -> Option<String> {
        let last = last_exit(self.service);
        self.service.tasks.iter().filter(|task| task.state != TaskState::Draining).find_map(|task| {
            let exits: Vec<Timestamp> = task.exits_ms.iter().filter_map(|at| timestamp(*at)).collect();
            let by_exits = crash_loop(&exits, last.as_deref(), self.known.now);
            let is_ready = task.state == TaskState::Ready;
            let never_ready = (!is_ready && task.restarts >= LOOP_RESTARTS).then(|| {
                let last = last.as_deref().map(|exit| format!("; the last one {exit}")).unwrap_or_default();
                format!("{} of a task{last}", counted(task.restarts, "restart"))
            });
            by_exits.or(never_ready)
        })
    }

    /// Why a service has fewer tasks that are ready than it should.
    fn not_ready(&self) -> String {
        let service = self.service;
        if self.known.description.supervisor.is_none() {
            return "it does not run".to_owned();
        }
        if let Some(reason) = service.tasks.iter().find_map(|task| task.reason.clone()) {
            return reason;
        }
        let starting = count(service.tasks.iter().filter(|task| task.state == TaskState::Starting));
        match starting {
            0 => format!("{} of {} ready", service.ready(), counted(service.desired, "task")),
            starting => format!("{starting} of {} starting", counted(service.desired, "task")),
        }
    }

    fn flags(&self) -> (Vec<Flag>, Vec<String>) {
        let Self { name, service, known, .. } = *self;
        let (mut flags, mut notes) = (Vec::new(), Vec::new());
        if service.desired != service.declared_tasks {
            flags.push(Flag::ScaledByHand);
            let scaled = scaled(known.records, name, service.desired);
            // Otherwise it is what is wrong with it.
            let is_noted = service.desired > 0;
            let note = || format!("service `{name}`: {scaled}; its manifest says {}", service.declared_tasks);
            notes.extend(is_noted.then(note));
        }
        let revision = service.revision.to_string();
        if let Some(by) = rolled_back(known.records, name, |to| to == revision) {
            flags.push(Flag::RolledBack);
            notes.push(format!(
                "service `{name}`: {by} to revision {revision}; `natsctl deploy {name}` deploys its manifest"
            ));
        }
        (flags, notes)
    }
}

fn old_tasks(service: &Running) -> Option<OldTasks> {
    let old: Vec<&TaskStatus> =
        service.tasks.iter().filter(|task| task.revision != service.revision && task.pid.is_some()).collect();
    let healthy = count(old.iter().filter(|task| task.state == TaskState::Ready));
    (!old.is_empty()).then(|| OldTasks { running: count(old.iter()), healthy })
}

/// How a task exited last, of those that were restarted.
fn last_exit(service: &Running) -> Option<String> {
    let restarted = service.tasks.iter().filter(|task| task.restarts > 0 || task.state == TaskState::Stopped);
    let newest = restarted.filter(|task| task.last_exit.is_some()).max_by_key(|task| task.started_at_ms)?;
    newest.last_exit.as_ref().map(ToString::to_string)
}

/// That the last deployment failed, why, and what runs instead.
fn failed(service: &Running) -> String {
    let failed = service.deployments.iter().find(|deployment| deployment.state == DeploymentState::Failed);
    let reason = failed.and_then(|deployment| deployment.reason.as_deref()).unwrap_or("see `natsctl logs`");
    match failed.filter(|deployment| deployment.revision != service.revision) {
        Some(failed) if service.ready() > 0 => {
            let (new, old) = (failed.revision, service.revision);
            format!("the last deployment failed, of revision {new}; revision {old} runs: {reason}")
        }
        _ => format!("the last deployment failed: {reason}"),
    }
}

pub(super) fn timestamp(unix_ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// Names that were typed, of services that the supervisor has or a manifest describes; all of them if none was typed.
pub(super) fn chosen<'a>(
    typed: &[String],
    known: impl IntoIterator<Item = &'a String>,
) -> anyhow::Result<BTreeSet<String>> {
    let known: BTreeSet<&String> = known.into_iter().collect();
    if typed.is_empty() {
        return Ok(known.into_iter().cloned().collect());
    }
    if let Some(unknown) = typed.iter().find(|name| !known.contains(name)) {
        return Err(crate::manifest::unknown_service(unknown, known.iter().map(|name| name.as_str())).into());
    }
    Ok(typed.iter().cloned().collect())
}

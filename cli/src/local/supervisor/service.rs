//! The controller of one service: decides which tasks to start and which to stop. It has no processes and no clock: it takes events and
//! returns effects, so that tests can try events in any order.

use std::time::{Duration, Instant};

use super::probe::ProbeResult;
use super::saved_state::ServiceRecord;
use super::task::{AfterStop, Moment, State, Target, Task};
use crate::local::protocol::{Accepted, Exit, Force, PutService, ServiceStatus, TaskSpec};
use crate::problem::counted;

/// The deployment circuit breaker: a deployment fails when this many of its tasks have failed.
const MAX_FAILED_TASKS: u32 = 3;

/// A task may become ready right at the end of its start period, and the probe that sees it comes a little later.
const PROBE_MARGIN: Duration = Duration::from_millis(500);

/// What to do to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Start a process for this task.
    Start { task: String, revision: u64 },
    /// Send SIGTERM, so that it drains.
    Terminate { task: String },
    /// Send SIGUSR2, so that a NATS server has its clients and leaders move away, and report when it has none left.
    LameDuck { task: String },
    /// Send SIGINT, at which a NATS server ends that is in lame duck, when it ignores SIGTERM.
    Interrupt { task: String },
    /// Send SIGHUP, so that it reads its configuration again.
    Reload { task: String },
    /// Send SIGKILL.
    Kill { task: String },
    /// Add the last lines of this task's log to the deployment that it made fail.
    RecordLogTail { task: String },
}

/// Why a task cannot be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotStoppable {
    /// The service has no task with this id.
    Unknown,
    /// It is draining already.
    Stopping,
    /// It has exited; its replacement starts after the backoff.
    Exited,
}

#[derive(Clone)]
pub(super) struct ServiceController {
    record: ServiceRecord,
    tasks: Vec<Task>,
    /// Failed tasks of the deployment in progress.
    failed_tasks: u32,
    /// The deployment in progress brings back what ran before. There is nothing to go back to, and what its tasks need may be starting too.
    resuming: bool,
    /// The supervisor is shutting down. The record stays, so that the next supervisor starts the same tasks.
    shutting_down: bool,
    /// Whether the record has changed since it was last saved.
    unsaved: bool,
    effects: Vec<Effect>,
}

impl ServiceController {
    pub(super) fn new() -> Self {
        Self::with(ServiceRecord::default())
    }

    /// Continues from the record that another supervisor saved. Bringing its tasks up again is a deployment, so that a client can wait
    /// until it completes.
    pub(super) fn resume(record: ServiceRecord, now: Moment) -> Self {
        let mut service = Self::with(record);
        if let Some(target) = service.record.target
            && !service.record.failed
            && !service.record.is_in_progress()
        {
            service.record.start_deployment(target.revision, now);
            service.resuming = true;
        }
        service
    }

    fn with(record: ServiceRecord) -> Self {
        Self {
            record,
            tasks: Vec::new(),
            failed_tasks: 0,
            resuming: false,
            shutting_down: false,
            unsaved: true,
            effects: Vec::new(),
        }
    }

    pub(super) fn put(&mut self, put: PutService, now: Moment) -> Accepted {
        self.unsaved = true;
        let steady = self.is_steady() && !self.record.deleting && self.record.desired == put.tasks;
        let rebound = self.record.http != put.http_listen;
        let record = &mut self.record;
        let revision = record.revision_of(put.spec);
        record.declared_tasks = put.declared_tasks;
        record.desired = put.tasks;
        record.http = put.http_listen;
        record.deleting = false;

        let reusable = put.force == Force::IfChanged && !rebound;
        let mut reused = record.target.into_iter().chain(record.last_completed).filter(|_| reusable);
        let reused = reused.find(|target| target.revision == revision);
        let up_to_date = record.is_in_progress() || (steady && !record.failed);
        if let Some(latest) =
            record.deployments.first().filter(|_| reused.is_some() && reused == record.target && up_to_date)
        {
            return Accepted { deployment_id: latest.id, revision };
        }
        let deployment_id = record.start_deployment(revision, now);
        record.target = reused.or(Some(Target { revision, generation: deployment_id }));
        for task in &mut self.tasks {
            task.retry_now(now);
        }
        (self.failed_tasks, self.resuming) = (0, false);
        Accepted { deployment_id, revision }
    }

    pub(super) fn delete(&mut self) {
        self.record.deleting = true;
        self.unsaved = true;
    }

    /// Stops one task as ECS does for `StopTask`: it drains, and no longer counts towards the desired tasks, so another is started at once.
    /// It has not failed: there is no backoff, and the circuit breaker does not count it.
    pub(super) fn stop_task(&mut self, id: &str, now: Moment) -> Result<(), NotStoppable> {
        let index = self.tasks.iter().position(|task| task.id == id).ok_or(NotStoppable::Unknown)?;
        match self.tasks[index].state {
            State::Draining { .. } => return Err(NotStoppable::Stopping),
            State::BackingOff { .. } => return Err(NotStoppable::Exited),
            State::Starting | State::Ready | State::Unready { .. } => {}
        }
        self.drain(index, AfterStop::Remove, now);
        Ok(())
    }

    /// Ids of the tasks that [`Self::stop_task`] can stop.
    pub(super) fn stoppable_tasks(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().filter(|task| task.is_active()).map(|task| task.id.as_str())
    }

    pub(super) fn shut_down(&mut self) {
        self.shutting_down = true;
    }

    pub(super) fn is_deleting(&self) -> bool {
        self.record.deleting
    }

    pub(super) fn has_processes(&self) -> bool {
        self.tasks.iter().any(|task| !matches!(task.state, State::BackingOff { .. }))
    }

    pub(super) fn record(&self) -> &ServiceRecord {
        &self.record
    }

    pub(super) fn take_unsaved(&mut self) -> bool {
        std::mem::take(&mut self.unsaved)
    }

    pub(super) fn spec(&self, revision: u64) -> Option<&TaskSpec> {
        self.record.revisions.get(&revision).map(|stored| &stored.spec)
    }

    pub(super) fn status(&self) -> Option<ServiceStatus> {
        let tasks = self.tasks.iter().map(Task::status).collect();
        Some(ServiceStatus { tasks, ..self.record.status()? })
    }

    pub(super) fn started(&mut self, id: &str, pid: u32, health_port: u16) {
        if let Some(task) = self.tasks.iter_mut().find(|task| task.id == id) {
            task.pid = Some(pid);
            task.health_port = Some(health_port);
        }
    }

    pub(super) fn record_log_tail(&mut self, id: &str, log_tail: Vec<String>) {
        let deployment = self.record.deployments.iter_mut().find(|deployment| deployment.task.as_deref() == Some(id));
        if let Some(deployment) = deployment {
            deployment.log_tail = log_tail;
            self.unsaved = true;
        }
    }

    pub(super) fn probed(&mut self, id: &str, result: ProbeResult, now: Moment) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == id && task.is_active()) else {
            return;
        };
        let Some(stored) = self.record.revisions.get(&task.target.revision) else {
            return;
        };
        let was_ready = task.state != State::Starting;
        match result.readiness {
            Ok(()) if !task.is_ready() => {
                task.state = State::Ready;
                task.ready_since = Some(now.at);
                task.reason = None;
            }
            Ok(()) => {}
            Err(reason) => {
                task.reason = Some(format!("`GET /readyz` {reason}"));
                if task.is_ready() {
                    task.state = State::Unready { since: now.at };
                }
            }
        }
        match result.liveness {
            Err(reason) if was_ready => {
                task.failed_probes += 1;
                if task.failed_probes >= stored.spec.definition.health.retries.max(1) {
                    task.reason =
                        Some(format!("`GET /livez` {reason}, {} in a row", counted(task.failed_probes, "time")));
                    task.state = State::Draining { kill_at: now.at, killed: true, after: AfterStop::Replace };
                    self.effects.push(Effect::Kill { task: task.id.clone() });
                }
            }
            _ => task.failed_probes = 0,
        }
    }

    pub(super) fn exited(&mut self, id: &str, exit: Exit, now: Moment) {
        let Some(index) = self.tasks.iter().position(|task| task.id == id) else {
            return;
        };
        let task = &mut self.tasks[index];
        let was_asked_to = matches!(task.state, State::Draining { after: AfterStop::Remove, .. });
        if was_asked_to || Some(task.target) != self.record.target {
            self.tasks.remove(index);
            return;
        }
        let (id, when) = (&task.id, if task.ready_since.is_some() { "after" } else { "before" });
        let (reason, was_killed) = match (&task.state, &task.reason) {
            (State::Draining { .. }, Some(reason)) => (format!("task `{id}` was killed: {reason}"), true),
            _ => (format!("task `{id}` {exit} {when} it was ready"), false),
        };
        if !was_killed {
            task.reason = Some(exit.to_string());
        }
        let id = id.clone();
        let may_come_up = self.resuming && !matches!(exit, Exit::NotStarted(_));
        task.last_exit = Some(exit);
        task.back_off(now);
        if self.record.is_in_progress() && !may_come_up {
            self.failed_tasks += 1;
            if self.failed_tasks >= MAX_FAILED_TASKS {
                self.fail(&id, format!("{reason}; {MAX_FAILED_TASKS} new tasks have ended"), now);
            }
        }
    }

    fn fail(&mut self, id: &str, reason: String, now: Moment) {
        self.record.fail(id, reason, now);
        self.unsaved = true;
        self.effects.push(Effect::RecordLogTail { task: id.to_owned() });
    }

    /// Compares the tasks with the desired ones and returns what to do about the difference. Without an event or a deadline in between, the
    /// second call returns nothing.
    pub(super) fn reconcile(&mut self, now: Moment) -> Vec<Effect> {
        self.enforce_deadlines(now);
        self.stop_other_generations(now);
        self.stop_surplus(now);
        self.start_missing(now);
        self.complete_deployment(now);
        std::mem::take(&mut self.effects)
    }

    /// When to call [`Self::reconcile`] even if no event has come.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tasks.iter().filter_map(|task| self.deadline_of(task)).min()
    }

    fn deadline_of(&self, task: &Task) -> Option<Instant> {
        let start_period = || self.spec(task.target.revision).map(|spec| spec.definition.health.start_period);
        match task.state {
            State::Starting => Some(task.started.at + start_period()? + PROBE_MARGIN),
            State::Unready { since } if self.record.is_in_progress() => Some(since + start_period()? + PROBE_MARGIN),
            State::Draining { kill_at, killed: false, .. } => Some(kill_at),
            State::BackingOff { until } => Some(until),
            _ => None,
        }
    }

    fn desired_count(&self) -> usize {
        if self.shutting_down || self.record.deleting || self.record.target.is_none() {
            return 0;
        }
        self.record.desired as usize
    }

    fn is_current(&self, task: &Task) -> bool {
        Some(task.target) == self.record.target
    }

    /// ECS calls it the steady state: every desired task is ready, and there are no others.
    fn is_steady(&self) -> bool {
        let as_desired = |task: &Task| self.is_current(task) && task.is_ready();
        self.tasks.len() == self.desired_count() && self.tasks.iter().all(as_desired)
    }

    fn enforce_deadlines(&mut self, now: Moment) {
        for index in 0..self.tasks.len() {
            if self.deadline_of(&self.tasks[index]).is_none_or(|deadline| now.at < deadline) {
                continue;
            }
            let task = &mut self.tasks[index];
            match &mut task.state {
                State::Draining { killed, .. } => {
                    *killed = true;
                    self.effects.push(Effect::Kill { task: task.id.clone() });
                }
                State::Starting | State::Unready { .. } => self.stop_unready(index, now),
                State::Ready | State::BackingOff { .. } => {}
            }
        }
    }

    /// Stops and replaces a task that was not ready in time; the deployment that it belongs to fails.
    fn stop_unready(&mut self, index: usize, now: Moment) {
        let task = &self.tasks[index];
        let start_period =
            self.spec(task.target.revision).map(|spec| spec.definition.health.start_period).unwrap_or_default();
        let again = if task.ready_since.is_some() { " again" } else { "" };
        let check = task.reason.as_deref().unwrap_or("`GET /readyz` was not answered").to_owned();
        let reason = format!("task `{}` was not ready{again} within {start_period:?}: {check}", task.id);
        let id = task.id.clone();
        if self.is_current(task) && self.record.is_in_progress() && !self.resuming {
            self.fail(&id, reason, now);
        }
        self.drain(index, AfterStop::Replace, now);
    }

    fn drain(&mut self, index: usize, after: AfterStop, now: Moment) {
        let revision = self.tasks[index].target.revision;
        let stop_timeout = self.spec(revision).map(|spec| spec.definition.stop_timeout).unwrap_or_default();
        let task = &mut self.tasks[index];
        task.drain(now.at + stop_timeout, after);
        self.effects.push(Effect::Terminate { task: task.id.clone() });
    }

    /// Rolls on: each current task that is ready replaces one task of another generation. The others keep serving.
    fn stop_other_generations(&mut self, now: Moment) {
        let target = self.record.target;
        self.tasks.retain(|task| Some(task.target) == target || !matches!(task.state, State::BackingOff { .. }));
        let ready = self.tasks.iter().filter(|task| self.is_current(task) && task.is_ready()).count();
        let needed = self.desired_count().saturating_sub(ready);

        let last_completed = |task: &Task| Some(task.target) == self.record.last_completed;
        let mut others: Vec<usize> = (0..self.tasks.len()).collect();
        others.retain(|index| !self.is_current(&self.tasks[*index]) && self.tasks[*index].is_active());
        others.sort_by_key(|index| {
            let task = &self.tasks[*index];
            (!task.is_ready(), !last_completed(task), task.started.at)
        });
        let keep = |task: &Task| task.state != State::Starting || last_completed(task);
        let stopped: Vec<usize> = others
            .into_iter()
            .enumerate()
            .filter(|(position, index)| *position >= needed || !keep(&self.tasks[*index]))
            .map(|(_, index)| index)
            .collect();
        for index in stopped {
            self.drain(index, AfterStop::Remove, now);
        }
    }

    /// Scales in: tasks that are not ready stop first, then the newest.
    fn stop_surplus(&mut self, now: Moment) {
        let mut current: Vec<usize> = (0..self.tasks.len()).collect();
        current.retain(|index| self.is_current(&self.tasks[*index]) && self.tasks[*index].counts_as_desired());
        current.sort_by_key(|index| {
            let task = &self.tasks[*index];
            (!task.is_active(), !task.is_ready(), task.started.at)
        });
        for index in current.into_iter().skip(self.desired_count()) {
            match &mut self.tasks[index].state {
                State::Draining { after, .. } => *after = AfterStop::Remove,
                State::BackingOff { .. } => {}
                State::Starting | State::Ready | State::Unready { .. } => self.drain(index, AfterStop::Remove, now),
            }
        }
        if self.desired_count() == 0 {
            self.tasks.retain(|task| !matches!(task.state, State::BackingOff { .. }));
        }
    }

    /// Scales out, and restarts tasks whose backoff is over.
    fn start_missing(&mut self, now: Moment) {
        let Some(target) = self.record.target else { return };
        let desired = self.desired_count();
        let mut count = self.tasks.iter().filter(|task| self.is_current(task) && task.counts_as_desired()).count();
        self.tasks.retain(|task| {
            let surplus = count > desired && matches!(task.state, State::BackingOff { .. });
            count -= usize::from(surplus);
            !surplus
        });
        for task in &mut self.tasks {
            if matches!(task.state, State::BackingOff { until } if until <= now.at) {
                *task = task.replacement(now);
                self.effects.push(Effect::Start { task: task.id.clone(), revision: target.revision });
            }
        }
        for _ in count..desired {
            let task = Task::new(target, now);
            self.effects.push(Effect::Start { task: task.id.clone(), revision: target.revision });
            self.tasks.push(task);
        }
    }

    /// A deployment completes when the service reaches its steady state; so ends a failure that had nothing to go back to.
    fn complete_deployment(&mut self, now: Moment) {
        if !self.is_steady() || self.shutting_down || self.record.deleting {
            return;
        }
        if self.record.is_in_progress() {
            self.record.complete(now);
            (self.unsaved, self.resuming) = (true, false);
        } else if self.record.recovers {
            (self.record.failed, self.record.recovers) = (false, false);
            self.unsaved = true;
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;

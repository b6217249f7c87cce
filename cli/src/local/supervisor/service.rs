//! The rollout: which tasks of one service to start and which to stop. No processes and no clock here; it is told what happens and says what
//! to do, so that every order of events can be tried.

use std::time::{Duration, Instant};

use super::record::Record;
use super::task::{Moment, State, Target, Task, Then};
use crate::local::protocol::{Accepted, Exit, Force, PutService, ServiceStatus, TaskSpec};

/// So many ends of new tasks make a deployment fail.
const TOLERATED_EXITS: u32 = 3;

/// A task that is ready at the last moment is seen a little later.
const MARGIN: Duration = Duration::from_millis(500);

/// What to do to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Start a process for this task.
    Start { task: String, revision: u64 },
    /// Ask it to finish what it has begun.
    Terminate { task: String },
    /// End it.
    Kill { task: String },
    /// Put the end of this task's log into the deployment that has failed.
    Explain { task: String },
}

/// What the health endpoints of a task said.
#[derive(Clone, Debug)]
pub(super) struct Health {
    pub(super) live: Result<(), String>,
    pub(super) ready: Result<(), String>,
}

/// Why a task cannot be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotStoppable {
    /// The service has no task with this id.
    Unknown,
    /// It was asked to stop before.
    Stopping,
    /// It has ended by itself; another is started in its place after its backoff.
    Ended,
}

pub(super) struct Service {
    record: Record,
    tasks: Vec<Task>,
    /// How many new tasks have ended in the deployment under way.
    exits: u32,
    /// The whole fleet is going down, and is to come up again as it was.
    halted: bool,
    /// Whether the record differs from the one that was saved.
    unsaved: bool,
    effects: Vec<Effect>,
}

impl Service {
    pub(super) fn new() -> Self {
        Self::with(Record::default())
    }

    /// Goes on where another supervisor ended. A deployment that had ended well is begun again, so that its end can be waited for.
    pub(super) fn resume(record: Record, now: Moment) -> Self {
        let mut service = Self::with(record);
        if let Some(target) = service.record.target
            && !service.record.failed
            && !service.record.is_in_progress()
        {
            service.record.begin_deployment(target.revision, now);
        }
        service
    }

    fn with(record: Record) -> Self {
        Self { record, tasks: Vec::new(), exits: 0, halted: false, unsaved: true, effects: Vec::new() }
    }

    pub(super) fn put(&mut self, put: PutService, now: Moment) -> Accepted {
        self.unsaved = true;
        let settled = self.is_settled() && !self.record.deleting && self.record.desired == put.tasks;
        let rebound = self.record.http != put.http_listen;
        let record = &mut self.record;
        let revision = record.revision_of(put.spec);
        record.declared_tasks = put.declared_tasks;
        record.desired = put.tasks;
        record.http = put.http_listen;
        record.deleting = false;

        let reusable = put.force == Force::IfChanged && !rebound;
        let mut known = record.target.into_iter().chain(record.proven).filter(|_| reusable);
        let known = known.find(|target| target.revision == revision);
        let under_way = record.is_in_progress() || (settled && !record.failed);
        if let Some(latest) =
            record.deployments.first().filter(|_| known.is_some() && known == record.target && under_way)
        {
            return Accepted { deployment_id: latest.id, revision };
        }
        let deployment_id = record.begin_deployment(revision, now);
        record.target = known.or(Some(Target { revision, generation: deployment_id }));
        for task in &mut self.tasks {
            task.retry_now(now);
        }
        self.exits = 0;
        Accepted { deployment_id, revision }
    }

    pub(super) fn delete(&mut self) {
        self.record.deleting = true;
        self.unsaved = true;
    }

    /// Stops one task as ECS does after `StopTask`: it drains, and its place is free for another at once. It has not failed, so neither
    /// backoff nor circuit breaker know of it.
    pub(super) fn stop_task(&mut self, id: &str, now: Moment) -> Result<(), NotStoppable> {
        let index = self.tasks.iter().position(|task| task.id == id).ok_or(NotStoppable::Unknown)?;
        match self.tasks[index].state {
            State::Draining { .. } => return Err(NotStoppable::Stopping),
            State::Waiting { .. } => return Err(NotStoppable::Ended),
            State::Starting | State::Ready | State::Unready { .. } => {}
        }
        self.drain(index, Then::Forget, now);
        Ok(())
    }

    /// Ids of the tasks that [`Self::stop_task`] can stop.
    pub(super) fn stoppable_tasks(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().filter(|task| task.is_alive()).map(|task| task.id.as_str())
    }

    pub(super) fn halt(&mut self) {
        self.halted = true;
    }

    pub(super) fn is_deleting(&self) -> bool {
        self.record.deleting
    }

    pub(super) fn has_processes(&self) -> bool {
        self.tasks.iter().any(|task| !matches!(task.state, State::Waiting { .. }))
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn take_unsaved(&mut self) -> bool {
        std::mem::take(&mut self.unsaved)
    }

    pub(super) fn spec(&self, revision: u64) -> Option<&TaskSpec> {
        self.record.revisions.get(&revision).map(|kept| &kept.spec)
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

    pub(super) fn explained(&mut self, id: &str, log_tail: Vec<String>) {
        let deployment = self.record.deployments.iter_mut().find(|deployment| deployment.task.as_deref() == Some(id));
        if let Some(deployment) = deployment {
            deployment.log_tail = log_tail;
            self.unsaved = true;
        }
    }

    pub(super) fn probed(&mut self, id: &str, health: Health, now: Moment) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == id && task.is_alive()) else {
            return;
        };
        let Some(kept) = self.record.revisions.get(&task.target.revision) else {
            return;
        };
        let was_ready = task.state != State::Starting;
        match health.ready {
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
        match health.live {
            Err(reason) if was_ready => {
                task.failed_checks += 1;
                if task.failed_checks >= kept.spec.definition.health.retries.max(1) {
                    task.reason = Some(format!("`GET /livez` {reason}, {} times in a row", task.failed_checks));
                    task.state = State::Draining { kill_at: now.at, killed: true, then: Then::Replace };
                    self.effects.push(Effect::Kill { task: task.id.clone() });
                }
            }
            _ => task.failed_checks = 0,
        }
    }

    pub(super) fn exited(&mut self, id: &str, exit: Exit, now: Moment) {
        let Some(index) = self.tasks.iter().position(|task| task.id == id) else {
            return;
        };
        let task = &mut self.tasks[index];
        let asked_to = matches!(task.state, State::Draining { then: Then::Forget, .. });
        if asked_to || Some(task.target) != self.record.target {
            self.tasks.remove(index);
            return;
        }
        let (id, when) = (&task.id, if task.ready_since.is_some() { "after" } else { "before" });
        let (reason, condemned) = match (&task.state, &task.reason) {
            (State::Draining { .. }, Some(reason)) => (format!("task `{id}` was killed: {reason}"), true),
            _ => (format!("task `{id}` {exit} {when} it was ready"), false),
        };
        if !condemned {
            task.reason = Some(exit.to_string());
        }
        let id = id.clone();
        task.last_exit = Some(exit);
        task.wait(now);
        if self.record.is_in_progress() {
            self.exits += 1;
            if self.exits >= TOLERATED_EXITS {
                self.fail(&id, format!("{reason}; {TOLERATED_EXITS} new tasks have ended"), now);
            }
        }
    }

    fn fail(&mut self, id: &str, reason: String, now: Moment) {
        self.record.fail(id, reason, now);
        self.unsaved = true;
        self.effects.push(Effect::Explain { task: id.to_owned() });
    }

    /// What is to be done now. Nothing, if nothing has happened since it was last asked.
    pub(super) fn reconcile(&mut self, now: Moment) -> Vec<Effect> {
        self.expire(now);
        self.stop_others(now);
        self.stop_surplus(now);
        self.start_missing(now);
        self.conclude(now);
        std::mem::take(&mut self.effects)
    }

    /// When to ask next, even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tasks.iter().filter_map(|task| self.expiry(task)).min()
    }

    fn expiry(&self, task: &Task) -> Option<Instant> {
        let patience = || self.spec(task.target.revision).map(|spec| spec.definition.health.start_period);
        match task.state {
            State::Starting => Some(task.started.at + patience()? + MARGIN),
            State::Unready { since } if self.record.is_in_progress() => Some(since + patience()? + MARGIN),
            State::Draining { kill_at, killed: false, .. } => Some(kill_at),
            State::Waiting { until } => Some(until),
            _ => None,
        }
    }

    fn wanted(&self) -> usize {
        if self.halted || self.record.deleting || self.record.target.is_none() {
            return 0;
        }
        self.record.desired as usize
    }

    fn is_current(&self, task: &Task) -> bool {
        Some(task.target) == self.record.target
    }

    fn is_settled(&self) -> bool {
        let as_wanted = |task: &Task| self.is_current(task) && task.is_ready();
        self.tasks.len() == self.wanted() && self.tasks.iter().all(as_wanted)
    }

    fn expire(&mut self, now: Moment) {
        for index in 0..self.tasks.len() {
            if self.expiry(&self.tasks[index]).is_none_or(|expiry| now.at < expiry) {
                continue;
            }
            let task = &mut self.tasks[index];
            match &mut task.state {
                State::Draining { killed, .. } => {
                    *killed = true;
                    self.effects.push(Effect::Kill { task: task.id.clone() });
                }
                State::Starting | State::Unready { .. } => self.give_up(index, now),
                State::Ready | State::Waiting { .. } => {}
            }
        }
    }

    /// A task was not ready in time.
    fn give_up(&mut self, index: usize, now: Moment) {
        let task = &self.tasks[index];
        let patience =
            self.spec(task.target.revision).map(|spec| spec.definition.health.start_period).unwrap_or_default();
        let again = if task.ready_since.is_some() { " again" } else { "" };
        let check = task.reason.as_deref().unwrap_or("`GET /readyz` was not answered").to_owned();
        let reason = format!("task `{}` was not ready{again} within {patience:?}: {check}", task.id);
        let id = task.id.clone();
        if self.is_current(task) && self.record.is_in_progress() {
            self.fail(&id, reason, now);
        }
        self.drain(index, Then::Replace, now);
    }

    fn drain(&mut self, index: usize, then: Then, now: Moment) {
        let revision = self.tasks[index].target.revision;
        let patience = self.spec(revision).map(|spec| spec.definition.stop_timeout).unwrap_or_default();
        let task = &mut self.tasks[index];
        task.drain(now.at + patience, then);
        self.effects.push(Effect::Terminate { task: task.id.clone() });
    }

    /// Tasks of other generations stay while they are needed to serve: for each current task that is ready, one of them goes.
    fn stop_others(&mut self, now: Moment) {
        let target = self.record.target;
        self.tasks.retain(|task| Some(task.target) == target || !matches!(task.state, State::Waiting { .. }));
        let ready = self.tasks.iter().filter(|task| self.is_current(task) && task.is_ready()).count();
        let needed = self.wanted().saturating_sub(ready);

        let proven = |task: &Task| Some(task.target) == self.record.proven;
        let mut others: Vec<usize> = (0..self.tasks.len()).collect();
        others.retain(|index| !self.is_current(&self.tasks[*index]) && self.tasks[*index].is_alive());
        others.sort_by_key(|index| {
            let task = &self.tasks[*index];
            (!task.is_ready(), !proven(task), task.started.at)
        });
        let keep = |task: &Task| task.state != State::Starting || proven(task);
        let stopped: Vec<usize> = others
            .into_iter()
            .enumerate()
            .filter(|(position, index)| *position >= needed || !keep(&self.tasks[*index]))
            .map(|(_, index)| index)
            .collect();
        for index in stopped {
            self.drain(index, Then::Forget, now);
        }
    }

    /// Those that do not serve go first, then the newest.
    fn stop_surplus(&mut self, now: Moment) {
        let mut current: Vec<usize> = (0..self.tasks.len()).collect();
        current.retain(|index| self.is_current(&self.tasks[*index]) && self.tasks[*index].holds_place());
        current.sort_by_key(|index| {
            let task = &self.tasks[*index];
            (!task.is_alive(), !task.is_ready(), task.started.at)
        });
        for index in current.into_iter().skip(self.wanted()) {
            match &mut self.tasks[index].state {
                State::Draining { then, .. } => *then = Then::Forget,
                State::Waiting { .. } => {}
                State::Starting | State::Ready | State::Unready { .. } => self.drain(index, Then::Forget, now),
            }
        }
        if self.wanted() == 0 {
            self.tasks.retain(|task| !matches!(task.state, State::Waiting { .. }));
        }
    }

    fn start_missing(&mut self, now: Moment) {
        let Some(target) = self.record.target else { return };
        let wanted = self.wanted();
        let mut places = self.tasks.iter().filter(|task| self.is_current(task) && task.holds_place()).count();
        self.tasks.retain(|task| {
            let spare = places > wanted && matches!(task.state, State::Waiting { .. });
            places -= usize::from(spare);
            !spare
        });
        for task in &mut self.tasks {
            if matches!(task.state, State::Waiting { until } if until <= now.at) {
                *task = task.successor(now);
                self.effects.push(Effect::Start { task: task.id.clone(), revision: target.revision });
            }
        }
        for _ in places..wanted {
            let task = Task::new(target, now);
            self.effects.push(Effect::Start { task: task.id.clone(), revision: target.revision });
            self.tasks.push(task);
        }
    }

    /// A deployment has ended well when every desired task is ready, and no other is left.
    fn conclude(&mut self, now: Moment) {
        if self.is_settled() && !self.halted && !self.record.deleting && self.record.is_in_progress() {
            self.record.complete(now);
            self.unsaved = true;
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;

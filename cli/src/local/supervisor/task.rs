//! One task of a service, as its controller sees it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use crate::local::protocol::{Exit, TaskState, TaskStatus};

/// A point in time, on the monotonic clock and on the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    pub(super) unix_ms: u64,
}

impl Moment {
    pub(super) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { at: Instant::now(), unix_ms: since.as_millis().try_into().unwrap_or(u64::MAX) }
    }
}

/// What a service should run. A generation is the id of the deployment that first started its tasks: a forced deployment of the same
/// revision is another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) revision: u64,
    pub(super) generation: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) target: Target,
    pub(super) state: State,
    pub(super) started: Moment,
    pub(super) pid: Option<u32>,
    pub(super) health_port: Option<u16>,
    pub(super) ready_since: Option<Instant>,
    pub(super) failed_probes: u32,
    pub(super) restarts: u32,
    pub(super) backoff: Backoff,
    pub(super) last_exit: Option<Exit>,
    pub(super) reason: Option<String>,
    /// When it, and those that it replaces, exited unexpectedly after they had been ready.
    exits_ms: Vec<u64>,
}

/// So many exits are remembered.
const EXITS: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Ready,
    Unready {
        since: Instant,
    },
    Draining {
        kill_at: Instant,
        killed: bool,
        after: AfterStop,
    },
    /// It exited without being asked to; its replacement starts at this time.
    BackingOff {
        until: Instant,
    },
}

/// What happens when a draining task has exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterStop {
    /// It is removed from the service.
    Remove,
    /// Another is started in its place.
    Replace,
}

impl Task {
    pub(super) fn new(target: Target, now: Moment) -> Self {
        Self {
            id: format!("{:08x}", fastrand::u32(..)),
            target,
            state: State::Starting,
            started: now,
            pid: None,
            health_port: None,
            ready_since: None,
            failed_probes: 0,
            restarts: 0,
            backoff: Backoff::default(),
            last_exit: None,
            reason: None,
            exits_ms: Vec::new(),
        }
    }

    /// The task that is started after the backoff of this one.
    pub(super) fn replacement(&self, now: Moment) -> Self {
        Self {
            restarts: self.restarts + 1,
            backoff: self.backoff,
            last_exit: self.last_exit.clone(),
            exits_ms: self.exits_ms.clone(),
            ..Self::new(self.target, now)
        }
    }

    /// Whether it runs and was not asked to stop.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, State::Starting | State::Ready | State::Unready { .. })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether it counts towards the desired number of tasks, as itself or through its replacement.
    pub(super) fn counts_as_desired(&self) -> bool {
        self.is_active()
            || matches!(self.state, State::BackingOff { .. } | State::Draining { after: AfterStop::Replace, .. })
    }

    pub(super) fn drain(&mut self, kill_at: Instant, after: AfterStop) {
        self.state = State::Draining { kill_at, killed: false, after };
    }

    /// It has exited without being asked to.
    pub(super) fn back_off(&mut self, now: Moment) {
        let healthy_for = self.ready_since.map_or(Duration::ZERO, |since| now.at - since);
        if self.ready_since.is_some() {
            self.exits_ms.push(now.unix_ms);
            self.exits_ms.drain(..self.exits_ms.len().saturating_sub(EXITS));
        }
        self.state = State::BackingOff { until: now.at + self.backoff.next(healthy_for) };
        self.pid = None;
        self.health_port = None;
    }

    pub(super) fn retry_now(&mut self, now: Moment) {
        if let State::BackingOff { until } = &mut self.state {
            *until = now.at;
        }
    }

    pub(super) fn status(&self) -> TaskStatus {
        TaskStatus {
            id: self.id.clone(),
            revision: self.target.revision,
            generation: self.target.generation,
            pid: self.pid,
            state: match self.state {
                State::Starting => TaskState::Starting,
                State::Ready => TaskState::Ready,
                State::Unready { .. } => TaskState::Unready,
                State::Draining { .. } => TaskState::Draining,
                State::BackingOff { .. } => TaskState::Stopped,
            },
            started_at_ms: self.started.unix_ms,
            restarts: self.restarts,
            health_port: self.health_port,
            last_exit: self.last_exit.clone(),
            reason: self.reason.clone(),
            exits_ms: self.exits_ms.clone(),
        }
    }
}

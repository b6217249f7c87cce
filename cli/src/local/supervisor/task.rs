//! One process of a service, as the rollout sees it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use crate::local::protocol::{Exit, TaskState, TaskStatus};

/// Now, on the clock that never jumps and on the one that people read.
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

/// What a service is to run. Tasks of one generation were started for the same deployment; the same revision can have many.
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
    pub(super) failed_checks: u32,
    pub(super) restarts: u32,
    pub(super) backoff: Backoff,
    pub(super) last_exit: Option<Exit>,
    pub(super) reason: Option<String>,
}

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
        then: Then,
    },
    /// It ended by itself; another is started in its place at this time.
    Waiting {
        until: Instant,
    },
}

/// What happens when a draining task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It is forgotten.
    Forget,
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
            failed_checks: 0,
            restarts: 0,
            backoff: Backoff::default(),
            last_exit: None,
            reason: None,
        }
    }

    /// The task that takes the place of this one.
    pub(super) fn successor(&self, now: Moment) -> Self {
        Self {
            restarts: self.restarts + 1,
            backoff: self.backoff,
            last_exit: self.last_exit.clone(),
            ..Self::new(self.target, now)
        }
    }

    /// Whether it runs and was not told to stop.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, State::Starting | State::Ready | State::Unready { .. })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether it fills one of the places that a service has for its tasks.
    pub(super) fn holds_place(&self) -> bool {
        self.is_alive() || matches!(self.state, State::Waiting { .. } | State::Draining { then: Then::Replace, .. })
    }

    pub(super) fn drain(&mut self, kill_at: Instant, then: Then) {
        self.state = State::Draining { kill_at, killed: false, then };
    }

    /// It has ended by itself.
    pub(super) fn wait(&mut self, now: Moment) {
        let healthy_for = self.ready_since.map_or(Duration::ZERO, |since| now.at - since);
        self.state = State::Waiting { until: now.at + self.backoff.next(healthy_for) };
        self.pid = None;
        self.health_port = None;
    }

    pub(super) fn retry_now(&mut self, now: Moment) {
        if let State::Waiting { until } = &mut self.state {
            *until = now.at;
        }
    }

    pub(super) fn status(&self) -> TaskStatus {
        TaskStatus {
            id: self.id.clone(),
            revision: self.target.revision,
            pid: self.pid,
            state: match self.state {
                State::Starting => TaskState::Starting,
                State::Ready => TaskState::Ready,
                State::Unready { .. } => TaskState::Unready,
                State::Draining { .. } => TaskState::Draining,
                State::Waiting { .. } => TaskState::Stopped,
            },
            started_at_ms: self.started.unix_ms,
            restarts: self.restarts,
            health_port: self.health_port,
            last_exit: self.last_exit.clone(),
            reason: self.reason.clone(),
        }
    }
}

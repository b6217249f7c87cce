//! How a service is: its tasks, old and new, and what is wrong with it.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::problem::counted;

/// So many exits of a task that was ready, within [`LOOP_WITHIN`], are no accident any more.
const LOOP_EXITS: usize = 3;
const LOOP_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// How a service is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServiceStatus {
    pub(crate) name: String,
    pub(crate) state: State,
    /// Tasks that should run.
    pub(crate) desired: u32,
    /// Tasks of the current revision whose processes run.
    pub(crate) running: u32,
    /// Tasks of the current revision that are ready and answer on the bus; where the bus cannot be asked, that run.
    pub(crate) healthy: u32,
    /// Tasks of earlier revisions, while there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) old: Option<OldTasks>,
    pub(crate) revision: u64,
    pub(crate) version: String,
    /// With its digest, where there are images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// How often its tasks were restarted after they had exited unexpectedly, as far as that is still known.
    pub(crate) restarts: u32,
    /// When its newest task started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<Timestamp>,
    /// How a task of it exited last, unexpectedly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_exit: Option<String>,
    /// How its last deployment goes, where that is another one's business.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollout: Option<Rollout>,
    /// Alarms that fire, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) alarms: Vec<String>,
    /// In what it is not as the last deployment left it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) flags: Vec<Flag>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// In one word, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// No task of it serves, though some should.
    Down,
    /// Its tasks exit again and again.
    CrashLoop,
    /// Its last deployment failed.
    Failed,
    /// Something else is wrong with it.
    Degraded,
    /// Its tasks are being replaced or started.
    RollingOut,
    Healthy,
}

impl State {
    /// For people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Down => "DOWN",
            Self::CrashLoop => "crash loop",
            Self::Failed => "failed",
            Self::Degraded => "degraded",
            Self::RollingOut => "rolling out",
            Self::Healthy => "healthy",
        }
    }
}

/// Tasks of earlier revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct OldTasks {
    pub(crate) running: u32,
    /// Those that serve; where the bus cannot be asked, that run.
    pub(crate) healthy: u32,
}

/// In what a service is not as the last deployment left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Flag {
    /// Another number of tasks runs than its manifest said, by `scale` or another tool.
    ScaledByHand,
    /// `rollback` brought it back to an earlier revision.
    RolledBack,
}

impl Flag {
    /// For people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::ScaledByHand => "scaled by hand",
            Self::RolledBack => "rolled back",
        }
    }
}

/// How the last deployment of a service goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Rollout {
    /// `in_progress`, `completed` or `failed`.
    pub(crate) state: String,
    /// What the platform says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl ServiceStatus {
    /// Tasks of any revision that serve.
    pub(crate) fn serving(&self) -> u32 {
        self.healthy + self.old.map_or(0, |old| old.healthy)
    }

    /// `2/2`, and while tasks are replaced `2/2 serving, new 0/2`.
    pub(crate) fn tasks(&self) -> String {
        match self.old {
            None => format!("{}/{}", self.healthy, self.desired),
            Some(_) => {
                format!("{}/{} serving, new {}/{}", self.serving(), self.desired, self.healthy, self.desired)
            }
        }
    }
}

/// Why a service is said to be in a crash loop, by when its tasks exited unexpectedly; `None` if it is in none.
pub(crate) fn crash_loop(exits: &[Timestamp], last_exit: Option<&str>, now: Timestamp) -> Option<String> {
    let recent = exits.iter().filter(|exit| now.duration_since(**exit) <= LOOP_WITHIN).count();
    if recent < LOOP_EXITS {
        return None;
    }
    let last = last_exit.map(|exit| format!("; the last one {exit}")).unwrap_or_default();
    let exits = counted(recent, "task");
    Some(format!("{exits} exited within {} minutes{last}", LOOP_WITHIN.as_mins()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seconds_ago: &[i64], expected: Option<&str>) {
        let now: Timestamp = "2026-11-30T17:00:00Z".parse().unwrap();
        let exits: Vec<Timestamp> = seconds_ago.iter().map(|ago| now - SignedDuration::from_secs(*ago)).collect();
        assert_eq!(crash_loop(&exits, Some("exited with code 1"), now).as_deref(), expected);
    }

    #[test]
    fn three_exits_within_ten_minutes_are_a_crash_loop() {
        check(&[], None);
        check(&[10, 20], None);
        check(&[10, 20, 601], None);
        check(&[10, 20, 600], Some("3 tasks exited within 10 minutes; the last one exited with code 1"));
    }
}

//! What lists show of an environment: tasks, revisions, and how two revisions differ. The same for every platform.

use jiff::Timestamp;
use serde::Serialize;

use super::step::FieldChange;

/// A task in the list that `natsctl tasks` shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ListedTask {
    pub(crate) id: String,
    /// Name of its service; `None` for a task that runs on its own.
    pub(crate) service: Option<String>,
    /// Which revision of its service it runs.
    pub(crate) revision: u64,
    /// `PENDING`, `RUNNING`, `STOPPING`, `STOPPED`, …
    pub(crate) status: String,
    /// `HEALTHY`, `UNHEALTHY` or `UNKNOWN`.
    pub(crate) health: String,
    pub(crate) zone: Option<String>,
    /// Private address; on this machine that of its health endpoints.
    pub(crate) address: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) stopped: Option<Timestamp>,
    /// Why it stopped, or is not ready.
    pub(crate) reason: Option<String>,
    pub(crate) exit_code: Option<i32>,
    /// How many tasks in its place have exited unexpectedly before it, where the platform counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restarts: Option<u32>,
    /// Memory that its process uses, where that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_mib: Option<u64>,
}

/// Which tasks are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// Those that run or are about to.
    Running,
    /// Those that have stopped, as long as the platform remembers them.
    Stopped,
}

/// One revision of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Revision {
    pub(crate) revision: u64,
    #[serde(rename = "kept")]
    pub(crate) uses: Vec<Use>,
    /// What it runs: an image, or on this machine the version of a binary.
    pub(crate) image: String,
    /// When it was registered, or on this machine first deployed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registered: Option<Timestamp>,
    /// Who registered it: a user, on AWS the ARN of the caller.
    #[serde(rename = "by")]
    pub(crate) registered_by: String,
    /// Of the sources that it was deployed from, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit: Option<String>,
}

/// What a revision is still needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Use {
    /// The service should run it.
    Current,
    /// A deployment is at it, or moves to it or away from it, so that tasks of it may run.
    Deployment,
    /// `rollback` goes to it.
    RollbackTarget,
    /// The last successful deployment ran it.
    LastDeployed,
}

impl Use {
    /// For people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Current => "runs",
            Self::Deployment => "in a deployment",
            Self::RollbackTarget => "rollback goes to it",
            Self::LastDeployed => "last one that was deployed successfully",
        }
    }
}

/// What is compared with what.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Between {
    /// What runs, if `None`.
    pub(crate) from: Option<u64>,
    /// What the manifest says, if `None`.
    pub(crate) to: Option<u64>,
}

/// Two revisions of a service, compared.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) service: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) changes: Vec<FieldChange>,
}

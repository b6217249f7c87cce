//! What outlives the supervisor: what should run, under which revision numbers, and how the last deployments went.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::node::NodeController;
use super::task::{Moment, Target};
use crate::local::dir::Dir;
use crate::local::protocol::{Deployment, DeploymentState, Description, NodeSpec, Revision, ServiceStatus, TaskSpec};
use crate::local::state_file;

/// How many revisions of a service are stored.
const MAX_REVISIONS: usize = 10;

/// How many deployments of a service are stored.
const MAX_DEPLOYMENTS: usize = 5;

/// The content of `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::local) struct SavedState {
    pub(super) nodes: BTreeMap<String, NodeSpec>,
    pub(super) services: BTreeMap<String, ServiceRecord>,
}

impl SavedState {
    pub(in crate::local) fn load(dir: &Dir) -> io::Result<Option<Self>> {
        state_file::read(&dir.state())
    }

    pub(in crate::local) fn remove(dir: &Dir) -> io::Result<()> {
        state_file::remove(&dir.state())
    }

    pub(super) fn save(&self, dir: &Dir) -> io::Result<()> {
        state_file::write(&dir.state(), self)
    }

    /// What the next supervisor would start.
    pub(in crate::local) fn describe(&self) -> Description {
        let node = |spec: &NodeSpec| NodeController::new(spec.clone()).status(Vec::new());
        let services = self.services.iter().filter_map(|(name, record)| Some((name.clone(), record.status()?)));
        Description {
            supervisor: None,
            nodes: self.nodes.iter().map(|(name, spec)| (name.clone(), node(spec))).collect(),
            services: services.collect(),
            unsaved: None,
        }
    }
}

/// What is saved of one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ServiceRecord {
    pub(super) revisions: BTreeMap<u64, StoredRevision>,
    pub(super) last_revision: u64,
    /// What should run. `None`: no deployment has ever completed, and the latest has failed.
    pub(super) target: Option<Target>,
    /// The target of the last completed deployment, to which a failed one rolls back.
    #[serde(rename = "proven")]
    pub(super) last_completed: Option<Target>,
    pub(super) declared_tasks: u32,
    pub(super) desired: u32,
    pub(super) http: Option<SocketAddr>,
    /// The latest first.
    pub(super) deployments: Vec<Deployment>,
    pub(super) failed: bool,
    /// The failed deployment was of what runs anyway, which has nothing to go back to: it is over when all tasks are ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) recovers: bool,
    pub(super) deleting: bool,
}

/// A revision, with the number of the deployment that completed it last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredRevision {
    pub(super) spec: TaskSpec,
    pub(super) completed: Option<u64>,
}

impl ServiceRecord {
    /// The revision with this definition: the stored one, or else a new one.
    pub(super) fn revision_of(&mut self, spec: TaskSpec) -> u64 {
        let stored = self.revisions.iter().find(|(_, stored)| stored.spec.definition == spec.definition);
        let (number, completed) = match stored {
            Some((number, stored)) => (*number, stored.completed),
            None => (self.last_revision + 1, None),
        };
        self.last_revision = self.last_revision.max(number);
        self.revisions.insert(number, StoredRevision { spec, completed });
        number
    }

    /// Starts a deployment, which supersedes one that is in progress.
    pub(super) fn start_deployment(&mut self, revision: u64, now: Moment) -> u64 {
        let id = self.deployments.first().map_or(1, |latest| latest.id + 1);
        if let Some(latest) = self.in_progress() {
            latest.state = DeploymentState::Superseded;
            latest.ended_at_ms = Some(now.unix_ms);
        }
        let deployment = Deployment {
            id,
            revision,
            state: DeploymentState::InProgress,
            started_at_ms: now.unix_ms,
            ended_at_ms: None,
            reason: None,
            task: None,
            log_tail: Vec::new(),
        };
        self.deployments.insert(0, deployment);
        self.deployments.truncate(MAX_DEPLOYMENTS);
        id
    }

    fn in_progress(&mut self) -> Option<&mut Deployment> {
        self.deployments.first_mut().filter(|latest| latest.state == DeploymentState::InProgress)
    }

    pub(super) fn is_in_progress(&self) -> bool {
        self.deployments.first().is_some_and(|latest| latest.state == DeploymentState::InProgress)
    }

    /// Completes the deployment in progress.
    pub(super) fn complete(&mut self, now: Moment) {
        let Some(deployment) = self.in_progress() else { return };
        deployment.state = DeploymentState::Completed;
        deployment.ended_at_ms = Some(now.unix_ms);
        let (id, revision) = (deployment.id, deployment.revision);
        (self.failed, self.recovers) = (false, false);
        self.last_completed = self.target;
        if let Some(stored) = self.revisions.get_mut(&revision) {
            stored.completed = Some(id);
        }
        self.remove_old_revisions();
    }

    /// Fails the deployment in progress and rolls back to the last completed one. A failed change of the number of tasks has nothing to
    /// roll back to.
    pub(super) fn fail(&mut self, task: &str, reason: String, now: Moment) {
        let Some(deployment) = self.in_progress() else { return };
        deployment.state = DeploymentState::Failed;
        deployment.ended_at_ms = Some(now.unix_ms);
        deployment.reason = Some(reason);
        deployment.task = Some(task.to_owned());
        self.failed = true;
        self.recovers = self.target.is_some() && self.target == self.last_completed;
        self.target = self.last_completed;
    }

    fn remove_old_revisions(&mut self) {
        let used: Vec<u64> = self.target.iter().chain(&self.last_completed).map(|target| target.revision).collect();
        while self.revisions.len() > MAX_REVISIONS {
            let unused = self.revisions.iter().filter(|(number, _)| !used.contains(number));
            let oldest = unused.min_by_key(|(number, stored)| (stored.completed, **number)).map(|(number, _)| *number);
            let Some(oldest) = oldest else { return };
            self.revisions.remove(&oldest);
        }
    }

    /// The revision that should run or, if there is none, that of the latest deployment.
    fn current(&self) -> Option<(u64, &StoredRevision)> {
        let latest = self.deployments.first().map(|latest| latest.revision);
        let number = self.target.map(|target| target.revision).or(latest)?;
        Some((number, self.revisions.get(&number)?))
    }

    /// Everything but the tasks.
    pub(super) fn status(&self) -> Option<ServiceStatus> {
        let (revision, current) = self.current()?;
        let mut previous: Vec<_> = self.revisions.iter().filter(|(number, _)| **number != revision).collect();
        previous.retain(|(_, stored)| stored.completed.is_some());
        previous.sort_by_key(|(_, stored)| std::cmp::Reverse(stored.completed));
        let described = |(number, stored): (&u64, &StoredRevision)| Revision {
            revision: *number,
            definition: stored.spec.definition.clone(),
        };
        Some(ServiceStatus {
            definition: current.spec.definition.clone(),
            revision,
            previous: previous.into_iter().map(described).collect(),
            revisions: self.revisions.iter().map(described).collect(),
            declared_tasks: self.declared_tasks,
            desired: self.desired,
            http: self.http,
            tasks: Vec::new(),
            failed: self.failed,
            deployments: self.deployments.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its field names are a format: another version of natsctl may have written the file.
    #[test]
    fn a_state_file_is_read_and_written_as_it_always_was() {
        let file = include_str!("testdata/state.json");
        let state: SavedState = serde_json::from_str(file).unwrap();
        assert_eq!(serde_json::to_string_pretty(&state).unwrap(), file.trim_end());
        let quest = &state.describe().services["quest"];
        assert_eq!((quest.revision, quest.desired, quest.failed), (1, 2, true));
        assert_eq!(quest.revisions.iter().map(|stored| stored.revision).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(state.services["quest"].last_completed, Some(Target { revision: 1, generation: 1 }));
    }
}

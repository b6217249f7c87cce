//! What outlives the supervisor: what should run, under which numbers, and how the last deployments went.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::node::Node;
use super::task::{Moment, Target};
use crate::local::dir::Dir;
use crate::local::protocol::{Deployment, DeploymentState, Description, NodeSpec, Revision, ServiceStatus, TaskSpec};
use crate::local::state_file;

/// So many revisions of a service keep their numbers.
const KEPT_REVISIONS: usize = 10;

/// So many deployments of a service are remembered.
const KEPT_DEPLOYMENTS: usize = 5;

/// The content of `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::local) struct Records {
    pub(super) nodes: BTreeMap<String, NodeSpec>,
    pub(super) services: BTreeMap<String, Record>,
}

impl Records {
    pub(in crate::local) fn load(dir: &Dir) -> io::Result<Option<Self>> {
        state_file::read(&dir.state())
    }

    pub(super) fn save(&self, dir: &Dir) -> io::Result<()> {
        state_file::write(&dir.state(), self)
    }
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) revisions: BTreeMap<u64, Kept>,
    pub(super) last_revision: u64,
    /// What should run. `None`: nothing has ever run well, and what was tried last has failed.
    pub(super) target: Option<Target>,
    /// What ran in full last: where a failed deployment goes back to.
    pub(super) proven: Option<Target>,
    pub(super) declared_tasks: u32,
    pub(super) desired: u32,
    pub(super) http: Option<SocketAddr>,
    /// The latest first.
    pub(super) deployments: Vec<Deployment>,
    pub(super) failed: bool,
    pub(super) deleting: bool,
}

/// A revision, with the number of the deployment that last brought it to full count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) spec: TaskSpec,
    pub(super) completed: Option<u64>,
}

impl Record {
    /// The number of this content: the old one if it is still known.
    pub(super) fn revision_of(&mut self, spec: TaskSpec) -> u64 {
        let known = self.revisions.iter().find(|(_, kept)| kept.spec.definition == spec.definition);
        let (number, completed) = match known {
            Some((number, kept)) => (*number, kept.completed),
            None => (self.last_revision + 1, None),
        };
        self.last_revision = self.last_revision.max(number);
        self.revisions.insert(number, Kept { spec, completed });
        number
    }

    pub(super) fn begin_deployment(&mut self, revision: u64, now: Moment) -> u64 {
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
        self.deployments.truncate(KEPT_DEPLOYMENTS);
        id
    }

    pub(super) fn in_progress(&mut self) -> Option<&mut Deployment> {
        self.deployments.first_mut().filter(|latest| latest.state == DeploymentState::InProgress)
    }

    pub(super) fn is_in_progress(&self) -> bool {
        self.deployments.first().is_some_and(|latest| latest.state == DeploymentState::InProgress)
    }

    /// The deployment under way has ended well.
    pub(super) fn complete(&mut self, now: Moment) {
        let Some(deployment) = self.in_progress() else { return };
        deployment.state = DeploymentState::Completed;
        deployment.ended_at_ms = Some(now.unix_ms);
        let (id, revision) = (deployment.id, deployment.revision);
        self.failed = false;
        self.proven = self.target;
        if let Some(kept) = self.revisions.get_mut(&revision) {
            kept.completed = Some(id);
        }
        self.forget_revisions();
    }

    /// The deployment under way is given up, and what ran before is the target again. A failed change of the number of tasks has nothing
    /// to go back to.
    pub(super) fn fail(&mut self, task: &str, reason: String, now: Moment) {
        let Some(deployment) = self.in_progress() else { return };
        deployment.state = DeploymentState::Failed;
        deployment.ended_at_ms = Some(now.unix_ms);
        deployment.reason = Some(reason);
        deployment.task = Some(task.to_owned());
        self.failed = true;
        self.target = self.proven;
    }

    fn forget_revisions(&mut self) {
        let needed: Vec<u64> = self.target.iter().chain(&self.proven).map(|target| target.revision).collect();
        while self.revisions.len() > KEPT_REVISIONS {
            let spare = self.revisions.iter().filter(|(number, _)| !needed.contains(number));
            let Some(oldest) = spare.min_by_key(|(number, kept)| (kept.completed, **number)).map(|(number, _)| *number)
            else {
                return;
            };
            self.revisions.remove(&oldest);
        }
    }

    /// The revision that runs or, if none does, the one that was tried last.
    pub(super) fn current(&self) -> Option<(u64, &Kept)> {
        let tried = self.deployments.first().map(|latest| latest.revision);
        let number = self.target.map(|target| target.revision).or(tried)?;
        Some((number, self.revisions.get(&number)?))
    }

    /// Everything but the tasks.
    pub(super) fn status(&self) -> Option<ServiceStatus> {
        let (revision, current) = self.current()?;
        let mut previous: Vec<_> = self.revisions.iter().filter(|(number, _)| **number != revision).collect();
        previous.retain(|(_, kept)| kept.completed.is_some());
        previous.sort_by_key(|(_, kept)| std::cmp::Reverse(kept.completed));
        let described =
            |(number, kept): (&u64, &Kept)| Revision { revision: *number, definition: kept.spec.definition.clone() };
        Some(ServiceStatus {
            definition: current.spec.definition.clone(),
            revision,
            previous: previous.into_iter().map(described).collect(),
            kept: self.revisions.iter().map(described).collect(),
            declared_tasks: self.declared_tasks,
            desired: self.desired,
            http: self.http,
            tasks: Vec::new(),
            failed: self.failed,
            deployments: self.deployments.clone(),
        })
    }
}

/// What a supervisor that does not run would start.
pub(in crate::local) fn at_rest(records: &Records) -> Description {
    let node = |spec: &NodeSpec| Node::new(spec.clone()).status(Vec::new());
    let services = records.services.iter().filter_map(|(name, record)| Some((name.clone(), record.status()?)));
    Description {
        supervisor: None,
        nodes: records.nodes.iter().map(|(name, spec)| (name.clone(), node(spec))).collect(),
        services: services.collect(),
    }
}

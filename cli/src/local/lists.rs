//! Tasks and revisions of the local environment, and how revisions differ: the same lists as on AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use jiff::Timestamp;

use super::environment::Local;
use super::history::History;
use super::protocol::{DeploymentState, Exit, ServiceStatus, TaskState, TaskStatus};
use crate::error::Hinted;
use crate::model::desired::Definition;
use crate::model::listed::{Between, Compared, Listed, ListedTask, Revision, Use};
use crate::model::plan::differences;
use crate::pipeline::history::Record;
use crate::pipeline::load::{self, BuiltArtifact, Inputs};

/// Among so many runs it is looked for who has deployed a revision.
const LAST_RUNS: usize = 100;

impl Local {
    /// The tasks of these services, or of all.
    ///
    /// # Errors
    /// Nothing is deployed; a name that no manifest has and no service that is deployed.
    pub(crate) async fn list_tasks(&self, names: &[String], listed: Listed) -> anyhow::Result<Vec<ListedTask>> {
        let services = self.deployed_services().await?;
        for name in names.iter().filter(|name| !services.contains_key(*name)) {
            self.manifests.service(name)?;
        }
        let shown = services.iter().filter(|(name, _)| names.is_empty() || names.contains(name));
        let of = |(name, service): (&String, &ServiceStatus)| -> Vec<ListedTask> {
            let is_listed = |task: &&TaskStatus| (task.state == TaskState::Stopped) == (listed == Listed::Stopped);
            service.tasks.iter().filter(is_listed).map(|task| listed_task(name, task)).collect()
        };
        let mut tasks: Vec<ListedTask> = shown.flat_map(of).collect();
        tasks.sort_by(|a, b| (&a.service, a.revision, a.started).cmp(&(&b.service, b.revision, b.started)));
        Ok(tasks)
    }

    /// The newest revisions of a service, at most so many.
    ///
    /// # Errors
    /// It is not deployed.
    pub(crate) async fn list_revisions(&self, name: &str, limit: usize) -> anyhow::Result<Vec<Revision>> {
        let services = self.deployed_services().await?;
        let service = self.deployed(&services, name)?;
        let records = History::new(&self.dir).records(LAST_RUNS)?;
        let mut revisions: Vec<Revision> = service
            .revisions
            .iter()
            .map(|stored| {
                let deployed = first_deployed(service, stored.revision);
                let run = deployed.and_then(|at| run_at(&records, name, at));
                Revision {
                    revision: stored.revision,
                    uses: uses(service, stored.revision),
                    image: stored.definition.version.clone(),
                    registered: deployed,
                    registered_by: run.map(|run| run.who.clone()).unwrap_or_default(),
                    commit: run.map(|run| run.git_revision.clone()).filter(|commit| !commit.is_empty()),
                }
            })
            .collect();
        revisions.sort_by_key(|one| std::cmp::Reverse(one.revision));
        revisions.truncate(limit);
        Ok(revisions)
    }

    /// How revisions of these services differ. Of the binaries those count that were deployed: `plan` is what builds.
    ///
    /// # Errors
    /// One that is not deployed; a revision that there is not.
    pub(crate) async fn compare(&self, names: &BTreeSet<String>, between: Between) -> anyhow::Result<Vec<Compared>> {
        let services = self.deployed_services().await?;
        let desired = self.desired_as_deployed(&services)?;
        let mut compared = Vec::new();
        for name in names {
            let service = self.deployed(&services, name)?;
            let (from, before) = numbered(name, service, between.from.unwrap_or(service.revision))?;
            let (to, after) = match between.to {
                Some(number) => numbered(name, service, number)?,
                None => ("the manifest".to_owned(), &desired[name]),
            };
            let changes = differences("", Some(before), after);
            compared.push(Compared { service: name.clone(), from, to, changes });
        }
        Ok(compared)
    }

    pub(super) async fn deployed_services(&self) -> anyhow::Result<BTreeMap<String, ServiceStatus>> {
        Ok(self.describe().await?.ok_or_else(|| self.not_deployed())?.services)
    }

    pub(super) fn deployed<'a>(
        &self,
        services: &'a BTreeMap<String, ServiceStatus>,
        name: &str,
    ) -> anyhow::Result<&'a ServiceStatus> {
        if let Some(service) = services.get(name) {
            return Ok(service);
        }
        self.manifests.service(name)?;
        let hint = format!("`natsctl deploy {name}` deploys it");
        Err(Hinted::new(format!("`{name}` is not deployed"), hint).into())
    }

    /// What the manifests say, with the binaries that run.
    fn desired_as_deployed(
        &self,
        services: &BTreeMap<String, ServiceStatus>,
    ) -> anyhow::Result<BTreeMap<String, Definition>> {
        let artifact = |name: &String| {
            let running = services.get(name).map(|service| &service.definition);
            let digest = running.map(|running| running.artifact.clone()).unwrap_or_default();
            BuiltArtifact { digest, version: running.map(|running| running.version.clone()).unwrap_or_default() }
        };
        let artifacts = self.manifests.services.keys().map(|name| (name.clone(), artifact(name))).collect();
        let mut desired = load::desired(&self.manifests, &Inputs { artifacts, nodes: BTreeMap::new() })?;
        self.name_secrets(&mut desired);
        Ok(desired.services.into_iter().map(|(name, service)| (name, service.definition)).collect())
    }
}

fn listed_task(name: &str, task: &TaskStatus) -> ListedTask {
    let (status, health) = match task.state {
        TaskState::Starting => ("PENDING", "UNKNOWN"),
        TaskState::Ready => ("RUNNING", "HEALTHY"),
        TaskState::Unready => ("RUNNING", "UNHEALTHY"),
        TaskState::Draining => ("STOPPING", "UNKNOWN"),
        TaskState::Stopped => ("STOPPED", "UNKNOWN"),
    };
    let has_stopped = task.state == TaskState::Stopped;
    let exit = task.last_exit.as_ref().filter(|_| has_stopped);
    ListedTask {
        id: task.id.clone(),
        service: Some(name.to_owned()),
        revision: task.revision,
        status: status.to_owned(),
        health: health.to_owned(),
        zone: None,
        address: task.health_port.map(|port| format!("127.0.0.1:{port}")),
        started: timestamp(task.started_at_ms),
        stopped: task.exits_ms.last().copied().filter(|_| has_stopped).and_then(timestamp),
        reason: task.reason.clone().or_else(|| exit.map(ToString::to_string)),
        exit_code: exit.and_then(|exit| if let Exit::Code(code) = exit { Some(*code) } else { None }),
        restarts: Some(task.restarts),
        memory_mib: task.pid.and_then(memory_mib),
    }
}

/// Memory of a process that is in use, where the system says it as Linux does.
pub(super) fn memory_mib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? / 1024)
}

/// When a revision was first deployed, as far as that is still known.
fn first_deployed(service: &ServiceStatus, revision: u64) -> Option<Timestamp> {
    let deployments = service.deployments.iter().filter(|deployment| deployment.revision == revision);
    deployments.map(|deployment| deployment.started_at_ms).min().and_then(timestamp)
}

/// The run that changed a service at this time.
fn run_at<'a>(records: &'a [Record], name: &str, at: Timestamp) -> Option<&'a Record> {
    records.iter().find(|run| {
        let has_ended = run.ended.is_some_and(|ended| ended < at);
        run.started <= at && !has_ended && run.services.iter().any(|service| service == name)
    })
}

fn uses(service: &ServiceStatus, revision: u64) -> Vec<Use> {
    let is_current = revision == service.revision;
    let runs = service.tasks.iter().any(|task| task.revision == revision && task.pid.is_some());
    let mut completed = service.deployments.iter().filter(|one| one.state == DeploymentState::Completed);
    let uses = [
        (Use::Current, is_current),
        (Use::Deployment, runs && !is_current),
        (Use::RollbackTarget, service.previous.first().is_some_and(|one| one.revision == revision)),
        (Use::LastDeployed, completed.next().is_some_and(|one| one.revision == revision)),
    ];
    uses.into_iter().filter(|(_, is_one)| *is_one).map(|(why, _)| why).collect()
}

/// A revision of a service by its number, and how it is called.
fn numbered<'a>(name: &str, service: &'a ServiceStatus, number: u64) -> anyhow::Result<(String, &'a Definition)> {
    if number == service.revision {
        return Ok((format!("{name}:{number}"), &service.definition));
    }
    let stored = service.revisions.iter().find(|stored| stored.revision == number).ok_or_else(|| {
        let hint = format!("`natsctl revisions {name}` lists those that there are");
        Hinted::new(format!("`{name}` has no revision {number}"), hint)
    })?;
    Ok((format!("{name}:{number}"), &stored.definition))
}

fn timestamp(unix_ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()
}

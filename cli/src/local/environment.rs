//! A local environment as natsctl's commands see it: its manifests, its state directory, and what runs in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::apply::POLL_INTERVAL;
use super::client::{self, Client};
use super::cluster_files::{ADMIN, Endpoints};
use super::logs::TaskLogs;
use super::owner;
use super::protocol::{Description, Revision as StoredRevision, ServiceStatus};
use super::taken_ports;
use crate::error::{Hinted, at};
use crate::manifest::Manifests;
use crate::model::change::{Change, Deploy};
use crate::model::desired::Role;
use crate::model::observed::{
    Assets, Observed, ObservedNode, ObservedService, ObservedTask, Revision, Seen, ServiceState,
};
use crate::nats::jetstream::JetStream;

/// How long a command waits for a connection to NATS.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// How long JetStream may take to list what it has: when its leader dies, another one is elected in four to nine seconds.
const LISTING: Duration = Duration::from_secs(12);

/// How long the ports of processes that end may stay taken.
const RELEASE: Duration = Duration::from_secs(2);

/// The environment of one state directory.
pub(crate) struct Local {
    pub(crate) manifests: Manifests,
    pub(crate) workspace: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) user: String,
    /// As typed.
    pub(super) command_line: String,
}

impl Local {
    pub(crate) fn new(manifests: Manifests, dir: PathBuf, workspace: PathBuf, command_line: String) -> Self {
        let user = std::env::var("USER").unwrap_or_else(|_| owner::name_of_this_user());
        Self { manifests, workspace, dir, user, command_line }
    }

    /// Where the environment keeps its files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the supervisor has; `None` if nothing was ever deployed, or everything was stopped.
    pub(crate) async fn describe(&self) -> anyhow::Result<Option<Description>> {
        Ok(client::describe(&self.dir).await?)
    }

    /// The supervisor, started if need be.
    pub(crate) async fn supervisor(&self) -> anyhow::Result<Client> {
        Ok(client::ensure_supervisor(&self.dir).await?)
    }

    /// The service that takes HTTP requests.
    pub(super) fn gateway(&self) -> Option<&str> {
        self.manifests.services.values().find(|service| service.role == Role::Gateway).map(|service| &*service.name)
    }

    /// How to reach NATS.
    ///
    /// # Errors
    /// If nothing was ever deployed.
    pub(crate) fn endpoints(&self) -> anyhow::Result<Endpoints> {
        Endpoints::read(&self.dir)?.ok_or_else(|| self.not_deployed())
    }

    /// The client of natsctl's own user.
    pub(crate) async fn jetstream(&self) -> anyhow::Result<JetStream> {
        Ok(JetStream::new(self.endpoints()?.of(ADMIN)?.connect("natsctl", CONNECT).await?))
    }

    pub(crate) fn not_deployed(&self) -> anyhow::Error {
        let message = format!("nothing is deployed in environment `{}`", self.manifests.name);
        Hinted::new(message, "`natsctl deploy --all` deploys everything").into()
    }

    /// The logs of these services or nodes, or of all.
    ///
    /// # Errors
    /// Nothing is deployed, or nothing by one of these names.
    pub(crate) async fn logs(&self, names: &[String]) -> anyhow::Result<TaskLogs> {
        let description = self.describe().await?.ok_or_else(|| self.not_deployed())?;
        let known: BTreeSet<&str> =
            description.services.keys().chain(description.nodes.keys()).map(String::as_str).collect();
        if let Some(name) = names.iter().find(|name| !known.contains(name.as_str())) {
            let hint = format!("there are: {}", known.iter().copied().collect::<Vec<_>>().join(", "));
            return Err(Hinted::new(format!("nothing called `{name}` is deployed"), hint).into());
        }
        let shown = if names.is_empty() { known } else { names.iter().map(String::as_str).collect() };
        Ok(TaskLogs::new(&self.dir, shown)?)
    }

    /// What is there, as far as a change needs it.
    ///
    /// # Errors
    /// The supervisor cannot be asked, or nothing is deployed that the change could be about.
    pub(super) async fn observed(&self, change: &Change) -> anyhow::Result<Observed> {
        let description = self.describe().await?;
        let description = match (description, change) {
            (Some(description), _) => description,
            (None, Change::Deploy(_) | Change::Down { .. }) => Description::default(),
            (None, _) => return Err(self.not_deployed()),
        };
        let description = match change {
            // Known before anything is started, rather than in the last wave.
            Change::Deploy(deploy) => self.with_free_ports(deploy, description).await?,
            _ => description,
        };
        let jetstream = match change {
            Change::Deploy(Deploy { without_jetstream: false, .. }) => self.stored(&description).await?,
            _ => Seen::Absent,
        };
        let nodes = description.nodes.iter();
        let nodes = nodes
            .map(|(name, node)| (name.clone(), ObservedNode { node: node.spec.node.clone(), running: node.running }));
        let tasks = description.services.iter().flat_map(|(name, service)| {
            let task = |id: &String| ObservedTask { id: id.clone(), service: Some(name.clone()) };
            service.tasks.iter().filter(|task| task.pid.is_some()).map(move |found| task(&found.id))
        });
        Ok(Observed {
            nodes: nodes.collect(),
            jetstream,
            tasks: if matches!(change, Change::Stop(_)) { tasks.collect() } else { Vec::new() },
            services: description.services.iter().map(|(name, found)| (name.clone(), service(found))).collect(),
            images: BTreeMap::new(),
        })
    }

    /// What the supervisor has, once no other process holds a port that a deployment needs. Processes of a supervisor that was killed a moment
    /// ago hold theirs for a moment more.
    ///
    /// # Errors
    /// Ports that stay taken.
    async fn with_free_ports(&self, deploy: &Deploy, mut description: Description) -> anyhow::Result<Description> {
        let gateway = self.gateway().filter(|name| deploy.selection.services.contains(*name));
        let deadline = Instant::now() + RELEASE;
        loop {
            let taken = taken_ports::of_environment(&self.manifests.environment, gateway, &description);
            if taken.is_empty() {
                return Ok(description);
            }
            if Instant::now() >= deadline {
                taken_ports::refuse(&taken)?;
            }
            sleep(POLL_INTERVAL).await;
            description = self.describe().await?.unwrap_or_default();
        }
    }

    /// What JetStream holds. Without a server that runs nothing can be known of it, unless none has ever run.
    async fn stored(&self, description: &Description) -> anyhow::Result<Seen<Assets>> {
        if !description.nodes.values().any(|node| node.running) {
            let reason = "no NATS server runs; what they store is read when they do";
            return Ok(if self.has_stores()? { Seen::Unknown(reason.to_owned()) } else { Seen::Absent });
        }
        let listed = async { self.jetstream().await?.observe(LISTING).await };
        Ok(listed.await.map_or_else(|error| Seen::Unknown(format!("{error:#}")), Seen::Present))
    }

    /// Whether a NATS server has ever stored anything here.
    fn has_stores(&self) -> anyhow::Result<bool> {
        let nats = self.dir.join("nats");
        let folders = match fs::read_dir(&nats) {
            Ok(folders) => folders,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(at("read", &nats)(error).into()),
        };
        for folder in folders {
            if folder.map_err(at("read", &nats))?.path().join("jetstream").is_dir() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn service(found: &ServiceStatus) -> ObservedService {
    let state = ServiceState {
        definition: found.definition.clone(),
        revision: found.revision,
        task_definition: None,
        declared_tasks: found.declared_tasks,
        desired: found.desired,
        failed: found.failed || found.lacks_listener(),
        ecs: None,
    };
    let revision = |stored: &StoredRevision, succeeded| Revision {
        number: stored.revision,
        task_definition: None,
        definition: Some(stored.definition.clone()),
        succeeded,
    };
    let succeeded = found.previous.iter().map(|stored| revision(stored, true));
    let others = found.revisions.iter().filter(|other| found.previous.iter().all(|one| one.revision != other.revision));
    let others = others.map(|stored| revision(stored, false));
    ObservedService { state, running: found.ready(), revisions: succeeded.chain(others).collect() }
}

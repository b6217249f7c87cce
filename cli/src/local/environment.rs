//! A local environment as natsctl's commands see it: its manifests, its state directory, and what runs in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::apply::POLL_INTERVAL;
use super::client::{self, Client};
use super::cluster_files::{ADMIN, ClusterFiles, Endpoints, OPERATOR};
use super::dir::Dir;
use super::history::History;
use super::lock::Lock;
use super::logs::{self, TaskLogs};
use super::nodes::unwell;
use super::owner::{self, refuse_foreign};
use super::protocol::{Description, FoundTraces, NodeStatus, Revision as StoredRevision, ServiceStatus};
use super::supervisor::SavedState;
use super::taken_ports;
use super::verify::{expected, ready_tasks};
use crate::error::{Code, Hinted, at};
use crate::manifest::Manifests;
use crate::model::change::{Change, Deploy};
use crate::model::desired::{Desired, Role};
use crate::model::observed::{
    Assets, NodeCondition, Observed, ObservedNode, ObservedService, ObservedTask, Revision, Seen, ServiceState,
};
use crate::model::trace::TracePrefix;
use crate::nats::bus::{self, ExpectedTasks};
use crate::nats::discovery::{Instance, Question, instances};
use crate::nats::jetstream::JetStream;
use crate::nats::locate::locate;
use crate::problem::did_you_mean;

/// How long a command waits for a connection to NATS.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// How long JetStream may take to list what it has: when its leader dies, another one is elected in four to nine seconds.
const LISTING: Duration = Duration::from_secs(12);

/// How long the ports of processes that end may stay taken.
const RELEASE: Duration = Duration::from_secs(2);
/// How long a task that is ready may take to answer on the bus.
const TASK_ANSWER: Duration = Duration::from_secs(5);

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

    /// Refuses an environment of another user: what cannot be read is not nothing.
    ///
    /// # Errors
    /// Whose it is.
    pub(crate) fn refuse_foreign(&self) -> anyhow::Result<()> {
        Ok(refuse_foreign(&self.dir)?)
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
    pub(crate) async fn nats_client(&self) -> anyhow::Result<async_nats::Client> {
        self.endpoints()?.of(ADMIN)?.connect("natsctl", CONNECT).await
    }

    /// The client of an operator, who may call every service.
    pub(crate) async fn operator(&self) -> anyhow::Result<async_nats::Client> {
        self.endpoints()?.of(OPERATOR)?.connect("natsctl", CONNECT).await
    }

    /// Where clients reach the gateway, if one runs: `http://127.0.0.1:8000`.
    pub(crate) async fn gateway_url(&self) -> anyhow::Result<Option<String>> {
        let description = self.describe().await?.ok_or_else(|| self.not_deployed())?;
        Ok(description.services.values().find_map(|service| service.http).map(|address| format!("http://{address}")))
    }

    pub(crate) async fn jetstream(&self) -> anyhow::Result<JetStream> {
        Ok(JetStream::new(self.nats_client().await?))
    }

    pub(crate) fn not_deployed(&self) -> anyhow::Error {
        let message = format!("nothing is deployed in environment `{}`", self.manifests.name);
        Hinted::new(message, "`natsctl deploy --all` deploys everything").code(Code::NotDeployed).into()
    }

    /// What is wrong with the files that are read besides what the supervisor reads.
    pub(crate) fn damaged_files(&self, workspace: &Path) -> Vec<anyhow::Error> {
        if !self.dir.is_dir() {
            return Vec::new();
        }
        let Ok(dir) = Dir::new(&self.dir) else { return Vec::new() };
        let misplaced = dir.misplaced();
        if !misplaced.is_empty() {
            // What reads them would say the same.
            return misplaced.into_iter().map(anyhow::Error::from).collect();
        }
        let checks = [
            SavedState::load(&dir).map(drop).map_err(anyhow::Error::from),
            Endpoints::read(&self.dir).map(drop),
            History::new(&self.dir).records(1).map(drop),
            Lock::check(&self.dir),
            // Without a server the files cannot be told, and that has a line of its own.
            locate(workspace)
                .map_or(Ok(()), |server| ClusterFiles::preview(&self.manifests, &self.dir, &server).map(drop)),
        ];
        checks.into_iter().filter_map(Result::err).collect()
    }

    /// The traces whose ids begin with `prefix`, among the latest.
    ///
    /// # Errors
    /// Nothing runs that could have kept them.
    pub(crate) async fn find_traces(&self, prefix: &TracePrefix) -> anyhow::Result<FoundTraces> {
        let supervisor = Client::connect(&self.dir).await?.ok_or_else(|| self.not_deployed())?;
        Ok(supervisor.find_traces(prefix).await?)
    }

    /// The logs of these services or nodes, or of all: also of those that run no more.
    ///
    /// # Errors
    /// Nothing was ever deployed, or nothing by one of these names.
    pub(crate) async fn logs(&self, names: &[String]) -> anyhow::Result<TaskLogs> {
        let description = self.describe().await?;
        let mut known = if self.dir.is_dir() { logs::names(&Dir::new(&self.dir)?)? } else { BTreeSet::new() };
        known.extend(
            description.into_iter().flat_map(|found| found.services.into_keys().chain(found.nodes.into_keys())),
        );
        if known.is_empty() {
            return Err(self.not_deployed());
        }
        let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
        if let Some(name) = names.iter().find(|name| !known.contains(name.as_str())) {
            let hint = did_you_mean(name, known.iter().copied())
                .unwrap_or_else(|| format!("there are: {}", known.iter().copied().collect::<Vec<_>>().join(", ")));
            return Err(Hinted::new(format!("nothing called `{name}` is deployed"), hint).into());
        }
        let shown = if names.is_empty() { known } else { names.iter().map(String::as_str).collect() };
        Ok(TaskLogs::new(&self.dir, shown)?)
    }

    /// Says in which files the values of secrets are.
    pub(super) fn name_secrets(&self, desired: &mut Desired) {
        for (name, service) in &mut desired.services {
            let secrets = self.manifests.services[name].secrets.iter();
            service.definition.secrets =
                secrets.map(|(variable, secret)| (variable.to_string(), secret.file())).collect();
        }
    }

    /// Ids of the tasks whose processes run.
    pub(crate) async fn running_tasks(&self) -> anyhow::Result<BTreeSet<String>> {
        let description = self.describe().await?.unwrap_or_default();
        let tasks = description.services.into_values().flat_map(|service| service.tasks);
        Ok(tasks.filter(|task| task.pid.is_some()).map(|task| task.id).collect())
    }

    /// What is there, as far as a change needs it.
    ///
    /// # Errors
    /// The supervisor cannot be asked, or nothing is deployed that the change could be about.
    pub(super) async fn observed(&self, change: &Change) -> anyhow::Result<Observed> {
        let (description, nodes) = match change {
            Change::Deploy(_) => self.observed_nodes().await?,
            _ => self.undisturbed(change).await?,
        };
        let description = match change {
            // Known before anything is started, rather than in the last wave.
            Change::Deploy(deploy) => self.with_free_ports(deploy, description).await?,
            _ => description,
        };
        let jetstream = match change {
            Change::Deploy(Deploy { without_jetstream: false, .. }) => self.stored(&nodes).await?,
            _ => Seen::Absent,
        };
        let silent = match change {
            Change::Deploy(_) => self.silent_tasks(&description, &nodes).await,
            _ => BTreeSet::new(),
        };
        let tasks = description.services.iter().flat_map(|(name, service)| {
            let task = |id: &String| ObservedTask { id: id.clone(), service: Some(name.clone()) };
            service.tasks.iter().filter(|task| task.pid.is_some()).map(move |found| task(&found.id))
        });
        Ok(Observed {
            nodes,
            jetstream,
            tasks: if matches!(change, Change::Stop(_)) { tasks.collect() } else { Vec::new() },
            services: description
                .services
                .iter()
                .map(|(name, found)| (name.clone(), service(found, &silent)))
                .collect(),
            images: BTreeMap::new(),
            ..Observed::default()
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

    /// What there is, for a change that does not depend on how the servers are.
    async fn undisturbed(&self, change: &Change) -> anyhow::Result<(Description, BTreeMap<String, ObservedNode>)> {
        if matches!(change, Change::Down { data: true }) && client::find(&self.dir).await?.is_none() {
            // Deleting everything is the way out where the state is damaged.
            let description = self.describe().await.ok().flatten().unwrap_or_default();
            return Ok((description, BTreeMap::new()));
        }
        let description = match (self.describe().await?, change) {
            (Some(description), _) => description,
            (None, Change::Down { .. }) => Description::default(),
            (None, _) => return Err(self.not_deployed()),
        };
        let node = |node: &NodeStatus| ObservedNode {
            node: node.spec.node.clone(),
            running: node.running,
            condition: NodeCondition::Healthy,
        };
        let nodes = description.nodes.iter().map(|(name, status)| (name.clone(), node(status))).collect();
        Ok((description, nodes))
    }

    /// What JetStream holds. Without a server that runs nothing can be known of it, unless none has ever run.
    async fn stored(&self, nodes: &BTreeMap<String, ObservedNode>) -> anyhow::Result<Seen<Assets>> {
        if !nodes.values().any(|node| node.running) {
            let reason = "no NATS server runs; what they store is read when they do";
            return Ok(if self.has_stores()? { Seen::Unknown(reason.to_owned()) } else { Seen::Absent });
        }
        let broken = |node: &&ObservedNode| !node.running || node.condition.broken().is_some();
        if nodes.values().filter(broken).count() * 2 >= nodes.len() {
            return Ok(Seen::Unknown(format!("JetStream has no quorum: {}", unwell(nodes))));
        }
        let endpoints = self.endpoints()?;
        let listed =
            async { JetStream::new(endpoints.of(ADMIN)?.connect("natsctl", CONNECT).await?).observe(LISTING).await };
        Ok(listed.await.map_or_else(|error| Seen::Unknown(format!("{error:#}")), Seen::Present))
    }

    /// Tasks that are ready, as they say themselves, and do not answer on the bus, where all servers are well. None if it cannot be asked:
    /// that everything answers is proven in the end.
    async fn silent_tasks(&self, found: &Description, nodes: &BTreeMap<String, ObservedNode>) -> BTreeSet<String> {
        if nodes.is_empty() || !nodes.values().all(|node| node.running && node.condition.is_healthy()) {
            return BTreeSet::new();
        }
        let workers = found.services.iter().filter(|(_, service)| service.definition.role == Role::Worker);
        let workers: Vec<(&String, ExpectedTasks)> = workers.map(|(name, service)| (name, expected(service))).collect();
        let all =
            |instances: &[Instance]| workers.iter().all(|(name, tasks)| tasks.is_met(&bus::tasks(instances, name)));
        let asked = async {
            let client = self.endpoints()?.of(ADMIN)?.connect("natsctl", CONNECT).await?;
            instances(&client, Question::Ping, None, TASK_ANSWER, all).await
        };
        let Ok(instances) = asked.await else { return BTreeSet::new() };
        let mut silent = BTreeSet::new();
        for (name, tasks) in &workers {
            let found = bus::tasks(&instances, name);
            let answering = tasks.answering(&found);
            silent.extend(tasks.known.iter().filter(|task| !answering.contains(task.as_str())).cloned());
        }
        silent
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
            if folder.map_err(at("read", &nats))?.path().join("jetstream").try_exists()? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// `silent` are the tasks that do not answer on the bus.
fn service(found: &ServiceStatus, silent: &BTreeSet<String>) -> ObservedService {
    let state = ServiceState {
        definition: found.definition.clone(),
        revision: found.revision,
        task_definition: None,
        declared_tasks: found.declared_tasks,
        desired: found.desired,
        failed: found.failed || found.lacks_listener(),
        inactive: false,
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
    let running = ready_tasks(found).into_iter().filter(|task| !silent.contains(*task)).count();
    let running = running.try_into().unwrap_or(u32::MAX);
    let revisions = succeeded.chain(others).collect();
    ObservedService { state, running, revisions, kept: BTreeMap::new(), bounds: None }
}

//! Carries out the steps of a plan on this machine. Every step can be done twice, so an interrupted run is finished by the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use tokio::time::sleep;

use super::artifacts::Artifacts;
use super::client::{self, Client};
use super::cluster_files::Endpoints;
use super::dir::Dir;
use super::environment::Local;
use super::nodes::elapsed_since;
use super::platform::Materials;
use super::protocol::{Accepted, Force, NodeStatus, PutService, TaskSpec};
use super::secrets;
use super::taken_ports;
use crate::error::Hinted;
use crate::manifest::Environment;
use crate::model::desired::{Definition, Role};
use crate::model::plan::Plan;
use crate::model::step::{Action, Kind, Operation, Step};
use crate::nats::bus::JETSTREAM_TIMEOUT;
use crate::nats::health;
use crate::nats::identity::SYSTEM_USER;
use crate::nats::replicas;
use crate::pipeline::Progress;
use crate::pipeline::options::Options;
use crate::screen::note;
use crate::screen::progress::{Activity, during};

/// What a rollout may take beyond the start and the stop of its tasks.
const MARGIN: Duration = Duration::from_secs(30);
/// How long the cluster may take to settle after a server was started.
pub(super) const SETTLE: Duration = Duration::from_secs(60);
/// A server that ended so often right after its start will not come up.
const FRUITLESS_STARTS: u32 = 3;
/// Between two reads of something that is about to happen.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A plan that is carried out.
pub(crate) struct Work<'a> {
    local: &'a Local,
    materials: Option<&'a Materials>,
    options: &'a Options,
    /// Servers that are repaired, with the waves in which that happens. They are not waited for before.
    repairs: Vec<(usize, String)>,
}

impl<'a> Work<'a> {
    pub(super) fn new(local: &'a Local, plan: &Plan, materials: Option<&'a Materials>, options: &'a Options) -> Self {
        let repairs = plan.steps.iter().filter(|step| matches!(step.operation, Operation::RepairNode { .. }));
        let repairs = repairs.map(|step| (step.wave, step.name().to_owned())).collect();
        Self { local, materials, options, repairs }
    }

    /// Carries out the steps of one wave.
    pub(super) async fn apply(&self, wave: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        let of = |matches: fn(&Operation) -> bool| -> Vec<&Step> {
            wave.iter().copied().filter(|step| matches(&step.operation)).collect()
        };
        let nodes = of(|operation| {
            matches!(
                operation,
                Operation::StartNode { .. }
                    | Operation::RestartNode { .. }
                    | Operation::RepairNode { .. }
                    | Operation::ReloadNode { .. }
            )
        });
        if !nodes.is_empty() {
            self.recorded(&nodes, progress, self.put_nodes(&nodes)).await?;
        }
        let assets = of(|operation| {
            matches!(
                operation,
                Operation::PutStream { .. }
                    | Operation::PutBucket { .. }
                    | Operation::ReduceStream { .. }
                    | Operation::ReduceBucket { .. }
                    | Operation::PutConsumer { .. }
                    | Operation::DeleteConsumer { .. }
            )
        });
        if !assets.is_empty() {
            self.put_assets(&assets, progress).await?;
        }
        let services = of(|operation| {
            matches!(
                operation,
                Operation::DeployService { .. }
                    | Operation::RestartService { .. }
                    | Operation::ScaleService { .. }
                    | Operation::RollBackService { .. }
            )
        });
        if !services.is_empty() {
            self.roll(&services, progress).await?;
        }
        for step in wave {
            match &step.operation {
                Operation::DeleteService { service, .. } => {
                    let delete = async { Ok(self.local.supervisor().await?.delete_service(service).await?) };
                    self.recorded(&[step], progress, delete).await?;
                }
                Operation::DeleteNode { node } => {
                    let delete = async { Ok(self.local.supervisor().await?.delete_node(node).await?) };
                    self.recorded(&[step], progress, delete).await?;
                }
                Operation::StopTask { service: Some(service), task } => {
                    let stop = async { Ok(self.local.supervisor().await?.stop_task(service, task).await?) };
                    self.recorded(&[step], progress, stop).await?;
                }
                Operation::StopEnvironment { .. } => self.recorded(&[step], progress, self.shut_down()).await?,
                _ => {}
            }
        }
        self.refuse_unsaved(wave).await?;
        // Last, since it takes the history with it.
        if wave.iter().any(|step| matches!(step.operation, Operation::DeleteData { .. })) {
            delete_data(self.local.dir())?;
        }
        Ok(())
    }

    /// What runs and is not saved would be gone with the supervisor.
    async fn refuse_unsaved(&self, wave: &[&Step]) -> anyhow::Result<()> {
        let of_supervisor = |step: &&Step| matches!(step.kind(), Kind::Node | Kind::Service);
        if !wave.iter().any(of_supervisor) {
            return Ok(());
        }
        match self.local.describe().await?.and_then(|description| description.unsaved) {
            Some(reason) => Err(not_saved(&reason).into()),
            None => Ok(()),
        }
    }

    /// Carries out one piece of work that is the whole of these steps.
    async fn recorded(
        &self,
        steps: &[&Step],
        progress: &mut Progress,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        for step in steps {
            progress.started(step);
        }
        let outcome = work.await;
        for step in steps {
            progress.ended(step, if outcome.is_ok() { "done" } else { "failed" });
        }
        outcome
    }

    // ------------------------------------------------------------------------------------------ nodes

    fn materials(&self) -> anyhow::Result<&'a Materials> {
        self.materials.context("only a deployment starts NATS servers")
    }

    /// Starts or restarts servers, and waits until the cluster has settled.
    async fn put_nodes(&self, steps: &[&Step]) -> anyhow::Result<()> {
        let Materials { files, server, .. } = self.materials()?;
        let supervisor = self.local.supervisor().await?;
        let running = supervisor.describe().await?.nodes;
        for step in steps {
            let is_ours = running.get(step.name()).is_some_and(|status| status.running);
            if !is_ours {
                taken_ports::refuse(&taken_ports::of_node(step.name(), files.node(step.name())?.ports))?;
            }
        }
        for step in steps {
            let spec = files.write_config(step.name(), server)?.clone();
            match &step.operation {
                Operation::RepairNode { reason, .. } => {
                    note(&format!("{step}: {reason}"));
                    supervisor.restart_node(step.name(), spec).await?;
                }
                _ => supervisor.put_node(step.name(), spec).await?,
            }
        }
        let wave = steps.iter().map(|step| step.wave).max();
        let unwell = self.repairs.iter().filter(|(repaired, _)| Some(*repaired) > wave).map(|(_, node)| node.clone());
        settled(&supervisor, &files.endpoints(), &unwell.collect()).await
    }

    // ------------------------------------------------------------------------------------------ streams and buckets

    async fn put_assets(&self, steps: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        let jetstream = self.local.jetstream().await?;
        let jetstream = &jetstream;
        let put = |step: &Step| {
            let operation = step.operation.clone();
            async move {
                match &operation {
                    Operation::PutStream { stream, config, .. } | Operation::ReduceStream { stream, config, .. } => {
                        jetstream.put_stream(stream, config, JETSTREAM_TIMEOUT).await
                    }
                    Operation::PutBucket { bucket, config, .. } | Operation::ReduceBucket { bucket, config, .. } => {
                        jetstream.put_bucket(bucket, config, JETSTREAM_TIMEOUT).await
                    }
                    Operation::PutConsumer { consumer, config, .. } => {
                        jetstream.put_consumer(consumer, config, JETSTREAM_TIMEOUT).await
                    }
                    Operation::DeleteConsumer { consumer } => {
                        jetstream.delete_consumer(consumer, JETSTREAM_TIMEOUT).await
                    }
                    _ => Ok(()),
                }
            }
        };
        for step in steps {
            progress.started(step);
        }
        let outcomes = join_all(steps.iter().map(|step| put(step))).await;
        let mut failures = Vec::new();
        for (step, outcome) in steps.iter().zip(outcomes) {
            progress.ended(step, if outcome.is_ok() { "done" } else { "failed" });
            failures.extend(outcome.err());
        }
        all(failures)
    }

    // ------------------------------------------------------------------------------------------ services

    /// Brings services to what their steps say, a few at the same time, and follows them.
    async fn roll(&self, steps: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        let supervisor = self.local.supervisor().await?;
        self.servers_are_up(&supervisor).await?;
        for steps in steps.chunks(self.options.max_parallel) {
            self.roll_together(&supervisor, steps, progress).await?;
        }
        Ok(())
    }

    /// Where the supervisor was started for these steps, the servers come up just now, and tasks without their streams would fail.
    async fn servers_are_up(&self, supervisor: &Client) -> anyhow::Result<()> {
        let description = supervisor.describe().await?;
        let is_young =
            description.supervisor.is_some_and(|supervisor| elapsed_since(supervisor.started_at_ms) < SETTLE);
        let is_new = |node: &NodeStatus| node.spec.monitor.is_some() && !node.has_been_healthy;
        if is_young
            && description.nodes.values().any(is_new)
            && let Err(error) = settled(supervisor, &self.local.endpoints()?, &BTreeSet::new()).await
        {
            // The services may do without the one that does not come up.
            note(&format!("going on although {error:#}"));
        }
        Ok(())
    }

    async fn roll_together(&self, supervisor: &Client, steps: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        let mut deployments = BTreeMap::new();
        let mut revisions = BTreeMap::new();
        let mut limit = Duration::ZERO;
        for step in steps {
            let wanted = Wanted::of(step).context("a step of a service")?;
            let Definition { health, stop_timeout, .. } = wanted.definition;
            limit = limit.max(health.start_period * 2 + *stop_timeout + MARGIN);
            progress.started(step);
            match self.start(supervisor, step.name(), &wanted).await {
                Ok(accepted) => {
                    deployments.insert(step.name().to_owned(), accepted.deployment_id);
                    revisions.insert(step.name(), accepted.revision);
                }
                Err(error) => progress.failed_by(step, &error),
            }
        }
        let limit = self.options.timeout.unwrap_or(limit);
        let followed = steps.iter().filter(|step| deployments.contains_key(step.name()));
        let mut activities: BTreeMap<&str, Activity> =
            followed.map(|step| (step.name(), progress.follow(step).within(limit))).collect();
        let outcomes = supervisor.follow(&deployments, limit, |news| show(&mut activities, news)).await?;
        for step in steps {
            let Some(outcome) = outcomes.get(step.name()) else { continue };
            match outcome.explanation(step.name(), revisions[step.name()], None) {
                None => progress.ended(step, "done"),
                Some(explanation) => progress.failed(step, explanation),
            }
        }
        Ok(())
    }

    async fn start(&self, supervisor: &Client, name: &str, wanted: &Wanted<'_>) -> anyhow::Result<Accepted> {
        let accepted = supervisor.put_service(self.put_service(name, wanted)?).await.map_err(anyhow::Error::from);
        accepted.with_context(|| format!("failed to deploy `{name}`"))
    }

    fn put_service(&self, name: &str, wanted: &Wanted<'_>) -> anyhow::Result<PutService> {
        Ok(PutService {
            name: name.to_owned(),
            spec: self.task_spec(name, wanted.definition)?,
            declared_tasks: wanted.declared_tasks,
            tasks: wanted.tasks,
            http_listen: self.http_listen(wanted.definition.role),
            force: wanted.force,
        })
    }

    fn http_listen(&self, role: Role) -> Option<SocketAddr> {
        match &self.local.manifests.environment {
            Environment::Local(local) if role == Role::Gateway => {
                Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), local.gateway.port))
            }
            _ => None,
        }
    }

    /// What a task of this definition is on this machine.
    fn task_spec(&self, name: &str, definition: &Definition) -> anyhow::Result<TaskSpec> {
        let program = Artifacts::open(self.local.dir())?.find(&definition.artifact);
        let program = program.with_context(|| format!("the binary `{}` of `{name}` is gone", definition.artifact))?;
        let endpoints = self.local.endpoints()?;
        let user = endpoints.of(name)?;
        let file = |path: &Path| path.display().to_string();
        let access = [
            ("NATS_URLS", user.urls.join(",")),
            ("NATS_CA_FILE", file(&user.ca_file)),
            ("NATS_CERT_FILE", file(&user.client_cert_file)),
            ("NATS_KEY_FILE", file(&user.client_key_file)),
            ("NATS_CREDS_FILE", file(&user.credentials_file)),
        ];
        let mut env = definition.task_environment(name);
        env.extend(access.map(|(name, value)| (name.to_owned(), value)));
        let secrets = secrets::files(&Dir::new(self.local.dir())?, &definition.secrets);
        Ok(TaskSpec { definition: definition.clone(), program, env, secrets })
    }

    // ------------------------------------------------------------------------------------------ everything

    async fn shut_down(&self) -> anyhow::Result<()> {
        note("tasks finish what they have begun, then the servers stop");
        Ok(client::shut_down(self.local.dir()).await?)
    }
}

/// What a service should become.
struct Wanted<'a> {
    definition: &'a Definition,
    declared_tasks: u32,
    tasks: u32,
    force: Force,
}

impl<'a> Wanted<'a> {
    /// As a step says; `None` if it is not about a service that runs afterwards.
    fn of(step: &'a Step) -> Option<Self> {
        let as_before = |before: &'a crate::model::observed::ServiceState| Self {
            definition: &before.definition,
            declared_tasks: before.declared_tasks,
            tasks: before.desired,
            force: Force::IfChanged,
        };
        match &step.operation {
            Operation::DeployService { target, tasks, action, .. } => Some(Self {
                definition: &target.definition,
                declared_tasks: target.tasks,
                tasks: *tasks,
                // What does not run although nothing differs must be tried again.
                force: if *action == Action::Start { Force::NewDeployment } else { Force::IfChanged },
            }),
            Operation::RestartService { before, .. } => Some(Self { force: Force::NewDeployment, ..as_before(before) }),
            Operation::ScaleService { before, tasks, .. } => Some(Self { tasks: *tasks, ..as_before(before) }),
            Operation::RollBackService { before, to, .. } => {
                Some(Self { definition: to.definition.as_ref()?, ..as_before(before) })
            }
            _ => None,
        }
    }
}

fn show(activities: &mut BTreeMap<&str, Activity>, news: client::Progress) {
    match news {
        client::Progress::Advanced { service, advance } => {
            if let Some(activity) = activities.get(&*service) {
                activity.is_at(advance.to_string(), advance.waits_for);
            }
        }
        // Why one failed is explained at the end, when everything else has been tried.
        client::Progress::Ended { service, outcome } => {
            if let Some(activity) = activities.remove(&*service) {
                activity.end(outcome.verdict());
            }
        }
    }
}

/// Waits until all servers agree and all replicas of streams are current, besides those on servers that are known to be unwell; gives
/// up at once on a server that does not come up.
pub(super) async fn settled(
    supervisor: &Client,
    endpoints: &Endpoints,
    unwell: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let access = endpoints.of(SYSTEM_USER)?;
    let settled = async {
        health::wait_until_settled_besides(unwell, access, &endpoints.nodes, SETTLE).await?;
        replicas::wait_until_current(access, &endpoints.names(), unwell, SETTLE).await
    };
    let settled = async {
        tokio::select! {
            settled = settled => settled,
            error = a_server_does_not_start(supervisor) => Err(error),
        }
    };
    during("waiting until the NATS servers agree and their replicas are current", settled).await
}

/// Returns when a server ends again and again, with what it says; or when the supervisor cannot be asked.
async fn a_server_does_not_start(supervisor: &Client) -> anyhow::Error {
    loop {
        let nodes = match supervisor.describe().await {
            Ok(description) => description.nodes,
            Err(error) => return error.into(),
        };
        let failed = nodes.iter().find(|(_, node)| !node.running && node.restarts >= FRUITLESS_STARTS);
        if let Some((name, node)) = failed {
            return does_not_start(name, node);
        }
        sleep(POLL_INTERVAL).await;
    }
}

fn not_saved(reason: &str) -> Hinted {
    let message =
        format!("this runs, but the supervisor cannot save it, and it is lost when the supervisor ends: {reason}");
    Hinted::new(message, "make the file writable or make room on its disk: the supervisor tries again every second")
}

fn does_not_start(name: &str, node: &NodeStatus) -> anyhow::Error {
    let exit = node.last_exit.as_ref().map_or_else(|| "ended".to_owned(), ToString::to_string);
    let log = node.log_tail.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n");
    let times = node.restarts;
    let message = format!("`{name}` does not start: nats-server {exit}, {times} times; its last lines:\n{log}");
    Hinted::new(message, format!("its configuration is `{}`", node.spec.config_path.display())).into()
}

fn delete_data(dir: &Path) -> anyhow::Result<()> {
    let own = Dir::new(dir)?;
    own.remove_shared_socket_dir()?;
    // The user has written them, and natsctl cannot make them again.
    let kept = own.secrets();
    if !kept.exists() {
        return remove(dir);
    }
    for entry in fs::read_dir(dir).with_context(|| format!("failed to read `{}`", dir.display()))? {
        let path = entry.with_context(|| format!("failed to read `{}`", dir.display()))?.path();
        if path != kept {
            remove(&path)?;
        }
    }
    note(&format!("the values of secrets are left in `{}`", kept.display()));
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    match if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) } {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// All failures as one.
fn all(mut failures: Vec<anyhow::Error>) -> anyhow::Result<()> {
    if failures.len() <= 1 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let text: Vec<String> = failures.iter().map(|failure| format!("{failure:#}")).collect();
    Err(Hinted::new(text.join("\n"), "`natsctl status` shows what runs; deploy again when this is fixed").into())
}

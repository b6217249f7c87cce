//! The local platform as natsctl's commands see it: what is there, what one step does, what proves that it worked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::artifacts::Artifacts;
use super::client::{self, Client};
use super::ground::{ADMIN, Endpoints, Ground};
use super::ports;
use super::protocol::{Description, Force, NodeStatus, PutService, ServiceStatus as Running, TaskSpec, TaskState};
use super::supervisor::probe;
use crate::error::Hinted;
use crate::local::build::Source;
use crate::local::lock::{IfTaken, Lock};
use crate::manifest::{Environment, Manifests};
use crate::model::desired::{Definition, Desired, Role};
use crate::model::plan::{Action, Observed, ObservedNode, ObservedService, Step};
use crate::model::status::ClusterHealth;
use crate::nats::bus::{self, ExpectedTasks, JETSTREAM_TIMEOUT, RESPONSE_TIMEOUT};
use crate::nats::health;
use crate::nats::identity::SYSTEM_USER;
use crate::nats::jetstream::JetStream;
use crate::nats::locate::{self, NatsServer};
use crate::pipeline::load::{self, BuiltArtifact, Inputs};

/// How long a command waits for a connection to NATS.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// How long the cluster may take to settle after a server was started.
const SETTLE: Duration = Duration::from_secs(60);
/// A server that ended so often right after its start will not come up.
const FRUITLESS_STARTS: u32 = 3;
/// How long JetStream may take to list what it has.
const LISTING: Duration = Duration::from_millis(1_000);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The environment of one state directory.
pub(crate) struct Local {
    pub(crate) manifests: Manifests,
    pub(crate) workspace: PathBuf,
    dir: PathBuf,
}

/// The desired state, and what is needed to bring it about.
pub(crate) struct Prepared {
    pub(crate) desired: Desired,
    ground: Ground,
    server: NatsServer,
}

impl Local {
    pub(crate) fn new(manifests: Manifests, dir: PathBuf, workspace: PathBuf) -> Self {
        Self { manifests, workspace, dir }
    }

    /// Where the environment keeps its files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps other changes of the environment out.
    pub(crate) async fn lock(&self, command: &str, if_taken: IfTaken) -> anyhow::Result<Lock> {
        Lock::take(&self.dir, command, if_taken).await
    }

    /// Builds the services and lays the ground; changes nothing that runs.
    pub(crate) async fn prepare(&self, source: &Source) -> anyhow::Result<Prepared> {
        let artifacts = self.artifacts(source).await?;
        let server = locate::locate(&self.workspace)?;
        tracing::info!(path = %server.path.display(), version = %server.version, "using nats-server");
        let ground = Ground::lay(&self.manifests, &self.dir, &server)?;
        self.prepared(artifacts, ground, server)
    }

    /// What [`Local::prepare`] would give, without a trace but for copies of binaries.
    pub(crate) async fn preview(&self, source: &Source) -> anyhow::Result<Prepared> {
        let artifacts = self.artifacts(source).await?;
        let server = locate::locate(&self.workspace)?;
        let ground = Ground::preview(&self.manifests, &self.dir, &server)?;
        self.prepared(artifacts, ground, server)
    }

    fn prepared(
        &self,
        artifacts: BTreeMap<String, BuiltArtifact>,
        ground: Ground,
        server: NatsServer,
    ) -> anyhow::Result<Prepared> {
        let desired = load::desired(&self.manifests, &Inputs { artifacts, nodes: ground.desired() })?;
        Ok(Prepared { desired, ground, server })
    }

    async fn artifacts(&self, source: &Source) -> anyhow::Result<BTreeMap<String, BuiltArtifact>> {
        let binaries = source.build(self.manifests.services.keys()).await?;
        let mut kept = Artifacts::open(&self.dir)?;
        let intern = |(name, path): (String, PathBuf)| {
            let artifact = kept
                .intern(&path, env!("CARGO_PKG_VERSION"))
                .with_context(|| format!("failed to copy `{}`", path.display()))?;
            Ok((name, BuiltArtifact { digest: artifact.digest, version: artifact.version }))
        };
        binaries.into_iter().map(intern).collect()
    }

    /// What is there.
    pub(crate) async fn observe(&self) -> anyhow::Result<Observed> {
        let Some(description) = self.describe().await? else {
            return Ok(Observed::default());
        };
        let assets = match Endpoints::read(&self.dir)? {
            // Without a running server nothing is known of streams, and making them again changes nothing.
            Some(endpoints) if description.nodes.values().any(|node| node.running) => {
                let client = endpoints.of(ADMIN)?.connect("natsctl", CONNECT).await;
                match client {
                    Ok(client) => JetStream::new(client).observe(LISTING).await.unwrap_or_default(),
                    Err(_) => Default::default(),
                }
            }
            _ => Default::default(),
        };
        let nodes = description
            .nodes
            .iter()
            .map(|(name, node)| (name.clone(), ObservedNode { node: node.spec.node.clone(), running: node.running }));
        let services = description.services.iter().map(|(name, service)| {
            let observed = ObservedService {
                definition: service.definition.clone(),
                revision: service.revision,
                declared_tasks: service.declared_tasks,
                desired: service.desired,
                running: service.ready(),
                failed: service.failed,
                ecs: None,
            };
            (name.clone(), observed)
        });
        Ok(Observed {
            nodes: nodes.collect(),
            streams: assets.streams,
            buckets: assets.buckets,
            services: services.collect(),
            images: BTreeMap::new(),
        })
    }

    /// What the supervisor has; `None` if nothing was ever deployed.
    pub(crate) async fn describe(&self) -> anyhow::Result<Option<Description>> {
        Ok(client::describe(&self.dir).await?)
    }

    /// How to reach NATS.
    ///
    /// # Errors
    /// If nothing was ever deployed.
    pub(crate) fn endpoints(&self) -> anyhow::Result<Endpoints> {
        Endpoints::read(&self.dir)?.ok_or_else(|| self.not_deployed())
    }

    pub(crate) fn not_deployed(&self) -> anyhow::Error {
        let message = format!("nothing is deployed in environment `{}`", self.manifests.name);
        Hinted::new(message, "`natsctl deploy --all` deploys everything").into()
    }

    // ------------------------------------------------------------------------------------------ steps

    /// The supervisor, started if need be.
    pub(crate) async fn supervisor(&self) -> anyhow::Result<Client> {
        Ok(client::ensure_supervisor(&self.dir).await?)
    }

    /// Starts servers that are not there, and waits until the cluster has settled.
    pub(crate) async fn start_nodes(
        &self,
        supervisor: &Client,
        prepared: &Prepared,
        steps: &[&Step],
    ) -> anyhow::Result<()> {
        let running = supervisor.describe().await?.nodes;
        for step in steps {
            let node = self.node(prepared, &step.name)?;
            let is_ours = running.get(&step.name).is_some_and(|status| status.running);
            if !is_ours {
                refuse_taken_ports(&step.name, node.ports)?;
            }
        }
        for step in steps {
            let spec = self.node(prepared, &step.name)?.spec.clone();
            prepared.server.check(&spec.config_path)?;
            supervisor.put_node(&step.name, spec).await?;
        }
        self.settled(supervisor, prepared).await.map(drop)
    }

    /// Restarts one server with another configuration or version; the cluster must have settled before and settles again.
    pub(crate) async fn change_node(
        &self,
        supervisor: &Client,
        prepared: &Prepared,
        step: &Step,
    ) -> anyhow::Result<()> {
        let spec = self.node(prepared, &step.name)?.spec.clone();
        prepared.server.check(&spec.config_path)?;
        supervisor.put_node(&step.name, spec).await?;
        self.settled(supervisor, prepared).await.map(drop)
    }

    fn node<'a>(&self, prepared: &'a Prepared, name: &str) -> anyhow::Result<&'a super::ground::GroundNode> {
        prepared.ground.nodes.get(name).with_context(|| format!("node `{name}` is not in the plan's environment"))
    }

    /// Waits until all servers agree; gives up at once on one that does not come up.
    async fn settled(&self, supervisor: &Client, prepared: &Prepared) -> anyhow::Result<ClusterHealth> {
        let endpoints = prepared.ground.endpoints();
        let crashed = async {
            loop {
                let nodes = supervisor.describe().await?.nodes;
                if let Some((name, node)) =
                    nodes.iter().find(|(_, node)| !node.running && node.restarts >= FRUITLESS_STARTS)
                {
                    return Err::<ClusterHealth, anyhow::Error>(does_not_start(name, node));
                }
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            health = health::wait_until_settled(endpoints.of(SYSTEM_USER)?, &endpoints.nodes, SETTLE) => health,
            crashed = crashed => crashed,
        }
    }

    /// The client of natsctl's own user.
    pub(crate) async fn jetstream(&self) -> anyhow::Result<JetStream> {
        Ok(JetStream::new(self.endpoints()?.of(ADMIN)?.connect("natsctl", CONNECT).await?))
    }

    /// Makes or changes a stream.
    pub(crate) async fn put_stream(&self, jetstream: &JetStream, desired: &Desired, name: &str) -> anyhow::Result<()> {
        let stream =
            desired.streams.get(name).with_context(|| format!("stream `{name}` is not in the plan's environment"))?;
        jetstream.put_stream(name, stream, JETSTREAM_TIMEOUT).await
    }

    /// Makes or changes a bucket.
    pub(crate) async fn put_bucket(&self, jetstream: &JetStream, desired: &Desired, name: &str) -> anyhow::Result<()> {
        let bucket =
            desired.buckets.get(name).with_context(|| format!("bucket `{name}` is not in the plan's environment"))?;
        jetstream.put_bucket(name, bucket, JETSTREAM_TIMEOUT).await
    }

    /// Begins to bring a service to a definition and a number of tasks; returns the deployment to follow.
    pub(crate) async fn put_service(&self, supervisor: &Client, wanted: WantedService<'_>) -> anyhow::Result<u64> {
        let put = PutService {
            name: wanted.name.to_owned(),
            spec: self.task_spec(wanted.name, wanted.definition)?,
            declared_tasks: wanted.declared_tasks,
            tasks: wanted.tasks,
            http_listen: self.http_listen(wanted.definition.role),
            force: wanted.force,
        };
        let accepted = supervisor.put_service(put).await.map_err(anyhow::Error::from);
        let accepted = accepted.with_context(|| format!("failed to deploy `{}`", wanted.name))?;
        Ok(accepted.deployment_id)
    }

    fn http_listen(&self, role: Role) -> Option<SocketAddr> {
        match &self.manifests.environment {
            Environment::Local(local) if role == Role::Gateway => {
                Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), local.gateway.port))
            }
            _ => None,
        }
    }

    /// What a task of this definition is on this machine.
    fn task_spec(&self, name: &str, definition: &Definition) -> anyhow::Result<TaskSpec> {
        let program = Artifacts::open(&self.dir)?.find(&definition.artifact);
        let program = program.with_context(|| format!("the binary `{}` of `{name}` is gone", definition.artifact))?;
        let endpoints = self.endpoints()?;
        let user = endpoints.of(name)?;
        let mut env = definition.environment.clone();
        let file = |path: &Path| path.display().to_string();
        env.extend(
            [
                ("SERVICE_NAME", name.to_owned()),
                ("SERVICE_VERSION", definition.version.clone()),
                ("WORKERS", definition.workers.to_string()),
                ("CONCURRENCY", definition.concurrency.to_string()),
                // The task gives up a little before it is killed, so that it can say why.
                ("STOP_TIMEOUT_MS", (definition.stop_timeout.as_millis() * 9 / 10).to_string()),
                ("NATS_URLS", user.urls.join(",")),
                ("NATS_CA_FILE", file(&user.ca_file)),
                ("NATS_CERT_FILE", file(&user.client_cert_file)),
                ("NATS_KEY_FILE", file(&user.client_key_file)),
                ("NATS_CREDS_FILE", file(&user.credentials_file)),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        Ok(TaskSpec { definition: definition.clone(), program, env })
    }

    /// Removes binaries that neither a task nor a rollback needs.
    pub(crate) async fn prune(&self) -> anyhow::Result<()> {
        if let Some(description) = self.describe().await? {
            Artifacts::open(&self.dir)?.prune(&description.artifacts())?;
        }
        Ok(())
    }

    // ------------------------------------------------------------------------------------------ proof

    /// Asks the bus and the gateway whether what was deployed answers: every task, with the revision that it should have.
    pub(crate) async fn prove(&self, services: &BTreeSet<String>) -> anyhow::Result<Vec<String>> {
        let endpoints = self.endpoints()?;
        health::wait_until_settled(endpoints.of(SYSTEM_USER)?, &endpoints.nodes, SETTLE).await?;
        let description = self.complete(services).await?;
        let client = endpoints.of(ADMIN)?.connect("natsctl", CONNECT).await?;
        let deployed = || description.services.iter().filter(|(name, _)| services.contains(*name));
        let gateways = deployed().filter_map(|(name, service)| Some((name, service.http?)));
        let gateways = try_join_all(gateways.map(|(name, address)| async move {
            prove_gateway(address).await.map(|()| (name.clone(), format!("{name} takes HTTP at http://{address}")))
        }));
        let workers = deployed().filter(|(_, service)| service.http.is_none());
        let workers = workers.map(|(name, service)| (name.clone(), expected(service))).collect();
        let (gateways, found) = futures::try_join!(gateways, bus::find(&client, &workers, RESPONSE_TIMEOUT))?;
        let mut proofs: BTreeMap<String, String> = gateways.into_iter().collect();
        for (name, tasks) in found {
            let proof = workers[&name].proof(&name, &tasks)?;
            proofs.insert(name, proof);
        }
        Ok(proofs.into_values().collect())
    }

    /// Waits until these services have all their tasks: one that has just lost its server or was killed comes back by itself.
    async fn complete(&self, services: &BTreeSet<String>) -> anyhow::Result<Description> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let description = self.describe().await?.ok_or_else(|| self.not_deployed())?;
            let deployed = description.services.iter().filter(|(name, _)| services.contains(*name));
            let Some((name, short)) = deployed.into_iter().find(|(_, service)| service.ready() < service.desired)
            else {
                return Ok(description);
            };
            if Instant::now() >= deadline {
                let message =
                    format!("`{name}` is deployed, but {} of {} tasks are ready", short.ready(), short.desired);
                return Err(Hinted::new(message, format!("see `natsctl status` and `natsctl logs {name}`")).into());
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// What a service should become.
pub(crate) struct WantedService<'a> {
    pub(crate) name: &'a str,
    pub(crate) definition: &'a Definition,
    pub(crate) declared_tasks: u32,
    pub(crate) tasks: u32,
    pub(crate) force: Force,
}

impl<'a> WantedService<'a> {
    /// A service as a step of the plan wants it.
    pub(crate) fn of_step(step: &'a Step, desired: &'a Desired) -> anyhow::Result<Self> {
        let service = desired
            .services
            .get(&step.name)
            .with_context(|| format!("service `{}` is not in the plan's environment", step.name))?;
        Ok(Self {
            name: &step.name,
            definition: &service.definition,
            declared_tasks: service.tasks,
            tasks: step.tasks.unwrap_or(service.tasks),
            // What does not run although nothing differs must be tried again.
            force: if step.action == Action::Start { Force::NewDeployment } else { Force::IfChanged },
        })
    }
}

fn refuse_taken_ports(node: &str, ports: [u16; 3]) -> anyhow::Result<()> {
    for (port, (key, purpose)) in
        ports.into_iter().zip([("client_port", "clients"), ("route_port", "its peers"), ("monitor_port", "monitoring")])
    {
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            continue;
        }
        let holder = ports::holder(port).map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
        let hint = format!("stop it, or set another `{key}` in the environment's manifest (0 takes any free port)");
        return Err(
            Hinted::new(format!("port {port}, which `{node}` needs for {purpose}, is held by {holder}"), hint).into()
        );
    }
    Ok(())
}

fn does_not_start(name: &str, node: &NodeStatus) -> anyhow::Error {
    let exit = node.last_exit.as_ref().map_or_else(|| "ended".to_owned(), ToString::to_string);
    let log = node.log_tail.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n");
    let hint = format!("its configuration is `{}`", node.spec.config_path.display());
    Hinted::new(
        format!("`{name}` does not start: nats-server {exit}, {} times; its last lines:\n{log}", node.restarts),
        hint,
    )
    .into()
}

/// Which tasks of a service, of which revision, take requests.
pub(super) fn ready_tasks(service: &Running) -> BTreeSet<&str> {
    let ready =
        |task: &&super::protocol::TaskStatus| task.state == TaskState::Ready && task.revision == service.revision;
    service.tasks.iter().filter(ready).map(|task| task.id.as_str()).collect()
}

/// What should answer on the bus: the tasks that take requests.
pub(super) fn expected(service: &Running) -> ExpectedTasks {
    let known: BTreeSet<String> = ready_tasks(service).into_iter().map(str::to_owned).collect();
    ExpectedTasks { revision: service.revision, tasks: u32::try_from(known.len()).unwrap_or(u32::MAX), known }
}

async fn prove_gateway(address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + RESPONSE_TIMEOUT;
    loop {
        match probe::get(address.port(), "/readyz", CONNECT).await {
            Ok(()) => return Ok(()),
            Err(got) if Instant::now() >= deadline => {
                let message = format!("the gateway at http://{address} is not ready: `/readyz` {got}");
                return Err(Hinted::new(message, "see `natsctl logs gateway`").into());
            }
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

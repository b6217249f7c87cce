//! The status of the local environment, from three sources: the supervisor, the NATS servers, and discovery on the bus.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cluster_files::{ADMIN, Endpoints};
use super::environment::{CONNECT, Local};
use super::history::History;
use super::protocol::{DeploymentState, Description, ServiceStatus as Running, TaskState};
use super::taken_ports;
use super::verify::{expected, ready_tasks};
use crate::model::desired::Role;
use crate::model::status::{ClusterHealth, GatewayStatus, NodeHealth, ServiceStatus, Status};
use crate::nats::bus::tasks;
use crate::nats::circuits::open_circuits;
use crate::nats::discovery::{Instance, Question, instances};
use crate::nats::health;
use crate::nats::identity::SYSTEM_USER;
use crate::nats::jetstream::JetStream;
use crate::nats::replicas;
use crate::pipeline::history::Record;
use crate::pipeline::load;
use crate::problem::counted;

/// How long servers and services may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_000);

impl Local {
    /// The status of the environment.
    pub(crate) async fn status(&self) -> anyhow::Result<Status> {
        let Some(description) = self.describe().await? else {
            return Ok(self.nothing_deployed());
        };
        let mut problems = Vec::new();
        if description.supervisor.is_none() {
            problems
                .push("the supervisor does not run; `natsctl deploy --all` starts it and everything else".to_owned());
        }
        if let Some(reason) = &description.unsaved {
            problems.push(format!(
                "the supervisor cannot save its state, and what has changed is lost when it ends: {reason}"
            ));
        }
        let endpoints = self.endpoints()?;
        let is_up = description.nodes.values().any(|node| node.running);
        let (nats, instances) = if is_up {
            tokio::join!(self.nats_health(&endpoints), discovered(&endpoints, &description))
        } else {
            (nats_down(&endpoints, &BTreeSet::new()), Ok(Vec::new()))
        };
        let instances = instances.unwrap_or_else(|error| {
            problems.push(format!("no task can be asked over the bus whether it answers: {error:#}"));
            Vec::new()
        });
        let open_circuits = open_circuits(&instances, &self.manifests);
        problems.extend(open_circuits.iter().map(ToString::to_string));
        let services = description.services.iter();
        let mut services: Vec<ServiceStatus> =
            services.map(|(name, service)| service_status(name, service, &instances, &description)).collect();
        let mut notes = Vec::new();
        // Who has scaled a service is worth knowing, and no reason to show no status when it cannot be read.
        let records = History::new(&self.dir).records(usize::MAX).unwrap_or_default();
        for (service, declared) in services.iter_mut().zip(description.services.values().map(|one| one.declared_tasks))
        {
            let scaled = (service.desired != declared).then(|| scaled(&service.name, service.desired, &records));
            match scaled {
                Some(scaled) if service.desired == 0 && service.reason.is_none() => {
                    let start = format!("`natsctl scale {} {declared}` starts it again", service.name);
                    service.reason = Some(format!("{scaled}: nothing answers its callers; {start}"));
                }
                Some(scaled) => {
                    notes.push(format!("service `{}`: {scaled}; its manifest says {declared}", service.name));
                }
                None => {}
            }
        }
        let running = self.gateway().filter(|name| description.services.contains_key(*name));
        let taken = taken_ports::of_environment(&self.manifests.environment, running, &description);
        problems.extend(taken.iter().map(ToString::to_string));
        for name in self.manifests.services.keys().filter(|name| !description.services.contains_key(*name)) {
            problems.push(format!("service `{name}` is not deployed; `natsctl deploy {name}` deploys it"));
        }
        let gateway =
            description.services.values().find_map(|service| service.http).map(|address| format!("http://{address}"));
        problems.extend(nats.problem.as_ref().map(|problem| format!("the NATS servers cannot be asked: {problem}")));
        problems.extend(stream_problems(&nats));
        let healthy =
            problems.is_empty() && nats.is_healthy() && services.iter().all(|service| service.reason.is_none());
        Ok(Status {
            environment: self.manifests.name.clone(),
            healthy,
            services,
            nats: Some(nats),
            gateway: GatewayStatus { url: gateway },
            open_circuits,
            problems,
            notes,
        })
    }

    fn nothing_deployed(&self) -> Status {
        Status {
            environment: self.manifests.name.clone(),
            healthy: false,
            services: Vec::new(),
            nats: Some(ClusterHealth { nodes: Vec::new(), quorum: false, problem: None, streams: Vec::new() }),
            gateway: GatewayStatus { url: None },
            open_circuits: Vec::new(),
            problems: vec!["nothing is deployed; `natsctl deploy --all` deploys everything".to_owned()],
            notes: Vec::new(),
        }
    }

    /// The health of the NATS cluster.
    pub(crate) async fn nats(&self) -> anyhow::Result<ClusterHealth> {
        Ok(self.nats_health(&self.endpoints()?).await)
    }

    async fn nats_health(&self, endpoints: &Endpoints) -> ClusterHealth {
        let expected = self.expected_streams(endpoints).await;
        let asked = async {
            let client = endpoints.of(SYSTEM_USER)?.connect("natsctl", CONNECT).await?;
            let names = endpoints.names();
            let (health, streams) = futures::try_join!(
                health::ask(&client, &endpoints.nodes, ANSWER_TIMEOUT),
                replicas::ask(&client, &names, &expected, ANSWER_TIMEOUT),
            )?;
            anyhow::Ok(ClusterHealth { streams, ..health })
        };
        let down = |error| ClusterHealth { problem: Some(format!("{error:#}")), ..nats_down(endpoints, &expected) };
        asked.await.unwrap_or_else(down)
    }

    /// Names of the streams that there should be: as the meta leader knows them or, where it does not answer, as the manifests say.
    async fn expected_streams(&self, endpoints: &Endpoints) -> BTreeSet<String> {
        let asked = async {
            let client = endpoints.of(ADMIN)?.connect("natsctl", CONNECT).await?;
            JetStream::new(client).names(ANSWER_TIMEOUT).await
        };
        asked.await.unwrap_or_else(|_| load::stream_names(&self.manifests))
    }
}

/// Streams that something is wrong with, together where the same is wrong with them.
fn stream_problems(nats: &ClusterHealth) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for stream in &nats.streams {
        if let Some(reason) = &stream.reason {
            by_reason.entry(reason).or_default().push(format!("`{}`", stream.name));
        }
    }
    let problem = |(reason, names): (&str, Vec<String>)| match names.as_slice() {
        [name] => format!("stream {name} {reason}"),
        names => format!("each of the streams {} {reason}", names.join(", ")),
    };
    by_reason.into_iter().map(problem).collect()
}

/// No server answers; nothing is known of the streams.
fn nats_down(endpoints: &Endpoints, streams: &BTreeSet<String>) -> ClusterHealth {
    let nodes = endpoints.nodes.iter().map(|(name, url)| NodeHealth {
        name: name.clone(),
        url: url.clone(),
        healthy: false,
        meta_leader: false,
        version: None,
        reason: Some("does not answer".to_owned()),
        settled: false,
    });
    let streams = streams.iter().map(|name| replicas::unknown(name));
    ClusterHealth { nodes: nodes.collect(), quorum: false, problem: None, streams: streams.collect() }
}

/// The service instances that discovery finds, with their statistics.
async fn discovered(endpoints: &Endpoints, description: &Description) -> anyhow::Result<Vec<Instance>> {
    let enough = |found: &[Instance]| {
        description.services.iter().all(|(name, service)| expected(service).is_met(&tasks(found, name)))
    };
    let client = endpoints.of(ADMIN)?.connect("natsctl", CONNECT).await?;
    instances(&client, Question::Stats, None, ANSWER_TIMEOUT, enough).await
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// That a service was scaled, and by whom, if the history knows it.
fn scaled(name: &str, tasks: u32, records: &[Record]) -> String {
    let step = format!("scale service {name}");
    let by = records.iter().find(|record| record.steps.iter().any(|one| one.step == step && one.result == "done"));
    let by = by.map(|record| format!(" by {} at {:.0}", record.who, record.started)).unwrap_or_default();
    format!("scaled to {tasks}{by}")
}

/// That the last deployment failed, why, and what runs instead.
fn failed(service: &Running) -> String {
    let failed = service.deployments.iter().find(|deployment| deployment.state == DeploymentState::Failed);
    let reason = failed.and_then(|deployment| deployment.reason.as_deref()).unwrap_or("see `natsctl logs`");
    match failed.filter(|deployment| deployment.revision != service.revision) {
        Some(failed) if service.ready() > 0 => {
            let (new, old) = (failed.revision, service.revision);
            format!("the last deployment failed, of revision {new}; revision {old} runs: {reason}")
        }
        _ => format!("the last deployment failed: {reason}"),
    }
}

/// Why a service has fewer tasks that are ready than it should.
fn not_ready(service: &Running, description: &Description) -> String {
    if description.supervisor.is_none() {
        return "it does not run".to_owned();
    }
    if let Some(reason) = service.tasks.iter().find_map(|task| task.reason.clone()) {
        return reason;
    }
    let starting = count(service.tasks.iter().filter(|task| task.state == TaskState::Starting));
    match starting {
        0 => format!("{} of {} ready", service.ready(), counted(service.desired, "task")),
        starting => format!("{starting} of {} starting", counted(service.desired, "task")),
    }
}

fn service_status(name: &str, service: &Running, instances: &[Instance], description: &Description) -> ServiceStatus {
    let ready = ready_tasks(service);
    let found = tasks(instances, name);
    let answering = expected(service).answering(&found);
    // The gateway is reached over HTTP; its readiness says that it is on the bus too.
    let answers = |task: &&&str| service.definition.role == Role::Gateway || answering.contains(**task);
    let healthy = count(ready.iter().filter(answers));
    let running = count(service.tasks.iter().filter(|task| {
        let stops = matches!(task.state, TaskState::Draining | TaskState::Stopped);
        task.revision == service.revision && task.pid.is_some() && !stops
    }));
    let reason = if service.failed {
        Some(failed(service))
    } else if service.lacks_listener() {
        Some(format!("it does not listen for HTTP clients; `natsctl deploy {name}` lets it"))
    } else if count(ready.iter()) < service.desired {
        Some(not_ready(service, description))
    } else if healthy < service.desired {
        Some(format!("{healthy} of {} answer on the bus", counted(service.desired, "task")))
    } else {
        None
    };
    ServiceStatus {
        name: name.to_owned(),
        desired: service.desired,
        running,
        healthy,
        revision: service.revision,
        version: service.definition.version.clone(),
        image: None,
        rollout: None,
        alarms: Vec::new(),
        reason,
    }
}

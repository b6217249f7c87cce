//! The status of the local environment, from three sources: the supervisor, the NATS servers, and discovery on the bus.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cluster_files::{ADMIN, Endpoints};
use super::environment::{CONNECT, Local};
use super::protocol::{Description, ServiceStatus as Running, TaskState};
use super::verify::{expected, ready_tasks};
use crate::model::desired::Role;
use crate::model::status::{ClusterHealth, GatewayStatus, NodeHealth, ServiceStatus, Status};
use crate::nats::bus::tasks;
use crate::nats::discovery::{Instance, instances};
use crate::nats::health;
use crate::nats::identity::SYSTEM_USER;
use crate::nats::jetstream::JetStream;
use crate::nats::replicas;
use crate::pipeline::load;

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
        let services: Vec<ServiceStatus> =
            description.services.iter().map(|(name, service)| service_status(name, service, &instances)).collect();
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
            problems,
            notes: Vec::new(),
        })
    }

    fn nothing_deployed(&self) -> Status {
        Status {
            environment: self.manifests.name.clone(),
            healthy: false,
            services: Vec::new(),
            nats: Some(ClusterHealth { nodes: Vec::new(), quorum: false, problem: None, streams: Vec::new() }),
            gateway: GatewayStatus { url: None },
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

/// The service instances that discovery finds.
async fn discovered(endpoints: &Endpoints, description: &Description) -> anyhow::Result<Vec<Instance>> {
    let enough = |found: &[Instance]| {
        let workers = description.services.iter().filter(|(_, service)| service.definition.role == Role::Worker);
        workers.into_iter().all(|(name, service)| expected(service).is_met(&tasks(found, name)))
    };
    let client = endpoints.of(ADMIN)?.connect("natsctl", CONNECT).await?;
    instances(&client, None, ANSWER_TIMEOUT, enough).await
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

fn service_status(name: &str, service: &Running, instances: &[Instance]) -> ServiceStatus {
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
    let failed = service.deployment().filter(|_| service.failed).and_then(|deployment| deployment.reason.clone());
    let pending = || service.tasks.iter().find_map(|task| task.reason.clone());
    let reason = if service.failed {
        Some(format!("the last deployment failed: {}", failed.unwrap_or_else(|| "see the logs".to_owned())))
    } else if count(ready.iter()) < service.desired {
        Some(pending().unwrap_or_else(|| "tasks are being started".to_owned()))
    } else if healthy < service.desired {
        Some(format!("{healthy} of {} tasks answer on the bus", service.desired))
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

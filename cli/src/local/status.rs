//! The status of the local environment, from three sources: the supervisor, the NATS servers, and discovery on the bus.

mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use self::services::{Known, chosen, service_status};

use super::cluster_files::{ADMIN, Endpoints};
use super::environment::{CONNECT, Local};
use super::history::History;
use super::lock::Lock;
use super::protocol::Description;
use super::taken_ports;
use super::verify::expected;
use crate::model::status::{ClusterHealth, Deploying, GatewayStatus, NodeHealth, ServiceStatus, Status};
use crate::nats::bus::tasks;
use crate::nats::circuits::open_circuits;
use crate::nats::discovery::{Instance, Question, instances};
use crate::nats::health;
use crate::nats::identity::SYSTEM_USER;
use crate::nats::jetstream::JetStream;
use crate::nats::replicas;
use crate::pipeline::history::{Record, RunResult};
use crate::pipeline::load;

/// How long servers and services may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Among so many runs it is looked for who has scaled a service or rolled it back.
const LAST_RUNS: usize = 100;

impl Local {
    /// The status of the environment, with these services or with all.
    ///
    /// # Errors
    /// A name that no service has; the supervisor cannot be asked.
    pub(crate) async fn status(&self, names: &[String]) -> anyhow::Result<Status> {
        let Some(description) = self.describe().await? else {
            chosen(names, self.manifests.services.keys())?;
            return Ok(self.nothing_deployed());
        };
        let shown = chosen(names, self.manifests.services.keys().chain(description.services.keys()))?;
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
        let mut notes = Vec::new();
        // Who has scaled a service is worth knowing, and no reason to show no status when it cannot be read.
        let records = History::new(&self.dir).records(LAST_RUNS).unwrap_or_else(|error| {
            notes.push(format!("who has changed what is not known: {error:#}"));
            Vec::new()
        });
        let deploying = self.deploying(&records, &mut notes);
        let known =
            Known { description: &description, instances: &instances, records: &records, now: Timestamp::now() };
        let mut services: Vec<ServiceStatus> = Vec::new();
        for (name, service) in description.services.iter().filter(|(name, _)| shown.contains(*name)) {
            let (status, noted) = service_status(name, service, &known);
            services.push(status);
            notes.extend(noted);
        }
        let running = self.gateway().filter(|name| description.services.contains_key(*name));
        let taken = taken_ports::of_environment(&self.manifests.environment, running, &description);
        problems.extend(taken.iter().map(ToString::to_string));
        for name in shown.iter().filter(|name| !description.services.contains_key(*name)) {
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
            deploying,
            services,
            nats: Some(nats),
            gateway: GatewayStatus { url: gateway },
            open_circuits,
            problems,
            notes,
        })
    }

    /// What changes the environment now; that a run was killed is noted.
    fn deploying(&self, records: &[Record], notes: &mut Vec<String>) -> Option<Deploying> {
        let open = records.first().filter(|run| run.result == RunResult::Started)?;
        let (who, command, since) = (&open.who, &open.command, open.started);
        if Lock::has_holder(&self.dir) {
            return Some(Deploying { who: who.clone(), command: command.clone(), since });
        }
        notes.push(format!(
            "`{command}` of {who} ({since:.0}) was interrupted; `natsctl deploy --resume` goes on with it"
        ));
        None
    }

    fn nothing_deployed(&self) -> Status {
        Status {
            environment: self.manifests.name.clone(),
            healthy: false,
            deploying: None,
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

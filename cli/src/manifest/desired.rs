//! From manifests and what was built to the state that should be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Manifests;
use super::files::{self, Bucket};
use crate::model::desired::{self, Definition, Desired, Role, Scaling, Stream};
use crate::model::units::{Size, Span};
use crate::nats::permissions::{self, Permissions};

/// What the desired state is made of besides the manifests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// What was built, by service.
    pub artifacts: BTreeMap<String, Artifact>,
    /// NATS servers by name.
    pub nodes: BTreeMap<String, desired::Node>,
}

/// What was built of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// `sha256:…`
    pub digest: String,
    /// What it reports on the bus.
    pub version: String,
}

/// There is nothing to run for a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("service `{0}` has not been built")]
pub struct MissingArtifact(pub String);

impl Manifests {
    /// The state that should be.
    ///
    /// # Errors
    /// A service that was not built: what runs is named by its digest or not at all.
    pub fn desired(&self, inputs: &Inputs) -> Result<Desired, MissingArtifact> {
        let users = permissions::users(self);
        let service = |(name, service): (&String, &files::Service)| {
            let artifact = inputs.artifacts.get(name).ok_or_else(|| MissingArtifact(name.clone()))?;
            let permissions = users.get(name).map(Permissions::digest).unwrap_or_default();
            Ok((name.clone(), self.service(service, artifact, permissions)))
        };
        Ok(Desired {
            environment: self.name.clone(),
            nodes: inputs.nodes.clone(),
            streams: self.streams(),
            buckets: self.buckets(),
            images: BTreeMap::new(),
            services: self.services.iter().map(service).collect::<Result<_, _>>()?,
        })
    }

    /// Most that JetStream stores on one node.
    pub fn max_file_store(&self) -> Size {
        let own = match &self.environment {
            files::Environment::Local(local) => local.nats.max_file_store,
            files::Environment::Aws(_) => None,
        };
        own.unwrap_or(self.project.nats.max_file_store)
    }

    /// The name of the stream that keeps a service's events.
    pub fn event_stream(service: &str) -> String {
        format!("EVT_{}", service.to_uppercase().replace('-', "_"))
    }

    fn service(&self, service: &files::Service, artifact: &Artifact, permissions: String) -> desired::Service {
        let settings = &service.settings;
        desired::Service {
            definition: Definition {
                artifact: artifact.digest.clone(),
                version: artifact.version.clone(),
                role: service.role,
                permissions,
                environment: service
                    .environment
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.clone()))
                    .collect(),
                cpu: settings.cpu,
                memory_mib: u32::try_from(settings.memory.mebibytes()).unwrap_or(u32::MAX),
                workers: settings.workers,
                concurrency: settings.concurrency,
                health: desired::Health {
                    interval: settings.health.interval.duration(),
                    timeout: settings.health.timeout.duration(),
                    retries: settings.health.retries,
                    start_period: settings.health.start_period.duration(),
                },
                stop_timeout: settings.stop_timeout.duration(),
                ecs: None,
            },
            tasks: settings.tasks,
            scaling: Scaling { min: settings.autoscaling.min, max: settings.autoscaling.max },
            calls: self.callees(service),
            ecs: None,
        }
    }

    /// The services that a service calls: for a gateway all that serve anything.
    pub(crate) fn callees(&self, service: &files::Service) -> BTreeSet<String> {
        match service.role {
            Role::Worker => service.calls.clone(),
            Role::Gateway => self
                .services
                .values()
                .filter(|other| !other.serves.is_empty() && other.name != service.name)
                .map(|other| other.name.to_string())
                .collect(),
        }
    }

    fn streams(&self) -> BTreeMap<String, Stream> {
        let nats = &self.project.nats;
        let stream = |subjects: Vec<String>, max_age: Span| Stream {
            subjects,
            replicas: self.replicas(None),
            max_age_seconds: max_age.seconds(),
            duplicate_window_seconds: nats.events.duplicate_window.seconds().min(max_age.seconds()),
        };
        let publishing = self.services.values().filter(|service| !service.publishes.is_empty());
        publishing
            .map(|service| {
                let subjects = service.publishes.iter().cloned().collect();
                (Self::event_stream(&service.name), stream(subjects, nats.events.max_age))
            })
            .chain([
                ("AUDIT".to_owned(), stream(vec!["audit.>".to_owned()], nats.audit.max_age)),
                ("DLQ".to_owned(), stream(vec!["dlq.>".to_owned()], nats.dead_letters.max_age)),
            ])
            .collect()
    }

    fn buckets(&self) -> BTreeMap<String, desired::Bucket> {
        let bucket = |bucket: &Bucket| desired::Bucket {
            replicas: self.replicas(bucket.replicas),
            history: i64::from(bucket.history),
            ttl_seconds: bucket.ttl.map(Span::seconds).unwrap_or_default(),
        };
        self.services
            .values()
            .flat_map(|service| &service.buckets)
            .map(|(name, described)| (name.to_string(), bucket(described)))
            .collect()
    }

    /// As many copies as asked for, but no more than there are nodes.
    fn replicas(&self, asked: Option<usize>) -> usize {
        asked.unwrap_or(self.project.nats.replicas).min(self.environment.nodes())
    }
}

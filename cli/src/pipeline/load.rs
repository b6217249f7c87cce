//! Load: from the manifests and what was built to the desired state, the same on every platform. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::manifest::consumes::{self, Delivery};
use crate::manifest::{BucketSettings, CacheSettings, Manifests, ServiceManifest, Settings};
use crate::model::desired::{Bucket, Consumer, Definition, Desired, Health, Node, Role, Scaling, Service, Stream};
use crate::model::units::Span;
use crate::nats::dead_letters;
use crate::nats::jetstream::bucket_stream;
use crate::nats::permissions::{self, Permissions};

/// The variable by which a gateway knows which methods are public.
const PUBLIC_METHODS: &str = "GATEWAY_METHODS";
/// The variable by which a task knows its caches.
const CACHES: &str = "SERVICE_CACHES";
/// The variable by which a task knows which packages it may call.
const CALLS: &str = "SERVICE_CALLS";
/// The variable by which a task knows what it consumes.
const CONSUMERS: &str = "NATS_CONSUMERS";
/// How many events may be under way to the tasks of a service at least, as servers allow by default.
const MIN_ACK_PENDING: i64 = 1_000;
/// The stream of audit events.
const AUDIT: &str = "AUDIT";

/// What the desired state is made of besides the manifests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Inputs {
    /// What was built, by service.
    pub(crate) artifacts: BTreeMap<String, BuiltArtifact>,
    /// NATS servers by name.
    pub(crate) nodes: BTreeMap<String, Node>,
}

/// What was built of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BuiltArtifact {
    /// `sha256:…`
    pub(crate) digest: String,
    /// The version that it reports on the bus.
    pub(crate) version: String,
}

/// There is nothing to run for a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("service `{0}` has not been built")]
pub(crate) struct MissingArtifact(pub(crate) String);

/// The desired state of an environment.
///
/// # Errors
/// A service that was not built: a revision names what it runs by its digest.
pub(crate) fn desired(manifests: &Manifests, inputs: &Inputs) -> Result<Desired, MissingArtifact> {
    let accounts = permissions::accounts(manifests);
    let services = manifests.services.iter().map(|(name, manifest)| {
        let artifact = inputs.artifacts.get(name).ok_or_else(|| MissingArtifact(name.clone()))?;
        let permissions = accounts.get(name).and_then(|account| account.users.get(name));
        let permissions = permissions.map(Permissions::digest).unwrap_or_default();
        Ok((name.clone(), service(manifests, manifest, artifact, permissions)))
    });
    Ok(Desired {
        environment: manifests.name.clone(),
        nodes: inputs.nodes.clone(),
        streams: streams(manifests),
        buckets: buckets(manifests),
        consumers: consumers(manifests),
        images: BTreeMap::new(),
        identities: BTreeMap::new(),
        services: services.collect::<Result<_, _>>()?,
    })
}

fn service(
    manifests: &Manifests,
    manifest: &ServiceManifest,
    artifact: &BuiltArtifact,
    permissions: String,
) -> Service {
    let settings = &manifest.settings;
    Service {
        definition: definition(manifests, manifest, artifact, permissions),
        tasks: settings.tasks,
        scaling: Scaling { min: settings.autoscaling.min, max: settings.autoscaling.max },
        calls: manifests.callees(manifest),
        streams: match manifest.role {
            Role::Standalone => BTreeSet::new(),
            Role::Worker | Role::Gateway => streams_of(manifests, manifest),
        },
        buckets: manifest.buckets.keys().map(ToString::to_string).collect(),
        consumers: consumers_of(manifests, manifest).map(|(name, _)| name).collect(),
        ecs: None,
    }
}

fn definition(
    manifests: &Manifests,
    manifest: &ServiceManifest,
    artifact: &BuiltArtifact,
    permissions: String,
) -> Definition {
    let settings = &manifest.settings;
    let on_nats = manifest.role != Role::Standalone;
    let own = manifest.environment.iter().map(|(name, value)| (name.to_string(), value.clone()));
    let public = (manifest.role == Role::Gateway).then(|| {
        let methods: Vec<&str> = manifests.public_methods().into_iter().collect();
        (PUBLIC_METHODS.to_owned(), methods.join(","))
    });
    Definition {
        artifact: artifact.digest.clone(),
        version: if on_nats { artifact.version.clone() } else { String::new() },
        role: manifest.role,
        permissions,
        // What the service's own manifest says goes last, and so first.
        environment: Some(traces(manifests))
            .filter(|_| on_nats)
            .into_iter()
            .flatten()
            .chain(own)
            .chain(public)
            .chain(called(manifests, manifest))
            .chain(caches(manifest))
            .chain(consumed(manifests, manifest))
            .collect(),
        secrets: BTreeMap::new(),
        cpu: settings.cpu,
        memory_mib: u32::try_from(settings.memory.mebibytes()).unwrap_or(u32::MAX),
        workers: if on_nats { settings.workers } else { 0 },
        concurrency: if on_nats { settings.concurrency } else { 0 },
        health: Health {
            interval: settings.health.interval.duration(),
            timeout: settings.health.timeout.duration(),
            retries: settings.health.retries,
            start_period: settings.health.start_period.duration(),
        },
        stop_timeout: settings.stop_timeout.duration(),
        ecs: None,
    }
}

/// The variables by which tasks know where their spans go and which are recorded, as OpenTelemetry defines them.
fn traces(manifests: &Manifests) -> BTreeMap<String, String> {
    let Some(traces) = manifests.environment.traces() else { return BTreeMap::new() };
    let endpoint = traces.endpoint.as_ref().map(|url| ("OTEL_EXPORTER_OTLP_ENDPOINT", url.clone()));
    let sampler = traces.one_in.map(|one_in| {
        let ratio = ("OTEL_TRACES_SAMPLER_ARG", (1.0 / f64::from(one_in)).to_string());
        [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()), ratio]
    });
    let place = ("OTEL_RESOURCE_ATTRIBUTES", format!("deployment.environment.name={}", manifests.name));
    let all = endpoint.into_iter().chain(sampler.into_iter().flatten()).chain([place]);
    all.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The packages of the services that a service calls, as the SDK reads them. A gateway knows its methods one by one.
fn called(manifests: &Manifests, manifest: &ServiceManifest) -> Option<(String, String)> {
    let callees = manifest.calls.iter().filter_map(|callee| manifests.services.get(callee));
    let packages: BTreeSet<&str> = callees.flat_map(|callee| &callee.serves).map(String::as_str).collect();
    (!packages.is_empty()).then(|| (CALLS.to_owned(), packages.into_iter().collect::<Vec<_>>().join(",")))
}

/// The caches of a service, as the SDK reads them.
fn caches(manifest: &ServiceManifest) -> Option<(String, String)> {
    let one = |settings: &CacheSettings| json!({ "ttl_ms": milliseconds(settings.ttl), "max_bytes": settings.max_size.bytes() });
    let caches: BTreeMap<&str, Value> =
        manifest.caches.iter().map(|(name, settings)| (&**name, one(settings))).collect();
    (!caches.is_empty()).then(|| (CACHES.to_owned(), json!(caches).to_string()))
}

/// The streams that a service needs: its own, those whose events it consumes, and those of audit events and dead letters.
fn streams_of(manifests: &Manifests, manifest: &ServiceManifest) -> BTreeSet<String> {
    let own = manifest.events().next().map(|_| manifest.event_stream());
    let consumes = |other: &&ServiceManifest| manifest.consumes.keys().any(|event| other.publishes.contains(&**event));
    let publishers = manifests.services.values().filter(consumes);
    let of_all = [AUDIT, dead_letters::STREAM].map(str::to_owned);
    publishers.map(ServiceManifest::event_stream).chain(own).chain(of_all).collect()
}

/// Names of all streams that the services need, those behind buckets among them.
pub(crate) fn stream_names(manifests: &Manifests) -> BTreeSet<String> {
    let buckets = buckets(manifests).into_keys().map(|bucket| bucket_stream(&bucket));
    streams(manifests).into_keys().chain(buckets).collect()
}

/// One stream for each service that publishes events, one for audit records and one for dead letters.
fn streams(manifests: &Manifests) -> BTreeMap<String, Stream> {
    let nats = &manifests.project.nats;
    let stream = |subjects: Vec<String>, max_age: Span| Stream {
        subjects,
        replicas: manifests.replicas(None),
        max_age_seconds: max_age.seconds(),
        duplicate_window_seconds: nats.events.duplicate_window.seconds().min(max_age.seconds()),
        outboxes: BTreeSet::new(),
    };
    let buckets = |service: &ServiceManifest| service.buckets.keys().map(ToString::to_string).collect::<Vec<_>>();
    let publishing = manifests.services.values().filter(|service| service.events().next().is_some());
    let events = publishing.map(|service| {
        let subjects = service.events().flat_map(|event| [event.clone(), consumes::replays("*", event)]);
        let mut subjects: Vec<String> = subjects.collect();
        subjects.sort();
        let outboxes = buckets(service).into_iter().collect();
        (service.event_stream(), Stream { outboxes, ..stream(subjects, nats.events.max_age) })
    });
    let audited = manifests.services.values().filter(|service| service.is_audited());
    let outboxes = audited.flat_map(buckets).collect();
    let others = [
        (AUDIT.to_owned(), Stream { outboxes, ..stream(vec!["audit.>".to_owned()], nats.audit.max_age) }),
        (dead_letters::STREAM.to_owned(), stream(vec!["dlq.>".to_owned()], nats.dead_letters.max_age)),
    ];
    events.chain(others).collect()
}

fn buckets(manifests: &Manifests) -> BTreeMap<String, Bucket> {
    let bucket = |settings: &BucketSettings, outbox_seconds: u64| Bucket {
        replicas: manifests.replicas(settings.replicas),
        history: i64::from(settings.history),
        ttl_seconds: settings.ttl.map(Span::seconds).unwrap_or_default(),
        outbox_seconds,
    };
    let of_service = |service: &'_ ServiceManifest| {
        let outbox = manifests.project.nats.events.outbox_max_age.seconds();
        let outbox = if service.publishes.is_empty() { 0 } else { outbox };
        let named = service.buckets.iter();
        named.map(|(name, settings)| (name.to_string(), bucket(settings, outbox))).collect::<Vec<_>>()
    };
    manifests.services.values().flat_map(of_service).collect()
}

/// The consumers of all services.
fn consumers(manifests: &Manifests) -> BTreeMap<String, Consumer> {
    manifests.services.values().flat_map(|service| consumers_of(manifests, service)).collect()
}

/// The consumers that the tasks of a service share.
fn consumers_of(manifests: &Manifests, service: &ServiceManifest) -> impl Iterator<Item = (String, Consumer)> {
    let name = &*service.name;
    service.shared_events().filter_map(move |(event, settings)| {
        let stream = stream_of(manifests, event)?;
        let Settings { workers, concurrency, autoscaling, .. } = &service.settings;
        let at_once = i64::from(autoscaling.max) * i64::from(*workers) * i64::from(*concurrency);
        let consumer = Consumer {
            service: Some(name.to_owned()),
            subjects: vec![event.to_string(), consumes::replays(name, event)],
            start: settings.start,
            ack_wait_ms: milliseconds(settings.ack_wait),
            max_ack_pending: if settings.ordered { 1 } else { at_once.max(MIN_ACK_PENDING) },
            max_deliver: -1,
        };
        Some((format!("{stream}/{}", consumes::durable(name, event)), consumer))
    })
}

/// What a service consumes, as its tasks read it.
fn consumed(manifests: &Manifests, service: &ServiceManifest) -> Option<(String, String)> {
    let consumers = service.consumes.iter().filter_map(|(event, settings)| {
        Some(json!({
            "event": &**event,
            "stream": stream_of(manifests, event)?,
            "durable": (settings.delivery == Delivery::Shared).then(|| consumes::durable(&service.name, event)),
            "max_deliveries": settings.deliveries,
            "backoff_ms": settings.backoff.iter().copied().map(milliseconds).collect::<Vec<_>>(),
            "timeout_ms": milliseconds(settings.timeout),
            "ack_wait_ms": milliseconds(settings.ack_wait),
            "ordered": settings.ordered,
        }))
    });
    let consumers: Vec<Value> = consumers.collect();
    (!consumers.is_empty()).then(|| (CONSUMERS.to_owned(), Value::from(consumers).to_string()))
}

/// The stream that stores an event.
fn stream_of(manifests: &Manifests, event: &str) -> Option<String> {
    let publisher = manifests.services.values().find(|service| service.publishes.contains(event));
    publisher.map(ServiceManifest::event_stream)
}

fn milliseconds(span: Span) -> u64 {
    u64::try_from(span.duration().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

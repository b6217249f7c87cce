//! What must change: the observed state, and the pure comparison of it with the desired one.

mod show;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::desired::{Bucket, Definition, Desired, EcsService, Image, Node, Scaling, Service, Stream};

/// What is there, as a platform saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    /// NATS servers by name.
    pub nodes: BTreeMap<String, ObservedNode>,
    /// JetStream streams by name, buckets not among them.
    pub streams: BTreeMap<String, Stream>,
    /// JetStream key-value buckets by name.
    pub buckets: BTreeMap<String, Bucket>,
    /// Services by name.
    pub services: BTreeMap<String, ObservedService>,
    /// Images that the registry has, by service.
    pub images: BTreeMap<String, Image>,
}

/// A NATS server that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNode {
    /// What it was started with.
    pub node: Node,
    /// Whether its process runs.
    pub running: bool,
}

/// A service that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedService {
    /// What its current revision is made of.
    pub definition: Definition,
    /// Number of the current revision, from 1.
    pub revision: u64,
    /// The number of tasks that the manifest asked for when it was last deployed.
    pub declared_tasks: u32,
    /// The number of tasks that it should run now, after `scale` and autoscaling.
    pub desired: u32,
    /// Tasks of the current revision that run.
    pub running: u32,
    /// Whether the last deployment failed and was rolled back or stopped.
    pub failed: bool,
    /// What it is on ECS besides its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs: Option<EcsService>,
}

/// What a step does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is not there yet.
    Create,
    /// It differs.
    Update,
    /// It is as it should be, but does not run.
    Start,
    /// Nothing asks for it any more.
    Delete,
}

/// What a step acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An image in a registry.
    Image,
    /// A NATS server.
    Node,
    /// A JetStream stream.
    Stream,
    /// A JetStream key-value bucket.
    Bucket,
    /// A service.
    Service,
}

/// A field that differs. `None` is a field that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Path of the field, for example `definition.environment.LOG_LEVEL`.
    pub field: String,
    /// What is there.
    pub from: Option<Value>,
    /// What should be.
    pub to: Option<Value>,
}

/// One thing to do. Steps of the same wave do not depend on each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// To what kind of thing.
    pub kind: Kind,
    /// To which one.
    pub name: String,
    /// Why.
    pub changes: Vec<Change>,
    /// Steps run in the order of their waves, from 0.
    pub wave: usize,
    /// How many tasks the service should have afterwards; only for services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

/// What must be done, in the order in which it is safe to do it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Ordered by wave.
    pub steps: Vec<Step>,
}

/// Services come after what NATS must have for them.
const FIRST_SERVICE_WAVE: usize = 2;

impl Plan {
    /// Steps in the order in which they are safe to run. No I/O: everything that this decides, it decides from its arguments.
    ///
    /// Nodes come first, then streams and buckets, then services, each after those that it calls, and last what nothing
    /// asks for any more. Streams and buckets are never deleted: they hold data, and who wants them gone says so by name.
    pub fn new(desired: &Desired, observed: &Observed) -> Self {
        let layers = layers(&desired.services);
        let after_services = FIRST_SERVICE_WAVE + layers.values().max().map_or(0, |last| last + 1);

        let mut steps = stored(Kind::Image, 0, &desired.images, &observed.images);
        for (name, node) in &desired.nodes {
            let there = observed.nodes.get(name);
            let changes = differences("", there.map(|there| &there.node), node);
            let action = match there {
                None => Action::Create,
                Some(_) if !changes.is_empty() => Action::Update,
                Some(there) if !there.running => Action::Start,
                Some(_) => continue,
            };
            steps.push(Step::new(action, Kind::Node, name, 0, changes));
        }
        steps.extend(stored(Kind::Stream, 1, &desired.streams, &observed.streams));
        steps.extend(stored(Kind::Bucket, 1, &desired.buckets, &observed.buckets));
        for (name, service) in &desired.services {
            let wave = FIRST_SERVICE_WAVE + layers[name.as_str()];
            steps.extend(service_step(name, service, observed.services.get(name), wave));
        }
        let extra = |name: &&String| !desired.services.contains_key(*name);
        for name in observed.services.keys().filter(extra) {
            steps.push(Step::new(Action::Delete, Kind::Service, name, after_services, Vec::new()));
        }
        let extra = |name: &&String| !desired.nodes.contains_key(*name);
        for name in observed.nodes.keys().filter(extra) {
            steps.push(Step::new(Action::Delete, Kind::Node, name, after_services + 1, Vec::new()));
        }
        steps.sort_by(|a, b| (a.wave, a.kind, &a.name).cmp(&(b.wave, b.kind, &b.name)));
        Self { steps }
    }

    /// The same without the steps of other services than these; what NATS needs stays.
    #[must_use]
    pub fn select(mut self, services: &BTreeSet<String>) -> Self {
        self.steps.retain(|step| !matches!(step.kind, Kind::Service | Kind::Image) || services.contains(&step.name));
        self
    }

    /// The same, but what nothing asks for any more stays.
    #[must_use]
    pub fn without_deletions(mut self) -> Self {
        self.steps.retain(|step| step.action != Action::Delete);
        self
    }

    /// Whether nothing is to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Step {
    fn new(action: Action, kind: Kind, name: &str, wave: usize, changes: Vec<Change>) -> Self {
        Self { action, kind, name: name.to_owned(), changes, wave, tasks: None }
    }
}

/// How many calls deep each service is: 0 calls nobody, and nobody is in a wave with what it calls.
fn layers(services: &BTreeMap<String, Service>) -> BTreeMap<&str, usize> {
    let mut layers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut waiting: BTreeMap<&str, &Service> =
        services.iter().map(|(name, service)| (name.as_str(), service)).collect();
    for layer in 0.. {
        let blocked = |service: &Service| service.calls.iter().any(|callee| waiting.contains_key(callee.as_str()));
        let mut ready: Vec<&str> = waiting.keys().copied().filter(|name| !blocked(waiting[name])).collect();
        if ready.is_empty() {
            // Nothing is left, or only a cycle, which the manifests refuse and for which no order is better.
            ready = waiting.keys().copied().collect();
        }
        for name in ready {
            waiting.remove(name);
            layers.insert(name, layer);
        }
        if waiting.is_empty() {
            break;
        }
    }
    layers
}

/// Images, streams or buckets that are to be created or changed.
fn stored<T: Serialize>(
    kind: Kind,
    wave: usize,
    desired: &BTreeMap<String, T>,
    observed: &BTreeMap<String, T>,
) -> Vec<Step> {
    let step = |(name, wanted): (&String, &T)| {
        let there = observed.get(name);
        let changes = differences("", there, wanted);
        let action = match there {
            None => Action::Create,
            Some(_) if !changes.is_empty() => Action::Update,
            Some(_) => return None,
        };
        Some(Step::new(action, kind, name, wave, changes))
    };
    desired.iter().filter_map(step).collect()
}

fn service_step(name: &str, desired: &Service, observed: Option<&ObservedService>, wave: usize) -> Option<Step> {
    let step =
        |action, changes, tasks| Step { tasks: Some(tasks), ..Step::new(action, Kind::Service, name, wave, changes) };
    let Some(observed) = observed else {
        let mut changes = differences::<Definition>("definition", None, &desired.definition);
        changes.push(Change::new("tasks", None, Some(desired.tasks.into())));
        changes.extend(differences("service", None, &desired.ecs));
        return Some(step(Action::Create, changes, desired.tasks));
    };

    let tasks = tasks(desired, observed);
    let count = |field: &str, from: u32, to: u32| Change::new(field, Some(from.into()), Some(to.into()));
    let mut changes = differences("definition", Some(&observed.definition), &desired.definition);
    changes.extend(differences("service", Some(&observed.ecs), &desired.ecs));
    if observed.declared_tasks != desired.tasks {
        changes.push(count("declared_tasks", observed.declared_tasks, desired.tasks));
    }
    if observed.desired != tasks {
        changes.push(count("tasks", observed.desired, tasks));
    }
    if !changes.is_empty() {
        return Some(step(Action::Update, changes, tasks));
    }

    if observed.failed {
        changes.push(Change::new("failed", Some(true.into()), Some(false.into())));
    }
    if observed.running < tasks {
        changes.push(count("running", observed.running, tasks));
    }
    (!changes.is_empty()).then(|| step(Action::Start, changes, tasks))
}

/// How many tasks should run. What `scale` and autoscaling have set stays until the manifest asks for another number.
fn tasks(desired: &Service, observed: &ObservedService) -> u32 {
    if observed.declared_tasks != desired.tasks {
        return desired.tasks;
    }
    let Scaling { min, max } = desired.scaling;
    observed.desired.min(max).max(min)
}

impl Change {
    fn new(field: impl Into<String>, from: Option<Value>, to: Option<Value>) -> Self {
        Self { field: field.into(), from, to }
    }
}

/// The fields in which two values differ, by their paths under `root`; all fields of `to` if there is no `from`.
pub(crate) fn differences<T: Serialize>(root: &str, from: Option<&T>, to: &T) -> Vec<Change> {
    let mut from = from.map(|from| fields(root, from)).unwrap_or_default();
    let mut changes = Vec::new();
    for (field, to) in fields(root, to) {
        let from = from.remove(&field);
        if from.as_ref() != Some(&to) {
            changes.push(Change::new(field, from, Some(to)));
        }
    }
    changes.extend(from.into_iter().map(|(field, from)| Change::new(field, Some(from), None)));
    changes.sort_by(|a, b| a.field.cmp(&b.field));
    changes
}

/// Values by path, for example `definition.environment.LOG_LEVEL`. A list is one value.
fn fields(root: &str, value: &impl Serialize) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    // Our own types serialize: their keys are texts and their numbers finite.
    let value = serde_json::to_value(value).unwrap_or_default();
    flatten(root.to_owned(), value, &mut fields);
    fields
}

fn flatten(path: String, value: Value, fields: &mut BTreeMap<String, Value>) {
    let Value::Object(object) = value else {
        fields.insert(path, value);
        return;
    };
    for (key, value) in object {
        let path = if path.is_empty() { key } else { format!("{path}.{key}") };
        flatten(path, value, fields);
    }
}

#[cfg(test)]
mod tests;

//! What must be done: the pure comparison of a change that was asked for with what was observed.
//!
//! The planner decides what may run together, in which order, and what is dangerous; who executes a plan decides nothing.

mod diff;
mod nodes;
mod show;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::diff::differences;
use super::change::{Change, Deploy, Selection, TaskSelection};
use super::desired::{Bucket, Consumer, Definition, Desired, Scaling, Service, Stream};
use super::observed::{Assets, Observed, ObservedService, ObservedTask, Revision, Seen, ServiceState};
use super::step::{Action, FieldChange, Loss, LossKind, Operation, Step};
use super::task::short;
use crate::error::{Code, Hinted};

/// What must be done, in the order in which it is safe to do it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Ordered by wave.
    pub steps: Vec<Step>,
    /// Why the plan ends early: what comes after these steps can only be planned when they are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// What a deployment leaves as it is, because no manifest sets it: by service, and by its name in the API.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Plan {
    /// The steps of a change in the order in which they are safe to run. No I/O: everything that this decides, it decides from its
    /// arguments.
    ///
    /// `desired` is what the manifests ask for; only a deployment uses it.
    ///
    /// # Errors
    /// The change is about something that is not there, or something that could not be read is in its way.
    pub fn new(change: &Change, desired: &Desired, observed: &Observed) -> Result<Self, Hinted> {
        match change {
            Change::Deploy(deploy) => Self::deploy(deploy, desired, observed),
            Change::Restart(selection) => restart(selection, observed).map(Self::of),
            Change::Scale { service, tasks, .. } => scale(service, *tasks, observed).map(Self::of),
            Change::RollBack { service, to } => roll_back(service, *to, observed).map(Self::of),
            Change::Stop(selection) => stop(selection, &observed.tasks).map(Self::of),
            Change::Down { data } => Ok(Self::of(down(&desired.environment, *data, observed))),
        }
    }

    /// Identities, images and nodes come first, then streams and buckets, then consumers, then services, each after those that it calls, and last what no manifest
    /// names any more. Streams and buckets are never deleted: they hold data.
    fn deploy(deploy: &Deploy, desired: &Desired, observed: &Observed) -> Result<Self, Hinted> {
        let mut waves = Waves::default();
        let selected = |name: &str| deploy.selection.services.contains(name);

        let beside = identities(desired, observed).chain(images(desired, observed, selected));
        nodes::plan(desired, observed, beside, &mut waves);
        if !deploy.without_jetstream {
            let needed = needed(desired, selected);
            match &observed.jetstream {
                Seen::Present(there) => assets(&needed, there, &mut waves),
                Seen::Absent => assets(&needed, &Assets::default(), &mut waves),
                Seen::Unknown(_) if needed == Assets::default() => {}
                // Servers are started or repaired first; what they hold is read then.
                Seen::Unknown(reason) if waves.starts_nodes() => return Ok(waves.incomplete(reason)),
                Seen::Unknown(reason) => return Err(unknown_assets(reason)),
            }
        }
        for layer in layers(&desired.services) {
            let services = layer.into_iter().filter(|name| selected(name));
            waves.add(
                services.filter_map(|name| service_step(name, &desired.services[name], observed.services.get(name))),
            );
        }
        if deploy.prune {
            let extra = observed.services.iter().filter(|(name, _)| !desired.services.contains_key(*name));
            waves.add(extra.map(|(name, service)| {
                let before = Box::new(service.state.clone());
                Step::new(Operation::DeleteService { service: name.clone(), before }, Vec::new())
            }));
            if let Seen::Present(there) = &observed.jetstream {
                waves.add(extra_consumers(desired, there));
            }
            for node in observed.nodes.keys().filter(|name| !desired.nodes.contains_key(*name)) {
                waves.add([Step::new(Operation::DeleteNode { node: node.clone() }, Vec::new())]);
            }
        }
        let kept = observed.services.iter().filter(|(name, service)| selected(name) && !service.kept.is_empty());
        let kept = kept.map(|(name, service)| (name.clone(), service.kept.clone())).collect();
        Ok(Self { kept, ..waves.plan() })
    }

    fn of(steps: Vec<Step>) -> Self {
        let mut waves = Waves::default();
        waves.add(steps);
        waves.plan()
    }

    /// Whether nothing is to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.incomplete.is_none()
    }

    /// The steps, by waves.
    pub fn waves(&self) -> impl Iterator<Item = &[Step]> {
        self.steps.chunk_by(|one, other| one.wave == other.wave)
    }

    /// Refuses steps that lose something, unless this kind of loss was accepted.
    ///
    /// # Errors
    /// The steps, what they lose, and how to accept it.
    pub fn refuse_losses(&self, accepted: &BTreeSet<LossKind>) -> Result<(), Hinted> {
        let refused = |step: &&Step| step.losses().iter().any(|loss| !accepted.contains(&loss.kind()));
        let steps: Vec<&Step> = self.steps.iter().filter(refused).collect();
        if steps.is_empty() {
            return Ok(());
        }
        let losses = || steps.iter().flat_map(|step| step.losses());
        let lines = steps.iter().flat_map(|step| step.losses().iter().map(move |loss| format!("\n  {step}: {loss}")));
        let kinds: BTreeSet<LossKind> = losses().map(Loss::kind).collect();
        let flags: Vec<String> = kinds.iter().map(|kind| format!("--force {kind}")).collect();
        let message = format!("this change loses something for good:{}", lines.collect::<String>());
        let hint = format!("if that is meant: `{}`; nothing was changed", flags.join(" "));
        Err(Hinted::new(message, hint).code(Code::Refused))
    }
}

/// Steps in waves, numbered as they are added.
#[derive(Default)]
struct Waves {
    steps: Vec<Step>,
    next: usize,
}

impl Waves {
    /// Adds a wave after all others; none if there is nothing in it.
    fn add(&mut self, steps: impl IntoIterator<Item = Step>) {
        let before = self.steps.len();
        let wave = self.next;
        self.steps.extend(steps.into_iter().map(|step| Step { wave, ..step }));
        self.steps[before..].sort_by(|a, b| (a.kind(), a.name()).cmp(&(b.kind(), b.name())));
        if self.steps.len() > before {
            self.next += 1;
        }
    }

    fn starts_nodes(&self) -> bool {
        let starts = |step: &Step| matches!(step.operation, Operation::StartNode { .. } | Operation::RepairNode { .. });
        self.steps.iter().any(starts)
    }

    fn incomplete(self, reason: &str) -> Plan {
        Plan { steps: self.steps, incomplete: Some(reason.to_owned()), kept: BTreeMap::new() }
    }

    fn plan(self) -> Plan {
        Plan { steps: self.steps, incomplete: None, kept: BTreeMap::new() }
    }
}

impl Step {
    /// Its wave is set when it is added to one.
    fn new(operation: Operation, changes: Vec<FieldChange>) -> Self {
        Self { wave: 0, operation, changes }
    }
}

fn unknown_assets(reason: &str) -> Hinted {
    let message = format!("the streams and buckets could not be read, so nothing can be planned: {reason}");
    Hinted::new(message, "`natsctl nats status` shows the state of the cluster; nothing was changed")
}

/// What the selected services need of JetStream.
fn needed(desired: &Desired, selected: impl Fn(&str) -> bool) -> Assets {
    let services = || desired.services.iter().filter(|(name, _)| selected(name)).map(|(_, service)| service);
    let streams: BTreeSet<&String> = services().flat_map(|service| &service.streams).collect();
    let outboxes = streams.iter().filter_map(|name| desired.streams.get(*name)).flat_map(|stream| &stream.outboxes);
    let buckets: BTreeSet<&String> = services().flat_map(|service| &service.buckets).chain(outboxes).collect();
    let consumers: BTreeSet<&String> = services().flat_map(|service| &service.consumers).collect();
    Assets {
        consumers: consumers.into_iter().filter_map(|name| desired.consumers.get_key_value(name)).map(owned).collect(),
        streams: streams.into_iter().filter_map(|name| desired.streams.get_key_value(name)).map(owned).collect(),
        buckets: buckets.into_iter().filter_map(|name| desired.buckets.get_key_value(name)).map(owned).collect(),
    }
}

fn owned<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

/// The identities that are missing or differ, also those of other services: an authority makes all of them at once.
fn identities<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = Step> + 'a {
    desired.identities.iter().filter_map(|(identity, spec)| {
        let (action, changes) = put(observed.identities.get(identity), spec)?;
        Some(Step::new(Operation::PutIdentity { identity: identity.clone(), spec: spec.clone(), action }, changes))
    })
}

fn images<'a>(
    desired: &'a Desired,
    observed: &'a Observed,
    selected: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = Step> + 'a {
    let images = desired.images.iter().filter(move |(name, _)| selected(name));
    images.filter_map(|(service, image)| {
        let (action, changes) = put(observed.images.get(service), image)?;
        Some(Step::new(Operation::PushImage { service: service.clone(), image: image.clone(), action }, changes))
    })
}

/// First what loses nothing, then what does. Buckets come before the streams that take events over from them: a server looks
/// for a source that it did not find only after half a minute.
fn assets(needed: &Assets, there: &Assets, waves: &mut Waves) {
    let mut reducing = Vec::new();
    let mut add = |steps: &mut dyn Iterator<Item = (Option<Step>, Option<Step>)>| {
        let (safe, reduced): (Vec<_>, Vec<_>) = steps.unzip();
        waves.add(safe.into_iter().flatten());
        reducing.extend(reduced.into_iter().flatten());
    };
    add(&mut asset_steps(&needed.buckets, &there.buckets));
    add(&mut asset_steps(&needed.streams, &there.streams));
    waves.add(reducing);
    waves.add(
        needed.consumers.iter().filter_map(|(name, wanted)| consumer_step(name, wanted, there.consumers.get(name))),
    );
}

/// Where a consumer began does not matter any more once it is there.
fn consumer_step(name: &str, wanted: &Consumer, there: Option<&Consumer>) -> Option<Step> {
    let config = Consumer { start: there.map_or(wanted.start, |there| there.start), ..wanted.clone() };
    let (action, changes) = put(there, &config)?;
    Some(Step::new(Operation::PutConsumer { consumer: name.to_owned(), config, action }, changes))
}

/// The consumers that natsctl made and that no manifest asks for any more.
fn extra_consumers<'a>(desired: &'a Desired, there: &'a Assets) -> impl Iterator<Item = Step> + 'a {
    let ours = there.consumers.iter().filter(|(_, consumer)| consumer.service.is_some());
    let extra = ours.filter(|(name, _)| !desired.consumers.contains_key(*name));
    extra.map(|(name, _)| Step::new(Operation::DeleteConsumer { consumer: name.clone() }, Vec::new()))
}

/// What is stored in JetStream, as far as planning a change of it goes.
trait Asset: Clone + Serialize {
    /// What is lost when this becomes `wanted`.
    fn losses(&self, wanted: &Self) -> Vec<Loss>;

    /// What is wanted, as far as nothing is lost by it.
    fn keeping(&self, wanted: &Self) -> Self;

    fn put(name: String, config: Self, action: Action) -> Operation;

    fn reduce(name: String, config: Self, losses: Vec<Loss>) -> Operation;
}

/// For each object the step that loses nothing, and the one that loses something, where there are such.
fn asset_steps<'a, A: Asset>(
    needed: &'a BTreeMap<String, A>,
    there: &'a BTreeMap<String, A>,
) -> impl Iterator<Item = (Option<Step>, Option<Step>)> + 'a {
    needed.iter().map(|(name, wanted)| {
        let before = there.get(name);
        let losses = before.map(|before| before.losses(wanted)).unwrap_or_default();
        let config =
            before.filter(|_| !losses.is_empty()).map_or_else(|| wanted.clone(), |before| before.keeping(wanted));
        let reduced = (!losses.is_empty()).then(|| {
            let changes = differences("", Some(&config), wanted);
            Step::new(A::reduce(name.clone(), wanted.clone(), losses), changes)
        });
        let safe = put(before, &config);
        let safe = safe.map(|(action, changes)| Step::new(A::put(name.clone(), config, action), changes));
        (safe, reduced)
    })
}

/// How an object that is there, or not, becomes what is wanted; `None` if nothing differs.
fn put<T: Serialize>(there: Option<&T>, wanted: &T) -> Option<(Action, Vec<FieldChange>)> {
    let changes = differences("", there, wanted);
    match there {
        None => Some((Action::Create, changes)),
        Some(_) if changes.is_empty() => None,
        Some(_) => Some((Action::Update, changes)),
    }
}

impl Asset for Stream {
    fn losses(&self, wanted: &Self) -> Vec<Loss> {
        let removed = self.subjects.iter().filter(|subject| !wanted.subjects.contains(subject)).cloned();
        let outboxes = self.outboxes.difference(&wanted.outboxes).map(|bucket| Bucket::outbox_subjects(bucket));
        let removed: Vec<String> = removed.chain(outboxes).collect();
        let subjects = (!removed.is_empty()).then_some(Loss::Subjects { removed });
        let losses =
            [fewer_replicas(self.replicas, wanted.replicas), shorter(self.max_age_seconds, wanted.max_age_seconds)];
        losses.into_iter().flatten().chain(subjects).collect()
    }

    fn keeping(&self, wanted: &Self) -> Self {
        let added = wanted.subjects.iter().filter(|subject| !self.subjects.contains(subject));
        let mut subjects: Vec<String> = self.subjects.iter().chain(added).cloned().collect();
        subjects.sort();
        Self {
            subjects,
            replicas: self.replicas.max(wanted.replicas),
            max_age_seconds: longer(self.max_age_seconds, wanted.max_age_seconds),
            duplicate_window_seconds: wanted.duplicate_window_seconds,
            outboxes: &self.outboxes | &wanted.outboxes,
        }
    }

    fn put(stream: String, config: Self, action: Action) -> Operation {
        Operation::PutStream { stream, config, action }
    }

    fn reduce(stream: String, config: Self, losses: Vec<Loss>) -> Operation {
        Operation::ReduceStream { stream, config, losses }
    }
}

impl Asset for Bucket {
    fn losses(&self, wanted: &Self) -> Vec<Loss> {
        let history =
            (wanted.history < self.history).then_some(Loss::History { from: self.history, to: wanted.history });
        let losses =
            [history, fewer_replicas(self.replicas, wanted.replicas), shorter(self.ttl_seconds, wanted.ttl_seconds)];
        losses.into_iter().flatten().collect()
    }

    fn keeping(&self, wanted: &Self) -> Self {
        Self {
            replicas: self.replicas.max(wanted.replicas),
            history: self.history.max(wanted.history),
            ttl_seconds: longer(self.ttl_seconds, wanted.ttl_seconds),
            outbox_seconds: wanted.outbox_seconds,
        }
    }

    fn put(bucket: String, config: Self, action: Action) -> Operation {
        Operation::PutBucket { bucket, config, action }
    }

    fn reduce(bucket: String, config: Self, losses: Vec<Loss>) -> Operation {
        Operation::ReduceBucket { bucket, config, losses }
    }
}

fn fewer_replicas(from: usize, to: usize) -> Option<Loss> {
    (to < from).then_some(Loss::Replicas { from, to })
}

/// A retention of 0 is for ever.
fn shorter(from_seconds: u64, to_seconds: u64) -> Option<Loss> {
    let is_shorter = to_seconds != 0 && (from_seconds == 0 || to_seconds < from_seconds);
    is_shorter.then_some(Loss::Retention { from_seconds, to_seconds })
}

fn longer(one: u64, other: u64) -> u64 {
    if one == 0 || other == 0 { 0 } else { one.max(other) }
}

/// Services by how many calls deep they are: the first layer calls no service, and none is in a layer with one that it calls.
fn layers(services: &BTreeMap<String, Service>) -> Vec<Vec<&str>> {
    let mut layers = Vec::new();
    let mut waiting: BTreeMap<&str, &Service> =
        services.iter().map(|(name, service)| (name.as_str(), service)).collect();
    while !waiting.is_empty() {
        let blocked = |service: &Service| service.calls.iter().any(|callee| waiting.contains_key(callee.as_str()));
        let mut ready: Vec<&str> = waiting.keys().copied().filter(|name| !blocked(waiting[name])).collect();
        if ready.is_empty() {
            // Only a cycle is left, which the manifests refuse and for which no order is better.
            ready = waiting.keys().copied().collect();
        }
        for name in &ready {
            waiting.remove(name);
        }
        layers.push(ready);
    }
    layers
}

fn service_step(name: &str, desired: &Service, observed: Option<&ObservedService>) -> Option<Step> {
    let step = |action, changes, tasks| {
        let before = observed.map(|observed| Box::new(observed.state.clone()));
        let (service, target) = (name.to_owned(), Box::new(desired.clone()));
        Step::new(Operation::DeployService { service, before, target, tasks, action }, changes)
    };
    let Some(ObservedService { state, running, bounds, .. }) = observed else {
        let mut changes = differences::<Definition>("definition", None, &desired.definition);
        changes.push(FieldChange::new("tasks", None, Some(desired.tasks.into())));
        changes.extend(differences("service", None, &desired.ecs));
        return Some(step(Action::Create, changes, desired.tasks));
    };

    let tasks = tasks(desired, state, bounds.unwrap_or(desired.scaling));
    let mut changes = differences("definition", Some(&state.definition), &desired.definition);
    changes.extend(differences("service", Some(&state.ecs), &desired.ecs));
    if state.inactive {
        changes.push(FieldChange::new("task_definition.status", Some("INACTIVE".into()), Some("ACTIVE".into())));
    }
    if state.declared_tasks != desired.tasks {
        changes.push(count("declared_tasks", state.declared_tasks, desired.tasks));
    }
    if state.desired != tasks {
        changes.push(count("tasks", state.desired, tasks));
    }
    if !changes.is_empty() {
        return Some(step(Action::Update, changes, tasks));
    }

    if state.failed {
        changes.push(FieldChange::new("failed", Some(true.into()), Some(false.into())));
    }
    if *running < tasks {
        changes.push(count("running", *running, tasks));
    }
    (!changes.is_empty()).then(|| step(Action::Start, changes, tasks))
}

fn count(field: &str, from: u32, to: u32) -> FieldChange {
    FieldChange::new(field, Some(from.into()), Some(to.into()))
}

/// How many tasks should run. What `scale` and autoscaling have set within their bounds stays until the manifest asks for another number; a
/// service that `scale` has stopped runs again as the manifest says. `bounds` are the manifest's, or those of scheduled scaling.
fn tasks(desired: &Service, state: &ServiceState, bounds: Scaling) -> u32 {
    if state.declared_tasks != desired.tasks || state.desired == 0 {
        return desired.tasks;
    }
    let Scaling { min, max } = bounds;
    state.desired.min(max).max(min)
}

fn deployed<'a>(service: &str, observed: &'a Observed) -> Result<&'a ObservedService, Hinted> {
    observed.services.get(service).ok_or_else(|| {
        let hint = format!("`natsctl deploy {service}` deploys it");
        Hinted::new(format!("`{service}` is not deployed"), hint).code(Code::NotDeployed)
    })
}

/// Of all services those that are deployed are restarted; one that is named must be.
fn restart(selection: &Selection, observed: &Observed) -> Result<Vec<Step>, Hinted> {
    let services = selection.services.iter().filter(|name| !selection.all || observed.services.contains_key(*name));
    services
        .map(|service| {
            let before = Box::new(deployed(service, observed)?.state.clone());
            Ok(Step::new(Operation::RestartService { service: service.clone(), before }, Vec::new()))
        })
        .collect()
}

fn scale(service: &str, tasks: u32, observed: &Observed) -> Result<Vec<Step>, Hinted> {
    let state = &deployed(service, observed)?.state;
    if state.desired == tasks {
        return Ok(Vec::new());
    }
    let changes = vec![count("tasks", state.desired, tasks)];
    let before = Box::new(state.clone());
    Ok(vec![Step::new(Operation::ScaleService { service: service.to_owned(), before, tasks }, changes)])
}

fn roll_back(service: &str, to: Option<u64>, observed: &Observed) -> Result<Vec<Step>, Hinted> {
    let ObservedService { state, revisions, .. } = deployed(service, observed)?;
    let found = match to {
        Some(number) => revisions.iter().find(|revision| revision.number == number),
        None => revisions.iter().find(|revision| revision.succeeded && !revision.is_of(state)),
    };
    let Some(found) = found else {
        let wanted = to.map_or_else(|| "earlier revision".to_owned(), |number| format!("revision {number}"));
        let known: Vec<String> = revisions.iter().map(|revision| revision.number.to_string()).collect();
        let hint = format!("known revisions: {}; now it runs {}", known.join(", "), state.revision);
        return Err(Hinted::new(format!("`{service}` has no {wanted} to roll back to"), hint).code(Code::UnknownName));
    };
    if found.is_of(state) {
        return Ok(Vec::new());
    }
    let Revision { number, definition, .. } = found;
    let mut changes = vec![FieldChange::new("revision", Some(state.revision.into()), Some((*number).into()))];
    if let Some(definition) = definition {
        changes.extend(differences("definition", Some(&state.definition), definition));
    }
    let (before, to) = (Box::new(state.clone()), Box::new(found.clone()));
    Ok(vec![Step::new(Operation::RollBackService { service: service.to_owned(), before, to }, changes)])
}

fn stop(selection: &TaskSelection, running: &[ObservedTask]) -> Result<Vec<Step>, Hinted> {
    let tasks: Vec<&ObservedTask> = match selection {
        TaskSelection::Service(service) => {
            running.iter().filter(|task| task.service.as_ref() == Some(service)).collect()
        }
        TaskSelection::Ids(ids) => ids.iter().map(|id| task(id, running)).collect::<Result<_, _>>()?,
    };
    let step = |task: &ObservedTask| {
        Step::new(Operation::StopTask { service: task.service.clone(), task: task.id.clone() }, Vec::new())
    };
    Ok(tasks.into_iter().map(step).collect())
}

/// The running task that is meant by an ARN, an id, or the beginning of an id.
fn task<'a>(typed: &str, running: &'a [ObservedTask]) -> Result<&'a ObservedTask, Hinted> {
    let id = typed.rsplit('/').next().unwrap_or(typed);
    let mut matching = running.iter().filter(|task| task.id.starts_with(id));
    match (running.iter().find(|task| task.id == id).or_else(|| matching.next()), matching.next()) {
        (Some(task), None) => Ok(task),
        (Some(task), Some(_)) if task.id == id => Ok(task),
        (Some(_), Some(_)) => Err(Hinted::new(format!("several tasks begin with `{id}`"), "write more of its id")),
        (None, _) => {
            let hint = format!("these run: {}", listed(running));
            Err(Hinted::new(format!("no task `{id}` runs"), hint).code(Code::UnknownName))
        }
    }
}

/// The first tasks, for a hint.
fn listed(running: &[ObservedTask]) -> String {
    const LISTED: usize = 10;
    let one =
        |task: &ObservedTask| format!("`{}` of {}", short(&task.id), task.service.as_deref().unwrap_or("no service"));
    let mut listed: Vec<String> = running.iter().take(LISTED).map(one).collect();
    let more = running.len().saturating_sub(LISTED);
    listed.extend((more > 0).then(|| format!("{more} more")));
    if listed.is_empty() { "none".to_owned() } else { listed.join(", ") }
}

fn down(environment: &str, data: bool, observed: &Observed) -> Vec<Step> {
    let environment = environment.to_owned();
    let mut steps = Vec::new();
    if !observed.nodes.is_empty() || !observed.services.is_empty() {
        steps.push(Step::new(Operation::StopEnvironment { environment: environment.clone() }, Vec::new()));
    }
    if data {
        steps.push(Step::new(Operation::DeleteData { environment }, Vec::new()));
    }
    steps
}

#[cfg(test)]
mod tests;

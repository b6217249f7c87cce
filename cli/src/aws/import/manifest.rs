//! From what runs on ECS to a manifest. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::words::{Words, words, written};
use super::yaml::entry;
use crate::aws::desired::{IDENTITY, REDIS_CREDENTIALS};
use crate::aws::service_settings::{LATEST, fargate};
use crate::aws::task_definition::document::Object;
use crate::aws::task_definition::{health_on_ecs, own_document};
use crate::handover::Handover;
use crate::manifest::{Manifests, Settings};
use crate::model::desired::{Architecture, Definition, Health, Role};
use crate::model::ecs::{Autoscaling, EcsService, EcsTask, Percent};
use crate::model::secret::{SecretReference, without_suffix};
use crate::model::units::{Size, Span};

/// A service as it was found.
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) definition: &'a Definition,
    pub(super) task: &'a EcsTask,
    pub(super) service: &'a EcsService,
    pub(super) tasks: u32,
    /// `family:revision`.
    pub(super) source: &'a str,
    /// The image that runs: `repository@sha256:…`.
    pub(super) image: &'a str,
}

/// A manifest, what it does not say, and what it cannot say.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) text: String,
    pub(super) warnings: Vec<String>,
    pub(super) unsayable: Vec<String>,
}

/// The manifest of a service; of its settings only what differs from the defaults.
pub(super) fn written_manifest(found: &Found<'_>, manifests: &Manifests, handover: &Handover) -> Written {
    let defaults = &manifests.project.defaults;
    let mut lines = Lines { handover, keys: Vec::new(), warnings: Vec::new() };
    lines.add("name", found.name.into());
    match found.definition.role {
        Role::Worker => {
            lines.add("serves", json!([]));
            lines.warn("fill in `serves`, `calls`, `publishes` and `consumes`: a task definition does not know them");
        }
        Role::Gateway => lines.add("role", "gateway".into()),
        Role::Standalone => lines.standalone(found),
    }
    // Also where it is the default: it says that the service is meant which is there already.
    lines.add("ecs_name", found.service.name.as_str().into());
    lines.add("build", json!({ "image": found.image }));
    lines.settings(found, defaults);
    lines.health(found.definition.health, defaults);
    lines.autoscaling(found, defaults);
    lines.variables(found);
    let unsayable = lines.on_ecs(found);
    let mut text = String::from("# yaml-language-server: $schema=../schema/service.schema.json\n");
    text.push_str(&format!("# From the task definition {} on ECS.\n", found.source));
    for (key, value) in &lines.keys {
        entry(key, value, 0, &mut text);
    }
    Written { text, warnings: lines.warnings, unsayable }
}

struct Lines<'a> {
    handover: &'a Handover,
    keys: Vec<(&'static str, Value)>,
    warnings: Vec<String>,
}

impl Lines<'_> {
    fn add(&mut self, key: &'static str, value: Value) {
        self.keys.push((key, value));
    }

    /// A block, if it has lines.
    fn block(&mut self, key: &'static str, lines: Object) {
        if !lines.is_empty() {
            self.add(key, lines.into());
        }
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    fn standalone(&mut self, found: &Found<'_>) {
        self.add("role", "standalone".into());
        self.warn("it takes no part in NATS (`role: standalone`) until it uses the SDK: then make it a `worker`");
        let known = ["NATS_", "SERVICE_", "REDIS_"];
        let is_own = |name: &&String| {
            known.iter().any(|prefix| name.starts_with(prefix)) || ["WORKERS", "CONCURRENCY"].contains(&name.as_str())
        };
        let variables = found.definition.environment.keys().chain(found.task.secrets.keys());
        let own: Vec<String> = variables.filter(is_own).map(|name| format!("`{name}`")).collect();
        if !own.is_empty() {
            self.warn(format!(
                "{} stay as they are; natsctl sets such variables for a `worker`: remove them when it becomes one",
                own.join(", ")
            ));
        }
    }

    fn settings(&mut self, found: &Found<'_>, defaults: &Settings) {
        let Found { definition, .. } = found;
        if found.tasks != defaults.tasks {
            self.add("tasks", found.tasks.into());
        }
        for (key, number, default) in [
            ("workers", definition.workers, defaults.workers),
            ("concurrency", definition.concurrency, defaults.concurrency),
            ("cpu", definition.cpu, defaults.cpu),
        ] {
            // 0 is what the task definition does not say.
            if number != 0 && number != default {
                self.add(key, number.into());
            }
        }
        let memory = Size::from_mebibytes(definition.memory_mib.into());
        if memory != defaults.memory {
            self.add("memory", memory.to_string().into());
        }
        let stop = Span::from(definition.stop_timeout);
        if stop != defaults.stop_timeout {
            self.add("stop_timeout", stop.to_string().into());
        }
        if found.task.architecture != defaults.architecture {
            let name = if found.task.architecture == Architecture::Arm64 { "arm64" } else { "x86_64" };
            self.add("architecture", name.into());
        }
        if found.service.execute_command != defaults.execute_command {
            self.add("execute_command", found.service.execute_command.into());
        }
    }

    fn health(&mut self, health: Health, defaults: &Settings) {
        if health == Health::default() {
            return;
        }
        let default = health_on_ecs(Health {
            interval: defaults.health.interval.duration(),
            timeout: defaults.health.timeout.duration(),
            retries: defaults.health.retries,
            start_period: defaults.health.start_period.duration(),
        });
        let mut lines = Object::new();
        for (key, span, default) in [
            ("interval", health.interval, default.interval),
            ("timeout", health.timeout, default.timeout),
            ("start_period", health.start_period, default.start_period),
        ] {
            if span != default {
                lines.insert(key.to_owned(), Span::from(span).to_string().into());
            }
        }
        if health.retries != default.retries {
            lines.insert("retries".to_owned(), health.retries.into());
        }
        self.block("health", lines);
    }

    fn autoscaling(&mut self, found: &Found<'_>, defaults: &Settings) {
        let default = &defaults.autoscaling;
        let Some(Autoscaling { min, max, cpu_percent, memory_percent }) = found.service.autoscaling else {
            // `tasks` must be between the bounds of `scale`.
            let (min, max) = (found.tasks.min(default.min), found.tasks.max(default.max));
            let bounds = [("min", min, default.min), ("max", max, default.max)];
            let bounds = bounds.into_iter().filter(|(_, bound, default)| bound != default);
            return self.block("autoscaling", bounds.map(|(key, bound, _)| (key.to_owned(), bound.into())).collect());
        };
        let lines = [
            ("min", f64::from(min).into(), default.min),
            ("max", f64::from(max).into(), default.max),
            ("cpu_percent", cpu_percent, default.cpu_percent),
            ("memory_percent", memory_percent, default.memory_percent),
        ];
        let lines = lines.into_iter().filter(|(_, number, default)| *number != Percent::from(f64::from(*default)));
        self.block("autoscaling", lines.map(|(key, number, _)| (key.to_owned(), json!(number))).collect());
    }

    fn variables(&mut self, found: &Found<'_>) {
        let is_on_nats = found.definition.role != Role::Standalone;
        let is_identity = |name: &str| IDENTITY.iter().chain(&REDIS_CREDENTIALS).any(|(own, _)| *own == name);
        let environment = found.definition.environment.iter();
        let environment = environment.map(|(name, value)| (name.clone(), value.as_str().into()));
        self.block("environment", environment.collect());
        let secrets = found.task.secrets.iter().filter(|(name, _)| !(is_on_nats && is_identity(name)));
        let secrets: Vec<_> = secrets.map(|(name, from)| (name.clone(), written(self.reference(from)))).collect();
        self.block("secrets", secrets.into_iter().collect());
    }

    /// The same reference as a manifest has it: a secret of the environment by its name, any other one by its ARN.
    fn reference(&self, from: &SecretReference) -> SecretReference {
        let handover = self.handover;
        let SecretReference::Secret { secret, .. } = from else { return from.clone() };
        let home =
            format!("arn:{}:secretsmanager:{}:{}:secret:", handover.partition(), handover.region, handover.account);
        let (before, after) = handover.names.secret.split_once("{name}").unwrap_or((&handover.names.secret, ""));
        let name = secret.strip_prefix(&home).map(without_suffix).filter(|name| !secret.ends_with(*name));
        match name.and_then(|name| name.strip_prefix(before)?.strip_suffix(after)) {
            Some(name) => from.clone().of(name.to_owned()),
            None => from.clone(),
        }
    }

    /// What it is on ECS; gives what there are no words for.
    fn on_ecs(&mut self, found: &Found<'_>) -> Vec<String> {
        let Words { mut said, unsayable } =
            words(task_words(found, self.handover), &|from| self.reference(&SecretReference::from_value_from(from)));
        for (key, value) in service_words(found, self.handover) {
            said.insert(key, value);
        }
        let family = self.handover.names.task_family.replace("{ecs_name}", &found.service.name);
        let family = family.replace("{service}", found.name);
        if found.task.family != family {
            said.insert("family".to_owned(), found.task.family.as_str().into());
        }
        let task_role = match found.definition.role {
            Role::Standalone => String::new(),
            Role::Worker | Role::Gateway => self.handover.task_role(found.name),
        };
        for (key, role, made) in [
            ("task_role", &found.task.task_role, &task_role),
            ("execution_role", &found.task.execution_role, &self.handover.execution_role),
        ] {
            if role != made && !role.is_empty() {
                said.insert(key.to_owned(), role.as_str().into());
            }
        }
        if found.task.container != found.name {
            said.insert("container_name".to_owned(), found.task.container.as_str().into());
        }
        let mut said = Value::Object(said);
        said.sort_all_objects();
        self.block("ecs", object(Some(said)));
        unsayable
    }
}

/// What the document of a task says besides what natsctl makes, with the names that `ecs` has for its parts.
fn task_words(found: &Found<'_>, handover: &Handover) -> Object {
    let task = found.task;
    let execute_command = found.service.execute_command;
    let mut made = own_document(&task.container, found.definition.role, execute_command);
    let mut document = task.document.clone();
    let mut containers = object(document.remove("containerDefinitions"));
    let made_container = object(object(made.remove("containerDefinitions")).remove(&task.container));
    let mut container = object(containers.remove(&task.container));
    let is_usual_log = (&task.log_group, &task.region) == (&handover.log_group, &handover.region)
        && container.get("logConfiguration") == made_container.get("logConfiguration")
        && task.log_prefix == found.service.name;
    if let Some(Value::Object(log)) = container.get_mut("logConfiguration") {
        let options = log.entry("options").or_insert_with(|| json!({}));
        for (option, value) in
            [("group", &task.log_group), ("stream-prefix", &task.log_prefix), ("region", &task.region)]
        {
            if !value.is_empty() {
                options[format!("awslogs-{option}")] = value.as_str().into();
            }
        }
    }
    container.retain(|field, value| match field.as_str() {
        "logConfiguration" => !is_usual_log,
        _ => made_container.get(field) != Some(value),
    });
    document.retain(|field, value| made.get(field) != Some(value));
    for (field, parts) in [("container", container), ("sidecars", containers)] {
        if !parts.is_empty() {
            document.insert(field.to_owned(), parts.into());
        }
    }
    document
}

fn object(value: Option<Value>) -> Object {
    match value {
        Some(Value::Object(object)) => object,
        _ => Object::new(),
    }
}

/// What the service is besides what natsctl makes, in the words of manifests.
fn service_words(found: &Found<'_>, handover: &Handover) -> BTreeMap<String, Value> {
    let service = found.service;
    let mut said = BTreeMap::new();
    let mut say = |key: &str, differs: bool, value: Value| {
        if differs {
            said.insert(key.to_owned(), value);
        }
    };
    let mut network = Object::new();
    for (key, there, made) in [
        ("subnets", &service.subnets, &handover.network.subnets),
        ("security_groups", &service.security_groups, &handover.network.security_groups),
    ] {
        if *there != made.iter().cloned().collect() {
            network.insert(key.to_owned(), json!(there));
        }
    }
    if service.assign_public_ip {
        network.insert("assign_public_ip".to_owned(), true.into());
    }
    say("network", !network.is_empty(), network.into());
    say("capacity_providers", service.capacity_providers != fargate(), json!(service.capacity_providers));
    say("platform_version", service.platform_version != LATEST, service.platform_version.as_str().into());
    let balancers = service.load_balancers.iter().map(|(group, to)| {
        let mut balancer = json!({ "target_group": group, "port": to.port });
        if to.container != found.task.container {
            balancer["container"] = to.container.as_str().into();
        }
        balancer
    });
    let is_made = found.definition.role == Role::Gateway;
    say("load_balancers", !service.load_balancers.is_empty() && !is_made, balancers.collect::<Vec<_>>().into());
    let grace = service.grace_period_seconds.filter(|_| !is_made);
    say("health_check_grace_period_seconds", grace.is_some(), json!(grace));
    let mut deployment = Object::new();
    if !service.alarms.iter().eq(handover.alarms(found.name).collect::<std::collections::BTreeSet<_>>().iter()) {
        deployment.insert("alarms".to_owned(), json!(service.alarms));
    }
    if !service.circuit_breaker {
        deployment.insert("circuit_breaker".to_owned(), false.into());
    }
    for (key, percent, usual) in [
        ("minimum_healthy_percent", service.minimum_healthy_percent, 100),
        ("maximum_percent", service.maximum_percent, 200),
    ] {
        if percent != usual {
            deployment.insert(key.to_owned(), percent.into());
        }
    }
    say("deployment", !deployment.is_empty(), deployment.into());
    say("availability_zone_rebalancing", !service.zone_rebalancing, false.into());
    say("enable_ecs_managed_tags", !service.managed_tags, false.into());
    say("propagate_tags", service.propagate_tags != "SERVICE", service.propagate_tags.as_str().into());
    say("autoscaling", service.autoscaling.is_none(), false.into());
    said
}

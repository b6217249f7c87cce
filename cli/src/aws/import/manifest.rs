//! From what runs on ECS to the text of a manifest, and what that cannot say. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::aws::desired::{IDENTITY, REDIS_CREDENTIALS};
use crate::aws::services::Service;
use crate::aws::task_definition::health_on_ecs;
use crate::handover::Handover;
use crate::manifest::{Manifests, Settings};
use crate::model::desired::{Architecture, Definition, Health, Role};
use crate::model::ecs::{Autoscaling, EcsTask};
use crate::model::units::{Size, Span};

/// A service as it was found.
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) service: &'a Service,
    pub(super) definition: &'a Definition,
    /// ARN of the task definition.
    pub(super) source: &'a str,
    /// As the task definition names it.
    pub(super) image: &'a str,
    /// Of the image that runs.
    pub(super) digest: Option<String>,
    pub(super) autoscaling: Option<Autoscaling>,
}

/// A manifest, and what it does not say.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) text: String,
    pub(super) warnings: Vec<String>,
}

/// The manifest of a service; of its settings only what differs from the defaults.
pub(super) fn written(found: &Found<'_>, manifests: &Manifests, handover: &Handover) -> Written {
    let defaults = &manifests.project.defaults;
    let mut lines = Lines { text: String::new(), warnings: Vec::new() };
    let source = found.source.rsplit('/').next().unwrap_or(found.source);
    lines.add("# yaml-language-server: $schema=../schema/service.schema.json");
    lines.add(&format!("# From the task definition {source} on ECS."));
    lines.add(&format!("name: {}", found.name));
    let is_gateway = found.definition.role == Role::Gateway;
    if is_gateway {
        lines.add("role: gateway");
    }
    let ecs_name = &found.service.name;
    // Also where it is the default: it says that the service is meant which is there already.
    lines.add(&format!("ecs_name: {ecs_name}"));
    if !is_gateway {
        lines.add("serves: []");
        lines.warn("fill in `serves`, `calls`, `publishes` and `consumes`: a task definition does not know them");
    }
    lines.image(found);
    lines.settings(found, defaults);
    lines.health(found.definition.health, defaults);
    lines.autoscaling(found.autoscaling, defaults);
    lines.environment(found.definition);
    if let Some(task) = &found.definition.ecs {
        lines.secrets(task, handover);
        lines.foreign(found, task, handover);
    }
    lines.service(found.service, handover, is_gateway);
    Written { text: lines.text, warnings: lines.warnings }
}

struct Lines {
    text: String,
    warnings: Vec<String>,
}

impl Lines {
    fn add(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// A block, if it has lines.
    fn block(&mut self, key: &str, lines: &[String]) {
        if !lines.is_empty() {
            self.add(&format!("{key}:"));
            for line in lines {
                self.add(&format!("  {line}"));
            }
        }
    }

    fn image(&mut self, found: &Found<'_>) {
        let name = found.image.split_once('@').map_or(found.image, |(name, _)| name);
        let repository = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => name,
        };
        match &found.digest {
            Some(digest) => self.block("build", &[format!("image: {repository}@{digest}")]),
            None => self.warn(format!(
                "`build` is left out, so cargo would build it: `{}` has no digest, and no task of it runs",
                found.image
            )),
        }
    }

    fn settings(&mut self, found: &Found<'_>, defaults: &Settings) {
        let Found { service, definition, .. } = found;
        match service.desired_count {
            0 => self.warn("no task should run now; a manifest asks for at least one"),
            tasks if tasks != defaults.tasks => self.add(&format!("tasks: {tasks}")),
            _ => {}
        }
        for (key, number, default) in [
            ("workers", definition.workers, defaults.workers),
            ("concurrency", definition.concurrency, defaults.concurrency),
            ("cpu", definition.cpu, defaults.cpu),
        ] {
            // 0 is what the task definition does not say.
            if number != 0 && number != default {
                self.add(&format!("{key}: {number}"));
            }
        }
        let memory = Size::from_mebibytes(definition.memory_mib.into());
        if memory != defaults.memory {
            self.add(&format!("memory: {memory}"));
        }
        let stop = Span::from(definition.stop_timeout);
        if stop.seconds() != 0 && stop != defaults.stop_timeout {
            self.add(&format!("stop_timeout: {stop}"));
        }
        let architecture = definition.ecs.as_ref().map(|task| task.architecture).unwrap_or_default();
        if architecture != defaults.architecture {
            let name = if architecture == Architecture::Arm64 { "arm64" } else { "x86_64" };
            self.add(&format!("architecture: {name}"));
        }
        let execute = service.execute_command;
        if execute != defaults.execute_command {
            self.add(&format!("execute_command: {execute}"));
        }
    }

    fn health(&mut self, health: Health, defaults: &Settings) {
        if health.interval.is_zero() {
            return self.warn("it has no health check; with the manifest, ECS will run `/app healthcheck` in it");
        }
        let default = health_on_ecs(Health {
            interval: defaults.health.interval.duration(),
            timeout: defaults.health.timeout.duration(),
            retries: defaults.health.retries,
            start_period: defaults.health.start_period.duration(),
        });
        let mut lines = Vec::new();
        for (key, span, default) in [
            ("interval", health.interval, default.interval),
            ("timeout", health.timeout, default.timeout),
            ("start_period", health.start_period, default.start_period),
        ] {
            if span != default && !span.is_zero() {
                lines.push(format!("{key}: {}", Span::from(span)));
            }
        }
        if health.retries != default.retries && health.retries != 0 {
            lines.push(format!("retries: {}", health.retries));
        }
        self.block("health", &lines);
    }

    fn autoscaling(&mut self, scaling: Option<Autoscaling>, defaults: &Settings) {
        let Some(scaling) = scaling else {
            return self.warn("nothing scales it; with the manifest, Application Auto Scaling will");
        };
        let default = &defaults.autoscaling;
        let lines: Vec<String> = [
            ("min", scaling.min, default.min),
            ("max", scaling.max, default.max),
            ("cpu_percent", scaling.cpu_percent, default.cpu_percent),
            ("memory_percent", scaling.memory_percent, default.memory_percent),
        ]
        .into_iter()
        .filter(|(_, number, default)| *number > 0 && i64::from(*number) != i64::from(*default))
        .map(|(key, number, _)| format!("{key}: {number}"))
        .collect();
        self.block("autoscaling", &lines);
    }

    fn environment(&mut self, definition: &Definition) {
        // A text of JSON is a text of YAML.
        let quoted = |text: &String| serde_json::Value::from(text.as_str()).to_string();
        let lines: Vec<String> =
            definition.environment.iter().map(|(name, value)| format!("{name}: {}", quoted(value))).collect();
        self.block("environment", &lines);
    }

    fn secrets(&mut self, task: &EcsTask, handover: &Handover) {
        let (before, after) = handover.names.secret.split_once("{name}").unwrap_or((&handover.names.secret, ""));
        let mut lines = Vec::new();
        for (variable, from) in &task.secrets {
            if IDENTITY.iter().chain(&REDIS_CREDENTIALS).any(|(own, _)| own == variable) {
                continue;
            }
            match secret_name(from).and_then(|name| name.strip_prefix(before)?.strip_suffix(after)) {
                Some(name) => lines.push(format!("{variable}: {name}")),
                None => self.warn(format!(
                    "secret `{variable}` comes from `{from}`, which is not called `{}`: copy its value there, and add it to \
                     `secrets`",
                    handover.names.secret
                )),
            }
        }
        self.block("secrets", &lines);
    }

    /// What a manifest cannot say, so that a deployment would change it.
    fn foreign(&mut self, found: &Found<'_>, task: &EcsTask, handover: &Handover) {
        for (field, value) in &task.foreign {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            self.warn(format!("a deployment will change `{field}`, which is {value}"));
        }
        if task.log_group != handover.log_group {
            self.warn(format!("its log goes to `{}`, and will go to `{}`", task.log_group, handover.log_group));
        }
        let role = handover.task_role(found.name);
        if !task.task_role.is_empty() && task.task_role != role {
            let theirs = &task.task_role;
            self.warn(format!("its role is `{theirs}`, and will be `{role}`: say in `aws` what it may do"));
        }
    }

    /// What the service is besides its tasks.
    fn service(&mut self, service: &Service, handover: &Handover, is_gateway: bool) {
        let set = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<String>>();
        let same = service.placement.network.as_ref().is_some_and(|network| {
            set(&network.subnets) == set(&handover.network.subnets)
                && set(&network.security_groups) == set(&handover.network.security_groups)
        });
        if !same {
            self.warn("it is in other subnets or security groups, and will be in those of the handover");
        }
        if service.placement.launch_type.as_deref().is_some_and(|launch| launch != "FARGATE") {
            self.warn("it does not run on Fargate, and will");
        }
        if let Some(other) = &service.other_controller {
            self.warn(format!(
                "it is deployed by {other}, which natsctl does not change: delete it and deploy it anew"
            ));
        }
        let mut besides = String::new();
        if !is_gateway && service.has_load_balancers {
            besides.push_str(" load balancers,");
        }
        if service.has_service_registries {
            besides.push_str(" service registries,");
        }
        if !besides.is_empty() {
            let mut warning = String::from("a manifest has no words for its");
            let _ = write!(warning, "{}", besides.trim_end_matches(','));
            self.warn(warning);
        }
    }
}

/// The name of a secret: from its ARN, without the dash and the six letters that Secrets Manager adds, or from a name.
fn secret_name(from: &str) -> Option<&str> {
    let Some((_, rest)) = from.split_once(":secret:") else {
        return (!from.starts_with("arn:")).then_some(from);
    };
    let name = rest.split(':').next()?;
    match name.len().checked_sub(7).and_then(|end| name.split_at_checked(end)) {
        Some((name, suffix)) if suffix.starts_with('-') => Some(name),
        _ => Some(name),
    }
}

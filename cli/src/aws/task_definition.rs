//! A definition as an ECS task definition, and back. Pure: what a definition has no field for is in its document, in the names of the
//! API, so that nothing that a task definition says is lost.

pub(crate) mod document;
#[cfg(test)]
mod fields;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_ecs::operation::register_task_definition::builders::RegisterTaskDefinitionFluentBuilder;
use aws_sdk_ecs::types::{
    ContainerDefinition, CpuArchitecture, LogConfiguration, LogDriver, OsFamily, RuntimePlatform, Tag,
    TaskDefinition as SdkTaskDefinition, TaskDefinitionStatus,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::document::{Object, canonical, spoken};
use super::api::{from_json, to_json};
use super::tags::{self, Owner};
use crate::model::desired::{Architecture, Definition, Health, Role};
use crate::model::ecs::EcsTask;
use crate::model::secret::SecretReference;
use crate::model::task::{GATEWAY_PORT, HEALTH_PORT, user_and_group};

/// Open files: one per connection.
const OPEN_FILES: i32 = 65536;
/// Size of the buffer in which lines wait when CloudWatch is slow, rather than in the service.
const LOG_BUFFER: &str = "25m";
/// Label with the digest of the permissions on NATS: other permissions are another revision, so tasks start with their new identity.
const PERMISSIONS: &str = "natsctl.permissions";

/// Where a document has the tags that are not natsctl's own, by their keys.
const TAGS: &str = "tags";

/// Bounds of ECS for a health check, in seconds.
const INTERVAL: (u64, u64) = (5, 300);
const TIMEOUT: (u64, u64) = (2, 60);
const START_PERIOD: (u64, u64) = (0, 300);
/// A health check of ECS that does not say so: seconds, seconds and times.
const USUAL_INTERVAL: u64 = 30;
const USUAL_TIMEOUT: u64 = 5;
const USUAL_RETRIES: u32 = 3;
/// Seconds after which Fargate kills a container that does not say so.
const USUAL_STOP_TIMEOUT: u64 = 30;
/// Variables that every task of a service on NATS has.
const OWN_VARIABLES: [&str; 4] = ["SERVICE_NAME", "SERVICE_VERSION", "WORKERS", "CONCURRENCY"];

/// Options of the log driver `awslogs`.
const GROUP: &str = "awslogs-group";
const STREAM_PREFIX: &str = "awslogs-stream-prefix";
const REGION: &str = "awslogs-region";

/// A revision of a task definition, as ECS describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TaskDefinition {
    pub(crate) arn: String,
    /// Whether it was not deregistered.
    pub(crate) is_active: bool,
    pub(crate) registered: Option<Timestamp>,
    /// ARN of the caller that registered it.
    pub(crate) registered_by: String,
    /// Whose it is by its tags; `None` if natsctl did not register it.
    pub(super) owner: Option<Owner>,
    /// What it says of the service that it was described for.
    pub(crate) definition: Definition,
    pub(crate) containers: Vec<Container>,
}

/// How a service and its container are called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    /// The manifest's name.
    pub(crate) service: &'a str,
    /// The container that is the service.
    pub(crate) container: &'a str,
}

impl<'a> From<&'a str> for Names<'a> {
    fn from(service: &'a str) -> Self {
        Self { service, container: service }
    }
}

/// A container of a task definition.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    /// Whether the task ends with it.
    pub(crate) is_essential: bool,
    /// Docker labels.
    pub(crate) labels: HashMap<String, String>,
    /// Where it logs; `None` if that is not CloudWatch Logs.
    pub(crate) log: Option<LogStreams>,
}

/// The log streams of a container: `<prefix>/<container>/<task>` in a log group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogStreams {
    pub(crate) group: String,
    pub(crate) prefix: String,
}

impl TaskDefinition {
    /// As that of a service.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn new(of: Names<'_>, found: SdkTaskDefinition, tags: &[Tag]) -> anyhow::Result<Self> {
        let arn = found.task_definition_arn.clone().unwrap_or_default();
        let said = to_json(&found).with_context(|| format!("failed to read the task definition `{arn}`"))?;
        let mut definition = parse(of, canonical(said));
        if let Some(task) = &mut definition.ecs {
            put(&mut task.document, &[TAGS], tags::others(tags).collect::<Object>().into());
        }
        Ok(Self {
            is_active: found.status() != Some(&TaskDefinitionStatus::Inactive),
            registered: found.registered_at().and_then(|at| Timestamp::from_nanosecond(at.as_nanos()).ok()),
            definition,
            containers: found.container_definitions().iter().map(Container::from).collect(),
            arn,
            registered_by: found.registered_by.unwrap_or_default(),
            owner: Owner::read(tags),
        })
    }

    /// The container that is the service, by the definition.
    pub(super) fn container(&self) -> Option<&Container> {
        let name = &self.definition.ecs.as_ref()?.container;
        self.containers.iter().find(|container| container.name == *name)
    }
}

impl From<&ContainerDefinition> for Container {
    fn from(container: &ContainerDefinition) -> Self {
        Self {
            name: container.name().unwrap_or_default().to_owned(),
            image: container.image().unwrap_or_default().to_owned(),
            is_essential: container.essential() == Some(true),
            labels: container.docker_labels().cloned().unwrap_or_default(),
            log: log_streams(container),
        }
    }
}

fn log_streams(container: &ContainerDefinition) -> Option<LogStreams> {
    let log = container.log_configuration().filter(|log| *log.log_driver() == LogDriver::Awslogs);
    let option = |name: &str| log.and_then(LogConfiguration::options)?.get(name).cloned();
    Some(LogStreams { group: option(GROUP)?, prefix: option(STREAM_PREFIX)? })
}

/// The nearest that ECS can have: whole seconds, within its bounds.
pub(crate) fn health_on_ecs(health: Health) -> Health {
    let within = |span: Duration, (least, most): (u64, u64)| {
        Duration::from_secs(u64::try_from(span.as_millis().div_ceil(1000)).unwrap_or(most).clamp(least, most))
    };
    Health {
        interval: within(health.interval, INTERVAL),
        timeout: within(health.timeout, TIMEOUT),
        retries: health.retries,
        start_period: within(health.start_period, START_PERIOD),
    }
}

/// What natsctl says in the document of a service, besides what its definition has fields for. Of one that takes no part in NATS it
/// is only that it runs on Fargate.
pub(crate) fn own_document(container: &str, role: Role, execute_command: bool) -> Object {
    if role == Role::Standalone {
        return canonical(json!({ "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"] }));
    }
    let mut ports = vec![json!({ "containerPort": HEALTH_PORT })];
    ports.extend((role == Role::Gateway).then(|| json!({ "containerPort": GATEWAY_PORT })));
    canonical(json!({
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "containerDefinitions": [{
            "name": container,
            "portMappings": ports,
            "healthCheck": { "command": ["CMD", "/app", "healthcheck"] },
            "user": user_and_group(),
            // A session's agent writes; nothing else in the image may.
            "readonlyRootFilesystem": !execute_command,
            "linuxParameters": { "capabilities": { "drop": ["ALL"] }, "initProcessEnabled": execute_command },
            "ulimits": [{ "name": "nofile", "softLimit": OPEN_FILES, "hardLimit": OPEN_FILES }],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": { "mode": "non-blocking", "max-buffer-size": LOG_BUFFER },
            },
        }],
    }))
}

/// The call that registers a definition; nothing is sent yet. `name` is the service's.
///
/// # Errors
/// A definition that is not one for ECS, or that the API has no form for.
pub(crate) fn registration(
    ecs: &aws_sdk_ecs::Client,
    name: &str,
    definition: &Definition,
) -> anyhow::Result<RegisterTaskDefinitionFluentBuilder> {
    let said = registered(name, definition)?;
    Ok(ecs
        .register_task_definition()
        .set_family(said.family)
        .set_task_role_arn(said.task_role_arn)
        .set_execution_role_arn(said.execution_role_arn)
        .set_network_mode(said.network_mode)
        .set_container_definitions(said.container_definitions)
        .set_volumes(said.volumes)
        .set_placement_constraints(said.placement_constraints)
        .set_requires_compatibilities(said.requires_compatibilities)
        .set_cpu(said.cpu)
        .set_memory(said.memory)
        .set_pid_mode(said.pid_mode)
        .set_ipc_mode(said.ipc_mode)
        .set_proxy_configuration(said.proxy_configuration)
        .set_ephemeral_storage(said.ephemeral_storage)
        .set_runtime_platform(said.runtime_platform)
        .set_enable_fault_injection(said.enable_fault_injection))
}

/// Tags that a definition is registered with, besides natsctl's own.
pub(super) fn other_tags(definition: &Definition) -> impl Iterator<Item = Tag> {
    let tags = definition.ecs.as_ref().and_then(|task| task.document.get(TAGS)?.as_object());
    let tag =
        |(key, value): (&String, &Value)| Tag::builder().key(key).value(value.as_str().unwrap_or_default()).build();
    tags.into_iter().flatten().map(tag)
}

/// Takes out the tags that another definition does not name, and gives them: others may tag what natsctl registers.
pub(super) fn take_unnamed_tags(definition: &mut Definition, named: &Definition) -> Object {
    let named = named.ecs.as_ref().and_then(|task| task.document.get(TAGS)?.as_object());
    let Some(task) = &mut definition.ecs else { return Object::new() };
    let Some(Value::Object(tags)) = task.document.remove(TAGS) else { return Object::new() };
    let is_named = |key: &String| named.is_some_and(|named| named.contains_key(key));
    let (named, others): (Object, Object) = tags.into_iter().partition(|(key, _)| is_named(key));
    put(&mut task.document, &[TAGS], named.into());
    others
}

/// The task definition that a definition is registered as.
fn registered(name: &str, definition: &Definition) -> anyhow::Result<SdkTaskDefinition> {
    let mut document = written(name, definition)?;
    // They are beside a task definition, not in it.
    document.remove(TAGS);
    from_json(&spoken(document), SdkTaskDefinition::deserialize)
        .with_context(|| format!("the definition of `{name}` has no form as a task definition"))
}

/// The whole document of a definition.
fn written(name: &str, definition: &Definition) -> anyhow::Result<Object> {
    let task = definition.ecs.as_ref().with_context(|| format!("the definition of `{name}` is not one for ECS"))?;
    let mut container = Object::new();
    container.insert("image".to_owned(), image(task, definition).into());
    put(&mut container, &["environment"], json!(definition.task_environment(name)));
    let secrets = task.secrets.iter().map(|(variable, from)| (variable.clone(), from.value_from().into()));
    put(&mut container, &["secrets"], Value::Object(secrets.collect()));
    let health = definition.health;
    for (field, number) in [
        ("interval", seconds(health.interval)),
        ("timeout", seconds(health.timeout)),
        ("retries", i32::try_from(health.retries).unwrap_or(i32::MAX)),
        ("startPeriod", seconds(health.start_period)),
    ] {
        put(&mut container, &["healthCheck", field], number.into());
    }
    put(&mut container, &["stopTimeout"], seconds(definition.stop_timeout).into());
    put(&mut container, &["dockerLabels", PERMISSIONS], definition.permissions.as_str().into());
    for (option, value) in [(GROUP, &task.log_group), (STREAM_PREFIX, &task.log_prefix), (REGION, &task.region)] {
        put(&mut container, &["logConfiguration", "options", option], value.as_str().into());
    }
    let architecture = match task.architecture {
        Architecture::X86_64 => "X86_64",
        Architecture::Arm64 => "ARM64",
    };
    let figure = |number: u32| Value::from(if number == 0 { String::new() } else { number.to_string() });
    let mut document = Object::new();
    put(&mut document, &["family"], task.family.as_str().into());
    put(&mut document, &["cpu"], figure(definition.cpu));
    put(&mut document, &["memory"], figure(definition.memory_mib));
    put(&mut document, &["taskRoleArn"], task.task_role.as_str().into());
    put(&mut document, &["executionRoleArn"], task.execution_role.as_str().into());
    put(&mut document, &["runtimePlatform", "cpuArchitecture"], architecture.into());
    put(&mut document, &["runtimePlatform", "operatingSystemFamily"], "LINUX".into());
    put(&mut document, &["containerDefinitions", &task.container], container.into());
    document::merge(&mut document, task.document.clone());
    Ok(document)
}

/// Sets a field, unless it would say nothing.
fn put(object: &mut Object, path: &[&str], value: Value) {
    let says_nothing = match &value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    if let (false, [within @ .., field]) = (says_nothing, path) {
        let mut object = object;
        for name in within {
            let inner = object.entry(*name).or_insert_with(|| Object::new().into());
            let Value::Object(inner) = inner else { return };
            object = inner;
        }
        object.insert((*field).to_owned(), value);
    }
}

/// Takes a field out, and what is empty without it.
fn take(object: &mut Object, path: &[&str]) -> Option<Value> {
    match path {
        [] => None,
        [field] => object.remove(*field),
        [first, rest @ ..] => {
            let Value::Object(inner) = object.get_mut(*first)? else { return None };
            let taken = take(inner, rest);
            if inner.is_empty() {
                object.remove(*first);
            }
            taken
        }
    }
}

/// Takes a text out. A field that is no text stays.
fn text(object: &mut Object, path: &[&str]) -> String {
    match take(object, path) {
        Some(Value::String(text)) => text,
        Some(other) => {
            put(object, path, other);
            String::new()
        }
        None => String::new(),
    }
}

/// Takes a number out, also one that is written as a text. What is no number stays.
fn number<T: TryFrom<u64>>(object: &mut Object, path: &[&str]) -> Option<T> {
    let found = take(object, path)?;
    let number = found.as_u64().or_else(|| found.as_str()?.parse().ok()).and_then(|number| T::try_from(number).ok());
    if number.is_none() {
        put(object, path, found);
    }
    number
}

/// Takes texts by their names out. What is no text stays.
fn texts(object: &mut Object, field: &str) -> BTreeMap<String, String> {
    match object.remove(field) {
        Some(Value::Object(found)) => {
            let (texts, others): (Object, Object) = found.into_iter().partition(|(_, value)| value.is_string());
            put(object, &[field], others.into());
            texts.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
        }
        Some(other) => {
            object.insert(field.to_owned(), other);
            BTreeMap::new()
        }
        None => BTreeMap::new(),
    }
}

/// What a task definition says of a service.
fn parse(of: Names<'_>, mut document: Object) -> Definition {
    let name = container_name(of, &document);
    let mut container = match take(&mut document, &["containerDefinitions", &name]) {
        Some(Value::Object(container)) => container,
        _ => Object::new(),
    };
    let image = text(&mut container, &["image"]);
    let (repository, artifact) = image.split_once('@').unwrap_or((&image, ""));
    let health = match container.contains_key("healthCheck") {
        false => Health::default(),
        true => Health {
            interval: Duration::from_secs(
                number(&mut container, &["healthCheck", "interval"]).unwrap_or(USUAL_INTERVAL),
            ),
            timeout: Duration::from_secs(number(&mut container, &["healthCheck", "timeout"]).unwrap_or(USUAL_TIMEOUT)),
            retries: number(&mut container, &["healthCheck", "retries"]).unwrap_or(USUAL_RETRIES),
            start_period: Duration::from_secs(number(&mut container, &["healthCheck", "startPeriod"]).unwrap_or(0)),
        },
    };
    let stop_timeout = Duration::from_secs(number(&mut container, &["stopTimeout"]).unwrap_or(USUAL_STOP_TIMEOUT));
    let permissions = text(&mut container, &["dockerLabels", PERMISSIONS]);
    let (log_group, log_prefix, region) = log_of(&mut container);
    let mut environment = texts(&mut container, "environment");
    let secrets = texts(&mut container, "secrets").into_iter();
    let secrets = secrets.map(|(variable, from)| (variable, SecretReference::from_value_from(&from))).collect();
    let is_gateway = container.get("portMappings").is_some_and(|ports| ports.get(GATEWAY_PORT.to_string()).is_some());
    let is_on_nats = OWN_VARIABLES.iter().all(|name| environment.contains_key(*name));
    let mut variable = |name: &str| {
        let number = environment.get(name).and_then(|text| text.parse().ok()).filter(|number: &u32| *number > 0);
        number.filter(|_| is_on_nats).inspect(|_| drop(environment.remove(name))).unwrap_or(0)
    };
    let (workers, concurrency) = (variable("WORKERS"), variable("CONCURRENCY"));
    let version = if is_on_nats { environment.remove("SERVICE_VERSION").unwrap_or_default() } else { String::new() };
    let architecture = match take(&mut document, &["runtimePlatform", "cpuArchitecture"]) {
        Some(Value::String(name)) if name == "ARM64" => Architecture::Arm64,
        Some(Value::String(name)) if name != "X86_64" => {
            put(&mut document, &["runtimePlatform", "cpuArchitecture"], name.into());
            Architecture::X86_64
        }
        _ => Architecture::X86_64,
    };
    let mut definition = Definition {
        artifact: artifact.to_owned(),
        version,
        role: match (is_on_nats, is_gateway) {
            (false, _) => Role::Standalone,
            (true, true) => Role::Gateway,
            (true, false) => Role::Worker,
        },
        permissions,
        environment,
        secrets: BTreeMap::new(),
        cpu: number(&mut document, &["cpu"]).unwrap_or(0),
        memory_mib: number(&mut document, &["memory"]).unwrap_or(0),
        workers,
        concurrency,
        health,
        stop_timeout,
        ecs: Some(EcsTask {
            family: text(&mut document, &["family"]),
            container: name.clone(),
            repository: repository.to_owned(),
            execution_role: text(&mut document, &["executionRoleArn"]),
            task_role: text(&mut document, &["taskRoleArn"]),
            log_group,
            log_prefix,
            region,
            architecture,
            secrets,
            document: Object::new(),
        }),
    };
    for (variable, value) in definition.own_environment(of.service) {
        if is_on_nats && definition.environment.get(variable) == Some(&value) {
            definition.environment.remove(variable);
        }
    }
    put(&mut document, &["containerDefinitions", &name], container.into());
    if let Some(task) = &mut definition.ecs {
        task.document = document;
    }
    definition
}

/// Takes log group, prefix of the streams and region out of the log of a task's own container.
pub(super) fn take_log(task: &mut EcsTask) -> (String, String, String) {
    let container = task.document.get_mut("containerDefinitions").and_then(|all| all.get_mut(&task.container));
    container.and_then(Value::as_object_mut).map(log_of).unwrap_or_default()
}

/// The same of a container. A log that is not in CloudWatch Logs has none of them.
fn log_of(container: &mut Object) -> (String, String, String) {
    if container.get("logConfiguration").is_none_or(|log| log["logDriver"] != "awslogs") {
        return Default::default();
    }
    let mut option = |name: &str| text(container, &["logConfiguration", "options", name]);
    (option(GROUP), option(STREAM_PREFIX), option(REGION))
}

/// The container that is the service: the one that has its name, or says so, or is alone, or is essential.
fn container_name(of: Names<'_>, document: &Object) -> String {
    let none = Object::new();
    let containers = document.get("containerDefinitions").and_then(Value::as_object).unwrap_or(&none);
    if containers.contains_key(of.container) {
        return of.container.to_owned();
    }
    let says_so = |(_, container): &(&String, &Value)| container["environment"]["SERVICE_NAME"] == of.service;
    let is_essential = |(_, container): &(&String, &Value)| container["essential"] != false;
    let found = containers.iter().find(says_so).or_else(|| containers.iter().find(is_essential));
    found.or_else(|| containers.iter().next()).map_or_else(|| of.container.to_owned(), |(name, _)| name.clone())
}

fn image(task: &EcsTask, definition: &Definition) -> String {
    match &*definition.artifact {
        "" => task.repository.clone(),
        digest => format!("{}@{digest}", task.repository),
    }
}

pub(super) fn platform(architecture: Architecture) -> RuntimePlatform {
    let cpu = match architecture {
        Architecture::X86_64 => CpuArchitecture::X8664,
        Architecture::Arm64 => CpuArchitecture::Arm64,
    };
    RuntimePlatform::builder().cpu_architecture(cpu).operating_system_family(OsFamily::Linux).build()
}

fn seconds(span: Duration) -> i32 {
    i32::try_from(span.as_secs()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;

//! A definition as an ECS task definition, and back. Pure: what a task definition says that natsctl never writes keeps its name, so
//! that a plan shows it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_ecs::error::BuildError;
use aws_sdk_ecs::operation::register_task_definition::builders::RegisterTaskDefinitionFluentBuilder;
use aws_sdk_ecs::types::{
    Compatibility, ContainerDefinition, CpuArchitecture, HealthCheck, KernelCapabilities, KeyValuePair,
    LinuxParameters, LogConfiguration, LogDriver, NetworkMode, OsFamily, PortMapping, RuntimePlatform, Secret, Tag,
    TaskDefinition as SdkTaskDefinition, TaskDefinitionStatus, TransportProtocol, Ulimit, UlimitName,
};
use jiff::Timestamp;
use serde_json::Value;

use super::tags::Owner;
use crate::model::desired::{Architecture, Definition, Health, Role};
use crate::model::ecs::EcsTask;
use crate::model::task::{GATEWAY_PORT, HEALTH_PORT, user_and_group};

/// Open files: one per connection.
const OPEN_FILES: i32 = 65536;
/// Size of the buffer in which lines wait when CloudWatch is slow, rather than in the service.
const LOG_BUFFER: &str = "25m";
/// Label with the digest of the permissions on NATS: other permissions are another revision, so tasks start with their new identity.
const PERMISSIONS: &str = "natsctl.permissions";

/// Bounds of ECS for a health check, in seconds.
const INTERVAL: (u64, u64) = (5, 300);
const TIMEOUT: (u64, u64) = (2, 60);
const START_PERIOD: (u64, u64) = (0, 300);

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
    /// Of a service; its container has the service's name, or is the first one.
    pub(super) fn new(service: &str, found: SdkTaskDefinition, tags: &[Tag]) -> Self {
        Self {
            is_active: matches!(found.status(), None | Some(TaskDefinitionStatus::Active)),
            registered: found.registered_at().and_then(|at| Timestamp::from_nanosecond(at.as_nanos()).ok()),
            definition: parse(service, &found),
            containers: found.container_definitions().iter().map(Container::from).collect(),
            arn: found.task_definition_arn.unwrap_or_default(),
            registered_by: found.registered_by.unwrap_or_default(),
            owner: Owner::read(tags),
        }
    }

    /// The container of a service: that of its name, or the first one.
    pub(super) fn container(&self, service: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == service).or(self.containers.first())
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
    Some(LogStreams { group: option("awslogs-group")?, prefix: option("awslogs-stream-prefix")? })
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

/// The container that is the task.
fn container(name: &str, definition: &Definition, task: &EcsTask) -> Result<ContainerDefinition, BuildError> {
    let mut ports = vec![HEALTH_PORT];
    ports.extend((definition.role == Role::Gateway).then_some(GATEWAY_PORT));
    let port = |port: u16| {
        let port = i32::from(port);
        PortMapping::builder().container_port(port).host_port(port).protocol(TransportProtocol::Tcp).build()
    };
    let variable = |(name, value): (String, String)| KeyValuePair::builder().name(name).value(value).build();
    let secret = |(name, from): (&String, &String)| Secret::builder().name(name).value_from(from).build();
    let health = definition.health;
    let health = HealthCheck::builder()
        .set_command(Some(["CMD", "/app", "healthcheck"].map(str::to_owned).to_vec()))
        .interval(seconds(health.interval))
        .timeout(seconds(health.timeout))
        .retries(i32::try_from(health.retries).unwrap_or(i32::MAX))
        .start_period(seconds(health.start_period))
        .build()?;
    let log = LogConfiguration::builder()
        .log_driver(LogDriver::Awslogs)
        .options("awslogs-group", &task.log_group)
        .options("awslogs-region", &task.region)
        .options("awslogs-stream-prefix", &task.log_prefix)
        .options("mode", "non-blocking")
        .options("max-buffer-size", LOG_BUFFER);
    let limits = Ulimit::builder().name(UlimitName::Nofile).soft_limit(OPEN_FILES).hard_limit(OPEN_FILES).build()?;
    let linux = LinuxParameters::builder()
        .capabilities(KernelCapabilities::builder().drop("ALL").build())
        .init_process_enabled(task.execute_command);
    Ok(ContainerDefinition::builder()
        .name(name)
        .image(format!("{}@{}", task.repository, definition.artifact))
        .essential(true)
        .set_port_mappings(Some(ports.into_iter().map(port).collect()))
        .set_environment(Some(definition.task_environment(name).into_iter().map(variable).collect()))
        .set_secrets(Some(task.secrets.iter().map(secret).collect::<Result<_, _>>()?))
        .user(user_and_group())
        // A session's agent writes; nothing else in the image may.
        .readonly_root_filesystem(!task.execute_command)
        .linux_parameters(linux.build())
        .stop_timeout(seconds(definition.stop_timeout))
        .ulimits(limits)
        .docker_labels(PERMISSIONS, &definition.permissions)
        .log_configuration(log.build()?)
        .health_check(health)
        .build())
}

/// The call that registers a definition; nothing is sent yet.
///
/// # Errors
/// A definition that is not one for ECS.
pub(crate) fn registration(
    ecs: &aws_sdk_ecs::Client,
    name: &str,
    definition: &Definition,
) -> anyhow::Result<RegisterTaskDefinitionFluentBuilder> {
    let task = definition.ecs.as_ref().with_context(|| format!("the definition of `{name}` is not one for ECS"))?;
    Ok(ecs
        .register_task_definition()
        .family(&task.family)
        .task_role_arn(&task.task_role)
        .execution_role_arn(&task.execution_role)
        .network_mode(NetworkMode::Awsvpc)
        .requires_compatibilities(Compatibility::Fargate)
        .cpu(definition.cpu.to_string())
        .memory(definition.memory_mib.to_string())
        .runtime_platform(platform(task.architecture))
        .container_definitions(container(name, definition, task)?))
}

/// What a task definition says; `name` is the service's.
fn parse(name: &str, found: &SdkTaskDefinition) -> Definition {
    let containers = found.container_definitions();
    let container = containers.iter().find(|one| one.name() == Some(name)).or(containers.first());
    let mut definition = container.map_or_else(|| nothing(found), |container| read(found, container));
    if let Some(task) = &definition.ecs {
        let foreign = foreign(name, &definition, task, found, container);
        if let Some(task) = &mut definition.ecs {
            task.foreign = foreign;
        }
    }
    definition
}

pub(super) fn platform(architecture: Architecture) -> RuntimePlatform {
    let cpu = match architecture {
        Architecture::X86_64 => CpuArchitecture::X8664,
        Architecture::Arm64 => CpuArchitecture::Arm64,
    };
    RuntimePlatform::builder().cpu_architecture(cpu).operating_system_family(OsFamily::Linux).build()
}

fn read(found: &SdkTaskDefinition, container: &ContainerDefinition) -> Definition {
    let mut environment: BTreeMap<String, String> = container
        .environment()
        .iter()
        .map(|pair| (pair.name().unwrap_or_default().to_owned(), pair.value().unwrap_or_default().to_owned()))
        .collect();
    environment.remove("SERVICE_NAME");
    environment.remove("STOP_TIMEOUT_MS");
    let version = environment.remove("SERVICE_VERSION").unwrap_or_default();
    let mut number = |name: &str| environment.remove(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    let (workers, concurrency) = (number("WORKERS"), number("CONCURRENCY"));
    let (repository, artifact) = container
        .image()
        .unwrap_or_default()
        .split_once('@')
        .map_or_else(|| (container.image().unwrap_or_default(), ""), |(repository, digest)| (repository, digest));
    let label = |name: &str| container.docker_labels().and_then(|labels| labels.get(name)).cloned();
    let option = |name: &str| {
        let options = container.log_configuration().and_then(LogConfiguration::options);
        options.and_then(|options| options.get(name)).cloned().unwrap_or_default()
    };
    let health = container.health_check();
    let whole = |seconds: Option<i32>| Duration::from_secs(u64::try_from(seconds.unwrap_or(0)).unwrap_or(0));
    let is_gateway =
        container.port_mappings().iter().any(|port| port.container_port() == Some(i32::from(GATEWAY_PORT)));
    let is_arm = found.runtime_platform().and_then(RuntimePlatform::cpu_architecture) == Some(&CpuArchitecture::Arm64);
    Definition {
        artifact: artifact.to_owned(),
        version,
        role: if is_gateway { Role::Gateway } else { Role::Worker },
        permissions: label(PERMISSIONS).unwrap_or_default(),
        environment,
        secrets: BTreeMap::new(),
        cpu: found.cpu().and_then(|text| text.parse().ok()).unwrap_or(0),
        memory_mib: found.memory().and_then(|text| text.parse().ok()).unwrap_or(0),
        workers,
        concurrency,
        health: Health {
            interval: whole(health.and_then(HealthCheck::interval)),
            timeout: whole(health.and_then(HealthCheck::timeout)),
            retries: u32::try_from(health.and_then(HealthCheck::retries).unwrap_or(0)).unwrap_or(0),
            start_period: whole(health.and_then(HealthCheck::start_period)),
        },
        stop_timeout: whole(container.stop_timeout()),
        ecs: Some(EcsTask {
            family: found.family().unwrap_or_default().to_owned(),
            repository: repository.to_owned(),
            execution_role: found.execution_role_arn().unwrap_or_default().to_owned(),
            task_role: found.task_role_arn().unwrap_or_default().to_owned(),
            log_group: option("awslogs-group"),
            log_prefix: option("awslogs-stream-prefix"),
            region: option("awslogs-region"),
            architecture: if is_arm { Architecture::Arm64 } else { Architecture::X86_64 },
            execute_command: container.readonly_root_filesystem() != Some(true),
            secrets: container
                .secrets()
                .iter()
                .map(|secret| (secret.name().to_owned(), secret.value_from().to_owned()))
                .collect(),
            foreign: BTreeMap::new(),
        }),
    }
}

/// A task definition without a container.
fn nothing(found: &SdkTaskDefinition) -> Definition {
    read(found, &ContainerDefinition::builder().build())
}

/// What the task definition says and would not say, had natsctl written all of it.
fn foreign(
    name: &str,
    definition: &Definition,
    task: &EcsTask,
    found: &SdkTaskDefinition,
    there: Option<&ContainerDefinition>,
) -> BTreeMap<String, Value> {
    let mut foreign = BTreeMap::new();
    if let (Ok(ours), Some(there)) = (container(name, definition, task), there) {
        let (ours, there) = (shown(&in_order(ours)), shown(&in_order(there.clone())));
        let fields = ours.keys().chain(there.keys());
        for field in fields.filter(|field| ours.get(*field) != there.get(*field)) {
            let value = there.get(field).cloned().unwrap_or_else(|| "(none)".to_owned());
            foreign.insert(format!("container.{field}"), value.into());
        }
    }
    for other in found.container_definitions().iter().filter(|other| Some(*other) != there) {
        foreign.insert(format!("container {}", other.name().unwrap_or_default()), true.into());
    }
    let mut ours = SdkTaskDefinition::builder()
        .network_mode(NetworkMode::Awsvpc)
        .requires_compatibilities(Compatibility::Fargate)
        .runtime_platform(platform(task.architecture))
        .build();
    let mut there = found.clone();
    // These are compared elsewhere, or ECS adds them of its own accord.
    for one in [&mut ours, &mut there] {
        (one.family, one.task_role_arn, one.execution_role_arn, one.cpu, one.memory) = (None, None, None, None, None);
        (one.task_definition_arn, one.container_definitions, one.status, one.registered_by) = (None, None, None, None);
        (one.requires_attributes, one.compatibilities, one.registered_at, one.deregistered_at) =
            (None, None, None, None);
        one.revision = 0;
        one.enable_fault_injection = one.enable_fault_injection.filter(|enabled| *enabled);
    }
    let (ours, there) = (shown(&ours), shown(&there));
    for field in ours.keys().chain(there.keys()).filter(|field| ours.get(*field) != there.get(*field)) {
        let value = there.get(field).cloned().unwrap_or_else(|| "(none)".to_owned());
        foreign.insert(field.clone(), value.into());
    }
    foreign
}

/// The same container with its lists in order, and without values that are the default.
fn in_order(mut container: ContainerDefinition) -> ContainerDefinition {
    // `labels` and `options` are maps, whose order is random in what `shown` shows.
    let as_list = |map: HashMap<String, String>| {
        let pair = |(name, value)| KeyValuePair::builder().name(name).value(value).build();
        map.into_iter().map(pair).collect::<Vec<_>>()
    };
    let mut environment = container.environment.take().unwrap_or_default();
    environment.extend(as_list(container.docker_labels.take().unwrap_or_default()));
    if let Some(log) = &mut container.log_configuration {
        environment.extend(as_list(log.options.take().unwrap_or_default()));
    }
    environment.sort_by(|a, b| a.name.cmp(&b.name));
    container.environment = Some(environment);
    if let Some(secrets) = &mut container.secrets {
        secrets.sort_by(|a, b| a.name.cmp(&b.name));
    }
    if let Some(ports) = &mut container.port_mappings {
        ports.sort_by_key(|port| port.container_port);
        for port in ports {
            port.host_port = port.container_port;
        }
    }
    if let Some(linux) = &mut container.linux_parameters {
        linux.init_process_enabled = linux.init_process_enabled.filter(|enabled| *enabled);
    }
    container
}

/// Fields by name, as the SDK shows them; fields without a value are left out. It is the one way to see all of them, also those that
/// a later SDK will know.
fn shown(value: &impl Debug) -> BTreeMap<String, String> {
    let text = format!("{value:#?}");
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        let field = line.strip_prefix("    ").filter(|rest| !rest.starts_with([' ', '}', ']', ')']));
        match field.and_then(|rest| rest.split_once(": ")) {
            Some((name, value)) => {
                current = name.to_owned();
                fields.insert(current.clone(), value.trim().to_owned());
            }
            None => {
                if let Some(value) = fields.get_mut(&current) {
                    value.push_str(line.trim());
                }
            }
        }
    }
    fields.retain(|_, value| {
        !matches!(value.trim_end_matches(','), "None" | "Some([],)" | "Some([])" | "0" | "Some(false,)")
    });
    fields
}

fn seconds(span: Duration) -> i32 {
    i32::try_from(span.as_secs()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;

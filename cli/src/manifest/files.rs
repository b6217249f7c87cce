//! The manifest files as types. Their JSON Schema, made from these types, is what checks the files and helps editors.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::caches::CacheSettings;
use super::consumes::{ConsumeSettings, Delivery};
use super::ecs::EcsSettings;
use super::names::{BucketName, CacheName, EcsName, EventSubject, Name, Variable};
use super::overrides::Overrides;
use super::release::{Release, ReleaseDigests};
use super::schema::Partial;
use crate::model::desired::{Architecture, Role};
use crate::model::secret::SecretReference;
use crate::model::units::{Size, Span};

/// What follows the name of a service in its default `ecs_name`. Terraform reads it from the JSON Schema.
pub const ECS_NAME_SUFFIX: &str = "-nats";

/// One service: what it takes part in, and what differs from the defaults in `fleet.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Service manifest", deny_unknown_fields)]
pub struct ServiceManifest {
    /// Name of the file, of the crate and of the service.
    pub name: Name,
    /// `worker` answers on NATS; `gateway` takes HTTP requests and calls every service; `standalone` runs on ECS and takes no part in
    /// NATS.
    #[serde(default)]
    pub role: Role,
    /// Name of the ECS service and task family; `<name>-nats` if absent. A service of this name that natsctl did not create is
    /// taken over only if it is written here.
    #[serde(default)]
    #[schemars(extend("x-default-suffix" = ECS_NAME_SUFFIX))]
    pub ecs_name: Option<EcsName>,
    /// Packages of the protocol that it serves, for example `quest.v1`.
    #[serde(default)]
    pub serves: BTreeSet<String>,
    /// Methods that anybody may call through the gateway, by full protobuf name, for example `quest.v1.Quest/Generate`. All
    /// others can be called by services that name this one in `calls`, and by operators over NATS.
    #[serde(default)]
    pub public: BTreeSet<String>,
    /// Services that it calls.
    #[serde(default)]
    pub calls: BTreeSet<String>,
    /// Events that it publishes, for example `evt.quest.generated.v1`.
    #[serde(default)]
    pub publishes: BTreeSet<String>,
    /// Events that it consumes, for example `evt.quest.generated.v1`, and how.
    #[serde(default)]
    pub consumes: BTreeMap<EventSubject, ConsumeSettings>,
    /// Key-value buckets that it keeps its state in, by name.
    #[serde(default)]
    pub buckets: BTreeMap<BucketName, BucketSettings>,
    /// Its caches by name. Its tasks share them where the environment has Redis.
    #[serde(default)]
    pub caches: BTreeMap<CacheName, CacheSettings>,
    /// Environment variables.
    #[serde(default)]
    pub environment: BTreeMap<Variable, String>,
    /// Environment variables whose values are secrets: where each value comes from.
    #[serde(default)]
    pub secrets: BTreeMap<Variable, SecretReference>,
    /// What its tasks may do on AWS besides; Terraform makes the role of it.
    #[serde(default)]
    pub aws: Vec<Grant>,
    /// What it is on ECS where that differs from what natsctl makes. One machine has no ECS, and ignores it.
    #[serde(default)]
    pub ecs: EcsSettings,
    /// Where its image comes from; built by cargo if absent.
    #[serde(default)]
    pub build: Option<ImageSource>,
    /// How it runs; what the file does not say is as in `fleet.yaml`.
    #[serde(flatten)]
    #[schemars(with = "Partial<Settings>")]
    pub settings: Settings,
}

impl ServiceManifest {
    /// Name of its ECS service.
    pub fn ecs_name(&self) -> String {
        self.ecs_name.as_ref().map_or_else(|| format!("{}{ECS_NAME_SUFFIX}", self.name), ToString::to_string)
    }

    /// Name of the container that is the service, on ECS.
    pub fn container_name(&self) -> &str {
        self.ecs.container_name.as_deref().unwrap_or(&self.name)
    }

    /// Where its own container logs in CloudWatch Logs, if its manifest says so.
    pub fn own_log(&self) -> Option<OwnLog<'_>> {
        let log = self.ecs.container.log_configuration.as_ref().filter(|log| log.log_driver == "awslogs")?;
        let option = |name: &str| log.options.get(name).map(String::as_str);
        Some(OwnLog {
            group: option("awslogs-group")?,
            prefix: option("awslogs-stream-prefix")?,
            region: option("awslogs-region")?,
        })
    }

    /// All secrets that it names, those of its sidecars and logs among them.
    pub fn all_secrets(&self) -> impl Iterator<Item = &SecretReference> {
        let of_sidecars = self.ecs.sidecars.values().flat_map(|sidecar| sidecar.secrets.values());
        let containers = self.ecs.sidecars.values().map(|sidecar| &sidecar.container).chain([&self.ecs.container]);
        let logs = containers.filter_map(|container| container.log_configuration.as_ref());
        let of_logs = logs.flat_map(|log| log.secret_options.values());
        self.secrets.values().chain(of_sidecars).chain(of_logs)
    }

    /// The same with what follows from it: every task consumes the events that invalidate a cache, and nothing scales a service that
    /// is not to run.
    #[must_use]
    pub(super) fn completed(mut self) -> Self {
        let every_task = ConsumeSettings { delivery: Delivery::EveryTask, ..ConsumeSettings::default() };
        for event in self.caches.values().flat_map(|cache| &cache.invalidated_by) {
            self.consumes.entry(event.clone()).or_insert_with(|| every_task.clone());
        }
        if self.settings.tasks == 0 {
            (self.settings.autoscaling.min, self.settings.autoscaling.max) = (0, 0);
        }
        self
    }

    /// The events that it publishes for others, without those of the audit trail.
    pub fn events(&self) -> impl Iterator<Item = &String> {
        self.publishes.iter().filter(|event| !proto::naming::is_audit(event))
    }

    /// Whether it publishes events of the audit trail.
    pub fn is_audited(&self) -> bool {
        self.publishes.iter().any(|event| proto::naming::is_audit(event))
    }

    /// Name of the JetStream stream that stores its events.
    pub fn event_stream(&self) -> String {
        format!("EVT_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

/// Where a container logs in CloudWatch Logs: in streams `<prefix>/<container>/<task>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnLog<'a> {
    /// Log group.
    pub group: &'a str,
    /// What the names of its streams begin with.
    pub prefix: &'a str,
    /// Region of the log group.
    pub region: &'a str,
}

/// Actions that a service's tasks may take on resources of AWS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Grant {
    /// For example `s3:GetObject`.
    pub actions: BTreeSet<String>,
    /// ARNs.
    pub resources: BTreeSet<String>,
}

/// Where the image of a service comes from that cargo does not build. One of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ImageSource {
    /// `docker buildx` builds it from this file, relative to the folder that holds `manifests/`.
    #[serde(default)]
    pub dockerfile: Option<PathBuf>,
    /// Folder that the Dockerfile sees; the Dockerfile's own if absent.
    #[serde(default)]
    pub context: Option<PathBuf>,
    /// It exists already: `repository@sha256:…`.
    #[serde(default)]
    pub image: Option<String>,
}

/// How a service runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Settings {
    /// Tasks that run at the same time, as long as nothing scales the service. With 0 it is deployed and does not run, and nothing
    /// scales it.
    #[schemars(range(min = 0, max = 100))]
    pub tasks: u32,
    /// Worker threads of a task, each with its own connection to NATS.
    #[schemars(range(min = 1, max = 64))]
    pub workers: u32,
    /// Requests that a worker handles at the same time.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: u32,
    /// CPU units of a task; 1024 are one core.
    #[schemars(with = "Cpu")]
    pub cpu: u32,
    /// Memory of a task.
    pub memory: Size,
    /// How far the number of tasks may move, and what moves it.
    pub autoscaling: AutoscalingSettings,
    /// When a task counts as failed. It cannot be switched off.
    pub health: HealthSettings,
    /// How long a task may take to finish what it has started. Fargate allows no more than 120 s.
    #[schemars(extend("x-minimum" = "1 s", "x-maximum" = "120 s"))]
    pub stop_timeout: Span,
    /// When an alarm fires.
    pub alarms: AlarmSettings,
    /// What its tasks run on.
    pub architecture: Architecture,
    /// Whether `natsctl exec` may open a session in its tasks.
    pub execute_command: bool,
}

/// How far the number of tasks may move, and what moves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AutoscalingSettings {
    /// Fewest tasks.
    #[schemars(range(min = 1, max = 100))]
    pub min: u32,
    /// Most tasks.
    #[schemars(range(min = 1, max = 100))]
    pub max: u32,
    /// Tasks are added above this use of CPU, in percent; 0 is never.
    #[schemars(range(min = 0, max = 100))]
    pub cpu_percent: u32,
    /// Tasks are added above this use of memory, in percent; 0 is never.
    #[schemars(range(min = 0, max = 100))]
    pub memory_percent: u32,
}

/// When a task counts as failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HealthSettings {
    /// Between two checks.
    #[schemars(extend("x-minimum" = "100 ms", "x-maximum" = "5 min"))]
    pub interval: Span,
    /// How long one check may take.
    #[schemars(extend("x-minimum" = "100 ms", "x-maximum" = "1 min"))]
    pub timeout: Span,
    /// This many failed checks in a row make a task unhealthy.
    #[schemars(range(min = 1, max = 10))]
    pub retries: u32,
    /// A new task must be ready within this time; 0 only for a standalone service, whose failed checks count at once.
    #[schemars(extend("x-minimum" = "0 s", "x-maximum" = "5 min"))]
    pub start_period: Span,
}

/// When an alarm fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AlarmSettings {
    /// Above this use of CPU, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub cpu_percent: u32,
    /// Above this use of memory, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub memory_percent: u32,
}

/// A key-value bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BucketSettings {
    /// Revisions kept of each key.
    #[serde(default = "newest_only")]
    #[schemars(range(min = 1, max = 64))]
    pub history: u32,
    /// How long a value is kept; for ever if absent.
    #[serde(default)]
    #[schemars(extend("x-minimum" = "1 s", "x-maximum" = "36500 d"))]
    pub ttl: Option<Span>,
    /// Copies of each value; as in `fleet.yaml` if absent.
    #[serde(default)]
    #[schemars(with = "Option<Replicas>")]
    pub replicas: Option<usize>,
}

fn newest_only() -> u32 {
    1
}

/// The whole fleet: its name, the defaults of every service, and what NATS keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Fleet manifest", deny_unknown_fields)]
pub struct ProjectManifest {
    /// What names on AWS start with.
    pub project: Name,
    /// How a service runs if its own manifest says nothing else.
    pub defaults: Settings,
    /// What NATS keeps and allows.
    pub nats: NatsSettings,
}

/// What NATS keeps and allows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NatsSettings {
    /// Copies of each stream and bucket. An environment with fewer nodes has as many as it has nodes.
    #[schemars(with = "Replicas")]
    pub replicas: usize,
    /// Largest message.
    #[schemars(extend("x-minimum" = "1 KiB", "x-maximum" = "64 MiB"))]
    pub max_payload: Size,
    /// Most that JetStream stores on one node.
    #[schemars(extend("x-minimum" = "64 MiB", "x-maximum" = "1048576 GiB"))]
    pub max_file_store: Size,
    /// Streams of events, one for each service that publishes.
    pub events: EventSettings,
    /// Audit records.
    pub audit: Retention,
    /// What could not be handled.
    pub dead_letters: Retention,
}

/// How events are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct EventSettings {
    /// How long an event is kept.
    #[schemars(extend("x-minimum" = "1 min", "x-maximum" = "36500 d"))]
    pub max_age: Span,
    /// How long an event's id is remembered, so that the same event is not kept twice.
    #[schemars(extend("x-minimum" = "1 s", "x-maximum" = "36500 d"))]
    pub duplicate_window: Span,
    /// How long an event that was written with a value of a bucket waits for its stream, which takes it over within
    /// milliseconds while there is one.
    #[schemars(extend("x-minimum" = "1 min", "x-maximum" = "36500 d"))]
    pub outbox_max_age: Span,
}

/// How long messages are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Retention {
    /// How long a message is kept.
    #[schemars(extend("x-minimum" = "1 h", "x-maximum" = "36500 d"))]
    pub max_age: Span,
}

/// Where the fleet runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "platform", rename_all = "snake_case")]
#[schemars(title = "Environment manifest", deny_unknown_fields)]
pub enum Environment {
    /// On this machine.
    Local(LocalEnvironment),
    /// On ECS.
    Aws(AwsEnvironment),
}

impl Environment {
    /// How many NATS servers it has.
    pub fn nodes(&self) -> usize {
        match self {
            Self::Local(local) => local.nats.nodes,
            Self::Aws(aws) => aws.nats.nodes,
        }
    }

    /// Where its traces go, if the manifest says so.
    pub fn traces(&self) -> Option<&TraceSettings> {
        match self {
            Self::Local(local) => local.traces.as_ref(),
            Self::Aws(aws) => aws.traces.as_ref(),
        }
    }
}

/// Where traces go, and where they can be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TraceSettings {
    /// Base URL of the OTLP collector (`http/protobuf`) that tasks send spans to, for example
    /// `http://collector.internal:4318`. Without it, tasks on AWS send none, and local ones send theirs to natsctl's
    /// supervisor.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// One of so many traces is recorded; every one if absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub one_in: Option<u32>,
    /// Where a trace is shown: a URL with `{trace_id}` in it. `natsctl trace` prints it.
    #[serde(default)]
    pub link: Option<String>,
}

/// This machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LocalEnvironment {
    /// The NATS cluster.
    pub nats: LocalNats,
    /// Where clients reach the gateway.
    pub gateway: LocalGateway,
    /// Traces; natsctl's supervisor keeps the latest if absent.
    #[serde(default)]
    pub traces: Option<TraceSettings>,
    /// What differs of services in this environment, by service.
    #[serde(default)]
    pub services: BTreeMap<Name, Overrides>,
}

/// A part of an AWS account. What it consists of is in the handover, which Terraform writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AwsEnvironment {
    /// For example `us-east-1`.
    pub region: String,
    /// The account, 12 digits; the variable `NATSCTL_ACCOUNT` if absent. With credentials of another one nothing is done.
    #[serde(default)]
    pub account: Option<String>,
    /// Name of the parameter of Systems Manager that Terraform writes, for example `/gaming-system/production/natsctl`.
    pub handover: String,
    /// Where images go, for example `localhost:5000`; the registry of the handover if absent.
    #[serde(default)]
    pub registry: Option<String>,
    /// Whether commands that change something show the plan and ask for a confirmation, on a terminal.
    #[serde(default = "yes")]
    pub confirm: bool,
    /// The NATS cluster.
    pub nats: AwsNats,
    /// Traces; there are none if absent.
    #[serde(default)]
    pub traces: Option<TraceSettings>,
    /// What differs of services in this environment, by service.
    #[serde(default)]
    pub services: BTreeMap<Name, Overrides>,
}

fn yes() -> bool {
    true
}

/// A NATS cluster on EC2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AwsNats {
    /// Servers; an odd number, so that a majority is never a tie.
    #[schemars(with = "Nodes")]
    pub nodes: usize,
    /// Release of nats-server, for example `2.15.0`; the one that natsctl was tested with if absent.
    #[serde(default)]
    pub version: Option<String>,
    /// Digests of the archives, for a version whose digests natsctl does not know.
    #[serde(default)]
    pub sha256: Option<ReleaseDigests>,
    /// Where nodes download the archive from: a URL with `{arch}`, and with `{version}` if need be; the project's own releases
    /// if absent.
    #[serde(default)]
    pub mirror: Option<String>,
}

impl AwsNats {
    /// The release that nodes are to run.
    pub fn release(&self) -> Release {
        Release::new(self.version.as_deref(), self.sha256.as_ref(), self.mirror.as_deref())
    }
}

/// A NATS cluster of processes on this machine. Server i listens on each port plus i − 1; port 0 is any free port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LocalNats {
    /// Servers; an odd number, so that a majority is never a tie.
    #[schemars(with = "Nodes")]
    pub nodes: usize,
    /// For clients.
    pub client_port: u16,
    /// For the other servers of the cluster.
    pub route_port: u16,
    /// For monitoring.
    pub monitor_port: u16,
    /// Most that JetStream stores on one node; as in `fleet.yaml` if absent.
    #[serde(default)]
    #[schemars(extend("x-minimum" = "64 MiB", "x-maximum" = "1048576 GiB"))]
    pub max_file_store: Option<Size>,
}

/// Where clients reach the gateway on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LocalGateway {
    /// 0 is any free port.
    pub port: u16,
}

macro_rules! one_of {
    ($($(#[$doc:meta])* $name:ident: $numbers:expr;)+) => {
        $($(#[$doc])*
        struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "integer", "enum": $numbers })
            }
        })+
    };
}

one_of! {
    /// The sizes that Fargate has.
    Cpu: super::sizes::cpu_units();
    /// What JetStream allows, without even numbers.
    Replicas: [1, 3, 5];
    /// Sizes of a cluster.
    Nodes: [1, 3, 5, 7, 9];
}

//! What should run: the desired state, made from manifests, contracts and built artifacts. Plain values; the same for every platform.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ecs::{EcsService, EcsTask};

/// Everything that an environment should hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// Name of the environment, for example `local`.
    pub environment: String,
    /// NATS servers by name.
    pub nodes: BTreeMap<String, Node>,
    /// JetStream streams by name.
    pub streams: BTreeMap<String, Stream>,
    /// JetStream key-value buckets by name.
    pub buckets: BTreeMap<String, Bucket>,
    /// Durable consumers by stream and name, for example `EVT_QUEST_SYSTEM/npc-behavior_quest-generated-v1`.
    #[serde(default)]
    pub consumers: BTreeMap<String, Consumer>,
    /// Services by name, the gateway among them.
    pub services: BTreeMap<String, Service>,
    /// Images that the registry must have, by service. None where binaries run as they are.
    #[serde(default)]
    pub images: BTreeMap<String, Image>,
    /// Identities on NATS that the platform keeps as secrets, by user: the services, and natsctl's own. None where there are no such
    /// secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub identities: BTreeMap<String, Identity>,
}

/// An identity on NATS that is kept as a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name of the secret.
    pub secret: String,
    /// Where its user connects to.
    pub url: String,
    /// Digest of the permissions of its user.
    pub permissions: String,
}

/// An image in a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// With its registry, for example `localhost:5000/bodybroker-services/quest-system-nats`.
    pub repository: String,
    /// Of the manifest: `sha256:…`.
    pub digest: String,
}

/// One NATS server, as far as a change of it matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Version of the server binary, for example `2.15.1`.
    pub version: String,
    /// SHA-256 of the configuration file.
    pub config: String,
    /// Digest of the accounts that it knows, which it takes over without a restart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub accounts: String,
}

/// A stream that keeps events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Sorted.
    pub subjects: Vec<String>,
    /// Copies of each message.
    pub replicas: usize,
    /// How long a message is kept, in seconds.
    pub max_age_seconds: u64,
    /// How long a message id is remembered, in seconds.
    pub duplicate_window_seconds: u64,
    /// Buckets from whose outboxes it takes events over.
    #[serde(default)]
    pub outboxes: BTreeSet<String>,
}

/// A key-value bucket. The stream behind it is `KV_<name>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Copies of each value.
    pub replicas: usize,
    /// Revisions kept of each key, 1 to 64.
    pub history: i64,
    /// How long a value is kept, in seconds; 0 for ever.
    pub ttl_seconds: u64,
    /// How long an event that was written with a value waits for its stream, in seconds; 0 if the bucket takes no events.
    #[serde(default)]
    pub outbox_seconds: u64,
}

impl Bucket {
    /// The subjects of the outbox of a bucket. None of them is that of a key.
    pub fn outbox_subjects(bucket: &str) -> String {
        format!("outbox.{bucket}.>")
    }
}

/// A durable pull consumer: the events of one kind that the tasks of a service share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// The service that natsctl made it for; `None` if somebody else made it.
    pub service: Option<String>,
    /// What it delivers. Sorted.
    pub subjects: Vec<String>,
    /// Where it begins, which only matters when it is made.
    pub start: ConsumerStart,
    /// Milliseconds after which a message is delivered again of whose task nothing was heard.
    pub ack_wait_ms: u64,
    /// How many messages may be delivered and not acknowledged.
    pub max_ack_pending: i64,
    /// How often a message is delivered; -1 as often as needed: services decide what becomes a dead letter.
    pub max_deliver: i64,
}

/// Where a new consumer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsumerStart {
    /// With all events that the stream has.
    #[default]
    All,
    /// With the events that are published from then on.
    New,
}

/// One service and how many tasks of it should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What a revision is made of.
    pub definition: Definition,
    /// How many tasks the manifest asks for.
    pub tasks: u32,
    /// Fewest and most tasks that `scale` and autoscaling may set.
    pub scaling: Scaling,
    /// Services that must be up first.
    pub calls: BTreeSet<String>,
    /// Streams that it publishes to or consumes.
    #[serde(default)]
    pub streams: BTreeSet<String>,
    /// Buckets that it keeps its state in.
    #[serde(default)]
    pub buckets: BTreeSet<String>,
    /// Consumers that its tasks share.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub consumers: BTreeSet<String>,
    /// What it is on ECS besides its tasks; `None` where there is no ECS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs: Option<EcsService>,
}

/// Bounds of the number of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// Fewest tasks.
    pub min: u32,
    /// Most tasks.
    pub max: u32,
}

/// What a revision of a service is made of: a difference in any field is a new revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// What runs: `sha256:…` of the binary or the image.
    pub artifact: String,
    /// Version that the service reports on the bus, for example `0.1.0+1f2e3d4c5b6a`.
    pub version: String,
    /// Whether it takes HTTP requests from clients on the environment's gateway port.
    pub role: Role,
    /// Digest of the permissions that its NATS user has.
    pub permissions: String,
    /// Environment variables from the manifest.
    pub environment: BTreeMap<String, String>,
    /// Environment variables whose values are secrets that the platform keeps by name. On ECS they are in `ecs`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// CPU units; 1024 are one core.
    pub cpu: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Worker threads per task.
    pub workers: u32,
    /// Requests that one worker handles at the same time.
    pub concurrency: u32,
    /// How to check whether a task is healthy.
    pub health: Health,
    /// How long a task may take to finish what it has started.
    #[serde(with = "crate::model::units::span")]
    pub stop_timeout: Duration,
    /// What its task definition says besides; `None` where there is no ECS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs: Option<EcsTask>,
}

/// Processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Intel and AMD.
    #[default]
    #[serde(rename = "x86_64")]
    X86_64,
    /// Graviton.
    Arm64,
}

impl Architecture {
    /// As Rust calls it (`target_arch`), and the first part of a target triple.
    pub fn target_arch(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// As the OCI image specification calls it (`GOARCH`).
    pub fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// A task gives up after this share of its stop timeout, so that it can say why before it is killed.
const GIVES_UP_AT_PERCENT: u128 = 90;

impl Definition {
    /// The environment variables of a task of this service: those of the manifest, and those that natsctl sets on every platform.
    pub fn task_environment(&self, service: &str) -> BTreeMap<String, String> {
        if self.role == Role::Standalone {
            return self.environment.clone();
        }
        let own = self.own_environment(service).map(|(name, value)| (name.to_owned(), value));
        self.environment.clone().into_iter().chain(own).collect()
    }

    /// The variables that natsctl sets for a task of this service.
    pub fn own_environment(&self, service: &str) -> [(&'static str, String); 5] {
        let gives_up = self.stop_timeout.as_millis() * GIVES_UP_AT_PERCENT / 100;
        [
            ("SERVICE_NAME", service.to_owned()),
            ("SERVICE_VERSION", self.version.clone()),
            ("WORKERS", self.workers.to_string()),
            ("CONCURRENCY", self.concurrency.to_string()),
            ("STOP_TIMEOUT_MS", gives_up.to_string()),
        ]
    }
}

/// What a service does for the outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Answers on NATS.
    #[default]
    Worker,
    /// Takes HTTP requests and calls every service.
    Gateway,
    /// Runs on ECS and takes no part in NATS: natsctl adds nothing to what its manifest says.
    Standalone,
}

/// When a task counts as failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Between two checks.
    #[serde(with = "crate::model::units::span")]
    pub interval: Duration,
    /// How long one check may take.
    #[serde(with = "crate::model::units::span")]
    pub timeout: Duration,
    /// This many failed checks in a row make a task unhealthy.
    pub retries: u32,
    /// A new task must be ready within this time.
    #[serde(with = "crate::model::units::span")]
    pub start_period: Duration,
}

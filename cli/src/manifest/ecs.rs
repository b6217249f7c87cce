//! What a service is on ECS where natsctl would make it otherwise. The words are those of ECS, in snake case: what they are written
//! to is what a task definition says.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{ContainerName, EcsName, Text, Variable};
use crate::model::secret::SecretReference;

/// What a service is on ECS where it differs from what natsctl makes of its own accord.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct EcsSettings {
    /// Family of its task definitions; as the handover says if absent.
    pub family: Option<EcsName>,
    /// ARN of the role of its tasks; the one that Terraform makes for it if absent.
    pub task_role: Option<String>,
    /// ARN of the role that starts its tasks; the one of the handover if absent.
    pub execution_role: Option<String>,
    /// Name of the container that is the service; the name of the service if absent.
    pub container_name: Option<ContainerName>,
    /// What the container of the service is besides.
    pub container: ContainerSettings,
    /// Containers beside it, by name.
    pub sidecars: BTreeMap<ContainerName, SidecarSettings>,
    /// Volumes of a task, by name.
    pub volumes: BTreeMap<ContainerName, VolumeSettings>,
    /// Tags of its task definitions, and of the service if natsctl creates it, besides natsctl's own.
    pub tags: BTreeMap<Text, String>,
    /// Storage that ends with a task.
    pub ephemeral_storage: Option<EphemeralStorage>,
    /// Where its tasks have their network interfaces; where the handover says, and without public addresses, if absent.
    pub network: NetworkSettings,
    /// Where its tasks get their capacity: shares by capacity provider, `FARGATE` or `FARGATE_SPOT`; `FARGATE` if absent.
    pub capacity_providers: BTreeMap<Text, CapacityShareSettings>,
    /// Version of Fargate; `LATEST` if absent.
    pub platform_version: Option<String>,
    /// Load balancers that reach its tasks. Those that are there are kept if absent.
    pub load_balancers: Vec<LoadBalancerSettings>,
    /// Seconds for which ECS ignores the health checks of a load balancer after a task has started.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub health_check_grace_period_seconds: Option<i32>,
    /// How ECS replaces tasks.
    pub deployment: DeploymentSettings,
    /// Whether ECS keeps its tasks spread over the zones; it does if absent.
    pub availability_zone_rebalancing: Option<bool>,
    /// Whether ECS tags its tasks with its name and the cluster's; it does if absent.
    pub enable_ecs_managed_tags: Option<bool>,
    /// Where its tasks have their tags from; `SERVICE` if absent.
    pub propagate_tags: Option<PropagateTags>,
    /// Whether natsctl sets what scales it, as `autoscaling` says; `false` leaves that alone.
    pub autoscaling: Option<bool>,
}

/// Where tasks have their network interfaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct NetworkSettings {
    /// Ids of subnets.
    pub subnets: Option<BTreeSet<String>>,
    /// Ids of security groups.
    pub security_groups: Option<BTreeSet<String>>,
    /// Whether tasks have public addresses.
    pub assign_public_ip: bool,
}

/// A part of a capacity provider strategy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct CapacityShareSettings {
    /// Share of the tasks, in proportion to the other weights.
    #[schemars(range(min = 0, max = 1000))]
    pub weight: i32,
    /// This many tasks at least; only one provider may have a base.
    #[schemars(range(min = 0, max = 100_000))]
    pub base: i32,
}

/// A load balancer that reaches tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LoadBalancerSettings {
    /// ARN of its target group.
    pub target_group: String,
    /// Name of the container; that of the service if absent.
    #[serde(default)]
    pub container: Option<ContainerName>,
    /// Port of the container.
    pub port: u16,
}

/// How ECS replaces tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct DeploymentSettings {
    /// Names of the CloudWatch alarms that fail a deployment; those that Terraform makes for the service if absent.
    pub alarms: Option<BTreeSet<String>>,
    /// Whether a deployment whose tasks do not start is stopped and goes back; it does if absent.
    pub circuit_breaker: Option<bool>,
    /// Fewest tasks during a deployment, in percent of those that should run; 100 if absent.
    #[schemars(range(min = 0, max = 100))]
    pub minimum_healthy_percent: Option<i32>,
    /// Most tasks during a deployment, in percent of those that should run; 200 if absent.
    #[schemars(range(min = 100, max = 200))]
    pub maximum_percent: Option<i32>,
}

/// Where tasks have their tags from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PropagateTags {
    /// From their service.
    Service,
    /// From their task definition.
    TaskDefinition,
    /// They have none.
    None,
}

/// A container beside the one that is the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all(serialize = "camelCase"))]
#[schemars(deny_unknown_fields)]
pub struct SidecarSettings {
    /// Its image, with a tag or a digest.
    pub image: String,
    /// Whether the task ends with it; it does if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub essential: Option<bool>,
    /// Environment variables.
    #[serde(default)]
    pub environment: BTreeMap<Variable, String>,
    /// Environment variables whose values are secrets.
    #[serde(default)]
    pub secrets: BTreeMap<Variable, SecretReference>,
    /// Seconds after which it is killed; 30 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 120))]
    pub stop_timeout: Option<i32>,
    /// All else.
    #[serde(flatten)]
    pub container: ContainerSettings,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)+ })+) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, rename_all(serialize = "camelCase"))]
        #[schemars(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])*
            #[serde(skip_serializing_if = "is_default")]
            pub $field: $type,)+
        })+
    };
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

words! {
    /// What a container is, in the words of a container definition.
    ContainerSettings {
        /// What it runs; as the image says if absent.
        command: Vec<String>,
        /// What its command is given to; as the image says if absent.
        entry_point: Vec<String>,
        /// The folder that it runs in.
        working_directory: Option<String>,
        /// The user that it runs as: `user`, `uid`, `user:group` or `uid:gid`.
        user: Option<String>,
        /// CPU units of those of the task.
        #[schemars(range(min = 0, max = 16_384))]
        cpu: Option<i32>,
        /// Most memory, in MiB.
        #[schemars(range(min = 6, max = 122_880))]
        memory: Option<i32>,
        /// Memory that is kept for it, in MiB.
        #[schemars(range(min = 6, max = 122_880))]
        memory_reservation: Option<i32>,
        /// Ports that it listens on.
        port_mappings: Vec<PortMapping>,
        /// How ECS checks its health.
        health_check: Option<HealthCheck>,
        /// Containers that must be so far before it starts.
        depends_on: Vec<ContainerDependency>,
        /// Volumes that it sees.
        mount_points: Vec<MountPoint>,
        /// Volumes of other containers that it sees.
        volumes_from: Vec<VolumeFrom>,
        /// Limits of its processes.
        ulimits: Vec<Ulimit>,
        /// What the kernel allows it.
        linux_parameters: Option<LinuxParameters>,
        /// Kernel parameters of its network namespace.
        system_controls: Vec<SystemControl>,
        /// Whether it can write nothing but its volumes.
        readonly_root_filesystem: Option<bool>,
        /// Whether it has a terminal.
        pseudo_terminal: bool,
        /// Whether its standard input is open.
        interactive: bool,
        /// Labels of the container.
        docker_labels: BTreeMap<Text, String>,
        /// Where it logs.
        log_configuration: Option<LogConfiguration>,
        /// That it routes the logs of others.
        firelens_configuration: Option<FirelensConfiguration>,
        /// The secret with which its image is pulled.
        repository_credentials: Option<RepositoryCredentials>,
        /// Files in S3 with environment variables.
        environment_files: Vec<EnvironmentFile>,
        /// Whether it is started again within its task.
        restart_policy: Option<RestartPolicy>,
        /// Seconds after which those that depend on it give up.
        #[schemars(range(min = 2, max = 120))]
        start_timeout: Option<i32>,
        /// Whether its tag is resolved to a digest when it is deployed: `enabled` or `disabled`.
        version_consistency: Option<String>,
    }

    /// A port that a container listens on.
    PortMapping {
        /// The port.
        container_port: Option<u16>,
        /// `tcp` or `udp`; `tcp` if absent.
        protocol: Option<String>,
        /// Name of the port, for Service Connect.
        name: Option<String>,
        /// `http`, `http2` or `grpc`, for Service Connect.
        app_protocol: Option<String>,
    }

    /// How ECS checks the health of a container. Of the service's own, how often and how long are in `health`.
    HealthCheck {
        /// `CMD` and a program with its arguments, or `CMD-SHELL` and a line for the shell.
        command: Vec<String>,
        /// Seconds between two checks of a sidecar; 30 if absent.
        #[schemars(range(min = 5, max = 300))]
        interval: Option<i32>,
        /// Seconds that a check of a sidecar may take; 5 if absent.
        #[schemars(range(min = 2, max = 60))]
        timeout: Option<i32>,
        /// This many failed checks of a sidecar in a row make it unhealthy; 3 if absent.
        #[schemars(range(min = 1, max = 10))]
        retries: Option<i32>,
        /// Seconds for which failed checks of a sidecar do not count; 0 if absent.
        #[schemars(range(min = 0, max = 300))]
        start_period: Option<i32>,
    }

    /// A container that must be so far before another one starts.
    ContainerDependency {
        /// Its name.
        container_name: String,
        /// `START`, `COMPLETE`, `SUCCESS` or `HEALTHY`.
        condition: String,
    }

    /// A volume that a container sees.
    MountPoint {
        /// Name of the volume.
        source_volume: Option<String>,
        /// Where the container sees it.
        container_path: Option<String>,
        /// Whether it cannot write there.
        read_only: bool,
    }

    /// The volumes of another container.
    VolumeFrom {
        /// Its name.
        source_container: String,
        /// Whether it cannot write there.
        read_only: bool,
    }

    /// A limit of processes.
    Ulimit {
        /// For example `nofile`.
        name: String,
        /// What a process has, and may raise.
        soft_limit: i32,
        /// How far it may raise it.
        hard_limit: i32,
    }

    /// What the kernel allows a container.
    LinuxParameters {
        /// Capabilities besides those of Docker, or without some of them.
        capabilities: Option<KernelCapabilities>,
        /// Whether an init process runs in it.
        init_process_enabled: bool,
        /// MiB of `/dev/shm`.
        #[schemars(range(min = 1, max = 122_880))]
        shared_memory_size: Option<i32>,
        /// Folders in memory.
        tmpfs: Vec<Tmpfs>,
    }

    /// Capabilities of the kernel.
    KernelCapabilities {
        /// That it has besides, for example `SYS_PTRACE`.
        add: Vec<String>,
        /// That it has not; `ALL` are all.
        drop: Vec<String>,
    }

    /// A folder in memory.
    Tmpfs {
        /// Where the container sees it.
        container_path: String,
        /// MiB.
        #[schemars(range(min = 1, max = 122_880))]
        size: i32,
        /// Options of the mount.
        mount_options: Vec<String>,
    }

    /// A kernel parameter.
    SystemControl {
        /// Its name.
        namespace: Option<String>,
        /// Its value.
        value: Option<String>,
    }

    /// Where a container logs.
    LogConfiguration {
        /// `awslogs`, `awsfirelens` or `splunk`.
        log_driver: String,
        /// Options of the driver.
        options: BTreeMap<Text, String>,
        /// Options of the driver that are secrets.
        secret_options: BTreeMap<Text, SecretReference>,
    }

    /// A container that routes the logs of others.
    FirelensConfiguration {
        /// `fluentd` or `fluentbit`.
        #[serde(rename = "type")]
        kind: String,
        /// Options of the router.
        options: BTreeMap<Text, String>,
    }

    /// The secret with which an image is pulled.
    RepositoryCredentials {
        /// ARN of the secret.
        credentials_parameter: String,
    }

    /// A file with environment variables.
    EnvironmentFile {
        /// ARN of the object in S3.
        value: String,
        /// `s3`.
        #[serde(rename = "type")]
        kind: String,
    }

    /// When a container is started again within its task.
    RestartPolicy {
        /// Whether it is.
        enabled: bool,
        /// Exit codes after which it is not.
        ignored_exit_codes: Vec<i32>,
        /// Seconds that it must have run for that.
        restart_attempt_period: Option<i32>,
    }

    /// A volume of a task; an empty one that ends with the task if nothing is said.
    VolumeSettings {
        /// A file system of EFS.
        efs_volume_configuration: Option<EfsVolume>,
        /// Whether the service says what it is when it is deployed.
        configured_at_launch: bool,
    }

    /// A file system of EFS.
    EfsVolume {
        /// Its id.
        file_system_id: String,
        /// The folder that is the volume; `/` if absent.
        root_directory: Option<String>,
        /// `ENABLED` or `DISABLED`; disabled if absent.
        transit_encryption: Option<String>,
        /// Port of the encrypted connection.
        transit_encryption_port: Option<u16>,
        /// How access is authorized.
        authorization_config: Option<EfsAuthorization>,
    }

    /// How access to a file system is authorized.
    EfsAuthorization {
        /// Id of the access point.
        access_point_id: Option<String>,
        /// `ENABLED` or `DISABLED`; disabled if absent.
        iam: Option<String>,
    }

    /// Storage that ends with a task.
    EphemeralStorage {
        /// GiB.
        #[serde(rename(serialize = "sizeInGiB"))]
        #[schemars(range(min = 21, max = 200))]
        size_in_gib: i32,
    }
}

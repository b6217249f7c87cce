//! The handover from Terraform to natsctl: one parameter of Systems Manager, the only thing that the two have in
//! common.

use std::collections::BTreeMap;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Hinted;
use crate::manifest::{AwsEnvironment, Manifests, ServiceManifest, schema_text};

/// The version of the handover that this natsctl reads.
pub const VERSION: u32 = 1;

/// Everything that natsctl must know of what Terraform has made. Nothing in it is per service: names are templates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Handover from Terraform to natsctl")]
pub struct Handover {
    /// 1; another version is refused.
    pub version: u32,
    /// As in `fleet.yaml`.
    pub project: String,
    /// Name of the environment's manifest.
    pub environment: String,
    /// 12 digits.
    #[schemars(regex(pattern = "^[0-9]{12}$"))]
    pub account: String,
    /// For example `us-east-1`.
    pub region: String,
    /// Name of the ECS cluster.
    pub cluster: String,
    /// Where tasks run.
    pub network: Network,
    /// ARN of the role that pulls images, reads secrets and writes logs.
    pub execution_role: String,
    /// Log group of all services.
    pub log_group: String,
    /// DynamoDB table of the lock, the journal and the records of deployments.
    pub ledger: String,
    /// ARN of the SNS topic for alarms.
    pub alerts_topic: String,
    /// Host of the registry.
    pub registry: String,
    /// How things of a service are called.
    pub names: Names,
    /// The NATS cluster.
    pub nats: Nats,
    /// The cache, if there is one.
    #[serde(default)]
    pub redis: Option<Redis>,
    /// Where HTTP clients come in, if there is a load balancer.
    #[serde(default)]
    pub gateway: Option<Gateway>,
}

/// Where tasks run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Id of the VPC.
    pub vpc: String,
    /// Ids of private subnets.
    #[schemars(length(min = 1))]
    pub subnets: Vec<String>,
    /// Ids of the security groups of tasks.
    #[schemars(length(min = 1))]
    pub security_groups: Vec<String>,
}

/// Templates: `{service}` is a manifest's name, `{ecs_name}` its name on ECS, `{kind}` of an alarm, `{name}` of a
/// secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// Repository without its registry, with `{ecs_name}`.
    pub repository: String,
    /// Family of task definitions, with `{ecs_name}`. All environments of an account share their families' numbers, so that
    /// each needs families of its own.
    #[serde(default = "task_family")]
    pub task_family: String,
    /// ARN of a task role, with `{service}`.
    pub task_role: String,
    /// Name of a secret that manifests name, with `{name}`.
    pub secret: String,
    /// Name of the secret with a service's identity on NATS, with `{service}`.
    pub nats_secret: String,
    /// Name of an alarm, with `{service}` and `{kind}`.
    pub alarm: String,
}

/// That of an environment alone in its account, which a handover of before this field is of.
fn task_family() -> String {
    "{ecs_name}".to_owned()
}

/// The NATS cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// Name that clients connect to.
    pub host: String,
    /// Port that clients connect to.
    pub port: u16,
    /// The servers by name.
    pub nodes: BTreeMap<String, Node>,
    /// ARN of the load balancer's target group.
    pub target_group: String,
    /// Name of the secret with natsctl's own identity on NATS.
    pub operator_secret: String,
}

/// One EC2 instance that runs NATS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Id of the instance.
    pub instance: String,
    /// Private address.
    pub address: String,
    /// Availability zone.
    pub zone: String,
}

/// The cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Configuration endpoint.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name of the secret with the credentials.
    pub auth_secret: String,
}

/// Where HTTP clients come in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// ARN of the load balancer's target group.
    pub target_group: String,
    /// For clients.
    pub url: String,
}

impl FromStr for Handover {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        // First the version alone: of another one nothing else is known.
        let parsed = serde_json::from_str::<serde_json::Value>(text);
        let value = parsed.map_err(|error| Hinted::new(format!("it is no JSON: {error}"), APPLY))?;
        match value["version"].as_u64() {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                let message = format!("it has version {version}, this natsctl reads version {VERSION}");
                return Err(
                    Hinted::new(message, "use the natsctl and the Terraform modules of the same release").into()
                );
            }
            None => return Err(Hinted::new("it has no `version`", APPLY).into()),
        }
        Ok(serde_json::from_value(value).map_err(|error| Hinted::new(error.to_string(), APPLY))?)
    }
}

const APPLY: &str = "Terraform writes it: `terraform apply` in the environment's folder, with this release's modules";

/// Name and contents of its JSON Schema, as a file under `manifests/schema/`.
pub fn schema() -> (&'static str, String) {
    ("handover.schema.json", schema_text::<Handover>())
}

/// The beginning of all names that are made of a template.
pub fn prefix(template: &str) -> &str {
    template.split('{').next().unwrap_or_default()
}

impl Handover {
    /// Whether it is of this environment.
    ///
    /// # Errors
    /// What differs.
    pub fn fits(&self, manifests: &Manifests, described: &AwsEnvironment, account: &str) -> anyhow::Result<()> {
        for (what, here, there) in [
            ("project", &*manifests.project.project, &self.project),
            ("environment", &*manifests.name, &self.environment),
            ("account", account, &self.account),
            ("region", &*described.region, &self.region),
        ] {
            if here != there {
                let message = format!("the handover `{}` is of {what} `{there}`, not `{here}`", described.handover);
                let hint = format!("see `handover` and `region` in `environments/{}.yaml`", manifests.name);
                return Err(Hinted::new(message, hint).into());
            }
        }
        Ok(())
    }

    /// What ARNs begin with after `arn:`; another one in China and for governments.
    pub fn partition(&self) -> &str {
        self.execution_role.split(':').nth(1).unwrap_or("aws")
    }

    /// Repository of a service, without the registry.
    pub fn repository(&self, service: &ServiceManifest) -> String {
        self.names.repository.replace("{ecs_name}", &service.ecs_name()).replace("{service}", &service.name)
    }

    /// Family of a service's task definitions: the one that its manifest names, or that of the template.
    pub fn task_family(&self, service: &ServiceManifest) -> String {
        if let Some(family) = &service.ecs.family {
            return family.to_string();
        }
        self.names.task_family.replace("{ecs_name}", &service.ecs_name()).replace("{service}", &service.name)
    }

    /// ARN of a service's task role.
    pub fn task_role(&self, service: &str) -> String {
        self.names.task_role.replace("{service}", service)
    }

    /// Name of a secret that a manifest names.
    pub fn secret(&self, name: &str) -> String {
        self.names.secret.replace("{name}", name)
    }

    /// Name of the secret with a service's identity on NATS.
    pub fn nats_secret(&self, service: &str) -> String {
        self.names.nats_secret.replace("{service}", service)
    }

    /// Names of the alarms that roll a deployment of a service back.
    pub fn alarms(&self, service: &str) -> impl Iterator<Item = String> {
        self.alarms_of(service, &ALARMS)
    }

    /// Names of all alarms of a service.
    pub fn all_alarms(&self, service: &str) -> impl Iterator<Item = String> {
        self.alarms(service).chain(self.alarms_of(service, &OTHER_ALARMS))
    }

    fn alarms_of(&self, service: &str, kinds: &'static [&str]) -> impl Iterator<Item = String> {
        let template = self.names.alarm.replace("{service}", service);
        kinds.iter().map(move |kind| template.replace("{kind}", kind))
    }
}

/// What a service is watched for, while it is deployed too.
const ALARMS: [&str; 3] = ["cpu", "memory", "tasks"];
/// What it is watched for besides. An open circuit is no fault of the service that calls.
const OTHER_ALARMS: [&str; 1] = ["circuit"];

#[cfg(test)]
pub(crate) mod tests;

//! The ECS services of the cluster, as ECS describes them.

mod owned;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ecs::types::{
    AssignPublicIp, CapacityProviderStrategyItem, Deployment as SdkDeployment, DeploymentControllerType,
    DeploymentRolloutState, Failure, Service as SdkService, ServiceField,
};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

pub(super) use self::owned::{ByManifest, of_manifests, refuse_elsewhere, sorted};
use super::AT_ONCE;
use super::arn::short;
use super::clients::Cluster;
use super::error::failed;
use super::tasks::time;

/// What DescribeServices takes at once.
const SERVICES_PER_CALL: usize = 10;
/// Reason of ECS why it does not describe a service that does not exist.
const MISSING: &str = "MISSING";

/// An ECS service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Service {
    /// Its name on ECS.
    pub(crate) name: String,
    /// `ACTIVE` or `DRAINING`.
    pub(crate) status: String,
    /// ARN of the task definition that it should run.
    pub(crate) task_definition: String,
    pub(crate) desired_count: u32,
    /// Running tasks of all its deployments.
    pub(crate) running_count: u32,
    /// The deployment that it should be at, and those that it moves away from.
    pub(crate) deployments: Vec<Deployment>,
    /// The newest first; ECS keeps the last hundred.
    pub(crate) events: Vec<ServiceEvent>,
    pub(crate) placement: Placement,
    /// Whether ECS Exec is enabled for its tasks.
    pub(crate) execute_command: bool,
    /// What deploys it, if not ECS itself: `CODE_DEPLOY` or `EXTERNAL`.
    pub(crate) other_controller: Option<String>,
    pub(crate) has_load_balancers: bool,
    /// Whether AWS Cloud Map registers its tasks.
    pub(crate) has_service_registries: bool,
}

/// A deployment of an ECS service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Deployment {
    pub(crate) is_primary: bool,
    /// ARN.
    pub(crate) task_definition: String,
    pub(crate) running_count: u32,
    /// Tasks that failed to start or exited in a row.
    pub(crate) failed_tasks: u32,
    /// `None` if a controller other than ECS deploys the service.
    pub(crate) rollout: Option<RolloutState>,
    pub(crate) rollout_reason: Option<String>,
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RolloutState {
    Completed,
    Failed,
    InProgress,
}

/// A service event: ECS reports placements, health checks and deployments so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceEvent {
    pub(crate) id: String,
    pub(crate) time: Option<Timestamp>,
    /// Without the name of the service, with which ECS begins it.
    pub(crate) message: String,
}

/// Where the tasks of a service run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Placement {
    /// `None` if its tasks have no network interfaces of their own.
    pub(crate) network: Option<Network>,
    /// `EC2`, `EXTERNAL` or `FARGATE`; `None` if capacity providers decide.
    pub(crate) launch_type: Option<String>,
    pub(crate) capacity_providers: Vec<CapacityProvider>,
    /// Version of Fargate.
    pub(crate) platform_version: Option<String>,
}

/// The network interfaces of tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Network {
    pub(crate) subnets: Vec<String>,
    pub(crate) security_groups: Vec<String>,
    pub(crate) public_ip: bool,
}

/// A part of a capacity provider strategy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CapacityProvider {
    pub(crate) name: String,
    pub(crate) weight: i32,
    pub(crate) base: i32,
}

/// These services by their names on ECS, with all that ECS says of them; those that do not exist are left out.
pub(super) async fn describe_all_fields(
    cluster: Cluster<'_>,
    names: &[String],
) -> anyhow::Result<BTreeMap<String, SdkService>> {
    let calls = names.chunks(SERVICES_PER_CALL).map(|names| async {
        let call = cluster.ecs.describe_services().cluster(cluster.name).include(ServiceField::Tags);
        let answer = call.set_services(Some(names.to_vec())).send().await;
        let answer =
            answer.map_err(|error| failed(&format!("describe the services of cluster `{}`", cluster.name), error))?;
        refuse_unread(answer.failures())?;
        Ok::<_, anyhow::Error>(answer.services.unwrap_or_default())
    });
    let pages: Vec<Vec<SdkService>> = futures::stream::iter(calls).buffered(AT_ONCE).try_collect().await?;
    let exists = |service: &SdkService| service.status() != Some("INACTIVE");
    let named = |service: SdkService| (service.service_name().unwrap_or_default().to_owned(), service);
    Ok(pages.into_iter().flatten().filter(exists).map(named).collect())
}

/// A service that could not be described is not one that does not exist.
///
/// # Errors
/// Any reason but that the service is missing.
fn refuse_unread(failures: &[Failure]) -> anyhow::Result<()> {
    let Some(unread) = failures.iter().find(|failure| failure.reason() != Some(MISSING)) else { return Ok(()) };
    let (service, reason) = (short(unread.arn().unwrap_or_default()), unread.reason().unwrap_or("no reason given"));
    anyhow::bail!("failed to describe the service `{service}`: {reason}")
}

/// The services of the cluster by their names on ECS. ECS does not list services that are being deleted: they are only described if
/// they are in `named`.
pub(super) async fn list(
    cluster: Cluster<'_>,
    named: BTreeSet<String>,
) -> anyhow::Result<BTreeMap<String, SdkService>> {
    let pages = cluster.ecs.list_services().cluster(cluster.name).max_results(100).into_paginator();
    let mut listed = pages.items().send();
    let mut names = named;
    while let Some(arn) = listed.next().await {
        let failed = |error| failed(&format!("list the services of cluster `{}`", cluster.name), error);
        names.insert(short(&arn.map_err(failed)?).to_owned());
    }
    describe_all_fields(cluster, &names.into_iter().collect::<Vec<_>>()).await
}

/// The deployment that a service is at, or is on its way to.
pub(super) fn primary(service: &SdkService) -> Option<&SdkDeployment> {
    service.deployments().iter().find(|deployment| deployment.status() == Some("PRIMARY"))
}

/// The same services, as natsctl has them.
pub(super) fn converted(services: BTreeMap<String, SdkService>) -> BTreeMap<String, Service> {
    services.into_iter().map(|(name, service)| (name, Service::from(service))).collect()
}

impl Service {
    /// The deployment that the service is at, or is on its way to.
    pub(crate) fn primary(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.is_primary)
    }
}

impl RolloutState {
    /// As status reports have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
        }
    }
}

impl From<SdkService> for Service {
    fn from(service: SdkService) -> Self {
        let controller = service.deployment_controller().map(|controller| controller.r#type());
        let other = controller.filter(|controller| **controller != DeploymentControllerType::Ecs);
        Self {
            status: service.status().unwrap_or("ACTIVE").to_owned(),
            task_definition: service.task_definition().unwrap_or_default().to_owned(),
            desired_count: count(service.desired_count()),
            running_count: count(service.running_count()),
            deployments: service.deployments().iter().map(Deployment::from).collect(),
            events: events(&service),
            placement: Placement::from(&service),
            execute_command: service.enable_execute_command(),
            other_controller: other.map(|controller| controller.as_str().to_owned()),
            has_load_balancers: !service.load_balancers().is_empty(),
            has_service_registries: !service.service_registries().is_empty(),
            name: service.service_name.unwrap_or_default(),
        }
    }
}

impl From<&SdkDeployment> for Deployment {
    fn from(deployment: &SdkDeployment) -> Self {
        let rollout = match deployment.rollout_state() {
            Some(DeploymentRolloutState::Completed) => Some(RolloutState::Completed),
            Some(DeploymentRolloutState::Failed) => Some(RolloutState::Failed),
            Some(DeploymentRolloutState::InProgress) => Some(RolloutState::InProgress),
            _ => None,
        };
        Self {
            is_primary: deployment.status() == Some("PRIMARY"),
            task_definition: deployment.task_definition().unwrap_or_default().to_owned(),
            running_count: count(deployment.running_count()),
            failed_tasks: count(deployment.failed_tasks()),
            rollout,
            rollout_reason: deployment.rollout_state_reason().map(str::to_owned),
        }
    }
}

impl From<&SdkService> for Placement {
    fn from(service: &SdkService) -> Self {
        let network = service.network_configuration().and_then(|network| network.awsvpc_configuration());
        let provider = |item: &CapacityProviderStrategyItem| CapacityProvider {
            name: item.capacity_provider().to_owned(),
            weight: item.weight(),
            base: item.base(),
        };
        Self {
            network: network.map(|network| Network {
                subnets: network.subnets().to_vec(),
                security_groups: network.security_groups().to_vec(),
                public_ip: network.assign_public_ip() == Some(&AssignPublicIp::Enabled),
            }),
            launch_type: service.launch_type().map(|launch| launch.as_str().to_owned()),
            capacity_providers: service.capacity_provider_strategy().iter().map(provider).collect(),
            platform_version: service.platform_version().map(str::to_owned),
        }
    }
}

fn events(service: &SdkService) -> Vec<ServiceEvent> {
    let prefix = format!("(service {}) ", service.service_name().unwrap_or_default());
    let event = |event: &aws_sdk_ecs::types::ServiceEvent| {
        let message = event.message().unwrap_or_default();
        ServiceEvent {
            id: event.id().unwrap_or_default().to_owned(),
            time: event.created_at().and_then(time),
            message: message.strip_prefix(&prefix).unwrap_or(message).to_owned(),
        }
    };
    service.events().iter().map(event).collect()
}

/// ECS counts no fewer than none, though its type could.
fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_service_does_not_exist() {
        let failure = |reason: &str| Failure::builder().arn("arn:x:service/cluster/quest-nats").reason(reason).build();
        refuse_unread(&[]).unwrap();
        refuse_unread(&[failure("MISSING")]).unwrap();
        let refused = refuse_unread(&[failure("MISSING"), failure("ACCESS_DENIED")]).unwrap_err();
        assert_eq!(refused.to_string(), "failed to describe the service `quest-nats`: ACCESS_DENIED");
    }
}

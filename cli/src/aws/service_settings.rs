//! What an ECS service is besides its tasks, as ECS describes it and as a plan compares it. Pure. What natsctl has no field for is
//! kept as it is, and named.

use std::collections::BTreeMap;

use anyhow::Context as _;
use aws_sdk_ecs::types::{
    AssignPublicIp, AvailabilityZoneRebalancing, CapacityProviderStrategyItem, DeploymentConfiguration, LaunchType,
    LoadBalancer, Service,
};
use serde_json::{Value, json};

use super::api::{from_json, to_json};
use super::services::primary;
use super::task_definition::document::{Object, canonical, merge};
use crate::model::ecs::{CapacityShare, EcsService, LoadBalanced};

/// The capacity provider that is the launch type of this name, too.
pub(super) const FARGATE: &str = "FARGATE";
/// The version of Fargate that ECS takes if none is said.
pub(super) const LATEST: &str = "LATEST";
/// Tasks have the tags of their service.
pub(super) const PROPAGATE_TAGS: &str = "SERVICE";

/// Fields of a service that say how it is, or that `EcsService` has.
const READ: &[&str] = &[
    "serviceArn",
    "serviceName",
    "clusterArn",
    "status",
    "desiredCount",
    "runningCount",
    "pendingCount",
    "launchType",
    "capacityProviderStrategy",
    "platformVersion",
    "platformFamily",
    "taskDefinition",
    "deploymentConfiguration",
    "taskSets",
    "deployments",
    "roleArn",
    "events",
    "createdAt",
    "createdBy",
    "currentServiceDeployment",
    "currentServiceRevisions",
    "networkConfiguration",
    "schedulingStrategy",
    "deploymentController",
    "tags",
    "enableECSManagedTags",
    "propagateTags",
    "enableExecuteCommand",
    "availabilityZoneRebalancing",
    "resourceManagementType",
    "loadBalancers",
    "healthCheckGracePeriodSeconds",
];
/// What a service is, and its deployment says.
const SAID_BY_DEPLOYMENT: &[&str] =
    &["serviceConnectConfiguration", "volumeConfigurations", "vpcLatticeConfigurations", "fargateEphemeralStorage"];

/// A service as a plan compares it, and what a deployment leaves as it is.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) settings: EcsService,
    pub(super) kept: BTreeMap<String, Value>,
}

/// What ECS says of a service. `wanted` is what it should be, if that is known: load balancers that it does not name are kept.
///
/// # Errors
/// It cannot be read.
pub(super) fn seen(service: &Service, wanted: Option<&EcsService>) -> anyhow::Result<Seen> {
    let mut settings = settings(service)?;
    let mut kept = Object::new();
    for (field, value) in canonical(to_json(service)?) {
        if !READ.contains(&&*field) {
            kept.insert(field, value);
        }
    }
    let deployment = primary(service).map(to_json).transpose()?.map(canonical).unwrap_or_default();
    kept.extend(deployment.into_iter().filter(|(field, _)| SAID_BY_DEPLOYMENT.contains(&&**field)));
    if let Some(wanted) = wanted {
        if wanted.load_balancers.is_empty() && !settings.load_balancers.is_empty() {
            kept.insert("loadBalancers".to_owned(), json!(std::mem::take(&mut settings.load_balancers)));
        }
        if let (None, Some(seconds)) = (wanted.grace_period_seconds, settings.grace_period_seconds) {
            kept.insert("healthCheckGracePeriodSeconds".to_owned(), seconds.into());
            settings.grace_period_seconds = None;
        }
    }
    Ok(Seen { settings, kept: kept.into_iter().collect() })
}

fn settings(service: &Service) -> anyhow::Result<EcsService> {
    let network = service.network_configuration().and_then(|network| network.awsvpc_configuration());
    let deployment = service.deployment_configuration();
    let alarms =
        deployment.and_then(|deployment| deployment.alarms()).filter(|alarms| alarms.enable() && alarms.rollback());
    let breaker = deployment.and_then(|deployment| deployment.deployment_circuit_breaker());
    let platform_version = service.platform_version().filter(|version| !version.is_empty());
    let balanced = |one: &LoadBalancer| {
        let target = one.target_group_arn().or(one.load_balancer_name()).unwrap_or_default().to_owned();
        let container = one.container_name().unwrap_or_default().to_owned();
        (target, LoadBalanced { container, port: one.container_port().unwrap_or_default() })
    };
    Ok(EcsService {
        name: service.service_name().unwrap_or_default().to_owned(),
        subnets: network.map(|network| network.subnets().iter().cloned().collect()).unwrap_or_default(),
        security_groups: network.map(|network| network.security_groups().iter().cloned().collect()).unwrap_or_default(),
        alarms: alarms.map(|alarms| alarms.alarm_names().iter().cloned().collect()).unwrap_or_default(),
        circuit_breaker: breaker.is_some_and(|breaker| breaker.enable() && breaker.rollback()),
        minimum_healthy_percent: deployment.and_then(|deployment| deployment.minimum_healthy_percent()).unwrap_or(100),
        maximum_percent: deployment.and_then(|deployment| deployment.maximum_percent()).unwrap_or(200),
        zone_rebalancing: service.availability_zone_rebalancing() == Some(&AvailabilityZoneRebalancing::Enabled),
        execute_command: service.enable_execute_command(),
        assign_public_ip: network.and_then(|network| network.assign_public_ip()) == Some(&AssignPublicIp::Enabled),
        capacity_providers: capacity_providers(service.launch_type(), service.capacity_provider_strategy()),
        platform_version: platform_version.unwrap_or(LATEST).to_owned(),
        managed_tags: service.enable_ecs_managed_tags(),
        propagate_tags: service.propagate_tags().map_or("NONE", |tags| tags.as_str()).to_owned(),
        load_balancers: service.load_balancers().iter().map(balanced).collect(),
        grace_period_seconds: service.health_check_grace_period_seconds().filter(|seconds| *seconds != 0),
        deployment: deployment.map(rest_of_deployment).transpose()?.unwrap_or_default(),
        autoscaling: None,
    })
}

fn capacity_providers(
    launch_type: Option<&LaunchType>,
    strategy: &[CapacityProviderStrategyItem],
) -> BTreeMap<String, CapacityShare> {
    match strategy {
        [] => [(launch_type.map_or(FARGATE, |launch_type| launch_type.as_str()).to_owned(), alone())].into(),
        [only] if only.capacity_provider() == FARGATE => fargate(),
        items => items
            .iter()
            .map(|item| {
                (item.capacity_provider().to_owned(), CapacityShare { weight: item.weight(), base: item.base() })
            })
            .collect(),
    }
}

/// All tasks on Fargate.
pub(super) fn fargate() -> BTreeMap<String, CapacityShare> {
    [(FARGATE.to_owned(), alone())].into()
}

fn alone() -> CapacityShare {
    CapacityShare { weight: 1, base: 0 }
}

/// How ECS replaces tasks, as far as `EcsService` has no field for it.
fn rest_of_deployment(deployment: &DeploymentConfiguration) -> anyhow::Result<Object> {
    let mut rest = canonical(to_json(deployment)?);
    rest.remove("minimumHealthyPercent");
    rest.remove("maximumPercent");
    let is_usual = |field: &str, usual: &Value| rest.get(field) == Some(usual);
    let usual: Vec<&str> = [("strategy", json!("ROLLING")), ("bakeTimeInMinutes", json!(0))]
        .iter()
        .filter(|(field, usual)| is_usual(field, usual))
        .map(|(field, _)| *field)
        .collect();
    for field in usual {
        rest.remove(field);
    }
    for field in ["alarms", "deploymentCircuitBreaker"] {
        let Some(Value::Object(one)) = rest.get_mut(field) else { continue };
        let (enable, rollback) = (one.get("enable").cloned(), one.get("rollback").cloned());
        // Those that stop a deployment and do not roll it back are neither on nor off.
        if enable.is_none() || rollback.is_some() {
            for said in ["enable", "rollback", "alarmNames"] {
                one.remove(said);
            }
        }
        if one.is_empty() {
            rest.remove(field);
        }
    }
    Ok(rest)
}

/// How ECS should replace tasks.
///
/// # Errors
/// The API has no form for it.
pub(super) fn deployment(ecs: &EcsService) -> anyhow::Result<DeploymentConfiguration> {
    let watched = !ecs.alarms.is_empty();
    let said = json!({
        "deploymentCircuitBreaker": { "enable": ecs.circuit_breaker, "rollback": ecs.circuit_breaker },
        "alarms": { "alarmNames": ecs.alarms, "enable": watched, "rollback": watched },
        "minimumHealthyPercent": ecs.minimum_healthy_percent,
        "maximumPercent": ecs.maximum_percent,
        "strategy": "ROLLING",
    });
    let mut said = said.as_object().cloned().unwrap_or_default();
    merge(&mut said, ecs.deployment.clone());
    from_json(&said.into(), DeploymentConfiguration::deserialize)
        .with_context(|| format!("`{}` has no form as a service of ECS", ecs.name))
}

#[cfg(test)]
mod tests;

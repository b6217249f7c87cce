//! What manifests say under `ecs`, as the document of a task definition and as a service. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::aws::service_settings::fargate;
use crate::aws::task_definition::document::{Object, canonical, merge, spoken};
use crate::aws::task_definition::take_log;
use crate::manifest::ServiceManifest;
use crate::manifest::ecs::{ContainerSettings, EcsSettings, PropagateTags, SidecarSettings};
use crate::model::desired::Role;
use crate::model::ecs::{CapacityShare, EcsService, EcsTask, LoadBalanced};
use crate::model::secret::SecretReference;

/// Fields of the health check of a service's own container that `health` says.
const SAID_BY_HEALTH: [&str; 4] = ["interval", "timeout", "retries", "startPeriod"];

/// Puts what a manifest says over a task that natsctl would make. `resolved` gives a reference with the ARN of its secret.
pub(super) fn over_task(
    service: &ServiceManifest,
    mut task: EcsTask,
    resolved: impl Fn(&SecretReference) -> SecretReference,
) -> EcsTask {
    let ecs = &service.ecs;
    task.container = service.container_name().to_owned();
    if service.role == Role::Standalone && service.aws.is_empty() {
        task.task_role = String::new();
    }
    for (said, own) in [(&ecs.task_role, &mut task.task_role), (&ecs.execution_role, &mut task.execution_role)] {
        if let Some(said) = said {
            own.clone_from(said);
        }
    }
    let own = own_container(ecs, &resolved);
    let says = |path: &str| own.get(path).is_some();
    if let Some(Value::Object(there)) =
        task.document.get_mut("containerDefinitions").and_then(|all| all.get_mut(&task.container))
    {
        if says("logConfiguration") {
            there.remove("logConfiguration");
        }
        if ecs.container.readonly_root_filesystem == Some(false) {
            there.remove("readonlyRootFilesystem");
        }
    }
    let mut containers = Object::from_iter([(task.container.clone(), own.into())]);
    containers.extend(ecs.sidecars.iter().map(|(name, sidecar)| (name.to_string(), of_sidecar(sidecar, &resolved))));
    let said = json!({
        "containerDefinitions": containers,
        "volumes": ecs.volumes.iter().map(|(name, volume)| (name.to_string(), json!(volume))).collect::<Object>(),
        "ephemeralStorage": ecs.ephemeral_storage,
        "tags": ecs.tags,
    });
    if let Value::Object(said) = said {
        // As lists, whose elements have defaults of their own.
        merge(&mut task.document, canonical(spoken(said)));
    }
    if ecs.container.log_configuration.is_some() || service.role == Role::Standalone {
        (task.log_group, task.log_prefix, task.region) = take_log(&mut task);
    }
    task
}

fn own_container(ecs: &EcsSettings, resolved: &impl Fn(&SecretReference) -> SecretReference) -> Object {
    let mut container = of_container(&ecs.container, resolved);
    if let Some(Value::Object(health)) = container.get_mut("healthCheck") {
        for field in SAID_BY_HEALTH {
            health.remove(field);
        }
    }
    container
}

fn of_container(container: &ContainerSettings, resolved: &impl Fn(&SecretReference) -> SecretReference) -> Object {
    let mut said = match json!(container) {
        Value::Object(said) => said,
        _ => Object::new(),
    };
    let secrets = container.log_configuration.iter().flat_map(|log| &log.secret_options);
    let secrets: Object = secrets.map(|(name, from)| (name.to_string(), resolved(from).value_from().into())).collect();
    if let Some(Value::Object(log)) = said.get_mut("logConfiguration") {
        log.insert("secretOptions".to_owned(), secrets.into());
    }
    said
}

fn of_sidecar(sidecar: &SidecarSettings, resolved: &impl Fn(&SecretReference) -> SecretReference) -> Value {
    let mut said = of_container(&sidecar.container, resolved);
    let secrets = sidecar.secrets.iter().map(|(name, from)| (name.to_string(), resolved(from).value_from().into()));
    let own = json!({
        "image": sidecar.image,
        "essential": sidecar.essential,
        "environment": sidecar.environment,
        "secrets": secrets.collect::<Object>(),
        "stopTimeout": sidecar.stop_timeout,
    });
    if let Value::Object(own) = own {
        said.extend(own);
    }
    said.into()
}

/// Puts what a manifest says over a service that natsctl would make.
pub(super) fn over_service(service: &ServiceManifest, made: EcsService) -> EcsService {
    let ecs = &service.ecs;
    let balanced = ecs.load_balancers.iter().map(|balancer| {
        let container = balancer.container.as_deref().unwrap_or(service.container_name()).to_owned();
        (balancer.target_group.clone(), LoadBalanced { container, port: balancer.port.into() })
    });
    let shares = ecs.capacity_providers.iter();
    let shares: BTreeMap<String, CapacityShare> = shares
        .map(|(name, share)| (name.to_string(), CapacityShare { weight: share.weight, base: share.base }))
        .collect();
    let tags = ecs.propagate_tags.map(|tags| match tags {
        PropagateTags::Service => "SERVICE",
        PropagateTags::TaskDefinition => "TASK_DEFINITION",
        PropagateTags::None => "NONE",
    });
    let is_alone = shares.len() == 1 && shares.contains_key(crate::aws::service_settings::FARGATE);
    EcsService {
        subnets: ecs.network.subnets.clone().unwrap_or(made.subnets),
        security_groups: ecs.network.security_groups.clone().unwrap_or(made.security_groups),
        assign_public_ip: ecs.network.assign_public_ip,
        alarms: ecs.deployment.alarms.clone().unwrap_or(made.alarms),
        circuit_breaker: ecs.deployment.circuit_breaker.unwrap_or(made.circuit_breaker),
        minimum_healthy_percent: ecs.deployment.minimum_healthy_percent.unwrap_or(made.minimum_healthy_percent),
        maximum_percent: ecs.deployment.maximum_percent.unwrap_or(made.maximum_percent),
        zone_rebalancing: ecs.availability_zone_rebalancing.unwrap_or(made.zone_rebalancing),
        capacity_providers: if shares.is_empty() || is_alone { fargate() } else { shares },
        platform_version: ecs.platform_version.clone().unwrap_or(made.platform_version),
        managed_tags: ecs.enable_ecs_managed_tags.unwrap_or(made.managed_tags),
        propagate_tags: tags.map_or(made.propagate_tags, str::to_owned),
        load_balancers: if ecs.load_balancers.is_empty() { made.load_balancers } else { balanced.collect() },
        grace_period_seconds: ecs.health_check_grace_period_seconds.or(made.grace_period_seconds),
        autoscaling: made.autoscaling.filter(|_| ecs.autoscaling != Some(false)),
        ..made
    }
}

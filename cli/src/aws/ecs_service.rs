//! The calls of ECS that create, update and delete services.

use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_ecs::error::BuildError;
use aws_sdk_ecs::operation::update_service::builders::UpdateServiceInputBuilder;
use aws_sdk_ecs::types::{
    AssignPublicIp, AvailabilityZoneRebalancing, AwsVpcConfiguration, CapacityProviderStrategyItem, LaunchType,
    LoadBalancer, NetworkConfiguration, PropagateTags, Service as SdkService, Tag,
};

use super::clients::Cluster;
use super::error::failed;
use super::service_settings::{deployment, fargate};
use super::{autoscaling, services};
use crate::model::ecs::EcsService;
use crate::model::observed::ServiceState;

/// Between two descriptions of a service whose tasks stop.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What a service is created with, or updated to.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// The manifest's name.
    pub(super) name: &'a str,
    pub(super) ecs: &'a EcsService,
    /// ARN.
    pub(super) task_definition: &'a str,
    pub(super) tasks: u32,
}

/// An update of one property of a service.
#[derive(Clone, Debug)]
pub(super) enum Adjustment {
    /// ARN of another task definition.
    TaskDefinition(String),
    /// Another number of tasks.
    Tasks(u32),
    /// New tasks, although nothing differs.
    NewDeployment,
}

/// Creates a service.
pub(super) async fn create(cluster: Cluster<'_>, tags: Vec<Tag>, target: Target<'_>) -> anyhow::Result<SdkService> {
    let Target { name, ecs, task_definition, tasks } = target;
    let call = cluster
        .ecs
        .create_service()
        .cluster(cluster.name)
        .service_name(&ecs.name)
        .task_definition(task_definition)
        .desired_count(count(tasks))
        .set_launch_type(on_fargate(ecs).then_some(LaunchType::Fargate))
        .set_capacity_provider_strategy((!on_fargate(ecs)).then(|| strategy(ecs)).transpose()?)
        .platform_version(&ecs.platform_version)
        .network_configuration(network(&ecs.subnets, &ecs.security_groups, public_ip(ecs))?)
        .deployment_configuration(deployment(ecs)?)
        .availability_zone_rebalancing(rebalancing(ecs))
        .enable_execute_command(ecs.execute_command)
        .enable_ecs_managed_tags(ecs.managed_tags)
        .propagate_tags(PropagateTags::from(&*ecs.propagate_tags))
        .set_load_balancers((!ecs.load_balancers.is_empty()).then(|| load_balancers(ecs)))
        .set_health_check_grace_period_seconds(ecs.grace_period_seconds)
        .set_tags(Some(tags))
        // A call that is repeated creates no second service.
        .client_token(token(&[cluster.name, &ecs.name, task_definition]));
    let answer = call.send().await.map_err(|error| failed(&format!("create the service `{name}`"), error))?;
    answer.service.with_context(|| format!("ECS says nothing of the service `{name}` that it has created"))
}

/// Updates a service, unless it is at its target already. One whose deployment has failed is always updated.
pub(super) async fn update(
    cluster: Cluster<'_>,
    target: Target<'_>,
    before: &ServiceState,
    force_new_deployment: bool,
) -> anyhow::Result<SdkService> {
    let Target { name, ecs, task_definition, tasks } = target;
    if target.is_met_by(before) && !before.failed {
        // A deployment is on its way to it, or only its scaling differs.
        let mut services = services::describe_all_fields(cluster, std::slice::from_ref(&ecs.name)).await?;
        return services.remove(&ecs.name).with_context(|| format!("the service `{name}` was deleted meanwhile"));
    }
    // What is not sent stays as it is. Load balancers that the manifest does not name are not in `before`, and stay.
    let differs =
        |is_same: fn(&EcsService, &EcsService) -> bool| before.ecs.as_ref().is_none_or(|before| !is_same(before, ecs));
    let moves = differs(|before, after| before.capacity_providers == after.capacity_providers);
    let other_version = differs(|before, after| before.platform_version == after.platform_version);
    let other_balancers = differs(|before, after| before.load_balancers == after.load_balancers);
    let call = cluster
        .ecs
        .update_service()
        .cluster(cluster.name)
        .service(&ecs.name)
        .task_definition(task_definition)
        // The number that autoscaling has set stays, unless the plan has another one.
        .set_desired_count((before.desired != tasks).then(|| count(tasks)))
        .set_capacity_provider_strategy(moves.then(|| strategy(ecs)).transpose()?)
        .set_platform_version(other_version.then(|| ecs.platform_version.clone()))
        .network_configuration(network(&ecs.subnets, &ecs.security_groups, public_ip(ecs))?)
        .deployment_configuration(deployment(ecs)?)
        .availability_zone_rebalancing(rebalancing(ecs))
        .enable_execute_command(ecs.execute_command)
        .enable_ecs_managed_tags(ecs.managed_tags)
        .propagate_tags(PropagateTags::from(&*ecs.propagate_tags))
        .set_load_balancers(other_balancers.then(|| load_balancers(ecs)))
        .set_health_check_grace_period_seconds(ecs.grace_period_seconds)
        // ECS moves tasks to other capacity only with a new deployment.
        .force_new_deployment(force_new_deployment || moves);
    let answer = call.send().await.map_err(|error| failed(&format!("update the service `{name}`"), error))?;
    answer.service.with_context(|| format!("ECS says nothing of the service `{name}` that it has updated"))
}

/// Updates one property of a service, as `restart`, `scale` and a rollback do.
pub(super) async fn adjust(
    cluster: Cluster<'_>,
    name: &str,
    ecs_name: &str,
    adjustment: Adjustment,
) -> anyhow::Result<SdkService> {
    let call = cluster.ecs.update_service().cluster(cluster.name).service(ecs_name);
    let call = match adjustment {
        Adjustment::TaskDefinition(arn) => call.task_definition(arn).force_new_deployment(false),
        Adjustment::Tasks(tasks) => call.desired_count(count(tasks)).force_new_deployment(false),
        Adjustment::NewDeployment => call.force_new_deployment(true),
    };
    let answer = call.send().await.map_err(|error| failed(&format!("update the service `{name}`"), error))?;
    answer.service.with_context(|| format!("ECS says nothing of the service `{name}`"))
}

/// A service as it was before a run changed it.
#[derive(Clone, Copy)]
pub(super) struct Former<'a> {
    /// The manifest's name.
    pub(super) name: &'a str,
    pub(super) service: &'a SdkService,
    /// ARN of the task definition that it goes back to.
    pub(super) task_definition: &'a str,
    /// Whether its number of tasks was changed: what autoscaling has set meanwhile stays.
    pub(super) was_scaled: bool,
}

/// Brings everything of a service that `create` and `update` set back to what it was; `None` if nothing differs now. It is ECS's own
/// description that is restored: what natsctl does not model is in it, too.
pub(super) async fn restore(
    cluster: Cluster<'_>,
    former: Former<'_>,
    now: &SdkService,
) -> anyhow::Result<Option<SdkService>> {
    let Former { name, service: former, task_definition, was_scaled } = former;
    fn changed<T: Clone + PartialEq>(former: &Option<T>, now: &Option<T>) -> Option<T> {
        if former == now { None } else { former.clone() }
    }
    let restored = UpdateServiceInputBuilder::default()
        .cluster(cluster.name)
        .service(former.service_name().unwrap_or_default())
        .set_task_definition(changed(&Some(task_definition.to_owned()), &now.task_definition))
        .set_desired_count(changed(&Some(former.desired_count), &Some(now.desired_count)).filter(|_| was_scaled))
        .set_network_configuration(changed(&former.network_configuration, &now.network_configuration))
        .set_deployment_configuration(changed(&former.deployment_configuration, &now.deployment_configuration))
        .set_availability_zone_rebalancing(changed(
            &former.availability_zone_rebalancing,
            &now.availability_zone_rebalancing,
        ))
        .set_enable_execute_command(changed(&Some(former.enable_execute_command), &Some(now.enable_execute_command)))
        .set_propagate_tags(changed(&former.propagate_tags, &now.propagate_tags))
        .set_enable_ecs_managed_tags(changed(&Some(former.enable_ecs_managed_tags), &Some(now.enable_ecs_managed_tags)))
        .set_load_balancers(changed(&former.load_balancers, &now.load_balancers))
        .set_service_registries(changed(&former.service_registries, &now.service_registries))
        .set_health_check_grace_period_seconds(changed(
            &former.health_check_grace_period_seconds,
            &now.health_check_grace_period_seconds,
        ))
        .set_capacity_provider_strategy(changed(&former.capacity_provider_strategy, &now.capacity_provider_strategy))
        .set_platform_version(changed(&former.platform_version, &now.platform_version));
    let untouched =
        UpdateServiceInputBuilder::default().cluster(cluster.name).service(former.service_name().unwrap_or_default());
    if restored == untouched {
        return Ok(None);
    }
    let answer = restored.send_with(cluster.ecs).await;
    let answer = answer.map_err(|error| failed(&format!("roll back the service `{name}`"), error))?;
    Ok(answer.service)
}

/// Deletes a service after its tasks have stopped, so that they finish their requests.
pub(super) async fn delete(
    cluster: Cluster<'_>,
    autoscaling: &aws_sdk_applicationautoscaling::Client,
    name: &str,
    ecs_name: &str,
) -> anyhow::Result<()> {
    let drain = cluster.ecs.update_service().cluster(cluster.name).service(ecs_name).desired_count(0);
    drain.send().await.map_err(|error| failed(&format!("drain the service `{name}`"), error))?;
    autoscaling::deregister(autoscaling, cluster.name, name, ecs_name).await?;
    loop {
        let services = services::describe_all_fields(cluster, &[ecs_name.to_owned()]).await?;
        if services.get(ecs_name).is_none_or(|service| service.running_count() == 0 && service.pending_count() == 0) {
            break;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let delete = cluster.ecs.delete_service().cluster(cluster.name).service(ecs_name).send().await;
    delete.map_err(|error| failed(&format!("delete the service `{name}`"), error)).map(drop)
}

impl Target<'_> {
    /// Whether a service is at this target. Its scaling does not count: it is not a property of the ECS service.
    fn is_met_by(&self, service: &ServiceState) -> bool {
        let is_same = |ecs: &EcsService| EcsService { autoscaling: self.ecs.autoscaling, ..ecs.clone() } == *self.ecs;
        service.task_definition.as_deref() == Some(self.task_definition)
            && service.ecs.as_ref().is_some_and(is_same)
            && service.desired == self.tasks
    }
}

/// Network of tasks.
pub(super) fn network<'a>(
    subnets: impl IntoIterator<Item = &'a String>,
    security_groups: impl IntoIterator<Item = &'a String>,
    public_ip: AssignPublicIp,
) -> Result<NetworkConfiguration, BuildError> {
    let vpc = AwsVpcConfiguration::builder()
        .set_subnets(Some(subnets.into_iter().cloned().collect()))
        .set_security_groups(Some(security_groups.into_iter().cloned().collect()))
        .assign_public_ip(public_ip)
        .build()?;
    Ok(NetworkConfiguration::builder().awsvpc_configuration(vpc).build())
}

fn public_ip(ecs: &EcsService) -> AssignPublicIp {
    if ecs.assign_public_ip { AssignPublicIp::Enabled } else { AssignPublicIp::Disabled }
}

fn on_fargate(ecs: &EcsService) -> bool {
    ecs.capacity_providers == fargate()
}

fn strategy(ecs: &EcsService) -> Result<Vec<CapacityProviderStrategyItem>, BuildError> {
    let item = CapacityProviderStrategyItem::builder;
    let providers = ecs.capacity_providers.iter();
    providers
        .map(|(name, share)| item().capacity_provider(name).weight(share.weight).base(share.base).build())
        .collect()
}

fn rebalancing(ecs: &EcsService) -> AvailabilityZoneRebalancing {
    if ecs.zone_rebalancing { AvailabilityZoneRebalancing::Enabled } else { AvailabilityZoneRebalancing::Disabled }
}

fn load_balancers(ecs: &EcsService) -> Vec<LoadBalancer> {
    let balancer = LoadBalancer::builder;
    let all = ecs.load_balancers.iter();
    all.map(|(group, to)| {
        balancer().target_group_arn(group).container_name(&to.container).container_port(to.port).build()
    })
    .collect()
}

fn count(tasks: u32) -> i32 {
    i32::try_from(tasks).unwrap_or(i32::MAX)
}

/// A client token made of these parts: 32 characters, the most that ECS accepts.
fn token(parts: &[&str]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(parts.join("\n"));
    data_encoding::HEXLOWER.encode(&digest[..16])
}

//! Application Auto Scaling: between which numbers of tasks a service scales, and by what.

use std::collections::BTreeMap;

use aws_sdk_applicationautoscaling::Client;
use aws_sdk_applicationautoscaling::types::{
    MetricType, PolicyType, PredefinedMetricSpecification, ScalableDimension, ServiceNamespace,
    TargetTrackingScalingPolicyConfiguration,
};
use futures::StreamExt as _;

use super::AT_ONCE;
use super::error::failed;
use super::ledger::State;
use crate::model::ecs::Autoscaling;

/// What DescribeScalableTargets takes at once.
const TARGETS_PER_CALL: usize = 50;

/// How these services scale. The names on ECS are given by the manifests' names; a service that does not scale is left out. Policies
/// are only described where the ledger does not have them.
pub(super) async fn describe(
    client: &Client,
    cluster: &str,
    ecs_names: &BTreeMap<String, String>,
    state: &State,
) -> anyhow::Result<BTreeMap<String, Autoscaling>> {
    let by_resource: BTreeMap<String, &String> =
        ecs_names.iter().map(|(name, ecs_name)| (resource_id(cluster, ecs_name), name)).collect();
    let resources: Vec<String> = by_resource.keys().cloned().collect();
    let calls = resources.chunks(TARGETS_PER_CALL).map(|resources| {
        let call = client.describe_scalable_targets().service_namespace(ServiceNamespace::Ecs);
        let call = call.scalable_dimension(ScalableDimension::EcsServiceDesiredCount);
        call.set_resource_ids(Some(resources.to_vec())).send()
    });
    let mut scaling = BTreeMap::new();
    let mut answers = futures::stream::iter(calls).buffered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|error| failed("describe the scalable targets", error))?;
        for target in answer.scalable_targets() {
            let Some(name) = by_resource.get(target.resource_id()) else { continue };
            let known = state.services.get(*name).and_then(|known| known.autoscaling);
            let (cpu_percent, memory_percent) = match known {
                Some(known) => (known.cpu_percent, known.memory_percent),
                None => target_values(client, target.resource_id()).await?,
            };
            let (min, max) = (target.min_capacity(), target.max_capacity());
            scaling.insert((*name).clone(), Autoscaling { min, max, cpu_percent, memory_percent });
        }
    }
    Ok(scaling)
}

/// Target values for CPU and memory in percent; 0 where there is no policy.
async fn target_values(client: &Client, resource: &str) -> anyhow::Result<(i32, i32)> {
    let call = client.describe_scaling_policies().service_namespace(ServiceNamespace::Ecs);
    let answer = call.resource_id(resource).send().await;
    let answer = answer.map_err(|error| failed(&format!("describe the scaling policies of `{resource}`"), error))?;
    let target = |metric: MetricType| {
        let configurations =
            answer.scaling_policies().iter().filter_map(|policy| policy.target_tracking_scaling_policy_configuration());
        let mut of_metric = configurations.filter(|configuration| {
            configuration.predefined_metric_specification().map(|one| one.predefined_metric_type()) == Some(&metric)
        });
        #[allow(clippy::cast_possible_truncation, reason = "a percentage")]
        of_metric.next().map_or(0, |configuration| configuration.target_value() as i32)
    };
    let (cpu, memory) = (MetricType::EcsServiceAverageCpuUtilization, MetricType::EcsServiceAverageMemoryUtilization);
    Ok((target(cpu), target(memory)))
}

/// Brings the scalable target and the policies of a service to what they should be; `current` is what they are.
pub(super) async fn put(
    client: &Client,
    cluster: &str,
    name: &str,
    ecs_name: &str,
    current: Option<Autoscaling>,
    wanted: Autoscaling,
) -> anyhow::Result<()> {
    let resource = resource_id(cluster, ecs_name);
    if current.is_none_or(|current| (current.min, current.max) != (wanted.min, wanted.max)) {
        let target = client
            .register_scalable_target()
            .service_namespace(ServiceNamespace::Ecs)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
            .resource_id(&resource)
            .min_capacity(wanted.min)
            .max_capacity(wanted.max);
        target.send().await.map_err(|error| failed(&format!("set how far `{name}` may scale"), error))?;
    }
    let current = current.unwrap_or(Autoscaling { min: 0, max: 0, cpu_percent: 0, memory_percent: 0 });
    for (kind, metric, current, wanted) in [
        ("cpu", MetricType::EcsServiceAverageCpuUtilization, current.cpu_percent, wanted.cpu_percent),
        ("memory", MetricType::EcsServiceAverageMemoryUtilization, current.memory_percent, wanted.memory_percent),
    ] {
        if current == wanted {
            continue;
        }
        let metric = PredefinedMetricSpecification::builder().predefined_metric_type(metric).build()?;
        let tracking = TargetTrackingScalingPolicyConfiguration::builder()
            .target_value(wanted.into())
            .predefined_metric_specification(metric)
            .build()?;
        let policy = client
            .put_scaling_policy()
            .policy_name(policy(kind, ecs_name))
            .policy_type(PolicyType::TargetTrackingScaling)
            .service_namespace(ServiceNamespace::Ecs)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
            .resource_id(&resource)
            .target_tracking_scaling_policy_configuration(tracking);
        policy.send().await.map_err(|error| failed(&format!("set what `{name}` scales by ({kind})"), error))?;
    }
    Ok(())
}

/// Brings the scalable target and the policies of a service back to what they were; `None` if there were none.
pub(super) async fn restore(
    client: &Client,
    cluster: &str,
    name: &str,
    ecs_name: &str,
    former: Option<Autoscaling>,
    current: Autoscaling,
) -> anyhow::Result<()> {
    let Some(former) = former else { return deregister(client, cluster, name, ecs_name).await };
    let figures = [("cpu", former.cpu_percent), ("memory", former.memory_percent)];
    for (kind, _) in figures.into_iter().filter(|(_, percent)| *percent == 0) {
        delete_policy(client, cluster, name, ecs_name, kind).await?;
    }
    // What there was no policy for was deleted, and needs none.
    let cpu_percent = if former.cpu_percent == 0 { 0 } else { current.cpu_percent };
    let memory_percent = if former.memory_percent == 0 { 0 } else { current.memory_percent };
    put(client, cluster, name, ecs_name, Some(Autoscaling { cpu_percent, memory_percent, ..current }), former).await
}

/// Deletes a policy of natsctl's, if it is there.
async fn delete_policy(client: &Client, cluster: &str, name: &str, ecs_name: &str, kind: &str) -> anyhow::Result<()> {
    let call = client.delete_scaling_policy().service_namespace(ServiceNamespace::Ecs);
    let call = call.scalable_dimension(ScalableDimension::EcsServiceDesiredCount).policy_name(policy(kind, ecs_name));
    match call.resource_id(resource_id(cluster, ecs_name)).send().await {
        Err(error) if !error.as_service_error().is_some_and(|error| error.is_object_not_found_exception()) => {
            Err(failed(&format!("delete what `{name}` scales by ({kind})"), error))
        }
        _ => Ok(()),
    }
}

/// Name of natsctl's policy.
fn policy(kind: &str, ecs_name: &str) -> String {
    format!("{kind}-{ecs_name}")
}

/// Deregisters the scalable target of a service, with its policies, if there is one.
pub(super) async fn deregister(client: &Client, cluster: &str, name: &str, ecs_name: &str) -> anyhow::Result<()> {
    let call = client.deregister_scalable_target().service_namespace(ServiceNamespace::Ecs);
    let call = call.scalable_dimension(ScalableDimension::EcsServiceDesiredCount);
    match call.resource_id(resource_id(cluster, ecs_name)).send().await {
        Err(error) if !error.as_service_error().is_some_and(|error| error.is_object_not_found_exception()) => {
            Err(failed(&format!("end the scaling of `{name}`"), error))
        }
        _ => Ok(()),
    }
}

/// What Application Auto Scaling calls a service.
fn resource_id(cluster: &str, ecs_name: &str) -> String {
    format!("service/{cluster}/{ecs_name}")
}

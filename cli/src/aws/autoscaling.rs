//! Application Auto Scaling: between which numbers of tasks a service scales, and by what.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use aws_sdk_applicationautoscaling::Client;
use aws_sdk_applicationautoscaling::types::{
    MetricType, PolicyType, PredefinedMetricSpecification, ScalableDimension, ScalableTarget, ScalingPolicy,
    ScheduledAction, ServiceNamespace, TargetTrackingScalingPolicyConfiguration,
};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::AT_ONCE;
use super::error::failed;
use crate::model::desired::Scaling;
use crate::model::ecs::{Autoscaling, Percent};

/// What DescribeScalableTargets takes at once.
const TARGETS_PER_CALL: usize = 50;
/// The metrics that natsctl scales by, and what the names of its policies begin with.
const METRICS: [(&str, MetricType); 2] =
    [("cpu", MetricType::EcsServiceAverageCpuUtilization), ("memory", MetricType::EcsServiceAverageMemoryUtilization)];

/// What scales a service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) autoscaling: Autoscaling,
    /// Policies and scheduled actions of others, as a plan names them.
    pub(super) others: BTreeMap<String, Value>,
    /// The bounds of the number of tasks, if a scheduled action of others sets them.
    pub(super) scheduled: Option<Scaling>,
}

/// What scales these services. The names on ECS are given by the manifests' names; a service that does not scale is left out.
pub(super) async fn describe(
    client: &Client,
    cluster: &str,
    ecs_names: &BTreeMap<String, String>,
) -> anyhow::Result<BTreeMap<String, Found>> {
    let resources: BTreeSet<String> = ecs_names.values().map(|ecs_name| resource_id(cluster, ecs_name)).collect();
    let targets = targets(client, resources.iter().cloned().collect()).await?;
    if targets.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (policies, actions) = futures::try_join!(policies(client, None), scheduled_actions(client))?;
    let found = |ecs_name: &String| {
        let resource = resource_id(cluster, ecs_name);
        let target = targets.iter().find(|target| target.resource_id() == resource)?;
        let policies = policies.iter().filter(|policy| policy.resource_id() == resource);
        let actions = actions.iter().filter(|action| action.resource_id() == resource);
        Some(Found::new(ecs_name, target, &policies.collect::<Vec<_>>(), &actions.collect::<Vec<_>>()))
    };
    Ok(ecs_names.iter().filter_map(|(name, ecs_name)| Some((name.clone(), found(ecs_name)?))).collect())
}

async fn targets(client: &Client, resources: Vec<String>) -> anyhow::Result<Vec<ScalableTarget>> {
    let calls = resources.chunks(TARGETS_PER_CALL).map(|resources| {
        let call = client.describe_scalable_targets().service_namespace(ServiceNamespace::Ecs);
        let call = call.scalable_dimension(ScalableDimension::EcsServiceDesiredCount);
        call.set_resource_ids(Some(resources.to_vec())).send()
    });
    let mut targets = Vec::new();
    let mut answers = futures::stream::iter(calls).buffered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|error| failed("describe the scalable targets", error))?;
        targets.extend(answer.scalable_targets.unwrap_or_default());
    }
    Ok(targets)
}

/// The policies of one service, or of all.
async fn policies(client: &Client, resource: Option<String>) -> anyhow::Result<Vec<ScalingPolicy>> {
    let call = client.describe_scaling_policies().service_namespace(ServiceNamespace::Ecs);
    let pages = call.set_resource_id(resource).into_paginator().items().send();
    let failed = |error| failed("describe the scaling policies", error);
    futures::stream::unfold(pages, |mut pages| async move { Some((pages.next().await?, pages)) })
        .map_err(failed)
        .try_collect()
        .await
}

async fn scheduled_actions(client: &Client) -> anyhow::Result<Vec<ScheduledAction>> {
    let call = client.describe_scheduled_actions().service_namespace(ServiceNamespace::Ecs);
    let pages = call.into_paginator().items().send();
    let failed = |error| failed("describe the scheduled actions of scaling", error);
    futures::stream::unfold(pages, |mut pages| async move { Some((pages.next().await?, pages)) })
        .map_err(failed)
        .try_collect()
        .await
}

impl Found {
    fn new(ecs_name: &str, target: &ScalableTarget, policies: &[&ScalingPolicy], actions: &[&ScheduledAction]) -> Self {
        let own = METRICS.map(|(kind, metric)| own(ecs_name, kind, &metric, policies));
        let percent = |policy: Option<&ScalingPolicy>| {
            let tracking = policy.and_then(|policy| policy.target_tracking_scaling_policy_configuration());
            tracking.map(|tracking| Percent::from(tracking.target_value())).unwrap_or_default()
        };
        let (min, max) = (target.min_capacity(), target.max_capacity());
        let is_own = |policy: &ScalingPolicy| own.iter().flatten().any(|own| own.policy_name() == policy.policy_name());
        let policies = policies.iter().filter(|policy| !is_own(policy));
        let policies =
            policies.map(|policy| (format!("scaling policy `{}`", policy.policy_name()), shown_policy(policy)));
        let scheduled = actions
            .iter()
            .map(|action| (format!("scheduled action `{}`", action.scheduled_action_name()), shown_action(action)));
        let count = |number: i32| u32::try_from(number).unwrap_or(0);
        let sets_bounds = actions.iter().any(|action| action.scalable_target_action().is_some());
        Self {
            autoscaling: Autoscaling { min, max, cpu_percent: percent(own[0]), memory_percent: percent(own[1]) },
            others: policies.chain(scheduled).collect(),
            scheduled: sets_bounds.then(|| Scaling { min: count(min), max: count(max) }),
        }
    }
}

/// The policy by which natsctl scales on a metric: its own, or another one that tracks the same metric, since a service can have
/// only one.
fn own<'a>(
    ecs_name: &str,
    kind: &str,
    metric: &MetricType,
    policies: &[&'a ScalingPolicy],
) -> Option<&'a ScalingPolicy> {
    let tracks = |policy: &&&ScalingPolicy| {
        let tracking = policy.target_tracking_scaling_policy_configuration();
        let predefined = tracking.and_then(|tracking| tracking.predefined_metric_specification());
        predefined.is_some_and(|predefined| predefined.predefined_metric_type() == metric)
    };
    let name = policy_name(kind, ecs_name);
    let tracking: Vec<&&ScalingPolicy> = policies.iter().filter(tracks).collect();
    let named = tracking.iter().find(|policy| policy.policy_name() == name);
    named.or(tracking.first()).copied().copied()
}

fn policy_name(kind: &str, ecs_name: &str) -> String {
    format!("{kind}-{ecs_name}")
}

/// For people: what a policy does.
fn shown_policy(policy: &ScalingPolicy) -> Value {
    let kind = policy.policy_type().as_str();
    match policy.target_tracking_scaling_policy_configuration() {
        Some(tracking) => {
            let predefined =
                tracking.predefined_metric_specification().map(|one| one.predefined_metric_type().as_str());
            let customized = tracking.customized_metric_specification().and_then(|one| one.metric_name());
            let metric = predefined.or(customized).unwrap_or("a metric of its own");
            json!(format!("{kind} of {metric} at {}", Percent::from(tracking.target_value())))
        }
        None => json!(kind),
    }
}

fn shown_action(action: &ScheduledAction) -> Value {
    let sets = action.scalable_target_action();
    let figure = |number: Option<i32>| number.map_or_else(|| "as it is".to_owned(), |number| number.to_string());
    let min = figure(sets.and_then(|sets| sets.min_capacity()));
    let max = figure(sets.and_then(|sets| sets.max_capacity()));
    json!(format!("{}: min {min}, max {max}", action.schedule()))
}

/// Brings the scalable target and the policies of a service to what they should be; `current` is what they are. What a policy says
/// besides its target value stays.
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
    let before = current.unwrap_or_default();
    let values = [(before.cpu_percent, wanted.cpu_percent), (before.memory_percent, wanted.memory_percent)];
    if values.iter().all(|(before, wanted)| before == wanted) {
        return Ok(());
    }
    let found = match current {
        Some(_) => policies(client, Some(resource.clone())).await?,
        None => Vec::new(),
    };
    for ((kind, metric), (_, wanted)) in
        METRICS.into_iter().zip(values).filter(|(_, (before, wanted))| before != wanted)
    {
        let found: Vec<&ScalingPolicy> = found.iter().collect();
        let policy = own(ecs_name, kind, &metric, &found);
        let tracking = tracking(policy, metric, wanted)?;
        let policy = client
            .put_scaling_policy()
            .policy_name(policy.map_or_else(|| policy_name(kind, ecs_name), |policy| policy.policy_name().to_owned()))
            .policy_type(PolicyType::TargetTrackingScaling)
            .service_namespace(ServiceNamespace::Ecs)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
            .resource_id(&resource)
            .target_tracking_scaling_policy_configuration(tracking);
        policy.send().await.map_err(|error| failed(&format!("set what `{name}` scales by ({kind})"), error))?;
    }
    Ok(())
}

/// The configuration of a policy with another target value.
fn tracking(
    policy: Option<&ScalingPolicy>,
    metric: MetricType,
    wanted: Percent,
) -> anyhow::Result<TargetTrackingScalingPolicyConfiguration> {
    let there = policy.and_then(|policy| policy.target_tracking_scaling_policy_configuration());
    let metric = PredefinedMetricSpecification::builder().predefined_metric_type(metric).build()?;
    TargetTrackingScalingPolicyConfiguration::builder()
        .target_value(wanted.value())
        .predefined_metric_specification(metric)
        .set_scale_in_cooldown(there.and_then(|there| there.scale_in_cooldown()))
        .set_scale_out_cooldown(there.and_then(|there| there.scale_out_cooldown()))
        .set_disable_scale_in(there.and_then(|there| there.disable_scale_in()))
        .build()
        .context("a policy without a target value")
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
    let none = Percent::default();
    let figures = [("cpu", former.cpu_percent), ("memory", former.memory_percent)];
    for (kind, _) in figures.into_iter().filter(|(_, percent)| *percent == none) {
        delete_policy(client, cluster, name, ecs_name, kind).await?;
    }
    // What there was no policy for was deleted, and needs none.
    let cpu_percent = if former.cpu_percent == none { none } else { current.cpu_percent };
    let memory_percent = if former.memory_percent == none { none } else { current.memory_percent };
    put(client, cluster, name, ecs_name, Some(Autoscaling { cpu_percent, memory_percent, ..current }), former).await
}

/// Deletes a policy of natsctl's, if it is there.
async fn delete_policy(client: &Client, cluster: &str, name: &str, ecs_name: &str, kind: &str) -> anyhow::Result<()> {
    let call = client.delete_scaling_policy().service_namespace(ServiceNamespace::Ecs);
    let call =
        call.scalable_dimension(ScalableDimension::EcsServiceDesiredCount).policy_name(policy_name(kind, ecs_name));
    match call.resource_id(resource_id(cluster, ecs_name)).send().await {
        Err(error) if !error.as_service_error().is_some_and(|error| error.is_object_not_found_exception()) => {
            Err(failed(&format!("delete what `{name}` scales by ({kind})"), error))
        }
        _ => Ok(()),
    }
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

#[cfg(test)]
mod tests;

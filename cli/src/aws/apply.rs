//! Does on ECS what a plan says. Every step can be done twice, and a call whose answer was lost is looked up before it is repeated:
//! a run that was interrupted at any call is finished by the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_applicationautoscaling::types::{
    MetricType, PolicyType, PredefinedMetricSpecification, ScalableDimension, ServiceNamespace,
    TargetTrackingScalingPolicyConfiguration,
};
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::error::BuildError;
use aws_sdk_ecs::types::{
    AssignPublicIp, AvailabilityZoneRebalancing, AwsVpcConfiguration, DeploymentAlarms, DeploymentCircuitBreaker,
    DeploymentConfiguration, DeploymentRolloutState, LaunchType, LoadBalancer, NetworkConfiguration, PropagateTags,
    Service as Found, Tag,
};
use futures::{StreamExt as _, TryStreamExt as _};

use super::Aws;
use super::error::{code, failed, is_uncertain};
use super::images::Images;
use super::ledger::{Known, digest};
use super::observe::{Seen, TAG_ENVIRONMENT, TAG_PROJECT, TAG_SERVICE, primary};
use super::revisions;
use super::rollout::Begun;
use super::task_definition::registration;
use crate::model::desired::{Autoscaling, Desired, EcsService, Service};
use crate::model::plan::{Action, Step};
use crate::model::task::GATEWAY_PORT;

/// How long an old task may still answer while the load balancer forgets it.
const HEALTH_CHECK_GRACE_SECONDS: i32 = 60;
/// Before a call that must not be repeated blindly is tried again; twice as long each time.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(400);
/// No longer than this.
const AT_MOST: Duration = Duration::from_secs(10);
/// Tries of such a call. ECS takes one registration a second for long, and more for a moment.
const TRIES: u32 = 10;

/// Services that are brought to what a plan says.
pub(crate) struct Change<'a> {
    pub(crate) aws: &'a Aws,
    pub(crate) desired: &'a Desired,
    pub(crate) seen: &'a Seen,
    pub(crate) images: &'a Images,
    /// Families that have revisions, of services that are not there yet.
    pub(crate) families: BTreeSet<String>,
    pub(crate) max_parallel: usize,
}

/// A service that was brought on its way.
pub(crate) struct OnItsWay {
    pub(crate) begun: Begun,
    pub(crate) known: Known,
}

impl Change<'_> {
    /// Begins all these steps, a few at a time.
    pub(crate) async fn begin(&self, steps: &[&Step]) -> Vec<(String, anyhow::Result<OnItsWay>)> {
        let one = |step: &Step| {
            let name = step.name.clone();
            let (action, tasks) = (step.action, step.tasks);
            async move {
                let outcome = self.one(&name, action, tasks).await;
                (name, outcome)
            }
        };
        let all: Vec<_> = steps.iter().map(|step| one(step)).collect();
        futures::stream::iter(all).buffered(self.max_parallel).collect().await
    }

    async fn one(&self, name: &str, action: Action, tasks: Option<u32>) -> anyhow::Result<OnItsWay> {
        let service = self.desired.services.get(name);
        let service = service.with_context(|| format!("service `{name}` is not in the plan's environment"))?;
        let ecs = service.ecs.as_ref().with_context(|| format!("service `{name}` is not one for ECS"))?;
        let found = self.seen.services.get(name);
        let there = self.seen.observed.services.get(name);
        let current = found.and_then(Found::task_definition).map(str::to_owned);
        let task_definition = match (&current, there) {
            (Some(current), Some(there)) if there.definition == service.definition => current.clone(),
            _ => self.register(name, service, found.is_some()).await?,
        };
        let tasks = tasks.unwrap_or(service.tasks);
        let after = match found {
            None => self.create(name, ecs, service, &task_definition, tasks).await?,
            Some(found) => self.update(name, action, ecs, found, &task_definition, tasks).await?,
        };
        let autoscaling = there.and_then(|there| there.ecs.as_ref()?.autoscaling);
        if let Some(wanted) = ecs.autoscaling.filter(|wanted| autoscaling != Some(*wanted)) {
            self.scale(name, &after, wanted, autoscaling).await?;
        }
        let begun = Begun::of(name, &after, current, &task_definition);
        let known = Known {
            definition: digest(&service.definition),
            version: service.definition.version.clone(),
            image: image(service),
            tag: self.images.tag(name),
            declared_tasks: service.tasks,
            autoscaling: ecs.autoscaling,
            task_definition,
        };
        Ok(OnItsWay { begun, known })
    }

    /// The ARN of a task definition that says this: the newest of its family, or a new one.
    pub(crate) async fn register(&self, name: &str, service: &Service, is_there: bool) -> anyhow::Result<String> {
        let definition = &service.definition;
        let family = &definition.ecs.as_ref().context("a definition for ECS")?.family;
        let mut look = is_there || self.families.contains(family);
        for attempt in 1.. {
            if look && let Some(arn) = self.newest_if_equal(name, service, family).await? {
                return Ok(arn);
            }
            let once = aws_sdk_ecs::config::Builder::new().retry_config(RetryConfig::disabled());
            let call = registration(self.aws.clients.ecs(), name, definition)?.set_tags(Some(self.aws.tags(name)));
            let error = match call.customize().config_override(once).send().await {
                Ok(answer) => {
                    let registered = answer.task_definition.and_then(|registered| registered.task_definition_arn);
                    return registered.context("ECS gave no ARN for a task definition");
                }
                Err(error) => error,
            };
            // Whether it took place is seen by looking; repeating it at once might register it twice.
            let throttled =
                code(&error).is_some_and(|code| code.contains("Throttling") || code.contains("LimitExceeded"));
            if !(is_uncertain(&error) || throttled) || attempt == TRIES {
                return Err(failed(&format!("register the task definition `{family}`"), error));
            }
            look = true;
            tokio::time::sleep((TRY_AGAIN_AFTER * 2_u32.pow(attempt - 1)).min(AT_MOST)).await;
        }
        unreachable!("the loop ends by returning")
    }

    async fn newest_if_equal(&self, name: &str, service: &Service, family: &str) -> anyhow::Result<Option<String>> {
        let Some(found) = revisions::newest(self.aws.clients.ecs(), name, family).await? else { return Ok(None) };
        let is_equal = found.is_active && found.definition == service.definition;
        Ok(is_equal.then_some(found.arn))
    }

    async fn create(
        &self,
        name: &str,
        ecs: &EcsService,
        service: &Service,
        task_definition: &str,
        tasks: u32,
    ) -> anyhow::Result<Found> {
        let family = &service.definition.ecs.as_ref().context("a definition for ECS")?.family;
        let call = self
            .aws
            .clients
            .ecs()
            .create_service()
            .cluster(self.aws.cluster())
            .service_name(family)
            .task_definition(task_definition)
            .desired_count(count(tasks))
            .launch_type(LaunchType::Fargate)
            .network_configuration(network(&ecs.subnets, &ecs.security_groups)?)
            .deployment_configuration(deployment(ecs)?)
            .availability_zone_rebalancing(rebalancing(ecs))
            .enable_execute_command(ecs.execute_command)
            .enable_ecs_managed_tags(true)
            .propagate_tags(PropagateTags::Service)
            .set_load_balancers(load_balancers(name, ecs))
            .set_health_check_grace_period_seconds(ecs.target_group.as_ref().map(|_| HEALTH_CHECK_GRACE_SECONDS))
            .set_tags(Some(self.aws.tags(name)))
            // The same service is made once, however often it is asked for.
            .client_token(token(&[self.aws.cluster(), family, task_definition]));
        let answer = call.send().await.map_err(|error| failed(&format!("create the service `{name}`"), error))?;
        answer.service.with_context(|| format!("ECS says nothing of the service `{name}` that it has created"))
    }

    async fn update(
        &self,
        name: &str,
        action: Action,
        ecs: &EcsService,
        found: &Found,
        task_definition: &str,
        tasks: u32,
    ) -> anyhow::Result<Found> {
        let there = self.seen.observed.services.get(name);
        let is_same = found.task_definition() == Some(task_definition)
            && there.is_some_and(|there| same_besides_scaling(there.ecs.as_ref(), ecs) && there.desired == tasks);
        let has_failed =
            primary(found).and_then(|deployment| deployment.rollout_state()) == Some(&DeploymentRolloutState::Failed);
        if is_same && !has_failed {
            // Nothing to tell ECS: it is on its way already, or only what scales it differs.
            return Ok(found.clone());
        }
        let call = self
            .aws
            .clients
            .ecs()
            .update_service()
            .cluster(self.aws.cluster())
            .service(found.service_name().unwrap_or_default())
            .task_definition(task_definition)
            // What autoscaling has set stays, unless the plan says another number.
            .set_desired_count(there.filter(|there| there.desired != tasks).map(|_| count(tasks)))
            .network_configuration(network(&ecs.subnets, &ecs.security_groups)?)
            .deployment_configuration(deployment(ecs)?)
            .availability_zone_rebalancing(rebalancing(ecs))
            .enable_execute_command(ecs.execute_command)
            .propagate_tags(PropagateTags::Service)
            .set_load_balancers(load_balancers(name, ecs))
            .force_new_deployment(action == Action::Start && has_failed);
        let answer = call.send().await.map_err(|error| failed(&format!("update the service `{name}`"), error))?;
        answer.service.with_context(|| format!("ECS says nothing of the service `{name}` that it has updated"))
    }

    async fn scale(
        &self,
        name: &str,
        found: &Found,
        wanted: Autoscaling,
        there: Option<Autoscaling>,
    ) -> anyhow::Result<()> {
        let resource = self.aws.resource_id(found);
        let scaling = self.aws.clients.autoscaling();
        if there.is_none_or(|there| (there.min, there.max) != (wanted.min, wanted.max)) {
            let target = scaling
                .register_scalable_target()
                .service_namespace(ServiceNamespace::Ecs)
                .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
                .resource_id(&resource)
                .min_capacity(wanted.min)
                .max_capacity(wanted.max);
            target.send().await.map_err(|error| failed(&format!("set how far `{name}` may scale"), error))?;
        }
        let there = there.unwrap_or(Autoscaling { min: 0, max: 0, cpu_percent: 0, memory_percent: 0 });
        for (kind, metric, there, wanted) in [
            ("cpu", MetricType::EcsServiceAverageCpuUtilization, there.cpu_percent, wanted.cpu_percent),
            ("memory", MetricType::EcsServiceAverageMemoryUtilization, there.memory_percent, wanted.memory_percent),
        ] {
            if there == wanted {
                continue;
            }
            let metric = PredefinedMetricSpecification::builder().predefined_metric_type(metric).build()?;
            let tracking = TargetTrackingScalingPolicyConfiguration::builder()
                .target_value(wanted.into())
                .predefined_metric_specification(metric)
                .build()?;
            let policy = scaling
                .put_scaling_policy()
                .policy_name(format!("{kind}-{}", found.service_name().unwrap_or_default()))
                .policy_type(PolicyType::TargetTrackingScaling)
                .service_namespace(ServiceNamespace::Ecs)
                .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
                .resource_id(&resource)
                .target_tracking_scaling_policy_configuration(tracking);
            policy.send().await.map_err(|error| failed(&format!("set what `{name}` scales by ({kind})"), error))?;
        }
        Ok(())
    }
}

impl Aws {
    /// Tags of what natsctl makes.
    pub(super) fn tags(&self, name: &str) -> Vec<Tag> {
        let handover = &self.handover;
        [(TAG_PROJECT, &*handover.project), (TAG_ENVIRONMENT, &handover.environment), (TAG_SERVICE, name)]
            .map(|(key, value)| Tag::builder().key(key).value(value).build())
            .to_vec()
    }

    /// Families that have active revisions.
    pub(crate) async fn families(&self) -> anyhow::Result<BTreeSet<String>> {
        let list = self.clients.ecs().list_task_definition_families().max_results(100);
        let list = list.status(aws_sdk_ecs::types::TaskDefinitionFamilyStatus::Active);
        let families = list.into_paginator().items().send().collect::<Vec<_>>().await;
        families
            .into_iter()
            .map(|family| family.map_err(|error| failed("list the families of task definitions", error)))
            .collect()
    }

    /// Brings services to task definitions that there are, and to as many tasks as told; as `restart`, `scale` and a rollback do.
    pub(crate) async fn move_to(
        &self,
        targets: &BTreeMap<String, Target>,
        max_parallel: usize,
    ) -> anyhow::Result<Vec<Begun>> {
        let one = |(name, target): (String, Target)| async move {
            let call = self.clients.ecs().update_service().cluster(self.cluster()).service(&target.ecs_name);
            let wanted = target.task_definition.clone().or_else(|| target.before.clone());
            let call = call
                .set_task_definition(target.task_definition)
                .set_desired_count(target.tasks.map(count))
                .force_new_deployment(target.restart);
            let answer = call.send().await.map_err(|error| failed(&format!("update the service `{name}`"), error))?;
            let service = answer.service.with_context(|| format!("ECS says nothing of the service `{name}`"))?;
            let wanted = wanted.or_else(|| service.task_definition.clone()).unwrap_or_default();
            Ok::<_, anyhow::Error>(Begun::of(&name, &service, target.before, &wanted))
        };
        futures::stream::iter(targets.clone()).map(one).buffered(max_parallel).try_collect().await
    }

    /// Deletes a service that nothing asks for, after its tasks have finished what they had begun.
    pub(crate) async fn delete_service(&self, name: &str, found: &Found) -> anyhow::Result<()> {
        let ecs_name = found.service_name().unwrap_or_default();
        let drain = self.clients.ecs().update_service().cluster(self.cluster()).service(ecs_name).desired_count(0);
        drain.send().await.map_err(|error| failed(&format!("drain the service `{name}`"), error))?;
        let resource = self.resource_id(found);
        let scaling = self.clients.autoscaling().deregister_scalable_target().service_namespace(ServiceNamespace::Ecs);
        let scaling = scaling.scalable_dimension(ScalableDimension::EcsServiceDesiredCount).resource_id(resource);
        match scaling.send().await {
            Err(error) if !error.as_service_error().is_some_and(|error| error.is_object_not_found_exception()) => {
                return Err(failed(&format!("end the scaling of `{name}`"), error));
            }
            _ => {}
        }
        loop {
            let services = self.describe_services(&[ecs_name.to_owned()]).await?;
            if services.get(ecs_name).is_none_or(|service| service.running_count() == 0 && service.pending_count() == 0)
            {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let delete = self.clients.ecs().delete_service().cluster(self.cluster()).service(ecs_name).send().await;
        delete.map_err(|error| failed(&format!("delete the service `{name}`"), error)).map(drop)
    }
}

/// What a service is to be moved to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) ecs_name: String,
    /// Another task definition; what it has if `None`.
    pub(crate) task_definition: Option<String>,
    /// Another number of tasks.
    pub(crate) tasks: Option<u32>,
    /// New tasks even if nothing differs.
    pub(crate) restart: bool,
    /// ARN of what ran before.
    pub(crate) before: Option<String>,
}

/// Image of a service, with its digest.
pub(crate) fn image(service: &Service) -> String {
    let repository = service.definition.ecs.as_ref().map(|task| task.repository.as_str()).unwrap_or_default();
    format!("{repository}@{}", service.definition.artifact)
}

fn same_besides_scaling(there: Option<&EcsService>, wanted: &EcsService) -> bool {
    there.is_some_and(|there| EcsService { autoscaling: wanted.autoscaling, ..there.clone() } == *wanted)
}

/// Where tasks are: in these subnets and security groups, without a public address.
pub(super) fn network<'a>(
    subnets: impl IntoIterator<Item = &'a String>,
    security_groups: impl IntoIterator<Item = &'a String>,
) -> Result<NetworkConfiguration, BuildError> {
    let vpc = AwsVpcConfiguration::builder()
        .set_subnets(Some(subnets.into_iter().cloned().collect()))
        .set_security_groups(Some(security_groups.into_iter().cloned().collect()))
        .assign_public_ip(AssignPublicIp::Disabled)
        .build()?;
    Ok(NetworkConfiguration::builder().awsvpc_configuration(vpc).build())
}

fn deployment(ecs: &EcsService) -> anyhow::Result<DeploymentConfiguration> {
    let alarms = DeploymentAlarms::builder()
        .set_alarm_names(Some(ecs.alarms.iter().cloned().collect()))
        .enable(!ecs.alarms.is_empty())
        .rollback(!ecs.alarms.is_empty())
        .build()?;
    let breaker = DeploymentCircuitBreaker::builder().enable(ecs.circuit_breaker).rollback(ecs.circuit_breaker).build();
    Ok(DeploymentConfiguration::builder()
        .deployment_circuit_breaker(breaker)
        .alarms(alarms)
        .minimum_healthy_percent(ecs.minimum_healthy_percent)
        .maximum_percent(ecs.maximum_percent)
        .build())
}

fn rebalancing(ecs: &EcsService) -> AvailabilityZoneRebalancing {
    if ecs.zone_rebalancing { AvailabilityZoneRebalancing::Enabled } else { AvailabilityZoneRebalancing::Disabled }
}

fn load_balancers(name: &str, ecs: &EcsService) -> Option<Vec<LoadBalancer>> {
    let group = ecs.target_group.as_ref()?;
    Some(vec![
        LoadBalancer::builder()
            .target_group_arn(group)
            .container_name(name)
            .container_port(i32::from(GATEWAY_PORT))
            .build(),
    ])
}

fn count(tasks: u32) -> i32 {
    i32::try_from(tasks).unwrap_or(i32::MAX)
}

/// The same for the same parts; 32 letters, which is what ECS takes.
pub(crate) fn token(parts: &[&str]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(parts.join("\n"));
    data_encoding::HEXLOWER.encode(&digest[..16])
}

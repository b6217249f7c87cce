//! What is there on ECS, with few calls: ten services a call, and of what natsctl itself has registered not even a description.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use aws_sdk_applicationautoscaling::types::{MetricType, ScalableDimension, ServiceNamespace};
use aws_sdk_ecs::types::{
    AvailabilityZoneRebalancing, Deployment, DeploymentControllerType, DeploymentRolloutState, Service, ServiceField,
};
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, SecretListEntry};
use futures::{StreamExt as _, TryStreamExt as _};

use super::arn::{revision, short};
use super::error::failed;
use super::ledger::{State, digest};
use super::{AT_ONCE, Aws, revisions};
use crate::error::Hinted;
use crate::handover::prefix;
use crate::model::desired::{Definition, Desired};
use crate::model::ecs::{Autoscaling, EcsService};
use crate::model::observed::{Observed, ObservedService, Revision, ServiceState};
use crate::pipeline::history::Record;

/// What DescribeServices takes at once.
const SERVICES_PER_CALL: usize = 10;
/// What DescribeScalableTargets takes at once.
const TARGETS_PER_CALL: usize = 50;
/// Changes that say which deployments failed.
const RECORDS: i32 = 100;

/// What was read, and what the platform needs of it besides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    pub(crate) observed: Observed,
    /// By the manifests' names.
    pub(crate) services: BTreeMap<String, Service>,
    /// What natsctl remembers.
    pub(crate) state: State,
}

impl AsRef<Observed> for Observation {
    fn as_ref(&self) -> &Observed {
        &self.observed
    }
}

impl Aws {
    /// ARNs of the environment's secrets, by name.
    pub(crate) async fn secrets(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let names = &self.handover.names;
        let listed = self.list_secrets(&[&names.secret, &names.nats_secret]).await?;
        Ok(listed.into_iter().filter_map(|secret| Some((secret.name?, secret.arn?))).collect())
    }

    /// The secrets that have one of these names, or whose name may be made of one of these templates.
    pub(super) async fn list_secrets(&self, templates: &[&str]) -> anyhow::Result<Vec<SecretListEntry>> {
        let mut prefixes: Vec<&str> = Vec::new();
        for prefix in templates.iter().map(|template| prefix(template)).collect::<BTreeSet<_>>() {
            if !prefixes.iter().any(|shorter| prefix.starts_with(shorter)) {
                prefixes.push(prefix);
            }
        }
        let prefixes = prefixes.into_iter().map(str::to_owned).collect();
        let filter = Filter::builder().key(FilterNameStringType::Name).set_values(Some(prefixes)).build();
        let list = self.clients.secrets().list_secrets().filters(filter).max_results(100);
        let mut pages = list.into_paginator().send();
        let mut secrets = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("list the secrets", error))?;
            secrets.extend(page.secret_list.unwrap_or_default());
        }
        Ok(secrets)
    }

    /// The ECS services that are there, by name on ECS; those that are being deleted only if they are named.
    pub(crate) async fn ecs_services(&self, named: BTreeSet<String>) -> anyhow::Result<BTreeMap<String, Service>> {
        let pages = self.clients.ecs().list_services().cluster(self.cluster()).max_results(100).into_paginator();
        let mut listed = pages.items().send();
        let mut names = named;
        while let Some(arn) = listed.next().await {
            let failed = |error| failed(&format!("list the services of cluster `{}`", self.cluster()), error);
            names.insert(short(&arn.map_err(failed)?).to_owned());
        }
        self.describe_services(&names.into_iter().collect::<Vec<_>>()).await
    }

    /// These ECS services, by name on ECS; those that are no more are left out.
    pub(crate) async fn describe_services(&self, names: &[String]) -> anyhow::Result<BTreeMap<String, Service>> {
        let calls = names.chunks(SERVICES_PER_CALL).map(|names| async {
            let call = self.clients.ecs().describe_services().cluster(self.cluster()).include(ServiceField::Tags);
            let answer = call.set_services(Some(names.to_vec())).send().await;
            let answer = answer
                .map_err(|error| failed(&format!("describe the services of cluster `{}`", self.cluster()), error))?;
            Ok::<_, anyhow::Error>(answer.services.unwrap_or_default())
        });
        let pages: Vec<Vec<Service>> = futures::stream::iter(calls).buffered(AT_ONCE).try_collect().await?;
        let there = |service: &Service| service.status() != Some("INACTIVE");
        let named = |service: Service| (service.service_name().unwrap_or_default().to_owned(), service);
        Ok(pages.into_iter().flatten().filter(there).map(named).collect())
    }

    /// What is there. What should be is needed to recognise it.
    pub(crate) async fn observe_deployed(&self, desired: &Desired) -> anyhow::Result<Observation> {
        let ledger = self.ledger();
        // One that is being deleted is listed no more, but its name is still taken.
        let named = desired.services.keys().filter_map(|name| Some(self.manifests.services.get(name)?.ecs_name()));
        let named = named.collect();
        let (services, state) = futures::try_join!(self.ecs_services(named), ledger.state())?;
        let mut services = self.by_manifest(services);
        // Those that the change is not about need no calls.
        services.retain(|name, _| desired.services.contains_key(name) || !self.manifests.services.contains_key(name));
        self.observation(services, state, desired).await
    }

    /// These services as they are, for changes that leave their definitions alone.
    pub(crate) async fn observe_services(&self, names: &BTreeSet<String>) -> anyhow::Result<Observation> {
        let ecs_names: Vec<String> = names.iter().map(|name| self.manifests.services[name].ecs_name()).collect();
        let services = self.by_manifest(self.describe_services(&ecs_names).await?);
        let state = self.ledger().state().await?;
        let mut observed = Observed::default();
        for (name, service) in &services {
            let declared = state.services.get(name).map(|known| known.declared_tasks);
            let definition = self.described(name, service.task_definition().unwrap_or_default()).await?;
            observed.services.insert(name.clone(), seen(service, definition, declared.unwrap_or_default(), None));
        }
        Ok(Observation { observed, services, state })
    }

    async fn observation(
        &self,
        services: BTreeMap<String, Service>,
        state: State,
        desired: &Desired,
    ) -> anyhow::Result<Observation> {
        let definitions = self.definitions(&services, &state, desired);
        let scaling = self.scaling(&services, &state);
        let (definitions, scaling) = futures::try_join!(definitions, scaling)?;
        let mut observed = Observed::default();
        for (name, service) in &services {
            let Some(definition) = definitions.get(name) else { continue };
            let known = state.services.get(name).map(|known| known.declared_tasks);
            let declared = known.or_else(|| Some(desired.services.get(name)?.tasks)).unwrap_or_default();
            let service = seen(service, definition.clone(), declared, scaling.get(name).copied());
            observed.services.insert(name.clone(), service);
        }
        Ok(Observation { observed, services, state })
    }

    /// Revisions that a service may be rolled back to, the newest first.
    pub(crate) async fn earlier_revisions(&self, name: &str, current: u64) -> anyhow::Result<Vec<Revision>> {
        let family = self.manifests.services[name].ecs_name();
        let known = revisions::active(self.clients.ecs(), &family).await?;
        let failed = failed_revisions(&self.ledger().records(RECORDS).await?);
        let revision = |arn: String| {
            let number = revision(&arn);
            let succeeded = number < current && !failed.contains(&arn);
            Revision { number, task_definition: Some(arn), definition: None, succeeded }
        };
        Ok(known.into_iter().map(revision).collect())
    }

    /// The services that are ours, by the manifests' names; those that no manifest names keep the name of their tag.
    pub(super) fn by_manifest(&self, mut services: BTreeMap<String, Service>) -> BTreeMap<String, Service> {
        let mut ours = BTreeMap::new();
        for (name, service) in &self.manifests.services {
            if let Some(found) = services.remove(&service.ecs_name()) {
                ours.insert(name.clone(), found);
            }
        }
        for (_, service) in services {
            let tag = |key: &str| {
                service.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value()).map(str::to_owned)
            };
            let of_fleet = tag(TAG_PROJECT).as_deref() == Some(&*self.handover.project)
                && tag(TAG_ENVIRONMENT).as_deref() == Some(&*self.handover.environment);
            if let (true, Some(name)) = (of_fleet, tag(TAG_SERVICE)) {
                ours.entry(name).or_insert(service);
            }
        }
        ours
    }

    /// What each service's task definition says.
    async fn definitions(
        &self,
        services: &BTreeMap<String, Service>,
        state: &State,
        desired: &Desired,
    ) -> anyhow::Result<BTreeMap<String, Definition>> {
        let one = |(name, service): (String, String)| async move {
            let recognised = state.services.get(&name).filter(|known| known.task_definition == service);
            let wanted = desired.services.get(&name).map(|wanted| &wanted.definition);
            if let (Some(known), Some(wanted)) = (recognised, wanted)
                && known.definition == digest(wanted)
            {
                return Ok((name, wanted.clone()));
            }
            let definition = self.described(&name, &service).await?;
            Ok::<_, anyhow::Error>((name, definition))
        };
        let arn = |service: &Service| service.task_definition().unwrap_or_default().to_owned();
        let all: Vec<(String, String)> = services.iter().map(|(name, service)| (name.clone(), arn(service))).collect();
        futures::stream::iter(all).map(one).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// What a task definition says; by its ARN, or by `family:revision`.
    pub(crate) async fn described(&self, name: &str, task_definition: &str) -> anyhow::Result<Definition> {
        if let Some(known) = self.revisions.lock().unwrap_or_else(PoisonError::into_inner).get(task_definition) {
            return Ok(known.clone());
        }
        let definition = revisions::describe(self.clients.ecs(), name, task_definition).await?.definition;
        let mut known = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(task_definition.to_owned(), definition.clone());
        Ok(definition)
    }

    /// How the number of tasks of each service moves. Policies are looked at only if they are not known.
    pub(super) async fn scaling(
        &self,
        services: &BTreeMap<String, Service>,
        state: &State,
    ) -> anyhow::Result<BTreeMap<String, Autoscaling>> {
        let by_resource: BTreeMap<String, &String> = services
            .iter()
            .map(|(name, service)| (self.resource_id(service.service_name().unwrap_or_default()), name))
            .collect();
        let resources: Vec<String> = by_resource.keys().cloned().collect();
        let calls = resources.chunks(TARGETS_PER_CALL).map(|resources| {
            let call = self.clients.autoscaling().describe_scalable_targets().service_namespace(ServiceNamespace::Ecs);
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
                    None => self.policies(target.resource_id()).await?,
                };
                let (min, max) = (target.min_capacity(), target.max_capacity());
                scaling.insert((*name).clone(), Autoscaling { min, max, cpu_percent, memory_percent });
            }
        }
        Ok(scaling)
    }

    /// What CPU and memory are aimed at, in percent; 0 where there is no policy.
    pub(crate) async fn policies(&self, resource: &str) -> anyhow::Result<(i32, i32)> {
        let call = self.clients.autoscaling().describe_scaling_policies().service_namespace(ServiceNamespace::Ecs);
        let answer = call.resource_id(resource).send().await;
        let answer =
            answer.map_err(|error| failed(&format!("describe the scaling policies of `{resource}`"), error))?;
        let target = |metric: MetricType| {
            let configurations = answer
                .scaling_policies()
                .iter()
                .filter_map(|policy| policy.target_tracking_scaling_policy_configuration());
            let mut of_metric = configurations.filter(|configuration| {
                configuration.predefined_metric_specification().map(|one| one.predefined_metric_type()) == Some(&metric)
            });
            #[allow(clippy::cast_possible_truncation, reason = "a percentage")]
            of_metric.next().map_or(0, |configuration| configuration.target_value() as i32)
        };
        Ok((
            target(MetricType::EcsServiceAverageCpuUtilization),
            target(MetricType::EcsServiceAverageMemoryUtilization),
        ))
    }

    /// How Application Auto Scaling calls a service.
    pub(crate) fn resource_id(&self, ecs_name: &str) -> String {
        format!("service/{}/{ecs_name}", self.cluster())
    }

    /// Refuses services that ECS would not change now.
    pub(crate) fn refuse_unchangeable(&self, services: &BTreeMap<String, Service>) -> anyhow::Result<()> {
        for (name, service) in services.iter().filter(|(name, _)| self.manifests.services.contains_key(*name)) {
            if service.status() == Some("DRAINING") {
                let hint = "it is being deleted: wait until its tasks have stopped, and run the same command again";
                return Err(Hinted::new(format!("service `{name}` is DRAINING"), hint).into());
            }
            let controller = service.deployment_controller().map(|controller| controller.r#type());
            if let Some(other) = controller.filter(|controller| **controller != DeploymentControllerType::Ecs) {
                let message = format!("service `{name}` is deployed by {other}, not by ECS");
                let hint = "its controller cannot be changed: delete the service, or take its manifest out";
                return Err(Hinted::new(message, hint).into());
            }
        }
        Ok(())
    }
}

/// Tags of everything that natsctl makes.
pub(crate) const TAG_PROJECT: &str = "natsctl:project";
pub(crate) const TAG_ENVIRONMENT: &str = "natsctl:environment";
pub(crate) const TAG_SERVICE: &str = "natsctl:service";

/// The deployment that a service is at, or is on its way to.
pub(crate) fn primary(service: &Service) -> Option<&Deployment> {
    service.deployments().iter().find(|deployment| deployment.status() == Some("PRIMARY"))
}

fn seen(
    service: &Service,
    definition: Definition,
    declared_tasks: u32,
    scaling: Option<Autoscaling>,
) -> ObservedService {
    let count = |number: i32| u32::try_from(number).unwrap_or(0);
    let primary = primary(service);
    let failed = primary.and_then(Deployment::rollout_state) == Some(&DeploymentRolloutState::Failed);
    let task_definition = service.task_definition().unwrap_or_default();
    let state = ServiceState {
        definition,
        revision: revision(task_definition),
        task_definition: Some(task_definition.to_owned()),
        declared_tasks,
        desired: count(service.desired_count()),
        failed,
        ecs: Some(ecs(service, scaling)),
    };
    let running = count(primary.map_or(service.running_count(), Deployment::running_count));
    ObservedService { state, running, revisions: Vec::new() }
}

/// Revisions whose last deployment failed.
fn failed_revisions(records: &[Record]) -> BTreeSet<String> {
    let mut last: BTreeMap<&String, bool> = BTreeMap::new();
    // The newest run is the first.
    for step in records.iter().rev().flat_map(|record| &record.steps) {
        if let Some(to) = &step.to {
            last.insert(to, step.result == "failed");
        }
    }
    last.into_iter().filter(|(_, failed)| *failed).map(|(arn, _)| arn.clone()).collect()
}

fn ecs(service: &Service, autoscaling: Option<Autoscaling>) -> EcsService {
    let network = service.network_configuration().and_then(|network| network.awsvpc_configuration());
    let deployment = service.deployment_configuration();
    let alarms =
        deployment.and_then(|deployment| deployment.alarms()).filter(|alarms| alarms.enable() && alarms.rollback());
    let breaker = deployment.and_then(|deployment| deployment.deployment_circuit_breaker());
    EcsService {
        name: service.service_name().unwrap_or_default().to_owned(),
        subnets: network.map(|network| network.subnets().iter().cloned().collect()).unwrap_or_default(),
        security_groups: network.map(|network| network.security_groups().iter().cloned().collect()).unwrap_or_default(),
        alarms: alarms.map(|alarms| alarms.alarm_names().iter().cloned().collect()).unwrap_or_default(),
        circuit_breaker: breaker.is_some_and(|breaker| breaker.enable() && breaker.rollback()),
        minimum_healthy_percent: deployment.and_then(|deployment| deployment.minimum_healthy_percent()).unwrap_or(100),
        maximum_percent: deployment.and_then(|deployment| deployment.maximum_percent()).unwrap_or(200),
        zone_rebalancing: service.availability_zone_rebalancing() == Some(&AvailabilityZoneRebalancing::Enabled),
        execute_command: service.enable_execute_command(),
        target_group: service.load_balancers().first().and_then(|one| one.target_group_arn()).map(str::to_owned),
        autoscaling,
    }
}

//! The observed state on ECS, with few calls: task definitions that natsctl has registered are recognised rather than described.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use aws_sdk_ecs::types::{
    Deployment, DeploymentControllerType, DeploymentRolloutState, LaunchType, SchedulingStrategy, Service,
};
use futures::{StreamExt as _, TryStreamExt as _};

use super::arn::revision;
use super::ledger::{Ledger, State, digest};
use super::services::{self, ByManifest, primary};
use super::task_definition::take_unnamed_tags;
use super::{AT_ONCE, Aws, autoscaling, named_image, revisions, service_settings};
use crate::error::Hinted;
use crate::manifest::Manifests;
use crate::model::desired::{Definition, Desired, Service as DesiredService};
use crate::model::ecs::Autoscaling;
use crate::model::observed::{Observed, ObservedService, ServiceState};

/// The observed state, and the answers that it was made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    pub(crate) observed: Observed,
    /// By the manifests' names.
    pub(crate) services: BTreeMap<String, Service>,
    /// What was last deployed, from the ledger.
    pub(crate) state: State,
}

impl AsRef<Observed> for Observation {
    fn as_ref(&self) -> &Observed {
        &self.observed
    }
}

/// The services of the environment for a deployment. What should be deployed is needed to recognise what is.
pub(crate) async fn for_deployment(aws: &Aws, desired: &Desired) -> anyhow::Result<Observation> {
    let ledger = Ledger::of(aws);
    // ECS does not list a service that is being deleted, but its name is still taken.
    let named = desired.services.keys().filter_map(|name| Some(aws.manifests.services.get(name)?.ecs_name()));
    let listed = services::list(aws.ecs_cluster(), named.collect());
    let (services, state) = futures::try_join!(listed, ledger.state())?;
    let services = ByManifest::new(&aws.manifests, &aws.handover, services);
    let mut services = services.refusing(|name| desired.services.contains_key(name))?;
    // A service that the deployment does not concern needs no calls.
    services.retain(|name, _| desired.services.contains_key(name) || !aws.manifests.services.contains_key(name));
    observation(aws, services, state, desired).await
}

/// These services, for changes that leave their definitions alone.
pub(crate) async fn services(aws: &Aws, names: &BTreeSet<String>) -> anyhow::Result<Observation> {
    let services = services::of_manifests(aws, names).await?;
    let state = Ledger::of(aws).state().await?;
    let mut observed = Observed::default();
    for (name, service) in &services {
        let declared = state.services.get(name).map(|known| known.declared_tasks);
        let described =
            revisions::describe(aws.clients.ecs(), aws.names(name), service.task_definition().unwrap_or_default())
                .await?;
        let read = Read {
            service,
            definition: described.definition,
            declared_tasks: declared.unwrap_or_default(),
            scaling: None,
            wanted: None,
        };
        let mut seen = read.seen()?;
        seen.state.inactive = !described.is_active;
        observed.services.insert(name.clone(), seen);
    }
    Ok(Observation { observed, services, state })
}

async fn observation(
    aws: &Aws,
    services: BTreeMap<String, Service>,
    state: State,
    desired: &Desired,
) -> anyhow::Result<Observation> {
    let ecs_name = |service: &Service| service.service_name().unwrap_or_default().to_owned();
    let ecs_names = services.iter().map(|(name, service)| (name.clone(), ecs_name(service))).collect();
    let scaling = autoscaling::describe(aws.clients.autoscaling(), aws.cluster(), &ecs_names);
    let definitions = definitions(aws, &services, &state, desired);
    let task_definitions = services.values().filter_map(|service| service.task_definition().map(str::to_owned));
    let inactive = revisions::inactive(aws.clients.ecs(), task_definitions.collect());
    let (mut definitions, scaling, inactive) = futures::try_join!(definitions, scaling, inactive)?;
    named_image::recognise(aws, &services, &mut definitions).await?;
    let mut observed = Observed::default();
    for (name, service) in &services {
        let Some(definition) = definitions.get(name) else { continue };
        let known = state.services.get(name).map(|known| known.declared_tasks);
        let declared = known.or_else(|| Some(desired.services.get(name)?.tasks)).unwrap_or_default();
        let read = Read {
            service,
            definition: definition.clone(),
            declared_tasks: declared,
            scaling: scaling.get(name),
            wanted: desired.services.get(name),
        };
        let mut seen = read.seen()?;
        seen.state.inactive = seen.state.task_definition.as_ref().is_some_and(|arn| inactive.contains(arn));
        observed.services.insert(name.clone(), seen);
    }
    Ok(Observation { observed, services, state })
}

/// What each service's task definition says.
async fn definitions(
    aws: &Aws,
    services: &BTreeMap<String, Service>,
    state: &State,
    desired: &Desired,
) -> anyhow::Result<BTreeMap<String, Definition>> {
    let one = |(name, task_definition): (String, String)| async move {
        let recognised = state.services.get(&name).filter(|known| known.task_definition == task_definition);
        let wanted = desired.services.get(&name).map(|wanted| &wanted.definition);
        if let (Some(known), Some(wanted)) = (recognised, wanted)
            && known.definition == digest(wanted)
        {
            return Ok((name, wanted.clone()));
        }
        let definition = definition(aws, &name, &task_definition).await?;
        Ok::<_, anyhow::Error>((name, definition))
    };
    let arn = |service: &Service| service.task_definition().unwrap_or_default().to_owned();
    let all: Vec<(String, String)> = services.iter().map(|(name, service)| (name.clone(), arn(service))).collect();
    futures::stream::iter(all).map(one).buffer_unordered(AT_ONCE).try_collect().await
}

/// What a task definition says, by its ARN or by `family:revision`; described once.
pub(crate) async fn definition(aws: &Aws, name: &str, task_definition: &str) -> anyhow::Result<Definition> {
    if let Some(known) = aws.revisions.lock().unwrap_or_else(PoisonError::into_inner).get(task_definition) {
        return Ok(known.clone());
    }
    let definition = revisions::describe(aws.clients.ecs(), aws.names(name), task_definition).await?.definition;
    let mut known = aws.revisions.lock().unwrap_or_else(PoisonError::into_inner);
    known.insert(task_definition.to_owned(), definition.clone());
    Ok(definition)
}

/// Refuses services that ECS would not update now.
pub(crate) fn refuse_unchangeable(manifests: &Manifests, services: &BTreeMap<String, Service>) -> anyhow::Result<()> {
    services
        .iter()
        .filter(|(name, _)| manifests.services.contains_key(*name))
        .try_for_each(|(name, service)| refuse_unchangeable_one(name, service))
}

/// The same of one service.
pub(super) fn refuse_unchangeable_one(name: &str, service: &Service) -> anyhow::Result<()> {
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
    let other = service.launch_type().filter(|launch_type| **launch_type != LaunchType::Fargate);
    let other = other.map(|launch_type| format!("has the launch type {launch_type}"));
    let daemon = (service.scheduling_strategy() == Some(&SchedulingStrategy::Daemon)).then(|| "is a DAEMON".to_owned());
    if let Some(other) = other.or(daemon) {
        let hint = "natsctl deploys to Fargate: delete the service, or take its manifest out";
        return Err(Hinted::new(format!("service `{name}` {other}"), hint).into());
    }
    Ok(())
}

/// What was read of a service.
pub(super) struct Read<'a> {
    pub(super) service: &'a Service,
    pub(super) definition: Definition,
    /// What the manifest asked for when it was last deployed.
    pub(super) declared_tasks: u32,
    pub(super) scaling: Option<&'a autoscaling::Found>,
    /// What it should be, for a deployment.
    pub(super) wanted: Option<&'a DesiredService>,
}

impl Read<'_> {
    /// The service, as a plan compares it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn seen(self) -> anyhow::Result<ObservedService> {
        let Self { service, mut definition, declared_tasks, scaling, wanted } = self;
        let tags = wanted.map(|wanted| take_unnamed_tags(&mut definition, &wanted.definition)).unwrap_or_default();
        let wanted = wanted.and_then(|wanted| wanted.ecs.as_ref());
        let count = |number: i32| u32::try_from(number).unwrap_or(0);
        let primary = primary(service);
        let failed = primary.and_then(Deployment::rollout_state) == Some(&DeploymentRolloutState::Failed);
        let task_definition = service.task_definition().unwrap_or_default();
        let service_settings::Seen { mut settings, mut kept } = service_settings::seen(service, wanted)?;
        let bounds = scaling.and_then(|scaling| scaling.scheduled);
        let wanted = wanted.and_then(|wanted| wanted.autoscaling).filter(|_| bounds.is_some());
        settings.autoscaling = scaling.map(|scaling| match wanted {
            // Scheduled actions move the bounds, and a deployment leaves them alone.
            Some(Autoscaling { min, max, .. }) => Autoscaling { min, max, ..scaling.autoscaling },
            None => scaling.autoscaling,
        });
        if !tags.is_empty() {
            kept.insert("tags of this revision alone".to_owned(), tags.into());
        }
        kept.extend(scaling.into_iter().flat_map(|scaling| scaling.others.clone()));
        let state = ServiceState {
            definition,
            revision: revision(task_definition),
            task_definition: Some(task_definition.to_owned()),
            declared_tasks,
            desired: count(service.desired_count()),
            failed,
            inactive: false,
            ecs: Some(settings),
        };
        let running = count(primary.map_or(service.running_count(), Deployment::running_count));
        Ok(ObservedService { state, running, revisions: Vec::new(), kept, bounds })
    }
}

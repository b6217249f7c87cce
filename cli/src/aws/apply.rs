//! Carries out a plan on ECS. Every step can be repeated, and a call whose answer was lost is checked before it is repeated: a run that
//! was interrupted at any call is completed by the next one.

mod rollback;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_ecs::types::Service as SdkService;
use futures::StreamExt as _;

use super::arn::revision;
use super::clients::Cluster;
use super::ecs_service::{self, Adjustment};
use super::images::{self, Images};
use super::ledger::{DeployedService, Ledger, State, digest};
use super::observe::Observation;
use super::rollout::{self, StartedDeployment};
use super::task_definition::other_tags;
use super::{Aws, autoscaling, identities, revisions, tags, tasks};
use crate::model::desired::{Definition, Service};
use crate::model::ecs::Autoscaling;
use crate::model::observed::{Assets, Seen, ServiceState};
use crate::model::plan::Plan;
use crate::model::rollout::Outcome;
use crate::model::step::{Action, Kind, Operation, Step};
use crate::pipeline::Progress;
use crate::pipeline::options::Options;

/// How long Fargate may take until a task runs: a slow pull and the deregistration delay of a load balancer included.
const FARGATE: Duration = Duration::from_secs(300);

/// A plan that is carried out on ECS.
pub(crate) struct Work<'a> {
    aws: &'a Aws,
    options: &'a Options,
    images: Option<&'a Images>,
    /// Families with active revisions, if the plan creates services.
    families: BTreeSet<String>,
    /// What was deployed.
    state: State,
    /// The state as the ledger has it.
    written: State,
    /// The streams and buckets, as far as they were observed.
    assets: Assets,
    /// Whether this run has changed any of them.
    changed_assets: bool,
    /// The services as they were before, by the manifests' names.
    before: &'a BTreeMap<String, SdkService>,
    started: BTreeMap<String, Started>,
}

/// A deployment that a step has started.
struct Started {
    deployment: StartedDeployment,
    /// What the ledger should have of it; `None` if the step deploys no definition of a manifest.
    deployed: Option<DeployedService>,
    /// How its scaling was changed, or may have been.
    scaling: Option<ScalingChange>,
    /// Why its scaling could not be changed.
    scaling_error: Option<anyhow::Error>,
    /// Whether the task definition before was deregistered.
    was_inactive: bool,
}

/// A change of how a service scales; `None` if it did not.
#[derive(Clone, Copy)]
struct ScalingChange {
    from: Option<Autoscaling>,
    to: Autoscaling,
}

impl<'a> Work<'a> {
    /// Renews identities on NATS first whose time has come, since tasks read theirs when they start.
    pub(super) async fn begin(
        aws: &'a Aws,
        plan: &Plan,
        observation: &'a Observation,
        images: Option<&'a Images>,
        options: &'a Options,
    ) -> anyhow::Result<Self> {
        let mut state = observation.state.clone();
        let written = state.clone();
        let deploys = plan.steps.iter().any(|step| matches!(step.operation, Operation::DeployService { .. }));
        let changes_assets =
            plan.steps.iter().any(|step| matches!(step.kind(), Kind::Stream | Kind::Bucket | Kind::Consumer));
        let writes_identities = plan.steps.iter().any(|step| step.kind() == Kind::Identity);
        if (deploys || changes_assets) && !writes_identities {
            identities::ensure_if_stale(aws, &mut state).await?;
        }
        let creates =
            |step: &Step| matches!(&step.operation, Operation::DeployService { before, .. } if before.is_none());
        let families = if plan.steps.iter().any(creates) {
            revisions::families(aws.clients.ecs()).await?
        } else {
            BTreeSet::new()
        };
        let assets = match &observation.observed.jetstream {
            Seen::Present(assets) => assets.clone(),
            _ => Assets::default(),
        };
        let (before, started) = (&observation.services, BTreeMap::new());
        Ok(Self { aws, options, images, families, state, written, assets, changed_assets: false, before, started })
    }

    /// Carries out the steps of one wave.
    pub(super) async fn apply(&mut self, wave: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        let of = |kinds: &[Kind]| -> Vec<&Step> {
            wave.iter().copied().filter(|step| kinds.contains(&step.kind())).collect()
        };
        let identities = of(&[Kind::Identity]);
        if !identities.is_empty() {
            self.put_identities(&identities, progress).await?;
        }
        let images = of(&[Kind::Image]);
        if !images.is_empty() {
            self.push(&images, progress).await?;
        }
        let assets = of(&[Kind::Stream, Kind::Bucket, Kind::Consumer]);
        if !assets.is_empty() {
            self.put_assets(&assets, progress).await?;
        }
        let (deleted, services): (Vec<&Step>, Vec<&Step>) =
            of(&[Kind::Service]).into_iter().partition(|step| step.action() == Action::Delete);
        if !services.is_empty() {
            self.roll(&services, progress).await?;
            self.save(progress).await?;
        }
        for step in deleted {
            self.delete(step, progress).await?;
        }
        for step in of(&[Kind::Task]) {
            progress.started(step);
            tasks::stop(self.aws.ecs_cluster(), step.name(), "stopped by hand", &self.aws.caller).await?;
            progress.ended(step, "done");
        }
        if wave.iter().any(|step| matches!(step.kind(), Kind::Node | Kind::Environment | Kind::Data)) {
            anyhow::bail!("this step is for local environments");
        }
        Ok(())
    }

    /// Writes all identities at once: one authority makes them.
    async fn put_identities(&mut self, steps: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        for step in steps {
            progress.started(step);
        }
        identities::ensure_recorded(self.aws, &mut self.state).await?;
        for step in steps {
            progress.ended(step, "done");
        }
        self.save(progress).await
    }

    async fn push(&self, steps: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        let names: Vec<&str> = steps.iter().map(|step| step.name()).collect();
        for step in steps {
            let record = progress.started(step);
            if let Operation::PushImage { image, .. } = &step.operation {
                record.image = Some(image.digest.clone());
            }
        }
        images::push(self.aws, &names, self.images.context("only a deployment pushes images")?).await?;
        for step in steps {
            progress.ended(step, "done");
        }
        Ok(())
    }

    /// Puts all streams, buckets and consumers of a wave at once: reaching NATS may take a task.
    async fn put_assets(&mut self, steps: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        let (mut wanted, mut deleted) = (Assets::default(), BTreeSet::new());
        for step in steps {
            progress.started(step);
            match &step.operation {
                Operation::PutStream { stream, config, .. } | Operation::ReduceStream { stream, config, .. } => {
                    wanted.streams.insert(stream.clone(), config.clone());
                }
                Operation::PutBucket { bucket, config, .. } | Operation::ReduceBucket { bucket, config, .. } => {
                    wanted.buckets.insert(bucket.clone(), config.clone());
                }
                Operation::PutConsumer { consumer, config, .. } => {
                    wanted.consumers.insert(consumer.clone(), config.clone());
                }
                Operation::DeleteConsumer { consumer } => {
                    deleted.insert(consumer.clone());
                }
                _ => {}
            }
        }
        let binaries = images::binaries(&self.options.binaries).ok();
        let bus = self.aws.bus().await?;
        self.changed_assets = true;
        if wanted != Assets::default() {
            bus.ensure(self.aws, wanted.clone(), binaries.as_ref()).await?;
        }
        if !deleted.is_empty() {
            bus.delete_consumers(self.aws, deleted.clone(), binaries.as_ref()).await?;
        }
        for step in steps {
            progress.ended(step, "done");
        }
        self.assets.consumers.extend(wanted.consumers);
        self.assets.consumers.retain(|name, _| !deleted.contains(name));
        self.assets.streams.extend(wanted.streams);
        self.assets.buckets.extend(wanted.buckets);
        self.state.assets = Some(serde_json::to_string(&self.assets)?);
        Ok(())
    }

    /// Starts the deployments of a wave, a few at a time, and follows them to their ends.
    async fn roll(&mut self, steps: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        let start = |step: &Step| {
            let operation = step.operation.clone();
            let this = &*self;
            async move { this.start(&operation).await }
        };
        let all: Vec<_> = steps.iter().map(|step| start(step)).collect();
        let outcomes: Vec<_> = futures::stream::iter(all).buffered(self.options.max_parallel).collect().await;
        let mut follow = Vec::new();
        for (step, outcome) in steps.iter().zip(outcomes) {
            let record = progress.started(step);
            match outcome {
                Ok(mut started) => {
                    let deployment = started.deployment.clone();
                    record.from.clone_from(&deployment.before);
                    record.to = Some(deployment.task_definition.clone());
                    record.image = started.deployed.as_ref().map(|deployed| deployed.image.clone());
                    match &started.scaling_error {
                        Some(error) => progress.failed_by(step, error),
                        None => {
                            self.remember(step, started.deployed.take());
                            follow.push((deployment, progress.follow(step)));
                        }
                    }
                    self.started.insert(step.name().to_owned(), started);
                }
                Err(error) => progress.failed_by(step, &error),
            }
        }
        // Before they are followed, so that the next run knows what this one started, even if it is killed.
        self.save(progress).await?;
        let mut outcomes = rollout::follow(self.aws, follow, self.options.wait_until, self.within(steps)).await?;
        for step in steps {
            let Some(outcome) = outcomes.remove(step.name()) else { continue };
            let task_definition = self.started[step.name()].deployment.task_definition.clone();
            if matches!(outcome, Outcome::Superseded(_)) {
                // Another run has deployed the service: rolling it back is not ours.
                self.started.remove(step.name());
            }
            match outcome.explanation(step.name(), revision(&task_definition), image_of(&step.operation).as_deref()) {
                None => progress.ended(step, "done"),
                Some(explanation) => {
                    self.state.services.remove(step.name());
                    progress.failed(step, explanation);
                }
            }
        }
        Ok(())
    }

    fn remember(&mut self, step: &Step, deployed: Option<DeployedService>) {
        match (&step.operation, deployed) {
            (_, Some(deployed)) => drop(self.state.services.insert(step.name().to_owned(), deployed)),
            // It no longer runs what was deployed from its manifest.
            (Operation::RollBackService { service, .. }, None) => drop(self.state.services.remove(service)),
            _ => {}
        }
    }

    /// Writes the state, if it differs, and the record of the run.
    async fn save(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let ledger = Ledger::of(self.aws);
        if self.state != self.written {
            ledger.put_state(&self.state).await?;
            self.written = self.state.clone();
        }
        ledger.put_record(&progress.record).await
    }

    /// How long the deployments of a wave may take.
    fn within(&self, steps: &[&Step]) -> Duration {
        let of_step = |step: &&Step| {
            let definition = match &step.operation {
                Operation::DeployService { target, .. } => &target.definition,
                Operation::RestartService { before, .. }
                | Operation::ScaleService { before, .. }
                | Operation::RollBackService { before, .. } => &before.definition,
                _ => return None,
            };
            let health = definition.health;
            Some(health.start_period * 2 + health.interval * health.retries * 2 + definition.stop_timeout)
        };
        let slowest = steps.iter().filter_map(of_step).max().unwrap_or_default();
        self.options.timeout.unwrap_or(FARGATE + slowest)
    }

    async fn start(&self, operation: &Operation) -> anyhow::Result<Started> {
        match operation {
            Operation::DeployService { service, before, target, tasks, action } => {
                self.deploy(service, before.as_deref(), target, *tasks, *action).await
            }
            Operation::RestartService { service, before } => {
                self.adjust(service, before, Adjustment::NewDeployment).await
            }
            Operation::ScaleService { service, before, tasks } => {
                self.adjust(service, before, Adjustment::Tasks(*tasks)).await
            }
            Operation::RollBackService { service, before, to } => {
                let task_definition = to.task_definition.clone().context("a revision for ECS")?;
                self.adjust(service, before, Adjustment::TaskDefinition(task_definition)).await
            }
            _ => anyhow::bail!("this step deploys no service"),
        }
    }

    async fn deploy(
        &self,
        name: &str,
        before: Option<&ServiceState>,
        target: &Service,
        tasks: u32,
        action: Action,
    ) -> anyhow::Result<Started> {
        let aws = self.aws;
        let ecs = target.ecs.as_ref().with_context(|| format!("service `{name}` is not one for ECS"))?;
        let current = before.and_then(|before| before.task_definition.clone());
        let task_definition = match (&current, before) {
            (Some(current), Some(before)) if before.definition == target.definition && !before.inactive => {
                current.clone()
            }
            _ => self.register(name, &target.definition, before.is_some()).await?,
        };
        let wanted = ecs_service::Target { name, ecs, task_definition: &task_definition, tasks };
        let after = match before {
            None => {
                let tags = tags::of(&aws.handover, name).into_iter().chain(other_tags(&target.definition)).collect();
                ecs_service::create(aws.ecs_cluster(), tags, wanted).await?
            }
            Some(before) => {
                let force_new_deployment = action == Action::Start && before.failed;
                ecs_service::update(aws.ecs_cluster(), wanted, before, force_new_deployment).await?
            }
        };
        let from = before.and_then(|before| before.ecs.as_ref()?.autoscaling);
        let scaling = ecs.autoscaling.filter(|to| from != Some(*to)).map(|to| ScalingChange { from, to });
        // The service was changed already: whatever becomes of its scaling, it can be rolled back.
        let scaling_error = match scaling {
            Some(ScalingChange { from, to }) => {
                let ecs_name = after.service_name().unwrap_or_default();
                autoscaling::put(aws.clients.autoscaling(), aws.cluster(), name, ecs_name, from, to).await.err()
            }
            None => None,
        };
        let deployment = StartedDeployment::of(name, &after, current, &task_definition);
        let deployed = DeployedService {
            ecs_name: Some(ecs.name.clone()),
            definition: digest(&target.definition),
            version: target.definition.version.clone(),
            image: image(target),
            tag: self.images.and_then(|images| images.tag(name)),
            declared_tasks: target.tasks,
            autoscaling: ecs.autoscaling,
            task_definition,
        };
        let was_inactive = before.is_some_and(|before| before.inactive);
        Ok(Started { deployment, deployed: Some(deployed), scaling, scaling_error, was_inactive })
    }

    /// ARN of a task definition that says this.
    async fn register(&self, name: &str, definition: &Definition, is_deployed: bool) -> anyhow::Result<String> {
        let (ecs, handover) = (self.aws.clients.ecs(), &self.aws.handover);
        let family = &definition.ecs.as_ref().context("a definition for ECS")?.family;
        if is_deployed || self.families.contains(family) {
            revisions::find_or_register(ecs, handover, name, definition).await
        } else {
            revisions::register(ecs, handover, name, definition).await
        }
    }

    /// Updates one property of a deployed service.
    async fn adjust(&self, name: &str, before: &ServiceState, adjustment: Adjustment) -> anyhow::Result<Started> {
        let ecs_name = before.ecs.as_ref().map(|ecs| ecs.name.clone());
        let ecs_name = ecs_name.with_context(|| format!("service `{name}` is not one for ECS"))?;
        let (was_inactive, before) = (before.inactive, before.task_definition.clone());
        // ECS starts a deployment only of a revision that is active.
        let adjustment = match (&adjustment, &before) {
            (Adjustment::NewDeployment, Some(before)) if was_inactive => {
                let again = revisions::register_again(self.aws.clients.ecs(), before).await?;
                Adjustment::TaskDefinition(again)
            }
            _ => adjustment,
        };
        let deployment = adjust(self.aws.ecs_cluster(), name, &ecs_name, before, adjustment).await?;
        Ok(Started { deployment, deployed: None, scaling: None, scaling_error: None, was_inactive })
    }

    async fn delete(&mut self, step: &Step, progress: &mut Progress) -> anyhow::Result<()> {
        let Operation::DeleteService { service, before } = &step.operation else { return Ok(()) };
        let name = before.ecs.as_ref().map(|ecs| ecs.name.clone());
        let name = name.with_context(|| format!("service `{service}` is not one for ECS"))?;
        progress.started(step);
        progress.is_at(step, "its tasks finish what they have begun");
        ecs_service::delete(self.aws.ecs_cluster(), self.aws.clients.autoscaling(), service, &name).await?;
        progress.ended(step, "done");
        self.state.services.remove(service);
        self.save(progress).await
    }
}

/// Updates one property of a service, which starts a deployment.
async fn adjust(
    cluster: Cluster<'_>,
    name: &str,
    ecs_name: &str,
    before: Option<String>,
    adjustment: Adjustment,
) -> anyhow::Result<StartedDeployment> {
    let wanted = match &adjustment {
        Adjustment::TaskDefinition(arn) => Some(arn.clone()),
        Adjustment::Tasks(_) | Adjustment::NewDeployment => before.clone(),
    };
    let service = ecs_service::adjust(cluster, name, ecs_name, adjustment).await?;
    let wanted = wanted.or_else(|| service.task_definition.clone()).unwrap_or_default();
    Ok(StartedDeployment::of(name, &service, before, &wanted))
}

/// Image of the service that a step deploys.
fn image_of(operation: &Operation) -> Option<String> {
    match operation {
        Operation::DeployService { target, .. } => Some(image(target)),
        _ => None,
    }
}

/// Image of a service, with its digest.
fn image(service: &Service) -> String {
    let repository = service.definition.ecs.as_ref().map(|task| task.repository.as_str()).unwrap_or_default();
    format!("{repository}@{}", service.definition.artifact)
}

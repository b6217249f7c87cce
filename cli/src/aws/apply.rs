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
    DeploymentConfiguration, LaunchType, LoadBalancer, NetworkConfiguration, PropagateTags, Service as Found, Tag,
};
use futures::StreamExt as _;

use super::Aws;
use super::arn::revision;
use super::error::{code, failed, is_uncertain};
use super::images::Images;
use super::ledger::{DeployedService, State, digest};
use super::observe::{Observation, TAG_ENVIRONMENT, TAG_PROJECT, TAG_SERVICE, primary};
use super::rollout::StartedDeployment;
use super::task_definition::registration;
use super::{identities, revisions, tasks};
use crate::model::desired::Service;
use crate::model::ecs::{Autoscaling, EcsService};
use crate::model::observed::{Assets, Seen, ServiceState};
use crate::model::plan::Plan;
use crate::model::rollout::Outcome;
use crate::model::step::{Action, Kind, Operation, Step};
use crate::model::task::GATEWAY_PORT;
use crate::pipeline::Progress;
use crate::pipeline::options::{Options, WaitUntil};
use crate::screen::note;

/// What Fargate may take until a task runs, with room for a slow pull and for a load balancer that forgets old tasks.
const FARGATE: Duration = Duration::from_secs(300);
/// How long an old task may still answer while the load balancer forgets it.
const HEALTH_CHECK_GRACE_SECONDS: i32 = 60;
/// Before a call that must not be repeated blindly is tried again; twice as long each time.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(400);
/// No longer than this.
const AT_MOST: Duration = Duration::from_secs(10);
/// Tries of such a call. ECS takes one registration a second for long, and more for a moment.
const TRIES: u32 = 10;

/// A plan that is carried out on ECS.
pub(crate) struct Work<'a> {
    aws: &'a Aws,
    options: &'a Options,
    images: Option<&'a Images>,
    /// Families that have revisions, of services that are not there yet.
    families: BTreeSet<String>,
    /// What is remembered of the environment, and how much of that is written already.
    state: State,
    written: State,
    /// Streams and buckets as they are, where they were read.
    assets: Assets,
    started: BTreeMap<String, StartedDeployment>,
}

/// A service on its way to what a step says.
struct Started {
    deployment: StartedDeployment,
    /// What is remembered of it; `None` if that is what it was.
    remembered: Option<DeployedService>,
}

impl<'a> Work<'a> {
    /// Gets ready: makes identities on NATS that are missing, since tasks read theirs when they start.
    pub(super) async fn begin(
        aws: &'a Aws,
        plan: &Plan,
        observation: &Observation,
        images: Option<&'a Images>,
        options: &'a Options,
    ) -> anyhow::Result<Self> {
        let mut state = observation.state.clone();
        let written = state.clone();
        let deploys = plan.steps.iter().any(|step| matches!(step.operation, Operation::DeployService { .. }));
        let changes_assets = plan.steps.iter().any(|step| matches!(step.kind(), Kind::Stream | Kind::Bucket));
        if deploys || changes_assets {
            state.identities = Some(identities::ensure_if_stale(aws, state.identities.as_ref()).await?);
        }
        let creates =
            |step: &Step| matches!(&step.operation, Operation::DeployService { before, .. } if before.is_none());
        let families = if plan.steps.iter().any(creates) { aws.families().await? } else { BTreeSet::new() };
        let assets = match &observation.observed.jetstream {
            Seen::Present(assets) => assets.clone(),
            _ => Assets::default(),
        };
        Ok(Self { aws, options, images, families, state, written, assets, started: BTreeMap::new() })
    }

    /// Carries out the steps of one wave.
    pub(super) async fn apply(&mut self, wave: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        let of = |kinds: &[Kind]| -> Vec<&Step> {
            wave.iter().copied().filter(|step| kinds.contains(&step.kind())).collect()
        };
        let images = of(&[Kind::Image]);
        if !images.is_empty() {
            self.push(&images, progress).await?;
        }
        let assets = of(&[Kind::Stream, Kind::Bucket]);
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

    async fn push(&self, steps: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        let names: Vec<&str> = steps.iter().map(|step| step.name()).collect();
        self.aws.push(&names, self.images.context("only a deployment pushes images")?).await?;
        for step in steps {
            let Operation::PushImage { image, .. } = &step.operation else { continue };
            let record = progress.started(step);
            record.image = Some(image.digest.clone());
            record.result = "done".to_owned();
        }
        Ok(())
    }

    /// All streams and buckets of a wave at once: it may take a task to reach the bus.
    async fn put_assets(&mut self, steps: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        let mut wanted = Assets::default();
        for step in steps {
            progress.started(step);
            match &step.operation {
                Operation::PutStream { stream, config, .. } | Operation::ReduceStream { stream, config, .. } => {
                    wanted.streams.insert(stream.clone(), config.clone());
                }
                Operation::PutBucket { bucket, config, .. } | Operation::ReduceBucket { bucket, config, .. } => {
                    wanted.buckets.insert(bucket.clone(), config.clone());
                }
                _ => {}
            }
        }
        self.aws.put_assets(wanted.clone(), &self.options.binaries).await?;
        for step in steps {
            progress.ended(step, "done");
            note(&format!("{step} done"));
        }
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
                Ok(Started { deployment, remembered }) => {
                    record.from.clone_from(&deployment.before);
                    record.to = Some(deployment.task_definition.clone());
                    record.image = remembered.as_ref().map(|remembered| remembered.image.clone());
                    self.remember(step, remembered);
                    self.started.insert(step.name().to_owned(), deployment.clone());
                    follow.push(deployment);
                }
                Err(error) => progress.failed_by(step, &error),
            }
        }
        // Before they are followed: a run that is killed now must not have forgotten what it started.
        self.save(progress).await?;
        let mut outcomes = self.aws.follow(follow, self.options.wait_until, self.within(steps)).await?;
        for step in steps {
            let Some(outcome) = outcomes.remove(step.name()) else { continue };
            let task_definition = self.started[step.name()].task_definition.clone();
            if matches!(outcome, Outcome::Superseded(_)) {
                // It is another run's now, and so is rolling it back.
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

    fn remember(&mut self, step: &Step, remembered: Option<DeployedService>) {
        match (&step.operation, remembered) {
            (_, Some(remembered)) => drop(self.state.services.insert(step.name().to_owned(), remembered)),
            // What a manifest brought it to is not what it runs now.
            (Operation::RollBackService { service, .. }, None) => drop(self.state.services.remove(service)),
            _ => {}
        }
    }

    /// Writes what must not be forgotten.
    async fn save(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let ledger = self.aws.ledger();
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
                self.move_service(service, before, Move { restart: true, ..Move::default() }).await
            }
            Operation::ScaleService { service, before, tasks } => {
                self.move_service(service, before, Move { tasks: Some(*tasks), ..Move::default() }).await
            }
            Operation::RollBackService { service, before, to } => {
                let task_definition = to.task_definition.clone();
                self.move_service(service, before, Move { task_definition, ..Move::default() }).await
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
        let ecs = target.ecs.as_ref().with_context(|| format!("service `{name}` is not one for ECS"))?;
        let current = before.and_then(|before| before.task_definition.clone());
        let task_definition = match (&current, before) {
            (Some(current), Some(before)) if before.definition == target.definition => current.clone(),
            _ => self.aws.register(name, target, before.is_some(), &self.families).await?,
        };
        let after = match before {
            None => self.create(name, ecs, &task_definition, tasks).await?,
            Some(before) => self.update(name, action, ecs, before, &task_definition, tasks).await?,
        };
        let autoscaling = before.and_then(|before| before.ecs.as_ref()?.autoscaling);
        if let Some(wanted) = ecs.autoscaling.filter(|wanted| autoscaling != Some(*wanted)) {
            self.scale(name, &after, wanted, autoscaling).await?;
        }
        let deployment = StartedDeployment::of(name, &after, current, &task_definition);
        let remembered = DeployedService {
            definition: digest(&target.definition),
            version: target.definition.version.clone(),
            image: image(target),
            tag: self.images.and_then(|images| images.tag(name)),
            declared_tasks: target.tasks,
            autoscaling: ecs.autoscaling,
            task_definition,
        };
        Ok(Started { deployment, remembered: Some(remembered) })
    }

    /// Changes one thing of a service that is there.
    async fn move_service(&self, name: &str, before: &ServiceState, to: Move) -> anyhow::Result<Started> {
        let ecs_name = before.ecs.as_ref().map(|ecs| ecs.name.clone());
        let ecs_name = ecs_name.with_context(|| format!("service `{name}` is not one for ECS"))?;
        let deployment = self.aws.move_service(name, &ecs_name, before.task_definition.clone(), to).await?;
        Ok(Started { deployment, remembered: None })
    }

    async fn create(&self, name: &str, ecs: &EcsService, task_definition: &str, tasks: u32) -> anyhow::Result<Found> {
        let call = self
            .aws
            .clients
            .ecs()
            .create_service()
            .cluster(self.aws.cluster())
            .service_name(&ecs.name)
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
            .client_token(token(&[self.aws.cluster(), &ecs.name, task_definition]));
        let answer = call.send().await.map_err(|error| failed(&format!("create the service `{name}`"), error))?;
        answer.service.with_context(|| format!("ECS says nothing of the service `{name}` that it has created"))
    }

    async fn update(
        &self,
        name: &str,
        action: Action,
        ecs: &EcsService,
        before: &ServiceState,
        task_definition: &str,
        tasks: u32,
    ) -> anyhow::Result<Found> {
        let is_same = before.task_definition.as_deref() == Some(task_definition)
            && same_besides_scaling(before.ecs.as_ref(), ecs)
            && before.desired == tasks;
        if is_same && !before.failed {
            // Nothing to change: it is on its way already, or only what scales it differs.
            let mut services = self.aws.describe_services(std::slice::from_ref(&ecs.name)).await?;
            return services.remove(&ecs.name).with_context(|| format!("the service `{name}` was deleted meanwhile"));
        }
        let call = self
            .aws
            .clients
            .ecs()
            .update_service()
            .cluster(self.aws.cluster())
            .service(&ecs.name)
            .task_definition(task_definition)
            // What autoscaling has set stays, unless the plan says another number.
            .set_desired_count((before.desired != tasks).then(|| count(tasks)))
            .network_configuration(network(&ecs.subnets, &ecs.security_groups)?)
            .deployment_configuration(deployment(ecs)?)
            .availability_zone_rebalancing(rebalancing(ecs))
            .enable_execute_command(ecs.execute_command)
            .propagate_tags(PropagateTags::Service)
            .set_load_balancers(load_balancers(name, ecs))
            .force_new_deployment(action == Action::Start && before.failed);
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
        let resource = self.aws.resource_id(found.service_name().unwrap_or_default());
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

    async fn delete(&mut self, step: &Step, progress: &mut Progress) -> anyhow::Result<()> {
        let Operation::DeleteService { service, before } = &step.operation else { return Ok(()) };
        let name = before.ecs.as_ref().map(|ecs| ecs.name.clone());
        let name = name.with_context(|| format!("service `{service}` is not one for ECS"))?;
        note(&format!("service {service}: draining, then deleting it"));
        progress.started(step);
        self.aws.delete_service(service, &name).await?;
        progress.ended(step, "done");
        self.state.services.remove(service);
        self.save(progress).await
    }

    /// Everything that this run has changed goes back to what ran before.
    pub(super) async fn roll_back(&mut self, progress: &mut Progress) -> anyhow::Result<()> {
        if self.started.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = self.started.values().map(|started| started.ecs_name.clone()).collect();
        let services = self.aws.describe_services(&names).await?;
        let mut moves = BTreeMap::new();
        for (name, started) in &self.started {
            let now = services.get(&started.ecs_name).and_then(|now| now.task_definition());
            match &started.before {
                Some(before) if now != Some(before) => {
                    moves.insert(name, Move { task_definition: Some(before.clone()), ..Move::default() });
                }
                // Nothing ran before: a new service that does not come up stays, without tasks that crash.
                None if progress.failures.contains_key(name) => {
                    moves.insert(name, Move { tasks: Some(0), ..Move::default() });
                }
                _ => {}
            }
        }
        let back: Vec<&str> = moves.keys().map(|name| name.as_str()).collect();
        let back = if back.is_empty() { "ECS has done so".to_owned() } else { back.join(", ") };
        note(&format!("rolling back to what ran before: {back}"));
        let mut follow = Vec::new();
        for (name, to) in &moves {
            let StartedDeployment { ecs_name, before, .. } = &self.started[*name];
            follow.push(self.aws.move_service(name, ecs_name, before.clone(), to.clone()).await?);
        }
        // Without tasks there is nothing to come up: the deployment that failed stays the last one of a new service.
        follow.retain(|started| started.before.is_some());
        // Those that ECS rolls back itself.
        for (name, started) in &self.started {
            let now = services.get(&started.ecs_name).filter(|now| primary(now).is_some());
            if let Some(now) = now.filter(|_| !moves.contains_key(name) && started.before.is_some()) {
                let wanted = now.task_definition().unwrap_or_default();
                follow.push(StartedDeployment::of(name, now, started.before.clone(), wanted));
            }
        }
        let outcomes = self.aws.follow(follow, WaitUntil::Completed, FARGATE).await?;
        for name in self.started.keys() {
            self.state.services.remove(name);
        }
        for (name, outcome) in outcomes {
            let before = self.started[&name].before.as_deref().unwrap_or_default();
            if let Some(reason) = outcome.explanation(&name, revision(before), None) {
                let failure = progress.failures.entry(name).or_default();
                failure.push_str(&format!("\nand rolling back failed:\n{reason}"));
            }
        }
        progress.aftermath = Some("what this run had changed went back to what ran before".to_owned());
        self.save(progress).await
    }
}

/// One thing of a service to change.
#[derive(Clone, Debug, Default)]
struct Move {
    /// Another task definition.
    task_definition: Option<String>,
    /// Another number of tasks.
    tasks: Option<u32>,
    /// New tasks even if nothing differs.
    restart: bool,
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

    /// The ARN of a task definition that says this: the newest of its family, or a new one.
    pub(crate) async fn register(
        &self,
        name: &str,
        service: &Service,
        is_there: bool,
        families: &BTreeSet<String>,
    ) -> anyhow::Result<String> {
        let definition = &service.definition;
        let family = &definition.ecs.as_ref().context("a definition for ECS")?.family;
        let mut look = is_there || families.contains(family);
        for attempt in 1.. {
            if look && let Some(arn) = self.newest_if_equal(name, service, family).await? {
                return Ok(arn);
            }
            let once = aws_sdk_ecs::config::Builder::new().retry_config(RetryConfig::disabled());
            let call = registration(self.clients.ecs(), name, definition)?.set_tags(Some(self.tags(name)));
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
        let Some(found) = revisions::newest(self.clients.ecs(), name, family).await? else { return Ok(None) };
        let is_equal = found.is_active && found.definition == service.definition;
        Ok(is_equal.then_some(found.arn))
    }

    /// Changes one thing of a service that is there; as `restart`, `scale` and a rollback do.
    async fn move_service(
        &self,
        name: &str,
        ecs_name: &str,
        before: Option<String>,
        to: Move,
    ) -> anyhow::Result<StartedDeployment> {
        let call = self.clients.ecs().update_service().cluster(self.cluster()).service(ecs_name);
        let wanted = to.task_definition.clone().or_else(|| before.clone());
        let call = call
            .set_task_definition(to.task_definition)
            .set_desired_count(to.tasks.map(count))
            .force_new_deployment(to.restart);
        let answer = call.send().await.map_err(|error| failed(&format!("update the service `{name}`"), error))?;
        let service = answer.service.with_context(|| format!("ECS says nothing of the service `{name}`"))?;
        let wanted = wanted.or_else(|| service.task_definition.clone()).unwrap_or_default();
        Ok(StartedDeployment::of(name, &service, before, &wanted))
    }

    /// Deletes a service that nothing asks for, after its tasks have finished what they had begun.
    async fn delete_service(&self, name: &str, ecs_name: &str) -> anyhow::Result<()> {
        let drain = self.clients.ecs().update_service().cluster(self.cluster()).service(ecs_name).desired_count(0);
        drain.send().await.map_err(|error| failed(&format!("drain the service `{name}`"), error))?;
        let resource = self.resource_id(ecs_name);
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

/// Image of the service that a step deploys.
fn image_of(operation: &Operation) -> Option<String> {
    match operation {
        Operation::DeployService { target, .. } => Some(image(target)),
        _ => None,
    }
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

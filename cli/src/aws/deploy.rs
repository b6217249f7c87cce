//! A deployment on ECS: plan, lock, plan again on what is there now, wave by wave, and back again if it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_ecs::types::Service;
use serde::{Deserialize, Serialize};

use super::apply::{Change, Target, image};
use super::desired::Frame;
use super::images::Images;
use super::ledger::{Done, Ensured, Known, Outcome, Record};
use super::observe::{Seen, primary};
use super::proof::Evidence;
use super::rollout::{Begun, Ended};
use super::{Aws, identities};
use crate::commands::rollout::{OnFailure, ProofMode, Until};
use crate::error::Hinted;
use crate::image::Binaries;
use crate::local::lock::IfTaken;
use crate::model::desired::Desired;
use crate::model::plan::{Action, Kind, Observed, Plan, Step};
use crate::screen::note;

/// What Fargate may take until a task runs, with room for a slow pull and for a load balancer that forgets old tasks.
const FARGATE: Duration = Duration::from_secs(300);

/// How a deployment is to be done.
pub(crate) struct Options {
    pub(crate) which: BTreeSet<String>,
    pub(crate) scope: Scope,
    pub(crate) binaries: Binaries,
    pub(crate) if_taken: IfTaken,
    pub(crate) on_failure: OnFailure,
    pub(crate) until: Until,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_parallel: usize,
    /// The plan that somebody has seen.
    pub(crate) reviewed: Option<Reviewed>,
}

/// What is looked at, besides the services that were named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// Whether every service was named.
    pub(crate) all: bool,
    /// Whether services that no manifest names go.
    pub(crate) prune: bool,
    /// Whether the bus is asked, and so streams and buckets are looked at.
    pub(crate) proof: ProofMode,
}

impl Scope {
    fn prunes(self) -> bool {
        self.all && self.prune
    }
}

/// A plan as a reviewer has seen it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reviewed {
    pub(crate) environment: String,
    pub(crate) plan: Plan,
}

/// What should be, what is there, and what is to be done.
pub(crate) struct Prepared {
    pub(crate) desired: Desired,
    pub(crate) seen: Seen,
    pub(crate) plan: Plan,
}

/// What a deployment did.
pub(crate) struct Deployed {
    pub(crate) plan: Plan,
    pub(crate) proofs: Vec<String>,
    /// Id of its record; `None` if nothing had to be done.
    pub(crate) record: Option<String>,
}

impl Aws {
    /// What should be, and the images that it takes.
    pub(crate) async fn desired(
        &self,
        which: &BTreeSet<String>,
        binaries: &Binaries,
    ) -> anyhow::Result<(Desired, Images)> {
        let ledger = self.ledger();
        let (state, secrets) = futures::try_join!(ledger.state(), self.secrets())?;
        let images = self.images(which, binaries, &state).await?;
        // Of a service that is not deployed now nothing needs to be built.
        let image = |name: &String| images.desired.get(name).cloned().unwrap_or_default();
        let of_all = self.manifests.services.keys().map(|name| (name.clone(), image(name))).collect();
        let frame = Frame { manifests: &self.manifests, handover: &self.handover, secrets: &secrets, images: &of_all };
        let mut desired = frame.desired()?;
        desired.services.retain(|name, _| which.contains(name));
        desired.images.retain(|name, _| which.contains(name));
        Ok((desired, images))
    }

    /// Compares what should be with what is there; changes nothing.
    pub(crate) async fn prepare(&self, desired: Desired, images: &Images, scope: Scope) -> anyhow::Result<Prepared> {
        let mut seen = self.observe(&desired).await?;
        self.observe_assets(&desired, &mut seen, scope.proof).await?;
        let there = desired.images.iter().filter(|(name, _)| images.present.contains(*name));
        seen.observed.images = there.map(|(name, image)| (name.clone(), image.clone())).collect();
        let which: BTreeSet<String> = desired.services.keys().cloned().collect();
        Self::refuse_unchangeable(&seen, &which)?;
        let plan = Plan::new(&desired, &seen.observed);
        let plan = if scope.prunes() { plan } else { plan.without_deletions() };
        Ok(Prepared { desired, seen, plan })
    }

    /// The same against a saved state instead of what is there.
    pub(crate) fn prepare_against(&self, desired: Desired, observed: Observed) -> Prepared {
        let plan = Plan::new(&desired, &observed).without_deletions();
        Prepared { desired, plan, seen: Seen { observed, ..Seen::default() } }
    }

    /// Brings services to what the manifests say, and proves it.
    ///
    /// # Errors
    /// Whatever runs then is not what was asked for; the message says why, on one screen for each service.
    pub(crate) async fn deploy(&self, options: Options) -> anyhow::Result<Deployed> {
        let (desired, images) = self.desired(&options.which, &options.binaries).await?;
        let prepared = self.prepare(desired, &images, options.scope).await?;
        self.refuse_another_plan(&options, &prepared.plan)?;
        if prepared.plan.is_empty() {
            let proofs = self.proofs(&options, Some(&prepared.seen.services)).await?;
            return Ok(Deployed { plan: prepared.plan, proofs, record: None });
        }
        self.alone(options.if_taken, self.deploy_locked(&options, prepared.desired, &images)).await
    }

    /// The same while nobody else changes anything: so what is there is looked at once more.
    async fn deploy_locked(&self, options: &Options, desired: Desired, images: &Images) -> anyhow::Result<Deployed> {
        let Prepared { desired, seen, plan } = self.prepare(desired, images, options.scope).await?;
        self.refuse_another_plan(options, &plan)?;
        note(&plan.summary());
        let is_new = plan.steps.iter().any(|step| step.kind == Kind::Service && step.action == Action::Create);
        let families = if is_new { self.families().await? } else { BTreeSet::new() };
        let record = Record::begin(self, options.which.iter().cloned());
        let mut run = Run {
            aws: self,
            options,
            desired: &desired,
            seen: &seen,
            images,
            families,
            known: seen.state.services.clone(),
            assets: seen.state.assets.clone(),
            identities: seen.state.identities.clone(),
            begun: BTreeMap::new(),
            failures: BTreeMap::new(),
            record,
        };
        self.ledger().put_record(&run.record).await?;
        let outcome = run.all(&plan).await;
        let outcome = match outcome {
            Ok(()) if run.failures.is_empty() => self.proofs(options, None).await,
            Ok(()) => Err(run.failure()?),
            Err(error) => Err(error),
        };
        run.end(&outcome).await?;
        Ok(Deployed { proofs: outcome?, record: Some(run.record.id), plan })
    }

    /// The services of the last run, which did not end.
    pub(crate) async fn interrupted(&self) -> anyhow::Result<BTreeSet<String>> {
        let last = self.records(1).await?.into_iter().next();
        let open = last.filter(|record| record.result == Outcome::Begun).map(|record| record.services);
        let services: BTreeSet<String> = open.unwrap_or_default().into_iter().collect();
        let known: BTreeSet<String> =
            services.into_iter().filter(|name| self.manifests.services.contains_key(name)).collect();
        if known.is_empty() {
            let hint = "`natsctl history` lists deployments; `natsctl deploy --all` deploys everything";
            return Err(Hinted::new("the last deployment was not interrupted", hint).into());
        }
        Ok(known)
    }

    /// `services` as they were seen, if nothing has changed since.
    async fn proofs(
        &self,
        options: &Options,
        services: Option<&BTreeMap<String, Service>>,
    ) -> anyhow::Result<Vec<String>> {
        let evidence = Evidence { mode: options.scope.proof, services, binaries: Some(&options.binaries) };
        match options.until {
            Until::Proven => self.prove(&options.which, evidence).await,
            _ => Ok(Vec::new()),
        }
    }

    fn refuse_another_plan(&self, options: &Options, plan: &Plan) -> anyhow::Result<()> {
        let Some(reviewed) = &options.reviewed else { return Ok(()) };
        if reviewed.environment != self.manifests.name {
            let message =
                format!("the plan is of environment `{}`, not `{}`", reviewed.environment, self.manifests.name);
            return Err(Hinted::new(message, "name its environment with `--env`").into());
        }
        if reviewed.plan == *plan {
            return Ok(());
        }
        let message = format!("the world has changed since the plan was made; now it would be:\n{plan}");
        Err(Hinted::new(message, "look at it, and save a new plan: `natsctl plan --save FILE`; nothing was changed")
            .into())
    }

    /// Where what is told of a failure outlives the rollback.
    fn failure_file(&self, record: &str) -> PathBuf {
        self.cache.join("failures").join(format!("{}.txt", record.replace(':', "-")))
    }
}

/// A deployment under way.
struct Run<'a> {
    aws: &'a Aws,
    options: &'a Options,
    desired: &'a Desired,
    seen: &'a Seen,
    images: &'a Images,
    families: BTreeSet<String>,
    known: BTreeMap<String, Known>,
    /// Streams and buckets, as they were left.
    assets: Option<String>,
    /// When everybody had an identity on NATS.
    identities: Option<Ensured>,
    begun: BTreeMap<String, Begun>,
    /// Why services did not come up, by name.
    failures: BTreeMap<String, String>,
    record: Record,
}

impl Run<'_> {
    async fn all(&mut self, plan: &Plan) -> anyhow::Result<()> {
        if plan.steps.iter().any(|step| step.kind != Kind::Image && step.action != Action::Delete) {
            // Tasks read theirs when they start.
            self.identities = Some(identities::ensure_if_stale(self.aws, self.identities.as_ref()).await?);
        }
        for wave in plan.waves() {
            let of = |kind: Kind| wave.iter().filter(move |step| step.kind == kind && step.action != Action::Delete);
            let images: Vec<&Step> = of(Kind::Image).collect();
            if !images.is_empty() {
                self.push(&images).await?;
            }
            if of(Kind::Stream).chain(of(Kind::Bucket)).next().is_some() {
                self.assets = Some(self.aws.ensure_assets(self.desired, &self.options.binaries).await?);
            }
            let services: Vec<&Step> = of(Kind::Service).filter(|step| !self.depends_on_failed(&step.name)).collect();
            if !services.is_empty() {
                self.services(&services).await?;
                self.save().await?;
            }
            if !self.failures.is_empty() && self.options.on_failure != OnFailure::Continue {
                break;
            }
            for step in wave.iter().filter(|step| step.action == Action::Delete && step.kind == Kind::Service) {
                self.delete(step).await?;
            }
        }
        let goes_back = self.options.on_failure == OnFailure::Rollback && !self.begun.is_empty();
        if !self.failures.is_empty() && goes_back {
            self.go_back().await?;
        }
        Ok(())
    }

    async fn push(&mut self, steps: &[&Step]) -> anyhow::Result<()> {
        let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        self.aws.push(&names, self.images).await?;
        for step in steps {
            let image = self.desired.images.get(&step.name).map(|image| image.digest.clone());
            self.record.steps.push(Done { image, result: "done".to_owned(), ..Done::begun(step) });
        }
        Ok(())
    }

    async fn services(&mut self, steps: &[&Step]) -> anyhow::Result<()> {
        let change = Change {
            aws: self.aws,
            desired: self.desired,
            seen: self.seen,
            images: self.images,
            families: self.families.clone(),
            max_parallel: self.options.max_parallel,
        };
        let mut follow = Vec::new();
        for (step, (name, outcome)) in steps.iter().zip(change.begin(steps).await) {
            let mut done = Done::begun(step);
            match outcome {
                Ok(on_its_way) => {
                    done.from = on_its_way.begun.before.clone();
                    done.to = Some(on_its_way.begun.task_definition.clone());
                    done.image = Some(on_its_way.known.image.clone());
                    self.known.insert(name.clone(), on_its_way.known);
                    self.begun.insert(name, on_its_way.begun.clone());
                    follow.push(on_its_way.begun);
                }
                Err(error) => {
                    done.result = "failed".to_owned();
                    let hint = crate::error::hint(&error).map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
                    self.failures.insert(name, format!("{error:#}{hint}"));
                }
            }
            self.record.steps.push(done);
        }
        // Before it is followed: whoever is interrupted now must not have forgotten what was begun.
        self.save().await?;
        let ended = self.aws.follow(follow, self.options.until, self.within(steps)).await?;
        for (name, ended) in &ended {
            let Some(begun) = self.begun.get(name) else { continue };
            let image = self.desired.services.get(name).map(image).unwrap_or_default();
            let explanation = ended.explanation(name, &begun.task_definition, &image);
            let result = if explanation.is_none() { "done" } else { "failed" };
            let step =
                self.record.steps.iter_mut().rev().find(|done| done.to.as_deref() == Some(&*begun.task_definition));
            if let Some(step) = step {
                step.result = result.to_owned();
            }
            if matches!(ended, Ended::Superseded(_)) {
                // It is somebody else's now, and so is going back.
                self.begun.remove(name);
            }
            if let Some(explanation) = explanation {
                self.known.remove(name);
                self.failures.insert(name.clone(), explanation);
            }
        }
        Ok(())
    }

    /// How long this wave may take.
    fn within(&self, steps: &[&Step]) -> Duration {
        let of_service = |step: &&Step| {
            let definition = &self.desired.services.get(&step.name)?.definition;
            let health = definition.health;
            Some(health.start_period * 2 + health.interval * health.retries * 2 + definition.stop_timeout)
        };
        self.options.timeout.unwrap_or_else(|| FARGATE + steps.iter().filter_map(of_service).max().unwrap_or_default())
    }

    async fn delete(&mut self, step: &Step) -> anyhow::Result<()> {
        if let Some(found) = self.seen.services.get(&step.name) {
            note(&format!("service {}: draining, then deleting it", step.name));
            self.aws.delete_service(&step.name, found).await?;
            self.known.remove(&step.name);
            self.record.steps.push(Done { result: "done".to_owned(), ..Done::begun(step) });
        }
        Ok(())
    }

    fn depends_on_failed(&self, name: &str) -> bool {
        let calls = self.desired.services.get(name).map(|service| &service.calls);
        calls.is_some_and(|calls| {
            calls.iter().any(|callee| self.failures.contains_key(callee) || self.depends_on_failed(callee))
        })
    }

    /// Everything that this run has changed goes back to what ran before.
    async fn go_back(&mut self) -> anyhow::Result<()> {
        let names: Vec<String> = self.begun.values().map(|begun| begun.ecs_name.clone()).collect();
        let services = self.aws.describe_services(&names).await?;
        let mut targets = BTreeMap::new();
        for (name, begun) in &self.begun {
            let now = services.get(&begun.ecs_name);
            let target = Target {
                ecs_name: begun.ecs_name.clone(),
                task_definition: begun.before.clone(),
                tasks: None,
                restart: false,
                before: begun.before.clone(),
            };
            match &begun.before {
                Some(before) if now.and_then(|now| now.task_definition()) != Some(before) => {
                    targets.insert(name.clone(), target);
                }
                // Nothing ran before: a new service that does not come up is kept, without tasks that crash.
                None if self.failures.contains_key(name) => {
                    targets.insert(name.clone(), Target { tasks: Some(0), ..target });
                }
                _ => {}
            }
        }
        let back: Vec<&str> = targets.keys().map(String::as_str).collect();
        let back = if back.is_empty() { "ECS has done so".to_owned() } else { back.join(", ") };
        note(&format!("going back to what ran before: {back}"));
        let mut follow = self.aws.move_to(&targets, self.options.max_parallel).await?;
        // Without tasks there is nothing to come up: the deployment that failed stays the last one of a new service.
        follow.retain(|begun| begun.before.is_some());
        // Those that ECS takes back itself.
        for (name, begun) in
            self.begun.iter().filter(|(name, begun)| !targets.contains_key(*name) && begun.before.is_some())
        {
            if let Some(now) = services.get(&begun.ecs_name).filter(|now| primary(now).is_some()) {
                let wanted = now.task_definition().unwrap_or_default();
                follow.push(Begun::of(name, now, begun.before.clone(), wanted));
            }
        }
        let ended = self.aws.follow(follow, Until::Completed, FARGATE).await?;
        for name in self.begun.keys() {
            self.known.remove(name);
        }
        for (name, ended) in ended.into_iter().filter(|(_, ended)| *ended != Ended::Completed) {
            let begun = &self.begun[&name];
            let why = ended
                .explanation(&name, begun.before.as_deref().unwrap_or_default(), "what ran before")
                .unwrap_or_default();
            self.failures
                .entry(name)
                .and_modify(|failure| failure.push_str(&format!("\nand going back failed:\n{why}")));
        }
        self.record.result = Outcome::RolledBack;
        Ok(())
    }

    /// All failures on one screen, and in a file that outlives the rollback.
    fn failure(&self) -> anyhow::Result<anyhow::Error> {
        let text = self.failures.values().map(String::as_str).collect::<Vec<_>>().join("\n\n");
        let file = self.aws.failure_file(&self.record.id);
        fs::create_dir_all(file.parent().unwrap_or(&self.aws.cache))?;
        fs::write(&file, format!("{text}\n")).with_context(|| format!("failed to write `{}`", file.display()))?;
        let now = match self.options.on_failure {
            OnFailure::Rollback if self.begun.is_empty() => "nothing was changed",
            OnFailure::Rollback => "what this run had changed went back to what ran before",
            OnFailure::Stop => "what came up stays; nothing more was begun",
            OnFailure::Continue => "what does not call it was deployed",
        };
        let hint = format!("{now}; this is kept in `{}`", file.display());
        Ok(Hinted::new(text, hint).into())
    }

    /// What must not be forgotten.
    async fn save(&mut self) -> anyhow::Result<()> {
        let ledger = self.aws.ledger();
        let (services, assets, identities) = (self.known.clone(), self.assets.clone(), self.identities.clone());
        let state = super::ledger::State { services, assets, identities };
        ledger.put_state(&state).await?;
        ledger.put_record(&self.record).await
    }

    async fn end<T>(&mut self, outcome: &anyhow::Result<T>) -> anyhow::Result<()> {
        self.record.ended = Some(jiff::Timestamp::now());
        match outcome {
            Ok(_) => self.record.result = Outcome::Done,
            Err(error) => {
                if self.record.result == Outcome::Begun {
                    self.record.result = Outcome::Failed;
                }
                self.record.error = Some(format!("{error:#}"));
            }
        }
        self.save().await
    }
}

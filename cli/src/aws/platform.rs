//! AWS as a platform of the pipeline: ECS services, with a lock and a history in DynamoDB.

use std::collections::BTreeSet;
use std::path::Path;

use super::apply::Work;
use super::desired::DesiredOnEcs;
use super::images::{self, Images};
use super::ledger::Ledger;
use super::lock::Held;
use super::observe::{self, Observation};
use super::proof::{self, Evidence};
use super::secrets::Secrets;
use super::tasks;
use super::{Aws, identities, limits, nodes, revisions, secrets};
use crate::error::Hinted;
use crate::image::Binaries;
use crate::manifest::Manifests;
use crate::model::change::{Change, Deploy, TaskSelection};
use crate::model::desired::Desired;
use crate::model::listed::Listed;
use crate::model::observed::ObservedTask;
use crate::model::plan::Plan;
use crate::model::step::Step;
use crate::pipeline::history::Record;
use crate::pipeline::lock::IfHeld;
use crate::pipeline::options::Options;
use crate::pipeline::{Platform, Progress, Purpose};

/// What a deployment is made of besides the manifests.
pub(crate) struct Materials {
    pub(super) images: Images,
    secrets: Secrets,
}

/// The desired state of these services, and what it is made of. Their images are built for it.
pub(crate) async fn desired(
    aws: &Aws,
    services: &BTreeSet<String>,
    binaries: &Binaries,
) -> anyhow::Result<(Desired, Materials)> {
    let ledger = Ledger::of(aws);
    let secrets = secrets::of_environment(aws.clients.secrets(), &aws.handover);
    let (state, secrets) = futures::try_join!(ledger.state(), secrets)?;
    let images = images::build(aws, services, binaries, &state).await?;
    // The images of services that are not deployed are not built.
    let image = |name: &String| images.desired.get(name).cloned().unwrap_or_default();
    let of_all = aws.manifests.services.keys().map(|name| (name.clone(), image(name))).collect();
    let (manifests, handover) = (&aws.manifests, &aws.handover);
    let mut desired = DesiredOnEcs { manifests, handover, secrets: &secrets.arns, images: &of_all }.desired()?;
    desired.identities = identities::wanted(aws);
    desired.services.retain(|name, _| services.contains(name));
    desired.images.retain(|name, _| services.contains(name));
    limits::check(aws.clients.ecs(), &desired).await?;
    Ok((desired, Materials { images, secrets }))
}

impl Platform for Aws {
    type Materials = Materials;
    type Observation = Observation;
    type Work<'a> = Work<'a>;
    type Lock = Held;

    const LOCK_COSTS_NOTHING: bool = false;

    fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    fn workspace(&self) -> &Path {
        &self.workspace
    }

    fn dir(&self) -> &Path {
        &self.cache
    }

    fn caller(&self) -> (&str, &str) {
        (&self.caller, &self.command_line)
    }

    async fn load(&self, deploy: &Deploy, options: &Options, _: Purpose) -> anyhow::Result<(Desired, Materials)> {
        desired(self, &deploy.selection.services, &images::binaries(&options.binaries)?).await
    }

    async fn observe(
        &self,
        change: &Change,
        desired: &Desired,
        materials: Option<&Materials>,
    ) -> anyhow::Result<Observation> {
        match change {
            Change::Deploy(deploy) => {
                let mut observation = observe::for_deployment(self, desired).await?;
                self.say_once(nodes::notice(self, &observation.state));
                observe::refuse_unchangeable(&self.manifests, &observation.services)?;
                if !deploy.without_jetstream {
                    observation.observed.jetstream = proof::observe_assets(self, &observation.state).await;
                }
                if let Some(Materials { secrets, .. }) = materials {
                    let there = identities::observed(self, &desired.identities, secrets, &observation.state)?;
                    observation.observed.identities = there;
                }
                let is_present = |name: &String| materials.is_some_and(|found| found.images.present.contains(name));
                let present = desired.images.iter().filter(|(name, _)| is_present(name));
                observation.observed.images = present.map(|(name, image)| (name.clone(), image.clone())).collect();
                Ok(observation)
            }
            Change::Restart(_) | Change::Scale { .. } => observe::services(self, &change.services()).await,
            Change::RollBack { service, to } => {
                let mut observation = observe::services(self, &change.services()).await?;
                if let Some(observed) = observation.observed.services.get_mut(service) {
                    let current = observed.state.task_definition.as_deref();
                    observed.revisions = revisions::earlier(self, service, current, *to).await?;
                }
                Ok(observation)
            }
            Change::Stop(selection) => {
                let services = match selection {
                    TaskSelection::Service(service) => vec![service.clone()],
                    TaskSelection::Ids(_) => Vec::new(),
                };
                let tasks = tasks::list(self, &services, Listed::Running).await?;
                let tasks = tasks.into_iter().map(|task| ObservedTask { id: task.id, service: task.service });
                let mut observation = Observation::default();
                observation.observed.tasks = tasks.collect();
                Ok(observation)
            }
            Change::Down { .. } => {
                let hint = "`natsctl scale SERVICE 0` stops a service; `terraform destroy` removes the infrastructure";
                Err(Hinted::new("`natsctl down` is for environments on this machine", hint).into())
            }
        }
    }

    async fn lock(&self, if_held: IfHeld) -> anyhow::Result<Held> {
        Ledger::of(self).lock(&self.caller, &self.command_line, if_held).await
    }

    async fn unlock(&self, lock: Held) -> anyhow::Result<()> {
        lock.release().await
    }

    async fn put_record(&self, record: &Record) -> anyhow::Result<()> {
        Ledger::of(self).put_record(record).await
    }

    async fn records(&self, limit: usize) -> anyhow::Result<Vec<Record>> {
        Ledger::of(self).records(i32::try_from(limit).unwrap_or(i32::MAX)).await
    }

    async fn begin<'a>(
        &'a self,
        plan: &Plan,
        observation: &'a Observation,
        materials: Option<&'a Materials>,
        options: &'a Options,
    ) -> anyhow::Result<Work<'a>> {
        Work::begin(self, plan, observation, materials.map(|materials| &materials.images), options).await
    }

    async fn apply<'a>(&'a self, work: &mut Work<'a>, wave: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        work.apply(wave, progress).await
    }

    async fn roll_back<'a>(&'a self, work: &mut Work<'a>, progress: &mut Progress) -> anyhow::Result<()> {
        work.roll_back(progress).await
    }

    async fn verify(
        &self,
        services: &BTreeSet<String>,
        observation: Option<&Observation>,
        options: &Options,
    ) -> anyhow::Result<Vec<String>> {
        let binaries = images::binaries(&options.binaries).ok();
        let services_seen = observation.map(|observation| &observation.services);
        let evidence = Evidence { mode: options.proof, services: services_seen, binaries: binaries.as_ref() };
        proof::prove(self, services, evidence).await
    }

    async fn clean_up(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

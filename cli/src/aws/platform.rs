//! The platform of AWS in the pipeline: ECS services, with a lock and a history in DynamoDB.

use std::collections::BTreeSet;
use std::path::Path;

use super::Aws;
use super::apply::Work;
use super::desired::DesiredOnEcs;
use super::images::Images;
use super::lock::Held;
use super::observe::Observation;
use super::proof::Evidence;
use super::tasks::{self, DesiredStatus};
use crate::error::Hinted;
use crate::image::Binaries;
use crate::manifest::Manifests;
use crate::model::change::{Change, Deploy, TaskSelection};
use crate::model::desired::Desired;
use crate::model::observed::ObservedTask;
use crate::model::plan::Plan;
use crate::model::step::Step;
use crate::pipeline::history::Record;
use crate::pipeline::lock::IfHeld;
use crate::pipeline::options::{BinarySource, Options};
use crate::pipeline::{Platform, Progress, Purpose};

/// Where the binaries in images come from: by default cargo builds static ones.
///
/// # Errors
/// If those beside natsctl are asked for, which are not static.
pub(crate) fn image_binaries(binaries: &BinarySource) -> anyhow::Result<Binaries> {
    match binaries {
        BinarySource::Folder(folder) => Ok(Binaries::Folder(folder.clone())),
        BinarySource::Build => Ok(Binaries::Cargo { profile: "release".to_owned() }),
        BinarySource::LastBuild => {
            let hint = "`--binaries DIR` takes static binaries from a folder";
            Err(Hinted::new("`--no-build` is for environments on this machine", hint).into())
        }
    }
}

impl Aws {
    /// What the manifests ask for, and the images that it takes.
    pub(crate) async fn desired(
        &self,
        services: &BTreeSet<String>,
        binaries: &Binaries,
    ) -> anyhow::Result<(Desired, Images)> {
        let ledger = self.ledger();
        let (state, secrets) = futures::try_join!(ledger.state(), self.secrets())?;
        let images = self.images(services, binaries, &state).await?;
        // Of a service that is not deployed now nothing needs to be built.
        let image = |name: &String| images.desired.get(name).cloned().unwrap_or_default();
        let of_all = self.manifests.services.keys().map(|name| (name.clone(), image(name))).collect();
        let (manifests, handover) = (&self.manifests, &self.handover);
        let mut desired = DesiredOnEcs { manifests, handover, secrets: &secrets, images: &of_all }.desired()?;
        desired.services.retain(|name, _| services.contains(name));
        desired.images.retain(|name, _| services.contains(name));
        Ok((desired, images))
    }
}

impl Platform for Aws {
    type Materials = Images;
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

    async fn load(&self, deploy: &Deploy, options: &Options, _: Purpose) -> anyhow::Result<(Desired, Images)> {
        self.desired(&deploy.selection.services, &image_binaries(&options.binaries)?).await
    }

    async fn observe(
        &self,
        change: &Change,
        desired: &Desired,
        images: Option<&Images>,
    ) -> anyhow::Result<Observation> {
        match change {
            Change::Deploy(deploy) => {
                let mut observation = self.observe_deployed(desired).await?;
                self.refuse_unchangeable(&observation.services)?;
                if !deploy.without_jetstream {
                    observation.observed.jetstream = self.observe_assets(&observation.state).await;
                }
                let is_present = |name: &String| images.is_some_and(|images| images.present.contains(name));
                let present = desired.images.iter().filter(|(name, _)| is_present(name));
                observation.observed.images = present.map(|(name, image)| (name.clone(), image.clone())).collect();
                Ok(observation)
            }
            Change::Restart(_) | Change::Scale { .. } => self.observe_services(&change.services()).await,
            Change::RollBack { service, .. } => {
                let mut observation = self.observe_services(&change.services()).await?;
                if let Some(observed) = observation.observed.services.get_mut(service) {
                    observed.revisions = self.earlier_revisions(service, observed.state.revision).await?;
                }
                Ok(observation)
            }
            Change::Stop(selection) => {
                let services = match selection {
                    TaskSelection::Service(service) => vec![service.clone()],
                    TaskSelection::Ids(_) => Vec::new(),
                };
                let tasks = tasks::list(self.ecs_cluster(), &self.manifests, &services, DesiredStatus::Running).await?;
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
        self.ledger().lock(&self.caller, &self.command_line, if_held).await
    }

    async fn unlock(&self, lock: Held) -> anyhow::Result<()> {
        lock.release().await
    }

    async fn put_record(&self, record: &Record) -> anyhow::Result<()> {
        self.ledger().put_record(record).await
    }

    async fn records(&self, limit: usize) -> anyhow::Result<Vec<Record>> {
        self.ledger().records(i32::try_from(limit).unwrap_or(i32::MAX)).await
    }

    async fn begin<'a>(
        &'a self,
        plan: &Plan,
        observation: &'a Observation,
        images: Option<&'a Images>,
        options: &'a Options,
    ) -> anyhow::Result<Work<'a>> {
        Work::begin(self, plan, observation, images, options).await
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
        let binaries = image_binaries(&options.binaries).ok();
        let services_seen = observation.map(|observation| &observation.services);
        self.prove(services, Evidence { mode: options.proof, services: services_seen, binaries: binaries.as_ref() })
            .await
    }

    async fn clean_up(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

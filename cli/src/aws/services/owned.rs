//! Which ECS services are those of the environment: names of services belong to a cluster, which others may use too.

use std::collections::{BTreeMap, BTreeSet};

use super::{SdkService, describe_all_fields};
use crate::aws::Aws;
use crate::aws::tags::{self, Ownership};
use crate::error::Hinted;
use crate::handover::Handover;
use crate::manifest::{Manifests, ServiceManifest};

/// ECS services by the manifests' names.
#[derive(Default)]
pub(in crate::aws) struct ByManifest {
    /// Those of the environment; one that no manifest describes has the name that its tag says.
    pub(in crate::aws) own: BTreeMap<String, SdkService>,
    /// Why others that have the name of a manifest's service on ECS are not of the environment.
    pub(in crate::aws) foreign: BTreeMap<String, Hinted>,
}

impl ByManifest {
    /// Of services by their names on ECS, described with their tags.
    pub(in crate::aws) fn new(
        manifests: &Manifests,
        handover: &Handover,
        mut services: BTreeMap<String, SdkService>,
    ) -> Self {
        let mut sorted = Self::default();
        for (name, manifest) in &manifests.services {
            let Some(found) = services.remove(&manifest.ecs_name()) else { continue };
            match refuse_foreign(handover, manifest, &found) {
                Ok(()) => drop(sorted.own.insert(name.clone(), found)),
                Err(foreign) => drop(sorted.foreign.insert(name.clone(), foreign)),
            }
        }
        for service in services.into_values() {
            if let Some(name) = tags::name(handover, &service) {
                sorted.own.entry(name).or_insert(service);
            }
        }
        sorted
    }

    /// The services of the environment.
    ///
    /// # Errors
    /// One of `wanted` is foreign.
    pub(in crate::aws) fn refusing(
        mut self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, SdkService>, Hinted> {
        self.foreign.retain(|name, _| wanted(name));
        let mut foreign = self.foreign.into_values();
        let Some(first) = foreign.next() else { return Ok(self.own) };
        let others: Vec<String> = foreign.map(|other| other.to_string()).collect();
        if others.is_empty() {
            return Err(first);
        }
        let hint = first.hint().unwrap_or_default().to_owned();
        Err(Hinted::new(format!("{first}; {}", others.join("; ")), hint))
    }
}

/// The ECS services of these services of manifests; those that do not exist are left out.
///
/// # Errors
/// A name that no manifest has; what ECS refuses.
pub(in crate::aws) async fn sorted<'a>(
    aws: &Aws,
    names: impl IntoIterator<Item = &'a String>,
) -> anyhow::Result<ByManifest> {
    let names: BTreeSet<&String> = names.into_iter().collect();
    let on_ecs = names.iter().map(|name| Ok(aws.manifests.service(name)?.ecs_name()));
    let on_ecs = on_ecs.collect::<anyhow::Result<Vec<_>>>()?;
    let described = describe_all_fields(aws.ecs_cluster(), &on_ecs).await?;
    Ok(ByManifest::new(&aws.manifests, &aws.handover, described))
}

/// The same by the manifests' names.
///
/// # Errors
/// One of them is not of this environment.
pub(in crate::aws) async fn of_manifests<'a>(
    aws: &Aws,
    names: impl IntoIterator<Item = &'a String>,
) -> anyhow::Result<BTreeMap<String, SdkService>> {
    Ok(sorted(aws, names).await?.refusing(|_| true)?)
}

/// Refuses a service that has the name of a manifest's service and is not of this environment. One without tags, which other tools
/// create, is taken over only if the manifest names it.
///
/// # Errors
/// Whose it is.
fn refuse_foreign(handover: &Handover, manifest: &ServiceManifest, found: &SdkService) -> Result<(), Hinted> {
    refuse_elsewhere(handover, found)?;
    let is_untagged = Ownership::of(handover, found.tags()) == Ownership::Untagged;
    if !is_untagged || manifest.ecs_name.is_some() {
        return Ok(());
    }
    let (name, ecs_name) = (&manifest.name, manifest.ecs_name());
    let message = format!("the ECS service `{ecs_name}` was not created by natsctl: no tags say so");
    let hint = format!(
        "to take it over, write `ecs_name: {ecs_name}` in the manifest of `{name}`, as `natsctl import` does; otherwise \
         write another `ecs_name`; the service was left alone"
    );
    Err(Hinted::new(message, hint))
}

/// Refuses a service that natsctl created for another environment, or for another project.
///
/// # Errors
/// Whose it is.
pub(in crate::aws) fn refuse_elsewhere(handover: &Handover, found: &SdkService) -> Result<(), Hinted> {
    let Ownership::Elsewhere { project, environment } = Ownership::of(handover, found.tags()) else { return Ok(()) };
    let message = format!(
        "the ECS service `{}` is of project `{project}`, environment `{environment}`, by its tags, not of project `{}`, \
         environment `{}`",
        found.service_name().unwrap_or_default(),
        handover.project,
        handover.environment
    );
    Err(Hinted::new(message, "write another `ecs_name` in the manifest; the service was left alone"))
}

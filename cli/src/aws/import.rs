//! `natsctl import`: the manifest of a service that runs on ECS already.

mod manifest;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use self::manifest::{Found, Written, written};
use super::ledger::State;
use super::services::{self, Service};
use super::tasks::{self, DesiredStatus};
use super::{Aws, autoscaling, revisions};
use crate::error::Hinted;
use crate::manifest::ECS_NAME_SUFFIX;
use crate::model::ecs::Autoscaling;

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Imported {
    pub(crate) service: String,
    pub(crate) file: PathBuf,
    /// What a manifest cannot say of the service, or what is to be filled in.
    pub(crate) warnings: Vec<String>,
}

/// Writes the manifest of an ECS service into a folder of manifests.
///
/// # Errors
/// There is no such service; there is a manifest of its name.
pub(crate) async fn import(aws: &Aws, typed: &str, called: Option<&str>, folder: &Path) -> anyhow::Result<Imported> {
    let service = find(aws, typed).await?;
    let ecs_name = service.name.clone();
    let name = called.map_or_else(|| named(&ecs_name), str::to_owned);
    if named(&name) != name {
        let hint = "lower-case letters, digits and `-`";
        return Err(Hinted::new(format!("`{name}` is no name of a service"), hint).into());
    }
    let definition = revisions::describe(aws.clients.ecs(), &name, &service.task_definition).await?;
    let image = definition.container(&name).map(|container| container.image.as_str());
    let found = Found {
        name: &name,
        source: &service.task_definition,
        image: image.unwrap_or_default(),
        digest: running_digest(aws, &ecs_name, image).await?,
        autoscaling: scaling(aws, &ecs_name).await?,
        definition: &definition.definition,
        service: &service,
    };
    let Written { text, mut warnings } = written(&found, &aws.manifests, &aws.handover);
    let file = folder.join("services").join(format!("{name}.yaml"));
    create(&file, &text, &name)?;
    warnings.extend(problems(folder, &aws.manifests.name, &file));
    Ok(Imported { service: ecs_name, file, warnings })
}

/// The service of this name on ECS, or of the name that a manifest's service would have there.
async fn find(aws: &Aws, typed: &str) -> anyhow::Result<Service> {
    let names = [typed.to_owned(), format!("{typed}{ECS_NAME_SUFFIX}")];
    let mut found = services::describe_all_fields(aws.ecs_cluster(), &names).await?;
    let service = names.iter().find_map(|name| found.remove(name));
    if let Some(service) = &service {
        services::refuse_elsewhere(&aws.handover, service)?;
    }
    service.map(Service::from).ok_or_else(|| {
        let hint = format!("`aws ecs list-services --cluster {}` lists the services of the cluster", aws.cluster());
        Hinted::new(format!("there is no service `{typed}` on ECS"), hint).into()
    })
}

/// The digest of the image that runs, whatever its tag names now.
async fn running_digest(aws: &Aws, ecs_name: &str, image: Option<&str>) -> anyhow::Result<Option<String>> {
    if let Some((_, digest)) = image.and_then(|image| image.split_once('@')) {
        return Ok(Some(digest.to_owned()));
    }
    let tasks = tasks::of_service(aws.ecs_cluster(), Some(ecs_name), DesiredStatus::Running).await?;
    let mut containers = tasks.into_iter().flat_map(|task| task.containers);
    Ok(containers.find(|one| Some(&*one.image) == image && one.image_digest.is_some()).and_then(|one| one.image_digest))
}

async fn scaling(aws: &Aws, ecs_name: &str) -> anyhow::Result<Option<Autoscaling>> {
    let services = [(ecs_name.to_owned(), ecs_name.to_owned())].into();
    let scaling = autoscaling::describe(aws.clients.autoscaling(), aws.cluster(), &services, &State::default()).await?;
    Ok(scaling.get(ecs_name).copied())
}

/// The name of a manifest for an ECS service.
fn named(ecs_name: &str) -> String {
    let short = ecs_name.strip_suffix(ECS_NAME_SUFFIX).unwrap_or(ecs_name).to_lowercase();
    short.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}

/// Writes a new file.
fn create(file: &Path, text: &str, name: &str) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).open(file);
    let mut opened = match opened {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let hint = format!("`natsctl diff {name}` compares it with what runs; `--as NAME` writes another one");
            return Err(Hinted::new(format!("there is a manifest `{}` already", file.display()), hint).into());
        }
        opened => opened.with_context(|| format!("failed to write `{}`", file.display()))?,
    };
    opened.write_all(text.as_bytes()).with_context(|| format!("failed to write `{}`", file.display()))
}

/// Problems of the new file.
fn problems(folder: &Path, environment: &str, file: &Path) -> Vec<String> {
    let problems = crate::manifest::load(folder, environment).err();
    let of_file = problems.iter().flat_map(|problems| problems.iter()).filter(|problem| problem.file == file);
    of_file.map(|problem| format!("line {}: {}", problem.line, problem.message)).collect()
}

/// For people.
pub(crate) fn text(imported: &Imported) -> String {
    let Imported { service, file, warnings } = imported;
    let mut lines = vec![format!("wrote `{}` from the ECS service `{service}`", file.display())];
    lines.extend(warnings.iter().map(|warning| format!("- {warning}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests;

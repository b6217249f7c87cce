//! `natsctl import`: the manifest of a service that runs on ECS already.

mod manifest;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aws_sdk_ecs::types::{DesiredStatus, Service, TaskDefinition};
use serde::Serialize;

use self::manifest::{Found, Written, written};
use super::Aws;
use super::definition::parse;
use super::error::failed;
use crate::fleet::Autoscaling;
use crate::nats::Advised;

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Imported {
    pub(crate) service: String,
    pub(crate) file: PathBuf,
    /// What runs there and a manifest cannot say, or what is to be filled in.
    pub(crate) warnings: Vec<String>,
}

impl Aws {
    /// Writes the manifest of an ECS service into a folder of manifests.
    ///
    /// # Errors
    /// There is no such service; there is a manifest of its name.
    pub(crate) async fn import(&self, typed: &str, called: Option<&str>, folder: &Path) -> anyhow::Result<Imported> {
        let service = self.on_ecs(typed).await?;
        let ecs_name = service.service_name().unwrap_or_default().to_owned();
        let name = called.map_or_else(|| named(&ecs_name), str::to_owned);
        if named(&name) != name {
            let hint = "lower-case letters, digits and `-`";
            return Err(Advised::new(format!("`{name}` is no name of a service"), hint).into());
        }
        let definition = self.task_definition(service.task_definition().unwrap_or_default()).await?;
        let found = Found {
            name: &name,
            definition: parse(&name, &definition),
            source: service.task_definition().unwrap_or_default(),
            image: container(&name, &definition).unwrap_or_default(),
            digest: self.running_digest(&ecs_name, container(&name, &definition)).await?,
            autoscaling: self.autoscaling(&service).await?,
            service: &service,
        };
        let Written { text, mut warnings } = written(&found, &self.manifests, &self.handover);
        let file = folder.join("services").join(format!("{name}.yaml"));
        create(&file, &text, &name)?;
        warnings.extend(problems(folder, &self.manifests.name, &file));
        Ok(Imported { service: ecs_name, file, warnings })
    }

    /// The service of this name on ECS, or of the name that a manifest's service would have there.
    async fn on_ecs(&self, typed: &str) -> anyhow::Result<Service> {
        let names = [typed.to_owned(), format!("{typed}{SUFFIX}")];
        let mut found = self.describe_services(&names).await?;
        let service = names.iter().find_map(|name| found.remove(name));
        service.ok_or_else(|| {
            let hint = format!("`aws ecs list-services --cluster {}` lists those that there are", self.cluster());
            Advised::new(format!("there is no service `{typed}` on ECS"), hint).into()
        })
    }

    /// The digest of the image that runs, whatever its tag is now.
    async fn running_digest(&self, ecs_name: &str, image: Option<&str>) -> anyhow::Result<Option<String>> {
        if let Some((_, digest)) = image.and_then(|image| image.split_once('@')) {
            return Ok(Some(digest.to_owned()));
        }
        let tasks = self.ecs_tasks(Some(ecs_name), DesiredStatus::Running).await?;
        let containers = tasks.iter().flat_map(|task| task.containers());
        let mut digests = containers.filter(|one| one.image() == image).filter_map(|one| one.image_digest());
        Ok(digests.next().map(str::to_owned))
    }

    async fn autoscaling(&self, service: &Service) -> anyhow::Result<Option<Autoscaling>> {
        let services = [("it".to_owned(), service.clone())].into();
        Ok(self.scaling(&services, &super::ledger::State::default()).await?.remove("it"))
    }
}

/// The name of a manifest for an ECS service.
fn named(ecs_name: &str) -> String {
    let short = ecs_name.strip_suffix(crate::manifest::ECS_NAME_SUFFIX).unwrap_or(ecs_name).to_lowercase();
    short.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}

fn container<'a>(name: &str, definition: &'a TaskDefinition) -> Option<&'a str> {
    let containers = definition.container_definitions();
    containers.iter().find(|one| one.name() == Some(name)).or(containers.first())?.image()
}

/// A file that was not there.
fn create(file: &Path, text: &str, name: &str) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).open(file);
    let mut opened = match opened {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let hint = format!("`natsctl diff {name}` compares it with what runs; `--as NAME` writes another one");
            return Err(Advised::new(format!("there is a manifest `{}` already", file.display()), hint).into());
        }
        opened => opened.with_context(|| format!("failed to write `{}`", file.display()))?,
    };
    opened.write_all(text.as_bytes()).with_context(|| format!("failed to write `{}`", file.display()))
}

/// What is wrong with the new file.
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

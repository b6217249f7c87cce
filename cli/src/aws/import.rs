//! `natsctl import`: the manifest of a service that runs on ECS already. What it writes is deployed without a change, or nothing is
//! written.

mod manifest;
mod words;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aws_sdk_ecs::types::{ContainerDefinition, Service as SdkService, TaskDefinitionField};
use serde::Serialize;
use serde_json::Value;

use self::manifest::{Found, Written, written_manifest};
use super::arn::short;
use super::desired::DesiredOnEcs;
use super::observe::{self, Read};
use super::task_definition::{Names, TaskDefinition};
use super::tasks::{self, DesiredStatus};
use super::{Aws, autoscaling, secrets, services};
use crate::error::Hinted;
use crate::handover::Handover;
use crate::manifest::{ECS_NAME_SUFFIX, Manifests, ecs_names, load_with_one};
use crate::model::change::{Change, Deploy, Selection};
use crate::model::desired::{Image, Role};
use crate::model::observed::{Observed, ObservedService};
use crate::model::plan::Plan;
use crate::model::step::{FieldChange, Kind};

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Imported {
    pub(crate) service: String,
    pub(crate) file: PathBuf,
    /// What is to be known of it, or to be filled in.
    pub(crate) warnings: Vec<String>,
    /// The text of the manifest, if it was not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<String>,
}

/// What is imported, and what it becomes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    /// The name of the service on ECS, with or without `-nats`.
    pub(crate) service: &'a str,
    /// The name of its manifest.
    pub(crate) name: Option<&'a str>,
    /// The container that is the service.
    pub(crate) container: Option<&'a str>,
    /// Folder of the manifests.
    pub(crate) folder: &'a Path,
    pub(crate) then: Then,
}

/// What becomes of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Write,
    Show,
}

/// Writes the manifest of an ECS service into a folder of manifests.
///
/// # Errors
/// There is no such service; there is a manifest of it, or of its name; a manifest cannot express all of it.
pub(crate) async fn import(aws: &Aws, order: Order<'_>) -> anyhow::Result<Imported> {
    let service = find(aws, order.service).await?;
    let ecs_name = service.service_name().unwrap_or_default().to_owned();
    let name = order.name.map_or_else(|| named(&ecs_name), str::to_owned);
    if named(&name) != name || name.len() < 2 {
        let hint = "lower-case letters, digits and `-`, a letter first: name another one with `--as NAME`";
        return Err(Hinted::new(format!("`{name}` is no name of a service"), hint).into());
    }
    if let Some(other) = ecs_names(order.folder).get(&ecs_name) {
        let environment = &aws.manifests.name;
        let hint = format!(
            "a service has one manifest; what differs in this environment goes under `services` of \
             `environments/{environment}.yaml` (`natsctl diff --all --env {environment}` shows it)"
        );
        let message = format!("`{}` is the manifest of the ECS service `{ecs_name}` already", other.display());
        return Err(Hinted::new(message, hint).into());
    }
    observe::refuse_unchangeable_one(&name, &service)?;
    let found = read(aws, &name, order.container, &service).await?;
    let file = order.folder.join("services").join(format!("{name}.yaml"));
    let Written { text, mut warnings, unsayable } =
        written_manifest(&found.as_found(&name), &aws.manifests, &aws.handover);
    if !unsayable.is_empty() {
        return Err(refused(&ecs_name, &unsayable).into());
    }
    let manifests = load_with_one(order.folder, &aws.manifests.name, &file, &text).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(|problem| problem.message.clone()).collect();
        refused(&ecs_name, &problems)
    })?;
    let arns = secrets::arns(aws.clients.secrets(), &aws.handover).await?;
    let (changes, kept) = found.changes(&name, &manifests, &aws.handover, &arns)?;
    if found.definition.definition.role == Role::Standalone && !changes.is_empty() {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        return Err(refused(&ecs_name, &changes).into());
    }
    if order.then == Then::Write {
        create(&file, &text, &name)?;
    }
    let by_tag = found.definition.container().map(|container| container.image.as_str()).unwrap_or_default();
    if !by_tag.contains('@') {
        let then = "a deployment that changes anything names the digest, and not the tag";
        warnings.push(format!("`{by_tag}` is a tag, so the manifest has the digest that runs beside it; {then}"));
    }
    warnings.extend(changes.iter().map(|change| format!("a deployment will change {change}")));
    warnings.extend(kept.into_iter().map(|(what, value)| format!("a deployment leaves {what} as it is: {value}")));
    warnings.extend(problems(order.folder, &aws.manifests.name, &file));
    let manifest = (order.then == Then::Show).then_some(text);
    Ok(Imported { service: ecs_name, file, warnings, manifest })
}

/// Everything that a manifest cannot express.
fn refused(ecs_name: &str, unsayable: &[String]) -> Hinted {
    let list: String = unsayable.iter().map(|one| format!("\n- {one}")).collect();
    let message = format!("a manifest cannot express all of the ECS service `{ecs_name}`:{list}");
    Hinted::new(message, "nothing was written; change these on ECS first, or leave the service to what deploys it now")
}

/// Everything that was read of a service.
struct ReadService {
    service: SdkService,
    definition: TaskDefinition,
    scaling: Option<autoscaling::Found>,
    image: Image,
    image_text: String,
    observed: ObservedService,
}

async fn read(aws: &Aws, name: &str, container: Option<&str>, service: &SdkService) -> anyhow::Result<ReadService> {
    let arn = service.task_definition().unwrap_or_default();
    let call = aws.clients.ecs().describe_task_definition().task_definition(arn);
    let answer = call.include(TaskDefinitionField::Tags).send().await;
    let answer =
        answer.map_err(|error| super::error::failed(&format!("describe the task definition `{arn}`"), error))?;
    let tags = answer.tags.unwrap_or_default();
    let found = answer.task_definition.with_context(|| format!("ECS says nothing of the task definition `{arn}`"))?;
    let container = container_of(name, container, service, found.container_definitions())?;
    let definition = TaskDefinition::new(Names { service: name, container: &container }, found, &tags)?;
    let ecs_name = service.service_name().unwrap_or_default();
    let names = [(name.to_owned(), ecs_name.to_owned())].into();
    let scaling = autoscaling::describe(aws.clients.autoscaling(), aws.cluster(), &names).await?.remove(name);
    let image = running_image(aws, ecs_name, &definition).await?;
    ReadService::new(service.clone(), definition, scaling, image)
}

impl ReadService {
    /// `image` is what runs.
    fn new(
        service: SdkService,
        definition: TaskDefinition,
        scaling: Option<autoscaling::Found>,
        image: Image,
    ) -> anyhow::Result<Self> {
        let mut state = definition.definition.clone();
        if let Some(task) = &mut state.ecs {
            // A tag is a name of the image that runs.
            task.repository.clone_from(&image.repository);
        }
        state.artifact.clone_from(&image.digest);
        let scaling_found = scaling.as_ref();
        let read =
            Read { service: &service, definition: state, declared_tasks: 0, scaling: scaling_found, wanted: None };
        let observed = read.seen()?;
        let named = definition.container().map(|container| container.image.as_str()).unwrap_or_default();
        let image_text = if named.contains('@') { named.to_owned() } else { format!("{named}@{}", image.digest) };
        Ok(Self { service, definition, scaling, image, image_text, observed })
    }

    fn as_found<'a>(&'a self, name: &'a str) -> Found<'a> {
        let state = &self.observed.state;
        // `TaskDefinition` and `Read` always have them.
        let (Some(task), Some(service)) = (&state.definition.ecs, &state.ecs) else { unreachable!("read from ECS") };
        Found {
            name,
            definition: &state.definition,
            task,
            service,
            tasks: state.desired,
            source: short(&self.definition.arn),
            image: &self.image_text,
        }
    }

    /// What a deployment from these manifests would change, and what it would leave as it is. `secrets` are ARNs by name.
    fn changes(
        &self,
        name: &str,
        manifests: &Manifests,
        handover: &Handover,
        secrets: &BTreeMap<String, String>,
    ) -> anyhow::Result<(Vec<FieldChange>, BTreeMap<String, Value>)> {
        let images = [(name.to_owned(), self.image.clone())].into();
        let mut desired = DesiredOnEcs { manifests, handover, secrets, images: &images }.desired()?;
        desired.images.clear();
        let wanted = &desired.services[name];
        let definition = self.observed.state.definition.clone();
        let read = Read {
            service: &self.service,
            definition,
            declared_tasks: wanted.tasks,
            scaling: self.scaling.as_ref(),
            wanted: Some(wanted),
        };
        let observed = read.seen()?;
        let kept = observed.kept.clone();
        let services = BTreeMap::from([(name.to_owned(), observed)]);
        let plan = Plan::new(&deployment(name), &desired, &Observed { services, ..Observed::default() })?;
        let steps = plan.steps.into_iter().filter(|step| step.kind() == Kind::Service);
        // How many tasks run now says nothing of the manifest.
        let changes = steps.flat_map(|step| step.changes).filter(|change| change.field != "running");
        Ok((changes.filter(|change| change.field != "failed").collect(), kept))
    }
}

fn deployment(name: &str) -> Change {
    let selection = Selection { services: BTreeSet::from([name.to_owned()]), all: false };
    Change::Deploy(Deploy { selection, prune: false, without_jetstream: true })
}

/// The container that is the service: the one that was named, or that has a name of the service, or that load balancers reach, or
/// that no other container is for.
///
/// # Errors
/// Several may be.
fn container_of(
    name: &str,
    typed: Option<&str>,
    service: &SdkService,
    containers: &[ContainerDefinition],
) -> anyhow::Result<String> {
    let names: Vec<&str> = containers.iter().filter_map(|container| container.name()).collect();
    let listed = || names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if let Some(typed) = typed {
        if names.contains(&typed) {
            return Ok(typed.to_owned());
        }
        let hint = format!("its containers are {}", listed());
        return Err(Hinted::new(format!("the service has no container `{typed}`"), hint).into());
    }
    let ecs_name = service.service_name().unwrap_or_default();
    let balanced = service.load_balancers().iter().filter_map(|balancer| balancer.container_name());
    let known = [name, ecs_name].into_iter().chain(balanced).find(|name| names.contains(name));
    if let Some(known) = known {
        return Ok(known.to_owned());
    }
    let is_needed = |name: &str| {
        containers.iter().flat_map(|other| other.depends_on()).any(|needed| needed.container_name() == name)
    };
    let is_service = |container: &&ContainerDefinition| {
        let is_essential = container.essential() != Some(false);
        is_essential && container.firelens_configuration().is_none() && !container.name().is_some_and(is_needed)
    };
    let candidates: Vec<&ContainerDefinition> = containers.iter().filter(is_service).collect();
    match candidates.as_slice() {
        [only] => Ok(only.name().unwrap_or_default().to_owned()),
        _ => {
            let hint = format!("say which with `--container NAME`: {}", listed());
            Err(Hinted::new(format!("`{ecs_name}` has several containers that may be the service"), hint).into())
        }
    }
}

/// The service of this name on ECS, or of the name that a manifest's service would have there.
async fn find(aws: &Aws, typed: &str) -> anyhow::Result<SdkService> {
    let names = [typed.to_owned(), format!("{typed}{ECS_NAME_SUFFIX}")];
    let mut found = services::describe_all_fields(aws.ecs_cluster(), &names).await?;
    let service = names.iter().find_map(|name| found.remove(name));
    if let Some(service) = &service {
        services::refuse_elsewhere(&aws.handover, service)?;
    }
    service.ok_or_else(|| {
        let hint = format!("`aws ecs list-services --cluster {}` lists the services of the cluster", aws.cluster());
        Hinted::new(format!("there is no service `{typed}` on ECS"), hint).into()
    })
}

/// The image that runs, whatever its tag names now.
///
/// # Errors
/// The task definition names a tag, and no task runs.
async fn running_image(aws: &Aws, ecs_name: &str, definition: &TaskDefinition) -> anyhow::Result<Image> {
    let text = definition.container().map(|container| container.image.as_str()).unwrap_or_default();
    if let Some((repository, digest)) = text.split_once('@') {
        return Ok(Image { repository: repository.to_owned(), digest: digest.to_owned() });
    }
    let tasks = tasks::of_service(aws.ecs_cluster(), Some(ecs_name), DesiredStatus::Running).await?;
    let mut containers = tasks.into_iter().flat_map(|task| task.containers);
    let digest =
        containers.find(|one| one.image == text && one.image_digest.is_some()).and_then(|one| one.image_digest);
    let digest = digest.ok_or_else(|| {
        let hint = "a tag can move: start a task, or register a revision that names `repository@sha256:…`";
        Hinted::new(format!("`{text}` has no digest, and no task of it runs"), hint)
    })?;
    let repository = match text.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => text,
    };
    Ok(Image { repository: repository.to_owned(), digest })
}

/// The name of a manifest for an ECS service.
fn named(ecs_name: &str) -> String {
    let short = ecs_name.strip_suffix(ECS_NAME_SUFFIX).unwrap_or(ecs_name).to_lowercase();
    let parts = short.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let name = parts.collect::<Vec<_>>().join("-");
    name.trim_start_matches(|letter: char| !letter.is_ascii_alphabetic()).to_owned()
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

/// Problems of the new file with the others.
fn problems(folder: &Path, environment: &str, file: &Path) -> Vec<String> {
    let problems = crate::manifest::load(folder, environment).err();
    let of_file = problems.iter().flat_map(|problems| problems.iter()).filter(|problem| problem.file == file);
    of_file.map(|problem| format!("line {}: {}", problem.line, problem.message)).collect()
}

/// For people.
pub(crate) fn text(imported: &Imported) -> String {
    let Imported { service, file, warnings, manifest } = imported;
    let mut lines = match manifest {
        None => vec![format!("wrote `{}` from the ECS service `{service}`", file.display())],
        Some(manifest) => {
            vec![format!("`{}` would be, from the ECS service `{service}`:\n\n{manifest}", file.display())]
        }
    };
    lines.extend(warnings.iter().map(|warning| format!("- {warning}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests;

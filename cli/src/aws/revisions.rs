//! Revisions of task definitions: they are registered, described, and deregistered when nothing needs them.

mod own;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::types::{SortOrder, TaskDefinitionFamilyStatus, TaskDefinitionField, TaskDefinitionStatus};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use self::own::{Outcomes, Own};
use super::arn::{revision, short};
use super::error::{code, failed, is_uncertain};
use super::services::{self, Service};
use super::tags::Owner;
use super::task_definition::{Names, TaskDefinition, other_tags, registration, take_unnamed_tags};
use super::{AT_ONCE, Aws, lock, tags};
use crate::error::Hinted;
use crate::handover::Handover;
use crate::model::desired::Definition;
use crate::model::listed::{Revision, Use};
use crate::model::observed;
use crate::pipeline::lock::IfHeld;
use crate::screen::table;

/// Attempts to register a task definition: ECS accepts one registration a second, and more in a burst.
const REGISTRATION_ATTEMPTS: u32 = 10;
/// Before the second attempt; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// Between two attempts at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// From so many task definitions on, listing the active ones takes fewer calls than describing each.
const LISTED_FROM: usize = 2;
/// Active task definitions that are listed to find those of services, which an account may share with others.
const MOST_LISTED: usize = 1000;

/// The revisions of a service after old ones were deregistered.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Deregistered {
    pub(crate) service: String,
    pub(crate) deregistered: Vec<u64>,
    #[serde(rename = "kept")]
    pub(crate) remaining: Vec<u64>,
}

/// The newest revisions of a service, at most so many.
pub(crate) async fn list(aws: &Aws, name: &str, limit: usize) -> anyhow::Result<Vec<Revision>> {
    let names = [name.to_owned()];
    let (services, records) = futures::try_join!(services::of_manifests(aws, &names), own::records(aws))?;
    let services = services::converted(services);
    let (service, outcomes) = (services.get(name), Outcomes::of(&records, name));
    let current = service.map(|service| &*service.task_definition);
    let own = Own { aws, service: name, current, outcomes: &outcomes }.list(limit).await?;
    let needed = needed(&own, service, &outcomes);
    let uses = |arn: &str| needed.iter().filter(|(needed, _)| needed == arn).map(|(_, why)| *why).collect();
    Ok(own.iter().map(|found| listed(found, uses(&found.arn))).collect())
}

/// Revisions that a service may be rolled back to, those that are preferred first. `current` is the ARN of what it runs.
pub(super) async fn earlier(
    aws: &Aws,
    name: &str,
    current: Option<&str>,
    to: Option<u64>,
) -> anyhow::Result<Vec<observed::Revision>> {
    let outcomes = Outcomes::of(&own::records(aws).await?, name);
    Own { aws, service: name, current, outcomes: &outcomes }.earlier(to).await
}

/// A revision of a service by its number, and how it is called: `family:revision`.
///
/// # Errors
/// There is none, or it is of something else.
pub(super) async fn numbered(aws: &Aws, name: &str, number: u64) -> anyhow::Result<(String, Definition)> {
    let revision = format!("{}:{number}", aws.handover.task_family(&aws.manifests.services[name]));
    let found = describe(aws.clients.ecs(), aws.names(name), &revision).await?;
    if found.owner.as_ref().is_some_and(|owner| *owner != Owner::new(&aws.handover, name)) {
        let outcomes = Outcomes::default();
        return Err(Own { aws, service: name, current: None, outcomes: &outcomes }.is_foreign(&found).into());
    }
    Ok((revision, found.definition))
}

fn listed(found: &TaskDefinition, uses: Vec<Use>) -> Revision {
    let image = found.container().map(|container| container.image.clone());
    Revision {
        revision: revision(&found.arn),
        uses,
        image: image.unwrap_or_default(),
        registered: found.registered,
        registered_by: found.registered_by.clone(),
        commit: None,
    }
}

/// Deregisters old revisions of services, under the lock of the environment. The newest stay, and those that are still needed.
pub(crate) async fn deregister(
    aws: &Aws,
    names: &BTreeSet<String>,
    keep: usize,
    if_held: IfHeld,
) -> anyhow::Result<Vec<Deregistered>> {
    lock::locked(aws, if_held, deregister_locked(aws, names, keep)).await
}

/// What [`deregister`] would do; nothing is changed.
pub(crate) async fn superfluous_of(
    aws: &Aws,
    names: &BTreeSet<String>,
    keep: usize,
) -> anyhow::Result<Vec<Deregistered>> {
    let found = find_superfluous(aws, names, keep).await?;
    let told = found.into_iter().map(|(service, old, remaining)| Deregistered {
        service,
        deregistered: old.iter().map(|arn| revision(arn)).collect(),
        remaining,
    });
    Ok(told.collect())
}

async fn deregister_locked(aws: &Aws, names: &BTreeSet<String>, keep: usize) -> anyhow::Result<Vec<Deregistered>> {
    let ecs = aws.clients.ecs();
    let mut all = Vec::new();
    for (service, old, remaining) in find_superfluous(aws, names, keep).await? {
        let calls: Vec<_> = old.into_iter().map(|arn| deregister_one(ecs, arn)).collect();
        let deregistered = futures::stream::iter(calls).buffered(AT_ONCE).try_collect().await?;
        all.push(Deregistered { service, deregistered, remaining });
    }
    Ok(all)
}

/// Of each service the ARNs of the revisions that nothing needs, and the numbers of the others.
async fn find_superfluous(
    aws: &Aws,
    names: &BTreeSet<String>,
    keep: usize,
) -> anyhow::Result<Vec<(String, Vec<String>, Vec<u64>)>> {
    let (services, records) = futures::try_join!(services::of_manifests(aws, names), own::records(aws))?;
    let services = services::converted(services);
    let mut all = Vec::new();
    for name in names {
        let (service, outcomes) = (services.get(name), Outcomes::of(&records, name));
        let current = service.map(|service| &*service.task_definition);
        let own = Own { aws, service: name, current, outcomes: &outcomes }.list(usize::MAX).await?;
        let needed = needed(&own, service, &outcomes).into_iter().map(|(arn, _)| arn).collect();
        let arns: Vec<String> = own.into_iter().map(|found| found.arn).collect();
        let old = superfluous(&arns, &needed, keep);
        let remaining = arns.iter().filter(|arn| !old.contains(arn)).map(|arn| revision(arn)).collect();
        all.push((name.clone(), old, remaining));
    }
    Ok(all)
}

async fn deregister_one(ecs: &aws_sdk_ecs::Client, arn: String) -> anyhow::Result<u64> {
    let answer = ecs.deregister_task_definition().task_definition(&arn).send().await;
    answer.map_err(|error| failed(&format!("deregister the task definition `{}`", short(&arn)), error))?;
    Ok(revision(&arn))
}

/// The task definition with this ARN or `family:revision`, as that of a service.
pub(super) async fn describe(
    ecs: &aws_sdk_ecs::Client,
    of: impl Into<Names<'_>>,
    name: &str,
) -> anyhow::Result<TaskDefinition> {
    let call = ecs.describe_task_definition().task_definition(name).include(TaskDefinitionField::Tags);
    let answer = call.send().await;
    let answer = answer.map_err(|error| failed(&format!("describe the task definition `{}`", short(name)), error))?;
    let tags = answer.tags.unwrap_or_default();
    let found = answer.task_definition.ok_or_else(|| {
        let hint = "`natsctl revisions` lists the active ones";
        Hinted::new(format!("there is no task definition `{}`", short(name)), hint)
    })?;
    TaskDefinition::new(of.into(), found, &tags)
}

/// The newest active revision of a family, as that of a service; `None` if the family has none.
pub(super) async fn newest(
    ecs: &aws_sdk_ecs::Client,
    of: impl Into<Names<'_>>,
    family: &str,
) -> anyhow::Result<Option<TaskDefinition>> {
    let call = ecs.describe_task_definition().task_definition(family).include(TaskDefinitionField::Tags);
    match call.send().await {
        Ok(answer) => {
            let tags = answer.tags.unwrap_or_default();
            answer.task_definition.map(|found| TaskDefinition::new(of.into(), found, &tags)).transpose()
        }
        Err(error) if code(&error) == Some("ClientException") => Ok(None),
        Err(error) => Err(failed(&format!("describe the newest task definition of `{family}`"), error)),
    }
}

/// ARN of the newest revision of a definition's family, if it says the same; otherwise of a new revision.
pub(super) async fn find_or_register(
    ecs: &aws_sdk_ecs::Client,
    handover: &Handover,
    service: &str,
    definition: &Definition,
) -> anyhow::Result<String> {
    match newest_if_equal(ecs, handover, service, definition).await? {
        Some(arn) => Ok(arn),
        None => register(ecs, handover, service, definition).await,
    }
}

/// Registers a task definition and gives its ARN. A call that may have taken effect is not repeated blindly, which could register it
/// twice: the newest revision is compared first.
pub(super) async fn register(
    ecs: &aws_sdk_ecs::Client,
    handover: &Handover,
    service: &str,
    definition: &Definition,
) -> anyhow::Result<String> {
    for attempt in 1.. {
        let once = aws_sdk_ecs::config::Builder::new().retry_config(RetryConfig::disabled());
        let tags = tags::of(handover, service).into_iter().chain(other_tags(definition)).collect();
        let call = registration(ecs, service, definition)?.set_tags(Some(tags));
        let error = match call.customize().config_override(once).send().await {
            Ok(answer) => {
                let registered = answer.task_definition.and_then(|registered| registered.task_definition_arn);
                return registered.context("ECS gave no ARN for a task definition");
            }
            Err(error) => error,
        };
        let is_throttled =
            code(&error).is_some_and(|code| code.contains("Throttling") || code.contains("LimitExceeded"));
        // ECS calls it a mistake of the client, and it is another client that registers in the same family.
        let message = error.as_service_error().and_then(|error| error.meta().message()).unwrap_or_default();
        let is_contended = message.contains("Too many concurrent attempts");
        if !(is_uncertain(&error) || is_throttled || is_contended) || attempt == REGISTRATION_ATTEMPTS {
            let family = definition.ecs.as_ref().map(|task| task.family.as_str()).unwrap_or_default();
            return Err(failed(&format!("register the task definition `{family}`"), error));
        }
        tokio::time::sleep((FIRST_PAUSE * 2_u32.pow(attempt - 1)).min(LONGEST_PAUSE)).await;
        if let Some(arn) = newest_if_equal(ecs, handover, service, definition).await? {
            return Ok(arn);
        }
    }
    unreachable!("the loop ends by returning")
}

/// Registers a task definition that was deregistered once more, with all that ECS says of it. Gives the ARN of the new revision.
pub(super) async fn register_again(ecs: &aws_sdk_ecs::Client, arn: &str) -> anyhow::Result<String> {
    let call = ecs.describe_task_definition().task_definition(arn).include(TaskDefinitionField::Tags);
    let answer = call.send().await;
    let answer = answer.map_err(|error| failed(&format!("describe the task definition `{}`", short(arn)), error))?;
    let found = answer.task_definition.with_context(|| format!("ECS says nothing of `{}`", short(arn)))?;
    let call = ecs
        .register_task_definition()
        .set_family(found.family)
        .set_task_role_arn(found.task_role_arn)
        .set_execution_role_arn(found.execution_role_arn)
        .set_network_mode(found.network_mode)
        .set_container_definitions(found.container_definitions)
        .set_volumes(found.volumes)
        .set_placement_constraints(found.placement_constraints)
        .set_requires_compatibilities(found.requires_compatibilities)
        .set_cpu(found.cpu)
        .set_memory(found.memory)
        .set_pid_mode(found.pid_mode)
        .set_ipc_mode(found.ipc_mode)
        .set_proxy_configuration(found.proxy_configuration)
        .set_ephemeral_storage(found.ephemeral_storage)
        .set_runtime_platform(found.runtime_platform)
        .set_enable_fault_injection(found.enable_fault_injection)
        .set_tags(answer.tags.filter(|tags| !tags.is_empty()));
    let answer = call.send().await;
    let answer = answer.map_err(|error| failed(&format!("register `{}` once more", short(arn)), error))?;
    let registered = answer.task_definition.and_then(|registered| registered.task_definition_arn);
    registered.context("ECS gave no ARN for a task definition")
}

/// Of the task definitions that services run, those that were deregistered. Most are found in the list of the active ones, which has a
/// hundred to a page; the others are described.
pub(super) async fn inactive(
    ecs: &aws_sdk_ecs::Client,
    mut arns: BTreeSet<String>,
) -> anyhow::Result<BTreeSet<String>> {
    let mut listed = 0;
    if arns.len() > LISTED_FROM {
        let list = ecs.list_task_definitions().status(TaskDefinitionStatus::Active).max_results(100);
        let mut pages = list.into_paginator().items().send();
        while let Some(arn) = pages.next().await {
            arns.remove(&arn.map_err(|error| failed("list the task definitions", error))?);
            listed += 1;
            if arns.is_empty() || listed == MOST_LISTED {
                break;
            }
        }
    }
    let one = |arn: String| async move {
        let is_active = describe(ecs, "", &arn).await?.is_active;
        Ok::<_, anyhow::Error>((!is_active).then_some(arn))
    };
    let described = futures::stream::iter(arns).map(one).buffered(AT_ONCE);
    Ok(described.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}

async fn newest_if_equal(
    ecs: &aws_sdk_ecs::Client,
    handover: &Handover,
    service: &str,
    definition: &Definition,
) -> anyhow::Result<Option<String>> {
    let task = definition.ecs.as_ref().context("a definition for ECS")?;
    let of = Names { service, container: &task.container };
    let Some(mut found) = newest(ecs, of, &task.family).await? else { return Ok(None) };
    take_unnamed_tags(&mut found.definition, definition);
    let is_own = found.owner == Some(Owner::new(handover, service));
    let is_equal = found.is_active && found.definition == *definition;
    Ok((is_own && is_equal).then_some(found.arn))
}

/// Families that have active revisions.
pub(super) async fn families(ecs: &aws_sdk_ecs::Client) -> anyhow::Result<BTreeSet<String>> {
    let list = ecs.list_task_definition_families().max_results(100).status(TaskDefinitionFamilyStatus::Active);
    let families = list.into_paginator().items().send().collect::<Vec<_>>().await;
    let failed = |error| failed("list the families of task definitions", error);
    families.into_iter().map(|family| family.map_err(failed)).collect()
}

/// ARNs of the active revisions of a family, the newest first.
pub(super) async fn active(ecs: &aws_sdk_ecs::Client, family: &str) -> anyhow::Result<Vec<String>> {
    let list = ecs.list_task_definitions().family_prefix(family).sort(SortOrder::Desc);
    let mut pages = list.status(TaskDefinitionStatus::Active).max_results(100).into_paginator().items().send();
    let mut arns = Vec::new();
    while let Some(arn) = pages.next().await {
        let arn = arn.map_err(|error| failed(&format!("list the task definitions of `{family}`"), error))?;
        // The prefix may be that of another family too.
        if short(&arn).rsplit_once(':').is_some_and(|(found, _)| found == family) {
            arns.push(arn);
        }
    }
    // However they were sorted: by number, not by text.
    arns.sort_by_key(|arn| std::cmp::Reverse(revision(arn)));
    Ok(arns)
}

/// Which revisions are needed, and what for; a service's own are the newest first.
fn needed(own: &[TaskDefinition], service: Option<&Service>, outcomes: &Outcomes) -> Vec<(String, Use)> {
    let mut needed: Vec<(String, Use)> = Vec::new();
    if let Some(service) = service {
        let current = &service.task_definition;
        needed.push((current.clone(), Use::Current));
        let deployments = service.deployments.iter().map(|deployment| &deployment.task_definition);
        needed.extend(deployments.filter(|arn| *arn != current).map(|arn| (arn.clone(), Use::Deployment)));
        let current = own.iter().find(|found| found.arn == *current);
        let target = current.and_then(|current| outcomes.rollback_target(own, current));
        needed.extend(target.map(|arn| (arn.to_owned(), Use::RollbackTarget)));
    }
    needed.extend(outcomes.last_deployed().map(|arn| (arn.to_owned(), Use::LastDeployed)));
    needed
}

/// Which may be deregistered: those that are neither among the newest nor needed.
fn superfluous(arns: &[String], needed: &BTreeSet<String>, keep: usize) -> Vec<String> {
    arns.iter().skip(keep).filter(|arn| !needed.contains(*arn)).cloned().collect()
}

/// For people.
pub(crate) fn deregistered_text(all: &[Deregistered]) -> String {
    let numbers = |numbers: &[u64]| match numbers {
        [] => "none".to_owned(),
        numbers => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    };
    let rows = all.iter().map(|one| vec![one.service.clone(), numbers(&one.deregistered), numbers(&one.remaining)]);
    table(&["service", "deregistered", "kept"], rows)
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{Deployment, Service as SdkService, TaskDefinition as SdkTaskDefinition};

    use super::*;
    use crate::pipeline::history::{Record, StepRecord};

    fn arn(number: u64) -> String {
        format!("arn:aws:ecs:us-east-1:123456789012:task-definition/quest-system-nats:{number}")
    }

    fn outcomes(steps: &[(u64, &str)]) -> Outcomes {
        let record = |(number, result): &(u64, &str)| {
            let mut record = Record::start("", "", std::path::Path::new("/"), BTreeSet::new());
            let (step, to, result) =
                ("update service quest-system".to_owned(), Some(arn(*number)), (*result).to_owned());
            record.steps = vec![StepRecord { step, from: None, to, image: None, result }];
            record
        };
        Outcomes::of(&steps.iter().map(record).collect::<Vec<_>>(), "quest-system")
    }

    /// Revisions 10 to 1; the service is at `current`, with deployments of `deployments`; the last run is the first.
    fn check(keep: usize, current: u64, deployments: &[u64], runs: &[(u64, &str)], gone: &[u64]) {
        let own = |number| {
            let found = SdkTaskDefinition::builder().task_definition_arn(arn(number)).build();
            TaskDefinition::new("quest-system".into(), found, &[]).unwrap()
        };
        let own: Vec<TaskDefinition> = (1..=10).rev().map(own).collect();
        let deployments = deployments.iter().map(|number| Deployment::builder().task_definition(arn(*number)).build());
        let service =
            SdkService::builder().task_definition(arn(current)).set_deployments(Some(deployments.collect())).build();
        let needed = needed(&own, Some(&service.into()), &outcomes(runs)).into_iter().map(|(arn, _)| arn).collect();
        let arns: Vec<String> = own.into_iter().map(|found| found.arn).collect();
        let found: Vec<u64> = superfluous(&arns, &needed, keep).iter().map(|arn| revision(arn)).collect();
        assert_eq!(found, gone);
    }

    #[test]
    fn the_newest_stay() {
        check(5, 10, &[10], &[(10, "done")], &[5, 4, 3, 2, 1]);
        check(100, 10, &[10], &[], &[]);
    }

    #[test]
    fn what_runs_stays_and_what_rollback_goes_to() {
        check(1, 4, &[4], &[(4, "done"), (9, "done"), (3, "done"), (2, "done")], &[9, 8, 7, 6, 5, 2, 1]);
        check(0, 10, &[10], &[(10, "done"), (9, "failed"), (8, "done")], &[9, 7, 6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn what_a_deployment_is_at_stays() {
        check(1, 10, &[10, 6], &[(10, "done"), (9, "done")], &[8, 7, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn what_was_last_deployed_successfully_stays() {
        check(1, 10, &[10], &[(10, "failed"), (3, "done")], &[9, 8, 7, 6, 5, 4, 2, 1]);
    }
}

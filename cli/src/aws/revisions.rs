//! Revisions of task definitions: they are registered, described, and deregistered when nothing needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::types::{SortOrder, TaskDefinitionFamilyStatus, TaskDefinitionStatus};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::arn::{revision, short};
use super::error::{code, failed, is_uncertain};
use super::ledger::Ledger;
use super::services::{self, Service};
use super::task_definition::{TaskDefinition, registration};
use super::{AT_ONCE, Aws, lock, tags};
use crate::error::Hinted;
use crate::handover::Handover;
use crate::model::desired::Definition;
use crate::pipeline::history::Record;
use crate::pipeline::lock::IfHeld;
use crate::screen::table;

/// Runs that are searched for the last successful one.
const RECORDS: i32 = 100;
/// Attempts to register a task definition: ECS accepts one registration a second, and more in a burst.
const REGISTRATION_ATTEMPTS: u32 = 10;
/// Before the second attempt; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// Between two attempts at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// One revision of a service.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Revision {
    pub(crate) revision: u64,
    #[serde(rename = "kept")]
    pub(crate) uses: Vec<Use>,
    pub(crate) image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registered: Option<jiff::Timestamp>,
    /// ARN of the caller that registered it.
    #[serde(rename = "by")]
    pub(crate) registered_by: String,
}

/// What a revision is still needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Use {
    /// The service should run it.
    Current,
    /// A deployment is at it, or moves to it or away from it, so that tasks of it may run.
    Deployment,
    /// `rollback` goes to it.
    RollbackTarget,
    /// The last successful deployment ran it.
    LastDeployed,
}

impl Use {
    fn text(self) -> &'static str {
        match self {
            Self::Current => "runs",
            Self::Deployment => "in a deployment",
            Self::RollbackTarget => "rollback goes to it",
            Self::LastDeployed => "last one that was deployed successfully",
        }
    }
}

/// The revisions of a service after old ones were deregistered.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Deregistered {
    pub(crate) service: String,
    pub(crate) deregistered: Vec<u64>,
    #[serde(rename = "kept")]
    pub(crate) remaining: Vec<u64>,
}

/// What decides which revisions are needed.
struct Needs {
    /// By name on ECS, which is the family too.
    services: BTreeMap<String, Service>,
    /// The last runs, the newest first.
    records: Vec<Record>,
}

impl Needs {
    async fn read(aws: &Aws, families: &[String]) -> anyhow::Result<Self> {
        let ledger = Ledger::of(aws);
        let (services, records) =
            futures::try_join!(services::describe(aws.ecs_cluster(), families), ledger.records(RECORDS))?;
        Ok(Self { services, records })
    }

    fn of(&self, name: &str, family: &str, arns: &[String]) -> Vec<(String, Use)> {
        needed(arns, self.services.get(family), last_deployed(&self.records, name).as_deref())
    }
}

/// The newest active revisions of a service, at most so many.
pub(crate) async fn list(aws: &Aws, name: &str, limit: usize) -> anyhow::Result<Vec<Revision>> {
    let family = aws.manifests.services[name].ecs_name();
    let families = [family.clone()];
    let ecs = aws.clients.ecs();
    let (arns, needs) = futures::try_join!(active(ecs, &family), Needs::read(aws, &families))?;
    let needed = needs.of(name, &family, &arns);
    let one = |arn: String| {
        let uses = needed.iter().filter(|(needed, _)| *needed == arn).map(|(_, why)| *why).collect();
        async move { Ok(Revision::new(describe(ecs, name, &arn).await?, uses)) }
    };
    let newest: Vec<_> = arns.iter().take(limit).cloned().map(one).collect();
    futures::stream::iter(newest).buffered(AT_ONCE).try_collect().await
}

impl Revision {
    fn new(found: TaskDefinition, uses: Vec<Use>) -> Self {
        let image = found.containers.first().map(|container| container.image.clone());
        Self {
            revision: revision(&found.arn),
            uses,
            image: image.unwrap_or_default(),
            registered: found.registered,
            registered_by: found.registered_by,
        }
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

async fn deregister_locked(aws: &Aws, names: &BTreeSet<String>, keep: usize) -> anyhow::Result<Vec<Deregistered>> {
    let ecs = aws.clients.ecs();
    let family = |name: &String| aws.manifests.services[name].ecs_name();
    let families: Vec<String> = names.iter().map(family).collect();
    let needs = Needs::read(aws, &families).await?;
    let mut all = Vec::new();
    for (name, family) in names.iter().zip(families) {
        let arns = active(ecs, &family).await?;
        let needed = needs.of(name, &family, &arns).into_iter().map(|(arn, _)| arn).collect();
        let old = superfluous(&arns, &needed, keep);
        let remaining = arns.iter().filter(|arn| !old.contains(arn)).map(|arn| revision(arn)).collect();
        let calls: Vec<_> = old.into_iter().map(|arn| deregister_one(ecs, arn)).collect();
        let deregistered = futures::stream::iter(calls).buffered(AT_ONCE).try_collect().await?;
        all.push(Deregistered { service: name.clone(), deregistered, remaining });
    }
    Ok(all)
}

async fn deregister_one(ecs: &aws_sdk_ecs::Client, arn: String) -> anyhow::Result<u64> {
    let answer = ecs.deregister_task_definition().task_definition(&arn).send().await;
    answer.map_err(|error| failed(&format!("deregister the task definition `{}`", short(&arn)), error))?;
    Ok(revision(&arn))
}

/// The task definition with this ARN or `family:revision`, as that of a service.
pub(super) async fn describe(ecs: &aws_sdk_ecs::Client, service: &str, name: &str) -> anyhow::Result<TaskDefinition> {
    let answer = ecs.describe_task_definition().task_definition(name).send().await;
    let answer = answer.map_err(|error| failed(&format!("describe the task definition `{}`", short(name)), error))?;
    answer.task_definition.map(|found| TaskDefinition::new(service, found)).ok_or_else(|| {
        let hint = "`natsctl revisions` lists the active ones";
        Hinted::new(format!("there is no task definition `{}`", short(name)), hint).into()
    })
}

/// The newest active revision of a family, as that of a service; `None` if the family has none.
pub(super) async fn newest(
    ecs: &aws_sdk_ecs::Client,
    service: &str,
    family: &str,
) -> anyhow::Result<Option<TaskDefinition>> {
    match ecs.describe_task_definition().task_definition(family).send().await {
        Ok(answer) => Ok(answer.task_definition.map(|found| TaskDefinition::new(service, found))),
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
    match newest_if_equal(ecs, service, definition).await? {
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
        let call = registration(ecs, service, definition)?.set_tags(Some(tags::of(handover, service)));
        let error = match call.customize().config_override(once).send().await {
            Ok(answer) => {
                let registered = answer.task_definition.and_then(|registered| registered.task_definition_arn);
                return registered.context("ECS gave no ARN for a task definition");
            }
            Err(error) => error,
        };
        let is_throttled =
            code(&error).is_some_and(|code| code.contains("Throttling") || code.contains("LimitExceeded"));
        if !(is_uncertain(&error) || is_throttled) || attempt == REGISTRATION_ATTEMPTS {
            let family = definition.ecs.as_ref().map(|task| task.family.as_str()).unwrap_or_default();
            return Err(failed(&format!("register the task definition `{family}`"), error));
        }
        tokio::time::sleep((FIRST_PAUSE * 2_u32.pow(attempt - 1)).min(LONGEST_PAUSE)).await;
        if let Some(arn) = newest_if_equal(ecs, service, definition).await? {
            return Ok(arn);
        }
    }
    unreachable!("the loop ends by returning")
}

async fn newest_if_equal(
    ecs: &aws_sdk_ecs::Client,
    service: &str,
    definition: &Definition,
) -> anyhow::Result<Option<String>> {
    let family = &definition.ecs.as_ref().context("a definition for ECS")?.family;
    let Some(found) = newest(ecs, service, family).await? else { return Ok(None) };
    let is_equal = found.is_active && found.definition == *definition;
    Ok(is_equal.then_some(found.arn))
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

/// The task definition that a service was last deployed with successfully.
fn last_deployed(records: &[Record], name: &str) -> Option<String> {
    let end = format!(" {name}");
    let done = records.iter().flat_map(|record| &record.steps).filter(|step| step.result == "done");
    let mut of_service = done.filter(|step| step.step.ends_with(&end)).filter_map(|step| step.to.clone());
    of_service.next()
}

/// Which revisions are needed, and what for; the ARNs are the newest first.
fn needed(arns: &[String], service: Option<&Service>, deployed: Option<&str>) -> Vec<(String, Use)> {
    let mut needed: Vec<(String, Use)> = Vec::new();
    if let Some(service) = service {
        let current = &service.task_definition;
        needed.push((current.clone(), Use::Current));
        let deployments = service.deployments.iter().map(|deployment| &deployment.task_definition);
        needed.extend(deployments.filter(|arn| *arn != current).map(|arn| (arn.clone(), Use::Deployment)));
        let before = arns.iter().find(|arn| revision(arn) < revision(current));
        needed.extend(before.map(|arn| (arn.clone(), Use::RollbackTarget)));
    }
    needed.extend(deployed.map(|arn| (arn.to_owned(), Use::LastDeployed)));
    needed
}

/// Which may be deregistered: those that are neither among the newest nor needed.
fn superfluous(arns: &[String], needed: &BTreeSet<String>, keep: usize) -> Vec<String> {
    arns.iter().skip(keep).filter(|arn| !needed.contains(*arn)).cloned().collect()
}

/// For people.
pub(crate) fn text(name: &str, revisions: &[Revision]) -> String {
    if revisions.is_empty() {
        return format!("`{name}` has no active revision");
    }
    let rows = revisions.iter().map(|one| {
        let uses = one.uses.iter().map(|one| one.text()).collect::<Vec<_>>().join(", ");
        let registered = one.registered.map(|at| at.to_string()).unwrap_or_default();
        let by = one.registered_by.rsplit('/').next().unwrap_or_default().to_owned();
        vec![one.revision.to_string(), registered, by, one.image.clone(), uses]
    });
    table(&["revision", "registered", "by", "image", ""], rows)
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
    use aws_sdk_ecs::types::{Deployment, Service as SdkService};

    use super::*;
    use crate::pipeline::history::{RunResult, StepRecord};

    fn arn(number: u64) -> String {
        format!("arn:aws:ecs:us-east-1:123456789012:task-definition/quest-system-nats:{number}")
    }

    /// Revisions 10 to 1; the service is at `current`, with deployments of `deployments`.
    fn check(keep: usize, current: u64, deployments: &[u64], deployed: Option<u64>, gone: &[u64]) {
        let arns: Vec<String> = (1..=10).rev().map(arn).collect();
        let deployments = deployments.iter().map(|number| Deployment::builder().task_definition(arn(*number)).build());
        let service =
            SdkService::builder().task_definition(arn(current)).set_deployments(Some(deployments.collect())).build();
        let needed = needed(&arns, Some(&service.into()), deployed.map(arn).as_deref());
        let needed = needed.into_iter().map(|(arn, _)| arn).collect();
        let found: Vec<u64> = superfluous(&arns, &needed, keep).iter().map(|arn| revision(arn)).collect();
        assert_eq!(found, gone);
    }

    #[test]
    fn the_newest_stay() {
        check(5, 10, &[10], None, &[5, 4, 3, 2, 1]);
        check(100, 10, &[10], None, &[]);
    }

    #[test]
    fn what_runs_stays_and_what_rollback_goes_to() {
        check(1, 4, &[4], None, &[9, 8, 7, 6, 5, 2, 1]);
        check(0, 10, &[10], None, &[8, 7, 6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn what_a_deployment_is_at_stays() {
        check(1, 10, &[10, 6], None, &[8, 7, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn what_was_last_deployed_successfully_stays() {
        check(1, 10, &[10], Some(3), &[8, 7, 6, 5, 4, 2, 1]);
        let step = |service: &str, to: u64, result: &str| StepRecord {
            step: format!("update service {service}"),
            from: None,
            to: Some(arn(to)),
            image: None,
            result: result.to_owned(),
        };
        let record = |steps| Record {
            id: String::new(),
            who: String::new(),
            command: String::new(),
            git_revision: String::new(),
            started: jiff::Timestamp::UNIX_EPOCH,
            ended: None,
            result: RunResult::Done,
            error: None,
            services: Vec::new(),
            steps,
        };
        let records = [
            record(vec![step("quest-system", 9, "failed"), step("auth", 8, "done")]),
            record(vec![step("quest-system", 7, "done")]),
        ];
        assert_eq!(last_deployed(&records, "quest-system"), Some(arn(7)));
    }
}

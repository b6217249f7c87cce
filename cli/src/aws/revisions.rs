//! Revisions of services: which there are, and which may go.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ecs::types::{Service, SortOrder, TaskDefinition, TaskDefinitionStatus};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::error::{code, failed};
use super::ledger::Record;
use super::observe::revision;
use super::rollout::short;
use super::{AT_ONCE, Aws};
use crate::error::Hinted;
use crate::pipeline::lock::IfHeld;
use crate::screen::table;

/// One revision of a service.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Revision {
    pub(crate) revision: u64,
    /// What it is still needed for.
    pub(crate) kept: Vec<Kept>,
    pub(crate) image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registered: Option<jiff::Timestamp>,
    /// ARN of who registered it.
    pub(crate) by: String,
}

/// What a revision is still needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kept {
    /// It is what the service should run.
    Current,
    /// Tasks of it may run: a deployment is at it, or on its way from it or to it.
    Deployment,
    /// `rollback` goes to it.
    RollbackTarget,
    /// The last successful deployment ran it.
    LastDeployed,
}

impl Kept {
    fn words(self) -> &'static str {
        match self {
            Self::Current => "runs",
            Self::Deployment => "in a deployment",
            Self::RollbackTarget => "rollback goes to it",
            Self::LastDeployed => "last one that was deployed successfully",
        }
    }
}

/// What was done away with.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Deregistered {
    pub(crate) service: String,
    pub(crate) deregistered: Vec<u64>,
    pub(crate) kept: Vec<u64>,
}

/// What is looked at to find out which revisions are needed.
struct Needs {
    services: BTreeMap<String, Service>,
    records: Vec<Record>,
}

impl Needs {
    fn of(&self, name: &str, family: &str, arns: &[String]) -> Vec<(String, Kept)> {
        needed(arns, self.services.get(family), last_deployed(&self.records, name).as_deref())
    }
}

impl Aws {
    /// The newest active revisions of a service, at most so many.
    pub(crate) async fn revisions(&self, name: &str, limit: usize) -> anyhow::Result<Vec<Revision>> {
        let family = self.manifests.services[name].ecs_name();
        let families = [family.clone()];
        let (arns, needs) = futures::try_join!(self.active(&family), self.needs(&families))?;
        let needed = needs.of(name, &family, &arns);
        let one = |arn: String| {
            let kept = needed.iter().filter(|(needed, _)| *needed == arn).map(|(_, why)| *why).collect();
            async move { self.revision(&arn, kept).await }
        };
        let newest: Vec<_> = arns.iter().take(limit).cloned().map(one).collect();
        futures::stream::iter(newest).buffered(AT_ONCE).try_collect().await
    }

    async fn revision(&self, arn: &str, kept: Vec<Kept>) -> anyhow::Result<Revision> {
        let found = self.task_definition(arn).await?;
        let image = found.container_definitions().first().and_then(|container| container.image());
        let registered = found.registered_at();
        Ok(Revision {
            revision: revision(arn),
            kept,
            image: image.unwrap_or_default().to_owned(),
            registered: registered.and_then(|at| jiff::Timestamp::from_second(at.secs()).ok()),
            by: found.registered_by().unwrap_or_default().to_owned(),
        })
    }

    /// Does away with old revisions of services, while nobody deploys. The newest stay, and whatever is still needed.
    pub(crate) async fn deregister(
        &self,
        names: &BTreeSet<String>,
        keep: usize,
        if_held: IfHeld,
    ) -> anyhow::Result<Vec<Deregistered>> {
        self.alone(if_held, self.deregister_locked(names, keep)).await
    }

    async fn deregister_locked(&self, names: &BTreeSet<String>, keep: usize) -> anyhow::Result<Vec<Deregistered>> {
        let family = |name: &String| self.manifests.services[name].ecs_name();
        let families: Vec<String> = names.iter().map(family).collect();
        let needs = self.needs(&families).await?;
        let mut all = Vec::new();
        for (name, family) in names.iter().zip(families) {
            let arns = self.active(&family).await?;
            let needed = needs.of(name, &family, &arns).into_iter().map(|(arn, _)| arn).collect();
            let go = superfluous(&arns, &needed, keep);
            let kept = arns.iter().filter(|arn| !go.contains(arn)).map(|arn| revision(arn)).collect();
            let going: Vec<_> = go.into_iter().map(|arn| self.deregister_one(arn)).collect();
            let deregistered = futures::stream::iter(going).buffered(AT_ONCE).try_collect().await?;
            all.push(Deregistered { service: name.clone(), deregistered, kept });
        }
        Ok(all)
    }

    async fn deregister_one(&self, arn: String) -> anyhow::Result<u64> {
        let answer = self.clients.ecs().deregister_task_definition().task_definition(&arn).send().await;
        answer.map_err(|error| failed(&format!("deregister the task definition `{}`", short(&arn)), error))?;
        Ok(revision(&arn))
    }

    /// A task definition, by its ARN or by `family:revision`.
    pub(super) async fn task_definition(&self, name: &str) -> anyhow::Result<TaskDefinition> {
        let answer = self.clients.ecs().describe_task_definition().task_definition(name).send().await;
        let answer =
            answer.map_err(|error| failed(&format!("describe the task definition `{}`", short(name)), error))?;
        answer.task_definition.ok_or_else(|| {
            let hint = "`natsctl revisions` lists those that there are";
            Hinted::new(format!("there is no task definition `{}`", short(name)), hint).into()
        })
    }

    /// The newest active revision of a family; `None` if it has none.
    pub(super) async fn newest(&self, family: &str) -> anyhow::Result<Option<TaskDefinition>> {
        match self.clients.ecs().describe_task_definition().task_definition(family).send().await {
            Ok(answer) => Ok(answer.task_definition),
            Err(error) if code(&error) == Some("ClientException") => Ok(None),
            Err(error) => Err(failed(&format!("describe the newest task definition of `{family}`"), error)),
        }
    }

    /// ARNs of the active revisions of a family, the newest first.
    pub(crate) async fn active(&self, family: &str) -> anyhow::Result<Vec<String>> {
        let list = self.clients.ecs().list_task_definitions().family_prefix(family).sort(SortOrder::Desc);
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

    async fn needs(&self, families: &[String]) -> anyhow::Result<Needs> {
        let (services, records) = futures::try_join!(self.describe_services(families), self.records(RECORDS))?;
        Ok(Needs { services, records })
    }
}

/// Runs that are looked through for the last that was successful.
const RECORDS: i32 = 100;

/// The task definition that a service was last brought to successfully.
fn last_deployed(records: &[Record], name: &str) -> Option<String> {
    let end = format!(" {name}");
    let done = records.iter().flat_map(|record| &record.steps).filter(|step| step.result == "done");
    let mut of_service = done.filter(|step| step.step.ends_with(&end)).filter_map(|step| step.to.clone());
    of_service.next()
}

/// Which revisions are needed, and what for; the ARNs are the newest first.
fn needed(arns: &[String], service: Option<&Service>, deployed: Option<&str>) -> Vec<(String, Kept)> {
    let mut needed: Vec<(String, Kept)> = Vec::new();
    if let Some(service) = service {
        let current = service.task_definition().unwrap_or_default();
        needed.push((current.to_owned(), Kept::Current));
        let deployments = service.deployments().iter().filter_map(|deployment| deployment.task_definition());
        needed.extend(deployments.filter(|arn| *arn != current).map(|arn| (arn.to_owned(), Kept::Deployment)));
        let before = arns.iter().find(|arn| revision(arn) < revision(current));
        needed.extend(before.map(|arn| (arn.clone(), Kept::RollbackTarget)));
    }
    needed.extend(deployed.map(|arn| (arn.to_owned(), Kept::LastDeployed)));
    needed
}

/// Which may go: neither of the newest, nor needed.
fn superfluous(arns: &[String], needed: &BTreeSet<String>, keep: usize) -> Vec<String> {
    arns.iter().skip(keep).filter(|arn| !needed.contains(*arn)).cloned().collect()
}

/// For people.
pub(crate) fn text(name: &str, revisions: &[Revision]) -> String {
    if revisions.is_empty() {
        return format!("`{name}` has no active revision");
    }
    let rows = revisions.iter().map(|one| {
        let kept = one.kept.iter().map(|kept| kept.words()).collect::<Vec<_>>().join(", ");
        let registered = one.registered.map(|at| at.to_string()).unwrap_or_default();
        let by = one.by.rsplit('/').next().unwrap_or_default().to_owned();
        vec![one.revision.to_string(), registered, by, one.image.clone(), kept]
    });
    table(&["revision", "registered", "by", "image", ""], rows)
}

/// For people.
pub(crate) fn deregistered_text(all: &[Deregistered]) -> String {
    let numbers = |numbers: &[u64]| match numbers {
        [] => "none".to_owned(),
        numbers => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    };
    let rows = all.iter().map(|one| vec![one.service.clone(), numbers(&one.deregistered), numbers(&one.kept)]);
    table(&["service", "deregistered", "kept"], rows)
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::Deployment;

    use super::*;
    use crate::aws::ledger::{Done, Outcome};

    fn arn(number: u64) -> String {
        format!("arn:aws:ecs:us-east-1:123456789012:task-definition/quest-system-nats:{number}")
    }

    /// Revisions 10 to 1; the service is at `current`, with deployments of `deployments`.
    fn check(keep: usize, current: u64, deployments: &[u64], deployed: Option<u64>, gone: &[u64]) {
        let arns: Vec<String> = (1..=10).rev().map(arn).collect();
        let deployments = deployments.iter().map(|number| Deployment::builder().task_definition(arn(*number)).build());
        let service =
            Service::builder().task_definition(arn(current)).set_deployments(Some(deployments.collect())).build();
        let needed = needed(&arns, Some(&service), deployed.map(arn).as_deref());
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
        let step = |service: &str, to: u64, result: &str| Done {
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
            result: Outcome::Done,
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

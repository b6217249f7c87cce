//! Which revisions are those of a service of the environment, and which of them ran well. Everything in an account shares families
//! and their numbers: tags and the ledger say whose a revision is, and what became of it.

use futures::{StreamExt as _, TryStreamExt as _};

use super::{active, describe};
use crate::aws::arn::{family, revision, short};
use crate::aws::ledger::Ledger;
use crate::aws::tags::Owner;
use crate::aws::task_definition::TaskDefinition;
use crate::aws::{AT_ONCE, Aws};
use crate::error::Hinted;
use crate::model::observed::Revision;
use crate::pipeline::history::{Record, StepRecord};

/// Runs that say what became of revisions.
const RECORDS: i32 = 100;
/// Revisions that an error names.
const NAMED: usize = 10;

/// What became of the revisions of one service, by the ledger: the ARN of each, and whether its last deployment succeeded. What
/// ran last is the first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcomes(Vec<(String, bool)>);

/// The last runs, the newest first.
pub(super) async fn records(aws: &Aws) -> anyhow::Result<Vec<Record>> {
    Ledger::of(aws).records(RECORDS).await
}

impl Outcomes {
    /// `records` are the last runs, the newest first.
    pub(super) fn of(records: &[Record], service: &str) -> Self {
        let end = format!(" {service}");
        let steps =
            records.iter().flat_map(|record| record.steps.iter().rev()).filter(|step| step.step.ends_with(&end));
        let steps: Vec<&StepRecord> = steps.filter(|step| matches!(&*step.result, "done" | "failed")).collect();
        let last =
            |arn: &String| steps.iter().find(|step| step.to.as_ref() == Some(arn)).map(|step| step.result == "done");
        let mut outcomes = Self::default();
        for arn in steps.iter().flat_map(|step| [&step.to, &step.from]).flatten() {
            if outcomes.get(arn).is_none() {
                // What ran before a deployment was perhaps not deployed by natsctl.
                outcomes.0.push((arn.clone(), last(arn).unwrap_or(true)));
            }
        }
        outcomes
    }

    fn get(&self, arn: &str) -> Option<bool> {
        self.0.iter().find(|(known, _)| known == arn).map(|(_, succeeded)| *succeeded)
    }

    /// Those that ran well.
    fn succeeded(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, succeeded)| *succeeded).map(|(arn, _)| arn.as_str())
    }

    /// The one that was last deployed successfully.
    pub(super) fn last_deployed(&self) -> Option<&str> {
        self.succeeded().next()
    }

    /// What `rollback` goes to, of a service's own revisions: the latest that ran well and is older than the current one.
    pub(super) fn rollback_target<'a>(&self, own: &'a [TaskDefinition], current: &TaskDefinition) -> Option<&'a str> {
        let own = |arn: &str| own.iter().find(|found| found.arn == arn);
        self.succeeded().filter_map(own).find(|found| found.is_before(current)).map(|found| found.arn.as_str())
    }
}

impl TaskDefinition {
    /// Whether it was registered before another one.
    fn is_before(&self, other: &Self) -> bool {
        if family(&self.arn) == family(&other.arn) {
            return revision(&self.arn) < revision(&other.arn);
        }
        self.registered < other.registered
    }
}

/// Revisions of one service.
pub(super) struct Own<'a> {
    pub(super) aws: &'a Aws,
    /// The manifest's name.
    pub(super) service: &'a str,
    /// What it runs, if it is there.
    pub(super) current: Option<&'a str>,
    pub(super) outcomes: &'a Outcomes,
}

impl Own<'_> {
    /// ARNs of active revisions that may be its own: those of its family, the newest first, and those of another family that it
    /// runs, or has run before.
    async fn candidates(&self) -> anyhow::Result<Vec<String>> {
        let ecs = self.aws.clients.ecs();
        let own = self.aws.handover.task_family(&self.aws.manifests.services[self.service]);
        let other = self.current.map(family).filter(|other| *other != own);
        let mut arns = active(ecs, &own).await?;
        if let Some(other) = other {
            arns.extend(active(ecs, other).await?);
        }
        let is_listed = |arn: &str| family(arn) == own || Some(family(arn)) == other;
        arns.extend(self.outcomes.0.iter().map(|(arn, _)| arn.clone()).filter(|arn| !is_listed(arn)));
        Ok(arns)
    }

    async fn describe(&self, arn: &str) -> anyhow::Result<TaskDefinition> {
        describe(self.aws.clients.ecs(), self.aws.names(self.service), arn).await
    }

    /// One without tags is its own if it runs it, or has run it.
    fn is_own(&self, found: &TaskDefinition) -> bool {
        let known = self.current == Some(&*found.arn) || self.outcomes.get(&found.arn).is_some();
        let owner = Owner::new(&self.aws.handover, self.service);
        found.is_active && found.owner.as_ref().map_or(known, |found| *found == owner)
    }

    /// Those that are its own, at most so many.
    pub(super) async fn list(&self, limit: usize) -> anyhow::Result<Vec<TaskDefinition>> {
        let candidates = self.candidates().await?;
        let described = futures::stream::iter(&candidates).map(|arn| self.describe(arn)).buffered(AT_ONCE);
        let own = described.try_filter(|found| std::future::ready(self.is_own(found)));
        own.take(limit).try_collect().await
    }

    /// Those that it may be rolled back to: the one with this number, or the latest that ran well and is older than the current
    /// one. If there is none, those that there are.
    ///
    /// # Errors
    /// The revision with this number is of something else.
    pub(super) async fn earlier(&self, to: Option<u64>) -> anyhow::Result<Vec<Revision>> {
        let found = match to {
            Some(number) => self.numbered(number).await?,
            None => self.rollback_target().await?,
        };
        let one = |found: TaskDefinition, succeeded: bool| Revision {
            number: revision(&found.arn),
            task_definition: Some(found.arn),
            definition: None,
            succeeded,
        };
        match found {
            Some(found) => Ok(vec![one(found, true)]),
            None => Ok(self.list(NAMED).await?.into_iter().map(|found| one(found, false)).collect()),
        }
    }

    async fn numbered(&self, number: u64) -> anyhow::Result<Option<TaskDefinition>> {
        let mut foreign = None;
        for arn in self.candidates().await?.iter().filter(|arn| revision(arn) == number) {
            let found = self.describe(arn).await?;
            if self.is_own(&found) {
                return Ok(Some(found));
            }
            foreign = Some(found);
        }
        foreign.map_or(Ok(None), |foreign| Err(self.is_foreign(&foreign).into()))
    }

    async fn rollback_target(&self) -> anyhow::Result<Option<TaskDefinition>> {
        let Some(current) = self.current else { return Ok(None) };
        let described = self.describe(current).await?;
        for arn in self.outcomes.succeeded().filter(|arn| *arn != current) {
            let found = self.describe(arn).await?;
            if self.is_own(&found) && found.is_before(&described) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    pub(super) fn is_foreign(&self, found: &TaskDefinition) -> Hinted {
        let of = match &found.owner {
            Some(owner) if owner.environment != self.aws.handover.environment => {
                format!("it is of environment `{}`", owner.environment)
            }
            _ => "it was registered for something else".to_owned(),
        };
        let name = short(&found.arn);
        let hint = format!("`natsctl revisions {}` lists its own", self.service);
        Hinted::new(format!("`{name}` is no revision of `{}`: {of}", self.service), hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::history::RunResult;

    fn record(steps: &[(&str, Option<&str>, &str, &str)]) -> Record {
        let step = |(service, from, to, result): &(&str, Option<&str>, &str, &str)| StepRecord {
            step: format!("update service {service}"),
            from: from.map(str::to_owned),
            to: Some((*to).to_owned()),
            image: None,
            result: (*result).to_owned(),
        };
        Record {
            id: String::new(),
            who: String::new(),
            command: String::new(),
            git_revision: String::new(),
            started: jiff::Timestamp::UNIX_EPOCH,
            ended: None,
            result: RunResult::Done,
            error: None,
            services: Vec::new(),
            roll: None,
            steps: steps.iter().map(step).collect(),
        }
    }

    #[test]
    fn the_last_deployment_of_a_revision_counts() {
        let records = [
            record(&[("quest", Some("quest:3"), "quest:4", "failed"), ("auth", None, "auth:8", "done")]),
            record(&[("quest", Some("quest:2"), "quest:3", "done")]),
            record(&[("quest", Some("shop:7"), "quest:2", "failed")]),
            record(&[("quest", Some("shop:7"), "quest:2", "done")]),
        ];
        let outcomes = Outcomes::of(&records, "quest");
        let known =
            [("quest:4", Some(false)), ("quest:3", Some(true)), ("quest:2", Some(false)), ("shop:7", Some(true))];
        for (arn, expected) in known.into_iter().chain([("auth:8", None), ("quest:1", None)]) {
            assert_eq!(outcomes.get(arn), expected, "{arn}");
        }
        assert_eq!(outcomes.succeeded().collect::<Vec<_>>(), ["quest:3", "shop:7"]);
    }
}

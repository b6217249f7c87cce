//! `restart`, `scale` and `rollback` on ECS: what is there, with one thing different.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ecs::types::Service;

use super::apply::Target;
use super::arn::revision;
use super::ledger::{Done, Outcome, Record};
use super::proof::Evidence;
use super::rollout::Begun;
use super::{Aws, revisions};
use crate::commands::rollout::{ProofMode, Until};
use crate::error::Hinted;
use crate::local::lock::IfTaken;

/// Services that are changed at the same time.
const AT_ONCE: usize = 8;
/// How long a change may take.
const WITHIN: Duration = Duration::from_secs(900);

/// What is to be different.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Difference {
    /// New tasks.
    Restart,
    /// Another number of tasks.
    Tasks(u32),
    /// Another revision; the one before if `None`.
    Revision(Option<u64>),
}

impl Aws {
    /// Changes one thing of services that are there, follows it, and proves that they run.
    pub(crate) async fn change(
        &self,
        names: &BTreeSet<String>,
        difference: Difference,
        if_taken: IfTaken,
        proof: ProofMode,
    ) -> anyhow::Result<Vec<String>> {
        self.alone(if_taken, self.change_locked(names, difference)).await?;
        self.prove(names, Evidence { mode: proof, ..Evidence::default() }).await
    }

    async fn change_locked(&self, names: &BTreeSet<String>, difference: Difference) -> anyhow::Result<()> {
        let ecs_names: Vec<String> = names.iter().map(|name| self.manifests.services[name].ecs_name()).collect();
        let services = self.describe_services(&ecs_names).await?;
        let mut targets = BTreeMap::new();
        for name in names {
            let Some(found) = services.get(&self.manifests.services[name].ecs_name()) else {
                let hint = format!("`natsctl deploy {name}` deploys it");
                return Err(Hinted::new(format!("`{name}` is not deployed"), hint).into());
            };
            targets.insert(name.clone(), self.target(name, found, difference).await?);
        }
        let mut record = Record::begin(self, names.iter().cloned());
        record.steps = targets.iter().map(|(name, target)| done(name, target, difference)).collect();
        self.ledger().put_record(&record).await?;
        let outcome = self.moved(&targets, difference).await;
        record.ended = Some(jiff::Timestamp::now());
        record.result = if outcome.is_ok() { Outcome::Done } else { Outcome::Failed };
        record.error = outcome.as_ref().err().map(|error| format!("{error:#}"));
        for step in &mut record.steps {
            step.result = if outcome.is_ok() { "done" } else { "failed" }.to_owned();
        }
        self.ledger().put_record(&record).await?;
        outcome
    }

    async fn target(&self, name: &str, found: &Service, difference: Difference) -> anyhow::Result<Target> {
        let current = found.task_definition().unwrap_or_default();
        let mut target = Target {
            ecs_name: found.service_name().unwrap_or_default().to_owned(),
            task_definition: None,
            tasks: None,
            restart: false,
            before: Some(current.to_owned()),
        };
        match difference {
            Difference::Restart => target.restart = true,
            Difference::Tasks(tasks) => target.tasks = Some(tasks),
            Difference::Revision(wanted) => target.task_definition = Some(self.earlier(name, current, wanted).await?),
        }
        Ok(target)
    }

    /// The task definition to go back to.
    async fn earlier(&self, name: &str, current: &str, wanted: Option<u64>) -> anyhow::Result<String> {
        let family = self.manifests.services[name].ecs_name();
        let known = revisions::active(self.clients.ecs(), &family).await?;
        let found = match wanted {
            Some(wanted) => known.iter().find(|arn| revision(arn) == wanted),
            None => known.iter().find(|arn| revision(arn) < revision(current)),
        };
        found.cloned().ok_or_else(|| {
            let what = wanted.map_or_else(|| "earlier revision".to_owned(), |number| format!("revision {number}"));
            let known: Vec<String> = known.iter().map(|arn| revision(arn).to_string()).collect();
            let hint = format!("active revisions: {}; now it runs {}", known.join(", "), revision(current));
            Hinted::new(format!("`{name}` has no {what} to go back to"), hint).into()
        })
    }

    async fn moved(&self, targets: &BTreeMap<String, Target>, difference: Difference) -> anyhow::Result<()> {
        let begun: Vec<Begun> = self.move_to(targets, AT_ONCE).await?;
        let definitions: BTreeMap<String, String> =
            begun.iter().map(|begun| (begun.service.clone(), begun.task_definition.clone())).collect();
        if let Difference::Revision(_) = difference {
            // What it was brought to by a manifest is not what it runs now.
            let mut state = self.ledger().state().await?;
            state.services.retain(|name, _| !targets.contains_key(name));
            self.ledger().put_state(&state).await?;
        }
        let ended = self.follow(begun, Until::Completed, WITHIN).await?;
        let failures: Vec<String> = ended
            .iter()
            .filter_map(|(name, ended)| ended.explanation(name, &definitions[name], "as its task definition says"))
            .collect();
        if failures.is_empty() {
            return Ok(());
        }
        Err(Hinted::new(failures.join("\n\n"), "`natsctl status` shows what runs").into())
    }
}

fn done(name: &str, target: &Target, difference: Difference) -> Done {
    let what = match difference {
        Difference::Restart => "restart",
        Difference::Tasks(_) => "scale",
        Difference::Revision(_) => "roll back",
    };
    Done {
        step: format!("{what} service {name}"),
        from: target.before.clone(),
        to: target.task_definition.clone().or_else(|| target.before.clone()),
        image: None,
        result: "begun".to_owned(),
    }
}

//! `natsctl restart`, `scale` and `rollback`: deployments of what is there, with one thing different.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde_json::json;

use super::deploy::{LockOptions, chosen, known};
use super::proof::Proof;
#[cfg(feature = "aws")]
use crate::aws::{Aws, change::Difference};
use crate::commands::invocation::Invocation;
use crate::commands::options::Which;
use crate::commands::platform::Platform;
use crate::error::Hinted;
use crate::local::apply::{all, judge, roll};
use crate::local::client::Client;
use crate::local::environment::{Local, WantedService};
use crate::local::protocol::{Force, ServiceStatus};
use crate::manifest::Manifests;
use crate::screen::Report;

/// Replace all tasks of services, without a gap.
#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    lock: LockOptions,
    #[command(flatten)]
    proof: Proof,
}

/// Set how many tasks of a service run.
#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// Which service
    service: String,
    /// How many tasks, within the bounds of its manifest; 0 stops it
    tasks: u32,
    #[command(flatten)]
    lock: LockOptions,
    #[command(flatten)]
    proof: Proof,
}

/// Go back to the revision of a service that ran before.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// Which service
    service: String,
    /// To this revision instead of the one before
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    #[command(flatten)]
    lock: LockOptions,
    #[command(flatten)]
    proof: Proof,
}

impl Restart {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match invocation.platform().await? {
            Platform::Local(local) => self.local(&local, invocation).await,
            #[cfg(feature = "aws")]
            Platform::Aws(aws) => {
                on_aws(&aws, &chosen(&self.which, &aws.manifests)?, Difference::Restart, &self.lock, self.proof).await
            }
        }
    }

    async fn local(self, local: &Local, invocation: &Invocation) -> anyhow::Result<Report> {
        self.proof.refuse_locally()?;
        let which = chosen(&self.which, &local.manifests)?;
        let _lock = local.lock(&invocation.command_line, self.lock.if_taken()).await?;
        let running = running(local).await?;
        let mut wanted = BTreeMap::new();
        for name in which.iter().filter(|name| !self.which.all || running.contains_key(*name)) {
            wanted.insert(
                name.clone(),
                Wanted { force: Force::NewDeployment, ..Wanted::as_it_is(deployed(&running, name)?) },
            );
        }
        deploy(local, wanted).await
    }
}

impl Scale {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match invocation.platform().await? {
            Platform::Local(local) => self.local(&local, invocation).await,
            #[cfg(feature = "aws")]
            Platform::Aws(aws) => {
                let name = self.allowed(&aws.manifests)?;
                on_aws(&aws, &BTreeSet::from([name]), Difference::Tasks(self.tasks), &self.lock, self.proof).await
            }
        }
    }

    /// The service, if it may have so many tasks.
    fn allowed(&self, manifests: &Manifests) -> anyhow::Result<String> {
        let name = known(&self.service, manifests)?;
        let most = manifests.services[&name].settings.autoscaling.max;
        if self.tasks <= most {
            return Ok(name);
        }
        let hint = format!("raise `autoscaling.max` in `services/{name}.yaml`");
        Err(Hinted::new(format!("`{name}` may have at most {most} tasks, not {}", self.tasks), hint).into())
    }

    async fn local(self, local: &Local, invocation: &Invocation) -> anyhow::Result<Report> {
        self.proof.refuse_locally()?;
        let name = self.allowed(&local.manifests)?;
        let _lock = local.lock(&invocation.command_line, self.lock.if_taken()).await?;
        let running = running(local).await?;
        let wanted = Wanted { tasks: self.tasks, ..Wanted::as_it_is(deployed(&running, &name)?) };
        deploy(local, BTreeMap::from([(name, wanted)])).await
    }
}

impl Rollback {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match invocation.platform().await? {
            Platform::Local(local) => self.local(&local, invocation).await,
            #[cfg(feature = "aws")]
            Platform::Aws(aws) => {
                let name = known(&self.service, &aws.manifests)?;
                on_aws(&aws, &BTreeSet::from([name]), Difference::Revision(self.to), &self.lock, self.proof).await
            }
        }
    }

    async fn local(self, local: &Local, invocation: &Invocation) -> anyhow::Result<Report> {
        self.proof.refuse_locally()?;
        let name = known(&self.service, &local.manifests)?;
        let _lock = local.lock(&invocation.command_line, self.lock.if_taken()).await?;
        let running = running(local).await?;
        let service = deployed(&running, &name)?;
        let target = match self.to {
            Some(number) => service.revisions.iter().find(|stored| stored.revision == number),
            None => service.previous.first(),
        };
        let Some(target) = target else {
            let known: Vec<String> = service.revisions.iter().map(|stored| stored.revision.to_string()).collect();
            let what = self.to.map_or_else(|| "an earlier revision".to_owned(), |number| format!("revision {number}"));
            return Err(Hinted::new(
                format!("`{name}` has no {what} to go back to"),
                format!("revisions that are kept: {}", known.join(", ")),
            )
            .into());
        };
        let wanted = Wanted { definition: target.definition.clone(), ..Wanted::as_it_is(service) };
        deploy(local, BTreeMap::from([(name, wanted)])).await
    }
}

#[cfg(feature = "aws")]
async fn on_aws(
    aws: &Aws,
    names: &BTreeSet<String>,
    difference: Difference,
    lock: &LockOptions,
    proof: Proof,
) -> anyhow::Result<Report> {
    let proofs = aws.change(names, difference, lock.if_taken(), proof.mode()?).await?;
    Ok(Report::new(&json!({ "services": names, "proofs": proofs }), proofs.join("\n")))
}

/// What a service should become.
struct Wanted {
    definition: crate::model::desired::Definition,
    declared_tasks: u32,
    tasks: u32,
    force: Force,
}

impl Wanted {
    fn as_it_is(service: &ServiceStatus) -> Self {
        Self {
            definition: service.definition.clone(),
            declared_tasks: service.declared_tasks,
            tasks: service.desired,
            force: Force::IfChanged,
        }
    }
}

async fn running(local: &Local) -> anyhow::Result<BTreeMap<String, ServiceStatus>> {
    let description = local.describe().await?.ok_or_else(|| local.not_deployed())?;
    Ok(description.services)
}

fn deployed<'a>(running: &'a BTreeMap<String, ServiceStatus>, name: &str) -> anyhow::Result<&'a ServiceStatus> {
    running.get(name).ok_or_else(|| {
        Hinted::new(format!("`{name}` is not deployed"), format!("`natsctl deploy {name}` deploys it")).into()
    })
}

async fn deploy(local: &Local, wanted: BTreeMap<String, Wanted>) -> anyhow::Result<Report> {
    let supervisor: Client = local.supervisor().await?;
    let services = wanted.iter().map(|(name, wanted)| {
        let Wanted { definition, declared_tasks, tasks, force } = wanted;
        WantedService { name, definition, declared_tasks: *declared_tasks, tasks: *tasks, force: *force }
    });
    let outcomes = roll(local, &supervisor, services.collect()).await?;
    all(outcomes.iter().map(|(name, outcome)| judge(name, outcome)).collect())?;
    let names: BTreeSet<String> = wanted.into_keys().collect();
    let proofs = local.prove(&names).await?;
    Ok(Report::new(&json!({ "services": names, "proofs": proofs }), proofs.join("\n")))
}

//! What `deploy`, `restart`, `scale`, `rollback`, `stop` and `down` have in common: each is a change that is planned, shown, saved,
//! reviewed and carried out in the same way.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::confirmation::{Confirmation, name_place};
use super::notices::Notices;
use super::platform::Platform;
#[cfg(feature = "aws")]
use crate::aws::nodes;
#[cfg(feature = "aws")]
use crate::error::{Code, Hinted};
use crate::model::change::Change;
use crate::model::plan::Plan;
use crate::model::step::LossKind;
use crate::pipeline::lock::IfHeld;
use crate::pipeline::options::Options;
use crate::pipeline::saved::SavedPlan;
use crate::pipeline::{Done, Purpose};
use crate::screen::layout::seconds;
#[cfg(feature = "aws")]
use crate::screen::note;
use crate::screen::{CHANGES, Report, diff};

/// Options of every command that changes an environment.
#[derive(Debug, Args)]
pub(crate) struct ChangeOptions {
    /// Show what would be done, and change nothing; exits with 2 if there is something to do
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Write the plan into this file, to be carried out later with `--plan`
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    save: Option<PathBuf>,
    /// Carry out exactly this saved plan; refuse if the environment has changed since
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    plan: Option<PathBuf>,
    /// Accept that something is lost for good: the plan says what
    #[arg(long, value_enum, value_name = "KIND")]
    force: Vec<LossKind>,
    #[command(flatten)]
    pub(crate) confirmation: Confirmation,
    #[command(flatten)]
    notices: Notices,
    #[command(flatten)]
    lock: LockOptions,
}

/// What to do while another process changes the environment.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LockOptions {
    /// Fail, instead of waiting, while another process changes the environment
    #[arg(long)]
    no_wait_lock: bool,
}

impl LockOptions {
    pub(crate) fn if_held(self) -> IfHeld {
        if self.no_wait_lock { IfHeld::Fail } else { IfHeld::Wait }
    }
}

impl ChangeOptions {
    /// These and others, as what they mean.
    pub(crate) fn with(&self, options: Options) -> anyhow::Result<Options> {
        Ok(Options {
            if_held: self.lock.if_held(),
            accepted: self.force.iter().copied().collect(),
            reviewed: self.plan.as_deref().map(SavedPlan::read).transpose()?,
            ..options
        })
    }

    /// Brings the NATS nodes to what they should be, or says what would be done.
    ///
    /// # Errors
    /// The environment is on this machine; a node did not get there; only a restart would get one there.
    #[cfg(feature = "aws")]
    pub(crate) async fn apply_nats(&self, platform: &Platform) -> anyhow::Result<()> {
        let Platform::Aws(aws) = platform else {
            let hint = "leave it out: on this machine every deployment brings NATS to what it should be";
            return Err(Hinted::new("`--with-nats` is for environments on AWS", hint).code(Code::WrongPlatform).into());
        };
        if self.dry_run {
            note(&nodes::plan(aws).await?.text());
            return Ok(());
        }
        let applied = nodes::apply(aws, self.lock.if_held()).await?;
        note(&applied.text());
        if applied.remains.is_empty() {
            return Ok(());
        }
        let hint = "restart them one at a time first, or deploy without `--with-nats`; no service was changed";
        Err(Hinted::new("the NATS nodes are not as planned until they are restarted", hint).into())
    }

    /// Plans the change or carries it out. `report` makes the report of what was done.
    pub(crate) async fn carry_out(
        &self,
        platform: &Platform,
        change: &Change,
        options: Options,
        report: impl FnOnce(&Done) -> Report,
    ) -> anyhow::Result<Report> {
        let mut options = self.with(options)?;
        name_place(platform);
        if !self.dry_run {
            self.notices.check(platform)?;
            if options.reviewed.is_none() && self.confirmation.is_needed(platform) {
                options.reviewed = self.confirmed(platform, change, &options).await?;
            }
            let outcome = platform.run(change, &options).await;
            let (who, command) = platform.caller();
            self.notices
                .send(platform, &format!("{}: `{command}` by {who}", platform.manifests().name), &outcome)
                .await;
            return Ok(report(&outcome?));
        }
        let purpose = if self.save.is_some() { Purpose::Change } else { Purpose::Preview };
        let (plan, _) = platform.plan(change, &options, purpose, None).await?;
        planned(platform, change, plan, self.save.as_ref())
    }

    /// The plan, after it was shown and confirmed: nothing else is done then. `None` if there is nothing to confirm.
    ///
    /// # Errors
    /// The answer was no.
    async fn confirmed(
        &self,
        platform: &Platform,
        change: &Change,
        options: &Options,
    ) -> anyhow::Result<Option<SavedPlan>> {
        let (plan, _) = platform.plan(change, options, Purpose::Change, None).await?;
        if plan.is_empty() {
            return Ok(None);
        }
        plan.refuse_losses(&options.accepted)?;
        diff(&plan.to_string());
        self.confirmation.ask("do this?").await?;
        Ok(Some(SavedPlan { environment: platform.manifests().name.clone(), change: change.clone(), plan }))
    }
}

/// Shows a plan, and saves it if that is asked for.
pub(crate) fn planned(
    platform: &Platform,
    change: &Change,
    plan: Plan,
    save: Option<&PathBuf>,
) -> anyhow::Result<Report> {
    let report = Report::new(&plan, plan.to_string()).diff().code(if plan.is_empty() { 0 } else { CHANGES });
    if let Some(file) = save {
        let environment = platform.manifests().name.clone();
        SavedPlan { environment, change: change.clone(), plan }.write(file)?;
    }
    Ok(report)
}

/// What a change of services did: its proofs, and whether there was anything to do.
pub(crate) fn done(done: &Done, services: Option<&BTreeSet<String>>, verb: &str) -> Report {
    let mut data = json!({ "steps": done.plan.steps, "proofs": done.proofs, "record": done.record });
    if let (Some(services), Value::Object(data)) = (services, &mut data) {
        data.insert("services".to_owned(), json!(services));
    }
    let took = seconds(done.took);
    let verdict = match done.plan.is_empty() {
        true => format!("nothing had to be done ({took})"),
        false => format!("{verb} in {took}: {}", done.plan.done()),
    };
    Report::new(&data, [done.proofs.as_slice(), &[verdict]].concat().join("\n"))
}

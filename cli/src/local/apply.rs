//! Does what a plan says, wave by wave, and makes no decisions of its own. Every step can be done twice, so an interrupted run is
//! finished by the next one.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;

use crate::error::Hinted;
use crate::local::client::{Client, Outcome, Progress};
use crate::local::environment::{Local, Prepared, WantedService};
use crate::local::journal::Journal;
use crate::local::protocol::{Deployment, TaskState};
use crate::model::plan::{Action, Kind, Plan, Step};
use crate::screen::note;

/// What a rollout may take beyond the start and the stop of its tasks.
const MARGIN: Duration = Duration::from_secs(30);

/// A plan being applied.
pub(crate) struct Apply<'a> {
    pub(crate) local: &'a Local,
    pub(crate) prepared: &'a Prepared,
    pub(crate) journal: Journal,
}

impl Apply<'_> {
    /// Runs all waves in their order. A wave in which something failed is finished; those after it are not begun.
    pub(crate) async fn run(&self, plan: &Plan) -> anyhow::Result<()> {
        let supervisor = self.local.supervisor().await?;
        for wave in plan.waves() {
            let of_kind = |kind: Kind| wave.iter().filter(move |step| step.kind == kind);
            let (deletions, rest): (Vec<&Step>, Vec<&Step>) =
                wave.iter().partition(|step| step.action == Action::Delete);
            let nodes = rest.iter().copied().filter(|step| step.kind == Kind::Node);
            let (changed, new): (Vec<&Step>, Vec<&Step>) = nodes.partition(|step| step.action == Action::Update);
            if !new.is_empty() {
                self.together(&new, self.local.start_nodes(&supervisor, self.prepared, &new)).await?;
            }
            for step in changed {
                // One at a time, so that the others keep the quorum.
                self.together(&[step], self.local.change_node(&supervisor, self.prepared, step)).await?;
            }
            if of_kind(Kind::Stream).chain(of_kind(Kind::Bucket)).next().is_some() {
                self.assets(&rest).await?;
            }
            let services: Vec<&Step> = rest.iter().copied().filter(|step| step.kind == Kind::Service).collect();
            if !services.is_empty() {
                self.services(&supervisor, &services).await?;
            }
            for step in deletions {
                self.together(&[step], self.delete(&supervisor, step)).await?;
            }
        }
        Ok(())
    }

    /// Does one thing that is the whole of these steps.
    async fn together(&self, steps: &[&Step], work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        for step in steps {
            tracing::info!(%step, wave = step.wave, "begun");
            self.journal.begun(step)?;
        }
        let outcome = work.await;
        for step in steps {
            self.journal.ended(step, &outcome)?;
            if outcome.is_ok() {
                note(&format!("{step} done"));
            }
        }
        outcome
    }

    async fn assets(&self, steps: &[&Step]) -> anyhow::Result<()> {
        let jetstream = self.local.jetstream().await?;
        let (jetstream, desired) = (&jetstream, &self.prepared.desired);
        let puts = steps.iter().copied().filter(|step| matches!(step.kind, Kind::Stream | Kind::Bucket)).map(
            |step| async move {
                let put = async {
                    match step.kind {
                        Kind::Stream => self.local.put_stream(jetstream, desired, &step.name).await,
                        _ => self.local.put_bucket(jetstream, desired, &step.name).await,
                    }
                };
                self.together(&[step], put).await
            },
        );
        all(join_all(puts).await)
    }

    async fn services(&self, supervisor: &Client, steps: &[&Step]) -> anyhow::Result<()> {
        let mut wanted = Vec::new();
        for step in steps {
            self.journal.begun(step)?;
            wanted.push(WantedService::of_step(step, &self.prepared.desired)?);
        }
        let outcomes = roll(self.local, supervisor, wanted).await?;
        let outcomes = steps.iter().map(|step| {
            let outcome = outcomes.get(&step.name).map_or(Ok(()), |outcome| judge(&step.name, outcome));
            self.journal.ended(step, &outcome)?;
            outcome
        });
        all(outcomes.collect())
    }

    async fn delete(&self, supervisor: &Client, step: &Step) -> anyhow::Result<()> {
        match step.kind {
            Kind::Service => supervisor.delete_service(&step.name).await?,
            Kind::Node => supervisor.delete_node(&step.name).await?,
            // A plan never deletes what holds data.
            Kind::Image | Kind::Stream | Kind::Bucket => {}
        }
        Ok(())
    }
}

/// Brings services to what is wanted, all at the same time, waits, and tells of the progress.
pub(crate) async fn roll(
    local: &Local,
    supervisor: &Client,
    wanted: Vec<WantedService<'_>>,
) -> anyhow::Result<BTreeMap<String, Outcome>> {
    let mut deployments = BTreeMap::new();
    let mut limit = Duration::ZERO;
    for service in wanted {
        limit = limit.max(service.definition.health.start_period * 2 + service.definition.stop_timeout + MARGIN);
        deployments.insert(service.name.to_owned(), local.put_service(supervisor, service).await?);
    }
    let tell = |progress| match progress {
        Progress::Tasks { service, ready, desired } => {
            note(&format!("service {service}: {ready} of {desired} tasks ready"));
        }
        Progress::Ended { service, outcome: Outcome::Completed } => note(&format!("service {service} done")),
        // Explained at the end, when everything else has been tried.
        Progress::Ended { service, .. } => note(&format!("service {service} FAILED")),
    };
    Ok(supervisor.follow(&deployments, limit, tell).await?)
}

/// A failed deployment explains itself on one screen.
pub(crate) fn judge(service: &str, outcome: &Outcome) -> anyhow::Result<()> {
    match outcome {
        Outcome::Completed => Ok(()),
        Outcome::Failed(deployment) => Err(failed(service, deployment)),
        Outcome::Superseded => Err(Hinted::new(
            format!("deployment of `{service}` was overtaken by another one"),
            "`natsctl status` shows what runs",
        )
        .into()),
        Outcome::Gone => {
            Err(Hinted::new(format!("`{service}` was removed while it was deployed"), "deploy it again").into())
        }
        Outcome::Unfinished(status) => {
            let waiting = status.tasks.iter().filter(|task| task.state != TaskState::Ready);
            let waiting: Vec<String> = waiting
                .map(|task| {
                    format!("  {} {:?}: {}", task.id, task.state, task.reason.as_deref().unwrap_or("no reason known"))
                })
                .collect();
            let message = format!(
                "`{service}` did not finish in time: {} of {} tasks ready\n{}",
                status.ready(),
                status.desired,
                waiting.join("\n")
            );
            Err(Hinted::new(
                message,
                format!("it goes on; `natsctl status` shows how far it is, `natsctl logs {service}` why"),
            )
            .into())
        }
    }
}

fn failed(service: &str, deployment: &Deployment) -> anyhow::Error {
    let mut message = format!(
        "deployment of `{service}` revision {} failed: {}",
        deployment.revision,
        deployment.reason.as_deref().unwrap_or("no reason known")
    );
    if let Some(task) = &deployment.task {
        message.push_str(&format!("\n  last lines of task {task}:"));
    }
    for line in &deployment.log_tail {
        message.push_str("\n  | ");
        message.push_str(line);
    }
    Hinted::new(message, format!("what ran before keeps running; all of the log: `natsctl logs {service}`")).into()
}

/// All failures as one.
pub(crate) fn all(outcomes: Vec<anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut failures: Vec<anyhow::Error> = outcomes.into_iter().filter_map(Result::err).collect();
    if failures.len() <= 1 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let text: Vec<String> = failures.iter().map(|failure| format!("{failure:#}")).collect();
    Err(Hinted::new(text.join("\n"), "`natsctl status` shows what runs; deploy again when it is mended").into())
}

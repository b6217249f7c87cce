//! Where an environment runs: on this machine, or on AWS. Commands work with the one that the environment's manifest names.

#[cfg(feature = "aws")]
use crate::aws::Aws;
use std::collections::BTreeSet;

use crate::local::environment::Local;
use crate::manifest::Manifests;
use crate::model::change::Change;
use crate::model::listed::{Between, Compared, Listed, ListedTask, Revision};
use crate::model::log::Line;
use crate::model::observed::Observed;
use crate::model::plan::Plan;
use crate::model::status::Status;
use crate::nats::dead_letters::DeadLetters;
use crate::nats::locate::Version;
use crate::nats::roll::{Observation, Patience};
use crate::pipeline::history::Record;
use crate::pipeline::logs::{self, Query};
use crate::pipeline::options::Options;
use crate::pipeline::roll::{Options as RollOptions, Preview, Request, Rolled};
use crate::pipeline::{self, Done, Platform as _, Purpose};

/// The platform of an environment.
pub(crate) enum Platform {
    /// Processes on this machine.
    Local(Box<Local>),
    /// ECS.
    #[cfg(feature = "aws")]
    Aws(Box<Aws>),
}

/// The same expression with whichever platform it is.
macro_rules! on {
    ($this:expr, $platform:ident => $body:expr) => {
        match $this {
            Platform::Local($platform) => $body,
            #[cfg(feature = "aws")]
            Platform::Aws($platform) => $body,
        }
    };
}

impl Platform {
    pub(crate) fn manifests(&self) -> &Manifests {
        on!(self, platform => &platform.manifests)
    }

    /// Whether it is this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Local(_) => true,
            #[cfg(feature = "aws")]
            Self::Aws(_) => false,
        }
    }

    /// Who works on it, and by which command line.
    pub(crate) fn caller(&self) -> (&str, &str) {
        on!(self, platform => platform.caller())
    }

    /// Where it is, if that is not on this machine: the environment, the account, the region, and who works on it.
    pub(crate) fn place(&self) -> Option<String> {
        match self {
            Self::Local(_) => None,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => Some(aws.place()),
        }
    }

    /// Whether its manifest wants a change to be confirmed.
    pub(crate) fn is_to_be_confirmed(&self) -> bool {
        match self {
            Self::Local(_) => false,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => aws.described.confirm,
        }
    }

    /// The status of the environment, with these services or with all.
    pub(crate) async fn status(&self, services: &[String]) -> anyhow::Result<Status> {
        // Boxed, because all commands share one stack, which futures of this size would fill.
        match self {
            Self::Local(local) => Box::pin(local.status(services)).await,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => Box::pin(crate::aws::status::read(aws, services)).await,
        }
    }

    /// The logs of these services, or of all: see [`logs::show`].
    pub(crate) async fn show_logs(
        &self,
        services: &[String],
        query: Query,
        print: impl FnMut(&Line) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Local(local) => logs::show(local.logs(services).await?, query, print).await,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => {
                let logs = Box::pin(crate::aws::logs::TaskLogs::new(aws, services)).await?;
                Box::pin(logs::show(logs, query, print)).await
            }
        }
    }

    /// The tasks of these services, or of all.
    pub(crate) async fn list_tasks(&self, services: &[String], listed: Listed) -> anyhow::Result<Vec<ListedTask>> {
        match self {
            Self::Local(local) => local.list_tasks(services, listed).await,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => Box::pin(crate::aws::tasks::list(aws, services, listed)).await,
        }
    }

    /// The newest revisions of a service, at most so many.
    pub(crate) async fn list_revisions(&self, service: &str, limit: usize) -> anyhow::Result<Vec<Revision>> {
        match self {
            Self::Local(local) => local.list_revisions(service, limit).await,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => Box::pin(crate::aws::revisions::list(aws, service, limit)).await,
        }
    }

    /// How revisions of these services differ.
    pub(crate) async fn compare(&self, services: &BTreeSet<String>, between: Between) -> anyhow::Result<Vec<Compared>> {
        match self {
            Self::Local(local) => local.compare(services, between).await,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => Box::pin(crate::aws::drift::compare(aws, services, between)).await,
        }
    }

    /// Ids of the tasks that run.
    pub(crate) async fn running_tasks(&self) -> anyhow::Result<BTreeSet<String>> {
        match self {
            Self::Local(local) => local.running_tasks().await,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => Box::pin(crate::aws::tasks::running(aws.ecs_cluster())).await,
        }
    }

    /// See [`pipeline::run`].
    pub(crate) async fn run(&self, change: &Change, options: &Options) -> anyhow::Result<Done> {
        on!(self, platform => pipeline::run(&**platform, change, options).await)
    }

    /// See [`pipeline::plan`].
    pub(crate) async fn plan(
        &self,
        change: &Change,
        options: &Options,
        purpose: Purpose,
        observed: Option<Observed>,
    ) -> anyhow::Result<(Plan, Observed)> {
        on!(self, platform => pipeline::plan(&**platform, change, options, purpose, observed).await)
    }

    /// Rolls the NATS servers; `version` is the one that is wanted.
    pub(crate) async fn roll(
        &self,
        request: &Request,
        version: Option<Version>,
        options: RollOptions,
    ) -> anyhow::Result<Rolled> {
        match self {
            Self::Local(local) => local.roll(request, version, options).await,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => crate::aws::nodes::roll::roll(aws, request, version, options).await,
        }
    }

    /// What [`Platform::roll`] would do.
    pub(crate) async fn preview_roll(&self, request: &Request, version: Option<Version>) -> anyhow::Result<Preview> {
        match self {
            Self::Local(local) => local.preview_roll(request, version).await,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => crate::aws::nodes::roll::preview(aws, request, version).await,
        }
    }

    /// How long the NATS servers may take where they are.
    pub(crate) fn patience(&self) -> Patience {
        match self {
            Self::Local(_) => crate::local::roll::PATIENCE,
            #[cfg(feature = "aws")]
            Self::Aws(_) => crate::aws::nodes::roll::PATIENCE,
        }
    }

    /// What the NATS servers say, and what they say a moment later.
    pub(crate) async fn survey_twice(&self) -> anyhow::Result<(Observation, Observation)> {
        match self {
            Self::Local(local) => local.survey_twice().await,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => crate::aws::nodes::roll::survey_twice(aws).await,
        }
    }

    /// The events that services could not handle.
    pub(crate) async fn dead_letters(&self) -> anyhow::Result<DeadLetters> {
        DeadLetters::new(on!(self, platform => platform.nats_client().await)?).await
    }

    /// Where clients reach the gateway, if the environment has one.
    pub(crate) async fn gateway_url(&self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Local(local) => local.gateway_url().await,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => Ok(aws.handover.gateway.as_ref().map(|gateway| gateway.url.clone())),
        }
    }

    /// The client of an operator, who may call every service; on AWS operators have none.
    pub(crate) async fn operator(&self) -> anyhow::Result<Option<async_nats::Client>> {
        match self {
            Self::Local(local) => Ok(Some(local.operator().await?)),
            #[cfg(feature = "aws")]
            Self::Aws(_) => Ok(None),
        }
    }

    /// The last changes, the newest first.
    pub(crate) async fn records(&self, limit: usize) -> anyhow::Result<Vec<Record>> {
        on!(self, platform => platform.records(limit).await)
    }

    /// The services of the last change, which was interrupted.
    pub(crate) async fn interrupted(&self) -> anyhow::Result<BTreeSet<String>> {
        on!(self, platform => pipeline::interrupted(&**platform).await)
    }
}

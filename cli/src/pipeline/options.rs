//! How a change is carried out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::lock::IfHeld;
use super::saved::SavedPlan;
use crate::model::step::LossKind;

/// Services that are changed at the same time, unless another number is asked for.
pub(crate) const MAX_PARALLEL: usize = 8;

/// How a change is carried out.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) if_held: IfHeld,
    pub(crate) binaries: BinarySource,
    /// Losses that were accepted with `--force`.
    pub(crate) accepted: BTreeSet<LossKind>,
    /// The plan that was reviewed: nothing else is done.
    pub(crate) reviewed: Option<SavedPlan>,
    pub(crate) on_failure: OnFailure,
    pub(crate) wait_until: WaitUntil,
    /// How long the deployments of one wave may take; by default what their health checks allow.
    pub(crate) timeout: Option<Duration>,
    /// Services that are changed at the same time.
    pub(crate) max_parallel: usize,
    pub(crate) proof: ProofMode,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            if_held: IfHeld::default(),
            binaries: BinarySource::default(),
            accepted: BTreeSet::new(),
            reviewed: None,
            on_failure: OnFailure::default(),
            wait_until: WaitUntil::default(),
            timeout: None,
            max_parallel: MAX_PARALLEL,
            proof: ProofMode::default(),
        }
    }
}

/// Where the services' binaries come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum BinarySource {
    /// Cargo builds them.
    #[default]
    Build,
    /// The last ones that cargo built.
    LastBuild,
    /// Those in this folder.
    Folder(PathBuf),
}

/// What to do when a service does not come up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailure {
    /// Everything that this run has changed is rolled back
    #[default]
    Rollback,
    /// The service is rolled back, what came up stays, and nothing more is started
    Stop,
    /// The service is rolled back, and everything that does not call it is deployed
    Continue,
}

/// How far a deployment must be before the next wave starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum WaitUntil {
    /// ECS has accepted it
    Accepted,
    /// The new tasks run
    Running,
    /// The old tasks are gone
    Completed,
    /// The new tasks are proven to answer
    #[default]
    Proven,
}

/// What proves that a change worked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProofMode {
    /// Every task answers on the bus
    #[default]
    Bus,
    /// ECS reports that the tasks run
    Ecs,
}

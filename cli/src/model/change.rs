//! What was asked for: a change of an environment, before anything was read.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::desired::Scaling;
use crate::error::Hinted;
use crate::problem::counted;

/// A change of an environment. Together with what was observed it becomes a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Bring services to what the manifests say.
    Deploy(Deploy),
    /// Replace all tasks of services.
    Restart(Selection),
    /// Set how many tasks of a service run.
    Scale {
        /// Which service.
        service: String,
        /// So many tasks; 0 stops it.
        tasks: u32,
        /// Fewest and most tasks that its manifest allows.
        bounds: Scaling,
    },
    /// Bring a service back to another revision.
    RollBack {
        /// Which service.
        service: String,
        /// Number of the revision; the last one before that succeeded if `None`.
        to: Option<u64>,
    },
    /// Stop tasks; the platform starts others in their place.
    Stop(TaskSelection),
    /// Stop everything.
    Down {
        /// Whether data goes too: streams, buckets, identities, logs.
        data: bool,
    },
}

/// Which services a change is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Their names.
    pub services: BTreeSet<String>,
    /// Whether these are all that the manifests name.
    pub all: bool,
}

/// A deployment of services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// Which services.
    pub selection: Selection,
    /// Whether services and nodes that no manifest names are deleted.
    pub prune: bool,
    /// Whether streams and buckets are left alone, because the bus is not asked.
    pub without_jetstream: bool,
}

/// Which tasks a change is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskSelection {
    /// All tasks of this service.
    Service(String),
    /// Tasks by their ids, or by the beginnings of their ids.
    Ids(Vec<String>),
}

impl Change {
    /// The services that it is about; none if it is about the whole environment or single tasks.
    pub fn services(&self) -> BTreeSet<String> {
        match self {
            Self::Deploy(Deploy { selection, .. }) | Self::Restart(selection) => selection.services.clone(),
            Self::Scale { service, .. } | Self::RollBack { service, .. } => BTreeSet::from([service.clone()]),
            Self::Stop(TaskSelection::Service(service)) => BTreeSet::from([service.clone()]),
            Self::Stop(TaskSelection::Ids(_)) | Self::Down { .. } => BTreeSet::new(),
        }
    }

    /// Refuses what no environment could make true.
    ///
    /// # Errors
    /// A number of tasks that the manifest does not allow.
    pub fn refuse_impossible(&self) -> Result<(), Hinted> {
        let Self::Scale { service, tasks, bounds: Scaling { min, max } } = self else { return Ok(()) };
        if tasks > max {
            let key = if *max == 0 { "`tasks`, which is 0," } else { "`autoscaling.max`" };
            let hint = format!("raise {key} in `services/{service}.yaml` or in the environment's manifest");
            return Err(Hinted::new(
                format!("`{service}` may have at most {}, not {tasks}", counted(max, "task")),
                hint,
            ));
        }
        if *tasks > 0 && tasks < min {
            let hint = format!("lower `autoscaling.min` in `services/{service}.yaml`, or scale it to 0 to stop it");
            return Err(Hinted::new(
                format!("`{service}` may have no fewer than {}, not {tasks}", counted(min, "task")),
                hint,
            ));
        }
        Ok(())
    }

    /// Whether the tasks of its services must be shown to answer when it is done.
    pub fn is_verified(&self) -> bool {
        !matches!(self, Self::Stop(_) | Self::Down { .. })
    }
}

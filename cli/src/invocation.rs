//! What was typed, turned into what it means: which manifests, which environment, which files.

use std::path::{Path, PathBuf};

use crate::local::environment::Local;
use crate::manifest::{self, Manifests};
use crate::nats::Advised;
use crate::options::Global;

/// One run of natsctl.
pub(crate) struct Invocation {
    pub(crate) global: Global,
    /// As typed, for the lock and the journal.
    pub(crate) command_line: String,
    current_dir: PathBuf,
}

impl Invocation {
    pub(crate) fn new(global: Global, command_line: String) -> anyhow::Result<Self> {
        Ok(Self { global, command_line, current_dir: std::env::current_dir()? })
    }

    /// The folder of the manifests: as typed, or the nearest one above.
    pub(crate) fn manifests_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(typed) = &self.global.manifests {
            return Ok(typed.clone());
        }
        let found = self
            .current_dir
            .ancestors()
            .map(|folder| folder.join("manifests"))
            .find(|folder| folder.join("fleet.yaml").is_file());
        match found {
            // Short paths read better in messages.
            Some(folder) => Ok(folder.strip_prefix(&self.current_dir).map(Path::to_owned).unwrap_or(folder)),
            None => {
                let message =
                    format!("no folder `manifests` with a `fleet.yaml` in `{}` or above", self.current_dir.display());
                Err(Advised::new(message, "run natsctl inside the repository, or name the folder with `--manifests`")
                    .into())
            }
        }
    }

    /// The folder that holds the manifests, and beside them the sources.
    pub(crate) fn workspace(&self) -> anyhow::Result<PathBuf> {
        let manifests = self.current_dir.join(self.manifests_dir()?);
        Ok(manifests.parent().unwrap_or(&self.current_dir).to_owned())
    }

    /// The manifests, checked.
    pub(crate) fn load(&self) -> anyhow::Result<Manifests> {
        Ok(manifest::load(&self.manifests_dir()?, &self.global.env)?)
    }

    /// The local environment that the manifests describe.
    pub(crate) fn local(&self) -> anyhow::Result<Local> {
        let manifests = self.load()?;
        let workspace = self.workspace()?;
        let states = self
            .global
            .state_dir
            .as_ref()
            .map_or_else(|| workspace.join(".natsctl"), |typed| self.current_dir.join(typed));
        Ok(Local::new(manifests, states.join(&self.global.env), workspace))
    }
}

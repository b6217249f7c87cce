//! What was typed, turned into what it means: which manifests, which environment, which files.

use std::path::{Path, PathBuf};

/// How to get a natsctl that knows AWS: its SDKs take minutes to compile, and the local environment does not need them.
#[cfg(not(feature = "aws"))]
pub(crate) const BUILD_WITH_AWS: &str =
    "`cargo build --profile dist --package natsctl --features aws` builds one that knows it, in minutes";

#[cfg(feature = "aws")]
use crate::aws::Aws;
use crate::commands::options::Global;
use crate::commands::platform::Platform;
use crate::error::Hinted;
use crate::local::environment::Local;
use crate::manifest::{self, Environment, Manifests};

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
                Err(Hinted::new(message, "run natsctl inside the repository, or name the folder with `--manifests`")
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

    /// The environment that the manifests describe.
    pub(crate) async fn platform(&self) -> anyhow::Result<Platform> {
        let manifests = self.load()?;
        match &manifests.environment {
            Environment::Local(_) => Ok(Platform::Local(Box::new(self.local_of(manifests)?))),
            #[cfg(feature = "aws")]
            Environment::Aws(_) => Ok(Platform::Aws(Box::new(self.aws_of(manifests).await?))),
            #[cfg(not(feature = "aws"))]
            Environment::Aws(_) => Err(without_aws(&self.global.env)),
        }
    }

    /// The local environment that the manifests describe.
    pub(crate) fn local(&self) -> anyhow::Result<Local> {
        let manifests = self.load()?;
        match &manifests.environment {
            Environment::Local(_) => self.local_of(manifests),
            Environment::Aws(_) => {
                let message = format!("environment `{}` is not on this machine", self.global.env);
                Err(Hinted::new(message, "this command is for local environments").into())
            }
        }
    }

    fn local_of(&self, manifests: Manifests) -> anyhow::Result<Local> {
        let workspace = self.workspace()?;
        Ok(Local::new(manifests, self.states()?.join(&self.global.env), workspace, self.command_line.clone()))
    }

    /// The environment on AWS that the manifests describe.
    #[cfg(feature = "aws")]
    pub(crate) async fn aws(&self) -> anyhow::Result<Aws> {
        let manifests = self.load()?;
        match &manifests.environment {
            Environment::Aws(_) => self.aws_of(manifests).await,
            Environment::Local(_) => {
                let message = format!("environment `{}` is not on AWS", self.global.env);
                Err(Hinted::new(message, "name one that is: `--env production`").into())
            }
        }
    }

    #[cfg(feature = "aws")]
    async fn aws_of(&self, manifests: Manifests) -> anyhow::Result<Aws> {
        Aws::open(manifests, self.workspace()?, self.states()?.join(&self.global.env), self.command_line.clone()).await
    }

    /// Where this machine keeps what it knows of environments.
    pub(crate) fn states(&self) -> anyhow::Result<PathBuf> {
        let typed = self.global.state_dir.as_ref().map(|typed| self.current_dir.join(typed));
        typed.map_or_else(|| Ok(self.workspace()?.join(".natsctl")), Ok)
    }
}

/// This binary is one for this machine alone.
#[cfg(not(feature = "aws"))]
fn without_aws(environment: &str) -> anyhow::Error {
    let message = format!("environment `{environment}` is on AWS, and this natsctl was built without it");
    Hinted::new(message, BUILD_WITH_AWS).into()
}

//! What was typed, turned into what it means: which manifests, which environment, which files.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::commands::options::Global;
use crate::commands::platform::Platform;
use crate::error::{Code, Hinted};
use crate::local::environment::Local;
use crate::manifest::{self, Environment, Manifests};

/// The hint where a command has nothing to offer for other environments.
const FOR_LOCAL: &str = "this command is for local environments";

/// One run of natsctl.
pub(crate) struct Invocation {
    pub(crate) global: Global,
    /// As typed, for the lock and the history.
    pub(crate) command_line: String,
    current_dir: PathBuf,
}

impl Invocation {
    pub(crate) fn new(global: Global, command_line: String) -> anyhow::Result<Self> {
        let current_dir = std::env::current_dir().context("the current folder is gone, or cannot be read")?;
        Ok(Self { global, command_line, current_dir })
    }

    /// The folder of the manifests: as typed, or the nearest one above.
    pub(crate) fn manifests_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(typed) = &self.global.manifests {
            return Ok(typed.clone());
        }
        let mut folders = self.current_dir.ancestors().map(|folder| folder.join("manifests"));
        let found = folders.find(|folder| folder.join("fleet.yaml").is_file()).ok_or_else(|| {
            let here = self.current_dir.display();
            let hint = "run natsctl inside the repository, or name the folder with `--manifests`";
            Hinted::new(format!("no folder `manifests` with a `fleet.yaml` in `{here}` or above"), hint)
        })?;
        // Short paths read better in messages.
        Ok(found.strip_prefix(&self.current_dir).map(Path::to_owned).unwrap_or(found))
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

    /// The manifests without those of services, which are not read.
    #[cfg(feature = "aws")]
    pub(crate) fn load_without_services(&self) -> anyhow::Result<Manifests> {
        Ok(manifest::load_without_services(&self.manifests_dir()?, &self.global.env)?)
    }

    /// The environment that the manifests describe.
    pub(crate) async fn platform(&self) -> anyhow::Result<Platform> {
        let manifests = self.load()?;
        match &manifests.environment {
            Environment::Local(_) => {
                let local = self.open_local(manifests)?;
                local.refuse_foreign()?;
                Ok(Platform::Local(Box::new(local)))
            }
            Environment::Aws(_) => self.open_aws(manifests).await,
        }
    }

    /// The local environment that the manifests describe.
    ///
    /// # Errors
    /// There is none, or it is another user's.
    pub(crate) fn local(&self) -> anyhow::Result<Local> {
        self.local_or(FOR_LOCAL)
    }

    /// The same; `elsewhere` says what to do instead where there is none.
    pub(crate) fn local_or(&self, elsewhere: &str) -> anyhow::Result<Local> {
        let local = self.find_local(elsewhere)?;
        local.refuse_foreign()?;
        Ok(local)
    }

    /// The same, whoever it belongs to.
    pub(crate) fn any_local(&self) -> anyhow::Result<Local> {
        self.find_local(FOR_LOCAL)
    }

    fn find_local(&self, elsewhere: &str) -> anyhow::Result<Local> {
        let manifests = self.load()?;
        match &manifests.environment {
            Environment::Local(_) => self.open_local(manifests),
            Environment::Aws(_) => {
                let message = format!("environment `{}` is not on this machine", self.global.env);
                Err(Hinted::new(message, elsewhere).code(Code::WrongPlatform).into())
            }
        }
    }

    fn open_local(&self, manifests: Manifests) -> anyhow::Result<Local> {
        Ok(Local::new(manifests, self.state_dir()?, self.workspace()?, self.command_line.clone()))
    }

    /// Where this machine keeps the files of the environment.
    pub(crate) fn state_dir(&self) -> anyhow::Result<PathBuf> {
        let environments = match &self.global.state_dir {
            Some(typed) => self.current_dir.join(typed),
            None => self.workspace()?.join(".natsctl"),
        };
        let dir = environments.join(&self.global.env);
        if dir.to_str().is_none() {
            // It goes into arguments, environment variables and JSON, which are texts.
            let message = format!("the path of the state directory, `{}`, is not UTF-8", dir.display());
            return Err(Hinted::new(message, "name another one with `--state-dir`").into());
        }
        Ok(dir)
    }
}

//! What was typed, where it means an environment on AWS.

use crate::aws::Aws;
use crate::commands::invocation::Invocation;
use crate::commands::platform::Platform;
use crate::error::{Code, Hinted};
use crate::manifest::{Environment, Manifests};

impl Invocation {
    /// The environment on AWS that the manifests describe.
    pub(crate) async fn aws(&self) -> anyhow::Result<Aws> {
        self.on_aws(self.load()?).await
    }

    /// The same without its services, whose manifests are not read.
    pub(crate) async fn aws_without_services(&self) -> anyhow::Result<Aws> {
        self.on_aws(self.load_without_services()?).await
    }

    async fn on_aws(&self, manifests: Manifests) -> anyhow::Result<Aws> {
        match &manifests.environment {
            Environment::Aws(_) => self.open(manifests).await,
            Environment::Local(_) => {
                let message = format!("environment `{}` is not on AWS", manifests.name);
                Err(Hinted::new(message, "name one that is: `--env production`").code(Code::WrongPlatform).into())
            }
        }
    }

    pub(in crate::commands) async fn open_aws(&self, manifests: Manifests) -> anyhow::Result<Platform> {
        Ok(Platform::Aws(Box::new(self.open(manifests).await?)))
    }

    async fn open(&self, manifests: Manifests) -> anyhow::Result<Aws> {
        let state_dir = self.state_dir()?;
        Aws::open(manifests, self.workspace()?, state_dir, self.command_line.clone()).await
    }
}

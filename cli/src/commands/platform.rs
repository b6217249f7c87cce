//! Where a fleet runs: on this machine, or on AWS. Commands ask for the one that the environment's manifest names.

#[cfg(feature = "aws")]
use crate::aws::Aws;
use crate::local::environment::Local;
use crate::model::status::Status;

/// The platform of an environment.
pub(crate) enum Platform {
    /// Processes on this machine.
    Local(Box<Local>),
    /// ECS.
    #[cfg(feature = "aws")]
    Aws(Box<Aws>),
}

impl Platform {
    /// How everything is.
    pub(crate) async fn status(&self) -> anyhow::Result<Status> {
        match self {
            Self::Local(local) => local.status().await,
            #[cfg(feature = "aws")]
            Self::Aws(aws) => crate::aws::status::read(aws).await,
        }
    }
}

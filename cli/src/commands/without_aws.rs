//! What a natsctl that was built without the feature `aws` says where it would be needed.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::invocation::Invocation;
use super::platform::Platform;
use crate::error::{Code, Hinted};
use crate::manifest::Manifests;

/// How to get a natsctl with AWS: its SDKs take minutes to compile, and the local environment does not need them.
const BUILD_WITH_AWS: &str =
    "`cargo build --profile dist --package natsctl --features aws` builds one with it, in minutes";

/// Adds to the message about an unknown command that there are more for AWS. It cannot name them: this binary does not know them.
pub(crate) fn mention_aws(mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::InvalidSubcommand {
        let tip = format!("this natsctl was built without AWS and its commands; {BUILD_WITH_AWS}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

impl Invocation {
    /// Refuses an environment on AWS.
    pub(super) async fn open_aws(&self, manifests: Manifests) -> anyhow::Result<Platform> {
        let message = format!("environment `{}` is on AWS, and this natsctl was built without it", manifests.name);
        Err(Hinted::new(message, BUILD_WITH_AWS).code(Code::WrongPlatform).into())
    }
}

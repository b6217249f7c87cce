//! `natsctl verify`

use clap::Args;

use crate::aws::verify::verify;
use crate::commands::invocation::Invocation;
use crate::screen::{FAILED, Report};

/// Check that everything that a deployment needs is there
///
/// That is the cluster, roles and their permissions, the network, repositories, secrets, the ledger, alarms and NATS. All problems are
/// reported at once, and nothing is changed.
#[derive(Debug, Args)]
pub(crate) struct Verify {}

impl Verify {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let verified = verify(&invocation.aws().await?).await;
        Ok(Report::new(&verified, verified.text()).code(if verified.complete { 0 } else { FAILED }))
    }
}

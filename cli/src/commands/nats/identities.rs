//! `natsctl nats identities`

use clap::Args;
use serde_json::json;

use crate::aws::identities;
use crate::commands::change::LockOptions;
use crate::commands::invocation::Invocation;
use crate::screen::{Report, note};

/// Create the NATS identities that are missing in Secrets Manager, and replace those that are outdated
///
/// There is one for the certificate authority, one for each service, and one for natsctl itself.
#[derive(Debug, Args)]
pub(crate) struct Identities {
    #[command(flatten)]
    lock: LockOptions,
}

impl Identities {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        note(&aws.place());
        let written = identities::ensure_locked(&aws, self.lock.if_held()).await?;
        let text = match written.as_slice() {
            [] => "every identity is as it should be".to_owned(),
            written => {
                let lines: String = written.iter().map(|name| format!("written: {name}\n")).collect();
                format!("{lines}tasks read their identity when they start: `natsctl restart` replaces those that run")
            }
        };
        Ok(Report::new(&json!({ "written": written }), text))
    }
}

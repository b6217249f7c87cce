//! `natsctl down`

use std::fs;
use std::io::ErrorKind;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::deploy::LockOptions;
use crate::commands::invocation::Invocation;
use crate::local::client::Client;
use crate::screen::Report;

/// Stop everything.
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Remove the data too: streams, buckets, identities, logs
    #[arg(long)]
    data: bool,
    #[command(flatten)]
    lock: LockOptions,
}

impl Down {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let local = invocation.local()?;
        let dir = local.dir();
        if !dir.exists() {
            return Ok(Report::new(&json!({ "stopped": false, "data_removed": false }), "nothing to stop"));
        }
        let _lock = local.lock(&invocation.command_line, self.lock.if_taken()).await?;
        let supervisor = Client::connect(dir).await?;
        if let Some(supervisor) = &supervisor {
            supervisor.shutdown().await?;
        }
        if self.data {
            match fs::remove_dir_all(dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("failed to remove `{}`", dir.display()));
                }
                _ => {}
            }
        }
        let stopped = supervisor.is_some();
        let text = match (stopped, self.data) {
            (true, true) => "stopped; data removed",
            (true, false) => "stopped; `natsctl deploy --all` starts everything again with its data",
            (false, true) => "nothing ran; data removed",
            (false, false) => "nothing ran",
        };
        Ok(Report::new(&json!({ "stopped": stopped, "data_removed": self.data }), text))
    }
}

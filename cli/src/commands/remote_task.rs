//! `natsctl remote-task`: natsctl outside the network runs natsctl as a task inside, with its own image, where NATS can be reached.

use anyhow::Context as _;
use clap::Args;

use crate::error::hint;
use crate::nats::bus::{BusRequest, ReplyLine};
use crate::nats::connect::CONNECT_TIMEOUT;
use crate::nats::secret::ClientSecret;
use crate::screen::{FAILED, Report, line};

/// Perform a request on NATS for a natsctl that cannot reach it (started by that as a task)
#[derive(Debug, Args)]
pub(crate) struct RemoteTask {
    /// The request
    #[arg(long, env = "NATSCTL_BUS_REQUEST", value_name = "JSON", hide_env_values = true)]
    request: String,
}

impl RemoteTask {
    /// The answer is in the log of the task, line by line: an error too, so that the caller can show its hint.
    pub(crate) async fn run(self) -> anyhow::Result<Report> {
        let mut parts = Vec::new();
        let outcome = self.perform(&mut parts).await;
        let (last, code) = match &outcome {
            Ok(()) => (ReplyLine::Done, 0),
            Err(error) => (ReplyLine::Failed { message: format!("{error:#}"), hint: hint(error) }, FAILED),
        };
        parts.push(last);
        for part in parts {
            line(&part.write()?)?;
        }
        Ok(Report::silent().code(code))
    }

    async fn perform(&self, parts: &mut Vec<ReplyLine>) -> anyhow::Result<()> {
        let request: BusRequest = serde_json::from_str(&self.request).context("the request is malformed")?;
        let client = secret()?.connect("natsctl remote-task", None, CONNECT_TIMEOUT).await?;
        request.perform(&client, |part| parts.push(part)).await
    }
}

/// The identity of the task on NATS, from the same environment variables as that of a service.
fn secret() -> anyhow::Result<ClientSecret> {
    let text = |name: &str| std::env::var(name).with_context(|| format!("environment variable `{name}` is not set"));
    let material = |name: &str| match std::env::var(format!("{name}_FILE")) {
        Ok(path) => std::fs::read_to_string(&path).with_context(|| format!("failed to read `{path}`")),
        Err(_) => text(name),
    };
    Ok(ClientSecret {
        urls: text("NATS_URLS")?,
        ca: material("NATS_CA")?,
        cert: material("NATS_CERT")?,
        key: material("NATS_KEY")?,
        creds: material("NATS_CREDS")?,
    })
}

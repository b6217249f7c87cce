//! `natsctl bus`, which natsctl runs inside the network when it is itself outside.

use anyhow::Context as _;
use clap::Args;

use crate::error::hint;
use crate::nats::bus::{BusRequest, ReplyLine};
use crate::nats::connect::CONNECT_TIMEOUT;
use crate::nats::secret::ClientSecret;
use crate::screen::{FAILED, Report, line};

/// Ask the bus for a natsctl that cannot reach it.
#[derive(Debug, Args)]
pub(crate) struct Bus {
    /// What to ask
    #[arg(long, env = "NATSCTL_BUS_REQUEST", value_name = "JSON", hide_env_values = true)]
    request: String,
}

impl Bus {
    pub(crate) async fn run(self) -> anyhow::Result<Report> {
        let mut lines = Vec::new();
        let outcome = self.perform(&mut lines).await;
        let (last, code) = match &outcome {
            Ok(()) => (ReplyLine::Done, 0),
            Err(error) => (ReplyLine::Failed { message: format!("{error:#}"), hint: hint(error) }, FAILED),
        };
        lines.push(last);
        for part in lines {
            line(&part.write()?)?;
        }
        Ok(Report::silent().code(code))
    }

    async fn perform(&self, parts: &mut Vec<ReplyLine>) -> anyhow::Result<()> {
        let request: BusRequest = serde_json::from_str(&self.request).context("the request is malformed")?;
        let client = secret()?.connect("natsctl bus", None, CONNECT_TIMEOUT).await?;
        request.perform(&client, |part| parts.push(part)).await
    }
}

/// What a task is told of its identity: the variables of any service.
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

//! `natsctl env`

use clap::Args;
use serde_json::json;

use crate::commands::invocation::Invocation;
use crate::local::cluster_files::OPERATOR;
use crate::screen::Report;

/// Show how a client connects to the environment
///
/// The credentials are those of an operator, who may ping services, read streams and call every service. The paths of the
/// servers' monitoring cannot be guessed by other users of this machine.
#[derive(Debug, Args)]
pub(crate) struct Env {}

impl Env {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let local = invocation.local()?;
        let endpoints = local.endpoints()?;
        let access = endpoints.of(OPERATOR)?;
        let gateway = local.gateway_url().await?;
        let mut text = format!(
            "NATS     {}\n  --tlsca   {}\n  --tlscert {}\n  --tlskey  {}\n  --creds   {}\n",
            access.urls.join(","),
            access.ca_file.display(),
            access.client_cert_file.display(),
            access.client_key_file.display(),
            access.credentials_file.display(),
        );
        for (name, url) in &endpoints.monitoring {
            text.push_str(&format!("{name}   {url}/varz\n"));
        }
        if let Some(url) = &gateway {
            let request = r#"--header 'content-type: application/json' --data '{"playerId": "ada", "level": 7}'"#;
            text.push_str(&format!("gateway  {url}\n\ncurl {url}/api/quest/v1/generate {request}"));
        }
        Ok(Report::new(
            &json!({ "nats": access, "monitoring": endpoints.monitoring, "gateway": { "url": gateway } }),
            text,
        ))
    }
}

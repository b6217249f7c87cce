//! `natsctl call`

use std::io::Read as _;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use crate::commands::invocation::Invocation;
use crate::demo::path;
use crate::error::{Code, Hinted};
use crate::model::units::Span;
use crate::nats::call::{CallError, call, method};
use crate::screen::Report;

/// Call a method of a service over NATS, as an operator
///
/// The request and the answer are JSON in protobuf's mapping, as at the gateway; every method can be called, public or not. On AWS, tasks
/// alone reach the services: call public methods through the gateway there.
#[derive(Debug, Args)]
pub(crate) struct Call {
    /// Its full name or its subject: `quest.v1.Quest/Generate`, `quest.v1.generate`
    method: String,
    /// The request; `-` reads it from standard input
    #[arg(default_value = "{}", value_name = "JSON")]
    request: String,
    /// How long to wait for the answer
    #[arg(long, default_value = "10 s", value_name = "DURATION")]
    timeout: Span,
}

impl Call {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let method = method(&self.method)?;
        if method.streaming {
            let message = format!("`{}` answers with a stream", method.full_name);
            return Err(
                Hinted::new(message, format!("call it through the gateway: `curl --data … {}`", path(method))).into()
            );
        }
        let request = request(&self.request)?;
        let client = invocation.local()?.operator().await?;
        let limit = self.timeout.duration();
        match call(&client, method, &request, None, limit).await {
            Ok(answer) => Ok(Report::new(&answer, format!("{answer:#}"))),
            Err(CallError::Refused { code, message, details }) => {
                let details = details.as_object().filter(|details| !details.is_empty());
                let hint = details.map(|details| format!("details: {}", Value::Object(details.clone())));
                let refused = Hinted::with(format!("`{}`: {message} ({code})", method.full_name), hint);
                Err(refused.code(Code::CallRefused).into())
            }
            Err(error @ CallError::Failed(_)) => {
                Err(Hinted::new(error.to_string(), "see `natsctl status`, and docs/services.md for requests").into())
            }
        }
    }
}

/// The request that was typed, or what standard input has if that is `-`.
///
/// # Errors
/// It is no JSON.
pub(super) fn request(typed: &str) -> anyhow::Result<Value> {
    let text = match typed {
        "-" => {
            let mut text = String::new();
            std::io::stdin().lock().take(MAX_REQUEST).read_to_string(&mut text).context("standard input")?;
            text
        }
        text => text.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| {
        Hinted::new(format!("the request is no JSON: {error}"), r#"write `{"playerId": "ada"}`"#).into()
    })
}

/// More is no request: nats-server takes a megabyte.
const MAX_REQUEST: u64 = 8 << 20;

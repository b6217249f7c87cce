//! Asks a leader of JetStream to step down.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::Client;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

/// Asks by this subject of JetStream's API. `to` is who should lead then, if it can.
///
/// # Errors
/// What JetStream says against it, or that there is no answer.
pub(crate) async fn step_down(
    client: &Client,
    subject: String,
    to: Option<&str>,
    within: Duration,
) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        success: bool,
        error: Option<Refusal>,
    }
    #[derive(Deserialize)]
    struct Refusal {
        description: String,
    }
    let request = to.map_or_else(|| json!({}), |to| json!({ "placement": { "preferred": to } }));
    let answer = timeout(within, client.request(subject, request.to_string().into())).await;
    let answer = answer.context("there is no answer")?.context("there is no answer")?;
    let answer = serde_json::from_slice(&answer.payload).context("the answer cannot be read")?;
    match answer {
        Answer { success: true, .. } => Ok(()),
        Answer { error: Some(Refusal { description }), .. } => Err(anyhow::anyhow!(description)),
        Answer { error: None, .. } => Err(anyhow::anyhow!("it was refused without a reason")),
    }
}

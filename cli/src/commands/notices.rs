//! What becomes of a change, for those who do not look at its terminal: a message to a webhook, and a bell.

use std::time::Duration;

use clap::Args;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::time::timeout;

use super::platform::Platform;
use crate::error::{Hinted, root_cause};
use crate::http::{self, Connector};
use crate::pipeline::Done;
use crate::screen::{bell, layout, note};

/// How long the webhook may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Who hears how a change ends.
#[derive(Debug, Args)]
pub(crate) struct Notices {
    /// Send a message when the change has ended: to this webhook, as Slack takes it, or on AWS to this topic of SNS
    #[arg(long, value_name = "URL|ARN", env = "NATSCTL_NOTIFY", hide_env_values = true)]
    notify: Option<String>,
    /// Ring the terminal's bell when the change has ended
    #[arg(long)]
    bell: bool,
}

impl Notices {
    /// Refuses an address that no message could be sent to, before anything is changed.
    ///
    /// # Errors
    /// It is no address, or a topic of SNS and the environment is not on AWS.
    pub(crate) fn check(&self, platform: &Platform) -> anyhow::Result<()> {
        match &self.notify {
            Some(topic) if is_topic(topic) && platform.is_local() => {
                let hint = "name a webhook, for example `https://hooks.example.com/services/…`";
                Err(Hinted::new("a topic of SNS is for environments on AWS", hint).into())
            }
            Some(topic) if is_topic(topic) => Ok(()),
            Some(url) => Ok(http::refuse_others(url, "a webhook", "https://hooks.example.com/services/…")?),
            None => Ok(()),
        }
    }

    /// Says how the change has ended. That this fails is said, and changes nothing about it.
    pub(crate) async fn send(&self, platform: &Platform, head: &str, outcome: &anyhow::Result<Done>) {
        if self.bell {
            bell();
        }
        // Nothing was done, so nothing is said to others.
        let was_nothing = matches!(outcome, Ok(done) if done.plan.is_empty());
        let Some(url) = self.notify.as_deref().filter(|_| !was_nothing) else { return };
        let text = text(head, outcome);
        let sent = async {
            match platform {
                #[cfg(feature = "aws")]
                Platform::Aws(aws) if is_topic(url) => {
                    crate::aws::notify::publish(aws, url, &text).await.map_err(|error| format!("{error:#}"))
                }
                _ => post(url, &text).await,
            }
        };
        let sent = timeout(ANSWER, sent).await;
        let reason = match sent {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => reason,
            Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
        };
        // The address of a webhook is a secret: who has it may send messages.
        note(&format!("warning: the message about this change could not be sent: {reason}"));
    }
}

/// Whether it is the ARN of a topic, and no webhook.
fn is_topic(destination: &str) -> bool {
    destination.starts_with("arn:") && destination.split(':').nth(2) == Some("sns")
}

/// The message: one line for what was done, a few for why it failed.
fn text(head: &str, outcome: &anyhow::Result<Done>) -> String {
    match outcome {
        Ok(done) => format!("{head}: done in {}: {}", layout::seconds(done.took), done.plan.done()),
        Err(error) => format!("{head}: FAILED: {error:#}"),
    }
}

async fn post(url: &str, text: &str) -> Result<(), String> {
    let connector = http::connector().map_err(|error| format!("{error:#}"))?;
    let client: Client<Connector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::post(url)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(json!({ "text": text }).to_string())))
        .map_err(|error| error.to_string())?;
    let answer = client.request(request).await.map_err(|error| root_cause(&error))?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
}

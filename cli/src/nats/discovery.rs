//! Service discovery: which instances of services answer on the bus, by the NATS services API (`$SRV`, ADR-32).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use async_nats::Client;
use futures::StreamExt;
use serde::Deserialize;
use tokio::time::Instant;

/// One worker of one task.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Instance {
    /// Name of the service.
    #[serde(rename = "name")]
    pub service: String,
    /// Different for each instance.
    pub id: String,
    /// What it runs.
    pub version: String,
    /// What else it says of itself: its task, its revision, its worker.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Statistics of the service itself, beside those of its endpoints. Foreign services may have any.
    #[serde(default)]
    pub data: serde_json::Value,
}

/// What instances are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether they are there.
    Ping,
    /// The same, with their statistics: [`Instance::data`].
    Stats,
}

impl Question {
    fn subject(self, service: Option<&str>) -> String {
        let verb = match self {
            Self::Ping => "$SRV.PING",
            Self::Stats => "$SRV.STATS",
        };
        service.map_or_else(|| verb.to_owned(), |name| format!("{verb}.{name}"))
    }
}

/// Between two rounds of asking.
const ROUND: Duration = Duration::from_millis(100);
/// How long others may take to answer after there are enough: each worker of a task has statistics of its own.
const STRAGGLERS: Duration = Duration::from_millis(50);

/// The instances of one service, or of all, ordered by id. Asks again and again, and returns as soon as there are
/// `enough`, or with those that there are when the time is over.
pub async fn instances(
    client: &Client,
    question: Question,
    service: Option<&str>,
    within: Duration,
    enough: impl Fn(&[Instance]) -> bool,
) -> anyhow::Result<Vec<Instance>> {
    let deadline = Instant::now() + within;
    let subject = question.subject(service);
    let failed = || format!("failed to ask `{subject}`");
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.with_context(failed)?;
    let mut found: Vec<Instance> = Vec::new();
    while !enough(&found) && Instant::now() < deadline {
        client.publish_with_reply(subject.clone(), inbox.clone(), "".into()).await.with_context(failed)?;
        let round = deadline.min(Instant::now() + ROUND);
        while !enough(&found)
            && let Ok(Some(reply)) = tokio::time::timeout_at(round, replies.next()).await
        {
            add(&mut found, &reply.payload);
        }
    }
    if question == Question::Stats && !found.is_empty() {
        while let Ok(Some(reply)) = tokio::time::timeout(STRAGGLERS, replies.next()).await {
            add(&mut found, &reply.payload);
        }
    }
    Ok(found)
}

/// Adds an answer, unless its instance has answered already. "No responders" has no payload: an instance that starts in
/// time is found by the next round.
fn add(found: &mut Vec<Instance>, payload: &[u8]) {
    let Ok(instance) = serde_json::from_slice::<Instance>(payload) else {
        return;
    };
    if let Err(place) = found.binary_search_by(|known| known.id.cmp(&instance.id)) {
        found.insert(place, instance);
    }
}

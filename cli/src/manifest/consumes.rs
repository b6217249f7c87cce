//! How a service consumes events.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::files::ServiceManifest;
use super::names::EventSubject;
use crate::model::desired::ConsumerStart;
use crate::model::units::Span;

/// How a service consumes one kind of event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[serde(default)]
pub struct ConsumeSettings {
    /// Who gets an event: one task, or every task.
    pub delivery: Delivery,
    /// How often an event is handled at most before it is a dead letter.
    #[schemars(range(min = 1, max = 100))]
    pub deliveries: u32,
    /// How long to wait before an event is handled again: after the first time, the second and so on; the last one from then on.
    #[schemars(with = "Vec<BackoffStep>", length(min = 1, max = 20))]
    pub backoff: Vec<Span>,
    /// How long handling it once may take.
    #[schemars(extend("x-minimum" = "100 ms", "x-maximum" = "10 min"))]
    pub timeout: Span,
    /// An event is given to another task when nothing was heard of its task for this long. A task that works on an event says so in time.
    #[schemars(extend("x-minimum" = "1 s", "x-maximum" = "10 min"))]
    pub ack_wait: Span,
    /// Whether an event is handled only after all earlier ones of its kind, one at a time.
    pub ordered: bool,
    /// Where a new consumer begins: with `all` that the stream keeps, or with what is `new` from then on.
    pub start: ConsumerStart,
}

impl Default for ConsumeSettings {
    fn default() -> Self {
        let span = |seconds| Span::from(Duration::from_secs(seconds));
        Self {
            delivery: Delivery::Shared,
            deliveries: 5,
            backoff: [1, 5, 30, 120].map(span).to_vec(),
            timeout: span(30),
            ack_wait: span(30),
            ordered: false,
            start: ConsumerStart::All,
        }
    }
}

/// Who gets an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// One task of the service.
    #[default]
    Shared,
    /// Every worker of every task, from when it starts. What it cannot handle is no dead letter, but an error in its log.
    EveryTask,
}

/// One of the waits of a backoff.
struct BackoffStep;

impl JsonSchema for BackoffStep {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "BackoffStep".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Span::json_schema(generator);
        schema.insert("x-minimum".to_owned(), json!("10 ms"));
        schema.insert("x-maximum".to_owned(), json!("1 d"));
        schema
    }
}

/// The consumer that the tasks of a service share for an event. No other service's has this name: names of services have no
/// `_`, and tokens of subjects no `-`.
pub(crate) fn durable(service: &str, event: &str) -> String {
    format!("{service}_{}", event.strip_prefix("evt.").unwrap_or(event).replace('.', "-"))
}

/// The subjects in the stream of an event under which it comes to one service again.
pub(crate) fn replays(service: &str, event: &str) -> String {
    format!("replay.{service}.{event}.*")
}

/// The subject of the dead letters of an event.
pub(crate) fn dead_letters(service: &str, event: &str) -> String {
    format!("dlq.{service}.{event}")
}

impl ServiceManifest {
    /// The events that one of its tasks gets.
    pub(crate) fn shared_events(&self) -> impl Iterator<Item = (&EventSubject, &ConsumeSettings)> {
        self.consumes.iter().filter(|(_, settings)| settings.delivery == Delivery::Shared)
    }
}

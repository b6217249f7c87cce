//! Dead letters: events that a service could not handle. They are listed and shown, given to the service once more, or
//! deleted.
//!
//! The SDK stores them as they came, on `dlq.<service>.<event>`, with headers that say why. A replay goes only to the service
//! that could not handle the event: it is stored in the event's own stream, on a subject that nobody else consumes and that
//! names the dead letter, so that the servers refuse a second one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{DeleteMessageErrorKind, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode, context};
use async_nats::{Client, HeaderMap};
use jiff::Timestamp;
use prost_reflect::DynamicMessage;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::call::descriptor;
use crate::error::Hinted;
use crate::manifest::consumes;

/// The stream of dead letters.
pub(crate) const STREAM: &str = "DLQ";
/// How long one request to JetStream may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// What the headers begin with that say why an event is a dead letter.
const HEADER_PREFIX: &str = "Dead-Letter-";
/// What the headers begin with that servers act on. They belong to the stream of dead letters.
const SERVER_HEADERS: &str = "Nats-";

/// An event that a service could not handle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DeadLetter {
    /// Its sequence in the stream of dead letters.
    pub(crate) id: u64,
    /// The service that could not handle it.
    pub(crate) service: String,
    /// Subject of the event.
    pub(crate) event: String,
    /// Id of the event, as its publisher gave it.
    pub(crate) event_id: Option<String>,
    /// Why it could not be handled.
    pub(crate) reason: String,
    /// The code of the error, for example `INVALID_ARGUMENT`.
    pub(crate) code: String,
    /// How often it was handled.
    pub(crate) attempts: Option<u32>,
    /// When it became a dead letter.
    pub(crate) at: Timestamp,
    /// When the event was stored.
    pub(crate) event_at: Option<String>,
    /// The stream of the event.
    pub(crate) stream: String,
    /// The trace that it belongs to.
    pub(crate) trace_id: Option<String>,
    /// Its headers.
    pub(crate) headers: BTreeMap<String, String>,
    /// The message itself.
    #[serde(rename = "payload_base64", serialize_with = "base64")]
    pub(crate) payload: Vec<u8>,
}

/// Which dead letters are meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Filter {
    /// Only these, by id; all if empty.
    pub(crate) ids: Vec<u64>,
    pub(crate) service: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) code: Option<String>,
    /// Only those that became dead letters since then.
    pub(crate) since: Option<Timestamp>,
}

/// What became of a dead letter that was to be replayed or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Its service gets it once more.
    Replayed,
    /// An earlier replay had been interrupted: its service has got it already.
    ReplayedBefore,
    /// It is deleted.
    Dropped,
    /// Another user has replayed or dropped it meanwhile.
    Gone,
}

/// The dead letters of an environment.
pub(crate) struct DeadLetters {
    jetstream: context::Context,
    stream: Stream<()>,
}

impl DeadLetters {
    /// # Errors
    /// JetStream does not answer.
    pub(crate) async fn new(client: Client) -> anyhow::Result<Self> {
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(REQUEST_TIMEOUT);
        let stream = jetstream.get_stream_no_info(STREAM).await?;
        Ok(Self { jetstream, stream })
    }

    /// Those that are meant, the oldest first.
    ///
    /// # Errors
    /// The stream cannot be read, or one of the ids is none.
    pub(crate) async fn list(&self, filter: &Filter) -> anyhow::Result<Vec<DeadLetter>> {
        if !filter.ids.is_empty() {
            let mut found = Vec::new();
            for id in &filter.ids {
                found.push(self.get(*id).await?);
            }
            return Ok(found);
        }
        let subject =
            format!("dlq.{}.{}", filter.service.as_deref().unwrap_or("*"), filter.event.as_deref().unwrap_or(">"));
        let (mut found, mut from) = (Vec::new(), 1);
        loop {
            match self.stream.get_first_raw_message_by_subject(&subject, from).await {
                Ok(message) => {
                    from = message.sequence + 1;
                    found.extend(DeadLetter::new(message).filter(|letter| filter.is_met(letter)));
                }
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(found),
                Err(error) => return Err(unreadable(error)),
            }
        }
    }

    /// One by its id.
    ///
    /// # Errors
    /// There is none; the stream cannot be read.
    pub(crate) async fn get(&self, id: u64) -> anyhow::Result<DeadLetter> {
        let none =
            || Hinted::new(format!("there is no dead letter {id}"), "`natsctl dlq list` shows those that there are");
        match self.stream.get_raw_message(id).await {
            Ok(message) => DeadLetter::new(message).ok_or_else(|| none().into()),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Err(none().into()),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Gives an event once more to the service that could not handle it, and to no other.
    ///
    /// # Errors
    /// The service does not consume the event any more; the event could not be stored. The dead letter is still there then.
    pub(crate) async fn replay(&self, letter: &DeadLetter) -> anyhow::Result<Outcome> {
        let stored = async {
            self.check_consumer(letter).await?;
            self.publish(letter).await
        };
        let is_new = stored.await.with_context(|| format!("dead letter {} was not replayed", letter.id))?;
        let is_deleted = self.delete(letter).await.with_context(|| {
            format!("dead letter {} was replayed, and is still there: replaying it again only deletes it", letter.id)
        })?;
        Ok(match (is_new, is_deleted) {
            (true, _) => Outcome::Replayed,
            (false, true) => Outcome::ReplayedBefore,
            (false, false) => Outcome::Gone,
        })
    }

    /// Deletes a dead letter for good.
    ///
    /// # Errors
    /// The servers do not confirm it.
    pub(crate) async fn drop(&self, letter: &DeadLetter) -> anyhow::Result<Outcome> {
        let is_deleted =
            self.delete(letter).await.with_context(|| format!("dead letter {} was not dropped", letter.id))?;
        Ok(if is_deleted { Outcome::Dropped } else { Outcome::Gone })
    }

    /// That somebody would get the event.
    async fn check_consumer(&self, letter: &DeadLetter) -> anyhow::Result<()> {
        let (service, event) = (&letter.service, &letter.event);
        let durable = consumes::durable(service, event);
        let subject = format!("CONSUMER.INFO.{}.{durable}", letter.stream);
        let answer: Response<Value> = self.jetstream.request(subject, &json!({})).await.map_err(unreadable)?;
        let nobody = |why: String| {
            let hint = format!(
                "let the manifest of `{service}` consume `{event}` and `natsctl deploy {service}`, or `natsctl dlq drop {}`",
                letter.id
            );
            Err(Hinted::new(why, hint).into())
        };
        match answer {
            Response::Ok(info) => {
                let replays = json!(consumes::replays(service, event));
                let subjects = info["config"]["filter_subjects"].as_array();
                match subjects.is_some_and(|subjects| subjects.contains(&replays)) {
                    true => Ok(()),
                    false => nobody(format!("consumer `{durable}` takes no replays")),
                }
            }
            Response::Err { error } if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
                nobody(format!("`{service}` does not consume `{event}` any more"))
            }
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                nobody(format!("the stream `{}` of the event is not there any more", letter.stream))
            }
            Response::Err { error } => Err(unreadable(error)),
        }
    }

    /// Whether it was stored; otherwise an earlier replay has stored it.
    async fn publish(&self, letter: &DeadLetter) -> anyhow::Result<bool> {
        let message = PublishMessage::build()
            .payload(letter.payload.clone().into())
            .headers(letter.event_headers())
            .expected_stream(&letter.stream)
            .expected_last_subject_sequence(0);
        let published = async { self.jetstream.send_publish(letter.replay_subject(), message).await?.await };
        match published.await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                let message = format!("the stream `{}` takes no replays", letter.stream);
                Err(Hinted::new(message, "`natsctl deploy --all` makes the streams as they should be").into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it was still there.
    async fn delete(&self, letter: &DeadLetter) -> anyhow::Result<bool> {
        match self.stream.delete_message(letter.id).await {
            Ok(is_deleted) => Ok(is_deleted),
            Err(error) => match error.kind() {
                DeleteMessageErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_MESSAGE_DELETE_FAILED =>
                {
                    // It may have failed for another reason than its absence.
                    match self.stream.get_raw_message(letter.id).await {
                        Err(read) if read.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(false),
                        _ => Err(error.into()),
                    }
                }
                _ => Err(error.into()),
            },
        }
    }
}

fn unreadable(error: impl std::error::Error) -> anyhow::Error {
    let hint = "`natsctl nats status` shows the state of the cluster; `natsctl deploy --all` makes the stream";
    Hinted::new(format!("the dead letters cannot be read: {error}"), hint).into()
}

impl DeadLetter {
    /// `None` for a message on another kind of subject.
    fn new(message: StreamMessage) -> Option<Self> {
        let (service, event) = message.subject.strip_prefix("dlq.")?.split_once('.')?;
        let (service, event) = (service.to_owned(), event.to_owned());
        let headers: BTreeMap<String, String> = message
            .headers
            .iter()
            .filter_map(|(name, values)| Some((name.to_string(), values.first()?.to_string())))
            .collect();
        let said = |name: &str| headers.get(&format!("{HEADER_PREFIX}{name}")).cloned();
        let trace_id = headers.get("traceparent").and_then(|text| text.split('-').nth(1)).map(str::to_owned);
        Some(Self {
            id: message.sequence,
            service,
            event,
            event_id: headers.get("Event-Id").cloned(),
            reason: said("Reason").unwrap_or_else(|| "not said".to_owned()),
            code: said("Code").unwrap_or_else(|| "UNKNOWN".to_owned()),
            attempts: said("Attempts").and_then(|text| text.parse().ok()),
            at: Timestamp::from_nanosecond(message.time.unix_timestamp_nanos()).unwrap_or(Timestamp::UNIX_EPOCH),
            event_at: said("Stored-At"),
            stream: said("Stream").unwrap_or_default(),
            trace_id,
            headers,
            payload: message.payload.to_vec(),
        })
    }

    /// Where its service gets it once more. Another dead letter, also one of a stream that was made anew, has another subject.
    fn replay_subject(&self) -> String {
        let replays = consumes::replays(&self.service, &self.event);
        format!("{}{}-{}", replays.trim_end_matches('*'), self.id, self.at.as_nanosecond())
    }

    /// The headers of the event itself.
    fn event_headers(&self) -> HeaderMap {
        let is_own = |name: &str| !name.starts_with(HEADER_PREFIX) && !name.starts_with(SERVER_HEADERS);
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.iter().filter(|(name, _)| is_own(name)) {
            headers.insert(name.as_str(), value.as_str());
        }
        headers
    }

    /// The event as JSON; `None` if it cannot be decoded as what its subject says.
    pub(crate) fn decoded(&self) -> Option<Value> {
        let info = proto::EVENTS.iter().find(|info| info.subject == self.event)?;
        let message = DynamicMessage::decode(descriptor(info.message).ok()?, self.payload.as_slice()).ok()?;
        serde_json::to_value(&message).ok()
    }
}

impl Filter {
    /// Whether something is chosen at all.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn is_met(&self, letter: &DeadLetter) -> bool {
        self.code.as_ref().is_none_or(|code| code.eq_ignore_ascii_case(&letter.code))
            && self.since.is_none_or(|since| letter.at >= since)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replayed => "replayed",
            Self::ReplayedBefore => "replayed before, now deleted",
            Self::Dropped => "dropped",
            Self::Gone => "gone: another user has replayed or dropped it",
        })
    }
}

fn base64<S: Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&data_encoding::BASE64.encode_display(payload))
}

#[cfg(test)]
mod tests;

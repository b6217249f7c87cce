//! Where messages can be delivered to, and what a message is there.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use proto::router::message::v1::Routed;
use proto::router::v1::{Destination, Outcome, Rule};
use proto::rpc::Method;
use sdk::{Code, Error, Event as _, check_count};
use serde_json::{Map, Value};

use crate::content::Content;
use crate::predicate::check_path;

/// The event that messages can become.
pub(crate) const EVENT: &str = Routed::SUBJECT;
const MAX_FIELDS: usize = 32;
/// Bytes of a response that a caller gets.
const MAX_RESPONSE: usize = 96 << 10;

/// The methods and the event that the router may deliver to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Destinations {
    methods: BTreeMap<&'static str, Callable>,
}

/// A method with the messages that it takes and returns.
#[derive(Clone, Debug)]
struct Callable {
    method: &'static Method,
    request: MessageDescriptor,
    response: MessageDescriptor,
}

/// What is delivered.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    /// A request of a method.
    Request(&'static Method, Bytes),
    /// An event.
    Event(Routed),
}

impl Destinations {
    /// These methods, and the event.
    pub(crate) fn new(methods: impl IntoIterator<Item = &'static Method>) -> Result<Self, Error> {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS).map_err(Error::internal)?;
        let message = |name: &str| {
            let found = pool.get_message_by_name(name);
            found.ok_or_else(|| Error::internal(format_args!("the protocol has no message `{name}`")))
        };
        let callable = |method: &'static Method| {
            let (request, response) = (message(method.input)?, message(method.output)?);
            Ok((method.subject, Callable { method, request, response }))
        };
        Ok(Self { methods: methods.into_iter().map(callable).collect::<Result<_, Error>>()? })
    }

    /// Their subjects.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &'static str> {
        self.methods.keys().copied().chain([EVENT])
    }

    /// Refuses a destination that the router may not deliver to, and fields that its message does not have.
    pub(crate) fn check(&self, destination: &Destination) -> Result<(), Error> {
        let Destination { subject, fields } = destination;
        check_count("fields of a destination", fields.len(), MAX_FIELDS)?;
        if subject == EVENT {
            return match fields.is_empty() {
                true => Ok(()),
                false => Err(Error::invalid(format_args!("`{EVENT}` has the payload as it is, and takes no fields"))),
            };
        }
        let Some(Callable { request, .. }) = self.methods.get(&**subject) else {
            let accepted = self.subjects().collect::<Vec<_>>().join(", ");
            let subject = subject.escape_debug();
            return Err(Error::invalid(format_args!("destination `{subject}` must be one of {accepted}")));
        };
        for (name, path) in fields {
            let is_known = request.get_field_by_name(name).or_else(|| request.get_field_by_json_name(name)).is_some();
            if !is_known || name == META {
                let known = request.fields().map(|field| field.name().to_owned()).filter(|name| name != META);
                let known = known.collect::<Vec<_>>().join(", ");
                let name = name.escape_debug();
                return Err(Error::invalid(format_args!("field `{name}` of `{subject}` must be one of {known}")));
            }
            check_path(&format!("path of field `{name}`"), path)?;
        }
        Ok(())
    }

    /// What a message is at one destination of a rule.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if it does not fit; FAILED_PRECONDITION if the router may not deliver there any more.
    pub(crate) fn parcel(&self, rule: &Rule, destination: &Destination, content: &Content) -> Result<Parcel, Error> {
        let Destination { subject, fields } = destination;
        if subject == EVENT {
            let message = content.message.clone();
            return Ok(Parcel::Event(Routed {
                meta: None,
                rule_id: rule.id.clone(),
                subject: message.subject,
                headers: message.headers,
                payload: message.payload,
            }));
        }
        let Some(Callable { method, request, .. }) = self.methods.get(&**subject) else {
            let id = &rule.id;
            let message = format_args!("the router may not deliver to `{subject}` any more, which rule `{id}` names");
            return Err(Error::failed_precondition(message));
        };
        let fields: Map<String, Value> = match fields.is_empty() {
            true => content.payload.clone(),
            false => {
                fields.iter().filter_map(|(name, path)| Some((name.clone(), content.field(path)?.clone()))).collect()
            }
        };
        let unfit = |reason: &dyn std::fmt::Display| {
            Error::invalid(format_args!("the message does not fit `{subject}` of rule `{}`: {reason}", rule.id))
        };
        if fields.contains_key(META) {
            return Err(unfit(&"field `meta` is the router's"));
        }
        let message =
            DynamicMessage::deserialize(request.clone(), Value::Object(fields)).map_err(|error| unfit(&error))?;
        Ok(Parcel::Request(method, message.encode_to_vec().into()))
    }

    /// What a method answered.
    pub(crate) fn outcome(&self, subject: &str, response: Bytes) -> Outcome {
        match self.json(subject, response) {
            Ok(response) => Outcome {
                subject: subject.to_owned(),
                response_bytes: u32::try_from(response.len()).unwrap_or(u32::MAX),
                response: if response.len() > MAX_RESPONSE { String::new() } else { response },
                error: None,
            },
            Err(error) => failed(subject, error),
        }
    }

    fn json(&self, subject: &str, response: Bytes) -> Result<String, Error> {
        let lost = |error: &dyn std::fmt::Display| {
            Error::new(Code::DataLoss, format!("the response of `{subject}` is not readable: {error}"))
        };
        let callable = self.methods.get(subject).ok_or_else(|| lost(&"unknown method"))?;
        let message = DynamicMessage::decode(callable.response.clone(), response).map_err(|error| lost(&error))?;
        let mut json = serde_json::Serializer::new(Vec::new());
        message.serialize_with_options(&mut json, &SerializeOptions::new()).map_err(|error| lost(&error))?;
        String::from_utf8(json.into_inner()).map_err(|error| lost(&error))
    }
}

/// The field of all requests that their sender does not set.
const META: &str = "meta";

/// What became of a message that a destination did not take.
pub(crate) fn failed(subject: &str, error: Error) -> Outcome {
    Outcome { subject: subject.to_owned(), error: Some(error.into()), ..Outcome::default() }
}

#[cfg(test)]
mod tests {
    use proto::quest::v1::{GenerateRequest, GenerateResponse, QUEST, QuestInfo};

    use super::*;
    use crate::content::tests::content;
    use crate::rules::tests::rule;

    const GENERATE: &str = "svc.quest.v1.generate";

    fn destinations() -> Destinations {
        Destinations::new(QUEST.methods).unwrap()
    }

    fn to(subject: &str, fields: &[(&str, &str)]) -> Destination {
        let fields = fields.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect();
        Destination { subject: subject.to_owned(), fields }
    }

    #[track_caller]
    fn check(destination: &Destination, payload: &str, expected: Result<GenerateRequest, &str>) {
        destinations().check(destination).unwrap();
        let parcel = destinations().parcel(&rule("r", 1, ">"), destination, &content("a", payload));
        match (parcel, expected) {
            (Ok(Parcel::Request(method, request)), Ok(expected)) => {
                assert_eq!(method.subject, destination.subject);
                assert_eq!(GenerateRequest::decode(request).unwrap(), expected);
            }
            (Err(error), Err(because)) => {
                assert!(error.code() == Code::InvalidArgument && error.message().contains(because), "{error}");
            }
            (parcel, expected) => panic!("{parcel:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn a_payload_becomes_the_request_of_a_method() {
        let request = GenerateRequest { player_id: "p1".to_owned(), ..GenerateRequest::default() };
        check(&to(GENERATE, &[]), r#"{"player_id": "p1"}"#, Ok(request.clone()));
        check(&to(GENERATE, &[]), r#"{"playerId": "p1"}"#, Ok(request.clone()));
        let mapped = to(GENERATE, &[("player_id", "player.id"), ("seed", "nowhere")]);
        check(&mapped, r#"{"player": {"id": "p1"}, "other": 1}"#, Ok(request));
        check(&to(GENERATE, &[]), r#"{"player_id": 3}"#, Err("does not fit `svc.quest.v1.generate` of rule `r`"));
        check(&to(GENERATE, &[]), r#"{"other": 3}"#, Err("other"));
        check(&to(GENERATE, &[]), r#"{"meta": {}}"#, Err("field `meta` is the router's"));
    }

    #[test]
    fn a_destination_is_refused_with_those_that_are_accepted() {
        #[track_caller]
        fn refused(destination: &Destination, because: &str) {
            let error = destinations().check(destination).unwrap_err();
            assert!(error.code() == Code::InvalidArgument && error.message().contains(because), "{error}");
        }
        refused(&to("svc.auth.v1.login", &[]), "destination `svc.auth.v1.login` must be one of svc.quest.v1.abandon, ");
        refused(&to("svc.auth.v1.login", &[]), EVENT);
        refused(
            &to(GENERATE, &[("nothing", "a")]),
            "field `nothing` of `svc.quest.v1.generate` must be one of player_id",
        );
        refused(&to(GENERATE, &[("meta", "a")]), "field `meta` of");
        refused(&to(GENERATE, &[("player_id", "a.")]), "path of field `player_id` must be names");
        refused(&to(EVENT, &[("payload", "a")]), "takes no fields");
    }

    #[test]
    fn a_response_is_told_as_json() {
        let quest = QuestInfo { id: "q1".to_owned(), ..QuestInfo::default() };
        let response = GenerateResponse { quest: Some(quest), ..GenerateResponse::default() };
        let outcome = destinations().outcome(GENERATE, response.encode_to_vec().into());
        assert_eq!(outcome.response, r#"{"quest":{"id":"q1"}}"#);
        assert_eq!((outcome.response_bytes, outcome.error), (21, None));
        let long = QuestInfo { id: "q".repeat(MAX_RESPONSE), ..QuestInfo::default() };
        let response = GenerateResponse { quest: Some(long), ..GenerateResponse::default() };
        let outcome = destinations().outcome(GENERATE, response.encode_to_vec().into());
        assert!(outcome.response.is_empty() && outcome.response_bytes as usize > MAX_RESPONSE);
        let lost = destinations().outcome(GENERATE, Bytes::from_static(&[0xff]));
        assert_eq!(lost.error.unwrap().code(), Code::DataLoss);
    }
}

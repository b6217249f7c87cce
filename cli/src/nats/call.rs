//! Calls of one method, as JSON in protobuf's mapping: what an operator does by hand, and what a demonstration needs.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use async_nats::{Client, HeaderMap, RequestErrorKind};
use hyper::body::Bytes;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use proto::rpc::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::error::{Code, Hinted};
use crate::problem::did_you_mean;

/// The method of this name: its full name (`quest.v1.Quest/Generate`) or its subject, with or without `svc.`
/// (`quest.v1.generate`).
///
/// # Errors
/// There is none; the hint names one that is spelled alike.
pub(crate) fn method(name: &str) -> Result<&'static Method, Hinted> {
    let methods = || proto::SERVICES.iter().flat_map(|service| service.methods);
    let is_named = |method: &&Method| {
        method.full_name == name || method.subject == name || method.subject.strip_prefix("svc.") == Some(name)
    };
    methods().find(is_named).ok_or_else(|| {
        // Spelling is compared with the form that was written.
        let known: Vec<&str> = match name.contains('/') {
            true => methods().map(|method| method.full_name).collect(),
            false => methods().filter_map(|method| method.subject.strip_prefix("svc.")).collect(),
        };
        let hint = did_you_mean(name.strip_prefix("svc.").unwrap_or(name), known.iter().copied())
            .unwrap_or_else(|| "docs/services.md has all methods, for example `quest.v1.Quest/Generate`".to_owned());
        Hinted::new(format!("no contract has a method `{name}`"), hint).code(Code::UnknownName)
    })
}

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The service answered with an error: `common.v1.Error` as JSON.
    Refused {
        /// Name of its code, for example `NOT_FOUND`.
        code: String,
        /// One sentence for people.
        message: String,
        /// For programs.
        details: Value,
    },
    /// There was no answer, or none that can be read; or the request fits no message of the method.
    Failed(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message, .. } => write!(f, "{message} ({code})"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for CallError {}

/// Calls a method that answers once.
///
/// # Errors
/// The service refused it, or there was no answer within `limit`, or `request` is no request of the method.
pub(crate) async fn call(
    client: &Client,
    method: &Method,
    request: &Value,
    traceparent: Option<&str>,
    limit: Duration,
) -> Result<Value, CallError> {
    let payload = encode(method, request, limit)?;
    let answer = send(client, method, payload.into(), traceparent, limit).await?;
    decode(method, &answer)
}

/// Sends an encoded request, and returns the encoded answer.
///
/// # Errors
/// There was no answer within `limit`.
pub(crate) async fn send(
    client: &Client,
    method: &Method,
    payload: Bytes,
    traceparent: Option<&str>,
    limit: Duration,
) -> Result<Bytes, CallError> {
    let mut request = async_nats::Request::new().payload(payload).timeout(Some(limit));
    if let Some(traceparent) = traceparent {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", traceparent);
        request = request.headers(headers);
    }
    let subject = method.subject;
    match timeout(limit, client.send_request(subject, request)).await {
        Ok(Ok(answer)) => Ok(answer.payload),
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
            Err(CallError::Failed(format!("no task serves `{subject}`")))
        }
        Ok(Err(error)) if error.kind() != RequestErrorKind::TimedOut => {
            Err(CallError::Failed(format!("`{subject}` was not asked: {error}")))
        }
        Ok(Err(_)) | Err(_) => {
            Err(CallError::Failed(format!("`{subject}` did not answer within {} s", limit.as_secs_f64())))
        }
    }
}

/// The request that JSON describes, encoded.
///
/// # Errors
/// It is no request of the method.
pub(crate) fn encode(method: &Method, request: &Value, limit: Duration) -> Result<Vec<u8>, CallError> {
    let mut request = request.clone();
    let Some(fields) = request.as_object_mut() else {
        return Err(CallError::Failed(format!("a request is a JSON object, not `{request}`")));
    };
    let meta = fields.entry("meta").or_insert_with(|| json!({}));
    if let Some(meta) = meta.as_object_mut() {
        let limit_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        meta.entry("timeoutMs").or_insert_with(|| json!(limit_ms));
    }
    let descriptor = descriptor(method.input)?;
    let message = DynamicMessage::deserialize(descriptor, &request);
    let message = message.map_err(|error| CallError::Failed(format!("no `{}`: {error}", method.input)))?;
    Ok(message.encode_to_vec())
}

/// The answer as JSON.
///
/// # Errors
/// It is an error, or no answer of the method.
pub(crate) fn decode(method: &Method, payload: &[u8]) -> Result<Value, CallError> {
    let unreadable = |error: &dyn fmt::Display| {
        CallError::Failed(format!("`{}` answered what is no `{}`: {error}", method.subject, method.output))
    };
    let message = DynamicMessage::decode(descriptor(method.output)?, payload).map_err(|error| unreadable(&error))?;
    let mut answer = serde_json::to_value(&message).map_err(|error| unreadable(&error))?;
    let error = answer.as_object_mut().and_then(|fields| fields.remove("error"));
    match error {
        None | Some(Value::Null) => Ok(answer),
        Some(error) => Err(CallError::refused(&error)),
    }
}

impl CallError {
    /// An error as services answer it, and the gateway after it.
    pub(crate) fn refused(error: &Value) -> Self {
        let text = |field: &str, default: &str| error[field].as_str().unwrap_or(default).to_owned();
        let details = error.get("details").cloned().unwrap_or_else(|| json!({}));
        // Fields with default values are left out of JSON.
        Self::Refused { code: text("code", "UNKNOWN"), message: text("message", "no reason given"), details }
    }
}

/// The messages of the contracts, decoded when they are first needed.
static CONTRACTS: LazyLock<Result<DescriptorPool, String>> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).map_err(|error| error.to_string()));

/// What a message of the contracts consists of, by its full name.
///
/// # Errors
/// There is no such message.
pub(super) fn descriptor(message: &str) -> Result<MessageDescriptor, CallError> {
    let pool = CONTRACTS.as_ref().map_err(|error| CallError::Failed(error.clone()))?;
    let found = pool.get_message_by_name(message);
    found.ok_or_else(|| CallError::Failed(format!("no contract has a message `{message}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_found_by_each_of_its_names() {
        let check = |name: &str, expected: Result<&str, &str>| match (method(name), expected) {
            (Ok(found), expected) => assert_eq!(Ok(found.full_name), expected, "{name}"),
            (Err(error), Err(hint)) => assert!(error.hint().unwrap().contains(hint), "{name}: {:?}", error.hint()),
            (Err(error), Ok(_)) => panic!("{name}: {error}"),
        };
        check("quest.v1.Quest/Generate", Ok("quest.v1.Quest/Generate"));
        check("svc.quest.v1.generate", Ok("quest.v1.Quest/Generate"));
        check("quest.v1.generate", Ok("quest.v1.Quest/Generate"));
        check("quest.v1.genrate", Err("quest.v1.generate"));
        check("quest.v1.Quest/Genrate", Err("quest.v1.Quest/Generate"));
        check("Generate", Err("docs/services.md"));
    }

    #[test]
    fn a_request_is_one_of_the_method() {
        let method = method("quest.v1.generate").unwrap();
        let limit = Duration::from_secs(2);
        let check = |request: Value, expected: Result<&str, &str>| match (encode(method, &request, limit), expected) {
            (Ok(bytes), Ok(player)) => {
                let decoded = proto::quest::v1::GenerateRequest::decode(bytes.as_slice()).unwrap();
                assert_eq!((decoded.player_id.as_str(), decoded.meta.unwrap().timeout_ms), (player, 2000));
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{request}: {found:?}"),
        };
        check(json!({ "playerId": "ada" }), Ok("ada"));
        check(json!({ "player_id": "ada" }), Ok("ada"));
        check(json!({ "player": "ada" }), Err("player"));
        check(json!([]), Err("a JSON object"));
    }

    #[test]
    fn an_error_of_the_service_is_an_error() {
        let method = method("quest.v1.get").unwrap();
        let response = proto::quest::v1::GetResponse {
            error: Some(proto::common::v1::Error {
                code: proto::rpc::Code::NotFound.into(),
                message: "quest `q` does not exist".to_owned(),
                details: [("quest".to_owned(), "q".to_owned())].into(),
            }),
            quest: None,
        };
        let error = decode(method, &response.encode_to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "quest `q` does not exist (NOT_FOUND)");
        let unknown = decode(method, b"\x0a\x02\x12\x00").unwrap_err();
        assert_eq!(unknown.to_string(), "no reason given (UNKNOWN)");
        assert!(matches!(decode(method, b"\xff"), Err(CallError::Failed(_))));
    }
}

//! CloudTrail's `LookupEvents`, which neither emulator answers for the other: from the calls that the proxy recorded.

use serde_json::{Value, json};

use super::calls::Call;
use super::http::Response;

/// Writes that succeeded, newest first, as far as the attributes match. Who did it is the access key id.
pub(crate) fn look_up(calls: &[Call], question: &Value) -> Response {
    let wanted = question["LookupAttributes"].as_array().cloned().unwrap_or_default();
    let limit = usize::try_from(question["MaxResults"].as_u64().unwrap_or(50)).unwrap_or(50);
    let done = calls.iter().rev().filter(|call| call.is_write && call.status.is_some_and(|status| status < 300));
    let events: Vec<_> = done.filter(|call| wanted.iter().all(|w| matches(call, w))).take(limit).map(event).collect();
    Response::new(200, "application/x-amz-json-1.1", json!({ "Events": events }).to_string())
}

fn matches(call: &Call, attribute: &Value) -> bool {
    let value = attribute["AttributeValue"].as_str().unwrap_or_default();
    match attribute["AttributeKey"].as_str().unwrap_or_default() {
        "EventName" => call.action == value,
        "EventSource" => source(call) == value,
        "Username" | "AccessKeyId" => call.caller == value,
        "ResourceName" => call.mentions(value),
        _ => false,
    }
}

fn source(call: &Call) -> String {
    format!("{}.amazonaws.com", call.service)
}

fn event(call: &Call) -> Value {
    let record = json!({
        "eventVersion": "1.11",
        "userIdentity": { "type": "IAMUser", "arn": format!("arn:aws:iam::123456789012:user/{}", call.caller) },
        "eventSource": source(call),
        "eventName": call.action,
        "userAgent": call.agent,
        "requestParameters": call.body,
        "requestID": call.request_id,
    });
    json!({
        "EventId": call.request_id,
        "EventName": call.action,
        "EventSource": source(call),
        "EventTime": call.since_epoch.as_secs(),
        "ReadOnly": "false",
        "AccessKeyId": call.caller,
        "Username": call.caller,
        "Resources": [],
        "CloudTrailEvent": record.to_string(),
    })
}

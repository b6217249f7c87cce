//! Sessions of Systems Manager, which neither emulator has: they are given out, and lead nowhere.

use serde_json::json;

use super::calls::Call;
use super::http::Response;

/// The token that opens a session.
pub(crate) const TOKEN: &str = "a-secret-token";

/// The answer, if the call is about a session.
pub(crate) fn answer(call: &Call) -> Option<Response> {
    let id = format!("{}-{:017x}", call.caller, call.number);
    let body = match call.name().as_str() {
        "ssm:StartSession" => json!({ "SessionId": id, "TokenValue": TOKEN, "StreamUrl": "wss://127.0.0.1/session" }),
        "ssm:TerminateSession" => json!({ "SessionId": call.body["SessionId"] }),
        _ => return None,
    };
    Some(Response::new(200, "application/x-amz-json-1.1", body.to_string()))
}

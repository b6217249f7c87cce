//! What the proxy does to calls, and to which: refusals in the form that the SDK expects, cut connections, lost answers,
//! and gates at which a call waits for the test.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::calls::Call;
use super::http::{Request, Response};

/// What happens to a call.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The call is refused, as AWS does when there are too many.
    Throttle,
    /// 500, nothing happened.
    ServerError,
    /// It takes effect, and the connection is cut instead of an answer.
    LostAnswer,
    /// The connection is cut; nothing happened.
    Refused,
    /// No answer, ever; nothing happened.
    Hang,
    /// It takes that much longer.
    Delay(Duration),
    /// The caller may not do this; the message names action and resource.
    Deny,
    /// The caller's credentials have expired.
    Expired,
    /// Any other refusal.
    Error { status: u16, code: &'static str, message: String },
    /// It is answered with this JSON, whatever there is: AWS answers with what was, for some seconds after a write.
    Stale(serde_json::Value),
    /// A page of a proxy on the way.
    Page(u16),
    /// The test decides when it goes on.
    Gate(Gate, Side),
}

/// Where a call is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It has had no effect yet.
    Before,
    /// It has had its effect; the answer waits.
    After,
}

/// Which calls a fault happens to. Counts from the moment it is given to the emulator.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    action: Option<String>,
    about: Option<String>,
    nth: Option<usize>,
    seen: usize,
    /// Nothing counts before a call of this action.
    after: Option<String>,
    /// How often at most.
    at_most: Option<usize>,
    pub(crate) fault: Fault,
}

impl Rule {
    /// The `n`th call from now, whichever it is; the first is 1.
    pub(crate) fn nth(n: usize, fault: Fault) -> Self {
        Self { action: None, about: None, nth: Some(n), seen: 0, after: None, at_most: None, fault }
    }

    /// The `n`th call of an action, such as `ecs:UpdateService`.
    pub(crate) fn nth_of(n: usize, action: &str, fault: Fault) -> Self {
        Self { action: Some(action.to_owned()), ..Self::nth(n, fault) }
    }

    /// Every call of an action, or of a service: `ecs:UpdateService`, `ecs:*`, `*`.
    pub(crate) fn every(action: &str, fault: Fault) -> Self {
        Self { nth: None, ..Self::nth_of(0, action, fault) }
    }

    /// Only calls whose body has this text, or an ARN that ends in it.
    pub(crate) fn about(self, name: &str) -> Self {
        Self { about: Some(name.to_owned()), ..self }
    }

    /// Only calls after one of this action.
    pub(crate) fn after(self, action: &str) -> Self {
        Self { after: Some(action.to_owned()), ..self }
    }

    /// Only so many of the calls.
    pub(crate) fn at_most(self, times: usize) -> Self {
        Self { at_most: Some(times), ..self }
    }

    pub(crate) fn applies(&mut self, call: &Call) -> bool {
        let name = call.name();
        if let Some(after) = &self.after {
            if *after == name {
                self.after = None;
            }
            return false;
        }
        let matches = self.action.as_ref().is_none_or(|action| {
            *action == name || action.strip_suffix('*').is_some_and(|prefix| name.starts_with(prefix))
        });
        if !matches || self.about.as_ref().is_some_and(|about| !call.mentions(about)) {
            return false;
        }
        self.seen += 1;
        self.nth.is_none_or(|nth| nth == self.seen) && self.at_most.is_none_or(|most| self.seen <= most)
    }
}

/// A point at which one call waits. Opens when dropped by the test.
#[derive(Clone)]
pub(crate) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    reached: Option<Call>,
    open: bool,
}

impl fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Gate")
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// The call that waits; `None` if none has come in time.
    pub(crate) fn reached(&self, patience: Duration) -> Option<Call> {
        let (state, changed) = &*self.0;
        let guard = state.lock().unwrap();
        changed.wait_timeout_while(guard, patience, |state| state.reached.is_none()).unwrap().0.reached.clone()
    }

    /// Lets it go.
    pub(crate) fn release(&self) {
        let (state, changed) = &*self.0;
        state.lock().unwrap().open = true;
        changed.notify_all();
    }

    /// The call waits here. A test that has ended waits for nothing.
    pub(crate) fn pass(&self, call: &Call) {
        let (state, changed) = &*self.0;
        let mut guard = state.lock().unwrap();
        guard.reached = Some(call.clone());
        changed.notify_all();
        drop(changed.wait_while(guard, |state| !state.open).unwrap());
    }
}

/// Sleeps, as a server does that is slow.
pub(crate) fn delay(duration: Duration) {
    let (_keep, nothing) = std::sync::mpsc::channel::<()>();
    let _ = nothing.recv_timeout(duration);
}

/// The answer of a fault that refuses.
pub(crate) fn refusal(fault: &Fault, call: &Call, request: &Request) -> Option<Response> {
    let form = Form::of(call, request);
    let (status, code, message) = match fault {
        Fault::Page(status) => return Some(Response::new(*status, "text/html", "<html>Bad Gateway</html>".to_owned())),
        Fault::Stale(answer) => return Some(Response::new(200, "application/x-amz-json-1.1", answer.to_string())),
        Fault::Throttle => form.throttle(),
        Fault::ServerError => {
            (500, "InternalFailure", "We encountered an internal error. Please try again.".to_owned())
        }
        Fault::Expired => {
            let code = if form == Form::Ec2 { "RequestExpired" } else { "ExpiredTokenException" };
            let code = if form == Form::Query { "ExpiredToken" } else { code };
            (form.forbidden(), code, "The security token included in the request is expired".to_owned())
        }
        Fault::Deny => {
            let code = form.denied();
            let message = format!(
                "User: arn:aws:iam::123456789012:user/{} is not authorized to perform: {} on resource: {} because no \
                 identity-based policy allows the {} action",
                call.caller,
                call.name(),
                call.resource(),
                call.name(),
            );
            (form.forbidden(), code, message)
        }
        Fault::Error { status, code, message } => (*status, *code, message.clone()),
        _ => return None,
    };
    Some(form.error(status, code, &message, &call.request_id))
}

/// How a service writes errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Cbor,
    Query,
    Ec2,
    Rest,
}

impl Form {
    fn of(call: &Call, request: &Request) -> Self {
        if request.header("smithy-protocol").is_some() {
            Self::Cbor
        } else if request.header("x-amz-target").is_some() {
            Self::Json
        } else if call.service == "ec2" {
            Self::Ec2
        } else if call.body["Action"].is_string() {
            Self::Query
        } else {
            Self::Rest
        }
    }

    fn forbidden(self) -> u16 {
        if matches!(self, Self::Json | Self::Cbor) { 400 } else { 403 }
    }

    fn denied(self) -> &'static str {
        match self {
            Self::Json | Self::Cbor => "AccessDeniedException",
            Self::Ec2 => "UnauthorizedOperation",
            Self::Query | Self::Rest => "AccessDenied",
        }
    }

    fn throttle(self) -> (u16, &'static str, String) {
        match self {
            Self::Json | Self::Cbor => (400, "ThrottlingException", "Rate exceeded".to_owned()),
            Self::Ec2 => (503, "RequestLimitExceeded", "Request limit exceeded.".to_owned()),
            Self::Query => (400, "Throttling", "Rate exceeded".to_owned()),
            Self::Rest => (503, "SlowDown", "Please reduce your request rate.".to_owned()),
        }
    }

    fn error(self, status: u16, code: &str, message: &str, id: &str) -> Response {
        let text = message.replace('&', "&amp;").replace('<', "&lt;");
        let kind = if status < 500 { "Sender" } else { "Receiver" };
        let response = match self {
            Self::Json => {
                let body = serde_json::json!({ "__type": code, "message": message });
                Response::new(status, "application/x-amz-json-1.1", body.to_string())
            }
            Self::Cbor => {
                let mut body = vec![0xa2];
                for word in ["__type", code, "message", message] {
                    cbor_text(&mut body, word);
                }
                Response::new(status, "application/cbor", body).with("smithy-protocol", "rpc-v2-cbor")
            }
            Self::Ec2 => Response::new(
                status,
                "text/xml",
                format!(
                    "<Response><Errors><Error><Code>{code}</Code><Message>{text}</Message></Error></Errors>\
                     <RequestID>{id}</RequestID></Response>"
                ),
            ),
            Self::Query => Response::new(
                status,
                "text/xml",
                format!(
                    "<ErrorResponse><Error><Type>{kind}</Type><Code>{code}</Code><Message>{text}</Message></Error>\
                     <RequestId>{id}</RequestId></ErrorResponse>"
                ),
            ),
            Self::Rest => Response::new(
                status,
                "application/xml",
                format!("<Error><Code>{code}</Code><Message>{text}</Message><RequestId>{id}</RequestId></Error>"),
            ),
        };
        response.with("x-amzn-requestid", id)
    }
}

fn cbor_text(body: &mut Vec<u8>, text: &str) {
    body.push(0x79);
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

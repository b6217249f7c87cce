//! The one endpoint of all AWS services: routes each call to the emulator that knows it, records it, and does to it what
//! the test wants.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};

use super::calls::Call;
use super::faults::{Fault, Rule, Side, delay, refusal};
use super::http::{Reaction, Request, Response, Server, send};
use super::{nodes, sessions, signed, trail};

/// What ministack does better; everything else is moto's.
const MINISTACK: [&str; 3] = ["ecs", "ecr", "logs"];

/// What the proxy knows, shared with the test.
pub(crate) struct Shared {
    pub(crate) moto: SocketAddr,
    pub(crate) ministack: SocketAddr,
    /// Where Systems Manager runs scripts, if there are machines.
    pub(crate) machines: OnceLock<SocketAddr>,
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) rules: Mutex<Vec<Rule>>,
}

impl Shared {
    pub(crate) fn new(moto: SocketAddr, ministack: SocketAddr) -> Arc<Self> {
        Arc::new(Self { moto, ministack, machines: OnceLock::new(), calls: Mutex::default(), rules: Mutex::default() })
    }

    /// The emulator that answers for a service.
    pub(crate) fn upstream(&self, service: &str) -> SocketAddr {
        if MINISTACK.contains(&service) { self.ministack } else { self.moto }
    }
}

pub(crate) fn start(shared: Arc<Shared>) -> Server {
    Server::start(move |incoming| {
        let request = incoming.whole()?;
        // What ministack hands to tasks: their metadata.
        if request.header("authorization").is_none() && request.target.starts_with("/v4/") {
            return Ok(Reaction::Answer(send(shared.ministack, &request)?));
        }
        handle(&shared, &request)
    })
}

fn handle(shared: &Shared, request: &Request) -> io::Result<Reaction> {
    let (call, fault) = record(shared, request);
    match &fault {
        Some(Fault::Refused) => return Ok(Reaction::Cut),
        Some(Fault::Hang) => {
            delay(std::time::Duration::from_secs(3600));
            return Ok(Reaction::Cut);
        }
        Some(Fault::Gate(gate, Side::Before)) => gate.pass(&call),
        Some(fault) => {
            if let Some(refusal) = refusal(fault, &call, request) {
                note(shared, &call, refusal.status);
                return Ok(Reaction::Answer(refusal));
            }
        }
        None => {}
    }
    let response = answer(shared, &call, request)?.with("x-amzn-requestid", &call.request_id);
    match &fault {
        Some(Fault::LostAnswer) => return Ok(Reaction::Cut),
        Some(Fault::Delay(duration)) => delay(*duration),
        Some(Fault::Gate(gate, Side::After)) => {
            note(shared, &call, response.status);
            gate.pass(&call);
        }
        _ => {}
    }
    note(shared, &call, response.status);
    Ok(Reaction::Answer(response))
}

fn record(shared: &Shared, request: &Request) -> (Call, Option<Fault>) {
    let mut calls = shared.calls.lock().unwrap();
    let mut call = Call::of(request, calls.len() + 1);
    let mut rules = shared.rules.lock().unwrap();
    // Every rule counts, the first that applies acts.
    let fault =
        rules.iter_mut().filter_map(|rule| rule.applies(&call).then(|| rule.fault.clone())).reduce(|first, _| first);
    call.fault = fault.as_ref().map(|fault| format!("{fault:?}"));
    calls.push(call.clone());
    (call, fault)
}

fn note(shared: &Shared, call: &Call, status: u16) {
    let mut calls = shared.calls.lock().unwrap();
    if let Some(known) = calls.get_mut(call.number - 1).filter(|known| known.request_id == call.request_id) {
        known.status = Some(status);
    }
}

fn answer(shared: &Shared, call: &Call, request: &Request) -> io::Result<Response> {
    if call.caller.is_empty() && !call.action.starts_with("AssumeRoleWith") {
        let fault = Fault::Error {
            status: 403,
            code: "MissingAuthenticationTokenException",
            message: "Missing Authentication Token".to_owned(),
        };
        return Ok(refusal(&fault, call, request).unwrap());
    }
    if call.service == "cloudtrail" && call.action == "LookupEvents" {
        return Ok(trail::look_up(&shared.calls.lock().unwrap(), &call.body));
    }
    if let Some(response) = sessions::answer(call) {
        return Ok(response);
    }
    if let Some(message) = nodes::denied(call) {
        let fault = Fault::Error { status: 400, code: "AccessDeniedException", message };
        return Ok(refusal(&fault, call, request).unwrap());
    }
    if let Some(machines) = shared.machines.get().filter(|_| call.service == "ssm" && nodes::is_command(&call.action)) {
        return send(*machines, request);
    }
    if call.name() == "application-autoscaling:RegisterScalableTarget" && !is_service(shared, &call.body)? {
        let resource = call.body["ResourceId"].as_str().unwrap_or_default();
        let message = format!("ECS service doesn't exist: {resource}");
        return Ok(refusal(&Fault::Error { status: 400, code: "ValidationException", message }, call, request).unwrap());
    }
    let mut response = send(shared.upstream(&call.service), request)?;
    response.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("x-amzn-requestid"));
    // moto's way to say that it does not know a call is a page for people, which every SDK repeats many times.
    if response.status >= 500 && response.header("content-type").is_some_and(|kind| kind.contains("html")) {
        let message = format!("the emulator cannot do {}: {}", call.name(), String::from_utf8_lossy(&response.body));
        let fault = Fault::Error { status: 400, code: "NotImplemented", message };
        response = refusal(&fault, call, request).unwrap();
    }
    Ok(response)
}

/// Whether ECS has the service that is to be scaled: autoscaling is another emulator's than ECS.
fn is_service(shared: &Shared, body: &Value) -> io::Result<bool> {
    let parts: Vec<_> = body["ResourceId"].as_str().unwrap_or_default().split('/').collect();
    let ["service", cluster, service] = parts[..] else { return Ok(true) };
    let question = json!({ "cluster": cluster, "services": [service] });
    let question = signed("ecs", "AmazonEC2ContainerServiceV20141113.DescribeServices", &question);
    let answer: Value = serde_json::from_slice(&send(shared.ministack, &question)?.body).unwrap_or_default();
    Ok(answer["services"][0]["status"] == "ACTIVE")
}

//! A session of the game, played through the gateway as a client would: what a newcomer sees of the fleet, and the smoke test
//! after a deployment.

mod gateway;
mod scenes;

use std::time::{Duration, Instant};

use async_nats::Client;
use futures::future::BoxFuture;
use proto::rpc::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::nats::call::{CallError, call, method};

pub(crate) use gateway::{Gateway, path};
pub(crate) use scenes::SCENES;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(15);
/// Between two looks at what takes a while.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Who calls a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Caller {
    /// A client of the gateway.
    Player,
    /// An operator, over NATS.
    Operator,
}

/// A call, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    /// Full name, for example `quest.v1.Quest/Generate`.
    pub(crate) method: &'static str,
    /// The service that serves it, if a manifest says so.
    pub(crate) service: Option<String>,
    /// Who called it.
    pub(crate) caller: Caller,
    /// How long it took, in milliseconds.
    pub(crate) took_ms: u64,
    /// What happened in the game, or why it failed.
    pub(crate) message: String,
    /// Whether the scene could go on.
    pub(crate) passed: bool,
}

/// What a player plays with.
pub(crate) struct Stage<'a> {
    gateway: Gateway,
    /// Absent where operators do not reach NATS.
    operator: Option<Client>,
    /// The service of each method.
    service_of: &'a (dyn Fn(&Method) -> Option<String> + Sync),
    /// Called after each step.
    watch: &'a (dyn Fn(&Step) + Sync),
    trace_id: String,
    /// Name of the player, of the session, and of everything that is made for them: another one each time.
    pub(crate) player: String,
    /// The player's session with the front door.
    pub(crate) session_id: Option<String>,
    /// Every call so far.
    pub(crate) steps: Vec<Step>,
}

/// A scene ends early.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// Something failed that should not.
    Failed,
    /// What the scene needs is not there.
    Skipped(String),
}

pub(crate) type Outcome = Result<(), Interruption>;

/// The part of a scene that does something.
pub(crate) type Play = for<'s, 'a> fn(&'s mut Stage<'a>) -> BoxFuture<'s, Outcome>;

impl<'a> Stage<'a> {
    pub(crate) fn new(
        gateway: Gateway,
        operator: Option<Client>,
        service_of: &'a (dyn Fn(&Method) -> Option<String> + Sync),
        watch: &'a (dyn Fn(&Step) + Sync),
    ) -> Self {
        let trace_id = format!("{:032x}", fastrand::u128(1..));
        let player = format!("demo-{:08x}", fastrand::u32(..));
        Self { gateway, operator, service_of, watch, trace_id, player, session_id: None, steps: Vec::new() }
    }

    /// The trace that all calls are part of.
    pub(crate) fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// Calls a public method; `describe` says what the answer means in the game.
    async fn player(
        &mut self,
        method: &str,
        request: Value,
        describe: impl FnOnce(&Value) -> String,
    ) -> Result<Value, Interruption> {
        let (method, traceparent) = (find(method), self.traceparent());
        let started = Instant::now();
        let answer = self.gateway.post(method, &request, &traceparent, CALL).await;
        self.done(method, Caller::Player, started, answer, describe)
    }

    /// Calls any method, where operators reach NATS.
    async fn operator(
        &mut self,
        method: &str,
        request: Value,
        describe: impl FnOnce(&Value) -> String,
    ) -> Result<Value, Interruption> {
        let Some(client) = self.operator.clone() else { return Err(not_reached(method)) };
        let (method, traceparent) = (find(method), self.traceparent());
        let started = Instant::now();
        let answer = call(&client, method, &request, Some(&traceparent), CALL).await;
        self.done(method, Caller::Operator, started, answer, describe)
    }

    /// Calls a method until the answer is what is waited for.
    async fn operator_until(
        &mut self,
        method: &str,
        request: Value,
        is_there: impl Fn(&Value) -> bool,
        describe: impl Fn(&Value) -> String,
    ) -> Result<Value, Interruption> {
        let Some(client) = self.operator.clone() else { return Err(not_reached(method)) };
        let (method, traceparent) = (find(method), self.traceparent());
        let started = Instant::now();
        let answer = loop {
            let answer = call(&client, method, &request, Some(&traceparent), CALL).await;
            let is_late = started.elapsed() > CALL;
            match &answer {
                Ok(found) if !is_there(found) && !is_late => sleep(POLL_INTERVAL).await,
                Ok(found) if !is_there(found) => {
                    break Err(CallError::Failed(format!("after {} s still {found}", CALL.as_secs())));
                }
                _ => break answer,
            }
        };
        self.done(method, Caller::Operator, started, answer, describe)
    }

    /// The player and the session, as requests to the front door begin.
    fn session(&self) -> Result<Value, Interruption> {
        let reason = || Interruption::Skipped("the player has no session".to_owned());
        let id = self.session_id.as_ref().ok_or_else(reason)?;
        Ok(json!({ "playerId": self.player, "sessionId": id }))
    }

    /// Makes the latest step one that failed, unless its answer is as it should be.
    fn expect(&mut self, holds: bool, why_not: impl FnOnce() -> String) -> Outcome {
        match self.steps.last_mut() {
            Some(step) if !holds => {
                (step.passed, step.message) = (false, why_not());
                (self.watch)(step);
                Err(Interruption::Failed)
            }
            _ => Ok(()),
        }
    }

    /// A public call that has to be refused with this code.
    async fn refused(&mut self, method: &str, request: Value, wanted: &str, message: &str) -> Outcome {
        let (method, traceparent) = (find(method), self.traceparent());
        let started = Instant::now();
        let answer = match self.gateway.post(method, &request, &traceparent, CALL).await {
            Err(CallError::Refused { code, .. }) if code == wanted => Ok(Value::Null),
            Ok(answer) => Err(CallError::Failed(format!("it was not refused with {wanted}: {answer}"))),
            Err(error) => Err(error),
        };
        self.done(method, Caller::Player, started, answer, |_| message.to_owned()).map(drop)
    }

    fn traceparent(&self) -> String {
        format!("00-{}-{:016x}-01", self.trace_id, fastrand::u64(1..))
    }

    fn done(
        &mut self,
        method: &'static Method,
        caller: Caller,
        started: Instant,
        answer: Result<Value, CallError>,
        describe: impl FnOnce(&Value) -> String,
    ) -> Result<Value, Interruption> {
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let message = match &answer {
            Ok(answer) => describe(answer),
            Err(error) => error.to_string(),
        };
        let service = (self.service_of)(method);
        let step = Step { method: method.full_name, service, caller, took_ms, message, passed: answer.is_ok() };
        (self.watch)(&step);
        self.steps.push(step);
        answer.map_err(|_| Interruption::Failed)
    }
}

fn not_reached(method: &str) -> Interruption {
    Interruption::Skipped(format!("`{method}` is not public, and operators do not reach NATS from here"))
}

/// A method of the contracts, which a test has looked up.
fn find(name: &str) -> &'static Method {
    method(name).unwrap_or_else(|error| panic!("{error}"))
}

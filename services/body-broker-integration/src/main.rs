//! The game's front door: the sessions of players, and the actions that they take in them. An action goes to several services at
//! once; each of its parts has an idempotency key of its own, so that a repeated action applies no part twice.

mod action;
mod session;

use std::time::Duration;

use futures::future::OptionFuture;
use proto::bodybroker::session::v1::EndReason;
use proto::bodybroker::v1::{
    BodyBroker, BodyBrokerServer, CloseRequest, CloseResponse, GetRequest, GetResponse, HeartbeatRequest,
    HeartbeatResponse, OpenRequest, OpenResponse, Session, SubmitActionRequest, SubmitActionResponse,
};
use proto::quest::v1::{Quest as _, QuestClient};
use proto::state::manager::v1::{StateManager as _, StateManagerClient};
use proto::world::state::v1::{Entity, WorldState as _, WorldStateClient};
use sdk::{Clock, Error, Fleet, Followed, Next, Operation, Periodic, Records, Stored, context};
use tokio::time::Instant;

use crate::action::{Step, parts};
use crate::session::{Due, key};

/// The most that a part of an action may take.
const PART_TIMEOUT: Duration = Duration::from_secs(5);
const ENDED_PER_TURN: usize = 500;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(BodyBrokerServer).periodically().run()
}

struct Service {
    state: StateManagerClient,
    world: WorldStateClient,
    quests: QuestClient,
    sessions: Records<Session>,
    due: Followed<Due>,
    clock: Clock,
}

impl BodyBroker for Service {
    async fn open(&self, request: OpenRequest) -> Result<OpenResponse, Error> {
        let (key, now) = (key(&request.player_id)?, self.clock.now());
        let session = session::opened(&request.player_id, &secret()?, request.lease_seconds, now)?;
        let open = |current: Option<&Stored<Session>>| {
            let replaced = current.and_then(|current| session::ended(&current.value, EndReason::Replaced, now));
            let next = Next::write(session.clone());
            let next = replaced.map_or(next.clone(), |(_, event)| next.and_publish(event));
            Ok(next.and_publish(session::opened_event(&session)))
        };
        let stored = self.sessions.change(&key, &Operation::of(&request), open).await?;
        Ok(self.wrote(stored).into())
    }

    async fn heartbeat(&self, request: HeartbeatRequest) -> Result<HeartbeatResponse, Error> {
        let HeartbeatRequest { player_id, session_id, .. } = &request;
        let now = self.clock.now();
        let renew = |current: Option<&Stored<Session>>| {
            let current = current.map(|current| &current.value);
            let current = session::check_open(current, player_id, session_id, now)?;
            Ok(Next::write(session::renewed(current, now)))
        };
        let stored = self.sessions.change(&key(player_id)?, &Operation::of(&request), renew).await?;
        Ok(self.wrote(stored).into())
    }

    async fn close(&self, request: CloseRequest) -> Result<CloseResponse, Error> {
        let CloseRequest { player_id, session_id, .. } = &request;
        let close = |current: Option<&Stored<Session>>| {
            let current = current.map(|current| &current.value);
            let current = session::check_latest(current, player_id, session_id)?;
            Ok(match session::ended(current, EndReason::Closed, self.clock.now()) {
                Some((session, event)) => Next::write(session).and_publish(event),
                None => Next::keep(),
            })
        };
        let stored = self.sessions.change(&key(player_id)?, &Operation::of(&request), close).await?;
        Ok(self.wrote(stored).into())
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let stored = self.sessions.find(&key(&request.player_id)?).await?;
        let session = stored.as_ref().map(|stored| &stored.value);
        let session = session::check_latest(session, &request.player_id, &request.session_id)?;
        Ok(session::shown(session.clone(), self.clock.now()).into())
    }

    async fn submit_action(&self, request: SubmitActionRequest) -> Result<SubmitActionResponse, Error> {
        let operation = Operation::of(&request);
        let SubmitActionRequest { player_id, session_id, action, .. } = request;
        let parts = parts(&player_id, action)?;
        let stored = self.sessions.find(&key(&player_id)?).await?;
        let session = stored.as_ref().map(|stored| &stored.value);
        session::check_open(session, &player_id, &session_id, self.clock.now())?;

        let part = Part { operation: format!("{player_id}/{}", operation.digits()) };
        let state = parts.state.map(|request| part.call("state", self.state.update(request)));
        let movement = parts.movement.map(|step| part.call("movement", self.take(step)));
        let quest = parts.quest.map(|request| part.call("quest", self.quests.progress(request)));
        let (state, movement, quest) =
            futures::join!(OptionFuture::from(state), OptionFuture::from(movement), OptionFuture::from(quest));
        Ok(action::combined(state, movement, quest))
    }
}

/// Calls the parts of an action.
struct Part {
    operation: String,
}

impl Part {
    /// Calls a part with a key of its own, and leaves time to say that it did not answer.
    async fn call<T>(&self, name: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let context = context().with_idempotency_key(format!("{}/{name}", self.operation));
        let left = context.deadline().saturating_duration_since(Instant::now());
        let context = context.with_timeout(PART_TIMEOUT.min(left.mul_f64(0.8)));
        let answer = tokio::time::timeout_at(context.deadline(), call);
        let late = |_| Err(Error::unavailable(format_args!("the service for {name} did not answer in time")));
        context.clone().scope(answer).await.unwrap_or_else(late)
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let sessions = fleet.records("player_sessions").await?;
        let due = sessions.follow(Due::default()).await?;
        let (state, world, quests) = (fleet.client(), fleet.client(), fleet.client());
        Ok(Self { state, world, quests, sessions, due, clock: fleet.clock().clone() })
    }

    async fn take(&self, step: Step) -> Result<Option<Entity>, Error> {
        Ok(match step {
            Step::Enter(request) => self.world.upsert_entity(request).await?.entity,
            Step::Move(request) => self.world.move_entity(request).await?.entity,
        })
    }

    fn wrote(&self, stored: Stored<Session>) -> Session {
        self.due.wrote(stored.clone().into());
        stored.value
    }

    /// Ends a player's session if its lease has run out, and deletes it if it ended long ago.
    async fn tidy(&self, player_id: &str) -> Result<(), Error> {
        let now = self.clock.now();
        let tidy = |current: &Stored<Session>| {
            Ok(match session::expired(&current.value, now) {
                Some((session, event)) => Next::write(session).and_publish(event),
                None if session::is_over(&current.value, now) => Next::delete(),
                None => Next::keep(),
            })
        };
        if let Some(stored) = self.sessions.update(&key(player_id)?, tidy).await? {
            self.due.wrote(stored.into());
        }
        Ok(())
    }
}

/// The id of a session: random, so that it cannot be guessed.
fn secret() -> Result<String, Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::internal("there are no random numbers"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

impl Periodic for Service {
    const INTERVAL: Duration = Duration::from_millis(500);

    async fn turn(&self) -> Result<(), Error> {
        let due = self.due.read().0.passed(self.clock.now(), ENDED_PER_TURN);
        sdk::each(due, |player_id| async move { self.tidy(&player_id).await }).await
    }
}

#[cfg(test)]
mod tests;

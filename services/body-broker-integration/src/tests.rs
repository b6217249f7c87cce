//! The service against a real nats-server, with services that the tests make up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use prost::Message as _;
use proto::bodybroker::session::v1::{Ended, Opened};
use proto::bodybroker::v1::state_change::Change;
use proto::bodybroker::v1::{Action, ActionOutcome, Movement, Outcome, QuestProgress, StateChange};
use proto::quest::v1::{ProgressRequest, ProgressResponse, QuestInfo};
use proto::state::manager::v1::{FieldPatches, Record, UpdateRequest, UpdateResponse};
use proto::world::state::v1::{
    Entity, MoveEntityRequest, MoveEntityResponse, Point, UpsertEntityRequest, UpsertEntityResponse,
};
use sdk::testing::{Fake, NatsServer, Time, as_request};
use sdk::{Code, Event as _};

use super::*;

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("player_sessions", 8).await;
    server.stream("EVENTS", &[Opened::SUBJECT, Ended::SUBJECT]).await;
    server.outboxes(&["player_sessions"], "EVENTS").await;
    server
}

async fn service(server: &NatsServer, time: &Time, others: &Fake) -> Service {
    let service = Service::new(server.fleet_at("body-broker-integration", time).await).await.unwrap();
    Service { state: others.client(), world: others.client(), quests: others.client(), ..service }
}

/// What other services were asked to do, and have done: each idempotency key once, as every service does.
#[derive(Clone, Default)]
struct Done {
    keys: Arc<Mutex<BTreeSet<String>>>,
    done: Arc<Mutex<Vec<String>>>,
}

impl Done {
    fn note(&self, what: String) {
        let key = sdk::context().idempotency_key().expect("a key").to_owned();
        if self.keys.lock().unwrap().insert(key) {
            self.done.lock().unwrap().push(what);
        }
    }

    /// In the order of the alphabet: the parts come at the same time.
    fn all(&self) -> Vec<String> {
        let mut done = self.done.lock().unwrap().clone();
        done.sort_unstable();
        done
    }

    fn others(&self) -> Fake {
        let [updated, entered, moved, progressed] = [(); 4].map(|()| self.clone());
        let update = move |request: UpdateRequest| {
            updated.note(format!("update {}", request.key.unwrap().id));
            Ok(UpdateResponse::from(Record { revision: 7, ..Record::default() }))
        };
        let enter = move |request: UpsertEntityRequest| {
            let entity = request.entity.unwrap();
            entered.note(format!("enter {}", entity.region_id));
            Ok(UpsertEntityResponse::from(entity))
        };
        let step = move |request: MoveEntityRequest| {
            moved.note(format!("move from {} to {}", request.region_id, request.to_region_id));
            Ok(MoveEntityResponse::from(Entity { id: request.entity_id, ..Entity::default() }))
        };
        let progress = move |request: ProgressRequest| {
            progressed.note(format!("progress of {}", request.quest_id));
            Ok(ProgressResponse::from(QuestInfo { id: request.quest_id, ..QuestInfo::default() }))
        };
        Fake::default().on(update).on(enter).on(step).on(progress)
    }
}

/// An action with all parts.
fn action() -> Action {
    Action {
        state: Some(StateChange { expected_revision: None, change: Some(Change::Fields(FieldPatches::default())) }),
        movement: Some(Movement {
            from_region_id: "inn".to_owned(),
            region_id: "mill".to_owned(),
            position: Some(Point::default()),
        }),
        quest: Some(QuestProgress { quest_id: "q1".to_owned(), objective_id: "o1".to_owned(), amount: 1 }),
    }
}

impl Service {
    async fn opened(&self, key: Option<&str>, player_id: &str) -> Result<Session, Error> {
        let request = OpenRequest { player_id: player_id.to_owned(), lease_seconds: 10, ..OpenRequest::default() };
        Ok(as_request(key, self.open(request)).await?.session.unwrap())
    }

    async fn beat(&self, session: &Session) -> Result<Session, Error> {
        let (player_id, session_id) = (session.player_id.clone(), session.id.clone());
        let request = HeartbeatRequest { meta: None, player_id, session_id };
        Ok(as_request(None, self.heartbeat(request)).await?.session.unwrap())
    }

    async fn closed(&self, session: &Session) -> Result<Session, Error> {
        let (player_id, session_id) = (session.player_id.clone(), session.id.clone());
        Ok(as_request(None, self.close(CloseRequest { meta: None, player_id, session_id })).await?.session.unwrap())
    }

    async fn got(&self, session: &Session) -> Result<Session, Error> {
        let (player_id, session_id) = (session.player_id.clone(), session.id.clone());
        Ok(self.get(GetRequest { meta: None, player_id, session_id }).await?.session.unwrap())
    }

    async fn submitted(
        &self,
        key: Option<&str>,
        session: &Session,
        action: Action,
    ) -> Result<SubmitActionResponse, Error> {
        let (player_id, session_id) = (session.player_id.clone(), session.id.clone());
        let request = SubmitActionRequest { meta: None, player_id, session_id, action: Some(action) };
        as_request(key, self.submit_action(request)).await
    }
}

/// The events: `opened`, or why a session ended.
async fn events(server: &NatsServer) -> Vec<String> {
    let stored = server.stored_from(&["player_sessions"], "EVENTS").await;
    let name = |subject: &str, payload| match subject {
        Opened::SUBJECT => "opened".to_owned(),
        _ => Ended::decode(payload).unwrap().reason().as_str_name().to_owned(),
    };
    stored.into_iter().map(|stored| name(&stored.subject, stored.payload)).collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, code: Code, message: &str) {
    let error = outcome.unwrap_err();
    assert_eq!((error.code(), error.message()), (code, message));
}

#[tokio::test]
async fn an_action_goes_to_three_services_and_is_answered_as_one() {
    let (server, done) = (server().await, Done::default());
    let service = service(&server, &Time::default(), &done.others()).await;
    let session = service.opened(None, "ada").await.unwrap();
    let answer = service.submitted(None, &session, action()).await.unwrap();
    assert_eq!(answer.outcome(), ActionOutcome::Applied);
    assert_eq!(answer.state.unwrap().record.unwrap().revision, 7);
    assert_eq!(answer.movement.unwrap().entity.unwrap().id, "ada");
    assert_eq!(answer.quest.unwrap().quest.unwrap().id, "q1");
    assert_eq!(done.all(), ["move from inn to mill", "progress of q1", "update ada"]);

    let mut arrival = Action { movement: action().movement, ..Action::default() };
    arrival.movement.as_mut().unwrap().from_region_id.clear();
    let answer = service.submitted(None, &session, arrival).await.unwrap();
    assert!(answer.state.is_none() && answer.quest.is_none());
    assert!(done.all().contains(&"enter mill".to_owned()));
}

#[tokio::test]
async fn a_part_that_fails_is_told_and_a_repeated_action_applies_only_what_is_missing() {
    let (server, done) = (server().await, Done::default());
    let lost = |_: MoveEntityRequest| Err::<MoveEntityResponse, _>(Error::unavailable("no world"));
    let time = Time::default();
    let broken = service(&server, &time, &done.others().on(lost)).await;
    let session = broken.opened(None, "ada").await.unwrap();
    let answer = broken.submitted(Some("k"), &session, action()).await.unwrap();
    assert_eq!(answer.outcome(), ActionOutcome::PartlyApplied);
    let movement = answer.movement.unwrap();
    let error = movement.error.clone().unwrap();
    assert_eq!((movement.outcome(), error.code(), &*error.message), (Outcome::Failed, Code::Unavailable, "no world"));
    assert_eq!(done.all(), ["progress of q1", "update ada"]);

    // Another task has the world again.
    let whole = service(&server, &time, &done.others()).await;
    let answer = whole.submitted(Some("k"), &session, action()).await.unwrap();
    assert_eq!(answer.outcome(), ActionOutcome::Applied);
    assert_eq!(done.all(), ["move from inn to mill", "progress of q1", "update ada"]);
    // Another action, and another player's with the same key, is applied.
    whole.submitted(Some("k2"), &session, action()).await.unwrap();
    let other = whole.opened(None, "bob").await.unwrap();
    whole.submitted(Some("k"), &other, action()).await.unwrap();
    assert_eq!(done.all().len(), 9);
}

#[tokio::test]
async fn a_service_that_does_not_answer_does_not_keep_the_others_from_it() {
    let (server, done) = (server().await, Done::default());
    let service = service(&server, &Time::default(), &done.others().silent::<UpdateRequest>()).await;
    let session = service.opened(None, "ada").await.unwrap();
    let answer = service.submitted(None, &session, action()).await.unwrap();
    assert_eq!(answer.outcome(), ActionOutcome::PartlyApplied);
    let error = answer.state.unwrap().error.unwrap();
    assert_eq!((error.code(), &*error.message), (Code::Unavailable, "the service for state did not answer in time"));
    assert_eq!(done.all(), ["move from inn to mill", "progress of q1"]);
}

#[tokio::test]
async fn a_session_lives_as_long_as_heartbeats_come() {
    let (server, time, done) = (server().await, Time::default(), Done::default());
    let services = [service(&server, &time, &done.others()).await, service(&server, &time, &done.others()).await];
    let session = services[0].opened(None, "ada").await.unwrap();
    for turn in 0..4 {
        time.pass(Duration::from_secs(8));
        services[turn % 2].beat(&session).await.unwrap();
        for service in &services {
            service.turn().await.unwrap();
        }
    }
    assert_eq!(services[1].got(&session).await.unwrap().ended_at, None);
    assert_eq!(events(&server).await, ["opened"]);

    time.pass(Duration::from_secs(10));
    let ended = "the session of player `ada` has ended, open another one";
    // Before any worker has noted it.
    refused(services[1].beat(&session).await, Code::FailedPrecondition, ended);
    let error = services[0].submitted(None, &session, action()).await.unwrap_err();
    assert_eq!((error.message(), error.detail("reason")), (ended, Some("session_ended")));
    assert_eq!(services[0].got(&session).await.unwrap().end_reason(), EndReason::Expired);
    let turns = futures::future::join_all(services.iter().map(Periodic::turn)).await;
    assert!(turns.iter().all(Result::is_ok), "{turns:?}");
    services[0].turn().await.unwrap();
    assert_eq!(events(&server).await, ["opened", "END_REASON_EXPIRED"]);
    assert_eq!(done.all(), [""; 0]);
    // An hour later it is forgotten.
    time.pass(session::KEPT_AFTER_END);
    let gone = async {
        while services[0].got(&session).await.is_ok() {
            services[0].turn().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the session is deleted");
    refused(services[0].got(&session).await, Code::NotFound, "this session of player `ada` does not exist");
}

#[tokio::test]
async fn a_player_has_one_session() {
    let (server, done) = (server().await, Done::default());
    let service = service(&server, &Time::default(), &done.others()).await;
    let first = service.opened(Some("k"), "ada").await.unwrap();
    let second = service.opened(None, "ada").await.unwrap();
    assert!(first.id != second.id && first.id.len() == 32);
    let unknown = "this session of player `ada` does not exist";
    refused(service.beat(&first).await, Code::NotFound, unknown);
    refused(service.submitted(None, &first, action()).await, Code::NotFound, unknown);
    refused(service.closed(&first).await, Code::NotFound, unknown);
    service.beat(&second).await.unwrap();
    // A repeated request is answered as it was, and opens nothing.
    assert_eq!(service.opened(Some("k"), "ada").await.unwrap(), first);
    service.beat(&second).await.unwrap();
    assert_eq!(events(&server).await, ["opened", "END_REASON_REPLACED", "opened"]);
}

#[tokio::test]
async fn a_closed_session_is_over() {
    let (server, done) = (server().await, Done::default());
    let service = service(&server, &Time::default(), &done.others()).await;
    let session = service.opened(None, "ada").await.unwrap();
    let closed = service.closed(&session).await.unwrap();
    assert_eq!(closed.end_reason(), EndReason::Closed);
    assert_eq!(service.closed(&session).await.unwrap(), closed);
    let ended = "the session of player `ada` has ended, open another one";
    refused(service.submitted(None, &session, action()).await, Code::FailedPrecondition, ended);
    service.opened(None, "ada").await.unwrap();
    assert_eq!(events(&server).await, ["opened", "END_REASON_CLOSED", "opened"]);
}

#[tokio::test]
async fn what_is_out_of_bounds_is_refused() {
    let (server, done) = (server().await, Done::default());
    let service = service(&server, &Time::default(), &done.others()).await;
    let id = "player id must be 1 to 64 letters, digits, `_` and `-`";
    refused(service.opened(None, "a.b").await, Code::InvalidArgument, id);
    let long = OpenRequest { player_id: "ada".to_owned(), lease_seconds: 3_601, ..OpenRequest::default() };
    let message = "lease_seconds is 3601, it must be 5 to 3600";
    refused(as_request(None, service.open(long)).await, Code::InvalidArgument, message);
    let session = service.opened(None, "ada").await.unwrap();
    let none = "action has no part, it must have state, movement or quest";
    refused(service.submitted(None, &session, Action::default()).await, Code::InvalidArgument, none);
    assert_eq!(done.all(), [""; 0]);
}

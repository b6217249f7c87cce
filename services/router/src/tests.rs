//! The service against a real nats-server, and other services that the tests make up.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prost::Message as _;
use proto::quest::v1::{GenerateRequest, GenerateResponse, GetRequest, GetResponse, QuestInfo};
use proto::router::message::v1::Routed;
use proto::router::v1::Destination;
use sdk::testing::{Fake, NatsServer, as_request};
use sdk::{Code, Event as _, Settings};

use super::*;
use crate::content::tests::message;
use crate::destination::EVENT;
use crate::rules::tests::rule;

const SOON: Duration = Duration::from_secs(20);
const GENERATE: &str = "svc.quest.v1.generate";
const GET: &str = "svc.quest.v1.get";
const BOSS: &str = r#"{"kind": "boss", "player": "p1"}"#;

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("router_rules", 1).await;
    server.stream("EVENTS", &[Routed::SUBJECT]).await;
    server
}

/// A task that may call quest-system and state-manager.
async fn service(server: &NatsServer, others: &Fake) -> Service {
    let calls = vec!["quest.v1".to_owned(), "state.manager.v1".to_owned()];
    let settings = Settings { calls, ..Settings::for_service("router", server.connection()) };
    let service = Service::new(Fleet::connect(settings).await.unwrap()).await.unwrap();
    Service { others: others.client(), ..service }
}

/// The idempotency keys of the requests for quests.
type Keys = Arc<Mutex<Vec<Option<String>>>>;

/// Makes quests, and knows none.
fn others(keys: &Keys) -> Fake {
    let keys = Arc::clone(keys);
    Fake::default()
        .on(move |request: GenerateRequest| {
            keys.lock().unwrap().push(context().idempotency_key().map(str::to_owned));
            Ok(GenerateResponse::from(QuestInfo { player_id: request.player_id, ..QuestInfo::default() }))
        })
        .on(|_: GetRequest| Err::<GetResponse, _>(Error::not_found("quest `p1`")))
}

/// To a method with a field from the payload, or to the event.
fn destination(subject: &str, field: Option<&str>) -> Destination {
    let fields = field.map(|field| (field.to_owned(), "player".to_owned()));
    Destination { subject: subject.to_owned(), fields: fields.into_iter().collect() }
}

impl Service {
    async fn put(&self, rule: Rule, expected_revision: Option<u64>) -> Result<Rule, Error> {
        let request = PutRuleRequest { meta: None, rule: Some(rule), expected_revision };
        Ok(as_request(None, self.put_rule(request)).await?.rule.unwrap())
    }

    async fn routed(&self, key: Option<&str>, subject: &str, payload: &str) -> Result<RouteResponse, Error> {
        as_request(key, self.route(RouteRequest { meta: None, message: Some(message(subject, payload)) })).await
    }

    async fn tested(&self, subject: &str) -> TestResponse {
        self.test(TestRequest { meta: None, message: Some(message(subject, BOSS)) }).await.unwrap()
    }

    /// Waits until this rule would route.
    async fn routes_by(&self, id: Option<&str>) {
        let until = Instant::now() + SOON;
        while self.tested("game.spawned").await.rule.map(|rule| rule.id).as_deref() != id {
            assert!(Instant::now() < until, "{:?}", self.tested("game.spawned").await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_message_is_delivered_to_all_destinations_of_the_first_rule_that_matches() {
    let (server, keys) = (server().await, Keys::default());
    let service = service(&server, &others(&keys)).await;
    let destinations =
        vec![destination(GENERATE, Some("player_id")), destination(GET, Some("quest_id")), destination(EVENT, None)];
    service.put(Rule { destinations, ..rule("bosses", 5, "game.*") }, Some(0)).await.unwrap();
    service.put(rule("later", 6, ">"), None).await.unwrap();

    let response = service.routed(Some("k"), "game.spawned", BOSS).await.unwrap();
    let [quest, unknown, event] = &response.outcomes[..] else { panic!("{response:?}") };
    assert_eq!((response.rule_id.as_str(), quest.subject.as_str()), ("bosses", GENERATE));
    assert_eq!(quest.response, r#"{"quest":{"playerId":"p1"}}"#);
    let refused = unknown.error.clone().unwrap();
    assert_eq!((refused.code(), &*refused.message), (Code::NotFound, "quest `p1` does not exist"));
    assert_eq!((event.subject.as_str(), event.error.clone()), (EVENT, None));

    // Repeated, each destination gets the same key again, and the event is stored once.
    service.routed(Some("k"), "game.spawned", BOSS).await.unwrap();
    let key = Some(format!("k/{GENERATE}"));
    assert_eq!(*keys.lock().unwrap(), [key.clone(), key]);
    let events: Vec<_> = server.stored("EVENTS").await;
    let events: Vec<_> = events.into_iter().map(|stored| Routed::decode(stored.payload).unwrap()).collect();
    let told: Vec<_> = events.iter().map(|event| (&*event.rule_id, &*event.subject, &*event.payload)).collect();
    assert_eq!(told, [("bosses", "game.spawned", BOSS)]);
}

#[tokio::test]
async fn rules_change_on_all_tasks_while_they_run() {
    let server = server().await;
    let none = Fake::default();
    let services = [service(&server, &none).await, service(&server, &none).await];
    let first = services[0].put(rule("a", 2, "game.>"), None).await.unwrap();
    services[0].routes_by(Some("a")).await;
    services[1].routes_by(Some("a")).await;
    services[1].put(rule("b", 1, "game.>"), None).await.unwrap();
    services[0].routes_by(Some("b")).await;

    let told = services[0].tested("game.spawned").await;
    assert_eq!(
        told.evaluations.iter().map(|it| (&*it.rule_id, it.matches)).collect::<Vec<_>>(),
        [("b", true), ("a", true)]
    );
    let other = services[0].tested("shop.sold").await;
    assert_eq!((other.rule, &*other.evaluations[0].reason), (None, "subject `shop.sold` does not match `game.>`"));

    let error = services[1].put(rule("a", 3, "game.>"), Some(0)).await.unwrap_err();
    let revision = first.revision.to_string();
    assert_eq!((error.code(), error.detail("current_revision")), (Code::Aborted, Some(revision.as_str())));
    for _ in 0..2 {
        let request = RemoveRuleRequest { meta: None, rule_id: "b".to_owned() };
        as_request(None, services[1].remove_rule(request)).await.unwrap();
    }
    assert_eq!(services[1].tested("game.spawned").await.rule.unwrap().id, "a", "an own removal counts at once");
    services[0].routes_by(Some("a")).await;
    let page = ListRulesRequest { limit: 1, ..ListRulesRequest::default() };
    assert_eq!(services[0].list_rules(page).await.unwrap().rules, [first]);
}

#[tokio::test]
async fn nothing_is_delivered_if_the_message_does_not_fit_one_destination() {
    let (server, keys) = (server().await, Keys::default());
    let service = service(&server, &others(&keys)).await;
    let error = service.routed(None, "game.spawned", BOSS).await.unwrap_err();
    assert_eq!((error.code(), error.detail(reason::KEY)), (Code::NotFound, Some("no_rule")));

    let destinations = vec![destination(EVENT, None), destination(GENERATE, None)];
    service.put(Rule { destinations, ..rule("bosses", 5, "game.*") }, None).await.unwrap();
    let error = service.routed(None, "game.spawned", BOSS).await.unwrap_err();
    assert!(
        error.message().starts_with("the message does not fit `svc.quest.v1.generate` of rule `bosses`"),
        "{error}"
    );
    assert!(server.stored("EVENTS").await.is_empty() && keys.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bad_requests_say_what_is_accepted() {
    let server = server().await;
    let service = service(&server, &Fake::default()).await;
    let elsewhere = vec![destination("svc.payment.v1.charge", None)];
    let page = ListRulesRequest { limit: 201, ..ListRulesRequest::default() };
    for (outcome, because) in [
        (
            service.put(Rule { destinations: elsewhere, ..rule("a", 1, ">") }, None).await.map(drop),
            "must be one of svc.quest",
        ),
        (service.put(rule("a b", 1, ">"), None).await.map(drop), "rule id must be"),
        (service.list_rules(page).await.map(drop), "limit is 201, it must be 1 to 200"),
        (service.routed(None, "game.*", "").await.map(drop), "subject must be 1 to 128 bytes"),
        (service.routed(None, "game", "[]").await.map(drop), "payload is not a JSON object"),
    ] {
        let error = outcome.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains(because), "{error}");
    }
    let accepted = service.list_destinations(ListDestinationsRequest::default()).await.unwrap().destinations;
    assert!(accepted.iter().any(|it| it == GET) && accepted.iter().any(|it| it == EVENT), "{accepted:?}");
    assert!(!accepted.iter().any(|it| it.contains("payment")));
}

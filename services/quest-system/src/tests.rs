use std::time::Duration;

use futures::future::join_all;
use prost::Message as _;
use proto::quest::v1::{Generated, QuestState};
use sdk::testing::{NatsServer, Time, as_request};
use sdk::{Code, Event as _};

use super::*;

async fn events(server: &NatsServer) -> usize {
    server.stored_from(&["quests"], "EVENTS").await.len()
}

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("quests", 1).await;
    server.stream("EVENTS", &[Generated::SUBJECT]).await;
    server.outboxes(&["quests"], "EVENTS").await;
    server
}

async fn service(server: &NatsServer) -> Service {
    Service::new(server.fleet("quest-system").await).await.unwrap()
}

async fn service_at_a_time(server: &NatsServer) -> (Time, Service) {
    let time = Time::default();
    let fleet = server.fleet_at("quest-system", &time).await;
    (time, Service::new(fleet).await.unwrap())
}

/// Calls on behalf of player `p1`.
impl Service {
    async fn generated(&self, idempotency_key: Option<&str>, seed: u64) -> Result<QuestInfo, Error> {
        let request = GenerateRequest {
            player_id: "p1".to_owned(),
            level: 40,
            location: "forest".to_owned(),
            seed: Some(seed),
            ..GenerateRequest::default()
        };
        let answer = as_request(idempotency_key, Quest::generate(self, request)).await?;
        Ok(answer.quest.unwrap())
    }

    async fn got(&self, quest_id: &str) -> Result<QuestInfo, Error> {
        let request = GetRequest { player_id: "p1".to_owned(), quest_id: quest_id.to_owned(), ..GetRequest::default() };
        Ok(self.get(request).await?.quest.unwrap())
    }

    async fn ids(&self, state: QuestState) -> Vec<String> {
        let request = ListRequest { player_id: "p1".to_owned(), state: state.into(), ..ListRequest::default() };
        let quests = self.list(request).await.unwrap().quests;
        quests.into_iter().map(|quest| quest.id).collect()
    }

    async fn performed(
        &self,
        idempotency_key: Option<&str>,
        quest_id: &str,
        action: Action,
    ) -> Result<QuestInfo, Error> {
        let (player_id, quest_id) = ("p1".to_owned(), quest_id.to_owned());
        let handler = async {
            match action {
                Action::Accept => {
                    let request = AcceptRequest { player_id, quest_id, ..AcceptRequest::default() };
                    self.accept(request).await.map(|answer| answer.quest)
                }
                Action::Progress { objective, amount } => {
                    let request = ProgressRequest {
                        player_id,
                        quest_id,
                        objective_id: objective,
                        amount,
                        ..ProgressRequest::default()
                    };
                    self.progress(request).await.map(|answer| answer.quest)
                }
                Action::Complete => {
                    let request = CompleteRequest { player_id, quest_id, ..CompleteRequest::default() };
                    self.complete(request).await.map(|answer| answer.quest)
                }
                Action::Abandon => {
                    let request = AbandonRequest { player_id, quest_id, ..AbandonRequest::default() };
                    self.abandon(request).await.map(|answer| answer.quest)
                }
            }
        };
        Ok(as_request(idempotency_key, handler).await?.unwrap())
    }
}

fn progress(quest: &QuestInfo, objective: usize, amount: u32) -> Action {
    Action::Progress { objective: quest.objectives[objective].id.clone(), amount }
}

#[tokio::test]
async fn a_quest_is_generated_accepted_advanced_and_completed() {
    let server = server().await;
    let service = service(&server).await;
    let offered = service.generated(None, 1).await.unwrap();
    let id = offered.id.as_str();
    assert_eq!(offered.state(), QuestState::Offered);
    assert_eq!(service.got(id).await.unwrap(), offered);

    let accepted = service.performed(None, id, Action::Accept).await.unwrap();
    assert_eq!(accepted.state(), QuestState::Active);
    assert!(accepted.revision > offered.revision);

    let early = service.performed(None, id, Action::Complete).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    // An amount of 0 counts as 1.
    let advanced = service.performed(None, id, progress(&offered, 0, 0)).await.unwrap();
    assert_eq!(advanced.objectives[0].done, 1);
    for objective in 0..offered.objectives.len() {
        service.performed(None, id, progress(&offered, objective, 99)).await.unwrap();
    }
    let completed = service.performed(None, id, Action::Complete).await.unwrap();
    assert_eq!(completed.state(), QuestState::Completed);
    assert_eq!(service.got(id).await.unwrap(), completed);

    let error = service.performed(None, id, Action::Abandon).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(events(&server).await, 1);
}

#[tokio::test]
async fn a_retried_generation_returns_the_same_quest_with_one_event() {
    let server = server().await;
    let service = service(&server).await;
    let first = service.generated(Some("k"), 1).await.unwrap();
    assert_eq!(service.generated(Some("k"), 1).await.unwrap(), first);
    let accepted = service.performed(None, &first.id, Action::Accept).await.unwrap();
    assert_eq!(service.generated(Some("k"), 1).await.unwrap(), accepted);

    let other = service.generated(None, 1).await.unwrap();
    assert_ne!(other.id, first.id);
    assert_eq!(events(&server).await, 2);
}

#[tokio::test]
async fn concurrent_retries_generate_one_quest() {
    let server = server().await;
    let services = [service(&server).await, service(&server).await];
    let quests = join_all((0..10).map(|number| services[number % 2].generated(Some("k"), 1))).await;
    let first = quests[0].clone().unwrap();
    for quest in quests {
        assert_eq!(quest.unwrap(), first);
    }
    assert_eq!(services[0].ids(QuestState::Unspecified).await, [first.id]);
    assert_eq!(events(&server).await, 1);
}

#[tokio::test]
async fn the_event_of_a_quest_says_what_it_is() {
    let server = server().await;
    let quest = service(&server).await.generated(Some("k"), 1).await.unwrap();
    let stored = server.stored_from(&["quests"], "EVENTS").await;
    let event = Generated::decode(stored[0].payload.clone()).unwrap();
    let meta = event.meta.clone().unwrap();
    assert_eq!((stored[0].subject.as_str(), meta.idempotency_key.as_str()), (Generated::SUBJECT, "k"));
    assert_eq!((event.player_id, event.quest_id, event.template), ("p1".to_owned(), quest.id, quest.template));
}

#[tokio::test]
async fn a_retried_action_counts_once() {
    let server = server().await;
    let service = service(&server).await;
    let quest = service.generated(None, 1).await.unwrap();
    for _ in 0..2 {
        let accepted = service.performed(Some("k"), &quest.id, Action::Accept).await.unwrap();
        assert_eq!(accepted.state(), QuestState::Active);
    }
    for _ in 0..2 {
        let advanced = service.performed(Some("another"), &quest.id, progress(&quest, 0, 1)).await.unwrap();
        assert_eq!(advanced.objectives[0].done, 1);
    }
}

#[tokio::test]
async fn concurrent_progress_is_all_counted() {
    let server = server().await;
    let services = [service(&server).await, service(&server).await];
    let mut quest = services[0].generated(None, 0).await.unwrap();
    for seed in 1..20 {
        if quest.objectives[0].required >= 6 {
            break;
        }
        quest = services[0].generated(None, seed).await.unwrap();
    }
    assert!(quest.objectives[0].required >= 6, "{quest:?}");
    services[0].performed(None, &quest.id, Action::Accept).await.unwrap();
    let calls = (0..6).map(|number| services[number % 2].performed(None, &quest.id, progress(&quest, 0, 1)));
    for result in join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(services[0].got(&quest.id).await.unwrap().objectives[0].done, 6);
}

#[tokio::test]
async fn a_player_has_twenty_open_quests_at_most() {
    let server = server().await;
    let service = service(&server).await;
    let mut pairs = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let quest = service.generated(Some(&format!("k{seed}")), seed).await.unwrap();
        assert!(pairs.insert((quest.template, quest.objectives[0].id.clone())));
    }
    let error = service.generated(None, 20).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    // A retry does not count as another quest.
    let first = service.generated(Some("k0"), 0).await.unwrap();

    service.performed(None, &first.id, Action::Abandon).await.unwrap();
    let newest = service.generated(None, 20).await.unwrap();
    let all = service.ids(QuestState::Unspecified).await;
    assert_eq!((all.len(), &all[0]), (21, &newest.id));
    assert_eq!(service.ids(QuestState::Offered).await.len(), 20);
    assert_eq!(service.ids(QuestState::Abandoned).await, [first.id]);
    assert_eq!(events(&server).await, 21);
}

#[tokio::test]
async fn a_quest_expires_without_being_read() {
    let server = server().await;
    let (time, service) = service_at_a_time(&server).await;
    let quest = service.generated(None, 1).await.unwrap();
    time.pass(Duration::from_secs(30 * 86_400));

    assert_eq!(service.got(&quest.id).await.unwrap().state(), QuestState::Expired);
    assert_eq!(service.ids(QuestState::Expired).await, [quest.id.as_str()]);
    let error = service.performed(None, &quest.id, Action::Accept).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(error.detail("state"), Some("expired"));
}

#[tokio::test]
async fn missing_quests_are_not_found() {
    let server = server().await;
    let service = service(&server).await;
    assert_eq!(service.got("q1").await.unwrap_err().code(), Code::NotFound);
    let error = service.performed(None, "q1", Action::Accept).await.unwrap_err();
    assert_eq!(error.message(), "quest `q1` of player `p1` does not exist");
    assert!(service.ids(QuestState::Unspecified).await.is_empty());

    let unknown = ListRequest { player_id: "p1".to_owned(), state: 9, ..ListRequest::default() };
    assert_eq!(service.list(unknown).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_unreadable_quest_hides_no_other() {
    let server = server().await;
    let service = service(&server).await;
    let quest = service.generated(None, 1).await.unwrap();
    service.quests.bucket().put("p1.broken", b"\xff".as_slice().into()).await.unwrap();

    assert_eq!(service.ids(QuestState::Unspecified).await, [quest.id]);
    service.generated(None, 2).await.unwrap();
    assert_eq!(service.got("broken").await.unwrap_err().code(), Code::DataLoss);
}

#[tokio::test]
async fn a_key_with_another_request_is_refused_and_changes_nothing() {
    let server = server().await;
    let service = service(&server).await;
    let quest = service.generated(Some("k"), 1).await.unwrap();
    let accepted = service.performed(Some("l"), &quest.id, Action::Accept).await.unwrap();
    let errors = [
        service.generated(Some("k"), 2).await.unwrap_err(),
        service.performed(Some("k"), &quest.id, Action::Abandon).await.unwrap_err(),
        service.performed(Some("l"), &quest.id, Action::Abandon).await.unwrap_err(),
        service.performed(Some("l"), &quest.id, progress(&quest, 0, 1)).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.code(), error.detail("reason")), (Code::FailedPrecondition, Some("idempotency_key_reused")));
    }
    assert_eq!(service.got(&quest.id).await.unwrap(), accepted);
    assert_eq!(events(&server).await, 1);
}

#[tokio::test]
async fn a_repeat_at_any_later_time_is_the_same_quest_with_one_event() {
    let server = server().await;
    let (time, service) = service_at_a_time(&server).await;
    let quest = service.generated(Some("k"), 1).await.unwrap();
    for seconds in [135, 599, 700] {
        time.set(Duration::from_secs(seconds));
        assert_eq!(service.generated(Some("k"), 1).await.unwrap(), quest);
    }
    assert_eq!(events(&server).await, 1);
}

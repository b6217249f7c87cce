use futures::future::join_all;
use sdk::Code;
use sdk::testing::{NatsServer, as_request};

use super::*;
use crate::testing::arc;

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("arcs", 1).await;
    server.bucket("progress", 1).await;
    server
}

async fn service(server: &NatsServer) -> Service {
    let service = Service::new(server.fleet("story-teller").await).await.unwrap();
    service.put(arc("vault", &["start: take>start+key open>end?key", "end."])).await.unwrap();
    service
}

impl Service {
    async fn put(&self, arc: Arc) -> Result<Arc, Error> {
        let request = PutArcRequest { meta: None, arc: Some(arc) };
        Ok(as_request(None, self.put_arc(request)).await?.arc.unwrap())
    }

    async fn started(&self, arc_id: &str) -> Result<Scene, Error> {
        let request = StartRequest { meta: None, player_id: "p1".to_owned(), arc_id: arc_id.to_owned() };
        Ok(as_request(None, self.start(request)).await?.scene.unwrap())
    }

    async fn chosen(&self, key: Option<&str>, choice: &str) -> Result<Scene, Error> {
        let (player_id, arc_id) = ("p1".to_owned(), "vault".to_owned());
        let request = AdvanceRequest { meta: None, player_id, arc_id, choice_id: choice.to_owned() };
        Ok(as_request(key, self.advance(request)).await?.scene.unwrap())
    }

    async fn told(&self) -> Vec<String> {
        let request = RecapRequest { meta: None, player_id: "p1".to_owned(), arc_id: "vault".to_owned() };
        let passed = self.recap(request).await.unwrap().passed;
        passed.into_iter().map(|passed| format!("{}/{}", passed.beat_id, passed.choice_id)).collect()
    }
}

#[tokio::test]
async fn a_story_is_told_to_its_end_by_any_task_and_after_a_restart() {
    let server = server().await;
    let one = service(&server).await;
    assert_eq!(one.started("vault").await.unwrap().beat_id, "start");
    one.chosen(None, "take").await.unwrap();
    drop(one);
    let other = service(&server).await;
    let request = ChoicesRequest { meta: None, player_id: "p1".to_owned(), arc_id: "vault".to_owned() };
    let scene = other.choices(request).await.unwrap().scene.unwrap();
    assert_eq!((scene.flags, scene.choices.len()), (vec!["key".to_owned()], 2));
    assert!(other.chosen(None, "open").await.unwrap().has_ended);
    assert_eq!(other.told().await, ["start/take", "start/open", "end/"]);
    assert_eq!(other.started("vault").await.unwrap().beat_id, "start");
}

#[tokio::test]
async fn a_repeated_choice_is_taken_once_whichever_task_gets_it() {
    let server = server().await;
    let services = [service(&server).await, service(&server).await];
    services[0].started("vault").await.unwrap();
    let same = join_all((0..8).map(|number| services[number % 2].chosen(Some("k"), "take"))).await;
    assert!(same.into_iter().all(|scene| scene.is_ok()));
    assert_eq!(services[1].told().await, ["start/take", "start/"]);
}

#[tokio::test]
async fn who_has_started_an_arc_goes_on_with_what_it_was_then() {
    let server = server().await;
    let service = service(&server).await;
    service.started("vault").await.unwrap();
    service.put(arc("vault", &["lobby: leave>street", "street."])).await.unwrap();
    assert_eq!(service.chosen(None, "take").await.unwrap().beat_id, "start");
    service.chosen(None, "open").await.unwrap();
    assert_eq!(service.started("vault").await.unwrap().beat_id, "lobby");
    let listed = service.list_arcs(ListArcsRequest::default()).await.unwrap().arcs;
    assert_eq!((listed.len(), listed[0].beats.len()), (1, 0));
}

#[tokio::test]
async fn bad_requests_say_what_is_accepted() {
    let server = server().await;
    let service = service(&server).await;
    let refused = |error: Error, code: Code, because: &str| {
        assert!(error.code() == code && error.message().contains(because), "{error}");
    };
    let stuck = arc("stuck", &["start: on>hole", "hole:"]);
    refused(service.put(stuck).await.unwrap_err(), Code::FailedPrecondition, "beat `hole` is a dead end");
    refused(service.put(arc("a.b", &["end."])).await.unwrap_err(), Code::InvalidArgument, "arc id must be");
    refused(service.started("stuck").await.unwrap_err(), Code::NotFound, "arc `stuck` does not exist");
    refused(service.chosen(None, "take").await.unwrap_err(), Code::NotFound, "the progress of player `p1`");
    service.started("vault").await.unwrap();
    refused(service.started("vault").await.unwrap_err(), Code::AlreadyExists, "is at beat `start`");
    refused(service.chosen(None, "open").await.unwrap_err(), Code::FailedPrecondition, "`open` cannot be chosen");
}

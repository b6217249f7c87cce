use std::time::Duration;

use futures::future::join_all;
use proto::settings::v1::value::Kind;
use proto::settings::v1::{Source, Value};
use sdk::Code;
use sdk::testing::{NatsServer, as_request};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(20);

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("definitions", 1).await;
    server.bucket("values", 1).await;
    server
}

/// A service with the settings `audio.volume` of players, 0 to 10, and `world.pvp` for all.
async fn service(server: &NatsServer) -> Service {
    let service = Service::new(server.fleet("settings").await).await.unwrap();
    let volume = Definition { minimum: Some(0.0), maximum: Some(10.0), ..definition("audio.volume", Scope::Player) };
    service.defined(volume).await.unwrap();
    let pvp = Definition { default_value: value(Kind::Flag(false)), ..definition("world.pvp", Scope::Global) };
    service.defined(pvp).await.unwrap();
    service
}

fn value(kind: Kind) -> Option<Value> {
    Some(Value { kind: Some(kind) })
}

fn definition(key: &str, scope: Scope) -> Definition {
    let (key, default_value) = (key.to_owned(), value(Kind::Integer(7)));
    Definition { key, scope: scope.into(), default_value, ..Definition::default() }
}

impl Service {
    async fn defined(&self, definition: Definition) -> Result<Definition, Error> {
        let request = DefineRequest { meta: None, definition: Some(definition) };
        Ok(as_request(None, self.define(request)).await?.definition.unwrap())
    }

    async fn set_to(
        &self,
        player: &str,
        key: &str,
        kind: Kind,
        expected_revision: Option<u64>,
    ) -> Result<Setting, Error> {
        let (key, player_id) = (key.to_owned(), player.to_owned());
        let request = SetRequest { meta: None, key, player_id, value: value(kind), expected_revision };
        Ok(as_request(None, self.set(request)).await?.setting.unwrap())
    }

    async fn volume(&self, player: &str) -> (i64, Source) {
        let request = GetRequest { meta: None, key: "audio.volume".to_owned(), player_id: player.to_owned() };
        let setting = self.get(request).await.unwrap().setting.unwrap();
        seen(&setting)
    }
}

fn seen(setting: &Setting) -> (i64, Source) {
    match setting.value.as_ref().unwrap().kind {
        Some(Kind::Integer(value)) => (value, setting.source()),
        ref other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, code: Code, because: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(because), "{error}");
}

#[tokio::test]
async fn the_players_value_holds_before_the_global_one_and_that_before_the_default() {
    let server = server().await;
    let services = [service(&server).await, service(&server).await];
    assert_eq!(services[0].volume("p1").await, (7, Source::Default));
    services[0].set_to("", "audio.volume", Kind::Integer(5), None).await.unwrap();
    services[1].set_to("p1", "audio.volume", Kind::Integer(2), None).await.unwrap();
    assert_eq!(services[1].volume("p1").await, (2, Source::Player));
    assert_eq!(services[1].volume("p2").await, (5, Source::Global));

    let list = ListRequest { meta: None, player_id: "p1".to_owned() };
    let listed = services[0].list(list).await.unwrap().settings;
    assert_eq!(
        listed.iter().map(|it| (&*it.key, it.source())).collect::<Vec<_>>(),
        [("audio.volume", Source::Player), ("world.pvp", Source::Default)]
    );
    for _ in 0..2 {
        let request = ResetRequest { meta: None, key: "audio.volume".to_owned(), player_id: "p1".to_owned() };
        let setting = as_request(None, services[0].reset(request)).await.unwrap().setting.unwrap();
        assert_eq!(seen(&setting), (5, Source::Global));
    }
}

#[tokio::test]
async fn what_a_definition_refuses_is_not_stored() {
    let server = server().await;
    let service = service(&server).await;
    let set = |player, key, kind| service.set_to(player, key, kind, None);
    refused(set("p1", "audio.volume", Kind::Integer(11)).await, Code::InvalidArgument, "it must be 0 to 10");
    refused(set("p1", "world.pvp", Kind::Flag(true)).await, Code::InvalidArgument, "one value for all");
    refused(set("p1", "no.such", Kind::Flag(true)).await, Code::NotFound, "setting `no.such` does not exist");
    refused(set("p.1", "audio.volume", Kind::Integer(1)).await, Code::InvalidArgument, "player_id must be");
    refused(set("", "audio..volume", Kind::Integer(1)).await, Code::InvalidArgument, "key must be");
    assert_eq!(service.volume("p1").await, (7, Source::Default));
    let text = Definition { default_value: value(Kind::Flag(true)), ..definition("audio.volume", Scope::Player) };
    refused(service.defined(text).await, Code::FailedPrecondition, "cannot become a flag");
}

#[tokio::test]
async fn a_value_that_a_new_definition_refuses_does_not_hold_and_says_why() {
    let server = server().await;
    let service = service(&server).await;
    service.set_to("p1", "audio.volume", Kind::Integer(9), None).await.unwrap();
    service.defined(Definition { maximum: Some(8.0), ..definition("audio.volume", Scope::Player) }).await.unwrap();
    let request = GetRequest { meta: None, key: "audio.volume".to_owned(), player_id: "p1".to_owned() };
    let setting = service.get(request).await.unwrap().setting.unwrap();
    assert_eq!(seen(&setting), (7, Source::Default));
    assert!(setting.refused.contains("is 9"), "{}", setting.refused);
}

#[tokio::test]
async fn of_two_writers_at_one_revision_one_wins() {
    let server = server().await;
    let services = [service(&server).await, service(&server).await];
    let writes = services
        .iter()
        .zip([1, 2])
        .map(|(service, volume)| service.set_to("p1", "audio.volume", Kind::Integer(volume), Some(0)));
    let (done, failed): (Vec<_>, Vec<_>) = join_all(writes).await.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), failed.len()), (1, 1));
    let error = failed.into_iter().next().unwrap().unwrap_err();
    let revision = done[0].as_ref().unwrap().revision.to_string();
    assert_eq!((error.code(), error.detail("current_revision")), (Code::Aborted, Some(&*revision)));
}

#[tokio::test]
async fn changes_are_watched() {
    let server = server().await;
    let services = [service(&server).await, service(&server).await];
    services[0].set_to("", "audio.volume", Kind::Integer(5), None).await.unwrap();
    let request = WatchRequest { meta: None, player_id: "p1".to_owned() };
    let mut watched = services[1].watch(request).await.unwrap();
    let mut next = async || {
        let item = timeout(SOON, watched.next()).await.expect("a change").unwrap().unwrap();
        seen(&item.setting.unwrap())
    };
    assert_eq!(next().await, (5, Source::Global));
    services[0].set_to("p1", "audio.volume", Kind::Integer(2), None).await.unwrap();
    assert_eq!(next().await, (2, Source::Player));
    services[0].set_to("p2", "audio.volume", Kind::Integer(1), None).await.unwrap();
    let request = ResetRequest { meta: None, key: "audio.volume".to_owned(), player_id: "p1".to_owned() };
    as_request(None, services[0].reset(request)).await.unwrap();
    assert_eq!(next().await, (5, Source::Global));
}

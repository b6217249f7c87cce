//! The service against a real nats-server.

use futures::future::join_all;
use prost::Message as _;
use proto::world::region::v1::Changed;
use proto::world::state::v1::Box as Bounds;
use sdk::Event as _;
use sdk::testing::{NatsServer, as_request};

use super::*;
use crate::entity::tests::entity;
use crate::place::tests::{point, region};

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("world_regions", 1).await;
    server.bucket("world_entities", 1).await;
    server.stream("EVENTS", &[Changed::SUBJECT]).await;
    server.outboxes(&["world_regions", "world_entities"], "EVENTS").await;
    server
}

/// A service with two regions, `r` and `s`.
async fn service(server: &NatsServer) -> Service {
    let service = Service::new(server.fleet("world-state").await).await.unwrap();
    for id in ["r", "s"] {
        let put = PutRegionRequest { region: Some(region(id)), ..Default::default() };
        as_request(Some(id), service.put_region(put)).await.unwrap();
    }
    service
}

/// What happened to entities and regions, in order.
async fn events(server: &NatsServer) -> Vec<(String, Change, String)> {
    let stored = server.stored_from(&["world_regions", "world_entities"], "EVENTS").await;
    let events = stored.into_iter().map(|stored| Changed::decode(stored.payload).unwrap());
    events.map(|event| (event.region_id.clone(), event.change(), event.entity_id)).collect()
}

impl Service {
    async fn upserted(
        &self,
        idempotency_key: Option<&str>,
        entity: Entity,
        expected: Option<u64>,
    ) -> Result<Entity, Error> {
        let request = UpsertEntityRequest { entity: Some(entity), expected_revision: expected, ..Default::default() };
        Ok(as_request(idempotency_key, self.upsert_entity(request)).await?.entity.unwrap())
    }

    async fn moved(&self, idempotency_key: &str, from: &str, to: &str, x: f64) -> Result<Entity, Error> {
        let request = MoveEntityRequest {
            region_id: from.to_owned(),
            entity_id: "e".to_owned(),
            to_region_id: to.to_owned(),
            position: Some(point(x, 0.0)),
            ..Default::default()
        };
        Ok(as_request(Some(idempotency_key), self.move_entity(request)).await?.entity.unwrap())
    }

    async fn removed(&self, region: &str, id: &str) -> Option<Entity> {
        let request =
            RemoveEntityRequest { region_id: region.to_owned(), entity_id: id.to_owned(), ..Default::default() };
        as_request(None, self.remove_entity(request)).await.unwrap().entity
    }

    /// The ids in a region, and the revision.
    async fn snapshot_of(&self, region: &str) -> (Vec<String>, u64) {
        let request = SnapshotRequest { region_id: region.to_owned(), ..Default::default() };
        let messages: Vec<_> = self.snapshot(request).await.unwrap().try_collect().await.unwrap();
        assert!(messages[0].region.is_some() && messages.iter().skip(1).all(|message| message.region.is_none()));
        let revision = messages[0].revision;
        (messages.into_iter().flat_map(|message| message.entities).map(|entity| entity.id).collect(), revision)
    }

    async fn deltas_since(&self, revision: u64) -> Vec<(String, bool)> {
        let request = DeltasRequest { region_id: "r".to_owned(), since_revision: revision, ..Default::default() };
        let deltas: Vec<_> = self.deltas(request).await.unwrap().try_collect().await.unwrap();
        deltas.into_iter().map(|delta| (delta.entity_id, delta.entity.is_some())).collect()
    }

    async fn near(&self, region: &str, x: f64, radius: f64) -> Vec<String> {
        let center = Some(point(x, 0.0));
        let request = WithinRadiusRequest { region_id: region.to_owned(), center, radius, ..Default::default() };
        let found = self.within_radius(request).await.unwrap().neighbors;
        found.into_iter().map(|neighbor| neighbor.entity.unwrap().id).collect()
    }
}

#[tokio::test]
async fn entities_are_upserted_found_and_removed() {
    let server = server().await;
    let service = service(&server).await;
    let first = service.upserted(None, entity("r", "a", 1.0, 0.0), None).await.unwrap();
    service.upserted(None, entity("r", "b", 5.0, 0.0), Some(0)).await.unwrap();
    assert_eq!(service.near("r", 0.0, 10.0).await, ["a", "b"]);
    let walked = service.upserted(None, entity("r", "a", 9.0, 0.0), Some(first.revision)).await.unwrap();
    assert!(walked.revision > first.revision);
    assert_eq!(service.near("r", 10.0, 2.0).await, ["a"]);

    let corners = Bounds { min: Some(point(0.0, 0.0)), max: Some(point(8.0, 8.0)) };
    let within = WithinBoxRequest { region_id: "r".to_owned(), r#box: Some(corners), ..Default::default() };
    let found = service.within_box(within).await.unwrap().entities;
    assert_eq!(found.iter().map(|entity| &*entity.id).collect::<Vec<_>>(), ["b"]);
    assert_eq!(service.removed("r", "a").await.unwrap(), walked);
    assert_eq!(service.removed("r", "a").await, None);

    let r = |change: Change, id: &str| ("r".to_owned(), change, id.to_owned());
    let of_entities: Vec<_> = events(&server).await.into_iter().filter(|event| !event.2.is_empty()).collect();
    let (entered, left) = (Change::EntityEntered, Change::EntityLeft);
    assert_eq!(of_entities, [r(entered, "a"), r(entered, "b"), r(left, "a")]);
}

#[tokio::test]
async fn an_entity_is_in_one_region_whoever_moves_it() {
    let server = server().await;
    let services = [service(&server).await, service(&server).await];
    services[0].upserted(None, entity("r", "e", 1.0, 0.0), None).await.unwrap();
    // Each move twice, by two tasks at once.
    let moves = (0..8).map(|number| {
        let (service, key) = (&services[number % 2], format!("k{}", number / 2));
        let (from, to) = [("r", "s"), ("s", "r")][number / 2 % 2];
        async move { service.moved(&key, from, to, number as f64).await }
    });
    let outcomes = join_all(moves).await;
    assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    let (in_r, in_s) = (services[0].snapshot_of("r").await.0, services[0].snapshot_of("s").await.0);
    assert_eq!(in_r.len() + in_s.len(), 1, "{in_r:?} and {in_s:?}");

    let events = events(&server).await;
    let count = |change: Change| events.iter().filter(|event| event.1 == change).count();
    assert_eq!(count(Change::EntityEntered), count(Change::EntityLeft) + 1);
}

#[tokio::test]
async fn an_entity_moves_within_its_region_and_not_onto_another() {
    let server = server().await;
    let service = service(&server).await;
    let code = |outcome: Result<Entity, Error>| outcome.unwrap_err().code();
    assert_eq!(code(service.moved("k1", "r", "s", 1.0).await), Code::NotFound);
    service.upserted(None, entity("r", "e", 1.0, 0.0), None).await.unwrap();
    assert_eq!(service.moved("k2", "r", "r", 7.0).await.unwrap().position, Some(point(7.0, 0.0)));
    service.upserted(None, entity("s", "e", 1.0, 0.0), None).await.unwrap();
    assert_eq!(code(service.moved("k3", "r", "s", 1.0).await), Code::AlreadyExists);
    assert_eq!(code(service.moved("k4", "r", "s", 101.0).await), Code::OutOfRange);
    assert_eq!(code(service.moved("k5", "r", "t", 1.0).await), Code::NotFound);
}

#[tokio::test]
async fn deltas_go_on_where_a_snapshot_ends() {
    let server = server().await;
    let service = service(&server).await;
    for number in 0..450 {
        let id = format!("e{number:03}");
        service.entities.create(&EntityKey::new("r", &id).unwrap(), &entity("r", &id, 1.0, 1.0)).await.unwrap();
    }
    let (ids, revision) = service.snapshot_of("r").await;
    assert_eq!((ids.len(), &*ids[449]), (450, "e449"));
    assert_eq!(service.deltas_since(revision).await, []);

    service.upserted(None, entity("r", "new", 1.0, 1.0), None).await.unwrap();
    service.upserted(None, entity("s", "elsewhere", 1.0, 1.0), None).await.unwrap();
    service.removed("r", "e007").await;
    assert_eq!(service.deltas_since(revision).await, [("new".to_owned(), true), ("e007".to_owned(), false)]);
    assert_eq!(service.deltas_since(0).await.len(), 451);

    let request =
        DeltasRequest { region_id: "r".to_owned(), since_revision: revision, follow: true, ..Default::default() };
    let mut followed = service.deltas(request).await.unwrap();
    for expected in ["new", "e007", "late"] {
        if expected == "late" {
            service.upserted(None, entity("r", "late", 1.0, 1.0), None).await.unwrap();
        }
        assert_eq!(followed.next().await.unwrap().unwrap().entity_id, expected);
    }
    let future = DeltasRequest { region_id: "r".to_owned(), since_revision: 1_000_000, ..Default::default() };
    let error = service.deltas(future).await.err().unwrap();
    assert_eq!(error.code(), Code::OutOfRange);
    assert!(error.message().ends_with("take a new snapshot"), "{error}");
}

#[tokio::test]
async fn a_repeated_upsert_is_applied_once_and_an_outdated_one_is_refused() {
    let server = server().await;
    let services = [service(&server).await, service(&server).await];
    let upserts = (0..6).map(|number| services[number % 2].upserted(Some("k"), entity("r", "e", 1.0, 0.0), None));
    let upserted: Vec<_> = join_all(upserts).await.into_iter().map(Result::unwrap).collect();
    assert!(upserted.iter().all(|entity| *entity == upserted[0]));
    services[0].upserted(None, entity("r", "e", 2.0, 0.0), None).await.unwrap();
    assert_eq!(
        services[1].upserted(Some("k"), entity("r", "e", 1.0, 0.0), None).await.unwrap().position,
        Some(point(2.0, 0.0))
    );

    let error = services[1].upserted(None, entity("r", "e", 3.0, 0.0), Some(upserted[0].revision)).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert!(error.detail("current_revision").is_some());
    let error = services[1].upserted(Some("k"), entity("r", "e", 4.0, 0.0), None).await.unwrap_err();
    assert_eq!(error.detail("reason"), Some("idempotency_key_reused"));
}

#[tokio::test]
async fn regions_are_listed_and_removed_when_they_are_empty() {
    let server = server().await;
    let service = service(&server).await;
    service.upserted(None, entity("r", "e", 1.0, 0.0), None).await.unwrap();
    let remove = async |id: &str| {
        let request = RemoveRegionRequest { region_id: id.to_owned(), ..Default::default() };
        as_request(None, service.remove_region(request)).await
    };
    let error = remove("r").await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::FailedPrecondition, "region `r` has 1 entities, remove them first")
    );
    service.removed("r", "e").await.unwrap();
    assert_eq!(remove("r").await.unwrap().region.unwrap().id, "r");
    assert_eq!(remove("r").await.unwrap().region, None);

    let listed = service.list_regions(ListRegionsRequest::default()).await.unwrap().regions;
    assert_eq!(listed.iter().map(|region| &*region.id).collect::<Vec<_>>(), ["s"]);
    let page = ListRegionsRequest { after_id: "s".to_owned(), ..Default::default() };
    assert_eq!(service.list_regions(page).await.unwrap().regions, []);
    let get = GetRegionRequest { region_id: "r".to_owned(), ..Default::default() };
    assert_eq!(service.get_region(get).await.unwrap_err().message(), "region `r` does not exist");
    let error = service.upserted(None, entity("r", "e", 1.0, 0.0), None).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn searches_out_of_bounds_are_refused() {
    let server = server().await;
    let service = service(&server).await;
    let search = WithinRadiusRequest { region_id: "r".to_owned(), center: Some(point(0.0, 0.0)), ..Default::default() };
    let refused =
        async |request: WithinRadiusRequest| service.within_radius(request).await.unwrap_err().message().to_owned();
    let far = refused(WithinRadiusRequest { radius: -1.0, ..search.clone() }).await;
    assert_eq!(far, "radius is -1, it must be 0 to 4000000");
    let many = refused(WithinRadiusRequest { limit: 201, ..search.clone() }).await;
    assert_eq!(many, "limit is 201, it must be 1 to 200");
    let nowhere = refused(WithinRadiusRequest { center: None, ..search }).await;
    assert_eq!(nowhere, "center is missing");
}

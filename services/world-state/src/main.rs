//! Keeps the game's regions, and the entities in them with their positions. Both are records; each worker keeps an index of the
//! positions of all entities.

mod entity;
mod index;
mod place;

use futures::{StreamExt as _, TryStreamExt as _};
use proto::world::region::v1::Change;
use proto::world::state::v1::{
    DeltasRequest, DeltasResponse, Entity, GetRegionRequest, GetRegionResponse, ListRegionsRequest,
    ListRegionsResponse, MoveEntityRequest, MoveEntityResponse, PutRegionRequest, PutRegionResponse, Region,
    RemoveEntityRequest, RemoveEntityResponse, RemoveRegionRequest, RemoveRegionResponse, SnapshotRequest,
    SnapshotResponse, UpsertEntityRequest, UpsertEntityResponse, WithinBoxRequest, WithinBoxResponse,
    WithinRadiusRequest, WithinRadiusResponse, WorldState, WorldStateServer,
};
use sdk::{
    Code, Error, Fleet, Followed, Id, Next, Operation, Records, Stored, Stream, Update, check_range, check_range_or,
    check_revision,
};

use crate::entity::EntityKey;
use crate::index::Index;
use crate::place::{checked_box, checked_point, region_key};

const MAX_REGIONS: usize = 1_000;
const MAX_ENTITIES: usize = 50_000;
const MAX_ENTITIES_OF_REGION: usize = 5_000;
/// Entities in one message, of at most 2.7 KiB each.
const MAX_PAGE: u32 = 200;
const DEFAULT_FOUND: u32 = 100;
const MAX_RADIUS: f64 = 4_000_000.0;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(WorldStateServer).run()
}

struct Service {
    regions: Records<Region>,
    entities: Records<Entity>,
    index: Followed<Index>,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let (regions, entities) = (fleet.records("world_regions").await?, fleet.records("world_entities").await?);
        let index = entities.follow(Index::default()).await?;
        Ok(Self { regions, entities, index })
    }

    async fn region(&self, id: &str) -> Result<(Id, Region), Error> {
        let key = region_key(id)?;
        let region = self.regions.get(&key).await?.value;
        Ok((key, region))
    }

    /// Rejects another entity where there are too many.
    fn check_room(&self, region_id: &str) -> Result<(), Error> {
        let index = self.index.read();
        let counts = [
            (index.count_in(region_id), MAX_ENTITIES_OF_REGION, format!("region `{region_id}`")),
            (index.count(), MAX_ENTITIES, "the world".to_owned()),
        ];
        match counts.into_iter().find(|(count, max, _)| count >= max) {
            Some((count, max, place)) => {
                Err(Error::failed_precondition(format_args!("{place} has {count} entities, at most {max} are allowed")))
            }
            None => Ok(()),
        }
    }

    fn wrote(&self, entity: Stored<Entity>) -> Entity {
        self.index.wrote(entity.clone().into());
        entity.value
    }
}

impl WorldState for Service {
    async fn put_region(&self, request: PutRegionRequest) -> Result<PutRegionResponse, Error> {
        let operation = Operation::of(&request);
        let region = place::checked_region(request.region)?;
        let key = region_key(&region.id)?;
        let is_full = self.regions.find(&key).await?.is_none() && self.regions.list(">").await?.len() >= MAX_REGIONS;
        let put = |current: Option<&Stored<Region>>| match current {
            None if is_full => Err(Error::failed_precondition(format_args!("there are {MAX_REGIONS} regions already"))),
            Some(current) if place::is_described_as(&current.value, &region) => Ok(Next::write(region.clone())),
            _ => Ok(Next::write(region.clone()).and_publish(place::event(&region.id, Change::RegionPut))),
        };
        Ok(self.regions.change(&key, &operation, put).await?.value.into())
    }

    async fn get_region(&self, request: GetRegionRequest) -> Result<GetRegionResponse, Error> {
        Ok(self.region(&request.region_id).await?.1.into())
    }

    async fn list_regions(&self, request: ListRegionsRequest) -> Result<ListRegionsResponse, Error> {
        let limit = limit(request.limit, MAX_PAGE)?;
        let regions = self.regions.list(">").await?.into_iter().map(|region| region.value);
        Ok(regions.filter(|region| region.id > request.after_id).take(limit).collect::<Vec<_>>().into())
    }

    async fn remove_region(&self, request: RemoveRegionRequest) -> Result<RemoveRegionResponse, Error> {
        let key = region_key(&request.region_id)?;
        let entities = self.entities.list(&format!("{}.*", key.as_str())).await?.len();
        let remove = |_: &Stored<Region>| match entities {
            0 => Ok(Next::delete().and_publish(place::event(key.as_str(), Change::RegionRemoved))),
            _ => Err(Error::failed_precondition(format_args!("{key} has {entities} entities, remove them first"))),
        };
        let removed = self.regions.change_existing(&key, &Operation::of(&request), remove).await?;
        Ok(RemoveRegionResponse { error: None, region: removed.map(|region| region.value) })
    }

    async fn upsert_entity(&self, request: UpsertEntityRequest) -> Result<UpsertEntityResponse, Error> {
        let operation = Operation::of(&request);
        let (key, entity, position) = entity::checked(request.entity)?;
        place::check_inside(&self.region(key.region_id()).await?.1, &position)?;
        let upsert = |current: Option<&Stored<Entity>>| {
            let current = current.map(|current| &current.value);
            check_revision(&key, current.map_or(0, |entity| entity.revision), request.expected_revision)?;
            if current.is_none() {
                self.check_room(key.region_id())?;
            }
            let next = Next::write(entity.clone());
            Ok(match entity::written(current, &entity) {
                Some(event) => next.and_publish(event),
                None => next,
            })
        };
        Ok(self.wrote(self.entities.change(&key, &operation, upsert).await?).into())
    }

    async fn move_entity(&self, request: MoveEntityRequest) -> Result<MoveEntityResponse, Error> {
        let operation = Operation::of(&request);
        let from = EntityKey::new(&request.region_id, &request.entity_id)?;
        let to = EntityKey::new(&request.to_region_id, &request.entity_id)?;
        let position = checked_point("position", request.position)?;
        place::check_inside(&self.region(to.region_id()).await?.1, &position)?;
        if from == to {
            let shift = |current: Option<&Stored<Entity>>| {
                let current = current.ok_or_else(|| Error::not_found(&from))?.value.clone();
                Ok(Next::write(Entity { position: Some(position), ..current }))
            };
            return Ok(self.wrote(self.entities.change(&from, &operation, shift).await?).into());
        }
        let keys = [&to, &from];
        let relocate = |current: &[Option<Stored<Entity>>]| {
            let [occupied, Some(current)] = current else { return Err(Error::not_found(&from)) };
            if occupied.is_some() {
                return Err(Error::new(Code::AlreadyExists, format!("{to} exists already")));
            }
            self.check_room(to.region_id())?;
            let (next, [entered, left]) = entity::moved(&current.value, &to, position);
            Ok(vec![Next::write(next).and_publish(entered), Next::delete().and_publish(left)])
        };
        let moved = self.entities.change_all(&keys, &operation, relocate).await?.into_iter().next().flatten();
        Ok(self.wrote(moved.ok_or_else(|| Error::not_found(&to))?).into())
    }

    async fn remove_entity(&self, request: RemoveEntityRequest) -> Result<RemoveEntityResponse, Error> {
        let key = EntityKey::new(&request.region_id, &request.entity_id)?;
        let remove = |current: &Stored<Entity>| Ok(Next::delete().and_publish(entity::removed(&current.value)));
        let removed = self.entities.change_existing(&key, &Operation::of(&request), remove).await?;
        Ok(RemoveEntityResponse { error: None, entity: removed.map(|entity| entity.value) })
    }

    async fn snapshot(&self, request: SnapshotRequest) -> Result<Stream<SnapshotResponse>, Error> {
        let (key, region) = self.region(&request.region_id).await?;
        let revision = self.entities.revision().await?;
        let entities = self.entities.list(&format!("{}.*", key.as_str())).await?;
        let entities: Vec<Entity> = entities.into_iter().map(|entity| entity.value).collect();
        let message =
            |entities: &[Entity]| SnapshotResponse { entities: entities.to_vec(), revision, ..Default::default() };
        let mut messages: Vec<_> = entities.chunks(MAX_PAGE as usize).map(message).collect();
        if messages.is_empty() {
            messages.push(message(&[]));
        }
        messages[0].region = Some(region);
        Ok(futures::stream::iter(messages.into_iter().map(Ok)).boxed())
    }

    async fn within_radius(&self, request: WithinRadiusRequest) -> Result<WithinRadiusResponse, Error> {
        let center = checked_point("center", request.center)?;
        let radius = check_range("radius", request.radius, 0.0..=MAX_RADIUS)?;
        let limit = found(&request.kind, request.limit)?;
        let (key, _) = self.region(&request.region_id).await?;
        let revision = self.index.revision();
        let (neighbors, truncated) =
            self.index.read().within_radius(key.as_str(), &center, radius, &request.kind, limit);
        Ok(WithinRadiusResponse { error: None, neighbors, truncated, revision })
    }

    async fn within_box(&self, request: WithinBoxRequest) -> Result<WithinBoxResponse, Error> {
        let corners = checked_box("box", request.r#box)?;
        let limit = found(&request.kind, request.limit)?;
        let (key, _) = self.region(&request.region_id).await?;
        let revision = self.index.revision();
        let (entities, truncated) = self.index.read().within_box(key.as_str(), &corners, &request.kind, limit);
        Ok(WithinBoxResponse { error: None, entities, truncated, revision })
    }

    async fn deltas(&self, request: DeltasRequest) -> Result<Stream<DeltasResponse>, Error> {
        let (key, _) = self.region(&request.region_id).await?;
        let latest = self.entities.revision().await?;
        if request.since_revision > latest {
            let message =
                format!("since_revision is {}, the latest is {latest}: take a new snapshot", request.since_revision);
            return Err(Error::new(Code::OutOfRange, message).with_detail("current_revision", latest));
        }
        let filter = format!("{}.*", key.as_str());
        let updates = match request.follow {
            true => self.entities.watch(&filter, request.since_revision),
            false => self.entities.changes_since(&filter, request.since_revision),
        };
        Ok(updates.map_ok(delta).boxed())
    }
}

fn delta(update: Update<Entity>) -> DeltasResponse {
    let (_, id) = update.key.split_once('.').unwrap_or_default();
    DeltasResponse {
        error: None,
        entity_id: id.to_owned(),
        entity: update.record.map(|entity| entity.value),
        revision: update.revision,
    }
}

/// How many entities a search returns at most.
fn found(kind: &str, requested: u32) -> Result<usize, Error> {
    if !kind.is_empty() {
        entity::check_kind(kind)?;
    }
    limit(requested, DEFAULT_FOUND)
}

fn limit(requested: u32, default: u32) -> Result<usize, Error> {
    Ok(check_range_or("limit", requested, 1..=MAX_PAGE, default)? as usize)
}

#[cfg(test)]
mod tests;

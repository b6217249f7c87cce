//! Stores the state of entities and players. Every change is a new revision, written by compare-and-set together with its
//! event.

mod patch;
mod record;
#[cfg(test)]
mod testing;
mod update;

use futures::future::join_all;
use proto::state::manager::v1::{
    BatchGetRequest, BatchGetResponse, GetRequest, GetResponse, HistoryRequest, HistoryResponse, Record, StateManager,
    StateManagerServer, StoredRecord, UpdateRequest, UpdateResponse,
};
use sdk::{Code, Error, Fleet, Next, Operation, Records, check_count, check_range};

use crate::record::{Kind, StateKey, entity_updated, player_updated, revision, shown};
use crate::update::Update;

const MAX_KEYS: usize = 100;
const MAX_HISTORY: u32 = 64;
const DEFAULT_HISTORY: u32 = 10;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(StateManagerServer).run()
}

struct Service {
    fleet: Fleet,
    entities: Records<StoredRecord>,
    players: Records<StoredRecord>,
}

impl StateManager for Service {
    async fn update(&self, request: UpdateRequest) -> Result<UpdateResponse, Error> {
        let operation = Operation::of(&request);
        let update = Update::new(request)?;
        let key = &update.key;
        let changed = self.records(key).change(key, &operation, |current| {
            let previous = current.map_or(0, |current| revision(&current.value));
            let next = update.apply(current, self.fleet.clock().now())?;
            Ok(match key.kind {
                Kind::Entity => Next::write(next.clone()).and_publish(entity_updated(key, &next, previous)),
                Kind::Player => Next::write(next.clone()).and_publish(player_updated(key, &next, previous)),
            })
        });
        Ok(shown(key, changed.await?.value).into())
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let key = StateKey::try_from(request.key)?;
        Ok(shown(&key, self.records(&key).get(&key).await?.value).into())
    }

    async fn batch_get(&self, request: BatchGetRequest) -> Result<BatchGetResponse, Error> {
        check_count("keys", request.keys.len(), MAX_KEYS)?;
        let keys: Vec<StateKey> = request.keys.into_iter().map(StateKey::try_from).collect::<Result<_, _>>()?;
        let found = join_all(keys.iter().map(|key| self.records(key).find(key))).await;
        let mut answer = BatchGetResponse::default();
        for (key, found) in keys.iter().zip(found) {
            match found {
                Ok(Some(stored)) => answer.records.push(shown(key, stored.value)),
                Ok(None) => answer.missing.push(key.into()),
                Err(error) if error.code() == Code::DataLoss => {
                    self.records(key).bucket().skip(&key.id, &error);
                    answer.unreadable.push(key.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(answer)
    }

    async fn history(&self, request: HistoryRequest) -> Result<HistoryResponse, Error> {
        let key = StateKey::try_from(request.key)?;
        let limit = match request.limit {
            0 => DEFAULT_HISTORY,
            limit => check_range("limit", limit, 1..=MAX_HISTORY)?,
        };
        let revisions = self.records(&key).history(&key, limit as usize).await?;
        if revisions.is_empty() {
            return Err(Error::not_found(&key));
        }
        let records: Vec<Record> = revisions.into_iter().map(|stored| shown(&key, stored.value)).collect();
        Ok(records.into())
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let entities = fleet.records(Kind::Entity.bucket()).await?;
        let players = fleet.records(Kind::Player.bucket()).await?;
        Ok(Self { fleet, entities, players })
    }

    fn records(&self, key: &StateKey) -> &Records<StoredRecord> {
        match key.kind {
            Kind::Entity => &self.entities,
            Kind::Player => &self.players,
        }
    }
}

#[cfg(test)]
mod tests;

//! Stores the state of entities and players. Every change is a new revision, written by compare-and-set together with its
//! event.

mod patch;
mod record;
#[cfg(test)]
mod testing;
mod update;

use std::process::ExitCode;

use futures::future::try_join_all;
use proto::state::manager::v1::{
    BatchGetRequest, BatchGetResponse, GetRequest, GetResponse, HistoryRequest, HistoryResponse, Record, StateManager,
    StateManagerServer, UpdateRequest, UpdateResponse,
};
use sdk::{Bucket, Change, Clock, Entry, Error, Fleet, WriteError};

use crate::record::{Kind, RecordKey, Revision, check_size};
use crate::update::{Decision, Update};

const MAX_KEYS: usize = 100;
const MAX_HISTORY: u32 = 64;
const DEFAULT_HISTORY: u32 = 10;

fn main() -> ExitCode {
    sdk::service(Service::new).serve(StateManagerServer).run()
}

struct Service {
    clock: Clock,
    entities: Bucket,
    players: Bucket,
}

impl StateManager for Service {
    async fn update(&self, request: UpdateRequest) -> Result<UpdateResponse, Error> {
        let update = Update::new(request)?;
        let written = self.write(&update).await?;
        Ok(UpdateResponse { record: Some(written.into()), ..UpdateResponse::default() })
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let key = RecordKey::try_from(request.key)?;
        let current = self.read(&key).await?.ok_or_else(|| Error::not_found(&key))?;
        Ok(GetResponse { record: Some(current.into()), ..GetResponse::default() })
    }

    async fn batch_get(&self, request: BatchGetRequest) -> Result<BatchGetResponse, Error> {
        let count = request.keys.len();
        if count > MAX_KEYS {
            return Err(Error::invalid(format_args!("request has {count} keys, at most {MAX_KEYS} are allowed")));
        }
        let keys: Vec<RecordKey> = request.keys.into_iter().map(RecordKey::try_from).collect::<Result<_, _>>()?;
        let found = try_join_all(keys.iter().map(|key| self.bucket(key).get(&key.id))).await?;
        let mut answer = BatchGetResponse::default();
        for (key, found) in keys.iter().zip(found) {
            match found.map(|entry| decode(key, &entry)) {
                Some(Ok(revision)) => answer.records.push(revision.into()),
                Some(Err(error)) => {
                    self.bucket(key).skip(&key.id, &error);
                    answer.unreadable.push(key.into());
                }
                None => answer.missing.push(key.into()),
            }
        }
        check_size(answer)
    }

    async fn history(&self, request: HistoryRequest) -> Result<HistoryResponse, Error> {
        let key = RecordKey::try_from(request.key)?;
        let limit = match request.limit {
            0 => DEFAULT_HISTORY,
            limit @ 1..=MAX_HISTORY => limit,
            limit => return Err(Error::invalid(format_args!("limit {limit} is above {MAX_HISTORY}"))),
        };
        let revisions = self.revisions(&key, limit as usize).await?;
        if revisions.is_empty() {
            return Err(Error::not_found(&key));
        }
        let records = revisions.into_iter().map(Record::from);
        check_size(HistoryResponse { records: records.collect(), ..HistoryResponse::default() })
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let entities = fleet.bucket(Kind::Entity.bucket()).await?;
        let players = fleet.bucket(Kind::Player.bucket()).await?;
        Ok(Self { clock: Clock::default(), entities, players })
    }

    /// Applies the update, unless it was applied before.
    async fn write(&self, update: &Update) -> Result<Revision, Error> {
        let key = &update.key;
        let mut seen = 0;
        let changed = self.bucket(key).change(&key.id, |entry| {
            let current = entry.map(|entry| decode(key, entry)).transpose()?;
            seen = current.as_ref().map_or(0, Revision::number);
            Ok(match update.decide(current, self.clock.now())? {
                Decision::AlreadyApplied(current) => Change::Keep(current),
                Decision::Write { next, previous } => match key.kind {
                    Kind::Entity => Change::write_with_event(next.encode(), next.entity_updated(previous), next),
                    Kind::Player => Change::write_with_event(next.encode(), next.player_updated(previous), next),
                },
                Decision::Conflict { current } => return Err(update.conflict(current)),
            })
        });
        let written = match changed.await {
            Ok((revision, _)) => revision,
            Err(WriteError::Conflict) => return Err(update.conflict(seen)),
            Err(WriteError::Failed(error)) => return Err(error),
        };
        if update.wrote(&written) {
            return Ok(written);
        }
        // An earlier revision was written by this update. Return it, as the first attempt did, if it is still stored.
        let mut earlier = self.revisions(key, usize::MAX).await?.into_iter();
        Ok(earlier.find(|revision| update.wrote(revision)).unwrap_or(written))
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Revision>, Error> {
        let entry = self.bucket(key).get(&key.id).await?;
        entry.as_ref().map(|entry| decode(key, entry)).transpose()
    }

    /// The stored revisions that can be read, newest first and at most `limit`.
    async fn revisions(&self, key: &RecordKey, limit: usize) -> Result<Vec<Revision>, Error> {
        self.bucket(key).decoded_history(&key.id, limit, |entry| decode(key, entry)).await
    }

    fn bucket(&self, key: &RecordKey) -> &Bucket {
        match key.kind {
            Kind::Entity => &self.entities,
            Kind::Player => &self.players,
        }
    }
}

fn decode(key: &RecordKey, entry: &Entry) -> Result<Revision, Error> {
    Revision::decode(key, &entry.value, entry.revision)
}

#[cfg(test)]
mod tests;

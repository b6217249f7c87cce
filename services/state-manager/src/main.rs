//! Keeps the state of entities and players: every change is a revision, made by compare-and-set, and an event.

mod patch;
mod record;
#[cfg(test)]
mod testing;
mod update;

use std::process::ExitCode;
use std::time::SystemTime;

use futures::future::try_join_all;
use proto::state::manager::v1::{
    BatchGetRequest, BatchGetResponse, GetRequest, GetResponse, HistoryRequest, HistoryResponse, Record, StateManager,
    StateManagerServer, UpdateRequest, UpdateResponse,
};
use sdk::{Bucket, Change, Entry, Error, Fleet, WriteError};

use crate::record::{Kind, Name, Revision, sendable};
use crate::update::{Decision, Update};

const MAX_KEYS: usize = 100;
const MAX_HISTORY: u32 = 64;
const DEFAULT_HISTORY: u32 = 10;

fn main() -> ExitCode {
    sdk::run(Service::new)
}

struct Service {
    fleet: Fleet,
    entities: Bucket,
    players: Bucket,
}

impl StateManager for Service {
    async fn update(&self, request: UpdateRequest) -> Result<UpdateResponse, Error> {
        let update = Update::new(request, sdk::context().operation_id())?;
        let written = self.write(&update).await?;
        self.announce(&written).await?;
        Ok(UpdateResponse { record: Some(written.into()), ..UpdateResponse::default() })
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let name = Name::try_from(request.key)?;
        let current = self.read(&name).await?.ok_or_else(|| Error::not_found(&name))?;
        Ok(GetResponse { record: Some(current.into()), ..GetResponse::default() })
    }

    async fn batch_get(&self, request: BatchGetRequest) -> Result<BatchGetResponse, Error> {
        let asked = request.keys.len();
        if asked > MAX_KEYS {
            return Err(Error::invalid(format_args!("{asked} keys are more than {MAX_KEYS}")));
        }
        let names: Vec<Name> = request.keys.into_iter().map(Name::try_from).collect::<Result<_, _>>()?;
        let found = try_join_all(names.iter().map(|name| self.read(name))).await?;
        let mut answer = BatchGetResponse::default();
        for (name, found) in names.iter().zip(found) {
            match found {
                Some(revision) => answer.records.push(revision.into()),
                None => answer.missing.push(name.into()),
            }
        }
        sendable(answer)
    }

    async fn history(&self, request: HistoryRequest) -> Result<HistoryResponse, Error> {
        let name = Name::try_from(request.key)?;
        let limit = match request.limit {
            0 => DEFAULT_HISTORY,
            limit @ 1..=MAX_HISTORY => limit,
            limit => return Err(Error::invalid(format_args!("limit {limit} is more than {MAX_HISTORY}"))),
        };
        let revisions = self.revisions(&name).await?;
        if revisions.is_empty() {
            return Err(Error::not_found(&name));
        }
        let records = revisions.into_iter().take(limit as usize).map(Record::from);
        sendable(HistoryResponse { records: records.collect(), ..HistoryResponse::default() })
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<StateManagerServer<Self>, Error> {
        let entities = fleet.bucket(Kind::Entity.bucket()).await?;
        let players = fleet.bucket(Kind::Player.bucket()).await?;
        Ok(StateManagerServer(Self { fleet, entities, players }))
    }

    /// Makes the change, or finds that it has been made.
    async fn write(&self, update: &Update) -> Result<Revision, Error> {
        let name = &update.name;
        let mut seen = 0;
        let changed = self.bucket(name).change(&name.id, |entry| {
            seen = entry.map_or(0, |entry| entry.revision);
            let current = entry.map(|entry| decode(name, entry)).transpose()?;
            match update.decide(current, SystemTime::now().into())? {
                Decision::Done(current) => Ok(Change::Keep(current)),
                Decision::Write(next) => Ok(Change::Write(next.encode().into(), next)),
                Decision::Conflict { current } => Err(update.conflict(current)),
            }
        });
        let written = match changed.await {
            Ok((revision, number)) => Revision { number, ..revision },
            Err(WriteError::Conflict) => return Err(update.conflict(seen)),
            Err(WriteError::Failed(error)) => return Err(error),
        };
        if update.wrote(&written) {
            return Ok(written);
        }
        // An earlier revision is this update's doing. It is what was answered then, if it is still kept.
        let mut earlier = self.revisions(name).await?.into_iter();
        Ok(earlier.find(|revision| update.wrote(revision)).unwrap_or(written))
    }

    /// Publishes the revision's event. Its id makes it one event, however often this is called.
    async fn announce(&self, revision: &Revision) -> Result<(), Error> {
        let id = revision.event_id();
        let published = match revision.name.kind {
            Kind::Entity => self.fleet.publish_as(&id, revision.entity_updated()).await,
            Kind::Player => self.fleet.publish_as(&id, revision.player_updated()).await,
        };
        published.map_err(|error| {
            Error::unavailable(format_args!(
                "{} is at revision {}, but its event is not published, try again: {}",
                revision.name,
                revision.number,
                error.message()
            ))
        })
    }

    async fn read(&self, name: &Name) -> Result<Option<Revision>, Error> {
        let entry = self.bucket(name).get(&name.id).await?;
        entry.as_ref().map(|entry| decode(name, entry)).transpose()
    }

    /// Every revision that is kept, the newest first.
    async fn revisions(&self, name: &Name) -> Result<Vec<Revision>, Error> {
        let entries = self.bucket(name).history(&name.id).await?;
        entries.iter().map(|entry| decode(name, entry)).collect()
    }

    fn bucket(&self, name: &Name) -> &Bucket {
        match name.kind {
            Kind::Entity => &self.entities,
            Kind::Player => &self.players,
        }
    }
}

fn decode(name: &Name, entry: &Entry) -> Result<Revision, Error> {
    Revision::decode(name, &entry.value, entry.revision)
}

#[cfg(test)]
mod tests;

//! Typed settings: what their definitions refuse is not stored, and what holds is the player's value, the global one, or the
//! default.

mod key;
mod schema;

use std::collections::BTreeMap;

use futures::StreamExt as _;
use proto::settings::v1::{
    DefineRequest, DefineResponse, Definition, DefinitionsRequest, DefinitionsResponse, GetRequest, GetResponse,
    ListRequest, ListResponse, ResetRequest, ResetResponse, Scope, SetRequest, SetResponse, Setting, Settings,
    SettingsServer, StoredValue, WatchRequest, WatchResponse,
};
use sdk::{Error, Fleet, Next, Operation, Records, Stored, Stream, check_revision, required};

use crate::key::{Key, Owner, ValueKey};

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(SettingsServer).run()
}

#[derive(Clone)]
struct Service {
    definitions: Records<Definition>,
    values: Records<StoredValue>,
}

impl Settings for Service {
    async fn define(&self, request: DefineRequest) -> Result<DefineResponse, Error> {
        let operation = Operation::of(&request);
        let definition = Definition { revision: 0, ..required("definition", request.definition)? };
        let key = Key::new(&definition.key)?;
        schema::check_definition(&definition)?;
        let define = |current: Option<&Stored<Definition>>| {
            current.map_or(Ok(()), |current| schema::check_change(&current.value, &definition))?;
            Ok(Next::write(definition.clone()))
        };
        Ok(self.definitions.change(&key, &operation, define).await?.value.into())
    }

    async fn definitions(&self, _: DefinitionsRequest) -> Result<DefinitionsResponse, Error> {
        let definitions = self.definitions.list(">").await?;
        Ok(definitions.into_iter().map(|stored| stored.value).collect::<Vec<_>>().into())
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        Ok(self.effective(&request.key, &Owner::new(&request.player_id)?).await?.into())
    }

    async fn set(&self, request: SetRequest) -> Result<SetResponse, Error> {
        let operation = Operation::of(&request);
        let owner = Owner::new(&request.player_id)?;
        let definition = self.definitions.get(&Key::new(&request.key)?).await?.value;
        if owner != Owner::All && definition.scope() != Scope::Player {
            return Err(Error::invalid(format_args!(
                "setting `{}` has one value for all: leave player_id empty",
                definition.key
            )));
        }
        schema::check_value("value", &definition, request.value.as_ref())?;
        let key = ValueKey { key: &request.key, owner: &owner };
        let value = StoredValue { value: request.value, key: request.key.clone() };
        let set = |current: Option<&Stored<StoredValue>>| {
            check_revision(&key, current.map_or(0, |current| current.revision), request.expected_revision)?;
            Ok(Next::write(value.clone()))
        };
        let stored = self.values.change(&key, &operation, set).await?;
        let (global, player) = match owner {
            Owner::All => (Some(&stored), None),
            Owner::Player(_) => (None, Some(&stored)),
        };
        Ok(schema::effective(&definition, global, player).into())
    }

    async fn reset(&self, request: ResetRequest) -> Result<ResetResponse, Error> {
        let operation = Operation::of(&request);
        let owner = Owner::new(&request.player_id)?;
        self.definitions.get(&Key::new(&request.key)?).await?;
        let key = ValueKey { key: &request.key, owner: &owner };
        self.values.change_existing(&key, &operation, |_| Ok(Next::delete())).await?;
        Ok(self.effective(&request.key, &owner).await?.into())
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Error> {
        let owner = Owner::new(&request.player_id)?;
        let definitions = self.definitions.list(">").await?;
        let global = self.values_of(&Owner::All).await?;
        let player = if owner == Owner::All { BTreeMap::new() } else { self.values_of(&owner).await? };
        let settings = definitions.iter().map(|Stored { value: definition, .. }| {
            schema::effective(definition, global.get(&definition.key), player.get(&definition.key))
        });
        Ok(settings.collect::<Vec<_>>().into())
    }

    async fn watch(&self, request: WatchRequest) -> Result<Stream<WatchResponse>, Error> {
        let owner = Owner::new(&request.player_id)?;
        let mut changes = self.values.watch(&Owner::All.filter(), 0);
        let mut prefix = vec![Owner::All.filter()];
        if owner != Owner::All {
            prefix.push(owner.filter());
            changes = futures::stream::select(changes, self.values.watch(&owner.filter(), 0)).boxed();
        }
        let service = self.clone();
        let settings = changes.then(move |update| {
            let (service, owner) = (service.clone(), owner.clone());
            let prefixes = prefix.clone();
            async move {
                let update = update?;
                let prefixes = prefixes.iter().map(|filter| filter.trim_end_matches('>'));
                let key = { prefixes }.find_map(|prefix| update.key.strip_prefix(prefix)).unwrap_or(&update.key);
                Ok(service.effective(key, &owner).await?.into())
            }
        });
        Ok(settings.boxed())
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        Ok(Self { definitions: fleet.records("definitions").await?, values: fleet.records("values").await? })
    }

    async fn effective(&self, key: &str, owner: &Owner) -> Result<Setting, Error> {
        let definition = self.definitions.get(&Key::new(key)?).await?.value;
        let global = self.values.find(&ValueKey { key, owner: &Owner::All }).await?;
        let player = match owner {
            Owner::All => None,
            Owner::Player(_) => self.values.find(&ValueKey { key, owner }).await?,
        };
        Ok(schema::effective(&definition, global.as_ref(), player.as_ref()))
    }

    async fn values_of(&self, owner: &Owner) -> Result<BTreeMap<String, Stored<StoredValue>>, Error> {
        let values = self.values.list(&owner.filter()).await?;
        Ok(values.into_iter().map(|stored| (stored.value.key.clone(), stored)).collect())
    }
}

#[cfg(test)]
mod tests;

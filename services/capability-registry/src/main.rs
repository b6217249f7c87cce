//! Who provides which capability: registrations with leases, in memory on every task.

mod index;
mod registration;
mod watch;

use std::time::Duration;

use futures::StreamExt as _;
use proto::capability::v1::{
    CapabilityRegistry, CapabilityRegistryServer, DeregisterRequest, DeregisterResponse, FindRequest, FindResponse,
    Provider, RegisterRequest, RegisterResponse, RenewRequest, RenewResponse, WatchRequest, WatchResponse,
};
use sdk::{Error, Fleet, Followed, Next, Operation, Periodic, Records, Stored, Stream, check_range};

use crate::index::Index;
use crate::watch::Watcher;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(CapabilityRegistryServer).periodically().run()
}

struct Service {
    fleet: Fleet,
    providers: Records<Provider>,
    index: Followed<Index>,
}

impl CapabilityRegistry for Service {
    async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse, Error> {
        let operation = Operation::of(&request);
        let key = registration::key(&request.provider_id)?;
        let now = self.fleet.clock().now();
        let provider = registration::registered(request, &operation.digits(), now)?;
        let stored = self.providers.change(&key, &operation, |_| Ok(Next::write(provider.clone()))).await?;
        Ok(self.wrote(stored).into())
    }

    async fn renew(&self, request: RenewRequest) -> Result<RenewResponse, Error> {
        let operation = Operation::of(&request);
        let key = registration::key(&request.provider_id)?;
        let now = self.fleet.clock().now();
        let renew = |current: Option<&Stored<Provider>>| {
            let provider = registration::of_lease(current.map(|it| &it.value), &request.lease_id, now)?;
            Ok(Next::write(registration::renewed(provider, now)))
        };
        Ok(self.wrote(self.providers.change(&key, &operation, renew).await?).into())
    }

    async fn deregister(&self, request: DeregisterRequest) -> Result<DeregisterResponse, Error> {
        let end = |current: &Stored<Provider>| {
            Ok(if current.value.lease_id == request.lease_id { Next::delete() } else { Next::keep() })
        };
        let key = registration::key(&request.provider_id)?;
        self.providers.change_existing(&key, &Operation::of(&request), end).await?;
        Ok(DeregisterResponse::default())
    }

    async fn find(&self, request: FindRequest) -> Result<FindResponse, Error> {
        registration::check_name(&request.name)?;
        let requirement = registration::requirement(&request.requirement)?;
        let limit = match request.limit {
            0 => 20,
            limit => check_range("limit", limit, 1..=100)?,
        };
        let now = self.fleet.clock().now();
        Ok(self.index.read().find(&request.name, &requirement, limit as usize, now).into())
    }

    async fn watch(&self, request: WatchRequest) -> Result<Stream<WatchResponse>, Error> {
        if !request.name.is_empty() {
            registration::check_name(&request.name)?;
        }
        let mut watcher = Watcher::new(request.name);
        let changes = self.providers.watch(">", 0).filter_map(move |update| {
            let told = update.map(|update| watcher.told(update)).transpose();
            std::future::ready(told.map(|change| change.map(WatchResponse::from)))
        });
        Ok(changes.boxed())
    }
}

/// Deletes the registrations whose lease has ended.
impl Periodic for Service {
    const INTERVAL: Duration = Duration::from_secs(1);

    async fn turn(&self) -> Result<(), Error> {
        let now = self.fleet.clock().now();
        let expired = self.index.read().expired(now);
        for Provider { id, .. } in expired {
            // It may have been renewed since the index was told.
            let end = |current: &Stored<Provider>| {
                Ok(if registration::is_alive(&current.value, now) { Next::keep() } else { Next::delete() })
            };
            self.providers.update(&registration::key(&id)?, end).await?;
        }
        Ok(())
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let providers = fleet.records("providers").await?;
        let index = providers.follow(Index::default()).await?;
        Ok(Self { fleet, providers, index })
    }

    /// What was written is found by this worker at once.
    fn wrote(&self, stored: Stored<Provider>) -> Provider {
        let provider = stored.value.clone();
        self.index.wrote(stored.into());
        provider
    }
}

#[cfg(test)]
mod tests;

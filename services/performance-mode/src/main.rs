//! Recommends a quality profile to each client, by how long its frames take.

mod profile;

use proto::performance::v1::{
    ClearOverrideRequest, ClearOverrideResponse, GetRequest, GetResponse, PerformanceMode, PerformanceModeServer,
    Profile, Recommendation, ReportRequest, ReportResponse, SetOverrideRequest, SetOverrideResponse, StoredClient,
};
use sdk::{Error, Fleet, Id, Next, Operation, Records, Stored, check_range, choice};

use crate::profile::Report;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(PerformanceModeServer).run()
}

struct Service {
    fleet: Fleet,
    clients: Records<StoredClient>,
}

impl PerformanceMode for Service {
    async fn report(&self, request: ReportRequest) -> Result<ReportResponse, Error> {
        let operation = Operation::of(&request);
        let key = profile::key(&request.client_id)?;
        let report = Report::new(&request)?;
        let now = self.fleet.clock().now();
        Ok(self.change(&key, &operation, |client| profile::reported(client, &report, now)).await?.into())
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let stored = self.clients.get(&profile::key(&request.client_id)?).await?;
        Ok(self.recommended(stored).into())
    }

    async fn set_override(&self, request: SetOverrideRequest) -> Result<SetOverrideResponse, Error> {
        let operation = Operation::of(&request);
        let key = profile::key(&request.client_id)?;
        let chosen: Profile = choice("profile", request.profile)?;
        let seconds = check_range("seconds", request.seconds, 1..=86_400)?;
        let now = self.fleet.clock().now();
        let set = |client| profile::overridden(client, chosen, seconds, now);
        Ok(self.change(&key, &operation, set).await?.into())
    }

    async fn clear_override(&self, request: ClearOverrideRequest) -> Result<ClearOverrideResponse, Error> {
        let operation = Operation::of(&request);
        let key = profile::key(&request.client_id)?;
        self.clients.get(&key).await?;
        Ok(self.change(&key, &operation, profile::cleared).await?.into())
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let clients = fleet.records("clients").await?;
        Ok(Self { fleet, clients })
    }

    async fn change(
        &self,
        key: &Id,
        operation: &Operation,
        next: impl Fn(StoredClient) -> StoredClient,
    ) -> Result<Recommendation, Error> {
        let now = self.fleet.clock().now();
        let change = |current: Option<&Stored<StoredClient>>| {
            let client = current.map_or_else(|| profile::unknown(key.as_str(), now), |current| current.value.clone());
            Ok(Next::write(next(client)))
        };
        Ok(self.recommended(self.clients.change(key, operation, change).await?))
    }

    fn recommended(&self, stored: Stored<StoredClient>) -> Recommendation {
        profile::recommendation(stored.value, stored.revision, self.fleet.clock().now())
    }
}

#[cfg(test)]
mod tests;

//! Decides the weather of the game's regions. It follows from a region's seed and the game time; what is stored is which
//! regions there are, and which weather was announced last.

mod chain;
mod climate;
mod region;

use std::collections::BTreeMap;
use std::time::Duration;

use proto::time::v1::{SeasonsRequest, TimeManager as _, TimeManagerClient};
use proto::weather::v1::{
    CurrentRequest, CurrentResponse, DeleteRegionRequest, DeleteRegionResponse, ForecastRequest, ForecastResponse,
    HistoryRequest, HistoryResponse, ListRegionsRequest, ListRegionsResponse, PutRegionRequest, PutRegionResponse,
    Region, WeatherManager, WeatherManagerServer,
};
use sdk::{Error, Fleet, Followed, Id, Next, Operation, Periodic, Records, Stored, required};

use crate::chain::HOUR_MS;
use crate::region::Era;

const MAX_REGIONS: usize = 1_000;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(WeatherManagerServer).periodically().run()
}

struct Service {
    time: TimeManagerClient,
    regions: Records<Region>,
    followed: Followed<BTreeMap<String, Stored<Region>>>,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let regions = fleet.records("weather_regions").await?;
        let followed = regions.follow(BTreeMap::new()).await?;
        Ok(Self { time: fleet.client(), regions, followed })
    }

    /// The time now, with the seasons of so many hours before it and after it.
    async fn era(&self, before: i64, after: i64) -> Result<Era, Error> {
        let milliseconds = |hours: i64| hours.unsigned_abs() * HOUR_MS.unsigned_abs();
        let before_ms = milliseconds(before + Era::HOURS_BEFORE);
        let seasons =
            self.time.seasons(SeasonsRequest { meta: None, before_ms, after_ms: milliseconds(after) }).await?;
        Ok(Era { now: required("game time", seasons.now)?, seasons: seasons.spans })
    }

    async fn region(&self, id: &str) -> Result<Region, Error> {
        Ok(self.regions.get(&key(id)?).await?.value)
    }
}

fn key(region_id: &str) -> Result<Id, Error> {
    Id::new("region", region_id, 64)
}

impl WeatherManager for Service {
    async fn put_region(&self, request: PutRegionRequest) -> Result<PutRegionResponse, Error> {
        let key = key(&request.region_id)?;
        let is_full = self.followed.read().len() >= MAX_REGIONS;
        let put = |current: Option<&Stored<Region>>| match current {
            None if is_full => Err(Error::failed_precondition(format_args!("there are {MAX_REGIONS} regions already"))),
            _ => Ok(Next::write(region::put(current.map(|region| &region.value), &request)?)),
        };
        let stored = self.regions.change(&key, &Operation::of(&request), put).await?;
        self.followed.wrote(stored.clone().into());
        Ok(stored.value.into())
    }

    async fn delete_region(&self, request: DeleteRegionRequest) -> Result<DeleteRegionResponse, Error> {
        let key = key(&request.region_id)?;
        let deleted = self.regions.change_existing(&key, &Operation::of(&request), |_| Ok(Next::delete())).await?;
        Ok(DeleteRegionResponse { error: None, region: deleted.map(|region| region.value) })
    }

    async fn list_regions(&self, _: ListRegionsRequest) -> Result<ListRegionsResponse, Error> {
        let regions = self.regions.list(">").await?.into_iter().take(MAX_REGIONS);
        Ok(regions.map(|region| region.value).collect::<Vec<_>>().into())
    }

    async fn current(&self, request: CurrentRequest) -> Result<CurrentResponse, Error> {
        let region = self.region(&request.region_id).await?;
        Ok(self.era(0, 0).await?.weather(&region).into())
    }

    async fn forecast(&self, request: ForecastRequest) -> Result<ForecastResponse, Error> {
        let hours = region::hours(request.hours)?;
        let region = self.region(&request.region_id).await?;
        Ok(self.era(0, hours).await?.forecast(&region, hours).into())
    }

    async fn history(&self, request: HistoryRequest) -> Result<HistoryResponse, Error> {
        let hours = region::hours(request.hours)?;
        let region = self.region(&request.region_id).await?;
        Ok(self.era(hours, 0).await?.history(&region, hours).into())
    }
}

impl Periodic for Service {
    const INTERVAL: Duration = Duration::from_secs(2);

    /// Announces the weather where it has changed.
    async fn turn(&self) -> Result<(), Error> {
        let regions: Vec<Region> = self.followed.read().values().map(|region| region.value.clone()).collect();
        if regions.is_empty() {
            return Ok(());
        }
        let era = self.era(0, 0).await?;
        let changed = regions.into_iter().filter(|region| era.announced(region).is_some());
        let era = &era;
        sdk::each(changed, |region| async move { self.announce(&region.id, era).await }).await
    }
}

impl Service {
    /// Announces the weather of a region, unless another worker has done so.
    async fn announce(&self, region_id: &str, era: &Era) -> Result<(), Error> {
        let announced = |current: &Stored<Region>| {
            Ok(match era.announced(&current.value) {
                Some((region, event)) => Next::write(region).and_publish(event),
                None => Next::keep(),
            })
        };
        if let Some(stored) = self.regions.update(&key(region_id)?, announced).await? {
            self.followed.wrote(stored.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! Describes places: what world-state, weather-manager and time-manager know of a region becomes sentences of a grammar.

mod catalog;
mod grammar;
mod narrator;
mod polish;
mod scene;

use proto::ai::llm::v1::LlmClient;
use proto::narrative::environment::v1::{
    DescribeRequest, DescribeResponse, EndSessionRequest, EndSessionResponse, EnvironmentalNarrative,
    EnvironmentalNarrativeServer, Session,
};
use proto::time::v1::{NowRequest, TimeManager as _, TimeManagerClient};
use proto::weather::v1::{CurrentRequest, WeatherManager as _, WeatherManagerClient};
use proto::world::state::v1::{
    GetRegionRequest, Neighbor, Point, WithinRadiusRequest, WorldState as _, WorldStateClient,
};
use sdk::random::stable_hash;
use sdk::{Code, Error, Fleet, Id, Next, Operation, Records, Stored, required};

use crate::scene::Scene;

/// Metres within which entities are described, and how many of them.
const SIGHT: f64 = 50.0;
const MAX_NEIGHBORS: u32 = 20;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(EnvironmentalNarrativeServer).run()
}

struct Service {
    fleet: Fleet,
    world: WorldStateClient,
    weather: WeatherManagerClient,
    time: TimeManagerClient,
    llm: LlmClient,
    sessions: Records<Session>,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let sessions = fleet.records("narrative_sessions").await?;
        Ok(Self {
            world: fleet.client(),
            weather: fleet.client(),
            time: fleet.client(),
            llm: fleet.client(),
            sessions,
            fleet,
        })
    }

    /// The scene, and the services that did not say what they know of it.
    async fn scene(&self, region_id: &str, position: Option<Point>) -> Result<(Scene, Vec<String>), Error> {
        let request = GetRegionRequest { meta: None, region_id: region_id.to_owned() };
        let current = CurrentRequest { meta: None, region_id: region_id.to_owned() };
        let (region, weather, time, neighbors) = futures::join!(
            self.world.get_region(request),
            self.weather.current(current),
            self.time.now(NowRequest::default()),
            self.neighbors(region_id, position)
        );
        let region = required("region", region?.region)?;
        let mut unavailable = Vec::new();
        let weather = known("weather-manager", weather, &mut unavailable).and_then(|answer| answer.weather);
        let time = known("time-manager", time, &mut unavailable).and_then(|answer| answer.time);
        let neighbors = known("world-state", neighbors, &mut unavailable).flatten();
        Ok((Scene { region, time, weather, neighbors }, unavailable))
    }

    async fn neighbors(&self, region_id: &str, position: Option<Point>) -> Result<Option<Vec<Neighbor>>, Error> {
        if position.is_none() {
            return Ok(None);
        }
        let request = WithinRadiusRequest {
            region_id: region_id.to_owned(),
            center: position,
            radius: SIGHT,
            limit: MAX_NEIGHBORS,
            ..WithinRadiusRequest::default()
        };
        Ok(Some(self.world.within_radius(request).await?.neighbors))
    }
}

/// What a service answered. That it knows nothing of the region is an answer.
fn known<T>(service: &str, answer: Result<T, Error>, unavailable: &mut Vec<String>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) if error.code() == Code::NotFound => None,
        Err(error) => {
            tracing::warn!(service, %error, "a description says nothing of what this service knows");
            unavailable.push(service.to_owned());
            None
        }
    }
}

impl EnvironmentalNarrative for Service {
    async fn describe(&self, request: DescribeRequest) -> Result<DescribeResponse, Error> {
        let operation = Operation::of(&request);
        let key = Id::new("session", &request.session_id, 64)?;
        let derived = || stable_hash(&[sdk::context().operation_id().as_bytes()]);
        let seed = request.seed.unwrap_or_else(derived);
        let (scene, unavailable) = self.scene(&request.region_id, request.position).await?;
        let now = self.fleet.clock().now();
        let describe = |current: Option<&Stored<Session>>| {
            let mut session = current.map(|current| current.value.clone()).unwrap_or_default();
            let sentences = narrator::describe(&scene, &mut session, seed);
            let text = narrator::text(&sentences);
            let unavailable = unavailable.clone();
            session.latest = Some(DescribeResponse { text, sentences, seed, unavailable, ..Default::default() });
            session.id = request.session_id.clone();
            session.used_at = Some(now.into());
            Ok(Next::write(session))
        };
        let session = self.sessions.change(&key, &operation, describe).await?.value;
        let mut description = required("description", session.latest)?;
        if request.polish {
            let deadline = sdk::context().deadline();
            match polish::reworded(&self.llm, &description.text, seed, deadline).await {
                Ok(text) => (description.text, description.polished) = (text, true),
                Err(reason) => description.not_polished_because = reason,
            }
        }
        Ok(description)
    }

    async fn end_session(&self, request: EndSessionRequest) -> Result<EndSessionResponse, Error> {
        let key = Id::new("session", &request.session_id, 64)?;
        self.sessions.change_existing(&key, &Operation::of(&request), |_| Ok(Next::delete())).await?;
        Ok(EndSessionResponse::default())
    }
}

#[cfg(test)]
mod tests;

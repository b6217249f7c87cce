//! Routes requests to backends of language models: to the one that is expected to answer first, and to none whose circuit
//! breaker is open.

mod backend;
mod choice;
mod health;

use std::collections::BTreeMap;

use proto::ai::router::v1::{
    AiRouter, AiRouterServer, Backend, BackendStatus, BreakerState, Candidate, Health, ListBackendsRequest,
    ListBackendsResponse, Outcome, RegisterBackendRequest, RegisterBackendResponse, RemoveBackendRequest,
    RemoveBackendResponse, ReportRequest, ReportResponse, RouteRequest, RouteResponse,
};
use sdk::{Error, Fleet, Followed, Next, Operation, Records, Stored, check_id, check_range};

type Copy<R> = Followed<BTreeMap<String, Stored<R>>>;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(AiRouterServer).run()
}

struct Service {
    fleet: Fleet,
    backends: Records<Backend>,
    health: Records<Health>,
    known_backends: Copy<Backend>,
    known_health: Copy<Health>,
}

impl AiRouter for Service {
    async fn register_backend(&self, request: RegisterBackendRequest) -> Result<RegisterBackendResponse, Error> {
        let operation = Operation::of(&request);
        let backend = backend::normalized(sdk::required("backend", request.backend)?)?;
        let key = backend::key(&backend.id)?;
        let stored = self.backends.change(&key, &operation, |_| Ok(Next::write(backend.clone()))).await?;
        self.health.create(&key, &unknown(&backend.id)).await?;
        self.known_backends.wrote(stored.clone().into());
        Ok(stored.value.into())
    }

    async fn remove_backend(&self, request: RemoveBackendRequest) -> Result<RemoveBackendResponse, Error> {
        let operation = Operation::of(&request);
        let key = backend::key(&request.backend_id)?;
        self.backends.change(&key, &operation, |_| Ok(Next::delete())).await?;
        self.health.update(&key, |_| Ok(Next::delete())).await?;
        Ok(RemoveBackendResponse::default())
    }

    async fn list_backends(&self, _: ListBackendsRequest) -> Result<ListBackendsResponse, Error> {
        let health = self.health.list(">").await?.into_iter();
        let mut health: BTreeMap<String, Health> = health.map(|stored| (stored.key, stored.value)).collect();
        let backends = self.backends.list(">").await?.into_iter();
        let statuses = backends.map(|Stored { key, value, .. }| self.status(value, health.remove(&key)));
        Ok(statuses.collect::<Vec<_>>().into())
    }

    async fn route(&self, request: RouteRequest) -> Result<RouteResponse, Error> {
        let operation = Operation::of(&request);
        backend::check_route(&request)?;
        let now = self.fleet.clock().now();
        let mut candidates = {
            let (backends, health) = (self.known_backends.read(), self.known_health.read());
            choice::ranked(&backends, &health, &request, now)
        };
        let considered = candidates.iter().take_while(|it| it.excluded_by.is_empty()).count();
        for index in 0..considered {
            if self.admits(&candidates[index]).await? {
                candidates[..=index].rotate_right(1);
                let reason = choice::reason(&candidates);
                let decision_id = operation.digits();
                let backend_id = candidates[0].backend_id.clone();
                return Ok(RouteResponse { error: None, backend_id, decision_id, reason, candidates });
            }
            "breaker".clone_into(&mut candidates[index].excluded_by);
        }
        Err(choice::none(&candidates, &request))
    }

    async fn report(&self, request: ReportRequest) -> Result<ReportResponse, Error> {
        let key = backend::key(&request.backend_id)?;
        check_id("decision_id", &request.decision_id, 64)?;
        let outcome: Outcome = sdk::choice("outcome", request.outcome)?;
        let latency_ms = check_range("latency_ms", request.latency_ms, 0..=backend::MAX_LATENCY_MS)?;
        let backend = self.backends.get(&key).await?.value;
        let now = self.fleet.clock().now();
        // No operation is remembered: there would be too many of them, and what was measured knows the decisions itself.
        let report = |current: &Stored<Health>| {
            let health = current.value.clone();
            Ok(Next::write(health::reported(health, &request.decision_id, outcome, latency_ms, now)))
        };
        let stored = self.health.update(&key, report).await?.ok_or_else(|| Error::not_found(&key))?;
        self.known_health.wrote(stored.clone().into());
        Ok(self.status(backend, Some(stored.value)).into())
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let backends = fleet.records("backends").await?;
        let health = fleet.records("health").await?;
        Ok(Self {
            known_backends: backends.follow(BTreeMap::new()).await?,
            known_health: health.follow(BTreeMap::new()).await?,
            fleet,
            backends,
            health,
        })
    }

    /// Whether the breaker lets a request through, as it is stored: what this worker knows may be a second old. Of the requests
    /// that come when a backend is to be tried, it lets one through.
    async fn admits(&self, candidate: &Candidate) -> Result<bool, Error> {
        let key = backend::key(&candidate.backend_id)?;
        let now = self.fleet.clock().now();
        let Some(stored) = self.health.find(&key).await? else { return Ok(true) };
        match health::breaker(&stored.value, now) {
            BreakerState::Open => Ok(false),
            BreakerState::HalfOpen => {
                let mut is_trial = false;
                let admit = |current: &Stored<Health>| {
                    is_trial = health::breaker(&current.value, now) == BreakerState::HalfOpen;
                    let tried = is_trial.then(|| health::tried(current.value.clone(), now));
                    Ok(tried.map_or_else(Next::keep, Next::write))
                };
                self.health.update(&key, admit).await?;
                Ok(is_trial)
            }
            _ => Ok(true),
        }
    }

    fn status(&self, backend: Backend, health: Option<Health>) -> BackendStatus {
        let health = health.unwrap_or_else(|| unknown(&backend.id));
        let breaker = health::breaker(&health, self.fleet.clock().now()).into();
        BackendStatus { backend: Some(backend), health: Some(health), breaker }
    }
}

fn unknown(backend_id: &str) -> Health {
    Health { backend_id: backend_id.to_owned(), ..Health::default() }
}

#[cfg(test)]
mod tests;

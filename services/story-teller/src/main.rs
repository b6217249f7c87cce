//! Stories that players choose their way through. An arc is checked before it is stored: every path leads to an end.

mod arc;
mod check;
mod progress;
#[cfg(test)]
mod testing;

use proto::story::v1::{
    AdvanceRequest, AdvanceResponse, Arc, ChoicesRequest, ChoicesResponse, GetArcRequest, GetArcResponse,
    ListArcsRequest, ListArcsResponse, PutArcRequest, PutArcResponse, RecapRequest, RecapResponse, Scene, StartRequest,
    StartResponse, StoredProgress, StoryTeller, StoryTellerServer,
};
use sdk::{Error, Fleet, Id, Next, Operation, Records, Stored, required};

use crate::arc::Graph;
use crate::check::Exploration;
use crate::progress::ProgressKey;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(StoryTellerServer).run()
}

struct Service {
    fleet: Fleet,
    arcs: Records<Arc>,
    progress: Records<StoredProgress>,
}

impl StoryTeller for Service {
    async fn put_arc(&self, request: PutArcRequest) -> Result<PutArcResponse, Error> {
        let operation = Operation::of(&request);
        let arc = Arc { revision: 0, ..required("arc", request.arc)? };
        let mut exploration = Exploration::new(Graph::new(&arc)?);
        while !exploration.advance()? {
            tokio::task::yield_now().await;
        }
        exploration.finish()?;
        let stored = self.arcs.change(&arc_key(&arc.id)?, &operation, |_| Ok(Next::write(arc.clone()))).await?;
        Ok(stored.value.into())
    }

    async fn get_arc(&self, request: GetArcRequest) -> Result<GetArcResponse, Error> {
        Ok(self.arcs.get(&arc_key(&request.arc_id)?).await?.value.into())
    }

    async fn list_arcs(&self, _: ListArcsRequest) -> Result<ListArcsResponse, Error> {
        let arcs = self.arcs.list(">").await?.into_iter();
        Ok(arcs.map(|stored| Arc { beats: Vec::new(), ..stored.value }).collect::<Vec<_>>().into())
    }

    async fn start(&self, request: StartRequest) -> Result<StartResponse, Error> {
        let operation = Operation::of(&request);
        let key = ProgressKey::new(&request.player_id, &request.arc_id)?;
        let arc = self.arcs.get(&arc_key(&request.arc_id)?).await?.value;
        let now = self.fleet.clock().now().into();
        let start = |current: Option<&Stored<StoredProgress>>| {
            progress::started(&key, current.map(|current| &current.value), &arc, now).map(Next::write)
        };
        Ok(scene(&self.progress.change(&key, &operation, start).await?)?.into())
    }

    async fn choices(&self, request: ChoicesRequest) -> Result<ChoicesResponse, Error> {
        let key = ProgressKey::new(&request.player_id, &request.arc_id)?;
        Ok(scene(&self.progress.get(&key).await?)?.into())
    }

    async fn advance(&self, request: AdvanceRequest) -> Result<AdvanceResponse, Error> {
        let operation = Operation::of(&request);
        let key = ProgressKey::new(&request.player_id, &request.arc_id)?;
        let advance = |current: Option<&Stored<StoredProgress>>| {
            let current = current.ok_or_else(|| Error::not_found(&key))?;
            progress::advanced(current.value.clone(), &request.choice_id).map(Next::write)
        };
        Ok(scene(&self.progress.change(&key, &operation, advance).await?)?.into())
    }

    async fn recap(&self, request: RecapRequest) -> Result<RecapResponse, Error> {
        let key = ProgressKey::new(&request.player_id, &request.arc_id)?;
        Ok(progress::recap(&self.progress.get(&key).await?.value)?.into())
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        Ok(Self { arcs: fleet.records("arcs").await?, progress: fleet.records("progress").await?, fleet })
    }
}

fn arc_key(arc_id: &str) -> Result<Id, Error> {
    Id::new("arc", arc_id, 64)
}

fn scene(stored: &Stored<StoredProgress>) -> Result<Scene, Error> {
    progress::scene(&stored.value, stored.revision)
}

#[cfg(test)]
mod tests;

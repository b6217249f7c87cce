//! Plans what characters do: the cheapest sequence of actions from the world as it is to their goal.

mod problem;
mod search;
mod states;

use std::sync::atomic::{AtomicUsize, Ordering};

use problem::{Goal, Problem};
use proto::npc::behavior::v1::{Behavior, BehaviorServer, PlanRequest, PlanResponse, Planned};
use sdk::{Code, Error, Fleet};
use search::{Failure, Plan, Search};

/// How much a search may do before the worker's other requests get their turn, in actions tried: about 0.2 ms.
const SLICE: usize = 4_096;

/// What all searches of a worker may hold together. Two workers fit into a task's 512 MiB.
const MAX_HELD_BYTES: usize = 96 << 20;

fn main() -> std::process::ExitCode {
    sdk::run(Service::new)
}

struct Service {
    fleet: Fleet,
    held: Held,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<BehaviorServer<Self>, Error> {
        Ok(BehaviorServer(Self { fleet, held: Held::default() }))
    }
}

impl Behavior for Service {
    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Error> {
        let goal = Problem::parse(&request).map_err(Error::invalid)?;
        let plan = find(goal, request.node_limit, &self.held).await?;
        let planned = Planned { meta: None, npc_id: request.npc_id, steps: plan.steps.clone(), cost: plan.cost };
        self.fleet.publish(planned).await?;
        Ok(PlanResponse { error: None, steps: plan.steps, cost: plan.cost, nodes_expanded: plan.nodes_expanded })
    }
}

/// Searches in slices on the worker's own thread. A thread pool would not be quicker, as the workers already are as many as the
/// cores that a task has, and it could not be told to stop: this search ends when its request is given up.
async fn find(goal: Goal, node_limit: u32, held: &Held) -> Result<Plan, Error> {
    let problem = match goal {
        Goal::Possible(problem) => problem,
        Goal::Unreachable { fact, value } => {
            return Err(Error::failed_precondition(format_args!("no sequence of actions leads to `{fact}` = {value}"))
                .with_detail("nodes_expanded", 0));
        }
    };
    let mut search = Search::new(problem, node_limit);
    let mut share = Share { held, bytes: 0 };
    loop {
        if let Some(outcome) = search.advance(SLICE) {
            return outcome.map_err(failure);
        }
        if !share.grow_to(search.bytes()) {
            return Err(exhausted("searches in progress hold too much memory", search.nodes_expanded()));
        }
        tokio::task::yield_now().await;
    }
}

fn failure(failure: Failure) -> Error {
    match failure {
        Failure::NoPlan { nodes_expanded } => Error::failed_precondition("no sequence of actions leads to the goal")
            .with_detail("nodes_expanded", nodes_expanded),
        Failure::NodeLimit { nodes_expanded } => exhausted("no plan was found within the node limit", nodes_expanded),
    }
}

fn exhausted(message: &'static str, nodes_expanded: u32) -> Error {
    Error::new(Code::ResourceExhausted, message).with_detail("nodes_expanded", nodes_expanded)
}

/// The bytes that all searches of this worker hold.
#[derive(Default)]
struct Held(AtomicUsize);

/// What one search holds of them; given back with it.
struct Share<'a> {
    held: &'a Held,
    bytes: usize,
}

impl Share<'_> {
    /// Whether there is still room.
    fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        self.held.0.fetch_add(more, Ordering::Relaxed) + more <= MAX_HELD_BYTES
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;

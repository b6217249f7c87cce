//! Plans the actions of characters: the cheapest sequence from the current world to their goal.

mod problem;
mod search;
mod states;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use problem::{Parsed, Problem};
use proto::npc::behavior::v1::{Behavior, BehaviorServer, PlanRequest, PlanResponse, Planned};
use sdk::{Code, Error, Fleet, reason};
use search::{Failure, Plan, Search};

/// How many actions a search tries before it yields to the worker's other requests: about 0.2 ms.
const SLICE: usize = 4_096;

/// The memory limit of all searches of a worker. Two workers fit into a task's 512 MiB.
const MAX_SEARCH_BYTES: usize = 96 << 20;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(BehaviorServer).run()
}

struct Service {
    fleet: Fleet,
    budget: Arc<MemoryBudget>,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        Ok(Self { fleet, budget: Arc::default() })
    }
}

impl Behavior for Service {
    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Error> {
        let parsed = Problem::parse(&request).map_err(Error::invalid)?;
        let plan = find_plan(parsed, request.node_limit, &self.budget).await?;
        let planned = Planned { meta: None, npc_id: request.npc_id, steps: plan.steps.clone(), cost: plan.cost };
        self.fleet.publish(planned).await?;
        Ok(PlanResponse { error: None, steps: plan.steps, cost: plan.cost, nodes_expanded: plan.nodes_expanded })
    }
}

/// Searches in slices on the worker's thread. A thread pool would not be faster, because a task has as many workers as
/// cores, and its jobs could not be cancelled: this search stops when its request is dropped, which the SDK does at its
/// deadline.
async fn find_plan(parsed: Parsed, node_limit: u32, budget: &MemoryBudget) -> Result<Plan, Error> {
    let problem = match parsed {
        Parsed::Solvable(problem) => problem,
        Parsed::Unreachable { fact, value } => {
            return Err(Error::failed_precondition(format_args!("no sequence of actions leads to `{fact}` = {value}"))
                .with_detail("nodes_expanded", 0));
        }
    };
    let mut search = Search::new(problem, node_limit);
    let mut share = MemoryShare { budget, bytes: 0 };
    loop {
        if let Some(outcome) = search.advance(SLICE) {
            return outcome.map_err(failure);
        }
        if !share.grow_to(search.bytes()) {
            return Err(exhausted(search.nodes_expanded()));
        }
        tokio::task::yield_now().await;
    }
}

fn failure(failure: Failure) -> Error {
    match failure {
        Failure::NoPlan { nodes_expanded } => Error::failed_precondition("no sequence of actions leads to the goal")
            .with_detail("nodes_expanded", nodes_expanded),
        // Not retryable: the same request reaches the same limit.
        Failure::NodeLimit { nodes_expanded } => {
            Error::failed_precondition(format_args!("no plan was found within the node limit of {nodes_expanded}"))
                .with_detail("nodes_expanded", nodes_expanded)
        }
    }
}

/// Retryable: other searches end.
fn exhausted(nodes_expanded: u32) -> Error {
    Error::new(Code::ResourceExhausted, "the running searches use too much memory")
        .with_detail("nodes_expanded", nodes_expanded)
        .with_detail(reason::RETRY_AFTER_MS, 1_000)
}

/// The bytes that all searches of this worker use.
#[derive(Default)]
struct MemoryBudget(AtomicUsize);

/// The bytes that one search uses. They are returned to the budget when it is dropped.
struct MemoryShare<'a> {
    budget: &'a MemoryBudget,
    bytes: usize,
}

impl MemoryShare<'_> {
    /// Returns whether the budget still suffices.
    fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        self.budget.0.fetch_add(more, Ordering::Relaxed) + more <= MAX_SEARCH_BYTES
    }
}

impl Drop for MemoryShare<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;

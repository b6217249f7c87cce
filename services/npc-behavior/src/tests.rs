//! Compares plans with an exhaustive search that works on the request directly and shares no code with the planner.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proto::npc::behavior::v1::Action;

use super::*;

type Facts = BTreeMap<String, i64>;

fn facts(facts: &[(&str, i64)]) -> Facts {
    facts.iter().map(|&(fact, value)| (fact.to_owned(), value)).collect()
}

fn action(name: &str, cost: f64, needs: &[(&str, i64)], sets: &[(&str, i64)]) -> Action {
    Action { name: name.to_owned(), cost, preconditions: facts(needs), effects: facts(sets) }
}

fn request(goal: &[(&str, i64)], actions: Vec<Action>) -> PlanRequest {
    PlanRequest { npc_id: "smith".to_owned(), goal: facts(goal), actions, ..PlanRequest::default() }
}

fn smithy() -> Vec<Action> {
    vec![
        action("buy sword", 9.0, &[("gold", 1)], &[("sword", 1), ("gold", 0)]),
        action("mine ore", 2.0, &[("pick", 1)], &[("ore", 1)]),
        action("find pick", 1.0, &[], &[("pick", 1)]),
        action("forge sword", 3.0, &[("ore", 1), ("fire", 1)], &[("sword", 1), ("ore", 0)]),
        action("light fire", 1.5, &[], &[("fire", 1)]),
        action("beg", 4.0, &[], &[("gold", 1)]),
        action("dance", 0.1, &[], &[("mood", 7)]),
    ]
}

async fn plan(request: &PlanRequest) -> Result<Plan, Error> {
    let parsed = Problem::parse(request).map_err(Error::invalid)?;
    find_plan(parsed, request.node_limit, &MemoryBudget::default()).await
}

fn plan_now(request: &PlanRequest) -> Result<Plan, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(plan(request))
}

#[track_caller]
fn check(request: &PlanRequest, steps: &[&str], cost: f64) {
    let plan = plan_now(request).unwrap();
    assert_eq!((plan.steps.iter().map(String::as_str).collect::<Vec<_>>(), plan.cost), (steps.to_vec(), cost));
}

#[track_caller]
fn fails(request: &PlanRequest, code: Code, message: &str) -> Error {
    let error = plan_now(request).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(message), "{error}");
    error
}

#[test]
fn the_cheapest_plan_is_found() {
    check(&request(&[("sword", 1)], smithy()), &["find pick", "light fire", "mine ore", "forge sword"], 7.5);
    let rich =
        PlanRequest { world: facts(&[("gold", 1), ("pick", 1)]), ..request(&[("sword", 1), ("gold", 0)], smithy()) };
    check(&rich, &["buy sword"], 9.0);
}

#[test]
fn the_order_of_actions_in_the_request_does_not_matter() {
    let straight = plan_now(&request(&[("sword", 1)], smithy()));
    let reversed = plan_now(&request(&[("sword", 1)], smithy().into_iter().rev().collect()));
    assert_eq!(straight, reversed);
}

#[test]
fn a_goal_that_is_already_met_needs_no_actions() {
    check(&request(&[], smithy()), &[], 0.0);
    check(&request(&[("sword", 0)], smithy()), &[], 0.0);
    check(&request(&[("sword", 0)], vec![]), &[], 0.0);
    let armed = PlanRequest { world: facts(&[("sword", -3), ("weather", 4)]), ..request(&[("sword", -3)], smithy()) };
    check(&armed, &[], 0.0);
}

#[test]
fn absent_facts_are_0() {
    let open = action("open", 1.0, &[("locked", 0)], &[("open", 1)]);
    check(&request(&[("open", 1)], vec![open]), &["open"], 1.0);
}

#[test]
fn a_goal_that_nothing_leads_to_has_no_plan() {
    let error = fails(
        &request(&[("crown", 1)], smithy()),
        Code::FailedPrecondition,
        "no sequence of actions leads to `crown` = 1",
    );
    assert_eq!(error.detail("nodes_expanded"), Some("0"));

    // Each action is possible, but consumes the precondition of the other.
    let both = vec![
        action("left", 1.0, &[("coin", 1)], &[("left", 1), ("coin", 0)]),
        action("right", 1.0, &[("coin", 1)], &[("right", 1), ("coin", 0)]),
    ];
    let both = PlanRequest { world: facts(&[("coin", 1)]), ..request(&[("left", 1), ("right", 1)], both) };
    let error = fails(&both, Code::FailedPrecondition, "leads to the goal");
    assert_eq!(error.detail("nodes_expanded"), Some("3"));
}

/// A chain of `length` steps, each of which requires the previous one.
fn chain(length: i64) -> PlanRequest {
    let actions = (0..length).map(|at| action(&format!("step {at}"), 1.0, &[("at", at)], &[("at", at + 1)])).collect();
    request(&[("at", length)], actions)
}

#[test]
fn the_node_limit_is_exact() {
    let limited = |node_limit| PlanRequest { node_limit, ..chain(20) };
    let error = fails(&limited(19), Code::FailedPrecondition, "node limit");
    assert_eq!(error.detail("nodes_expanded"), Some("19"));
    assert_eq!(plan_now(&limited(20)).unwrap().nodes_expanded, 20);
}

#[test]
fn a_plan_of_all_actions_is_found_across_slices() {
    let plan = plan_now(&chain(256)).unwrap();
    assert_eq!((plan.steps.len(), plan.cost), (256, 256.0));
}

#[test]
fn independent_goals_expand_linearly() {
    let lamps: Vec<String> = (0..64).map(|at| format!("lamp {at:02}")).collect();
    let actions = lamps.iter().map(|lamp| action(lamp, 1.0, &[], &[(lamp, 1)])).collect();
    let goal: Vec<(&str, i64)> = lamps.iter().map(|lamp| (lamp.as_str(), 1)).collect();
    let plan = plan_now(&request(&goal, actions)).unwrap();
    assert_eq!((plan.cost, plan.nodes_expanded), (64.0, 64));
}

/// The whole state space must be searched, because no state is more promising than another.
pub(super) fn counter(bits: usize) -> PlanRequest {
    let names: Vec<String> = (0..bits).map(|bit| format!("bit {bit:02}")).collect();
    let mut actions: Vec<Action> = names.iter().map(|bit| action(bit, 1.0, &[], &[(bit, 1)])).collect();
    let mut needs: Vec<(&str, i64)> = names.iter().map(|bit| (bit.as_str(), 1)).collect();
    needs.push(("never", 1));
    actions.push(action("reset", 1.0, &[], &[("never", 1), (&names[0], 0)]));
    actions.push(action("spoil", 1.0, &[(&names[0], 1)], &[("never", 0)]));
    actions.push(action("end", 1.0, &needs, &[("done", 1)]));
    PlanRequest { node_limit: 1_000_000, ..request(&[("done", 1)], actions) }
}

#[tokio::test]
async fn a_long_search_yields_to_other_tasks() {
    let request = counter(12);
    let mut turns = 0;
    let others = async {
        loop {
            turns += 1;
            tokio::task::yield_now().await;
        }
    };
    let plan = tokio::select! {
        plan = plan(&request) => plan.unwrap(),
        () = others => unreachable!("it never ends"),
    };
    assert!(plan.nodes_expanded > 1_000, "{plan:?}");
    assert!(turns > 5, "{turns}");
}

/// Each state is reached by long steps first, and then by short ones at less cost.
#[test]
fn outdated_entries_of_the_open_list_are_work_too() {
    let ladder = (0..40_i64).flat_map(|at| {
        [(1, 1.0), (2, 2.5), (3, 4.0), (4, 5.5)]
            .into_iter()
            .filter(move |(by, _)| at + by <= 40)
            .map(move |(by, cost)| action(&format!("from {at} by {by}"), cost, &[("at", at)], &[("at", at + by)]))
    });
    let Parsed::Solvable(problem) = Problem::parse(&request(&[("at", 40)], ladder.collect())).unwrap() else {
        panic!("it has a plan");
    };
    let mut search = Search::new(problem, 0);
    let mut turns = 1;
    let plan = loop {
        match search.advance(1) {
            Some(outcome) => break outcome.unwrap(),
            None => turns += 1,
        }
    };
    assert_eq!(plan.cost, 40.0);
    assert!(turns > plan.nodes_expanded + 10, "{turns} turns, {} nodes", plan.nodes_expanded);
}

#[tokio::test]
async fn searches_over_the_memory_limit_are_refused_and_release_their_memory() {
    let budget = MemoryBudget(AtomicUsize::new(MAX_SEARCH_BYTES));
    let request = counter(12);
    let parsed = Problem::parse(&request).unwrap();
    let error = find_plan(parsed, request.node_limit, &budget).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("memory"), "{error}");
    assert_eq!(budget.0.into_inner(), MAX_SEARCH_BYTES);
}

#[test]
fn bad_requests_are_refused() {
    let bad = |request: PlanRequest, message| {
        fails(&request, Code::InvalidArgument, message);
    };
    let with = |actions| request(&[("a", 1)], actions);
    bad(PlanRequest { npc_id: String::new(), ..with(vec![]) }, "`npc_id` is empty");
    bad(PlanRequest { node_limit: 1_000_001, ..with(vec![]) }, "`node_limit` is above 1000000");
    for cost in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e13] {
        bad(with(vec![action("a", cost, &[], &[])]), "cost of action `a`");
    }
    bad(with(vec![action("", 1.0, &[], &[])]), "no name");
    bad(with(vec![action("a", 1.0, &[], &[]), action("a", 2.0, &[], &[])]), "two actions are called `a`");
    let many = (0..257).map(|at| action(&at.to_string(), 1.0, &[], &[])).collect();
    bad(with(many), "more than 256 actions");
    let names: Vec<String> = (0..5_000).map(|at| at.to_string()).collect();
    let wide: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    bad(with(vec![action("a", 1.0, &[], &wide)]), "more than 4096 different facts");
}

/// Dijkstra's algorithm, with maps as states and a set as the queue.
fn cheapest(request: &PlanRequest) -> Option<u64> {
    let holds = |state: &Facts, facts: &Facts| facts.iter().all(|(fact, value)| state.get(fact).unwrap_or(&0) == value);
    let mut open = BTreeSet::from([(0, request.world.clone())]);
    let mut closed = BTreeSet::new();
    while let Some((cost, state)) = open.pop_first() {
        if holds(&state, &request.goal) {
            return Some(cost);
        }
        if !closed.insert(state.clone()) {
            continue;
        }
        for action in request.actions.iter().filter(|action| holds(&state, &action.preconditions)) {
            let mut next = state.clone();
            next.extend(action.effects.clone());
            open.insert((cost + action.cost as u64, next));
        }
    }
    None
}

/// Executes a plan. Returns its cost if it reaches the goal.
fn followed(request: &PlanRequest, steps: &[String]) -> Option<f64> {
    let holds = |state: &Facts, facts: &Facts| facts.iter().all(|(fact, value)| state.get(fact).unwrap_or(&0) == value);
    let mut state = request.world.clone();
    let mut cost = 0.0;
    for step in steps {
        let action = request.actions.iter().find(|action| action.name == *step)?;
        if !holds(&state, &action.preconditions) {
            return None;
        }
        state.extend(action.effects.clone());
        cost += action.cost;
    }
    holds(&state, &request.goal).then_some(cost)
}

fn some_facts(most: usize) -> impl Strategy<Value = Facts> {
    prop::collection::btree_map("[a-e]", 0_i64..3, 0..=most)
}

fn some_request() -> impl Strategy<Value = PlanRequest> {
    let action = (1_u32..9, some_facts(2), some_facts(3));
    let actions = prop::collection::vec(action, 0..9);
    (some_facts(3), some_facts(4), actions).prop_map(|(world, goal, actions)| PlanRequest {
        npc_id: "npc".to_owned(),
        world,
        goal,
        actions: (0..)
            .zip(actions)
            .map(|(at, (cost, preconditions, effects))| Action {
                name: format!("action {at}"),
                cost: cost.into(),
                preconditions,
                effects,
            })
            .collect(),
        ..PlanRequest::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_plan_is_cheaper(request in some_request()) {
        match (plan_now(&request), cheapest(&request)) {
            (Ok(plan), Some(cost)) => {
                prop_assert_eq!(plan.cost, cost as f64);
                prop_assert_eq!(followed(&request, &plan.steps), Some(plan.cost));
            }
            (Err(error), None) => prop_assert_eq!(error.code(), Code::FailedPrecondition),
            (planned, cheapest) => prop_assert!(false, "planned {planned:?}, cheapest {cheapest:?}"),
        }
    }

    #[test]
    fn the_same_request_gives_the_same_plan(request in some_request()) {
        prop_assert_eq!(plan_now(&request), plan_now(&request));
    }
}

/// A request whose preconditions, effects and goal have this many entries together.
fn wide(entries: usize) -> PlanRequest {
    let sets = |count: usize| -> Facts { (0..count).map(|number| (format!("f{number}"), 1)).collect() };
    let full = 1_000;
    let mut actions: Vec<Action> = (0..entries / full)
        .map(|number| Action { name: format!("a{number}"), cost: 1.0, effects: sets(full), ..Action::default() })
        .collect();
    actions.push(Action { name: "rest".to_owned(), cost: 1.0, effects: sets(entries % full - 1), ..Action::default() });
    PlanRequest { npc_id: "smith".to_owned(), goal: facts(&[("f0", 1)]), actions, ..PlanRequest::default() }
}

#[tokio::test]
async fn a_request_with_too_many_conditions_is_refused_before_it_is_compiled() {
    assert_eq!(plan(&wide(problem::MAX_CONDITIONS)).await.unwrap().steps.len(), 1);
    for entries in [problem::MAX_CONDITIONS + 1, 5 * problem::MAX_CONDITIONS + 7] {
        let error = plan(&wide(entries)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("more than 16384 entries"), "{error}");
    }
}

//! The service against a real nats-server.

use std::time::Duration;

use futures::future::join_all;
use proto::npc::behavior::v1::BehaviorClient;
use sdk::testing::{NatsServer, as_request};
use sdk::{Context, Event as _, ExternalRequest, Settings, Shutdown};
use tokio::time::timeout;

use super::tests::counter;
use super::*;

/// No test waits longer for an event.
const SOON: Duration = Duration::from_secs(20);

/// Serves on the thread of the test until the test ends. Returns a client of its own, and what the searches use.
async fn serving(server: &NatsServer) -> (BehaviorClient, Arc<MemoryBudget>) {
    let settings = Settings::for_service("npc-behavior", server.connection());
    let fleet = Fleet::connect(settings).await.unwrap();
    let service = Service::new(fleet.clone()).await.unwrap();
    let budget = Arc::clone(&service.budget);
    tokio::spawn(async move {
        let (_never, shutdown) = Shutdown::new();
        sdk::serve(&fleet, BehaviorServer(service), shutdown).await
    });
    timeout(SOON, async { while !server.ping("npc-behavior").await {} }).await.unwrap();
    (server.fleet("caller").await.client(), budget)
}

fn within(timeout: Duration) -> Context {
    Context::external(ExternalRequest { traceparent: None, request_id: None, idempotency_key: None, timeout })
}

/// Waits until all searches together use more memory, or none.
async fn wait_until(budget: &MemoryBudget, is_so: impl Fn(usize) -> bool) {
    let change = async {
        while !is_so(budget.0.load(Ordering::Relaxed)) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, change).await.unwrap();
}

#[tokio::test]
async fn a_worker_answers_others_while_it_computes_more_plans_than_it_has_threads() {
    let server = NatsServer::start();
    server.stream("EVENTS", &[Planned::SUBJECT]).await;
    let (client, budget) = serving(&server).await;
    let expensive = join_all((0..3).map(|_| within(3 * SOON).scope(client.plan(counter(20)))));
    let others = async {
        wait_until(&budget, |bytes| bytes > 0).await;
        assert!(server.ping("npc-behavior").await);
        within(SOON).scope(client.plan(chore("smith", "done"))).await.unwrap();
    };
    tokio::select! {
        biased;
        ended = expensive => panic!("the expensive plans came first: {ended:?}"),
        () = others => {}
    }
}

#[tokio::test]
async fn a_search_stops_at_the_deadline_of_its_request() {
    let server = NatsServer::start();
    let (client, budget) = serving(&server).await;
    let request = within(Duration::from_millis(900)).scope(client.plan(counter(20)));
    let (ended, ()) = futures::join!(request, wait_until(&budget, |bytes| bytes > 0));
    assert_eq!(ended.unwrap_err().detail(reason::KEY), Some(reason::TIMEOUT));
    wait_until(&budget, |bytes| bytes == 0).await;
}

/// How many events are stored.
async fn events(server: &NatsServer) -> usize {
    server.stored("EVENTS").await.len()
}

fn chore(npc_id: &str, need: &str) -> PlanRequest {
    let action = proto::npc::behavior::v1::Action {
        name: "work".to_owned(),
        cost: 1.5,
        effects: [(need.to_owned(), 1)].into(),
        ..Default::default()
    };
    PlanRequest {
        npc_id: npc_id.to_owned(),
        goal: [("done".to_owned(), 1)].into(),
        actions: vec![action],
        ..PlanRequest::default()
    }
}

#[tokio::test]
async fn one_event_is_published_for_each_plan() {
    let server = NatsServer::start();
    server.stream("EVENTS", &[Planned::SUBJECT]).await;
    let service = Service::new(server.fleet("npc-behavior").await).await.unwrap();

    let plan = as_request(Some("r1"), service.plan(chore("smith", "done"))).await.unwrap();
    assert_eq!((plan.steps, plan.cost, plan.nodes_expanded), (vec!["work".to_owned()], 1.5, 1));
    assert_eq!(events(&server).await, 1);
    as_request(Some("r1"), service.plan(chore("smith", "done"))).await.unwrap();
    assert_eq!(events(&server).await, 1, "a retry of the same request");
    as_request(Some("r1"), service.plan(chore("witch", "done"))).await.unwrap();
    assert_eq!(events(&server).await, 2, "a request for another character in the same operation");

    let error = as_request(Some("r2"), service.plan(chore("smith", "undone"))).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(events(&server).await, 2);
}

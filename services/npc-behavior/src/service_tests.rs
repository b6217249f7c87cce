//! The service against a real nats-server.

use sdk::Event as _;
use sdk::testing::{NatsServer, as_request};

use super::*;

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
    let service = Service::new(server.fleet("npc-behavior").await).await.unwrap().0;

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

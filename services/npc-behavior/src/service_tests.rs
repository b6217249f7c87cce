//! The service against a real nats-server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use sdk::testing::NatsServer;
use sdk::{Context, Incoming, Settings};

use super::*;

/// Asks JetStream itself for what no service may: streams and buckets are natsctl's.
fn jetstream(server: &NatsServer, what: &str, request: &str) -> String {
    let mut socket = TcpStream::connect(server.link().urls[0].trim_start_matches("nats://")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let length = request.len();
    write!(
        socket,
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.STREAM.{what} answer {length}\r\n{request}\r\n"
    )
    .unwrap();
    let mut lines = BufReader::new(socket);
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the server hung up");
        if line.starts_with("MSG ") {
            line.clear();
            lines.read_line(&mut line).unwrap();
            assert!(!line.contains("\"error\""), "{what}: {line}");
            return line;
        }
    }
}

fn server() -> NatsServer {
    let server = NatsServer::start();
    let stream = r#"{"name": "EVENTS", "subjects": ["evt.npc.behavior.planned.v1"], "storage": "memory", "duplicate_window": 120000000000}"#;
    jetstream(&server, "CREATE.EVENTS", stream);
    server
}

/// How many events are stored.
fn events(server: &NatsServer) -> u64 {
    let info = jetstream(server, "INFO.EVENTS", "{}");
    let (_, count) = info.split_once("\"messages\":").unwrap();
    count.split_once(',').unwrap().0.trim().parse().unwrap()
}

async fn fleet(server: &NatsServer, service: &str) -> Fleet {
    Fleet::connect(Settings::for_service(service, server.link())).await.unwrap()
}

/// As if a request with this id were being handled.
async fn during<F: Future>(operation: &str, handling: F) -> F::Output {
    let request = Incoming {
        traceparent: None,
        request_id: Some(operation),
        idempotency_key: None,
        timeout: Duration::from_secs(20),
    };
    Context::incoming(request).scope(handling).await
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
async fn each_plan_is_announced_once() {
    let server = server();
    let service = Service::new(fleet(&server, "npc-behavior").await).await.unwrap().0;

    let plan = during("r1", service.plan(chore("smith", "done"))).await.unwrap();
    assert_eq!((plan.steps, plan.cost, plan.nodes_expanded), (vec!["work".to_owned()], 1.5, 1));
    assert_eq!(events(&server), 1);
    during("r1", service.plan(chore("smith", "done"))).await.unwrap();
    assert_eq!(events(&server), 1, "the same request again");
    during("r1", service.plan(chore("witch", "done"))).await.unwrap();
    assert_eq!(events(&server), 2, "the same operation plans for somebody else");

    let error = during("r2", service.plan(chore("smith", "undone"))).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(events(&server), 2);
}

//! A supervisor that starts on a machine where something has changed since the last one was killed.

use std::net::{Ipv4Addr, TcpListener};

use rustix::process::Signal;
use serde_json::json;

use super::fleet::{Fleet, eventually, serving, signal};
use super::http::Http;

/// The first of three ports next to each other that are free, outside of the range that connections use.
fn three_free_ports() -> u16 {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (12_000..20_000).step_by(7).skip(fastrand::usize(..1_000)).find(|first| (*first..first + 3).all(is_free)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_comes_back_although_a_node_cannot_and_what_is_said_agrees() {
    let fleet = Fleet::new(3);
    let port = three_free_ports();
    fleet.environment(3, port, 0);
    fleet.deploy(&["--all"]).await.ends(0);

    signal(fleet.description().await.supervisor.unwrap().pid, Signal::KILL);
    let listener =
        eventually("the port of a node is free", || async { TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok() })
            .await;
    let me = format!("(pid {})", std::process::id());
    let status = fleet.run(&["status"]).await.ends(3).out;
    assert!(status.contains("it does not run") && !status.contains("being started"), "{status}");

    // It takes the servers that are left a while to elect a leader; tasks exit until then.
    let scaled = fleet.run(&["scale", "quest-system", "3"]).await.ends(1);
    scaled.says(&["quest-system done", "`nats-1` does not start: nats-server"]);
    let all_serve = || async {
        let services = fleet.description().await.services;
        services.values().all(|service| serving(service) == service.desired as usize).then_some(())
    };
    eventually("all tasks serve", all_serve).await;
    let status = fleet.status().await;
    let services = status["services"].as_array().unwrap();
    assert!(services.iter().all(|service| service["reason"].is_null()), "{status:#}");
    let said = format!("port {port}, which `nats-1` needs for clients, is held by ");
    let problem = status["problems"][0].as_str().unwrap();
    assert!(problem.starts_with(&said) && problem.ends_with(&me), "{problem}");
    fleet.plan(&[]).await.ends(1).says(&[&said, &me, "hint: "]);

    drop(listener);
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_port_was_taken_is_not_healthy_until_it_listens() {
    let fleet = Fleet::new(1);
    let port = three_free_ports();
    fleet.environment(1, 0, port);
    fleet.deploy(&["--all"]).await.ends(0);
    signal(fleet.description().await.supervisor.unwrap().pid, Signal::KILL);
    let listener =
        eventually("the gateway's port is free", || async { TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok() })
            .await;
    fleet.run(&["scale", "npc-behavior", "3"]).await.ends(0);
    let deaf = "it does not listen for HTTP clients";
    let shown = fleet.run(&["status"]).await.ends(3).out;
    assert!(shown.contains(deaf) && shown.contains(&format!("port {port}, which `gateway` needs")), "{shown}");

    drop(listener);
    let shown = fleet.run(&["status"]).await.ends(3).out;
    assert!(shown.contains(deaf) && !shown.contains("is held by"), "{shown}");
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
    fleet.plan(&[]).await.ends(0);
    let answer = Http::new((Ipv4Addr::LOCALHOST, port).into()).post("/api/quest/v1/get", &json!({})).await.unwrap();
    assert_eq!(answer.status, 400, "it answers: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_waits_for_the_ports_of_a_supervisor_that_was_just_killed() {
    let fleet = Fleet::new(3);
    fleet.environment(3, three_free_ports(), 0);
    fleet.deploy(&["--all"]).await.ends(0);
    signal(fleet.description().await.supervisor.unwrap().pid, Signal::KILL);
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
}

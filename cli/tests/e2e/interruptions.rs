//! Whatever is interrupted or killed, at any time: `status` reports it, and the next deployment repairs it.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::fleet::{Fleet, eventually, serving, signal};
use super::load::{Load, idempotent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_deployment_is_finished_by_the_next_one() {
    let fleet = Fleet::new(3);
    for moment in ["steps: ", "create 3 nodes done", "create 4 buckets done", "  new "] {
        let mut deploy = fleet.start_deploy(&["--all"]);
        deploy.until(moment).await.interrupt();
        deploy.ended().await.ends(130).says(&["interrupted"]);
    }
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
    let description = fleet.description().await;
    for (name, service) in &description.services {
        assert_eq!((service.revision, service.desired, service.tasks.len()), (1, 2, 2), "{name}");
    }
    assert_eq!(description.nodes.len(), 3);
    assert_eq!(fleet.plan(&[]).await.ends(0).json(), json!({ "steps": [] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_change_waits_for_the_first_or_fails() {
    let fleet = Fleet::deployed(1).await;
    let mut first = fleet.start(&["restart", "--all"]);
    first.until("  new ").await;
    let (name, number) = ("restart --all".to_owned(), format!("pid {}", first.pid()));

    let refused = fleet.deploy(&["--all", "--no-wait-lock"]).await.ends(1);
    refused.says(&["the environment is being changed by", &name, &number, "hint: "]);
    let mut second = fleet.start_deploy(&["--all"]);
    second.until("waiting: the environment is being changed by").await;
    second.until(&number).await;
    // Looking is not changing.
    fleet.run(&["nats", "status"]).await.ends(0);

    let (first, second) = tokio::join!(first.ended(), second.ended());
    first.ends(0);
    second.ends(0);
    fleet.is_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_killed_comes_back_and_status_knows() {
    let fleet = Fleet::deployed(3).await;
    a_task(&fleet).await;
    a_server(&fleet).await;
    the_supervisor(&fleet).await;
}

async fn a_task(fleet: &Fleet) {
    let killed = fleet.service("quest-system").await.tasks[0].clone();
    // One that hangs is as bad as one that is gone, and stays for as long as `status` takes.
    signal(killed.pid.unwrap(), Signal::STOP);
    let status = fleet.run(&["status", "--output", "json"]).await.ends(3).json();
    let quests = named(&status["services"], "quest-system");
    assert_eq!((&quests["healthy"], &quests["reason"]), (&json!(1), &json!("1 of 2 tasks answer on the bus")));

    signal(killed.pid.unwrap(), Signal::KILL);
    eventually("another task has taken its place", || async {
        let service = fleet.service("quest-system").await;
        let others = service.tasks.iter().all(|task| task.id != killed.id);
        (others && serving(&service) == 2).then_some(())
    })
    .await;
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
}

async fn a_server(fleet: &Fleet) {
    let status = fleet.status().await;
    let nodes = status["nats"]["nodes"].as_array().unwrap();
    let leader = nodes.iter().find(|node| node["meta_leader"] == true).unwrap()["name"].as_str().unwrap();
    let pid = fleet.description().await.nodes[leader].pid.unwrap();
    signal(pid, Signal::STOP);
    let status = fleet.run(&["status", "--output", "json"]).await.ends(3).json();
    let node = named(&status["nats"]["nodes"], leader);
    assert_eq!((&node["healthy"], &status["healthy"]), (&json!(false), &json!(false)), "{status:#}");
    assert!(node["reason"].is_string(), "{node}");
    signal(pid, Signal::CONT);
    fleet.becomes_healthy().await;

    signal(pid, Signal::KILL);
    is_back(fleet, leader, pid).await;
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
}

async fn is_back(fleet: &Fleet, node: &str, killed: u32) {
    eventually("the server is started again", || async {
        let node = fleet.description().await.nodes.remove(node).unwrap();
        (node.running && node.pid != Some(killed)).then_some(())
    })
    .await;
}

async fn the_supervisor(fleet: &Fleet) {
    let request = json!({ "playerId": "ada", "level": 7 });
    let quest = fleet.gateway().await.post("/api/quest/v1/generate", &request).await.unwrap().json()["quest"].clone();
    let before: BTreeSet<u32> = fleet.processes().into_keys().collect();
    signal(fleet.description().await.supervisor.unwrap().pid, Signal::KILL);
    eventually("no process is left", || async { fleet.processes().is_empty().then_some(()) }).await;

    let status = fleet.run(&["status", "--output", "json"]).await.ends(3).json();
    assert!(status["problems"][0].as_str().unwrap().contains("the supervisor does not run"), "{status:#}");
    assert_eq!(status["nats"]["quorum"], false);
    assert!(status["services"].as_array().unwrap().iter().all(|service| service["healthy"] == 0), "{status:#}");

    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
    assert!(fleet.processes().into_keys().all(|pid| !before.contains(&pid)));
    let wanted = json!({ "playerId": "ada", "questId": quest["id"] });
    let found = fleet.gateway().await.post("/api/quest/v1/get", &wanted).await.unwrap().json();
    assert_eq!(found["quest"], quest);
}

/// The leader of JetStream, which is the worst.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_when_a_server_is_killed() {
    let fleet = Fleet::deployed(3).await;
    let nodes = fleet.status().await["nats"]["nodes"].clone();
    let leader = nodes.as_array().unwrap().iter().find(|node| node["meta_leader"] == true).unwrap();
    let leader = leader["name"].as_str().unwrap();
    let load = Load::start(&fleet.gateway().await, idempotent);
    let pid = fleet.description().await.nodes[leader].pid.unwrap();
    signal(pid, Signal::KILL);
    is_back(&fleet, leader, pid).await;
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
    load.ends_without_a_failure(200).await;
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|item| item["name"] == name).unwrap()
}

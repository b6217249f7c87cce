//! Processes that run and are not well: a plan names them, and a deployment repairs them.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};

use super::fleet::{Fleet, eventually, signal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_hang_are_named_by_a_plan_and_repaired_by_a_deployment() {
    let fleet = Fleet::deployed(3).await;
    the_leader_hangs(&fleet).await;
    all_servers_hang(&fleet).await;
}

async fn the_leader_hangs(fleet: &Fleet) {
    let status = fleet.status().await;
    let nodes = status["nats"]["nodes"].as_array().unwrap();
    let leader = nodes.iter().find(|node| node["meta_leader"] == true).unwrap()["name"].as_str().unwrap();
    stop(fleet, leader).await;
    let plan = fleet.plan(&[]).await.ends(2).json();
    assert_eq!(restarts(&plan), [(leader.to_owned(), "does not answer".to_owned())], "{plan:#}");
    is_repaired(fleet).await;
}

async fn all_servers_hang(fleet: &Fleet) {
    for node in ["nats-1", "nats-2", "nats-3"] {
        stop(fleet, node).await;
    }
    let plan = fleet.plan(&[]).await.ends(2).json();
    let names: Vec<String> = restarts(&plan).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["nats-1", "nats-2", "nats-3"], "{plan:#}");
    assert!(plan["steps"].as_array().unwrap().iter().all(|step| step["wave"] == 0), "{plan:#}");
    assert!(plan["incomplete"].as_str().unwrap().contains("`nats-2`: does not answer"), "{plan:#}");
    is_repaired(fleet).await;
}

/// As it is after an error of its disk: it may write no more than this to a file.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_write_is_repaired_and_the_others_are_left_alone() {
    const LONGEST_FILE: u64 = 1 << 20;
    let fleet = Fleet::deployed(3).await;
    let before = fleet.description().await.nodes;
    let limit = Rlimit { current: Some(LONGEST_FILE), maximum: Some(LONGEST_FILE) };
    prlimit(Pid::from_raw(before["nats-2"].pid.unwrap().try_into().unwrap()), Resource::Fsize, limit).unwrap();

    let mut gateway = fleet.gateway().await;
    let record = "x".repeat(100_000);
    for number in 0..40 {
        let key = json!({ "kind": "KIND_PLAYER", "id": format!("p{number}") });
        let update = json!({ "key": key, "merge": { "x": record } });
        gateway.post("/api/state/manager/v1/update", &update).await.unwrap().json();
    }
    let found = eventually("the server says what is wrong", || async {
        let plan = fleet.plan(&[]).await.json();
        Some(restarts(&plan)).filter(|restarts| !restarts.is_empty())
    })
    .await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "nats-2", "{found:?}");
    is_repaired(&fleet).await;
    let after = fleet.description().await.nodes;
    let is_the_same = ["nats-1", "nats-2", "nats-3"].map(|node| before[node].pid == after[node].pid);
    assert_eq!(is_the_same, [true, false, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_and_a_task_that_hangs() {
    let fleet = Fleet::deployed(3).await;
    a_server_that_starts_is_waited_for(&fleet).await;
    a_task_that_hangs_is_replaced(&fleet).await;
    a_supervisor_that_hangs_is_named(&fleet).await;
}

async fn a_server_that_starts_is_waited_for(fleet: &Fleet) {
    let killed = fleet.description().await.nodes["nats-2"].pid.unwrap();
    signal(killed, Signal::KILL);
    eventually("it is started again", || async {
        fleet.description().await.nodes["nats-2"].pid.filter(|pid| *pid != killed)
    })
    .await;
    assert_eq!(fleet.plan(&[]).await.ends(0).json(), json!({ "steps": [] }));
}

async fn a_task_that_hangs_is_replaced(fleet: &Fleet) {
    let hung = fleet.service("quest-system").await.tasks[0].clone();
    signal(hung.pid.unwrap(), Signal::STOP);
    let plan = fleet.plan(&[]).await.ends(2).json();
    let steps = plan["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &steps[0]["name"], &steps[0]["action"]), (1, &json!("quest-system"), &json!("start")));
    is_repaired(fleet).await;
    assert!(fleet.service("quest-system").await.tasks.iter().all(|task| task.id != hung.id));
}

async fn a_supervisor_that_hangs_is_named(fleet: &Fleet) {
    let supervisor = fleet.description().await.supervisor.unwrap().pid;
    signal(supervisor, Signal::STOP);
    let pid = format!("the supervisor (pid {supervisor}) does not answer");
    let cont = format!("`kill -CONT {supervisor}`");
    for command in [["status"].as_slice(), &["down"], &["scale", "quest-system", "3"], &["logs"]] {
        let began = Instant::now();
        fleet.run(command).await.ends(1).says(&[&pid, "hint: ", &cont]);
        assert!(began.elapsed() < Duration::from_secs(20), "{command:?}: {:?}", began.elapsed());
    }
    fleet.plan(&[]).await.ends(1).says(&[&pid, &cont]);
    signal(supervisor, Signal::CONT);
    fleet.is_healthy().await;
    assert_eq!(fleet.plan(&[]).await.ends(0).json(), json!({ "steps": [] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_never_planned_as_if_it_were_not_there() {
    let fleet = Fleet::deployed(3).await;
    // Until there is another leader, nobody can list the streams.
    let status = fleet.status().await;
    let nodes = status["nats"]["nodes"].as_array().unwrap();
    let leader = nodes.iter().find(|node| node["meta_leader"] == true).unwrap()["name"].as_str().unwrap();
    signal(fleet.description().await.nodes[leader].pid.unwrap(), Signal::KILL);
    creates_no_stream(&fleet).await;

    signal(fleet.description().await.supervisor.unwrap().pid, Signal::KILL);
    eventually("no process is left", || async { fleet.processes().is_empty().then_some(()) }).await;
    creates_no_stream(&fleet).await;
    fleet.run(&["scale", "quest-system", "2"]).await.ends(1).says(&["the supervisor does not run", "hint: "]);
    fleet.deploy(&["--all"]).await.ends(0);

    // A supervisor whose socket is gone still runs, and makes another.
    std::fs::remove_file(fleet.state().join("supervisor.sock")).unwrap();
    fleet.is_healthy().await;

    fleet.run(&["down"]).await.ends(0);
    creates_no_stream(&fleet).await;
    fleet.run(&["status"]).await.ends(3);
}

async fn creates_no_stream(fleet: &Fleet) {
    let plan = fleet.plan(&[]).await.json();
    let steps = plan["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["kind"] == "node"), "{plan:#}");
}

async fn stop(fleet: &Fleet, node: &str) {
    signal(fleet.description().await.nodes[node].pid.unwrap(), Signal::STOP);
}

/// The servers that a plan restarts, and why.
fn restarts(plan: &Value) -> Vec<(String, String)> {
    let steps = plan["steps"].as_array().unwrap().iter();
    let restart = |step: &Value| {
        let repair = &step["operation"]["repair_node"];
        Some((step["name"].as_str()?.to_owned(), repair["reason"].as_str()?.to_owned()))
    };
    steps.filter_map(restart).collect()
}

/// One deployment is enough, and nothing is left to do then.
async fn is_repaired(fleet: &Fleet) {
    fleet.deploy(&["--all"]).await.ends(0);
    assert_eq!(fleet.plan(&[]).await.ends(0).json(), json!({ "steps": [] }));
    fleet.is_healthy().await;
}

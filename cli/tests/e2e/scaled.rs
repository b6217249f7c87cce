//! Other numbers of tasks than the manifests say.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::fleet::{Fleet, eventually, serving, signal};

/// What `status` says of a service.
async fn state(fleet: &Fleet, service: &str) -> Value {
    let status = fleet.status().await;
    let services = status["services"].as_array().unwrap();
    services.iter().find(|one| one["name"] == service).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_was_scaled_to_0_is_not_healthy_and_comes_back_as_its_manifest_says() {
    let fleet = Fleet::new(1);
    fleet.append("quest-system", "tasks: 3\nautoscaling: { min: 1 }\n");
    fleet.deploy(&["--all"]).await.ends(0);

    let scaled = fleet.run(&["scale", "quest-system", "0"]).await.ends(0);
    assert!(scaled.out.contains("quest-system is scaled to 0: no task of it runs"), "{scaled:?}");
    let shown = fleet.run(&["status"]).await.ends(3).out;
    assert!(shown.contains("environment test: NOT healthy"), "{shown}");
    let reason = state(&fleet, "quest-system").await["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("scaled to 0 by ") && reason.contains(" at 20"), "{reason}");
    assert!(reason.contains("`natsctl scale quest-system 3` starts it again"), "{reason}");
    assert_eq!(state(&fleet, "gateway").await["reason"], Value::Null);

    let plan = fleet.plan(&[]).await.ends(2).json();
    assert_eq!(plan["steps"][0]["changes"], json!([{ "field": "tasks", "from": 0, "to": 3 }]));
    // A deployment of other services does not touch it.
    fleet.deploy(&["npc-behavior"]).await.ends(0);
    assert_eq!(fleet.service("quest-system").await.desired, 0);
    fleet.deploy(&["--all"]).await.ends(0);
    assert_eq!(serving(&fleet.service("quest-system").await), 3);
    fleet.is_healthy().await;
    fleet.plan(&[]).await.ends(0);

    tasks_that_exit_again_and_again_are_a_crash_loop(&fleet).await;
    a_service_that_was_rolled_back_says_so(&fleet).await;
    another_number_within_bounds_is_noted_and_stays(&fleet).await;
    the_gateway_can_be_scaled_to_0_too(&fleet).await;
}

async fn tasks_that_exit_again_and_again_are_a_crash_loop(fleet: &Fleet) {
    for _ in 0..3 {
        // The last one replaces those before.
        let task = fleet.service("npc-behavior").await.tasks.into_iter().max_by_key(|task| task.restarts).unwrap();
        signal(task.pid.unwrap(), Signal::KILL);
        eventually("another task has taken its place", || async {
            let service = fleet.service("npc-behavior").await;
            let is_back = service.tasks.iter().all(|other| other.id != task.id) && serving(&service) == 2;
            is_back.then_some(())
        })
        .await;
    }
    let status = fleet.run(&["status", "npc-behavior", "--output", "json"]).await.ends(3).json();
    let service = &status["services"][0];
    assert_eq!(
        (&service["state"], &service["healthy"], &service["restarts"]),
        (&json!("crash_loop"), &json!(2), &json!(3))
    );
    let reason = "crash loop: 3 tasks exited within 10 minutes; the last one was ended by signal 9 (SIGKILL)";
    assert_eq!(service["reason"], reason);
    let shown = fleet.run(&["status"]).await.ends(3).out;
    assert_eq!(shown.lines().next(), Some("environment test: NOT healthy: npc-behavior: crash loop"), "{shown}");
    let logs = fleet.run(&["logs", "npc-behavior", "--previous", "--output", "json"]).await.ends(0).out;
    assert!(!logs.is_empty());
    // Other tasks, with nothing behind them.
    fleet.run(&["restart", "npc-behavior"]).await.ends(0);
    fleet.is_healthy().await;
}

async fn a_service_that_was_rolled_back_says_so(fleet: &Fleet) {
    let (file, before) = fleet.service_manifest("npc-behavior");
    fleet.append("npc-behavior", "environment: { LOG_LEVEL: debug }\n");
    fleet.deploy(&["npc-behavior"]).await.ends(0);
    assert!(state(fleet, "npc-behavior").await.get("flags").is_none());
    fleet.run(&["rollback", "npc-behavior"]).await.ends(0);
    let status = fleet.status().await;
    assert_eq!(state(fleet, "npc-behavior").await["flags"], json!(["rolled_back"]), "{status:#}");
    let note = status["notes"][0].as_str().unwrap();
    assert!(note.starts_with("service `npc-behavior`: rolled back by "), "{note}");
    std::fs::write(file, before).unwrap();
}

async fn the_gateway_can_be_scaled_to_0_too(fleet: &Fleet) {
    let scaled = fleet.run(&["scale", "gateway", "0"]).await.ends(0);
    assert!(scaled.out.contains("gateway is scaled to 0: no task of it runs"), "{scaled:?}");
    scaled.says(&["gateway done"]);
    fleet.run(&["status"]).await.ends(3);
    fleet.deploy(&["gateway"]).await.ends(0);
    fleet.is_healthy().await;
}

async fn another_number_within_bounds_is_noted_and_stays(fleet: &Fleet) {
    fleet.run(&["scale", "quest-system", "2"]).await.ends(0);
    let status = fleet.status().await;
    assert_eq!(status["healthy"], true);
    let mut notes = status["notes"].as_array().unwrap().iter().filter_map(Value::as_str);
    let note = notes.find(|note| note.starts_with("service `quest-system`: scaled to 2 by ")).unwrap();
    assert!(note.ends_with("; its manifest says 3"), "{note}");
    assert_eq!(state(fleet, "quest-system").await["flags"], json!(["scaled_by_hand"]));
    fleet.deploy(&["--all"]).await.ends(0);
    assert_eq!(serving(&fleet.service("quest-system").await), 2);
}

//! Other numbers of tasks than the manifests say.

use serde_json::{Value, json};

use super::fleet::{Fleet, serving};

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

    another_number_within_bounds_is_noted_and_stays(&fleet).await;
    the_gateway_can_be_scaled_to_0_too(&fleet).await;
}

async fn the_gateway_can_be_scaled_to_0_too(fleet: &Fleet) {
    let scaled = fleet.run(&["scale", "gateway", "0"]).await.ends(0);
    assert!(scaled.out.contains("gateway is scaled to 0: no task of it runs"), "{scaled:?}");
    scaled.says(&["service gateway: its tasks stop"]);
    fleet.run(&["status"]).await.ends(3);
    fleet.deploy(&["gateway"]).await.ends(0);
    fleet.is_healthy().await;
}

async fn another_number_within_bounds_is_noted_and_stays(fleet: &Fleet) {
    fleet.run(&["scale", "quest-system", "2"]).await.ends(0);
    let status = fleet.status().await;
    assert_eq!(status["healthy"], true);
    let note = status["notes"][0].as_str().unwrap();
    assert!(note.starts_with("service `quest-system`: scaled to 2 by "), "{note}");
    assert!(note.ends_with("; its manifest says 3"), "{note}");
    fleet.deploy(&["--all"]).await.ends(0);
    assert_eq!(serving(&fleet.service("quest-system").await), 2);
}

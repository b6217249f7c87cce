//! Revisions: what differs from the manifests, who made it so, and what may go.

use std::process::Command;

use serde_json::{Value, json};

use super::fleet::Fleet;
use crate::emulator::Emulator;

const CLUSTER: &str = "gaming-system-cluster";
const SERVICE: &str = "quest-system-nats";

fn deployed() -> (Fleet, Emulator) {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    (fleet, emulator)
}

/// Deploys the newest revision with another variable by hand. Through the proxy, so that CloudTrail has it, if there is an AWS CLI
/// on this machine; whether there is.
fn by_hand(emulator: &Emulator) -> bool {
    let newest = emulator.call("ecs", "DescribeTaskDefinition", &json!({ "taskDefinition": SERVICE }));
    let mut definition = newest["taskDefinition"].clone();
    let fields = definition.as_object_mut().unwrap();
    fields.retain(|field, _| {
        ["family", "cpu", "memory", "networkMode", "requiresCompatibilities", "runtimePlatform", "containerDefinitions"]
            .contains(&field.as_str())
            || field.ends_with("RoleArn")
    });
    let environment = definition["containerDefinitions"][0]["environment"].as_array_mut().unwrap();
    environment.push(json!({ "name": "LOG_LEVEL", "value": "debug" }));
    let update = json!({ "cluster": CLUSTER, "service": SERVICE, "taskDefinition": format!("{SERVICE}:2") });
    let calls = [
        ("RegisterTaskDefinition", "register-task-definition", definition),
        ("UpdateService", "update-service", update),
    ];
    let mut traced = true;
    for (action, command, body) in calls {
        let mut cli = Command::new("aws");
        cli.args(["ecs", command, "--cli-input-json", &body.to_string()]).envs(emulator.env());
        let ran = cli.env("AWS_ACCESS_KEY_ID", "bob").output();
        if !ran.is_ok_and(|output| output.status.success()) {
            traced = false;
            emulator.call("ecs", action, &body);
        }
    }
    traced
}

#[test]
fn what_was_changed_by_hand_is_drift_and_says_who_did_it() {
    let (fleet, emulator) = deployed();
    assert_eq!(fleet.natsctl(&emulator, &["drift"]).code, Some(0));
    let traced = by_hand(&emulator);

    let ran = fleet.natsctl(&emulator, &["drift", "--output", "json"]);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    let drifted = ran.json()["drifted"].as_array().unwrap().clone();
    assert_eq!(drifted.len(), 1, "{drifted:#?}");
    assert_eq!(drifted[0]["name"], "quest-system");
    assert_eq!(drifted[0]["task_definition"], format!("{SERVICE}:2"));
    let changes = drifted[0]["changes"].as_array().unwrap();
    let expected = json!({ "field": "definition.environment.LOG_LEVEL", "from": "debug", "to": null });
    assert_eq!(changes, &[expected]);
    if traced {
        let actions: Vec<&Value> = drifted[0]["deeds"].as_array().unwrap().iter().map(|deed| &deed["action"]).collect();
        assert_eq!(actions, ["UpdateService", "RegisterTaskDefinition"]);
        assert!(drifted[0]["deeds"][0]["who"].as_str().unwrap().ends_with("user/bob"), "{drifted:#?}");
    }

    let diff = fleet.natsctl(&emulator, &["diff", "quest-system", "--from", "1", "--to", "2"]);
    assert!(diff.stdout.contains("environment.LOG_LEVEL: (none) -> debug"), "{diff:#?}");
    assert_eq!(diff.code, Some(2));
    fleet.deploy(&emulator, &[]).succeeded();
    assert_eq!(fleet.natsctl(&emulator, &["drift"]).code, Some(0));
}

#[test]
fn a_service_that_is_gone_is_drift() {
    let (fleet, emulator) = deployed();
    emulator.call("ecs", "DeleteService", &json!({ "cluster": CLUSTER, "service": SERVICE, "force": true }));
    let ran = fleet.natsctl(&emulator, &["drift"]);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.stdout.contains("quest-system"), "{ran:#?}");
}

#[test]
fn old_revisions_go_and_what_is_needed_stays() {
    let (fleet, emulator) = deployed();
    for version in 2..=5 {
        fleet.version("quest-system", version);
        fleet.deploy(&emulator, &[]).succeeded();
    }
    fleet.natsctl(&emulator, &["rollback", "quest-system", "--to", "2"]).succeeded();
    let listed = fleet.natsctl(&emulator, &["revisions", "quest-system", "--output", "json"]).json();
    let numbers: Vec<u64> = listed.as_array().unwrap().iter().map(|one| one["revision"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
    assert_eq!(listed[3]["kept"][0], "current");

    let ran = fleet.natsctl(&emulator, &["deregister", "quest-system", "--keep", "1", "--output", "json"]).succeeded();
    // 5 is the newest, 2 runs, and a rollback goes to 1.
    assert_eq!(ran.json()[0]["kept"], json!([5, 2, 1]));
    assert_eq!(ran.json()[0]["deregistered"].as_array().unwrap().len(), 2);
    fleet.natsctl(&emulator, &["rollback", "quest-system"]).succeeded();
}

#[test]
fn a_definition_that_is_registered_is_not_deployed_and_not_registered_twice() {
    let (fleet, emulator) = deployed();
    fleet.version("quest-system", 2);
    emulator.reset_calls();
    for _ in 0..2 {
        let ran = fleet.natsctl(&emulator, &["register", "quest-system", "--output", "json"]).succeeded();
        assert_eq!(ran.json(), json!({ "quest-system": format!("{SERVICE}:2") }));
    }
    let counts = emulator.counts();
    assert_eq!((counts.get("ecs:RegisterTaskDefinition"), counts.get("ecs:UpdateService")), (Some(&1), None));
}

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
    assert!(diff.stdout.contains("environment.LOG_LEVEL (none) → debug"), "{diff:#?}");
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

#[test]
fn what_was_changed_by_hand_beside_the_definition_is_drift_and_is_brought_back() {
    let (fleet, emulator) = deployed();
    let described = json!({ "cluster": CLUSTER, "services": [SERVICE] });
    let service = || emulator.call("ecs", "DescribeServices", &described)["services"][0].clone();
    let mut network = service()["networkConfiguration"].clone();
    network["awsvpcConfiguration"]["assignPublicIp"] = "ENABLED".into();
    let update = json!({
        "cluster": CLUSTER, "service": SERVICE, "networkConfiguration": network, "platformVersion": "1.3.0",
        "capacityProviderStrategy": [{ "capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0 }],
    });
    emulator.call("ecs", "UpdateService", &update);
    let drift = fleet.natsctl(&emulator, &["drift"]);
    assert_eq!(drift.code, Some(2), "{drift:#?}");
    for line in [
        "service.assign_public_ip true → false",
        "service.capacity_providers.FARGATE_SPOT.weight 1 → (none)",
        "service.platform_version 1.3.0 → LATEST",
    ] {
        assert!(drift.stdout.contains(line), "`{line}`: {drift:#?}");
    }
    fleet.deploy(&emulator, &[]).succeeded();
    let drift = fleet.natsctl(&emulator, &["drift"]);
    assert_eq!(drift.code, Some(0), "{drift:#?}");
    assert_eq!(service()["networkConfiguration"]["awsvpcConfiguration"]["assignPublicIp"], "DISABLED");
}

#[test]
fn what_no_manifest_sets_is_kept_and_named() {
    let (fleet, emulator) = deployed();
    let resource = format!("service/{CLUSTER}/{SERVICE}");
    let target =
        json!({ "ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount", "ResourceId": resource });
    let with = |more: Value| {
        let mut body = target.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let scaling = |action: &str, more: Value| emulator.call("application-autoscaling", action, &with(more));
    scaling("RegisterScalableTarget", json!({ "MinCapacity": 6, "MaxCapacity": 20 }));
    let sets = json!({ "MinCapacity": 6, "MaxCapacity": 20 });
    let nightly =
        json!({ "ScheduledActionName": "nightly", "Schedule": "cron(0 20 * * ? *)", "ScalableTargetAction": sets });
    scaling("PutScheduledAction", nightly);
    let balancers = json!([{ "targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/x/0123456789abcdef",
        "containerName": "quest-system", "containerPort": 8080 }]);
    let update = json!({ "cluster": CLUSTER, "service": SERVICE, "desiredCount": 7, "loadBalancers": balancers });
    emulator.call("ecs", "UpdateService", &update);

    let plan = fleet.natsctl(&emulator, &["plan", "--proof", "ecs"]).succeeded();
    let kept = "= service quest-system keeps what its manifest does not set";
    for line in
        ["nothing to do", kept, "scheduled action `nightly`: cron(0 20 * * ? *): min 6, max 20", "loadBalancers: "]
    {
        assert!(plan.stdout.contains(line), "`{line}`: {plan:#?}");
    }
    let drift = fleet.natsctl(&emulator, &["drift"]).succeeded();
    assert!(drift.stdout.contains("scheduled action `nightly`"), "{drift:#?}");

    fleet.version("quest-system", 2);
    fleet.deploy(&emulator, &[]).succeeded();
    let described = emulator.call("ecs", "DescribeServices", &json!({ "cluster": CLUSTER, "services": [SERVICE] }));
    assert_eq!(described["services"][0]["loadBalancers"], balancers);
    assert_eq!(described["services"][0]["desiredCount"], 7);
    let targets = json!({ "ServiceNamespace": "ecs", "ResourceIds": [resource] });
    let targets = emulator.call("application-autoscaling", "DescribeScalableTargets", &targets);
    assert_eq!(
        (&targets["ScalableTargets"][0]["MinCapacity"], &targets["ScalableTargets"][0]["MaxCapacity"]),
        (&json!(6), &json!(20))
    );
}

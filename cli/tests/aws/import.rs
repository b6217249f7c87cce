//! `natsctl import`: a service that was created by other means on ECS becomes a manifest.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fleet::Fleet;
use crate::emulator::Emulator;

const CLUSTER: &str = "gaming-system-cluster";

/// A service and its task definition as people have them, from `definitions/`.
fn example(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/aws/definitions");
    serde_json::from_str(&std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap()).unwrap()
}

/// The same, with the secrets and parameters that it names.
fn example_with_secrets(emulator: &Emulator, name: &str) -> Value {
    let parameter = json!({ "Name": "/shared/datadog", "Value": "x", "Type": "SecureString", "Overwrite": true });
    emulator.call("ssm", "PutParameter", &parameter);
    let secret = json!({ "Name": format!("datadog-of-{name}"), "SecretString": "{\"api_key\":\"x\"}" });
    let secret = emulator.call("secretsmanager", "CreateSecret", &secret);
    let text = example(name).to_string();
    let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog-Xy12Zz";
    serde_json::from_str(&text.replace(arn, secret["ARN"].as_str().unwrap())).unwrap()
}

/// Waits until all tasks of a service run and its deployment is complete.
fn until_running(emulator: &Emulator, service: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let described = json!({ "cluster": CLUSTER, "services": [service] });
    loop {
        let found = emulator.call("ecs", "DescribeServices", &described)["services"][0].clone();
        let deployment = &found["deployments"][0];
        if found["runningCount"] == found["desiredCount"] && deployment["rolloutState"] == "COMPLETED" {
            return;
        }
        assert!(Instant::now() < deadline, "{found:#}");
        std::thread::yield_now();
    }
}

/// Creates the service by plain calls, and gives its name.
fn create(emulator: &Emulator, said: &Value) -> String {
    let definition = emulator.call("ecs", "RegisterTaskDefinition", &said["taskDefinition"]);
    let mut service = said["service"].clone();
    service["cluster"] = CLUSTER.into();
    service["taskDefinition"] = definition["taskDefinition"]["taskDefinitionArn"].clone();
    emulator.call("ecs", "CreateService", &service);
    service["serviceName"].as_str().unwrap().to_owned()
}

/// The manifests of a fleet without services: all that is there is imported.
fn empty() -> (Fleet, Emulator) {
    let fleet = Fleet::of(1);
    let emulator = fleet.emulator();
    std::fs::remove_file(fleet.service_file(&fleet.services[0])).unwrap();
    (fleet, emulator)
}

#[test]
fn what_was_imported_is_planned_as_nothing_to_do() {
    let (fleet, emulator) = empty();
    for name in ["web", "agent", "firelens", "efs", "spot", "tuned", "java", "migrate"] {
        let service = create(&emulator, &example_with_secrets(&emulator, name));
        fleet.natsctl(&emulator, &["import", &service]).succeeded();
        until_running(&emulator, &service);
    }
    fleet.natsctl(&emulator, &["validate"]).succeeded();
    let plan = fleet.natsctl(&emulator, &["plan", "--proof", "ecs"]).succeeded();
    assert!(plan.stdout.contains("nothing to do"), "{plan:#?}");
    let drift = fleet.natsctl(&emulator, &["drift"]).succeeded();
    assert!(drift.stdout.contains("everything is as the manifests say"), "{drift:#?}");
}

#[test]
fn an_image_that_is_named_by_a_tag_keeps_it_beside_the_digest_that_runs() {
    let (fleet, emulator) = empty();
    let mut said = example("java");
    said["taskDefinition"]["containerDefinitions"][0]["image"] = "docker.io/example/ledger:1.4".into();
    let service = create(&emulator, &said);
    until_running(&emulator, &service);
    let imported = fleet.natsctl(&emulator, &["import", &service]).succeeded();
    assert!(format!("{imported:?}").contains("`docker.io/example/ledger:1.4` is a tag"), "{imported:#?}");
    let file = fleet.service_file("ledger-v2");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("docker.io/example/ledger:1.4@sha256:"), "{text}");
    let plan = fleet.natsctl(&emulator, &["plan", "--proof", "ecs"]).succeeded();
    assert!(plan.stdout.contains("nothing to do"), "{plan:#?}");
    let drift = fleet.natsctl(&emulator, &["drift"]).succeeded();
    assert!(drift.stdout.contains("everything is as the manifests say"), "{drift:#?}");

    // Another digest than the one that runs is a change, also beside the same tag.
    let digest = &text.split_once("@sha256:").unwrap().1[..64];
    std::fs::write(&file, text.replace(digest, &"9".repeat(64))).unwrap();
    let plan = fleet.natsctl(&emulator, &["plan", "--proof", "ecs"]);
    assert!(plan.code == Some(2) && plan.stdout.contains("    artifact "), "{plan:#?}");
}

#[test]
fn what_was_imported_is_deployed_without_loss() {
    let (fleet, emulator) = empty();
    let mut said = example_with_secrets(&emulator, "agent");
    let service = create(&emulator, &said);
    fleet.natsctl(&emulator, &["import", &service]).succeeded();
    let file = fleet.service_file("orders");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("NODE_ENV: \"production\"", "NODE_ENV: staging")).unwrap();
    fleet.deploy(&emulator, &[]).succeeded();
    let now = emulator.call("ecs", "DescribeTaskDefinition", &json!({ "taskDefinition": "orders" }));
    let mut containers = now["taskDefinition"]["containerDefinitions"].as_array().unwrap().clone();
    containers.sort_by_key(|container| container["name"] != "datadog-agent");
    assert_eq!(now["taskDefinition"]["revision"], 2);
    for container in said["taskDefinition"]["containerDefinitions"].as_array_mut().unwrap() {
        let found = containers.iter().find(|found| found["name"] == container["name"]).unwrap();
        for (field, value) in container.as_object().unwrap() {
            let is_sorted = ["environment", "healthCheck", "portMappings"].contains(&field.as_str());
            assert!(is_sorted || found[field] == *value, "{field}: {} is not {value}", found[field]);
        }
    }
    let app = containers.iter().find(|found| found["name"] == "app").unwrap();
    assert_eq!(app["environment"], json!([{ "name": "NODE_ENV", "value": "staging" }]));
    let plan = fleet.natsctl(&emulator, &["plan", "--proof", "ecs"]).succeeded();
    assert!(plan.stdout.contains("nothing to do"), "{plan:#?}");
}

#[test]
fn what_cannot_be_imported_is_refused_and_nothing_is_written() {
    let (fleet, emulator) = empty();
    let mut said = example("spot");
    said["taskDefinition"]["containerDefinitions"][0]["resourceRequirements"] =
        json!([{ "type": "GPU", "value": "1" }]);
    said["taskDefinition"]["proxyConfiguration"] = json!({ "type": "APPMESH", "containerName": "crawler" });
    let service = create(&emulator, &said);
    let parts =
        ["cannot express all of", "- container.resourceRequirements", "- proxyConfiguration", "nothing was written"];
    fleet.natsctl(&emulator, &["import", &service]).failed(&parts);
    assert!(!fleet.service_file("crawler").exists());
    fleet.natsctl(&emulator, &["import", "unknown"]).failed(&["there is no service `unknown` on ECS", "hint:"]);
    fleet.natsctl(&emulator, &["import", &service, "--as", "../x"]).failed(&["is no name of a service", "--as NAME"]);
}

#[test]
fn a_service_is_imported_once_and_broken_manifests_of_others_do_not_matter() {
    let (fleet, emulator) = empty();
    let service = create(&emulator, &example("java"));
    std::fs::write(fleet.service_file("broken"), "name: broken\nservse: []\n").unwrap();
    fleet.natsctl(&emulator, &["import", &service]).succeeded();
    let text = std::fs::read_to_string(fleet.service_file("ledger-v2")).unwrap();
    fleet.natsctl(&emulator, &["import", &service]).failed(&["is the manifest of the ECS service `ledger_v2` already"]);
    fleet.natsctl(&emulator, &["import", &service, "--as", "other"]).failed(&["is the manifest of the ECS service"]);
    assert_eq!(std::fs::read_to_string(fleet.service_file("ledger-v2")).unwrap(), text);
    assert!(!fleet.service_file("other").exists());
}

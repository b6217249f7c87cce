//! What differs of services in one environment, and services that are deployed and do not run.

use std::fs;

use serde_json::{Value, json};

use super::fleet::Fleet;
use super::world::World;
use crate::emulator::Emulator;

const CLUSTER: &str = "gaming-system-cluster";
const SERVICE: &str = "quest-system-nats";

/// The environment's manifest has these lines under `services`.
fn override_services(fleet: &Fleet, lines: &str) {
    let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/environments/production.yaml");
    let text = fs::read_to_string(from).unwrap();
    fs::write(fleet.manifests().join("environments/production.yaml"), format!("{text}services:\n{lines}")).unwrap();
}

fn desired(emulator: &Emulator) -> Value {
    let services = json!({ "cluster": CLUSTER, "services": [SERVICE] });
    emulator.call("ecs", "DescribeServices", &services)["services"][0]["desiredCount"].clone()
}

#[test]
fn an_environment_says_how_a_service_differs_there() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    override_services(
        &fleet,
        "  quest-system: { cpu: 512, memory: 1 GiB, tasks: 3, environment: { HERE: production } }\n",
    );
    fleet.deploy(&emulator, &[]).succeeded();
    let definition = emulator.call("ecs", "DescribeTaskDefinition", &json!({ "taskDefinition": SERVICE }));
    let definition = &definition["taskDefinition"];
    assert_eq!((&definition["cpu"], &definition["memory"]), (&json!("512"), &json!("1024")));
    let variables = definition["containerDefinitions"][0]["environment"].as_array().unwrap();
    assert!(variables.contains(&json!({ "name": "HERE", "value": "production" })), "{variables:#?}");
    assert_eq!(desired(&emulator), 3);

    override_services(&fleet, "  quest-system: { cpu: 512, memry: 1 GiB }\n");
    fleet.natsctl(&emulator, &["plan", "--proof", "ecs"]).failed(&[
        "environments/production.yaml:",
        "unknown key `memry`",
        "did you mean `memory`?",
    ]);
}

#[test]
fn a_service_with_0_tasks_is_deployed_and_healthy_and_nothing_scales_it() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    override_services(&fleet, "  quest-system: { tasks: 0 }\n");
    fleet.deploy(&emulator, &[]).succeeded();
    let world = World::of(&emulator);
    assert_eq!((world.services[SERVICE].desired, world.services[SERVICE].running), (0, 0));
    assert_eq!(world.targets[SERVICE], (0, 0));
    let status = fleet.natsctl(&emulator, &["status"]).succeeded();
    let is_shown = |line: &str| line.starts_with("quest-system ") && line.contains("healthy  0/0");
    assert!(status.stdout.lines().any(is_shown), "{status:#?}");
    let plan = fleet.natsctl(&emulator, &["plan", "--proof", "ecs"]).succeeded();
    assert!(plan.stdout.contains("nothing to do"), "{plan:#?}");
    fleet.natsctl(&emulator, &["scale", "quest-system", "1"]).failed(&["at most 0 tasks", "raise `tasks`"]);

    override_services(&fleet, "  quest-system: { tasks: 3 }\n");
    fleet.deploy(&emulator, &[]).succeeded();
    assert_eq!((desired(&emulator), World::of(&emulator).targets[SERVICE]), (json!(3), (2, 10)));
    override_services(&fleet, "  quest-system: { tasks: 0 }\n");
    let stopped = fleet.deploy(&emulator, &[]).succeeded();
    assert!(stopped.stdout.contains("quest-system"), "{stopped:#?}");
    assert_eq!((desired(&emulator), World::of(&emulator).targets[SERVICE]), (json!(0), (0, 0)));
}

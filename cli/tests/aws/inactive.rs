//! The running revision was deregistered: what runs goes on, and whatever needs the revision registers it anew.

use serde_json::{Value, json};

use super::fleet::Fleet;
use super::world::World;
use crate::emulator::Emulator;

const SERVICE: &str = "quest-system-nats";

/// Everything runs, and the revision of `quest-system` was deregistered.
fn deregistered() -> (Fleet, Emulator) {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    emulator.call("ecs", "DeregisterTaskDefinition", &json!({ "taskDefinition": format!("{SERVICE}:1") }));
    (fleet, emulator)
}

/// Number and status of what the service runs.
fn runs(emulator: &Emulator) -> (Value, Value) {
    let services = json!({ "cluster": "gaming-system-cluster", "services": [SERVICE] });
    let service = emulator.call("ecs", "DescribeServices", &services)["services"][0].clone();
    let wanted = json!({ "taskDefinition": service["taskDefinition"] });
    let definition = emulator.call("ecs", "DescribeTaskDefinition", &wanted)["taskDefinition"].clone();
    (definition["revision"].clone(), definition["status"].clone())
}

#[test]
fn a_deregistered_revision_is_planned_and_deployed_anew() {
    let (fleet, emulator) = deregistered();
    let plan = fleet.natsctl(&emulator, &["plan"]);
    assert_eq!(plan.code, Some(2), "{plan:#?}");
    assert!(plan.stdout.contains("task_definition.status INACTIVE → ACTIVE"), "{}", plan.stdout);
    let drift = fleet.natsctl(&emulator, &["drift"]);
    assert!(drift.stdout.contains("task_definition.status"), "{drift:#?}");

    fleet.deploy(&emulator, &[]).succeeded();
    assert_eq!(runs(&emulator), (json!(2), json!("ACTIVE")));
    assert_eq!(World::of(&emulator).services[SERVICE].image, Fleet::image("quest-system", 1));
    fleet.deploy(&emulator, &[]).succeeded();
    assert_eq!(runs(&emulator).0, 2, "nothing is registered twice");
}

#[test]
fn a_change_of_scaling_alone_does_not_fail_by_a_deregistered_revision() {
    let (fleet, emulator) = deregistered();
    let image = Fleet::image("quest-system", 1);
    fleet.manifest("quest-system", &format!("build: {{ image: \"{image}\" }}\ntasks: 3\n"));
    fleet.natsctl(&emulator, &["deploy", "quest-system"]).succeeded();
    assert_eq!(runs(&emulator), (json!(2), json!("ACTIVE")));
    assert_eq!(World::of(&emulator).services[SERVICE].running, 3);
}

#[test]
fn restarting_and_scaling_work_without_an_active_revision() {
    let (fleet, emulator) = deregistered();
    fleet.natsctl(&emulator, &["scale", "quest-system", "3"]).succeeded();
    fleet.natsctl(&emulator, &["restart", "quest-system"]).succeeded();
    assert_eq!(runs(&emulator), (json!(2), json!("ACTIVE")));
    assert_eq!(World::of(&emulator).services[SERVICE].running, 3);
}

#[test]
fn going_back_to_a_deregistered_revision_registers_it_anew() {
    let (fleet, emulator) = deregistered();
    fleet.version("quest-system", 2);
    emulator.behave(&Fleet::image("quest-system", 2), json!({ "pull_ms": 20_000 }));
    let ran = fleet
        .natsctl(&emulator, &["deploy", "quest-system", "--timeout", "2 s"])
        .failed(&["did not finish in time", "went back to what ran before"]);
    assert!(!ran.stderr.contains("rolling back failed"), "{ran:#?}");
    let (revision, status) = runs(&emulator);
    assert_eq!((revision.as_u64() > Some(2), status), (true, json!("ACTIVE")));
    assert_eq!(World::of(&emulator).services[SERVICE].image, Fleet::image("quest-system", 1));
}

//! Deployments that work, and what they cost in calls.

use std::collections::BTreeMap;

use serde_json::json;

use super::fleet::Fleet;
use super::world::World;
use crate::emulator::Emulator;

/// Calls that change something.
fn writes(emulator: &Emulator) -> BTreeMap<String, usize> {
    let reads = ["Describe", "List", "Get", "Query", "BatchGet", "Lookup", "Simulate"];
    let is_read =
        |name: &str| reads.iter().any(|verb| name.split(':').nth(1).is_some_and(|action| action.starts_with(verb)));
    emulator.counts().into_iter().filter(|(name, _)| !is_read(name)).collect()
}

#[test]
fn a_fleet_is_deployed_once_and_then_nothing_is_left_to_do() {
    let fleet = Fleet::of(23);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    let counts = emulator.counts();
    for (action, expected) in [
        ("ecs:RegisterTaskDefinition", 23),
        ("ecs:CreateService", 23),
        ("application-autoscaling:RegisterScalableTarget", 23),
        ("application-autoscaling:PutScalingPolicy", 46),
    ] {
        assert_eq!(counts.get(action), Some(&expected), "{action}: {counts:#?}");
    }
    let world = World::of(&emulator);
    assert_eq!(world.services.len(), 23);
    assert!(world.services.values().all(|service| service.desired == 2 && service.running == 2), "{world:#?}");
    assert!(!world.locked);

    emulator.reset_calls();
    let again = fleet.deploy(&emulator, &[]).succeeded();
    assert!(again.stdout.contains("nothing had to be done"), "{again:#?}");
    assert_eq!(writes(&emulator), BTreeMap::new());
    let calls = emulator.calls().len();
    // One for the proof by ECS of each ten services is among them.
    assert!(calls <= 15, "{calls} calls: {:#?}", emulator.counts());
    assert_eq!(World::of(&emulator), world);
}

#[test]
fn what_calls_another_comes_after_it() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    let calls = emulator.calls();
    let created = |name: &str| {
        let is = |call: &&crate::emulator::Call| call.name() == "ecs:CreateService" && call.mentions(name);
        calls.iter().position(|call| is(&call)).unwrap_or_else(|| panic!("`{name}` was not created"))
    };
    assert!(created("model-management-nats") < created("ai-integration-nats"));
    assert!(created("ai-integration-nats") < created("http-nats-gateway"));
}

#[test]
fn one_new_image_is_one_new_revision() {
    let fleet = Fleet::of(8);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    fleet.version("quest-system", 2);
    let plan = fleet.natsctl(&emulator, &["plan", "--proof", "ecs"]);
    assert_eq!(plan.code, Some(2), "{plan:#?}");
    assert!(plan.stdout.contains("artifact 010101010101 → 020202020202"), "{}", plan.stdout);
    emulator.reset_calls();
    fleet.deploy(&emulator, &[]).succeeded();
    let counts = emulator.counts();
    assert_eq!(counts.get("ecs:RegisterTaskDefinition"), Some(&1), "{counts:#?}");
    assert_eq!(counts.get("ecs:UpdateService"), Some(&1), "{counts:#?}");
    let world = World::of(&emulator);
    assert_eq!(world.services["quest-system-nats"].image, Fleet::image("quest-system", 2));
    assert_eq!(world.services["ai-integration-nats"].image, Fleet::image("ai-integration", 1));

    // Going back is the old revision again, and the next deployment the new one: nothing is registered twice.
    fleet.natsctl(&emulator, &["rollback", "quest-system"]).succeeded();
    assert_eq!(World::of(&emulator).services["quest-system-nats"].image, Fleet::image("quest-system", 1));
    emulator.reset_calls();
    fleet.deploy(&emulator, &[]).succeeded();
    assert_eq!(World::of(&emulator).services["quest-system-nats"].image, Fleet::image("quest-system", 2));
    assert_eq!(emulator.counts().get("ecs:RegisterTaskDefinition"), None);
}

#[test]
fn what_autoscaling_has_set_stays() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    let scaled = json!({ "cluster": "gaming-system-cluster", "service": "quest-system-nats", "desiredCount": 5 });
    emulator.call("ecs", "UpdateService", &scaled);
    fleet.version("quest-system", 2);
    fleet.deploy(&emulator, &[]).succeeded();
    let world = World::of(&emulator);
    assert_eq!(world.services["quest-system-nats"].desired, 5);
    assert_eq!(world.services["quest-system-nats"].image, Fleet::image("quest-system", 2));
}

#[test]
fn a_service_that_no_manifest_names_is_deleted_only_on_demand() {
    let fleet = Fleet::of(8);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    std::fs::remove_file(fleet.service_file("other-2")).unwrap();
    fleet.deploy(&emulator, &[]).succeeded();
    assert_eq!(World::of(&emulator).services["other-2-nats"].desired, 2);
    fleet.deploy(&emulator, &["--prune"]).succeeded();
    let world = World::of(&emulator);
    assert!(!world.services.contains_key("other-2-nats"), "{world:#?}");
    assert_eq!(world.targets.get("other-2-nats"), None);
}

#[test]
fn a_plan_that_was_seen_is_done_and_no_other() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    let plan = fleet.natsctl(&emulator, &["plan", "--proof", "ecs", "--save", "plan.json"]);
    assert_eq!(plan.code, Some(2), "{plan:#?}");
    fleet.deploy(&emulator, &["--plan", "plan.json"]).succeeded();
    fleet.version("quest-system", 2);
    fleet.natsctl(&emulator, &["plan", "--proof", "ecs", "--save", "plan.json"]);
    fleet.version("npc-behavior", 2);
    emulator.reset_calls();
    fleet.deploy(&emulator, &["--plan", "plan.json"]).failed(&["the environment has changed", "npc-behavior"]);
    assert_eq!(writes(&emulator), BTreeMap::new());
    fleet.deploy(&emulator, &["--plan", "nothing.json"]).failed(&["`nothing.json`"]);
}

#[test]
fn scaling_and_restarting_are_deployments_too() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    fleet.natsctl(&emulator, &["scale", "quest-system", "4"]).succeeded();
    assert_eq!(World::of(&emulator).services["quest-system-nats"].running, 4);
    fleet.natsctl(&emulator, &["scale", "quest-system", "11"]).failed(&["at most 10"]);
    let tasks = |emulator: &Emulator| {
        let body = json!({ "cluster": "gaming-system-cluster", "serviceName": "quest-system-nats" });
        emulator.call("ecs", "ListTasks", &body)["taskArns"].clone()
    };
    let before = tasks(&emulator);
    fleet.natsctl(&emulator, &["restart", "quest-system"]).succeeded();
    let after = tasks(&emulator);
    assert_eq!(after.as_array().unwrap().len(), 4);
    assert!(before.as_array().unwrap().iter().all(|task| !after.as_array().unwrap().contains(task)));
    fleet.natsctl(&emulator, &["rollback", "quest-system"]).failed(&["no earlier revision", "now it runs 1"]);
    fleet.natsctl(&emulator, &["rollback", "quest-system", "--to", "7"]).failed(&["no revision 7"]);
}

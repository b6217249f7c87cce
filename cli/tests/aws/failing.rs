//! Deployments that fail: they say why, on one screen, and leave behind what was asked for.

use std::fs;

use serde_json::json;

use super::fleet::{Fleet, Ran};
use super::world::World;
use crate::emulator::{Emulator, Fault, Rule};

/// The new version of a service crashes at its start.
fn crashes(emulator: &Emulator, name: &str, version: u8) {
    let behaviour = json!({ "log": ["connecting", "panicked at 'no model'"], "exit": { "code": 101, "after_ms": 20 } });
    emulator.behave(&Fleet::image(name, version), behaviour);
}

fn deployed(count: usize) -> (Fleet, Emulator) {
    let fleet = Fleet::of(count);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    (fleet, emulator)
}

#[track_caller]
fn runs(world: &World, name: &str, version: u8) {
    let service = &world.services[&format!("{name}-nats")];
    assert_eq!(service.image, Fleet::image(name, version), "{name}");
    assert_eq!((service.desired, service.running), (2, 2), "{name}");
}

#[test]
fn a_crash_is_explained_on_one_screen_and_everything_goes_back() {
    let (fleet, emulator) = deployed(6);
    // The first wave comes up, the second does not.
    fleet.version("model-management", 2);
    fleet.version("ai-integration", 2);
    crashes(&emulator, "ai-integration", 2);
    let ran = fleet.deploy(&emulator, &[]).failed(&[
        "`ai-integration` revision 2 failed",
        "Essential container in task exited",
        "exit code 101",
        "| panicked at 'no model'",
        &Fleet::image("ai-integration", 2),
        "hint: what this run had changed went back to what ran before",
    ]);
    assert!(ran.stderr.lines().count() < 60, "{}", ran.stderr);
    let world = World::of(&emulator);
    runs(&world, "ai-integration", 1);
    runs(&world, "model-management", 1);
    assert!(!world.locked);
    // The explanation outlives the rollback.
    let reports: Vec<_> = fs::read_dir(fleet.cache().join("failures")).unwrap().collect();
    assert_eq!(reports.len(), 1);
    let report = fs::read_to_string(reports[0].as_ref().unwrap().path()).unwrap();
    assert!(report.contains("| panicked at 'no model'"), "{report}");
}

#[test]
fn what_came_up_may_stay() {
    let (fleet, emulator) = deployed(7);
    fleet.version("model-management", 2);
    fleet.version("ai-integration", 2);
    fleet.version("gateway", 2);
    crashes(&emulator, "ai-integration", 2);
    fleet.deploy(&emulator, &["--on-failure", "stop"]).failed(&["what came up stays"]);
    let world = World::of(&emulator);
    runs(&world, "model-management", 2);
    runs(&world, "ai-integration", 1);
    assert_eq!(world.services["http-nats-gateway"].image, Fleet::image("gateway", 1));
}

#[test]
fn what_does_not_call_it_may_be_deployed() {
    let (fleet, emulator) = deployed(7);
    for name in ["model-management", "quest-system", "ai-integration"] {
        fleet.version(name, 2);
    }
    crashes(&emulator, "model-management", 2);
    fleet.deploy(&emulator, &["--on-failure", "continue"]).failed(&["`model-management`"]);
    let world = World::of(&emulator);
    runs(&world, "model-management", 1);
    runs(&world, "ai-integration", 1);
    runs(&world, "quest-system", 2);
}

#[test]
fn a_crash_loop_is_stopped_long_before_ecs_gives_up() {
    let (fleet, emulator) = deployed(6);
    // Of ten tasks, ECS waits for five to crash.
    fleet.natsctl(&emulator, &["scale", "quest-system", "10"]).succeeded();
    fleet.version("quest-system", 2);
    let crash = json!({ "exit": { "code": 101, "after_ms": 20 } });
    let behaviour = json!([crash, crash, crash, { "pull_ms": 20_000 }]);
    emulator.behave(&Fleet::image("quest-system", 2), behaviour);
    let ran = fleet.deploy(&emulator, &[]).failed(&["the new tasks crash again and again; stopping the deployment"]);
    assert!(
        ran.stderr.contains("service quest-system: task"),
        "stopped tasks are reported as they stop:\n{}",
        ran.stderr
    );
    assert!(emulator.counts().contains_key("ecs:StopServiceDeployment"));
    assert_eq!(World::of(&emulator).services["quest-system-nats"].image, Fleet::image("quest-system", 1));
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let (fleet, emulator) = deployed(6);
    fleet.version("quest-system", 2);
    let image = Fleet::image("quest-system", 2);
    emulator.behave(&image, json!({ "pull_error": format!("{image}: not found") }));
    fleet.deploy(&emulator, &[]).failed(&["CannotPullContainerError", "not found"]);
    runs(&World::of(&emulator), "quest-system", 1);
}

#[test]
fn a_new_service_that_does_not_come_up_is_kept_without_tasks() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    crashes(&emulator, "npc-behavior", 1);
    let ran = fleet.deploy(&emulator, &[]).failed(&["`npc-behavior` revision 1 failed"]);
    assert!(!ran.stderr.contains("going back failed"), "{ran:#?}");
    let world = World::of(&emulator);
    assert_eq!(world.services["npc-behavior-nats"].desired, 0, "{world:#?}");
    // Once fixed, it comes up.
    fleet.version("npc-behavior", 2);
    fleet.deploy(&emulator, &[]).succeeded();
    runs(&World::of(&emulator), "npc-behavior", 2);
}

#[test]
fn a_slow_start_is_not_waited_for_for_ever() {
    let (fleet, emulator) = deployed(6);
    fleet.version("quest-system", 2);
    emulator.behave(&Fleet::image("quest-system", 2), json!({ "pull_ms": 20_000 }));
    fleet.deploy(&emulator, &["--timeout", "2 s"]).failed(&["did not finish in time", "0 of 2 tasks run after 2 s"]);
    runs(&World::of(&emulator), "quest-system", 1);
}

#[test]
fn a_concurrent_foreign_deployment_is_no_success() {
    let (fleet, emulator) = deployed(6);
    let service = json!({ "cluster": "gaming-system-cluster", "services": ["quest-system-nats"] });
    let before = emulator.call("ecs", "DescribeServices", &service)["services"][0]["taskDefinition"].clone();
    let definition = emulator.call("ecs", "DescribeTaskDefinition", &json!({ "taskDefinition": before }));
    let mut other = definition["taskDefinition"].clone();
    let allowed = [
        "family",
        "containerDefinitions",
        "cpu",
        "memory",
        "networkMode",
        "requiresCompatibilities",
        "executionRoleArn",
        "taskRoleArn",
    ];
    other.as_object_mut().unwrap().retain(|key, _| allowed.contains(&key.as_str()));
    other["containerDefinitions"][0]["image"] = json!("docker.io/example/foreign:9");

    fleet.version("quest-system", 2);
    emulator.behave(&Fleet::image("quest-system", 2), json!({ "pull_ms": 600_000 }));
    let running = fleet.command(&emulator, &["deploy", "--all", "--proof", "ecs"]).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !emulator.counts().contains_key("ecs:UpdateService") {
        assert!(std::time::Instant::now() < deadline, "nothing was started");
        std::thread::yield_now();
    }
    let arn = emulator.call("ecs", "RegisterTaskDefinition", &other)["taskDefinition"]["taskDefinitionArn"].clone();
    emulator.call(
        "ecs",
        "UpdateService",
        &json!({ "cluster": "gaming-system-cluster", "service": "quest-system-nats", "taskDefinition": arn }),
    );
    Ran::of(running.wait_with_output().unwrap()).failed(&["was superseded", "quest-system-nats:3"]);
    // Another deployment has it now: nothing of it is taken back.
    let now = emulator.call("ecs", "DescribeServices", &service)["services"][0]["taskDefinition"].clone();
    assert_eq!(now, arn);
}

#[test]
fn a_second_operator_waits_or_learns_who_holds_the_lock() {
    let (fleet, emulator) = deployed(6);
    fleet.version("quest-system", 2);
    let gate = crate::emulator::Gate::new();
    emulator.inject(Rule::nth_of(
        1,
        "ecs:RegisterTaskDefinition",
        Fault::Gate(gate.clone(), crate::emulator::Side::Before),
    ));
    let first = fleet.command(&emulator, &["deploy", "quest-system", "--proof", "ecs"]).spawn().unwrap();
    gate.reached(std::time::Duration::from_secs(20)).expect("the first one registers");
    fleet
        .deploy(&emulator, &["--no-wait-lock"])
        .failed(&["is being changed by `natsctl --env production deploy quest-system --proof ecs`", "--no-wait-lock"]);
    let second = fleet.command(&emulator, &["deploy", "--all", "--proof", "ecs"]).spawn().unwrap();
    gate.release();
    Ran::of(first.wait_with_output().unwrap()).succeeded();
    Ran::of(second.wait_with_output().unwrap()).succeeded();
    let world = World::of(&emulator);
    runs(&world, "quest-system", 2);
    assert_eq!(world.revisions["quest-system-nats"], 2);
}

#[test]
fn a_lock_of_another_machine_is_held_whatever_its_clock_says() {
    let (fleet, emulator) = deployed(6);
    let texts = ["pk", "sk", "owner", "who", "host", "command", "since", "renewal"];
    let values = ["lock", "environment", "x", "ada", "elsewhere/1", "deploy", "1970-01-01T00:00:00Z", "1"];
    let mut item: serde_json::Map<_, _> =
        texts.iter().zip(values).map(|(name, value)| ((*name).to_owned(), json!({ "S": value }))).collect();
    item.extend([("pid".to_owned(), json!({ "N": "1" })), ("until".to_owned(), json!({ "N": "0" }))]);
    emulator.call("dynamodb", "PutItem", &json!({ "TableName": "gaming-system-production-natsctl", "Item": item }));
    fleet.version("quest-system", 2);
    fleet.deploy(&emulator, &["--no-wait-lock"]).failed(&["is being changed by `deploy` of ada (on elsewhere"]);
}

//! Identities on NATS in a deployment: each that is written is a step of the plan, and comes before any service.

use serde_json::{Value, json};

use super::fleet::{Fleet, Ran};
use crate::emulator::Emulator;

const FOUND_SOMETHING: i32 = 2;

fn secret(name: &str) -> String {
    format!("gaming-system/production/nats/{name}")
}

fn delete(emulator: &Emulator, name: &str) {
    let gone = json!({ "SecretId": secret(name), "ForceDeleteWithoutRecovery": true });
    emulator.call("secretsmanager", "DeleteSecret", &gone);
}

/// The secret is as Terraform makes it.
fn empty(emulator: &Emulator, name: &str) {
    delete(emulator, name);
    emulator.call("secretsmanager", "CreateSecret", &json!({ "Name": secret(name) }));
}

fn has_identity(emulator: &Emulator, name: &str) -> bool {
    let value = emulator.try_call("secretsmanager", "GetSecretValue", &json!({ "SecretId": secret(name) }));
    value.is_ok_and(|value| value["SecretString"].as_str().is_some_and(|text| text.contains("BEGIN NATS USER JWT")))
}

fn deployed(services: usize) -> (Fleet, Emulator) {
    let fleet = Fleet::of(services);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    (fleet, emulator)
}

/// The steps that a plan has for identities.
#[track_caller]
fn planned(fleet: &Fleet, emulator: &Emulator) -> Vec<String> {
    let plan = fleet.natsctl(emulator, &["plan", "--proof", "ecs"]);
    assert!(matches!(plan.code, Some(0 | FOUND_SOMETHING)), "{plan:#?}");
    plan.stdout.lines().filter(|line| line.contains(" identity ")).map(str::to_owned).collect()
}

#[track_caller]
fn nothing_is_left_to_do(fleet: &Fleet, emulator: &Emulator) -> Ran {
    let plan = fleet.natsctl(emulator, &["plan", "--proof", "ecs"]).succeeded();
    assert!(plan.stdout.contains("nothing to do"), "{plan:#?}");
    plan
}

#[test]
fn the_identity_of_a_new_service_is_a_step_of_its_own_before_all_services() {
    let fleet = Fleet::of(7);
    let emulator = fleet.emulator();
    let file = fleet.service_file("other-1");
    std::fs::remove_file(&file).unwrap();
    fleet.deploy(&emulator, &[]).succeeded();
    fleet.version("other-1", 1);
    empty(&emulator, "other-1");
    assert_eq!(planned(&fleet, &emulator), ["+ create identity other-1"]);

    emulator.reset_calls();
    let ran = fleet.deploy(&emulator, &["--output", "json"]).succeeded();
    let calls: Vec<String> = emulator.calls().iter().map(crate::emulator::Call::name).collect();
    let first = |name: &str| calls.iter().position(|call| call == name).unwrap();
    assert!(first("secretsmanager:PutSecretValue") < first("ecs:RegisterTaskDefinition"), "{calls:#?} {ran:#?}");
    assert!(has_identity(&emulator, "other-1"));
    let history = fleet.natsctl(&emulator, &["history", "--output", "json"]).succeeded();
    assert!(history.stdout.contains("create identity other-1"), "{history:#?}");
    nothing_is_left_to_do(&fleet, &emulator);
}

#[test]
fn an_identity_whose_value_was_lost_is_made_again_although_no_service_differs() {
    let (fleet, emulator) = deployed(6);
    nothing_is_left_to_do(&fleet, &emulator);
    empty(&emulator, "quest-system");
    assert_eq!(planned(&fleet, &emulator), ["+ create identity quest-system"]);
    fleet.deploy(&emulator, &[]).succeeded();
    assert!(has_identity(&emulator, "quest-system"));
    nothing_is_left_to_do(&fleet, &emulator);
}

#[test]
fn identities_whose_permissions_change_are_steps_too() {
    let (fleet, emulator) = deployed(6);
    let text = std::fs::read_to_string(fleet.service_file("npc-behavior")).unwrap();
    std::fs::write(fleet.service_file("npc-behavior"), format!("{text}calls: [model-management]\n")).unwrap();
    let steps = planned(&fleet, &emulator);
    assert!(steps.iter().any(|step| step.starts_with("~ update identity npc-behavior  permissions ")), "{steps:?}");
    assert!(!steps.iter().any(|step| step.contains("quest-system") || step.contains("create")), "{steps:?}");
    // Written by hand, they are no steps any more.
    fleet.natsctl(&emulator, &["nats", "identities"]).succeeded();
    assert_eq!(planned(&fleet, &emulator), Vec::<String>::new());
}

#[test]
fn natsctls_own_identity_is_a_step_too() {
    let (fleet, emulator) = deployed(6);
    empty(&emulator, "operator");
    let steps = planned(&fleet, &emulator);
    assert!(steps.len() == 1 && steps[0].starts_with("+ create identity "), "{steps:?}");
    fleet.deploy(&emulator, &[]).succeeded();
    assert!(has_identity(&emulator, "operator"));
}

#[test]
fn secrets_that_terraform_has_not_made_are_named_before_anything_is_written() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    for name in ["authority", "errand"] {
        delete(&emulator, name);
    }
    let parts = [
        "identities on NATS cannot be written",
        "`gaming-system/production/nats/authority`",
        "`gaming-system/production/nats/errand`",
        "terraform apply",
    ];
    for command in [&["plan", "--proof", "ecs"][..], &["deploy", "--all", "--proof", "ecs"]] {
        fleet.natsctl(&emulator, command).failed(&parts);
    }
    let writes: Vec<Value> =
        emulator.calls().iter().filter(|call| call.is_write).map(|call| call.name().into()).collect();
    assert_eq!(writes, Vec::<Value>::new());
}

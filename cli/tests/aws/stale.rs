//! Answers that are of before a write: ECS gives them for some seconds.

use serde_json::{Value, json};

use super::fleet::Fleet;
use super::world::World;
use crate::emulator::{Emulator, Fault, Rule};

const SERVICE: &str = "quest-system-nats";

fn described(emulator: &Emulator) -> Value {
    let services = json!({ "cluster": "gaming-system-cluster", "services": [SERVICE] });
    emulator.call("ecs", "DescribeServices", &services)
}

fn stale(emulator: &Emulator, after: &str, answer: Value) {
    let rule = Rule::every("ecs:DescribeServices", Fault::Stale(answer)).about(SERVICE);
    emulator.inject(rule.after(after).at_most(4));
}

#[test]
fn a_service_that_is_not_described_yet_was_not_deleted() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    let failure =
        json!({ "arn": format!("arn:aws:ecs:us-east-1:123456789012:service/x/{SERVICE}"), "reason": "MISSING" });
    stale(&emulator, "ecs:CreateService", json!({ "services": [], "failures": [failure] }));
    fleet.deploy(&emulator, &[]).succeeded();
    let service = &World::of(&emulator).services[SERVICE];
    assert_eq!((service.desired, service.running), (2, 2));
}

#[test]
fn a_deployment_that_is_not_described_yet_was_not_superseded() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    stale(&emulator, "ecs:UpdateService", described(&emulator));
    fleet.version("quest-system", 2);
    let ran = fleet.deploy(&emulator, &[]).succeeded();
    assert!(ran.stdout.contains("quest-system runs: 2 tasks of revision 2"), "{ran:#?}");
    assert_eq!(World::of(&emulator).services[SERVICE].image, Fleet::image("quest-system", 2));
}

#[test]
fn what_was_scaled_is_proved_by_an_answer_of_after_it() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    stale(&emulator, "ecs:UpdateService", described(&emulator));
    let ran = fleet.natsctl(&emulator, &["scale", "quest-system", "4"]).succeeded();
    assert!(ran.stdout.contains("4 tasks"), "{ran:#?}");
    assert_eq!(World::of(&emulator).services[SERVICE].running, 4);
}

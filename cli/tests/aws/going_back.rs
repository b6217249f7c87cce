//! Going back: all of what a run has changed, or it says what not; and no error on the way hides another.

use std::fs;

use serde_json::{Value, json};

use super::fleet::Fleet;
use super::world::World;
use crate::emulator::{Emulator, Fault, Rule};

const CLUSTER: &str = "gaming-system-cluster";
const SERVICE: &str = "quest-system-nats";

fn deployed() -> (Fleet, Emulator) {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    (fleet, emulator)
}

fn described(emulator: &Emulator) -> Value {
    let services = json!({ "cluster": CLUSTER, "services": [SERVICE] });
    emulator.call("ecs", "DescribeServices", &services)["services"][0].clone()
}

/// The next version of `quest-system` takes too long; ECS does not roll it back by itself.
fn slow(fleet: &Fleet, emulator: &Emulator) {
    fleet.version("quest-system", 2);
    emulator.behave(&Fleet::image("quest-system", 2), json!({ "pull_ms": 20_000 }));
}

const DEPLOY: [&str; 4] = ["deploy", "quest-system", "--timeout", "2 s"];

/// The only explanation that was left behind.
#[track_caller]
fn report(fleet: &Fleet) -> String {
    let reports: Vec<_> = fs::read_dir(fleet.cache().join("failures")).unwrap().collect();
    assert_eq!(reports.len(), 1);
    fs::read_to_string(reports[0].as_ref().unwrap().path()).unwrap()
}

/// The service was changed by hand; a deployment changes all of that, fails and goes back.
#[track_caller]
fn goes_back_whole(behaviour: Value) {
    let (fleet, emulator) = deployed();
    let network = json!({ "awsvpcConfiguration": { "subnets": ["subnet-other"], "securityGroups": ["sg-other"] } });
    let by_hand = json!({
        "cluster": CLUSTER, "service": SERVICE, "desiredCount": 1, "networkConfiguration": network,
        "enableExecuteCommand": true, "availabilityZoneRebalancing": "DISABLED",
        "deploymentConfiguration": { "minimumHealthyPercent": 50, "maximumPercent": 150,
            "deploymentCircuitBreaker": { "enable": true, "rollback": true } },
    });
    emulator.call("ecs", "UpdateService", &by_hand);
    let target = json!({
        "ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount",
        "ResourceId": format!("service/{CLUSTER}/{SERVICE}"), "MinCapacity": 1, "MaxCapacity": 7,
    });
    emulator.call("application-autoscaling", "RegisterScalableTarget", &target);
    let (before, world) = (described(&emulator), World::of(&emulator));

    fleet.version("quest-system", 2);
    emulator.behave(&Fleet::image("quest-system", 2), behaviour);
    let ran = fleet.natsctl(&emulator, &DEPLOY).failed(&["went back to what ran before"]);
    assert!(!ran.stderr.contains("rolling back failed"), "{ran:#?}");
    let after = described(&emulator);
    for field in [
        "taskDefinition",
        "desiredCount",
        "networkConfiguration",
        "deploymentConfiguration",
        "enableExecuteCommand",
        "availabilityZoneRebalancing",
    ] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(World::of(&emulator).targets, world.targets);
}

#[test]
fn a_service_that_took_too_long_goes_back_whole() {
    goes_back_whole(json!({ "pull_ms": 20_000 }));
}

#[test]
fn a_service_that_ecs_has_rolled_back_goes_back_whole() {
    goes_back_whole(json!({ "exit": { "code": 101, "after_ms": 20 } }));
}

#[test]
fn scaling_that_is_refused_takes_the_service_back_too() {
    let (fleet, emulator) = deployed();
    let image = Fleet::image("quest-system", 2);
    let lines = format!("build: {{ image: \"{image}\" }}\nautoscaling: {{ max: 9, cpu_percent: 33 }}\n");
    fleet.manifest("quest-system", &lines);
    emulator.inject(Rule::nth_of(1, "application-autoscaling:PutScalingPolicy", Fault::Deny));
    fleet.natsctl(&emulator, &["deploy", "quest-system"]).failed(&[
        "set what `quest-system` scales by",
        "not authorized",
        "went back to what ran before",
    ]);
    let world = World::of(&emulator);
    assert_eq!(world.services[SERVICE].image, Fleet::image("quest-system", 1));
    assert_eq!(world.targets[SERVICE], (2, 10));
}

/// Target, policies and scheduled actions of the service, as the API has them, without what differs from call to call.
fn scaling(emulator: &Emulator) -> Value {
    let resource = format!("service/{CLUSTER}/{SERVICE}");
    let of = |action: &str, list: &str, fields: &[&str]| -> Vec<Value> {
        let answer = emulator.call("application-autoscaling", action, &json!({ "ServiceNamespace": "ecs" }));
        let own = answer[list].as_array().unwrap().iter().filter(|one| one["ResourceId"] == resource);
        own.map(|one| fields.iter().map(|field| one[*field].clone()).collect()).collect()
    };
    let tracking =
        ["PolicyName", "PolicyType", "TargetTrackingScalingPolicyConfiguration", "StepScalingPolicyConfiguration"];
    json!({
        "targets": of("DescribeScalableTargets", "ScalableTargets", &["MinCapacity", "MaxCapacity"]),
        "policies": of("DescribeScalingPolicies", "ScalingPolicies", &tracking),
        "actions": of("DescribeScheduledActions", "ScheduledActions", &["ScheduledActionName", "Schedule", "ScalableTargetAction"]),
    })
}

/// A call of Application Auto Scaling on the service.
fn scale(emulator: &Emulator, action: &str, more: &Value) {
    let mut body = json!({
        "ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount",
        "ResourceId": format!("service/{CLUSTER}/{SERVICE}"),
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    emulator.call("application-autoscaling", action, &body);
}

/// A deployment changes how the service scales, fails, and goes back.
#[track_caller]
fn scaled_and_failed(fleet: &Fleet, emulator: &Emulator) {
    let image = Fleet::image("quest-system", 2);
    emulator.behave(&image, json!({ "exit": { "code": 101, "after_ms": 20 } }));
    let figures = "autoscaling: { min: 3, max: 9, cpu_percent: 33, memory_percent: 44 }\ntasks: 3\n";
    fleet.manifest("quest-system", &format!("build: {{ image: \"{image}\" }}\n{figures}"));
    emulator.reset_calls();
    fleet.natsctl(emulator, &DEPLOY).failed(&["went back to what ran before"]);
    let counts = emulator.counts();
    assert!(counts["application-autoscaling:PutScalingPolicy"] >= 2, "nothing was changed on the way: {counts:#?}");
}

/// A target tracking policy as people have them, with cooldowns.
fn tracking(name: &str, metric: &str, target: f64) -> Value {
    json!({ "PolicyName": name, "PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": {
        "TargetValue": target, "PredefinedMetricSpecification": { "PredefinedMetricType": metric },
        "ScaleInCooldown": 600, "ScaleOutCooldown": 7, "DisableScaleIn": true,
    } })
}

#[test]
fn bounds_and_policies_go_back() {
    let (fleet, emulator) = deployed();
    scale(&emulator, "RegisterScalableTarget", &json!({ "MinCapacity": 1, "MaxCapacity": 7 }));
    let cpu = tracking("cpu-quest-system-nats", "ECSServiceAverageCPUUtilization", 41.5);
    scale(&emulator, "PutScalingPolicy", &cpu);
    let before = scaling(&emulator);
    scaled_and_failed(&fleet, &emulator);
    assert_eq!(scaling(&emulator), before);
}

#[test]
fn policies_and_scheduled_actions_of_others_go_back() {
    let (fleet, emulator) = deployed();
    let delete = |name: &str| scale(&emulator, "DeleteScalingPolicy", &json!({ "PolicyName": name }));
    delete("cpu-quest-system-nats");
    delete("memory-quest-system-nats");
    scale(&emulator, "PutScalingPolicy", &tracking("by-hand", "ECSServiceAverageCPUUtilization", 55.0));
    let night = json!({ "MinCapacity": 1, "MaxCapacity": 4 });
    let action =
        json!({ "ScheduledActionName": "night", "Schedule": "cron(0 22 * * ? *)", "ScalableTargetAction": night });
    scale(&emulator, "PutScheduledAction", &action);
    let before = scaling(&emulator);
    scaled_and_failed(&fleet, &emulator);
    assert_eq!(scaling(&emulator), before);
}

#[test]
fn a_service_that_did_not_scale_does_not_scale_again() {
    let (fleet, emulator) = deployed();
    scale(&emulator, "DeregisterScalableTarget", &json!({}));
    scaled_and_failed(&fleet, &emulator);
    // AWS deletes the policies with the target, which moto does not.
    assert_eq!(scaling(&emulator)["targets"], json!([]));
}

#[test]
fn a_first_deployment_that_fails_leaves_nothing_that_scales_it() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    emulator.behave(&Fleet::image("npc-behavior", 1), json!({ "exit": { "code": 101, "after_ms": 20 } }));
    fleet
        .deploy(&emulator, &[])
        .failed(&["`npc-behavior` revision 1 failed", "without tasks, since nothing ran before: `npc-behavior`"]);
    let world = World::of(&emulator);
    assert_eq!(world.services["npc-behavior-nats"].desired, 0);
    assert_eq!(world.targets.get("npc-behavior-nats"), None);
}

#[test]
fn an_error_while_going_back_does_not_hide_why() {
    let (fleet, emulator) = deployed();
    slow(&fleet, &emulator);
    emulator.inject(Rule::nth_of(2, "ecs:UpdateService", Fault::Deny));
    let parts = ["did not finish in time", "and rolling back failed: `quest-system`", "ecs:UpdateService"];
    fleet.natsctl(&emulator, &DEPLOY).failed(&parts).failed(&["what this run had changed may still run"]);
    let report = report(&fleet);
    assert!(parts.iter().all(|part| report.contains(part)), "{report}");
}

#[test]
fn a_service_that_cannot_go_back_keeps_no_other_from_it() {
    let (fleet, emulator) = deployed();
    slow(&fleet, &emulator);
    fleet.version("npc-behavior", 2);
    emulator.behave(&Fleet::image("npc-behavior", 2), json!({ "pull_ms": 20_000 }));
    emulator.inject(Rule::nth_of(2, "ecs:UpdateService", Fault::Deny).about("npc-behavior-nats"));
    fleet
        .natsctl(&emulator, &["deploy", "quest-system", "npc-behavior", "--timeout", "2 s"])
        .failed(&["and rolling back failed: `npc-behavior`"]);
    assert_eq!(World::of(&emulator).services[SERVICE].image, Fleet::image("quest-system", 1));
}

#[test]
fn a_ledger_that_cannot_be_written_does_not_hide_why() {
    let (fleet, emulator) = deployed();
    slow(&fleet, &emulator);
    emulator.inject(Rule::every("dynamodb:*", Fault::Deny).after("ecs:UpdateService"));
    fleet.natsctl(&emulator, &DEPLOY).failed(&["dynamodb:PutItem", "this is also in"]);
    assert!(report(&fleet).contains("dynamodb:PutItem"));
}

/// Credentials expire for these calls once the deployment was started; with others it is resumed.
#[track_caller]
fn is_resumed(expired: &str, history: &str) {
    let (fleet, emulator) = deployed();
    fleet.version("quest-system", 2);
    emulator.inject(Rule::every(expired, Fault::Expired).after("ecs:UpdateService"));
    fleet.natsctl(&emulator, &["deploy", "quest-system"]).failed(&[
        "ExpiredToken",
        "log in again",
        "natsctl deploy --resume",
        "this is also in",
    ]);
    assert!(report(&fleet).contains("ExpiredToken"));
    emulator.heal();
    let ran = fleet.natsctl(&emulator, &["history"]).succeeded();
    assert!(ran.stdout.lines().nth(1).unwrap().contains(history), "{ran:#?}");
    fleet.natsctl(&emulator, &["deploy", "--resume"]).succeeded();
    assert_eq!(World::of(&emulator).services[SERVICE].image, Fleet::image("quest-system", 2));
}

#[test]
fn a_deployment_whose_credentials_expire_is_resumed() {
    is_resumed("*", "not ended");
}

#[test]
fn a_deployment_that_ecs_alone_refuses_is_resumed() {
    is_resumed("ecs:*", "interrupted");
}

use super::*;
use crate::model::plan::differences;

fn described() -> Value {
    json!({
        "serviceName": "shop-nats", "status": "ACTIVE", "desiredCount": 2, "runningCount": 2, "launchType": "FARGATE",
        "platformVersion": "LATEST", "enableECSManagedTags": true, "propagateTags": "SERVICE",
        "availabilityZoneRebalancing": "ENABLED", "schedulingStrategy": "REPLICA", "deploymentController": { "type": "ECS" },
        "networkConfiguration": { "awsvpcConfiguration": {
            "subnets": ["subnet-2", "subnet-1"], "securityGroups": ["sg-1"], "assignPublicIp": "DISABLED",
        } },
        "deploymentConfiguration": {
            "deploymentCircuitBreaker": { "enable": true, "rollback": true },
            "alarms": { "alarmNames": ["cpu"], "enable": true, "rollback": true },
            "minimumHealthyPercent": 100, "maximumPercent": 200, "strategy": "ROLLING", "bakeTimeInMinutes": 0,
        },
        "deployments": [{ "id": "ecs-svc/1", "status": "PRIMARY", "taskDefinition": "shop:1" }],
    })
}

fn read(said: &Value, wanted: Option<&EcsService>) -> Seen {
    seen(&from_json(said, Service::deserialize).unwrap(), wanted).unwrap()
}

/// What a deployment would bring back, and what it would leave, after a service was changed by hand.
#[track_caller]
fn check(change: impl FnOnce(&mut Value), brought_back: &[&str], kept: &Value) {
    let wanted = read(&described(), None).settings;
    let mut said = described();
    change(&mut said);
    let found = read(&said, Some(&wanted));
    let differences = differences("", Some(&found.settings), &wanted);
    assert_eq!(differences.iter().map(ToString::to_string).collect::<Vec<_>>(), brought_back);
    assert_eq!(json!(found.kept), *kept);
}

#[test]
fn what_natsctl_sets_is_brought_back() {
    let network =
        |said: &mut Value| said["networkConfiguration"]["awsvpcConfiguration"]["assignPublicIp"] = "ENABLED".into();
    check(network, &["assign_public_ip true → false"], &json!({}));
    check(|said| said["platformVersion"] = "1.4.0".into(), &["platform_version 1.4.0 → LATEST"], &json!({}));
    check(|said| said["propagateTags"] = "NONE".into(), &["propagate_tags NONE → SERVICE"], &json!({}));
    check(|said| said["enableECSManagedTags"] = false.into(), &["managed_tags false → true"], &json!({}));
    let spot = |said: &mut Value| {
        said.as_object_mut().unwrap().remove("launchType");
        said["capacityProviderStrategy"] = json!([{ "capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0 }]);
    };
    let shares = [
        "capacity_providers.FARGATE.base (none) → 0",
        "capacity_providers.FARGATE.weight (none) → 1",
        "capacity_providers.FARGATE_SPOT.base 0 → (none)",
        "capacity_providers.FARGATE_SPOT.weight 1 → (none)",
    ];
    check(spot, &shares, &json!({}));
}

#[test]
fn how_tasks_are_replaced_is_brought_back() {
    let set =
        |field: &'static str, value: Value| move |said: &mut Value| said["deploymentConfiguration"][field] = value;
    check(set("strategy", "BLUE_GREEN".into()), &["deployment.strategy BLUE_GREEN → (none)"], &json!({}));
    check(set("bakeTimeInMinutes", 15.into()), &["deployment.bakeTimeInMinutes 15 → (none)"], &json!({}));
    check(set("minimumHealthyPercent", 50.into()), &["minimum_healthy_percent 50 → 100"], &json!({}));
    check(
        set("deploymentCircuitBreaker", json!({ "enable": true, "rollback": false })),
        &["circuit_breaker false → true", "deployment.deploymentCircuitBreaker.enable true → (none)"],
        &json!({}),
    );
    check(
        set("deploymentCircuitBreaker", json!({ "enable": false, "rollback": false })),
        &["circuit_breaker false → true"],
        &json!({}),
    );
}

#[test]
fn what_natsctl_does_not_set_is_kept_and_named() {
    let balancers = json!([{ "targetGroupArn": "arn:group", "containerName": "shop", "containerPort": 8080 }]);
    check(
        |said| (said["loadBalancers"], said["healthCheckGracePeriodSeconds"]) = (balancers, 120.into()),
        &[],
        &json!({
            "loadBalancers": { "arn:group": { "container": "shop", "port": 8080 } },
            "healthCheckGracePeriodSeconds": 120,
        }),
    );
    let registries = json!([{ "registryArn": "arn:registry" }]);
    let kept = json!({ "serviceRegistries": registries });
    check(|said| said["serviceRegistries"] = registries.clone(), &[], &kept);
    let connect = json!({ "enabled": true, "namespace": "shop" });
    let kept = json!({ "serviceConnectConfiguration": connect });
    check(|said| said["deployments"][0]["serviceConnectConfiguration"] = connect.clone(), &[], &kept);
}

#[test]
fn fargate_is_a_launch_type_and_a_capacity_provider() {
    check(
        |said| {
            said.as_object_mut().unwrap().remove("launchType");
            said["capacityProviderStrategy"] = json!([{ "capacityProvider": "FARGATE", "weight": 5, "base": 1 }]);
        },
        &[],
        &json!({}),
    );
}

#[test]
fn how_tasks_are_replaced_is_written_as_it_is_read() {
    let wanted = read(&described(), None).settings;
    let mut said = described();
    said["deploymentConfiguration"] = to_json(&deployment(&wanted).unwrap()).unwrap();
    assert_eq!(read(&said, None).settings, wanted);
}

//! `natsctl import`: a service that was created by other means on ECS becomes a manifest.

use serde_json::json;

use super::fleet::Fleet;

const DIGEST: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

#[test]
fn a_foreign_service_becomes_a_manifest_that_is_valid() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    emulator.call("ecs", "RegisterTaskDefinition", &json!({
        "family": "old-payment",
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "512",
        "memory": "1024",
        "executionRoleArn": "arn:aws:iam::123456789012:role/old",
        "containerDefinitions": [{
            "name": "main",
            "image": format!("docker.io/example/payment@{DIGEST}"),
            "command": ["serve"],
            "environment": [{ "name": "MODE", "value": "fast" }],
            "secrets": [{ "name": "KEY", "valueFrom": "arn:aws:secretsmanager:us-east-1:123456789012:secret:gaming-system/production/payment/key-AbCdEf" }],
            "logConfiguration": { "logDriver": "awslogs", "options": {
                "awslogs-group": "/ecs/gaming-system-nats", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "payment",
            } },
        }],
    }));
    emulator.call(
        "ecs",
        "CreateService",
        &json!({
            "cluster": "gaming-system-cluster", "serviceName": "old-payment", "taskDefinition": "old-payment:1",
            "desiredCount": 3, "launchType": "FARGATE",
            "networkConfiguration": { "awsvpcConfiguration": { "subnets": ["subnet-1"] } },
        }),
    );

    let ran = fleet.natsctl(&emulator, &["import", "old-payment", "--as", "payment"]).succeeded();
    let text = std::fs::read_to_string(fleet.service_file("payment")).unwrap();
    for line in [
        "name: payment",
        "ecs_name: old-payment",
        &format!("  image: docker.io/example/payment@{DIGEST}"),
        "tasks: 3",
        "cpu: 512",
        "memory: 1 GiB",
        "  MODE: \"fast\"",
        "  KEY: payment/key",
    ] {
        assert!(text.lines().any(|found| found == line), "`{line}` is missing:\n{text}");
    }
    for warning in ["`serves`", "no health check", "`container.command`", "nothing scales it", "other subnets"] {
        assert!(ran.stdout.contains(warning), "{warning}: {ran:#?}");
    }
    fleet.natsctl(&emulator, &["validate"]).succeeded();

    fleet.natsctl(&emulator, &["import", "old-payment", "--as", "payment"]).failed(&["there is a manifest", "hint:"]);
    assert_eq!(std::fs::read_to_string(fleet.service_file("payment")).unwrap(), text);
    fleet.natsctl(&emulator, &["import", "unknown"]).failed(&["there is no service `unknown` on ECS", "hint:"]);
    fleet.natsctl(&emulator, &["import", "old-payment", "--as", "../x"]).failed(&["is no name of a service"]);
}

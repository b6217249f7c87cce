use super::*;

pub(crate) const GOOD: &str = r#"{
  "version": 1, "project": "gaming-system", "environment": "production", "account": "123456789012", "region": "us-east-1",
  "cluster": "gaming-system-cluster",
  "network": { "vpc": "vpc-1", "subnets": ["subnet-1"], "security_groups": ["sg-1"] },
  "execution_role": "arn:aws:iam::123456789012:role/gaming-system-production-execution",
  "log_group": "/ecs/gaming-system-nats", "ledger": "gaming-system-production-natsctl",
  "alerts_topic": "arn:aws:sns:us-east-1:123456789012:gaming-system-alerts",
  "registry": "123456789012.dkr.ecr.us-east-1.amazonaws.com",
  "names": {
    "repository": "bodybroker-services/{ecs_name}", "task_family": "{ecs_name}",
    "task_role": "arn:aws:iam::123456789012:role/gaming-system-production-{service}",
    "secret": "gaming-system/production/{name}", "nats_secret": "gaming-system/production/nats/{service}",
    "alarm": "gaming-system-production-{service}-{kind}"
  },
  "nats": {
    "host": "nats.gaming-system.internal", "port": 4222, "target_group": "arn:tg",
    "nodes": { "nats-1": { "instance": "i-1", "address": "10.0.1.10", "zone": "us-east-1a" } },
    "operator_secret": "gaming-system/production/nats/operator"
  }
}"#;

fn check(change: impl FnOnce(&mut serde_json::Value), expected: &str) {
    let mut value = serde_json::from_str(GOOD).unwrap();
    change(&mut value);
    let error = value.to_string().parse::<Handover>().unwrap_err();
    assert!(format!("{error:#}").contains(expected), "{error:#}");
}

#[test]
fn names_are_made_of_templates() {
    let handover: Handover = GOOD.parse().unwrap();
    assert_eq!(handover.task_role("auth"), "arn:aws:iam::123456789012:role/gaming-system-production-auth");
    assert_eq!(handover.alarms("auth").next().unwrap(), "gaming-system-production-auth-cpu");
    assert_eq!(handover.secret("payment/key"), "gaming-system/production/payment/key");
}

#[test]
fn what_is_not_understood_is_refused() {
    check(|value| value["version"] = 2.into(), "version 2");
    check(|value| value["version"] = serde_json::Value::Null, "no `version`");
    check(|value| value["surprise"] = 1.into(), "surprise");
    check(|value| value["cluster"] = serde_json::Value::Null, "null");
    assert!(format!("{:#}", "nonsense".parse::<Handover>().unwrap_err()).contains("no JSON"));
}

#[test]
fn the_committed_schema_is_that_of_the_type() {
    let (name, text) = schema();
    assert_eq!(name, "handover.schema.json");
    snapbox::assert_data_eq!(text, snapbox::file!["../../../manifests/schema/handover.schema.json"].raw());
}

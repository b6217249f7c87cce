//! `natsctl verify`: everything that is missing at once, and nothing is changed.

use serde_json::{Value, json};

use super::fleet::{Fleet, Ran};
use crate::emulator::{Call, Emulator, Fault, Rule};

const PREFIX: &str = "gaming-system-production";

/// Six services that cargo builds, so that no other registry is asked; nothing is missing.
fn complete() -> (Fleet, Emulator) {
    let fleet = Fleet::of(6);
    for name in &fleet.services {
        fleet.manifest(name, "");
    }
    let emulator = fleet.emulator();
    alarms(&emulator, &fleet.services);
    (fleet, emulator)
}

fn alarms(emulator: &Emulator, services: &[String]) {
    for service in services {
        for kind in ["cpu", "memory", "tasks"] {
            emulator.alarm(&format!("{PREFIX}-{service}-{kind}"), "OK");
        }
    }
}

fn verify(fleet: &Fleet, emulator: &Emulator) -> (Ran, Vec<Value>) {
    let ran = fleet.natsctl(emulator, &["verify", "--output", "json"]);
    let findings = ran.json()["findings"].as_array().unwrap().clone();
    (ran, findings)
}

/// What is in this state, with what was found.
fn in_state(findings: &[Value], state: &str) -> Vec<(String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let of_state = findings.iter().filter(|finding| finding["state"] == state);
    of_state.map(|finding| (text(finding, "what"), text(finding, "found"))).collect()
}

#[test]
fn where_nothing_is_missing_nothing_fails() {
    let (fleet, emulator) = complete();
    let (ran, findings) = verify(&fleet, &emulator);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    for state in ["missing", "unknown"] {
        assert_eq!(in_state(&findings, state), []);
    }
    let calls = emulator.calls();
    let writes: Vec<String> = calls.iter().filter(|call| call.is_write).map(Call::name).collect();
    assert_eq!(writes, Vec::<String>::new());
    // One for each role; everything else is asked for all services at once, half of it what the caller may.
    assert!(calls.len() <= 6 + 30, "{} calls: {:#?}", calls.len(), emulator.counts());
}

#[test]
fn everything_that_is_missing_is_reported_at_once() {
    let (fleet, emulator) = complete();
    // A service of which Terraform knows nothing yet.
    std::fs::write(fleet.service_file("payment"), "name: payment\nsecrets: { PAYMENT_KEY: payment/key }\n").unwrap();
    emulator.call("logs", "DeleteLogGroup", &json!({ "logGroupName": "/ecs/gaming-system-nats" }));
    emulator.call("dynamodb", "DeleteTable", &json!({ "TableName": format!("{PREFIX}-natsctl") }));
    emulator.change("cluster", "gaming-system-cluster", json!({ "status": "INACTIVE" }));
    let identity = "gaming-system/production/nats/quest-system";
    let halved = json!({ "SecretId": identity, "SecretString": "{\"urls\": \"tls://nats\", \"ca\": \"x\"}" });
    emulator.call("secretsmanager", "PutSecretValue", &halved);

    let (ran, findings) = verify(&fleet, &emulator);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let missing = in_state(&findings, "missing");
    for what in [
        "cluster `gaming-system-cluster`",
        "role `gaming-system-production-payment`",
        "log group `/ecs/gaming-system-nats`",
        "ledger `gaming-system-production-natsctl`",
        "secret `gaming-system/production/payment/key`",
        "secret `gaming-system/production/nats/payment`",
        "secret `gaming-system/production/nats/quest-system`",
        "alarm `gaming-system-production-payment-cpu`",
    ] {
        assert!(missing.iter().any(|(found, _)| found == what), "{what} is not among {missing:#?}");
    }
    assert!(missing.iter().any(|(_, found)| found == "has no cert, key, creds"), "{missing:#?}");
    let hints = findings.iter().filter(|finding| finding["state"] == "missing").map(|finding| &finding["hint"]);
    assert!(hints.into_iter().all(|hint| hint.as_str().is_some_and(|hint| !hint.is_empty())), "{findings:#?}");
}

#[test]
fn what_may_not_be_read_is_reported_with_the_missing_permission() {
    let (fleet, emulator) = complete();
    emulator.inject(Rule::every("dynamodb:DescribeTable", Fault::Deny));
    let (ran, findings) = verify(&fleet, &emulator);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let unknown = in_state(&findings, "unknown");
    assert_eq!(unknown.len(), 1, "{unknown:#?}");
    assert!(unknown[0].1.contains("dynamodb:DescribeTable"), "{unknown:#?}");
}

/// The quest system names things that Terraform does not make; these are missing or not as they must be.
fn naming(fleet: &Fleet, emulator: &Emulator) {
    let secret = json!({ "Name": "shop/db", "SecretString": "x" });
    let arn = emulator.call("secretsmanager", "CreateSecret", &secret)["ARN"].as_str().unwrap().to_owned();
    emulator.call("ssm", "PutParameter", &json!({ "Name": "/shop/token", "Value": "x", "Type": "SecureString" }));
    let lines = format!(
        "secrets:\n  THERE: {{ secret: \"{arn}\" }}\n  OLD: {{ secret: \"{arn}\", stage: BLUE }}\n  \
         GONE: {{ secret: \"arn:aws:secretsmanager:us-east-1:123456789012:secret:shop/gone-AbCdEf\" }}\n  \
         TOKEN: {{ parameter: /shop/token }}\n  LOST: {{ parameter: /shop/lost }}\n  \
         BY_ARN: {{ parameter: \"arn:aws:ssm:us-east-1:123456789012:parameter/shop/token\" }}\n\
         ecs: {{ execution_role: \"arn:aws:iam::123456789012:role/absent\", \
         task_role: \"arn:aws:iam::999999999999:role/elsewhere\" }}\n"
    );
    fleet.manifest("quest-system", &lines);
}

#[test]
fn what_manifests_name_by_hand_must_be_there() {
    let (fleet, emulator) = complete();
    naming(&fleet, &emulator);
    let (ran, findings) = verify(&fleet, &emulator);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let missing = in_state(&findings, "missing");
    for (what, found) in [
        ("secret `arn:aws:secretsmanager:us-east-1:123456789012:secret:shop/gone-AbCdEf`", "not there"),
        ("parameter `/shop/lost`", "not there, in us-east-1"),
        ("role `absent`", "not there"),
        ("role `arn:aws:iam::999999999999:role/elsewhere`", "no role of this account"),
    ] {
        assert!(missing.contains(&(what.to_owned(), found.to_owned())), "{what} is not among {missing:#?}");
    }
    assert!(missing.iter().any(|(_, found)| found == "has no version with the stage `BLUE`"), "{missing:#?}");
    assert_eq!(missing.len(), 5, "{missing:#?}");
    let ok = in_state(&findings, "ok");
    assert!(ok.contains(&("parameters".to_owned(), "2 of 3 are there".to_owned())), "{ok:#?}");
    // Nothing but whether they are there is asked.
    let counts = emulator.counts();
    assert!(!counts.contains_key("ssm:GetParameters"), "{counts:#?}");
}

#[test]
fn what_may_not_be_described_is_not_called_missing() {
    let (fleet, emulator) = complete();
    naming(&fleet, &emulator);
    for call in ["secretsmanager:DescribeSecret", "ssm:DescribeParameters", "iam:GetRole"] {
        emulator.inject(Rule::every(call, Fault::Deny));
    }
    let (ran, findings) = verify(&fleet, &emulator);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let unknown = in_state(&findings, "unknown");
    for call in ["secretsmanager:DescribeSecret", "ssm:DescribeParameters", "iam:GetRole"] {
        assert!(unknown.iter().any(|(_, found)| found.contains(call)), "{call}: {unknown:#?}");
    }
    let missing = in_state(&findings, "missing");
    assert_eq!(missing.len(), 1, "the role of another account alone: {missing:#?}");
}

#[test]
fn missing_permissions_for_iam_are_reported_and_can_be_done_without() {
    let (fleet, emulator) = complete();
    emulator.inject(Rule::every("iam:SimulatePrincipalPolicy", Fault::Deny));
    let (ran, findings) = verify(&fleet, &emulator);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let notes = in_state(&findings, "note");
    assert!(notes.iter().any(|(what, _)| what == "rights of `gaming-system-production-execution`"), "{notes:#?}");
}

#[test]
fn an_image_that_a_manifest_takes_must_be_there() {
    let (fleet, emulator) = complete();
    let image = format!("{}/elsewhere@sha256:{}", emulator.registry(), "01".repeat(32));
    fleet.manifest("quest-system", &format!("build: {{ image: \"{image}\" }}\n"));
    let (ran, findings) = verify(&fleet, &emulator);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert_eq!(in_state(&findings, "missing"), [(format!("image `{image}`"), "not there".to_owned())]);
}

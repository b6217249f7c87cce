//! What cannot work: every message names the thing and says how to fix it, and nothing is changed.

use std::time::Duration;

use serde_json::json;

use super::fleet::{Fleet, Ran};
use crate::emulator::{Emulator, Fault, Rule};

const CLUSTER: &str = "gaming-system-cluster";

struct Case {
    fleet: Fleet,
    emulator: Emulator,
}

impl Case {
    fn new() -> Self {
        let fleet = Fleet::of(6);
        let emulator = fleet.emulator();
        Self { fleet, emulator }
    }

    #[track_caller]
    fn refused(&self, parts: &[&str]) {
        self.fleet.deploy(&self.emulator, &[]).failed(parts);
        let changed = self.emulator.counts().into_keys().find(|name| {
            ["ecs:Create", "ecs:Update", "ecs:Register", "ecs:Delete"].iter().any(|verb| name.starts_with(verb))
        });
        assert_eq!(changed, None);
    }

    /// With other variables, and those that are `None` away.
    fn with(&self, variables: &[(&str, Option<&str>)]) -> Ran {
        let mut command = self.fleet.command(&self.emulator, &["deploy", "--all", "--proof", "ecs"]);
        for (name, value) in variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Ran::of(command.output().unwrap())
    }
}

#[test]
fn without_credentials_nothing_is_asked() {
    let case = Case::new();
    let none = [
        ("AWS_ACCESS_KEY_ID", None),
        ("AWS_SECRET_ACCESS_KEY", None),
        ("AWS_CONFIG_FILE", Some("/nonexistent")),
        ("AWS_SHARED_CREDENTIALS_FILE", Some("/nonexistent")),
    ];
    case.with(&none).failed(&["failed to find out who calls: there are no credentials", "hint: log in"]);
    assert!(case.emulator.calls().is_empty());
}

#[test]
fn credentials_that_were_configured_and_cannot_be_had_say_why() {
    let case = Case::new();
    let config = tempfile::NamedTempFile::new().unwrap();
    let profiles = "[profile process]\ncredential_process = /bin/false\n[profile role]\nrole_arn = arn:aws:iam::1:role/x\n\
                    source_profile = missing\n";
    std::fs::write(&config, profiles).unwrap();
    for (profile, why) in [("unknown", "unknown"), ("process", "exit status: 1"), ("role", "missing")] {
        let variables = [
            ("AWS_ACCESS_KEY_ID", None),
            ("AWS_SECRET_ACCESS_KEY", None),
            ("AWS_CONFIG_FILE", config.path().to_str()),
            ("AWS_SHARED_CREDENTIALS_FILE", Some("/nonexistent")),
            ("AWS_PROFILE", Some(profile)),
        ];
        case.with(&variables).failed(&["failed to find out who calls: the credentials cannot be had: ", why]);
    }
    assert!(case.emulator.calls().is_empty());
}

#[test]
fn a_number_of_attempts_that_is_none_is_refused() {
    let case = Case::new();
    case.with(&[("AWS_MAX_ATTEMPTS", Some("0"))]).failed(&["AWS_MAX_ATTEMPTS is `0`", "hint: set it to 1 or more"]);
    assert!(case.emulator.calls().is_empty());
}

#[test]
fn a_page_of_a_proxy_is_no_answer_of_aws() {
    let case = Case::new();
    case.emulator.inject(Rule::every("sts:*", Fault::Page(502)));
    case.with(&[("AWS_MAX_ATTEMPTS", Some("1"))]).failed(&["the answer with HTTP status 502 is none of AWS", "proxy"]);
}

#[test]
fn expired_credentials_are_called_expired() {
    let case = Case::new();
    case.emulator.inject(Rule::every("*", Fault::Expired));
    case.refused(&["ExpiredToken", "hint: the credentials have expired: log in again"]);
}

#[test]
fn another_account_is_refused() {
    let case = Case::new();
    case.with(&[("NATSCTL_ACCOUNT", Some("210987654321"))]).failed(&[
        "the credentials are of account 123456789012",
        "is in 210987654321",
        "nothing was changed",
    ]);
    case.with(&[("NATSCTL_ACCOUNT", None)]).failed(&["nothing says which account", "hint: set NATSCTL_ACCOUNT"]);
    case.with(&[("NATSCTL_ACCOUNT", Some("12"))]).failed(&["`12` is not the number of an account"]);
    assert!(case.emulator.calls().iter().all(|call| call.name() == "sts:GetCallerIdentity"));
}

#[test]
fn another_region_has_no_handover() {
    let case = Case::new();
    let file = case.fleet.manifests().join("environments/production.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("us-east-1", "eu-west-1")).unwrap();
    case.refused(&["natsctl`", "hint:"]);
}

#[test]
fn a_right_that_is_missing_is_named_with_its_object() {
    let case = Case::new();
    case.emulator.inject(Rule::every("ecs:RegisterTaskDefinition", Fault::Deny));
    case.fleet
        .deploy(&case.emulator, &[])
        .failed(&["not authorized to perform: ecs:RegisterTaskDefinition on resource", "docs/iam.md"]);
    case.emulator.heal();
    case.emulator.inject(Rule::every("ssm:GetParameter", Fault::Deny));
    case.fleet.deploy(&case.emulator, &[]).failed(&["read the handover", "ssm:GetParameter on resource"]);
}

#[test]
fn a_handover_that_is_missing_or_damaged_is_refused() {
    let case = Case::new();
    let put = |value: &str| {
        let body =
            json!({ "Name": "/gaming-system/production/natsctl", "Value": value, "Type": "String", "Overwrite": true });
        case.emulator.call("ssm", "PutParameter", &body);
    };
    put("nonsense");
    case.refused(&["the handover `/gaming-system/production/natsctl`", "it is no JSON", "terraform apply"]);
    put(r#"{"version": 9}"#);
    case.refused(&["it has version 9, this natsctl reads version 1"]);
    put(r#"{"version": 1}"#);
    case.refused(&["missing field"]);
    case.emulator.call("ssm", "DeleteParameter", &json!({ "Name": "/gaming-system/production/natsctl" }));
    case.refused(&["there is no parameter `/gaming-system/production/natsctl`", "hint: Terraform writes it"]);
}

#[test]
fn a_size_that_fargate_has_not_is_refused_before_any_call() {
    let case = Case::new();
    let image = Fleet::image("quest-system", 1);
    case.fleet.manifest("quest-system", &format!("build: {{ image: \"{image}\" }}\ncpu: 256\nmemory: 4 GiB\n"));
    case.refused(&["Fargate has no task with 256 CPU units and 4 GiB", "quest-system.yaml"]);
    assert!(case.emulator.calls().is_empty());
}

#[test]
fn a_secret_that_does_not_exist_is_named() {
    let case = Case::new();
    let image = Fleet::image("quest-system", 1);
    case.fleet
        .manifest("quest-system", &format!("build: {{ image: \"{image}\" }}\nsecrets: {{ MODEL_KEY: model/key }}\n"));
    case.refused(&["`gaming-system/production/model/key` (of `quest-system`)", "hint: Terraform makes them"]);
}

#[test]
fn a_service_that_is_being_deleted_or_that_others_deploy_is_refused() {
    let case = Case::new();
    case.fleet.deploy(&case.emulator, &[]).succeeded();
    case.emulator.reset_calls();
    case.fleet.version("quest-system", 2);
    let key = format!("{CLUSTER}/quest-system-nats");
    case.emulator.change("service", &key, json!({ "status": "DRAINING" }));
    case.refused(&["service `quest-system` is DRAINING", "hint: it is being deleted"]);
    case.emulator.change(
        "service",
        &key,
        json!({ "status": "ACTIVE", "deploymentController": { "type": "CODE_DEPLOY" } }),
    );
    case.refused(&["service `quest-system` is deployed by CODE_DEPLOY, not by ECS"]);
}

#[test]
fn a_cluster_that_is_inactive_is_refused() {
    let case = Case::new();
    let message = "The referenced cluster was inactive.".to_owned();
    case.emulator.inject(Rule::every("ecs:*", Fault::Error { status: 400, code: "ClusterNotFoundException", message }));
    case.refused(&["ClusterNotFoundException", CLUSTER, "terraform apply"]);
}

#[test]
fn a_clock_that_is_off_is_called_so() {
    let case = Case::new();
    let message = "Signature expired: 20261121T060000Z is now earlier than 20261121T065500Z".to_owned();
    case.emulator.inject(Rule::every("*", Fault::Error { status: 403, code: "InvalidSignatureException", message }));
    case.refused(&["hint: the clock of this machine is off"]);
}

#[test]
fn an_endpoint_that_does_not_answer_is_not_waited_for_for_ever() {
    let case = Case::new();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let started = std::time::Instant::now();
    case.with(&[("AWS_ENDPOINT_URL", Some(&format!("http://{unused}"))), ("AWS_MAX_ATTEMPTS", Some("2"))])
        .failed(&["failed to find out who calls", "hint: see that this machine reaches AWS"]);
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn throttling_and_failures_of_aws_are_waited_out() {
    let case = Case::new();
    for (nth, fault) in [(2, Fault::Throttle), (5, Fault::ServerError), (9, Fault::LostAnswer), (30, Fault::Throttle)] {
        case.emulator.inject(Rule::nth(nth, fault));
    }
    case.fleet.deploy(&case.emulator, &[]).succeeded();
}

#[test]
fn output_to_a_closed_pipe_is_no_failure() {
    let case = Case::new();
    let mut command = case.fleet.command(&case.emulator, &["plan", "--proof", "ecs"]);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 2)), "{code:?}");
}

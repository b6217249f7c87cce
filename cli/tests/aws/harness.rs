//! The harness itself: that AWS on this machine behaves as the other tests suppose.

use std::io::{BufRead, Read, Write};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::emulator::{Emulator, Fault, Foundation, Rule};

const CLUSTER: &str = "gaming-system-cluster";
const PATIENCE: Duration = Duration::from_secs(20);

fn with_foundation(names: &[&str]) -> Emulator {
    let emulator = Emulator::start();
    emulator.foundation(&Foundation::of(names));
    emulator
}

/// Registers a definition with one container and returns its ARN.
fn define(emulator: &Emulator, service: &str, image: &str) -> String {
    let definition = json!({
        "family": format!("{service}-nats"),
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "executionRoleArn": "arn:aws:iam::123456789012:role/gaming-system-production-execution",
        "containerDefinitions": [{
            "name": service,
            "image": image,
            "healthCheck": { "command": ["CMD", "/app", "healthcheck"], "interval": 10, "retries": 3, "startPeriod": 30 },
            "logConfiguration": { "logDriver": "awslogs", "options": {
                "awslogs-group": "/ecs/gaming-system-nats", "awslogs-region": "us-east-1", "awslogs-stream-prefix": service,
            } },
        }],
    });
    let answer = emulator.call("ecs", "RegisterTaskDefinition", &definition);
    answer["taskDefinition"]["taskDefinitionArn"].as_str().unwrap().to_owned()
}

fn create(emulator: &Emulator, service: &str, definition: &str) {
    emulator.call(
        "ecs",
        "CreateService",
        &json!({
            "cluster": CLUSTER,
            "serviceName": format!("{service}-nats"),
            "taskDefinition": definition,
            "desiredCount": 2,
            "launchType": "FARGATE",
            "networkConfiguration": { "awsvpcConfiguration": { "subnets": ["subnet-1"] } },
            "deploymentConfiguration": { "deploymentCircuitBreaker": { "enable": true, "rollback": true } },
        }),
    );
}

fn update(emulator: &Emulator, service: &str, definition: &str) {
    let body = json!({ "cluster": CLUSTER, "service": format!("{service}-nats"), "taskDefinition": definition });
    emulator.call("ecs", "UpdateService", &body);
}

fn newest_deployment(emulator: &Emulator, service: &str) -> Value {
    let body = json!({ "cluster": CLUSTER, "service": format!("{service}-nats") });
    emulator.call("ecs", "ListServiceDeployments", &body)["serviceDeployments"][0].clone()
}

/// Waits until the newest deployment of a service has this status.
fn until(emulator: &Emulator, service: &str, status: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let newest = newest_deployment(emulator, service);
        if newest["status"] == status {
            return;
        }
        assert!(Instant::now() < deadline, "not {status}: {newest}");
        std::thread::yield_now();
    }
}

#[test]
fn a_foundation_of_23_services_is_there_quickly_and_clean_goes_back_to_it() {
    let names: Vec<_> = (1..=22).map(|n| format!("s{n}")).chain(["gateway".to_owned()]).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let started = Instant::now();
    let emulator = Emulator::start();
    let (up, started) = (started.elapsed(), Instant::now());
    emulator.foundation(&Foundation::of(&names));
    let founded = started.elapsed();

    let parameter = emulator.call("ssm", "GetParameter", &json!({ "Name": "/gaming-system/production/natsctl" }));
    let value = parameter["Parameter"]["Value"].as_str().unwrap();
    assert!(value.len() < 4096, "{value}");
    natsctl::handover::Handover::from_str(value).unwrap();

    let definition = define(&emulator, "s1", "example/s1@sha256:1");
    create(&emulator, "s1", &definition);
    emulator.call("ssm", "DeleteParameter", &json!({ "Name": "/gaming-system/production/natsctl" }));
    let started = Instant::now();
    emulator.clean();
    let cleaned = started.elapsed();
    emulator.call("ssm", "GetParameter", &json!({ "Name": "/gaming-system/production/natsctl" }));
    assert_eq!(emulator.call("ecs", "ListServices", &json!({ "cluster": CLUSTER }))["serviceArns"], json!([]));
    let figures = format!("start {up:?}, foundation {founded:?}, clean {cleaned:?}");
    assert!(up + founded < 3 * PATIENCE && cleaned < PATIENCE / 10, "{figures}");
}

#[test]
fn a_deployment_that_crashes_is_rolled_back_and_says_why() {
    let emulator = with_foundation(&["quest-system"]);
    create(&emulator, "quest-system", &define(&emulator, "quest-system", "example/quest:1"));
    until(&emulator, "quest-system", "SUCCESSFUL");

    emulator.behave("example/quest:2", json!({ "log": ["panicked at 'no'"], "exit": { "code": 101, "after_ms": 20 } }));
    update(&emulator, "quest-system", &define(&emulator, "quest-system", "example/quest:2"));
    until(&emulator, "quest-system", "ROLLBACK_SUCCESSFUL");

    let wanted = json!({ "cluster": CLUSTER, "serviceName": "quest-system-nats", "desiredStatus": "STOPPED" });
    let stopped = emulator.call("ecs", "ListTasks", &wanted);
    let body = json!({ "cluster": CLUSTER, "tasks": stopped["taskArns"] });
    let task = emulator.call("ecs", "DescribeTasks", &body)["tasks"][0].clone();
    assert_eq!(task["stoppedReason"], "Essential container in task exited");
    assert_eq!(task["containers"][0]["exitCode"], 101);
    says(&emulator, "panicked at 'no'");
}

#[test]
fn faults_appear_as_the_cli_would_see_them() {
    let emulator = with_foundation(&["quest-system"]);
    let Some(_) = emulator.aws(&["ecs", "list-clusters"]) else { return };
    assert_eq!(emulator.counts()["ecs:ListClusters"], 1);

    let said = |fault: Fault, arguments: &[&str]| {
        emulator.heal();
        emulator.inject(Rule::every("*", fault));
        let output = std::process::Command::new("aws")
            .args(arguments)
            .envs(emulator.env())
            .env("AWS_MAX_ATTEMPTS", "1")
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let list = ["ecs", "list-clusters"];
    assert!(said(Fault::Throttle, &list).contains("(ThrottlingException)"));
    assert!(said(Fault::ServerError, &list).contains("(InternalFailure)"));
    assert!(said(Fault::Expired, &list).contains("(ExpiredTokenException)"));
    assert!(said(Fault::LostAnswer, &list).contains("Connection was closed"));
    assert!(said(Fault::Throttle, &["iam", "list-roles"]).contains("(Throttling)"));
    assert!(said(Fault::Throttle, &["ec2", "describe-vpcs"]).contains("(RequestLimitExceeded)"));
    assert!(said(Fault::Throttle, &["cloudwatch", "describe-alarms"]).contains("(Throttling"));
    let denied =
        said(Fault::Deny, &["ecs", "delete-cluster", "--cluster", "arn:aws:ecs:us-east-1:123456789012:cluster/x"]);
    assert!(denied.contains("not authorized to perform: ecs:DeleteCluster on resource: arn:aws:ecs"), "{denied}");
}

/// A program that is a script: it runs on this machine's shell.
const SCRIPT: &str = r#"#!/bin/sh
case "$1" in healthcheck) exit 0 ;; esac
echo "$GREETING from $HEALTH_ADDR"
trap 'echo leaving; exit 0' TERM
while :; do sleep 0.05; done
"#;

/// Pushes an image of one layer with one file, `/app`, and returns its name with its digest.
fn push(emulator: &Emulator, repository: &str, program: &[u8]) -> String {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, "app", program).unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] },
        "config": { "Entrypoint": ["/app"], "Env": ["GREETING=hello"] },
    });
    let layer = emulator.push_blob(repository, &archive.into_inner().unwrap());
    let config = emulator.push_blob(repository, config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.0, "size": layer.1 }],
    });
    let digest = emulator.push_manifest(repository, "one", &manifest);
    format!("{}/{repository}@{digest}", emulator.registry())
}

#[test]
fn an_image_that_was_pushed_runs_as_a_process_with_health_logs_and_an_end() {
    let emulator = with_foundation(&["quest-system"]);
    let image = push(&emulator, "bodybroker-services/quest-system-nats", SCRIPT.as_bytes());
    let images = json!({ "repositoryName": "bodybroker-services/quest-system-nats" });
    assert_eq!(emulator.call("ecr", "DescribeImages", &images)["imageDetails"][0]["imageTags"], json!(["one"]));

    create(&emulator, "quest-system", &define(&emulator, "quest-system", &image));
    until(&emulator, "quest-system", "SUCCESSFUL");
    says(&emulator, "hello from 127.");

    let service = json!({ "cluster": CLUSTER, "service": "quest-system-nats", "force": true });
    assert_eq!(emulator.call("ecs", "DeleteService", &service)["service"]["status"], "DRAINING");
    says(&emulator, "leaving");
}

/// A program that says what it sees of the machine, and is healthy.
const PROGRAM: &str = r#"
fn main() {
    let Some("healthcheck") = std::env::args().nth(1).as_deref() else {
        let mut root: Vec<_> = std::fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()).collect();
        root.sort();
        println!("root {root:?}, may write: {}", std::fs::write("/x", "x").is_ok());
        loop { std::thread::park() }
    };
}
"#;

#[test]
fn a_static_program_sees_nothing_but_its_image_and_is_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("app.rs"), folder.path().join("app"));
    std::fs::write(&source, PROGRAM).unwrap();
    let mut rustc = std::process::Command::new("rustc");
    rustc.args(["-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"]).arg(&program).arg(&source);
    let built = rustc.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let emulator = with_foundation(&["quest-system"]);
    let image = push(&emulator, "bodybroker-services/quest-system-nats", &std::fs::read(&program).unwrap());
    create(&emulator, "quest-system", &define(&emulator, "quest-system", &image));
    until(&emulator, "quest-system", "SUCCESSFUL");
    if rustix::process::geteuid().is_root() {
        says(&emulator, r#"root [\"app\", \"dev\", \"etc\"], may write: false"#);
    }
}

/// Waits for a line in the log group.
fn says(emulator: &Emulator, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    let everything = json!({ "logGroupName": "/ecs/gaming-system-nats" });
    loop {
        let events = emulator.call("logs", "FilterLogEvents", &everything);
        let lines: Vec<_> = events["events"].as_array().unwrap().iter().map(|e| e["message"].to_string()).collect();
        if lines.iter().any(|line| line.contains(wanted)) {
            return;
        }
        assert!(Instant::now() < deadline, "no line says `{wanted}`: {lines:?}");
    }
}

#[test]
fn a_held_call_has_had_its_effect_and_its_answer_waits() {
    let emulator = with_foundation(&["quest-system"]);
    let gate = emulator.hold(1);
    let mut command = std::process::Command::new("aws");
    command.args(["ecs", "create-cluster", "--cluster-name", "held"]).envs(emulator.env());
    let Ok(mut child) = command.stdout(std::process::Stdio::null()).spawn() else { return };
    let call = gate.reached(PATIENCE).expect("the call arrives");
    assert_eq!(call.name(), "ecs:CreateCluster");
    let there = emulator.call("ecs", "DescribeClusters", &json!({ "clusters": ["held"] }));
    assert_eq!(there["clusters"][0]["status"], "ACTIVE");
    assert!(child.try_wait().unwrap().is_none(), "the CLI waits for its answer");
    gate.release();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_registry_is_as_strict_as_ecr() {
    let emulator = with_foundation(&["quest-system"]);
    let repository = "bodybroker-services/quest-system-nats";
    push(&emulator, repository, SCRIPT.as_bytes());
    let again = emulator.try_push_manifest(repository, "one", &json!({ "schemaVersion": 2 })).unwrap_err();
    assert!(again.contains("TAG_INVALID") && again.contains("immutable"), "{again}");
    let unknown = emulator.try_push_manifest("somewhere/else", "one", &json!({ "schemaVersion": 2 })).unwrap_err();
    assert!(unknown.contains("NAME_UNKNOWN"), "{unknown}");
    emulator.clean();
    push(&emulator, repository, SCRIPT.as_bytes());
}

#[test]
fn cloudtrail_says_who_changed_what() {
    let emulator = with_foundation(&["quest-system"]);
    let tag =
        ["ecs", "tag-resource", "--resource-arn", "arn:aws:ecs:us-east-1:123456789012:cluster/gaming-system-cluster"];
    let mut command = std::process::Command::new("aws");
    command.args(tag).args(["--tags", "key=a,value=b"]).envs(emulator.env()).env("AWS_ACCESS_KEY_ID", "alice");
    let Ok(status) = command.status() else { return };
    assert!(status.success());
    let wanted = "AttributeKey=ResourceName,AttributeValue=gaming-system-cluster";
    let events = emulator.aws(&["cloudtrail", "lookup-events", "--lookup-attributes", wanted]).unwrap();
    assert_eq!(events["Events"][0]["EventName"], "TagResource");
    assert_eq!(events["Events"][0]["Username"], "alice");
    let me = emulator.aws(&["sts", "get-caller-identity"]).unwrap();
    assert_eq!(me["Arn"], "arn:aws:iam::123456789012:user/natsctl");
}

#[test]
fn a_deployment_whose_tasks_are_unhealthy_is_given_up() {
    let emulator = with_foundation(&["quest-system"]);
    emulator.behave("example/quest:1", json!({ "health": { "status": "UNHEALTHY", "after_ms": 10 } }));
    create(&emulator, "quest-system", &define(&emulator, "quest-system", "example/quest:1"));
    until(&emulator, "quest-system", "ROLLBACK_FAILED");
    let wanted = json!({ "cluster": CLUSTER, "serviceName": "quest-system-nats", "desiredStatus": "STOPPED" });
    let tasks = json!({ "cluster": CLUSTER, "tasks": emulator.call("ecs", "ListTasks", &wanted)["taskArns"] });
    let task = emulator.call("ecs", "DescribeTasks", &tasks)["tasks"][0].clone();
    assert_eq!(task["stoppedReason"], "Task failed container health checks");
    assert_eq!(task["healthStatus"], "UNHEALTHY");
}

#[test]
fn an_alarm_during_a_deployment_ends_it() {
    let emulator = with_foundation(&["quest-system"]);
    create(&emulator, "quest-system", &define(&emulator, "quest-system", "example/quest:1"));
    until(&emulator, "quest-system", "SUCCESSFUL");
    emulator.alarm("quest-system-cpu", "OK");

    emulator.behave("example/quest:2", json!({ "health": { "after_ms": 60_000 } }));
    let alarms = json!({ "alarmNames": ["quest-system-cpu"], "enable": true, "rollback": true });
    emulator.call(
        "ecs",
        "UpdateService",
        &json!({
            "cluster": CLUSTER,
            "service": "quest-system-nats",
            "taskDefinition": define(&emulator, "quest-system", "example/quest:2"),
            "deploymentConfiguration": { "alarms": alarms },
        }),
    );
    assert_eq!(newest_deployment(&emulator, "quest-system")["status"], "IN_PROGRESS");
    emulator.alarm("quest-system-cpu", "ALARM");
    until(&emulator, "quest-system", "ROLLBACK_SUCCESSFUL");
}

#[test]
fn a_service_drains_as_long_as_its_tasks_take_to_stop() {
    let emulator = with_foundation(&["quest-system"]);
    emulator.behave("example/quest:1", json!({ "stop_ms": 400 }));
    create(&emulator, "quest-system", &define(&emulator, "quest-system", "example/quest:1"));
    until(&emulator, "quest-system", "SUCCESSFUL");
    let body = json!({ "cluster": CLUSTER, "service": "quest-system-nats", "force": true });
    emulator.call("ecs", "DeleteService", &body);
    let described = json!({ "cluster": CLUSTER, "services": ["quest-system-nats"] });
    let status = || emulator.call("ecs", "DescribeServices", &described)["services"][0]["status"].clone();
    assert_eq!(status(), "DRAINING");
    let update = json!({ "cluster": CLUSTER, "service": "quest-system-nats", "desiredCount": 1 });
    assert_eq!(emulator.try_call("ecs", "UpdateService", &update).unwrap_err()["__type"], "ServiceNotActiveException");
    let deadline = Instant::now() + PATIENCE;
    while status() != "INACTIVE" {
        assert!(Instant::now() < deadline, "it never ends");
    }
}

#[test]
fn nothing_is_left_when_a_test_is_killed() {
    let mut helper = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "aws::harness::helper_that_holds_an_emulator", "--ignored", "--nocapture"])
        // A run of its own, with which also the process ends that moto is forked from.
        .env_remove("NEXTEST_RUN_ID")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(helper.stdout.take().unwrap()).lines();
    let addresses = lines.find_map(|line| line.unwrap().strip_prefix("at ").map(str::to_owned)).unwrap();
    let connects = |address: &str| std::net::TcpStream::connect(address).is_ok();
    assert!(addresses.split(' ').all(connects), "{addresses}");
    helper.kill().unwrap();
    helper.wait().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while addresses.split(' ').any(connects) {
        assert!(Instant::now() < deadline, "an emulator at {addresses} outlives its test");
    }
}

#[test]
#[ignore = "is run, and killed, by another test"]
fn helper_that_holds_an_emulator() {
    let emulator = Emulator::start();
    let mut out = std::io::stdout();
    writeln!(out, "at {} {}", emulator.upstream("ecs"), emulator.upstream("ssm")).unwrap();
    out.flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    std::thread::park();
}

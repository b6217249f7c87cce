//! Identities on NATS, and the proof on the bus by a task. Here the task's image is only a name, and answers what the test says; `onbus`
//! has real ones.

use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fleet::{Fleet, Ran};
use crate::emulator::{Emulator, Fault, Rule};

const ERRAND: &str =
    "docker.io/example/natsctl@sha256:0707070707070707070707070707070707070707070707070707070707070707";
const PATIENCE: Duration = Duration::from_secs(30);

/// natsctl outside the network: only a task can ask.
fn outside(fleet: &Fleet, emulator: &Emulator, arguments: &[&str]) -> Command {
    let mut command = fleet.command(emulator, arguments);
    command.env("NATSCTL_PROOF", "bus").env("NATSCTL_BUS", "task").env("NATSCTL_BUS_IMAGE", ERRAND);
    command
}

fn run(command: Command) -> Ran {
    Ran::run(command)
}

/// A line as the task writes it: so many tasks of these services answer with this revision.
fn found(services: &[(&str, u32, u32)]) -> Vec<String> {
    let line = |&(service, revision, tasks): &(&str, u32, u32)| {
        let task =
            |number| json!({ "task": format!("task-{number}"), "revision": revision.to_string(), "version": "0.1.0" });
        let tasks: Vec<Value> = (0..tasks).map(task).collect();
        format!("natsctl-bus {}", json!({ "found": { "service": service, "tasks": tasks } }))
    };
    services.iter().map(line).collect()
}

fn answers(emulator: &Emulator, lines: &[String], last: &str) {
    let lines: Vec<String> = lines.iter().cloned().chain([format!("natsctl-bus {last}")]).collect();
    emulator.behave(ERRAND, json!({ "log": lines, "exit": { "code": 0, "after_ms": 20 } }));
}

fn secret(emulator: &Emulator, name: &str) -> Option<String> {
    let name = json!({ "SecretId": format!("gaming-system/production/nats/{name}") });
    Some(emulator.try_call("secretsmanager", "GetSecretValue", &name).ok()?["SecretString"].as_str()?.to_owned())
}

#[test]
fn identities_are_made_once_and_anew_when_permissions_change() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    let make = || fleet.natsctl(&emulator, &["nats", "identities"]).succeeded();
    let first = make();
    // The authority, one for each service, the errand's and natsctl's own.
    assert_eq!(emulator.counts()["secretsmanager:PutSecretValue"], 9, "{first:#?}");
    let quest: Value = serde_json::from_str(&secret(&emulator, "quest-system").unwrap()).unwrap();
    for key in ["urls", "ca", "cert", "key", "creds"] {
        assert!(quest[key].is_string(), "`{key}`");
    }
    for said in [&first.stdout, &first.stderr] {
        assert!(!said.contains("BEGIN") && !said.contains("SU"), "{said}");
    }

    emulator.reset_calls();
    assert_eq!(make().stdout.trim(), "every identity is as it should be");
    assert_eq!(emulator.counts().get("secretsmanager:PutSecretValue"), None);

    // Who calls a service is answered by it: both change.
    let text = std::fs::read_to_string(fleet.service_file("npc-behavior")).unwrap();
    std::fs::write(fleet.service_file("npc-behavior"), format!("{text}calls: [model-management]\n")).unwrap();
    let changed = make();
    assert!(changed.stdout.contains("npc-behavior") && changed.stdout.contains("model-management"), "{changed:#?}");
    assert!(!changed.stdout.contains("quest-system") && !changed.stdout.contains("authority"), "{changed:#?}");
}

#[test]
fn an_authority_that_is_lost_is_not_replaced() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.natsctl(&emulator, &["nats", "identities"]).succeeded();
    let id = json!({ "SecretId": "gaming-system/production/nats/authority", "SecretString": "{}" });
    emulator.call("secretsmanager", "PutSecretValue", &id);
    fleet
        .natsctl(&emulator, &["nats", "identities"])
        .failed(&["lacks `pki/ca.crt", "hint: restore an earlier version"]);
}

#[test]
fn identities_that_cannot_be_written_name_the_secret() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    let name = json!({ "SecretId": "gaming-system/production/nats/errand", "ForceDeleteWithoutRecovery": true });
    emulator.call("secretsmanager", "DeleteSecret", &name);
    fleet
        .natsctl(&emulator, &["nats", "identities"])
        .failed(&["there is no secret `gaming-system/production/nats/errand`", "terraform apply"]);
}

#[test]
fn a_deployment_is_proved_by_a_task_and_says_so() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    answers(&emulator, &found(&[("quest-system", 1, 2)]), r#""done""#);
    let deployed = run(outside(&fleet, &emulator, &["deploy", "quest-system"])).succeeded();
    assert!(deployed.stdout.contains("quest-system answers on the bus: 2 tasks of r1, 0.1.0\n"), "{deployed:#?}");
    assert!(deployed.stdout.contains("the bus was asked by a task in the cluster"), "{deployed:#?}");
    // Once for buckets, once for the streams that take events over from them, once for the proof; the definition is registered once.
    assert_eq!(emulator.counts()["ecs:RunTask"], 3);
    assert_eq!(emulator.counts()["ecs:RegisterTaskDefinition"], 2);

    // What was done is remembered: nothing but the proof is left.
    emulator.reset_calls();
    let again = run(outside(&fleet, &emulator, &["deploy", "quest-system"])).succeeded();
    assert!(again.stdout.contains("nothing had to be done"), "{again:#?}");
    let counts = emulator.counts();
    assert_eq!((counts["ecs:RunTask"], counts.get("ecs:RegisterTaskDefinition")), (1, None), "{counts:#?}");
    assert_eq!(counts.get("secretsmanager:PutSecretValue"), None, "{counts:#?}");
    assert_eq!(counts.get("ecs:StopTask"), None, "{counts:#?}");
}

#[test]
fn tasks_that_do_not_answer_are_named() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    answers(&emulator, &found(&[("quest-system", 9, 2)]), r#""done""#);
    let ran = run(outside(&fleet, &emulator, &["restart", "quest-system"])).failed(&[
        "of revision 1 these tasks do not answer on the bus: ",
        "; tasks of revision 9 do",
        "natsctl logs quest-system",
    ]);
    let listed = json!({ "cluster": "gaming-system-cluster", "serviceName": "quest-system-nats" });
    for arn in emulator.call("ecs", "ListTasks", &listed)["taskArns"].as_array().unwrap() {
        let id = arn.as_str().unwrap().rsplit('/').next().unwrap();
        assert!(ran.stderr.contains(id), "{ran:#?}");
    }
}

#[test]
fn what_the_task_could_not_do_is_said() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    let restart = || run(outside(&fleet, &emulator, &["restart", "quest-system"]));
    answers(&emulator, &[], r#"{"failed":{"message":"no task answers","hint":"start a task"}}"#);
    restart().failed(&["no task answers", "--proof ecs"]);
    emulator.behave(ERRAND, json!({ "log": ["panicked at 'no'"], "exit": { "code": 101, "after_ms": 20 } }));
    restart().failed(&["has not answered: Essential container in task exited", "panicked at 'no'"]);
    emulator.behave(ERRAND, json!({ "pull_error": "not found" }));
    restart().failed(&["has not answered: ", "CannotPull"]);
}

#[test]
fn a_lost_answer_starts_no_second_task() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    answers(&emulator, &found(&[("quest-system", 1, 2)]), r#""done""#);
    emulator.inject(Rule::nth_of(1, "ecs:RunTask", Fault::LostAnswer));
    run(outside(&fleet, &emulator, &["restart", "quest-system"])).succeeded();
    // ECS knows the second attempt by its token; the emulator does not.
    let calls = emulator.calls().into_iter().filter(|call| call.name() == "ecs:RunTask");
    let tokens: Vec<Value> = calls.map(|call| call.body["clientToken"].clone()).collect();
    assert!(tokens.len() == 2 && tokens[0].is_string() && tokens[0] == tokens[1], "{tokens:?}");
}

/// Waits for it, and kills it if it does not happen.
fn until(child: &mut Child, what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        if Instant::now() > deadline || child.try_wait().unwrap().is_some() {
            let _ = child.kill();
            panic!("never: {what}");
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_task_without_a_waiting_command_is_stopped() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    let mut child = outside(&fleet, &emulator, &["restart", "quest-system"]).spawn().unwrap();
    until(&mut child, "a task", || emulator.counts().contains_key("ecs:RunTask"));
    until(&mut child, "its log is read", || emulator.counts().contains_key("logs:GetLogEvents"));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let Output { status, .. } = child.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(130));
    assert_eq!(emulator.counts()["ecs:StopTask"], 1);
}

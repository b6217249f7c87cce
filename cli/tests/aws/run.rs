//! Tasks by hand: one-off tasks, stopping tasks, commands in tasks, and tunnels.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fleet::{Fleet, Ran};
use crate::emulator::{Emulator, Fault, Rule, sessions};

const CLUSTER: &str = "gaming-system-cluster";
const PATIENCE: Duration = Duration::from_secs(30);

struct Case {
    fleet: Fleet,
    emulator: Emulator,
    dir: tempfile::TempDir,
}

impl Case {
    fn new(lines: &str) -> Self {
        let fleet = Fleet::of(6);
        let image = Fleet::image("quest-system", 1);
        fleet.manifest("quest-system", &format!("build: {{ image: \"{image}\" }}\n{lines}"));
        let emulator = fleet.emulator();
        fleet.deploy(&emulator, &[]).succeeded();
        emulator.reset_calls();
        Self { fleet, emulator, dir: tempfile::tempdir().unwrap() }
    }

    /// What the one-off tasks of the quest system do.
    fn one_off(&self, behaviour: Value) {
        self.emulator.behave(&Fleet::image("quest-system", 1), json!({ "one_off": behaviour }));
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// With the pretended plugin in front of all others.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.fleet.command(&self.emulator, arguments);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.dir.path().display()));
        command
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// A plugin that writes down what it is given, then does what the script says.
    fn plugin(&self, version: &str, script: &str) {
        let file = self.dir.path().join("session-manager-plugin");
        let given = self.dir.path().join("given").display().to_string();
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo {version}; exit; }}\n\
             printf '%s\\n' \"$@\" > {given}.part\n\
             printf '%s\\n' \"$AWS_SSM_START_SESSION_RESPONSE\" >> {given}.part\n\
             mv {given}.part {given}\n{script}\n"
        );
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What the plugin was given: its arguments, and the session.
    fn given(&self) -> (Vec<String>, Value) {
        let text = fs::read_to_string(self.dir.path().join("given")).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let session = lines.pop().unwrap();
        (lines, serde_json::from_str(&session).unwrap())
    }

    /// Tasks that belong to no service, as ECS describes them.
    fn one_offs(&self) -> Vec<Value> {
        let mut found = Vec::new();
        for status in ["RUNNING", "STOPPED"] {
            let body = json!({ "cluster": CLUSTER, "desiredStatus": status });
            let arns = self.emulator.call("ecs", "ListTasks", &body)["taskArns"].clone();
            if arns.as_array().is_some_and(|arns| !arns.is_empty()) {
                let body = json!({ "cluster": CLUSTER, "tasks": arns });
                let tasks = self.emulator.call("ecs", "DescribeTasks", &body)["tasks"].as_array().unwrap().clone();
                found.extend(tasks.into_iter().filter(|task| task["group"].as_str().unwrap().starts_with("family:")));
            }
        }
        found
    }

    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not {what}: {:#?}", self.one_offs());
            std::thread::yield_now();
        }
    }
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn a_one_off_task_shows_its_log_and_ends_with_its_code() {
    let case = Case::new("");
    case.one_off(json!({ "log": ["one", "two"], "exit": { "code": 0, "after_ms": 300 } }));
    let ran = case.run(&["run", "quest-system", "--", "migrate", "--to", "7"]).succeeded();
    assert_eq!(ran.stdout, "one\ntwo\n");
    assert!(ran.stderr.contains("runs `migrate --to 7`"), "{ran:#?}");
    let tasks = case.one_offs();
    assert_eq!(tasks.len(), 1);
    let task = &tasks[0];
    assert_eq!(task["overrides"]["containerOverrides"][0]["command"], json!(["migrate", "--to", "7"]));
    assert!(task["taskDefinitionArn"].as_str().unwrap().ends_with("/quest-system-nats:1"), "{task}");

    case.one_off(json!({ "log": ["no"], "exit": { "code": 42, "after_ms": 50 } }));
    let ran = case.run(&["run", "quest-system", "--output", "json", "--", "migrate"]);
    assert_eq!(ran.code, Some(42), "{ran:#?}");
    let line: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&line["service"], &line["line"]), (&json!("quest-system"), &json!("no")));
    assert!(ran.stderr.contains("exit code 42"), "{ran:#?}");
}

#[test]
fn a_task_that_cannot_start_says_why() {
    let case = Case::new("");
    case.emulator.behave(&Fleet::image("quest-system", 1), json!({ "pull_error": "manifest unknown" }));
    let ran = case.run(&["run", "quest-system", "--", "migrate"]);
    ran.failed(&["has not started", "CannotPullContainer", "hint: `natsctl verify`"]);
    case.run(&["run", "quest-sytem", "--", "x"]).failed(&["hint: did you mean `quest-system`?"]);
    assert_eq!(case.run(&["run", "quest-system"]).code, Some(64));
}

#[test]
fn an_answer_that_is_lost_starts_no_second_task() {
    let case = Case::new("");
    case.one_off(json!({ "log": ["done"], "exit": { "code": 0, "after_ms": 50 } }));
    case.emulator.inject(Rule::nth_of(1, "ecs:RunTask", Fault::LostAnswer));
    assert_eq!(case.run(&["run", "quest-system", "--", "migrate"]).succeeded().stdout, "done\n");
    assert_eq!(case.emulator.counts()["ecs:RunTask"], 2);
    assert_eq!(case.one_offs().len(), 1);
}

#[test]
fn a_task_that_is_no_longer_waited_for_is_stopped() {
    let case = Case::new("");
    case.one_off(json!({}));
    let late = case.run(&["run", "--timeout", "500ms", "quest-system", "--", "migrate"]);
    late.failed(&["took longer than", "hint: it is being stopped"]);
    let stopped = |case: &Case| case.one_offs().iter().all(|task| task["lastStatus"] == "STOPPED");
    case.until("stopped", stopped);

    let child = case.start(&["run", "quest-system", "--", "migrate"]);
    case.until("started", |case| case.one_offs().len() == 2);
    interrupt(&child);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    assert!(ran.stderr.contains("is being stopped"), "{ran:#?}");
    case.until("stopped", stopped);
}

#[test]
fn tasks_are_stopped_by_the_beginning_of_their_id_and_replaced() {
    let case = Case::new("");
    let ids = |case: &Case| -> Vec<String> {
        let tasks = case.run(&["tasks", "quest-system", "--output", "json"]).succeeded().json();
        tasks.as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
    };
    let before = ids(&case);
    case.run(&["stop", &before[0][..12]]).succeeded();
    case.until("replaced", |case| {
        let now = ids(case);
        now.len() == 2 && !now.contains(&before[0]) && now.contains(&before[1])
    });
    case.run(&["stop", "--all", "quest-system"]).succeeded();
    case.until("replaced", |case| ids(case).len() == 2 && !ids(case).contains(&before[1]));
    case.run(&["stop", "zzz"]).failed(&["no task `zzz` runs", "hint: these run: "]);
    assert_eq!(case.run(&["stop"]).code, Some(64));
}

#[test]
fn without_the_plugin_nothing_is_asked() {
    let case = Case::new("");
    let mut command = case.fleet.command(&case.emulator, &["exec", "quest-system", "--", "/app"]);
    Ran::of(command.env("PATH", "/nonexistent").output().unwrap())
        .failed(&["`session-manager-plugin` is not installed", "hint: install it: https://docs.aws.amazon.com/"]);
    case.plugin("1.2.497.0", "");
    case.run(&["tunnel", "nats"]).failed(&["has version `1.2.497.0`, which is too old", "hint: install it"]);
    assert!(case.emulator.counts().keys().all(|name| !name.contains("Session") && !name.contains("Execute")));
}

#[test]
fn a_task_without_sessions_says_how_it_would_have_them() {
    let case = Case::new("");
    case.plugin("1.2.650.0", "");
    case.run(&["exec", "quest-system", "--", "/app"])
        .failed(&["takes no sessions", "hint: set `execute_command: true`"]);
}

#[test]
fn a_command_in_a_task_is_the_plugins_business() {
    let case = Case::new("execute_command: true\n");
    case.plugin("1.2.650.0", "exit 5");
    let ran = case.run(&["exec", "quest-system", "--", "/app", "show", "a b"]);
    assert_eq!(ran.code, Some(5), "{ran:#?}");
    let call = case.emulator.calls().into_iter().find(|call| call.action == "ExecuteCommand").unwrap();
    assert_eq!(call.body["command"], json!("/app show 'a b'"));
    assert_eq!((&call.body["interactive"], &call.body["container"]), (&json!(true), &json!("quest-system")));
    let (arguments, session) = case.given();
    assert_eq!(arguments[..3], ["AWS_SSM_START_SESSION_RESPONSE", "us-east-1", "StartSession"]);
    let target: Value = serde_json::from_str(&arguments[4]).unwrap();
    assert!(target["Target"].as_str().unwrap().starts_with("ecs:gaming-system-cluster_"), "{target}");
    assert!(session["SessionId"].is_string() && session["TokenValue"].is_string() && session["StreamUrl"].is_string());
}

#[test]
fn a_tunnel_goes_through_a_node_that_is_connected_and_is_closed_on_both_sides() {
    let case = Case::new("");
    case.plugin("1.2.650.0", "echo 'Waiting for connections...'\nexec sleep 600");
    case.emulator.inject(Rule::nth_of(
        1,
        "ssm:StartSession",
        Fault::Error { status: 400, code: "TargetNotConnected", message: "i-1 is not connected.".to_owned() },
    ));
    let child = case.start(&["tunnel", "nats", "--output", "json"]);
    case.until("opened", |case| case.dir.path().join("given").exists());
    let (arguments, session) = case.given();
    let request: Value = serde_json::from_str(&arguments[4]).unwrap();
    assert_eq!(request["DocumentName"], "AWS-StartPortForwardingSessionToRemoteHost");
    assert_eq!(request["Parameters"]["host"], json!(["nats.gaming-system.internal"]));
    assert_eq!(request["Parameters"]["portNumber"], json!(["4222"]));
    assert_eq!(session["TokenValue"], sessions::TOKEN);
    assert!(arguments.iter().all(|argument| !argument.contains(sessions::TOKEN)), "{arguments:?}");

    interrupt(&child);
    let ran = Ran::of(child.wait_with_output().unwrap()).succeeded();
    let port = request["Parameters"]["localPortNumber"][0].as_str().unwrap();
    assert_eq!(ran.json()["address"], json!(format!("127.0.0.1:{port}")));
    let ended = case.emulator.calls().into_iter().find(|call| call.action == "TerminateSession").unwrap();
    assert_eq!(ended.body["SessionId"], session["SessionId"]);
    assert_eq!(case.emulator.counts()["ssm:StartSession"], 2);
}

#[test]
fn a_tunnel_that_does_not_open_says_why() {
    let case = Case::new("");
    case.plugin("1.2.650.0", "echo 'Cannot perform start session: EOF'\nexit 255");
    case.run(&["tunnel", "nats"]).failed(&[
        "did not open",
        "Cannot perform start session: EOF",
        "hint: the node or task",
    ]);
}

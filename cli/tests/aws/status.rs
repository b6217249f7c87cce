//! What operators read every day: how the services are, their tasks, what ECS reports, and who changed what.

use serde_json::{Value, json};

use super::fleet::{Fleet, Ran};
use crate::emulator::Emulator;

const UNHEALTHY: i32 = 3;

struct Case {
    fleet: Fleet,
    emulator: Emulator,
}

impl Case {
    fn deployed(count: usize) -> Self {
        let fleet = Fleet::of(count);
        let emulator = fleet.emulator();
        fleet.deploy(&emulator, &[]).succeeded();
        emulator.reset_calls();
        Self { fleet, emulator }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.fleet.natsctl(&self.emulator, arguments)
    }

    #[track_caller]
    fn status(&self, code: i32) -> Value {
        let ran = self.run(&["status", "--output", "json"]);
        assert_eq!(ran.code, Some(code), "{ran:#?}");
        ran.json()
    }

    fn alarm(&self, name: &str, state: &str) {
        let alarm = json!({
            "AlarmName": name, "MetricName": "CPUUtilization", "Namespace": "AWS/ECS", "Statistic": "Average", "Period": 300,
            "EvaluationPeriods": 2, "Threshold": 80.0, "ComparisonOperator": "GreaterThanThreshold",
        });
        self.emulator.call("monitoring", "PutMetricAlarm", &alarm);
        let state = json!({ "AlarmName": name, "StateValue": state, "StateReason": "the test says so" });
        self.emulator.call("monitoring", "SetAlarmState", &state);
    }
}

fn of<'a>(status: &'a Value, service: &str) -> &'a Value {
    let services = status["services"].as_array().unwrap();
    services.iter().find(|one| one["name"] == service).unwrap_or_else(|| panic!("no {service}: {status:#}"))
}

#[test]
fn the_status_of_23_services_is_nine_calls() {
    let case = Case::deployed(23);
    let status = case.status(0);
    assert_eq!((&status["healthy"], status["services"].as_array().unwrap().len()), (&json!(true), 23));
    let quest = of(&status, "quest-system");
    assert_eq!((&quest["desired"], &quest["running"], &quest["healthy"]), (&json!(2), &json!(2), &json!(2)));
    assert_eq!((&quest["revision"], &quest["image"]), (&json!(1), &json!(Fleet::image("quest-system", 1))));
    assert_eq!((&quest["state"], &quest["restarts"]), (&json!("healthy"), &json!(0)));
    assert!(quest["started"].is_string(), "{quest}");
    assert_eq!((&quest["version"], &quest["rollout"]["state"]), (&json!("0.1.0+010101010101"), &json!("completed")));

    let counts = case.emulator.counts();
    let opening = ["sts:GetCallerIdentity", "ssm:GetParameter"];
    let looking: usize =
        counts.iter().filter(|(name, _)| !opening.contains(&name.as_str())).map(|(_, count)| count).sum();
    assert!(looking <= 9, "{counts:?}");
    assert!(case.emulator.calls().iter().all(|call| !call.is_write), "{counts:?}");
}

#[test]
fn what_is_wrong_comes_first_and_ends_with_3() {
    let case = Case::deployed(6);
    case.alarm("gaming-system-production-quest-system-cpu", "ALARM");
    case.alarm("gaming-system-production-gateway-cpu", "OK");
    case.alarm("gaming-system-production-nats-nodes", "ALARM");
    let status = case.status(UNHEALTHY);
    assert_eq!(of(&status, "quest-system")["alarms"], json!(["gaming-system-production-quest-system-cpu"]));
    assert_eq!(of(&status, "gateway").get("alarms"), None);
    assert_eq!(status["problems"], json!(["alarm `gaming-system-production-nats-nodes`"]));

    let text = case.run(&["status"]).stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "environment production: NOT healthy (and 1 more): quest-system: degraded");
    assert_eq!(lines.last(), lines.first());
    assert!(lines.contains(&"  quest-system: alarm: gaming-system-production-quest-system-cpu"), "{text}");
    let first = lines.iter().position(|line| line.starts_with("SERVICE")).unwrap() + 1;
    assert!(lines[first].starts_with("quest-system ") && lines[first].contains("degraded"), "{text}");

    let one = case.run(&["status", "gateway", "--output", "json"]);
    assert_eq!((one.json()["services"].as_array().unwrap().len(), one.json()["healthy"].clone()), (1, json!(false)));
    case.run(&["status", "gatway"]).failed(&["`gatway`", "hint: did you mean `gateway`?"]);
}

#[test]
fn a_failed_deployment_is_reported_until_one_succeeds() {
    let case = Case::deployed(6);
    let crashing = json!({ "log": ["panicked at 'no'"], "exit": { "code": 101, "after_ms": 20 } });
    case.emulator.behave(&Fleet::image("quest-system", 2), crashing);
    case.fleet.version("quest-system", 2);
    case.fleet.deploy(&case.emulator, &[]).failed(&["quest-system"]);
    let status = case.status(UNHEALTHY);
    let problems = status["problems"].as_array().unwrap();
    assert!(problems[0].as_str().unwrap().starts_with("the last run failed"), "{problems:?}");
    let history = case.run(&["history"]).succeeded().stdout;
    let lines: Vec<&str> = history.lines().collect();
    assert!(lines[1].contains("rolled back") && lines[1].contains("deploy --all"), "{history}");
    assert!(lines.last().unwrap().contains("done"), "{history}");

    let stopped = case.run(&["tasks", "--stopped", "quest-system", "--output", "json"]).succeeded().json();
    let crashed = stopped.as_array().unwrap().iter().find(|task| task["exit_code"] == 101).unwrap();
    assert_eq!((&crashed["service"], &crashed["revision"]), (&json!("quest-system"), &json!(2)));
    let events = case.run(&["events", "quest-system"]).succeeded().stdout;
    assert!(events.contains("quest-system  ") && events.contains("has started"), "{events}");

    case.fleet.version("quest-system", 3);
    case.fleet.deploy(&case.emulator, &[]).succeeded();
    let status = case.status(0);
    assert_eq!(of(&status, "quest-system")["image"], json!(Fleet::image("quest-system", 3)));
}

#[test]
fn a_service_that_is_missing_or_that_no_manifest_describes_is_a_problem() {
    let case = Case::deployed(7);
    let extra = case.fleet.services.last().unwrap();
    std::fs::rename(case.fleet.service_file(extra), case.fleet.service_file("new")).unwrap();
    let image = Fleet::image("new", 1);
    std::fs::write(case.fleet.service_file("new"), format!("name: new\nbuild: {{ image: \"{image}\" }}\n")).unwrap();
    let problems = case.status(UNHEALTHY)["problems"].to_string();
    assert!(problems.contains("service `new` is not deployed"), "{problems}");
    assert!(problems.contains(&format!("no manifest describes service `{extra}`")), "{problems}");
}

#[test]
fn tasks_are_shown_with_where_they_run() {
    let case = Case::deployed(6);
    let tasks = case.run(&["tasks", "--output", "json"]).succeeded().json();
    let tasks = tasks.as_array().unwrap();
    assert_eq!(tasks.len(), 12);
    for task in tasks {
        assert_eq!(
            (&task["status"], &task["health"], &task["revision"]),
            (&json!("RUNNING"), &json!("HEALTHY"), &json!(1))
        );
        assert!(task["zone"].is_string() && task["address"].is_string() && task["started"].is_string(), "{task}");
    }
    let of_one = case.run(&["tasks", "gateway", "--output", "json"]).succeeded().json();
    assert!(of_one.as_array().unwrap().iter().all(|task| task["service"] == "gateway"), "{of_one}");
    case.run(&["tasks", "gatway"]).failed(&["`gatway`", "hint: did you mean `gateway`?"]);
}

#[test]
fn what_is_looked_at_changes_nothing() {
    let case = Case::deployed(6);
    for arguments in [&["status"][..], &["tasks"], &["tasks", "--stopped"], &["events"], &["history"], &["logs"]] {
        case.run(arguments).succeeded();
    }
    assert!(case.emulator.calls().iter().all(|call| !call.is_write), "{:?}", case.emulator.counts());
}

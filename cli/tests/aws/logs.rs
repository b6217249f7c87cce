//! Logs of services: none is lost, none is shown twice, whatever CloudWatch does.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::fleet::Fleet;
use crate::emulator::{Emulator, Fault, Rule};

const GROUP: &str = "/ecs/gaming-system-nats";
const PATIENCE: Duration = Duration::from_secs(60);

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

    /// A task has written lines; with how many milliseconds ago each.
    fn write(&self, service: &str, task: &str, lines: &[(i64, &str)]) {
        let stream = format!("{service}/{task}");
        let create = json!({ "logGroupName": GROUP, "logStreamName": stream });
        // It may be there.
        let _ = self.emulator.try_call("logs", "CreateLogStream", &create);
        let event = |(ago, message): &(i64, &str)| json!({ "timestamp": now() - ago, "message": message });
        let events: Vec<Value> = lines.iter().map(event).collect();
        let put = json!({ "logGroupName": GROUP, "logStreamName": stream, "logEvents": events });
        self.emulator.call("logs", "PutLogEvents", &put);
    }

    /// The lines without their times; they say no level.
    fn shown(&self, arguments: &[&str]) -> Vec<String> {
        let lines = self.lines(arguments);
        lines.into_iter().map(|line| line["17:00:10.573 ERROR ".len()..].trim_start().to_owned()).collect()
    }

    /// The lines as the services wrote them.
    fn raw(&self, arguments: &[&str]) -> Vec<String> {
        self.lines(&[&["--raw"], arguments].concat())
    }

    fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let arguments = [&["logs"], arguments].concat();
        self.fleet.natsctl(&self.emulator, &arguments).succeeded().stdout.lines().map(str::to_owned).collect()
    }

    fn follow(&self, arguments: &[&str]) -> Following {
        let arguments = [&["logs", "--follow", "--output", "json"], arguments].concat();
        let mut command = self.fleet.command(&self.emulator, &arguments);
        // Else the SDK would hide most refusals, for half a minute.
        command.env("AWS_MAX_ATTEMPTS", "1").stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap();
                let _ = sender.send(line["line"].as_str().unwrap().to_owned());
            }
        });
        Following { child, lines }
    }
}

struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    /// The lines until this one.
    fn until(&self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != last) {
            lines.push(self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no `{last}`: {lines:?}")));
        }
        lines
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[test]
fn lines_of_all_tasks_are_shown_in_the_order_of_their_times() {
    let case = Case::new();
    case.write("quest-system-nats/quest-system", "t1", &[(90_000, "first"), (50_000, "third: error")]);
    case.write("quest-system-nats/quest-system", "t2", &[(70_000, "second"), (30_000, "fourth")]);
    case.write("quest-system-nats-old/quest-system", "t3", &[(60_000, "not ours")]);
    case.write("http-nats-gateway/gateway", "t4", &[(40_000, "of the gateway: error")]);
    let all =
        ["quest-system/t1 first", "quest-system/t2 second", "quest-system/t1 third: error", "quest-system/t2 fourth"];
    assert_eq!(case.shown(&["quest-system"]), all);
    assert_eq!(case.shown(&["quest-system", "-n", "1"]), all[3..]);
    assert_eq!(case.shown(&["quest-system", "--since", "80s"]), all[1..]);
    assert_eq!(case.shown(&["quest-system", "--since", "80s", "--until", "40s"]), all[1..3]);
    assert_eq!(case.shown(&["quest-system", "--until", "60s", "-n", "1"]), all[1..2]);
    assert_eq!(case.shown(&["quest-system/t2"]), [all[1], all[3]]);
    let both = ["quest-system/t1 third: error", "gateway/t4 of the gateway: error"];
    assert_eq!(case.shown(&["--grep", "error", "quest-system", "gateway"]), both);
    assert_eq!(case.shown(&["--grep", "error"]), both);
    let failed = case.fleet.natsctl(&case.emulator, &["logs", "quest"]);
    failed.failed(&["no manifest describes a service `quest`", "hint: did you mean `quest-system`?"]);
}

#[test]
fn the_last_lines_are_found_however_old_they_are() {
    let case = Case::new();
    let hour = 3_600_000;
    case.write(
        "quest-system-nats/quest-system",
        "t1",
        &[(30 * hour, "yesterday"), (5 * hour, "before"), (1_000, "now")],
    );
    assert_eq!(case.raw(&["quest-system"]), ["yesterday", "before", "now"]);
    case.emulator.reset_calls();
    assert_eq!(case.raw(&["quest-system", "-n", "1"]), ["now"]);
    assert_eq!(case.emulator.counts()["logs:FilterLogEvents"], 1);
}

#[test]
fn more_lines_than_a_page_has_are_all_shown() {
    let case = Case::new();
    let texts: Vec<String> = (0..2_500).map(|number| format!("line {number}")).collect();
    let lines: Vec<(i64, &str)> =
        (0_i64..).zip(&texts).map(|(number, text)| (50_000 - number, text.as_str())).collect();
    case.write("quest-system-nats/quest-system", "t1", &lines);
    let shown = case.raw(&["quest-system", "--since", "10min"]);
    assert_eq!(shown.len(), texts.len());
    assert_eq!(shown, texts);
}

#[test]
fn following_loses_nothing_and_repeats_nothing() {
    let case = Case::new();
    let task = "quest-system-nats/quest-system";
    case.write(task, "t1", &[(40_000, "old"), (2_000, "0")]);
    let following = case.follow(&["-n", "1", "quest-system"]);
    let mut shown = following.until("0");

    case.write(task, "t1", &[(0, "1"), (0, "2")]);
    // What a task could not send at once comes later than what was written after it.
    case.write(task, "t2", &[(1_500, "late")]);
    case.write(task, "t1", &[(0, "3")]);
    shown.extend(following.until("3"));
    case.emulator.inject(Rule::every("logs:FilterLogEvents", Fault::Throttle));
    case.write(task, "t3", &[(0, "while throttled")]);
    while case.emulator.counts().get("logs:FilterLogEvents").is_none_or(|count| *count < 4) {
        thread::yield_now();
    }
    case.emulator.heal();
    case.write(task, "t3", &[(0, "afterwards")]);
    case.write(task, "t1", &[(0, "last")]);
    shown.extend(following.until("last"));

    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &shown {
        *counted.entry(line).or_default() += 1;
    }
    let expected = ["0", "1", "2", "3", "afterwards", "last", "late", "while throttled"];
    assert_eq!(counted, expected.map(|line| (line, 1)).into(), "{shown:?}");
}

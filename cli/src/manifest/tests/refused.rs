//! What is refused, one thing at a time.

use std::path::Path;

use super::{Tree, said};
use crate::manifest::load;

/// What is said when one thing is replaced in the quest system's manifest (places in it are without its name):
///
/// ```yaml
/// name: quest-system
/// serves: [quest.v1]
/// publishes: [evt.quest.generated.v1]
/// buckets:
///   quests: { history: 5, ttl: 30 d }
/// ```
#[track_caller]
fn check(from: &str, to: &str, expected: &[&str]) {
    check_in("services/quest-system.yaml", from, to, expected);
}

#[track_caller]
fn check_in(file: &str, from: &str, to: &str, expected: &[&str]) {
    let mut tree = Tree::valid();
    tree.replace(file, from, to);
    let in_file = |line: &&str| match line.split_once("services") {
        Some(("", _)) => (*line).to_owned(),
        _ => format!("{file}:{line}"),
    };
    let expected: Vec<String> = expected.iter().map(in_file).collect();
    assert_eq!(said(&tree), expected);
}

#[test]
fn an_unknown_key_is_refused() {
    check(
        "serves",
        "server",
        &[
            "2:1: unknown key `server` (did you mean `serves`?)",
            "6:10: method `quest.v1.Quest/Generate` is public, but this service does not serve it (it serves none)",
            "6:35: method `quest.v1.Quest/Get` is public, but this service does not serve it (it serves none)",
        ],
    );
    check("history: 5", "depth: 5", &["5:13: unknown key `depth` (the keys here are `history`, `ttl` and `replicas`)"]);
    check(
        "serves",
        "health: { enabled: false }\nserves",
        &["2:11: unknown key `enabled` (the keys here are `interval`, `timeout`, `retries` and `start_period`)"],
    );
}

#[test]
fn a_missing_key_is_refused() {
    check(
        "name: quest-system\n",
        "",
        &["1:1: the file lacks the key `name` (`name`: name of the file, of the crate and of the service)"],
    );
    check_in(
        "fleet.yaml",
        "  workers: 2\n",
        "",
        &[
            "6:3: `defaults` lacks the key `workers` (`workers`: worker threads of a task, each with its own connection to NATS)",
        ],
    );
}

#[test]
fn a_wrong_type_is_refused() {
    let with = |line: &str, expected: &str| check("serves", &format!("{line}\nserves"), &[expected]);
    with("tasks: two", "2:8: `tasks` must be a whole number, not a text");
    with("tasks: \"2\"", "2:8: `tasks` must be a whole number, not a text (remove the quotes)");
    with("tasks: 2.5", "2:8: `tasks` must be a whole number, not 2.5");
    with("tasks: [2]", "2:8: `tasks` must be a whole number, not a list");
    with("tasks:", "2:1: `tasks` has no value (give it one, or remove the key)");
    with("calls: state-manager", "2:8: `calls` must be a list, not a text (write a list: `[state-manager]`)");
    with("calls: [1]", "2:9: item 1 of `calls` must be a text, not a number (quote it: `\"1\"`)");
    with("health: 5", "2:9: `health` must be a map, not a number");
    with("environment: { PORT: 80 }", "2:22: `PORT` must be a text, not a number (quote it: `\"80\"`)");
    with("environment: { DEBUG: true }", "2:23: `DEBUG` must be a text, not a boolean (quote it: `\"true\"`)");
    with("role: true", "2:7: `role` must be a text (the values are `worker`, `gateway` and `standalone`)");
    check("name: quest-system", "name: [quest-system]", &["1:7: `name` must be a text, not a list"]);
}

#[test]
fn a_wrong_unit_is_refused() {
    let times = "write for example `30 s` or `2h30m`; the units are `ms`, `s`, `min`, `h` and `d`";
    let sizes = "write for example `512 MiB`; the units are `KiB`, `MiB` and `GiB`";
    check("30 d", "30", &[&format!("5:30: `ttl`: `30` has no unit ({times})")]);
    check("30 d", "30 days", &[&format!("5:30: `ttl`: `30 days` has the unknown unit `days` ({times})")]);
    check("serves", "memory: 1 GB\nserves", &[&format!("2:9: `memory`: `1 GB` has the unknown unit `GB` ({sizes})")]);
    check("serves", "memory: 512\nserves", &[&format!("2:9: `memory`: `512` has no unit ({sizes})")]);
}

#[test]
fn what_a_server_cannot_count_is_refused_before_it_reads_it() {
    let most =
        |place: &str, name: &str, most: &str, not: &str| format!("{place}: `{name}` must be at most {most}, not {not}");
    let store = |place: &str, not: &str| most(place, "max_file_store", "1048576 GiB", not);
    check_in(
        "environments/local.yaml",
        "max_file_store: 10 GiB",
        "max_file_store: 9999999999 GiB",
        &[&store("10:19", "9999999999 GiB")],
    );
    check_in(
        "fleet.yaml",
        "max_file_store: 100 GiB",
        "max_file_store: 8589934592 GiB",
        &[&store("31:19", "8589934592 GiB")],
    );
    let age = |from: &str, place: &str| {
        check_in("fleet.yaml", from, "max_age: 106752 d", &[&most(place, "max_age", "36500 d", "106752 d")]);
    };
    age("max_age: 7 d", "33:14");
    age("max_age: 400 d", "37:14");
    check("ttl: 30 d", "ttl: 106752 d", &[&most("5:30", "ttl", "36500 d", "106752 d")]);
}

#[test]
fn a_figure_out_of_range_is_refused() {
    let with = |line: &str, expected: &str| check("serves", &format!("{line}\nserves"), &[expected]);
    check("history: 5", "history: 65", &["5:22: `history` must be from 1 to 64, not 65"]);
    check("history: 5", "history: 0", &["5:22: `history` must be from 1 to 64, not 0"]);
    with("workers: -1", "2:10: `workers` must be from 1 to 64, not -1");
    with("stop_timeout: 5 min", "2:15: `stop_timeout` must be at most 120 s, not 5 min");
    with("health: { timeout: 1 ms }", "2:20: `timeout` must be at least 100 ms, not 1 ms");
    with("cpu: 300", "2:6: `cpu` must not be 300 (it can be 256, 512, 1024, 2048, 4096, 8192, 16384)");
    with("role: workr", "2:7: `role` must not be `workr` (did you mean `worker`?)");
    with("calls: [state-manager, state-manager]", "2:24: `state-manager` is twice in `calls` (remove one of them)");
    check_in(
        "environments/local.yaml",
        "nodes: 5",
        "nodes: 4",
        &["6:10: `nodes` must not be 4 (it can be 1, 3, 5, 7, 9)"],
    );
    check_in(
        "environments/local.yaml",
        "platform: local",
        "platform: locl",
        &["3:11: `platform` must not be `locl` (did you mean `local`?)"],
    );
    check_in(
        "environments/local.yaml",
        "platform: local",
        "",
        &["5:1: the file lacks the key `platform` (the values are `local` and `aws`)"],
    );
}

#[test]
fn a_name_that_is_none_is_refused() {
    check(
        "quests:",
        "Quests:",
        &[
            "5:3: `Quests` is not allowed as a name here (write up to 48 lower-case letters, digits, `-` and `_`, a letter first)",
        ],
    );
    check(
        "serves",
        "environment: { 1path: x }\nserves",
        &[
            "2:16: `1path` is not allowed as a name here (write letters, digits, `_`, `.` and `-`, a letter or `_` first)",
        ],
    );
}

#[test]
fn variables_of_the_platform_are_refused() {
    let reserved = "rename it; reserved are `SERVICE_*`, `NATS_*`, `REDIS_*`, `LISTEN_*`, `TASK_ID`, `WORKERS`, `CONCURRENCY`, `STOP_TIMEOUT_MS`, `GATEWAY_METHODS`, `HEALTH_ADDR` and `HTTP_ADDR`";
    check(
        "serves",
        "environment: { NATS_URLS: x, NATSY: x }\nserves",
        &[&format!("2:16: variable `NATS_URLS` is set by the platform ({reserved})")],
    );
    check(
        "serves",
        "secrets: { TASK_ID: x }\nserves",
        &[&format!("2:12: variable `TASK_ID` is set by the platform ({reserved})")],
    );
    check(
        "serves",
        "environment: { KEY: x }\nsecrets: { KEY: x }\nserves",
        &["3:12: variable `KEY` is in `environment` and in `secrets` (remove one; the other is in line 2)"],
    );
}

#[test]
fn figures_that_do_not_fit_together_are_refused() {
    let with = |line: &str, expected: &str| check("serves", &format!("{line}\nserves"), &[expected]);
    with(
        "cpu: 1024",
        "2:6: Fargate has no task with 1024 CPU units and 512 MiB (1024 CPU units go with 2 GiB to 8 GiB in steps of 1 GiB)",
    );
    with(
        "memory: 3 GiB",
        "2:9: Fargate has no task with 256 CPU units and 3 GiB (256 CPU units go with 512 MiB, 1 GiB or 2 GiB)",
    );
    with(
        "cpu: 8192\nmemory: 18 GiB",
        "3:9: Fargate has no task with 8192 CPU units and 18 GiB (8192 CPU units go with 16 GiB to 60 GiB in steps of 4 GiB)",
    );
    with("tasks: 11", "2:8: `tasks` is 11, but `autoscaling` allows 2 to 10 (change one of them)");
    with("autoscaling: { min: 3 }", "2:21: `tasks` is 2, but `autoscaling` allows 3 to 10 (change one of them)");
    with("autoscaling: { min: 11 }", "2:21: `autoscaling` has a `min` of 11 above its `max` of 10");
    with(
        "health: { timeout: 20 s }",
        "2:20: `health` has a `timeout` of 20 s that is longer than its `interval` of 10 s (a check must be over before the next one begins)",
    );
    check_in("fleet.yaml", "max: 10", "max: 1", &["12:10: `autoscaling` has a `min` of 2 above its `max` of 1"]);
    check_in(
        "fleet.yaml",
        "max_age: 7 d",
        "max_age: 1 min",
        &[
            "34:23: `duplicate_window` 2 min is longer than `max_age` 1 min (NATS refuses that: shorten it)",
            "35:21: `outbox_max_age` 2 h is longer than `max_age` 1 min (events that their stream has forgotten could come again: shorten it)",
        ],
    );
}

#[test]
fn every_size_that_fargate_has_is_allowed() {
    for size in [
        "256\nmemory: 2048 MiB",
        "512\nmemory: 4 GiB",
        "1024\nmemory: 2 GiB",
        "2048\nmemory: 16 GiB",
        "4096\nmemory: 30 GiB",
        "8192\nmemory: 60 GiB",
        "16384\nmemory: 120 GiB",
    ] {
        check("serves", &format!("cpu: {size}\nserves"), &[]);
    }
}

#[test]
fn ports_that_clash_are_refused() {
    let file = "environments/local.yaml";
    check_in(
        file,
        "6222",
        "4224",
        &[
            "8:15: `route_port` takes ports 4224 to 4228, `client_port` takes 4222 to 4226 (a node takes each port plus its number: keep them apart)",
        ],
    );
    check_in(
        file,
        "8000",
        "8226",
        &[
            "13:9: `port` takes ports 8226 to 8226, `monitor_port` takes 8222 to 8226 (a node takes each port plus its number: keep them apart)",
        ],
    );
    check_in(
        file,
        "8222",
        "65533",
        &[
            "9:17: `monitor_port`: the last of 5 nodes would have port 65537 (the last port is 65535: choose a smaller first one)",
        ],
    );
    check_in(file, "8222", "65536", &["9:17: `monitor_port` must be from 0 to 65535, not 65536"]);
    check_in(file, "4222", "0", &[]);
}

#[test]
fn a_duplicate_name_is_refused() {
    let mut tree = Tree::valid();
    tree.write("services/quest-two.yaml", "name: quest-system\n");
    assert_eq!(
        said(&tree),
        [
            "services/quest-two.yaml:1:7: duplicate service `quest-system` (it is already in `services/quest-system.yaml`)",
            "services/quest-two.yaml:1:7: service `quest-system` is in a file of another name (rename the file to `quest-system.yaml`, or the service to `quest-two`)",
        ]
    );
    check(
        "serves: [quest.v1]",
        "serves: [quest.v1]\nserves: [quest.v1]",
        &["3:1: duplicate key `serves` (it is already in line 2)"],
    );
}

#[test]
fn calls_lead_to_services() {
    let calls = |calls: &str, expected: &[&str]| check("serves", &format!("calls: {calls}\nserves"), expected);
    calls(
        "[stat-manager]",
        &["2:9: `quest-system` calls `stat-manager`, which does not exist (did you mean `state-manager`?)"],
    );
    calls(
        "[zzz]",
        &[
            "2:9: `quest-system` calls `zzz`, which does not exist (the services are `ai-integration`, `gateway`, `model-management`, `npc-behavior` and `state-manager`)",
        ],
    );
    calls(
        "[quest-system]",
        &["2:9: service `quest-system` calls itself (remove it: a service needs no permission to use its own code)"],
    );
    calls(
        "[gateway]",
        &[
            "2:9: `quest-system` calls `gateway`, which serves nothing (remove it, or add what it calls to `serves` of `gateway`)",
        ],
    );
}

#[test]
fn a_cycle_of_calls_is_refused() {
    let mut tree = Tree::valid();
    tree.replace("services/quest-system.yaml", "serves", "calls: [state-manager]\nserves");
    tree.replace("services/state-manager.yaml", "serves", "calls: [model-management, npc-behavior]\nserves");
    tree.replace("services/npc-behavior.yaml", "calls: []", "calls: [quest-system]");
    assert_eq!(
        said(&tree),
        [
            "services/npc-behavior.yaml:3:9: a cycle of calls: `npc-behavior` → `quest-system` → `state-manager` → `npc-behavior` \
         (let one of them publish an event that the other consumes)",
        ]
    );
}

#[test]
fn a_public_method_is_one_that_its_service_serves() {
    check(
        "quest.v1.Quest/Get",
        "quest.v1.Quest/Gett",
        &[
            "6:35: method `quest.v1.Quest/Gett` is public, but this service does not serve it (did you mean `quest.v1.Quest/Get`?)",
        ],
    );
    check(
        "quest.v1.Quest/Generate",
        "ai.model.v1.ModelManagement/Retire",
        &[
            "6:10: method `ai.model.v1.ModelManagement/Retire` is public, but this service does not serve it (it serves \
           `quest.v1.Quest/Abandon`, `quest.v1.Quest/Accept`, `quest.v1.Quest/Complete`, `quest.v1.Quest/Generate`, \
           `quest.v1.Quest/Get`, `quest.v1.Quest/List` and `quest.v1.Quest/Progress`)",
        ],
    );
}

#[test]
fn the_protocol_has_what_is_named() {
    check("quest.v1]", "quests.v1]", &["2:10: package `quests.v1` is not in the protocol (did you mean `quest.v1`?)"]);
    check(
        "evt.quest.generated.v1",
        "evt.quest.made.v1",
        &["3:13: event `evt.quest.made.v1` is not in the protocol (did you mean `evt.quest.generated.v1`?)"],
    );
    check(
        "serves",
        "consumes: { evt.npc.behavior.plan.v1: {} }\nserves",
        &[
            "2:13: event `evt.npc.behavior.plan.v1` is not in the protocol (did you mean `evt.npc.behavior.planned.v1`?)",
        ],
    );
}

#[test]
fn how_an_event_is_consumed_is_checked() {
    let refused = |settings: &str, expected: &str| {
        let text = format!("consumes:\n  evt.npc.behavior.planned.v1: {settings}\nserves");
        check("serves", &text, &[&format!("3:{expected}")]);
    };
    refused("[]", "32: `evt.npc.behavior.planned.v1` must be a map, not a list");
    refused("{ deliveries: 0 }", "46: `deliveries` must be from 1 to 100, not 0");
    refused("{ backoff: [] }", "43: `backoff` must have 1 to 20 items, not 0");
    refused("{ backoff: [1 s, 2 d] }", "49: item 2 of `backoff` must be at most 1 d, not 2 d");
    refused("{ timeout: 1 h }", "43: `timeout` must be at most 10 min, not 1 h");
    refused("{ delivery: everyone }", "44: `delivery` must not be `everyone` (did you mean `every_task`?)");
    refused(
        "{ retries: 3 }",
        "34: unknown key `retries` (the keys here are `delivery`, `deliveries`, `backoff`, `timeout`, `ack_wait`, `ordered` and `start`)",
    );
    let mut tree = Tree::valid();
    tree.replace("services/quest-system.yaml", "serves", "consumes: { Evt.x: {} }\nserves");
    let expected = "2:13: `Evt.x` is not allowed as a name here (write the subject of an event, for example `evt.quest.generated.v1`)";
    assert_eq!(said(&tree)[0], format!("services/quest-system.yaml:{expected}"));
}

#[test]
fn an_event_that_nobody_publishes_is_not_consumed() {
    let mut tree = Tree::valid();
    tree.replace("services/npc-behavior.yaml", "publishes: [evt.npc.behavior.planned.v1]\n", "");
    tree.replace("services/quest-system.yaml", "serves", "consumes: { evt.npc.behavior.planned.v1: {} }\nserves");
    assert_eq!(
        said(&tree),
        [
            "services/quest-system.yaml:2:13: `quest-system` consumes `evt.npc.behavior.planned.v1`, which no service publishes \
             (add it to `publishes` of the service that does, or remove it)"
        ]
    );
}

#[test]
fn what_belongs_to_one_service_belongs_to_no_other() {
    check(
        "quest.v1]",
        "quest.v1, npc.behavior.v1]",
        &[
            "services/npc-behavior.yaml:2:10: package `npc.behavior.v1` is served by two services (also in `services/quest-system.yaml:2`; one of them has to give it up)",
            "2:20: package `npc.behavior.v1` is served by two services (also in `services/npc-behavior.yaml:2`; one of them has to give it up)",
        ],
    );
    check(
        "evt.quest.generated.v1",
        "evt.npc.behavior.planned.v1",
        &[
            "services/npc-behavior.yaml:4:13: event `evt.npc.behavior.planned.v1` is published by two services (also in `services/quest-system.yaml:3`; one of them has to give it up)",
            "3:13: event `evt.npc.behavior.planned.v1` is published by two services (also in `services/npc-behavior.yaml:4`; one of them has to give it up)",
        ],
    );
    check(
        "quests:",
        "models:",
        &[
            "services/model-management.yaml:5:3: bucket `models` belongs to two services (also in `services/quest-system.yaml:5`; rename one, or let one service ask the other)",
            "5:3: bucket `models` belongs to two services (also in `services/model-management.yaml:5`; rename one, or let one service ask the other)",
        ],
    );
}

#[test]
fn there_is_one_gateway_and_it_serves_nothing() {
    check(
        "serves",
        "role: gateway\ncalls: []\nserves",
        &[
            "2:7: a second gateway (the first is in `services/gateway.yaml`; an environment has one port for it)",
            "4:10: gateway `quest-system` serves a package (a gateway only calls: move the package to a worker)",
        ],
    );
}

#[test]
fn manifests_and_crates_go_together() {
    let mut tree = Tree::valid();
    tree.write("services/weather.yaml", "name: weather\n");
    tree.write("../services/time/Cargo.toml", "");
    assert_eq!(
        said(&tree),
        [
            "services/weather.yaml:1:7: service `weather` has no crate: `services/weather/Cargo.toml` does not exist (write the crate, or remove `services/weather.yaml`)",
            "services/time/Cargo.toml:1:1: crate `time` has no manifest (write `services/time.yaml`, at least with `name: time`)",
        ]
    );
}

#[test]
fn an_environment_that_does_not_exist_is_refused() {
    let mut tree = Tree::valid();
    tree.write("environments/production.yaml", "platform: local\n");
    let refused = |name: &str| {
        let problems = load(&tree.folder(), name).unwrap_err();
        problems
            .iter()
            .map(|problem| format!("{} ({})", problem.message, problem.hint.as_deref().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(refused("prodution"), ["environment `prodution` does not exist (did you mean `production`?)"]);
    assert_eq!(
        refused("../fleet"),
        ["environment `../fleet` does not exist (the environments are `local` and `production`)"]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let mut tree = Tree::valid();
    tree.write("services/quest-system.yaml", b"name: quest-system\nserves: [\xff]\n");
    assert_eq!(said(&tree), ["services/quest-system.yaml:2:10: the file is not UTF-8 from here on (save it as UTF-8)"]);
    tree.write("services/quest-system.yaml", "");
    assert_eq!(said(&tree), ["services/quest-system.yaml:1:1: the file is empty"]);
    tree.write("services/quest-system.yaml", "name: [\n");
    assert_eq!(said(&tree).len(), 1);
    let mut tree = Tree::valid();
    tree.remove("fleet.yaml");
    assert_eq!(said(&tree).len(), 1);
    tree.write("services/other.yml", "name: other\n");
    assert_eq!(
        said(&tree)[1],
        "services/other.yml:1:1: the file ends in `.yml`, so nothing reads it (rename it to end in `.yaml`)"
    );
    let problems = load(Path::new("/nowhere"), "local").unwrap_err();
    assert!(problems.to_string().contains("cannot read `/nowhere/services`"), "{problems}");
}

#[test]
fn traces_go_to_a_collector_and_are_shown_by_a_page() {
    #[track_caller]
    fn check(traces: &str, expected: &[&str]) {
        let with_traces = format!("traces: {{ {traces} }}\nplatform: local");
        check_in("environments/local.yaml", "platform: local", &with_traces, expected);
    }
    let collector = "(write the base URL of an OTLP collector, for example `http://collector.internal:4318`)";
    let page = "(for example `https://traces.example.com/trace/{trace_id}`)";
    check("endpoint: \"http://collector:4318\", one_in: 100, link: \"https://t.example.com/{trace_id}?x=1\"", &[]);
    check(
        "endpoint: \"collector:4318\"",
        &[&format!("3:21: `traces.endpoint` is not a URL with `http://` or `https://` {collector}")],
    );
    check("endpoint: \"http://\"", &[&format!("3:21: `traces.endpoint` is not a URL {collector}")]);
    check(
        "endpoint: \"https://me:secret@collector\"",
        &[&format!(
            "3:21: `traces.endpoint` contains a user: secrets belong into `OTEL_EXPORTER_OTLP_HEADERS`, among the `secrets` of a service {collector}"
        )],
    );
    let braces =
        |place: &str| format!("{place}: `traces.link` must contain `{{trace_id}}` once, and no other braces {page}");
    check("link: \"https://t.example.com/\"", &[&braces("3:17")]);
    check("link: \"https://t.example.com/{trace_id}/{span}\"", &[&braces("3:17")]);
    check("link: \"https://t.example.com/{trace_id}{trace_id}\"", &[&braces("3:17")]);
    check(
        "link: \"t.example.com/{trace_id}\"",
        &[&format!("3:17: `traces.link` is not a URL with `http://` or `https://` {page}")],
    );
    check("one_in: 0", &["3:19: `one_in` must be from 1 to 1000000, not 0"]);
    check("one_in: 0.01", &["3:19: `one_in` must be a whole number, not 0.01"]);
    check("ratio: 1", &["3:11: unknown key `ratio` (the keys here are `endpoint`, `one_in` and `link`)"]);
}

#[test]
fn caches_that_cannot_be_are_refused() {
    let with = |settings: &str, expected: &[&str]| {
        check("serves", &format!("caches: {{ plans: {{ {settings} }} }}\nserves"), expected);
    };
    with("ttl: 1 min, max_size: 1 MiB, invalidated_by: [evt.ai.model.selected.v1]", &[]);
    with("max_size: 1 MiB", &["2:18: `plans` lacks the key `ttl` (`ttl`: how long a value may be used at most)"]);
    with("ttl: 29 s", &["2:25: `ttl` must be at least 30 s, not 29 s"]);
    with("ttl: 301 s", &["2:25: `ttl` must be at most 5 min, not 301 s"]);
    with("ttl: 1 min, max_size: 1 KiB", &["2:42: `max_size` must be at least 64 KiB, not 1 KiB"]);
    with(
        "ttl: 1 min, size: 1 MiB",
        &["2:32: unknown key `size` (the keys here are `ttl`, `max_size` and `invalidated_by`)"],
    );
    with(
        "ttl: 1 min, invalidated_by: [evt.ai.model.selectd.v1]",
        &["2:49: event `evt.ai.model.selectd.v1` is not in the protocol (did you mean `evt.ai.model.selected.v1`?)"],
    );
    with(
        "ttl: 1 min, max_size: 257 MiB",
        &[
            "2:9: `caches` may take 257 MiB of the 512 MiB that a task has, which is more than half (lower `max_size`, or raise `memory`: the service needs the rest for its requests)",
        ],
    );
    let plans = "caches: { plans: { ttl: 1 min, invalidated_by: [evt.ai.model.selected.v1] } }";
    let consumes = |settings: &str, expected: &[&str]| {
        check(
            "serves",
            &format!("{plans}\nconsumes: {{ evt.ai.model.selected.v1: {{ {settings} }} }}\nserves"),
            expected,
        );
    };
    consumes("delivery: every_task", &[]);
    consumes(
        "deliveries: 3",
        &[
            "2:49: `evt.ai.model.selected.v1` invalidates a cache, but only one task of the service gets it (set `delivery: every_task` in `consumes`, or remove it there)",
        ],
    );
    check(
        "serves",
        "caches: { Plans: { ttl: 1 min } }\nserves",
        &[
            "2:11: `Plans` is not allowed as a name here (write up to 32 lower-case letters, digits and `-`, a letter first)",
        ],
    );
    check_in(
        "services/gateway.yaml",
        "role: gateway",
        "role: gateway\ncaches: { plans: { ttl: 1 min } }",
        &["3:9: gateway `gateway` has caches (a gateway computes nothing: give them to the services that it calls)"],
    );
}

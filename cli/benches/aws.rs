//! What a deployment of 23 services costs in seconds and in calls, beside a shell loop over the aws CLI and beside `ecs-deploy`, on the
//! same emulator in the same run; and how looking grows with the fleet.
//!
//! `cargo bench --profile dist --package natsctl --features aws --bench aws [-- growth]`; `aws` and `ecs` (PyPI: awscli, ecs-deploy) on the
//! `PATH`, or they are left out. `docs/benchmarks.md` has figures.
#![allow(clippy::print_stdout, reason = "figures are for people")]

#[path = "../tests/emulator/mod.rs"]
mod emulator;
#[path = "../tests/aws/fleet.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod fleet;
#[path = "../tests/schemas.rs"]
mod schemas;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use emulator::Emulator;
use fleet::Fleet;
use natsctl::model::change::{Change, Deploy, Selection};
use natsctl::model::desired::{Scaling, Service};
use natsctl::model::observed::{Observed, ObservedService};
use natsctl::model::plan::Plan;
use serde_json::{Value, json};

const CLUSTER: &str = "gaming-system-cluster";
/// The fleet of the comparison, and those that looking is tried on.
const SERVICES: usize = 23;
const GROWTH: [usize; 3] = [23, 230, 1000];

fn main() {
    // `cargo nextest` asks every binary for its tests.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let only = |part: &str| std::env::args().any(|argument| argument == part);
    if !only("growth") {
        compare();
    }
    for count in GROWTH {
        grow(count);
    }
}

/// Seconds and calls of what is done in between.
fn timed(emulator: &Emulator, what: &str, run: impl FnOnce()) -> f64 {
    emulator.reset_calls();
    let started = Instant::now();
    run();
    let seconds = started.elapsed().as_secs_f64();
    let counts = emulator.counts();
    let calls: usize = counts.values().sum();
    println!("{what}: {seconds:.2} s, {calls} calls: {counts:?}");
    seconds
}

fn compare() {
    let fleet = Fleet::of(SERVICES);
    let emulator = fleet.emulator();
    let first = timed(&emulator, "natsctl, nothing there", || drop(fleet.deploy(&emulator, &[]).succeeded()));
    timed(&emulator, "natsctl, nothing changed", || drop(fleet.deploy(&emulator, &[]).succeeded()));
    timed(&emulator, "natsctl status", || drop(fleet.natsctl(&emulator, &["status"])));
    fleet.version("quest-system", 2);
    timed(&emulator, "natsctl, one image changed", || drop(fleet.deploy(&emulator, &[]).succeeded()));
    for name in &fleet.services {
        fleet.version(name, 3);
    }
    let all = timed(&emulator, "natsctl, all images changed", || drop(fleet.deploy(&emulator, &[]).succeeded()));

    let folder = tempfile::tempdir().unwrap();
    let names = services(&emulator);
    for name in &names {
        fs::write(folder.path().join(name), definition(&emulator, name).to_string()).unwrap();
    }
    if has("ecs") {
        let seconds = timed(&emulator, "ecs-deploy, all images changed, one after the other", || {
            for name in &names {
                let container = definition(&emulator, name)["containerDefinitions"][0]["name"].clone();
                let image = format!("docker.io/example/{name}@sha256:{}", "04".repeat(32));
                let arguments =
                    ["deploy", CLUSTER, name, "--image", container.as_str().unwrap(), &image, "--timeout", "120"];
                run(&emulator, "ecs", &arguments);
            }
        });
        println!("ecs-deploy / natsctl, all images changed: {:.1}", seconds / all);
    }
    if has("aws") {
        let seconds = timed(&emulator, "aws CLI in a loop, all images changed", || {
            for name in &names {
                run(
                    &emulator,
                    "aws",
                    &["ecs", "register-task-definition", "--cli-input-json", &at(folder.path(), name)],
                );
                run(
                    &emulator,
                    "aws",
                    &["ecs", "update-service", "--cluster", CLUSTER, "--service", name, "--task-definition", name],
                );
            }
            stable(&emulator, &names);
        });
        println!("aws CLI / natsctl, all images changed: {:.1}", seconds / all);
        emulator.clean();
        let seconds = timed(&emulator, "aws CLI in a loop, nothing there", || {
            for name in &names {
                run(
                    &emulator,
                    "aws",
                    &["ecs", "register-task-definition", "--cli-input-json", &at(folder.path(), name)],
                );
                create(&emulator, name);
            }
            stable(&emulator, &names);
        });
        println!("aws CLI / natsctl, nothing there: {:.1}", seconds / first);
    }
}

/// How looking and planning grow.
fn grow(count: usize) {
    let fleet = Fleet::of(count);
    let emulator = fleet.emulator();
    drop(fleet.deploy(&emulator, &["--wait-until", "accepted", "--max-parallel", "32"]).succeeded());
    timed(&emulator, &format!("natsctl status, {count} services"), || drop(fleet.natsctl(&emulator, &["status"])));
    let plan = || drop(fleet.natsctl(&emulator, &["plan", "--proof", "ecs", "--save-observed", "observed.json"]));
    timed(&emulator, &format!("natsctl plan, {count} services"), plan);
    let observed = fs::read_to_string(fleet.manifests().with_file_name("observed.json")).unwrap();
    let (same, changed) = planner(&serde_json::from_str(&observed).unwrap());
    println!("the planner alone, {count} services: nothing changed {same:?}, all images changed {changed:?}");
}

/// How long deciding takes when everything is known: nothing to do, and every service to update. Medians.
fn planner(observed: &Observed) -> (Duration, Duration) {
    let service = |there: &ObservedService| Service {
        definition: there.state.definition.clone(),
        tasks: there.state.declared_tasks,
        scaling: Scaling { min: 1, max: 100 },
        calls: BTreeSet::new(),
        streams: BTreeSet::new(),
        buckets: BTreeSet::new(),
        consumers: BTreeSet::new(),
        ecs: there.state.ecs.clone(),
    };
    let mut desired = natsctl::model::desired::Desired {
        environment: "production".to_owned(),
        nodes: BTreeMap::new(),
        streams: BTreeMap::new(),
        buckets: BTreeMap::new(),
        consumers: BTreeMap::new(),
        services: observed.services.iter().map(|(name, there)| (name.clone(), service(there))).collect(),
        images: observed.images.clone(),
        identities: BTreeMap::new(),
    };
    let selection = Selection { services: desired.services.keys().cloned().collect(), all: true };
    let change = Change::Deploy(Deploy { selection, ..Deploy::default() });
    let median = |desired: &natsctl::model::desired::Desired, steps: usize| {
        let mut times: Vec<Duration> = (0..21)
            .map(|_| {
                let started = Instant::now();
                let plan = Plan::new(&change, desired, observed).expect("nothing is unknown");
                let took = started.elapsed();
                assert_eq!(plan.steps.len(), steps);
                took
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    let same = median(&desired, 0);
    for service in desired.services.values_mut() {
        service.definition.artifact = "another".to_owned();
    }
    (same, median(&desired, desired.services.len()))
}

fn services(emulator: &Emulator) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut token = Value::Null;
    loop {
        let mut body = json!({ "cluster": CLUSTER, "maxResults": 100 });
        if !token.is_null() {
            body["nextToken"] = token;
        }
        let answer = emulator.call("ecs", "ListServices", &body);
        let arns = answer["serviceArns"].as_array().unwrap().iter();
        names.extend(arns.map(|arn| arn.as_str().unwrap().rsplit('/').next().unwrap().to_owned()));
        token = answer["nextToken"].clone();
        if token.is_null() {
            return names;
        }
    }
}

/// The newest definition of a family, as it can be registered again.
fn definition(emulator: &Emulator, family: &str) -> Value {
    let answer = emulator.call("ecs", "DescribeTaskDefinition", &json!({ "taskDefinition": family }));
    let mut definition = answer["taskDefinition"].clone();
    let taken = [
        "family",
        "containerDefinitions",
        "cpu",
        "memory",
        "networkMode",
        "requiresCompatibilities",
        "executionRoleArn",
        "taskRoleArn",
        "runtimePlatform",
    ];
    definition.as_object_mut().unwrap().retain(|key, _| taken.contains(&key.as_str()));
    definition
}

/// The same that natsctl makes of a new service.
fn create(emulator: &Emulator, name: &str) {
    let network = "awsvpcConfiguration={subnets=[subnet-1],securityGroups=[sg-1]}";
    let deployment =
        "deploymentCircuitBreaker={enable=true,rollback=true},minimumHealthyPercent=100,maximumPercent=200";
    run(
        emulator,
        "aws",
        &[
            "ecs",
            "create-service",
            "--cluster",
            CLUSTER,
            "--service-name",
            name,
            "--task-definition",
            name,
            "--desired-count",
            "2",
            "--launch-type",
            "FARGATE",
            "--network-configuration",
            network,
            "--deployment-configuration",
            deployment,
        ],
    );
    let resource = format!("service/{CLUSTER}/{name}");
    let target =
        ["--service-namespace", "ecs", "--scalable-dimension", "ecs:service:DesiredCount", "--resource-id", &resource];
    let register =
        ["application-autoscaling", "register-scalable-target", "--min-capacity", "2", "--max-capacity", "10"];
    run(emulator, "aws", &[&register[..], &target[..]].concat());
    for metric in ["ECSServiceAverageCPUUtilization", "ECSServiceAverageMemoryUtilization"] {
        let tracking =
            json!({ "TargetValue": 70.0, "PredefinedMetricSpecification": { "PredefinedMetricType": metric } });
        let tracking = tracking.to_string();
        let put = [
            "application-autoscaling",
            "put-scaling-policy",
            "--policy-name",
            metric,
            "--policy-type",
            "TargetTrackingScaling",
            "--target-tracking-scaling-policy-configuration",
            &tracking,
        ];
        run(emulator, "aws", &[&put[..], &target[..]].concat());
    }
}

/// One wait for each ten services, as the call takes no more.
fn stable(emulator: &Emulator, names: &[String]) {
    for names in names.chunks(10) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        run(
            emulator,
            "aws",
            &[&["ecs", "wait", "services-stable", "--cluster", CLUSTER, "--services"], &names[..]].concat(),
        );
    }
}

fn at(folder: &Path, name: &str) -> String {
    format!("file://{}", folder.join(name).display())
}

fn run(emulator: &Emulator, program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).envs(emulator.env()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

//! A service that has the name of one of ours and is not: no command takes it over, changes it or shows it as ours.

use serde_json::{Value, json};

use super::fleet::Fleet;
use super::world::World;
use crate::emulator::Emulator;

const CLUSTER: &str = "gaming-system-cluster";
const SERVICE: &str = "quest-system-nats";
const IMAGE: &str = "docker.io/example/other:1";

struct Case {
    fleet: Fleet,
    emulator: Emulator,
}

impl Case {
    /// A service that natsctl did not create for this environment is there, with these tags, before anything is deployed.
    fn new(tags: &[(&str, &str)]) -> Self {
        let fleet = Fleet::of(6);
        let emulator = fleet.emulator();
        let definition = json!({
            "family": "other", "requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc", "cpu": "256", "memory": "512",
            "containerDefinitions": [{ "name": "other", "image": IMAGE }],
        });
        emulator.call("ecs", "RegisterTaskDefinition", &definition);
        let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let service = json!({
            "cluster": CLUSTER, "serviceName": SERVICE, "taskDefinition": "other:1", "desiredCount": 2, "launchType": "FARGATE",
            "networkConfiguration": { "awsvpcConfiguration": { "subnets": ["subnet-1"] } }, "tags": tags,
        });
        emulator.call("ecs", "CreateService", &service);
        Self { fleet, emulator }
    }

    /// Every command that names the service is refused, and says this; nothing is changed.
    #[track_caller]
    fn refused(&self, parts: &[&str]) {
        self.emulator.reset_calls();
        let commands: [&[&str]; 15] = [
            &["plan"],
            &["deploy", "--all"],
            &["deploy", "quest-system"],
            &["restart", "quest-system"],
            &["scale", "quest-system", "3"],
            &["stop", "--all", "quest-system", "--yes"],
            &["rollback", "quest-system"],
            &["rollback", "quest-system", "--to", "1"],
            &["revisions", "quest-system"],
            &["deregister", "quest-system", "--keep", "1"],
            &["run", "quest-system", "--", "migrate"],
            &["logs", "quest-system"],
            &["events", "quest-system"],
            &["tasks", "quest-system"],
            &["drift"],
        ];
        for command in commands {
            let ran = self.fleet.natsctl(&self.emulator, command);
            assert_eq!(ran.code, Some(1), "{command:?}: {ran:#?}");
            for part in parts {
                assert!(ran.stderr.contains(part), "{command:?} does not say `{part}`:\n{}", ran.stderr);
            }
        }
        let is_ledger = |name: &str| name.starts_with("dynamodb:");
        let calls = self.emulator.calls();
        let writes: Vec<String> = calls
            .iter()
            .filter(|call| call.is_write)
            .map(crate::emulator::Call::name)
            .filter(|name| !is_ledger(name))
            .collect();
        assert_eq!(writes, Vec::<String>::new());
        assert_eq!(World::of(&self.emulator).services[SERVICE].image, IMAGE);
    }
}

#[test]
fn a_service_of_another_project_is_refused_by_every_command() {
    let case =
        Case::new(&[("natsctl:project", "shop"), ("natsctl:environment", "production"), ("natsctl:service", "x")]);
    case.refused(&[
        "the ECS service `quest-system-nats` is of project `shop`, environment `production`",
        "another `ecs_name`",
    ]);
    case.fleet
        .natsctl(&case.emulator, &["import", SERVICE, "--as", "shop"])
        .failed(&["is of project `shop`", "the service was left alone"]);
}

#[test]
fn a_service_of_another_environment_is_refused_by_every_command() {
    let tags = [
        ("natsctl:project", "gaming-system"),
        ("natsctl:environment", "development"),
        ("natsctl:service", "quest-system"),
    ];
    Case::new(&tags).refused(&["is of project `gaming-system`, environment `development`", "hint:"]);
}

#[test]
fn a_service_without_tags_is_taken_over_only_if_its_manifest_names_it() {
    let case = Case::new(&[("team", "payments")]);
    case.refused(&["`quest-system-nats` was not created by natsctl", "write `ecs_name: quest-system-nats`"]);

    let image = Fleet::image("quest-system", 1);
    case.fleet.manifest("quest-system", &format!("ecs_name: {SERVICE}\nbuild: {{ image: \"{image}\" }}\n"));
    case.fleet.deploy(&case.emulator, &[]).succeeded();
    assert_eq!(World::of(&case.emulator).services[SERVICE].image, image);
}

#[test]
fn a_foreign_service_keeps_no_other_from_being_deployed_and_is_a_problem_of_the_status() {
    let case = Case::new(&[("natsctl:project", "shop")]);
    case.fleet.natsctl(&case.emulator, &["deploy", "npc-behavior"]).succeeded();
    let events = case.fleet.natsctl(&case.emulator, &["events"]).succeeded();
    assert!(!events.stdout.contains("quest-system"), "{events:#?}");
    let status = case.fleet.natsctl(&case.emulator, &["status", "--output", "json"]);
    let problems = status.json()["problems"].to_string();
    assert!(
        problems.contains("service `quest-system`: the ECS service `quest-system-nats` is of project `shop`"),
        "{problems}"
    );
    assert!(!problems.contains("`quest-system` is not deployed"), "{problems}");
}

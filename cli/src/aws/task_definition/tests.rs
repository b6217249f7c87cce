use proptest::prelude::*;

use super::*;
use crate::model::plan::differences;

const SECRET: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:nats/quest-system-AbCdEf";

fn definition() -> Definition {
    Definition {
        artifact: format!("sha256:{}", "1".repeat(64)),
        version: "0.1.0+111111111111".to_owned(),
        role: Role::Worker,
        permissions: "p".to_owned(),
        environment: BTreeMap::from([("LOG_LEVEL".to_owned(), "info".to_owned())]),
        secrets: BTreeMap::new(),
        cpu: 256,
        memory_mib: 512,
        workers: 2,
        concurrency: 100,
        health: Health {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            retries: 3,
            start_period: Duration::from_secs(30),
        },
        stop_timeout: Duration::from_secs(30),
        ecs: Some(EcsTask {
            family: "quest-system-nats".to_owned(),
            container: "quest-system".to_owned(),
            repository: "localhost:5000/quest-system-nats".to_owned(),
            execution_role: "arn:execution".to_owned(),
            task_role: "arn:task".to_owned(),
            log_group: "/ecs/gaming-system-nats".to_owned(),
            log_prefix: "quest-system-nats".to_owned(),
            region: "us-east-1".to_owned(),
            architecture: Architecture::X86_64,
            secrets: BTreeMap::from([
                ("NATS_CREDS".to_owned(), SecretReference::key(SECRET, "creds")),
                ("TOKEN".to_owned(), SecretReference::Parameter("/shop/token".to_owned())),
            ]),
            document: own_document("quest-system", Role::Worker, false),
        }),
    }
}

/// As ECS gives back what was registered: lists in another order, defaults filled in.
fn described(definition: &Definition) -> Value {
    let mut said = to_json(&registered("quest-system", definition).unwrap()).unwrap();
    let container = &mut said["containerDefinitions"][0];
    for list in ["environment", "secrets"] {
        container[list].as_array_mut().unwrap().reverse();
    }
    for port in container["portMappings"].as_array_mut().unwrap() {
        port["hostPort"] = port["containerPort"].clone();
        port["protocol"] = "tcp".into();
    }
    for (field, value) in
        [("cpu", json!(0)), ("mountPoints", json!([])), ("volumesFrom", json!([])), ("essential", json!(true))]
    {
        container[field] = value;
    }
    for (field, value) in [
        ("taskDefinitionArn", json!("arn:aws:ecs:us-east-1:123456789012:task-definition/quest-system-nats:3")),
        ("revision", json!(3)),
        ("status", json!("ACTIVE")),
        ("compatibilities", json!(["EC2", "FARGATE"])),
        ("requiresAttributes", json!([{ "name": "com.amazonaws.ecs.capability.task-eni" }])),
        ("volumes", json!([])),
    ] {
        said[field] = value;
    }
    said
}

fn read(said: &Value) -> Definition {
    let found = from_json(said, SdkTaskDefinition::deserialize).unwrap();
    TaskDefinition::new("quest-system".into(), found, &[]).unwrap().definition
}

proptest! {
    #[test]
    fn what_was_registered_is_read_as_it_was_written(
        workers in 1..64_u32,
        concurrency in 1..10_000_u32,
        stop in 1..120_u64,
        interval in 5..300_u64,
        (gateway, arm, session) in any::<(bool, bool, bool)>(),
        environment in prop::collection::btree_map("[A-Za-z_][A-Za-z_.]{0,8}", ".{0,12}", 0..5),
    ) {
        let mut written = definition();
        written.role = if gateway { Role::Gateway } else { Role::Worker };
        (written.workers, written.concurrency) = (workers, concurrency);
        written.stop_timeout = Duration::from_secs(stop);
        written.health.interval = Duration::from_secs(interval);
        let reserved = ["WORKERS", "CONCURRENCY", "SERVICE_NAME", "SERVICE_VERSION", "STOP_TIMEOUT_MS"];
        written.environment = environment.into_iter().filter(|(name, _)| !reserved.contains(&name.as_str())).collect();
        let role = written.role;
        let task = written.ecs.as_mut().unwrap();
        task.architecture = if arm { Architecture::Arm64 } else { Architecture::X86_64 };
        task.document = own_document("quest-system", role, session);
        prop_assert_eq!(read(&described(&written)), written);
    }
}

/// What differs between the definition and a revision of it that was changed by hand, as a plan shows it.
#[track_caller]
fn check(change: impl FnOnce(&mut Value), expected: &[&str]) {
    let mut said = described(&definition());
    change(&mut said);
    let differences = differences("", Some(&read(&said)), &definition());
    assert_eq!(differences.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
}

#[test]
fn every_field_of_the_container_is_compared() {
    let container = "ecs.containerDefinitions.quest-system";
    for (field, by_hand, shown) in [
        ("privileged", json!(true), "privileged true → (none)"),
        ("user", json!("0"), "user 0 → 65532:65532"),
        ("entryPoint", json!(["/bin/sh"]), "entryPoint [\"/bin/sh\"] → (none)"),
        ("workingDirectory", json!("/srv"), "workingDirectory /srv → (none)"),
        (
            "repositoryCredentials",
            json!({ "credentialsParameter": "arn:x" }),
            "repositoryCredentials.credentialsParameter arn:x → (none)",
        ),
        ("dockerLabels", json!({ "natsctl.permissions": "p", "team": "a" }), "dockerLabels.team a → (none)"),
        (
            "mountPoints",
            json!([{ "containerPath": "/d", "sourceVolume": "v" }]),
            "mountPoints./d.sourceVolume v → (none)",
        ),
        ("dependsOn", json!([{ "containerName": "x", "condition": "START" }]), "dependsOn.x START → (none)"),
        ("systemControls", json!([{ "namespace": "a.b", "value": "1" }]), "systemControls.a.b 1 → (none)"),
        ("memoryReservation", json!(64), "memoryReservation 64 → (none)"),
        ("essential", json!(false), "essential false → (none)"),
    ] {
        check(|said| said["containerDefinitions"][0][field] = by_hand, &[&format!("{container}.{shown}")]);
    }
}

#[test]
fn an_option_of_the_log_that_was_changed_by_hand_is_found() {
    let options = "ecs.containerDefinitions.quest-system.logConfiguration.options";
    check(
        |said| said["containerDefinitions"][0]["logConfiguration"]["options"]["mode"] = "blocking".into(),
        &[&format!("{options}.mode blocking → non-blocking")],
    );
    check(
        |said| said["containerDefinitions"][0]["logConfiguration"]["options"]["awslogs-datetime-format"] = "%Y".into(),
        &[&format!("{options}.awslogs-datetime-format %Y → (none)")],
    );
}

#[test]
fn every_field_of_the_task_is_compared() {
    for (field, by_hand, shown) in [
        (
            "volumes",
            json!([{ "name": "data", "configuredAtLaunch": true }]),
            "volumes.data.configuredAtLaunch true → (none)",
        ),
        ("ephemeralStorage", json!({ "sizeInGiB": 50 }), "ephemeralStorage.sizeInGiB 50 → (none)"),
        ("pidMode", json!("task"), "pidMode task → (none)"),
        ("enableFaultInjection", json!(true), "enableFaultInjection true → (none)"),
        ("networkMode", json!("bridge"), "networkMode bridge → awsvpc"),
        (
            "runtimePlatform",
            json!({ "operatingSystemFamily": "WINDOWS_SERVER_2022_CORE" }),
            "runtimePlatform.operatingSystemFamily WINDOWS_SERVER_2022_CORE → (none)",
        ),
    ] {
        check(|said| said[field] = by_hand, &[&format!("ecs.{shown}")]);
    }
}

#[test]
fn a_sidecar_is_shown_by_its_name() {
    let sidecar = json!({ "name": "proxy", "image": "example/proxy:1" });
    check(
        |said| said["containerDefinitions"].as_array_mut().unwrap().insert(0, sidecar),
        &["ecs.containerDefinitions.proxy.image example/proxy:1 → (none)"],
    );
}

#[test]
fn a_variable_of_natsctl_that_was_changed_by_hand_is_found() {
    let set = |said: &mut Value, name: &str, value: &str| {
        let variables = said["containerDefinitions"][0]["environment"].as_array_mut().unwrap();
        variables.iter_mut().find(|variable| variable["name"] == name).unwrap()["value"] = value.into();
    };
    check(|said| set(said, "WORKERS", "7"), &["workers 7 → 2"]);
    check(|said| set(said, "WORKERS", "many"), &["environment.WORKERS many → (none)", "workers 0 → 2"]);
    check(|said| set(said, "SERVICE_NAME", "auth"), &["environment.SERVICE_NAME auth → (none)"]);
}

#[test]
fn the_part_of_a_secret_that_differs_is_shown() {
    let from = |value_from: String| {
        move |said: &mut Value| {
            let secrets = said["containerDefinitions"][0]["secrets"].as_array_mut().unwrap();
            secrets.iter_mut().find(|secret| secret["name"] == "NATS_CREDS").unwrap()["valueFrom"] = value_from.into();
        }
    };
    let creds = "ecs.secrets.NATS_CREDS";
    check(from(format!("{SECRET}:creds:AWSPREVIOUS:")), &[&format!("{creds}.stage AWSPREVIOUS → (none)")]);
    check(from(format!("{SECRET}:cert::")), &[&format!("{creds}.key cert → creds")]);
    check(from(format!("{SECRET}:creds::0123")), &[&format!("{creds}.version 0123 → (none)")]);
    let other = SECRET.replace("us-east-1", "eu-west-1");
    check(from(format!("{other}:creds::")), &[&format!("{creds}.secret {}… → {}…", &other[..40], &SECRET[..40])]);
    check(
        from("/nats/creds".to_owned()),
        &[
            &format!("{creds}.key (none) → creds"),
            &format!("{creds}.parameter /nats/creds → (none)"),
            &format!("{creds}.secret (none) → {}…", &SECRET[..40]),
        ],
    );
}

#[test]
fn a_health_check_that_was_removed_by_hand_is_found() {
    check(
        |said| drop(said["containerDefinitions"][0].as_object_mut().unwrap().remove("healthCheck")),
        &[
            "ecs.containerDefinitions.quest-system.healthCheck.command (none) → [\"CMD\",\"/app\",\"healthcheck\"]",
            "health.interval 0 s → 10 s",
            "health.retries 0 → 3",
            "health.start_period 0 s → 30 s",
            "health.timeout 0 s → 5 s",
        ],
    );
}

#[test]
fn nothing_differs_from_what_was_registered() {
    check(|_| {}, &[]);
}

#[test]
fn the_container_of_a_service_is_found_by_its_name_and_not_by_its_position() {
    let of =
        |containers: Value| container_name("shop".into(), &canonical(json!({ "containerDefinitions": containers })));
    let sidecar = json!({ "name": "agent" });
    let named = json!({ "name": "app", "environment": [{ "name": "SERVICE_NAME", "value": "shop" }] });
    assert_eq!(of(json!([sidecar, { "name": "shop" }])), "shop");
    assert_eq!(of(json!([sidecar, named])), "app");
    assert_eq!(of(json!([{ "name": "agent", "essential": false }, { "name": "web" }])), "web");
    assert_eq!(of(json!([])), "shop");
}

#[test]
fn health_checks_are_what_ecs_can_have() {
    let health = Health {
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(2_500),
        retries: 3,
        start_period: Duration::from_secs(900),
    };
    let on_ecs = health_on_ecs(health);
    assert_eq!(on_ecs.interval, Duration::from_secs(5));
    assert_eq!(on_ecs.timeout, Duration::from_secs(3));
    assert_eq!(on_ecs.start_period, Duration::from_secs(300));
}

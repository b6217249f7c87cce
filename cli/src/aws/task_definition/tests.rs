use aws_sdk_ecs::types::Volume;
use proptest::prelude::*;

use super::*;

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
            repository: "localhost:5000/quest-system-nats".to_owned(),
            execution_role: "arn:execution".to_owned(),
            task_role: "arn:task".to_owned(),
            log_group: "/ecs/gaming-system-nats".to_owned(),
            log_prefix: "quest-system-nats".to_owned(),
            region: "us-east-1".to_owned(),
            architecture: Architecture::X86_64,
            execute_command: false,
            secrets: BTreeMap::from([("NATS_CREDS".to_owned(), "arn:secret:creds::".to_owned())]),
            foreign: BTreeMap::new(),
        }),
    }
}

/// As ECS gives back what was registered: lists in another order, defaults filled in.
fn registered(definition: &Definition) -> SdkTaskDefinition {
    let task = definition.ecs.as_ref().unwrap();
    let mut container = container("quest-system", definition, task).unwrap();
    container.environment.as_mut().unwrap().reverse();
    container.secrets.as_mut().unwrap().reverse();
    container.mount_points = Some(Vec::new());
    container.volumes_from = Some(Vec::new());
    container.system_controls = Some(Vec::new());
    SdkTaskDefinition::builder()
        .task_definition_arn("arn:aws:ecs:us-east-1:123456789012:task-definition/quest-system-nats:3")
        .family(&task.family)
        .revision(3)
        .task_role_arn(&task.task_role)
        .execution_role_arn(&task.execution_role)
        .network_mode(NetworkMode::Awsvpc)
        .requires_compatibilities(Compatibility::Fargate)
        .compatibilities(Compatibility::Ec2)
        .compatibilities(Compatibility::Fargate)
        .set_volumes(Some(Vec::new()))
        .cpu(definition.cpu.to_string())
        .memory(definition.memory_mib.to_string())
        .runtime_platform(platform(task.architecture))
        .container_definitions(container)
        .build()
}

proptest! {
    #[test]
    fn what_was_registered_is_read_as_it_was_written(
        workers in 1..64_u32,
        concurrency in 1..10_000_u32,
        stop in 1..120_u64,
        interval in 5..300_u64,
        (gateway, arm, session) in any::<(bool, bool, bool)>(),
        environment in prop::collection::btree_map("[A-Z][A-Z_]{0,8}", ".{0,12}", 0..5),
    ) {
        let mut written = definition();
        written.role = if gateway { Role::Gateway } else { Role::Worker };
        (written.workers, written.concurrency) = (workers, concurrency);
        written.stop_timeout = Duration::from_secs(stop);
        written.health.interval = Duration::from_secs(interval);
        let reserved = ["WORKERS", "CONCURRENCY", "SERVICE_NAME", "SERVICE_VERSION", "STOP_TIMEOUT_MS"];
        written.environment = environment.into_iter().filter(|(name, _)| !reserved.contains(&name.as_str())).collect();
        let task = written.ecs.as_mut().unwrap();
        task.architecture = if arm { Architecture::Arm64 } else { Architecture::X86_64 };
        task.execute_command = session;
        prop_assert_eq!(parse("quest-system", &registered(&written)), written);
    }
}

#[track_caller]
fn check_foreign(change: impl FnOnce(&mut SdkTaskDefinition), expected: &[&str]) {
    let mut found = registered(&definition());
    change(&mut found);
    let foreign = parse("quest-system", &found).ecs.unwrap().foreign;
    assert_eq!(foreign.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{foreign:#?}");
}

#[test]
fn what_another_tool_has_added_is_foreign() {
    check_foreign(
        |found| found.container_definitions.as_mut().unwrap()[0].privileged = Some(true),
        &["container.privileged"],
    );
    check_foreign(
        |found| found.container_definitions.as_mut().unwrap()[0].user = Some("0".to_owned()),
        &["container.user"],
    );
    check_foreign(
        |found| found.container_definitions.as_mut().unwrap()[0].health_check = None,
        &["container.health_check"],
    );
    check_foreign(|found| found.volumes = Some(vec![Volume::builder().name("data").build()]), &["volumes"]);
    check_foreign(
        |found| {
            let extra = ContainerDefinition::builder().name("sidecar").image("example/proxy:1").build();
            found.container_definitions.as_mut().unwrap().push(extra);
        },
        &["container sidecar"],
    );
    check_foreign(|_| {}, &[]);
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

use std::time::Duration;

use aws_sdk_ecs::types::{
    AwsVpcConfiguration, ContainerDefinition, HealthCheck, KeyValuePair, LaunchType, LoadBalancer,
    NetworkConfiguration, Secret, Service as SdkService, TaskDefinition as SdkTaskDefinition,
};

use super::*;
use crate::aws::task_definition::TaskDefinition;
use crate::handover::Handover;
use crate::manifest::Manifests;
use crate::manifest::fixture::Tree;

const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn handover() -> Handover {
    crate::handover::tests::GOOD.parse().unwrap()
}

fn service(name: &str) -> SdkService {
    let network = AwsVpcConfiguration::builder().subnets("subnet-1").security_groups("sg-1").build().unwrap();
    SdkService::builder()
        .service_name(name)
        .desired_count(3)
        .launch_type(LaunchType::Fargate)
        .network_configuration(NetworkConfiguration::builder().awsvpc_configuration(network).build())
        .build()
}

fn definition(change: impl FnOnce(ContainerDefinition) -> ContainerDefinition) -> SdkTaskDefinition {
    let health = HealthCheck::builder().set_command(Some(vec!["CMD".to_owned(), "/app".to_owned()]));
    let health = health.interval(10).timeout(5).retries(5).start_period(30).build().unwrap();
    let pair = |name: &str, value: &str| KeyValuePair::builder().name(name).value(value).build();
    let secret = |name: &str, from: &str| Secret::builder().name(name).value_from(from).build().unwrap();
    let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:gaming-system/production/payment/key-AbCdEf";
    let container = ContainerDefinition::builder()
        .name("payment")
        .image("registry.example/payment:1")
        .environment(pair("LOG_LEVEL", "debug"))
        .environment(pair("MOTTO", "a: \"b\" #c"))
        .secrets(secret("PAYMENT_KEY", arn))
        .secrets(secret("NATS_CA", "arn:aws:secretsmanager:us-east-1:123456789012:secret:x-AbCdEf:ca::"))
        .stop_timeout(60)
        .health_check(health)
        .build();
    SdkTaskDefinition::builder()
        .family("payment-nats")
        .revision(7)
        .cpu("512")
        .memory("1024")
        .container_definitions(change(container))
        .build()
}

fn imported(service: SdkService, definition: SdkTaskDefinition, manifests: &Manifests) -> Written {
    let (service, definition) = (Service::from(service), TaskDefinition::new("payment", definition, &[]));
    let found = Found {
        name: "payment",
        service: &service,
        definition: &definition.definition,
        source: "arn:aws:ecs:us-east-1:123456789012:task-definition/payment-nats:7",
        image: &definition.container("payment").unwrap().image,
        digest: Some(DIGEST.to_owned()),
        autoscaling: Some(Autoscaling { min: 2, max: 4, cpu_percent: 70, memory_percent: 0 }),
    };
    written(&found, manifests, &handover())
}

#[test]
fn a_manifest_says_what_runs_and_differs_from_the_defaults() {
    let manifests = Tree::valid().load().unwrap();
    let Written { text, .. } = imported(service("payment-nats"), definition(|same| same), &manifests);
    let expected = format!(
        "# yaml-language-server: $schema=../schema/service.schema.json\n# From the task definition payment-nats:7 on \
         ECS.\nname: payment\necs_name: payment-nats\nserves: []\nbuild:\n  image: registry.example/payment@{DIGEST}\ntasks: 3\ncpu: 512\nmemory: 1 \
         GiB\nstop_timeout: 1 min\nhealth:\n  retries: 5\nautoscaling:\n  max: 4\nenvironment:\n  LOG_LEVEL: \"debug\"\n  \
         MOTTO: \"a: \\\"b\\\" #c\"\nsecrets:\n  PAYMENT_KEY: payment/key\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn what_was_written_is_read_as_it_was() {
    let mut tree = Tree::valid();
    let manifests = tree.load().unwrap();
    let Written { text, .. } = imported(service("payment-nats"), definition(|same| same), &manifests);
    tree.write("../services/payment/Cargo.toml", "");
    tree.write("services/payment.yaml", &text);
    let read = tree.load().unwrap_or_else(|problems| panic!("{problems}"));
    let payment = &read.services["payment"];
    assert_eq!(payment.settings.stop_timeout.duration(), Duration::from_secs(60));
    assert_eq!(payment.environment.iter().find(|(name, _)| &***name == "MOTTO").unwrap().1, "a: \"b\" #c");
    assert_eq!(&*payment.secrets.values().next().unwrap().to_string(), "payment/key");
    assert_eq!(payment.settings.autoscaling.max, 4);
}

#[test]
fn what_a_manifest_cannot_say_is_warned_of() {
    let manifests = Tree::valid().load().unwrap();
    let definition = definition(|mut container| {
        container.command = Some(vec!["serve".to_owned()]);
        container
    });
    let mut service = service("payment-nats");
    service.load_balancers = Some(vec![LoadBalancer::builder().target_group_arn("arn").build()]);
    service.network_configuration = None;
    let warnings = imported(service, definition, &manifests).warnings.join("\n");
    for part in ["`serves`", "`container.command`", "load balancers", "other subnets", "its log goes to"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
}

#[test]
fn a_manifest_that_is_there_is_not_overwritten() {
    let tree = Tree::valid();
    let file = tree.folder().join("services/auth.yaml");
    create(&file, "name: auth\n", "auth").unwrap();
    let error = create(&file, "name: other\n", "auth").unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "name: auth\n");
}

#[test]
fn a_name_on_ecs_becomes_one_of_a_manifest() {
    assert_eq!(named("quest-system-nats"), "quest-system");
    assert_eq!(named("Old_Service.v2"), "old-service-v2");
}

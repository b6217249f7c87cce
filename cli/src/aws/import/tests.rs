use std::collections::BTreeMap;
use std::fs;

use aws_sdk_ecs::types::{Tag, TaskDefinition as SdkTaskDefinition};
use serde_json::json;

use super::*;
use crate::aws::api::from_json;
use crate::manifest::fixture::Tree;
use crate::manifest::load_without_services;

const ENVIRONMENT: &str = "production";

/// A service and its task definition as people have them.
fn example(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/aws/definitions");
    serde_json::from_str(&fs::read_to_string(folder.join(format!("{name}.json"))).unwrap()).unwrap()
}

/// What importing it gives: the manifest and the warnings, and why it is refused.
fn imported(said: &Value) -> (String, Vec<String>, Vec<String>) {
    let tree = Tree::valid();
    let handover: Handover = crate::handover::tests::GOOD.parse().unwrap();
    let mut service = said["service"].clone();
    service["taskDefinition"] = "arn:aws:ecs:us-east-1:123456789012:task-definition/found:7".into();
    let service = from_json(&service, SdkService::deserialize).unwrap();
    let definition = from_json(&said["taskDefinition"], SdkTaskDefinition::deserialize).unwrap();
    let name = named(service.service_name().unwrap());
    let tags: Vec<Tag> = said["tags"].as_object().into_iter().flatten().map(|(key, value)| tag(key, value)).collect();
    let container = container_of(&name, None, &service, definition.container_definitions()).unwrap();
    let definition = TaskDefinition::new(Names { service: &name, container: &container }, definition, &tags).unwrap();
    let image = definition.container().unwrap().image.clone();
    let (repository, digest) = image.split_once('@').unwrap();
    let image = Image { repository: repository.to_owned(), digest: digest.to_owned() };
    let read = ReadService::new(service, definition, None, image).unwrap();
    let manifests = load_without_services(&tree.folder(), ENVIRONMENT).unwrap();
    let Written { text, warnings, unsayable } = written_manifest(&read.as_found(&name), &manifests, &handover);
    if !unsayable.is_empty() {
        return (text, warnings, unsayable);
    }
    let file = tree.folder().join(format!("services/{name}.yaml"));
    let manifests = load_with_one(&tree.folder(), ENVIRONMENT, &file, &text)
        .unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    let db = "gaming-system/production/db";
    let arn = format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:{db}-AbCdEf");
    let secrets = BTreeMap::from([(db.to_owned(), arn)]);
    let (changes, _) = read.changes(&name, &manifests, &handover, &secrets).unwrap();
    (text, warnings, changes.iter().map(ToString::to_string).collect())
}

fn tag(key: &str, value: &Value) -> Tag {
    Tag::builder().key(key).value(value.as_str().unwrap()).build()
}

/// It is imported, a deployment of the manifest would change nothing, and the manifest has these lines.
#[track_caller]
fn check(name: &str, lines: &[&str]) {
    let (text, _, refused) = imported(&example(name));
    assert_eq!(refused, Vec::<String>::new(), "{text}");
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "`{line}` is missing:\n{text}");
    }
}

#[test]
fn ports_health_checks_load_balancers_and_upper_case_names_are_imported() {
    check(
        "web",
        &[
            "name: shop-web",
            "role: standalone",
            "ecs_name: Shop-Web",
            "  family: shop-task",
            "  container_name: nginx",
            "      - { app_protocol: http, container_port: 8080, name: http }",
            "  health_check_grace_period_seconds: 120",
            "  http_proxy: \"http://proxy:3128\"",
        ],
    );
}

#[test]
fn variables_that_natsctl_sets_for_others_stay_and_are_named() {
    let (text, warnings, _) = imported(&example("web"));
    let warnings = warnings.join("\n");
    assert!(text.contains("  NATS_URL: ") && text.contains("  SERVICE_NAME: \"web\"\n"), "{text}");
    assert!(warnings.contains("`NATS_URL`, `SERVICE_NAME` stay as they are"), "{warnings}");
}

#[test]
fn sidecars_are_imported_and_none_is_the_service() {
    check("agent", &["  container_name: app", "    datadog-agent:", "      essential: false"]);
    check("migrate", &["  container_name: web", "      - { condition: SUCCESS, container_name: migrate }"]);
    check("firelens", &["    log_router:", "        type: fluentbit", "          parameter: \"/shared/datadog\""]);
}

#[test]
fn volumes_users_and_storage_are_imported() {
    check(
        "efs",
        &[
            "    user: \"1000:1000\"",
            "    size_in_gib: 50",
            "        file_system_id: fs-0123456789abcdef0",
            "    scratch: {}",
        ],
    );
}

#[test]
fn references_to_secrets_are_imported_whole() {
    check(
        "secrets",
        &[
            "    secret: db",
            "    key: password",
            "    stage: AWSPREVIOUS",
            "    version: \"5c1f4f9e-0000-4000-8000-000000000000\"",
            "    secret: arn:aws:secretsmanager:eu-west-1:999999999999:secret:shared/token-QwErTy",
            "    parameter: \"/accounts/flag\"",
        ],
    );
}

#[test]
fn capacity_public_addresses_and_percentages_are_imported() {
    check(
        "spot",
        &["    FARGATE_SPOT:", "      weight: 4", "    assign_public_ip: true", "    minimum_healthy_percent: 50"],
    );
}

#[test]
fn limits_labels_and_logs_elsewhere_are_imported() {
    check(
        "tuned",
        &[
            "      com.example.team: search",
            "        awslogs-region: eu-central-1",
            "  propagate_tags: TASK_DEFINITION",
        ],
    );
}

#[test]
fn tags_are_imported() {
    let mut said = example("java");
    said["tags"] = json!({ "team": "ledger", "aws:cloudformation:stack-name": "x" });
    let (text, _, refused) = imported(&said);
    assert_eq!(refused, Vec::<String>::new(), "{text}");
    assert!(text.contains("  tags:\n    team: ledger\n"), "{text}");
}

#[test]
fn dotted_variables_commands_and_entry_points_are_imported() {
    check(
        "java",
        &["ecs_name: ledger_v2", "    entry_point: [java]", "  spring.profiles.active: \"prod\"", "  EMPTY: \"\""],
    );
}

#[test]
fn other_processors_registries_and_restarts_are_imported() {
    check("arm", &["architecture: arm64", "execute_command: true", "    readonly_root_filesystem: true"]);
}

/// It is refused, and this is why.
#[track_caller]
fn check_refused(change: impl FnOnce(&mut Value), expected: &[&str]) {
    let mut said = example("spot");
    change(&mut said);
    assert_eq!(imported(&said).2, expected);
}

#[test]
fn what_a_manifest_cannot_express_is_refused_by_name() {
    let container = |field: &'static str, value: Value| {
        move |said: &mut Value| said["taskDefinition"]["containerDefinitions"][0][field] = value
    };
    check_refused(
        container("resourceRequirements", json!([{ "type": "GPU", "value": "1" }])),
        &["container.resourceRequirements: [{\"type\":\"GPU\",\"value\":\"1\"}]"],
    );
    check_refused(container("privileged", json!(true)), &["container.privileged: true"]);
    check_refused(container("dnsServers", json!(["10.0.0.2"])), &["container.dnsServers: [\"10.0.0.2\"]"]);
    let task = |field: &'static str, value: Value| move |said: &mut Value| said["taskDefinition"][field] = value;
    check_refused(
        task("proxyConfiguration", json!({ "type": "APPMESH", "containerName": "envoy" })),
        &["proxyConfiguration: {\"containerName\":\"envoy\",\"type\":\"APPMESH\"}"],
    );
    check_refused(task("networkMode", json!("bridge")), &["networkMode: bridge"]);
    check_refused(
        task("runtimePlatform", json!({ "operatingSystemFamily": "WINDOWS_SERVER_2022_CORE" })),
        &["runtimePlatform: {\"operatingSystemFamily\":\"WINDOWS_SERVER_2022_CORE\"}"],
    );
    check_refused(task("pidMode", json!("task")), &["pidMode: task"]);
}

#[test]
fn how_tasks_are_replaced_otherwise_is_refused_by_name() {
    check_refused(
        |said| said["service"]["deploymentConfiguration"]["strategy"] = "BLUE_GREEN".into(),
        &["service.deployment.strategy BLUE_GREEN → (none)"],
    );
}

#[test]
fn several_containers_that_may_be_the_service_are_named() {
    let container = |name: &str| ContainerDefinition::builder().name(name).image("x").build();
    let service = SdkService::builder().service_name("shop").build();
    let of = |typed: Option<&str>, names: &[&str]| {
        let containers: Vec<ContainerDefinition> = names.iter().map(|name| container(name)).collect();
        container_of("shop", typed, &service, &containers)
    };
    assert_eq!(of(None, &["proxy", "shop"]).unwrap(), "shop");
    assert_eq!(of(None, &["main"]).unwrap(), "main");
    assert_eq!(of(Some("app"), &["proxy", "app"]).unwrap(), "app");
    let refused = of(None, &["proxy", "app"]).unwrap_err();
    assert_eq!(refused.to_string(), "`shop` has several containers that may be the service");
    assert_eq!(of(Some("x"), &["proxy"]).unwrap_err().to_string(), "the service has no container `x`");
}

#[test]
fn a_manifest_that_is_there_is_not_overwritten() {
    let tree = Tree::valid();
    let file = tree.folder().join("services/auth.yaml");
    create(&file, "name: auth\n", "auth").unwrap();
    let error = create(&file, "name: other\n", "auth").unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
    assert_eq!(fs::read_to_string(file).unwrap(), "name: auth\n");
}

#[test]
fn a_name_on_ecs_becomes_one_of_a_manifest() {
    for (ecs_name, name) in [
        ("quest-system-nats", "quest-system"),
        ("Old_Service.v2", "old-service-v2"),
        ("a--b-", "a-b"),
        ("2nd-shop", "nd-shop"),
    ] {
        assert_eq!(named(ecs_name), name);
    }
}

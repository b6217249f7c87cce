//! What manifests say of services on ECS, and of secrets.

use super::Tree;
use crate::manifest::load;
use crate::model::secret::SecretReference;

const IMAGE: &str = "docker.io/example/web@sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// What is said of a quest system with these lines.
#[track_caller]
fn check(lines: &str, expected: &[&str]) {
    let mut tree = Tree::valid();
    tree.replace("services/quest-system.yaml", "serves", &format!("{lines}\nserves"));
    let problems = load(&tree.folder(), "production").unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(), expected);
}

/// A standalone service with these lines, beside the others.
fn with_standalone(lines: &str) -> Tree {
    let mut tree = Tree::valid();
    tree.write("services/web.yaml", format!("name: web\nrole: standalone\n{lines}"));
    tree
}

#[test]
fn a_secret_is_a_name_or_a_part_of_one_or_a_parameter() {
    let mut tree = Tree::valid();
    let secrets = "secrets:\n  A: db\n  B: { secret: db, key: password, stage: AWSPREVIOUS }\n  C: { parameter: /shop/token }\nserves";
    tree.replace("services/quest-system.yaml", "serves", secrets);
    let manifests = tree.load().unwrap_or_else(|problems| panic!("{problems}"));
    let read: Vec<&SecretReference> = manifests.services["quest-system"].secrets.values().collect();
    let part = SecretReference::Secret {
        secret: "db".to_owned(),
        key: Some("password".to_owned()),
        stage: Some("AWSPREVIOUS".to_owned()),
        version: None,
    };
    assert_eq!(read, [&SecretReference::whole("db"), &part, &SecretReference::Parameter("/shop/token".to_owned())]);
}

#[test]
fn what_is_no_secret_is_refused() {
    let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:db-AbCdEf";
    for (secret, expected) in [
        ("{ key: password }", "`A` does not say what it is".to_owned()),
        ("{ secret: db, keys: x }", "unknown key `keys`".to_owned()),
        ("{ secret: ../x }", "`../x` is no secret".to_owned()),
        ("{ parameter: a/../../x }", "`a/../../x` is no parameter of Systems Manager".to_owned()),
        ("{ secret: db, key: \"a:b\" }", "`a:b` cannot be the key of a secret".to_owned()),
        ("{ secret: nats/gateway }", "secret `nats/gateway` is the identity of a service on NATS".to_owned()),
        (&format!("{{ secret: \"{arn}:password::\" }}"), format!("`{arn}:password::` names a part of a secret")),
        ("{ secret: \"arn:aws:s3:::x\" }", "`arn:aws:s3:::x` is no secret".to_owned()),
    ] {
        check(&format!("secrets: {{ A: {secret} }}"), &[&expected]);
    }
}

#[test]
fn a_standalone_service_needs_no_crate_and_is_not_on_one_machine() {
    let build = format!("build: {{ image: \"{IMAGE}\" }}\nenvironment: {{ NATS_URL: x, http_proxy: proxy, a.b: z }}\n");
    let tree = with_standalone(&build);
    let loaded = |environment: &str| {
        load(&tree.folder(), environment).unwrap_or_else(|problems| panic!("{problems}")).services.contains_key("web")
    };
    assert!(loaded("production") && !loaded("local"));
}

#[test]
fn a_standalone_service_says_nothing_of_nats_and_has_an_image() {
    let problems = load(&with_standalone("calls: [quest-system]\n").folder(), "production").unwrap_err();
    let said: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    let expected = [
        "a standalone service has no image: cargo builds only services on NATS",
        "`calls` is for services on NATS, and this one is standalone",
    ];
    assert_eq!(said, expected);
}

#[test]
fn the_own_container_is_said_once() {
    check(
        "ecs: { container: { health_check: { command: [CMD, x], interval: 10 } } }",
        &["`interval` of the service's own health check is said twice"],
    );
    check(
        "ecs: { sidecars: { quest-system: { image: x } } }",
        &["sidecar `quest-system` has the name of the service's own container"],
    );
    check("ecs: { container: { comand: [x] } }", &["unknown key `comand`"]);
}

#[test]
fn a_service_on_nats_has_time_to_start() {
    check("health: { start_period: 0 s }", &["`start_period` must be at least 1 s, not 0 s"]);
}

#[test]
fn names_that_ecr_refuses_are_for_services_whose_image_exists() {
    check("ecs_name: Quest_System", &["`Quest_System` has upper-case letters or `_`, and natsctl pushes its image"]);
}

//! What an environment says of services.

use super::{Tree, said};
use crate::manifest::{Manifests, ServiceManifest, load};

const FILE: &str = "environments/local.yaml";

/// The sample, with these lines more in the manifest of the local environment.
fn with(services: &str) -> Tree {
    let mut tree = Tree::valid();
    tree.replace(FILE, "gateway:", &format!("services:\n{services}gateway:"));
    tree
}

fn quest(manifests: &Manifests) -> &ServiceManifest {
    &manifests.services["quest-system"]
}

/// What is said of one line under `services.quest-system`, without the name of the environment's file. The line is the 14th.
#[track_caller]
fn check(line: &str, expected: &[&str]) {
    let tree = with(&format!("  quest-system:\n    {line}\n"));
    let said: Vec<String> = said(&tree).into_iter().map(|line| line.replace(&format!("{FILE}:"), "")).collect();
    assert_eq!(said, expected);
}

#[test]
fn an_environment_differs_key_by_key_and_others_stay_as_they_are() {
    let mut tree = with(
        "  quest-system:\n    tasks: 4\n    cpu: 512\n    memory: 1 GiB\n    autoscaling: { max: 20 }\n    health: { retries: 5 }\n    \
         environment: { LOG_LEVEL: debug, NEW: x }\n    ecs: { network: { assign_public_ip: true } }\n",
    );
    let own = "environment: { LOG_LEVEL: warn, KEPT: kept }\nautoscaling: { cpu_percent: 50 }\nserves";
    tree.replace("services/quest-system.yaml", "serves", own);
    let here = tree.load().unwrap();
    let there = load(&tree.folder(), "production").unwrap();
    let (here, there) = (quest(&here), quest(&there));
    let variables = |service: &ServiceManifest| -> Vec<String> {
        service.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    assert_eq!(variables(here), ["KEPT=kept", "LOG_LEVEL=debug", "NEW=x"]);
    assert_eq!(variables(there), ["KEPT=kept", "LOG_LEVEL=warn"]);
    let figures = |service: &ServiceManifest| {
        let settings = &service.settings;
        let scaling = &settings.autoscaling;
        (settings.tasks, settings.cpu, scaling.min, scaling.max, scaling.cpu_percent, settings.health.retries)
    };
    assert_eq!(figures(here), (4, 512, 2, 20, 50, 5));
    assert_eq!(figures(there), (2, 256, 2, 10, 50, 3));
    assert_eq!(here.serves, there.serves);
    assert_eq!(here.buckets, there.buckets);
}

#[test]
fn a_secret_takes_the_place_of_the_other_and_of_a_plain_variable() {
    let mut tree = with(
        "  quest-system:\n    environment: { TOKEN: test }\n    secrets: { KEY: { parameter: /key }, PLAIN: from/secret }\n",
    );
    let own = "environment: { PLAIN: x }\nsecrets: { KEY: { secret: db, key: k }, TOKEN: token }\nserves";
    tree.replace("services/quest-system.yaml", "serves", own);
    let manifests = tree.load().unwrap();
    let service = quest(&manifests);
    let secrets: Vec<String> = service.secrets.iter().map(|(name, from)| format!("{name}={from}")).collect();
    assert_eq!(secrets, ["KEY=/key", "PLAIN=from/secret"]);
    assert_eq!(service.environment.keys().map(|name| &**name).collect::<Vec<_>>(), ["TOKEN"]);
}

#[test]
fn what_an_environment_gets_wrong_is_said_where_it_is_written() {
    check("taks: 4", &["14:5: unknown key `taks` (did you mean `tasks`?)"]);
    check("tasks: four", &["14:12: `tasks` must be a whole number, not a text"]);
    check("autoscaling: { mim: 1 }", &["14:20: unknown key `mim` (did you mean `min`?)"]);
    check("cpu: 300", &["14:10: `cpu` must not be 300 (it can be 256, 512, 1024, 2048, 4096, 8192, 16384)"]);
    check(
        "environment: { SERVICE_NAME: x }",
        &[concat!(
            "14:20: variable `SERVICE_NAME` is set by the platform (rename it; reserved are `SERVICE_*`, `NATS_*`, `REDIS_*`, ",
            "`LISTEN_*`, `TASK_ID`, `WORKERS`, `CONCURRENCY`, `STOP_TIMEOUT_MS`, `GATEWAY_METHODS`, `HEALTH_ADDR` and `HTTP_ADDR`)"
        )],
    );
    check(
        "ecs: { sidecars: { agent: { essential: false } } }",
        &["14:31: `agent` lacks the key `image` (`image`: its image, with a tag or a digest)"],
    );
    check("tasks:", &["14:5: `tasks` has no value (give it one, or remove the key)"]);
}

#[test]
fn what_does_not_fit_the_service_is_said_of_the_environment() {
    check(
        "memory: 3 GiB",
        &["14:13: Fargate has no task with 256 CPU units and 3 GiB (256 CPU units go with 512 MiB, 1 GiB or 2 GiB)"],
    );
    check("tasks: 40", &["14:12: `tasks` is 40, but `autoscaling` allows 2 to 10 (change one of them)"]);
    let mut tree = with("  quest-system: { cpu: 512 }\n");
    tree.replace("services/quest-system.yaml", "serves", "memory: 2 GiB\nserves");
    assert_eq!(said(&tree), Vec::<String>::new());
    tree.replace("services/quest-system.yaml", "2 GiB", "2 GB");
    let said = said(&tree);
    assert!(said[0].starts_with("services/quest-system.yaml:2:9: "), "{said:?}");
}

#[test]
fn what_is_the_same_everywhere_is_no_key_of_an_environment() {
    for line in ["serves: []", "calls: []", "publishes: []", "ecs_name: other", "role: standalone", "buckets: {}"] {
        let tree = with(&format!("  quest-system:\n    {line}\n"));
        let key = line.split(':').next().unwrap();
        assert!(said(&tree)[0].contains(&format!("{FILE}:14:5: unknown key `{key}`")), "{:?}", said(&tree));
    }
}

#[test]
fn a_service_that_an_environment_invents_is_refused() {
    let expected =
        format!("{FILE}:13:3: service `quest-sytem` has no manifest to differ from (did you mean `quest-system`?)");
    assert_eq!(said(&with("  quest-sytem: { tasks: 4 }\n")), [expected]);
}

#[test]
fn a_service_with_0_tasks_does_not_scale() {
    let tree = with("  quest-system: { tasks: 0 }\n");
    let manifests = tree.load().unwrap();
    let settings = &quest(&manifests).settings;
    assert_eq!((settings.tasks, settings.autoscaling.min, settings.autoscaling.max), (0, 0, 0));
    let mut tree = tree;
    tree.replace("services/quest-system.yaml", "serves", "tasks: 3\nautoscaling: { min: 3 }\nserves");
    assert_eq!(said(&tree), Vec::<String>::new());
}

#[test]
fn a_service_with_0_tasks_and_bounds_is_refused() {
    let hint = "nothing scales a service that is not to run: remove the bounds, or set `tasks` to 1 or more";
    let mut tree = Tree::valid();
    tree.replace("services/quest-system.yaml", "serves", "tasks: 0\nautoscaling: { max: 3 }\nserves");
    let expected =
        format!("services/quest-system.yaml:3:21: `tasks` is 0, but `autoscaling` has a `max` of 3 ({hint})");
    assert_eq!(said(&tree), [expected]);
    let mut tree = with("  quest-system: { autoscaling: { min: 2 } }\n");
    tree.replace("services/quest-system.yaml", "serves", "tasks: 0\nserves");
    assert_eq!(said(&tree), [format!("{FILE}:13:39: `tasks` is 0, but `autoscaling` has a `min` of 2 ({hint})")]);
    let mut tree = Tree::valid();
    tree.replace("fleet.yaml", "tasks: 2", "tasks: 0");
    assert!(said(&tree)[0].contains("`tasks` is 0, but `autoscaling` has a `min` of 2"), "{:?}", said(&tree));
}

//! What AWS would refuse later is refused here, one thing at a time.

use super::Tree;
use crate::manifest::load;

#[track_caller]
fn check(change: impl FnOnce(&mut Tree), expected: &[&str]) {
    let mut tree = Tree::valid();
    change(&mut tree);
    let problems = load(&tree.folder(), "production").unwrap_err();
    let said: Vec<String> = problems
        .iter()
        .map(|problem| format!("{} ({})", problem.message, problem.hint.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(said, expected);
}

#[track_caller]
fn check_build(build: &str, expected: &[&str]) {
    check(|tree| tree.replace("services/quest-system.yaml", "serves", &format!("build: {build}\nserves")), expected);
}

#[test]
fn an_account_a_region_and_a_parameter_look_like_one() {
    check(
        |tree| tree.replace("environments/production.yaml", "platform: aws", "account: \"12\"\nplatform: aws"),
        &["`12` is not the number of an account (it has 12 digits, in quotes)"],
    );
    check(
        |tree| tree.replace("environments/production.yaml", "us-east-1", "virginia"),
        &["`virginia` is not a region (for example `us-east-1`)"],
    );
    check(
        |tree| tree.replace("environments/production.yaml", "/gaming-system/production/natsctl", "natsctl"),
        &[
            "`natsctl` is not the name of a parameter (write the parameter's full name, for example `/gaming-system/production/natsctl`)",
        ],
    );
}

#[test]
fn a_release_of_nats_has_a_version_digests_and_a_place() {
    let nats = |lines: &'static str| {
        move |tree: &mut Tree| {
            tree.replace("environments/production.yaml", "  nodes: 5", &format!("  nodes: 5\n  {lines}"));
        }
    };
    check(nats("version: latest"), &["`latest` is not the version of a release (write it as `2.15.0`)"]);
    check(
        nats("version: 2.14.2"),
        &[
            "natsctl does not know the digests of nats-server 2.14.2 (add `sha256` with `amd64` and `arm64`, or use a version that natsctl knows: `2.15.0`)",
        ],
    );
    check(
        nats("sha256: { amd64: 1z, arm64: ab }"),
        &[
            "`1z` is not a SHA-256 (it has 64 digits from 0 to f, as `sha256sum` prints them)",
            "`ab` is not a SHA-256 (it has 64 digits from 0 to f, as `sha256sum` prints them)",
        ],
    );
    check(
        nats("mirror: ftp://example.com/nats"),
        &[
            "`ftp://example.com/nats` is not where a release can be downloaded from (write a URL with `{arch}` in it, as that of the project: https://github.com/nats-io/nats-server/releases/download/v{version}/nats-server-v{version}-linux-{arch}.tar.gz)",
        ],
    );
}

#[test]
fn an_image_needs_a_digest() {
    check_build(
        "{ image: example/quest:latest }",
        &[
            "image `example/quest:latest` has no digest (a tag can move; write `repository@sha256:…` (`skopeo inspect` shows the digest))",
        ],
    );
    check_build(
        "{ image: a@sha256:1 }",
        &[
            "image `a@sha256:1` has no digest (a tag can move; write `repository@sha256:…` (`skopeo inspect` shows the digest))",
        ],
    );
}

#[test]
fn an_image_comes_from_one_place() {
    check_build(
        "{}",
        &[
            "`build` says neither `dockerfile` nor `image` (write `{ dockerfile: … }` or `{ image: repository@sha256:… }`, or leave `build` out)",
        ],
    );
    check_build("{ dockerfile: Dockerfile, image: a }", &["`build` says `dockerfile` and `image` (keep one)"]);
    check_build("{ context: ., image: a }", &["`context` is for a `dockerfile` (remove it)"]);
}

#[test]
fn a_role_that_is_too_long_for_iam_is_refused() {
    let name = "a-service-with-a-name-that-goes-on-and-on-and-on";
    check(
        |tree| {
            tree.write(&format!("services/{name}.yaml"), format!("name: {name}\n"));
            tree.write(&format!("../services/{name}/Cargo.toml"), "");
        },
        &[
            "its role on AWS would be called `gaming-system-production-a-service-with-a-name-that-goes-on-and-on-and-on`, which has 73 characters (IAM allows 64: shorten the name of the service, the environment or the project)",
        ],
    );
}

#[test]
fn a_boolean_is_no_text() {
    check(
        |tree| tree.replace("services/quest-system.yaml", "serves", "execute_command: \"yes\"\nserves"),
        &["`execute_command` must be `true` or `false`, not a text ()"],
    );
}

#[test]
fn a_name_that_ecr_does_not_accept_is_refused() {
    let hint = "(ECR refuses that as the name of a repository: write single `-` between letters and digits)";
    for name in ["a--b", "quest-", "q--"] {
        check(
            |tree| tree.replace("services/quest-system.yaml", "serves", &format!("ecs_name: {name}\nserves")),
            &[&format!("`{name}` has a `-` at its end, or two in a row {hint}")],
        );
    }
}

#[test]
fn two_services_with_one_name_on_ecs_are_refused() {
    let both = |first: &str, second: &str| {
        format!(
            "`{first}` and `{second}` are both called `quest-system-nats` on ECS (give one of them another `ecs_name`)"
        )
    };
    let name = "ecs_name: quest-system-nats\nserves";
    check(
        |tree| tree.replace("services/state-manager.yaml", "serves", name),
        &[&both("quest-system", "state-manager")],
    );
    check(
        |tree| tree.replace("services/model-management.yaml", "serves", name),
        &[&both("model-management", "quest-system")],
    );
}

#[test]
fn identities_of_natsctl_are_no_services_and_no_secrets() {
    check(
        |tree| {
            tree.write("services/operator.yaml", "name: operator\n");
            tree.write("../services/operator/Cargo.toml", "");
        },
        &[
            "`operator` is the name of an identity of natsctl's own (rename the service; these names are taken: `authority`, \
             `errand`, `natsctl` and `operator`)",
        ],
    );
    check(
        |tree| tree.replace("services/quest-system.yaml", "serves", "secrets: { A: nats/gateway }\nserves"),
        &[
            "secret `nats/gateway` is the identity of a service on NATS (each service has its own, and no other: name a secret \
             that does not begin with `nats/`)",
        ],
    );
}

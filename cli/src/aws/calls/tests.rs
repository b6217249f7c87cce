use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::*;

/// What a policy that is managed by its owner may hold, in characters besides white space.
const LONGEST_POLICY: usize = 6144;

#[test]
fn every_call_is_in_the_table() {
    let known: BTreeSet<String> = CALLS.iter().map(|call| call.action.to_lowercase()).collect();
    let operations = operations();
    assert!(operations.len() > 1000, "the sources of the SDKs were not found");
    let missing: Vec<String> = called(&operations)
        .into_iter()
        .filter(|(operation, _)| !known.contains(&operation.replace('_', "")))
        .map(|(operation, file)| format!("`{operation}` in {}", file.display()))
        .collect();
    assert!(missing.is_empty(), "these calls are not in `CALLS` of cli/src/aws/calls.rs: {missing:#?}");
}

#[test]
fn every_right_in_the_table_is_needed() {
    let called: BTreeSet<String> =
        called(&operations()).into_keys().map(|operation| operation.replace('_', "")).collect();
    let own = CALLS.iter().filter(|call| call.implied.is_none());
    let idle: Vec<String> = own.filter(|call| !called.contains(&call.action.to_lowercase())).map(Call::name).collect();
    assert!(idle.is_empty(), "natsctl makes no such calls: {idle:#?}");
}

#[test]
fn a_right_is_in_the_table_once() {
    let mut seen = Vec::new();
    for call in CALLS {
        let key = (call.name(), call.on);
        assert!(!seen.contains(&key), "`{}` twice", call.name());
        assert!(!call.groups.is_empty(), "`{}` is for no group", call.name());
        assert!(!(call.groups.contains(&Look) && call.access == Access::Write), "`{}` changes something", call.name());
        seen.push(key);
    }
}

#[test]
fn policies_are_short_enough_for_aws() {
    for group in Group::value_variants().iter().copied() {
        let length = group.policy(scope(&placeholders())).to_string().len();
        assert!(length < LONGEST_POLICY, "{group:?}: {length}");
    }
}

#[test]
fn only_what_must_be_is_allowed_on_everything() {
    let policy = Deploy.policy(scope(&placeholders()));
    let wide = policy["Statement"].as_array().unwrap().iter().filter(|statement| statement["Resource"] == json!(["*"]));
    let wide: Vec<&Value> = wide.filter(|statement| statement.get("Condition").is_none()).collect();
    assert_eq!(wide.len(), 1, "{wide:#?}");
    assert_eq!(wide[0]["Action"], json!(["ecs:RegisterTaskDefinition", "ecs:DeregisterTaskDefinition"]));
}

#[test]
fn names_with_parts_become_patterns() {
    assert_eq!(any("a/{service}-{kind}"), "a/*-*");
    assert_eq!(any("plain"), "plain");
}

#[test]
fn the_document_is_made_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/iam.md");
    let text = document();
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == text, "docs/iam.md is not current: run this test with UPDATE=1");
}

/// Operations of all SDKs that natsctl has, as their methods are called.
fn operations() -> BTreeSet<String> {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock")).unwrap();
    // Of this machine's kind alone: cargo has not fetched what others need.
    let metadata = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--offline",
            "--locked",
            "--all-features",
            "--filter-platform",
            &host(),
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    assert!(lock.contains("aws-sdk-ecs"), "the lock file names the SDKs");
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let sdks = metadata["packages"].as_array().unwrap().iter().filter(|package| {
        package["name"].as_str().is_some_and(|name| name.starts_with("aws-sdk-") && !name.starts_with("aws-sdk-sso"))
    });
    let sources =
        sdks.map(|package| Path::new(package["manifest_path"].as_str().unwrap()).with_file_name("src/operation"));
    sources
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter_map(stem)
        .collect()
}

/// As rustc calls the kind of machine that it makes programs for.
fn host() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc says its host").to_owned()
}

/// The operations that the code calls, and where.
fn called(operations: &BTreeSet<String>) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files(&sources.join("aws")).into_iter().chain(files(&sources.join("image"))) {
        let text = fs::read_to_string(&file).unwrap();
        for rest in text.split('.').skip(1) {
            let Some((name, _)) = rest.split_once("()") else { continue };
            if operations.contains(name) {
                found.insert(name.to_owned(), file.clone());
            }
        }
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn stem(path: PathBuf) -> Option<String> {
    path.extension().filter(|extension| *extension == "rs")?;
    Some(path.file_stem()?.to_str()?.to_owned())
}

/// The handover of an account without a number.
/// An environment whose manifests name no roles.
fn scope(handover: &Handover) -> Scope<'_> {
    static NONE: BTreeSet<String> = BTreeSet::new();
    Scope { handover, roles: &NONE }
}

#[test]
fn roles_that_manifests_name_may_be_handed_to_tasks() {
    let roles = BTreeSet::from(["arn:aws:iam::123456789012:role/shop".to_owned()]);
    let policy = Deploy.policy(Scope { handover: &placeholders(), roles: &roles });
    let statements = policy["Statement"].as_array().unwrap();
    let pass = statements.iter().find(|one| one["Action"] == json!(["iam:PassRole"])).unwrap();
    assert!(pass["Resource"].as_array().unwrap().contains(&json!("arn:aws:iam::123456789012:role/shop")), "{pass}");
}

fn placeholders() -> Handover {
    crate::handover::tests::GOOD.replace("123456789012", "ACCOUNT").replace("us-east-1", "REGION").parse().unwrap()
}

fn document() -> String {
    let mut text = String::from(HEAD);
    text.push_str("| call | on | changes | for |\n| --- | --- | --- | --- |\n");
    for Right { call, resources, changes, groups, implied } in rights(scope(&placeholders())) {
        let on = resources.iter().map(|arn| format!("`{arn}`")).collect::<Vec<_>>().join("<br>");
        let why = implied.map(|why| format!("<br>({why})")).unwrap_or_default();
        let changes = if changes { "yes" } else { "" };
        writeln!(text, "| `{call}`{why} | {on} | {changes} | {} |", groups.join(", ")).unwrap();
    }
    for group in Group::value_variants().iter().copied() {
        let policy = serde_json::to_string_pretty(&group.policy(scope(&placeholders()))).unwrap();
        write!(text, "\n## {}\n{}\n\n```json\n{policy}\n```\n", group.name(), about(group)).unwrap();
    }
    text
}

fn about(group: Group) -> &'static str {
    match group {
        Look => {
            "`plan`, `diff`, `drift`, `status`, `tasks`, `logs`, `events`, `revisions`, `history`, `import`, `policy`. It changes \
             nothing; all other groups need it too. `plan` and `status` ask the bus only if they may read natsctl's identity on \
             it, which is in *deploy* and *operate*; `plan --proof ecs` does without."
        }
        Verify => "`verify`, besides *look*.",
        Build => "`build --push`, besides *look*.",
        Deploy => {
            "`deploy`, `restart`, `scale`, `rollback`, `register`, `deregister`, besides *look*; with *build* where it packs images, \
             and with *identities* where permissions on NATS change."
        }
        Operate => "`run`, `stop`, `exec`, `tunnel`, besides *look*.",
        Identities => "`nats identities`, besides *look*.",
        Nats => "`nats plan`, `nats apply` and `deploy --with-nats`, besides *look* (and *deploy*).",
    }
}

const HEAD: &str = "\
# What natsctl may do on AWS

Made of the table in `cli/src/aws/calls.rs`, by `UPDATE=1 cargo test -p natsctl --features aws the_document`; a test fails when a
call is missing from it. The names are those of environment `production`; put your account and your region where `ACCOUNT` and
`REGION` are, and your nodes' instances where `i-1` is. `*` alone stands where AWS knows no narrower right.

`natsctl policy GROUP --env production` writes a policy with the real names; `natsctl verify` asks IAM which of these rights the
caller lacks.

";

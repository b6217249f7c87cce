//! The architecture, where a machine checks it. `ARCHITECTURE.md` says why each rule is there.

#[path = "architecture/rooms.rs"]
mod rooms;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn services_depend_on_the_sdk_and_the_contracts_never_on_each_other() {
    let services: BTreeSet<String> = services().collect();
    for service in &services {
        let others: Vec<_> =
            dependencies(&format!("services/{service}")).into_iter().filter(|d| services.contains(d)).collect();
        assert!(others.is_empty(), "`{service}` depends on {others:?}: let it call them through `proto` clients");
    }
}

#[test]
fn only_the_sdk_and_the_cli_know_nats() {
    only(&["cli", "services/sdk"], |dependency| ["async-nats", "nkeys"].contains(&dependency));
}

#[test]
fn only_the_sdk_knows_redis() {
    only(&["services/sdk"], |dependency| ["moka", "redis"].contains(&dependency));
}

#[test]
fn only_the_cli_knows_aws() {
    only(&["cli"], |dependency| {
        ["aws-config", "aws-sdk-", "aws-smithy", "aws-types"].iter().any(|p| dependency.starts_with(p))
    });
}

#[test]
fn only_the_cli_reads_yaml() {
    only(&["cli"], |dependency| dependency.contains("yaml"));
}

#[test]
fn every_service_has_a_manifest_and_every_manifest_a_service() {
    let manifests: BTreeSet<String> = entries("manifests/services")
        .filter(|file| file.extension().is_some_and(|extension| extension == "yaml"))
        .map(|file| file.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(manifests, services().collect());
}

/// `scripts/up` builds the workspace, `natsctl deploy` the services alone: what has other features is compiled twice.
#[test]
fn services_alone_have_the_features_that_they_have_in_the_workspace() {
    let tree = |selection: &[String]| -> BTreeSet<String> {
        let mut cargo = Command::new("cargo");
        cargo.args(["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none"]);
        let output = cargo.args(["--format", "{p} {f}"]).args(selection).current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
    };
    let workspace = tree(&["--workspace".to_owned()]);
    let alone = tree(&services().flat_map(|service| ["--package".to_owned(), service]).collect::<Vec<_>>());
    let different: Vec<&String> = alone.difference(&workspace).collect();
    assert!(different.is_empty(), "have other features without natsctl: {different:?}; see `tokio` in Cargo.toml");
}

#[test]
fn the_planner_does_no_io() {
    let planner = files("cli/src/model", "rs");
    for file in planner {
        let text = fs::read_to_string(&file).unwrap();
        for word in ["std::fs", "std::env", "std::net", "std::process", "tokio::", "async fn", "SystemTime", "Instant"]
        {
            assert!(
                !text.contains(word),
                "{} uses `{word}`: what the planner decides, it decides from its arguments",
                file.display()
            );
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    let sources = crates().flat_map(|member| files(&format!("{member}/src"), "rs"));
    // The tests of a module are of that module.
    let modules = sources.filter(|file| !file.ends_with("tests.rs"));
    let silent: Vec<_> = modules.filter(|file| !fs::read_to_string(file).unwrap().starts_with("//!")).collect();
    assert!(silent.is_empty(), "these do not begin with `//!`: {silent:#?}");
}

#[test]
fn links_between_documents_resolve() {
    let top = entries(".").filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    let mut broken = Vec::new();
    for file in top.chain(files("docs", "md")) {
        let text = fs::read_to_string(&file).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !file.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links: {broken:#?}");
}

#[test]
fn no_example_in_a_comment_is_rust() {
    let sources = crates().flat_map(|member| files(&format!("{member}/src"), "rs"));
    for file in sources {
        let text = fs::read_to_string(&file).unwrap();
        let comments =
            text.lines().filter_map(|line| line.trim().strip_prefix("///").or(line.trim().strip_prefix("//!")));
        let fences = comments.filter_map(|line| line.trim().strip_prefix("```"));
        for language in fences.step_by(2) {
            let is_text = ["text", "yaml", "json", "sh"].contains(&language);
            assert!(is_text, "{}: `{language}`: no run compiles doc-tests, make it a test", file.display());
        }
    }
}

/// Asserts that no crate outside `allowed` names a dependency for which `matches` holds.
fn only(allowed: &[&str], matches: impl Fn(&str) -> bool) {
    for member in crates().filter(|member| !allowed.contains(&member.as_str())) {
        let found: Vec<_> = dependencies(&member).into_iter().filter(|dependency| matches(dependency)).collect();
        assert!(found.is_empty(), "`{member}` depends on {found:?}; only {allowed:?} may");
    }
}

/// Names in all dependency tables of a crate: for building, running and testing, on any system.
fn dependencies(member: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table.ends_with("dependencies");
            if let Some((_, name)) = table.split_once("dependencies.") {
                names.insert(name.to_owned());
            }
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            names.extend(line.split(['.', ' ', '=']).next().map(str::to_owned));
        }
    }
    names
}

/// Folders of the workspace's crates.
fn crates() -> impl Iterator<Item = String> {
    let services = entries("services").filter(|folder| folder.join("Cargo.toml").exists());
    let services = services.map(|folder| format!("services/{}", folder.file_name().unwrap().to_string_lossy()));
    ["cli", "otlp", "proto"].into_iter().map(str::to_owned).chain(services)
}

/// Names of the services, the gateway among them.
fn services() -> impl Iterator<Item = String> {
    crates().filter_map(|member| member.strip_prefix("services/").map(str::to_owned)).filter(|name| name != "sdk")
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in entries(folder) {
        if entry.is_dir() {
            found.extend(files(entry.to_str().unwrap(), extension));
        } else if entry.extension().is_some_and(|found| found == extension) {
            found.push(entry);
        }
    }
    found
}

/// What is in a folder of the workspace; nothing if it is not there.
fn entries(folder: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(root().join(folder)).into_iter().flatten().map(|entry| entry.unwrap().path())
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
